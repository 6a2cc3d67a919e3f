//! Neighbours: who answers for an address on a link, and the addresses this host answers for (proxies).

use std::net::IpAddr;

use crate::Family;
use crate::link::Mac;
use crate::wire::{
    AF_INET, AF_INET6, Encoder, F_CREATE, F_DUMP, F_REPLACE, Malformed, Message, ip_of, u16_at, u32_at,
};

pub(crate) const RTM_NEWNEIGH: u16 = 28;
pub(crate) const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const NDMSG: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NTF_PROXY: u8 = 0x08;

/// Neighbour states (`NUD_*`).
pub mod nud {
    /// Nothing known.
    pub const NONE: u16 = 0;
    /// Asked, no answer yet.
    pub const INCOMPLETE: u16 = 0x01;
    /// Answered lately.
    pub const REACHABLE: u16 = 0x02;
    /// Answered once.
    pub const STALE: u16 = 0x04;
    /// Asked often, no answer.
    pub const FAILED: u16 = 0x20;
    /// Set by hand, never asked for.
    pub const PERMANENT: u16 = 0x80;
}

/// An entry of the neighbour (ARP or ND) table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Neighbour {
    /// The interface.
    pub index: u32,
    /// The neighbour's IP address.
    pub address: IpAddr,
    /// Its Ethernet address, if known.
    pub mac: Option<Mac>,
    /// A state of [`nud`].
    pub state: u16,
    /// An address this host answers for, instead of one it knows.
    pub proxy: bool,
}

impl Neighbour {
    /// An entry that is never asked for and never expires.
    pub fn permanent(index: u32, address: IpAddr, mac: Mac) -> Self {
        Self { index, address, mac: Some(mac), state: nud::PERMANENT, proxy: false }
    }

    /// An address to answer for on an interface.
    pub fn proxy(index: u32, address: IpAddr) -> Self {
        Self { index, address, mac: None, state: nud::NONE, proxy: true }
    }
}

pub(crate) fn encode(e: &mut Encoder, neighbour: &Neighbour, delete: bool) {
    if delete {
        e.begin(RTM_DELNEIGH, 0);
    } else {
        e.begin(RTM_NEWNEIGH, F_CREATE | F_REPLACE);
    }
    header(e, Family::of(&neighbour.address).raw(), neighbour.index, neighbour.state, neighbour.proxy);
    e.attr_ip(NDA_DST, &neighbour.address);
    if let (Some(mac), false) = (neighbour.mac, delete) {
        e.attr(NDA_LLADDR, &mac.0);
    }
}

pub(crate) fn encode_dump(e: &mut Encoder, family: Family, proxy: bool) {
    e.begin(RTM_GETNEIGH, F_DUMP);
    header(e, family.raw(), 0, 0, proxy);
}

pub(crate) fn parse(message: &Message<'_>) -> Result<Option<Neighbour>, Malformed> {
    let (head, attrs) = message.split(NDMSG)?;
    if head[0] != AF_INET && head[0] != AF_INET6 {
        return Ok(None);
    }
    let (mut address, mut mac) = (None, None);
    for attr in attrs {
        match attr? {
            (NDA_DST, v) => address = Some(ip_of(v)?),
            (NDA_LLADDR, v) => mac = <[u8; 6]>::try_from(v).ok().map(Mac),
            _ => {}
        }
    }
    Ok(address.map(|address| Neighbour {
        index: u32_at(head, 4).unwrap_or(0),
        address,
        mac,
        state: u16_at(head, 8).unwrap_or(0),
        proxy: head[10] & NTF_PROXY != 0,
    }))
}

fn header(e: &mut Encoder, family: u8, index: u32, state: u16, proxy: bool) {
    e.bytes(&[family, 0, 0, 0]);
    e.bytes(&index.to_ne_bytes());
    e.bytes(&state.to_ne_bytes());
    e.bytes(&[if proxy { NTF_PROXY } else { 0 }, 0]);
}
