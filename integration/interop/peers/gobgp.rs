//! GoBGP. It has no static routes in its file: they are added when it runs, before it can talk to anybody.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use integration::lab::Process;
use serde_json::Value;

use super::{Host, Peer, Route, community};
use crate::spec::{Announce, Family, LONG_LIVED, Restart, Speaker, address, router_id};
use crate::wait::wait;

pub(super) struct Gobgp {
    host: Host,
    process: Process,
    file: String,
    speaker: Speaker,
}

impl Gobgp {
    pub(super) fn new(host: Host, speaker: &Speaker) -> anyhow::Result<Self> {
        let file = host.write("gobgp.toml", &conf(speaker))?;
        let process = host.process("gobgpd", &[]);
        Ok(Self { host, process, file, speaker: speaker.clone() })
    }

    fn gobgp(&self, command: &str) -> anyhow::Result<String> {
        let mut argv = vec!["gobgp"];
        argv.extend(command.split(' '));
        self.host.ask(&argv)
    }

    fn rib(&self, what: &str, announce: &Announce) -> String {
        let family = announce.family();
        let via = match self.speaker.neighbours.iter().find(|n| n.extended_next_hop) {
            Some(neighbour) => neighbour.transport,
            None => family,
        };
        let mut line = format!(
            "global rib {what} -a {} {} nexthop {}",
            name(family),
            announce.prefix,
            address(self.speaker.number, via)
        );
        if !announce.communities.is_empty() {
            let _ = write!(line, " community {}", announce.communities.join(","));
        }
        if !announce.large.is_empty() {
            let _ = write!(line, " large-community {}", announce.large.join(","));
        }
        for target in &announce.targets {
            let _ = write!(line, " rt {target}");
        }
        line
    }
}

impl Peer for Gobgp {
    fn start(&mut self, again: bool) -> anyhow::Result<()> {
        let mut argv = vec!["gobgpd", "-f", &self.file, "--api-hosts", "127.0.0.1:50051"];
        if again {
            argv.push("-r");
        }
        self.process = self.host.process("gobgpd", &argv);
        // Without them a restart would end with a table that lacks them.
        self.host.hold()?;
        self.process.start()?;
        for announce in &self.speaker.announces {
            let line = self.rib("add", announce);
            wait(Duration::from_secs(10), || self.gobgp(&line).map_err(|e| e.to_string()))?;
        }
        self.host.release()
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    fn established(&self, neighbour: IpAddr) -> anyhow::Result<bool> {
        let state: Value = serde_json::from_str(&self.describe(neighbour)?)?;
        Ok(state["state"]["session_state"] == 6)
    }

    fn routes(&self) -> anyhow::Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in ["ipv4", "ipv6"] {
            let all: Value = serde_json::from_str(&self.gobgp(&format!("global rib -a {family} -j"))?)?;
            for (prefix, paths) in all.as_object().into_iter().flatten() {
                let Ok(prefix) = prefix.parse() else { continue };
                for path in paths.as_array().into_iter().flatten() {
                    let mut route = Route { stale: path["stale"] == true, ..Route::new(prefix) };
                    path["attrs"].as_array().into_iter().flatten().for_each(|attr| read(attr, &mut route));
                    routes.push(route);
                }
            }
        }
        Ok(routes)
    }

    fn withdraw(&mut self, announce: &Announce) -> anyhow::Result<()> {
        self.gobgp(&self.rib("del", announce)).map(drop)
    }

    fn refresh(&mut self, neighbour: IpAddr) -> anyhow::Result<()> {
        self.gobgp(&format!("neighbor {neighbour} softresetin")).map(drop)
    }

    fn refreshes(&self, neighbour: IpAddr) -> anyhow::Result<Option<(u64, u64)>> {
        let state: Value = serde_json::from_str(&self.describe(neighbour)?)?;
        let count = |way: &str| state["state"]["messages"][way]["refresh"].as_u64().unwrap_or_default();
        Ok(Some((count("sent"), count("received"))))
    }

