//! What changes at the border of an AS: whose number a path shows, whose it may not, and how a session is left.
#![allow(clippy::unwrap_used, clippy::unchecked_time_subtraction, reason = "tests")]

mod harness;

use bird_speaker::config::{LimitAction, PrefixLimit};
use bird_speaker::fsm::State;
use bird_speaker::policy::{Action, FilterSet, Rule};
use bird_speaker::view::PathView;
use bird_speaker::{Config, ExportReason, ImportReason, PeerConfig};
use harness::{World, blackhole, millis, net, node, peer, secs};

/// n0 ── n1 ── n2, each in its AS.
fn line(asns: [u32; 3]) -> (World, Vec<Config>) {
    let configs = vec![
        node(0, asns[0], vec![peer(1, asns[1])]),
        node(1, asns[1], vec![peer(0, asns[0]), peer(2, asns[2])]),
        node(2, asns[2], vec![peer(1, asns[1])]),
    ];
    let mut world = World::of(configs.clone());
    world.run(secs(3));
    (world, configs)
}

/// What node `n` has of the block of n0.
fn path(world: &World, n: usize, from: usize) -> Option<PathView> {
    world.heard(n, from).into_iter().find(|r| r.prefix == net("10.65.0.0/26"))
}

fn apply(world: &mut World, n: usize, config: &Config) {
    let diff = world.configure(n, config.clone());
    assert!(diff.reset.is_empty(), "{diff:?}");
    world.run(millis(100));
}

#[test]
fn our_own_as_in_a_path_is_a_loop_as_often_as_it_may_not_be_there() {
    let (mut world, mut configs) = line([65000, 65001, 65000]);
    assert_eq!(path(&world, 2, 1).unwrap().import, ImportReason::OwnAs);
    configs[2].peers[0].allow_own_as = 1;
    apply(&mut world, 2, &configs[2]);
    let taken = path(&world, 2, 1).unwrap();
    assert_eq!((taken.import, taken.attrs.as_path), (ImportReason::Accepted, vec![65001, 65000]));
    assert!(world.nodes[2].fib.contains_key(&net("10.65.0.0/26")));
    configs[2].peers[0].allow_own_as = 0;
    apply(&mut world, 2, &configs[2]);
    assert_eq!(path(&world, 2, 1).unwrap().import, ImportReason::OwnAs);
    assert!(!world.nodes[2].fib.contains_key(&net("10.65.0.0/26")));
}

#[test]
fn as_override_shows_two_sites_of_one_as_to_each_other() {
    let (mut world, mut configs) = line([65000, 65001, 65000]);
    configs[1].peers[1].as_override = true;
    apply(&mut world, 1, &configs[1]);
    let told = path(&world, 2, 1).unwrap();
    assert_eq!((told.import, told.attrs.as_path), (ImportReason::Accepted, vec![65001, 65001]));
    assert_eq!(
        world.heard(0, 1).iter().find(|r| r.prefix == net("10.65.2.0/26")).unwrap().import,
        ImportReason::OwnAs
    );
}

#[test]
fn a_session_may_show_another_as_of_ours() {
    let (mut world, mut configs) = line([65000, 65001, 65002]);
    configs[1].peers[1].local_as = Some(64999);
    configs[2].peers[0].remote_as = 64999;
    let diff = world.configure(1, configs[1].clone());
    assert_eq!(diff.reset, [("n2".to_owned(), "local_as")]);
    world.configure(2, configs[2].clone());
    world.until(secs(40), "session", |w| w.up(1, 2) && w.up(2, 1));
    world.run(secs(1));
    assert_eq!(path(&world, 2, 1).unwrap().attrs.as_path, [64999, 65000]);
    let back = world.heard(0, 1).into_iter().find(|r| r.prefix == net("10.65.2.0/26")).unwrap();
    assert_eq!(back.attrs.as_path, [65001, 65002], "elsewhere we are who we are");
    // The AS that it shows is ours as well: a path with it is a loop there.
    let tag = Rule {
        operations: vec![bird_speaker::policy::Operation::PrependAsPath(vec![64999])],
        ..Rule::default()
    };
    configs[2].filters.insert("loop".into(), FilterSet { export_v4: vec![tag], ..FilterSet::default() });
    configs[2].peers[0].export = vec!["loop".into()];
    apply(&mut world, 2, &configs[2]);
    let looped = world.heard(1, 2).into_iter().find(|r| r.prefix == net("10.65.2.0/26")).unwrap();
    assert_eq!(looped.import, ImportReason::OwnAs, "{:?}", looped.attrs.as_path);
}

#[test]
fn private_numbers_stay_inside() {
    let (mut world, mut configs) = line([64512, 3000, 4000]);
    assert_eq!(path(&world, 2, 1).unwrap().attrs.as_path, [3000, 64512]);
    configs[1].peers[1].remove_private_as = true;
    apply(&mut world, 1, &configs[1]);
    assert_eq!(path(&world, 2, 1).unwrap().attrs.as_path, [3000]);
}

