//! One netlink socket: batches with the acknowledgement on the last message, and dumps that are complete.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::error::{Error, Result};
use crate::netns::Netns;
use crate::wire::{
    Encoder, F_DUMP_INTR, Malformed, Message, Messages, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN,
};

/// Requests in one send. More buys nothing: the kernel's own work dominates beyond about 32.
const BATCH_MESSAGES: usize = 256;
/// A datagram must stay below the socket's send buffer.
const BATCH_BYTES: usize = 64 * 1024;
/// Room for one error message for each request of a batch, each with its socket-buffer overhead.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;
const SEND_BUFFER: usize = 1024 * 1024;
/// The kernel answers while it handles the request, so an empty queue means that the answer was lost.
const ANSWER_TIMEOUT_SECONDS: i64 = 10;
const DUMP_ATTEMPTS: u32 = 24;

/// A request that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its place in the slice that was applied.
    pub index: usize,
    /// Why, as a number. `ENOBUFS` means that the answer was lost: the request may or may not have been done.
    pub errno: Errno,
    /// Why, in the kernel's words, where it gave any.
    pub message: Option<String>,
}

/// Which netlink protocol a socket speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Protocol {
    Route,
    Netfilter,
}

/// Opens a socket bound to `netns`, or to the calling thread's namespace.
pub(crate) fn open_socket(protocol: Protocol, netns: Option<&Netns>) -> Result<Socket> {
    let (number, name) = match protocol {
        Protocol::Route => (netlink_sys::protocols::NETLINK_ROUTE, "route"),
        Protocol::Netfilter => (netlink_sys::protocols::NETLINK_NETFILTER, "netfilter"),
    };
    let open = || Socket::new(number).map_err(|source| Error::Open { protocol: name, source });
    match netns {
        // Entering needs CAP_SYS_ADMIN, also where one is already; a speaker of routes has no other use for it.
        Some(ns) if Netns::current().is_ok_and(|here| here.id() == ns.id()) => open(),
        Some(ns) => ns.run(open)?,
        None => open(),
    }
}

/// Sets the receive buffer past the system's limit where we may, up to that limit where we may not.
pub(crate) fn enlarge_receive_buffer(socket: &Socket, bytes: usize) {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &bytes);
    }
}

#[derive(Debug)]
pub(crate) struct Channel {
    socket: Socket,
    /// The socket's number, which the kernel puts into the notifications of what was asked for over it.
    port: u32,
    seq: u32,
    out: Encoder,
    buf: Vec<u8>,
}

