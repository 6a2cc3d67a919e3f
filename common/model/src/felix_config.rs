//! FelixConfiguration: everything the dataplane agent can be told through the datastore.
//!
//! Fields for eBPF, WireGuard, VXLAN, Windows and OpenStack mean nothing here; they are typed so that they are checked and survive.

use std::collections::BTreeMap;

use crate::bgp::ProgramClusterRoutes;
use crate::duration::GoDuration;
use crate::json::{Text, record};
use crate::numorstring::Port;
use crate::object::Object;

/// Settings of the dataplane agent: `default`, `node.<name>`, or for the nodes of a selector.
pub type FelixConfiguration = Object<FelixConfigurationSpec>;

record! {
    /// Settings of the dataplane agent; the built-in default holds where a field is unset.
    pub struct FelixConfigurationSpec {
        /// Calico's `useInternalDataplaneDriver`.
        pub use_internal_dataplane_driver: Option<bool>,
        /// Calico's `dataplaneDriver`.
        pub dataplane_driver: Option<String>,
        /// Calico's `dataplaneWatchdogTimeout`.
        pub dataplane_watchdog_timeout: Option<GoDuration>,
        /// Police IPv6; true when unset.
        pub ipv6_support: Option<bool>,
        /// How often routes are compared with the kernel; 90 s when unset.
        pub route_refresh_interval: Option<GoDuration>,
        /// How often interfaces are read again; 90 s when unset.
        pub interface_refresh_interval: Option<GoDuration>,
        /// Calico's `iptablesRefreshInterval`.
        pub iptables_refresh_interval: Option<GoDuration>,
        /// How often rules are compared with the kernel.
        pub nftables_refresh_interval: Option<GoDuration>,
        /// Calico's `iptablesPostWriteCheckInterval`.
        pub iptables_post_write_check_interval: Option<GoDuration>,
        /// Calico's `iptablesLockFilePath`.
        pub iptables_lock_file_path: Option<String>,
        /// Calico's `iptablesLockTimeout`.
        pub iptables_lock_timeout: Option<GoDuration>,
        /// Calico's `iptablesLockProbeInterval`.
        pub iptables_lock_probe_interval: Option<GoDuration>,
        /// Calico's `featureDetectOverride`.
        pub feature_detect_override: Option<String>,
        /// Calico's `featureGates`.
        pub feature_gates: Option<String>,
        /// How often sets are compared with the kernel.
        pub ipsets_refresh_interval: Option<GoDuration>,
        /// Calico's `maxIpsetSize`.
        pub max_ipset_size: Option<i64>,
        /// Calico's `iptablesBackend`.
        pub iptables_backend: Option<Text>,
        /// Calico's `nftablesMode`.
        pub nftables_mode: Option<Text>,
        /// Calico's `nftablesFlowTableOffload`.
        pub nftables_flow_table_offload: Option<Text>,
        /// Calico's `xdpRefreshInterval`.
        pub xdp_refresh_interval: Option<GoDuration>,
        /// Calico's `netlinkTimeout`.
        pub netlink_timeout: Option<GoDuration>,
        /// Calico's `metadataAddr`.
        pub metadata_addr: Option<String>,
        /// Calico's `metadataPort`.
        pub metadata_port: Option<i64>,
        /// Calico's `openstackRegion`.
        pub openstack_region: Option<String>,
        /// What names of workload interfaces begin with, comma-separated; `cali` when unset.
        pub interface_prefix: Option<String>,
        /// Interfaces that host endpoints ignore, comma-separated names or /patterns/.
        pub interface_exclude: Option<String>,
        /// Calico's `chainInsertMode`.
        pub chain_insert_mode: Option<String>,
        /// What becomes of allowed traffic from workloads to the host: Drop, Return or Accept.
        pub default_endpoint_to_host_action: Option<String>,
        /// Calico's `iptablesFilterAllowAction`.
        pub iptables_filter_allow_action: Option<String>,
        /// Calico's `nftablesFilterAllowAction`.
        pub nftables_filter_allow_action: Option<String>,
        /// Calico's `iptablesMangleAllowAction`.
        pub iptables_mangle_allow_action: Option<String>,
        /// Calico's `nftablesMangleAllowAction`.
        pub nftables_mangle_allow_action: Option<String>,
        /// Calico's `iptablesFilterDenyAction`.
        pub iptables_filter_deny_action: Option<String>,
        /// Calico's `nftablesFilterDenyAction`.
        pub nftables_filter_deny_action: Option<String>,
        /// Calico's `logPrefix`.
        pub log_prefix: Option<String>,
        /// Calico's `logActionRateLimit`.
        pub log_action_rate_limit: Option<Text>,
        /// Calico's `logActionRateLimitBurst`.
        pub log_action_rate_limit_burst: Option<i64>,
        /// Calico's `logFilePath`.
        pub log_file_path: Option<String>,
        /// Calico's `logSeverityFile`.
        pub log_severity_file: Option<String>,
        /// Calico's `logSeverityScreen`.
        pub log_severity_screen: Option<String>,
        /// Calico's `logSeveritySys`.
        pub log_severity_sys: Option<String>,
        /// Calico's `logDebugFilenameRegex`.
        pub log_debug_filename_regex: Option<String>,
        /// Calico's `ipipEnabled`.
        pub ipip_enabled: Option<bool>,
        /// Calico's `ipipMTU`.
        #[serde(rename = "ipipMTU")]
        pub ipip_mtu: Option<i64>,
        /// Calico's `vxlanEnabled`.
        pub vxlan_enabled: Option<bool>,
        /// Calico's `vxlanMTU`.
        #[serde(rename = "vxlanMTU")]
        pub vxlan_mtu: Option<i64>,
        /// Calico's `vxlanMTUV6`.
        #[serde(rename = "vxlanMTUV6")]
        pub vxlan_mtu_v6: Option<i64>,
        /// Calico's `vxlanPort`.
        pub vxlan_port: Option<i64>,
        /// Calico's `vxlanVNI`.
        #[serde(rename = "vxlanVNI")]
        pub vxlan_vni: Option<i64>,
        /// Calico's `allowVXLANPacketsFromWorkloads`.
        #[serde(rename = "allowVXLANPacketsFromWorkloads")]
        pub allow_vxlan_packets_from_workloads: Option<bool>,
        /// Calico's `allowIPIPPacketsFromWorkloads`.
        #[serde(rename = "allowIPIPPacketsFromWorkloads")]
        pub allow_ipip_packets_from_workloads: Option<bool>,
        /// How often the agent reports its status; zero for never.
        pub reporting_interval: Option<GoDuration>,
        /// How long a status report lives.
        #[serde(rename = "reportingTTL")]
        pub reporting_ttl: Option<GoDuration>,
        /// Report the status of endpoints.
        pub endpoint_reporting_enabled: Option<bool>,
        /// Calico's `endpointReportingDelay`.
        pub endpoint_reporting_delay: Option<GoDuration>,
        /// Calico's `endpointStatusPathPrefix`.
        pub endpoint_status_path_prefix: Option<Text>,
        /// Calico's `iptablesMarkMask`.
        pub iptables_mark_mask: Option<u32>,
        /// Calico's `nftablesMarkMask`.
        pub nftables_mark_mask: Option<u32>,
        /// Calico's `disableConntrackInvalidCheck`.
        pub disable_conntrack_invalid_check: Option<bool>,
        /// Calico's `healthEnabled`.
        pub health_enabled: Option<bool>,
        /// Calico's `healthHost`.
        pub health_host: Option<Text>,
        /// Calico's `healthPort`.
        pub health_port: Option<i64>,
        /// Calico's `healthTimeoutOverrides`.
        pub health_timeout_overrides: Option<Vec<HealthTimeoutOverride>>,
        /// Calico's `prometheusMetricsEnabled`.
        pub prometheus_metrics_enabled: Option<bool>,
        /// Calico's `prometheusMetricsHost`.
        pub prometheus_metrics_host: Option<String>,
        /// Calico's `prometheusMetricsPort`.
        pub prometheus_metrics_port: Option<i64>,
        /// Calico's `prometheusGoMetricsEnabled`.
        pub prometheus_go_metrics_enabled: Option<bool>,
        /// Calico's `prometheusProcessMetricsEnabled`.
        pub prometheus_process_metrics_enabled: Option<bool>,
        /// Calico's `prometheusWireGuardMetricsEnabled`.
        pub prometheus_wire_guard_metrics_enabled: Option<bool>,
        /// Calico's `prometheusMetricsCAFile`.
        #[serde(rename = "prometheusMetricsCAFile")]
        pub prometheus_metrics_ca_file: Option<Text>,
        /// Calico's `prometheusMetricsCertFile`.
        pub prometheus_metrics_cert_file: Option<Text>,
        /// Calico's `prometheusMetricsKeyFile`.
        pub prometheus_metrics_key_file: Option<Text>,
        /// Calico's `prometheusMetricsClientAuth`.
        pub prometheus_metrics_client_auth: Option<Text>,
        /// Ports of hosts that no policy closes; an empty list means none.
        pub failsafe_inbound_host_ports: Option<Vec<ProtoPort>>,
        /// Ports hosts may always reach; an empty list means none.
        pub failsafe_outbound_host_ports: Option<Vec<ProtoPort>>,
        /// Calico's `kubeNodePortRanges`.
        pub kube_node_port_ranges: Option<Vec<Port>>,
        /// Directory of the policy sync sockets.
        pub policy_sync_path_prefix: Option<String>,
        /// Calico's `usageReportingEnabled`.
        pub usage_reporting_enabled: Option<bool>,
        /// Calico's `usageReportingInitialDelay`.
        pub usage_reporting_initial_delay: Option<GoDuration>,
        /// Calico's `usageReportingInterval`.
        pub usage_reporting_interval: Option<GoDuration>,
        /// Source ports for masquerading.
        pub nat_port_range: Option<Port>,
        /// Source address in place of masquerading.
        pub nat_outgoing_address: Option<String>,
        /// IPPoolsOnly or IPPoolsAndHostIPs: where pool traffic is not masqueraded.
        pub nat_outgoing_exclusions: Option<Text>,
        /// Preferred source of workload routes.
        pub device_route_source_address: Option<String>,
        /// Calico's `deviceRouteSourceAddressIPv6`.
        #[serde(rename = "deviceRouteSourceAddressIPv6")]
        pub device_route_source_address_ipv6: Option<String>,
        /// Protocol number of workload routes.
        pub device_route_protocol: Option<i64>,
        /// Remove routes of others on workload interfaces; true when unset.
        pub remove_external_routes: Option<bool>,
        /// Calico's `programClusterRoutes`.
        pub program_cluster_routes: Option<ProgramClusterRoutes>,
        /// Enabled or Disabled: set the forwarding sysctls.
        pub ip_forwarding: Option<Text>,
        /// Calico's `ipv4NormalRoutePriority`.
        pub ipv4_normal_route_priority: Option<i64>,
        /// Calico's `ipv4ElevatedRoutePriority`.
        pub ipv4_elevated_route_priority: Option<i64>,
        /// Calico's `ipv6NormalRoutePriority`.
        pub ipv6_normal_route_priority: Option<i64>,
        /// Calico's `ipv6ElevatedRoutePriority`.
        pub ipv6_elevated_route_priority: Option<i64>,
        /// How long routes of a machine that moves stay preferred.
        pub live_migration_route_convergence_time: Option<GoDuration>,
        /// Calico's `localSubnetL2Reachability`.
        #[serde(rename = "localSubnetL2Reachability")]
        pub local_subnet_l2_reachability: Option<Text>,
        /// Calico's `localSubnetL2ReachabilityRefreshInterval`.
        #[serde(rename = "localSubnetL2ReachabilityRefreshInterval")]
        pub local_subnet_l2_reachability_refresh_interval: Option<GoDuration>,
        /// Calico's `externalNodesList`.
        pub external_nodes_list: Option<Vec<String>>,
        /// Calico's `debugMemoryProfilePath`.
        pub debug_memory_profile_path: Option<String>,
        /// Calico's `debugDisableLogDropping`.
        pub debug_disable_log_dropping: Option<bool>,
        /// Calico's `debugSimulateCalcGraphHangAfter`.
        pub debug_simulate_calc_graph_hang_after: Option<GoDuration>,
        /// Calico's `debugSimulateDataplaneHangAfter`.
        pub debug_simulate_dataplane_hang_after: Option<GoDuration>,
        /// Calico's `debugSimulateDataplaneApplyDelay`.
        pub debug_simulate_dataplane_apply_delay: Option<GoDuration>,
        /// Calico's `debugHost`.
        pub debug_host: Option<Text>,
        /// Calico's `debugPort`.
        pub debug_port: Option<i64>,
        /// Calico's `iptablesNATOutgoingInterfaceFilter`.
        #[serde(rename = "iptablesNATOutgoingInterfaceFilter")]
        pub iptables_nat_outgoing_interface_filter: Option<String>,
        /// Calico's `sidecarAccelerationEnabled`.
        pub sidecar_acceleration_enabled: Option<bool>,
        /// Calico's `xdpEnabled`.
        pub xdp_enabled: Option<bool>,
        /// Calico's `genericXDPEnabled`.
        #[serde(rename = "genericXDPEnabled")]
        pub generic_xdp_enabled: Option<bool>,
        /// Calico's `bpfEnabled`.
        pub bpf_enabled: Option<bool>,
        /// Calico's `bpfDisableUnprivileged`.
        pub bpf_disable_unprivileged: Option<bool>,
        /// Calico's `bpfLogLevel`.
        pub bpf_log_level: Option<Text>,
        /// Calico's `bpfConntrackLogLevel`.
        pub bpf_conntrack_log_level: Option<Text>,
        /// Calico's `bpfConntrackMode`.
        pub bpf_conntrack_mode: Option<Text>,
        /// Calico's `bpfIPFragTimeout`.
        #[serde(rename = "bpfIPFragTimeout")]
        pub bpf_ip_frag_timeout: Option<GoDuration>,
        /// Calico's `bpfIPFragmentReassemblyEnabled`.
        #[serde(rename = "bpfIPFragmentReassemblyEnabled")]
        pub bpf_ip_fragment_reassembly_enabled: Option<bool>,
        /// Calico's `bpfMaglevMaxEndpointsPerService`.
        pub bpf_maglev_max_endpoints_per_service: Option<i64>,
        /// Calico's `bpfMaglevMaxServices`.
        pub bpf_maglev_max_services: Option<i64>,
        /// Calico's `bpfOverlayHostSourceIP`.
        #[serde(rename = "bpfOverlayHostSourceIP")]
        pub bpf_overlay_host_source_ip: Option<Text>,
        /// Calico's `bpfConntrackTimeouts`.
        pub bpf_conntrack_timeouts: Option<serde_json::Value>,
        /// Calico's `bpfLogFilters`.
        pub bpf_log_filters: BTreeMap<String, String>,
        /// Calico's `bpfCTLBLogFilter`.
        #[serde(rename = "bpfCTLBLogFilter")]
        pub bpf_ctlb_log_filter: Option<String>,
        /// Calico's `bpfDataIfacePattern`.
        pub bpf_data_iface_pattern: Option<String>,
        /// Calico's `bpfL3IfacePattern`.
        pub bpf_l3_iface_pattern: Option<String>,
        /// Calico's `bpfConnectTimeLoadBalancingEnabled`.
        pub bpf_connect_time_load_balancing_enabled: Option<bool>,
        /// Calico's `bpfConnectTimeLoadBalancing`.
        pub bpf_connect_time_load_balancing: Option<Text>,
        /// Calico's `bpfHostNetworkedNATWithoutCTLB`.
        #[serde(rename = "bpfHostNetworkedNATWithoutCTLB")]
        pub bpf_host_networked_nat_without_ctlb: Option<Text>,
        /// Calico's `bpfExternalServiceMode`.
        pub bpf_external_service_mode: Option<String>,
        /// Calico's `bpfDSROptoutCIDRs`.
        #[serde(rename = "bpfDSROptoutCIDRs")]
        pub bpf_dsr_optout_cidrs: Option<Vec<String>>,
        /// Calico's `bpfExtToServiceConnmark`.
        pub bpf_ext_to_service_connmark: Option<i64>,
        /// Calico's `bpfKubeProxyIptablesCleanupEnabled`.
        pub bpf_kube_proxy_iptables_cleanup_enabled: Option<bool>,
        /// Calico's `bpfKubeProxyMinSyncPeriod`.
        pub bpf_kube_proxy_min_sync_period: Option<GoDuration>,
        /// Calico's `bpfKubeProxyHealthzPort`.
        pub bpf_kube_proxy_healthz_port: Option<i64>,
        /// Calico's `bpfKubeProxyEndpointSlicesEnabled`.
        pub bpf_kube_proxy_endpoint_slices_enabled: Option<bool>,
        /// Calico's `bpfPSNATPorts`.
        #[serde(rename = "bpfPSNATPorts")]
        pub bpf_psnat_ports: Option<Port>,
        /// Calico's `bpfMapSizeNATFrontend`.
        #[serde(rename = "bpfMapSizeNATFrontend")]
        pub bpf_map_size_nat_frontend: Option<i64>,
        /// Calico's `bpfMapSizeNATBackend`.
        #[serde(rename = "bpfMapSizeNATBackend")]
        pub bpf_map_size_nat_backend: Option<i64>,
        /// Calico's `bpfMapSizeNATAffinity`.
        #[serde(rename = "bpfMapSizeNATAffinity")]
        pub bpf_map_size_nat_affinity: Option<i64>,
        /// Calico's `bpfMapSizeRoute`.
        pub bpf_map_size_route: Option<i64>,
        /// Calico's `bpfMapSizeConntrack`.
        pub bpf_map_size_conntrack: Option<i64>,
        /// Calico's `bpfMapSizePerCpuConntrack`.
        pub bpf_map_size_per_cpu_conntrack: Option<i64>,
        /// Calico's `bpfMapSizeConntrackScaling`.
        pub bpf_map_size_conntrack_scaling: Option<String>,
        /// Calico's `bpfMapSizeConntrackCleanupQueue`.
        pub bpf_map_size_conntrack_cleanup_queue: Option<i64>,
        /// Calico's `bpfMapSizeIPSets`.
        #[serde(rename = "bpfMapSizeIPSets")]
        pub bpf_map_size_ip_sets: Option<i64>,
        /// Calico's `bpfMapSizeIfState`.
        pub bpf_map_size_if_state: Option<i64>,
        /// Calico's `bpfHostConntrackBypass`.
        pub bpf_host_conntrack_bypass: Option<bool>,
        /// Calico's `bpfEnforceRPF`.
        #[serde(rename = "bpfEnforceRPF")]
        pub bpf_enforce_rpf: Option<String>,
        /// Calico's `bpfPolicyDebugEnabled`.
        pub bpf_policy_debug_enabled: Option<bool>,
        /// Calico's `bpfForceTrackPacketsFromIfaces`.
        pub bpf_force_track_packets_from_ifaces: Option<Vec<String>>,
        /// Calico's `bpfDisableGROForIfaces`.
        #[serde(rename = "bpfDisableGROForIfaces")]
        pub bpf_disable_gro_for_ifaces: Option<String>,
        /// Calico's `bpfExcludeCIDRsFromNAT`.
        #[serde(rename = "bpfExcludeCIDRsFromNAT")]
        pub bpf_exclude_cidrs_from_nat: Option<Vec<String>>,
        /// Calico's `bpfExportBufferSizeMB`.
        #[serde(rename = "bpfExportBufferSizeMB")]
        pub bpf_export_buffer_size_mb: Option<i64>,
        /// Calico's `bpfRedirectToPeer`.
        pub bpf_redirect_to_peer: Option<String>,
        /// Calico's `bpfAttachType`.
        pub bpf_attach_type: Option<Text>,
        /// Calico's `bpfProfiling`.
        pub bpf_profiling: Option<String>,
        /// Calico's `bpfJITHardening`.
        #[serde(rename = "bpfJITHardening")]
        pub bpf_jit_hardening: Option<Text>,
        /// Calico's `flowLogsPolicyEvaluationMode`.
        pub flow_logs_policy_evaluation_mode: Option<Text>,
        /// Calico's `flowLogsFlushInterval`.
        pub flow_logs_flush_interval: Option<Text>,
        /// Calico's `flowLogsCollectorDebugTrace`.
        pub flow_logs_collector_debug_trace: Option<bool>,
        /// Calico's `flowLogsGoldmaneServer`.
        pub flow_logs_goldmane_server: Option<Text>,
        /// Calico's `flowLogsLocalReporter`.
        pub flow_logs_local_reporter: Option<Text>,
        /// Calico's `routeSource`.
        pub route_source: Option<String>,
        /// Calico's `routeTableRanges`.
        pub route_table_ranges: Option<Vec<RouteTableRange>>,
        /// Calico's `routeTableRange`.
        pub route_table_range: Option<RouteTableRange>,
        /// Calico's `routeSyncDisabled`.
        pub route_sync_disabled: Option<bool>,
        /// Calico's `wireguardEnabled`.
        pub wireguard_enabled: Option<bool>,
        /// Calico's `wireguardEnabledV6`.
        pub wireguard_enabled_v6: Option<bool>,
        /// Calico's `wireguardThreadingEnabled`.
        pub wireguard_threading_enabled: Option<bool>,
        /// Calico's `wireguardListeningPort`.
        pub wireguard_listening_port: Option<i64>,
        /// Calico's `wireguardListeningPortV6`.
        pub wireguard_listening_port_v6: Option<i64>,
        /// Calico's `wireguardRoutingRulePriority`.
        pub wireguard_routing_rule_priority: Option<i64>,
        /// Calico's `wireguardInterfaceName`.
        pub wireguard_interface_name: Option<String>,
        /// Calico's `wireguardInterfaceNameV6`.
        pub wireguard_interface_name_v6: Option<String>,
        /// Calico's `wireguardMTU`.
        #[serde(rename = "wireguardMTU")]
        pub wireguard_mtu: Option<i64>,
        /// Calico's `wireguardMTUV6`.
        #[serde(rename = "wireguardMTUV6")]
        pub wireguard_mtu_v6: Option<i64>,
        /// Calico's `wireguardHostEncryptionEnabled`.
        pub wireguard_host_encryption_enabled: Option<bool>,
        /// Calico's `wireguardKeepAlive`.
        pub wireguard_keep_alive: Option<GoDuration>,
        /// Calico's `awsSrcDstCheck`.
        pub aws_src_dst_check: Option<Text>,
        /// Drop, Reject or Disabled.
        pub service_loop_prevention: Option<String>,
        /// Disabled or Any.
        pub workload_source_spoofing: Option<String>,
        /// Calico's `mtuIfacePattern`.
        pub mtu_iface_pattern: Option<String>,
        /// Enabled or Disabled.
        #[serde(rename = "floatingIPs")]
        pub floating_ips: Option<Text>,
        /// Calico's `windowsManageFirewallRules`.
        pub windows_manage_firewall_rules: Option<Text>,
        /// Calico's `goGCThreshold`.
        #[serde(rename = "goGCThreshold")]
        pub go_gc_threshold: Option<i64>,
        /// Calico's `goMemoryLimitMB`.
        #[serde(rename = "goMemoryLimitMB")]
        pub go_memory_limit_mb: Option<i64>,
        /// Calico's `goMaxProcs`.
        pub go_max_procs: Option<i64>,
        /// Calico's `requireMTUFile`.
        #[serde(rename = "requireMTUFile")]
        pub require_mtu_file: Option<bool>,
        /// Calico's `istioAmbientMode`.
        pub istio_ambient_mode: Option<Text>,
        /// Calico's `istioDSCPMark`.
        #[serde(rename = "istioDSCPMark")]
        pub istio_dscp_mark: Option<Port>,
        /// Calico's `cgroupV2Path`.
        pub cgroup_v2_path: Option<String>,
        /// Nodes that an object named neither `default` nor `node.<name>` is for.
        pub node_selector: Option<String>,
    }
    /// A port that policy cannot close.
    pub struct ProtoPort {
        /// tcp, udp, sctp; tcp when unset.
        pub protocol: Option<String>,
        /// Port number.
        pub port: Option<u16>,
        /// Only from or to this prefix.
        pub net: Option<String>,
    }
    /// How long a part of the agent may be silent.
    pub struct HealthTimeoutOverride {
        /// The part.
        pub name: Option<String>,
        /// The time.
        pub timeout: Option<GoDuration>,
    }
    /// Kernel route tables from one number to another.
    pub struct RouteTableRange {
        /// First.
        pub min: Option<i64>,
        /// Last.
        pub max: Option<i64>,
    }
}
