//! BIRD 2.

use std::fmt::Write as _;
use std::net::IpAddr;

use integration::lab::Process;

use super::{Host, Peer, Route, numbers};
use crate::spec::{Announce, Family, LONG_LIVED, Restart, Speaker, router_id};

pub(super) struct Bird {
    host: Host,
    process: Process,
    fresh: Vec<String>,
    speaker: Speaker,
}

impl Bird {
    pub(super) fn new(host: Host, speaker: &Speaker) -> anyhow::Result<Self> {
        let file = host.write("bird.conf", &conf(speaker))?;
        let fresh = ["bird", "-f", "-c", &file, "-s", &host.path("bird.ctl")].map(str::to_owned).to_vec();
        let process = host.process("bird", &[]);
        Ok(Self { host, process, fresh, speaker: speaker.clone() })
    }

    fn birdc(&self, command: &str) -> anyhow::Result<String> {
        let socket = self.host.path("bird.ctl");
        let mut argv = vec!["birdc", "-s", &socket];
        argv.extend(command.split(' '));
        self.host.ask(&argv)
    }

    fn name(&self, neighbour: IpAddr) -> String {
        let found = self.speaker.neighbours.iter().find(|n| n.address() == neighbour);
        found.map_or_else(|| "none".to_owned(), |n| format!("n{}", n.number))
    }
}

impl Peer for Bird {
    fn start(&mut self, again: bool) -> anyhow::Result<()> {
        let mut argv: Vec<&str> = self.fresh.iter().map(String::as_str).collect();
        if again {
            argv.push("-R");
        }
        self.process = self.host.process("bird", &argv);
        self.process.start()
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    fn established(&self, neighbour: IpAddr) -> anyhow::Result<bool> {
        Ok(self.birdc(&format!("show protocols {}", self.name(neighbour)))?.contains("Established"))
    }

    fn routes(&self) -> anyhow::Result<Vec<Route>> {
        Ok(parse(&self.birdc("show route all")?))
    }

    fn withdraw(&mut self, announce: &Announce) -> anyhow::Result<()> {
        let at = self.speaker.announces.iter().position(|a| a.prefix == announce.prefix);
        anyhow::ensure!(at.is_some(), "{} is not announced", announce.prefix);
        self.birdc(&format!("disable s{}", at.unwrap_or_default())).map(drop)
    }

    fn refresh(&mut self, neighbour: IpAddr) -> anyhow::Result<()> {
        self.birdc(&format!("reload in {}", self.name(neighbour))).map(drop)
    }

    fn watched(&self, neighbour: IpAddr) -> anyhow::Result<bool> {
        let text = self.birdc("show bfd sessions")?;
        Ok(text.lines().any(|l| l.starts_with(&neighbour.to_string()) && l.contains(" Up ")))
    }

    fn describe(&self, neighbour: IpAddr) -> anyhow::Result<String> {
        self.birdc(&format!("show protocols all {}", self.name(neighbour)))
    }
}

fn conf(speaker: &Speaker) -> String {
    let mut text =
        format!("router id {};\nlog stderr all;\nprotocol device {{ }}\n", router_id(speaker.number));
    for (at, announce) in speaker.announces.iter().enumerate() {
        let channel = channel(announce.family());
        let mut sets = String::new();
        for community in &announce.communities {
            let _ = write!(sets, "bgp_community.add(({})); ", community.replace(':', ","));
        }
        for community in &announce.large {
            let _ = write!(sets, "bgp_large_community.add(({})); ", community.replace(':', ","));
        }
        for target in &announce.targets {
            let _ = write!(sets, "bgp_ext_community.add((rt,{})); ", target.replace(':', ","));
        }
        let _ = writeln!(
            text,
            "protocol static s{at} {{ {channel}; route {} blackhole {{ {sets}}}; }}",
            announce.prefix
        );
    }
    if speaker.neighbours.iter().any(|n| n.bfd) {
        text += "protocol bfd { interface \"*\" { interval 100 ms; multiplier 3; }; }\n";
    }
    for n in &speaker.neighbours {
        let _ = writeln!(
            text,
            "protocol bgp n{} {{\n local {} as {}; neighbor {} as {};\n hold time 9; keepalive time 3; \
             connect delay time 1; connect retry time 1; error wait time 1, 2;",
            n.number,
            speaker.local(n),
            speaker.asn,
            n.address(),
            n.asn
        );
        if let Some(password) = n.password {
            let _ = writeln!(text, " password \"{password}\";");
        }
        for (on, line) in [
            (n.ttl_security, " ttl security on;"),
            (n.client, " rr client;"),
            (n.extended_message, " enable extended messages on;"),
            (n.graceful_restart != Restart::No, " graceful restart on;"),
            (n.bfd && n.graceful_restart == Restart::No, " bfd on;"),
            // Our BFD ends with the process: that is no failure of the path while we restart.
            (n.bfd && n.graceful_restart != Restart::No, " bfd graceful;"),
            (n.graceful_restart == Restart::No, " graceful restart off;"),
        ] {
            if on {
                let _ = writeln!(text, "{line}");
            }
        }
        if n.graceful_restart != Restart::No {
            let _ = writeln!(text, " graceful restart time {};", n.graceful_restart.time());
        }
        if n.graceful_restart == Restart::LongLived {
            let _ = writeln!(text, " long lived graceful restart on;\n long lived stale time {LONG_LIVED};");
        }
        for family in &n.families {
            let _ = write!(text, " {} {{ import all; export all;", channel(*family));
            if n.add_path {
                text += " add paths on;";
            }
            if n.extended_next_hop && *family == Family::V4 {
                text += " extended next hop on;";
            }
            if let Some(limit) = n.max_prefixes {
                let _ = write!(text, " import limit {limit} action disable;");
            }
            text += " };\n";
        }
        text += "}\n";
    }
    text
}

fn channel(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// `show route all`: a line with the prefix (or with blanks for one more path of it), then lines of attributes.
fn parse(text: &str) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    let mut prefix = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if line.contains(" [") && line.ends_with([')', ']']) && !line.starts_with('\t') {
            prefix = words.first().and_then(|w| w.parse().ok()).or(prefix);
            if let Some(prefix) = prefix {
                // `(100s)`: an s behind the preference marks a stale path.
                let preference = line.split_once(" (").map_or("", |(_, rest)| rest);
                let stale = preference.split(')').next().is_some_and(|p| p.contains('s'));
                routes.push(Route { stale, ..Route::new(prefix) });
            }
            continue;
        }
        let (Some(route), Some((key, value))) = (routes.last_mut(), line.trim().split_once(": ")) else {
            continue;
        };
        match key {
            "BGP.as_path" => route.as_path = numbers(value),
            "BGP.next_hop" => route.next_hop = value.split(' ').next().and_then(|a| a.parse().ok()),
            "BGP.local_pref" => route.local_pref = value.parse().ok(),
            "BGP.community" => route.communities = tuples(value),
            "BGP.large_community" => route.large = tuples(value),
            "BGP.ext_community" => route.extended = tuples(value),
            "BGP.originator_id" => route.originator = value.parse().ok(),
            "BGP.cluster_list" => route.clusters = value.split(' ').filter_map(|a| a.parse().ok()).collect(),
            _ => {}
        }
    }
    routes
}

/// `(1,2) (3, 4)` as `1:2`, `3:4`.
fn tuples(text: &str) -> Vec<String> {
    text.split(['(', ')'])
        .map(|inner| inner.split(',').map(str::trim).collect::<Vec<_>>().join(":"))
        .filter(|joined| !joined.is_empty())
        .collect()
}
