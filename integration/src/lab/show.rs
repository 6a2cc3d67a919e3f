//! A host's routes in the words of `ip route`, so that the demo needs no `ip`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context as _;
use caracal_netlink::{Family, Netlink, Route, RouteFilter, RouteKind};

use super::Namespace;

const SCOPE_LINK: u8 = 253;

/// The main IPv4 table of a host, a line a route, as `ip route` prints it.
pub fn show_routes(space: &Namespace) -> anyhow::Result<Vec<String>> {
    let mut netlink = Netlink::open_in(&space.path())?;
    let names: BTreeMap<u32, String> = netlink.links()?.into_iter().map(|l| (l.index, l.name)).collect();
    let filter = RouteFilter::main().family(Family::V4);
    let mut routes = netlink.routes(filter).with_context(|| format!("lab: routes of {}", space.name()))?;
    routes.sort_by_key(|route| (route.dst, route.metric));
    Ok(routes.iter().map(|route| line(route, &names)).collect())
}

fn line(route: &Route, names: &BTreeMap<u32, String>) -> String {
    let mut text = match route.kind {
        RouteKind::Unicast => String::new(),
        kind => format!("{} ", format!("{kind:?}").to_lowercase()),
    };
    match (route.dst.prefix_len(), route.dst.max_prefix_len()) {
        (0, _) => text += "default",
        (length, full) if length == full => text += &route.dst.addr().to_string(),
        _ => text += &route.dst.to_string(),
    }
    for hop in &route.hops {
        if let Some(via) = hop.via {
            let _ = write!(text, " via {via}");
        }
        if let Some(name) = names.get(&hop.ifindex) {
            let _ = write!(text, " dev {name}");
        }
    }
    match route.proto {
        2 => text += " proto kernel",
        12 => text += " proto bird",
        186 => text += " proto bgp",
        3 => {}
        other => {
            let _ = write!(text, " proto {other}");
        }
    }
    if route.scope == SCOPE_LINK && route.kind == RouteKind::Unicast {
        text += " scope link";
    }
    if let Some(src) = route.src {
        let _ = write!(text, " src {src}");
    }
    if route.metric != 0 {
        let _ = write!(text, " metric {}", route.metric);
    }
    text
}
