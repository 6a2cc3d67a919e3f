//! A recorded session: everything that went into a speaker, with its time, and what came out, as lines of text.
//!
//! ```text
//! # anything
//! config {…}                          the speaker's configuration, one line of JSON
//! 1000 tick                           microseconds, then what went in
//! 1350 connected 0 192.0.2.1:40000    call 0 went through
//! 1420 refused 0                      call 0 did not
//! 1500 received 0 ffff…               bytes of call 0
//! 1600 closed 0 reset by the peer
//! 1600 reachable 192.0.2.9            a next hop that was asked for is on the link
//!   > call 1 192.0.2.9:179            what came of it: calls, messages, events, kernel routes
//!   > 0 OPEN
//!   > 0 UPDATE +10.0.0.0/8 -10.1.0.0/16
//!   > event Up { … }
//!   > fib 10.0.0.0/8 …
//! ```
//!
//! `bird/examples/record_session.rs` makes such files from a session with a real speaker; `replay.rs` plays them.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bird_packet::{Family, MAX_LEN_EXTENDED, MessageKind, Notification, SessionContext, UpdateView, frame};
use bird_speaker::config::Config;
use bird_speaker::io::{ConnId, ConnectError, Dial, Resolution, ResolvedHop};
use bird_speaker::view::RouteFilter;
use bird_speaker::{ImportReason, Input, Output, Speaker, Start};

/// A speaker that takes lines and gives lines.
pub struct Tape {
    pub speaker: Speaker,
    /// Calls made, in order; their places are their names in the lines.
    pub dials: Vec<Dial>,
    /// Bytes to be written, by call; a player throws them away.
    pub to_send: Vec<(usize, Vec<u8>)>,
    /// Calls to be closed.
    pub to_close: Vec<usize>,
    /// Next hops asked for.
    pub asked: Vec<IpAddr>,
    tails: Vec<Vec<u8>>,
}

impl Tape {
    /// Begins at time 0. The lines are what came out at once.
    pub fn new(config: &str) -> (Tape, Vec<String>) {
        let config: Config = serde_json::from_str(config).expect("the line is a configuration");
        let mut tape = Tape {
            speaker: Speaker::new(Duration::ZERO, config, Start::default()),
            dials: Vec::new(),
            to_send: Vec::new(),
            to_close: Vec::new(),
            asked: Vec::new(),
            tails: Vec::new(),
        };
        let lines = tape.out(Duration::ZERO);
        (tape, lines)
    }

