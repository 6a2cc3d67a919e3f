//! All sessions of a host as a value: finds the session that a packet belongs to, and runs the timers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::event::{Event, Status, Time};
use crate::packet::{ControlPacket, Discard, LEN};
use crate::params::{Hops, InvalidSession, Params, SessionKey, validate};
use crate::random::Random;
use crate::session::{Session, Sink};

/// What the shell tells the engine.
#[derive(Debug)]
pub enum Input<'a> {
    /// This session should be, with these parameters. Repeating it changes nothing.
    /// What [`validate`] refuses is ignored here.
    Set(SessionKey, Params),
    /// This session should not be. Its peer is told AdminDown for a detection time.
    Remove(SessionKey),
    /// A datagram arrived.
    Packet(Arrival<'a>),
    /// Time has passed.
    Tick,
}

/// A received datagram and where it came from.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// Its source address.
    pub source: IpAddr,
    /// The address of ours that it was sent to, where known.
    pub destination: Option<IpAddr>,
    /// Index of the interface that it arrived on, where known.
    pub interface: Option<u32>,
    /// Its TTL or hop limit, where known.
    pub ttl: Option<u8>,
    /// Which port it came to.
    pub hops: Hops,
    /// The UDP payload.
    pub bytes: &'a [u8],
}

/// What the engine wants from the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Send `bytes` to the peer of `key`, with TTL 255, from the session's own source port.
    Send {
        /// Names the session's socket; never reused while the session lives.
        session: u32,
        /// From where to where.
        key: SessionKey,
        /// The UDP payload.
        bytes: [u8; LEN],
    },
    /// For the user.
    Event(Event),
    /// The session is gone; so can be its socket.
    Gone {
        /// As in [`Output::Send`].
        session: u32,
    },
}

/// How many packets were thrown away, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Discards([u64; Discard::ALL.len()]);

impl Discards {
    /// Reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Discard, u64)> + '_ {
        Discard::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
    }

    /// The count of one reason.
    pub fn of(&self, reason: Discard) -> u64 {
        self.0.get(reason.index()).copied().unwrap_or(0)
    }

    fn count(&mut self, reason: Discard) {
        if let Some(count) = self.0.get_mut(reason.index()) {
            *count += 1;
        }
    }
}

/// Every BFD session of a host. See the crate's front page.
#[derive(Debug)]
pub struct Engine {
    /// By our discriminator.
    sessions: BTreeMap<u32, Session>,
    by_key: BTreeMap<SessionKey, u32>,
    by_peer: BTreeMap<(Hops, IpAddr), Vec<u32>>,
    /// (time, session); an entry counts while it equals the session's `armed`.
    timers: BinaryHeap<Reverse<(Time, u32)>>,
    sink: Queue,
    discards: Discards,
}

#[derive(Debug)]
struct Queue {
    outputs: VecDeque<Output>,
    random: Random,
}

impl Sink for Queue {
    fn send(&mut self, key: SessionKey, id: u32, packet: &ControlPacket) {
        self.outputs.push_back(Output::Send { session: id, key, bytes: packet.encode() });
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn random(&mut self) -> &mut Random {
        &mut self.random
    }
}

impl Engine {
    /// An engine without sessions. `seed` decides jitter and discriminators; a real host draws it at random.
    pub fn new(seed: u64) -> Self {
        Self {
            sessions: BTreeMap::new(),
            by_key: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            timers: BinaryHeap::new(),
            sink: Queue { outputs: VecDeque::new(), random: Random::new(seed) },
            discards: Discards::default(),
        }
    }

    /// Takes in one input. `now` must not go backwards.
    pub fn handle(&mut self, now: Time, input: Input<'_>) {
        match input {
            Input::Set(key, params) => {
                let _refused: Result<(), InvalidSession> = self.set(now, key, params);
            }
            Input::Remove(key) => self.remove(now, &key),
            Input::Packet(arrival) => {
                let _counted: Result<(), Discard> = self.on_packet(now, &arrival);
            }
            Input::Tick => self.on_time(now),
        }
    }

    /// What to do next, in order.
    pub fn poll(&mut self) -> Option<Output> {
        self.sink.outputs.pop_front()
    }

    /// When to call [`Engine::handle`] with [`Input::Tick`] at the latest.
    pub fn next_timeout(&self) -> Option<Time> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// As [`Input::Set`], and says what is wrong with it.
    pub fn set(&mut self, now: Time, key: SessionKey, params: Params) -> Result<(), InvalidSession> {
        validate(&key, &params)?;
        let id = if let Some(&id) = self.by_key.get(&key) {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.configure(now, params, &mut self.sink);
            }
            id
        } else {
            let id = loop {
                let id = self.sink.random.discriminator();
                if !self.sessions.contains_key(&id) {
                    break id;
                }
            };
            self.sessions.insert(id, Session::new(now, key, params, id, &mut self.sink));
            self.by_key.insert(key, id);
            self.by_peer.entry((key.hops, key.peer)).or_default().push(id);
            id
        };
        self.arm(id);
        self.on_time(now);
        Ok(())
    }

