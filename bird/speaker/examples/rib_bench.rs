//! What a route costs: time and memory of import, of export to 1, 10 and 20 peers, and of withdrawal, from UPDATEs encoded
//! before. No sockets, one thread.
//!
//! `cargo run --release -p bird-speaker --example rib_bench -- [PREFIXES] [PREFIXES PER UPDATE]`

#![allow(
    clippy::disallowed_methods,
    clippy::unchecked_time_subtraction,
    reason = "a bench reads its own figures"
)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bird_packet::{
    AttrBuilder, Capability, Family, Nlri, OpenMessage, Origin, PeerKind, Prefix4, SessionContext,
    UpdatePacker, encode_keepalive,
};
use bird_speaker::config::{AddPath, Config, GracefulRestart, KernelRules, Local, PeerConfig};
use bird_speaker::io::ConnId;
use bird_speaker::{Input, Output, Speaker, Start};

fn main() {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<u32>().expect("a number"));
    let prefixes = args.next().unwrap_or(100_000);
    let per_update = args.next().unwrap_or(6);
    println!("{prefixes} prefixes, {per_update} with the same attributes\n");
    println!("{:<34} {:>9} {:>9} {:>12}", "", "CPU ms", "ns/route", "bytes/route");
    for receivers in [0, 1, 10, 20] {
        one_sender(prefixes, per_update, receivers);
    }
    all_to_all(10, prefixes / 20, per_update, false);
    all_to_all(20, prefixes / 20, per_update, true);
}

struct Bench {
    speaker: Speaker,
    now: Duration,
    conns: Vec<ConnId>,
}

fn rss() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc");
    statm.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()).expect("statm") * 4096
}

/// Time that this process ran on a processor: other work on the machine does not count.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").expect("/proc");
    Duration::from_nanos(stat.split(' ').next().and_then(|n| n.parse().ok()).expect("schedstat"))
}

fn address(peer: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0002 + peer))
}

impl Bench {
    /// A speaker with `peers` sessions up.
    fn new(peers: u32) -> Bench {
        let config = Config {
            local: Local { asn: 64512, router_id: Ipv4Addr::new(10, 0, 0, 1), cluster_id: None },
            peers: (0..peers)
                .map(|p| PeerConfig {
                    name: format!("p{p}"),
                    address: address(p),
                    remote_as: 65000 + p,
                    passive: true,
                    add_path: AddPath::default(),
                    graceful_restart: GracefulRestart { enabled: false, ..GracefulRestart::default() },
                    ..PeerConfig::default()
                })
                .collect(),
            kernel: KernelRules { program: false, resolve_next_hops: false, ..KernelRules::default() },
            ..Config::default()
        };
        let now = Duration::from_secs(1);
        let mut bench =
            Bench { speaker: Speaker::new(now, config, Start::default()), now, conns: Vec::new() };
        for p in 0..peers {
            let local = SocketAddr::new(Ipv4Addr::new(10, 0, 0, 1).into(), 179);
            let conn = bench.speaker.accept(now, SocketAddr::new(address(p), 4000), local).expect("known");
            let mut bytes = Vec::new();
            let open = OpenMessage {
                version: 4,
                asn: 65000 + p,
                hold_time: 240,
                router_id: Ipv4Addr::from_bits(0x0a00_0002 + p),
                capabilities: vec![
                    Capability::Multiprotocol(Family::Ipv4Unicast.into()),
                    Capability::FourOctetAs(65000 + p),
                ],
            };
            open.encode(&mut bytes);
            encode_keepalive(&mut bytes);
            bench.receive(conn, &bytes);
            bench.conns.push(conn);
        }
        bench.drain();
        bench
    }

    fn receive(&mut self, conn: ConnId, data: &[u8]) {
        self.speaker.handle(self.now, Input::Received { conn, data });
    }

    /// Does what the speaker wants; returns bytes sent.
    fn drain(&mut self) -> usize {
        let mut sent = 0;
        let mut chunks = Vec::new();
        while let Some(output) = self.speaker.poll() {
            if let Output::Transmit(conn) = output {
                loop {
                    let bytes = self.speaker.transmit(self.now, conn, 256 << 10, &mut chunks);
                    chunks.clear();
                    sent += bytes;
                    if bytes == 0 {
                        break;
                    }
                }
            }
        }
        sent
    }

