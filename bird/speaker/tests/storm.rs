//! Weather: links fail and heal, machines die and return, processes restart, configurations change. When it is over, every
//! node knows every block, forwards to it, and holds nothing else.

#![allow(clippy::needless_range_loop, reason = "nodes are numbers")]

mod harness;

use bird_speaker::config::{GracefulRestart, LongLived};
use bird_speaker::{Config, PeerConfig, Start};
use harness::{World, blackhole, config, millis, peer, secs};
use proptest::prelude::*;

const NODES: usize = 5;

/// How the nodes find each other, and what they promise.
#[derive(Debug, Clone, Copy)]
struct Habits {
    /// Both ends call; otherwise one waits for the other.
    both_call: bool,
    delay_open: bool,
    long_lived: bool,
}

fn node(n: usize, extra: bool, habits: Habits) -> Config {
    let long_lived = if habits.long_lived {
        LongLived { stale_time: 40, keep: secs(40), ..LongLived::default() }
    } else {
        LongLived::default()
    };
    let restart_time = if habits.long_lived { 5 } else { 120 };
    let peers = (0..NODES)
        .filter(|p| *p != n)
        .map(|p| PeerConfig {
            passive: p > n && !habits.both_call,
            patience: Some(secs(5)),
            hold_time: 9,
            delay_open: (habits.delay_open && p % 2 == 0).then(|| secs(1)),
            graceful_restart: GracefulRestart { restart_time, long_lived, ..GracefulRestart::default() },
            ..peer(p, 64512)
        })
        .collect();
    let mut originated = vec![blackhole(&format!("10.65.{n}.0/26"))];
    if extra {
        originated.push(blackhole(&format!("10.66.{n}.0/26")));
    }
    Config { peers, originated, ..config(n, 64512) }
}

#[derive(Debug, Clone, Copy)]
enum Weather {
    Cut(usize, usize),
    Heal,
    Break(usize, usize),
    Kill(usize),
    Vanish(usize),
    Return(usize),
    Change(usize, bool),
    Wait(u64),
}

fn weather() -> impl Strategy<Value = Weather> {
    let node = 0..NODES;
    prop_oneof![
        3 => (node.clone(), node.clone()).prop_map(|(a, b)| Weather::Cut(a, b)),
        2 => Just(Weather::Heal),
        3 => (node.clone(), node.clone()).prop_map(|(a, b)| Weather::Break(a, b)),
        2 => node.clone().prop_map(Weather::Kill),
        1 => node.clone().prop_map(Weather::Vanish),
        4 => node.clone().prop_map(Weather::Return),
        2 => (node, any::<bool>()).prop_map(|(n, extra)| Weather::Change(n, extra)),
        6 => prop_oneof![0..50_u64, 0..2000_u64, 0..20_000_u64].prop_map(Weather::Wait),
    ]
}

fn revive(world: &mut World, n: usize, extra: bool, habits: Habits) {
    if world.nodes[n].speaker.is_none() {
        let kept = !world.nodes[n].fib.is_empty();
        let start = Start { restarted: kept, forwarding_kept: kept, local_routes: false };
        world.start(n, node(n, extra, habits), start);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_every_storm_there_is_calm(
        storm in prop::collection::vec(weather(), 1..40),
        latency in prop_oneof![Just(0_u64), Just(1), Just(20)],
        jitter in prop_oneof![Just(0_u64), Just(3), Just(200)],
        lateness in prop_oneof![Just(0_u64), Just(2), Just(300)],
        seed in 1..u64::MAX,
        (both_call, delay_open, long_lived) in any::<(bool, bool, bool)>(),
    ) {
        let habits = Habits { both_call, delay_open, long_lived };
        let mut extra = [false; NODES];
        let mut world = World::of((0..NODES).map(|n| node(n, false, habits)).collect());
        world.latency = millis(latency);
        world.jitter = millis(jitter);
        world.weather = seed;
        world.lateness = millis(lateness);
        world.run(secs(3));
        for event in storm {
            match event {
                Weather::Cut(a, b) if a != b => world.cut.push((a, b)),
                Weather::Heal => world.cut.clear(),
                Weather::Break(a, b) => world.break_connections(a, b),
                Weather::Kill(n) => world.kill(n),
                Weather::Vanish(n) => world.vanish(n),
                Weather::Return(n) => revive(&mut world, n, extra[n], habits),
                Weather::Change(n, more) => {
                    extra[n] = more;
                    if world.nodes[n].speaker.is_some() {
                        world.configure(n, node(n, more, habits));
                    }
                }
                Weather::Wait(ms) => world.run(millis(ms)),
                Weather::Cut(..) => {}
            }
        }
        world.cut.clear();
        for n in 0..NODES {
            revive(&mut world, n, extra[n], habits);
        }
        // Nine seconds of hold time, a few to call again, two minutes for whoever restarted and is missed by a helper.
        world.run(secs(150));
        let all: Vec<String> = (0..NODES)
            .map(|n| format!("10.65.{n}.0/26"))
            .chain((0..NODES).filter(|n| extra[*n]).map(|n| format!("10.66.{n}.0/26")))
            .collect();
        for n in 0..NODES {
            for p in (0..NODES).filter(|p| *p != n) {
                prop_assert!(world.up(n, p), "{n} and {p}");
            }
            let best: Vec<String> = world.best(n).keys().map(ToString::to_string).collect();
            prop_assert_eq!(&best, &all, "node {}", n);
            let fib: Vec<String> = world.nodes[n].fib.keys().map(ToString::to_string).collect();
            prop_assert_eq!(&fib, &all, "kernel of node {}", n);
        }
    }
}
