//! Which object of which namespace is meant: the flags, the object's own words, and what kinds allow.

use serde_json::Value;

use crate::ctl::client::metadata;
use crate::ctl::input::Object;
use crate::ctl::kinds::{KINDS, KindInfo, by_alias};

/// Objects without a namespace of their own are in this one.
const DEFAULT: &str = "default";

/// The kind that a word means.
pub(super) fn kind(word: &str) -> Result<&'static KindInfo, String> {
    by_alias(word).ok_or_else(|| {
        let known = KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ");
        format!("resource type '{word}' is not supported; the types are {known}")
    })
}

/// The namespace in which an object is looked up: of the flag, its own, or the default one.
pub(super) fn namespace(kind: &KindInfo, own: &str, flag: &str) -> Result<String, String> {
    if !kind.namespaced() {
        return match (flag, own) {
            ("", "") => Ok(String::new()),
            ("", own) => Err(format!(
                "{} is not namespaced, but the object names namespace {own}; remove metadata.namespace",
                kind.name
            )),
            _ => Err(format!("{} is not namespaced", kind.name)),
        };
    }
    match (flag, own) {
        ("", "") => Ok(DEFAULT.to_owned()),
        (flag, own) if flag == own || own.is_empty() => Ok(flag.to_owned()),
        ("", own) => Ok(own.to_owned()),
        (flag, own) => Err(format!("resource namespace does not match client namespace. {own} != {flag}")),
    }
}

/// Writes the object's namespace into it.
pub(in crate::ctl) fn settle(object: &Object, flag: &str) -> Result<Value, String> {
    let namespace = namespace(object.kind, metadata(&object.value, "namespace"), flag)?;
    let mut value = object.value.clone();
    if !namespace.is_empty() {
        value["metadata"]["namespace"] = namespace.into();
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_objects_agree_on_a_namespace() {
        let (set, node) = (kind("netsets").unwrap(), kind("node").unwrap());
        for (kind, own, flag, want) in [
            (set, "", "", Ok("default")),
            (set, "", "a", Ok("a")),
            (set, "b", "", Ok("b")),
            (set, "b", "b", Ok("b")),
            (set, "b", "a", Err("b != a")),
            (node, "", "", Ok("")),
            (node, "", "a", Err("Node is not namespaced")),
            (node, "a", "", Err("remove metadata.namespace")),
        ] {
            match (namespace(kind, own, flag), want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want),
                (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
