//! One pass over the attributes of an UPDATE: RFC 7606 verdicts, and where everything is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smallvec::SmallVec;

use crate::Notification;
use crate::attr::fault::{Discarded, Fault, Reason};
use crate::attr::{as_path, canonical, code, flag};
use crate::context::SessionContext;
use crate::cursor::Cursor;
use crate::notification::update_error;
use crate::prefix::{AfiSafi, Family};

/// Where packets for a route go: an address, and for IPv6 possibly the link-local one beside it (RFC 2545 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// The global address, or the link-local one when the peer sent no other.
    pub addr: IpAddr,
    /// The link-local address of a 32-octet next hop.
    pub link_local: Option<Ipv6Addr>,
}

impl From<IpAddr> for NextHop {
    fn from(addr: IpAddr) -> Self {
        Self { addr, link_local: None }
    }
}

impl From<Ipv4Addr> for NextHop {
    fn from(addr: Ipv4Addr) -> Self {
        Self { addr: addr.into(), link_local: None }
    }
}

impl From<Ipv6Addr> for NextHop {
    fn from(addr: Ipv6Addr) -> Self {
        Self { addr: addr.into(), link_local: None }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.link_local {
            Some(link_local) => write!(f, "{} ({link_local})", self.addr),
            None => self.addr.fmt(f),
        }
    }
}

/// A value with the flags it came with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raw<'a> {
    pub(crate) flags: u8,
    pub(crate) value: &'a [u8],
}

/// An attribute we pass on without reading it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opaque<'a> {
    pub(crate) code: u8,
    pub(crate) value: &'a [u8],
}

/// The attributes of one UPDATE, over the received bytes; see [`AttrView::write_canonical`].
#[derive(Clone, Debug)]
pub struct AttrView<'a> {
    pub(crate) raw: &'a [u8],
    pub(crate) as4: bool,
    pub(crate) origin: Option<u8>,
    pub(crate) as_path: Option<&'a [u8]>,
    pub(crate) next_hop: Option<Ipv4Addr>,
    pub(crate) med: Option<[u8; 4]>,
    pub(crate) local_pref: Option<[u8; 4]>,
    pub(crate) atomic_aggregate: bool,
    pub(crate) aggregator: Option<Raw<'a>>,
    pub(crate) communities: Option<Raw<'a>>,
    pub(crate) originator_id: Option<[u8; 4]>,
    pub(crate) cluster_list: Option<&'a [u8]>,
    pub(crate) ext_communities: Option<Raw<'a>>,
    pub(crate) as4_path: Option<&'a [u8]>,
    pub(crate) as4_aggregator: Option<[u8; 8]>,
    pub(crate) large_communities: Option<Raw<'a>>,
    pub(crate) opaque: SmallVec<[Opaque<'a>; 2]>,
}

impl<'a> AttrView<'a> {
    fn new(raw: &'a [u8], as4: bool) -> Self {
        Self {
            raw,
            as4,
            origin: None,
            as_path: None,
            next_hop: None,
            med: None,
            local_pref: None,
            atomic_aggregate: false,
            aggregator: None,
            communities: None,
            originator_id: None,
            cluster_list: None,
            ext_communities: None,
            as4_path: None,
            as4_aggregator: None,
            large_communities: None,
            opaque: SmallVec::new(),
        }
    }

    /// The attribute area as received, for a cheap "same as last time" test:
    /// equal bytes on one session have equal verdicts and equal canonical bytes.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Whether LOCAL_PREF was there; an internal peer should have sent one (the default is 100).
    pub fn has_local_pref(&self) -> bool {
        self.local_pref.is_some()
    }

    /// Appends the canonical form (see the module); only meaningful when the verdict is Ok.
    pub fn write_canonical(&self, out: &mut Vec<u8>) {
        canonical::write(self, out);
    }
}

/// MP_REACH_NLRI of a family in use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MpReach<'a> {
    pub(crate) family: Family,
    pub(crate) next_hop: NextHop,
    pub(crate) nlri: &'a [u8],
}

/// MP_UNREACH_NLRI of a family in use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MpUnreach<'a> {
    pub(crate) family: Family,
    pub(crate) nlri: &'a [u8],
}

