//! What people are shown: counts and walks in small steps say the same as everything at once.
#![allow(clippy::unwrap_used, reason = "tests")]

mod harness;

use std::collections::BTreeMap;

use bird_speaker::config::{AddPath, LimitAction, Originated, PrefixLimit};
use bird_speaker::fsm::State;
use bird_speaker::policy::{Action, FilterSet, MatchOperator, Rule};
use bird_speaker::view::{Census, Parked, PathQuery, PathView, Resolved, RouteCounts, RouteFilter, Walk};
use bird_speaker::{Config, ExportReason, ImportReason, NotProgrammed, PeerConfig, Speaker, Step};
use harness::{World, address, blackhole, config, net, peer, secs};

fn node(n: usize, asn: u32, peers: Vec<PeerConfig>) -> Config {
    let originated: Vec<Originated> = (0..20)
        .map(|i| blackhole(&format!("10.{}.{i}.0/24", 60 + n)))
        .chain([blackhole("10.9.0.0/16")])
        .collect();
    Config { peers, originated, ..config(n, asn) }
}

fn reject(cidr: &str) -> FilterSet {
    let rule =
        Rule { cidr: Some(net(cidr)), match_operator: Some(MatchOperator::In), ..rule(Action::Reject) };
    FilterSet { import_v4: vec![rule.clone()], export_v4: vec![rule], ..FilterSet::default() }
}

fn rule(action: Action) -> Rule {
    Rule {
        action,
        cidr: None,
        match_operator: None,
        prefix_length: None,
        source: None,
        interface: None,
        peer_type: None,
        community: None,
        as_path_prefix: None,
        priority: None,
        operations: Vec::new(),
    }
}

/// ```text
///   n1 (AS 65001) ── n0 (AS 65000) ── n2 (AS 65002)     n0 rejects 10.61.4.0/22 on import, 10.62.8.0/21 on export
///                        └─────────── n3 (AS 65000)     everybody has 10.9.0.0/16
/// ```
fn world(add_path: bool) -> World {
    let tune = |p: PeerConfig| PeerConfig {
        add_path: AddPath { receive: add_path, send: add_path, ..AddPath::default() },
        ..p
    };
    let mut hub = node(
        0,
        65000,
        vec![
            PeerConfig { import: vec!["some".into()], ..tune(peer(1, 65001)) },
            tune(peer(2, 65002)),
            PeerConfig { export: vec!["others".into()], ..tune(peer(3, 65000)) },
        ],
    );
    hub.filters.insert("some".into(), reject("10.61.4.0/22"));
    hub.filters.insert("others".into(), reject("10.62.8.0/21"));
    let mut world = World::of(vec![
        hub,
        node(1, 65001, vec![tune(peer(0, 65000))]),
        node(2, 65002, vec![tune(peer(0, 65000))]),
        node(3, 65000, vec![tune(peer(0, 65000))]),
    ]);
    world.nodes[0].unreachable = vec![address(2)];
    world.run(secs(3));
    assert!((1..4).all(|p| world.up(0, p)));
    world
}

fn count(speaker: &Speaker, budget: usize) -> Census {
    let mut census = Census::default();
    let mut steps = 0;
    while !speaker.census_step(&mut census, budget) {
        steps += 1;
        assert!(steps < 1000, "a count ends");
    }
    census
}

fn walk(speaker: &Speaker, query: &PathQuery, budget: usize) -> Vec<PathView> {
    let (mut at, mut out, mut steps) = (Walk::default(), Vec::new(), 0);
    while !speaker.walk_paths(&mut at, query, budget, &mut out) {
        steps += 1;
        assert!(steps < 1000, "a walk ends");
    }
    out.sort_by(|a, b| (a.prefix, !a.best, &a.from, a.path_id).cmp(&(b.prefix, !b.best, &b.from, b.path_id)));
    out
}

