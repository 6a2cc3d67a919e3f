//! What one node's speaker should be: the result of [`derive`](crate::derive).
//!
//! The field names are the schema of `integration/golden/bgp/README.md`; `null` and an absent key mean the same,
//! so empty values are left out. Fields beyond that schema are ours and there only when they are set: `problems` and `ecmp`, and
//! on a peer `bgpPeer`, `export`, `bfd` and `settings`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use caracal_model::GoDuration;
use caracal_model::annotation::{BfdFailure, BgpSettings, Discovery};
use ipnet::IpNet;
use serde::Serialize;

/// The normal priority of a route, and so its kernel metric, where BGPConfiguration sets none.
pub const NORMAL_PRIORITY: u32 = 1024;
/// LOCAL_PREF and metric of a route add up to this.
pub const PRIORITY_BASE: u32 = i32::MAX.unsigned_abs();

/// An address family of unicast routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }

    /// The family of a prefix.
    pub fn of_net(net: &IpNet) -> Self {
        Self::of(net.addr())
    }
}

/// How much the speaker tells about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Errors and warnings only.
    None,
    /// State changes.
    #[default]
    Info,
    /// Everything.
    Debug,
}

/// What kind of peering a peer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerType {
    /// Another node of the full mesh.
    Mesh,
    /// A BGPPeer without node and nodeSelector.
    Global,
    /// A BGPPeer of this node, or the mirror of another node's.
    Node,
    /// A workload on this node that speaks BGP.
    LocalWorkload,
}

/// Which next hop a peer is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NextHopMode {
    /// The default of BGP.
    #[default]
    Auto,
    /// Our address.
    #[serde(rename = "self")]
    Own,
    /// What the route came with.
    Keep,
}

/// How far the annotation `caracal.io/export` narrows what a peer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExportScope {
    /// This node's blocks and borrowed addresses only.
    Own,
    /// Nothing that was learned from another external peer.
    NoTransit,
}

/// The configuration of one node's speaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfig {
    /// The node's name.
    pub node: String,
    /// Families for which the node has a BGP address.
    pub families: Vec<Family>,
    /// Without it the speaker cannot start; `problems` says why there is none.
    pub router_id: Option<Ipv4Addr>,
    /// The node's AS; none without families.
    pub as_number: Option<u32>,
    /// Port to listen on; 179 if none.
    pub listen_port: Option<u16>,
    /// IPv4 address to listen on; any if none.
    pub listen_address_v4: Option<IpAddr>,
    /// IPv6 address to listen on; any if none.
    pub listen_address_v6: Option<IpAddr>,
    /// Normal IPv4 metric.
    pub route_priority_v4: u32,
    /// Normal IPv6 metric.
    pub route_priority_v6: u32,
    /// From logSeverityScreen.
    pub log_level: LogLevel,
    /// Patterns of interfaces whose connected routes are not read, besides `cali*` and `kube-ipvs*`.
    pub ignored_interfaces: Vec<String>,
    /// Sorted by name.
    pub peers: Vec<Peer>,
    /// The filters and directions that a peer names.
    pub filters: BTreeMap<String, Filter>,
    /// Blocks exported as such.
    pub originates: Vec<IpNet>,
    /// Blocks with a static blackhole.
    pub blackholes: Vec<IpNet>,
    /// Routes to peers behind a gateway.
    pub host_routes: Vec<HostRoute>,
    /// Service ranges announced.
    pub services: Vec<IpNet>,
    /// Communities added on export.
    pub communities: Vec<CommunityRule>,
    /// Nothing inside is exported.
    pub never_export: Vec<IpNet>,
    /// A route out of such an interface is not exported to an internal peer.
    pub internal_never_export_interfaces: Vec<String>,
    /// Any route inside is exported (last rule).
    pub export_within: Vec<IpNet>,
    /// What is programmed into the kernel.
    pub kernel: KernelRules,
    /// From the annotation `caracal.io/ecmp`: most equal paths of a kernel route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecmp: Option<u8>,
    /// Objects that are not followed as written, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// One peer of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// `Mesh_`, `Global_`, `Node_` or `Local_Workload_`, the address, `_port_N` where a port is given.
    pub name: String,
    /// Where the peering comes from.
    #[serde(rename = "type")]
    pub kind: PeerType,
    /// The peer's address; the unspecified one of a peer that the node finds by itself.
    #[serde(skip_serializing_if = "is_unspecified")]
    pub address: IpAddr,
    /// How the node finds it, from the annotations `caracal.io/interface` and `caracal.io/default-gateway`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discover: Option<Discovery>,
    /// The peer's port; 179 if none.
    pub port: Option<u16>,
    /// The peer's AS; 0: any but ours.
    pub as_number: u32,
    /// Our AS on this session, where it differs from the node's.
    pub local_as_number: Option<u32>,
    /// The peer's AS is ours on this session.
    pub internal: bool,
    /// Wait to be called.
    pub passive: bool,
    /// Local address of the session.
    pub source_address: Option<IpAddr>,
    /// Hops for which TTL security is on.
    pub ttl_security: Option<u8>,
    /// Hops allowed.
    pub multihop: u8,
    /// A password is set.
    pub password: bool,
    /// Which secret holds the password; never printed.
    #[serde(skip)]
    pub password_ref: Option<SecretRef>,
    /// We reflect for this peer.
    pub route_reflector_client: bool,
    /// With this cluster id.
    pub cluster_id: Option<Ipv4Addr>,
    /// Restart time in our OPEN; 120 s if none.
    pub graceful_restart_seconds: Option<u64>,
    /// Keepalive interval; a third of the hold time if none.
    pub keepalive_seconds: Option<u64>,
    /// How often our AS may occur in a received path.
    pub allow_local_as: Option<u32>,
    /// Which next hop the peer is told.
    pub next_hop: NextHopMode,
    /// In the order of evaluation.
    pub import_filters: Vec<String>,
    /// In the order of evaluation.
    pub export_filters: Vec<String>,
    /// Gateway of the host route to the peer.
    pub reachable_by: Option<IpAddr>,
    /// From the annotation `caracal.io/export`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export: Option<ExportScope>,
    /// From the annotations `caracal.io/bfd*`: watch the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bfd: Option<Bfd>,
    /// From the other annotations of `docs/annotations.md`, what is nearest.
    #[serde(skip_serializing_if = "BgpSettings::is_empty")]
    pub settings: BgpSettings,
    /// The BGPPeer object behind this peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bgp_peer: Option<String>,
}

