//! NOTIFICATION: why a session ends, on the wire and in words.

use std::fmt;

use crate::cursor::Cursor;
use crate::header::{self, MAX_LEN, MessageKind};

/// An error that ends a session: what we send, or what the peer sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Notification {
    /// The error code: 1 header, 2 OPEN, 3 UPDATE, 4 hold timer, 5 FSM, 6 Cease, 7 ROUTE-REFRESH, 8 send hold timer.
    pub code: u8,
    /// The error subcode, 0 when unspecific.
    pub subcode: u8,
    /// What the code says the data is.
    pub data: Vec<u8>,
}

/// A NOTIFICATION too short to have a code: close without a reply (RFC 4271 §6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("notification is shorter than its error code")]
pub struct ShortNotification;

/// Cease subcodes (RFC 4486, 8538, 9384).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cease {
    /// The peer exceeded its prefix limit.
    MaxPrefixes = 1,
    /// An operator shut the session down.
    AdministrativeShutdown = 2,
    /// The peer was removed from the configuration.
    PeerDeconfigured = 3,
    /// An operator restarts the session.
    AdministrativeReset = 4,
    /// The connection is not wanted.
    ConnectionRejected = 5,
    /// A change of configuration needs a new session.
    ConfigurationChange = 6,
    /// This connection lost the collision (RFC 4271 §6.8).
    CollisionResolution = 7,
    /// Out of memory or the like.
    OutOfResources = 8,
    /// Close and forget the routes, graceful restart or not (RFC 8538).
    HardReset = 9,
    /// BFD says the peer is gone (RFC 9384).
    BfdDown = 10,
}

/// The longest shutdown communication (RFC 9003).
const MAX_SHUTDOWN_TEXT: usize = 255;

impl Notification {
    /// Code and subcode without data.
    pub fn new(code: u8, subcode: u8) -> Self {
        Self { code, subcode, data: Vec::new() }
    }

    /// Code, subcode and data; data that cannot fit a message is cut.
    pub fn with_data(code: u8, subcode: u8, data: &[u8]) -> Self {
        let keep = data.len().min(MAX_LEN.saturating_sub(HEAD));
        Self { code, subcode, data: data.get(..keep).unwrap_or_default().to_vec() }
    }

    /// Hold Timer Expired.
    pub fn hold_timer_expired() -> Self {
        Self::new(4, 0)
    }

    /// Send Hold Timer Expired (RFC 9687).
    pub fn send_hold_timer_expired() -> Self {
        Self::new(8, 0)
    }

    /// A message that the FSM does not expect in its state (RFC 6608); carries the message type.
    pub fn unexpected_message(state: FsmState, kind: MessageKind) -> Self {
        Self::with_data(5, state as u8, &[kind.code()])
    }

    /// A Cease without text.
    pub fn cease(subcode: Cease) -> Self {
        Self::new(6, subcode as u8)
    }

    /// A Cease with a text for the other operator (RFC 9003); text past 255 octets is cut between characters.
    ///
    /// Only shutdown and reset have room for text; other subcodes are sent without it.
    pub fn cease_with_text(subcode: Cease, text: &str) -> Self {
        if text.is_empty() || !matches!(subcode, Cease::AdministrativeShutdown | Cease::AdministrativeReset) {
            return Self::cease(subcode);
        }
        let mut end = text.len().min(MAX_SHUTDOWN_TEXT);
        while !text.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        let text = text.get(..end).unwrap_or_default().as_bytes();
        let mut data = vec![u8::try_from(text.len()).unwrap_or(u8::MAX)];
        data.extend_from_slice(text);
        Self { code: 6, subcode: subcode as u8, data }
    }

    /// The same message as a Hard Reset, so that a peer with the N bit forgets our routes (RFC 8538 §3.1).
    #[must_use]
    pub fn into_hard_reset(self) -> Self {
        let mut data = vec![self.code, self.subcode];
        data.extend_from_slice(&self.data);
        Self::with_data(6, Cease::HardReset as u8, &data)
    }

    /// Whether it is a Hard Reset.
    pub fn is_hard_reset(&self) -> bool {
        self.code == 6 && self.subcode == Cease::HardReset as u8
    }

