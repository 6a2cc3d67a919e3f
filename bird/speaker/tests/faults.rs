//! The faults of BGP that need no kernel and no socket, each under its number in the catalogue: what a speaker promises when
//! peers die, lie, flood, flap and restart. Those that need TCP, a kernel or real daemons are system tests.
#![allow(clippy::unwrap_used, clippy::unchecked_time_subtraction, reason = "tests")]

mod harness;

use std::collections::{BTreeMap, BTreeSet};

use bird_packet::{AttrSet, MAX_LEN, MessageKind, SessionContext, UpdateView};
use bird_speaker::config::{
    Config, GracefulRestart, LimitAction, ListenRange, NextHopMode, PeerConfig, PrefixLimit, RestartConfig,
};
use bird_speaker::fsm::State;
use bird_speaker::io::{Command, FibTarget, LocalRouteKey, LocalSource, Resolution, Witness};
use bird_speaker::restart::DeferralEnd;
use bird_speaker::view::Census;
use bird_speaker::{Event, Input, LocalRoute, Start, Time};
use harness::wire::{
    PEER_AS, Wire, attrs, end_of_rib, graceful_open, keepalive, message, open, passive, router, routes, them,
    update, us, withdrawals,
};
use harness::{World, blackhole, fibs, mesh, millis, net, node, peer, secs};

fn pair(tune: impl Fn(PeerConfig) -> PeerConfig) -> World {
    World::of(vec![node(0, 65000, vec![tune(peer(1, 65001))]), node(1, 65001, vec![tune(peer(0, 65000))])])
}

const RESTART: Start = Start { restarted: true, forwarding_kept: true, local_routes: false };

#[test]
fn b01_a_peer_that_dies_without_fin_is_down_after_the_hold_time_and_at_once_by_bfd() {
    for hold in [3, 9] {
        let mut world = pair(|p| PeerConfig { hold_time: hold, ..p });
        world.until(secs(1), "session", |w| w.up(0, 1) && w.up(1, 0));
        world.run(secs(60));
        world.vanish(1);
        let took = world.until(secs(u64::from(hold) + 1), "down", |w| !w.up(0, 1));
        assert!(took <= secs(u64::from(hold)) + millis(500), "{took:?}");
    }
    let mut world = pair(|p| p);
    world.run(secs(2));
    world.vanish(1);
    world.handle(0, Input::Command(Command::Unreachable { peer: "n1".into(), why: Witness::Bfd }));
    world.run(millis(10));
    assert!(!world.up(0, 1) && !world.nodes[0].fib.contains_key(&net("10.65.1.0/26")));
}

#[test]
fn b02_a_reset_connection_is_made_again_within_a_second() {
    let mut world = pair(|p| p);
    world.run(secs(5));
    for _ in 0..20 {
        world.break_connections(0, 1);
        world.run(millis(5));
        assert!(!world.up(0, 1) && world.nodes[0].fib.contains_key(&net("10.65.1.0/26")), "kept over it");
        let took = world.until(secs(3), "again", |w| w.up(0, 1) && w.up(1, 0));
        assert!(took <= secs(1), "{took:?}");
        world.run(millis(500));
    }
}

#[test]
fn b03_a_session_with_a_machine_that_rebooted_gives_way_to_the_new_one() {
    for passive in [false, true] {
        // The rebooted one calls; the other holds a dead session for up to 90 s.
        let one = node(1, 65001, vec![PeerConfig { hold_time: 90, ..peer(0, 65000) }]);
        let mut world = World::of(vec![
            node(0, 65000, vec![PeerConfig { hold_time: 90, passive, ..peer(1, 65001) }]),
            one.clone(),
        ]);
        world.until(secs(1), "session", |w| w.up(0, 1) && w.up(1, 0));
        world.run(secs(10));
        world.vanish(1);
        world.run(secs(1));
        assert!(world.up(0, 1), "it does not know yet");
        world.start(1, one, Start::default());
        let took = world.until(secs(90), "again", |w| w.up(1, 0) && w.up(0, 1));
        assert!(took <= secs(3), "passive {passive}: {took:?}");
        let view = world.nodes[0].speaker.as_ref().unwrap().neighbor_view("n1", &Census::default()).unwrap();
        let established = view.connections.iter().filter(|c| c.state == State::Established).count();
        assert_eq!(established, 1);
    }
}

#[test]
fn b04_of_a_thousand_collisions_exactly_one_connection_survives_each() {
    let mut ours = [0, 0];
    for run in 0..1000_u64 {
        let mut world = World::new();
        world.weather = run * 7919 + 1;
        world.latency = millis(1 + run % 5);
        world.jitter = millis(run % 40);
        // The higher router id is at n0 in half of the runs; both call at about the same moment.
        let mut configs = [node(0, 65000, vec![peer(1, 65001)]), node(1, 65001, vec![peer(0, 65000)])];
        if run % 2 == 0 {
            let (a, b) = (configs[0].local.router_id, configs[1].local.router_id);
            (configs[0].local.router_id, configs[1].local.router_id) = (b, a);
        }
        configs[0].seed = run + 10;
        configs[1].seed = run + 5000;
        world.add_absent();
        world.add_absent();
        let [zero, one] = configs;
        world.start(0, zero, Start::default());
        world.run(millis(run % 7));
        world.start(1, one, Start::default());
        world.until(secs(5), "session", |w| w.up(0, 1) && w.up(1, 0));
        world.run(secs(2));
        let connections = |n: usize, name: &str| {
            let view =
                world.nodes[n].speaker.as_ref().unwrap().neighbor_view(name, &Census::default()).unwrap();
            view.connections.iter().map(|c| (c.state, c.outgoing)).collect::<Vec<_>>()
        };
        let (a, b) = (connections(0, "n1"), connections(1, "n0"));
        assert_eq!((a.len(), b.len()), (1, 1), "run {run}: {a:?} {b:?}");
        assert!(a[0].0 == State::Established && b[0].0 == State::Established, "run {run}");
        assert_ne!(a[0].1, b[0].1, "run {run}: two ends of one connection");
        let lost =
            world.nodes.iter().flat_map(|n| &n.events).filter(|e| matches!(e, Event::Down { .. })).count();
        assert_eq!(lost, 0, "run {run}: no session was made and lost");
        ours[usize::from(a[0].1)] += 1;
    }
    assert!(ours.iter().all(|n| *n > 200), "both kinds survive, by router id: {ours:?}");
}

