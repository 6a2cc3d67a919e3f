//! [`Netlink`]: every read and write of links, addresses, routes and neighbours in one namespace.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;

use crate::address::{self, Address};
use crate::channel::{Channel, Failure, Protocol};
use crate::error::{Error, Result};
use crate::link::{self, Link, LinkKey, NewVeth, SetLink};
use crate::monitor::{Event, Groups, Monitor, MonitorConfig};
use crate::neighbour::{self, Neighbour};
use crate::netns::Netns;
use crate::route::{self, Route, RouteFilter, RouteKind};
use crate::wire::{Encoder, Message, ip_of, u32_of};
use crate::{Family, wire::Malformed};

/// From how many links on one deletion of a group is faster than one for each.
const WORTH_A_GROUP: usize = 3;
/// Group numbers for links about to go; far from what an administrator would choose.
const FIRST_DOOMED_GROUP: u32 = 0xca11_dead;
/// How often a dump of IPv6 routes is repeated when routes were deleted meanwhile.
const ROUTE6_ATTEMPTS: u32 = 12;

/// One write to the kernel.
#[derive(Debug, Clone)]
pub enum Request {
    /// Makes a veth pair; `EEXIST` if the name is taken.
    AddLink(NewVeth),
    /// Changes a link.
    SetLink(SetLink),
    /// Deletes one link (and its pair), about 16 ms for a veth.
    DelLink {
        /// Which link.
        index: u32,
    },
    /// Deletes *every* link of a group in this namespace at once; group 0 is refused.
    DelLinkGroup(u32),
    /// Adds an address; `EEXIST` if it is there.
    AddAddress(Address),
    /// Adds an address or updates its flags.
    ReplaceAddress(Address),
    /// Removes an address.
    DelAddress(Address),
    /// Adds a route; `EEXIST` if the same prefix has one with this metric, whoever owns it.
    AddRoute(Route),
    /// Adds a route, or takes the place of the one with the same prefix, table and metric, *whoever owns that*.
    ReplaceRoute(Route),
    /// Removes the route with this prefix, table, metric (0 for any) and owner; its hops are not compared.
    DelRoute(Route),
    /// Adds or changes a neighbour.
    ReplaceNeighbour(Neighbour),
    /// Removes a neighbour.
    DelNeighbour(Neighbour),
}

/// Where a packet to some address would go now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedRoute {
    /// The outgoing interface.
    pub ifindex: u32,
    /// The gateway, if the address is not on the link.
    pub gateway: Option<IpAddr>,
    /// The source address this host would use.
    pub source: Option<IpAddr>,
    /// `Unicast`, or `Local` for an address of this host.
    pub kind: RouteKind,
}

/// A connection to the kernel of one network namespace. Synchronous: calls return when the kernel is done.
#[derive(Debug)]
pub struct Netlink {
    channel: Channel,
    netns: Netns,
    /// Hears of IPv6 routes deleted during a dump; opened with the first such dump.
    witness: Option<Monitor>,
}

impl Netlink {
    /// Opens a connection in the calling thread's namespace.
    pub fn open() -> Result<Self> {
        let channel = Channel::open(Protocol::Route, None)?;
        Ok(Self { channel, netns: Netns::current()?, witness: None })
    }

    /// Opens a connection in the namespace at `path`, such as `/run/netns/blue` or `/proc/17/ns/net`.
    pub fn open_in(path: &Path) -> Result<Self> {
        Self::open_netns(&Netns::open(path)?)
    }

    /// Opens a connection in an open namespace.
    pub fn open_netns(netns: &Netns) -> Result<Self> {
        let channel = Channel::open(Protocol::Route, Some(netns))?;
        Ok(Self { channel, netns: netns.clone(), witness: None })
    }

    /// The namespace this connection belongs to.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The number of its socket, by which [`crate::MonitorConfig::ignore_changes_by`] tells its changes from those of
    /// others.
    pub fn port(&self) -> u32 {
        self.channel.port()
    }

    /// Carries out every request, in order and in batches, and returns the index and error of those that
    /// failed. A failure does not stop or undo the others. `ENOBUFS` means that the outcome is unknown.
    pub fn apply(&mut self, batch: &[Request]) -> Vec<(usize, Errno)> {
        self.apply_explained(batch).into_iter().map(|f| (f.index, f.errno)).collect()
    }

    /// [`Netlink::apply`], with the kernel's own words for each failure.
    pub fn apply_explained(&mut self, batch: &[Request]) -> Vec<Failure> {
        self.channel.transact(batch, encode)
    }

