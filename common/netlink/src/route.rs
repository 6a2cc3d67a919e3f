//! Routes: the type, and a compact codec of `RTM_NEWROUTE` that the bulk path, the dump and the monitor share.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use smallvec::SmallVec;

use crate::Family;
use crate::wire::{
    AF_INET, AF_INET6, Attributes, Encoder, F_CREATE, F_DUMP, F_EXCL, F_REPLACE, Malformed, Message, ip_of,
    u16_at, u32_at, u32_of,
};

pub(crate) const RTM_NEWROUTE: u16 = 24;
pub(crate) const RTM_DELROUTE: u16 = 25;
pub(crate) const RTM_GETROUTE: u16 = 26;
pub(crate) const RTMSG: usize = 12;

pub(crate) const RTA_DST: u16 = 1;
pub(crate) const RTA_OIF: u16 = 4;
pub(crate) const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
pub(crate) const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
pub(crate) const RTA_VIA: u16 = 18;

const RTNH: usize = 8;
const RTNH_F_ONLINK: u8 = 4;
const RTM_F_CLONED: u32 = 0x200;

/// Routing protocol numbers (`rtm_protocol`) that matter here.
pub mod proto {
    /// Made by the kernel itself.
    pub const KERNEL: u8 = 2;
    /// Made at boot, what `ip route add` uses.
    pub const BOOT: u8 = 3;
    /// Made by the administrator.
    pub const STATIC: u8 = 4;
    /// Made by a BGP daemon known as bird.
    pub const BIRD: u8 = 12;
    /// Made by felix, as Calico numbers it.
    pub const FELIX: u8 = 80;
}

/// Route scopes (`rtm_scope`), of meaning for IPv4 only.
pub mod scope {
    /// Reached through a gateway.
    pub const UNIVERSE: u8 = 0;
    /// Reached directly on the link.
    pub const LINK: u8 = 253;
    /// This host.
    pub const HOST: u8 = 254;
}

/// Routing tables.
pub mod table {
    /// The table every lookup uses by default.
    pub const MAIN: u32 = 254;
    /// The kernel's table of local addresses.
    pub const LOCAL: u32 = 255;
}

/// What the kernel does with a packet that a route matches (`rtm_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// Forward it.
    Unicast,
    /// Deliver it here.
    Local,
    /// Deliver it here as a broadcast.
    Broadcast,
    /// Drop it silently.
    Blackhole,
    /// Drop it and tell the sender that the host is unreachable.
    Unreachable,
    /// Drop it and tell the sender that it is prohibited.
    Prohibit,
    /// Go on with the next rule.
    Throw,
    /// Another of the kernel's types, by number.
    Other(u8),
}

impl RouteKind {
    const fn raw(self) -> u8 {
        match self {
            Self::Unicast => 1,
            Self::Local => 2,
            Self::Broadcast => 3,
            Self::Blackhole => 6,
            Self::Unreachable => 7,
            Self::Prohibit => 8,
            Self::Throw => 9,
            Self::Other(n) => n,
        }
    }

    pub(crate) const fn from_raw(n: u8) -> Self {
        match n {
            1 => Self::Unicast,
            2 => Self::Local,
            3 => Self::Broadcast,
            6 => Self::Blackhole,
            7 => Self::Unreachable,
            8 => Self::Prohibit,
            9 => Self::Throw,
            n => Self::Other(n),
        }
    }

    /// Whether a route of this kind leads somewhere and so has next hops.
    pub const fn has_hops(self) -> bool {
        !matches!(self, Self::Blackhole | Self::Unreachable | Self::Prohibit | Self::Throw)
    }
}

/// One way to forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NextHop {
    /// The gateway; without one the destination is on the link. May be IPv6 for an IPv4 route (RFC 8950).
    pub via: Option<IpAddr>,
    /// The outgoing interface; 0 lets the kernel find it from the gateway.
    pub ifindex: u32,
    /// The share of an ECMP route, 1 to 255. 1 where there is only one hop.
    pub weight: u8,
    /// Take the gateway as reachable on the interface although no address there covers it.
    pub onlink: bool,
}

