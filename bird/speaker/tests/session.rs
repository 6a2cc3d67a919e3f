//! Sessions of two speakers on a fake clock: coming up, collisions, clocks, ends.
#![allow(clippy::unwrap_used, clippy::unchecked_time_subtraction, reason = "tests")]

mod harness;

use bird_speaker::config::Families;
use bird_speaker::fsm::State;
use bird_speaker::io::{Command, Witness};
use bird_speaker::{Config, Event, Input, PeerConfig};
use harness::{World, blackhole, millis, net, node, peer, secs};

/// Node `n` of AS `asn` with one peer and a route of its own.
fn pair() -> World {
    World::of(vec![node(0, 65000, vec![peer(1, 65001)]), node(1, 65001, vec![peer(0, 65000)])])
}

#[test]
fn two_that_call_each_other_at_once_have_one_session() {
    for latency in [0, 1, 5, 50] {
        let mut world = pair();
        world.latency = millis(latency);
        world.run(secs(3));
        assert!(world.up(0, 1) && world.up(1, 0), "latency {latency}");
        assert_eq!(world.heard_prefixes(0, 1), ["10.65.1.0/26"]);
        assert_eq!(world.heard_prefixes(1, 0), ["10.65.0.0/26"]);
        let downs = world.nodes.iter().flat_map(|n| &n.events).filter(|e| matches!(e, Event::Down { .. }));
        assert_eq!(downs.count(), 0, "no session was up and lost, latency {latency}");
        world.run(secs(600));
        assert!(world.up(0, 1) && world.up(1, 0));
    }
}

#[test]
fn messages_may_be_cut_anywhere() {
    for segment in [1, 2, 18, 19, 20, 23] {
        let mut world = pair();
        world.segment = segment;
        world.run(secs(2));
        assert_eq!(world.heard_prefixes(0, 1), ["10.65.1.0/26"], "segments of {segment}");
    }
}

#[test]
fn the_passive_side_waits() {
    let mut world = World::of(vec![
        node(0, 65000, vec![PeerConfig { passive: true, ..peer(1, 65000) }]),
        node(1, 65000, vec![PeerConfig { passive: true, ..peer(0, 65000) }]),
    ]);
    world.run(secs(60));
    assert_eq!(world.state(0, 1), State::Active);
    let active = node(1, 65000, vec![peer(0, 65000)]);
    let diff = world.configure(1, active);
    assert!(diff.reset.is_empty());
    world.until(secs(1), "session", |w| w.up(0, 1));
}

#[test]
fn a_mesh_that_starts_node_by_node_is_up_within_a_second_of_the_last() {
    let count = 12;
    let configs: Vec<Config> = (0..count)
        .map(|n| {
            let peers = (0..count)
                .filter(|p| *p != n)
                .map(|p| PeerConfig { passive: p > n, ..peer(p, 64512) })
                .collect();
            node(n, 64512, peers)
        })
        .collect();
    let mut world = World::new();
    for _ in 0..count {
        world.add_absent();
    }
    for (n, config) in configs.into_iter().enumerate().rev() {
        world.start(n, config, bird_speaker::Start::default());
        world.run(millis(37));
    }
    let all = |w: &World| (0..count).all(|n| (0..count).all(|p| n == p || w.up(n, p)));
    let took = world.until(secs(1), "full mesh", all);
    world.run(millis(50));
    for n in 0..count {
        assert_eq!(world.best(n).len(), count, "node {n} after {took:?}");
        assert_eq!(world.nodes[n].fib.len(), count);
    }
}

#[test]
fn a_peer_that_comes_back_without_calling_has_its_session_within_a_quarter_second() {
    let one = node(1, 65001, vec![PeerConfig { passive: true, ..peer(0, 65000) }]);
    let mut world = World::of(vec![node(0, 65000, vec![peer(1, 65001)]), one.clone()]);
    world.until(secs(1), "session", |w| w.up(0, 1));
    for away in [millis(300), secs(2), secs(20)] {
        world.kill(1);
        world.run(away);
        assert!(!world.up(0, 1));
        let kept = bird_speaker::Start { restarted: true, forwarding_kept: true, local_routes: false };
        world.start(1, one.clone(), kept);
        world.until(millis(250), "session again", |w| w.up(0, 1));
    }
}

