//! Whom the shell shall watch with BFD, and what follows when a peer cannot be reached (RFC 5882, 9384).

use std::net::IpAddr;

use bird_packet::{Cease, Notification};

use crate::config::Bfd;
use crate::ending::Ending;
use crate::io::{DownReason, Time, Witness};
use crate::rib::table::PeerIndex;
use crate::speaker::Speaker;

/// A peer that is to be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched<'a> {
    /// Its name.
    pub peer: &'a str,
    /// Its address.
    pub address: IpAddr,
    /// Interface of a link-local address.
    pub interface: Option<&'a str>,
    /// The configured source address, else our end of the session that is up.
    pub local: Option<IpAddr>,
    /// Most hops to it, where TTL security says so.
    pub hops: Option<u8>,
    /// How.
    pub bfd: Bfd,
    /// How long its session is up.
    pub up_for: Option<Time>,
    /// Where graceful restart with it stands.
    pub restart: RestartStanding,
}

/// Where graceful restart with a peer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartStanding {
    /// Not agreed.
    None,
    /// Agreed, and the session is up.
    Agreed,
    /// We keep routes of it over its restart.
    UnderWay,
}

impl Speaker {
    /// The peers that are to be watched now; changes with [`Speaker::configure`] and when sessions come and go.
    pub fn watched(&self, now: Time) -> impl Iterator<Item = Watched<'_>> {
        let wanted = self.peers.iter().flatten().filter(|p| p.is_wanted());
        wanted.filter_map(move |peer| {
            let conn = peer.established.and_then(|at| self.conns.get(at));
            let agreed = conn.and_then(|c| c.terms.as_ref()).is_some_and(|t| t.restart.is_some());
            Some(Watched {
                peer: &peer.name,
                address: peer.config.address,
                interface: peer.config.interface.as_deref(),
                local: peer.config.source_address.or(conn.and_then(|c| c.local).map(|l| l.ip())),
                hops: peer.config.ttl_security,
                bfd: peer.config.bfd?,
                up_for: conn.map(|_| now.saturating_sub(peer.since)),
                restart: if peer.helper.is_active() {
                    RestartStanding::UnderWay
                } else if agreed {
                    RestartStanding::Agreed
                } else {
                    RestartStanding::None
                },
            })
        })
    }

    /// Something that sees further than TCP says that the peer is gone.
    pub(crate) fn unreachable(&mut self, now: Time, index: PeerIndex, why: Witness) {
        let Some(peer) = self.peer(index) else { return };
        let Some(at) = peer.established else {
            // RFC 5882 §4.3.1: forwarding does not work either, so there is nothing to keep routes for.
            if why == Witness::Bfd && peer.helper.is_active() {
                self.end_help(now, index, [true, true]);
                self.check_restart(now);
            }
            return;
        };
        let (cease, ending, reason) = match why {
            Witness::Bfd => (Some(Cease::BfdDown), Ending::Hard, "BFD says that the peer is down"),
            Witness::BfdOfControlPlane => {
                (Some(Cease::BfdDown), Ending::Lost, "BFD says that the peer is down")
            }
            Witness::Link => (None, Ending::Hard, "the link to the peer is down"),
        };
        let notification = cease.map(|cease| {
            let notification = Notification::cease(cease);
            let agreed = self.conns.get(at).and_then(|c| c.terms.as_ref()).and_then(|t| t.restart);
            // RFC 8538: without it a peer that still hears us would keep our routes.
            let hard = ending == Ending::Hard && agreed.is_some_and(|r| r.notification);
            if hard { notification.into_hard_reset() } else { notification }
        });
        // No error of the peer's: it is called again as after any lost connection.
        self.lose(now, at, DownReason::Unreachable(reason), ending);
        self.close_conn(at, notification.as_ref());
    }
}
