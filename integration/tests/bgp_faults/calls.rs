//! Connections: dead peers, resets, collisions, bad OPENs, bad headers, floods of calls.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bird_packet::{Capability, Cease, MessageKind, OpenMessage};
use integration::raw::{self, Heard, RawPeer};
use socket2::SockRef;

use crate::scene::{AS, DUT, SOON, Scene, at, cpu, descriptors, route, timed};

/// Hears what the daemon says to this OPEN (its body is changed by `spoil`) until it hangs up.
fn answer(scene: &Scene, octet: u8, open: &OpenMessage, spoil: impl FnOnce(&mut Vec<u8>)) -> Heard {
    let mut bytes = raw::encoded(open);
    spoil(&mut bytes);
    let mut peer = RawPeer::call(&scene.raw, at(octet).into(), DUT).unwrap();
    peer.send(&bytes).unwrap();
    peer.ending(SOON).unwrap_or_else(|err| scene.fail(&err)).expect("invariant: a bad OPEN is answered")
}

fn code(heard: &Heard) -> String {
    match heard {
        Heard::Notification(n) => format!("{}/{}", n.code, n.subcode),
        other => format!("{other:?}"),
    }
}

/// The peer is cut off without a FIN: its routes go when the hold time is over, not before and not much later.
#[test]
fn b01_a_peer_that_vanishes_is_dropped_with_its_hold_time() {
    let scene = Scene::new("b01");
    let _dut = scene.dut(&["address: 10.98.0.10, asNumber: 65010, passive: true, holdTime: 3"]);
    let mut open = raw::open(65010, at(10));
    open.hold_time = 3;
    let mut peer = scene.session(10, &open);
    peer.send(&raw::update(&raw::attributes(&[65010], at(10)), &raw::nlri("11.0.0.0/24"))).unwrap();
    scene.route(&scene.dut, "11.0.0.0/24", Some("via 10.98.0.10"));
    peer.keepalive().unwrap();
    let last = Instant::now();
    scene
        .raw
        .sh("nft 'add table ip cut; add chain ip cut out { type filter hook output priority 0; policy drop; }'")
        .unwrap();
    scene.route(&scene.dut, "11.0.0.0/24", None);
    let took = last.elapsed();
    println!("b01 | hold time 3 s, gone after {:.2} s", took.as_secs_f64());
    assert!(took >= Duration::from_millis(2900) && took < Duration::from_millis(3500), "{took:?}");
}

/// A peer that reboots leaves a connection behind that nobody answers; its new call takes the place at once.
#[test]
fn b03_a_new_call_replaces_a_half_open_session() {
    let scene = Scene::new("b03");
    let mut dut = scene.dut(&["address: 10.98.0.10, asNumber: 65010, passive: true, holdTime: 90"]);
    let mut old = scene.session(10, &raw::open(65010, at(10)));
    let port = old.stream().local_addr().unwrap().port();
    old.send(&raw::update(&raw::attributes(&[65010], at(10)), &raw::nlri("11.0.0.0/24"))).unwrap();
    scene.route(&scene.dut, "11.0.0.0/24", Some("via 10.98.0.10"));
    let before = descriptors(&mut dut);
    let rule = format!(
        "nft 'add table ip cut; add chain ip cut out {{ type filter hook output priority 0; }}; \
         add rule ip cut out tcp sport {port} drop'"
    );
    scene.raw.sh(&rule).unwrap();
    let (mut new, took) = timed(|| scene.session(10, &raw::open(65010, at(10))));
    new.send(&raw::update(&raw::attributes(&[65010], at(10)), &raw::nlri("11.0.1.0/24"))).unwrap();
    scene.route(&scene.dut, "11.0.1.0/24", Some("via 10.98.0.10"));
    scene.route(&scene.dut, "11.0.0.0/24", None);
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(scene.ask("dut", "show protocols").matches("Established").count(), 1);
    scene.until(SOON, || {
        let now = descriptors(&mut dut);
        if now <= before { Ok(()) } else { Err(format!("{now} descriptors, {before} before")) }
    });
}

