//! [`LossMonitor`]: hears that something was lost inside other namespaces, without holding any of them alive.
//!
//! A socket opened inside a namespace keeps it alive, so watching a workload that way would keep the workload's link
//! after the workload is gone. The kernel also copies notifications to a socket that asks for all namespaces that
//! have a number here (`NETLINK_LISTEN_ALL_NSID`), as those of the far ends of veth pairs have.

use std::collections::BTreeSet;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use socket2::SockRef;
use tokio::io::unix::AsyncFd;

use crate::channel::{Protocol, enlarge_receive_buffer, open_socket};
use crate::error::{Error, Result};
use crate::monitor::{Groups, instruction, watch};
use crate::wire::{Message, Messages, u32_at};
use crate::{address, link, neighbour, route};

const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;
/// Messages read by one call at most.
const MESSAGES_PER_CALL: usize = 1024;

/// A subscription to losses in namespaces that have a number here: addresses, routes and neighbours that went, links
/// that were set down.
#[derive(Debug)]
pub struct LossMonitor {
    ready: Option<AsyncFd<OwnedFd>>,
    socket: Socket,
    buf: Vec<u8>,
    space: Vec<u8>,
}

/// Where something was lost.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Losses {
    /// Namespaces by the number that they have here, as [`crate::Link::peer_netns`] gives it.
    pub namespaces: BTreeSet<i32>,
    /// Notifications were lost: it may have happened anywhere.
    pub overrun: bool,
}

impl Losses {
    /// Nothing was lost.
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty() && !self.overrun
    }
}

impl LossMonitor {
    /// Listens from the calling thread's namespace; needs `CAP_NET_BROADCAST`.
    pub fn open() -> Result<Self> {
        let mut socket = open_socket(Protocol::Route, None)?;
        socket.bind(&SocketAddr::new(0, 0)).map_err(failed)?;
        socket.set_non_blocking(true).map_err(failed)?;
        socket.set_listen_all_namespaces(true).map_err(failed)?;
        enlarge_receive_buffer(&socket, RECEIVE_BUFFER);
        SockRef::from(&socket).attach_filter(&losses_only()).map_err(failed)?;
        let groups = Groups::LINK | Groups::ADDRESS | Groups::ROUTE | Groups::NEIGHBOUR;
        groups.numbers().try_for_each(|group| socket.add_membership(group)).map_err(failed)?;
        Ok(Self { ready: None, socket, buf: vec![0; 32 * 1024], space: nix::cmsg_space!(i32, i32) })
    }

    /// The next losses, waiting if need be. Losing the future loses none.
    pub async fn next(&mut self) -> Result<Losses> {
        loop {
            let losses = self.try_next()?;
            if !losses.is_empty() {
                return Ok(losses);
            }
            if self.ready.is_none() {
                let fd = self.socket.as_fd().try_clone_to_owned().map_err(failed)?;
                self.ready = Some(watch(fd).map_err(failed)?);
            }
            let ready = self.ready.as_ref().expect("invariant: set just above");
            let mut guard = ready.readable().await.map_err(failed)?;
            match read(&self.socket, &mut self.buf, &mut self.space)? {
                // Only a look at the empty queue decides that readiness is used up.
                None => guard.clear_ready(),
                Some(losses) if losses.is_empty() => {}
                Some(losses) => return Ok(losses),
            }
        }
    }

    /// The losses queued now; never waits.
    pub fn try_next(&mut self) -> Result<Losses> {
        Ok(read(&self.socket, &mut self.buf, &mut self.space)?.unwrap_or_default())
    }
}

/// What is queued; `None` when nothing at all is.
fn read(socket: &Socket, buf: &mut [u8], space: &mut [u8]) -> Result<Option<Losses>> {
    let mut losses = Losses::default();
    for count in 0..MESSAGES_PER_CALL {
        let mut parts = [IoSliceMut::new(buf)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(space), flags);
        let (length, namespace) = match received {
            Ok(message) => (message.bytes, namespace_of(message.cmsgs().ok().into_iter().flatten())),
            Err(Errno::EAGAIN) if count == 0 => return Ok(None),
            Err(Errno::EAGAIN) => break,
            Err(Errno::EINTR) => continue,
            Err(Errno::ENOBUFS | Errno::ENOMEM) => {
                losses.overrun = true;
                continue;
            }
            Err(errno) => return Err(failed(errno.into())),
        };
        // This namespace's own news come without a number; they are the other monitor's.
        let Some(namespace) = namespace else { continue };
        let known = Messages(&buf[..length.min(buf.len())]);
        if length > buf.len() || known.flatten().any(|message| is_loss(&message)) {
            losses.namespaces.insert(namespace);
        }
    }
    Ok(Some(losses))
}

fn namespace_of(messages: impl Iterator<Item = ControlMessageOwned>) -> Option<i32> {
    messages.into_iter().find_map(|message| match message {
        ControlMessageOwned::Unknown(message)
            if message.cmsg_header.cmsg_level == libc::SOL_NETLINK
                && message.cmsg_header.cmsg_type == libc::NETLINK_LISTEN_ALL_NSID =>
        {
            Some(i32::from_ne_bytes(message.data_bytes.get(..4)?.try_into().ok()?))
        }
        _ => None,
    })
}

fn is_loss(message: &Message<'_>) -> bool {
    match message.kind {
        link::RTM_NEWLINK => message
            .split(link::IFINFOMSG)
            .ok()
            .and_then(|(head, _)| u32_at(head, 8))
            .is_none_or(|flags| flags & link::IFF_UP == 0),
        kind => LOSSES.contains(&kind),
    }
}

const LOSSES: [u16; 3] = [address::RTM_DELADDR, route::RTM_DELROUTE, neighbour::RTM_DELNEIGH];

/// Lets through what may be a loss, so that a busy workload does not wake us.
fn losses_only() -> Vec<socket2::SockFilter> {
    const LOAD_HALF: u16 = 0x28;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let mut program = vec![instruction(LOAD_HALF, 0, 0, 4)];
    for kind in LOSSES.into_iter().chain([link::RTM_NEWLINK]) {
        // The load is big-endian, the field in host order.
        let kind = u32::from(u16::from_be_bytes(kind.to_ne_bytes()));
        program.push(instruction(JUMP_EQUAL, 0, 1, kind));
        program.push(instruction(RETURN, 0, 0, u32::MAX));
    }
    program.push(instruction(RETURN, 0, 0, 0));
    program
}

fn failed(source: io::Error) -> Error {
    Error::Socket { doing: "loss monitor", source }
}
