//! What the in-process benches share: clocks, a speaker with sessions up, and the UPDATEs to feed it.

#![allow(dead_code, reason = "each bench uses some of it")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use bird_packet::{
    AttrBuilder, Capability, Family, Nlri, OpenMessage, Origin, PeerKind, Prefix4, SessionContext,
    UpdatePacker, encode_keepalive, frame,
};
use bird_speaker::config::{AddPath, Config, GracefulRestart, KernelRules, Local, PeerConfig};
use bird_speaker::io::ConnId;
use bird_speaker::{Input, Output, Speaker, Start};

/// Our AS in every bench.
pub(crate) const ASN: u32 = 64512;

/// The median of nine times `rounds` calls, in nanoseconds for each.
pub(crate) fn median(rounds: u32, mut work: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..9)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..rounds {
                work();
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(rounds)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The middle one of some times.
pub(crate) fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Time that `work` ran on a processor: other work on the machine does not count. On the first thread only.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = cpu();
    let result = work();
    (cpu().saturating_sub(start), result)
}

fn cpu() -> Duration {
    // The kernel adds up when it schedules, or at a tick of 4 ms.
    std::thread::yield_now();
    let stat = std::fs::read_to_string("/proc/self/schedstat").expect("/proc");
    Duration::from_nanos(stat.split(' ').next().and_then(|n| n.parse().ok()).expect("schedstat"))
}

/// Resident memory of this process.
pub(crate) fn rss() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc");
    statm.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()).expect("statm") * 4096
}

/// Nanoseconds for each of `count` things.
pub(crate) fn each(took: Duration, count: u32) -> f64 {
    took.as_secs_f64() * 1e9 / f64::from(count.max(1))
}

/// The address of a peer.
pub(crate) fn address(peer: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a00_0002 + peer)
}

/// The AS of a peer: its own, or ours.
pub(crate) fn peer_as(kind: PeerKind, peer: u32) -> u32 {
    match kind {
        PeerKind::Internal => ASN,
        _ => 65000 + peer,
    }
}

/// /24s, one after the other.
pub(crate) fn prefix(n: u32) -> Nlri<Prefix4> {
    Nlri::plain(Prefix4::new(Ipv4Addr::from_bits(0x0100_0000 + (n << 8)), 24).expect("24 bits"))
}

/// A speaker with all sessions up, and a shell that sends what it wants sent nowhere.
pub(crate) struct Bench {
    pub(crate) speaker: Speaker,
    pub(crate) now: Duration,
    pub(crate) conns: Vec<ConnId>,
    kind: PeerKind,
    /// UPDATEs counted while sending; off, because counting costs.
    pub(crate) count_updates: bool,
    pub(crate) updates: u64,
}

impl Bench {
    /// Sessions with `peers` peers that are all alike.
    pub(crate) fn new(kind: PeerKind, peers: u32) -> Bench {
        Bench::with(kind, peers, |_, _| {})
    }

    /// The same, each peer's configuration edited before.
    pub(crate) fn with(kind: PeerKind, peers: u32, edit: impl Fn(u32, &mut PeerConfig)) -> Bench {
        let kernel = KernelRules { program: false, resolve_next_hops: false, ..KernelRules::default() };
        Bench::make(kind, peers, edit, kernel)
    }

    /// The same, with these rules for kernel routes.
    pub(crate) fn make(
        kind: PeerKind,
        peers: u32,
        edit: impl Fn(u32, &mut PeerConfig),
        kernel: KernelRules,
    ) -> Bench {
        let config = Config {
            local: Local { asn: ASN, router_id: Ipv4Addr::new(10, 0, 0, 1), cluster_id: None },
            peers: (0..peers)
                .map(|p| {
                    let mut peer = PeerConfig {
                        name: format!("p{p}"),
                        address: address(p).into(),
                        remote_as: peer_as(kind, p),
                        passive: true,
                        add_path: AddPath::default(),
                        graceful_restart: GracefulRestart { enabled: false, ..GracefulRestart::default() },
                        ..PeerConfig::default()
                    };
                    edit(p, &mut peer);
                    peer
                })
                .collect(),
            kernel,
            ..Config::default()
        };
        let now = Duration::from_secs(1);
        let speaker = Speaker::new(now, config, Start::default());
        let mut bench = Bench { speaker, now, conns: Vec::new(), kind, count_updates: false, updates: 0 };
        for p in 0..peers {
            let conn = bench.establish(p, address(p), Vec::new());
            bench.conns.push(conn);
        }
        bench.drain();
        bench
    }

    /// A session with a peer that says who it is and what it can do beyond the usual.
    pub(crate) fn establish(&mut self, peer: u32, router_id: Ipv4Addr, more: Vec<Capability>) -> ConnId {
        let local = SocketAddr::new(Ipv4Addr::new(10, 0, 0, 1).into(), 179);
        let remote = SocketAddr::new(IpAddr::V4(address(peer)), 4000);
        let conn = self.speaker.accept(self.now, remote, local).expect("a configured peer");
        let asn = peer_as(self.kind, peer);
        let mut bytes = Vec::new();
        OpenMessage {
            version: 4,
            asn,
            hold_time: 240,
            router_id,
            capabilities: [
                Capability::Multiprotocol(Family::Ipv4Unicast.into()),
                Capability::FourOctetAs(asn),
            ]
            .into_iter()
            .chain(more)
            .collect(),
        }
        .encode(&mut bytes);
        encode_keepalive(&mut bytes);
        self.receive(conn, &bytes);
        conn
    }

