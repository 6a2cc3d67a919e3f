//! Datastore facts to what this node's dataplane should be.
//!
//! What it is: the part of felix that decides. It reads keys and values as the Syncer delivers them, keeps the
//! last good state of each object, settles conflicts, and answers which links, addresses and routes this node's
//! workloads should have, with a reason for everything that it does not obey.
//!
//! What it is not: it touches no kernel, reads no clock and writes no log; notices are data for the caller's log.
//!
//! Start at [`Calc`]: feed it by [`Calc::on_update`], read it by [`Calc::poll`].
//!
//! ```text
//! key, value --> facts (parse, or quarantine) --> check (fields) --> claims (conflicts) --> Changes
//!                                                 ^ pools, Config
//! ```
//!
//! An event costs what it touches: another node's endpoint a look at its key, one of ours its own fields and
//! the endpoints that claim the same link or address.

mod calc;
mod claims;
pub mod config;
mod endpoint;
mod facts;
pub mod guard;
mod pools;

pub use calc::{Calc, Changes, Notice};
pub use config::Config;
pub use endpoint::{Desired, Mac, NETNS_ANNOTATION, Problem, WepId, Workload, Written};
pub use guard::Guard;
