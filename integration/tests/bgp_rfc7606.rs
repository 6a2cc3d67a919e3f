//! Every row of `bird/packet/tests/rfc7606.txt`, sent to the running daemon over TCP, judged from outside: whether the
//! session stays, with which NOTIFICATION it ends, and what the daemon tells an iBGP peer about the routes.
//!
//! ```text
//!  senders, one address for each kind of session   --+
//!  bystander .200, AS 65003, one route of each kind --+-- LAN 192.0.2.0/24, 2001:db8::/64 -- daemon .254, AS 65000
//!  witness .201, AS 65000, reflection client        --+
//! ```
#![allow(clippy::unwrap_used, reason = "a test that cannot set up has failed")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bird_packet::{Capability, Family, MessageKind, OpenMessage};
use integration::lab::{Lab, Namespace, Process};
use integration::picture::binary;
use integration::raw::{self, Heard, RawPeer, Table, Witness, walk};

#[path = "../../bird/packet/tests/cases/mod.rs"]
#[allow(unreachable_pub, dead_code, reason = "the codec's own test reads the same table")]
mod cases;

use cases::{Case, cases, data_fits, hex};

const DAEMON_AS: u32 = 65000;
const DAEMON: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254)), 179);
const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const BYSTANDER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);
const WITNESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 201);
/// What each case changes.
const V4: &str = "198.51.100.0/24";
const V6: &str = "2001:db8:1::/48";
/// What a case with nothing reachable withdraws.
const WITHDRAWN: &str = "203.0.113.0/24";
/// Sent after each case: when the witness has these, it has everything before.
const LAST4: &str = "198.18.0.1/32";
const LAST6: &str = "2001:db8:ffff::/48";
/// What a bystander announced; nobody else's UPDATE may touch it.
const OTHERS: &str = "198.18.5.0/24";
/// 65001:4242, on the good routes before a case: what lacks it came with the case.
const MARK: [u8; 4] = [0xfd, 0xe9, 0x10, 0x92];
const SOON: Duration = Duration::from_secs(10);

/// One kind of session: its words in the table, and the sender's address.
struct Kind {
    peer: char,
    session: String,
    address: Ipv4Addr,
}

impl Kind {
    fn has(&self, word: &str) -> bool {
        self.session.split_whitespace().any(|w| w == word)
    }

    fn asn(&self) -> u32 {
        if self.peer == 'i' { DAEMON_AS } else { 65001 }
    }

    fn yaml(&self) -> String {
        let families = match (self.has("only4"), self.has("only6")) {
            (true, _) => "[ipv4]",
            (_, true) => "[ipv6]",
            _ => "[ipv4, ipv6]",
        };
        format!(
            "  - {{ address: {}, asNumber: {}, passive: true, families: {families}, enforceFirstAs: {}, rejectAsSets: {}, \
             extendedNextHop: {}, addPath: {{ receive: {}, send: false }} }}\n",
            self.address,
            self.asn(),
            self.has("first"),
            self.has("noset"),
            self.has("enh"),
            self.has("path"),
        )
    }

    fn open(&self) -> OpenMessage {
        let mut open = raw::open(self.asn(), self.address);
        let gone: &[Capability] = &[
            Capability::Multiprotocol(Family::Ipv6Unicast.into()),
            Capability::Multiprotocol(Family::Ipv4Unicast.into()),
            Capability::FourOctetAs(self.asn()),
        ];
        let wanted = [!self.has("only4"), !self.has("only6"), !self.has("as2")];
        open.capabilities.retain(|c| gone.iter().zip(wanted).all(|(gone, wanted)| wanted || c != gone));
        if self.has("enh") {
            open.capabilities.push(raw::extended_next_hop());
        }
        if self.has("path") {
            open.capabilities.push(raw::sends_paths());
        }
        open
    }

