//! Names, labels, annotations.

use serde_json::{Map, Value};

use super::{Object, text};
use crate::validate::text::{is_label, is_label_value, is_name, is_qualified_name};

const SUBDOMAIN: &str = "name must consist of lower case alphanumeric characters, '-' or '.', and begin and end with an alphanumeric one";
const LABEL: &str = "name must consist of lower case alphanumeric characters or '-', and begin and end with an alphanumeric one";
const POLICY: &str = "name must consist of lower case alphanumeric characters or '-', with one '.' at most, and begin and end with an alphanumeric one";
/// Bytes of keys and values together (Kubernetes' limit).
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

pub(super) fn check(object: &mut Object<'_>) {
    name(object);
    labels(object, "/metadata/labels", "metadata.labels");
    annotations(object, object.at("/metadata/annotations"), "metadata.annotations");
}

fn name(object: &mut Object<'_>) {
    let name = object.name();
    let (limit, good, reason) = match object.kind {
        "Tier" => (63, is_label(name), LABEL),
        "GlobalNetworkPolicy" | "StagedGlobalNetworkPolicy" => (253, is_policy_name(name), POLICY),
        "NetworkPolicy" | "StagedNetworkPolicy" => {
            let foreign = ["knp.default.", "ossg.default."].iter().find_map(|p| name.strip_prefix(p));
            (253, is_policy_name(name) || foreign.is_some_and(is_name), POLICY)
        }
        "StagedKubernetesNetworkPolicy" => (253, true, SUBDOMAIN),
        _ => (253, is_name(name), SUBDOMAIN),
    };
    let value = object.at("/metadata").get("name");
    if name.len() > limit {
        object.fail("metadata.name", value, format!("name is too long by {} bytes", name.len() - limit));
    } else if !good {
        object.fail("metadata.name", value.or(Some(&Value::String(String::new()))), reason);
    }
    let namespace = text(object.at("/metadata"), "namespace");
    if !namespace.is_empty() && !is_name(namespace) {
        object.fail("metadata.namespace", object.at("/metadata").get("namespace"), SUBDOMAIN);
    }
}

fn is_policy_name(name: &str) -> bool {
    match name.split_once('.') {
        Some((tier, name)) => is_label(tier) && is_label(name),
        None => is_label(name),
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// Reports label keys and values that Kubernetes would refuse.
pub(super) fn labels(object: &mut Object<'_>, pointer: &str, path: &str) {
    for (key, value) in entries(object.at(pointer)) {
        if !is_qualified_name(key) {
            object.fail(
                format!("{path} ({key})"),
                Some(value),
                "a label key is an optional DNS prefix and '/', then up to 63 letters, digits, '-', '_' or '.'",
            );
        }
        if !value.as_str().is_some_and(is_label_value) {
            object.fail(
                format!("{path} ({key})"),
                Some(value),
                "a label value is up to 63 letters, digits, '-', '_' or '.', and begins and ends with a letter or digit",
            );
        }
    }
}

/// Reports annotation keys that Kubernetes would refuse, and annotations that are too large together.
pub(super) fn annotations(object: &mut Object<'_>, annotations: &Value, path: &str) {
    let mut size = 0;
    for (key, value) in entries(annotations) {
        if !is_qualified_name(&key.to_ascii_lowercase()) {
            object.fail(
                format!("{path} ({key})"),
                None,
                "an annotation key is an optional DNS prefix and '/', then up to 63 letters, digits, '-', '_' or '.'",
            );
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_LIMIT {
        object.fail(path, None, format!("annotations are too large by {} bytes", size - ANNOTATIONS_LIMIT));
    }
}
