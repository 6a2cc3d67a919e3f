//! NLRI: prefixes on the wire, with a path identifier only where ADD-PATH was negotiated (RFC 7911).

use std::marker::PhantomData;

use crate::cursor::{Cursor, Short};
use crate::prefix::{Family, Prefix, Prefix4, Prefix6};

/// A prefix and its path identifier; 0 where ADD-PATH is not in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nlri<P = Prefix> {
    /// The destination.
    pub prefix: P,
    /// Which of several paths to it.
    pub path_id: u32,
}

impl<P> Nlri<P> {
    /// A prefix on a session without ADD-PATH.
    pub fn plain(prefix: P) -> Self {
        Self { prefix, path_id: 0 }
    }
}

impl<P: Into<Prefix>> Nlri<P> {
    /// The same route with the family as data.
    pub fn erase(self) -> Nlri {
        Nlri { prefix: self.prefix.into(), path_id: self.path_id }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Prefix4 {}
    impl Sealed for super::Prefix6 {}
    impl Sealed for super::Prefix {}
}

/// A prefix type that has a wire form.
pub trait WirePrefix: Copy + sealed::Sealed {
    /// Its family.
    fn family(&self) -> Family;
    /// Appends length and as many octets as it needs.
    fn put(&self, out: &mut Vec<u8>);
}

/// A prefix type that can be read from the wire.
pub trait ReadPrefix: WirePrefix {
    /// The longest prefix length.
    const MAX_BITS: u8;
    /// Reads a prefix; `None` when the bytes end or the length is too large.
    fn read(rest: &mut &[u8]) -> Option<Self>;
    /// Whether it can be a destination.
    fn routable(&self) -> bool;
}

impl WirePrefix for Prefix4 {
    #[inline]
    fn family(&self) -> Family {
        Family::Ipv4Unicast
    }

    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        let [a, b, c, d] = self.bits().to_be_bytes();
        let end = out.len().wrapping_add(octets(self.len())).wrapping_add(1);
        out.extend_from_slice(&[self.len(), a, b, c, d]);
        out.truncate(end);
    }
}

impl ReadPrefix for Prefix4 {
    const MAX_BITS: u8 = 32;

    #[inline]
    fn read(rest: &mut &[u8]) -> Option<Self> {
        if let Some(&[len, a, b, c, d]) = rest.first_chunk::<5>() {
            // The common case reads past the prefix and masks what it should not have read.
            if len > 32 {
                return None;
            }
            *rest = rest.get(octets(len).wrapping_add(1)..)?;
            return Some(Prefix4::masked(u32::from_be_bytes([a, b, c, d]), len));
        }
        let (len, bits) = read_short(rest, Self::MAX_BITS)?;
        let [a, b, c, d, ..] = bits;
        Some(Prefix4::masked(u32::from_be_bytes([a, b, c, d]), len))
    }

    #[inline]
    fn routable(&self) -> bool {
        self.is_routable()
    }
}

impl WirePrefix for Prefix6 {
    #[inline]
    fn family(&self) -> Family {
        Family::Ipv6Unicast
    }

    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        out.push(self.len());
        let end = out.len().wrapping_add(octets(self.len()));
        out.extend_from_slice(&self.bits().to_be_bytes());
        out.truncate(end);
    }
}

impl ReadPrefix for Prefix6 {
    const MAX_BITS: u8 = 128;

    #[inline]
    fn read(rest: &mut &[u8]) -> Option<Self> {
        if let Some((&len, tail)) = rest.split_first()
            && let Some(bits) = tail.first_chunk::<16>()
        {
            if len > 128 {
                return None;
            }
            *rest = tail.get(octets(len)..)?;
            return Some(Prefix6::masked(u128::from_be_bytes(*bits), len));
        }
        let (len, bits) = read_short(rest, Self::MAX_BITS)?;
        Some(Prefix6::masked(u128::from_be_bytes(bits), len))
    }

    #[inline]
    fn routable(&self) -> bool {
        self.is_routable()
    }
}

impl WirePrefix for Prefix {
    #[inline]
    fn family(&self) -> Family {
        (*self).family()
    }

    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Prefix::V4(p) => p.put(out),
            Prefix::V6(p) => p.put(out),
        }
    }
}

/// The prefixes of one NLRI field, in order; what can never be a destination is skipped.
#[derive(Clone, Debug)]
pub struct NlriIter<'a, P> {
    rest: &'a [u8],
    add_path: bool,
    prefix: PhantomData<P>,
}

