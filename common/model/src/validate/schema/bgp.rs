//! BGPPeer, BGPConfiguration, BGPFilter.

use super::{
    Field, Rule, Shape, duration, field, flag, int, int32, list, object, record, text, texts, uint8, uint16,
};
use crate::validate::text::{
    is_any_network, is_bgp_interface, is_community, is_ip4, is_ip6, is_name, is_network, is_network4,
    is_network6, is_peer_ip, is_selector,
};

const ENABLED: &[&str] = &["Enabled", "Disabled"];
const PASSWORD: &[Field] =
    &[record("secretKeyRef", &[text("name"), text("key").always(), flag("optional").given()])];
/// Priorities are kernel metrics; 2147483647 less the metric is LOCAL_PREF.
const PRIORITY: Rule = Rule::Range(1, 2_147_483_646);

/// BGPPeer.
pub(super) const BGP_PEER: &[Field] = object!(&[
    text("node").rule(Rule::MaxLength(253)).test(is_name, "must be a node name"),
    text("nodeSelector").rule(Rule::MaxLength(1024)).test(is_selector, "must be a selector, as rack == 'r1'"),
    text("peerIP")
        .rule(Rule::MaxLength(64))
        .test(is_peer_ip, "must be <IP>, <IPv4>:<port> or [<IPv6>]:<port>"),
    field("asNumber", Shape::AsNumber),
    field("localASNumber", Shape::AsNumber).given(),
    text("peerSelector").rule(Rule::MaxLength(1024)).test(is_selector, "must be a selector"),
    flag("keepOriginalNextHop"),
    text("nextHopMode").given().one_of(&["Auto", "Self", "Keep"]),
    record("password", PASSWORD),
    text("sourceAddress").one_of(&["UseNodeIP", "None"]),
    duration("maxRestartTime"),
    duration("keepaliveTime"),
    int32("numAllowedLocalASNumbers").given(),
    uint8("ttlSecurity").given(),
    text("reachableBy").rule(Rule::MaxLength(64)).test(crate::validate::text::is_ip, "must be an IP address"),
    texts("filters").each(is_name, "must be the name of a BGPFilter"),
    text("localWorkloadSelector").rule(Rule::MaxLength(1024)).test(is_selector, "must be a selector"),
    text("reversePeering").given().one_of(&["Auto", "Manual"]),
]);

const BLOCK: &Shape = &Shape::Record(&[
    text("cidr").test(is_network, "must be a CIDR with its prefix length and without host bits")
]);

/// BGPConfiguration.
pub(super) const BGP_CONFIGURATION: &[Field] = object!(&[
    text("logSeverityScreen")
        .word(&["Trace", "Debug", "Info", "Warning", "Error", "Fatal"])
        .default_text("Info"),
    flag("nodeToNodeMeshEnabled").given(),
    field("asNumber", Shape::AsNumber).given(),
    list("serviceLoadBalancerIPs", BLOCK),
    list("serviceExternalIPs", BLOCK),
    list("serviceClusterIPs", BLOCK),
    text("serviceLoadBalancerAggregation").given().one_of(ENABLED).default_text("Enabled"),
    list(
        "communities",
        &Shape::Record(&[text("name").required().test(is_name, "must be a name"), text("value").required()])
    ),
    list(
        "prefixAdvertisements",
        &Shape::Record(&[
            text("cidr").required().test(is_any_network, "must be a CIDR without host bits"),
            texts("communities").required(),
        ])
    ),
    uint16("listenPort").rule(Rule::Range(1, 65_535)),
    record("nodeMeshPassword", PASSWORD),
    duration("nodeMeshMaxRestartTime"),
    text("bindMode").given().one_of(&["None", "NodeIP"]),
    texts("ignoredInterfaces").each(
        is_ignored_interface,
        "must be an interface name or pattern of 1 to 15 characters, and not '*' alone"
    ),
    text("localWorkloadPeeringIPV4").test(is_ip4, "must be an IPv4 address"),
    text("localWorkloadPeeringIPV6").test(is_ip6, "must be an IPv6 address"),
    text("programClusterRoutes").given().one_of(&[
        "Enabled",
        "Disabled",
        "EnabledIPIPOnly",
        "EnabledNoEncapOnly"
    ]),
    int("ipv4NormalRoutePriority").given().rule(PRIORITY),
    int("ipv6NormalRoutePriority").given().rule(PRIORITY),
]);

fn is_ignored_interface(name: &str) -> bool {
    name != "*" && is_bgp_interface(name)
}

const COMMUNITY: &str = "must be a community, aa:nn with 16-bit or aa:nn:mm with 32-bit numbers";
const OPERATION: &Shape = &Shape::Record(&[
    record("addCommunity", &[text("value").always().required().test(is_community, COMMUNITY)]),
    record("prependASPath", &[list("prefix", &Shape::AsNumber).always().rule(Rule::Items(1, 10))]),
    record("setPriority", &[int("value").always().rule(PRIORITY)]),
]);

macro_rules! filter_rule {
    ($net:expr, $family:expr, $bits:expr, $length:expr) => {
        &Shape::Record(&[
            text("cidr").rule(Rule::MaxLength($length)).test($net, $family),
            record(
                "prefixLength",
                &[
                    int32("min").given().rule(Rule::Range(0, $bits)),
                    int32("max").given().rule(Rule::Range(0, $bits)),
                ],
            ),
            text("source").one_of(&["RemotePeers"]),
            text("interface").test(
                is_bgp_interface,
                "must be an interface name of 1 to 15 characters, '*' stands for any",
            ),
            text("matchOperator").one_of(&["Equal", "NotEqual", "In", "NotIn"]),
            text("peerType").one_of(&["eBGP", "iBGP"]),
            record(
                "communities",
                &[texts("values").always().rule(Rule::Items(1, 1)).each(is_community, COMMUNITY)],
            ),
            list("asPathPrefix", &Shape::AsNumber),
            int("priority").given().rule(PRIORITY),
            text("action").always().required().one_of(&["Accept", "Reject"]),
            list("operations", OPERATION).rule(Rule::Items(0, 10)),
        ])
    };
}
const RULE4: &Shape = filter_rule!(is_network4, "must be an IPv4 CIDR without host bits", 32, 18);
const RULE6: &Shape = filter_rule!(is_network6, "must be an IPv6 CIDR without host bits", 128, 43);

/// BGPFilter.
pub(super) const BGP_FILTER: &[Field] = object!(&[
    list("exportV4", RULE4),
    list("importV4", RULE4),
    list("exportV6", RULE6),
    list("importV6", RULE6)
]);
