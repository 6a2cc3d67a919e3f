//! Restarts: ours, the peer's, both, planned and not.

use std::time::{Duration, Instant};

use bird_packet::{Capability, Family, GrFamily, GracefulRestart, OpenMessage, encode_end_of_rib};
use integration::lab::{Process, RouteWatch};
use integration::raw::{self, Heard, RawPeer};

use crate::scene::{AS, DUT, SOON, Scene, at, count, many, route, timed};

/// An OPEN with graceful restart for IPv4.
fn graceful(asn: u32, octet: u8, restart_time: u16, restarting: bool, kept: bool) -> OpenMessage {
    let mut open = raw::open(asn, at(octet));
    let families = vec![GrFamily { family: Family::Ipv4Unicast.into(), forwarding_kept: kept }];
    open.capabilities.push(Capability::GracefulRestart(GracefulRestart {
        restarting,
        notification: false,
        restart_time,
        families,
    }));
    open
}

fn end_of_rib() -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_end_of_rib(Family::Ipv4Unicast, &mut bytes);
    bytes
}

fn restarts_complete(process: &Process) -> usize {
    process.log().matches("restart complete").count()
}

fn wait_complete(scene: &Scene, process: &Process, before: usize, limit: Duration) -> Duration {
    scene.until(limit, || {
        if restarts_complete(process) > before { Ok(()) } else { Err("restart not complete".into()) }
    })
}

/// Routes of ours that changed, as text.
fn changes(watch: &RouteWatch) -> Vec<String> {
    let ours = |c: &integration::lab::RouteChange| c.route.proto == 12;
    watch.take().into_iter().filter(ours).map(|c| format!("{} gone={}", c.route.dst, c.gone)).collect()
}

/// Killed again as soon as it is back, several times: with ours on both sides no kernel sees a change.
#[test]
fn b15_a_restart_during_a_restart_loses_nothing() {
    let mut scene = Scene::new("b15");
    let other = scene.host("other", 5);
    let yaml = |own: u8, asn: u32, peer: u8, peer_as: u32| {
        format!(
            "routerId: {}\nasNumber: {asn}\nneighbours:\n  - {{ address: {}, asNumber: {peer_as} }}\n\
             static:\n  - {{ prefix: 11.15.{own}.0/24, blackhole: true }}",
            at(own),
            at(peer)
        )
    };
    let left = scene.daemon("left", &scene.dut, &yaml(1, AS, 5, 65005));
    let mut right = scene.daemon("right", &other, &yaml(5, 65005, 1, AS));
    scene.route(&scene.dut, "11.15.5.0/24", Some("via 10.98.0.5"));
    scene.route(&other, "11.15.1.0/24", Some("via 10.98.0.1"));
    let (here, there) = (RouteWatch::start(&scene.dut).unwrap(), RouteWatch::start(&other).unwrap());
    for pause in [0, 20, 50, 120, 300] {
        let up = |n: usize| {
            scene.until(SOON, || {
                if left.log().matches("session established").count() > n {
                    Ok(())
                } else {
                    Err("not up".into())
                }
            });
        };
        let sessions = left.log().matches("session established").count();
        let before = restarts_complete(&right);
        right.kill();
        right.start().unwrap();
        up(sessions);
        // What was told again is told at once; RFC 4724 wants what was not to go with the second restart.
        scene.until(SOON, || if scene.is_up("left", "10.98.0.5") { Ok(()) } else { Err("not up".into()) });
        std::thread::sleep(Duration::from_millis(10 + pause));
        right.kill();
        right.start().unwrap();
        wait_complete(&scene, &right, before, SOON);
        assert_eq!(changes(&here), Vec::<String>::new(), "left, pause {pause} ms\n{}", scene.lab.logs(30));
        assert_eq!(changes(&there), Vec::<String>::new(), "right, pause {pause} ms\n{}", scene.lab.logs(30));
    }
    assert!(route(&scene.dut, "11.15.5.0/24").is_some() && route(&other, "11.15.1.0/24").is_some());
}

