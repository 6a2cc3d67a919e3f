//! Inside a workload's namespace: its end of the link, addresses, routes and the permanent neighbour.

use std::net::IpAddr;

use caracal_netlink::{
    Address, Errno, Error, Family, Link, Mac, Neighbour, Netlink, Netns, Request, Route, RouteFilter,
    SetLink, nud, sysctl,
};
use ipnet::IpNet;

use crate::convert::Inside;

/// The workload's end of a link, and what was done about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Its Ethernet address.
    pub(crate) mac: Option<Mac>,
    /// Writes that the kernel was asked for.
    pub(crate) writes: usize,
}

/// Why the inside is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InsideError {
    /// The host end leads somewhere else: the namespace is not the one that the link was made for.
    #[error("the link leads to another namespace")]
    Elsewhere,
    /// The kernel refused one of the writes.
    #[error("{what}: {reason}")]
    Refused {
        /// What was to be written.
        what: String,
        /// The kernel's word for it.
        reason: String,
    },
    /// Nothing could be read.
    #[error(transparent)]
    Netlink(#[from] Error),
}

/// Makes the inside of `netns` as `want` says; `host` is the near end of the pair.
///
/// A link that was born a moment ago (`fresh`) has nothing to compare with. `stale` are addresses that we put there
/// and that nobody wants now. Addresses and routes of the workload's own stay.
pub(crate) fn converge(
    netns: &Netns,
    host: &Link,
    want: &Inside,
    stale: &[IpAddr],
    fresh: bool,
) -> Result<Outcome, InsideError> {
    let index = host.peer_index.ok_or(InsideError::Elsewhere)?;
    let mut netlink = Netlink::open_netns(netns)?;
    let mut mac = want.mac;
    let requests = if fresh {
        if mac.is_none() {
            mac = netlink.link_by_index(index)?.and_then(|link| link.mac);
        }
        everything(index, want)
    } else {
        let link = netlink.link_by_index(index)?.filter(|link| link.peer_index == Some(host.index));
        let link = link.ok_or(InsideError::Elsewhere)?;
        mac = mac.or(link.mac);
        difference(&mut netlink, &link, want, stale)?
    };
    if requests.is_empty() {
        return Ok(Outcome { mac, writes: 0 });
    }
    write(&mut netlink, netns, &requests, want)?;
    Ok(Outcome { mac, writes: requests.len() })
}

fn write(
    netlink: &mut Netlink,
    netns: &Netns,
    requests: &[Request],
    want: &Inside,
) -> Result<(), InsideError> {
    let mut failed = harmful(netlink, requests);
    if !failed.is_empty() && want.has_v6() && ipv6_is_off(netns)? {
        // Some runtimes hand over namespaces with IPv6 switched off, whatever the address plan says.
        netns.run(|| {
            for scope in ["all", "default", "lo"] {
                // A failure shows as the refused address below.
                let _ = sysctl::set_for_interface(Family::V6, scope, "disable_ipv6", "0");
            }
        })?;
        let again: Vec<Request> = failed.iter().map(|(index, _)| requests[*index].clone()).collect();
        let still: Vec<(usize, Errno)> = harmful(netlink, &again);
        failed = still.into_iter().map(|(index, errno)| (failed[index].0, errno)).collect();
    }
    match failed.first() {
        None => Ok(()),
        Some((index, errno)) => {
            let what = describe(&requests[*index]);
            let reason = match errno {
                Errno::EEXIST => "the namespace has another one already; remove it".into(),
                errno => errno.desc().to_ascii_lowercase(),
            };
            Err(InsideError::Refused { what, reason })
        }
    }
}

fn harmful(netlink: &mut Netlink, requests: &[Request]) -> Vec<(usize, Errno)> {
    let mut failed = netlink.apply(requests);
    failed.retain(|(index, errno)| match (&requests[*index], errno) {
        // Already there, already gone.
        (Request::AddAddress(_), Errno::EEXIST) | (Request::DelAddress(_), Errno::EADDRNOTAVAIL) => false,
        _ => true,
    });
    failed
}

