//! The thread on real sockets: two of them on one link, in network namespaces.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types, reason = "a test")]

mod lab;

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use bird_bfd::{
    Cause, Change, Discard, Down, Event, Farewell, Hops, Options, Params, Priority, SessionKey, State,
    TroubleWith,
};

use lab::{Lab, Watched, eventually, ms};

fn key(local: &str, peer: &str) -> SessionKey {
    SessionKey {
        peer: peer.parse().unwrap(),
        local: Some(local.parse().unwrap()),
        interface: None,
        hops: Hops::Single,
    }
}

fn mirrored(key: SessionKey) -> SessionKey {
    SessionKey { peer: key.local.unwrap(), local: Some(key.peer), ..key }
}

fn plain() -> Params {
    Params { damping: None, ..Params::default() }
}

/// Two hosts on a link, one session, up on both.
fn pair(lab: &Lab, key: SessionKey, params: Params) -> (Watched, Watched) {
    lab.link("a", "b", 1);
    let (a, b) = (lab.bfd("a", Options::default()), lab.bfd("b", Options::default()));
    a.bfd.set(key, params).unwrap();
    b.bfd.set(mirrored(key), params).unwrap();
    a.up(key, ms(3_000));
    b.up(mirrored(key), ms(3_000));
    (a, b)
}

#[track_caller]
fn assert_down(watched: &Watched, deadline: Duration, cause: Cause) -> Instant {
    let (events, at) = watched.events(deadline);
    let [Event { change: Change::Down(Down { cause: actual, .. }), .. }] = events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(actual, cause);
    at
}

/// B1: a peer that dies without a word.
#[test]
fn b1_a_silent_peer_is_noticed_in_the_detection_time() {
    for (n, key) in [key("10.1.0.1", "10.1.0.2"), key("fd00:1::1", "fd00:1::2")].into_iter().enumerate() {
        let Some(lab) = Lab::new(&format!("silent{n}"), &["a", "b"], &[]) else { return };
        let (a, b) = pair(&lab, key, plain());
        eventually("the negotiated pace", ms(2_000), || {
            (a.status(key).detection_time == Some(ms(900))).then_some(())
        });
        let (before, after) = lab.cut("a");
        let down = assert_down(&a, ms(3_000), Cause::DetectionTimeExpired);
        // The last packet came up to 300 ms before the cut.
        assert!(down >= before + ms(550), "{:?}", down - before);
        assert!(down <= after + ms(950), "{:?}", down - after);
        assert_down(&b, ms(1_000), Cause::NeighborSignaled);
        lab.mend("a");
        a.up(key, ms(4_000));
        b.up(mirrored(key), ms(4_000));
    }
}

#[test]
fn stopping_says_admin_down_once_and_at_once() {
    let key = key("10.1.0.1", "10.1.0.2");
    let Some(lab) = Lab::new("stop", &["a", "b"], &[]) else { return };
    let (a, b) = pair(&lab, key, plain());
    let handle = a.bfd.handle();
    let start = Instant::now();
    a.bfd.stop(Farewell::AdminDown(Duration::ZERO));
    assert!(start.elapsed() < ms(500), "{:?}", start.elapsed());
    assert!(!handle.is_running() && handle.report(ms(100)).is_none());
    assert_down(&b, ms(500), Cause::NeighborAdminDown);
    assert_eq!(b.status(mirrored(key)).remote_state, State::AdminDown);
}

#[test]
fn the_complete_list_removes_what_it_does_not_name() {
    let key = key("10.1.0.1", "10.1.0.2");
    let Some(lab) = Lab::new("list", &["a", "b"], &[]) else { return };
    let (a, b) = pair(&lab, key, plain());
    a.bfd.set_all(BTreeMap::from([(key, plain())])).unwrap();
    assert_eq!(a.status(key).state, State::Up);
    a.bfd.set_all(BTreeMap::new()).unwrap();
    assert_down(&a, ms(500), Cause::LocalAdminDown);
    assert_down(&b, ms(500), Cause::NeighborAdminDown);
    eventually("the farewell ends", ms(5_000), || {
        a.bfd.report(ms(500)).unwrap().sessions.is_empty().then_some(())
    });
}

#[test]
fn packets_that_a_router_forwarded_do_not_count() {
    let key = key("10.1.0.1", "10.1.0.2");
    let Some(lab) = Lab::new("ttl", &["a", "b"], &[]) else { return };
    let (a, _b) = pair(&lab, key, plain());
    // What the peer would send that has started anew, but from further away.
    let mut bytes = [0; 24];
    (bytes[0], bytes[1], bytes[2], bytes[3], bytes[7]) = (0x20, 0x40, 3, 24, 9);
    let send = |ttl: u32| {
        lab.inside("b", move || {
            let socket = UdpSocket::bind("10.1.0.2:0").unwrap();
            socket.set_ttl(ttl).unwrap();
            socket.send_to(&bytes, "10.1.0.1:3784").unwrap();
        });
    };
    for ttl in [1, 64, 254] {
        send(ttl);
    }
    let before = a.bfd.report(ms(500)).unwrap();
    assert_eq!(before.discards.of(Discard::Ttl), 0, "the kernel drops them");
    assert_eq!(a.status(key).state, State::Up);
    // The same with 255 is believed: it was the TTL that counted.
    send(255);
    assert_down(&a, ms(500), Cause::NeighborSignaled);
}