/// What one pass over the attributes finds.
pub(crate) struct Scan<'a> {
    pub(crate) attrs: AttrView<'a>,
    pub(crate) reach: Option<MpReach<'a>>,
    pub(crate) unreach: Option<MpUnreach<'a>>,
    /// The only attribute is MP_UNREACH_NLRI.
    pub(crate) unreach_alone: bool,
    /// A family that is not in use on this session.
    pub(crate) foreign: Option<AfiSafi>,
    pub(crate) withdraw: Option<Reason>,
    pub(crate) discards: SmallVec<[Discarded; 4]>,
}

/// A set of attribute types.
#[derive(Default)]
struct CodeSet([u64; 4]);

impl CodeSet {
    /// False when it was there.
    #[inline]
    fn insert(&mut self, code: u8) -> bool {
        let bit = 1u64 << (code & 63);
        match self.0.get_mut(usize::from(code >> 6)) {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                true
            }
            _ => false,
        }
    }
}

/// The first withdraw condition, with the attribute for a NOTIFICATION should there be nothing to withdraw.
#[derive(Default)]
struct Withdraw<'a> {
    reason: Option<Reason>,
    raw: &'a [u8],
}

impl<'a> Withdraw<'a> {
    #[cold]
    fn because(&mut self, code: u8, fault: Fault, raw: &'a [u8]) {
        if self.reason.is_none() {
            self.reason = Some(Reason { code, fault });
            self.raw = raw;
        }
    }
}

const WELL_KNOWN: u8 = flag::TRANSITIVE;
const OPTIONAL: u8 = flag::OPTIONAL;
const OPTIONAL_TRANSITIVE: u8 = flag::OPTIONAL | flag::TRANSITIVE;

/// Optional and Transitive as defined for the attributes we judge; `None` for all others.
#[inline]
fn defined_flags(code: u8) -> Option<u8> {
    Some(match code {
        code::ORIGIN | code::AS_PATH | code::NEXT_HOP | code::LOCAL_PREF | code::ATOMIC_AGGREGATE => {
            WELL_KNOWN
        }
        code::MED
        | code::ORIGINATOR_ID
        | code::CLUSTER_LIST
        | code::MP_REACH_NLRI
        | code::MP_UNREACH_NLRI => OPTIONAL,
        code::AGGREGATOR
        | code::COMMUNITIES
        | code::EXTENDED_COMMUNITIES
        | code::AS4_PATH
        | code::AS4_AGGREGATOR
        | code::LARGE_COMMUNITIES
        | code::OTC => OPTIONAL_TRANSITIVE,
        _ => return None,
    })
}

