//! A whole speaker of `bird/speaker` under a script: calls, bytes, time, the kernel's answers, new configurations.
//!
//! Beside it stands what any shell and any peer would see: the kernel's routes, and for each connection what was told on
//! it. Whatever the script does, the speaker must not panic, spin, send what its own codec would complain about, or
//! claim to have told something else than it sent.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bird_packet::attr::AttrBuilder;
use bird_packet::{
    AddPath, AfiSafi, AttrSet, Capability, ExtendedNextHop, Family, GrFamily, GracefulRestart, HEADER_LEN,
    LlgrFamily, MAX_LEN, MAX_LEN_EXTENDED, MessageKind, NextHop, Nlri, Notification, OpenMessage, Origin,
    PeerKind, Prefix, RefreshKind, RouteRefresh, SessionContext, UpdatePacker, UpdateView, Verdict,
    encode_end_of_rib, encode_keepalive, frame,
};
use bird_speaker::config::{
    AddPath as AddPathConfig, Config, Families, GracefulRestart as GracefulRestartConfig, LimitAction,
    ListenRange, Local, LongLived, NextHopMode, OriginTarget, Originated, PeerConfig, PrefixLimit,
};
use bird_speaker::fsm::State;
use bird_speaker::io::{
    Command, ConnId, ConnectError, Dial, LocalRouteKey, LocalSource, Resolution, ResolvedHop,
};
use bird_speaker::view::RouteFilter;
use bird_speaker::{FibRoute, ImportReason, Input, LocalRoute, Output, Speaker, Start, Time};
use ipnet::IpNet;

const OUR_AS: u32 = 65001;
const OUR_ADDRESS: [u8; 4] = [192, 0, 2, 1];
/// Name, last octet of the address, AS. The guest is not configured and calls from a listen range.
const PEERS: [(&str, u8, u32); 7] = [
    ("a", 2, 65002),
    ("b", 3, OUR_AS),
    ("c", 4, 4_200_000_001),
    ("guest_198.51.100.9", 9, 65009),
    ("d", 5, OUR_AS),
    ("e", 6, 65002),
    ("f", 7, OUR_AS),
];
/// What routes are about, so that they meet each other.
const PREFIXES: [&str; 8] = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "0.0.0.0/0",
    "2001:db8::/32",
    "2001:db8:1::/48",
    "::/0",
    "198.51.100.0/24",
];
const PAUSES: [u64; 8] = [0, 1, 100, 1_000, 5_000, 40_000, 130_000, 600_000];

/// A script: what to do, an octet each, with its arguments behind it.
pub fn session(data: &[u8]) {
    let mut script = Script { rest: data };
    let mut world = World::new(script.octet(), script.octet());
    for _ in 0..200 {
        if script.rest.is_empty() {
            break;
        }
        world.act(&mut script);
        world.settle();
    }
    world.check();
}

struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    fn octet(&mut self) -> u8 {
        let (first, rest) = self.rest.split_first().unwrap_or((&0, &[]));
        self.rest = rest;
        *first
    }

    fn pick(&mut self, from: usize) -> usize {
        usize::from(self.octet()).checked_rem(from).unwrap_or(0)
    }

    fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.octet()).min(self.rest.len());
        let (bytes, rest) = self.rest.split_at(len);
        self.rest = rest;
        bytes
    }
}

/// A connection, from the peer's end.
struct Wire {
    id: ConnId,
    peer: usize,
    open: bool,
    /// Reads nothing.
    deaf: bool,
    /// What came from the speaker and is not a whole message yet.
    from: Vec<u8>,
    /// What went to it and is not a whole message yet.
    to: Vec<u8>,
    their_open: Option<OpenMessage>,
    our_open: Option<OpenMessage>,
    keepalive: bool,
    told: BTreeMap<(Prefix, u32), (Vec<u8>, NextHop)>,
    /// AS paths, and whether the route may be used.
    heard: BTreeMap<(Prefix, u32), (Vec<u32>, bool)>,
    /// Something that is no message, or a long one, went to the speaker.
    garbled: bool,
    /// A refresh is under way or was: `heard` is not what must be there.
    refreshed: bool,
}

