//! Many BGP peers in one thread: each opens, sends one /26 and End-of-RIB, keeps alive, and counts what it is told.

use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bird_packet::{
    AttrBuilder, Capability, Family, GrFamily, GracefulRestart, MessageKind, Nlri, Origin, PeerKind, Prefix4,
    Routes, SessionContext, UpdatePacker, UpdateView, encode_end_of_rib,
};
use integration::lab::Namespace;
use integration::raw::{self, Framer};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use socket2::{Domain, Socket, Type};

/// AS of everybody.
pub(crate) const ASN: u32 = 64512;
const KEEPALIVE: Duration = Duration::from_secs(20);
const CALL_AGAIN: Duration = Duration::from_millis(50);
const LISTENER: u64 = u64::MAX;

/// Who calls whom.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calls {
    /// The peers wait.
    TheyAreCalled,
    /// The peers call.
    TheyCall,
    /// Both, as in a mesh.
    Both,
}

/// What the peers have seen, numbers of peers.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Seen {
    pub established: usize,
    pub end_of_rib: usize,
    pub complete: usize,
}

/// The peers, on a thread of their own.
pub(crate) struct Crowd {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

/// The address of a peer.
pub(crate) fn address(peer: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0afa_0001 + u32::try_from(peer).expect("few"))
}

impl Crowd {
    /// Starts them in `space`, which must take every [`address`] for its own. `complete`: how many prefixes a peer is to
    /// be told.
    pub(crate) fn start(
        space: &Namespace,
        peers: usize,
        speaker: SocketAddr,
        calls: Calls,
        complete: usize,
    ) -> anyhow::Result<Crowd> {
        let (seen, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (shared, ending) = (Arc::clone(&seen), Arc::clone(&stop));
        let listener = match calls {
            Calls::TheyCall => None,
            _ => Some(space.run(|| -> anyhow::Result<TcpListener> {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 179)).into())?;
                socket.listen(4096)?;
                socket.set_nonblocking(true)?;
                Ok(socket.into())
            })?),
        };
        let space = space.clone();
        let thread = std::thread::spawn(move || {
            space.run(move || {
                let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
                if let Some(listener) = &listener {
                    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
                }
                let calling = calls != Calls::TheyAreCalled;
                let mut work = Work {
                    speaker,
                    complete,
                    epoll,
                    listener,
                    conns: HashMap::new(),
                    next: 0,
                    calling,
                    call_at: (0..peers).map(|_| calling.then(Instant::now)).collect(),
                    state: vec![(false, false, 0); peers],
                    shared,
                };
                work.run(&ending)
            })
        });
        Ok(Crowd { seen, stop, thread: Some(thread) })
    }

    /// What they have seen by now.
    pub(crate) fn seen(&self) -> anyhow::Result<Seen> {
        let thread = self.thread.as_ref().context("the peers have ended")?;
        anyhow::ensure!(!thread.is_finished(), "the peers have ended");
        Ok(*self.seen.lock().expect("invariant: no thread panics with it"))
    }

    /// Ends them.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            _ => Ok(()),
        }
    }
}

struct Conn {
    peer: usize,
    stream: TcpStream,
    framer: Framer,
    connecting: bool,
    established: bool,
}

struct Work {
    speaker: SocketAddr,
    complete: usize,
    epoll: Epoll,
    listener: Option<TcpListener>,
    conns: HashMap<u64, Conn>,
    next: u64,
    calling: bool,
    /// When to call, for peers that call and have no connection of their own.
    call_at: Vec<Option<Instant>>,
    /// Of each peer: Established, End-of-RIB heard, prefixes heard.
    state: Vec<(bool, bool, usize)>,
    shared: Arc<Mutex<Seen>>,
}

impl Work {
    fn run(&mut self, ending: &AtomicBool) -> anyhow::Result<()> {
        let mut events = vec![EpollEvent::empty(); 256];
        let mut buffer = vec![0; 1 << 18];
        let mut keepalive_at = Instant::now() + KEEPALIVE;
        while !ending.load(Ordering::Relaxed) {
            let count = self.epoll.wait(&mut events, 10u8)?;
            for event in &events[..count] {
                match event.data() {
                    LISTENER => self.accept()?,
                    id => self.ready(id, event.events(), &mut buffer)?,
                }
            }
            self.call()?;
            if Instant::now() >= keepalive_at {
                keepalive_at = Instant::now() + KEEPALIVE;
                let bytes = raw::keepalive();
                for conn in self.conns.values_mut().filter(|c| c.established) {
                    let _ = conn.stream.write_all(&bytes);
                }
            }
            let seen = Seen {
                established: self.state.iter().filter(|s| s.0).count(),
                end_of_rib: self.state.iter().filter(|s| s.1).count(),
                complete: self.state.iter().filter(|s| s.2 >= self.complete).count(),
            };
            *self.shared.lock().expect("invariant: no thread panics with it") = seen;
        }
        Ok(())
    }