    /// Puts a line in and says what came out.
    pub fn step(&mut self, line: &str) -> Vec<String> {
        let (micros, rest) = line.split_once(' ').expect("a time and an input");
        let now = Duration::from_micros(micros.parse().expect("microseconds"));
        let (what, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let (first, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let conn = || self.dials[first.parse::<usize>().expect("the number of a call")].conn;
        match what {
            "tick" => self.speaker.handle(now, Input::Tick),
            "connected" => {
                let local: SocketAddr = rest.parse().expect("an address and a port");
                let conn = conn();
                self.speaker.handle(now, Input::Connected { conn, local });
            }
            "refused" => {
                let conn = conn();
                self.speaker.handle(now, Input::ConnectFailed { conn, reason: ConnectError::Refused });
            }
            "received" => {
                let conn = conn();
                self.speaker.handle(now, Input::Received { conn, data: &unhex(rest) });
            }
            "closed" => {
                let conn = conn();
                self.speaker.handle(now, Input::Closed { conn, reason: rest.to_owned() });
            }
            "reachable" => {
                let address = first.parse().expect("an address");
                let hop = ResolvedHop { gateway: None, ifindex: 2, interface: "eth0".into() };
                let resolution = Resolution::Via { hops: vec![hop], metric: 0 };
                self.speaker.handle(now, Input::NextHop { address, resolution });
            }
            other => panic!("no such input: {other}"),
        }
        self.out(now)
    }

    fn out(&mut self, now: Duration) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(output) = self.speaker.poll() {
            match output {
                Output::Connect(dial) => {
                    lines.push(format!("  > call {} {}", self.dials.len(), dial.remote));
                    self.dials.push(dial);
                    self.tails.push(Vec::new());
                }
                Output::Transmit(conn) => self.transmit(now, conn, &mut lines),
                Output::Close(conn) => {
                    self.transmit(now, conn, &mut lines);
                    let call = self.number(conn);
                    lines.push(format!("  > {call} closed"));
                    self.to_close.push(call);
                }
                Output::Fib => self.kernel(&mut lines),
                Output::WatchNextHop(address) => self.asked.push(address),
                Output::ForgetNextHop(_) => {}
                Output::Event(event) => lines.push(format!("  > event {event:?}")),
            }
        }
        lines
    }

    /// In order of prefixes: the speaker promises none.
    fn kernel(&mut self, lines: &mut Vec<String>) {
        let mut written = Vec::new();
        loop {
            let changes = self.speaker.take_fib(1000);
            if changes.is_empty() {
                break;
            }
            for change in changes {
                let new = change.new.map_or_else(|| "gone".to_owned(), |r| format!("{:?}", r.target));
                written.push(format!("  > fib {} {new}", change.prefix));
            }
        }
        written.sort();
        lines.extend(written);
    }

    fn number(&self, conn: ConnId) -> usize {
        self.dials.iter().position(|d| d.conn == conn).expect("a call that was made")
    }

    fn transmit(&mut self, now: Duration, conn: ConnId, lines: &mut Vec<String>) {
        let call = self.number(conn);
        loop {
            let mut chunks = Vec::new();
            if self.speaker.transmit(now, conn, 1 << 16, &mut chunks) == 0 {
                return;
            }
            let bytes = chunks.concat();
            let mut tail = std::mem::take(&mut self.tails[call]);
            tail.extend_from_slice(&bytes);
            self.to_send.push((call, bytes));
            let mut rest = &tail[..];
            while let Some(message) = frame(rest, MAX_LEN_EXTENDED).expect("a message of ours") {
                lines.push(format!("  > {call} {}", words(message.kind, message.body)));
                rest = &rest[message.len..];
            }
            self.tails[call] = rest.to_vec();
        }
    }

    /// Every path that the speaker holds, in words.
    pub fn table(&self) -> Vec<String> {
        let paths = self.speaker.routes(&RouteFilter::default());
        let words = paths.into_iter().map(|p| {
            let mut line = format!("  = {} from {}", p.prefix, p.from);
            if let Some(next_hop) = p.next_hop {
                let _ = write!(line, " via {next_hop}");
            }
            let _ = write!(line, " path {:?} communities {:?}", p.attrs.as_path, p.attrs.communities);
            for (is, word) in [(p.best, "best"), (p.stale, "stale"), (p.long_lived, "long-lived")] {
                if is {
                    let _ = write!(line, " {word}");
                }
            }
            if p.import != ImportReason::Accepted {
                let _ = write!(line, " not taken: {}", p.import);
            }
            line
        });
        words.collect()
    }
}

/// A message, as far as it does not depend on the order in which things are written.
fn words(kind: MessageKind, body: &[u8]) -> String {
    match kind {
        MessageKind::Open => "OPEN".into(),
        MessageKind::Keepalive => "KEEPALIVE".into(),
        MessageKind::RouteRefresh => format!("ROUTE-REFRESH {}", hex(body)),
        MessageKind::Notification => {
            Notification::decode(body).map_or_else(|e| e.to_string(), |n| format!("NOTIFICATION {n}"))
        }
        MessageKind::Update => {
            let mut ctx = SessionContext::new(bird_packet::PeerKind::External);
            ctx.family_mut(Family::Ipv6Unicast).enabled = true;
            let Ok(view) = UpdateView::parse(body, &ctx) else { return "UPDATE".into() };
            if let Some(family) = view.end_of_rib() {
                return format!("End-of-RIB {family}");
            }
            let mut said: Vec<String> = Vec::new();
            for announcement in view.announcements() {
                said.extend(announcement.routes.map(|n| format!("+{}", n.prefix)));
            }
            for withdrawal in view.withdrawals() {
                said.extend(withdrawal.routes.map(|n| format!("-{}", n.prefix)));
            }
            said.sort();
            format!("UPDATE {}", said.join(" "))
        }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[i * 2..i * 2 + 2], 16).expect("hexadecimal"))
        .collect()
}
