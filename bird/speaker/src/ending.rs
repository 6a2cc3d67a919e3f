//! Sessions go: who ended them, what becomes of their routes, when they are tried again; and the clocks that end them.

use std::time::Duration;

use bird_packet::{Cease, Family, Notification};

use crate::fsm::{Happening, Phase};
use crate::io::{ConnId, DownReason, Event, Output, Time};
use crate::peer::{Helper, Peer};
use crate::rib::table::PeerIndex;
use crate::speaker::Speaker;
use crate::timers::Owner;

/// A peer that lost its session is expected back for this long.
const EXPECTED_BACK: Duration = Duration::from_mins(2);
/// Reasons of a failure that are remembered as said.
const REASONS: usize = 8;
/// Least send hold time (RFC 9687 §4.3).
const SEND_HOLD: Duration = Duration::from_mins(8);

/// The other connection of the two stays.
const COLLISION: Option<(u8, u8)> = Some((6, Cease::CollisionResolution as u8));

/// How a session ended, as far as what follows depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The connection went away without a NOTIFICATION.
    Lost,
    /// A NOTIFICATION that keeps routes where RFC 8538 was agreed.
    Notified,
    /// For good: routes go at once.
    Hard,
}

impl Speaker {
    pub(crate) fn on_closed(&mut self, now: Time, id: ConnId, reason: String) {
        let Some(at) = self.conns.find(id) else { return };
        let Some(c) = self.conns.get(at) else { return };
        let (phase, index) = (c.phase, c.peer);
        match phase {
            Phase::Closing => {}
            Phase::Dialing => {
                self.forget_conn(index, at);
                self.call_failed(now, index, DownReason::Closed(reason));
            }
            Phase::Delayed
            | Phase::OpenSent
            | Phase::BfdPending
            | Phase::OpenConfirm
            | Phase::Established => {
                self.lose(now, at, DownReason::Closed(reason), Ending::Lost);
            }
        }
        self.conns.remove(at);
    }

    /// Ends a connection from our side, with a NOTIFICATION if there is something to say.
    pub(crate) fn end(&mut self, now: Time, at: usize, notification: Option<Notification>, ending: Ending) {
        let reason = match &notification {
            Some(n) => DownReason::Sent(n.into()),
            None => DownReason::Closed("the peer connected anew".into()),
        };
        self.lose(now, at, reason, ending);
        let agreed = self.conns.get(at).and_then(|c| c.terms.as_ref()).and_then(|t| t.restart);
        let hard = ending == Ending::Hard && agreed.is_some_and(|r| r.notification);
        let notification = if hard { notification.map(Notification::into_hard_reset) } else { notification };
        self.close_conn(at, notification.as_ref());
    }

    /// What follows from the loss of a connection, whoever ended it. The connection itself is the caller's.
    pub(crate) fn lose(&mut self, now: Time, at: usize, reason: DownReason, ending: Ending) {
        let code = reason.notice().map(|n| (n.code, n.subcode));
        let Some(index) = self.conns.get(at).map(|c| c.peer) else { return };
        self.forget_conn(index, at);
        let Some(peer) = self.peer_mut(index) else { return };
        peer.since = now;
        let was_established = peer.established == Some(at);
        if was_established {
            peer.counters.flaps += 1;
            peer.expected_until = now + EXPECTED_BACK;
            peer.last_error = Some(reason.clone());
            let name = peer.name.clone();
            self.event(Event::Down { peer: name, reason: reason.clone() });
            self.leave_session(now, index, at, ending);
        } else if !(code == COLLISION && peer.yields()) {
            self.report_failure(index, reason.clone());
        }
        self.recover(now, index, code, was_established);
    }

