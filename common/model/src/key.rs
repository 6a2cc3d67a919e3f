//! Keys of the datastore and their paths.

use std::fmt;

use ipnet::IpNet;

use crate::error::KeyError;
use crate::kind::Kind;
use crate::net;

/// What a path in the datastore names. `Key::parse(&key.path())` is the key again, for every key that [`Key::parse`] returned.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A v3 resource.
    Resource {
        /// Its kind.
        kind: Kind,
        /// Its namespace, for namespaced kinds.
        namespace: Option<String>,
        /// Its name.
        name: String,
    },
    /// An allocation block.
    Block(IpNet),
    /// A host's claim on a block.
    Affinity {
        /// The host.
        host: String,
        /// The block.
        block: IpNet,
    },
    /// The claim of an owner that is no host.
    VirtualAffinity {
        /// The owner, such as `load-balancer`.
        owner: String,
        /// The block.
        block: IpNet,
    },
    /// An IPAM handle.
    Handle(String),
    /// The IPAM configuration.
    IpamConfig,
    /// Legacy marker of a host.
    IpamHost(String),
    /// Felix's status, with a lease.
    FelixStatus {
        /// The host.
        host: String,
        /// OpenStack region.
        region: Option<String>,
    },
    /// Felix's last status, without a lease.
    FelixLastStatus {
        /// The host.
        host: String,
        /// OpenStack region.
        region: Option<String>,
    },
    /// Status of a workload endpoint.
    WorkloadStatus {
        /// The host.
        host: String,
        /// OpenStack region.
        region: Option<String>,
        /// The orchestrator.
        orchestrator: String,
        /// `namespace/name`.
        workload: String,
        /// Interface inside the workload.
        endpoint: String,
    },
    /// Status of a host endpoint.
    HostEndpointStatus {
        /// The host.
        host: String,
        /// The HostEndpoint's name.
        name: String,
    },
}

/// Prefixes to list and watch; each ends in `/`.
pub mod prefix {
    use super::Kind;

    /// Everything.
    pub const ALL: &str = "/calico/";
    /// All v3 resources.
    pub const RESOURCES: &str = "/calico/resources/v3/projectcalico.org/";
    /// Nodes.
    pub const NODES: &str = "/calico/resources/v3/projectcalico.org/nodes/";
    /// Workload endpoints of all namespaces.
    pub const WORKLOAD_ENDPOINTS: &str = "/calico/resources/v3/projectcalico.org/workloadendpoints/";
    /// Host endpoints.
    pub const HOST_ENDPOINTS: &str = "/calico/resources/v3/projectcalico.org/hostendpoints/";
    /// Pools.
    pub const IP_POOLS: &str = "/calico/resources/v3/projectcalico.org/ippools/";
    /// Reservations.
    pub const IP_RESERVATIONS: &str = "/calico/resources/v3/projectcalico.org/ipreservations/";
    /// BGP peers.
    pub const BGP_PEERS: &str = "/calico/resources/v3/projectcalico.org/bgppeers/";
    /// BGP configurations.
    pub const BGP_CONFIGURATIONS: &str = "/calico/resources/v3/projectcalico.org/bgpconfigurations/";
    /// BGP filters.
    pub const BGP_FILTERS: &str = "/calico/resources/v3/projectcalico.org/bgpfilters/";
    /// Felix configurations.
    pub const FELIX_CONFIGURATIONS: &str = "/calico/resources/v3/projectcalico.org/felixconfigurations/";
    /// Cluster information.
    pub const CLUSTER_INFORMATIONS: &str = "/calico/resources/v3/projectcalico.org/clusterinformations/";
    /// Global policies.
    pub const GLOBAL_NETWORK_POLICIES: &str = "/calico/resources/v3/projectcalico.org/globalnetworkpolicies/";
    /// Policies of all namespaces.
    pub const NETWORK_POLICIES: &str = "/calico/resources/v3/projectcalico.org/networkpolicies/";
    /// Staged global policies.
    pub const STAGED_GLOBAL_NETWORK_POLICIES: &str =
        "/calico/resources/v3/projectcalico.org/stagedglobalnetworkpolicies/";
    /// Staged policies of all namespaces.
    pub const STAGED_NETWORK_POLICIES: &str = "/calico/resources/v3/projectcalico.org/stagednetworkpolicies/";
    /// Staged Kubernetes policies of all namespaces.
    pub const STAGED_KUBERNETES_NETWORK_POLICIES: &str =
        "/calico/resources/v3/projectcalico.org/stagedkubernetesnetworkpolicies/";
    /// Global network sets.
    pub const GLOBAL_NETWORK_SETS: &str = "/calico/resources/v3/projectcalico.org/globalnetworksets/";
    /// Network sets of all namespaces.
    pub const NETWORK_SETS: &str = "/calico/resources/v3/projectcalico.org/networksets/";
    /// Tiers.
    pub const TIERS: &str = "/calico/resources/v3/projectcalico.org/tiers/";
    /// Profiles.
    pub const PROFILES: &str = "/calico/resources/v3/projectcalico.org/profiles/";
    /// Node statuses.
    pub const CALICO_NODE_STATUSES: &str = "/calico/resources/v3/projectcalico.org/caliconodestatuses/";
    /// Everything of IPAM.
    pub const IPAM: &str = "/calico/ipam/v2/";
    /// Blocks of both families.
    pub const BLOCKS: &str = "/calico/ipam/v2/assignment/";
    /// IPv4 blocks.
    pub const BLOCKS_V4: &str = "/calico/ipam/v2/assignment/ipv4/block/";
    /// IPv6 blocks.
    pub const BLOCKS_V6: &str = "/calico/ipam/v2/assignment/ipv6/block/";
    /// Claims of all hosts.
    pub const AFFINITIES: &str = "/calico/ipam/v2/host/";
    /// Claims of owners that are no hosts.
    pub const VIRTUAL_AFFINITIES: &str = "/calico/ipam/v2/virtual/";
    /// Handles.
    pub const HANDLES: &str = "/calico/ipam/v2/handle/";
    /// Felix's status and that of workload endpoints.
    pub const FELIX_STATUS: &str = "/calico/felix/v2/";
    /// Status of host endpoints.
    pub const HOST_ENDPOINT_STATUS: &str = "/calico/felix/v1/host/";