    /// What a Hard Reset wraps.
    pub fn inner(&self) -> Option<Notification> {
        match self.data.as_slice() {
            [code, subcode, data @ ..] if self.is_hard_reset() => {
                Some(Self { code: *code, subcode: *subcode, data: data.to_vec() })
            }
            _ => None,
        }
    }

    /// The text of an administrative shutdown or reset, made safe to print; also inside a Hard Reset.
    ///
    /// Invalid UTF-8 and control characters are replaced; a length that overruns gives `None`.
    pub fn shutdown_text(&self) -> Option<String> {
        if let Some(inner) = self.inner() {
            // One level: a Hard Reset inside a Hard Reset is not followed.
            return if inner.is_hard_reset() { None } else { inner.shutdown_text() };
        }
        if self.code != 6 || !matches!(self.subcode, 2 | 4) {
            return None;
        }
        let mut c = Cursor::new(&self.data);
        let len = c.u8().ok()?;
        let text = c.take(usize::from(len)).ok().filter(|text| !text.is_empty())?;
        let text = String::from_utf8_lossy(text);
        Some(text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect())
    }

    /// Reads the body of a NOTIFICATION.
    pub fn decode(body: &[u8]) -> Result<Self, ShortNotification> {
        match body {
            [code, subcode, data @ ..] => Ok(Self { code: *code, subcode: *subcode, data: data.to_vec() }),
            _ => Err(ShortNotification),
        }
    }

    /// Appends the whole message; data past a 4096-byte message is cut.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = header::begin(out, MessageKind::Notification);
        out.extend_from_slice(&[self.code, self.subcode]);
        let keep = self.data.len().min(MAX_LEN.saturating_sub(HEAD));
        out.extend_from_slice(self.data.get(..keep).unwrap_or_default());
        header::finish(out, start);
    }

    /// The name of the code, as RFC 4271 and its successors print it.
    pub fn code_name(&self) -> &'static str {
        match self.code {
            1 => "Message Header Error",
            2 => "OPEN Message Error",
            3 => "UPDATE Message Error",
            4 => "Hold Timer Expired",
            5 => "Finite State Machine Error",
            6 => "Cease",
            7 => "ROUTE-REFRESH Message Error",
            8 => "Send Hold Timer Expired",
            _ => "Unknown Error",
        }
    }

    /// The name of the subcode, when it has one.
    pub fn subcode_name(&self) -> Option<&'static str> {
        Some(match (self.code, self.subcode) {
            (1, 1) => "Connection Not Synchronized",
            (1, 2) => "Bad Message Length",
            (1, 3) => "Bad Message Type",
            (2, 1) => "Unsupported Version Number",
            (2, 2) => "Bad Peer AS",
            (2, 3) => "Bad BGP Identifier",
            (2, 4) => "Unsupported Optional Parameter",
            (2, 5) => "Authentication Failure",
            (2, 6) => "Unacceptable Hold Time",
            (2, 7) => "Unsupported Capability",
            (2, 11) => "Role Mismatch",
            (3, 1) => "Malformed Attribute List",
            (3, 2) => "Unrecognized Well-known Attribute",
            (3, 3) => "Missing Well-known Attribute",
            (3, 4) => "Attribute Flags Error",
            (3, 5) => "Attribute Length Error",
            (3, 6) => "Invalid ORIGIN Attribute",
            (3, 7) => "AS Routing Loop",
            (3, 8) => "Invalid NEXT_HOP Attribute",
            (3, 9) => "Optional Attribute Error",
            (3, 10) => "Invalid Network Field",
            (3, 11) => "Malformed AS_PATH",
            (5, 1) => "Receive Unexpected Message in OpenSent State",
            (5, 2) => "Receive Unexpected Message in OpenConfirm State",
            (5, 3) => "Receive Unexpected Message in Established State",
            (6, 1) => "Maximum Number of Prefixes Reached",
            (6, 2) => "Administrative Shutdown",
            (6, 3) => "Peer De-configured",
            (6, 4) => "Administrative Reset",
            (6, 5) => "Connection Rejected",
            (6, 6) => "Other Configuration Change",
            (6, 7) => "Connection Collision Resolution",
            (6, 8) => "Out of Resources",
            (6, 9) => "Hard Reset",
            (6, 10) => "BFD Down",
            (7, 1) => "Invalid Message Length",
            _ => return None,
        })
    }
}

