//! The longest single call into a speaker with a large table, for each thing that concerns the whole of it: nothing else
//! of the loop, KEEPALIVEs included, happens during a call. No sockets.
//!
//! Two neighbours tell the same NUMBER prefixes, two more take them, in a group each. Times are of the wall.
//!
//! `cargo bench -p integration --bench passes -- [NUMBER]`

mod common;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bird_packet::PeerKind;
use bird_speaker::config::{Aggregate, Config, ExportScope};
use bird_speaker::io::{Command, ConnId, Resolution, ResolvedHop};
use bird_speaker::policy::{Action, FilterSet, Operation, Rule};
use bird_speaker::{Input, Output, Speaker};
use common::{Bench, address, announce, number, title, withdraw};

const KIND: PeerKind = PeerKind::External;
/// Prefixes with the same attributes, about what the Internet's table has.
const PER_UPDATE: u32 = 6;
/// Octets read, or sent, at a time; as the loop does.
const PIECE: usize = 64 << 10;

fn main() {
    let routes = number(1_000_000);
    title(
        &format!("{routes} prefixes from each of two neighbours, two more take them"),
        &["all, ms", "calls", "longest call, ms", "which"],
    );
    let mut pass = Pass::new();
    let streams = [0, 1].map(|peer| announce(KIND, peer, 0, routes, PER_UPDATE));
    let gone = withdraw(KIND, 0, routes);
    pass.run("both tell everything", |p| {
        for (peer, stream) in streams.iter().enumerate() {
            p.feed(peer, stream);
        }
    });
    let reject = |p: &mut Pass, text: &str| {
        p.config.filters.insert("import".into(), import(rejects(text)));
        p.configure();
    };
    pass.run("import filter of one: rejects half", |p| reject(p, "1.0.0.0/9"));
    pass.run("import filter of one: rejects nothing", |p| reject(p, "240.0.0.0/9"));
    pass.run("import filter of one: a community", |p| {
        let add = Operation::AddCommunity("65000:77".parse().expect("a community"));
        p.config.filters.insert("import".into(), import(Rule { operations: vec![add], ..Rule::default() }));
        p.configure();
    });
    pass.run("import filter of one: none", |p| {
        p.config.filters.clear();
        p.configure();
    });
    pass.run("export filter of one group: a community", |p| {
        let add = Operation::AddCommunity("65000:78".parse().expect("a community"));
        let rule = Rule { operations: vec![add], ..Rule::default() };
        p.config.filters.insert("export".into(), FilterSet { export_v4: vec![rule], ..FilterSet::default() });
        p.configure();
    });
    pass.run("export filter of one group: none", |p| {
        p.config.filters.clear();
        p.configure();
    });
    pass.run("a member moves to another group", |p| {
        p.config.peers[3].export_scope = ExportScope::All;
        p.config.peers[3].next_hop_v4 = None;
        p.configure();
    });
    pass.run("and to one of its own again", |p| {
        p.config.peers[3].next_hop_v4 = Some(Ipv4Addr::new(10, 1, 0, 3));
        p.configure();
    });
    pass.run("kernel rules change", |p| {
        p.config.kernel.never_program = vec!["1.0.0.0/16".parse().expect("a prefix")];
        p.configure();
    });
    pass.run("an aggregate of everything", |p| {
        p.config.aggregates = vec![Aggregate {
            prefix: "1.0.0.0/8".parse().expect("a prefix"),
            summary_only: false,
            blackhole: false,
        }];
        p.configure();
    });
    pass.run("none again", |p| {
        p.config.aggregates.clear();
        p.configure();
    });
    pass.run("a next hop of everything is unreachable", |p| p.next_hop(0, None));
    pass.run("reachable", |p| p.next_hop(0, Some(0)));
    pass.run("another cost", |p| p.next_hop(0, Some(7)));
    pass.run("refresh in", |p| {
        p.call("handle", |s, now| {
            s.handle(now, Input::Command(Command::RefreshIn { peer: "p0".into() }));
        });
    });
    pass.run("refresh out", |p| {
        p.call("handle", |s, now| {
            s.handle(now, Input::Command(Command::RefreshOut { peer: "p2".into() }));
        });
    });
    pass.run("one withdraws everything", |p| p.feed(1, &gone));
    pass.run("and tells it again", |p| p.feed(1, &streams[1]));
    pass.run("a session that takes ends", |p| p.close(2));
    pass.run("a session that tells ends", |p| p.close(1));
    pass.run("the other too", |p| p.close(0));
    assert_eq!(pass.bench.speaker.totals().paths, 0);
}