    /// Carries out one request.
    pub fn apply_one(&mut self, request: Request) -> Result<(), Errno> {
        self.apply(std::slice::from_ref(&request)).first().map_or(Ok(()), |(_, errno)| Err(*errno))
    }

    /// Deletes many links, fast: they are moved to a group that nobody uses, and the group goes in one
    /// request. Returns the index and error of those that could not be deleted (`ENODEV`: gone before).
    pub fn delete_links(&mut self, indices: &[u32]) -> Result<Vec<(usize, Errno)>> {
        let each = |index: &u32| Request::DelLink { index: *index };
        if indices.len() < WORTH_A_GROUP {
            return Ok(self.apply(&indices.iter().map(each).collect::<Vec<_>>()));
        }
        let taken: BTreeSet<u32> = self.links()?.into_iter().map(|l| l.group).collect();
        let group = (FIRST_DOOMED_GROUP..=u32::MAX)
            .find(|g| !taken.contains(g))
            .expect("invariant: there are fewer links than group numbers");
        let doom = |index: &u32| Request::SetLink(SetLink { group: Some(group), ..SetLink::new(*index) });
        let mut failures = self.apply(&indices.iter().map(doom).collect::<Vec<_>>());
        if failures.len() < indices.len()
            && let Err(errno) = self.apply_one(Request::DelLinkGroup(group))
        {
            let failed: BTreeSet<usize> = failures.iter().map(|(i, _)| *i).collect();
            failures.extend((0..indices.len()).filter(|i| !failed.contains(i)).map(|i| (i, errno)));
            failures.sort_unstable_by_key(|(i, _)| *i);
        }
        Ok(failures)
    }

