//! Reads JSON into a kind's shape the way Calico's Go code does, and gives it back as Go would write it.
//!
//! Field names match without regard to case, numbers and booleans become text where text is wanted (as YAML scalars do in
//! calicoctl), AS numbers, ports, protocols and durations take their canonical form, and what `omitempty` drops is dropped.

use serde_json::{Map, Number, Value};

use super::schema::{Field, Keep, Shape, fields_of};
use super::text::{go_duration, go_duration_text, is_port_name};

/// Why a document is no object of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The kind is unknown.
    #[error("unknown kind '{0}'")]
    Kind(String),
    /// A field that the kind does not have.
    #[error("field in document is not recognized or is in the wrong location: {field} (at {path}){}", hint(.meant.as_deref()))]
    UnknownField {
        /// Where it stands.
        path: String,
        /// Its name.
        field: String,
        /// The field that was probably meant.
        meant: Option<&'static str>,
    },
    /// The same field twice, in different case.
    #[error("field {path} is given twice")]
    Twice {
        /// Where it stands.
        path: String,
    },
    /// A value of the wrong type or form.
    #[error("{path} = {value}: {reason}")]
    Value {
        /// The field.
        path: String,
        /// What was given, shortened.
        value: String,
        /// What is wanted.
        reason: String,
    },
}

fn hint(meant: Option<&str>) -> String {
    meant.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

/// What to do with fields that the schema does not know.
#[derive(Debug, Clone, Copy)]
pub enum Unknown<'a> {
    /// An error, except where this document (the stored one) has them too: those are kept.
    Refuse(Option<&'a Value>),
    /// Keep them as they are.
    Keep,
}

/// The object as Go would write it back.
pub fn decode(kind: &str, value: &Value, unknown: Unknown<'_>) -> Result<Value, DecodeError> {
    let fields = fields_of(kind).ok_or_else(|| DecodeError::Kind(kind.to_owned()))?;
    record(fields, value, "", unknown)
}

/// Copies into `new` the fields of `old` that the schema of the kind does not know, so that an update does not destroy
/// what a newer program wrote. Lists are not looked into.
pub fn carry_unknown(kind: &str, old: &Value, new: &mut Value) {
    if let Some(fields) = fields_of(kind) {
        carry(fields, old, new);
    }
}

fn carry(fields: &[Field], old: &Value, new: &mut Value) {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return };
    for (name, value) in old {
        match find(fields, name) {
            None => {
                new.entry(name.clone()).or_insert_with(|| value.clone());
            }
            Some(Field { shape: Shape::Record(inner), name, .. }) => {
                if let Some(new) = new.get_mut(*name) {
                    carry(inner, value, new);
                }
            }
            Some(_) => {}
        }
    }
}

fn find<'f>(fields: &'f [Field], name: &str) -> Option<&'f Field> {
    fields
        .iter()
        .find(|f| f.name == name)
        .or_else(|| fields.iter().find(|f| f.name.eq_ignore_ascii_case(name)))
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn record(
    fields: &'static [Field],
    value: &Value,
    path: &str,
    unknown: Unknown<'_>,
) -> Result<Value, DecodeError> {
    let empty = Map::new();
    let given = match value {
        Value::Object(map) => map,
        Value::Null => &empty,
        other => return Err(wrong(path, other, "an object is wanted here")),
    };
    let mut found: Map<String, Value> = Map::new();
    for (name, value) in given {
        let at = join(path, name);
        let Some(field) = find(fields, name) else {
            let known = match unknown {
                Unknown::Keep => true,
                Unknown::Refuse(stored) => stored.and_then(|s| s.get(name)).is_some(),
            };
            if !known {
                return Err(DecodeError::UnknownField {
                    path: at,
                    field: name.clone(),
                    meant: nearest(fields, name),
                });
            }
            found.insert(name.clone(), value.clone());
            continue;
        };
        let inside = match unknown {
            Unknown::Refuse(stored) => Unknown::Refuse(stored.and_then(|s| s.get(field.name))),
            Unknown::Keep => Unknown::Keep,
        };
        let decoded = convert(&field.shape, value, &at, inside)?;
        if found.contains_key(field.name) {
            return Err(DecodeError::Twice { path: at });
        }
        let keep = match field.keep {
            Keep::Always => true,
            Keep::Given => !value.is_null(),
            Keep::Filled => !is_zero(&decoded),
        };
        if keep {
            found.insert(field.name.to_owned(), decoded);
        } else {
            // Remembered as null so that a second spelling is noticed, dropped below.
            found.insert(field.name.to_owned(), Value::Null);
        }
    }
    for field in fields {
        match (field.keep, found.get(field.name)) {
            (Keep::Always, None) => {
                found.insert(field.name.to_owned(), zero(&field.shape));
            }
            (Keep::Filled | Keep::Given, Some(Value::Null)) => {
                found.remove(field.name);
            }
            _ => {}
        }
    }
    Ok(Value::Object(found))
}