    /// Routes of a session that was Established: gone, or kept as stale.
    fn leave_session(&mut self, now: Time, index: PeerIndex, at: usize, ending: Ending) {
        let terms = self.conns.get(at).and_then(|c| c.terms.as_ref());
        let (restart, long_lived) = (terms.and_then(|t| t.restart), terms.and_then(|t| t.long_lived));
        let Some(peer) = self.peer_mut(index) else { return };
        peer.established = None;
        peer.epoch.iter_mut().for_each(|e| *e = e.wrapping_add(1));
        let (epoch, groups, before) = (peer.epoch, peer.groups, peer.helper);
        let keep = peer.config.graceful_restart.long_lived.keep;
        peer.groups = [None, None];
        let gentle =
            restart.is_some_and(|r| ending == Ending::Lost || (ending == Ending::Notified && r.notification));
        let mut helper = Helper::default();
        for family in Family::ALL {
            let f = family.index();
            if let Some((group, member)) = groups[f] {
                match family {
                    Family::Ipv4Unicast => self.v4.leave_group(group, member),
                    Family::Ipv6Unicast => self.v6.leave_group(group, member),
                }
            }
            let time =
                restart.filter(|r| gentle && r.families[f].is_some()).map_or(Duration::ZERO, |r| r.time);
            let asked = long_lived.filter(|_| gentle).and_then(|l| l.families[f]);
            let long = asked.map_or(Duration::ZERO, |(_, time)| time.min(keep));
            helper.long_lived_time[f] = long;
            helper.stale[f] = !time.is_zero() || !long.is_zero();
            if !helper.stale[f] {
                self.purge(index, family, epoch[f], false);
                continue;
            }
            if before.long_lived[f].is_some() {
                // Lost again before it had told everything: long-lived stale routes stay so, as long as they had.
                helper.long_lived[f] = before.long_lived[f];
                self.begin_long_lived(index, family);
            } else if before.stale[f] {
                // RFC 4724 §4.2: a second restart before the end of the first takes what was stale already.
                self.purge(index, family, epoch[f], true);
            }
            if time.is_zero() && helper.long_lived[f].is_none() {
                helper.long_lived[f] = Some(now + long);
                self.begin_long_lived(index, family);
            }
        }
        let waits =
            Family::ALL.iter().any(|f| helper.stale[f.index()] && helper.long_lived[f.index()].is_none());
        helper.back_by = restart.filter(|_| waits).map(|r| now + r.time);
        if let Some(peer) = self.peer_mut(index) {
            peer.helper = helper;
        }
        self.report_long_lived(index, before.long_lived);
        self.arm_peer(index);
        self.check_restart(now);
    }

    /// When to try again.
    fn recover(&mut self, now: Time, index: PeerIndex, code: Option<(u8, u8)>, was_established: bool) {
        let Some(peer) = self.peer_mut(index) else { return };
        if peer.range.is_some() {
            if peer.conns.is_empty() && !peer.helper.is_active() {
                self.remove_peer(now, index);
            }
            return;
        }
        if !peer.is_wanted() {
            return;
        }
        // The other connection of a collision is the session; a session that broke is tried again at once.
        if code == COLLISION || (code.is_none() && was_established) {
            let pause = if peer.yields() { peer.config.connect_retry } else { crate::peer::FIRST_RETRY };
            self.retry_in(now, index, pause);
            return;
        }
        if code.is_none() {
            let pause = peer.next_pause(now);
            self.retry_in(now, index, pause);
            return;
        }
        let wait = peer.error_wait;
        let wait = self.jitter.spread(wait);
        if let Some(peer) = self.peer_mut(index) {
            peer.error_wait = (peer.error_wait * 2).min(peer.config.error_wait.1);
            peer.idle_until = Some(now + wait);
            peer.retry_at = None;
        }
        self.arm_peer(index);
    }

    /// Says why it does not come up, when that is news.
    pub(crate) fn report_failure(&mut self, index: PeerIndex, reason: DownReason) {
        let Some(peer) = self.peer_mut(index) else { return };
        // How a hang-up shows differs from call to call and means the same.
        let same = |said: &DownReason| match (said, &reason) {
            (DownReason::Closed(_), DownReason::Closed(_)) => true,
            (said, new) => said == new,
        };
        // Two that call each other meet a different reason by turns; each is news once until a session comes up.
        let again = peer.last_error.as_ref().is_some_and(same) || peer.reported.iter().any(same);
        peer.last_error = Some(reason.clone());
        if again {
            return;
        }
        if peer.reported.len() == REASONS {
            peer.reported.remove(0);
        }
        peer.reported.push(reason.clone());
        let name = peer.name.clone();
        self.event(Event::Failed { peer: name, reason });
    }

