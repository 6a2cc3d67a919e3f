use std::time::Instant;

use caracal_netlink::{
    Errno, Family, NextHop, Request, ResolvedRoute, Route, RouteFilter, RouteKind, proto, table,
};
use ipnet::{IpNet, Ipv4Net};
use serde_json::{Value, json};

use crate::lab::{Space, ip, net};

fn shown(space: &Space, words: &str) -> Vec<Value> {
    space.ip_json(words).as_array().unwrap().clone()
}

#[test]
fn the_routes_of_a_node_read_as_an_operator_of_calico_knows_them() {
    let Some(space) = Space::new("node-routes") else { return };
    let uplink = space.pair("eth0", "eth0p", Some("192.168.174.131/24"));
    let cali = space.pair("cali1b15813a0a8", "c", None);
    let mut nl = space.netlink();
    let wanted = [
        Route::blackhole(net("10.100.104.0/26"), proto::BIRD),
        Route::dev(net("10.100.104.15/32"), proto::FELIX, cali).metric(1024),
        Route::via(net("10.100.135.0/26"), proto::BIRD, ip("192.168.174.133"), uplink).metric(1024),
    ];
    assert_eq!(nl.apply(&wanted.clone().map(Request::ReplaceRoute)), []);
    let lines: Vec<_> = space
        .ip("route show")
        .lines()
        .filter(|l| l.contains("10.100."))
        .map(|l| l.trim().to_owned())
        .collect();
    assert_eq!(
        lines,
        [
            "blackhole 10.100.104.0/26 proto bird",
            "10.100.104.15 dev cali1b15813a0a8 proto 80 scope link metric 1024",
            "10.100.135.0/26 via 192.168.174.133 dev eth0 proto bird metric 1024",
        ]
    );
    assert_eq!(nl.routes(RouteFilter::main().proto(proto::FELIX)).unwrap(), wanted[1..2]);
    let mut bird = nl.routes(RouteFilter::main().proto(proto::BIRD).family(Family::V4)).unwrap();
    bird.sort_by_key(|r| r.dst);
    assert_eq!(bird, [wanted[0].clone(), wanted[2].clone()]);
    let all = nl.routes(RouteFilter::default()).unwrap();
    assert!(wanted.iter().all(|w| all.contains(w)));
    assert!(all.iter().any(|r| r.table == table::LOCAL && r.kind == RouteKind::Local));

    // Writing the same again is accepted and changes nothing.
    assert_eq!(nl.apply(&wanted.clone().map(Request::ReplaceRoute)), []);
    assert_eq!(nl.apply(&wanted.map(Request::DelRoute)), []);
    assert!(!space.ip("route show").contains("10.100."));
}

#[test]
fn an_ipv4_route_is_replaced_in_place_by_prefix_and_metric() {
    let Some(space) = Space::new("replace4") else { return };
    let a = space.pair("a", "a2", Some("10.0.0.1/24"));
    let b = space.pair("b", "b2", Some("10.0.1.1/24"));
    let mut nl = space.netlink();
    let dst = net("10.50.0.0/16");
    for route in [
        Route::via(dst, proto::BIRD, ip("10.0.0.2"), a).metric(7),
        Route::via(dst, proto::BIRD, ip("10.0.1.2"), b).metric(7),
        Route::blackhole(dst, proto::BIRD).metric(7),
        Route::dev(dst, proto::BIRD, a).metric(7),
    ] {
        nl.apply_one(Request::ReplaceRoute(route.clone())).unwrap();
        assert_eq!(nl.routes(RouteFilter::main().proto(proto::BIRD)).unwrap(), [route]);
        assert_eq!(shown(&space, "route show 10.50.0.0/16").len(), 1);
    }
    // Another metric is another route.
    nl.apply_one(Request::AddRoute(Route::blackhole(dst, proto::BIRD).metric(8))).unwrap();
    assert_eq!(shown(&space, "route show 10.50.0.0/16").len(), 2);
    nl.apply_one(Request::DelRoute(Route::blackhole(dst, proto::BIRD).metric(7))).unwrap();
    assert_eq!(shown(&space, "route show 10.50.0.0/16")[0]["metric"], 8);
}

#[test]
fn a_foreign_route_is_neither_overwritten_by_add_nor_deleted() {
    let Some(space) = Space::new("foreign") else { return };
    let a = space.pair("a", "a2", Some("10.0.0.1/24"));
    space.ip("addr add fd00::1/64 dev a nodad");
    space.ip("route add 10.50.0.0/16 via 10.0.0.9 proto static metric 7");
    space.ip("route add fd00:50::/64 via fd00::9 proto static metric 7");
    let mut nl = space.netlink();
    for (family, dst) in [("-4", "10.50.0.0/16"), ("-6", "fd00:50::/64")] {
        let ours = Route::dev(net(dst), proto::BIRD, a).metric(7);
        assert_eq!(nl.apply_one(Request::AddRoute(ours.clone())), Err(Errno::EEXIST));
        assert_eq!(nl.apply_one(Request::DelRoute(ours)), Err(Errno::ESRCH));
        assert_eq!(shown(&space, &format!("{family} route show {dst}"))[0]["protocol"], "static");
    }
}

