//! What the cluster says of itself, and what its nodes report.

use crate::json::{Text, record, text_enum};
use crate::object::Object;

/// Facts of the whole cluster; the only object is `default`.
pub type ClusterInformation = Object<ClusterInformationSpec>;
/// A request for a node's status, answered in its `status`.
pub type CalicoNodeStatus = Object<CalicoNodeStatusSpec>;

text_enum! {
    /// What a node status is to report.
    pub enum NodeStatusClass { Agent = "Agent", Bgp = "BGP", Routes = "Routes", }
}

record! {
    /// Facts of the whole cluster.
    pub struct ClusterInformationSpec {
        /// 32 hex digits made once.
        #[serde(rename = "clusterGUID")]
        pub cluster_guid: Option<String>,
        /// Comma-separated words such as `k8s,bgp`.
        pub cluster_type: Option<String>,
        /// Release that last initialised the datastore; may be empty.
        pub calico_version: Option<Text>,
        /// False while the datastore is locked for migration.
        pub datastore_ready: Option<bool>,
        /// Product variant.
        pub variant: Option<String>,
    }
    /// Which node is to report what, how often.
    pub struct CalicoNodeStatusSpec {
        /// Node asked.
        pub node: Option<String>,
        /// What to report.
        pub classes: Vec<NodeStatusClass>,
        /// Seconds between reports, 0 for none.
        pub update_period_seconds: Option<u32>,
    }
    /// A node's report, the `status` of a CalicoNodeStatus.
    pub struct CalicoNodeStatusReport {
        /// When it was written, RFC 3339.
        pub last_updated: Option<String>,
        /// The speakers.
        pub agent: Option<NodeAgentStatus>,
        /// The sessions.
        pub bgp: Option<NodeBgpStatus>,
        /// The routes.
        pub routes: Option<NodeRoutesStatus>,
    }
    /// State of the speakers.
    pub struct NodeAgentStatus {
        /// IPv4.
        #[serde(rename = "birdV4")]
        pub bird_v4: Option<BgpDaemonStatus>,
        /// IPv6.
        #[serde(rename = "birdV6")]
        pub bird_v6: Option<BgpDaemonStatus>,
    }
    /// State of one speaker.
    pub struct BgpDaemonStatus {
        /// Ready or NotReady.
        pub state: Option<String>,
        /// Version.
        pub version: Option<String>,
        /// Router id.
        #[serde(rename = "routerID")]
        pub router_id: Option<String>,
        /// When it started.
        pub last_boot_time: Option<String>,
        /// When it was last configured.
        pub last_reconfiguration_time: Option<String>,
    }
    /// Sessions of a node.
    pub struct NodeBgpStatus {
        /// IPv4 sessions that are up.
        pub number_established_v4: Option<u32>,
        /// IPv4 sessions that are not.
        pub number_not_established_v4: Option<u32>,
        /// IPv6 sessions that are up.
        pub number_established_v6: Option<u32>,
        /// IPv6 sessions that are not.
        pub number_not_established_v6: Option<u32>,
        /// IPv4 sessions.
        pub peers_v4: Vec<NodePeerStatus>,
        /// IPv6 sessions.
        pub peers_v6: Vec<NodePeerStatus>,
    }
    /// One session.
    pub struct NodePeerStatus {
        /// Address of the peer.
        #[serde(rename = "peerIP")]
        pub peer_ip: Option<String>,
        /// NodeMesh, NodePeer or GlobalPeer.
        #[serde(rename = "type")]
        pub kind: Option<String>,
        /// FSM state, or Close.
        pub state: Option<String>,
        /// Since when.
        pub since: Option<String>,
    }
    /// Routes of a node.
    pub struct NodeRoutesStatus {
        /// IPv4.
        pub routes_v4: Vec<NodeRouteStatus>,
        /// IPv6.
        pub routes_v6: Vec<NodeRouteStatus>,
    }
    /// One route.
    pub struct NodeRouteStatus {
        /// FIB or RIB.
        #[serde(rename = "type")]
        pub kind: Option<String>,
        /// Prefix.
        pub destination: Option<String>,
        /// Next hop.
        pub gateway: Option<String>,
        /// Interface.
        pub interface: Option<String>,
        /// Where it came from.
        pub learned_from: Option<LearnedFrom>,
    }
    /// Where a route came from.
    pub struct LearnedFrom {
        /// Kernel, Static, Direct, NodeMesh or BGPPeer.
        pub source_type: Option<String>,
        /// The router that sent it.
        #[serde(rename = "peerIP")]
        pub peer_ip: Option<String>,
    }
}
