//! Networks of speakers on a fake clock: hours of quiet, rings that break, nodes that restart together.
#![allow(clippy::unwrap_used, clippy::unchecked_time_subtraction, reason = "tests")]

mod harness;

use bird_speaker::config::{AddPath, GracefulRestart};
use bird_speaker::restart::DeferralEnd;
use bird_speaker::{Config, Event, PeerConfig, Start, Time};
use harness::{World, config, fibs, mesh, millis, net, node, peer, secs};

const RESTART: Start = Start { restarted: true, forwarding_kept: true, local_routes: false };

fn downs(world: &World) -> usize {
    world.nodes.iter().flat_map(|n| &n.events).filter(|e| matches!(e, Event::Down { .. })).count()
}

/// The shortest timers that are allowed, a slow link and clocks that fire late: nothing happens.
#[test]
fn hours_of_keepalives_lose_no_session() {
    let mut world = World::of(mesh(3, |p| PeerConfig { hold_time: 3, ..p }));
    world.latency = millis(20);
    world.jitter = millis(200);
    world.lateness = millis(300);
    world.run(secs(10));
    let (before, events) = (fibs(&world), world.nodes.iter().map(|n| n.events.len()).sum::<usize>());
    world.run(secs(6 * 3600));
    assert_eq!(downs(&world), 0);
    assert_eq!(world.nodes.iter().map(|n| n.events.len()).sum::<usize>(), events, "idle says nothing");
    assert_eq!(fibs(&world), before);
    let view = &world.nodes[0].speaker.as_ref().unwrap().peer_views()[0];
    assert!((17_000..22_000).contains(&view.counters.keepalives_received), "{:?}", view.counters);
}

/// Twelve routers of their own ASes in a ring. A link that breaks turns half of the paths around; nobody keeps a path that
/// does not exist.
#[test]
fn a_ring_that_breaks_goes_the_other_way_around() {
    let count = 12;
    let asn = |n: usize| 65000 + u32::try_from(n).unwrap();
    let quick = |p: PeerConfig| PeerConfig {
        graceful_restart: GracefulRestart { enabled: false, ..GracefulRestart::default() },
        add_path: AddPath::default(),
        hold_time: 9,
        ..p
    };
    let configs = (0..count)
        .map(|n| {
            let (left, right) = ((n + count - 1) % count, (n + 1) % count);
            node(n, asn(n), vec![quick(peer(left, asn(left))), quick(peer(right, asn(right)))])
        })
        .collect();
    let mut world = World::of(configs);
    world.jitter = millis(30);
    world.run(secs(10));
    let path = |world: &World, n: usize, to: usize| -> Option<Vec<u32>> {
        let filter = bird_speaker::view::RouteFilter {
            prefix: Some(net(&format!("10.65.{to}.0/26"))),
            ..bird_speaker::view::RouteFilter::default()
        };
        let routes = world.nodes[n].speaker.as_ref().unwrap().routes(&filter);
        routes.into_iter().find(|r| r.best).map(|r| r.attrs.as_path)
    };
    for n in 0..count {
        for to in 0..count {
            let around = (to + count - n) % count;
            let shortest = around.min(count - around);
            assert_eq!(path(&world, n, to).unwrap().len(), shortest, "{n} to {to}");
        }
    }
    // Between 11 and 0.
    world.cut.push((0, count - 1));
    world.run(secs(30));
    for n in 0..count {
        for to in 0..count {
            assert_eq!(path(&world, n, to).unwrap().len(), n.abs_diff(to), "{n} to {to}");
        }
    }
    // A second cut divides them; each half knows itself only.
    world.cut.push((5, 6));
    world.run(secs(30));
    for n in 0..count {
        for to in 0..count {
            assert_eq!(path(&world, n, to).is_some(), (n < 6) == (to < 6), "{n} to {to}");
        }
    }
    world.cut.clear();
    world.run(secs(60));
    assert!((0..count).all(|n| (0..count).all(|to| path(&world, n, to).is_some())));
}

