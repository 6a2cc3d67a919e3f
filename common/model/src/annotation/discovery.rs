//! The annotations that say who a BGPPeer's peer is, where it has no address: a node finds it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{find, number, word};

/// The peer is the router that advertises itself on an interface.
pub const INTERFACE: &str = "caracal.io/interface";
/// The peer is the gateway of the default route.
pub const DEFAULT_GATEWAY: &str = "caracal.io/default-gateway";
/// The AS of a peer that is found.
pub const REMOTE_AS: &str = "caracal.io/remote-as";

/// How the address of a BGPPeer's peer is found, where no field says it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Discovery {
    /// It advertises itself as a router on this interface.
    Interface(String),
    /// It is the gateway of the default route, of IPv4 or else IPv6.
    DefaultGateway(GatewayFamily),
}

/// The family of a default route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GatewayFamily {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// Which AS a peer that is found may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteAs {
    /// This one.
    Number(u32),
    /// Any but ours.
    External,
    /// Ours.
    Internal,
}

/// A peer that a node finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sought {
    /// How.
    pub by: Discovery,
    /// The AS that is asked of it.
    pub remote_as: RemoteAs,
}

/// What the fields of a BGPPeer say about who the peer is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Named {
    /// `peerIP` or `localWorkloadSelector` is set.
    pub otherwise: bool,
    /// `peerSelector` is set.
    pub peer_selector: bool,
    /// `asNumber`, if it is set.
    pub as_number: Option<u32>,
}

/// What cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Where.
    pub field: String,
    /// What is wrong.
    pub reason: String,
    /// What mends it.
    pub fix: &'static str,
}

impl Sought {
    /// Whom the annotations of a BGPPeer seek; `None`: its fields name the peer.
    ///
    /// What nodes that run Calico make of the object must be nothing. They skip a BGPPeer with neither peerIP nor selector,
    /// but take every node that lacks an IPv4 or IPv6 address, and has the AS of the BGPPeer or of the cluster, for its other
    /// end.
    pub fn read(annotations: &BTreeMap<String, String>, named: Named) -> Result<Option<Self>, Wrong> {
        let interface = given(annotations, INTERFACE, interface)?;
        let gateway = given(annotations, DEFAULT_GATEWAY, default_gateway)?;
        let remote_as = given(annotations, REMOTE_AS, remote_as)?;
        let by = match (interface, gateway) {
            (Some(_), Some(_)) => {
                return wrong(
                    path(DEFAULT_GATEWAY),
                    "stands beside caracal.io/interface, which finds another peer",
                    "keep one of the two",
                );
            }
            (Some(name), None) => Discovery::Interface(name),
            (None, Some(family)) => Discovery::DefaultGateway(family),
            (None, None) if remote_as.is_some() => {
                return wrong(
                    path(REMOTE_AS),
                    "is for a peer that the node finds, and this one is named",
                    "write spec.asNumber, or add caracal.io/interface or caracal.io/default-gateway",
                );
            }
            (None, None) => return Ok(None),
        };
        if named.otherwise {
            return wrong(
                "spec".into(),
                "names the peer, and an annotation says that the node finds it",
                "remove peerIP and localWorkloadSelector, or the annotation",
            );
        }
        let remote_as = match (named.peer_selector, named.as_number, remote_as) {
            (_, Some(_), Some(_)) => {
                return wrong(path(REMOTE_AS), "stands beside spec.asNumber", "keep one of the two");
            }
            (true, _, None) => {
                return wrong(path(REMOTE_AS), "is missing", "write the peer's AS, external or internal");
            }
            (false, None, _) => {
                return wrong(
                    "spec.asNumber".into(),
                    "is missing; nodes that run Calico would peer with each other by this BGPPeer",
                    "write the peer's AS, or peerSelector: \"!all()\" and caracal.io/remote-as",
                );
            }
            (false, Some(number), None) => RemoteAs::Number(number),
            (true, None, Some(remote_as)) => remote_as,
        };
        Ok(Some(Self { by, remote_as }))
    }
}

fn path(name: &str) -> String {
    format!("metadata.annotations[{name}]")
}