struct World {
    speaker: Speaker,
    now: Time,
    options: u8,
    /// Bytes arrive a few at a time.
    in_pieces: bool,
    wires: Vec<Wire>,
    dials: Vec<Dial>,
    watched: Vec<IpAddr>,
    fib: BTreeMap<IpNet, Arc<FibRoute>>,
    /// The kernel refused something: what the speaker thinks of it is no longer what it was told.
    refused: bool,
    /// Peers that lost a session: what graceful restart keeps of them is not followed here.
    lost: [bool; PEERS.len()],
    /// There was a prefix limit before the configuration of now.
    limited: bool,
}

impl World {
    fn new(options: u8, start: u8) -> Self {
        let now = Duration::from_secs(1);
        let in_pieces = start & 8 != 0;
        let start = Start {
            restarted: start & 1 != 0,
            forwarding_kept: start & 2 != 0,
            local_routes: start & 4 != 0,
        };
        let mut world = Self {
            speaker: Speaker::new(now, config(options), start),
            now,
            options,
            in_pieces,
            wires: Vec::new(),
            dials: Vec::new(),
            watched: Vec::new(),
            fib: BTreeMap::new(),
            refused: false,
            lost: [false; PEERS.len()],
            limited: false,
        };
        world.settle();
        world
    }

    fn handle(&mut self, input: Input<'_>) {
        self.speaker.handle(self.now, input);
    }

