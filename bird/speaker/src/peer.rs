//! A neighbour: what is configured, which connections it has, when it is called again, what is kept over its restart.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bird_packet::Family;
use smallvec::SmallVec;

use crate::config::{Config, PeerConfig};
use crate::conn::Conns;
use crate::fsm::State;
use crate::io::{DownReason, Time};
use crate::policy::eval::{Chain, Direction};
use crate::rib::table::PeerIndex;
use crate::view::Said;

/// One neighbour.
pub(crate) struct Peer {
    pub(crate) index: PeerIndex,
    pub(crate) name: Arc<str>,
    pub(crate) config: Arc<PeerConfig>,
    /// It called from this listen range; it goes when its session goes.
    pub(crate) range: Option<usize>,
    /// Slots of its connections that are not closing.
    pub(crate) conns: SmallVec<[usize; 2]>,
    pub(crate) established: Option<usize>,
    /// Our end of its session, or of the last one.
    pub(crate) own_address: Option<IpAddr>,
    /// When to call next.
    pub(crate) retry_at: Option<Time>,
    /// Calls that failed in a row.
    pub(crate) failures: u32,
    /// It had a session and is expected back soon: until then it is called again after [`EAGER_RETRY`] at most.
    pub(crate) expected_until: Time,
    /// Idle until then, after an error.
    pub(crate) idle_until: Option<Time>,
    /// How long the next pause after an error is.
    pub(crate) error_wait: Duration,
    /// Its BFD session is up, as far as the shell said.
    pub(crate) bfd_up: bool,
    /// Down until an operator resets it.
    pub(crate) held_down: bool,
    /// By family, the number that its paths of now have: another with each session and enhanced refresh, modulo 256.
    pub(crate) epoch: [u8; 2],
    /// When the state changed last.
    pub(crate) since: Time,
    pub(crate) last_error: Option<DownReason>,
    /// What was said about it since its last session.
    pub(crate) reported: Vec<DownReason>,
    /// What its last OPEN said.
    pub(crate) said: Option<Said>,
    pub(crate) import: [Arc<Chain>; 2],
    pub(crate) export: [Arc<Chain>; 2],
    /// Update group and number in it, by family.
    pub(crate) groups: [Option<(usize, usize)>; 2],
    pub(crate) helper: Helper,
    /// End-of-RIB received in this session, by family.
    pub(crate) eor: [bool; 2],
    /// An enhanced refresh is under way (RFC 7313), by family.
    pub(crate) refreshing: [bool; 2],
    /// Received UPDATE last.
    pub(crate) last_update: Time,
    /// A call went through once, either way: somebody is there, whatever became of it.
    pub(crate) answered: bool,
    /// The prefix limit was reported.
    pub(crate) limit_reported: [bool; 2],
    /// The limit of paths for a prefix was reported.
    pub(crate) path_limit_reported: bool,
    /// The configuration no longer has it; it goes when its routes are gone.
    pub(crate) removed: bool,
    pub(crate) armed: Option<Time>,
    pub(crate) counters: Counters,
}

/// What a peer's session did, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    /// UPDATE messages received.
    pub updates_received: u64,
    /// KEEPALIVE messages received.
    pub keepalives_received: u64,
    /// Times that it asked for our routes again (RFC 2918), each family for itself.
    #[serde(default)]
    pub refreshes_received: u64,
    /// Times that we asked for its routes again, the same.
    #[serde(default)]
    pub refreshes_sent: u64,
    /// Bytes handed out to be sent.
    pub bytes_sent: u64,
    /// UPDATE messages of which RFC 7606 contained an error.
    pub malformed: u64,
    /// Of these, those whose routes were treated as withdrawn; in the others an attribute was dropped.
    #[serde(default)]
    pub treated_as_withdraw: u64,
    /// Paths not taken, beyond what it may tell of a prefix (ADD-PATH).
    #[serde(default)]
    pub paths_refused: u64,
    /// Sessions that reached Established.
    pub established: u64,
    /// Sessions that were Established and ended.
    pub flaps: u64,
}

impl Counters {
    /// Adds those of another peer.
    pub fn add(&mut self, other: &Counters) {
        self.updates_received += other.updates_received;
        self.keepalives_received += other.keepalives_received;
        self.refreshes_received += other.refreshes_received;
        self.refreshes_sent += other.refreshes_sent;
        self.bytes_sent += other.bytes_sent;
        self.malformed += other.malformed;
        self.treated_as_withdraw += other.treated_as_withdraw;
        self.paths_refused += other.paths_refused;
        self.established += other.established;
        self.flaps += other.flaps;
    }
}

