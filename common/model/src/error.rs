//! Errors of keys and values: what, where, why, and what to do.

use thiserror::Error;

/// A path that is no key of the model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("key {path:?}: {reason}; {fix}")]
pub struct KeyError {
    /// The path, shortened when it is very long.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
    /// What to do.
    pub fix: String,
}

/// A stored value that does not fit its key. Never carries the value itself.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{key}: {field}: {reason}; {fix}")]
pub struct ValueError {
    /// The key, or the kind where there is none.
    pub key: String,
    /// Path of the field, such as `spec.ingress[0].protocol`; `value` for the whole.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
    /// What to do.
    pub fix: String,
}

impl KeyError {
    pub(crate) fn new(path: &str, reason: impl Into<String>, fix: impl Into<String>) -> Self {
        KeyError { path: shorten(path), reason: reason.into(), fix: fix.into() }
    }
}

impl ValueError {
    /// An error in a field of the object under a key.
    pub fn new(key: &str, field: &str, reason: impl Into<String>, fix: impl Into<String>) -> Self {
        let field = if field.is_empty() || field == "." { "value" } else { field };
        ValueError { key: shorten(key), field: shorten(field), reason: reason.into(), fix: fix.into() }
    }
}

/// A text fit for a log line.
fn shorten(text: &str) -> String {
    const LONGEST: usize = 512;
    if text.len() <= LONGEST {
        return text.to_owned();
    }
    let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end])
}