#[test]
fn a_dead_peer_is_noticed_by_the_hold_timer_and_found_again() {
    let quick = |p: PeerConfig| PeerConfig { hold_time: 3, ..p };
    let one = node(1, 65001, vec![quick(peer(0, 65000))]);
    let mut world = World::of(vec![node(0, 65000, vec![quick(peer(1, 65001))]), one.clone()]);
    world.until(secs(1), "session", |w| w.up(0, 1));
    world.run(secs(30));
    assert!(world.up(0, 1), "keepalives hold it");
    world.vanish(1);
    let took = world.until(secs(4), "hold timer", |w| !w.up(0, 1));
    assert!(took >= secs(2), "{took:?}");
    world.run(secs(100));
    world.start(1, one, bird_speaker::Start::default());
    world.until(secs(11), "session again", |w| w.up(0, 1));
}

#[test]
fn a_wrong_as_is_told_once_and_tried_again_slowly() {
    let mut world =
        World::of(vec![node(0, 65000, vec![peer(1, 65009)]), node(1, 65001, vec![peer(0, 65000)])]);
    world.run(secs(120));
    assert!(!world.up(0, 1));
    let failures: Vec<String> = world.nodes[0]
        .events
        .iter()
        .filter_map(|e| match e {
            Event::Failed { reason, .. } => Some(reason.to_string()),
            _ => None,
        })
        .collect();
    assert!(failures.iter().any(|f| f.contains("Bad Peer AS")), "{failures:?}");
    assert!(failures.len() < 40, "{}", failures.len());
}

#[test]
fn a_peer_that_reads_nothing_is_let_go() {
    let mut one =
        node(0, 65000, vec![PeerConfig { send_hold: Some(secs(20)), hold_time: 0, ..peer(1, 65001) }]);
    let mut world =
        World::of(vec![one.clone(), node(1, 65001, vec![PeerConfig { hold_time: 0, ..peer(0, 65000) }])]);
    world.until(secs(1), "session", |w| w.up(0, 1));
    world.run(secs(1));
    world.nodes[1].deaf = true;
    one.originated.push(blackhole("10.66.0.0/16"));
    world.configure(0, one.clone());
    world.run(secs(1));
    one.originated.push(blackhole("10.67.0.0/16"));
    world.configure(0, one);
    world.run(secs(18));
    assert!(world.up(0, 1));
    world.run(secs(3));
    assert!(!world.up(0, 1), "RFC 9687");
}

#[test]
fn both_families_run_on_one_session_and_one_family_on_each() {
    let both = Families { ipv4: true, ipv6: true };
    let dual = |n: usize, p: PeerConfig| {
        let mut c = node(
            n,
            64512,
            vec![PeerConfig {
                families: both,
                next_hop_v6: Some(format!("fd20::{}", n + 1).parse().unwrap()),
                ..p
            }],
        );
        c.originated.push(blackhole(&format!("fd65:{n}::/64")));
        c
    };
    let mut world = World::of(vec![dual(0, peer(1, 64512)), dual(1, peer(0, 64512))]);
    world.run(secs(2));
    assert_eq!(world.heard_prefixes(0, 1), ["10.65.1.0/26", "fd65:1::/64"]);
    let v6 = world.heard(0, 1).into_iter().find(|r| r.prefix == net("fd65:1::/64")).unwrap();
    assert_eq!(v6.next_hop, Some("fd20::2".parse().unwrap()));
}

#[test]
fn an_operator_may_reset_a_session() {
    let mut world = pair();
    world.until(secs(1), "session", |w| w.up(0, 1));
    world.handle(0, Input::Command(Command::Reset { peer: "n1".into() }));
    world.run(millis(5));
    assert!(!world.up(0, 1));
    world.until(secs(3), "session again", |w| w.up(0, 1) && w.up(1, 0));
    world.run(secs(1));
    assert_eq!(world.heard_prefixes(1, 0), ["10.65.0.0/26"]);
}