    fn act(&mut self, script: &mut Script<'_>) {
        match script.octet() % 18 {
            0 => self.pass(Duration::from_millis(PAUSES[script.pick(PAUSES.len())])),
            1 => {
                self.call(script.pick(PEERS.len()));
            }
            2 | 3 => {
                let (peer, how) = (script.pick(PEERS.len()), script.octet());
                self.shake_hands(peer, how);
            }
            4 => {
                let (at, kind) = (script.pick(self.wires.len()), script.octet() % 6);
                let body = script.bytes();
                let mut message = vec![0xff; 16];
                let len = u16::try_from(HEADER_LEN + body.len()).unwrap_or(u16::MAX);
                message.extend(len.to_be_bytes());
                message.push(kind);
                message.extend(body);
                self.feed(at, &message);
            }
            5 => {
                let at = script.pick(self.wires.len());
                self.feed(at, script.bytes());
            }
            6 => self.hang_up(script.pick(self.wires.len())),
            7 => self.answer(script.octet()),
            8 => {
                let Some(address) = self.watched.get(script.pick(self.watched.len())).copied() else {
                    return;
                };
                self.resolve(address, script.octet());
            }
            9 => {
                let (route, gone) = local_route(script.octet());
                if gone {
                    self.handle(Input::LocalRouteGone(route.key));
                } else {
                    self.handle(Input::LocalRoute(route));
                }
            }
            10 => self.handle(Input::LocalRoutesComplete),
            11 => {
                let prefix = PREFIXES[script.pick(PREFIXES.len())].parse().expect("a prefix");
                self.refused = true;
                self.handle(Input::FibFailed { prefix });
            }
            12 => {
                let peer = PEERS[script.pick(PEERS.len())].0.to_owned();
                self.handle(Input::Command(match script.octet() % 16 {
                    0 => Command::Stop,
                    n if n < 6 => Command::Reset { peer },
                    n if n < 11 => Command::RefreshIn { peer },
                    _ => Command::RefreshOut { peer },
                }));
            }
            13 => {
                // What a limit discarded comes back when the peer is asked, which these are not.
                self.limited |= self.options & 64 != 0;
                self.options = script.octet();
                let config = config(self.options);
                let said = self.speaker.diff(&config);
                assert_eq!(self.speaker.configure(self.now, config.clone()), said);
                let nothing = self.speaker.diff(&config);
                assert!(nothing.added.is_empty() && nothing.removed.is_empty() && nothing.reset.is_empty());
            }
            14 => {
                let at = script.pick(self.wires.len());
                if let Some(wire) = self.wires.get_mut(at) {
                    wire.deaf = !wire.deaf;
                }
            }
            15 | 16 => {
                let at = script.pick(self.wires.len());
                let update = self.announce(at, script);
                self.feed(at, &update);
            }
            _ => {
                let (at, what) = (script.pick(self.wires.len()), script.octet());
                let message = self.marker(at, what);
                self.feed(at, &message);
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        // A timer may lead to the next one, but not forever.
        for _ in 0..10_000 {
            let next = self.speaker.next_timeout().filter(|at| *at <= end);
            self.now = self.now.max(next.unwrap_or(end));
            self.handle(Input::Tick);
            self.settle();
            if next.is_none() {
                return;
            }
        }
        panic!("timers never end: {:?} at {:?}", self.speaker.next_timeout(), self.now);
    }

    fn call(&mut self, peer: usize) -> Option<usize> {
        let remote = SocketAddr::new(address(peer), 40_000);
        let local = SocketAddr::new(OUR_ADDRESS.into(), 179);
        let id = self.speaker.accept(self.now, remote, local).ok()?;
        self.add_wire(id, peer);
        self.settle();
        Some(self.wires.len() - 1)
    }

    fn add_wire(&mut self, id: ConnId, peer: usize) {
        assert!(!self.wires.iter().any(|w| w.open && w.id == id), "{id} twice");
        self.wires.push(Wire {
            id,
            peer,
            open: true,
            deaf: false,
            from: Vec::new(),
            to: Vec::new(),
            their_open: None,
            our_open: None,
            keepalive: false,
            told: BTreeMap::new(),
            heard: BTreeMap::new(),
            garbled: false,
            refreshed: false,
        });
    }

    /// Calls, and goes all the way to Established if the speaker agrees.
    fn shake_hands(&mut self, peer: usize, how: u8) {
        let Some(at) = self.call(peer) else { return };
        let mut bytes = Vec::new();
        open(peer, how).encode(&mut bytes);
        encode_keepalive(&mut bytes);
        encode_keepalive(&mut bytes);
        self.feed(at, &bytes);
    }

    fn feed(&mut self, at: usize, bytes: &[u8]) {
        let Some(wire) = self.wires.get_mut(at).filter(|w| w.open) else { return };
        wire.listen(bytes);
        let conn = wire.id;
        for data in bytes.chunks(if self.in_pieces { 7 } else { bytes.len().max(1) }) {
            self.handle(Input::Received { conn, data });
        }
        self.settle();
    }

    fn hang_up(&mut self, at: usize) {
        let Some(wire) = self.wires.get_mut(at).filter(|w| w.open) else { return };
        wire.open = false;
        let (conn, peer) = (wire.id, wire.peer);
        self.lost[peer] = true;
        self.handle(Input::Closed { conn, reason: "reset".into() });
    }

    fn answer(&mut self, how: u8) {
        let Some(dial) = self.dials.pop() else { return };
        let Some(peer) = (0..PEERS.len()).find(|p| address(*p) == dial.remote.ip()) else {
            panic!("called {}", dial.remote)
        };
        if how & 1 == 0 {
            self.add_wire(dial.conn, peer);
            let local = SocketAddr::new(OUR_ADDRESS.into(), 40_001);
            self.handle(Input::Connected { conn: dial.conn, local });
        } else {
            self.handle(Input::ConnectFailed { conn: dial.conn, reason: ConnectError::Refused });
        }
    }

    fn resolve(&mut self, address: IpAddr, how: u8) {
        let hop = |n: u32| ResolvedHop {
            gateway: (n > 1).then_some(address),
            ifindex: n,
            interface: if n == 1 { "eth0".into() } else { "tunl0".into() },
        };
        let resolution = match how % 4 {
            0 => Resolution::Unreachable,
            1 => Resolution::Via { hops: vec![hop(1)], metric: 0 },
            2 => Resolution::Via { hops: vec![hop(1), hop(2)], metric: u32::from(how) },
            _ => Resolution::Via { hops: Vec::new(), metric: 7 },
        };
        self.handle(Input::NextHop { address, resolution });
    }

    /// An UPDATE for the session of a connection, of few parts, so that routes meet.
    fn announce(&self, at: usize, script: &mut Script<'_>) -> Vec<u8> {
        let (what, more, count) = (script.octet(), script.octet(), 1 + script.octet() % 4);
        let family = if what & 1 == 0 { Family::Ipv4Unicast } else { Family::Ipv6Unicast };
        let routes: Vec<Nlri> = (0..count).map(|_| route(script.octet())).collect();
        let routes = routes.into_iter().filter(|n| n.prefix.family() == family);
        let mut out = Vec::new();
        let Some((wire, ctx)) = self.wires.get(at).and_then(|w| Some((w, w.terms(true)?))) else {
            return out;
        };
        let mut packer = UpdatePacker::new();
        if what & 2 != 0 {
            packer.withdraw(&ctx, family, routes, &mut out).expect("one family");
            return out;
        }
        let mut attrs = AttrBuilder::new();
        attrs.origin(Origin::Igp);
        let own = if ctx.kind == PeerKind::Internal { None } else { Some(PEERS[wire.peer].2) };
        let path: Vec<u32> = own.into_iter().chain((0..more & 3).map(|n| 100 + u32::from(n))).collect();
        attrs.as_path(&path);
        attrs.med((what & 4 != 0).then_some(u32::from(more)));
        if own.is_none() {
            attrs.local_pref(Some(100 + u32::from(more & 4)));
        }
        if what & 8 != 0 {
            let well_known = [0xffff_ff01, 0xffff_ff02, 0xffff_0000, 0xffff_0006, 65001 << 16 | 1];
            attrs.add_community(well_known[usize::from(more >> 3) % 5]);
        }
        if what & 16 != 0 {
            attrs.prepend(OUR_AS, 1);
        }
        if what & 32 != 0 && own.is_none() {
            attrs.prepend_cluster_id(Ipv4Addr::new(10, 0, 0, if more & 8 == 0 { 1 } else { 7 }));
            attrs.originator_id_if_absent(Ipv4Addr::new(10, 0, 0, if more & 16 == 0 { 1 } else { 8 }));
        }
        if what & 64 != 0 {
            attrs.prepend(64_600, usize::from(more) * 8);
        }
        let mut canonical = Vec::new();
        attrs.write(&mut canonical).expect("short");
        let next_hop: IpAddr = match family {
            Family::Ipv4Unicast if what & 128 == 0 => [192, 0, 2, 2 + (more >> 6)].into(),
            _ => [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2 + u16::from(more >> 6)].into(),
        };
        let _too_long_or_no_such_next_hop =
            packer.announce(&ctx, family, &canonical, next_hop.into(), routes, &mut out);
        out
    }

    /// End-of-RIB, a refresh, or a last word.
    fn marker(&self, at: usize, what: u8) -> Vec<u8> {
        let family = if what & 1 == 0 { Family::Ipv4Unicast } else { Family::Ipv6Unicast };
        let refresh = |kind| RouteRefresh { family: AfiSafi::from(family), kind };
        let mut out = Vec::new();
        match what >> 1 & 7 {
            0 | 1 => encode_end_of_rib(family, &mut out),
            2 => refresh(RefreshKind::Request).encode(&mut out),
            3 => refresh(RefreshKind::Begin).encode(&mut out),
            4 => refresh(RefreshKind::End).encode(&mut out),
            5 => encode_keepalive(&mut out),
            6 => open(self.wires.get(at).map_or(0, |w| w.peer), what).encode(&mut out),
            _ => Notification::new(6, what >> 4).encode(&mut out),
        }
        out
    }

    /// Does what the speaker wants.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            let Some(output) = self.speaker.poll() else { return self.read() };
            match output {
                Output::Connect(dial) => self.dials.push(dial),
                Output::Transmit(_) => self.read(),
                Output::Close(conn) => {
                    self.dials.retain(|d| d.conn != conn);
                    if let Some(at) = self.wires.iter().position(|w| w.id == conn && w.open) {
                        self.wires[at].deaf = false;
                        self.read();
                        self.wires[at].open = false;
                        self.lost[self.wires[at].peer] = true;
                    } else {
                        let mut nobody = Vec::new();
                        while self.speaker.transmit(self.now, conn, 1 << 20, &mut nobody) > 0 {}
                    }
                }
                Output::Fib => self.write_kernel(),
                Output::WatchNextHop(address) => {
                    self.watched.push(address);
                    if self.options & 128 == 0 {
                        self.resolve(address, 1);
                    }
                }
                Output::ForgetNextHop(address) => self.watched.retain(|a| *a != address),
                Output::Event(_) => {}
            }
        }
        panic!("outputs never end");
    }

