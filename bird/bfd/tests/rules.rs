//! One session against a peer that is written down packet by packet: RFC 5880 §6.5 to §6.8, RFC 5881 §5.

#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(clippy::unchecked_time_subtraction, reason = "a test; it panics like any other failed assertion")]

use std::net::IpAddr;
use std::time::Duration;

use bird_bfd::{
    Arrival, Cause, Change, ControlPacket, Damping, Diag, Discard, Down, Engine, Event, Hops, Input, Output,
    Params, SessionKey, State, Status, Time,
};

const PEER: &str = "192.0.2.2";
const PEER_DISCRIMINATOR: u32 = 77;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn key() -> SessionKey {
    SessionKey {
        peer: PEER.parse().unwrap(),
        local: Some("192.0.2.1".parse().unwrap()),
        interface: Some(3),
        hops: Hops::Single,
    }
}

fn plain() -> Params {
    Params { damping: None, ..Params::default() }
}

/// An engine with one session, its clock, and what it put out.
struct Bench {
    engine: Engine,
    now: Time,
    events: Vec<Change>,
    silent_for: Option<Duration>,
    gone: bool,
}

impl Bench {
    fn new(params: Params) -> (Self, Vec<ControlPacket>) {
        let mut bench = Self {
            engine: Engine::new(7),
            now: ms(1_000),
            events: Vec::new(),
            silent_for: None,
            gone: false,
        };
        let first = bench.set(params);
        (bench, first)
    }

    /// Up, with our poll sequence answered, and nothing left to read.
    fn up(params: Params) -> Self {
        let (mut bench, _) = Self::new(params);
        bench.receive(bench.packet(State::Down));
        let sent = bench.receive(bench.packet(State::Up));
        assert_eq!(sent.last().unwrap().state, State::Up);
        bench.receive(ControlPacket { final_: true, ..bench.packet(State::Up) });
        assert_eq!(bench.events, [Change::Up]);
        bench.events.clear();
        bench
    }

    /// A packet of the peer with 300 ms x 3.
    fn packet(&self, state: State) -> ControlPacket {
        ControlPacket {
            diag: Diag::NONE,
            state,
            poll: false,
            final_: false,
            control_plane_independent: false,
            demand: false,
            multiplier: 3,
            my_discriminator: PEER_DISCRIMINATOR,
            your_discriminator: self.status().discriminator,
            desired_min_tx: 300_000,
            required_min_rx: 300_000,
            required_min_echo_rx: 0,
        }
    }

    fn status(&self) -> Status {
        self.engine.status(self.now)[0]
    }

    fn drain(&mut self) -> Vec<ControlPacket> {
        let mut sent = Vec::new();
        while let Some(output) = self.engine.poll() {
            match output {
                Output::Send { session, key: to, bytes } => {
                    assert_eq!(to, key());
                    let packet = ControlPacket::decode(&bytes).unwrap();
                    assert_eq!(packet.my_discriminator, session);
                    sent.push(packet);
                }
                Output::Event(Event { key: of, change }) => {
                    assert_eq!(of, key());
                    // How long is a matter of its own test.
                    self.events.push(match change {
                        Change::Down(down) => {
                            self.silent_for = Some(down.silent_for);
                            Change::Down(Down { silent_for: Duration::ZERO, ..down })
                        }
                        Change::Up => Change::Up,
                    });
                }
                Output::Gone { .. } => self.gone = true,
            }
        }
        sent
    }

    fn set(&mut self, params: Params) -> Vec<ControlPacket> {
        self.engine.set(self.now, key(), params).unwrap();
        self.drain()
    }

    fn arrive(&mut self, packet: ControlPacket, change: impl FnOnce(&mut Arrival)) -> Result<(), Discard> {
        let bytes = packet.encode();
        let mut arrival = Arrival {
            source: PEER.parse().unwrap(),
            destination: Some("192.0.2.1".parse().unwrap()),
            interface: Some(3),
            ttl: Some(255),
            hops: Hops::Single,
            bytes: &bytes,
        };
        change(&mut arrival);
        self.engine.on_packet(self.now, &arrival)
    }

    fn receive(&mut self, packet: ControlPacket) -> Vec<ControlPacket> {
        self.arrive(packet, |_| ()).unwrap();
        self.drain()
    }

