//! What `caracal ctl bgp` says of a running speaker: routes with their reasons, and the one cause of a session that does
//! not come up.
//!
//! ```text
//!   ours eth0 10.99.0.1, AS 65001 ------- theirs eth0 10.99.0.2, AS 65002: BIRD, or a raw peer
//! ```
#![allow(clippy::unwrap_used, reason = "a test that cannot set up has failed")]

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::Duration;

use bird_packet::OpenMessage;
use integration::lab::{Lab, Namespace, Process, eventually};
use integration::picture::{Options, Picture, binary};
use integration::raw::{self, RawPeer};
use integration::router::RouterKind;
use integration::store::StoreKind;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(40);
const OURS: &str = "10.99.0.1:179";

struct Pair {
    lab: Lab,
    ours: Namespace,
    theirs: Namespace,
    speaker: Option<Process>,
}

impl Pair {
    fn new(name: &str) -> Self {
        let mut lab = Lab::new(name).unwrap();
        let (ours, theirs) = (lab.host("o").unwrap(), lab.host("t").unwrap());
        ours.wire("eth0", &theirs, "eth0", None).unwrap();
        ours.address("eth0", "10.99.0.1/24".parse().unwrap()).unwrap();
        theirs.address("eth0", "10.99.0.2/24".parse().unwrap()).unwrap();
        Self { lab, ours, theirs, speaker: None }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.lab.file(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn socket(&self) -> String {
        self.lab.file("bgp.sock").to_str().unwrap().to_owned()
    }

    /// Starts our speaker with one neighbour `n` and more of a router's file.
    fn speaker(&mut self, neighbour: &str, more: &str) {
        let yaml = format!(
            "routerId: 10.99.0.1\nasNumber: 65001\napi: {{ socket: {} }}\nneighbours:\n  - {{ name: n, {neighbour}, \
             connectRetry: 2 }}\n{more}",
            self.socket()
        );
        let file = self.file("ours.yaml", &yaml);
        let program = binary().unwrap();
        let argv = [program.to_str().unwrap(), "bird", "--config", &file];
        let mut process = Process::new("ours", &self.ours, self.lab.dir(), &argv);
        process.start().unwrap();
        self.speaker = Some(process);
    }

    /// Starts BIRD with one session `p` and more of its file.
    fn bird(&self, session: &str, more: &str) -> Process {
        let text = format!(
            "router id 10.99.0.2;\nprotocol device {{ }}\n{more}\nprotocol bgp p {{ {session}\n connect retry time 2; \
             connect delay time 1; error wait time 1, 2;\n ipv4 {{ import all; export all; }}; }}\n"
        );
        let (conf, socket) = (self.file("bird.conf", &text), self.lab.file("bird.ctl"));
        let argv = ["bird", "-f", "-c", &conf, "-s", socket.to_str().unwrap()];
        let mut process = Process::new("bird", &self.theirs, self.lab.dir(), &argv);
        process.start().unwrap();
        process
    }

    fn ctl(&self, words: &[&str]) -> Output {
        let socket = self.socket();
        Command::new(binary().unwrap())
            .args(["ctl", "bgp"])
            .args(words)
            .args(["--socket", &socket])
            .output()
            .unwrap()
    }

    fn text(&self, words: &[&str]) -> String {
        let output = self.ctl(words);
        assert!(
            output.status.success(),
            "{words:?}: {}\n{}",
            String::from_utf8_lossy(&output.stderr),
            self.lab.logs(40)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.text(&[words, &["-o", "json"]].concat())).unwrap()
    }

    /// Waits for something that `words` answers.
    fn until(&self, words: &[&str], is: impl Fn(&Value) -> bool) -> Value {
        let found = eventually(SOON, || {
            if !self.ctl(words).status.success() {
                return Err("no answer yet".into());
            }
            let answer = self.json(words);
            if is(&answer) { Ok(answer) } else { Err(format!("{words:?}: {answer:#}")) }
        });
        found.unwrap_or_else(|err| panic!("{err}\n{}", self.lab.logs(40))).0
    }

    /// Waits until the neighbour is not up for this cause, and returns what a person reads.
    fn cause(&self, kind: &str) -> String {
        self.until(&["neighbor", "n"], |n| n["cause"]["kind"] == kind);
        let text = self.text(&["neighbor", "n"]);
        let cause = text.lines().skip_while(|l| !l.starts_with("Cause ")).take(2).collect::<Vec<_>>();
        assert_eq!(cause.len(), 2, "cause and fix: {text}");
        assert!(cause[1].starts_with("Fix "), "{text}");
        assert!(self.text(&["peers"]).contains("\nn: "), "the list names it too");
        assert!(self.text(&["summary"]).contains("Without a session:\n  n for "));
        cause.join("\n")
    }
}

const NEAR: &str = "address: 10.99.0.2, asNumber: 65002, holdTime: 9";
const STATIC: &str = "protocol static { ipv4; route 10.2.0.0/16 blackhole; route 10.3.0.0/16 blackhole; \
                      route 198.51.100.0/25 blackhole; }";
const FILTERS: &str = "
static:
  - { prefix: 10.1.0.0/16, blackhole: true }
  - { prefix: 10.44.0.0/16, blackhole: true }
filters:
  no-docs: { importV4: [{ action: Reject, cidr: 198.51.100.0/24, matchOperator: In }] }
  no-lab: { exportV4: [{ action: Reject, cidr: 10.44.0.0/16, matchOperator: Equal }] }
";

/// BIRD tells three paths of a prefix on one session, and is told the best two of them on another; then one is taken only.
#[test]
fn paths_of_a_prefix_may_be_limited() {
    const THREE: &str = "protocol static sa { ipv4 { preference 230; }; route 10.5.0.0/24 blackhole; }
        protocol static sb { ipv4 { preference 220; }; route 10.5.0.0/24 blackhole; }
        protocol static sc { ipv4 { preference 210; }; route 10.5.0.0/24 blackhole; }
        protocol bgp q { local 10.99.0.3 as 65003; neighbor 10.99.0.4 as 65001; connect retry time 2;
            connect delay time 1; error wait time 1, 2; ipv4 { import all; export none; add paths rx; }; }
        filter told { if source != RTS_STATIC then reject; if proto != \"sa\" then bgp_path.prepend(65002);
            if proto = \"sc\" then bgp_path.prepend(65002); accept; }";
    let mut pair = Pair::new("see9");
    // BIRD has one session with an address: the second is between two others.
    pair.theirs.address("eth0", "10.99.0.3/24".parse().unwrap()).unwrap();
    pair.ours.address("eth0", "10.99.0.4/24".parse().unwrap()).unwrap();
    pair.speaker(
        "address: 10.99.0.2, asNumber: 65002, addPath: { receive: true }",
        "  - { name: m, address: 10.99.0.3, asNumber: 65003, connectRetry: 2, sourceAddress: 10.99.0.4, addPath: { send: true, sendLimit: 2 } }\n",
    );
    let file = pair.lab.file("bird.conf");
    let _bird = pair.bird("local 10.99.0.2 as 65002; neighbor 10.99.0.1 as 65001;", THREE);
    let birdc = format!("birdc -s {}", pair.lab.file("bird.ctl").display());
    let text = std::fs::read_to_string(&file).unwrap();
    let sends = text.replace("import all; export all;", "import none; export filter told; add paths tx;");
    assert_ne!(sends, text);
    std::fs::write(&file, sends).unwrap();
    let reconfigured = eventually(SOON, || {
        pair.theirs.sh(&format!("{birdc} configure")).map(|_| ()).map_err(|err| err.to_string())
    });
    reconfigured.unwrap();
    let lengths = |pair: &Pair| -> Vec<usize> {
        let shown = pair.theirs.sh(&format!("{birdc} show route all 10.5.0.0/24 protocol q")).unwrap();
        let paths = shown.lines().filter_map(|l| l.trim().strip_prefix("BGP.as_path:"));
        let mut lengths: Vec<usize> = paths.map(|path| path.split_whitespace().count()).collect();
        lengths.sort_unstable();
        lengths
    };
    let told = |pair: &Pair, wanted: &[usize]| {
        let result = eventually(SOON, || {
            let now = lengths(pair);
            if now == wanted { Ok(()) } else { Err(format!("{now:?}, not {wanted:?}")) }
        });
        result.unwrap_or_else(|err| panic!("{err}\n{}", pair.lab.logs(40)));
    };
    told(&pair, &[2, 3]);
    assert_eq!(pair.json(&["routes", "10.5.0.0/24"]).as_array().unwrap().len(), 3);
    // The best goes, the third takes its place; it comes back.
    pair.theirs.sh(&format!("{birdc} disable sa")).unwrap();
    told(&pair, &[3, 4]);
    pair.theirs.sh(&format!("{birdc} enable sa")).unwrap();
    told(&pair, &[2, 3]);
    // Other limits: one without, the other with a new session.
    let ours = pair.lab.file("ours.yaml");
    let text = std::fs::read_to_string(&ours).unwrap();
    let less = text.replace("sendLimit: 2", "sendLimit: 1");
    std::fs::write(&ours, &less).unwrap();
    let hang_up = |pair: &mut Pair| pair.speaker.as_mut().unwrap().signal(nix::sys::signal::Signal::SIGHUP);
    hang_up(&mut pair);
    told(&pair, &[2]);
    std::fs::write(&ours, less.replace("{ receive: true }", "{ receive: true, receiveLimit: 1 }")).unwrap();
    hang_up(&mut pair);
    pair.until(&["neighbor", "n"], |n| n["state"] == "Established" && n["counters"]["pathsRefused"] == 2);
    assert_eq!(pair.json(&["routes", "10.5.0.0/24"]).as_array().unwrap().len(), 1);
    assert!(pair.text(&["neighbor", "n"]).contains("2 paths beyond the limit for a prefix not taken"));
    let log = pair.speaker.as_ref().unwrap().log();
    assert!(log.contains("paths beyond the limit for a prefix are not taken"), "{log}");
    let resets: Vec<&str> = log.lines().filter(|line| line.contains("session is reset")).collect();
    assert!(resets.len() == 1 && resets[0].contains("add_path"), "{log}");
}

#[test]
fn routes_and_their_reasons_from_the_update_to_the_kernel() {
    let mut pair = Pair::new("see1");
    pair.speaker(&format!("{NEAR}, import: [no-docs], export: [no-lab]"), FILTERS);
    let _bird = pair.bird("local 10.99.0.2 as 65002; neighbor 10.99.0.1 as 65001;", STATIC);
    let peers = pair.until(&["peers"], |p| {
        let counts = &p[0]["routes"][0];
        p[0]["state"] == "Established" && counts["received"] == 3 && counts["advertised"] == 1
    });
    let counts = &peers[0]["routes"][0];
    assert_eq!((&counts["accepted"], &counts["best"]), (&2.into(), &2.into()), "{counts}");
    assert_eq!(counts["rejected"]["filter-rejects"], 1);
    let table = pair.text(&["peers"]);
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..4], ["n", "10.99.0.2", "65002", "Established"]);
    assert_eq!(row[5..], ["3", "2", "1", "2", "1"], "{table}");

    let routes = pair.text(&["routes", "--received", "n"]);
    let lines: Vec<String> =
        routes.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        lines,
        [
            "PREFIX STATUS FROM NEXT HOP AS PATH WHY",
            "10.2.0.0/16 best n 10.99.0.2 65002",
            "10.3.0.0/16 best n 10.99.0.2 65002",
            "198.51.100.0/25 rejected n 10.99.0.2 65002 an import filter rejects it (no-docs rule 1)",
        ]
    );
    assert_eq!(pair.json(&["routes", "--rejected"])[0]["rule"], "no-docs rule 1");
    assert_eq!(pair.json(&["routes", "10.0.0.0/8", "--longer"]).as_array().unwrap().len(), 4);
    let told = pair.json(&["routes", "--advertised", "n"]);
    assert_eq!((told.as_array().unwrap().len(), &told[0]["prefix"]), (1, &"10.1.0.0/16".into()));
    let withheld = pair.text(&["routes", "--withheld", "n"]);
    assert!(withheld.contains("an export filter rejects it (no-lab rule 1)"), "{withheld}");
    assert!(withheld.contains("this peer told it"), "{withheld}");

