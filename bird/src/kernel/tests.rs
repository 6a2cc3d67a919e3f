use super::*;

const UPLINK: u32 = 2;

fn link(index: u32, name: &str, up: bool) -> Link {
    Link {
        index,
        name: name.into(),
        up,
        running: up,
        mac: None,
        mtu: 1500,
        kind: String::new(),
        group: 0,
        peer_index: None,
        peer_netns: None,
        master: None,
        alias: None,
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn connected(prefix: &str, index: u32) -> Route {
    Route::dev(net(prefix), proto::KERNEL, index)
}

fn event(route: Route, gone: bool) -> Event {
    Event::Route { route, gone, replaced: false }
}

/// eth0 with 10.20.0.1/24 and a default route, cali1 with a workload's /32.
fn kernel() -> Kernel {
    let mut kernel = Kernel::new(proto::BIRD, 254);
    let effects = kernel.replace(
        vec![link(1, "lo", true), link(UPLINK, "eth0", true), link(3, "cali1", true)],
        vec![
            Address::new(1, net("127.0.0.1/8")),
            Address::new(UPLINK, net("10.20.0.1/24")),
            Address::new(3, net("fe80::1/64")),
        ],
        vec![
            connected("10.20.0.0/24", UPLINK),
            Route::via(net("0.0.0.0/0"), proto::BOOT, ip("10.20.0.254"), UPLINK),
            Route::dev(net("10.65.1.5/32"), proto::FELIX, 3).metric(1024),
            Route::via(net("10.65.2.0/26"), proto::BIRD, ip("10.20.0.2"), UPLINK),
        ],
    );
    let told: Vec<String> =
        effects.local.iter().map(|r| format!("{} {:?}", r.key.prefix, r.key.source)).collect();
    assert_eq!(told, ["0.0.0.0/0 Kernel", "10.20.0.0/24 Connected", "10.65.1.5/32 Kernel"]);
    kernel
}

fn via(resolution: &Resolution) -> Option<(Option<IpAddr>, u32)> {
    match resolution {
        Resolution::Via { hops, .. } => Some((hops[0].gateway, hops[0].ifindex)),
        Resolution::Unreachable => None,
    }
}

#[test]
fn a_next_hop_is_reached_by_the_longest_prefix_of_others() {
    let mut kernel = kernel();
    assert_eq!(via(&kernel.watch(ip("10.20.0.2"))), Some((None, UPLINK)));
    assert_eq!(via(&kernel.watch(ip("192.0.2.1"))), Some((Some(ip("10.20.0.254")), UPLINK)));
    assert_eq!(
        via(&kernel.watch(ip("10.65.2.9"))),
        Some((Some(ip("10.20.0.254")), UPLINK)),
        "not by our own route"
    );
    assert_eq!(via(&kernel.watch(ip("10.20.0.1"))), None, "our own address is no next hop");
    assert_eq!(via(&kernel.watch(ip("fd00::1"))), None);
    let nearer = Route::via(net("192.0.2.0/24"), proto::STATIC, ip("10.20.0.9"), UPLINK);
    let effects = kernel.observe(vec![event(nearer, false)]);
    assert_eq!(effects.next_hops.len(), 1, "only those inside the route are asked again");
    assert_eq!(via(&effects.next_hops[0].1), Some((Some(ip("10.20.0.9")), UPLINK)));
    let hole = Route::blackhole(net("192.0.2.1/32"), proto::STATIC);
    assert_eq!(via(&kernel.observe(vec![event(hole, false)]).next_hops[0].1), None);
}

#[test]
fn a_link_that_goes_down_takes_its_routes_along() {
    let mut kernel = kernel();
    kernel.watch(ip("10.20.0.2"));
    let effects = kernel.observe(vec![Event::Link(link(UPLINK, "eth0", false))]);
    assert_eq!(effects.next_hops, [(ip("10.20.0.2"), Resolution::Unreachable)]);
    assert_eq!(effects.local_gone.len(), 2, "default route and connected subnet");
    assert!(effects.lost_routes && !effects.came_up);
    let effects = kernel.observe(vec![
        Event::Link(link(UPLINK, "eth0", true)),
        event(connected("10.20.0.0/24", UPLINK), false),
    ]);
    assert!(effects.came_up);
    assert_eq!(via(&effects.next_hops[0].1), Some((None, UPLINK)));
    assert_eq!(effects.local.len(), 1, "the default route is gone for good");
}

#[test]
fn a_link_that_blinks_between_two_looks_is_noticed() {
    let mut kernel = kernel();
    kernel.watch(ip("10.20.0.2"));
    let effects = kernel.observe(vec![
        Event::Link(link(UPLINK, "eth0", false)),
        Event::Link(link(UPLINK, "eth0", true)),
        event(connected("10.20.0.0/24", UPLINK), false),
    ]);
    assert!(effects.next_hops.is_empty(), "the answer is the same");
    assert!(effects.lost_routes, "but the kernel dropped our routes");
}

#[test]
fn a_carrier_that_is_lost_makes_next_hops_unreachable() {
    let mut kernel = kernel();
    kernel.watch(ip("10.20.0.2"));
    let mut dead = link(UPLINK, "eth0", true);
    dead.running = false;
    assert_eq!(kernel.observe(vec![Event::Link(dead)]).next_hops.len(), 1);
    let effects = kernel.observe(vec![Event::Link(link(UPLINK, "eth0", true))]);
    assert!(effects.came_up && via(&effects.next_hops[0].1).is_some());
}

#[test]
fn workload_routes_come_and_go_one_by_one() {
    let mut kernel = kernel();
    kernel.watch(ip("10.20.0.2"));
    let route = Route::dev(net("10.65.1.6/32"), proto::FELIX, 3).metric(1024);
    let effects = kernel.observe(vec![event(route.clone(), false)]);
    assert_eq!(effects.local.len(), 1);
    assert_eq!(&*effects.local[0].key.interface, "cali1");
    assert!(effects.next_hops.is_empty() && effects.local_gone.is_empty());
    assert_eq!(kernel.observe(vec![event(route.clone(), false)]).local.len(), 0, "told once");
    assert_eq!(kernel.observe(vec![event(route, true)]).local_gone.len(), 1);
    let effects = kernel.observe(vec![Event::LinkGone { index: 3, name: "cali1".into() }]);
    assert_eq!(effects.local_gone.len(), 1, "the other workload of that link");
    assert!(!effects.lost_routes, "no route of ours leads there");
}

#[test]
fn routes_of_ours_that_go_are_reported() {
    let mut kernel = kernel();
    let ours = Route::via(net("10.65.2.0/26"), proto::BIRD, ip("10.20.0.2"), UPLINK).metric(1024);
    assert_eq!(kernel.observe(vec![event(ours.clone(), true)]).own_gone, std::slice::from_ref(&ours));
    let mut thief = ours.clone();
    thief.proto = proto::STATIC;
    let effects = kernel.observe(vec![Event::Route { route: thief, gone: false, replaced: true }]);
    assert_eq!(effects.own_gone, [ours], "replaced by somebody else's");
    assert!(kernel.has_foreign(net("10.65.2.0/26"), 1024));
}

#[test]
fn an_address_that_goes_asks_for_a_new_look() {
    let mut kernel = kernel();
    let effects = kernel.observe(vec![Event::AddressGone(Address::new(UPLINK, net("10.20.0.1/24")))]);
    assert!(effects.resync);
    assert!(kernel.observe(vec![Event::Overrun]).resync);
}

#[test]
fn the_other_family_s_address_is_of_the_link_on_which_a_connection_ends() {
    let mut kernel = Kernel::new(proto::BIRD, 254);
    let _ = kernel.replace(
        vec![link(1, "lo", true), link(UPLINK, "eth0", true), link(3, "eth1", true)],
        vec![
            Address::new(1, net("127.0.0.1/8")),
            Address::new(UPLINK, net("10.20.0.1/24")),
            Address::new(UPLINK, net("fe80::1/64")),
            Address::new(UPLINK, net("fd20::1/64")),
            Address::new(3, net("10.30.0.1/24")),
        ],
        Vec::new(),
    );
    let other = |local: &str| kernel.other_address(local.parse().unwrap());
    assert_eq!(other("10.20.0.1:179"), Some(ip("fd20::1")));
    assert_eq!(other("[fd20::1]:179"), Some(ip("10.20.0.1")));
    assert_eq!(other("[fe80::1%3]:179"), Some(ip("10.30.0.1")), "an unnumbered peer");
    assert_eq!(other("10.30.0.1:179"), None, "a link without the other family");
    assert_eq!(other("10.40.0.1:179"), None, "no address of ours");
}

#[test]
fn a_next_hop_behind_a_static_route_of_ours_is_reached_by_its_gateway() {
    let mut kernel = kernel();
    let far = ip("192.0.2.1");
    let gateway_of = |resolution: &Resolution| match resolution {
        Resolution::Via { hops, .. } => hops.iter().map(|h| h.gateway).collect(),
        Resolution::Unreachable => Vec::new(),
    };
    assert_eq!(gateway_of(&kernel.watch(far)), [Some(ip("10.20.0.254"))], "by the default route");
    let statics = |gateway: &str| BTreeMap::from([(net("192.0.2.1/32"), ip(gateway))]);
    let effects = kernel.follow_statics(statics("10.20.0.7"));
    let told: Vec<_> = effects.next_hops.iter().map(|(a, r)| (*a, gateway_of(r))).collect();
    assert_eq!(told, [(far, vec![Some(ip("10.20.0.7"))])]);
    assert!(kernel.follow_statics(statics("10.20.0.7")).next_hops.is_empty(), "nothing changed");
    // The gateway's subnet goes: what is left is the default route.
    let gone = kernel.observe(vec![event(connected("10.20.0.0/24", UPLINK), true)]);
    assert_eq!(gateway_of(&gone.next_hops[0].1), [Some(ip("10.20.0.254"))]);
    kernel.observe(vec![event(connected("10.20.0.0/24", UPLINK), false)]);
    // A longer route of another program wins over a shorter static one.
    kernel.follow_statics(BTreeMap::from([(net("192.0.0.0/16"), ip("10.20.0.7"))]));
    let other = Route::via(net("192.0.2.0/24"), proto::STATIC, ip("10.20.0.9"), UPLINK);
    let effects = kernel.observe(vec![event(other, false)]);
    assert_eq!(gateway_of(&effects.next_hops[0].1), [Some(ip("10.20.0.9"))]);
    let effects = kernel.follow_statics(BTreeMap::new());
    assert!(effects.next_hops.is_empty());
}

#[test]
fn the_gateway_is_that_of_the_lowest_metric_over_a_link_that_works() {
    let gateways = |kernel: &Kernel, v4: bool| match kernel.default_route(v4) {
        DefaultRoute::By(all) => all.iter().map(|g| format!("{} {}", g.address, g.interface)).collect(),
        other => vec![format!("{other:?}")],
    };
    let default = |via: &str, index: u32, metric: u32| {
        let any = if via.contains(':') { "::/0" } else { "0.0.0.0/0" };
        Route::via(net(any), proto::STATIC, ip(via), index).metric(metric)
    };
    let mut kernel = kernel();
    assert_eq!(gateways(&kernel, true), ["10.20.0.254 eth0"]);
    assert_eq!(gateways(&kernel, false), ["None"]);
    let before = kernel.changes();
    kernel
        .observe(vec![event(Route::via(net("10.9.0.0/16"), proto::STATIC, ip("10.20.0.9"), UPLINK), false)]);
    assert_eq!(kernel.changes(), before, "no default route");
    // A higher metric does not count, a lower one does, one over a dead link does not.
    kernel.observe(vec![event(default("10.20.0.1", UPLINK, 100), false)]);
    assert_eq!(gateways(&kernel, true), ["10.20.0.254 eth0"]);
    assert_ne!(kernel.changes(), before);
    kernel.observe(vec![
        event(Route::via(net("0.0.0.0/0"), proto::BOOT, ip("10.20.0.254"), UPLINK), true),
        Event::Link(link(4, "eth1", false)),
        event(default("10.30.0.1", 4, 7), false),
    ]);
    assert_eq!(gateways(&kernel, true), [r#"OnLink("eth0")"#], "our own address is no gateway");
    kernel.observe(vec![event(default("10.20.0.8", UPLINK, 50), false)]);
    assert_eq!(gateways(&kernel, true), ["10.20.0.8 eth0"]);
    // Several of one metric, the lowest address first; link-local ones have their link.
    kernel.observe(vec![
        Event::Link(link(4, "eth1", true)),
        event(default("fe80::9", 4, 1024), false),
        event(default("fe80::1", UPLINK, 1024), false),
    ]);
    assert_eq!(gateways(&kernel, false), ["fe80::1 eth0", "fe80::9 eth1"]);
    kernel.observe(vec![event(default("fe80::1", UPLINK, 1024), true)]);
    assert_eq!(gateways(&kernel, false), ["fe80::9 eth1"]);
    // Without a gateway.
    kernel.observe(vec![event(Route::dev(net("0.0.0.0/0"), proto::STATIC, 4).metric(1), false)]);
    assert_eq!(gateways(&kernel, true), [r#"OnLink("eth1")"#]);
}