/// Both call at once: the connection of the higher identifier stays, the other ends with Cease 7.
#[test]
fn b04_one_of_two_crossing_calls_survives() {
    let scene = Scene::new("b04");
    let _dut = scene.dut(&["address: 10.98.0.10, asNumber: 65010, connectRetry: 1"]);
    let listener = raw::listen(&scene.raw, SocketAddr::new(at(10).into(), 179)).unwrap();
    for round in 0..40u32 {
        // Higher than 10.98.0.1: the peer's own call stays. Lower: the daemon's.
        let peers_stays = round % 2 == 0;
        let id = if peers_stays { at(10) } else { "10.1.1.1".parse().unwrap() };
        let open = raw::open(65010, id);
        let hello = raw::encoded(&open);
        let mut theirs = RawPeer::over(listener.accept().unwrap().0).unwrap();
        let mut ours = RawPeer::call(&scene.raw, at(10).into(), DUT).unwrap();
        for peer in [&mut ours, &mut theirs] {
            assert!(matches!(peer.hear(SOON), Ok(Some(Heard::Open(_)))), "round {round}");
        }
        let order = if round % 4 < 2 { [&mut ours, &mut theirs] } else { [&mut theirs, &mut ours] };
        for peer in order {
            peer.send(&hello).unwrap();
        }
        let (stays, goes) = if peers_stays { (&mut ours, &mut theirs) } else { (&mut theirs, &mut ours) };
        let end = goes.ending(SOON).unwrap();
        let wanted = (6, Cease::CollisionResolution as u8);
        assert!(
            matches!(&end, Some(Heard::Notification(n)) if (n.code, n.subcode) == wanted),
            "round {round}: {end:?} on the connection that has to go\n{}",
            scene.lab.logs(20)
        );
        stays.keepalive().unwrap();
        scene.until(SOON, || if scene.is_up("dut", "10.98.0.10") { Ok(()) } else { Err("not up".into()) });
        assert_eq!(stays.ending(Duration::ZERO).unwrap(), None, "round {round}: the other one goes too");
    }
}

/// Both begin at the same moment and call each other, ours with ours and ours with BIRD: one connection is left, and the
/// session on it is up at both ends.
#[test]
fn b04_two_that_begin_together_end_with_one_connection() {
    let mut scene = Scene::new("b04t");
    let other = scene.host("other", 5);
    let yaml = |own: u8, asn: u32, peer: u8, peer_as: u32| {
        format!(
            "routerId: {}\nasNumber: {asn}\nneighbours:\n  - {{ address: {}, asNumber: {peer_as} }}",
            at(own),
            at(peer)
        )
    };
    let conf = "router id 10.98.0.5; protocol bgp dut { local 10.98.0.5 as 65005; neighbor 10.98.0.1 as 65000;
        connect delay time 0; connect retry time 1; error wait time 1, 2; ipv4 { import all; export all; }; }";
    for round in 0..16u64 {
        let mut ours = scene.caracal("left", &scene.dut, &yaml(1, AS, 5, 65005));
        let with_bird = round % 4 == 3;
        let mut theirs = scene.caracal("right", &other, &yaml(5, 65005, 1, AS));
        let bird = if with_bird {
            ours.start().unwrap();
            Some(scene.bird("bird", &other, conf))
        } else {
            ours.start().unwrap();
            std::thread::sleep(Duration::from_millis(round % 3));
            theirs.start().unwrap();
            None
        };
        let (name, peer) = if with_bird { ("bird", "dut") } else { ("right", "10.98.0.1") };
        let one = || {
            let text = scene.dut.sh("ss -Htn state established '( sport = 179 or dport = 179 )'");
            let connections = text.map_err(|err| err.to_string())?.lines().count();
            let up = (scene.is_up("left", "10.98.0.5"), scene.is_up(name, peer));
            if connections == 1 && up == (true, true) {
                Ok(())
            } else {
                Err(format!("round {round}, {name}: {connections} connections, up: {up:?}"))
            }
        };
        scene.until(SOON, one);
        // And it stays so.
        std::thread::sleep(Duration::from_millis(150));
        one().unwrap_or_else(|err| scene.fail(&err));
        drop(bird);
    }
}