    /// Bytes off a socket.
    pub(crate) fn receive(&mut self, conn: ConnId, data: &[u8]) {
        self.speaker.handle(self.now, Input::Received { conn, data });
    }

    /// Does what the speaker wants, until it wants nothing; returns bytes sent.
    pub(crate) fn drain(&mut self) -> usize {
        let mut sent = self.carry_out();
        while self.speaker.is_busy() {
            self.speaker.handle(self.now, Input::Tick);
            sent += self.carry_out();
        }
        sent
    }

    fn carry_out(&mut self) -> usize {
        let mut sent = 0;
        let mut chunks = Vec::new();
        while let Some(output) = self.speaker.poll() {
            if let Output::Transmit(conn) = output {
                loop {
                    let bytes = self.speaker.transmit(self.now, conn, 256 << 10, &mut chunks);
                    if self.count_updates {
                        self.updates += chunks.iter().map(|c| messages(c)).sum::<u64>();
                    }
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
    pub(crate) fn feed(&mut self, streams: &[(usize, &[u8])]) -> usize {
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

/// Attributes as a peer would send them; routes of the same `group` have the same.
pub(crate) fn attributes(kind: PeerKind, peer: u32, group: u32) -> Vec<u8> {
    let mut attrs = Vec::new();
    let mut builder = AttrBuilder::new();
    let (a, b) = (3000 + group % 1000, 4000 + group / 1000);
    match kind {
        PeerKind::Internal => builder.origin(Origin::Igp).as_path(&[a, b, 5000]).local_pref(Some(100)),
        _ => builder.origin(Origin::Igp).as_path(&[peer_as(kind, peer), a, b, 5000]),
    };
    builder.add_community((65000 << 16) | (group % 50));
    builder.write(&mut attrs).expect("short");
    attrs
}

/// UPDATEs of a peer for `count` prefixes from `first`, `per_update` with the same attributes.
pub(crate) fn announce(kind: PeerKind, peer: u32, first: u32, count: u32, per_update: u32) -> Vec<u8> {
    announce_with(kind, peer, first, count, per_update, |at| at / per_update)
}

/// The same; `group` chooses the attributes of the UPDATE whose first prefix is at that place.
pub(crate) fn announce_with(
    kind: PeerKind,
    peer: u32,
    first: u32,
    count: u32,
    per_update: u32,
    group: impl Fn(u32) -> u32,
) -> Vec<u8> {
    announce_sets(kind, peer, first..first + count, per_update, |at| attributes(kind, peer, group(at)))
}

/// The same, with any attributes.
pub(crate) fn announce_sets(
    kind: PeerKind,
    peer: u32,
    prefixes: Range<u32>,
    per_update: u32,
    attributes: impl Fn(u32) -> Vec<u8>,
) -> Vec<u8> {
    let context = SessionContext::new(kind);
    let (mut packer, mut out) = (UpdatePacker::new(), Vec::new());
    for at in prefixes.clone().step_by(usize::try_from(per_update).expect("few")) {
        let routes = (at..prefixes.end.min(at + per_update)).map(prefix);
        let attrs = attributes(at - prefixes.start);
        packer
            .announce(&context, Family::Ipv4Unicast, &attrs, address(peer).into(), routes, &mut out)
            .expect("fits");
    }
    out
}

/// UPDATEs that withdraw `count` prefixes from `first`.
pub(crate) fn withdraw(kind: PeerKind, first: u32, count: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let routes = (first..first + count).map(prefix);
    UpdatePacker::new()
        .withdraw(&SessionContext::new(kind), Family::Ipv4Unicast, routes, &mut out)
        .expect("fits");
    out
}

/// Messages in some bytes.
pub(crate) fn messages(bytes: &[u8]) -> u64 {
    let (mut at, mut count) = (0, 0);
    while let Ok(Some(message)) = frame(&bytes[at..], 65535) {
        at += message.len;
        count += 1;
    }
    count
}

/// The first number among the arguments; `cargo bench` passes `--bench` too.
pub(crate) fn number(default: u32) -> u32 {
    std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(default)
}

/// A line about the machine, and the headings of a table whose first column is wide.
pub(crate) fn title(what: &str, columns: &[&str]) {
    println!("\n{}\n", integration::bench::machine());
    headings(what, columns);
}

/// The headings of a table.
pub(crate) fn headings(what: &str, columns: &[&str]) {
    let rules: Vec<&str> = columns.iter().map(|_| "--:").collect();
    println!("| {what} | {} |\n|---|{}|", columns.join(" | "), rules.join("|"));
}

/// One row.
pub(crate) fn row(what: &str, values: &[f64]) {
    let values: Vec<String> = values
        .iter()
        .map(|&v| match v {
            v if v.is_nan() => String::new(),
            v if v >= 1000.0 => format!("{v:.0}"),
            v if v >= 10.0 => format!("{v:.1}"),
            v => format!("{v:.2}"),
        })
        .collect();
    println!("| {what} | {} |", values.join(" | "));
}
