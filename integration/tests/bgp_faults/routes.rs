//! Routes: odd attributes, limits, storms, flapping, next hops that come and go.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bird_packet::{Capability, OpenMessage};
use integration::lab::RouteWatch;
use integration::raw::{self, Heard, RawPeer, Table, Witness, walk};

use crate::scene::{SOON, Scene, at, count, cpu, many, resident, route, timed};

const WITNESS: &str = "address: 10.98.0.29, asNumber: 65100, passive: true, extendedMessage: false";

fn announce(peer: &mut RawPeer, extra: &[u8], prefix: &str) {
    let attrs = [&raw::attributes(&[65010], at(10))[..], extra].concat();
    peer.send(&raw::update(&attrs, &raw::nlri(prefix))).unwrap();
}

fn has(table: &Table, prefix: &str) -> Result<(), String> {
    if table.routes.contains_key(prefix) { Ok(()) } else { Err(format!("{prefix} is not told")) }
}

fn hasnt(table: &Table, prefix: &str) -> Result<(), String> {
    if table.routes.contains_key(prefix) { Err(format!("{prefix} is told")) } else { Ok(()) }
}

/// An attribute with a two-octet length.
fn long(flags: u8, code: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[flags | 0x10, code], &length[..], value].concat()
}

/// What broke others in 2023: attributes that we do not know, corrupt inside. They pass with the Partial bit, nobody's
/// session ends, and a real BIRD behind us takes the routes.
#[test]
fn b09_unknown_attributes_pass_unread_and_reset_nobody() {
    let mut scene = Scene::new("b09");
    let dut = scene.dut(&[
        "address: 10.98.0.10, asNumber: 65010, passive: true",
        "address: 10.98.0.5, asNumber: 65005",
        WITNESS,
    ]);
    let behind = scene.host("bird", 5);
    let _bird = scene.bird(
        "bird",
        &behind,
        "router id 10.98.0.5; protocol kernel { ipv4 { export all; }; }
         protocol bgp dut { local 10.98.0.5 as 65005; neighbor 10.98.0.1 as 65000; ipv4 { import all; export none; }; }",
    );
    let witness = scene.witness();
    let mut peer = scene.session(10, &raw::open(65010, at(10)));
    // Entropy label, AIGP as if it were transitive, 2023's own, tunnel encapsulation, a hundred of a type of nobody's.
    let attrs: [(u8, Vec<u8>, bool); 6] = [
        (28, vec![0xff; 5], true),
        (26, vec![1, 0xff, 0xff], false),
        (234, (0..255).collect(), true),
        (23, vec![0, 8, 0, 255], true),
        (99, Vec::new(), true),
        (250, vec![7; 1000], true),
    ];
    for ((code, value, _), number) in attrs.iter().zip(0..) {
        announce(&mut peer, &long(0xc0, *code, value), &format!("11.9.{number}.0/24"));
    }
    for ((code, value, passes), number) in attrs.iter().zip(0..) {
        let prefix = format!("11.9.{number}.0/24");
        let seen = witness.wait(SOON, |table| {
            has(table, &prefix)?;
            Ok(table.attribute(&prefix, *code))
        });
        let seen = seen.unwrap_or_else(|err| scene.fail(&err));
        assert_eq!(seen.as_ref(), passes.then_some(value), "type {code}");
        if *passes {
            let table = witness.table();
            let set = &table.routes[&prefix];
            let at = set.windows(2).position(|w| w[1] == *code && w[0] & 0xe0 == 0xe0);
            assert!(at.is_some(), "type {code} is optional, transitive and partial: {set:02x?}");
        }
        scene.until(SOON, || {
            let line = behind.sh(&format!("ip route show {prefix}")).unwrap_or_default();
            if line.contains("via 10.98.0.") { Ok(()) } else { Err(format!("BIRD has no {prefix}: {line}")) }
        });
    }
    assert_eq!(peer.ending(Duration::ZERO).unwrap(), None);
    assert!(witness.table().ended.is_none());
    let bird = scene.ask("bird", "show protocols all dut");
    assert!(bird.contains("Established"), "{bird}");
    assert!(!dut.log().contains("session lost"), "{}", dut.log());
}

