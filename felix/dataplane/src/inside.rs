//! Inside a workload's namespace: its end of the link, addresses, routes and the permanent neighbour.

use std::net::IpAddr;
use std::path::Path;

use caracal_netlink::{
    Address, Errno, Error, Family, Link, Mac, Neighbour, Netlink, Netns, Request, Route, RouteFilter,
    SetLink,
    netns::{self, NetnsId},
    nud, sysctl,
};
use felix_calc::{NETNS_ANNOTATION, WepId};
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
    /// The namespace cannot be used.
    #[error("{0}")]
    Namespace(String),
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

/// One look inside one workload's namespace.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) id: WepId,
    /// Where its namespace is.
    pub(crate) path: String,
    /// The host's own namespace, which it may not be.
    pub(crate) own: NetnsId,
    /// The near end of the pair.
    pub(crate) host: Link,
    pub(crate) want: Inside,
    /// Addresses that we put there and that nobody wants now.
    pub(crate) stale: Vec<IpAddr>,
    /// The link was born a moment ago in this namespace: there is nothing to compare with.
    pub(crate) fresh: Option<NetnsId>,
}

/// A visit that was made.
#[derive(Debug)]
pub(crate) struct Visited {
    pub(crate) visit: Visit,
    pub(crate) result: Result<Outcome, InsideError>,
}

/// Visits one namespace after the other. The calling thread ends up in the last of them: start one for it.
pub(crate) fn tour(visits: Vec<Visit>) -> Vec<Visited> {
    visits.into_iter().map(|visit| Visited { result: converge(&visit), visit }).collect()
}

/// The workload's namespace, which may not be the host's own: a default route there would cut the host off.
pub(crate) fn open(path: &str, own: NetnsId) -> Result<Netns, InsideError> {
    let field = format!("metadata.annotations[{NETNS_ANNOTATION}]");
    let unusable = |err: Error| match err.errno() {
        Some(Errno::ENOENT) => {
            format!("{field}: {path} does not exist; start the workload, or remove the endpoint")
        }
        _ => format!("{field}: {err}; name the workload's network namespace"),
    };
    let netns = Netns::open(Path::new(path)).map_err(|err| InsideError::Namespace(unusable(err)))?;
    if netns.id() == own {
        let why = format!("{field}: {path} is the host's own namespace; name the workload's");
        return Err(InsideError::Namespace(why));
    }
    Ok(netns)
}

/// Makes the inside as it is wanted. Addresses and routes of the workload's own stay.
fn converge(visit: &Visit) -> Result<Outcome, InsideError> {
    let Visit { host, want, stale, .. } = visit;
    let netns = open(&visit.path, visit.own)?;
    if visit.fresh.is_some_and(|birthplace| birthplace != netns.id()) {
        return Err(InsideError::Elsewhere);
    }
    netns::enter(&netns)?;
    let index = host.peer_index.ok_or(InsideError::Elsewhere)?;
    let mut netlink = Netlink::open()?;
    let mut mac = want.mac;
    let requests = if visit.fresh.is_some() {
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
    if !requests.is_empty() {
        write(&mut netlink, &requests, want)?;
    }
    Ok(Outcome { mac, writes: requests.len() })
}

fn write(netlink: &mut Netlink, requests: &[Request], want: &Inside) -> Result<(), InsideError> {
    let mut failed = harmful(netlink, requests);
    if !failed.is_empty() && want.has_v6() && ipv6_is_off()? {
        // Some runtimes hand over namespaces with IPv6 switched off, whatever the address plan says.
        for scope in ["all", "default", "lo"] {
            // A failure shows as the refused address below.
            let _ = sysctl::set_for_interface(Family::V6, scope, "disable_ipv6", "0");
        }
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

fn ipv6_is_off() -> Result<bool, Error> {
    let off = sysctl::read_for_interface(Family::V6, "all", "disable_ipv6")?;
    Ok(off.as_deref() == Some("1"))
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