    /// Lets time pass with the engine's own timers, and says what was sent when.
    fn pass(&mut self, span: Duration) -> Vec<(Time, ControlPacket)> {
        let end = self.now + span;
        let mut sent = Vec::new();
        while let Some(at) = self.engine.next_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.engine.handle(self.now, Input::Tick);
            let now = self.now;
            sent.extend(self.drain().into_iter().map(|packet| (now, packet)));
        }
        self.now = end;
        sent
    }

    /// As [`Bench::pass`], with the peer's `packet` every 200 ms.
    fn pass_hearing(&mut self, span: Duration, packet: ControlPacket) -> Vec<(Time, ControlPacket)> {
        let end = self.now + span;
        let mut sent = Vec::new();
        while self.now < end {
            sent.extend(self.pass(ms(200)));
            let now = self.now;
            sent.extend(self.receive(packet).into_iter().map(|packet| (now, packet)));
        }
        sent
    }
}

fn gaps(sent: &[(Time, ControlPacket)]) -> Vec<Duration> {
    sent.windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
}

fn down(cause: Cause) -> Change {
    Change::Down(Down {
        cause,
        remote_diag: Diag::NONE,
        control_plane_independent: false,
        silent_for: Duration::ZERO,
    })
}

/// A user may have a newer word from the peer than what BFD missed.
#[test]
fn a_failure_says_how_old_the_last_good_word_is() {
    let mut bench = Bench::up(plain());
    let up = bench.packet(State::Up);
    bench.receive(up);
    bench.pass(ms(1_000));
    assert_eq!(bench.silent_for, Some(ms(900)), "the detection time");
    // It began anew: what counts is when it was last up, not that it speaks.
    let mut bench = Bench::up(plain());
    let up = bench.packet(State::Up);
    bench.receive(up);
    bench.pass(ms(700));
    let anew = ControlPacket { your_discriminator: 0, ..bench.packet(State::Down) };
    bench.receive(anew);
    assert_eq!((&bench.events[..], bench.silent_for), (&[down(Cause::NeighborSignaled)][..], Some(ms(700))));
}

#[test]
fn the_first_packet_says_down_slowly_and_without_a_peer() {
    let (mut bench, sent) = Bench::new(plain());
    let [first] = sent[..] else { panic!("{sent:?}") };
    assert_eq!((first.state, first.diag, first.your_discriminator), (State::Down, Diag::NONE, 0));
    assert_eq!((first.desired_min_tx, first.required_min_rx), (1_000_000, 300_000));
    assert_eq!((first.multiplier, first.required_min_echo_rx), (3, 0));
    assert!(!first.poll && !first.final_ && !first.demand && !first.control_plane_independent);
    // Slow while not up (§6.8.3), jittered by up to a quarter (§6.8.7).
    let sent = bench.pass(ms(60_000));
    let gaps = gaps(&sent);
    assert!((60..=80).contains(&gaps.len()), "{}", gaps.len());
    assert!(gaps.iter().all(|gap| (ms(750)..=ms(1_000)).contains(gap)), "{gaps:?}");
    assert!(gaps.iter().any(|gap| *gap < ms(800)) && gaps.iter().any(|gap| *gap > ms(950)));
}

/// §6.8.6: (our state, the state received) -> our next state.
#[test]
fn state_machine() {
    use State::{AdminDown, Down, Init, Up};
    let table = [
        (Down, AdminDown, Down),
        (Down, Down, Init),
        (Down, Init, Up),
        (Down, Up, Down),
        (Init, AdminDown, Down),
        (Init, Down, Init),
        (Init, Init, Up),
        (Init, Up, Up),
        (Up, AdminDown, Down),
        (Up, Down, Down),
        (Up, Init, Up),
        (Up, Up, Up),
    ];
    for (from, heard, to) in table {
        let mut bench = match from {
            Up => Bench::up(plain()),
            _ => Bench::new(plain()).0,
        };
        if from == Init {
            bench.receive(bench.packet(Down));
        }
        assert_eq!(bench.status().state, from);
        let sent = bench.receive(bench.packet(heard));
        assert_eq!(bench.status().state, to, "{from} hears {heard}");
        // A new state is told at once, and only that.
        assert_eq!(sent.len(), usize::from(from != to), "{from} hears {heard}");
        let diag = if to == Down && from != Down { Diag::NEIGHBOR_SIGNALED_DOWN } else { Diag::NONE };
        assert_eq!(bench.status().diag, diag, "{from} hears {heard}");
        let events: &[Change] = match (from, heard, to) {
            (Up, Down, _) => &[down(Cause::NeighborSignaled)],
            (Up, AdminDown, _) => &[down(Cause::NeighborAdminDown)],
            (Down | Init, _, Up) => &[Change::Up],
            _ => &[],
        };
        assert_eq!(bench.events, events, "{from} hears {heard}");
    }
}

