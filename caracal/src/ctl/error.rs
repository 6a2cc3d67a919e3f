//! What can go wrong with one object, in calicoctl's words.

use caracal_model::validate::FieldError;

/// Why an operation on an object failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Error {
    /// There is no such object.
    #[error("resource does not exist: {0} with error: <nil>")]
    DoesNotExist(String),
    /// There is one already.
    #[error("resource already exists: {0} with error: <nil>")]
    AlreadyExists(String),
    /// Somebody else changed it meanwhile.
    #[error("update conflict: {0}{1}")]
    Conflict(String, String),
    /// Fields that are not acceptable.
    #[error("{}", fields(.0))]
    Invalid(Vec<FieldError>),
    /// The operation is not for this object.
    #[error("operation {operation} is not supported on {object}: {reason}")]
    NotSupported {
        /// `Delete`, `Update`, …
        operation: &'static str,
        /// Its name.
        object: String,
        /// Why not, and what to do instead.
        reason: String,
    },
    /// The datastore failed.
    #[error("{0}")]
    Store(#[from] caracal_datastore::Error),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// An error about one field.
    pub(crate) fn field(field: &str, value: impl Into<String>, reason: impl Into<String>) -> Error {
        let value = serde_json::Value::String(value.into());
        Error::Invalid(vec![FieldError::new(field, Some(&value), reason)])
    }
}

fn fields(errors: &[FieldError]) -> String {
    match errors {
        [one] => format!("error with field {one}"),
        many => {
            let lines: Vec<String> = many.iter().map(|e| format!("-  {e}\n")).collect();
            format!("error with the following fields:\n{}", lines.concat())
        }
    }
}

/// `Kind(name)` or `Kind(namespace/name)`.
pub(crate) fn identifier(kind: &str, namespace: &str, name: &str) -> String {
    if namespace.is_empty() { format!("{kind}({name})") } else { format!("{kind}({namespace}/{name})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        assert_eq!(
            Error::DoesNotExist(identifier("IPPool", "", "x")).to_string(),
            "resource does not exist: IPPool(x) with error: <nil>"
        );
        assert_eq!(
            Error::field("spec.cidr", "foo", "reason").to_string(),
            "error with field spec.cidr = 'foo' (reason)"
        );
        let two = vec![FieldError::new("a", None, "b"), FieldError::new("c", None, "d")];
        assert_eq!(Error::Invalid(two).to_string(), "error with the following fields:\n-  a (b)\n-  c (d)\n");
    }
}
