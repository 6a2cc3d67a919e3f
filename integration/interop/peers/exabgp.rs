//! ExaBGP. It keeps no table: what it holds is replayed from the messages that it reports.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;

use anyhow::Context as _;
use integration::lab::Process;
use ipnet::IpNet;
use nix::sys::stat::Mode;
use serde_json::Value;

use super::{Host, Peer, Route};
use crate::spec::{Announce, Family, Restart, Speaker, address, router_id};

pub(super) struct Exabgp {
    host: Host,
    process: Process,
    speaker: Speaker,
}

impl Exabgp {
    pub(super) fn new(host: Host, speaker: &Speaker) -> anyhow::Result<Self> {
        nix::unistd::mkfifo(&host.dir.join("commands"), Mode::from_bits_truncate(0o600))
            .context("commands")?;
        // What ExaBGP reports goes to a file; what is written into the pipe is a command.
        let tap = host.write(
            "tap",
            &format!(
                "#!/bin/sh\ncat <>{} &\nwhile IFS= read -r line; do printf '%s\\n' \"$line\" >>{}; done\nkill $!\n",
                host.path("commands"),
                host.path("said.json")
            ),
        )?;
        std::fs::set_permissions(&tap, PermissionsExt::from_mode(0o700))?;
        let file = host.write("exabgp.conf", &conf(speaker, &tap))?;
        let process = host
            .process("exabgp", &["/usr/sbin/exabgp", &file])
            .env("exabgp.daemon.user", "root")
            .env("exabgp.daemon.drop", "false")
            .env("exabgp.api.cli", "false")
            .env("exabgp.api.ack", "false")
            .env("exabgp.tcp.attempts", "0");
        Ok(Self { host, process, speaker: speaker.clone() })
    }

    fn command(&self, line: &str) -> anyhow::Result<()> {
        let mut pipe =
            std::fs::OpenOptions::new().read(true).write(true).open(self.host.dir.join("commands"))?;
        writeln!(pipe, "{line}").context("command to ExaBGP")
    }

