//! Graceful restart, both roles: who keeps what, and for how long.
#![allow(clippy::unwrap_used, clippy::unchecked_time_subtraction, reason = "tests")]

mod harness;

use std::collections::BTreeMap;

use bird_speaker::config::{GracefulRestart, RestartConfig};
use bird_speaker::io::Command;
use bird_speaker::restart::{DeferralEnd, HelpPhase, WaitReason};
use bird_speaker::{Event, FibRoute, Input, Start};
use harness::{World, blackhole, millis, net, secs};
use ipnet::IpNet;

const RESTART: Start = Start { restarted: true, forwarding_kept: true, local_routes: false };

fn fib(world: &World, n: usize) -> BTreeMap<IpNet, FibRoute> {
    world.nodes[n].fib.clone()
}

fn restart_event(world: &World, n: usize) -> Option<DeferralEnd> {
    world.nodes[n].events.iter().find_map(|e| match e {
        Event::RestartComplete { waited } => Some(*waited),
        _ => None,
    })
}

#[test]
fn a_restart_writes_nothing_and_nobody_loses_a_route() {
    let configs = harness::mesh(4, |p| p);
    let mut world = World::of(configs.clone());
    world.run(secs(3));
    let before: Vec<_> = (0..4).map(|n| fib(&world, n)).collect();
    assert!(before.iter().all(|f| f.len() == 4));
    let writes: Vec<_> = world.nodes.iter().map(|n| n.fib_writes).collect();

    world.kill(2);
    for _ in 0..30 {
        world.run(millis(100));
        assert_eq!((0..4).map(|n| fib(&world, n)).collect::<Vec<_>>(), before);
    }
    world.start(2, configs[2].clone(), RESTART);
    let took = world.until(secs(6), "restart complete", |w| restart_event(w, 2).is_some());
    assert_eq!(restart_event(&world, 2), Some(DeferralEnd::AllDone));
    assert!(took < secs(6), "{took:?}");
    world.run(secs(3));
    for (n, before) in before.iter().enumerate() {
        assert_eq!(fib(&world, n), *before);
    }
    assert_eq!(world.nodes[2].fib_writes, 0, "the kernel was right all the time");
    for n in [0, 1, 3] {
        assert_eq!(world.nodes[n].fib_writes, writes[n], "node {n} wrote nothing");
        assert!(!world.heard(n, 2)[0].stale);
    }
}

#[test]
fn what_changed_during_a_restart_is_swept_when_all_are_heard() {
    let mut configs = harness::mesh(3, |p| p);
    let mut world = World::of(configs.clone());
    world.run(secs(3));
    world.kill(1);
    world.run(secs(1));
    // While it is away, n0 and n1 itself lose a block each.
    configs[0].originated.clear();
    world.configure(0, configs[0].clone());
    configs[1].originated.clear();
    world.run(secs(1));
    assert!(world.nodes[2].fib.contains_key(&net("10.65.1.0/26")), "helper");
    world.start(1, configs[1].clone(), RESTART);
    assert!(world.nodes[1].fib.contains_key(&net("10.65.0.0/26")));
    world.until(secs(6), "restart complete", |w| restart_event(w, 1).is_some());
    world.run(secs(1));
    for n in 0..3 {
        assert_eq!(fib(&world, n).keys().map(ToString::to_string).collect::<Vec<_>>(), ["10.65.2.0/26"]);
    }
}

#[test]
fn a_dead_peer_is_not_waited_for_long() {
    let configs = harness::mesh(4, |p| p);
    let mut world = World::of(configs.clone());
    world.run(secs(3));
    world.vanish(3);
    world.kill(1);
    world.run(millis(500));
    world.start(1, configs[1].clone(), RESTART);
    world.run(secs(1));
    let waits = world.nodes[1].speaker.as_ref().unwrap().restart_waits_for(world.now);
    assert_eq!(waits.iter().map(|w| w.peer.as_str()).collect::<Vec<_>>(), ["n3"]);
    let view = world.nodes[1].speaker.as_ref().unwrap().restart_view(world.now);
    assert!(view.active && view.forwarding_kept && view.ended.is_none() && view.waiting == waits);
    assert_eq!((view.for_ms, view.left_ms), (1000, Some(119_000)));
    assert_eq!((waits[0].reason, waits[0].for_ms, waits[0].left_ms), (WaitReason::Session, 1000, 4000));
    let helped = world.nodes[0].speaker.as_ref().unwrap().restart_view(world.now);
    assert!(!helped.active && helped.for_ms == 0);
    let helping: Vec<_> = helped.helping.iter().map(|h| (h.peer.as_str(), h.phase)).collect();
    assert_eq!(helping, [("n1", HelpPhase::Telling)], "n3 is not known to be dead");
    assert!(world.nodes[1].fib.contains_key(&net("10.65.3.0/26")), "kept while we wait");
    let own = world.heard(0, 1);
    assert!(own.iter().any(|r| r.prefix == net("10.65.1.0/26") && !r.stale), "own routes at once");
    world.until(secs(6), "restart complete", |w| restart_event(w, 1).is_some());
    world.run(millis(100));
    assert!(!world.nodes[1].fib.contains_key(&net("10.65.3.0/26")), "swept");
    let view = world.nodes[1].speaker.as_ref().unwrap().restart_view(world.now);
    assert_eq!((view.active, view.ended, view.left_ms), (false, Some(DeferralEnd::AllDone), None));
    assert!((5000..5300).contains(&view.for_ms), "{}", view.for_ms);
}

