//! A prefix from its paths to the kernel route, and to each peer.

use bird_packet::{Prefix4, Prefix6};
use ipnet::IpNet;

use super::{AdvertisedView, Explanation, ExportView, NextHopView, Resolved, RouteFilter};
use crate::export::verdict::ExportReason;
use crate::fib::NotProgrammed;
use crate::io::{FibRoute, FibTarget, ResolvedHop};
use crate::peer::Peer;
use crate::rib::net::Net;
use crate::rib::nexthop::{self, NhId};
use crate::rib::routes::Rib;
use crate::rib::table::{DestId, Path};
use crate::speaker::Speaker;

impl Speaker {
    /// Everything about a prefix: its paths, the kernel route, and what peers are told and why.
    pub fn explain(&self, prefix: IpNet) -> Explanation {
        let mut explanation = self.explain_here(prefix);
        let established = self.peers.iter().flatten().filter(|p| p.established.is_some());
        explanation.exports = established.filter_map(|p| self.explain_export(prefix, &p.name)).collect();
        explanation
    }

    /// Whether a peer is told a prefix, and why; `None`: there is no session with it.
    pub fn explain_export(&self, prefix: IpNet, peer: &str) -> Option<ExportView> {
        let peer = self.peer(self.peer_by_name(peer)?)?;
        peer.established?;
        match (Prefix4::from_ipnet(prefix), Prefix6::from_ipnet(prefix)) {
            (Some(net), _) => Some(self.export_view(&self.v4, net, peer)),
            (_, Some(net)) => Some(self.export_view(&self.v6, net, peer)),
            _ => None,
        }
    }

    /// A prefix's paths and kernel route, without what peers are told.
    pub fn explain_here(&self, prefix: IpNet) -> Explanation {
        match (Prefix4::from_ipnet(prefix), Prefix6::from_ipnet(prefix)) {
            (Some(net), _) => self.explain_in(&self.v4, net),
            (_, Some(net)) => self.explain_in(&self.v6, net),
            _ => Explanation {
                prefix,
                paths: Vec::new(),
                next_hops: Vec::new(),
                kernel: None,
                not_programmed: None,
                exports: Vec::new(),
            },
        }
    }

    fn explain_in<N: Net>(&self, rib: &Rib<N>, net: N) -> Explanation {
        let filter = RouteFilter { prefix: Some(net.to_ipnet()), ..RouteFilter::default() };
        let id = rib.table.find(net);
        let kernel = id.and_then(|id| self.core.fib_routes.route(rib.table.fib(id)));
        Explanation {
            prefix: net.to_ipnet(),
            paths: self.routes_of(rib, &filter, None),
            next_hops: id.map(|id| self.next_hop_views(rib, id)).unwrap_or_default(),
            not_programmed: if kernel.is_some() { None } else { Some(self.not_programmed(rib, id)) },
            kernel: kernel.map(|route| describe(&route)),
            exports: Vec::new(),
        }
    }

    fn export_view<N: Net>(&self, rib: &Rib<N>, net: N, peer: &Peer) -> ExportView {
        let id = rib.table.find(net);
        let (accepted, reason) = match self.export_verdict(rib, net, id, peer) {
            Ok(reason) => (true, reason),
            Err(reason) => (false, reason),
        };
        let rule = self.deciding_rule(rib, id, peer, reason);
        ExportView { peer: peer.name.to_string(), accepted, reason, rule, told: self.told_of(rib, id, peer) }
    }

    /// What a peer holds of a destination.
    fn told_of<N: Net>(&self, rib: &Rib<N>, id: Option<DestId>, peer: &Peer) -> Vec<AdvertisedView> {
        let group = peer.groups[N::FAMILY.index()]
            .and_then(|(group, _)| rib.groups.get(group))
            .and_then(Option::as_ref);
        let (Some(group), Some(id)) = (group, id) else { return Vec::new() };
        let slots: Vec<u32> =
            if group.by_path() { rib.table.paths(id).iter().map(|p| p.slot).collect() } else { vec![id] };
        let holds = |slot: &u32| group.held(*slot).is_some_and(|out| out.from != peer.index);
        slots.into_iter().filter(holds).filter_map(|slot| self.told(rib, group, slot)).collect()
    }

    fn next_hop_views<N: Net>(&self, rib: &Rib<N>, id: DestId) -> Vec<NextHopView> {
        let mut seen: Vec<NhId> = Vec::new();
        for path in rib.table.paths(id) {
            let next_hop = self.core.store.attrs.key(path.attr).next_hop;
            if next_hop != NhId::NONE && !seen.contains(&next_hop) {
                seen.push(next_hop);
            }
        }
        let hops = &self.core.store.next_hops;
        seen.into_iter()
            .map(|next_hop| {
                let (state, ways) = match hops.state(next_hop) {
                    _ if !hops.is_asked(next_hop) => (Resolved::Reachable, Vec::new()),
                    nexthop::State::Pending => (Resolved::Pending, Vec::new()),
                    nexthop::State::Unreachable => (Resolved::Unreachable, Vec::new()),
                    nexthop::State::Via { hops, .. } => (Resolved::Reachable, hops.iter().map(way).collect()),
                };
                NextHopView {
                    address: hops.addr(next_hop).address,
                    state,
                    ways,
                    metric: hops.metric(next_hop),
                }
            })
            .collect()
    }

    pub(super) fn export_verdict<N: Net>(
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
        let chosen = group.chosen(id, &rib.table, decision, self.view(rib));
        let mut refusal = ExportReason::SplitHorizon;
        for path in candidates.into_iter().filter(|p| p.peer != peer.index) {
            match self.view(rib).verdict(&group.key, net, path) {
                Ok(_) if chosen.as_ref().is_some_and(|chosen| !chosen.contains(path)) => {
                    refusal = ExportReason::PathLimit;
                }
                Ok(accepted) => return Ok(accepted.reason),
                Err(reason) => refusal = reason,
            }
        }
        Err(refusal)
    }

    pub(super) fn deciding_rule<N: Net>(
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

    pub(super) fn not_programmed<N: Net>(&self, rib: &Rib<N>, id: Option<DestId>) -> NotProgrammed {
        let Some(id) = id else { return NotProgrammed::NoPath };
        let net = rib.table.net(id);
        self.core
            .kernel
            .refusal(self.core.decision(), net.to_prefix(), rib.table.paths(id), rib.table.best_at(id))
            .unwrap_or(NotProgrammed::Waiting)
    }
}

fn way(hop: &ResolvedHop) -> String {
    match hop.gateway {
        Some(gateway) => format!("via {gateway} dev {}", hop.interface),
        None => format!("on link {}", hop.interface),
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
