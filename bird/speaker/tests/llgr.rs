//! Long-lived graceful restart (RFC 9494): what is kept after the restart time, as the last resort, for whom and how long.
#![allow(clippy::unwrap_used, clippy::unchecked_time_subtraction, reason = "tests")]

mod harness;

use std::time::Duration;

use bird_speaker::config::{GracefulRestart, LongLived};
use bird_speaker::io::Command;
use bird_speaker::policy::{Action, FilterSet, Operation, Rule};
use bird_speaker::restart::HelpPhase;
use bird_speaker::view::PathView;
use bird_speaker::{Config, Event, Input, PeerConfig, Start};
use harness::{World, blackhole, millis, net, node, peer, secs};

const RESTART: Start = Start { restarted: true, forwarding_kept: true, local_routes: false };
const STALE: &str = "65535:6";
const NO_EXPORT: &str = "65535:65281";

/// Away for 10 s is a restart, for a minute more it is long-lived.
fn long(keep: u64) -> LongLived {
    LongLived { stale_time: 60, keep: secs(keep), ..LongLived::default() }
}

fn tuned(p: PeerConfig, long_lived: LongLived) -> PeerConfig {
    let graceful_restart = GracefulRestart { restart_time: 10, long_lived, ..GracefulRestart::default() };
    PeerConfig { graceful_restart, passive: false, ..p }
}

const UNAWARE: LongLived = LongLived { aware: false, stale_time: 0, keep: Duration::ZERO, partial: false };

/// ```text
///            ┌── n2  knows long-lived stale routes
///   n1 ── n0 ┤
///            └── n3  does not
/// ```
/// All of different ASes.
fn star(keep: u64) -> (World, Vec<Config>) {
    let configs = vec![
        node(
            0,
            65000,
            vec![
                tuned(peer(1, 65001), long(keep)),
                tuned(peer(2, 65002), long(keep)),
                tuned(peer(3, 65003), long(keep)),
            ],
        ),
        node(1, 65001, vec![tuned(peer(0, 65000), long(60))]),
        node(2, 65002, vec![tuned(peer(0, 65000), LongLived::default())]),
        node(3, 65003, vec![tuned(peer(0, 65000), UNAWARE)]),
    ];
    let mut world = World::of(configs.clone());
    world.run(secs(3));
    assert!(path(&world, 2, 0).is_some() && path(&world, 3, 0).is_some());
    (world, configs)
}

/// What node `n` has heard from `from` of the block of n1.
fn path(world: &World, n: usize, from: usize) -> Option<PathView> {
    world.heard(n, from).into_iter().find(|r| r.prefix == net("10.65.1.0/26"))
}

fn marked(path: Option<&PathView>) -> bool {
    path.is_some_and(|p| p.attrs.communities.iter().any(|c| c == STALE))
}

fn phases(world: &World, n: usize) -> Vec<HelpPhase> {
    let view = world.nodes[n].speaker.as_ref().unwrap().restart_view(world.now);
    view.helping.iter().map(|h| h.phase).collect()
}

#[test]
fn a_peer_that_stays_away_is_kept_as_the_last_resort_and_told_to_those_who_know() {
    let (mut world, _) = star(60);
    world.kill(1);
    world.run(secs(9));
    assert_eq!(phases(&world, 0), [HelpPhase::Away]);
    for n in [2, 3] {
        assert!(
            path(&world, n, 0).is_some() && !marked(path(&world, n, 0).as_ref()),
            "n{n}: an ordinary restart"
        );
    }
    world.run(secs(2));
    assert_eq!(phases(&world, 0), [HelpPhase::LongLived]);
    let kept = path(&world, 0, 1).unwrap();
    assert!(kept.stale && kept.long_lived && kept.best && marked(Some(&kept)));
    assert!(world.nodes[0].fib.contains_key(&net("10.65.1.0/26")), "still the best there is");
    assert!(marked(path(&world, 2, 0).as_ref()), "it knows what the mark means");
    assert!(path(&world, 3, 0).is_none(), "it would take it for a good route (§4.3)");
    let said = |w: &World| w.nodes[0].events.iter().any(|e| matches!(e, Event::LongLivedStale { .. }));
    assert!(said(&world));
    world.run(secs(57));
    assert!(path(&world, 0, 1).is_some());
    world.run(secs(3));
    assert!(path(&world, 0, 1).is_none() && path(&world, 2, 0).is_none(), "its time is over");
    assert!(!world.nodes[0].fib.contains_key(&net("10.65.1.0/26")));
    assert!(phases(&world, 0).is_empty());
}

