//! The task behind a [`super::Syncer`].

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Shared, SyncOptions, SyncStatus};
use crate::error::Error;
use crate::store::{Digest, Listing, Store, Watch, WatchBatch};

/// Prefixes listed at a time.
const LISTS_AT_ONCE: usize = 4;
/// A failure that took less is taken for a refusal: trying again soon costs little.
const QUICK: Duration = Duration::from_millis(100);
/// How long a loss counts as recent.
const RECENT: Duration = Duration::from_mins(1);
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// Most events remembered during one audit; a busier store is audited next time.
const AUDIT_MEMORY: usize = 65_536;

pub(super) struct Worker {
    store: Arc<dyn Store>,
    prefixes: Vec<String>,
    options: SyncOptions,
    shared: Arc<Shared>,
    /// For each prefix, the revision to watch from.
    resume: Vec<i64>,
    /// The highest revision the store has shown us, and which store that was.
    high: i64,
    cluster: Option<u64>,
    /// Everything at or below was found right by a listing or an audit.
    audited: i64,
    must_list: bool,
    told_in_sync: bool,
    connected: bool,
    lost_since: Option<Instant>,
    failures: u32,
    audit: Audit,
}

/// Where the periodic check stands.
enum Audit {
    At(Instant),
    /// Asking, while remembering what the watch brings: prefix, revision, change in key count.
    Asking {
        answer: BoxFuture<'static, Result<Vec<Digest>, Error>>,
        seen: Vec<(usize, i64, i32)>,
    },
    /// Asked; the watch gets a moment to catch up with the answer.
    Settling {
        digests: Vec<Digest>,
        seen: Vec<(usize, i64, i32)>,
        until: Instant,
    },
}

/// Why a session ended without an error.
enum Turn {
    /// What is known may be wrong: list again.
    List,
}

impl Worker {
    pub(super) fn new(
        store: Arc<dyn Store>,
        prefixes: Vec<String>,
        options: SyncOptions,
        shared: Arc<Shared>,
    ) -> Worker {
        let prefixes = without_overlap(prefixes);
        Worker {
            resume: vec![0; prefixes.len()],
            store,
            prefixes,
            options,
            shared,
            high: 0,
            cluster: None,
            audited: 0,
            must_list: true,
            told_in_sync: false,
            connected: false,
            lost_since: None,
            failures: 0,
            audit: Audit::At(Instant::now() + jittered(options.audit, 0.2)),
        }
    }

    pub(super) async fn run(mut self) {
        if self.prefixes.is_empty() {
            self.shared.with(super::queue::Queue::in_sync);
            return std::future::pending().await;
        }
        let mut lists_in_a_row: u32 = 0;
        loop {
            let started = Instant::now();
            match self.session().await {
                Ok(Turn::List) | Err(Error::Compacted { .. }) => {
                    self.must_list = true;
                    // Being told to list over and over must not become a busy loop.
                    lists_in_a_row =
                        if started.elapsed() < Duration::from_secs(1) { lists_in_a_row + 1 } else { 0 };
                    if lists_in_a_row > 1 {
                        sleep(jittered(SHORTEST_WAIT * lists_in_a_row.min(20), 0.5)).await;
                    }
                }
                Err(err) => {
                    lists_in_a_row = 0;
                    self.lost(&err);
                    sleep(self.wait(&err, started.elapsed())).await;
                }
            }
        }
    }

    /// From connecting to the next trouble.
    async fn session(&mut self) -> Result<Turn, Error> {
        if self.must_list {
            self.list_all().await?;
            self.must_list = false;
            if !self.told_in_sync {
                self.told_in_sync = true;
                self.shared.with(super::queue::Queue::in_sync);
            }
        }
        let from = self.resume.iter().copied().min().unwrap_or(1);
        let mut watch = self.store.watch(&self.prefixes, from).await?;
        if watch.rev < self.high || self.cluster.is_some_and(|cluster| cluster != watch.cluster) {
            tracing::warn!(
                old = self.high,
                new = watch.rev,
                "datastore history changed: reading everything again"
            );
            return Ok(Turn::List);
        }
        self.high = watch.rev;
        self.reached();
        self.follow(&mut watch).await
    }