/// Zero as Go means it: what `omitempty` drops.
pub(crate) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

fn zero(shape: &Shape) -> Value {
    match shape {
        Shape::Text => Value::String(String::new()),
        Shape::Bool => Value::Bool(false),
        Shape::Int(..)
        | Shape::Float
        | Shape::AsNumber
        | Shape::Port
        | Shape::Protocol
        | Shape::IntOrText => 0.into(),
        Shape::Duration => "0s".into(),
        Shape::Time | Shape::TextMap | Shape::List(_) | Shape::Any => Value::Null,
        Shape::Record(fields) => {
            let always = fields.iter().filter(|f| f.keep == Keep::Always);
            Value::Object(always.map(|f| (f.name.to_owned(), zero(&f.shape))).collect())
        }
    }
}

fn convert(shape: &Shape, value: &Value, path: &str, unknown: Unknown<'_>) -> Result<Value, DecodeError> {
    if value.is_null() && !matches!(shape, Shape::Record(_)) {
        return Ok(zero(shape));
    }
    match shape {
        Shape::Any => Ok(value.clone()),
        Shape::Text => {
            as_text(value).map(Value::String).ok_or_else(|| wrong(path, value, "text is wanted here"))
        }
        Shape::Bool if value.is_boolean() => Ok(value.clone()),
        Shape::Bool => Err(wrong(path, value, "true or false is wanted here, without quotes")),
        Shape::Int(least, most, name) => {
            let number = integer(value).filter(|n| (i128::from(*least)..=i128::from(*most)).contains(n));
            match number.and_then(|n| i64::try_from(n).ok()) {
                Some(n) => Ok(n.into()),
                None => Err(wrong(
                    path,
                    value,
                    &format!("a whole number of type {name} is wanted here, without quotes"),
                )),
            }
        }
        Shape::Float => match value.as_f64() {
            Some(f) => Ok(float(f)),
            None => Err(wrong(path, value, "a number is wanted here, without quotes")),
        },
        Shape::AsNumber => as_number(value).map(Value::from).ok_or_else(|| {
            wrong(
                path,
                value,
                "an AS number is wanted: 0 to 4294967295, or \"high.low\" with both up to 65535",
            )
        }),
        Shape::Port => port(value).map_err(|reason| wrong(path, value, &reason)),
        Shape::Protocol => {
            let number = match value {
                Value::String(s) => match s.parse::<u8>() {
                    Ok(n) => Some(n),
                    Err(_) => return Ok(value.clone()),
                },
                other => integer(other).and_then(|n| u8::try_from(n).ok()),
            };
            number
                .map(Value::from)
                .ok_or_else(|| wrong(path, value, "a protocol name or a number up to 255 is wanted"))
        }
        Shape::IntOrText => match value {
            Value::String(_) => Ok(value.clone()),
            other => integer(other)
                .and_then(|n| i32::try_from(n).ok())
                .map(Value::from)
                .ok_or_else(|| wrong(path, value, "a whole number or text is wanted here")),
        },
        Shape::Duration => value
            .as_str()
            .and_then(go_duration)
            .map(|n| go_duration_text(n).into())
            .ok_or_else(|| wrong(path, value, "a duration with its unit is wanted, as 90s or 2m30s")),
        Shape::Time => match value.as_str() {
            Some("") => Ok(Value::Null),
            Some(text) => time(text)
                .map(Value::String)
                .ok_or_else(|| wrong(path, value, "a time in RFC 3339 is wanted")),
            None => Err(wrong(path, value, "a time in RFC 3339 is wanted")),
        },
        Shape::TextMap => {
            let Value::Object(map) = value else {
                return Err(wrong(path, value, "a map of texts is wanted here"));
            };
            let mut out = Map::new();
            for (name, value) in map {
                let text = if value.is_null() { Some(String::new()) } else { as_text(value) };
                let text = text.ok_or_else(|| wrong(&join(path, name), value, "text is wanted here"))?;
                out.insert(name.clone(), text.into());
            }
            Ok(Value::Object(out))
        }
        Shape::List(of) => {
            let Value::Array(items) = value else { return Err(wrong(path, value, "a list is wanted here")) };
            let inside = match unknown {
                Unknown::Keep => Unknown::Keep,
                Unknown::Refuse(_) => Unknown::Refuse(None),
            };
            let stored = match unknown {
                Unknown::Refuse(Some(Value::Array(stored))) => Some(stored),
                _ => None,
            };
            let mut out = Vec::with_capacity(items.len());
            for (i, item) in items.iter().enumerate() {
                // A list that comes back from the store unchanged keeps what it had.
                let inside = match stored.filter(|s| s.contains(item)) {
                    Some(_) => Unknown::Refuse(Some(item)),
                    None => inside,
                };
                out.push(convert(of, item, &format!("{path}[{i}]"), inside)?);
            }
            Ok(Value::Array(out))
        }
        Shape::Record(fields) => record(fields, value, path, unknown),
    }
}