/// The states RFC 6608 has subcodes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FsmState {
    /// Waiting for the peer's OPEN.
    OpenSent = 1,
    /// Waiting for the peer's KEEPALIVE.
    OpenConfirm = 2,
    /// Exchanging routes.
    Established = 3,
}

impl fmt::Display for Notification {
    /// `Cease: Administrative Shutdown (6/2): "text"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code_name())?;
        if let Some(name) = self.subcode_name() {
            write!(f, ": {name}")?;
        }
        write!(f, " ({}/{})", self.code, self.subcode)?;
        if let Some(inner) = self.inner() {
            write!(f, " of {}", inner.code_name())?;
            if let Some(name) = inner.subcode_name() {
                write!(f, ": {name}")?;
            }
            write!(f, " ({}/{})", inner.code, inner.subcode)?;
        }
        match self.shutdown_text() {
            Some(text) => write!(f, ": \"{text}\""),
            None => Ok(()),
        }
    }
}

/// Header, code and subcode.
const HEAD: usize = 21;

pub(crate) fn header_error(subcode: u8, data: &[u8]) -> Notification {
    Notification::with_data(1, subcode, data)
}

pub(crate) fn open_error(subcode: u8, data: &[u8]) -> Notification {
    Notification::with_data(2, subcode, data)
}

pub(crate) fn update_error(subcode: u8, data: &[u8]) -> Notification {
    Notification::with_data(3, subcode, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shutdown_text_survives_the_wire_and_is_made_printable() {
        let sent =
            Notification::cease_with_text(Cease::AdministrativeShutdown, "kernel upgrade, back at 14:00");
        let mut wire = Vec::new();
        sent.encode(&mut wire);
        let got = Notification::decode(&wire[19..]).unwrap();
        assert_eq!(got, sent);
        assert_eq!(
            got.to_string(),
            "Cease: Administrative Shutdown (6/2): \"kernel upgrade, back at 14:00\""
        );
        let hostile = Notification::with_data(6, 2, b"\x07a\0b\x1b[2J\xff");
        assert_eq!(hostile.shutdown_text().as_deref(), Some("a\u{fffd}b\u{fffd}[2J"));
        assert_eq!(Notification::with_data(6, 2, b"\x05ab").shutdown_text(), None);
        assert_eq!(Notification::with_data(6, 3, b"\x01a").shutdown_text(), None);
    }

    #[test]
    fn long_shutdown_text_is_cut_between_characters() {
        let text = "é".repeat(200);
        let sent = Notification::cease_with_text(Cease::AdministrativeReset, &text);
        assert_eq!(sent.data.len(), 255);
        assert_eq!(sent.shutdown_text().unwrap(), "é".repeat(127));
    }

    #[test]
    fn a_hard_reset_wraps_and_unwraps() {
        let inner = Notification::cease_with_text(Cease::AdministrativeShutdown, "bye");
        let hard = inner.clone().into_hard_reset();
        assert!(hard.is_hard_reset());
        assert_eq!(hard.inner(), Some(inner));
        assert_eq!(
            hard.to_string(),
            "Cease: Hard Reset (6/9) of Cease: Administrative Shutdown (6/2): \"bye\""
        );
        assert_eq!(Notification::with_data(6, 9, &[1]).inner(), None);
    }

    #[test]
    fn a_notification_without_code_is_not_answered() {
        assert_eq!(Notification::decode(&[6]), Err(ShortNotification));
        assert_eq!(Notification::decode(&[]), Err(ShortNotification));
    }

    #[test]
    fn data_never_exceeds_a_message() {
        let mut wire = Vec::new();
        Notification::with_data(3, 9, &vec![7; 70_000]).into_hard_reset().encode(&mut wire);
        assert_eq!(wire.len(), MAX_LEN);
    }
}
