//! Endpoints come, change and go; felix restarts.

use std::time::Duration;

use felix_calc::{Config, Workload};
use felix_dataplane::State;

use crate::lab::{Host, Space, changes, lines, made, on_host, routed};

#[test]
fn an_endpoint_gets_its_link_its_inside_and_its_route() {
    on_host(|space| {
        let (web, db) = (Space::new("web"), Space::new("db"));
        let mut host = Host::start(space);
        host.want("web", made("cali1b15813a0a8", &web, &["10.100.104.15"]));
        host.want("db", Workload { mac: None, ..made("calidb", &db, &["10.100.104.16"]) });
        host.is_up("web");
        host.is_up("db");
        assert_eq!(
            host.routes(),
            [
                "10.100.104.15 dev cali1b15813a0a8 proto 80 scope link metric 1024",
                "10.100.104.16 dev calidb proto 80 scope link metric 1024",
            ]
        );
        let link = host.space.ip("-d link show dev cali1b15813a0a8");
        assert!(
            link.contains("ee:ee:ee:ee:ee:ee") && link.contains("group 51729") && link.contains("mtu 1500"),
            "{link}"
        );
        assert_eq!(
            lines(&web.ip("route")),
            ["default via 169.254.1.1 dev eth0 proto 80", "169.254.1.1 dev eth0 proto 80 scope link"]
        );
        assert_eq!(lines(&web.ip("neigh")), ["169.254.1.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee PERMANENT"]);
        let inside = web.ip("addr show dev eth0");
        assert!(inside.contains("inet 10.100.104.15/32") && inside.contains("ca:fe:1d:00:00:0f"), "{inside}");
        // The host side knows both addresses for good, also the one that only the kernel chose.
        let neighbours = host.space.ip("neigh");
        assert_eq!(neighbours.matches("PERMANENT").count(), 2, "{neighbours}");
        for (key, value) in [("proxy_arp", "1"), ("route_localnet", "1"), ("forwarding", "1")] {
            assert_eq!(host.space.sysctl(&format!("ipv4/conf/cali1b15813a0a8/{key}")), value, "{key}");
        }
        assert_eq!(host.space.sysctl("ipv4/ip_forward"), "1");
        // The host has no default route: the permanent neighbour makes up for the silent proxy ARP.
        assert!(web.ping("10.100.104.16"), "workload to workload");
        assert!(host.space.ping("10.100.104.15"), "host to workload");
    });
}

#[test]
fn ipv6_too() {
    on_host(|space| {
        let (web, db) = (Space::new("web"), Space::new("db"));
        db.exec("sysctl -qw net.ipv6.conf.all.disable_ipv6=1").unwrap();
        let mut host = Host::start(space);
        host.want("web", made("caliweb", &web, &["10.0.0.1", "fd00::15"]));
        host.want("db", Workload { mac: None, ..made("calidb", &db, &["fd00::16"]) });
        host.is_up("web");
        host.is_up("db");
        assert_eq!(
            host.routes6(),
            [
                "fd00::15 dev caliweb proto 80 metric 1024 pref medium",
                "fd00::16 dev calidb proto 80 metric 1024 pref medium"
            ]
        );
        let routes = lines(&web.ip("-6 route"));
        assert!(
            routes.iter().any(|r| r.starts_with("default via fe80::ecee:eeff:feee:eeee dev eth0")),
            "{routes:?}"
        );
        assert!(web.ip("-6 neigh").contains("fe80::ecee:eeff:feee:eeee dev eth0 lladdr ee:ee:ee:ee:ee:ee"));
        assert_eq!(host.space.sysctl("ipv6/conf/caliweb/proxy_ndp"), "1");
        assert_eq!(host.space.sysctl("ipv6/conf/all/forwarding"), "1");
        assert!(web.ping("fd00::16"), "workload to workload");
        assert!(host.space.ping("fd00::15"), "host to workload");
    });
}

