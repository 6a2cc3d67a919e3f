//! Speakers on a fake clock: TCP without loss of order but with latency and breakable, one address per node, every next hop
//! reachable on one link. Minutes of protocol take microseconds.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(missing_docs, clippy::unwrap_used, clippy::unchecked_time_subtraction, reason = "a test harness")]

pub mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bird_speaker::config::{Config, Local, OriginTarget, Originated, PeerConfig};
use bird_speaker::fsm::State;
use bird_speaker::io::{ConnId, ConnectError, Resolution, ResolvedHop};
use bird_speaker::{Event, FibRoute, Input, Output, Speaker, Start, Time};
use ipnet::IpNet;

/// A speaker and the world around it.
pub struct Node {
    pub speaker: Option<Speaker>,
    pub address: IpAddr,
    /// Its address of the other family on the same link.
    pub other: Option<IpAddr>,
    pub fib: BTreeMap<IpNet, FibRoute>,
    /// Kernel changes written, for "nothing was written".
    pub fib_writes: usize,
    pub events: Vec<Event>,
    /// Reads nothing: its side of every connection has a full window.
    pub deaf: bool,
    /// Bytes of each connection in flight to the peer, for a deaf one.
    unread: BTreeMap<ConnId, usize>,
    /// The kernel's next hops that do not resolve.
    pub unreachable: Vec<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    node: usize,
    conn: ConnId,
}

#[derive(Debug)]
struct Pipe {
    a: End,
    b: End,
    open: bool,
}

#[derive(Debug)]
enum Flight {
    Call { from: usize, conn: ConnId, remote: SocketAddr },
    Answer { from: usize, to: End, result: Result<SocketAddr, ConnectError> },
    Data { from: usize, to: End, bytes: Vec<u8> },
    Fin { from: usize, to: End },
}

/// All nodes, and what is under way between them.
pub struct World {
    pub now: Time,
    pub nodes: Vec<Node>,
    pipes: Vec<Pipe>,
    flights: BTreeMap<(Time, u64), Flight>,
    sequence: u64,
    pub latency: Time,
    /// Up to so much more latency, another for each flight; what one node sends another stays in order.
    pub jitter: Time,
    /// Seed of the jitter.
    pub weather: u64,
    arrivals: BTreeMap<(usize, usize), Time>,
    /// Clocks of the nodes fire up to so much late, each time and each node another.
    pub lateness: Time,
    /// Bytes per write and read, to cut messages anywhere.
    pub segment: usize,
    /// Pairs that cannot reach each other. What TCP sends meanwhile arrives later, in order.
    pub cut: Vec<(usize, usize)>,
    held: VecDeque<Flight>,
}

pub fn secs(s: u64) -> Time {
    Duration::from_secs(s)
}

pub fn millis(ms: u64) -> Time {
    Duration::from_millis(ms)
}

pub fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub fn address(node: usize) -> IpAddr {
    IpAddr::from([10, 20, u8::try_from(node / 250).unwrap(), u8::try_from(node % 250 + 1).unwrap()])
}

/// A configuration of node `n` in AS `asn` without peers.
pub fn config(n: usize, asn: u32) -> Config {
    let IpAddr::V4(router_id) = address(n) else { unreachable!() };
    Config { local: Local { asn, router_id, cluster_id: None }, seed: n as u64 + 1, ..Config::default() }
}

/// A peer at node `n`.
pub fn peer(n: usize, asn: u32) -> PeerConfig {
    PeerConfig { name: format!("n{n}"), address: address(n), remote_as: asn, ..PeerConfig::default() }
}

/// Node `n` with a block of its own.
pub fn node(n: usize, asn: u32, peers: Vec<PeerConfig>) -> Config {
    Config { peers, originated: vec![blackhole(&format!("10.65.{n}.0/26"))], ..config(n, asn) }
}

/// A full mesh of nodes of AS 64512; the later one calls. `tune` has the last word about each peer.
pub fn mesh(count: usize, tune: impl Fn(PeerConfig) -> PeerConfig) -> Vec<Config> {
    let peers_of = |n: usize| {
        let others = (0..count).filter(move |p| *p != n);
        others.map(|p| tune(PeerConfig { passive: p > n, ..peer(p, 64512) })).collect()
    };
    (0..count).map(|n| node(n, 64512, peers_of(n))).collect()
}

/// Kernel routes of every node.
pub fn fibs(world: &World) -> Vec<BTreeMap<IpNet, FibRoute>> {
    world.nodes.iter().map(|n| n.fib.clone()).collect()
}

pub fn blackhole(prefix: &str) -> Originated {
    Originated { prefix: net(prefix), target: OriginTarget::Blackhole, metric: None }
}

