//! One daemon on a LAN, and whoever a test puts beside it.
//!
//! ```text
//!   dut: caracal bird, 10.98.0.1, fd98::1, AS 65000
//!    |
//!   lan (bridge) -- raw: 10.98.0.10 to .29, octets of the test's own
//!    +-- hosts of the test: BIRD, a second caracal
//! ```

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bird_packet::OpenMessage;
use integration::lab::{Lab, Namespace, Process, eventually};
use integration::picture::binary;
use integration::raw::{self, RawPeer, Witness};

/// Enough for everything on a busy machine; a wait ends as soon as it can.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// The daemon's AS.
pub(crate) const AS: u32 = 65000;
/// Where it listens.
pub(crate) const DUT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 98, 0, 1)), 179);

/// A lab with the daemon's host and a host for raw peers.
pub(crate) struct Scene {
    pub(crate) dut: Namespace,
    pub(crate) raw: Namespace,
    pub(crate) lan: Namespace,
    pub(crate) lab: Lab,
}

/// A raw peer's address.
pub(crate) fn at(octet: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 98, 0, octet)
}

impl Scene {
    pub(crate) fn new(name: &str) -> Self {
        let mut lab = Lab::new(name).unwrap();
        let lan = lab.host("lan").unwrap();
        lan.bridge("br0").unwrap();
        let (dut, raw) = (lab.host("dut").unwrap(), lab.host("raw").unwrap());
        lan.wire("pd", &dut, "eth0", Some("br0")).unwrap();
        lan.wire("pr", &raw, "eth0", Some("br0")).unwrap();
        dut.address("eth0", "10.98.0.1/24".parse().unwrap()).unwrap();
        dut.address("eth0", "fd98::1/64".parse().unwrap()).unwrap();
        let mut lines = String::new();
        for octet in 10..30 {
            writeln!(lines, "addr add {}/24 dev eth0", at(octet)).unwrap();
            writeln!(lines, "addr add fd98::{octet}/64 dev eth0 nodad").unwrap();
        }
        let batch = lab.file("addresses");
        std::fs::write(&batch, lines).unwrap();
        raw.sh(&format!("ip -batch {}", batch.display())).unwrap();
        Self { dut, raw, lan, lab }
    }

    /// Another host on the LAN.
    pub(crate) fn host(&mut self, name: &str, octet: u8) -> Namespace {
        let space = self.lab.host(name).unwrap();
        self.lan.wire(&format!("p{octet}"), &space, "eth0", Some("br0")).unwrap();
        space.address("eth0", format!("{}/24", at(octet)).parse().unwrap()).unwrap();
        space.address("eth0", format!("fd98::{octet}/64").parse().unwrap()).unwrap();
        space
    }

    /// `caracal bird` with this file, running; its control socket is `<name>.ctl` in the lab's directory.
    pub(crate) fn daemon(&self, name: &str, space: &Namespace, yaml: &str) -> Process {
        let mut process = self.caracal(name, space, yaml);
        process.start().unwrap();
        process
    }

    /// The same, not started.
    pub(crate) fn caracal(&self, name: &str, space: &Namespace, yaml: &str) -> Process {
        let (file, socket) = (self.lab.file(&format!("{name}.yaml")), self.socket(name));
        std::fs::write(&file, format!("{yaml}\ncontrol: {socket}\n")).unwrap();
        let binary = binary().unwrap();
        let argv = [&binary.to_string_lossy(), "bird", "--config", &file.to_string_lossy()];
        Process::new(name, space, self.lab.dir(), &argv)
    }

    fn socket(&self, name: &str) -> String {
        self.lab.file(&format!("{name}.ctl")).to_string_lossy().into_owned()
    }

    /// The daemon under test, with neighbours as lines of YAML.
    pub(crate) fn dut(&self, neighbours: &[&str]) -> Process {
        let mut yaml = format!("routerId: 10.98.0.1\nasNumber: {AS}\nneighbours:\n");
        for line in neighbours {
            writeln!(yaml, "  - {{ {line} }}").unwrap();
        }
        self.daemon("dut", &self.dut, &yaml)
    }

    /// BIRD 2 with this configuration.
    pub(crate) fn bird(&self, name: &str, space: &Namespace, conf: &str) -> Process {
        self.bird_with(name, space, conf, &[])
    }

    /// The same with more arguments.
    pub(crate) fn bird_with(&self, name: &str, space: &Namespace, conf: &str, more: &[&str]) -> Process {
        let file = self.lab.file(&format!("{name}.conf"));
        std::fs::write(&file, format!("log stderr all;\nprotocol device {{ scan time 1; }}\n{conf}"))
            .unwrap();
        let (file, socket) = (file.to_string_lossy().into_owned(), self.socket(name));
        let argv = [&["bird", "-f", "-c", &file, "-s", &socket][..], more].concat();
        let mut process = Process::new(name, space, self.lab.dir(), &argv);
        process.start().unwrap();
        process
    }

