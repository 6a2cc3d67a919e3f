//! What a kind's fields must satisfy together: CEL rules of the CRDs and the struct checks of libcalico-go.

mod bgp;
mod cluster;
mod endpoint;
mod felix;
mod ippool;
mod metadata;
mod policy;

use serde_json::Value;

use super::FieldError;

/// Collects errors about one object, with typed access to its spec.
pub(super) struct Object<'a> {
    pub(super) kind: &'a str,
    pub(super) value: &'a Value,
    pub(super) errors: &'a mut Vec<FieldError>,
}

impl<'a> Object<'a> {
    fn at(&self, pointer: &str) -> &'a Value {
        self.value.pointer(pointer).unwrap_or(&Value::Null)
    }
    fn name(&self) -> &'a str {
        text(self.at("/metadata"), "name")
    }
    fn spec(&self) -> &'a Value {
        self.at("/spec")
    }
    fn fail(&mut self, field: impl Into<String>, value: Option<&Value>, reason: impl Into<String>) {
        self.errors.push(FieldError::new(field, value, reason));
    }
    /// An error about a field of the spec when the condition holds.
    fn fail_if(&mut self, bad: bool, field: &str, reason: &str) {
        if bad {
            let value = self.spec().get(field);
            self.fail(format!("spec.{field}"), value, reason);
        }
    }
}

pub(super) fn check(kind: &str, value: &Value, errors: &mut Vec<FieldError>) {
    let mut object = Object { kind, value, errors };
    metadata::check(&mut object);
    match kind {
        "Node" => cluster::node(&mut object),
        "Tier" => cluster::tier(&mut object),
        "CalicoNodeStatus" => cluster::node_status(&mut object),
        "KubeControllersConfiguration" => cluster::kube_controllers(&mut object),
        "IPAMConfiguration" => cluster::ipam_configuration(&mut object),
        "WorkloadEndpoint" => endpoint::workload(&mut object),
        "HostEndpoint" => endpoint::host(&mut object),
        "Profile" => endpoint::profile(&mut object),
        "IPPool" => ippool::check(&mut object),
        "BGPPeer" => bgp::peer(&mut object),
        "BGPConfiguration" => bgp::configuration(&mut object),
        "BGPFilter" => bgp::filter(&mut object),
        "FelixConfiguration" => felix::check(&mut object),
        "NetworkSet" | "GlobalNetworkSet" => policy::network_set(&mut object),
        "GlobalNetworkPolicy" | "NetworkPolicy" | "StagedGlobalNetworkPolicy" | "StagedNetworkPolicy" => {
            policy::check(&mut object);
        }
        "StagedKubernetesNetworkPolicy" => policy::staged_kubernetes(&mut object),
        _ => {}
    }
}

/// The text of a field, empty when it is absent.
fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}
/// Whether a text field is there and not empty.
fn has_text(value: &Value, field: &str) -> bool {
    !text(value, field).is_empty()
}
/// Whether a field is there and not null.
fn has(value: &Value, field: &str) -> bool {
    value.get(field).is_some_and(|v| !v.is_null())
}
fn is_true(value: &Value, field: &str) -> bool {
    value.get(field).and_then(Value::as_bool).unwrap_or_default()
}
fn items<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
fn texts<'v>(value: &'v Value, field: &str) -> impl Iterator<Item = &'v str> {
    items(value, field).iter().filter_map(Value::as_str)
}
/// The first text that stands twice in a list.
fn repeated<'v>(value: &'v Value, field: &str) -> Option<&'v str> {
    let mut seen = Vec::new();
    texts(value, field).find(|t| {
        let again = seen.contains(t);
        seen.push(*t);
        again
    })
}
