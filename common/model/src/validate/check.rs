//! The constraints of the schema tables, applied to an object that [`super::decode()`] has brought into shape.

use serde_json::Value;

use super::FieldError;
use super::decode::is_zero;
use super::schema::{Field, Keep, Rule, Shape};

const PROTOCOLS: &[&str] = &["TCP", "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite"];

pub(super) fn record(fields: &[Field], value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for field in fields {
        let at = if path.is_empty() { field.name.to_owned() } else { format!("{path}.{}", field.name) };
        let value = value.get(field.name).filter(|v| !v.is_null());
        for rule in &field.rules {
            if let Some(reason) = broken(rule, value, field.keep) {
                let (at, value) = member(rule, value, &at);
                errors.push(FieldError::new(at, value, reason));
            }
        }
        if let Some(value) = value {
            shape(&field.shape, value, &at, errors);
        }
    }
}

fn shape(of: &Shape, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match (of, value) {
        (Shape::Record(fields), value) => record(fields, value, path, errors),
        (Shape::List(of), Value::Array(items)) => {
            for (i, item) in items.iter().enumerate() {
                shape(of, item, &format!("{path}[{i}]"), errors);
            }
        }
        (Shape::Protocol, Value::Number(n)) if n.as_u64() == Some(0) => {
            errors.push(FieldError::new(path, Some(value), "protocol numbers begin at 1"));
        }
        (Shape::Protocol, Value::String(name)) if !PROTOCOLS.contains(&name.as_str()) => {
            let reason = format!("must be one of {} or a number from 1 to 255", PROTOCOLS.join(", "));
            errors.push(FieldError::new(path, Some(value), reason));
        }
        (Shape::Port, value) => {
            let zero = value.as_u64() == Some(0) || value.as_str().is_some_and(|s| s.starts_with("0:"));
            if zero {
                errors.push(FieldError::new(path, Some(value), "port numbers are between 1 and 65535"));
            }
        }
        _ => {}
    }
}

/// Which member of a list breaks a rule about each of them.
fn member<'v>(rule: &Rule, value: Option<&'v Value>, path: &str) -> (String, Option<&'v Value>) {
    let bad: &dyn Fn(&str) -> bool = match rule {
        Rule::Each(test, _) => &move |s| !s.is_empty() && !test(s),
        Rule::EachOneOf(words) => &move |s| !words.contains(&s),
        _ => return (path.to_owned(), value),
    };
    let mut items = value.and_then(Value::as_array).into_iter().flatten().enumerate();
    match items.find(|(_, v)| v.as_str().is_some_and(bad)) {
        Some((i, item)) => (format!("{path}[{i}]"), Some(item)),
        None => (path.to_owned(), value),
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(", ")
}

fn broken(rule: &Rule, value: Option<&Value>, keep: Keep) -> Option<String> {
    let text = value.and_then(Value::as_str).filter(|s| !s.is_empty() || keep == Keep::Given);
    let mut items = value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    match rule {
        Rule::None => None,
        Rule::Required => {
            value.is_none_or(|v| is_zero(v) && !v.is_number()).then(|| "must be given".to_owned())
        }
        Rule::OneOf(words) => {
            text.filter(|s| !words.contains(s)).map(|_| format!("supported values: {}", quoted(words)))
        }
        Rule::Word(words) => text
            .filter(|s| !s.is_empty() && !words.iter().any(|w| w.eq_ignore_ascii_case(s)))
            .map(|_| format!("supported values: {}", quoted(words))),
        Rule::Range(least, most) => {
            let number = value.and_then(Value::as_i64)?;
            (!(*least..=*most).contains(&number)).then(|| match *most {
                i64::MAX => format!("must be at least {least}"),
                most => format!("must be between {least} and {most}"),
            })
        }
        Rule::MaxLength(most) => {
            text.filter(|s| s.len() > *most).map(|_| format!("may not be longer than {most} bytes"))
        }
        Rule::Items(least, most) => {
            let count = value.and_then(Value::as_array).map_or(0, Vec::len);
            // An absent optional list is no list of zero members; one without omitempty is.
            let counted = value.is_some() || keep == Keep::Always;
            (counted && !(*least..=*most).contains(&count)).then(|| {
                if least == most {
                    format!("must have exactly {least} member")
                } else {
                    format!("must have {least} to {most} members")
                }
            })
        }
        Rule::Test(test, expected) => {
            text.filter(|s| !s.is_empty() && !test(s)).map(|_| (*expected).to_owned())
        }
        Rule::Each(test, expected) => {
            items.any(|s| !s.is_empty() && !test(s)).then(|| (*expected).to_owned())
        }
        Rule::EachOneOf(words) => {
            items.any(|s| !words.contains(&s)).then(|| format!("supported values: {}", quoted(words)))
        }
    }
}
