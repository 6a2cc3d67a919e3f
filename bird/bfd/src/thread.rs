//! The thread that runs an [`Engine`] on UDP sockets, and the handle by which others speak to it.
//!
//! The thread does nothing else: no logging, no waiting for locks, no work for the user. What it has to say goes
//! into a mailbox, and `notify` rings.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this is where clock, lock and thread live"
)]

mod mailbox;
mod priority;
mod socket;

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

pub use self::priority::Priority;

use self::mailbox::{Inbox, Mailbox, News};
use self::priority::Turn;
use self::socket::{Listener, Sender};
use crate::engine::{Discards, Engine, Input, Output};
use crate::event::{Event, Status, Time};
use crate::packet::LEN;
use crate::params::{Hops, InvalidSession, Params, SessionKey, validate};

/// A port or source address that could not be had is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
/// A mailbox that somebody held is tried again after this.
const CONTENDED: Duration = Duration::from_millis(1);
/// Datagrams taken from one socket before timers get their turn: as many as its buffer can hold, so that no
/// session is declared dead while its packets lie there.
const BATCH: usize = 2_048;

/// How to start.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How the thread should be scheduled; it goes on with less if the system refuses.
    pub priority: Priority,
}

impl Default for Options {
    fn default() -> Self {
        Self { priority: Priority::RealTime }
    }
}

/// What peers are told when the thread stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// Every peer hears AdminDown, which is no failure (RFC 5882 §3.2). The thread stays for at most this long,
    /// to repeat it; zero sends it once.
    AdminDown(Duration),
    /// Nothing. Peers notice after their detection time, as if the host had died.
    Silent,
}

/// Everything about BFD on this host, for operators.
#[derive(Debug, Clone)]
pub struct Report {
    /// Each session, with what keeps its packets from being sent, if anything does.
    pub sessions: Vec<(Status, Option<String>)>,
    /// Ports that could not be opened, and why. Sessions there hear nothing.
    pub ports: Vec<(TroubleWith, String)>,
    /// Packets thrown away.
    pub discards: Discards,
    /// How the thread is scheduled.
    pub priority: Priority,
    /// The most that a timer was late since the last report.
    pub latest: Duration,
}

/// What does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TroubleWith {
    /// Listening on the port for this kind of session, over IPv4 or not.
    Port {
        /// IPv4, else IPv6.
        v4: bool,
        /// Kind of session.
        hops: Hops,
    },
    /// Sending a session's packets.
    Session(SessionKey),
}

impl fmt::Display for TroubleWith {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { v4, hops } => {
                write!(f, "bfd port {} over {}", hops.port(), if *v4 { "ipv4" } else { "ipv6" })
            }
            Self::Session(key) => write!(f, "bfd session {key}"),
        }
    }
}

/// Something began or ceased to fail. It is tried again without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What.
    pub with: TroubleWith,
    /// Why; `None` when it works now.
    pub problem: Option<String>,
}

/// The running thread. Dropping it stops it without a word to the peers; see [`Bfd::stop`].
#[derive(Debug)]
pub struct Bfd {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Bfd {
    /// Starts the thread in the caller's network namespace. `notify` is called on it when there is news, and
    /// must not block: it sets a flag, wakes a poll, notifies a task.
    pub fn start(options: Options, notify: impl Fn() + Send + Sync + 'static) -> io::Result<Self> {
        let mailbox = Arc::new(Mailbox::new(Box::new(notify))?);
        let handle = Handle { mailbox: Arc::clone(&mailbox) };
        let run = move || {
            let _last_word = LastWord(Arc::clone(&mailbox));
            Worker::new(mailbox, options.priority).run();
        };
        let thread = std::thread::Builder::new().name("bfd".into()).spawn(run)?;
        Ok(Self { handle, thread: Some(thread) })
    }

    /// A handle for others.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Ends the thread and waits for it.
    pub fn stop(mut self, farewell: Farewell) {
        self.end(farewell);
    }