impl World {
    pub fn new() -> World {
        World {
            now: secs(1),
            nodes: Vec::new(),
            pipes: Vec::new(),
            flights: BTreeMap::new(),
            sequence: 0,
            latency: millis(1),
            jitter: Time::ZERO,
            weather: 1,
            arrivals: BTreeMap::new(),
            lateness: Time::ZERO,
            segment: usize::MAX,
            cut: Vec::new(),
            held: VecDeque::new(),
        }
    }

    /// A world of nodes, each with its configuration, started together.
    pub fn of(configs: Vec<Config>) -> World {
        let mut world = World::new();
        for config in configs {
            world.add(config);
        }
        world
    }

    pub fn add(&mut self, config: Config) -> usize {
        let n = self.nodes.len();
        self.nodes.push(Node {
            speaker: Some(Speaker::new(self.now, config, Start::default())),
            address: address(n),
            other: None,
            fib: BTreeMap::new(),
            fib_writes: 0,
            events: Vec::new(),
            deaf: false,
            unread: BTreeMap::new(),
            unreachable: Vec::new(),
        });
        n
    }

    /// A node that is not running yet.
    pub fn add_absent(&mut self) -> usize {
        let n = self.nodes.len();
        self.nodes.push(Node {
            speaker: None,
            address: address(n),
            other: None,
            fib: BTreeMap::new(),
            fib_writes: 0,
            events: Vec::new(),
            deaf: false,
            unread: BTreeMap::new(),
            unreachable: Vec::new(),
        });
        n
    }

    pub fn start(&mut self, n: usize, config: Config, start: Start) {
        let mut speaker = Speaker::new(self.now, config, start);
        if start.forwarding_kept {
            for (prefix, route) in &self.nodes[n].fib {
                speaker.handle(self.now, Input::StaleFib { prefix: *prefix, route: route.clone() });
            }
        }
        self.nodes[n].speaker = Some(speaker);
        self.nodes[n].fib_writes = 0;
    }

    /// The process dies; the kernel closes its connections and keeps its routes.
    pub fn kill(&mut self, n: usize) {
        self.nodes[n].speaker = None;
        for i in 0..self.pipes.len() {
            let pipe = &self.pipes[i];
            if pipe.open && (pipe.a.node == n || pipe.b.node == n) {
                let other = if pipe.a.node == n { pipe.b } else { pipe.a };
                self.pipes[i].open = false;
                self.fly(Flight::Fin { from: n, to: other });
            }
        }
    }

    /// The machine dies: nobody is told.
    pub fn vanish(&mut self, n: usize) {
        self.nodes[n].speaker = None;
        self.nodes[n].fib.clear();
        for pipe in &mut self.pipes {
            if pipe.a.node == n || pipe.b.node == n {
                pipe.open = false;
            }
        }
        self.held
            .retain(|f| !matches!(f, Flight::Data { from, .. } | Flight::Fin { from, .. } if *from == n));
    }

    pub fn speaker(&mut self, n: usize) -> &mut Speaker {
        self.nodes[n].speaker.as_mut().unwrap()
    }

    pub fn handle(&mut self, n: usize, input: Input<'_>) {
        let now = self.now;
        self.speaker(n).handle(now, input);
    }

    pub fn configure(&mut self, n: usize, config: Config) -> bird_speaker::ConfigDiff {
        let now = self.now;
        self.speaker(n).configure(now, config)
    }

    pub fn state(&self, n: usize, peer: usize) -> State {
        self.nodes[n].speaker.as_ref().unwrap().peer_state(&format!("n{peer}")).unwrap()
    }

    pub fn up(&self, n: usize, peer: usize) -> bool {
        self.state(n, peer) == State::Established
    }

    /// Prefixes that node `n` has paths to, best only.
    pub fn best(&self, n: usize) -> BTreeMap<IpNet, String> {
        let speaker = self.nodes[n].speaker.as_ref().unwrap();
        let routes = speaker.routes(&bird_speaker::view::RouteFilter::default());
        routes.into_iter().filter(|r| r.best).map(|r| (r.prefix, r.from)).collect()
    }

    /// What node `n` has heard from node `peer`.
    pub fn heard(&self, n: usize, peer: usize) -> Vec<bird_speaker::view::PathView> {
        let name = format!("n{peer}");
        let filter = bird_speaker::view::RouteFilter {
            peer: Some(&name),
            ..bird_speaker::view::RouteFilter::default()
        };
        self.nodes[n].speaker.as_ref().unwrap().routes(&filter)
    }

    pub fn heard_prefixes(&self, n: usize, peer: usize) -> Vec<String> {
        self.heard(n, peer).iter().map(|r| r.prefix.to_string()).collect()
    }

