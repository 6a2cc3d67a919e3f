//! What people and programs may ask: peers, routes, what a peer is told, and why. Copies, made on demand.

use std::net::{IpAddr, Ipv4Addr};

use bird_packet::{AttrSet, Capability, Family};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::attrs::AttrsView;
use self::attrs::attrs_view;
pub use self::census::{Census, FamilyTotals, RouteCounts};
pub use self::neighbor::{
    CapabilityView, ConnectionView, NeighborView, Offered, PeerRestartView, Said, SettingsView, TimersView,
};
pub use self::raw::{RawPath, RawPeer, RawWalk};
pub use self::walk::{PathQuery, Walk, Withheld};
use crate::config::PeerConfig;
use crate::export::group::{Group, ToldCounts};
use crate::export::verdict::{ExportReason, View};
use crate::fib::NotProgrammed;
use crate::fsm::State;
use crate::import::ImportReason;
use crate::peer::{Counters, Peer};
use crate::policy::eval::Facts;
use crate::rib::attrs::{AttrId, DecisionKey};
use crate::rib::decide::Step;
use crate::rib::net::Net;
use crate::rib::nexthop::NhId;
use crate::rib::routes::Rib;
use crate::rib::table::{DestId, Path, PeerIndex, dest_flag, source};
use crate::speaker::Speaker;

mod attrs;
mod census;
mod explain;
mod neighbor;
mod raw;
mod walk;

/// A peer and its session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerView {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// TCP port that we call.
    pub port: u16,
    /// Its AS.
    pub remote_as: u32,
    /// Ours, as it sees it.
    pub local_as: u32,
    /// iBGP.
    pub internal: bool,
    /// We wait for its call.
    pub passive: bool,
    /// It called from a listen range.
    pub dynamic: bool,
    /// State of the session.
    pub state: State,
    /// Milliseconds in this state.
    pub for_ms: u64,
    /// Why there is no session, or why the last one ended.
    pub last_error: Option<String>,
    /// Milliseconds until the next call.
    pub retry_ms: Option<u64>,
    /// Its BGP Identifier.
    pub router_id: Option<Ipv4Addr>,
    /// Our end of the connection.
    pub local_address: Option<IpAddr>,
    /// Negotiated hold time, seconds; 0: none.
    pub hold_time: Option<u64>,
    /// Keepalive interval, seconds.
    pub keepalive: Option<u64>,
    /// Codes of the capabilities in its OPEN.
    pub capabilities: Vec<u8>,
    /// The families of the session.
    pub families: Vec<FamilyView>,
    /// Why it is not tried, when it is not.
    pub parked: Option<Parked>,
    /// It is to be watched with BFD.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub watched: bool,
    /// It answers, and the session waits for BFD, which is not up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits_for_bfd: bool,
    /// We keep routes of it over its restart.
    pub restarting: bool,
    /// Totals.
    pub counters: Counters,
}

/// Why a peer is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Parked {
    /// The configuration disables it.
    Disabled,
    /// It exceeded its prefix limit.
    PrefixLimit,
    /// A pause after an error.
    Error,
}

/// One family of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FamilyView {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Paths received and held.
    pub received: u32,
    /// Paths told to the peer.
    pub advertised: usize,
    /// It sent End-of-RIB.
    pub end_of_rib: bool,
    /// Several paths per prefix come in.
    pub add_path_receive: bool,
    /// Several paths per prefix go out.
    pub add_path_send: bool,
}

/// A path of a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathView {
    /// The prefix.
    pub prefix: IpNet,
    /// `static`, `connected`, `kernel`, or the peer's name.
    pub from: String,
    /// Path identifier of the peer.
    pub path_id: u32,
    /// Milliseconds since a path of this prefix came, went or got other attributes; whole seconds. What did not change for
    /// more than 194 days may seem as young as 97.
    #[serde(default)]
    pub changed_ms: u64,
    /// Its next hop.
    pub next_hop: Option<IpAddr>,
    /// Interface of the next hop or of the local route.
    pub interface: Option<String>,
    /// Attributes.
    #[serde(flatten)]
    pub attrs: AttrsView,
    /// It is the best.
    pub best: bool,
    /// It shares the load with the best.
    pub multipath: bool,
    /// Kept over a restart of its peer.
    pub stale: bool,
    /// Its peer was not back in time: the last resort (RFC 9494).
    pub long_lived: bool,
    /// Whether import took it.
    pub import: ImportReason,
    /// The next hop is resolved.
    pub reachable: bool,
    /// At which step it lost against the best.
    pub lost: Option<Step>,
    /// The import filter rule that decided about it, if one did: filter name and number of the rule, from 1.
    #[serde(default)]
    pub rule: Option<String>,
    /// Of the best: why the kernel does not have it; none when it does.
    #[serde(default)]
    pub not_programmed: Option<NotProgrammed>,
}

