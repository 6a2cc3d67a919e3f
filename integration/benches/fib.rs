//! Kernel routes: how fast `caracal-netlink`, which writes the speaker's routes, gets them in and out again, against the
//! least that can be sent: messages encoded beforehand, one acknowledgement for each batch. In a namespace of its own.
//!
//! `cargo bench -p integration --bench fib -- [ROUTES]`, as root.

mod common;

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use caracal_netlink::{Netlink, Request, Route, RouteFilter, proto};
use common::{each, middle, number, row, title};
use integration::lab::{Lab, Namespace};
use ipnet::{IpNet, Ipv4Net};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const METRIC: u32 = 32;
/// Rounds of each row; the middle one is shown.
const ROUNDS: usize = 5;

const NEW: u16 = 24;
const DELETE: u16 = 25;

fn main() -> anyhow::Result<()> {
    let routes = number(100_000);
    let mut lab = Lab::new("bfib")?;
    let (router, peer) = (lab.host("router")?, lab.host("peer")?);
    router.wire("up0", &peer, "up0", None)?;
    router.address("up0", IpNet::new(ROUTER.into(), 24)?)?;
    let mut netlink = Netlink::open_in(&router.path())?;
    let index = netlink.link_by_name("up0")?.context("up0 is not there")?.index;
    let prefixes: Vec<Ipv4Net> = (0..routes)
        .map(|i| Ipv4Net::new(Ipv4Addr::from_bits(0x1400_0000 + (i << 8)), 24).expect("24 bits"))
        .collect();

    title(&format!("{routes} routes by a gateway"), &["add us/route", "delete us/route", "x the floor"]);
    let mut floor = f64::NAN;
    for batch in [256, 16, 1] {
        let rounds: Vec<(Duration, Duration)> =
            (0..ROUNDS).map(|_| raw(&router, &prefixes, index, batch)).collect::<Result<_, _>>()?;
        let add = middle(rounds.iter().map(|r| r.0).collect());
        let delete = middle(rounds.iter().map(|r| r.1).collect());
        let (add, delete) = (each(add, routes) / 1e3, each(delete, routes) / 1e3);
        if floor.is_nan() {
            floor = add;
        }
        row(&format!("raw, {batch} in a message, one answer for all"), &[add, delete, add / floor]);
    }
    for batch in [usize::MAX, 1024, 1] {
        let rounds: Vec<(Duration, Duration)> =
            (0..ROUNDS).map(|_| ours(&mut netlink, &prefixes, index, batch)).collect::<Result<_, _>>()?;
        let add = middle(rounds.iter().map(|r| r.0).collect());
        let delete = middle(rounds.iter().map(|r| r.1).collect());
        let (add, delete) = (each(add, routes) / 1e3, each(delete, routes) / 1e3);
        let what = if batch == usize::MAX { "all".into() } else { batch.to_string() };
        row(&format!("caracal-netlink, {what} in a call, every failure told"), &[add, delete, add / floor]);
    }
    Ok(())
}

/// Adds and deletes by `caracal-netlink`, `batch` routes in a call.
fn ours(
    netlink: &mut Netlink,
    prefixes: &[Ipv4Net],
    index: u32,
    batch: usize,
) -> anyhow::Result<(Duration, Duration)> {
    let routes: Vec<Route> = prefixes
        .iter()
        .map(|&net| Route::via(net.into(), proto::BIRD, PEER.into(), index).metric(METRIC))
        .collect();
    let adds: Vec<Request> = routes.iter().cloned().map(Request::AddRoute).collect();
    let deletes: Vec<Request> = routes.into_iter().map(Request::DelRoute).collect();
    let start = Instant::now();
    let failed: usize = adds.chunks(batch.min(adds.len())).map(|some| netlink.apply(some).len()).sum();
    let added = start.elapsed();
    anyhow::ensure!(failed == 0, "{failed} routes were refused");
    let there = netlink.routes(RouteFilter::main().proto(proto::BIRD))?.len();
    anyhow::ensure!(there == prefixes.len(), "{there} routes are in the kernel");
    let start = Instant::now();
    let failed: usize = deletes.chunks(batch.min(deletes.len())).map(|some| netlink.apply(some).len()).sum();
    let deleted = start.elapsed();
    anyhow::ensure!(failed == 0, "{failed} routes could not be deleted");
    Ok((added, deleted))
}

