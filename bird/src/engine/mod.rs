//! The loop: one thread, one `poll`, every trigger, and the speaker in the middle.
//!
//! ```text
//!   mailbox (plans) --+                                        +--> sockets: connect, close, writev
//!   netlink monitor --+--> Kernel --> Input --> Speaker --> Output --> Fib: batches of routes
//!   sockets ----------+                                        +--> Kernel: watch, forget a next hop
//!   timers -----------+                                        +--> log
//! ```
//!
//! After every piece of input the outputs are drained and written, so neither a flood of routes nor a slow peer delays
//! a keepalive by more than one piece.

mod audit;
mod discovering;
mod keys;
mod measure;
mod people;
mod routes;
mod sessions;
mod watching;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use bird_speaker::config::{Config, OriginTarget};
use bird_speaker::io::{Command, LocalSource};
use bird_speaker::{ConnId, Event, Input, Output, Speaker, Start};
use caracal_netlink::{Groups, Monitor, MonitorConfig, Route};
use caracal_process::Reporter;
use mio::{Events, Interest, Poll, Token};

use crate::api::{self, Api};
use crate::audit::Auditor;
use crate::bfd::Watch;
use crate::calm::Calm;
use crate::conn::Conn;
use crate::control::{self, Control};
use crate::discover::Discovery;
use crate::fib::Fib;
use crate::kernel::Kernel;
use crate::listen::Listeners;
use crate::plan::{Mailbox, Message, Plan};
use crate::report;
use audit::Audit;
use measure::Measure;

/// Octets read from one connection before the others have their turn.
const READ: usize = 64 * 1024;
/// Time for reading before timers and kernel routes have their turn, and what has been made is sent.
const READ_TURN: Duration = Duration::from_millis(5);
/// Time for sending before the rest has its turn.
const SEND_TURN: Duration = Duration::from_millis(5);
/// Events taken at once: those of all sockets of a large mesh, or a tick would find peers silent that are not.
const EVENTS: usize = 4096;
/// Kernel routes written before the sockets have their turn; a few milliseconds of work.
const FIB_BATCH: usize = 1024;
/// Routes read from the speaker's table at a time are written after this pause when events were lost.
const RESYNC_PAUSE: Duration = Duration::from_millis(20);
/// Everything is compared with the kernel this often, whatever was heard: somebody may write under our own mark, which the
/// monitor does not tell.
const AUDIT: Duration = Duration::from_secs(30);
/// Reading takes at most one part in so many of the time: a million routes are not read every half minute.
const AUDIT_SHARE: u32 = 200;
/// Addresses that could not be listened on are tried again this often.
const LISTEN_RETRY: Duration = Duration::from_secs(1);
/// A link that comes up needs a moment at the far end too: an address request answered too early is lost, and asked again
/// only after a second.
const SETTLE: Duration = Duration::from_millis(30);
/// A call that began this long ago is made again when a link comes up: its SYN may be lost.
const STALE_CALL: Duration = Duration::from_millis(50);
/// What is left to be said at the end must be said within this.
const FAREWELL: Duration = Duration::from_millis(200);
/// A peer that reads nothing is not waited for longer than this with the NOTIFICATION that ends its session.
const LAST_WORDS: Duration = Duration::from_secs(3);

const BELL: Token = Token(0);
const MONITOR: Token = Token(1);
const FIRST: usize = 2;

/// What a loop needs to know before it has a plan.
#[derive(Debug)]
pub(crate) struct Setup {
    /// Protocol number of our routes.
    pub(crate) protocol: u8,
    /// Their table.
    pub(crate) table: u32,
    /// Control sockets.
    pub(crate) control: Vec<(PathBuf, control::Family)>,
    /// The socket for questions about peers and routes.
    pub(crate) api: Option<api::Socket>,
    /// Says when the speaker is ready.
    pub(crate) reporter: Option<Reporter>,
}

