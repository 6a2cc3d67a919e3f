//! [`Monitor`]: hears what changes in the kernel, whoever changed it.

use std::io;
use std::ops::BitOr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use netlink_sys::{Socket, SocketAddr};
use socket2::{SockFilter, SockRef};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::address::{self, Address};
use crate::channel::{Protocol, enlarge_receive_buffer, open_socket, receive};
use crate::error::{Error, Result};
use crate::link::{self, Link};
use crate::neighbour::{self, Neighbour};
use crate::netns::Netns;
use crate::route::{self, Route};
use crate::wire::{F_REPLACE, Malformed, Message, Messages, NLMSG_OVERRUN};

/// Events returned by one call at most, so that a caller's loop stays fair under a flood.
const EVENTS_PER_CALL: usize = 4096;
/// About a hundred thousand route events while the owner is busy or stopped.
const RECEIVE_BUFFER: usize = 64 * 1024 * 1024;

/// What to listen to; combine with `|`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups(u32);

impl Groups {
    /// Nothing yet.
    pub const NONE: Self = Self(0);
    /// Links made, changed, removed.
    pub const LINK: Self = Self(1 << 1);
    /// Neighbours of both families.
    pub const NEIGHBOUR: Self = Self(1 << 3);
    /// IPv4 addresses.
    pub const ADDRESS4: Self = Self(1 << 5);
    /// IPv4 routes.
    pub const ROUTE4: Self = Self(1 << 7);
    /// IPv6 addresses.
    pub const ADDRESS6: Self = Self(1 << 9);
    /// IPv6 routes.
    pub const ROUTE6: Self = Self(1 << 11);
    /// Addresses of both families.
    pub const ADDRESS: Self = Self(Self::ADDRESS4.0 | Self::ADDRESS6.0);
    /// Routes of both families.
    pub const ROUTE: Self = Self(Self::ROUTE4.0 | Self::ROUTE6.0);
    /// All of the above.
    pub const ALL: Self = Self(Self::LINK.0 | Self::NEIGHBOUR.0 | Self::ADDRESS.0 | Self::ROUTE.0);

    pub(crate) fn numbers(self) -> impl Iterator<Item = u32> {
        (0..32).filter(move |n| self.0 & (1 << n) != 0)
    }
}

impl BitOr for Groups {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How to listen.
#[derive(Debug, Clone)]
pub struct MonitorConfig {
    groups: Groups,
    ignore_new: Vec<u8>,
    ignore_gone: Vec<u8>,
    ignore_port: Option<u32>,
    receive_buffer: usize,
}

impl MonitorConfig {
    /// Everything in these groups.
    pub fn new(groups: Groups) -> Self {
        Self {
            groups,
            ignore_new: Vec::new(),
            ignore_gone: Vec::new(),
            ignore_port: None,
            receive_buffer: RECEIVE_BUFFER,
        }
    }

    /// Leaves out routes *added* by this owner. The kernel drops them before they are queued, so a
    /// daemon does not pay for hearing of its own million routes, and still hears when they go.
    #[must_use]
    pub fn ignore_new_routes_of(mut self, proto: u8) -> Self {
        self.ignore_new.push(proto);
        self
    }

    /// Leaves out every event about routes of this owner, dropped in the kernel as well.
    #[must_use]
    pub fn ignore_routes_of(mut self, proto: u8) -> Self {
        self.ignore_new.push(proto);
        self.ignore_gone.push(proto);
        self
    }

    /// Leaves out everything that was asked for over the socket with this number ([`crate::Netlink::port`]), dropped in
    /// the kernel as well: who writes a million routes need not hear of it, and hears of the same done by anybody else.
    #[must_use]
    pub fn ignore_changes_by(mut self, port: u32) -> Self {
        // Zero is the kernel itself.
        self.ignore_port = (port != 0).then_some(port);
        self
    }

    /// Bytes to queue while nobody reads (64 MiB by default; memory is used only when needed).
    #[must_use]
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = bytes;
        self
    }
}

impl From<Groups> for MonitorConfig {
    fn from(groups: Groups) -> Self {
        Self::new(groups)
    }
}

