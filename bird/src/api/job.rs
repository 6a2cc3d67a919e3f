//! Making an answer, step by step: each step is a fraction of a millisecond, and what it needs to go on it keeps.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use bird_speaker::Speaker;
use bird_speaker::fsm::State;
use bird_speaker::io::Resolution;
use bird_speaker::view::{Census, NeighborView, PathQuery, Walk};
use ipnet::IpNet;

use super::cause::{Facts, Way, diagnose};
use super::history::{History, Md5Drops, stamp};
use super::mrt::Dump;
use super::proto::{
    Cause, DiscoveryView, Down, End, Explained, Line, Neighbor, PeerRow, Refusal, Request, RoutesRequest,
    Summary,
};
use crate::bfd::Watch;
use crate::discover::Discovery;
use crate::fib::Fib;
use crate::kernel::Kernel;
use crate::view::Times;

/// What answers are made from.
pub(crate) struct World<'a> {
    pub(crate) speaker: Option<&'a Speaker>,
    pub(crate) kernel: &'a Kernel,
    pub(crate) fib: &'a Fib,
    pub(crate) watch: &'a Watch,
    pub(crate) discovery: &'a Discovery,
    pub(crate) times: Times,
    /// The loop's clock.
    pub(crate) now: Duration,
}

/// Units of counting or walking in a step.
const UNITS: usize = 32;
/// Peers without a session that a summary names.
const NAMED: usize = 100;

/// An answer under way.
#[derive(Debug)]
pub(super) struct Job {
    request: Request,
    stage: Stage,
    rows: u64,
}

#[derive(Debug)]
enum Stage {
    Begin,
    Count(Census),
    Peers { census: Census, names: Vec<String>, at: usize },
    Walk { walk: Walk, query: PathQuery, what: What, left: u64 },
    Exports { prefix: IpNet, peers: Vec<String>, at: usize },
    Dump(Dump),
}

/// What a walk shows.
#[derive(Debug)]
enum What {
    Paths,
    Advertised(String),
    Withheld(String),
}

/// What comes of a step.
enum Outcome {
    Goes(Box<Stage>),
    Done { cut: bool },
}

fn goes(stage: Stage) -> Outcome {
    Outcome::Goes(Box::new(stage))
}

/// Adds a line to an answer.
pub(super) fn put(out: &mut Vec<u8>, line: &Line) {
    let before = out.len();
    if serde_json::to_writer(&mut *out, line).is_err() {
        // Nothing in a line can fail to be written; half a line would be worse than none.
        out.truncate(before);
        return;
    }
    out.push(b'\n');
}

impl Job {
    pub(super) fn new(request: Request) -> Self {
        Self { request, stage: Stage::Begin, rows: 0 }
    }

    /// Goes on with the answer; true when it is complete.
    pub(super) fn step(&mut self, world: &World<'_>, history: &History, out: &mut Vec<u8>) -> bool {
        let Some(speaker) = world.speaker else {
            let refusal = Refusal::new(
                "the speaker has no configuration yet",
                "it begins when the datastore was read; the agent's log says what it waits for",
            );
            put(out, &Line::Error(refusal));
            return true;
        };
        let stage = std::mem::replace(&mut self.stage, Stage::Begin);
        let mut seen = Seen { world, speaker, history, out, rows: &mut self.rows };
        match seen.step(&self.request, stage) {
            Ok(Outcome::Goes(stage)) => {
                self.stage = *stage;
                false
            }
            Ok(Outcome::Done { cut }) => {
                let end = End { rows: self.rows, cut };
                put(out, &Line::End(end));
                true
            }
            Err(refusal) => {
                put(out, &Line::Error(refusal));
                true
            }
        }
    }
}

/// A step's view of everything.
struct Seen<'a> {
    world: &'a World<'a>,
    speaker: &'a Speaker,
    history: &'a History,
    out: &'a mut Vec<u8>,
    rows: &'a mut u64,
}

