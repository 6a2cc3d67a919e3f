//! One speaker, and peers in raw bytes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bird_packet::{
    AttrBuilder, Capability, Family, GrFamily, GracefulRestart, MAX_LEN_EXTENDED, MessageKind, Nlri,
    Notification, OpenMessage, Origin, PeerKind, Prefix4, SessionContext, UpdatePacker, encode_keepalive,
    frame,
};
use bird_speaker::config::{Config, KernelRules, Local, PeerConfig};
use bird_speaker::fsm::State;
use bird_speaker::io::{ConnId, Dial};
use bird_speaker::view::{PathView, RouteFilter};
use bird_speaker::{Event, FibRoute, Input, Output, Speaker, Start, Time};
use ipnet::IpNet;

use super::secs;

pub const OUR_AS: u32 = 65000;
pub const PEER_AS: u32 = 65001;

pub fn us() -> IpAddr {
    Ipv4Addr::new(192, 0, 2, 1).into()
}

pub fn them(n: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, 10 + n).into()
}

/// A passive eBGP peer `p{n}`.
pub fn passive(n: u8) -> PeerConfig {
    PeerConfig {
        name: format!("p{n}"),
        address: them(n),
        remote_as: PEER_AS,
        passive: true,
        hold_time: 90,
        ..PeerConfig::default()
    }
}

pub fn router(peers: Vec<PeerConfig>) -> Config {
    Config {
        local: Local { asn: OUR_AS, router_id: Ipv4Addr::new(192, 0, 2, 1), cluster_id: None },
        peers,
        kernel: KernelRules { resolve_next_hops: false, ..KernelRules::default() },
        ..Config::default()
    }
}

/// An OPEN as such a peer sends it.
pub fn open(n: u8) -> OpenMessage {
    OpenMessage {
        version: 4,
        asn: PEER_AS,
        hold_time: 90,
        router_id: Ipv4Addr::new(192, 0, 2, 10 + n),
        capabilities: vec![
            Capability::Multiprotocol(Family::Ipv4Unicast.into()),
            Capability::RouteRefresh,
            Capability::FourOctetAs(PEER_AS),
        ],
    }
}

/// The same with graceful restart.
pub fn graceful_open(n: u8, restarting: bool, forwarding_kept: bool) -> OpenMessage {
    let mut open = open(n);
    open.capabilities.push(Capability::GracefulRestart(GracefulRestart {
        restarting,
        notification: true,
        restart_time: 30,
        families: vec![GrFamily { family: Family::Ipv4Unicast.into(), forwarding_kept }],
    }));
    open
}

pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff; 16];
    bytes.extend_from_slice(&u16::try_from(body.len() + 19).unwrap().to_be_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(body);
    bytes
}

pub fn keepalive() -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_keepalive(&mut bytes);
    bytes
}

/// An UPDATE with these attributes, which may be any bytes, and IPv4 prefixes.
pub fn update(attrs: &[u8], withdrawn: &[&str], prefixes: &[&str]) -> Vec<u8> {
    let nlri = |list: &[&str]| -> Vec<u8> {
        list.iter()
            .flat_map(|text| {
                let net: ipnet::Ipv4Net = text.parse().unwrap();
                let octets = net.addr().octets();
                let used = usize::from(net.prefix_len().div_ceil(8));
                std::iter::once(net.prefix_len()).chain(octets.into_iter().take(used)).collect::<Vec<u8>>()
            })
            .collect()
    };
    let gone = nlri(withdrawn);
    let mut body = u16::try_from(gone.len()).unwrap().to_be_bytes().to_vec();
    body.extend(gone);
    body.extend(u16::try_from(attrs.len()).unwrap().to_be_bytes());
    body.extend_from_slice(attrs);
    body.extend(nlri(prefixes));
    message(2, &body)
}

pub fn end_of_rib() -> Vec<u8> {
    message(2, &[0, 0, 0, 0])
}

