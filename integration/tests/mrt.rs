//! MRT files of a running router, read by bgpkit-parser: a dump of the table that real BIRD told, and a recording of its
//! messages.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Cursor;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bgpkit_parser::models::{AttributeValue, Bgp4MpEnum, BgpMessage, MrtMessage, TableDumpV2Message};
use bgpkit_parser::parse_mrt_record;
use integration::lab::{Lab, Namespace, Process, eventually, run_in};
use integration::picture::binary;

const ROUTES: usize = 20_000;
const SOON: Duration = Duration::from_mins(1);

struct Pair {
    left: Namespace,
    right: Namespace,
    socket: String,
    _router: Process,
    _bird: Process,
    lab: Lab,
}

fn bird_conf(routes: usize, special: &str) -> String {
    let mut text =
        "router id 10.96.0.2;\nlog stderr all;\nprotocol device {}\nprotocol static { ipv4;\n".to_owned();
    for n in 0..routes {
        let _ = writeln!(
            text,
            "  route 20.{}.{}.0/24 unreachable {{ bgp_community.add((65002,{})); bgp_path.prepend(65100); }};",
            n / 256,
            n % 256,
            n % 100
        );
    }
    let _ = write!(
        text,
        "{special} }}\nprotocol static six {{ ipv6; route 2001:db8:7::/48 unreachable; }}\n\
         protocol bgp left {{ local 10.96.0.2 as 65002; neighbor 10.96.0.1 as 65001; connect delay time 1;\n\
         ipv4 {{ import all; export all; }}; }}\n\
         protocol bgp left6 {{ local fd96::2 as 65002; neighbor fd96::1 as 65001; connect delay time 1;\n\
         ipv6 {{ import all; export all; }}; }}\n"
    );
    text
}

impl Pair {
    fn start() -> anyhow::Result<Self> {
        let mut lab = Lab::new("mrt")?;
        let (left, right) = (lab.host("l")?, lab.host("r")?);
        left.wire("eth0", &right, "eth0", None)?;
        for (space, v4, v6) in [(&left, "10.96.0.1/24", "fd96::1/64"), (&right, "10.96.0.2/24", "fd96::2/64")]
        {
            space.address("eth0", v4.parse()?)?;
            space.address("eth0", v6.parse()?)?;
        }
        let socket = lab.file("bgp.sock").to_string_lossy().into_owned();
        let yaml = format!(
            "routerId: 10.96.0.1\nasNumber: 65001\nfib: {{ program: false }}\napi: {{ socket: {socket} }}\nneighbours:\n  \
             - {{ name: bird, address: 10.96.0.2, asNumber: 65002, import: [mark] }}\n  \
             - {{ name: bird6, address: 'fd96::2', asNumber: 65002, families: [ipv6] }}\nfilters:\n  \
             mark: {{ importV4: [{{ action: Reject, cidr: 20.0.9.0/24 }}] }}\nstatic:\n  \
             - {{ prefix: 192.0.2.0/24, announceOnly: true }}\n"
        );
        let file = lab.file("router.yaml");
        std::fs::write(&file, yaml)?;
        std::fs::write(lab.file("bird.conf"), bird_conf(ROUTES, ""))?;
        let binary = binary()?.to_string_lossy().into_owned();
        let dir = lab.dir().to_owned();
        let mut router =
            Process::new("router", &left, &dir, &[&binary, "bird", "--config", &file.to_string_lossy()]);
        router.start()?;
        let (conf, ctl) = (lab.file("bird.conf"), lab.file("bird.ctl"));
        let argv = ["bird", "-f", "-c", &conf.to_string_lossy(), "-s", &ctl.to_string_lossy()];
        let mut bird = Process::new("bird", &right, &dir, &argv);
        bird.start()?;
        let pair = Self { left, right, socket, _router: router, _bird: bird, lab };
        eventually(SOON, || {
            let ask = |arguments: &[&str]| pair.ctl(arguments).map_err(|e| e.to_string());
            let (peers, six) = (ask(&["peers", "-o", "json"])?, ask(&["routes", "2001:db8:7::/48"])?);
            let all = peers.contains(&format!("\"received\": {ROUTES}"));
            if all && six.contains("bird6") { Ok(()) } else { Err(format!("{six}{peers}")) }
        })
        .with_context(|| pair.lab.logs(30))?;
        Ok(pair)
    }