    let explained = pair.text(&["explain", "10.2.3.4"]);
    for said in [
        "10.2.0.0/16, which carries 10.2.3.4\n",
        "UPDATE       from n",
        "import     accepted\n",
        "next hop   10.99.0.2: on link eth0, metric 0\n",
        "decision   the best\n",
        "Kernel       via 10.99.0.2 dev eth0 metric 32\n",
        "this peer told it",
    ] {
        assert!(explained.contains(said), "{said}\n{explained}");
    }
    assert!(pair.ours.sh("ip route show proto bird").unwrap().contains("10.2.0.0/16 via 10.99.0.2 dev eth0"));
    let explained = pair.text(&["explain", "198.51.100.0/25"]);
    assert!(
        explained.contains("import     rejected: an import filter rejects it (no-docs rule 1)"),
        "{explained}"
    );
    assert!(explained.contains("Kernel       not there"), "{explained}");
    // An age runs on; what BIRD says again unchanged is no younger for it.
    let age = |pair: &Pair| pair.json(&["routes", "10.2.0.0/16"])[0]["changedMs"].as_u64().unwrap();
    let before = age(&pair);
    std::thread::sleep(Duration::from_millis(2_200));
    pair.theirs.sh(&format!("birdc -s {} reload out p", pair.lab.file("bird.ctl").display())).unwrap();
    assert!((before + 2_000..before + 60_000).contains(&age(&pair)), "{before} {}", age(&pair));
    assert!(pair.text(&["routes", "10.2.0.0/16", "-o", "wide"]).lines().next().unwrap().contains("CHANGED"));
    let told = pair.json(&["explain", "10.1.0.0/16", "--peer", "n"]);
    assert_eq!(told["exports"][0]["accepted"], true);
    assert_eq!(told["exports"][0]["told"][0]["asPath"], serde_json::json!([65001]));

