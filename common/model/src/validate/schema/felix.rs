//! FelixConfiguration.

use super::{
    Field, Keep, Rule, Shape, duration, field, flag, int, list, object, record, text, text_map, uint32,
};
use crate::validate::text::{
    is_auto_or_duration, is_cidr4, is_feature_list, is_interface, is_interface_pattern_list, is_ip4, is_ip6,
    is_key_value_list, is_log_prefix, is_prometheus_host, is_rate, is_regex, is_region, is_selector,
    is_timeout_name,
};

const ENABLED: &[&str] = &["Enabled", "Disabled"];
const LEVELS: &[&str] = &["Trace", "Debug", "Info", "Warning", "Error", "Fatal"];
const REGEX: &str = "must be a regular expression";

const fn on(name: &'static str) -> Field {
    flag(name).given()
}
const fn number(name: &'static str) -> Field {
    int(name).given()
}
/// `*[]T`: an empty list is kept, it switches something off.
const fn given_list(name: &'static str, of: &'static Shape) -> Field {
    Field { keep: Keep::Given, ..list(name, of) }
}
const fn enabled(name: &'static str) -> Field {
    text(name).given().one_of(ENABLED)
}
const fn level(name: &'static str) -> Field {
    text(name).word(LEVELS)
}
const fn port(name: &'static str) -> Field {
    // Calico checks the type of these, not the range.
    number(name)
}

const PROTO_PORT: &Shape = &Shape::Record(&[
    text("protocol"),
    field("port", Shape::Int(0, 65_535, "uint16")).always(),
    text("net").test(is_any_net, "must be a CIDR"),
]);
fn is_any_net(value: &str) -> bool {
    crate::validate::text::is_cidr(value)
}
const TABLE_RANGE: &[Field] = &[int("min").always(), int("max").always()];
const fn conntrack(name: &'static str) -> Field {
    text(name).given().test(is_auto_or_duration, "must be a duration or Auto")
}