/// IPv6 keeps siblings with one metric, so each change of kind must leave exactly the new route.
#[test]
fn an_ipv6_route_is_replaced_whatever_was_there() {
    let Some(space) = Space::new("replace6") else { return };
    let a = space.pair("a", "a2", Some("fd00:a::1/64"));
    let b = space.pair("b", "b2", Some("fd00:b::1/64"));
    let mut nl = space.netlink();
    let dst = net("fd00:50::/64");
    let ecmp = |last: &str| {
        let mut r = Route::via(dst, proto::BIRD, ip("fd00:a::2"), a);
        r.hops.push(NextHop::via(ip("fd00:b::2"), b));
        r.hops.push(NextHop::via(ip(last), b));
        r
    };
    let variants = [
        Route::via(dst, proto::BIRD, ip("fd00:a::2"), a),
        Route::blackhole(dst, proto::BIRD),
        ecmp("fd00:b::3"),
        ecmp("fd00:b::4"),
        Route::dev(dst, proto::BIRD, b),
        Route::via(dst, proto::BIRD, ip("fd00:b::2"), b),
    ];
    let mut order: Vec<(usize, usize)> = Vec::new();
    for from in 0..variants.len() {
        for to in 0..variants.len() {
            order.push((from, to));
        }
    }
    for (from, to) in order {
        for step in [from, to] {
            nl.apply_one(Request::ReplaceRoute(variants[step].clone())).unwrap();
        }
        let got = nl.routes(RouteFilter::main().proto(proto::BIRD).family(Family::V6)).unwrap();
        let want = variants[to].clone().normalized();
        assert_eq!(want.metric, 1024);
        assert_eq!(got, [want], "from {from} to {to}");
        nl.apply_one(Request::DelRoute(variants[to].clone())).unwrap();
        assert_eq!(shown(&space, "-6 route show fd00:50::/64"), [] as [Value; 0], "delete {to}");
    }
}

#[test]
fn several_next_hops_share_with_their_weights() {
    let Some(space) = Space::new("ecmp") else { return };
    let a = space.pair("a", "a2", Some("10.0.0.1/24"));
    let b = space.pair("b", "b2", Some("10.0.1.1/24"));
    space.ip("addr add fd00:a::1/64 dev a nodad");
    let mut nl = space.netlink();
    let mut v4 = Route::via(net("10.50.0.0/16"), proto::BIRD, ip("10.0.0.2"), a).metric(3);
    v4.hops.push(NextHop { weight: 5, ..NextHop::via(ip("10.0.1.2"), b) });
    v4.hops.push(NextHop { onlink: true, ..NextHop::via(ip("172.31.0.1"), b) });
    let mut v6 = Route::via(net("fd00:50::/64"), proto::BIRD, ip("fd00:a::2"), a).metric(3);
    v6.hops.push(NextHop::via(ip("fe80::7"), b));
    assert_eq!(nl.apply(&[Request::AddRoute(v4.clone()), Request::AddRoute(v6.clone())]), []);
    let hops = &shown(&space, "route show 10.50.0.0/16")[0]["nexthops"];
    let hops: Vec<_> = hops.as_array().unwrap().iter().map(|h| (&h["gateway"], &h["weight"])).collect();
    assert_eq!(
        hops,
        [(&json!("10.0.0.2"), &json!(1)), (&json!("10.0.1.2"), &json!(5)), (&json!("172.31.0.1"), &json!(1))]
    );
    let mut got = nl.routes(RouteFilter::main().proto(proto::BIRD)).unwrap();
    got.sort_by_key(Route::family);
    assert_eq!(got, [v4.clone().normalized(), v6.clone().normalized()]);
    assert_eq!(nl.apply(&[Request::DelRoute(v4), Request::DelRoute(v6)]), []);
    assert_eq!(nl.routes(RouteFilter::main().proto(proto::BIRD)).unwrap(), []);
}

#[test]
fn on_link_gateways_source_addresses_and_other_tables_are_kept() {
    let Some(space) = Space::new("odd") else { return };
    let a = space.pair("a", "a2", Some("10.0.0.1/24"));
    let mut nl = space.netlink();
    let mut onlink = Route::via(net("10.60.0.0/16"), 99, ip("172.31.0.1"), a);
    onlink.hops[0].onlink = true;
    let mut source = Route::via(net("10.61.0.0/16"), 99, ip("10.0.0.2"), a);
    source.src = Some(ip("10.0.0.1"));
    let mut elsewhere = Route::blackhole(net("0.0.0.0/0"), 99).metric(9);
    elsewhere.table = 100_000;
    let v6_gateway = Route::via(net("10.62.0.0/16"), 99, ip("fe80::9"), a);
    let unreachable = Route::new(net("fd00:63::/64"), 99, RouteKind::Unreachable);
    let all = [onlink, source, elsewhere.clone(), v6_gateway, unreachable];
    assert_eq!(nl.apply(&all.clone().map(Request::AddRoute)), []);
    assert!(space.ip("route show 10.60.0.0/16").contains("onlink"));
    assert!(space.ip("route show 10.61.0.0/16").contains("src 10.0.0.1"));
    assert!(space.ip("route show table 100000").contains("blackhole default"));
    assert!(space.ip("route show 10.62.0.0/16").contains("via inet6 fe80::9"));
    assert!(space.ip("-6 route show fd00:63::/64").contains("unreachable"));
    let got = nl.routes(RouteFilter { proto: Some(99), ..RouteFilter::default() }).unwrap();
    assert_eq!(got.len(), 5);
    assert!(all.into_iter().all(|r| got.contains(&r.normalized())), "{got:?}");
    let only = nl.routes(RouteFilter { table: Some(100_000), ..RouteFilter::default() }).unwrap();
    assert_eq!(only, [elsewhere]);
    // A table nobody has written to is empty, not an error.
    assert_eq!(nl.routes(RouteFilter { table: Some(100_001), ..RouteFilter::default() }).unwrap(), []);
}

