//! From the datastore to the loop: follow the keys, derive, hand over what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bird_intent::{Env, Facts, Problem};
use caracal_datastore::{Store, SyncEvent, SyncStatus, Syncer};
use caracal_process::{Reporter, Shutdown};

use crate::passwords::Passwords;
use crate::plan::{Mailbox, Message, Plan, Redistribute};
use crate::translate;

/// Passwords are looked at this often; nothing tells when a mounted secret changes.
const LOOK: Duration = Duration::from_secs(2);

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
    let mut look = tokio::time::interval(LOOK);
    reporter.not_ready("waiting for the datastore");
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            _ = look.tick() => {}
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
        self.env.secrets = self.passwords.secrets();
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
            .filter_map(|(peer, secret)| Some((peer.clone(), self.passwords.get(secret)?.clone())))
            .collect();
        let plan = Plan {
            config: translated.config,
            listen: translated.listen,
            passwords,
            range_passwords: BTreeMap::new(),
            sought: translated.sought,
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
