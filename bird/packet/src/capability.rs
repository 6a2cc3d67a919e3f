//! Capabilities (RFC 5492): the ones we use decoded, all others kept as bytes.

use crate::Notification;
use crate::cursor::{Cursor, Short};
use crate::notification::open_error;
use crate::prefix::AfiSafi;

/// One capability of an OPEN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Code 1 (RFC 4760): a family the sender speaks.
    Multiprotocol(AfiSafi),
    /// Code 2 (RFC 2918).
    RouteRefresh,
    /// Code 5 (RFC 8950): families whose next hop may be of another address family.
    ExtendedNextHop(Vec<ExtendedNextHop>),
    /// Code 6 (RFC 8654).
    ExtendedMessage,
    /// Code 9 (RFC 9234).
    Role(u8),
    /// Code 64 (RFC 4724, 8538).
    GracefulRestart(GracefulRestart),
    /// Code 65 (RFC 6793): the sender's AS.
    FourOctetAs(u32),
    /// Code 69 (RFC 7911).
    AddPath(Vec<AddPath>),
    /// Code 70 (RFC 7313).
    EnhancedRouteRefresh,
    /// Code 71 (RFC 9494).
    LongLivedGracefulRestart(Vec<LlgrFamily>),
    /// Code 73 (draft-walton-bgp-hostname-capability): host and domain name as sent.
    Fqdn {
        /// At most 255 octets, not necessarily UTF-8.
        host: Vec<u8>,
        /// At most 255 octets, not necessarily UTF-8.
        domain: Vec<u8>,
    },
    /// Code 74 (draft-ietf-idr-bgp-bfd-strict-mode): the sender waits for BFD before the session is up.
    BfdStrict,
    /// Code 76 (draft-abraitis-idr-addpath-paths-limit): most paths of a prefix that the sender takes, by family.
    PathsLimit(Vec<PathsLimit>),
    /// Any other code, or a known one whose content makes no sense (and is therefore not used).
    Unknown {
        /// The capability code.
        code: u8,
        /// Its value, at most 255 octets.
        value: Vec<u8>,
    },
}

/// The graceful restart capability.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// The R bit: the sender has restarted and asks not to be waited for.
    pub restarting: bool,
    /// The N bit (RFC 8538): NOTIFICATION and hold timer expiry are graceful too.
    pub notification: bool,
    /// Seconds, 12 bits.
    pub restart_time: u16,
    /// The families whose routes the sender keeps or asks to keep.
    pub families: Vec<GrFamily>,
}

/// One family of [`GracefulRestart`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrFamily {
    /// The family.
    pub family: AfiSafi,
    /// The F bit: forwarding state was kept over the restart.
    pub forwarding_kept: bool,
}

/// One family of long-lived graceful restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LlgrFamily {
    /// The family.
    pub family: AfiSafi,
    /// The F bit.
    pub forwarding_kept: bool,
    /// Seconds, 24 bits.
    pub stale_time: u32,
}

/// One family of the ADD-PATH capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddPath {
    /// The family.
    pub family: AfiSafi,
    /// The sender can receive several paths.
    pub receive: bool,
    /// The sender can send several paths.
    pub send: bool,
}

/// One family of the paths limit capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathsLimit {
    /// The family.
    pub family: AfiSafi,
    /// Most paths of a prefix; 0 says nothing.
    pub limit: u16,
}

/// One entry of the extended next hop capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedNextHop {
    /// The family of the routes.
    pub family: AfiSafi,
    /// The address family of the next hop (2 = IPv6).
    pub next_hop_afi: u16,
}

impl Capability {
    /// The capability code.
    pub fn code(&self) -> u8 {
        match self {
            Capability::Multiprotocol(_) => 1,
            Capability::RouteRefresh => 2,
            Capability::ExtendedNextHop(_) => 5,
            Capability::ExtendedMessage => 6,
            Capability::Role(_) => 9,
            Capability::GracefulRestart(_) => 64,
            Capability::FourOctetAs(_) => 65,
            Capability::AddPath(_) => 69,
            Capability::EnhancedRouteRefresh => 70,
            Capability::LongLivedGracefulRestart(_) => 71,
            Capability::Fqdn { .. } => 73,
            Capability::BfdStrict => 74,
            Capability::PathsLimit(_) => 76,
            Capability::Unknown { code, .. } => *code,
        }
    }

