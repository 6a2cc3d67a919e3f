//! `ipam check`: what is allocated against what is in use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use caracal_model::{AllocationAttribute, Block};
use ipnet::IpNet;
use serde_json::Value;

use super::super::console::line;
use super::super::session;
use super::fact;
use super::report::{Allocation, LeakedHandle, Report};
use crate::ctl::args::IpamCheck;
use crate::ctl::client::{self, Client, metadata};
use crate::ctl::kinds::by_kind;

/// The handle of addresses that Windows nodes keep for themselves.
const WINDOWS_RESERVED: &str = "windows-reserved-ipam-handle";
/// How many nodes are named.
const TOP_NODES: usize = 20;

/// `ipam check`.
pub(super) async fn check(arguments: &IpamCheck, allow_mismatch: bool) -> Result<bool, String> {
    let client = session::open(&arguments.connection, allow_mismatch).await?;
    let mut checker = Checker {
        show_all: arguments.show_all_ips,
        show_problems: arguments.show_problem_ips || arguments.show_all_ips,
        ..Checker::default()
    };
    let found = client
        .cluster_information()
        .await
        .map_err(|e| format!("cannot read the cluster information: {e}"))?;
    let cluster = found.as_ref().map_or(&Value::Null, |f| &f.value);
    checker.run(&client).await?;
    if let Some(file) = &arguments.output {
        let text =
            |pointer: &str| cluster.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let report = Report {
            version: session::VERSION.to_owned(),
            cluster_guid: text("/spec/clusterGUID"),
            cluster_type: text("/spec/clusterType"),
            datastore_locked: cluster.pointer("/spec/datastoreReady") == Some(&Value::Bool(false)),
            cluster_information_revision: text("/metadata/resourceVersion"),
            allocations: checker.allocations,
            leaked_handles: Some(checker.leaked_handles).filter(|handles| !handles.is_empty()),
        };
        let text =
            serde_json::to_string_pretty(&report).map_err(|e| format!("cannot write the report: {e}"))?;
        std::fs::write(file, text).map_err(|e| format!("cannot write the report to {file}: {e}"))?;
    }
    Ok(true)
}

#[derive(Debug, Default)]
struct Checker {
    show_all: bool,
    show_problems: bool,
    /// By address.
    allocations: BTreeMap<String, Vec<Allocation>>,
    /// What owns each allocation, for messages.
    notes: BTreeMap<String, String>,
    per_node: BTreeMap<String, usize>,
    /// Handles that blocks mention.
    mentioned: BTreeSet<String>,
    /// Who uses which address.
    in_use: BTreeMap<String, Vec<String>>,
    invalid_blocks: Vec<String>,
    leaked_handles: Vec<LeakedHandle>,
    problems: usize,
}

impl Checker {
    async fn run(&mut self, client: &Client) -> Result<(), String> {
        line("Checking IPAM for inconsistencies...\n");
        self.blocks(client).await?;
        let pools = pools(client).await?;
        self.nodes(client).await?;
        services(client).await?;
        self.workloads(client).await?;
        line("Loading all handles");
        let handles = client::handles(client).await.map_err(|e| format!("failed to list handles: {e}"))?;
        self.top_nodes();
        self.leaked();
        self.unallocated(&pools);
        self.handles(&handles);
        line("Validating IPAMBlock structures...");
        for reason in &self.invalid_blocks {
            self.problem(reason);
        }
        line(format!("Found {} invalid IPAMBlocks.", self.invalid_blocks.len()));
        self.problems += self.invalid_blocks.len();
        line(format!("Check complete; found {} problems.", self.problems));
        Ok(())
    }

    fn problem(&self, text: &str) {
        if self.show_problems {
            line(format!("  {text}"));
        }
    }

    async fn blocks(&mut self, client: &Client) -> Result<(), String> {
        line("Loading all IPAM blocks...");
        let blocks = client::blocks(client).await.map_err(|e| format!("failed to list IPAM blocks: {e}"))?;
        line(format!("Found {} IPAM blocks.", blocks.len()));
        let mut allocations = 0;
        for stored in &blocks {
            let block = &stored.block;
            line(format!(
                " IPAM block {} affinity={}:",
                block.cidr,
                block.affinity.as_deref().unwrap_or("<none>")
            ));
            for (address, attribute) in block.addresses() {
                allocations += 1;
                self.allocated(block, address, attribute);
            }
            self.invalid_blocks.extend(flaw(block).map(|flaw| format!("IPAM block {}: {flaw}", block.cidr)));
        }
        line(format!("IPAM blocks record {allocations} allocations.\n"));
        Ok(())
    }