    /// Attributes of a good route; `extra` comes at the end.
    fn attrs(&self, next_hop: bool, extra: &[u8]) -> Vec<u8> {
        let mut attrs = hex("40 01 01 00");
        attrs.extend(match (self.peer, self.has("as2")) {
            ('i', _) => hex("40 02 00"),
            (_, false) => hex("40 02 06 02 01 00 00 fd e9"),
            (_, true) => hex("40 02 04 02 01 fd e9"),
        });
        if next_hop {
            attrs.extend([0x40, 3, 4]);
            attrs.extend(NEXT_HOP.octets());
        }
        if self.peer == 'i' {
            attrs.extend(hex("40 05 04 00 00 00 64"));
        }
        attrs.extend(extra);
        attrs
    }

    fn announce4(&self, prefixes: &[&str], extra: &[u8]) -> Vec<u8> {
        let mut nlri = Vec::new();
        for prefix in prefixes {
            if self.has("path") {
                nlri.extend([0, 0, 0, 7]);
            }
            nlri.extend(raw::nlri(prefix));
        }
        raw::update(&self.attrs(true, extra), &nlri)
    }

    fn announce6(&self, nlri: &str, extra: &[u8]) -> Vec<u8> {
        let mut value = hex("00 02 01 10 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01 00");
        if self.has("path") {
            value.extend([0, 0, 0, 7]);
        }
        value.extend(hex(nlri));
        let mut attr = vec![0x80, 14, u8::try_from(value.len()).unwrap()];
        attr.extend(value);
        attr.extend(extra);
        raw::update(&self.attrs(false, &attr), &[])
    }

    /// The good routes, with the mark.
    fn good(&self) -> Vec<u8> {
        let mark = [&[0xc0, 8, 4][..], &MARK].concat();
        let mut bytes = Vec::new();
        if !self.has("only6") {
            bytes.extend(self.announce4(&[V4, WITHDRAWN], &mark));
        }
        if !self.has("only4") {
            bytes.extend(self.announce6("30 20 01 0d b8 00 01", &mark));
        }
        bytes
    }

    /// The last routes, with this number as their MED.
    fn last(&self, number: u32) -> Vec<u8> {
        let med = [&[0x80, 4, 4][..], &number.to_be_bytes()].concat();
        let mut bytes = Vec::new();
        if !self.has("only6") {
            bytes.extend(self.announce4(&[LAST4], &med));
        }
        if !self.has("only4") {
            bytes.extend(self.announce6("30 20 01 0d b8 ff ff", &med));
        }
        bytes
    }

    /// Routes that are there before each case.
    fn prefixes(&self) -> Vec<&'static str> {
        let mut prefixes = Vec::new();
        if !self.has("only6") {
            prefixes.extend([V4, WITHDRAWN]);
        }
        if !self.has("only4") {
            prefixes.push(V6);
        }
        prefixes
    }

    fn last_arrived(&self, table: &Table, number: u32) -> Result<(), String> {
        for (prefix, out) in [(LAST4, "only6"), (LAST6, "only4")] {
            let med = table.attribute(prefix, 4);
            if !self.has(out) && med.as_deref() != Some(&number.to_be_bytes()) {
                return Err(format!("the last route {prefix} has MED {med:?}, not {number}"));
            }
        }
        Ok(())
    }
}

struct Suite {
    lab: Lab,
    senders: Namespace,
    _daemon: Process,
    witness: Witness,
    _bystander: Witness,
    sessions: BTreeMap<Ipv4Addr, RawPeer>,
    number: u32,
}

