//! Objects as Calico's own tools stored them come back equal, field for field.

use std::collections::BTreeSet;

use caracal_model::{Key, Kind, Value};

/// One `[key, value]` a line: what calicoctl, the CNI plugin and the IPAM library of Calico v3.33 wrote into etcd for inputs of
/// ours, reduced to objects that differ in shape. Times and uids are placeholders.
const STORED: &str = include_str!("data/stored.jsonl");

fn stored() -> impl Iterator<Item = (String, serde_json::Value)> {
    STORED.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
}

/// Null and absent are one in Calico's Go structs, but for the fields that have no `omitempty`.
fn without_nulls(value: &serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(map) => {
            let kept = map.iter().filter(|(name, value)| {
                !value.is_null() || ["affinity", "attributes", "lastUpdated"].contains(&name.as_str())
            });
            kept.map(|(name, value)| (name.clone(), without_nulls(value)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        }
        serde_json::Value::Array(list) => list.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

#[test]
fn every_stored_object_survives() {
    for (path, json) in stored() {
        let key = Key::parse(&path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(key.path(), path);
        let bytes = serde_json::to_vec(&json).unwrap();
        let value = Value::parse(&key, &bytes).unwrap_or_else(|error| panic!("{error}"));
        let again: serde_json::Value = serde_json::from_slice(&value.to_json()).unwrap();
        assert_eq!(again, without_nulls(&json), "{path}");
        assert_eq!(Value::parse(&key, &value.to_json()).as_ref(), Ok(&value), "{path}");
        if let Value::Resource(resource) = &value {
            assert_eq!(resource.key(), key, "the object names its key");
        }
    }
}

/// Nothing that Calico stores is unknown to us, so that a typo in a field's name cannot hide in `other`.
#[test]
fn every_stored_field_has_a_name() {
    for (path, json) in stored() {
        let key = Key::parse(&path).unwrap();
        let value = Value::parse(&key, &serde_json::to_vec(&json).unwrap()).unwrap();
        let shown = format!("{value:?}");
        let unnamed = shown.find("other: {\"").map(|at| &shown[at..shown.len().min(at + 200)]);
        assert_eq!(unnamed, None, "{path}");
    }
}

#[test]
fn every_kind_is_among_them() {
    let kinds: BTreeSet<Kind> = stored().filter_map(|(path, _)| Key::parse(&path).unwrap().kind()).collect();
    let missing: Vec<_> = Kind::ALL.iter().filter(|kind| !kinds.contains(kind)).collect();
    assert_eq!(missing, [&Kind::BlockAffinity], "real deployments have no objects of this kind");
}