    fn fly(&mut self, flight: Flight) {
        self.sequence += 1;
        let mut at = self.now + self.latency;
        if !self.jitter.is_zero() {
            // xorshift64
            self.weather ^= self.weather << 13;
            self.weather ^= self.weather >> 7;
            self.weather ^= self.weather << 17;
            at += self.jitter * u32::try_from(self.weather % 1000).unwrap() / 1000;
            let ends = match &flight {
                Flight::Call { from, remote, .. } => (*from, self.node_at(remote.ip()).unwrap_or(*from)),
                Flight::Answer { from, to, .. }
                | Flight::Data { from, to, .. }
                | Flight::Fin { from, to } => (*from, to.node),
            };
            let last = self.arrivals.entry(ends).or_default();
            at = at.max(*last);
            *last = at;
        }
        self.flights.insert((at, self.sequence), flight);
    }

    /// Connections between two nodes break, as by RST or by a middlebox that forgets them.
    pub fn break_connections(&mut self, a: usize, b: usize) {
        for i in 0..self.pipes.len() {
            let pipe = &self.pipes[i];
            let (one, other) = (pipe.a, pipe.b);
            if pipe.open && [(a, b), (b, a)].contains(&(one.node, other.node)) {
                self.pipes[i].open = false;
                self.fly(Flight::Fin { from: one.node, to: other });
                self.fly(Flight::Fin { from: other.node, to: one });
            }
        }
    }

    fn other(&self, end: End) -> Option<(usize, End)> {
        self.pipes.iter().enumerate().rev().filter(|(_, p)| p.open).find_map(|(i, p)| {
            if p.a == end {
                Some((i, p.b))
            } else if p.b == end {
                Some((i, p.a))
            } else {
                None
            }
        })
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.iter().any(|c| *c == (a, b) || *c == (b, a))
    }

    fn node_at(&self, address: IpAddr) -> Option<usize> {
        self.nodes.iter().position(|n| n.address == address)
    }

    /// Carries out what a node wants now.
    fn serve(&mut self, n: usize) {
        let now = self.now;
        let mut changes = VecDeque::new();
        loop {
            let Some(speaker) = self.nodes[n].speaker.as_mut() else { return };
            let Some(output) = speaker.poll() else { break };
            match output {
                Output::Connect(dial) => {
                    self.fly(Flight::Call { from: n, conn: dial.conn, remote: dial.remote });
                }
                Output::Transmit(conn) => self.pump(n, conn),
                Output::Close(conn) => {
                    self.pump(n, conn);
                    let end = End { node: n, conn };
                    if let Some((pipe, other)) = self.other(end) {
                        self.pipes[pipe].open = false;
                        self.fly(Flight::Fin { from: n, to: other });
                    }
                }
                Output::Fib => changes.push_back(()),
                Output::WatchNextHop(address) => {
                    let reachable = !self.nodes[n].unreachable.contains(&address);
                    let hop = ResolvedHop { gateway: None, ifindex: 2, interface: "eth0".into() };
                    let resolution = if reachable {
                        Resolution::Via { hops: vec![hop], metric: 0 }
                    } else {
                        Resolution::Unreachable
                    };
                    self.handle(n, Input::NextHop { address, resolution });
                }
                Output::ForgetNextHop(_) => {}
                Output::Event(event) => self.nodes[n].events.push(event),
            }
        }
        if changes.is_empty() {
            return;
        }
        loop {
            let node = &mut self.nodes[n];
            let Some(speaker) = node.speaker.as_mut() else { return };
            let batch = speaker.take_fib(7);
            if batch.is_empty() {
                break;
            }
            for change in batch {
                assert_eq!(
                    node.fib.get(&change.prefix),
                    change.old.as_deref(),
                    "{} at {now:?}",
                    change.prefix
                );
                node.fib_writes += 1;
                match change.new {
                    Some(route) => node.fib.insert(change.prefix, (*route).clone()),
                    None => node.fib.remove(&change.prefix),
                };
            }
        }
    }

    /// Writes what a connection has to send, unless the other side reads nothing.
    fn pump(&mut self, n: usize, conn: ConnId) {
        let now = self.now;
        loop {
            let end = End { node: n, conn };
            let other = self.other(end);
            if let Some((_, other)) = other
                && self.nodes[other.node].deaf
            {
                let sent = self.nodes[n].unread.entry(conn).or_default();
                if *sent > 0 {
                    return;
                }
            }
            let mut chunks = Vec::new();
            let Some(speaker) = self.nodes[n].speaker.as_mut() else { return };
            let sent = speaker.transmit(now, conn, 16 << 10, &mut chunks);
            if sent == 0 {
                return;
            }
            let Some((_, other)) = other else { continue };
            if self.nodes[other.node].deaf {
                *self.nodes[n].unread.entry(conn).or_default() += sent;
                continue;
            }
            let bytes = chunks.concat();
            for segment in bytes.chunks(self.segment.min(bytes.len())) {
                self.fly(Flight::Data { from: n, to: other, bytes: segment.to_vec() });
            }
        }
    }

