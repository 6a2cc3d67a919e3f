//! TCP sockets as BGP wants them: non-blocking, with a source address, TTL rules and RFC 2385 signatures.
//!
//! The only file of this crate with unsafe code: `TCP_MD5SIG` takes a structure that no safe wrapper offers.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use ipnet::IpNet;
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

/// Longest key that the kernel takes (RFC 2385 keys are text; Linux allows 80 octets).
pub(crate) const MAX_MD5_KEY: usize = 80;
/// CS6, internetwork control: what routers mark BGP with.
const TOS_NETWORK_CONTROL: u32 = 0xc0;
/// Retransmissions are spaced at most this far apart, so that a session outlives a short outage without a long wait
/// after it. Linux 6.15 and later.
const TCP_RTO_MAX_MS: libc::c_int = 44;
const RTO_MAX_MS: libc::c_int = 1000;

/// What one session asks of its socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Local address to call from.
    pub(crate) source: Option<IpAddr>,
    /// TTL of what we send.
    pub(crate) ttl: u8,
    /// Least TTL of what we take; 0 takes anything.
    pub(crate) min_ttl: u8,
    /// Key of the session.
    pub(crate) md5: Option<Vec<u8>>,
    /// Interface of a link-local peer.
    pub(crate) scope: u32,
}

/// Begins a connection. The socket becomes writable when it is established or has failed.
pub(crate) fn connect(peer: SocketAddr, options: &Options) -> io::Result<mio::net::TcpStream> {
    let socket = new(peer.ip())?;
    apply(&socket, peer.ip(), options)?;
    if let Some(key) = &options.md5 {
        set_md5(&socket, IpNet::from(peer.ip()), Some(key))?;
    }
    if let Some(source) = options.source {
        socket.set_reuse_address(true)?;
        socket.bind(&with_scope(SocketAddr::new(source, 0), options.scope).into())?;
    }
    match socket.connect(&with_scope(peer, options.scope).into()) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(e) => return Err(e),
    }
    Ok(mio::net::TcpStream::from_std(socket.into()))
}

/// Listens on `address`. The wildcard of one family takes that family only.
pub(crate) fn listen(address: SocketAddr) -> io::Result<mio::net::TcpListener> {
    let socket = new(address.ip())?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    // A peer with TTL security drops our SYN-ACK unless it comes with the full TTL.
    set_ttl(&socket, address.ip(), 255)?;
    socket.bind(&address.into())?;
    // All of a large mesh may call at once; who finds no place calls again only after a second.
    socket.listen(4096)?;
    Ok(mio::net::TcpListener::from_std(socket.into()))
}

/// Gives a listener a filter for what arrives; an empty one takes it off. Accepted connections begin with it.
pub(crate) fn set_filter(listener: &mio::net::TcpListener, program: &[SockFilter]) -> io::Result<()> {
    let socket = SockRef::from(listener);
    if program.is_empty() {
        // There may be none.
        let _ = socket.detach_filter();
        return Ok(());
    }
    socket.attach_filter(program)
}

/// Gives an accepted connection the options of its peer. Its key is inherited from the listener.
pub(crate) fn accepted(stream: &mio::net::TcpStream, peer: IpAddr, options: &Options) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    apply(&socket, peer, options)?;
    // From here on the least TTL does what the listener's filter did.
    let _ = socket.detach_filter();
    Ok(())
}

/// Sets or removes the key for a peer, or for every peer inside a prefix, on a listener or before a connect.
pub(crate) fn set_md5(socket: &impl AsFd, peer: IpNet, key: Option<&[u8]>) -> io::Result<()> {
    let key = key.unwrap_or_default();
    if key.len() > MAX_MD5_KEY {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a TCP MD5 key has at most 80 octets"));
    }
    let length = u16::try_from(key.len()).expect("invariant: checked against MAX_MD5_KEY");
    let address: socket2::SockAddr = SocketAddr::new(peer.network(), 0).into();
    let whole = peer.prefix_len() == peer.max_prefix_len();
    // Linux: struct tcp_md5sig { sockaddr_storage; u8 flags; u8 prefixlen; u16 keylen; int ifindex; u8 key[80] }.
    #[repr(C)]
    struct TcpMd5Sig {
        address: libc::sockaddr_storage,
        flags: u8,
        prefix_len: u8,
        key_len: u16,
        ifindex: libc::c_int,
        key: [u8; MAX_MD5_KEY],
    }
    const TCP_MD5SIG_FLAG_PREFIX: u8 = 1;
    #[allow(unsafe_code, reason = "TCP_MD5SIG has no safe wrapper")]
    // SAFETY: sockaddr_storage is plain old data for which all zeroes are valid; the option is read by the kernel
    // only, with the exact size of the structure; the descriptor is open while `socket` is borrowed.
    let result = unsafe {
        let mut option = TcpMd5Sig {
            address: std::mem::zeroed(),
            flags: if whole { 0 } else { TCP_MD5SIG_FLAG_PREFIX },
            prefix_len: if whole { 0 } else { peer.prefix_len() },
            key_len: length,
            ifindex: 0,
            key: [0; MAX_MD5_KEY],
        };
        std::ptr::copy_nonoverlapping(
            address.as_ptr().cast::<u8>(),
            std::ptr::from_mut(&mut option.address).cast::<u8>(),
            address.len() as usize,
        );
        option.key[..key.len()].copy_from_slice(key);
        let name = if whole { libc::TCP_MD5SIG } else { libc::TCP_MD5SIG_EXT };
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            name,
            std::ptr::from_ref(&option).cast(),
            libc::socklen_t::try_from(size_of::<TcpMd5Sig>()).expect("invariant: a small structure"),
        )
    };
    if result == 0 {
        return Ok(());
    }
    let err = io::Error::last_os_error();
    // Removing a key that is not there is what was wanted.
    if key.is_empty() && err.raw_os_error() == Some(libc::ENOENT) { Ok(()) } else { Err(err) }
}

