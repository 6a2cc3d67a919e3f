//! ADD-PATH with a limit: the best N paths of a prefix are told, and no more are taken than were agreed to.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;
#[path = "harness/rig.rs"]
mod rig;

use std::collections::BTreeMap;

use bird_speaker::config::AddPath;
use bird_speaker::view::{PathView, RouteFilter};
use bird_speaker::{Event, ExportReason, PeerConfig, Start};
use harness::{World, blackhole, net, node, peer, secs};
use proptest::prelude::*;
use rig::{Announced, OUR_AS, Op, Rig, announced, config, op};

const PEERS: u8 = 6;
const PREFIXES: u8 = 4;
/// The one with ADD-PATH.
const LAST: u8 = PEERS - 1;

#[derive(Debug, Clone)]
enum Step {
    Op(Op),
    Limit(Option<u16>),
}

fn limit() -> impl Strategy<Value = Option<u16>> {
    prop::option::of(1..4_u16)
}

/// Without ends of sessions: what is offered is what was said last.
fn steady() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => announced(PEERS, PREFIXES).prop_map(|a| Step::Op(Op::Announce(a))),
        4 => (0..PEERS, 0..PREFIXES, 0..2_u32).prop_map(|(p, n, id)| Step::Op(Op::Withdraw(p, n, id))),
        4 => (0..PEERS, 1..400_usize).prop_map(|(p, b)| Step::Op(Op::Read(p, b))),
        1 => (0..PEERS).prop_map(|p| Step::Op(Op::Refresh(p))),
        1 => limit().prop_map(Step::Limit),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => op(PEERS, PREFIXES).prop_map(Step::Op),
        1 => limit().prop_map(Step::Limit),
    ]
}

struct Limited {
    rig: Rig,
    limit: Option<u16>,
}

impl Limited {
    fn new(limit: Option<u16>, log: usize) -> Self {
        Limited { rig: Rig::new(&limited(limit, log)), limit }
    }

    fn perform(&mut self, step: &Step, log: usize) {
        match step {
            Step::Op(op) => self.rig.perform(op),
            Step::Limit(limit) => {
                let diff = self.rig.speaker.configure(self.rig.now, limited(*limit, log));
                assert!(diff.reset.is_empty(), "the session stays");
                self.limit = *limit;
            }
        }
    }

    fn most(&self) -> usize {
        self.limit.map_or(usize::MAX, usize::from)
    }

    /// The AS paths that the last peer holds, by prefix.
    fn held(&self) -> BTreeMap<String, Vec<Vec<u32>>> {
        let mut held: BTreeMap<String, Vec<Vec<u32>>> = BTreeMap::new();
        for ((prefix, _), (path, _)) in &self.rig.peers[usize::from(LAST)].held {
            held.entry(prefix.clone()).or_default().push(path.clone());
        }
        for paths in held.values_mut() {
            paths.sort();
        }
        held
    }
}

fn limited(limit: Option<u16>, log: usize) -> bird_speaker::Config {
    let mut config = config(PEERS, 2, true, log);
    config.peers[usize::from(LAST)].add_path.send_limit = limit;
    config
}

/// How the last peer, which is external, sees an AS path.
fn as_told(path: &[u32]) -> Vec<u32> {
    std::iter::once(OUR_AS).chain(path.iter().copied()).collect()
}

