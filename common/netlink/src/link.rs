//! Links: what is read back, veth pairs born in place, and changes to an existing link.
//!
//! Writing is slow-path, so the nested messages come from rtnetlink's builders; reading is our own,
//! because a full decode of every statistic costs more than the dump.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::Emitable;
use netlink_packet_route::link::{InfoData, InfoVeth, LinkMessage};
use nix::errno::Errno;
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use crate::netns::Netns;
use crate::wire::{
    AF_UNSPEC, Attributes, Encoder, F_CREATE, F_DUMP, F_EXCL, Malformed, Message, string, u32_at, u32_of,
};

pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
pub(crate) const IFINFOMSG: usize = 16;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_GROUP: u16 = 27;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
/// Leave the counters out of a dump: two thirds of its size.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
pub(crate) const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 1 << 16;
const IF_OPER_UP: u8 = 6;
const IF_OPER_UNKNOWN: u8 = 0;
/// `IFNAMSIZ` without its NUL.
const NAME_MAX: usize = 15;

/// An Ethernet address, shown as `ee:ee:ee:ee:ee:ee`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address every host end of a workload's link has in Calico.
    pub const WORKLOAD_HOST: Self = Self([0xee; 6]);
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if i == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not six hexadecimal bytes such as ee:ee:ee:ee:ee:ee");
        let mut mac = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut mac {
            let part = parts.next().filter(|p| matches!(p.len(), 1 | 2)).ok_or_else(wrong)?;
            if !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(mac)) }
    }
}

/// A network interface as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number, unique in its namespace while it lives; later ones may reuse it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is set up (administratively).
    pub up: bool,
    /// Whether it can carry packets: operationally up, or of a kind that does not tell.
    pub running: bool,
    /// Its Ethernet address, if it has one.
    pub mac: Option<Mac>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Kind such as `veth` or `bridge`; empty for hardware.
    pub kind: String,
    /// Interface group, 0 by default.
    pub group: u32,
    /// Index of the other end of a pair (or the lower device), in the namespace of `peer_netns`.
    pub peer_index: Option<u32>,
    /// This namespace's number for the peer's namespace, if that is another one.
    pub peer_netns: Option<i32>,
    /// The bridge or other device it belongs to.
    pub master: Option<u32>,
    /// Free text.
    pub alias: Option<String>,
}

/// A veth pair, made in one request: the peer is born in its namespace under its own name.
///
/// The peer is born down (the kernel cannot open it before the pair exists); set it up with a
/// [`SetLink`] through a [`crate::Netlink`] of its namespace.
#[derive(Debug, Clone, Default)]
pub struct NewVeth {
    /// Name of the end in this namespace.
    pub name: String,
    /// Its address; random if absent.
    pub host_mac: Option<Mac>,
    /// MTU of both ends; the kernel's default if absent.
    pub mtu: Option<u32>,
    /// Whether to set the near end up.
    pub up: bool,
    /// Group of the near end, for [`crate::Request::DelLinkGroup`].
    pub group: Option<u32>,
    /// Index wanted for the near end.
    pub index: Option<u32>,
    /// Free text on the near end.
    pub alias: Option<String>,
    /// Name of the far end.
    pub peer_name: String,
    /// Its address; random if absent.
    pub peer_mac: Option<Mac>,
    /// Where the far end goes; here if absent.
    pub peer_netns: Option<Netns>,
}

/// A change to a link. What is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct SetLink {
    /// Which link.
    pub index: u32,
    /// Up or down.
    pub up: Option<bool>,
    /// Ethernet address.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// New name.
    pub name: Option<String>,
    /// Interface group.
    pub group: Option<u32>,
    /// Free text.
    pub alias: Option<String>,
    /// Bridge to join; `Some(0)` leaves.
    pub master: Option<u32>,
    /// Namespace to move to.
    pub netns: Option<Netns>,
}

impl SetLink {
    /// A change of nothing yet.
    pub fn new(index: u32) -> Self {
        Self { index, ..Self::default() }
    }

    /// Sets a link up.
    pub fn up(index: u32) -> Self {
        Self { up: Some(true), ..Self::new(index) }
    }
}

pub(crate) fn encode_veth(e: &mut Encoder, new: &NewVeth) -> Result<(), Errno> {
    check_name(&new.name)?;
    check_name(&new.peer_name)?;
    let mut peer = LinkMessageBuilder::<LinkUnspec>::default().name(&new.peer_name);
    if let Some(mac) = new.peer_mac {
        peer = peer.address(mac.0.to_vec());
    }
    if let Some(mtu) = new.mtu {
        peer = peer.mtu(mtu);
    }
    if let Some(ns) = &new.peer_netns {
        peer = peer.setns_by_fd(ns.as_fd().as_raw_fd());
    }
    let mut near = LinkMessageBuilder::<LinkVeth>::new(&new.name, &new.peer_name)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())));
    if let Some(mac) = new.host_mac {
        near = near.address(mac.0.to_vec());
    }
    if let Some(mtu) = new.mtu {
        near = near.mtu(mtu);
    }
    if new.up {
        near = near.up();
    }
    if let Some(group) = new.group {
        near = near.link_group(group);
    }
    if let Some(index) = new.index {
        near = near.index(index);
    }
    if let Some(alias) = &new.alias {
        near = near.alias(alias);
    }
    e.begin(RTM_NEWLINK, F_CREATE | F_EXCL);
    emit(e, &near.build());
    Ok(())
}