#[test]
fn an_unchanged_restart_writes_nothing() {
    on_host(|space| {
        let spaces: Vec<Space> = (0..5).map(|n| Space::new(&format!("w{n}"))).collect();
        space.ip("link add cni0 type veth peer name eth9");
        space.ip("link set cni0 name calicni up");
        space.ip("link set eth9 up");
        let all = |host: &mut Host| {
            for (n, space) in spaces.iter().enumerate() {
                let addresses = [format!("10.0.0.{n}"), format!("fd00::{n}:1")];
                let mac = (n % 2 == 0).then_some([2, 0, 0, 0, 0, 1]);
                let w = made(&format!("cali{n}"), space, &addresses.each_ref().map(String::as_str));
                host.want(&format!("w{n}"), Workload { mac, ..w });
            }
            host.want("cni", routed("calicni", &["10.0.1.1"]));
        };
        let mut host = Host::start(space);
        all(&mut host);
        for n in 0..5 {
            host.is_up(&format!("w{n}"));
        }
        host.is_up("cni");
        // Whatever the kernel still had to say about the making.
        std::thread::sleep(Duration::from_millis(300));
        host.settle();
        let mut host = host.restart();
        let mut seen = changes(|| {
            all(&mut host);
            host.settle();
            host.skip(Duration::from_secs(100));
            host.settle();
            for n in 0..5 {
                host.is_up(&format!("w{n}"));
            }
        });
        seen.retain(|event| !format!("{event:?}").contains("state: 4"));
        assert_eq!(seen, [], "the kernel heard of the restart");
        assert_eq!(host.plane.counters().writes, 0, "{:?}", host.plane.counters());
    });
}

#[test]
fn what_is_gone_is_removed() {
    on_host(|space| {
        let (web, db) = (Space::new("web"), Space::new("db"));
        let mut host = Host::start(space);
        host.want("web", made("caliweb", &web, &["10.0.0.1"]));
        host.want("db", made("calidb", &db, &["10.0.0.2"]));
        host.is_up("web");
        host.is_up("db");
        host.unwant("web");
        host.settle();
        assert_eq!(host.routes().len(), 1, "the route goes at once");
        host.eventually("the link goes", |h| !h.has_link("caliweb"));
        assert!(web.try_ip("link show dev eth0").is_err());
        assert_eq!((host.state("web"), host.state("db")), (None, Some(State::Up)));
        // Made again under the name that was just freed.
        host.want("web", made("caliweb", &web, &["10.0.0.3"]));
        host.unwant("db");
        host.is_up("web");
        host.unwant("web");
        host.want("web", made("caliweb", &web, &["10.0.0.4"]));
        host.is_up("web");
        assert_eq!(host.routes(), ["10.0.0.4 dev caliweb proto 80 scope link metric 1024"]);
        host.eventually("the other link goes", |h| !h.has_link("calidb"));
    });
}

#[test]
fn leftovers_of_an_earlier_life_go_unless_held() {
    on_host(|space| {
        let (web, db) = (Space::new("web"), Space::new("db"));
        let mut host = Host::start(space);
        host.want("web", made("caliweb", &web, &["10.0.0.1"]));
        host.want("db", made("calidb", &db, &["10.0.0.2", "10.0.0.3"]));
        host.is_up("web");
        host.is_up("db");
        let mut host = host.restart();
        host.want("db", made("calidb", &db, &["10.0.0.2"]));
        assert_eq!((host.plane.census().present, host.plane.census().unwanted), (2, 1));
        host.plane.hold(true);
        host.is_up("db");
        assert_eq!(host.routes().len(), 3, "held");
        assert!(host.has_link("caliweb"));
        host.plane.hold(false);
        host.skip(Duration::from_secs(2));
        host.eventually("the leftovers go", |h| !h.has_link("caliweb") && h.routes().len() == 1);
        assert!(!db.ip("addr").contains("10.0.0.3"), "inside too: {}", db.ip("addr"));
        assert!(db.ip("addr").contains("10.0.0.2"));
    });
}

