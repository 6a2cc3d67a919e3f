//! Packing: as many routes as fit into as few UPDATEs as needed.

use std::net::IpAddr;

use crate::attr::{NextHop, code, flag, put_wire};
use crate::context::SessionContext;
use crate::header::{self, MAX_LEN, MAX_LEN_EXTENDED, MessageKind, put_u16_at};
use crate::nlri::{Nlri, WirePrefix};
use crate::prefix::{AfiSafi, Family};

/// Why routes cannot be announced as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// The attributes leave no room for a prefix; withdraw the routes from this peer instead.
    #[error("attributes of {len} octets leave no room for a prefix in a message of {max_len}")]
    TooLarge {
        /// Octets of the attributes on this session.
        len: usize,
        /// The longest message the peer takes.
        max_len: usize,
    },
    /// The family cannot have such a next hop on this session.
    #[error("{family} routes cannot have next hop {next_hop} on this session")]
    NextHop {
        /// The family of the routes.
        family: Family,
        /// The next hop.
        next_hop: IpAddr,
    },
    /// A prefix of the other family was among them.
    #[error("a prefix of another family is among the {family} routes")]
    Family {
        /// The family of the routes.
        family: Family,
    },
}

/// Encodes UPDATEs; keeps its scratch memory between calls.
#[derive(Clone, Debug, Default)]
pub struct UpdatePacker {
    attrs: Vec<u8>,
}

impl UpdatePacker {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends UPDATEs that announce `routes` with canonical `attrs` and returns how many messages that took.
    ///
    /// IPv4 routes with an IPv4 next hop use the NLRI field, everything else MP_REACH_NLRI, which then comes
    /// first (RFC 7606 §5.1). On an error nothing is appended.
    pub fn announce<P: WirePrefix>(
        &mut self,
        ctx: &SessionContext,
        family: Family,
        attrs: &[u8],
        next_hop: NextHop,
        routes: impl IntoIterator<Item = Nlri<P>>,
        out: &mut Vec<u8>,
    ) -> Result<usize, PackError> {
        let plain = match (family, next_hop.addr) {
            (Family::Ipv4Unicast, IpAddr::V4(addr)) => Some(addr),
            (Family::Ipv6Unicast, IpAddr::V6(_)) => None,
            (Family::Ipv4Unicast, IpAddr::V6(_)) if ctx.family(family).ext_nexthop => None,
            (_, addr) => return Err(PackError::NextHop { family, next_hop: addr }),
        };
        self.attrs.clear();
        put_wire(attrs, ctx.as4, plain, &mut self.attrs);
        let add_path = ctx.family(family).add_path_tx;
        let max_len = longest(ctx);
        let whole = out.len();
        let result = if plain.is_some() {
            pack_plain(&self.attrs, family, add_path, max_len, routes, out)
        } else {
            pack_reach(&self.attrs, family, next_hop, add_path, max_len, routes, out)
        };
        result.inspect_err(|_| out.truncate(whole))
    }

    /// Appends UPDATEs that withdraw `routes` and returns how many messages that took.
    ///
    /// On an error nothing is appended.
    pub fn withdraw<P: WirePrefix>(
        &mut self,
        ctx: &SessionContext,
        family: Family,
        routes: impl IntoIterator<Item = Nlri<P>>,
        out: &mut Vec<u8>,
    ) -> Result<usize, PackError> {
        let add_path = ctx.family(family).add_path_tx;
        let max_len = longest(ctx);
        let whole = out.len();
        let mut routes = Source::new(family, add_path, routes);
        let mut messages = 0usize;
        while routes.pending() {
            let start = header::begin(out, MessageKind::Update);
            let at = out.len();
            let filled = match family {
                Family::Ipv4Unicast => {
                    out.extend_from_slice(&[0, 0]);
                    let filled = routes.fill(out, start.saturating_add(max_len).saturating_sub(2));
                    put_len_at(out, at, 2);
                    out.extend_from_slice(&[0, 0]);
                    filled
                }
                Family::Ipv6Unicast => {
                    let AfiSafi { afi, safi } = family.into();
                    let [hi, lo] = afi.to_be_bytes();
                    out.extend_from_slice(&[0, 0, 0, 0, MP_FLAGS, code::MP_UNREACH_NLRI, 0, 0, hi, lo, safi]);
                    let filled = routes.fill(out, start.saturating_add(max_len));
                    put_len_at(out, at.saturating_add(2), 2);
                    put_len_at(out, at.saturating_add(6), 2);
                    filled
                }
            };
            header::finish(out, start);
            messages = messages.saturating_add(1);
            if let Err(error) = filled {
                out.truncate(whole);
                return Err(error.into_pack(family, 0, max_len));
            }
        }
        Ok(messages)
    }
}

