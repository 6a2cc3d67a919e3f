//! Ours: `caracal bird --config`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;

use anyhow::Context as _;
use integration::lab::Process;
use integration::picture::binary;
use serde_json::{Map, Value, json};

use super::{Host, Peer, Route};
use crate::spec::{Announce, Family, LONG_LIVED, Neighbour, Restart, SHORT_RESTART, Speaker, router_id};

pub(super) struct Caracal {
    host: Host,
    process: Process,
}

impl Caracal {
    pub(super) fn new(host: Host, speaker: &Speaker) -> anyhow::Result<Self> {
        // JSON is YAML too.
        let text = serde_json::to_string_pretty(&file(speaker, &host))?;
        let path = host.write("router.yaml", &text)?;
        let process = host
            .process("caracal", &[&binary()?.to_string_lossy(), "bird", "--config", &path])
            .env("CARACAL_RUN_DIR", &host.path(""));
        Ok(Self { host, process })
    }

    /// One question to the socket of `ctl bgp`; the objects of the answer's lines.
    fn ask(&self, question: &Value) -> anyhow::Result<Vec<Value>> {
        let mut socket = UnixStream::connect(self.host.dir.join("bgp.sock")).context("socket")?;
        writeln!(socket, "{question}")?;
        let mut lines = Vec::new();
        for line in BufReader::new(socket).lines() {
            let line: Value = serde_json::from_str(&line?)?;
            anyhow::ensure!(line.get("error").is_none(), "{question}: {line}");
            if line.get("end").is_some() {
                return Ok(lines);
            }
            lines.push(line);
        }
        anyhow::bail!("{question}: the answer has no end")
    }
}

