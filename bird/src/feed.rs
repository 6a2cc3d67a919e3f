//! From the datastore to the loop: follow the keys, derive, hand over what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use bird_intent::{Env, Facts, Problem, SecretRef};
use caracal_datastore::{Store, SyncEvent, SyncStatus, Syncer};
use caracal_process::{Reporter, Shutdown};

use crate::plan::{Mailbox, Message, Plan, Redistribute, Secret};
use crate::translate;

/// Names the file of BGP passwords: YAML, secret -> key -> password.
const PASSWORDS: &str = "CARACAL_BGP_PASSWORDS";

/// Follows the datastore until a stop is asked for.
pub(crate) async fn run(
    node: &str,
    store: Arc<dyn Store>,
    mailbox: &Mailbox,
    reporter: &Reporter,
    shutdown: &Shutdown,
) {
    let mut feed = Feed::new(node);
    let mut base = Follower::start(&store, Facts::prefixes(Some(node)));
    let mut workloads: Option<Follower> = None;
    reporter.not_ready("waiting for the datastore");
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            events = base.syncer.next() => feed.take(&mut base.in_sync, events, reporter),
            events = next_of(&mut workloads) => {
                if let Some(follower) = &mut workloads {
                    feed.take(&mut follower.in_sync, events, reporter);
                }
            }
        }
        match (feed.facts.wants_workloads(), workloads.is_some()) {
            (true, false) => workloads = Some(Follower::start(&store, vec![Facts::workload_prefix()])),
            (false, true) => {
                workloads = None;
                feed.forget_workloads();
            }
            _ => {}
        }
        let in_sync = base.in_sync && workloads.as_ref().is_none_or(|w| w.in_sync);
        if in_sync && !feed.derive(mailbox) {
            return;
        }
    }
}

struct Follower {
    syncer: Syncer,
    in_sync: bool,
}

impl Follower {
    fn start(store: &Arc<dyn Store>, prefixes: Vec<String>) -> Self {
        Self { syncer: Syncer::start(Arc::clone(store), prefixes), in_sync: false }
    }
}

async fn next_of(follower: &mut Option<Follower>) -> Vec<SyncEvent> {
    match follower {
        Some(follower) => follower.syncer.next().await,
        None => std::future::pending().await,
    }
}

struct Feed {
    node: String,
    facts: Facts,
    env: Env,
    passwords: Passwords,
    workload_keys: BTreeSet<String>,
    dirty: bool,
    said: BTreeSet<Problem>,
    without_node: bool,
    told: Option<Plan>,
    silent: bool,
}

