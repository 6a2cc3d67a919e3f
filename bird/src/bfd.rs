//! BFD of the peers: which sessions there should be, and what the speaker is told of them.
//!
//! The thread of [`bird_bfd`] sends and counts; this file follows the speaker's list of watched peers and turns a
//! failure into a word about each peer behind it. A peer without BFD harms nothing: only a session that was up fails.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bird_bfd::{
    Bfd, Cause, Change, Diag, Down, Farewell, GracefulRestart, Hops, Options, Params, Reaction, SessionKey,
    State, TroubleWith, react, validate,
};
use bird_speaker::io::Witness;
use bird_speaker::watch::{RestartStanding, Watched};

use crate::api::BfdView;

/// What the loop may be late in hearing of a failure.
const SLACK: Duration = Duration::from_millis(100);
/// How long a view waits for the thread.
const ANSWER: Duration = Duration::from_millis(20);
/// A thread that could not be started is tried again after this.
const RETRY: Duration = Duration::from_secs(10);

/// The sessions and their thread, which runs from the first wanted session on.
pub(crate) struct Watch {
    bell: Arc<mio::Waker>,
    thread: Option<Bfd>,
    retry_at: Option<Instant>,
    wanted: BTreeMap<SessionKey, Params>,
    /// Peer -> its session.
    sessions: BTreeMap<String, SessionKey>,
    /// Those that are up, as far as was heard.
    up: BTreeSet<SessionKey>,
    /// Our end of a peer's last session, where none is configured.
    locals: BTreeMap<String, IpAddr>,
    /// What cannot be, said once.
    said: BTreeSet<String>,
    /// The peers or their sessions changed.
    pub(crate) stale: bool,
    /// A peer is named with its interface, whose index may change.
    pub(crate) by_link: bool,
    /// A peer's session waits for BFD: its connections matter before it is up.
    pub(crate) strict: bool,
    failures: u64,
}

/// How BFD stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Sessions that are up.
    pub(crate) up: u64,
    /// Sessions that are not.
    pub(crate) down: u64,
    /// Failures so far.
    pub(crate) failures: u64,
}

impl Watch {
    /// Nothing is watched yet. `bell` rings when there is news.
    pub(crate) fn new(bell: Arc<mio::Waker>) -> Self {
        Self {
            bell,
            thread: None,
            retry_at: None,
            wanted: BTreeMap::new(),
            sessions: BTreeMap::new(),
            up: BTreeSet::new(),
            locals: BTreeMap::new(),
            said: BTreeSet::new(),
            stale: false,
            by_link: false,
            strict: false,
            failures: 0,
        }
    }