#[test]
fn strangers_are_refused_and_ranges_welcome_them() {
    let mut world = World::of(vec![node(0, 65000, vec![]), node(1, 65001, vec![peer(0, 65000)])]);
    world.run(secs(5));
    assert!(!world.up(1, 0));
    assert!(world.nodes[0].events.iter().any(|e| matches!(e, Event::Refused { .. })));
    let mut open = node(0, 65000, vec![]);
    open.listen_ranges.push(bird_speaker::config::ListenRange {
        range: net("10.20.0.0/24"),
        template: PeerConfig { name: "dynamic".into(), remote_as: 65001, ..PeerConfig::default() },
        limit: 4,
    });
    world.configure(0, open);
    world.until(secs(6), "session", |w| w.up(1, 0));
    world.run(millis(100));
    assert_eq!(world.heard_prefixes(1, 0), ["10.65.0.0/26"]);
    world.kill(1);
    world.run(secs(200));
    assert!(world.nodes[0].speaker.as_ref().unwrap().peer_views().is_empty(), "it goes with its session");
}

/// The shell finds out later where the peer is, and perhaps that it moved.
#[test]
fn a_peer_without_an_address_waits_for_one_and_nobody_else_notices() {
    let nowhere = |number| PeerConfig {
        address: std::net::Ipv4Addr::UNSPECIFIED.into(),
        remote_as: 0,
        remote_external: true,
        ..peer(number, 0)
    };
    let with = |first: PeerConfig| node(0, 65000, vec![first, peer(2, 65002)]);
    let mut world = World::of(vec![
        with(nowhere(1)),
        node(1, 65001, vec![peer(0, 65000)]),
        node(2, 65002, vec![peer(0, 65000)]),
    ]);
    world.until(secs(6), "the other session", |w| w.up(0, 2));
    world.run(secs(10));
    assert_eq!(world.state(0, 1), State::Active);
    world.configure(0, with(PeerConfig { remote_as: 0, remote_external: true, ..peer(1, 0) }));
    world.until(secs(6), "session", |w| w.up(0, 1));
    world.configure(0, with(nowhere(1)));
    world.run(millis(100));
    assert!(!world.up(0, 1) && world.up(0, 2));
    assert!(!world.nodes[0].events.iter().any(|e| matches!(e, Event::Down { peer, .. } if &**peer == "n2")));
}

#[test]
fn what_bfd_or_the_link_says_counts_at_once() {
    for (why, kept) in [(Witness::Bfd, 0), (Witness::BfdOfControlPlane, 1), (Witness::Link, 0)] {
        let mut world = pair();
        world.run(secs(2));
        world.cut.push((0, 1));
        world.handle(0, Input::Command(Command::Unreachable { peer: "n1".into(), why }));
        assert!(!world.up(0, 1));
        world.run(millis(1));
        assert_eq!(world.heard(0, 1).len(), kept, "{why:?}");
        world.cut.clear();
        world.until(secs(6), "session again", |w| w.up(0, 1) && w.up(1, 0));
    }
}

/// RFC 5882 §4.3.1: a failure of forwarding ends a graceful restart that is under way; one that the restart itself may
/// explain does not.
#[test]
fn bfd_ends_the_wait_for_a_peer_only_if_it_sees_forwarding() {
    for (why, kept) in [(Witness::BfdOfControlPlane, 1), (Witness::Bfd, 0)] {
        let mut world = pair();
        world.until(secs(3), "routes", |w| w.heard(0, 1).len() == 1);
        world.kill(1);
        world.run(millis(100));
        assert_eq!(world.heard(0, 1).len(), 1, "kept over the restart");
        world.handle(0, Input::Command(Command::Unreachable { peer: "n1".into(), why }));
        world.run(millis(100));
        assert_eq!(world.heard(0, 1).len(), kept, "{why:?}");
    }
}

