//! Node, Tier, CalicoNodeStatus, KubeControllersConfiguration, IPAMConfiguration.

use serde_json::Value;

use super::{Object, has, has_text, items, repeated, text};
use crate::validate::text::{is_label_value, is_qualified_name};

pub(super) fn node(object: &mut Object<'_>) {
    let bgp = object.spec().get("bgp");
    if bgp.and_then(Value::as_object).is_some_and(serde_json::Map::is_empty) {
        object.fail(
            "spec.bgp",
            bgp,
            "must not be empty: give an ipv4Address or ipv6Address, or leave bgp out",
        );
    }
}

/// Order and default action of the tiers that Calico brings along.
const BUILT_IN: [(&str, i64, &str); 3] =
    [("default", 1_000_000, "Deny"), ("kube-admin", 1_000, "Pass"), ("kube-baseline", 10_000_000, "Pass")];

pub(super) fn tier(object: &mut Object<'_>) {
    let name = object.name();
    let Some((_, order, action)) = BUILT_IN.iter().find(|(built_in, ..)| *built_in == name) else { return };
    let spec = object.spec();
    if spec.get("order").and_then(Value::as_i64) != Some(*order) {
        object.fail("spec.order", spec.get("order"), format!("{name} tier order must be {order}"));
    }
    if text(spec, "defaultAction") != *action {
        object.fail(
            "spec.defaultAction",
            spec.get("defaultAction"),
            format!("the '{name}' tier must have default action '{action}'"),
        );
    }
}

pub(super) fn node_status(object: &mut Object<'_>) {
    if let Some(class) = repeated(object.spec(), "classes") {
        let reason = format!("'{class}' is given more than once");
        object.fail_if(true, "classes", &reason);
    }
}

pub(super) fn kube_controllers(object: &mut Object<'_>) {
    let host_endpoint = object.at("/spec/controllers/node/hostEndpoint");
    for (i, template) in items(host_endpoint, "templates").iter().enumerate() {
        let path = format!("spec.controllers.node.hostEndpoint.templates[{i}]");
        if !has(template, "interfaceCIDRs") && !has_text(template, "interfacePattern") {
            object.fail(&path, Some(template), "needs interfaceCIDRs or interfacePattern");
        }
        let labels = template.get("labels").and_then(Value::as_object);
        let bad =
            |(k, v): (&String, &Value)| !is_qualified_name(k) || !v.as_str().is_some_and(is_label_value);
        if labels.is_some_and(|labels| labels.iter().any(bad)) {
            object.fail(
                format!("{path}.labels"),
                template.get("labels"),
                "must be labels as Kubernetes takes them",
            );
        }
    }
}

pub(super) fn ipam_configuration(object: &mut Object<'_>) {
    if object.name() != "default" {
        let value = object.at("/metadata").get("name");
        object.fail(
            "metadata.name",
            value,
            "Cannot create an IPAMConfiguration resource with a name other than \"default\"",
        );
    }
}
