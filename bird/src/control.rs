//! The control sockets `bird.ctl` and `bird6.ctl`: the part of BIRD's command line protocol that calicoctl, the
//! readiness and liveness probes and CalicoNodeStatus speak.
//!
//! A line in, numbered lines out: `1002-text` when more of the reply follows, `0000 ` at its end, a leading space for
//! a line of the same kind as the one before. The answers are made from a [`View`], orders are handed
//! back; this file knows no speaker.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bird_speaker::io::Command;
use ipnet::IpNet;
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};

use crate::engine::Tokens;

/// What BIRD of Calico's release calls itself; its clients look for the first word only.
const VERSION: &str = "v0.3.3+birdv1.6.8";
/// A request longer than this is not one of ours.
const LONGEST_REQUEST: usize = 4096;
/// Clients at a time.
const MOST_CLIENTS: usize = 32;

/// What the answers are made from.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) router_id: Ipv4Addr,
    pub(crate) started: SystemTime,
    pub(crate) configured: SystemTime,
    pub(crate) now: SystemTime,
    /// Peers that a restart still waits for; none when it is over.
    pub(crate) recovering: bool,
    pub(crate) peers: Vec<PeerView>,
}

/// One peer.
#[derive(Debug, Clone)]
pub(crate) struct PeerView {
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    pub(crate) asn: u32,
    /// `Idle` to `Established`.
    pub(crate) state: String,
    pub(crate) since: SystemTime,
    /// Why it is not up, or was not.
    pub(crate) error: Option<String>,
    pub(crate) router_id: Option<Ipv4Addr>,
    pub(crate) hold_time: Option<u64>,
    pub(crate) local: Option<IpAddr>,
    /// Paths held of it.
    pub(crate) received: u64,
    /// Paths told to it.
    pub(crate) advertised: u64,
}

/// One route, for `show route`.
#[derive(Debug, Clone)]
pub(crate) struct RouteView {
    pub(crate) prefix: IpNet,
    /// `via 10.0.0.2 on eth0`, `blackhole`, `dev cali1`.
    pub(crate) how: String,
    pub(crate) from: String,
    pub(crate) best: bool,
}

/// The first routes of a table, in order of prefixes, and how many there are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routes {
    pub(crate) shown: Vec<RouteView>,
    /// Paths that import took.
    pub(crate) paths: usize,
    /// Prefixes with a best one.
    pub(crate) networks: usize,
}

/// Routes that `show route` shows: this protocol has no way to answer by and by, and sessions wait meanwhile.
const SHOWN: usize = 5000;

/// The sockets and their clients.
#[derive(Debug, Default)]
pub(crate) struct Control {
    listeners: Vec<Listener>,
    clients: HashMap<Token, Client>,
}

#[derive(Debug)]
struct Listener {
    path: PathBuf,
    token: Token,
    socket: UnixListener,
    family: Family,
}

/// Which peers a socket tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// `bird.ctl`.
    Ipv4,
    /// `bird6.ctl`.
    Ipv6,
    /// A router's own socket.
    Both,
}

impl Family {
    fn has(self, address: IpAddr) -> bool {
        match self {
            Family::Both => true,
            Family::Ipv4 => address.is_ipv4(),
            Family::Ipv6 => address.is_ipv6(),
        }
    }
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    family: Family,
    input: Vec<u8>,
    output: Vec<u8>,
    /// It asked to be allowed to look only.
    restricted: bool,
    ended: bool,
}

impl Control {
    /// Opens a socket; an old one in its place, left by a process that died, is removed.
    pub(crate) fn open(
        &mut self,
        path: &Path,
        family: Family,
        registry: &Registry,
        token: Token,
    ) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut socket = UnixListener::bind(path)?;
        registry.register(&mut socket, token, Interest::READABLE)?;
        self.listeners.push(Listener { path: path.to_owned(), token, socket, family });
        Ok(())
    }

    /// Whether a token is one of ours.
    pub(crate) fn owns(&self, token: Token) -> bool {
        self.clients.contains_key(&token) || self.listeners.iter().any(|l| l.token == token)
    }

    /// Takes new clients, or serves one.
    pub(crate) fn ready(
        &mut self,
        token: Token,
        registry: &Registry,
        tokens: &mut Tokens,
        view: &impl Fn() -> View,
        routes: &impl Fn(Family, usize) -> Routes,
        orders: &mut Vec<Command>,
    ) {
        if let Some(listener) = self.listeners.iter().find(|l| l.token == token) {
            let family = listener.family;
            let mut fresh = Vec::new();
            while let Ok((mut stream, _)) = listener.socket.accept() {
                if self.clients.len() + fresh.len() >= MOST_CLIENTS {
                    continue;
                }
                let token = tokens.next();
                if registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE).is_ok() {
                    let output = format!("0001 BIRD {VERSION} ready.\n").into_bytes();
                    fresh.push((
                        token,
                        Client { stream, family, input: Vec::new(), output, restricted: false, ended: false },
                    ));
                }
            }
            for (token, mut client) in fresh {
                if client.serve(view, routes, orders) {
                    self.clients.insert(token, client);
                }
            }
            return;
        }
        if let Some(client) = self.clients.get_mut(&token)
            && !client.serve(view, routes, orders)
        {
            self.clients.remove(&token);
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        for listener in &self.listeners {
            let _ = std::fs::remove_file(&listener.path);
        }
    }
}