    fn read(&mut self) {
        for wire in self.wires.iter_mut().filter(|w| w.open && !w.deaf) {
            let mut chunks = Vec::new();
            while self.speaker.transmit(self.now, wire.id, 16 << 10, &mut chunks) > 0 {}
            for chunk in chunks {
                wire.from.extend_from_slice(&chunk);
            }
            wire.take();
        }
    }

    fn write_kernel(&mut self) {
        loop {
            let batch = self.speaker.take_fib(3);
            if batch.is_empty() {
                return;
            }
            for change in batch {
                let was = match &change.new {
                    Some(route) => self.fib.insert(change.prefix, route.clone()),
                    None => self.fib.remove(&change.prefix),
                };
                assert!(
                    self.refused || was == change.old,
                    "{}: {was:?}, not {:?}",
                    change.prefix,
                    change.old
                );
            }
        }
    }

    /// At the end everybody listens, and a little time passes.
    fn check(&mut self) {
        for wire in &mut self.wires {
            wire.deaf = false;
        }
        self.settle();
        self.pass(Duration::from_millis(1_500));
        for prefix in PREFIXES {
            let explained = self.speaker.explain(prefix.parse().expect("a prefix"));
            assert!(explained.paths.iter().filter(|p| p.best).count() <= 1);
            assert!(
                explained.paths.first().is_none_or(|p| p.best || !explained.paths.iter().any(|p| p.best))
            );
        }
        for view in self.speaker.peer_views() {
            let Some(peer) = PEERS.iter().position(|p| p.0 == view.name) else { panic!("{}", view.name) };
            let open: Vec<&Wire> = self.wires.iter().filter(|w| w.open && w.peer == peer).collect();
            let [wire] = open[..] else { continue };
            if view.state != State::Established {
                continue;
            }
            assert!(wire.our_open.is_some() && wire.their_open.is_some() && wire.keepalive);
            self.check_told(wire);
            if !self.lost[peer] && !wire.refreshed && self.options & 64 == 0 && !self.limited {
                self.check_heard(wire);
            }
        }
        let totals = self.speaker.totals();
        assert_eq!(self.speaker.routes(&RouteFilter::default()).len(), totals.paths);
    }

