//! Our own restart (RFC 4724 §4.1): who is waited for, and when the wait ends.

use serde::Serialize;

/// Why the deferral of a restart ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum DeferralEnd {
    /// Nobody was to be waited for.
    NotNeeded,
    /// Every live peer sent its End-of-RIB.
    AllDone,
    /// The time was up.
    TimedOut,
}