/// As large as an UPDATE can be, and larger than what can be said to the next peer: told, or not told, but never in a
/// message that the peer did not agree to.
#[test]
fn b10_giant_attributes_never_make_a_giant_message() {
    let scene = Scene::new("b10");
    let _dut = scene.dut(&[
        "address: 10.98.0.10, asNumber: 65010, passive: true",
        "address: 10.98.0.28, asNumber: 65100, passive: true",
        WITNESS,
    ]);
    let witness = scene.witness();
    let extended = |asn, octet| {
        let mut open = raw::open(asn, at(octet));
        open.capabilities.push(Capability::ExtendedMessage);
        open
    };
    let wide = Witness::start(scene.session(28, &extended(65100, 28)), false, None);
    let mut peer = scene.session(10, &extended(65010, 10));
    let path = |length: u32| -> Vec<u32> { std::iter::once(65010).chain(1..length).collect() };
    let send = |peer: &mut RawPeer, attrs: &[u8], prefix: &str| {
        peer.send(&raw::update(attrs, &raw::nlri(prefix))).unwrap();
    };
    let communities =
        |count: u32| long(0xc0, 8, &(1..=count).flat_map(u32::to_be_bytes).collect::<Vec<u8>>());
    // A path of 900 fits a message of 4,096; of 1,100 and 5,000 does not. 16,000 is the end of what an attribute holds.
    for (length, prefix) in [(900, "11.10.0.0/24"), (1100, "11.10.1.0/24"), (5000, "11.10.2.0/24")] {
        send(&mut peer, &raw::attributes(&path(length), at(10)), prefix);
    }
    // 2,000 communities; and exactly as many as fill a message of 4,096 as it comes, which with our AS in front is more.
    send(&mut peer, &[raw::attributes(&[65010], at(10)), communities(2000)].concat(), "11.10.3.0/24");
    let head = raw::update(
        &[raw::attributes(&[65010], at(10)), communities(0)].concat(),
        &raw::nlri("11.10.4.0/24"),
    );
    let fill = u32::try_from((4096 - head.len()) / 4).unwrap();
    let full = [raw::attributes(&[65010], at(10)), communities(fill)].concat();
    assert!((4093..=4096).contains(&raw::update(&full, &raw::nlri("11.10.4.0/24")).len()));
    send(&mut peer, &full, "11.10.4.0/24");
    // A set, and a confederation segment from outside, which is none of ours: treated as withdrawn.
    let set = [
        &[0x40, 1, 1, 0, 0x40, 2, 12, 2, 1, 0, 0, 0xfd, 0xf2, 1, 1, 0, 0, 0, 7, 0x40, 3, 4][..],
        &at(10).octets(),
    ];
    send(&mut peer, &set.concat(), "11.10.5.0/24");
    announce(&mut peer, &[], "11.10.6.0/24");
    let confed = [
        &[0x40, 1, 1, 0, 0x40, 2, 12, 3, 1, 0, 0, 0, 7, 2, 1, 0, 0, 0xfd, 0xf2, 0x40, 3, 4][..],
        &at(10).octets(),
    ];
    send(&mut peer, &confed.concat(), "11.10.6.0/24");
    // Something told before that grows out of what can be told must be withdrawn.
    announce(&mut peer, &[], "11.10.7.0/24");
    witness.wait(SOON, |table| has(table, "11.10.7.0/24")).unwrap_or_else(|err| scene.fail(&err));
    send(&mut peer, &raw::attributes(&path(1100), at(10)), "11.10.7.0/24");
    announce(&mut peer, &[], "11.10.8.0/24");

    let told = |prefixes: &[&str], not: &[&str]| {
        let (told, not): (Vec<String>, Vec<String>) =
            (prefixes.iter().map(|p| (*p).into()).collect(), not.iter().map(|p| (*p).into()).collect());
        move |table: &Table| {
            told.iter().try_for_each(|p| has(table, p))?;
            not.iter().try_for_each(|p| hasnt(table, p))
        }
    };
    witness
        .wait(
            SOON,
            told(
                &["11.10.0.0/24", "11.10.5.0/24", "11.10.8.0/24"],
                &[
                    "11.10.1.0/24",
                    "11.10.2.0/24",
                    "11.10.3.0/24",
                    "11.10.4.0/24",
                    "11.10.6.0/24",
                    "11.10.7.0/24",
                ],
            ),
        )
        .unwrap_or_else(|err| scene.fail(&err));
    wide.wait(
        SOON,
        told(
            &["11.10.1.0/24", "11.10.2.0/24", "11.10.3.0/24", "11.10.4.0/24", "11.10.7.0/24"],
            &["11.10.6.0/24"],
        ),
    )
    .unwrap_or_else(|err| scene.fail(&err));
    assert!(witness.table().longest <= 4096, "{}", witness.table().longest);
    let table = wide.table();
    let asns = |prefix: &str| {
        let set = table.routes[prefix].clone();
        walk(&set).find(|(code, _)| *code == 2).map_or(0, |(_, path)| path.len() / 4)
    };
    assert!(asns("11.10.2.0/24") > 5000, "{} numbers in the path", asns("11.10.2.0/24"));
    assert_eq!(peer.ending(Duration::ZERO).unwrap(), None);
    assert!(route(&scene.dut, "11.10.2.0/24").is_some(), "used here all the same");
}