    /// What the speaker says that it told is what it told.
    fn check_told(&self, wire: &Wire) {
        let views = self.speaker.advertised(PEERS[wire.peer].0);
        assert_eq!(views.len(), wire.told.len());
        for view in views {
            let key =
                (Prefix::new(view.prefix.addr(), view.prefix.prefix_len()).expect("a prefix"), view.path_id);
            let Some((attrs, next_hop)) = wire.told.get(&key) else { panic!("{view:?} was not told") };
            let set = AttrSet::new(attrs);
            assert_eq!(view.next_hop, Some(next_hop.addr));
            assert!(set.as_path().asns().eq(view.attrs.as_path), "{:?}", set.as_path());
            assert_eq!((view.attrs.med, view.attrs.local_pref), (set.med(), set.local_pref()));
            assert_eq!(view.attrs.communities.len(), set.communities().count());
            assert_eq!(view.attrs.originator_id, set.originator_id());
            assert!(set.cluster_list().eq(view.attrs.cluster_list));
        }
    }

    /// What the peer told is what the speaker has of it.
    fn check_heard(&self, wire: &Wire) {
        let filter = RouteFilter { peer: Some(PEERS[wire.peer].0), ..RouteFilter::default() };
        let paths = self.speaker.routes(&filter);
        assert_eq!(paths.len(), wire.heard.len());
        for path in paths {
            let key =
                (Prefix::new(path.prefix.addr(), path.prefix.prefix_len()).expect("a prefix"), path.path_id);
            let usable = path.import == ImportReason::Accepted;
            assert_eq!(Some(&(path.attrs.as_path.clone(), usable)), wire.heard.get(&key), "{path:?}");
        }
    }
}