#[test]
fn a_changed_endpoint_is_changed_in_place() {
    on_host(|space| {
        let web = Space::new("web");
        let mut host = Host::start(space);
        host.want("web", made("caliweb", &web, &["10.0.0.1", "10.0.0.2"]));
        host.is_up("web");
        let index = host.space.ip("-o link show dev caliweb").split(':').next().unwrap().to_owned();
        host.want(
            "web",
            Workload { mac: Some([2, 0, 0, 0, 0, 9]), ..made("caliweb", &web, &["10.0.0.2", "fd00::3"]) },
        );
        host.is_up("web");
        assert_eq!(
            host.space.ip("-o link show dev caliweb").split(':').next().unwrap(),
            index,
            "the same link"
        );
        let inside = web.ip("addr show dev eth0");
        assert!(
            inside.contains("10.0.0.2/32")
                && inside.contains("fd00::3/128")
                && !inside.contains("10.0.0.1/32"),
            "{inside}"
        );
        assert!(inside.contains("02:00:00:00:00:09"), "{inside}");
        assert_eq!((host.routes().len(), host.routes6().len()), (1, 1));
        for address in ["10.0.0.2", "fd00::3"] {
            assert!(
                host.space.ping(address),
                "{address}: {}{}{}{}",
                host.picture(),
                host.space.ip("neigh"),
                web.ip("addr"),
                web.ip("-6 route")
            );
        }
        // Another link altogether.
        host.want("web", made("calinew", &web, &["10.0.0.2"]));
        host.eventually("the new link", |h| {
            h.has_link("calinew") && !h.has_link("caliweb") && h.state("web") == Some(State::Up)
        });
        assert_eq!(host.routes(), ["10.0.0.2 dev calinew proto 80 scope link metric 1024"]);
    });
}

#[test]
fn an_address_moves_from_one_endpoint_to_another() {
    on_host(|space| {
        let (a, b) = (Space::new("a"), Space::new("b"));
        let mut host = Host::start(space);
        for reverse in [false, true] {
            host.want("a", made("calia", &a, &["10.0.0.1", "10.0.0.2"]));
            host.want("b", made("calib", &b, &["10.0.0.3"]));
            host.is_up("a");
            host.is_up("b");
            let give = made("calia", &a, &["10.0.0.2"]);
            let take = made("calib", &b, &["10.0.0.1", "10.0.0.3"]);
            if reverse {
                host.want("b", take);
                host.want("a", give);
            } else {
                host.want("a", give);
                host.want("b", take);
            }
            host.settle();
            host.is_up("a");
            host.is_up("b");
            assert_eq!(host.routes()[0], "10.0.0.1 dev calib proto 80 scope link metric 1024");
            assert_eq!(host.routes().len(), 3);
        }
    });
}

#[test]
fn metric_protocol_and_mtu_follow_the_configuration() {
    on_host(|space| {
        let web = Space::new("web");
        space.ip("link add eth7 mtu 1400 type veth peer name eth8");
        let mut host = Host::start(space);
        host.want("web", made("caliweb", &web, &["10.0.0.1"]));
        host.is_up("web");
        assert!(web.ip("link show dev eth0").contains("mtu 1400"));
        host.plane.configure(Config { metric_v4: 99, ..Config::default() });
        host.is_up("web");
        assert_eq!(host.routes(), ["10.0.0.1 dev caliweb proto 80 scope link metric 99"]);
        host.plane.configure(Config { metric_v4: 99, route_protocol: 90, ..Config::default() });
        host.is_up("web");
        assert_eq!(host.routes(), ["10.0.0.1 dev caliweb proto 90 scope link metric 99"]);
        host.space.ip("link set eth7 mtu 9000");
        host.space.ip("link set eth8 mtu 9000");
        host.eventually("the MTU follows the uplink", |_| web.ip("link show dev eth0").contains("mtu 9000"));
        assert!(host.space.ip("link show dev caliweb").contains("mtu 9000"));
    });
}

