//! What a session agreed on, as far as bytes depend on it.

use crate::header::MAX_LEN;
use crate::prefix::Family;

/// How the peer relates to us; several attributes are read differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerKind {
    /// Another AS.
    External,
    /// Our own AS.
    Internal,
    /// Another member AS of our confederation (RFC 5065).
    Confederation,
}

/// What was negotiated for one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FamilyContext {
    /// Both sides announced the family.
    pub enabled: bool,
    /// The peer sends path identifiers (RFC 7911).
    pub add_path_rx: bool,
    /// We send path identifiers.
    pub add_path_tx: bool,
    /// IPv4 routes may have IPv6 next hops (RFC 8950).
    pub ext_nexthop: bool,
}

/// Everything outside a message that its bytes depend on. The speaker computes it from two OPENs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionContext {
    /// AS numbers take four octets (RFC 6793).
    pub as4: bool,
    /// Internal, external or confederation.
    pub kind: PeerKind,
    /// The peer's AS, used by `enforce_first_as`.
    pub peer_as: u32,
    /// An external path must start with the peer's AS.
    pub enforce_first_as: bool,
    /// Paths with AS_SET are withdrawn (RFC 9774).
    pub reject_as_sets: bool,
    /// The longest message the peer takes from us.
    pub max_len: usize,
    /// By [`Family::index`].
    pub families: [FamilyContext; 2],
}

impl SessionContext {
    /// A session with nothing negotiated but IPv4 unicast, 4-octet AS numbers and 4096-byte messages.
    pub fn new(kind: PeerKind) -> Self {
        Self {
            as4: true,
            kind,
            peer_as: 0,
            enforce_first_as: false,
            reject_as_sets: false,
            max_len: MAX_LEN,
            families: [FamilyContext { enabled: true, ..FamilyContext::default() }, FamilyContext::default()],
        }
    }

    /// What was negotiated for `family`.
    #[inline]
    pub fn family(&self, family: Family) -> &FamilyContext {
        let [v4, v6] = &self.families;
        match family {
            Family::Ipv4Unicast => v4,
            Family::Ipv6Unicast => v6,
        }
    }

    /// The same, to be changed.
    pub fn family_mut(&mut self, family: Family) -> &mut FamilyContext {
        let [v4, v6] = &mut self.families;
        match family {
            Family::Ipv4Unicast => v4,
            Family::Ipv6Unicast => v6,
        }
    }

    /// Whether attributes meant for inside an AS are dropped.
    #[inline]
    pub fn is_external(&self) -> bool {
        self.kind == PeerKind::External
    }
}