    fn ctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let binary = binary()?.to_string_lossy().into_owned();
        let mut argv = vec![binary.as_str(), "ctl", "bgp"];
        argv.extend(arguments);
        argv.extend(["--socket", &self.socket]);
        match run_in(&self.left, &argv, &[])? {
            (true, stdout, _) => Ok(stdout),
            (false, _, stderr) => bail!("{arguments:?}: {stderr}"),
        }
    }

    fn reconfigure(&self, special: &str) -> anyhow::Result<()> {
        std::fs::write(self.lab.file("bird.conf"), bird_conf(ROUTES, special))?;
        self.right.sh(&format!("birdc -s {} configure", self.lab.file("bird.ctl").display())).map(drop)
    }

    fn file(&self, name: &str) -> String {
        self.lab.file(name).to_string_lossy().into_owned()
    }
}

fn next_hop(attributes: &bgpkit_parser::models::Attributes) -> Option<IpAddr> {
    attributes.clone().into_attributes_iter().find_map(|a| match a.value {
        AttributeValue::NextHop(hop) => Some(hop),
        AttributeValue::MpReachNlri(nlri) => nlri.next_hop.map(|n| n.addr()),
        _ => None,
    })
}

fn check_dump(bytes: &[u8]) -> anyhow::Result<()> {
    let mut input = Cursor::new(bytes);
    let first = parse_mrt_record(&mut input).context("the first record")?;
    let MrtMessage::TableDumpV2Message(TableDumpV2Message::PeerIndexTable(index)) = first.message else {
        bail!("the first record is no index of peers");
    };
    ensure!(index.collector_bgp_id.to_string() == "10.96.0.1", "{index:?}");
    let mut prefixes = BTreeMap::new();
    while input.position() < bytes.len() as u64 {
        let record = parse_mrt_record(&mut input).context("a record")?;
        let MrtMessage::TableDumpV2Message(TableDumpV2Message::RibAfi(rib)) = record.message else {
            bail!("another record than of a prefix");
        };
        ensure!(rib.rib_entries.len() == 1, "{rib:?}");
        let entry = &rib.rib_entries[0];
        let peer = index.get_peer_by_id(&entry.peer_index).context("a peer that the index lacks")?;
        let path = entry.attributes.as_path().and_then(|p| p.to_u32_vec_opt(false)).unwrap_or_default();
        let communities = entry.attributes.iter_communities().count();
        let seen = (peer.peer_ip, peer.peer_asn.to_u32(), path, next_hop(&entry.attributes), communities);
        ensure!(
            prefixes.insert(rib.prefix.prefix.to_string(), seen).is_none(),
            "{} twice",
            rib.prefix.prefix
        );
    }
    // What import refuses is not in the table; our own route and BIRD's IPv6 route are.
    ensure!(prefixes.len() == ROUTES - 1 + 2, "{} prefixes", prefixes.len());
    ensure!(!prefixes.contains_key("20.0.9.0/24"));
    let bird: IpAddr = "10.96.0.2".parse()?;
    ensure!(
        prefixes["20.3.7.0/24"] == (bird, 65002, vec![65002, 65100], Some(bird), 1),
        "{:?}",
        prefixes["20.3.7.0/24"]
    );
    let six: IpAddr = "fd96::2".parse()?;
    ensure!(
        prefixes["2001:db8:7::/48"] == (six, 65002, vec![65002], Some(six), 0),
        "{:?}",
        prefixes["2001:db8:7::/48"]
    );
    let (from, asn, path, ..) = &prefixes["192.0.2.0/24"];
    ensure!((from.to_string().as_str(), *asn, path.len()) == ("0.0.0.0", 65001, 0), "{from} {asn} {path:?}");
    Ok(())
}

