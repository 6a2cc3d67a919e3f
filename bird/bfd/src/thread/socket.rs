//! UDP sockets: one listener for each family and port, one sender for each session.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use nix::errno::Errno;
use nix::net::if_::if_indextoname;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::engine::Arrival;
use crate::packet::LEN;
use crate::params::{Hops, SessionKey};

/// Room for a burst of every session of a large host.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Longer than any control packet, whose length field is a byte.
const LONGEST: usize = 512;
/// Network control, so that a full queue drops other packets first.
const CLASS_SELECTOR_6: u32 = 0xc0;
const PRIORITY_CONTROL: u32 = 6;
/// RFC 5881 §4: "the source port MUST be in the range 49152 through 65535".
const FIRST_PORT: u16 = 49_152;
const PORTS: u16 = 16_384;

/// A port on which packets arrive, on every address of one family.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Socket,
    hops: Hops,
    bytes: Box<[u8; LONGEST]>,
    control: Vec<u8>,
}

impl Listener {
    pub(super) fn open(v4: bool, hops: Hops) -> io::Result<Self> {
        let socket = new_socket(v4)?;
        let any: IpAddr = if v4 {
            setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            socket.set_only_v6(true)?;
            setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            Ipv6Addr::UNSPECIFIED.into()
        };
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        if hops == Hops::Single {
            socket.attach_filter(&only_ttl_255(v4))?;
        }
        socket.bind(&SocketAddr::new(any, hops.port()).into())?;
        let control = nix::cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo, libc::c_int);
        Ok(Self { socket, hops, bytes: Box::new([0; LONGEST]), control })
    }

    /// Takes the next datagram, if one is there.
    pub(super) fn receive(&mut self, take: impl FnOnce(Arrival<'_>)) -> io::Result<bool> {
        let mut parts = [IoSliceMut::new(&mut self.bytes[..])];
        let fd = self.socket.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        let message = match recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut self.control), flags) {
            Ok(message) => message,
            Err(Errno::EAGAIN) => return Ok(false),
            Err(Errno::EINTR) => return Ok(true),
            Err(err) => return Err(err.into()),
        };
        let Some(source) = message.address.as_ref().and_then(ip) else { return Ok(true) };
        let (mut destination, mut interface, mut ttl) = (None, None, None);
        for item in message.cmsgs()? {
            match item {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    destination = Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into());
                    interface = u32::try_from(info.ipi_ifindex).ok();
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    destination = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                    interface = Some(info.ipi6_ifindex);
                }
                ControlMessageOwned::Ipv4Ttl(value) | ControlMessageOwned::Ipv6HopLimit(value) => {
                    ttl = u8::try_from(value).ok();
                }
                _ => {}
            }
        }
        let length = message.bytes.min(LONGEST);
        let bytes = self.bytes.get(..length).unwrap_or_default();
        take(Arrival { source, destination, interface, ttl, hops: self.hops, bytes });
        Ok(true)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A session's own socket: RFC 5881 §4 wants one source port for all its packets.
#[derive(Debug)]
pub(super) struct Sender {
    socket: Socket,
    to: SocketAddr,
}

impl Sender {
    pub(super) fn open(key: &SessionKey, session: u32) -> io::Result<Self> {
        let v4 = key.peer.is_ipv4();
        let socket = new_socket(v4)?;
        if v4 {
            socket.set_ttl_v4(255)?;
            socket.set_tos_v4(CLASS_SELECTOR_6)?;
        } else {
            socket.set_unicast_hops_v6(255)?;
            socket.set_tclass_v6(CLASS_SELECTOR_6)?;
        }
        socket.set_priority(PRIORITY_CONTROL)?;
        // Nothing is ever read here.
        socket.set_recv_buffer_size(0)?;
        if let Some(index) = key.interface {
            let name = if_indextoname(index)?;
            socket.bind_device(Some(name.as_bytes()))?;
        }
        let any: IpAddr = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let local = key.local.unwrap_or(any);
        let start = u16::try_from(session % u32::from(PORTS)).unwrap_or(0);
        for step in 0..PORTS {
            let port = FIRST_PORT + (start + step) % PORTS;
            match socket.bind(&address(local, port, key.interface).into()) {
                Ok(()) => {
                    return Ok(Self { socket, to: address(key.peer, key.hops.port(), key.interface) });
                }
                Err(err) if err.kind() == io::ErrorKind::AddrInUse => {}
                Err(err) => return Err(err),
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    pub(super) fn send(&self, bytes: &[u8; LEN]) -> io::Result<()> {
        loop {
            match self.socket.send_to(bytes, &self.to.into()) {
                Ok(_) => return Ok(()),
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
    }
}

fn new_socket(v4: bool) -> io::Result<Socket> {
    let domain = if v4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// With the interface where an address means nothing without one.
fn address(ip: IpAddr, port: u16, interface: Option<u32>) -> SocketAddr {
    match ip {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            SocketAddrV6::new(v6, port, 0, interface.unwrap_or(0)).into()
        }
        other => SocketAddr::new(other, port),
    }
}

fn ip(from: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = from.as_sockaddr_in().map(|v4| v4.ip().into());
    v4.or_else(|| from.as_sockaddr_in6().map(|v6| v6.ip().into()))
}

/// Lets the kernel drop what a router has forwarded (RFC 5881 §5), before it takes room in the buffer: nobody
/// off the link can crowd out a peer. The engine checks again.
fn only_ttl_255(v4: bool) -> [SockFilter; 4] {
    const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
    const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const NETWORK_HEADER: u32 = 0xfff0_0000; // SKF_NET_OFF
    let offset = if v4 { 8 } else { 7 };
    [
        SockFilter::new(LOAD_BYTE, 0, 0, NETWORK_HEADER + offset),
        SockFilter::new(JUMP_EQUAL, 0, 1, 255),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}