impl Client {
    /// Reads requests, writes answers; false when the client is done.
    fn serve(
        &mut self,
        view: &impl Fn() -> View,
        routes: &impl Fn(Family, usize) -> Routes,
        orders: &mut Vec<Command>,
    ) -> bool {
        let mut buffer = [0; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(n) => self.input.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            if self.input.len() > LONGEST_REQUEST {
                return false;
            }
        }
        while let Some(end) = self.input.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let words: Vec<&str> = line.split_whitespace().collect();
            if matches!(words.as_slice(), ["quit" | "exit"]) {
                self.ended = true;
                break;
            }
            let reply = match words.as_slice() {
                ["restrict"] => {
                    self.restricted = true;
                    "0016 Access restricted\n".to_owned()
                }
                [verb, ..] if is_order(verb) && self.restricted => "8007 Access denied\n".to_owned(),
                [verb, ..] if is_order(verb) => order(&words, self.family, &view(), orders),
                _ => answer(&words, self.family, view, routes),
            };
            self.output.extend_from_slice(reply.as_bytes());
        }
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(n) => {
                    self.output.drain(..n);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        !self.ended
    }
}

fn is_order(verb: &str) -> bool {
    matches!(verb, "restart" | "reload")
}

/// What is done for each peer that an order names.
type Wanted<'a> = &'a [fn(String) -> Command];

/// `restart NAME`, `reload [in | out] NAME`; NAME may be `all`. As with BIRD, a reload asks the peer for its routes again,
/// tells it everything again, or both, and the session stays.
fn order(words: &[&str], family: Family, view: &View, orders: &mut Vec<Command>) -> String {
    let reset = |peer| Command::Reset { peer };
    let refresh_in = |peer| Command::RefreshIn { peer };
    let refresh_out = |peer| Command::RefreshOut { peer };
    let (name, done, wanted): (_, _, Wanted<'_>) = match words {
        ["restart", name] => (*name, "0012-", &[reset]),
        ["reload", "in", name] => (*name, "0015-", &[refresh_in]),
        ["reload", "out", name] => (*name, "0015-", &[refresh_out]),
        ["reload", name] => (*name, "0015-", &[refresh_in, refresh_out]),
        _ => return syntax_error(),
    };
    let name = name.trim_matches('"');
    let mut out = String::new();
    for peer in view.peers.iter().filter(|p| family.has(p.address) && (name == "all" || p.name == name)) {
        orders.extend(wanted.iter().map(|command| command(peer.name.clone())));
        let what = if done == "0012-" { "restarted" } else { "reloading" };
        let _ = writeln!(out, "{done}{}: {what}", peer.name);
    }
    if out.is_empty() {
        return "8003 No protocols match\n".to_owned();
    }
    out.push_str("0000 \n");
    out
}

/// The reply to one question.
fn answer(
    words: &[&str],
    family: Family,
    view: &impl Fn() -> View,
    routes: &impl Fn(Family, usize) -> Routes,
) -> String {
    // BIRD takes any unambiguous beginning of a word.
    let is = |word: &&str, full: &str| !word.is_empty() && full.starts_with(*word);
    match words {
        [] => String::new(),
        [show, what] if is(show, "show") && is(what, "status") => status(&view()),
        [show, what, rest @ ..] if is(show, "show") && is(what, "protocols") => {
            let (all, name) = match rest {
                [] => (false, None),
                [word] if is(word, "all") => (true, None),
                [word, name] if is(word, "all") => (true, Some(*name)),
                [name] => (false, Some(*name)),
                _ => return syntax_error(),
            };
            protocols(&view(), family, all, name.map(|n| n.trim_matches('"')))
        }
        [show, what, rest @ ..] if is(show, "show") && is(what, "route") => match rest {
            [] => show_routes(&routes(family, SHOWN)),
            [word] if is(word, "all") => show_routes(&routes(family, SHOWN)),
            [word] if is(word, "count") => {
                let Routes { paths, networks, .. } = routes(family, 0);
                format!("0014 {paths} of {paths} routes for {networks} networks\n")
            }
            _ => syntax_error(),
        },
        _ => syntax_error(),
    }
}

