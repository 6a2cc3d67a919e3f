//! Properties: the best path does not depend on the order of arrival, every peer holds what a decision for it alone says
//! however updates and reads interleave, and no sequence of events panics.
#![allow(clippy::unwrap_used, clippy::unchecked_time_subtraction, reason = "tests")]

#[path = "harness/rig.rs"]
mod rig;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bird_speaker::io::{Command, ConnId, LocalRouteKey, LocalSource, Resolution};
use bird_speaker::view::RouteFilter;
use bird_speaker::{Config, Input, LocalRoute, Output};
use proptest::prelude::*;
use rig::{Announced, Op, Rig, address, announced, config, op};

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_best_path_does_not_depend_on_the_order_of_arrival(
        (first, second) in prop::collection::vec(announced(6, 2), 1..20).prop_flat_map(|mut list| {
            // The last word of each peer on each prefix counts; with one word each, order is all that differs.
            let mut seen = std::collections::HashSet::new();
            list.retain(|a| seen.insert((a.peer, a.prefix)));
            (Just(list.clone()), Just(list).prop_shuffle())
        }),
        gone in prop::collection::vec((0..6_u8, 0..2_u8), 0..4),
    ) {
        let config = config(6, 2, false, 4 << 20);
        let outcome = |list: &[Announced]| {
            let mut rig = Rig::new(&config);
            for a in list {
                rig.perform(&Op::Announce(*a));
            }
            for (p, n) in &gone {
                rig.perform(&Op::Withdraw(*p, *n, 0));
            }
            rig.best()
        };
        prop_assert_eq!(outcome(&first), outcome(&second));
    }

    #[test]
    fn every_member_of_a_group_holds_what_a_decision_for_it_alone_says(
        ops in prop::collection::vec(op(6, 12), 1..120),
        add_path in any::<bool>(),
        log in prop_oneof![Just(64_usize), Just(600), Just(4 << 20)],
    ) {
        let mut rig = Rig::new(&config(6, 2, add_path, log));
        for op in &ops {
            rig.perform(op);
        }
        rig.read_all();
        rig.check();
        // And once more, after everything that may be reused was reused.
        for op in &ops {
            rig.perform(op);
        }
        rig.read_all();
        rig.check();
    }

    #[test]
    fn no_sequence_of_events_panics(
        events in prop::collection::vec(event(), 1..80),
    ) {
        chaos(&events);
    }
}

#[derive(Debug, Clone)]
enum Chaos {
    Op(Op),
    Bytes(u8, Vec<u8>),
    Message(u8, u8, Vec<u8>),
    Tick(u64),
    Accept(u8),
    Close(u8),
    Answer(bool),
    Configure(u8, u8, bool),
    Local(u8, u32, bool),
    NextHop(u8, bool),
    Command(u8),
    Fib(usize, bool),
    StaleConn,
}

fn event() -> impl Strategy<Value = Chaos> {
    prop_oneof![
        6 => op(5, 4).prop_map(Chaos::Op),
        2 => (0..5_u8, prop::collection::vec(any::<u8>(), 0..60)).prop_map(|(p, b)| Chaos::Bytes(p, b)),
        4 => (0..5_u8, 1..6_u8, prop::collection::vec(any::<u8>(), 0..60)).prop_map(|(p, k, b)| Chaos::Message(p, k, b)),
        3 => (0..200_000_u64).prop_map(Chaos::Tick),
        2 => (0..5_u8).prop_map(Chaos::Accept),
        1 => (0..5_u8).prop_map(Chaos::Close),
        3 => any::<bool>().prop_map(Chaos::Answer),
        2 => (0..6_u8, 0..3_u8, any::<bool>()).prop_map(|(n, i, a)| Chaos::Configure(n, i, a)),
        2 => (0..4_u8, 0..3_u32, any::<bool>()).prop_map(|(n, m, g)| Chaos::Local(n, m, g)),
        2 => (0..5_u8, any::<bool>()).prop_map(|(p, u)| Chaos::NextHop(p, u)),
        1 => (0..9_u8).prop_map(Chaos::Command),
        2 => (0..9_usize, any::<bool>()).prop_map(|(n, f)| Chaos::Fib(n, f)),
        1 => Just(Chaos::StaleConn),
    ]
}