    fn describe(&self, neighbour: IpAddr) -> anyhow::Result<String> {
        self.gobgp(&format!("neighbor {neighbour} -j"))
    }
}

/// One path attribute, by its type code.
fn read(attr: &Value, route: &mut Route) {
    let small = |value: &Value| value.as_u64().and_then(|v| u32::try_from(v).ok());
    let each = |value: &Value| value.as_array().cloned().unwrap_or_default();
    match attr["type"].as_u64() {
        Some(2) => {
            route.as_path = each(&attr["as_paths"])
                .iter()
                .flat_map(|s| each(&s["asns"]))
                .filter_map(|a| small(&a))
                .collect();
        }
        Some(3 | 14) => route.next_hop = attr["nexthop"].as_str().and_then(|a| a.parse().ok()),
        Some(5) => route.local_pref = small(&attr["value"]),
        Some(8) => {
            route.communities =
                each(&attr["communities"]).iter().filter_map(Value::as_u64).map(community).collect();
        }
        Some(9) => route.originator = attr["value"].as_str().and_then(|a| a.parse().ok()),
        Some(10) => {
            route.clusters = each(&attr["value"]).iter().filter_map(|v| v.as_str()?.parse().ok()).collect();
        }
        Some(16) => {
            route.extended = each(&attr["value"])
                .iter()
                .filter(|c| c["subtype"] == 2)
                .filter_map(|c| c["value"].as_str().map(|v| format!("rt:{v}")))
                .collect();
        }
        Some(32) => {
            route.large = each(&attr["value"])
                .iter()
                .map(|c| format!("{}:{}:{}", c["ASN"], c["LocalData1"], c["LocalData2"]))
                .collect();
        }
        _ => {}
    }
}

fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

fn conf(speaker: &Speaker) -> String {
    let mut text = format!(
        "[global.config]\nas = {}\nrouter-id = \"{}\"\nlocal-address-list = [\"0.0.0.0\", \"::\"]\n",
        speaker.asn,
        router_id(speaker.number)
    );
    for n in &speaker.neighbours {
        let _ = writeln!(
            text,
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{}\"\npeer-as = {}",
            n.address(),
            n.asn
        );
        if let Some(password) = n.password {
            let _ = writeln!(text, "auth-password = \"{password}\"");
        }
        text += "[neighbors.timers.config]\nhold-time = 9\nkeepalive-interval = 3\nconnect-retry = 1\n\
                 idle-hold-time-after-reset = 1\n";
        let _ = writeln!(text, "[neighbors.transport.config]\nlocal-address = \"{}\"", speaker.local(n));
        if n.ttl_security {
            text += "[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255\n";
        }
        if n.client {
            let _ = writeln!(
                text,
                "[neighbors.route-reflector.config]\nroute-reflector-client = true\n\
                 route-reflector-cluster-id = \"{}\"",
                router_id(speaker.number)
            );
        }
        if n.graceful_restart != Restart::No {
            let long_lived = n.graceful_restart == Restart::LongLived;
            let _ = writeln!(
                text,
                "[neighbors.graceful-restart.config]\nenabled = true\nrestart-time = {}\n\
                 notification-enabled = true\nlong-lived-enabled = {long_lived}",
                n.graceful_restart.time()
            );
        }
        for family in &n.families {
            let _ = writeln!(
                text,
                "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{}-unicast\"",
                name(*family)
            );
            if n.graceful_restart != Restart::No {
                text += "[neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n";
            }
            if n.graceful_restart == Restart::LongLived {
                let _ = writeln!(
                    text,
                    "[neighbors.afi-safis.long-lived-graceful-restart.config]\nenabled = true\nrestart-time = {LONG_LIVED}"
                );
            }
            if n.add_path {
                text += "[neighbors.afi-safis.add-paths.config]\nreceive = true\nsend-max = 8\n";
            }
            if let Some(limit) = n.max_prefixes {
                let _ = writeln!(text, "[neighbors.afi-safis.prefix-limit.config]\nmax-prefixes = {limit}");
            }
        }
    }
    text
}
