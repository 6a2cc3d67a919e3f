//! Status keys: what the datastore is told about this node's endpoints, and about felix itself.
//!
//! A task of its own writes them, so that a slow store never delays the dataplane. For each key only the latest
//! wish counts; one write of a key is under way at a time; a failed one is tried again, later each time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use caracal_datastore::{Error, Expect, Store};
use caracal_model::Key;
use caracal_reconcile::{Backoff, Change, Delta, Moment, Step};
use felix_calc::{Config, WepId};
use felix_dataplane::Status;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Writes under way at one time.
const AT_ONCE: usize = 16;
/// How soon the keys are read again when that failed.
const READ_RETRY: Duration = Duration::from_secs(5);
/// Longest reason that is stored.
const LONGEST_REASON: usize = 500;

/// The loop's end of the status task; dropping it ends the task.
#[derive(Debug)]
pub(crate) struct StatusWriter {
    node: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    keys: Delta<String, String>,
    /// Endpoint status is wanted at all.
    on: bool,
    /// Everything that should be there is known: what is there beyond it is stale.
    complete: bool,
    /// What is there has to be read (again).
    unread: bool,
    region: Option<String>,
    /// Interval and life of the host's own keys; no interval, no keys.
    host: (Duration, Duration),
}

impl StatusWriter {
    /// Starts the task on the current runtime; it writes nothing before [`StatusWriter::complete`].
    pub(crate) fn start(node: &str, store: Arc<dyn Store>) -> Self {
        let state = State {
            keys: Delta::new(Backoff { first: Moment::from_millis(100), most: Moment::from_secs(10) }),
            on: false,
            complete: false,
            unread: true,
            region: None,
            host: (Duration::ZERO, Duration::ZERO),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() });
        let task = Task { node: node.to_owned(), store, shared: shared.clone(), origin: Instant::now() };
        Self { node: node.to_owned(), shared, task: tokio::spawn(task.run()) }
    }

    pub(crate) fn configure(&self, config: &Config) {
        self.with(|state| {
            state.on = config.endpoint_reporting;
            state.host = (config.reporting_interval, config.reporting_ttl);
            if state.region != config.region {
                state.region.clone_from(&config.region);
                state.unread = true;
            }
        });
    }

    /// The status of an endpoint is now this, or it is no more.
    pub(crate) fn set(&self, id: &WepId, status: Option<&Status>) {
        self.with(|state| {
            let key = Key::WorkloadStatus {
                host: self.node.clone(),
                region: state.region.clone(),
                orchestrator: id.orchestrator.clone(),
                workload: id.workload.clone(),
                endpoint: id.endpoint.clone(),
            }
            .path();
            match status {
                Some(status) => state.keys.want(key, json(status)),
                None => {
                    state.keys.unwant(&key);
                }
            }
        });
    }

    /// Every endpoint's status has been set once.
    pub(crate) fn complete(&self) {
        self.with(|state| state.complete = true);
    }

    /// The datastore was away: its keys may have changed meanwhile.
    pub(crate) fn read_again(&self) {
        self.with(|state| state.unread = true);
    }

    fn with(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state());
        self.shared.changed.notify_one();
    }
}

impl Drop for StatusWriter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calico's value; the reason is ours, its readers ignore it.
fn json(status: &Status) -> String {
    let mut value = serde_json::json!({"status": status.state.as_str()});
    if let Some(reason) = &status.reason {
        let short: String = reason.chars().take(LONGEST_REASON).collect();
        value["reason"] = short.into();
    }
    value.to_string()
}

struct Task {
    node: String,
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
    origin: Instant,
}