impl Peer {
    /// Whether its session carries routes of a family.
    pub fn carries(&self, family: Family) -> bool {
        match &self.discover {
            // An unnumbered link has one session for both families.
            Some(Discovery::Interface(_)) => true,
            Some(Discovery::DefaultGateway(_)) | None => Family::of(self.address) == family,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_unspecified(address: &IpAddr) -> bool {
    address.is_unspecified()
}

/// How a peer is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bfd {
    /// Shortest interval to send.
    pub min_tx: GoDuration,
    /// Shortest interval to receive.
    pub min_rx: GoDuration,
    /// Packets that may be lost.
    pub multiplier: u8,
    /// The peer is not on a link of this node.
    pub multihop: bool,
    /// What a failure that a restart may explain does to the peer's routes.
    pub failure: BfdFailure,
    /// No BGP session before BFD is up.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub strict: bool,
}

/// A secret's name and the key inside it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretRef {
    /// The secret.
    pub name: String,
    /// The key inside it.
    pub key: String,
}

/// A static route to a peer's address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct HostRoute {
    /// The peer as a /32 or /128.
    pub destination: IpNet,
    /// The gateway.
    pub via: IpAddr,
}

/// Communities for routes inside a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CommunityRule {
    /// Routes inside get the communities.
    pub cidr: IpNet,
    /// `a:b` or `a:b:c`.
    pub communities: Vec<Community>,
}

/// A standard (RFC 1997) or large (RFC 8092) community.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Community {
    /// `a:b`.
    Standard(u16, u16),
    /// `a:b:c`.
    Large(u32, u32, u32),
}

impl std::fmt::Display for Community {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Standard(a, b) => write!(f, "{a}:{b}"),
            Self::Large(a, b, c) => write!(f, "{a}:{b}:{c}"),
        }
    }
}

impl std::str::FromStr for Community {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            [a, b] => Ok(Self::Standard(a.parse().map_err(drop)?, b.parse().map_err(drop)?)),
            [a, b, c] => {
                Ok(Self::Large(a.parse().map_err(drop)?, b.parse().map_err(drop)?, c.parse().map_err(drop)?))
            }
            _ => Err(()),
        }
    }
}

impl Serialize for Community {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is written to the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelRules {
    /// No route inside is programmed.
    pub never_program: Vec<IpNet>,
    /// Pools whose routes felix programs.
    pub rejects: Vec<IpNet>,
    /// Routes inside go through a tunnel.
    pub tunnels: Vec<Tunnel>,
    /// No route with this BGP next hop is programmed.
    pub wireguard_peers: Vec<IpAddr>,
}

/// A tunnel for the routes of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tunnel {
    /// The pool.
    pub cidr: IpNet,
    /// The device.
    pub interface: String,
    /// Next hops in this subnet are reached without the tunnel.
    pub except_next_hop_in: Option<IpNet>,
}

