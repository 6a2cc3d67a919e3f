//! The part of the datastore that BGP looks at, typed and kept up to date key by key.
//!
//! A value that cannot be read never reaches [`derive`](crate::derive): its key is quarantined with the reason and the
//! last good value stays. A BGPFilter without a good value refuses everything for the peers that name it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use caracal_model::annotation::{BgpSettings, Discovery, RemoteAs};
use caracal_model::selector::Selector;
use caracal_model::{BlockAffinityValue, Key, Kind, Resource, Value, prefix};
use ipnet::IpNet;

use crate::config::{CommunityRule, ExportScope, Family, Filter, LogLevel, NextHopMode, Problem, SecretRef};
use crate::parse::{self, BadField};

/// Everything that a configuration is derived from.
#[derive(Debug, Default, Clone)]
pub struct Facts {
    pub(crate) nodes: BTreeMap<String, NodeFact>,
    pub(crate) peers: BTreeMap<String, PeerFact>,
    pub(crate) filters: BTreeMap<String, FilterFact>,
    pub(crate) pools: BTreeMap<String, PoolFact>,
    pub(crate) config: Option<ConfigFact>,
    pub(crate) node_configs: BTreeMap<String, ConfigFact>,
    /// Node -> block -> state.
    pub(crate) affinities: BTreeMap<String, BTreeMap<IpNet, AffinityState>>,
    /// Block -> the node that it names.
    pub(crate) blocks: BTreeMap<IpNet, String>,
    /// Namespace/name -> what a peering needs.
    pub(crate) workloads: BTreeMap<String, WorkloadFact>,
    quarantined: BTreeMap<String, Problem>,
}

/// What became of one update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intake {
    /// Something that BGP looks at changed: derive again.
    pub changed: bool,
    /// The value cannot be followed and the last good one stays. Said once for each key and reason.
    pub problem: Option<Problem>,
}

/// A Node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NodeFact {
    /// Address with the length of its subnet.
    pub(crate) v4: Option<IpNet>,
    pub(crate) v6: Option<IpNet>,
    pub(crate) as_number: Option<u32>,
    pub(crate) cluster_id: Option<Ipv4Addr>,
    pub(crate) wireguard_v4: bool,
    pub(crate) wireguard_v6: bool,
    pub(crate) labels: BTreeMap<String, String>,
}

impl NodeFact {
    pub(crate) fn address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::Ipv4 => self.v4,
            Family::Ipv6 => self.v6,
        }
        .map(|net| net.addr())
    }

    pub(crate) fn has_address(&self, address: IpAddr) -> bool {
        self.address(Family::of(address)) == Some(address)
    }
}

/// Which nodes a BGPPeer is for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Locals {
    All,
    Node(String),
    Selector(Selector),
}

/// Whom a BGPPeer names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Remote {
    Address {
        ip: IpAddr,
        port: Option<u16>,
        reachable_by: Option<IpAddr>,
    },
    Selector(Selector),
    Workloads(Selector),
    /// The node finds it. Nodes that run Calico look at the selector, which must match none of them.
    Found {
        by: Discovery,
        remote_as: RemoteAs,
        selector: Option<Selector>,
    },
}

/// A BGPPeer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PeerFact {
    pub(crate) locals: Locals,
    pub(crate) remote: Remote,
    pub(crate) as_number: Option<u32>,
    pub(crate) local_as_number: Option<u32>,
    pub(crate) use_node_ip: bool,
    pub(crate) password: Option<SecretRef>,
    pub(crate) restart_seconds: Option<u64>,
    pub(crate) keepalive_seconds: Option<u64>,
    pub(crate) allow_local_as: Option<u32>,
    pub(crate) ttl_security: Option<u8>,
    pub(crate) keep_next_hop: bool,
    pub(crate) next_hop: NextHopMode,
    pub(crate) filters: Vec<String>,
    pub(crate) manual_reverse: bool,
    pub(crate) export: Option<ExportScope>,
    pub(crate) annotations: Annotations,
}

/// What an object's annotations say, and those that are not followed: a wrong one counts as not given, and must not take
/// its object with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Annotations {
    pub(crate) settings: BgpSettings,
    /// Field, reason, fix.
    pub(crate) bad: Vec<(String, String, String)>,
}

impl Annotations {
    /// What is wrong with those of `object`.
    pub(crate) fn problems(&self, object: &str) -> impl Iterator<Item = Problem> {
        self.bad.iter().map(move |(field, reason, fix)| problem(object, field, reason, fix))
    }
}

/// Which pools bird programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Programs {
    pub(crate) ipip: bool,
    pub(crate) plain: bool,
}

impl Default for Programs {
    fn default() -> Self {
        Self { ipip: false, plain: true }
    }
}

