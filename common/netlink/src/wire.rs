//! Netlink framing: an encoder that appends messages to one buffer, and iterators that read them back.
//!
//! Layouts: `linux/netlink.h` (`nlmsghdr`, `nlattr`). Integers are in host order unless a protocol says otherwise.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const AF_UNSPEC: u8 = 0;
pub(crate) const AF_INET: u8 = 2;
pub(crate) const AF_INET6: u8 = 10;

pub(crate) const NLMSG_NOOP: u16 = 1;
pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
pub(crate) const NLMSG_OVERRUN: u16 = 4;

pub(crate) const F_REQUEST: u16 = 0x1;
pub(crate) const F_ACK: u16 = 0x4;
pub(crate) const F_DUMP_INTR: u16 = 0x10;
pub(crate) const F_DUMP: u16 = 0x300;
pub(crate) const F_REPLACE: u16 = 0x100;
pub(crate) const F_EXCL: u16 = 0x200;
pub(crate) const F_CREATE: u16 = 0x400;
/// On an error message: the offending request was left out.
const F_CAPPED: u16 = 0x100;
/// On an error message: attributes with an explanation follow.
const F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

const HEADER: usize = 16;
const ATTR_HEADER: usize = 4;
/// Nested and byte-order marks in the two top bits of an attribute's type.
const ATTR_TYPE_MASK: u16 = 0x3fff;
pub(crate) const ATTR_NESTED: u16 = 0x8000;

/// A message or attribute whose length does not fit where it stands; the text says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

const fn align(n: usize) -> usize {
    (n + 3) & !3
}

/// Appends messages to one buffer, ready for a single send.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    buf: Vec<u8>,
    start: usize,
}

impl Encoder {
    pub(crate) fn clear(&mut self) {
        self.buf.clear();
        self.start = 0;
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.buf
    }

    pub(crate) fn len(&self) -> usize {
        self.buf.len()
    }

    /// Starts a message; [`Encoder::finish`] ends it.
    pub(crate) fn begin(&mut self, kind: u16, flags: u16) {
        self.start = self.buf.len();
        self.buf.extend_from_slice(&[0; HEADER]);
        self.buf[self.start + 4..self.start + 6].copy_from_slice(&kind.to_ne_bytes());
        self.buf[self.start + 6..self.start + 8].copy_from_slice(&(flags | F_REQUEST).to_ne_bytes());
    }

    pub(crate) fn finish(&mut self, seq: u32) {
        self.pad();
        let len = u32::try_from(self.buf.len() - self.start).expect("invariant: a request is below 4 GiB");
        self.buf[self.start..self.start + 4].copy_from_slice(&len.to_ne_bytes());
        self.buf[self.start + 8..self.start + 12].copy_from_slice(&seq.to_ne_bytes());
    }

    /// Drops the message begun last.
    pub(crate) fn cancel(&mut self, len: usize) {
        self.buf.truncate(len);
    }

    /// Asks for an acknowledgement of the message begun last.
    pub(crate) fn acknowledge_last(&mut self) {
        let at = self.start + 6;
        let flags = u16::from_ne_bytes([self.buf[at], self.buf[at + 1]]) | F_ACK;
        self.buf[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
    }

    pub(crate) fn bytes(&mut self, data: &[u8]) {
        self.buf.extend_from_slice(data);
    }

    /// Room for `len` bytes that the caller fills in place.
    pub(crate) fn reserve(&mut self, len: usize) -> &mut [u8] {
        let at = self.buf.len();
        self.buf.resize(at + len, 0);
        &mut self.buf[at..]
    }

    pub(crate) fn attr(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(ATTR_HEADER + value.len()).expect("invariant: attributes are below 64 KiB");
        self.buf.extend_from_slice(&len.to_ne_bytes());
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        self.buf.extend_from_slice(value);
        self.pad();
    }

    pub(crate) fn attr_u32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_ne_bytes());
    }

    pub(crate) fn attr_ip(&mut self, kind: u16, address: &IpAddr) {
        match address {
            IpAddr::V4(a) => self.attr(kind, &a.octets()),
            IpAddr::V6(a) => self.attr(kind, &a.octets()),
        }
    }

    /// Starts a nested attribute (or any record that begins with its own 16-bit length).
    pub(crate) fn nest(&mut self, kind: u16) -> usize {
        let at = self.buf.len();
        self.buf.extend_from_slice(&[0; 2]);
        self.buf.extend_from_slice(&kind.to_ne_bytes());
        at
    }

    pub(crate) fn end_nest(&mut self, at: usize) {
        let len = u16::try_from(self.buf.len() - at).expect("invariant: attributes are below 64 KiB");
        self.buf[at..at + 2].copy_from_slice(&len.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        let to = align(self.buf.len());
        self.buf.resize(to, 0);
    }
}