impl Feed {
    fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            facts: Facts::new(),
            env: Env::from_lookup(&|name: &str| std::env::var(name).ok()),
            passwords: Passwords::from_env(),
            workload_keys: BTreeSet::new(),
            dirty: true,
            said: BTreeSet::new(),
            without_node: false,
            told: None,
            silent: true,
        }
    }

    fn take(&mut self, in_sync: &mut bool, events: Vec<SyncEvent>, reporter: &Reporter) {
        for event in events {
            match event {
                SyncEvent::Update { key, value, .. } => {
                    let intake = self.facts.update(&key, value.as_deref());
                    self.dirty |= intake.changed;
                    if let Some(problem) = intake.problem {
                        tracing::warn!(
                            object = problem.object,
                            field = problem.field,
                            err = problem.reason,
                            fix = problem.fix,
                            "a stored value is not followed; the last good one stays"
                        );
                    }
                    if key.starts_with(&Facts::workload_prefix()) {
                        self.workload_keys.insert(key);
                    }
                }
                SyncEvent::InSync => {
                    *in_sync = true;
                    self.dirty = true;
                }
                SyncEvent::Status(SyncStatus::Connected) => tracing::info!("datastore connected"),
                SyncEvent::Status(SyncStatus::Lost { endpoint, reason }) => {
                    tracing::warn!(
                        endpoint,
                        err = reason,
                        "datastore lost; sessions and routes stay as they are"
                    );
                    if self.told.is_none() {
                        reporter.not_ready(format!("no datastore at {endpoint}: {reason}"));
                    }
                }
            }
        }
    }

    fn forget_workloads(&mut self) {
        for key in std::mem::take(&mut self.workload_keys) {
            self.dirty |= self.facts.update(&key, None).changed;
        }
    }

    /// Derives if anything changed, and hands over what differs. False when nobody listens any more.
    fn derive(&mut self, mailbox: &Mailbox) -> bool {
        let passwords_changed = self.passwords.reload();
        if !std::mem::take(&mut self.dirty) && !passwords_changed {
            return true;
        }
        self.env.secrets = self.passwords.known.keys().cloned().collect();
        let config = match bird_intent::derive(&self.facts, &self.node, &self.env) {
            Ok(config) => config,
            Err(err) => {
                if !std::mem::replace(&mut self.without_node, true) {
                    tracing::warn!(node = self.node, %err, "no speaker yet");
                }
                return self.silence(mailbox);
            }
        };
        self.without_node = false;
        let now: BTreeSet<Problem> = config.problems.iter().cloned().collect();
        for problem in now.difference(&self.said) {
            tracing::warn!(
                object = problem.object,
                field = problem.field,
                err = problem.reason,
                fix = problem.fix,
                "the configuration is not followed as written"
            );
        }
        self.said = now;
        let Some(translated) = translate::node(&config) else { return self.silence(mailbox) };
        let passwords = translated
            .passwords
            .iter()
            .filter_map(|(peer, secret)| Some((peer.clone(), self.passwords.known.get(secret)?.clone())))
            .collect();
        let plan = Plan {
            config: translated.config,
            listen: translated.listen,
            passwords,
            range_passwords: BTreeMap::new(),
            redistribute: Redistribute { connected: true, kernel: true },
        };
        if self.told.as_ref() == Some(&plan) {
            return true;
        }
        self.told = Some(plan.clone());
        self.silent = false;
        mailbox.send(Message::Follow(Box::new(plan)))
    }

    fn silence(&mut self, mailbox: &Mailbox) -> bool {
        if std::mem::replace(&mut self.silent, true) {
            return true;
        }
        self.told = None;
        mailbox.send(Message::Silence)
    }
}

/// The file of passwords, read again when it changes.
struct Passwords {
    path: Option<PathBuf>,
    read_at: Option<SystemTime>,
    known: BTreeMap<SecretRef, Secret>,
}

impl Passwords {
    fn from_env() -> Self {
        let path = std::env::var_os(PASSWORDS).filter(|p| !p.is_empty()).map(PathBuf::from);
        Self { path, read_at: None, known: BTreeMap::new() }
    }

    /// Reads the file if it is new; true when the passwords changed.
    fn reload(&mut self) -> bool {
        let Some(path) = &self.path else { return false };
        let written = std::fs::metadata(path).and_then(|m| m.modified()).ok();
        if written.is_some() && written == self.read_at {
            return false;
        }
        let parsed = std::fs::read_to_string(path).map_err(|e| e.to_string()).and_then(|text| {
            serde_yaml::from_str::<BTreeMap<String, BTreeMap<String, String>>>(&text)
                // The error's text could quote a password.
                .map_err(|e| {
                    format!(
                        "not a YAML map of maps of text{}",
                        e.location().map_or(String::new(), |l| format!(", line {}", l.line()))
                    )
                })
        });
        let secrets = match parsed {
            Ok(secrets) => secrets,
            Err(err) => {
                if self.read_at != written || written.is_none() && self.read_at.is_none() {
                    tracing::warn!(path = %path.display(), err, "BGP passwords cannot be read; those known stay");
                }
                self.read_at = written.or(Some(SystemTime::UNIX_EPOCH));
                return false;
            }
        };
        self.read_at = written;
        let mut known = BTreeMap::new();
        for (name, keys) in secrets {
            for (key, password) in keys {
                if password.is_empty() || password.len() > crate::sock::MAX_MD5_KEY || password.contains('\0')
                {
                    tracing::warn!(
                        secret = name,
                        key,
                        "a BGP password must have 1 to 80 octets and no NUL; it is left out"
                    );
                    continue;
                }
                known.insert(SecretRef { name: name.clone(), key }, Secret(password.into_bytes()));
            }
        }
        let changed = known != self.known;
        self.known = known;
        changed
    }
}
