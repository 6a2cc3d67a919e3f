//! A BGP peer that says exactly the octets it is given, and one that only listens.
//!
//! [`RawPeer`] is a TCP connection: it opens, sends what a test wants sent, well-formed or not, and tells what it hears.
//! [`Witness`] is a peer on a thread of its own that keeps the table of what it was told: what a speaker makes of
//! somebody's UPDATE is what it tells others.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bird_packet::{
    AddPath, AfiSafi, Capability, ExtendedNextHop, Family, Frame, HEADER_LEN, MAX_LEN_EXTENDED, MessageKind,
    Notification, OpenMessage, PeerKind, SessionContext, UpdateView, encode_keepalive, frame,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::lab::Namespace;

/// How long a handshake may take on a busy machine.
const HANDSHAKE: Duration = Duration::from_secs(15);

/// A message that was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// OPEN.
    Open(OpenMessage),
    /// KEEPALIVE.
    Keepalive,
    /// Body of an UPDATE.
    Update(Vec<u8>),
    /// NOTIFICATION.
    Notification(Notification),
    /// Body of a ROUTE-REFRESH.
    Refresh(Vec<u8>),
    /// The other side closed the connection, or it was reset.
    Closed,
}

/// An OPEN with the usual capabilities: both families, 4-octet AS numbers, route refresh. Hold time 0: no clock runs.
pub fn open(asn: u32, router_id: Ipv4Addr) -> OpenMessage {
    OpenMessage {
        version: 4,
        asn,
        hold_time: 0,
        router_id,
        capabilities: vec![
            Capability::Multiprotocol(Family::Ipv4Unicast.into()),
            Capability::Multiprotocol(Family::Ipv6Unicast.into()),
            Capability::RouteRefresh,
            Capability::FourOctetAs(asn),
        ],
    }
}

/// An OPEN of who speaks IPv4 only.
pub fn open_ipv4(asn: u32, router_id: Ipv4Addr, hold_time: u16) -> OpenMessage {
    let capabilities =
        vec![Capability::Multiprotocol(Family::Ipv4Unicast.into()), Capability::FourOctetAs(asn)];
    OpenMessage { hold_time, capabilities, ..open(asn, router_id) }
}

/// An OPEN as it is sent.
pub fn encoded(open: &OpenMessage) -> Vec<u8> {
    let mut bytes = Vec::new();
    open.encode(&mut bytes);
    bytes
}

/// A KEEPALIVE as it is sent.
pub fn keepalive() -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_keepalive(&mut bytes);
    bytes
}

/// The messages of a stream, in whatever pieces it comes.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    taken: usize,
}

impl Framer {
    /// More of the stream.
    pub fn feed(&mut self, piece: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(piece);
    }

    /// The next message, if it is whole.
    pub fn message(&mut self) -> anyhow::Result<Option<Frame<'_>>> {
        let found =
            frame(&self.buffer[self.taken..], MAX_LEN_EXTENDED).context("raw: a bad header was heard")?;
        self.taken += found.as_ref().map_or(0, |message| message.len);
        Ok(found)
    }
}

/// The capability of IPv6 next hops for IPv4 routes.
pub fn extended_next_hop() -> Capability {
    let family = AfiSafi::from(Family::Ipv4Unicast);
    Capability::ExtendedNextHop(vec![ExtendedNextHop { family, next_hop_afi: 2 }])
}

/// The capability of sending several paths, both families.
pub fn sends_paths() -> Capability {
    let entry = |family: Family| AddPath { family: family.into(), receive: false, send: true };
    Capability::AddPath(Family::ALL.map(entry).to_vec())
}

/// A whole message with this body.
pub fn message(kind: MessageKind, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff; HEADER_LEN];
    let length = u16::try_from(HEADER_LEN + body.len()).unwrap_or(u16::MAX);
    bytes[16..18].copy_from_slice(&length.to_be_bytes());
    bytes[18] = kind.code();
    bytes.extend_from_slice(body);
    bytes
}

/// An UPDATE that announces IPv4 prefixes: `attrs` as given, NLRI as given.
pub fn update(attrs: &[u8], nlri: &[u8]) -> Vec<u8> {
    message(MessageKind::Update, &update_body(&[], attrs, nlri))
}

/// An UPDATE that withdraws IPv4 prefixes.
pub fn withdraw(nlri: &[u8]) -> Vec<u8> {
    message(MessageKind::Update, &update_body(nlri, &[], &[]))
}

fn update_body(withdrawn: &[u8], attrs: &[u8], nlri: &[u8]) -> Vec<u8> {
    let length = |part: &[u8]| u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&length(withdrawn), withdrawn, &length(attrs), attrs, nlri].concat()
}

/// Attributes of a plain route: ORIGIN IGP, this AS_PATH (4 octets a number), this NEXT_HOP.
pub fn attributes(path: &[u32], next_hop: Ipv4Addr) -> Vec<u8> {
    let mut attrs = vec![0x40, 1, 1, 0];
    let segments = path.chunks(255);
    let length = u16::try_from(2 * segments.len() + 4 * path.len()).expect("invariant: a path of a test");
    attrs.extend([0x50, 2]);
    attrs.extend(length.to_be_bytes());
    for segment in segments {
        attrs.extend([2, u8::try_from(segment.len()).expect("invariant: chunks of 255")]);
        attrs.extend(segment.iter().flat_map(|asn| asn.to_be_bytes()));
    }
    attrs.extend([0x40, 3, 4]);
    attrs.extend(next_hop.octets());
    attrs
}

