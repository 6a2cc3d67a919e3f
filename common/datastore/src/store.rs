//! The contract every store keeps, and how to get one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::config::{Backend, Config};
use crate::embedded::Embedded;
use crate::error::Error;
use crate::etcd::Etcd;

/// One stored value with its place in history.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The full key, as stored.
    pub key: String,
    /// The bytes, whatever they are.
    pub value: Vec<u8>,
    /// The revision that last wrote this key (etcd's `mod_revision`): what compare-and-swap names.
    pub rev: i64,
    /// The revision that created this incarnation of the key.
    pub create_rev: i64,
}

impl fmt::Debug for KeyValue {
    // Values may hold secrets: only their size is ever shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValue")
            .field("key", &self.key)
            .field("value_len", &self.value.len())
            .field("rev", &self.rev)
            .field("create_rev", &self.create_rev)
            .finish()
    }
}

/// Everything under a prefix as of one revision, ordered by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The values, ordered by key bytes.
    pub items: Vec<KeyValue>,
    /// The store's revision the list is true for: watch from `rev + 1`.
    pub rev: i64,
    /// Identifies the store itself; another number means another history.
    pub cluster: u64,
}

/// What a write demands of the key's present state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing: last writer wins.
    Any,
    /// The key must not exist.
    Absent,
    /// The key must exist and have been last written by this revision.
    Rev(i64),
}

/// A cheap fingerprint of a prefix, enough to prove that a copy of it is right: a copy that holds
/// `count` keys and agrees on every key changed since it last was right, is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// Key and revision of everything written after the revision asked for.
    pub changed: Vec<(String, i64)>,
    /// How many keys there are under the prefix.
    pub count: usize,
    /// The store's revision the digest is true for.
    pub rev: i64,
    /// As [`Listing::cluster`].
    pub cluster: u64,
}

/// One change seen by a watch.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    /// Index into the prefixes given to [`Store::watch`].
    pub prefix: usize,
    /// The full key.
    pub key: String,
    /// The new bytes; `None` when the key was deleted or expired.
    pub value: Option<Vec<u8>>,
    /// The revision that made the change.
    pub rev: i64,
    /// The revision that created this incarnation; 0 for a deletion.
    pub create_rev: i64,
    /// The bytes before the change, when the store still has them.
    pub prev: Option<Vec<u8>>,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("key", &self.key)
            .field("value_len", &self.value.as_ref().map(Vec::len))
            .field("rev", &self.rev)
            .field("create_rev", &self.create_rev)
            .finish_non_exhaustive()
    }
}

/// What a watch delivers at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchBatch {
    /// Changes, in order of revision for each prefix. A revision may be spread over two batches
    /// (large transactions), so resume from the last revision seen, not from the one after it.
    pub events: Vec<Event>,
    /// Prefixes known to be complete up to a revision without an event saying so.
    pub complete: Vec<(usize, i64)>,
}

/// The moving part behind a [`Watch`]; `next` must be cancel-safe.
#[async_trait]
pub trait WatchSource: Send {
    /// Waits for the next batch; an error ends the watch.
    async fn next(&mut self) -> Result<WatchBatch, Error>;
}

/// An open watch. After an error it is over: open another one.
pub struct Watch {
    /// The store's revision when the watch was opened; below what the caller already saw, it means
    /// that the store went back in time.
    pub rev: i64,
    /// As [`Listing::cluster`].
    pub cluster: u64,
    source: Box<dyn WatchSource>,
}

impl Watch {
    /// Wraps a source; for implementors of [`Store`].
    pub fn new(rev: i64, cluster: u64, source: Box<dyn WatchSource>) -> Watch {
        Watch { rev, cluster, source }
    }

    /// Waits for the next batch of changes. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Compacted`] when the history needed is gone, [`Error::Unavailable`] when the store
    /// went away or fell silent.
    pub async fn next(&mut self) -> Result<WatchBatch, Error> {
        self.source.next().await
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("rev", &self.rev).finish_non_exhaustive()
    }
}

/// A place that holds the cluster's intent: keys, bytes, one revision counter for all of them.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads one key; `None` when it does not exist. The answer is current, never from a replica
    /// that lags.
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, Error>;

    /// Reads everything whose key starts with `prefix` (a plain string: end it with `/` to mean a
    /// directory), as of one revision.
    async fn list(&self, prefix: &str) -> Result<Listing, Error>;

    /// Fingerprints a prefix: what was written after `since`, and how many keys there are.
    async fn digest(&self, prefix: &str, since: i64) -> Result<Digest, Error> {
        let listing = self.list(prefix).await?;
        let count = listing.items.len();
        let changed =
            listing.items.into_iter().filter(|kv| kv.rev > since).map(|kv| (kv.key, kv.rev)).collect();
        Ok(Digest { changed, count, rev: listing.rev, cluster: listing.cluster })
    }

    /// Writes one key if `expect` holds and returns the new revision. With `ttl` the key deletes
    /// itself unless written again in time (whole seconds, rounded up; etcd may add a little).
    ///
    /// # Errors
    /// [`Error::Conflict`] when `expect` does not hold, [`Error::NotFound`] when [`Expect::Rev`]
    /// names a key that is gone.
    async fn put(
        &self,
        key: &str,
        value: Vec<u8>,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> Result<i64, Error>;

    /// Deletes one key if `expect` holds and returns what it held.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is nothing to delete, [`Error::Conflict`] as for `put`.
    async fn delete(&self, key: &str, expect: Expect) -> Result<KeyValue, Error>;

    /// Opens one watch over several prefixes, from `from_rev` on (inclusive).
    ///
    /// # Errors
    /// [`Error::Compacted`] when `from_rev` is no longer in history, at once or from the first
    /// `next`.
    async fn watch(&self, prefixes: &[String], from_rev: i64) -> Result<Watch, Error>;

    /// What to call this store in a message: `etcd http://10.0.0.5:2379`, `embedded /var/lib/…`.
    fn describe(&self) -> String;
}

/// Opens the configured store and proves that it answers.
///
/// # Errors
/// [`Error::Config`] for a wrong setting; [`Error::Unavailable`] or [`Error::Unauthorized`] within
/// seconds, naming every endpoint tried and why it did not do.
pub async fn connect(config: &Config) -> Result<Arc<dyn Store>, Error> {
    match &config.backend {
        Backend::Etcd(etcd) => Ok(Arc::new(Etcd::connect(etcd.as_ref().clone()).await?)),
        Backend::Embedded(embedded) => Ok(Arc::new(Embedded::open(&embedded.path)?)),
    }
}

/// Opens the configured store without waiting for it: an unreachable etcd shows up in the calls
/// made later, which keep trying to reach it.
///
/// # Errors
/// [`Error::Config`] for a wrong setting or an unreadable file it names.
pub fn connect_lazy(config: &Config) -> Result<Arc<dyn Store>, Error> {
    match &config.backend {
        Backend::Etcd(etcd) => Ok(Arc::new(Etcd::new(etcd.as_ref().clone())?)),
        Backend::Embedded(embedded) => Ok(Arc::new(Embedded::open(&embedded.path)?)),
    }
}
