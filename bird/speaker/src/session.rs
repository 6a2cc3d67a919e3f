//! Sessions come: calls, collisions, OPEN, Established. How they go is in `ending`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bird_packet::{Cease, Family, Notification, OpenMessage, PeerKind, encode_keepalive};

use crate::config::PeerConfig;
use crate::ending::{Ending, ending_of};
use crate::export::verdict::{GroupKey, LongLivedTo, SourcePeer};
use crate::fsm::negotiate::{self, Terms};
use crate::fsm::{Happening, Phase, Step, ours_survives, step};
use crate::io::{ConnId, ConnectError, Dial, DownReason, Event, Output, Time};
use crate::peer::Peer;
use crate::rib::decide::PeerRank;
use crate::rib::net::address_bits;
use crate::rib::table::PeerIndex;
use crate::rivals;
use crate::speaker::Speaker;
use crate::view::Said;

/// Hold time before the peer's OPEN is there (RFC 4271 §8.2.2: "a large value").
const OPEN_HOLD: Duration = Duration::from_mins(4);
/// How long a caller from a listen range that is full has its place without an OPEN.
const SILENCE: Duration = Duration::from_secs(5);
/// Longest wait for a call to go through.
const DIAL_TIME: Duration = Duration::from_secs(5);
/// Longest wait for BFD where no hold time was agreed (draft-ietf-idr-bgp-bfd-strict-mode §3, BfdHoldTime).
const BFD_HOLD: Duration = Duration::from_secs(30);

impl Speaker {
    // ---- calling and being called ----

    pub(crate) fn dial(&mut self, now: Time, index: PeerIndex) {
        let Some(peer) = self.peer(index) else { return };
        if !peer.is_called() || !peer.conns.is_empty() || self.stopped {
            return;
        }
        if self.rival_goes_first(now, index) {
            return;
        }
        let Some(peer) = self.peer(index) else { return };
        let config = peer.config.clone();
        let name = peer.name.clone();
        let remote = SocketAddr::new(config.address, config.port);
        let at = self.conns.add(index, Phase::Dialing, remote);
        let timeout = now + DIAL_TIME.max(config.connect_retry);
        if let Some(c) = self.conns.get_mut(at) {
            c.dial_at = Some(timeout);
            let (ttl, min_ttl) = ttl(&config);
            self.outputs.push_back(Output::Connect(Dial {
                conn: c.id,
                peer: name,
                remote,
                interface: config.interface.clone(),
                source: config.source_address,
                ttl,
                min_ttl,
                password: config.password,
            }));
        }
        if let Some(peer) = self.peer_mut(index) {
            peer.conns.push(at);
            peer.retry_at = None;
            peer.since = now;
        }
        self.arm_conn(at);
    }

    pub(crate) fn on_connected(&mut self, now: Time, id: ConnId, local: SocketAddr) {
        let Some(at) = self.conns.find(id) else { return };
        let Some(c) = self.conns.get_mut(at) else { return };
        c.local = Some(local);
        let (peer, dialing) = (c.peer, c.phase == Phase::Dialing);
        if let Some(peer) = self.peer_mut(peer) {
            peer.answered = true;
        }
        match self.peer(peer).and_then(|p| p.config.delay_open) {
            Some(delay) if dialing => self.delay_open(now, at, delay),
            _ => self.happen(now, at, Happening::Connected),
        }
    }

    pub(crate) fn on_other_address(&mut self, id: ConnId, address: IpAddr) {
        if let Some(c) = self.conns.find(id).and_then(|at| self.conns.get_mut(at)) {
            c.other = Some(address);
        }
    }

    pub(crate) fn on_connect_failed(&mut self, now: Time, id: ConnId, reason: ConnectError) {
        let Some(at) = self.conns.find(id) else { return };
        let Some(c) = self.conns.get(at) else { return };
        let (phase, index) = (c.phase, c.peer);
        self.conns.remove(at);
        if phase != Phase::Closing {
            self.forget_conn(index, at);
            self.call_failed(now, index, DownReason::Connect(reason));
        }
    }