#[test]
fn up_in_three_packets_and_then_at_full_speed() {
    let (mut bench, _) = Bench::new(plain());
    let sent = bench.receive(ControlPacket { your_discriminator: 0, ..bench.packet(State::Down) });
    assert_eq!((sent[0].state, sent[0].your_discriminator), (State::Init, PEER_DISCRIMINATOR));
    assert_eq!(sent[0].desired_min_tx, 1_000_000);
    let sent = bench.receive(bench.packet(State::Up));
    assert_eq!((sent[0].state, sent[0].desired_min_tx, sent[0].poll), (State::Up, 300_000, true));
    assert_eq!(bench.status().detection_time, Some(ms(900)));
    // P stays on what is sent anyway until F comes (§6.5).
    let sent = bench.pass_hearing(ms(2_000), bench.packet(State::Up));
    assert!(sent.iter().all(|(_, packet)| packet.poll && !packet.final_), "{sent:?}");
    bench.receive(ControlPacket { final_: true, ..bench.packet(State::Up) });
    let sent = bench.pass_hearing(ms(10_000), bench.packet(State::Up));
    assert!(sent.iter().all(|(_, packet)| !packet.poll && !packet.final_));
    assert!(gaps(&sent).iter().all(|gap| (ms(225)..=ms(300)).contains(gap)), "{:?}", gaps(&sent));
}

#[test]
fn a_poll_is_answered_at_once_in_any_state() {
    let (mut bench, _) = Bench::new(plain());
    for state in [State::Down, State::Init, State::Up] {
        let sent = bench.receive(ControlPacket { poll: true, ..bench.packet(state) });
        let finals: Vec<_> = sent.iter().filter(|packet| packet.final_).collect();
        let [answer] = finals[..] else { panic!("{sent:?}") };
        assert!(!answer.poll);
        assert_eq!(answer.state, bench.status().state);
    }
    // Both ask: the answer carries F alone, and our own P goes on with the clock, however often we answer.
    let asks = ControlPacket { poll: true, ..bench.packet(State::Up) };
    let sent = bench.pass_hearing(ms(1_000), asks);
    assert!(sent.iter().any(|(_, packet)| packet.poll) && sent.iter().any(|(_, packet)| packet.final_));
    assert!(sent.iter().all(|(_, packet)| !(packet.poll && packet.final_)));
}

#[test]
fn silence_ends_the_session_after_the_negotiated_time() {
    // (peer's multiplier, peer's desired tx, our required rx) -> detection time: the slower of the two times
    // the peer's multiplier (§6.8.4).
    for (multiplier, desired, required, want) in [
        (3, 300_u32, 300, 900),
        (3, 100, 300, 900),
        (3, 500, 300, 1_500),
        (5, 50, 50, 250),
        (1, 1_000, 300, 1_000),
    ] {
        let mut bench = Bench::up(Params { min_rx: ms(required), ..plain() });
        let last = ControlPacket { multiplier, desired_min_tx: desired * 1_000, ..bench.packet(State::Up) };
        bench.pass(ms(100));
        bench.receive(last);
        assert_eq!(bench.status().detection_time, Some(ms(want)));
        bench.pass(ms(want) - Duration::from_micros(1));
        assert_eq!((bench.status().state, &bench.events[..]), (State::Up, &[][..]));
        let sent = bench.pass(Duration::from_micros(1));
        assert_eq!(bench.events, [down(Cause::DetectionTimeExpired)]);
        let (_, told) = sent.last().unwrap();
        assert_eq!((told.state, told.diag), (State::Down, Diag::DETECTION_TIME_EXPIRED));
        // "MUST be set to zero" (bfd.RemoteDiscr, §6.8.1), and slow again.
        assert_eq!((told.your_discriminator, told.desired_min_tx), (0, 1_000_000));
        assert_eq!(bench.status().detection_time, None);
    }
}

