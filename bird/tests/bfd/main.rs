//! Sessions that BFD watches: two of ours, and ours with BIRD and with FRR. What is between them stops forwarding without
//! a word, so that no link goes down; with a hold time of 90 s only BFD can notice.
//!
//! ```text
//!   left 10.99.0.1, fd99::1 ---- bridge m ---- 10.99.0.2, fd99::2 right           on one link
//!   left 10.91.0.1, fd91::1 ---- router m ---- 10.92.0.2, fd92::2 right           multihop
//!   AS 65001, 10.1.0.0/16, fd01::/48            AS 65002, 10.2.0.0/16, fd02::/48
//! ```
#![allow(clippy::unwrap_used, reason = "a test that cannot set up has failed")]

#[path = "../common/mod.rs"]
mod common;
mod strict;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{changes, router, watch};
use integration::lab::{Lab, Namespace, Process, eventually};
use integration::router::frr_daemon;

const SOON: Duration = Duration::from_secs(20);
/// 3 x 100 ms, and what a busy machine takes to act on it.
const AT_ONCE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Link,
    Routed,
}

/// Addresses of the two ends.
struct Ends {
    left: [&'static str; 2],
    right: [&'static str; 2],
}

impl Shape {
    fn ends(self) -> Ends {
        match self {
            Shape::Link => Ends { left: ["10.99.0.1", "fd99::1"], right: ["10.99.0.2", "fd99::2"] },
            Shape::Routed => Ends { left: ["10.91.0.1", "fd91::1"], right: ["10.92.0.2", "fd92::2"] },
        }
    }
}

struct Line {
    lab: Lab,
    shape: Shape,
    left: Namespace,
    mid: Namespace,
    right: Namespace,
}

impl Line {
    fn new(name: &str, shape: Shape) -> Self {
        let mut lab = Lab::new(name).unwrap();
        let [left, mid, right] = ["l", "m", "r"].map(|host| lab.host(host).unwrap());
        let master = (shape == Shape::Link).then_some("br0");
        if shape == Shape::Link {
            mid.bridge("br0").unwrap();
        }
        mid.wire("pl", &left, "eth0", master).unwrap();
        mid.wire("pr", &right, "eth0", master).unwrap();
        let address = |space: &Namespace, dev: &str, text: &str| {
            let length = if text.contains(':') { 64 } else { 24 };
            space.address(dev, format!("{text}/{length}").parse().unwrap()).unwrap();
        };
        let ends = shape.ends();
        ends.left.iter().for_each(|a| address(&left, "eth0", a));
        ends.right.iter().for_each(|a| address(&right, "eth0", a));
        if shape == Shape::Routed {
            for (dev, a) in
                [("pl", "10.91.0.254"), ("pl", "fd91::fe"), ("pr", "10.92.0.254"), ("pr", "fd92::fe")]
            {
                address(&mid, dev, a);
            }
            mid.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1").unwrap();
            left.sh("ip route add 10.92.0.0/24 via 10.91.0.254; ip -6 route add fd92::/64 via fd91::fe")
                .unwrap();
            right
                .sh("ip route add 10.91.0.0/24 via 10.92.0.254; ip -6 route add fd91::/64 via fd92::fe")
                .unwrap();
        }
        Self { lab, shape, left, mid, right }
    }

    /// Stops everything in the middle; no end sees a link go down.
    fn cut(&self) -> Instant {
        let line = match self.shape {
            Shape::Link => "ip link set pr nomaster",
            Shape::Routed => "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0",
        };
        let now = Instant::now();
        self.mid.sh(line).unwrap();
        now
    }

    fn mend(&self) {
        let line = match self.shape {
            Shape::Link => "ip link set pr master br0",
            Shape::Routed => "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
        };
        self.mid.sh(line).unwrap();
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.lab.file(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn start(&self, name: &str, space: &Namespace, argv: &[&str]) -> Process {
        let mut process = Process::new(name, space, self.lab.dir(), argv);
        process.start().unwrap();
        process
    }

    /// One of ours; `more` goes into both neighbours.
    fn ours(&self, left: bool, more: &str) -> Process {
        let ends = self.shape.ends();
        let (name, space, far, n, other) = if left {
            ("left", &self.left, ends.right, 1, 2)
        } else {
            ("right", &self.right, ends.left, 2, 1)
        };
        let multihop = self.shape == Shape::Routed;
        let [v4, v6] = far;
        let text = format!(
            "routerId: 10.99.0.{n}\nasNumber: 6500{n}\n\
             groups: {{ all: {{ asNumber: 6500{other}, holdTime: 90, \
             bfd: {{ minTx: 100ms, minRx: 100ms, multihop: {multihop} }}{more} }} }}\n\
             neighbours:\n\
             \x20 - {{ address: {v4}, group: all, families: [ipv4] }}\n\
             \x20 - {{ address: '{v6}', group: all, families: [ipv6] }}\n\
             static: [{{ prefix: 10.{n}.0.0/16, blackhole: true }}, {{ prefix: 'fd0{n}::/48', blackhole: true }}]\n\
             api: {{ socket: {} }}\n",
            self.lab.file(&format!("{name}.sock")).display()
        );
        let file = self.file(&format!("{name}.yaml"), &text);
        self.start(name, space, &[router().to_str().unwrap(), &file])
    }

    fn bird(&self, more: &str) -> Process {
        let Ends { left, right } = self.shape.ends();
        let how = if self.shape == Shape::Routed { "multihop" } else { "direct" };
        let timers = "{ interval 100 ms; multiplier 3; }";
        // After a BFD failure BIRD stays away for a minute unless it is told otherwise.
        let timers_bgp = "hold time 90; error wait time 1, 1; connect delay time 1;";
        let conf = format!(
            "router id 10.99.0.2; log stderr all;
            protocol device {{ scan time 1; }}
            protocol direct {{ ipv4; ipv6; }}
            protocol kernel {{ ipv4 {{ export where source = RTS_BGP; }}; learn; }}
            protocol kernel {{ ipv6 {{ export where source = RTS_BGP; }}; learn; }}
            protocol static {{ ipv4; route 10.2.0.0/16 blackhole; }}
            protocol static {{ ipv6; route fd02::/48 blackhole; }}
            protocol bfd {{ interface \"*\" {timers}; multihop {timers}; }}
            protocol bgp four {{ local {} as 65002; neighbor {} as 65001; {how}; {timers_bgp} {more}
                ipv4 {{ import all; export where source = RTS_STATIC; }}; }}
            protocol bgp six {{ local {} as 65002; neighbor {} as 65001; {how}; {timers_bgp} {more}
                ipv6 {{ import all; export where source = RTS_STATIC; }}; }}",
            right[0], left[0], right[1], left[1]
        );
        let conf = self.file("bird.conf", &conf);
        let socket = self.lab.file("bird.ctl");
        self.start("bird", &self.right, &["bird", "-f", "-c", &conf, "-s", socket.to_str().unwrap()])
    }

    fn frr(&self) -> Vec<Process> {
        let ends = self.shape.ends();
        let mut text = String::from(
            "log stdout\nrouter bgp 65002\n bgp router-id 10.99.0.2\n no bgp ebgp-requires-policy\n \
             no bgp network import-check\n no bgp default ipv4-unicast\n timers bgp 30 90\n",
        );
        for (near, far) in ends.right.iter().zip(ends.left) {
            let _ = write!(text, " neighbor {far} remote-as 65001\n neighbor {far} bfd 3 100 100\n");
            if self.shape == Shape::Routed {
                let _ =
                    write!(text, " neighbor {far} ebgp-multihop 8\n neighbor {far} update-source {near}\n");
            }
        }
        let [v4, v6] = ends.left;
        let _ = write!(
            text,
            " address-family ipv4 unicast\n  network 10.2.0.0/16\n  neighbor {v4} activate\n exit-address-family\n \
             address-family ipv6 unicast\n  network fd02::/48\n  neighbor {v6} activate\n exit-address-family\n"
        );
        let conf = self.file("frr.conf", &text);
        let dir = self.lab.dir().to_str().unwrap();
        // FRR gives up its rights and is the user frr, which must reach these.
        self.right.sh(&format!("chown frr {dir} && chmod 755 {dir} && chmod 644 {conf}")).unwrap();
        let mut all = Vec::new();
        for daemon in ["zebra", "bfdd", "bgpd"] {
            let logs = self.lab.dir();
            let mut process = frr_daemon(daemon, daemon, &self.right, logs, logs, Path::new(&conf));
            process.start().unwrap();
            all.push(process);
            let vty = format!("{dir}/{daemon}.vty");
            eventually(SOON, || if Path::new(&vty).exists() { Ok(()) } else { Err(format!("no {vty}")) })
                .unwrap();
        }
        all
    }

    /// Waits until both ends have, or have not, each other's routes of both families. How long it took.
    #[track_caller]
    fn routes(&self, wanted: bool, limit: Duration) -> Duration {
        let start = Instant::now();
        let result = eventually(limit, || {
            for (space, prefix) in [
                (&self.left, "10.2.0.0/16"),
                (&self.left, "fd02::/48"),
                (&self.right, "10.1.0.0/16"),
                (&self.right, "fd01::/48"),
            ] {
                if learned(space, prefix) != wanted {
                    return Err(format!("{} {prefix}: {}", space.name(), !wanted));
                }
            }
            Ok(())
        });
        result.unwrap_or_else(|err| panic!("{err}\n{}", self.lab.logs(80)));
        start.elapsed()
    }

    /// What the left one answers about its neighbour.
    fn neighbor(&self, which: usize) -> serde_json::Value {
        self.ask(&format!(r#"{{"get":"neighbor","peer":"{}"}}"#, self.shape.ends().right[which])).remove(0)
    }

    /// Whether BFD is up, in the list of the left one's peers.
    fn bfd_in_list(&self) -> Vec<Option<bool>> {
        let lines = self.ask(r#"{"get":"peers"}"#);
        let peers = lines.iter().filter_map(|line| line.get("peer"));
        peers.map(|peer| peer.get("bfdUp").and_then(serde_json::Value::as_bool)).collect()
    }

    fn ask(&self, request: &str) -> Vec<serde_json::Value> {
        // A daemon that has just begun has the file of its socket a moment before it listens.
        let begun = Instant::now();
        let mut stream = loop {
            match UnixStream::connect(self.lab.file("left.sock")) {
                Err(_) if begun.elapsed() < SOON => std::thread::sleep(Duration::from_millis(20)),
                outcome => break outcome.unwrap(),
            }
        };
        writeln!(stream, "{request}").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        BufReader::new(stream).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
    }

    #[track_caller]
    fn says(&self, process: &Process, what: &str, times: usize) {
        let result = eventually(SOON, || {
            let count = process.log().matches(what).count();
            if count >= times { Ok(()) } else { Err(format!("`{what}` is said {count} times")) }
        });
        result.unwrap_or_else(|err| panic!("{err}\n{}", self.lab.logs(80)));
    }
}

/// Whether a route that points somewhere is in the kernel; a blackhole of one's own is none.
fn learned(space: &Namespace, prefix: &str) -> bool {
    let family = if prefix.contains(':') { "-6" } else { "-4" };
    let text = space.sh(&format!("ip {family} route show {prefix}")).unwrap();
    text.contains(" via ") || text.contains(" nhid ")
}

fn have(program: &str) -> bool {
    let found = Path::new(program).exists();
    assert!(found || std::env::var_os("CI").is_none(), "{program} is missing");
    found
}

/// Up, cut, gone at both ends at once, mended, back; twice.
fn cut_and_mend(line: &Line, left: &Process) {
    line.routes(true, SOON);
    line.says(left, "BFD is up", 2);
    for round in 1..=2 {
        // The far end counts its own packets: let it see some.
        std::thread::sleep(Duration::from_millis(1_500));
        for which in 0..2 {
            let seen = line.neighbor(which);
            let bfd = &seen["neighbor"]["bfd"];
            assert_eq!(bfd["state"], "up", "{seen}");
            assert_eq!(bfd["detectionMs"], 300.0, "{seen}");
            assert_eq!(bfd["multihop"], line.shape == Shape::Routed, "{seen}");
        }
        let cut = line.cut();
        line.routes(false, SOON);
        let took = cut.elapsed();
        eprintln!("round {round}: routes gone at both ends after {took:?}");
        assert!(took < AT_ONCE, "{took:?}\n{}", line.lab.logs(80));
        line.says(left, "BFD says that the peer is down", 2 * round);
        line.mend();
        let took = line.routes(true, SOON);
        eprintln!("round {round}: back after {took:?}");
        line.says(left, "BFD is up", 2 * (round + 1));
    }
}

#[test]
fn two_of_ours_notice_a_silent_link() {
    for (name, shape) in [("bf1", Shape::Link), ("bf2", Shape::Routed)] {
        let line = Line::new(name, shape);
        let left = line.ours(true, "");
        let _right = line.ours(false, "");
        cut_and_mend(&line, &left);
    }
}

#[test]
fn bird_and_we_notice_a_silent_link() {
    if !have("/usr/sbin/bird") {
        return;
    }
    for (name, shape) in [("bf3", Shape::Link), ("bf4", Shape::Routed)] {
        let line = Line::new(name, shape);
        let left = line.ours(true, "");
        let _right = line.bird("bfd on;");
        cut_and_mend(&line, &left);
    }
}

#[test]
fn frr_and_we_notice_a_silent_link() {
    if !have("/usr/lib/frr/bfdd") {
        return;
    }
    for (name, shape) in [("bf5", Shape::Link), ("bf6", Shape::Routed)] {
        let line = Line::new(name, shape);
        let left = line.ours(true, "");
        let _right = line.frr();
        cut_and_mend(&line, &left);
    }
}

/// B1 of the faults, at the default 300 ms x 3: a peer that dies without a word is gone after the detection time. The left one
/// has not heard of its neighbour before it calls.
#[test]
fn b1_a_dynamic_neighbour_that_dies_silently_is_gone_after_the_detection_time() {
    let line = Line::new("bf13", Shape::Link);
    let file = line.file(
        "left.yaml",
        "routerId: 10.99.0.1\nasNumber: 65001\n\
         listenRanges:\n\
         \x20 - { range: 10.99.0.0/24, asNumber: 65002, holdTime: 90, bfd: true }\n\
         \x20 - { range: 'fd99::/64', asNumber: 65002, holdTime: 90, bfd: true, families: [ipv6] }\n\
         static: [{ prefix: 10.1.0.0/16, blackhole: true }, { prefix: 'fd01::/48', blackhole: true }]\n",
    );
    let left = line.start("left", &line.left, &[router().to_str().unwrap(), &file]);
    drop(line.ours(false, ""));
    let text = std::fs::read_to_string(line.lab.file("right.yaml")).unwrap();
    let default = text.replace("{ minTx: 100ms, minRx: 100ms, multihop: false }", "true");
    assert_ne!(default, text);
    let file = line.file("right.yaml", &default);
    let _right = line.start("right", &line.right, &[router().to_str().unwrap(), &file]);
    line.routes(true, SOON);
    line.says(&left, "BFD is up", 2);
    std::thread::sleep(Duration::from_secs(3));
    let cut = line.cut();
    line.routes(false, SOON);
    let took = cut.elapsed();
    // 900 ms at most, and 300 ms for a machine that runs other tests beside this one.
    assert!(took <= Duration::from_millis(1_200), "{took:?}\n{}", line.lab.logs(80));
    eprintln!("gone after {took:?}");
    line.mend();
    line.routes(true, SOON);
}

/// RFC 5882 §4.3: a restart is no failure. Planned or killed, quick or slow, the routes of the one that restarts stay, and
/// its new session is not ended by what BFD knows of the old one.
#[test]
fn a_restart_is_no_failure() {
    let line = Line::new("bf7", Shape::Link);
    let left = line.ours(true, "");
    let mut right = line.ours(false, "");
    line.routes(true, SOON);
    line.says(&left, "BFD is up", 2);
    let mut here = watch(&line.left);
    for (n, (kill, pause)) in [(false, 0), (true, 0), (true, 700), (false, 700)].into_iter().enumerate() {
        // Older than anything that BFD could still find out.
        std::thread::sleep(Duration::from_secs(2));
        let before = left.log().matches("session established").count();
        if kill {
            right.kill();
        } else {
            assert!(right.stop(), "SIGTERM must be enough");
        }
        std::thread::sleep(Duration::from_millis(pause));
        right.start().unwrap();
        line.says(&left, "session established", before + 2);
        line.says(&left, "BFD is up", 2 * (n + 2));
        assert_eq!(changes(&mut here), Vec::<String>::new(), "kill={kill} {pause}\n{}", line.lab.logs(80));
        let log = left.log();
        assert!(!log.contains("BFD says that the peer is down"), "kill={kill} {pause}\n{log}");
        line.routes(true, SOON);
    }
}

/// With `keepRoutes` a failure that a restart may explain ends the session and keeps the routes; a link that works again
/// finds them there.
#[test]
fn routes_may_be_kept_over_a_failure() {
    let line = Line::new("bf8", Shape::Link);
    let kept = "minTx: 100ms, minRx: 100ms";
    let yaml = |left: bool| line.ours(left, "");
    drop((yaml(true), yaml(false)));
    for name in ["left.yaml", "right.yaml"] {
        let text = std::fs::read_to_string(line.lab.file(name)).unwrap();
        assert!(text.contains(kept), "{text}");
        std::fs::write(line.lab.file(name), text.replace(kept, &format!("{kept}, keepRoutes: true")))
            .unwrap();
    }
    let file = |name: &str| line.lab.file(name).to_str().unwrap().to_owned();
    let router = router();
    let left = line.start("left", &line.left, &[router.to_str().unwrap(), &file("left.yaml")]);
    let _right = line.start("right", &line.right, &[router.to_str().unwrap(), &file("right.yaml")]);
    line.routes(true, SOON);
    line.says(&left, "BFD is up", 2);
    std::thread::sleep(Duration::from_millis(1_500));
    let mut here = watch(&line.left);
    line.cut();
    line.says(&left, "BFD says that the peer is down", 2);
    line.mend();
    line.says(&left, "BFD is up", 4);
    line.says(&left, "session established", 4);
    assert_eq!(changes(&mut here), Vec::<String>::new(), "{}", line.lab.logs(80));
}

/// A session across a link that has no addresses but link-local ones.
#[test]
fn a_link_local_peer_is_watched() {
    let line = Line::new("bf9", Shape::Link);
    let start = |name: &str, space: &Namespace, n: u8, far: &str| {
        let other = 3 - n;
        let text = format!(
            "routerId: 10.99.0.{n}\nasNumber: 6500{n}\n\
             neighbours: [{{ address: '{far}', interface: eth0, asNumber: 6500{other}, holdTime: 90, \
             families: [ipv4, ipv6], extendedNextHop: true, bfd: {{ minTx: 100ms, minRx: 100ms }} }}]\n\
             static: [{{ prefix: 10.{n}.0.0/16, blackhole: true }}, {{ prefix: 'fd0{n}::/48', blackhole: true }}]\n"
        );
        let file = line.file(&format!("{name}.yaml"), &text);
        line.start(name, space, &[router().to_str().unwrap(), &file])
    };
    for (space, address) in [(&line.left, "fe80::11/64"), (&line.right, "fe80::22/64")] {
        space.sh(&format!("ip addr flush dev eth0; ip addr add {address} dev eth0 nodad")).unwrap();
    }
    let left = start("left", &line.left, 1, "fe80::22");
    let _right = start("right", &line.right, 2, "fe80::11");
    line.routes(true, SOON);
    line.says(&left, "BFD is up", 1);
    std::thread::sleep(Duration::from_millis(1_500));
    let cut = line.cut();
    line.routes(false, SOON);
    assert!(cut.elapsed() < AT_ONCE, "{:?}\n{}", cut.elapsed(), line.lab.logs(80));
    line.mend();
    line.routes(true, SOON);
    line.says(&left, "BFD is up", 2);
    // The link is made anew: the same name, another index.
    line.left.sh("ip link del eth0").unwrap();
    line.routes(false, SOON);
    line.mid.wire("pl", &line.left, "eth0", Some("br0")).unwrap();
    line.left.sh("ip addr add fe80::11/64 dev eth0 nodad").unwrap();
    line.routes(true, SOON);
    line.says(&left, "BFD is up", 3);
}

/// Nobody waits for BFD, and nobody misses it who never had it.
#[test]
fn a_peer_without_bfd_keeps_its_session() {
    let line = Line::new("bf10", Shape::Link);
    let left = line.ours(true, "");
    drop(line.ours(false, ""));
    let text = std::fs::read_to_string(line.lab.file("right.yaml")).unwrap();
    let plain = text.replace("bfd: { minTx: 100ms, minRx: 100ms, multihop: false }", "bfd: false");
    assert_ne!(plain, text);
    let file = line.file("plain.yaml", &plain);
    let right = line.start("plain", &line.right, &[router().to_str().unwrap(), &file]);
    line.routes(true, SOON);
    std::thread::sleep(Duration::from_secs(3));
    line.routes(true, Duration::from_millis(100));
    assert_eq!(line.bfd_in_list(), [Some(false); 2], "it is configured here");
    assert!(!left.log().contains("BFD is down"), "{}", left.log());
    assert!(!right.log().contains("session lost"), "{}", right.log());
}

/// Our restart seen by others: AdminDown is no failure, and with GR agreed they keep our routes.
#[test]
fn others_keep_our_routes_over_a_planned_restart() {
    if !have("/usr/sbin/bird") || !have("/usr/lib/frr/bfdd") {
        return;
    }
    for (name, bird) in [("bf11", true), ("bf12", false)] {
        let line = Line::new(name, Shape::Link);
        let mut left = line.ours(true, "");
        let _right = if bird { vec![line.bird("bfd graceful; graceful restart on;")] } else { line.frr() };
        line.routes(true, SOON);
        line.says(&left, "BFD is up", 2);
        std::thread::sleep(Duration::from_secs(3));
        let mut there = watch(&line.right);
        let proto = if bird { "bird" } else { "bgp" };
        let watched = line.right.sh(&format!("ip route show 10.1.0.0/16 proto {proto}")).unwrap();
        assert!(watched.contains("10.1.0.0/16"), "the monitor looks for this protocol");
        assert!(left.stop());
        left.start().unwrap();
        line.says(&left, "restart complete", 1);
        line.says(&left, "BFD is up", 4);
        line.routes(true, SOON);
        assert_eq!(changes(&mut there), Vec::<String>::new(), "bird: {bird}\n{}", line.lab.logs(80));
    }
}
