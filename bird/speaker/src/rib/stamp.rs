//! A prefix with the time at which something about it changed, in the octets that a prefix leaves unused.
//!
//! A table holds a million of them: a field of its own for the time would cost four octets or eight for each.

use bird_packet::{Prefix4, Prefix6};

/// Stamps have this many bits.
const BITS: u32 = 24;
/// The latest stamp.
pub(crate) const LATEST: u32 = (1 << BITS) - 1;

/// A prefix `N` and a stamp of 24 bits.
pub(crate) trait Stamped<N>: Copy {
    fn new(net: N, stamp: u32) -> Self;
    fn net(self) -> N;
    fn is(self, net: N) -> bool;
    fn stamp(self) -> u32;
    fn set_stamp(&mut self, stamp: u32);
}

/// [`Prefix4::key`] has 40 bits.
#[derive(Clone, Copy)]
pub(crate) struct Stamped4(u64);

impl Stamped<Prefix4> for Stamped4 {
    #[inline]
    fn new(net: Prefix4, stamp: u32) -> Self {
        Stamped4((net.key() << BITS) | u64::from(stamp & LATEST))
    }

    #[inline]
    fn net(self) -> Prefix4 {
        Prefix4::from_key(self.0 >> BITS)
    }

    #[inline]
    fn is(self, net: Prefix4) -> bool {
        self.0 >> BITS == net.key()
    }

    #[inline]
    fn stamp(self) -> u32 {
        let [.., a, b, c] = self.0.to_be_bytes();
        u32::from_be_bytes([0, a, b, c])
    }

    #[inline]
    fn set_stamp(&mut self, stamp: u32) {
        self.0 = (self.0 & !u64::from(LATEST)) | u64::from(stamp & LATEST);
    }
}

/// A [`Prefix6`] has seven octets of padding, of which nobody else can make use.
#[derive(Clone, Copy)]
pub(crate) struct Stamped6 {
    hi: u64,
    lo: u64,
    len: u8,
    stamp: [u8; 3],
}

impl Stamped<Prefix6> for Stamped6 {
    #[inline]
    fn new(net: Prefix6, stamp: u32) -> Self {
        let (hi, lo) = net.halves();
        let [_, stamp @ ..] = stamp.to_be_bytes();
        Stamped6 { hi, lo, len: net.len(), stamp }
    }

    #[inline]
    fn net(self) -> Prefix6 {
        Prefix6::from_halves(self.hi, self.lo, self.len)
    }

    #[inline]
    fn is(self, net: Prefix6) -> bool {
        (self.hi, self.lo) == net.halves() && self.len == net.len()
    }

    #[inline]
    fn stamp(self) -> u32 {
        let [a, b, c] = self.stamp;
        u32::from_be_bytes([0, a, b, c])
    }

    #[inline]
    fn set_stamp(&mut self, stamp: u32) {
        let [_, stamp @ ..] = stamp.to_be_bytes();
        self.stamp = stamp;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bird_packet::Prefix;

    fn check<N: Copy + PartialEq + std::fmt::Debug, S: Stamped<N>>(net: N, other: N) {
        for stamp in [0, 1, 77, LATEST] {
            let mut s = S::new(net, stamp);
            assert_eq!((s.net(), s.stamp()), (net, stamp));
            assert!(s.is(net) && !s.is(other));
            s.set_stamp(5);
            assert_eq!((s.net(), s.stamp()), (net, 5));
        }
    }

    #[test]
    fn neither_disturbs_the_other_and_there_is_no_growth() {
        for (net, other) in [("0.0.0.0/0", "0.0.0.0/1"), ("255.255.255.255/32", "255.255.255.254/32")] {
            let [Prefix::V4(net), Prefix::V4(other)] = [net, other].map(|n| n.parse().unwrap()) else {
                panic!("IPv4")
            };
            check::<Prefix4, Stamped4>(net, other);
        }
        for (net, other) in [("::/0", "::/1"), ("ffff::ffff/128", "ffff::fffe/128"), ("fd00::/8", "fd00::/9")]
        {
            let [Prefix::V6(net), Prefix::V6(other)] = [net, other].map(|n| n.parse().unwrap()) else {
                panic!("IPv6")
            };
            check::<Prefix6, Stamped6>(net, other);
        }
        assert_eq!(size_of::<Stamped4>(), size_of::<Prefix4>());
        assert_eq!(size_of::<Stamped6>(), size_of::<Prefix6>());
    }
}
