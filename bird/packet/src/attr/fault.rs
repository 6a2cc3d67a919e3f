//! What can be wrong with an attribute, and how to say it.

use std::fmt;

use crate::attr::code;

/// What is wrong with an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Optional or Transitive bit against the definition.
    Flags,
    /// A length its definition does not allow.
    Length,
    /// ORIGIN above 2.
    Origin,
    /// AS_PATH segments: type, count, overrun or trailing bytes.
    AsPath,
    /// AS 0 (RFC 7607).
    AsZero,
    /// Confederation segments from outside the confederation.
    ConfedSegment,
    /// The path does not start with the peer's AS.
    FirstAs,
    /// An AS_SET where they are not accepted (RFC 9774).
    AsSet,
    /// A next hop that cannot be one: 0/8, 127/8, multicast, reserved.
    NextHop,
    /// A mandatory attribute is not there.
    Missing,
    /// A well-known attribute that nobody knows.
    UnknownWellKnown,
    /// The attribute, or the rest of the list, overruns the attribute area.
    Truncated,
    /// A second one of the same type.
    Duplicate,
    /// Only meant for inside an AS, but came from outside.
    FromExternal,
    /// AS4_PATH or AS4_AGGREGATOR from a peer that has 4-octet AS numbers.
    FromAs4Peer,
    /// Attribute type 0.
    TypeZero,
    /// An inner structure that overruns.
    Tlv,
    /// Too long to be written with 4-octet AS numbers.
    TooLong,
}

impl Fault {
    /// The UPDATE error subcode for it, where a reset must be sent.
    pub(crate) fn subcode(self) -> u8 {
        match self {
            Fault::Flags => 4,
            Fault::Length => 5,
            Fault::Origin => 6,
            Fault::NextHop => 8,
            Fault::AsPath | Fault::AsZero | Fault::ConfedSegment | Fault::FirstAs | Fault::AsSet => 11,
            Fault::Missing => 3,
            Fault::UnknownWellKnown => 2,
            Fault::Truncated | Fault::Duplicate | Fault::TooLong => 1,
            Fault::FromExternal | Fault::FromAs4Peer | Fault::TypeZero | Fault::Tlv => 9,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Fault::Flags => "wrong flags",
            Fault::Length => "wrong length",
            Fault::Origin => "unknown value",
            Fault::AsPath => "malformed segments",
            Fault::AsZero => "AS 0 in it",
            Fault::ConfedSegment => "confederation segment from outside the confederation",
            Fault::FirstAs => "does not start with the peer's AS",
            Fault::AsSet => "has an AS_SET",
            Fault::NextHop => "address cannot be a next hop",
            Fault::Missing => "missing",
            Fault::UnknownWellKnown => "unknown well-known attribute",
            Fault::Truncated => "overruns the attribute list",
            Fault::Duplicate => "appears again",
            Fault::FromExternal => "from an external peer",
            Fault::FromAs4Peer => "from a peer with 4-octet AS numbers",
            Fault::TypeZero => "attribute type 0",
            Fault::Tlv => "inner structure overruns",
            Fault::TooLong => "too long with 4-octet AS numbers",
        }
    }
}

/// Why the routes of an UPDATE are treated as withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reason {
    /// The attribute type, 0 when the list itself is broken before one could be read.
    pub code: u8,
    /// What is wrong with it.
    pub fault: Fault,
}

/// An attribute that was dropped; the rest of the UPDATE stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Discarded {
    /// The attribute type.
    pub code: u8,
    /// Why.
    pub fault: Fault,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe(f, self.code, self.fault)
    }
}

impl fmt::Display for Discarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        describe(f, self.code, self.fault)
    }
}

fn describe(f: &mut fmt::Formatter<'_>, code: u8, fault: Fault) -> fmt::Result {
    match name(code) {
        Some(name) => write!(f, "{name}: {}", fault.text()),
        None => write!(f, "attribute {code}: {}", fault.text()),
    }
}

fn name(code: u8) -> Option<&'static str> {
    Some(match code {
        code::ORIGIN => "ORIGIN",
        code::AS_PATH => "AS_PATH",
        code::NEXT_HOP => "NEXT_HOP",
        code::MED => "MULTI_EXIT_DISC",
        code::LOCAL_PREF => "LOCAL_PREF",
        code::ATOMIC_AGGREGATE => "ATOMIC_AGGREGATE",
        code::AGGREGATOR => "AGGREGATOR",
        code::COMMUNITIES => "COMMUNITIES",
        code::ORIGINATOR_ID => "ORIGINATOR_ID",
        code::CLUSTER_LIST => "CLUSTER_LIST",
        code::MP_REACH_NLRI => "MP_REACH_NLRI",
        code::MP_UNREACH_NLRI => "MP_UNREACH_NLRI",
        code::EXTENDED_COMMUNITIES => "EXTENDED_COMMUNITIES",
        code::AS4_PATH => "AS4_PATH",
        code::AS4_AGGREGATOR => "AS4_AGGREGATOR",
        code::AIGP => "AIGP",
        code::LARGE_COMMUNITIES => "LARGE_COMMUNITIES",
        code::OTC => "OTC",
        code::PREFIX_SID => "PREFIX_SID",
        _ => return None,
    })
}