#[test]
fn init_times_out_without_an_event() {
    let (mut bench, _) = Bench::new(plain());
    bench.receive(bench.packet(State::Down));
    assert_eq!(bench.status().state, State::Init);
    bench.pass(ms(900));
    assert_eq!((bench.status().state, bench.events.len()), (State::Down, 0));
}

#[test]
fn a_change_for_the_worse_waits_for_the_peer() {
    // §6.8.3: a longer interval to send holds, and a shorter one to receive counts, once F has come.
    let mut bench = Bench::up(plain());
    assert!(bench.set(Params { min_tx: ms(600), min_rx: ms(100), ..plain() }).is_empty(), "no extra packet");
    let fast = ControlPacket { desired_min_tx: 100_000, ..bench.packet(State::Up) };
    let sent = bench.pass_hearing(ms(2_000), fast);
    assert!(sent.iter().all(|(_, p)| p.poll && p.desired_min_tx == 600_000 && p.required_min_rx == 100_000));
    assert!(gaps(&sent).iter().all(|gap| *gap <= ms(300)), "{:?}", gaps(&sent));
    assert_eq!(bench.status().detection_time, Some(ms(900)));
    bench.receive(ControlPacket { final_: true, ..fast });
    assert_eq!(bench.status().detection_time, Some(ms(300)));
    let sent = bench.pass_hearing(ms(6_000), fast);
    assert!(sent.iter().all(|(_, packet)| !packet.poll));
    assert!(gaps(&sent).iter().all(|gap| (ms(450)..=ms(600)).contains(gap)), "{:?}", gaps(&sent));
    assert_eq!(bench.events, []);
}

#[test]
fn a_change_for_the_better_holds_at_once() {
    let mut bench = Bench::up(Params { min_tx: ms(10_000), ..plain() });
    bench.pass_hearing(ms(3_000), bench.packet(State::Up));
    bench.set(Params { min_tx: ms(400), min_rx: ms(500), ..plain() });
    assert_eq!(bench.status().detection_time, Some(ms(1_500)));
    let sent = bench.pass_hearing(ms(4_000), bench.packet(State::Up));
    assert!(sent.len() >= 10, "{}", sent.len());
    assert!(gaps(&sent).iter().all(|gap| *gap <= ms(400)), "{:?}", gaps(&sent));
}

#[test]
fn a_second_change_gets_a_poll_of_its_own() {
    let mut bench = Bench::up(plain());
    bench.set(Params { min_tx: ms(600), ..plain() });
    bench.set(Params { min_tx: ms(900), ..plain() });
    bench.receive(ControlPacket { final_: true, ..bench.packet(State::Up) });
    // The first F may have answered a packet that said 600: that is what holds, not 900.
    let sent = bench.pass_hearing(ms(3_000), bench.packet(State::Up));
    let polls: Vec<bool> = sent.iter().map(|(_, packet)| packet.poll).collect();
    assert!(!polls[0] && polls[1..].iter().all(|poll| *poll), "{polls:?}");
    assert!(gaps(&sent).iter().all(|gap| *gap <= ms(600)), "{:?}", gaps(&sent));
    bench.receive(ControlPacket { final_: true, ..bench.packet(State::Up) });
    assert_eq!(bench.status().tx_interval, Some(ms(900)));
}

#[test]
fn a_repeated_set_changes_nothing() {
    let mut bench = Bench::up(plain());
    for _ in 0..100 {
        assert!(bench.set(plain()).is_empty());
    }
    let sent = bench.pass_hearing(ms(1_000), bench.packet(State::Up));
    assert!(sent.iter().all(|(_, packet)| !packet.poll));
}