#[test]
fn two_that_restart_together_do_not_wait_for_each_other() {
    let configs = harness::mesh(3, |p| p);
    let mut world = World::of(configs.clone());
    world.run(secs(3));
    let before: Vec<_> = (0..3).map(|n| fib(&world, n)).collect();
    world.kill(0);
    world.kill(1);
    world.run(millis(300));
    world.start(0, configs[0].clone(), RESTART);
    world.start(1, configs[1].clone(), RESTART);
    world.until(secs(6), "both complete", |w| (0..2).all(|n| restart_event(w, n).is_some()));
    world.run(secs(1));
    assert_eq!((0..3).map(|n| fib(&world, n)).collect::<Vec<_>>(), before);
}

/// As FRR in its first two minutes: it says that it restarted, and tells its first route only after a while.
#[test]
fn stale_kernel_routes_wait_for_a_peer_that_restarted_too_and_is_slow() {
    let mut configs = harness::mesh(2, |p| p);
    let mut world = World::of(configs.clone());
    world.run(secs(3));
    let before = fib(&world, 0);
    world.kill(0);
    world.kill(1);
    configs[1].originated.clear();
    world.start(1, configs[1].clone(), Start { local_routes: true, ..RESTART });
    world.start(0, configs[0].clone(), RESTART);
    world.until(secs(6), "restart complete", |w| restart_event(w, 0).is_some());
    let writes = world.nodes[0].fib_writes;
    world.run(secs(5));
    assert_eq!(fib(&world, 0), before, "its End-of-RIB is not there yet");
    configs[1].originated.push(blackhole("10.65.1.0/26"));
    world.configure(1, configs[1].clone());
    world.handle(1, Input::LocalRoutesComplete);
    world.run(secs(3));
    assert_eq!((fib(&world, 0), world.nodes[0].fib_writes), (before, writes), "it was right all the time");

    // And what it does not tell goes with its End-of-RIB.
    world.kill(0);
    world.kill(1);
    configs[1].originated.clear();
    world.start(1, configs[1].clone(), Start { local_routes: true, ..RESTART });
    world.start(0, configs[0].clone(), RESTART);
    world.run(secs(5));
    assert!(world.nodes[0].fib.contains_key(&net("10.65.1.0/26")));
    world.handle(1, Input::LocalRoutesComplete);
    world.run(secs(3));
    assert!(!world.nodes[0].fib.contains_key(&net("10.65.1.0/26")));
}

/// As GoBGP right after it gave up waiting for us: it takes the call and hangs up.
#[test]
fn stale_kernel_routes_wait_for_a_peer_that_takes_calls_and_hangs_up() {
    for comes_round in [true, false] {
        let configs = harness::mesh(2, |p| p);
        let mut world = World::of(configs.clone());
        world.run(secs(3));
        let before = fib(&world, 0);
        world.kill(0);
        let mut strange = configs[1].clone();
        strange.peers[0].remote_as = 64999;
        world.configure(1, strange);
        world.start(0, configs[0].clone(), RESTART);
        world.until(secs(6), "restart complete", |w| restart_event(w, 0).is_some());
        world.run(secs(8));
        assert_eq!((fib(&world, 0), world.nodes[0].fib_writes), (before.clone(), 0), "somebody is there");
        if comes_round {
            world.configure(1, configs[1].clone());
            world.run(secs(60));
            assert!(world.up(0, 1));
            assert!(fib(&world, 0) == before, "{:?}", fib(&world, 0));
        } else {
            world.run(secs(10));
            assert!(!world.nodes[0].fib.contains_key(&net("10.65.1.0/26")), "not for ever");
        }
    }
}