/// Reads every attribute once. `v4_nlri`: the message has IPv4 NLRI outside MP_REACH_NLRI;
/// `v4_used`: and IPv4 unicast is in use, so they are routes.
pub(crate) fn scan<'a>(
    area: &'a [u8],
    ctx: &SessionContext,
    v4_nlri: bool,
    v4_used: bool,
) -> Result<Scan<'a>, Notification> {
    let mut attrs = AttrView::new(area, ctx.as4);
    let mut reach = None;
    let mut unreach = None;
    let mut foreign = None;
    let mut withdraw = Withdraw::default();
    let mut discards = SmallVec::new();
    let mut seen = CodeSet::default();
    let mut seen_twice = CodeSet::default();
    let mut reachable = v4_nlri;
    let mut count = 0usize;
    let external = ctx.is_external();
    let mut c = Cursor::new(area);

    while !c.is_empty() {
        let start = c;
        let (flags, code, value) = match read_attr(&mut c) {
            Ok(attr) => attr,
            Err(code @ (code::MP_REACH_NLRI | code::MP_UNREACH_NLRI)) => {
                // Which routes it had cannot be known (RFC 7606 §5.3, §7.11).
                return Err(attr_error(code, Fault::Truncated, start.rest()));
            }
            Err(code) => {
                withdraw.because(code, Fault::Truncated, &[]);
                break;
            }
        };
        count = count.wrapping_add(1);
        let raw = start.rest().get(..start.len().saturating_sub(c.len())).unwrap_or_default();
        if !seen.insert(code) {
            if matches!(code, code::MP_REACH_NLRI | code::MP_UNREACH_NLRI) {
                return Err(attr_error(code, Fault::Duplicate, &[]));
            }
            if seen_twice.insert(code) {
                discards.push(Discarded { code, fault: Fault::Duplicate });
            }
            continue;
        }
        let bits = flags & OPTIONAL_TRANSITIVE;
        if let Some(defined) = defined_flags(code)
            && bits != defined
        {
            withdraw.because(code, Fault::Flags, raw);
            if !matches!(code, code::MP_REACH_NLRI | code::MP_UNREACH_NLRI) {
                continue;
            }
        }
        let mut discard = |fault| discards.push(Discarded { code, fault });
        match code {
            0 => discard(Fault::TypeZero),
            code::ORIGIN => match value {
                [origin @ 0..=2] => attrs.origin = Some(*origin),
                [_] => withdraw.because(code, Fault::Origin, raw),
                _ => withdraw.because(code, Fault::Length, raw),
            },
            code::AS_PATH => match as_path::check(value, ctx) {
                Ok(()) => attrs.as_path = Some(value),
                Err(fault) => withdraw.because(code, fault, raw),
            },
            code::NEXT_HOP => match value.as_array::<4>() {
                Some(addr) => {
                    let addr = Ipv4Addr::from(*addr);
                    attrs.next_hop = Some(addr);
                    // Beside MP_REACH_NLRI alone it means nothing, and some peers send 0.0.0.0 there.
                    if v4_nlri && !usable4(addr) {
                        withdraw.because(code, Fault::NextHop, raw);
                    }
                }
                None => withdraw.because(code, Fault::Length, raw),
            },
            code::MED => match value.as_array() {
                Some(med) => attrs.med = Some(*med),
                None => withdraw.because(code, Fault::Length, raw),
            },
            code::LOCAL_PREF | code::ORIGINATOR_ID | code::CLUSTER_LIST if external => {
                discard(Fault::FromExternal);
            }
            code::LOCAL_PREF => match value.as_array() {
                Some(pref) => attrs.local_pref = Some(*pref),
                None => withdraw.because(code, Fault::Length, raw),
            },
            code::ATOMIC_AGGREGATE => match value {
                [] => attrs.atomic_aggregate = true,
                _ => discard(Fault::Length),
            },
            code::AGGREGATOR => match (ctx.as4, value) {
                (true, [0, 0, 0, 0, _, _, _, _]) | (false, [0, 0, _, _, _, _]) => discard(Fault::AsZero),
                (true, [_, _, _, _, _, _, _, _]) | (false, [_, _, _, _, _, _]) => {
                    attrs.aggregator = Some(Raw { flags, value });
                }
                _ => discard(Fault::Length),
            },
            code::COMMUNITIES => match whole(value, 4) {
                Ok(value) => attrs.communities = Some(Raw { flags, value }),
                Err(fault) => withdraw.because(code, fault, raw),
            },
            code::ORIGINATOR_ID => match value.as_array() {
                Some(id) => attrs.originator_id = Some(*id),
                None => withdraw.because(code, Fault::Length, raw),
            },
            code::CLUSTER_LIST => match whole(value, 4) {
                Ok(value) => attrs.cluster_list = Some(value),
                Err(fault) => withdraw.because(code, fault, raw),
            },
            code::MP_REACH_NLRI => {
                match read_reach(value, ctx).map_err(|fault| attr_error(code, fault, raw))? {
                    Mp::Used(mp) => {
                        reachable |= !mp.nlri.is_empty();
                        if !usable(mp.next_hop.addr) {
                            withdraw.because(code, Fault::NextHop, raw);
                        }
                        reach = Some(mp);
                    }
                    Mp::Foreign { family, routes } => {
                        reachable |= routes;
                        foreign = Some(family);
                    }
                }
            }
            code::MP_UNREACH_NLRI => {
                match read_unreach(value, ctx).map_err(|fault| attr_error(code, fault, raw))? {
                    Mp::Used(mp) => unreach = Some(mp),
                    Mp::Foreign { family, .. } => foreign = Some(family),
                }
            }
            code::EXTENDED_COMMUNITIES => match whole(value, 8) {
                Ok(value) => attrs.ext_communities = Some(Raw { flags, value }),
                Err(fault) => withdraw.because(code, fault, raw),
            },
            code::AS4_PATH | code::AS4_AGGREGATOR if ctx.as4 => discard(Fault::FromAs4Peer),
            code::AS4_PATH => match as_path::check_as4(value, ctx) {
                Ok(()) => attrs.as4_path = Some(value),
                Err(Fault::AsSet) => withdraw.because(code, Fault::AsSet, raw),
                Err(fault) => discard(fault),
            },
            code::AS4_AGGREGATOR => match value.as_array::<8>() {
                Some([0, 0, 0, 0, ..]) => discard(Fault::AsZero),
                Some(aggregator) => attrs.as4_aggregator = Some(*aggregator),
                None => discard(Fault::Length),
            },
            code::LARGE_COMMUNITIES => match whole(value, 12) {
                Ok(value) => attrs.large_communities = Some(Raw { flags, value }),
                Err(fault) => withdraw.because(code, fault, raw),
            },
            code::OTC if value.len() != 4 => withdraw.because(code, Fault::Length, raw),
            // Wrong flags on these discard them (RFC 7311 §3.2, RFC 9552 §8.2.2); right ones make them
            // optional and non-transitive, and we have no use for them either way.
            code::AIGP | code::BGP_LS => {
                if bits != OPTIONAL {
                    discard(Fault::Flags);
                }
            }
            code::PREFIX_SID | code::NEXT_HOP_CAPABILITIES if bits != OPTIONAL_TRANSITIVE => {
                discard(Fault::Flags);
            }
            code::PREFIX_SID if !tlvs(value, 1) => discard(Fault::Tlv),
            code::NEXT_HOP_CAPABILITIES if !next_hop_capabilities(value) => discard(Fault::Tlv),
            _ => match bits {
                OPTIONAL_TRANSITIVE => attrs.opaque.push(Opaque { code, value }),
                OPTIONAL => {}
                _ => withdraw.because(code, Fault::UnknownWellKnown, raw),
            },
        }
    }

    let used = v4_used || reach.is_some_and(|mp: MpReach<'_>| !mp.nlri.is_empty());
    if used && withdraw.reason.is_none() {
        if attrs.origin.is_none() {
            withdraw.because(code::ORIGIN, Fault::Missing, &[]);
        } else if attrs.as_path.is_none() {
            withdraw.because(code::AS_PATH, Fault::Missing, &[]);
        } else if v4_used && attrs.next_hop.is_none() {
            withdraw.because(code::NEXT_HOP, Fault::Missing, &[]);
        } else if !attrs.as4 && canonical::widened_len(&attrs) > usize::from(u16::MAX) {
            withdraw.because(code::AS_PATH, Fault::TooLong, &[]);
        } else if !attrs.as4
            && ctx.enforce_first_as
            && external
            && canonical::first_as(&attrs) != Some(ctx.peer_as)
        {
            withdraw.because(code::AS_PATH, Fault::FirstAs, &[]);
        }
    }
    if let (Some(reason), false) = (withdraw.reason, reachable) {
        // Nothing to treat as withdrawn (RFC 7606 §5.2).
        return Err(update_error(reason.fault.subcode(), withdraw.raw));
    }
    Ok(Scan {
        attrs,
        reach,
        unreach,
        unreach_alone: count == 1,
        foreign,
        withdraw: withdraw.reason,
        discards,
    })
}