    /// Reads the value of one capabilities parameter.
    ///
    /// An overrun, and a wrong length of the two capabilities that change how routes are read (1 and 65),
    /// refuse the OPEN. Any other known capability with senseless content counts as not announced.
    pub(crate) fn decode_all(value: &[u8], into: &mut Vec<Capability>) -> Result<(), Notification> {
        let mut c = Cursor::new(value);
        while !c.is_empty() {
            let code = c.u8()?;
            let len = usize::from(c.u8()?);
            let value = c.take(len)?;
            let capability = match Self::decode(code, value) {
                Ok(capability) => capability,
                Err(Short) if matches!(code, 1 | 65) => return Err(open_error(0, &[])),
                Err(Short) => Capability::Unknown { code, value: value.to_vec() },
            };
            into.push(capability);
        }
        Ok(())
    }

    fn decode(code: u8, value: &[u8]) -> Result<Self, Short> {
        let mut c = Cursor::new(value);
        let capability = match code {
            1 => {
                let afi = c.u16()?;
                c.u8()?;
                Capability::Multiprotocol(AfiSafi { afi, safi: c.u8()? })
            }
            2 => Capability::RouteRefresh,
            5 => {
                let mut list = Vec::new();
                while !c.is_empty() {
                    let afi = c.u16()?;
                    c.u8()?;
                    let family = AfiSafi { afi, safi: c.u8()? };
                    list.push(ExtendedNextHop { family, next_hop_afi: c.u16()? });
                }
                Capability::ExtendedNextHop(list)
            }
            6 => Capability::ExtendedMessage,
            9 => Capability::Role(c.u8()?),
            64 => {
                let head = c.u16()?;
                let mut families = Vec::new();
                while !c.is_empty() {
                    let family = family(&mut c)?;
                    families.push(GrFamily { family, forwarding_kept: c.u8()? & 0x80 != 0 });
                }
                Capability::GracefulRestart(GracefulRestart {
                    restarting: head & 0x8000 != 0,
                    notification: head & 0x4000 != 0,
                    restart_time: head & 0x0fff,
                    families,
                })
            }
            65 => Capability::FourOctetAs(c.u32()?),
            69 => {
                let mut list = Vec::new();
                while !c.is_empty() {
                    let family = family(&mut c)?;
                    // RFC 7911 §4: a value other than 1, 2 and 3 is ignored.
                    let mode = c.u8()?;
                    if matches!(mode, 1..=3) {
                        list.push(AddPath { family, receive: mode & 1 != 0, send: mode & 2 != 0 });
                    }
                }
                Capability::AddPath(list)
            }
            70 => Capability::EnhancedRouteRefresh,
            71 => {
                let mut list = Vec::new();
                while !c.is_empty() {
                    let family = family(&mut c)?;
                    let forwarding_kept = c.u8()? & 0x80 != 0;
                    let [a, b, d] = c.array::<3>()?;
                    list.push(LlgrFamily {
                        family,
                        forwarding_kept,
                        stale_time: u32::from_be_bytes([0, a, b, d]),
                    });
                }
                Capability::LongLivedGracefulRestart(list)
            }
            73 => {
                let len = c.u8()?;
                let host = c.take(usize::from(len))?.to_vec();
                let len = c.u8()?;
                let domain = c.take(usize::from(len))?.to_vec();
                Capability::Fqdn { host, domain }
            }
            74 => Capability::BfdStrict,
            76 => {
                let mut list = Vec::new();
                while !c.is_empty() {
                    let family = family(&mut c)?;
                    list.push(PathsLimit { family, limit: c.u16()? });
                }
                Capability::PathsLimit(list)
            }
            _ => return Ok(Capability::Unknown { code, value: value.to_vec() }),
        };
        if c.is_empty() { Ok(capability) } else { Err(Short) }
    }