impl Wire {
    /// The session as its two OPENs make it: for what the speaker sends, or for what it is sent.
    fn terms(&self, towards_speaker: bool) -> Option<SessionContext> {
        let (ours, theirs) = (self.our_open.as_ref()?, self.their_open.as_ref()?);
        let both =
            |wanted: &Capability| ours.capabilities.contains(wanted) && theirs.capabilities.contains(wanted);
        let kind = if ours.asn == theirs.asn { PeerKind::Internal } else { PeerKind::External };
        let mut ctx = SessionContext::new(kind);
        ctx.as4 = theirs.has_four_octet_as();
        if both(&Capability::ExtendedMessage) {
            ctx.max_len = MAX_LEN_EXTENDED;
        }
        for family in Family::ALL {
            let add_path = |open: &OpenMessage| {
                let list = open.capabilities.iter().find_map(|c| match c {
                    Capability::AddPath(list) => Some(list),
                    _ => None,
                });
                let entry = list.and_then(|list| list.iter().rev().find(|a| a.family == family.into()));
                entry.map_or((false, false), |a| (a.receive, a.send))
            };
            let hops = |open: &OpenMessage| {
                open.capabilities.iter().any(|c| {
                    matches!(c, Capability::ExtendedNextHop(list)
                        if list.contains(&ExtendedNextHop { family: family.into(), next_hop_afi: 2 }))
                })
            };
            let ((we_receive, we_send), (they_receive, they_send)) = (add_path(ours), add_path(theirs));
            let (ext_nexthop, enabled) =
                (hops(ours) && hops(theirs), ours.has_family(family) && theirs.has_family(family));
            let f = ctx.family_mut(family);
            f.enabled = enabled;
            f.ext_nexthop = ext_nexthop;
            let path_ids = if towards_speaker { they_send && we_receive } else { we_send && they_receive };
            (f.add_path_rx, f.add_path_tx) = (path_ids, path_ids);
        }
        Some(ctx)
    }

    /// Bytes for the speaker: what a session would make of them.
    fn listen(&mut self, bytes: &[u8]) {
        self.to.extend_from_slice(bytes);
        let stream = std::mem::take(&mut self.to);
        let mut rest = &stream[..];
        let max = if self.their_open.is_some() { MAX_LEN_EXTENDED } else { MAX_LEN };
        loop {
            let Ok(found) = frame(rest, max) else {
                self.garbled = true;
                break;
            };
            let Some(found) = found else { break };
            self.garbled |= found.len > MAX_LEN;
            match found.kind {
                MessageKind::Open if self.their_open.is_none() => {
                    self.their_open = OpenMessage::decode(found.body).ok();
                }
                MessageKind::Keepalive => self.keepalive |= self.their_open.is_some(),
                MessageKind::Update if self.keepalive => self.hear(found.body),
                MessageKind::RouteRefresh => self.refreshed = true,
                _ => {}
            }
            rest = &rest[found.len..];
        }
        self.to = rest.to_vec();
    }

    fn hear(&mut self, body: &[u8]) {
        let Some(ctx) = self.terms(true) else { return };
        let Ok(update) = UpdateView::parse(body, &ctx) else { return };
        for route in update.withdrawals().flat_map(|w| w.routes) {
            self.heard.remove(&(route.prefix, route.path_id));
        }
        let mut attrs = Vec::new();
        update.attributes().write_canonical(&mut attrs);
        let set = AttrSet::new(&attrs);
        let path: Vec<u32> = set.as_path().asns().collect();
        let allowed = usize::from(PEERS[self.peer].0 == "c");
        let ours = Ipv4Addr::new(10, 0, 0, 1);
        let looped = path.iter().filter(|asn| **asn == OUR_AS).count() > allowed
            || set.originator_id() == Some(ours)
            || set.cluster_list().any(|id| id == ours);
        for announcement in update.announcements() {
            let usable = !looped && announcement.next_hop.addr != IpAddr::from(OUR_ADDRESS);
            for route in announcement.routes {
                self.heard.insert((route.prefix, route.path_id), (path.clone(), usable));
            }
        }
    }

