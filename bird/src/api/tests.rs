#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as Stream;
use std::path::Path;
use std::time::SystemTime;

use bird_speaker::config::{Config, OriginTarget, Originated, PeerConfig};
use bird_speaker::{Input, Speaker, Start};
use mio::{Events, Poll};

use super::*;
use crate::bfd::Watch;
use crate::fib::Fib;
use crate::kernel::Kernel;
use crate::view::Times;

const LISTENER: Token = Token(7);

/// The part of the loop that serves the socket, with a speaker that has routes of its own.
struct Loop {
    poll: Poll,
    api: Api,
    speaker: Option<Speaker>,
    kernel: Kernel,
    fib: Fib,
    watch: Watch,
    discovery: crate::discover::Discovery,
    tokens: Tokens,
    /// How long each slice of work was.
    slices: Vec<Duration>,
}

impl Loop {
    fn new(dir: &Path, routes: u32) -> Self {
        let prefixes = (0..routes).map(|i| {
            let [_, a, b, c] = i.to_be_bytes();
            format!("{}.{b}.{c}.0/24", 11 + a).parse().unwrap()
        });
        let originated =
            prefixes.map(|prefix| Originated { prefix, target: OriginTarget::None, metric: None }).collect();
        let peer = |name: &str, address: &str| PeerConfig {
            name: name.into(),
            address: address.parse().unwrap(),
            remote_as: 65002,
            ..PeerConfig::default()
        };
        let peers = vec![peer("one", "10.0.0.2"), peer("two", "10.0.0.3"), peer("three", "10.0.0.3")];
        let mut config = Config { peers, originated, ..Config::default() };
        config.local.router_id = [10, 0, 0, 1].into();
        let mut speaker = Speaker::new(Duration::ZERO, config, Start::default());
        speaker.handle(Duration::ZERO, Input::Tick);
        let poll = Poll::new().unwrap();
        let mut api = Api::new();
        let socket = Socket { path: dir.join("bgp.sock"), group: None };
        api.open(&socket, poll.registry(), LISTENER).unwrap();
        let bell = std::sync::Arc::new(mio::Waker::new(poll.registry(), Token(8)).unwrap());
        Self {
            fib: Fib::open(std::sync::Arc::clone(&bell)).unwrap(),
            watch: Watch::new(std::sync::Arc::clone(&bell)),
            discovery: crate::discover::Discovery::new(bell),
            poll,
            api,
            speaker: Some(speaker),
            kernel: Kernel::new(12, 254),
            tokens: Tokens::after(100),
            slices: Vec::new(),
        }
    }

    /// One turn.
    fn turn(&mut self) {
        let mut events = Events::with_capacity(64);
        let wait = if self.api.is_busy() { Duration::ZERO } else { Duration::from_millis(10) };
        self.poll.poll(&mut events, Some(wait)).unwrap();
        for event in &events {
            assert!(self.api.owns(event.token()));
            self.api.ready(event.token(), self.poll.registry(), &mut self.tokens);
        }
        let now = SystemTime::now();
        let world = World {
            speaker: self.speaker.as_ref(),
            kernel: &self.kernel,
            fib: &self.fib,
            watch: &self.watch,
            discovery: &self.discovery,
            times: Times { started: now, configured: now },
            now: Duration::ZERO,
        };
        let start = Instant::now();
        self.api.work(&world, self.poll.registry());
        self.slices.push(start.elapsed());
    }

