//! Routes between speakers: reflection, ADD-PATH, load sharing, next hops, filters, refresh, limits, slow peers.
#![allow(clippy::unwrap_used, clippy::unchecked_time_subtraction, reason = "tests")]

mod harness;

use bird_speaker::config::{AddPath, Aggregate, ExportScope, Families, LimitAction, Originated, PrefixLimit};
use bird_speaker::fsm::State;
use bird_speaker::io::{Command, FibTarget, Resolution};
use bird_speaker::policy::{Action, FilterSet, MatchOperator, Operation, Rule};
use bird_speaker::view::RouteFilter;
use bird_speaker::{Config, Event, ExportReason, FibCursor, ImportReason, Input, PeerConfig};
use harness::{World, address, blackhole, config, millis, net, node, peer, secs};

fn no_add_path(p: PeerConfig) -> PeerConfig {
    PeerConfig { add_path: AddPath::default(), ..p }
}

fn settle(world: &mut World) {
    world.run(secs(2));
}

/// ```text
///   n1 (client) ── n0 (reflector) ── n2 (client)
///                       └─────────── n3 (not a client)
/// ```
#[test]
fn a_reflector_tells_clients_everything_and_others_what_clients_said() {
    for add_path in [false, true] {
        let tune = |p: PeerConfig| if add_path { p } else { no_add_path(p) };
        let client = |n: usize| {
            tune(PeerConfig {
                route_reflector_client: true,
                cluster_id: Some("224.0.0.1".parse().unwrap()),
                ..peer(n, 64512)
            })
        };
        let mut world = World::of(vec![
            node(0, 64512, vec![client(1), client(2), tune(peer(3, 64512))]),
            node(1, 64512, vec![tune(peer(0, 64512))]),
            node(2, 64512, vec![tune(peer(0, 64512))]),
            node(3, 64512, vec![tune(peer(0, 64512))]),
        ]);
        settle(&mut world);
        assert_eq!(world.heard_prefixes(1, 0), ["10.65.0.0/26", "10.65.2.0/26", "10.65.3.0/26"]);
        assert_eq!(world.heard_prefixes(3, 0), ["10.65.0.0/26", "10.65.1.0/26", "10.65.2.0/26"]);
        let reflected = world.heard(1, 0).into_iter().find(|r| r.prefix == net("10.65.2.0/26")).unwrap();
        assert_eq!(reflected.attrs.originator_id, Some("10.20.0.3".parse().unwrap()));
        assert_eq!(reflected.attrs.cluster_list, ["224.0.0.1".parse::<std::net::Ipv4Addr>().unwrap()]);
        assert_eq!(reflected.next_hop, Some(address(2)), "next hop untouched");
        world.kill(2);
        world.run(secs(300));
        assert_eq!(world.heard_prefixes(1, 0), ["10.65.0.0/26", "10.65.3.0/26"]);
    }
}

#[test]
fn two_reflectors_of_one_cluster_do_not_loop() {
    let cluster = Some("224.0.0.9".parse().unwrap());
    let client =
        |n: usize| PeerConfig { route_reflector_client: true, cluster_id: cluster, ..peer(n, 64512) };
    let fellow = |n: usize| PeerConfig { cluster_id: cluster, ..peer(n, 64512) };
    let mut world = World::of(vec![
        node(0, 64512, vec![fellow(1), client(2)]),
        node(1, 64512, vec![fellow(0), client(2)]),
        node(2, 64512, vec![peer(0, 64512), peer(1, 64512)]),
    ]);
    settle(&mut world);
    let looped = world.heard(0, 1).into_iter().find(|r| r.prefix == net("10.65.2.0/26")).unwrap();
    assert_eq!(looped.import, ImportReason::OwnCluster);
    let back = world.heard(2, 0).into_iter().any(|r| r.prefix == net("10.65.2.0/26"));
    assert!(!back, "a client is not told its own route");
    let before = world.nodes[0].speaker.as_ref().unwrap().peer_views()[0].counters;
    world.run(secs(600));
    let after = world.nodes[0].speaker.as_ref().unwrap().peer_views()[0].counters;
    assert_eq!(before.updates_received, after.updates_received, "silence");
}