    /// Bytes of the speaker: every message must be one that a strict peer takes.
    fn take(&mut self) {
        let stream = std::mem::take(&mut self.from);
        let mut rest = &stream[..];
        while let Some(found) = frame(rest, MAX_LEN_EXTENDED).expect("the speaker frames well") {
            let extended = self.terms(false).is_some_and(|ctx| ctx.max_len > MAX_LEN);
            assert!(found.len <= MAX_LEN || extended, "{} octets", found.len);
            match found.kind {
                MessageKind::Open => {
                    assert!(self.our_open.is_none(), "a second OPEN");
                    self.our_open = Some(OpenMessage::decode(found.body).expect("our OPEN is good"));
                }
                MessageKind::Update => self.learn(found.body),
                MessageKind::Notification => {
                    let notification = Notification::decode(found.body).expect("our NOTIFICATION is good");
                    let named = notification.subcode == 0 || notification.subcode_name().is_some();
                    assert!(named && (notification.code != 1 || self.garbled), "{notification}");
                }
                MessageKind::Keepalive => assert!(self.our_open.is_some()),
                MessageKind::RouteRefresh => {
                    RouteRefresh::decode(found.body, true).expect("our ROUTE-REFRESH is good");
                }
            }
            rest = &rest[found.len..];
        }
        self.from = rest.to_vec();
    }

    fn learn(&mut self, body: &[u8]) {
        let ctx = self.terms(false).expect("no UPDATE before both OPENs");
        let update = UpdateView::parse(body, &ctx).expect("our UPDATE is good");
        assert_eq!((update.verdict(), update.discards().count()), (Verdict::Ok, 0));
        assert_eq!(update.ignored_family(), None);
        for route in update.withdrawals().flat_map(|w| w.routes) {
            self.told.remove(&(route.prefix, route.path_id));
        }
        let mut attrs = Vec::new();
        update.attributes().write_canonical(&mut attrs);
        for announcement in update.announcements() {
            for route in announcement.routes {
                self.told.insert((route.prefix, route.path_id), (attrs.clone(), announcement.next_hop));
            }
        }
    }
}

fn address(peer: usize) -> IpAddr {
    let (name, octet, _) = PEERS[peer];
    if name.starts_with("guest") { [198, 51, 100, octet].into() } else { [192, 0, 2, octet].into() }
}

fn route(octet: u8) -> Nlri {
    let prefix = PREFIXES[usize::from(octet & 7)].parse().expect("a prefix");
    Nlri { prefix, path_id: u32::from(octet >> 6) }
}

fn local_route(octet: u8) -> (LocalRoute, bool) {
    let key = LocalRouteKey {
        prefix: PREFIXES[usize::from(octet & 7)].parse().expect("a prefix"),
        source: if octet & 8 == 0 { LocalSource::Kernel } else { LocalSource::Connected },
        metric: u32::from(octet >> 4 & 1) * 1024,
        interface: if octet & 32 == 0 { "cali1".into() } else { "eth0".into() },
    };
    let gateway = (octet & 64 != 0).then(|| IpAddr::from([192, 0, 2, 77]));
    (LocalRoute { key, gateway }, octet & 128 != 0)
}