/// What is wrong with an OPEN is said with its code; the right one is taken right afterwards.
#[test]
fn b05_bad_opens_are_answered_with_their_code() {
    let scene = Scene::new("b05");
    let _dut = scene.dut(&[
        "address: 10.98.0.10, asNumber: 65010, passive: true",
        "address: 10.98.0.11, asNumber: 65000, passive: true",
        "address: 10.98.0.12, asNumber: 65012, passive: true, families: [ipv6]",
    ]);
    scene.until(SOON, || RawPeer::call(&scene.raw, at(10).into(), DUT).map(drop).map_err(|e| e.to_string()));
    let good = raw::open(65010, at(10));
    let with = |hold_time, asn| OpenMessage { hold_time, asn, ..good.clone() };
    let none = |_: &mut Vec<u8>| {};
    assert_eq!(code(&answer(&scene, 10, &with(1, 65010), none)), "2/6");
    assert_eq!(code(&answer(&scene, 10, &with(2, 65010), none)), "2/6");
    let other = OpenMessage { capabilities: vec![Capability::FourOctetAs(65011)], ..with(90, 65011) };
    assert_eq!(code(&answer(&scene, 10, &other, none)), "2/2");
    let version = answer(&scene, 10, &good, |b| b[19] = 3);
    assert_eq!(code(&version), "2/1");
    assert!(matches!(&version, Heard::Notification(n) if n.data == [0, 4]), "the version that we speak");
    assert_eq!(code(&answer(&scene, 10, &good, |b| b[24..28].fill(0))), "2/3", "identifier 0");
    // The second octet of the parameters is the length of the first.
    assert_eq!(code(&answer(&scene, 10, &good, |b| b[30] = 200)), "2/0", "parameters overrun");
    assert_eq!(code(&answer(&scene, 10, &good, |b| b[29] = 9)), "2/4", "unknown parameter");
    let same = raw::open(AS, "10.98.0.1".parse().unwrap());
    assert_eq!(code(&answer(&scene, 11, &same, none)), "2/3", "iBGP, identifier as ours");
    let family = OpenMessage {
        capabilities: vec![
            Capability::Multiprotocol(bird_packet::Family::Ipv4Unicast.into()),
            Capability::FourOctetAs(65012),
        ],
        ..raw::open(65012, at(12))
    };
    let family = answer(&scene, 12, &family, none);
    assert_eq!(code(&family), "2/7", "no family in common");
    assert!(
        matches!(&family, Heard::Notification(n) if n.data == [1, 4, 0, 2, 0, 1]),
        "the one that is missing"
    );
    // Not an OPEN at all: RFC 6608.
    let mut peer = RawPeer::call(&scene.raw, at(10).into(), DUT).unwrap();
    peer.send(&raw::message(MessageKind::Update, &[0; 4])).unwrap();
    assert_eq!(code(&peer.ending(SOON).unwrap().unwrap()), "5/1");
    // An unknown capability is no error.
    let mut open = good;
    open.capabilities.push(Capability::Unknown { code: 200, value: vec![1, 2, 3] });
    let mut peer = scene.session(10, &open);
    assert_eq!(peer.ending(Duration::from_millis(200)).unwrap(), None);
    // Another OPEN in a session ends it: RFC 6608.
    let again = raw::encoded(&open);
    peer.send(&again).unwrap();
    assert_eq!(code(&peer.ending(SOON).unwrap().unwrap()), "5/3");
}

