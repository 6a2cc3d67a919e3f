//! What operators say about BGP: peers, global configuration, filters.

use crate::duration::GoDuration;
use crate::json::{record, text_enum};
use crate::numorstring::AsNumber;
use crate::object::Object;

/// A session, or a rule that makes sessions.
pub type BgpPeer = Object<BgpPeerSpec>;
/// BGP settings: `default` for all nodes, `node.<name>` for one.
pub type BgpConfiguration = Object<BgpConfigurationSpec>;
/// A list of rules for routes of a peer.
pub type BgpFilter = Object<BgpFilterSpec>;

text_enum! {
    /// Next hop told to the peer.
    pub enum NextHopMode { Auto = "Auto", SelfNode = "Self", Keep = "Keep", }
    /// Address that a session starts from.
    pub enum SourceAddress { UseNodeIp = "UseNodeIP", None = "None", }
    /// Whether the selected remote nodes get the session too.
    pub enum ReversePeering { Auto = "Auto", Manual = "Manual", }
    /// What a filter rule does with a route.
    pub enum BgpFilterAction { Accept = "Accept", Reject = "Reject", }
    /// How a filter rule compares prefixes.
    pub enum MatchOperator { Equal = "Equal", NotEqual = "NotEqual", In = "In", NotIn = "NotIn", }
    /// Where a route came from.
    pub enum FilterSource { RemotePeers = "RemotePeers", }
    /// Kind of session that a filter rule is for.
    pub enum FilterPeerType { Ebgp = "eBGP", Ibgp = "iBGP", }
    /// Addresses that BGP listens on.
    pub enum BindMode { None = "None", NodeIp = "NodeIP", }
    /// Whether /32s of load balancer services are told beside their prefixes.
    pub enum ServiceAggregation { Enabled = "Enabled", Disabled = "Disabled", }
    /// Which cluster routes a component programs.
    pub enum ProgramClusterRoutes {
        Enabled = "Enabled", EnabledIpipOnly = "EnabledIPIPOnly", EnabledNoEncapOnly = "EnabledNoEncapOnly", Disabled = "Disabled",
    }
}