#[test]
fn the_peers_pace_is_honoured() {
    let mut bench = Bench::up(plain());
    let slow = ControlPacket { required_min_rx: 2_000_000, ..bench.packet(State::Up) };
    let sent = bench.pass_hearing(ms(20_000), slow);
    assert!(gaps(&sent[2..]).iter().all(|gap| (ms(1_500)..=ms(2_000)).contains(gap)), "{:?}", gaps(&sent));
    // Reduced: "MUST honor the new interval immediately".
    let sent = bench.pass_hearing(ms(1_000), bench.packet(State::Up));
    assert!(sent.len() >= 3, "{sent:?}");
    // Zero: nothing periodic at all, but a poll is still answered.
    let quiet = ControlPacket { required_min_rx: 0, ..bench.packet(State::Up) };
    bench.receive(quiet);
    assert!(bench.pass_hearing(ms(5_000), quiet).is_empty());
    assert_eq!(bench.status().tx_interval, None);
    assert!(bench.receive(ControlPacket { poll: true, ..quiet })[0].final_);
    assert!(!bench.pass_hearing(ms(1_000), bench.packet(State::Up)).is_empty());
}

#[test]
fn demand_mode_of_the_peer_is_obeyed_and_never_asked_for() {
    let mut bench = Bench::up(plain());
    let demand = ControlPacket { demand: true, ..bench.packet(State::Up) };
    bench.receive(demand);
    assert!(
        bench.pass_hearing(ms(3_000), demand).is_empty(),
        "§6.8.7: quiet while the peer is in demand mode"
    );
    let answer = bench.receive(ControlPacket { poll: true, ..demand });
    assert!(answer[0].final_ && !answer[0].demand);
    // A change here is polled for all the same (§6.6).
    bench.set(Params { min_rx: ms(400), ..plain() });
    let asked = bench.pass_hearing(ms(1_000), demand);
    assert!(asked.len() >= 3 && asked.iter().all(|(_, packet)| packet.poll && !packet.demand), "{asked:?}");
    bench.receive(ControlPacket { final_: true, ..demand });
    assert!(bench.pass_hearing(ms(1_000), demand).is_empty());
    // Silence is still noticed.
    bench.pass(ms(1_200));
    assert_eq!(bench.events, [down(Cause::DetectionTimeExpired)]);
}

#[test]
fn passive_speaks_when_spoken_to() {
    let (mut bench, first) = Bench::new(Params { passive: true, ..plain() });
    assert!(first.is_empty());
    assert!(bench.pass(ms(10_000)).is_empty());
    assert_eq!(bench.receive(bench.packet(State::Down))[0].state, State::Init);
    bench.receive(bench.packet(State::Up));
    assert!(!bench.pass(ms(800)).is_empty());
    bench.pass(ms(200));
    assert_eq!(bench.events, [Change::Up, down(Cause::DetectionTimeExpired)]);
    assert!(bench.pass(ms(10_000)).is_empty(), "quiet again once the peer is forgotten");
}

#[test]
fn admin_down_is_told_and_keeps_the_session_down() {
    let mut bench = Bench::up(plain());
    let shut = Params { admin_down: true, ..plain() };
    let sent = bench.set(shut);
    assert_eq!((sent[0].state, sent[0].diag), (State::AdminDown, Diag::ADMINISTRATIVELY_DOWN));
    assert_eq!(sent[0].desired_min_tx, 1_000_000);
    assert_eq!(bench.events, [down(Cause::LocalAdminDown)]);
    let packet = bench.packet(State::Down);
    assert_eq!(bench.arrive(packet, |_| ()), Err(Discard::AdminDown));
    assert!(bench.drain().is_empty());
    let sent = bench.set(plain());
    assert_eq!(sent[0].state, State::Down);
    bench.receive(bench.packet(State::Down));
    bench.receive(bench.packet(State::Up));
    assert_eq!(bench.events, [down(Cause::LocalAdminDown), Change::Up]);
}

#[test]
fn removal_says_goodbye_for_a_detection_time() {
    let mut bench = Bench::up(plain());
    bench.engine.handle(bench.now, Input::Remove(key()));
    let sent = bench.drain();
    assert_eq!((sent[0].state, sent[0].your_discriminator), (State::AdminDown, PEER_DISCRIMINATOR));
    let sent = bench.pass(ms(2_999));
    assert!(sent.len() >= 2 && sent.iter().all(|(_, packet)| packet.state == State::AdminDown), "{sent:?}");
    assert!(!bench.gone);
    bench.pass(ms(1));
    assert!(bench.gone && bench.engine.status(bench.now).is_empty());
    assert_eq!(bench.engine.next_timeout(), None);
    // A peer that was never heard has nothing to be told for long.
    let (mut bench, _) = Bench::new(plain());
    bench.engine.handle(bench.now, Input::Remove(key()));
    bench.drain();
    assert!(bench.gone);
}