    /// Feeds whole streams as sockets would, 256 KiB at a time in turn, and sends what comes of it.
    fn feed(&mut self, streams: &[(usize, &[u8])]) -> usize {
        let mut sent = 0;
        let mut at = 0;
        let longest = streams.iter().map(|(_, s)| s.len()).max().unwrap_or(0);
        while at < longest {
            for (peer, stream) in streams {
                if at < stream.len() {
                    let conn = self.conns[*peer];
                    self.receive(conn, &stream[at..stream.len().min(at + (256 << 10))]);
                }
            }
            sent += self.drain();
            at += 256 << 10;
        }
        sent
    }
}

fn prefix(n: u32) -> Nlri<Prefix4> {
    // /24s in an order that no hash likes particularly.
    let bits = 0x0100_0000 + (n << 8);
    Nlri::plain(Prefix4::new(Ipv4Addr::from_bits(bits), 24).expect("24 bits"))
}

fn context() -> SessionContext {
    SessionContext::new(PeerKind::External)
}

/// UPDATEs of a peer for `count` prefixes from `first`, and those that withdraw them.
fn stream(peer: u32, first: u32, count: u32, per_update: u32) -> (Vec<u8>, Vec<u8>) {
    let mut packer = UpdatePacker::new();
    let (mut announce, mut withdraw) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < count {
        let end = count.min(at + per_update);
        let mut attrs = Vec::new();
        let mut builder = AttrBuilder::new();
        let group = at / per_update;
        builder.origin(Origin::Igp).as_path(&[65000 + peer, 3000 + group % 1000, 4000 + group / 1000, 5000]);
        builder.add_community((65000 << 16) | (group % 50));
        builder.write(&mut attrs).expect("short");
        let routes = (first + at..first + end).map(prefix);
        let IpAddr::V4(next_hop) = address(peer) else { return (announce, withdraw) };
        let packed =
            packer.announce(&context(), Family::Ipv4Unicast, &attrs, next_hop.into(), routes, &mut announce);
        packed.expect("fits");
        at = end;
    }
    let routes = (first..first + count).map(prefix);
    packer.withdraw(&context(), Family::Ipv4Unicast, routes, &mut withdraw).expect("fits");
    (announce, withdraw)
}

fn row(what: &str, took: Duration, routes: u64, bytes: Option<u64>) {
    let ns = took.as_nanos() / u128::from(routes.max(1));
    let bytes = bytes.map(|b| (b / routes.max(1)).to_string()).unwrap_or_default();
    println!("{what:<34} {:>9.1} {ns:>9} {bytes:>12}", took.as_secs_f64() * 1e3);
}

fn one_sender(prefixes: u32, per_update: u32, receivers: u32) {
    let (announce, withdraw) = stream(0, 0, prefixes, per_update);
    let mut bench = Bench::new(1 + receivers);
    let before = rss();
    let start = cpu();
    let sent = bench.feed(&[(0, &announce)]);
    let took = cpu() - start;
    let grown = rss().saturating_sub(before);
    row(&format!("1 sender, {receivers} receivers: announce"), took, prefixes.into(), Some(grown));
    assert!(sent >= (announce.len() / 2) * receivers as usize, "{sent}");
    let start = cpu();
    bench.feed(&[(0, &withdraw)]);
    row("    withdraw", cpu() - start, prefixes.into(), None);
    assert_eq!(bench.speaker.totals().paths, 0);
}

/// Every peer sends, every peer is told; `same`: all the same prefixes.
fn all_to_all(peers: u32, each: u32, per_update: u32, same: bool) {
    let streams: Vec<(Vec<u8>, Vec<u8>)> =
        (0..peers).map(|p| stream(p, if same { 0 } else { p * each }, each, per_update)).collect();
    let mut bench = Bench::new(peers + 1);
    let before = rss();
    let start = cpu();
    let announce: Vec<(usize, &[u8])> = streams.iter().enumerate().map(|(p, s)| (p, &s.0[..])).collect();
    bench.feed(&announce);
    let took = cpu() - start;
    let routes = u64::from(peers) * u64::from(each);
    let grown = rss().saturating_sub(before);
    let what = if same { "the same" } else { "distinct" };
    row(&format!("{peers} senders x {each} {what}, all to all"), took, routes, Some(grown));
    let start = cpu();
    let withdraw: Vec<(usize, &[u8])> = streams.iter().enumerate().map(|(p, s)| (p, &s.1[..])).collect();
    bench.feed(&withdraw);
    row("    withdraw", cpu() - start, routes, None);
    assert_eq!(bench.speaker.totals().paths, 0);
}
