//! The classic picture: three nodes and a top-of-rack router on one LAN, one workload on each node.
//!
//! ```text
//!  10.100.166.128/26        10.100.104.0/26         10.100.135.0/26
//!   pod-d .166.130           pod-c .104.15           pod-a .135.25
//!     | cali3d37a35c2ca        | cali1b15813a0a8       | cali2c26924b1b9
//!   node1 .129               node2 .131              node3 .133
//!     |                        |                       |         192.168.174.0/24, AS 64512
//!   --+------------------------+-----------------------+--------------+-----
//!                                                                     |
//!                                                     router .2, AS 64999; datastore .1
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use ipnet::IpNet;

use crate::lab::{Lab, Namespace, Process, eventually};
use crate::router::{Router, RouterConfig, RouterKind};
use crate::seed::{self, Item, Workload};
use crate::store::{Store, StoreKind};

/// Uplink of every node and of the router.
pub const UPLINK: &str = "ens160";
/// AS of the nodes.
pub const NODE_AS: u32 = 64512;
/// AS of the router.
pub const ROUTER_AS: u32 = 64999;
/// The router's address.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 174, 2);
/// Node, last octet of its address, its block.
pub const NODES: [(&str, u8, &str); 3] = [
    ("node1", 129, "10.100.166.128/26"),
    ("node2", 131, "10.100.104.0/26"),
    ("node3", 133, "10.100.135.0/26"),
];
/// Workload, its node, address, host link.
pub const PODS: [(&str, &str, &str, &str); 3] = [
    ("pod-d", "node1", "10.100.166.130", "cali3d37a35c2ca"),
    ("pod-c", "node2", "10.100.104.15", "cali1b15813a0a8"),
    ("pod-a", "node3", "10.100.135.25", "cali2c26924b1b9"),
];

/// What a picture is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// The datastore.
    pub store: StoreKind,
    /// The router.
    pub router: RouterKind,
    /// felix and bird as two processes of each node instead of one.
    pub split: bool,
    /// The caracal binary.
    pub binary: PathBuf,
}

/// One host of the picture and its agents.
#[derive(Debug)]
pub struct NodeHost {
    /// Node name.
    pub name: String,
    /// Its address on the LAN.
    pub address: Ipv4Addr,
    /// Its block.
    pub block: IpNet,
    /// Its namespace.
    pub space: Namespace,
    /// `node`, or `felix` and `bird`.
    pub agents: BTreeMap<&'static str, Process>,
}

/// The running picture. Agents are not started by [`Picture::new`], nor is anything seeded.
#[derive(Debug)]
pub struct Picture {
    /// The nodes in the order of [`NODES`].
    pub nodes: Vec<NodeHost>,
    /// The router.
    pub router: Router,
    /// The datastore.
    pub store: Store,
    /// Namespaces of the workloads, by pod.
    pub pods: BTreeMap<String, Namespace>,
    /// The LAN's namespace.
    pub lan: Namespace,
    /// Names and clean-up; last, so that it is dropped after the processes.
    pub lab: Lab,
}

impl Picture {
    /// Builds hosts, wires, datastore and router.
    pub fn new(name: &str, options: &Options) -> anyhow::Result<Self> {
        let mut lab = Lab::new(name)?;
        let lan = lab.host("lan")?;
        lan.bridge("br0")?;
        lan.address("br0", "192.168.174.1/24".parse()?)?;
        let router_space = lab.host("tor")?;
        plug(&lan, &router_space, 0, ROUTER)?;
        let store = Store::start(options.store, &lab, &lan, "192.168.174.1", &options.binary)?;
        let mut nodes = Vec::new();
        for (host, octet, block) in NODES {
            let address = Ipv4Addr::new(192, 168, 174, octet);
            let space = lab.host(host)?;
            plug(&lan, &space, octet, address)?;
            let mut node = NodeHost {
                name: host.into(),
                address,
                block: block.parse()?,
                space,
                agents: BTreeMap::new(),
            };
            for role in if options.split { &["felix", "bird"][..] } else { &["node"] } {
                node.agents.insert(role, agent(&lab, &store, &node, role, options));
            }
            nodes.push(node);
        }
        let mut pods = BTreeMap::new();
        for (pod, ..) in PODS {
            pods.insert(pod.to_owned(), lab.host(pod)?);
        }
        let neighbours = nodes.iter().map(|n| (n.name.clone(), n.address, NODE_AS)).collect();
        let config = RouterConfig { address: ROUTER, asn: ROUTER_AS, neighbours };
        let router = Router::start(options.router, &lab, &router_space, &config, &options.binary)?;
        Ok(Self { nodes, router, store, pods, lan, lab })
    }