/// The paths of each prefix in the order of the decision: the best, then the best without it, and so on; by a speaker that
/// knows no limit and gets one path less each time.
fn in_order(said: &BTreeMap<(u8, u8, u32), Announced>) -> BTreeMap<String, Vec<PathView>> {
    let mut rig = Rig::new(&config(PEERS, 2, true, 4 << 20));
    for a in said.values() {
        rig.perform(&Op::Announce(*a));
    }
    let mut order: BTreeMap<String, Vec<PathView>> = BTreeMap::new();
    loop {
        let best = rig.best();
        if best.is_empty() {
            return order;
        }
        for path in best {
            let from: u8 = path.from[1..].parse().unwrap();
            let prefix =
                (0..PREFIXES).find(|n| rig::prefix(*n).to_string() == path.prefix.to_string()).unwrap();
            rig.perform(&Op::Withdraw(from, prefix, path.path_id));
            order.entry(path.prefix.to_string()).or_default().push(path);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_set_told_is_the_best_n(
        steps in prop::collection::vec(steady(), 1..80),
        first in limit(),
        log in prop_oneof![Just(64_usize), Just(600), Just(4 << 20)],
    ) {
        let mut limited = Limited::new(first, log);
        let mut said = BTreeMap::new();
        for step in &steps {
            limited.perform(step, log);
            let id = |p: u8, id: u32| if p == LAST { id } else { 0 };
            match step {
                Step::Op(Op::Announce(a)) => {
                    said.insert((a.peer, a.prefix, id(a.peer, a.path_id)), *a);
                }
                Step::Op(Op::Withdraw(p, n, i)) => {
                    said.remove(&(*p, *n, id(*p, *i)));
                }
                _ => {}
            }
        }
        limited.rig.read_all();
        let mut expected: BTreeMap<String, Vec<Vec<u32>>> = BTreeMap::new();
        for (prefix, paths) in in_order(&said) {
            // Its own count: it knows the best N, with those that it told itself.
            let best = paths.iter().take(limited.most()).filter(|path| path.from != format!("p{LAST}"));
            let mut told: Vec<Vec<u32>> = best.map(|path| as_told(&path.attrs.as_path)).collect();
            told.sort();
            if !told.is_empty() {
                expected.insert(prefix, told);
            }
        }
        prop_assert_eq!(limited.held(), expected, "{:?}", limited.limit);
    }

    /// With sessions that end and return, kept paths, long-lived ones, and peers that read as they like.
    #[test]
    fn no_more_than_the_limit_and_the_best_among_them(
        steps in prop::collection::vec(any_step(), 1..120),
        first in limit(),
        log in prop_oneof![Just(64_usize), Just(600), Just(4 << 20)],
    ) {
        let mut limited = Limited::new(first, log);
        for step in steps.iter().chain(&steps) {
            limited.perform(step, log);
        }
        limited.rig.read_all();
        if !limited.rig.peers[usize::from(LAST)].up {
            return Ok(());
        }
        let held = limited.held();
        let routes = limited.rig.speaker.routes(&RouteFilter::default());
        let name = format!("p{LAST}");
        let mut may: BTreeMap<String, Vec<&PathView>> = BTreeMap::new();
        for route in routes.iter().filter(|r| r.reachable && limited.rig.told_alone(usize::from(LAST), r)) {
            may.entry(route.prefix.to_string()).or_default().push(route);
        }
        for (prefix, paths) in &may {
            let told = held.get(prefix).cloned().unwrap_or_default();
            let own = paths.iter().filter(|p| p.from == name).count();
            let most = limited.most().min(paths.len());
            prop_assert!(told.len() <= most && told.len() + own >= most, "{prefix}: {told:?} of {paths:?}");
            let best = paths.iter().find(|p| p.best && p.from != name);
            prop_assert!(best.is_none_or(|p| told.contains(&as_told(&p.attrs.as_path))), "{prefix}");
            for path in &told {
                prop_assert!(paths.iter().any(|p| p.from != name && as_told(&p.attrs.as_path) == *path));
            }
        }
        prop_assert!(held.keys().all(|prefix| may.contains_key(prefix)));
    }
}

const SHARED: &str = "10.99.0.0/24";

/// Node 0 in the middle; nodes 1 to `sources` announce the same prefix, the higher the longer the path; then a sink.
fn star(sources: usize, hub: AddPath, sink: AddPath) -> World {
    let as_of = |n: usize| 65000 + u32::try_from(n).unwrap();
    let last = sources + 1;
    let mut center = node(0, as_of(0), (1..last).map(|n| peer(n, as_of(n))).collect());
    center.peers.push(PeerConfig { add_path: hub, ..peer(last, as_of(last)) });
    let mut configs = vec![center];
    for n in 1..last {
        let mut config = node(n, as_of(n), vec![peer(0, as_of(0))]);
        config.originated.push(blackhole(SHARED));
        configs.push(config);
    }
    configs.push(node(last, as_of(last), vec![PeerConfig { add_path: sink, ..peer(0, as_of(0)) }]));
    let mut world = World::of(configs);
    world.until(secs(5), "sessions", |w| (1..=last).all(|n| w.up(0, n)));
    world.run(secs(2));
    world
}

const BOTH: AddPath = AddPath { receive: true, send: true, receive_limit: None, send_limit: None };

/// AS numbers that the last node heard the shared prefix from.
fn heard(world: &World) -> Vec<u32> {
    let last = world.nodes.len() - 1;
    let paths = world.heard(last, 0).into_iter().filter(|r| r.prefix == net(SHARED));
    let mut from: Vec<u32> = paths.map(|r| *r.attrs.as_path.last().unwrap()).collect();
    from.sort_unstable();
    from
}

/// Equal paths: the lowest router id wins, so the order is that of the numbers.
#[test]
fn a_receiver_says_how_many_it_takes_and_is_told_the_best_of_them() {
    assert_eq!(heard(&star(4, BOTH, BOTH)), [65001, 65002, 65003, 65004]);
    let two = AddPath { receive_limit: Some(2), ..BOTH };
    let mut world = star(4, BOTH, two);
    assert_eq!(heard(&world), [65001, 65002]);
    let refused = |w: &mut World| w.speaker(5).peer_views()[0].counters.paths_refused;
    assert_eq!(refused(&mut world), 0, "it was told, so nothing is ignored");
    // The next one follows when one goes.
    world.kill(1);
    world.run(secs(200));
    assert_eq!(heard(&world), [65002, 65003]);
    assert_eq!(refused(&mut world), 0);
    // And makes room when it comes back.
    let mut back = node(1, 65001, vec![peer(0, 65000)]);
    back.originated.push(blackhole(SHARED));
    world.start(1, back, Start { restarted: true, forwarding_kept: true, local_routes: false });
    world.run(secs(60));
    assert_eq!(heard(&world), [65001, 65002]);
    assert_eq!(refused(&mut world), 0);
    // The lower of the two counts.
    let three = AddPath { send_limit: Some(3), ..BOTH };
    let one = AddPath { send_limit: Some(1), ..BOTH };
    assert_eq!(heard(&star(4, three, two)), [65001, 65002]);
    assert_eq!(heard(&star(4, one, two)), [65001]);
    assert_eq!(heard(&star(4, three, BOTH)), [65001, 65002, 65003]);
}

#[test]
fn a_path_that_is_not_told_says_why_and_a_new_limit_needs_no_new_session() {
    let mut world = star(3, AddPath { send_limit: Some(1), ..BOTH }, BOTH);
    assert_eq!(heard(&world), [65001]);
    let why = |w: &mut World, prefix: &str, peer: &str| {
        let exports = w.speaker(0).explain(net(prefix)).exports;
        exports.into_iter().find(|e| e.peer == peer).map(|e| (e.accepted, e.reason)).unwrap()
    };
    assert_eq!(why(&mut world, SHARED, "n4"), (true, ExportReason::Router));
    let mut config = world.speaker(0).config().clone();
    for limit in [2, 3, 1] {
        let to_first = config.peers.iter_mut().find(|p| p.name == "n1").unwrap();
        to_first.add_path.send_limit = Some(1);
        config.peers.last_mut().unwrap().add_path.send_limit = Some(limit);
        let diff = world.configure(0, config.clone());
        assert!(diff.reset.is_empty(), "{diff:?}");
        world.run(secs(1));
        assert_eq!(heard(&world).len(), usize::from(limit));
    }
    // It told the best itself, and with that it has as many as it shall.
    assert_eq!(why(&mut world, SHARED, "n1"), (false, ExportReason::PathLimit));
    assert_eq!(why(&mut world, "10.65.2.0/26", "n1"), (true, ExportReason::Router));
    config.peers.last_mut().unwrap().add_path.receive_limit = Some(9);
    let reset = world.configure(0, config).reset;
    assert_eq!(reset, [("n4".to_owned(), "add_path")], "the peer must be told");
}

/// A peer that does not know the limit: what it tells beyond is not taken, counted, and said once.
#[test]
fn what_a_peer_tells_beyond_the_limit_is_not_taken() {
    let mut config = config(PEERS, 2, true, 4 << 20);
    config.peers[usize::from(LAST)].add_path.receive_limit = Some(1);
    let mut rig = Rig::new(&config);
    let path = |prefix, path_id, length| {
        Op::Announce(Announced {
            peer: LAST,
            prefix,
            path_id,
            neighbour: 0,
            length,
            origin: 0,
            med: None,
            local_pref: None,
            community: 0,
        })
    };
    let mut said = 0;
    let mut perform = |rig: &mut Rig, op: Op| {
        rig.perform(&op);
        while let Some(output) = rig.speaker.poll() {
            said +=
                usize::from(matches!(output, bird_speaker::Output::Event(Event::PathLimit { max: 1, .. })));
        }
        said
    };
    let ids = |rig: &Rig| -> Vec<(String, u32, usize)> {
        let all = rig.speaker.routes(&RouteFilter::default());
        let mut ids: Vec<_> =
            all.iter().map(|r| (r.prefix.to_string(), r.path_id, r.attrs.as_path.len())).collect();
        ids.sort();
        ids
    };
    let (a, b) = ("11.0.0.0/16".to_owned(), "11.1.0.0/16".to_owned());
    perform(&mut rig, path(0, 1, 0));
    perform(&mut rig, path(1, 7, 0));
    assert_eq!(perform(&mut rig, path(0, 2, 0)), 1);
    assert_eq!(perform(&mut rig, path(0, 3, 0)), 1, "once");
    assert_eq!(ids(&rig), [(a.clone(), 1, 1), (b.clone(), 7, 1)]);
    // What is known may change, and what was ignored has its turn when there is room.
    perform(&mut rig, path(0, 1, 2));
    assert_eq!(ids(&rig), [(a.clone(), 1, 3), (b.clone(), 7, 1)]);
    perform(&mut rig, Op::Withdraw(LAST, 0, 1));
    perform(&mut rig, path(0, 3, 0));
    assert_eq!(ids(&rig), [(a.clone(), 3, 1), (b, 7, 1)]);
    let refused = |rig: &Rig| rig.speaker.peer_views()[usize::from(LAST)].counters.paths_refused;
    assert_eq!(refused(&rig), 2);
}

/// What is kept over a restart does not stand in the way of what the peer tells anew, under other numbers.
#[test]
fn kept_paths_do_not_count() {
    let restart = |p: PeerConfig| PeerConfig { add_path: AddPath { receive_limit: Some(1), ..BOTH }, ..p };
    let hub = node(0, 65000, vec![restart(peer(1, 65001))]);
    let other = node(1, 65001, vec![peer(0, 65000)]);
    let mut world = World::of(vec![hub, other.clone()]);
    world.until(secs(5), "route", |w| w.heard(0, 1).len() == 1);
    world.kill(1);
    world.run(secs(1));
    assert!(world.heard(0, 1).iter().all(|r| r.stale));
    world.start(1, other, Start { restarted: true, forwarding_kept: true, local_routes: false });
    world.until(secs(20), "route", |w| w.up(0, 1) && w.heard(0, 1).iter().any(|r| !r.stale));
    world.run(secs(5));
    assert_eq!(world.heard(0, 1).len(), 1);
    assert_eq!(world.speaker(0).peer_views()[0].counters.paths_refused, 0);
}