/// A BGPConfiguration; the default value is what holds without one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ConfigFact {
    pub(crate) log_level: Option<LogLevel>,
    pub(crate) mesh: Option<bool>,
    pub(crate) as_number: Option<u32>,
    pub(crate) listen_port: Option<u16>,
    pub(crate) cluster_ips: Vec<IpNet>,
    pub(crate) external_ips: Vec<IpNet>,
    pub(crate) load_balancer_ips: Vec<IpNet>,
    pub(crate) load_balancer_aggregation: bool,
    pub(crate) advertisements: Vec<CommunityRule>,
    pub(crate) mesh_password: Option<SecretRef>,
    pub(crate) mesh_restart_seconds: Option<u64>,
    pub(crate) bind_node_ip: bool,
    pub(crate) ignored_interfaces: Vec<String>,
    pub(crate) programs: Programs,
    pub(crate) priority_v4: Option<u32>,
    pub(crate) priority_v6: Option<u32>,
    pub(crate) annotations: Annotations,
}

impl Default for ConfigFact {
    fn default() -> Self {
        Self {
            log_level: None,
            mesh: None,
            as_number: None,
            listen_port: None,
            cluster_ips: Vec::new(),
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            load_balancer_aggregation: true,
            advertisements: Vec::new(),
            mesh_password: None,
            mesh_restart_seconds: None,
            bind_node_ip: false,
            ignored_interfaces: Vec::new(),
            programs: Programs::default(),
            priority_v4: None,
            priority_v6: None,
            annotations: Annotations::default(),
        }
    }
}

/// A BGPFilter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FilterFact {
    Rules(Filter),
    /// There is one, but nothing good was ever read from it.
    Unreadable,
}

/// How a pool's routes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encapsulation {
    None,
    IpipAlways,
    IpipCrossSubnet,
    Vxlan,
}

/// An IPPool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PoolFact {
    pub(crate) cidr: IpNet,
    pub(crate) disable_bgp_export: bool,
    pub(crate) encapsulation: Encapsulation,
}

/// State of a block affinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AffinityState {
    Confirmed,
    Pending,
    PendingDeletion,
}

/// A WorkloadEndpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkloadFact {
    pub(crate) node: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) addresses: Vec<IpAddr>,
    /// Host end of its link.
    pub(crate) interface: Option<String>,
}

impl Facts {
    /// Nothing known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The prefixes to list and watch for `node`; without one, for all nodes. Workloads are apart: see
    /// [`Facts::wants_workloads`].
    pub fn prefixes(node: Option<&str>) -> Vec<String> {
        let mut prefixes: Vec<String> =
            [Kind::Node, Kind::BgpPeer, Kind::BgpConfiguration, Kind::BgpFilter, Kind::IpPool]
                .into_iter()
                .map(prefix::kind)
                .collect();
        prefixes.push(prefix::BLOCKS.to_owned());
        prefixes.push(match node {
            Some(node) => prefix::affinities_of(node),
            None => prefix::AFFINITIES.to_owned(),
        });
        prefixes
    }

    /// The prefix of workloads, to watch only while [`Facts::wants_workloads`].
    pub fn workload_prefix() -> String {
        prefix::kind(Kind::WorkloadEndpoint)
    }

    /// Whether some BGPPeer selects workloads, so that they matter at all.
    pub fn wants_workloads(&self) -> bool {
        self.peers.values().any(|p| matches!(p.remote, Remote::Workloads(_)))
    }

    /// Takes in one key as it is stored now; `None` when it is gone. Any order of keys ends in the same facts.
    pub fn update(&mut self, key: &str, value: Option<&[u8]>) -> Intake {
        let outcome = match Key::parse(key) {
            Ok(parsed) => self.apply(&parsed, value),
            Err(_) if value.is_none() => Ok(false),
            Err(err) => Err((false, problem(key, "", &err.to_string(), "delete the key"))),
        };
        match outcome {
            Ok(changed) => {
                self.quarantined.remove(key);
                Intake { changed, problem: None }
            }
            Err((changed, problem)) => {
                let known = self.quarantined.get(key) == Some(&problem);
                if !known {
                    self.quarantined.insert(key.to_owned(), problem.clone());
                }
                Intake { changed, problem: (!known).then_some(problem) }
            }
        }
    }

    /// Keys whose value cannot be followed, and why.
    pub fn quarantined(&self) -> impl Iterator<Item = (&str, &Problem)> {
        self.quarantined.iter().map(|(key, problem)| (key.as_str(), problem))
    }

