//! YAML 1.1 as Calico's tools read it, to JSON: `yes` and `on` are true, `012` is ten, a key `n` is the text "false".
//!
//! Built on the parser's events, because only they tell a quoted scalar from a plain one. JSON is read the same way, being
//! YAML. Anchors, merges (`<<`) and any number of documents work; how much a document may unfold to is limited.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Map, Number, Value};

/// Values that a file may unfold to, aliases counted each time.
const MAX_NODES: usize = 2_000_000;
/// Levels of nesting.
const MAX_DEPTH: usize = 100;

/// One document that holds something.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Document {
    /// Its content.
    pub(crate) value: Value,
    /// The line on which it begins, from 1.
    pub(crate) line: usize,
}

/// Why a text is no YAML.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub(crate) struct YamlError {
    line: usize,
    reason: String,
}

/// The documents of a text; those that hold nothing but comments are left out.
pub(crate) fn documents(text: &str) -> Result<Vec<Document>, YamlError> {
    let mut reader = Reader::default();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for event in Parser::new_from_str(text) {
        let (event, span) =
            event.map_err(|e| YamlError { line: e.marker().line(), reason: e.info().to_owned() })?;
        reader.handle(event, span)?;
    }
    Ok(reader.documents)
}

/// A list or map that is still open.
enum Open {
    List { items: Vec<Value>, anchor: usize },
    Map { map: Map<String, Value>, key: Option<String>, merges: Vec<Value>, merging: bool, anchor: usize },
}

#[derive(Default)]
struct Reader {
    documents: Vec<Document>,
    stack: Vec<Open>,
    anchors: HashMap<usize, Value>,
    nodes: usize,
    line: usize,
    nothing: bool,
}

