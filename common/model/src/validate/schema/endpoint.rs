//! WorkloadEndpoint, HostEndpoint, Profile.

use super::policy::RULE;
use super::{Field, Rule, Shape, field, int, int32, list, object, record, text, text_map, texts, uint16};
use crate::validate::text::{
    is_cidr, is_container_id, is_interface, is_interface_or_all, is_ip, is_ip4, is_ip6, is_mac, is_name,
    is_port_name,
};

const NAME: &str = "must consist of lower-case letters, digits, '-' or '.'";

/// WorkloadEndpoint.
pub(super) const WORKLOAD_ENDPOINT: &[Field] = object!(&[
    text("orchestrator").test(is_name, NAME),
    text("workload").test(is_name, NAME),
    text("node").test(is_name, NAME),
    text("containerID").test(is_container_id, "must consist of letters, digits and '-'"),
    text("pod").test(is_name, NAME),
    text("endpoint").test(is_name, NAME),
    text("serviceAccountName").test(is_name, NAME),
    texts("ipNetworks").each(is_cidr, "must be an address, as 10.0.0.1/32"),
    list(
        "ipNATs",
        &Shape::Record(&[
            text("internalIP").always().test(is_ip, "must be an IP address"),
            text("externalIP").always().test(is_ip, "must be an IP address"),
        ])
    ),
    text("ipv4Gateway").test(is_ip4, "must be an IPv4 address"),
    text("ipv6Gateway").test(is_ip6, "must be an IPv6 address"),
    texts("profiles").each(is_name, NAME),
    text("interfaceName")
        .test(is_interface, "must be an interface name of 1 to 15 letters, digits, '_', '-' or '.'"),
    text("mac").test(is_mac, "must be a MAC address, as ca:fe:1d:52:bb:e9"),
    list(
        "ports",
        &Shape::Record(&[
            text("name").always().test(is_port_name, "must be a port name"),
            field("protocol", Shape::Protocol).always(),
            uint16("port").always(),
            uint16("hostPort").always(),
            text("hostIP").always(),
        ])
    ),
    texts("allowSpoofedSourcePrefixes").each(is_cidr, "must be a CIDR or an address"),
    record(
        "qosControls",
        &[
            int("ingressBandwidth"),
            int("ingressBurst"),
            int("ingressPeakrate"),
            int("ingressMinburst"),
            int("egressBandwidth"),
            int("egressBurst"),
            int("egressPeakrate"),
            int("egressMinburst"),
            int("ingressPacketRate"),
            int("ingressPacketBurst"),
            int("egressPacketRate"),
            int("egressPacketBurst"),
            int("ingressMaxConnections"),
            int("egressMaxConnections"),
            field("dscp", Shape::IntOrText).given(),
        ]
    ),
]);

/// HostEndpoint.
pub(super) const HOST_ENDPOINT: &[Field] = object!(&[
    text("node").test(is_name, NAME),
    text("interfaceName").test(
        is_interface_or_all,
        "must be '*' or an interface name of 1 to 15 letters, digits, '_', '-' or '.'"
    ),
    texts("expectedIPs").each(is_ip, "must be an IP address without prefix length"),
    texts("profiles").each(is_name, NAME),
    list(
        "ports",
        &Shape::Record(&[
            text("name").always().required().test(is_port_name, "must be a port name"),
            field("protocol", Shape::Protocol).always().required(),
            int32("port").always().rule(Rule::Range(1, 65_535)),
        ])
    ),
]);

/// Profile.
pub(super) const PROFILE: &[Field] =
    object!(&[list("ingress", RULE), list("egress", RULE), text_map("labelsToApply")]);
