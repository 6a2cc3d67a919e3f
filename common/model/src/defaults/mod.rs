//! What Calico's clients fill in when an object is stored, and how older stored forms are read.
//!
//! Works on JSON in the shape that [`crate::validate::decode()`] gives.

use serde_json::{Map, Value, json};

use crate::resource::Resource;
use crate::validate::schema::{Default, Field, Shape, fields_of};
use crate::validate::text::cidr;
use crate::validate::{Unknown, decode};

/// The annotation in which a policy's own name is kept beside its key.
pub const METADATA_ANNOTATION: &str = "projectcalico.org/metadata";
/// The label that names a policy's tier.
pub const TIER_LABEL: &str = "projectcalico.org/tier";
/// The order of a tier that was given none.
pub const TIER_ORDER: i64 = 1_000_000;

/// Fills in what a create or update stores beyond what was given. A resource that does not take its kind's shape is left
/// as it is: [`crate::validate::validate()`] says why.
pub fn apply(resource: &mut Resource) {
    let kind = resource.kind();
    if let Ok(mut value) = decode(kind.kind_name(), &resource.to_value(), Unknown::Keep) {
        apply_value(kind.kind_name(), &mut value);
        if let Ok(filled) = Resource::from_value(kind, value) {
            *resource = filled;
        }
    }
}

/// The same on JSON.
pub fn apply_value(kind: &str, object: &mut Value) {
    match kind {
        "IPPool" => pool(object, true),
        "Tier" => tier(object),
        "GlobalNetworkPolicy" | "NetworkPolicy" | "StagedGlobalNetworkPolicy" | "StagedNetworkPolicy" => {
            policy(object);
        }
        "WorkloadEndpoint" => workload(object),
        _ => {}
    }
    if let Some(fields) = fields_of(kind) {
        fill(fields, object);
    }
    if is_policy(kind) {
        tier_label(object, true);
    }
}

/// Brings a stored object into the form in which clients show it: defaults of older versions, the policy's own name.
pub fn from_storage(kind: &str, object: &mut Value) {
    match kind {
        "IPPool" => pool(object, false),
        _ if is_policy(kind) => policy_from_storage(object),
        _ => {}
    }
}

/// The same for the members of a list, where clients fill in a little more.
pub fn from_storage_list(kind: &str, object: &mut Value) {
    if kind == "Tier" {
        tier(object);
    }
}

/// What must stand in the store beside what clients show: a policy's name in its annotation.
pub fn to_storage(kind: &str, object: &mut Value) {
    if is_policy(kind) {
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let text = json!({ "name": name }).to_string();
        if let Some(annotations) =
            child(object, "metadata").and_then(|m| child(m, "annotations")).and_then(Value::as_object_mut)
        {
            annotations.insert(METADATA_ANNOTATION.to_owned(), text.into());
        }
    }
}

/// Kinds that live in a tier.
pub fn is_policy(kind: &str) -> bool {
    matches!(
        kind,
        "GlobalNetworkPolicy" | "NetworkPolicy" | "StagedGlobalNetworkPolicy" | "StagedNetworkPolicy"
    )
}

fn fill(fields: &[Field], object: &mut Value) {
    let Value::Object(map) = object else { return };
    for field in fields {
        if !map.contains_key(field.name) {
            let value = match field.default {
                Default::None => continue,
                Default::Text(text) => text.into(),
                Default::Int(number) => number.into(),
            };
            map.insert(field.name.to_owned(), value);
        }
        match (&field.shape, map.get_mut(field.name)) {
            (Shape::Record(inner), Some(value)) => fill(inner, value),
            (Shape::List(Shape::Record(inner)), Some(Value::Array(items))) => {
                for item in items {
                    fill(inner, item);
                }
            }
            _ => {}
        }
    }
}

fn child<'v>(value: &'v mut Value, name: &str) -> Option<&'v mut Value> {
    let map = value.as_object_mut()?;
    Some(map.entry(name).or_insert_with(|| Value::Object(Map::new())))
}

fn spec(object: &mut Value) -> Option<&mut Map<String, Value>> {
    child(object, "spec")?.as_object_mut()
}

fn missing(spec: &Map<String, Value>, field: &str) -> bool {
    spec.get(field).is_none_or(|v| match v {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Number(n) => n.as_i64() == Some(0),
        _ => false,
    })
}

