//! What is not ours stays as it is.

use std::time::Duration;

use felix_calc::Config;
use felix_dataplane::State;

use crate::lab::{Host, Space, made, on_host, routed};

#[test]
fn foreign_routes_and_links_are_untouched() {
    on_host(|space| {
        let web = Space::new("web");
        space.ip("link add uplink0 type veth peer name uplink1");
        space.ip("link set uplink0 up");
        space.ip("link set uplink1 up");
        space.ip("addr add 192.0.2.1/24 dev uplink0");
        for route in [
            "default via 192.0.2.254",
            "10.0.0.0/26 via 192.0.2.2 proto bird",
            "10.0.0.1 via 192.0.2.3 metric 5 proto static",
            "blackhole 10.0.1.0/26 proto bird",
            "198.51.100.1 dev uplink0 scope link",
        ] {
            space.ip(&format!("route add {route}"));
        }
        space.ip("link add calixforeign type veth peer name calixpeer");
        space.ip("link set calixforeign up");
        let before = space.ip("route");
        let mut host = Host::start(space);
        host.want("web", made("caliweb", &web, &["10.0.0.1"]));
        host.is_up("web");
        let ours = "10.0.0.1 dev caliweb proto 80 scope link metric 1024";
        let without: Vec<String> = host.routes().into_iter().filter(|r| r != ours).collect();
        assert_eq!(without, crate::lab::lines(&before));
        host.skip(Duration::from_mins(1));
        host.settle();
        host.unwant("web");
        host.eventually("ours goes", |h| !h.has_link("caliweb"));
        assert_eq!(host.routes(), crate::lab::lines(&before));
        assert!(host.has_link("calixforeign") && host.has_link("calixpeer"), "a link that we did not make");
    });
}

#[test]
fn a_foreign_route_in_our_place_is_said_and_left() {
    on_host(|space| {
        let web = Space::new("web");
        space.ip("link add uplink0 type veth peer name uplink1");
        space.ip("link set uplink0 up");
        space.ip("link set uplink1 up");
        space.ip("route add 10.0.0.1 dev uplink0 metric 1024 proto static");
        let mut host = Host::start(space);
        host.want("web", made("caliweb", &web, &["10.0.0.1"]));
        host.eventually("the clash is said", |h| h.state("web") == Some(State::Error));
        assert!(host.reason("web").contains("another program's route (proto 4)"), "{}", host.reason("web"));
        assert_eq!(host.routes(), ["10.0.0.1 dev uplink0 proto static scope link metric 1024"]);
        host.space.ip("route del 10.0.0.1 dev uplink0");
        host.is_up("web");
        assert_eq!(host.routes(), ["10.0.0.1 dev caliweb proto 80 scope link metric 1024"]);
    });
}

#[test]
fn a_cni_plugins_own_route_has_its_grace() {
    on_host(|space| {
        let web = Space::new("web");
        let mut host = Host::start(space);
        host.settle();
        // What Calico's CNI plugin makes before it writes the endpoint.
        host.space.ip(&format!("link add caliweb type veth peer name eth0 netns {}", web.name));
        host.space.ip("link set caliweb up");
        web.ip("link set eth0 up");
        host.space.ip("route add 10.0.0.1 dev caliweb scope link");
        host.space.ip("route add 10.0.0.9 dev caliweb scope link");
        host.settle();
        host.skip(Duration::from_secs(9));
        host.settle();
        assert_eq!(host.routes().len(), 2, "within the grace");
        // The endpoint ends it: its own route is there now.
        host.want("web", routed("caliweb", &["10.0.0.1"]));
        host.is_up("web");
        host.skip(Duration::from_secs(2));
        host.eventually("only the wanted route is left", |h| {
            h.routes() == ["10.0.0.1 dev caliweb proto 80 scope link metric 1024"]
        });
        // A link that never gets an endpoint: its routes go after the grace.
        host.space.ip("link add calix type veth peer name calixpeer");
        host.space.ip("link set calix up");
        host.space.ip("link set calixpeer up");
        host.space.ip("route add 10.0.0.7 dev calix scope link");
        host.settle();
        assert_eq!(host.routes().len(), 2);
        host.skip(Duration::from_secs(11));
        host.settle();
        assert_eq!(host.routes().len(), 1);
        assert!(host.has_link("calix"));
    });
}

#[test]
fn external_routes_may_be_kept() {
    on_host(|space| {
        space.ip("link add calix type veth peer name calixpeer");
        space.ip("link set calix up");
        space.ip("link set calixpeer up");
        space.ip("route add 10.0.0.7 dev calix scope link");
        space.ip("route add 10.0.0.8 dev calix scope link proto 80");
        let mut host = Host::with(space, Config { remove_external_routes: false, ..Config::default() });
        host.settle();
        host.skip(Duration::from_mins(1));
        host.settle();
        assert_eq!(host.routes(), ["10.0.0.7 dev calix scope link"], "only our own leftover goes");
    });
}

#[test]
fn an_annotated_endpoint_takes_over_a_fitting_link_and_refuses_another() {
    on_host(|space| {
        let (web, db, other) = (Space::new("web"), Space::new("db"), Space::new("other"));
        space.ip(&format!("link add caliweb type veth peer name eth0 netns {}", web.name));
        space.ip(&format!("link add calidb type veth peer name eth0 netns {}", other.name));
        space.ip("link add calibr type bridge");
        let mut host = Host::start(space);
        host.want("web", made("caliweb", &web, &["10.0.0.1"]));
        host.want("br", made("calibr", &db, &["10.0.0.3"]));
        host.is_up("web");
        assert!(host.space.ping("10.0.0.1"));
        assert_eq!(host.state("br"), Some(State::Error));
        assert!(host.reason("br").contains("a link of kind bridge"), "{}", host.reason("br"));
        // Leads elsewhere: the name is the endpoint's, so the link is made anew where it belongs.
        host.want("db", made("calidb", &db, &["10.0.0.2"]));
        host.is_up("db");
        assert!(host.space.ping("10.0.0.2"));
        assert!(db.ip("addr").contains("10.0.0.2"));
    });
}
