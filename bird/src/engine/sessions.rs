//! Connections: calls, callers, what is read, written and lost.

use std::io;
use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use bird_speaker::config::{Config, PeerConfig};
use bird_speaker::io::{ConnectError, Dial};
use bird_speaker::{ConnId, Input};
use mio::net::TcpStream;
use mio::{Interest, Token};

use super::{Engine, LAST_WORDS, READ_TURN, SEND_TURN, STALE_CALL};
use crate::api::{self, mrt::Passing};
use crate::conn::{Conn, Flushed};
use crate::report;
use crate::sock::{self, Options};

impl Engine {
    pub(super) fn connect(&mut self, dial: Dial) {
        let md5 = match (dial.password, self.plan.as_ref().and_then(|p| p.passwords.get(&*dial.peer))) {
            (true, Some(key)) => Some(key.0.clone()),
            _ => None,
        };
        let scope = dial.interface.as_ref().and_then(|name| self.kernel.link_index(name)).unwrap_or(0);
        let options = Options { source: dial.source, ttl: dial.ttl, min_ttl: dial.min_ttl, md5, scope };
        match sock::connect(dial.remote, &options) {
            Ok(stream) => {
                if let Err(err) = self.register(dial.conn, stream, dial.remote, Some(options)) {
                    self.connect_failed(dial.conn, &err);
                }
            }
            Err(err) => self.connect_failed(dial.conn, &err),
        }
    }

    fn connect_failed(&mut self, conn: ConnId, err: &io::Error) {
        self.pass(Input::ConnectFailed { conn, reason: reason_of(err) });
    }

    fn register(
        &mut self,
        id: ConnId,
        mut stream: TcpStream,
        remote: SocketAddr,
        dialled: Option<Options>,
    ) -> io::Result<()> {
        let token = self.token();
        self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        self.by_token.insert(token, id);
        self.conns.insert(id, Conn::new(id, token, stream, remote, dialled, Instant::now()));
        Ok(())
    }

    pub(super) fn accept(&mut self, token: Token) {
        while let Some(accepted) = self.listeners.accept(token) {
            let Ok((stream, remote)) = accepted else { continue };
            let Ok(local) = stream.local_addr() else { continue };
            let now = self.elapsed();
            let interface = match remote {
                SocketAddr::V6(v6) if v6.scope_id() != 0 => self.kernel.link_name(v6.scope_id()),
                _ => None,
            };
            let Some(speaker) = &mut self.speaker else { continue };
            let Ok(id) = speaker.accept_on(now, remote, local, interface.clone()) else {
                self.drain();
                continue;
            };
            let options = accepted_options(speaker.config(), remote, interface.as_deref());
            let set_up = sock::accepted(&stream, remote.ip(), &options)
                .and_then(|()| self.register(id, stream, remote, None));
            if let Err(err) = set_up {
                self.pass(Input::Closed { conn: id, reason: err.to_string() });
            }
            self.pass_other_address(id, local);
            self.watch.stale |= self.watch.strict;
            self.drain();
        }
    }

    fn pass_other_address(&mut self, conn: ConnId, local: SocketAddr) {
        if let Some(address) = self.kernel.other_address(local) {
            self.pass(Input::OtherAddress { conn, address });
        }
    }

