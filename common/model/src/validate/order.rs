//! JSON text in the order of Go's struct fields, as real Calico clients write it; unknown fields follow by name.

use serde_json::Value;

use super::schema::{Field, Shape, fields_of};

/// The object as compact JSON: what is stored.
pub fn to_json(kind: &str, object: &Value) -> String {
    let mut out = String::new();
    write(Some(&top(kind)), object, None, &mut out);
    out
}

/// The object as JSON with this indentation, `&`, `<` and `>` escaped as Go does; a List of the kind too.
pub fn to_json_pretty(kind: &str, object: &Value) -> String {
    let mut out = String::new();
    write(Some(&top(kind)), object, Some(0), &mut out);
    out
}

fn top(kind: &str) -> Shape {
    const LIST_METADATA: &[Field] = &[super::schema::text("resourceVersion")];
    const LIST: &[Field] = &[
        super::schema::text("kind"),
        super::schema::text("apiVersion"),
        super::schema::field("metadata", Shape::Record(LIST_METADATA)),
        super::schema::field("items", Shape::Any),
    ];
    match fields_of(kind) {
        Some(fields) => Shape::Record(fields),
        None => Shape::Record(LIST),
    }
}

fn write(shape: Option<&Shape>, value: &Value, depth: Option<usize>, out: &mut String) {
    let inner = depth.map(|d| d + 1);
    match value {
        Value::Object(map) => {
            let fields: &[Field] = match shape {
                Some(Shape::Record(fields)) => fields,
                _ => &[],
            };
            let known = fields.iter().filter_map(|f| map.get(f.name).map(|v| (f.name, Some(&f.shape), v)));
            let other = map
                .iter()
                .filter(|(name, _)| !fields.iter().any(|f| f.name == *name))
                .map(|(name, v)| (name.as_str(), None, v));
            let mut first = true;
            for (name, shape, value) in known.chain(other) {
                separate(&mut first, '{', inner, out);
                quote(name, depth.is_some(), out);
                out.push_str(if depth.is_some() { ": " } else { ":" });
                write(shape, value, inner, out);
            }
            close(first, "{}", '}', depth, out);
        }
        Value::Array(items) => {
            let of = match shape {
                Some(Shape::List(of)) => Some(*of),
                _ => None,
            };
            let mut first = true;
            for item in items {
                separate(&mut first, '[', inner, out);
                // The items of a List and the members of an array of objects bring their own kind.
                let own = item.get("kind").and_then(Value::as_str).filter(|_| of.is_none()).map(top);
                write(of.or(own.as_ref()), item, inner, out);
            }
            close(first, "[]", ']', depth, out);
        }
        Value::String(text) => quote(text, depth.is_some(), out),
        other => out.push_str(&other.to_string()),
    }
}

fn separate(first: &mut bool, open: char, depth: Option<usize>, out: &mut String) {
    out.push(if std::mem::take(first) { open } else { ',' });
    newline(depth, out);
}

fn close(empty: bool, both: &str, close: char, depth: Option<usize>, out: &mut String) {
    if empty {
        out.push_str(both);
    } else {
        newline(depth, out);
        out.push(close);
    }
}

fn newline(depth: Option<usize>, out: &mut String) {
    if let Some(depth) = depth {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    }
}

fn quote(text: &str, escape: bool, out: &mut String) {
    let quoted = Value::String(text.to_owned()).to_string();
    if escape {
        out.push_str(&quoted.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e"));
    } else {
        out.push_str(&quoted);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_stand_in_go_order() {
        let pool = json!({"spec": {"nodeSelector": "a && b", "cidr": "10.0.0.0/8", "zzz": 1, "blockSize": 26}, "metadata": {"uid": "u", "name": "p"},
            "apiVersion": "projectcalico.org/v3", "kind": "IPPool"});
        assert_eq!(
            to_json("IPPool", &pool),
            r#"{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"p","uid":"u"},"spec":{"cidr":"10.0.0.0/8","blockSize":26,"nodeSelector":"a && b","zzz":1}}"#
        );
        let list = json!({"kind": "IPPoolList", "items": [pool], "metadata": {}});
        let text = to_json_pretty("IPPoolList", &list);
        assert!(text.starts_with("{\n  \"kind\": \"IPPoolList\",\n  \"metadata\": {},\n  \"items\": [\n    {\n      \"kind\": \"IPPool\","), "{text}");
        assert!(text.contains("\"nodeSelector\": \"a \\u0026\\u0026 b\""), "{text}");
    }
}
