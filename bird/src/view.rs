//! The speaker's state in the words of the control socket.

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use bird_speaker::io::{FibHop, FibRoute, FibTarget, Resolution};
use bird_speaker::view::{PathView, RouteFilter};
use bird_speaker::{ImportReason, Speaker};
use ipnet::{Ipv4Net, Ipv6Net};

use crate::control::{Family, PeerView, RouteView, Routes, View};
use crate::kernel::Kernel;

/// When things began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// The process.
    pub(crate) started: SystemTime,
    /// The configuration in force.
    pub(crate) configured: SystemTime,
}

/// What `show status` and `show protocols` are made from.
pub(crate) fn of(speaker: Option<&Speaker>, times: &Times, recovering: bool) -> View {
    let now = SystemTime::now();
    let peers = speaker
        .into_iter()
        .flat_map(Speaker::peer_views)
        .map(|peer| PeerView {
            address: peer.address,
            asn: peer.remote_as,
            state: peer.state.to_string(),
            since: now - Duration::from_millis(peer.for_ms),
            error: peer.last_error,
            router_id: peer.router_id,
            hold_time: peer.hold_time,
            local: peer.local_address,
            received: peer.families.iter().map(|f| u64::from(f.received)).sum(),
            advertised: peer.families.iter().map(|f| f.advertised as u64).sum(),
            name: peer.name,
        })
        .collect();
    View {
        router_id: speaker.map_or(Ipv4Addr::UNSPECIFIED, |s| s.config().local.router_id),
        started: times.started,
        configured: times.configured,
        now,
        recovering,
        peers,
    }
}

/// What `show route` prints: by prefix, the best path of each first.
pub(crate) fn routes(speaker: Option<&Speaker>, kernel: &Kernel, family: Family, limit: usize) -> Routes {
    let Some(speaker) = speaker else { return Routes::default() };
    let (v4, v6) = match family {
        Family::Both => (true, true),
        Family::Ipv4 => (true, false),
        Family::Ipv6 => (false, true),
    };
    let mut routes = Routes::default();
    for (wanted, all, family) in [
        (v4, Ipv4Net::default().into(), bird_packet::Family::Ipv4Unicast),
        (v6, Ipv6Net::default().into(), bird_packet::Family::Ipv6Unicast),
    ] {
        if !wanted {
            continue;
        }
        let (paths, networks) = speaker.accepted(family);
        routes.paths += paths;
        routes.networks += networks;
        let left = limit.saturating_sub(routes.shown.len());
        let filter =
            RouteFilter { prefix: Some(all), inside: true, limit: Some(left), ..RouteFilter::default() };
        let accepted = speaker.routes(&filter).into_iter().filter(|p| p.import == ImportReason::Accepted);
        routes.shown.extend(accepted.map(|path| shown(speaker, kernel, path)));
    }
    routes
}

fn shown(speaker: &Speaker, kernel: &Kernel, path: PathView) -> RouteView {
    let fib = speaker.fib_route(path.prefix).filter(|_| path.best);
    let how = match (fib.as_deref().map(|f| &f.target), path.next_hop) {
        (Some(FibTarget::Blackhole), _) => "blackhole".to_owned(),
        (Some(FibTarget::Hops(hops)), _) if !hops.is_empty() => {
            let hop = &hops[0];
            let device = hop.device.clone().or_else(|| kernel.link_name(hop.ifindex));
            device.map_or(format!("via {}", hop.via), |d| format!("via {} on {d}", hop.via))
        }
        (_, Some(next_hop)) => format!("via {next_hop}"),
        (_, None) => path.interface.map_or_else(|| "unreachable".to_owned(), |i| format!("dev {i}")),
    };
    RouteView { prefix: path.prefix, how, from: path.from, best: path.best }
}

/// A kernel route in words, with the device that the kernel chose.
pub(crate) fn in_words(route: &FibRoute, kernel: &Kernel) -> String {
    let target = match &route.target {
        FibTarget::Blackhole => "blackhole".to_owned(),
        FibTarget::Hops(hops) => {
            let hops: Vec<String> = hops.iter().map(|hop| way(hop, kernel)).collect();
            hops.join(", ")
        }
    };
    format!("{target} metric {}", route.metric)
}

fn way(hop: &FibHop, kernel: &Kernel) -> String {
    let chosen = || match kernel.resolve(hop.via) {
        Resolution::Via { hops, .. } => hops.first().map(|h| h.interface.clone()),
        Resolution::Unreachable => None,
    };
    match hop.device.clone().or_else(|| kernel.link_name(hop.ifindex)).or_else(chosen) {
        Some(device) => format!("via {} dev {device}", hop.via),
        None => format!("via {}", hop.via),
    }
}
