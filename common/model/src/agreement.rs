//! The typed structs and the tables of `validate::schema` say the same: every field has a name here, and is kept as long as there.

use serde_json::{Map, Value, json};

use crate::validate::schema::{Field, Keep, Shape, fields_of};
use crate::{Kind, Resource};

/// Parts of an object that have no typed struct.
const UNTYPED: [&str; 2] = ["metadata", "status"];

fn sample(shape: &Shape) -> Value {
    match shape {
        Shape::Text => "x".into(),
        Shape::Bool => true.into(),
        Shape::Int(..) | Shape::AsNumber | Shape::Port | Shape::IntOrText => 7.into(),
        Shape::Float => json!(1.5),
        Shape::Protocol => "TCP".into(),
        Shape::Duration => "1m30s".into(),
        Shape::Time => "2026-01-02T03:04:05Z".into(),
        Shape::TextMap => json!({"a": "b"}),
        Shape::List(of) => json!([sample(of)]),
        Shape::Record(fields) => {
            fields.iter().map(|f| (f.name.to_owned(), sample(&f.shape))).collect::<Map<_, _>>().into()
        }
        Shape::Any => json!({"any": [1]}),
    }
}

/// A field as empty as it may be and still be kept, none when nothing of it is. Texts are apart: an empty one is `None` here.
fn emptiest(field: &Field) -> Option<Value> {
    let kept = field.keep != Keep::Filled;
    let empty = match &field.shape {
        Shape::Bool => json!(false),
        Shape::Int(..) => json!(0),
        Shape::Float => json!(0),
        Shape::Duration => json!("0s"),
        Shape::List(_) if field.keep == Keep::Given => json!([]),
        Shape::Record(fields) => {
            let inner: Map<_, _> =
                fields.iter().filter_map(|f| Some((f.name.to_owned(), emptiest(f)?))).collect();
            return (kept || !inner.is_empty()).then(|| inner.into());
        }
        Shape::List(of @ Shape::Record(_)) => {
            let item = Field { shape: **of, keep: Keep::Always, ..*field };
            return Some(json!([emptiest(&item)?]));
        }
        _ => return None,
    };
    kept.then_some(empty)
}

fn typed(fields: &[Field]) -> impl Iterator<Item = &Field> {
    fields.iter().filter(|f| !UNTYPED.contains(&f.name))
}

#[test]
fn every_field_has_a_name() {
    for kind in Kind::ALL {
        let Some(fields) = fields_of(kind.kind_name()) else { panic!("{kind} has no table") };
        let mut object: Map<_, _> = typed(fields).map(|f| (f.name.to_owned(), sample(&f.shape))).collect();
        object.insert("kind".into(), kind.kind_name().into());
        let resource = Resource::from_value(*kind, object.clone().into()).unwrap();
        let shown = format!("{resource:?}");
        let unnamed: Vec<_> =
            shown.match_indices("other: {\"").map(|(at, _)| &shown[at..shown.len().min(at + 200)]).collect();
        assert_eq!(unnamed, [""; 0], "{kind}");
        object.insert("metadata".into(), json!({}));
        let mut lost = vec![];
        compare("", &object.into(), &resource.to_value(), &mut lost);
        assert_eq!(lost, [""; 0], "{kind}");
    }
}

fn compare(path: &str, given: &Value, kept: &Value, lost: &mut Vec<String>) {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => {
            for (name, value) in given {
                compare(&format!("{path}.{name}"), value, kept.get(name).unwrap_or(&Value::Null), lost);
            }
            lost.extend(
                kept.keys()
                    .filter(|name| !given.contains_key(*name))
                    .map(|name| format!("{path}.{name} appeared")),
            );
        }
        (Value::Array(given), Value::Array(kept)) if given.len() == kept.len() => {
            given.iter().zip(kept).for_each(|(given, kept)| compare(&format!("{path}[]"), given, kept, lost));
        }
        _ if given == kept => {}
        _ => lost.push(format!("{path}: {given} became {kept}")),
    }
}

#[test]
fn what_calico_keeps_though_empty_is_kept() {
    for kind in Kind::ALL {
        let fields = fields_of(kind.kind_name()).unwrap();
        let mut object: Map<_, _> =
            typed(fields).filter_map(|f| Some((f.name.to_owned(), emptiest(f)?))).collect();
        object.insert("kind".into(), kind.kind_name().into());
        object.insert("apiVersion".into(), crate::API_VERSION.into());
        object.insert("metadata".into(), json!({}));
        let resource = Resource::from_value(*kind, object.clone().into()).unwrap();
        let mut lost = vec![];
        compare("", &object.into(), &resource.to_value(), &mut lost);
        assert_eq!(lost, [""; 0], "{kind}");
    }
}
