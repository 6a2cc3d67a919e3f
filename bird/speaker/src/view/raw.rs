//! Routes and sessions as bytes, for other programs' formats: nothing is put into words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bird_packet::{Family, Prefix};

use crate::io::{ConnId, Time};
use crate::peer::Peer;
use crate::rib::index32;
use crate::rib::net::Net;
use crate::rib::nexthop::NhId;
use crate::rib::routes::Rib;
use crate::rib::table::source;
use crate::speaker::Speaker;

/// Where a walk over raw routes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RawWalk {
    family: usize,
    at: usize,
}

/// A path that import took, as the table holds it.
#[derive(Debug, Clone, Copy)]
pub struct RawPath<'a> {
    /// Number of the peer, as [`RawPeer::number`]; `None`: this node itself.
    pub peer: Option<u16>,
    /// Path identifier that the peer sent, 0 without ADD-PATH.
    pub path_id: u32,
    /// Canonical attributes.
    pub attributes: &'a [u8],
    /// The next hop, and with it the link-local one.
    pub next_hop: Option<(IpAddr, Option<Ipv6Addr>)>,
}

/// A peer with what its session agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawPeer {
    /// Its number while it is configured.
    pub number: u16,
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Our end of the session.
    pub local_address: Option<IpAddr>,
    /// Its AS.
    pub asn: u32,
    /// Ours, as it sees it.
    pub local_as: u32,
    /// Its BGP Identifier, of the session that it has or had.
    pub router_id: Option<Ipv4Addr>,
    /// When its state changed last.
    pub since: Time,
    /// AS numbers have four octets.
    pub as4: bool,
    /// Path identifiers come in, by family.
    pub add_path: [bool; 2],
}

impl Speaker {
    /// The next prefixes with the paths that import took; true at the end. `budget` is in prefixes.
    pub fn walk_raw(
        &self,
        walk: &mut RawWalk,
        budget: usize,
        mut each: impl FnMut(Prefix, &[RawPath<'_>]),
    ) -> bool {
        let mut paths = Vec::new();
        for _ in 0..budget {
            let bound = match walk.family {
                0 => self.v4.table.dest_bound(),
                1 => self.v6.table.dest_bound(),
                _ => return true,
            };
            if walk.at >= bound {
                *walk = RawWalk { family: walk.family + 1, at: 0 };
                continue;
            }
            let prefix = match walk.family {
                0 => self.raw_paths(&self.v4, walk.at, &mut paths),
                _ => self.raw_paths(&self.v6, walk.at, &mut paths),
            };
            if !paths.is_empty() {
                each(prefix, &paths);
            }
            walk.at += 1;
        }
        walk.family > 1
    }

    fn raw_paths<'a, N: Net>(&'a self, rib: &'a Rib<N>, at: usize, paths: &mut Vec<RawPath<'a>>) -> Prefix {
        let id = index32(at);
        paths.clear();
        for path in rib.table.paths(id).iter().filter(|p| !p.is_filtered()) {
            let key = self.core.store.attrs.key(path.attr);
            let next_hop = (key.next_hop != NhId::NONE).then(|| {
                let addr = self.core.store.next_hops.addr(key.next_hop);
                (addr.address, addr.link_local)
            });
            let learned = path.peer >= source::FIRST_PEER;
            paths.push(RawPath {
                peer: learned.then_some(path.peer),
                path_id: if learned { path.rx_id } else { 0 },
                attributes: self.core.store.attrs.bytes(path.attr),
                next_hop,
            });
        }
        rib.table.net(id).to_prefix()
    }

    /// All peers, by number.
    pub fn raw_peers(&self) -> Vec<RawPeer> {
        self.peers.iter().flatten().filter(|p| !p.removed).map(|p| self.raw_peer(p)).collect()
    }

    /// The peer of a connection.
    pub fn raw_peer_of(&self, conn: ConnId) -> Option<RawPeer> {
        let c = self.conns.get(self.conns.find(conn)?)?;
        let mut raw = self.raw_peer(self.peer(c.peer)?);
        raw.local_address = c.local.map(|l| l.ip());
        raw.address = c.remote.ip();
        Some(raw)
    }

    fn raw_peer(&self, peer: &Peer) -> RawPeer {
        let conn = peer.established.and_then(|at| self.conns.get(at));
        let terms = conn.and_then(|c| c.terms.as_ref());
        let open = conn.and_then(|c| c.open.as_ref());
        RawPeer {
            number: peer.index,
            name: peer.name.to_string(),
            address: peer.config.address,
            local_address: conn.and_then(|c| c.local).map(|l| l.ip()),
            asn: open.map_or(peer.config.remote_as, |o| o.asn),
            local_as: peer.config.effective_local_as(&self.config.local),
            router_id: open.map(|o| o.router_id),
            since: peer.since,
            as4: terms.is_none_or(|t| t.ctx.as4),
            add_path: Family::ALL.map(|f| terms.is_some_and(|t| t.ctx.family(f).add_path_rx)),
        }
    }

    /// The beginning of a message on this connection whose end has not arrived.
    pub fn unfinished(&self, conn: ConnId) -> &[u8] {
        let at = self.conns.find(conn);
        at.and_then(|at| self.conns.get(at)).map_or(&[], |c| &c.tail)
    }
}