    fn said(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.host.dir.join("said.json")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl Peer for Exabgp {
    fn start(&mut self, _: bool) -> anyhow::Result<()> {
        let _ = std::fs::remove_file(self.host.dir.join("said.json"));
        self.process.start()
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    fn established(&self, neighbour: IpAddr) -> anyhow::Result<bool> {
        let (of, mut up) = (neighbour.to_string(), false);
        for message in self.said() {
            if message["type"] == "state" && message["neighbor"]["address"]["peer"] == of {
                up = message["neighbor"]["state"] == "up";
            }
        }
        Ok(up)
    }

    fn routes(&self) -> anyhow::Result<Vec<Route>> {
        let mut held: BTreeMap<(String, IpNet, String), Route> = BTreeMap::new();
        for message in self.said() {
            let neighbour = &message["neighbor"];
            let from = neighbour["address"]["peer"].as_str().unwrap_or_default().to_owned();
            if message["type"] == "state" {
                held.retain(|(peer, ..), _| *peer != from);
            }
            let update = &neighbour["message"]["update"];
            for (_, hops) in update["announce"].as_object().into_iter().flatten() {
                for (next_hop, entries) in hops.as_object().into_iter().flatten() {
                    for (prefix, id) in prefixes(entries) {
                        let mut route = route(prefix, &update["attribute"]);
                        route.next_hop = next_hop.parse().ok();
                        held.insert((from.clone(), prefix, id), route);
                    }
                }
            }
            for (_, entries) in update["withdraw"].as_object().into_iter().flatten() {
                for (prefix, id) in prefixes(entries) {
                    held.remove(&(from.clone(), prefix, id));
                }
            }
        }
        let own = self.speaker.announces.iter().map(|a| Route::new(a.prefix));
        Ok(held.into_values().chain(own).collect())
    }

    fn withdraw(&mut self, announce: &Announce) -> anyhow::Result<()> {
        let hop = address(self.speaker.number, announce.family());
        self.command(&format!("withdraw route {} next-hop {hop}", announce.prefix))?;
        self.speaker.announces.retain(|a| a.prefix != announce.prefix);
        Ok(())
    }

    fn refresh(&mut self, neighbour: IpAddr) -> anyhow::Result<()> {
        self.command(&format!("neighbor {neighbour} announce route-refresh ipv4 unicast"))
    }

    fn describe(&self, neighbour: IpAddr) -> anyhow::Result<String> {
        let of = neighbour.to_string();
        let messages: Vec<String> = self
            .said()
            .iter()
            .filter(|m| m["type"] != "update" && m["neighbor"]["address"]["peer"] == of)
            .map(ToString::to_string)
            .collect();
        Ok(messages.join("\n"))
    }
}

/// Prefixes with their path identifiers.
fn prefixes(entries: &Value) -> Vec<(IpNet, String)> {
    let one = |entry: &Value| -> Option<(IpNet, String)> {
        let prefix = entry.as_str().or_else(|| entry["nlri"].as_str())?.parse().ok()?;
        Some((prefix, entry["path-information"].as_str().unwrap_or_default().to_owned()))
    };
    entries.as_array().into_iter().flatten().filter_map(one).collect()
}

fn route(prefix: IpNet, attribute: &Value) -> Route {
    let each = |key: &str| attribute[key].as_array().cloned().unwrap_or_default();
    let joined = |parts: &Value| -> String {
        let parts = parts.as_array().cloned().unwrap_or_default();
        parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(":")
    };
    let small = |value: &Value| value.as_u64().and_then(|v| u32::try_from(v).ok());
    Route {
        as_path: each("as-path").iter().filter_map(small).collect(),
        local_pref: small(&attribute["local-preference"]),
        communities: each("community").iter().map(joined).collect(),
        large: each("large-community").iter().map(joined).collect(),
        extended: each("extended-community")
            .iter()
            .filter_map(|c| c["string"].as_str().map(|s| s.replace("target", "rt")))
            .collect(),
        originator: attribute["originator-id"].as_str().and_then(|a| a.parse().ok()),
        clusters: each("cluster-list").iter().filter_map(|a| a.as_str()?.parse().ok()).collect(),
        ..Route::new(prefix)
    }
}

fn conf(speaker: &Speaker, tap: &str) -> String {
    let mut text = format!("process tap {{\n run {tap};\n encoder json;\n}}\n");
    for n in &speaker.neighbours {
        let _ = write!(
            text,
            "neighbor {} {{\n router-id {};\n local-address {};\n local-as {};\n peer-as {};\n hold-time 9;\n",
            n.address(),
            router_id(speaker.number),
            speaker.local(n),
            speaker.asn,
            n.asn
        );
        if let Some(password) = n.password {
            let _ = writeln!(text, " md5-password '{password}';");
        }
        if n.ttl_security {
            text += " outgoing-ttl 255;\n incoming-ttl 255;\n";
        }
        text += " capability {\n  asn4 enable;\n  route-refresh enable;\n";
        for (on, line) in [
            (n.add_path, "  add-path send/receive;"),
            (n.graceful_restart != Restart::No, "  graceful-restart 60;"),
            (n.extended_next_hop, "  nexthop true;"),
        ] {
            if on {
                let _ = writeln!(text, "{line}");
            }
        }
        let word = if n.extended_message { "enable" } else { "disable" };
        let _ = writeln!(text, "  extended-message {word};\n }}\n family {{");
        for family in &n.families {
            let _ = writeln!(text, "  {} unicast;", name(*family));
        }
        if n.extended_next_hop {
            // Else it drops the next hop's family from what it offers.
            text += "  ipv6 unicast;\n";
        }
        text += " }\n";
        if n.extended_next_hop {
            text += " nexthop {\n  ipv4 unicast ipv6;\n }\n";
        }
        text += " api {\n  processes [ tap ];\n  neighbor-changes;\n  receive { parsed; update; open; notification; \
                 refresh; }\n  send { notification; }\n }\n static {\n";
        for (at, announce) in speaker.announces.iter().enumerate().filter(|(_, a)| n.carries(a.family())) {
            let via = if n.extended_next_hop { n.transport } else { announce.family() };
            let _ = write!(text, "  route {} next-hop {}", announce.prefix, address(speaker.number, via));
            if n.add_path {
                let _ = write!(text, " path-information 0.0.0.{}", at + 1);
            }
            for (word, values) in [("community", &announce.communities), ("large-community", &announce.large)]
            {
                if !values.is_empty() {
                    let _ = write!(text, " {word} [ {} ]", values.join(" "));
                }
            }
            if !announce.targets.is_empty() {
                let targets: Vec<String> = announce.targets.iter().map(|t| format!("target:{t}")).collect();
                let _ = write!(text, " extended-community [ {} ]", targets.join(" "));
            }
            text += ";\n";
        }
        text += " }\n}\n";
    }
    text
}

fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}
