//! Peers whose address nobody wrote down: found by router advertisements, or as the gateway of the default route.
//!
//! ```text
//!   ours eth0 fe80::.. -------- eth0 fe80::.. theirs: FRR, BIRD, or another of ours
//!   AS 65001                                  AS 65002
//!   10.1.0.1/32, fd01::1/128 on lo            10.2.0.1/32, fd02::1/128 on lo
//! ```
#![allow(clippy::unwrap_used, reason = "a test that cannot set up has failed")]

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use integration::lab::{Lab, Namespace, Process, RouteWatch, eventually};
use integration::picture::{NODES, Options, Picture, ROUTER, ROUTER_AS, binary, routes};
use integration::router::{RouterKind, frr_daemon};
use integration::seed;
use integration::store::StoreKind;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

const SOON: Duration = Duration::from_secs(30);

struct Pair {
    lab: Lab,
    ours: Namespace,
    theirs: Namespace,
}

impl Pair {
    fn new(name: &str) -> Self {
        let mut lab = Lab::new(name).unwrap();
        // FRR's daemons reach their directory as another user.
        std::fs::set_permissions(lab.dir(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let (ours, theirs) = (lab.host("o").unwrap(), lab.host("t").unwrap());
        ours.wire("eth0", &theirs, "eth0", None).unwrap();
        for (space, n) in [(&ours, 1), (&theirs, 2)] {
            space.set_up("lo").unwrap();
            space.address("lo", format!("10.{n}.0.1/32").parse().unwrap()).unwrap();
            space.address("lo", format!("fd0{n}::1/128").parse().unwrap()).unwrap();
            space.sysctl("net/ipv4/ip_forward", "1");
            space.sysctl("net/ipv6/conf/all/forwarding", "1");
        }
        Self { lab, ours, theirs }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.lab.file(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn socket(&self, name: &str) -> String {
        self.lab.file(&format!("{name}.sock")).to_str().unwrap().to_owned()
    }

    /// Starts one of ours with these neighbours and its own two prefixes.
    fn caracal(&self, name: &str, space: &Namespace, number: u8, neighbours: &str) -> Process {
        let yaml = format!(
            "routerId: 10.{number}.0.1\nasNumber: 6500{number}\napi: {{ socket: {} }}\n\
             static: [{{ prefix: 10.{number}.0.0/16, announceOnly: true }}, \
             {{ prefix: 'fd0{number}::/48', announceOnly: true }}]\nneighbours:\n{neighbours}",
            self.socket(name)
        );
        let file = self.file(&format!("{name}.yaml"), &yaml);
        let program = binary().unwrap();
        let argv = [program.to_str().unwrap(), "bird", "--config", &file];
        let mut process = Process::new(name, space, self.lab.dir(), &argv);
        process.start().unwrap();
        process
    }

    /// Starts FRR's zebra and bgpd in `theirs`.
    fn frr(&self, bgp: &str) -> Vec<Process> {
        let dir = self.lab.file("frr");
        std::fs::create_dir_all(&dir).unwrap();
        std::os::unix::fs::chown(&dir, integration::router::uid("frr"), None).unwrap();
        let conf = self.file("bgpd.conf", bgp);
        let empty = self.file("zebra.conf", "");
        let mut processes = Vec::new();
        for (daemon, file) in [("zebra", &empty), ("bgpd", &conf)] {
            let mut process = frr_daemon(daemon, daemon, &self.theirs, self.lab.dir(), &dir, Path::new(file));
            process.start().unwrap();
            // bgpd knows no link until it has zebra.
            let there = || if dir.join("zserv.api").exists() { Ok(()) } else { Err("no zebra".to_owned()) };
            eventually(SOON, there).unwrap();
            processes.push(process);
        }
        processes
    }

    fn ctl(&self, name: &str, words: &[&str]) -> Output {
        let socket = self.socket(name);
        Command::new(binary().unwrap())
            .args(["ctl", "bgp"])
            .args(words)
            .args(["--socket", &socket])
            .output()
            .unwrap()
    }

    fn text(&self, words: &[&str]) -> String {
        let output = self.ctl("ours", words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits for something that `ctl bgp neighbor` says of the one of ours called `name`.
    fn until(&self, name: &str, peer: &str, what: &str, is: impl Fn(&Value) -> bool) -> (Value, Duration) {
        let found = eventually(SOON, || {
            let output = self.ctl(name, &["neighbor", peer, "-o", "json"]);
            let answer: Value = serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())?;
            if is(&answer) { Ok(answer) } else { Err(format!("{what}: {answer:#}")) }
        });
        found.unwrap_or_else(|err| panic!("{err}\n{}", self.lab.logs(60)))
    }

    fn up(&self, name: &str, peer: &str) -> (Value, Duration) {
        self.until(name, peer, "no session", |n| n["state"] == "Established")
    }

    /// Waits until the kernel of `space` has exactly these routes by BGP.
    fn routes(&self, space: &Namespace, protocol: &str, wanted: &[String]) {
        let check = || {
            let mut all = Vec::new();
            for family in ["-4", "-6"] {
                let text = space
                    .sh(&format!("ip {family} route show proto {protocol}"))
                    .map_err(|e| e.to_string())?;
                for line in text.lines() {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    let end = words.iter().position(|w| *w == "dev").map_or(words.len(), |at| at + 2);
                    // FRR names next hop objects.
                    let skip = if words[1] == "nhid" { 2 } else { 0 };
                    let shown: Vec<&str> = words[..1].iter().chain(&words[1 + skip..end]).copied().collect();
                    all.push(shown.join(" "));
                }
            }
            all.sort();
            if all == wanted { Ok(()) } else { Err(format!("{}: {all:?}, not {wanted:?}", space.name())) }
        };
        eventually(SOON, check).unwrap_or_else(|err| panic!("{err}\n{}", self.lab.logs(60)));
    }

    /// Both families, from one loopback address to the other.
    fn pings(&self) {
        for line in ["ping -c 1 -W 2 -I 10.1.0.1 10.2.0.1", "ping -6 -c 1 -W 2 -I fd01::1 fd02::1"] {
            let check = || self.ours.sh(line).map(drop).map_err(|e| e.to_string());
            eventually(SOON, check).unwrap_or_else(|err| panic!("{err}\n{}", self.lab.logs(60)));
        }
    }
}

/// The link-local address of a link, when it is usable.
fn link_local(space: &Namespace, link: &str) -> String {
    let check = || {
        let text =
            space.sh(&format!("ip -6 -o addr show dev {link} scope link")).map_err(|e| e.to_string())?;
        let usable = text.lines().find(|l| !l.contains("tentative"));
        let found = usable.and_then(|l| l.split_whitespace().nth(3)).and_then(|a| a.split('/').next());
        found.map(str::to_owned).ok_or_else(|| format!("{link}: {text}"))
    };
    eventually(SOON, check).unwrap().0
}

fn learned(number: u8, from: &str) -> Vec<String> {
    vec![
        format!("10.{number}.0.0/16 via inet6 {from} dev eth0"),
        format!("fd0{number}::/48 via {from} dev eth0"),
    ]
}

const FRR: &str = "router bgp 65002\n bgp router-id 10.2.0.1\n no bgp ebgp-requires-policy\n \
no bgp network import-check\n neighbor eth0 interface remote-as external\n neighbor eth0 timers 3 9\n \
neighbor eth0 timers connect 1\n address-family ipv4 unicast\n  network 10.2.0.0/16\n exit-address-family\n \
address-family ipv6 unicast\n  network fd02::/48\n  neighbor eth0 activate\n exit-address-family\n";

/// Their end of the link gets another link-local address.
fn readdress(space: &Namespace, old: &str, new: &str) {
    space.sh(&format!("ip -6 addr add {new}/64 dev eth0 nodad && ip -6 addr del {old}/64 dev eth0")).unwrap();
}

#[test]
fn frr_is_found_by_its_advertisements() {
    let pair = Pair::new("disc-frr");
    let _frr = pair.frr(FRR);
    let _ours =
        pair.caracal("ours", &pair.ours, 1, "  - { interface: eth0, asNumber: external, holdTime: 9 }\n");
    let (seen, took) = pair.up("ours", "eth0");
    eprintln!("FRR: session after {took:?}");
    let (here, there) = (link_local(&pair.ours, "eth0"), link_local(&pair.theirs, "eth0"));
    assert_eq!((&seen["address"], &seen["remoteAs"]), (&there.as_str().into(), &65002.into()), "{seen:#}");
    assert_eq!(seen["discovery"]["by"], "router advertisements on eth0");
    assert_eq!(seen["discovery"]["interface"], "eth0");
    pair.routes(&pair.ours, "bird", &learned(2, &there));
    pair.routes(&pair.theirs, "bgp", &learned(1, &here));
    pair.pings();
    let text = pair.text(&["neighbor", "eth0"]);
    assert!(
        text.contains(&format!("by router advertisements on eth0, {there} on eth0, last heard")),
        "{text}"
    );
    assert!(pair.text(&["peers"]).contains(&format!("{there}%eth0")));

    // It gets another address, and later its link goes and comes.
    let moved = "fe80::2:2";
    readdress(&pair.theirs, &there, moved);
    let (_, took) = pair.until("ours", "eth0", "it moved", |n| n["address"] == moved);
    eprintln!("FRR: another address found after {took:?}");
    pair.up("ours", "eth0");
    pair.routes(&pair.ours, "bird", &learned(2, moved));
    pair.pings();
    pair.ours.set_down("eth0").unwrap();
    pair.routes(&pair.ours, "bird", &[]);
    pair.ours.set_up("eth0").unwrap();
    pair.up("ours", "eth0");
    pair.routes(&pair.ours, "bird", &learned(2, moved));
    pair.routes(&pair.theirs, "bgp", &learned(1, &link_local(&pair.ours, "eth0")));
    pair.pings();
}

/// Advertisements as a host sees them: nobody's default router, sent now and then, and to who asks from this link.
#[test]
fn who_asks_for_routers_is_answered_by_one_that_wants_no_traffic() {
    let pair = Pair::new("disc-ask");
    let _ours = pair.caracal("ours", &pair.ours, 1, "  - { interface: eth0, asNumber: external }\n");
    link_local(&pair.theirs, "eth0");
    let heard = pair.theirs.run(|| {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
        socket.bind_device(Some(b"eth0")).unwrap();
        let advertised = |within: Duration| {
            let end = Instant::now() + within;
            let mut buffer = [0; 256];
            while let Some(left) = end.checked_duration_since(Instant::now()).filter(|l| !l.is_zero()) {
                socket.set_read_timeout(Some(left)).unwrap();
                match (&socket).read(&mut buffer) {
                    Ok(length) if buffer[0] == 134 => return Some(buffer[..length].to_vec()),
                    _ => {}
                }
            }
            None
        };
        let all_routers: SocketAddr = "[ff02::2]:0".parse().unwrap();
        let ask = |hops| {
            socket.set_multicast_hops_v6(hops).unwrap();
            socket.send_to(&[133, 0, 0, 0, 0, 0, 0, 0], &all_routers.into()).unwrap();
        };
        // The burst of the beginning ends with a pause of at least two seconds.
        while advertised(Duration::from_secs(2)).is_some() {}
        ask(64);
        let from_afar = advertised(Duration::from_millis(700));
        ask(255);
        (from_afar, advertised(Duration::from_millis(700)))
    });
    let (from_afar, answer) = heard;
    assert_eq!(from_afar, None, "it came over a router");
    let answer = answer.unwrap_or_else(|| panic!("no answer\n{}", pair.lab.logs(40)));
    assert_eq!((answer.len(), answer[0], answer[1]), (16, 134, 0));
    assert_eq!(answer[4..], [0; 12], "router lifetime 0, nothing configured");
}

#[test]
fn two_of_ours_find_each_other_again_and_again() {
    let pair = Pair::new("disc-two");
    let neighbour = "  - { name: up, interface: eth0, asNumber: external, holdTime: 9, bfd: true }\n";
    let mut ours = pair.caracal("ours", &pair.ours, 1, neighbour);
    let waits = pair.until("ours", "up", "a cause", |n| n["cause"]["kind"] == "not-found").0;
    assert_eq!(waits["cause"]["text"], "no router advertises itself on eth0");
    assert!(pair.text(&["peers"]).contains("-%eth0"), "{}", pair.text(&["peers"]));
    let _theirs = pair.caracal("theirs", &pair.theirs, 2, neighbour);
    let (_, took) = pair.up("ours", "up");
    eprintln!("ours: session after {took:?}");
    let there = link_local(&pair.theirs, "eth0");
    pair.routes(&pair.ours, "bird", &learned(2, &there));
    pair.pings();

    // The file changes: what was found stays.
    let file = pair.lab.file("ours.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("bfd: true", "bfd: true, prefixLimit: { max: 50, action: warn }"))
        .unwrap();
    ours.signal(Signal::SIGHUP);
    let (seen, _) = pair.until("ours", "up", "the file", |n| n["settings"]["prefixLimit"] == 50);
    assert_eq!((&seen["state"], &seen["counters"]["flaps"]), (&"Established".into(), &0.into()));

    // Killed and started again: found again before anybody's route is gone.
    let watches = [RouteWatch::start(&pair.ours).unwrap(), RouteWatch::start(&pair.theirs).unwrap()];
    ours.kill();
    ours.start().unwrap();
    pair.up("ours", "up");
    pair.up("theirs", "up");
    pair.pings();
    std::thread::sleep(Duration::from_secs(2));
    for watch in watches {
        let gone: Vec<_> = watch.take().into_iter().filter(|c| c.gone && c.route.proto == 12).collect();
        assert!(gone.is_empty(), "{gone:?}\n{}", pair.lab.logs(60));
    }

    // Another address: BFD misses the old one at once.
    let moved = "fe80::2:2";
    readdress(&pair.theirs, &there, moved);
    let (_, took) = pair.until("ours", "up", "it moved", |n| n["address"] == moved);
    eprintln!("ours: another address found after {took:?}");
    pair.up("ours", "up");
    pair.up("theirs", "up");
    pair.routes(&pair.ours, "bird", &learned(2, moved));

    // Down and up: the session ends with the link, not with the hold time.
    pair.ours.set_down("eth0").unwrap();
    let (_, took) = pair.until("ours", "up", "the link is down", |n| n["state"] != "Established");
    assert!(took < Duration::from_secs(2), "{took:?}");
    pair.routes(&pair.ours, "bird", &[]);
    pair.ours.set_up("eth0").unwrap();
    pair.up("ours", "up");
    pair.pings();

    // Gone and made anew, with other addresses at both ends.
    pair.ours.sh("ip link del eth0").unwrap();
    let gone = pair.until("ours", "up", "the link is gone", |n| n["state"] != "Established").0;
    assert_eq!(gone["discovery"]["interface"], "eth0");
    pair.ours.wire("eth0", &pair.theirs, "eth0", None).unwrap();
    pair.up("ours", "up");
    pair.routes(&pair.ours, "bird", &learned(2, &link_local(&pair.theirs, "eth0")));
    pair.pings();
    assert!(!ours.log().contains("panicked"), "{}", ours.log());
}

#[test]
fn an_external_peer_of_our_own_as_is_told_so() {
    let pair = Pair::new("disc-as");
    let neighbour = |asn: &str| format!("  - {{ interface: eth0, asNumber: {asn}, localAsNumber: 65007 }}\n");
    let ours = pair.caracal("ours", &pair.ours, 1, &neighbour("external"));
    let theirs = pair.caracal("theirs", &pair.theirs, 2, &neighbour("65007"));
    let seen = pair.until("ours", "eth0", "a cause", |n| n["cause"]["kind"] == "wrong-as").0;
    let text = seen["cause"]["text"].as_str().unwrap();
    assert!(text.contains("AS 65007, which is ours here"), "{text}");
    drop(theirs);
    let _theirs = pair.caracal("theirs", &pair.theirs, 2, &neighbour("internal"));
    // One side still wants an external one.
    std::thread::sleep(Duration::from_secs(1));
    assert_ne!(pair.until("ours", "eth0", "", |_| true).0["state"], "Established");
    drop(ours);
    let _ours = pair.caracal("ours", &pair.ours, 1, &neighbour("internal"));
    let up = pair.up("ours", "eth0").0;
    assert_eq!((&up["internal"], &up["remoteAs"]), (&true.into(), &65007.into()));
}

/// ```text
///   ours eth0 10.99.0.1 --- LAN --- eth0 10.99.0.2, .3, .4: BIRD, AS 65002, 65003, 65004, each with 10.N.0.0/16
/// ```
#[test]
fn the_default_gateway_is_followed() {
    let mut pair = Pair::new("disc-gw");
    let lan = pair.lab.host("lan").unwrap();
    lan.bridge("br0").unwrap();
    pair.ours.sh("ip link del eth0").unwrap();
    lan.wire("p1", &pair.ours, "eth0", Some("br0")).unwrap();
    pair.ours.address("eth0", "10.99.0.1/24".parse().unwrap()).unwrap();
    let mut birds = Vec::new();
    for n in [2, 3, 4] {
        let space = pair.lab.host(&format!("g{n}")).unwrap();
        lan.wire(&format!("p{n}"), &space, "eth0", Some("br0")).unwrap();
        space.address("eth0", format!("10.99.0.{n}/24").parse().unwrap()).unwrap();
        let conf = pair.file(
            &format!("bird{n}.conf"),
            &format!(
                "router id 10.99.0.{n};\nprotocol device {{ }}\nprotocol static {{ ipv4; route 10.{n}.0.0/16 \
                 blackhole; }}\nprotocol bgp p {{ local 10.99.0.{n} as 6500{n}; neighbor 10.99.0.1 as 65001;\n\
                 connect delay time 1; connect retry time 1; error wait time 1, 2; hold time 9;\n\
                 ipv4 {{ import all; export all; }}; }}\n"
            ),
        );
        let socket = pair.lab.file(&format!("bird{n}.ctl"));
        let argv = ["bird", "-f", "-c", &conf, "-s", socket.to_str().unwrap()];
        let mut bird = Process::new(&format!("bird{n}"), &space, pair.lab.dir(), &argv);
        bird.start().unwrap();
        birds.push(bird);
    }
    let ours = "  - { defaultGateway: ipv4, asNumber: external, holdTime: 9, connectRetry: 1 }\n  \
                - { name: fixed, address: 10.99.0.4, asNumber: 65004, holdTime: 9 }\n";
    let _ours = pair.caracal("ours", &pair.ours, 1, ours);
    let gateway = "gateway-ipv4";
    let route = |line: &str| drop(pair.ours.sh(&format!("ip route {line}")).unwrap());
    let at = |n: u8| {
        let address = format!("10.99.0.{n}");
        let is = |v: &Value| v["state"] == "Established" && v["address"] == address.as_str();
        let (seen, took) = pair.until("ours", gateway, &address, is);
        pair.routes(&pair.ours, "bird", &[n, 4].map(|n| format!("10.{n}.0.0/16 via 10.99.0.{n} dev eth0")));
        (seen, took)
    };
    let flaps = || pair.until("ours", gateway, "", |_| true).0["counters"]["flaps"].as_u64().unwrap();

    pair.up("ours", "fixed");
    let waits = pair.until("ours", gateway, "a cause", |n| n["cause"]["kind"] == "not-found").0;
    assert_eq!(waits["cause"]["text"], "no IPv4 default route");
    assert!(waits["cause"]["fix"].as_str().unwrap().starts_with("ip -4 route add default via"), "{waits:#}");
    assert!(pair.text(&["summary"]).contains("no IPv4 default route"));
    route("add default dev eth0");
    let waits = pair.until("ours", gateway, "a cause", |n| n["cause"]["kind"] == "not-found").0;
    assert_eq!(waits["cause"]["text"], "the IPv4 default route leads to eth0 and has no gateway");
    route("del default");

    route("add default via 10.99.0.2 metric 50");
    let (seen, took) = at(2);
    eprintln!("gateway: session after {took:?}");
    assert_eq!(seen["discovery"]["by"], "the IPv4 default route");
    assert_eq!(seen["remoteAs"], 65002);
    // A better one, the former one again, and several of one metric: the lowest address.
    route("add default via 10.99.0.3 metric 7");
    let (_, took) = at(3);
    eprintln!("gateway: another one after {took:?}");
    route("replace default via 10.99.0.2 metric 7");
    at(2);
    route("replace default metric 7 nexthop via 10.99.0.3 nexthop via 10.99.0.2");
    let (seen, _) = pair.until("ours", gateway, "two", |n| n["discovery"]["others"][0] == "10.99.0.3");
    assert_eq!((&seen["state"], &seen["address"]), (&"Established".into(), &"10.99.0.2".into()));
    assert!(pair.text(&["neighbor", gateway]).contains("not taken: 10.99.0.3"));

    // Away for a moment, as DHCP clients do it; away for good: the session decides.
    let before = flaps();
    route("del default metric 7");
    route("del default metric 50");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!((flaps(), at(2).0["cause"].is_null()), (before, true));
    birds[0].kill();
    let waits = pair.until("ours", gateway, "a cause", |n| n["cause"]["kind"] == "not-found").0;
    assert_eq!(waits["cause"]["text"], "no IPv4 default route");
    route("add default via 10.99.0.3");
    at(3);
    let fixed = pair.until("ours", "fixed", "", |_| true).0;
    assert_eq!((&fixed["state"], &fixed["counters"]["flaps"]), (&"Established".into(), &0.into()));
}

#[test]
fn a_link_local_gateway_has_its_link() {
    let pair = Pair::new("disc-gw6");
    let (here, there) = (link_local(&pair.ours, "eth0"), link_local(&pair.theirs, "eth0"));
    let theirs = format!("  - {{ address: '{here}', interface: eth0, asNumber: 65001 }}\n");
    let _theirs = pair.caracal("theirs", &pair.theirs, 2, &theirs);
    let _ours = pair.caracal("ours", &pair.ours, 1, "  - { defaultGateway: ipv6, asNumber: 65002 }\n");
    let waits = pair.until("ours", "gateway-ipv6", "a cause", |n| n["cause"]["kind"] == "not-found").0;
    assert_eq!(waits["cause"]["text"], "no IPv6 default route");
    pair.ours.sh(&format!("ip -6 route add default via {there} dev eth0")).unwrap();
    let (seen, _) = pair.up("ours", "gateway-ipv6");
    assert_eq!(seen["discovery"]["interface"], "eth0");
    pair.routes(&pair.ours, "bird", &learned(2, &there)[1..]);
}

/// In a cluster: the router is every node's default gateway, and node1, which has no IPv6 address, has an unnumbered uplink
/// besides, from which it is called.
#[test]
fn annotations_find_the_gateway_and_an_unnumbered_uplink() -> anyhow::Result<()> {
    let options =
        Options { store: StoreKind::Etcd, router: RouterKind::Bird, split: false, binary: binary()? };
    let mut picture = Picture::new("disc-node", &options)?;
    picture.seed()?;
    let (key, mut peer) = seed::bgp_peer("tor", ROUTER.into(), ROUTER_AS);
    peer["metadata"]["annotations"] = json!({ "caracal.io/default-gateway": "ipv4" });
    peer["spec"] = json!({ "asNumber": ROUTER_AS });
    let (up_key, mut up_peer) = seed::bgp_peer("up", ROUTER.into(), ROUTER_AS);
    up_peer["metadata"]["annotations"] = json!({ "caracal.io/interface": "up0", "caracal.io/remote-as": "external", "caracal.io/passive": "on" });
    up_peer["spec"] = json!({ "node": "node1", "peerSelector": "!all()" });
    picture.store.put(&[(key, peer), (up_key, up_peer)])?;
    for node in &picture.nodes {
        node.space.default_route(ROUTER)?;
    }
    let up = picture.lab.host("up")?;
    picture.nodes[0].space.wire("up0", &up, "eth0", None)?;
    let file = picture.lab.file("up.yaml");
    let yaml =
        "routerId: 192.0.2.9\nasNumber: 65010\nneighbours: [{ interface: eth0, asNumber: external }]\n";
    std::fs::write(&file, yaml)?;
    let program = binary()?;
    let argv = [program.to_str().unwrap(), "bird", "--config", file.to_str().unwrap()];
    let mut router = Process::new("up", &up, picture.lab.dir(), &argv);
    router.start()?;
    picture.start_agents()?;
    picture.converged(SOON)?;
    let from = link_local(&picture.nodes[0].space, "up0");
    let wanted = format!("{} via inet6 {from} dev eth0 proto bird", NODES[0].2);
    eventually(SOON, || {
        let have = routes(&up).map_err(|e| e.to_string())?;
        if have.iter().any(|l| l.starts_with(&wanted)) {
            Ok(())
        } else {
            Err(format!("no {wanted}: {have:?}"))
        }
    })
    .with_context(|| picture.lab.logs(40))?;
    for node in &picture.nodes {
        let log = node.agents["node"].log();
        assert!(log.contains("session established peer=Global_gateway_ipv4"), "{log}");
        assert_eq!(
            log.contains("session established peer=Node_interface_up0"),
            node.name == "node1",
            "{log}"
        );
    }
    Ok(())
}

/// Router advertisements from addresses that nobody has, as a host on the link can forge them.
mod storm {
    use std::net::Ipv6Addr;
    use std::time::{Duration, Instant};

    use integration::lab::Namespace;
    use socket2::{Domain, Protocol, Socket, Type};

    /// IPv6 header and an advertisement with a router lifetime of half an hour.
    fn packet(from: Ipv6Addr, hop_limit: u8) -> Vec<u8> {
        let to: Ipv6Addr = "ff02::1".parse().unwrap();
        let mut icmp = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        let pseudo = [from.octets(), to.octets()].concat();
        let words =
            pseudo.chunks(2).chain(icmp.chunks(2)).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]])));
        let sum = words.sum::<u32>() + 58 + u32::try_from(icmp.len()).unwrap();
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
        icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
        let mut bytes = vec![0x60, 0, 0, 0, 0, 16, 58, hop_limit];
        bytes.extend(pseudo);
        bytes.extend(icmp);
        bytes
    }

    /// Sends for so long, as fast as it goes; returns how many.
    pub(super) fn forge(space: &Namespace, link: &str, hop_limit: u8, lasting: Duration) -> u64 {
        let link = link.to_owned();
        space.run(move || {
            let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::from(255))).unwrap();
            socket.bind_device(Some(link.as_bytes())).unwrap();
            let to: std::net::SocketAddr = "[ff02::1]:0".parse().unwrap();
            let (end, mut sent) = (Instant::now() + lasting, 0u64);
            while Instant::now() < end {
                // Few enough for the kernel's table of neighbours, which all namespaces share.
                let low = u16::try_from(sent % 60).unwrap();
                let from = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xbad, low);
                sent += u64::from(socket.send_to(&packet(from, hop_limit), &to.into()).is_ok());
            }
            sent
        })
    }
}