/// Prefixes announced and withdrawn, and the types of messages.
fn read_recording(bytes: &[u8]) -> anyhow::Result<(BTreeSet<String>, BTreeSet<String>, usize)> {
    let (mut announced, mut withdrawn, mut messages) = (BTreeSet::new(), BTreeSet::new(), 0);
    let mut input = Cursor::new(bytes);
    while input.position() < bytes.len() as u64 {
        let record = parse_mrt_record(&mut input).context("a record")?;
        let MrtMessage::Bgp4Mp(Bgp4MpEnum::Message(message)) = record.message else { bail!("no message") };
        ensure!(record.common_header.microsecond_timestamp.is_some(), "no microseconds");
        messages += 1;
        if let BgpMessage::Update(update) = message.bgp_message {
            announced.extend(update.announced_prefixes.iter().map(|p| p.prefix.to_string()));
            withdrawn.extend(update.withdrawn_prefixes.iter().map(|p| p.prefix.to_string()));
        }
    }
    Ok((announced, withdrawn, messages))
}

#[test]
fn mrt_files_of_a_running_router_are_what_other_programs_read() -> anyhow::Result<()> {
    let pair = Pair::start()?;

    let (file, begun) = (pair.file("table.mrt"), Instant::now());
    pair.ctl(&["mrt", "dump", &file])?;
    let took = begun.elapsed();
    let bytes = std::fs::read(&file)?;
    println!("a dump of {ROUTES} routes: {} octets in {took:?}", bytes.len());
    check_dump(&bytes)?;
    ensure!(!std::path::Path::new(&format!("{file}.part")).exists());

    // Messages while they are recorded: one more route, then without it.
    let recording = pair.file("updates.mrt");
    let (seconds, limit) = ("4", Duration::from_secs(4));
    let begun = Instant::now();
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let record =
            scope.spawn(|| pair.ctl(&["mrt", "record", &recording, "--peer", "bird", "--seconds", seconds]));
        std::thread::sleep(Duration::from_millis(800));
        pair.reconfigure("route 203.0.113.0/24 unreachable;")?;
        std::thread::sleep(Duration::from_millis(1200));
        pair.reconfigure("")?;
        record.join().expect("invariant: the thread does not panic").map(drop)
    })?;
    let took = begun.elapsed();
    ensure!((limit..limit + Duration::from_secs(3)).contains(&took), "recorded for {took:?}");
    let (announced, withdrawn, messages) = read_recording(&std::fs::read(&recording)?)?;
    ensure!(announced.contains("203.0.113.0/24"), "{announced:?}");
    ensure!(withdrawn.contains("203.0.113.0/24"), "{withdrawn:?}");
    println!("a recording of {messages} messages");

    // A bound on size: everything again, by a new session, does not fit.
    let small = pair.file("small.mrt");
    let sent = std::thread::scope(|scope| -> anyhow::Result<String> {
        let record = scope
            .spawn(|| pair.ctl(&["mrt", "record", &small, "--sent", "--megabytes", "0", "--seconds", "30"]));
        std::thread::sleep(Duration::from_millis(500));
        pair.right.sh(&format!("birdc -s {} restart left", pair.lab.file("bird.ctl").display()))?;
        record.join().expect("invariant: the thread does not panic")
    })?;
    ensure!(sent.is_empty(), "{sent}");
    let bytes = std::fs::read(&small)?;
    let (_, _, messages) = read_recording(&bytes)?;
    ensure!(messages == 1, "{messages} messages in {} octets", bytes.len());

    // Mistakes are said.
    let err = pair.ctl(&["mrt", "record", &small, "--peer", "nobody"]).unwrap_err().to_string();
    ensure!(err.contains("there is no peer nobody"), "{err}");
    let err = pair.ctl(&["mrt", "dump", "/proc/nowhere/table.mrt"]).unwrap_err().to_string();
    ensure!(err.contains("cannot be written"), "{err}");
    Ok(())
}