#[test]
fn a_removal_taken_back_starts_the_session_again() {
    let mut bench = Bench::up(plain());
    bench.engine.handle(bench.now, Input::Remove(key()));
    bench.pass(ms(500));
    bench.set(plain());
    bench.receive(bench.packet(State::Down));
    bench.receive(bench.packet(State::Up));
    bench.pass_hearing(ms(20_000), bench.packet(State::Up));
    assert!(!bench.gone);
    assert_eq!(bench.status().state, State::Up);
}

#[test]
fn only_the_peers_own_packets_count() {
    type Change = fn(&mut Arrival);
    let ours: u32 = 0;
    let cases: &[(&str, u32, Change, Discard)] = &[
        ("ttl 254", ours, |a| a.ttl = Some(254), Discard::Ttl),
        ("ttl unknown", ours, |a| a.ttl = None, Discard::Ttl),
        ("a discriminator that is not ours", 1, |_| (), Discard::YourDiscriminator),
        ("another source", ours, |a| a.source = IpAddr::from([192, 0, 2, 9]), Discard::Source),
        ("another address of ours", ours, |a| a.destination = Some([192, 0, 2, 8].into()), Discard::Source),
        ("another interface", ours, |a| a.interface = Some(4), Discard::Source),
        ("the multihop port", ours, |a| a.hops = Hops::Multi, Discard::Source),
    ];
    for (name, xor, change, want) in cases {
        let mut bench = Bench::up(plain());
        let mut packet = bench.packet(State::Down);
        packet.your_discriminator ^= xor;
        assert_eq!(bench.arrive(packet, change), Err(*want), "{name}");
        assert_eq!(bench.engine.discards().of(*want), 1, "{name}");
        assert_eq!(bench.status().state, State::Up, "{name}");
    }
    // Without a discriminator it is the address that must fit.
    for (name, change) in [
        ("another source", (|a| a.source = IpAddr::from([192, 0, 2, 9])) as Change),
        ("another address of ours", |a| a.destination = Some([192, 0, 2, 8].into())),
        ("another interface", |a| a.interface = Some(4)),
    ] {
        let mut bench = Bench::up(plain());
        let packet = ControlPacket { your_discriminator: 0, ..bench.packet(State::Down) };
        assert_eq!(bench.arrive(packet, change), Err(Discard::NoSession), "{name}");
        assert_eq!(bench.status().state, State::Up, "{name}");
    }
}

#[test]
fn a_peer_that_started_anew_is_believed() {
    let mut bench = Bench::up(plain());
    let anew = ControlPacket { my_discriminator: 78, your_discriminator: 0, ..bench.packet(State::Down) };
    let sent = bench.receive(anew);
    assert_eq!((sent[0].state, sent[0].your_discriminator), (State::Down, 78));
    assert_eq!(bench.events, [down(Cause::NeighborSignaled)]);
}

#[test]
fn multihop_has_a_ttl_minimum_of_its_own() {
    let mut engine = Engine::new(1);
    let key = SessionKey { hops: Hops::Multi, interface: None, ..key() };
    engine.set(ms(0), key, Params { min_ttl: 250, ..plain() }).unwrap();
    let bytes = ControlPacket {
        your_discriminator: 0,
        my_discriminator: 5,
        ..Bench::new(plain()).0.packet(State::Down)
    }
    .encode();
    let mut arrival = Arrival {
        source: key.peer,
        destination: key.local,
        interface: Some(9),
        ttl: Some(249),
        hops: Hops::Multi,
        bytes: &bytes,
    };
    assert_eq!(engine.on_packet(ms(1), &arrival), Err(Discard::Ttl));
    arrival.ttl = Some(250);
    assert_eq!(engine.on_packet(ms(1), &arrival), Ok(()));
}

