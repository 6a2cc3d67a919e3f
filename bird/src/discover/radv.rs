//! The thread that speaks and hears router advertisements: a raw ICMPv6 socket for each link, nothing else.
//!
//! What arrives is looked at in the kernel first (only solicitations and advertisements, only with hop limit 255), and of
//! the rest only so much in a time: a storm fills a small buffer of the kernel and costs nothing more.

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut, PipeReader, PipeWriter, Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrIn6, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::link::{Link, Send};
use super::packet::{self, Message};

/// `ff02::1`, everybody on the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// `ff02::2`, every router on the link.
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// What a packet must arrive with: nobody further away can send it (RFC 4861 §6.1).
const HOP_LIMIT: i32 = 255;
/// So many packets of a link are looked at in a [`PERIOD`].
const BUDGET: u32 = 16;
const PERIOD: Duration = Duration::from_millis(200);
/// Room for what waits meanwhile.
const RECEIVE_BUFFER: usize = 16 * 1024;
/// A socket that could not be opened, or a packet that could not be sent, is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
/// An interface's IPv6 address is being checked for duplicates for a second or two after it came up: that is no trouble.
const SETTLING: Duration = Duration::from_secs(4);
/// Longer than any option that matters; the rest of a packet is not needed, but its length is.
const LONGEST: usize = 1500;

/// A link on which a neighbour is sought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) index: u32,
    /// The neighbour with which there is a session.
    pub(super) session: Option<Ipv6Addr>,
}

/// What is known of a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) index: u32,
    pub(super) neighbour: Option<Ipv6Addr>,
    /// Its last advertisement.
    pub(super) at: Option<Instant>,
    /// Another router, which is not taken.
    pub(super) other: Option<Ipv6Addr>,
    /// What keeps advertisements from being sent or heard.
    pub(super) problem: Option<String>,
}

/// What both sides write on.
#[derive(Debug, Default)]
struct Board {
    wanted: Mutex<BTreeMap<String, Wanted>>,
    heard: Mutex<BTreeMap<String, Heard>>,
    /// Somebody is other than before, or some trouble is.
    news: AtomicBool,
    /// The thread is not wanted any more.
    over: AtomicBool,
    /// The thread runs no more.
    ended: AtomicBool,
}

/// Tells the loop that the thread ended, however it did.
struct LastWord(Arc<Board>, Arc<mio::Waker>);

impl Drop for LastWord {
    fn drop(&mut self) {
        let Self(board, bell) = self;
        board.ended.store(true, Ordering::Release);
        board.news.store(true, Ordering::Release);
        let _ = bell.wake();
    }
}

/// The running thread. It ends with this handle.
#[derive(Debug)]
pub(super) struct Radv {
    board: Arc<Board>,
    wake: PipeWriter,
}

impl Radv {
    /// Starts the thread in the caller's network namespace. `bell` rings when there is news.
    pub(super) fn start(bell: Arc<mio::Waker>) -> anyhow::Result<Self> {
        let (woken, wake) = io::pipe().context("pipe")?;
        let board = Arc::new(Board::default());
        let thread = Thread { board: Arc::clone(&board), woken, bell, links: BTreeMap::new() };
        std::thread::Builder::new()
            .name("bird-radv".into())
            .spawn(move || {
                let _last_word = LastWord(Arc::clone(&thread.board), Arc::clone(&thread.bell));
                thread.run();
            })
            .context("thread of the router advertisements")?;
        Ok(Self { board, wake })
    }

    /// From now on these links and no others.
    pub(super) fn follow(&mut self, wanted: BTreeMap<String, Wanted>) {
        *lock(&self.board.wanted) = wanted;
        self.ring();
    }

    /// Whether something changed since this was asked last.
    pub(super) fn has_news(&self) -> bool {
        self.board.news.swap(false, Ordering::AcqRel)
    }

    /// What is known, by interface.
    pub(super) fn heard(&self) -> BTreeMap<String, Heard> {
        lock(&self.board.heard).clone()
    }

    /// Whether the thread still runs.
    pub(super) fn is_running(&self) -> bool {
        !self.board.ended.load(Ordering::Acquire)
    }

    fn ring(&mut self) {
        // A thread that has ended does not listen any more.
        let _ = self.wake.write_all(&[0]);
    }
}