fn ipv6_is_off(netns: &Netns) -> Result<bool, Error> {
    let off = netns.run(|| sysctl::read_for_interface(Family::V6, "all", "disable_ipv6"))?;
    Ok(off?.as_deref() == Some("1"))
}

/// Everything, for a link that has nothing yet.
fn everything(index: u32, want: &Inside) -> Vec<Request> {
    let mut requests = vec![Request::SetLink(SetLink::up(index))];
    requests.extend(want.addresses(index).map(Request::AddAddress));
    requests.extend(want.routes(index).into_iter().map(Request::AddRoute));
    requests.extend(want.neighbours(index).into_iter().map(Request::ReplaceNeighbour));
    requests
}

/// What is missing or wrong, in the order in which the kernel takes it.
fn difference(
    netlink: &mut Netlink,
    link: &Link,
    want: &Inside,
    stale: &[IpAddr],
) -> Result<Vec<Request>, InsideError> {
    let index = link.index;
    let mut requests = Vec::new();
    let set = SetLink {
        up: (!link.up).then_some(true),
        mac: want.mac.filter(|mac| link.mac != Some(*mac)),
        mtu: Some(want.mtu).filter(|mtu| link.mtu != *mtu),
        ..SetLink::new(index)
    };
    // A change of the Ethernet address flushes the neighbours, permanent ones too.
    let flushed = !link.up || set.mac.is_some();
    if set.up.is_some() || set.mac.is_some() || set.mtu.is_some() {
        requests.push(Request::SetLink(set));
    }
    // A link that is down has lost its routes and some of its addresses, whatever the tables said a moment ago.
    let addresses = netlink.addresses()?;
    let there = |address: &Address| addresses.iter().any(|a| a.index == index && a.net == address.net);
    requests.extend(want.addresses(index).filter(|a| !there(a)).map(Request::AddAddress));
    let old = stale.iter().filter(|a| !want.addresses.contains(a));
    let old = old.map(|a| Address::new(index, IpNet::from(*a)));
    requests.extend(old.filter(there).map(Request::DelAddress));
    let mut routes = netlink.routes(RouteFilter::main().family(Family::V4))?;
    if want.has_v6() {
        routes.extend(netlink.routes(RouteFilter::main().family(Family::V6))?);
    }
    let leads = |route: &Route| link.up && routes.iter().any(|r| same_way(r, route));
    requests.extend(want.routes(index).into_iter().filter(|r| !leads(r)).map(Request::AddRoute));
    let neighbours = netlink.neighbours()?;
    let known = |n: &Neighbour| {
        !flushed
            && neighbours.iter().any(|a| {
                (a.index, a.address, a.mac, a.proxy) == (n.index, n.address, n.mac, false)
                    && a.state & nud::PERMANENT != 0
            })
    };
    requests.extend(want.neighbours(index).into_iter().filter(|n| !known(n)).map(Request::ReplaceNeighbour));
    Ok(requests)
}

/// Whether two routes lead the same packets the same way, whoever made them.
fn same_way(a: &Route, b: &Route) -> bool {
    let hop = |r: &Route| r.hops.first().map(|h| (h.via, h.ifindex));
    a.dst == b.dst && a.kind == b.kind && hop(a) == hop(b)
}

fn describe(request: &Request) -> String {
    match request {
        Request::AddAddress(a) => format!("address {} in the workload", a.net),
        Request::DelAddress(a) => format!("removal of address {} in the workload", a.net),
        Request::AddRoute(r) if r.dst.prefix_len() == 0 => "default route in the workload".into(),
        Request::AddRoute(r) => format!("route {} in the workload", r.dst),
        Request::ReplaceNeighbour(n) => format!("neighbour {} in the workload", n.address),
        _ => "link in the workload".into(),
    }
}