/// Processor time of all threads of a process, and of the one with this name.
fn cpu(pid: i32, thread: &str) -> (Duration, Duration) {
    let (mut all, mut one) = (Duration::ZERO, Duration::ZERO);
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let dir = task.unwrap().path();
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        let nanos = read("schedstat").split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
        all += Duration::from_nanos(nanos);
        if read("comm").trim() == thread {
            one += Duration::from_nanos(nanos);
        }
    }
    (all, one)
}

#[test]
fn a_forged_neighbour_gives_way_to_the_real_one() {
    let pair = Pair::new("disc-forged");
    let neighbour = "  - { interface: eth0, asNumber: external, holdTime: 9 }\n";
    let _ours = pair.caracal("ours", &pair.ours, 1, neighbour);
    let real = [&pair.ours, &pair.theirs].map(|space| link_local(space, "eth0"));
    pair.until("ours", "eth0", "it listens", |n| n["cause"]["text"] == "no router advertises itself on eth0");
    assert!(storm::forge(&pair.theirs, "eth0", 255, Duration::from_millis(300)) > 0);
    let taken = pair.until("ours", "eth0", "a forged one", |n| !n["discovery"]["address"].is_null()).0;
    assert!(taken["address"].as_str().unwrap().starts_with("fe80::bad:"), "{taken:#}");
    let _theirs = pair.caracal("theirs", &pair.theirs, 2, neighbour);
    let (_, took) = pair.up("ours", "eth0");
    eprintln!("the real neighbour has its session after {took:?}");
    pair.routes(&pair.ours, "bird", &learned(2, &real[1]));
}

