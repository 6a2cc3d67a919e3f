//! One session: the state variables of RFC 5880 §6.8.1 and what changes them.

use std::time::Duration;

use crate::event::{Cause, Change, Down, Event, Status, Time};
use crate::packet::{ControlPacket, Diag, Discard, State};
use crate::params::{Params, SessionKey, micros};
use crate::random::Random;

/// While not up, nobody sends more often (RFC 5880 §6.8.3).
const SLOW: Duration = Duration::from_secs(1);
/// A removed session tells its peer AdminDown for a detection time, but no longer than this.
const LONGEST_FAREWELL: Duration = Duration::from_secs(10);

/// Where a session puts what it wants done.
pub(crate) trait Sink {
    fn send(&mut self, key: SessionKey, id: u32, packet: &ControlPacket);
    fn event(&mut self, event: Event);
    fn random(&mut self) -> &mut Random;
}

/// What the peer said last.
#[derive(Debug, Clone, Copy)]
struct Remote {
    discriminator: u32,
    state: State,
    diag: Diag,
    min_rx: u32,
    desired_tx: u32,
    multiplier: u8,
    demand: bool,
    control_plane_independent: bool,
}

/// Before anything was heard (RFC 5880 §6.8.1).
const UNHEARD: Remote = Remote {
    discriminator: 0,
    state: State::Down,
    diag: Diag::NONE,
    min_rx: 1,
    desired_tx: 0,
    multiplier: 0,
    demand: false,
    control_plane_independent: false,
};

/// RFC 5880 §6.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Poll {
    Idle,
    /// P is set on what we send, until F arrives for the timers that were advertised when this began.
    Active {
        desired_tx: u32,
        required_rx: u32,
        again: bool,
    },
    /// One packet without P, so that the next sequence is seen to be another one.
    Between,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) key: SessionKey,
    pub(crate) id: u32,
    /// Earliest entry of the engine's timers that is still good for this session.
    pub(crate) armed: Option<Time>,
    params: Params,
    state: State,
    since: Time,
    diag: Diag,
    remote: Remote,
    /// What we advertise.
    desired_tx: u32,
    required_rx: u32,
    /// What is in force until the peer has confirmed a change for the worse (RFC 5880 §6.8.3).
    tx_used: u32,
    rx_used: u32,
    poll: Poll,
    last_tx: Option<Time>,
    next_tx: Option<Time>,
    /// The interval from which `next_tx` was drawn.
    drawn_from: Option<Duration>,
    heard: Option<Time>,
    /// When the peer last said that its end is up, or coming up.
    alive: Time,
    expires: Option<Time>,
    leaves: Option<Time>,
    /// The user was told Up.
    reported: bool,
    report_at: Option<Time>,
    /// Failures that damping remembers.
    downs: u32,
    failures: u64,
    sent: u64,
    received: u64,
}

impl Session {
    /// A session that starts Down, or AdminDown, and sends its first packet at once.
    pub(crate) fn new(now: Time, key: SessionKey, params: Params, id: u32, sink: &mut impl Sink) -> Self {
        let mut session = Self {
            key,
            id,
            armed: None,
            params,
            state: if params.admin_down { State::AdminDown } else { State::Down },
            since: now,
            diag: if params.admin_down { Diag::ADMINISTRATIVELY_DOWN } else { Diag::NONE },
            remote: UNHEARD,
            desired_tx: 0,
            required_rx: 0,
            tx_used: 0,
            rx_used: 0,
            poll: Poll::Idle,
            last_tx: None,
            next_tx: None,
            drawn_from: None,
            heard: None,
            alive: now,
            expires: None,
            leaves: None,
            reported: false,
            report_at: None,
            downs: 0,
            failures: 0,
            sent: 0,
            received: 0,
        };
        session.adopt_timers();
        session.reschedule(now, sink);
        session
    }