/// Appends the End-of-RIB marker of a family (RFC 4724 §2).
pub fn encode_end_of_rib(family: Family, out: &mut Vec<u8>) {
    let start = header::begin(out, MessageKind::Update);
    match family {
        Family::Ipv4Unicast => out.extend_from_slice(&[0; 4]),
        Family::Ipv6Unicast => {
            let AfiSafi { afi, safi } = family.into();
            let [hi, lo] = afi.to_be_bytes();
            out.extend_from_slice(&[0, 0, 0, 6, flag::OPTIONAL, code::MP_UNREACH_NLRI, 3, hi, lo, safi]);
        }
    }
    header::finish(out, start);
}

const MP_FLAGS: u8 = flag::OPTIONAL | flag::EXTENDED_LENGTH;

fn longest(ctx: &SessionContext) -> usize {
    ctx.max_len.clamp(MAX_LEN, MAX_LEN_EXTENDED)
}

/// Writes what follows the two bytes at `at` plus `skip` as a length: the field's own two bytes are not counted.
fn put_len_at(out: &mut [u8], at: usize, skip: usize) {
    let len = out.len().saturating_sub(at).saturating_sub(skip);
    put_u16_at(out, at, u16::try_from(len).unwrap_or(u16::MAX));
}

enum FillError {
    /// Not one route fits.
    NoRoom,
    /// A route of another family.
    Family,
}

impl FillError {
    fn into_pack(self, family: Family, len: usize, max_len: usize) -> PackError {
        match self {
            FillError::NoRoom => PackError::TooLarge { len, max_len },
            FillError::Family => PackError::Family { family },
        }
    }
}

/// Routes still to be written.
struct Source<P, I> {
    family: Family,
    add_path: bool,
    next: Option<Nlri<P>>,
    rest: I,
}

impl<P: WirePrefix, I: Iterator<Item = Nlri<P>>> Source<P, I> {
    fn new(family: Family, add_path: bool, routes: impl IntoIterator<IntoIter = I, Item = Nlri<P>>) -> Self {
        let mut rest = routes.into_iter();
        Self { family, add_path, next: rest.next(), rest }
    }

    fn pending(&self) -> bool {
        self.next.is_some()
    }

    /// Writes routes up to `limit`, at least one.
    #[inline]
    fn fill(&mut self, out: &mut Vec<u8>, limit: usize) -> Result<(), FillError> {
        let first = out.len();
        while let Some(nlri) = self.next {
            if nlri.prefix.family() != self.family {
                return Err(FillError::Family);
            }
            let before = out.len();
            if self.add_path {
                out.extend_from_slice(&nlri.path_id.to_be_bytes());
            }
            nlri.prefix.put(out);
            if out.len() > limit {
                out.truncate(before);
                return if before == first { Err(FillError::NoRoom) } else { Ok(()) };
            }
            self.next = self.rest.next();
        }
        Ok(())
    }
}

fn pack_plain<P: WirePrefix>(
    attrs: &[u8],
    family: Family,
    add_path: bool,
    max_len: usize,
    routes: impl IntoIterator<Item = Nlri<P>>,
    out: &mut Vec<u8>,
) -> Result<usize, PackError> {
    let too_large = PackError::TooLarge { len: attrs.len(), max_len };
    let attrs_len = u16::try_from(attrs.len()).map_err(|_| too_large)?.to_be_bytes();
    let mut routes = Source::new(family, add_path, routes);
    let mut messages = 0usize;
    while routes.pending() {
        let start = header::begin(out, MessageKind::Update);
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&attrs_len);
        out.extend_from_slice(attrs);
        let limit = start.saturating_add(max_len);
        routes.fill(out, limit).map_err(|e| e.into_pack(family, attrs.len(), max_len))?;
        header::finish(out, start);
        messages = messages.saturating_add(1);
    }
    Ok(messages)
}

fn pack_reach<P: WirePrefix>(
    attrs: &[u8],
    family: Family,
    next_hop: NextHop,
    add_path: bool,
    max_len: usize,
    routes: impl IntoIterator<Item = Nlri<P>>,
    out: &mut Vec<u8>,
) -> Result<usize, PackError> {
    let AfiSafi { afi, safi } = family.into();
    let [hi, lo] = afi.to_be_bytes();
    let mut routes = Source::new(family, add_path, routes);
    let mut messages = 0usize;
    while routes.pending() {
        let start = header::begin(out, MessageKind::Update);
        let at = out.len();
        let hop_len = if next_hop.link_local.is_some() { 32 } else { 16 };
        out.extend_from_slice(&[0, 0, 0, 0, MP_FLAGS, code::MP_REACH_NLRI, 0, 0, hi, lo, safi, hop_len]);
        if let IpAddr::V6(addr) = next_hop.addr {
            out.extend_from_slice(&addr.octets());
        }
        if let Some(link_local) = next_hop.link_local {
            out.extend_from_slice(&link_local.octets());
        }
        out.push(0);
        let limit = start.saturating_add(max_len).saturating_sub(attrs.len());
        routes.fill(out, limit).map_err(|e| e.into_pack(family, attrs.len(), max_len))?;
        put_len_at(out, at.saturating_add(6), 2);
        out.extend_from_slice(attrs);
        put_len_at(out, at.saturating_add(2), 2);
        header::finish(out, start);
        messages = messages.saturating_add(1);
    }
    Ok(messages)
}
