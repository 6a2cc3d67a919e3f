//! `patch` and `label`: changes of single fields, tried again when somebody else was faster.

use json_patch::Patch as Operations;
use serde_json::Value;

use super::console::line;
use super::{names, session};
use crate::ctl::args::{Label, Patch};
use crate::ctl::client::{ATTEMPTS, Client, Stored, metadata, pause, shaped};
use crate::ctl::error::Error;
use crate::ctl::input::yaml;
use crate::ctl::kinds::KindInfo;

/// A change of an object.
#[derive(Debug)]
enum Change {
    Merge(Value),
    Strategic(Value),
    Operations(Operations),
}

impl Change {
    fn parse(form: &str, text: &str) -> Result<Change, String> {
        let bad = |reason: String| format!("failed to execute command: the patch is not usable: {reason}");
        let mut documents = yaml::documents(text).map_err(|e| bad(e.to_string()))?;
        let value = match (documents.pop(), documents.is_empty()) {
            (Some(document), true) => document.value,
            (None, _) => return Err(bad("it is empty".to_owned())),
            (Some(_), false) => return Err(bad("it has several documents".to_owned())),
        };
        match form {
            "json" => match serde_json::from_value(value) {
                Ok(operations) => Ok(Change::Operations(operations)),
                Err(error) => Err(bad(format!(
                    "a JSON patch is a list of operations, [{{\"op\": …, \"path\": …}}]: {error}"
                ))),
            },
            "strategic" | "merge" if !value.is_object() => Err(bad(
                "it must be an object with the fields to change, for instance {\"spec\": {…}}".to_owned(),
            )),
            "strategic" => Ok(Change::Strategic(value)),
            "merge" => Ok(Change::Merge(value)),
            other => Err(format!("unknown patch type '{other}'; use strategic, merge or json")),
        }
    }

    fn apply(&self, object: &Value) -> Result<Value, String> {
        let mut changed = object.clone();
        match self {
            Change::Merge(patch) => json_patch::merge(&mut changed, patch),
            Change::Strategic(patch) => strategic(&mut changed, patch),
            Change::Operations(operations) => {
                json_patch::patch(&mut changed, operations).map_err(|e| e.to_string())?;
            }
        }
        Ok(changed)
    }
}

/// A strategic merge. Calico's kinds name no merge keys, so lists are replaced; `$patch: replace` and `$patch: delete` say what
/// to do with the object around them.
fn strategic(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    match fields.get("$patch").and_then(Value::as_str) {
        Some("replace") => *target = Value::Object(serde_json::Map::new()),
        Some("delete") => {
            *target = Value::Null;
            return;
        }
        _ => {}
    }
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Some(object) = target.as_object_mut() else { return };
    for (name, value) in fields.iter().filter(|(name, _)| !name.starts_with('$')) {
        if value.is_null() {
            object.remove(name);
        } else {
            let slot = object.entry(name.clone()).or_insert(Value::Null);
            strategic(slot, value);
            if slot.is_null() {
                object.remove(name);
            }
        }
    }
}

/// `patch`.
pub(super) async fn patch(arguments: &Patch, allow_mismatch: bool) -> Result<bool, String> {
    let kind = names::kind(&arguments.kind)?;
    let name = &arguments.name;
    if name.is_empty() {
        return Err("resource name may not be empty".to_owned());
    }
    let change = Change::parse(&arguments.form, &arguments.change)?;
    let namespace = names::namespace(kind, "", &arguments.namespace)?;
    let client = session::open(&arguments.connection, allow_mismatch).await?;
    let result = update(&client, kind, &namespace, name, |stored| {
        let changed =
            change.apply(&stored.value).map_err(|e| Error::Other(format!("applying the patch: {e}")))?;
        same_object(&stored.value, &changed)?;
        shaped(kind, &changed, Some(&stored.raw)).map_err(Error::Other)
    });
    match result.await {
        Ok(_) => {
            line(format!("Successfully patched 1 '{}' resource", kind.name));
            Ok(true)
        }
        Err(error @ (Error::DoesNotExist(_) | Error::Other(_))) => Err(format!("hit error: {error}")),
        Err(error) => Err(format!("hit error: updating existing resource: {}({name}): {error}", kind.name)),
    }
}

