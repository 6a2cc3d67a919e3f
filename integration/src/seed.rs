//! Objects in Calico's exact JSON, as real clients leave them in the datastore.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

/// A key and its value.
pub type Item = (String, Value);

const RESOURCES: &str = "/calico/resources/v3/projectcalico.org";

/// Workload of the picture.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Pod name.
    pub pod: String,
    /// Node that it runs on.
    pub node: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Host end of its link.
    pub interface: String,
    /// Distinguishes uid, MAC and container.
    pub number: u32,
    /// Path of its network namespace, when the agent makes the link.
    pub netns: Option<String>,
}

impl Workload {
    /// `ca:fe:1d:…`, from the number.
    pub fn mac(&self) -> String {
        let [_, b, c, d] = self.number.to_be_bytes();
        format!("ca:fe:1d:{b:02x}:{c:02x}:{d:02x}")
    }

    /// Name of its WorkloadEndpoint.
    pub fn endpoint_name(&self) -> String {
        format!("{}-k8s-{}-eth0", self.node.replace('-', "--"), self.pod.replace('-', "--"))
    }

    /// Its WorkloadEndpoint.
    pub fn endpoint(&self) -> Item {
        let networks: Vec<String> =
            self.addresses.iter().map(|a| format!("{a}/{}", if a.is_ipv4() { 32 } else { 128 })).collect();
        let mut metadata = metadata(&self.endpoint_name(), 1000 + self.number);
        metadata["namespace"] = json!("default");
        metadata["labels"] = json!({
            "app": self.pod, "projectcalico.org/namespace": "default", "projectcalico.org/orchestrator": "k8s",
        });
        if let Some(path) = &self.netns {
            metadata["annotations"] = json!({ "caracal.io/netns": path });
        }
        let spec = json!({
            "orchestrator": "k8s", "node": self.node, "containerID": format!("{:064x}", self.number),
            "pod": self.pod, "endpoint": "eth0", "ipNetworks": networks, "profiles": ["open"],
            "interfaceName": self.interface, "mac": self.mac(),
        });
        (
            format!("{RESOURCES}/workloadendpoints/default/{}", self.endpoint_name()),
            object("WorkloadEndpoint", metadata, spec),
        )
    }

    /// Key under which felix reports its status.
    pub fn status_key(&self) -> String {
        format!(
            "/calico/felix/v2/no-region/host/{}/workload/k8s/default%2f{}/endpoint/eth0",
            self.node, self.pod
        )
    }
}

/// ClusterInformation, tiers, one open profile: what `calico-node` leaves before any workload.
pub fn cluster() -> Vec<Item> {
    let mut items = vec![
        global(
            "ClusterInformation",
            "clusterinformations",
            "default",
            1,
            json!({
                "clusterGUID": "0123456789abcdef0123456789abcdef", "clusterType": "bgp", "datastoreReady": true,
            }),
        ),
        global(
            "Profile",
            "profiles",
            "open",
            6,
            json!({
                "ingress": [{ "action": "Allow" }], "egress": [{ "action": "Allow" }],
            }),
        ),
    ];
    for (name, order, action) in
        [("kube-admin", 1_000, "Pass"), ("default", 1_000_000, "Deny"), ("kube-baseline", 10_000_000, "Pass")]
    {
        items.push(global("Tier", "tiers", name, 5, json!({ "order": order, "defaultAction": action })));
    }
    items
}

/// An IPPool without encapsulation.
pub fn pool(name: &str, cidr: &str, block_size: u8) -> Item {
    global(
        "IPPool",
        "ippools",
        name,
        2,
        json!({
            "cidr": cidr, "vxlanMode": "Never", "ipipMode": "Never", "natOutgoing": false, "blockSize": block_size,
            "nodeSelector": "all()", "allowedUses": ["Workload", "Tunnel"],
        }),
    )
}

