//! BFD of `bird/bfd`: any datagram, and an engine with sessions under a script of datagrams and time.

use std::net::IpAddr;
use std::time::Duration;

use bird_bfd::{
    Arrival, Change, ControlPacket, Engine, Hops, Input, LEN, Output, Params, SessionKey, State, Time,
};

/// A script, an octet for what to do and its arguments behind it; datagrams are in it as they would arrive.
pub fn bfd(data: &[u8]) {
    decode(data);
    let Some((options, mut rest)) = data.split_first() else { return };
    let mut world = World::new(*options);
    while let [what, with, tail @ ..] = rest {
        rest = tail;
        match what % 8 {
            0 => world.pass(Duration::from_millis(u64::from(*with) * 20)),
            1 => world.pass(Duration::from_micros(u64::from(*with) << 12)),
            2 => world.set(usize::from(*with), with >> 2),
            3 => world.remove(usize::from(*with)),
            _ => {
                let (datagram, tail) = rest.split_at(rest.len().min(LEN));
                rest = tail;
                world.receive(*what, *with, datagram);
            }
        }
        world.drain();
    }
    world.pass(Duration::from_secs(4));
}

/// What is accepted is written again octet by octet; what is not has a reason.
fn decode(bytes: &[u8]) {
    match ControlPacket::decode(bytes) {
        Ok(packet) => {
            let again = packet.encode();
            assert_eq!(ControlPacket::decode(&again), Ok(packet));
            assert_eq!((&again[..3], again[3], &again[4..]), (&bytes[..3], 24, &bytes[4..LEN]));
            assert!(packet.multiplier > 0 && packet.my_discriminator > 0);
        }
        Err(reason) => assert!(!reason.to_string().is_empty()),
    }
}

struct World {
    engine: Engine,
    now: Time,
    up: [bool; 3],
    /// What each session said last.
    said: [Option<ControlPacket>; 3],
}

fn key(at: usize) -> SessionKey {
    let multi = at % 3 == 2;
    SessionKey {
        peer: IpAddr::from([192, 0, 2, if multi { 3 } else { 2 }]),
        local: (at % 3 != 1).then_some([192, 0, 2, 1].into()),
        interface: (at % 3 == 1).then_some(3),
        hops: if multi { Hops::Multi } else { Hops::Single },
    }
}

fn params(options: u8) -> Params {
    let plain = Params::default();
    Params {
        min_tx: Duration::from_millis(if options & 1 == 0 { 300 } else { 10 }),
        min_rx: Duration::from_millis(if options & 2 == 0 { 300 } else { 50 }),
        multiplier: if options & 4 == 0 { 3 } else { 1 },
        passive: options & 8 != 0,
        admin_down: options & 16 != 0,
        control_plane_independent: options & 32 != 0,
        damping: plain.damping.filter(|_| options & 1 == 0),
        ..plain
    }
}

impl World {
    fn new(options: u8) -> Self {
        let now = Duration::from_secs(1);
        let mut world = Self { engine: Engine::new(7), now, up: [false; 3], said: [None; 3] };
        for at in 0..=usize::from(options >> 6) % 3 {
            world.set(at, options);
        }
        world
    }

    fn set(&mut self, at: usize, options: u8) {
        self.engine.handle(self.now, Input::Set(key(at), params(options)));
        self.drain();
    }

    fn remove(&mut self, at: usize) {
        self.engine.handle(self.now, Input::Remove(key(at)));
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.engine.next_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.engine.handle(self.now, Input::Tick);
            self.drain();
            assert!(self.engine.next_timeout().is_none_or(|next| next > self.now), "it spins");
        }
        self.now = end;
    }

    /// A datagram for one of the sessions, with the discriminator that it expects where the script wants that.
    fn receive(&mut self, what: u8, with: u8, datagram: &[u8]) {
        let at = usize::from(with) % 3;
        let mut bytes = datagram.to_vec();
        if what & 8 != 0
            && let (Some(said), Some(slot)) = (self.said[at], bytes.get_mut(8..12))
        {
            slot.copy_from_slice(&said.my_discriminator.to_be_bytes());
        }
        if what & 16 != 0
            && let [first, flags, multiplier, len, ..] = &mut bytes[..]
        {
            // Nothing that would be thrown away at once.
            (*first, *flags, *multiplier, *len) = (*first & 31 | 32, *flags & !5, *multiplier | 1, 24);
        }
        let key = key(at);
        let arrival = Arrival {
            source: if with & 64 == 0 { key.peer } else { IpAddr::from([192, 0, 2, 99]) },
            destination: (with & 32 == 0).then_some([192, 0, 2, 1].into()),
            interface: (with & 16 == 0).then_some(3),
            ttl: (with & 8 == 0).then_some(if with & 128 == 0 { 255 } else { 64 }),
            hops: key.hops,
            bytes: &bytes,
        };
        let taken = self.engine.on_packet(self.now, &arrival);
        if taken.is_ok() {
            assert!(ControlPacket::decode(&bytes).is_ok());
            assert!(key.hops == Hops::Multi || arrival.ttl == Some(255), "forwarded on its way");
            assert_eq!(arrival.source, key.peer);
        }
    }

    fn drain(&mut self) {
        // One input, few outputs: a session answers at most once and reports at most once.
        for _ in 0..50 {
            let Some(output) = self.engine.poll() else { return self.check() };
            match output {
                Output::Send { session, key: to, bytes } => {
                    decode(&bytes);
                    let packet = ControlPacket::decode(&bytes).expect("our packet is good");
                    assert_eq!(packet.my_discriminator, session);
                    assert!(!(packet.poll && packet.final_), "RFC 5880 §6.5");
                    assert!(
                        packet.state == State::Up || packet.desired_min_tx >= 1_000_000,
                        "RFC 5880 §6.8.3"
                    );
                    let at = (0..3).find(|at| key(*at) == to).expect("one of the sessions");
                    self.said[at] = Some(packet);
                }
                Output::Event(event) => {
                    let at = (0..3).find(|at| key(*at) == event.key).expect("one of the sessions");
                    let up = event.change == Change::Up;
                    assert_ne!(self.up[at], up, "said twice");
                    self.up[at] = up;
                }
                Output::Gone { session } => {
                    let at = self.said.iter().position(|s| s.is_some_and(|s| s.my_discriminator == session));
                    if let Some(at) = at {
                        self.said[at] = None;
                    }
                }
            }
        }
        panic!("outputs never end");
    }

    fn check(&self) {
        for status in self.engine.status(self.now) {
            let at = (0..3).find(|at| key(*at) == status.key).expect("one of the sessions");
            assert!(!self.up[at] || status.state == State::Up || status.held.is_some(), "{status:?}");
        }
    }
}
