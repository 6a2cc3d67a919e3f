//! The daemons: how each is configured, started and asked.

mod bird;
mod caracal;
mod exabgp;
mod frr;
mod gobgp;
mod openbgpd;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use integration::lab::{Namespace, Process, run_in};
use ipnet::IpNet;

use crate::spec::{Announce, Speaker};

/// A path that a speaker holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Route {
    pub(crate) prefix: IpNet,
    pub(crate) next_hop: Option<IpAddr>,
    pub(crate) as_path: Vec<u32>,
    pub(crate) local_pref: Option<u32>,
    /// `a:b`.
    pub(crate) communities: Vec<String>,
    /// `a:b:c`.
    pub(crate) large: Vec<String>,
    /// `rt:a:b`.
    pub(crate) extended: Vec<String>,
    pub(crate) originator: Option<Ipv4Addr>,
    pub(crate) clusters: Vec<Ipv4Addr>,
    /// Kept over a restart of its neighbour.
    pub(crate) stale: bool,
    /// Ours says: kept as the last resort. Others show it by the community [`LLGR_STALE`].
    pub(crate) long_lived: bool,
}

/// RFC 9494 §4.
pub(crate) const LLGR_STALE: &str = "65535:6";

impl Route {
    pub(crate) fn new(prefix: IpNet) -> Self {
        Self {
            prefix,
            next_hop: None,
            as_path: Vec::new(),
            local_pref: None,
            communities: Vec::new(),
            large: Vec::new(),
            extended: Vec::new(),
            originator: None,
            clusters: Vec::new(),
            stale: false,
            long_lived: false,
        }
    }
}

/// A daemon on a host of a cell.
pub(crate) trait Peer {
    /// Starts it. `again`: after a crash, so that it restarts gracefully if it can.
    fn start(&mut self, again: bool) -> anyhow::Result<()>;
    /// kill -9 of what speaks BGP.
    fn kill(&mut self);
    /// Whether it says that the session with a neighbour is established.
    fn established(&self, neighbour: IpAddr) -> anyhow::Result<bool>;
    /// All paths that it holds, its own included.
    fn routes(&self) -> anyhow::Result<Vec<Route>>;
    /// Stops announcing a prefix that it originates.
    fn withdraw(&mut self, announce: &Announce) -> anyhow::Result<()>;
    /// Asks a neighbour for its routes again (RFC 2918).
    fn refresh(&mut self, neighbour: IpAddr) -> anyhow::Result<()>;
    /// How often it says that it asked a neighbour for its routes again, and was asked by it; none if it does not count.
    fn refreshes(&self, _: IpAddr) -> anyhow::Result<Option<(u64, u64)>> {
        Ok(None)
    }
    /// Whether it says that its BFD session with a neighbour is up.
    fn watched(&self, neighbour: IpAddr) -> anyhow::Result<bool> {
        anyhow::bail!("it has no BFD session with {neighbour}")
    }
    /// What it knows about the session with a neighbour, in its own words.
    fn describe(&self, neighbour: IpAddr) -> anyhow::Result<String>;
}

/// Where a daemon runs.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) space: Namespace,
    /// Where the logs go.
    pub(crate) logs: PathBuf,
    /// Its own directory.
    pub(crate) dir: PathBuf,
}

impl Host {
    /// Writes a file of this host; its path.
    fn write(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let path = self.dir.join(name);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path.to_string_lossy().into_owned())
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    /// Nothing of BGP leaves the host until [`Host::release`]: for daemons that speak before they are ready.
    fn hold(&self) -> anyhow::Result<()> {
        let line = "nft add table inet hold; nft add chain inet hold out '{ type filter hook output priority 0; }'; \
                    nft add rule inet hold out tcp dport 179 drop; nft add rule inet hold out tcp sport 179 drop";
        self.space.sh(line).map(drop)
    }

    fn release(&self) -> anyhow::Result<()> {
        self.space.sh("nft delete table inet hold").map(drop)
    }

    fn process(&self, program: &str, argv: &[&str]) -> Process {
        Process::new(&format!("{}-{program}", self.name), &self.space, &self.logs, argv)
    }

    /// Runs a client of a daemon; its standard output.
    fn ask(&self, argv: &[&str]) -> anyhow::Result<String> {
        let (good, out, err) = run_in(&self.space, argv, &[])?;
        anyhow::ensure!(good, "{}: {out}{err}", argv.join(" "));
        Ok(out)
    }
}

/// Which daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bird,
    Frr,
    Gobgp,
    Openbgpd,
    Exabgp,
}

impl Kind {
    pub(crate) const ALL: [Kind; 5] = [Kind::Bird, Kind::Frr, Kind::Gobgp, Kind::Openbgpd, Kind::Exabgp];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Bird => "BIRD",
            Kind::Frr => "FRR",
            Kind::Gobgp => "GoBGP",
            Kind::Openbgpd => "OpenBGPD",
            Kind::Exabgp => "ExaBGP",
        }
    }

    /// It passes on what it hears; ExaBGP only reports it.
    pub(crate) fn is_router(self) -> bool {
        self != Kind::Exabgp
    }

    /// Its Debian package.
    pub(crate) fn package(self) -> &'static str {
        match self {
            Kind::Bird => "bird2",
            Kind::Frr => "frr",
            Kind::Gobgp => "gobgpd",
            Kind::Openbgpd => "openbgpd",
            Kind::Exabgp => "exabgp",
        }
    }

    /// Version of the installed package without Debian's part, `None` when it is not installed.
    pub(crate) fn version(self) -> Option<String> {
        let output = Command::new("dpkg-query")
            .args(["-W", "-f=${Status} ${Version}", self.package()])
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.strip_prefix("install ok installed ")?;
        Some(version.split('-').next().unwrap_or(version).to_owned())
    }

    /// One of it on a host, not yet started.
    pub(crate) fn make(self, host: Host, speaker: &Speaker) -> anyhow::Result<Box<dyn Peer>> {
        Ok(match self {
            Kind::Bird => Box::new(bird::Bird::new(host, speaker)?),
            Kind::Frr => Box::new(frr::Frr::new(host, speaker)?),
            Kind::Gobgp => Box::new(gobgp::Gobgp::new(host, speaker)?),
            Kind::Openbgpd => Box::new(openbgpd::Openbgpd::new(host, speaker)?),
            Kind::Exabgp => Box::new(exabgp::Exabgp::new(host, speaker)?),
        })
    }
}

/// One of ours on a host, not yet started.
pub(crate) fn ours(host: Host, speaker: &Speaker) -> anyhow::Result<Box<dyn Peer>> {
    Ok(Box::new(caracal::Caracal::new(host, speaker)?))
}

/// Numbers in a text, whatever stands between them.
fn numbers(text: &str) -> Vec<u32> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect()
}

/// `a:b` from 32 bits.
fn community(value: u64) -> String {
    format!("{}:{}", value >> 16, value & 0xffff)
}
