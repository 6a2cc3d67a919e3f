//! Other hands change what is ours; it comes back.

use std::time::{Duration, Instant};

use felix_dataplane::State;

use crate::lab::{Host, Space, made, on_host, routed};

#[test]
fn routes_deleted_replaced_or_flushed_come_back() {
    on_host(|space| {
        let spaces: Vec<Space> = (0..4).map(|n| Space::new(&format!("w{n}"))).collect();
        let mut host = Host::start(space);
        for (n, space) in spaces.iter().enumerate() {
            host.want(
                &format!("w{n}"),
                made(&format!("cali{n}"), space, &[&format!("10.0.0.{n}"), &format!("fd00::{n}:1")]),
            );
        }
        for n in 0..4 {
            host.is_up(&format!("w{n}"));
        }
        std::thread::sleep(Duration::from_millis(100));
        host.settle();
        let before = (host.routes(), host.routes6());
        for harm in [
            "route del 10.0.0.1",
            "route replace 10.0.0.1 dev cali2 metric 1024 proto static",
            "-6 route del fd00::1:1 metric 1024",
            "-6 route replace fd00::1:1 dev cali2 metric 1024 proto static",
            "route flush proto 80",
            "-6 route flush proto 80",
        ] {
            host.space.ip(harm);
            assert_ne!((host.routes(), host.routes6()), before, "{harm} does something");
            let start = Instant::now();
            host.settle();
            assert_eq!((host.routes(), host.routes6()), before, "after {harm}");
            println!("{harm}: healed in {:?}", start.elapsed());
        }
    });
}

#[test]
fn a_link_that_flaps_or_loses_its_marks_is_set_right() {
    on_host(|space| {
        let web = Space::new("web");
        let mut host = Host::start(space);
        host.want("web", made("caliweb", &web, &["10.0.0.1", "fd00::1"]));
        host.is_up("web");
        for harm in [
            "link set caliweb down",
            "link set caliweb address 02:00:00:00:00:01",
            "link set caliweb mtu 1300",
            "link set caliweb group default",
        ] {
            host.space.ip(harm);
            host.settle();
            host.is_up("web");
            let link = host.space.ip("-d link show dev caliweb");
            assert!(
                link.contains("ee:ee:ee:ee:ee:ee")
                    && link.contains("mtu 1500")
                    && link.contains("group 51729"),
                "{harm}: {link}"
            );
            assert!(host.space.ping("10.0.0.1") && host.space.ping("fd00::1"), "after {harm}");
        }
        for _ in 0..20 {
            host.space.ip("link set caliweb down");
            host.space.ip("link set caliweb up");
        }
        host.is_up("web");
        assert!(host.space.ping("10.0.0.1"));
        host.space.ip("link del caliweb");
        host.is_up("web");
        assert!(host.space.ping("10.0.0.1") && host.space.ping("fd00::1"));
    });
}

#[test]
fn the_inside_is_repaired_at_once_and_what_is_not_told_by_the_audit() {
    on_host(|space| {
        let web = Space::new("web");
        let mut host = Host::start(space);
        host.want("web", made("caliweb", &web, &["10.0.0.1", "fd00::1"]));
        host.is_up("web");
        web.ip("link set eth0 down");
        host.settle();
        assert!(web.ip("link show dev eth0").contains(",UP"), "up again");
        host.eventually("and answers", |h| h.space.ping("10.0.0.1") && h.space.ping("fd00::1"));
        for harm in [
            "addr del 10.0.0.1/32 dev eth0",
            "addr del fd00::1/128 dev eth0",
            "route del default",
            "-6 route del default",
            "neigh del 169.254.1.1 dev eth0",
            "link set eth0 address 02:00:00:00:00:07",
            "addr flush dev eth0",
        ] {
            web.ip(harm);
            if harm.contains("address") {
                // No loss that the kernel would tell: found by the audit.
                host.skip(Duration::from_secs(31));
            }
            host.settle();
            assert!(host.space.ping("10.0.0.1") && host.space.ping("fd00::1"), "after {harm}");
            assert!(
                web.ip("neigh").contains("169.254.1.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee PERMANENT"),
                "after {harm}"
            );
        }
        // What the workload has of its own stays.
        web.ip("addr add 192.0.2.7/32 dev eth0");
        web.ip("route add 198.51.100.0/24 via 169.254.1.1 dev eth0");
        host.skip(Duration::from_secs(31));
        host.settle();
        assert!(web.ip("addr").contains("192.0.2.7") && web.ip("route").contains("198.51.100.0/24"));
        // A default route of its own is said, not fought.
        web.ip("route replace default via 169.254.1.1 dev eth0 mtu 1000");
        host.skip(Duration::from_secs(31));
        host.settle();
        assert_eq!(host.state("web"), Some(State::Up));
    });
}