/// The text of a scalar, as calicoctl makes text of YAML's numbers and booleans.
fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Bool(b) => Some(b.to_string()),
        Value::Number(n) => Some(number_text(n)),
        _ => None,
    }
}

fn number_text(number: &Number) -> String {
    if number.is_f64() { go_float(number.as_f64().unwrap_or_default()) } else { number.to_string() }
}

/// A number as Go's `%v` and `FormatFloat(f, 'g', -1, 64)` print it: `5`, `123.5`, `1e+06`.
pub fn go_float(number: f64) -> String {
    if !number.is_finite() {
        return if number.is_nan() {
            "NaN".into()
        } else if number > 0.0 {
            "+Inf".into()
        } else {
            "-Inf".into()
        };
    }
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    // Go writes an exponent below 1e-04 and from 1e+06 on, as %g with its default precision of six decides.
    if number != 0.0 && !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{mantissa}e{sign}{:02}", exponent.abs())
    } else {
        format!("{number}")
    }
}

fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Number(n) => n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from)).or_else(|| {
            n.as_f64()
                .filter(|f| f.fract() == 0.0 && f.abs() < 9e18)
                .and_then(|f| format!("{f:.0}").parse().ok())
        }),
        _ => None,
    }
}

fn float(f: f64) -> Value {
    if f.fract() == 0.0
        && f.abs() < 9e15
        && let Ok(whole) = format!("{f:.0}").parse::<i64>()
    {
        return whole.into();
    }
    Number::from_f64(f).map_or(Value::Null, Value::Number)
}

fn as_number(value: &Value) -> Option<u32> {
    match value {
        Value::String(s) => match s.split_once('.') {
            Some((high, low)) => {
                Some(u32::from(high.parse::<u16>().ok()?) << 16 | u32::from(low.parse::<u16>().ok()?))
            }
            None => s.parse().ok(),
        },
        // YAML reads the bare word 1.10 as a number and the last zero is lost: only whole numbers are safe.
        other => integer(other).and_then(|n| u32::try_from(n).ok()),
    }
}

