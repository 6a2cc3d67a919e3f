//! From best paths to kernel routes: what each destination shall have, as interned ids, so that "did it change" is one compare.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use bird_packet::Prefix;
use ipnet::IpNet;

use crate::config::{KernelRules, LearnedMetric, OriginTarget};
use crate::io::{FibHop, FibRoute, FibTarget};
use crate::rib::decide::Decision;
use crate::rib::index32;
use crate::rib::net::prefix_of;
use crate::rib::nexthop::{NextHopAddr, NextHops, NhId, State};
use crate::rib::table::{Path, source};

/// LOCAL_PREF and kernel metric add up to this.
pub(crate) const METRIC_SUM: u32 = 2_147_483_647;

/// No kernel route.
pub(crate) const NO_ROUTE: u32 = 0;

/// Distinct kernel routes by number; most destinations share a few.
pub(crate) struct FibRoutes {
    entries: Vec<(Option<Arc<FibRoute>>, u32)>,
    free: Vec<u32>,
    index: HashMap<Arc<FibRoute>, u32, foldhash::fast::FixedState>,
}

impl FibRoutes {
    pub(crate) fn new() -> Self {
        FibRoutes { entries: vec![(None, 1)], free: Vec::new(), index: HashMap::default() }
    }

    /// The id of a route, with one more reference.
    pub(crate) fn intern(&mut self, route: FibRoute) -> u32 {
        if let Some(&id) = self.index.get(&route) {
            self.entries[id as usize].1 += 1;
            return id;
        }
        let route = Arc::new(route);
        let entry = (Some(route.clone()), 1);
        let id = if let Some(id) = self.free.pop() {
            self.entries[id as usize] = entry;
            id
        } else {
            self.entries.push(entry);
            index32(self.entries.len() - 1)
        };
        self.index.insert(route, id);
        id
    }

    pub(crate) fn retain(&mut self, id: u32) {
        self.entries[id as usize].1 += 1;
    }

    pub(crate) fn release(&mut self, id: u32) {
        if id == NO_ROUTE {
            return;
        }
        let entry = &mut self.entries[id as usize];
        entry.1 -= 1;
        if entry.1 == 0
            && let Some(route) = entry.0.take()
        {
            self.index.remove(&route);
            self.free.push(id);
        }
    }

    pub(crate) fn get(&self, id: u32) -> Option<&FibRoute> {
        self.entries[id as usize].0.as_deref()
    }

    pub(crate) fn route(&self, id: u32) -> Option<Arc<FibRoute>> {
        self.entries[id as usize].0.clone()
    }
}

/// Why a best path is not in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotProgrammed {
    /// Writing is off.
    Disabled,
    /// The kernel has this route from somebody else; it is the best.
    KernelOwns,
    /// Originated for export only.
    ExportOnly,
    /// Inside a range that is never programmed.
    NeverProgram,
    /// Inside a pool whose routes somebody else programs.
    PoolOfOthers,
    /// Its next hop is a WireGuard peer.
    Wireguard,
    /// Its next hop is not resolved.
    Unresolved,
    /// There is no usable path.
    NoPath,
    /// It is about to be written, or waits for the end of a restart.
    Waiting,
}

/// Kernel rules, prepared.
pub(crate) struct Kernel {
    program: bool,
    never_program: Vec<Prefix>,
    rejects: Vec<Prefix>,
    tunnels: Vec<Tunnel>,
    wireguard: Vec<IpAddr>,
    pub(crate) ecmp: usize,
    metric: LearnedMetric,
    /// Originated prefixes with target and metric, by the number in [`Path::rx_id`].
    pub(crate) origins: Vec<(OriginTarget, u32)>,
    /// Kernel route of single next hops: (next hop, metric) -> id; valid until a next hop changes.
    memo: HashMap<(NextHopAddr, u32), u32, foldhash::fast::FixedState>,
}

struct Tunnel {
    cidr: Prefix,
    interface: Arc<str>,
    except: Option<IpNet>,
}

