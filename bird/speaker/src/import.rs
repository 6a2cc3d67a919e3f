//! UPDATE to path: RFC 7606 verdicts, loops, import filters, prefix limits.

use std::net::IpAddr;

use bird_packet::attr::community;
use bird_packet::{
    AttrSet, Cease, Family, NextHop, NlriIter, Notification, ReadPrefix, Routes, UpdateView, Verdict,
};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::config::{LimitAction, Local};
use crate::export::verdict::SourcePeer;
use crate::io::{Event, Time};
use crate::peer::Peer;
use crate::policy::eval::{self, Chain, Facts};
use crate::rib::attrs::{AttrId, Standing, Store, flag};
use crate::rib::net::Net;
use crate::rib::nexthop::{NextHopAddr, State};
use crate::rib::review::Reviewer;
use crate::rib::routes::{Announced, Core, Rib};
use crate::rib::table::{DestId, Path, PeerIndex, path_flag};
use crate::speaker::Speaker;

/// Why a received path is not used, or that it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImportReason {
    /// Taken.
    Accepted,
    /// An import filter rejects it.
    FilterRejects,
    /// Our AS is in its path (RFC 4271 §9.1.2).
    OwnAs,
    /// We originated it (ORIGINATOR_ID is our router id, RFC 4456 §8).
    OwnOriginator,
    /// It passed through our cluster (RFC 4456 §8).
    OwnCluster,
    /// Its next hop is our own address.
    OwnNextHop,
    /// The peer is external, must have an import filter, and has none (RFC 8212).
    NoPolicy,
}

/// What import looks at, for one peer.
#[derive(Clone, Copy)]
pub(crate) struct Importer<'a> {
    pub(crate) peer: PeerIndex,
    pub(crate) epoch: u8,
    pub(crate) internal: bool,
    /// [`path_flag::LONG_LIVED`], or 0.
    pub(crate) flags: u8,
    /// LOCAL_PREF becomes 0: the session is being drained (RFC 8326).
    pub(crate) lower: bool,
    /// Most paths of a prefix that the peer may tell.
    pub(crate) most_paths: Option<u16>,
    pub(crate) chain: &'a Chain,
}

/// What excludes routes of a peer whatever their prefixes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Judge {
    own_as: u32,
    allow_own_as: usize,
    router_id: std::net::Ipv4Addr,
    cluster: std::net::Ipv4Addr,
    own_address: Option<IpAddr>,
    needs_policy: bool,
}

impl Judge {
    fn of(peer: &Peer, local: &Local, sources: &[SourcePeer]) -> Judge {
        let external = sources.get(usize::from(peer.index)).is_some_and(|s| !s.internal);
        Judge {
            own_as: peer.config.effective_local_as(local),
            allow_own_as: usize::from(peer.config.allow_own_as),
            router_id: local.router_id,
            cluster: peer.config.cluster_id.or(local.cluster_id).unwrap_or(local.router_id),
            own_address: peer.own_address,
            needs_policy: peer.config.policy_missing().0 && external,
        }
    }

    pub(crate) fn verdict(&self, attrs: AttrSet<'_>, next_hop: NextHop) -> ImportReason {
        if attrs.as_path().count(self.own_as) > self.allow_own_as {
            ImportReason::OwnAs
        } else if attrs.originator_id() == Some(self.router_id) {
            ImportReason::OwnOriginator
        } else if attrs.cluster_list().any(|c| c == self.cluster) {
            ImportReason::OwnCluster
        } else if self.own_address == Some(next_hop.addr) {
            ImportReason::OwnNextHop
        } else if self.needs_policy {
            ImportReason::NoPolicy
        } else {
            ImportReason::Accepted
        }
    }
}

/// The attributes that came last: UPDATEs that follow each other often have the same.
#[derive(Default)]
pub(crate) struct LastAttrs {
    peer: PeerIndex,
    epoch: u8,
    raw: Vec<u8>,
    next_hop: Option<NextHop>,
    attr: Option<AttrId>,
    reason: Option<ImportReason>,
}

/// Lookups made before the first is acted upon.
const AHEAD: usize = 32;

/// Malformed UPDATEs of a session that are worth a line in the log.
const MALFORMED_EVENTS: u64 = 10;