/// Good attributes of a peer: ORIGIN, AS_PATH, NEXT_HOP.
pub fn attrs(n: u8) -> Vec<u8> {
    let IpAddr::V4(next_hop) = them(n) else { unreachable!() };
    let mut bytes = vec![0x40, 1, 1, 0, 0x40, 2, 6, 2, 1];
    bytes.extend(PEER_AS.to_be_bytes());
    bytes.extend([0x40, 3, 4]);
    bytes.extend(next_hop.octets());
    bytes
}

/// Many routes at once, packed as a real speaker packs them.
pub fn routes(n: u8, from: u32, count: u32) -> Vec<u8> {
    let mut builder = AttrBuilder::new();
    builder.origin(Origin::Igp).as_path(&[PEER_AS]);
    let mut attrs = Vec::new();
    builder.write(&mut attrs).unwrap();
    let nlri = (from..from + count).map(|i| {
        let prefix = Prefix4::new(Ipv4Addr::from_bits(0x0b00_0000 + (i << 8)), 24).unwrap();
        Nlri { prefix, path_id: 0 }
    });
    let ctx = SessionContext::new(PeerKind::External);
    let mut out = Vec::new();
    UpdatePacker::new().announce(&ctx, Family::Ipv4Unicast, &attrs, them(n).into(), nlri, &mut out).unwrap();
    out
}

pub fn withdrawals(from: u32, count: u32) -> Vec<u8> {
    let nlri = (from..from + count).map(|i| {
        let prefix = Prefix4::new(Ipv4Addr::from_bits(0x0b00_0000 + (i << 8)), 24).unwrap();
        Nlri { prefix, path_id: 0 }
    });
    let mut out = Vec::new();
    UpdatePacker::new()
        .withdraw(&SessionContext::new(PeerKind::External), Family::Ipv4Unicast, nlri, &mut out)
        .unwrap();
    out
}

/// A speaker and what came out of it.
pub struct Wire {
    pub speaker: Speaker,
    pub now: Time,
    pub events: Vec<Event>,
    pub dials: Vec<Dial>,
    pub closed: Vec<ConnId>,
    /// Messages sent, by connection.
    pub sent: BTreeMap<ConnId, Vec<(MessageKind, Vec<u8>)>>,
    pub fib: BTreeMap<IpNet, FibRoute>,
    pub fib_writes: usize,
    /// Nothing is read from these.
    pub deaf: Vec<ConnId>,
    /// The kernel is busy: nothing is written.
    pub kernel_busy: bool,
    tails: BTreeMap<ConnId, Vec<u8>>,
}

impl Wire {
    pub fn new(config: Config) -> Wire {
        Wire::started(config, Start::default())
    }

    pub fn started(config: Config, start: Start) -> Wire {
        let now = secs(1);
        let mut wire = Wire {
            speaker: Speaker::new(now, config, start),
            now,
            events: Vec::new(),
            dials: Vec::new(),
            closed: Vec::new(),
            sent: BTreeMap::new(),
            fib: BTreeMap::new(),
            fib_writes: 0,
            deaf: Vec::new(),
            kernel_busy: false,
            tails: BTreeMap::new(),
        };
        wire.settle();
        wire
    }