    fn end(&mut self, farewell: Farewell) {
        if let Some(thread) = self.thread.take() {
            self.handle.mailbox.ask(|inbox| inbox.stop = Some(farewell));
            let _ = thread.join();
        }
    }
}

impl std::ops::Deref for Bfd {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Bfd {
    fn drop(&mut self) {
        self.end(Farewell::Silent);
    }
}

/// Speaks to the thread. Calls return at once, but for [`Handle::report`]; wishes are kept one per session, so
/// there is no queue that could be full.
#[derive(Debug, Clone)]
pub struct Handle {
    mailbox: Arc<Mailbox>,
}

impl Handle {
    /// This session should be, with these parameters: starts it, or changes it without taking it down.
    pub fn set(&self, key: SessionKey, params: Params) -> Result<(), InvalidSession> {
        validate(&key, &params)?;
        self.mailbox.ask(|inbox| inbox.changes.insert(key, Some(params)));
        Ok(())
    }

    /// This session should not be. Its peer is told AdminDown.
    pub fn remove(&self, key: SessionKey) {
        self.mailbox.ask(|inbox| inbox.changes.insert(key, None));
    }

    /// These sessions should be and no others. Checked first: with an invalid one nothing changes.
    pub fn set_all(&self, sessions: BTreeMap<SessionKey, Params>) -> Result<(), InvalidSession> {
        for (key, params) in &sessions {
            validate(key, params)?;
        }
        self.mailbox.ask(|inbox| {
            inbox.complete = true;
            inbox.changes = sessions.into_iter().map(|(key, params)| (key, Some(params))).collect();
        });
        Ok(())
    }

    /// Takes what happened to sessions. A slow reader finds for each session at most the last time that it went
    /// down and that it is up since.
    pub fn events(&self) -> Vec<Event> {
        self.mailbox.events()
    }

    /// Takes what began or ceased to fail, for the log.
    pub fn troubles(&self) -> Vec<Trouble> {
        self.mailbox.troubles()
    }

    /// Everything, as it is now; `None` if the thread ended or did not answer in time.
    pub fn report(&self, at_most: Duration) -> Option<Report> {
        self.mailbox.report(at_most)
    }

    /// Whether the thread still runs.
    pub fn is_running(&self) -> bool {
        !self.mailbox.over()
    }
}

/// Tells the users that the thread ended, however it did.
struct LastWord(Arc<Mailbox>);

impl Drop for LastWord {
    fn drop(&mut self) {
        self.0.end();
    }
}

struct Worker {
    mailbox: Arc<Mailbox>,
    engine: Engine,
    start: Instant,
    ports: Vec<Port>,
    senders: BTreeMap<u32, Outgoing>,
    news: News,
    report: Option<(u64, Report)>,
    reported: u64,
    /// Somebody held a mailbox: not everything is said or heard.
    contended: bool,
    stop_at: Option<Time>,
    turn: Turn,
    latest: Duration,
}

/// One of the four ports.
struct Port {
    v4: bool,
    hops: Hops,
    listener: Option<Listener>,
    problem: Option<String>,
    retry_at: Time,
}

/// A session's way out.
struct Outgoing {
    key: SessionKey,
    sender: Option<Sender>,
    problem: Option<String>,
    retry_at: Time,
}

impl Worker {
    fn new(mailbox: Arc<Mailbox>, wanted: Priority) -> Self {
        // The hasher's keys are the system's randomness; there is nothing secret in what follows from it.
        let seed = RandomState::new().build_hasher().finish();
        let port = |v4, hops| Port { v4, hops, listener: None, problem: None, retry_at: Time::ZERO };
        Self {
            mailbox,
            engine: Engine::new(seed),
            start: Instant::now(),
            ports: [(true, Hops::Single), (true, Hops::Multi), (false, Hops::Single), (false, Hops::Multi)]
                .map(|(v4, hops)| port(v4, hops))
                .into(),
            senders: BTreeMap::new(),
            news: News::default(),
            report: None,
            reported: 0,
            contended: false,
            stop_at: None,
            turn: Turn::new(wanted),
            latest: Duration::ZERO,
        }
    }

