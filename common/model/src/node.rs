//! The Node resource: who a host is, which addresses it has, how it speaks BGP.

use crate::json::record;
use crate::numorstring::AsNumber;
use crate::object::Object;

/// A host of the cluster.
pub type Node = Object<NodeSpec>;

record! {
    /// What is known of a host.
    pub struct NodeSpec {
        /// Present when the host takes part in BGP.
        pub bgp: Option<NodeBgpSpec>,
        /// VXLAN tunnel address; tunnels are not ours, the field is kept.
        #[serde(rename = "ipv4VXLANTunnelAddr")]
        pub ipv4_vxlan_tunnel_addr: Option<String>,
        /// MAC of the VXLAN device.
        #[serde(rename = "vxlanTunnelMACAddr")]
        pub vxlan_tunnel_mac_addr: Option<String>,
        /// IPv6 VXLAN tunnel address.
        #[serde(rename = "ipv6VXLANTunnelAddr")]
        pub ipv6_vxlan_tunnel_addr: Option<String>,
        /// MAC of the IPv6 VXLAN device.
        #[serde(rename = "vxlanTunnelMACAddrV6")]
        pub vxlan_tunnel_mac_addr_v6: Option<String>,
        /// The host's name in each orchestrator.
        pub orch_refs: Vec<OrchRef>,
        /// WireGuard device addresses.
        pub wireguard: Option<NodeWireguardSpec>,
        /// Every known address of the host.
        pub addresses: Vec<NodeAddress>,
        /// The host's interfaces with their addresses.
        pub interfaces: Vec<NodeInterface>,
    }
    /// The host's part in BGP.
    pub struct NodeBgpSpec {
        /// AS number; the global one when unset.
        pub as_number: Option<AsNumber>,
        /// `address/prefix length` of the host in its real subnet; the length may be missing.
        pub ipv4_address: Option<String>,
        /// As `ipv4_address`, for IPv6.
        pub ipv6_address: Option<String>,
        /// Address of the IPIP tunnel device.
        #[serde(rename = "ipv4IPIPTunnelAddr")]
        pub ipv4_ipip_tunnel_addr: Option<String>,
        /// Set on a route reflector: its cluster id in the form of an IPv4 address.
        #[serde(rename = "routeReflectorClusterID")]
        pub route_reflector_cluster_id: Option<String>,
    }
    /// The host's name in one orchestrator.
    pub struct OrchRef {
        /// Name there.
        pub node_name: Option<String>,
        /// `k8s` and others.
        pub orchestrator: Option<String>,
    }
    /// WireGuard device addresses.
    pub struct NodeWireguardSpec {
        /// IPv4 address of the device.
        #[serde(rename = "interfaceIPv4Address")]
        pub interface_ipv4_address: Option<String>,
        /// IPv6 address of the device.
        #[serde(rename = "interfaceIPv6Address")]
        pub interface_ipv6_address: Option<String>,
    }
    /// One address of the host.
    pub struct NodeAddress {
        /// Address, with or without a prefix length.
        pub address: Option<String>,
        /// `CalicoNodeIP`, `InternalIP`, `ExternalIP`.
        #[serde(rename = "type")]
        pub kind: Option<String>,
    }
    /// One interface of the host.
    pub struct NodeInterface {
        /// Interface name.
        pub name: Option<String>,
        /// Its addresses.
        pub addresses: Vec<String>,
    }
}
