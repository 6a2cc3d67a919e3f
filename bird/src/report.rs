//! What the log says: one line for each change that a person asks about, with the cause and its fix.

use std::io;

use bird_speaker::io::{ConnectError, DownReason, Notice};
use bird_speaker::{ConfigDiff, Event};

use crate::notice::{Meaning, meaning};
use crate::plan::Plan;

/// Logs an event of the speaker.
pub(crate) fn event(event: &Event) {
    match event {
        Event::Up { peer, peer_as, router_id } => {
            tracing::info!(%peer, peer_as, %router_id, "session established");
        }
        Event::SameIdentifier { peer, other, router_id } => {
            tracing::warn!(
                %peer, %other, %router_id,
                fix = "give each node a router id of its own; until then a route of one that is reflected is refused by the other",
                "two neighbours in this AS have one router id"
            );
        }
        Event::Down { peer, reason: reason @ DownReason::Admin(_) } => {
            tracing::info!(%peer, err = %reason, "session ended");
        }
        Event::Down { peer, reason } => {
            tracing::warn!(%peer, err = %reason, fix = fix(reason), "session lost");
        }
        Event::Failed { peer, reason }
            if reason.notice().is_some_and(|n| meaning(n) == Meaning::Collision) =>
        {
            tracing::info!(%peer, err = %reason, "both called at once; the other connection stays");
        }
        Event::Failed { peer, reason: reason @ DownReason::Twin { .. } } => {
            tracing::warn!(%peer, err = %reason, fix = fix(reason), "another speaker has this peer's address; the session stays");
        }
        Event::Failed { peer, reason } => {
            tracing::warn!(%peer, err = %reason, fix = fix(reason), "session does not come up");
        }
        Event::Malformed { peer, what } => {
            tracing::warn!(%peer, err = what, "malformed update contained (RFC 7606); the session stays");
        }
        Event::PrefixLimit { peer, max } => {
            tracing::warn!(%peer, max, fix = "raise the limit, or stop the peer's leak", "prefix limit reached");
        }
        Event::PathLimit { peer, max } => {
            tracing::warn!(
                %peer, max,
                fix = "raise the limit of paths that are received, or let the peer tell fewer for each prefix",
                "paths beyond the limit for a prefix are not taken"
            );
        }
        Event::Refused { remote, reason } => {
            tracing::debug!(%remote, err = reason, "call refused");
        }
        Event::LongLivedStale { peer, family, time } => {
            tracing::warn!(
                %peer, %family, seconds = time.as_secs(),
                fix = "bring the peer back, or shut it down here (caracal.io/shutdown, enabled: false) to forget its routes",
                "peer not back within its restart time; its routes are kept as long-lived stale"
            );
        }
        Event::RestartComplete { waited } => {
            tracing::info!(waited = ?waited, "restart complete; what no peer can want any more is swept");
        }
    }
}

/// Logs what a new configuration does to sessions. One whose peer had no address in the `old` plan is none.
pub(crate) fn change(diff: &ConfigDiff, old: Option<&Plan>) {
    let nowhere = |name: &str| {
        let mut peers = old.into_iter().flat_map(|plan| &plan.config.peers);
        peers.any(|p| p.name == name && p.address.is_unspecified())
    };
    for (peer, field) in diff.reset.iter().filter(|(name, _)| !nowhere(name)) {
        tracing::info!(%peer, field, "session is reset: it cannot take this change as it runs");
    }
    if !(diff.added.is_empty() && diff.removed.is_empty() && diff.reevaluated.is_empty()) {
        tracing::info!(
            added = diff.added.join(","),
            removed = diff.removed.join(","),
            reevaluated = diff.reevaluated.len(),
            "peers changed"
        );
    }
}

/// The system's reason for the end of a connection, in words.
pub(crate) fn connection_error(err: &io::Error) -> String {
    match err.raw_os_error() {
        Some(libc::ECONNRESET) => "reset by the peer".into(),
        Some(libc::ETIMEDOUT) => "no acknowledgement from the peer".into(),
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH) => "no route to the peer".into(),
        _ => err.to_string(),
    }
}

/// What mends it.
fn fix(reason: &DownReason) -> &'static str {
    match reason {
        DownReason::Connect(ConnectError::Refused) => {
            "start the BGP speaker on the peer, or compare its address and port with the configuration here"
        }
        DownReason::Connect(ConnectError::TimedOut) => {
            "check that the peer runs, that no packet filter drops TCP port 179, and that both sides have the same password"
        }
        DownReason::Connect(ConnectError::Unreachable) => {
            "check the link and the subnet of this node's address, or set reachableBy to the gateway of the peer"
        }
        DownReason::Connect(ConnectError::BadSource) => {
            "correct the Node's BGP address, or set sourceAddress to None on the BGPPeer"
        }
        DownReason::Connect(ConnectError::Other(_)) => "see the error; it is tried again",
        DownReason::Sent(notice) | DownReason::Received(notice) => fix_of(notice),
        DownReason::Closed(_) => {
            "look at the peer's log: it hung up without a reason; a wrong password or an unknown neighbour does that"
        }
        DownReason::Rival { .. } => "remove the BGPPeer that is not meant, or correct its peerIP",
        DownReason::Twin { .. } => {
            "give one of the two hosts another address; `ip neigh` shows the link address of the one that answers now"
        }
        DownReason::Unreachable(_) => {
            "look at the path to the peer, and whether its BFD runs; `ctl bgp neighbor` shows the BFD session"
        }
        DownReason::Admin(_) => "nothing: it was asked for",
    }
}

fn fix_of(notice: &Notice) -> &'static str {
    match meaning(notice) {
        Meaning::BadPeerAs => {
            "compare asNumber of the BGPPeer or Node with the AS that the peer is configured with"
        }
        Meaning::BadIdentifier => "give each speaker a router id of its own (CALICO_ROUTER_ID)",
        Meaning::Silent | Meaning::NotReading => {
            "the peer was silent or did not read for the hold time: check the link and the load on both sides"
        }
        Meaning::HoldTime => "set a hold time of 0 or of at least 3 s on both sides",
        Meaning::Capability => "enable the same address families on both sides",
        Meaning::TooManyPrefixes => "raise the prefix limit, or stop the leak of routes",
        Meaning::Unwelcome => "configure this node as a neighbour on the peer",
        Meaning::Administrative => "nothing: an operator asked for it",
        Meaning::Collision => "nothing: the other connection of the two stays",
        Meaning::BfdDown => {
            "look at BFD with the peer, on both sides; `ctl bgp neighbor` shows the BFD session"
        }
        Meaning::Authentication | Meaning::Other => "look at the peer's log for the same moment",
    }
}