    let neighbor = pair.json(&["neighbor", "10.99.0.2"]);
    assert_eq!((&neighbor["name"], &neighbor["routerId"]), (&"n".into(), &"10.99.0.2".into()));
    assert_eq!(neighbor["said"]["asn"], 65002);
    assert!(neighbor["cause"].is_null());
    let summary = pair.json(&["summary"]);
    assert_eq!((&summary["peers"], &summary["established"]), (&1.into(), &1.into()));
    assert_eq!(summary["tables"][0]["programmed"], 4);
    let wrong = pair.ctl(&["neighbor", "m"]);
    assert!(!wrong.status.success());
    assert_eq!(String::from_utf8_lossy(&wrong.stderr), "there is no peer m\nthere are n\n");
}

#[test]
fn a_route_that_the_kernel_refuses_is_explained() {
    let mut pair = Pair::new("see2");
    pair.ours.sh("ip route add 10.2.0.0/16 via 10.99.0.77 metric 32 proto static").unwrap();
    pair.speaker(NEAR, "redistribute: { kernel: false }\n");
    let _bird = pair.bird("local 10.99.0.2 as 65002; neighbor 10.99.0.1 as 65001;", STATIC);
    let explained = pair.until(&["explain", "10.2.0.0/16"], |e| e["kernelRefuses"].is_string());
    let why = explained["kernelRefuses"].as_str().unwrap();
    assert!(why.contains("another program has this prefix with this metric"), "{why}");
    assert!(pair.text(&["explain", "10.2.0.0/16"]).contains("but the kernel refuses it"));
}

