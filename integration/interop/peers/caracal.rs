//! Ours: `caracal bird --config`.

use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;

use anyhow::Context as _;
use integration::lab::Process;
use integration::picture::binary;
use nix::sys::signal::Signal;
use serde_json::{Map, Value, json};

use super::{Host, Peer, Route};
use crate::spec::{Announce, Family, Neighbour, Speaker, router_id};

pub(super) struct Caracal {
    host: Host,
    process: Process,
}

impl Caracal {
    pub(super) fn new(host: Host, speaker: &Speaker) -> anyhow::Result<Self> {
        // JSON is YAML too.
        let text = serde_json::to_string_pretty(&file(speaker, &host.path("bird.ctl")))?;
        let path = host.write("router.yaml", &text)?;
        let process = host
            .process("caracal", &[&binary()?.to_string_lossy(), "bird", "--config", &path])
            .env("CARACAL_RUN_DIR", &host.path(""));
        Ok(Self { host, process })
    }

    /// One question to the control socket.
    fn control(&self, question: &str) -> anyhow::Result<String> {
        let mut socket = UnixStream::connect(self.host.dir.join("bird.ctl")).context("control socket")?;
        write!(socket, "{question}\nquit\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
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
        Ok(self.describe(neighbour)?.contains("BGP state:          Established"))
    }

    fn routes(&self) -> anyhow::Result<Vec<Route>> {
        let mut routes = Vec::new();
        for line in self.control("show route")?.lines() {
            let line = line.trim_start_matches("1007-").trim_start();
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some(prefix) = words.first().and_then(|w| w.parse().ok()) else { continue };
            let next_hop = match words.as_slice() {
                [_, "via", hop, ..] => hop.parse().ok(),
                _ => None,
            };
            routes.push(Route { next_hop, ..Route::new(prefix) });
        }
        Ok(routes)
    }

    fn withdraw(&mut self, announce: &Announce) -> anyhow::Result<()> {
        anyhow::bail!("{}: a file is read at the start only", announce.prefix)
    }

    fn refresh(&mut self, _: IpAddr) -> anyhow::Result<()> {
        self.process.signal(Signal::SIGHUP);
        Ok(())
    }

    fn describe(&self, neighbour: IpAddr) -> anyhow::Result<String> {
        self.control(&format!("show protocols all \"{neighbour}\""))
    }
}

fn file(speaker: &Speaker, control: &str) -> Value {
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
        "control": control,
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
        "gracefulRestart": { "enabled": n.graceful_restart, "restartTime": 60 },
        "extendedMessage": n.extended_message,
        "routeReflectorClient": n.client,
        "extendedNextHop": n.extended_next_hop,
    });
    let mut set = |key: &str, value: Value| {
        map[key] = value;
    };
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
