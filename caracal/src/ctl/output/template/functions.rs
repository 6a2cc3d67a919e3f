//! The functions of templates: Go's own, and calicoctl's `join`, `joinAndTruncate` and `config`.

use std::cmp::Ordering;
use std::fmt::Write as _;

use super::value::Val;
use crate::ctl::output::go_value;

const NAMES: &[&str] = &[
    "and",
    "or",
    "not",
    "len",
    "index",
    "slice",
    "print",
    "printf",
    "println",
    "html",
    "js",
    "urlquery",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "join",
    "joinAndTruncate",
    "config",
];

/// Whether there is such a function.
pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls it; `and` and `or` are the evaluator's.
pub(super) fn call(name: &str, arguments: &[Val], as_number: &str) -> Result<Val, String> {
    let wrong = |want: &str| format!("wrong number of args for {name}: want {want} got {}", arguments.len());
    let text = |value: &Val| match value.deref() {
        Val::Text(s) => Ok(s.clone()),
        other => Err(format!("wrong type for {name}: wants text, got {}", other.print())),
    };
    let whole = |value: &Val| match value.deref() {
        Val::Int(n) => Ok(*n),
        other => Err(format!("wrong type for {name}: wants a whole number, got {}", other.print())),
    };
    match (name, arguments) {
        ("not", [value]) => Ok(Val::Bool(!value.truth())),
        ("len", [value]) => value.len().map(Val::Int),
        ("index", [value, keys @ ..]) => keys.iter().try_fold(value.clone(), |value, key| value.index(key)),
        ("slice", [value, bounds @ ..]) if bounds.len() <= 2 => {
            let text = text(value)?;
            let bound = |i: usize, default: usize| {
                bounds
                    .get(i)
                    .map_or(Ok(default), |b| whole(b).map(|n| usize::try_from(n).unwrap_or(usize::MAX)))
            };
            let range = bound(0, 0)?..bound(1, text.len())?;
            text.get(range)
                .map(|s| Val::Text(s.to_owned()))
                .ok_or_else(|| "error calling slice: index out of range".to_owned())
        }
        ("print", values) => Ok(Val::Text(print(values))),
        ("println", values) => {
            Ok(Val::Text(values.iter().map(Val::print).collect::<Vec<_>>().join(" ") + "\n"))
        }
        ("printf", [format, values @ ..]) => Ok(Val::Text(printf(&text(format)?, values))),
        ("html", values) => {
            let escaped = print(values)
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
                .replace('"', "&#34;")
                .replace('\'', "&#39;");
            Ok(Val::Text(escaped))
        }
        ("js", values) => {
            let quoted = serde_json::Value::String(print(values)).to_string();
            let inner = quoted[1..quoted.len() - 1]
                .replace('\'', "\\'")
                .replace('<', "\\u003C")
                .replace('>', "\\u003E")
                .replace('&', "\\u0026");
            Ok(Val::Text(inner))
        }
        ("urlquery", values) => {
            let mut out = String::new();
            for byte in print(values).bytes() {
                match byte {
                    b' ' => out.push('+'),
                    b if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) => out.push(char::from(b)),
                    b => write!(out, "%{b:02X}").expect("invariant: writing to a String"),
                }
            }
            Ok(Val::Text(out))
        }
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            for other in others {
                if same(first, other)? {
                    return Ok(Val::Bool(true));
                }
            }
            Ok(Val::Bool(false))
        }
        ("ne", [a, b]) => same(a, b).map(|same| Val::Bool(!same)),
        ("lt", [a, b]) => order(a, b).map(|o| Val::Bool(o == Ordering::Less)),
        ("le", [a, b]) => order(a, b).map(|o| Val::Bool(o != Ordering::Greater)),
        ("gt", [a, b]) => order(a, b).map(|o| Val::Bool(o == Ordering::Greater)),
        ("ge", [a, b]) => order(a, b).map(|o| Val::Bool(o != Ordering::Less)),
        ("join", [items, separator]) => Ok(Val::Text(go_value::join(&items.json(), &text(separator)?, 0))),
        ("joinAndTruncate", [items, separator, limit]) => {
            let limit = usize::try_from(whole(limit)?).unwrap_or_default();
            Ok(Val::Text(go_value::join(&items.json(), &text(separator)?, limit)))
        }
        ("config", [name]) if text(name)?.eq_ignore_ascii_case("asnumber") => {
            Ok(Val::Text(as_number.to_owned()))
        }
        ("config", [name]) => Err(format!("unhandled config type {:?}; there is asnumber", text(name)?)),
        ("not" | "len" | "config", _) => Err(wrong("1")),
        ("ne" | "lt" | "le" | "gt" | "ge" | "join", _) => Err(wrong("2")),
        ("joinAndTruncate", _) => Err(wrong("3")),
        _ => Err(wrong("at least 1")),
    }
}

