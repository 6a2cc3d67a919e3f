//! Framing: the 19-byte header of RFC 4271 §4.1.

use crate::Notification;
use crate::notification::header_error;

/// The length of a message header.
pub const HEADER_LEN: usize = 19;
/// The longest message without the extended-message capability.
pub const MAX_LEN: usize = 4096;
/// The longest message with it (RFC 8654).
pub const MAX_LEN_EXTENDED: usize = 65535;

/// The five message types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// Type 1.
    Open,
    /// Type 2.
    Update,
    /// Type 3.
    Notification,
    /// Type 4.
    Keepalive,
    /// Type 5 (RFC 2918).
    RouteRefresh,
}

impl MessageKind {
    /// The type octet.
    pub fn code(self) -> u8 {
        match self {
            MessageKind::Open => 1,
            MessageKind::Update => 2,
            MessageKind::Notification => 3,
            MessageKind::Keepalive => 4,
            MessageKind::RouteRefresh => 5,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => MessageKind::Open,
            2 => MessageKind::Update,
            3 => MessageKind::Notification,
            4 => MessageKind::Keepalive,
            5 => MessageKind::RouteRefresh,
            _ => return None,
        })
    }

    fn accepts_len(self, len: usize) -> bool {
        match self {
            MessageKind::Open => (29..=MAX_LEN).contains(&len),
            MessageKind::Update | MessageKind::RouteRefresh => len >= 23,
            // One that is too short cannot be answered with another: its decoder says so.
            MessageKind::Notification => true,
            MessageKind::Keepalive => len == HEADER_LEN,
        }
    }
}

/// One whole message at the front of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The message type.
    pub kind: MessageKind,
    /// What follows the header.
    pub body: &'a [u8],
    /// Bytes of the buffer the message takes, header included.
    pub len: usize,
}

/// Finds the message at the front of `buf`; `None` asks for more bytes.
///
/// `max_len` is what this side has agreed to receive: [`MAX_LEN`] or [`MAX_LEN_EXTENDED`].
/// The header is judged as soon as it is complete, so a bad one is never waited for.
#[inline]
pub fn frame(buf: &[u8], max_len: usize) -> Result<Option<Frame<'_>>, Notification> {
    let Some((header, _)) = buf.split_first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let [marker @ .., len_hi, len_lo, code] = header;
    if *marker != [0xff; 16] {
        return Err(header_error(1, &[]));
    }
    let len = usize::from(u16::from_be_bytes([*len_hi, *len_lo]));
    if len < HEADER_LEN || len > max_len {
        return Err(header_error(2, &[*len_hi, *len_lo]));
    }
    let Some(kind) = MessageKind::from_code(*code) else {
        return Err(header_error(3, &[*code]));
    };
    if !kind.accepts_len(len) {
        return Err(header_error(2, &[*len_hi, *len_lo]));
    }
    Ok(buf.get(HEADER_LEN..len).map(|body| Frame { kind, body, len }))
}

/// Appends a header with a length to be set by [`finish`]; returns where the message starts.
pub(crate) fn begin(out: &mut Vec<u8>, kind: MessageKind) -> usize {
    let start = out.len();
    let mut header = [0xff; HEADER_LEN];
    let [.., hi, lo, code] = &mut header;
    (*hi, *lo, *code) = (0, 0, kind.code());
    out.extend_from_slice(&header);
    start
}

/// Writes the length of the message that began at `start`.
pub(crate) fn finish(out: &mut [u8], start: usize) {
    let len = u16::try_from(out.len().saturating_sub(start)).unwrap_or(u16::MAX);
    put_u16_at(out, start.saturating_add(16), len);
}

/// Overwrites two bytes at `at`, when they are there.
pub(crate) fn put_u16_at(out: &mut [u8], at: usize, value: u16) {
    if let Some(slot) = out.get_mut(at..).and_then(|tail| tail.first_chunk_mut::<2>()) {
        *slot = value.to_be_bytes();
    }
}

/// Appends a KEEPALIVE.
pub fn encode_keepalive(out: &mut Vec<u8>) {
    let start = begin(out, MessageKind::Keepalive);
    finish(out, start);
}