    /// As [`Input::Packet`], and says why it was thrown away.
    pub fn on_packet(&mut self, now: Time, arrival: &Arrival<'_>) -> Result<(), Discard> {
        let result = self.accept(now, arrival);
        if let Err(reason) = result {
            self.discards.count(reason);
        }
        result
    }

    /// Every session, those on their way out too.
    pub fn status(&self, now: Time) -> Vec<Status> {
        self.by_key.values().filter_map(|id| self.sessions.get(id)).map(|s| s.status(now)).collect()
    }

    /// What was thrown away.
    pub fn discards(&self) -> &Discards {
        &self.discards
    }

    /// Whether any session of this family and kind exists: whether its port must be open.
    pub fn listens(&self, v4: bool, hops: Hops) -> bool {
        let range: [IpAddr; 2] = if v4 {
            [Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into()]
        } else {
            [Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::from([0xff; 16]).into()]
        };
        let [first, last] = range.map(|address| (hops, address));
        self.by_peer.range(first..=last).next().is_some()
    }

    fn remove(&mut self, now: Time, key: &SessionKey) {
        let Some(&id) = self.by_key.get(key) else { return };
        if let Some(session) = self.sessions.get_mut(&id) {
            session.remove(now, &mut self.sink);
        }
        self.arm(id);
        self.on_time(now);
    }

    fn accept(&mut self, now: Time, arrival: &Arrival<'_>) -> Result<(), Discard> {
        // RFC 5881 §5. A multihop session's own minimum comes below.
        if arrival.hops == Hops::Single && arrival.ttl != Some(255) {
            return Err(Discard::Ttl);
        }
        let packet = ControlPacket::decode(arrival.bytes)?;
        let id = if packet.your_discriminator == 0 {
            self.by_addresses(arrival).ok_or(Discard::NoSession)?
        } else {
            packet.your_discriminator
        };
        let session = self.sessions.get_mut(&id).ok_or(Discard::YourDiscriminator)?;
        if !belongs(&session.key, arrival) {
            return Err(Discard::Source);
        }
        if arrival.hops == Hops::Multi && arrival.ttl.is_none_or(|ttl| ttl < session.min_ttl()) {
            return Err(Discard::Ttl);
        }
        let result = session.on_packet(now, &packet, &mut self.sink);
        self.arm(id);
        result
    }

    /// The session for a packet that does not name one: RFC 5881 §3, RFC 5883 §3.
    fn by_addresses(&self, arrival: &Arrival<'_>) -> Option<u32> {
        let ids = self.by_peer.get(&(arrival.hops, arrival.source))?;
        let sessions = ids.iter().filter_map(|id| self.sessions.get(id));
        sessions
            .filter(|session| belongs(&session.key, arrival))
            .max_by_key(|session| {
                let key = &session.key;
                (!session.leaving(), u8::from(key.local.is_some()) + u8::from(key.interface.is_some()))
            })
            .map(|session| session.id)
    }

    fn on_time(&mut self, now: Time) {
        while let Some(&Reverse((at, id))) = self.timers.peek() {
            if at > now {
                return;
            }
            self.timers.pop();
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            if session.armed != Some(at) {
                continue;
            }
            session.armed = None;
            session.on_time(now, &mut self.sink);
            if session.gone(now) {
                let key = session.key;
                self.forget(id, &key);
            } else {
                self.arm(id);
            }
        }
    }

    fn arm(&mut self, id: u32) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(wake) = session.wake() else { return };
        if session.armed.is_none_or(|armed| wake < armed) {
            session.armed = Some(wake);
            self.timers.push(Reverse((wake, id)));
        }
    }

    fn forget(&mut self, id: u32, key: &SessionKey) {
        self.sessions.remove(&id);
        self.by_key.remove(key);
        if let Some(ids) = self.by_peer.get_mut(&(key.hops, key.peer)) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_peer.remove(&(key.hops, key.peer));
            }
        }
        self.sink.outputs.push_back(Output::Gone { session: id });
    }
}

/// Whether a packet came the way that the session's packets come.
fn belongs(key: &SessionKey, arrival: &Arrival<'_>) -> bool {
    let matches = |wanted: Option<IpAddr>| match (wanted, arrival.destination) {
        (Some(wanted), Some(actual)) => wanted == actual,
        _ => true,
    };
    key.hops == arrival.hops
        && key.peer == arrival.source
        && matches(key.local)
        && key.interface.is_none_or(|wanted| arrival.interface.is_none_or(|actual| actual == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listens_where_a_session_is() {
        let mut engine = Engine::new(1);
        let peers =
            [("192.0.2.1", Hops::Single), ("255.255.255.254", Hops::Multi), ("fe80::1", Hops::Single)];
        let all = || [Hops::Single, Hops::Multi].map(|hops| [true, false].map(|v4| (v4, hops))).concat();
        let mut open = Vec::new();
        for (peer, hops) in peers {
            let peer: IpAddr = peer.parse().unwrap();
            let key = SessionKey { peer, local: None, interface: Some(1), hops };
            engine.set(Time::ZERO, key, Params::default()).unwrap();
            open.push((peer.is_ipv4(), hops));
            for (v4, hops) in all() {
                assert_eq!(engine.listens(v4, hops), open.contains(&(v4, hops)), "{v4} {hops:?}");
            }
        }
    }
}