/// A route around another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Covering {
    /// Its prefix.
    pub prefix: IpNet,
    /// `static`, `connected`, `kernel`, or the name of the peer that told it.
    pub from: String,
}

/// A route that a peer is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdvertisedView {
    /// The prefix.
    pub prefix: IpNet,
    /// Path identifier, 0 without ADD-PATH.
    pub path_id: u32,
    /// The next hop told.
    pub next_hop: Option<IpAddr>,
    /// The attributes told.
    #[serde(flatten)]
    pub attrs: AttrsView,
}

/// Whether a peer is told a prefix, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportView {
    /// The peer.
    pub peer: String,
    /// It is told.
    pub accepted: bool,
    /// Why, or why not.
    pub reason: ExportReason,
    /// The filter rule that decided, if one did: filter name and number of the rule, from 1.
    pub rule: Option<String>,
    /// What it was told last, or is about to be; one for each path with ADD-PATH.
    #[serde(default)]
    pub told: Vec<AdvertisedView>,
}

/// A next hop and the way to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NextHopView {
    /// The address in the routes.
    pub address: IpAddr,
    /// Whether it is resolved.
    pub state: Resolved,
    /// The ways, in words: `via 10.0.0.1 dev eth0`, `on link eth0`.
    pub ways: Vec<String>,
    /// Metric of the route that leads there.
    pub metric: u32,
}

/// Whether a next hop is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resolved {
    /// The kernel has not answered yet.
    Pending,
    /// There is no route to it.
    Unreachable,
    /// There is.
    Reachable,
}

/// From the UPDATE to the kernel route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The prefix that is explained.
    pub prefix: IpNet,
    /// All paths, the best first.
    pub paths: Vec<PathView>,
    /// The next hops of these paths.
    pub next_hops: Vec<NextHopView>,
    /// The kernel route that there is, in words.
    pub kernel: Option<String>,
    /// Why there is none of the best path.
    pub not_programmed: Option<NotProgrammed>,
    /// What each peer with a session is told.
    pub exports: Vec<ExportView>,
}

/// Figures of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Paths of both families.
    pub paths: usize,
    /// Prefixes with a path.
    pub prefixes: usize,
    /// Distinct attribute sets.
    pub attribute_sets: usize,
    /// Update groups.
    pub groups: usize,
}

/// Which routes are asked for.
#[derive(Debug, Clone, Default)]
pub struct RouteFilter<'a> {
    /// This prefix only.
    pub prefix: Option<IpNet>,
    /// With `prefix`: also everything inside it.
    pub inside: bool,
    /// From this peer only.
    pub peer: Option<&'a str>,
    /// At most so many paths.
    pub limit: Option<usize>,
}

