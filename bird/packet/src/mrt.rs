//! MRT records (RFC 6396, RFC 8050): what other programs read of a table or of a session. Encoding only.
//!
//! A dump is a [`peer_index_table`] and then a [`rib`] for each prefix; a recording is a row of [`message`]s.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::attr::{canonical, code, flag};
use crate::prefix::{Family, Prefix};

const TABLE_DUMP_V2: u16 = 13;
const BGP4MP_ET: u16 = 17;

/// A peer in a dump's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// BGP Identifier.
    pub router_id: Ipv4Addr,
    /// Its address.
    pub address: IpAddr,
    /// Its AS.
    pub asn: u32,
}

/// One path of a prefix in a dump.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Place of the peer in the index.
    pub peer: u16,
    /// When it was received, seconds since 1970.
    pub since: u32,
    /// Path identifier; counts in records with ADD-PATH.
    pub path_id: u32,
    /// Canonical attributes.
    pub attributes: &'a [u8],
    /// The next hop.
    pub next_hop: IpAddr,
    /// With it the link-local one.
    pub link_local: Option<Ipv6Addr>,
}

/// A session, for records of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The peer's AS.
    pub peer_as: u32,
    /// Ours.
    pub local_as: u32,
    /// The peer's address.
    pub peer: IpAddr,
    /// Ours, of the same family.
    pub local: IpAddr,
    /// AS numbers of its UPDATEs have four octets.
    pub as4: bool,
    /// Its UPDATEs carry path identifiers.
    pub add_path: bool,
}

/// Appends the header and leaves room for the length; returns where the body begins.
fn begin(out: &mut Vec<u8>, seconds: u32, kind: u16, subtype: u16) -> usize {
    out.extend_from_slice(&seconds.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&subtype.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.len()
}

/// Writes the length of what came behind the header.
fn end(out: &mut [u8], body: usize) {
    let length = u32::try_from(out.len().saturating_sub(body)).unwrap_or(u32::MAX);
    if let Some(place) = body.checked_sub(4).and_then(|at| out.get_mut(at..body)) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(a) => out.extend_from_slice(&a.octets()),
        IpAddr::V6(a) => out.extend_from_slice(&a.octets()),
    }
}

/// Appends a PEER_INDEX_TABLE: the first record of a dump. At most 65,535 peers are written; returns how many.
pub fn peer_index_table(
    out: &mut Vec<u8>,
    seconds: u32,
    collector: Ipv4Addr,
    view: &str,
    peers: &[Peer],
) -> u16 {
    let count = u16::try_from(peers.len()).unwrap_or(u16::MAX);
    let name = view.as_bytes();
    let name = name.get(..name.len().min(255)).unwrap_or_default();
    let body = begin(out, seconds, TABLE_DUMP_V2, 1);
    out.extend_from_slice(&collector.octets());
    out.extend_from_slice(&u16::try_from(name.len()).unwrap_or_default().to_be_bytes());
    out.extend_from_slice(name);
    out.extend_from_slice(&count.to_be_bytes());
    for peer in peers.iter().take(usize::from(count)) {
        // Bit 0: the address is IPv6; bit 1: the AS has four octets.
        out.push(2 | u8::from(peer.address.is_ipv6()));
        out.extend_from_slice(&peer.router_id.octets());
        put_address(out, peer.address);
        out.extend_from_slice(&peer.asn.to_be_bytes());
    }
    end(out, body);
    count
}

/// Appends the record of a prefix. `add_path`: with path identifiers (RFC 8050); paths with and without go into two records.
pub fn rib(
    out: &mut Vec<u8>,
    seconds: u32,
    sequence: u32,
    prefix: Prefix,
    add_path: bool,
    entries: &[Entry<'_>],
) {
    let subtype = match (prefix.family(), add_path) {
        (Family::Ipv4Unicast, false) => 2,
        (Family::Ipv6Unicast, false) => 4,
        (Family::Ipv4Unicast, true) => 8,
        (Family::Ipv6Unicast, true) => 10,
    };
    let body = begin(out, seconds, TABLE_DUMP_V2, subtype);
    out.extend_from_slice(&sequence.to_be_bytes());
    let octets = usize::from(prefix.len().div_ceil(8));
    out.push(prefix.len());
    match prefix.addr() {
        IpAddr::V4(a) => out.extend_from_slice(a.octets().get(..octets).unwrap_or_default()),
        IpAddr::V6(a) => out.extend_from_slice(a.octets().get(..octets).unwrap_or_default()),
    }
    let count = u16::try_from(entries.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&count.to_be_bytes());
    for entry in entries.iter().take(usize::from(count)) {
        out.extend_from_slice(&entry.peer.to_be_bytes());
        out.extend_from_slice(&entry.since.to_be_bytes());
        if add_path {
            out.extend_from_slice(&entry.path_id.to_be_bytes());
        }
        let at = out.len();
        out.extend_from_slice(&[0; 2]);
        put_attributes(out, entry);
        let length = u16::try_from(out.len().saturating_sub(at.saturating_add(2)));
        match (length, out.get_mut(at..at.saturating_add(2))) {
            (Ok(length), Some(place)) => place.copy_from_slice(&length.to_be_bytes()),
            // Too long for the format: the entry stays, without attributes.
            _ => out.truncate(at.saturating_add(2)),
        }
    }
    end(out, body);
}

fn put_attributes(out: &mut Vec<u8>, entry: &Entry<'_>) {
    match entry.next_hop {
        IpAddr::V4(hop) => canonical::put_wire(entry.attributes, true, Some(hop), out),
        IpAddr::V6(hop) => {
            out.extend_from_slice(entry.attributes);
            // RFC 6396 §4.3.4: only the next hop, with its length.
            let mut value = Vec::with_capacity(33);
            value.push(if entry.link_local.is_some() { 32 } else { 16 });
            value.extend_from_slice(&hop.octets());
            if let Some(link_local) = entry.link_local {
                value.extend_from_slice(&link_local.octets());
            }
            canonical::put_attr(out, flag::OPTIONAL, code::MP_REACH_NLRI, &value);
        }
    }
}

/// Appends a record of one BGP message, header and all; `sent`: by us. Times are kept to the microsecond.
pub fn message(out: &mut Vec<u8>, seconds: u32, micros: u32, session: &Session, sent: bool, bytes: &[u8]) {
    let subtype = match (session.as4, session.add_path, sent) {
        (false, false, false) => 1,
        (true, false, false) => 4,
        (false, false, true) => 6,
        (true, false, true) => 7,
        (false, true, false) => 8,
        (true, true, false) => 9,
        (false, true, true) => 10,
        (true, true, true) => 11,
    };
    let body = begin(out, seconds, BGP4MP_ET, subtype);
    out.extend_from_slice(&micros.to_be_bytes());
    for asn in [session.peer_as, session.local_as] {
        if session.as4 {
            out.extend_from_slice(&asn.to_be_bytes());
        } else {
            let narrow = u16::try_from(asn).unwrap_or(23456);
            out.extend_from_slice(&narrow.to_be_bytes());
        }
    }
    // No interface; family.
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&[0, if session.peer.is_ipv6() { 2 } else { 1 }]);
    put_address(out, session.peer);
    put_address(out, session.local);
    out.extend_from_slice(bytes);
    end(out, body);
}