/// Helping a peer over its restart (RFC 4724 §4.2).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Helper {
    /// Families of which stale routes are kept.
    pub(crate) stale: [bool; 2],
    /// It must be back by then.
    pub(crate) back_by: Option<Time>,
    /// It must have told everything again by then.
    pub(crate) done_by: Option<Time>,
    /// How long stale routes are kept when it is not back in time, by family; zero: not at all (RFC 9494).
    pub(crate) long_lived_time: [Duration; 2],
    /// Stale routes are long-lived stale, until then.
    pub(crate) long_lived: [Option<Time>; 2],
}

impl Helper {
    pub(crate) fn is_active(&self) -> bool {
        self.stale.iter().any(|s| *s)
    }
}

/// Pause after the first call that failed; each further one doubles it.
pub(crate) const FIRST_RETRY: Duration = Duration::from_millis(100);
/// Longest pause between calls to a peer that lost its session a short while ago. A refused call costs a few packets; what
/// is lost meanwhile is the peer's routes.
const EAGER_RETRY: Duration = Duration::from_millis(200);

/// How long a peer of this kind is given to call before we do.
fn patience(config: &PeerConfig) -> Duration {
    config.patience.filter(|_| config.passive).unwrap_or_default()
}

impl Peer {
    pub(crate) fn new(index: PeerIndex, config: PeerConfig, all: &Config, now: Time) -> Self {
        let mut peer = Peer {
            index,
            name: config.name.as_str().into(),
            error_wait: config.error_wait.0,
            retry_at: Some(now + patience(&config)),
            config: Arc::new(config),
            range: None,
            conns: SmallVec::new(),
            established: None,
            own_address: None,
            failures: 0,
            expected_until: Time::ZERO,
            idle_until: None,
            bfd_up: false,
            held_down: false,
            epoch: [0, 0],
            since: now,
            last_error: None,
            reported: Vec::new(),
            said: None,
            import: Default::default(),
            export: Default::default(),
            groups: [None, None],
            helper: Helper::default(),
            eor: [false, false],
            refreshing: [false, false],
            last_update: now,
            answered: false,
            limit_reported: [false, false],
            path_limit_reported: false,
            removed: false,
            armed: None,
            counters: Counters::default(),
        };
        peer.compile(all);
        peer
    }

    /// Prepares its filters; returns whether import or export rules changed, by family.
    pub(crate) fn compile(&mut self, all: &Config) -> ([bool; 2], [bool; 2]) {
        let chain = |names: &[String], direction, family| {
            Arc::new(Chain::compile(&all.filters, names, direction, family))
        };
        let import = Family::ALL.map(|f| chain(&self.config.import, Direction::Import, f));
        let export = Family::ALL.map(|f| chain(&self.config.export, Direction::Export, f));
        let differs = |old: &[Arc<Chain>; 2], new: &[Arc<Chain>; 2]| [old[0] != new[0], old[1] != new[1]];
        let changed = (differs(&self.import, &import), differs(&self.export, &export));
        self.import = import;
        self.export = export;
        changed
    }

    /// Whether another peer with its address had the session when it last looked.
    pub(crate) fn yields(&self) -> bool {
        matches!(self.last_error, Some(DownReason::Rival { .. }))
    }

    /// Whether it may have a session at all.
    pub(crate) fn is_wanted(&self) -> bool {
        self.config.enabled && !self.removed && !self.held_down
    }

    /// Whether we call it.
    pub(crate) fn is_called(&self) -> bool {
        let waits = self.config.passive && self.config.patience.is_none();
        let known = !self.config.address.is_unspecified();
        self.is_wanted() && known && !waits && self.range.is_none()
    }

    /// How long it is given to call before we do.
    pub(crate) fn patience(&self) -> Duration {
        patience(&self.config)
    }

    /// Its state, in the RFC's words.
    pub(crate) fn state(&self, conns: &Conns) -> State {
        if !self.is_wanted() {
            return State::Idle;
        }
        let best = self.conns.iter().filter_map(|c| conns.get(*c)).map(|c| c.phase.state()).max();
        match best {
            Some(state) => state,
            None if self.idle_until.is_some() => State::Idle,
            None => State::Active,
        }
    }

    /// Its earliest deadline.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let Helper { back_by, done_by, long_lived: [v4, v6], .. } = self.helper;
        [self.retry_at, self.idle_until, back_by, done_by, v4, v6].into_iter().flatten().min()
    }

    /// Pause until the next call; longer with each that fails.
    pub(crate) fn next_pause(&mut self, now: Time) -> Duration {
        let longest = if now < self.expected_until { EAGER_RETRY } else { self.config.connect_retry };
        let pause = FIRST_RETRY.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1);
        pause
    }
}
