//! Prints how fast this kernel takes routes and links: `cargo run --release --example rates [routes] [links]`.
//!
//! Works in two namespaces of its own, which are removed at the end. Needs root.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use caracal_netlink::{
    Address, Groups, Monitor, MonitorConfig, Netlink, NewVeth, Request, Result, Route, RouteFilter, SetLink,
    netns, proto,
};
use ipnet::{IpNet, Ipv4Net};

fn main() -> Result<()> {
    let mut numbers = std::env::args().skip(1).filter_map(|a| a.parse::<u32>().ok());
    let (routes, links) = (numbers.next().unwrap_or(100_000), numbers.next().unwrap_or(500));
    let host = Space::new("host")?;
    let pods = Space::new("pods")?;
    measure(&host.0, &pods.0, routes, links)
}

/// A namespace that goes when it is dropped, also when a measurement fails.
struct Space(String);

impl Space {
    fn new(role: &str) -> Result<Self> {
        let name = format!("rates-{role}-{}", std::process::id());
        netns::create_named(&name)?;
        Ok(Self(name))
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = netns::delete_named(&self.0);
    }
}

fn measure(host: &str, pods: &str, routes: u32, links: u32) -> Result<()> {
    let mut nl = Netlink::open_in(&netns::named_path(host)?)?;
    let far = netns::Netns::named(pods)?;
    let uplink = NewVeth { name: "up".into(), peer_name: "up2".into(), up: true, ..NewVeth::default() };
    expect_none(&nl.apply(&[Request::AddLink(uplink)]));
    let up = nl.link_by_name("up")?.map_or(0, |l| l.index);
    let peer = nl.link_by_name("up2")?.map_or(0, |l| l.index);
    let net = IpNet::V4(Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 1), 24).expect("invariant: 24 is a length"));
    expect_none(
        &nl.apply(&[Request::SetLink(SetLink::up(peer)), Request::AddAddress(Address::new(up, net))]),
    );

    let gateway = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
    let all: Vec<Route> = (0..routes)
        .map(|n| {
            let dst = Ipv4Net::new((0x1400_0000 + n * 64).into(), 26).expect("invariant: 26 is a length");
            Route::via(dst.into(), proto::BIRD, gateway, up).metric(100)
        })
        .collect();
    let requests = |make: fn(Route) -> Request| all.iter().cloned().map(make).collect::<Vec<_>>();
    let mut timed = |what: &str, batch: Vec<Request>| {
        let start = Instant::now();
        expect_none(&nl.apply(&batch));
        report(what, batch.len(), start.elapsed());
    };
    timed("routes added", requests(Request::AddRoute));
    timed("routes replaced by the same", requests(Request::ReplaceRoute));
    let mut reader = Netlink::open_in(&netns::named_path(host)?)?;
    let start = Instant::now();
    let found = reader.routes(RouteFilter::main().proto(proto::BIRD))?.len();
    report("routes read", found, start.elapsed());
    timed("routes deleted", requests(Request::DelRoute));

    for (what, config) in [
        ("routes added while heard", MonitorConfig::new(Groups::ROUTE)),
        (
            "routes added, filtered in the kernel",
            MonitorConfig::new(Groups::ROUTE).ignore_new_routes_of(proto::BIRD),
        ),
    ] {
        let mut monitor = Monitor::open_in(config.receive_buffer(1 << 30), &netns::named_path(host)?)?;
        timed(what, requests(Request::AddRoute));
        let start = Instant::now();
        let mut events = 0;
        loop {
            match monitor.try_next()?.len() {
                0 => break,
                n => events += n,
            }
        }
        report("events read", events, start.elapsed());
        drop(monitor);
        timed("routes deleted", requests(Request::DelRoute));
    }

    let pairs = (0..links).map(|n| {
        Request::AddLink(NewVeth {
            name: format!("cali{n:08x}"),
            peer_name: format!("eth{n}"),
            up: true,
            peer_netns: Some(far.clone()),
            ..NewVeth::default()
        })
    });
    timed("veth pairs made", pairs.collect());
    let start = Instant::now();
    let indices: Vec<u32> =
        reader.links()?.iter().filter(|l| l.name.starts_with("cali")).map(|l| l.index).collect();
    report("links read", indices.len(), start.elapsed());
    let start = Instant::now();
    expect_none(&reader.delete_links(&indices)?);
    report("veth pairs deleted", indices.len(), start.elapsed());
    Ok(())
}

fn expect_none<T: std::fmt::Debug>(failures: &[T]) {
    if let Some(first) = failures.first() {
        eprintln!("{} requests failed, first {first:?}", failures.len());
    }
}

fn report(what: &str, count: usize, took: Duration) {
    let rate = f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / took.as_secs_f64() / 1000.0;
    println!("{count:>8} {what:<38} {:>8.1} ms {rate:>8.1} k/s", took.as_secs_f64() * 1000.0);
}
