//! A speaker and peers in raw bytes that offer and hold, and the random events that properties are about.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(missing_docs, clippy::unwrap_used, clippy::unchecked_time_subtraction, reason = "a test harness")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bird_packet::attr::community;
use bird_packet::{
    AddPath as AddPathCapability, AttrBuilder, AttrSet, Capability, Family, GrFamily, GracefulRestart,
    LlgrFamily, MAX_LEN, MessageKind, Nlri, OpenMessage, Origin, PeerKind, Prefix4, RefreshKind,
    RouteRefresh, SessionContext, UpdatePacker, UpdateView, encode_keepalive, frame,
};
use bird_speaker::config::{
    AddPath, Config, ExportScope, GracefulRestart as GracefulRestartConfig, KernelRules, Local, LongLived,
    PeerConfig,
};
use bird_speaker::io::{ConnId, Resolution, ResolvedHop};
use bird_speaker::view::{PathView, RouteFilter};
use bird_speaker::{FibRoute, Input, Output, Speaker, Start, Time};
use ipnet::IpNet;
use proptest::prelude::*;

pub const OUR_AS: u32 = 64512;

pub fn address(peer: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, peer + 1)
}

pub fn prefix(n: u8) -> Prefix4 {
    Prefix4::new(Ipv4Addr::new(11, n, 0, 0), 16).unwrap()
}

/// One announcement: small ranges, so that ties and clashes are common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announced {
    pub peer: u8,
    pub prefix: u8,
    pub path_id: u32,
    pub neighbour: u32,
    pub length: u8,
    pub origin: u8,
    pub med: Option<u32>,
    pub local_pref: Option<u32>,
    pub community: u8,
}

pub fn announced(peers: u8, prefixes: u8) -> impl Strategy<Value = Announced> {
    (
        (0..peers, 0..prefixes, 0..2_u32, 0..3_u32, 0..3_u8, 0..3_u8),
        (prop::option::of(0..3_u32), prop::option::of(99..102_u32), 0..3_u8),
    )
        .prop_map(
            |((peer, prefix, path_id, neighbour, length, origin), (med, local_pref, community))| Announced {
                peer,
                prefix,
                path_id,
                neighbour,
                length,
                origin,
                med,
                local_pref,
                community,
            },
        )
}

/// A peer in raw bytes: what it offers and what it holds.
pub struct Raw {
    pub asn: u32,
    pub internal: bool,
    pub add_path: bool,
    /// It restarts gracefully, and knows long-lived stale routes.
    pub graceful: bool,
    pub conn: ConnId,
    pub buffer: Vec<u8>,
    pub held: BTreeMap<(String, u32), (Vec<u32>, IpAddr)>,
    /// The same to the octet.
    pub exact: BTreeMap<(String, u32), (Vec<u8>, IpAddr)>,
    /// Some paths that it offers went through our AS.
    pub loops: bool,
    pub up: bool,
}

impl Raw {
    pub fn ctx(&self) -> SessionContext {
        let mut ctx =
            SessionContext::new(if self.internal { PeerKind::Internal } else { PeerKind::External });
        let v4 = ctx.family_mut(Family::Ipv4Unicast);
        v4.add_path_rx = self.add_path;
        v4.add_path_tx = self.add_path;
        ctx
    }

    pub fn hello(&self, peer: u8) -> Vec<u8> {
        let family = Family::Ipv4Unicast.into();
        let mut capabilities = vec![
            Capability::Multiprotocol(family),
            Capability::FourOctetAs(self.asn),
            Capability::RouteRefresh,
        ];
        if self.add_path {
            capabilities.push(Capability::AddPath(vec![AddPathCapability {
                family,
                receive: true,
                send: true,
            }]));
        }
        if self.graceful {
            capabilities.push(Capability::GracefulRestart(GracefulRestart {
                restart_time: 1,
                families: vec![GrFamily { family, forwarding_kept: true }],
                ..GracefulRestart::default()
            }));
            let stale_time = 2 + u32::from(peer);
            capabilities.push(Capability::LongLivedGracefulRestart(vec![LlgrFamily {
                family,
                forwarding_kept: true,
                stale_time,
            }]));
        }
        let open =
            OpenMessage { version: 4, asn: self.asn, hold_time: 0, router_id: address(peer), capabilities };
        let mut bytes = Vec::new();
        open.encode(&mut bytes);
        encode_keepalive(&mut bytes);
        bytes
    }

