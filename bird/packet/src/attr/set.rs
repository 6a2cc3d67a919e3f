//! Reading canonical attribute bytes.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::attr::{AsPath, code, flag};
use crate::cursor::Cursor;

/// Where a route came from originally.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// 0: preferred.
    Igp,
    /// 1.
    Egp,
    /// 2.
    Incomplete,
}

impl Origin {
    /// The attribute value.
    pub fn code(self) -> u8 {
        match self {
            Origin::Igp => 0,
            Origin::Egp => 1,
            Origin::Incomplete => 2,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Igp => "IGP",
            Origin::Egp => "EGP",
            Origin::Incomplete => "incomplete",
        })
    }
}

/// A large community (RFC 8092).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity {
    /// The AS that gives the rest a meaning.
    pub global: u32,
    /// First local part.
    pub local1: u32,
    /// Second local part.
    pub local2: u32,
}

impl LargeCommunity {
    /// Its twelve octets.
    pub fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        let words = [self.global, self.local1, self.local2];
        for (slot, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *slot = word.to_be_bytes();
        }
        bytes
    }

    /// From twelve octets.
    pub fn from_bytes(bytes: [u8; 12]) -> Self {
        let mut words = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word));
        let mut next = || words.next().unwrap_or_default();
        Self { global: next(), local1: next(), local2: next() }
    }
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.global, self.local1, self.local2)
    }
}

impl FromStr for LargeCommunity {
    type Err = std::num::ParseIntError;

    /// Reads `global:local:local`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, ':').map(str::parse);
        let mut next = || parts.next().unwrap_or_else(|| "".parse());
        Ok(Self { global: next()?, local1: next()?, local2: next()? })
    }
}

/// One attribute of canonical bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr<'a> {
    /// Flags, without the extended-length bit.
    pub flags: u8,
    /// The type code.
    pub code: u8,
    /// The value.
    pub value: &'a [u8],
}

impl Attr<'_> {
    /// Whether somebody on the way did not understand it.
    pub fn is_partial(&self) -> bool {
        self.flags & flag::PARTIAL != 0
    }
}

/// See [`AttrSet::iter`].
#[derive(Clone, Debug)]
pub struct AttrIter<'a> {
    c: Cursor<'a>,
}

impl<'a> AttrIter<'a> {
    /// The bytes of the attributes still to come.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.c.rest()
    }

    fn read(&mut self) -> Option<Attr<'a>> {
        let [flags, code] = self.c.array::<2>().ok()?;
        let len = if flags & flag::EXTENDED_LENGTH == 0 {
            usize::from(self.c.u8().ok()?)
        } else {
            usize::from(self.c.u16().ok()?)
        };
        let value = self.c.take(len).ok()?;
        Some(Attr { flags: flags & !flag::EXTENDED_LENGTH, code, value })
    }
}

impl<'a> Iterator for AttrIter<'a> {
    type Item = Attr<'a>;

    #[inline]
    fn next(&mut self) -> Option<Attr<'a>> {
        self.read()
    }
}

/// A reader over canonical attribute bytes (see the module). Other bytes give fewer attributes, never a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttrSet<'a> {
    bytes: &'a [u8],
}

impl<'a> AttrSet<'a> {
    /// Over canonical bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The bytes.
    pub fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Every attribute in order of type.
    pub fn iter(self) -> AttrIter<'a> {
        AttrIter { c: Cursor::new(self.bytes) }
    }

    /// The attribute of a type.
    pub fn find(self, code: u8) -> Option<Attr<'a>> {
        self.iter().find(|a| a.code >= code).filter(|a| a.code == code)
    }

    fn value(self, code: u8) -> &'a [u8] {
        self.find(code).map_or(&[], |a| a.value)
    }

    fn number(self, code: u8) -> Option<u32> {
        self.find(code)?.value.as_array().map(|v| u32::from_be_bytes(*v))
    }

    /// ORIGIN; incomplete when it is missing.
    pub fn origin(self) -> Origin {
        match self.value(code::ORIGIN) {
            [0] => Origin::Igp,
            [1] => Origin::Egp,
            _ => Origin::Incomplete,
        }
    }

    /// AS_PATH, empty when it is missing.
    pub fn as_path(self) -> AsPath<'a> {
        AsPath::new(self.value(code::AS_PATH))
    }

    /// MULTI_EXIT_DISC.
    pub fn med(self) -> Option<u32> {
        self.number(code::MED)
    }

    /// LOCAL_PREF.
    pub fn local_pref(self) -> Option<u32> {
        self.number(code::LOCAL_PREF)
    }

    /// Whether ATOMIC_AGGREGATE is there.
    pub fn atomic_aggregate(self) -> bool {
        self.find(code::ATOMIC_AGGREGATE).is_some()
    }

    /// AGGREGATOR: AS and router.
    pub fn aggregator(self) -> Option<(u32, Ipv4Addr)> {
        let (asn, id) = self.value(code::AGGREGATOR).split_first_chunk::<4>()?;
        Some((u32::from_be_bytes(*asn), Ipv4Addr::from(*id.as_array::<4>()?)))
    }

    /// COMMUNITIES.
    pub fn communities(self) -> impl Iterator<Item = u32> + 'a {
        self.value(code::COMMUNITIES).as_chunks::<4>().0.iter().map(|c| u32::from_be_bytes(*c))
    }

    /// Whether a community is there.
    pub fn has_community(self, community: u32) -> bool {
        self.communities().any(|c| c == community)
    }

    /// EXTENDED_COMMUNITIES, as octets.
    pub fn ext_communities(self) -> impl Iterator<Item = [u8; 8]> + 'a {
        self.value(code::EXTENDED_COMMUNITIES).as_chunks::<8>().0.iter().copied()
    }

    /// LARGE_COMMUNITIES.
    pub fn large_communities(self) -> impl Iterator<Item = LargeCommunity> + 'a {
        let list = self.value(code::LARGE_COMMUNITIES).as_chunks::<12>().0;
        list.iter().map(|c| LargeCommunity::from_bytes(*c))
    }

    /// ORIGINATOR_ID.
    pub fn originator_id(self) -> Option<Ipv4Addr> {
        self.number(code::ORIGINATOR_ID).map(Ipv4Addr::from_bits)
    }

    /// CLUSTER_LIST, nearest reflector first.
    pub fn cluster_list(self) -> impl ExactSizeIterator<Item = Ipv4Addr> + 'a {
        self.value(code::CLUSTER_LIST).as_chunks::<4>().0.iter().map(|c| Ipv4Addr::from(*c))
    }
}
