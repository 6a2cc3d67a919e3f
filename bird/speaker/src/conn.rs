//! A TCP connection as the speaker sees it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use bird_packet::{Notification, OpenMessage};
use bytes::Bytes;

use crate::export::group::Allowance;
use crate::fsm::Phase;
use crate::fsm::negotiate::Terms;
use crate::io::{ConnId, Time};
use crate::rib::index32;
use crate::rib::table::PeerIndex;

/// One connection of a peer.
pub(crate) struct Conn {
    pub(crate) id: ConnId,
    pub(crate) peer: PeerIndex,
    pub(crate) phase: Phase,
    /// We called.
    pub(crate) outgoing: bool,
    pub(crate) remote: SocketAddr,
    pub(crate) local: Option<SocketAddr>,
    /// Where the call came in, if it matters.
    pub(crate) interface: Option<std::sync::Arc<str>>,
    /// Our address of the other family on the same link.
    pub(crate) other: Option<IpAddr>,
    /// The beginning of a message whose end has not arrived.
    pub(crate) tail: Vec<u8>,
    /// Everything but routes, ready to be sent.
    pub(crate) control: VecDeque<Bytes>,
    pub(crate) open: Option<OpenMessage>,
    pub(crate) terms: Option<Terms>,
    /// The peer's KEEPALIVE came while ours waits for BFD.
    pub(crate) confirmed: bool,
    pub(crate) hold_at: Option<Time>,
    pub(crate) keepalive_at: Option<Time>,
    pub(crate) dial_at: Option<Time>,
    pub(crate) delay_at: Option<Time>,
    pub(crate) send_hold_at: Option<Time>,
    /// Earliest look that is in the timers.
    pub(crate) armed: Option<Time>,
    /// The shell knows that there is something to send.
    pub(crate) signalled: bool,
    /// Tick at which it was last asked for what it has to send.
    pub(crate) tick: u64,
    /// What may still be done for it before the next tick.
    pub(crate) allowance: Allowance,
    /// Family that is asked first for routes next time.
    pub(crate) turn: usize,
    /// UPDATEs that RFC 7606 contained.
    pub(crate) malformed: u64,
}

impl Conn {
    /// Our addresses on its link: its own end, and that of the other family.
    pub(crate) fn addresses(&self) -> [Option<IpAddr>; 2] {
        [self.local.map(|l| l.ip()), self.other]
    }

    /// The earliest of its deadlines.
    pub(crate) fn deadline(&self) -> Option<Time> {
        [self.hold_at, self.keepalive_at, self.dial_at, self.delay_at, self.send_hold_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Queues a message that is not a route.
    pub(crate) fn send(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        encode(&mut bytes);
        self.control.push_back(bytes.into());
    }

    /// Queues the last message and stops every clock.
    pub(crate) fn close(&mut self, notification: Option<&Notification>) {
        if let Some(notification) = notification {
            self.send(|out| notification.encode(out));
        }
        self.phase = Phase::Closing;
        self.hold_at = None;
        self.keepalive_at = None;
        self.dial_at = None;
        self.delay_at = None;
        self.send_hold_at = None;
        self.tail = Vec::new();
    }
}

/// All connections, by slot; a handle outlives its connection but not unnoticed.
#[derive(Default)]
pub(crate) struct Conns {
    slots: Vec<(u32, Option<Box<Conn>>)>,
}

impl Conns {
    /// A new connection in its first phase; returns its slot.
    pub(crate) fn add(&mut self, peer: PeerIndex, phase: Phase, remote: SocketAddr) -> usize {
        let at = self.slots.iter().position(|(_, c)| c.is_none()).unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() - 1
        });
        let slot = &mut self.slots[at];
        slot.0 = slot.0.wrapping_add(1);
        slot.1 = Some(Box::new(Conn {
            id: ConnId { index: index32(at), generation: slot.0 },
            peer,
            phase,
            outgoing: phase == Phase::Dialing,
            remote,
            local: None,
            interface: None,
            other: None,
            tail: Vec::new(),
            control: VecDeque::new(),
            open: None,
            terms: None,
            confirmed: false,
            hold_at: None,
            keepalive_at: None,
            dial_at: None,
            delay_at: None,
            send_hold_at: None,
            armed: None,
            signalled: false,
            tick: 0,
            allowance: Allowance::default(),
            turn: 0,
            malformed: 0,
        }));
        at
    }

    pub(crate) fn remove(&mut self, at: usize) {
        self.slots[at].1 = None;
    }

    /// The slot of a handle, if its connection still exists.
    pub(crate) fn find(&self, id: ConnId) -> Option<usize> {
        let at = id.index as usize;
        self.slots.get(at)?.1.as_ref().filter(|c| c.id == id).map(|_| at)
    }

    pub(crate) fn get(&self, at: usize) -> Option<&Conn> {
        self.slots.get(at)?.1.as_deref()
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut Conn> {
        self.slots.get_mut(at)?.1.as_deref_mut()
    }
}