/// A BIRD with graceful restart is killed and comes back: no change here. It stays away: gone after its restart time.
#[test]
fn b16_a_peer_that_restarts_keeps_its_routes_for_its_restart_time() {
    let mut scene = Scene::new("b16");
    let other = scene.host("bird", 5);
    let _dut = scene
        .dut(&["address: 10.98.0.5, asNumber: 65005", "address: 10.98.0.10, asNumber: 65010, passive: true"]);
    let conf = "router id 10.98.0.5; protocol kernel { ipv4 { export none; }; }
        protocol static { ipv4; route 11.16.0.0/24 blackhole; route 11.16.1.0/24 blackhole; }
        protocol bgp dut { local 10.98.0.5 as 65005; neighbor 10.98.0.1 as 65000; connect delay time 1;
            graceful restart on; graceful restart time 4; ipv4 { import all; export all; }; }";
    let mut bird = scene.bird("bird", &other, conf);
    scene.route(&scene.dut, "11.16.0.0/24", Some("via 10.98.0.5"));
    scene.route(&scene.dut, "11.16.1.0/24", Some("via 10.98.0.5"));
    let watch = RouteWatch::start(&scene.dut).unwrap();
    bird.kill();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(changes(&watch), Vec::<String>::new(), "stale routes stay");
    // It comes back with one route less: the sweep takes that one alone.
    drop(bird);
    let mut bird =
        scene.bird_with("bird", &other, &conf.replace("route 11.16.1.0/24 blackhole;", ""), &["-R"]);
    scene.route(&scene.dut, "11.16.1.0/24", None);
    scene.until(SOON, || if scene.is_up("dut", "10.98.0.5") { Ok(()) } else { Err("not up".into()) });
    assert_eq!(changes(&watch), ["11.16.1.0/24 gone=true"]);
    let ((), took) = timed(|| {
        bird.kill();
        scene.route(&scene.dut, "11.16.0.0/24", None);
    });
    println!("b16 | restart time 4 s, swept after {:.2} s", took.as_secs_f64());
    assert!(took > Duration::from_millis(3500) && took < Duration::from_secs(7), "{took:?}");
}

/// The same by raw peers: a peer that says it kept nothing is believed at once; so is one that ends with a NOTIFICATION.
#[test]
fn b16_what_a_peer_did_not_keep_goes_when_it_says_so() {
    let scene = Scene::new("b16b");
    let _dut = scene.dut(&["address: 10.98.0.10, asNumber: 65010, passive: true"]);
    let routes = raw::update(&raw::attributes(&[65010], at(10)), &raw::nlri("11.16.5.0/24"));
    for (kept, stays) in [(true, true), (false, false)] {
        let mut peer = scene.session(10, &graceful(65010, 10, 30, false, true));
        peer.send(&[&routes[..], &end_of_rib()].concat()).unwrap();
        scene.route(&scene.dut, "11.16.5.0/24", Some("via 10.98.0.10"));
        drop(peer);
        std::thread::sleep(Duration::from_millis(300));
        assert!(route(&scene.dut, "11.16.5.0/24").is_some(), "stale, kept");
        let mut back = scene.session(10, &graceful(65010, 10, 30, true, kept));
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(route(&scene.dut, "11.16.5.0/24").is_some(), stays, "F bit {kept}");
        // End-of-RIB without the route: now it goes in any case.
        back.send(&end_of_rib()).unwrap();
        scene.route(&scene.dut, "11.16.5.0/24", None);
        back.send(&routes).unwrap();
        scene.route(&scene.dut, "11.16.5.0/24", Some("via 10.98.0.10"));
        // Cease, Administrative Shutdown, without RFC 8538: nothing is kept.
        back.send(&raw::message(bird_packet::MessageKind::Notification, &[6, 2])).unwrap();
        scene.route(&scene.dut, "11.16.5.0/24", None);
    }
}