impl Suite {
    fn new(kinds: &[Kind]) -> Self {
        let mut lab = Lab::new("r76").unwrap();
        let (space, senders) = (lab.host("dut").unwrap(), lab.host("raw").unwrap());
        space.wire("eth0", &senders, "eth0", None).unwrap();
        space.address("eth0", "192.0.2.254/24".parse().unwrap()).unwrap();
        space.address("eth0", "2001:db8::fe/64".parse().unwrap()).unwrap();
        let mut lines = String::from("link set eth0 addrgenmode none\naddr add fe80::1/64 dev eth0 nodad\n");
        for address in kinds.iter().map(|k| k.address).chain([BYSTANDER, WITNESS]) {
            writeln!(lines, "addr add {address}/24 dev eth0").unwrap();
        }
        lines += "addr add 2001:db8::1/64 dev eth0 nodad\n";
        let batch = lab.file("addresses");
        std::fs::write(&batch, lines).unwrap();
        senders.sh(&format!("ip -batch {}", batch.display())).unwrap();

        let mut yaml =
            format!("routerId: 192.0.2.254\nasNumber: {DAEMON_AS}\nlisten: [\"{DAEMON}\"]\nneighbours:\n");
        for kind in kinds {
            yaml += &kind.yaml();
        }
        write!(
            yaml,
            "  - {{ address: {BYSTANDER}, asNumber: 65003, passive: true, families: [ipv4, ipv6] }}\n  \
             - {{ address: {WITNESS}, asNumber: {DAEMON_AS}, passive: true, families: [ipv4, ipv6], \
             routeReflectorClient: true, extendedNextHop: true, addPath: {{ receive: false, send: false }} }}\n"
        )
        .unwrap();
        let file = lab.file("daemon.yaml");
        std::fs::write(&file, yaml).unwrap();
        let binary = binary().unwrap();
        let argv = [&binary.to_string_lossy(), "bird", "--config", &file.to_string_lossy()];
        let mut daemon = Process::new("daemon", &space, lab.dir(), &argv).env("CARACAL_LOG", "info");
        daemon.start().unwrap();

        let mut open = raw::open(DAEMON_AS, WITNESS);
        open.capabilities.push(raw::extended_next_hop());
        let peer = RawPeer::establish(&senders, WITNESS.into(), DAEMON, &open)
            .unwrap_or_else(|err| panic!("{err:#}\n{}", lab.logs(40)));
        let witness = Witness::start(peer, true, None);
        let mut peer =
            RawPeer::establish(&senders, BYSTANDER.into(), DAEMON, &raw::open(65003, BYSTANDER)).unwrap();
        peer.send(&raw::update(&raw::attributes(&[65003], BYSTANDER), &raw::nlri(OTHERS))).unwrap();
        let bystander = Witness::start(peer, false, None);
        Self {
            lab,
            senders,
            _daemon: daemon,
            witness,
            _bystander: bystander,
            sessions: BTreeMap::new(),
            number: 0,
        }
    }

    /// The session of this kind with its good routes at the witness.
    fn prepare(&mut self, kind: &Kind) -> anyhow::Result<()> {
        if !self.sessions.contains_key(&kind.address) {
            let peer = RawPeer::establish(&self.senders, kind.address.into(), DAEMON, &kind.open())?;
            self.sessions.insert(kind.address, peer);
        }
        let number = self.next();
        let session = self.sessions.get_mut(&kind.address).unwrap();
        session.send(&kind.good())?;
        session.send(&kind.last(number))?;
        self.witness.wait(SOON, |table| {
            kind.last_arrived(table, number)?;
            kind.prefixes().iter().try_for_each(|prefix| marked(table, prefix, true))
        })
    }

    fn next(&mut self) -> u32 {
        self.number += 1;
        self.number
    }

    fn run(&mut self, kind: &Kind, case: &Case) -> Result<(), String> {
        self.prepare(kind).map_err(|err| format!("before the case: {err:#}"))?;
        let number = self.next();
        let session = self.sessions.get_mut(&kind.address).unwrap();
        let mut bytes = raw::message(MessageKind::Update, &case.body);
        bytes.extend(kind.last(number));
        session.send(&bytes).map_err(|err| err.to_string())?;
        let mut words = case.outcome.split_whitespace();
        if words.next() == Some("reset") {
            let wanted = words.next().unwrap_or_default();
            return self.reset(kind, case, wanted);
        }
        let judged = self.witness.wait(SOON, |table| {
            kind.last_arrived(table, number)?;
            judge(kind, case, table)
        });
        judged.map_err(|err| format!("{err:#}"))?;
        match self.sessions.get_mut(&kind.address).unwrap().ending(Duration::ZERO) {
            Ok(None) => Ok(()),
            other => Err(format!("the session does not stay: {other:?}")),
        }
    }