/// One change, in the order in which the kernel made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A link is new or has changed.
    Link(Link),
    /// A link is gone, deleted or moved to another namespace.
    LinkGone {
        /// Its index, which may be reused.
        index: u32,
        /// Its name at the end.
        name: String,
    },
    /// An address is new or has changed.
    Address(Address),
    /// An address is gone.
    AddressGone(Address),
    /// A route is new or gone.
    Route {
        /// The route.
        route: Route,
        /// Deleted, not added.
        gone: bool,
        /// Took the place of another with the same prefix, table and metric, for which no event comes.
        replaced: bool,
    },
    /// A neighbour is new, has changed or is gone.
    Neighbour {
        /// The neighbour.
        neighbour: Neighbour,
        /// Deleted, not added.
        gone: bool,
    },
    /// Events were lost: nothing is known any more, read everything again.
    Overrun,
}

/// A subscription to the changes of one namespace.
///
/// In a tokio task call [`Monitor::next`]; in an epoll or mio loop register the file descriptor and call
/// [`Monitor::try_next`] until it returns nothing.
#[derive(Debug)]
pub struct Monitor {
    /// Readiness for tokio, on a duplicate of the socket; registered with the first `next`.
    ready: Option<AsyncFd<OwnedFd>>,
    socket: Socket,
    buf: Vec<u8>,
}

impl Monitor {
    /// Listens in the calling thread's namespace.
    pub fn open(config: impl Into<MonitorConfig>) -> Result<Self> {
        Self::start(&config.into(), None)
    }

    /// Listens in the namespace at `path`.
    pub fn open_in(config: impl Into<MonitorConfig>, path: &Path) -> Result<Self> {
        Self::start(&config.into(), Some(&Netns::open(path)?))
    }

    /// Listens in an open namespace.
    pub fn open_netns(config: impl Into<MonitorConfig>, netns: &Netns) -> Result<Self> {
        Self::start(&config.into(), Some(netns))
    }

    /// The next events, at least one, waiting if need be. Losing the future loses no event.
    pub async fn next(&mut self) -> Result<Vec<Event>> {
        loop {
            let events = self.try_next()?;
            if !events.is_empty() {
                return Ok(events);
            }
            if self.ready.is_none() {
                let fd = self.socket.as_fd().try_clone_to_owned().map_err(failed)?;
                self.ready = Some(watch(fd).map_err(failed)?);
            }
            let ready = self.ready.as_ref().expect("invariant: set just above");
            let mut guard = ready.readable().await.map_err(failed)?;
            // Only a look at the queue decides whether readiness is used up; an event that came after the
            // look keeps it.
            let events = read(&self.socket, &mut self.buf)?;
            if events.is_empty() {
                guard.clear_ready();
            } else {
                return Ok(events);
            }
        }
    }

    /// The events queued now, none if there are none; never waits. More may be queued when it returns some.
    pub fn try_next(&mut self) -> Result<Vec<Event>> {
        read(&self.socket, &mut self.buf)
    }

    /// Throws away what is queued.
    pub fn drain(&mut self) -> Result<()> {
        while !self.try_next()?.is_empty() {}
        Ok(())
    }

    /// Listens to more groups from now on.
    pub fn join(&mut self, groups: Groups) -> Result<()> {
        groups.numbers().try_for_each(|n| self.socket.add_membership(n)).map_err(failed)
    }

    /// Stops listening to groups.
    pub fn leave(&mut self, groups: Groups) -> Result<()> {
        groups.numbers().try_for_each(|n| self.socket.drop_membership(n)).map_err(failed)
    }