#[test]
fn refused_because_nobody_listens() {
    let mut pair = Pair::new("see3");
    pair.speaker(NEAR, "");
    let said = pair.cause("refused");
    assert!(said.contains("10.99.0.2 refuses connections to TCP port 179"), "{said}");
    assert!(said.contains("start the BGP speaker on the peer"), "{said}");
}

#[test]
fn no_route_to_the_peer() {
    let mut pair = Pair::new("see4");
    pair.speaker("address: 192.0.2.9, asNumber: 65002", "");
    let said = pair.cause("no-route");
    assert!(said.contains("this host has no route to 192.0.2.9"), "{said}");
}

#[test]
fn nobody_answers_on_the_link() {
    let mut pair = Pair::new("see5");
    pair.speaker("address: 10.99.0.77, asNumber: 65002", "");
    let said = pair.cause("no-route");
    assert!(said.contains("nobody answers at 10.99.0.77 on link eth0"), "{said}");
}

#[test]
fn a_packet_filter_is_a_timeout() {
    let mut pair = Pair::new("see6");
    pair.theirs
        .sh("nft add table inet f; nft add chain inet f i '{ type filter hook input priority 0; }'; \
             nft add rule inet f i tcp dport 179 drop")
        .unwrap();
    pair.speaker(NEAR, "");
    let said = pair.cause("timeout");
    assert!(said.contains("no answer from 10.99.0.2, TCP port 179"), "{said}");
    assert!(said.contains("packet filter"), "{said}");
}

#[test]
fn the_wrong_as_is_named_with_both_numbers() {
    let mut pair = Pair::new("see7");
    pair.speaker("address: 10.99.0.2, asNumber: 65009, holdTime: 9", "");
    let _bird = pair.bird("local 10.99.0.2 as 65002; neighbor 10.99.0.1 as 65001;", "");
    let said = pair.cause("wrong-as");
    assert!(said.contains("the peer says that it is AS 65002; configured here is AS 65009"), "{said}");
}