fn default_to(spec: &mut Map<String, Value>, field: &str, value: impl Into<Value>) {
    if missing(spec, field) {
        spec.insert(field.to_owned(), value.into());
    }
}

fn pool(object: &mut Value, normalise: bool) {
    let Some(spec) = spec(object) else { return };
    let prefix = spec.get("cidr").and_then(Value::as_str).and_then(cidr);
    if let Some((ip, length)) = prefix {
        default_to(spec, "blockSize", if ip.is_ipv4() { 26 } else { 122 });
        if normalise {
            // The address in its canonical spelling; bits behind the prefix stay for validation to see.
            spec.insert("cidr".to_owned(), format!("{ip}/{length}").into());
        }
    }
    default_to(spec, "ipipMode", "Never");
    default_to(spec, "vxlanMode", "Never");
    default_to(spec, "nodeSelector", "all()");
    default_to(spec, "allowedUses", json!(["Workload", "Tunnel"]));
    default_to(spec, "assignmentMode", "Automatic");
}

fn tier(object: &mut Value) {
    if let Some(spec) = spec(object)
        && spec.get("order").is_none_or(Value::is_null)
    {
        spec.insert("order".to_owned(), TIER_ORDER.into());
    }
}

fn policy(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    if spec.get("stagedAction").and_then(Value::as_str) == Some("Delete") {
        spec.remove("types");
        return;
    }
    let filled =
        |field: &str| spec.get(field).and_then(Value::as_array).is_some_and(|rules| !rules.is_empty());
    let types = match (filled("ingress"), filled("egress")) {
        (true, true) => json!(["Ingress", "Egress"]),
        (false, true) => json!(["Egress"]),
        _ => json!(["Ingress"]),
    };
    default_to(spec, "types", types);
}

/// Sets the tier label; `always`, or only where there is none.
fn tier_label(object: &mut Value, always: bool) {
    let tier = object
        .pointer("/spec/tier")
        .and_then(Value::as_str)
        .filter(|t| !t.is_empty())
        .unwrap_or("default")
        .to_owned();
    if let Some(labels) =
        child(object, "metadata").and_then(|m| child(m, "labels")).and_then(Value::as_object_mut)
        && (always || !labels.contains_key(TIER_LABEL))
    {
        labels.insert(TIER_LABEL.to_owned(), tier.into());
    }
}

fn policy_from_storage(object: &mut Value) {
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    let annotation = metadata.and_then(|metadata| {
        let annotations = metadata.get_mut("annotations")?.as_object_mut()?;
        let text = annotations.remove(METADATA_ANNOTATION);
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
        text
    });
    let own: Option<Value> = annotation.and_then(|text| serde_json::from_str(text.as_str()?).ok());
    let own = own
        .and_then(|own| own.get("name").and_then(Value::as_str).filter(|n| !n.is_empty()).map(str::to_owned));
    let stored = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let tier = object.pointer("/spec/tier").and_then(Value::as_str).unwrap_or_default();
    let name = match own {
        Some(own) => own,
        // Before the annotation existed, the name of a policy in the default tier was stored with the tier before it.
        None if tier.is_empty() || tier == "default" => {
            stored.strip_prefix("default.").unwrap_or(stored).to_owned()
        }
        None => stored.to_owned(),
    };
    if let Some(metadata) = child(object, "metadata").and_then(Value::as_object_mut) {
        metadata.insert("name".to_owned(), name.into());
    }
    if let Some(spec) = spec(object) {
        default_to(spec, "tier", "default");
    }
    tier_label(object, false);
}