impl NextHop {
    /// Directly on an interface.
    pub fn dev(ifindex: u32) -> Self {
        Self { via: None, ifindex, weight: 1, onlink: false }
    }

    /// Through a gateway on an interface.
    pub fn via(gateway: IpAddr, ifindex: u32) -> Self {
        Self { via: Some(gateway), ifindex, weight: 1, onlink: false }
    }
}

/// Next hops; the common case of one needs no allocation.
pub type Hops = SmallVec<[NextHop; 1]>;

/// A route, as written and as read back. Two routes are equal when the kernel would behave the same,
/// once both are [`Route::normalized`]; dumps and events are already.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// The prefix.
    pub dst: IpNet,
    /// The routing table.
    pub table: u32,
    /// Who owns it: a number of [`proto`].
    pub proto: u8,
    /// A number of [`scope`]; always 0 for IPv6.
    pub scope: u8,
    /// What happens to the packet.
    pub kind: RouteKind,
    /// The metric, lower preferred. On IPv6 the kernel turns 0 into 1024.
    pub metric: u32,
    /// Where to; empty unless [`RouteKind::has_hops`].
    pub hops: Hops,
    /// The preferred source address of packets this host sends.
    pub src: Option<IpAddr>,
}

impl Route {
    /// A route in the main table without next hops, metric 0.
    pub fn new(dst: IpNet, proto: u8, kind: RouteKind) -> Self {
        Self {
            dst,
            table: table::MAIN,
            proto,
            scope: scope::UNIVERSE,
            kind,
            metric: 0,
            hops: Hops::new(),
            src: None,
        }
    }

    /// Drops what it matches.
    pub fn blackhole(dst: IpNet, proto: u8) -> Self {
        Self::new(dst, proto, RouteKind::Blackhole)
    }

    /// Leads straight to an interface (scope link).
    pub fn dev(dst: IpNet, proto: u8, ifindex: u32) -> Self {
        let mut route = Self::new(dst, proto, RouteKind::Unicast);
        route.scope = if dst.addr().is_ipv4() { scope::LINK } else { scope::UNIVERSE };
        route.hops.push(NextHop::dev(ifindex));
        route
    }

    /// Leads through one gateway.
    pub fn via(dst: IpNet, proto: u8, gateway: IpAddr, ifindex: u32) -> Self {
        let mut route = Self::new(dst, proto, RouteKind::Unicast);
        route.hops.push(NextHop::via(gateway, ifindex));
        route
    }

    /// The same with a metric.
    #[must_use]
    pub fn metric(mut self, metric: u32) -> Self {
        self.metric = metric;
        self
    }

    /// The address family.
    pub fn family(&self) -> Family {
        match self.dst {
            IpNet::V4(_) => Family::V4,
            IpNet::V6(_) => Family::V6,
        }
    }

    /// This route as the kernel reports it after it was written: the host bits of the prefix are zero,
    /// IPv6 has a metric of at least 1 and no scope, several hops are in a fixed order.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        self.dst = self.dst.trunc();
        if self.family() == Family::V6 {
            self.scope = scope::UNIVERSE;
            if self.metric == 0 {
                self.metric = IP6_DEFAULT_METRIC;
            }
        }
        if !self.kind.has_hops() {
            self.hops.clear();
        }
        match self.hops.as_mut_slice() {
            [] => {}
            [only] => only.weight = 1,
            several => {
                for hop in several.iter_mut() {
                    hop.weight = hop.weight.max(1);
                }
                several.sort_unstable();
            }
        }
        self
    }
}

/// `IP6_RT_PRIO_USER`.
const IP6_DEFAULT_METRIC: u32 = 1024;

/// Which routes a dump returns. The kernel filters where it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteFilter {
    /// One family, or both.
    pub family: Option<Family>,
    /// One table, or all.
    pub table: Option<u32>,
    /// One owner, or all.
    pub proto: Option<u8>,
    /// Everybody but this owner.
    pub except_proto: Option<u8>,
}

