//! Who a node's peers are: mesh, BGPPeers, their mirrors, and workloads that speak BGP.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use caracal_model::GoDuration;
use caracal_model::annotation::{BfdFailure, BgpSettings, Discovery, GatewayFamily, RemoteAs};
use caracal_model::selector::Selector;
use ipnet::IpNet;

use crate::config::{
    Bfd, Direction, Family, Filter, HostRoute, NextHopMode, Peer, PeerType, Problem, Rule, SecretRef,
};
use crate::derive::Env;
use crate::facts::{ConfigFact, Facts, FilterFact, Locals, NodeFact, PeerFact, Remote};

/// Hops allowed where TTL security does not say less.
const MULTIHOP: u8 = 64;
/// Calico's nodes and common routers agree on this: 300 ms, three may be lost.
const BFD_INTERVAL: GoDuration = GoDuration::from_nanos(300_000_000);
const BFD_MULTIPLIER: u8 = 3;

/// The peers of a node and the static routes that reach some of them.
pub(crate) struct Found {
    pub(crate) peers: Vec<Peer>,
    pub(crate) host_routes: Vec<HostRoute>,
}

/// A peering of this node before it is known whether it makes a session here.
struct Peering<'a> {
    kind: PeerType,
    address: IpAddr,
    /// How the node finds the address.
    discover: Option<&'a Discovery>,
    port: Option<u16>,
    as_number: u32,
    /// Local AS and how often it may occur: only where the peer is given by address.
    by_address: bool,
    /// The address is a node's, so that one side of a global peering waits.
    calico_node: bool,
    cluster_id: Option<Ipv4Addr>,
    reachable_by: Option<IpAddr>,
    name: &'a str,
    fact: &'a PeerFact,
}

impl<'a> Peering<'a> {
    /// One that names a single peer and wants nothing else.
    fn of(kind: PeerType, address: IpAddr, as_number: u32, name: &'a str, fact: &'a PeerFact) -> Self {
        Self {
            kind,
            address,
            discover: None,
            port: None,
            as_number,
            by_address: true,
            calico_node: false,
            cluster_id: None,
            reachable_by: None,
            name,
            fact,
        }
    }
}

struct Search<'a> {
    facts: &'a Facts,
    node: &'a str,
    global: &'a ConfigFact,
    global_as: u32,
    found: BTreeMap<Place<'a>, Peering<'a>>,
}

/// What makes two peerings one.
type Place<'a> = (IpAddr, Option<u16>, Option<&'a Discovery>);

/// Finds the peers of `node`.
#[allow(clippy::too_many_arguments, reason = "one caller, and a struct would only rename its locals")]
pub(crate) fn find(
    facts: &Facts,
    node: &str,
    own: &NodeFact,
    global: &ConfigFact,
    inherited: &BgpSettings,
    global_as: u32,
    families: &[Family],
    env: &Env,
    problems: &mut Vec<Problem>,
) -> Found {
    let mut search = Search { facts, node, global, global_as, found: BTreeMap::new() };
    // Global peerings win over those of this node, and both over mirrors; among equals the first name wins.
    for global_pass in [true, false] {
        for (name, fact) in &facts.peers {
            if (fact.locals == Locals::All) == global_pass && search.is_local(fact) {
                search.forward(name, fact, problems);
            }
        }
    }
    for (name, fact) in &facts.peers {
        if !fact.manual_reverse && !matches!(fact.remote, Remote::Workloads(_)) {
            search.mirror(name, fact);
        }
    }

    let node_as = own.as_number.unwrap_or(global_as);
    let mut peers = mesh(facts, node, own, global, node_as, families, env, problems);
    let mut host_routes = Vec::new();
    for peering in search.found.values() {
        if let (Some(via), true) = (peering.reachable_by, peering.by_address) {
            host_routes.push(HostRoute { destination: IpNet::from(peering.address), via });
        }
        let own_address = own.address(Family::of(peering.address)).filter(|a| *a != peering.address);
        let unnumbered = matches!(peering.discover, Some(Discovery::Interface(_)));
        if own_address.is_some() || unnumbered {
            peers.push(peer(facts, peering, own_address, own, node_as, env, problems));
        }
    }
    for peer in &mut peers {
        let settings = peer.settings.or(inherited);
        peer.bfd = bfd(peer, own, &settings);
        // What is told elsewhere is not told twice.
        peer.settings = BgpSettings {
            bfd: None,
            bfd_min_tx: None,
            bfd_min_rx: None,
            bfd_multiplier: None,
            bfd_multihop: None,
            bfd_failure: None,
            bfd_strict: None,
            ecmp: None,
            ..settings
        };
    }
    peers.sort_by(|a, b| a.name.cmp(&b.name));
    Found { peers, host_routes }
}