impl Peer for Caracal {
    fn start(&mut self, _: bool) -> anyhow::Result<()> {
        self.process.start()
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    fn established(&self, neighbour: IpAddr) -> anyhow::Result<bool> {
        let answer = self.ask(&json!({ "get": "neighbor", "peer": neighbour }))?;
        Ok(answer.iter().any(|line| line["neighbor"]["state"] == "Established"))
    }

    fn routes(&self) -> anyhow::Result<Vec<Route>> {
        let mut routes = Vec::new();
        for line in self.ask(&json!({ "get": "routes" }))? {
            let path = &line["route"];
            let Some(prefix) = path["prefix"].as_str().and_then(|p| p.parse().ok()) else { continue };
            if path["import"] != "accepted" {
                continue;
            }
            let each = |key: &str| path[key].as_array().cloned().unwrap_or_default();
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let small = |value: &Value| value.as_u64().and_then(|v| u32::try_from(v).ok());
            routes.push(Route {
                prefix,
                next_hop: path["nextHop"].as_str().and_then(|a| a.parse().ok()),
                as_path: each("asPath").iter().filter_map(small).collect(),
                local_pref: small(&path["localPref"]),
                communities: each("communities").iter().filter_map(text).collect(),
                large: each("largeCommunities").iter().filter_map(text).collect(),
                extended: each("extCommunities").iter().filter_map(text).collect(),
                originator: path["originatorId"].as_str().and_then(|a| a.parse().ok()),
                clusters: each("clusterList").iter().filter_map(|a| a.as_str()?.parse().ok()).collect(),
                stale: path["stale"] == true,
                long_lived: path["longLived"] == true,
            });
        }
        Ok(routes)
    }

    fn withdraw(&mut self, announce: &Announce) -> anyhow::Result<()> {
        anyhow::bail!("{}: a file is read at the start only", announce.prefix)
    }

    fn refresh(&mut self, neighbour: IpAddr) -> anyhow::Result<()> {
        let mut socket = UnixStream::connect(self.host.dir.join("bird.ctl")).context("socket of birdc")?;
        writeln!(socket, "reload in {neighbour}")?;
        let lines: Result<Vec<String>, _> = BufReader::new(socket).lines().take(2).collect();
        let lines = lines?;
        anyhow::ensure!(lines.iter().any(|l| l.contains("reloading")), "reload in {neighbour}: {lines:?}");
        Ok(())
    }

    fn refreshes(&self, neighbour: IpAddr) -> anyhow::Result<Option<(u64, u64)>> {
        let answer = self.ask(&json!({ "get": "neighbor", "peer": neighbour }))?;
        let counters = answer.iter().map(|line| &line["neighbor"]["counters"]).find(|c| c.is_object());
        let count = |key: &str| counters.and_then(|c| c[key].as_u64());
        Ok(count("refreshesSent").zip(count("refreshesReceived")))
    }

    fn watched(&self, neighbour: IpAddr) -> anyhow::Result<bool> {
        let answer = self.ask(&json!({ "get": "neighbor", "peer": neighbour }))?;
        Ok(answer.iter().any(|line| line["neighbor"]["bfd"]["state"] == "up"))
    }

    fn describe(&self, neighbour: IpAddr) -> anyhow::Result<String> {
        let answer = self.ask(&json!({ "get": "neighbor", "peer": neighbour }))?;
        let lines: Vec<String> = answer.iter().map(|line| format!("{line:#}")).collect();
        Ok(lines.join("\n"))
    }
}

fn file(speaker: &Speaker, host: &Host) -> Value {
    let mut filters = Map::new();
    for (number, announce) in speaker.announces.iter().enumerate().filter(|(_, a)| !a.is_plain()) {
        let add = |c: &String| json!({ "addCommunity": { "value": c } });
        let operations: Vec<Value> = announce.communities.iter().chain(&announce.large).map(add).collect();
        let rule = json!([{
            "action": "Accept", "cidr": announce.prefix, "matchOperator": "Equal", "operations": operations,
        }]);
        filters.insert(format!("f{number}"), json!({ "exportV4": rule.clone(), "exportV6": rule }));
    }
    let names: Vec<&String> = filters.keys().collect();
    let neighbours: Vec<Value> = speaker.neighbours.iter().map(|n| neighbour(n, &names)).collect();
    let statics: Vec<Value> =
        speaker.announces.iter().map(|a| json!({ "prefix": a.prefix, "blackhole": true })).collect();
    json!({
        "routerId": router_id(speaker.number),
        "asNumber": speaker.asn,
        "neighbours": neighbours,
        "static": statics,
        "filters": filters,
        "api": { "socket": host.path("bgp.sock") },
        "control": host.path("bird.ctl"),
    })
}

fn neighbour(n: &Neighbour, filters: &[&String]) -> Value {
    let name = |family: &Family| match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    let mut map = json!({
        "name": n.address(),
        "address": n.address(),
        "asNumber": n.asn,
        "families": n.families.iter().map(name).collect::<Vec<_>>(),
        "holdTime": 9,
        "connectRetry": 1,
        "export": filters,
        "gracefulRestart": { "enabled": n.graceful_restart != Restart::No, "restartTime": n.graceful_restart.time() },
        "bfd": n.bfd,
        "extendedMessage": n.extended_message,
        "routeReflectorClient": n.client,
        "extendedNextHop": n.extended_next_hop,
    });
    let mut set = |key: &str, value: Value| {
        map[key] = value;
    };
    if n.graceful_restart == Restart::LongLived {
        let times = json!({ "enabled": true, "restartTime": SHORT_RESTART, "longLived": { "staleTime": LONG_LIVED } });
        set("gracefulRestart", times);
    }
    if n.bfd {
        let keep = n.graceful_restart != Restart::No;
        set("bfd", json!({ "minTx": "100ms", "minRx": "100ms", "multiplier": 3, "keepRoutes": keep }));
    }
    if let Some(password) = n.password {
        set("password", json!(password));
    }
    if n.ttl_security {
        set("ttlSecurity", json!(1));
    }
    if n.add_path {
        set("addPath", json!({ "receive": true, "send": true }));
    }
    if let Some(max) = n.max_prefixes {
        set("prefixLimit", json!({ "max": max, "action": "reset" }));
    }
    map
}
