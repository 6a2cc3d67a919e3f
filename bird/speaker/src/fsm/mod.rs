//! The finite state machine of RFC 4271 §8, as a table without effects: what a connection does with what happens to it.
//!
//! It never fails: every pair of phase and happening has a defined `Step`; what makes no sense ends the connection with
//! the NOTIFICATION that the RFC names. Idle, Connect and Active are states of a peer that has no connection yet; see
//! `peer`.

pub(crate) mod negotiate;

use bird_packet::{Cease, FsmState, MessageKind, Notification};
use serde::{Deserialize, Serialize};

/// State of a peer, in the RFC's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum State {
    /// Not trying: disabled, or waiting after an error.
    Idle,
    /// Waiting for a call of ours to go through.
    Connect,
    /// Listening, and calling again soon unless passive.
    Active,
    /// OPEN sent, none received.
    OpenSent,
    /// OPENs exchanged, KEEPALIVE awaited.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Idle => "Idle",
            State::Connect => "Connect",
            State::Active => "Active",
            State::OpenSent => "OpenSent",
            State::OpenConfirm => "OpenConfirm",
            State::Established => "Established",
        })
    }
}

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Being made.
    Dialing,
    /// Connected; our OPEN waits for the peer's (RFC 4271 DelayOpenTimer).
    Delayed,
    OpenSent,
    /// OPENs exchanged; our KEEPALIVE waits for BFD (draft-ietf-idr-bgp-bfd-strict-mode §8.1, OpenSentBfdUpPending).
    BfdPending,
    OpenConfirm,
    Established,
    /// Over; what is left to send is being sent.
    Closing,
}

impl Phase {
    pub(crate) fn state(self) -> State {
        match self {
            Phase::Dialing => State::Connect,
            Phase::Delayed => State::Active,
            Phase::OpenSent | Phase::BfdPending => State::OpenSent,
            Phase::OpenConfirm => State::OpenConfirm,
            Phase::Established => State::Established,
            Phase::Closing => State::Idle,
        }
    }

    /// Whether both OPENs are there and no session yet: such a one loses or wins a collision.
    pub(crate) fn is_between(self) -> bool {
        matches!(self, Phase::BfdPending | Phase::OpenConfirm)
    }
}

/// What happens to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happening {
    Connected,
    Message(MessageKind),
    HoldTimer,
    SendHoldTimer,
    KeepaliveTimer,
    DialTimer,
    DelayTimer,
    /// BFD is up, or is not waited for any more.
    BfdUp,
    /// BFD, which the session waits for, was up and is not.
    BfdDown,
}

/// What to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Ignore,
    /// Send OPEN, go to OpenSent.
    SendOpen,
    /// The peer's OPEN came before ours: send ours, then judge the peer's.
    AnswerOpen,
    /// Judge the OPEN; if it is good, resolve collisions, answer with KEEPALIVE, go to OpenConfirm.
    TakeOpen,
    /// Go to Established, tell routes.
    Establish,
    /// The peer's KEEPALIVE came before BFD was up: the next step is Established.
    Confirm,
    /// BFD is up: answer with the KEEPALIVE that was held back.
    Proceed,
    /// The peer lives.
    Alive,
    TakeUpdate,
    TakeRefresh,
    /// The peer ended the session.
    TakeNotification,
    SendKeepalive,
    /// Give up this call.
    HangUp,
    /// End it with this.
    End(Notification),
}

