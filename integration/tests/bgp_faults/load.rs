//! Short timers under load, BFD under loss, and a router that announces what is ours.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bird_packet::OpenMessage;
use integration::lab::{Namespace, Process, RouteWatch, Stream, eventually};
use integration::picture::{Options, Picture, ROUTER, ROUTER_AS, binary, routes};
use integration::raw::{self, RawPeer, Witness};
use integration::router::RouterKind;
use integration::store::StoreKind;

use crate::scene::{AS, SOON, Scene, at, count, timed};

/// Ten peers with a hold time of 3 s and a KEEPALIVE each second, told 100,000 routes with attributes of their own as
/// they come in, twice: every session stays, and nobody hears nothing for as long as the hold time.
#[test]
fn b12_hold_times_of_3_s_outlive_full_load() {
    const ROUTES: u32 = 100_000;
    let scene = Scene::new("b12t");
    let lines: Vec<String> = (11..21)
        .map(|o| format!("address: 10.98.0.{o}, asNumber: 651{o}, passive: true, holdTime: 3, keepalive: 1"))
        .chain(["address: 10.98.0.10, asNumber: 65010, passive: true, holdTime: 3, keepalive: 1".into()])
        .collect();
    let _dut = scene.dut(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    let timed_open = |asn, octet| OpenMessage { hold_time: 3, ..raw::open(asn, at(octet)) };
    let nervous: Vec<Witness> = (11..21)
        .map(|o| {
            let peer = scene.session(o, &timed_open(65100 + u32::from(o), o));
            Witness::start(peer, false, Some(Duration::from_millis(900)))
        })
        .collect();
    let mut bytes = Vec::new();
    for n in 0..ROUTES / 10 {
        let attrs = raw::attributes(&[65010, 100_000 + n], at(10));
        let nlri: Vec<u8> =
            (0..10).flat_map(|k| [&[32u8][..], &(0x0c00_0000 + 10 * n + k).to_be_bytes()].concat()).collect();
        bytes.extend(raw::update(&attrs, &nlri));
    }
    let mut feeder = scene.session(10, &timed_open(65010, 10));
    let start = Instant::now();
    for round in 0..2 {
        // Attributes change with each round, so that everything is decided and told anew.
        for (at, part) in bytes.chunks(256 * 1024).enumerate() {
            feeder.send(part).unwrap_or_else(|err| scene.fail(&format!("round {round}, part {at}: {err}")));
        }
        feeder.keepalive().unwrap();
    }
    for (number, witness) in nervous.iter().enumerate() {
        witness
            .wait(Duration::from_mins(1), |table| match (table.routes.len(), &table.ended) {
                (n, None) if n == ROUTES as usize => Ok(()),
                (n, ended) => Err(format!("peer {number}: {n} routes, {ended:?}")),
            })
            .unwrap_or_else(|err| scene.fail(&err));
    }
    let gaps: Vec<f64> = nervous.iter().map(|w| w.table().longest_gap.as_secs_f64()).collect();
    println!(
        "b12 | {ROUTES} routes to 10 peers after {:.1} s; longest silences {gaps:.2?} s",
        start.elapsed().as_secs_f64()
    );
    assert!(gaps.iter().all(|gap| *gap < 2.5), "{gaps:?}");
    assert!(nervous.iter().all(|w| w.table().ended.is_none()));
    scene.until(SOON, || {
        if count(&scene.dut) == ROUTES as usize { Ok(()) } else { Err("routes are missing".into()) }
    });
}

/// Two of ours with BFD between them.
fn watched(name: &str, bfd: &str) -> (Scene, Namespace, Process, Process) {
    let mut scene = Scene::new(name);
    let other = scene.host("other", 5);
    let yaml = |own: u8, asn: u32, peer: u8, peer_as: u32| {
        format!(
            "routerId: {}\nasNumber: {asn}\nneighbours:\n  - {{ address: {}, asNumber: {peer_as}, bfd: {bfd}, \
             gracefulRestart: {{ enabled: false }} }}\nstatic:\n  - {{ prefix: 11.25.{own}.0/24, blackhole: true }}",
            at(own),
            at(peer)
        )
    };
    let left = scene.daemon("left", &scene.dut, &yaml(1, AS, 5, 65005));
    let right = scene.daemon("right", &other, &yaml(5, 65005, 1, AS));
    scene.route(&scene.dut, "11.25.5.0/24", Some("via 10.98.0.5"));
    scene.route(&other, "11.25.1.0/24", Some("via 10.98.0.1"));
    // BFD itself needs a moment more than BGP.
    std::thread::sleep(Duration::from_millis(1500));
    (scene, other, left, right)
}

fn cut(space: &Namespace, rule: &str) {
    space
        .sh(&format!(
            "nft 'add table ip cut; add chain ip cut in {{ type filter hook input priority 0; }}; \
             flush chain ip cut in; add rule ip cut in {rule}'"
        ))
        .unwrap();
}

/// The peer is cut off without a FIN, with BFD 300 ms x 3: gone within a second.
#[test]
fn b01_a_peer_that_vanishes_is_noticed_by_bfd_within_a_second() {
    let (scene, other, _left, _right) = watched("b01f", "true");
    cut(&other, "drop");
    cut(&scene.dut, "drop");
    let ((), took) = timed(|| {
        scene.route(&scene.dut, "11.25.5.0/24", None);
    });
    println!("b01 | BFD 300 ms x 3: route gone after {:.2} s", took.as_secs_f64());
    assert!(took > Duration::from_millis(400) && took < Duration::from_secs(1), "{took:?}");
}

/// BFD loses every third packet, then gets packets of strangers with wrong discriminators: no session feels it. Three in
/// a row lost is what it is there for.
#[test]
fn b25_bfd_outlives_loss_and_strangers() {
    let (scene, other, left, _right) = watched("b25", "{ minTx: 100ms, minRx: 100ms, multiplier: 3 }");
    let watch = RouteWatch::start(&scene.dut).unwrap();
    for space in [&scene.dut, &other] {
        cut(space, "udp dport 3784 numgen inc mod 3 0 counter drop");
    }
    std::thread::sleep(Duration::from_secs(5));
    let counted = scene.dut.sh("nft list chain ip cut in").unwrap();
    let dropped = counted.split("packets ").nth(1).and_then(|t| t.split(' ').next()).unwrap_or("0");
    let dropped: u32 = dropped.parse().unwrap();
    assert!(dropped >= 10, "every third of 50 and more is lost: {counted}");
    for space in [&scene.dut, &other] {
        space.sh("nft flush chain ip cut in").unwrap();
    }
    // Control packets to the right port with the right TTL: session down, discriminators of nobody.
    let strangers = scene.raw.run(move || {
        let socket = UdpSocket::bind(SocketAddr::new(at(10).into(), 49_200)).unwrap();
        socket.set_ttl(255).unwrap();
        let mut sent = 0;
        for n in 0..500u32 {
            let mut packet = vec![0x20, 0x40, 3, 24];
            packet.extend([(n + 1).to_be_bytes(), (n * 77).to_be_bytes()].concat());
            packet.extend([0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0, 0, 0, 0, 0]);
            sent += usize::from(socket.send_to(&packet, SocketAddr::new(at(1).into(), 3784)).is_ok());
        }
        sent
    });
    assert_eq!(strangers, 500);
    std::thread::sleep(Duration::from_millis(700));
    let ours: Vec<_> = watch.take().into_iter().filter(|c| c.route.proto == 12).collect();
    assert!(ours.is_empty(), "{ours:?}\n{}", scene.lab.logs(20));
    assert!(!left.log().contains("session lost"), "{}", left.log());
    let ((), took) = timed(|| {
        cut(&scene.dut, "udp dport 3784 drop");
        scene.route(&scene.dut, "11.25.5.0/24", None);
    });
    println!("b25 | {dropped} packets lost without harm; all lost, 100 ms x 3: {:.2} s", took.as_secs_f64());
    assert!(took < Duration::from_secs(1), "{took:?}");
}

/// The router announces a node's own block, a workload's own address, and everything: what is on the node stays on the
/// node, and what is between the nodes stays between them.
#[test]
fn b11_a_router_cannot_take_over_local_addresses() {
    let options =
        Options { store: StoreKind::Etcd, router: RouterKind::Bird, split: false, binary: binary().unwrap() };
    let mut picture = Picture::new("b11h", &options).unwrap();
    picture.seed().unwrap();
    picture.start_agents().unwrap();
    picture.converged(Duration::from_secs(30)).unwrap();
    picture.router.kill();
    let tor = picture.router.space.clone();
    let sessions: Vec<RawPeer> = picture
        .nodes
        .iter()
        .map(|node| {
            let to = SocketAddr::new(node.address.into(), 179);
            let mut peer =
                RawPeer::establish(&tor, ROUTER.into(), to, &raw::open(ROUTER_AS, ROUTER)).unwrap();
            let attrs = raw::attributes(&[ROUTER_AS], ROUTER);
            // node2's block and each half of it, its workload, the pool, everything.
            for prefix in [
                "10.100.104.0/26",
                "10.100.104.0/27",
                "10.100.104.15/32",
                "10.100.0.0/16",
                "0.0.0.0/0",
                "198.51.100.0/24",
            ] {
                peer.send(&raw::update(&attrs, &raw::nlri(prefix))).unwrap();
            }
            peer
        })
        .collect();
    let node2 = picture.nodes[1].space.clone();
    // The last of the list is harmless and taken: then all the others have been judged.
    eventually(SOON, || {
        let have = routes(&node2).map_err(|err| err.to_string())?;
        let taken = have.iter().any(|l| l.starts_with("198.51.100.0/24 via 192.168.174.2"));
        if taken { Ok(()) } else { Err(format!("{have:#?}")) }
    })
    .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let pod: Ipv4Addr = "10.100.104.15".parse().unwrap();
    let get = node2.sh(&format!("ip route get {pod}")).unwrap();
    assert!(get.contains("dev cali1b15813a0a8"), "the workload's own link: {get}");
    let stream = Stream::start(&node2, &picture.pods["pod-c"], pod.into(), 7300, 200).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let report = stream.finish().unwrap();
    assert_eq!(report.lost, 0, "{report:?}");
    let have = routes(&node2).unwrap();
    assert!(have.iter().any(|l| l.starts_with("blackhole 10.100.104.0/26 proto bird")), "{have:#?}");
    assert!(
        !have.iter().any(|l| l.starts_with("10.100.104.0/26 via")),
        "the own block goes to nobody else: {have:#?}"
    );
    drop(sessions);
}