/// Switches often have one link-local address on all their ports.
#[test]
fn neighbours_on_two_links_may_have_one_address() {
    let pair = Pair::new("disc-same");
    pair.ours.wire("eth1", &pair.theirs, "eth1", None).unwrap();
    for link in ["eth0", "eth1"] {
        let old = link_local(&pair.theirs, link);
        pair.theirs
            .sh(&format!("ip -6 addr add fe80::2/64 dev {link} nodad && ip -6 addr del {old}/64 dev {link}"))
            .unwrap();
    }
    let neighbours = "  - { interface: eth0, asNumber: external, holdTime: 9, password: one, bfd: true }\n  \
                      - { interface: eth1, asNumber: external, holdTime: 9, password: one, ttlSecurity: 1 }\n";
    let _theirs = pair.caracal("theirs", &pair.theirs, 2, neighbours);
    let _ours = pair.caracal("ours", &pair.ours, 1, neighbours);
    for link in ["eth0", "eth1"] {
        let up = pair.up("ours", link).0;
        assert_eq!((&up["address"], &up["discovery"]["interface"]), (&"fe80::2".into(), &link.into()));
        pair.up("theirs", link);
    }
    let both = |family: &str, prefix: &str, links: &[&str]| {
        let check = || {
            let text =
                pair.ours.sh(&format!("ip {family} route show {prefix}")).map_err(|e| e.to_string())?;
            let has = |link: &&str| text.contains(&format!("fe80::2 dev {link}"));
            if links.iter().all(has) && text.matches("fe80::2").count() == links.len() {
                Ok(())
            } else {
                Err(text)
            }
        };
        eventually(SOON, check).unwrap_or_else(|err| panic!("{err}\n{}", pair.lab.logs(60)));
    };
    for (family, prefix) in [("-4", "10.2.0.0/16"), ("-6", "fd02::/48")] {
        both(family, prefix, &["eth0", "eth1"]);
    }
    pair.pings();
    pair.ours.set_down("eth0").unwrap();
    for (family, prefix) in [("-4", "10.2.0.0/16"), ("-6", "fd02::/48")] {
        both(family, prefix, &["eth1"]);
    }
    assert_eq!(pair.until("ours", "eth1", "", |_| true).0["counters"]["flaps"], 0);
    pair.pings();
}