impl Speaker {
    /// All peers, by name.
    pub fn peer_views(&self) -> Vec<PeerView> {
        let told = [self.v4.advertised_counts(), self.v6.advertised_counts()];
        let mut views: Vec<PeerView> =
            self.peers.iter().flatten().filter(|p| !p.removed).map(|p| self.peer_view(p, &told)).collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    /// State of one peer.
    pub fn peer_state(&self, name: &str) -> Option<State> {
        let peer = self.peer(self.peer_by_name(name)?)?;
        Some(peer.state(&self.conns))
    }

    fn peer_view(&self, peer: &Peer, told: &[Vec<ToldCounts>; 2]) -> PeerView {
        let config: &PeerConfig = &peer.config;
        let local = &self.config.local;
        let ms = |t: crate::io::Time| u64::try_from(t.as_millis()).unwrap_or(u64::MAX);
        let conn = peer
            .established
            .or_else(|| {
                peer.conns.iter().copied().max_by_key(|c| self.conns.get(*c).map(|c| c.phase.state()))
            })
            .and_then(|at| self.conns.get(at));
        let open = conn.and_then(|c| c.open.as_ref());
        let terms = conn.and_then(|c| c.terms.as_ref());
        let families = Family::ALL
            .into_iter()
            .filter(|f| terms.is_some_and(|t| t.ctx.family(*f).enabled))
            .map(|family| {
                let f = family.index();
                let ctx = terms.map(|t| *t.ctx.family(family)).unwrap_or_default();
                FamilyView {
                    family: family.to_string(),
                    received: match family {
                        Family::Ipv4Unicast => self.v4.received_from(peer.index),
                        Family::Ipv6Unicast => self.v6.received_from(peer.index),
                    },
                    advertised: peer.groups[f]
                        .and_then(|(group, _)| told[f].get(group))
                        .map_or(0, |counts| counts.of(peer.index)),
                    end_of_rib: peer.eor[f],
                    add_path_receive: ctx.add_path_rx,
                    add_path_send: ctx.add_path_tx,
                }
            })
            .collect();
        PeerView {
            name: peer.name.to_string(),
            address: config.address,
            port: config.port,
            remote_as: open.map_or(config.remote_as, |o| o.asn),
            local_as: config.effective_local_as(local),
            internal: config.is_internal(local),
            passive: config.passive,
            dynamic: peer.range.is_some(),
            state: peer.state(&self.conns),
            for_ms: ms(self.now.saturating_sub(peer.since)),
            last_error: peer.last_error.as_ref().map(ToString::to_string),
            retry_ms: peer.retry_at.or(peer.idle_until).map(|at| ms(at.saturating_sub(self.now))),
            router_id: open.map(|o| o.router_id),
            local_address: conn.and_then(|c| c.local).map(|l| l.ip()),
            hold_time: terms.map(|t| t.hold.map_or(0, |h| h.as_secs())),
            keepalive: terms.and_then(|t| t.keepalive).map(|k| k.as_secs()),
            capabilities: open
                .map(|o| o.capabilities.iter().map(Capability::code).collect())
                .unwrap_or_default(),
            families,
            parked: parked(peer),
            watched: config.bfd.is_some(),
            waits_for_bfd: self.stands_for_bfd(peer),
            restarting: peer.helper.is_active(),
            counters: peer.counters,
        }
    }

    /// Paths, in order of prefixes, the best of each first.
    pub fn routes(&self, filter: &RouteFilter<'_>) -> Vec<PathView> {
        let peer = match filter.peer.map(|name| self.peer_by_name(name)) {
            Some(None) => return Vec::new(),
            Some(found) => found,
            None => None,
        };
        let mut views = self.routes_of(&self.v4, filter, peer);
        views.extend(self.routes_of(&self.v6, filter, peer));
        if let Some(limit) = filter.limit {
            views.truncate(limit);
        }
        views
    }

    /// Paths of a family that import took, and prefixes whose best path is one.
    pub fn accepted(&self, family: Family) -> (usize, usize) {
        match family {
            Family::Ipv4Unicast => accepted(&self.v4),
            Family::Ipv6Unicast => accepted(&self.v6),
        }
    }

    fn routes_of<N: Net>(
        &self,
        rib: &Rib<N>,
        filter: &RouteFilter<'_>,
        peer: Option<PeerIndex>,
    ) -> Vec<PathView> {
        let wanted = match filter.prefix.map(N::from_ipnet) {
            Some(None) => return Vec::new(),
            Some(net) => net,
            None => None,
        };
        let with_net = |id| (rib.table.net(id), id);
        let mut found: Vec<(N, DestId)> = match wanted {
            Some(net) if !filter.inside => rib.table.find(net).map(with_net).into_iter().collect(),
            Some(net) => rib.table.dest_ids().map(with_net).filter(|(n, _)| net.contains(*n)).collect(),
            None => rib.table.dest_ids().map(with_net).collect(),
        };
        // To sort a million for the sake of the first few takes too long. Each has a path, and no path is left out.
        if let Some(limit) = filter.limit.filter(|limit| peer.is_none() && *limit < found.len()) {
            found.select_nth_unstable(limit);
            found.truncate(limit);
        }
        found.sort_unstable();
        let mut views = Vec::new();
        for (_, id) in found {
            if filter.limit.is_some_and(|limit| views.len() >= limit) {
                break;
            }
            self.dest_views(rib, id, |p| peer.is_none_or(|peer| p.peer == peer), &mut views);
        }
        views
    }

    fn source_name(&self, path: &Path) -> String {
        match path.peer {
            source::STATIC => "static".into(),
            source::LOCAL => match self.core.locals.route(path.rx_id).map(|r| r.key.source) {
                Some(crate::io::LocalSource::Connected) => "connected".into(),
                _ => "kernel".into(),
            },
            peer => self.peer(peer).map_or_else(|| "gone".into(), |p| p.name.to_string()),
        }
    }

    /// The paths of a destination, the best first, of those that `wanted` takes.
    fn dest_views<N: Net>(
        &self,
        rib: &Rib<N>,
        id: DestId,
        wanted: impl Fn(&Path) -> bool,
        views: &mut Vec<PathView>,
    ) {
        let all = rib.table.paths(id);
        let best = rib.table.best(id);
        let decision = self.core.decision();
        let shared: Vec<usize> = match rib.table.best_at(id) {
            Some(best) if all.len() > 1 => {
                let has_med = rib.table.flag(id, dest_flag::HAS_MED);
                decision.multipath(all, best, self.core.kernel.ecmp, has_med)
            }
            Some(best) => vec![best],
            None => Vec::new(),
        };
        let first = best.map(|p| (p.peer, p.rx_id));
        let mut paths: Vec<&Path> = all.iter().filter(|p| wanted(p)).collect();
        paths.sort_by_key(|p| (Some((p.peer, p.rx_id)) != first, p.peer, p.rx_id));
        for path in paths {
            let multipath = shared.iter().any(|i| all[*i] == *path);
            views.push(self.path_view(rib, id, path, best, multipath));
        }
    }

    fn path_view<N: Net>(
        &self,
        rib: &Rib<N>,
        id: DestId,
        path: &Path,
        best: Option<&Path>,
        multipath: bool,
    ) -> PathView {
        let key = self.core.store.attrs.key(path.attr);
        let is_best = best == Some(path);
        let decision = self.core.decision();
        let stale = self
            .peer(path.peer)
            .is_some_and(|p| path.peer >= source::FIRST_PEER && p.epoch[N::FAMILY.index()] != path.epoch);
        let reachable = self.core.store.next_hops.usable(key.next_hop);
        let import = self.import_reason(rib, id, path);
        let in_kernel = rib.table.fib(id) != crate::fib::NO_ROUTE;
        PathView {
            prefix: rib.table.net(id).to_ipnet(),
            from: self.source_name(path),
            path_id: if path.peer < source::FIRST_PEER { 0 } else { path.rx_id },
            changed_ms: u64::try_from(rib.table.unchanged_for(id).as_millis()).unwrap_or(u64::MAX),
            next_hop: self.next_hop_address(key),
            interface: Some(self.view(rib).interface(path, key)).filter(|i| !i.is_empty()).map(Into::into),
            attrs: attrs_view(self.core.store.attrs.attrs(path.attr), Some(key.local_pref)),
            best: is_best,
            multipath,
            stale,
            long_lived: path.is_long_lived(),
            import,
            reachable,
            lost: best
                .filter(|_| !is_best && !path.is_filtered() && reachable)
                .map(|best| decision.why(path, best)),
            rule: self.import_rule(rib, id, path, import),
            not_programmed: (is_best && !in_kernel).then(|| self.not_programmed(rib, Some(id))),
        }
    }

    fn next_hop_address(&self, key: &DecisionKey) -> Option<IpAddr> {
        (key.next_hop != NhId::NONE).then(|| self.core.store.next_hops.addr(key.next_hop).address)
    }

    fn view<'a, N: Net>(&'a self, rib: &'a Rib<N>) -> View<'a, N> {
        View {
            store: &self.core.store,
            locals: &self.core.locals,
            peers: &self.core.sources,
            rules: &rib.rules,
            restarting: self.core.restarting,
        }
    }

    /// A path's attributes as they were received.
    fn original<N: Net>(rib: &Rib<N>, id: DestId, path: &Path) -> AttrId {
        rib.table.originals.get(id, path.peer, path.rx_id).unwrap_or(path.attr)
    }

    fn import_reason<N: Net>(&self, rib: &Rib<N>, id: DestId, path: &Path) -> ImportReason {
        if !path.is_filtered() {
            return ImportReason::Accepted;
        }
        self.judge_path(path.peer, Self::original(rib, id, path))
    }

    fn import_rule<N: Net>(
        &self,
        rib: &Rib<N>,
        id: DestId,
        path: &Path,
        reason: ImportReason,
    ) -> Option<String> {
        if path.peer < source::FIRST_PEER
            || !matches!(reason, ImportReason::Accepted | ImportReason::FilterRejects)
        {
            return None;
        }
        let chain = &self.peer(path.peer)?.import[N::FAMILY.index()];
        if chain.is_empty() {
            return None;
        }
        let original = Self::original(rib, id, path);
        let key = self.core.store.attrs.key(original);
        let facts = Facts {
            prefix: rib.table.net(id).to_prefix(),
            learned: true,
            interface: self.view(rib).interface(path, key),
            internal: self.core.sources.get(usize::from(path.peer)).is_some_and(|s| s.internal),
            local_pref: key.local_pref,
            attrs: self.core.store.attrs.attrs(original),
            own_as: None,
        };
        chain.deciding(&facts).map(|(filter, rule)| format!("{filter} rule {rule}"))
    }

    /// Paths and prefixes held.
    pub fn totals(&self) -> Totals {
        Totals {
            paths: self.v4.table.path_count() + self.v6.table.path_count(),
            prefixes: self.v4.table.dest_ids().count() + self.v6.table.dest_ids().count(),
            attribute_sets: self.core.store.attrs.len(),
            groups: self.v4.groups.iter().flatten().count() + self.v6.groups.iter().flatten().count(),
        }
    }

    /// Distinct attribute sets, and update groups.
    pub fn sizes(&self) -> (usize, usize) {
        let groups = self.v4.groups.iter().flatten().count() + self.v6.groups.iter().flatten().count();
        (self.core.store.attrs.len(), groups)
    }

    /// What a peer is told, in order of prefixes; what was sent or is about to be.
    pub fn advertised(&self, peer: &str) -> Vec<AdvertisedView> {
        let Some(peer) = self.peer_by_name(peer).and_then(|i| self.peer(i)) else { return Vec::new() };
        let mut views = Vec::new();
        if let Some((group, _)) = peer.groups[0] {
            views.extend(self.advertised_of(&self.v4, group, peer.index));
        }
        if let Some((group, _)) = peer.groups[1] {
            views.extend(self.advertised_of(&self.v6, group, peer.index));
        }
        views
    }

    fn advertised_of<N: Net>(&self, rib: &Rib<N>, group: usize, peer: PeerIndex) -> Vec<AdvertisedView> {
        let Some(group) = rib.groups.get(group).and_then(Option::as_ref) else { return Vec::new() };
        let mut views: Vec<AdvertisedView> =
            group.held_by(peer).into_iter().filter_map(|slot| self.told(rib, group, slot)).collect();
        views.sort_by_key(|v| (v.prefix, v.path_id));
        views
    }

    /// What the members of a group are told for a slot.
    fn told<N: Net>(&self, rib: &Rib<N>, group: &Group<N>, slot: u32) -> Option<AdvertisedView> {
        let out = group.held(slot)?;
        let net = rib.table.net(if group.by_path() { rib.table.dest_of_slot(slot) } else { slot });
        let mut bytes = Vec::new();
        let next_hop = self.view(rib).rewrite(&group.key, out.attr, out.from, out.own_as_done, &mut bytes);
        Some(AdvertisedView {
            prefix: net.to_ipnet(),
            path_id: if group.by_path() { slot } else { 0 },
            next_hop: next_hop.map(|n| n.addr),
            attrs: attrs_view(AttrSet::new(&bytes), None),
        })
    }

    /// What import says about attributes of a peer as they were received.
    fn judge_path(&self, index: PeerIndex, attr: AttrId) -> ImportReason {
        let addr = self.core.store.next_hops.addr(self.core.store.attrs.key(attr).next_hop);
        let next_hop = bird_packet::NextHop { addr: addr.address, link_local: addr.link_local };
        match self.judge_attributes(index, self.core.store.attrs.attrs(attr), next_hop) {
            // Filtered although its attributes are fine: a filter did it.
            ImportReason::Accepted => ImportReason::FilterRejects,
            reason => reason,
        }
    }
}

fn accepted<N: Net>(rib: &Rib<N>) -> (usize, usize) {
    let mut counts = (0, 0);
    for id in rib.table.dest_ids() {
        counts.0 += rib.table.paths(id).iter().filter(|p| !p.is_filtered()).count();
        counts.1 += usize::from(rib.table.best(id).is_some());
    }
    counts
}

fn parked(peer: &Peer) -> Option<Parked> {
    if !peer.config.enabled {
        Some(Parked::Disabled)
    } else if peer.held_down {
        Some(Parked::PrefixLimit)
    } else {
        peer.idle_until.map(|_| Parked::Error)
    }
}