/// FelixConfiguration.
pub(super) const FELIX_CONFIGURATION: &[Field] = object!(&[
    text("nodeSelector")
        .rule(Rule::MaxLength(1024))
        .test(is_selector, "must be a selector, as role == 'edge'"),
    on("useInternalDataplaneDriver"),
    text("dataplaneDriver"),
    duration("dataplaneWatchdogTimeout"),
    on("ipv6Support"),
    duration("routeRefreshInterval"),
    duration("interfaceRefreshInterval"),
    duration("iptablesRefreshInterval"),
    duration("iptablesPostWriteCheckInterval"),
    text("iptablesLockFilePath"),
    duration("iptablesLockTimeout"),
    duration("iptablesLockProbeInterval"),
    text("featureDetectOverride")
        .test(is_feature_list, "must be a comma-separated list of name=true or name=false"),
    text("featureGates").test(is_key_value_list, "must be a comma-separated list of name=value"),
    duration("ipsetsRefreshInterval"),
    number("maxIpsetSize"),
    text("iptablesBackend").given().one_of(&["Legacy", "NFT", "Auto"]),
    duration("xdpRefreshInterval"),
    duration("netlinkTimeout"),
    text("metadataAddr"),
    port("metadataPort"),
    text("openstackRegion").test(is_region, "must be a DNS label of at most 46 characters"),
    text("interfacePrefix"),
    text("interfaceExclude"),
    text("chainInsertMode").word(&["Insert", "Append"]),
    text("defaultEndpointToHostAction").word(&["Drop", "Accept", "Return"]),
    text("iptablesFilterAllowAction").word(&["Accept", "Return"]),
    text("iptablesMangleAllowAction").word(&["Accept", "Return"]),
    text("iptablesFilterDenyAction").word(&["Drop", "Reject"]),
    text("logPrefix").test(is_log_prefix, "may hold letters, digits, blanks and %:/_- only"),
    text("logActionRateLimit").given().test(is_rate, "must be <number>/second, minute, hour or day"),
    number("logActionRateLimitBurst").rule(Rule::Range(0, 9999)),
    text("logFilePath"),
    level("logSeverityFile"),
    level("logSeverityScreen"),
    level("logSeveritySys"),
    text("logDebugFilenameRegex").test(is_regex, REGEX),
    on("ipipEnabled"),
    number("ipipMTU"),
    on("vxlanEnabled"),
    number("vxlanMTU"),
    number("vxlanMTUV6"),
    port("vxlanPort"),
    number("vxlanVNI"),
    on("allowVXLANPacketsFromWorkloads"),
    on("allowIPIPPacketsFromWorkloads"),
    duration("reportingInterval"),
    duration("reportingTTL"),
    on("endpointReportingEnabled"),
    duration("endpointReportingDelay"),
    text("endpointStatusPathPrefix"),
    uint32("iptablesMarkMask").given(),
    on("disableConntrackInvalidCheck"),
    on("healthEnabled"),
    text("healthHost").given(),
    port("healthPort"),
    given_list(
        "healthTimeoutOverrides",
        &Shape::Record(&[
            text("name")
                .always()
                .required()
                .test(is_timeout_name, "may hold letters, digits, blanks, '_' and '-' only"),
            duration("timeout").always().required(),
        ])
    ),
    on("prometheusMetricsEnabled"),
    text("prometheusMetricsHost").test(is_prometheus_host, "must be a host name or an address"),
    port("prometheusMetricsPort"),
    on("prometheusGoMetricsEnabled"),
    on("prometheusProcessMetricsEnabled"),
    on("prometheusWireGuardMetricsEnabled"),
    text("prometheusMetricsCAFile").given(),
    text("prometheusMetricsCertFile").given(),
    text("prometheusMetricsKeyFile").given(),
    text("prometheusMetricsClientAuth").given().one_of(&[
        "RequireAndVerifyClientCert",
        "RequireAnyClientCert",
        "VerifyClientCertIfGiven",
        "NoClientCert",
    ]),
    given_list("failsafeInboundHostPorts", PROTO_PORT),
    given_list("failsafeOutboundHostPorts", PROTO_PORT),
    given_list("kubeNodePortRanges", &Shape::Port).rule(Rule::Items(0, 7)),
    text("policySyncPathPrefix"),
    on("usageReportingEnabled"),
    duration("usageReportingInitialDelay"),
    duration("usageReportingInterval"),
    field("natPortRange", Shape::Port).given(),
    text("natOutgoingAddress").rule(Rule::MaxLength(45)).test(is_ip4, "must be an IPv4 address"),
    text("natOutgoingExclusions").given().one_of(&["IPPoolsOnly", "IPPoolsAndHostIPs"]),
    text("deviceRouteSourceAddress").rule(Rule::MaxLength(45)).test(is_ip4, "must be an IPv4 address"),
    text("deviceRouteSourceAddressIPv6").rule(Rule::MaxLength(45)).test(is_ip6, "must be an IPv6 address"),
    number("deviceRouteProtocol"),
    on("removeExternalRoutes"),
    text("ipForwarding").one_of(ENABLED),
    given_list("externalNodesList", &Shape::Text).each(is_cidr4, "must be an IPv4 CIDR or address"),
    text("debugMemoryProfilePath"),
    on("debugDisableLogDropping"),
    duration("debugSimulateCalcGraphHangAfter"),
    duration("debugSimulateDataplaneHangAfter"),
    duration("debugSimulateDataplaneApplyDelay"),
    text("debugHost").given(),
    port("debugPort"),
    text("iptablesNATOutgoingInterfaceFilter")
        .test(is_interface_pattern_list, "must be an interface name, '+' at its end for any"),
    on("sidecarAccelerationEnabled"),
    on("xdpEnabled"),
    on("genericXDPEnabled"),
    text("nftablesMode").given().one_of(&["Disabled", "Enabled", "Auto"]).default_text("Auto"),
    text("nftablesFlowTableOffload").given().one_of(&["Disabled", "Enabled", "All"]).default_text("Disabled"),
    duration("nftablesRefreshInterval"),
    text("nftablesFilterAllowAction").word(&["Accept", "Return"]),
    text("nftablesMangleAllowAction").word(&["Accept", "Return"]),
    text("nftablesFilterDenyAction").word(&["Drop", "Reject"]),
    uint32("nftablesMarkMask").given(),
    on("bpfEnabled"),
    on("bpfDisableUnprivileged"),
    text("bpfLogLevel").given().word(&["Off", "Info", "Debug"]).default_text(""),
    text("bpfConntrackLogLevel").given().one_of(&["Off", "Debug"]),
    text_map("bpfLogFilters").given(),
    text("bpfCTLBLogFilter"),
    text("bpfDataIfacePattern").test(is_regex, REGEX),
    text("bpfL3IfacePattern").test(is_regex, REGEX),
    on("bpfConnectTimeLoadBalancingEnabled"),
    text("bpfConnectTimeLoadBalancing").given().one_of(&["TCP", "Enabled", "Disabled"]).default_text("TCP"),
    enabled("bpfHostNetworkedNATWithoutCTLB").default_text("Enabled"),
    text("bpfExternalServiceMode").word(&["Tunnel", "DSR"]),
    given_list("bpfDSROptoutCIDRs", &Shape::Text).each(is_any_net, "must be a CIDR"),
    number("bpfExtToServiceConnmark"),
    on("bpfKubeProxyIptablesCleanupEnabled"),
    duration("bpfKubeProxyMinSyncPeriod"),
    port("bpfKubeProxyHealthzPort"),
    on("bpfKubeProxyEndpointSlicesEnabled"),
    field("bpfPSNATPorts", Shape::Port).given(),
    number("bpfMapSizeNATFrontend"),
    number("bpfMapSizeNATBackend"),
    number("bpfMapSizeNATAffinity"),
    number("bpfMapSizeRoute"),
    number("bpfMapSizeConntrack"),
    number("bpfMapSizePerCpuConntrack"),
    text("bpfMapSizeConntrackScaling").word(&["Disabled", "DoubleIfFull"]),
    number("bpfMapSizeConntrackCleanupQueue").rule(Rule::Range(1, i64::MAX)),
    number("bpfMapSizeIPSets"),
    number("bpfMapSizeIfState"),
    number("bpfMaglevMaxEndpointsPerService"),
    number("bpfMaglevMaxServices"),
    on("bpfHostConntrackBypass"),
    text("bpfEnforceRPF").word(&["Disabled", "Strict", "Loose"]),
    on("bpfPolicyDebugEnabled"),
    given_list("bpfForceTrackPacketsFromIfaces", &Shape::Text)
        .each(is_interface_pattern_list, "must be an interface name, '+' at its end for any"),
    text("bpfDisableGROForIfaces").test(is_regex, REGEX),
    given_list("bpfExcludeCIDRsFromNAT", &Shape::Text).each(is_any_net, "must be a CIDR"),
    text("bpfRedirectToPeer").one_of(&["Enabled", "Disabled", "L2Only"]),
    text("bpfAttachType").given().one_of(&["TC", "TCX"]),
    number("bpfExportBufferSizeMB"),
    text("bpfProfiling").one_of(ENABLED),
    text("bpfJITHardening").given().one_of(&["Auto", "Strict"]),
    duration("bpfIPFragTimeout"),
    on("bpfIPFragmentReassemblyEnabled"),
    text("bpfConntrackMode").given().one_of(&["Auto", "Userspace", "BPFProgram"]),
    record(
        "bpfConntrackTimeouts",
        &[
            conntrack("creationGracePeriod"),
            conntrack("tcpSynSent"),
            conntrack("tcpEstablished"),
            conntrack("tcpFinsSeen"),
            conntrack("tcpResetSeen"),
            conntrack("udpTimeout"),
            conntrack("genericTimeout"),
            conntrack("icmpTimeout"),
        ]
    ),
    text("bpfOverlayHostSourceIP").given().one_of(&["TunnelAddress", "HostAddress"]),
    text("cgroupV2Path"),
    text("flowLogsFlushInterval").given().test(is_auto_or_duration, "must be a duration"),
    on("flowLogsCollectorDebugTrace"),
    text("flowLogsGoldmaneServer").given(),
    text("flowLogsLocalReporter").given().one_of(ENABLED),
    text("flowLogsPolicyEvaluationMode").given().one_of(&["None", "Continuous"]),
    text("routeSource").word(&["WorkloadIPs", "CalicoIPAM"]),
    on("routeSyncDisabled"),
    record("routeTableRange", TABLE_RANGE),
    given_list("routeTableRanges", &Shape::Record(TABLE_RANGE)),
    number("ipv4NormalRoutePriority"),
    number("ipv4ElevatedRoutePriority"),
    number("ipv6NormalRoutePriority"),
    number("ipv6ElevatedRoutePriority"),
    duration("liveMigrationRouteConvergenceTime"),
    text("programClusterRoutes").given().one_of(&[
        "Enabled",
        "Disabled",
        "EnabledIPIPOnly",
        "EnabledNoEncapOnly"
    ]),
    text("localSubnetL2Reachability").given().one_of(&["Disabled", "PodsAndLoadBalancers"]),
    duration("localSubnetL2ReachabilityRefreshInterval"),
    text("serviceLoopPrevention").word(&["Drop", "Reject", "Disabled"]),
    text("workloadSourceSpoofing").word(&["Disabled", "Any"]),
    on("wireguardEnabled"),
    on("wireguardEnabledV6"),
    port("wireguardListeningPort"),
    port("wireguardListeningPortV6"),
    number("wireguardRoutingRulePriority"),
    text("wireguardInterfaceName").test(is_interface, "must be an interface name of 1 to 15 characters"),
    text("wireguardInterfaceNameV6").test(is_interface, "must be an interface name of 1 to 15 characters"),
    number("wireguardMTU"),
    number("wireguardMTUV6"),
    on("wireguardHostEncryptionEnabled"),
    duration("wireguardKeepAlive"),
    on("wireguardThreadingEnabled"),
    text("awsSrcDstCheck").given().one_of(&["DoNothing", "Enable", "Disable"]),
    enabled("floatingIPs").default_text("Disabled"),
    enabled("windowsManageFirewallRules"),
    text("mtuIfacePattern").test(is_regex, REGEX),
    on("requireMTUFile"),
    number("goGCThreshold"),
    number("goMemoryLimitMB"),
    number("goMaxProcs"),
    enabled("istioAmbientMode"),
    field("istioDSCPMark", Shape::IntOrText).given(),
]);
