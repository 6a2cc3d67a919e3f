//! Bytes of a connection: framing, and what each message does.

use bird_packet::{
    AfiSafi, Cease, Family, Frame, HEADER_LEN, MAX_LEN, MessageKind, Notification, OpenMessage, RefreshKind,
    RouteRefresh, frame,
};

use crate::ending::{Ending, ending_of};
use crate::fsm::{Happening, Phase, Step, step};
use crate::io::{ConnId, DownReason, Notice, Time};
use crate::rib::table::PeerIndex;
use crate::speaker::Speaker;

/// What arrived in time is read within this; a peer that sends no whole message meanwhile is silent after all.
const UNREAD: Time = Time::from_secs(1);

impl Speaker {
    pub(crate) fn on_received(&mut self, now: Time, id: ConnId, data: &[u8]) {
        let Some(at) = self.conns.find(id) else { return };
        let mut rest = data;
        while !rest.is_empty() {
            let Some(c) = self.conns.get_mut(at).filter(|c| c.id == id) else { return };
            if c.phase == Phase::Closing {
                return;
            }
            let max = c.terms.as_ref().map_or(MAX_LEN, |t| t.max_receive);
            if c.tail.is_empty() {
                match frame(rest, max) {
                    Ok(Some(message)) => {
                        rest = &rest[message.len..];
                        self.on_message(now, at, message);
                    }
                    Ok(None) => {
                        c.tail = rest.to_vec();
                        return;
                    }
                    Err(notification) => return self.end(now, at, Some(notification), Ending::Notified),
                }
                continue;
            }
            // A message that began in an earlier read: complete its header, then the whole, and no more than that.
            let mut tail = std::mem::take(&mut c.tail);
            let want = match tail.get(16..18) {
                Some(len) if tail.len() >= HEADER_LEN => usize::from(u16::from_be_bytes([len[0], len[1]])),
                _ => HEADER_LEN,
            };
            let more = want.saturating_sub(tail.len()).min(rest.len());
            tail.extend_from_slice(&rest[..more]);
            rest = &rest[more..];
            match frame(&tail, max) {
                Ok(Some(message)) => self.on_message(now, at, message),
                Ok(None) => c.tail = tail,
                Err(notification) => return self.end(now, at, Some(notification), Ending::Notified),
            }
        }
    }

    /// A peer that has said something is not silent because nobody has listened yet.
    pub(crate) fn on_waiting(&mut self, now: Time, id: ConnId) {
        let Some(at) = self.conns.find(id) else { return };
        if let Some(c) = self.conns.get_mut(at)
            && c.hold_at.is_some_and(|hold| hold <= now)
        {
            c.hold_at = Some(now + UNREAD);
        }
    }

    fn on_message(&mut self, now: Time, at: usize, message: Frame<'_>) {
        let Some(c) = self.conns.get_mut(at) else { return };
        let (index, phase) = (c.peer, c.phase);
        if phase >= Phase::BfdPending {
            // Any message shows that the peer lives; RFC 4271 restarts the timer on KEEPALIVE and UPDATE.
            c.hold_at = c.terms.as_ref().and_then(|t| t.hold).map(|h| now + h);
        }
        let outcome = match step(phase, Happening::Message(message.kind)) {
            Step::TakeUpdate => self.on_update(now, at, index, message.body),
            Step::TakeOpen | Step::AnswerOpen => {
                OpenMessage::decode(message.body).and_then(|open| self.take_open(now, at, open))
            }
            Step::TakeRefresh => self.on_refresh(at, index, message.body),
            Step::TakeNotification => {
                self.on_notification(now, at, message.body);
                Ok(())
            }
            Step::Alive => Ok(()),
            _ => {
                self.happen(now, at, Happening::Message(message.kind));
                Ok(())
            }
        };
        if message.kind == MessageKind::Keepalive
            && let Some(peer) = self.peer_mut(index)
        {
            peer.counters.keepalives_received += 1;
        }
        if let Err(notification) = outcome {
            // Who exceeds its limit is not helped: its routes go at once (RFC 8538 §4).
            let leaks = (notification.code, notification.subcode) == (6, Cease::MaxPrefixes as u8);
            let ending = if leaks { Ending::Hard } else { ending_of(&notification) };
            self.end(now, at, Some(notification), ending);
        }
    }