/// Two calls cross: the OPEN on theirs arrives while ours waits in OpenConfirm.
#[test]
fn b04_the_connection_of_the_higher_identifier_survives() {
    for (their_id, theirs_survives) in [("192.0.2.200", true), ("192.0.2.0", false)] {
        let active = PeerConfig { passive: false, ..passive(1) };
        let mut wire = Wire::new(router(vec![active]));
        wire.pass(millis(200), &[]);
        let ours = wire.dials[0].conn;
        wire.input(Input::Connected { conn: ours, local: std::net::SocketAddr::new(us(), 40_000) });
        let theirs = wire.call(them(1)).unwrap();
        let mut bytes = Vec::new();
        let mut said = open(1);
        said.router_id = their_id.parse().unwrap();
        said.encode(&mut bytes);
        wire.feed(ours, &bytes);
        wire.feed(theirs, &bytes);
        let (survivor, loser) = if theirs_survives { (theirs, ours) } else { (ours, theirs) };
        assert_eq!(wire.code(loser), Some((6, 7)), "{their_id}");
        assert_eq!(wire.code(survivor), None);
        wire.feed(survivor, &keepalive());
        assert_eq!(wire.state(1), State::Established);
    }
}

#[test]
fn b05_every_bad_open_has_its_notification_and_a_longer_pause() {
    let raw = |asn: u16, hold: u16, id: [u8; 4], version: u8, params: &[u8]| {
        let mut body = vec![version];
        body.extend(asn.to_be_bytes());
        body.extend(hold.to_be_bytes());
        body.extend(id);
        body.extend_from_slice(params);
        message(1, &body)
    };
    let id = [192, 0, 2, 11];
    let asn = u16::try_from(PEER_AS).unwrap();
    type Case = (&'static str, Vec<u8>, Option<(u8, u8)>);
    let cases: Vec<Case> = vec![
        ("good", raw(asn, 90, id, 4, &[0]), None),
        ("hold time 0", raw(asn, 0, id, 4, &[0]), None),
        ("unknown capability", raw(asn, 90, id, 4, &[6, 2, 4, 199, 2, 1, 2]), None),
        ("our identifier, another AS (RFC 6286)", raw(asn, 90, [192, 0, 2, 1], 4, &[0]), None),
        ("version 3", raw(asn, 90, id, 3, &[0]), Some((2, 1))),
        ("version 5", raw(asn, 90, id, 5, &[0]), Some((2, 1))),
        ("wrong AS", raw(65009, 90, id, 4, &[0]), Some((2, 2))),
        ("AS 0", raw(0, 90, id, 4, &[0]), Some((2, 2))),
        ("identifier 0", raw(asn, 90, [0; 4], 4, &[0]), Some((2, 3))),
        ("hold time 1", raw(asn, 1, id, 4, &[0]), Some((2, 6))),
        ("hold time 2", raw(asn, 2, id, 4, &[0]), Some((2, 6))),
        ("unknown parameter", raw(asn, 90, id, 4, &[2, 9, 0]), Some((2, 4))),
        ("parameters overrun", raw(asn, 90, id, 4, &[9, 2, 2]), Some((2, 0))),
        ("capability overruns", raw(asn, 90, id, 4, &[4, 2, 2, 65, 4]), Some((2, 0))),
        ("only IPv6", raw(asn, 90, id, 4, &[8, 2, 6, 1, 4, 0, 2, 0, 1]), Some((2, 7))),
        ("UPDATE first", message(2, &[0, 0, 0, 0]), Some((5, 1))),
        ("KEEPALIVE first", keepalive(), Some((5, 1))),
    ];
    for (name, bytes, code) in &cases {
        let mut wire = Wire::new(router(vec![passive(1)]));
        let conn = wire.call(them(1)).unwrap();
        wire.feed(conn, bytes);
        assert_eq!(wire.code(conn), *code, "{name}");
        assert_eq!(wire.is_closed(conn), code.is_some(), "{name}");
        if code.is_none() {
            wire.feed(conn, &keepalive());
            assert_eq!(wire.state(1), State::Established, "{name}");
        }
    }
    // The same identifier inside one AS.
    let inside = PeerConfig { remote_as: 65000, ..passive(1) };
    let mut wire = Wire::new(router(vec![inside]));
    let conn = wire.call(them(1)).unwrap();
    wire.feed(conn, &raw(65000, 90, [192, 0, 2, 1], 4, &[0]));
    assert_eq!(wire.code(conn), Some((2, 3)));

    // A peer that is always wrong costs an attempt now and then, and one line.
    let mut world = World::of(vec![node(0, 65000, vec![peer(1, 65009)]), node(1, 65001, vec![])]);
    world.configure(1, node(1, 65001, vec![PeerConfig { passive: true, ..peer(0, 65000) }]));
    world.run(secs(3600));
    let failed = |e: &&Event| matches!(e, Event::Failed { .. });
    assert!(world.nodes[0].events.iter().filter(failed).count() <= 2, "{:?}", world.nodes[0].events);
    let attempts = world.nodes[0].speaker.as_ref().unwrap().peer_views()[0].counters.bytes_sent / 60;
    assert!((60..400).contains(&attempts), "{attempts} in an hour");
}

#[test]
fn b07_headers_that_are_none_end_the_connection_and_a_trickle_ends_with_the_timer() {
    let header = |marker: u8, len: u16, kind: u8| {
        let mut bytes = vec![marker; 16];
        bytes.extend(len.to_be_bytes());
        bytes.push(kind);
        bytes.resize(64, 0);
        bytes
    };
    for (name, bytes, code) in [
        ("marker", header(0, 29, 1), (1, 1)),
        ("marker of a stream that is none", vec![0x41; 65536], (1, 1)),
        ("length 0", header(0xff, 0, 1), (1, 2)),
        ("length 18", header(0xff, 18, 4), (1, 2)),
        ("length 4097", header(0xff, 4097, 2), (1, 2)),
        ("length 65535", header(0xff, 65535, 2), (1, 2)),
        ("OPEN of 28", header(0xff, 28, 1), (1, 2)),
        ("KEEPALIVE of 20", header(0xff, 20, 4), (1, 2)),
        ("type 0", header(0xff, 19, 0), (1, 3)),
        ("type 6", header(0xff, 19, 6), (1, 3)),
        ("type 255", header(0xff, 19, 255), (1, 3)),
    ] {
        for cut in [1, 7, 4096] {
            let mut wire = Wire::new(router(vec![passive(1), passive(2)]));
            let other = wire.session(2, &open(2));
            let conn = wire.call(them(1)).unwrap();
            for piece in bytes.chunks(cut) {
                wire.feed(conn, piece);
            }
            assert_eq!(wire.code(conn), Some(code), "{name} by {cut}");
            assert!(wire.is_closed(conn) && !wire.is_closed(other), "{name}");
            assert_eq!(wire.state(2), State::Established);
        }
    }
    // A byte a second of a message that would be whole after an hour.
    let mut wire = Wire::new(router(vec![passive(1)]));
    let conn = wire.call(them(1)).unwrap();
    let mut slow = header(0xff, 4096, 1).into_iter().chain(std::iter::repeat(0));
    let begin = wire.now;
    while !wire.is_closed(conn) {
        wire.feed(conn, &[slow.next().unwrap()]);
        wire.pass(secs(1), &[]);
        assert!(wire.now - begin <= secs(241), "the OPEN timer does not care for bytes");
    }
    assert_eq!(wire.code(conn), Some((4, 0)));
}

/// Every case of RFC 7606 is in `bird/packet/tests/rfc7606.txt`, and sent to the daemon by a system test. Here: what it does
/// to a session, to its other routes and to its neighbours'.
#[test]
fn b08_malformed_attributes_cost_the_route_or_the_attribute_and_seldom_the_session() {
    #[derive(PartialEq, Debug)]
    enum Outcome {
        Taken,
        Withdrawn,
        Reset,
    }
    use Outcome::{Reset, Taken, Withdrawn};
    let with = |extra: &[u8]| [attrs(1), extra.to_vec()].concat();
    let without = |at: usize, len: usize| {
        let mut bytes = attrs(1);
        bytes.drain(at..at + len);
        bytes
    };
    let replaced = |at: usize, len: usize, by: &[u8]| {
        let mut bytes = attrs(1);
        bytes.splice(at..at + len, by.iter().copied());
        bytes
    };
    let cases: Vec<(&str, Vec<u8>, Outcome)> = vec![
        ("good", attrs(1), Taken),
        ("ORIGIN missing", without(0, 4), Withdrawn),
        ("AS_PATH missing", without(4, 9), Withdrawn),
        ("NEXT_HOP missing", without(13, 7), Withdrawn),
        ("ORIGIN 3", replaced(3, 1, &[3]), Withdrawn),
        ("ORIGIN of 2", replaced(2, 2, &[2, 0, 0]), Withdrawn),
        ("flags of ORIGIN", replaced(0, 1, &[0xc0]), Withdrawn),
        ("AS 0 in the path", replaced(9, 4, &[0, 0, 0, 0]), Withdrawn),
        ("path segment of 0", replaced(6, 7, &[2, 2, 0]), Withdrawn),
        ("path segment type 9", replaced(7, 1, &[9]), Withdrawn),
        ("confederation segment from outside", replaced(7, 1, &[3]), Withdrawn),
        ("NEXT_HOP of 3", replaced(15, 5, &[3, 192, 0, 2]), Withdrawn),
        ("MED of 3", with(&[0x80, 4, 3, 0, 0, 0]), Withdrawn),
        ("LOCAL_PREF from outside", with(&[0x40, 5, 4, 0, 0, 0, 9]), Taken),
        ("ATOMIC_AGGREGATE of 1", with(&[0x40, 6, 1, 0]), Taken),
        ("AGGREGATOR of 6", with(&[0xc0, 7, 6, 0, 1, 1, 1, 1, 1]), Taken),
        ("COMMUNITIES of 3", with(&[0xc0, 8, 3, 0, 0, 0]), Withdrawn),
        ("ORIGINATOR_ID from outside", with(&[0x80, 9, 4, 1, 1, 1, 1]), Taken),
        ("EXTENDED_COMMUNITIES of 7", with(&[0xc0, 16, 7, 0, 0, 0, 0, 0, 0, 0]), Withdrawn),
        ("LARGE_COMMUNITIES of 11", with(&[0xc0, 32, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Withdrawn),
        ("ORIGIN twice", with(&[0x40, 1, 1, 2]), Taken),
        ("unknown well-known", with(&[0x40, 99, 1, 0]), Withdrawn),
        ("MP_REACH twice", with(&[0x80, 14, 5, 0, 9, 9, 0, 0, 0x80, 14, 5, 0, 9, 9, 0, 0]), Reset),
        ("attribute overruns", with(&[0x80, 4, 9, 0]), Withdrawn),
    ];
    for (name, bytes, outcome) in cases {
        let mut wire = Wire::new(router(vec![passive(1), passive(2)]));
        let conn = wire.session(1, &open(1));
        wire.session(2, &open(2));
        wire.feed(conn, &update(&attrs(1), &[], &["10.1.0.0/16", "10.2.0.0/16"]));
        let other = wire.speaker.peer_views()[1].counters;
        wire.feed(conn, &update(&bytes, &[], &["10.1.0.0/16"]));
        let held: Vec<String> = wire.heard(1).iter().map(|r| r.prefix.to_string()).collect();
        match outcome {
            Taken => assert_eq!(held, ["10.1.0.0/16", "10.2.0.0/16"], "{name}"),
            Withdrawn => assert_eq!(held, ["10.2.0.0/16"], "{name}"),
            Reset => {
                assert!(held.is_empty() && wire.code(conn).is_some_and(|c| c.0 == 3), "{name}: {held:?}");
            }
        }
        assert_eq!(wire.state(1) == State::Established, outcome != Reset, "{name}");
        let after = wire.speaker.peer_views()[1].counters;
        assert_eq!((wire.state(2), after.flaps), (State::Established, other.flaps), "{name}");
    }
}

#[test]
fn b09_unknown_transitive_attributes_go_on_with_partial_and_are_never_looked_into() {
    // Tunnel encapsulation, attribute sets, BGPsec, prefix SIDs and what nobody knows, all of them nonsense inside.
    for (code, value) in [
        (23_u8, vec![0xff; 3]),
        (28, vec![0; 7]),
        (33, vec![0xff; 200]),
        (128, vec![1, 2, 3]),
        (241, vec![]),
        (255, vec![0xaa; 300]),
    ] {
        let mut wire = Wire::new(router(vec![passive(1), passive(2)]));
        let conn = wire.session(1, &open(1));
        let listener = wire.session(2, &open(2));
        let mut bytes = attrs(1);
        bytes.extend([0xd0, code]);
        bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(&value);
        wire.feed(conn, &update(&bytes, &[], &["10.1.0.0/16"]));
        wire.pass(secs(1), &[]);
        assert_eq!((wire.state(1), wire.state(2)), (State::Established, State::Established), "type {code}");
        let told = told_attributes(&wire, listener);
        let [one] = told.as_slice() else { panic!("type {code}: {told:?}") };
        let set = AttrSet::new(one);
        let passed = set.iter().find(|a| a.code == code).unwrap_or_else(|| panic!("type {code} is gone"));
        assert_eq!((passed.value, passed.flags & 0xe0), (value.as_slice(), 0xe0), "type {code}");
    }
}

/// Canonical attributes of each announcement sent on a connection.
fn told_attributes(wire: &Wire, conn: bird_speaker::ConnId) -> Vec<Vec<u8>> {
    let ctx = SessionContext::new(bird_packet::PeerKind::External);
    let mut told = Vec::new();
    for (kind, body) in wire.sent.get(&conn).into_iter().flatten() {
        assert!(body.len() + 19 <= MAX_LEN, "{} octets", body.len() + 19);
        if *kind != MessageKind::Update {
            continue;
        }
        let view = UpdateView::parse(body, &ctx).unwrap();
        assert_eq!(view.verdict(), bird_packet::Verdict::Ok);
        if view.announcements().next().is_some() {
            let mut bytes = Vec::new();
            view.attributes().write_canonical(&mut bytes);
            told.push(bytes);
        }
    }
    told
}

#[test]
fn b10_giants_are_taken_and_what_does_not_fit_any_more_is_withdrawn() {
    let path = |count: usize| {
        let mut value = Vec::new();
        for chunk in vec![PEER_AS; count].chunks(255) {
            value.extend([2, u8::try_from(chunk.len()).unwrap()]);
            value.extend(chunk.iter().flat_map(|a| a.to_be_bytes()));
        }
        let mut bytes = vec![0x40, 1, 1, 0, 0x50, 2];
        bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        bytes.extend(value);
        bytes.extend([0x40, 3, 4, 192, 0, 2, 11]);
        bytes
    };
    let communities = |count: u16| {
        let mut bytes = attrs(1);
        bytes.extend([0xd0, 8]);
        bytes.extend((count * 4).to_be_bytes());
        bytes.extend((0..count).flat_map(|c| [0xfd, 0xe8].into_iter().chain(c.to_be_bytes())));
        bytes
    };
    let mut set = attrs(1);
    set.splice(6..13, [12, 2, 1, 0, 0, 0xfd, 0xe9, 1, 1, 0, 0, 0, 9]);
    for (name, attributes, goes_on) in [
        ("250 ASes", path(250), true),
        ("1000 ASes", path(1000), true),
        ("1011 ASes: with ours it is too long", path(1011), false),
        ("1000 communities", communities(1000), true),
        ("1011 communities: with our AS it is too long", communities(1011), false),
        ("AS_SET", set, true),
    ] {
        let mut wire = Wire::new(router(vec![passive(1), passive(2)]));
        let conn = wire.session(1, &open(1));
        let listener = wire.session(2, &open(2));
        // It knows the route already: what it may not be told any more, it must unlearn.
        wire.feed(conn, &update(&attrs(1), &[], &["10.1.0.0/16"]));
        wire.pass(secs(1), &[]);
        let message = update(&attributes, &[], &["10.1.0.0/16"]);
        assert!(message.len() <= MAX_LEN, "{name}: {}", message.len());
        wire.feed(conn, &message);
        wire.pass(secs(1), &[]);
        assert_eq!(wire.state(1), State::Established, "{name}");
        assert_eq!(wire.heard(1).len(), 1, "{name}");
        let told = told_attributes(&wire, listener);
        assert_eq!(told.len(), if goes_on { 2 } else { 1 }, "{name}");
        let (_, last) = wire.sent[&listener].iter().rfind(|(kind, _)| *kind == MessageKind::Update).unwrap();
        assert_eq!(last.starts_with(&[0, 3, 16, 10, 1]), !goes_on, "{name}: withdrawn");
    }
}

#[test]
fn b11_a_leak_meets_the_limit_and_our_own_prefixes_stay_ours() {
    let limit = |action| PrefixLimit { max: 100, action, restart: Some(secs(60)) };
    for action in [LimitAction::Warn, LimitAction::Discard, LimitAction::Reset] {
        let mut wire = Wire::new(router(vec![
            PeerConfig { prefix_limit: Some(limit(action)), ..passive(1) },
            passive(2),
        ]));
        let conn = wire.session(1, &open(1));
        wire.session(2, &open(2));
        wire.feed(conn, &routes(1, 0, 10_000));
        let said = wire.events.iter().filter(|e| matches!(e, Event::PrefixLimit { .. })).count();
        assert_eq!((said, wire.state(2)), (1, State::Established));
        match action {
            LimitAction::Warn => assert_eq!(wire.heard(1).len(), 10_000),
            LimitAction::Discard => assert_eq!(wire.heard(1).len(), 100),
            LimitAction::Reset => {
                assert_eq!((wire.code(conn), wire.heard(1).len()), (Some((6, 1)), 0));
                assert!(wire.call(them(1)).is_err(), "not before the pause is over");
                wire.pass(secs(61), &[]);
                wire.session(1, &open(1));
            }
        }
    }
    // The router in front announces our block, and a workload of ours.
    let mut config = router(vec![passive(1)]);
    config.originated = vec![blackhole("10.65.0.0/26")];
    let mut wire = Wire::new(config);
    let key = LocalRouteKey {
        prefix: net("10.65.0.5/32"),
        source: LocalSource::Kernel,
        metric: 0,
        interface: "cali1".into(),
    };
    wire.input(Input::LocalRoute(LocalRoute { key, gateway: None }));
    let conn = wire.session(1, &open(1));
    wire.feed(conn, &update(&attrs(1), &[], &["10.65.0.0/26", "10.65.0.5/32", "0.0.0.0/0"]));
    assert_eq!(wire.fib[&net("10.65.0.0/26")].target, FibTarget::Blackhole);
    assert!(!wire.fib.contains_key(&net("10.65.0.5/32")), "the kernel has felix's");
    assert!(wire.fib.contains_key(&net("0.0.0.0/0")));
}

#[test]
fn b12_a_storm_of_routes_leaves_nothing_behind() {
    let mut wire = Wire::new(router(vec![passive(1), passive(2)]));
    let conn = wire.session(1, &open(1));
    let listener = wire.session(2, &open(2));
    let before = wire.speaker.totals();
    for _ in 0..10 {
        wire.feed(conn, &routes(1, 0, 10_000));
        assert_eq!(wire.speaker.totals().paths, before.paths + 10_000);
        wire.feed(conn, &withdrawals(0, 10_000));
        wire.pass(secs(1), &[conn, listener]);
        assert_eq!(wire.fib.len(), 0);
    }
    wire.pass(secs(60), &[conn, listener]);
    let after = wire.speaker.totals();
    // One set of attributes may be remembered as the last that came.
    assert!(after.paths == 0 && after.attribute_sets <= before.attribute_sets + 1, "{after:?}");
    assert_eq!((wire.state(1), wire.state(2)), (State::Established, State::Established));
}

#[test]
fn b13_a_flapping_route_costs_one_kernel_write_for_each_that_the_kernel_takes() {
    // The one that flaps is told something else, so that its reading does not hurry the listener's group.
    let flapping = PeerConfig { next_hop: NextHopMode::SelfAddress, ..passive(1) };
    let mut wire = Wire::new(router(vec![flapping, passive(2)]));
    let conn = wire.session(1, &open(1));
    let listener = wire.session(2, &open(2));
    let (up, down) = (update(&attrs(1), &[], &["10.1.0.0/16"]), update(&[], &["10.1.0.0/16"], &[]));
    // 100 flaps a second for a minute; the kernel and the listener look ten times a second.
    wire.kernel_busy = true;
    wire.deaf.push(listener);
    let mut told = 0;
    for _ in 0..600 {
        for _ in 0..10 {
            wire.feed(conn, &up);
            wire.feed(conn, &down);
        }
        wire.feed(conn, &up);
        wire.kernel();
        told += wire.take(listener);
        wire.pass(millis(100), &[conn, listener]);
    }
    assert!(wire.fib_writes <= 600, "{} kernel writes of 12,000 changes", wire.fib_writes);
    assert!(told <= 700 * 60, "{told} bytes told of 12,000 changes");
    assert!(wire.fib.contains_key(&net("10.1.0.0/16")));
}

#[test]
fn b14_only_a_next_hop_that_leads_somewhere_else_is_used() {
    let mut config = router(vec![passive(1)]);
    config.kernel.resolve_next_hops = true;
    let mut wire = Wire::new(config);
    let conn = wire.session(1, &open(1));
    let via = |metric| Resolution::Via {
        hops: vec![bird_speaker::io::ResolvedHop { gateway: None, ifindex: 2, interface: "eth0".into() }],
        metric,
    };
    let with_next_hop = |a: [u8; 4]| {
        let mut bytes = attrs(1);
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&a);
        bytes
    };
    wire.feed(conn, &update(&with_next_hop([192, 0, 2, 1]), &[], &["10.1.0.0/16"])); // ourselves
    wire.feed(conn, &update(&with_next_hop([198, 51, 100, 1]), &[], &["10.2.0.0/16"]));
    wire.feed(conn, &update(&attrs(1), &[], &["10.3.0.0/16"]));
    assert!(wire.fib.is_empty(), "nothing before the kernel said how");
    for (address, resolution) in
        [("192.0.2.1", via(0)), ("198.51.100.1", Resolution::Unreachable), ("192.0.2.11", via(0))]
    {
        wire.input(Input::NextHop { address: address.parse().unwrap(), resolution });
    }
    let installed = |wire: &Wire| wire.fib.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(installed(&wire), ["10.3.0.0/16"]);
    wire.input(Input::NextHop { address: them(1), resolution: Resolution::Unreachable });
    assert!(installed(&wire).is_empty(), "within the same call");
    wire.input(Input::NextHop { address: "198.51.100.1".parse().unwrap(), resolution: via(5) });
    wire.input(Input::NextHop { address: them(1), resolution: via(0) });
    assert_eq!(installed(&wire), ["10.2.0.0/16", "10.3.0.0/16"]);
}

/// Two nodes and a third that dies, returns, and dies again while its session comes back.
#[test]
fn b15_two_restarts_one_after_the_other_lose_nothing_that_was_told_in_between() {
    for second in (0..40).map(|i| i * 25) {
        let configs = mesh(3, |p| p);
        let mut world = World::of(configs.clone());
        world.run(secs(3));
        let before = fibs(&world);
        world.kill(1);
        watch(&mut world, millis(300), &before);
        world.start(1, configs[1].clone(), RESTART);
        watch(&mut world, millis(second), &before);
        world.kill(1);
        watch(&mut world, millis(300), &before);
        world.start(1, configs[1].clone(), RESTART);
        watch(&mut world, secs(8), &before);
        assert!(world.up(0, 1) && world.up(1, 2));
    }
}

/// Lets time pass and looks each 5 ms that no kernel route changed.
fn watch(world: &mut World, time: Time, before: &[BTreeMap<ipnet::IpNet, bird_speaker::FibRoute>]) {
    let end = world.now + time;
    while world.now < end {
        world.run(millis(5));
        assert_eq!(fibs(world), before, "at {:?}", world.now);
    }
}

#[test]
fn b16_stale_routes_stay_for_the_restart_time_and_go_with_end_of_rib_or_the_clock() {
    let helped = |forwarding_kept| {
        let mut wire = Wire::new(router(vec![passive(1)]));
        let conn = wire.session(1, &graceful_open(1, false, true));
        wire.feed(conn, &routes(1, 0, 3));
        wire.feed(conn, &end_of_rib());
        wire.close(conn);
        assert_eq!((wire.heard(1).len(), wire.fib.len()), (3, 3));
        wire.pass(secs(20), &[]);
        assert_eq!(wire.fib.len(), 3, "30 s were promised");
        let back = wire.session(1, &graceful_open(1, true, forwarding_kept));
        (wire, back)
    };
    let (wire, _) = helped(false);
    assert_eq!((wire.heard(1).len(), wire.fib.len()), (0, 0), "F = 0: it kept nothing");
    let (mut wire, back) = helped(true);
    wire.feed(back, &routes(1, 1, 2));
    assert_eq!(wire.fib.len(), 3, "the first may come yet");
    wire.feed(back, &end_of_rib());
    assert_eq!((wire.heard(1).len(), wire.fib.len()), (2, 2), "swept");
    // It says no End-of-RIB: the clock does.
    let (mut wire, back) = helped(true);
    wire.feed(back, &routes(1, 1, 2));
    wire.pass(secs(350), &[back]);
    assert_eq!(wire.fib.len(), 3);
    wire.pass(secs(20), &[back]);
    assert_eq!((wire.heard(1).len(), wire.fib.len()), (2, 2));
    // It does not come back at all.
    let mut wire = Wire::new(router(vec![passive(1)]));
    let conn = wire.session(1, &graceful_open(1, false, true));
    wire.feed(conn, &routes(1, 0, 3));
    wire.close(conn);
    wire.pass(secs(31), &[]);
    assert!(wire.fib.is_empty());
}

#[test]
fn b17_without_graceful_restart_the_other_way_is_used_at_once() {
    for cease in [false, true] {
        let mut wire = Wire::new(router(vec![passive(1), passive(2)]));
        let first = wire.session(1, &open(1));
        let second = wire.session(2, &open(2));
        // The same prefixes by both, the second way longer.
        wire.feed(first, &update(&attrs(1), &[], &["10.1.0.0/16"]));
        let mut longer = attrs(2);
        longer.splice(6..13, [10, 2, 2, 0, 0, 0xfd, 0xe9, 0, 0, 0xfd, 0xf0]);
        wire.feed(second, &update(&longer, &[], &["10.1.0.0/16"]));
        let via = |wire: &Wire| match &wire.fib[&net("10.1.0.0/16")].target {
            FibTarget::Hops(hops) => hops.iter().map(|h| h.via).collect::<Vec<_>>(),
            FibTarget::Blackhole => Vec::new(),
        };
        assert_eq!(via(&wire), [them(1)]);
        if cease {
            wire.feed(first, &message(3, &[6, 2]));
        } else {
            wire.close(first);
        }
        assert_eq!(via(&wire), [them(2)], "in the same call");
    }
}

#[test]
fn b18_a_planned_restart_says_nothing_and_changes_no_route_anywhere() {
    let configs = mesh(4, |p| p);
    let mut world = World::of(configs.clone());
    world.run(secs(3));
    let before = fibs(&world);
    for (n, config) in configs.iter().enumerate() {
        world.handle(n, Input::Command(Command::Stop));
        watch(&mut world, millis(50), &before);
        for (other, node) in world.nodes.iter().enumerate().filter(|(other, _)| *other != n) {
            let last = node.events.iter().rfind(|e| matches!(e, Event::Down { .. }));
            let Some(Event::Down { reason, .. }) = last else { panic!("n{other}: {:?}", node.events) };
            assert!(!reason.to_string().contains("notification"), "n{other}: {reason}");
        }
        world.kill(n);
        watch(&mut world, secs(2), &before);
        world.start(n, config.clone(), RESTART);
        watch(&mut world, secs(8), &before);
        assert_eq!(world.nodes[n].fib_writes, 0, "n{n} found everything right");
    }
}

#[test]
fn b19_a_deferral_ends_with_the_timer_at_the_latest_and_does_not_wait_for_the_dead() {
    let ended = |wire: &Wire| {
        wire.events.iter().find_map(|e| match e {
            Event::RestartComplete { waited } => Some(*waited),
            _ => None,
        })
    };
    // Connected, with graceful restart, and never an End-of-RIB.
    let mut config = router(vec![passive(1), passive(2)]);
    config.restart = RestartConfig { deferral: secs(60), ..RestartConfig::default() };
    let mut wire = Wire::started(config.clone(), RESTART);
    let one = wire.session(1, &graceful_open(1, false, true));
    wire.pass(secs(58), &[one]);
    assert_eq!(ended(&wire), None);
    let waits = wire.speaker.restart_view(wire.now).waiting;
    assert_eq!(waits.iter().map(|w| w.peer.as_str()).collect::<Vec<_>>(), ["p1"], "p2 never came");
    wire.pass(secs(2), &[one]);
    assert_eq!(ended(&wire), Some(DeferralEnd::TimedOut));
    // Nobody is there.
    let mut wire = Wire::started(config.clone(), RESTART);
    wire.pass(millis(5500), &[]);
    assert_eq!(ended(&wire), Some(DeferralEnd::AllDone));
    // The only one that was there dies before it told everything.
    let mut wire = Wire::started(config, RESTART);
    let one = wire.session(1, &graceful_open(1, false, true));
    wire.pass(secs(10), &[one]);
    assert_eq!(ended(&wire), None);
    wire.close(one);
    wire.pass(millis(300), &[]);
    assert_eq!(ended(&wire), Some(DeferralEnd::AllDone));
}

#[test]
fn b20_strangers_and_repeated_callers_take_no_room() {
    let mut config = router(vec![passive(1)]);
    config.listen_ranges.push(ListenRange {
        range: net("203.0.113.0/24"),
        template: PeerConfig { name: "guest".into(), ..PeerConfig::default() },
        limit: 5,
    });
    let mut wire = Wire::new(config);
    let conn = wire.session(1, &open(1));
    for i in 0..1000_u16 {
        let [a, b] = i.to_be_bytes();
        assert!(wire.call(std::net::Ipv4Addr::new(198, 51, a, b).into()).is_err());
    }
    let guests =
        (0..200).filter(|i| wire.call(std::net::Ipv4Addr::new(203, 0, 113, *i).into()).is_ok()).count();
    assert_eq!(guests, 5, "as many as the range may have");
    // A place is not kept without a word, but for long enough to say one.
    let late = || std::net::Ipv4Addr::new(203, 0, 113, 250).into();
    wire.pass(secs(4), &[conn]);
    assert!(wire.call(late()).is_err());
    wire.pass(secs(2), &[conn]);
    let late = wire.call(late()).expect("a silent guest goes");
    let guests = wire.speaker.peer_views().len() - 1;
    assert_eq!((guests, wire.is_closed(late)), (5, false));
    // A configured address, calling over and over: one more connection at most.
    let mut open_connections = BTreeSet::new();
    for _ in 0..1000 {
        open_connections.insert(wire.call(them(1)).unwrap());
        open_connections.retain(|c| !wire.is_closed(*c));
    }
    assert!(open_connections.len() <= 1, "{open_connections:?}");
    assert_eq!(wire.state(1), State::Established);
    // Guests that say nothing go with the OPEN timer.
    wire.pass(secs(250), &[conn]);
    assert_eq!(wire.speaker.peer_views().len(), 1);
    assert_eq!(wire.state(1), State::Established);
}

#[test]
fn b21_a_peer_that_reads_nothing_holds_nobody_up_and_is_let_go() {
    let slow = PeerConfig { hold_time: 0, ..passive(1) };
    let mut wire = Wire::new(Config { export_log: 64 << 10, ..router(vec![slow, passive(2), passive(3)]) });
    let mut silent = open(1);
    silent.hold_time = 0;
    let deaf = wire.session(1, &silent);
    let sender = wire.session(2, &open(2));
    let listener = wire.session(3, &open(3));
    wire.deaf.push(deaf);
    let mut told = 0;
    for round in 0..20 {
        wire.feed(sender, &routes(2, 0, 5_000));
        wire.feed(sender, &withdrawals(round * 100, 100));
        wire.pass(secs(10), &[sender, listener]);
        let now: usize = wire.sent[&listener].iter().map(|(_, body)| body.len()).sum();
        assert!(now > told, "round {round}: the other is told in time");
        told = now;
    }
    assert_eq!(wire.state(1), State::Established, "8 minutes are not over (RFC 9687)");
    wire.pass(secs(300), &[sender, listener]);
    assert_eq!(wire.code(deaf), Some((8, 0)), "send hold timer");
    assert_eq!((wire.state(2), wire.state(3)), (State::Established, State::Established));
}

#[test]
fn b22_gtsm_asks_for_packets_that_nobody_forwarded() {
    for (hops, min_ttl) in [(1, 255), (2, 254), (255, 1)] {
        let near = PeerConfig { passive: false, ttl_security: Some(hops), ..passive(1) };
        let mut wire = Wire::new(router(vec![near]));
        wire.pass(millis(200), &[]);
        assert_eq!((wire.dials[0].ttl, wire.dials[0].min_ttl), (255, min_ttl), "{hops} hops");
    }
}

#[test]
fn b23_a_clock_that_goes_back_ends_nothing() {
    let mut wire = Wire::new(router(vec![passive(1)]));
    let conn = wire.session(1, &open(1));
    wire.pass(secs(300), &[conn]);
    // The shell's clock is monotonic; should it be handed an older time all the same, time stands still.
    for back in [secs(1), secs(100), secs(86_400)] {
        wire.speaker.handle(wire.now.saturating_sub(back), Input::Tick);
        wire.speaker.handle(wire.now.saturating_sub(back), Input::Received { conn, data: &keepalive() });
        wire.settle();
    }
    wire.pass(secs(85), &[]);
    assert_eq!(wire.state(1), State::Established);
    wire.pass(secs(10), &[]);
    assert_eq!(wire.code(conn), Some((4, 0)), "and goes on from where it was");
}

#[test]
fn b24_two_routers_with_one_identifier_are_told_apart_or_refused_in_one_line() {
    let twin = |mut c: Config| {
        c.local.router_id = "10.20.0.77".parse().unwrap();
        c
    };
    // In one AS the identifier must differ.
    let mut world = World::of(vec![
        twin(node(0, 65000, vec![peer(1, 65000)])),
        twin(node(1, 65000, vec![peer(0, 65000)])),
    ]);
    world.run(secs(600));
    assert!(!world.up(0, 1) && !world.up(1, 0));
    for node in &world.nodes {
        let said: Vec<String> = node
            .events
            .iter()
            .filter_map(|e| match e {
                Event::Failed { reason, .. } => Some(reason.to_string()),
                _ => None,
            })
            .collect();
        assert!(said.iter().any(|s| s.contains("Bad BGP Identifier")), "{said:?}");
        assert!(said.len() <= 10, "a line a minute: {said:?}");
    }
    // In two it need not (RFC 6286).
    let mut world = World::of(vec![
        twin(node(0, 65000, vec![peer(1, 65001)])),
        twin(node(1, 65001, vec![peer(0, 65000)])),
    ]);
    world.until(secs(5), "session", |w| w.up(0, 1) && w.up(1, 0));
    world.run(secs(5));
    assert_eq!(world.heard_prefixes(0, 1), ["10.65.1.0/26"]);
}

/// The engine of BFD has its own tests of loss; here: what a flapping verdict does to a session.
#[test]
fn b25_bfd_that_comes_and_goes_ends_a_session_once_and_it_comes_back() {
    let mut world = pair(|p| PeerConfig {
        graceful_restart: GracefulRestart { enabled: false, ..GracefulRestart::default() },
        ..p
    });
    world.run(secs(3));
    for _ in 0..5 {
        for _ in 0..10 {
            world.handle(0, Input::Command(Command::Unreachable { peer: "n1".into(), why: Witness::Bfd }));
        }
        assert!(!world.up(0, 1));
        world.until(secs(5), "again", |w| w.up(0, 1) && w.up(1, 0));
        world.run(secs(1));
    }
    let downs = world.nodes[0].events.iter().filter(|e| matches!(e, Event::Down { .. })).count();
    assert_eq!(downs, 5, "{:?}", world.nodes[0].events);
}

/// RFC 7313: what is not said again between the two marks is gone, and an end without a beginning ends nothing.
#[test]
fn b16_an_enhanced_refresh_sweeps_only_between_its_marks() {
    let mark = |subtype| message(5, &[0, 1, subtype, 1]);
    let mut wire = Wire::new(router(vec![passive(1)]));
    let mut enhanced = graceful_open(1, false, true);
    enhanced.capabilities.push(bird_packet::Capability::EnhancedRouteRefresh);
    let conn = wire.session(1, &enhanced);
    wire.feed(conn, &routes(1, 0, 3));
    wire.feed(conn, &mark(1));
    wire.feed(conn, &routes(1, 1, 2));
    assert_eq!(wire.heard(1).len(), 3);
    wire.feed(conn, &mark(2));
    assert_eq!((wire.heard(1).len(), wire.fib.len()), (2, 2));
    wire.close(conn);
    let mut again = graceful_open(1, true, true);
    again.capabilities.push(bird_packet::Capability::EnhancedRouteRefresh);
    let back = wire.session(1, &again);
    wire.feed(back, &mark(2));
    assert_eq!(wire.heard(1).len(), 2, "stale routes wait for End-of-RIB");
    wire.feed(back, &end_of_rib());
    assert_eq!(wire.heard(1).len(), 0);
}
