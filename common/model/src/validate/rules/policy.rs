//! Policies, their rules, and network sets.

use serde_json::Value;

use super::endpoint::has_ports;
use super::{Object, has, has_text, is_true, items, metadata, repeated, text, texts};
use crate::validate::text::cidr;

const GLOBAL_ONLY: &str = "global() can only be used in a rule's namespaceSelector";

pub(super) fn network_set(object: &mut Object<'_>) {
    let label = object.at("/metadata/labels").get("projectcalico.org/namespace");
    if label.is_some() {
        object.fail(
            "metadata.labels (projectcalico.org/namespace)",
            label,
            "is not a valid label name: felix sets it itself",
        );
    }
}

pub(super) fn check(object: &mut Object<'_>) {
    let spec = object.spec();
    if text(spec, "stagedAction") == "Delete" {
        let other = spec
            .as_object()
            .into_iter()
            .flatten()
            .find(|(name, _)| !["stagedAction", "tier"].contains(&name.as_str()));
        if let Some((name, value)) = other {
            object.fail(
                format!("spec.{name}"),
                Some(value),
                "spec fields, except tier, must be empty if stagedAction is Delete",
            );
        }
        return;
    }
    let global = object.kind.contains("Global");
    for field in ["selector", "serviceAccountSelector", "namespaceSelector"] {
        object.fail_if(text(spec, field).contains("global("), field, GLOBAL_ONLY);
    }
    if let Some(kind) = repeated(spec, "types") {
        let reason = format!("'{kind}' type specified more than once");
        object.fail_if(true, "types", &reason);
    }
    if global {
        host_flags(object);
    }
    rules(object, true);
    directions(object, global);
}

fn host_flags(object: &mut Object<'_>) {
    let spec = object.spec();
    let (untracked, pre_dnat) = (is_true(spec, "doNotTrack"), is_true(spec, "preDNAT"));
    object.fail_if(untracked && pre_dnat, "preDNAT", "preDNAT and doNotTrack cannot both be true");
    object.fail_if(
        pre_dnat && !items(spec, "egress").is_empty(),
        "egress",
        "a preDNAT policy cannot have egress rules",
    );
    object.fail_if(
        pre_dnat && texts(spec, "types").any(|t| t == "Egress"),
        "types",
        "a preDNAT policy cannot have type Egress",
    );
    object.fail_if(
        (untracked || pre_dnat) && !is_true(spec, "applyOnForward"),
        "applyOnForward",
        "applyOnForward must be true if either preDNAT or doNotTrack is true",
    );
}

/// Services are matched where traffic comes from on ingress and where it goes on egress; HTTP only on ingress.
fn directions(object: &mut Object<'_>, global: bool) {
    for (list, wrong, right) in [("ingress", "destination", "source"), ("egress", "source", "destination")] {
        for (i, rule) in items(object.spec(), list).iter().enumerate() {
            let path = format!("spec.{list}[{i}]");
            let services = |side: &str| rule.get(side).and_then(|s| s.get("services"));
            if services(wrong).is_some() {
                object.fail(
                    format!("{path}.{wrong}.services"),
                    services(wrong),
                    format!("not allowed in {list} rule {wrong}"),
                );
            }
            if global && services(right).is_some_and(|s| !has_text(s, "namespace")) {
                object.fail(
                    format!("{path}.{right}.services.namespace"),
                    None,
                    "must specify a namespace: the policy is global",
                );
            }
            if list == "egress" && has(rule, "http") {
                object.fail(format!("{path}.http"), None, "not allowed in egress rules");
            }
        }
    }
}

/// Checks the rules of a policy or profile. Profiles take any action, as Calico does.
pub(super) fn rules(object: &mut Object<'_>, actions: bool) {
    for list in ["ingress", "egress"] {
        for (i, rule) in items(object.spec(), list).iter().enumerate() {
            one_rule(object, rule, &format!("spec.{list}[{i}]"), actions);
        }
    }
}

fn one_rule(object: &mut Object<'_>, rule: &Value, path: &str, actions: bool) {
    const ACTIONS: [&str; 4] = ["Allow", "Deny", "Log", "Pass"];
    let action = text(rule, "action");
    if actions && !ACTIONS.contains(&action) {
        object.fail(
            format!("{path}.action"),
            rule.get("action"),
            "supported values: \"Allow\", \"Deny\", \"Log\", \"Pass\"",
        );
    }
    let version = rule.get("ipVersion").and_then(Value::as_i64);
    if version.is_some_and(|v| v != 4 && v != 6) {
        object.fail(format!("{path}.ipVersion"), rule.get("ipVersion"), "supported values: 4, 6");
    }
    protocol(object, rule, path, version);
    ports(object, rule, path);
    nets(object, rule, path, version);
    if has(rule, "http") {
        http(object, rule, path, action);
    }
    for side in ["source", "destination"] {
        if let Some(entity) = rule.get(side) {
            one_entity(object, entity, &format!("{path}.{side}"));
        }
    }
    if let Some(annotations) = rule.pointer("/metadata/annotations") {
        metadata::annotations(object, annotations, &format!("{path}.metadata.annotations"));
    }
}