    /// What a BIRD, or a daemon of ours, answers on its control socket.
    pub(crate) fn ask(&self, name: &str, line: &str) -> String {
        let talk = || -> std::io::Result<String> {
            let mut stream = UnixStream::connect(self.socket(name))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.write_all(format!("{line}\n").as_bytes())?;
            let mut text = String::new();
            for answer in BufReader::new(stream).lines() {
                let answer = answer?;
                // Four digits and a blank end an answer; 0001 is the greeting.
                let code = answer.get(..5).filter(|c| c.ends_with(' ')).map(|c| c.trim_end().parse::<u16>());
                text += &answer;
                text.push('\n');
                if matches!(code, Some(Ok(code)) if code != 1) {
                    break;
                }
            }
            Ok(text)
        };
        talk().unwrap_or_else(|err| err.to_string())
    }

    /// Whether the daemon `name` calls this peer's session Established.
    pub(crate) fn is_up(&self, name: &str, peer: &str) -> bool {
        let text = self.ask(name, "show protocols");
        text.lines().any(|l| l.split_whitespace().any(|w| w == peer) && l.contains("Established"))
    }

    /// A raw session with the daemon under test.
    pub(crate) fn session(&self, octet: u8, open: &OpenMessage) -> RawPeer {
        RawPeer::establish(&self.raw, at(octet).into(), DUT, open).unwrap_or_else(|err| self.fail(&err))
    }

    /// A session that only listens; the daemon's file must have it as a neighbour of AS 65100 at .29.
    pub(crate) fn witness(&self) -> Witness {
        let peer = self.session(29, &raw::open(65100, at(29)));
        Witness::start(peer, false, None)
    }

    /// Ends the test with the logs.
    pub(crate) fn fail(&self, why: &dyn std::fmt::Display) -> ! {
        panic!("{why:#}\n{}", self.lab.logs(60));
    }

    /// Waits for something, or ends the test with the logs. How long it took.
    pub(crate) fn until(&self, limit: Duration, check: impl FnMut() -> Result<(), String>) -> Duration {
        match eventually(limit, check) {
            Ok(((), took)) => took,
            Err(err) => self.fail(&err),
        }
    }

    /// Waits until the kernel of `space` has, or has not, a route of ours to `prefix` whose line contains `part`.
    pub(crate) fn route(&self, space: &Namespace, prefix: &str, part: Option<&str>) -> Duration {
        self.until(SOON, || {
            let line = route(space, prefix);
            let fits = match (part, &line) {
                (Some(part), Some(line)) => line.contains(part),
                (None, None) => true,
                _ => false,
            };
            if fits { Ok(()) } else { Err(format!("{prefix}: {line:?}, wanted {part:?}")) }
        })
    }
}

/// The line of the kernel's route of ours to `prefix`.
pub(crate) fn route(space: &Namespace, prefix: &str) -> Option<String> {
    let family = if prefix.contains(':') { "-6" } else { "-4" };
    let text = space.sh(&format!("ip {family} route show proto bird exact {prefix}")).ok()?;
    text.lines().next().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// How many routes of ours the kernel has.
pub(crate) fn count(space: &Namespace) -> usize {
    let text = space.sh("ip -4 route show proto bird | wc -l").unwrap_or_default();
    text.trim().parse().unwrap_or(usize::MAX)
}

/// Resident memory of a process in KiB.
pub(crate) fn resident(process: &mut Process) -> u64 {
    let pid = process.pid().expect("invariant: it runs");
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|w| w.parse().ok()).unwrap_or_default()
}

/// Open descriptors of a process.
pub(crate) fn descriptors(process: &mut Process) -> usize {
    let pid = process.pid().expect("invariant: it runs");
    std::fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).unwrap_or_default()
}

/// CPU time of a process, user and system.
pub(crate) fn cpu(process: &mut Process) -> Duration {
    let pid = process.pid().expect("invariant: it runs");
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|w| w.parse::<u64>().ok()).unwrap_or_default();
    // utime and stime, fields 14 and 15 of proc(5), in hundredths of a second on every Linux of ours.
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

/// One UPDATE for each `size` of `count` /32 prefixes from 11.0.0.0 on, all by `next_hop`.
pub(crate) fn many(asn: u32, next_hop: Ipv4Addr, count: u32, announce: bool) -> Vec<u8> {
    const SIZE: usize = 700;
    let attrs = raw::attributes(&[asn], next_hop);
    let all: Vec<u32> = (0..count).map(|n| 0x0b00_0000 + n).collect();
    let mut bytes = Vec::new();
    for part in all.chunks(SIZE) {
        let nlri: Vec<u8> = part.iter().flat_map(|n| [[32].as_slice(), &n.to_be_bytes()].concat()).collect();
        bytes.extend(if announce { raw::update(&attrs, &nlri) } else { raw::withdraw(&nlri) });
    }
    bytes
}

/// How long `work` took.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = work();
    (value, start.elapsed())
}