record! {
    /// Which nodes peer with whom, and how.
    pub struct BgpPeerSpec {
        /// The node that has the session.
        pub node: Option<String>,
        /// Nodes that have the session; with neither this nor `node`, all.
        pub node_selector: Option<String>,
        /// The peer: `address`, `address:port`, `[v6]:port`.
        #[serde(rename = "peerIP")]
        pub peer_ip: Option<String>,
        /// The peer's AS.
        pub as_number: Option<AsNumber>,
        /// Our AS in this session.
        #[serde(rename = "localASNumber")]
        pub local_as_number: Option<AsNumber>,
        /// Nodes to peer with, in place of `peer_ip`.
        pub peer_selector: Option<String>,
        /// Old spelling of next hop mode Keep.
        pub keep_original_next_hop: Option<bool>,
        /// Next hop told to the peer.
        pub next_hop_mode: Option<NextHopMode>,
        /// TCP MD5 password.
        pub password: Option<BgpPassword>,
        /// Address that the session starts from.
        pub source_address: Option<SourceAddress>,
        /// Graceful restart time.
        pub max_restart_time: Option<GoDuration>,
        /// Keepalive time.
        pub keepalive_time: Option<GoDuration>,
        /// How often our own AS may occur in received paths.
        #[serde(rename = "numAllowedLocalASNumbers")]
        pub num_allowed_local_as_numbers: Option<i32>,
        /// GTSM (RFC 5082): hops to the peer.
        pub ttl_security: Option<u8>,
        /// Gateway of a host route to the peer.
        pub reachable_by: Option<String>,
        /// BGPFilter names in order.
        pub filters: Vec<String>,
        /// Local workloads to peer with.
        pub local_workload_selector: Option<String>,
        /// Whether selected nodes get the session from their side too.
        pub reverse_peering: Option<ReversePeering>,
    }
    /// Where a password is.
    pub struct BgpPassword {
        /// A key of a secret.
        pub secret_key_ref: Option<SecretKeyRef>,
    }
    /// A key of a secret.
    pub struct SecretKeyRef {
        /// Secret's name.
        pub name: Option<String>,
        /// Key in it.
        pub key: Option<String>,
        /// The secret may be missing.
        pub optional: Option<bool>,
    }
    /// BGP settings; most are honoured on `default` only.
    pub struct BgpConfigurationSpec {
        /// Log level.
        pub log_severity_screen: Option<String>,
        /// Full mesh between nodes; on when unset.
        pub node_to_node_mesh_enabled: Option<bool>,
        /// AS of all nodes; 64512 when unset.
        pub as_number: Option<AsNumber>,
        /// Load balancer prefixes to tell.
        #[serde(rename = "serviceLoadBalancerIPs")]
        pub service_load_balancer_ips: Vec<CidrBlock>,
        /// External prefixes to tell.
        #[serde(rename = "serviceExternalIPs")]
        pub service_external_ips: Vec<CidrBlock>,
        /// Cluster prefixes to tell.
        #[serde(rename = "serviceClusterIPs")]
        pub service_cluster_ips: Vec<CidrBlock>,
        /// Whether /32s are told beside load balancer prefixes.
        pub service_load_balancer_aggregation: Option<ServiceAggregation>,
        /// Names for communities.
        pub communities: Vec<Community>,
        /// Communities to put on prefixes.
        pub prefix_advertisements: Vec<PrefixAdvertisement>,
        /// Port BGP listens on; 179 when unset.
        pub listen_port: Option<u16>,
        /// Password of mesh sessions.
        pub node_mesh_password: Option<BgpPassword>,
        /// Graceful restart time of mesh sessions.
        pub node_mesh_max_restart_time: Option<GoDuration>,
        /// Addresses that BGP listens on.
        pub bind_mode: Option<BindMode>,
        /// Interfaces whose prefixes are not learned.
        pub ignored_interfaces: Vec<String>,
        /// Address that workloads peer with.
        #[serde(rename = "localWorkloadPeeringIPV4")]
        pub local_workload_peering_ipv4: Option<String>,
        /// IPv6 address that workloads peer with.
        #[serde(rename = "localWorkloadPeeringIPV6")]
        pub local_workload_peering_ipv6: Option<String>,
        /// Cluster routes the speaker programs.
        pub program_cluster_routes: Option<ProgramClusterRoutes>,
        /// Metric of normal IPv4 workload routes; 1024 when unset.
        #[serde(rename = "ipv4NormalRoutePriority")]
        pub ipv4_normal_route_priority: Option<i64>,
        /// Metric of normal IPv6 workload routes; 1024 when unset.
        #[serde(rename = "ipv6NormalRoutePriority")]
        pub ipv6_normal_route_priority: Option<i64>,
    }
    /// A prefix.
    pub struct CidrBlock {
        /// The prefix.
        pub cidr: Option<String>,
    }
    /// A name for a community.
    pub struct Community {
        /// Its name.
        pub name: Option<String>,
        /// `a:b`, or `a:b:c` for a large one.
        pub value: Option<String>,
    }
    /// Communities for a prefix.
    pub struct PrefixAdvertisement {
        /// The prefix.
        pub cidr: Option<String>,
        /// Values or names.
        pub communities: Vec<String>,
    }
    /// Rules by direction and family; the first that matches decides.
    pub struct BgpFilterSpec {
        /// For IPv4 routes told to the peer.
        pub export_v4: Vec<BgpFilterRule>,
        /// For IPv4 routes from the peer.
        pub import_v4: Vec<BgpFilterRule>,
        /// For IPv6 routes told to the peer.
        pub export_v6: Vec<BgpFilterRule>,
        /// For IPv6 routes from the peer.
        pub import_v6: Vec<BgpFilterRule>,
    }
    /// One rule; all that it says must hold.
    pub struct BgpFilterRule {
        /// Prefix to compare with.
        pub cidr: Option<String>,
        /// Bounds for the route's prefix length.
        pub prefix_length: Option<PrefixLengthRange>,
        /// Where the route came from.
        pub source: Option<FilterSource>,
        /// Interface pattern of the route.
        pub interface: Option<String>,
        /// How to compare with `cidr`.
        pub match_operator: Option<MatchOperator>,
        /// Kind of session.
        pub peer_type: Option<FilterPeerType>,
        /// A community that the route has.
        pub communities: Option<CommunityMatch>,
        /// What the route's AS path begins with.
        #[serde(rename = "asPathPrefix")]
        pub as_path_prefix: Vec<AsNumber>,
        /// Priority (kernel metric) of the route.
        pub priority: Option<i64>,
        /// What to do with the route.
        pub action: Option<BgpFilterAction>,
        /// Changes to an accepted route, in order.
        pub operations: Vec<BgpFilterOperation>,
    }
    /// Bounds for a prefix length, both within.
    pub struct PrefixLengthRange {
        /// Shortest.
        pub min: Option<i32>,
        /// Longest.
        pub max: Option<i32>,
    }
    /// Communities to look for.
    pub struct CommunityMatch {
        /// Exactly one.
        pub values: Vec<String>,
    }
    /// One change; exactly one field is set.
    pub struct BgpFilterOperation {
        /// Put a community on the route.
        pub add_community: Option<AddCommunity>,
        /// Put AS numbers before the path.
        #[serde(rename = "prependASPath")]
        pub prepend_as_path: Option<PrependAsPath>,
        /// Set the priority.
        pub set_priority: Option<SetPriority>,
    }
    /// A community to put on a route.
    pub struct AddCommunity {
        /// `a:b` or `a:b:c`.
        pub value: Option<String>,
    }
    /// AS numbers to put before a path.
    pub struct PrependAsPath {
        /// First one first.
        pub prefix: Vec<AsNumber>,
    }
    /// A priority to set.
    pub struct SetPriority {
        /// Kernel metric.
        pub value: Option<i64>,
    }
}