impl RouteFilter {
    /// The main table, both families, every owner.
    pub fn main() -> Self {
        Self { table: Some(table::MAIN), ..Self::default() }
    }

    /// Only this owner's routes.
    #[must_use]
    pub fn proto(mut self, proto: u8) -> Self {
        self.proto = Some(proto);
        self
    }

    /// Everybody's routes but this owner's, which are not even read.
    #[must_use]
    pub fn except(mut self, proto: u8) -> Self {
        self.except_proto = Some(proto);
        self
    }

    /// Only this family.
    #[must_use]
    pub fn family(mut self, family: Family) -> Self {
        self.family = Some(family);
        self
    }

    pub(crate) fn accepts(&self, route: &Route) -> bool {
        self.family.is_none_or(|f| f == route.family())
            && self.table.is_none_or(|t| t == route.table)
            && self.proto.is_none_or(|p| p == route.proto)
            && self.except_proto != Some(route.proto)
    }
}

/// How a route is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    Add,
    Replace,
    Delete,
}

/// Appends one route request. Deletion names prefix, table, metric and owner and leaves out the hops, so
/// that whatever this owner has there goes, all siblings of an ECMP route included.
pub(crate) fn encode(e: &mut Encoder, route: &Route, write: Write) {
    let (kind, flags) = match write {
        Write::Add => (RTM_NEWROUTE, F_CREATE | F_EXCL),
        Write::Replace => (RTM_NEWROUTE, F_CREATE | F_REPLACE),
        Write::Delete => (RTM_DELROUTE, 0),
    };
    e.begin(kind, flags);
    let delete = write == Write::Delete;
    let (family, len) = match route.dst {
        IpNet::V4(n) => (AF_INET, n.prefix_len()),
        IpNet::V6(n) => (AF_INET6, n.prefix_len()),
    };
    let only = if let ([hop], false) = (route.hops.as_slice(), delete) { Some(hop) } else { None };
    let flags = if only.is_some_and(|h| h.onlink) { RTNH_F_ONLINK } else { 0 };
    e.bytes(&[
        family,
        len,
        0,
        0,
        u8::try_from(route.table).unwrap_or(0),
        route.proto,
        if delete { SCOPE_NOWHERE } else { route.scope },
        if delete { 0 } else { route.kind.raw() },
    ]);
    e.bytes(&u32::from(flags).to_ne_bytes());
    // The kernel rejects a prefix with host bits set.
    match route.dst {
        IpNet::V4(n) => e.attr(RTA_DST, &n.network().octets()),
        IpNet::V6(n) => e.attr(RTA_DST, &n.network().octets()),
    }
    if route.table > 255 {
        e.attr_u32(RTA_TABLE, route.table);
    }
    if route.metric != 0 {
        e.attr_u32(RTA_PRIORITY, route.metric);
    }
    if delete {
        return;
    }
    if let Some(src) = &route.src {
        e.attr_ip(RTA_PREFSRC, src);
    }
    if let Some(hop) = only {
        encode_gateway(e, hop, family);
        if hop.ifindex != 0 {
            e.attr_u32(RTA_OIF, hop.ifindex);
        }
    } else if !route.hops.is_empty() {
        let all = e.nest(RTA_MULTIPATH);
        for hop in &route.hops {
            // struct rtnexthop: length, flags, weight - 1, interface.
            let flags = if hop.onlink { RTNH_F_ONLINK } else { 0 };
            let one = e.nest(u16::from_ne_bytes([flags, hop.weight.saturating_sub(1)]));
            e.bytes(&hop.ifindex.to_ne_bytes());
            encode_gateway(e, hop, family);
            e.end_nest(one);
        }
        e.end_nest(all);
    }
}

/// `RT_SCOPE_NOWHERE`: any scope, in a deletion.
const SCOPE_NOWHERE: u8 = 255;