fn is(protocol: Option<&Value>, name: &str, number: u64) -> bool {
    protocol.is_some_and(|p| p.as_str() == Some(name) || p.as_u64() == Some(number))
}

fn protocol(object: &mut Object<'_>, rule: &Value, path: &str, version: Option<i64>) {
    let (yes, no) = (rule.get("protocol"), rule.get("notProtocol"));
    for (name, number, wanted) in [("ICMP", 1, 4), ("ICMPv6", 58, 6)] {
        let used = is(yes, name, number) || is(no, name, number);
        if used && version.is_some_and(|v| v != wanted) {
            object.fail(
                format!("{path}.ipVersion"),
                rule.get("ipVersion"),
                format!("protocol {name} requires ipVersion {wanted}"),
            );
        }
    }
    if has(rule, "icmp") && !is(yes, "ICMP", 1) && !is(yes, "ICMPv6", 58) {
        object.fail(
            format!("{path}.icmp"),
            rule.get("icmp"),
            "ICMP fields require protocol to be ICMP or ICMPv6",
        );
    }
    for field in ["icmp", "notICMP"] {
        if rule.get(field).is_some_and(|icmp| has(icmp, "code") && !has(icmp, "type")) {
            object.fail(
                format!("{path}.{field}.code"),
                rule.get(field),
                "ICMP code specified without an ICMP type",
            );
        }
    }
}

fn ports(object: &mut Object<'_>, rule: &Value, path: &str) {
    let protocol = rule.get("protocol");
    for side in ["source", "destination"] {
        for field in ["ports", "notPorts"] {
            let Some(ports) = rule
                .get(side)
                .and_then(|s| s.get(field))
                .filter(|p| p.as_array().is_some_and(|p| !p.is_empty()))
            else {
                continue;
            };
            let at = format!("{path}.{side}.{field}");
            let numeric = ports
                .as_array()
                .into_iter()
                .flatten()
                .any(|p| p.is_number() || p.as_str().is_some_and(|p| p.contains(':')));
            match protocol {
                Some(protocol) if !has_ports(protocol) => {
                    object.fail(
                        &at,
                        Some(ports),
                        "rules that specify ports must set protocol to TCP or UDP or SCTP",
                    );
                }
                None if numeric => {
                    object.fail(
                        &at,
                        Some(ports),
                        "rules with numeric port or port range must set protocol to TCP or UDP or SCTP",
                    );
                }
                _ => {}
            }
            if side == "destination" && rule.pointer("/destination/services").is_some() {
                object.fail(at, Some(ports), "ports and notPorts cannot be specified with services");
            }
        }
    }
}

fn nets(object: &mut Object<'_>, rule: &Value, path: &str, version: Option<i64>) {
    let (mut seen4, mut seen6) = (false, false);
    for (side, field) in
        [("source", "nets"), ("source", "notNets"), ("destination", "nets"), ("destination", "notNets")]
    {
        let Some(entity) = rule.get(side) else { continue };
        let at = format!("{path}.{side}.{field}");
        let (mut v4, mut v6) = (false, false);
        for net in texts(entity, field) {
            let shown = Value::String(net.to_owned());
            match cidr(net).filter(|_| net.contains('/')) {
                None => {
                    object.fail(&at, Some(&shown), "must be a CIDR with its prefix length, as 10.0.0.9/32");
                }
                Some((_, 0)) if field == "notNets" => {
                    object.fail(
                        &at,
                        Some(&shown),
                        "catch-all CIDR in negation creates logical contradiction (matches no traffic)",
                    );
                }
                Some((ip, _)) => (v4, v6) = (v4 || ip.is_ipv4(), v6 || ip.is_ipv6()),
            }
        }
        if version.is_some_and(|v| (v4 && v != 4) || (v6 && v != 6)) {
            object.fail(&at, entity.get(field), "rule IP version doesn't match CIDR version");
        }
        if (v4 && (seen6 || v6)) || (v6 && seen4) {
            object.fail(&at, entity.get(field), "rule contains both IPv4 and IPv6 CIDRs");
        }
        (seen4, seen6) = (seen4 || v4, seen6 || v6);
    }
}