/// Whether and how a peer is watched.
fn bfd(peer: &Peer, own: &NodeFact, settings: &BgpSettings) -> Option<Bfd> {
    settings.bfd.filter(|on| *on)?;
    let subnet = match Family::of(peer.address) {
        Family::Ipv4 => own.v4,
        Family::Ipv6 => own.v6,
    };
    let link_local = matches!(peer.address, IpAddr::V6(a) if a.is_unicast_link_local());
    // A gateway is on the link.
    let on_link = link_local
        || peer.discover.is_some()
        || peer.kind == PeerType::LocalWorkload
        || peer.reachable_by.is_none() && subnet.is_some_and(|s| s.contains(&peer.address));
    Some(Bfd {
        min_tx: settings.bfd_min_tx.unwrap_or(BFD_INTERVAL),
        min_rx: settings.bfd_min_rx.unwrap_or(BFD_INTERVAL),
        multiplier: settings.bfd_multiplier.unwrap_or(BFD_MULTIPLIER),
        multihop: settings.bfd_multihop.unwrap_or(!on_link),
        failure: settings.bfd_failure.unwrap_or(BfdFailure::Drop),
        strict: settings.bfd_strict.unwrap_or(false),
    })
}

/// The filters that `peers` name, in the directions and families in which they name them.
pub(crate) fn filters_in_use(facts: &Facts, peers: &[Peer]) -> BTreeMap<String, Filter> {
    let mut used: BTreeMap<String, Filter> = BTreeMap::new();
    let carried = peers.iter().flat_map(|peer| {
        [Family::Ipv4, Family::Ipv6].into_iter().filter(|f| peer.carries(*f)).map(move |f| (peer, f))
    });
    for (peer, family) in carried {
        for (direction, names) in
            [(Direction::Import, &peer.import_filters), (Direction::Export, &peer.export_filters)]
        {
            for name in names {
                let rules = match facts.filters.get(name) {
                    Some(FilterFact::Rules(filter)) => filter.rules(direction, family).to_vec(),
                    Some(FilterFact::Unreadable) => vec![Rule::reject_all()],
                    None => continue,
                };
                *used.entry(name.clone()).or_default().rules_mut(direction, family) = rules;
            }
        }
    }
    used
}

impl<'a> Search<'a> {
    fn is_local(&self, fact: &PeerFact) -> bool {
        match &fact.locals {
            Locals::All => true,
            Locals::Node(name) => name == self.node,
            Locals::Selector(selector) => {
                self.facts.nodes.get(self.node).is_some_and(|n| selector.matches(&n.labels))
            }
        }
    }

    /// The peers that a BGPPeer of this node names.
    fn forward(&mut self, name: &'a str, fact: &'a PeerFact, problems: &mut Vec<Problem>) {
        let kind = if fact.locals == Locals::All { PeerType::Global } else { PeerType::Node };
        match &fact.remote {
            Remote::Address { ip, port, reachable_by } => {
                let as_number = fact.as_number.unwrap_or(self.global_as);
                let port = port.or_else(|| self.port_of_node_at(*ip, as_number));
                let calico_node = self.facts.nodes.values().any(|n| n.has_address(*ip));
                let peering = Peering {
                    port,
                    calico_node,
                    reachable_by: *reachable_by,
                    ..Peering::of(kind, *ip, as_number, name, fact)
                };
                self.add(peering, Some(problems));
            }
            Remote::Selector(selector) => {
                for (other, node) in &self.facts.nodes {
                    if selector.matches(&node.labels) {
                        self.add_node(kind, other, node, true, true, name, fact, Some(problems));
                    }
                }
            }
            Remote::Found { by, remote_as, selector } => {
                self.add_found(kind, by, *remote_as, selector.as_ref(), name, fact, problems);
            }
            Remote::Workloads(selector) => {
                let addresses: Vec<IpAddr> = self
                    .facts
                    .workloads
                    .values()
                    .filter(|w| w.node == self.node && selector.matches(&w.labels))
                    .flat_map(|w| w.addresses.iter().copied())
                    .collect();
                for address in addresses {
                    let peering = Peering::of(
                        PeerType::LocalWorkload,
                        address,
                        fact.as_number.unwrap_or(self.global_as),
                        name,
                        fact,
                    );
                    self.add(peering, Some(problems));
                }
            }
        }
    }