    /// Closes a connection; what is queued for it still goes out.
    pub(crate) fn close_conn(&mut self, at: usize, notification: Option<&Notification>) {
        let Some(c) = self.conns.get_mut(at) else { return };
        if c.phase == Phase::Closing {
            return;
        }
        let dialing = c.phase == Phase::Dialing;
        let (id, index) = (c.id, c.peer);
        let notification = notification.filter(|_| !dialing);
        c.close(notification);
        let nothing_left = c.control.is_empty();
        if let Some(notification) = notification {
            self.notifications.note_sent(notification);
        }
        self.outputs.push_back(Output::Close(id));
        self.forget_conn(index, at);
        if nothing_left || dialing {
            self.conns.remove(at);
        }
    }

    pub(crate) fn forget_conn(&mut self, index: PeerIndex, at: usize) {
        if let Some(peer) = self.peer_mut(index) {
            peer.conns.retain(|c| *c != at);
        }
    }

    pub(crate) fn purge(&mut self, index: PeerIndex, family: Family, keep: u8, keep_previous: bool) {
        match family {
            Family::Ipv4Unicast => self.v4.purge(index, keep, keep_previous),
            Family::Ipv6Unicast => self.v6.purge(index, keep, keep_previous),
        }
    }

    // ---- clocks ----

    pub(crate) fn arm_conn(&mut self, at: usize) {
        if let Some(c) = self.conns.get_mut(at)
            && let Some(deadline) = c.deadline()
            && c.armed.is_none_or(|armed| deadline < armed)
        {
            c.armed = Some(deadline);
            self.timers.push(deadline, Owner::Conn(at));
        }
    }

    pub(crate) fn arm_peer(&mut self, index: PeerIndex) {
        if let Some(peer) = self.peer_mut(index)
            && let Some(deadline) = peer.deadline()
            && peer.armed.is_none_or(|armed| deadline < armed)
        {
            peer.armed = Some(deadline);
            self.timers.push(deadline, Owner::Peer(index));
        }
    }

    pub(crate) fn arm_send_hold(&mut self, now: Time, at: usize) {
        let Some(c) = self.conns.get(at) else { return };
        if c.phase != Phase::Established {
            return;
        }
        let hold = c.terms.as_ref().and_then(|t| t.hold);
        let wanted = self.peer(c.peer).and_then(|p| p.config.send_hold);
        let time = wanted.map(|t| if t.is_zero() { SEND_HOLD.max(hold.unwrap_or_default() * 2) } else { t });
        if let Some(c) = self.conns.get_mut(at) {
            c.send_hold_at = time.map(|t| now + t);
        }
        self.arm_conn(at);
    }

    pub(crate) fn on_conn_timer(&mut self, now: Time, armed: Time, at: usize) {
        let Some(c) = self.conns.get_mut(at).filter(|c| c.armed == Some(armed)) else { return };
        c.armed = None;
        let due = |t: Option<Time>| t.is_some_and(|t| t <= now);
        let (dial, delay, hold) = (due(c.dial_at), due(c.delay_at), due(c.hold_at));
        let (send_hold, keepalive) = (due(c.send_hold_at), due(c.keepalive_at));
        if dial {
            self.happen(now, at, Happening::DialTimer);
        } else if delay {
            self.happen(now, at, Happening::DelayTimer);
        } else if hold {
            self.happen(now, at, Happening::HoldTimer);
        } else if send_hold {
            self.happen(now, at, Happening::SendHoldTimer);
        } else if keepalive {
            self.happen(now, at, Happening::KeepaliveTimer);
        }
        self.arm_conn(at);
    }