fn http(object: &mut Object<'_>, rule: &Value, path: &str, action: &str) {
    let http = &rule["http"];
    let protocol = rule.get("protocol");
    if protocol.is_some() && !is(protocol, "TCP", 6) {
        object.fail(
            format!("{path}.protocol"),
            protocol,
            "rules with HTTP match must have protocol TCP or unset",
        );
    }
    if action != "Allow" {
        object.fail(format!("{path}.http"), Some(http), "HTTP match is only valid on Allow rules");
    }
    if let Some(method) = repeated(http, "methods") {
        object.fail(
            format!("{path}.http.methods"),
            http.get("methods"),
            format!("method {method} is given twice"),
        );
    }
    for (i, entry) in items(http, "paths").iter().enumerate() {
        let (exact, prefix) = (text(entry, "exact"), text(entry, "prefix"));
        let wanted = if exact.is_empty() { prefix } else { exact };
        let reason = if !exact.is_empty() && !prefix.is_empty() {
            "both 'exact' and 'prefix' are set"
        } else if wanted.is_empty() {
            "either 'exact' or 'prefix' must be set"
        } else if !wanted.starts_with('/') || wanted.contains(['?', ' ', '#']) {
            "a path must start with '/' and not contain '?', '#' or a blank"
        } else {
            continue;
        };
        object.fail(format!("{path}.http.paths[{i}]"), Some(entry), reason);
    }
}

fn one_entity(object: &mut Object<'_>, entity: &Value, path: &str) {
    if text(entity, "selector").contains("global(") {
        object.fail(format!("{path}.selector"), entity.get("selector"), GLOBAL_ONLY);
    }
    let namespaces = text(entity, "namespaceSelector");
    if namespaces.contains("global(") && namespaces.split_whitespace().collect::<String>() != "global()" {
        object.fail(
            format!("{path}.namespaceSelector"),
            entity.get("namespaceSelector"),
            "global() cannot be combined with other selectors",
        );
    }
    let Some(services) = entity.get("services").filter(|s| !s.is_null()) else { return };
    if !has_text(services, "name") {
        object.fail(format!("{path}.services"), Some(services), "services must specify a service name");
    }
    for (fields, names) in [
        (&["namespaceSelector"][..], "namespaceSelector"),
        (&["serviceAccounts"], "serviceAccounts"),
        (&["selector", "notSelector"], "selector or notSelector"),
        (&["nets", "notNets"], "nets or notNets"),
    ] {
        if fields.iter().any(|f| entity.get(f).is_some_and(|v| !crate::validate::decode::is_zero(v))) {
            object.fail(
                format!("{path}.services"),
                Some(services),
                format!("cannot specify {names} and services on the same rule"),
            );
        }
    }
}

pub(super) fn staged_kubernetes(object: &mut Object<'_>) {
    let spec = object.spec();
    if text(spec, "stagedAction") == "Delete" {
        let filled = |(name, value): &(&String, &Value)| {
            name.as_str() != "stagedAction" && !crate::validate::decode::is_zero(value)
        };
        if let Some((name, value)) = spec.as_object().into_iter().flatten().find(filled) {
            object.fail(
                format!("spec.{name}"),
                Some(value),
                "spec fields must be empty if stagedAction is Delete",
            );
        }
        return;
    }
    for list in ["ingress", "egress"] {
        for (i, rule) in items(spec, list).iter().enumerate() {
            for (j, port) in items(rule, "ports").iter().enumerate() {
                let path = format!("spec.{list}[{i}].ports[{j}]");
                if has(port, "endPort") && !port.get("port").is_some_and(Value::is_number) {
                    object.fail(path, Some(port), "endPort needs a numeric port");
                } else if let (Some(end), Some(start)) =
                    (port.get("endPort").and_then(Value::as_i64), port.get("port").and_then(Value::as_i64))
                    && end < start
                {
                    object.fail(path, Some(port), "endPort must not be smaller than port");
                }
            }
        }
    }
    for (i, expression) in
        items(spec.get("podSelector").unwrap_or(&Value::Null), "matchExpressions").iter().enumerate()
    {
        if !["In", "NotIn", "Exists", "DoesNotExist"].contains(&text(expression, "operator")) {
            object.fail(
                format!("spec.podSelector.matchExpressions[{i}].operator"),
                expression.get("operator"),
                "supported values: \"In\", \"NotIn\", \"Exists\", \"DoesNotExist\"",
            );
        }
    }
}