fn encode_gateway(e: &mut Encoder, hop: &NextHop, family: u8) {
    match hop.via {
        Some(IpAddr::V6(gateway)) if family == AF_INET => {
            let mut via = [0; 18];
            via[..2].copy_from_slice(&u16::from(AF_INET6).to_ne_bytes());
            via[2..].copy_from_slice(&gateway.octets());
            e.attr(RTA_VIA, &via);
        }
        Some(gateway) => e.attr_ip(RTA_GATEWAY, &gateway),
        None => {}
    }
}

/// Appends a dump request for one family. `rtm_protocol` and the table are honoured by kernels with
/// strict checking (4.20), which refuse other fields.
pub(crate) fn encode_dump(e: &mut Encoder, family: Family, filter: &RouteFilter) {
    e.begin(RTM_GETROUTE, F_DUMP);
    let table = filter.table.unwrap_or(0);
    e.bytes(&[family.raw(), 0, 0, 0, u8::try_from(table).unwrap_or(0), filter.proto.unwrap_or(0), 0, 0]);
    e.bytes(&0u32.to_ne_bytes());
    if table > 255 {
        e.attr_u32(RTA_TABLE, table);
    }
}

/// [`parse`] for a dump: `None` also for what the filter leaves out.
pub(crate) fn parse_if(message: &Message<'_>, filter: &RouteFilter) -> Result<Option<Route>, Malformed> {
    let (head, _) = message.split(RTMSG)?;
    if filter.except_proto.is_some_and(|proto| head[5] == proto) {
        return Ok(None);
    }
    Ok(parse(message)?.filter(|route| filter.accepts(route)))
}

/// Reads a route message. `None` for what is no route of ours to see: other families, cached exceptions.
pub(crate) fn parse(message: &Message<'_>) -> Result<Option<Route>, Malformed> {
    let (head, attrs) = message.split(RTMSG)?;
    let (family, len) = (head[0], head[1]);
    if !(family == AF_INET || family == AF_INET6) || u32_at(head, 8).unwrap_or(0) & RTM_F_CLONED != 0 {
        return Ok(None);
    }
    let default = || Malformed("prefix longer than its address");
    let mut route = Route {
        dst: if family == AF_INET {
            Ipv4Net::new(std::net::Ipv4Addr::UNSPECIFIED, len).map_err(|_| default())?.into()
        } else {
            Ipv6Net::new(std::net::Ipv6Addr::UNSPECIFIED, len).map_err(|_| default())?.into()
        },
        table: u32::from(head[4]),
        proto: head[5],
        scope: head[6],
        kind: RouteKind::from_raw(head[7]),
        metric: 0,
        hops: Hops::new(),
        src: None,
    };
    let mut single = NextHop { via: None, ifindex: 0, weight: 1, onlink: head[8] & RTNH_F_ONLINK != 0 };
    for attr in attrs {
        let (kind, value) = attr?;
        match kind {
            RTA_DST => route.dst = IpNet::new(ip_of(value)?, len).map_err(|_| default())?,
            RTA_OIF => single.ifindex = u32_of(value)?,
            RTA_GATEWAY => single.via = Some(ip_of(value)?),
            RTA_VIA => single.via = parse_via(value)?,
            RTA_PRIORITY => route.metric = u32_of(value)?,
            RTA_PREFSRC => route.src = Some(ip_of(value)?),
            RTA_TABLE => route.table = u32_of(value)?,
            RTA_MULTIPATH => route.hops = parse_hops(value)?,
            _ => {}
        }
    }
    // IPv6 reports the loopback device for a blackhole; nothing is forwarded there.
    if route.hops.is_empty() && route.kind.has_hops() && (single.ifindex != 0 || single.via.is_some()) {
        route.hops.push(single);
    }
    Ok(Some(route.normalized()))
}