/// What the shell watches, from where, and what it must know to judge a failure.
#[test]
fn watched_peers_follow_their_sessions() {
    use bird_speaker::watch::RestartStanding;
    let bfd = Some(bird_speaker::config::Bfd {
        min_tx: millis(300),
        min_rx: millis(300),
        multiplier: 3,
        multihop: false,
        keep_routes: false,
        strict: false,
    });
    let watching = |enabled| node(0, 65000, vec![PeerConfig { bfd, enabled, ..peer(1, 65001) }]);
    let mut world = World::of(vec![watching(true), node(1, 65001, vec![peer(0, 65000)])]);
    let seen = |world: &World| {
        let speaker = world.nodes[0].speaker.as_ref().unwrap();
        let all: Vec<_> =
            speaker.watched(world.now).map(|w| (w.local, w.up_for.is_some(), w.restart)).collect();
        all
    };
    let here = Some(world.nodes[0].address);
    world.until(secs(3), "session", |w| w.up(0, 1));
    assert_eq!(seen(&world), [(here, true, RestartStanding::Agreed)]);
    world.run(secs(2));
    world.kill(1);
    world.run(millis(100));
    assert_eq!(seen(&world), [(None, false, RestartStanding::UnderWay)]);
    // A change of BFD alone leaves the session alone.
    let mut world = pair();
    world.until(secs(3), "session", |w| w.up(0, 1));
    assert!(seen(&world).is_empty());
    assert!(world.configure(0, watching(true)).reset.is_empty());
    assert!(world.up(0, 1) && seen(&world).len() == 1);
    world.configure(0, watching(false));
    assert!(seen(&world).is_empty(), "nobody watches a peer that is switched off");
}

/// RFC 8950: an unnumbered link. IPv4 routes have the peer's link-local address as next hop, on the link of the session.
#[test]
fn ipv4_routes_go_over_an_ipv6_link() {
    let link_local = |n: usize| format!("fe80::{}", n + 1);
    let unnumbered = |n: usize, other: usize, asn: u32| {
        node(
            n,
            65000 + u32::try_from(n).unwrap(),
            vec![PeerConfig {
                address: link_local(other).parse().unwrap(),
                interface: Some("uplink0".into()),
                extended_next_hop: true,
                ..peer(other, asn)
            }],
        )
    };
    let mut world = World::new();
    for n in 0..2 {
        world.add_absent();
        world.nodes[n].address = link_local(n).parse().unwrap();
    }
    world.start(0, unnumbered(0, 1, 65001), bird_speaker::Start::default());
    world.start(1, unnumbered(1, 0, 65000), bird_speaker::Start::default());
    world.run(secs(2));
    let heard = world.heard(0, 1);
    assert_eq!(heard[0].next_hop, Some(link_local(1).parse().unwrap()));
    let route = &world.nodes[0].fib[&net("10.65.1.0/26")];
    let bird_speaker::io::FibTarget::Hops(hops) = &route.target else { panic!("{route:?}") };
    assert_eq!((hops[0].via.to_string().as_str(), hops[0].device.as_deref()), ("fe80::2", Some("uplink0")));
}

/// RFC 4271, DelayOpen: the other side's OPEN may come first.
#[test]
fn an_open_may_wait_for_the_peers() {
    let delayed = |p: PeerConfig, delay| PeerConfig { delay_open: Some(delay), ..p };
    // Both wait: the timer ends it. One waits: it answers at once.
    for (other, earliest, latest) in [(Some(secs(2)), secs(2), secs(3)), (None, millis(0), millis(500))] {
        for passive in [false, true] {
            let far = match other {
                Some(delay) => delayed(peer(0, 65000), delay),
                None => peer(0, 65000),
            };
            let mut world = World::of(vec![
                node(0, 65000, vec![PeerConfig { passive, ..delayed(peer(1, 65001), secs(2)) }]),
                node(1, 65001, vec![far]),
            ]);
            let took = world.until(secs(5), "session", |w| w.up(0, 1) && w.up(1, 0));
            assert!((earliest..latest).contains(&took), "{other:?} {passive}: {took:?}");
            world.run(secs(1));
            assert_eq!(world.heard_prefixes(0, 1), ["10.65.1.0/26"]);
        }
    }
}

fn failures(world: &World, n: usize, name: &str) -> Vec<String> {
    let of = |e: &Event| match e {
        Event::Failed { peer, reason } if **peer == *name => Some(reason.to_string()),
        _ => None,
    };
    world.nodes[n].events.iter().filter_map(of).collect()
}