#[test]
fn a_count_in_steps_is_what_the_routes_say() {
    for add_path in [false, true] {
        let world = world(add_path);
        let speaker = world.nodes[0].speaker.as_ref().unwrap();
        let routes = speaker.routes(&RouteFilter::default());
        for budget in [1, 3, 1000] {
            let census = count(speaker, budget);
            for n in 1..4 {
                let name = format!("n{n}");
                let of: Vec<&PathView> = routes.iter().filter(|r| r.from == name).collect();
                let number = |take: &dyn Fn(&&&PathView) -> bool| of.iter().filter(take).count() as u64;
                let mut rejected = BTreeMap::new();
                for route in of.iter().filter(|r| r.import != ImportReason::Accepted) {
                    *rejected.entry(route.import).or_default() += 1;
                }
                let wanted = RouteCounts {
                    family: "ipv4".into(),
                    received: of.len() as u64,
                    accepted: number(&|r| r.import == ImportReason::Accepted),
                    rejected,
                    unreachable: number(&|r| !r.reachable && r.import == ImportReason::Accepted),
                    best: number(&|r| r.best),
                    stale: 0,
                    advertised: speaker.advertised(&name).len() as u64,
                };
                assert_eq!(speaker.counts_of(&census, &name), [wanted], "{name} {budget} {add_path}");
            }
            let totals = &speaker.totals_of(&census)[0];
            assert_eq!(totals.paths, routes.len() as u64);
            assert_eq!(totals.own, 21);
            assert_eq!(totals.best, routes.iter().filter(|r| r.best).count() as u64);
            assert_eq!(totals.programmed, world.nodes[0].fib.len() as u64);
        }
        let census = count(speaker, 5);
        let [first] = speaker.counts_of(&census, "n1").try_into().unwrap();
        assert_eq!(first.rejected, [(ImportReason::FilterRejects, 4)].into());
        assert_eq!((first.received, first.accepted, first.rejected_all()), (21, 17, 4));
        let [second] = speaker.counts_of(&census, "n2").try_into().unwrap();
        assert_eq!((second.unreachable, second.best), (21, 0), "no way to n2");
    }
}

#[test]
fn a_walk_in_steps_shows_every_route_once() {
    for add_path in [false, true] {
        let world = world(add_path);
        let speaker = world.nodes[0].speaker.as_ref().unwrap();
        let mut all = speaker.routes(&RouteFilter::default());
        all.sort_by(|a, b| {
            (a.prefix, !a.best, &a.from, a.path_id).cmp(&(b.prefix, !b.best, &b.from, b.path_id))
        });
        for budget in [1, 2, 500] {
            assert_eq!(walk(speaker, &PathQuery::default(), budget), all, "{budget}");
            let from = PathQuery { from: Some("n3".into()), ..PathQuery::default() };
            let of: Vec<PathView> = all.iter().filter(|r| r.from == "n3").cloned().collect();
            assert_eq!(walk(speaker, &from, budget), of);
            let inside =
                PathQuery { prefix: Some(net("10.61.0.0/21")), longer: true, ..PathQuery::default() };
            assert_eq!(walk(speaker, &inside, budget).len(), 8);
            let rejected = PathQuery { rejected: true, ..inside.clone() };
            let shown = walk(speaker, &rejected, budget);
            assert_eq!(shown.len(), 4);
            for route in shown {
                assert_eq!(route.import, ImportReason::FilterRejects);
                assert_eq!(route.rule.as_deref(), Some("some rule 1"));
            }
            let mut at = Walk::default();
            let mut told = Vec::new();
            while !speaker.walk_advertised(&mut at, "n3", &PathQuery::default(), budget, &mut told) {}
            told.sort_by_key(|r| (r.prefix, r.path_id));
            assert_eq!(told, speaker.advertised("n3"));
            let (mut at, mut withheld) = (Walk::default(), Vec::new());
            while !speaker.walk_withheld(&mut at, "n3", &PathQuery::default(), budget, &mut withheld) {}
            let why = |reason| withheld.iter().filter(|w| w.reason == reason).count();
            assert_eq!(why(ExportReason::SplitHorizon), 20, "{withheld:?}");
            let told: std::collections::BTreeSet<_> = told.iter().map(|r| r.prefix).collect();
            assert!(withheld.iter().all(|w| !told.contains(&w.prefix)));
        }
        let one = PathQuery { prefix: Some(net("10.9.0.0/16")), ..PathQuery::default() };
        let shown = walk(speaker, &one, 1);
        assert_eq!(shown.len(), 4);
        assert!(shown[0].best && shown[0].from == "static");
        assert_eq!(shown[1].lost, Some(Step::LocalPref));
        assert!(shown.iter().any(|r| !r.reachable && r.from == "n2"));
    }
}

