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

#[cfg(test)]
mod tests {
    use super::*;

    fn message(len: u16, kind: u8) -> Vec<u8> {
        let mut bytes = vec![0xff; 16];
        bytes.extend(len.to_be_bytes());
        bytes.push(kind);
        bytes.resize(usize::from(len).max(HEADER_LEN), 0);
        bytes
    }

    #[test]
    fn headers_are_judged_before_the_body_is_there() {
        type Case = (&'static str, u16, u8, usize, Option<(u8, u8)>);
        let cases: &[Case] = &[
            ("keepalive", 19, 4, MAX_LEN, None),
            ("keepalive with a body", 20, 4, MAX_LEN, Some((1, 2))),
            ("shorter than a header", 18, 4, MAX_LEN, Some((1, 2))),
            ("length 0", 0, 2, MAX_LEN, Some((1, 2))),
            ("open", 29, 1, MAX_LEN, None),
            ("open too short", 28, 1, MAX_LEN, Some((1, 2))),
            ("update", 23, 2, MAX_LEN, None),
            ("update too short", 22, 2, MAX_LEN, Some((1, 2))),
            ("update of 4096", 4096, 2, MAX_LEN, None),
            ("update of 4097", 4097, 2, MAX_LEN, Some((1, 2))),
            ("update of 4097, extended", 4097, 2, MAX_LEN_EXTENDED, None),
            ("update of 65535, extended", 65535, 2, MAX_LEN_EXTENDED, None),
            ("open of 4097, extended", 4097, 1, MAX_LEN_EXTENDED, Some((1, 2))),
            ("notification without a code", 19, 3, MAX_LEN, None),
            ("notification too long", 4097, 3, MAX_LEN, Some((1, 2))),
            ("route refresh", 23, 5, MAX_LEN, None),
            ("route refresh too short", 22, 5, MAX_LEN, Some((1, 2))),
            ("type 0", 19, 0, MAX_LEN, Some((1, 3))),
            ("type 6", 19, 6, MAX_LEN, Some((1, 3))),
        ];
        for (name, len, kind, max_len, want) in cases {
            let bytes = message(*len, *kind);
            let whole = frame(&bytes, *max_len);
            assert_eq!(whole.as_ref().err().map(|n| (n.code, n.subcode)), *want, "{name}");
            let head = frame(&bytes[..HEADER_LEN], *max_len);
            match want {
                Some(want) => assert_eq!(head.err().map(|n| (n.code, n.subcode)), Some(*want), "{name}"),
                None => {
                    assert_eq!(head.unwrap().is_some(), usize::from(*len) == HEADER_LEN, "{name}");
                    let found = whole.unwrap().unwrap();
                    assert_eq!(
                        (found.len, found.body.len()),
                        (usize::from(*len), usize::from(*len) - HEADER_LEN)
                    );
                }
            }
        }
    }

    #[test]
    fn a_wrong_marker_is_out_of_step() {
        for at in 0..16 {
            let mut bytes = message(19, 4);
            bytes[at] = 0;
            let error = frame(&bytes, MAX_LEN).unwrap_err();
            assert_eq!((error.code, error.subcode), (1, 1));
        }
        assert_eq!(frame(&message(4097, 2), MAX_LEN).unwrap_err().data, [0x10, 0x01]);
        assert_eq!(frame(&message(19, 9), MAX_LEN).unwrap_err().data, [9]);
    }
}