    /// Takes events until the watch ends or an audit finds a difference.
    async fn follow(&mut self, watch: &mut Watch) -> Result<Turn, Error> {
        // An audit under way belongs to the stream that was lost.
        if !matches!(self.audit, Audit::At(_)) {
            self.schedule_audit();
        }
        loop {
            let batch = tokio::select! {
                batch = watch.next() => Some(batch?),
                turn = self.audit.wake() => {
                    match turn {
                        Wake::Ask => self.ask_digests(),
                        Wake::Answered(result) => self.take_digests(result)?,
                        Wake::Judge => if self.judge() { return Ok(Turn::List) },
                    }
                    None
                }
            };
            if let Some(batch) = batch {
                self.apply(batch);
            }
        }
    }

    fn apply(&mut self, batch: WatchBatch) {
        for (prefix, rev) in batch.complete {
            self.high = self.high.max(rev);
            self.resume[prefix] = self.resume[prefix].max(rev.saturating_add(1));
        }
        let Worker { shared, resume, audit, high, .. } = self;
        shared.with(|queue| {
            for event in batch.events {
                let (prefix, rev) = (event.prefix, event.rev);
                // Several prefixes resume from the least of their revisions: the rest is repeated.
                if rev < resume[prefix] {
                    continue;
                }
                resume[prefix] = rev;
                *high = (*high).max(rev);
                if let Some(delta) = queue.event(event) {
                    audit.saw(prefix, rev, delta);
                }
            }
        });
    }

    async fn list_all(&mut self) -> Result<(), Error> {
        while !self.list_once().await? {}
        self.schedule_audit();
        Ok(())
    }