    pub(super) fn socket_ready(&mut self, id: ConnId, event: &mio::event::Event) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.connecting {
            if let Some(err) = sock::connect_error(&conn.stream) {
                self.drop_conn(id);
                self.connect_failed(id, &err);
                self.drain();
                return;
            }
            if !event.is_writable() && !event.is_readable() {
                return;
            }
            let Ok(local) = conn.stream.local_addr() else { return };
            if conn.stream.peer_addr().is_err() {
                return;
            }
            conn.connecting = false;
            conn.writable = true;
            self.pass_other_address(id, local);
            self.pass(Input::Connected { conn: id, local });
            self.watch.stale |= self.watch.strict;
        }
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            if !conn.readable {
                self.readable.push_back(id);
            }
            conn.readable = true;
        }
        if event.is_writable() {
            conn.writable = true;
            self.transmit.push_back(id);
        }
        // What there is to send is sent after reading, once for all that became ready.
        self.carry_out();
    }

    /// One piece from each connection that has something, in turn, as many as there is time for; then sends what came of it.
    pub(super) fn read_connections(&mut self, buffer: &mut [u8]) {
        let stop = Instant::now() + READ_TURN;
        for _ in 0..self.readable.len() {
            let Some(id) = self.readable.pop_front() else { return };
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            match conn.read(buffer) {
                Ok(0) => self.lost(id, "the peer closed the connection".into()),
                Ok(n) => {
                    self.readable.push_back(id);
                    self.record(id, &buffer[..n]);
                    self.pass(Input::Received { conn: id, data: &buffer[..n] });
                    self.carry_out();
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => self.lost(id, report::connection_error(&e)),
            }
            if Instant::now() >= stop {
                break;
            }
        }
        self.drain();
    }

    /// Hands what arrives to who records it.
    fn record(&mut self, id: ConnId, data: &[u8]) {
        if !self.api.records(false) {
            return;
        }
        let Some(speaker) = &self.speaker else { return };
        let Some(peer) = speaker.raw_peer_of(id) else { return };
        let at = SystemTime::now();
        for bytes in api::mrt::messages(speaker.unfinished(id), data) {
            self.api.record(&Passing { peer: &peer, sent: false, bytes: &bytes, at });
        }
    }

    fn lost(&mut self, id: ConnId, reason: String) {
        let closing = self.conns.get(&id).is_some_and(|c| c.closing);
        self.drop_conn(id);
        if closing {
            self.discard(id);
        } else {
            self.input(Input::Closed { conn: id, reason });
        }
    }

    /// Sends what there is to send, to each connection a piece in turn; what there is no time for stays for the next turn.
    pub(super) fn send(&mut self) {
        let stop = Instant::now() + SEND_TURN;
        while let Some(id) = self.transmit.pop_front() {
            self.flush(id);
            if Instant::now() >= stop {
                return;
            }
        }
    }

    fn flush(&mut self, id: ConnId) {
        let now = self.elapsed();
        let (sent, api) = (&mut self.measure.sent, &mut self.api);
        let (Some(conn), Some(speaker)) = (self.conns.get_mut(&id), &mut self.speaker) else { return };
        if conn.connecting {
            return;
        }
        let tapped = if api.records(true) { speaker.raw_peer_of(id) } else { None };
        let flushed = conn.flush(|budget, out| {
            speaker.transmit(now, id, budget, out);
            sent.note(out);
            if let Some(peer) = &tapped {
                let at = SystemTime::now();
                for bytes in out.iter().flat_map(|chunk| api::mrt::messages(&[], chunk)) {
                    api.record(&Passing { peer, sent: true, bytes: &bytes, at });
                }
            }
        });
        match flushed {
            Ok(Flushed::All) if conn.closing => self.drop_conn(id),
            Ok(Flushed::Some) => self.transmit.push_back(id),
            Ok(_) => {}
            Err(err) => {
                let reason = report::connection_error(&err);
                let closing = conn.closing;
                self.drop_conn(id);
                if closing {
                    self.discard(id);
                } else {
                    self.pass(Input::Closed { conn: id, reason });
                }
            }
        }
    }

    pub(super) fn close(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return self.discard(id) };
        conn.closing = true;
        if conn.connecting {
            self.drop_conn(id);
            self.discard(id);
        } else {
            self.transmit.push_back(id);
            self.last_words.push_back((Instant::now() + LAST_WORDS, id));
        }
    }

    /// Closes the connections whose last words nobody reads.
    pub(super) fn cut_short(&mut self, now: Instant) {
        while let Some((at, id)) = self.last_words.front().copied() {
            if at > now {
                return;
            }
            self.last_words.pop_front();
            if let Some(conn) = self.conns.get(&id) {
                // With a reset, or the kernel would go on offering what it has to a closed window.
                sock::reset_on_close(&conn.stream);
                self.drop_conn(id);
                self.discard(id);
            }
        }
    }

    /// Takes what a closed connection still had to say, so that its handle ends.
    fn discard(&mut self, id: ConnId) {
        let now = self.elapsed();
        if let Some(speaker) = &mut self.speaker {
            let mut out = Vec::new();
            while speaker.transmit(now, id, usize::MAX, &mut out) > 0 {
                out.clear();
            }
        }
    }

    fn drop_conn(&mut self, id: ConnId) {
        if let Some(mut conn) = self.conns.remove(&id) {
            self.by_token.remove(&conn.token);
            let _ = self.poll.registry().deregister(&mut conn.stream);
        }
    }

    /// Tries the addresses that could not be listened on.
    pub(super) fn listen_again(&mut self) {
        self.listeners.retry(self.poll.registry(), &mut self.tokens);
    }

    /// A link or an address came: what failed for want of it is tried now.
    pub(super) fn try_again(&mut self) {
        self.listen_again();
        let stale: Vec<ConnId> = self
            .conns
            .values()
            .filter(|c| c.connecting && c.since.elapsed() > STALE_CALL)
            .map(|c| c.id)
            .collect();
        for id in stale {
            self.call_again(id);
        }
        let now = self.elapsed();
        if let Some(speaker) = &mut self.speaker {
            speaker.wake(now);
        }
        self.drain();
    }

    /// Makes the same call on a new socket: the SYN of the old one waits for its retransmission timer.
    fn call_again(&mut self, id: ConnId) {
        let Some((remote, options)) = self.conns.get(&id).and_then(|c| Some((c.remote, c.dialled.clone()?)))
        else {
            return;
        };
        self.drop_conn(id);
        let again = sock::connect(remote, &options)
            .and_then(|stream| self.register(id, stream, remote, Some(options)));
        if let Err(err) = again {
            self.connect_failed(id, &err);
        }
    }
}

/// What an accepted connection gets: the settings of the peer or range that the caller belongs to.
fn accepted_options(config: &Config, remote: SocketAddr, interface: Option<&str>) -> Options {
    // Neighbours on different links may have the same link-local address.
    let here =
        |p: &&PeerConfig| interface.is_none() || p.interface.as_deref().is_none_or(|i| Some(i) == interface);
    let peer = config.peers.iter().filter(here).find(|p| p.address == remote.ip());
    let range = || config.listen_ranges.iter().find(|r| r.range.contains(&remote.ip())).map(|r| &r.template);
    let (ttl_security, multihop) = peer.or_else(range).map_or((None, 64), |p| (p.ttl_security, p.multihop));
    match ttl_security {
        Some(hops) => Options { ttl: 255, min_ttl: 255 - hops.saturating_sub(1), ..Options::default() },
        None => Options { ttl: multihop, ..Options::default() },
    }
}

fn reason_of(err: &io::Error) -> ConnectError {
    match err.raw_os_error() {
        Some(libc::ECONNREFUSED) => ConnectError::Refused,
        Some(libc::ETIMEDOUT) => ConnectError::TimedOut,
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EHOSTDOWN) => {
            ConnectError::Unreachable
        }
        Some(libc::EADDRNOTAVAIL) => ConnectError::BadSource,
        Some(errno) => ConnectError::Other(errno),
        None => ConnectError::TimedOut,
    }
}
