//! Our own restart (RFC 4724 §4.1): who is waited for, and when the wait ends.
//!
//! While it lasts the kernel keeps what it had, learned routes are used but not told on, own routes are told at once.
//! It ends when every peer that is there has told everything; one that restarted itself has when it falls silent, and one
//! that does not come up in a few seconds is not waited for. Then what is stale in the kernel is swept.

use bird_packet::{Family, Prefix4, Prefix6};
use ipnet::IpNet;
use serde::Serialize;

use crate::io::{Event, FibRoute, Time};
use crate::peer::Peer;
use crate::rib::net::Net;
use crate::speaker::{Speaker, Start};
use crate::timers::Owner;

/// Why the deferral of a restart ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeferralEnd {
    /// Every live peer told everything.
    AllDone,
    /// The time was up.
    TimedOut,
}

/// Whom a restart waits for, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// The peer.
    pub peer: String,
    /// What it has not done yet.
    pub reason: WaitReason,
}

/// What a restart waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
}

/// Pause between two looks at who is done; events look at once.
const LOOK: Time = Time::from_millis(250);

impl Restart {
    pub(crate) fn new(start: Start) -> Self {
        Restart { start, active: start.restarted, since: Time::ZERO }
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
            self.timers.push(now + LOOK, Owner::Restart);
        }
    }

    /// Whom the restart waits for; empty when there is none.
    pub fn restart_waits_for(&self) -> Vec<Waiting> {
        if !self.restart.active {
            return Vec::new();
        }
        let waits = |p: &Peer| Some(Waiting { peer: p.name.to_string(), reason: self.awaited(self.now, p)? });
        self.peers.iter().flatten().filter_map(|p| waits(p)).collect()
    }

    /// Since when the restart lasts, while it does.
    pub fn restarting_since(&self) -> Option<Time> {
        self.restart.active.then_some(self.restart.since)
    }

    fn awaited(&self, now: Time, peer: &Peer) -> Option<WaitReason> {
        let limits = &self.config.restart;
        if !peer.is_wanted() || peer.range.is_some() {
            return None;
        }
        let Some(at) = peer.established else {
            return (now < self.restart.since + limits.connect_bound).then_some(WaitReason::Session);
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
        if !self.restart.active {
            return;
        }
        let late = now >= self.restart.since + self.config.restart.deferral;
        if !late && (self.core.hold_eor || !self.restart_waits_for_at(now).is_empty()) {
            self.timers.push(now + LOOK, Owner::Restart);
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
        self.event(Event::RestartComplete { waited });
    }

    fn restart_waits_for_at(&self, now: Time) -> Vec<WaitReason> {
        self.peers.iter().flatten().filter_map(|p| self.awaited(now, p)).collect()
    }

    pub(crate) fn on_stale_fib(&mut self, prefix: IpNet, route: FibRoute) {
        let fib = self.core.fib_routes.intern(route);
        let stale = self.core.restarting;
        if let Some(net) = Prefix4::from_ipnet(prefix) {
            self.v4.adopt_fib(&mut self.core, net, fib, stale);
        } else if let Some(net) = Prefix6::from_ipnet(prefix) {
            self.v6.adopt_fib(&mut self.core, net, fib, stale);
        }
    }
}
