//! BFD: tells within a fraction of a second that a neighbour is gone (RFC 5880), on the same link (RFC 5881) or
//! some hops away (RFC 5883), in asynchronous mode.
//!
//! It is not a routing protocol and changes no routes: it says that a path works or that it does not, and
//! [`react`] says what RFC 5882 makes of that for a protocol with or without graceful restart. No echo function,
//! no authentication (packets that carry it are thrown away), no demand mode of our own; a peer's is obeyed.
//!
//! ```text
//!   speaker, ctl ──Handle::set/remove──▶ mailbox ──▶ ┌─ thread "bfd" ────────────────────────┐
//!        ▲                                           │  UDP 3784, 4784 ──Arrival──▶ Engine    │
//!        └── events(), troubles(), report() ◀────────│  one socket a session ◀──Send── (pure) │
//!                 (notify rings)                     └────────────────────────────────────────┘
//! ```
//!
//! # For a speaker
//!
//! Start at [`Bfd::start`]: once per process, in the network namespace of the sessions.
//!
//! ```no_run
//! # use bird_bfd::{Bfd, Change, Farewell, GracefulRestart, Hops, Options, Params, Reaction, SessionKey, react};
//! # use std::time::Duration;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bfd = Bfd::start(Options::default(), || { /* wake the loop that owns the speaker */ })?;
//! let key = SessionKey {
//!     peer: "192.0.2.2".parse()?,
//!     local: Some("192.0.2.1".parse()?), // the session's source address, if it is set
//!     interface: None,                   // needed for a link-local peer
//!     hops: Hops::Single,                // Multi when the BGP session is multihop
//! };
//! bfd.set(key, Params::default())?;      // again at any time; unchanged is free, timers change in place
//!
//! // In that loop, after a wake:
//! for event in bfd.events() {
//!     match event.change {
//!         Change::Up => {}
//!         Change::Down(down) => match react(&down, GracefulRestart::None) {
//!             Reaction::Ignore => {}
//!             Reaction::CloseAndDrop | Reaction::CloseAndKeep => { /* close with Cease / BFD down (9384) */ }
//!         },
//!     }
//! }
//! for trouble in bfd.troubles() { /* log it: the thread itself never does */ }
//! bfd.stop(Farewell::AdminDown(Duration::ZERO));
//! # Ok(())
//! # }
//! ```
//!
//! - Only a session that was up goes down: a peer without BFD harms nothing, and BGP need not wait for Up.
//! - [`Change::Down`] comes at most once for each [`Change::Up`], and [`Change::Up`] is delayed for a session that
//!   flaps ([`Damping`]). A reader that sleeps through several finds the last time down and whether it is up since.
//! - Sessions are shared: two BGP sessions with an equal key have one. The caller counts its users.
//! - [`Handle::report`] is what `ctl` shows: negotiated timers, diagnostics, counters, what cannot be sent and why.
//! - Before a planned restart stop with [`Farewell::AdminDown`]; peers that follow RFC 5882 keep their sessions.
//!
//! The pure part is [`Engine`]: `handle(now, Input)`, `poll()`, `next_timeout()`, as everywhere here. Time is an
//! argument, randomness a seed.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod advice;
mod engine;
mod event;
mod packet;
mod params;
mod random;
mod session;
pub mod thread;

pub use advice::{GracefulRestart, Reaction, react};
pub use engine::{Arrival, Discards, Engine, Input, Output};
pub use event::{Cause, Change, Down, Event, Status, Time};
pub use packet::{ControlPacket, Diag, Discard, LEN, State};
pub use params::{Damping, Hops, InvalidSession, Params, SessionKey, validate};
pub use thread::{Bfd, Farewell, Handle, Options, Priority, Report, Trouble, TroubleWith};
