//! From a client library's error to one of ours, with the reason a human needs.

use std::error::Error as StdError;

use crate::error::Error;

// gRPC status codes (google.rpc.Code).
const CANCELLED: i32 = 1;
const UNKNOWN: i32 = 2;
const INVALID_ARGUMENT: i32 = 3;
const DEADLINE_EXCEEDED: i32 = 4;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;
const OUT_OF_RANGE: i32 = 11;
const INTERNAL: i32 = 13;
const UNAVAILABLE: i32 = 14;
const UNAUTHENTICATED: i32 = 16;

/// Translates `err`, seen at `endpoint` while working on `key`.
pub(super) fn explain(endpoint: &str, key: &str, err: &etcd_client::Error) -> Error {
    let endpoint = endpoint.to_owned();
    let etcd_client::Error::GRpcStatus(status) = err else {
        return Error::Unavailable { endpoint, reason: err.to_string() };
    };
    let message = status.message();
    let reason = reason(message, StdError::source(status));
    match i32::from(status.code()) {
        PERMISSION_DENIED | UNAUTHENTICATED => {
            Error::Unauthorized { endpoint, reason: format!("{reason} ({key})") }
        }
        INVALID_ARGUMENT | FAILED_PRECONDITION if is_about_login(message) => {
            Error::Unauthorized { endpoint, reason }
        }
        INVALID_ARGUMENT if message.contains("too large") => Error::TooLarge { key: key.to_owned(), reason },
        OUT_OF_RANGE if message.contains("compacted") => Error::Compacted { rev: 0 },
        // Our own decode limit speaks so, and the server's limit on what it receives.
        OUT_OF_RANGE | RESOURCE_EXHAUSTED
            if message.contains("message length too large") || message.contains("larger than max") =>
        {
            Error::TooLarge { key: key.to_owned(), reason }
        }
        RESOURCE_EXHAUSTED if message.contains("space exceeded") => Error::Full { endpoint, reason },
        CANCELLED | UNKNOWN | DEADLINE_EXCEEDED | INTERNAL | UNAVAILABLE => {
            Error::Unavailable { endpoint, reason }
        }
        _ => Error::Failed { endpoint, reason },
    }
}

/// Whether no byte of the request can have reached a server.
pub(super) fn is_connect_failure(err: &etcd_client::Error) -> bool {
    let etcd_client::Error::GRpcStatus(status) = err else { return false };
    let mut source = StdError::source(status);
    while let Some(err) = source {
        if err
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused)
        {
            return true;
        }
        source = err.source();
    }
    false
}

/// Whether etcd says that it runs without authentication, so that a user is of no use.
pub(super) fn is_auth_not_enabled(err: &etcd_client::Error) -> bool {
    matches!(err, etcd_client::Error::GRpcStatus(status)
        if status.message().contains("authentication is not enabled"))
}

fn is_about_login(message: &str) -> bool {
    ["authentication", "user name", "auth token", "user not found"]
        .iter()
        .any(|words| message.contains(words))
}

/// Joins an error with its causes, leaving out what says nothing ("transport error") or repeats.
pub(super) fn reason(message: &str, mut source: Option<&(dyn StdError + 'static)>) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut add = |text: String| {
        let noise = ["", "transport error", "client error (Connect)", "tcp connect error"];
        if noise.contains(&text.as_str()) || parts.iter().any(|part| part.contains(&text)) {
            return;
        }
        parts.retain(|part| !text.contains(part.as_str()));
        parts.push(text);
    };
    add(message.to_owned());
    while let Some(err) = source {
        add(err.to_string());
        source = err.source();
    }
    if parts.is_empty() { "connection failed".to_owned() } else { parts.join(": ") }
}