#[test]
fn we_keep_no_longer_than_we_are_told_to_and_not_at_all_by_default() {
    for (keep, after) in [(20, 30), (0, 10)] {
        let (mut world, _) = star(keep);
        world.kill(1);
        world.run(secs(after - 1));
        assert!(path(&world, 0, 1).is_some(), "keep {keep}");
        world.run(secs(2));
        assert!(path(&world, 0, 1).is_none(), "keep {keep}");
    }
}

#[test]
fn a_peer_that_comes_back_is_as_before() {
    let (mut world, configs) = star(60);
    world.kill(1);
    world.run(secs(30));
    assert!(path(&world, 3, 0).is_none());
    world.start(1, configs[1].clone(), RESTART);
    world.until(secs(10), "told again", |w| path(w, 0, 1).is_some_and(|p| !p.stale));
    world.run(secs(8));
    let back = path(&world, 0, 1).unwrap();
    assert!(!back.long_lived && back.attrs.communities.is_empty());
    for n in [2, 3] {
        assert!(path(&world, n, 0).is_some_and(|p| p.attrs.communities.is_empty()), "n{n}");
    }
    world.run(secs(100));
    assert!(path(&world, 0, 1).is_some() && phases(&world, 0).is_empty(), "the old clock is stopped");
}

#[test]
fn a_peer_that_comes_back_with_nothing_loses_what_was_kept() {
    let (mut world, configs) = star(60);
    world.kill(1);
    world.run(secs(30));
    let mut empty = configs[1].clone();
    empty.originated.clear();
    world.nodes[1].fib.clear();
    // No F bit, and it has not told everything: it says nothing of its routes yet.
    world.start(1, empty, Start { local_routes: true, ..Start::default() });
    world.until(secs(10), "session", |w| w.up(0, 1));
    world.run(millis(50));
    assert!(path(&world, 0, 1).is_none() && path(&world, 2, 0).is_none());
}

#[test]
fn a_peer_lost_again_before_it_told_everything_gets_no_more_time() {
    let (mut world, configs) = star(60);
    world.kill(1);
    world.run(secs(30));
    let mut empty = configs[1].clone();
    empty.originated = vec![blackhole("10.99.0.0/24")];
    world.start(1, empty, Start { local_routes: true, ..RESTART });
    world.until(secs(10), "session", |w| w.up(0, 1));
    world.run(millis(500));
    assert_eq!(phases(&world, 0), [HelpPhase::Telling]);
    assert!(path(&world, 0, 1).unwrap().long_lived);
    world.kill(1);
    world.run(secs(1));
    let held = world.heard(0, 1);
    assert_eq!(held.len(), 2, "{held:?}");
    assert!(held.iter().all(|p| p.long_lived), "what it told meanwhile is no fresher than its session");
    world.run(secs(70 - 42));
    assert_eq!(world.heard(0, 1).len(), 2);
    world.run(secs(12));
    assert!(world.heard(0, 1).is_empty(), "a minute after the restart time, whatever happened since");
}