    pub fn announce(&self, a: &Announced) -> Vec<u8> {
        let mut builder = AttrBuilder::new();
        let first = if self.internal { 65500 + a.neighbour } else { self.asn };
        let path: Vec<u32> =
            std::iter::once(first).chain((0..a.length).map(|i| 3000 + u32::from(i))).collect();
        let loops = self.loops && a.length == 2 && a.neighbour == 1;
        let path: Vec<u32> = path.into_iter().chain(loops.then_some(OUR_AS)).collect();
        builder.origin(match a.origin {
            0 => Origin::Igp,
            1 => Origin::Egp,
            _ => Origin::Incomplete,
        });
        builder.as_path(&path).med(a.med);
        if self.internal {
            builder.local_pref(a.local_pref);
        }
        if a.community > 0 {
            let no_llgr = a.peer == 2 && a.community == 2;
            let ordinary = (65000 << 16) | u32::from(a.community);
            builder.add_community(if no_llgr { community::NO_LLGR } else { ordinary });
        }
        let mut attrs = Vec::new();
        builder.write(&mut attrs).unwrap();
        let mut out = Vec::new();
        let path_id = if self.add_path { a.path_id } else { 0 };
        let nlri = Nlri { prefix: prefix(a.prefix), path_id };
        let next_hop = address(a.peer).into();
        UpdatePacker::new()
            .announce(&self.ctx(), Family::Ipv4Unicast, &attrs, next_hop, [nlri], &mut out)
            .unwrap();
        out
    }

    pub fn withdraw(&self, n: u8, path_id: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let nlri = Nlri { prefix: prefix(n), path_id: if self.add_path { path_id } else { 0 } };
        UpdatePacker::new().withdraw(&self.ctx(), Family::Ipv4Unicast, [nlri], &mut out).unwrap();
        out
    }

    pub fn hear(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        let buffer = std::mem::take(&mut self.buffer);
        let mut rest = &buffer[..];
        while let Some(message) = frame(rest, MAX_LEN).unwrap() {
            rest = &rest[message.len..];
            if message.kind != MessageKind::Update {
                continue;
            }
            let ctx = self.ctx();
            let view = UpdateView::parse(message.body, &ctx).unwrap();
            assert_eq!(view.verdict(), bird_packet::Verdict::Ok);
            for withdrawal in view.withdrawals() {
                for nlri in withdrawal.routes {
                    self.held.remove(&(nlri.prefix.to_string(), nlri.path_id));
                    self.exact.remove(&(nlri.prefix.to_string(), nlri.path_id));
                }
            }
            for announcement in view.announcements() {
                let mut bytes = Vec::new();
                view.attributes().write_canonical(&mut bytes);
                let path: Vec<u32> = AttrSet::new(&bytes).as_path().asns().collect();
                for nlri in announcement.routes {
                    let key = (nlri.prefix.to_string(), nlri.path_id);
                    self.exact.insert(key.clone(), (bytes.clone(), announcement.next_hop.addr));
                    self.held.insert(key, (path.clone(), announcement.next_hop.addr));
                }
            }
        }
        self.buffer = rest.to_vec();
    }
}

/// A speaker with raw peers: the first `internal` are iBGP, of which the first is a reflector client; the last has ADD-PATH
/// if asked.
pub struct Rig {
    pub speaker: Speaker,
    pub peers: Vec<Raw>,
    pub now: Time,
    /// How next hops are reached that are not reached by the link.
    pub ways: BTreeMap<IpAddr, Resolution>,
    /// What the kernel was given.
    pub fib: BTreeMap<IpNet, FibRoute>,
    /// There may be something for the kernel.
    pub fib_due: bool,
}

pub fn config(count: u8, internal: u8, add_path: bool, log: usize) -> Config {
    Config {
        local: Local { asn: OUR_AS, router_id: Ipv4Addr::new(10, 0, 0, 1), cluster_id: None },
        peers: (0..count)
            .map(|p| PeerConfig {
                name: format!("p{p}"),
                address: address(p).into(),
                remote_as: if p < internal { OUR_AS } else { 65000 + u32::from(p % 2) },
                route_reflector_client: p == 0 && internal > 0,
                export_scope: if p == 3 { ExportScope::NoTransit } else { ExportScope::All },
                add_path: AddPath {
                    receive: add_path && p + 1 == count,
                    send: add_path && p + 1 == count,
                    ..AddPath::default()
                },
                passive: true,
                graceful_restart: GracefulRestartConfig {
                    long_lived: LongLived {
                        keep: Duration::from_secs(5),
                        partial: p == 1,
                        ..LongLived::default()
                    },
                    ..GracefulRestartConfig::default()
                },
                ..PeerConfig::default()
            })
            .collect(),
        kernel: KernelRules { resolve_next_hops: false, ..KernelRules::default() },
        export_log: log,
        ..Config::default()
    }
}

