//! Our own restart (RFC 4724 §4.1): who is waited for, and when the wait ends.
//!
//! While it lasts the kernel keeps what it had, learned routes are used but not told on, own routes are told at once.
//! It ends when every peer that is there has told everything; one that restarted itself has when it falls silent, and one
//! that does not come up in a few seconds is not waited for. Then what is stale in the kernel is swept.

use bird_packet::{Family, Prefix4, Prefix6};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::io::{ConnectError, DownReason, Event, FibRoute, Time};
use crate::peer::{Helper, Peer};
use crate::rib::net::Net;
use crate::speaker::{Speaker, Start};
use crate::timers::Owner;

/// Why the deferral of a restart ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeferralEnd {
    /// Every live peer told everything.
    AllDone,
    /// The time was up.
    TimedOut,
}

/// Whom a restart waits for, why, and how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// The peer.
    pub peer: String,
    /// What it has not done yet.
    pub reason: WaitReason,
    /// Milliseconds that it has been waited for.
    pub for_ms: u64,
    /// Milliseconds after which it is not waited for any more, if nothing happens until then.
    pub left_ms: u64,
}

/// Our own restart, and the restarts of peers over which we keep their routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestartView {
    /// We restarted: selection is deferred, nothing is swept yet.
    pub active: bool,
    /// Milliseconds since the start, while `active`; else how long the restart took.
    pub for_ms: u64,
    /// Milliseconds until the deferral ends whatever peers do, while `active`.
    pub left_ms: Option<u64>,
    /// Why the deferral ended; `None` while it lasts, and if this was no restart.
    pub ended: Option<DeferralEnd>,
    /// The kernel had kept our routes.
    pub forwarding_kept: bool,
    /// Peers that are waited for, by name.
    pub waiting: Vec<Waiting>,
    /// Peers whose routes we keep over their restart, by name.
    pub helping: Vec<Helping>,
}

/// A peer whose routes are kept over its restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Helping {
    /// The peer.
    pub peer: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// How far it is.
    pub phase: HelpPhase,
    /// Milliseconds until what is stale goes, or becomes long-lived stale.
    pub left_ms: u64,
}

/// How far the restart of a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HelpPhase {
    /// It is gone; it said that it would be back.
    Away,
    /// It is back and has not told everything again.
    Telling,
    /// It was not back in time; what it told is the last resort for a while (RFC 9494).
    LongLived,
}

/// What a restart waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitReason {
    /// It has no session yet.
    Session,
    /// It has not sent End-of-RIB.
    EndOfRib,
    /// It does not do graceful restart or restarted too, and still sends.
    Quiet,
}

pub(crate) struct Restart {
    start: Start,
    active: bool,
    since: Time,
    ended: Option<(Time, DeferralEnd)>,
    /// When the next look is due.
    look_at: Option<Time>,
}

/// Pause between two looks at who is done; events look at once.
const LOOK: Time = Time::from_millis(250);

fn ms(time: Time) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Restart {
    pub(crate) fn new(start: Start) -> Self {
        Restart { start, active: start.restarted, since: Time::ZERO, ended: None, look_at: None }
    }

    /// The R bit of our OPENs.
    pub(crate) fn says_restarted(&self) -> bool {
        self.active
    }

    /// The F bit of our first OPEN to a peer.
    pub(crate) fn forwarding_kept(&self) -> bool {
        self.start.forwarding_kept
    }
}

impl Speaker {
    pub(crate) fn begin_restart(&mut self, now: Time) {
        self.restart.since = now;
        if self.restart.active {
            self.core.restarting = true;
            self.core.keep_stale = true;
            self.look_again(now);
        }
    }

    /// One look is due at a time, however many events look at once.
    fn look_again(&mut self, now: Time) {
        if self.restart.look_at.is_none_or(|at| at <= now) {
            self.restart.look_at = Some(now + LOOK);
            self.timers.push(now + LOOK, Owner::Restart);
        }
    }

    /// Whom the restart waits for; empty when there is none.
    pub fn restart_waits_for(&self, now: Time) -> Vec<Waiting> {
        if !self.restart.active {
            return Vec::new();
        }
        let limits = &self.config.restart;
        let end = self.restart.since + limits.deferral;
        let waits = |p: &Peer| {
            let reason = self.awaited(now, p)?;
            let (since, until) = match reason {
                WaitReason::Session => (self.restart.since, self.restart.since + self.session_bound(p)),
                WaitReason::EndOfRib => (p.since, end),
                WaitReason::Quiet => (p.since, p.last_update + limits.quiet),
            };
            Some(Waiting {
                peer: p.name.to_string(),
                reason,
                for_ms: ms(now.saturating_sub(since)),
                left_ms: ms(until.min(end).saturating_sub(now)),
            })
        };
        let mut waiting: Vec<Waiting> = self.peers.iter().flatten().filter_map(|p| waits(p)).collect();
        waiting.sort_by(|a, b| a.peer.cmp(&b.peer));
        waiting
    }

    /// Our own restart and those that we help with, for people.
    pub fn restart_view(&self, now: Time) -> RestartView {
        let Restart { start, active, since, ended, .. } = self.restart;
        let took = ended.map_or(now, |(at, _)| at).saturating_sub(since);
        RestartView {
            active,
            for_ms: if active || ended.is_some() { ms(took) } else { 0 },
            left_ms: active.then(|| ms((since + self.config.restart.deferral).saturating_sub(now))),
            ended: ended.map(|(_, why)| why),
            forwarding_kept: start.forwarding_kept,
            waiting: self.restart_waits_for(now),
            helping: self.helping(now),
        }
    }