/// A patch changes an object, it does not make another one of it.
fn same_object(old: &Value, new: &Value) -> Result<(), Error> {
    for field in ["kind", "apiVersion"] {
        if old.get(field) != new.get(field) {
            return Err(Error::Other(format!("a patch cannot change {field}")));
        }
    }
    for field in ["name", "namespace", "uid"] {
        if metadata(old, field) != metadata(new, field) {
            return Err(Error::Other(format!(
                "a patch cannot change metadata.{field}; create another object instead"
            )));
        }
    }
    Ok(())
}

/// Changes what is stored; with a resourceVersion in the change the stored one must be that.
async fn update(
    client: &Client,
    kind: &'static KindInfo,
    namespace: &str,
    name: &str,
    change: impl Fn(&Stored) -> Result<Value, Error>,
) -> Result<Stored, Error> {
    for attempt in 0..ATTEMPTS {
        let stored = client.get(kind, namespace, name).await?;
        let changed = change(&stored)?;
        let wanted = metadata(&changed, "resourceVersion");
        if !wanted.is_empty() && wanted != stored.rev.to_string() {
            let id = crate::ctl::error::identifier(kind.name, namespace, name);
            return Err(Error::Conflict(
                id,
                format!(": resource version '{wanted}' is out of date (latest: {})", stored.rev),
            ));
        }
        match client.update_from(kind, &changed, &stored).await {
            Err(Error::Conflict(..)) if attempt + 1 < ATTEMPTS => pause(attempt).await,
            other => return other,
        }
    }
    unreachable!("invariant: the last attempt returns")
}

/// `label`.
pub(super) async fn label(arguments: &Label, allow_mismatch: bool) -> Result<bool, String> {
    let kind = names::kind(&arguments.kind)?;
    let (word, name) = (&arguments.kind, &arguments.name);
    let (key, value) = match (arguments.wanted.split_once('='), arguments.remove) {
        (Some((key, value)), false) if !key.is_empty() && !value.contains('=') => (key, Some(value)),
        (None, true) if !arguments.wanted.is_empty() => (arguments.wanted.as_str(), None),
        (_, remove) => {
            let wanted =
                if remove { "with --remove it is the key alone" } else { "it has the form key=value" };
            return Err(format!("invalid label {}: {wanted}", arguments.wanted));
        }
    };
    let namespace = names::namespace(kind, "", &arguments.namespace)?;
    let client = session::open(&arguments.connection, allow_mismatch).await?;
    let verb = std::cell::Cell::new("");
    let result = update(&client, kind, &namespace, name, |stored| {
        let mut changed = stored.value.clone();
        let (said, labels) = (
            relabel(metadata_map(&stored.value), key, value, arguments.overwrite, (word, name))?,
            &mut changed,
        );
        verb.set(said.0);
        labels["metadata"]["labels"] = Value::Object(said.1);
        if said.0 == "removed"
            && labels["metadata"]["labels"].as_object().is_some_and(serde_json::Map::is_empty)
        {
            labels["metadata"].as_object_mut().map(|m| m.remove("labels"));
        }
        Ok(changed)
    });
    match result.await {
        Ok(_) => {
            line(match verb.get() {
                "removed" => format!("Successfully removed label {key} from {word} {name}"),
                verb => format!("Successfully {verb} label {key} on {word} {name}"),
            });
            Ok(true)
        }
        Err(Error::DoesNotExist(_)) => Err(format!("{word} {name} not found")),
        Err(Error::Other(reason)) => Err(reason),
        Err(error) => Err(format!("failed to update {word} {name}, label not changed: {error}")),
    }
}

type Labels = serde_json::Map<String, Value>;

fn metadata_map(value: &Value) -> Labels {
    value.pointer("/metadata/labels").and_then(Value::as_object).cloned().unwrap_or_default()
}

