//! Desired against actual: what has to change, key by key, and what to try again when.
//!
//! What it is: two maps and the set of keys where they may differ. A caller tells it what should be
//! ([`Delta::want`]) and what is ([`Delta::observe`]), asks for a [`Delta::pass`], does what the steps say
//! and reports each outcome. A full pass after a complete dump ([`Delta::replace_actual`]) and an incremental
//! pass after one event run the same code for each key.
//!
//! What it is not: it does no I/O, knows no kernel and reads no clock. Time is a [`Duration`] since an origin
//! that the caller chooses and keeps.
//!
//! Start at [`Delta`].
//!
//! ```text
//! want, unwant, replace_desired --> desired --+
//!                                             +--> pass(now) --> steps --> applied | failed
//! observe, gone, replace_actual --> actual  --+                             actual    waits, doubling
//! ```

mod backoff;
mod delta;

pub use backoff::{Backoff, Retries};
pub use delta::{Change, Delta, Step};

use std::time::Duration;

/// A moment: the time since an origin that the caller chose once.
pub type Moment = Duration;
