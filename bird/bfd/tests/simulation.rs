//! Two engines and the link between them on a clock of their own: hours in a moment.
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(clippy::unchecked_time_subtraction, reason = "a test; it panics like any other failed assertion")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bird_bfd::{
    Arrival, Cause, Change, Down, Engine, Hops, Input, LEN, Output, Params, SessionKey, State, Status, Time,
};

const ADDRESSES: [[u8; 4]; 2] = [[192, 0, 2, 1], [192, 0, 2, 2]];
const HOUR: Duration = Duration::from_hours(1);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn params(millis: u64, multiplier: u8) -> Params {
    Params { min_tx: ms(millis), min_rx: ms(millis), multiplier, damping: None, ..Params::default() }
}

fn key(side: usize) -> SessionKey {
    let [peer, local] = [ADDRESSES[1 - side], ADDRESSES[side]].map(IpAddr::from);
    SessionKey { peer, local: Some(local), interface: None, hops: Hops::Single }
}

/// What the link does to a packet towards one side.
#[derive(Clone, Copy, Default)]
struct Link {
    /// Packets lost of a thousand.
    lost: u64,
    /// Packets that arrive twice, of a thousand.
    doubled: u64,
    /// Longest time on the way, drawn for each packet.
    slowest: Duration,
    /// Packets overtake each other.
    overtaking: bool,
}

struct World {
    now: Time,
    engines: [Engine; 2],
    /// By time of arrival, then in order of sending: (receiver, bytes).
    flying: BTreeMap<(Time, u64), (usize, [u8; LEN])>,
    serial: u64,
    links: [Link; 2],
    /// Latest arrival so far on each.
    arrived: [Time; 2],
    events: Vec<(Time, usize, Change)>,
    dice: u64,
    seed: u64,
}

impl World {
    fn new(seed: u64, link: Link) -> Self {
        Self {
            now: ms(500),
            engines: [Engine::new(seed), Engine::new(seed + 1_000)],
            flying: BTreeMap::new(),
            serial: 0,
            links: [link; 2],
            arrived: [Time::ZERO; 2],
            events: Vec::new(),
            dice: seed * 2 + 1,
            seed,
        }
    }

    /// Both sides up.
    fn up(seed: u64, link: Link, params: [Params; 2]) -> Self {
        let mut world = Self::new(seed, link);
        for (side, params) in params.into_iter().enumerate() {
            world.set(side, params);
        }
        let start = world.now;
        while !(0..2).all(|side| world.status(side).state == State::Up) {
            world.pass(ms(100));
            assert!(world.now < start + ms(60_000), "seed {seed}: not up in a minute");
        }
        world
    }

    fn roll(&mut self, sides: u64) -> u64 {
        // Xorshift: plenty for losing packets.
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % sides
    }

    fn set(&mut self, side: usize, params: Params) {
        self.engines[side].set(self.now, key(side), params).unwrap();
        self.flush(side);
    }

    fn status(&self, side: usize) -> Status {
        self.engines[side].status(self.now)[0]
    }

    fn flush(&mut self, side: usize) {
        while let Some(output) = self.engines[side].poll() {
            match output {
                Output::Send { bytes, .. } => {
                    let (to, link) = (1 - side, self.links[1 - side]);
                    let copies = if self.roll(1_000) < link.doubled { 2 } else { 1 };
                    for _ in 0..copies {
                        if self.roll(1_000) >= link.lost {
                            let micros = u64::try_from(link.slowest.as_micros()).unwrap();
                            let mut at = self.now + Duration::from_micros(self.roll(micros + 1));
                            if !link.overtaking {
                                at = at.max(self.arrived[to]);
                                self.arrived[to] = at;
                            }
                            self.serial += 1;
                            self.flying.insert((at, self.serial), (to, bytes));
                        }
                    }
                }
                Output::Event(event) => {
                    assert_eq!(event.key, key(side));
                    self.events.push((self.now, side, event.change));
                }
                Output::Gone { .. } => {}
            }
        }
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let packet = self.flying.keys().next().map(|(at, _)| *at);
            let timers = [0, 1].map(|side| self.engines[side].next_timeout());
            let next = timers.into_iter().flatten().chain(packet).min();
            let Some(next) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(next);
            // What has arrived is read before the clock is looked at, as the thread does it.
            while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (to, bytes) = entry.remove();
                let arrival = Arrival {
                    source: ADDRESSES[1 - to].into(),
                    destination: Some(ADDRESSES[to].into()),
                    interface: Some(2),
                    ttl: Some(255),
                    hops: Hops::Single,
                    bytes: &bytes,
                };
                self.engines[to].handle(self.now, Input::Packet(arrival));
                self.flush(to);
            }
            for side in [0, 1] {
                self.engines[side].handle(self.now, Input::Tick);
                self.flush(side);
            }
        }
        self.now = end;
    }

    /// Lets everything settle, and forgets what happened before.
    fn settle(&mut self) {
        self.pass(ms(10_000));
        self.events.clear();
    }

    fn failures(&self) -> usize {
        self.events.iter().filter(|(_, _, change)| matches!(change, Change::Down(_))).count()
    }
}

