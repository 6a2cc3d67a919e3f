//! OPEN (RFC 4271 §4.2), its optional parameters (RFC 5492, 9072) and their capabilities.

use std::net::Ipv4Addr;

use crate::Notification;
use crate::capability::Capability;
use crate::cursor::{Cursor, Short};
use crate::header::{self, MessageKind, put_u16_at};
use crate::notification::open_error;
use crate::prefix::{AfiSafi, Family};

/// The AS number that stands for one that does not fit two octets (RFC 6793).
pub const AS_TRANS: u32 = 23456;

/// An OPEN message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenMessage {
    /// Always 4.
    pub version: u8,
    /// The sender's AS, from the 4-octet capability when there is one.
    pub asn: u32,
    /// Seconds; 0 means no keepalives, 1 and 2 are refused.
    pub hold_time: u16,
    /// The BGP identifier, never 0.
    pub router_id: Ipv4Addr,
    /// In the order sent, unknown ones included.
    pub capabilities: Vec<Capability>,
}

impl OpenMessage {
    /// Reads the body of an OPEN and judges what needs no configuration:
    /// version, AS 0, hold time 1 and 2, identifier 0, parameter and capability framing.
    pub fn decode(body: &[u8]) -> Result<Self, Notification> {
        let mut c = Cursor::new(body);
        let version = c.u8()?;
        if version != 4 {
            return Err(open_error(1, &4u16.to_be_bytes()));
        }
        let as2 = c.u16()?;
        let hold_time = c.u16()?;
        let router_id = Ipv4Addr::from_bits(c.u32()?);
        let capabilities = decode_parameters(&mut c)?;
        let mut asn = u32::from(as2);
        for capability in &capabilities {
            if let Capability::FourOctetAs(as4) = capability {
                asn = *as4;
            }
        }
        if as2 == 0 || asn == 0 {
            return Err(open_error(2, &[])); // RFC 7607
        }
        if matches!(hold_time, 1 | 2) {
            return Err(open_error(6, &[]));
        }
        if router_id.is_unspecified() {
            return Err(open_error(3, &[])); // RFC 6286
        }
        Ok(Self { version, asn, hold_time, router_id, capabilities })
    }

    /// Appends the whole message; the 2-octet AS field is [`AS_TRANS`] when the AS needs four.
    ///
    /// Parameters longer than 255 octets use the RFC 9072 form. Capabilities that would take the
    /// message past 4096 octets are left out from the end.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = header::begin(out, MessageKind::Open);
        out.push(self.version);
        let as2 = u16::try_from(self.asn).unwrap_or(23456);
        out.extend_from_slice(&as2.to_be_bytes());
        out.extend_from_slice(&self.hold_time.to_be_bytes());
        out.extend_from_slice(&self.router_id.octets());
        let mut caps = Vec::new();
        for capability in &self.capabilities {
            let before = caps.len();
            capability.encode(&mut caps);
            if caps.len() > MAX_CAPABILITIES {
                caps.truncate(before);
                break;
            }
        }
        match u8::try_from(caps.len()) {
            Ok(0) => out.push(0),
            Ok(len) if len <= 253 => {
                out.extend_from_slice(&[len.saturating_add(2), PARAM_CAPABILITIES, len]);
                out.extend_from_slice(&caps);
            }
            _ => {
                out.extend_from_slice(&[255, PARAM_EXTENDED, 0, 0, PARAM_CAPABILITIES, 0, 0]);
                let at = out.len();
                out.extend_from_slice(&caps);
                let len = u16::try_from(caps.len()).unwrap_or(u16::MAX);
                put_u16_at(out, at.saturating_sub(5), len.saturating_add(3));
                put_u16_at(out, at.saturating_sub(2), len);
            }
        }
        header::finish(out, start);
    }

    /// Whether both sides of a session with 4-octet AS numbers can be this one.
    pub fn has_four_octet_as(&self) -> bool {
        self.capabilities.iter().any(|c| matches!(c, Capability::FourOctetAs(_)))
    }

    /// Whether the family was announced; without any multiprotocol capability that is IPv4 unicast alone.
    pub fn has_family(&self, family: Family) -> bool {
        let mut any = false;
        for capability in &self.capabilities {
            if let Capability::Multiprotocol(announced) = capability {
                any = true;
                if *announced == AfiSafi::from(family) {
                    return true;
                }
            }
        }
        !any && family == Family::Ipv4Unicast
    }
}

/// Keeps an OPEN within 4096 octets: header 19, fixed part 10, extended parameter heads 6.
const MAX_CAPABILITIES: usize = 4096 - 19 - 10 - 6;
const PARAM_CAPABILITIES: u8 = 2;
const PARAM_EXTENDED: u8 = 255;

impl From<Short> for Notification {
    /// A field that overruns an OPEN: unspecific OPEN error.
    fn from(_: Short) -> Self {
        open_error(0, &[])
    }
}

fn decode_parameters(c: &mut Cursor<'_>) -> Result<Vec<Capability>, Notification> {
    let mut capabilities = Vec::new();
    let len = usize::from(c.u8()?);
    if len == 0 && c.is_empty() {
        return Ok(capabilities);
    }
    // RFC 9072 §2: a first parameter of type 255 means the extended form, whatever the short length says.
    let extended = c.rest().first() == Some(&PARAM_EXTENDED) && len != 0;
    let params = if extended {
        c.u8()?;
        let len = usize::from(c.u16()?);
        c.take(len)?
    } else {
        c.take(len)?
    };
    if !c.is_empty() {
        return Err(open_error(0, &[]));
    }
    let mut c = Cursor::new(params);
    while !c.is_empty() {
        let kind = c.u8()?;
        let len = if extended { usize::from(c.u16()?) } else { usize::from(c.u8()?) };
        let value = c.take(len)?;
        if kind != PARAM_CAPABILITIES {
            return Err(open_error(4, &[kind]));
        }
        Capability::decode_all(value, &mut capabilities)?;
    }
    Ok(capabilities)
}