    /// Every link.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        self.channel.dump("dump of links", link::encode_dump, link::parse)
    }

    /// One link by name.
    pub fn link_by_name(&mut self, name: &str) -> Result<Option<Link>> {
        if link::check_name(name).is_err() {
            return Ok(None);
        }
        self.link(&LinkKey::Name(name))
    }

    /// One link by index.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>> {
        self.link(&LinkKey::Index(index))
    }

    /// Every IPv4 and IPv6 address.
    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        self.channel.dump("dump of addresses", address::encode_dump, address::parse)
    }

    /// Every route that the filter accepts.
    pub fn routes(&mut self, filter: RouteFilter) -> Result<Vec<Route>> {
        let families = self.fold_routes(filter, Vec::push)?;
        Ok(families.into_iter().flatten().collect())
    }

    /// The same without keeping them: what `take` makes of the routes of each family, from the default on. Complete, as a
    /// dump is: what came of one that had to be repeated does not count.
    pub fn fold_routes<T: Default>(
        &mut self,
        filter: RouteFilter,
        mut take: impl FnMut(&mut T, Route),
    ) -> Result<Vec<T>> {
        let mut folded = Vec::new();
        if filter.family != Some(Family::V6) {
            folded.push(self.dump_routes(Family::V4, &filter, &mut take)?);
        }
        if filter.family != Some(Family::V4) {
            folded.push(self.routes_v6(&filter, &mut take)?);
        }
        Ok(folded)
    }

    /// Every neighbour and every proxied address, of both families.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>> {
        let mut all = Vec::new();
        for family in [Family::V4, Family::V6] {
            for proxy in [false, true] {
                all.extend(self.channel.dump(
                    "dump of neighbours",
                    |e| neighbour::encode_dump(e, family, proxy),
                    neighbour::parse,
                )?);
            }
        }
        Ok(all)
    }

    /// Where a packet to `dst` would go; `None` if nowhere (no route, or one that drops it).
    pub fn route_get(&mut self, dst: IpAddr) -> Result<Option<ResolvedRoute>> {
        let family = Family::of(&dst).raw();
        let len = if dst.is_ipv4() { 32 } else { 128 };
        let answer = self.channel.ask(
            "route lookup",
            |e| {
                e.begin(route::RTM_GETROUTE, 0);
                e.bytes(&[family, len, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                e.attr_ip(route::RTA_DST, &dst);
            },
            parse_resolved,
        );
        match answer {
            Ok(found) => Ok(Some(found).filter(|r| r.kind.has_hops())),
            // What a lookup that ends in nothing, unreachable, prohibit or blackhole returns.
            Err(Error::Refused {
                errno: Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL,
                ..
            }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn link(&mut self, key: &LinkKey<'_>) -> Result<Option<Link>> {
        match self.channel.ask("link lookup", |e| link::encode_get(e, key), link::parse) {
            Err(Error::Refused { errno: Errno::ENODEV, .. }) => Ok(None),
            answer => answer,
        }
    }

    fn dump_routes<T: Default>(
        &mut self,
        family: Family,
        filter: &RouteFilter,
        take: &mut impl FnMut(&mut T, Route),
    ) -> Result<T> {
        let answer = self.channel.fold(
            "dump of routes",
            |e| route::encode_dump(e, family, filter),
            |folded: &mut T, m| {
                if let Some(route) = route::parse_if(m, filter)? {
                    take(folded, route);
                }
                Ok(())
            },
        );
        match answer {
            // A table that nobody wrote to yet does not exist.
            Err(Error::Refused { errno: Errno::ENOENT, .. }) if filter.table.is_some() => Ok(T::default()),
            other => other,
        }
    }

    /// The kernel resumes a dump of IPv6 routes by counting: a route deleted meanwhile makes it skip one
    /// that exists, and it does not say so (`fib6_dump_table`). So a witness listens, and a dump during
    /// which a route went away is repeated.
    fn routes_v6<T: Default>(
        &mut self,
        filter: &RouteFilter,
        take: &mut impl FnMut(&mut T, Route),
    ) -> Result<T> {
        let mut witness = match self.witness.take() {
            Some(w) => w,
            None => {
                Monitor::open_netns(MonitorConfig::new(Groups::NONE).receive_buffer(1 << 20), &self.netns)?
            }
        };
        witness.join(Groups::ROUTE6)?;
        let result = self.routes_v6_witnessed(filter, &mut witness, take);
        witness.leave(Groups::ROUTE6)?;
        self.witness = Some(witness);
        result
    }

    fn routes_v6_witnessed<T: Default>(
        &mut self,
        filter: &RouteFilter,
        witness: &mut Monitor,
        take: &mut impl FnMut(&mut T, Route),
    ) -> Result<T> {
        witness.drain()?;
        for attempt in 0..ROUTE6_ATTEMPTS {
            let found = self.dump_routes(Family::V6, filter, take)?;
            let mut disturbed = false;
            loop {
                let events = witness.try_next()?;
                disturbed |=
                    events.iter().any(|e| matches!(e, Event::Route { gone: true, .. } | Event::Overrun));
                if events.is_empty() {
                    break;
                }
            }
            if !disturbed {
                return Ok(found);
            }
            std::thread::sleep(std::time::Duration::from_millis(u64::from(attempt)));
        }
        Err(Error::Interrupted { doing: "dump of routes", attempts: ROUTE6_ATTEMPTS })
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

fn encode(e: &mut Encoder, request: &Request) -> Result<(), Errno> {
    match request {
        Request::AddLink(new) => link::encode_veth(e, new)?,
        Request::SetLink(set) => link::encode_set(e, set)?,
        Request::DelLink { index } => link::encode_delete(e, *index)?,
        Request::DelLinkGroup(group) => link::encode_delete_group(e, *group)?,
        Request::AddAddress(a) => address::encode(e, a, address::Write::Add),
        Request::ReplaceAddress(a) => address::encode(e, a, address::Write::Replace),
        Request::DelAddress(a) => address::encode(e, a, address::Write::Delete),
        Request::AddRoute(r) => route::encode(e, r, route::Write::Add),
        Request::ReplaceRoute(r) => route::encode(e, r, route::Write::Replace),
        Request::DelRoute(r) => route::encode(e, r, route::Write::Delete),
        Request::ReplaceNeighbour(n) => neighbour::encode(e, n, false),
        Request::DelNeighbour(n) => neighbour::encode(e, n, true),
    }
    Ok(())
}

fn parse_resolved(message: &Message<'_>) -> Result<ResolvedRoute, Malformed> {
    let (head, attrs) = message.split(route::RTMSG)?;
    let mut found =
        ResolvedRoute { ifindex: 0, gateway: None, source: None, kind: RouteKind::from_raw(head[7]) };
    for attr in attrs {
        match attr? {
            (route::RTA_OIF, v) => found.ifindex = u32_of(v)?,
            (route::RTA_GATEWAY, v) => found.gateway = Some(ip_of(v)?),
            (route::RTA_VIA, v) => found.gateway = route::parse_via(v)?,
            (route::RTA_PREFSRC, v) => found.source = Some(ip_of(v)?),
            _ => {}
        }
    }
    Ok(found)
}
