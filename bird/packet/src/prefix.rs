//! Prefixes as small copyable values, and address families.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address family and subsequent address family as carried on the wire, known to us or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AfiSafi {
    /// Address family identifier (1 = IPv4, 2 = IPv6).
    pub afi: u16,
    /// Subsequent address family identifier (1 = unicast).
    pub safi: u8,
}

impl fmt::Display for AfiSafi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.family() {
            Some(family) => family.fmt(f),
            None => write!(f, "afi {} safi {}", self.afi, self.safi),
        }
    }
}

impl AfiSafi {
    /// The family, when it is one this codec can carry.
    pub fn family(self) -> Option<Family> {
        match (self.afi, self.safi) {
            (1, 1) => Some(Family::Ipv4Unicast),
            (2, 1) => Some(Family::Ipv6Unicast),
            _ => None,
        }
    }
}

/// The families this codec decodes and encodes routes of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// AFI 1, SAFI 1.
    Ipv4Unicast,
    /// AFI 2, SAFI 1.
    Ipv6Unicast,
}

impl Family {
    /// Every family, in index order.
    pub const ALL: [Family; 2] = [Family::Ipv4Unicast, Family::Ipv6Unicast];

    /// 0 for IPv4, 1 for IPv6: for tables of two.
    pub fn index(self) -> usize {
        match self {
            Family::Ipv4Unicast => 0,
            Family::Ipv6Unicast => 1,
        }
    }

    /// The longest prefix length of the family.
    pub fn max_bits(self) -> u8 {
        match self {
            Family::Ipv4Unicast => 32,
            Family::Ipv6Unicast => 128,
        }
    }
}

impl From<Family> for AfiSafi {
    fn from(family: Family) -> Self {
        match family {
            Family::Ipv4Unicast => AfiSafi { afi: 1, safi: 1 },
            Family::Ipv6Unicast => AfiSafi { afi: 2, safi: 1 },
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Ipv4Unicast => "ipv4",
            Family::Ipv6Unicast => "ipv6",
        })
    }
}

/// An IPv4 prefix, host bits always zero; 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix4 {
    bits: u32,
    len: u8,
}

/// An IPv6 prefix, host bits always zero; 24 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix6 {
    hi: u64,
    lo: u64,
    len: u8,
}

/// A prefix of either family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prefix {
    /// IPv4.
    V4(Prefix4),
    /// IPv6.
    V6(Prefix6),
}

impl Prefix4 {
    /// The default route, 0.0.0.0/0.
    pub const DEFAULT: Prefix4 = Prefix4 { bits: 0, len: 0 };

    /// Masks host bits away; `None` when `len` is above 32.
    #[inline]
    pub fn new(addr: Ipv4Addr, len: u8) -> Option<Self> {
        (len <= 32).then(|| Self::masked(addr.to_bits(), len))
    }

    /// `len` must be at most 32, larger values are read as 32.
    #[inline]
    pub(crate) fn masked(bits: u32, len: u8) -> Self {
        let len = len.min(32);
        Self { bits: bits & mask4(len), len }
    }

    /// The network address.
    #[inline]
    pub fn addr(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.bits)
    }

    /// The network address as a number.
    #[inline]
    pub fn bits(self) -> u32 {
        self.bits
    }

    /// The prefix length, 0 to 32.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a prefix length, not a container's")]
    pub fn len(self) -> u8 {
        self.len
    }

    /// Address and length in one word, `addr << 8 | len`: a cheap, ordered map key.
    #[inline]
    pub fn key(self) -> u64 {
        (u64::from(self.bits) << 8) | u64::from(self.len)
    }

    /// The prefix that [`Prefix4::key`] gave; a length above 32 is read as 32.
    #[inline]
    pub fn from_key(key: u64) -> Self {
        let [.., a, b, c, d, len] = key.to_be_bytes();
        Self::masked(u32::from_be_bytes([a, b, c, d]), len)
    }

    /// Whether `other` is this prefix or lies inside it.
    #[inline]
    pub fn contains(self, other: Prefix4) -> bool {
        other.len >= self.len && (other.bits & mask4(self.len)) == self.bits
    }

    /// Whether the address lies inside the prefix.
    #[inline]
    pub fn contains_addr(self, addr: Ipv4Addr) -> bool {
        (addr.to_bits() & mask4(self.len)) == self.bits
    }

    /// False for what can never be a unicast destination: parts of 0/8, 127/8 and 224/4
    /// (RFC 4271 §6.3: such a prefix is ignored, the rest of the message stands).
    #[inline]
    pub fn is_routable(self) -> bool {
        let first = self.bits >> 24;
        !((self.len >= 8 && (first == 0 || first == 127)) || (self.len >= 4 && (first >> 4) == 14))
    }
}

