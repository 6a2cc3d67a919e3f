//! Interface addresses.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::Family;
use crate::wire::{
    AF_INET, AF_INET6, Encoder, F_CREATE, F_DUMP, F_EXCL, F_REPLACE, Malformed, Message, ip_of, u32_at,
    u32_of,
};

pub(crate) const RTM_NEWADDR: u16 = 20;
pub(crate) const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const IFADDRMSG: usize = 8;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;

/// Flags of an address (`IFA_F_*`).
const NODAD: u32 = 0x02;
const DADFAILED: u32 = 0x08;
const TENTATIVE: u32 = 0x40;
const NOPREFIXROUTE: u32 = 0x200;

/// An address on an interface.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// The interface.
    pub index: u32,
    /// The address with its prefix length; host bits kept.
    pub net: IpNet,
    /// Other end of a point-to-point link, if it differs.
    pub peer: Option<IpAddr>,
    /// A number of [`crate::scope`].
    pub scope: u8,
    /// Usable at once, without duplicate address detection (IPv6).
    pub nodad: bool,
    /// Without the route to its prefix that the kernel adds by itself.
    pub noprefixroute: bool,
    /// Not usable yet, or found to be a duplicate (IPv6). Read only.
    pub tentative: bool,
}

impl Address {
    /// A global address, usable at once.
    pub fn new(index: u32, net: IpNet) -> Self {
        let nodad = net.addr().is_ipv6();
        Self { index, net, peer: None, scope: 0, nodad, noprefixroute: false, tentative: false }
    }

    /// The address family.
    pub fn family(&self) -> Family {
        Family::of(&self.net.addr())
    }
}

/// How an address is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    Add,
    Replace,
    Delete,
}

pub(crate) fn encode(e: &mut Encoder, address: &Address, write: Write) {
    let (kind, how) = match write {
        Write::Add => (RTM_NEWADDR, F_CREATE | F_EXCL),
        Write::Replace => (RTM_NEWADDR, F_CREATE | F_REPLACE),
        Write::Delete => (RTM_DELADDR, 0),
    };
    e.begin(kind, how);
    e.bytes(&[address.family().raw(), address.net.prefix_len(), 0, address.scope]);
    e.bytes(&address.index.to_ne_bytes());
    let local = address.net.addr();
    e.attr_ip(IFA_LOCAL, &local);
    e.attr_ip(IFA_ADDRESS, &address.peer.unwrap_or(local));
    if write != Write::Delete {
        let flags =
            if address.nodad { NODAD } else { 0 } | if address.noprefixroute { NOPREFIXROUTE } else { 0 };
        if flags != 0 {
            e.attr_u32(IFA_FLAGS, flags);
        }
    }
}

pub(crate) fn encode_dump(e: &mut Encoder) {
    e.begin(RTM_GETADDR, F_DUMP);
    e.bytes(&[0; IFADDRMSG]);
}

pub(crate) fn parse(message: &Message<'_>) -> Result<Option<Address>, Malformed> {
    let (head, attrs) = message.split(IFADDRMSG)?;
    if head[0] != AF_INET && head[0] != AF_INET6 {
        return Ok(None);
    }
    let (mut address, mut local) = (None, None);
    let mut flags = u32::from(head[2]);
    for attr in attrs {
        match attr? {
            (IFA_ADDRESS, v) => address = Some(ip_of(v)?),
            (IFA_LOCAL, v) => local = Some(ip_of(v)?),
            (IFA_FLAGS, v) => flags = u32_of(v)?,
            _ => {}
        }
    }
    // IPv6 gives IFA_LOCAL only on point-to-point links.
    let own = local.or(address).ok_or(Malformed("address message without an address"))?;
    Ok(Some(Address {
        index: u32_at(head, 4).unwrap_or(0),
        net: IpNet::new(own, head[1]).map_err(|_| Malformed("prefix longer than its address"))?,
        peer: address.filter(|a| *a != own),
        scope: head[3],
        nodad: flags & NODAD != 0,
        noprefixroute: flags & NOPREFIXROUTE != 0,
        tentative: flags & (TENTATIVE | DADFAILED) != 0,
    }))
}
