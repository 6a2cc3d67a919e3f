//! Properties: the best path does not depend on the order of arrival, every peer holds what a decision for it alone says
//! however updates and reads interleave, and no sequence of events panics.
#![allow(clippy::unwrap_used, clippy::unchecked_time_subtraction, reason = "tests")]

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
use bird_speaker::io::{Command, ConnId, LocalRouteKey, LocalSource, Resolution};
use bird_speaker::view::{PathView, RouteFilter};
use bird_speaker::{Input, LocalRoute, Output, Speaker, Start, Time};
use proptest::prelude::*;

const OUR_AS: u32 = 64512;

fn address(peer: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 1, peer + 1)
}

fn prefix(n: u8) -> Prefix4 {
    Prefix4::new(Ipv4Addr::new(11, n, 0, 0), 16).unwrap()
}

/// One announcement: small ranges, so that ties and clashes are common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Announced {
    peer: u8,
    prefix: u8,
    path_id: u32,
    neighbour: u32,
    length: u8,
    origin: u8,
    med: Option<u32>,
    local_pref: Option<u32>,
    community: u8,
}

fn announced(peers: u8, prefixes: u8) -> impl Strategy<Value = Announced> {
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
struct Raw {
    asn: u32,
    internal: bool,
    add_path: bool,
    /// It restarts gracefully, and knows long-lived stale routes.
    graceful: bool,
    conn: ConnId,
    buffer: Vec<u8>,
    held: BTreeMap<(String, u32), (Vec<u32>, IpAddr)>,
    up: bool,
}

impl Raw {
    fn ctx(&self) -> SessionContext {
        let mut ctx =
            SessionContext::new(if self.internal { PeerKind::Internal } else { PeerKind::External });
        let v4 = ctx.family_mut(Family::Ipv4Unicast);
        v4.add_path_rx = self.add_path;
        v4.add_path_tx = self.add_path;
        ctx
    }

    fn hello(&self, peer: u8) -> Vec<u8> {
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

    fn announce(&self, a: &Announced) -> Vec<u8> {
        let mut builder = AttrBuilder::new();
        let first = if self.internal { 65500 + a.neighbour } else { self.asn };
        let path: Vec<u32> =
            std::iter::once(first).chain((0..a.length).map(|i| 3000 + u32::from(i))).collect();
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

    fn withdraw(&self, n: u8, path_id: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let nlri = Nlri { prefix: prefix(n), path_id: if self.add_path { path_id } else { 0 } };
        UpdatePacker::new().withdraw(&self.ctx(), Family::Ipv4Unicast, [nlri], &mut out).unwrap();
        out
    }

    fn hear(&mut self, bytes: &[u8]) {
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
                }
            }
            for announcement in view.announcements() {
                let mut bytes = Vec::new();
                view.attributes().write_canonical(&mut bytes);
                let path: Vec<u32> = AttrSet::new(&bytes).as_path().asns().collect();
                for nlri in announcement.routes {
                    let key = (nlri.prefix.to_string(), nlri.path_id);
                    self.held.insert(key, (path.clone(), announcement.next_hop.addr));
                }
            }
        }
        self.buffer = rest.to_vec();
    }
}

/// A speaker with raw peers: the first `internal` are iBGP, of which the first is a reflector client; the last has ADD-PATH
/// if asked.
struct Rig {
    speaker: Speaker,
    peers: Vec<Raw>,
    now: Time,
}