/// Go's Print: a blank between two values when neither is text.
fn print(values: &[Val]) -> String {
    let mut out = String::new();
    for (i, value) in values.iter().enumerate() {
        let is_text = |v: &Val| matches!(v.deref(), Val::Text(_));
        if i > 0 && !is_text(value) && !is_text(&values[i - 1]) {
            out.push(' ');
        }
        out += &value.print();
    }
    out
}

fn same(a: &Val, b: &Val) -> Result<bool, String> {
    match (a.deref(), b.deref()) {
        (Val::Nil, Val::Nil) => Ok(true),
        (Val::Nil, _) | (_, Val::Nil) => Ok(false),
        (Val::Bool(a), Val::Bool(b)) => Ok(a == b),
        (a, b) => order(a, b).map(|o| o == Ordering::Equal),
    }
}

fn order(a: &Val, b: &Val) -> Result<Ordering, String> {
    match (a.deref(), b.deref()) {
        (Val::Int(a), Val::Int(b)) => Ok(a.cmp(b)),
        (Val::Text(a), Val::Text(b)) => Ok(a.cmp(b)),
        (Val::Float(a), Val::Float(b)) => Ok(a.total_cmp(b)),
        (a, b) => Err(format!("incompatible types for comparison: {} and {}", a.print(), b.print())),
    }
}

/// The verbs that make sense here: `%v %s %d %q %t %f %g %x %%`, with `-`, `0`, width and precision.
fn printf(format: &str, values: &[Val]) -> String {
    let mut out = String::new();
    let mut values = values.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = chars.next_if(|c| "-0+# ".contains(*c)) {
            flags.push(flag);
        }
        let mut number = || {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            digits.parse::<usize>().ok()
        };
        let width = number().unwrap_or_default().min(1 << 16);
        let precision = chars.next_if_eq(&'.').map(|_| {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            digits.parse::<usize>().unwrap_or_default().min(1 << 10)
        });
        let Some(verb) = chars.next() else {
            out += "%!(NOVERB)";
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = values.next() else {
            write!(out, "%!{verb}(MISSING)").expect("invariant: writing to a String");
            continue;
        };
        let text = verb_text(verb, value, precision);
        let blanks = width.saturating_sub(text.chars().count());
        if flags.contains('-') {
            out += &text;
            out.extend(std::iter::repeat_n(' ', blanks));
        } else {
            let zero = flags.contains('0') && matches!(value.deref(), Val::Int(_) | Val::Float(_));
            out.extend(std::iter::repeat_n(if zero { '0' } else { ' ' }, blanks));
            out += &text;
        }
    }
    let left: Vec<String> = values.map(Val::print).collect();
    if !left.is_empty() {
        write!(out, "%!(EXTRA {})", left.join(", ")).expect("invariant: writing to a String");
    }
    out
}

fn verb_text(verb: char, value: &Val, precision: Option<usize>) -> String {
    match (verb, value.deref()) {
        ('v', value) => value.print(),
        ('s', value) => {
            let text = value.print();
            precision.map_or_else(|| text.clone(), |p| text.chars().take(p).collect())
        }
        ('q', Val::Text(s)) => format!("{s:?}"),
        ('t', Val::Bool(b)) => b.to_string(),
        ('d', Val::Int(n)) => n.to_string(),
        ('x', Val::Int(n)) => format!("{n:x}"),
        ('x', Val::Text(s)) => s.bytes().fold(String::new(), |out, b| out + &format!("{b:02x}")),
        ('f', Val::Float(f)) => format!("{f:.*}", precision.unwrap_or(6)),
        ('g', Val::Float(_)) => value.print(),
        (verb, value) => format!("%!{verb}({})", value.print()),
    }
}