impl Speaker {
    pub(crate) fn on_update(
        &mut self,
        now: Time,
        at: usize,
        index: PeerIndex,
        body: &[u8],
    ) -> Result<(), Notification> {
        let Some(ctx) = self.conns.get(at).and_then(|c| c.terms.as_ref()).map(|t| t.ctx) else {
            return Ok(());
        };
        let view = UpdateView::parse(body, &ctx)?;
        let Some(peer) = self.peers.get_mut(usize::from(index)).and_then(Option::as_deref_mut) else {
            return Ok(());
        };
        peer.counters.updates_received += 1;
        peer.last_update = now;
        let epochs = peer.epoch;
        if view.verdict() != Verdict::Ok || view.discards().next().is_some() {
            self.report_malformed(at, index, &view);
        }
        if let Some(family) = view.end_of_rib() {
            self.on_end_of_rib(now, index, family);
            return Ok(());
        }
        for withdrawal in view.withdrawals() {
            match withdrawal.routes {
                Routes::V4(routes) => self.v4.withdraw_all(&mut self.core, index, routes),
                Routes::V6(routes) => self.v6.withdraw_all(&mut self.core, index, routes),
            }
        }
        for announcement in view.announcements() {
            let family = announcement.family;
            let epoch = epochs[family.index()];
            let (attr, reason) = self.attributes(index, epoch, &view, announcement.next_hop);
            let Some(peer) = self.peers.get(usize::from(index)).and_then(Option::as_deref) else {
                return Ok(());
            };
            let internal = self.core.sources[usize::from(index)].internal;
            let lower = peer.config.graceful_shutdown;
            let importer = Importer {
                peer: index,
                epoch,
                internal,
                flags: 0,
                lower,
                most_paths: peer.config.add_path.receive_limit,
                chain: &peer.import[family.index()],
            };
            let limit = peer.config.prefix_limit;
            let room = |received: u32| match limit {
                Some(limit) => limit.max.saturating_sub(received),
                None => u32::MAX,
            };
            let discard = limit.is_some_and(|l| l.action == LimitAction::Discard);
            let exceeded = match announcement.routes {
                Routes::V4(routes) => {
                    let room = room(self.v4.received_from(index));
                    self.v4.import_all(&mut self.core, importer, attr, reason, routes, room, discard)
                }
                Routes::V6(routes) => {
                    let room = room(self.v6.received_from(index));
                    self.v6.import_all(&mut self.core, importer, attr, reason, routes, room, discard)
                }
            };
            let refused =
                std::mem::take(&mut self.v4.paths_refused) + std::mem::take(&mut self.v6.paths_refused);
            if refused > 0 {
                self.on_path_limit(index, refused);
            }
            if exceeded {
                self.on_limit(now, index, family)?;
            }
        }
        Ok(())
    }

    /// The id of an UPDATE's attributes, held by the cache, and whether they exclude the routes whatever these are.
    fn attributes(
        &mut self,
        index: PeerIndex,
        epoch: u8,
        view: &UpdateView<'_>,
        next_hop: NextHop,
    ) -> (AttrId, ImportReason) {
        let raw = view.attributes().raw();
        let last = &self.last_attrs;
        if let (Some(attr), Some(reason)) = (last.attr, last.reason)
            && last.peer == index
            && last.epoch == epoch
            && last.next_hop == Some(next_hop)
            && *last.raw == *raw
        {
            return (attr, reason);
        }
        self.scratch.clear();
        view.attributes().write_canonical(&mut self.scratch);
        let on_link = matches!(next_hop.addr, IpAddr::V6(a) if a.is_unicast_link_local());
        let interface = self.peer(index).and_then(|p| p.config.interface.clone()).filter(|_| on_link);
        let scope = interface.map_or(0, |name| self.core.store.next_hops.scope(&name));
        let addr =
            NextHopAddr { address: next_hop.addr, link_local: next_hop.link_local, local: false, scope };
        let next_hop_id = self.core.store.next_hops.intern(addr);
        let mut attr = self.core.store.intern(&self.scratch, next_hop_id, Standing::Bgp);
        let source = self.core.sources[usize::from(index)];
        let key = self.core.store.attrs.key(attr);
        if key.has(flag::GRACEFUL_SHUTDOWN) && !source.internal {
            // RFC 8326 §4.2: least preferred.
            let edited = self.core.store.intern_edit(attr, |builder| {
                builder.local_pref(Some(0));
            });
            self.core.store.release(attr);
            attr = edited;
        }
        let reason = self.judge_attributes(index, self.core.store.attrs.attrs(attr), next_hop);
        let last = &mut self.last_attrs;
        let old = last.attr.replace(attr);
        last.peer = index;
        last.epoch = epoch;
        last.raw.clear();
        last.raw.extend_from_slice(raw);
        last.next_hop = Some(next_hop);
        last.reason = Some(reason);
        self.core.store.release(old.unwrap_or(AttrId::NONE));
        (attr, reason)
    }