    /// A call from an address.
    pub fn call(&mut self, from: IpAddr) -> Result<ConnId, &'static str> {
        let answer = self.speaker.accept(self.now, SocketAddr::new(from, 50_000), SocketAddr::new(us(), 179));
        self.settle();
        answer
    }

    pub fn feed(&mut self, conn: ConnId, data: &[u8]) {
        self.speaker.handle(self.now, Input::Received { conn, data });
        self.settle();
    }

    pub fn input(&mut self, input: Input<'_>) {
        self.speaker.handle(self.now, input);
        self.settle();
    }

    pub fn close(&mut self, conn: ConnId) {
        self.input(Input::Closed { conn, reason: "gone".into() });
    }

    /// A session of `p{n}` with this OPEN.
    pub fn session(&mut self, n: u8, open: &OpenMessage) -> ConnId {
        let conn = self.call(them(n)).unwrap();
        let mut bytes = Vec::new();
        open.encode(&mut bytes);
        bytes.extend(keepalive());
        self.feed(conn, &bytes);
        assert_eq!(self.state(n), State::Established, "p{n}: {:?}", self.events);
        conn
    }

    pub fn state(&self, n: u8) -> State {
        self.speaker.peer_state(&format!("p{n}")).unwrap()
    }

    /// Lets time pass, with a KEEPALIVE each second from those in `alive`.
    pub fn pass(&mut self, time: Time, alive: &[ConnId]) {
        let end = self.now + time;
        let mut beat = self.now + secs(1);
        while self.now < end {
            let next = self.speaker.next_timeout().unwrap_or(end).max(self.now);
            self.now = next.min(beat).min(end);
            if self.now == beat {
                beat += secs(1);
                for conn in alive {
                    self.speaker.handle(self.now, Input::Received { conn: *conn, data: &keepalive() });
                }
            }
            self.input(Input::Tick);
        }
    }

    /// Lets everything come out, work that is done in slices included.
    pub fn settle(&mut self) {
        self.carry_out();
        while self.speaker.is_busy() {
            self.speaker.handle(self.now, Input::Tick);
            self.carry_out();
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.speaker.poll() {
            match output {
                Output::Transmit(conn) | Output::Close(conn) => {
                    if matches!(output, Output::Close(_)) {
                        self.closed.push(conn);
                    } else if self.deaf.contains(&conn) {
                        continue;
                    }
                    self.take(conn);
                }
                Output::Fib if !self.kernel_busy => self.kernel(),
                Output::Event(event) => self.events.push(event),
                Output::Connect(dial) => self.dials.push(dial),
                _ => {}
            }
        }
    }

    /// Writes to the kernel what there is.
    pub fn kernel(&mut self) {
        loop {
            let changes = self.speaker.take_fib(1000);
            if changes.is_empty() {
                return;
            }
            for change in changes {
                self.fib_writes += 1;
                match change.new {
                    Some(route) => self.fib.insert(change.prefix, (*route).clone()),
                    None => self.fib.remove(&change.prefix),
                };
            }
        }
    }

    /// Reads what a connection has.
    pub fn take(&mut self, conn: ConnId) -> usize {
        let mut total = 0;
        loop {
            let mut chunks = Vec::new();
            let count = self.speaker.transmit(self.now, conn, 1 << 16, &mut chunks);
            if count == 0 {
                return total;
            }
            total += count;
            let tail = self.tails.entry(conn).or_default();
            tail.extend(chunks.concat());
            let mut rest = &tail[..];
            while let Some(message) = frame(rest, MAX_LEN_EXTENDED).unwrap() {
                self.sent.entry(conn).or_default().push((message.kind, message.body.to_vec()));
                rest = &rest[message.len..];
            }
            *tail = rest.to_vec();
        }
    }

    /// The NOTIFICATION sent on a connection.
    pub fn notification(&self, conn: ConnId) -> Option<Notification> {
        let sent = self.sent.get(&conn)?;
        let (_, body) = sent.iter().find(|(kind, _)| *kind == MessageKind::Notification)?;
        Notification::decode(body).ok()
    }

    /// Code and subcode of it.
    pub fn code(&self, conn: ConnId) -> Option<(u8, u8)> {
        self.notification(conn).map(|n| n.inner().map_or((n.code, n.subcode), |i| (i.code, i.subcode)))
    }

    pub fn is_closed(&self, conn: ConnId) -> bool {
        self.closed.contains(&conn)
    }

    /// What a peer told, best or not.
    pub fn heard(&self, n: u8) -> Vec<PathView> {
        let name = format!("p{n}");
        self.speaker.routes(&RouteFilter { peer: Some(&name), ..RouteFilter::default() })
    }
}
