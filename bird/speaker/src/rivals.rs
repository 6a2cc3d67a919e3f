//! Two peers that are configured for one address: at most one of them can have the session, the other says why it has none.
//!
//! A node may be in the mesh and named by a BGPPeer too, perhaps with another AS. Whoever calls from an address shows by its
//! OPEN which of the peers it is; while that one has its session, the others do not call, or both ends would end one
//! connection of the two over and over.

use std::net::IpAddr;
use std::time::Duration;

use bird_packet::{Notification, OpenMessage};

use crate::config::PeerConfig;
use crate::fsm::{Phase, negotiate};
use crate::io::{DownReason, Time};
use crate::peer::Peer;
use crate::rib::table::PeerIndex;
use crate::speaker::Speaker;

/// How long a caller that may be one of several is given to show by its OPEN which one, before we send ours.
pub(crate) const SHOW: Duration = Duration::from_secs(1);
/// Shortest pause before a peer looks again whether its rival has a session.
const LOOK: Duration = Duration::from_secs(1);

/// Whether calls to the one and to the other look the same from outside.
fn rival(a: &PeerConfig, b: &PeerConfig) -> bool {
    let sources_differ = matches!((a.source_address, b.source_address), (Some(a), Some(b)) if a != b);
    (a.address, a.port) == (b.address, b.port) && a.interface == b.interface && !sources_differ
}

impl Speaker {
    fn rivals(&self, index: PeerIndex) -> impl Iterator<Item = &Peer> {
        let config = self.peer(index).map(|p| p.config.clone());
        self.peers.iter().flatten().map(|p| &**p).filter(move |p| {
            p.index != index && p.is_wanted() && config.as_ref().is_some_and(|c| rival(c, &p.config))
        })
    }

    /// Puts a call off while a rival has a connection; true if it did.
    pub(crate) fn rival_goes_first(&mut self, now: Time, index: PeerIndex) -> bool {
        // Who had a session does not wait for one that never had.
        let known = self.peer(index).is_some_and(|p| p.counters.established > 0);
        let busy = |p: &&Peer| {
            p.established.is_some() || (!p.conns.is_empty() && (p.counters.established > 0 || !known))
        };
        let Some(rival) = self.rivals(index).find(busy) else { return false };
        let has_session = rival.established.is_some().then(|| rival.name.clone());
        if let Some(rival) = has_session {
            self.report_rival(index, rival);
        }
        let pause = self.peer(index).map_or(LOOK, |p| p.config.connect_retry.max(LOOK));
        self.retry_in(now, index, pause);
        true
    }

    /// Says of everybody else with this peer's address why it has no session.
    pub(crate) fn report_rivals_of(&mut self, index: PeerIndex) {
        let Some(name) = self.peer(index).map(|p| p.name.clone()) else { return };
        let without: Vec<PeerIndex> =
            self.rivals(index).filter(|p| p.established.is_none()).map(|p| p.index).collect();
        for other in without {
            self.report_rival(other, name.clone());
        }
    }

    fn report_rival(&mut self, index: PeerIndex, rival: std::sync::Arc<str>) {
        let Some(address) = self.peer(index).map(|p| p.config.address) else { return };
        self.report_failure(index, DownReason::Rival { address, rival });
    }

