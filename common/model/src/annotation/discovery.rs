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

impl Discovery {
    /// What the annotations of a BGPPeer say about where its peer is; `Err`: the name of the one that is wrong, and how.
    pub fn read(annotations: &BTreeMap<String, String>) -> Result<Option<Self>, (&'static str, String)> {
        let interface = given(annotations, INTERFACE, interface)?;
        let gateway = given(annotations, DEFAULT_GATEWAY, default_gateway)?;
        match (interface, gateway) {
            (Some(_), Some(_)) => {
                Err((DEFAULT_GATEWAY, format!("stands beside {INTERFACE}, which finds another peer")))
            }
            (interface, gateway) => {
                Ok(interface.map(Discovery::Interface).or(gateway.map(Discovery::DefaultGateway)))
            }
        }
    }
}

impl RemoteAs {
    /// What the annotations of a BGPPeer say about the AS of its peer; errors as for [`Discovery::read`].
    pub fn read(annotations: &BTreeMap<String, String>) -> Result<Option<Self>, (&'static str, String)> {
        given(annotations, REMOTE_AS, remote_as)
    }
}

fn given<T>(
    annotations: &BTreeMap<String, String>,
    name: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, (&'static str, String)> {
    let Some(text) = annotations.get(name).map(|t| t.trim()).filter(|t| !t.is_empty()) else {
        return Ok(None);
    };
    let takes = find(name).map_or("right", |row| row.takes);
    read(text).map(Some).ok_or_else(|| (name, format!("is `{text}` and must be {takes}")))
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

    #[test]
    fn where_a_peer_is_found_is_said_once() {
        let of = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(Discovery::read(&of(&[])), Ok(None));
        assert_eq!(Discovery::read(&of(&[(INTERFACE, " ")])), Ok(None));
        let eth1 = of(&[(INTERFACE, "eth1"), (REMOTE_AS, "external")]);
        assert_eq!(Discovery::read(&eth1), Ok(Some(Discovery::Interface("eth1".into()))));
        assert_eq!(RemoteAs::read(&eth1), Ok(Some(RemoteAs::External)));
        let both = of(&[(INTERFACE, "eth1"), (DEFAULT_GATEWAY, "ipv4")]);
        assert_eq!(Discovery::read(&both).unwrap_err().0, DEFAULT_GATEWAY);
        let (name, why) = Discovery::read(&of(&[(DEFAULT_GATEWAY, "v4")])).unwrap_err();
        assert_eq!((name, why.as_str()), (DEFAULT_GATEWAY, "is `v4` and must be ipv4 or ipv6"));
    }
}
