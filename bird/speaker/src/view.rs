//! What people and programs may ask: peers, routes, what a peer is told, and why. Copies, made on demand.

use std::net::{IpAddr, Ipv4Addr};

use bird_packet::{AttrSet, Capability, Family, Prefix4, Prefix6};
use ipnet::IpNet;
use serde::Serialize;

use crate::config::PeerConfig;
use crate::export::verdict::{ExportReason, View};
use crate::fib::NotProgrammed;
use crate::fsm::State;
use crate::import::ImportReason;
use crate::io::{FibRoute, FibTarget};
use crate::peer::{Counters, Peer};
use crate::rib::attrs::{AttrId, DecisionKey};
use crate::rib::decide::Step;
use crate::rib::net::Net;
use crate::rib::nexthop::NhId;
use crate::rib::routes::Rib;
use crate::rib::table::{DestId, Path, PeerIndex, dest_flag, source};
use crate::speaker::Speaker;

/// A peer and its session.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
    /// We keep routes of it over its restart.
    pub restarting: bool,
    /// Totals.
    pub counters: Counters,
}

/// One family of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathView {
    /// The prefix.
    pub prefix: IpNet,
    /// `static`, `connected`, `kernel`, or the peer's name.
    pub from: String,
    /// Path identifier of the peer.
    pub path_id: u32,
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
    /// Whether import took it.
    pub import: ImportReason,
    /// The next hop is resolved.
    pub reachable: bool,
    /// At which step it lost against the best.
    pub lost: Option<Step>,
}

/// Path attributes in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttrsView {
    /// ORIGIN.
    pub origin: String,
    /// AS numbers, nearest first; sets in their places.
    pub as_path: Vec<u32>,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// MED.
    pub med: Option<u32>,
    /// Standard communities.
    pub communities: Vec<String>,
    /// Large communities.
    pub large_communities: Vec<String>,
    /// ORIGINATOR_ID.
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST.
    pub cluster_list: Vec<Ipv4Addr>,
}

/// A route that a peer is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExportView {
    /// The peer.
    pub peer: String,
    /// It is told.
    pub accepted: bool,
    /// Why, or why not.
    pub reason: ExportReason,
    /// The filter rule that decided, if one did: filter name and number of the rule, from 1.
    pub rule: Option<String>,
}

/// From the UPDATE to the kernel route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// All paths, the best first.
    pub paths: Vec<PathView>,
    /// The kernel route that there is, in words.
    pub kernel: Option<String>,
    /// Why there is none of the best path.
    pub not_programmed: Option<NotProgrammed>,
    /// What each peer with a session is told.
    pub exports: Vec<ExportView>,
}