/// Lets the close of a connection be a reset that forgets what is not acknowledged.
pub(crate) fn reset_on_close(stream: &mio::net::TcpStream) {
    // It is closed in any case.
    let _ = SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
}

/// The error with which a connection attempt ended, if it did.
pub(crate) fn connect_error(stream: &mio::net::TcpStream) -> Option<io::Error> {
    match SockRef::from(stream).take_error() {
        Ok(err) => err,
        Err(err) => Some(err),
    }
}

fn new(family: IpAddr) -> io::Result<Socket> {
    let domain = if family.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

fn apply(socket: &Socket, family: IpAddr, options: &Options) -> io::Result<()> {
    set_ttl(socket, family, options.ttl)?;
    let min = libc::c_int::from(options.min_ttl);
    if family.is_ipv4() {
        set_int(socket, libc::IPPROTO_IP, libc::IP_MINTTL, min)?;
        let _ = socket.set_tos_v4(TOS_NETWORK_CONTROL);
    } else {
        const IPV6_MINHOPCOUNT: libc::c_int = 73;
        set_int(socket, libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT, min)?;
        let _ = socket.set_tclass_v6(TOS_NETWORK_CONTROL);
    }
    // Older kernels lack it; the session then waits longer after an outage.
    let _ = set_int(socket, libc::IPPROTO_TCP, TCP_RTO_MAX_MS, RTO_MAX_MS);
    Ok(())
}

fn set_ttl(socket: &Socket, family: IpAddr, ttl: u8) -> io::Result<()> {
    if family.is_ipv4() {
        socket.set_ttl_v4(u32::from(ttl))
    } else {
        socket.set_unicast_hops_v6(u32::from(ttl))
    }
}

fn set_int(socket: &Socket, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    #[allow(unsafe_code, reason = "IP_MINTTL, IPV6_MINHOPCOUNT and TCP_RTO_MAX_MS have no safe wrapper")]
    // SAFETY: the kernel reads one int from a live local; the descriptor is open while `socket` is borrowed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(&value).cast(),
            libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("invariant: four octets"),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn with_scope(address: SocketAddr, scope: u32) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => {
            SocketAddrV6::new(*v6.ip(), v6.port(), 0, scope).into()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn loopback(v6: bool) -> SocketAddr {
        if v6 { "[::1]:0".parse().unwrap() } else { "127.0.0.1:0".parse().unwrap() }
    }

    /// Whether a call gets through within a short time.
    fn calls(listener: &mio::net::TcpListener, options: &Options) -> bool {
        let stream = connect(listener.local_addr().unwrap(), options).unwrap();
        let end = Instant::now() + Duration::from_millis(300);
        while Instant::now() < end {
            if stream.peer_addr().is_ok() && listener.accept().is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    #[test]
    fn a_key_must_be_the_same_on_both_sides() {
        for v6 in [false, true] {
            let listener = listen(loopback(v6)).unwrap();
            let address = listener.local_addr().unwrap().ip();
            let with = |key: Option<&str>| Options {
                ttl: 64,
                md5: key.map(|k| k.as_bytes().to_vec()),
                ..Options::default()
            };
            assert!(calls(&listener, &with(None)));
            set_md5(&listener, IpNet::from(address), Some(b"secret")).unwrap();
            assert!(calls(&listener, &with(Some("secret"))), "v6: {v6}");
            assert!(!calls(&listener, &with(Some("wrong"))));
            assert!(!calls(&listener, &with(None)));
            set_md5(&listener, IpNet::from(address), None).unwrap();
            set_md5(&listener, IpNet::from(address), None).unwrap();
            assert!(calls(&listener, &with(None)));
        }
    }

    #[test]
    fn a_key_for_a_prefix_is_for_every_caller_inside() {
        let listener = listen(loopback(false)).unwrap();
        set_md5(&listener, "127.0.0.0/8".parse().unwrap(), Some(b"range")).unwrap();
        let options = Options {
            ttl: 64,
            md5: Some(b"range".to_vec()),
            source: Some("127.0.0.9".parse().unwrap()),
            ..Options::default()
        };
        assert!(calls(&listener, &options));
        assert!(!calls(&listener, &Options { md5: None, ..options }));
    }

    #[test]
    fn a_key_that_is_too_long_is_an_error() {
        let listener = listen(loopback(false)).unwrap();
        let err = set_md5(&listener, "127.0.0.1/32".parse().unwrap(), Some(&[b'x'; 81])).unwrap_err();
        assert!(err.to_string().contains("80 octets"), "{err}");
    }

    #[test]
    fn a_caller_below_the_least_ttl_is_not_heard() {
        let listener = listen(loopback(false)).unwrap();
        let far = Options { ttl: 254, ..Options::default() };
        let near = Options { ttl: 255, ..far.clone() };
        set_int(
            &Socket::from(listener.as_fd().try_clone_to_owned().unwrap()),
            libc::IPPROTO_IP,
            libc::IP_MINTTL,
            255,
        )
        .unwrap();
        assert!(calls(&listener, &near));
        assert!(!calls(&listener, &far));
    }

    #[test]
    fn a_source_that_is_not_ours_is_refused() {
        let options = Options { ttl: 64, source: Some("192.0.2.77".parse().unwrap()), ..Options::default() };
        let err = connect("127.0.0.1:179".parse().unwrap(), &options).unwrap_err();
        assert_eq!(err.raw_os_error(), Some(libc::EADDRNOTAVAIL));
    }
}
