//! FRR's zebra and bgpd.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use integration::lab::Process;
use integration::router::frr_daemon;
use serde_json::{Deserializer, Value};

use super::{Host, LLGR_STALE, Peer, Route, numbers};
use crate::spec::{Announce, Family, LONG_LIVED, Restart, SHORT_RESTART, Speaker, router_id};
use crate::wait::wait;

pub(super) struct Frr {
    host: Host,
    zebra: Process,
    bgpd: Process,
    bfdd: Option<Process>,
    speaker: Speaker,
}

impl Frr {
    pub(super) fn new(host: Host, speaker: &Speaker) -> anyhow::Result<Self> {
        let file = host.write("bgpd.conf", &conf(speaker))?;
        let empty = host.write("zebra.conf", "")?;
        // FRR drops its rights to the user frr, which must reach its directory.
        std::os::unix::fs::chown(&host.dir, integration::router::uid("frr"), None)
            .context("the directory of FRR")?;
        let make = |daemon: &str, config: &str| {
            let name = format!("{}-{daemon}", host.name);
            frr_daemon(&name, daemon, &host.space, &host.logs, &host.dir, Path::new(config))
        };
        let (zebra, bgpd) = (make("zebra", &empty), make("bgpd", &file));
        let bfdd = speaker.neighbours.iter().any(|n| n.bfd).then(|| make("bfdd", &empty));
        Ok(Self { host, zebra, bgpd, bfdd, speaker: speaker.clone() })
    }

    fn vtysh(&self, commands: &[String]) -> anyhow::Result<String> {
        let socket = self.host.path("");
        let mut argv = vec!["vtysh", "--vty_socket", &socket];
        for command in commands {
            argv.extend(["-c", command]);
        }
        self.host.ask(&argv)
    }

    fn neighbour(&self, address: IpAddr) -> anyhow::Result<Value> {
        let text = self.vtysh(&["show bgp neighbors json".to_owned()])?;
        let all: Value = serde_json::from_str(&text)?;
        Ok(all[address.to_string()].clone())
    }
}

impl Peer for Frr {
    fn start(&mut self, again: bool) -> anyhow::Result<()> {
        if !again {
            self.zebra.start()?;
            // bgpd tries again only after ten seconds, and knows no address of its links until then.
            let socket = self.host.dir.join("zserv.api");
            wait(
                Duration::from_secs(10),
                || if socket.exists() { Ok(()) } else { Err("no zebra".to_owned()) },
            )?;
        }
        if let Some(bfdd) = self.bfdd.as_mut().filter(|_| !again) {
            bfdd.start()?;
        }
        self.bgpd.start()
    }

    fn kill(&mut self) {
        self.bgpd.kill();
    }

    fn established(&self, neighbour: IpAddr) -> anyhow::Result<bool> {
        Ok(self.neighbour(neighbour)?["bgpState"] == "Established")
    }

    fn routes(&self) -> anyhow::Result<Vec<Route>> {
        // The detailed form of 8.4 asks for one prefix at a time.
        let mut commands = Vec::new();
        for family in ["ipv4", "ipv6"] {
            let all: Value =
                serde_json::from_str(&self.vtysh(&[format!("show bgp {family} unicast json")])?)?;
            for prefix in all["routes"].as_object().into_iter().flatten().map(|(prefix, _)| prefix) {
                commands.push(format!("show bgp {family} unicast {prefix} json"));
            }
        }
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let text = self.vtysh(&commands)?;
        let mut routes = Vec::new();
        for one in Deserializer::from_str(&text).into_iter::<Value>() {
            let one = one?;
            let Some(prefix) = one["prefix"].as_str().and_then(|p| p.parse().ok()) else { continue };
            for path in one["paths"].as_array().into_iter().flatten() {
                let text = |value: &Value| value.as_str().map(str::to_owned);
                let list = |value: &Value| -> Vec<String> {
                    value["list"].as_array().into_iter().flatten().filter_map(text).collect()
                };
                routes.push(Route {
                    next_hop: path["nexthops"][0]["ip"].as_str().and_then(|a| a.parse().ok()),
                    as_path: path["aspath"]["string"].as_str().map(numbers).unwrap_or_default(),
                    local_pref: path["locPrf"].as_u64().and_then(|v| v.try_into().ok()),
                    // This one it names.
                    communities: list(&path["community"])
                        .into_iter()
                        .map(|c| if c == "llgrStale" { LLGR_STALE.to_owned() } else { c })
                        .collect(),
                    large: list(&path["largeCommunity"]),
                    extended: path["extendedCommunity"]["string"]
                        .as_str()
                        .map(|s| s.split(' ').map(str::to_lowercase).collect())
                        .unwrap_or_default(),
                    originator: path["originatorId"].as_str().and_then(|a| a.parse().ok()),
                    clusters: list(&path["clusterList"]).iter().filter_map(|a| a.parse().ok()).collect(),
                    stale: path["stale"] == true,
                    ..Route::new(prefix)
                });
            }
        }
        Ok(routes)
    }