    fn allocated(&mut self, block: &Block, address: IpAddr, attribute: Option<&AllocationAttribute>) {
        let ip = address.to_string();
        let host = block.host().unwrap_or_default();
        let said = |name: &str| attribute.map_or("", |a| fact(a, name)).to_owned();
        let handle = attribute.and_then(|a| a.handle_id.clone()).unwrap_or_default();
        let note = describe(attribute);
        if self.show_all {
            line(format!("  {ip} allocated; attrs {note}"));
        }
        let resting = attribute.is_some_and(|a| a.released_at.is_some());
        if handle == WINDOWS_RESERVED {
            self.used(&ip, "Reserved for Windows");
        } else if resting {
            self.used(&ip, "Cooling down");
        } else if !handle.is_empty() {
            self.mentioned.insert(handle.clone());
        }
        let node = Some(said("node")).filter(|n| !n.is_empty()).unwrap_or_else(|| host.to_owned());
        *self.per_node.entry(node.clone()).or_default() += 1;
        let sequence =
            block.ordinal(address).and_then(|o| block.sequence_number_for_allocation.get(&o).copied());
        let owners = self.in_use.get(&ip).cloned();
        self.allocations.entry(ip.clone()).or_default().push(Allocation {
            ip: ip.clone(),
            handle: if handle == WINDOWS_RESERVED { String::new() } else { handle },
            sequence_number: Some(sequence.unwrap_or_default()),
            pod: said("pod"),
            namespace: said("namespace"),
            kind: said("type"),
            creation_timestamp: said("timestamp"),
            borrowed: node != host,
            node,
            in_use: owners.is_some(),
            owners,
        });
        self.notes.insert(ip, note);
    }

    fn used(&mut self, ip: &str, by: &str) {
        if self.show_all {
            line(format!("  {ip} belongs to {by}"));
        }
        self.in_use.entry(ip.to_owned()).or_default().push(by.to_owned());
        for allocation in self.allocations.get_mut(ip).into_iter().flatten() {
            allocation.in_use = true;
            allocation.owners.get_or_insert_default().push(by.to_owned());
        }
    }

    async fn nodes(&mut self, client: &Client) -> Result<(), String> {
        line("Loading all nodes.");
        let mut found = 0;
        for node in list(client, "Node").await? {
            for pointer in [
                "/spec/ipv4VXLANTunnelAddr",
                "/spec/ipv6VXLANTunnelAddr",
                "/spec/wireguard/interfaceIPv4Address",
                "/spec/wireguard/interfaceIPv6Address",
                "/spec/bgp/ipv4IPIPTunnelAddr",
            ] {
                if let Some(ip) = node.pointer(pointer).and_then(Value::as_str).and_then(address) {
                    self.used(&ip.to_string(), &format!("Node({})", metadata(&node, "name")));
                    found += 1;
                }
            }
        }
        line(format!("Found {found} node tunnel IPs.\n"));
        Ok(())
    }

    async fn workloads(&mut self, client: &Client) -> Result<(), String> {
        line("Loading all workload endpoints.");
        let mut found = 0;
        for endpoint in list(client, "WorkloadEndpoint").await? {
            let name =
                format!("Workload({}/{})", metadata(&endpoint, "namespace"), metadata(&endpoint, "name"));
            let networks =
                endpoint.pointer("/spec/ipNetworks").and_then(Value::as_array).into_iter().flatten();
            for ip in networks.filter_map(Value::as_str).filter_map(address) {
                self.used(&ip.to_string(), &name);
                found += 1;
            }
        }
        line(format!("Found {found} workload IPs."));
        line(format!("Workloads and nodes are using {} IPs.\n", self.in_use.len()));
        Ok(())
    }

    fn top_nodes(&self) {
        line(format!("Looking for top (up to {TOP_NODES}) nodes by allocations..."));
        let mut nodes: Vec<(&String, usize)> =
            self.per_node.iter().map(|(name, count)| (name, *count)).collect();
        nodes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (name, count) in nodes.iter().take(TOP_NODES) {
            line(format!("  {name} has {count} allocations"));
        }
        if let (Some((_, most)), Some((_, median))) = (nodes.first(), nodes.get(nodes.len() / 2)) {
            line(format!("Node with most allocations has {most}; median is {median}"));
        }
        line("");
    }

