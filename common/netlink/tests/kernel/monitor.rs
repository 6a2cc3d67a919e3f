use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use caracal_netlink::{Event, Groups, Monitor, MonitorConfig, Request, Route, proto};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::lab::{Space, ip, net};

/// Everything heard until `enough`, or five seconds.
fn hear(monitor: &mut Monitor, enough: impl Fn(&[Event]) -> bool) -> Vec<Event> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut heard = Vec::new();
    while !enough(&heard) {
        assert!(Instant::now() < deadline, "heard only {heard:?}");
        let mut fds = [PollFd::new(monitor.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(100u16)).unwrap();
        heard.extend(monitor.try_next().unwrap());
    }
    heard
}

fn routes(events: &[Event]) -> Vec<(String, bool, bool)> {
    events
        .iter()
        .filter_map(|e| match e {
            Event::Route { route, gone, replaced } => Some((route.dst.to_string(), *gone, *replaced)),
            _ => None,
        })
        .filter(|(dst, ..)| dst.starts_with("10.5") || dst.starts_with("fd00:5"))
        .collect()
}

#[test]
fn changes_made_by_others_are_heard() {
    let Some(space) = Space::new("hear") else { return };
    let mut monitor = Monitor::open_in(Groups::ALL, &space.path()).unwrap();
    assert_eq!(monitor.try_next().unwrap(), []);

    space.ip("link add name a type veth peer name b");
    space.ip("link set dev a up");
    space.ip("link set dev b up");
    space.ip("addr add 10.0.0.1/24 dev a");
    space.ip("neigh add 10.0.0.9 lladdr 02:00:00:00:00:09 dev a nud permanent");
    space.ip("route add 10.50.0.0/16 via 10.0.0.2 proto 80 metric 5");
    space.ip("route replace 10.50.0.0/16 dev a proto static metric 5");
    space.ip("route del 10.50.0.0/16");
    space.ip("-6 route add blackhole fd00:50::/64");
    space.ip("neigh del 10.0.0.9 dev a");
    space.ip("addr del 10.0.0.1/24 dev a");
    space.ip("link set dev a down");
    space.ip("link set dev a name a-renamed");
    space.ip("link del a-renamed");
    let heard = hear(&mut monitor, |h| {
        h.iter().any(|e| matches!(e, Event::LinkGone { name, .. } if name == "a-renamed"))
    });

    assert_eq!(
        routes(&heard),
        [
            ("10.50.0.0/16".to_owned(), false, false),
            ("10.50.0.0/16".to_owned(), false, true),
            ("10.50.0.0/16".to_owned(), true, false),
            ("fd00:50::/64".to_owned(), false, false),
        ]
    );
    let protos: Vec<u8> = heard
        .iter()
        .filter_map(|e| match e {
            Event::Route { route, gone: false, .. } if route.dst == net("10.50.0.0/16") => Some(route.proto),
            _ => None,
        })
        .collect();
    assert_eq!(protos, [80, proto::STATIC]);
    assert!(heard.iter().any(|e| matches!(e, Event::Link(l) if l.name == "a" && l.up && l.running)));
    assert!(heard.iter().any(|e| matches!(e, Event::Link(l) if l.name == "a-renamed" && !l.up)));
    assert!(heard.iter().any(|e| matches!(e, Event::Address(a) if a.net == net("10.0.0.1/24"))));
    assert!(heard.iter().any(|e| matches!(e, Event::AddressGone(a) if a.net == net("10.0.0.1/24"))));
    for want in [false, true] {
        assert!(heard.iter().any(
            |e| matches!(e, Event::Neighbour { neighbour: n, gone } if n.address == ip("10.0.0.9") && *gone == want)
        ));
    }
    assert!(!heard.contains(&Event::Overrun));
}

#[tokio::test]
async fn a_task_waits_for_changes_and_loses_none_when_it_is_cancelled() {
    let Some(space) = Space::new("task") else { return };
    let mut monitor = Monitor::open_in(Groups::LINK, &space.path()).unwrap();
    let nothing = tokio::time::timeout(Duration::from_millis(50), monitor.next()).await;
    assert!(nothing.is_err(), "nothing happened yet");
    for n in 0..20 {
        space.ip(&format!("link add v{n} type veth peer name p{n}"));
        let mut seen = false;
        while !seen {
            // Cancelled again and again while waiting.
            if let Ok(events) = tokio::time::timeout(Duration::from_millis(1), monitor.next()).await {
                let name = format!("v{n}");
                seen = events.unwrap().iter().any(|e| matches!(e, Event::Link(l) if l.name == name));
            }
        }
    }
}

#[test]
fn an_overrun_is_told_and_later_changes_are_heard_again() {
    let Some(space) = Space::new("overrun") else { return };
    let config = MonitorConfig::new(Groups::ROUTE).receive_buffer(4096);
    let mut monitor = Monitor::open_in(config, &space.path()).unwrap();
    let mut nl = space.netlink();
    let many: Vec<_> = (0..1000u32)
        .map(|n| {
            Request::AddRoute(Route::blackhole(net(&format!("10.{}.{}.0/24", 60 + n / 250, n % 250)), 12))
        })
        .collect();
    assert_eq!(nl.apply(&many), []);
    let heard = hear(&mut monitor, |h| h.contains(&Event::Overrun));
    assert!(heard.len() < 1000);
    monitor.drain().unwrap();
    space.ip("route add blackhole 10.50.0.0/16");
    let heard = hear(&mut monitor, |h| !routes(h).is_empty());
    assert!(!heard.contains(&Event::Overrun));
}

