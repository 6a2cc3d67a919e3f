//! Adj-RIB-Out by update groups: peers that are sent the same bytes share one copy of what was sent and one encoding of it.
//!
//! ```text
//!  best changed ─▶ dirty slots ─ flush ─▶ out[slot] = what the group holds      (state, 12 bytes a route)
//!                                   └───▶ log of encoded chunks                 (bytes, once for all members)
//!                                            ▲        ▲             ▲
//!                                        member 1  member 2 …   member n        (a position each)
//! ```
//!
//! Nothing is encoded before a member asks for it, so a burst of changes costs what is left of it. A member that falls behind
//! the log is brought up to date from `out`, whose entries know when they changed last: memory does not depend on how slow
//! anybody is. The same walk over `out` gives a new member its first table.

pub(crate) mod flush;
pub(crate) mod group;
pub(crate) mod rewrite;
pub(crate) mod verdict;
