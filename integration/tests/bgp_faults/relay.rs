//! A slow wire for connections: two ends each take it for the other, and calls of both are let through at once.
//!
//! ```text
//!   left end -- [10.98.0.10 ... relay ... 10.98.0.10] -- right end        one pair; the next has .11, and so on
//! ```
//!
//! A pair's calls wait until both ends have called. Every piece of what is said then waits a moment of its own, from a seed;
//! and no KEEPALIVE passes before all four OPENs of the pair have, so that the two connections really collide.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bird_packet::{MessageKind, Notification};
use integration::lab::Namespace;
use integration::raw::{self, Framer};

use crate::scene::{DUT, at};

/// How long a KEEPALIVE waits for the OPENs of the other connection.
const HELD_UP: Duration = Duration::from_secs(1);

/// Who made a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Left,
    Right,
}

/// The relay, its accepting threads, and what it carries.
pub(crate) struct Relay {
    spaces: [Namespace; 2],
    calls: Receiver<(End, usize, TcpStream)>,
    pairs: Vec<Pair>,
    seed: u64,
    forgetful: bool,
}

#[derive(Default)]
struct Pair {
    /// Calls of the left and the right end that wait.
    waiting: [VecDeque<TcpStream>; 2],
    carried: Option<Arc<Carried>>,
}

/// Two connections of one pair, the left end's and the right end's.
#[derive(Default)]
struct Carried {
    seen: Mutex<Seen>,
    changed: Condvar,
    /// Everything that has to be shut to end them.
    streams: Mutex<Vec<TcpStream>>,
}

#[derive(Debug, Default)]
struct Seen {
    conns: [Conn; 2],
}

#[derive(Debug, Default)]
struct Conn {
    /// OPENs have passed, from its maker and to it.
    opened: [bool; 2],
    /// KEEPALIVEs have passed, from its maker and to it.
    alive: [bool; 2],
    notification: Option<(u8, u8)>,
    closed: bool,
}

impl Relay {
    /// Between the ends in front of `spaces`, whose addresses from .10 on it takes. `forgetful`: an end may leave one of the
    /// two connections alone, without a word and without hanging up.
    pub(crate) fn start(
        spaces: [Namespace; 2],
        pairs: u8,
        seed: u64,
        forgetful: bool,
    ) -> anyhow::Result<Self> {
        let (sender, calls) = channel();
        for (space, end) in spaces.iter().zip([End::Left, End::Right]) {
            let listener = space.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 179)))?;
            let sender: Sender<_> = sender.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let Ok(SocketAddr::V4(own)) = stream.local_addr() else { continue };
                    let pair = usize::from(own.ip().octets()[3]).wrapping_sub(10);
                    if sender.send((end, pair, stream)).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self { spaces, calls, pairs: (0..pairs).map(|_| Pair::default()).collect(), seed, forgetful })
    }

    /// Waits until both ends of every pair have called, lets the calls through, and waits until one connection of each
    /// pair is left and alive. How many pairs of calls crossed.
    pub(crate) fn cross(&mut self, limit: Duration) -> anyhow::Result<u32> {
        let deadline = Instant::now() + limit;
        let mut crossed = 0;
        while self.pairs.iter().any(|p| p.carried.is_none()) {
            self.take_calls(deadline)?;
            for number in 0..self.pairs.len() {
                crossed += u32::from(self.let_through(number)?);
            }
        }
        loop {
            let Err(why) = self.settled() else { return Ok(crossed) };
            ensure!(Instant::now() < deadline, "{why:#}");
            std::thread::sleep(Duration::from_millis(5));
            // GoBGP may end both; whoever calls then is carried without being held up.
            for number in 0..self.pairs.len() {
                let dead = self.pairs[number]
                    .carried
                    .as_ref()
                    .is_some_and(|c| c.seen().conns.iter().all(|c| c.closed));
                if dead {
                    self.pairs[number].carried = None;
                }
            }
            while self.pairs.iter().any(|p| p.carried.is_none()) {
                self.take_calls(deadline)?;
                for number in 0..self.pairs.len() {
                    self.let_through(number)?;
                }
            }
        }
    }

    /// Whose connection is left of each pair; or what is not settled yet.
    pub(crate) fn settled(&self) -> anyhow::Result<Vec<End>> {
        let left = |(number, pair): (usize, &Pair)| {
            let carried = pair.carried.as_ref().context("no calls")?;
            let seen = carried.seen();
            for said in seen.conns.iter().filter_map(|c| c.notification) {
                ensure!(
                    said == (6, 7),
                    "pair {number}: NOTIFICATION {said:?}, not Cease, Connection Collision Resolution"
                );
            }
            match &seen.conns {
                [left, right] if left.lives() && self.over(right) => Ok(End::Left),
                [left, right] if right.lives() && self.over(left) => Ok(End::Right),
                _ => anyhow::bail!("pair {number}: {seen:?}"),
            }
        };
        self.pairs.iter().enumerate().map(left).collect()
    }

    fn over(&self, conn: &Conn) -> bool {
        conn.closed || self.forgetful && conn.opened != [true; 2]
    }

    /// Ends every connection, and forgets calls that came meanwhile.
    pub(crate) fn hang_up(&mut self) {
        for pair in &mut self.pairs {
            if let Some(carried) = pair.carried.take() {
                carried.shut();
            }
            pair.waiting = Default::default();
        }
        while self.calls.try_recv().is_ok() {}
    }

    /// Takes at least one call.
    fn take_calls(&mut self, deadline: Instant) -> anyhow::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        let first = self.calls.recv_timeout(left.min(Duration::from_millis(20)));
        for (end, number, stream) in first.into_iter().chain(self.calls.try_iter()) {
            let Some(pair) = self.pairs.get_mut(number) else { continue };
            pair.waiting[end as usize].push_back(stream);
        }
        for waiting in self.pairs.iter_mut().flat_map(|p| &mut p.waiting) {
            waiting.retain(|stream| !gone(stream));
        }
        let missing = || {
            let pairs = self.pairs.iter().enumerate().filter(|(_, p)| p.carried.is_none());
            pairs.map(|(n, p)| (n, p.waiting[0].len(), p.waiting[1].len())).collect::<Vec<_>>()
        };
        ensure!(Instant::now() < deadline, "pairs, and the calls of their ends: {:?}", missing());
        Ok(())
    }

    /// Lets both calls of a pair through, if both are there.
    fn let_through(&mut self, number: usize) -> anyhow::Result<bool> {
        let pair = &mut self.pairs[number];
        if pair.carried.is_some() || pair.waiting.iter().any(VecDeque::is_empty) {
            return Ok(false);
        }
        let own = at(10 + u8::try_from(number)?).into();
        let carried = Arc::new(Carried::default());
        // The call of the left end goes on to the right one.
        for (caller, called) in [(0, 1), (1, 0)] {
            let near = pair.waiting[caller].pop_front().context("invariant: just seen")?;
            let far = dial(&self.spaces[called], own).with_context(|| format!("pair {number}"))?;
            carried.streams().extend([near.try_clone()?, far.try_clone()?]);
            for (from, to, way) in [(near.try_clone()?, far.try_clone()?, 0), (far, near, 1)] {
                self.seed =
                    self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let (carried, seed) = (Arc::clone(&carried), self.seed);
                std::thread::spawn(move || {
                    pump(&carried, caller, way, from, to, seed);
                });
            }
        }
        pair.carried = Some(carried);
        Ok(true)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.hang_up();
    }
}

