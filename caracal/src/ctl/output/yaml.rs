//! YAML as Calico's tools print it: keys in order of the alphabet, lists not indented, quotes only where a reader of
//! YAML 1.1 would otherwise take a text for something else.

use serde_json::Value;

use crate::ctl::input::yaml::documents;

/// The value as one YAML document.
pub(crate) fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(value, 0, &mut out),
        Value::Array(items) if !items.is_empty() => sequence(items, 0, &mut out),
        other => {
            scalar(other, 0, &mut out);
            out.push('\n');
        }
    }
    out
}

fn indent(depth: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', depth));
}

fn mapping(value: &Value, depth: usize, out: &mut String) {
    let mut entries: Vec<_> = value.as_object().into_iter().flatten().collect();
    entries.sort_by(|a, b| a.0.cmp(b.0));
    for (i, (key, value)) in entries.into_iter().enumerate() {
        if i > 0 {
            indent(depth, out);
        }
        out.push_str(&text(key));
        out.push(':');
        entry(value, depth, out);
    }
}

fn entry(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            indent(depth + 2, out);
            mapping(value, depth + 2, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            indent(depth, out);
            sequence(items, depth, out);
        }
        other => {
            out.push(' ');
            scalar(other, depth + 2, out);
            out.push('\n');
        }
    }
}

fn sequence(items: &[Value], depth: usize, out: &mut String) {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            indent(depth, out);
        }
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => mapping(item, depth + 2, out),
            Value::Array(items) if !items.is_empty() => sequence(items, depth + 2, out),
            other => {
                scalar(other, depth + 2, out);
                out.push('\n');
            }
        }
    }
}

fn scalar(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        Value::String(s) if s.contains('\n') && literal(s) => block(s, depth, out),
        Value::String(s) => out.push_str(&text(s)),
        Value::Number(n) if n.is_f64() => {
            out.push_str(&caracal_model::validate::go_float(n.as_f64().unwrap_or_default()));
        }
        other => out.push_str(&other.to_string()),
    }
}

/// Whether a text of several lines can stand as a `|` block.
fn literal(s: &str) -> bool {
    !s.starts_with([' ', '\n', '\t'])
        && s.chars().all(|c| c == '\n' || printable(c))
        && !s.lines().any(|l| l.ends_with(' '))
}

fn block(s: &str, depth: usize, out: &mut String) {
    out.push('|');
    if !s.ends_with('\n') {
        out.push('-');
    } else if s.ends_with("\n\n") {
        out.push('+');
    }
    for line in s.strip_suffix('\n').unwrap_or(s).split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indent(depth, out);
            out.push_str(line);
        }
    }
}

fn printable(c: char) -> bool {
    !c.is_control() && c != '\u{feff}' && c != '\u{2028}' && c != '\u{2029}' && c != '\u{85}'
}

fn text(s: &str) -> String {
    if s.chars().all(printable) {
        if means_something_else(s) {
            return double(s);
        }
        if plain(s) {
            return s.to_owned();
        }
        return format!("'{}'", s.replace('\'', "''"));
    }
    double(s)
}

fn double(s: &str) -> String {
    // JSON's escapes are YAML's too.
    Value::String(s.to_owned()).to_string()
}

/// Whether a plain scalar of this text would be read as null, a truth value, a number or a time.
fn means_something_else(s: &str) -> bool {
    if s.is_empty() || s == "<<" {
        return true;
    }
    let time = s.len() >= 8
        && s.as_bytes()[..4].iter().all(u8::is_ascii_digit)
        && s.as_bytes()[4] == b'-'
        && is_time(s);
    let sexagesimal = s.contains(':')
        && s.split(':').all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
    time || sexagesimal
        || (plain(s) && documents(s).is_ok_and(|d| !d.first().is_some_and(|d| d.value.is_string())))
}

fn is_time(s: &str) -> bool {
    s.parse::<jiff::Timestamp>().is_ok() || s.parse::<jiff::civil::Date>().is_ok()
}

/// Whether a text can stand without quotes in a block.
fn plain(s: &str) -> bool {
    let first = s.chars().next().unwrap_or(' ');
    let second_blank = s.chars().nth(1).is_none_or(|c| c == ' ');
    let indicator = ",[]{}#&*!|>'\"%@`".contains(first) || ("-?:".contains(first) && second_blank);
    let marker = s.starts_with("---") || s.starts_with("...");
    let inside = s.contains(": ") || s.contains(" #");
    !(s.starts_with(' ') || s.ends_with([' ', ':']) || indicator || marker || inside)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn looks_as_calicoctl_prints_it() {
        let value = json!({
            "kind": "Node",
            "spec": {},
            "items": [{"b": 1, "a": {"x": ["l", "m"]}}, []],
            "metadata": {"name": "n", "creationTimestamp": "2026-01-02T03:04:05Z", "resourceVersion": "7", "labels": {"x": "y", "e": "", "role": "r == 'a'"}},
            "interface": "*",
            "order": 123.5,
            "text": "two\nlines\n",
            "ip": "fd00::2",
            "end": "fd00::",
        });
        let want = "end: 'fd00::'\ninterface: '*'\nip: fd00::2\nitems:\n- a:\n    x:\n    - l\n    - m\n  b: 1\n- []\nkind: Node\nmetadata:\n  creationTimestamp: \"2026-01-02T03:04:05Z\"\n  labels:\n    e: \"\"\n    role: r == 'a'\n    x: \"y\"\n  name: \"n\"\n  resourceVersion: \"7\"\norder: 123.5\nspec: {}\ntext: |\n  two\n  lines\n";
        assert_eq!(to_yaml(&value), want);
    }

    #[test]
    fn what_is_printed_reads_back() {
        for s in [
            "",
            " a",
            "a ",
            "a: b",
            "a #b",
            "- a",
            "-",
            "-a",
            "?",
            "yes",
            "012",
            "1.50",
            "0x1f",
            "~",
            "null",
            "1:2",
            "12:30:45",
            "a\nb",
            "a\nb\n",
            "a\n\n",
            "\ta",
            "x\ty",
            "'",
            "\"",
            "{a}",
            "[a",
            "@a",
            "`",
            "%a",
            "|",
            ">",
            "é",
            "\u{1}",
            "---",
            "... a",
            "<<",
            "2026-01-02",
            " lead\nline",
            "trail \nline",
            "#",
            "&a",
            "*a",
            "!a",
            "10.0.0.0/8",
        ] {
            let value = json!({"k": s, "l": [s], s: 1});
            let printed = to_yaml(&value);
            let read = documents(&printed).unwrap_or_else(|e| panic!("{s:?}: {e}\n{printed}"));
            assert_eq!(read[0].value, value, "{printed}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[-+.:0-9a-fxoeTZ~ ]{0,12}".prop_map(Value::from),
            "[ \\n\\t#|>'\"&*!%@`{}\\[\\],?:a-]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map("[a-z:# -]{0,6}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_is_printed_reads_back(value in any_json()) {
            let printed = to_yaml(&json!({"v": value}));
            let read = documents(&printed).map_err(|e| TestCaseError::fail(format!("{e}\n{printed}")))?;
            prop_assert_eq!(&read[0].value, &json!({"v": value}), "{}", printed);
        }

        #[test]
        fn no_text_brings_the_reader_down(text in "(\\PC|[\\n\\t{}\\[\\]:,&*!|>'\"#%-]){0,60}") {
            let _ = documents(&text);
        }
    }
}
