//! BGPPeer, BGPConfiguration, BGPFilter.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Object, has, has_text, is_true, items, text, texts};
use crate::annotation::{BgpSettings, Named, Sought};
use crate::kind::Kind;
use crate::validate::text::{cidr, is_community, peer_address};

fn number(value: &Value, field: &str) -> u64 {
    value.get(field).and_then(Value::as_u64).unwrap_or_default()
}

/// Our own annotations, as strictly as fields. Unknown ones are a warning of whoever writes.
fn annotations(object: &mut Object<'_>, kind: Kind) {
    let given = given(object);
    for one in BgpSettings::read(kind, &given).1 {
        let value = Value::String(one.value);
        object.fail(format!("metadata.annotations[{}]", one.name), Some(&value), one.reason);
    }
}

fn given(object: &Object<'_>) -> BTreeMap<String, String> {
    let all = object.at("/metadata/annotations").as_object().into_iter().flatten();
    all.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

/// Whether the annotations that say who the peer is go with the fields.
fn sought(object: &mut Object<'_>) {
    let (given, spec) = (given(object), object.spec());
    let asn = u32::try_from(number(spec, "asNumber")).ok().filter(|n| *n != 0);
    let named = Named {
        otherwise: has_text(spec, "peerIP") || has_text(spec, "localWorkloadSelector"),
        peer_selector: has_text(spec, "peerSelector"),
        as_number: asn,
    };
    // A wrong value is said already.
    if BgpSettings::read(Kind::BgpPeer, &given).1.is_empty()
        && let Err(wrong) = Sought::read(&given, named)
    {
        object.fail(wrong.field, None, format!("{}; {}", wrong.reason, wrong.fix));
    }
}

pub(super) fn peer(object: &mut Object<'_>) {
    annotations(object, Kind::BgpPeer);
    sought(object);
    let spec = object.spec();
    let on = |field| has_text(spec, field);
    let asn = number(spec, "asNumber") != 0;
    object.fail_if(on("node") && on("nodeSelector"), "node", "node and nodeSelector cannot both be set");
    object.fail_if(
        on("peerIP") && on("peerSelector"),
        "peerIP",
        "peerIP and peerSelector cannot both be set",
    );
    object.fail_if(
        asn && on("peerSelector"),
        "asNumber",
        "asNumber must be empty when peerSelector is set; it is taken from the nodes selected",
    );
    if on("localWorkloadSelector") {
        object.fail_if(on("peerIP"), "peerIP", "peerIP must be empty when localWorkloadSelector is set");
        object.fail_if(
            on("peerSelector"),
            "peerSelector",
            "peerSelector must be empty when localWorkloadSelector is set",
        );
        object.fail_if(!asn, "asNumber", "asNumber is required when localWorkloadSelector is set");
    }
    if let Some((gateway, _)) = cidr(text(spec, "reachableBy")) {
        match peer_address(text(spec, "peerIP")) {
            Some(peer) => {
                let mixed = peer.is_ipv4() != gateway.is_ipv4();
                object.fail_if(
                    mixed,
                    "reachableBy",
                    "reachableBy and peerIP must be of the same address family",
                );
            }
            None => {
                object.fail_if(
                    !on("peerIP"),
                    "reachableBy",
                    "reachableBy must be empty when peerIP is empty",
                );
            }
        }
    }
    object.fail_if(
        is_true(spec, "keepOriginalNextHop") && has(spec, "nextHopMode"),
        "keepOriginalNextHop",
        "keepOriginalNextHop and nextHopMode cannot both be set; keepOriginalNextHop is deprecated, use nextHopMode instead",
    );
}

/// Fields that count on the object named `default` only.
const DEFAULT_ONLY: [&str; 5] = [
    "nodeToNodeMeshEnabled",
    "asNumber",
    "serviceLoadBalancerIPs",
    "serviceExternalIPs",
    "serviceClusterIPs",
];

pub(super) fn configuration(object: &mut Object<'_>) {
    annotations(object, Kind::BgpConfiguration);
    let spec = object.spec();
    let communities = items(spec, "communities");
    for (i, community) in communities.iter().enumerate() {
        let value = text(community, "value");
        if !value.is_empty() && !is_community(value) {
            object.fail(format!("spec.communities[{i}].value"), community.get("value"), COMMUNITY);
        }
    }
    let advertised = items(spec, "prefixAdvertisements");
    object.fail_if(
        advertised.is_empty() && !communities.is_empty(),
        "communities",
        "communities are defined but not used in prefixAdvertisements",
    );
    for (i, advertisement) in advertised.iter().enumerate() {
        for (j, used) in texts(advertisement, "communities").enumerate() {
            if !is_community(used) && !communities.iter().any(|c| text(c, "name") == used) {
                let value = Value::String(used.to_owned());
                object.fail(
                    format!("spec.prefixAdvertisements[{i}].communities[{j}]"),
                    Some(&value),
                    "is neither a community (aa:nn or aa:nn:mm) nor a name defined in spec.communities",
                );
            }
        }
    }
    let mesh_off = spec.get("nodeToNodeMeshEnabled").and_then(Value::as_bool) == Some(false);
    for field in ["nodeMeshPassword", "nodeMeshMaxRestartTime"] {
        let reason = format!("{field} cannot be set when nodeToNodeMeshEnabled is false");
        object.fail_if(mesh_off && has(spec, field), field, &reason);
    }
    if object.name() != "default" {
        for field in DEFAULT_ONLY {
            let reason = format!("cannot set {field} on a BGPConfiguration other than 'default'");
            object.fail_if(has(spec, field), field, &reason);
        }
    }
}

const COMMUNITY: &str = "must be a community, aa:nn with 16-bit or aa:nn:mm with 32-bit numbers";

pub(super) fn filter(object: &mut Object<'_>) {
    for list in ["exportV4", "importV4", "exportV6", "importV6"] {
        for (i, rule) in items(object.spec(), list).iter().enumerate() {
            let path = format!("spec.{list}[{i}]");
            if has_text(rule, "cidr") != has_text(rule, "matchOperator") {
                object.fail(&path, Some(rule), "cidr and matchOperator must both be set or both be empty");
            }
            if has(rule, "prefixLength") && !has_text(rule, "cidr") {
                object.fail(&path, Some(rule), "cidr is required when prefixLength is set");
            }
            let operations = items(rule, "operations");
            if !operations.is_empty() && text(rule, "action") != "Accept" {
                object.fail(&path, Some(rule), "operations may only be used with action Accept");
            }
            for (j, operation) in operations.iter().enumerate() {
                let set = ["addCommunity", "prependASPath", "setPriority"]
                    .iter()
                    .filter(|name| has(operation, name))
                    .count();
                if set != 1 {
                    object.fail(
                        format!("{path}.operations[{j}]"),
                        Some(operation),
                        "exactly one operation must be set",
                    );
                }
            }
        }
    }
}