    fn withdraw(&mut self, announce: &Announce) -> anyhow::Result<()> {
        let commands = [
            "configure terminal".to_owned(),
            format!("router bgp {}", self.speaker.asn),
            format!("address-family {} unicast", name(announce.family())),
            format!("no network {}", announce.prefix),
        ];
        self.vtysh(&commands).map(drop)
    }

    fn refresh(&mut self, neighbour: IpAddr) -> anyhow::Result<()> {
        self.vtysh(&[format!("clear bgp {neighbour} in")]).map(drop)
    }

    fn refreshes(&self, neighbour: IpAddr) -> anyhow::Result<Option<(u64, u64)>> {
        let counts = self.neighbour(neighbour)?["messageStats"].clone();
        Ok(counts["routeRefreshSent"].as_u64().zip(counts["routeRefreshRecv"].as_u64()))
    }

    fn watched(&self, neighbour: IpAddr) -> anyhow::Result<bool> {
        let all: Value = serde_json::from_str(&self.vtysh(&["show bfd peers json".to_owned()])?)?;
        let of = neighbour.to_string();
        Ok(all.as_array().into_iter().flatten().any(|p| p["peer"] == of && p["status"] == "up"))
    }

    fn describe(&self, neighbour: IpAddr) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(&self.neighbour(neighbour)?)?)
    }
}

fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

fn conf(speaker: &Speaker) -> String {
    let mut text = maps(speaker);
    let _ = writeln!(
        text,
        "debug bgp neighbor-events\nrouter bgp {}\n bgp router-id {}\n no bgp ebgp-requires-policy\n \
         no bgp default ipv4-unicast\n no bgp network import-check",
        speaker.asn,
        router_id(speaker.number)
    );
    if speaker.neighbours.iter().any(|n| matches!(n.graceful_restart, Restart::Both | Restart::LongLived)) {
        text += " bgp graceful-restart\n bgp graceful-restart preserve-fw-state\n";
    }
    if speaker.neighbours.iter().any(|n| n.graceful_restart == Restart::LongLived) {
        let _ = writeln!(
            text,
            " bgp graceful-restart restart-time {SHORT_RESTART}\n \
             bgp long-lived-graceful-restart stale-time {LONG_LIVED}"
        );
    }
    for n in &speaker.neighbours {
        let at = n.address();
        let _ = writeln!(
            text,
            " neighbor {at} remote-as {}\n neighbor {at} timers 3 9\n neighbor {at} timers connect 1\n \
             neighbor {at} advertisement-interval 0",
            n.asn
        );
        if let Some(password) = n.password {
            let _ = writeln!(text, " neighbor {at} password {password}");
        }
        if n.ttl_security {
            let _ = writeln!(text, " neighbor {at} ttl-security hops 1");
        }
        if n.bfd {
            let _ = writeln!(text, " neighbor {at} bfd 3 100 100");
        }
        if n.extended_next_hop {
            let _ = writeln!(text, " neighbor {at} capability extended-nexthop");
        }
    }
    for family in [Family::V4, Family::V6] {
        let _ = writeln!(text, " address-family {} unicast", name(family));
        for (number, announce) in speaker.announces.iter().enumerate().filter(|(_, a)| a.family() == family) {
            let map = if announce.is_plain() { String::new() } else { format!(" route-map M{number}") };
            let _ = writeln!(text, "  network {}{map}", announce.prefix);
        }
        for n in speaker.neighbours.iter().filter(|n| n.carries(family)) {
            let at = n.address();
            let _ = writeln!(text, "  neighbor {at} activate");
            if n.client {
                let _ = writeln!(text, "  neighbor {at} route-reflector-client");
            }
            if n.add_path {
                let _ = writeln!(text, "  neighbor {at} addpath-tx-all-paths");
            }
            if let Some(limit) = n.max_prefixes {
                let _ = writeln!(text, "  neighbor {at} maximum-prefix {limit}");
            }
        }
        text += " exit-address-family\n";
    }
    text += "exit\n";
    text
}

/// Route maps stand before what uses them: a later change counts after five seconds only.
fn maps(speaker: &Speaker) -> String {
    let mut text = String::new();
    for (number, announce) in speaker.announces.iter().enumerate().filter(|(_, a)| !a.is_plain()) {
        // A line of the file holds 4096 characters at most.
        for (at, part) in announce.large.chunks(100).enumerate() {
            let _ = writeln!(
                text,
                "route-map M{number} permit {}\n set large-community {} additive\n on-match next\nexit",
                at + 1,
                part.join(" ")
            );
        }
        let _ = writeln!(text, "route-map M{number} permit 1000");
        if !announce.communities.is_empty() {
            let _ = writeln!(text, " set community {}", announce.communities.join(" "));
        }
        for target in &announce.targets {
            let _ = writeln!(text, " set extcommunity rt {target}");
        }
        text += "exit\n";
    }
    text
}
