//! Path attributes: validation, one canonical byte form, reading and editing.
//!
//! [`AttrView`] judges the attributes of one UPDATE and writes their canonical bytes.
//! Canonical bytes are what everything else works on: the wire form of RFC 4271 §4.3 with attributes
//! in order of type, 4-octet AS numbers, no NEXT_HOP, MP_REACH_NLRI, MP_UNREACH_NLRI, AS4_PATH or
//! AS4_AGGREGATOR, clean flag bits, and the Partial bit on what we do not understand.
//! Equal bytes mean equal attributes, so they can be interned. [`AttrSet`] reads them, [`AttrBuilder`] edits them.

mod as_path;
mod builder;
pub(crate) mod canonical;
mod fault;
mod scan;
mod set;
#[cfg(test)]
mod tests;

pub use as_path::{AsPath, AsPathIter, Segment, SegmentKind};
pub use builder::{AttrBuilder, AttrTooLong};
pub use fault::{Discarded, Fault, Reason};
pub use scan::{AttrView, NextHop};
pub use set::{Attr, AttrIter, AttrSet, LargeCommunity, Origin};

pub(crate) use canonical::{put_attr, put_wire};
pub(crate) use scan::{MpReach, MpUnreach, Scan, bad_prefixes, scan};

/// Attribute type codes.
#[expect(missing_docs, reason = "the names are those of the registry")]
pub mod code {
    pub const ORIGIN: u8 = 1;
    pub const AS_PATH: u8 = 2;
    pub const NEXT_HOP: u8 = 3;
    pub const MED: u8 = 4;
    pub const LOCAL_PREF: u8 = 5;
    pub const ATOMIC_AGGREGATE: u8 = 6;
    pub const AGGREGATOR: u8 = 7;
    pub const COMMUNITIES: u8 = 8;
    pub const ORIGINATOR_ID: u8 = 9;
    pub const CLUSTER_LIST: u8 = 10;
    pub const MP_REACH_NLRI: u8 = 14;
    pub const MP_UNREACH_NLRI: u8 = 15;
    pub const EXTENDED_COMMUNITIES: u8 = 16;
    pub const AS4_PATH: u8 = 17;
    pub const AS4_AGGREGATOR: u8 = 18;
    pub const AIGP: u8 = 26;
    pub const BGP_LS: u8 = 29;
    pub const LARGE_COMMUNITIES: u8 = 32;
    pub const OTC: u8 = 35;
    pub const NEXT_HOP_CAPABILITIES: u8 = 39;
    pub const PREFIX_SID: u8 = 40;
}

/// Attribute flag bits (RFC 4271 §4.3).
#[expect(missing_docs, reason = "the names are those of the RFC")]
pub mod flag {
    pub const OPTIONAL: u8 = 0x80;
    pub const TRANSITIVE: u8 = 0x40;
    pub const PARTIAL: u8 = 0x20;
    pub const EXTENDED_LENGTH: u8 = 0x10;
}

/// Well-known communities (RFC 1997, 8326, 9494).
#[expect(missing_docs, reason = "the names are those of the registry")]
pub mod community {
    pub const GRACEFUL_SHUTDOWN: u32 = 0xffff_0000;
    pub const LLGR_STALE: u32 = 0xffff_0006;
    pub const NO_LLGR: u32 = 0xffff_0007;
    pub const BLACKHOLE: u32 = 0xffff_029a;
    pub const NO_EXPORT: u32 = 0xffff_ff01;
    pub const NO_ADVERTISE: u32 = 0xffff_ff02;
    pub const NO_EXPORT_SUBCONFED: u32 = 0xffff_ff03;
    pub const NO_PEER: u32 = 0xffff_ff04;
}