#[test]
fn timers_change_without_taking_the_session_down() {
    let key = key("10.1.0.1", "10.1.0.2");
    let Some(lab) = Lab::new("retime", &["a", "b"], &[]) else { return };
    let (a, b) = pair(&lab, key, plain());
    for (millis, multiplier) in [(50, 5), (700, 3), (100, 3)] {
        let params = Params { min_tx: ms(millis), min_rx: ms(millis), multiplier, ..plain() };
        a.bfd.set(key, params).unwrap();
        b.bfd.set(mirrored(key), params).unwrap();
        let want = ms(millis * u64::from(multiplier));
        eventually("new timers", ms(5_000), || {
            let (a, b) = (a.status(key), b.status(mirrored(key)));
            let agreed =
                [a, b].iter().all(|s| s.detection_time == Some(want) && s.tx_interval == Some(ms(millis)));
            agreed.then_some(())
        });
    }
    assert_eq!((a.bfd.events(), b.bfd.events()), (vec![], vec![]));
}

#[test]
fn an_address_that_is_not_there_yet_is_waited_for() {
    let key = key("10.1.0.7", "10.1.0.2");
    let Some(lab) = Lab::new("late", &["a", "b"], &[]) else { return };
    lab.link("a", "b", 1);
    let (a, b) = (lab.bfd("a", Options::default()), lab.bfd("b", Options::default()));
    a.bfd.set(key, plain()).unwrap();
    b.bfd.set(mirrored(key), plain()).unwrap();
    let trouble = eventually("a complaint", ms(1_000), || a.bfd.troubles().pop());
    assert_eq!(trouble.with, TroubleWith::Session(key));
    let problem = trouble.problem.unwrap();
    assert!(problem.starts_with("10.1.0.7 is not an address of this host"), "{problem}");
    lab.exec("a", "ip addr add 10.1.0.7/24 dev to-b");
    a.up(key, ms(4_000));
    let cured = eventually("the cure", ms(1_000), || a.bfd.troubles().pop());
    assert_eq!((cured.with, cured.problem), (TroubleWith::Session(key), None));
}

#[test]
fn a_port_that_is_taken_is_reported_and_tried_again() {
    let key = key("10.1.0.1", "10.1.0.2");
    let Some(lab) = Lab::new("port", &["a", "b"], &[]) else { return };
    lab.link("a", "b", 1);
    let taken = lab.inside("a", || UdpSocket::bind("0.0.0.0:3784").unwrap());
    let (a, b) = (lab.bfd("a", Options::default()), lab.bfd("b", Options::default()));
    a.bfd.set(key, plain()).unwrap();
    b.bfd.set(mirrored(key), plain()).unwrap();
    let trouble = eventually("a complaint", ms(1_000), || a.bfd.troubles().pop());
    assert_eq!(trouble.with.to_string(), "bfd port 3784 over ipv4");
    assert!(trouble.problem.unwrap().contains("another program listens there"));
    drop(taken);
    a.up(key, ms(4_000));
}

#[test]
fn link_local_peers_need_their_interface() {
    let Some(lab) = Lab::new("local", &["a", "b"], &[]) else { return };
    lab.link("a", "b", 1);
    let index = |space: &str, dev: &str| -> u32 {
        lab.exec(space, &format!("cat /sys/class/net/{dev}/ifindex")).trim().parse().unwrap()
    };
    let address = |space: &str, dev: &str| -> String {
        let text = lab.exec(space, &format!("ip -6 -o addr show dev {dev} scope link"));
        text.split_whitespace().nth(3).unwrap().split('/').next().unwrap().to_owned()
    };
    let (left, right) = (address("a", "to-b"), address("b", "to-a"));
    let here = SessionKey { interface: Some(index("a", "to-b")), ..key(&left, &right) };
    let there = SessionKey { interface: Some(index("b", "to-a")), ..key(&right, &left) };
    let (a, b) = (lab.bfd("a", Options::default()), lab.bfd("b", Options::default()));
    a.bfd.set(here, plain()).unwrap();
    b.bfd.set(there, plain()).unwrap();
    a.up(here, ms(3_000));
    b.up(there, ms(3_000));
}