    /// The session must end with this NOTIFICATION, and with it all of its routes.
    fn reset(&mut self, kind: &Kind, case: &Case, wanted: &str) -> Result<(), String> {
        let mut session = self.sessions.remove(&kind.address).unwrap();
        let heard = session.ending(SOON).map_err(|err| err.to_string())?;
        let Some(Heard::Notification(notification)) = heard else {
            return Err(format!("{heard:?} instead of a NOTIFICATION"));
        };
        let got = format!("{}/{}", notification.code, notification.subcode);
        if got != wanted && (wanted != "3/-" || notification.code != 3) {
            return Err(format!("reset {got}"));
        }
        data_fits(&notification, &case.body)?;
        match session.ending(SOON) {
            Ok(Some(Heard::Closed)) => {}
            other => return Err(format!("after the NOTIFICATION {other:?}, not the end")),
        }
        self.gone(kind)
    }

    /// Nothing of this kind's session is told any more.
    fn gone(&self, kind: &Kind) -> Result<(), String> {
        let gone = self.witness.wait(SOON, |table| {
            let mut left = kind.prefixes();
            left.extend([LAST4, LAST6]);
            left.retain(|prefix| table.routes.contains_key(*prefix));
            if left.is_empty() { Ok(()) } else { Err(format!("still told after the session: {left:?}")) }
        });
        gone.map_err(|err| format!("{err:#}"))
    }
}

/// Whether the route is there with or without the mark.
fn marked(table: &Table, prefix: &str, wanted: bool) -> Result<(), String> {
    if !table.routes.contains_key(prefix) {
        return Err(format!("{prefix} is not there"));
    }
    let has = table.attribute(prefix, 8).is_some_and(|value| value.chunks(4).any(|c| c == MARK));
    if has == wanted { Ok(()) } else { Err(format!("{prefix} has the mark: {has}")) }
}

/// What must be seen of a case that leaves the session alone.
fn judge(kind: &Kind, case: &Case, table: &Table) -> Result<(), String> {
    let words: Vec<&str> = case.outcome.split_whitespace().collect();
    let ignored = words.first() == Some(&"ignored");
    let withdraw = words.contains(&"withdraw");
    let carried = match case.carrier {
        '4' => Some(V4),
        '6' => Some(V6),
        // Only MP_REACH_NLRI may carry something then.
        _ => case.body.windows(4).any(|w| w == hex("18 c6 33 64")).then_some(V4),
    };
    // What an accepted prefix with another length leaves of the case's own is the old route.
    let carried = if case.name.starts_with("host bits beyond") { Some("2001:db8:1::/49") } else { carried };
    for prefix in kind.prefixes() {
        let own = carried == Some(prefix);
        if case.carrier == 'n' && prefix == WITHDRAWN {
            if table.routes.contains_key(prefix) {
                return Err(format!("{prefix} was withdrawn and is there"));
            }
        } else if own && withdraw && !ignored {
            if table.routes.contains_key(prefix) {
                return Err(format!("{prefix} is not withdrawn"));
            }
        } else if own && !ignored {
            if !case.name.starts_with("next hop link-local alone") {
                marked(table, prefix, false)?;
            }
        } else {
            marked(table, prefix, true)?;
        }
    }
    if ignored && carried.is_some_and(|p| !kind.prefixes().contains(&p) && table.routes.contains_key(p)) {
        return Err(format!("{carried:?} came in a family that is not in use"));
    }
    if case.name.starts_with("next hop link-local alone") {
        // Accepted, and of no use on a session that is not bound to an interface: there is no link to look on.
        return if table.routes.contains_key(V6) {
            Err(format!("{V6} is told without a link"))
        } else {
            Ok(())
        };
    }
    let Some(prefix) = carried.filter(|_| !ignored && !withdraw) else { return Ok(()) };
    let Some(set) = table.routes.get(prefix) else { return Err(format!("{prefix} is not there")) };
    attributes(case, &words, set)
}