/// The table.
pub(crate) fn step(phase: Phase, happening: Happening) -> Step {
    use Happening::{
        BfdDown, BfdUp, Connected, DelayTimer, DialTimer, HoldTimer, KeepaliveTimer, Message, SendHoldTimer,
    };
    use MessageKind::{Keepalive, Notification as Notified, Open, RouteRefresh, Update};
    use Phase::{BfdPending, Closing, Delayed, Dialing, Established, OpenConfirm, OpenSent};
    let unexpected = |kind| {
        let state = match phase {
            Dialing | Delayed | OpenSent | BfdPending | Closing => FsmState::OpenSent,
            OpenConfirm => FsmState::OpenConfirm,
            Established => FsmState::Established,
        };
        Step::End(Notification::unexpected_message(state, kind)) // RFC 6608
    };
    match (phase, happening) {
        (Closing, _) => Step::Ignore,
        (Dialing, Connected) => Step::SendOpen,
        (Dialing, DialTimer) => Step::HangUp,
        (Delayed, DelayTimer) => Step::SendOpen,
        (_, Connected | DialTimer | DelayTimer) | (Dialing, _) => Step::Ignore,

        (Delayed, Message(Open)) => Step::AnswerOpen,
        (Delayed, Message(Notified)) => Step::TakeNotification,
        // RFC 6608 has no subcode for a session that has not begun.
        (Delayed, Message(_)) => Step::End(Notification::new(5, 0)),
        (Delayed, _) => Step::Ignore,

        (BfdPending, BfdUp) => Step::Proceed,
        (OpenConfirm, BfdDown) => Step::End(Notification::cease(Cease::BfdDown)),
        // A session that is up ends by `Command::Unreachable`.
        (_, BfdUp | BfdDown) => Step::Ignore,

        (_, Message(Notified)) => Step::TakeNotification,
        // Draft §9: the operator of the peer learns what was waited for.
        (BfdPending, HoldTimer) => Step::End(Notification::cease(Cease::BfdDown)),
        (_, HoldTimer) => Step::End(Notification::hold_timer_expired()),
        (_, SendHoldTimer) => Step::End(Notification::send_hold_timer_expired()), // RFC 9687

        (OpenSent, Message(Open)) => Step::TakeOpen,
        (OpenSent, Message(kind)) => unexpected(kind),
        (OpenSent | BfdPending, KeepaliveTimer) => Step::Ignore,

        (BfdPending, Message(Keepalive)) => Step::Confirm,
        (BfdPending, Message(kind)) => unexpected(kind),

        (OpenConfirm, Message(Keepalive)) => Step::Establish,
        (OpenConfirm, Message(kind)) => unexpected(kind),
        (OpenConfirm | Established, KeepaliveTimer) => Step::SendKeepalive,

        (Established, Message(Keepalive)) => Step::Alive,
        (Established, Message(Update)) => Step::TakeUpdate,
        (Established, Message(RouteRefresh)) => Step::TakeRefresh,
        (Established, Message(Open)) => unexpected(Open),
    }
}