/// `10.1.2.0/24` as NLRI.
pub fn nlri(prefix: &str) -> Vec<u8> {
    let net: ipnet::Ipv4Net = prefix.parse().expect("invariant: a test writes prefixes");
    let octets = net.addr().octets();
    let mut bytes = vec![net.prefix_len()];
    bytes.extend(&octets[..usize::from(net.prefix_len().div_ceil(8))]);
    bytes
}

/// One connection.
#[derive(Debug)]
pub struct RawPeer {
    stream: TcpStream,
    framer: Framer,
    chunk: Box<[u8]>,
}

impl RawPeer {
    /// Calls `to` from `from`. Only TCP; nothing is said.
    pub fn call(space: &Namespace, from: IpAddr, to: SocketAddr) -> anyhow::Result<Self> {
        Self::call_with(space, from, to, HANDSHAKE, |_| Ok(()))
    }

    /// The same with options on the socket first, given up after `limit`.
    pub fn call_with(
        space: &Namespace,
        from: IpAddr,
        to: SocketAddr,
        limit: Duration,
        set: impl FnOnce(&Socket) -> io::Result<()> + Send + 'static,
    ) -> anyhow::Result<Self> {
        Self::over(dial(space, from, to, limit, set)?)
    }

    /// Over a connection that exists.
    pub fn over(stream: TcpStream) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, framer: Framer::default(), chunk: vec![0; 64 * 1024].into() })
    }

    /// Calls until somebody answers and both have said OPEN and KEEPALIVE.
    pub fn establish(
        space: &Namespace,
        from: IpAddr,
        to: SocketAddr,
        open: &OpenMessage,
    ) -> anyhow::Result<Self> {
        let deadline = Instant::now() + HANDSHAKE;
        loop {
            let outcome = Self::call(space, from, to).and_then(|mut peer| {
                peer.greet(open)?;
                Ok(peer)
            });
            match outcome {
                Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
                other => return other,
            }
        }
    }

    /// Says OPEN and KEEPALIVE, waits for the same. Returns the other side's OPEN.
    pub fn greet(&mut self, open: &OpenMessage) -> anyhow::Result<OpenMessage> {
        self.send(&encoded(open))?;
        let theirs = match self.hear(HANDSHAKE)? {
            Some(Heard::Open(theirs)) => theirs,
            other => bail!("raw: {other:?} instead of an OPEN"),
        };
        self.keepalive()?;
        match self.hear(HANDSHAKE)? {
            Some(Heard::Keepalive) => Ok(theirs),
            other => bail!("raw: {other:?} instead of a KEEPALIVE"),
        }
    }

    /// Sends octets as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a KEEPALIVE.
    pub fn keepalive(&mut self) -> io::Result<()> {
        self.send(&keepalive())
    }

    /// The next message within `limit`; none if nothing came.
    pub fn hear(&mut self, limit: Duration) -> anyhow::Result<Option<Heard>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(heard) = self.take()? {
                return Ok(Some(heard));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut self.chunk) {
                Ok(0) => return Ok(Some(Heard::Closed)),
                Ok(n) => self.framer.feed(&self.chunk[..n]),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Ok(Some(Heard::Closed)),
            }
        }
    }

    /// Waits for the NOTIFICATION or the end; other messages are passed over. None if the session lives on.
    pub fn ending(&mut self, limit: Duration) -> anyhow::Result<Option<Heard>> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.hear(left)? {
                None => return Ok(None),
                Some(end @ (Heard::Notification(_) | Heard::Closed)) => return Ok(Some(end)),
                Some(_) => {}
            }
        }
    }

    /// The socket, for its options and its queues.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn take(&mut self) -> anyhow::Result<Option<Heard>> {
        let Some(message) = self.framer.message()? else { return Ok(None) };
        Ok(Some(match message.kind {
            MessageKind::Open => Heard::Open(OpenMessage::decode(message.body).context("raw: a bad OPEN")?),
            MessageKind::Keepalive => Heard::Keepalive,
            MessageKind::Update => Heard::Update(message.body.to_vec()),
            MessageKind::Notification => Heard::Notification(Notification::decode(message.body)?),
            MessageKind::RouteRefresh => Heard::Refresh(message.body.to_vec()),
        }))
    }
}

/// Calls `to` from `from`, with options on the socket first; given up after `limit`.
pub fn dial(
    space: &Namespace,
    from: IpAddr,
    to: SocketAddr,
    limit: Duration,
    set: impl FnOnce(&Socket) -> io::Result<()> + Send + 'static,
) -> anyhow::Result<TcpStream> {
    let stream = space.run(move || -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        set(&socket)?;
        socket.bind(&SockAddr::from(SocketAddr::new(from, 0)))?;
        socket.connect_timeout(&SockAddr::from(to), limit)?;
        Ok(socket.into())
    });
    stream.with_context(|| format!("raw: call from {from} to {to}"))
}