#[test]
fn the_c_bit_of_both_ends_reaches_the_user() {
    for (ours, theirs) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut bench = Bench::up(Params { control_plane_independent: ours, ..plain() });
        let last = ControlPacket { control_plane_independent: theirs, ..bench.packet(State::Up) };
        bench.receive(last);
        let sent = bench.pass(ms(900));
        assert!(sent.iter().all(|(_, packet)| packet.control_plane_independent == ours));
        let Some(Change::Down(down)) = bench.events.first() else { panic!("{:?}", bench.events) };
        assert_eq!(down.control_plane_independent, ours && theirs);
    }
}

#[test]
fn a_flapping_session_is_reported_up_later_and_later() {
    let damping = Damping { first: ms(1_000), most: ms(3_000), forget: ms(60_000) };
    let (mut bench, _) = Bench::new(Params { damping: Some(damping), ..plain() });
    let mut waits = Vec::new();
    for _ in 0..6 {
        bench.receive(bench.packet(State::Down));
        bench.receive(bench.packet(State::Up));
        let up = bench.now;
        while bench.events.last() != Some(&Change::Up) {
            bench.pass_hearing(ms(200), bench.packet(State::Up));
        }
        waits.push((bench.now - up).as_millis());
        bench.pass(ms(900));
        assert_eq!(bench.events.last(), Some(&down(Cause::DetectionTimeExpired)));
    }
    assert_eq!(waits, [0, 0, 1_000, 2_000, 3_000, 3_000]);
    // Down again before it was reported: the user, who knows of no Up, hears nothing.
    let before = bench.events.len();
    bench.receive(bench.packet(State::Down));
    bench.receive(bench.packet(State::Up));
    assert!(bench.status().held.is_some());
    bench.pass(ms(900));
    assert_eq!((bench.status().state, bench.events.len()), (State::Down, before));
    // Steady for long: forgiven.
    bench.receive(bench.packet(State::Down));
    bench.receive(bench.packet(State::Up));
    bench.pass_hearing(ms(64_000), bench.packet(State::Up));
    bench.pass(ms(900));
    bench.receive(bench.packet(State::Down));
    bench.receive(bench.packet(State::Up));
    assert_eq!(bench.events.last(), Some(&Change::Up));
}

#[test]
fn sessions_with_one_peer_are_told_apart_by_our_address() {
    let mut engine = Engine::new(3);
    let one = key();
    let other = SessionKey { local: Some("192.0.2.50".parse().unwrap()), ..one };
    let any = SessionKey { local: None, interface: None, ..one };
    for key in [one, other, any] {
        engine.set(ms(0), key, plain()).unwrap();
    }
    while engine.poll().is_some() {}
    for (destination, interface, want) in
        [("192.0.2.1", 3, one), ("192.0.2.50", 3, other), ("192.0.2.99", 3, any), ("192.0.2.1", 4, any)]
    {
        let bytes =
            ControlPacket { your_discriminator: 0, poll: true, ..Bench::new(plain()).0.packet(State::Down) }
                .encode();
        let arrival = Arrival {
            source: one.peer,
            destination: Some(destination.parse().unwrap()),
            interface: Some(interface),
            ttl: Some(255),
            hops: Hops::Single,
            bytes: &bytes,
        };
        engine.on_packet(ms(1), &arrival).unwrap();
        let Some(Output::Send { key, .. }) = engine.poll() else { panic!("no answer") };
        assert_eq!(key, want, "{destination} on {interface}");
    }
}

#[test]
fn a_session_on_its_way_out_does_not_take_the_packets_of_its_successor() {
    let mut bench = Bench::up(plain());
    bench.engine.handle(bench.now, Input::Remove(key()));
    bench.drain();
    // The same peer from any address: less exact than the one that is leaving.
    let successor = SessionKey { local: None, interface: None, ..key() };
    bench.engine.set(bench.now, successor, plain()).unwrap();
    while bench.engine.poll().is_some() {}
    let anew = ControlPacket { your_discriminator: 0, ..bench.packet(State::Down) };
    assert_eq!(bench.arrive(anew, |_| ()), Ok(()));
    let Some(Output::Send { key, .. }) = bench.engine.poll() else { panic!("no answer") };
    assert_eq!(key, successor);
}