fn rejects(prefix: &str) -> Rule {
    let cidr = Some(prefix.parse().expect("a prefix"));
    Rule { action: Action::Reject, cidr, ..Rule::default() }
}

fn import(rule: Rule) -> FilterSet {
    FilterSet { import_v4: vec![rule], ..FilterSet::default() }
}

/// A speaker, its configuration, and the calls into it on a clock.
struct Pass {
    bench: Bench,
    config: Config,
    calls: u32,
    all: Duration,
    longest: (Duration, &'static str),
}

impl Pass {
    fn new() -> Pass {
        let bench = Bench::resolving(KIND, 4, |peer, config| {
            if peer == 0 {
                config.import = vec!["import".into()];
            }
            if peer == 2 {
                config.export = vec!["export".into()];
            }
            if peer == 3 {
                config.next_hop_v4 = Some(Ipv4Addr::new(10, 1, 0, 3));
            }
        });
        let config = bench.speaker.config().clone();
        Pass { bench, config, calls: 0, all: Duration::ZERO, longest: (Duration::ZERO, "") }
    }

    fn run(&mut self, what: &str, work: impl FnOnce(&mut Pass)) {
        (self.calls, self.all, self.longest) = (0, Duration::ZERO, (Duration::ZERO, ""));
        work(self);
        self.settle();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let (longest, which) = self.longest;
        println!("| {what} | {:.0} | {} | {:.1} | {which} |", ms(self.all), self.calls, ms(longest));
    }

    fn call<T>(&mut self, which: &'static str, work: impl FnOnce(&mut Speaker, Duration) -> T) -> T {
        let start = Instant::now();
        let result = work(&mut self.bench.speaker, self.bench.now);
        let took = start.elapsed();
        self.calls += 1;
        self.all += took;
        if took > self.longest.0 {
            self.longest = (took, which);
        }
        result
    }

    fn configure(&mut self) {
        let config = self.config.clone();
        self.call("configure", |s, now| s.configure(now, config));
        self.drain();
    }

    fn next_hop(&mut self, peer: u32, metric: Option<u32>) {
        let hop = ResolvedHop { gateway: None, ifindex: 2, interface: "eth0".into() };
        let resolution =
            metric.map_or(Resolution::Unreachable, |metric| Resolution::Via { hops: vec![hop], metric });
        let address = address(peer).into();
        self.call("handle", |s, now| s.handle(now, Input::NextHop { address, resolution }));
    }

    fn close(&mut self, peer: usize) {
        let conn = self.bench.conns[peer];
        self.call("handle", |s, now| s.handle(now, Input::Closed { conn, reason: "bench".into() }));
    }

    fn feed(&mut self, peer: usize, stream: &[u8]) {
        let conn = self.bench.conns[peer];
        for data in stream.chunks(PIECE) {
            self.call("handle", |s, now| s.handle(now, Input::Received { conn, data }));
            self.drain();
        }
    }

    /// Does what the speaker wants.
    fn drain(&mut self) {
        let mut waiting: Vec<ConnId> = Vec::new();
        while let Some(output) = self.call("poll", |s, _| s.poll()) {
            match output {
                Output::Transmit(conn) => waiting.push(conn),
                Output::WatchNextHop(address) => {
                    let hop = ResolvedHop { gateway: None, ifindex: 2, interface: "eth0".into() };
                    let resolution = Resolution::Via { hops: vec![hop], metric: 0 };
                    self.call("handle", |s, now| s.handle(now, Input::NextHop { address, resolution }));
                }
                _ => {}
            }
        }
        let mut chunks = Vec::new();
        for conn in waiting {
            while self.call("transmit", |s, now| s.transmit(now, conn, PIECE, &mut chunks)) > 0 {
                chunks.clear();
            }
        }
    }

    /// Goes on until nothing is left, housekeeping included.
    fn settle(&mut self) {
        for _ in 0..200 {
            loop {
                self.drain();
                if self.bench.speaker.next_timeout().is_none_or(|at| at > self.bench.now) {
                    break;
                }
                self.call("tick", |s, now| s.handle(now, Input::Tick));
            }
            self.bench.now += Duration::from_millis(20);
        }
    }
}