/// B25 on real sockets; `tests/simulation.rs` has the hours.
#[test]
fn b25_a_third_lost_and_strangers_packets_in_between() {
    let key = key("10.1.0.1", "10.1.0.2");
    let Some(lab) = Lab::new("loss", &["a", "b"], &[]) else { return };
    let (a, b) = pair(&lab, key, Params { min_tx: ms(50), min_rx: ms(50), multiplier: 16, ..plain() });
    let file = lab.dir.path().join("loss.nft");
    let rules = "table inet loss { chain in { type filter hook input priority 0; \
                 udp dport 3784 numgen random mod 100 < 30 drop; }; }";
    std::fs::write(&file, rules).unwrap();
    for space in ["a", "b"] {
        lab.exec(space, &format!("nft -f {}", file.display()));
    }
    // Down, to a discriminator that nobody has.
    let mut bytes = [0; 24];
    (bytes[0], bytes[1], bytes[2], bytes[3], bytes[7], bytes[11]) = (0x20, 0x40, 3, 24, 9, 1);
    lab.inside("b", move || {
        let socket = UdpSocket::bind("10.1.0.2:0").unwrap();
        socket.set_ttl(255).unwrap();
        for _ in 0..400 {
            socket.send_to(&bytes, "10.1.0.1:3784").unwrap();
            std::thread::sleep(ms(10));
        }
    });
    assert_eq!((a.bfd.events(), b.bfd.events()), (vec![], vec![]));
    let strangers = a.bfd.report(ms(500)).unwrap().discards.of(Discard::YourDiscriminator);
    assert!((200..360).contains(&strangers), "{strangers}");
}

/// A mesh's worth of sessions from one host.
#[test]
fn three_hundred_sessions_come_up_and_stay() {
    let Some(lab) = Lab::new("many", &["a", "b"], &[]) else { return };
    lab.link("a", "b", 1);
    let keys: Vec<SessionKey> =
        (0..300).map(|n| key("10.1.0.1", &format!("10.1.{}.{}", 10 + n / 100, n % 100 + 1))).collect();
    let lines: Vec<String> = keys.iter().map(|key| format!("addr add {}/16 dev to-a", key.peer)).collect();
    let file = lab.dir.path().join("addresses");
    std::fs::write(&file, lines.join("\n")).unwrap();
    lab.exec("b", &format!("ip -b {}", file.display()));
    lab.exec("a", "ip addr add 10.1.0.1/16 dev to-b");
    let (a, b) = (lab.bfd("a", Options::default()), lab.bfd("b", Options::default()));
    a.bfd.set_all(keys.iter().map(|key| (*key, plain())).collect()).unwrap();
    b.bfd.set_all(keys.iter().map(|key| (mirrored(*key), plain())).collect()).unwrap();
    let up = |watched: &Watched| {
        let report = watched.bfd.report(ms(2_000)).unwrap();
        report.sessions.iter().filter(|(status, _)| status.state == State::Up).count()
    };
    eventually("all up", ms(5_000), || (up(&a) == 300 && up(&b) == 300).then_some(()));
    for watched in [&a, &b] {
        let events = watched.bfd.events();
        assert!(events.iter().all(|event| event.change == Change::Up), "{events:?}");
    }
    let priority = |watched: &Watched| watched.bfd.report(ms(2_000)).unwrap().priority;
    let before = priority(&a);
    busy(Duration::from_secs(3));
    assert_eq!(priority(&a), before, "so many are no flood");
    assert_eq!((a.bfd.events(), b.bfd.events()), (vec![], vec![]));
    assert_eq!((up(&a), up(&b)), (300, 300));
}

/// Packets stay on time while every processor is busy with ordinary threads.
#[test]
fn load_does_not_make_packets_late() {
    let key = key("10.1.0.1", "10.1.0.2");
    let Some(lab) = Lab::new("load", &["a", "b"], &[]) else { return };
    let fast = Params { min_tx: ms(50), min_rx: ms(50), ..plain() };
    let (a, b) = pair(&lab, key, fast);
    let ends = [(&a, key), (&b, mirrored(key))];
    let report = |watched: &Watched| watched.bfd.report(ms(2_000)).unwrap();
    // A kernel that does not preempt itself may make even real time wait: not three times in a row.
    let on_time = (0..3).any(|_| {
        let before = ends.map(|(watched, key)| (report(watched), watched.status(key).sent).1);
        busy(Duration::from_secs(3));
        for ((watched, key), before) in ends.into_iter().zip(before) {
            assert_eq!(watched.bfd.events(), [], "no false alarm");
            assert!(watched.status(key).sent >= before + 55, "{before} {:?}", watched.status(key));
        }
        ends.iter().all(|(watched, _)| {
            let report = report(watched);
            report.priority != Priority::RealTime || report.latest < ms(50)
        })
    });
    assert!(on_time);
}

fn busy(span: Duration) {
    let end = Instant::now() + span;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while Instant::now() < end {
                    std::hint::black_box((0..10_000_u64).sum::<u64>());
                }
            });
        }
    });
}
