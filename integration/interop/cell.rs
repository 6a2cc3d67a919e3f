//! One cell: a LAN, our speaker on host 1, the daemon on host 2, and whoever else a feature needs.
//!
//! ```text
//!   host 1: ours (10.99.0.1, fd99::1) --+-- bridge --+-- host 2: the daemon (10.99.0.2, fd99::2)
//!                  host 3: as needed ---+            +--- host 4: as needed
//! ```

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use integration::lab::{Lab, Namespace, Process};
use ipnet::IpNet;

use crate::peers::{Host, Kind, Peer, Route, ours};
use crate::spec::{Family, Speaker, address};
use crate::wait::wait;

/// How long a state may take to come.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// What a feature's test is given.
pub(crate) struct Cell {
    pub(crate) kind: Kind,
    /// What of a feature the daemon cannot, when the rest holds.
    pub(crate) partly: Option<&'static str>,
    lab: Lab,
    lan: Namespace,
    capture: Option<Process>,
}

/// A route that only tells whether changes are heard.
const PROBE: &str = "198.51.100.0/24";

/// Every change of a host's routes.
pub(crate) struct KernelWatch(Process);

impl KernelWatch {
    /// `Err` with what went, if something did.
    pub(crate) fn nothing_deleted(&self) -> anyhow::Result<()> {
        let gone: Vec<String> = self
            .0
            .log()
            .lines()
            .filter(|l| l.contains("Deleted") && l.contains("proto bird"))
            .map(str::to_owned)
            .collect();
        anyhow::ensure!(gone.is_empty(), "kernel routes went: {gone:?}");
        Ok(())
    }
}

/// A running speaker of a cell.
pub(crate) struct Running {
    pub(crate) number: u8,
    pub(crate) host: Host,
    pub(crate) peer: Box<dyn Peer>,
}

impl Cell {
    pub(crate) fn new(kind: Kind, feature: &str) -> anyhow::Result<Self> {
        let mut lab = Lab::new(&format!("io-{}-{feature}", kind.package()))?;
        // FRR's daemons reach their directory as another user.
        std::fs::set_permissions(lab.dir(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let lan = lab.host("lan")?;
        lan.bridge("br0")?;
        Ok(Self { kind, partly: None, lab, lan, capture: None })
    }

    /// Starts one of ours.
    pub(crate) fn ours(&mut self, speaker: &Speaker) -> anyhow::Result<Running> {
        let host = self.host("ours", speaker.number)?;
        let peer = ours(host.clone(), speaker)?;
        Self::run(speaker.number, host, peer)
    }

    /// Starts one of the daemon.
    pub(crate) fn theirs(&mut self, speaker: &Speaker) -> anyhow::Result<Running> {
        let host = self.host(self.kind.package(), speaker.number)?;
        let peer = self.kind.make(host.clone(), speaker)?;
        Self::run(speaker.number, host, peer)
    }

    fn run(number: u8, host: Host, mut peer: Box<dyn Peer>) -> anyhow::Result<Running> {
        peer.start(false)?;
        Ok(Running { number, host, peer })
    }

    fn host(&mut self, what: &str, number: u8) -> anyhow::Result<Host> {
        let space = self.lab.host(&format!("h{number}"))?;
        self.lan.wire(&format!("p{number}"), &space, "eth0", Some("br0"))?;
        for (family, length) in [(Family::V4, 24), (Family::V6, 64)] {
            space.address("eth0", IpNet::new(address(number, family), length)?)?;
        }
        let name = format!("h{number}-{what}");
        let dir = self.lab.file(&name);
        std::fs::create_dir_all(&dir)?;
        Ok(Host { name, space, logs: self.lab.dir().to_owned(), dir })
    }

    /// From now on keeps every BGP packet that passes our host; call it when ours runs.
    pub(crate) fn capture(&mut self, at: &Running) -> anyhow::Result<()> {
        let file = self.lab.file("bgp.pcap").to_string_lossy().into_owned();
        let argv = [
            "tcpdump",
            "-Z",
            "root",
            "-U",
            "--immediate-mode",
            "-n",
            "-i",
            "eth0",
            "-w",
            &file,
            "tcp port 179",
        ];
        let mut process = Process::new("tcpdump", &at.host.space, self.lab.dir(), &argv);
        process.start()?;
        wait(SOON, || if process.log().contains("listening on") { Ok(()) } else { Err(process.log()) })?;
        self.capture = Some(process);
        Ok(())
    }

    /// What was captured so far, as tcpdump prints it.
    pub(crate) fn captured(&self, how: &str) -> anyhow::Result<String> {
        self.lan
            .sh(&format!("tcpdump -n {how} -r {} 2>/dev/null || true", self.lab.file("bgp.pcap").display()))
    }

    /// The end of every log.
    pub(crate) fn logs(&self, lines: usize) -> String {
        self.lab.logs(lines)
    }
}

impl Running {
    /// From now on hears of every change of the kernel's routes here.
    pub(crate) fn watch_kernel(&self) -> anyhow::Result<KernelWatch> {
        let argv = ["ip", "-o", "monitor", "route"];
        let mut process = Process::new("monitor", &self.host.space, &self.host.logs, &argv);
        process.start()?;
        // It says nothing by itself when it has begun.
        let probe = format!("ip route add {PROBE} dev lo && ip route del {PROBE} dev lo");
        wait(SOON, || {
            self.host.space.sh(&probe).map_err(|e| e.to_string())?;
            if process.log().contains(PROBE) { Ok(()) } else { Err("ip monitor is silent".to_owned()) }
        })?;
        Ok(KernelWatch(process))
    }

    /// Waits until this end says that its BFD session with an address is up.
    pub(crate) fn watched(&self, neighbour: IpAddr) -> anyhow::Result<()> {
        wait(SOON, || match self.peer.watched(neighbour) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("{}: no BFD session with {neighbour}", self.host.name)),
            Err(err) => Err(format!("{}: {err:#}", self.host.name)),
        })
    }