/// A peer that is always wrong is called less and less, and costs next to nothing.
#[test]
fn b05_a_peer_that_is_always_wrong_is_called_less_and_less() {
    let scene = Scene::new("b05b");
    let listener = raw::listen(&scene.raw, SocketAddr::new(at(10).into(), 179)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut dut = scene.dut(&["address: 10.98.0.10, asNumber: 65010"]);
    let wrong = raw::open(65011, at(10));
    let bytes = raw::encoded(&wrong);
    let (mut calls, mut before) = (Vec::new(), None);
    let end = Instant::now() + Duration::from_millis(4500);
    while Instant::now() < end {
        if let Ok((mut stream, _)) = listener.accept() {
            stream.set_nonblocking(false).unwrap();
            stream.write_all(&bytes).unwrap();
            let mut peer = RawPeer::over(stream).unwrap();
            assert_eq!(code(&peer.ending(SOON).unwrap().unwrap()), "2/2");
            calls.push(Instant::now());
            before.get_or_insert_with(|| cpu(&mut dut));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let pauses: Vec<f64> = calls.windows(2).map(|w| (w[1] - w[0]).as_secs_f64()).collect();
    let spent = cpu(&mut dut).saturating_sub(before.expect("invariant: it calls"));
    println!("b05 | pauses {pauses:.2?} s, {spent:?} of CPU in 4.5 s");
    assert!((2..=5).contains(&pauses.len()), "{pauses:?}");
    assert!(pauses.windows(2).all(|w| w[1] > w[0] * 1.3), "each is longer than the one before: {pauses:?}");
    // 1 % is 45 ms, of which the kernel counts hundredths.
    assert!(spent <= Duration::from_millis(50), "{spent:?}");
}

/// Headers that cannot be: the code, the data, the end of the connection; what comes in single octets is understood.
#[test]
fn b07_bad_headers_end_the_connection_with_their_code() {
    let scene = Scene::new("b07");
    let mut dut = scene.dut(&[
        "address: 10.98.0.10, asNumber: 65010, passive: true, extendedMessage: false",
        "address: 10.98.0.11, asNumber: 65011, passive: true",
    ]);
    let open = raw::open(65010, at(10));
    let header = |length: u16, kind: u8| {
        let mut bytes = vec![0xff; 16];
        bytes.extend(length.to_be_bytes());
        bytes.push(kind);
        bytes
    };
    let mut marker = header(19, 4);
    marker[7] = 0xfe;
    let cases: &[(&str, Vec<u8>, &str, &[u8])] = &[
        ("marker", marker, "1/1", &[]),
        ("length 18", header(18, 4), "1/2", &[0, 18]),
        ("length 0", header(0, 2), "1/2", &[0, 0]),
        ("length 4097", header(4097, 2), "1/2", &[0x10, 1]),
        ("length 65535", header(65535, 2), "1/2", &[0xff, 0xff]),
        ("KEEPALIVE of 20", header(20, 4), "1/2", &[0, 20]),
        ("UPDATE of 22", header(22, 2), "1/2", &[0, 22]),
        ("OPEN of 28", header(28, 1), "1/2", &[0, 28]),
        ("type 0", header(19, 0), "1/3", &[0]),
        ("type 255", header(19, 255), "1/3", &[255]),
        ("64 KiB of nothing", vec![0; 65536], "1/1", &[]),
        ("64 KiB of HTTP", b"GET / HTTP/1.1\r\n".repeat(4096), "1/1", &[]),
    ];
    let idle = scene.session(11, &raw::open(65011, at(11)));
    let before = descriptors(&mut dut);
    for established in [false, true] {
        for (name, bytes, wanted, data) in cases {
            let mut peer = if established {
                scene.session(10, &open)
            } else {
                RawPeer::call(&scene.raw, at(10).into(), DUT).unwrap()
            };
            // The daemon may hang up before it has everything.
            let _ = peer.send(bytes);
            let heard = peer.ending(SOON).unwrap();
            match &heard {
                Some(end @ Heard::Notification(n)) => {
                    assert_eq!(code(end), *wanted, "{name}, established: {established}");
                    assert_eq!(n.data, *data, "{name}, established: {established}");
                }
                // The rest of a long stream meets a closed socket; the reset may overtake the NOTIFICATION.
                Some(Heard::Closed) if bytes.len() > 1000 => {}
                other => panic!("{name}, established: {established}: {other:?}\n{}", scene.lab.logs(20)),
            }
        }
    }
    scene.until(SOON, || {
        let now = descriptors(&mut dut);
        if now <= before { Ok(()) } else { Err(format!("{now} descriptors, {before} before")) }
    });
    drop(idle);
    // One octet a segment: OPEN, KEEPALIVE, UPDATE.
    let mut peer = RawPeer::call(&scene.raw, at(10).into(), DUT).unwrap();
    let mut bytes = raw::encoded(&open);
    bytes.extend(raw::message(MessageKind::Keepalive, &[]));
    bytes.extend(raw::update(&raw::attributes(&[65010], at(10)), &raw::nlri("11.0.0.0/24")));
    for octet in bytes {
        peer.send(&[octet]).unwrap();
    }
    scene.route(&scene.dut, "11.0.0.0/24", Some("via 10.98.0.10"));
}

/// A thousand calls from nobody, and as many from a neighbour's own address: the sessions do not feel it.
#[test]
fn b20_floods_of_calls_do_not_touch_sessions() {
    let scene = Scene::new("b20");
    let mut dut = scene.dut(&[
        "address: 10.98.0.10, asNumber: 65010, passive: true",
        "address: 10.98.0.11, asNumber: 65011, passive: true",
    ]);
    let mut session = scene.session(10, &raw::open(65010, at(10)));
    session.send(&raw::update(&raw::attributes(&[65010], at(10)), &raw::nlri("11.0.0.0/24"))).unwrap();
    scene.route(&scene.dut, "11.0.0.0/24", Some("via 10.98.0.10"));
    let before = descriptors(&mut dut);
    let mut most = before;
    let hello = raw::encoded(&raw::open(65011, at(11)));
    let (mut kept, mut refused) = (Vec::new(), 0);
    for round in 0..1000u16 {
        // Of nobody's: hung up without a word.
        let from: IpAddr = at(20 + u8::try_from(round % 9).unwrap()).into();
        let mut stranger = RawPeer::call(&scene.raw, from, DUT).unwrap();
        let _ = stranger.send(&hello);
        if round % 10 == 0 {
            assert_eq!(stranger.hear(SOON).unwrap(), Some(Heard::Closed), "round {round}");
            refused += 1;
        }
        // A neighbour's own: it opens, never answers, never hangs up.
        let peer = RawPeer::call(&scene.raw, at(11).into(), DUT).unwrap();
        if round % 2 == 0 {
            let mut peer = peer;
            let _ = peer.send(&hello);
            kept.push(peer);
        } else {
            // Half of them end with a reset.
            SockRef::from(peer.stream()).set_linger(Some(Duration::ZERO)).unwrap();
        }
        if round % 50 == 0 {
            most = most.max(descriptors(&mut dut));
        }
    }
    assert_eq!(refused, 100);
    assert!(most <= before + 20, "{most} descriptors, {before} before");
    assert_eq!(session.ending(Duration::from_millis(100)).unwrap(), None, "the session stays");
    assert!(route(&scene.dut, "11.0.0.0/24").is_some());
    drop(kept);
    scene.session(11, &raw::open(65011, at(11)));
}

/// A neighbour behind a router, or one who pretends to be one: with TTL security its packets are not heard, from the SYN
/// on; the neighbours without it do not notice.
#[test]
fn b22_ttl_security_hears_neighbours_only() {
    let scene = Scene::new("b22");
    let _dut = scene.dut(&[
        "address: 10.98.0.10, asNumber: 65010, passive: true, ttlSecurity: 1",
        "address: 'fd98::10', asNumber: 65010, passive: true, ttlSecurity: 1",
        "address: 10.98.0.11, asNumber: 65010, passive: true, ttlSecurity: 3",
        "address: 10.98.0.12, asNumber: 65010, passive: true",
        "address: 'fd98::12', asNumber: 65010, passive: true",
    ]);
    let six = SocketAddr::new("fd98::1".parse().unwrap(), 179);
    let call = |from: IpAddr, ttl: u32| {
        let to = if from.is_ipv4() { DUT } else { six };
        let limit = Duration::from_millis(400);
        RawPeer::call_with(&scene.raw, from, to, limit, move |s| match from {
            IpAddr::V4(_) => s.set_ttl_v4(ttl),
            IpAddr::V6(_) => s.set_unicast_hops_v6(ttl),
        })
    };
    let greets = |from: IpAddr, ttl: u32| {
        let mut peer = call(from, ttl)?;
        peer.greet(&raw::open(65010, at(10)))?;
        anyhow::Ok(peer)
    };
    let far6: IpAddr = "fd98::10".parse().unwrap();
    scene.until(SOON, || greets(at(12).into(), 64).map(drop).map_err(|e| e.to_string()));
    for (from, accepted, refused) in [
        (IpAddr::from(at(10)), &[255][..], &[254, 64, 1][..]),
        (far6, &[255], &[254, 64, 1]),
        (at(11).into(), &[255, 253], &[252, 64]),
        (at(12).into(), &[255, 64, 2], &[]),
        ("fd98::12".parse().unwrap(), &[255, 64, 2], &[]),
    ] {
        for ttl in accepted {
            greets(from, *ttl)
                .unwrap_or_else(|err| panic!("{from}, TTL {ttl}: {err:#}\n{}", scene.lab.logs(20)));
        }
        for ttl in refused {
            assert!(call(from, *ttl).is_err(), "{from}, TTL {ttl}: the call is answered");
        }
    }
    // The handshake from near, the OPEN from afar.
    let mut peer = call(at(10).into(), 255).unwrap();
    peer.stream().set_ttl(64).unwrap();
    let hello = raw::encoded(&raw::open(65010, at(10)));
    peer.send(&hello).unwrap();
    assert!(matches!(peer.hear(SOON), Ok(Some(Heard::Open(_)))));
    assert_eq!(peer.hear(Duration::from_millis(700)).unwrap(), None, "an answer to an OPEN from afar");
}