impl Rig {
    pub fn new(config: &Config) -> Rig {
        let now = Duration::from_secs(1);
        let mut rig = Rig {
            speaker: Speaker::new(now, config.clone(), Start::default()),
            peers: Vec::new(),
            now,
            ways: BTreeMap::new(),
            fib: BTreeMap::new(),
            fib_due: false,
        };
        for (p, peer) in (0_u8..).zip(&config.peers) {
            let conn = rig.accept(p).unwrap();
            let raw = Raw {
                asn: peer.remote_as,
                internal: peer.remote_as == OUR_AS,
                add_path: peer.add_path.send,
                graceful: p % 2 == 0,
                conn,
                buffer: Vec::new(),
                held: BTreeMap::new(),
                exact: BTreeMap::new(),
                loops: false,
                up: true,
            };
            let hello = raw.hello(p);
            rig.peers.push(raw);
            rig.receive(p, &hello);
        }
        rig
    }

    pub fn accept(&mut self, p: u8) -> Option<ConnId> {
        let local = SocketAddr::new(Ipv4Addr::new(10, 0, 0, 1).into(), 179);
        self.speaker.accept(self.now, SocketAddr::new(address(p).into(), 4000), local).ok()
    }

    pub fn receive(&mut self, p: u8, data: &[u8]) {
        let conn = self.peers[usize::from(p)].conn;
        self.speaker.handle(self.now, Input::Received { conn, data });
    }

    /// Answers what the speaker asks about next hops; everything else waits until somebody reads.
    pub fn carry_out(&mut self) {
        while let Some(output) = self.speaker.poll() {
            match output {
                Output::WatchNextHop(address) => {
                    let link = || way("eth0", 0);
                    let resolution = self.ways.get(&address).cloned().unwrap_or_else(link);
                    self.speaker.handle(self.now, Input::NextHop { address, resolution });
                }
                Output::Fib => self.fib_due = true,
                _ => {}
            }
        }
    }

    /// The kernel takes up to about so many changes.
    pub fn write(&mut self, max: usize) -> usize {
        let changes = self.speaker.take_fib(max);
        self.fib_due &= !changes.is_empty();
        for change in &changes {
            assert_eq!(self.fib.get(&change.prefix), change.old.as_deref(), "{}", change.prefix);
            match &change.new {
                Some(route) => self.fib.insert(change.prefix, (**route).clone()),
                None => self.fib.remove(&change.prefix),
            };
        }
        changes.len()
    }

    /// Lets a peer read up to so many bytes.
    pub fn read(&mut self, p: u8, budget: usize) -> usize {
        self.carry_out();
        let conn = self.peers[usize::from(p)].conn;
        let mut chunks = Vec::new();
        let sent = self.speaker.transmit(self.now, conn, budget, &mut chunks);
        self.peers[usize::from(p)].hear(&chunks.concat());
        sent
    }

    pub fn read_all(&mut self) {
        for round in 0..5 {
            for p in 0..u8::try_from(self.peers.len()).unwrap() {
                while self.peers[usize::from(p)].up && self.read(p, 4096) > 0 {}
            }
            if round == 4 {
                return; // nothing happens after they read for the last time
            }
            self.now += Duration::from_millis(250);
            self.speaker.handle(self.now, Input::Tick);
        }
    }

    pub fn best(&self) -> Vec<PathView> {
        self.speaker.routes(&RouteFilter::default()).into_iter().filter(|r| r.best).collect()
    }