    /// Waits until this end says that the session with an address is up.
    pub(crate) fn up(&self, neighbour: IpAddr) -> anyhow::Result<()> {
        wait(SOON, || match self.peer.established(neighbour) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("{}: no session with {neighbour}", self.host.name)),
            Err(err) => Err(format!("{}: {err:#}", self.host.name)),
        })
    }

    /// Waits until one path of `prefix` here satisfies `test`, which says what is wrong.
    pub(crate) fn has(
        &self,
        prefix: IpNet,
        test: impl Fn(&Route) -> Result<(), String>,
    ) -> anyhow::Result<Route> {
        wait(SOON, || {
            let mut complaint = format!("{}: {prefix} is not there", self.host.name);
            for route in self.peer.routes().map_err(|e| format!("{}: {e:#}", self.host.name))? {
                if route.prefix != prefix {
                    continue;
                }
                match test(&route) {
                    Ok(()) => return Ok(route),
                    Err(why) => complaint = format!("{}: {prefix}: {why}: {route:?}", self.host.name),
                }
            }
            Err(complaint)
        })
    }

    /// Waits until there are exactly `count` paths of `prefix` here.
    pub(crate) fn has_paths(&self, prefix: IpNet, count: usize) -> anyhow::Result<()> {
        wait(SOON, || {
            let routes = self.peer.routes().map_err(|e| format!("{}: {e:#}", self.host.name))?;
            let paths: Vec<&Route> = routes.iter().filter(|r| r.prefix == prefix).collect();
            if paths.len() == count {
                return Ok(());
            }
            Err(format!("{}: {prefix}: {} paths, not {count}: {paths:?}", self.host.name, paths.len()))
        })
    }

    /// There is no path of `prefix` here, and none comes within two seconds: FRR waits one before it tells anything.
    pub(crate) fn stays_without(&self, prefix: IpNet) -> anyhow::Result<()> {
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(2) {
            let routes = self.peer.routes()?;
            let there = routes.iter().find(|r| r.prefix == prefix);
            anyhow::ensure!(there.is_none(), "{}: {there:?}", self.host.name);
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Waits until the kernel here has a route to `prefix` by `via`.
    pub(crate) fn kernel_has(&self, prefix: IpNet, via: &str) -> anyhow::Result<()> {
        let family = if prefix.addr().is_ipv4() { "-4" } else { "-6" };
        wait(SOON, || {
            let text = self
                .host
                .space
                .sh(&format!("ip {family} route show {prefix} proto bird"))
                .map_err(|e| e.to_string())?;
            if text.contains(via) {
                Ok(())
            } else {
                Err(format!("kernel route of {prefix}: {text:?}, not by {via}"))
            }
        })
        .context("our kernel")
    }
}