impl Seen<'_> {
    fn step(&mut self, request: &Request, stage: Stage) -> Result<Outcome, Refusal> {
        match (stage, request) {
            (Stage::Begin, Request::Summary | Request::Peers) => Ok(goes(Stage::Count(Census::default()))),
            (Stage::Begin, Request::Neighbor { peer }) => {
                self.peer_named(peer)?;
                Ok(goes(Stage::Count(Census::default())))
            }
            (Stage::Begin, Request::Routes(routes)) => self.begin_walk(routes),
            (Stage::Begin, Request::MrtTable) => {
                *self.rows += 1;
                Ok(goes(Stage::Dump(Dump::begin(self.world, self.speaker, self.out))))
            }
            // Recordings are no jobs: they last.
            (Stage::Begin, Request::MrtUpdates { .. }) => Ok(Outcome::Done { cut: false }),
            (Stage::Dump(mut dump), _) => {
                *self.rows += 1;
                let done = dump.step(self.speaker, self.out);
                Ok(if done { Outcome::Done { cut: false } } else { goes(Stage::Dump(dump)) })
            }
            (Stage::Begin, Request::Explain { prefix, peer }) => {
                self.begin_explanation(prefix, peer.as_deref())
            }
            (Stage::Count(mut census), _) => {
                if !self.speaker.census_step(&mut census, UNITS) {
                    return Ok(goes(Stage::Count(census)));
                }
                match request {
                    Request::Summary => self.summary(&census),
                    Request::Neighbor { peer } => self.neighbor(peer, &census)?,
                    _ => {
                        let names = self.speaker.peer_names().into_iter().map(|(name, _)| name).collect();
                        return Ok(goes(Stage::Peers { census, names, at: 0 }));
                    }
                }
                Ok(Outcome::Done { cut: false })
            }
            (Stage::Peers { census, names, at }, _) => {
                let Some(name) = names.get(at) else { return Ok(Outcome::Done { cut: false }) };
                self.peer(name, &census);
                Ok(goes(Stage::Peers { census, names, at: at + 1 }))
            }
            (Stage::Walk { walk, query, what, left }, _) => Ok(self.walk(walk, query, what, left)),
            (Stage::Exports { prefix, peers, at }, _) => {
                let Some(name) = peers.get(at) else { return Ok(Outcome::Done { cut: false }) };
                if let Some(export) = self.speaker.explain_export(prefix, name) {
                    self.say(&Line::Export(Box::new(export)));
                }
                Ok(goes(Stage::Exports { prefix, peers, at: at + 1 }))
            }
        }
    }

    fn say(&mut self, line: &Line) {
        *self.rows += 1;
        put(self.out, line);
    }

    // ---- peers ----

    /// The peer with this name, or the only one with this address.
    fn peer_named(&self, wanted: &str) -> Result<String, Refusal> {
        let names = self.speaker.peer_names();
        if names.iter().any(|(name, _)| name == wanted) {
            return Ok(wanted.to_owned());
        }
        let address: Option<IpAddr> = wanted.parse().ok();
        let with: Vec<&str> =
            names.iter().filter(|(_, a)| Some(*a) == address).map(|(name, _)| name.as_str()).collect();
        match with.as_slice() {
            [one] => Ok((*one).to_owned()),
            [] => {
                let some: Vec<&str> = names.iter().take(8).map(|(name, _)| name.as_str()).collect();
                let fix = match (some.is_empty(), names.len() > some.len()) {
                    (true, _) => "this speaker has no peers".to_owned(),
                    (_, false) => format!("there are {}", some.join(", ")),
                    (_, true) => {
                        format!("there are {} peers, among them {}", names.len(), some.join(", "))
                    }
                };
                Err(Refusal::new(format!("there is no peer {wanted}"), fix))
            }
            several => Err(Refusal::new(
                format!("several peers have the address {wanted}"),
                format!("name one of {}", several.join(", ")),
            )),
        }
    }

    fn cause(&self, view: &NeighborView, md5: Md5Drops) -> Option<Cause> {
        let config = self.speaker.config();
        let peer = &view.peer;
        let now = SystemTime::now();
        let known = |address: IpAddr| config.peers.iter().any(|p| p.address == address);
        let way = match self.world.kernel.resolve(peer.address) {
            Resolution::Unreachable if view.settings.interface.is_some() => {
                Way::Link(view.settings.interface.clone().unwrap_or_default())
            }
            Resolution::Unreachable => Way::None,
            Resolution::Via { hops, .. } => match hops.first() {
                Some(hop) => hop.gateway.map_or_else(|| Way::Link(hop.interface.to_string()), Way::Gateway),
                None => Way::None,
            },
        };
        diagnose(&Facts {
            view,
            reasons: self.history.reasons(&peer.name),
            local_as: peer.local_as,
            way,
            callers: self
                .history
                .callers(now)
                .filter(|c| c.address == peer.address || !known(c.address))
                .collect(),
            md5: self.history.md5_since_down(&peer.name, md5),
            discovery: self.discovery(&peer.name).as_ref(),
        })
    }

    fn discovery(&self, peer: &str) -> Option<DiscoveryView> {
        self.world.discovery.view(peer, self.world.kernel)
    }

    fn since(for_ms: u64) -> String {
        stamp(SystemTime::now() - Duration::from_millis(for_ms))
    }

    fn peer(&mut self, name: &str, census: &Census) {
        let Some(peer) = self.speaker.peer_view_of(census, name) else { return };
        let mut cause = None;
        if peer.state != State::Established
            && let Some(view) = self.speaker.neighbor_view(name, census)
        {
            cause = self.cause(&view, Md5Drops::read());
        }
        let row = PeerRow {
            since: Self::since(peer.for_ms),
            routes: self.speaker.counts_of(census, name),
            cause,
            errors: self.history.errors(name),
            // Before the first session nobody knows from where to watch: that is not up either.
            bfd_up: self.world.watch.is_up(name).or(peer.watched.then_some(false)),
            discovery: self.discovery(name),
            peer,
        };
        self.say(&Line::Peer(Box::new(row)));
    }

    fn neighbor(&mut self, wanted: &str, census: &Census) -> Result<(), Refusal> {
        let name = self.peer_named(wanted)?;
        let Some(view) = self.speaker.neighbor_view(&name, census) else { return Ok(()) };
        let helping = self.speaker.restart_view(self.world.now).helping;
        let row = Neighbor {
            helping: helping.into_iter().filter(|h| h.peer == name).collect(),
            local_router_id: self.speaker.config().local.router_id,
            since: Self::since(view.peer.for_ms),
            routes: self.speaker.counts_of(census, &name),
            cause: self.cause(&view, Md5Drops::read()),
            errors: self.history.errors(&name),
            bfd: self.world.watch.view(&name),
            discovery: self.discovery(&name),
            view,
        };
        self.say(&Line::Neighbor(Box::new(row)));
        Ok(())
    }

    fn summary(&mut self, census: &Census) {
        let local = self.speaker.config().local;
        let names = self.speaker.peer_names();
        let md5 = Md5Drops::read();
        let is_down = |name: &str| self.speaker.peer_state(name) != Some(State::Established);
        let down: Vec<&str> = names.iter().map(|(n, _)| n.as_str()).filter(|n| is_down(n)).collect();
        let named = down.iter().take(NAMED).filter_map(|name| {
            let view = self.speaker.neighbor_view(name, census)?;
            let cause = self.cause(&view, md5)?;
            Some(Down { peer: view.peer.name, for_ms: view.peer.for_ms, cause })
        });
        let (attribute_sets, groups) = self.speaker.sizes();
        let now = SystemTime::now();
        let times = self.world.times;
        let up = now.duration_since(times.started).unwrap_or_default();
        let summary = Summary {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            router_id: local.router_id,
            asn: local.asn,
            started: stamp(times.started),
            up_ms: u64::try_from(up.as_millis()).unwrap_or(u64::MAX),
            configured: stamp(times.configured),
            peers: names.len() as u64,
            established: (names.len() - down.len()) as u64,
            down: named.collect(),
            tables: self.speaker.totals_of(census),
            attribute_sets: attribute_sets as u64,
            groups: groups as u64,
            restart: self.speaker.restart_view(self.world.now),
            refused: self.history.callers(now).map(super::history::Refused::shown).collect(),
        };
        self.say(&Line::Summary(Box::new(summary)));
    }

    // ---- routes ----

    fn begin_walk(&self, routes: &RoutesRequest) -> Result<Outcome, Refusal> {
        let several =
            [&routes.received, &routes.advertised, &routes.withheld].iter().filter(|w| w.is_some()).count();
        if several > 1 || (routes.rejected && several > usize::from(routes.received.is_some())) {
            return Err(Refusal::new(
                "received, advertised, withheld and rejected exclude each other",
                "ask for one of them; rejected may go with received",
            ));
        }
        if routes.longer && routes.prefix.is_none() {
            return Err(Refusal::new("longer is about a prefix", "name the prefix"));
        }
        let prefix = match &routes.prefix {
            Some(text) => Some(self.prefix(text, routes.longer)?),
            None => None,
        };
        let from = match &routes.received {
            Some(own) if ["static", "connected", "kernel"].contains(&own.as_str()) => Some(own.clone()),
            Some(peer) => Some(self.peer_named(peer)?),
            None => None,
        };
        let what = match (&routes.advertised, &routes.withheld) {
            (Some(peer), _) => What::Advertised(self.peer_named(peer)?),
            (_, Some(peer)) => What::Withheld(self.peer_named(peer)?),
            _ => What::Paths,
        };
        if let What::Advertised(peer) | What::Withheld(peer) = &what
            && self.speaker.peer_state(peer) != Some(State::Established)
        {
            return Err(Refusal::new(
                format!("there is no session with {peer}"),
                format!("caracal ctl bgp neighbor {peer} says why"),
            ));
        }
        let query = PathQuery { prefix, longer: routes.longer, from, rejected: routes.rejected };
        Ok(goes(Stage::Walk { walk: Walk::default(), query, what, left: routes.limit.unwrap_or(u64::MAX) }))
    }

    /// A prefix as it is written, or the route that carries packets to an address.
    fn prefix(&self, text: &str, as_written: bool) -> Result<IpNet, Refusal> {
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(net.trunc());
        }
        let address: IpAddr = text.parse().map_err(|_| {
            Refusal::new(
                format!("{text} is neither a prefix nor an address"),
                "write it like 10.1.0.0/16, 10.1.2.3 or 2001:db8::/32",
            )
        })?;
        let host = IpNet::from(address);
        Ok(if as_written { host } else { self.speaker.longest_match(host).unwrap_or(host) })
    }

    fn walk(&mut self, mut walk: Walk, query: PathQuery, what: What, left: u64) -> Outcome {
        let mut lines: Vec<Line> = Vec::new();
        let done = match &what {
            What::Paths => {
                let mut rows = Vec::new();
                let done = self.speaker.walk_paths(&mut walk, &query, UNITS, &mut rows);
                lines.extend(rows.into_iter().map(|r| Line::Route(Box::new(r))));
                done
            }
            What::Advertised(peer) => {
                let mut rows = Vec::new();
                let done = self.speaker.walk_advertised(&mut walk, peer, &query, UNITS, &mut rows);
                lines.extend(rows.into_iter().map(|r| Line::Advertised(Box::new(r))));
                done
            }
            What::Withheld(peer) => {
                let mut rows = Vec::new();
                let done = self.speaker.walk_withheld(&mut walk, peer, &query, UNITS, &mut rows);
                lines.extend(rows.into_iter().map(|r| Line::Withheld(Box::new(r))));
                done
            }
        };
        let found = lines.len() as u64;
        for line in lines.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            self.say(line);
        }
        if found > left || (found == left && !done) {
            return Outcome::Done { cut: true };
        }
        if done {
            return Outcome::Done { cut: false };
        }
        goes(Stage::Walk { walk, query, what, left: left - found })
    }

    // ---- explain ----

    fn begin_explanation(&mut self, asked: &str, peer: Option<&str>) -> Result<Outcome, Refusal> {
        let prefix = self.prefix(asked, false)?;
        let peers = match peer {
            Some(peer) => {
                let peer = self.peer_named(peer)?;
                if self.speaker.peer_state(&peer) != Some(State::Established) {
                    return Err(Refusal::new(
                        format!("there is no session with {peer}, so it is told nothing"),
                        format!("caracal ctl bgp neighbor {peer} says why"),
                    ));
                }
                vec![peer]
            }
            None => self.speaker.peer_names().into_iter().map(|(name, _)| name).collect(),
        };
        let mut explanation = self.speaker.explain_here(prefix);
        // The loop knows which device a gateway is on; the speaker does not.
        if let Some(route) = self.speaker.fib_route(prefix) {
            explanation.kernel = Some(crate::view::in_words(&route, self.world.kernel));
        }
        let covered_by = if explanation.paths.is_empty() { self.speaker.longest_match(prefix) } else { None };
        let explained = Explained {
            asked: asked.to_owned(),
            explanation,
            covered_by,
            taken_from: self.speaker.taken_from(prefix),
            kernel_refuses: self.world.fib.refusal(prefix),
        };
        self.say(&Line::Explanation(Box::new(explained)));
        Ok(goes(Stage::Exports { prefix, peers, at: 0 }))
    }
}