/// Adds and deletes by bytes made beforehand, `batch` messages in a `send`, of which the last asks for an answer.
fn raw(
    space: &Namespace,
    prefixes: &[Ipv4Net],
    index: u32,
    batch: usize,
) -> anyhow::Result<(Duration, Duration)> {
    let socket = space.run(|| {
        let flags = SockFlag::SOCK_CLOEXEC;
        socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)
    })?;
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::SndBuf, &(1 << 20))?;
    let adds: Vec<Vec<u8>> = prefixes.chunks(batch).map(|some| messages(NEW, some, index)).collect();
    let deletes: Vec<Vec<u8>> = prefixes.chunks(batch).map(|some| messages(DELETE, some, index)).collect();
    let start = Instant::now();
    for bytes in &adds {
        talk(&socket, bytes)?;
    }
    let added = start.elapsed();
    let there = Netlink::open_in(&space.path())?.routes(RouteFilter::main().proto(proto::BIRD))?.len();
    anyhow::ensure!(there == prefixes.len(), "{there} routes are in the kernel");
    let start = Instant::now();
    for bytes in &deletes {
        talk(&socket, bytes)?;
    }
    Ok((added, start.elapsed()))
}

/// Sends a batch and waits for its answer: the first error, or that of the last message, which is 0.
fn talk(socket: &OwnedFd, bytes: &[u8]) -> anyhow::Result<()> {
    send(socket.as_raw_fd(), bytes, MsgFlags::empty())?;
    let mut answer = [0u8; 4096];
    let len = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let errno = answer.get(16..20).filter(|_| len >= 20).and_then(|b| b.try_into().ok());
    let errno = errno.map(i32::from_ne_bytes).context("a short answer of the kernel")?;
    anyhow::ensure!(errno == 0, "the kernel refuses a route: error {}", -errno);
    Ok(())
}

/// `RTM_NEWROUTE` or `RTM_DELROUTE` messages (linux/rtnetlink.h), native byte order.
fn messages(kind: u16, prefixes: &[Ipv4Net], index: u32) -> Vec<u8> {
    const LEN: u32 = 16 + 12 + 4 * 8;
    let mut out = Vec::new();
    for (at, net) in prefixes.iter().enumerate() {
        let last = at + 1 == prefixes.len();
        // NLM_F_REQUEST; NLM_F_CREATE | NLM_F_EXCL for a new one; NLM_F_ACK on the last.
        let flags = 1 | if kind == NEW { 0x400 | 0x200 } else { 0 } | if last { 4 } else { 0 };
        out.extend_from_slice(&LEN.to_ne_bytes());
        out.extend_from_slice(&kind.to_ne_bytes());
        out.extend_from_slice(&u16::to_ne_bytes(flags));
        out.extend_from_slice(&[0; 8]); // sequence, port
        // rtmsg: AF_INET, destination and source length, tos, main table, protocol, universe, unicast, flags
        out.extend_from_slice(&[2, net.prefix_len(), 0, 0, 254, proto::BIRD, 0, 1, 0, 0, 0, 0]);
        let mut attribute = |kind: u16, value: [u8; 4]| {
            out.extend_from_slice(&8u16.to_ne_bytes());
            out.extend_from_slice(&kind.to_ne_bytes());
            out.extend_from_slice(&value);
        };
        attribute(1, net.network().octets()); // RTA_DST
        attribute(5, PEER.octets()); // RTA_GATEWAY
        attribute(4, index.to_ne_bytes()); // RTA_OIF
        attribute(6, METRIC.to_ne_bytes()); // RTA_PRIORITY
    }
    out
}