    /// New parameters; also takes back a removal.
    pub(crate) fn configure(&mut self, now: Time, params: Params, sink: &mut impl Sink) {
        self.params = params;
        self.leaves = None;
        match (self.state, params.admin_down) {
            (State::AdminDown, false) => {
                self.enter(now, State::Down, Diag::NONE);
                self.send_change(now, sink);
            }
            (State::Down | State::Init | State::Up, true) => self.shut(now, sink),
            _ => self.adopt_timers(),
        }
        self.reschedule(now, sink);
    }

    /// Starts the farewell. The engine drops the session when [`Session::gone`].
    pub(crate) fn remove(&mut self, now: Time, sink: &mut impl Sink) {
        if self.leaves.is_some() {
            return;
        }
        if self.state != State::AdminDown {
            self.shut(now, sink);
        }
        // "The local system SHOULD transmit BFD Control packets for at least one Detection Time" (§6.8.16).
        let farewell =
            self.interval().saturating_mul(u32::from(self.params.multiplier)).min(LONGEST_FAREWELL);
        self.leaves = Some(if self.remote.discriminator == 0 { now } else { now.saturating_add(farewell) });
        self.reschedule(now, sink);
    }

    pub(crate) fn gone(&self, now: Time) -> bool {
        self.leaves.is_some_and(|at| at <= now)
    }

    pub(crate) fn leaving(&self) -> bool {
        self.leaves.is_some()
    }

    /// A packet that was found to be this session's: the rest of RFC 5880 §6.8.6, in its order.
    pub(crate) fn on_packet(
        &mut self,
        now: Time,
        packet: &ControlPacket,
        sink: &mut impl Sink,
    ) -> Result<(), Discard> {
        self.remote = Remote {
            discriminator: packet.my_discriminator,
            state: packet.state,
            diag: packet.diag,
            min_rx: packet.required_min_rx,
            desired_tx: packet.desired_min_tx,
            multiplier: packet.multiplier,
            demand: packet.demand,
            control_plane_independent: packet.control_plane_independent,
        };
        if packet.final_ {
            self.on_final();
        }
        self.heard = Some(now);
        if matches!(packet.state, State::Init | State::Up) {
            self.alive = now;
        }
        if self.state == State::AdminDown {
            self.reschedule(now, sink);
            return Err(Discard::AdminDown);
        }
        self.received += 1;
        let before = self.state;
        match (self.state, packet.state) {
            (State::Init | State::Up, State::AdminDown) => {
                self.fail(now, Diag::NEIGHBOR_SIGNALED_DOWN, Cause::NeighborAdminDown, sink);
            }
            (State::Down, State::Down) => self.enter(now, State::Init, self.diag),
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => self.rise(now, sink),
            (State::Up, State::Down) => {
                self.fail(now, Diag::NEIGHBOR_SIGNALED_DOWN, Cause::NeighborSignaled, sink);
            }
            _ => {}
        }
        if packet.poll {
            // "without respect to the transmission timer": it does not count as one of the periodic packets.
            self.send(sink, true);
        } else if self.state != before {
            self.send_change(now, sink);
        }
        self.reschedule(now, sink);
        Ok(())
    }

    /// Does what is due.
    pub(crate) fn on_time(&mut self, now: Time, sink: &mut impl Sink) {
        if self.expires.is_some_and(|at| at <= now) {
            if matches!(self.state, State::Init | State::Up) {
                self.fail(now, Diag::DETECTION_TIME_EXPIRED, Cause::DetectionTimeExpired, sink);
                self.remote = UNHEARD;
                self.send_change(now, sink);
            }
            self.remote = UNHEARD;
            (self.heard, self.expires) = (None, None);
        }
        if self.report_at.is_some_and(|at| at <= now) {
            self.report_up(sink);
        }
        self.reschedule(now, sink);
        if self.next_tx.is_some_and(|at| at <= now) {
            self.send(sink, false);
            self.sent_periodic(now);
            self.reschedule(now, sink);
        }
    }