    /// Everything that stands in the datastore before the agents start: cluster, pool, peers, nodes, blocks.
    pub fn cluster_items(&self) -> Vec<Item> {
        let mut items = seed::cluster();
        items.push(seed::pool("pool1", "10.100.0.0/16", 26));
        items.push(seed::bgp_configuration(NODE_AS, true));
        items.push(seed::bgp_peer("tor", ROUTER.into(), ROUTER_AS));
        for (number, node) in (0u32..).zip(&self.nodes) {
            let address = IpNet::new(node.address.into(), 24).expect("invariant: 24 is a prefix length");
            items.push(seed::node(&node.name, number, &[address]));
            let here: Vec<(&str, IpAddr)> = PODS
                .iter()
                .filter(|(_, on, ..)| *on == node.name)
                .map(|(pod, _, address, _)| (*pod, address.parse().expect("invariant: PODS holds addresses")))
                .collect();
            items.extend(seed::block(&node.name, node.block, &here));
        }
        items
    }

    /// The three workloads; the agents make their links.
    pub fn workloads(&self) -> Vec<Workload> {
        (20u32..)
            .zip(PODS)
            .map(|(number, (pod, node, address, interface))| Workload {
                pod: pod.into(),
                node: node.into(),
                addresses: vec![address.parse().expect("invariant: PODS holds addresses")],
                interface: interface.into(),
                number,
                netns: Some(self.pods[pod].path().to_string_lossy().into_owned()),
            })
            .collect()
    }

    /// Cluster and workloads.
    pub fn seed(&self) -> anyhow::Result<()> {
        self.store.put(&self.cluster_items())?;
        let endpoints: Vec<Item> = self.workloads().iter().map(Workload::endpoint).collect();
        self.store.put(&endpoints)
    }

    /// Starts the agents of every node.
    pub fn start_agents(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            for agent in node.agents.values_mut() {
                agent.start()?;
            }
        }
        Ok(())
    }

    /// The node with this name.
    pub fn node(&mut self, name: &str) -> &mut NodeHost {
        self.nodes.iter_mut().find(|n| n.name == name).expect("invariant: NODES names the nodes")
    }

    /// Waits until every node and the router hold all routes of the picture.
    pub fn converged(&self, limit: Duration) -> anyhow::Result<Duration> {
        let check = || {
            for node in &self.nodes {
                let have = routes(&node.space).map_err(|err| err.to_string())?;
                for want in self.expected_routes(node) {
                    if !have.iter().any(|line| line.starts_with(&want)) {
                        return Err(format!("{}: no `{want}` in {have:#?}", node.name));
                    }
                }
            }
            let have = routes(&self.router.space).map_err(|err| err.to_string())?;
            for node in &self.nodes {
                if !have.iter().any(|line| line.starts_with(&format!("{} ", node.block))) {
                    return Err(format!("router: no {} in {have:#?}", node.block));
                }
            }
            Ok(())
        };
        let ((), took) = eventually(limit, check).with_context(|| self.lab.logs(30))?;
        Ok(took)
    }

    /// Lines, or beginnings of lines, of `ip route` that a node must have.
    pub fn expected_routes(&self, node: &NodeHost) -> Vec<String> {
        let mut lines = vec![format!("blackhole {} proto bird", node.block)];
        for (_, on, address, interface) in PODS {
            if on == node.name {
                lines.push(format!("{address} dev {interface} proto 80 scope link metric 1024"));
            }
        }
        for other in self.nodes.iter().filter(|other| other.name != node.name) {
            lines.push(format!("{} via {} dev {UPLINK} proto bird metric 1024", other.block, other.address));
        }
        lines
    }
}

/// Lines of `ip route` in a host, blanks folded.
pub fn routes(space: &Namespace) -> anyhow::Result<Vec<String>> {
    let text = space.sh("ip route show")?;
    Ok(text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect())
}

/// The binary under test: `CARACAL_BIN`, else the one that cargo built beside this program.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("CARACAL_BIN") {
        return Ok(path.into());
    }
    let here = std::env::current_exe()?;
    let found = here.ancestors().skip(1).take(3).map(|dir| dir.join("caracal")).find(|path| path.is_file());
    found.context("caracal is not built: run `cargo build --release`, or name the binary in CARACAL_BIN")
}

fn plug(lan: &Namespace, host: &Namespace, number: u8, address: Ipv4Addr) -> anyhow::Result<()> {
    lan.wire(&format!("p{number}"), host, UPLINK, Some("br0"))?;
    host.address(UPLINK, IpNet::new(address.into(), 24)?)
}

fn agent(lab: &Lab, store: &Store, node: &NodeHost, role: &str, options: &Options) -> Process {
    let mut process = Process::new(
        &format!("{}-{role}", node.name),
        &node.space,
        lab.dir(),
        &[&options.binary.to_string_lossy(), role],
    )
    .env("NODENAME", &node.name)
    .env("IP", &node.address.to_string())
    .env("NO_DEFAULT_POOLS", "true")
    .env("FELIX_HEALTHENABLED", "true")
    .env("CARACAL_RUN_DIR", &lab.file(&format!("run-{}", node.name)).to_string_lossy());
    for (key, value) in store.env() {
        process = process.env(key, &value);
    }
    process
}