    fn leaked(&mut self) {
        line("Scanning for IPs that are allocated but not actually in use...");
        let leaked: Vec<&String> =
            self.allocations.keys().filter(|ip| !self.in_use.contains_key(*ip)).collect();
        for ip in &leaked {
            self.problem(&format!("{ip} leaked; attrs {}", self.notes.get(*ip).map_or("", String::as_str)));
        }
        let found = leaked.len();
        self.problems += found;
        line(format!("Found {found} IPs that are allocated in IPAM but not actually in use."));
    }

    fn unallocated(&mut self, pools: &[IpNet]) {
        line("Scanning for IPs that are in use by a workload or node but not allocated in IPAM...");
        let (mut outside, mut inside) = (0, 0);
        for (ip, owners) in &self.in_use {
            if owners.len() > 1 {
                self.problem(&format!("{ip} has multiple owners."));
            }
            if self.allocations.contains_key(ip) {
                continue;
            }
            let in_pool = address(ip).is_some_and(|ip| pools.iter().any(|pool| pool.contains(&ip)));
            let (count, what) = if in_pool {
                (&mut inside, "and in active IPAM pool but has no IPAM allocation.")
            } else {
                (&mut outside, "is not in any active IP pool.")
            };
            *count += 1;
            for owner in owners {
                self.problem(&format!("{ip} in use by {owner} {what}"));
            }
        }
        self.problems += outside + inside;
        line(format!("Found {outside} in-use IPs that are not in active IP pools."));
        line(format!(
            "Found {inside} in-use IPs that are in active IP pools but have no corresponding IPAM allocation.\n"
        ));
    }

    fn handles(&mut self, stored: &BTreeMap<String, i64>) {
        line("Scanning for IPAM handles with no matching IPs...");
        let leaked: Vec<_> = stored.iter().filter(|(id, _)| !self.mentioned.contains(*id)).collect();
        for (id, _) in &leaked {
            self.problem(&format!("{id} doesn't have any active IPs."));
        }
        let good = stored.len() - leaked.len();
        self.problems += leaked.len();
        line(format!(
            "Found {} handles with no matching IPs (and {good} handles with matches).",
            leaked.len()
        ));
        let handle = |(id, rev): (&String, &i64)| LeakedHandle {
            id: id.clone(),
            uid: None,
            revision: rev.to_string(),
        };
        self.leaked_handles = leaked.into_iter().map(handle).collect();
        line("Scanning for IPs with missing handle...");
        let missing: Vec<&String> = self.mentioned.iter().filter(|id| !stored.contains_key(*id)).collect();
        for id in &missing {
            self.problem(&format!("{id} is in use in a block but doesn't exist."));
        }
        line(format!(
            "Found {} handles mentioned in blocks with no matching handle resource.",
            missing.len()
        ));
    }
}

async fn list(client: &Client, kind: &'static str) -> Result<Vec<Value>, String> {
    let kind = by_kind(kind).expect("invariant: a known kind");
    let listed =
        client.list(kind, "").await.map_err(|e| format!("failed to list {} objects: {e}", kind.name))?;
    Ok(listed.items.into_iter().map(|item| item.value).collect())
}

async fn pools(client: &Client) -> Result<Vec<IpNet>, String> {
    line("Loading all IPAM pools...");
    let mut active = Vec::new();
    for pool in list(client, "IPPool").await? {
        let cidr = pool.pointer("/spec/cidr").and_then(Value::as_str).unwrap_or_default();
        if pool.pointer("/spec/disabled") != Some(&Value::Bool(true)) {
            line(format!("  {cidr}"));
            active.push(cidr.parse().map_err(|e| {
                format!("failed to parse the CIDR {cidr} of IP pool {}: {e}", metadata(&pool, "name"))
            })?);
        }
    }
    line(format!("Found {} active IP pools.\n", active.len()));
    Ok(active)
}

async fn services(client: &Client) -> Result<(), String> {
    line("Loading all service load balancer IPs.");
    let configured = list(client, "KubeControllersConfiguration").await?;
    let balancer =
        configured.iter().any(|c| c.pointer("/spec/controllers/loadBalancer").is_some_and(|v| !v.is_null()));
    line(if balancer {
        "Services are Kubernetes objects, which this program does not read; skipping service check\n"
    } else {
        "No configuration for LoadBalancer kubecontroller found, skipping service check\n"
    });
    Ok(())
}