impl Reader {
    fn handle(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlError> {
        let line = span.start.line();
        let fail = |reason: &str| YamlError { line, reason: reason.to_owned() };
        match event {
            Event::DocumentStart(_) => {
                self.anchors.clear();
                self.line = line;
                self.nothing = true;
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.count(1, line)?;
                let tag =
                    tag.as_ref().filter(|t| t.is_yaml_core_schema()).map(|t| t.suffix.as_str().to_owned());
                if self.stack.is_empty() {
                    self.line = line;
                    self.nothing = text.is_empty() && style == ScalarStyle::Plain;
                }
                if let Some(Open::Map { key: key @ None, merging, .. }) = self.stack.last_mut() {
                    if &*text == "<<" && style == ScalarStyle::Plain {
                        *merging = true;
                        *key = Some(String::new());
                        return Ok(());
                    }
                    let value = scalar(&text, style, tag.as_deref()).map_err(|r| fail(&r))?;
                    if anchor > 0 {
                        self.anchors.insert(anchor, value.clone());
                    }
                    *key = Some(
                        key_text(&value).ok_or_else(|| fail("a key must be a scalar that is not null"))?,
                    );
                    return Ok(());
                }
                let value = scalar(&text, style, tag.as_deref()).map_err(|r| fail(&r))?;
                self.finish(value, anchor, line)?;
            }
            Event::Alias(id) => {
                let value =
                    self.anchors.get(&id).cloned().ok_or_else(|| fail("an alias inside its own anchor"))?;
                self.count(size(&value), line)?;
                if let Some(Open::Map { key: key @ None, .. }) = self.stack.last_mut() {
                    *key = Some(
                        key_text(&value).ok_or_else(|| fail("a key must be a scalar that is not null"))?,
                    );
                    return Ok(());
                }
                self.finish(value, 0, line)?;
            }
            Event::SequenceStart(anchor, _) => {
                self.open(Open::List { items: Vec::new(), anchor }, line)?;
            }
            Event::MappingStart(anchor, _) => {
                self.open(
                    Open::Map { map: Map::new(), key: None, merges: Vec::new(), merging: false, anchor },
                    line,
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(Open::List { items, anchor }) => self.finish(Value::Array(items), anchor, line)?,
                Some(Open::Map { map, merges, anchor, .. }) => {
                    let merged =
                        merge(map, merges).ok_or_else(|| fail("<< wants a map or a list of maps"))?;
                    self.finish(Value::Object(merged), anchor, line)?;
                }
                None => {}
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, line: usize) -> Result<(), YamlError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            return Err(YamlError {
                line,
                reason: format!("the file unfolds to more than {MAX_NODES} values"),
            });
        }
        Ok(())
    }

    fn open(&mut self, open: Open, line: usize) -> Result<(), YamlError> {
        self.count(1, line)?;
        if let Some(Open::Map { key: None, .. }) = self.stack.last() {
            return Err(YamlError { line, reason: "a key must be a scalar".to_owned() });
        }
        if self.stack.is_empty() {
            self.line = line;
            self.nothing = false;
        }
        self.stack.push(open);
        if self.stack.len() > MAX_DEPTH {
            return Err(YamlError { line, reason: format!("nested deeper than {MAX_DEPTH} levels") });
        }
        Ok(())
    }

    /// A value is complete: it goes into what is open around it, or is the document.
    fn finish(&mut self, value: Value, anchor: usize, line: usize) -> Result<(), YamlError> {
        if anchor > 0 {
            self.anchors.insert(anchor, value.clone());
        }
        match self.stack.last_mut() {
            None => {
                if !self.nothing {
                    self.documents.push(Document { value, line: self.line });
                }
            }
            Some(Open::List { items, .. }) => items.push(value),
            Some(Open::Map { map, key, merges, merging, .. }) => {
                let name = key.take().unwrap_or_default();
                if std::mem::take(merging) {
                    merges.push(value);
                } else if map.insert(name.clone(), value).is_some() {
                    return Err(YamlError { line, reason: format!("key {name:?} already set in map") });
                }
            }
        }
        Ok(())
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

/// Keys of the map win over merged ones, earlier merged maps over later ones.
fn merge(mut map: Map<String, Value>, merges: Vec<Value>) -> Option<Map<String, Value>> {
    for merged in merges {
        let maps = match merged {
            Value::Array(maps) => maps,
            one => vec![one],
        };
        for other in maps {
            let Value::Object(other) = other else { return None };
            for (key, value) in other {
                map.entry(key).or_insert(value);
            }
        }
    }
    Some(map)
}

fn key_text(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Bool(b) => Some(b.to_string()),
        Value::Number(n) if n.is_f64() => n.as_f64().map(caracal_model::validate::go_float),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&str>) -> Result<Value, String> {
    let wrong = || format!("{text:?} is not of the type that its tag says");
    match tag {
        Some("str" | "binary") => return Ok(Value::String(text.to_owned())),
        Some("null") => return Ok(Value::Null),
        Some("bool") => return word(text).filter(Value::is_boolean).ok_or_else(wrong),
        Some("int" | "float") => return number(text).ok_or_else(wrong),
        _ => {}
    }
    if style != ScalarStyle::Plain {
        return Ok(Value::String(text.to_owned()));
    }
    Ok(word(text).or_else(|| number(text)).unwrap_or_else(|| Value::String(text.to_owned())))
}

/// The words of YAML 1.1 for null, true and false.
fn word(text: &str) -> Option<Value> {
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "true" | "True" | "TRUE" => {
            Value::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "false" | "False" | "FALSE" => {
            Value::Bool(false)
        }
        _ => return None,
    })
}

/// Integers in bases 2, 8, 10 and 16, with `_` between digits, and decimal fractions.
fn number(text: &str) -> Option<Value> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
        return None;
    }
    let plain = text.replace('_', "");
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] if lower.bytes().all(|b| (b'0'..=b'7').contains(&b)) => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    let leading_zero = base == 10 && digits.len() > 1 && digits.starts_with('0');
    if !digits.is_empty() && digits.chars().all(|c| c.is_digit(base)) && !leading_zero {
        let signed = format!("{sign}{digits}");
        if let Ok(n) = i64::from_str_radix(&signed, base) {
            return Some(n.into());
        }
        if let (true, Ok(n)) = (sign.is_empty(), u64::from_str_radix(digits, base)) {
            return Some(n.into());
        }
    }
    if base == 10 && is_decimal(&lower) {
        return plain.parse().ok().and_then(Number::from_f64).map(Value::Number);
    }
    None
}