/// The same prefix at n1 and n2, heard by n0 directly; n3 hears it from n0.
fn anycast(add_path: bool) -> World {
    let tune = |p: PeerConfig| if add_path { p } else { no_add_path(p) };
    let client = |n: usize| tune(PeerConfig { route_reflector_client: true, ..peer(n, 64512) });
    let service = |n: usize| {
        let mut c = node(n, 64512, vec![tune(peer(0, 64512))]);
        c.originated.push(blackhole("10.96.0.10/32"));
        c
    };
    let mut world = World::of(vec![
        node(0, 64512, vec![client(1), client(2), client(3)]),
        service(1),
        service(2),
        node(3, 64512, vec![tune(peer(0, 64512))]),
    ]);
    settle(&mut world);
    world
}

fn gateways(world: &World, n: usize, prefix: &str) -> Vec<std::net::IpAddr> {
    match world.nodes[n].fib.get(&net(prefix)).map(|r| &r.target) {
        Some(FibTarget::Hops(hops)) => hops.iter().map(|h| h.via).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn equal_paths_share_the_load_and_add_path_carries_them_through_a_reflector() {
    let mut world = anycast(true);
    assert_eq!(gateways(&world, 0, "10.96.0.10/32"), [address(1), address(2)]);
    assert_eq!(gateways(&world, 3, "10.96.0.10/32"), [address(1), address(2)]);
    world.vanish(2);
    world.run(secs(400));
    assert_eq!(gateways(&world, 0, "10.96.0.10/32"), [address(1)]);
    assert_eq!(gateways(&world, 3, "10.96.0.10/32"), [address(1)]);

    let plain = anycast(false);
    assert_eq!(gateways(&plain, 3, "10.96.0.10/32").len(), 1, "without ADD-PATH one path is told");
}

#[test]
fn a_next_hop_that_is_lost_takes_its_paths_along_and_gives_them_back() {
    let mut world = anycast(true);
    world.handle(0, Input::NextHop { address: address(1), resolution: Resolution::Unreachable });
    world.run(millis(50));
    assert_eq!(gateways(&world, 0, "10.96.0.10/32"), [address(2)]);
    assert_eq!(gateways(&world, 3, "10.96.0.10/32"), [address(2)], "and others hear of it");
    let lost = world.heard(0, 1).into_iter().find(|r| r.prefix == net("10.96.0.10/32")).unwrap();
    assert!(!lost.reachable && !lost.best);
    let hop = bird_speaker::io::ResolvedHop { gateway: None, ifindex: 2, interface: "eth0".into() };
    let back = Resolution::Via { hops: vec![hop], metric: 0 };
    world.handle(0, Input::NextHop { address: address(1), resolution: back });
    world.run(millis(50));
    assert_eq!(gateways(&world, 3, "10.96.0.10/32"), [address(1), address(2)]);
}

#[test]
fn a_new_filter_is_applied_without_a_new_session() {
    let mut one = node(0, 65000, vec![peer(1, 65001)]);
    one.originated.push(blackhole("10.66.0.0/16"));
    let mut two = node(1, 65001, vec![peer(0, 65000)]);
    let mut world = World::of(vec![one.clone(), two.clone()]);
    settle(&mut world);
    assert_eq!(world.heard_prefixes(1, 0), ["10.65.0.0/26", "10.66.0.0/16"]);

    let reject = Rule {
        action: Action::Reject,
        cidr: Some(net("10.66.0.0/16")),
        match_operator: Some(MatchOperator::In),
        ..Rule::default()
    };
    let tag = Rule {
        operations: vec![
            Operation::AddCommunity("65000:7".parse().unwrap()),
            Operation::PrependAsPath(vec![65000, 65000]),
        ],
        ..Rule::default()
    };
    one.filters
        .insert("f".into(), FilterSet { export_v4: vec![reject.clone(), tag], ..FilterSet::default() });
    one.peers[0].export = vec!["f".into()];
    let diff = world.configure(0, one.clone());
    assert_eq!((diff.reset.len(), diff.reevaluated), (0, vec!["n1".to_owned()]));
    world.run(millis(50));
    let heard = world.heard(1, 0);
    assert_eq!(heard.len(), 1, "the other is withdrawn");
    assert_eq!(heard[0].attrs.communities, ["65000:7"]);
    assert_eq!(heard[0].attrs.as_path, [65000, 65000, 65000]);

    // The receiving side: rejected routes are kept, and come back without being sent again.
    two.filters.insert(
        "f".into(),
        FilterSet {
            import_v4: vec![Rule { action: Action::Reject, ..Rule::default() }],
            ..FilterSet::default()
        },
    );
    two.peers[0].import = vec!["f".into()];
    world.configure(1, two.clone());
    world.run(millis(50));
    assert_eq!(world.heard(1, 0)[0].import, ImportReason::FilterRejects);
    assert!(!world.nodes[1].fib.contains_key(&net("10.65.0.0/26")));
    two.peers[0].import.clear();
    world.configure(1, two);
    world.run(millis(50));
    assert_eq!(world.heard(1, 0)[0].import, ImportReason::Accepted);
    assert!(world.nodes[1].fib.contains_key(&net("10.65.0.0/26")));
    let established: u64 =
        world.nodes.iter().map(|n| n.speaker.as_ref().unwrap().peer_views()[0].counters.established).sum();
    assert_eq!(established, 2, "one session, all the time");
}

#[test]
fn a_group_that_splits_tells_each_what_it_should_know() {
    let mut hub = node(0, 65000, vec![peer(1, 65001), peer(2, 65002), peer(3, 65003)]);
    hub.originated.push(blackhole("10.66.0.0/16"));
    let spoke = |n: usize| node(n, 65000 + u32::try_from(n).unwrap(), vec![peer(0, 65000)]);
    let mut world = World::of(vec![hub.clone(), spoke(1), spoke(2), spoke(3)]);
    settle(&mut world);
    assert_eq!(world.nodes[0].speaker.as_ref().unwrap().totals().groups, 1);
    hub.peers[1].export_scope = ExportScope::Own;
    hub.peers[2].next_hop = bird_speaker::config::NextHopMode::Keep;
    let diff = world.configure(0, hub);
    assert!(diff.reset.is_empty());
    world.run(millis(100));
    assert_eq!(world.nodes[0].speaker.as_ref().unwrap().totals().groups, 3);
    assert_eq!(world.heard_prefixes(2, 0), ["10.65.0.0/26", "10.66.0.0/16"], "its own only");
    assert_eq!(world.heard_prefixes(1, 0), ["10.65.0.0/26", "10.65.2.0/26", "10.65.3.0/26", "10.66.0.0/16"]);
    let kept = world.heard(3, 0).into_iter().find(|r| r.prefix == net("10.65.1.0/26")).unwrap();
    assert_eq!(kept.next_hop, Some(address(1)));
    let explained = world.nodes[0].speaker.as_ref().unwrap().explain(net("10.65.1.0/26"));
    let why = |peer: &str| explained.exports.iter().find(|e| e.peer == peer).map(|e| (e.accepted, e.reason));
    assert_eq!(why("n1"), Some((false, ExportReason::SplitHorizon)));
    assert_eq!(why("n2"), Some((false, ExportReason::ScopeOwn)));
    assert_eq!(why("n3"), Some((true, ExportReason::Router)));
}

#[test]
fn refresh_brings_the_same_table_and_drops_what_is_gone() {
    let mut world =
        World::of(vec![node(0, 65000, vec![peer(1, 65001)]), node(1, 65001, vec![peer(0, 65000)])]);
    settle(&mut world);
    // A clock that runs is no change.
    let heard = |w: &World| {
        let paths = w.heard(0, 1).into_iter();
        paths.map(|path| bird_speaker::view::PathView { changed_ms: 0, ..path }).collect::<Vec<_>>()
    };
    let before = heard(&world);
    let updates = |w: &World| w.nodes[0].speaker.as_ref().unwrap().peer_views()[0].counters.updates_received;
    let count = updates(&world);
    world.handle(0, Input::Command(Command::RefreshIn { peer: "n1".into() }));
    world.run(millis(50));
    assert_eq!(heard(&world), before);
    assert!(updates(&world) > count, "it was said again");
    world.handle(1, Input::Command(Command::RefreshOut { peer: "n0".into() }));
    world.run(millis(50));
    assert_eq!(heard(&world), before);
}

/// The age of a prefix: since a path of it came, went or changed. What is said again is no change.
#[test]
fn a_prefix_is_as_old_as_its_last_change() {
    let one = |originated: &[&str]| Config {
        originated: originated.iter().map(|p| blackhole(p)).collect(),
        ..node(1, 65001, vec![peer(0, 65000)])
    };
    let third = node(2, 65002, vec![peer(0, 65000)]);
    let hub = node(0, 65000, vec![peer(1, 65001), peer(2, 65002)]);
    let mut world = World::of(vec![hub, one(&["10.65.1.0/26"]), third.clone()]);
    let age = |w: &mut World, from: usize, prefix: &str| {
        let now = w.now;
        w.handle(0, Input::Tick);
        assert_eq!(w.now, now);
        w.heard(0, from).into_iter().find(|r| r.prefix == net(prefix)).map(|r| r.changed_ms / 1000)
    };
    settle(&mut world);
    world.run(secs(60));
    let first = age(&mut world, 1, "10.65.1.0/26").unwrap();
    assert!((55..=63).contains(&first), "{first}");
    world.handle(1, Input::Command(Command::RefreshOut { peer: "n0".into() }));
    world.run(secs(10));
    assert_eq!(age(&mut world, 1, "10.65.1.0/26"), Some(first + 10), "it was only said again");

    // A second path is news for the prefix, its end too, and so is a new session that brings a path again.
    let mut second = third.clone();
    second.originated.push(blackhole("10.65.1.0/26"));
    world.configure(2, second);
    world.run(secs(5));
    assert_eq!(age(&mut world, 1, "10.65.1.0/26"), age(&mut world, 2, "10.65.1.0/26"));
    assert!((4..=5).contains(&age(&mut world, 1, "10.65.1.0/26").unwrap()));
    world.configure(2, third);
    world.run(secs(3));
    assert!((2..=3).contains(&age(&mut world, 1, "10.65.1.0/26").unwrap()));
    assert!(age(&mut world, 2, "10.65.2.0/26").unwrap() > 70, "others do not mind");
}

#[test]
fn limits_warn_discard_and_reset() {
    for action in [LimitAction::Warn, LimitAction::Discard, LimitAction::Reset] {
        let limit = PrefixLimit { max: 3, action, restart: Some(secs(30)) };
        let mut sender = node(1, 65001, vec![peer(0, 65000)]);
        sender.originated = (0..5).map(|i| blackhole(&format!("10.70.{i}.0/24"))).collect();
        let mut world = World::of(vec![
            node(0, 65000, vec![PeerConfig { prefix_limit: Some(limit), ..peer(1, 65001) }]),
            sender.clone(),
        ]);
        world.run(secs(5));
        let events = world.nodes[0].events.iter().filter(|e| matches!(e, Event::PrefixLimit { .. })).count();
        assert_eq!(events, 1, "{action:?}");
        match action {
            LimitAction::Warn => assert_eq!(world.heard(0, 1).len(), 5),
            LimitAction::Discard => {
                assert_eq!(world.heard(0, 1).len(), 3);
                let more = PrefixLimit { max: 4, ..limit };
                for (limit, held) in [(Some(more), 4), (None, 5)] {
                    let peers = vec![PeerConfig { prefix_limit: limit, ..peer(1, 65001) }];
                    assert!(world.configure(0, node(0, 65000, peers)).reset.is_empty());
                    world.run(millis(100));
                    assert_eq!(world.heard(0, 1).len(), held, "asked for again");
                }
            }
            LimitAction::Reset => {
                assert_eq!(world.state(0, 1), State::Idle);
                sender.originated.truncate(2);
                world.configure(1, sender);
                world.run(secs(60));
                assert_eq!(world.heard(0, 1).len(), 2);
            }
        }
    }
}

#[test]
fn a_slow_peer_costs_nothing_and_misses_nothing() {
    let spoke = |n: usize| node(n, 65000 + u32::try_from(n).unwrap(), vec![peer(0, 65000)]);
    let mut hub = node(0, 65000, vec![peer(1, 65001), peer(2, 65002)]);
    let mut world = World::of(vec![hub.clone(), spoke(1), spoke(2)]);
    settle(&mut world);
    world.nodes[2].deaf = true;
    for round in 0..20_u32 {
        hub.originated = (0..200)
            .filter(|i| i % 7 != round % 7)
            .map(|i| Originated {
                metric: Some(round),
                ..blackhole(&format!("10.{}.{i}.0/24", 70 + round % 3))
            })
            .collect();
        world.configure(0, hub.clone());
        world.run(millis(300));
    }
    let fast: Vec<String> = world.heard_prefixes(1, 0);
    assert_eq!(fast.len(), hub.originated.len() + 1);
    world.hear(2);
    world.run(secs(1));
    let slow: Vec<String> = world.heard_prefixes(2, 0);
    let without = |list: &[String], own: &str| -> Vec<String> {
        list.iter().filter(|p| !p.starts_with(own)).cloned().collect()
    };
    assert_eq!(without(&slow, "10.65."), without(&fast, "10.65."));
}

#[test]
fn a_long_table_arrives_whole_in_both_directions() {
    let mut one = node(0, 65000, vec![peer(1, 65001)]);
    one.originated = (0..30_000_u32).map(|i| blackhole(&format!("11.{}.{}.0/24", i >> 8, i & 255))).collect();
    let mut world = World::of(vec![one.clone(), node(1, 65001, vec![peer(0, 65000)])]);
    settle(&mut world);
    assert_eq!(world.heard(1, 0).len(), 30_000);
    one.originated.truncate(10);
    world.configure(0, one);
    world.run(secs(1));
    assert_eq!(world.heard(1, 0).len(), 10);
    let filter = RouteFilter { limit: Some(3), ..RouteFilter::default() };
    assert_eq!(world.nodes[1].speaker.as_ref().unwrap().routes(&filter).len(), 3);
    world.run(secs(5));
    let totals = world.nodes[1].speaker.as_ref().unwrap().totals();
    assert_eq!((totals.paths, totals.prefixes), (11, 11));
}

#[test]
fn a_session_of_both_families_tells_the_address_of_each() {
    let both = Families { ipv4: true, ipv6: true };
    let of = |n: usize, other: usize| Config {
        peers: vec![PeerConfig { families: both, ..peer(other, 64600 + u32::try_from(other).unwrap()) }],
        originated: vec![blackhole(&format!("10.65.{n}.0/26")), blackhole(&format!("fd65:{n}::/48"))],
        ..config(n, 64600 + u32::try_from(n).unwrap())
    };
    let mut world = World::new();
    world.add(of(0, 1));
    world.add(of(1, 0));
    world.nodes[0].other = Some("fd20::1".parse().unwrap());
    settle(&mut world);
    let heard = world.heard(1, 0);
    let hop = |prefix: &str| heard.iter().find(|r| r.prefix == net(prefix)).and_then(|r| r.next_hop);
    assert_eq!(hop("10.65.0.0/26"), Some(address(0)));
    assert_eq!(hop("fd65:0::/48"), Some("fd20::1".parse().unwrap()));
    // The other side has no such address: nothing that nobody could use is told.
    assert_eq!(world.heard_prefixes(0, 1), ["10.65.1.0/26"]);
}

/// ```text
///   n1, n2 (inside) ── n0 (router with the aggregate) ── n3 (upstream)
/// ```
#[test]
fn an_aggregate_lives_as_long_as_something_inside_it() {
    let aggregate = |summary_only| Aggregate { prefix: net("10.65.0.0/16"), summary_only, blackhole: true };
    let mut router = Config {
        peers: vec![peer(1, 65001), peer(2, 65002), peer(3, 65003)],
        aggregates: vec![aggregate(true), Aggregate { prefix: net("10.0.0.0/8"), ..aggregate(false) }],
        ..config(0, 65000)
    };
    let upstream = Config { originated: Vec::new(), ..node(3, 65003, vec![peer(0, 65000)]) };
    let spoke = |n: usize| node(n, 65000 + u32::try_from(n).unwrap(), vec![peer(0, 65000)]);
    let mut world = World::of(vec![router.clone(), spoke(1), spoke(2), upstream]);
    settle(&mut world);
    assert_eq!(world.heard_prefixes(3, 0), ["10.0.0.0/8", "10.65.0.0/16"]);
    let told = world.heard(3, 0).remove(1);
    assert_eq!(told.attrs.as_path, [65000]);
    assert!(told.attrs.atomic_aggregate, "it hides paths");
    assert_eq!(told.attrs.aggregator, Some((65000, "10.20.0.1".parse().unwrap())));
    let kernel = |w: &World, prefix: &str| w.nodes[0].fib.get(&net(prefix)).map(|r| r.target.clone());
    assert_eq!(kernel(&world, "10.65.0.0/16"), Some(FibTarget::Blackhole));

    // Without summaryOnly what is inside is told too; nobody is reset.
    router.aggregates[0].summary_only = false;
    let diff = world.configure(0, router.clone());
    assert!(diff.reset.is_empty());
    settle(&mut world);
    assert_eq!(world.heard_prefixes(3, 0), ["10.0.0.0/8", "10.65.0.0/16", "10.65.1.0/26", "10.65.2.0/26"]);

    // One of two contributors goes: it stays. Both: it goes, and the larger one that only it was inside of.
    for (n, left) in [(1, true), (2, false)] {
        world.configure(n, Config { originated: Vec::new(), ..spoke(n) });
        settle(&mut world);
        assert_eq!(kernel(&world, "10.65.0.0/16").is_some(), left);
    }
    assert!(world.heard_prefixes(3, 0).is_empty());

    // An aggregate that becomes a static route stays announced.
    world.configure(1, spoke(1));
    settle(&mut world);
    router.aggregates.remove(0);
    router.originated = vec![blackhole("10.65.0.0/16")];
    world.configure(0, router);
    settle(&mut world);
    assert_eq!(world.heard_prefixes(3, 0), ["10.0.0.0/8", "10.65.0.0/16", "10.65.1.0/26"]);
    assert!(!world.heard(3, 0).remove(1).attrs.atomic_aggregate);
}

/// ```text
///   n1 ── n0 ── n2
///          └─── n3 (reads nothing for a while)
/// ```
#[test]
fn after_everything_went_away_numbers_begin_anew_and_nobody_is_told_the_wrong_route() {
    for add_path in [false, true] {
        let tune = |p: PeerConfig| if add_path { p } else { no_add_path(p) };
        let hub = Config {
            peers: vec![tune(peer(1, 65001)), tune(peer(2, 65002)), tune(peer(3, 65003))],
            ..config(0, 65000)
        };
        let leaf = |n: usize, asn: u32| Config { peers: vec![tune(peer(0, 65000))], ..config(n, asn) };
        let mut world = World::of(vec![hub, leaf(1, 65001), leaf(2, 65002), leaf(3, 65003)]);
        settle(&mut world);
        for round in 0..6_u32 {
            let mut sender = leaf(1, 65001);
            sender.originated = (0..300)
                .map(|i| blackhole(&format!("10.{}.{}.{}/32", 70 + round, i >> 8, i & 255)))
                .collect();
            let told: Vec<String> = sender.originated.iter().map(|o| o.prefix.to_string()).collect();
            if round == 2 {
                world.nodes[3].deaf = true;
            }
            world.configure(1, sender);
            settle(&mut world);
            let sorted = |mut list: Vec<String>| {
                list.sort();
                list
            };
            assert_eq!(sorted(world.heard_prefixes(2, 0)), sorted(told.clone()), "round {round}");
            assert_eq!(world.nodes[0].fib.len(), 300);
            if round == 4 {
                world.hear(3);
                settle(&mut world);
            }
            if !(2..4).contains(&round) {
                assert_eq!(sorted(world.heard_prefixes(3, 0)), sorted(told), "round {round}");
            }
            world.configure(1, leaf(1, 65001));
            settle(&mut world);
            assert_eq!(world.heard(2, 0).len(), 0);
            let totals = world.nodes[0].speaker.as_ref().unwrap().totals();
            assert_eq!((totals.paths, totals.prefixes), (0, 0));
            assert_eq!(world.nodes[0].fib.len(), 0);
        }
    }
}

#[test]
fn kernel_routes_in_slices_are_the_same_as_at_once() {
    let mut one = node(0, 65000, vec![peer(1, 65001)]);
    one.originated = (0..500_u32)
        .flat_map(|i| [format!("11.{}.{}.0/24", i >> 8, i & 255), format!("fd11:{i:x}::/48")])
        .map(|prefix| blackhole(&prefix))
        .collect();
    let mut world = World::of(vec![one, node(1, 65001, vec![peer(0, 65000)])]);
    settle(&mut world);
    let speaker = world.nodes[0].speaker.as_ref().unwrap();
    let mut whole: Vec<_> = speaker.fib_routes().map(|(prefix, route)| (prefix, (*route).clone())).collect();
    whole.sort();
    assert_eq!(whole.len(), 1001, "its own, and that of the peer");
    for max in [1, 7, 100, 10_000] {
        let (mut at, mut sliced, mut calls) = (FibCursor::default(), Vec::new(), 0);
        while speaker.fib_slice(&mut at, max, |prefix, route| sliced.push((prefix, route.clone()))) {
            calls += 1;
            assert!(calls < 10_000);
        }
        sliced.sort();
        assert_eq!(sliced, whole, "{max} at a time");
    }
}
