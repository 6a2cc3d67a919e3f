//! What can go wrong with a store, one variant per thing a caller does differently.

use crate::KeyValue;

/// A store operation that did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A compare-and-swap lost: read `current` (or list again), decide anew, write again.
    #[error("{key} was changed by somebody else{}", at_revision(.current.as_ref()))]
    Conflict {
        /// The key that was to be written.
        key: String,
        /// What the store holds instead; `None` when that is not known.
        current: Option<KeyValue>,
    },

    /// The key to update or delete does not exist.
    #[error("{key} does not exist")]
    NotFound {
        /// The key that was asked for.
        key: String,
    },

    /// The store did not answer. The outcome of a write is then unknown: read before repeating it.
    #[error("datastore unavailable at {endpoint}: {reason}")]
    Unavailable {
        /// The endpoint, or all of them joined by `, ` when none answered.
        endpoint: String,
        /// Why, in words of the operating system, TLS or etcd.
        reason: String,
    },

    /// The store answered and refused: wrong user, password or role.
    #[error("datastore at {endpoint} refused access: {reason}")]
    Unauthorized {
        /// The endpoint that refused.
        endpoint: String,
        /// What was refused and why.
        reason: String,
    },

    /// The history asked for is gone: list again and compare.
    #[error("datastore history up to revision {rev} has been compacted")]
    Compacted {
        /// The oldest revision that is still there.
        rev: i64,
    },

    /// The value is larger than the store takes.
    #[error("{key}: value too large for the datastore: {reason}")]
    TooLarge {
        /// The key that was to be written.
        key: String,
        /// The store's own limit.
        reason: String,
    },

    /// The store is out of space: reads go on, writes fail until a human makes room.
    #[error("datastore at {endpoint} is full: {reason}; compact and defragment it, then disarm its alarm")]
    Full {
        /// The endpoint that refused the write.
        endpoint: String,
        /// The store's own words.
        reason: String,
    },

    /// A setting is missing or wrong; repeating the call cannot help.
    #[error("datastore setting {field}: {reason}")]
    Config {
        /// The setting, spelled as where it came from (environment variable or file field).
        field: String,
        /// What is wrong and how to fix it.
        reason: String,
    },

    /// Anything else the store said.
    #[error("datastore at {endpoint} failed: {reason}")]
    Failed {
        /// The endpoint that answered.
        endpoint: String,
        /// The store's own words.
        reason: String,
    },
}

impl Error {
    /// Whether repeating the same call later may succeed without anybody changing a setting.
    pub fn is_transient(&self) -> bool {
        matches!(self, Error::Unavailable { .. } | Error::Failed { .. } | Error::Full { .. })
    }

    /// The endpoint and the reason, as shown in [`crate::SyncStatus::Lost`].
    pub fn endpoint_and_reason(&self, fallback: &str) -> (String, String) {
        match self {
            Error::Unavailable { endpoint, reason } | Error::Failed { endpoint, reason } => {
                (endpoint.clone(), reason.clone())
            }
            Error::Unauthorized { endpoint, reason } => {
                (endpoint.clone(), format!("access refused: {reason}"))
            }
            Error::Full { endpoint, reason } => (endpoint.clone(), format!("full: {reason}")),
            other => (fallback.to_owned(), other.to_string()),
        }
    }
}

fn at_revision(current: Option<&KeyValue>) -> String {
    current.map_or_else(String::new, |kv| format!(" (now at revision {})", kv.rev))
}
