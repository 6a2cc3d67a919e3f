//! The longest single call into a speaker with a large table, for each thing that concerns the whole of it: nothing else
//! of the loop, KEEPALIVEs included, happens during a call. No sockets.
//!
//! Times are of the wall.
//!
//! `cargo bench -p integration --bench passes -- [NUMBER]`

mod common;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bird_packet::{
    AddPath, Capability, Family, GrFamily, GracefulRestart, LlgrFamily, PeerKind, encode_end_of_rib,
};
use bird_speaker::config::{self, Aggregate, Config, KernelRules, LongLived};
use bird_speaker::io::{Command, ConnId, Resolution, ResolvedHop};
use bird_speaker::policy::{Action, FilterSet, Operation, Rule};
use bird_speaker::{Input, Output, Speaker};
use common::{Bench, address, announce, headings, number, title, withdraw};

const KIND: PeerKind = PeerKind::External;
/// Prefixes with the same attributes, about what the Internet's table has.
const PER_UPDATE: u32 = 6;
/// Octets read, or sent, at a time; as the loop does.
const PIECE: usize = 64 << 10;
/// Kernel changes taken at a time; the same.
const BATCH: usize = 1024;
const COLUMNS: [&str; 4] = ["all, ms", "calls", "longest call, ms", "which"];

fn main() {
    let routes = number(1_000_000);
    title(&format!("{routes} prefixes from each of two neighbours, two more take them"), &COLUMNS);
    few_groups(routes, false);
    headings(&format!("\n{routes} prefixes, kernel routes too"), &COLUMNS);
    few_groups(routes, true);
    headings(&format!("\n{routes} prefixes from one neighbour, 20 take them in a group each"), &COLUMNS);
    many_groups(routes);
}

fn few_groups(routes: u32, kernel: bool) {
    let mut pass = Pass::new(5, kernel);
    let streams = [0, 1].map(|peer| announce(KIND, peer, 0, routes, PER_UPDATE));
    let gone = withdraw(KIND, 0, routes);
    let add = |text: &str| Operation::AddCommunity(text.parse().expect("a community"));
    pass.run("both tell everything", |p| {
        p.feed(0, &streams[0]);
        p.feed(1, &streams[1]);
    });
    let filter = |p: &mut Pass, rule: Rule| {
        let set = FilterSet { import_v4: vec![rule], ..FilterSet::default() };
        p.config.filters.insert("import".into(), set);
        p.configure();
    };
    pass.run("import filter of one: rejects half", |p| filter(p, rejects("1.0.0.0/9")));
    pass.run("rejects nothing", |p| filter(p, rejects("240.0.0.0/9")));
    pass.run("adds a community", |p| {
        filter(p, Rule { operations: vec![add("65000:77")], ..Rule::default() });
    });
    pass.run("none", |p| {
        p.config.filters.clear();
        p.configure();
    });
    pass.run("export filter of one group: adds a community", |p| {
        let rule = Rule { operations: vec![add("65000:78")], ..Rule::default() };
        p.config.filters.insert("export".into(), FilterSet { export_v4: vec![rule], ..FilterSet::default() });
        p.configure();
    });
    pass.run("none", |p| {
        p.config.filters.clear();
        p.configure();
    });
    pass.run("a member moves to another group", |p| {
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
        let prefix = "1.0.0.0/8".parse().expect("a prefix");
        p.config.aggregates = vec![Aggregate { prefix, summary_only: false, blackhole: false }];
        p.configure();
    });
    pass.run("none again", |p| {
        p.config.aggregates.clear();
        p.configure();
    });
    pass.run("the next hop of one neighbour's routes is unreachable", |p| p.next_hop(0, None));
    pass.run("reachable", |p| p.next_hop(0, Some(0)));
    pass.run("at another cost", |p| p.next_hop(0, Some(7)));
    pass.run("refresh in", |p| p.command(Command::RefreshIn { peer: "p0".into() }));
    pass.run("refresh out", |p| p.command(Command::RefreshOut { peer: "p2".into() }));
    pass.run("one withdraws everything", |p| p.feed(1, &gone));
    pass.run("and tells it again", |p| p.feed(1, &streams[1]));
    pass.run("one that tells restarts", |p| p.close(1));
    pass.run("and comes back with another identifier", |p| {
        p.come(1, Ipv4Addr::new(9, 9, 9, 9), vec![graceful(), long_lived()]);
    });
    pass.run("and tells it again", |p| p.feed(1, &streams[1]));
    pass.run("End-of-RIB", |p| p.end_of_rib(1));
    pass.run("it restarts again and tells nothing", |p| {
        p.close(1);
        p.come(1, Ipv4Addr::new(9, 9, 9, 9), vec![graceful(), long_lived()]);
        p.end_of_rib(1);
    });
    pass.run("it tells everything, and stays away: long-lived stale", |p| {
        p.feed(1, &streams[1]);
        p.close(1);
        p.bench.now += Duration::from_secs(u64::from(RESTART));
    });
    pass.run("a neighbour with ADD-PATH comes", |p| {
        let family = Family::Ipv4Unicast.into();
        let both = AddPath { family, receive: true, send: true };
        p.come(4, address(4), vec![Capability::AddPath(vec![both])]);
    });
    pass.run("and goes", |p| p.close(4));
    pass.run("a session that takes ends", |p| p.close(2));
    pass.run("a session that tells ends", |p| p.close(0));
    assert!(pass.bench.speaker.totals().paths > 0, "what is long-lived stale is left");
}