impl<'a, P: ReadPrefix> NlriIter<'a, P> {
    pub(crate) fn new(bytes: &'a [u8], add_path: bool) -> Self {
        Self { rest: bytes, add_path, prefix: PhantomData }
    }

    #[inline]
    fn read(&mut self) -> Option<Nlri<P>> {
        let mut path_id = 0;
        if self.add_path {
            let (id, rest) = self.rest.split_first_chunk::<4>()?;
            path_id = u32::from_be_bytes(*id);
            self.rest = rest;
        }
        let prefix = P::read(&mut self.rest)?;
        Some(Nlri { prefix, path_id })
    }

    /// How many prefixes of the rest are skipped because they cannot be a destination.
    pub fn ignored(&self) -> usize {
        let mut all = self.clone();
        let mut ignored = 0usize;
        while let Some(nlri) = all.read() {
            ignored = ignored.saturating_add(usize::from(!nlri.prefix.routable()));
        }
        ignored
    }
}

impl<P: ReadPrefix> Iterator for NlriIter<'_, P> {
    type Item = Nlri<P>;

    #[inline]
    fn next(&mut self) -> Option<Nlri<P>> {
        loop {
            let nlri = self.read()?;
            if nlri.prefix.routable() {
                return Some(nlri);
            }
        }
    }
}

/// The routes of one NLRI field.
#[derive(Clone, Debug)]
pub enum Routes<'a> {
    /// IPv4 unicast.
    V4(NlriIter<'a, Prefix4>),
    /// IPv6 unicast.
    V6(NlriIter<'a, Prefix6>),
}

impl<'a> Routes<'a> {
    pub(crate) fn new(family: Family, bytes: &'a [u8], add_path: bool) -> Self {
        match family {
            Family::Ipv4Unicast => Routes::V4(NlriIter::new(bytes, add_path)),
            Family::Ipv6Unicast => Routes::V6(NlriIter::new(bytes, add_path)),
        }
    }

    /// The family of every route in it.
    pub fn family(&self) -> Family {
        match self {
            Routes::V4(_) => Family::Ipv4Unicast,
            Routes::V6(_) => Family::Ipv6Unicast,
        }
    }

    /// How many prefixes are skipped because they cannot be a destination (RFC 4271 §6.3).
    pub fn ignored(&self) -> usize {
        match self {
            Routes::V4(iter) => iter.ignored(),
            Routes::V6(iter) => iter.ignored(),
        }
    }
}

impl Iterator for Routes<'_> {
    type Item = Nlri;

    fn next(&mut self) -> Option<Nlri> {
        match self {
            Routes::V4(iter) => iter.next().map(Nlri::erase),
            Routes::V6(iter) => iter.next().map(Nlri::erase),
        }
    }
}

/// Whether a field holds whole prefixes of legal length and nothing else.
pub(crate) fn check(family: Family, bytes: &[u8], add_path: bool) -> Result<(), Short> {
    if !add_path {
        return check_plain(bytes, family.max_bits());
    }
    let mut c = Cursor::new(bytes);
    while !c.is_empty() {
        c.u32()?;
        let len = c.u8()?;
        if len > family.max_bits() {
            return Err(Short);
        }
        c.take(octets(len))?;
    }
    Ok(())
}

#[inline]
fn check_plain(bytes: &[u8], max_bits: u8) -> Result<(), Short> {
    let mut rest = bytes;
    while let Some((&len, tail)) = rest.split_first() {
        if len > max_bits {
            return Err(Short);
        }
        rest = tail.get(octets(len)..).ok_or(Short)?;
    }
    Ok(())
}

/// Octets that a prefix of `len` bits takes.
#[inline]
fn octets(len: u8) -> usize {
    usize::from(len).div_ceil(8)
}

/// A prefix near the end of its field, where fewer bytes follow than the family's longest prefix has.
fn read_short(rest: &mut &[u8], max_bits: u8) -> Option<(u8, [u8; 16])> {
    let (&len, tail) = rest.split_first()?;
    if len > max_bits {
        return None;
    }
    let (bytes, tail) = tail.split_at_checked(octets(len))?;
    let mut bits = [0; 16];
    bits.get_mut(..bytes.len())?.copy_from_slice(bytes);
    *rest = tail;
    Some((len, bits))
}