/// Reads flags, type and value; the error is the type, 0 when not even that was there.
#[inline]
fn read_attr<'a>(c: &mut Cursor<'a>) -> Result<(u8, u8, &'a [u8]), u8> {
    let flags = c.u8().map_err(|_| 0)?;
    let code = c.u8().map_err(|_| 0)?;
    let len = if flags & flag::EXTENDED_LENGTH == 0 {
        c.u8().map(usize::from).map_err(|_| code)?
    } else {
        c.u16().map(usize::from).map_err(|_| code)?
    };
    let value = c.take(len).map_err(|_| code)?;
    Ok((flags, code, value))
}

/// The NOTIFICATION for prefixes inside the attribute of this type that are not prefixes; it carries the attribute
/// (RFC 4271 §6.3).
#[cold]
pub(crate) fn bad_prefixes(area: &[u8], wanted: u8) -> Notification {
    let mut c = Cursor::new(area);
    while !c.is_empty() {
        let start = c;
        match read_attr(&mut c) {
            Ok((_, code, _)) if code == wanted => {
                let raw = start.rest().get(..start.len().saturating_sub(c.len())).unwrap_or_default();
                return update_error(9, raw);
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    update_error(9, &[])
}

/// A multiprotocol attribute of a family in use, or of another one, which is left alone.
enum Mp<T> {
    Used(T),
    Foreign { family: AfiSafi, routes: bool },
}

fn read_reach<'a>(value: &'a [u8], ctx: &SessionContext) -> Result<Mp<MpReach<'a>>, Fault> {
    if value.len() < 5 {
        return Err(Fault::Length);
    }
    let mut c = Cursor::new(value);
    let short = |_| Fault::Length;
    let family = AfiSafi { afi: c.u16().map_err(short)?, safi: c.u8().map_err(short)? };
    let len = usize::from(c.u8().map_err(short)?);
    let Some(known) = family.family().filter(|f| ctx.family(*f).enabled) else {
        let routes = c.take(len).is_ok() && c.u8().is_ok() && !c.is_empty();
        return Ok(Mp::Foreign { family, routes });
    };
    let next_hop = c.take(len).map_err(short)?;
    c.u8().map_err(short)?; // Reserved.
    let next_hop = read_next_hop(known, next_hop, ctx).ok_or(Fault::Length)?;
    Ok(Mp::Used(MpReach { family: known, next_hop, nlri: c.rest() }))
}

fn read_unreach<'a>(value: &'a [u8], ctx: &SessionContext) -> Result<Mp<MpUnreach<'a>>, Fault> {
    let mut c = Cursor::new(value);
    let short = |_| Fault::Length;
    let family = AfiSafi { afi: c.u16().map_err(short)?, safi: c.u8().map_err(short)? };
    Ok(match family.family().filter(|f| ctx.family(*f).enabled) {
        Some(family) => Mp::Used(MpUnreach { family, nlri: c.rest() }),
        None => Mp::Foreign { family, routes: false },
    })
}