    /// Watches these peers and no others.
    pub(crate) fn follow<'a>(
        &mut self,
        peers: impl Iterator<Item = Watched<'a>>,
        link_index: impl Fn(&str) -> Option<u32>,
    ) {
        self.stale = false;
        self.by_link = false;
        self.strict = false;
        let mut wanted: BTreeMap<SessionKey, Params> = BTreeMap::new();
        let mut sessions = BTreeMap::new();
        let mut locals = BTreeMap::new();
        for peer in peers {
            self.strict |= peer.bfd.strict;
            // The address is kept when the session goes: that is when BFD must not start anew.
            let known = peer.local.or_else(|| self.locals.get(peer.peer).copied());
            let Some(local) = known.filter(|l| l.is_ipv4() == peer.address.is_ipv4()) else { continue };
            locals.insert(peer.peer.to_owned(), local);
            self.by_link |= peer.interface.is_some();
            let interface = peer.interface.map(&link_index);
            if interface == Some(None) {
                continue;
            }
            let key = SessionKey {
                peer: peer.address,
                local: Some(local),
                interface: interface.flatten(),
                hops: if peer.bfd.multihop { Hops::Multi } else { Hops::Single },
            };
            let params = params(&peer);
            if let Err(err) = validate(&key, &params) {
                let said = format!("{}: {err}", peer.peer);
                if self.said.insert(said) {
                    tracing::warn!(peer = peer.peer, %err, "no BFD with this peer");
                }
                continue;
            }
            sessions.insert(peer.peer.to_owned(), key);
            // Two peers at one address share a session; the more demanding one counts.
            let shared = wanted.entry(key).or_insert(params);
            shared.min_tx = shared.min_tx.min(params.min_tx);
            shared.min_rx = shared.min_rx.min(params.min_rx);
            shared.multiplier = shared.multiplier.min(params.multiplier);
        }
        self.locals = locals;
        self.sessions = sessions;
        if wanted != self.wanted {
            self.up.retain(|key| wanted.contains_key(key));
            self.wanted = wanted;
            self.hand_over();
        }
    }

    /// When to try again to start the thread.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Tells the thread what is wanted; starts it when there is something.
    pub(crate) fn hand_over(&mut self) {
        self.retry_at = None;
        if self.thread.is_none() && !self.wanted.is_empty() {
            let bell = Arc::clone(&self.bell);
            let ring = move || {
                // A bell that cannot be rung belongs to a loop that has ended.
                let _ = bell.wake();
            };
            match Bfd::start(Options::default(), ring) {
                Ok(thread) => self.thread = Some(thread),
                Err(err) => {
                    tracing::warn!(%err, "no thread for BFD; it is tried again");
                    self.retry_at = Some(Instant::now() + RETRY);
                }
            }
        }
        if let Some(thread) = &self.thread {
            thread.set_all(self.wanted.clone()).expect("invariant: follow keeps valid sessions only");
        }
    }

    /// What happened: peers that are gone, and what of their routes. `peers` are as for [`Watch::follow`].
    pub(crate) fn news<'a, I: Iterator<Item = Watched<'a>>>(
        &mut self,
        peers: impl Fn() -> I,
    ) -> Vec<(String, Witness)> {
        let Some(thread) = &self.thread else { return Vec::new() };
        for trouble in thread.troubles() {
            match trouble.problem {
                Some(problem) => tracing::warn!(with = %trouble.with, err = problem, "BFD does not work"),
                None => tracing::info!(with = %trouble.with, "BFD works again"),
            }
        }
        let mut gone = Vec::new();
        for event in thread.events() {
            let down = match event.change {
                Change::Up => {
                    tracing::info!(session = %event.key, "BFD is up");
                    self.up.insert(event.key);
                    continue;
                }
                Change::Down(down) => down,
            };
            self.up.remove(&event.key);
            let meant = matches!(down.cause, Cause::NeighborAdminDown | Cause::LocalAdminDown);
            self.failures += u64::from(!meant);
            for peer in peers().filter(|p| self.sessions.get(p.peer) == Some(&event.key)) {
                let what = judge(&peer, down);
                tracing::warn!(
                    session = %event.key,
                    peer = peer.peer,
                    cause = ?down.cause,
                    their_diagnostic = ?down.remote_diag,
                    ends_session = what.is_some(),
                    "BFD is down"
                );
                gone.extend(what.map(|why| (peer.peer.to_owned(), why)));
            }
        }
        if !thread.is_running() {
            tracing::error!("the thread of BFD has ended; it is started again");
            self.up.clear();
            self.thread = None;
            self.hand_over();
        }
        gone
    }

    /// Those of `peers` whose BFD the speaker knows otherwise than it is.
    pub(crate) fn untold<'a>(&self, peers: impl Iterator<Item = Watched<'a>>) -> Vec<(String, bool)> {
        peers
            .map(|p| (p.peer, p.told_up, self.is_up(p.peer).unwrap_or(false)))
            .filter(|(_, told, up)| told != up)
            .map(|(peer, _, up)| (peer.to_owned(), up))
            .collect()
    }

    /// Numbers for metrics.
    pub(crate) fn tally(&self) -> Tally {
        let up = self.wanted.keys().filter(|key| self.up.contains(key)).count();
        Tally { up: up as u64, down: (self.wanted.len() - up) as u64, failures: self.failures }
    }

    /// Whether BFD with a peer is up; `None`: it is not watched.
    pub(crate) fn is_up(&self, peer: &str) -> Option<bool> {
        self.sessions.get(peer).map(|key| self.up.contains(key))
    }

    /// The BFD session of a peer; waits a moment for the thread, which does nothing that takes long.
    pub(crate) fn view(&self, peer: &str) -> Option<BfdView> {
        let key = self.sessions.get(peer)?;
        let report = self.thread.as_ref()?.report(ANSWER)?;
        let (status, problem) = report.sessions.iter().find(|(status, _)| status.key == *key)?;
        let port = TroubleWith::Port { v4: key.peer.is_ipv4(), hops: key.hops };
        let deaf = report.ports.iter().find(|(with, _)| *with == port);
        let ms = |d: Duration| d.as_secs_f64() * 1000.0;
        Some(BfdView {
            state: word(status.state).to_owned(),
            for_ms: u64::try_from(status.lasting.as_millis()).unwrap_or(u64::MAX),
            multihop: key.hops == Hops::Multi,
            interval_ms: status.tx_interval.map(ms),
            detection_ms: status.detection_time.map(ms),
            remote_state: word(status.remote_state).to_owned(),
            failures: status.failures,
            sent: status.sent,
            received: status.received,
            problem: deaf.map(|(with, why)| format!("{with}: {why}")).or_else(|| problem.clone()),
        })
    }

    /// Ends the sessions. Peers hear that this is no failure.
    pub(crate) fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.stop(Farewell::AdminDown(Duration::ZERO));
        }
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::AdminDown => "admin-down",
        State::Down => "down",
        State::Init => "init",
        State::Up => "up",
    }
}

