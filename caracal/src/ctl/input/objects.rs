//! Documents to objects: single ones, lists of a kind, arrays of either.

use caracal_model::validate::{Unknown, decode};
use serde_json::Value;

use super::{Source, yaml};
use crate::ctl::kinds::{self, KindInfo};

/// An object in the shape of its kind.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    /// Its kind.
    pub(crate) kind: &'static KindInfo,
    /// The JSON, as Go would write it.
    pub(crate) value: Value,
}

const API_VERSION: &str = "projectcalico.org/v3";

/// The objects of a text. Fields that a kind does not have are errors.
pub(crate) fn objects(source: &Source) -> Result<Vec<Object>, String> {
    let place = |line: usize| match source.name.as_str() {
        "-" => format!("standard input, line {line}"),
        name => format!("{name}, line {line}"),
    };
    let documents = yaml::documents(&source.text)
        .map_err(|e| format!("failed to execute command: error reading YAML from {}: {e}", source.name))?;
    let mut found = Vec::new();
    for document in documents {
        collect(document.value, &mut found).map_err(|e| format!("{e} ({})", place(document.line)))?;
    }
    Ok(found)
}

fn collect(value: Value, found: &mut Vec<Object>) -> Result<(), String> {
    match value {
        Value::Array(values) => values.into_iter().try_for_each(|value| collect(value, found)),
        Value::Object(_) => {
            let kind = text(&value, "kind");
            if kind == "List" {
                return items(value, found);
            }
            if let Some(kind) = kinds::list_kind(&kind) {
                return list(kind, value, found);
            }
            found.push(object(value)?);
            Ok(())
        }
        other => {
            let what = match other {
                Value::String(_) => "text",
                Value::Number(_) => "a number",
                _ => "a scalar",
            };
            Err(format!(
                "failed to execute command: the document is {what}, where an object with kind, apiVersion and metadata is wanted"
            ))
        }
    }
}

fn list(kind: &'static KindInfo, value: Value, found: &mut Vec<Object>) -> Result<(), String> {
    for (name, _) in value.as_object().into_iter().flatten() {
        if !["kind", "apiversion", "metadata", "items"].contains(&name.to_ascii_lowercase().as_str()) {
            return Err(format!(
                "field in document is not recognized or is in the wrong location: {name} (in a {}List)",
                kind.name
            ));
        }
    }
    let before = found.len();
    items(value, found)?;
    match found.iter().skip(before).find(|o| o.kind.name != kind.name) {
        Some(odd) => Err(format!(
            "failed to execute command: a {}List holds an object of kind {}",
            kind.name, odd.kind.name
        )),
        None => Ok(()),
    }
}

fn items(mut value: Value, found: &mut Vec<Object>) -> Result<(), String> {
    match field(&mut value, "items").map(Value::take) {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Array(items)) => items.into_iter().try_for_each(|item| collect(item, found)),
        Some(_) => Err("failed to execute command: items must be a list".to_owned()),
    }
}

fn field<'v>(value: &'v mut Value, name: &str) -> Option<&'v mut Value> {
    value.as_object_mut()?.iter_mut().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn text(value: &Value, name: &str) -> String {
    let found = value.as_object().into_iter().flatten().find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.and_then(|(_, value)| value.as_str()).unwrap_or_default().to_owned()
}

fn object(value: Value) -> Result<Object, String> {
    let (kind, version) = (text(&value, "kind"), text(&value, "apiVersion"));
    if kind.is_empty() {
        return Err(
            "failed to execute command: the document has no kind; say for instance kind: IPPool".to_owned()
        );
    }
    let Some(info) = kinds::by_kind(&kind).filter(|_| version == API_VERSION) else {
        let hint = match (kinds::by_kind(&kind), kinds::by_alias(&kind)) {
            (Some(_), _) => format!("; the apiVersion of Calico's kinds is {API_VERSION}"),
            (None, Some(meant)) => format!("; did you mean {}?", meant.name),
            _ => String::new(),
        };
        return Err(format!(
            "failed to execute command: Unknown resource type ({kind}) and/or version ({version}){hint}"
        ));
    };
    let value = decode(info.name, &value, Unknown::Refuse(None)).map_err(|e| match e {
        caracal_model::validate::DecodeError::UnknownField { .. } => e.to_string(),
        other => format!(
            "failed to execute command: {kind} {}: {other}",
            text(value.get("metadata").unwrap_or(&Value::Null), "name")
        ),
    })?;
    Ok(Object { kind: info, value })
}

/// An object of a kind with nothing but a name, as the command line gives it.
pub(crate) fn kind_by_name(kind: &'static KindInfo, name: &str) -> Object {
    let value = serde_json::json!({"kind": kind.name, "apiVersion": API_VERSION, "metadata": {"name": name}, "spec": {}});
    Object { kind, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, String> {
        let source = Source { name: "-".to_owned(), text: text.to_owned() };
        let name = |o: &Object| {
            format!("{}/{}", o.kind.name, o.value["metadata"]["name"].as_str().unwrap_or_default())
        };
        objects(&source).map(|found| found.iter().map(name).collect())
    }

    #[test]
    fn documents_lists_and_arrays() {
        let set = |name: &str| {
            format!(
                "{{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {{name: {name}}}}}"
            )
        };
        let (a, b) = (set("a"), set("b"));
        let both = Ok(vec!["GlobalNetworkSet/a".to_owned(), "GlobalNetworkSet/b".to_owned()]);
        assert_eq!(read(&format!("{a}\n---\n{b}\n")), both);
        assert_eq!(read(&format!("[{a}, {b}]")), both);
        assert_eq!(
            read(&format!(
                "{{kind: GlobalNetworkSetList, apiVersion: x, metadata: {{}}, items: [{a}, {b}]}}"
            )),
            both
        );
        assert_eq!(read(&format!("{{kind: List, items: [{a}, {b}]}}")), both);
        assert_eq!(read("# nothing\n"), Ok(vec![]));
    }

    #[test]
    fn errors_say_what_is_wrong_and_where() {
        for (text, says) in [
            ("just words", "is text"),
            ("42", "is a number"),
            ("{kind: }", "no kind"),
            ("{kind: Gizmo, apiVersion: projectcalico.org/v3}", "Unknown resource type (Gizmo)"),
            ("{kind: IPPool, apiVersion: v1}", "apiVersion of Calico's kinds is projectcalico.org/v3"),
            ("{kind: ippool, apiVersion: projectcalico.org/v3}", "did you mean IPPool?"),
            (
                "\n\nkind: IPPool\napiVersion: projectcalico.org/v3\ncolour: red",
                "colour (at colour) (standard input, line 3)",
            ),
            ("kind: [unclosed", "error reading YAML"),
            ("{kind: IPPoolList, colour: red}", "colour"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