/// The OPEN of a peer; zero is one that agrees to everything.
fn open(peer: usize, how: u8) -> OpenMessage {
    let (_, octet, asn) = PEERS[peer];
    let families = [Family::Ipv4Unicast, Family::Ipv6Unicast].map(AfiSafi::from);
    let mut capabilities: Vec<Capability> = families.map(Capability::Multiprotocol).into();
    if how & 1 != 0 {
        capabilities.pop();
    }
    if how & 2 == 0 || asn > 0xffff {
        capabilities.push(Capability::FourOctetAs(asn));
    }
    if how & 4 == 0 {
        let v4 = AddPath { family: families[0], receive: true, send: true };
        let v6 = AddPath { family: families[1], receive: how & 32 == 0, send: how & 64 == 0 };
        capabilities.push(Capability::AddPath(vec![v4, v6]));
    }
    if how & 8 == 0 {
        capabilities.push(Capability::GracefulRestart(GracefulRestart {
            restarting: how & 64 != 0,
            notification: how & 128 == 0,
            restart_time: 60,
            families: families.map(|family| GrFamily { family, forwarding_kept: true }).into(),
        }));
        if how & 32 == 0 {
            let asked = families.map(|family| LlgrFamily { family, forwarding_kept: true, stale_time: 100 });
            capabilities.push(Capability::LongLivedGracefulRestart(asked.into()));
        }
    }
    if how & 16 == 0 {
        capabilities.extend([
            Capability::RouteRefresh,
            Capability::EnhancedRouteRefresh,
            Capability::ExtendedMessage,
        ]);
        let entry = ExtendedNextHop { family: families[0], next_hop_afi: 2 };
        capabilities.push(Capability::ExtendedNextHop(vec![entry]));
    }
    let hold_time = if how & 32 == 0 { 90 } else { 0 };
    OpenMessage { version: 4, asn, hold_time, router_id: Ipv4Addr::new(10, 0, 0, octet), capabilities }
}

fn config(options: u8) -> Config {
    let on = |bit: u8| options & bit != 0;
    let base = PeerConfig {
        families: Families { ipv4: true, ipv6: !on(1) },
        next_hop_v6: Some([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()),
        hold_time: 90,
        add_path: AddPathConfig { receive: !on(2), send: !on(4), ..AddPathConfig::default() },
        extended_next_hop: on(8),
        extended_message: on(16),
        prefix_limit: on(64).then_some(PrefixLimit {
            max: 3,
            action: if on(32) { LimitAction::Reset } else { LimitAction::Discard },
            restart: Some(Duration::from_secs(30)),
        }),
        graceful_restart: GracefulRestartConfig {
            long_lived: LongLived {
                stale_time: 50,
                keep: Duration::from_secs(80),
                partial: on(32),
                ..LongLived::default()
            },
            ..GracefulRestartConfig::default()
        },
        ..PeerConfig::default()
    };
    let peer = |at: usize| {
        let (name, _, remote_as) = PEERS[at];
        PeerConfig { name: name.into(), address: address(at), remote_as, ..base.clone() }
    };
    let mut peers = vec![peer(0), peer(1), peer(2), peer(4), peer(5), peer(6)];
    peers[0].passive = true;
    peers[1].route_reflector_client = on(32);
    peers[3].route_reflector_client = on(32);
    peers[5].route_reflector_client = on(32);
    peers[1].next_hop = if on(32) { NextHopMode::SelfAddress } else { NextHopMode::Auto };
    peers[2].allow_own_as = 1;
    peers[2].remove_private_as = on(32);
    peers[4].delay_open = on(2).then(|| Duration::from_secs(3));
    peers[0].as_override = on(8);
    if on(32) && on(4) {
        peers.remove(0);
    }
    let template = PeerConfig { name: "guest".into(), remote_as: PEERS[3].2, ..base.clone() };
    let range = "198.51.100.0/24".parse().expect("a range");
    let originated =
        |prefix: &str, target| Originated { prefix: prefix.parse().expect("a prefix"), target, metric: None };
    Config {
        local: Local { asn: OUR_AS, router_id: [10, 0, 0, 1].into(), cluster_id: None },
        peers,
        listen_ranges: vec![ListenRange { range, template, limit: 1 }],
        originated: vec![
            originated("10.1.0.0/16", OriginTarget::Blackhole),
            originated(if on(2) { "2001:db8::/32" } else { "2001:db8:1::/48" }, OriginTarget::None),
        ],
        seed: 7,
        ..Config::default()
    }
}