/// A BGPFilter, for the directions and families in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// Rules for received IPv4 routes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub import_v4: Vec<Rule>,
    /// Rules for IPv4 routes sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub export_v4: Vec<Rule>,
    /// Rules for received IPv6 routes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub import_v6: Vec<Rule>,
    /// Rules for IPv6 routes sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub export_v6: Vec<Rule>,
}

/// Received or sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Received from the peer.
    Import,
    /// Sent to the peer.
    Export,
}

impl Filter {
    /// The rules of one direction and family.
    pub fn rules(&self, direction: Direction, family: Family) -> &[Rule] {
        match (direction, family) {
            (Direction::Import, Family::Ipv4) => &self.import_v4,
            (Direction::Export, Family::Ipv4) => &self.export_v4,
            (Direction::Import, Family::Ipv6) => &self.import_v6,
            (Direction::Export, Family::Ipv6) => &self.export_v6,
        }
    }

    pub(crate) fn rules_mut(&mut self, direction: Direction, family: Family) -> &mut Vec<Rule> {
        match (direction, family) {
            (Direction::Import, Family::Ipv4) => &mut self.import_v4,
            (Direction::Export, Family::Ipv4) => &mut self.export_v4,
            (Direction::Import, Family::Ipv6) => &mut self.import_v6,
            (Direction::Export, Family::Ipv6) => &mut self.export_v6,
        }
    }
}

/// What a matching rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Action {
    /// Take or send the route.
    Accept,
    /// Refuse it.
    Reject,
}

/// How `cidr` is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum MatchOperator {
    /// The same prefix.
    Equal,
    /// Any other prefix.
    NotEqual,
    /// Inside.
    In,
    /// Not inside.
    NotIn,
}

/// Which lengths inside `cidr` match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PrefixLength {
    /// At least.
    pub min: u8,
    /// At most.
    pub max: u8,
}

/// Which sessions a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum PeerScope {
    /// External peers.
    #[serde(rename = "eBGP")]
    External,
    /// Internal peers.
    #[serde(rename = "iBGP")]
    Internal,
}

/// Where a route comes from, as a filter may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum RouteSource {
    /// Learned by BGP.
    RemotePeers,
}

/// One rule of a filter. All conditions that are set must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// The verdict.
    pub action: Action,
    /// The prefix to compare with.
    pub cidr: Option<IpNet>,
    /// How to compare.
    pub match_operator: Option<MatchOperator>,
    /// The effective bounds of the length.
    pub prefix_length: Option<PrefixLength>,
    /// Where the route comes from.
    pub source: Option<RouteSource>,
    /// Pattern of the outgoing interface.
    pub interface: Option<String>,
    /// Which sessions the rule is for.
    pub peer_type: Option<PeerScope>,
    /// A community that the route carries.
    pub community: Option<Community>,
    /// How the AS path begins.
    pub as_path_prefix: Option<Vec<u32>>,
    /// LOCAL_PREF is [`PRIORITY_BASE`] less this.
    pub priority: Option<u32>,
    /// What to do with an accepted route, in this order.
    pub operations: Vec<Operation>,
}

impl Rule {
    /// A rule that refuses everything.
    pub fn reject_all() -> Self {
        Self {
            action: Action::Reject,
            cidr: None,
            match_operator: None,
            prefix_length: None,
            source: None,
            interface: None,
            peer_type: None,
            community: None,
            as_path_prefix: None,
            priority: None,
            operations: Vec::new(),
        }
    }
}

/// A change to an accepted route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Operation {
    /// Add a community.
    #[serde(rename = "addCommunity")]
    AddCommunity(Community),
    /// Put these in front of the AS path; the first ends up first.
    #[serde(rename = "prependASPath")]
    PrependAsPath(Vec<u32>),
    /// Set LOCAL_PREF to [`PRIORITY_BASE`] less this.
    #[serde(rename = "setPriority")]
    SetPriority(u32),
}

/// Something in the datastore that is not followed as written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Kind and name, as in `BGPPeer(tor-a)`.
    pub object: String,
    /// The field, if it is one.
    pub field: String,
    /// What is wrong and what follows from it.
    pub reason: String,
    /// What to do about it.
    pub fix: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.object)?;
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        write!(f, ": {}; {}", self.reason, self.fix)
    }
}
