//! List, then watch, survive everything: one stream of updates out of any [`Store`].
//!
//! ```text
//!            ┌────────────── compacted, other history, audit found a difference ─────────────┐
//!            v                                                                               │
//!   list every prefix ──> diff with what is known ──> (InSync, once) ──> watch ──> events ───┤
//!            ^                                                            ^                  │
//!            └── first time                        jittered wait, resume ─┴── stream lost ───┘
//! ```
//!
//! A task of its own drains the store, so a slow consumer costs no more memory than the latest
//! value of each key that changed (see `queue.rs`).

mod queue;
mod worker;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::store::Store;
use queue::Queue;
use worker::Worker;

/// Most events handed over at once.
const BATCH: usize = 4096;

/// What a [`Syncer`] tells its consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyncEvent {
    /// A key has this value now, or none any more. A key that was deleted and created again shows
    /// both, in this order, even when neither was fetched in between.
    Update {
        /// The full key.
        key: String,
        /// The bytes, whatever they are; `None` when the key is gone.
        value: Option<Vec<u8>>,
        /// The revision that made it so.
        rev: i64,
    },
    /// Everything that was there at the start has been delivered. Comes once.
    InSync,
    /// The store was reached or lost. State delivered so far stays valid.
    Status(SyncStatus),
}

/// Whether the store can be heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyncStatus {
    /// Updates are flowing.
    Connected,
    /// No updates for now; the syncer keeps trying.
    Lost {
        /// Who did not answer.
        endpoint: String,
        /// Why, for a human.
        reason: String,
    },
}

/// How often a [`Syncer`] audits and how patiently it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncOptions {
    /// Time between two audits, jittered by a fifth.
    pub audit: Duration,
    /// Time that an audit leaves the watch to catch up before it calls a difference one.
    pub audit_grace: Duration,
    /// Longest wait between two attempts at a store that fails at once (a refused port) and was
    /// lost less than a minute ago.
    pub retry_soon: Duration,
    /// The same when it was lost longer ago.
    pub retry_later: Duration,
    /// Longest wait between two attempts at a store that refuses access.
    pub retry_rarely: Duration,
}

impl Default for SyncOptions {
    fn default() -> SyncOptions {
        SyncOptions {
            audit: Duration::from_mins(1),
            audit_grace: Duration::from_secs(1),
            retry_soon: Duration::from_millis(200),
            retry_later: Duration::from_secs(1),
            retry_rarely: Duration::from_secs(5),
        }
    }
}

/// Follows some prefixes of a store for ever. Dropping it stops it.
pub struct Syncer {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What the worker fills and the consumer empties.
struct Shared {
    queue: Mutex<Queue>,
    /// Complete listings so far.
    listings: AtomicU64,
    filled: Notify,
}

impl Shared {
    fn with<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut queue);
        if !queue.is_empty() {
            self.filled.notify_one();
        }
        result
    }
}

impl Syncer {
    /// Starts following `prefixes` (plain string prefixes) on the current Tokio runtime.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn start(store: Arc<dyn Store>, prefixes: Vec<String>) -> Syncer {
        Syncer::start_with(store, prefixes, SyncOptions::default())
    }

    /// As [`Syncer::start`] with other intervals.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn start_with(store: Arc<dyn Store>, prefixes: Vec<String>, options: SyncOptions) -> Syncer {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::new()),
            listings: AtomicU64::new(0),
            filled: Notify::new(),
        });
        let worker = Worker::new(store, prefixes, options, shared.clone());
        Syncer { shared, task: tokio::spawn(worker.run()) }
    }

    /// How many times everything was listed, the first time included. Updates that come after it grew
    /// may tell what a listing found missing, not what somebody deleted a moment ago.
    pub fn listings(&self) -> u64 {
        self.shared.listings.load(Ordering::Relaxed)
    }

    /// Waits for news and returns them in order, never an empty batch. Cancel-safe.
    ///
    /// # Panics
    /// When the syncer's own task has panicked: going on in silence would be worse.
    pub async fn next(&mut self) -> Vec<SyncEvent> {
        loop {
            let batch = self.shared.with(|queue| queue.take(BATCH));
            if !batch.is_empty() {
                return batch;
            }
            tokio::select! {
                () = self.shared.filled.notified() => {}
                result = &mut self.task => {
                    if let Err(err) = result && err.is_panic() {
                        std::panic::resume_unwind(err.into_panic());
                    }
                    // The runtime is shutting down: there is nothing to wait for.
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
