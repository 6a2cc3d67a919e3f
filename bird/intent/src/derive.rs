//! Facts to configuration: the node's own part. Who the peers are is in `peers`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use crate::config::{Family, KernelRules, NORMAL_PRIORITY, NodeConfig, Problem, SecretRef, Tunnel};
use crate::facts::{AffinityState, ConfigFact, Encapsulation, Facts, NodeFact, PoolFact};
use crate::peers;

/// The AS of a cluster that sets none.
const DEFAULT_AS: u32 = 64512;
/// A node with this label, set to `true`, announces no services.
const NO_SERVICES_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// What a node's agent knows besides the datastore.
#[derive(Clone, Debug, Default)]
pub struct Env {
    /// `CALICO_ROUTER_ID`: an address, or `hash`.
    pub router_id: Option<String>,
    /// `CALICO_ADVERTISE_CLUSTER_IPS`: CIDRs, separated by commas; replaces serviceClusterIPs.
    pub advertise_cluster_ips: Option<String>,
    /// Secrets that the agent can read.
    pub secrets: BTreeSet<SecretRef>,
}

impl Env {
    /// Takes the variables from `lookup`; an empty one counts as unset.
    pub fn from_lookup(lookup: &impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| lookup(name).filter(|v| !v.trim().is_empty());
        Self {
            router_id: set("CALICO_ROUTER_ID"),
            advertise_cluster_ips: set("CALICO_ADVERTISE_CLUSTER_IPS"),
            secrets: BTreeSet::new(),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeriveError {
    /// The node has no Node object.
    #[error("node {node} has no Node object; start the agent there with NODENAME={node}, or create the Node")]
    NoNode {
        /// The node asked for.
        node: String,
    },
}

/// Derives the configuration of `node`'s speaker.
///
/// What contradicts something else is left out and named in [`NodeConfig::problems`]; values that cannot be read
/// never got into `facts`.
pub fn derive(facts: &Facts, node: &str, env: &Env) -> Result<NodeConfig, DeriveError> {
    let own = facts.nodes.get(node).ok_or_else(|| DeriveError::NoNode { node: node.to_owned() })?;
    let absent = ConfigFact::default();
    let global = facts.config.as_ref().unwrap_or(&absent);
    let specific = facts.node_configs.get(node).unwrap_or(&absent);
    let mut problems = Vec::new();

    let families: Vec<Family> = [(Family::Ipv4, own.v4), (Family::Ipv6, own.v6)]
        .into_iter()
        .filter_map(|(family, address)| address.map(|_| family))
        .collect();
    if families.is_empty() {
        problems.push(Problem {
            object: format!("Node({node})"),
            field: "spec.bgp".into(),
            reason: "has no BGP address, so the node has no peers".into(),
            fix: "set ipv4Address or ipv6Address, as address/prefix length".into(),
        });
    }
    let router_id = router_id(node, own, env, !families.is_empty(), &mut problems);
    let global_as = global.as_number.unwrap_or(DEFAULT_AS);
    let ranges = service_ranges(global, env, &mut problems);
    let excluded = own.labels.get(NO_SERVICES_LABEL).is_some_and(|v| v == "true");
    let (originates, blackholes) = blocks(facts, node);
    let reflector = own.cluster_id.is_some();
    let mut export_within: Vec<IpNet> =
        facts.pools.values().filter(|p| !p.disable_bgp_export).map(|p| p.cidr).collect();
    if reflector {
        export_within.extend(global.load_balancer_ips.iter().chain(&global.external_ips));
    }
    let mut never_export_interfaces = vec!["*.cali".to_owned(), "*.calico".to_owned()];
    if !global.programs.ipip {
        never_export_interfaces.push("tunl0".to_owned());
    }

    problems.extend(global.annotations.problems("BGPConfiguration(default)"));
    problems.extend(specific.annotations.problems(&format!("BGPConfiguration(node.{node})")));
    let inherited = specific.annotations.settings.or(&global.annotations.settings);
    let found = peers::find(facts, node, own, global, &inherited, global_as, &families, env, &mut problems);
    let filters = peers::filters_in_use(facts, &found.peers);
    problems.sort();
    problems.dedup();

    Ok(NodeConfig {
        node: node.to_owned(),
        router_id,
        as_number: (!families.is_empty()).then(|| own.as_number.unwrap_or(global_as)),
        listen_port: specific.listen_port.or(global.listen_port),
        listen_address_v4: global.bind_node_ip.then_some(own.v4).flatten().map(|a| a.addr()),
        listen_address_v6: global.bind_node_ip.then_some(own.v6).flatten().map(|a| a.addr()),
        route_priority_v4: global.priority_v4.unwrap_or(NORMAL_PRIORITY),
        route_priority_v6: global.priority_v6.unwrap_or(NORMAL_PRIORITY),
        log_level: specific.log_level.or(global.log_level).unwrap_or_default(),
        ignored_interfaces: global.ignored_interfaces.clone(),
        peers: found.peers,
        filters,
        originates,
        blackholes,
        host_routes: sorted(found.host_routes),
        services: if excluded { Vec::new() } else { ranges.clone() },
        communities: if specific.advertisements.is_empty() {
            global.advertisements.clone()
        } else {
            specific.advertisements.clone()
        },
        never_export: sorted(facts.pools.values().filter(|p| p.disable_bgp_export).map(|p| p.cidr).collect()),
        internal_never_export_interfaces: never_export_interfaces,
        export_within: sorted(export_within),
        kernel: kernel_rules(facts, node, own, global, ranges),
        ecmp: inherited.ecmp,
        families,
        problems,
    })
}

fn router_id(
    node: &str,
    own: &NodeFact,
    env: &Env,
    needed: bool,
    problems: &mut Vec<Problem>,
) -> Option<Ipv4Addr> {
    let problem = |reason: String| Problem {
        object: format!("Node({node})"),
        field: "CALICO_ROUTER_ID".into(),
        reason,
        fix: "set CALICO_ROUTER_ID on this node to an IPv4 address or to `hash`".into(),
    };
    match env.router_id.as_deref() {
        Some("hash") => {
            let digest = Sha256::digest(node.as_bytes());
            let first = if digest[0] > 223 { digest[0] - 32 } else { digest[0] };
            Some(Ipv4Addr::new(first, digest[1], digest[2], digest[3]))
        }
        Some(text) => match text.parse::<Ipv4Addr>() {
            Ok(id) if !id.is_unspecified() => Some(id),
            _ => {
                problems.push(problem(format!("`{text}` is no router id, so the speaker cannot start")));
                None
            }
        },
        None => match own.v4.map(|a| a.addr()) {
            Some(IpAddr::V4(id)) => Some(id),
            _ => {
                if needed {
                    problems.push(problem(
                        "the node has no IPv4 address to take a router id from, so the speaker cannot start"
                            .into(),
                    ));
                }
                None
            }
        },
    }
}

/// Ranges announced as such: cluster ranges, and external and load-balancer ranges that are no single address.
fn service_ranges(global: &ConfigFact, env: &Env, problems: &mut Vec<Problem>) -> Vec<IpNet> {
    let mut ranges = Vec::new();
    match &env.advertise_cluster_ips {
        Some(list) => {
            for item in list.split(',').map(str::trim).filter(|i| !i.is_empty()) {
                match item.parse::<IpNet>() {
                    Ok(net) => ranges.push(net.trunc()),
                    Err(_) => problems.push(Problem {
                        object: "environment".into(),
                        field: "CALICO_ADVERTISE_CLUSTER_IPS".into(),
                        reason: format!("`{item}` is no CIDR and is not announced"),
                        fix: "write address/prefix length, separated by commas".into(),
                    }),
                }
            }
        }
        None => ranges.extend(&global.cluster_ips),
    }
    let several = |net: &&IpNet| net.prefix_len() < net.max_prefix_len();
    ranges.extend(global.external_ips.iter().filter(several));
    if global.load_balancer_aggregation {
        ranges.extend(global.load_balancer_ips.iter().filter(several));
    }
    sorted(ranges)
}

/// Blocks to announce, and blocks to hold by a blackhole.
///
/// Beyond Calico, the block object must name this node: an affinity that was left behind by an interrupted claim or
/// release then announces nothing.
fn blocks(facts: &Facts, node: &str) -> (Vec<IpNet>, Vec<IpNet>) {
    let mut originates = Vec::new();
    let mut blackholes = Vec::new();
    for (cidr, state) in facts.affinities.get(node).into_iter().flatten() {
        if facts.blocks.get(cidr).map(String::as_str) != Some(node) {
            continue;
        }
        if *state == AffinityState::Confirmed {
            originates.push(*cidr);
        }
        if *state != AffinityState::Pending && cidr.prefix_len() < cidr.max_prefix_len() {
            blackholes.push(*cidr);
        }
    }
    (originates, blackholes)
}

fn kernel_rules(
    facts: &Facts,
    node: &str,
    own: &NodeFact,
    global: &ConfigFact,
    never_program: Vec<IpNet>,
) -> KernelRules {
    let mut rules = KernelRules { never_program, ..KernelRules::default() };
    for PoolFact { cidr, encapsulation, .. } in facts.pools.values() {
        let v4 = cidr.addr().is_ipv4();
        // Without an IPv4 subnet of its own the node has no rule for any IPv4 pool.
        let subnet = own.v4.map(|a| a.trunc());
        if v4 && subnet.is_none() {
            continue;
        }
        let programs = match encapsulation {
            Encapsulation::Vxlan => false,
            Encapsulation::None => global.programs.plain,
            Encapsulation::IpipAlways | Encapsulation::IpipCrossSubnet => global.programs.ipip,
        };
        if !programs {
            rules.rejects.push(*cidr);
        } else if v4 && *encapsulation != Encapsulation::None {
            rules.tunnels.push(Tunnel {
                cidr: *cidr,
                interface: "tunl0".into(),
                except_next_hop_in: (*encapsulation == Encapsulation::IpipCrossSubnet)
                    .then_some(subnet)
                    .flatten(),
            });
        }
    }
    for (_, other) in facts.nodes.iter().filter(|(name, _)| name.as_str() != node) {
        if own.wireguard_v4 && other.wireguard_v4 {
            rules.wireguard_peers.extend(other.v4.map(|a| a.addr()));
        }
        if own.wireguard_v6 && other.wireguard_v6 {
            rules.wireguard_peers.extend(other.v6.map(|a| a.addr()));
        }
    }
    rules.rejects = sorted(rules.rejects);
    rules.wireguard_peers = sorted(rules.wireguard_peers);
    rules.tunnels.sort_by_key(|t| t.cidr);
    rules
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort();
    list.dedup();
    list
}