#[test]
fn a_lookup_tells_device_gateway_and_source() {
    let Some(space) = Space::new("lookup") else { return };
    let a = space.pair("a", "a2", Some("10.0.0.1/24"));
    space.ip("addr add fd00:a::1/64 dev a nodad");
    space.ip("route add 10.50.0.0/16 via 10.0.0.9");
    space.ip("route add blackhole 10.51.0.0/16");
    space.ip("route add unreachable fd00:51::/64");
    let mut nl = space.netlink();
    let there = |gateway: Option<&str>, source: &str| {
        Some(ResolvedRoute {
            ifindex: a,
            gateway: gateway.map(ip),
            source: Some(ip(source)),
            kind: RouteKind::Unicast,
        })
    };
    assert_eq!(nl.route_get(ip("10.50.1.1")).unwrap(), there(Some("10.0.0.9"), "10.0.0.1"));
    assert_eq!(nl.route_get(ip("10.0.0.77")).unwrap(), there(None, "10.0.0.1"));
    assert_eq!(nl.route_get(ip("fd00:a::77")).unwrap(), there(None, "fd00:a::1"));
    assert_eq!(nl.route_get(ip("10.0.0.1")).unwrap().unwrap().kind, RouteKind::Local);
    for nowhere in ["10.51.0.1", "192.0.2.1", "fd00:51::1", "2001:db8::1"] {
        assert_eq!(nl.route_get(ip(nowhere)).unwrap(), None, "{nowhere}");
    }
}

#[test]
fn a_hundred_thousand_routes_go_in_come_back_and_go() {
    let Some(space) = Space::new("bulk") else { return };
    let a = space.pair("a", "a2", Some("10.0.0.1/24"));
    let mut nl = space.netlink();
    let routes: Vec<Route> = (0..100_000u32)
        .map(|n| {
            let dst = IpNet::V4(Ipv4Net::new((0x1400_0000 + n * 64).into(), 26).unwrap());
            Route::via(dst, proto::BIRD, ip("10.0.0.2"), a).metric(100)
        })
        .collect();
    let add: Vec<_> = routes.iter().cloned().map(Request::AddRoute).collect();
    let start = Instant::now();
    assert_eq!(nl.apply(&add), []);
    eprintln!("added in {:?}", start.elapsed());
    assert_eq!(space.ip("route show proto bird").lines().count(), routes.len());
    let start = Instant::now();
    let mut got = nl.routes(RouteFilter::main().proto(proto::BIRD)).unwrap();
    eprintln!("read in {:?}", start.elapsed());
    got.sort_unstable_by_key(|r| r.dst);
    assert!(got == routes);
    let delete: Vec<_> = routes.into_iter().map(Request::DelRoute).collect();
    assert_eq!(nl.apply(&delete), []);
    assert_eq!(space.ip("route show proto bird").lines().count(), 0);
}

#[test]
fn a_dump_can_be_folded_and_leave_an_owner_out() {
    let Some(space) = Space::new("fold") else { return };
    let mut nl = space.netlink();
    let route = |n: u32, proto| Request::AddRoute(Route::blackhole(net(&format!("10.9.{n}.0/24")), proto));
    let six = |n: u32, proto| Request::AddRoute(Route::blackhole(net(&format!("fd09:{n}::/64")), proto));
    let all: Vec<_> =
        (0..200).flat_map(|n| [route(n, 12), six(n, 12)]).chain([route(200, 99), six(200, 99)]).collect();
    assert_eq!(nl.apply(&all), []);
    let main = RouteFilter::main();
    let counts = nl.fold_routes(main.proto(12), |count: &mut usize, _| *count += 1).unwrap();
    assert_eq!(counts, [200, 200]);
    let others = nl.routes(main.except(12)).unwrap();
    assert_eq!(others.iter().filter(|r| r.proto == 99).count(), 2);
    assert_eq!(others.iter().filter(|r| r.proto == 12).count(), 0);
    let counts =
        nl.fold_routes(main.proto(12).family(Family::V6), |count: &mut usize, _| *count += 1).unwrap();
    assert_eq!(counts, [200]);
}
