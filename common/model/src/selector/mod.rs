//! Label selectors: `has(app) && role in {'web', 'db'}`.
//!
//! Start from [`Selector::parse`]. [`Selector`]'s `Display` is Calico's canonical text, which also names the selector's set
//! ([`Selector::uid`]).

mod parse;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha224};

pub use parse::{MAX_DEPTH, MAX_LENGTH, SelectorError};

/// A parsed selector. Cheap to compare; nested no deeper than [`MAX_DEPTH`] when it came from a text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Selector {
    /// `all()`, and the empty text.
    All,
    /// `global()`: legal only as the namespace selector of a rule, where the caller replaces it; by itself it matches all.
    Global,
    /// The label is present.
    Has(String),
    /// The label has this value.
    Eq(String, String),
    /// The label is absent or has another value.
    Ne(String, String),
    /// The label has one of these values.
    In(String, BTreeSet<String>),
    /// The label is absent or has none of these values.
    NotIn(String, BTreeSet<String>),
    /// The label's value contains this.
    Contains(String, String),
    /// The label's value starts with this.
    StartsWith(String, String),
    /// The label's value ends with this.
    EndsWith(String, String),
    /// Does not hold. Build it with [`Selector::negate`], which keeps negations single.
    Not(Box<Selector>),
    /// All hold; two or more.
    And(Vec<Selector>),
    /// One holds; two or more.
    Or(Vec<Selector>),
}

impl Selector {
    /// Reads a selector; the empty text selects all.
    pub fn parse(text: &str) -> Result<Selector, SelectorError> {
        parse::parse(text)
    }

    /// Whether it selects something with these labels.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_by(&|label| labels.get(label).map(String::as_str))
    }

    /// Whether it selects something whose labels `value_of` tells.
    pub fn matches_by<'a>(&self, value_of: &impl Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Selector::All | Selector::Global => true,
            Selector::Has(label) => value_of(label).is_some(),
            Selector::Eq(label, wanted) => value_of(label) == Some(wanted),
            Selector::Ne(label, unwanted) => value_of(label) != Some(unwanted),
            Selector::In(label, set) => value_of(label).is_some_and(|value| set.contains(value)),
            Selector::NotIn(label, set) => value_of(label).is_none_or(|value| !set.contains(value)),
            Selector::Contains(label, part) => {
                value_of(label).is_some_and(|value| value.contains(part.as_str()))
            }
            Selector::StartsWith(label, part) => {
                value_of(label).is_some_and(|value| value.starts_with(part.as_str()))
            }
            Selector::EndsWith(label, part) => {
                value_of(label).is_some_and(|value| value.ends_with(part.as_str()))
            }
            Selector::Not(inner) => !inner.matches_by(value_of),
            Selector::And(all) => all.iter().all(|one| one.matches_by(value_of)),
            Selector::Or(any) => any.iter().any(|one| one.matches_by(value_of)),
        }
    }

    /// Calico's id of the selector's set: `s:` and the base64url SHA-224 of `s:` and the canonical text.
    pub fn uid(&self) -> String {
        format!("s:{}", URL_SAFE_NO_PAD.encode(Sha224::digest(format!("s:{self}"))))
    }

    /// Both hold. Nothing is flattened, as in Calico: the canonical text of `(a && b) && c` keeps its inner brackets.
    #[must_use]
    pub fn and(self, other: Selector) -> Selector {
        Selector::And(vec![self, other])
    }

    /// One of both holds.
    #[must_use]
    pub fn or(self, other: Selector) -> Selector {
        Selector::Or(vec![self, other])
    }

    /// Does not hold; two negations are none.
    #[must_use]
    pub fn negate(self) -> Selector {
        match self {
            Selector::Not(inner) => *inner,
            other => Selector::Not(Box::new(other)),
        }
    }

    /// Every leaf replaced by what `change` makes of it: to prefix labels, or to give `all()` another meaning.
    #[must_use]
    pub fn map_leaves(self, change: &impl Fn(Selector) -> Selector) -> Selector {
        match self {
            Selector::Not(inner) => inner.map_leaves(change).negate(),
            Selector::And(all) => Selector::And(all.into_iter().map(|one| one.map_leaves(change)).collect()),
            Selector::Or(any) => Selector::Or(any.into_iter().map(|one| one.map_leaves(change)).collect()),
            leaf => change(leaf),
        }
    }

    /// Every label with `prefix` before it, as for namespaces (`pcns.`) and service accounts (`pcsa.`).
    #[must_use]
    pub fn with_label_prefix(self, prefix: &str) -> Selector {
        self.map_leaves(&|mut leaf| {
            if let Some(label) = leaf.label_mut() {
                label.insert_str(0, prefix);
            }
            leaf
        })
    }

    /// The label of a leaf.
    pub fn label(&self) -> Option<&str> {
        match self {
            Selector::Has(label)
            | Selector::Eq(label, _)
            | Selector::Ne(label, _)
            | Selector::In(label, _)
            | Selector::NotIn(label, _)
            | Selector::Contains(label, _)
            | Selector::StartsWith(label, _)
            | Selector::EndsWith(label, _) => Some(label),
            _ => None,
        }
    }

    /// Every label that the outcome may depend on.
    pub fn labels(&self) -> BTreeSet<&str> {
        let mut labels = BTreeSet::new();
        self.collect_labels(&mut labels);
        labels
    }

    fn collect_labels<'a>(&'a self, labels: &mut BTreeSet<&'a str>) {
        match self {
            Selector::Not(inner) => inner.collect_labels(labels),
            Selector::And(list) | Selector::Or(list) => {
                for one in list {
                    one.collect_labels(labels);
                }
            }
            leaf => labels.extend(leaf.label()),
        }
    }

    fn label_mut(&mut self) -> Option<&mut String> {
        match self {
            Selector::Has(label)
            | Selector::Eq(label, _)
            | Selector::Ne(label, _)
            | Selector::In(label, _)
            | Selector::NotIn(label, _)
            | Selector::Contains(label, _)
            | Selector::StartsWith(label, _)
            | Selector::EndsWith(label, _) => Some(label),
            _ => None,
        }
    }
}