    pub(crate) fn on_peer_timer(&mut self, now: Time, armed: Time, index: PeerIndex) {
        let Some(peer) = self.peer_mut(index).filter(|p| p.armed == Some(armed)) else { return };
        peer.armed = None;
        let due = |t: Option<Time>| t.is_some_and(|t| t <= now);
        let (idle, retry) = (due(peer.idle_until), due(peer.retry_at));
        let (back, done) = (due(peer.helper.back_by), due(peer.helper.done_by));
        let long = peer.helper.long_lived.map(due);
        if idle {
            peer.idle_until = None;
            peer.held_down = false;
            peer.since = now;
        }
        if retry {
            peer.retry_at = None;
        }
        if done {
            self.end_help(now, index, [true, true]);
        } else if back {
            self.not_back(now, index);
        }
        if long != [false, false] {
            self.end_help(now, index, long);
        }
        let patience = self.peer(index).map(Peer::patience).unwrap_or_default();
        if idle && !patience.is_zero() {
            self.retry_in(now, index, patience);
        } else if idle || retry {
            self.dial(now, index);
        }
        self.arm_peer(index);
    }

    /// The peer did not come back within its restart time: what is stale goes, or becomes long-lived stale (RFC 9494).
    fn not_back(&mut self, now: Time, index: PeerIndex) {
        let Some(peer) = self.peer_mut(index) else { return };
        let before = peer.helper;
        peer.helper.back_by = None;
        let mut over = [false, false];
        for family in Family::ALL {
            let f = family.index();
            if !before.stale[f] || before.long_lived[f].is_some() {
                continue;
            }
            over[f] = before.long_lived_time[f].is_zero();
            if !over[f] {
                if let Some(peer) = self.peer_mut(index) {
                    peer.helper.long_lived[f] = Some(now + before.long_lived_time[f]);
                }
                self.begin_long_lived(index, family);
            }
        }
        self.report_long_lived(index, before.long_lived);
        self.end_help(now, index, over);
    }

    /// What is kept of a peer over its restart becomes long-lived stale.
    fn begin_long_lived(&mut self, index: PeerIndex, family: Family) {
        let Some(keep) = self.peer(index).map(|p| p.epoch[family.index()]) else { return };
        match family {
            Family::Ipv4Unicast => self.v4.mark_long_lived(index, keep),
            Family::Ipv6Unicast => self.v6.mark_long_lived(index, keep),
        }
    }

    fn report_long_lived(&mut self, index: PeerIndex, before: [Option<Time>; 2]) {
        let Some(peer) = self.peer(index) else { return };
        let (name, helper) = (peer.name.clone(), peer.helper);
        for family in Family::ALL {
            let f = family.index();
            if helper.long_lived[f].is_some() && before[f].is_none() {
                let time = helper.long_lived_time[f];
                self.event(Event::LongLivedStale { peer: name.clone(), family, time });
            }
        }
    }

    /// What is stale of these families goes: the peer had its time.
    pub(crate) fn end_help(&mut self, now: Time, index: PeerIndex, over: [bool; 2]) {
        let Some(peer) = self.peer_mut(index) else { return };
        let (stale, epoch) = (peer.helper.stale, peer.epoch);
        for f in [0, 1] {
            peer.helper.stale[f] &= !over[f];
            peer.helper.long_lived[f] = peer.helper.long_lived[f].filter(|_| !over[f]);
        }
        if !peer.helper.is_active() {
            peer.helper = Helper::default();
        }
        let gone = peer.range.is_some() && peer.conns.is_empty() && !peer.helper.is_active();
        for family in Family::ALL {
            let f = family.index();
            if stale[f] && over[f] {
                self.purge(index, family, epoch[f], false);
            }
        }
        if gone {
            self.remove_peer(now, index);
        }
    }
}

/// Whether a NOTIFICATION keeps routes where RFC 8538 was agreed.
pub(crate) fn ending_of(notification: &Notification) -> Ending {
    if notification.is_hard_reset() { Ending::Hard } else { Ending::Notified }
}