    /// Forgets the attributes that came last.
    pub(crate) fn forget_last_attrs(&mut self) {
        if let Some(attr) = self.last_attrs.attr.take() {
            self.core.store.release(attr);
        }
        self.last_attrs = LastAttrs::default();
    }

    pub(crate) fn judge_attributes(
        &self,
        index: PeerIndex,
        attrs: AttrSet<'_>,
        next_hop: NextHop,
    ) -> ImportReason {
        let Some(peer) = self.peer(index) else { return ImportReason::Accepted };
        Judge::of(peer, &self.config.local, &self.core.sources).verdict(attrs, next_hop)
    }

    fn report_malformed(&mut self, at: usize, index: PeerIndex, view: &UpdateView<'_>) {
        let mut count = 0;
        if let Some(c) = self.conns.get_mut(at) {
            c.malformed += 1;
            count = c.malformed;
        }
        let Some(peer) = self.peer_mut(index) else { return };
        peer.counters.malformed += 1;
        if matches!(view.verdict(), Verdict::TreatAsWithdraw(_)) {
            peer.counters.treated_as_withdraw += 1;
        }
        if count > MALFORMED_EVENTS {
            return;
        }
        let name = peer.name.clone();
        let what = match view.verdict() {
            Verdict::TreatAsWithdraw(reason) => format!("routes treated as withdrawn: {reason}"),
            Verdict::Ok => {
                let dropped: Vec<String> = view.discards().map(|d| d.to_string()).collect();
                format!("attribute dropped: {}", dropped.join(", "))
            }
        };
        self.event(Event::Malformed { peer: name, what });
    }

    /// Paths beyond what the peer may tell of a prefix were not taken: counted, and said once in a session.
    fn on_path_limit(&mut self, index: PeerIndex, refused: u64) {
        let Some(peer) = self.peer_mut(index) else { return };
        peer.counters.paths_refused += refused;
        let reported = std::mem::replace(&mut peer.path_limit_reported, true);
        if let (false, Some(max)) = (reported, peer.config.add_path.receive_limit) {
            let name = peer.name.clone();
            self.event(Event::PathLimit { peer: name, max });
        }
    }

    fn on_limit(&mut self, now: Time, index: PeerIndex, family: Family) -> Result<(), Notification> {
        let Some(peer) = self.peer_mut(index) else { return Ok(()) };
        let Some(limit) = peer.config.prefix_limit else { return Ok(()) };
        let reported = std::mem::replace(&mut peer.limit_reported[family.index()], true);
        let name = peer.name.clone();
        if limit.action == LimitAction::Reset {
            peer.held_down = true;
            peer.idle_until = limit.restart.map(|pause| now + pause);
        }
        if !reported {
            self.event(Event::PrefixLimit { peer: name, max: limit.max });
        }
        if limit.action == LimitAction::Reset {
            self.arm_peer(index);
            // RFC 4486 §4: the data names family and limit.
            let afi = bird_packet::AfiSafi::from(family);
            let mut data = afi.afi.to_be_bytes().to_vec();
            data.push(afi.safi);
            data.extend_from_slice(&limit.max.to_be_bytes());
            return Err(Notification::with_data(6, Cease::MaxPrefixes as u8, &data));
        }
        Ok(())
    }

    fn on_end_of_rib(&mut self, now: Time, index: PeerIndex, family: Family) {
        let Some(peer) = self.peer_mut(index) else { return };
        let f = family.index();
        peer.eor[f] = true;
        let was_stale = std::mem::replace(&mut peer.helper.stale[f], false);
        peer.helper.long_lived[f] = None;
        if !peer.helper.is_active() {
            peer.helper.done_by = None;
        }
        let epoch = peer.epoch[f];
        if was_stale {
            self.purge(index, family, epoch, false);
        }
        self.check_restart(now);
    }

    /// Evaluates a peer's paths again, as they were received. In steps, see [`Speaker::slice`].
    pub(crate) fn reimport(&mut self, index: PeerIndex) {
        for family in Family::ALL {
            self.reimport_family(index, family);
        }
    }