    fn run(&mut self) {
        while self.step() {
            self.turn.pause(self.start.elapsed());
            self.sleep();
            self.turn.resume(self.start.elapsed());
        }
    }

    /// One turn of the loop; `false` to end.
    fn step(&mut self) -> bool {
        self.contended = false;
        let now = self.start.elapsed();
        match self.mailbox.take() {
            None => self.contended = true,
            Some(inbox) => {
                if !self.obey(now, inbox) {
                    return false;
                }
            }
        }
        self.mind_ports();
        self.receive();
        let now = self.start.elapsed();
        if let Some(due) = self.engine.next_timeout() {
            self.latest = self.latest.max(now.saturating_sub(due));
        }
        self.engine.handle(now, Input::Tick);
        self.carry_out(now);
        if !self.news.is_empty() || self.report.is_some() {
            self.contended |= !self.mailbox.put(&mut self.news, &mut self.report);
        }
        match self.stop_at {
            Some(at) => now < at && self.engine.next_timeout().is_some(),
            None => true,
        }
    }

    /// Does what the users want; `false` to end at once.
    fn obey(&mut self, now: Time, mut inbox: Inbox) -> bool {
        if inbox.complete || !inbox.changes.is_empty() {
            let present = self.engine.status(now);
            let staying = present.iter().filter(|status| !status.leaving).map(|status| status.key);
            for key in inbox.unwanted(staying) {
                self.engine.handle(now, Input::Remove(key));
            }
        }
        for (key, params) in std::mem::take(&mut inbox.changes) {
            if let Some(params) = params {
                self.engine.handle(now, Input::Set(key, params));
            }
        }
        if inbox.report > self.reported {
            self.reported = inbox.report;
            self.report = Some((inbox.report, self.make_report(now)));
        }
        match inbox.stop {
            None => true,
            Some(Farewell::Silent) => false,
            Some(Farewell::AdminDown(at_most)) => {
                for status in self.engine.status(now) {
                    self.engine.handle(now, Input::Remove(status.key));
                }
                self.stop_at = Some(now.saturating_add(at_most));
                true
            }
        }
    }

    /// Opens the ports that sessions need and closes the others.
    fn mind_ports(&mut self) {
        for port in &mut self.ports {
            let with = TroubleWith::Port { v4: port.v4, hops: port.hops };
            if !self.engine.listens(port.v4, port.hops) {
                port.listener = None;
                if port.problem.take().is_some() {
                    self.news.trouble(with, None);
                }
                continue;
            }
            let now = self.start.elapsed();
            if port.listener.is_some() || now < port.retry_at {
                continue;
            }
            let problem = match Listener::open(port.v4, port.hops) {
                Ok(listener) => {
                    port.listener = Some(listener);
                    None
                }
                Err(err) => {
                    port.retry_at = now + RETRY;
                    Some(explain_port(&err))
                }
            };
            if problem != port.problem {
                self.news.trouble(with, problem.clone());
                port.problem = problem;
            }
        }
    }

    fn receive(&mut self) {
        for port in &mut self.ports {
            let Some(listener) = &mut port.listener else { continue };
            for _ in 0..BATCH {
                let now = self.start.elapsed();
                let engine = &mut self.engine;
                match listener.receive(|arrival| engine.handle(now, Input::Packet(arrival))) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(err) => {
                        // A socket that fails to read would wake us forever: open it anew.
                        let problem = Some(err.to_string());
                        let with = TroubleWith::Port { v4: port.v4, hops: port.hops };
                        self.news.trouble(with, problem.clone());
                        (port.listener, port.problem, port.retry_at) = (None, problem, now + RETRY);
                        break;
                    }
                }
            }
        }
    }

    fn carry_out(&mut self, now: Time) {
        while let Some(output) = self.engine.poll() {
            match output {
                Output::Send { session, key, bytes } => self.send(now, session, key, &bytes),
                Output::Event(event) => self.news.event(event),
                Output::Gone { session } => {
                    if let Some(outgoing) = self.senders.remove(&session)
                        && outgoing.problem.is_some()
                    {
                        self.news.trouble(TroubleWith::Session(outgoing.key), None);
                    }
                }
            }
        }
    }

