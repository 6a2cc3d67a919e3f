//! Sessions that wait for BFD (draft-ietf-idr-bgp-bfd-strict-mode). The shell says how BFD stands; here the test does.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod harness;

use bird_speaker::config::{Bfd, Config, PeerConfig};
use bird_speaker::fsm::State;
use bird_speaker::io::{Command, DownReason, Event, Witness};
use bird_speaker::{Input, Time};
use harness::{World, millis, node, peer, secs};

fn bfd(strict: bool) -> Bfd {
    let time = millis(300);
    Bfd { min_tx: time, min_rx: time, multiplier: 3, multihop: false, keep_routes: false, strict }
}

/// Node `n` with the other of the two as its peer.
fn end(n: usize, tune: impl Fn(PeerConfig) -> PeerConfig) -> Config {
    let other = 1 - n;
    let as_of = |n: usize| 65000 + u32::try_from(n).unwrap();
    node(n, as_of(n), vec![tune(peer(other, as_of(other)))])
}

fn strict(p: PeerConfig) -> PeerConfig {
    PeerConfig { bfd: Some(bfd(true)), hold_time: 90, ..p }
}

fn tell(world: &mut World, n: usize, up: bool) {
    let command = Command::Bfd { peer: format!("n{}", 1 - n), up };
    world.handle(n, Input::Command(command));
}

fn waits(world: &World, n: usize) -> bool {
    let views = world.nodes[n].speaker.as_ref().unwrap().peer_views();
    views[0].waits_for_bfd
}

/// What node `n` sent or got that ended an attempt or a session: code, subcode.
fn endings(world: &World, n: usize) -> Vec<(bool, u8, u8)> {
    let told = world.nodes[n].events.iter().filter_map(|event| match event {
        Event::Down { reason, .. } | Event::Failed { reason, .. } => Some(reason),
        _ => None,
    });
    told.filter_map(|reason| {
        reason.notice().map(|n| (matches!(reason, DownReason::Sent(_)), n.code, n.subcode))
    })
    .filter(|(_, code, subcode)| (*code, *subcode) != (6, 7)) // both call, one call stays
    .collect()
}

#[test]
fn two_that_wait_have_a_session_when_bfd_is_up_at_both() {
    let mut world = World::of(vec![end(0, strict), end(1, strict)]);
    world.run(secs(60));
    for n in 0..2 {
        assert_eq!(world.state(n, 1 - n), State::OpenSent, "the draft's sub-state belongs to OpenSent");
        assert!(waits(&world, n));
        assert_eq!(endings(&world, n), []);
    }
    let watched = world.speaker(0).watched(secs(61)).next().map(|w| w.local);
    assert_eq!(
        watched,
        Some(Some(harness::address(0))),
        "BFD needs to know our end before there is a session"
    );

    tell(&mut world, 0, true);
    world.run(secs(1));
    assert_eq!((world.state(0, 1), world.state(1, 0)), (State::OpenConfirm, State::OpenSent));
    assert!(!waits(&world, 0) && waits(&world, 1));
    tell(&mut world, 1, true);
    world.run(secs(1));
    assert!(world.up(0, 1) && world.up(1, 0) && !waits(&world, 1));
    assert_eq!(world.heard(0, 1).len(), 1);
    let capability = |world: &mut World| {
        let views = world.speaker(0).peer_views();
        views[0].capabilities.contains(&74)
    };
    assert!(capability(&mut world), "the peer says so");

    // Down: as without strict mode. The next session waits again.
    for n in 0..2 {
        let peer = format!("n{}", 1 - n);
        world.handle(n, Input::Command(Command::Unreachable { peer, why: Witness::Bfd }));
        tell(&mut world, n, false);
    }
    world.run(secs(60));
    assert!(!world.up(0, 1) && waits(&world, 0) && world.heard(0, 1).is_empty());
    tell(&mut world, 1, true);
    tell(&mut world, 0, true);
    world.run(secs(1));
    assert!(world.up(0, 1) && world.up(1, 0));
}