/// One of two routers is shut down: its way is left for the other's at once.
#[test]
fn b17_a_router_that_says_goodbye_is_left_at_once() {
    let mut scene = Scene::new("b17");
    let dut = scene.dut(&["address: 10.98.0.5, asNumber: 65005", "address: 10.98.0.6, asNumber: 65005"]);
    let mut birds = Vec::new();
    for octet in [5, 6] {
        let space = scene.host(&format!("tor{octet}"), octet);
        let conf = format!(
            "router id 10.98.0.{octet}; protocol kernel {{ ipv4 {{ export none; }}; }}
             protocol static {{ ipv4; route 11.17.0.0/24 blackhole; }}
             protocol bgp dut {{ local 10.98.0.{octet} as 65005; neighbor 10.98.0.1 as 65000; connect delay time 1;
                 ipv4 {{ import all; export filter {{ bgp_med = {octet}; accept; }}; }}; }}"
        );
        birds.push(scene.bird(&format!("tor{octet}"), &space, &conf));
        scene.until(SOON, || {
            if scene.is_up("dut", &format!("10.98.0.{octet}")) { Ok(()) } else { Err("not up".into()) }
        });
    }
    scene.route(&scene.dut, "11.17.0.0/24", Some("via 10.98.0.5"));
    let watch = RouteWatch::start(&scene.dut).unwrap();
    let start = Instant::now();
    birds[0].signal(nix::sys::signal::Signal::SIGTERM);
    scene.route(&scene.dut, "11.17.0.0/24", Some("via 10.98.0.6"));
    let seen = watch.take();
    let at = seen.last().map(|c| c.at.saturating_duration_since(start)).unwrap_or_default();
    println!("b17 | from the signal to the other router in the kernel: {at:?}");
    assert!(at < Duration::from_millis(200), "{at:?}\n{}", scene.lab.logs(20));
    assert!(dut.log().contains("Administrative Shutdown"), "{}", dut.log());
}

/// A planned restart of ours: no NOTIFICATION where graceful restart is agreed, every route stays, the new OPEN says
/// that forwarding was kept, and the new table ends with End-of-RIB.
#[test]
fn b18_a_planned_restart_says_no_goodbye_and_writes_nothing() {
    let scene = Scene::new("b18");
    let mut dut = scene.dut(&[
        "address: 10.98.0.10, asNumber: 65010, passive: true",
        "address: 10.98.0.11, asNumber: 65011, passive: true",
    ]);
    let (open, plain) = (graceful(65010, 10, 30, false, true), raw::open(65011, at(11)));
    let routes = raw::update(&raw::attributes(&[65010], at(10)), &raw::nlri("11.18.0.0/24"));
    let mut peer = scene.session(10, &open);
    peer.send(&[&routes[..], &end_of_rib()].concat()).unwrap();
    let mut other = scene.session(11, &plain);
    scene.route(&scene.dut, "11.18.0.0/24", Some("via 10.98.0.10"));
    let watch = RouteWatch::start(&scene.dut).unwrap();
    let before = restarts_complete(&dut);
    assert!(dut.stop(), "SIGTERM is enough");
    assert_eq!(peer.ending(SOON).unwrap(), Some(Heard::Closed), "no NOTIFICATION to a peer that helps");
    let told = other.ending(SOON).unwrap();
    println!("b18 | a peer without graceful restart hears {told:?}");
    assert_eq!(changes(&watch), Vec::<String>::new());
    dut.start().unwrap();
    let mut peer = {
        let mut call = None;
        scene.until(SOON, || {
            call = Some(RawPeer::call(&scene.raw, at(10).into(), DUT).map_err(|e| e.to_string())?);
            Ok(())
        });
        call.unwrap()
    };
    let theirs = peer.greet(&open).unwrap();
    let capability = theirs.capabilities.iter().find_map(|c| match c {
        Capability::GracefulRestart(gr) => Some(gr.clone()),
        _ => None,
    });
    let capability = capability.expect("invariant: graceful restart is on by default");
    assert!(capability.restarting, "the R bit");
    assert!(capability.families.iter().all(|f| f.forwarding_kept), "the F bit: {capability:?}");
    peer.send(&[&routes[..], &end_of_rib()].concat()).unwrap();
    wait_complete(&scene, &dut, before, SOON);
    assert_eq!(changes(&watch), Vec::<String>::new(), "{}", scene.lab.logs(20));
    let end = Instant::now() + SOON;
    loop {
        match peer.hear(end.saturating_duration_since(Instant::now())).unwrap() {
            Some(Heard::Update(body)) if body == [0; 4] => break,
            Some(Heard::Update(_) | Heard::Keepalive) => {}
            other => panic!("{other:?} instead of End-of-RIB"),
        }
    }
}