pub(crate) fn parse_via(value: &[u8]) -> Result<Option<IpAddr>, Malformed> {
    match u16_at(value, 0) {
        Some(f) if f == u16::from(AF_INET) || f == u16::from(AF_INET6) => ip_of(&value[2..]).map(Some),
        _ => Ok(None),
    }
}

fn parse_hops(mut value: &[u8]) -> Result<Hops, Malformed> {
    let mut hops = Hops::new();
    while value.len() >= RTNH {
        let len = usize::from(u16_at(value, 0).unwrap_or(0));
        let record =
            value.get(..len).filter(|r| r.len() >= RTNH).ok_or(Malformed("next hop exceeds its list"))?;
        let mut hop = NextHop {
            via: None,
            ifindex: u32_at(record, 4).unwrap_or(0),
            weight: record[3].saturating_add(1),
            onlink: record[2] & RTNH_F_ONLINK != 0,
        };
        for attr in Attributes(&record[RTNH..]) {
            match attr? {
                (RTA_GATEWAY, v) => hop.via = Some(ip_of(v)?),
                (RTA_VIA, v) => hop.via = parse_via(v)?,
                _ => {}
            }
        }
        hops.push(hop);
        value = value.get((len + 3) & !3..).unwrap_or(&[]);
    }
    Ok(hops)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Messages;
    use proptest::prelude::*;

    fn ip(v4: bool) -> BoxedStrategy<IpAddr> {
        if v4 {
            any::<u32>().prop_map(|n| IpAddr::V4(n.into())).boxed()
        } else {
            any::<u128>().prop_map(|n| IpAddr::V6(n.into())).boxed()
        }
    }

    fn hop(v4: bool) -> impl Strategy<Value = NextHop> {
        (proptest::option::of(ip(v4)), 1u32..9999, 1u8.., any::<bool>())
            .prop_map(|(via, ifindex, weight, onlink)| NextHop { via, ifindex, weight, onlink })
    }

    fn route() -> impl Strategy<Value = Route> {
        any::<bool>().prop_flat_map(|v4| {
            (
                (ip(v4), 0..=if v4 { 32u8 } else { 128 }),
                1u32..70000,
                any::<u8>(),
                any::<u8>(),
                any::<u8>().prop_map(RouteKind::from_raw),
                any::<u32>(),
                proptest::collection::vec(hop(v4), 0..4),
                proptest::option::of(ip(v4)),
            )
                .prop_map(|((a, len), table, proto, scope, kind, metric, hops, src)| Route {
                    dst: IpNet::new(a, len).unwrap(),
                    table,
                    proto,
                    scope,
                    kind,
                    metric,
                    hops: hops.into(),
                    src,
                })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn a_written_route_reads_back_normalized(route in route()) {
            let mut e = Encoder::default();
            encode(&mut e, &route, Write::Replace);
            e.finish(1);
            let message = Messages(e.as_bytes()).next().unwrap().unwrap();
            prop_assert_eq!(parse(&message).unwrap().unwrap(), route.normalized());
        }

        #[test]
        fn no_route_message_panics(body in proptest::collection::vec(any::<u8>(), 0..120), family in 0usize..3) {
            let mut body = body;
            if let (Some(first), Some(f)) = (body.first_mut(), [AF_INET, AF_INET6].get(family)) {
                *first = *f;
            }
            let _ = parse(&Message { kind: RTM_NEWROUTE, flags: 0, seq: 0, body: &body });
        }
    }

    #[test]
    fn an_ipv4_route_through_an_ipv6_gateway_uses_rta_via() {
        let route = Route::via("10.0.0.0/8".parse().unwrap(), 12, "fe80::1".parse().unwrap(), 7);
        let mut e = Encoder::default();
        encode(&mut e, &route, Write::Add);
        e.finish(1);
        let message = Messages(e.as_bytes()).next().unwrap().unwrap();
        let (_, mut attrs) = message.split(RTMSG).unwrap();
        assert!(attrs.any(|a| a.unwrap().0 == RTA_VIA));
        assert_eq!(parse(&message).unwrap().unwrap(), route);
    }
}