#[test]
fn namespaces_that_cannot_be_used_cost_their_own_endpoint() {
    on_host(|space| {
        let (web, busy) = (Space::new("web"), Space::new("busy"));
        busy.ip("link add eth0 type veth peer name eth1");
        let own = space.path();
        let mut late = Space::new("late");
        let path = late.path();
        late.remove();
        let mut host = Host::start(space);
        host.want(
            "late",
            Workload {
                netns: Some(path.to_string_lossy().into_owned()),
                ..routed("calilate", &["10.0.0.1"])
            },
        );
        host.want(
            "own",
            Workload { netns: Some(own.to_string_lossy().into_owned()), ..routed("caliown", &["10.0.0.2"]) },
        );
        host.want(
            "file",
            Workload { netns: Some("/etc/passwd".into()), ..routed("califile", &["10.0.0.3"]) },
        );
        host.want("busy", made("calibusy", &busy, &["10.0.0.4"]));
        host.want("web", made("caliweb", &web, &["10.0.0.5"]));
        host.is_up("web");
        for (pod, part) in [
            ("late", "does not exist; start the workload"),
            ("own", "is the host's own namespace"),
            ("file", "is not a namespace"),
            ("busy", "spec.endpoint: the workload's namespace has a link eth0 already"),
        ] {
            assert_eq!(host.state(pod), Some(State::Error), "{pod}");
            assert!(host.reason(pod).contains(part), "{pod}: {}", host.reason(pod));
        }
        assert_eq!(host.routes(), ["10.0.0.5 dev caliweb proto 80 scope link metric 1024"]);
        // What was missing comes.
        let _late = Space {
            netns: Some(caracal_netlink::netns::create_named(&late.name).unwrap()),
            name: late.name.clone(),
        };
        busy.ip("link del eth0");
        host.eventually("both are up", |h| {
            h.state("late") == Some(State::Up) && h.state("busy") == Some(State::Up)
        });
        // And one goes with everything in it.
        let mut web = web;
        web.remove();
        host.eventually("the loss is seen", |h| {
            h.state("web") == Some(State::Error) && h.routes().len() == 2
        });
        assert!(host.reason("web").contains("does not exist"), "{}", host.reason("web"));
    });
}

#[test]
fn a_workload_that_starts_again_under_the_same_path() {
    on_host(|space| {
        let mut web = Space::new("web");
        let mut host = Host::start(space);
        host.want("web", made("caliweb", &web, &["10.0.0.1"]));
        host.is_up("web");
        // The old namespace lives on, held by somebody; the path leads to another one.
        let _old = web.netns.clone();
        web.remove();
        web.netns = Some(caracal_netlink::netns::create_named(&web.name).unwrap());
        host.skip(Duration::from_secs(31));
        host.eventually("the link leads to the new namespace", |h| {
            web.try_ip("addr show dev eth0").is_ok_and(|a| a.contains("10.0.0.1"))
                && h.state("web") == Some(State::Up)
        });
        assert!(host.space.ping("10.0.0.1"));
    });
}

#[test]
fn connections_of_a_removed_address_are_forgotten() {
    on_host(|space| {
        let (web, db) = (Space::new("web"), Space::new("db"));
        // Connection tracking works only where a rule asks for it.
        for rule in [
            "add table ip t",
            "add chain ip t c { type filter hook forward priority 0 ; }",
            "add rule ip t c ct state established accept",
        ] {
            space.exec(&format!("nft {rule}")).unwrap();
        }
        let mut host = Host::start(space);
        host.want("web", made("caliweb", &web, &["10.0.0.1"]));
        host.want("db", made("calidb", &db, &["10.0.0.2"]));
        host.is_up("web");
        host.is_up("db");
        assert!(web.ping("10.0.0.2"));
        let tracked = |host: &Host| host.space.exec("conntrack -L").unwrap_or_default().contains("10.0.0.2");
        assert!(tracked(&host), "the ping is tracked");
        host.unwant("db");
        host.eventually("its connections are forgotten", |h| !tracked(h));
    });
}