    /// A peer that the node finds. Nodes that run Calico must make nothing of the same object.
    #[allow(clippy::too_many_arguments, reason = "one caller, and a struct would only rename its locals")]
    fn add_found(
        &mut self,
        kind: PeerType,
        by: &'a Discovery,
        remote_as: RemoteAs,
        selector: Option<&Selector>,
        name: &'a str,
        fact: &'a PeerFact,
        problems: &mut Vec<Problem>,
    ) {
        let as_of = |node: &NodeFact| node.as_number.unwrap_or(self.global_as);
        let mut refuse = |field: &str, reason: String| {
            problems.push(Problem {
                object: format!("BGPPeer({name})"),
                field: field.into(),
                reason: format!("{reason}, so it is not followed"),
                fix: "write peerSelector: \"!all()\" and the peer's AS as caracal.io/remote-as".into(),
            });
        };
        let meant = self.facts.nodes.iter().find(|(_, n)| match (selector, remote_as) {
            (Some(selector), _) => selector.matches(&n.labels),
            (None, RemoteAs::Number(number)) => as_of(n) == number,
            (None, _) => false,
        });
        match (meant, selector) {
            (Some((node, _)), Some(_)) => {
                return refuse(
                    "spec.peerSelector",
                    format!("selects the node {node} beside the peer to be found"),
                );
            }
            (Some((node, _)), None) => {
                let why = format!("is the AS of the node {node}: nodes that run Calico would peer with it");
                return refuse("spec.asNumber", why);
            }
            (None, _) => {}
        }
        let own_as = self.facts.nodes.get(self.node).map_or(self.global_as, as_of);
        let as_number = match remote_as {
            RemoteAs::Number(number) => number,
            RemoteAs::External => 0,
            RemoteAs::Internal => fact.local_as_number.unwrap_or(own_as),
        };
        let address: IpAddr = match by {
            Discovery::DefaultGateway(GatewayFamily::Ipv4) => Ipv4Addr::UNSPECIFIED.into(),
            Discovery::DefaultGateway(GatewayFamily::Ipv6) | Discovery::Interface(_) => {
                Ipv6Addr::UNSPECIFIED.into()
            }
        };
        let peering = Peering { discover: Some(by), ..Peering::of(kind, address, as_number, name, fact) };
        self.add(peering, Some(problems));
    }