    /// Every secret that a password is taken from.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretRef> {
        let of_peers = self.peers.values().filter_map(|p| p.password.as_ref());
        let configs = self.config.iter().chain(self.node_configs.values());
        of_peers.chain(configs.filter_map(|c| c.mesh_password.as_ref()))
    }

    /// The names of all nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    fn apply(&mut self, key: &Key, value: Option<&[u8]>) -> Result<bool, (bool, Problem)> {
        let parsed = match value {
            None => None,
            Some(bytes) => match Value::parse(key, bytes) {
                Ok(value) => Some(value),
                Err(err) => {
                    let changed = self.unreadable(key);
                    return Err((changed, problem(&err.key, &err.field, &err.reason, &err.fix)));
                }
            },
        };
        self.store(key, parsed.as_ref()).map_err(|bad| {
            let changed = self.unreadable(key);
            (changed, problem(&key.path(), &bad.field, &bad.reason, bad.fix))
        })
    }

    fn store(&mut self, key: &Key, value: Option<&Value>) -> Result<bool, BadField> {
        match key {
            Key::Resource { kind, namespace, name } => {
                let resource = match value {
                    Some(Value::Resource(resource)) => Some(resource),
                    _ => None,
                };
                Ok(match (kind, resource) {
                    (Kind::Node, Some(Resource::Node(r))) => put(&mut self.nodes, name, parse::node(r)?),
                    (Kind::Node, _) => take(&mut self.nodes, name),
                    (Kind::BgpPeer, Some(Resource::BgpPeer(r))) => {
                        put(&mut self.peers, name, parse::peer(r)?)
                    }
                    (Kind::BgpPeer, _) => take(&mut self.peers, name),
                    (Kind::BgpFilter, Some(Resource::BgpFilter(r))) => {
                        put(&mut self.filters, name, FilterFact::Rules(parse::filter(r)?))
                    }
                    (Kind::BgpFilter, _) => take(&mut self.filters, name),
                    (Kind::IpPool, Some(Resource::IpPool(r))) => put(&mut self.pools, name, parse::pool(r)?),
                    (Kind::IpPool, _) => take(&mut self.pools, name),
                    (Kind::BgpConfiguration, Some(Resource::BgpConfiguration(r))) => {
                        let fact = parse::config(r)?;
                        self.put_config(name, Some(fact))
                    }
                    (Kind::BgpConfiguration, _) => self.put_config(name, None),
                    (Kind::WorkloadEndpoint, resource) => {
                        let name = format!("{}/{name}", namespace.as_deref().unwrap_or_default());
                        match resource {
                            Some(Resource::WorkloadEndpoint(r)) => {
                                put(&mut self.workloads, &name, parse::workload(r)?)
                            }
                            _ => take(&mut self.workloads, &name),
                        }
                    }
                    _ => false,
                })
            }
            Key::Affinity { host, block } => {
                let of_host = self.affinities.entry(host.clone()).or_default();
                let state = match value {
                    Some(Value::Affinity(affinity)) => Some(affinity_state(affinity)),
                    _ => None,
                };
                let changed = match state {
                    Some(state) => of_host.insert(*block, state) != Some(state),
                    None => of_host.remove(block).is_some(),
                };
                if of_host.is_empty() {
                    self.affinities.remove(host);
                }
                Ok(changed)
            }
            Key::Block(cidr) => {
                let owner = match value {
                    Some(Value::Block(block)) => block.host().map(str::to_owned),
                    _ => None,
                };
                Ok(match owner {
                    Some(owner) => self.blocks.insert(*cidr, owner.clone()).as_ref() != Some(&owner),
                    None => self.blocks.remove(cidr).is_some(),
                })
            }
            _ => Ok(false),
        }
    }

    /// `default` is for all nodes, `node.<name>` for one; other names mean nothing.
    fn put_config(&mut self, name: &str, fact: Option<ConfigFact>) -> bool {
        if name == "default" {
            let changed = self.config != fact;
            self.config = fact;
            return changed;
        }
        match (name.strip_prefix("node."), fact) {
            (Some(node), Some(fact)) => put(&mut self.node_configs, node, fact),
            (Some(node), None) => take(&mut self.node_configs, node),
            (None, _) => false,
        }
    }

    /// A BGPFilter of which nothing good is known must not be skipped as if it were not there.
    fn unreadable(&mut self, key: &Key) -> bool {
        match key {
            Key::Resource { kind: Kind::BgpFilter, name, .. } if !self.filters.contains_key(name) => {
                self.filters.insert(name.clone(), FilterFact::Unreadable);
                true
            }
            _ => false,
        }
    }
}

fn put<T: PartialEq>(map: &mut BTreeMap<String, T>, name: &str, fact: T) -> bool {
    match map.get_mut(name) {
        Some(old) if *old == fact => false,
        Some(old) => {
            *old = fact;
            true
        }
        None => {
            map.insert(name.to_owned(), fact);
            true
        }
    }
}

fn take<T>(map: &mut BTreeMap<String, T>, name: &str) -> bool {
    map.remove(name).is_some()
}

fn problem(key: &str, field: &str, reason: &str, fix: &str) -> Problem {
    Problem {
        object: key.to_owned(),
        field: field.to_owned(),
        reason: reason.to_owned(),
        fix: fix.to_owned(),
    }
}

fn affinity_state(affinity: &BlockAffinityValue) -> AffinityState {
    match affinity.state() {
        caracal_model::AffinityState::Confirmed => AffinityState::Confirmed,
        caracal_model::AffinityState::PendingDeletion => AffinityState::PendingDeletion,
        // A word of a newer release is no confirmation.
        caracal_model::AffinityState::Pending | caracal_model::AffinityState::Other(_) => {
            AffinityState::Pending
        }
    }
}