/// More prefixes than the peer may send: said; or cut off there; or the session ended and tried again in time.
#[test]
fn b11_a_prefix_limit_warns_discards_or_resets() {
    let scene = Scene::new("b11");
    let dut = scene.dut(&[
        "address: 10.98.0.10, asNumber: 65010, passive: true, prefixLimit: { max: 100, action: warn }",
        "address: 10.98.0.11, asNumber: 65010, passive: true, prefixLimit: { max: 100, action: discard }",
        "address: 10.98.0.12, asNumber: 65010, passive: true, prefixLimit: { max: 100, action: reset, restart: 2 }",
    ]);
    for (octet, action, routes) in [(10, "warn", 300), (11, "discard", 100), (12, "reset", 0)] {
        let mut peer = scene.session(octet, &raw::open(65010, at(octet)));
        peer.send(&many(65010, at(octet), 300, true)).unwrap();
        if action == "reset" {
            let heard = peer.ending(SOON).unwrap();
            assert!(
                matches!(&heard, Some(Heard::Notification(n)) if (n.code, n.subcode) == (6, 1)),
                "{heard:?} instead of Cease, Maximum Number of Prefixes"
            );
            let again = |octet| {
                let mut peer = RawPeer::call(&scene.raw, at(octet).into(), crate::scene::DUT)?;
                peer.greet(&raw::open(65010, at(octet)))
            };
            assert!(again(octet).is_err(), "it must stay away first");
            let (_, took) = timed(|| scene.until(SOON, || again(octet).map(drop).map_err(|e| e.to_string())));
            assert!(took > Duration::from_secs(1), "{took:?}");
        } else {
            scene.until(SOON, || {
                let now = count(&scene.dut);
                if now == routes { Ok(()) } else { Err(format!("{action}: {now} routes, not {routes}")) }
            });
            assert_eq!(peer.ending(Duration::from_millis(200)).unwrap(), None, "{action}: the session stays");
        }
        drop(peer);
        scene.until(SOON, || if count(&scene.dut) == 0 { Ok(()) } else { Err("routes stay".into()) });
    }
    assert!(dut.log().contains("prefix limit reached"), "{}", dut.log());
}

