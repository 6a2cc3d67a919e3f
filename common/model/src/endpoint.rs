//! Workload and host endpoints: the interfaces that policy applies to.

use crate::json::{Text, record};
use crate::numorstring::{Port, Protocol};
use crate::object::Object;

/// One interface of one workload.
pub type WorkloadEndpoint = Object<WorkloadEndpointSpec>;
/// One interface of a host.
pub type HostEndpoint = Object<HostEndpointSpec>;

record! {
    /// Where a workload's interface is, its addresses and its profiles.
    pub struct WorkloadEndpointSpec {
        /// `k8s`, `cni`, `libnetwork` or another; part of the name.
        pub orchestrator: Option<String>,
        /// Workload name for orchestrators that have no pods.
        pub workload: Option<String>,
        /// Host that the workload runs on.
        pub node: Option<String>,
        /// Container id given by the runtime.
        #[serde(rename = "containerID")]
        pub container_id: Option<String>,
        /// Pod name.
        pub pod: Option<String>,
        /// Interface name inside the workload, usually eth0.
        pub endpoint: Option<String>,
        /// Service account the pod runs as.
        pub service_account_name: Option<String>,
        /// Addresses as /32 and /128; without any, the endpoint is invisible to the dataplane.
        pub ip_networks: Vec<String>,
        /// Floating addresses.
        #[serde(rename = "ipNATs")]
        pub ip_nats: Vec<IpNat>,
        /// Gateway that the workload was told.
        pub ipv4_gateway: Option<String>,
        /// IPv6 gateway that the workload was told.
        pub ipv6_gateway: Option<String>,
        /// Profiles in order.
        pub profiles: Vec<String>,
        /// Host end of the workload's link.
        pub interface_name: Option<String>,
        /// MAC of the workload's end.
        pub mac: Option<String>,
        /// Named ports.
        pub ports: Vec<WorkloadEndpointPort>,
        /// Sources the workload may use beside its own addresses.
        pub allow_spoofed_source_prefixes: Vec<String>,
        /// Bandwidth, packet and connection limits.
        pub qos_controls: Option<QosControls>,
    }
    /// A floating address.
    pub struct IpNat {
        /// Address of the workload.
        #[serde(rename = "internalIP")]
        pub internal_ip: Option<String>,
        /// Address that the world uses.
        #[serde(rename = "externalIP")]
        pub external_ip: Option<String>,
    }
    /// A named port of a workload.
    pub struct WorkloadEndpointPort {
        /// Name that rules use; ports without one are dropped.
        pub name: Option<Text>,
        /// TCP, UDP or SCTP.
        pub protocol: Option<Protocol>,
        /// Port number.
        pub port: Option<u16>,
        /// Port of the host that is mapped to it, 0 for none.
        pub host_port: Option<u16>,
        /// Host address of the mapping.
        #[serde(rename = "hostIP")]
        pub host_ip: Option<Text>,
    }
    /// Limits for a workload's traffic: bits, bits of burst, packets and connections.
    pub struct QosControls {
        /// Bits per second towards the workload.
        pub ingress_bandwidth: Option<i64>,
        /// Bits per second from the workload.
        pub egress_bandwidth: Option<i64>,
        /// Burst in bits towards the workload.
        pub ingress_burst: Option<i64>,
        /// Burst in bits from the workload.
        pub egress_burst: Option<i64>,
        /// Peak rate in bits per second towards the workload.
        pub ingress_peakrate: Option<i64>,
        /// Peak rate in bits per second from the workload.
        pub egress_peakrate: Option<i64>,
        /// Minimum burst in bytes towards the workload.
        pub ingress_minburst: Option<i64>,
        /// Minimum burst in bytes from the workload.
        pub egress_minburst: Option<i64>,
        /// Packets per second towards the workload.
        pub ingress_packet_rate: Option<i64>,
        /// Packets per second from the workload.
        pub egress_packet_rate: Option<i64>,
        /// Burst in packets towards the workload.
        pub ingress_packet_burst: Option<i64>,
        /// Burst in packets from the workload.
        pub egress_packet_burst: Option<i64>,
        /// Connections towards the workload at one time.
        pub ingress_max_connections: Option<i64>,
        /// Connections from the workload at one time.
        pub egress_max_connections: Option<i64>,
        /// Differentiated services code point of the workload's traffic, a number or a name.
        pub dscp: Option<Port>,
    }
    /// Which interface of which host, and what is known of it.
    pub struct HostEndpointSpec {
        /// Host name.
        pub node: Option<String>,
        /// Interface name, `*` for all, or unset to match by `expected_ips`.
        pub interface_name: Option<String>,
        /// Addresses of the interface.
        #[serde(rename = "expectedIPs")]
        pub expected_ips: Vec<String>,
        /// Profiles in order.
        pub profiles: Vec<String>,
        /// Named ports.
        pub ports: Vec<EndpointPort>,
    }
    /// A named port of a host.
    pub struct EndpointPort {
        /// Name that rules use.
        pub name: Option<Text>,
        /// TCP, UDP or SCTP.
        pub protocol: Option<Protocol>,
        /// Port number.
        pub port: Option<u16>,
    }
}
