//! Bytes to BGP messages and back, with RFC 7606 verdicts.
//!
//! It is a codec for IPv4 and IPv6 unicast: framing, OPEN with its capabilities, UPDATE as a view over the
//! received bytes, ROUTE-REFRESH, NOTIFICATION, and packing of announcements and withdrawals.
//! It is not a speaker: no state machine, no tables, no policy, no sockets, no clock. What a message means
//! depends on what was negotiated, and that comes in as a [`SessionContext`]; nothing is ever guessed from bytes.
//!
//! Start at [`frame`], then [`UpdateView::parse`].
//!
//! ```text
//!  socket bytes ─ frame ─▶ Frame ─▶ OpenMessage::decode ─▶ capabilities ─▶ (speaker) ─▶ SessionContext
//!                            │                                                             │
//!                            └────▶ UpdateView::parse ◀────────────────────────────────────┤
//!                                     │ verdict, withdrawals, announcements                │
//!                                     ▼                                                    │
//!                                   AttrView ─ write_canonical ─▶ bytes, to be interned    │
//!                                                  AttrSet reads, AttrBuilder edits        │
//!                                                                  │                       │
//!                                                                  ▼                       ▼
//!                                                      UpdatePacker: announce, withdraw ─▶ bytes
//! ```
//!
//! Input is hostile: all reading goes through one checked cursor, and indexing and unchecked arithmetic do not
//! compile here.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod attr;
mod capability;
mod context;
mod cursor;
mod header;
pub mod mrt;
mod nlri;
mod notification;
mod open;
mod pack;
mod prefix;
mod refresh;
mod update;

pub use attr::{
    AsPath, AttrBuilder, AttrSet, AttrView, Discarded, Fault, LargeCommunity, NextHop, Origin, Reason,
};
pub use capability::{
    AddPath, Capability, ExtendedNextHop, GrFamily, GracefulRestart, LlgrFamily, PathsLimit,
};
pub use context::{FamilyContext, PeerKind, SessionContext};
pub use header::{Frame, HEADER_LEN, MAX_LEN, MAX_LEN_EXTENDED, MessageKind, encode_keepalive, frame};
pub use nlri::{Nlri, NlriIter, ReadPrefix, Routes, WirePrefix};
pub use notification::{Cease, FsmState, Notification, ShortNotification};
pub use open::{AS_TRANS, OpenMessage};
pub use pack::{PackError, UpdatePacker, encode_end_of_rib};
pub use prefix::{AfiSafi, Family, Prefix, Prefix4, Prefix6, PrefixError};
pub use refresh::{RefreshKind, RouteRefresh};
pub use update::{Announcement, UpdateView, Verdict, Withdrawal};
