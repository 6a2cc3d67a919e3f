//! The default route: who is the gateway of a family, as the kernel has it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use caracal_netlink::RouteKind;
use ipnet::IpNet;

use super::Kernel;

/// A gateway and the link that it is on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Gateway {
    pub(crate) address: IpAddr,
    pub(crate) interface: Arc<str>,
}

/// The default route of a family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DefaultRoute {
    /// There is none over a link that works.
    None,
    /// The one with the lowest metric leads to a link and names no gateway.
    OnLink(Arc<str>),
    /// The gateways of the lowest metric, by address; never empty.
    By(Vec<Gateway>),
}

impl Kernel {
    /// The default route that counts: of those with the lowest metric over links that work. Routes of our own do not: what a
    /// peer tells must not decide who is the peer.
    pub(crate) fn default_route(&self, v4: bool) -> DefaultRoute {
        let any: IpAddr = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let prefix = IpNet::new(any, 0).expect("invariant: 0 is a prefix length of both families");
        let entries = self.routes.get(&prefix).map(Vec::as_slice).unwrap_or_default();
        let usable: Vec<_> =
            entries.iter().filter(|e| e.kind == RouteKind::Unicast && self.is_usable(e)).collect();
        let Some(metric) = usable.iter().map(|e| e.metric).min() else { return DefaultRoute::None };
        let mut gateways = Vec::new();
        let mut on_link = None;
        for hop in usable.iter().filter(|e| e.metric == metric).flat_map(|e| &e.hops) {
            let Some(link) = self.links.get(&hop.ifindex).filter(|l| l.usable()) else { continue };
            let interface = Arc::clone(&link.name);
            match hop.via.filter(|via| !self.has_address(*via)) {
                Some(address) => gateways.push(Gateway { address, interface }),
                None => on_link = Some(interface),
            }
        }
        gateways.sort();
        gateways.dedup();
        match (gateways.is_empty(), on_link) {
            (false, _) => DefaultRoute::By(gateways),
            (true, Some(interface)) => DefaultRoute::OnLink(interface),
            (true, None) => DefaultRoute::None,
        }
    }
}
