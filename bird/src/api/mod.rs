//! What the speaker is doing, for people and programs: a unix socket, a question a line, answers as lines of JSON.
//!
//! The loop that serves sessions serves this too, and comes first there: answers are made in slices of a few
//! milliseconds between two looks at the sessions, a reader that does not read stops its own answer and nothing else,
//! and what is buffered for it is bounded. Nobody is counted or copied while nobody asks.
//!
//! [`Request`] and [`Line`] are the protocol. `caracal ctl bgp` speaks it; `docs/bgp-cli.md` describes it.

pub(crate) mod cause;
pub(crate) mod history;
mod job;
pub(crate) mod mrt;
mod proto;
mod socket;

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

use crate::engine::Tokens;

pub(crate) use job::World;
pub use proto::{
    BfdView, Caller, Cause, CauseKind, DiscoveryView, Down, End, Explained, Line, Neighbor, PastError,
    PeerRow, Refusal, Request, RoutesRequest, Summary,
};

use history::History;
use job::Job;
use mrt::{Passing, Recording};

/// The group that may connect, unless another is configured.
pub const DEFAULT_GROUP: &str = "caracal";
/// Where the socket is, unless configured.
pub const DEFAULT_PATH: &str = "/run/caracal/bgp.sock";

/// A question is shorter than this.
const LONGEST_REQUEST: usize = 4096;
/// What is read ahead of a client that sends several questions.
const READ_AHEAD: usize = 16 * 1024;
/// An answer pauses while so much of it waits to be read.
const HIGH_WATER: usize = 64 * 1024;
/// Clients at a time. One more takes the place of the one that has been silent longest.
const MOST_CLIENTS: usize = 32;
/// A client that neither asked nor read for this long may be replaced.
const SILENT: Duration = Duration::from_secs(10);
/// One slice of work on answers.
const SLICE: Duration = Duration::from_millis(2);

/// Where the socket goes, and who may use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// Its path.
    pub path: PathBuf,
    /// The group that may connect; `None`: [`DEFAULT_GROUP`] if the host has it.
    pub group: Option<String>,
}

impl Socket {
    /// `CARACAL_BGP_SOCKET` and `CARACAL_BGP_SOCKET_GROUP`; without the first, `bgp.sock` in `CARACAL_RUN_DIR`, else
    /// [`DEFAULT_PATH`]. `None`: it says `none`.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        let set = |name: &str| env(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let path = match set("CARACAL_BGP_SOCKET") {
            Some(off) if off == "none" => return None,
            Some(path) => PathBuf::from(path),
            None => match set("CARACAL_RUN_DIR") {
                Some(dir) => PathBuf::from(dir).join("bgp.sock"),
                None => PathBuf::from(DEFAULT_PATH),
            },
        };
        Some(Self { path, group: set("CARACAL_BGP_SOCKET_GROUP") })
    }
}

/// The socket and its clients.
#[derive(Debug)]
pub(crate) struct Api {
    listener: Option<socket::Listener>,
    clients: HashMap<Token, Client>,
    /// Clients with something to do, in turn.
    turn: Vec<Token>,
    pub(crate) history: History,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// So much of the output is written.
    written: usize,
    job: Option<Job>,
    recording: Option<Recording>,
    /// The other side will not ask any more.
    ended: bool,
    /// The socket takes no more for now.
    full: bool,
    since: Instant,
}

/// What a client is up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// It waits for the other side.
    Waits,
    /// There is more to do at once.
    More,
    /// It is over.
    Over,
}

impl Api {
    /// Without a socket yet.
    pub(crate) fn new() -> Self {
        Self { listener: None, clients: HashMap::new(), turn: Vec::new(), history: History::new() }
    }

    /// Opens the socket. One that another speaker serves is left to that one.
    pub(crate) fn open(&mut self, wanted: &Socket, registry: &Registry, token: Token) -> anyhow::Result<()> {
        self.listener = Some(socket::Listener::open(wanted, registry, token)?);
        Ok(())
    }

    /// Whether a token is one of ours.
    pub(crate) fn owns(&self, token: Token) -> bool {
        self.clients.contains_key(&token) || self.listener.as_ref().is_some_and(|l| l.token() == token)
    }

    /// Something happened on a socket of ours.
    pub(crate) fn ready(&mut self, token: Token, registry: &Registry, tokens: &mut Tokens) {
        if self.clients.contains_key(&token) {
            return self.hear(token, registry);
        }
        while let Some(stream) = self.listener.as_ref().and_then(socket::Listener::accept) {
            self.welcome(stream, registry, tokens.next());
        }
    }

    /// Reads what a client asks, or notices that it is gone.
    fn hear(&mut self, token: Token, registry: &Registry) {
        let Some(client) = self.clients.get_mut(&token) else { return };
        client.full = false;
        if client.read() {
            self.wake(token);
        } else {
            self.dismiss(token, registry);
        }
    }

    /// Whether answers are waiting to be made.
    pub(crate) fn is_busy(&self) -> bool {
        !self.turn.is_empty()
    }