fn params(peer: &Watched<'_>) -> Params {
    Params {
        min_tx: peer.bfd.min_tx,
        min_rx: peer.bfd.min_rx,
        multiplier: peer.bfd.multiplier,
        // TTL security of the BGP session holds for its BFD too.
        min_ttl: peer.hops.map_or(1, |hops| 255 - hops.max(1) + 1),
        ..Params::default()
    }
}

/// What a BFD failure says about a peer; `None`: nothing that BGP should act on.
fn judge(peer: &Watched<'_>, down: Down) -> Option<Witness> {
    // A peer that restarts may have its BGP session again before its BFD is missed, or says that it began anew. What
    // BFD knows is then older than the session. One that does not hear us says so with a diagnostic.
    let heard_now = down.cause == Cause::NeighborSignaled && down.remote_diag != Diag::NONE;
    if !heard_now && peer.up_for.is_some_and(|age| age < down.silent_for + SLACK) {
        return None;
    }
    let restart = match peer.restart {
        RestartStanding::None => GracefulRestart::None,
        RestartStanding::Agreed if peer.bfd.keep_routes => GracefulRestart::Preferred,
        RestartStanding::Agreed => GracefulRestart::Negotiated,
        RestartStanding::UnderWay => GracefulRestart::InProgress,
    };
    match react(&down, restart) {
        Reaction::Ignore => None,
        Reaction::CloseAndDrop => Some(Witness::Bfd),
        Reaction::CloseAndKeep => Some(Witness::BfdOfControlPlane),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(up_for: Option<u64>, restart: RestartStanding, keep_routes: bool) -> Watched<'static> {
        let interval = Duration::from_millis(100);
        Watched {
            peer: "tor",
            address: "10.0.0.2".parse().unwrap(),
            interface: None,
            local: None,
            hops: None,
            bfd: bird_speaker::config::Bfd {
                min_tx: interval,
                min_rx: interval,
                multiplier: 3,
                multihop: false,
                keep_routes,
                strict: false,
            },
            told_up: false,
            up_for: up_for.map(Duration::from_millis),
            restart,
        }
    }

    #[test]
    fn a_failure_counts_unless_the_session_is_newer_or_a_restart_explains_it() {
        use RestartStanding::{Agreed, None as No, UnderWay};
        let down = |cause, remote_diag, control_plane_independent| Down {
            cause,
            remote_diag,
            control_plane_independent,
            silent_for: Duration::from_millis(300),
        };
        let silent = down(Cause::DetectionTimeExpired, Diag::NONE, false);
        let silent_alone = down(Cause::DetectionTimeExpired, Diag::NONE, true);
        let anew = down(Cause::NeighborSignaled, Diag::NONE, false);
        let unheard = down(Cause::NeighborSignaled, Diag::DETECTION_TIME_EXPIRED, false);
        let admin = down(Cause::NeighborAdminDown, Diag::NONE, false);
        let (drop, keep) = (Some(Witness::Bfd), Some(Witness::BfdOfControlPlane));
        for (up_for, standing, keeps, what, want) in [
            (Some(5_000), No, false, silent, drop),
            (Some(5_000), Agreed, false, silent, drop),
            (Some(5_000), Agreed, true, silent, keep),
            (Some(5_000), Agreed, true, silent_alone, drop),
            (None, UnderWay, false, silent, None),
            (None, UnderWay, false, silent_alone, drop),
            (Some(5_000), UnderWay, false, silent, None),
            (Some(5_000), Agreed, false, admin, None),
            // The session is younger than what BFD knows.
            (Some(200), Agreed, false, silent, None),
            (Some(401), Agreed, false, silent, drop),
            (Some(200), Agreed, false, anew, None),
            (Some(401), Agreed, false, anew, drop),
            // The peer does not hear us, now.
            (Some(10), Agreed, false, unheard, drop),
        ] {
            assert_eq!(judge(&peer(up_for, standing, keeps), what), want, "{up_for:?} {standing:?} {what:?}");
        }
    }
}
