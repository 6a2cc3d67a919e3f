//! OpenBGPD. Its portable version writes no kernel routes on Linux.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::Context as _;
use integration::lab::Process;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{Host, Peer, Route, numbers};
use crate::spec::{Announce, Family, Restart, Speaker, address, router_id};
use crate::wait::wait;

pub(super) struct Openbgpd {
    host: Host,
    process: Process,
}

impl Openbgpd {
    pub(super) fn new(host: Host, speaker: &Speaker) -> anyhow::Result<Self> {
        let file = host.write("bgpd.conf", &conf(speaker, &host.path("bgpd.sock")))?;
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600))?;
        std::fs::create_dir_all("/run/openbgpd").context("the directory of OpenBGPD")?;
        let process = host.process("openbgpd", &["/usr/sbin/bgpd", "-d", "-f", &file]);
        Ok(Self { host, process })
    }

    fn bgpctl(&self, command: &str) -> anyhow::Result<String> {
        let socket = self.host.path("bgpd.sock");
        let mut argv = vec!["bgpctl", "-s", &socket];
        argv.extend(command.split(' '));
        self.host.ask(&argv)
    }
}

impl Peer for Openbgpd {
    fn start(&mut self, _: bool) -> anyhow::Result<()> {
        // What comes before it has its configuration is passed on as if that were empty.
        const READY: &str = "RDE soft reconfiguration done";
        let before = self.process.log().matches(READY).count();
        self.host.hold()?;
        self.process.start()?;
        wait(Duration::from_secs(10), || {
            let ready = self.process.log().matches(READY).count() > before;
            if ready { Ok(()) } else { Err("OpenBGPD is not ready".to_owned()) }
        })?;
        self.host.release()
    }

    fn kill(&mut self) {
        // The parent alone would be survived by the engine that speaks, until that notices.
        if let Some(parent) = self.process.pid() {
            let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
            for child in numbers(&children.unwrap_or_default()) {
                let _ = kill(Pid::from_raw(child.cast_signed()), Signal::SIGKILL);
            }
        }
        self.process.kill();
        let _ = std::fs::remove_file(self.host.dir.join("bgpd.sock"));
    }

    fn established(&self, neighbour: IpAddr) -> anyhow::Result<bool> {
        let state: Value = serde_json::from_str(&self.describe(neighbour)?)?;
        Ok(state["neighbors"][0]["state"] == "Established")
    }

    fn routes(&self) -> anyhow::Result<Vec<Route>> {
        let all: Value = serde_json::from_str(&self.bgpctl("-j show rib detail")?)?;
        let mut routes = Vec::new();
        for path in all["rib"].as_array().into_iter().flatten() {
            let Some(prefix) = path["prefix"].as_str().and_then(|p| p.parse().ok()) else { continue };
            let list = |value: &Value| -> Vec<String> {
                value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
            };
            // What has no key of its own stands among the attributes.
            let attribute = |key: &str| {
                let all = path["attributes"].as_array().into_iter().flatten();
                all.map(|a| &a[key]).find(|v| !v.is_null()).cloned().unwrap_or_default()
            };
            routes.push(Route {
                next_hop: path["exit_nexthop"].as_str().and_then(|a| a.parse().ok()),
                as_path: path["aspath"].as_str().map(numbers).unwrap_or_default(),
                local_pref: path["localpref"].as_u64().and_then(|v| v.try_into().ok()),
                communities: list(&path["communities"]),
                large: list(&path["large_communities"]),
                extended: list(&path["extended_communities"]).iter().map(|c| c.replace(' ', ":")).collect(),
                originator: attribute("originator").as_str().and_then(|a| a.parse().ok()),
                clusters: list(&attribute("cluster_list")).iter().filter_map(|a| a.parse().ok()).collect(),
                stale: path["stale"] == true,
                ..Route::new(prefix)
            });
        }
        Ok(routes)
    }

    fn withdraw(&mut self, announce: &Announce) -> anyhow::Result<()> {
        // `network delete` takes only what was added at run time; an added one replaces the configured one.
        self.bgpctl(&format!("network add {}", announce.prefix))?;
        self.bgpctl(&format!("network delete {}", announce.prefix)).map(drop)
    }

    fn refresh(&mut self, neighbour: IpAddr) -> anyhow::Result<()> {
        self.bgpctl(&format!("neighbor {neighbour} refresh")).map(drop)
    }

    fn refreshes(&self, neighbour: IpAddr) -> anyhow::Result<Option<(u64, u64)>> {
        let state: Value = serde_json::from_str(&self.describe(neighbour)?)?;
        let messages = &state["neighbors"][0]["stats"]["message"];
        let count = |way: &str| messages[way]["route_refresh"].as_u64();
        Ok(count("sent").zip(count("received")))
    }

    fn describe(&self, neighbour: IpAddr) -> anyhow::Result<String> {
        self.bgpctl(&format!("-j show neighbor {neighbour}"))
    }
}

fn conf(speaker: &Speaker, socket: &str) -> String {
    let mut text = format!(
        "AS {}\nrouter-id {}\nconnect-retry 1\nsocket \"{socket}\"\nfib-update no\nnexthop qualify via default\n",
        speaker.asn,
        router_id(speaker.number)
    );
    for announce in &speaker.announces {
        let mut sets = String::new();
        for (word, values) in [
            ("community", &announce.communities),
            ("large-community", &announce.large),
            ("ext-community rt", &announce.targets),
        ] {
            for value in values {
                let _ = write!(sets, " {word} {value}");
            }
        }
        let sets = if sets.is_empty() { sets } else { format!(" set {{{sets} }}") };
        let _ = writeln!(text, "network {}{sets}", announce.prefix);
    }
    for n in &speaker.neighbours {
        let _ = writeln!(
            text,
            "neighbor {} {{\n remote-as {}\n holdtime 9\n local-address {}\n local-address {}",
            n.address(),
            n.asn,
            address(speaker.number, Family::V4),
            address(speaker.number, Family::V6)
        );
        for (family, word) in [(Family::V4, "IPv4"), (Family::V6, "IPv6")] {
            let what = if n.carries(family) { "unicast" } else { "none" };
            let _ = writeln!(text, " announce {word} {what}");
        }
        if let Some(password) = n.password {
            let _ = writeln!(text, " tcp md5sig password {password}");
        }
        for (on, line) in [
            (n.ttl_security, " ttl-security yes"),
            (n.client, " route-reflector"),
            (n.add_path, " announce add-path recv yes\n announce add-path send all"),
            (n.graceful_restart == Restart::No, " announce restart no"),
        ] {
            if on {
                let _ = writeln!(text, "{line}");
            }
        }
        if let Some(limit) = n.max_prefixes {
            let _ = writeln!(text, " max-prefix {limit}");
        }
        text += "}\n";
    }
    text + "allow from any\nallow to any\n"
}
