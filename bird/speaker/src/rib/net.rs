//! What a table needs of a prefix type.

use std::collections::HashSet;
use std::fmt::Debug;
use std::net::IpAddr;

use bird_packet::{Family, Prefix, Prefix4, Prefix6, WirePrefix};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::stamp::{Stamped, Stamped4, Stamped6};

/// A prefix of one family.
pub(crate) trait Net: Copy + Eq + Ord + std::hash::Hash + Debug + WirePrefix + 'static {
    const FAMILY: Family;
    /// With a time beside it.
    type Stamped: Stamped<Self>;
    /// Fills unused slots.
    const DEFAULT: Self;
    fn hash(self, seed: u64) -> u64;
    fn to_prefix(self) -> Prefix;
    fn from_prefix(prefix: Prefix) -> Option<Self>;
    /// `other` is the same or inside.
    fn contains(self, other: Self) -> bool;
    /// The prefix of `len` bits that contains this one; itself if it is shorter.
    fn shorten(self, len: u8) -> Self;
    fn bits(self) -> u8;
    fn from_ipnet(net: IpNet) -> Option<Self>;
    fn to_ipnet(self) -> IpNet;
}

/// Folded multiply: both halves of a 128-bit product depend on all bits of both factors.
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let [h0, h1, h2, h3, h4, h5, h6, h7, l0, l1, l2, l3, l4, l5, l6, l7] = product.to_be_bytes();
    u64::from_be_bytes([h0, h1, h2, h3, h4, h5, h6, h7])
        ^ u64::from_be_bytes([l0, l1, l2, l3, l4, l5, l6, l7])
}

const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Net for Prefix4 {
    const FAMILY: Family = Family::Ipv4Unicast;
    type Stamped = Stamped4;
    const DEFAULT: Self = Prefix4::DEFAULT;

    #[inline]
    fn hash(self, seed: u64) -> u64 {
        mix(self.key() ^ seed, ODD)
    }

    fn to_prefix(self) -> Prefix {
        Prefix::V4(self)
    }

    fn from_prefix(prefix: Prefix) -> Option<Self> {
        match prefix {
            Prefix::V4(p) => Some(p),
            Prefix::V6(_) => None,
        }
    }

    #[inline]
    fn contains(self, other: Self) -> bool {
        Prefix4::contains(self, other)
    }

    fn shorten(self, len: u8) -> Self {
        Prefix4::new(self.addr(), len.min(self.len())).expect("invariant: not longer than before")
    }

    fn bits(self) -> u8 {
        self.len()
    }

    fn from_ipnet(net: IpNet) -> Option<Self> {
        match net {
            IpNet::V4(net) => Prefix4::new(net.addr(), net.prefix_len()),
            IpNet::V6(_) => None,
        }
    }

    fn to_ipnet(self) -> IpNet {
        IpNet::V4(Ipv4Net::new(self.addr(), self.len()).expect("invariant: a Prefix4 has at most 32 bits"))
    }
}

impl Net for Prefix6 {
    const FAMILY: Family = Family::Ipv6Unicast;
    type Stamped = Stamped6;
    const DEFAULT: Self = Prefix6::DEFAULT;

    #[inline]
    fn hash(self, seed: u64) -> u64 {
        let bits = self.bits().to_be_bytes();
        let [hi @ .., _, _, _, _, _, _, _, _] = bits;
        let [_, _, _, _, _, _, _, _, lo @ ..] = bits;
        mix(mix(u64::from_be_bytes(hi) ^ seed, ODD) ^ u64::from_be_bytes(lo), ODD ^ u64::from(self.len()))
    }

    fn to_prefix(self) -> Prefix {
        Prefix::V6(self)
    }

    fn from_prefix(prefix: Prefix) -> Option<Self> {
        match prefix {
            Prefix::V6(p) => Some(p),
            Prefix::V4(_) => None,
        }
    }

    #[inline]
    fn contains(self, other: Self) -> bool {
        Prefix6::contains(self, other)
    }

    fn shorten(self, len: u8) -> Self {
        Prefix6::new(self.addr(), len.min(self.len())).expect("invariant: not longer than before")
    }

    fn bits(self) -> u8 {
        self.len()
    }

    fn from_ipnet(net: IpNet) -> Option<Self> {
        match net {
            IpNet::V6(net) => Prefix6::new(net.addr(), net.prefix_len()),
            IpNet::V4(_) => None,
        }
    }

    fn to_ipnet(self) -> IpNet {
        IpNet::V6(Ipv6Net::new(self.addr(), self.len()).expect("invariant: a Prefix6 has at most 128 bits"))
    }
}

/// The prefix of an [`IpNet`], host bits masked.
pub(crate) fn prefix_of(net: IpNet) -> Prefix {
    Prefix::new(net.addr(), net.prefix_len()).expect("invariant: an IpNet has a valid length")
}

/// Orders addresses of both families as numbers; for the last step of the decision process.
pub(crate) fn address_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    }
}

/// A set of prefixes, asked whether it covers another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cover<N: Net> {
    list: Vec<N>,
    /// Lengths that occur, when there are too many prefixes to try one by one.
    lengths: Vec<u8>,
    set: HashSet<N, foldhash::fast::FixedState>,
}

impl<N: Net> Default for Cover<N> {
    fn default() -> Self {
        Cover { list: Vec::new(), lengths: Vec::new(), set: HashSet::default() }
    }
}

impl<N: Net> Cover<N> {
    /// Those of the prefixes that are of this family.
    pub(crate) fn new(nets: &[IpNet]) -> Self {
        let mut list: Vec<N> = nets.iter().filter_map(|net| N::from_ipnet(*net)).collect();
        list.sort_unstable();
        list.dedup();
        let mut lengths: Vec<u8> = list.iter().map(|n| n.bits()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let set = if list.len() > FEW { list.iter().copied().collect() } else { HashSet::default() };
        Cover { list, lengths, set }
    }

    /// Whether `net` is one of the prefixes or inside one.
    pub(crate) fn covers(&self, net: N) -> bool {
        if self.list.len() <= FEW {
            return self.list.iter().any(|c| c.contains(net));
        }
        self.lengths
            .iter()
            .take_while(|len| **len <= net.bits())
            .any(|len| self.set.contains(&net.shorten(*len)))
    }

    /// Whether `net` is one of the prefixes.
    pub(crate) fn has(&self, net: N) -> bool {
        self.list.binary_search(&net).is_ok()
    }
}

/// Up to here trying all is faster than hashing.
const FEW: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covers_the_same_however_many_there_are() {
        let few = ["10.0.0.0/8", "192.168.0.0/16"];
        let more = ["10.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12", "1.0.0.0/24", "2.0.0.0/25", "fd00::/8"];
        for nets in [&few[..], &more[..]] {
            let nets: Vec<IpNet> = nets.iter().map(|n| n.parse().unwrap()).collect();
            let cover = Cover::<Prefix4>::new(&nets);
            for (text, covered) in [
                ("10.0.0.0/8", true),
                ("10.1.0.0/16", true),
                ("0.0.0.0/0", false),
                ("192.168.0.0/15", false),
                ("11.0.0.0/8", false),
            ] {
                let net = Prefix4::from_ipnet(text.parse().unwrap()).unwrap();
                assert_eq!(cover.covers(net), covered, "{text}");
                assert_eq!(cover.has(net), covered && text == "10.0.0.0/8");
            }
        }
    }
}
