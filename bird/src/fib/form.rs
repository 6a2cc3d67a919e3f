//! One route in two forms: as the speaker gives it out, and as the kernel reports it.

use bird_speaker::io::{FibHop, FibRoute, FibTarget, Resolution};
use caracal_netlink::{NextHop, Route, RouteKind};
use ipnet::IpNet;

use crate::kernel::Kernel;

/// As the kernel will report it; none while its device does not exist.
pub(super) fn as_route(kernel: &Kernel, prefix: IpNet, fib: &FibRoute) -> Option<Route> {
    let kind = match fib.target {
        FibTarget::Blackhole => RouteKind::Blackhole,
        FibTarget::Hops(_) => RouteKind::Unicast,
    };
    let mut route = Route::new(prefix, kernel.own_proto(), kind).metric(fib.metric);
    route.table = kernel.table();
    if let FibTarget::Hops(hops) = &fib.target {
        for hop in hops {
            route.hops.push(next_hop(kernel, hop)?);
        }
    }
    Some(route.normalized())
}

/// As the speaker would have given it out; none if that is nothing a speaker gives out.
pub(super) fn as_fib_route(kernel: &Kernel, route: &Route) -> Option<FibRoute> {
    let target = match route.kind {
        RouteKind::Blackhole => FibTarget::Blackhole,
        RouteKind::Unicast => {
            let mut hops = Vec::new();
            for hop in &route.hops {
                let device = if hop.onlink { Some(kernel.link_name(hop.ifindex)?) } else { None };
                let ifindex = if device.is_some() { 0 } else { hop.ifindex };
                hops.push(FibHop { via: hop.via?, ifindex, device });
            }
            hops.sort();
            FibTarget::Hops(hops)
        }
        _ => return None,
    };
    Some(FibRoute { target, metric: route.metric })
}

fn next_hop(kernel: &Kernel, hop: &FibHop) -> Option<NextHop> {
    if let Some(device) = &hop.device {
        return Some(NextHop {
            via: Some(hop.via),
            ifindex: kernel.link_index(device)?,
            weight: 1,
            onlink: true,
        });
    }
    if hop.ifindex != 0 {
        return Some(NextHop::via(hop.via, hop.ifindex));
    }
    // The device that leads to the gateway, so that what we wrote can be told from what is there.
    let ifindex = match kernel.resolve(hop.via) {
        Resolution::Via { hops, .. } => hops.first().filter(|h| h.gateway.is_none()).map_or(0, |h| h.ifindex),
        Resolution::Unreachable => 0,
    };
    Some(NextHop::via(hop.via, ifindex))
}