/// Any two of four nodes restart at about the same time, one up to six seconds after the other, and each is away for up to two.
/// No node's kernel loses a route at any moment, and nobody waits for a timer.
#[test]
fn nodes_that_restart_together_keep_each_others_routes() {
    for (round, late) in (0..25).map(|i| (i, millis(i * 250))) {
        let configs = mesh(4, |p| p);
        let mut world = World::of(configs.clone());
        world.weather = round + 1;
        world.jitter = millis(round % 4 * 10);
        world.run(secs(4));
        let before = fibs(&world);
        let away = millis(100 + round * 79 % 1900);
        let mut plan = vec![
            (world.now, 0, false),
            (world.now + late, 1, false),
            (world.now + away, 0, true),
            (world.now + late + away, 1, true),
        ];
        plan.sort();
        let end = world.now + secs(20);
        while world.now < end {
            while plan.first().is_some_and(|(at, ..)| *at <= world.now) {
                match plan.remove(0) {
                    (_, n, false) => world.kill(n),
                    (_, n, true) => world.start(n, configs[n].clone(), RESTART),
                }
            }
            world.run(millis(10));
            assert_eq!(fibs(&world), before, "round {round} at {:?}", world.now);
        }
        for n in [0, 1] {
            assert_eq!(world.nodes[n].fib_writes, 0, "round {round}, n{n}");
            let view = world.nodes[n].speaker.as_ref().unwrap().restart_view(world.now);
            assert_eq!(view.ended, Some(DeferralEnd::AllDone), "round {round}, n{n}");
            assert!(view.for_ms < 8_000, "round {round}, n{n}: {} ms", view.for_ms);
        }
    }
}

/// All nodes at once, as after a cluster's upgrade.
#[test]
fn a_cluster_that_restarts_whole_forwards_all_the_time() {
    let configs = mesh(8, |p| p);
    let mut world = World::of(configs.clone());
    world.run(secs(5));
    let before = fibs(&world);
    assert!(before.iter().all(|f| f.len() == 8));
    for n in 0..8 {
        world.kill(n);
    }
    world.run(secs(1));
    for (n, config) in configs.iter().enumerate() {
        world.start(n, config.clone(), RESTART);
        world.run(millis(60));
    }
    let end = world.now + secs(15);
    while world.now < end {
        world.run(millis(10));
        assert_eq!(fibs(&world), before, "at {:?}", world.now);
    }
    let took: Vec<u64> =
        world.nodes.iter().map(|n| n.speaker.as_ref().unwrap().restart_view(world.now).for_ms).collect();
    assert!(took.iter().all(|ms| *ms < 6_000), "{took:?}");
}

/// Clusters were seen to wait four minutes for nodes that never came. Here a third of a reflector's clients is dead.
#[test]
fn a_reflector_that_restarts_does_not_wait_for_the_dead() {
    let count = 60;
    let client = |n: usize| PeerConfig { route_reflector_client: true, passive: true, ..peer(n, 64512) };
    let reflector =
        Config { peers: (1..=count).map(client).collect(), originated: Vec::new(), ..config(0, 64512) };
    let mut configs = vec![reflector.clone()];
    configs.extend((1..=count).map(|n| node(n, 64512, vec![peer(0, 64512)])));
    let mut world = World::of(configs);
    world.run(secs(10));
    assert_eq!(world.nodes[0].fib.len(), count);
    world.kill(0);
    for n in (1..=count).filter(|n| n % 3 == 0) {
        world.vanish(n);
    }
    world.run(millis(500));
    world.start(0, reflector, RESTART);
    let done = |w: &World| w.nodes[0].events.iter().any(|e| matches!(e, Event::RestartComplete { .. }));
    let took: Time = world.until(secs(10), "restart complete", done);
    assert!(took <= millis(5_500), "{took:?}");
    world.run(secs(2));
    assert_eq!(world.nodes[0].fib.len(), count - count / 3, "what the dead told is swept");
}