fn many_groups(routes: u32) {
    let mut pass = Pass::new(21, false);
    for peer in 1..21_u8 {
        pass.config.peers[usize::from(peer)].next_hop_v4 = Some(Ipv4Addr::new(10, 2, 0, peer));
        pass.config.peers[usize::from(peer)].export = vec!["export".into()];
    }
    pass.configure();
    let stream = announce(KIND, 0, 0, routes, PER_UPDATE);
    pass.run("it tells everything", |p| p.feed(0, &stream));
    pass.run("everybody's export filter changes: nothing comes of it", |p| {
        let set = FilterSet { export_v4: vec![rejects("240.0.0.0/9")], ..FilterSet::default() };
        p.config.filters.insert("export".into(), set);
        p.configure();
    });
    pass.run("it adds a community", |p| {
        let community = "65000:78".parse().expect("a community");
        let rule = Rule { operations: vec![Operation::AddCommunity(community)], ..Rule::default() };
        p.config.filters.insert("export".into(), FilterSet { export_v4: vec![rule], ..FilterSet::default() });
        p.configure();
    });
    pass.run("all sessions that take end", |p| (1..21).for_each(|peer| p.close(peer)));
    pass.run("the other too", |p| p.close(0));
}

/// Seconds.
const RESTART: u16 = 60;

fn graceful() -> Capability {
    let family = Family::Ipv4Unicast.into();
    Capability::GracefulRestart(GracefulRestart {
        restart_time: RESTART,
        families: vec![GrFamily { family, forwarding_kept: true }],
        ..GracefulRestart::default()
    })
}

fn long_lived() -> Capability {
    let family = Family::Ipv4Unicast.into();
    Capability::LongLivedGracefulRestart(vec![LlgrFamily { family, forwarding_kept: true, stale_time: 3600 }])
}

fn rejects(prefix: &str) -> Rule {
    let cidr = Some(prefix.parse().expect("a prefix"));
    Rule { action: Action::Reject, cidr, ..Rule::default() }
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
    /// The first two tell, if there are five; the third and the fourth have a group each.
    fn new(peers: u32, kernel: bool) -> Pass {
        let rules = KernelRules { program: kernel, ..KernelRules::default() };
        let edit = |peer: u32, config: &mut config::PeerConfig| {
            if peer == 0 {
                config.import = vec!["import".into()];
            }
            if peer == 2 {
                config.export = vec!["export".into()];
            }
            if peer == 3 {
                config.next_hop_v4 = Some(Ipv4Addr::new(10, 1, 0, 3));
            }
            if peer == 1 || peer == 4 {
                let keep = Duration::from_hours(1);
                config.graceful_restart = config::GracefulRestart {
                    long_lived: LongLived { keep, ..LongLived::default() },
                    ..config::GracefulRestart::default()
                };
                config.add_path = config::AddPath { receive: true, send: true, ..config::AddPath::default() };
            }
        };
        let bench = Bench::make(KIND, peers, edit, rules);
        let config = bench.speaker.config().clone();
        let mut pass = Pass { bench, config, calls: 0, all: Duration::ZERO, longest: (Duration::ZERO, "") };
        if peers == 5 {
            pass.close(4);
            pass.close(1);
            pass.come(1, address(1), vec![graceful(), long_lived()]);
        }
        pass.settle();
        pass
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
        self.note(which, start.elapsed());
        result
    }

    fn note(&mut self, which: &'static str, took: Duration) {
        self.calls += 1;
        self.all += took;
        if took > self.longest.0 {
            self.longest = (took, which);
        }
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

    fn command(&mut self, command: Command) {
        self.call("handle", |s, now| s.handle(now, Input::Command(command)));
    }

    fn come(&mut self, peer: u32, router_id: Ipv4Addr, more: Vec<Capability>) {
        let at = usize::try_from(peer).expect("few");
        let start = Instant::now();
        self.bench.conns[at] = self.bench.establish(peer, router_id, more);
        self.note("handle", start.elapsed());
    }

    fn end_of_rib(&mut self, peer: usize) {
        let mut bytes = Vec::new();
        encode_end_of_rib(Family::Ipv4Unicast, &mut bytes);
        let conn = self.bench.conns[peer];
        self.call("handle", |s, now| s.handle(now, Input::Received { conn, data: &bytes }));
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
                Output::Fib => while !self.call("take_fib", |s, _| s.take_fib(BATCH)).is_empty() {},
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
