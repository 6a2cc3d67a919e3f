//! How a node has a prefix: what the datastore says, or what is supposed.

use std::net::IpAddr;

use bird::rehearsal::{Learned, Route, RouteSource};
use bird_intent::{Family, NodeConfig, PRIORITY_BASE, PeerType, Place};
use ipnet::IpNet;

use super::Picture;
use super::args::Supposed;

/// A route to ask about, and in words where it is from.
pub(super) struct Found {
    pub(super) route: Route,
    pub(super) words: String,
    /// The datastore does not say that the node has it.
    pub(super) supposed: bool,
}

/// The route that the flags describe, or that the datastore gives the node.
pub(super) fn find(picture: &Picture, prefix: IpNet, supposed: &Supposed) -> Result<Found, String> {
    match &supposed.from {
        Some(from) => by_flags(picture, prefix, from, supposed),
        None => Ok(by_datastore(picture, prefix)),
    }
}

fn by_flags(picture: &Picture, prefix: IpNet, from: &str, flags: &Supposed) -> Result<Found, String> {
    let interface = flags.interface.clone().unwrap_or_default();
    let on = if interface.is_empty() { String::new() } else { format!(" on {interface}") };
    let (source, words) = match from {
        "kernel" => (
            RouteSource::Kernel { interface, gateway: flags.gateway, metric: 0 },
            format!("a kernel route{on}"),
        ),
        "connected" => (RouteSource::Connected { interface }, format!("a subnet of an address{on}")),
        peer => {
            let peer = picture
                .derived
                .peers
                .iter()
                .find(|p| {
                    p.name == peer || p.address.to_string() == peer || p.bgp_peer.as_deref() == Some(peer)
                })
                .ok_or_else(|| {
                    format!("--from {peer}: neither kernel nor connected nor a peer of this node")
                })?;
            let communities = flags
                .community
                .iter()
                .map(|c| {
                    c.parse().map_err(|e: bird_speaker::policy::BadCommunity| format!("--community: {e}"))
                })
                .collect::<Result<_, _>>()?;
            let learned = Learned {
                peer: peer.name.clone(),
                as_path: flags.as_path.clone(),
                local_pref: flags.local_pref,
                communities,
                ..Learned::default()
            };
            (RouteSource::Peer(learned), format!("learned from {}", peer.name))
        }
    };
    Ok(Found { route: Route { prefix, source }, words: format!("{words}, as supposed"), supposed: true })
}

fn by_datastore(picture: &Picture, prefix: IpNet) -> Found {
    let config = &picture.derived;
    let node = &config.node;
    let found = |source, words: String| Found { route: Route { prefix, source }, words, supposed: false };
    let own = |words: &str| found(RouteSource::Own, words.to_owned());
    if config.blackholes.contains(&prefix) {
        return own("a block of this node");
    }
    if config.services.contains(&prefix) {
        return own("a service range");
    }
    if config.host_routes.iter().any(|r| r.destination == prefix) {
        return own("the host route to a peer behind a gateway (reachableBy)");
    }
    let places = picture.facts.places(prefix);
    let here = places.iter().find(|p| p.node() == node);
    match here.or(places.first()) {
        Some(Place::Workload { node: at, endpoint, interface }) if at == node => {
            let borrowed = match picture.facts.block_around(prefix) {
                Some((block, owner)) if owner != node => {
                    format!(", borrowed from block {block} of {owner}")
                }
                _ => String::new(),
            };
            let interface = interface.clone().unwrap_or_else(|| "cali0".to_owned());
            found(
                RouteSource::Kernel { interface, gateway: None, metric: 0 },
                format!("workload {endpoint} on this node{borrowed}"),
            )
        }
        Some(Place::Workload { node: at, endpoint, .. }) if at.is_empty() => {
            unknown(prefix, &format!("WorkloadEndpoint {endpoint} has it but names no node"))
        }
        Some(Place::Workload { node: at, endpoint, .. }) => {
            elsewhere(picture, prefix, at, &format!("workload {endpoint} on node {at}"))
        }
        Some(Place::Block { node: at }) if at == node => unknown(
            prefix,
            "a block of this node whose affinity is not confirmed, so the node makes no route of it",
        ),
        Some(Place::Block { node: at }) => elsewhere(picture, prefix, at, &format!("a block of node {at}")),
        None => unknown(prefix, "nothing in the datastore has this prefix"),
    }
}

/// Another node has it: it comes from that node, or by way of a reflector.
fn elsewhere(picture: &Picture, prefix: IpNet, node: &str, words: &str) -> Found {
    let config = &picture.derived;
    let family = if prefix.addr().is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
    let address = picture.facts.address_of(node, family);
    let peers = || config.peers.iter().filter(|p| p.carries(family));
    let direct = peers().find(|p| Some(p.address) == address);
    let reflector = || peers().find(|p| p.internal && p.kind != PeerType::LocalWorkload);
    let Some(peer) = direct.or_else(reflector) else {
        return unknown(prefix, &format!("{words}, and no peer of this node would tell it"));
    };
    let learned = Learned {
        peer: peer.name.clone(),
        local_pref: Some(PRIORITY_BASE.saturating_sub(normal_metric(config, family))),
        next_hop: address.filter(|a: &IpAddr| *a != peer.address),
        originator_id: match (direct, address) {
            (None, Some(IpAddr::V4(id))) => Some(id),
            _ => None,
        },
        ..Learned::default()
    };
    let how = if direct.is_some() { "learned from" } else { "learned by way of" };
    Found {
        route: Route { prefix, source: RouteSource::Peer(learned) },
        words: format!("{words}, {how} {}", peer.name),
        supposed: false,
    }
}

fn normal_metric(config: &NodeConfig, family: Family) -> u32 {
    match family {
        Family::Ipv4 => config.route_priority_v4,
        Family::Ipv6 => config.route_priority_v6,
    }
}

fn unknown(prefix: IpNet, why: &str) -> Found {
    let source = RouteSource::Kernel { interface: String::new(), gateway: None, metric: 0 };
    Found {
        route: Route { prefix, source },
        words: format!(
            "{why}; what follows is for a kernel route of another program (--from supposes another)"
        ),
        supposed: true,
    }
}