fn syntax_error() -> String {
    "9001 syntax error; known here: show status, show protocols [all] [NAME], show route [count], \
     reload [in|out] NAME, restart NAME\n"
        .to_owned()
}

fn status(view: &View) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "1000-BIRD {VERSION}");
    let _ = writeln!(out, "1011-Router ID is {}", view.router_id);
    let _ = writeln!(out, " Current server time is {}", stamp(view.now));
    let _ = writeln!(out, " Last reboot on {}", stamp(view.started));
    let _ = writeln!(out, " Last reconfiguration on {}", stamp(view.configured));
    if view.recovering {
        let waiting = view.peers.iter().filter(|p| p.state != "Established").count();
        let _ = writeln!(out, "0024-Graceful restart recovery in progress");
        let _ = writeln!(out, "  Waiting for {waiting} protocols to recover");
    }
    out.push_str("0013 Daemon is up and running\n");
    out
}

fn protocols(view: &View, family: Family, all: bool, name: Option<&str>) -> String {
    let mut rows = Vec::new();
    for (name, kind) in
        [("static1", "Static"), ("kernel1", "Kernel"), ("device1", "Device"), ("direct1", "Direct")]
    {
        rows.push((name.to_owned(), row(name, kind, "up", view.started, view.now, ""), String::new()));
    }
    for peer in &view.peers {
        if !family.has(peer.address) {
            continue;
        }
        let state = if peer.state == "Established" { "up" } else { "start" };
        let info = match &peer.error {
            Some(error) if peer.state != "Established" => format!("{:<13} {error}", peer.state),
            _ => format!("{:<13} ", peer.state),
        };
        let line = row(&peer.name, "BGP", state, peer.since, view.now, &info);
        rows.push((peer.name.clone(), line, if all { details(peer) } else { String::new() }));
    }
    rows.retain(|(n, ..)| name.is_none_or(|wanted| wanted == n));
    if rows.is_empty() {
        return "8003 No protocols match\n".to_owned();
    }
    let mut out = String::from("2002-name     proto    table    state  since       info\n");
    for (index, (_, line, details)) in rows.iter().enumerate() {
        let prefix = if index == 0 || all { "1002-" } else { " " };
        let _ = writeln!(out, "{prefix}{line}");
        out.push_str(details);
    }
    out.push_str("0000 \n");
    out
}

fn row(name: &str, kind: &str, state: &str, since: SystemTime, now: SystemTime, info: &str) -> String {
    format!("{name:<8} {kind:<8} {:<8} {state:<6} {:<10}  {info}", "master", short(since, now))
}

fn details(peer: &PeerView) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "1006-  Preference:     100");
    let _ = writeln!(out, "   Routes:         {} imported, {} exported", peer.received, peer.advertised);
    let _ = writeln!(out, "   BGP state:          {}", peer.state);
    let _ = writeln!(out, "     Neighbor address: {}", peer.address);
    let _ = writeln!(out, "     Neighbor AS:      {}", peer.asn);
    if let Some(id) = peer.router_id {
        let _ = writeln!(out, "     Neighbor ID:      {id}");
    }
    if let Some(local) = peer.local {
        let _ = writeln!(out, "     Source address:   {local}");
    }
    if let Some(hold) = peer.hold_time {
        let _ = writeln!(out, "     Hold timer:       {hold}");
    }
    if let Some(error) = &peer.error {
        let _ = writeln!(out, "     Last error:       {error}");
    }
    out
}

fn show_routes(routes: &Routes) -> String {
    let mut out = String::new();
    for (index, route) in routes.shown.iter().enumerate() {
        let prefix = if index == 0 { "1007-" } else { " " };
        let star = if route.best { " *" } else { "" };
        let _ =
            writeln!(out, "{prefix}{:<18} {} [{}]{star}", route.prefix.to_string(), route.how, route.from);
    }
    let more = routes.paths.saturating_sub(routes.shown.len());
    if more > 0 {
        let prefix = if routes.shown.is_empty() { "1007-" } else { " " };
        let _ = writeln!(out, "{prefix}and {more} more: caracal ctl bgp routes shows all");
    }
    out.push_str("0000 \n");
    out
}