fn address(text: &str) -> Option<IpAddr> {
    text.split('/').next()?.parse().ok()
}

fn describe(attribute: Option<&AllocationAttribute>) -> String {
    let Some(attribute) = attribute else { return "<missing>".to_owned() };
    let facts: Vec<String> =
        attribute.secondary.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("Main:{} Extra:{}", attribute.handle_id.as_deref().unwrap_or("<none>"), facts.join(","))
}

/// What is wrong with a block's own books.
fn flaw(block: &Block) -> Option<String> {
    let size = block.allocations.len();
    let bits = u32::from(block.cidr.max_prefix_len() - block.cidr.prefix_len());
    let wanted = 1_usize.checked_shl(bits).unwrap_or_default();
    if size != wanted {
        return Some(format!("has {size} allocation slots instead of {wanted}"));
    }
    let attributes = block.attributes().len();
    let used = |ordinal: u32| usize::try_from(ordinal).ok().and_then(|o| block.allocations.get(o)).copied();
    let mut seen = BTreeSet::new();
    for ordinal in &block.unallocated {
        match used(*ordinal) {
            None => return Some(format!("lists ordinal {ordinal} as free, which it does not have")),
            Some(Some(_)) => return Some(format!("lists ordinal {ordinal} as free, which is allocated")),
            Some(None) if !seen.insert(*ordinal) => {
                return Some(format!("lists ordinal {ordinal} as free twice"));
            }
            Some(None) => {}
        }
    }
    let free = block.allocations.iter().filter(|slot| slot.is_none()).count();
    if free != seen.len() {
        return Some(format!("has {free} free slots but lists {}", seen.len()));
    }
    let beyond = block
        .allocations
        .iter()
        .flatten()
        .find(|index| usize::try_from(**index).map_or(true, |i| i >= attributes));
    beyond.map(|index| format!("points to attribute {index}, which it does not have"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn block(allocations: Value, unallocated: Value) -> Block {
        serde_json::from_value(json!({"cidr": "10.50.0.0/30", "affinity": "host:a", "allocations": allocations, "unallocated": unallocated,
            "attributes": [{"handle_id": "h0", "secondary": {"node": "b", "pod": "p"}}],
            "sequenceNumber": 9, "sequenceNumberForAllocation": {"0": 5}, "deleted": false})).unwrap()
    }

    #[test]
    fn flaws_of_blocks() {
        assert_eq!(flaw(&block(json!([0, null, null, null]), json!([1, 2, 3]))), None);
        for (allocations, unallocated, says) in [
            (json!([0, null]), json!([1]), "2 allocation slots instead of 4"),
            (json!([0, null, null, null]), json!([0, 1, 2, 3]), "ordinal 0 as free, which is allocated"),
            (json!([0, null, null, null]), json!([1, 1, 2, 3]), "ordinal 1 as free twice"),
            (json!([0, null, null, null]), json!([1, 2]), "3 free slots but lists 2"),
            (json!([0, null, null, null]), json!([1, 2, 3, 9]), "ordinal 9"),
            (json!([4, null, null, null]), json!([1, 2, 3]), "attribute 4"),
        ] {
            let found = flaw(&block(allocations, unallocated)).unwrap();
            assert!(found.contains(says), "{found}");
        }
    }

    #[test]
    fn an_allocation_is_leaked_until_somebody_uses_it() {
        let block = block(json!([0, null, null, null]), json!([1, 2, 3]));
        let mut checker = Checker::default();
        for (ip, attribute) in block.addresses() {
            checker.allocated(&block, ip, attribute);
        }
        let allocation = &checker.allocations["10.50.0.0"][0];
        assert!(!allocation.in_use && allocation.borrowed && allocation.owners.is_none());
        assert_eq!((allocation.sequence_number, allocation.pod.as_str()), (Some(5), "p"));
        checker.used("10.50.0.0", "Workload(default/w)");
        assert!(checker.allocations["10.50.0.0"][0].in_use);
        checker.leaked();
        checker.used("10.50.0.1", "Workload(default/x)");
        checker.used("192.0.2.1", "Workload(default/x)");
        checker.unallocated(&["10.50.0.0/24".parse().unwrap()]);
        checker.handles(&BTreeMap::from([("h0".to_owned(), 1), ("gone".to_owned(), 7)]));
        assert_eq!((checker.problems, checker.leaked_handles.len()), (3, 1));
    }
}
