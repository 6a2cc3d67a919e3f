//! Echo requests without the ping program, so that the demo needs no package.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};

use super::Namespace;

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;

impl Namespace {
    /// Sends one echo request from here and returns the round-trip time, or `None` without an answer in time.
    pub fn ping(&self, to: Ipv4Addr, limit: Duration) -> anyhow::Result<Option<Duration>> {
        self.sysctl("net/ipv4/ping_group_range", "0 0");
        self.run(move || echo(to, limit)).with_context(|| format!("lab: ping {to} from {}", self.name()))
    }
}

/// One echo over the kernel's unprivileged ICMP socket; the kernel fills in identifier and checksum.
fn echo(to: Ipv4Addr, limit: Duration) -> anyhow::Result<Option<Duration>> {
    let mut socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4))?;
    socket.connect(&SocketAddr::from((to, 0)).into())?;
    let start = Instant::now();
    if socket.send(&[ECHO_REQUEST, 0, 0, 0, 0, 0, 0, 1]).is_err() {
        return Ok(None);
    }
    let mut answer = [0u8; 64];
    while let Some(left) = limit.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut answer) {
            Ok(length) if length >= 8 && answer[0] == ECHO_REPLY => return Ok(Some(start.elapsed())),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    Ok(None)
}