    /// Lists every prefix; false when the history turned out to be another one than the one we
    /// knew, which is forgotten then.
    async fn list_once(&mut self) -> Result<bool, Error> {
        // Lists run side by side: each may be a little older than the one before it, but none may
        // be older than what was known at the start.
        let floor = self.high;
        let store = &self.store.clone();
        let mut lists = futures_util::stream::iter(self.prefixes.clone().into_iter().enumerate())
            .map(|(at, prefix)| async move {
                let listing = store.list(&prefix).await;
                (at, prefix, listing)
            })
            .buffered(LISTS_AT_ONCE);
        let mut lowest = i64::MAX;
        while let Some((at, prefix, listing)) = lists.next().await {
            let listing = listing?;
            if self.is_other_history(floor, &listing) {
                return Ok(false);
            }
            lowest = lowest.min(listing.rev);
            self.high = self.high.max(listing.rev);
            self.resume[at] = listing.rev.saturating_add(1);
            if at == 0 {
                // Before the first difference is told, so that nobody takes it for an event.
                self.shared.listings.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            let changed = self.shared.with(|queue| queue.listing(&prefix, listing));
            tracing::debug!(prefix, changed, "datastore prefix listed");
        }
        self.audited = lowest;
        Ok(true)
    }

    fn is_other_history(&mut self, floor: i64, listing: &Listing) -> bool {
        let same = self.cluster.is_none_or(|cluster| cluster == listing.cluster);
        self.cluster = Some(listing.cluster);
        if same && listing.rev >= floor {
            return false;
        }
        tracing::warn!(
            old = floor,
            new = listing.rev,
            other_cluster = !same,
            "datastore went back in its history: telling everything again"
        );
        self.high = 0;
        self.resume.fill(0);
        self.shared.with(super::queue::Queue::forget_revisions);
        true
    }

    fn reached(&mut self) {
        self.failures = 0;
        self.lost_since = None;
        if !self.connected {
            self.connected = true;
            self.shared.with(|queue| queue.status(SyncStatus::Connected));
        }
    }

    fn lost(&mut self, err: &Error) {
        self.failures = self.failures.saturating_add(1);
        if self.connected || self.lost_since.is_none() {
            let (endpoint, reason) = err.endpoint_and_reason(&self.store.describe());
            self.shared.with(|queue| queue.status(SyncStatus::Lost { endpoint, reason }));
        }
        self.connected = false;
        self.lost_since.get_or_insert_with(Instant::now);
    }

    /// How long to wait after a failure that took `took`.
    fn wait(&self, err: &Error, took: Duration) -> Duration {
        let options = &self.options;
        let refused_access = matches!(err, Error::Unauthorized { .. } | Error::Config { .. });
        let recent = self.lost_since.is_some_and(|since| since.elapsed() < RECENT);
        let most = if refused_access {
            options.retry_rarely
        } else if self.failures <= 1 || recent || took >= QUICK {
            // What took its time to fail has paced itself.
            options.retry_soon
        } else {
            options.retry_later
        };
        let doubled = SHORTEST_WAIT * 2_u32.saturating_pow(self.failures.min(10));
        jittered(doubled.min(most), 0.5)
    }

    fn schedule_audit(&mut self) {
        self.audit = Audit::At(Instant::now() + jittered(self.options.audit, 0.2));
    }

    fn ask_digests(&mut self) {
        let (store, prefixes, since) = (self.store.clone(), self.prefixes.clone(), self.audited);
        let answer = Box::pin(async move {
            let mut digests = Vec::with_capacity(prefixes.len());
            for prefix in &prefixes {
                digests.push(store.digest(prefix, since).await?);
            }
            Ok(digests)
        });
        self.audit = Audit::Asking { answer, seen: Vec::new() };
    }

    fn take_digests(&mut self, result: Result<Vec<Digest>, Error>) -> Result<(), Error> {
        match (result, std::mem::replace(&mut self.audit, Audit::At(Instant::now()))) {
            (Ok(digests), Audit::Asking { seen, .. }) => {
                let until = Instant::now() + self.options.audit_grace;
                self.audit = Audit::Settling { digests, seen, until };
                Ok(())
            }
            (Err(err @ Error::Unavailable { .. }), _) => Err(err),
            (Err(err), _) => {
                tracing::warn!(%err, "datastore audit failed");
                self.schedule_audit();
                Ok(())
            }
            (Ok(_), _) => Ok(()),
        }
    }

    /// Compares what the store said with what is known; true when they differ.
    fn judge(&mut self) -> bool {
        let Audit::Settling { digests, seen, .. } =
            std::mem::replace(&mut self.audit, Audit::At(Instant::now()))
        else {
            return false;
        };
        self.schedule_audit();
        if seen.len() >= AUDIT_MEMORY {
            return false;
        }
        let mut proven = i64::MAX;
        for (at, digest) in digests.iter().enumerate() {
            proven = proven.min(digest.rev);
            let prefix = &self.prefixes[at];
            let another =
                digest.rev < self.audited || self.cluster.is_some_and(|cluster| cluster != digest.cluster);
            // What the watch brought after the digest was taken does not count.
            let since: i64 = seen
                .iter()
                .filter(|(of, rev, _)| *of == at && *rev > digest.rev)
                .map(|(_, _, delta)| i64::from(*delta))
                .sum();
            let wrong = another
                || self.shared.with(|queue| {
                    let count = i64::try_from(queue.count(prefix)).unwrap_or(i64::MAX) - since;
                    let missed = digest.changed.iter().any(|(key, rev)| {
                        queue.rev(key).map_or_else(
                            || !seen.iter().any(|(of, at_rev, d)| *of == at && *d < 0 && at_rev > rev),
                            |known| known < *rev,
                        )
                    });
                    missed || i64::try_from(digest.count) != Ok(count)
                });
            if wrong {
                tracing::warn!(prefix, "datastore audit found missed updates: reading everything again");
                return true;
            }
        }
        self.audited = proven;
        false
    }
}

enum Wake {
    Ask,
    Answered(Result<Vec<Digest>, Error>),
    Judge,
}

impl Audit {
    /// Waits for the audit's next step. Cancel-safe.
    async fn wake(&mut self) -> Wake {
        match self {
            Audit::At(when) => {
                sleep_until(*when).await;
                Wake::Ask
            }
            Audit::Asking { answer, .. } => Wake::Answered(answer.await),
            Audit::Settling { until, .. } => {
                sleep_until(*until).await;
                Wake::Judge
            }
        }
    }

    fn saw(&mut self, prefix: usize, rev: i64, delta: i32) {
        if let Audit::Asking { seen, .. } | Audit::Settling { seen, .. } = self
            && seen.len() < AUDIT_MEMORY
        {
            seen.push((prefix, rev, delta));
        }
    }
}

/// Drops each prefix that another one covers: what lies under both would be told twice.
fn without_overlap(mut prefixes: Vec<String>) -> Vec<String> {
    prefixes.sort();
    prefixes.dedup_by(|later, kept| later.starts_with(kept.as_str()));
    prefixes
}

/// `span` shortened by a random part of at most `share`, so that nodes do not move in step.
fn jittered(span: Duration, share: f64) -> Duration {
    use rand::RngExt as _;
    span.mul_f64(1.0 - share * rand::rng().random::<f64>())
}
