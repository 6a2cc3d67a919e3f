//! Neighbours that are told nothing and note when each KEEPALIVE and BFD packet came, by the kernel's clock, so that it
//! does not matter how busy they are themselves.

use std::io::{IoSliceMut, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use bird_packet::MessageKind;
use integration::lab::Namespace;
use integration::raw::{self, Framer};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt::ReceiveTimestampns};
use socket2::{Domain, Socket, Type};

/// Between two KEEPALIVEs of the speaker.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(1);
/// Between two BFD packets of the speaker.
pub(crate) const BFD: Duration = Duration::from_millis(50);
const HOLD: u16 = 3;
/// Packets of ours that may be missing: this program has no priority of its own, and it is not what is measured.
const PATIENCE: u8 = 50;
const BFD_PORT: u16 = 3784;
const BFD_SOCKET: u64 = u64::MAX;

/// How much later than agreed each packet came.
#[derive(Clone, Default)]
pub(crate) struct Late {
    pub keepalives: Vec<Duration>,
    pub bfd: Vec<Duration>,
    /// What ended a session.
    pub lost: Vec<String>,
}

/// The neighbours, on a thread of their own.
pub(crate) struct Probes {
    late: Arc<Mutex<Late>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

/// AS of all of them.
pub(crate) const ASN: u32 = 65_100;

/// The address of one.
pub(crate) fn address(probe: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 100 + probe)
}

impl Probes {
    /// Sessions of `count` neighbours with `speaker`, begun over one keepalive interval, so that there is a packet to be
    /// late at any time. The first has a BFD session too, if `bfd`.
    pub(crate) fn start(space: &Namespace, speaker: Ipv4Addr, count: u8, bfd: bool) -> Probes {
        let (late, stop): (Arc<Mutex<Late>>, _) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (shared, ending) = (Arc::clone(&late), Arc::clone(&stop));
        let space = space.clone();
        let thread = std::thread::spawn(move || {
            space.run(move || {
                let mut work = Work::new(speaker, bfd, shared)?;
                for probe in 0..count {
                    work.call(probe)?;
                    work.run(Instant::now() + KEEPALIVE / u32::from(count), &ending)?;
                }
                while !ending.load(Ordering::Relaxed) {
                    work.run(Instant::now() + Duration::from_millis(100), &ending)?;
                }
                Ok(())
            })
        });
        Probes { late, stop, thread: Some(thread) }
    }

    /// What came since the last call.
    pub(crate) fn take(&self) -> anyhow::Result<Late> {
        let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        anyhow::ensure!(!ended, "the probes have ended");
        Ok(std::mem::take(&mut *self.late.lock().expect("invariant: no thread panics with it")))
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

struct Session {
    stream: TcpStream,
    framer: Framer,
    last: Option<SystemTime>,
    say_at: Instant,
}

struct Work {
    speaker: Ipv4Addr,
    epoll: Epoll,
    sessions: Vec<Option<Session>>,
    bfd: Option<BfdSession>,
    late: Arc<Mutex<Late>>,
}

impl Work {
    fn new(speaker: Ipv4Addr, bfd: bool, late: Arc<Mutex<Late>>) -> anyhow::Result<Work> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let bfd = bfd.then(|| BfdSession::open(address(0), speaker)).transpose()?;
        if let Some(bfd) = &bfd {
            epoll.add(bfd.socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, BFD_SOCKET))?;
        }
        Ok(Work { speaker, epoll, sessions: Vec::new(), bfd, late })
    }

    fn call(&mut self, probe: u8) -> anyhow::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((address(probe), 0)).into())?;
        socket.connect(&SocketAddr::from((self.speaker, 179)).into()).context("calling the speaker")?;
        let mut stream: TcpStream = socket.into();
        setsockopt(&stream, ReceiveTimestampns, &true)?;
        stream.set_nodelay(true)?;
        let open = raw::encoded(&raw::open_ipv4(ASN, address(probe), HOLD));
        stream.write_all(&[open, raw::keepalive()].concat())?;
        stream.set_nonblocking(true)?;
        let at = u64::try_from(self.sessions.len())?;
        self.epoll.add(stream.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, at))?;
        self.sessions.push(Some(Session {
            stream,
            framer: Framer::default(),
            last: None,
            say_at: Instant::now(),
        }));
        Ok(())
    }

    fn run(&mut self, until: Instant, ending: &AtomicBool) -> anyhow::Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        while Instant::now() < until && !ending.load(Ordering::Relaxed) {
            let count = self.epoll.wait(&mut events, 5u8)?;
            for event in &events[..count] {
                match event.data() {
                    BFD_SOCKET => self.hear_bfd()?,
                    at => self.hear(usize::try_from(at)?)?,
                }
            }
            let now = Instant::now();
            for session in self.sessions.iter_mut().flatten().filter(|s| s.say_at <= now) {
                session.say_at = now + KEEPALIVE / 2;
                let _ = session.stream.write_all(&raw::keepalive());
            }
            if let Some(bfd) = &mut self.bfd {
                bfd.say(now)?;
            }
        }
        Ok(())
    }

    fn hear(&mut self, at: usize) -> anyhow::Result<()> {
        let Some(session) = &mut self.sessions[at] else { return Ok(()) };
        let mut buffer = [0; 4096];
        let Some((len, time)) = receive(session.stream.as_raw_fd(), &mut buffer)? else { return Ok(()) };
        session.framer.feed(&buffer[..len]);
        let mut lost = (len == 0).then(|| "the speaker closed the connection".to_owned());
        while let Some(message) = session.framer.message()? {
            match message.kind {
                MessageKind::Keepalive => {
                    let late = session.last.map(|last| since(last, time).saturating_sub(KEEPALIVE));
                    session.last = Some(time);
                    let mut noted = self.late.lock().expect("invariant: no thread panics with it");
                    noted.keepalives.extend(late);
                }
                MessageKind::Notification => {
                    let said = bird_packet::Notification::decode(message.body);
                    lost = Some(format!("the speaker says {said:?}"));
                }
                _ => {}
            }
        }
        if let Some(why) = lost {
            self.late.lock().expect("invariant: no thread panics with it").lost.push(why);
            self.sessions[at] = None;
        }
        Ok(())
    }

    fn hear_bfd(&mut self) -> anyhow::Result<()> {
        let Some(bfd) = &mut self.bfd else { return Ok(()) };
        let mut buffer = [0; 256];
        let Some((len, time)) = receive(bfd.socket.as_raw_fd(), &mut buffer)? else { return Ok(()) };
        let late = bfd.take(&buffer[..len], time)?;
        self.late.lock().expect("invariant: no thread panics with it").bfd.extend(late);
        Ok(())
    }
}

