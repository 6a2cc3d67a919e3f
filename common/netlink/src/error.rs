//! What can go wrong, one variant for each thing a caller does differently.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed read or set-up. Failed writes are reported one by one as [`crate::Failure`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket: missing kernel support, or too few privileges.
    #[error("cannot open a {protocol} netlink socket")]
    Open {
        /// `route` or `netfilter`.
        protocol: &'static str,
        /// The system call's error.
        #[source]
        source: io::Error,
    },
    /// The socket failed; open a new one.
    #[error("netlink socket failed during {doing}")]
    Socket {
        /// The operation, such as `dump of routes`.
        doing: &'static str,
        /// The system call's error.
        #[source]
        source: io::Error,
    },
    /// The kernel refused the request.
    #[error("kernel refused {doing}: {errno}{}", explain(.message.as_deref()))]
    Refused {
        /// The operation, such as `dump of routes`.
        doing: &'static str,
        /// Its error number.
        errno: Errno,
        /// Its own words, where it gave any.
        message: Option<String>,
    },
    /// The table changed during every attempt, so no complete picture exists. Try again later, and
    /// conclude nothing from this failure.
    #[error("{doing} was interrupted by changes {attempts} times")]
    Interrupted {
        /// The operation, such as `dump of links`.
        doing: &'static str,
        /// How often it was tried.
        attempts: u32,
    },
    /// The kernel's answer could not be decoded.
    #[error("cannot decode the kernel's answer to {doing}: {reason}")]
    Malformed {
        /// The operation.
        doing: &'static str,
        /// What does not fit.
        reason: &'static str,
    },
    /// A network namespace cannot be opened or entered.
    #[error("network namespace {path}: {reason}", path = .path.display())]
    Netns {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
        /// The system call's error, if one failed.
        #[source]
        source: Option<io::Error>,
    },
    /// A sysctl cannot be read or written.
    #[error("sysctl {path}: {reason}", path = .path.display())]
    Sysctl {
        /// Its file.
        path: PathBuf,
        /// `read`, `write`, or what is wrong with the name.
        reason: &'static str,
        /// The system call's error, if one failed.
        #[source]
        source: Option<io::Error>,
    },
}

impl Error {
    /// The error number behind this error, if the kernel gave one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Open { source, .. } | Self::Socket { source, .. } => io_errno(source),
            Self::Netns { source, .. } | Self::Sysctl { source, .. } => source.as_ref().and_then(io_errno),
            Self::Interrupted { .. } | Self::Malformed { .. } => None,
        }
    }
}

fn io_errno(e: &io::Error) -> Option<Errno> {
    e.raw_os_error().map(Errno::from_raw)
}

fn explain(message: Option<&str>) -> String {
    message.map(|m| format!(" ({m})")).unwrap_or_default()
}