    fn helping(&self, now: Time) -> Vec<Helping> {
        let mut helping = Vec::new();
        for peer in self.peers.iter().flatten().filter(|p| p.helper.is_active()) {
            for family in Family::ALL.into_iter().filter(|f| peer.helper.stale[f.index()]) {
                let Helper { done_by, back_by, long_lived, .. } = peer.helper;
                let long_lived = long_lived[family.index()];
                let (phase, until) = match (done_by, long_lived) {
                    (Some(done_by), end) => {
                        (HelpPhase::Telling, Some(end.map_or(done_by, |e| e.min(done_by))))
                    }
                    (None, Some(end)) => (HelpPhase::LongLived, Some(end)),
                    (None, None) => (HelpPhase::Away, back_by),
                };
                helping.push(Helping {
                    peer: peer.name.to_string(),
                    family: family.to_string(),
                    phase,
                    left_ms: ms(until.unwrap_or(now).saturating_sub(now)),
                });
            }
        }
        helping.sort_by(|a, b| (&a.peer, &a.family).cmp(&(&b.peer, &b.family)));
        helping
    }

    /// Since when the restart lasts, while it does.
    pub fn restarting_since(&self) -> Option<Time> {
        self.restart.active.then_some(self.restart.since)
    }

    /// How long the session of a peer is waited for. One whose host cannot be reached forwards nothing, so nothing is lost
    /// with its routes. One that refuses may restart at the same time as we do, while its kernel still forwards.
    fn session_bound(&self, peer: &Peer) -> Time {
        let limits = &self.config.restart;
        let unreachable = matches!(peer.last_error, Some(DownReason::Connect(ConnectError::Unreachable)));
        let talking = |at: &usize| self.conns.get(*at).is_some_and(|c| c.phase > crate::fsm::Phase::Dialing);
        if unreachable && !peer.conns.iter().any(talking) {
            limits.unreachable_bound.min(limits.connect_bound)
        } else {
            limits.connect_bound
        }
    }

    fn awaited(&self, now: Time, peer: &Peer) -> Option<WaitReason> {
        let limits = &self.config.restart;
        if !peer.is_wanted() || peer.range.is_some() {
            return None;
        }
        let Some(at) = peer.established else {
            return (now < self.restart.since + self.session_bound(peer)).then_some(WaitReason::Session);
        };
        let terms = self.conns.get(at).and_then(|c| c.terms.as_ref())?;
        let open = Family::ALL.into_iter().any(|f| terms.ctx.family(f).enabled && !peer.eor[f.index()]);
        if !open {
            return None;
        }
        match terms.restart {
            Some(restart) if !restart.restarted => Some(WaitReason::EndOfRib),
            // RFC 4724 §4.1: the End-of-RIB of one that restarted too is not waited for, or it and we would wait for each
            // other. Its own routes come at once, so it is done when it falls silent.
            _ => (now < peer.last_update + limits.quiet).then_some(WaitReason::Quiet),
        }
    }

    /// Ends the restart if it is time.
    pub(crate) fn check_restart(&mut self, now: Time) {
        let late = now >= self.restart.since + self.config.restart.deferral;
        if !self.restart.active {
            self.check_sweep(now, late);
            return;
        }
        if !late && (self.core.hold_eor || !self.restart_waits_for_at(now).is_empty()) {
            self.look_again(now);
            return;
        }
        self.restart.active = false;
        self.core.restarting = false;
        self.core.hold_eor = false;
        self.v4.end_restart();
        self.v6.end_restart();
        self.v4.wake_all();
        self.v6.wake_all();
        let waited = if late { DeferralEnd::TimedOut } else { DeferralEnd::AllDone };
        self.restart.ended = Some((now, waited));
        self.event(Event::RestartComplete { waited });
        self.check_sweep(now, late);
    }

    /// Gives the kernel what was chosen once nobody can say any more that a stale route is right.
    ///
    /// The deferral does not wait for the End-of-RIB of a peer that restarted too, because that may wait for ours. Here it
    /// is waited for: ours is out. FRR says for two minutes that it restarted, and tells its first route after a second.
    fn check_sweep(&mut self, now: Time, late: bool) {
        if !self.core.keep_stale {
            return;
        }
        if !late && self.peers.iter().flatten().any(|p| self.may_confirm(now, p)) {
            self.look_again(now);
            return;
        }
        self.core.keep_stale = false;
        self.v4.sweep();
        self.v6.sweep();
    }

    /// Whether a peer's first table may still be on its way.
    fn may_confirm(&self, now: Time, peer: &Peer) -> bool {
        let limits = &self.config.restart;
        if !peer.is_wanted() {
            return false;
        }
        let Some(at) = peer.established else {
            // GoBGP takes calls and hangs up for the five seconds after its restart timer.
            return peer.answered && now < self.restart.since + limits.answered_bound;
        };
        let Some(terms) = self.conns.get(at).and_then(|c| c.terms.as_ref()) else { return false };
        let open = Family::ALL.into_iter().any(|f| terms.ctx.family(f).enabled && !peer.eor[f.index()]);
        open && (terms.restart.is_some() || now < peer.last_update + limits.silence)
    }

    fn restart_waits_for_at(&self, now: Time) -> Vec<WaitReason> {
        self.peers.iter().flatten().filter_map(|p| self.awaited(now, p)).collect()
    }

    pub(crate) fn on_stale_fib(&mut self, prefix: IpNet, route: FibRoute) {
        let fib = self.core.fib_routes.intern(route);
        let stale = self.core.keep_stale;
        if let Some(net) = Prefix4::from_ipnet(prefix) {
            self.v4.adopt_fib(&mut self.core, net, fib, stale);
        } else if let Some(net) = Prefix6::from_ipnet(prefix) {
            self.v6.adopt_fib(&mut self.core, net, fib, stale);
        }
    }
}