/// The loop with everything that it owns.
pub(crate) struct Engine {
    poll: Poll,
    mailbox: mpsc::Receiver<Message>,
    reporter: Option<Reporter>,
    origin: Instant,
    started: SystemTime,
    configured: SystemTime,
    speaker: Option<Speaker>,
    plan: Option<Plan>,
    kernel: Kernel,
    monitor: Monitor,
    fib: Fib,
    conns: HashMap<ConnId, Conn>,
    by_token: HashMap<Token, ConnId>,
    listeners: Listeners,
    /// BFD of the peers.
    watch: Watch,
    /// Peers whose address is found.
    discovery: Discovery,
    control: Control,
    api: Api,
    measure: Measure,
    tokens: Tokens,
    /// Connections with something to read, in turn.
    readable: VecDeque<ConnId>,
    /// Connections with something to write.
    transmit: VecDeque<ConnId>,
    fib_waiting: bool,
    calm: Calm,
    /// Connections that are to be closed when all is written, with the time at which they are closed in any case.
    last_words: VecDeque<(Instant, ConnId)>,
    /// Routes of ours that somebody removed.
    repairs: Vec<Route>,
    recheck: Recheck,
    audit: Audit,
    listen_retry_at: Option<Instant>,
    /// Something came up: peers are called again then.
    wake_at: Option<Instant>,
    recovering: bool,
    stopping: bool,
}

/// Names for sockets; none is used twice.
#[derive(Debug)]
pub(crate) struct Tokens(usize);

impl Tokens {
    /// Names beyond `last`.
    pub(crate) fn after(last: usize) -> Self {
        Self(last)
    }

    pub(crate) fn next(&mut self) -> Token {
        self.0 += 1;
        Token(self.0)
    }
}

/// What must be read from the kernel again.
#[derive(Debug, Default)]
struct Recheck {
    /// Our own routes, after what is waiting is written.
    own: bool,
    /// Everything, at this time.
    all_at: Option<Instant>,
    /// Everything, by the audit.
    audit_at: Option<Instant>,
}

impl Engine {
    /// Opens what the loop needs. The mailbox is the way to tell it anything.
    pub(crate) fn new(setup: Setup) -> anyhow::Result<(Self, Mailbox)> {
        let poll = Poll::new().context("epoll")?;
        let bell = std::sync::Arc::new(mio::Waker::new(poll.registry(), BELL).context("eventfd")?);
        // The monitor listens before anything is read, so no change falls between the two.
        let groups = Groups::LINK | Groups::ADDRESS | Groups::ROUTE;
        let fib = Fib::open(std::sync::Arc::clone(&bell))?;
        let heard = MonitorConfig::new(groups)
            .ignore_new_routes_of(setup.protocol)
            .ignore_changes_by(fib.writes_by());
        let monitor = Monitor::open(heard).context("cannot listen to changes of the kernel")?;
        poll.registry().register(
            &mut mio::unix::SourceFd(&std::os::fd::AsRawFd::as_raw_fd(&monitor)),
            MONITOR,
            Interest::READABLE,
        )?;
        let auditor = Auditor::start(setup.table, setup.protocol, std::sync::Arc::clone(&bell))?;
        let (sender, mailbox) = mpsc::channel();
        let now = SystemTime::now();
        let mut engine = Self {
            poll,
            mailbox,
            reporter: setup.reporter,
            origin: Instant::now(),
            started: now,
            configured: now,
            speaker: None,
            plan: None,
            kernel: Kernel::new(setup.protocol, setup.table),
            monitor,
            fib,
            conns: HashMap::new(),
            by_token: HashMap::new(),
            listeners: Listeners::default(),
            watch: Watch::new(std::sync::Arc::clone(&bell)),
            discovery: Discovery::new(std::sync::Arc::clone(&bell)),
            control: Control::default(),
            api: Api::new(),
            measure: Measure::new(),
            tokens: Tokens::after(FIRST),
            readable: VecDeque::new(),
            transmit: VecDeque::new(),
            fib_waiting: false,
            calm: Calm::default(),
            last_words: VecDeque::new(),
            repairs: Vec::new(),
            audit: Audit::new(auditor),
            recheck: Recheck { audit_at: Some(Instant::now() + AUDIT), ..Recheck::default() },
            listen_retry_at: None,
            wake_at: None,
            recovering: true,
            stopping: false,
        };
        engine.read_kernel()?;
        for (path, family) in &setup.control {
            let token = engine.token();
            if let Err(err) = engine.control.open(path, *family, engine.poll.registry(), token) {
                tracing::warn!(path = %path.display(), %err, "no control socket; the speaker runs without it");
            }
        }
        if let Some(socket) = &setup.api {
            let token = engine.token();
            if let Err(err) = engine.api.open(socket, engine.poll.registry(), token) {
                tracing::warn!(
                    err = format!("{err:#}"),
                    "ctl bgp cannot ask this speaker; it runs without that"
                );
            }
        }
        Ok((engine, Mailbox::new(sender, bell)))
    }

