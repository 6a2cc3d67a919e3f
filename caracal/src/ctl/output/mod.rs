//! Objects on the terminal: tables, YAML, JSON, Go templates.

pub(crate) mod go_value;
pub(crate) mod table;
mod template;
pub(crate) mod yaml;

use caracal_model::validate::to_json_pretty;
use serde_json::Value;

use crate::ctl::kinds::{self, KindInfo};

/// What `-o` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Format {
    /// `ps`, a table of the chosen columns of each kind.
    Ps,
    /// `wide`, more of them.
    Wide,
    /// `yaml` or `yml`.
    Yaml,
    /// `json`.
    Json,
    /// `custom-columns=A,B`.
    Columns(Vec<String>),
    /// `go-template=…`, and `go-template-file=…` once it is read.
    Template(String),
}

impl Format {
    /// Reads the value of `-o`.
    pub(crate) fn parse(text: &str) -> Result<Format, String> {
        Ok(match text {
            "ps" => Format::Ps,
            "wide" => Format::Wide,
            "yaml" | "yml" => Format::Yaml,
            "json" => Format::Json,
            _ => match text.split_once('=').unwrap_or((text, "")) {
                ("go-template", "") => return Err("need to specify a template".to_owned()),
                ("go-template", template) => Format::Template(template.to_owned()),
                ("go-template-file", "") => return Err("need to specify a template file".to_owned()),
                ("go-template-file", file) => {
                    Format::Template(std::fs::read_to_string(file).map_err(|e| format!("open {file}: {e}"))?)
                }
                ("custom-columns", "") => return Err("need to specify at least one column".to_owned()),
                ("custom-columns", columns) => {
                    Format::Columns(columns.split(',').map(str::to_owned).collect())
                }
                _ => {
                    return Err(format!(
                        "unrecognized output format '{text}'; use ps, wide, yaml, json, custom-columns=A,B, go-template=T or go-template-file=F"
                    ));
                }
            },
        })
    }

    /// Whether printing needs the cluster's AS number.
    pub(crate) fn wants_as_number(&self) -> bool {
        matches!(self, Format::Wide | Format::Columns(_) | Format::Template(_))
    }
}

/// What was found for one name or one list: an object, or a List of a kind.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The kind, of the items for a List.
    pub(crate) kind: &'static KindInfo,
    /// The object.
    pub(crate) value: Value,
}

impl Found {
    /// The objects in it.
    fn objects(&self) -> Vec<&Value> {
        match self.value.get("items").and_then(Value::as_array) {
            Some(items) if kinds::list_kind(self.value["kind"].as_str().unwrap_or_default()).is_some() => {
                items.iter().collect()
            }
            _ => vec![&self.value],
        }
    }
}

/// The text of what was found. `as_number` is the cluster's, for nodes that have none of their own.
pub(crate) fn render(
    format: &Format,
    found: &[Found],
    namespaces: bool,
    as_number: &str,
) -> Result<String, String> {
    match format {
        Format::Yaml => Ok(match found {
            [one] => yaml::to_yaml(&one.value),
            many => yaml::to_yaml(&Value::Array(many.iter().map(|f| f.value.clone()).collect())),
        }),
        Format::Json => {
            let text = match found {
                [one] => to_json_pretty(one.value["kind"].as_str().unwrap_or_default(), &one.value),
                many => to_json_pretty("", &Value::Array(many.iter().map(|f| f.value.clone()).collect())),
            };
            Ok(text)
        }
        Format::Template(template) => template::render(template, found, as_number),
        Format::Ps | Format::Wide | Format::Columns(_) => {
            let mut out = String::new();
            for found in found {
                out += &one_table(format, found, namespaces, as_number)?;
            }
            Ok(out)
        }
    }
}

fn one_table(format: &Format, found: &Found, namespaces: bool, as_number: &str) -> Result<String, String> {
    let kind = found.kind;
    let mut headings: Vec<&str> = match format {
        Format::Columns(columns) => columns.iter().map(String::as_str).collect(),
        Format::Wide => kind.wide.to_vec(),
        _ => kind.ps.to_vec(),
    };
    if namespaces && kind.namespaced() && !matches!(format, Format::Columns(_)) {
        headings.insert(0, "NAMESPACE");
    }
    let mut cells = Vec::new();
    for heading in &headings {
        let unknown =
            || format!("unknown heading {heading}, valid values are: {}", kind.headings().join(", "));
        cells.push(kind.column(heading).ok_or_else(unknown)?);
    }
    let row = |object: &Value| cells.iter().map(|cell| cell(object, as_number)).collect();
    let rows: Vec<Vec<String>> = found.objects().into_iter().map(row).collect();
    Ok(table::columns(&headings, &rows))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn formats() {
        assert_eq!(Format::parse("yml"), Ok(Format::Yaml));
        assert_eq!(Format::parse("custom-columns=A,B"), Ok(Format::Columns(vec!["A".into(), "B".into()])));
        for (text, says) in [
            ("name", "unrecognized output format 'name'"),
            ("custom-columns=", "at least one column"),
            ("custom-columns", "at least one column"),
            ("go-template=", "need to specify a template"),
            ("go-template-file=/absent/t", "open /absent/t"),
        ] {
            assert!(Format::parse(text).unwrap_err().contains(says), "{text}");
        }
    }

    #[test]
    fn tables_of_lists_and_objects() {
        let kind = kinds::by_kind("NetworkSet").unwrap();
        let object = json!({"kind": "NetworkSet", "metadata": {"name": "b", "namespace": "shop"}, "spec": {"nets": ["10.0.0.0/8"]}});
        let list = Found { kind, value: json!({"kind": "NetworkSetList", "items": [object]}) };
        let one = Found { kind, value: object };
        assert_eq!(
            render(&Format::Wide, &[list, one.clone()], true, "").unwrap(),
            "NAMESPACE   NAME   NETS         \nshop        b      10.0.0.0/8   \n\nNAMESPACE   NAME   NETS         \nshop        b      10.0.0.0/8   \n\n"
        );
        let error =
            render(&Format::parse("custom-columns=NAME,COLOUR").unwrap(), &[one], false, "").unwrap_err();
        assert_eq!(error, "unknown heading COLOUR, valid values are: NAME, NETS, NAMESPACE");
    }
}