fn down(change: Change) -> Cause {
    match change {
        Change::Down(Down { cause, .. }) => cause,
        Change::Up => panic!("up"),
    }
}

#[test]
fn comes_up_at_once_and_agrees_on_timers() {
    for seed in 1..50 {
        let mut world = World::new(seed, Link { slowest: ms(2), ..Link::default() });
        world.set(0, params(300, 3));
        world.set(1, Params { min_tx: ms(100), min_rx: ms(500), multiplier: 5, ..params(0, 1) });
        world.pass(ms(1_100));
        let up: Vec<usize> = world.events.iter().map(|(_, side, _)| *side).collect();
        assert_eq!(up.len(), 2, "seed {seed}: {:?}", world.events);
        world.pass(ms(3_000));
        let [a, b] = [0, 1].map(|side| world.status(side));
        assert_eq!((a.tx_interval, a.detection_time), (Some(ms(500)), Some(ms(1_500))), "seed {seed}");
        assert_eq!((b.tx_interval, b.detection_time), (Some(ms(300)), Some(ms(1_500))), "seed {seed}");
    }
}

#[test]
fn a_dead_link_is_noticed_in_the_negotiated_time() {
    for (n, [left, right]) in [
        [params(300, 3), params(300, 3)],
        [params(50, 3), params(1_000, 3)],
        [params(10, 10), params(10, 2)],
        [params(2_000, 1), params(700, 4)],
    ]
    .into_iter()
    .enumerate()
    {
        for seed in 1..30 {
            let mut world = World::up(seed, Link { slowest: ms(1), ..Link::default() }, [left, right]);
            world.settle();
            let cut = world.now;
            let expected = [0, 1].map(|side| {
                let interval = world.status(1 - side).tx_interval.unwrap();
                let detection = world.status(side).detection_time.unwrap();
                (cut + detection - interval, cut + detection + ms(1))
            });
            world.links = [Link { lost: 1_000, ..Link::default() }; 2];
            world.pass(ms(10_000));
            assert_eq!(world.events.len(), 2, "case {n} seed {seed}");
            for &(at, side, change) in &world.events {
                let (from, to) = expected[side];
                assert!(
                    (from..=to).contains(&at),
                    "case {n} seed {seed} side {side}: {at:?} {from:?} {to:?}"
                );
                assert_eq!(down(change), Cause::DetectionTimeExpired);
            }
        }
    }
}

#[test]
fn a_link_dead_one_way_takes_both_ends_down() {
    let mut world = World::up(1, Link { slowest: ms(2), ..Link::default() }, [params(300, 3); 2]);
    world.settle();
    world.links[1].lost = 1_000;
    world.pass(ms(2_000));
    let [(first, 1, noticed), (second, 0, told)] = world.events[..] else { panic!("{:?}", world.events) };
    assert_eq!((down(noticed), down(told)), (Cause::DetectionTimeExpired, Cause::NeighborSignaled));
    assert!(second - first <= ms(2), "told at once");
    // It stays down however long the deaf end is heard, and comes back with the link.
    world.pass(ms(60_000));
    assert_eq!(world.events.len(), 2);
    world.links[1].lost = 0;
    world.pass(ms(2_500));
    assert!([0, 1].iter().all(|side| world.status(*side).state == State::Up));
}

#[test]
fn an_end_that_starts_anew_is_up_again_within_two_seconds() {
    for seed in 1..50 {
        let mut world = World::up(seed, Link { slowest: ms(2), ..Link::default() }, [params(300, 3); 2]);
        world.settle();
        world.engines[1] = Engine::new(world.seed + 5_000);
        let restart = world.now;
        world.set(1, params(300, 3));
        world.pass(ms(2_000));
        let [(told, 0, change), ..] = world.events[..] else { panic!("{:?}", world.events) };
        assert_eq!(down(change), Cause::NeighborSignaled);
        assert!(told - restart <= ms(2), "seed {seed}");
        assert!([0, 1].iter().all(|side| world.status(*side).state == State::Up), "seed {seed}");
    }
}