    /// When [`Session::on_time`] has something to do.
    pub(crate) fn wake(&self) -> Option<Time> {
        [self.next_tx, self.expires, self.report_at, self.leaves].into_iter().flatten().min()
    }

    pub(crate) fn min_ttl(&self) -> u8 {
        self.params.min_ttl
    }

    pub(crate) fn status(&self, now: Time) -> Status {
        let heard = self.heard.is_some();
        let remote = &self.remote;
        let timers = (
            remote.multiplier,
            Duration::from_micros(remote.desired_tx.into()),
            Duration::from_micros(remote.min_rx.into()),
        );
        Status {
            key: self.key,
            state: self.state,
            lasting: now.saturating_sub(self.since),
            diag: self.diag,
            remote_state: remote.state,
            remote_diag: remote.diag,
            discriminator: self.id,
            remote_discriminator: remote.discriminator,
            tx_interval: (remote.min_rx != 0).then(|| self.interval()),
            detection_time: heard.then(|| self.detection_time()),
            remote_timers: heard.then_some(timers),
            held: self.report_at.map(|at| at.saturating_sub(now)),
            failures: self.failures,
            sent: self.sent,
            received: self.received,
            leaving: self.leaving(),
        }
    }

    /// "The greater of bfd.DesiredMinTxInterval and bfd.RemoteMinRxInterval" (§6.8.2).
    fn interval(&self) -> Duration {
        Duration::from_micros(self.tx_used.max(self.remote.min_rx).into())
    }

    /// §6.8.4, asynchronous mode: the peer's multiplier times its interval towards us.
    fn detection_time(&self) -> Duration {
        let interval = u64::from(self.rx_used.max(self.remote.desired_tx));
        Duration::from_micros(interval * u64::from(self.remote.multiplier))
    }

    /// Whether packets go out by the clock (§6.8.7).
    fn periodic(&self) -> bool {
        let unasked = self.params.passive && self.remote.discriminator == 0;
        let unwanted = self.remote.min_rx == 0;
        // The peer is in demand mode and asked us to be quiet. We never ask that of a peer, but obey.
        let demand = self.remote.demand
            && self.state == State::Up
            && self.remote.state == State::Up
            && self.poll == Poll::Idle;
        !(unasked || unwanted || demand)
    }

    /// Brings timers and what they depend on together.
    fn reschedule(&mut self, now: Time, sink: &mut impl Sink) {
        self.expires = self.heard.map(|at| at.saturating_add(self.detection_time()));
        if !self.periodic() {
            (self.next_tx, self.drawn_from) = (None, None);
            return;
        }
        let interval = self.interval();
        if self.drawn_from == Some(interval) {
            return;
        }
        self.drawn_from = Some(interval);
        self.next_tx = Some(match self.last_tx {
            None => now,
            Some(last) => {
                last.saturating_add(sink.random().jitter(interval, self.params.multiplier)).max(now)
            }
        });
    }

    /// Advertises the timers that state and parameters call for; better ones hold at once, worse ones when the
    /// peer knows (§6.8.3).
    fn adopt_timers(&mut self) {
        let up = self.state == State::Up;
        let least = if up { Duration::ZERO } else { SLOW };
        let desired_tx = micros(self.params.min_tx.max(least));
        let required_rx = micros(self.params.min_rx);
        let changed = (desired_tx, required_rx) != (self.desired_tx, self.required_rx);
        (self.desired_tx, self.required_rx) = (desired_tx, required_rx);
        if !up {
            (self.tx_used, self.rx_used, self.poll) = (desired_tx, required_rx, Poll::Idle);
            return;
        }
        self.tx_used = self.tx_used.min(desired_tx);
        self.rx_used = self.rx_used.max(required_rx);
        if changed {
            match &mut self.poll {
                Poll::Idle => self.begin_poll(),
                Poll::Active { again, .. } => *again = true,
                Poll::Between => {}
            }
        }
    }

