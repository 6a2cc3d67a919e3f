//! Which route goes to which kind of peer, and why: BGP's own rules, then the peer's filters, then the node's rules in their
//! order.

use std::sync::Arc;

use bird_packet::{Family, SessionContext};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::config::{Config, ExportRules, ExportScope, NextHopMode};
use crate::fib::{METRIC_SUM, local_pref_of_metric};
use crate::policy::eval::{Chain, Facts, Verdict};
use crate::policy::{Community, Operation, glob};
use crate::rib::attrs::{DecisionKey, Store, flag};
use crate::rib::local::LocalRoutes;
use crate::rib::net::{Cover, Net};
use crate::rib::nexthop::State;
use crate::rib::table::{Path, PeerIndex, source};

/// Everything about a session that decides which bytes it is sent: sessions with equal keys share an update group.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GroupKey {
    /// Sizes and encodings; receive-side fields are cleared.
    pub(crate) ctx: SessionContext,
    /// iBGP.
    pub(crate) internal: bool,
    pub(crate) local_as: u32,
    /// Route-reflector client, and the cluster id to put in front.
    pub(crate) client: bool,
    pub(crate) cluster_id: u32,
    pub(crate) next_hop: NextHopMode,
    /// Our own next hop of this family on this session.
    pub(crate) self_v4: Option<std::net::Ipv4Addr>,
    pub(crate) self_v6: Option<std::net::Ipv6Addr>,
    pub(crate) scope: ExportScope,
    pub(crate) remove_private_as: bool,
    /// The peers' AS, if it is replaced by ours in what they are told.
    pub(crate) as_override: Option<u32>,
    /// A filter is asked for and there is none (RFC 8212).
    pub(crate) policy_missing: bool,
    /// Attach GRACEFUL_SHUTDOWN (RFC 8326).
    pub(crate) graceful_shutdown: bool,
    /// Whether long-lived stale routes are told (RFC 9494).
    pub(crate) long_lived: LongLivedTo,
    /// With ADD-PATH, how many paths of a prefix are told: the best so many of those that may be.
    pub(crate) path_limit: Option<u16>,
    pub(crate) chain: Arc<Chain>,
}

/// What peers are told of long-lived stale routes (RFC 9494 §4.3, §4.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LongLivedTo {
    /// Nothing: they would take them for good ones.
    Nobody,
    /// As the last resort that they are: with NO_EXPORT and LOCAL_PREF 0.
    Lowered,
    /// As they are: the peer knows them.
    Known,
}

impl GroupKey {
    pub(crate) fn add_path(&self, family: Family) -> bool {
        self.ctx.family(family).add_path_tx
    }
}

/// What export asks about the peer that a route came from.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SourcePeer {
    pub(crate) internal: bool,
    pub(crate) local_as: u32,
    pub(crate) client: bool,
    pub(crate) router_id: u32,
}

/// Why a route is told to a peer, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ExportReason {
    /// Accepted by an export filter of the peer.
    FilterAccepts,
    /// Rejected by an export filter of the peer.
    FilterRejects,
    /// Accepted: a plain router tells what it knows.
    Router,
    /// Accepted: one of this node's own blocks.
    OwnBlock,
    /// Accepted: inside an own block with a better than normal metric.
    Elevated,
    /// Accepted: inside a service range.
    Service,
    /// Accepted: inside a pool.
    Pool,
    /// Rejected: inside a pool that is not to be exported.
    NeverExport,
    /// Rejected: its interface is not told to internal peers.
    InternalInterface,
    /// Rejected: its interface is not told to anybody.
    Interface,
    /// Rejected: inside an own block, whose aggregate is told instead.
    InsideOwnBlock,
    /// Rejected: an aggregate stands for it.
    InsideAggregate,
    /// Rejected: nothing above accepted it.
    Default,
    /// Rejected: the peer is told only what this node itself has.
    ScopeOwn,
    /// Rejected: another external peer of ours or of another node told it, and this one is not given transit.
    ScopeNoTransit,
    /// Rejected: community NO_ADVERTISE.
    NoAdvertise,
    /// Rejected: community NO_EXPORT towards an external peer.
    NoExport,
    /// Rejected: an internal peer told it, and we do not reflect between these two.
    InternalToInternal,
    /// Rejected: long-lived stale, and the peer does not know these.
    LongLivedStale,
    /// Rejected: no next hop of a kind that this session can carry.
    NextHop,
    /// Rejected: the peer is external, must have an export filter, and has none (RFC 8212).
    NoPolicy,
    /// Not yet: learned routes wait until our restart is over.
    Restarting,
    /// It is the peer that told it.
    SplitHorizon,
    /// Enough better paths are told.
    PathLimit,
    /// There is no usable path.
    NoPath,
    /// The family is not in use with this peer.
    FamilyOff,
}