impl Channel {
    pub(crate) fn open(protocol: Protocol, netns: Option<&Netns>) -> Result<Self> {
        let mut socket = open_socket(protocol, netns)?;
        let set_up = |source| Error::Socket { doing: "set-up", source };
        let port = socket.bind_auto().map_err(set_up)?.port_number();
        socket.connect(&SocketAddr::new(0, 0)).map_err(set_up)?;
        enlarge_receive_buffer(&socket, RECEIVE_BUFFER);
        if setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
            let _ = setsockopt(&socket, sockopt::SndBuf, &SEND_BUFFER);
        }
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_TIMEOUT_SECONDS))
            .map_err(|e| set_up(e.into()))?;
        // Old kernels lack these; we filter ourselves and do without explanations then.
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Self { socket, port, seq: 0, out: Encoder::default(), buf: vec![0; 64 * 1024] })
    }

    /// See [`crate::Netlink::port`].
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Sends every item, batched, and returns those that failed. `encode` appends one message, between
    /// `begin` and `finish`, or says why it cannot.
    pub(crate) fn transact<T>(
        &mut self,
        items: &[T],
        mut encode: impl FnMut(&mut Encoder, &T) -> Result<(), Errno>,
    ) -> Vec<Failure> {
        let mut failures = Vec::new();
        let mut sent = Vec::with_capacity(items.len().min(BATCH_MESSAGES));
        let mut next = 0;
        while next < items.len() {
            self.out.clear();
            sent.clear();
            let first_seq = self.seq.wrapping_add(1);
            while next < items.len() && sent.len() < BATCH_MESSAGES && self.out.len() < BATCH_BYTES {
                let before = self.out.len();
                match encode(&mut self.out, &items[next]) {
                    Ok(()) => {
                        self.seq = self.seq.wrapping_add(1);
                        self.out.finish(self.seq);
                        sent.push(next);
                    }
                    Err(errno) => {
                        self.out.cancel(before);
                        failures.push(Failure {
                            index: next,
                            errno,
                            message: Some("rejected before it was sent".into()),
                        });
                    }
                }
                next += 1;
            }
            if !sent.is_empty() {
                self.exchange(first_seq, &sent, &mut failures);
            }
        }
        failures.sort_unstable_by_key(|f| f.index);
        failures
    }

    /// Sends one request that has one answer (not a dump).
    pub(crate) fn ask<R>(
        &mut self,
        doing: &'static str,
        encode: impl FnOnce(&mut Encoder),
        mut parse: impl FnMut(&Message<'_>) -> Result<R, Malformed>,
    ) -> Result<R> {
        self.out.clear();
        encode(&mut self.out);
        self.seq = self.seq.wrapping_add(1);
        self.out.finish(self.seq);
        self.send().map_err(|source| Error::Socket { doing, source })?;
        loop {
            let n = match self.receive() {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(Error::Socket { doing, source }),
            };
            for message in Messages(&self.buf[..n]) {
                let message = message.map_err(|m| Error::Malformed { doing, reason: m.0 })?;
                if message.seq != self.seq {
                    continue;
                }
                if message.kind == NLMSG_ERROR {
                    let (code, text) =
                        message.error().map_err(|m| Error::Malformed { doing, reason: m.0 })?;
                    return Err(Error::Refused { doing, errno: Errno::from_raw(code), message: text });
                }
                return parse(&message).map_err(|m| Error::Malformed { doing, reason: m.0 });
            }
        }
    }

    /// Reads a whole table. A dump during which the table changed is thrown away and asked for again,
    /// as is one that lost a message; what is returned is complete.
    pub(crate) fn dump<T>(
        &mut self,
        doing: &'static str,
        request: impl Fn(&mut Encoder),
        mut parse: impl FnMut(&Message<'_>) -> Result<Option<T>, Malformed>,
    ) -> Result<Vec<T>> {
        self.fold(doing, request, |found: &mut Vec<T>, message| {
            found.extend(parse(message)?);
            Ok(())
        })
    }

    /// The same, keeping only what `take` makes of each message; a dump that is asked for again begins with the default.
    pub(crate) fn fold<T: Default>(
        &mut self,
        doing: &'static str,
        request: impl Fn(&mut Encoder),
        mut take: impl FnMut(&mut T, &Message<'_>) -> Result<(), Malformed>,
    ) -> Result<T> {
        for attempt in 0..DUMP_ATTEMPTS {
            back_off(attempt);
            let mut found = T::default();
            if self.dump_once(doing, &request, &mut take, &mut found)? == Pass::Complete {
                return Ok(found);
            }
        }
        Err(Error::Interrupted { doing, attempts: DUMP_ATTEMPTS })
    }

    fn dump_once<T>(
        &mut self,
        doing: &'static str,
        request: &impl Fn(&mut Encoder),
        take: &mut impl FnMut(&mut T, &Message<'_>) -> Result<(), Malformed>,
        found: &mut T,
    ) -> Result<Pass> {
        let failed = |source| Error::Socket { doing, source };
        self.out.clear();
        request(&mut self.out);
        self.seq = self.seq.wrapping_add(1);
        self.out.finish(self.seq);
        match self.send() {
            Ok(()) => {}
            Err(e) if transient(&e) => return Ok(Pass::Interrupted),
            Err(e) => return Err(failed(e)),
        }
        let mut pass = Pass::Complete;
        let mut malformed = None;
        loop {
            let n = match self.receive() {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                // A message was dropped or did not fit. The dump still runs to its end, but is of no use.
                Err(e) if transient(&e) => {
                    pass = Pass::Interrupted;
                    continue;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Pass::Interrupted),
                Err(e) => return Err(failed(e)),
            };
            for message in Messages(&self.buf[..n]) {
                let message = match message {
                    Ok(m) if m.seq == self.seq => m,
                    Ok(_) => continue,
                    Err(m) => {
                        malformed = Some(m);
                        break;
                    }
                };
                if message.flags & F_DUMP_INTR != 0 {
                    pass = Pass::Interrupted;
                }
                match message.kind {
                    NLMSG_DONE => {
                        let code = message.done_errno();
                        return match (code, malformed) {
                            (0, None) => Ok(pass),
                            (0, Some(m)) => Err(Error::Malformed { doing, reason: m.0 }),
                            (code, _) => refused(doing, Errno::from_raw(code), None),
                        };
                    }
                    NLMSG_ERROR => {
                        let (code, text) =
                            message.error().map_err(|m| Error::Malformed { doing, reason: m.0 })?;
                        if Errno::from_raw(code) == Errno::EBUSY {
                            self.drain(); // an earlier dump was abandoned half-way
                        }
                        return refused(doing, Errno::from_raw(code), text);
                    }
                    NLMSG_NOOP => {}
                    NLMSG_OVERRUN => pass = Pass::Interrupted,
                    _ if pass == Pass::Interrupted => {}
                    _ => {
                        if let Err(m) = take(found, &message) {
                            malformed = Some(m);
                        }
                    }
                }
            }
        }
    }

    /// Sends the batch in `out` and collects the failures of `sent`, whose first message is `first_seq`.
    fn exchange(&mut self, first_seq: u32, sent: &[usize], failures: &mut Vec<Failure>) {
        let last = sent.len() - 1;
        self.out.acknowledge_last();
        if let Err(e) = self.send() {
            let errno = e.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
            failures.extend(sent.iter().map(|&index| Failure { index, errno, message: None }));
            return;
        }
        let reported = failures.len();
        loop {
            let n = match self.receive() {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            for message in Messages(&self.buf[..n]).flatten() {
                let place = usize::try_from(message.seq.wrapping_sub(first_seq)).unwrap_or(usize::MAX);
                if message.kind != NLMSG_ERROR || place > last {
                    continue;
                }
                let (code, text) = message.error().unwrap_or((libc::EIO, None));
                if code != 0 {
                    failures.push(Failure {
                        index: sent[place],
                        errno: Errno::from_raw(code),
                        message: text,
                    });
                }
                if place == last {
                    return;
                }
            }
        }
        // The acknowledgement is lost, so whatever was not reported is unknown.
        self.drain();
        let known: Vec<usize> = failures[reported..].iter().map(|f| f.index).collect();
        failures.extend(sent.iter().filter(|i| !known.contains(i)).map(|&index| Failure {
            index,
            errno: Errno::ENOBUFS,
            message: Some("the kernel's answer was lost".into()),
        }));
    }

    fn send(&self) -> io::Result<()> {
        loop {
            match self.socket.send(self.out.as_bytes(), 0) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn receive(&mut self) -> io::Result<usize> {
        receive(&self.socket, &mut self.buf, 0)
    }

    /// Throws away what is queued, and runs an abandoned dump to its end.
    fn drain(&mut self) {
        loop {
            match receive(&self.socket, &mut self.buf, libc::MSG_DONTWAIT) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted || transient(&e) => {}
                Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Reads one datagram. One that does not fit is lost: the buffer grows and `ENOBUFS` says so.
pub(crate) fn receive(socket: &Socket, buf: &mut Vec<u8>, flags: i32) -> io::Result<usize> {
    let n = socket.recv(&mut &mut buf[..], flags | libc::MSG_TRUNC)?;
    if n > buf.len() {
        buf.resize(n.next_power_of_two(), 0);
        return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
    }
    Ok(n)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    Complete,
    Interrupted,
}

fn refused(doing: &'static str, errno: Errno, message: Option<String>) -> Result<Pass> {
    match errno {
        Errno::EINTR | Errno::EAGAIN | Errno::EBUSY | Errno::ENOBUFS | Errno::ENOMEM => Ok(Pass::Interrupted),
        _ => Err(Error::Refused { doing, errno, message }),
    }
}

fn transient(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

/// Nothing before the first retries, then up to 64 ms, so that a burst of changes can end.
fn back_off(attempt: u32) {
    if attempt > 3 {
        std::thread::sleep(Duration::from_millis(1 << (attempt - 4).min(6)));
    }
}