/// 100,000 routes come and go ten times: a session with a hold time of 3 s stays meanwhile, and the memory comes back.
#[test]
fn b12_a_storm_of_routes_delays_no_keepalive_and_leaves_no_memory() {
    const ROUTES: u32 = 100_000;
    let scene = Scene::new("b12");
    let mut dut = scene.dut(&[
        "address: 10.98.0.10, asNumber: 65010, passive: true",
        "address: 10.98.0.11, asNumber: 65011, passive: true, holdTime: 3, keepalive: 1",
        WITNESS,
    ]);
    let witness = scene.witness();
    let timed_open = OpenMessage { hold_time: 3, ..raw::open(65011, at(11)) };
    let nervous = Witness::start(scene.session(11, &timed_open), false, Some(Duration::from_millis(900)));
    let mut peer = scene.session(10, &raw::open(65010, at(10)));
    let (all, none) = (many(65010, at(10), ROUTES, true), many(65010, at(10), ROUTES, false));
    let mut memory = Vec::new();
    for round in 0..10 {
        for (bytes, wanted) in [(&all, ROUTES as usize), (&none, 0)] {
            peer.send(bytes).unwrap();
            let (limit, start) = (Duration::from_mins(1), Instant::now());
            witness
                .wait(limit, |table| match table.routes.len() {
                    n if n == wanted => Ok(()),
                    n => Err(format!("round {round}: {n} routes told, not {wanted}")),
                })
                .unwrap_or_else(|err| scene.fail(&err));
            scene.until(limit, || match count(&scene.dut) {
                n if n == wanted => Ok(()),
                n => Err(format!("round {round}: {n} routes in the kernel, not {wanted}")),
            });
            println!("b12 | round {round}, {wanted} routes after {:.2} s", start.elapsed().as_secs_f64());
        }
        memory.push(resident(&mut dut));
    }
    let table = nervous.table();
    println!("b12 | memory {memory:?} KiB, longest silence {:.2} s", table.longest_gap.as_secs_f64());
    assert_eq!(table.ended, None, "the session with the short hold time stays\n{}", scene.lab.logs(20));
    assert!(table.longest_gap < Duration::from_secs(3), "{:?}", table.longest_gap);
    // Tables are given back some tenths of a second after they are empty: by chance before or after this looks.
    let begun = memory[..3].iter().max().copied().unwrap_or_default();
    assert!(memory.iter().all(|m| *m <= begun + begun / 10), "{memory:?}");
}

/// Routes that come and go 100 times a second, for four seconds.
#[test]
fn b13_a_flapping_route_costs_the_kernel_little() {
    flap(Duration::from_secs(4));
}

/// The same for ten minutes.
#[test]
#[ignore = "takes ten minutes; `integration/check --long` runs it"]
fn b13_a_route_that_flaps_for_ten_minutes_costs_the_kernel_little() {
    flap(Duration::from_mins(10));
}

/// The kernel is told a few times a second, memory and processor stay, and the end is right.
fn flap(length: Duration) {
    let scene = Scene::new("b13");
    let mut dut = scene.dut(&["address: 10.98.0.10, asNumber: 65010, passive: true", WITNESS]);
    let witness = scene.witness();
    let mut peer = scene.session(10, &raw::open(65010, at(10)));
    announce(&mut peer, &[], "11.13.1.0/24");
    scene.route(&scene.dut, "11.13.1.0/24", Some("via 10.98.0.10"));
    let watch = RouteWatch::start(&scene.dut).unwrap();
    let (pause, before) = (Duration::from_millis(5), (cpu(&mut dut), resident(&mut dut)));
    let (start, mut flaps) = (Instant::now(), 0u32);
    let pace = |since: Instant, steps: u32| {
        std::thread::sleep((since + pause * steps).saturating_duration_since(Instant::now()));
    };
    while start.elapsed() < length {
        // Both ways of flapping: gone and back, and by another next hop.
        announce(&mut peer, &[], "11.13.0.0/24");
        let other = raw::attributes(&[65010], at(11 + u8::try_from(flaps % 2).unwrap()));
        peer.send(&raw::update(&other, &raw::nlri("11.13.2.0/24"))).unwrap();
        pace(start, 2 * flaps + 1);
        peer.send(&raw::withdraw(&raw::nlri("11.13.0.0/24"))).unwrap();
        flaps += 1;
        pace(start, 2 * flaps);
    }
    let seconds = start.elapsed().as_secs_f64();
    assert!(f64::from(flaps) > 90.0 * seconds, "{flaps} flaps in {seconds:.1} s are too few");
    announce(&mut peer, &[], "11.13.0.0/24");
    let next_hop = format!("via {}", at(11 + u8::try_from((flaps - 1) % 2).unwrap()));
    let settled = scene.route(&scene.dut, "11.13.0.0/24", Some("via 10.98.0.10"));
    scene.route(&scene.dut, "11.13.2.0/24", Some(&next_hop));
    witness.wait(SOON, |table| has(table, "11.13.0.0/24")).unwrap_or_else(|err| scene.fail(&err));
    let after = (cpu(&mut dut), resident(&mut dut));
    println!(
        "b13 | {flaps} flaps in {seconds:.1} s: {:?} of CPU, memory {} -> {} KiB",
        after.0.saturating_sub(before.0),
        before.1,
        after.1
    );
    let changes = watch.take();
    for prefix in ["11.13.0.0/24", "11.13.2.0/24"] {
        let count =
            u32::try_from(changes.iter().filter(|c| c.route.dst.to_string() == prefix).count()).unwrap();
        let rate = f64::from(count) / seconds;
        println!("b13 | {prefix}: {count} kernel changes, {rate:.1}/s");
        assert!(rate <= 10.0, "{prefix}: {rate:.1} changes a second");
    }
    assert!(
        !changes.iter().any(|c| c.route.dst.to_string() == "11.13.1.0/24"),
        "its neighbour is not touched"
    );
    assert!(after.1 <= before.1 + 1024, "memory grows: {before:?} {after:?}");
    assert!(settled < Duration::from_secs(3), "{settled:?}");
    assert!(!dut.log().contains("somebody removed"), "{}", dut.log());
}