impl Task {
    async fn run(self) {
        let mut writes = FuturesUnordered::new();
        let mut busy: BTreeSet<String> = BTreeSet::new();
        let mut host_due = Moment::ZERO;
        let mut first_report = true;
        let mut failing = false;
        loop {
            let now = self.origin.elapsed();
            let (on, complete, unread, host) = {
                let state = self.shared.state();
                (state.on, state.complete, state.unread, state.host)
            };
            if on && complete && unread && busy.is_empty() {
                self.read().await;
            }
            if complete && !host.0.is_zero() && host_due <= now {
                host_due = now + host.0;
                self.report_host(host.1, first_report).await;
                first_report = false;
            }
            if on && complete {
                for step in self.due(now, &busy, AT_ONCE.saturating_sub(busy.len())) {
                    busy.insert(step.key.clone());
                    writes.push(self.write(step));
                }
            }
            let mut due = if on && complete { self.shared.state().keys.next_due(now) } else { None };
            if busy.len() >= AT_ONCE || due == Some(Moment::ZERO) {
                // Keys that wait for their own write wake with its end.
                due = due.filter(|due| *due > now);
            }
            if complete && !host.0.is_zero() {
                due = Some(due.map_or(host_due, |due| due.min(host_due)));
            }
            if on && complete && self.shared.state().unread {
                due = Some(due.map_or(now + READ_RETRY, |due| due.min(now + READ_RETRY)));
            }
            let sleep = due.map_or(Duration::from_hours(1), |due| due.saturating_sub(now));
            tokio::select! {
                Some((step, result)) = writes.next(), if !writes.is_empty() => {
                    busy.remove(&step.key);
                    self.finish(step, result, &mut failing);
                }
                () = self.shared.changed.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// What the store has already, from an earlier life or a real Felix.
    async fn read(&self) {
        let region = self.shared.state().region.clone();
        let host = Key::FelixStatus { host: self.node.clone(), region }.path();
        let prefix = format!("{}workload/", host.trim_end_matches("status"));
        match self.store.list(&prefix).await {
            Ok(listing) => {
                let mut state = self.shared.state();
                let found = listing
                    .items
                    .into_iter()
                    .map(|kv| (kv.key, String::from_utf8_lossy(&kv.value).into_owned()));
                state.keys.replace_actual(found);
                state.unread = false;
            }
            // Read again when the datastore is back; until then writes fail, too.
            Err(err) => tracing::debug!(%err, "status keys cannot be read"),
        }
    }

    fn due(&self, now: Moment, busy: &BTreeSet<String>, room: usize) -> Vec<Step<String, String>> {
        if room == 0 {
            return Vec::new();
        }
        let mut state = self.shared.state();
        let mut steps = state.keys.pass(now);
        // A key whose write is under way is looked at again when that ends.
        steps.retain(|step| !busy.contains(&step.key));
        for step in steps.split_off(steps.len().min(room)) {
            state.keys.touch(step.key);
        }
        steps
    }

    async fn write(&self, step: Step<String, String>) -> (Step<String, String>, Result<(), Error>) {
        let result = match &step.change {
            Change::Create(to) | Change::Update { to, .. } => {
                self.store.put(&step.key, to.clone().into_bytes(), Expect::Any, None).await.map(drop)
            }
            Change::Delete(_) => match self.store.delete(&step.key, Expect::Any).await {
                Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
                Err(err) => Err(err),
            },
        };
        (step, result)
    }

    fn finish(&self, step: Step<String, String>, result: Result<(), Error>, failing: &mut bool) {
        let mut state = self.shared.state();
        match result {
            Ok(()) => {
                if std::mem::take(failing) {
                    tracing::info!("endpoint status is written again");
                }
                state.keys.applied(step);
            }
            Err(err) => {
                state.keys.failed(&step.key, self.origin.elapsed());
                if !std::mem::replace(failing, true) {
                    tracing::warn!(%err, "endpoint status cannot be written; trying again");
                }
            }
        }
    }

    async fn report_host(&self, ttl: Duration, first: bool) {
        let region = self.shared.state().region.clone();
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let uptime = self.origin.elapsed().as_secs_f64();
        let value = serde_json::json!({"time": time, "uptime": uptime, "first_update": first})
            .to_string()
            .into_bytes();
        let live = Key::FelixStatus { host: self.node.clone(), region: region.clone() }.path();
        let last = Key::FelixLastStatus { host: self.node.clone(), region }.path();
        let ttl = Some(ttl).filter(|ttl| !ttl.is_zero());
        for (key, ttl) in [(live, ttl), (last, None)] {
            if let Err(err) = self.store.put(&key, value.clone(), Expect::Any, ttl).await {
                tracing::debug!(%err, "host status cannot be written");
            }
        }
    }
}