    /// All objects of a kind.
    pub fn kind(kind: Kind) -> String {
        format!("{RESOURCES}{}/", kind.plural())
    }

    /// All objects of a namespaced kind in one namespace.
    pub fn namespace(kind: Kind, namespace: &str) -> String {
        format!("{RESOURCES}{}/{namespace}/", kind.plural())
    }

    /// Claims of one host.
    pub fn affinities_of(host: &str) -> String {
        format!("{AFFINITIES}{host}/")
    }

    /// Claims of one host in one family, `4` or `6`.
    pub fn affinities_of_family(host: &str, family: u8) -> String {
        format!("{AFFINITIES}{host}/ipv{family}/block/")
    }

    /// Status of one host's workload endpoints, outside OpenStack.
    pub fn workload_status_of(host: &str) -> String {
        format!("{FELIX_STATUS}no-region/host/{host}/workload/")
    }

    /// Status of one host's host endpoints.
    pub fn host_endpoint_status_of(host: &str) -> String {
        format!("{HOST_ENDPOINT_STATUS}{host}/endpoint/")
    }
}

impl Key {
    /// Key of a global resource.
    pub fn global(kind: Kind, name: impl Into<String>) -> Key {
        Key::Resource { kind, namespace: None, name: name.into() }
    }

    /// Key of a namespaced resource.
    pub fn namespaced(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Key {
        Key::Resource { kind, namespace: Some(namespace.into()), name: name.into() }
    }

    /// The path in the datastore.
    pub fn path(&self) -> String {
        self.to_string()
    }

    /// The kind of a resource's key.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Key::Resource { kind, .. } => Some(*kind),
            _ => None,
        }
    }

    /// Reads a path. Only the spelling that [`Key::path`] gives is taken, so that one object has one key.
    pub fn parse(path: &str) -> Result<Key, KeyError> {
        const FIX: &str = "delete it, or leave it to the program that wrote it";
        let error = |reason: &str| KeyError::new(path, reason, FIX);
        let Some(rest) = path.strip_prefix("/calico/") else {
            return Err(error("not below /calico/"));
        };
        let parts: Vec<&str> = rest.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(error("a part of it is empty"));
        }
        let block = |family: &str, part: &str| {
            net::from_key_part(family, part)
                .ok_or_else(|| error("its block is not written as 10.0.0.0-26 or fd00::-122"))
        };
        let key = match parts.as_slice() {
            ["resources", "v3", "projectcalico.org", plural, names @ ..] => {
                let kind = Kind::from_plural(plural).ok_or_else(|| error("no kind has this plural"))?;
                match names {
                    [name] if !kind.namespaced() => Key::global(kind, *name),
                    [namespace, name] if kind.namespaced() => Key::namespaced(kind, *namespace, *name),
                    _ if kind.namespaced() => {
                        return Err(error("this kind has a namespace and a name after its plural"));
                    }
                    _ => return Err(error("this kind has one name after its plural")),
                }
            }
            ["ipam", "v2", "config"] => Key::IpamConfig,
            ["ipam", "v2", "handle", handle] => Key::Handle((*handle).to_owned()),
            ["ipam", "v2", "assignment", family, "block", part] => Key::Block(block(family, part)?),
            ["ipam", "v2", "host", host] => Key::IpamHost((*host).to_owned()),
            ["ipam", "v2", "host", host, family, "block", part] => {
                Key::Affinity { host: (*host).to_owned(), block: block(family, part)? }
            }
            ["ipam", "v2", "virtual", owner, family, "block", part] => {
                Key::VirtualAffinity { owner: (*owner).to_owned(), block: block(family, part)? }
            }
            ["felix", "v2", region, "host", host, rest @ ..] => {
                let region = match *region {
                    "no-region" => None,
                    other => Some(
                        other
                            .strip_prefix("region-")
                            .ok_or_else(|| error("neither no-region nor region-<name>"))?
                            .to_owned(),
                    ),
                };
                let host = (*host).to_owned();
                match rest {
                    ["status"] => Key::FelixStatus { host, region },
                    ["last_reported_status"] => Key::FelixLastStatus { host, region },
                    ["workload", orchestrator, workload, "endpoint", endpoint] => Key::WorkloadStatus {
                        host,
                        region,
                        orchestrator: unescape(orchestrator),
                        workload: unescape(workload),
                        endpoint: unescape(endpoint),
                    },
                    _ => return Err(error("no status has this path")),
                }
            }
            ["felix", "v1", "host", host, "endpoint", name] => {
                Key::HostEndpointStatus { host: (*host).to_owned(), name: unescape(name) }
            }
            _ => return Err(error("no object of the model has this path")),
        };
        if key.path() == path { Ok(key) } else { Err(error("not in the spelling that Calico writes")) }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Resource { kind, namespace, name } => {
                write!(f, "{}{}/", prefix::RESOURCES, kind.plural())?;
                if let Some(namespace) = namespace {
                    write!(f, "{namespace}/")?;
                }
                f.write_str(name)
            }
            Key::Block(block) => {
                write!(f, "{}{}/block/{}", prefix::BLOCKS, net::family(*block), net::key_part(*block))
            }
            Key::Affinity { host, block } => {
                write!(
                    f,
                    "{}{host}/{}/block/{}",
                    prefix::AFFINITIES,
                    net::family(*block),
                    net::key_part(*block)
                )
            }
            Key::VirtualAffinity { owner, block } => {
                write!(
                    f,
                    "{}{owner}/{}/block/{}",
                    prefix::VIRTUAL_AFFINITIES,
                    net::family(*block),
                    net::key_part(*block)
                )
            }
            Key::Handle(handle) => write!(f, "{}{handle}", prefix::HANDLES),
            Key::IpamConfig => write!(f, "{}config", prefix::IPAM),
            Key::IpamHost(host) => write!(f, "{}{host}", prefix::AFFINITIES),
            Key::FelixStatus { host, region } => {
                write!(f, "{}{}/host/{host}/status", prefix::FELIX_STATUS, Region(region))
            }
            Key::FelixLastStatus { host, region } => {
                write!(f, "{}{}/host/{host}/last_reported_status", prefix::FELIX_STATUS, Region(region))
            }
            Key::WorkloadStatus { host, region, orchestrator, workload, endpoint } => write!(
                f,
                "{}{}/host/{host}/workload/{}/{}/endpoint/{}",
                prefix::FELIX_STATUS,
                Region(region),
                escape(orchestrator),
                escape(workload),
                escape(endpoint)
            ),
            Key::HostEndpointStatus { host, name } => {
                write!(f, "{}{host}/endpoint/{}", prefix::HOST_ENDPOINT_STATUS, escape(name))
            }
        }
    }
}