#[test]
fn a_helper_gives_up_when_the_peer_stays_away() {
    let restart = GracefulRestart { restart_time: 10, ..GracefulRestart::default() };
    let mut configs = harness::mesh(2, |p| p);
    for c in &mut configs {
        c.peers[0].graceful_restart = restart;
    }
    let mut world = World::of(configs);
    world.run(secs(3));
    world.kill(1);
    world.run(secs(9));
    assert!(world.heard(0, 1)[0].stale);
    let helping = world.nodes[0].speaker.as_ref().unwrap().restart_view(world.now).helping;
    assert_eq!((helping[0].peer.as_str(), helping[0].phase, helping.len()), ("n1", HelpPhase::Away, 1));
    assert!((900..=1010).contains(&helping[0].left_ms), "{helping:?}");
    assert!(world.nodes[0].fib.contains_key(&net("10.65.1.0/26")));
    world.run(secs(2));
    assert!(world.heard(0, 1).is_empty());
    assert!(!world.nodes[0].fib.contains_key(&net("10.65.1.0/26")));
}

#[test]
fn a_peer_that_kept_nothing_gets_no_help() {
    let configs = harness::mesh(2, |p| p);
    let mut world = World::of(configs.clone());
    world.run(secs(3));
    world.kill(1);
    world.run(secs(1));
    assert!(world.heard(0, 1)[0].stale);
    let mut empty = configs[1].clone();
    empty.originated.clear();
    world.nodes[1].fib.clear();
    world.start(1, empty, Start::default());
    world.until(secs(7), "session", |w| w.up(0, 1));
    world.run(millis(20));
    assert!(world.heard(0, 1).is_empty(), "no F bit: gone before End-of-RIB");
}

#[test]
fn a_planned_stop_is_quiet_and_a_removed_peer_is_forgotten() {
    let mut configs = harness::mesh(2, |p| p);
    let mut world = World::of(configs.clone());
    world.run(secs(3));
    world.handle(1, Input::Command(Command::Stop));
    world.run(millis(100));
    assert!(!world.up(0, 1));
    assert!(world.nodes[0].fib.contains_key(&net("10.65.1.0/26")), "no Cease: routes stay");

    let mut world = World::of(configs.clone());
    world.run(secs(3));
    configs[1].peers.clear();
    let diff = world.configure(1, configs[1].clone());
    assert_eq!(diff.removed, ["n0"]);
    world.run(millis(100));
    assert!(world.heard(0, 1).is_empty(), "a hard reset ends it for good");
    assert!(world.best(1).len() == 1);
}

#[test]
fn hold_timer_expiry_keeps_routes_where_both_agree() {
    for notification in [true, false] {
        let mut configs = harness::mesh(2, |p| p);
        for c in &mut configs {
            c.peers[0].hold_time = 3;
            c.peers[0].graceful_restart.notification = notification;
        }
        let mut world = World::of(configs);
        world.run(secs(3));
        world.cut.push((0, 1));
        world.run(secs(5));
        assert!(!world.up(0, 1));
        assert_eq!(world.heard(0, 1).len(), usize::from(notification), "RFC 8538");
    }
}

#[test]
fn a_second_restart_inside_the_first_takes_what_was_stale() {
    let mut configs = harness::mesh(2, |p| p);
    configs[1].originated.push(blackhole("10.99.0.0/24"));
    let mut world = World::of(configs.clone());
    world.run(secs(3));
    assert_eq!(world.heard(0, 1).len(), 2);
    world.kill(1);
    world.run(millis(200));
    // It comes back and dies before it has told everything: local routes are not complete, so there is no End-of-RIB.
    configs[1].originated.truncate(1);
    world.start(1, configs[1].clone(), Start { local_routes: true, ..RESTART });
    world.until(secs(7), "session", |w| w.up(0, 1));
    world.run(millis(100));
    assert_eq!(world.heard(0, 1).iter().filter(|r| r.stale).count(), 1);
    world.kill(1);
    world.run(secs(1));
    assert_eq!(world.heard_prefixes(0, 1), ["10.65.1.0/26"], "stale twice over is gone");
}

#[test]
fn deferral_has_an_end_whatever_peers_do() {
    let mut configs = harness::mesh(2, |p| p);
    configs[1].restart = RestartConfig { deferral: secs(20), ..RestartConfig::default() };
    let mut world = World::of(configs.clone());
    world.run(secs(3));
    world.kill(1);
    // n0 restarts too, and never completes: it is connected, but says no End-of-RIB and no R bit.
    world.kill(0);
    world.run(millis(100));
    world.nodes[0].fib.clear();
    world.start(0, configs[0].clone(), Start { local_routes: true, ..Start::default() });
    world.start(1, configs[1].clone(), RESTART);
    world.run(secs(15));
    assert_eq!(restart_event(&world, 1), None);
    world.run(secs(6));
    assert_eq!(restart_event(&world, 1), Some(DeferralEnd::TimedOut));
}