/// Which of two connections to the same peer survives (RFC 4271 §6.8, RFC 6286 §2.3): true if it is the one that we made.
pub(crate) fn ours_survives(our_id: u32, our_as: u32, peer_id: u32, peer_as: u32) -> bool {
    (our_id, our_as) > (peer_id, peer_as)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_one_of_the_rfc() {
        use MessageKind::{Keepalive, Notification as Notified, Open, RouteRefresh, Update};
        let end = |code, subcode| move |s: &Step| matches!(s, Step::End(n) if (n.code, n.subcode) == (code, subcode));
        let is = |step: Step| move |s: &Step| *s == step;
        type Check = Box<dyn Fn(&Step) -> bool>;
        let table: Vec<(Phase, Happening, Check)> = vec![
            (Phase::Dialing, Happening::Connected, Box::new(is(Step::SendOpen))),
            (Phase::Dialing, Happening::DialTimer, Box::new(is(Step::HangUp))),
            (Phase::Dialing, Happening::Message(Update), Box::new(is(Step::Ignore))),
            (Phase::Delayed, Happening::DelayTimer, Box::new(is(Step::SendOpen))),
            (Phase::Delayed, Happening::Message(Open), Box::new(is(Step::AnswerOpen))),
            (Phase::Delayed, Happening::Message(Notified), Box::new(is(Step::TakeNotification))),
            (Phase::Delayed, Happening::Message(Update), Box::new(end(5, 0))),
            (Phase::Delayed, Happening::HoldTimer, Box::new(is(Step::Ignore))),
            (Phase::OpenSent, Happening::DelayTimer, Box::new(is(Step::Ignore))),
            (Phase::OpenSent, Happening::Message(Open), Box::new(is(Step::TakeOpen))),
            (Phase::OpenSent, Happening::Message(Keepalive), Box::new(end(5, 1))),
            (Phase::OpenSent, Happening::Message(Update), Box::new(end(5, 1))),
            (Phase::OpenSent, Happening::Message(RouteRefresh), Box::new(end(5, 1))),
            (Phase::OpenSent, Happening::Message(Notified), Box::new(is(Step::TakeNotification))),
            (Phase::OpenSent, Happening::HoldTimer, Box::new(end(4, 0))),
            (Phase::OpenSent, Happening::Connected, Box::new(is(Step::Ignore))),
            (Phase::OpenSent, Happening::BfdUp, Box::new(is(Step::Ignore))),
            (Phase::OpenSent, Happening::BfdDown, Box::new(is(Step::Ignore))),
            (Phase::BfdPending, Happening::BfdUp, Box::new(is(Step::Proceed))),
            (Phase::BfdPending, Happening::BfdDown, Box::new(is(Step::Ignore))),
            (Phase::BfdPending, Happening::Message(Keepalive), Box::new(is(Step::Confirm))),
            (Phase::BfdPending, Happening::Message(Notified), Box::new(is(Step::TakeNotification))),
            (Phase::BfdPending, Happening::Message(Open), Box::new(end(5, 1))),
            (Phase::BfdPending, Happening::Message(Update), Box::new(end(5, 1))),
            (Phase::BfdPending, Happening::HoldTimer, Box::new(end(6, 10))),
            (Phase::BfdPending, Happening::SendHoldTimer, Box::new(end(8, 0))),
            (Phase::BfdPending, Happening::KeepaliveTimer, Box::new(is(Step::Ignore))),
            (Phase::OpenConfirm, Happening::BfdUp, Box::new(is(Step::Ignore))),
            (Phase::OpenConfirm, Happening::BfdDown, Box::new(end(6, 10))),
            (Phase::Established, Happening::BfdUp, Box::new(is(Step::Ignore))),
            (Phase::Established, Happening::BfdDown, Box::new(is(Step::Ignore))),
            (Phase::OpenConfirm, Happening::Message(Keepalive), Box::new(is(Step::Establish))),
            (Phase::OpenConfirm, Happening::Message(Open), Box::new(end(5, 2))),
            (Phase::OpenConfirm, Happening::Message(Update), Box::new(end(5, 2))),
            (Phase::OpenConfirm, Happening::KeepaliveTimer, Box::new(is(Step::SendKeepalive))),
            (Phase::OpenConfirm, Happening::HoldTimer, Box::new(end(4, 0))),
            (Phase::Established, Happening::Message(Update), Box::new(is(Step::TakeUpdate))),
            (Phase::Established, Happening::Message(Keepalive), Box::new(is(Step::Alive))),
            (Phase::Established, Happening::Message(RouteRefresh), Box::new(is(Step::TakeRefresh))),
            (Phase::Established, Happening::Message(Open), Box::new(end(5, 3))),
            (Phase::Established, Happening::Message(Notified), Box::new(is(Step::TakeNotification))),
            (Phase::Established, Happening::HoldTimer, Box::new(end(4, 0))),
            (Phase::Established, Happening::SendHoldTimer, Box::new(end(8, 0))),
            (Phase::Established, Happening::KeepaliveTimer, Box::new(is(Step::SendKeepalive))),
            (Phase::Closing, Happening::Message(Update), Box::new(is(Step::Ignore))),
        ];
        for (phase, happening, check) in table {
            let got = step(phase, happening);
            assert!(check(&got), "{phase:?} {happening:?}: {got:?}");
        }
    }

    #[test]
    fn one_of_two_connections_survives_and_both_sides_agree() {
        for (a, b) in [((1, 64512), (2, 64512)), ((2, 64512), (1, 64512)), ((1, 64512), (1, 64513))] {
            assert_ne!(ours_survives(a.0, a.1, b.0, b.1), ours_survives(b.0, b.1, a.0, a.1));
        }
    }
}
