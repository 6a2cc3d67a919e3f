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

#[cfg(test)]
mod tests {
    use super::*;

    /// An OPEN body with the given optional parameters, length octet included.
    fn body(params: &[u8]) -> Vec<u8> {
        let mut body = vec![4, 0x5b, 0xa0, 0, 90, 10, 0, 0, 1];
        body.extend_from_slice(params);
        body
    }

    fn error(body: &[u8]) -> Option<(u8, u8)> {
        OpenMessage::decode(body).err().map(|n| (n.code, n.subcode))
    }

    #[test]
    fn the_fixed_part_is_judged() {
        let good = body(&[0]);
        assert_eq!(error(&good), None);
        for (at, value, want) in
            [(0, 3, (2, 1)), (0, 5, (2, 1)), (4, 1, (2, 6)), (4, 2, (2, 6)), (9, 1, (2, 0)), (9, 255, (2, 0))]
        {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(error(&bad), Some(want), "byte {at} = {value}");
        }
        let mut bad = good.clone();
        bad[1..3].fill(0);
        assert_eq!(error(&bad), Some((2, 2)));
        let mut bad = good.clone();
        bad[5..9].fill(0);
        assert_eq!(error(&bad), Some((2, 3)));
        for len in 0..good.len() {
            assert_eq!(error(&good[..len]), Some((2, 0)), "{len} octets");
        }
        let version = OpenMessage::decode(&[3, 0, 1, 0, 90, 10, 0, 0, 1, 0]).unwrap_err();
        assert_eq!(version.data, [0, 4]);
    }

    #[test]
    fn parameters_and_capabilities_are_bounded() {
        type Case = (&'static str, &'static [u8], Option<(u8, u8)>);
        let cases: &[Case] = &[
            ("no capability", &[2, 2, 0], None),
            ("four-octet AS", &[8, 2, 6, 65, 4, 0, 1, 0, 0], None),
            ("two parameters", &[8, 2, 2, 2, 0, 2, 2, 70, 0], None),
            ("two capabilities in one", &[6, 2, 4, 2, 0, 70, 0], None),
            ("four-octet AS of three octets", &[7, 2, 5, 65, 3, 0, 1, 0], Some((2, 0))),
            ("four-octet AS of five octets", &[9, 2, 7, 65, 5, 0, 1, 0, 0, 0], Some((2, 0))),
            ("four-octet AS 0", &[8, 2, 6, 65, 4, 0, 0, 0, 0], Some((2, 2))),
            ("multiprotocol of three octets", &[7, 2, 5, 1, 3, 0, 1, 0], Some((2, 0))),
            ("capability overruns its parameter", &[4, 2, 2, 65, 4], Some((2, 0))),
            ("capability without length", &[3, 2, 1, 2], Some((2, 0))),
            ("parameter overruns", &[4, 2, 6, 65, 4], Some((2, 0))),
            ("parameter without length", &[1, 2], Some((2, 0))),
            ("bytes after the parameters", &[2, 2, 0, 0], Some((2, 0))),
            ("authentication parameter", &[3, 1, 1, 0], Some((2, 4))),
            ("unknown parameter", &[2, 9, 0], Some((2, 4))),
            // RFC 9072
            ("extended, empty", &[255, 255, 0, 0], None),
            ("extended", &[255, 255, 0, 9, 2, 0, 6, 65, 4, 0, 1, 0, 0], None),
            ("extended, short length disregarded", &[1, 255, 0, 9, 2, 0, 6, 65, 4, 0, 1, 0, 0], None),
            ("extended, length overruns", &[255, 255, 0, 10, 2, 0, 6, 65, 4, 0, 1, 0, 0], Some((2, 0))),
            ("extended, bytes after it", &[255, 255, 0, 8, 2, 0, 6, 65, 4, 0, 1, 0, 0], Some((2, 0))),
            ("extended, no length", &[255, 255, 0], Some((2, 0))),
            ("extended, no parameters at all", &[255, 255], Some((2, 0))),
            ("extended, parameter length of one octet", &[255, 255, 0, 2, 2, 0], Some((2, 0))),
            ("extended, parameter overruns", &[255, 255, 0, 3, 2, 0, 1], Some((2, 0))),
            ("extended inside", &[5, 2, 0, 255, 1, 0], Some((2, 4))),
        ];
        for (name, params, want) in cases {
            assert_eq!(error(&body(params)), *want, "{name}");
        }
        assert_eq!(OpenMessage::decode(&body(&[8, 2, 6, 65, 4, 0, 1, 0, 0])).unwrap().asn, 65536);
    }

    #[test]
    fn senseless_capabilities_count_as_not_announced() {
        // Graceful restart of 3 octets, ADD-PATH of 5, route refresh of 1, FQDN that overruns.
        let caps = [64, 3, 0, 0, 0, 69, 5, 0, 1, 1, 1, 0, 2, 1, 9, 73, 2, 9, 0];
        let mut params = vec![21, 2, 19];
        params.extend(caps);
        let open = OpenMessage::decode(&body(&params)).unwrap();
        assert_eq!(open.capabilities.len(), 4);
        assert!(open.capabilities.iter().all(|c| matches!(c, Capability::Unknown { .. })));
        let mut again = Vec::new();
        open.encode(&mut again);
        assert!(again.ends_with(&caps));
    }

    #[test]
    fn no_multiprotocol_means_ipv4() {
        let open = OpenMessage::decode(&body(&[0])).unwrap();
        assert!(open.has_family(Family::Ipv4Unicast) && !open.has_family(Family::Ipv6Unicast));
        let open = OpenMessage::decode(&body(&[8, 2, 6, 1, 4, 0, 2, 0, 1])).unwrap();
        assert!(!open.has_family(Family::Ipv4Unicast) && open.has_family(Family::Ipv6Unicast));
        let open = OpenMessage::decode(&body(&[8, 2, 6, 1, 4, 0, 1, 0, 128])).unwrap();
        assert!(!open.has_family(Family::Ipv4Unicast));
    }

    #[test]
    fn many_capabilities_use_the_extended_form_and_still_fit() {
        let unknown = |code| Capability::Unknown { code, value: vec![code; 200] };
        let mut open = OpenMessage {
            version: 4,
            asn: 65001,
            hold_time: 90,
            router_id: Ipv4Addr::new(10, 0, 0, 1),
            capabilities: vec![unknown(200), unknown(201)],
        };
        let mut wire = Vec::new();
        open.encode(&mut wire);
        assert_eq!(wire[28..32], [255, 255, 0x01, 0x97]);
        assert_eq!(OpenMessage::decode(&wire[19..]).unwrap(), open);
        open.capabilities = (130..200).map(unknown).collect();
        wire.clear();
        open.encode(&mut wire);
        assert!(wire.len() <= 4096);
        assert_eq!(OpenMessage::decode(&wire[19..]).unwrap().capabilities.len(), 20);
    }
}