    /// Makes answers, for a slice of time.
    pub(crate) fn work(&mut self, world: &World<'_>, registry: &Registry) {
        if self.turn.is_empty() {
            return;
        }
        let until = Instant::now() + SLICE;
        while let Some(token) = (!self.turn.is_empty()).then(|| self.turn.remove(0)) {
            let Some(client) = self.clients.get_mut(&token) else { continue };
            match client.advance(world, &self.history) {
                Progress::More => self.turn.push(token),
                Progress::Waits => {}
                Progress::Over => self.dismiss(token, registry),
            }
            if Instant::now() >= until {
                return;
            }
        }
    }

    /// Whether somebody takes messages as they pass, of those received or of those `sent`.
    pub(crate) fn records(&self, sent: bool) -> bool {
        self.clients.values().filter_map(|c| c.recording.as_ref()).any(|r| !sent || r.wants_sent())
    }

    /// A message passes.
    pub(crate) fn record(&mut self, passing: &Passing<'_>) {
        let mut awake = Vec::new();
        for (token, client) in &mut self.clients {
            let waiting = client.output.len() - client.written;
            if let Some(recording) = &mut client.recording
                && recording.take(passing, waiting, &mut client.output)
            {
                awake.push(*token);
            }
        }
        for token in awake {
            self.wake(token);
        }
    }

    fn wake(&mut self, token: Token) {
        if !self.turn.contains(&token) {
            self.turn.push(token);
        }
    }

    fn welcome(&mut self, mut stream: UnixStream, registry: &Registry, token: Token) {
        if self.clients.len() >= MOST_CLIENTS {
            let oldest = self.clients.iter().min_by_key(|(_, c)| c.since).map(|(token, c)| (*token, c.since));
            match oldest {
                Some((oldest, since)) if since.elapsed() > SILENT => self.dismiss(oldest, registry),
                _ => return,
            }
        }
        let interest = Interest::READABLE | Interest::WRITABLE;
        if registry.register(&mut stream, token, interest).is_ok() {
            self.clients.insert(token, Client::new(stream));
            self.hear(token, registry);
        }
    }

    fn dismiss(&mut self, token: Token, registry: &Registry) {
        if let Some(mut client) = self.clients.remove(&token) {
            let _ = registry.deregister(&mut client.stream);
        }
    }
}

impl Client {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            job: None,
            recording: None,
            ended: false,
            full: false,
            since: Instant::now(),
        }
    }

    /// Reads what there is; false when the connection is of no more use.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        while self.input.len() <= READ_AHEAD && !self.ended {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(n) => {
                    self.input.extend_from_slice(&buffer[..n]);
                    self.since = Instant::now();
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        // Who asks without reading answers is not served.
        self.input.len() <= READ_AHEAD
    }

    /// A bounded piece of work.
    fn advance(&mut self, world: &World<'_>, history: &History) -> Progress {
        if !self.flush() {
            return Progress::Over;
        }
        if self.output.len() - self.written >= HIGH_WATER {
            return Progress::Waits;
        }
        if let Some(recording) = &self.recording {
            // Anything that is said ends it.
            if self.ended || self.input.contains(&b'\n') {
                recording.end(&mut self.output);
                self.recording = None;
                self.input.clear();
                return if self.flush() { Progress::More } else { Progress::Over };
            }
            return Progress::Waits;
        }
        if self.job.is_none() {
            match self.question() {
                Some(Ok(Request::MrtUpdates { peer, sent })) => match Recording::new(world, peer, sent) {
                    Ok(recording) => {
                        self.recording = Some(recording);
                        return Progress::Waits;
                    }
                    Err(refusal) => job::put(&mut self.output, &Line::Error(refusal)),
                },
                Some(Ok(request)) => self.job = Some(Job::new(request)),
                Some(Err(refusal)) => job::put(&mut self.output, &Line::Error(refusal)),
                None if self.input.len() > LONGEST_REQUEST => return Progress::Over,
                None if self.ended && self.output.is_empty() => return Progress::Over,
                None => return Progress::Waits,
            }
        }
        if let Some(job) = &mut self.job
            && job.step(world, history, &mut self.output)
        {
            self.job = None;
        }
        if self.flush() { Progress::More } else { Progress::Over }
    }

    fn question(&mut self) -> Option<Result<Request, Refusal>> {
        let end = self.input.iter().position(|b| *b == b'\n')?;
        let line: Vec<u8> = self.input.drain(..=end).collect();
        Some(serde_json::from_slice(&line).map_err(|e| {
            Refusal::new(
                format!("the question is not understood: {e}"),
                "ask like {\"get\":\"peers\"}; docs/bgp-cli.md has the questions",
            )
        }))
    }

    /// Writes what the socket takes; false when the connection is gone.
    fn flush(&mut self) -> bool {
        while self.written < self.output.len() && !self.full {
            match self.stream.write(&self.output[self.written..]) {
                Ok(n) => {
                    self.written += n;
                    self.since = Instant::now();
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.full = true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
            self.output.shrink_to(HIGH_WATER);
        } else if self.written >= HIGH_WATER {
            self.output.drain(..self.written);
            self.written = 0;
        }
        true
    }
}

#[cfg(test)]
mod tests;