#[test]
fn switches_and_neighbours_of_the_host_are_repaired() {
    on_host(|space| {
        let web = Space::new("web");
        let mut host = Host::start(space);
        host.want("web", made("caliweb", &web, &["10.0.0.1"]));
        host.is_up("web");
        host.space.ip("neigh del 10.0.0.1 dev caliweb");
        host.settle();
        assert!(host.space.ip("neigh").contains("10.0.0.1 dev caliweb lladdr ca:fe:1d:00:00:0f PERMANENT"));
        for key in ["ipv4/conf/caliweb/forwarding", "ipv4/conf/caliweb/proxy_arp", "ipv4/ip_forward"] {
            host.space.exec(&format!("sysctl -qw net.{}=0", key.replace('/', "."))).unwrap();
            host.skip(Duration::from_secs(31));
            host.settle();
            for _ in 0..16 {
                host.skip(Duration::from_secs(2));
                host.settle();
            }
            assert_eq!(host.space.sysctl(key), "1", "{key}");
        }
    });
}

#[test]
fn lost_notifications_mean_a_read_back() {
    on_host(|space| {
        let web = Space::new("web");
        let mut host = Host::start(space);
        host.want("web", made("caliweb", &web, &["10.0.0.1"]));
        host.is_up("web");
        // What no notification told: read back by the audit.
        let silent = felix_dataplane::Dataplane::open(felix_calc::Config::default(), host.now()).unwrap();
        host.space.ip("route del 10.0.0.1");
        host.plane = silent;
        host.want("web", made("caliweb", &web, &["10.0.0.1"]));
        host.settle();
        assert_eq!(host.routes().len(), 1);
        assert_eq!(host.plane.counters().resyncs, 1);
        let before = host.plane.counters().resyncs;
        for _ in 0..20 {
            host.skip(Duration::from_secs(2));
            host.settle();
        }
        assert_eq!(host.plane.counters().resyncs, before + 1, "one audit in 30 to 40 s");
        assert_eq!(host.plane.counters().overruns, 0);
    });
}

#[test]
fn a_link_without_annotation_is_routed_and_otherwise_left_alone() {
    on_host(|space| {
        let web = Space::new("web");
        let mut host = Host::start(space);
        host.want("web", routed("caliweb", &["10.0.0.1"]));
        host.settle();
        assert_eq!(
            (host.state("web"), host.reason("web")),
            (Some(State::Down), "link caliweb does not exist".into())
        );
        host.space.ip(&format!(
            "link add caliweb address ee:ee:ee:ee:ee:ee type veth peer name eth0 netns {}",
            web.name
        ));
        web.ip("link set eth0 up");
        host.settle();
        assert_eq!(host.routes().len(), 0);
        assert_eq!(host.state("web"), Some(State::Down));
        host.space.ip("link set caliweb up");
        host.is_up("web");
        assert_eq!(host.routes(), ["10.0.0.1 dev caliweb proto 80 scope link metric 1024"]);
        assert_eq!(host.space.sysctl("ipv4/conf/caliweb/proxy_arp"), "1");
        // Its owner sets it down: that is his will.
        host.space.ip("link set caliweb down");
        host.eventually("down is reported", |h| h.state("web") == Some(State::Down));
        assert!(host.space.ip("link show dev caliweb").contains("state DOWN"));
        host.space.ip("link set caliweb up");
        host.is_up("web");
        host.unwant("web");
        host.settle();
        assert_eq!(host.routes().len(), 0);
        std::thread::sleep(Duration::from_millis(100));
        host.settle();
        assert!(host.has_link("caliweb"), "not ours to delete");
        assert!(!host.space.ip("neigh").contains("10.0.0.1"));
    });
}