#[test]
fn an_explanation_goes_from_the_update_to_the_kernel_and_to_each_peer() {
    let world = world(false);
    let speaker = world.nodes[0].speaker.as_ref().unwrap();
    let told = |prefix: &str, peer: &str| {
        let e = speaker.explain(net(prefix)).exports.into_iter().find(|e| e.peer == peer).unwrap();
        assert_eq!(e.accepted, !e.told.is_empty(), "what is said and what is done agree: {e:?}");
        (e.accepted, e.reason, e.rule)
    };
    assert_eq!(told("10.61.0.0/24", "n3"), (true, ExportReason::Router, None));
    assert_eq!(told("10.61.0.0/24", "n1"), (false, ExportReason::SplitHorizon, None));
    assert_eq!(told("10.61.5.0/24", "n3"), (false, ExportReason::NoPath, None), "rejected on import");
    let reached = speaker.explain(net("10.61.0.0/24"));
    assert_eq!(reached.kernel.as_deref(), Some("via 10.20.0.2 metric 2147483547"));
    assert_eq!(reached.next_hops[0].state, Resolved::Reachable);
    assert_eq!(reached.next_hops[0].ways, ["on link eth0"]);
    let lost = speaker.explain(net("10.62.9.0/24"));
    assert_eq!(lost.next_hops[0].state, Resolved::Unreachable);
    assert_eq!((lost.kernel, lost.not_programmed), (None, Some(NotProgrammed::NoPath)));
    assert_eq!(speaker.longest_match(net("10.61.0.7/32")), Some(net("10.61.0.0/24")));
    assert_eq!(speaker.longest_match(net("10.61.5.0/24")), None, "a rejected path is no route");
    assert_eq!(speaker.longest_match(net("10.9.1.1/32")), Some(net("10.9.0.0/16")));
}

#[test]
fn everything_about_a_neighbor() {
    let world = world(true);
    let speaker = world.nodes[0].speaker.as_ref().unwrap();
    let view = speaker.neighbor_view("n1", &count(speaker, 9)).unwrap();
    assert_eq!(view.peer.state, State::Established);
    assert_eq!(view.said.unwrap().asn, 65001);
    assert_eq!(view.peer.families[0].advertised, speaker.advertised("n1").len());
    assert_eq!(view.settings.import, ["some"]);
    assert!(view.timers.hold_ms.unwrap() <= 240_000 && view.timers.keepalive_ms.unwrap() <= 80_000);
    assert!(view.restart.agreed && view.restart.stale.is_empty());
    let capability = |name: &str| view.capabilities_offered.iter().find(|c| c.name == name).unwrap();
    assert_eq!(capability("ADD-PATH").ours, capability("ADD-PATH").theirs);
    assert!(capability("ADD-PATH").used && capability("4-octet AS").used);
    assert_eq!(capability("4-octet AS").theirs.as_ref().unwrap().0, "65001");
    assert!(speaker.neighbor_view("nobody", &Census::default()).is_none());
}