/// A route that goes out, and what changes on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Accepted<'a> {
    pub(crate) reason: ExportReason,
    pub(crate) operations: &'a [Operation],
    pub(crate) communities: SmallVec<[Community; 4]>,
}

impl Accepted<'_> {
    pub(crate) fn changes(&self) -> bool {
        !self.operations.is_empty() || !self.communities.is_empty()
    }
}

/// [`ExportRules`] of one family, prepared.
pub(crate) enum Rules<N: Net> {
    /// A router: everything but what these aggregates stand for.
    Router(Cover<N>),
    Node(Box<NodeRules<N>>),
}

pub(crate) struct NodeRules<N: Net> {
    never_export: Cover<N>,
    internal_interfaces: Vec<String>,
    interfaces: Vec<String>,
    communities: Vec<(N, Vec<Community>)>,
    originates: Cover<N>,
    services: Cover<N>,
    within: Cover<N>,
    normal_local_pref: u32,
}

impl<N: Net> Rules<N> {
    pub(crate) fn new(config: &Config) -> Self {
        let ExportRules::Node(node) = &config.export else {
            let summaries: Vec<_> =
                config.aggregates.iter().filter(|a| a.summary_only).map(|a| a.prefix.trunc()).collect();
            return Rules::Router(Cover::new(&summaries));
        };
        let metric = match N::FAMILY {
            Family::Ipv4Unicast => node.normal_metric_v4,
            Family::Ipv6Unicast => node.normal_metric_v6,
        };
        Rules::Node(Box::new(NodeRules {
            never_export: Cover::new(&node.never_export),
            internal_interfaces: node.internal_never_export_interfaces.clone(),
            interfaces: node.never_export_interfaces.clone(),
            communities: node
                .communities
                .iter()
                .filter_map(|c| Some((N::from_ipnet(c.cidr)?, c.communities.clone())))
                .collect(),
            originates: Cover::new(&node.originates),
            services: Cover::new(&node.services),
            within: Cover::new(&node.export_within),
            normal_local_pref: local_pref_of_metric(metric),
        }))
    }
}

/// What a decision about export looks at besides the group.
pub(crate) struct View<'a, N: Net> {
    pub(crate) store: &'a Store,
    pub(crate) locals: &'a LocalRoutes,
    pub(crate) peers: &'a [SourcePeer],
    pub(crate) rules: &'a Rules<N>,
    /// Learned routes wait for the end of our restart.
    pub(crate) restarting: bool,
}

impl<'a, N: Net> View<'a, N> {
    pub(crate) fn source(&self, peer: PeerIndex) -> SourcePeer {
        self.peers.get(usize::from(peer)).copied().unwrap_or_default()
    }