    fn start(config: &MonitorConfig, netns: Option<&Netns>) -> Result<Self> {
        let mut socket = open_socket(Protocol::Route, netns)?;
        socket.bind(&SocketAddr::new(0, 0)).map_err(failed)?;
        socket.set_non_blocking(true).map_err(failed)?;
        enlarge_receive_buffer(&socket, config.receive_buffer);
        let program = filter(config);
        if !program.is_empty() {
            SockRef::from(&socket).attach_filter(&program).map_err(failed)?;
        }
        let mut monitor = Self { ready: None, socket, buf: vec![0; 64 * 1024] };
        monitor.join(config.groups)?;
        Ok(monitor)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Registers with the runtime of the current task.
#[allow(unsafe_code, reason = "tokio asks for a promise that an owned descriptor keeps by itself")]
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, stays open and stays the same descriptor until it is dropped, and the
    // `AsyncFd` that is returned owns it.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    registered.map_err(io::Error::from)
}

fn failed(source: io::Error) -> Error {
    Error::Socket { doing: "monitor", source }
}

fn read(socket: &Socket, buf: &mut Vec<u8>) -> Result<Vec<Event>> {
    let mut events = Vec::new();
    while events.len() < EVENTS_PER_CALL {
        match receive(socket, buf, libc::MSG_DONTWAIT) {
            Ok(n) => {
                for message in Messages(&buf[..n]) {
                    match message.and_then(|m| parse(&m)) {
                        Ok(Some(event)) => events.push(event),
                        Ok(None) => {}
                        // Something happened that we cannot read: the same as having missed it.
                        Err(Malformed(reason)) => {
                            tracing::debug!(err = reason, "unreadable kernel notification");
                            events.push(Event::Overrun);
                        }
                    }
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM)) => {
                events.push(Event::Overrun);
            }
            Err(e) => return Err(failed(e)),
        }
    }
    Ok(events)
}

fn parse(message: &Message<'_>) -> Result<Option<Event>, Malformed> {
    Ok(match message.kind {
        link::RTM_NEWLINK => link::parse(message)?.map(Event::Link),
        link::RTM_DELLINK => link::parse(message)?.map(|l| Event::LinkGone { index: l.index, name: l.name }),
        address::RTM_NEWADDR => address::parse(message)?.map(Event::Address),
        address::RTM_DELADDR => address::parse(message)?.map(Event::AddressGone),
        kind @ (route::RTM_NEWROUTE | route::RTM_DELROUTE) => {
            let gone = kind == route::RTM_DELROUTE;
            let replaced = !gone && message.flags & F_REPLACE != 0;
            route::parse(message)?.map(|route| Event::Route { route, gone, replaced })
        }
        kind @ (neighbour::RTM_NEWNEIGH | neighbour::RTM_DELNEIGH) => {
            let gone = kind == neighbour::RTM_DELNEIGH;
            neighbour::parse(message)?.map(|neighbour| Event::Neighbour { neighbour, gone })
        }
        NLMSG_OVERRUN => Some(Event::Overrun),
        _ => None,
    })
}

/// A classic BPF program that drops the changes of one socket and route messages of the given owners, empty if there
/// are none.
///
/// It looks at `nlmsg_pid` (4 bytes at 12) and `nlmsg_type` (2 bytes at 4), both in host order (the load is big-endian,
/// so the constants are swapped), and at `rtm_protocol` (1 byte at 16 + 5). Notifications come one to a datagram.
fn filter(config: &MonitorConfig) -> Vec<SockFilter> {
    let mut program = Vec::new();
    if let Some(port) = config.ignore_port {
        program.push(instruction(LOAD_WORD, 0, 0, 12));
        program.push(instruction(JUMP_EQUAL, 0, 1, u32::from_be_bytes(port.to_ne_bytes())));
        program.push(instruction(RETURN, 0, 0, 0));
    }
    let owners = [(route::RTM_NEWROUTE, &config.ignore_new), (route::RTM_DELROUTE, &config.ignore_gone)];
    for (kind, protos) in owners {
        let Ok(count) = u8::try_from(protos.len()) else { continue };
        // The jump over one section must fit in 8 bits.
        if count == 0 || count > 100 {
            continue;
        }
        let kind = u32::from(u16::from_be_bytes(kind.to_ne_bytes()));
        program.push(instruction(LOAD_HALF, 0, 0, 4));
        program.push(instruction(JUMP_EQUAL, 0, 1 + 2 * count, kind));
        program.push(instruction(LOAD_BYTE, 0, 0, 21));
        for proto in protos {
            program.push(instruction(JUMP_EQUAL, 0, 1, u32::from(*proto)));
            program.push(instruction(RETURN, 0, 0, 0));
        }
    }
    if !program.is_empty() {
        program.push(instruction(RETURN, 0, 0, u32::MAX));
    }
    program
}

// linux/bpf_common.h: BPF_LD|BPF_W|BPF_ABS, BPF_LD|BPF_H|BPF_ABS, BPF_LD|BPF_B|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K,
// BPF_RET|BPF_K.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

pub(crate) fn instruction(code: u16, if_true: u8, if_false: u8, k: u32) -> SockFilter {
    SockFilter::new(code, if_true, if_false, k)
}
