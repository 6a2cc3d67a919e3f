//! ROUTE-REFRESH (RFC 2918) and its enhanced subtypes (RFC 7313).

use crate::Notification;
use crate::cursor::Cursor;
use crate::header::{self, HEADER_LEN, MessageKind};
use crate::prefix::AfiSafi;

/// A ROUTE-REFRESH message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteRefresh {
    /// The family asked for, known to us or not.
    pub family: AfiSafi,
    /// What is meant.
    pub kind: RefreshKind,
}

/// The message subtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshKind {
    /// 0: please announce everything again.
    Request,
    /// 1: a refresh begins; what is not repeated before its end is gone.
    Begin,
    /// 2: the refresh is complete.
    End,
}

impl RouteRefresh {
    /// Reads the body; `None` when the subtype is one we ignore (RFC 7313 §5).
    ///
    /// `enhanced` says whether RFC 7313 was negotiated; without it the octet is reserved and ignored.
    /// A Begin or End of another length than 4 is answered with the whole message, as RFC 7313 asks.
    pub fn decode(body: &[u8], enhanced: bool) -> Result<Option<Self>, Notification> {
        let mut c = Cursor::new(body);
        let (Ok(afi), Ok(subtype), Ok(safi)) = (c.u16(), c.u8(), c.u8()) else {
            return Err(crate::notification::header_error(2, &message_len(body).to_be_bytes()));
        };
        let kind = match subtype {
            _ if !enhanced => RefreshKind::Request,
            0 => RefreshKind::Request,
            1 => RefreshKind::Begin,
            2 => RefreshKind::End,
            _ => return Ok(None),
        };
        if kind != RefreshKind::Request && !c.is_empty() {
            let mut message = Vec::new();
            let start = header::begin(&mut message, MessageKind::RouteRefresh);
            message.extend_from_slice(body);
            header::finish(&mut message, start);
            return Err(Notification::with_data(7, 1, &message));
        }
        Ok(Some(Self { family: AfiSafi { afi, safi }, kind }))
    }

    /// Appends the whole message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = header::begin(out, MessageKind::RouteRefresh);
        let subtype = match self.kind {
            RefreshKind::Request => 0,
            RefreshKind::Begin => 1,
            RefreshKind::End => 2,
        };
        out.extend_from_slice(&self.family.afi.to_be_bytes());
        out.extend_from_slice(&[subtype, self.family.safi]);
        header::finish(out, start);
    }
}

fn message_len(body: &[u8]) -> u16 {
    u16::try_from(body.len().saturating_add(HEADER_LEN)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prefix::Family;

    #[test]
    fn every_kind_round_trips() {
        for kind in [RefreshKind::Request, RefreshKind::Begin, RefreshKind::End] {
            let sent = RouteRefresh { family: Family::Ipv6Unicast.into(), kind };
            let mut wire = Vec::new();
            sent.encode(&mut wire);
            assert_eq!(wire.len(), 23);
            assert_eq!(RouteRefresh::decode(&wire[19..], true), Ok(Some(sent)));
        }
    }

    #[test]
    fn odd_messages_are_ignored_or_refused_as_rfc_7313_says() {
        assert_eq!(RouteRefresh::decode(&[0, 1, 3, 1], true), Ok(None));
        let reserved = RouteRefresh::decode(&[0, 1, 3, 1], false).unwrap().unwrap();
        assert_eq!(reserved.kind, RefreshKind::Request);
        let unknown = RouteRefresh::decode(&[0x40, 4, 0, 71], true).unwrap().unwrap();
        assert_eq!(unknown.family.family(), None);
        let orf = RouteRefresh::decode(&[0, 1, 0, 1, 1, 64, 0, 0], true).unwrap().unwrap();
        assert_eq!(orf.kind, RefreshKind::Request);
        let long = RouteRefresh::decode(&[0, 1, 1, 1, 9], true).unwrap_err();
        assert_eq!((long.code, long.subcode, long.data.len()), (7, 1, 24));
        let short = RouteRefresh::decode(&[0, 1, 1], true).unwrap_err();
        assert_eq!((short.code, short.subcode, short.data), (1, 2, vec![0, 22]));
    }
}