#[test]
fn what_keeps_advertisements_back_is_said() {
    let pair = Pair::new("disc-why");
    let neighbour =
        "  - { interface: eth0, asNumber: external }\n  - { interface: eth7, asNumber: external }\n";
    pair.ours.sysctl("net/ipv6/conf/eth0/disable_ipv6", "1");
    let mut ours = pair.caracal("ours", &pair.ours, 1, neighbour);
    let why = |peer: &str, said: &str| {
        let is = |n: &Value| n["cause"]["text"].as_str().is_some_and(|t| t.contains(said));
        let seen = pair.until("ours", peer, said, is).0;
        assert!(!seen["cause"]["fix"].as_str().unwrap().is_empty());
    };
    why("eth7", "this host has no interface eth7");
    why("eth0", "eth0 has no link-local IPv6 address");
    pair.ours.sysctl("net/ipv6/conf/eth0/disable_ipv6", "0");
    why("eth0", "no router advertises itself on eth0");
    pair.ours.set_down("eth0").unwrap();
    why("eth0", "interface eth0 is down");
    pair.ours.set_up("eth0").unwrap();
    ours.kill();
    ours.under(&["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw"]);
    ours.start().unwrap();
    why("eth0", "CAP_NET_RAW");
}

#[test]
fn a_storm_of_forged_advertisements_changes_nothing() {
    let pair = Pair::new("disc-storm");
    let neighbour = "  - { interface: eth0, asNumber: external, holdTime: 9 }\n";
    let mut ours = pair.caracal("ours", &pair.ours, 1, neighbour);
    let _theirs = pair.caracal("theirs", &pair.theirs, 2, neighbour);
    pair.up("ours", "eth0");
    let there = link_local(&pair.theirs, "eth0");
    pair.routes(&pair.ours, "bird", &learned(2, &there));

    let pid = ours.pid().unwrap();
    let before = cpu(pid, "bird-radv");
    let lasting = Duration::from_secs(4);
    let sent = storm::forge(&pair.theirs, "eth0", 255, lasting);
    let after = cpu(pid, "bird-radv");
    let (all, one) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
    eprintln!(
        "{sent} forged in {lasting:?}: {all:?} of processor time, {one:?} of it the thread that hears them"
    );
    assert!(sent > 20_000, "{sent} is no storm");
    assert!(all < lasting / 10, "{all:?} for {sent} packets");
    let seen = pair.until("ours", "eth0", "", |_| true).0;
    assert_eq!((&seen["state"], &seen["address"]), (&"Established".into(), &there.as_str().into()));
    assert_eq!(seen["counters"]["flaps"], 0);
    assert_eq!(seen["discovery"]["others"].as_array().unwrap().len(), 1, "{seen:#}");
    assert_eq!(ours.log().matches("another router").count(), 1, "{}", ours.log());
    pair.routes(&pair.ours, "bird", &learned(2, &there));

    // From further away they do not even wake the thread.
    std::thread::sleep(Duration::from_secs(1));
    let before = cpu(pid, "bird-radv").1;
    storm::forge(&pair.theirs, "eth0", 254, Duration::from_secs(1));
    let one = cpu(pid, "bird-radv").1.saturating_sub(before);
    assert!(one < Duration::from_millis(5), "{one:?}");
}
