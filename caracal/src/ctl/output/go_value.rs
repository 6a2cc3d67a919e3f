//! Values as Go prints them.

use caracal_model::validate::go_float;
use serde_json::Value;

/// `%v`: `[a b]`, `map[k:v]`, `<nil>`, numbers without needless digits.
pub(crate) fn print(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) if n.is_f64() => go_float(n.as_f64().unwrap_or_default()),
        Value::Number(n) => n.to_string(),
        Value::String(s) => s.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(print).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut entries: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", print(v))).collect();
            entries.sort();
            format!("map[{}]", entries.join(" "))
        }
    }
}

/// The items of a list, or `key=value` of a map, joined; cut to `limit` bytes with `...` at the end unless it is 0.
pub(crate) fn join(items: &Value, separator: &str, limit: usize) -> String {
    let parts: Vec<String> = match items {
        Value::Null => return String::new(),
        Value::Array(items) => items.iter().map(print).collect(),
        Value::Object(map) => {
            let mut parts: Vec<String> = map.iter().map(|(k, v)| format!("{k}={}", print(v))).collect();
            parts.sort();
            parts
        }
        other => vec![print(other)],
    };
    let mut text = parts.join(separator);
    if limit > 0 && text.len() > limit {
        let end = (0..=limit.saturating_sub(3)).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// A Kubernetes label selector as its Go type prints itself.
pub(crate) fn label_selector(selector: &Value) -> String {
    let labels = selector.get("matchLabels").and_then(Value::as_object);
    let mut labels: Vec<String> =
        labels.into_iter().flatten().map(|(k, v)| format!("{k}: {},", print(v))).collect();
    labels.sort();
    let expressions =
        selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten().map(|e| {
            let part = |name: &str| e.get(name).map_or_else(String::new, print);
            let values = e.get("values").map_or_else(|| "[]".to_owned(), print);
            format!(
                "LabelSelectorRequirement{{Key:{},Operator:{},Values:{values},}},",
                part("key"),
                part("operator")
            )
        });
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{}}},MatchExpressions:[]LabelSelectorRequirement{{{}}},}}",
        labels.concat(),
        expressions.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn go_style() {
        assert_eq!(print(&json!({"b": [1, 2.5, null], "a": "x"})), "map[a:x b:[1 2.5 <nil>]]");
        assert_eq!(join(&json!(["a", "b"]), ",", 0), "a,b");
        assert_eq!(join(&json!({"b": 1, "a": 2}), ",", 0), "a=2,b=1");
        assert_eq!(join(&json!(["203.0.113.0/24"]), ",", 10), "203.0.1...");
        assert_eq!(join(&Value::Null, ",", 0), "");
        assert_eq!(
            label_selector(
                &json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "env", "operator": "In", "values": ["a", "b"]}]})
            ),
            "&LabelSelector{MatchLabels:map[string]string{app: web,},MatchExpressions:[]LabelSelectorRequirement{LabelSelectorRequirement{Key:env,Operator:In,Values:[a b],},},}"
        );
    }
}