    fn accept(&mut self) -> anyhow::Result<()> {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        while let Ok((stream, _)) = listener.accept() {
            let IpAddr::V4(own) = stream.local_addr()?.ip() else { continue };
            let peer = usize::try_from(own.to_bits() - address(0).to_bits())?;
            self.begin(peer, stream, false)?;
        }
        self.listener = Some(listener);
        Ok(())
    }

    fn call(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        for peer in 0..self.call_at.len() {
            if self.call_at[peer].is_none_or(|at| at > now) {
                continue;
            }
            self.call_at[peer] = None;
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddr::from((address(peer), 0)).into())?;
            socket.set_nonblocking(true)?;
            // Refused at once or later: the socket says so.
            let _ = socket.connect(&self.speaker.into());
            self.begin(peer, socket.into(), true)?;
        }
        Ok(())
    }

    fn begin(&mut self, peer: usize, stream: TcpStream, connecting: bool) -> anyhow::Result<()> {
        stream.set_nonblocking(true)?;
        self.next += 1;
        let flags = if connecting { EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
        self.epoll.add(stream.as_fd(), EpollEvent::new(flags, self.next))?;
        let mut conn = Conn { peer, stream, framer: Framer::default(), connecting, established: false };
        if !connecting {
            open(&mut conn)?;
        }
        self.conns.insert(self.next, conn);
        Ok(())
    }

    fn ready(&mut self, id: u64, what: EpollFlags, buffer: &mut [u8]) -> anyhow::Result<()> {
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        if conn.connecting {
            if what.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) {
                self.end(id);
                return Ok(());
            }
            conn.connecting = false;
            let mut event = EpollEvent::new(EpollFlags::EPOLLIN, id);
            self.epoll.modify(conn.stream.as_fd(), &mut event)?;
            if open(conn).is_err() {
                self.end(id);
            }
            return Ok(());
        }
        match conn.stream.read(buffer) {
            Ok(0) => self.end(id),
            Ok(len) => {
                let state = &mut self.state[conn.peer];
                if hear(conn, state, &buffer[..len]).is_err() {
                    self.end(id);
                }
            }
            Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.end(id),
        }
        Ok(())
    }

    fn end(&mut self, id: u64) {
        let Some(conn) = self.conns.remove(&id) else { return };
        let _ = self.epoll.delete(conn.stream.as_fd());
        if conn.established {
            self.state[conn.peer] = (false, false, 0);
        }
        // Who is called only, waits; who calls, calls again unless there is another connection.
        let other = self.conns.values().any(|c| c.peer == conn.peer);
        if !other && self.calling {
            self.call_at[conn.peer] = Some(Instant::now() + CALL_AGAIN);
        }
    }
}

fn open(conn: &mut Conn) -> std::io::Result<()> {
    let mut open = raw::open_ipv4(ASN, address(conn.peer), 90);
    let families = vec![GrFamily { family: Family::Ipv4Unicast.into(), forwarding_kept: true }];
    open.capabilities.extend([
        Capability::RouteRefresh,
        Capability::GracefulRestart(GracefulRestart {
            restart_time: 120,
            families,
            ..GracefulRestart::default()
        }),
    ]);
    conn.stream.write_all(&raw::encoded(&open))
}

/// Takes messages; an error ends the connection.
fn hear(conn: &mut Conn, state: &mut (bool, bool, usize), data: &[u8]) -> anyhow::Result<()> {
    conn.framer.feed(data);
    let context = SessionContext::new(PeerKind::Internal);
    while let Some(message) = conn.framer.message()? {
        match message.kind {
            MessageKind::Open => conn.stream.write_all(&raw::keepalive())?,
            MessageKind::Keepalive if !conn.established => {
                conn.established = true;
                *state = (true, false, 0);
                conn.stream.write_all(&routes(conn.peer)?)?;
            }
            MessageKind::Update => {
                let update = UpdateView::parse(message.body, &context).map_err(|n| anyhow::anyhow!("{n}"))?;
                state.1 |= update.end_of_rib().is_some();
                for announcement in update.announcements() {
                    if let Routes::V4(routes) = announcement.routes {
                        state.2 += routes.count();
                    }
                }
            }
            MessageKind::Notification => anyhow::bail!("a NOTIFICATION"),
            _ => {}
        }
    }
    Ok(())
}

/// The /26 of a peer, and End-of-RIB.
fn routes(peer: usize) -> anyhow::Result<Vec<u8>> {
    let mut attributes = Vec::new();
    AttrBuilder::new().origin(Origin::Igp).as_path(&[]).local_pref(Some(100)).write(&mut attributes)?;
    let net = Ipv4Addr::from_bits(0x0a80_0000 + u32::try_from(peer)? * 64);
    let prefix = Nlri::plain(Prefix4::new(net, 26).context("a block")?);
    let mut out = Vec::new();
    UpdatePacker::new().announce(
        &SessionContext::new(PeerKind::Internal),
        Family::Ipv4Unicast,
        &attributes,
        address(peer).into(),
        std::iter::once(prefix),
        &mut out,
    )?;
    encode_end_of_rib(Family::Ipv4Unicast, &mut out);
    Ok(out)
}
