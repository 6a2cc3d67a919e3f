//! What the engine tells its user.

use std::time::Duration;

use crate::packet::{Diag, State};
use crate::params::SessionKey;

/// Time as the engine sees it: how long the shell's monotonic clock has run. Only differences matter.
pub type Time = Duration;

/// A session began to work or failed. Nothing is said about a session that never came up: see [`Status`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The session.
    pub key: SessionKey,
    /// What happened.
    pub change: Change,
}

/// What happened to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Both directions work.
    Up,
    /// The session was up and is not any more. [`crate::react`] says what a routing protocol does about it.
    Down(Down),
}

/// A session that went down, and what is known about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Down {
    /// How we know.
    pub cause: Cause,
    /// The diagnostic that the peer sent last: its own reason, where it has one.
    pub remote_diag: Diag,
    /// Both ends had set the C bit: a restart of a control plane cannot have caused this (RFC 5882 §4.3.1).
    pub control_plane_independent: bool,
    /// How long ago the peer was last heard to say that its end works. A user's own session with the peer that began
    /// since is newer than this failure.
    pub silent_for: Duration,
}

/// How we know that a session is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Nothing was heard for the detection time.
    DetectionTimeExpired,
    /// The peer says that it does not hear us, or has started anew.
    NeighborSignaled,
    /// The peer's operator took the session down: no failure (RFC 5882 §3.2).
    NeighborAdminDown,
    /// We were told to take it down: no failure.
    LocalAdminDown,
}

/// A session as an operator wants to see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The session.
    pub key: SessionKey,
    /// State of our end.
    pub state: State,
    /// How long it has been in that state.
    pub lasting: Duration,
    /// Why our end last changed state.
    pub diag: Diag,
    /// State of the peer's end as it said last.
    pub remote_state: State,
    /// The peer's diagnostic.
    pub remote_diag: Diag,
    /// Our discriminator.
    pub discriminator: u32,
    /// The peer's, zero while unknown.
    pub remote_discriminator: u32,
    /// Negotiated interval at which we send, before jitter; `None` while the peer wants nothing.
    pub tx_interval: Option<Duration>,
    /// Silence after which the peer counts as dead; `None` while it was not heard.
    pub detection_time: Option<Duration>,
    /// The peer's multiplier, least interval to send and least interval to receive.
    pub remote_timers: Option<(u8, Duration, Duration)>,
    /// Up, but reported only after this, because it kept going down.
    pub held: Option<Duration>,
    /// How many times it failed.
    pub failures: u64,
    /// Packets sent.
    pub sent: u64,
    /// Packets accepted.
    pub received: u64,
    /// Being removed: the peer is still told AdminDown.
    pub leaving: bool,
}