/// A peer never says that it is done: our restart ends with its deferral. No peer comes at all: it ends much earlier.
#[test]
fn b19_a_restart_ends_although_a_peer_never_finishes() {
    let scene = Scene::new("b19");
    let yaml = |deferral: u32| {
        format!(
            "routerId: 10.98.0.1\nasNumber: {AS}\nrestart: {{ deferral: {deferral} }}\nneighbours:\n  \
             - {{ address: 10.98.0.10, asNumber: 65010, passive: true }}\n  \
             - {{ address: 10.98.0.11, asNumber: 65011 }}"
        )
    };
    let open = graceful(65010, 10, 30, false, true);
    let routes = |prefix: &str| raw::update(&raw::attributes(&[65010], at(10)), &raw::nlri(prefix));
    let mut dut = scene.daemon("dut", &scene.dut, &yaml(4));
    let mut peer = scene.session(10, &open);
    peer.send(&[routes("11.19.0.0/24"), routes("11.19.1.0/24")].concat()).unwrap();
    scene.route(&scene.dut, "11.19.1.0/24", Some("via 10.98.0.10"));
    dut.kill();
    let start = Instant::now();
    dut.start().unwrap();
    let mut peer = scene.session(10, &open);
    peer.send(&routes("11.19.0.0/24")).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(route(&scene.dut, "11.19.1.0/24").is_some(), "waiting for the End-of-RIB that does not come");
    scene.route(&scene.dut, "11.19.1.0/24", None);
    let took = start.elapsed();
    println!("b19 | deferral 4 s, swept after {:.2} s", took.as_secs_f64());
    assert!(took > Duration::from_millis(3500) && took < Duration::from_secs(7), "{took:?}");
    assert!(route(&scene.dut, "11.19.0.0/24").is_some());

    // Nobody comes: there is nobody to wait for.
    drop(peer);
    dut.kill();
    let mut dut = scene.caracal("dut", &scene.dut, &yaml(120));
    let before = restarts_complete(&dut);
    dut.start().unwrap();
    let took = wait_complete(&scene, &dut, before, SOON);
    println!("b19 | nobody comes: complete after {:.2} s", took.as_secs_f64());
    assert!(took < Duration::from_secs(7), "{took:?}");
    scene.route(&scene.dut, "11.19.0.0/24", None);
}

/// kill -9 with 100,000 routes in the kernel, once at rest and once in the middle of their arrival: the kernel sees no
/// change that is not due.
#[test]
fn b18_a_kill_with_100000_routes_changes_none_of_them() {
    const ROUTES: u32 = 100_000;
    let scene = Scene::new("b18k");
    let mut dut = scene.dut(&["address: 10.98.0.10, asNumber: 65010, passive: true"]);
    let open = graceful(65010, 10, 120, false, true);
    let all = [many(65010, at(10), ROUTES, true), end_of_rib()].concat();
    let full = |what: &str| {
        scene.until(Duration::from_mins(1), || match count(&scene.dut) {
            n if n == ROUTES as usize => Ok(()),
            n => Err(format!("{what}: {n} routes")),
        })
    };
    let mut peer = scene.session(10, &open);
    peer.send(&all).unwrap();
    full("first");
    let watch = RouteWatch::start(&scene.dut).unwrap();
    for arriving in [false, true] {
        let before = restarts_complete(&dut);
        dut.kill();
        dut.start().unwrap();
        let mut peer = scene.session(10, &open);
        if arriving {
            peer.send(&all[..all.len() / 2]).unwrap();
            std::thread::sleep(Duration::from_millis(50));
            dut.kill();
            dut.start().unwrap();
            peer = scene.session(10, &open);
        }
        peer.send(&all).unwrap();
        let took = wait_complete(&scene, &dut, before, Duration::from_mins(1));
        std::thread::sleep(Duration::from_millis(300));
        println!("b18 | killed with {ROUTES} routes, in their arrival: {arriving}: complete after {took:?}");
        let seen = changes(&watch);
        assert!(seen.is_empty(), "{} changes, first {:?}\n{}", seen.len(), seen.first(), scene.lab.logs(20));
    }
    full("last");
}