    /// Every peer holds exactly what a decision for it alone says.
    pub fn check(&self) {
        let routes = self.speaker.routes(&RouteFilter::default());
        for (p, raw) in self.peers.iter().enumerate().filter(|(_, raw)| raw.up) {
            let name = format!("p{p}");
            let mut expected: BTreeMap<String, Vec<(Vec<u32>, IpAddr)>> = BTreeMap::new();
            for route in &routes {
                let told =
                    self.speaker.explain(route.prefix).exports.into_iter().find(|e| e.peer == name).unwrap();
                let wanted = if raw.add_path { route.reachable } else { route.best };
                if !wanted || route.from == name || !told.accepted {
                    continue;
                }
                if raw.add_path && !self.told_alone(p, route) {
                    continue;
                }
                let from: usize = route.from[1..].parse().unwrap();
                let mut path = route.attrs.as_path.clone();
                let mut next_hop = route.next_hop.unwrap();
                if !raw.internal {
                    path.insert(0, OUR_AS);
                    next_hop = Ipv4Addr::new(10, 0, 0, 1).into();
                }
                assert!(!(raw.internal && self.peers[from].internal && p != 0 && from != 0), "reflected");
                expected.entry(route.prefix.to_string()).or_default().push((path, next_hop));
            }
            let mut held: BTreeMap<String, Vec<(Vec<u32>, IpAddr)>> = BTreeMap::new();
            for ((prefix, _), route) in &raw.held {
                held.entry(prefix.clone()).or_default().push(route.clone());
            }
            held.values_mut().chain(expected.values_mut()).for_each(|v| v.sort());
            assert_eq!(held, expected, "peer {name}");
            let views = self.speaker.advertised(&name);
            assert_eq!(views.len(), raw.held.len(), "peer {name}");
        }
    }

    /// ADD-PATH: the verdict on one path, which `explain` gives for the best of them only.
    pub fn told_alone(&self, p: usize, route: &PathView) -> bool {
        let from: usize = route.from[1..].parse().unwrap();
        let internal = self.peers[p].internal && self.peers[from].internal;
        let transit = p == 3 && !self.peers[from].internal;
        let stale = route.long_lived && !self.peers[p].graceful;
        !(stale || transit || internal && p != 0 && from != 0)
    }
}

/// A way by an interface.
pub fn way(interface: &str, metric: u32) -> Resolution {
    let hop = ResolvedHop { gateway: None, ifindex: 2, interface: interface.into() };
    Resolution::Via { hops: vec![hop], metric }
}

#[derive(Debug, Clone)]
pub enum Op {
    Announce(Announced),
    Withdraw(u8, u8, u32),
    Read(u8, usize),
    Drop(u8),
    Return(u8),
    Refresh(u8),
    Wait(u64),
}

pub fn op(peers: u8, prefixes: u8) -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => announced(peers, prefixes).prop_map(Op::Announce),
        4 => (0..peers, 0..prefixes, 0..2_u32).prop_map(|(p, n, id)| Op::Withdraw(p, n, id)),
        4 => (0..peers, 1..400_usize).prop_map(|(p, b)| Op::Read(p, b)),
        1 => (0..peers).prop_map(Op::Drop),
        2 => (0..peers).prop_map(Op::Return),
        1 => (0..peers).prop_map(Op::Refresh),
        1 => (0..400_u64).prop_map(Op::Wait),
        1 => (400..1500_u64).prop_map(Op::Wait),
    ]
}

impl Rig {
    pub fn perform(&mut self, op: &Op) {
        match *op {
            Op::Announce(a) if self.peers[usize::from(a.peer)].up => {
                let bytes = self.peers[usize::from(a.peer)].announce(&a);
                self.receive(a.peer, &bytes);
            }
            Op::Withdraw(p, n, id) if self.peers[usize::from(p)].up => {
                let bytes = self.peers[usize::from(p)].withdraw(n, id);
                self.receive(p, &bytes);
            }
            Op::Read(p, budget) if self.peers[usize::from(p)].up => {
                self.read(p, budget);
            }
            Op::Drop(p) if self.peers[usize::from(p)].up => {
                let raw = &mut self.peers[usize::from(p)];
                raw.up = false;
                raw.held.clear();
                raw.exact.clear();
                raw.buffer.clear();
                let conn = raw.conn;
                self.speaker.handle(self.now, Input::Closed { conn, reason: "test".into() });
            }
            Op::Return(p) if !self.peers[usize::from(p)].up => {
                let Some(conn) = self.accept(p) else { return };
                let raw = &mut self.peers[usize::from(p)];
                raw.conn = conn;
                raw.up = true;
                let hello = raw.hello(p);
                self.receive(p, &hello);
            }
            Op::Refresh(p) if self.peers[usize::from(p)].up => {
                let mut bytes = Vec::new();
                let family = Family::Ipv4Unicast.into();
                RouteRefresh { family, kind: RefreshKind::Request }.encode(&mut bytes);
                self.receive(p, &bytes);
            }
            Op::Wait(ms) => {
                self.now += Duration::from_millis(ms);
                self.speaker.handle(self.now, Input::Tick);
            }
            _ => {}
        }
    }
}