impl FromStr for Selector {
    type Err = SelectorError;
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Selector::parse(text)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::All => f.write_str("all()"),
            Selector::Global => f.write_str("global()"),
            Selector::Has(label) => write!(f, "has({label})"),
            Selector::Eq(label, value) => write!(f, "{label} == {}", Quoted(value)),
            Selector::Ne(label, value) => write!(f, "{label} != {}", Quoted(value)),
            Selector::In(label, set) => write!(f, "{label} in {}", Set(set)),
            Selector::NotIn(label, set) => write!(f, "{label} not in {}", Set(set)),
            Selector::Contains(label, part) => write!(f, "{label} contains {}", Quoted(part)),
            Selector::StartsWith(label, part) => write!(f, "{label} starts with {}", Quoted(part)),
            Selector::EndsWith(label, part) => write!(f, "{label} ends with {}", Quoted(part)),
            Selector::Not(inner) => write!(f, "!{inner}"),
            Selector::And(all) => group(f, all, " && "),
            Selector::Or(any) => group(f, any, " || "),
        }
    }
}

fn group(f: &mut fmt::Formatter<'_>, list: &[Selector], operator: &str) -> fmt::Result {
    f.write_str("(")?;
    for (at, one) in list.iter().enumerate() {
        if at > 0 {
            f.write_str(operator)?;
        }
        fmt::Display::fmt(one, f)?;
    }
    f.write_str(")")
}

/// A text in double quotes, or in single ones when it has double quotes in it; the grammar has no text with both.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('"') { '\'' } else { '"' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

struct Set<'a>(&'a BTreeSet<String>);

impl fmt::Display for Set<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (at, value) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            Quoted(value).fmt(f)?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests;
