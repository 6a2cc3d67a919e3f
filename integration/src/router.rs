//! The physical router in front of the nodes: real BIRD, real FRR, or `caracal bird` from a file.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Context as _;

use crate::lab::{Lab, Namespace, Process};

/// Which program is the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterKind {
    /// `caracal bird --config`: needs nothing installed.
    Caracal,
    /// BIRD 2.
    Bird,
    /// FRR's zebra and bgpd.
    Frr,
}

/// The running router.
#[derive(Debug)]
pub struct Router {
    /// Where it runs.
    pub space: Namespace,
    /// Its programs.
    pub processes: Vec<Process>,
}

/// What the router is told.
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// Its own address and router id.
    pub address: Ipv4Addr,
    /// Its AS.
    pub asn: u32,
    /// Name, address and AS of each neighbour.
    pub neighbours: Vec<(String, Ipv4Addr, u32)>,
}

impl Router {
    /// Starts the router in `space`.
    pub fn start(
        kind: RouterKind,
        lab: &Lab,
        space: &Namespace,
        config: &RouterConfig,
        binary: &Path,
    ) -> anyhow::Result<Self> {
        let mut router = Self { space: space.clone(), processes: Vec::new() };
        let dir = lab.file("router");
        std::fs::create_dir_all(&dir)?;
        space.sysctl("net/ipv4/ip_forward", "1");
        match kind {
            RouterKind::Caracal => {
                let file = dir.join("router.yaml");
                std::fs::write(&file, caracal_yaml(config))?;
                let run = Process::new(
                    "router",
                    space,
                    lab.dir(),
                    &[&binary.to_string_lossy(), "bird", "--config", &file.to_string_lossy()],
                )
                .env("CARACAL_RUN_DIR", &dir.to_string_lossy());
                router.processes.push(run);
            }
            RouterKind::Bird => {
                let file = dir.join("bird.conf");
                std::fs::write(&file, bird_conf(config))?;
                router.processes.push(Process::new(
                    "router",
                    space,
                    lab.dir(),
                    &[
                        "bird",
                        "-f",
                        "-c",
                        &file.to_string_lossy(),
                        "-s",
                        &dir.join("bird.ctl").to_string_lossy(),
                    ],
                ));
            }
            RouterKind::Frr => {
                let file = dir.join("frr.conf");
                std::fs::write(&file, frr_conf(config))?;
                // FRR drops its rights to the user frr, which must reach its directory.
                std::os::unix::fs::chown(&dir, uid("frr"), None).context("lab: the directory of FRR")?;
                std::fs::set_permissions(lab.dir(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
                for daemon in ["zebra", "bgpd"] {
                    let name = format!("router-{daemon}");
                    router.processes.push(frr_daemon(&name, daemon, space, lab.dir(), &dir, &file));
                }
            }
        }
        router.restart()?;
        Ok(router)
    }

    /// Starts its programs again.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        for process in &mut self.processes {
            process.start()?;
        }
        Ok(())
    }

    /// kill -9 of its programs.
    pub fn kill(&mut self) {
        for process in &mut self.processes {
            process.kill();
        }
    }
}

fn caracal_yaml(config: &RouterConfig) -> String {
    let mut text = format!(
        "routerId: {}\nasNumber: {}\nlisten: [\"{}:179\"]\nfib: {{ program: true }}\nneighbours:\n",
        config.address, config.asn, config.address
    );
    for (name, address, asn) in &config.neighbours {
        let _ = writeln!(text, "  - name: {name}\n    address: {address}\n    asNumber: {asn}");
    }
    text
}

fn bird_conf(config: &RouterConfig) -> String {
    let mut text = format!(
        "router id {};\nlog stderr all;\nprotocol device {{}}\nprotocol kernel {{ ipv4 {{ export all; }}; }}\n",
        config.address
    );
    for (name, address, asn) in &config.neighbours {
        let _ = writeln!(
            text,
            "protocol bgp {name} {{ local {} as {}; neighbor {address} as {asn}; connect delay time 1; \
             ipv4 {{ import all; export none; }}; }}",
            config.address, config.asn
        );
    }
    text
}

fn frr_conf(config: &RouterConfig) -> String {
    let mut text = format!(
        "router bgp {}\n bgp router-id {}\n no bgp ebgp-requires-policy\n no bgp network import-check\n",
        config.asn, config.address
    );
    for (_, address, asn) in &config.neighbours {
        let _ = writeln!(text, " neighbor {address} remote-as {asn}\n neighbor {address} timers connect 1");
    }
    text += " address-family ipv4 unicast\n";
    for (_, address, _) in &config.neighbours {
        let _ = writeln!(text, "  neighbor {address} route-map NONE out");
    }
    text += " exit-address-family\nroute-map NONE deny 10\n";
    text
}

/// A daemon of FRR (`zebra`, `bgpd`, `bfdd`), not yet started. Its sockets lie in `dir`, which the user frr must reach.
pub fn frr_daemon(
    name: &str,
    daemon: &str,
    space: &Namespace,
    logs: &Path,
    dir: &Path,
    conf: &Path,
) -> Process {
    let path = |file: &str| dir.join(file).to_string_lossy().into_owned();
    let (program, conf) = (format!("/usr/lib/frr/{daemon}"), conf.to_string_lossy());
    let (zserv, bfdctl, vty) = (path("zserv.api"), path("bfdd.sock"), dir.to_string_lossy());
    let pid = path(&format!("{daemon}.pid"));
    let mut argv = vec![&*program, "-f", &conf, "-z", &zserv, "--vty_socket", &vty, "-i", &pid];
    argv.extend(["-P", "0", "--log", "stdout"]);
    if daemon == "bfdd" {
        argv.extend(["--bfdctl", &bfdctl]);
    }
    Process::new(name, space, logs, &argv)
}

/// The number of a user of this host.
pub fn uid(user: &str) -> Option<u32> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find(|line| line.split(':').next() == Some(user))?;
    line.split(':').nth(2)?.parse().ok()
}