#[test]
fn a_peer_that_does_not_wait_is_kept_waiting() {
    let lax = |p: PeerConfig| PeerConfig { hold_time: 9, ..p };
    let mut world = World::of(vec![end(0, strict), end(1, lax)]);
    world.run(secs(8));
    assert_eq!((world.state(0, 1), world.state(1, 0)), (State::OpenSent, State::OpenConfirm));
    // It hears nothing for the hold time and lets go; then both begin anew.
    world.run(secs(300));
    assert!(endings(&world, 1).contains(&(true, 4, 0)), "{:?}", endings(&world, 1));
    assert!(endings(&world, 0).contains(&(false, 4, 0)), "{:?}", endings(&world, 0));
    assert!(world.nodes.iter().all(|n| !n.events.iter().any(|e| matches!(e, Event::Up { .. }))));
    assert!(waits(&world, 0), "also in the pause after the error");
    tell(&mut world, 0, true);
    world.until(secs(60), "session", |w| w.up(0, 1) && w.up(1, 0));
}

#[test]
fn without_a_hold_time_the_wait_is_half_a_minute() {
    let endless = |p| PeerConfig { hold_time: 0, ..strict(p) };
    let mut world = World::of(vec![end(0, endless), end(1, endless)]);
    world.run(secs(29));
    assert_eq!((endings(&world, 0), endings(&world, 1)), (vec![], vec![]));
    world.run(secs(3));
    let mut both = [endings(&world, 0), endings(&world, 1)].concat();
    both.dedup();
    assert!(both.iter().all(|(_, code, subcode)| (*code, *subcode) == (6, 10)), "{both:?}");
    assert!(!both.is_empty());
    tell(&mut world, 0, true);
    tell(&mut world, 1, true);
    world.until(secs(60), "session", |w| w.up(0, 1) && w.up(1, 0));
    world.run(secs(120));
    assert!(world.up(0, 1), "the wait has no part in a session that is up");
}

#[test]
fn the_hold_time_bounds_the_wait() {
    let mut world = World::of(vec![end(0, strict), end(1, strict)]);
    world.run(secs(95));
    let both = [endings(&world, 0), endings(&world, 1)].concat();
    assert!(!both.is_empty() && both.iter().all(|(_, c, s)| (*c, *s) == (6, 10)), "{both:?}");
}

#[test]
fn bfd_that_goes_down_before_the_session_is_up_ends_the_attempt() {
    let mut world = World::of(vec![end(0, strict), end(1, strict)]);
    world.run(secs(5));
    tell(&mut world, 0, true);
    world.run(secs(1));
    assert_eq!(world.state(0, 1), State::OpenConfirm);
    tell(&mut world, 0, false);
    world.run(millis(100));
    assert_eq!(endings(&world, 0), [(true, 6, 10)]);
    assert_eq!(endings(&world, 1), [(false, 6, 10)]);
    tell(&mut world, 1, true);
    tell(&mut world, 0, true);
    world.until(secs(60), "session", |w| w.up(0, 1) && w.up(1, 0));
}

#[test]
fn a_change_of_the_setting_is_followed() {
    let changed = |limit: Time, tune: fn(PeerConfig) -> PeerConfig| {
        let mut world = World::of(vec![end(0, strict), end(1, |p| PeerConfig { hold_time: 90, ..p })]);
        world.run(secs(5));
        assert_eq!(world.state(0, 1), State::OpenSent);
        assert!(world.configure(0, end(0, tune)).reset.is_empty());
        world.until(limit, "session", |w| w.up(0, 1) && w.up(1, 0));
        world
    };
    // Without BFD nothing is waited for; where BFD stays, both begin anew.
    changed(millis(100), |p| PeerConfig { hold_time: 90, ..p });
    let mut world = changed(secs(10), |p| PeerConfig { hold_time: 90, bfd: Some(bfd(false)), ..p });
    assert_eq!(endings(&world, 0), [(true, 6, 6)]);
    // A session that is up does not mind.
    assert!(world.configure(0, end(0, strict)).reset.is_empty());
    world.run(secs(200));
    assert!(world.up(0, 1) && world.up(1, 0));
}