#[test]
fn a_peer_that_expects_another_as_of_us() {
    let mut pair = Pair::new("see8");
    pair.speaker(NEAR, "");
    let _bird = pair.bird("local 10.99.0.2 as 65002; neighbor 10.99.0.1 as 65555;", "");
    let said = pair.cause("wrong-as");
    assert!(said.contains("the peer expects another AS than our 65001"), "{said}");
}

#[test]
fn passwords_that_differ_are_told_from_silence() {
    for (name, ours, theirs, what) in [
        ("see9a", ", password: right", "password \"other\";", "signed with another password"),
        ("see9b", ", password: right", "", "without a signature, though a password is set here"),
        ("see9c", "", "password \"other\";", "with a signature, though no password is set here"),
    ] {
        let mut pair = Pair::new(name);
        pair.speaker(&format!("{NEAR}{ours}"), "");
        let session = format!("local 10.99.0.2 as 65002; neighbor 10.99.0.1 as 65001; {theirs}");
        let _bird = pair.bird(&session, "");
        let said = pair.cause("md5-mismatch");
        assert!(said.contains(what), "{said}");
        assert!(!pair.text(&["neighbor", "n"]).contains("right"), "never shown");
    }
}

#[test]
fn a_source_address_that_the_peer_does_not_know() {
    let mut pair = Pair::new("see10");
    pair.ours.address("eth0", "10.99.0.9/24".parse().unwrap()).unwrap();
    pair.speaker(&format!("{NEAR}, sourceAddress: 10.99.0.9"), "");
    let _bird = pair.bird("local 10.99.0.2 as 65002; neighbor 10.99.0.1 as 65001; passive;", "");
    let said = pair.cause("wrong-source");
    assert!(said.contains("10.99.0.2 hangs up on 10.99.0.9"), "{said}");
    assert!(said.contains("configure 10.99.0.9 as a neighbour on the peer"), "{said}");
}

#[test]
fn a_source_address_that_is_not_ours() {
    let mut pair = Pair::new("see11");
    pair.speaker(&format!("{NEAR}, sourceAddress: 10.99.0.55"), "");
    let said = pair.cause("wrong-source");
    assert!(said.contains("the source address 10.99.0.55"), "{said}");
}

#[test]
fn a_peer_that_calls_from_an_address_that_nobody_has() {
    let mut pair = Pair::new("see12");
    pair.theirs.address("eth0", "10.99.0.7/24".parse().unwrap()).unwrap();
    pair.speaker(&format!("{NEAR}, passive: true"), "");
    pair.until(&["neighbor", "n"], |n| n["cause"]["kind"] == "waiting");
    let _bird = pair.bird("local 10.99.0.7 as 65002; neighbor 10.99.0.1 as 65001;", "");
    let said = pair.cause("wrong-source");
    assert!(said.contains("calls from 10.99.0.7, an address that no peer has"), "{said}");
    assert!(pair.text(&["summary"]).contains("Refused callers:"));
}

fn call(pair: &Pair) -> RawPeer {
    let to: SocketAddr = OURS.parse().unwrap();
    let called = eventually(SOON, || {
        RawPeer::call(&pair.theirs, "10.99.0.2".parse().unwrap(), to).map_err(|e| e.to_string())
    });
    called.unwrap().0
}

#[test]
fn a_hold_time_that_is_not_acceptable() {
    let mut pair = Pair::new("see13");
    pair.speaker(&format!("{NEAR}, passive: true"), "");
    let open = OpenMessage { hold_time: 1, ..raw::open(65002, "10.99.0.2".parse().unwrap()) };
    let mut peer = call(&pair);
    let _ = peer.greet(&open);
    let said = pair.cause("hold-time");
    assert!(said.contains("the peer offers a hold time of 1 or 2 s"), "{said}");
}

#[test]
fn a_peer_that_falls_silent() {
    let mut pair = Pair::new("see14");
    pair.speaker("address: 10.99.0.2, asNumber: 65002, holdTime: 3, passive: true", "");
    let mut peer = call(&pair);
    peer.greet(&OpenMessage { hold_time: 3, ..raw::open(65002, "10.99.0.2".parse().unwrap()) }).unwrap();
    peer.keepalive().unwrap();
    pair.until(&["peers"], |p| p[0]["state"] == "Established");
    let said = pair.cause("hold-timer");
    assert!(said.contains("was silent for the hold time"), "{said}");
    drop(peer);
}

