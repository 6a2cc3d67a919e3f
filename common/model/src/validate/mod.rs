//! Whether an object is one that Calico would take: its shape, its fields one by one, and its fields together.
//!
//! Everything here is a function of the object alone; what needs other objects (overlapping pools, a tier that must exist)
//! belongs to whoever writes. The tables live in [`schema`], the rules over several fields in `rules`. Start with
//! [`validate`] for a typed resource, [`decode()`] and [`validate_value`] for JSON.

mod check;
mod decode;
mod order;
mod rules;
pub mod schema;
pub(crate) mod text;

use serde_json::Value;

use crate::resource::Resource;

pub use decode::{DecodeError, Unknown, carry_unknown, decode, go_float};
pub use order::{to_json, to_json_pretty};

/// One field that is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Where, as `spec.ingress[0].action`.
    pub field: String,
    /// What stands there, shortened; empty when nothing does.
    pub value: String,
    /// Why it is not acceptable and what would be.
    pub reason: String,
}

impl FieldError {
    /// An error about a value; None where there is none to show.
    pub fn new(field: impl Into<String>, value: Option<&Value>, reason: impl Into<String>) -> Self {
        let mut shown = match value {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(s)) => s.clone(),
            Some(other) => other.to_string(),
        };
        if shown.len() > 120 {
            let end = (0..=117).rev().find(|i| shown.is_char_boundary(*i)).unwrap_or(0);
            shown.truncate(end);
            shown.push_str("...");
        }
        Self { field: field.into(), value: shown, reason: reason.into() }
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.value.is_empty() {
            write!(f, "{} ({})", self.field, self.reason)
        } else {
            write!(f, "{} = '{}' ({})", self.field, self.value, self.reason)
        }
    }
}

/// Whether a resource is one that Calico would take. Empty: it is.
pub fn validate(resource: &Resource) -> Vec<FieldError> {
    let kind = resource.kind().kind_name();
    match decode(kind, &resource.to_value(), Unknown::Keep) {
        Ok(value) => validate_value(kind, &value),
        Err(error) => {
            let field = match &error {
                DecodeError::UnknownField { path, .. }
                | DecodeError::Twice { path }
                | DecodeError::Value { path, .. } => path.clone(),
                DecodeError::Kind(_) => "kind".to_owned(),
            };
            vec![FieldError::new(field, None, error.to_string())]
        }
    }
}

/// Checks an object of this kind that [`decode()`] has brought into shape. Empty: it is good.
pub fn validate_value(kind: &str, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(fields) = schema::fields_of(kind) {
        check::record(fields, value, "", &mut errors);
        rules::check(kind, value, &mut errors);
    }
    errors
}

#[cfg(test)]
mod tests;