fn config(count: u8, internal: u8, add_path: bool, log: usize) -> Config {
    Config {
        local: Local { asn: OUR_AS, router_id: Ipv4Addr::new(10, 0, 0, 1), cluster_id: None },
        peers: (0..count)
            .map(|p| PeerConfig {
                name: format!("p{p}"),
                address: address(p).into(),
                remote_as: if p < internal { OUR_AS } else { 65000 + u32::from(p % 2) },
                route_reflector_client: p == 0 && internal > 0,
                export_scope: if p == 3 { ExportScope::NoTransit } else { ExportScope::All },
                add_path: AddPath { receive: add_path && p + 1 == count, send: add_path && p + 1 == count },
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
    fn new(config: &Config) -> Rig {
        let now = Duration::from_secs(1);
        let mut rig =
            Rig { speaker: Speaker::new(now, config.clone(), Start::default()), peers: Vec::new(), now };
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
                up: true,
            };
            let hello = raw.hello(p);
            rig.peers.push(raw);
            rig.receive(p, &hello);
        }
        rig
    }

    fn accept(&mut self, p: u8) -> Option<ConnId> {
        let local = SocketAddr::new(Ipv4Addr::new(10, 0, 0, 1).into(), 179);
        self.speaker.accept(self.now, SocketAddr::new(address(p).into(), 4000), local).ok()
    }

    fn receive(&mut self, p: u8, data: &[u8]) {
        let conn = self.peers[usize::from(p)].conn;
        self.speaker.handle(self.now, Input::Received { conn, data });
    }

    /// Lets a peer read up to so many bytes.
    fn read(&mut self, p: u8, budget: usize) -> usize {
        while self.speaker.poll().is_some() {}
        let conn = self.peers[usize::from(p)].conn;
        let mut chunks = Vec::new();
        let sent = self.speaker.transmit(self.now, conn, budget, &mut chunks);
        self.peers[usize::from(p)].hear(&chunks.concat());
        sent
    }

    fn read_all(&mut self) {
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

    fn best(&self) -> Vec<PathView> {
        self.speaker.routes(&RouteFilter::default()).into_iter().filter(|r| r.best).collect()
    }

    /// Every peer holds exactly what a decision for it alone says.
    fn check(&self) {
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
    fn told_alone(&self, p: usize, route: &PathView) -> bool {
        let from: usize = route.from[1..].parse().unwrap();
        let internal = self.peers[p].internal && self.peers[from].internal;
        let transit = p == 3 && !self.peers[from].internal;
        let stale = route.long_lived && !self.peers[p].graceful;
        !(stale || transit || internal && p != 0 && from != 0)
    }
}

#[derive(Debug, Clone)]
enum Op {
    Announce(Announced),
    Withdraw(u8, u8, u32),
    Read(u8, usize),
    Drop(u8),
    Return(u8),
    Refresh(u8),
    Wait(u64),
}

fn op(peers: u8, prefixes: u8) -> impl Strategy<Value = Op> {
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
    fn perform(&mut self, op: &Op) {
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_best_path_does_not_depend_on_the_order_of_arrival(
        (first, second) in prop::collection::vec(announced(6, 2), 1..20).prop_flat_map(|mut list| {
            // The last word of each peer on each prefix counts; with one word each, order is all that differs.
            let mut seen = std::collections::HashSet::new();
            list.retain(|a| seen.insert((a.peer, a.prefix)));
            (Just(list.clone()), Just(list).prop_shuffle())
        }),
        gone in prop::collection::vec((0..6_u8, 0..2_u8), 0..4),
    ) {
        let config = config(6, 2, false, 4 << 20);
        let outcome = |list: &[Announced]| {
            let mut rig = Rig::new(&config);
            for a in list {
                rig.perform(&Op::Announce(*a));
            }
            for (p, n) in &gone {
                rig.perform(&Op::Withdraw(*p, *n, 0));
            }
            rig.best()
        };
        prop_assert_eq!(outcome(&first), outcome(&second));
    }

    #[test]
    fn every_member_of_a_group_holds_what_a_decision_for_it_alone_says(
        ops in prop::collection::vec(op(6, 12), 1..120),
        add_path in any::<bool>(),
        log in prop_oneof![Just(64_usize), Just(600), Just(4 << 20)],
    ) {
        let mut rig = Rig::new(&config(6, 2, add_path, log));
        for op in &ops {
            rig.perform(op);
        }
        rig.read_all();
        rig.check();
        // And once more, after everything that may be reused was reused.
        for op in &ops {
            rig.perform(op);
        }
        rig.read_all();
        rig.check();
    }

    #[test]
    fn no_sequence_of_events_panics(
        events in prop::collection::vec(event(), 1..80),
    ) {
        chaos(&events);
    }
}

#[derive(Debug, Clone)]
enum Chaos {
    Op(Op),
    Bytes(u8, Vec<u8>),
    Message(u8, u8, Vec<u8>),
    Tick(u64),
    Accept(u8),
    Close(u8),
    Answer(bool),
    Configure(u8, u8, bool),
    Local(u8, u32, bool),
    NextHop(u8, bool),
    Command(u8),
    Fib(usize, bool),
    StaleConn,
}

fn event() -> impl Strategy<Value = Chaos> {
    prop_oneof![
        6 => op(5, 4).prop_map(Chaos::Op),
        2 => (0..5_u8, prop::collection::vec(any::<u8>(), 0..60)).prop_map(|(p, b)| Chaos::Bytes(p, b)),
        4 => (0..5_u8, 1..6_u8, prop::collection::vec(any::<u8>(), 0..60)).prop_map(|(p, k, b)| Chaos::Message(p, k, b)),
        3 => (0..200_000_u64).prop_map(Chaos::Tick),
        2 => (0..5_u8).prop_map(Chaos::Accept),
        1 => (0..5_u8).prop_map(Chaos::Close),
        3 => any::<bool>().prop_map(Chaos::Answer),
        2 => (0..6_u8, 0..3_u8, any::<bool>()).prop_map(|(n, i, a)| Chaos::Configure(n, i, a)),
        2 => (0..4_u8, 0..3_u32, any::<bool>()).prop_map(|(n, m, g)| Chaos::Local(n, m, g)),
        2 => (0..5_u8, any::<bool>()).prop_map(|(p, u)| Chaos::NextHop(p, u)),
        1 => (0..9_u8).prop_map(Chaos::Command),
        2 => (0..9_usize, any::<bool>()).prop_map(|(n, f)| Chaos::Fib(n, f)),
        1 => Just(Chaos::StaleConn),
    ]
}

fn chaos(events: &[Chaos]) {
    let mut base = config(5, 2, true, 600);
    for (i, peer) in base.peers.iter_mut().enumerate() {
        peer.passive = i % 2 == 0;
    }
    base.kernel.resolve_next_hops = true;
    let mut rig = Rig::new(&base);
    let mut dialed: Vec<ConnId> = Vec::new();
    for event in events {
        match event {
            Chaos::Op(op) => rig.perform(op),
            Chaos::Bytes(p, bytes) => rig.receive(*p, bytes),
            Chaos::Message(p, kind, body) => {
                let mut bytes = vec![0xff; 16];
                bytes.extend_from_slice(&u16::try_from(body.len() + 19).unwrap().to_be_bytes());
                bytes.push(*kind);
                bytes.extend_from_slice(body);
                rig.receive(*p, &bytes);
            }
            Chaos::Tick(ms) => rig.perform(&Op::Wait(*ms)),
            Chaos::Accept(p) => {
                let local = SocketAddr::new(Ipv4Addr::new(10, 0, 0, 1).into(), 179);
                let remote = SocketAddr::new(address(*p).into(), 4000);
                if let Ok(conn) = rig.speaker.accept(rig.now, remote, local) {
                    let raw = &mut rig.peers[usize::from(*p)];
                    raw.conn = conn;
                    raw.up = false;
                    raw.buffer.clear();
                    let hello = raw.hello(*p);
                    rig.receive(*p, &hello);
                }
            }
            Chaos::Close(p) => {
                let conn = rig.peers[usize::from(*p)].conn;
                rig.speaker.handle(rig.now, Input::Closed { conn, reason: "test".into() });
            }
            Chaos::Answer(good) => {
                let Some(conn) = dialed.pop() else { continue };
                let input = if *good {
                    Input::Connected { conn, local: SocketAddr::new(Ipv4Addr::new(10, 0, 0, 1).into(), 4000) }
                } else {
                    Input::ConnectFailed { conn, reason: bird_speaker::io::ConnectError::Refused }
                };
                rig.speaker.handle(rig.now, input);
            }
            Chaos::Configure(count, internal, add_path) => {
                let mut config = config((*count).min(5), *internal, *add_path, 600);
                config.originated = (0..*count)
                    .map(|n| bird_speaker::config::Originated {
                        prefix: format!("11.{n}.0.0/16").parse().unwrap(),
                        target: bird_speaker::config::OriginTarget::Blackhole,
                        metric: None,
                    })
                    .collect();
                rig.speaker.configure(rig.now, config);
            }
            Chaos::Local(n, metric, gone) => {
                let key = LocalRouteKey {
                    prefix: format!("11.{n}.0.0/16").parse().unwrap(),
                    source: LocalSource::Kernel,
                    metric: *metric,
                    interface: "cali1".into(),
                };
                rig.speaker.handle(
                    rig.now,
                    if *gone {
                        Input::LocalRouteGone(key)
                    } else {
                        Input::LocalRoute(LocalRoute { key, gateway: None })
                    },
                );
            }
            Chaos::NextHop(p, up) => {
                let resolution = if *up {
                    Resolution::Via { hops: Vec::new(), metric: 1 }
                } else {
                    Resolution::Unreachable
                };
                rig.speaker.handle(rig.now, Input::NextHop { address: address(*p).into(), resolution });
            }
            Chaos::Command(n) => {
                let peer = format!("p{}", n % 3);
                let command = match n / 3 {
                    0 => Command::Reset { peer },
                    1 => Command::RefreshIn { peer },
                    _ => Command::RefreshOut { peer },
                };
                rig.speaker.handle(rig.now, Input::Command(command));
            }
            Chaos::Fib(max, fails) => {
                for change in rig.speaker.take_fib(*max) {
                    if *fails {
                        rig.speaker.handle(rig.now, Input::FibFailed { prefix: change.prefix });
                    }
                }
            }
            Chaos::StaleConn => {
                let conn = rig.peers[0].conn;
                rig.speaker.handle(rig.now, Input::Closed { conn, reason: "test".into() });
                rig.receive(0, &[0xff; 40]);
                rig.speaker.handle(rig.now, Input::Closed { conn, reason: "again".into() });
            }
        }
        for _ in 0..50 {
            match rig.speaker.poll() {
                Some(Output::Connect(dial)) => dialed.push(dial.conn),
                Some(Output::Transmit(conn) | Output::Close(conn)) => {
                    rig.speaker.transmit(rig.now, conn, 1000, &mut Vec::new());
                }
                Some(_) => {}
                None => break,
            }
        }
        let totals = rig.speaker.totals();
        assert!(totals.paths >= totals.prefixes);
    }
    // Silence ends everything: nothing is left over.
    rig.speaker.configure(rig.now, Config { peers: Vec::new(), ..base });
    for _ in 0..200 {
        rig.now += Duration::from_secs(10);
        rig.speaker.handle(rig.now, Input::Tick);
        while rig.speaker.poll().is_some() {}
    }
    let learned =
        rig.speaker.routes(&RouteFilter::default()).into_iter().filter(|r| r.from.starts_with('p')).count();
    assert_eq!(learned, 0);
    let totals = rig.speaker.totals();
    assert!(totals.attribute_sets <= 4 + 5, "nothing but local routes holds attributes: {totals:?}");
}