fn stamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time)
        .map_or_else(|_| "?".into(), |t| t.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// As BIRD prints it: the time within a day, else the date.
fn short(time: SystemTime, now: SystemTime) -> String {
    let format = match now.duration_since(time) {
        Ok(age) if age.as_secs() < 20 * 3600 => "%H:%M:%S",
        _ => "%Y-%m-%d",
    };
    jiff::Timestamp::try_from(time).map_or_else(|_| "?".into(), |t| t.strftime(format).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn view() -> View {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045);
        let peer = |name: &str, address: &str, state: &str, error: Option<&str>| PeerView {
            name: name.into(),
            address: address.parse().unwrap(),
            asn: 64512,
            state: String::from(state),
            since: now - Duration::from_mins(1),
            error: error.map(str::to_owned),
            router_id: None,
            hold_time: Some(240),
            local: None,
            received: 3,
            advertised: 2,
        };
        View {
            router_id: Ipv4Addr::new(10, 0, 0, 11),
            started: now - Duration::from_hours(25),
            configured: now,
            now,
            recovering: false,
            peers: vec![
                peer("Mesh_10_0_0_12", "10.0.0.12", "Established", None),
                peer("Mesh_fd00__12", "fd00::12", "Active", Some("Socket: Connection refused")),
            ],
        }
    }

    fn ask(line: &str, family: Family) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        answer(&words, family, &view, &|_, _| Routes::default())
    }

    #[test]
    fn a_large_table_is_shown_in_part_and_counted_whole() {
        let route = |n: u8| RouteView {
            prefix: format!("10.0.{n}.0/24").parse().unwrap(),
            how: "via 10.9.0.1".into(),
            from: "p".into(),
            best: true,
        };
        let routes = |_, limit: usize| Routes {
            shown: (0..3).take(limit).map(route).collect(),
            paths: 1_000_000,
            networks: 900_000,
        };
        let ask = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            answer(&words, Family::Both, &view, &routes)
        };
        let shown = ask("show route");
        let last = " and 999997 more: caracal ctl bgp routes shows all\n0000 \n";
        assert!(shown.starts_with("1007-10.0.0.0/24") && shown.ends_with(last), "{shown}");
        assert_eq!(ask("show route count"), "0014 1000000 of 1000000 routes for 900000 networks\n");
    }

    /// calicoctl/commands/node/status.go reads these lines with a regular expression.
    #[test]
    fn protocols_read_as_birds_do() {
        let out = ask("show protocols", Family::Ipv4);
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[0], "2002-name     proto    table    state  since       info");
        assert_eq!(lines[1], "1002-static1  Static   master   up     2026-01-01  ");
        assert_eq!(lines[5], " Mesh_10_0_0_12 BGP      master   up     03:03:05    Established   ");
        assert_eq!(lines[6], "0000 ");
        let out = ask("show protocols", Family::Ipv6);
        assert!(out.contains(
            " Mesh_fd00__12 BGP      master   start  03:03:05    Active        Socket: Connection"
        ));
        assert!(!out.contains("Mesh_10_0_0_12"));
    }

    #[test]
    fn status_says_up_and_running() {
        let out = ask("sh st", Family::Ipv4);
        assert!(out.starts_with("1000-BIRD v0.3.3"), "{out}");
        assert!(out.contains("\n1011-Router ID is 10.0.0.11\n"));
        assert!(out.ends_with("\n0013 Daemon is up and running\n"));
        let mut recovering = view();
        recovering.recovering = true;
        assert!(status(&recovering).contains("\n0024-Graceful restart recovery in progress\n"));
    }

    #[test]
    fn orders_go_to_the_peers_of_the_family() {
        let say = |line: &str, family| {
            let (words, mut orders) = (line.split_whitespace().collect::<Vec<_>>(), Vec::new());
            let said = order(&words, family, &view(), &mut orders);
            (said, orders)
        };
        let peer = || "Mesh_10_0_0_12".to_owned();
        let (said, orders) = say("reload in Mesh_10_0_0_12", Family::Ipv4);
        assert_eq!(said, "0015-Mesh_10_0_0_12: reloading\n0000 \n");
        assert_eq!(orders, [Command::RefreshIn { peer: peer() }]);
        let (_, orders) = say("reload all", Family::Ipv4);
        assert_eq!(orders, [Command::RefreshIn { peer: peer() }, Command::RefreshOut { peer: peer() }]);
        let (said, orders) = say("restart \"Mesh_fd00__12\"", Family::Both);
        assert_eq!((said.as_str(), orders.len()), ("0012-Mesh_fd00__12: restarted\n0000 \n", 1));
        for line in ["restart Mesh_fd00__12", "reload static1"] {
            assert_eq!(say(line, Family::Ipv4), ("8003 No protocols match\n".to_owned(), Vec::new()));
        }
        assert!(say("restart", Family::Both).0.starts_with("9001 "));
    }

    #[test]
    fn anything_else_is_a_syntax_error() {
        for line in ["show", "show protocol x y z", "configure", "down", "show route for 10.0.0.1"] {
            assert!(ask(line, Family::Ipv4).starts_with("9001 "), "{line}");
        }
        assert_eq!(ask("", Family::Ipv4), "");
    }
}
