//! Many routes learned by BGP, until the kernel has them, against the same routes by raw netlink.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bird_packet::Prefix4;
use caracal_netlink::{Netlink, Request, Route, RouteFilter, proto};
use ipnet::{IpNet, Ipv4Net};

use super::sender::{self, Sender};
use super::{Table, cpu_seconds, memory};
use crate::lab::{Lab, Namespace, Process};

const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const PEER_AS: u32 = 64_999;

/// Runs it: `count` routes in `kinds` attribute sets from one neighbour to `caracal bird --config`.
pub fn run(binary: &Path, count: u32, kinds: u32, table: &mut Table) -> anyhow::Result<()> {
    let mut lab = Lab::new("bl")?;
    let (router, peer) = (lab.host("router")?, lab.host("peer")?);
    router.wire("up0", &peer, "up0", None)?;
    router.address("up0", IpNet::new(ROUTER.into(), 24)?)?;
    peer.address("up0", IpNet::new(PEER.into(), 24)?)?;
    let prefixes = sender::prefixes(count);

    let floor = raw(&router, &prefixes)?;
    table.value(
        &format!("{count} routes by raw batched netlink"),
        "s",
        floor.as_secs_f64(),
        "the floor, same run",
    );

    let file = lab.file("router.yaml");
    let yaml = format!(
        "routerId: {ROUTER}\nasNumber: 64512\nlisten: ['{ROUTER}:179']\nneighbours:\n  - {{ address: {PEER}, asNumber: {PEER_AS}, passive: true }}\n"
    );
    std::fs::write(&file, yaml)?;
    let argv = [&*binary.to_string_lossy(), "bird", "--config", &file.to_string_lossy()];
    let mut bird = Process::new("bird", &router, lab.dir(), &argv)
        .env("CARACAL_RUN_DIR", &lab.file("run").to_string_lossy());
    bird.start()?;
    let mut session = Sender::connect(&peer, SocketAddr::from((ROUTER, 179)), PEER_AS, PEER)
        .with_context(|| lab.logs(20))?;
    let pid = bird.pid().context("bench: bird has ended")?;
    // The first writes after the session is up are its own; wait for rest.
    super::settle(pid, Duration::from_secs(10));
    let before = cpu_seconds(pid);
    let base = routes(&router)?;

    let messages = sender::announcements(&prefixes, PEER_AS, PEER, kinds)?;
    let start = Instant::now();
    let said = session.say(&messages)?;
    let done = reached(&router, base + u64::from(count))?;
    let cpu = cpu_seconds(pid) - before;
    let there = Netlink::open_in(&router.path())?.routes(RouteFilter::main().proto(proto::BIRD))?.len();
    anyhow::ensure!(there == prefixes.len(), "bench: the kernel has {there} routes of bird");
    table.value(
        &format!("{count} routes by BGP: last UPDATE sent -> all in the kernel"),
        "s",
        done.saturating_duration_since(said).as_secs_f64(),
        &format!(
            "{kinds} attribute sets; {:.2} s from the first UPDATE; {:.2} x the floor; {:.2} CPU s; {:.0} MiB resident",
            done.saturating_duration_since(start).as_secs_f64(),
            done.saturating_duration_since(start).as_secs_f64() / floor.as_secs_f64(),
            cpu,
            memory(pid, "Rss")
        ),
    );

    let messages = sender::withdrawals(&prefixes)?;
    let start = Instant::now();
    let said = session.say(&messages)?;
    let done = fell(&router, base)?;
    table.value(
        &format!("{count} routes withdrawn: last UPDATE sent -> none in the kernel"),
        "s",
        done.saturating_duration_since(said).as_secs_f64(),
        &format!("{:.2} s from the first UPDATE", done.saturating_duration_since(start).as_secs_f64()),
    );
    session.close();
    Ok(())
}

/// Writes and removes the routes by netlink alone; how long the writing took.
fn raw(space: &Namespace, prefixes: &[Prefix4]) -> anyhow::Result<Duration> {
    let mut netlink = Netlink::open_in(&space.path())?;
    let index = netlink.link_by_name("up0")?.context("bench: up0 is not there")?.index;
    let routes: Vec<Route> = prefixes
        .iter()
        .map(|p| {
            let net = Ipv4Net::new(p.addr(), p.len()).expect("invariant: a Prefix4 has a valid length");
            Route::via(net.into(), proto::BIRD, PEER.into(), index).metric(32)
        })
        .collect();
    let adds: Vec<Request> = routes.iter().cloned().map(Request::AddRoute).collect();
    let start = Instant::now();
    let failed = netlink.apply(&adds);
    let took = start.elapsed();
    anyhow::ensure!(failed.is_empty(), "bench: {} routes were refused", failed.len());
    let failed = netlink.apply(&routes.into_iter().map(Request::DelRoute).collect::<Vec<_>>());
    anyhow::ensure!(failed.is_empty(), "bench: {} routes could not be removed", failed.len());
    Ok(took)
}

/// Prefixes in the kernel's main IPv4 table, by its own count: reading it costs less than a dump or 100,000 notifications.
pub fn routes(space: &Namespace) -> anyhow::Result<u64> {
    let text = space.run(|| std::fs::read_to_string("/proc/thread-self/net/fib_triestat"))?;
    // The main table comes first. Without rules of its own a namespace has one trie for main and local, told twice.
    let count = text.lines().find_map(|line| line.trim().strip_prefix("Prefixes:"));
    Ok(count.context("bench: /proc/net/fib_triestat has no count")?.trim().parse()?)
}

fn reached(space: &Namespace, count: u64) -> anyhow::Result<Instant> {
    wait(space, &|now| now >= count)
}

fn fell(space: &Namespace, count: u64) -> anyhow::Result<Instant> {
    wait(space, &|now| now <= count)
}

fn wait(space: &Namespace, enough: &dyn Fn(u64) -> bool) -> anyhow::Result<Instant> {
    let deadline = Instant::now() + Duration::from_mins(2);
    loop {
        let now = routes(space)?;
        let at = Instant::now();
        if enough(now) {
            return Ok(at);
        }
        anyhow::ensure!(at < deadline, "bench: {now} prefixes in the kernel after two minutes");
        thread::sleep(Duration::from_millis(10));
    }
}