    /// Appends code, length and value; lists are cut at 255 octets.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.code());
        let at = out.len();
        out.push(0);
        self.encode_value(out);
        let len = out.len().saturating_sub(at).saturating_sub(1);
        let kept = len.min(self.longest());
        out.truncate(at.saturating_add(1).saturating_add(kept));
        if let Some(slot) = out.get_mut(at) {
            *slot = u8::try_from(kept).unwrap_or(u8::MAX);
        }
    }

    /// The longest value in whole entries.
    fn longest(&self) -> usize {
        match self {
            Capability::ExtendedNextHop(_) => 42 * 6,
            Capability::GracefulRestart(_) => 2 + 63 * 4,
            Capability::AddPath(_) => 63 * 4,
            Capability::LongLivedGracefulRestart(_) => 36 * 7,
            Capability::PathsLimit(_) => 51 * 5,
            _ => 255,
        }
    }

    fn encode_value(&self, out: &mut Vec<u8>) {
        match self {
            Capability::Multiprotocol(AfiSafi { afi, safi }) => {
                out.extend_from_slice(&afi.to_be_bytes());
                out.extend_from_slice(&[0, *safi]);
            }
            Capability::RouteRefresh
            | Capability::ExtendedMessage
            | Capability::EnhancedRouteRefresh
            | Capability::BfdStrict => {}
            Capability::ExtendedNextHop(list) => {
                for entry in list {
                    out.extend_from_slice(&entry.family.afi.to_be_bytes());
                    out.extend_from_slice(&[0, entry.family.safi]);
                    out.extend_from_slice(&entry.next_hop_afi.to_be_bytes());
                }
            }
            Capability::Role(role) => out.push(*role),
            Capability::GracefulRestart(gr) => {
                let flags = (u16::from(gr.restarting) << 15) | (u16::from(gr.notification) << 14);
                out.extend_from_slice(&(flags | gr.restart_time.min(0x0fff)).to_be_bytes());
                for entry in &gr.families {
                    put_family(out, entry.family);
                    out.push(u8::from(entry.forwarding_kept) << 7);
                }
            }
            Capability::FourOctetAs(asn) => out.extend_from_slice(&asn.to_be_bytes()),
            Capability::AddPath(list) => {
                for entry in list {
                    put_family(out, entry.family);
                    out.push(u8::from(entry.receive) | (u8::from(entry.send) << 1));
                }
            }
            Capability::LongLivedGracefulRestart(list) => {
                for entry in list {
                    put_family(out, entry.family);
                    out.push(u8::from(entry.forwarding_kept) << 7);
                    let [_, time @ ..] = entry.stale_time.min(0x00ff_ffff).to_be_bytes();
                    out.extend_from_slice(&time);
                }
            }
            Capability::PathsLimit(list) => {
                for entry in list {
                    put_family(out, entry.family);
                    out.extend_from_slice(&entry.limit.to_be_bytes());
                }
            }
            Capability::Fqdn { host, domain } => {
                // Both lengths and both names share 255 octets; the host name is the one worth keeping.
                let host = host.get(..host.len().min(253)).unwrap_or_default();
                let room = 253usize.saturating_sub(host.len());
                let domain = domain.get(..domain.len().min(room)).unwrap_or_default();
                for name in [host, domain] {
                    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
                    out.extend_from_slice(name);
                }
            }
            Capability::Unknown { value, .. } => out.extend_from_slice(value),
        }
    }
}

fn family(c: &mut Cursor<'_>) -> Result<AfiSafi, Short> {
    Ok(AfiSafi { afi: c.u16()?, safi: c.u8()? })
}

fn put_family(out: &mut Vec<u8>, family: AfiSafi) {
    out.extend_from_slice(&family.afi.to_be_bytes());
    out.push(family.safi);
}