fn port(value: &Value) -> Result<Value, String> {
    let parse = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    match value {
        Value::String(s) if s.bytes().all(|b| b.is_ascii_digit()) && !s.is_empty() => {
            parse(s).map(Value::from).ok_or_else(|| "a port is a number up to 65535".to_owned())
        }
        Value::String(s) => match s.split_once(':') {
            Some((low, high)) if low.bytes().chain(high.bytes()).all(|b| b.is_ascii_digit()) => {
                match (parse(low), parse(high)) {
                    (Some(low), Some(high)) if low == high => Ok(low.into()),
                    (Some(low), Some(high)) if low < high => Ok(format!("{low}:{high}").into()),
                    (Some(low), Some(high)) => Err(format!(
                        "minimum port number ({low}) is greater than maximum port number ({high})"
                    )),
                    _ => Err("a port range is min:max with numbers up to 65535".to_owned()),
                }
            }
            _ if is_port_name(s) => Ok(value.clone()),
            _ => Err("a port is a number, a range min:max, or a name of letters, digits, '_', '.' and '-'"
                .to_owned()),
        },
        other => integer(other)
            .and_then(|n| u16::try_from(n).ok())
            .map(Value::from)
            .ok_or_else(|| "a port is a number up to 65535, a range \"min:max\", or a name".to_owned()),
    }
}

fn time(text: &str) -> Option<String> {
    let stamp: jiff::Timestamp = text.parse().ok()?;
    let seconds = jiff::Timestamp::from_second(stamp.as_second()).ok()?;
    Some(seconds.to_string())
}

fn wrong(path: &str, value: &Value, reason: &str) -> DecodeError {
    let mut shown = value.to_string();
    if shown.len() > 80 {
        let end = (0..=77).rev().find(|i| shown.is_char_boundary(*i)).unwrap_or(0);
        shown.truncate(end);
        shown.push_str("...");
    }
    let path = if path.is_empty() { "document".to_owned() } else { path.to_owned() };
    DecodeError::Value { path, value: shown, reason: reason.to_owned() }
}