impl Kernel {
    pub(crate) fn new(rules: &KernelRules) -> Self {
        let prefixes = |list: &[IpNet]| list.iter().map(|n| prefix_of(*n)).collect();
        Kernel {
            program: rules.program,
            never_program: prefixes(&rules.never_program),
            rejects: prefixes(&rules.rejects),
            tunnels: rules
                .tunnels
                .iter()
                .map(|t| Tunnel {
                    cidr: prefix_of(t.cidr),
                    interface: t.interface.as_str().into(),
                    except: t.except_next_hop_in,
                })
                .collect(),
            wireguard: rules.wireguard_peers.clone(),
            ecmp: usize::from(rules.ecmp.max(1)),
            metric: rules.metric,
            origins: Vec::new(),
            memo: HashMap::default(),
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.program
    }

    /// The metric of a learned route.
    pub(crate) fn learned_metric(&self, local_pref: u32) -> u32 {
        match self.metric {
            LearnedMetric::FromLocalPref => METRIC_SUM.saturating_sub(local_pref),
            LearnedMetric::Fixed(metric) => metric,
        }
    }

    /// Forgets memoised routes; their references are given back.
    pub(crate) fn forget_memo(&mut self, routes: &mut FibRoutes) {
        for (_, id) in self.memo.drain() {
            routes.release(id);
        }
    }

    /// The kernel route that a destination with these paths shall have, with one more reference.
    pub(crate) fn desired(
        &mut self,
        routes: &mut FibRoutes,
        decision: Decision<'_>,
        prefix: Prefix,
        paths: &[Path],
        best: Option<usize>,
        has_med: bool,
    ) -> Result<u32, NotProgrammed> {
        let Some(best) = best else { return Err(NotProgrammed::NoPath) };
        let path = &paths[best];
        self.allowed(prefix, path)?;
        if path.peer == source::STATIC {
            return self.own(routes, path);
        }
        let tunnel = self.tunnels.iter().find(|t| t.cidr.contains(prefix));
        let key = decision.attrs.key(path.attr);
        let metric = self.learned_metric(key.local_pref);
        let single = self.ecmp == 1 || paths.len() == 1;
        if single && tunnel.is_none() {
            let memo = (decision.next_hops.addr(key.next_hop), metric);
            if let Some(&id) = self.memo.get(&memo) {
                routes.retain(id);
                return Ok(id);
            }
            let hops = self.hops(decision.next_hops, key.next_hop, None)?;
            let id = routes.intern(FibRoute { target: FibTarget::Hops(hops), metric });
            routes.retain(id);
            self.memo.insert(memo, id);
            return Ok(id);
        }
        let mut hops = Vec::new();
        let mut refusal = NotProgrammed::Unresolved;
        for at in decision.multipath(paths, best, self.ecmp, has_med) {
            if paths[at].peer < source::FIRST_PEER {
                continue;
            }
            match self.hops(decision.next_hops, decision.attrs.key(paths[at].attr).next_hop, tunnel) {
                Ok(more) => hops.extend(more),
                Err(why) => refusal = why,
            }
        }
        hops.sort();
        hops.dedup();
        hops.truncate(self.ecmp);
        if hops.is_empty() {
            return Err(refusal);
        }
        Ok(routes.intern(FibRoute { target: FibTarget::Hops(hops), metric }))
    }

    fn allowed(&self, prefix: Prefix, path: &Path) -> Result<(), NotProgrammed> {
        if !self.program {
            Err(NotProgrammed::Disabled)
        } else if self.never_program.iter().any(|p| p.contains(prefix)) {
            Err(NotProgrammed::NeverProgram)
        } else if self.rejects.iter().any(|p| p.contains(prefix)) {
            Err(NotProgrammed::PoolOfOthers)
        } else if path.peer == source::LOCAL {
            Err(NotProgrammed::KernelOwns)
        } else {
            Ok(())
        }
    }

    /// Why a destination has no kernel route, if there is a reason.
    pub(crate) fn refusal(
        &self,
        decision: Decision<'_>,
        prefix: Prefix,
        paths: &[Path],
        best: Option<usize>,
    ) -> Option<NotProgrammed> {
        let Some(best) = best else { return Some(NotProgrammed::NoPath) };
        let path = &paths[best];
        if let Err(why) = self.allowed(prefix, path) {
            return Some(why);
        }
        if path.peer == source::STATIC {
            let (target, _) = self.origins[path.rx_id as usize];
            return (target == OriginTarget::None).then_some(NotProgrammed::ExportOnly);
        }
        let tunnel = self.tunnels.iter().find(|t| t.cidr.contains(prefix));
        self.hops(decision.next_hops, decision.attrs.key(path.attr).next_hop, tunnel).err()
    }

    fn own(&self, routes: &mut FibRoutes, path: &Path) -> Result<u32, NotProgrammed> {
        let (target, metric) = self.origins[path.rx_id as usize];
        let target = match target {
            OriginTarget::None => return Err(NotProgrammed::ExportOnly),
            OriginTarget::Blackhole => FibTarget::Blackhole,
            OriginTarget::Via(via) => FibTarget::Hops(vec![FibHop { via, ifindex: 0, device: None }]),
        };
        Ok(routes.intern(FibRoute { target, metric }))
    }

    fn hops(
        &self,
        next_hops: &NextHops,
        id: NhId,
        tunnel: Option<&Tunnel>,
    ) -> Result<Vec<FibHop>, NotProgrammed> {
        let next_hop = next_hops.addr(id);
        let address = next_hop.address;
        if self.wireguard.contains(&address) {
            return Err(NotProgrammed::Wireguard);
        }
        if let Some(tunnel) = tunnel
            && !tunnel.except.is_some_and(|net| net.contains(&address))
        {
            return Ok(vec![FibHop { via: address, ifindex: 0, device: Some(tunnel.interface.clone()) }]);
        }
        match next_hops.state(id) {
            State::Via { hops, .. } => Ok(hops
                .iter()
                .map(|hop| FibHop {
                    via: hop.gateway.or(next_hop.link_local.map(IpAddr::V6)).unwrap_or(address),
                    ifindex: hop.ifindex,
                    // A link-local gateway means nothing without its link.
                    device: (next_hop.scope != 0).then(|| hop.interface.clone()),
                })
                .collect()),
            // Without resolution every next hop counts as on link.
            State::Pending if next_hops.usable(id) => {
                Ok(vec![FibHop { via: address, ifindex: 0, device: None }])
            }
            State::Pending | State::Unreachable => Err(NotProgrammed::Unresolved),
        }
    }
}

/// LOCAL_PREF of a local route with this kernel metric.
pub(crate) fn local_pref_of_metric(metric: u32) -> u32 {
    METRIC_SUM.saturating_sub(metric)
}