    pub(crate) fn call_failed(&mut self, now: Time, index: PeerIndex, reason: DownReason) {
        self.report_failure(index, reason);
        let Some(peer) = self.peer_mut(index) else { return };
        let pause = peer.next_pause(now);
        peer.since = now;
        self.retry_in(now, index, pause);
    }

    /// Calls again after about `pause`, unless there is a session by then.
    pub(crate) fn retry_in(&mut self, now: Time, index: PeerIndex, pause: Duration) {
        let pause = self.jitter.spread(pause);
        if let Some(peer) = self.peer_mut(index) {
            peer.retry_at = Some(now + pause.max(peer.patience()));
        }
        self.arm_peer(index);
    }

    /// Another internal neighbour with this router id. One router may have a session for each family, by addresses of both.
    fn namesake(&self, index: PeerIndex, router_id: std::net::Ipv4Addr, address: IpAddr) -> Option<Arc<str>> {
        let same = |p: &&Peer| {
            let session = p.established.and_then(|at| self.conns.get(at));
            p.index != index
                && p.config.address != address
                && p.config.address.is_ipv4() == address.is_ipv4()
                && session.is_some_and(|c| {
                    let internal = c.terms.as_ref().is_some_and(|t| t.ctx.kind == PeerKind::Internal);
                    internal && c.open.as_ref().is_some_and(|o| o.router_id == router_id)
                })
        };
        self.peers.iter().flatten().map(|p| &**p).find(same).map(|p| Arc::clone(&p.name))
    }