/// Figures of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
        let mut views: Vec<PeerView> =
            self.peers.iter().flatten().filter(|p| !p.removed).map(|p| self.peer_view(p)).collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    /// State of one peer.
    pub fn peer_state(&self, name: &str) -> Option<State> {
        let peer = self.peer(self.peer_by_name(name)?)?;
        Some(peer.state(&self.conns))
    }

    fn peer_view(&self, peer: &Peer) -> PeerView {
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
                    advertised: peer.groups[f].map_or(0, |(group, _)| match family {
                        Family::Ipv4Unicast => self.v4.advertised_count(group, peer.index),
                        Family::Ipv6Unicast => self.v6.advertised_count(group, peer.index),
                    }),
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
        let mut ids: Vec<DestId> = match wanted {
            Some(net) if !filter.inside => rib.table.find(net).into_iter().collect(),
            Some(net) => rib.table.dest_ids().filter(|id| net.contains(rib.table.net(*id))).collect(),
            None => rib.table.dest_ids().collect(),
        };
        ids.sort_unstable_by_key(|id| rib.table.net(*id));
        let mut views = Vec::new();
        for id in ids {
            if filter.limit.is_some_and(|limit| views.len() >= limit) {
                break;
            }
            let from = |p: &&Path| peer.is_none_or(|peer| p.peer == peer);
            let best = rib.table.best(id).map(|p| (p.peer, p.rx_id));
            let mut paths: Vec<&Path> = rib.table.paths(id).iter().filter(from).collect();
            paths.sort_by_key(|p| (Some((p.peer, p.rx_id)) != best, p.peer, p.rx_id));
            views.extend(paths.into_iter().map(|p| self.path_view(rib, id, p)));
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

    fn path_view<N: Net>(&self, rib: &Rib<N>, id: DestId, path: &Path) -> PathView {
        let key = self.core.store.attrs.key(path.attr);
        let best_at = rib.table.best_at(id);
        let paths = rib.table.paths(id);
        let best = rib.table.best(id);
        let is_best = best == Some(path);
        let decision = self.core.decision();
        let has_med = rib.table.flag(id, dest_flag::HAS_MED);
        let multipath = best_at.is_some_and(|best| {
            decision.multipath(paths, best, self.core.kernel.ecmp, has_med).iter().any(|i| paths[*i] == *path)
        });
        let stale = self
            .peer(path.peer)
            .is_some_and(|p| path.peer >= source::FIRST_PEER && p.epoch[N::FAMILY.index()] != path.epoch);
        let reachable = self.core.store.next_hops.usable(key.next_hop);
        PathView {
            prefix: rib.table.net(id).to_ipnet(),
            from: self.source_name(path),
            path_id: if path.peer < source::FIRST_PEER { 0 } else { path.rx_id },
            next_hop: self.next_hop_address(key),
            interface: Some(self.view(rib).interface(path, key)).filter(|i| !i.is_empty()).map(Into::into),
            attrs: attrs_view(self.core.store.attrs.attrs(path.attr), Some(key.local_pref)),
            best: is_best,
            multipath,
            stale,
            import: self.import_reason(rib, id, path),
            reachable,
            lost: best
                .filter(|_| !is_best && !path.is_filtered() && reachable)
                .map(|best| decision.why(path, best)),
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

    fn import_reason<N: Net>(&self, rib: &Rib<N>, id: DestId, path: &Path) -> ImportReason {
        if !path.is_filtered() {
            return ImportReason::Accepted;
        }
        let original = rib.table.originals.get(&(id, path.peer, path.rx_id)).copied().unwrap_or(path.attr);
        self.judge_path(path.peer, original)
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
        let mut views = Vec::new();
        for slot in group.held_by(peer) {
            let Some(out) = group.held(slot) else { continue };
            let net = rib.table.net(if group.by_path() { rib.table.dest_of_slot(slot) } else { slot });
            let mut bytes = Vec::new();
            let view = self.view(rib);
            let next_hop = view.rewrite(&group.key, out.attr, out.from, out.own_as_done, &mut bytes);
            views.push(AdvertisedView {
                prefix: net.to_ipnet(),
                path_id: if group.by_path() { slot } else { 0 },
                next_hop: next_hop.map(|n| n.addr),
                attrs: attrs_view(AttrSet::new(&bytes), None),
            });
        }
        views.sort_by_key(|v| (v.prefix, v.path_id));
        views
    }

    /// Everything about a prefix: its paths, the kernel route, and what peers are told and why.
    pub fn explain(&self, prefix: IpNet) -> Explanation {
        match (Prefix4::from_ipnet(prefix), Prefix6::from_ipnet(prefix)) {
            (Some(net), _) => self.explain_in(&self.v4, net),
            (_, Some(net)) => self.explain_in(&self.v6, net),
            _ => Explanation { paths: Vec::new(), kernel: None, not_programmed: None, exports: Vec::new() },
        }
    }

    fn explain_in<N: Net>(&self, rib: &Rib<N>, net: N) -> Explanation {
        let filter = RouteFilter { prefix: Some(net.to_ipnet()), ..RouteFilter::default() };
        let id = rib.table.find(net);
        let kernel = id.and_then(|id| self.core.fib_routes.route(rib.table.fib(id)));
        let exports = self
            .peers
            .iter()
            .flatten()
            .filter(|p| p.established.is_some())
            .map(|p| {
                let verdict = self.export_verdict(rib, net, id, p);
                let (accepted, reason) = match verdict {
                    Ok(reason) => (true, reason),
                    Err(reason) => (false, reason),
                };
                let rule = self.deciding_rule(rib, id, p, reason);
                ExportView { peer: p.name.to_string(), accepted, reason, rule }
            })
            .collect();
        Explanation {
            paths: self.routes_of(rib, &filter, None),
            not_programmed: if kernel.is_some() { None } else { Some(self.not_programmed(rib, net, id)) },
            kernel: kernel.map(|route| describe(&route)),
            exports,
        }
    }

    fn export_verdict<N: Net>(
        &self,
        rib: &Rib<N>,
        net: N,
        id: Option<DestId>,
        peer: &Peer,
    ) -> Result<ExportReason, ExportReason> {
        let (group, _) = peer.groups[N::FAMILY.index()].ok_or(ExportReason::FamilyOff)?;
        let group = rib.groups.get(group).and_then(Option::as_ref).ok_or(ExportReason::FamilyOff)?;
        let id = id.ok_or(ExportReason::NoPath)?;
        let best = rib.table.best(id).ok_or(ExportReason::NoPath)?;
        let decision = self.core.decision();
        let candidates: Vec<&Path> = if group.by_path() {
            rib.table.paths(id).iter().filter(|p| decision.eligible(p)).collect()
        } else {
            vec![best]
        };
        let mut refusal = ExportReason::SplitHorizon;
        for path in candidates.into_iter().filter(|p| p.peer != peer.index) {
            match self.view(rib).verdict(&group.key, net, path) {
                Ok(accepted) => return Ok(accepted.reason),
                Err(reason) => refusal = reason,
            }
        }
        Err(refusal)
    }

    fn deciding_rule<N: Net>(
        &self,
        rib: &Rib<N>,
        id: Option<DestId>,
        peer: &Peer,
        reason: ExportReason,
    ) -> Option<String> {
        if !matches!(reason, ExportReason::FilterAccepts | ExportReason::FilterRejects) {
            return None;
        }
        let (group, _) = peer.groups[N::FAMILY.index()]?;
        let group = rib.groups.get(group)?.as_ref()?;
        let path = rib.table.best(id?)?;
        let view = self.view(rib);
        let facts = view.facts(&group.key, rib.table.net(id?), path);
        group.key.chain.deciding(&facts).map(|(filter, rule)| format!("{filter} rule {rule}"))
    }

    fn not_programmed<N: Net>(&self, rib: &Rib<N>, net: N, id: Option<DestId>) -> NotProgrammed {
        let Some(id) = id else { return NotProgrammed::NoPath };
        self.core
            .kernel
            .refusal(self.core.decision(), net.to_prefix(), rib.table.paths(id), rib.table.best_at(id))
            .unwrap_or(NotProgrammed::Waiting)
    }

    /// What import says about attributes of a peer as they were received.
    fn judge_path(&self, index: PeerIndex, attr: AttrId) -> ImportReason {
        let at = self.peer(index).and_then(|p| p.established).unwrap_or(usize::MAX);
        let addr = self.core.store.next_hops.addr(self.core.store.attrs.key(attr).next_hop);
        let next_hop = bird_packet::NextHop { addr: addr.address, link_local: addr.link_local };
        match self.judge_attributes(index, at, self.core.store.attrs.attrs(attr), next_hop) {
            // Filtered although its attributes are fine: a filter did it.
            ImportReason::Accepted => ImportReason::FilterRejects,
            reason => reason,
        }
    }
}

fn attrs_view(attrs: AttrSet<'_>, local_pref: Option<u32>) -> AttrsView {
    AttrsView {
        origin: attrs.origin().to_string(),
        as_path: attrs.as_path().asns().collect(),
        local_pref: attrs.local_pref().or(local_pref),
        med: attrs.med(),
        communities: attrs.communities().map(|c| format!("{}:{}", c >> 16, c & 0xffff)).collect(),
        large_communities: attrs.large_communities().map(|c| c.to_string()).collect(),
        originator_id: attrs.originator_id(),
        cluster_list: attrs.cluster_list().collect(),
    }
}

fn describe(route: &FibRoute) -> String {
    let target = match &route.target {
        FibTarget::Blackhole => "blackhole".to_owned(),
        FibTarget::Hops(hops) => {
            let hops: Vec<String> = hops
                .iter()
                .map(|h| match &h.device {
                    Some(device) => format!("via {} dev {device}", h.via),
                    None => format!("via {}", h.via),
                })
                .collect();
            hops.join(", ")
        }
    };
    format!("{target} metric {}", route.metric)
}