impl Drop for Radv {
    fn drop(&mut self) {
        self.board.over.store(true, Ordering::Release);
        self.ring();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Thread {
    board: Arc<Board>,
    woken: PipeReader,
    bell: Arc<mio::Waker>,
    links: BTreeMap<String, Port>,
}

/// A link with its socket.
struct Port {
    name: String,
    index: u32,
    link: Link,
    socket: Option<Socket>,
    open_at: Instant,
    /// Looked at since `period`.
    taken: u32,
    period: Instant,
    since: Instant,
    problem: Option<String>,
}

impl Thread {
    fn run(mut self) {
        while !self.board.over.load(Ordering::Acquire) {
            let now = Instant::now();
            self.obey(now);
            for port in self.links.values_mut() {
                port.turn(now);
            }
            self.publish();
            self.sleep();
        }
    }

    /// Takes up links that are new or new again, lets go of those that are not wanted.
    fn obey(&mut self, now: Instant) {
        let wanted = lock(&self.board.wanted).clone();
        self.links.retain(|name, port| wanted.get(name).is_some_and(|w| w.index == port.index));
        for (name, wanted) in wanted {
            let port =
                self.links.entry(name).or_insert_with_key(|name| Port::new(name.clone(), wanted.index, now));
            port.link.hold(now, wanted.session);
        }
    }

    fn publish(&self) {
        let now: BTreeMap<String, Heard> =
            self.links.iter().map(|(name, port)| (name.clone(), port.heard())).collect();
        let mut before = lock(&self.board.heard);
        let differs = now.len() != before.len()
            || now.iter().any(|(name, heard)| before.get(name).is_none_or(|b| heard.differs(b)));
        *before = now;
        drop(before);
        if differs {
            self.board.news.store(true, Ordering::Release);
            // A bell that cannot be rung belongs to a loop that has ended.
            let _ = self.bell.wake();
        }
    }

    fn sleep(&mut self) {
        let now = Instant::now();
        let until = self.links.values().map(|p| p.next(now)).min();
        let timeout = until.map(|at| TimeSpec::from(at.saturating_duration_since(now)));
        let mut fds = vec![PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
        let listening = self.links.values().filter(|p| !p.is_sated(now));
        fds.extend(
            listening.filter_map(|p| Some(PollFd::new(p.socket.as_ref()?.as_fd(), PollFlags::POLLIN))),
        );
        let rung = ppoll(&mut fds, timeout, None).is_ok_and(|n| n > 0)
            && fds[0].revents().is_some_and(|r| !r.is_empty());
        drop(fds);
        if rung {
            let mut buffer = [0; 64];
            // Whatever it says, the wishes are read anew.
            let _ = self.woken.read(&mut buffer);
        }
    }
}

impl Heard {
    /// Whether somebody must hear of it: not of each advertisement of the same neighbour.
    fn differs(&self, before: &Self) -> bool {
        let parts = |h: &Self| (h.index, h.neighbour, h.other.is_some(), h.problem.clone());
        parts(self) != parts(before)
    }
}

impl Port {
    fn new(name: String, index: u32, now: Instant) -> Self {
        // The link's own clock is as good as any other seed for jitter.
        let seed = u64::from(index)
            ^ std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |d| u64::from(d.subsec_nanos()) << 20);
        Self {
            name,
            index,
            link: Link::new(now, seed),
            socket: None,
            open_at: now,
            taken: 0,
            period: now,
            since: now,
            problem: None,
        }
    }

    fn heard(&self) -> Heard {
        Heard {
            index: self.index,
            neighbour: self.link.neighbour(),
            at: self.link.heard(),
            other: self.link.other(),
            problem: self.problem.clone(),
        }
    }

    /// Enough was looked at for now.
    fn is_sated(&self, now: Instant) -> bool {
        self.taken >= BUDGET && now < self.period + PERIOD
    }

    fn next(&self, now: Instant) -> Instant {
        if self.socket.is_none() {
            return self.open_at;
        }
        let due = self.link.next();
        if self.is_sated(now) { due.min(self.period + PERIOD) } else { due }
    }

    fn turn(&mut self, now: Instant) {
        if self.socket.is_none() {
            if now < self.open_at {
                return;
            }
            match open(&self.name, self.index) {
                Ok(socket) => self.socket = Some(socket),
                Err(err) => {
                    self.open_at = now + RETRY;
                    self.problem = Some(cannot(&self.name, &err));
                    return;
                }
            }
        }
        self.listen(now);
        self.speak(now);
    }

    fn listen(&mut self, now: Instant) {
        if now >= self.period + PERIOD {
            self.period = now;
            self.taken = 0;
        }
        while self.taken < BUDGET {
            let Some(socket) = &self.socket else { return };
            self.taken += 1;
            match receive(socket, self.index) {
                Ok(Arrival::Message(from, Message::Advertisement)) if from.is_unicast_link_local() => {
                    self.link.on_advertisement(now, from);
                }
                Ok(Arrival::Message(from, Message::Solicitation { link_layer }))
                    if !(link_layer && from.is_unspecified()) =>
                {
                    self.link.on_solicitation(now);
                }
                Ok(Arrival::Message(..) | Arrival::Other) => {}
                Ok(Arrival::None) => {
                    self.taken -= 1;
                    return;
                }
                // The link may be gone or down; the loop will say so.
                Err(_) => return,
            }
        }
    }

    fn speak(&mut self, now: Instant) {
        for send in self.link.due(now) {
            let Some(socket) = &self.socket else { return };
            let (to, bytes): (_, &[u8]) = match send {
                Send::Advertisement => (ALL_NODES, &packet::advertisement()),
                Send::Solicitation => (ALL_ROUTERS, &packet::solicitation()),
            };
            let to: SocketAddr = SocketAddrV6::new(to, 0, 0, self.index).into();
            match socket.send_to(bytes, &to.into()) {
                Ok(_) => self.problem = None,
                Err(err) => {
                    tracing::debug!(interface = self.name, %err, ?send, "router advertisements cannot be sent yet");
                    self.link.again(now, RETRY);
                    if now >= self.since + SETTLING {
                        self.problem = Some(cannot(&self.name, &err));
                    }
                    return;
                }
            }
        }
    }
}

/// What is wrong, for people.
fn cannot(name: &str, err: &io::Error) -> String {
    match err.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "router advertisements need the capability CAP_NET_RAW, which this process does not have".into()
        }
        Some(libc::EADDRNOTAVAIL | libc::ENETUNREACH) => {
            format!("{name} has no link-local IPv6 address to send router advertisements from")
        }
        _ => format!("router advertisements cannot be sent on {name}: {err}"),
    }
}