fn wrong<T>(field: String, reason: impl Into<String>, fix: &'static str) -> Result<T, Wrong> {
    Err(Wrong { field, reason: reason.into(), fix })
}

fn given<T>(
    annotations: &BTreeMap<String, String>,
    name: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Wrong> {
    let Some(text) = annotations.get(name).map(|t| t.trim()).filter(|t| !t.is_empty()) else {
        return Ok(None);
    };
    let takes = find(name).map_or("right", |row| row.takes);
    match read(text) {
        Some(value) => Ok(Some(value)),
        None => wrong(
            path(name),
            format!("is `{text}` and must be {takes}"),
            "correct the annotation, or remove it",
        ),
    }
}

/// A name that Linux would take (`dev_valid_name`).
pub(super) fn interface(text: &str) -> Option<String> {
    let strange = |b: u8| b == b'/' || b == b':' || b.is_ascii_whitespace();
    let valid = (1..=15).contains(&text.len()) && text != "." && text != ".." && !text.bytes().any(strange);
    valid.then(|| text.to_owned())
}

pub(super) fn default_gateway(text: &str) -> Option<GatewayFamily> {
    word(text, &[("ipv4", GatewayFamily::Ipv4), ("ipv6", GatewayFamily::Ipv6)])
}

pub(super) fn remote_as(text: &str) -> Option<RemoteAs> {
    word(text, &[("external", RemoteAs::External), ("internal", RemoteAs::Internal)])
        .or_else(|| number(text, 1).map(RemoteAs::Number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(annotations: &[(&str, &str)], named: Named) -> Result<Option<Sought>, String> {
        let annotations = annotations.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Sought::read(&annotations, named).map_err(|w| format!("{} {}; {}", w.field, w.reason, w.fix))
    }

    #[test]
    fn a_peer_is_sought_in_exactly_two_forms() {
        let nothing = Named::default();
        let selector = Named { peer_selector: true, ..nothing };
        let asn = Named { as_number: Some(64999), ..nothing };
        let found = |by, remote_as| Ok(Some(Sought { by, remote_as }));
        let eth1 = Discovery::Interface("eth1".into());
        let gateway = Discovery::DefaultGateway(GatewayFamily::Ipv6);
        assert_eq!(read(&[], asn), Ok(None));
        assert_eq!(read(&[(INTERFACE, " ")], Named { otherwise: true, ..asn }), Ok(None));
        assert_eq!(read(&[(INTERFACE, "eth1")], asn), found(eth1.clone(), RemoteAs::Number(64999)));
        assert_eq!(
            read(&[(INTERFACE, "eth1"), (REMOTE_AS, "external")], selector),
            found(eth1, RemoteAs::External)
        );
        assert_eq!(
            read(&[(DEFAULT_GATEWAY, "ipv6"), (REMOTE_AS, "internal")], selector),
            found(gateway, RemoteAs::Internal)
        );
    }

    #[test]
    fn every_other_form_is_refused_with_its_reason() {
        let nothing = Named::default();
        let selector = Named { peer_selector: true, ..nothing };
        let asn = Named { as_number: Some(64999), ..nothing };
        let (eth1, ipv4) = ((INTERFACE, "eth1"), (DEFAULT_GATEWAY, "ipv4"));
        for (annotations, named, said) in [
            (&[eth1, ipv4][..], asn, "stands beside caracal.io/interface"),
            (&[(REMOTE_AS, "65000")], asn, "is for a peer that the node finds"),
            (&[eth1], Named { otherwise: true, ..asn }, "spec names the peer"),
            (&[eth1, (REMOTE_AS, "65000")], asn, "stands beside spec.asNumber"),
            (&[eth1], selector, "[caracal.io/remote-as] is missing"),
            (&[ipv4], nothing, "spec.asNumber is missing; nodes that run Calico would peer"),
            (&[ipv4, (REMOTE_AS, "external")], nothing, "spec.asNumber is missing"),
            (&[(DEFAULT_GATEWAY, "v4")], asn, "is `v4` and must be ipv4 or ipv6"),
        ] {
            let why = read(annotations, named).unwrap_err();
            assert!(why.contains(said), "{annotations:?}: {why}");
        }
    }
}