/// RFC 8326: both ends make what goes over the session the last resort; it comes back without a new session.
#[test]
fn a_session_is_left_without_losing_a_packet_and_comes_back() {
    let (mut world, mut configs) = line([65000, 65001, 65002]);
    let before = (path(&world, 1, 0).unwrap(), path(&world, 2, 1).unwrap());
    configs[0].peers[0].graceful_shutdown = true;
    apply(&mut world, 0, &configs[0]);
    let drained = path(&world, 1, 0).unwrap();
    assert_eq!(
        (drained.attrs.local_pref, drained.attrs.communities.as_slice()),
        (Some(0), &["65535:0".to_owned()][..])
    );
    assert!(drained.best, "it is still the only way");
    let other = world.heard(0, 1);
    assert!(
        !other.is_empty() && other.iter().all(|r| r.attrs.local_pref == Some(0)),
        "and in the other direction"
    );
    assert_eq!(path(&world, 2, 1).unwrap().attrs.communities, ["65535:0"], "those behind know it too");
    configs[0].peers[0].graceful_shutdown = false;
    apply(&mut world, 0, &configs[0]);
    assert_eq!((path(&world, 1, 0).unwrap(), path(&world, 2, 1).unwrap()), before);
    assert!(world.heard(0, 1).iter().all(|r| r.attrs.local_pref == Some(100)));
    let sessions: u64 = world
        .nodes
        .iter()
        .flat_map(|n| n.speaker.as_ref().unwrap().peer_views())
        .map(|p| p.counters.established)
        .sum();
    assert_eq!(sessions, 4);
}

/// RFC 8212, for those who ask for it.
#[test]
fn without_a_policy_nothing_crosses_the_border() {
    let (mut world, mut configs) = line([65000, 65001, 65002]);
    for p in &mut configs[1].peers {
        p.require_policy = true;
    }
    apply(&mut world, 1, &configs[1]);
    assert_eq!(path(&world, 1, 0).unwrap().import, ImportReason::NoPolicy);
    assert!(world.heard(2, 1).is_empty() && world.heard(0, 1).is_empty());
    let told = world.nodes[1].speaker.as_ref().unwrap().explain(net("10.65.1.0/26")).exports;
    assert!(told.iter().all(|e| e.reason == ExportReason::NoPolicy), "{told:?}");
    let all = Rule { action: Action::Accept, ..Rule::default() };
    configs[1].filters.insert(
        "all".into(),
        FilterSet { import_v4: vec![all.clone()], export_v4: vec![all], ..FilterSet::default() },
    );
    configs[1].peers[0].import = vec!["all".into()];
    configs[1].peers[1].export = vec!["all".into()];
    apply(&mut world, 1, &configs[1]);
    assert!(path(&world, 2, 1).is_some() && world.heard(0, 1).is_empty());
    assert!(world.heard(1, 2).iter().all(|r| r.import == ImportReason::NoPolicy));
}

/// RFC 9003: why, in words.
#[test]
fn the_other_operator_is_told_why() {
    let (mut world, mut configs) = line([65000, 65001, 65002]);
    configs[1].peers[0].enabled = false;
    configs[1].peers[0].shutdown_text = Some("new cables, back at 14:00".into());
    world.configure(1, configs[1].clone());
    world.run(millis(100));
    let said = |w: &World| w.nodes[0].speaker.as_ref().unwrap().peer_views()[0].last_error.clone().unwrap();
    assert!(said(&world).contains("Administrative Shutdown"), "{}", said(&world));
    assert!(said(&world).contains("\"new cables, back at 14:00\""), "{}", said(&world));
    assert_eq!(world.state(1, 0), State::Idle);
    assert!(path(&world, 2, 1).is_none());
}

/// A leaking peer is not helped over the end that its leak brought, although both restart gracefully.
#[test]
fn what_a_leaking_peer_told_goes_at_once() {
    let limit = PrefixLimit { max: 2, action: LimitAction::Reset, restart: None };
    let mut leak = node(1, 65001, vec![peer(0, 65000)]);
    let mut world = World::of(vec![
        node(0, 65000, vec![PeerConfig { prefix_limit: Some(limit), ..peer(1, 65001) }]),
        leak.clone(),
    ]);
    world.run(secs(3));
    assert_eq!(world.heard(0, 1).len(), 1);
    leak.originated.extend((0..3).map(|i| blackhole(&format!("10.70.{i}.0/24"))));
    world.configure(1, leak);
    world.run(millis(100));
    assert!(world.heard(0, 1).is_empty());
    world.run(secs(600));
    assert_eq!(world.state(0, 1), State::Idle, "until an operator resets it");
    let told = world.nodes[1].speaker.as_ref().unwrap().peer_views()[0].last_error.clone();
    assert!(told.is_some());
}