impl Prefix6 {
    /// The default route, ::/0.
    pub const DEFAULT: Prefix6 = Prefix6 { hi: 0, lo: 0, len: 0 };

    /// Masks host bits away; `None` when `len` is above 128.
    #[inline]
    pub fn new(addr: Ipv6Addr, len: u8) -> Option<Self> {
        (len <= 128).then(|| Self::masked(addr.to_bits(), len))
    }

    /// `len` must be at most 128, larger values are read as 128.
    #[inline]
    pub(crate) fn masked(bits: u128, len: u8) -> Self {
        let len = len.min(128);
        let bits = bits & mask6(len);
        let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0);
        Self { hi: half(bits >> 64), lo: half(bits), len }
    }

    /// The network address.
    #[inline]
    pub fn addr(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.bits())
    }

    /// The network address as a number.
    #[inline]
    pub fn bits(self) -> u128 {
        (u128::from(self.hi) << 64) | u128::from(self.lo)
    }

    /// The network address as two numbers, the upper half first.
    #[inline]
    pub fn halves(self) -> (u64, u64) {
        (self.hi, self.lo)
    }

    /// The prefix of which [`Prefix6::halves`] gave the address; a length above 128 is read as 128.
    #[inline]
    pub fn from_halves(hi: u64, lo: u64, len: u8) -> Self {
        Self::masked((u128::from(hi) << 64) | u128::from(lo), len)
    }

    /// The prefix length, 0 to 128.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a prefix length, not a container's")]
    pub fn len(self) -> u8 {
        self.len
    }

    /// Whether `other` is this prefix or lies inside it.
    #[inline]
    pub fn contains(self, other: Prefix6) -> bool {
        other.len >= self.len && (other.bits() & mask6(self.len)) == self.bits()
    }

    /// Whether the address lies inside the prefix.
    #[inline]
    pub fn contains_addr(self, addr: Ipv6Addr) -> bool {
        (addr.to_bits() & mask6(self.len)) == self.bits()
    }

    /// False for multicast, link-local, loopback and unspecified destinations.
    #[inline]
    pub fn is_routable(self) -> bool {
        let top = self.hi >> 48;
        !((self.len >= 8 && (top >> 8) == 0xff)
            || (self.len >= 10 && (top & 0xffc0) == 0xfe80)
            || (self.len >= 127 && self.hi == 0 && self.lo <= 1))
    }
}

impl Prefix {
    /// Masks host bits away; `None` when `len` is too long for the family.
    pub fn new(addr: IpAddr, len: u8) -> Option<Self> {
        match addr {
            IpAddr::V4(addr) => Prefix4::new(addr, len).map(Prefix::V4),
            IpAddr::V6(addr) => Prefix6::new(addr, len).map(Prefix::V6),
        }
    }

    /// The host route of an address.
    pub fn host(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => Prefix::V4(Prefix4::masked(addr.to_bits(), 32)),
            IpAddr::V6(addr) => Prefix::V6(Prefix6::masked(addr.to_bits(), 128)),
        }
    }

    /// The default route of a family.
    pub fn default_route(family: Family) -> Self {
        match family {
            Family::Ipv4Unicast => Prefix::V4(Prefix4::DEFAULT),
            Family::Ipv6Unicast => Prefix::V6(Prefix6::DEFAULT),
        }
    }

    /// The network address.
    pub fn addr(self) -> IpAddr {
        match self {
            Prefix::V4(p) => IpAddr::V4(p.addr()),
            Prefix::V6(p) => IpAddr::V6(p.addr()),
        }
    }

    /// The prefix length.
    #[expect(clippy::len_without_is_empty, reason = "a prefix length, not a container's")]
    pub fn len(self) -> u8 {
        match self {
            Prefix::V4(p) => p.len(),
            Prefix::V6(p) => p.len(),
        }
    }

    /// The unicast family the prefix belongs to.
    pub fn family(self) -> Family {
        match self {
            Prefix::V4(_) => Family::Ipv4Unicast,
            Prefix::V6(_) => Family::Ipv6Unicast,
        }
    }

    /// Whether `other` is this prefix or lies inside it; never across families.
    pub fn contains(self, other: Prefix) -> bool {
        match (self, other) {
            (Prefix::V4(a), Prefix::V4(b)) => a.contains(b),
            (Prefix::V6(a), Prefix::V6(b)) => a.contains(b),
            _ => false,
        }
    }

    /// Whether the address lies inside the prefix.
    pub fn contains_addr(self, addr: IpAddr) -> bool {
        match (self, addr) {
            (Prefix::V4(p), IpAddr::V4(a)) => p.contains_addr(a),
            (Prefix::V6(p), IpAddr::V6(a)) => p.contains_addr(a),
            _ => false,
        }
    }

    /// Whether the prefix can be a unicast destination at all.
    pub fn is_routable(self) -> bool {
        match self {
            Prefix::V4(p) => p.is_routable(),
            Prefix::V6(p) => p.is_routable(),
        }
    }
}

