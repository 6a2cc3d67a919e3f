//! One TCP connection: reads into the loop's buffer, writes reference-counted chunks with `writev`.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Instant;

use bird_speaker::ConnId;
use bytes::{Buf as _, Bytes};
use mio::Token;
use mio::net::TcpStream;

use crate::sock::Options;

/// Chunks given to one `writev`.
const IOVECS: usize = 64;
/// Octets taken from the speaker at a time; the rest stays there, shared with other peers.
const HANDED_OUT: usize = 256 * 1024;
/// Octets written before other connections have their turn.
const TURN: usize = 1024 * 1024;

/// A connection that runs or is being made.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) id: ConnId,
    pub(crate) token: Token,
    pub(crate) stream: TcpStream,
    pub(crate) remote: SocketAddr,
    /// How we call, to call again; none for a connection that we accepted.
    pub(crate) dialled: Option<Options>,
    pub(crate) since: Instant,
    pub(crate) connecting: bool,
    /// The kernel said that there is something to read, and we did not reach its end yet.
    pub(crate) readable: bool,
    /// The last write took everything.
    pub(crate) writable: bool,
    /// To be closed when everything is written.
    pub(crate) closing: bool,
    out: VecDeque<Bytes>,
}

/// How far a flush came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Everything is written.
    All,
    /// There may be more, but others have their turn now.
    Some,
    /// The peer does not read fast enough; the socket says when it does.
    Blocked,
}

impl Conn {
    /// A connection being made, or an accepted one.
    pub(crate) fn new(
        id: ConnId,
        token: Token,
        stream: TcpStream,
        remote: SocketAddr,
        dialled: Option<Options>,
        now: Instant,
    ) -> Self {
        let connecting = dialled.is_some();
        Self {
            id,
            token,
            stream,
            remote,
            dialled,
            since: now,
            connecting,
            readable: false,
            writable: !connecting,
            closing: false,
            out: VecDeque::new(),
        }
    }

    /// Reads once. `Ok(0)` is the end of the stream; `WouldBlock` clears [`Conn::readable`].
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    if e.kind() == io::ErrorKind::WouldBlock {
                        self.readable = false;
                    }
                    return Err(e);
                }
                Ok(n) => return Ok(n),
            }
        }
    }

    /// Writes what is queued, asking `more` for the next chunks when everything before is written.
    ///
    /// `more` adds chunks up to about its argument in octets and adds none when there is nothing.
    pub(crate) fn flush(&mut self, mut more: impl FnMut(usize, &mut Vec<Bytes>)) -> io::Result<Flushed> {
        let mut sent = 0;
        loop {
            if sent >= TURN {
                return Ok(Flushed::Some);
            }
            if self.out.is_empty() {
                let mut chunks = Vec::new();
                more(HANDED_OUT, &mut chunks);
                if chunks.is_empty() {
                    return Ok(Flushed::All);
                }
                self.out.extend(chunks);
            }
            if !self.writable {
                return Ok(Flushed::Blocked);
            }
            let slices: Vec<IoSlice<'_>> = self.out.iter().take(IOVECS).map(|c| IoSlice::new(c)).collect();
            match self.stream.write_vectored(&slices) {
                Ok(written) => {
                    sent += written;
                    self.advance(written);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.writable = false;
                    return Ok(Flushed::Blocked);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn advance(&mut self, mut written: usize) {
        while written > 0 {
            let Some(first) = self.out.front_mut() else { return };
            if first.len() > written {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.out.pop_front();
        }
    }
}