/// A region's part of a path.
struct Region<'a>(&'a Option<String>);

impl fmt::Display for Region<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("no-region"),
            Some(name) => write!(f, "region-{name}"),
        }
    }
}

/// Calico's escape for names in status keys; names of resources are written raw.
fn escape(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2f")
}

fn unescape(name: &str) -> String {
    name.replace("%2f", "/").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_paths_name_known_objects() {
        for (path, key) in [
            ("/calico/resources/v3/projectcalico.org/nodes/node-1", Key::global(Kind::Node, "node-1")),
            (
                "/calico/resources/v3/projectcalico.org/networksets/a/b",
                Key::namespaced(Kind::NetworkSet, "a", "b"),
            ),
            (
                "/calico/ipam/v2/assignment/ipv4/block/10.244.1.0-26",
                Key::Block("10.244.1.0/26".parse().unwrap()),
            ),
            (
                "/calico/ipam/v2/assignment/ipv6/block/fd80:24e2::-122",
                Key::Block("fd80:24e2::/122".parse().unwrap()),
            ),
            (
                "/calico/ipam/v2/host/node-1/ipv4/block/10.244.1.0-26",
                Key::Affinity { host: "node-1".into(), block: "10.244.1.0/26".parse().unwrap() },
            ),
            (
                "/calico/ipam/v2/virtual/load-balancer/ipv4/block/10.244.1.0-26",
                Key::VirtualAffinity {
                    owner: "load-balancer".into(),
                    block: "10.244.1.0/26".parse().unwrap(),
                },
            ),
            (
                "/calico/ipam/v2/handle/k8s-pod-network.0f1e2d3c",
                Key::Handle("k8s-pod-network.0f1e2d3c".into()),
            ),
            ("/calico/ipam/v2/config", Key::IpamConfig),
            ("/calico/ipam/v2/host/node-1", Key::IpamHost("node-1".into())),
            (
                "/calico/felix/v2/no-region/host/node-1/status",
                Key::FelixStatus { host: "node-1".into(), region: None },
            ),
            (
                "/calico/felix/v2/region-eu/host/node-1/last_reported_status",
                Key::FelixLastStatus { host: "node-1".into(), region: Some("eu".into()) },
            ),
            (
                "/calico/felix/v2/no-region/host/node-1/workload/k8s/default%2ffrontend-5d4/endpoint/eth0",
                Key::WorkloadStatus {
                    host: "node-1".into(),
                    region: None,
                    orchestrator: "k8s".into(),
                    workload: "default/frontend-5d4".into(),
                    endpoint: "eth0".into(),
                },
            ),
            (
                "/calico/felix/v1/host/node-1/endpoint/node1-eth0",
                Key::HostEndpointStatus { host: "node-1".into(), name: "node1-eth0".into() },
            ),
        ] {
            assert_eq!(Key::parse(path).as_ref(), Ok(&key));
            assert_eq!(key.path(), path);
        }
    }

    #[test]
    fn other_paths_are_refused_with_a_reason() {
        for path in [
            "",
            "/",
            "/calico",
            "/registry/pods/a",
            "calico/ipam/v2/config",
            "/calico/resources/v3/projectcalico.org/nodes/",
            "/calico/resources/v3/projectcalico.org/nodes/a/b",
            "/calico/resources/v3/projectcalico.org/networksets/b",
            "/calico/resources/v3/projectcalico.org/livemigrations/a/b",
            "/calico/ipam/v2/assignment/ipv4/block/10.244.1.1-26",
            "/calico/ipam/v2/assignment/ipv4/block/10.244.1.0/26",
            "/calico/ipam/v2/assignment/ipv4/block/10.244.1.0-026",
            "/calico/ipam/v2/assignment/ipv4/block/fd00::-122",
            "/calico/ipam/v2/assignment/ipv6/block/fd00:0::-122",
            "/calico/ipam/v2/host//ipv4/block/10.244.1.0-26",
            "/calico/felix/v2/elsewhere/host/node-1/status",
            "/calico/felix/v2/no-region/host/n/workload/k8s/100%/endpoint/eth0",
        ] {
            let error = Key::parse(path).unwrap_err();
            assert!(!error.reason.is_empty(), "{path}");
        }
    }

    #[test]
    fn prefixes_fit_the_keys() {
        for kind in Kind::ALL {
            let key =
                if kind.namespaced() { Key::namespaced(*kind, "ns", "x") } else { Key::global(*kind, "x") };
            assert!(key.path().starts_with(&prefix::kind(*kind)));
        }
        assert_eq!(prefix::kind(Kind::WorkloadEndpoint), prefix::WORKLOAD_ENDPOINTS);
        assert_eq!(prefix::kind(Kind::CalicoNodeStatus), prefix::CALICO_NODE_STATUSES);
        let block: IpNet = "10.0.0.0/26".parse().unwrap();
        let affinity = Key::Affinity { host: "n".into(), block }.path();
        assert!(
            affinity.starts_with(&prefix::affinities_of("n"))
                && affinity.starts_with(&prefix::affinities_of_family("n", 4))
        );
    }
}