    fn send(&mut self, now: Time, session: u32, key: SessionKey, bytes: &[u8; LEN]) {
        let outgoing = self.senders.entry(session).or_insert_with(|| Outgoing {
            key,
            sender: None,
            problem: None,
            retry_at: Time::ZERO,
        });
        let problem = match outgoing.send(now, session, bytes) {
            Ok(true) => None,
            Ok(false) => return,
            Err(err) => Some(explain_session(&key, &err)),
        };
        if problem != outgoing.problem {
            self.news.trouble(TroubleWith::Session(key), problem.clone());
            outgoing.problem = problem;
        }
    }

    fn make_report(&mut self, now: Time) -> Report {
        let problem =
            |status: &Status| self.senders.get(&status.discriminator).and_then(|out| out.problem.clone());
        let sessions = self.engine.status(now).into_iter().map(|status| (status, problem(&status))).collect();
        let ports = self.ports.iter().filter_map(|port| {
            Some((TroubleWith::Port { v4: port.v4, hops: port.hops }, port.problem.clone()?))
        });
        Report {
            sessions,
            ports: ports.collect(),
            discards: *self.engine.discards(),
            priority: self.turn.priority(),
            latest: std::mem::take(&mut self.latest),
        }
    }

    /// Waits for a packet, a wish, or the next timer.
    fn sleep(&self) {
        let now = self.start.elapsed();
        let retries = self.ports.iter().filter(|port| port.problem.is_some()).map(|port| port.retry_at);
        let contended = self.contended.then(|| now + CONTENDED);
        let wake = retries.chain(self.engine.next_timeout()).chain(contended).chain(self.stop_at).min();
        let mut watched = vec![PollFd::new(self.mailbox.bell.as_fd(), PollFlags::POLLIN)];
        if self.contended {
            // The bell may still ring for what could not be taken: that is tried again by the clock.
            watched.clear();
        }
        let listeners = self.ports.iter().filter_map(|port| port.listener.as_ref());
        watched.extend(listeners.map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
        let timeout = wake.map(|at| TimeSpec::from(at.saturating_sub(now)));
        // An interruption is a wake like any other.
        let _ = ppoll(&mut watched, timeout, None);
    }
}

impl Outgoing {
    /// Sends; `false` if it is too early to try again.
    fn send(&mut self, now: Time, session: u32, bytes: &[u8; LEN]) -> io::Result<bool> {
        let sender = match self.sender.take() {
            Some(sender) => sender,
            None if now < self.retry_at => return Ok(false),
            None => Sender::open(&self.key, session).inspect_err(|_| self.retry_at = now + RETRY)?,
        };
        let sent = sender.send(bytes);
        // A socket whose address or device went away may never work again; a closed one is opened anew.
        let dead = sent.as_ref().is_err_and(|err| {
            matches!(
                err.raw_os_error(),
                Some(libc::ENODEV | libc::ENXIO | libc::EINVAL | libc::EADDRNOTAVAIL)
            )
        });
        if dead {
            self.retry_at = now + RETRY;
        } else {
            self.sender = Some(sender);
        }
        sent.map(|()| true)
    }
}

fn explain_port(err: &io::Error) -> String {
    match err.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            "another program listens there; stop its BFD (bird, frr's bfdd) on this host".into()
        }
        Some(libc::EAFNOSUPPORT) => "this host has no such address family".into(),
        _ => err.to_string(),
    }
}

fn explain_session(key: &SessionKey, err: &io::Error) -> String {
    match (err.raw_os_error(), key.local) {
        (Some(libc::EADDRNOTAVAIL | libc::EINVAL), Some(local)) => {
            format!("{local} is not an address of this host; add it or choose another source address")
        }
        (Some(libc::ENXIO | libc::ENODEV), _) => "the interface does not exist".into(),
        (Some(libc::ENETUNREACH | libc::EHOSTUNREACH), _) => "no route to the peer".into(),
        (Some(libc::EPERM), _) => "a packet filter of this host drops them".into(),
        _ => err.to_string(),
    }
}