/// Next hops that cannot be used are not; they are as soon as they can be, and not a moment longer.
#[test]
fn b14_next_hops_are_followed_as_links_and_routes_change() {
    let scene = Scene::new("b14");
    let _dut = scene.dut(&["address: 10.98.0.10, asNumber: 65010, passive: true, multihop: 5", WITNESS]);
    let witness = scene.witness();
    let mut peer = scene.session(10, &raw::open(65010, at(10)));
    scene
        .dut
        .sh("ip link add side type veth peer far; ip link set far up; ip link set side up; ip addr add 10.77.0.1/24 dev side")
        .unwrap();
    let mut by = |next_hop: [u8; 4], prefix: &str| {
        let attrs = raw::attributes(&[65010], Ipv4Addr::from(next_hop));
        peer.send(&raw::update(&attrs, &raw::nlri(prefix))).unwrap();
    };
    by([10, 98, 0, 1], "11.14.0.0/24"); // ourselves
    by([10, 77, 0, 1], "11.14.1.0/24"); // ourselves, another address
    by([203, 0, 113, 1], "11.14.2.0/24"); // no route to it
    by([10, 77, 0, 9], "11.14.3.0/24"); // on the side link
    by([172, 16, 5, 5], "11.14.4.0/24"); // recursive, when there is a route
    by([127, 0, 0, 1], "11.14.5.0/24");
    by([11, 14, 6, 1], "11.14.6.0/24"); // inside itself
    by([10, 98, 0, 10], "11.14.9.0/24");
    scene.route(&scene.dut, "11.14.9.0/24", Some("via 10.98.0.10 dev eth0"));
    scene.route(&scene.dut, "11.14.3.0/24", Some("via 10.77.0.9 dev side"));
    for prefix in
        ["11.14.0.0/24", "11.14.1.0/24", "11.14.2.0/24", "11.14.4.0/24", "11.14.5.0/24", "11.14.6.0/24"]
    {
        assert_eq!(route(&scene.dut, prefix), None, "{prefix}");
        assert!(hasnt(&witness.table(), prefix).is_ok(), "{prefix} is told");
    }
    let mut slowest = Duration::ZERO;
    let mut step = |line: &str, prefix: &str, part: Option<&str>| {
        scene.dut.sh(line).unwrap();
        let took = scene.route(&scene.dut, prefix, part);
        println!("b14 | {line}: {took:?}");
        slowest = slowest.max(took);
    };
    let recursive = "11.14.4.0/24";
    step("ip route add 172.16.0.0/16 via 10.98.0.11", recursive, Some("via 10.98.0.11 dev eth0"));
    step("ip route replace 172.16.0.0/16 via 10.98.0.12", recursive, Some("via 10.98.0.12 dev eth0"));
    step("ip route add 172.16.5.0/24 via 10.77.0.8", recursive, Some("via 10.77.0.8 dev side"));
    step("ip route del 172.16.5.0/24", recursive, Some("via 10.98.0.12 dev eth0"));
    step("ip route del 172.16.0.0/16", recursive, None);
    step("ip link set side down", "11.14.3.0/24", None);
    step("ip link set side up", "11.14.3.0/24", Some("via 10.77.0.9 dev side"));
    step("ip link del side", "11.14.3.0/24", None);
    witness.wait(SOON, |table| hasnt(table, "11.14.3.0/24")).unwrap_or_else(|err| scene.fail(&err));
    assert!(slowest < Duration::from_millis(200), "{slowest:?}");
    assert!(route(&scene.dut, "11.14.9.0/24").is_some());
}
