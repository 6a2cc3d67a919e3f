//! Our terms to kernel terms: what a workload's link, inside, routes and neighbours look like to Linux.
//!
//! Nothing here touches the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use caracal_netlink::{Address, Mac, Neighbour, NewVeth, Route, proto, scope};
use felix_calc::{Config, Workload};
use ipnet::IpNet;

use crate::links::OUR_GROUP;

/// The gateway that every workload is told: nobody has the address, the host answers for it.
pub(crate) const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
/// The link-local address that follows from the host end's Ethernet address ee:ee:ee:ee:ee:ee.
pub(crate) const GATEWAY_V6: IpAddr =
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee));

/// The route to one address of a workload, as the kernel will report it.
pub(crate) fn workload_route(address: IpAddr, ifindex: u32, config: &Config) -> Route {
    let (metric, src) = match address {
        IpAddr::V4(_) => (config.metric_v4, config.route_source_v4.map(IpAddr::V4)),
        IpAddr::V6(_) => (config.metric_v6, config.route_source_v6.map(IpAddr::V6)),
    };
    let mut route = Route::dev(IpNet::from(address), config.route_protocol, ifindex).metric(metric);
    route.src = src;
    route.normalized()
}

/// The pair for a workload, but for the namespace of its far end.
pub(crate) fn veth(workload: &Workload, mtu: u32) -> NewVeth {
    NewVeth {
        name: workload.iface.clone(),
        host_mac: Some(Mac::WORKLOAD_HOST),
        mtu: Some(mtu),
        up: true,
        group: Some(OUR_GROUP),
        peer_name: workload.peer.clone(),
        peer_mac: workload.mac.map(Mac),
        ..NewVeth::default()
    }
}

/// What has to be inside the workload's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inside {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: u32,
}

impl Inside {
    pub(crate) fn new(workload: &Workload, mtu: u32) -> Self {
        Self { addresses: workload.addresses.clone(), mac: workload.mac.map(Mac), mtu }
    }

    pub(crate) fn has_v6(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv6)
    }

    fn has_v4(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv4)
    }

    pub(crate) fn addresses(&self, index: u32) -> impl Iterator<Item = Address> {
        self.addresses.iter().map(move |address| Address::new(index, IpNet::from(*address)))
    }

    /// The gateway on the link, then the way to everything through it.
    pub(crate) fn routes(&self, index: u32) -> Vec<Route> {
        let mut routes = Vec::new();
        if self.has_v4() {
            let mut gateway = Route::dev(IpNet::from(GATEWAY_V4), proto::FELIX, index);
            gateway.scope = scope::LINK;
            routes.push(gateway.normalized());
            routes.push(Route::via(default_v4(), proto::FELIX, GATEWAY_V4, index).normalized());
        }
        if self.has_v6() {
            routes.push(Route::via(default_v6(), proto::FELIX, GATEWAY_V6, index).normalized());
        }
        routes
    }

    /// Permanent, so that a host without a default route (whose proxy ARP keeps silent) answers too.
    pub(crate) fn neighbours(&self, index: u32) -> Vec<Neighbour> {
        let gateways = [(self.has_v4(), GATEWAY_V4), (self.has_v6(), GATEWAY_V6)];
        let wanted = gateways.into_iter().filter(|(wanted, _)| *wanted);
        wanted.map(|(_, gateway)| Neighbour::permanent(index, gateway, Mac::WORKLOAD_HOST)).collect()
    }
}

fn default_v4() -> IpNet {
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)
}

fn default_v6() -> IpNet {
    IpNet::new_assert(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(addresses: &[&str]) -> Workload {
        Workload {
            iface: "cali1b15813a0a8".into(),
            netns: None,
            peer: "eth0".into(),
            mac: None,
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            spoofs: false,
        }
    }

    #[test]
    fn the_route_that_operators_of_calico_know() {
        let route = workload_route("10.100.104.15".parse().unwrap(), 7, &Config::default());
        assert_eq!(route.dst.to_string(), "10.100.104.15/32");
        assert_eq!((route.proto, route.metric, route.scope, route.table), (80, 1024, 253, 254));
        assert_eq!((route.hops.len(), route.hops[0].ifindex, route.hops[0].via), (1, 7, None));
        let v6 = workload_route("fd00::5".parse().unwrap(), 7, &Config::default());
        assert_eq!((v6.dst.to_string().as_str(), v6.scope), ("fd00::5/128", 0));
    }

    #[test]
    fn inside_has_only_the_families_of_the_addresses() {
        let gateways = |list: &[&str]| {
            let inside = Inside::new(&workload(list), 1500);
            let routes: Vec<String> = inside.routes(2).iter().map(|r| r.dst.to_string()).collect();
            (routes, inside.neighbours(2).len())
        };
        assert_eq!(gateways(&["10.0.0.1"]), (vec!["169.254.1.1/32".into(), "0.0.0.0/0".into()], 1));
        assert_eq!(gateways(&["fd00::1"]), (vec!["::/0".into()], 1));
        assert_eq!(gateways(&["10.0.0.1", "fd00::1"]).1, 2);
    }
}