fn since(earlier: SystemTime, later: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}

/// Reads once; when the kernel got it. Nothing if there is nothing.
fn receive(fd: RawFd, buffer: &mut [u8]) -> anyhow::Result<Option<(usize, SystemTime)>> {
    let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = match recvmsg::<()>(fd, &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT) {
        Err(nix::Error::EAGAIN) => return Ok(None),
        Err(nix::Error::ECONNRESET) => return Ok(Some((0, SystemTime::now()))),
        other => other?,
    };
    let mut time = SystemTime::now();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmTimestampns(stamp) = part {
            time = SystemTime::UNIX_EPOCH + Duration::from(stamp);
        }
    }
    Ok(Some((message.bytes, time)))
}

/// The least of a BFD neighbour (RFC 5880, 5881): it comes Up and stays.
struct BfdSession {
    socket: UdpSocket,
    speaker: SocketAddr,
    out: UdpSocket,
    state: u8,
    theirs: u32,
    /// Up at both ends, and the last packet heard since.
    last: Option<SystemTime>,
    say_at: Instant,
}

const DOWN: u8 = 1;
const INIT: u8 = 2;
const UP: u8 = 3;
const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;

impl BfdSession {
    fn open(own: Ipv4Addr, speaker: Ipv4Addr) -> anyhow::Result<BfdSession> {
        let socket = UdpSocket::bind((own, BFD_PORT))?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, ReceiveTimestampns, &true)?;
        let out = UdpSocket::bind((own, 49_152))?;
        out.set_ttl(255)?;
        let speaker = SocketAddr::from((speaker, BFD_PORT));
        Ok(BfdSession { socket, speaker, out, state: DOWN, theirs: 0, last: None, say_at: Instant::now() })
    }

    fn say(&mut self, now: Instant) -> anyhow::Result<()> {
        if now >= self.say_at {
            self.say_at = now + BFD * 4 / 5;
            self.send(0)?;
        }
        Ok(())
    }

    fn send(&self, flags: u8) -> anyhow::Result<()> {
        let interval = u32::try_from(BFD.as_micros())?.to_be_bytes();
        let mut packet = vec![1 << 5, self.state << 6 | flags, PATIENCE, 24];
        packet.extend_from_slice(&1u32.to_be_bytes());
        packet.extend_from_slice(&self.theirs.to_be_bytes());
        packet.extend_from_slice(&interval);
        packet.extend_from_slice(&interval);
        packet.extend_from_slice(&[0; 4]);
        // Refused while nobody listens.
        let _ = self.out.send_to(&packet, self.speaker);
        Ok(())
    }

    /// A packet of the speaker; how late it is, once both are Up.
    fn take(&mut self, packet: &[u8], time: SystemTime) -> anyhow::Result<Option<Duration>> {
        let Some(&[_, flags, _, _, a, b, c, d]) = packet.first_chunk::<8>() else { return Ok(None) };
        self.theirs = u32::from_be_bytes([a, b, c, d]);
        let theirs = flags >> 6;
        self.state = match (self.state, theirs) {
            (DOWN, DOWN) => INIT,
            (DOWN, INIT) | (INIT, INIT | UP) => UP,
            (UP, DOWN) => DOWN,
            (state, _) => state,
        };
        if flags & POLL != 0 {
            self.send(FINAL)?;
        }
        // A poll ends slow beginnings; count from the next packet on.
        if self.state != UP || theirs != UP || flags & (POLL | FINAL) != 0 {
            self.last = None;
            return Ok(None);
        }
        let late = self.last.map(|last| since(last, time).saturating_sub(BFD));
        self.last = Some(time);
        Ok(late)
    }
}