fn chaos(events: &[Chaos]) {
    let mut base = config(5, 2, true, 600);
    for (i, peer) in base.peers.iter_mut().enumerate() {
        peer.passive = i % 2 == 0;
    }
    base.kernel.resolve_next_hops = true;
    let mut rig = Rig::new(&base);
    let mut dialed: Vec<ConnId> = Vec::new();
    for event in events {
        match event {
            Chaos::Op(op) => rig.perform(op),
            Chaos::Bytes(p, bytes) => rig.receive(*p, bytes),
            Chaos::Message(p, kind, body) => {
                let mut bytes = vec![0xff; 16];
                bytes.extend_from_slice(&u16::try_from(body.len() + 19).unwrap().to_be_bytes());
                bytes.push(*kind);
                bytes.extend_from_slice(body);
                rig.receive(*p, &bytes);
            }
            Chaos::Tick(ms) => rig.perform(&Op::Wait(*ms)),
            Chaos::Accept(p) => {
                let local = SocketAddr::new(Ipv4Addr::new(10, 0, 0, 1).into(), 179);
                let remote = SocketAddr::new(address(*p).into(), 4000);
                if let Ok(conn) = rig.speaker.accept(rig.now, remote, local) {
                    let raw = &mut rig.peers[usize::from(*p)];
                    raw.conn = conn;
                    raw.up = false;
                    raw.buffer.clear();
                    let hello = raw.hello(*p);
                    rig.receive(*p, &hello);
                }
            }
            Chaos::Close(p) => {
                let conn = rig.peers[usize::from(*p)].conn;
                rig.speaker.handle(rig.now, Input::Closed { conn, reason: "test".into() });
            }
            Chaos::Answer(good) => {
                let Some(conn) = dialed.pop() else { continue };
                let input = if *good {
                    Input::Connected { conn, local: SocketAddr::new(Ipv4Addr::new(10, 0, 0, 1).into(), 4000) }
                } else {
                    Input::ConnectFailed { conn, reason: bird_speaker::io::ConnectError::Refused }
                };
                rig.speaker.handle(rig.now, input);
            }
            Chaos::Configure(count, internal, add_path) => {
                let mut config = config((*count).min(5), *internal, *add_path, 600);
                config.originated = (0..*count)
                    .map(|n| bird_speaker::config::Originated {
                        prefix: format!("11.{n}.0.0/16").parse().unwrap(),
                        target: bird_speaker::config::OriginTarget::Blackhole,
                        metric: None,
                    })
                    .collect();
                rig.speaker.configure(rig.now, config);
            }
            Chaos::Local(n, metric, gone) => {
                let key = LocalRouteKey {
                    prefix: format!("11.{n}.0.0/16").parse().unwrap(),
                    source: LocalSource::Kernel,
                    metric: *metric,
                    interface: "cali1".into(),
                };
                rig.speaker.handle(
                    rig.now,
                    if *gone {
                        Input::LocalRouteGone(key)
                    } else {
                        Input::LocalRoute(LocalRoute { key, gateway: None })
                    },
                );
            }
            Chaos::NextHop(p, up) => {
                let resolution = if *up {
                    Resolution::Via { hops: Vec::new(), metric: 1 }
                } else {
                    Resolution::Unreachable
                };
                rig.speaker.handle(rig.now, Input::NextHop { address: address(*p).into(), resolution });
            }
            Chaos::Command(n) => {
                let peer = format!("p{}", n % 3);
                let command = match n / 3 {
                    0 => Command::Reset { peer },
                    1 => Command::RefreshIn { peer },
                    _ => Command::RefreshOut { peer },
                };
                rig.speaker.handle(rig.now, Input::Command(command));
            }
            Chaos::Fib(max, fails) => {
                for change in rig.speaker.take_fib(*max) {
                    if *fails {
                        rig.speaker.handle(rig.now, Input::FibFailed { prefix: change.prefix });
                    }
                }
            }
            Chaos::StaleConn => {
                let conn = rig.peers[0].conn;
                rig.speaker.handle(rig.now, Input::Closed { conn, reason: "test".into() });
                rig.receive(0, &[0xff; 40]);
                rig.speaker.handle(rig.now, Input::Closed { conn, reason: "again".into() });
            }
        }
        for _ in 0..50 {
            match rig.speaker.poll() {
                Some(Output::Connect(dial)) => dialed.push(dial.conn),
                Some(Output::Transmit(conn) | Output::Close(conn)) => {
                    rig.speaker.transmit(rig.now, conn, 1000, &mut Vec::new());
                }
                Some(_) => {}
                None => break,
            }
        }
        let totals = rig.speaker.totals();
        assert!(totals.paths >= totals.prefixes);
    }
    // Silence ends everything: nothing is left over.
    rig.speaker.configure(rig.now, Config { peers: Vec::new(), ..base });
    for _ in 0..200 {
        rig.now += Duration::from_secs(10);
        rig.speaker.handle(rig.now, Input::Tick);
        while rig.speaker.poll().is_some() {}
    }
    let learned =
        rig.speaker.routes(&RouteFilter::default()).into_iter().filter(|r| r.from.starts_with('p')).count();
    assert_eq!(learned, 0);
    let totals = rig.speaker.totals();
    assert!(totals.attribute_sets <= 4 + 5, "nothing but local routes holds attributes: {totals:?}");
}
