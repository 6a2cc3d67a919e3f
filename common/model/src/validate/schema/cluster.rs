//! Node, ClusterInformation, CalicoNodeStatus, KubeControllersConfiguration.

use super::{
    Field, Rule, Shape, duration, field, flag, int, int32, list, object, record, text, text_map, texts,
    uint32,
};
use crate::validate::text::{
    is_cidr4, is_cidr6, is_cidrs_item, is_ip4, is_ip6, is_mac, is_name, is_regex, is_selector,
};

const ENABLED: &[&str] = &["Enabled", "Disabled"];

/// Node.
pub(super) const NODE: &[Field] = object!(
    &[
        record(
            "bgp",
            &[
                field("asNumber", Shape::AsNumber).given(),
                text("ipv4Address")
                    .test(is_cidr4, "must be an IPv4 address with a prefix length, as 10.0.0.1/24"),
                text("ipv4IPIPTunnelAddr").test(is_ip4, "must be an IPv4 address"),
                text("ipv6Address")
                    .test(is_cidr6, "must be an IPv6 address with a prefix length, as fd00::1/64"),
                text("routeReflectorClusterID").test(is_ip4, "must look like an IPv4 address, as 244.0.0.1"),
            ],
        ),
        text("ipv4VXLANTunnelAddr").test(is_ip4, "must be an IPv4 address"),
        text("vxlanTunnelMACAddr").test(is_mac, "must be a MAC address"),
        text("ipv6VXLANTunnelAddr").test(is_ip6, "must be an IPv6 address"),
        text("vxlanTunnelMACAddrV6").test(is_mac, "must be a MAC address"),
        list("orchRefs", &Shape::Record(&[text("nodeName"), text("orchestrator").always()])),
        record(
            "wireguard",
            &[
                text("interfaceIPv4Address").test(is_ip4, "must be an IPv4 address"),
                text("interfaceIPv6Address").test(is_ip6, "must be an IPv6 address"),
            ],
        ),
        list("addresses", &Shape::Record(&[text("address").always(), text("type")])),
        list("interfaces", &Shape::Record(&[text("name"), texts("addresses")])),
    ],
    field(
        "status",
        Shape::Record(&[text("wireguardPublicKey"), text("wireguardPublicKeyV6"), texts("podCIDRs")])
    )
    .always()
);

/// ClusterInformation.
pub(super) const CLUSTER_INFORMATION: &[Field] = object!(&[
    text("clusterGUID"),
    text("clusterType"),
    text("calicoVersion"),
    flag("datastoreReady").given(),
    text("variant"),
]);

const BIRD: Shape = Shape::Record(&[
    text("state"),
    text("version"),
    text("routerID"),
    text("lastBootTime"),
    text("lastReconfigurationTime"),
]);
const PEER: &Shape = &Shape::Record(&[text("peerIP"), text("type"), text("state"), text("since")]);
const ROUTE: &Shape = &Shape::Record(&[
    text("type"),
    text("destination"),
    text("gateway"),
    text("interface"),
    field("learnedFrom", Shape::Record(&[text("sourceType"), text("peerIP")])),
]);

/// CalicoNodeStatus.
pub(super) const NODE_STATUS: &[Field] = object!(
    &[
        text("node").required().test(is_name, "must be a node name: lower-case letters, digits, '-' or '.'"),
        texts("classes").required().rule(Rule::EachOneOf(&["Agent", "BGP", "Routes"])),
        uint32("updatePeriodSeconds").given().required().rule(Rule::Range(0, 86_400)),
    ],
    field(
        "status",
        Shape::Record(&[
            field("lastUpdated", Shape::Time).always(),
            field("agent", Shape::Record(&[field("birdV4", BIRD).always(), field("birdV6", BIRD).always()]))
                .always(),
            field(
                "bgp",
                Shape::Record(&[
                    int("numberEstablishedV4").always(),
                    int("numberNotEstablishedV4").always(),
                    int("numberEstablishedV6").always(),
                    int("numberNotEstablishedV6").always(),
                    list("peersV4", PEER),
                    list("peersV6", PEER),
                ])
            )
            .always(),
            field("routes", Shape::Record(&[list("routesV4", ROUTE), list("routesV6", ROUTE)])).always(),
        ])
    )
    .always()
);

const PERIOD: &[Field] = &[duration("reconcilerPeriod")];
const TEMPLATE: &Shape = &Shape::Record(&[
    text("generateName")
        .rule(Rule::MaxLength(253))
        .test(is_name, "must consist of lower-case letters, digits, '-' or '.'"),
    texts("interfaceCIDRs").each(is_cidrs_item, "must be a CIDR or an address"),
    text("interfacePattern").test(is_regex, "must be a regular expression"),
    text_map("labels"),
    text("nodeSelector").test(is_selector, "must be a selector"),
]);
const CONTROLLERS: &[Field] = &[
    text("logSeverityScreen").one_of(&["None", "Debug", "Info", "Warning", "Error", "Fatal", "Panic"]),
    text("healthChecks").one_of(ENABLED).default_text("Enabled"),
    duration("etcdV3CompactionPeriod"),
    int("prometheusMetricsPort").given().rule(Rule::Range(0, 65_535)).default_int(9094),
    field(
        "controllers",
        Shape::Record(&[
            record(
                "node",
                &[
                    duration("reconcilerPeriod"),
                    text("syncLabels").one_of(ENABLED),
                    record(
                        "hostEndpoint",
                        &[
                            text("autoCreate").one_of(ENABLED),
                            text("createDefaultHostEndpoint").one_of(ENABLED),
                            list("templates", TEMPLATE),
                        ],
                    ),
                    duration("leakGracePeriod").default_text("15m0s"),
                ],
            ),
            record("policy", PERIOD),
            record("workloadEndpoint", PERIOD),
            record("serviceAccount", PERIOD),
            record("namespace", PERIOD),
            record(
                "loadBalancer",
                &[text("assignIPs")
                    .one_of(&["AllServices", "RequestedServicesOnly"])
                    .default_text("AllServices")],
            ),
            record("policyMigration", &[text("enabled").one_of(ENABLED).default_text("Enabled")]),
        ]),
    )
    .always(),
    int32("debugProfilePort").given().rule(Rule::Range(0, 65_535)),
];

/// KubeControllersConfiguration.
pub(super) const KUBE_CONTROLLERS: &[Field] = object!(
    CONTROLLERS,
    field("status", Shape::Record(&[record("runningConfig", CONTROLLERS), text_map("environmentVars")]))
        .always()
);