fn open(name: &str, index: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW.nonblocking().cloexec(), Some(Protocol::ICMPV6))?;
    socket.attach_filter(&only_these())?;
    socket.bind_device(Some(name.as_bytes()))?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
    setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    socket.set_multicast_loop_v6(false)?;
    socket.set_multicast_hops_v6(255)?;
    socket.set_unicast_hops_v6(255)?;
    socket.set_multicast_if_v6(index)?;
    socket.join_multicast_v6(&ALL_ROUTERS, index)?;
    Ok(socket)
}

/// Solicitations and advertisements that come from this link.
fn only_these() -> [SockFilter; 7] {
    // linux/bpf_common.h: BPF_LD | BPF_B | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K.
    const LOAD_BYTE: u16 = 0x30;
    const IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// SKF_NET_OFF: from here on offsets count from the IPv6 header, whose octet 7 is the hop limit.
    const NETWORK: u32 = 0xfff0_0000;
    let unless = |value: u32, skip| SockFilter::new(IF_EQUAL, 0, skip, value);
    [
        SockFilter::new(LOAD_BYTE, 0, 0, NETWORK + 7),
        unless(HOP_LIMIT.unsigned_abs(), 4),
        SockFilter::new(LOAD_BYTE, 0, 0, 0),
        SockFilter::new(IF_EQUAL, 1, 0, packet::SOLICITATION.into()),
        unless(packet::ADVERTISEMENT.into(), 1),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

enum Arrival {
    Message(Ipv6Addr, Message),
    /// Something that is not for us.
    Other,
    None,
}

fn receive(socket: &Socket, index: u32) -> io::Result<Arrival> {
    let mut bytes = [0; LONGEST];
    let mut control = nix::cmsg_space!(libc::in6_pktinfo, libc::c_int);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = match recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)
    {
        Ok(message) => message,
        Err(Errno::EAGAIN) => return Ok(Arrival::None),
        Err(Errno::EINTR) => return Ok(Arrival::Other),
        Err(err) => return Err(err.into()),
    };
    let (mut near, mut here) = (false, false);
    for item in message.cmsgs()? {
        match item {
            ControlMessageOwned::Ipv6HopLimit(limit) => near = limit == HOP_LIMIT,
            ControlMessageOwned::Ipv6PacketInfo(info) => here = info.ipi6_ifindex == index,
            _ => {}
        }
    }
    let cut = message.flags.contains(MsgFlags::MSG_TRUNC);
    let from = message.address.as_ref().and_then(|a| a.as_sockaddr_in6()).map(SockaddrIn6::ip);
    let length = message.bytes;
    let parsed = bytes.get(..length).and_then(packet::parse);
    Ok(match (from, parsed) {
        (Some(from), Some(parsed)) if near && here && !cut => Arrival::Message(from, parsed),
        _ => Arrival::Other,
    })
}