/// One netlink message within a received datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    pub(crate) body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The body after a fixed header of `len` bytes: its attributes.
    pub(crate) fn split(&self, len: usize) -> Result<(&'a [u8], Attributes<'a>), Malformed> {
        let (head, rest) =
            self.body.split_at_checked(len).ok_or(Malformed("message shorter than its header"))?;
        Ok((head, Attributes(rest)))
    }

    /// Error number (0 for an acknowledgement) and explanation of an `NLMSG_ERROR`.
    pub(crate) fn error(&self) -> Result<(i32, Option<String>), Malformed> {
        let code = i32_of(self.body).ok_or(Malformed("error message shorter than its code"))?;
        let mut text = None;
        if self.flags & F_ACK_TLVS != 0 {
            let request = self.body.get(4..8).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
            let echoed =
                if self.flags & F_CAPPED != 0 { HEADER } else { usize::try_from(request).unwrap_or(0) };
            text = self.body.get(4 + align(echoed)..).and_then(|rest| {
                Attributes(rest)
                    .flatten()
                    .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)
                    .map(|(_, v)| string(v))
            });
        }
        Ok((-code, text))
    }

    /// The error number that ends a dump, 0 when all went well.
    pub(crate) fn done_errno(&self) -> i32 {
        i32_of(self.body).map_or(0, |code| -code)
    }
}

fn i32_of(b: &[u8]) -> Option<i32> {
    b.get(..4).map(|b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
}

/// Iterates over the messages of one datagram.
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let buf = self.0;
        if buf.is_empty() {
            return None;
        }
        self.0 = &[];
        let Some(head) = buf.get(..HEADER) else {
            return Some(Err(Malformed("datagram ends inside a header")));
        };
        let len = u32_at(head, 0).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        if len < HEADER || len > buf.len() {
            return Some(Err(Malformed("message length exceeds the datagram")));
        }
        self.0 = buf.get(align(len)..).unwrap_or(&[]);
        Some(Ok(Message {
            kind: u16::from_ne_bytes([head[4], head[5]]),
            flags: u16::from_ne_bytes([head[6], head[7]]),
            seq: u32_at(head, 8).unwrap_or(0),
            body: &buf[HEADER..len],
        }))
    }
}

/// Iterates over attributes: type without its marks, and value.
#[derive(Debug)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8]), Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let buf = self.0;
        if buf.len() < ATTR_HEADER {
            return None; // trailing padding
        }
        let len = usize::from(u16::from_ne_bytes([buf[0], buf[1]]));
        if len < ATTR_HEADER || len > buf.len() {
            self.0 = &[];
            return Some(Err(Malformed("attribute length exceeds its message")));
        }
        let kind = u16::from_ne_bytes([buf[2], buf[3]]) & ATTR_TYPE_MASK;
        self.0 = buf.get(align(len)..).unwrap_or(&[]);
        Some(Ok((kind, &buf[ATTR_HEADER..len])))
    }
}

#[inline]
pub(crate) fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    b.get(at..at + 4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
}

pub(crate) fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    b.get(at..at + 2).map(|b| u16::from_ne_bytes([b[0], b[1]]))
}

pub(crate) fn u32_of(value: &[u8]) -> Result<u32, Malformed> {
    u32_at(value, 0).ok_or(Malformed("integer attribute shorter than 4 bytes"))
}

/// An address of either family, by its length.
#[inline]
pub(crate) fn ip_of(value: &[u8]) -> Result<IpAddr, Malformed> {
    if let Ok(b) = <[u8; 4]>::try_from(value) {
        return Ok(IpAddr::V4(Ipv4Addr::from(b)));
    }
    <[u8; 16]>::try_from(value)
        .map(|b| IpAddr::V6(Ipv6Addr::from(b)))
        .map_err(|_| Malformed("address attribute is neither 4 nor 16 bytes"))
}

/// A NUL-terminated string.
pub(crate) fn string(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_encoded_reads_back() {
        let mut e = Encoder::default();
        e.begin(24, F_CREATE);
        e.bytes(&[1, 2, 3, 4]);
        e.attr(1, &[9; 5]);
        let n = e.nest(2 | ATTR_NESTED);
        e.attr_u32(7, 0xdead_beef);
        e.end_nest(n);
        e.finish(41);
        e.begin(25, 0);
        e.acknowledge_last();
        e.finish(42);

        let all: Vec<_> = Messages(e.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].kind, all[0].flags, all[0].seq), (24, F_CREATE | F_REQUEST, 41));
        assert_eq!((all[1].kind, all[1].flags, all[1].seq), (25, F_ACK | F_REQUEST, 42));
        let (head, attrs) = all[0].split(4).unwrap();
        assert_eq!(head, [1, 2, 3, 4]);
        let attrs: Vec<_> = attrs.map(Result::unwrap).collect();
        assert_eq!(attrs[0], (1, &[9u8; 5][..]));
        assert_eq!(attrs[1].0, 2);
        let inner: Vec<_> = Attributes(attrs[1].1).map(Result::unwrap).collect();
        assert_eq!(u32_of(inner[0].1), Ok(0xdead_beef));
    }

    #[test]
    fn an_error_carries_its_explanation() {
        let mut body = (-22i32).to_ne_bytes().to_vec();
        body.extend_from_slice(&[0; HEADER]);
        let mut e = Encoder::default();
        e.attr(NLMSGERR_ATTR_MSG, b"no such thing\0");
        body.extend_from_slice(e.as_bytes());
        let m = Message { kind: NLMSG_ERROR, flags: F_CAPPED | F_ACK_TLVS, seq: 1, body: &body };
        assert_eq!(m.error(), Ok((22, Some("no such thing".into()))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn no_datagram_panics(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            for m in Messages(&data).flatten() {
                let _ = m.error();
                let _ = m.done_errno();
                if let Ok((_, attrs)) = m.split(12) {
                    for (_, v) in attrs.flatten() {
                        let _ = (ip_of(v), string(v), u32_of(v));
                    }
                }
            }
        }
    }
}