/// The field whose name is closest, if it is close enough to be a slip of the keyboard.
fn nearest(fields: &'static [Field], name: &str) -> Option<&'static str> {
    let fold =
        |s: &str| s.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let wanted = fold(name);
    let close = |f: &&Field| distance(&fold(f.name), &wanted);
    fields.iter().min_by_key(close).filter(|f| close(f) <= 2 && close(f) < wanted.len()).map(|f| f.name)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn strict(kind: &str, value: Value) -> Result<Value, DecodeError> {
        decode(kind, &value, Unknown::Refuse(None))
    }

    #[test]
    fn names_match_in_any_case_and_scalars_become_text() {
        let pool = strict(
            "IPPool",
            json!({"KIND": "IPPool", "metadata": {"name": true, "labels": {"a": 8, "b": 1.5, "c": null}},
            "spec": {"CIDR": "10.0.0.0/8", "blocksize": 27, "disabled": false}}),
        );
        assert_eq!(
            pool,
            Ok(
                json!({"kind": "IPPool", "metadata": {"name": "true", "labels": {"a": "8", "b": "1.5", "c": ""}},
                "spec": {"cidr": "10.0.0.0/8", "blockSize": 27}})
            )
        );
    }

    #[test]
    fn unknown_fields_are_refused_with_a_hint_or_kept() {
        let document = json!({"spec": {"block_size": 26}});
        let error = strict("IPPool", document.clone()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "field in document is not recognized or is in the wrong location: block_size (at spec.block_size); did you mean blockSize?"
        );
        assert!(decode("IPPool", &document, Unknown::Refuse(Some(&document))).is_ok());
        assert_eq!(decode("IPPool", &document, Unknown::Keep).unwrap()["spec"]["block_size"], 26);
        assert!(matches!(
            strict("IPPool", json!({"spec": {"cidr": "a", "Cidr": "b"}})),
            Err(DecodeError::Twice { .. })
        ));
    }

    #[test]
    fn an_update_carries_what_the_schema_does_not_know() {
        let old = json!({"metadata": {"name": "n", "future": 1}, "spec": {"bgp": {"asNumber": 1, "x": [1]}, "new": {}}, "status": {}});
        let mut new =
            json!({"metadata": {"name": "n"}, "spec": {"bgp": {"ipv4Address": "10.0.0.1/24"}}, "status": {}});
        carry_unknown("Node", &old, &mut new);
        assert_eq!(
            new,
            json!({"metadata": {"name": "n", "future": 1},
                "spec": {"bgp": {"ipv4Address": "10.0.0.1/24", "x": [1]}, "new": {}}, "status": {}})
        );
    }

    #[test]
    fn unions_take_their_canonical_form() {
        let peer =
            strict("BGPPeer", json!({"spec": {"asNumber": "1.10", "maxRestartTime": "150s"}})).unwrap();
        assert_eq!(peer["spec"], json!({"asNumber": 65546, "maxRestartTime": "2m30s"}));
        let rule = json!({"action": "Allow", "protocol": "6", "destination": {"ports": ["80", "80:90", "http", 443, "7:7"]}, "source": {}});
        let policy = strict("NetworkPolicy", json!({"spec": {"order": 5.0, "ingress": [rule]}})).unwrap();
        assert_eq!(
            policy["spec"],
            json!({"order": 5, "ingress": [{"action": "Allow", "protocol": 6, "destination": {"ports": [80, "80:90", "http", 443, 7]}}]})
        );
    }

    #[test]
    fn wrong_types_name_field_value_and_wish() {
        for (kind, value, says) in [
            ("IPPool", json!({"spec": {"blockSize": "26"}}), "spec.blockSize = \"26\""),
            ("BGPPeer", json!({"spec": {"asNumber": 4_294_967_296_u64}}), "spec.asNumber = 4294967296"),
            ("NetworkPolicy", json!({"spec": {"order": "first"}}), "spec.order"),
            ("NetworkPolicy", json!({"spec": {"ingress": {}}}), "a list is wanted"),
            (
                "GlobalNetworkPolicy",
                json!({"spec": {"ingress": [{"source": {"ports": ["90:80"]}}]}}),
                "spec.ingress[0].source.ports[0]",
            ),
            ("FelixConfiguration", json!({"spec": {"reportingInterval": 90}}), "a duration with its unit"),
            ("Node", json!("just words"), "document"),
            ("Node", json!({"spec": {"bgp": {"asNumber": "1.x"}}}), "an AS number"),
            ("Node", json!({"metadata": {"creationTimestamp": "yesterday"}}), "RFC 3339"),
        ] {
            let error = strict(kind, value).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn what_go_always_writes_is_there() {
        assert_eq!(strict("Node", json!({})).unwrap(), json!({"metadata": {}, "spec": {}, "status": {}}));
        assert_eq!(
            strict("CalicoNodeStatus", json!({})).unwrap()["status"],
            json!({"lastUpdated": null, "agent": {"birdV4": {}, "birdV6": {}}, "bgp": {"numberEstablishedV4": 0,
                "numberNotEstablishedV4": 0, "numberEstablishedV6": 0, "numberNotEstablishedV6": 0}, "routes": {}})
        );
        let wep = strict(
            "WorkloadEndpoint",
            json!({"spec": {"ports": [{"name": "http", "protocol": "TCP", "port": 80}]}}),
        )
        .unwrap();
        assert_eq!(
            wep["spec"]["ports"][0],
            json!({"name": "http", "protocol": "TCP", "port": 80, "hostPort": 0, "hostIP": ""})
        );
        assert_eq!(
            strict("FelixConfiguration", json!({"spec": {"failsafeInboundHostPorts": []}})).unwrap()["spec"],
            json!({"failsafeInboundHostPorts": []})
        );
    }

    #[test]
    fn floats_print_as_go_prints_them() {
        for (number, text) in [
            (5.0, "5"),
            (123.5, "123.5"),
            (10.25, "10.25"),
            (1e6, "1e+06"),
            (1e7, "1e+07"),
            (999_999.0, "999999"),
            (1_234_567.0, "1.234567e+06"),
            (0.000_01, "1e-05"),
            (0.0, "0"),
            (-2.5, "-2.5"),
        ] {
            assert_eq!(go_float(number), text);
        }
    }
}