impl From<Prefix4> for Prefix {
    fn from(p: Prefix4) -> Self {
        Prefix::V4(p)
    }
}

impl From<Prefix6> for Prefix {
    fn from(p: Prefix6) -> Self {
        Prefix::V6(p)
    }
}

impl fmt::Display for Prefix4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr(), self.len)
    }
}

impl fmt::Display for Prefix6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr(), self.len)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Prefix::V4(p) => p.fmt(f),
            Prefix::V6(p) => p.fmt(f),
        }
    }
}

impl fmt::Debug for Prefix4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Prefix6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text was not a prefix in CIDR notation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a prefix: write an address, a slash and a length, such as 10.1.0.0/16")]
pub struct PrefixError {
    text: String,
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// Reads `address/length`; a bare address is its host route; host bits are masked away.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let error = || PrefixError { text: text.to_owned() };
        let Some((addr, len)) = text.split_once('/') else {
            return text.parse().map(Prefix::host).map_err(|_| error());
        };
        let addr: IpAddr = addr.parse().map_err(|_| error())?;
        let len: u8 = len.parse().map_err(|_| error())?;
        Prefix::new(addr, len).ok_or_else(error)
    }
}

#[inline]
pub(crate) fn mask4(len: u8) -> u32 {
    u32::MAX.checked_shl(32u32.saturating_sub(u32::from(len))).unwrap_or(0)
}

#[inline]
pub(crate) fn mask6(len: u8) -> u128 {
    u128::MAX.checked_shl(128u32.saturating_sub(u32::from(len))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn host_bits_are_masked_and_text_round_trips() {
        assert_eq!(p("10.1.2.3/16").to_string(), "10.1.0.0/16");
        assert_eq!(p("fd00::1:2:3/64").to_string(), "fd00::/64");
        assert_eq!(p("0.0.0.0/0"), Prefix::default_route(Family::Ipv4Unicast));
        assert_eq!(p("10.1.2.3").to_string(), "10.1.2.3/32");
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "/8", "10.0.0.0/-1"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_are_ordered_and_reversible() {
        let mut keys = Vec::new();
        for text in ["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9", "255.255.255.255/32"] {
            let Prefix::V4(v4) = p(text) else { unreachable!() };
            assert_eq!(Prefix4::from_key(v4.key()), v4);
            keys.push(v4.key());
        }
        assert!(keys.is_sorted());
    }

    #[test]
    fn containment_follows_the_bits() {
        assert!(p("0.0.0.0/0").contains(p("1.2.3.4/32")));
        assert!(p("10.0.0.0/8").contains(p("10.0.0.0/8")));
        assert!(!p("10.0.0.0/9").contains(p("10.0.0.0/8")));
        assert!(!p("0.0.0.0/0").contains(p("::/0")));
        assert!(p("fd00::/8").contains_addr("fdff::1".parse().unwrap()));
    }

    #[test]
    fn silly_destinations_are_not_routable() {
        for bad in [
            "0.1.0.0/16",
            "127.0.0.0/8",
            "224.0.0.0/4",
            "239.1.1.1/32",
            "ff02::/16",
            "fe80::/64",
            "::1/128",
            "::/128",
        ] {
            assert!(!p(bad).is_routable(), "{bad}");
        }
        for good in [
            "0.0.0.0/0",
            "0.0.0.0/1",
            "128.0.0.0/1",
            "10.0.0.0/8",
            "240.0.0.0/4",
            "::/0",
            "fd00::/8",
            "::/64",
            "8000::/1",
        ] {
            assert!(p(good).is_routable(), "{good}");
        }
    }
}