impl Conn {
    fn lives(&self) -> bool {
        self.alive == [true; 2] && !self.closed
    }
}

impl Carried {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn streams(&self) -> MutexGuard<'_, Vec<TcpStream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shut(&self) {
        for stream in self.streams().iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Whether the caller has hung up already.
fn gone(stream: &TcpStream) -> bool {
    let _ = stream.set_nonblocking(true);
    let seen = stream.peek(&mut [0]);
    let _ = stream.set_nonblocking(false);
    match seen {
        Ok(0) => true,
        Ok(_) => false,
        Err(err) => err.kind() != std::io::ErrorKind::WouldBlock,
    }
}

fn dial(space: &Namespace, own: IpAddr) -> anyhow::Result<TcpStream> {
    raw::dial(space, own, DUT, Duration::from_secs(5), |_| Ok(()))
}

/// Carries one way of connection `conn` of a pair, until it ends.
fn pump(carried: &Carried, conn: usize, way: usize, mut from: TcpStream, mut to: TcpStream, mut seed: u64) {
    let (mut framer, mut chunk) = (Framer::default(), [0; 4096]);
    loop {
        let length = from.read(&mut chunk).unwrap_or_default();
        if length == 0 {
            break;
        }
        framer.feed(&chunk[..length]);
        while let Ok(Some(message)) = framer.message() {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            std::thread::sleep(Duration::from_micros(1000 + seed % 15_000));
            let kind = message.kind;
            if kind == MessageKind::Keepalive {
                let undecided = |seen: &mut Seen| {
                    seen.conns.iter().any(|c| c.opened != [true; 2]) && !seen.conns.iter().any(|c| c.closed)
                };
                let seen = carried.seen();
                let _ = carried.changed.wait_timeout_while(seen, HELD_UP, undecided);
            }
            let said = (kind == MessageKind::Notification).then(|| Notification::decode(message.body));
            let _ = to.write_all(&raw::message(kind, message.body));
            let mut seen = carried.seen();
            match kind {
                MessageKind::Open => seen.conns[conn].opened[way] = true,
                MessageKind::Keepalive => seen.conns[conn].alive[way] = true,
                _ => {}
            }
            if let Some(Ok(said)) = said {
                seen.conns[conn].notification.get_or_insert((said.code, said.subcode));
            }
            carried.changed.notify_all();
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
    carried.seen().conns[conn].closed = true;
    carried.changed.notify_all();
}