    pub(crate) fn reimport_family(&mut self, index: PeerIndex, family: Family) {
        match family {
            Family::Ipv4Unicast => self.v4.review_imports(index),
            Family::Ipv6Unicast => self.v6.review_imports(index),
        }
    }

    /// A step of looking at a family's destinations again.
    pub(crate) fn review(&mut self, family: Family, budget: usize) {
        let peers: SmallVec<[PeerIndex; 4]> = match family {
            Family::Ipv4Unicast => self.v4.reviewed_peers().collect(),
            Family::Ipv6Unicast => self.v6.reviewed_peers().collect(),
        };
        let mut reviewers: Vec<Option<Reviewer<'_>>> = Vec::new();
        for index in peers {
            let at = usize::from(index);
            // What is left of a peer that was removed goes anyway.
            let peer = self.peers.get(at).and_then(Option::as_deref).filter(|p| !p.removed);
            let (Some(peer), Some(source)) = (peer, self.core.sources.get(at)) else { continue };
            let importer = Importer {
                peer: index,
                epoch: 0,
                internal: source.internal,
                flags: 0,
                lower: peer.config.graceful_shutdown,
                most_paths: None,
                chain: &peer.import[family.index()],
            };
            let judge = Judge::of(peer, &self.config.local, &self.core.sources);
            if reviewers.len() <= at {
                reviewers.resize_with(at + 1, || None);
            }
            reviewers[at] = Some(Reviewer { importer, judge });
        }
        match family {
            Family::Ipv4Unicast => self.v4.review_step(&mut self.core, &reviewers, budget),
            Family::Ipv6Unicast => self.v6.review_step(&mut self.core, &reviewers, budget),
        }
    }

    /// Next hops moved: filters that look at interfaces may decide otherwise.
    pub(crate) fn reimport_by_interface(&mut self) {
        let concerned: Vec<(PeerIndex, Family)> = self
            .peers
            .iter()
            .flatten()
            .flat_map(|p| Family::ALL.map(|f| (p, f)))
            .filter(|(p, f)| p.import[f.index()].uses_interface)
            .map(|(p, f)| (p.index, f))
            .collect();
        for (index, family) in concerned {
            self.reimport_family(index, family);
        }
    }
}

/// What an import filter makes of a route.
enum Imported {
    Unchanged,
    Edited(AttrId),
    Rejected,
}

/// Runs an import chain; edited attributes carry a reference.
fn filter<N: Net>(store: &mut Store, chain: &Chain, internal: bool, net: N, attr: AttrId) -> Imported {
    let key = store.attrs.key(attr);
    let interface = match store.next_hops.state(key.next_hop) {
        State::Via { hops, .. } => hops.first().map_or("", |h| &h.interface),
        State::Pending | State::Unreachable => "",
    };
    let facts = Facts {
        prefix: net.to_prefix(),
        learned: true,
        interface,
        internal,
        local_pref: key.local_pref,
        attrs: store.attrs.attrs(attr),
        own_as: None,
    };
    match chain.verdict(&facts) {
        eval::Verdict::None | eval::Verdict::Accept([]) => Imported::Unchanged,
        eval::Verdict::Reject => Imported::Rejected,
        eval::Verdict::Accept(operations) => Imported::Edited(store.intern_edit(attr, |builder| {
            eval::apply(builder, operations, None);
        })),
    }
}

impl<N: Net> Rib<N> {
    fn withdraw_all<P: ReadPrefix + Into<N>>(
        &mut self,
        core: &mut Core,
        peer: PeerIndex,
        routes: NlriIter<'_, P>,
    ) {
        // Find several before touching any: the cache misses of the lookups overlap.
        let mut routes = routes;
        let mut found: SmallVec<[(DestId, u32); AHEAD]> = SmallVec::new();
        loop {
            let mut any = false;
            for nlri in routes.by_ref().take(AHEAD) {
                any = true;
                if let Some(id) = self.table.find(nlri.prefix.into()) {
                    found.push((id, nlri.path_id));
                }
            }
            if !any {
                return;
            }
            for (id, rx_id) in found.drain(..) {
                self.withdraw_from(core, id, peer, rx_id);
            }
        }
    }