    /// Finds whose call this is.
    pub(crate) fn on_accept(
        &mut self,
        now: Time,
        remote: SocketAddr,
        local: SocketAddr,
        interface: Option<Arc<str>>,
    ) -> Result<ConnId, &'static str> {
        if self.stopped {
            return Err("the speaker is stopping");
        }
        let candidates = match self.peers_for_call(remote.ip(), local.ip(), interface.as_deref()) {
            Ok(candidates) => candidates,
            Err(Some(reason)) => return Err(reason),
            Err(None) => vec![self.dynamic_peer(now, remote.ip())?],
        };
        let Some(&index) = candidates.first() else { return Err("the peer is gone") };
        // A caller that calls again has given up its last call.
        let stale: Vec<usize> = self
            .peer(index)
            .map(|p| p.conns.iter().copied().filter(|c| Some(*c) != p.established).collect())
            .unwrap_or_default();
        for at in stale {
            if self.conns.get(at).is_some_and(|c| !c.outgoing && c.phase != Phase::Established) {
                self.close_conn(at, None);
            }
        }
        let at = self.conns.add(index, Phase::OpenSent, remote);
        let Some(peer) = self.peer_mut(index) else { return Err("the peer is gone") };
        peer.answered = true;
        peer.conns.push(at);
        let delay = peer.config.delay_open;
        if let Some(c) = self.conns.get_mut(at) {
            c.local = Some(local);
            c.interface = interface;
        }
        match delay.or(self.must_show(&candidates).then_some(rivals::SHOW)) {
            Some(delay) => self.delay_open(now, at, delay),
            None => self.send_open(now, at),
        }
        self.conns.get(at).map(|c| c.id).ok_or("the connection is gone")
    }

    fn dynamic_peer(&mut self, now: Time, remote: IpAddr) -> Result<PeerIndex, &'static str> {
        let Some((at, range)) =
            self.config.listen_ranges.iter().enumerate().find(|(_, r)| r.range.contains(&remote))
        else {
            return Err("nobody is configured with this address");
        };
        let config = PeerConfig {
            name: range.name_of(remote),
            address: remote,
            passive: true,
            ..range.template.clone()
        };
        let limit = usize::from(range.limit);
        let known = self.peers.iter().flatten().filter(|p| p.range == Some(at) && !p.removed).count();
        if known >= limit {
            let silent = self.silent_guest(now, at).filter(|_| known == limit);
            let silent = silent.ok_or("its listen range has as many neighbours as it may")?;
            let full = Notification::cease(Cease::OutOfResources);
            for conn in self.peer(silent).map(|p| p.conns.clone()).unwrap_or_default() {
                self.close_conn(conn, Some(&full));
            }
            self.remove_peer(now, silent);
        }
        let index = self.add_peer(now, config);
        if let Some(peer) = self.peer_mut(index) {
            peer.range = Some(at);
            peer.retry_at = None;
        }
        Ok(index)
    }

    /// Of the neighbours from a range, who has kept its place longest without saying who it is.
    fn silent_guest(&self, now: Time, range: usize) -> Option<PeerIndex> {
        let guests = self.peers.iter().flatten().filter(|p| p.range == Some(range) && !p.removed);
        let silent = guests.filter(|p| {
            let said = |at: &usize| self.conns.get(*at).is_none_or(|c| c.open.is_some());
            !p.helper.is_active() && !p.conns.iter().any(said) && now.saturating_sub(p.since) >= SILENCE
        });
        silent.min_by_key(|p| p.since).map(|p| p.index)
    }

    // ---- the state machine at work ----

    /// Something happened to a connection: look it up, do it.
    pub(crate) fn happen(&mut self, now: Time, at: usize, happening: Happening) {
        let Some(phase) = self.conns.get(at).map(|c| c.phase) else { return };
        match step(phase, happening) {
            Step::SendOpen => self.send_open(now, at),
            Step::Establish => self.establish(now, at),
            Step::Proceed => self.proceed(now, at),
            Step::Confirm => {
                if let Some(c) = self.conns.get_mut(at) {
                    c.confirmed = true;
                }
            }
            Step::SendKeepalive => {
                if let Some(c) = self.conns.get_mut(at) {
                    c.send(encode_keepalive);
                    let interval = c.terms.as_ref().and_then(|t| t.keepalive);
                    c.keepalive_at = interval.map(|i| now + i);
                }
                self.signal(at);
            }
            Step::HangUp => {
                let Some(index) = self.conns.get(at).map(|c| c.peer) else { return };
                self.close_conn(at, None);
                self.call_failed(now, index, DownReason::Connect(ConnectError::TimedOut));
            }
            Step::End(notification) => {
                // RFC 8538 §4.2: our own hold timer keeps routes like a lost connection.
                let ending = if notification.code == 4 { Ending::Notified } else { ending_of(&notification) };
                self.end(now, at, Some(notification), ending);
            }
            // These need the message itself: see `receive`.
            Step::Ignore
            | Step::Alive
            | Step::AnswerOpen
            | Step::TakeOpen
            | Step::TakeUpdate
            | Step::TakeRefresh
            | Step::TakeNotification => {}
        }
    }

    /// RFC 4271 §8.1.1, DelayOpen: the peer's OPEN may come first.
    fn delay_open(&mut self, now: Time, at: usize, delay: Duration) {
        if let Some(c) = self.conns.get_mut(at) {
            c.phase = Phase::Delayed;
            c.dial_at = None;
            c.delay_at = Some(now + delay);
        }
        self.arm_conn(at);
    }

    fn send_open(&mut self, now: Time, at: usize) {
        let Some(index) = self.conns.get(at).map(|c| c.peer) else { return };
        let Some(open) = self.open_to(index) else { return };
        if let Some(c) = self.conns.get_mut(at) {
            c.phase = Phase::OpenSent;
            c.dial_at = None;
            c.delay_at = None;
            c.hold_at = Some(now + OPEN_HOLD);
            c.send(|out| open.encode(out));
        }
        if let Some(peer) = self.peer_mut(index) {
            peer.since = now;
        }
        self.signal(at);
        self.arm_conn(at);
    }

    /// The peer's OPEN came in: judge it, resolve collisions, go to OpenConfirm unless BFD is waited for.
    pub(crate) fn take_open(&mut self, now: Time, at: usize, open: OpenMessage) -> Result<(), Notification> {
        let Some(index) = self.rightful(now, at, &open)? else { return Ok(()) };
        if self.conns.get(at).is_some_and(|c| c.phase == Phase::Delayed) {
            self.send_open(now, at);
        }
        let Some(peer) = self.peer(index) else { return Ok(()) };
        let config = peer.config.clone();
        let local = self.config.local;
        if negotiate::judge(&config, &local, &open).is_ok()
            && let Some(session) = self.twin(now, index, at, &open)
        {
            let (address, caller) = (config.address, open.router_id);
            self.report_failure(index, DownReason::Twin { address, session, caller });
            self.close_conn(at, Some(&Notification::cease(Cease::ConnectionRejected)));
            return Ok(());
        }
        let said = Said { asn: open.asn, router_id: open.router_id, hold_time: open.hold_time };
        if let Some(peer) = self.peer_mut(index) {
            peer.said = Some(said);
        }
        let Some(peer) = self.peer(index) else { return Ok(()) };
        negotiate::judge(&config, &local, &open)?;
        let established = peer.established.filter(|e| *e != at);
        let others: Vec<usize> = peer.conns.iter().copied().filter(|c| *c != at).collect();
        // RFC 4271 §6.8, RFC 6286 §2.3: the connection made by the higher (identifier, AS) stays.
        let ours = ours_survives(
            local.router_id.to_bits(),
            config.effective_local_as(&local),
            open.router_id.to_bits(),
            open.asn,
        );
        let outgoing = self.conns.get(at).is_some_and(|c| c.outgoing);
        let lost = || Notification::cease(Cease::CollisionResolution);
        if let Some(old) = established {
            // A peer that calls again has given up the old connection, and so has one that says it restarted
            // (RFC 4724 §4.2). Otherwise both calls crossed, and one side was faster.
            let again = self.conns.get(old).is_some_and(|c| c.outgoing == outgoing);
            let restarted = negotiate::says_restarted(&open);
            if !again && !restarted && outgoing != ours {
                return Err(lost());
            }
            self.end(now, old, Some(lost()), Ending::Lost);
        }
        for other in others {
            let Some(c) = self.conns.get(other) else { continue };
            if !c.phase.is_between() {
                continue;
            }
            if c.outgoing == ours {
                return Err(lost());
            }
            self.close_conn(other, Some(&lost()));
        }
        let terms = negotiate::terms(&config, &local, &open);
        let waits = config.waits_for_bfd() && !self.peer(index).is_some_and(|p| p.bfd_up);
        if let Some(c) = self.conns.get_mut(at) {
            c.phase = Phase::BfdPending;
            // Without a hold time, BFD has a time of its own.
            c.hold_at = terms.hold.or(waits.then_some(BFD_HOLD)).map(|h| now + h);
            c.terms = Some(terms);
            c.open = Some(open);
        }
        self.arm_conn(at);
        if !waits {
            self.proceed(now, at);
        }
        Ok(())
    }

    /// The router id of the speaker that has the session, if it is another one that calls, and the session lives: a
    /// peer that was started anew with another router id is silent on the old connection.
    fn twin(&self, now: Time, index: PeerIndex, at: usize, open: &OpenMessage) -> Option<std::net::Ipv4Addr> {
        let session = self.peer(index)?.established.filter(|e| *e != at).and_then(|e| self.conns.get(e))?;
        let (known, hold) = (session.open.as_ref()?.router_id, session.terms.as_ref()?.hold?);
        // Heard in the last half of the hold time, in which there is a KEEPALIVE.
        let lives = session.hold_at.is_some_and(|end| end.saturating_sub(now) > hold / 2);
        (known != open.router_id && lives).then_some(known)
    }

    /// Nothing is waited for any more: answer the peer's OPEN, go to OpenConfirm, and on if the peer's answer was first.
    fn proceed(&mut self, now: Time, at: usize) {
        let Some(c) = self.conns.get_mut(at) else { return };
        c.phase = Phase::OpenConfirm;
        let hold = c.terms.as_ref().and_then(|t| t.hold);
        let keepalive = c.terms.as_ref().and_then(|t| t.keepalive);
        c.hold_at = hold.map(|h| now + h);
        c.keepalive_at = keepalive.map(|k| now + k);
        c.send(encode_keepalive);
        let confirmed = c.confirmed;
        self.signal(at);
        self.arm_conn(at);
        if confirmed {
            self.establish(now, at);
        }
    }

    fn establish(&mut self, now: Time, at: usize) {
        let Some(c) = self.conns.get_mut(at) else { return };
        c.phase = Phase::Established;
        let (index, remote, addresses) = (c.peer, c.remote, c.addresses());
        let (Some(terms), Some(open)) = (c.terms.clone(), c.open.clone()) else { return };
        c.hold_at = terms.hold.map(|h| now + h);
        let local_config = self.config.local;
        let Some(peer) = self.peer_mut(index) else { return };
        let others: Vec<usize> = peer.conns.iter().copied().filter(|o| *o != at).collect();
        peer.established = Some(at);
        peer.own_address = addresses[0];
        peer.retry_at = None;
        peer.idle_until = None;
        peer.failures = 0;
        peer.since = now;
        peer.last_update = now;
        peer.last_error = None;
        peer.reported.clear();
        peer.eor = [false, false];
        peer.refreshing = [false, false];
        peer.limit_reported = [false, false];
        peer.path_limit_reported = false;
        peer.error_wait = peer.config.error_wait.0;
        peer.counters.established += 1;
        let (name, config, epoch) = (peer.name.clone(), peer.config.clone(), peer.epoch);
        let chains = peer.export.clone();
        let help = peer.helper;
        for other in others {
            self.close_conn(other, Some(&Notification::cease(Cease::CollisionResolution)));
        }

        let internal = terms.ctx.kind == PeerKind::Internal;
        let rank = PeerRank {
            external: !internal,
            router_id: open.router_id.to_bits(),
            address: address_bits(remote.ip()),
        };
        let source = SourcePeer {
            internal,
            local_as: config.effective_local_as(&local_config),
            client: config.route_reflector_client,
            router_id: open.router_id.to_bits(),
        };
        self.set_source(index, rank, source);

        // Helper: what the peer did not keep, or did not bring back, goes now; the rest waits for End-of-RIB.
        let mut kept = [false, false];
        for family in Family::ALL {
            let f = family.index();
            // RFC 9494 §4.2: over the restart time it is the other capability that says so.
            let came_back = if help.long_lived[f].is_some() {
                terms.long_lived.is_some_and(|l| l.families[f].is_some_and(|(kept, _)| kept))
            } else {
                terms.restart.is_some_and(|r| r.families[f] == Some(true))
            };
            kept[f] = help.stale[f] && came_back;
            if help.stale[f] && !kept[f] {
                self.purge(index, family, epoch[f], false);
            }
        }
        if let Some(peer) = self.peer_mut(index) {
            peer.helper.stale = kept;
            for (long_lived, kept) in peer.helper.long_lived.iter_mut().zip(kept) {
                *long_lived = long_lived.filter(|_| kept);
            }
            peer.helper.back_by = None;
            peer.helper.done_by =
                peer.helper.is_active().then(|| now + peer.config.graceful_restart.stale_time);
        }

        for family in Family::ALL {
            if terms.ctx.family(family).enabled {
                let key = self.group_key(&config, &terms, family, addresses, chains[family.index()].clone());
                // RFC 4724 §2: the marker is worth sending to everybody, it tells that the initial table is complete.
                let joined = match family {
                    Family::Ipv4Unicast => self.v4.join(key, index, now),
                    Family::Ipv6Unicast => self.v6.join(key, index, now),
                };
                if let Some(peer) = self.peer_mut(index) {
                    peer.groups[family.index()] = Some(joined);
                }
            }
        }
        self.signal(at);
        self.arm_conn(at);
        self.arm_peer(index);
        self.event(Event::Up { peer: Arc::clone(&name), peer_as: open.asn, router_id: open.router_id });
        if internal && let Some(other) = self.namesake(index, open.router_id, remote.ip()) {
            self.event(Event::SameIdentifier { peer: name, other, router_id: open.router_id });
        }
        self.report_rivals_of(index);
        self.check_restart(now);
    }

    /// What the bytes sent on a session depend on.
    pub(crate) fn group_key(
        &self,
        config: &PeerConfig,
        terms: &Terms,
        family: Family,
        addresses: [Option<IpAddr>; 2],
        chain: Arc<crate::policy::eval::Chain>,
    ) -> GroupKey {
        let me = self.config.local;
        let mut ctx = terms.ctx;
        ctx.peer_as = 0;
        ctx.enforce_first_as = false;
        ctx.reject_as_sets = false;
        for f in Family::ALL {
            ctx.family_mut(f).add_path_rx = false;
            if f != family {
                *ctx.family_mut(f) = bird_packet::FamilyContext::default();
            }
        }
        // A peer that takes IPv4 routes by IPv6 next hops gets the session's own address.
        let [own, _] = addresses;
        let by_v6 = family == Family::Ipv4Unicast
            && terms.ctx.family(family).ext_nexthop
            && own.is_some_and(|own| own.is_ipv6());
        let v4 = addresses.iter().flatten().find_map(|a| match a {
            IpAddr::V4(a) if !by_v6 => Some(*a),
            _ => None,
        });
        let v6 = addresses.iter().flatten().find_map(|a| match a {
            IpAddr::V6(a) => Some(*a),
            IpAddr::V4(_) => None,
        });
        GroupKey {
            ctx,
            internal: terms.ctx.kind == PeerKind::Internal,
            local_as: config.effective_local_as(&me),
            client: config.route_reflector_client,
            cluster_id: config.cluster_id.or(me.cluster_id).unwrap_or(me.router_id).to_bits(),
            next_hop: config.next_hop,
            self_v4: config.next_hop_v4.or(v4),
            self_v6: config.next_hop_v6.or(v6),
            scope: config.export_scope,
            remove_private_as: config.remove_private_as,
            as_override: (config.as_override && terms.ctx.kind == PeerKind::External)
                .then_some(terms.ctx.peer_as),
            policy_missing: config.policy_missing().1 && terms.ctx.kind == PeerKind::External,
            graceful_shutdown: config.graceful_shutdown,
            long_lived: match terms.long_lived {
                Some(_) => LongLivedTo::Known,
                None if config.graceful_restart.long_lived.partial
                    && terms.ctx.kind == PeerKind::Internal =>
                {
                    LongLivedTo::Lowered
                }
                None => LongLivedTo::Nobody,
            },
            path_limit: [config.add_path.send_limit, terms.paths_limit[family.index()]]
                .into_iter()
                .flatten()
                .min()
                .filter(|_| terms.ctx.family(family).add_path_tx),
            chain,
        }
    }

    fn set_source(&mut self, index: PeerIndex, rank: PeerRank, source: SourcePeer) {
        let at = usize::from(index);
        if at >= self.core.ranks.len() {
            self.core.ranks.resize(at + 1, PeerRank::default());
            self.core.sources.resize(at + 1, SourcePeer::default());
        }
        let before = self.core.ranks[at];
        self.core.ranks[at] = rank;
        self.core.sources[at] = source;
        let same = (before.external, before.router_id, before.address)
            == (rank.external, rank.router_id, rank.address);
        if !same {
            // Paths kept from an earlier session rank by who the peer is now.
            if self.v4.received_from(index) > 0 {
                self.v4.review_decisions();
            }
            if self.v6.received_from(index) > 0 {
                self.v6.review_decisions();
            }
            self.begin_review();
        }
    }
}

/// TTL of what we send, and the least that we take (RFC 5082).
fn ttl(config: &PeerConfig) -> (u8, u8) {
    match config.ttl_security {
        Some(hops) => (255, 255 - hops.max(1) + 1),
        None => (config.multihop, 0),
    }
}
