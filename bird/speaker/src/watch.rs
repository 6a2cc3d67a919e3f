//! Whom the shell shall watch with BFD, and what follows when a peer cannot be reached (RFC 5882, 9384).

use std::net::IpAddr;

use bird_packet::{Cease, Notification};

use crate::config::Bfd;
use crate::ending::Ending;
use crate::fsm::{Happening, Phase};
use crate::io::{DownReason, Notice, Time, Witness};
use crate::peer::Peer;
use crate::rib::table::PeerIndex;
use crate::speaker::Speaker;

/// Cease / BFD Down (RFC 9384).
const BFD_DOWN: (u8, u8) = (6, Cease::BfdDown as u8);

/// A peer that is to be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched<'a> {
    /// Its name.
    pub peer: &'a str,
    /// Its address.
    pub address: IpAddr,
    /// Interface of a link-local address.
    pub interface: Option<&'a str>,
    /// The configured source address, else our end of the session that is up, or of a connection that waits for BFD.
    pub local: Option<IpAddr>,
    /// Most hops to it, where TTL security says so.
    pub hops: Option<u8>,
    /// How.
    pub bfd: Bfd,
    /// Whether BFD is up, as [`crate::io::Command::Bfd`] said last.
    pub told_up: bool,
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
        let wanted =
            self.peers.iter().flatten().filter(|p| p.is_wanted() && !p.config.address.is_unspecified());
        wanted.filter_map(move |peer| {
            let conn = peer.established.and_then(|at| self.conns.get(at));
            let waiting = || {
                let strict = peer.config.waits_for_bfd();
                peer.conns.iter().filter(|_| strict).find_map(|at| self.conns.get(*at)?.local)
            };
            let local = conn.and_then(|c| c.local).or_else(waiting);
            let agreed = conn.and_then(|c| c.terms.as_ref()).is_some_and(|t| t.restart.is_some());
            Some(Watched {
                peer: &peer.name,
                address: peer.config.address,
                interface: peer.config.interface.as_deref(),
                local: peer.config.source_address.or(local.map(|l| l.ip())),
                hops: peer.config.ttl_security,
                bfd: peer.config.bfd?,
                told_up: peer.bfd_up,
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

    /// Whether it is BFD that a peer has no session for: it waits now, or one of the two gave up waiting.
    pub(crate) fn stands_for_bfd(&self, peer: &Peer) -> bool {
        let pending = |at: &usize| self.conns.get(*at).is_some_and(|c| c.phase == Phase::BfdPending);
        let gave_up = |notice: &Notice| matches!((notice.code, notice.subcode), (4, _) | BFD_DOWN);
        peer.established.is_none()
            && peer.config.waits_for_bfd()
            && !peer.bfd_up
            && (peer.conns.iter().any(pending)
                || peer.last_error.as_ref().and_then(DownReason::notice).is_some_and(gave_up))
    }

    /// BFD with a peer came up or went down: whoever waits for it goes on, or is let go.
    pub(crate) fn on_bfd(&mut self, now: Time, index: PeerIndex, up: bool) {
        let Some(peer) = self.peer_mut(index) else { return };
        peer.bfd_up = up;
        if !peer.config.waits_for_bfd() {
            return;
        }
        let happening = if up { Happening::BfdUp } else { Happening::BfdDown };
        for at in peer.conns.clone() {
            self.happen(now, at, happening);
        }
    }

    /// The configuration says something else about waiting. A session that is up does not mind; one that is not begins
    /// anew, so that both ends know (draft-ietf-idr-bgp-bfd-strict-mode §8.1); without BFD nothing is waited for.
    pub(crate) fn on_bfd_configured(&mut self, now: Time, index: PeerIndex, before: Option<Bfd>) {
        let Some(peer) = self.peer(index) else { return };
        if before.is_some_and(|bfd| bfd.strict) == peer.config.waits_for_bfd() {
            return;
        }
        let off = peer.config.bfd.is_none();
        for at in peer.conns.clone() {
            let Some(phase) = self.conns.get(at).map(|c| c.phase) else { continue };
            if off {
                self.happen(now, at, Happening::BfdUp);
            } else if phase == Phase::OpenSent || phase.is_between() {
                let changed = Notification::cease(Cease::ConfigurationChange);
                self.end(now, at, Some(changed), Ending::Hard);
            }
        }
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