/// One listener for the other side to call.
pub fn listen(space: &Namespace, at: SocketAddr) -> anyhow::Result<TcpListener> {
    space.run(move || TcpListener::bind(at)).with_context(|| format!("raw: listen at {at}"))
}

/// What a [`Witness`] was told.
#[derive(Debug, Default)]
pub struct Table {
    /// Prefix, then the attributes that came with it, as they came.
    pub routes: BTreeMap<String, Arc<[u8]>>,
    /// UPDATE messages.
    pub updates: u64,
    /// Withdrawals heard, by prefix.
    pub withdrawals: BTreeMap<String, u64>,
    /// Longest message, header included.
    pub longest: usize,
    /// Longest time between two messages.
    pub longest_gap: Duration,
    /// How the session ended, if it did.
    pub ended: Option<Heard>,
}

impl Table {
    /// The value of attribute `code` of the route to `prefix`, if both are there.
    pub fn attribute(&self, prefix: &str, code: u8) -> Option<Vec<u8>> {
        let set = self.routes.get(prefix)?;
        walk(set).find(|(found, _)| *found == code).map(|(_, value)| value.to_vec())
    }
}

/// Types and values of path attributes, as far as their lengths are right.
pub fn walk(mut attrs: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (flags, code) = (*attrs.first()?, *attrs.get(1)?);
        let (length, head) = match flags & 0x10 {
            0 => (usize::from(*attrs.get(2)?), 3),
            _ => (usize::from(u16::from_be_bytes([*attrs.get(2)?, *attrs.get(3)?])), 4),
        };
        let value = attrs.get(head..head + length)?;
        attrs = &attrs[head + length..];
        Some((code, value))
    })
}

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    more: Condvar,
    stop: AtomicBool,
}

/// A peer that only listens, on a thread of its own; ends when dropped.
#[derive(Debug)]
pub struct Witness {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

impl Witness {
    /// Listens on an established session. `internal`: the session is iBGP. It sends a KEEPALIVE each `keepalive`.
    pub fn start(peer: RawPeer, internal: bool, keepalive: Option<Duration>) -> Self {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let kind = if internal { PeerKind::Internal } else { PeerKind::External };
        let reader = thread::spawn(move || listen_on(peer, kind, keepalive, &theirs));
        Self { shared, reader: Some(reader) }
    }

    /// The table as it is now.
    pub fn table(&self) -> MutexGuard<'_, Table> {
        self.shared.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `check` is content with the table; its last complaint is the error.
    pub fn wait<T>(
        &self,
        limit: Duration,
        mut check: impl FnMut(&Table) -> Result<T, String>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + limit;
        let mut table = self.table();
        loop {
            let why = match check(&table) {
                Ok(value) => return Ok(value),
                Err(why) => why,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "the witness was not told so within {limit:?}: {why}");
            table = self.shared.more.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn listen_on(mut peer: RawPeer, kind: PeerKind, keepalive: Option<Duration>, shared: &Shared) {
    let mut ctx = SessionContext::new(kind);
    ctx.max_len = MAX_LEN_EXTENDED;
    ctx.family_mut(Family::Ipv4Unicast).ext_nexthop = true;
    ctx.family_mut(Family::Ipv6Unicast).enabled = true;
    let (mut said, mut last) = (Instant::now(), Instant::now());
    while !shared.stop.load(Ordering::SeqCst) {
        if keepalive.is_some_and(|interval| said.elapsed() >= interval) {
            said = Instant::now();
            let _ = peer.keepalive();
        }
        let Some(heard) = peer.hear(Duration::from_millis(50)).unwrap_or(Some(Heard::Closed)) else {
            continue;
        };
        let mut table = shared.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.longest_gap = table.longest_gap.max(last.elapsed());
        last = Instant::now();
        match heard {
            Heard::Update(body) => table.take(&body, &ctx),
            end @ (Heard::Notification(_) | Heard::Closed) => {
                table.ended.get_or_insert(end);
                drop(table);
                shared.more.notify_all();
                return;
            }
            _ => {}
        }
        drop(table);
        shared.more.notify_all();
    }
}

impl Table {
    fn take(&mut self, body: &[u8], ctx: &SessionContext) {
        self.updates += 1;
        self.longest = self.longest.max(body.len() + HEADER_LEN);
        // A speaker that tells nonsense ends the test where it is noticed: the route never comes.
        let Ok(update) = UpdateView::parse(body, ctx) else { return };
        for withdrawn in update.withdrawals().flat_map(|w| w.routes) {
            let prefix = withdrawn.prefix.to_string();
            self.routes.remove(&prefix);
            *self.withdrawals.entry(prefix).or_default() += 1;
        }
        let attrs: Arc<[u8]> = update.attributes().raw().into();
        for announced in update.announcements().flat_map(|a| a.routes) {
            self.routes.insert(announced.prefix.to_string(), Arc::clone(&attrs));
        }
    }
}