/// The mesh has n1 with the right AS, and a BGPPeer has its address with another.
#[test]
fn of_two_peers_for_one_address_the_fitting_one_has_the_session_and_the_other_says_why() {
    for (right_first, passive, latency) in [
        (true, false, 1),
        (true, true, 1),
        (false, false, 1),
        (false, true, 1),
        (false, false, 30),
        (true, false, 0),
    ] {
        let mesh = PeerConfig { passive, ..peer(1, 65001) };
        let wrong = PeerConfig { name: "wrong".into(), ..peer(1, 65009) };
        let peers = if right_first { vec![mesh, wrong] } else { vec![wrong, mesh] };
        let mut world = World::of(vec![node(0, 65000, peers), node(1, 65001, vec![peer(0, 65000)])]);
        world.latency = millis(latency);
        let case = format!("right first {right_first}, passive {passive}, latency {latency}");
        world.until(secs(8), &case, |w| w.up(0, 1) && w.up(1, 0));
        world.run(secs(600));
        assert!(world.up(0, 1) && world.up(1, 0), "{case}");
        assert_eq!(world.heard_prefixes(1, 0), ["10.65.0.0/26"]);
        let said = failures(&world, 0, "wrong");
        assert_eq!(said.len(), 1, "{case}: {said:?}");
        assert!(
            said[0].starts_with("two peers are configured for the address 10.20.0.2: n1 has"),
            "{said:?}"
        );
        for n in [0, 1] {
            let sessions = world.nodes[n].events.iter().filter(|e| matches!(e, Event::Up { .. })).count();
            let losses = world.nodes[n].events.iter().filter(|e| matches!(e, Event::Down { .. })).count();
            assert_eq!((sessions, losses), (1, 0), "{case}: {:?}", world.nodes[n].events);
        }
        assert!(failures(&world, 1, "n0").len() <= 1, "{case}: {:?}", failures(&world, 1, "n0"));
        // It is the same after the session was lost.
        world.handle(1, Input::Command(Command::Reset { peer: "n0".into() }));
        world.run(millis(100));
        world.until(secs(10), &case, |w| w.up(0, 1) && w.up(1, 0));
        world.run(secs(60));
        assert!(
            world.up(0, 1) && failures(&world, 0, "wrong").len() <= 3,
            "{case}: {:?}",
            failures(&world, 0, "wrong")
        );
    }
}

#[test]
fn the_rival_that_is_left_has_the_session() {
    let one = node(0, 65000, vec![peer(1, 65001), PeerConfig { name: "twin".into(), ..peer(1, 65001) }]);
    let mut world = World::of(vec![one.clone(), node(1, 65001, vec![peer(0, 65000)])]);
    world.until(secs(3), "session", |w| w.up(0, 1) && w.up(1, 0));
    world.run(secs(30));
    assert_eq!(failures(&world, 0, "twin").len(), 1);
    world.configure(0, Config { peers: one.peers[1..].to_vec(), ..one });
    let twin = |w: &World| {
        w.nodes[0].speaker.as_ref().unwrap().peer_state("twin") == Some(State::Established) && w.up(1, 0)
    };
    world.until(secs(10), "the other's session", twin);
    world.run(secs(1));
    assert_eq!(world.heard_prefixes(1, 0), ["10.65.0.0/26"]);
}

/// Two routers with one link-local address, as unnumbered uplinks often have: the interface tells who calls.
#[test]
fn one_link_local_address_on_two_links_is_two_peers() {
    use harness::wire::{Wire, open, passive, router};
    let uplink = |name: &str| PeerConfig {
        name: name.into(),
        address: "fe80::1".parse().unwrap(),
        interface: Some(name.into()),
        ..passive(1)
    };
    let mut wire = Wire::new(router(vec![uplink("eth0"), uplink("eth1")]));
    let from = "[fe80::1]:50000".parse().unwrap();
    let to = "[fe80::2]:179".parse().unwrap();
    for link in ["eth1", "eth0", "eth1"] {
        let conn = wire.speaker.accept_on(wire.now, from, to, Some(link.into())).unwrap();
        let mut bytes = Vec::new();
        open(1).encode(&mut bytes);
        bytes.extend(harness::wire::keepalive());
        wire.feed(conn, &bytes);
        assert_eq!(wire.speaker.peer_state(link), Some(State::Established), "{link}");
    }
    assert_eq!(wire.speaker.peer_state("eth0"), Some(State::Established));
    let other = wire.speaker.accept_on(wire.now, from, to, Some("eth2".into()));
    assert_eq!(other, Err("it called by another interface than this session's"));
}