#[test]
fn anything_fresh_is_better() {
    let (mut world, mut configs) = star(60);
    // n2 has the block too, behind a longer path.
    let prepend = Rule { operations: vec![Operation::PrependAsPath(vec![65002, 65002])], ..Rule::default() };
    configs[2].originated.push(blackhole("10.65.1.0/26"));
    configs[2].filters.insert("far".into(), FilterSet { export_v4: vec![prepend], ..FilterSet::default() });
    configs[2].peers[0].export = vec!["far".into()];
    world.configure(2, configs[2].clone());
    world.run(secs(1));
    assert!(path(&world, 0, 1).unwrap().best && !path(&world, 0, 2).unwrap().best);
    world.kill(1);
    world.run(secs(9));
    assert!(path(&world, 0, 1).unwrap().best, "stale is as good as ever within the restart time");
    world.run(secs(2));
    assert!(path(&world, 0, 2).unwrap().best);
    assert_eq!(path(&world, 0, 1).unwrap().lost, Some(bird_speaker::Step::Stale));
    let to_n3 = path(&world, 3, 0).unwrap();
    assert_eq!(to_n3.attrs.as_path, [65000, 65002, 65002, 65002]);
}

#[test]
fn routes_that_say_no_llgr_go_with_the_restart_time() {
    let (_, mut configs) = star(60);
    let tag =
        Rule { operations: vec![Operation::AddCommunity("65535:7".parse().unwrap())], ..Rule::default() };
    configs[1].filters.insert("no".into(), FilterSet { export_v4: vec![tag], ..FilterSet::default() });
    configs[1].peers[0].export = vec!["no".into()];
    let mut world = World::of(configs);
    world.run(secs(3));
    world.kill(1);
    world.run(secs(9));
    assert!(path(&world, 0, 1).is_some());
    world.run(secs(2));
    assert!(path(&world, 0, 1).is_none() && path(&world, 2, 0).is_none());
}

/// §4.6: an internal peer that does not know the mark may be told, if we are asked to and it can tell by LOCAL_PREF.
#[test]
fn partial_deployment_tells_internal_peers_with_local_pref_0() {
    for partial in [false, true] {
        let inside = LongLived { partial, ..long(60) };
        let mut world = World::of(vec![
            node(0, 65000, vec![tuned(peer(1, 65001), long(60)), tuned(peer(2, 65000), inside)]),
            node(1, 65001, vec![tuned(peer(0, 65000), long(60))]),
            node(2, 65000, vec![tuned(peer(0, 65000), UNAWARE)]),
        ]);
        world.run(secs(3));
        assert_eq!(path(&world, 2, 0).unwrap().attrs.local_pref, Some(100));
        world.kill(1);
        world.run(secs(11));
        let told = path(&world, 2, 0);
        assert_eq!(told.is_some(), partial);
        if let Some(told) = told {
            assert_eq!(told.attrs.local_pref, Some(0));
            assert!(marked(Some(&told)) && told.attrs.communities.iter().any(|c| c == NO_EXPORT));
        }
    }
}

#[test]
fn without_a_restart_time_they_are_long_lived_at_once() {
    let (_, mut configs) = star(60);
    configs[1].peers[0].graceful_restart.restart_time = 0;
    let mut world = World::of(configs);
    world.run(secs(3));
    world.kill(1);
    world.run(millis(100));
    assert!(path(&world, 0, 1).unwrap().long_lived);
    assert!(marked(path(&world, 2, 0).as_ref()));
    world.run(secs(61));
    assert!(path(&world, 0, 1).is_none());
}

#[test]
fn an_end_for_good_keeps_nothing_and_an_operator_may_let_go() {
    let (mut world, mut configs) = star(60);
    // n1 removes n0 from its configuration: a hard reset.
    configs[1].peers.clear();
    world.configure(1, configs[1].clone());
    world.run(millis(100));
    assert!(path(&world, 0, 1).is_none());

    for shut_down in [false, true] {
        let (mut world, mut configs) = star(60);
        world.kill(1);
        world.run(secs(20));
        assert!(path(&world, 0, 1).unwrap().long_lived);
        if shut_down {
            configs[0].peers[0].enabled = false;
            world.configure(0, configs[0].clone());
        } else {
            world.handle(0, Input::Command(Command::Reset { peer: "n1".into() }));
        }
        world.run(millis(100));
        assert!(path(&world, 0, 1).is_none() && path(&world, 2, 0).is_none(), "shut down {shut_down}");
    }
}