    /// Turns until something is so.
    fn until(&mut self, is: impl Fn(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !is(self) {
            assert!(Instant::now() < end, "{} clients", self.api.clients.len());
            self.turn();
        }
    }
}

/// Asks and reads the whole answer while the loop turns.
fn ask(looped: &mut Loop, dir: &Path, question: &str) -> Vec<Line> {
    let path = dir.join("bgp.sock");
    let question = format!("{question}\n");
    let asker = std::thread::spawn(move || {
        let mut stream = Stream::connect(path).unwrap();
        stream.write_all(question.as_bytes()).unwrap();
        let mut lines = Vec::new();
        for line in BufReader::new(stream).lines() {
            let line: Line = serde_json::from_str(&line.unwrap()).unwrap();
            let last = matches!(line, Line::End(_) | Line::Error(_));
            lines.push(line);
            if last {
                break;
            }
        }
        lines
    });
    while !asker.is_finished() {
        looped.turn();
    }
    asker.join().unwrap()
}

#[test]
fn questions_and_answers() {
    let dir = tempfile::tempdir().unwrap();
    let mut looped = Loop::new(dir.path(), 300);
    let lines = ask(&mut looped, dir.path(), r#"{"get":"summary"}"#);
    let [Line::Summary(summary), Line::End(End { rows: 1, cut: false })] = lines.as_slice() else {
        panic!("{lines:?}")
    };
    assert_eq!((summary.peers, summary.established, summary.down.len()), (3, 0, 3));
    assert_eq!((summary.tables[0].own, summary.tables[0].best), (300, 300));
    let lines = ask(&mut looped, dir.path(), r#"{"get":"peers"}"#);
    let names: Vec<&str> = lines
        .iter()
        .filter_map(|l| if let Line::Peer(row) = l { Some(row.peer.name.as_str()) } else { None })
        .collect();
    assert_eq!(names, ["one", "three", "two"]);
    let lines = ask(&mut looped, dir.path(), r#"{"get":"neighbor","peer":"10.0.0.2"}"#);
    let Line::Neighbor(neighbor) = &lines[0] else { panic!("{lines:?}") };
    assert_eq!(neighbor.view.peer.name, "one");
    assert_eq!(neighbor.cause.as_ref().unwrap().kind, CauseKind::NoRoute, "there are no links here");
    let lines = ask(&mut looped, dir.path(), r#"{"get":"routes"}"#);
    assert_eq!(lines.len(), 301);
    let lines = ask(&mut looped, dir.path(), r#"{"get":"routes","prefix":"11.0.16.0/20","longer":true}"#);
    assert_eq!(lines.len(), 17);
    let lines = ask(&mut looped, dir.path(), r#"{"get":"routes","received":"static","limit":7}"#);
    assert_eq!(lines.last(), Some(&Line::End(End { rows: 7, cut: true })));
    let lines = ask(&mut looped, dir.path(), r#"{"get":"routes","rejected":true}"#);
    assert_eq!(lines, [Line::End(End { rows: 0, cut: false })]);
    let lines = ask(&mut looped, dir.path(), r#"{"get":"explain","prefix":"11.0.3.9"}"#);
    let Line::Explanation(explained) = &lines[0] else { panic!("{lines:?}") };
    assert_eq!(explained.explanation.prefix, "11.0.3.0/24".parse().unwrap());
    assert_eq!(explained.explanation.paths[0].from, "static");
    let lines = ask(&mut looped, dir.path(), r#"{"get":"explain","prefix":"11.0.3.128/25"}"#);
    let Line::Explanation(explained) = &lines[0] else { panic!("{lines:?}") };
    assert_eq!(explained.covered_by, Some("11.0.3.0/24".parse().unwrap()));
}

#[test]
fn mistakes_are_answered_with_their_fix() {
    let dir = tempfile::tempdir().unwrap();
    let mut looped = Loop::new(dir.path(), 1);
    for (question, text, fix) in [
        ("hello", "not understood", "docs/bgp-cli.md"),
        (r#"{"get":"peer"}"#, "unknown variant", "docs/bgp-cli.md"),
        (r#"{"get":"routes","prefx":"1.0.0.0/8"}"#, "unknown field", "docs/bgp-cli.md"),
        (r#"{"get":"neighbor","peer":"four"}"#, "there is no peer four", "there are one, three, two"),
        (r#"{"get":"neighbor","peer":"10.0.0.3"}"#, "several peers", "three, two"),
        (r#"{"get":"routes","prefix":"10.0.0"}"#, "neither a prefix nor an address", "10.1.0.0/16"),
        (r#"{"get":"routes","longer":true}"#, "about a prefix", "name the prefix"),
        (r#"{"get":"routes","received":"one","advertised":"one"}"#, "exclude each other", "one of them"),
        (r#"{"get":"routes","advertised":"one"}"#, "no session with one", "neighbor one"),
        (r#"{"get":"explain","prefix":"11.0.0.0/24","peer":"one"}"#, "no session with one", "neighbor one"),
    ] {
        let lines = ask(&mut looped, dir.path(), question);
        let [Line::Error(refusal)] = lines.as_slice() else { panic!("{question}: {lines:?}") };
        assert!(refusal.text.contains(text), "{question}: {refusal:?}");
        assert!(refusal.fix.contains(fix), "{question}: {refusal:?}");
    }
    looped.speaker = None;
    let lines = ask(&mut looped, dir.path(), r#"{"get":"peers"}"#);
    assert!(matches!(lines.as_slice(), [Line::Error(_)]), "{lines:?}");
}

/// The reader gets everything, however slowly; meanwhile little is buffered, others are served, and no slice is long.
#[test]
fn a_slow_reader_stops_its_own_answer_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut looped = Loop::new(dir.path(), 30_000);
    let mut slow = Stream::connect(dir.path().join("bgp.sock")).unwrap();
    slow.write_all(b"{\"get\":\"routes\"}\n{\"get\":\"summary\"}\n").unwrap();
    looped.turn();
    while looped.api.clients.is_empty() || looped.api.is_busy() {
        looped.turn();
    }
    let buffered = looped.api.clients.values().map(|c| c.output.capacity()).max().unwrap();
    assert!(buffered <= 4 * HIGH_WATER, "{buffered}");
    let lines = ask(&mut looped, dir.path(), r#"{"get":"summary"}"#);
    assert_eq!(lines.len(), 2, "others are served");
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(slow).lines().map(Result::unwrap);
        let mut ends = 0;
        lines
            .take_while(|line| {
                ends += usize::from(line.starts_with("{\"end\""));
                ends < 2
            })
            .count()
    });
    while !reader.is_finished() {
        looped.turn();
    }
    assert_eq!(reader.join().unwrap(), 30_000 + 1 + 1);
    // A slice is meant to take 2 ms; another process may have the processor in the middle of some.
    looped.slices.sort_unstable();
    let most = looped.slices[looped.slices.len() * 9 / 10];
    assert!(most < Duration::from_millis(10), "{most:?}");
}

#[test]
fn who_sends_without_end_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let mut looped = Loop::new(dir.path(), 1);
    let mut flood = Stream::connect(dir.path().join("bgp.sock")).unwrap();
    flood.write_all(&vec![b'x'; 3 * READ_AHEAD]).unwrap();
    looped.turn();
    looped.until(|l| l.api.clients.is_empty());
    flood.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let ended = std::io::Read::read(&mut flood, &mut [0]);
    assert!(matches!(ended, Ok(0)) || ended.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset));
    let many: Vec<Stream> =
        (0..MOST_CLIENTS + 5).map(|_| Stream::connect(dir.path().join("bgp.sock")).unwrap()).collect();
    looped.until(|l| l.api.clients.len() == MOST_CLIENTS);
    looped.turn();
    assert_eq!(looped.api.clients.len(), MOST_CLIENTS);
    // A connection that ends is forgotten.
    drop(many);
    looped.until(|l| l.api.clients.is_empty());
}

#[test]
fn the_socket_is_for_its_group_and_not_taken_from_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/bgp.sock");
    let wanted = Socket { path: path.clone(), group: None };
    let poll = Poll::new().unwrap();
    // What a process left that died.
    std::fs::create_dir(dir.path().join("run")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut first = Api::new();
    first.open(&wanted, poll.registry(), Token(1)).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let mut second = Api::new();
    let err = format!("{:#}", second.open(&wanted, poll.registry(), Token(2)).unwrap_err());
    assert!(err.contains("another speaker of this host serves it"), "{err}");
    drop(second);
    assert!(path.exists(), "the first one's stays");
    let nobody = Socket { group: Some("no-such-group-here".into()), path: dir.path().join("other.sock") };
    let err = format!("{:#}", Api::new().open(&nobody, poll.registry(), Token(3)).unwrap_err());
    assert!(err.contains("groupadd no-such-group-here"), "{err}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left aside");
    drop(first);
    assert!(!path.exists());
}

#[test]
fn the_place_of_the_socket() {
    let of = |pairs: &[(&str, &str)]| {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Socket::from_env(&|name| pairs.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone()))
    };
    assert_eq!(of(&[]).unwrap().path, Path::new(DEFAULT_PATH));
    assert_eq!(of(&[("CARACAL_RUN_DIR", "/r")]).unwrap().path, Path::new("/r/bgp.sock"));
    let both = of(&[("CARACAL_BGP_SOCKET", "/s"), ("CARACAL_BGP_SOCKET_GROUP", "ops")]).unwrap();
    assert_eq!((both.path.as_path(), both.group.as_deref()), (Path::new("/s"), Some("ops")));
    assert_eq!(of(&[("CARACAL_BGP_SOCKET", "none")]), None);
}