/// A dynamic peer is known by its errors for as long as its range is there, whatever else is configured anew.
#[test]
fn errors_of_a_dynamic_peer_outlive_a_new_configuration() {
    let mut pair = Pair::new("see18");
    pair.speaker(
        "address: 10.99.0.77, asNumber: 65002, passive: true",
        "listenRanges: [{ range: 10.99.0.0/28, asNumber: 65002 }]\n",
    );
    let open = |asn| raw::open(asn, "10.99.0.2".parse().unwrap());
    let _ = call(&pair).greet(&open(65009));
    // Its errors, while it has a session; then it hangs up.
    let errors = |pair: &Pair| {
        let greeted = eventually(SOON, || {
            let mut peer = call(pair);
            peer.greet(&open(65002)).map(|_| peer).map_err(|err| err.to_string())
        });
        let _peer = greeted.unwrap_or_else(|err| panic!("{err}\n{}", pair.lab.logs(40))).0;
        let name = "range 10.99.0.0/28_10.99.0.2";
        let rows = pair.until(&["peers"], |rows| {
            rows.as_array().unwrap().iter().any(|r| r["name"] == name && r["state"] == "Established")
        });
        let row = rows.as_array().unwrap().iter().find(|r| r["name"] == name).unwrap().clone();
        row["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["text"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let wrong_as = |errors: &[String]| errors.iter().filter(|text| text.contains("Bad Peer AS")).count();
    let first = errors(&pair);
    assert_eq!(wrong_as(&first), 1, "{first:?}\n{}", pair.lab.logs(40));
    let reload = |pair: &mut Pair, from: &str, to: &str| {
        let file = pair.lab.file("ours.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(&file, text.replace(from, to)).unwrap();
        let taken = pair.json(&["summary"])["configured"].clone();
        // It is told to the second.
        std::thread::sleep(Duration::from_millis(1_100));
        pair.speaker.as_mut().unwrap().signal(nix::sys::signal::Signal::SIGHUP);
        pair.until(&["summary"], |s| s["configured"] != taken);
    };
    reload(&mut pair, "10.99.0.77", "10.99.0.78");
    assert_eq!(wrong_as(&errors(&pair)), 1);
    reload(&mut pair, "10.99.0.0/28", "10.99.0.16/28");
    reload(&mut pair, "10.99.0.16/28", "10.99.0.0/28");
    assert_eq!(wrong_as(&errors(&pair)), 0, "its range was gone");
}

#[test]
fn who_may_not_ask_is_told_what_to_do() {
    let mut pair = Pair::new("see15");
    pair.speaker(NEAR, "");
    pair.until(&["summary"], |s| s["peers"] == 1);
    let socket = pair.socket();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&socket).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o660);
    drop(pair.speaker.take());
    let gone = pair.ctl(&["peers"]);
    assert!(!gone.status.success());
    let said = String::from_utf8_lossy(&gone.stderr).into_owned();
    assert!(said.contains("no BGP speaker answers here"), "{said}");
    assert!(said.contains("systemctl start caracal-node"), "{said}");
}

/// A node of a cluster: two peers of its mesh and the router, each with routes, and a block told to all of them.
#[test]
fn a_node_answers_on_the_socket_in_its_run_directory() {
    let options = Options {
        store: StoreKind::Embedded,
        router: RouterKind::Caracal,
        split: false,
        binary: binary().unwrap(),
    };
    let mut picture = Picture::new("see16", &options).unwrap();
    picture.seed().unwrap();
    picture.start_agents().unwrap();
    picture.converged(Duration::from_mins(1)).unwrap();
    let node = &picture.nodes[0];
    let socket = picture.lab.file(&format!("run-{}/bgp.sock", node.name));
    let ask = |words: &[&str]| -> Value {
        let output = Command::new(binary().unwrap())
            .args(["ctl", "bgp"])
            .args(words)
            .args(["-o", "json", "--socket", socket.to_str().unwrap()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let all = eventually(SOON, || {
        let peers = ask(&["peers"]);
        let up = peers.as_array().unwrap().iter().filter(|p| p["state"] == "Established").count();
        if up == 3 { Ok(peers) } else { Err(format!("{peers:#}")) }
    });
    let peers = all.unwrap().0;
    assert_eq!(peers.as_array().unwrap().len(), 3, "{peers:#}");
    let explained = ask(&["explain", &node.block.to_string()]);
    assert_eq!(explained["paths"][0]["from"], "static");
    assert_eq!(explained["kernel"], "blackhole metric 0");
    for export in explained["exports"].as_array().unwrap() {
        assert_eq!(
            (&export["accepted"], &export["reason"]),
            (&true.into(), &"own-block".into()),
            "{export:#}"
        );
    }
}