/// `1.5`, `.5`, `5.`, `1e3`, `1.5E-3`, without sign.
fn is_decimal(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (text, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|e| !e.is_empty() && digits(e))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(text: &str) -> Value {
        let documents = documents(text).unwrap();
        assert_eq!(documents.len(), 1, "{text}");
        documents.into_iter().next().unwrap().value
    }

    #[test]
    fn plain_scalars_are_of_yaml_1_1() {
        for (text, value) in [
            ("yes", json!(true)),
            ("'yes'", json!("yes")),
            ("On", json!(true)),
            ("n", json!(false)),
            ("nope", json!("nope")),
            ("~", json!(null)),
            ("012", json!(10)),
            ("0x1f", json!(31)),
            ("0b101", json!(5)),
            ("0o17", json!(15)),
            ("08", json!(8.0)),
            ("1_000", json!(1000)),
            ("-5", json!(-5)),
            ("+5", json!(5)),
            ("1.50", json!(1.5)),
            (".5", json!(0.5)),
            ("1e3", json!(1000.0)),
            ("18446744073709551615", json!(18_446_744_073_709_551_615_u64)),
            ("1024:65535", json!("1024:65535")),
            ("10.0.0.0/8", json!("10.0.0.0/8")),
            ("2026-01-02T03:04:05Z", json!("2026-01-02T03:04:05Z")),
            ("1.2.3", json!("1.2.3")),
            ("0x", json!("0x")),
            ("-", json!("-")),
            ("!!str 12", json!("12")),
            ("!!int '12'", json!(12)),
        ] {
            let text = if text == "-" { "'-'" } else { text };
            assert_eq!(one(&format!("a: {text}"))["a"], value, "{text}");
        }
    }

    #[test]
    fn keys_are_texts() {
        assert_eq!(one("{n: 1, 012: 2, 1.50: 3, 'on': 4}"), json!({"false": 1, "10": 2, "1.5": 3, "on": 4}));
        assert!(documents("? [a]\n: b").is_err());
        assert!(documents("~: b").is_err());
    }

    #[test]
    fn documents_are_split_and_empty_ones_dropped() {
        let text = "---\n# first\na: 1\n---\n# nothing\n---\nb: 2\n...\n---\n";
        let found = documents(text).unwrap();
        assert_eq!(
            found.iter().map(|d| (&d.value, d.line)).collect::<Vec<_>>(),
            [(&json!({"a": 1}), 3), (&json!({"b": 2}), 7)]
        );
        assert_eq!(documents("").unwrap(), []);
        assert_eq!(documents("# only\n").unwrap(), []);
        assert_eq!(one("{\"a\": [1, {\"b\": null}]}"), json!({"a": [1, {"b": null}]}));
        assert_eq!(one("a: 1\r\nb: x\r\n"), json!({"a": 1, "b": "x"}));
    }

    #[test]
    fn anchors_and_merges() {
        let text = "base: &b {x: 1, z: 2}\nmore:\n  <<: *b\n  z: 3\nlist: [*b]\nboth:\n  <<: [{x: 5}, *b]\n";
        let value = one(text);
        assert_eq!(value["more"], json!({"x": 1, "z": 3}));
        assert_eq!(value["list"], json!([{"x": 1, "z": 2}]));
        assert_eq!(value["both"], json!({"x": 5, "z": 2}));
    }

    #[test]
    fn errors_name_the_line() {
        assert_eq!(
            documents("a: 1\nb: 2\na: 3\n").unwrap_err().to_string(),
            "line 3: key \"a\" already set in map"
        );
        assert!(documents("kind: [unclosed\n").unwrap_err().to_string().starts_with("line "));
        assert!(documents(&"[".repeat(200)).unwrap_err().to_string().contains("100 levels"));
        assert!(documents("a: *gone").is_err());
        assert!(documents("a: &x [*x]").is_err());
    }

    #[test]
    fn a_laughing_file_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..9 {
            let before = i - 1;
            let aliases = vec![format!("*a{before}"); 10].join(", ");
            text.extend([format!("a{i}: &a{i} [{aliases}]\n")]);
        }
        assert!(documents(&text).unwrap_err().to_string().contains("unfolds"));
    }
}