    pub(crate) fn interface(&self, path: &Path, key: &DecisionKey) -> &'a str {
        match path.peer {
            source::STATIC => "",
            source::LOCAL => self.locals.interface(path.rx_id).map_or("", |i| i),
            _ => match self.store.next_hops.state(key.next_hop) {
                State::Via { hops, .. } => hops.first().map_or("", |h| &h.interface),
                State::Pending | State::Unreachable => "",
            },
        }
    }

    /// Whether a path goes to the peers of a group. Split horizon towards single members is not looked at here.
    #[inline]
    pub(crate) fn verdict<'g>(
        &self,
        group: &'g GroupKey,
        net: N,
        path: &Path,
    ) -> Result<Accepted<'g>, ExportReason> {
        let key = self.store.attrs.key(path.attr);
        let learned = path.peer >= source::FIRST_PEER;
        if key.flags & !flag::LOCAL != 0 {
            communities_allow(group, key)?;
        }
        if learned {
            if self.restarting {
                return Err(ExportReason::Restarting);
            }
            let from = self.source(path.peer);
            // RFC 4271 §9.2: not from one internal peer to another, unless one of them is our client (RFC 4456 §6).
            // Sessions under different local AS numbers are not the same inside (as in BIRD).
            if group.internal
                && from.internal
                && from.local_as == group.local_as
                && !group.client
                && !from.client
            {
                return Err(ExportReason::InternalToInternal);
            }
            match group.scope {
                ExportScope::All => {}
                ExportScope::Own => return Err(ExportReason::ScopeOwn),
                // With a path, an internal peer passes on what an external one told it.
                ExportScope::NoTransit
                    if !from.internal || !self.store.attrs.attrs(path.attr).as_path().is_empty() =>
                {
                    return Err(ExportReason::ScopeNoTransit);
                }
                ExportScope::NoTransit => {}
            }
        }
        if self.next_hop(group, key).is_none() {
            return Err(ExportReason::NextHop);
        }
        let mut accepted =
            Accepted { reason: ExportReason::Router, operations: &[], communities: SmallVec::new() };
        if !group.chain.is_empty() {
            match group.chain.verdict(&self.facts(group, net, path)) {
                Verdict::None => {}
                Verdict::Reject => return Err(ExportReason::FilterRejects),
                Verdict::Accept(operations) => {
                    accepted.reason = ExportReason::FilterAccepts;
                    accepted.operations = operations;
                    return Ok(accepted);
                }
            }
        }
        match self.rules {
            Rules::Node(rules) => {
                accepted.reason = self.node(rules, group, net, path, key, &mut accepted.communities)?;
            }
            Rules::Router(summaries) if summaries.covers(net) && !summaries.has(net) => {
                return Err(ExportReason::InsideAggregate);
            }
            Rules::Router(_) if group.policy_missing => return Err(ExportReason::NoPolicy),
            Rules::Router(_) => {}
        }
        Ok(accepted)
    }

    /// What export filters see of a path.
    pub(crate) fn facts(&self, group: &GroupKey, net: N, path: &Path) -> Facts<'a> {
        let key = self.store.attrs.key(path.attr);
        Facts {
            prefix: net.to_prefix(),
            learned: path.peer >= source::FIRST_PEER,
            interface: self.interface(path, key),
            internal: group.internal,
            local_pref: key.local_pref,
            attrs: self.store.attrs.attrs(path.attr),
            own_as: (!group.internal).then_some(group.local_as),
        }
    }

    /// The rules of a node, in the order of `golden/bgp`: first verdict counts.
    fn node(
        &self,
        rules: &NodeRules<N>,
        group: &GroupKey,
        net: N,
        path: &Path,
        key: &DecisionKey,
        communities: &mut SmallVec<[Community; 4]>,
    ) -> Result<ExportReason, ExportReason> {
        if rules.never_export.covers(net) {
            return Err(ExportReason::NeverExport);
        }
        let looks_at_interface =
            !rules.interfaces.is_empty() || (group.internal && !rules.internal_interfaces.is_empty());
        if looks_at_interface {
            let interface = self.interface(path, key);
            let on = |list: &[String]| !interface.is_empty() && list.iter().any(|p| glob(p, interface));
            if group.internal && on(&rules.internal_interfaces) {
                return Err(ExportReason::InternalInterface);
            }
            if on(&rules.interfaces) {
                return Err(ExportReason::Interface);
            }
        }
        for (cidr, list) in &rules.communities {
            if cidr.contains(net) {
                communities.extend(list.iter().copied());
            }
        }
        if rules.originates.covers(net) {
            if rules.originates.has(net) {
                return Ok(ExportReason::OwnBlock);
            }
            let elevated = key.local_pref > rules.normal_local_pref && key.local_pref <= METRIC_SUM;
            return if elevated { Ok(ExportReason::Elevated) } else { Err(ExportReason::InsideOwnBlock) };
        }
        if rules.services.covers(net) {
            return Ok(ExportReason::Service);
        }
        if rules.within.covers(net) {
            return Ok(ExportReason::Pool);
        }
        Err(ExportReason::Default)
    }
}

/// What well-known communities say about telling.
fn communities_allow(group: &GroupKey, key: &DecisionKey) -> Result<(), ExportReason> {
    if key.has(flag::NO_ADVERTISE) {
        return Err(ExportReason::NoAdvertise);
    }
    if key.has(flag::NO_EXPORT) && !group.internal {
        return Err(ExportReason::NoExport);
    }
    if key.has(flag::LLGR_STALE) && group.long_lived == LongLivedTo::Nobody {
        return Err(ExportReason::LongLivedStale);
    }
    Ok(())
}
