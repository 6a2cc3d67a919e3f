//! A BGPPeer whose peer the node finds: by router advertisements, or as the gateway of the default route.

use caracal_model::annotation::{Discovery, REMOTE_AS, RemoteAs};
use caracal_model::{AsNumber, BgpPeer};

use crate::facts::Remote;
use crate::parse::{BadField, Result, bad, selector};

/// How a peer is found, and the AS that is asked of it.
pub(crate) struct Found {
    by: Discovery,
    remote_as: Option<RemoteAs>,
}

/// What the annotations say about who the peer is. A wrong one must not make it somebody else.
pub(crate) fn found(peer: &BgpPeer) -> Result<Option<Found>> {
    let annotations = &peer.metadata.annotations;
    let wrong = |(name, reason): (&str, String)| BadField {
        field: format!("metadata.annotations[{name}]"),
        reason,
        fix: "correct the annotation, or remove it",
    };
    let by = Discovery::read(annotations).map_err(wrong)?;
    let remote_as = RemoteAs::read(annotations).map_err(wrong)?;
    match (by, remote_as) {
        (Some(by), remote_as) => Ok(Some(Found { by, remote_as })),
        (None, None) => Ok(None),
        (None, Some(_)) => bad(
            format!("metadata.annotations[{REMOTE_AS}]"),
            "is for a peer that the node finds, and this one is named",
            "write spec.asNumber, or add caracal.io/interface or caracal.io/default-gateway",
        ),
    }
}

/// A peer that the node finds. What nodes that run Calico make of the object must be nothing: they skip a BGPPeer without
/// peerIP and selector, but take every node without an IPv6 address and with its AS for the other end.
pub(crate) fn remote(found: Found, text: Option<&str>, as_number: Option<AsNumber>) -> Result<Remote> {
    let Found { by, remote_as } = found;
    let as_number = as_number.map(|a| a.0).filter(|a| *a != 0);
    let field = format!("metadata.annotations[{REMOTE_AS}]");
    match (text, as_number, remote_as) {
        (_, Some(_), Some(_)) => bad(field, "stands beside spec.asNumber", "keep one of the two"),
        (Some(_), None, None) => bad(field, "is missing", "write the peer's AS, external or internal"),
        (None, None, _) => bad(
            "spec.asNumber",
            "is missing; nodes that run Calico would peer with each other by this BGPPeer",
            "write the peer's AS, or peerSelector: \"!all()\" and caracal.io/remote-as",
        ),
        (None, Some(number), None) => {
            Ok(Remote::Found { by, remote_as: RemoteAs::Number(number), selector: None })
        }
        (Some(text), None, Some(remote_as)) => {
            let selector = Some(selector(text, "spec.peerSelector")?);
            Ok(Remote::Found { by, remote_as, selector })
        }
        // Calico's validation refuses both together, and so do we.
        (Some(_), Some(_), None) => bad(
            "spec.asNumber",
            "is set together with peerSelector",
            "move it to the annotation caracal.io/remote-as",
        ),
    }
}