#[test]
fn what_the_peer_said_is_kept_when_it_is_not_acceptable() {
    let mut world = World::of(vec![
        Config { peers: vec![peer(1, 65009)], ..config(0, 65000) },
        Config { peers: vec![peer(0, 65000)], ..config(1, 65001) },
    ]);
    world.run(secs(2));
    let view = world.nodes[0].speaker.as_ref().unwrap();
    let view = view.neighbor_view("n1", &Census::default()).unwrap();
    assert_ne!(view.peer.state, State::Established);
    assert_eq!((view.said.unwrap().asn, view.settings.remote_as), (65001, 65009));
}

#[test]
fn a_peer_that_is_left_alone_says_why() {
    let limit = PrefixLimit { max: 3, action: LimitAction::Reset, restart: None };
    let hub = Config {
        peers: vec![
            PeerConfig { enabled: false, ..peer(2, 65002) },
            PeerConfig { prefix_limit: Some(limit), ..peer(1, 65001) },
        ],
        ..config(0, 65000)
    };
    let mut world = World::of(vec![hub, node(1, 65001, vec![peer(0, 65000)])]);
    world.run(secs(3));
    let views = world.nodes[0].speaker.as_ref().unwrap().peer_views();
    assert_eq!(
        views.iter().map(|v| v.parked).collect::<Vec<_>>(),
        [Some(Parked::PrefixLimit), Some(Parked::Disabled)]
    );
}

/// A longer prefix inside what somebody else told is named; inside what the same one told, or the default route, it is not.
#[test]
fn a_route_inside_somebody_elses_is_named() {
    let told = |n: usize, prefixes: &[&str]| {
        let mut config = harness::node(n, 64512 + u32::try_from(n).unwrap(), vec![peer(0, 64512)]);
        config.originated.extend(prefixes.iter().map(|p| blackhole(p)));
        config
    };
    let mut hub = harness::node(0, 64512, vec![peer(1, 64513), peer(2, 64514)]);
    hub.originated.push(blackhole("10.65.0.1/32"));
    let mut world = World::of(vec![
        hub,
        told(1, &["0.0.0.0/0", "10.65.1.7/32", "10.65.2.8/32", "10.65.0.9/32"]),
        told(2, &["10.65.2.8/30", "10.77.0.0/16"]),
    ]);
    world.until(secs(3), "sessions", |w| w.up(0, 1) && w.up(0, 2));
    world.run(secs(1));
    let around = |prefix: &str| {
        let found = world.nodes[0].speaker.as_ref().unwrap().taken_from(net(prefix));
        found.map(|c| (c.prefix.to_string(), c.from))
    };
    let is = |prefix: &str, from: &str| Some((prefix.to_owned(), from.to_owned()));
    assert_eq!(around("10.65.2.8/32"), is("10.65.2.8/30", "n2"), "the nearest");
    assert_eq!(around("10.65.0.9/32"), is("10.65.0.0/26", "static"), "a block of our own");
    assert_eq!(around("10.65.1.7/32"), None, "its own");
    assert_eq!(around("10.65.2.8/30"), None);
    assert_eq!(around("10.65.0.1/32"), None, "both are ours");
    assert_eq!(around("10.77.0.0/16"), None, "the default route is around everything");
    assert_eq!(around("10.99.0.0/16"), None, "there is no such route");
}

/// A limit takes from the front of what would be shown without one, and the count is of everything that import took.
#[test]
fn the_first_routes_are_the_first_of_all() {
    let mut world = world(false);
    let speaker = world.speaker(0);
    let all = speaker.routes(&RouteFilter::default());
    for limit in [0, 1, 2, 7, 30, all.len(), all.len() + 1] {
        let some = speaker.routes(&RouteFilter { limit: Some(limit), ..RouteFilter::default() });
        assert_eq!(some, all[..limit.min(all.len())], "{limit}");
    }
    let accepted = all.iter().filter(|p| p.import == ImportReason::Accepted).count();
    let networks = all.iter().filter(|p| p.best).count();
    assert!(accepted < all.len() && networks < accepted);
    assert_eq!(speaker.accepted(bird_packet::Family::Ipv4Unicast), (accepted, networks));
}