pub(crate) fn encode_set(e: &mut Encoder, set: &SetLink) -> Result<(), Errno> {
    let mut link = LinkUnspec::new_with_index(set.index);
    match set.up {
        Some(true) => link = link.up(),
        Some(false) => link = link.down(),
        None => {}
    }
    if let Some(mac) = set.mac {
        link = link.address(mac.0.to_vec());
    }
    if let Some(mtu) = set.mtu {
        link = link.mtu(mtu);
    }
    if let Some(name) = &set.name {
        check_name(name)?;
        link = link.name(name);
    }
    if let Some(group) = set.group {
        link = link.link_group(group);
    }
    if let Some(alias) = &set.alias {
        link = link.alias(alias);
    }
    if let Some(master) = set.master {
        link = link.controller(master);
    }
    if let Some(ns) = &set.netns {
        link = link.setns_by_fd(ns.as_fd().as_raw_fd());
    }
    e.begin(RTM_SETLINK, 0);
    emit(e, &link.build());
    Ok(())
}

pub(crate) fn encode_delete(e: &mut Encoder, index: u32) -> Result<(), Errno> {
    if index == 0 {
        return Err(Errno::EINVAL); // the kernel would look at other attributes to choose
    }
    e.begin(RTM_DELLINK, 0);
    header(e, index);
    Ok(())
}

/// Group 0 holds every link that nobody put elsewhere, so it is refused.
pub(crate) fn encode_delete_group(e: &mut Encoder, group: u32) -> Result<(), Errno> {
    if group == 0 {
        return Err(Errno::EINVAL);
    }
    e.begin(RTM_DELLINK, 0);
    header(e, 0);
    e.attr_u32(IFLA_GROUP, group);
    Ok(())
}

pub(crate) fn encode_dump(e: &mut Encoder) {
    e.begin(RTM_GETLINK, F_DUMP);
    header(e, 0);
    e.attr_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
}

pub(crate) fn encode_get(e: &mut Encoder, by: &LinkKey<'_>) {
    e.begin(RTM_GETLINK, 0);
    match by {
        LinkKey::Index(index) => header(e, *index),
        LinkKey::Name(name) => {
            header(e, 0);
            let mut value = name.as_bytes().to_vec();
            value.push(0);
            e.attr(IFLA_IFNAME, &value);
        }
    }
    e.attr_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
}

pub(crate) enum LinkKey<'a> {
    Index(u32),
    Name(&'a str),
}

/// Whether a name can be an interface's at all.
pub(crate) fn check_name(name: &str) -> Result<(), Errno> {
    let bad = |b: u8| b == b'/' || b == b':' || b == 0 || b.is_ascii_whitespace();
    if name.is_empty() || name.len() > NAME_MAX || name == "." || name == ".." || name.bytes().any(bad) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// Reads a link message; `None` for those of other families, such as a bridge's view of its ports.
pub(crate) fn parse(message: &Message<'_>) -> Result<Option<Link>, Malformed> {
    let (head, attrs) = message.split(IFINFOMSG)?;
    if head[0] != AF_UNSPEC {
        return Ok(None);
    }
    let flags = u32_at(head, 8).unwrap_or(0);
    let mut link = Link {
        index: u32_at(head, 4).unwrap_or(0),
        name: String::new(),
        up: flags & IFF_UP != 0,
        running: false,
        mac: None,
        mtu: 0,
        kind: String::new(),
        group: 0,
        peer_index: None,
        peer_netns: None,
        master: None,
        alias: None,
    };
    for attr in attrs {
        let (kind, value) = attr?;
        match kind {
            IFLA_IFNAME => link.name = string(value),
            IFLA_ADDRESS => link.mac = <[u8; 6]>::try_from(value).ok().map(Mac),
            IFLA_MTU => link.mtu = u32_of(value)?,
            IFLA_GROUP => link.group = u32_of(value)?,
            IFLA_MASTER => link.master = Some(u32_of(value)?),
            IFLA_LINK => link.peer_index = Some(u32_of(value)?).filter(|i| *i != 0),
            IFLA_LINK_NETNSID => link.peer_netns = Some(u32_of(value)?.cast_signed()),
            IFLA_IFALIAS => link.alias = Some(string(value)),
            IFLA_OPERSTATE => {
                let unknown = value.first() == Some(&IF_OPER_UNKNOWN) && link.up;
                // A new pair says "unknown", too, before the kernel looked whether its far end is up.
                let carrier = flags & IFF_LOWER_UP != 0;
                link.running = carrier && (value.first() == Some(&IF_OPER_UP) || unknown);
            }
            IFLA_LINKINFO => {
                for info in Attributes(value) {
                    if let (IFLA_INFO_KIND, v) = info? {
                        link.kind = string(v);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(Some(link))
}

fn header(e: &mut Encoder, index: u32) {
    let mut head = [0; IFINFOMSG];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    e.bytes(&head);
}

fn emit(e: &mut Encoder, message: &LinkMessage) {
    message.emit(e.reserve(message.buffer_len()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_text_reads_back() {
        let mac: Mac = "0a:1b:02:Ff:00:9".parse().unwrap();
        assert_eq!(mac.to_string(), "0a:1b:02:ff:00:09");
        for bad in ["", "1:2:3:4:5", "1:2:3:4:5:6:7", "g:2:3:4:5:6", "001:2:3:4:5:6", "+1:2:3:4:5:6"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_the_kernel_would_refuse_or_misread_are_refused() {
        for bad in ["", "a/b", "a b", ".", "..", "sixteen-letters!", "a:1", "a\0b"] {
            assert_eq!(check_name(bad), Err(Errno::EINVAL), "{bad:?}");
        }
        assert_eq!(check_name("cali1b15813a0a8"), Ok(()));
    }

    #[test]
    fn the_default_group_is_never_deleted() {
        let mut e = Encoder::default();
        assert_eq!(encode_delete_group(&mut e, 0), Err(Errno::EINVAL));
        assert_eq!(encode_delete(&mut e, 0), Err(Errno::EINVAL));
    }
}