    /// Takes the routes of one announcement; true if they exceed `room`, beyond which they are not taken with `discard`.
    #[expect(
        clippy::too_many_arguments,
        reason = "the inner loop of import: everything was looked up before"
    )]
    fn import_all<P: ReadPrefix + Into<N>>(
        &mut self,
        core: &mut Core,
        importer: Importer<'_>,
        attr: AttrId,
        reason: ImportReason,
        routes: NlriIter<'_, P>,
        room: u32,
        discard: bool,
    ) -> bool {
        let mut room = room;
        let mut exceeded = false;
        let mut routes = routes;
        let mut ahead: SmallVec<[(N, u32, Option<DestId>); AHEAD]> = SmallVec::new();
        loop {
            for nlri in routes.by_ref().take(AHEAD) {
                let net: N = nlri.prefix.into();
                ahead.push((net, nlri.path_id, self.table.find(net)));
            }
            if ahead.is_empty() {
                return exceeded;
            }
            for (net, path_id, id) in ahead.drain(..) {
                if room == 0 {
                    let known = self.has_path(net, importer.peer, path_id);
                    exceeded |= !known;
                    if !known && discard {
                        continue;
                    }
                }
                let id = id.unwrap_or_else(|| self.table.find_or_insert(net));
                if importer.most_paths.is_some_and(|most| self.has_enough(id, &importer, path_id, most)) {
                    self.paths_refused += 1;
                    continue;
                }
                core.store.retain(attr);
                if self.import(core, importer, id, path_id, attr, reason) == Announced::New {
                    room = room.saturating_sub(1);
                }
            }
        }
    }

    /// Takes one path; the reference on `attr` moves in.
    #[inline]
    pub(crate) fn import(
        &mut self,
        core: &mut Core,
        importer: Importer<'_>,
        id: DestId,
        rx_id: u32,
        attr: AttrId,
        reason: ImportReason,
    ) -> Announced {
        let Importer { peer, epoch, internal, flags, lower, chain, .. } = importer;
        let path = Path { attr, rx_id, slot: 0, peer, epoch, flags };
        if reason != ImportReason::Accepted {
            return self.announce_at(core, id, Path { flags: flags | path_flag::FILTERED, ..path }, None);
        }
        if lower || flags != 0 {
            return self.import_marked(core, importer, id, path);
        }
        if chain.is_empty() {
            return self.announce_at(core, id, path, None);
        }
        match filter(&mut core.store, chain, internal, self.table.net(id), attr) {
            Imported::Unchanged => self.announce_at(core, id, path, None),
            Imported::Rejected => {
                self.announce_at(core, id, Path { flags: path_flag::FILTERED, ..path }, None)
            }
            Imported::Edited(edited) => {
                let path = Path { attr: edited, flags: path_flag::EDITED, ..path };
                self.announce_at(core, id, path, Some(attr))
            }
        }
    }

    /// Takes a path that is long-lived stale, or of a session that is being drained: what filters make of it, marked.
    #[cold]
    fn import_marked(
        &mut self,
        core: &mut Core,
        importer: Importer<'_>,
        id: DestId,
        path: Path,
    ) -> Announced {
        let store = &mut core.store;
        let (attr, changed) =
            match filter(store, importer.chain, importer.internal, self.table.net(id), path.attr) {
                Imported::Rejected => {
                    let flags = path.flags | path_flag::FILTERED;
                    return self.announce_at(core, id, Path { flags, ..path }, None);
                }
                Imported::Unchanged => (path.attr, false),
                Imported::Edited(edited) => (edited, true),
            };
        let marked = store.intern_edit(attr, |builder| {
            if path.is_long_lived() {
                builder.add_community(community::LLGR_STALE);
            }
            if importer.lower {
                builder.local_pref(Some(0));
            }
        });
        if changed {
            store.release(attr);
        }
        if marked == path.attr {
            // It came so.
            store.release(marked);
            return self.announce_at(core, id, path, None);
        }
        let flags = path.flags | path_flag::EDITED;
        self.announce_at(core, id, Path { attr: marked, flags, ..path }, Some(path.attr))
    }

    /// Whether the importer's peer told other paths of a destination in this session, as many as it may.
    fn has_enough(&self, id: DestId, importer: &Importer<'_>, rx_id: u32, most: u16) -> bool {
        let now = |p: &&Path| p.peer == importer.peer && p.epoch == importer.epoch;
        let mut told = self.table.paths(id).iter().filter(now);
        told.clone().count() >= usize::from(most) && !told.any(|p| p.rx_id == rx_id)
    }

    fn has_path(&self, net: N, peer: PeerIndex, rx_id: u32) -> bool {
        self.table
            .find(net)
            .is_some_and(|id| self.table.paths(id).iter().any(|p| p.peer == peer && p.rx_id == rx_id))
    }
}