    fn begin_poll(&mut self) {
        self.poll = Poll::Active { desired_tx: self.desired_tx, required_rx: self.required_rx, again: false };
    }

    fn on_final(&mut self) {
        let Poll::Active { desired_tx, required_rx, again } = self.poll else { return };
        // The peer has seen these, and perhaps newer ones: good for both.
        self.tx_used = desired_tx.min(self.desired_tx);
        self.rx_used = required_rx.max(self.required_rx);
        self.poll = if again { Poll::Between } else { Poll::Idle };
    }

    fn enter(&mut self, now: Time, state: State, diag: Diag) {
        (self.state, self.since, self.diag) = (state, now, diag);
        self.adopt_timers();
    }

    fn rise(&mut self, now: Time, sink: &mut impl Sink) {
        self.enter(now, State::Up, Diag::NONE);
        let wait = self.params.damping.map_or(Duration::ZERO, |damping| damping.wait(self.downs));
        self.report_at = Some(now.saturating_add(wait));
        if wait.is_zero() {
            self.report_up(sink);
        }
    }

    fn report_up(&mut self, sink: &mut impl Sink) {
        self.report_at = None;
        self.reported = true;
        sink.event(Event { key: self.key, change: Change::Up });
    }

    /// Goes Down, and says so if the user believes the session up.
    fn fail(&mut self, now: Time, diag: Diag, cause: Cause, sink: &mut impl Sink) {
        let failure = matches!(cause, Cause::DetectionTimeExpired | Cause::NeighborSignaled);
        if failure && self.state == State::Up {
            self.failures += 1;
            let steady = now.saturating_sub(self.since);
            if self.params.damping.is_some_and(|damping| steady >= damping.forget) {
                self.downs = 0;
            }
            self.downs = self.downs.saturating_add(1);
        }
        self.report_down(now, cause, sink);
        self.enter(now, State::Down, diag);
    }

    fn report_down(&mut self, now: Time, cause: Cause, sink: &mut impl Sink) {
        self.report_at = None;
        if std::mem::take(&mut self.reported) {
            let down = Down {
                cause,
                remote_diag: self.remote.diag,
                control_plane_independent: self.params.control_plane_independent
                    && self.remote.control_plane_independent,
                silent_for: now.saturating_sub(self.alive),
            };
            sink.event(Event { key: self.key, change: Change::Down(down) });
        }
    }

    fn shut(&mut self, now: Time, sink: &mut impl Sink) {
        self.report_down(now, Cause::LocalAdminDown, sink);
        self.enter(now, State::AdminDown, Diag::ADMINISTRATIVELY_DOWN);
        self.send_change(now, sink);
    }

    /// A new state is told at once, not at the next interval (§6.8.7).
    fn send_change(&mut self, now: Time, sink: &mut impl Sink) {
        if !(self.params.passive && self.remote.discriminator == 0) {
            self.send(sink, false);
            self.sent_periodic(now);
        }
    }

    fn sent_periodic(&mut self, now: Time) {
        self.last_tx = Some(now);
        self.drawn_from = None;
        if self.poll == Poll::Between {
            self.begin_poll();
        }
    }

    fn send(&mut self, sink: &mut impl Sink, final_: bool) {
        let packet = ControlPacket {
            diag: self.diag,
            state: self.state,
            poll: !final_ && matches!(self.poll, Poll::Active { .. }),
            final_,
            control_plane_independent: self.params.control_plane_independent,
            demand: false,
            multiplier: self.params.multiplier,
            my_discriminator: self.id,
            your_discriminator: self.remote.discriminator,
            desired_min_tx: self.desired_tx,
            required_min_rx: self.required_rx,
            required_min_echo_rx: 0,
        };
        self.sent += 1;
        sink.send(self.key, self.id, &packet);
    }
}
