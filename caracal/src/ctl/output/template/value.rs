//! Values in a template: scalars, and JSON seen through the Go type it stands for.

use caracal_model::validate::go_float;
use caracal_model::validate::schema::{Field, Keep, Shape, fields_of};
use serde_json::Value;

use crate::ctl::output::{Found, go_value};

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Val {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// A pointer that is not nil: true whatever it points to.
    Pointer(Box<Val>),
    /// A record, list or map.
    Data(Data),
}

/// JSON with the type behind it.
#[derive(Debug, Clone)]
pub(super) struct Data {
    pub(super) json: Value,
    pub(super) kind: DataKind,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum DataKind {
    /// What was found: a list of objects and Lists.
    Found,
    /// An object: fields of its metadata are its own too.
    Object(&'static [Field]),
    /// A List of a kind.
    List,
    /// A type of the tables.
    Shape(&'static Shape),
    /// JSON of no known type.
    Raw,
}

/// The data of a template.
pub(super) fn of_found(found: &[Found]) -> Val {
    Val::Data(Data {
        json: Value::Array(found.iter().map(|f| f.value.clone()).collect()),
        kind: DataKind::Found,
    })
}

fn of_object(json: &Value) -> Val {
    let kind = json["kind"].as_str().unwrap_or_default();
    let kind = match (fields_of(kind), kind.strip_suffix("List").and_then(crate::ctl::kinds::by_kind)) {
        (Some(fields), _) => DataKind::Object(fields),
        (None, Some(_)) => DataKind::List,
        _ => DataKind::Raw,
    };
    Val::Data(Data { json: json.clone(), kind })
}

fn of_raw(json: &Value) -> Val {
    match json {
        Value::Null => Val::Nil,
        Value::Bool(b) => Val::Bool(*b),
        Value::Number(n) => n.as_i64().map_or_else(|| Val::Float(n.as_f64().unwrap_or_default()), Val::Int),
        Value::String(s) => Val::Text(s.clone()),
        other => Val::Data(Data { json: other.clone(), kind: DataKind::Raw }),
    }
}

fn of_shape(shape: &'static Shape, json: Option<&Value>) -> Val {
    let json = json.filter(|v| !v.is_null());
    match (shape, json) {
        (Shape::Text | Shape::Duration, json) => Val::Text(json.map_or_else(String::new, go_value::print)),
        (Shape::Bool, json) => Val::Bool(json.and_then(Value::as_bool).unwrap_or_default()),
        (Shape::Int(..) | Shape::AsNumber, json) => {
            Val::Int(json.and_then(Value::as_i64).unwrap_or_default())
        }
        (Shape::Float, json) => Val::Float(json.and_then(Value::as_f64).unwrap_or_default()),
        (Shape::Port | Shape::Protocol | Shape::IntOrText | Shape::Time | Shape::Any, json) => {
            json.map_or(Val::Nil, of_raw)
        }
        (shape, json) => {
            let empty = if matches!(shape, Shape::List(_)) {
                Value::Array(Vec::new())
            } else {
                Value::Object(serde_json::Map::new())
            };
            Val::Data(Data { json: json.cloned().unwrap_or(empty), kind: DataKind::Shape(shape) })
        }
    }
}

fn of_field(field: &'static Field, json: Option<&Value>) -> Val {
    match (field.keep, json.filter(|v| !v.is_null())) {
        (Keep::Given, None) => Val::Nil,
        (Keep::Given, json) => Val::Pointer(Box::new(of_shape(&field.shape, json))),
        (_, json) => of_shape(&field.shape, json),
    }
}

/// Go names that are not their JSON name in other letters.
const RENAMED: [(&str, &str); 3] = [
    ("ObjectMeta", "metadata"),
    ("ExternalNodesCIDRList", "externalNodesList"),
    ("Migration", "policyMigration"),
];

impl Val {
    /// The value that a pointer points to.
    pub(super) fn deref(&self) -> &Val {
        match self {
            Val::Pointer(inner) => inner.deref(),
            other => other,
        }
    }

    /// `.Name` of it.
    pub(super) fn field(&self, name: &str) -> Result<Val, String> {
        let unknown = || format!("can't evaluate field {name}");
        let Val::Data(data) = self.deref() else {
            return Err(match self.deref() {
                Val::Nil => format!("nil pointer evaluating field {name}"),
                _ => format!("can't evaluate field {name} in a scalar"),
            });
        };
        let json_name = RENAMED.iter().find(|(go, _)| *go == name).map_or(name, |(_, json)| json);
        let in_fields = |fields: &'static [Field], json: &Value| {
            let found = fields.iter().find(|f| f.name.eq_ignore_ascii_case(json_name))?;
            Some(of_field(found, json.get(found.name)))
        };
        match data.kind {
            DataKind::Object(fields) => in_fields(fields, &data.json)
                .or_else(|| {
                    let metadata = caracal_model::validate::schema::METADATA;
                    in_fields(metadata, data.json.get("metadata").unwrap_or(&Value::Null))
                })
                .ok_or_else(unknown),
            DataKind::List => match json_name.to_ascii_lowercase().as_str() {
                "items" => Ok(Val::Data(Data { json: data.json["items"].clone(), kind: DataKind::Found })),
                "kind" | "apiversion" => {
                    let key = if json_name.eq_ignore_ascii_case("kind") { "kind" } else { "apiVersion" };
                    Ok(of_raw(&data.json[key]))
                }
                "listmeta" | "metadata" => Ok(of_raw(&data.json["metadata"])),
                "resourceversion" => Ok(of_raw(&data.json["metadata"]["resourceVersion"])),
                _ => Err(unknown()),
            },
            DataKind::Shape(Shape::Record(fields)) => in_fields(fields, &data.json).ok_or_else(unknown),
            DataKind::Shape(Shape::TextMap) => Ok(of_raw(data.json.get(name).unwrap_or(&Value::Null))),
            DataKind::Raw if data.json.is_object() => {
                let map = data.json.as_object().into_iter().flatten();
                Ok(map
                    .into_iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map_or(Val::Nil, |(_, v)| of_raw(v)))
            }
            _ => Err(unknown()),
        }
    }

    fn item(data: &Data, json: &Value) -> Val {
        match data.kind {
            DataKind::Found => of_object(json),
            DataKind::Shape(Shape::List(of)) => of_shape(of, Some(json)),
            _ => of_raw(json),
        }
    }

    /// Keys and values, in order.
    pub(super) fn entries(&self) -> Result<Vec<(Val, Val)>, String> {
        match self.deref() {
            Val::Nil => Ok(Vec::new()),
            Val::Int(n) => Ok((0..*n).map(|i| (Val::Int(i), Val::Int(i))).collect()),
            Val::Data(data) => match &data.json {
                Value::Array(items) => {
                    Ok((0..).zip(items).map(|(i, item)| (Val::Int(i), Val::item(data, item))).collect())
                }
                Value::Object(map)
                    if !matches!(
                        data.kind,
                        DataKind::Object(_) | DataKind::List | DataKind::Shape(Shape::Record(_))
                    ) =>
                {
                    let mut entries: Vec<_> = map.iter().collect();
                    entries.sort_by(|a, b| a.0.cmp(b.0));
                    Ok(entries.into_iter().map(|(k, v)| (Val::Text(k.clone()), of_raw(v))).collect())
                }
                _ => Err("range can't iterate over a record".to_owned()),
            },
            other => Err(format!("range can't iterate over {}", other.print())),
        }
    }

    /// The item at an index, or the value of a key: empty when a map does not have it.
    pub(super) fn index(&self, key: &Val) -> Result<Val, String> {
        match (self.deref(), key.deref()) {
            (Val::Data(data), Val::Int(i)) if data.json.is_array() => {
                let item = usize::try_from(*i).ok().and_then(|i| data.json.get(i));
                item.map(|item| Val::item(data, item))
                    .ok_or_else(|| format!("error calling index: index out of range: {i}"))
            }
            (Val::Data(data), Val::Text(key)) if data.json.is_object() => {
                let absent = if matches!(data.kind, DataKind::Shape(Shape::TextMap)) {
                    Val::Text(String::new())
                } else {
                    Val::Nil
                };
                Ok(data.json.get(key).map_or(absent, of_raw))
            }
            (Val::Text(text), Val::Int(i)) => usize::try_from(*i)
                .ok()
                .and_then(|i| text.as_bytes().get(i))
                .map(|b| Val::Int(i64::from(*b)))
                .ok_or_else(|| format!("error calling index: index out of range: {i}")),
            (value, key) => {
                Err(format!("error calling index: can't index {} by {}", value.print(), key.print()))
            }
        }
    }

    /// Whether `if` takes it for true.
    pub(super) fn truth(&self) -> bool {
        match self {
            Val::Nil => false,
            Val::Bool(b) => *b,
            Val::Int(n) => *n != 0,
            Val::Float(f) => *f != 0.0,
            Val::Text(s) => !s.is_empty(),
            Val::Pointer(_) => true,
            Val::Data(data) => match (&data.kind, &data.json) {
                (DataKind::Object(_) | DataKind::List | DataKind::Shape(Shape::Record(_)), _) => true,
                (_, Value::Array(items)) => !items.is_empty(),
                (_, Value::Object(map)) => !map.is_empty(),
                _ => true,
            },
        }
    }

    /// `len` of it.
    pub(super) fn len(&self) -> Result<i64, String> {
        let count = match self.deref() {
            Val::Text(s) => s.len(),
            Val::Data(Data { json: Value::Array(items), .. }) => items.len(),
            Val::Data(Data { json: Value::Object(map), kind })
                if !matches!(kind, DataKind::Object(_) | DataKind::List) =>
            {
                map.len()
            }
            other => return Err(format!("error calling len: {} has no length", other.print())),
        };
        Ok(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// The JSON of it, for join.
    pub(super) fn json(&self) -> Value {
        match self.deref() {
            Val::Nil | Val::Pointer(_) => Value::Null,
            Val::Bool(b) => (*b).into(),
            Val::Int(n) => (*n).into(),
            Val::Float(f) => (*f).into(),
            Val::Text(s) => s.clone().into(),
            Val::Data(data) => data.json.clone(),
        }
    }

    /// As `%v` prints it: records as `{a b}` in the order of their fields.
    pub(super) fn print(&self) -> String {
        match self {
            Val::Nil => "<nil>".to_owned(),
            Val::Bool(b) => b.to_string(),
            Val::Int(n) => n.to_string(),
            Val::Float(f) => go_float(*f),
            Val::Text(s) => s.clone(),
            Val::Pointer(inner) => inner.print(),
            Val::Data(data) => match (data.kind, &data.json) {
                (DataKind::Object(fields) | DataKind::Shape(&Shape::Record(fields)), json) => {
                    let parts: Vec<String> =
                        fields.iter().map(|f| of_field(f, json.get(f.name)).print()).collect();
                    format!("{{{}}}", parts.join(" "))
                }
                (_, Value::Array(items)) => {
                    let parts: Vec<String> = items.iter().map(|item| Val::item(data, item).print()).collect();
                    format!("[{}]", parts.join(" "))
                }
                (_, json) => go_value::print(json),
            },
        }
    }
}