#[test]
fn a_new_filter_applies_to_what_is_kept_and_the_mark_stays() {
    let (mut world, mut configs) = star(60);
    world.kill(1);
    world.run(secs(15));
    let tag =
        Rule { operations: vec![Operation::AddCommunity("65000:9".parse().unwrap())], ..Rule::default() };
    let reject = Rule { action: Action::Reject, ..Rule::default() };
    configs[0].filters.insert("tag".into(), FilterSet { import_v4: vec![tag], ..FilterSet::default() });
    configs[0].filters.insert("none".into(), FilterSet { import_v4: vec![reject], ..FilterSet::default() });
    configs[0].peers[0].import = vec!["tag".into()];
    world.configure(0, configs[0].clone());
    world.run(millis(50));
    assert_eq!(path(&world, 2, 0).unwrap().attrs.communities, ["65000:9", STALE]);
    configs[0].peers[0].import = vec!["none".into()];
    world.configure(0, configs[0].clone());
    world.run(millis(50));
    assert!(path(&world, 2, 0).is_none() && path(&world, 0, 1).unwrap().long_lived);
    configs[0].peers[0].import.clear();
    world.configure(0, configs[0].clone());
    world.run(millis(50));
    assert_eq!(path(&world, 2, 0).unwrap().attrs.communities, [STALE]);
    assert!(path(&world, 3, 0).is_none());
    world.run(secs(60));
    assert!(path(&world, 0, 1).is_none());
}

/// A big table is marked in steps, between which everything else goes on; what comes back meanwhile is fresh.
#[test]
fn a_big_table_becomes_stale_in_steps() {
    use bird_packet::{Capability, Family, LlgrFamily};
    use harness::wire::{Wire, end_of_rib, graceful_open, passive, router, routes};
    let count = 20_000;
    let mut wire = Wire::new(router(vec![tuned(passive(1), long(600)), passive(2)]));
    let mut open = graceful_open(1, false, true);
    let family = Family::Ipv4Unicast.into();
    let asked = LlgrFamily { family, forwarding_kept: true, stale_time: 500 };
    open.capabilities.push(Capability::LongLivedGracefulRestart(vec![asked]));
    let conn = wire.session(1, &open);
    wire.session(2, &harness::wire::open(2));
    wire.feed(conn, &routes(1, 0, count));
    wire.feed(conn, &end_of_rib());
    wire.close(conn);
    wire.now += secs(31);
    wire.speaker.handle(wire.now, Input::Tick);
    let marked = |wire: &Wire| wire.heard(1).iter().filter(|p| p.long_lived).count();
    let mut steps = 0;
    let mut before = 0;
    while wire.speaker.next_timeout() == Some(wire.now) {
        while wire.speaker.poll().is_some() {}
        let now = marked(&wire);
        assert!(now - before <= 10_000, "{before} to {now}");
        before = now;
        wire.speaker.handle(wire.now, Input::Tick);
        steps += 1;
        assert!(steps < 1000);
    }
    assert_eq!(marked(&wire), count as usize);
    assert!(wire.heard(1).iter().all(marked_path));
    let sets = wire.speaker.totals().attribute_sets;
    assert!(sets <= 4, "one set of attributes for all: {sets}");
    let back = wire.session(1, &open);
    wire.feed(back, &routes(1, 0, count / 2));
    wire.feed(back, &end_of_rib());
    assert_eq!((wire.heard(1).len(), marked(&wire)), (count as usize / 2, 0));
}

fn marked_path(path: &PathView) -> bool {
    path.long_lived && marked(Some(path))
}