/// `keeps`, `drops` and `canonical` of a row, on the attributes that the witness was told.
fn attributes(case: &Case, words: &[&str], set: &[u8]) -> Result<(), String> {
    let codes: Vec<u8> = walk(set).map(|(code, _)| code).collect();
    for pair in words.windows(2) {
        match pair[0] {
            "keeps" if !codes.contains(&pair[1].parse().unwrap()) => {
                return Err(format!("type {} is gone: {set:02x?}", pair[1]));
            }
            // The daemon tells an internal peer its own LOCAL_PREF, and IPv4 a NEXT_HOP.
            "drops" if pair[1] == "5" => {
                let value = walk(set).find(|(code, _)| *code == 5).map(|(_, value)| value);
                if value != Some(&[0, 0, 0, 100]) {
                    return Err(format!("LOCAL_PREF {value:02x?}, not the default"));
                }
            }
            "drops" if pair[1] == "3" && case.carrier == '4' => {}
            "drops" if codes.contains(&pair[1].parse().unwrap()) => {
                return Err(format!("type {} is still there: {set:02x?}", pair[1]));
            }
            "canonical" => {
                let wanted = hex(pair[1]);
                if !set.windows(wanted.len()).any(|w| w == wanted) {
                    return Err(format!("no {} in {set:02x?}", pair[1]));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[test]
fn b08_every_row_has_its_outcome_at_the_running_daemon() {
    let start = Instant::now();
    // Confederations are not configurable; their rows are the codec's.
    let cases: Vec<Case> = cases().into_iter().filter(|case| case.peer != 'c').collect();
    let mut kinds: Vec<Kind> = Vec::new();
    for case in &cases {
        if !kinds.iter().any(|k| k.peer == case.peer && k.session == case.session) {
            let number = u8::try_from(10 + kinds.len()).unwrap();
            let address = Ipv4Addr::new(192, 0, 2, number);
            kinds.push(Kind { peer: case.peer, session: case.session.clone(), address });
        }
    }
    let mut suite = Suite::new(&kinds);
    let (mut failures, mut resets) = (Vec::new(), 0);
    for kind in &kinds {
        for case in cases.iter().filter(|c| c.peer == kind.peer && c.session == kind.session) {
            resets += usize::from(case.outcome.starts_with("reset"));
            if let Err(why) = suite.run(kind, case) {
                let (name, outcome, body) = (&case.name, &case.outcome, &case.body);
                failures.push(format!("{name}: {why}\n    wanted {outcome}\n    body {body:02x?}"));
                suite.sessions.remove(&kind.address);
            }
            assert!(failures.len() < 40, "{}\n{}", failures.join("\n"), suite.lab.logs(30));
        }
        // What one kind leaves behind must not be taken for what the next one says.
        suite.sessions.remove(&kind.address);
        suite.gone(kind).unwrap();
    }
    let table = suite.witness.table();
    let hurt = table.withdrawals.get(OTHERS).copied().unwrap_or_default();
    assert!(
        table.routes.contains_key(OTHERS) && hurt == 0 && table.ended.is_none(),
        "the bystander's route was withdrawn {hurt} times; the witness: {:?}",
        table.ended
    );
    drop(table);
    println!("rfc7606 | {} cases, {resets} resets | {:.1} s", cases.len(), start.elapsed().as_secs_f64());
    assert!(
        failures.is_empty(),
        "{} of {}:\n{}\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n"),
        suite.lab.logs(30)
    );
    assert!(cases.len() >= 740, "only {} cases were read", cases.len());
}