    /// The other side of a BGPPeer that names this node as the peer.
    fn mirror(&mut self, name: &'a str, fact: &'a PeerFact) {
        let (remote, v4, v6) = match &fact.remote {
            Remote::Selector(selector) => {
                (self.facts.nodes.get(self.node).is_some_and(|n| selector.matches(&n.labels)), true, true)
            }
            Remote::Address { ip, port, .. } => {
                let as_number = fact.as_number.unwrap_or(self.global_as);
                let here = self.facts.nodes.get(self.node).is_some_and(|n| {
                    n.has_address(*ip)
                        && n.as_number.unwrap_or(self.global_as) == as_number
                        && port.is_none_or(|p| self.listen_port(self.node).is_none_or(|own| own == p))
                });
                (here, ip.is_ipv4(), ip.is_ipv6())
            }
            Remote::Workloads(_) | Remote::Found { .. } => return,
        };
        if !remote {
            return;
        }
        for (other, node) in &self.facts.nodes {
            let local = match &fact.locals {
                Locals::All => true,
                Locals::Node(n) => n == other,
                Locals::Selector(selector) => selector.matches(&node.labels),
            };
            if local {
                self.add_node(PeerType::Node, other, node, v4, v6, name, fact, None);
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "two callers that differ in each of them")]
    fn add_node(
        &mut self,
        kind: PeerType,
        other: &str,
        node: &NodeFact,
        v4: bool,
        v6: bool,
        name: &'a str,
        fact: &'a PeerFact,
        mut problems: Option<&mut Vec<Problem>>,
    ) {
        let wanted = [node.address(Family::Ipv4).filter(|_| v4), node.address(Family::Ipv6).filter(|_| v6)];
        for address in wanted.into_iter().flatten() {
            let peering = Peering {
                port: self.listen_port(other),
                by_address: false,
                cluster_id: node.cluster_id,
                ..Peering::of(kind, address, node.as_number.unwrap_or(self.global_as), name, fact)
            };
            self.add(peering, problems.as_deref_mut());
        }
    }

    /// Adds a peering unless there is one for the same address and port.
    fn add(&mut self, peering: Peering<'a>, problems: Option<&mut Vec<Problem>>) {
        let key = (peering.address, peering.port, peering.discover);
        match self.found.get(&key) {
            None => {
                self.found.insert(key, peering);
            }
            Some(first) => {
                if let Some(problems) =
                    problems.filter(|_| first.name != peering.name && first.fact != peering.fact)
                {
                    let who = match (peering.discover, peering.port) {
                        (Some(Discovery::Interface(name)), _) => format!("on {name}"),
                        (Some(Discovery::DefaultGateway(_)), _) => "at the default gateway".to_owned(),
                        (None, Some(port)) => format!("{} port {port}", peering.address),
                        (None, None) => peering.address.to_string(),
                    };
                    problems.push(Problem {
                        object: format!("BGPPeer({})", peering.name),
                        field: "spec".into(),
                        reason: format!(
                            "names the peer {who} that BGPPeer({}) already names; the latter is followed",
                            first.name
                        ),
                        fix: "delete one of the two, or give them different nodes".into(),
                    });
                }
            }
        }
    }

    fn listen_port(&self, node: &str) -> Option<u16> {
        self.facts.node_configs.get(node).and_then(|c| c.listen_port).or(self.global.listen_port)
    }

    /// The listen port of the first node with this address and AS.
    fn port_of_node_at(&self, ip: IpAddr, as_number: u32) -> Option<u16> {
        let (name, _) = self
            .facts
            .nodes
            .iter()
            .find(|(_, n)| n.has_address(ip) && n.as_number.unwrap_or(self.global_as) == as_number)?;
        self.listen_port(name)
    }
}

#[allow(clippy::too_many_arguments, reason = "one caller, and a struct would only rename its locals")]
fn mesh(
    facts: &Facts,
    node: &str,
    own: &NodeFact,
    global: &ConfigFact,
    node_as: u32,
    families: &[Family],
    env: &Env,
    problems: &mut Vec<Problem>,
) -> Vec<Peer> {
    let mut peers: BTreeMap<IpAddr, Peer> = BTreeMap::new();
    if own.cluster_id.is_some() || global.mesh == Some(false) {
        return Vec::new();
    }
    let password_ref = readable(
        global.mesh_password.as_ref(),
        "BGPConfiguration(default)",
        "spec.nodeMeshPassword",
        env,
        problems,
    );
    for (name, other) in
        facts.nodes.iter().filter(|(name, n)| name.as_str() != node && n.cluster_id.is_none())
    {
        for family in families {
            let (Some(own_address), Some(address)) = (own.address(*family), other.address(*family)) else {
                continue;
            };
            if address == own_address {
                problems.push(same_address(node, name, address));
                continue;
            }
            if peers.contains_key(&address) {
                problems.push(same_address("another node", name, address));
                continue;
            }
            let as_number = other.as_number.unwrap_or(node_as);
            let specific = facts.node_configs.get(name).and_then(|c| c.listen_port);
            peers.insert(
                address,
                Peer {
                    name: peer_name("Mesh", address, None),
                    kind: PeerType::Mesh,
                    address,
                    discover: None,
                    port: specific.or(global.listen_port),
                    as_number,
                    local_as_number: None,
                    internal: as_number == node_as,
                    passive: after_as_text(address, own_address),
                    source_address: Some(own_address),
                    ttl_security: None,
                    multihop: MULTIHOP,
                    password: password_ref.is_some(),
                    password_ref: password_ref.clone(),
                    route_reflector_client: false,
                    cluster_id: None,
                    graceful_restart_seconds: global.mesh_restart_seconds,
                    keepalive_seconds: None,
                    allow_local_as: None,
                    next_hop: NextHopMode::Auto,
                    import_filters: Vec::new(),
                    export_filters: Vec::new(),
                    reachable_by: None,
                    export: None,
                    bfd: None,
                    settings: BgpSettings::default(),
                    bgp_peer: None,
                },
            );
        }
    }
    peers.into_values().collect()
}

fn peer(
    facts: &Facts,
    peering: &Peering<'_>,
    own_address: Option<IpAddr>,
    own: &NodeFact,
    node_as: u32,
    env: &Env,
    problems: &mut Vec<Problem>,
) -> Peer {
    let Peering { fact, address, kind, .. } = *peering;
    let unnumbered = matches!(peering.discover, Some(Discovery::Interface(_)));
    let families =
        if unnumbered { [Some(Family::Ipv4), Some(Family::Ipv6)] } else { [Some(Family::of(address)), None] };
    let workload = kind == PeerType::LocalWorkload;
    let local_as_number = fact.local_as_number.filter(|_| peering.by_address);
    let internal = peering.as_number == local_as_number.unwrap_or(node_as);
    let prefix = match kind {
        PeerType::Mesh => "Mesh",
        PeerType::Global => "Global",
        PeerType::Node => "Node",
        PeerType::LocalWorkload => "Local_Workload",
    };
    let next_hop = if fact.keep_next_hop && !internal { NextHopMode::Keep } else { fact.next_hop };
    let reflect = internal && own.cluster_id.is_some() && peering.cluster_id != own.cluster_id;
    let object = format!("BGPPeer({})", peering.name);
    let password_ref = readable(fact.password.as_ref(), &object, "spec.password", env, problems);
    problems.extend(fact.annotations.problems(&object));
    Peer {
        name: match peering.discover {
            Some(Discovery::Interface(name)) => format!("{prefix}_interface_{name}"),
            Some(Discovery::DefaultGateway(GatewayFamily::Ipv4)) => format!("{prefix}_gateway_ipv4"),
            Some(Discovery::DefaultGateway(GatewayFamily::Ipv6)) => format!("{prefix}_gateway_ipv6"),
            None => peer_name(prefix, address, peering.port),
        },
        kind,
        address,
        discover: peering.discover.cloned(),
        port: peering.port,
        as_number: peering.as_number,
        local_as_number,
        internal,
        passive: workload
            || kind == PeerType::Global
                && peering.calico_node
                && own_address.is_some_and(|own| after_as_text(address, own)),
        // An unnumbered link has an address of its own.
        source_address: own_address.filter(|_| fact.use_node_ip && !workload && !unnumbered),
        ttl_security: fact.ttl_security,
        multihop: fact.ttl_security.unwrap_or(MULTIHOP),
        password: password_ref.is_some(),
        password_ref,
        route_reflector_client: reflect,
        cluster_id: own.cluster_id.filter(|_| reflect),
        graceful_restart_seconds: fact.restart_seconds.filter(|_| !workload),
        keepalive_seconds: fact.keepalive_seconds.filter(|_| !workload),
        allow_local_as: fact.allow_local_as.filter(|_| peering.by_address),
        next_hop,
        import_filters: filters(facts, fact, Direction::Import, families),
        export_filters: filters(facts, fact, Direction::Export, families),
        reachable_by: peering.reachable_by,
        export: fact.export,
        bfd: None,
        settings: BgpSettings {
            // Between nodes both ends would wait.
            passive: fact.annotations.settings.passive.filter(|_| peering.by_address && !peering.calico_node),
            ..fact.annotations.settings
        },
        bgp_peer: Some(peering.name.to_owned()),
    }
}

/// The filters of a peering that exist and have a rule here. One that cannot be read refuses everything: letting
/// routes through that it may have been written to stop would be the worse surprise.
fn filters(
    facts: &Facts,
    fact: &PeerFact,
    direction: Direction,
    families: [Option<Family>; 2],
) -> Vec<String> {
    let has_rules = |filter: &Filter| {
        families.into_iter().flatten().any(|family| !filter.rules(direction, family).is_empty())
    };

    fact.filters
        .iter()
        .filter(|name| match facts.filters.get(*name) {
            Some(FilterFact::Rules(filter)) => has_rules(filter),
            Some(FilterFact::Unreadable) => true,
            None => false,
        })
        .cloned()
        .collect()
}

fn readable(
    secret: Option<&SecretRef>,
    object: &str,
    field: &str,
    env: &Env,
    problems: &mut Vec<Problem>,
) -> Option<SecretRef> {
    let secret = secret?;
    if env.secrets.contains(secret) {
        return Some(secret.clone());
    }
    problems.push(Problem {
        object: object.to_owned(),
        field: field.to_owned(),
        reason: format!(
            "key {} of secret {} is not known here, so the session has no password",
            secret.key, secret.name
        ),
        fix: "add it to the agent's file of BGP passwords, or remove the field".into(),
    });
    None
}

fn same_address(node: &str, other: &str, address: IpAddr) -> Problem {
    Problem {
        object: format!("Node({other})"),
        field: "spec.bgp".into(),
        reason: format!("has the address {address} of {node}, so there is no session with it"),
        fix: "give each node an address of its own".into(),
    }
}

fn peer_name(prefix: &str, address: IpAddr, port: Option<u16>) -> String {
    let address = address.to_string().replace(['.', ':'], "_");
    match port {
        Some(port) => format!("{prefix}_{address}_port_{port}"),
        None => format!("{prefix}_{address}"),
    }
}

/// Of two nodes the one with the greater text calls; both sides must agree, so this is Calico's comparison.
fn after_as_text(address: IpAddr, own: IpAddr) -> bool {
    address.to_string() > own.to_string()
}