    /// Delivers what was held back on links that are whole again.
    fn release(&mut self) {
        for flight in std::mem::take(&mut self.held) {
            self.land(flight);
        }
    }

    /// Whether something on its way to `to` must wait: its link is cut, or something before it waits.
    fn waits(&self, from: usize, to: End) -> bool {
        self.is_cut(from, to.node)
            || self
                .held
                .iter()
                .any(|f| matches!(f, Flight::Data { to: t, .. } | Flight::Fin { to: t, .. } if *t == to))
    }

    fn land(&mut self, flight: Flight) {
        let now = self.now;
        match flight {
            Flight::Data { from, to, .. } | Flight::Fin { from, to } if self.waits(from, to) => {
                self.held.push_back(flight);
            }
            Flight::Call { from, conn, remote } => {
                let caller = End { node: from, conn };
                let to = self.node_at(remote.ip()).filter(|to| !self.is_cut(from, *to));
                let Some(to) = to else { return }; // no answer; the dial timer ends it
                let local = SocketAddr::new(self.nodes[from].address, 40_000);
                let answer = match self.nodes[to].speaker.as_mut().map(|s| s.accept(now, local, remote)) {
                    Some(Ok(conn)) => {
                        self.pipes.push(Pipe { a: caller, b: End { node: to, conn }, open: true });
                        if let Some(address) = self.nodes[to].other {
                            self.handle(to, Input::OtherAddress { conn, address });
                        }
                        Ok(local)
                    }
                    Some(Err(_)) | None => Err(ConnectError::Refused),
                };
                self.fly(Flight::Answer { from: to, to: caller, result: answer });
                self.serve(to);
            }
            Flight::Answer { to, result, .. } => {
                if self.nodes[to.node].speaker.is_none() {
                    return;
                }
                if let Some(address) = self.nodes[to.node].other {
                    self.handle(to.node, Input::OtherAddress { conn: to.conn, address });
                }
                let input = match result {
                    Ok(local) => Input::Connected { conn: to.conn, local },
                    Err(reason) => Input::ConnectFailed { conn: to.conn, reason },
                };
                self.handle(to.node, input);
            }
            Flight::Data { to, bytes, .. } => {
                if self.nodes[to.node].speaker.is_none() {
                    return;
                }
                self.handle(to.node, Input::Received { conn: to.conn, data: &bytes });
            }
            Flight::Fin { to, .. } => {
                if self.nodes[to.node].speaker.is_some() {
                    self.handle(to.node, Input::Closed { conn: to.conn, reason: "reset".into() });
                }
            }
        }
    }

    /// When a node looks at its clock next.
    fn alarm(&self, n: usize) -> Option<Time> {
        let due = self.nodes[n].speaker.as_ref()?.next_timeout()?;
        if self.lateness.is_zero() {
            return Some(due);
        }
        let nanos = u64::try_from(due.as_nanos()).unwrap();
        let mixed = (nanos ^ (n as u64) << 32 ^ self.weather).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        Some(due + self.lateness * u32::try_from(mixed % 1000).unwrap() / 1000)
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Time) {
        let end = self.now + time;
        loop {
            self.release();
            for n in 0..self.nodes.len() {
                self.serve(n);
            }
            let flight = self.flights.keys().next().map(|(at, _)| *at);
            let timer = (0..self.nodes.len()).filter_map(|n| self.alarm(n)).min();
            let Some(next) = [flight, timer].into_iter().flatten().min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            while let Some((&key, _)) = self.flights.first_key_value() {
                if key.0 > self.now {
                    break;
                }
                let flight = self.flights.remove(&key).unwrap();
                self.land(flight);
            }
            for n in 0..self.nodes.len() {
                if self.alarm(n).is_some_and(|at| at <= self.now) {
                    self.handle(n, Input::Tick);
                }
            }
        }
        self.now = end;
    }

    /// Lets time pass until something holds; panics after `limit`. Returns how long it took.
    pub fn until(&mut self, limit: Time, what: &str, holds: impl Fn(&World) -> bool) -> Time {
        let start = self.now;
        while !holds(self) {
            assert!(self.now < start + limit, "not within {limit:?}: {what}");
            self.run(millis(10));
        }
        self.now - start
    }

    /// Somebody that read nothing reads again: what was held back goes out.
    pub fn hear(&mut self, n: usize) {
        self.nodes[n].deaf = false;
        let ends: Vec<(End, End)> = self
            .pipes
            .iter()
            .filter(|p| p.open)
            .flat_map(|p| [(p.a, p.b), (p.b, p.a)])
            .filter(|(_, to)| to.node == n)
            .collect();
        for (from, _) in ends {
            self.nodes[from.node].unread.remove(&from.conn);
            self.pump(from.node, from.conn);
        }
    }
}
