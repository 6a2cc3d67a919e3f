//! WorkloadEndpoint, HostEndpoint, Profile.

use serde_json::Value;

use super::{Object, has_text, items, metadata, policy, text, texts};
use crate::validate::text::cidr;

/// Whether ports mean anything for this protocol.
pub(super) fn has_ports(protocol: &Value) -> bool {
    match protocol {
        Value::String(name) => ["TCP", "UDP", "SCTP"].contains(&name.as_str()),
        other => [Some(6), Some(17), Some(132)].contains(&other.as_u64()),
    }
}

pub(super) fn workload(object: &mut Object<'_>) {
    let spec = object.spec();
    let networks: Vec<_> = texts(spec, "ipNetworks").filter_map(cidr).collect();
    let many = networks.iter().any(|(ip, length)| *length < if ip.is_ipv4() { 32 } else { 128 });
    object.fail_if(many, "ipNetworks", "IP network contains multiple addresses; use /32 or /128");
    for (i, nat) in items(spec, "ipNATs").iter().enumerate() {
        let path = format!("spec.ipNATs[{i}]");
        let (Some((internal, _)), Some((external, _))) =
            (cidr(text(nat, "internalIP")), cidr(text(nat, "externalIP")))
        else {
            continue;
        };
        if internal.is_ipv4() != external.is_ipv4() {
            object.fail(format!("{path}.externalIP"), nat.get("externalIP"), "mismatched IP versions");
        }
        if !networks.iter().any(|(ip, _)| *ip == internal) {
            object.fail(
                format!("{path}.internalIP"),
                nat.get("internalIP"),
                "NAT is not in the endpoint networks (spec.ipNetworks)",
            );
        }
    }
    ports(object, true);
}

pub(super) fn host(object: &mut Object<'_>) {
    let spec = object.spec();
    object.fail_if(!has_text(spec, "node"), "node", "node must be specified");
    if !has_text(spec, "interfaceName") && items(spec, "expectedIPs").is_empty() {
        object.fail("spec", None, "at least one of interfaceName or expectedIPs must be specified");
    }
    ports(object, false);
}

fn ports(object: &mut Object<'_>, workload: bool) {
    for (i, port) in items(object.spec(), "ports").iter().enumerate() {
        let path = format!("spec.ports[{i}]");
        if !port.get("protocol").is_some_and(has_ports) {
            object.fail(
                format!("{path}.protocol"),
                port.get("protocol"),
                "protocol does not support ports; use TCP, UDP or SCTP",
            );
        }
        let host_port = port.get("hostPort").and_then(Value::as_u64).unwrap_or_default();
        if workload && !has_text(port, "name") && host_port == 0 {
            object.fail(
                format!("{path}.name"),
                port.get("name"),
                "name must not be empty if no hostPort is specified",
            );
        }
    }
}

pub(super) fn profile(object: &mut Object<'_>) {
    metadata::labels(object, "/spec/labelsToApply", "spec.labelsToApply");
    policy::rules(object, false);
}