/// The labels after the change, and what was done in a word.
fn relabel(
    mut labels: Labels,
    key: &str,
    value: Option<&str>,
    overwrite: bool,
    (kind, name): (&str, &str),
) -> Result<(&'static str, Labels), Error> {
    let said = match (value, labels.get(key)) {
        (None, None) => {
            return Err(Error::Other(format!(
                "cannot remove label of {kind} {name}, key {key} does not exist"
            )));
        }
        (None, Some(_)) => {
            labels.remove(key);
            "removed"
        }
        (Some(_), Some(_)) if !overwrite => {
            return Err(Error::Other(format!(
                "failed to update label of {kind} {name}, key {key} is already present. please use '--overwrite' to set a new value."
            )));
        }
        (Some(value), old) => {
            let said = if old.is_some() { "updated" } else { "set" };
            labels.insert(key.to_owned(), value.into());
            said
        }
    };
    Ok((said, labels))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(form: &str, patch: &str) -> Result<Value, String> {
        let object = json!({"metadata": {"name": "a", "labels": {"x": "1"}}, "spec": {"nets": ["10.0.0.0/8"], "bgp": {"asNumber": 1, "ipv4Address": "y"}}});
        Change::parse(form, patch)?.apply(&object)
    }

    #[test]
    fn the_three_forms() {
        for (form, patch, pointer, want) in [
            ("merge", r#"{"spec": {"bgp": {"asNumber": null}}}"#, "/spec/bgp", json!({"ipv4Address": "y"})),
            ("strategic", r#"{"spec": {"bgp": {"asNumber": 2}}}"#, "/spec/bgp/asNumber", json!(2)),
            ("strategic", "spec: {nets: [192.0.2.0/24]}", "/spec/nets", json!(["192.0.2.0/24"])),
            (
                "strategic",
                r#"{"spec": {"bgp": {"$patch": "replace", "asNumber": 3}}}"#,
                "/spec/bgp",
                json!({"asNumber": 3}),
            ),
            (
                "strategic",
                r#"{"spec": {"bgp": {"$patch": "delete"}}}"#,
                "/spec",
                json!({"nets": ["10.0.0.0/8"]}),
            ),
            (
                "strategic",
                r#"{"metadata": {"labels": {"x": null, "z": "2"}}}"#,
                "/metadata/labels",
                json!({"z": "2"}),
            ),
            (
                "json",
                r#"[{"op": "add", "path": "/spec/nets/-", "value": "b"}]"#,
                "/spec/nets",
                json!(["10.0.0.0/8", "b"]),
            ),
        ] {
            assert_eq!(patched(form, patch).unwrap().pointer(pointer), Some(&want), "{form} {patch}");
        }
    }

    #[test]
    fn patches_that_make_no_sense() {
        for (form, patch, says) in [
            ("json", "{}", "list of operations"),
            ("json", r#"[{"op": "test", "path": "/spec/nets/0", "value": "b"}]"#, "did not match"),
            ("merge", "[]", "must be an object"),
            ("merge", "{", "not usable"),
            ("strategic", "", "empty"),
            ("other", "{}", "use strategic, merge or json"),
        ] {
            let error = patched(form, patch).unwrap_err();
            assert!(error.contains(says), "{form} {patch}: {error}");
        }
        let old = json!({"kind": "Node", "metadata": {"name": "a"}});
        assert!(same_object(&old, &json!({"kind": "Node", "metadata": {"name": "b"}})).is_err());
    }

    #[test]
    fn labels() {
        let had: Labels = json!({"a": "1"}).as_object().unwrap().clone();
        let of = |key, value, overwrite| {
            relabel(had.clone(), key, value, overwrite, ("node", "n"))
                .map(|(said, l)| (said, Value::Object(l)))
        };
        assert_eq!(of("b", Some("2"), false).unwrap(), ("set", json!({"a": "1", "b": "2"})));
        assert_eq!(of("a", Some("2"), true).unwrap(), ("updated", json!({"a": "2"})));
        assert_eq!(of("a", None, false).unwrap(), ("removed", json!({})));
        assert!(of("a", Some("2"), false).unwrap_err().to_string().contains("--overwrite"));
        assert_eq!(
            of("b", None, false).unwrap_err().to_string(),
            "cannot remove label of node n, key b does not exist"
        );
    }
}