/// B25: what a multiplier is worth. The same 900 ms, lost packets, one hour.
#[test]
fn b25_five_per_cent_loss_for_an_hour() {
    let link = Link { lost: 50, slowest: ms(5), ..Link::default() };
    let hour = |seed: u64, params: Params| {
        let mut world = World::up(seed, link, [params; 2]);
        world.events.clear();
        world.pass(HOUR);
        world.failures()
    };
    assert_eq!((1..4).map(|seed| hour(seed, params(300, 5))).sum::<usize>(), 0);
    assert_eq!((1..4).map(|seed| hour(seed, params(150, 6))).sum::<usize>(), 0);
    // Three in a row are lost more than once an hour: it is the loss that is simulated, not luck.
    let (hours, failures) = (10, (1..11).map(|seed| hour(seed, params(300, 3))).sum::<usize>());
    assert!((hours..hours * 10).contains(&failures), "{failures}");
}

#[test]
fn b25_thirty_per_cent_loss_with_a_multiplier_for_it() {
    let link = Link { lost: 300, slowest: ms(5), ..Link::default() };
    let mut world = World::up(3, link, [params(100, 16); 2]);
    world.pass(ms(10_000));
    for side in [0, 1] {
        assert_eq!(world.status(side).detection_time, Some(ms(1_600)), "the poll sequence got through");
    }
    world.events.clear();
    world.pass(HOUR);
    assert_eq!(world.failures(), 0);
}

#[test]
fn b25_reordered_and_doubled_packets_do_no_harm() {
    // On the way for up to three intervals: most packets overtake others.
    let link = Link { lost: 0, doubled: 200, slowest: ms(300), overtaking: true };
    let mut world = World::up(5, link, [params(100, 8); 2]);
    world.settle();
    world.pass(HOUR);
    assert_eq!(world.failures(), 0);
    assert_eq!(world.status(0).detection_time, Some(ms(800)));
}

/// Parameters change at random moments at both ends, polls cross each other: nobody may lose patience.
#[test]
fn changes_of_timers_never_take_a_session_down() {
    for seed in 1..40 {
        let link = Link { slowest: ms(8), ..Link::default() };
        let mut world = World::up(seed, link, [params(300, 3); 2]);
        let mut last = [params(300, 3); 2];
        for _ in 0..200 {
            let side = usize::from(world.roll(2) == 1);
            let pick = |world: &mut World| {
                ms([20, 50, 100, 300, 1_000, 3_000][usize::try_from(world.roll(6)).unwrap()])
            };
            // Multipliers are not negotiated: a smaller one with the same interval may come as a surprise.
            last[side] = Params { min_tx: pick(&mut world), min_rx: pick(&mut world), ..last[side] };
            world.set(side, last[side]);
            let pause = world.roll(4_000);
            world.pass(ms(pause));
        }
        assert_eq!(world.failures(), 0, "seed {seed}");
        world.pass(ms(20_000));
        for side in [0, 1] {
            let (ours, theirs) = (last[side], last[1 - side]);
            let status = world.status(side);
            assert_eq!(status.tx_interval, Some(ours.min_tx.max(theirs.min_rx)), "seed {seed}");
            assert_eq!(status.detection_time, Some(3 * ours.min_rx.max(theirs.min_tx)), "seed {seed}");
        }
    }
}

#[test]
fn a_thousand_sessions_for_a_minute() {
    let mut engine = Engine::new(9);
    let count = 1_000_u32;
    for n in 0..count {
        let peer = IpAddr::from((0x0a00_0000 + n).to_be_bytes());
        let key = SessionKey { peer, local: None, interface: None, hops: Hops::Multi };
        engine.set(ms(0), key, params(300, 3)).unwrap();
    }
    let mut sent = 0_u32;
    let mut now = ms(0);
    while now < ms(60_000) {
        now = engine.next_timeout().unwrap();
        engine.handle(now, Input::Tick);
        while engine.poll().is_some() {
            sent += 1;
        }
    }
    // One packet a second each, jittered, and one at the start.
    assert!((count * 61..count * 80).contains(&sent), "{sent}");
}