fn workload(object: &mut Value) {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (namespace, orchestrator) = (text("/metadata/namespace"), text("/spec/orchestrator"));
    if let Some(labels) =
        child(object, "metadata").and_then(|m| child(m, "labels")).and_then(Value::as_object_mut)
    {
        labels.insert("projectcalico.org/namespace".to_owned(), namespace.into());
        labels.insert("projectcalico.org/orchestrator".to_owned(), orchestrator.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaulted(kind: &str, mut object: Value) -> Value {
        apply_value(kind, &mut object);
        object
    }

    #[test]
    fn pools_get_family_sizes_and_canonical_prefixes() {
        let four = defaulted("IPPool", json!({"spec": {"cidr": "10.44.0.0/16"}}));
        assert_eq!(
            four["spec"],
            json!({"cidr": "10.44.0.0/16", "blockSize": 26, "ipipMode": "Never", "vxlanMode": "Never", "nodeSelector": "all()",
                "allowedUses": ["Workload", "Tunnel"], "assignmentMode": "Automatic"})
        );
        let six = defaulted("IPPool", json!({"spec": {"cidr": "FD44:0:0:0::/48", "blockSize": 120}}));
        assert_eq!((&six["spec"]["cidr"], &six["spec"]["blockSize"]), (&json!("fd44::/48"), &json!(120)));
    }

    #[test]
    fn typed_resources_are_filled_and_checked_too() {
        let pool = json!({"metadata": {"name": "p"}, "spec": {"cidr": "10.44.0.0/16", "future": 1}});
        let mut pool = Resource::from_value(crate::Kind::IpPool, pool).unwrap();
        apply(&mut pool);
        let value = pool.to_value();
        assert_eq!((&value["spec"]["blockSize"], &value["spec"]["future"]), (&json!(26), &json!(1)));
        assert_eq!(crate::validate::validate(&pool), []);
        let wrong = json!({"metadata": {"name": "P"}, "spec": {"cidr": "10.44.0.0/27", "blockSize": 26}});
        let errors = crate::validate::validate(&Resource::from_value(crate::Kind::IpPool, wrong).unwrap());
        assert_eq!(
            errors.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(),
            ["metadata.name", "spec.cidr"]
        );
    }

    #[test]
    fn policy_types_follow_from_the_rules() {
        for (spec, types) in [
            (json!({}), json!(["Ingress"])),
            (json!({"ingress": [{}]}), json!(["Ingress"])),
            (json!({"egress": [{}]}), json!(["Egress"])),
            (json!({"ingress": [{}], "egress": [{}]}), json!(["Ingress", "Egress"])),
            (json!({"types": ["Egress"], "ingress": [{}]}), json!(["Egress"])),
        ] {
            assert_eq!(defaulted("NetworkPolicy", json!({ "spec": spec }))["spec"]["types"], types);
        }
        let gone = defaulted("StagedNetworkPolicy", json!({"spec": {"stagedAction": "Delete"}}));
        assert_eq!(gone["spec"], json!({"stagedAction": "Delete", "tier": "default"}));
        assert_eq!(gone["metadata"]["labels"][TIER_LABEL], "default");
    }

    #[test]
    fn a_policy_keeps_its_name_in_an_annotation() {
        let mut policy = json!({"metadata": {"name": "a"}, "spec": {"tier": "default"}});
        to_storage("NetworkPolicy", &mut policy);
        assert_eq!(policy["metadata"]["annotations"][METADATA_ANNOTATION], r#"{"name":"a"}"#);
        from_storage("NetworkPolicy", &mut policy);
        assert_eq!(policy["metadata"], json!({"name": "a", "labels": {TIER_LABEL: "default"}}));
        let mut old = json!({"metadata": {"name": "default.b"}, "spec": {}});
        from_storage("GlobalNetworkPolicy", &mut old);
        assert_eq!((&old["metadata"]["name"], &old["spec"]["tier"]), (&json!("b"), &json!("default")));
    }

    #[test]
    fn configuration_defaults_stand_where_nothing_is_given() {
        let bgp = defaulted("BGPConfiguration", json!({"spec": {"asNumber": 65001}}));
        assert_eq!(
            bgp["spec"],
            json!({"asNumber": 65001, "logSeverityScreen": "Info", "serviceLoadBalancerAggregation": "Enabled"})
        );
        let felix = defaulted("FelixConfiguration", json!({"spec": {"floatingIPs": "Enabled"}}));
        assert_eq!(felix["spec"]["floatingIPs"], "Enabled");
        assert_eq!(felix["spec"]["bpfLogLevel"], "");
        let kube = defaulted(
            "KubeControllersConfiguration",
            json!({"spec": {"controllers": {"node": {}, "loadBalancer": {}}}}),
        );
        assert_eq!(
            kube["spec"],
            json!({"healthChecks": "Enabled", "prometheusMetricsPort": 9094,
                "controllers": {"node": {"leakGracePeriod": "15m0s"}, "loadBalancer": {"assignIPs": "AllServices"}}})
        );
        assert_eq!(
            defaulted("Tier", json!({"spec": {}}))["spec"],
            json!({"order": 1_000_000, "defaultAction": "Deny"})
        );
    }
}