    /// The peers that a call from `remote` to `local` may be for, the likeliest first; or why there is none.
    pub(crate) fn peers_for_call(
        &self,
        remote: IpAddr,
        local: IpAddr,
        interface: Option<&str>,
    ) -> Result<Vec<PeerIndex>, Option<&'static str>> {
        let mut refusal = None;
        let mut found: Vec<&Peer> = Vec::new();
        for peer in self.peers.iter().flatten().filter(|p| p.config.address == remote) {
            if !peer.is_wanted() {
                refusal = Some("the peer is disabled");
            } else if peer.config.source_address.is_some_and(|source| source != local) {
                refusal = Some("it called another address than this session's source address");
            } else if matches!((peer.config.interface.as_deref(), interface), (Some(a), Some(b)) if a != b) {
                refusal = Some("it called by another interface than this session's");
            } else {
                found.push(peer);
            }
        }
        // Whoever had a session was the right one; one that has none now more likely is called anew.
        found.sort_by_key(|p| (p.counters.established == 0, p.established.is_some()));
        if found.is_empty() { Err(refusal) } else { Ok(found.iter().map(|p| p.index).collect()) }
    }

    /// Whether a caller that may be any of these must show which one it is before we send our OPEN.
    pub(crate) fn must_show(&self, candidates: &[PeerIndex]) -> bool {
        let [first, rest @ ..] = candidates else { return false };
        let open = self.open_to(*first);
        rest.iter().any(|other| self.open_to(*other) != open)
    }

    /// The peer whose OPEN this is, of those with the address of the connection; the connection becomes its own.
    /// `Err`: it is a rival's, and must be made anew as that one's.
    pub(crate) fn rightful(
        &mut self,
        now: Time,
        at: usize,
        open: &OpenMessage,
    ) -> Result<Option<PeerIndex>, Notification> {
        let Some(c) = self.conns.get(at) else { return Ok(None) };
        let (index, phase, outgoing) = (c.peer, c.phase, c.outgoing);
        let (remote, local, interface) = (c.remote.ip(), c.local.map(|l| l.ip()), c.interface.clone());
        let candidates = match local {
            Some(local) if !outgoing => {
                self.peers_for_call(remote, local, interface.as_deref()).unwrap_or_default()
            }
            _ => std::iter::once(index).chain(self.rivals(index).map(|p| p.index)).collect(),
        };
        if candidates.len() < 2 {
            return Ok(Some(index));
        }
        let fits = |candidate: &&PeerIndex| {
            self.peer(**candidate).is_some_and(|p| p.config.remote_as == 0 || p.config.remote_as == open.asn)
        };
        let place = |candidate: &&PeerIndex| {
            let session =
                self.peer(**candidate).and_then(|p| p.established).and_then(|at| self.conns.get(at));
            let id = session.and_then(|c| c.open.as_ref()).map(|o| o.router_id);
            let place = match id {
                Some(id) if id == open.router_id => 0,
                None => 1,
                Some(_) => 2,
            };
            (place, **candidate != index)
        };
        let Some(rightful) = candidates.iter().filter(fits).min_by_key(place).copied() else {
            return Ok(Some(index));
        };
        if rightful == index {
            return Ok(Some(index));
        }
        let sent = phase != Phase::Delayed;
        if sent && self.open_to(rightful) != self.open_to(index) {
            // It has our OPEN as another peer's: both call again, and this one lets the other go first.
            if let Some(name) = self.peer(rightful).map(|p| p.name.clone()) {
                self.report_rival(index, name);
            }
            self.retry_in(now, rightful, crate::peer::FIRST_RETRY);
            return Err(Notification::cease(bird_packet::Cease::CollisionResolution));
        }
        self.forget_conn(index, at);
        if let Some(c) = self.conns.get_mut(at) {
            c.peer = rightful;
        }
        if let Some(peer) = self.peer_mut(rightful) {
            peer.conns.push(at);
        }
        let pause = self.peer(index).map_or(LOOK, |p| p.config.connect_retry.max(LOOK));
        self.retry_in(now, index, pause);
        Ok(Some(rightful))
    }

    /// What we say in OPEN to a peer now.
    pub(crate) fn open_to(&self, index: PeerIndex) -> Option<OpenMessage> {
        let peer = self.peer(index)?;
        let restarting = negotiate::Restarting {
            restarted: self.restart.says_restarted(),
            // While we run, a connection that breaks takes nothing out of the kernel.
            forwarding_kept: self.restart.forwarding_kept() || peer.counters.established > 0,
        };
        Some(negotiate::our_open(&peer.config, &self.config.local, restarting))
    }
}