/// The default BGPConfiguration: full mesh, one AS.
pub fn bgp_configuration(asn: u32, mesh: bool) -> Item {
    global(
        "BGPConfiguration",
        "bgpconfigurations",
        "default",
        3,
        json!({
            "logSeverityScreen": "Info", "nodeToNodeMeshEnabled": mesh, "asNumber": asn,
        }),
    )
}

/// A global BGPPeer.
pub fn bgp_peer(name: &str, address: IpAddr, asn: u32) -> Item {
    global("BGPPeer", "bgppeers", name, 4, json!({ "peerIP": address.to_string(), "asNumber": asn }))
}

/// A Node with its BGP addresses.
pub fn node(name: &str, number: u32, addresses: &[IpNet]) -> Item {
    let mut bgp = json!({});
    for address in addresses {
        bgp[if address.addr().is_ipv4() { "ipv4Address" } else { "ipv6Address" }] =
            json!(address.to_string());
    }
    let (key, mut value) = global("Node", "nodes", name, 10 + number, json!({ "bgp": bgp }));
    value["status"] = json!({});
    (key, value)
}

/// A block as IPAM leaves it: handles, the block object, the confirmed affinity last.
pub fn block(node: &str, block: IpNet, pods: &[(&str, IpAddr)]) -> Vec<Item> {
    let size = 1usize << (u8::min(block.max_prefix_len() - block.prefix_len(), 16));
    let mut allocations = vec![Value::Null; size];
    let (mut attributes, mut sequences, mut items) = (Vec::new(), serde_json::Map::new(), Vec::new());
    for (number, (pod, address)) in pods.iter().enumerate() {
        let ordinal = ordinal(block, *address);
        allocations[ordinal] = json!(number);
        sequences.insert(ordinal.to_string(), json!(number));
        attributes.push(json!({
            "handle_id": format!("k8s-pod-network.{pod}"),
            "secondary": { "namespace": "default", "node": node, "pod": pod },
        }));
        items.push((
            format!("/calico/ipam/v2/handle/k8s-pod-network.{pod}"),
            json!({ "block": { block.to_string(): 1 }, "deleted": false }),
        ));
    }
    let free: Vec<usize> = (0..size).filter(|&o| allocations[o].is_null()).collect();
    let family = if block.addr().is_ipv4() { "ipv4" } else { "ipv6" };
    let name = block.to_string().replace('/', "-");
    items.push((
        format!("/calico/ipam/v2/assignment/{family}/block/{name}"),
        json!({
            "cidr": block.to_string(), "affinity": format!("host:{node}"), "affinity_claim_time": "2026-01-02T03:04:05Z",
            "allocations": allocations, "unallocated": free, "attributes": attributes, "sequenceNumber": 5,
            "sequenceNumberForAllocation": sequences, "deleted": false,
        }),
    ));
    items.push((
        format!("/calico/ipam/v2/host/{node}/{family}/block/{name}"),
        json!({ "state": "confirmed", "deleted": false }),
    ));
    items
}

/// Offset of an address in its block.
fn ordinal(block: IpNet, address: IpAddr) -> usize {
    let offset = match (block.network(), address) {
        (IpAddr::V4(base), IpAddr::V4(a)) => u128::from(u32::from(a) - u32::from(base)),
        (IpAddr::V6(base), IpAddr::V6(a)) => u128::from(a) - u128::from(base),
        _ => 0,
    };
    usize::try_from(offset).unwrap_or(0)
}

fn global(kind: &str, plural: &str, name: &str, uid: u32, spec: Value) -> Item {
    (format!("{RESOURCES}/{plural}/{name}"), object(kind, metadata(name, uid), spec))
}

fn object(kind: &str, metadata: Value, spec: Value) -> Value {
    json!({ "kind": kind, "apiVersion": "projectcalico.org/v3", "metadata": metadata, "spec": spec })
}

fn metadata(name: &str, uid: u32) -> Value {
    json!({ "name": name, "uid": format!("00000000-0000-4000-8000-{uid:012}"), "creationTimestamp": "2026-01-02T03:04:05Z" })
}
