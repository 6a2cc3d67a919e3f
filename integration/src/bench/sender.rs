//! A BGP neighbour that only talks: it opens a session, says what it is given, and throws away what it hears.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bird_packet::{
    AttrBuilder, Family, MessageKind, NextHop, Nlri, Origin, PeerKind, Prefix4, SessionContext, UpdatePacker,
    encode_end_of_rib,
};

use crate::lab::Namespace;
use crate::raw::{self, Framer};

/// An established session.
#[derive(Debug)]
pub struct Sender {
    stream: TcpStream,
    reader: JoinHandle<()>,
}

impl Sender {
    /// Calls `peer` from `space` until it takes the call, and waits for its KEEPALIVE.
    pub fn connect(
        space: &Namespace,
        peer: SocketAddr,
        asn: u32,
        router_id: Ipv4Addr,
    ) -> anyhow::Result<Self> {
        Self::begin(dial(space, None, peer)?, asn, router_id)
    }

    /// The same from one of several addresses, which is the router id too.
    pub fn connect_from(
        space: &Namespace,
        own: Ipv4Addr,
        peer: SocketAddr,
        asn: u32,
    ) -> anyhow::Result<Self> {
        Self::begin(dial(space, Some(own), peer)?, asn, own)
    }

    fn begin(mut stream: TcpStream, asn: u32, router_id: Ipv4Addr) -> anyhow::Result<Self> {
        stream.write_all(&[raw::encoded(&raw::open_ipv4(asn, router_id, 90)), raw::keepalive()].concat())?;
        let (mut framer, mut chunk) = (Framer::default(), [0u8; 4096]);
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        'up: loop {
            let read = stream.read(&mut chunk).context("bench: no KEEPALIVE from the peer")?;
            anyhow::ensure!(read > 0, "bench: the peer closes the session");
            framer.feed(chunk.get(..read).unwrap_or_default());
            while let Some(message) = framer.message()? {
                match message.kind {
                    MessageKind::Keepalive => break 'up,
                    MessageKind::Open => {}
                    other => bail!("bench: the peer answers the OPEN with {other:?}"),
                }
            }
        }
        stream.set_read_timeout(None)?;
        let mut other = stream.try_clone()?;
        let reader = thread::spawn(move || {
            let mut sink = vec![0u8; 65536];
            while matches!(other.read(&mut sink), Ok(read) if read > 0) {}
        });
        Ok(Self { stream, reader })
    }

    /// Writes messages to the session; when the last byte was taken by the kernel.
    pub fn say(&mut self, messages: &[u8]) -> anyhow::Result<Instant> {
        self.stream.write_all(messages).context("bench: the session broke")?;
        Ok(Instant::now())
    }

    /// Ends the session.
    pub fn close(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        let _ = self.reader.join();
    }
}

fn dial(space: &Namespace, own: Option<Ipv4Addr>, peer: SocketAddr) -> anyhow::Result<TcpStream> {
    let from = own.unwrap_or(Ipv4Addr::UNSPECIFIED).into();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match raw::dial(space, from, peer, Duration::from_secs(1), |_| Ok(())) {
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(50)),
            outcome => return outcome,
        }
    }
}

/// `count` distinct /24s and longer, from 20.0.0.0 on.
pub fn prefixes(count: u32) -> Vec<Prefix4> {
    (0..count)
        .filter_map(|i| Prefix4::new(Ipv4Addr::from(u32::from_be_bytes([20, 0, 0, 0]) + (i << 8)), 24))
        .collect()
}

/// UPDATEs that announce the prefixes with `kinds` different attribute sets, and End-of-RIB.
pub fn announcements(
    prefixes: &[Prefix4],
    asn: u32,
    next_hop: Ipv4Addr,
    kinds: u32,
) -> anyhow::Result<Vec<u8>> {
    let context = SessionContext::new(PeerKind::External);
    let (mut packer, mut out) = (UpdatePacker::new(), Vec::new());
    let share = prefixes.len().div_ceil(usize::try_from(kinds)?).max(1);
    for (kind, some) in (0u32..).zip(prefixes.chunks(share)) {
        let mut attributes = Vec::new();
        AttrBuilder::new()
            .origin(Origin::Igp)
            .as_path(&[asn, 65_000 + kind % 500])
            .med(Some(kind))
            .write(&mut attributes)?;
        let routes = some.iter().map(|&prefix| Nlri::plain(prefix));
        packer.announce(
            &context,
            Family::Ipv4Unicast,
            &attributes,
            NextHop { addr: next_hop.into(), link_local: None },
            routes,
            &mut out,
        )?;
    }
    encode_end_of_rib(Family::Ipv4Unicast, &mut out);
    Ok(out)
}

/// UPDATEs that withdraw the prefixes.
pub fn withdrawals(prefixes: &[Prefix4]) -> anyhow::Result<Vec<u8>> {
    let (mut packer, mut out) = (UpdatePacker::new(), Vec::new());
    let routes = prefixes.iter().map(|&prefix| Nlri::plain(prefix));
    packer.withdraw(&SessionContext::new(PeerKind::External), Family::Ipv4Unicast, routes, &mut out)?;
    Ok(out)
}