#[test]
fn the_default_buffer_holds_what_comes_while_the_owner_is_stopped() {
    let Some(space) = Space::new("buffer") else { return };
    let mut monitor = Monitor::open_in(Groups::ROUTE, &space.path()).unwrap();
    let many: Vec<_> = (0..20_000u32)
        .map(|n| Request::AddRoute(Route::blackhole(net(&format!("20.{}.{}.0/24", n / 250, n % 250)), 12)))
        .collect();
    assert_eq!(space.netlink().apply(&many), []);
    let heard = hear(&mut monitor, |h| h.len() >= many.len());
    assert!(!heard.contains(&Event::Overrun));
}

#[test]
fn ones_own_additions_are_left_out_and_their_deletion_is_not() {
    let Some(space) = Space::new("ignore") else { return };
    let config = MonitorConfig::new(Groups::ROUTE | Groups::LINK)
        .ignore_new_routes_of(proto::BIRD)
        .ignore_routes_of(proto::FELIX);
    let mut monitor = Monitor::open_in(config, &space.path()).unwrap();
    for (dst, owner) in [
        ("10.50.0.0/16", "bird"),
        ("10.51.0.0/16", "80"),
        ("10.52.0.0/16", "static"),
        ("fd00:53::/64", "bird"),
    ] {
        space.ip(&format!("route add blackhole {dst} proto {owner}"));
        space.ip(&format!("route del blackhole {dst} proto {owner}"));
    }
    space.ip("link add last type veth peer name p");
    let heard = hear(&mut monitor, |h| h.iter().any(|e| matches!(e, Event::Link(l) if l.name == "last")));
    assert_eq!(
        routes(&heard),
        [
            ("10.50.0.0/16".to_owned(), true, false),
            ("10.52.0.0/16".to_owned(), false, false),
            ("10.52.0.0/16".to_owned(), true, false),
            ("fd00:53::/64".to_owned(), true, false),
        ]
    );
}

#[test]
fn what_one_socket_does_is_left_out_and_the_same_done_by_others_is_heard() {
    let Some(space) = Space::new("echo") else { return };
    let mut own = space.netlink();
    let config = MonitorConfig::new(Groups::ROUTE).ignore_changes_by(own.port());
    let mut monitor = Monitor::open_in(config, &space.path()).unwrap();
    let mut other = space.netlink();
    let mut told = Vec::new();
    for dst in ["10.50.0.0/16", "fd00:53::/64"] {
        let route = Route::blackhole(net(dst), 12);
        assert_eq!(own.apply(&[Request::AddRoute(route.clone()), Request::DelRoute(route.clone())]), []);
        assert_eq!(own.apply(&[Request::AddRoute(route.clone())]), []);
        assert_eq!(other.apply(&[Request::DelRoute(route.clone()), Request::AddRoute(route)]), []);
        told.extend([(dst.to_owned(), true, false), (dst.to_owned(), false, false)]);
    }
    let heard = hear(&mut monitor, |h| routes(h).len() >= told.len());
    assert_eq!(routes(&heard), told);
}

#[test]
fn losses_elsewhere_are_heard_and_nothing_is_held_alive() {
    let (Some(host), Some(pod)) = (Space::new("lhost"), Space::new("lpod")) else { return };
    host.ip(&format!("link add name a type veth peer name b netns {}", pod.name));
    host.ip("link set dev a up");
    pod.ip("link set dev b up");
    pod.ip("addr add 10.0.0.1/32 dev b");
    let number = host.netlink().link_by_name("a").unwrap().unwrap().peer_netns.unwrap();
    let netns = caracal_netlink::Netns::open(&host.path()).unwrap();
    let mut monitor = netns.run(caracal_netlink::LossMonitor::open).unwrap().unwrap();
    let mut loses = |what: &str, expected: bool| {
        pod.ip(what);
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let losses = monitor.try_next().unwrap();
            assert!(!losses.overrun);
            if losses.namespaces.contains(&number) {
                assert!(expected, "{what}");
                return;
            }
            if !expected {
                return;
            }
            assert!(Instant::now() < deadline, "{what} was not heard");
        }
    };
    loses("route add 192.0.2.0/24 dev b", false);
    loses("neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev b nud permanent", false);
    loses("neigh del 192.0.2.1 dev b", true);
    loses("route del 192.0.2.0/24", true);
    loses("addr del 10.0.0.1/32 dev b", true);
    loses("link set dev b down", true);
    // The namespace goes although it was listened to, and its link with it.
    drop(pod);
    let deadline = Instant::now() + Duration::from_secs(5);
    while host.netlink().link_by_name("a").unwrap().is_some() {
        assert!(Instant::now() < deadline, "the pair outlives its namespace");
        std::thread::sleep(Duration::from_millis(10));
    }
}