/// `None` when the length does not fit the family (RFC 4760 §3, RFC 2545 §3, RFC 8950 §3).
fn read_next_hop(family: Family, bytes: &[u8], ctx: &SessionContext) -> Option<NextHop> {
    if let Some(v4) = bytes.as_array::<4>() {
        return (family == Family::Ipv4Unicast).then(|| Ipv4Addr::from(*v4).into());
    }
    if family == Family::Ipv4Unicast && !ctx.family(family).ext_nexthop {
        return None;
    }
    if let Some(v6) = bytes.as_array::<16>() {
        return Some(Ipv6Addr::from(*v6).into());
    }
    let (first, second) = bytes.split_first_chunk::<16>()?;
    let second = Ipv6Addr::from(*second.as_array::<16>()?);
    let first = Ipv6Addr::from(*first);
    let link_local = is_link_local(second).then_some(second);
    // On a link without global addresses peers send the link-local one twice, or zeros before it.
    if let Some(second) = link_local
        && (first.is_unspecified() || first == second)
    {
        return Some(second.into());
    }
    Some(NextHop { addr: first.into(), link_local })
}

fn is_link_local(addr: Ipv6Addr) -> bool {
    let [first, ..] = addr.segments();
    first & 0xffc0 == 0xfe80
}

fn usable(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => usable4(addr),
        IpAddr::V6(addr) => !(addr.is_unspecified() || addr.is_loopback() || addr.is_multicast()),
    }
}

/// A next hop must be an address of a host: not 0/8, 127/8, class D or E (RFC 4271 §6.3).
fn usable4(addr: Ipv4Addr) -> bool {
    let [first, ..] = addr.octets();
    !matches!(first, 0 | 127 | 224..)
}

/// The value, when it is at least one entry and no part of one.
#[inline]
fn whole(value: &[u8], entry: usize) -> Result<&[u8], Fault> {
    let whole = !value.is_empty() && value.len().checked_rem(entry) == Some(0);
    if whole { Ok(value) } else { Err(Fault::Length) }
}

/// Whether a value is whole TLVs with types of `type_len` octets and lengths of two.
fn tlvs(value: &[u8], type_len: usize) -> bool {
    let mut c = Cursor::new(value);
    while !c.is_empty() {
        let whole = c.take(type_len).is_ok() && c.u16().is_ok_and(|len| c.take(usize::from(len)).is_ok());
        if !whole {
            return false;
        }
    }
    true
}

/// Family, next hop, then TLVs (draft-ietf-idr-entropy-label).
fn next_hop_capabilities(value: &[u8]) -> bool {
    let mut c = Cursor::new(value);
    let head = c.u16().is_ok() && c.u8().is_ok() && c.u8().is_ok_and(|len| c.take(usize::from(len)).is_ok());
    head && tlvs(c.rest(), 2)
}

/// The NOTIFICATION for an attribute that must reset the session.
fn attr_error(code: u8, fault: Fault, raw: &[u8]) -> Notification {
    match (code, fault) {
        (_, Fault::Duplicate | Fault::Truncated) => update_error(1, &[]),
        (code::MP_REACH_NLRI | code::MP_UNREACH_NLRI, _) => update_error(9, raw),
        _ => update_error(fault.subcode(), raw),
    }
}