    fn on_notification(&mut self, now: Time, at: usize, body: &[u8]) {
        let (notice, ending) = match Notification::decode(body) {
            Ok(n) => {
                self.notifications.note_received(&n);
                (Notice::from(&n), ending_of(&n))
            }
            Err(short) => (Notice::unreadable(short), Ending::Notified),
        };
        self.lose(now, at, DownReason::Received(notice), ending);
        self.close_conn(at, None);
    }

    /// RFC 2918, RFC 7313.
    fn on_refresh(&mut self, at: usize, index: PeerIndex, body: &[u8]) -> Result<(), Notification> {
        let Some(terms) = self.conns.get(at).and_then(|c| c.terms.as_ref()) else { return Ok(()) };
        let enhanced = terms.enhanced_refresh;
        let Some(refresh) = RouteRefresh::decode(body, enhanced)? else { return Ok(()) };
        let Some(family) = refresh.family.family().filter(|f| terms.ctx.family(*f).enabled) else {
            return Ok(());
        };
        if refresh.kind == RefreshKind::Request
            && let Some(peer) = self.peer_mut(index)
        {
            peer.counters.refreshes_received += 1;
        }
        match refresh.kind {
            RefreshKind::Request => self.refresh_out(index, Some(family)),
            RefreshKind::Begin => self.begin_refresh(index, family),
            RefreshKind::End => self.end_refresh(index, family),
        }
        Ok(())
    }

    /// What the peer does not say again before the end of the refresh is gone: its paths get a new epoch from here on.
    fn begin_refresh(&mut self, index: PeerIndex, family: Family) {
        if let Some(peer) = self.peer_mut(index) {
            peer.refreshing[family.index()] = true;
            let epoch = &mut peer.epoch[family.index()];
            *epoch = epoch.wrapping_add(1);
        }
    }

    fn end_refresh(&mut self, index: PeerIndex, family: Family) {
        let Some(peer) = self.peer_mut(index) else { return };
        let epoch = peer.epoch[family.index()];
        // An end without a beginning says nothing (RFC 7313 §4).
        if std::mem::take(&mut peer.refreshing[family.index()]) {
            self.purge(index, family, epoch, false);
        }
    }

    /// Tells a peer everything again.
    pub(crate) fn refresh_out(&mut self, index: PeerIndex, only: Option<Family>) {
        let Some(peer) = self.peer(index) else { return };
        let Some(at) = peer.established else { return };
        let groups = peer.groups;
        let Some(terms) = self.conns.get(at).and_then(|c| c.terms.as_ref()) else { return };
        let enhanced = terms.enhanced_refresh;
        for family in Family::ALL.into_iter().filter(|f| only.is_none_or(|o| o == *f)) {
            let Some((group, member)) = groups[family.index()] else { continue };
            match family {
                Family::Ipv4Unicast => self.v4.refresh(group, member, enhanced),
                Family::Ipv6Unicast => self.v6.refresh(group, member, enhanced),
            }
        }
        self.signal(at);
    }

    /// Asks a peer for everything again, where it can; the routes kept are evaluated anew in any case.
    pub(crate) fn refresh_in(&mut self, index: PeerIndex) {
        self.reimport(index);
        self.begin_review();
        if let Some(at) = self.peer(index).and_then(|p| p.established) {
            self.ask_for_routes(at);
        }
    }

    /// Asks for everything again, where the peer can (RFC 2918).
    pub(crate) fn ask_for_routes(&mut self, at: usize) {
        let Some(c) = self.conns.get_mut(at) else { return };
        let Some(terms) = c.terms.clone() else { return };
        if !terms.refresh {
            return;
        }
        let (index, mut sent) = (c.peer, 0);
        for family in Family::ALL.into_iter().filter(|f| terms.ctx.family(*f).enabled) {
            let refresh = RouteRefresh { family: AfiSafi::from(family), kind: RefreshKind::Request };
            c.send(|out| refresh.encode(out));
            sent += 1;
        }
        if let Some(peer) = self.peer_mut(index) {
            peer.counters.refreshes_sent += sent;
        }
        self.signal(at);
    }
}
