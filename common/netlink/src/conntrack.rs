//! Connection tracking: forgets the connections of addresses that changed hands.
//!
//! Messages: `linux/netfilter/nfnetlink_conntrack.h`. Attribute integers are big-endian.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use nix::errno::Errno;

use crate::Family;
use crate::channel::{Channel, Protocol};
use crate::error::{Error, Result};
use crate::netns::Netns;
use crate::wire::{ATTR_NESTED, Attributes, Encoder, F_DUMP, Malformed, Message, ip_of};

const CT_GET: u16 = (1 << 8) | 1;
const CT_DELETE: u16 = (1 << 8) | 2;
const NFGENMSG: usize = 4;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP: std::ops::RangeInclusive<u16> = 1..=4;

/// A connection to the tracker of one namespace.
#[derive(Debug)]
pub struct Conntrack {
    channel: Channel,
}

impl Conntrack {
    /// Opens a connection in the calling thread's namespace.
    pub fn open() -> Result<Self> {
        Ok(Self { channel: Channel::open(Protocol::Netfilter, None)? })
    }

    /// Opens a connection in the namespace at `path`.
    pub fn open_in(path: &Path) -> Result<Self> {
        Self::open_netns(&Netns::open(path)?)
    }

    /// Opens a connection in an open namespace.
    pub fn open_netns(netns: &Netns) -> Result<Self> {
        Ok(Self { channel: Channel::open(Protocol::Netfilter, Some(netns))? })
    }

    /// Deletes every entry with one of `addresses` as source or destination, in its original or its reply
    /// direction, and returns how many. The table of each family concerned is read once.
    pub fn delete(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<usize> {
        let mut deleted = 0;
        for family in [Family::V4, Family::V6] {
            if !addresses.iter().any(|a| Family::of(a) == family) {
                continue;
            }
            let doomed = self.channel.dump(
                "dump of connections",
                |e| {
                    e.begin(CT_GET, F_DUMP);
                    e.bytes(&[family.raw(), 0, 0, 0]);
                },
                |m| parse(m, family, addresses),
            )?;
            let failures = self.channel.transact(&doomed, |e, entry| {
                entry.encode_delete(e);
                Ok(())
            });
            // ENOENT: it ended by itself meanwhile.
            if let Some(f) = failures.iter().find(|f| f.errno != Errno::ENOENT) {
                return Err(Error::Refused {
                    doing: "deletion of connections",
                    errno: f.errno,
                    message: f.message.clone(),
                });
            }
            deleted += doomed.len() - failures.len();
        }
        Ok(deleted)
    }
}

/// What names one entry to the kernel, kept as it came.
#[derive(Debug)]
struct Entry {
    family: Family,
    original: Vec<u8>,
    id: Option<Vec<u8>>,
    zone: Option<Vec<u8>>,
}

impl Entry {
    fn encode_delete(&self, e: &mut Encoder) {
        e.begin(CT_DELETE, 0);
        e.bytes(&[self.family.raw(), 0, 0, 0]);
        e.attr(CTA_TUPLE_ORIG | ATTR_NESTED, &self.original);
        if let Some(zone) = &self.zone {
            e.attr(CTA_ZONE, zone);
        }
        // With its id: not a later connection with the same ports.
        if let Some(id) = &self.id {
            e.attr(CTA_ID, id);
        }
    }
}

fn parse(
    message: &Message<'_>,
    family: Family,
    addresses: &BTreeSet<IpAddr>,
) -> Result<Option<Entry>, Malformed> {
    let (_, attrs) = message.split(NFGENMSG)?;
    let (mut original, mut id, mut zone, mut wanted) = (None, None, None, false);
    for attr in attrs {
        let (kind, value) = attr?;
        match kind {
            CTA_TUPLE_ORIG | CTA_TUPLE_REPLY => {
                if kind == CTA_TUPLE_ORIG {
                    original = Some(value.to_vec());
                }
                wanted |= tuple_matches(value, addresses)?;
            }
            CTA_ID => id = Some(value.to_vec()),
            CTA_ZONE => zone = Some(value.to_vec()),
            _ => {}
        }
    }
    Ok(original.filter(|_| wanted).map(|original| Entry { family, original, id, zone }))
}

fn tuple_matches(tuple: &[u8], addresses: &BTreeSet<IpAddr>) -> Result<bool, Malformed> {
    for attr in Attributes(tuple) {
        if let (CTA_TUPLE_IP, ips) = attr? {
            for ip in Attributes(ips) {
                let (kind, value) = ip?;
                if CTA_IP.contains(&kind) && addresses.contains(&ip_of(value)?) {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}