    /// Runs until it is told to stop. Routes stay.
    pub(crate) fn run(mut self) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let mut buffer = vec![0; READ];
        let mut stop_at: Option<Instant> = None;
        loop {
            let now = Instant::now();
            if stop_at.is_some_and(|at| at <= now || self.conns.is_empty()) {
                return Ok(());
            }
            let mut timeout = self.timeout(now);
            if let Some(at) = stop_at {
                timeout = Some(timeout.map_or(at - now, |t| t.min(at - now)));
            }
            match self.poll.poll(&mut events, timeout) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e).context("epoll"),
                _ => {}
            }
            let woke = Instant::now();
            self.note_lateness();
            self.dispatch(&events);
            self.read_connections(&mut buffer);
            self.tick();
            self.write_fib();
            self.discover();
            self.watch_peers();
            self.audit();
            self.housekeeping();
            self.answer();
            self.count();
            self.measure.turns.note(woke.elapsed());
            if self.stopping && stop_at.is_none() {
                stop_at = Some(Instant::now() + FAREWELL);
            }
        }
    }

    // ---- waiting ----

    fn timeout(&self, now: Instant) -> Option<Duration> {
        let busy = !self.readable.is_empty()
            || !self.transmit.is_empty()
            || (self.fib.has_room() && (self.fib_waiting || self.fib.has_mending()))
            || !self.repairs.is_empty()
            || self.api.is_busy()
            || self.audit.is_busy()
            || self.measure.is_busy()
            || self.discovery.stale
            || (self.recheck.own && !self.recovering && !self.fib_waiting && self.fib.is_idle());
        if busy {
            return Some(Duration::ZERO);
        }
        let speaker = self.speaker.as_ref().and_then(Speaker::next_timeout).map(|at| self.origin + at);
        let Recheck { all_at, audit_at, .. } = self.recheck;
        let Self { listen_retry_at, wake_at, .. } = self;
        let last_words = self.last_words.front().map(|(at, _)| *at);
        let parts = [self.fib.next_retry(), self.calm.next_due(), self.watch.retry_at(), last_words];
        let parts = parts.into_iter().chain([self.discovery.retry_at()]);
        let others = parts.chain([all_at, audit_at, *listen_retry_at, *wake_at]);
        others.chain([speaker]).flatten().min().map(|at| at.saturating_duration_since(now))
    }

    fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    fn token(&mut self) -> Token {
        self.tokens.next()
    }

    fn dispatch(&mut self, events: &Events) {
        for event in events {
            match event.token() {
                BELL => self.hear_bfd(),
                MONITOR => self.read_monitor(),
                token => {
                    if let Some(id) = self.by_token.get(&token).copied() {
                        self.socket_ready(id, event);
                    } else if self.control.owns(token) {
                        self.serve_control(token);
                    } else if self.api.owns(token) {
                        self.serve_api(token);
                    } else {
                        self.accept(token);
                    }
                }
            }
        }
        while let Ok(message) = self.mailbox.try_recv() {
            match message {
                Message::Follow(plan) => self.follow(*plan),
                Message::Silence => self.silence(),
                Message::Measure(reply) => self.measure.ask(reply),
                Message::Stop => self.stop(),
            }
        }
    }

    // ---- plans ----

    fn follow(&mut self, plan: Plan) {
        self.configured = SystemTime::now();
        let plan = self.discovery.take(plan);
        self.listeners.follow(&plan, self.poll.registry(), &mut self.tokens);
        self.listen_retry_at = self.listeners.incomplete().then(|| Instant::now() + LISTEN_RETRY);
        let config = plan.config.clone();
        self.api.history.retain(|name| config.may_have_peer(name));
        let redistribute_changed =
            self.plan.as_ref().is_some_and(|old| old.redistribute != plan.redistribute);
        let by_gateway = plan.config.originated.iter().filter_map(|o| match o.target {
            OriginTarget::Via(gateway) => Some((o.prefix, gateway)),
            OriginTarget::Blackhole | OriginTarget::None => None,
        });
        let effects = self.kernel.follow_statics(by_gateway.collect());
        let old = self.plan.replace(plan);
        self.take(effects);
        let now = self.elapsed();
        match &mut self.speaker {
            Some(speaker) => {
                report::change(&speaker.configure(now, config), old.as_ref());
                if let Some(old) = old {
                    self.change_keys(&old);
                }
                if redistribute_changed {
                    self.tell_all_local_routes();
                }
            }
            None => self.begin(config),
        }
        self.watch.stale = true;
        self.drain();
    }

    /// The first plan: take over what an earlier run left in the kernel, tell what the kernel has, start.
    fn begin(&mut self, config: Config) {
        let adopted = match self.fib.adopt(&self.kernel) {
            Ok(adopted) => adopted,
            Err(err) => {
                tracing::warn!(%err, "routes of an earlier run cannot be read; they are written again");
                Vec::new()
            }
        };
        tracing::info!(
            peers = config.peers.len(),
            router_id = %config.local.router_id,
            asn = config.local.asn,
            adopted = adopted.len(),
            "speaker starts"
        );
        // Routes of ours in the kernel are the trace of an earlier run; without any this is a first start, and nobody waits.
        let kept = !adopted.is_empty();
        let start = Start { restarted: kept, forwarding_kept: kept, local_routes: true };
        let now = self.elapsed();
        let mut speaker = Speaker::new(now, config, start);
        for (prefix, route) in adopted {
            speaker.handle(now, Input::StaleFib { prefix, route });
        }
        self.speaker = Some(speaker);
        self.tell_all_local_routes();
        self.input(Input::LocalRoutesComplete);
        if !kept {
            self.end_recovery();
        }
    }

    fn tell_all_local_routes(&mut self) {
        let all: Vec<_> = self.kernel.local_routes().cloned().collect();
        for route in all {
            if self.redistributes(route.key.source) {
                self.input(Input::LocalRoute(route));
            } else {
                self.input(Input::LocalRouteGone(route.key));
            }
        }
    }

    fn redistributes(&self, source: LocalSource) -> bool {
        self.plan.as_ref().is_some_and(|plan| match source {
            LocalSource::Connected => plan.redistribute.connected,
            LocalSource::Kernel => plan.redistribute.kernel,
        })
    }

    /// The node may not speak any more: no peers, nothing of its own.
    fn silence(&mut self) {
        if let (Some(speaker), Some(plan)) = (&mut self.speaker, &mut self.plan) {
            tracing::warn!("the node may not speak any more; sessions end and its routes are removed");
            self.discovery.silence();
            plan.config.peers.clear();
            plan.config.originated.clear();
            speaker.configure(self.origin.elapsed(), plan.config.clone());
        }
        self.watch.stale = true;
        self.listeners.close();
        self.listen_retry_at = None;
        self.drain();
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.listeners.close();
        self.input(Input::Command(Command::Stop));
        self.watch.stop();
    }

    // ---- the speaker ----

    fn input(&mut self, input: Input<'_>) {
        let now = self.elapsed();
        if let Some(speaker) = &mut self.speaker {
            speaker.handle(now, input);
            self.drain();
        }
    }

    /// Runs what is due. A peer whose bytes wait here is not silent.
    fn tick(&mut self) {
        for at in 0..self.readable.len() {
            self.pass(Input::Waiting { conn: self.readable[at] });
        }
        self.input(Input::Tick);
    }

    /// Carries out everything that the speaker wants, until it wants nothing.
    fn drain(&mut self) {
        self.carry_out();
        self.send();
    }

    /// The same but for sending: several inputs may make more to send to the same peers.
    fn carry_out(&mut self) {
        while let Some(output) = self.speaker.as_mut().and_then(Speaker::poll) {
            match output {
                Output::Connect(dial) => self.connect(dial),
                Output::Close(id) => self.close(id),
                Output::Transmit(id) if self.speaker.as_ref().is_some_and(|s| s.is_urgent(id)) => {
                    self.transmit.push_front(id);
                }
                Output::Transmit(id) => self.transmit.push_back(id),
                Output::Fib => self.fib_waiting = true,
                Output::WatchNextHop(address) => {
                    let resolution = self.kernel.watch(address);
                    self.pass(Input::NextHop { address, resolution });
                }
                Output::ForgetNextHop(address) => self.kernel.forget(address),
                Output::Event(event) => self.event(&event),
            }
        }
    }

    /// An input from within [`Engine::drain`], which goes on polling.
    fn pass(&mut self, input: Input<'_>) {
        let now = self.elapsed();
        if let Some(speaker) = &mut self.speaker {
            speaker.handle(now, input);
        }
    }

    fn event(&mut self, event: &Event) {
        report::event(event);
        self.api.history.note(event, SystemTime::now());
        let session = matches!(event, Event::Up { .. } | Event::Down { .. });
        self.watch.stale |= session;
        self.discovery.stale |= session;
        if let Event::RestartComplete { .. } = event {
            self.end_recovery();
        }
    }

    fn end_recovery(&mut self) {
        self.recovering = false;
        if let Some(reporter) = &self.reporter {
            reporter.ready();
        }
        self.fib.sweep_leftovers();
    }
}
