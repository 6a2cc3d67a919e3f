//! The syncer against a store that misbehaves on purpose, and consumers that do.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use caracal_datastore::{
    Digest, Embedded, Error, Event, Expect, KeyValue, Listing, Store, SyncEvent, SyncOptions, Syncer, Watch,
    WatchBatch, WatchSource,
};
use common::Follower;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);

/// What a [`Faulty`] store does wrong.
#[derive(Default)]
struct Faults {
    /// Swallows watch events.
    swallow: AtomicBool,
    /// Delivers each batch again, behind some that are long past.
    replay: AtomicBool,
    /// Fails the next calls of this kind.
    fail_lists: AtomicUsize,
    fail_watches: AtomicUsize,
    lists: AtomicUsize,
    watches: AtomicUsize,
    digests: AtomicUsize,
}

/// A real store behind a messenger that cannot be trusted.
struct Faulty {
    store: Embedded,
    faults: Arc<Faults>,
    _dir: TempDir,
}

fn faulty() -> (Arc<Faulty>, Arc<Faults>) {
    let dir = common::temp_dir();
    let store = Embedded::open(&dir.path().join("store.db")).unwrap();
    let faults = Arc::new(Faults::default());
    (Arc::new(Faulty { store, faults: faults.clone(), _dir: dir }), faults)
}

fn fails(counter: &AtomicUsize) -> Result<(), Error> {
    let left = counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
    let (endpoint, reason) = ("nowhere".to_owned(), "on purpose".to_owned());
    left.map_or(Ok(()), |_| Err(Error::Unavailable { endpoint, reason }))
}

#[async_trait]
impl Store for Faulty {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>, Error> {
        self.store.get(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        self.faults.lists.fetch_add(1, Ordering::SeqCst);
        fails(&self.faults.fail_lists)?;
        self.store.list(prefix).await
    }
    async fn digest(&self, prefix: &str, since: i64) -> Result<Digest, Error> {
        self.faults.digests.fetch_add(1, Ordering::SeqCst);
        self.store.digest(prefix, since).await
    }
    async fn put(
        &self,
        key: &str,
        value: Vec<u8>,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> Result<i64, Error> {
        self.store.put(key, value, expect, ttl).await
    }
    async fn delete(&self, key: &str, expect: Expect) -> Result<KeyValue, Error> {
        self.store.delete(key, expect).await
    }
    async fn watch(&self, prefixes: &[String], from_rev: i64) -> Result<Watch, Error> {
        self.faults.watches.fetch_add(1, Ordering::SeqCst);
        fails(&self.faults.fail_watches)?;
        let inner = self.store.watch(prefixes, from_rev).await?;
        let (rev, cluster) = (inner.rev, inner.cluster);
        let source = FaultyWatch { inner, faults: self.faults.clone(), past: Mutex::default() };
        Ok(Watch::new(rev, cluster, Box::new(source)))
    }
    fn describe(&self) -> String {
        "faulty".to_owned()
    }
}

struct FaultyWatch {
    inner: Watch,
    faults: Arc<Faults>,
    past: Mutex<Vec<Event>>,
}

#[async_trait]
impl WatchSource for FaultyWatch {
    async fn next(&mut self) -> Result<WatchBatch, Error> {
        loop {
            let mut batch = self.inner.next().await?;
            if self.faults.swallow.load(Ordering::SeqCst) {
                continue;
            }
            if self.faults.replay.load(Ordering::SeqCst) {
                let past = &mut *self.past.lock().unwrap();
                past.extend(batch.events.iter().cloned());
                let again: Vec<Event> = past.iter().rev().step_by(3).cloned().collect();
                batch.events.extend(again);
                batch.events.extend(past.iter().cloned());
            }
            return Ok(batch);
        }
    }
}

fn quick_audits() -> SyncOptions {
    SyncOptions {
        audit: Duration::from_millis(300),
        audit_grace: Duration::from_millis(100),
        ..SyncOptions::default()
    }
}

async fn put(store: &dyn Store, key: &str, value: &str) -> i64 {
    store.put(key, value.into(), Expect::Any, None).await.unwrap()
}

#[tokio::test]
async fn the_audit_repairs_what_the_watch_lost() {
    let (store, faults) = faulty();
    for key in ["/a/kept", "/a/deleted", "/b/changed", "/b/replaced"] {
        put(&*store, key, "old").await;
    }
    let mut follower = Follower::start_with(store.clone(), &["/a/", "/b/"], quick_audits());
    follower.until("connected", SOON, |f| f.in_sync == 1 && f.connected()).await;

    for lost in ["deletion", "change", "creation", "deletion and creation"] {
        faults.swallow.store(true, Ordering::SeqCst);
        match lost {
            "deletion" => drop(store.delete("/a/deleted", Expect::Any).await.unwrap()),
            "change" => drop(put(&*store, "/b/changed", "new").await),
            "creation" => drop(put(&*store, "/a/created", "new").await),
            _ => {
                // The number of keys stays the same.
                store.delete("/b/replaced", Expect::Any).await.unwrap();
                put(&*store, "/b/instead", "new").await;
            }
        }
        // The watch reads what it swallows before it is mended.
        follower.idle(Duration::from_millis(50)).await;
        faults.swallow.store(false, Ordering::SeqCst);
        let truth = store.list("/").await.unwrap();
        follower
            .until(lost, Duration::from_secs(2), |f| {
                f.state.len() == truth.items.len()
                    && truth.items.iter().all(|kv| f.value(&kv.key) == Some(&kv.value))
            })
            .await;
    }
    assert_eq!(follower.in_sync, 1);
    assert_eq!(follower.status.len(), 1, "an audit is no loss: {:?}", follower.status);
}

#[tokio::test]
async fn a_sound_watch_passes_its_audits_even_when_busy() {
    let (store, faults) = faulty();
    let mut follower = Follower::start_with(store.clone(), &["/a/", "/b/"], quick_audits());
    follower.until("connected", SOON, |f| f.in_sync == 1 && f.connected()).await;
    let lists = faults.lists.load(Ordering::SeqCst);
    let churn = async {
        for i in 0_u32.. {
            let key = format!("/a/{}", i % 50);
            if i % 3 == 0 {
                let _ = store.delete(&key, Expect::Any).await;
            } else {
                put(&*store, &key, "v").await;
            }
            if i % 10 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    tokio::select! {
        () = churn => {}
        () = follower.idle(Duration::from_secs(2)) => {}
    }
    assert!(faults.digests.load(Ordering::SeqCst) >= 6, "several audits");
    assert_eq!(faults.lists.load(Ordering::SeqCst), lists, "no audit found a difference");
    assert_eq!(faults.watches.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn old_news_is_not_told_twice() {
    let (store, faults) = faulty();
    faults.replay.store(true, Ordering::SeqCst);
    let mut follower = Follower::start(store.clone(), &["/"]);
    follower.until("connected", SOON, |f| f.in_sync == 1 && f.connected()).await;
    for i in 0..60 {
        let key = format!("/{}", i % 4);
        if i % 5 == 4 {
            let _ = store.delete(&key, Expect::Any).await;
        } else {
            put(&*store, &key, &i.to_string()).await;
        }
    }
    let last = put(&*store, "/end", "").await;
    follower.until("the end", SOON, |f| f.updates.last().is_some_and(|u| u.2 == last)).await;
    follower.idle(Duration::from_millis(100)).await;
    let truth = store.list("/").await.unwrap();
    assert_eq!(follower.state.len(), truth.items.len());
    assert!(truth.items.iter().all(|kv| follower.value(&kv.key) == Some(&kv.value)));
    let mut seen = std::collections::BTreeMap::new();
    for (key, _, rev) in &follower.updates {
        assert!(seen.insert(key, rev).is_none_or(|before| before < rev), "{key} went back");
    }
}

#[tokio::test]
async fn trouble_is_told_once_and_overcome() {
    let (store, faults) = faulty();
    put(&*store, "/k", "v").await;
    faults.fail_lists.store(3, Ordering::SeqCst);
    faults.fail_watches.store(3, Ordering::SeqCst);
    let mut follower = Follower::start(store, &["/"]);
    follower.until("connected", SOON, |f| f.in_sync == 1 && f.connected()).await;
    assert_eq!(follower.in_sync, 1);
    assert!(follower.status.len() <= 2, "{:?}", follower.status);
    assert_eq!(follower.value("/k"), Some(&b"v"[..]));
}

#[tokio::test]
async fn in_sync_comes_after_all_that_was_there() {
    let (store, _) = faulty();
    for i in 0..200 {
        put(&*store, &format!("/a/{i}"), "v").await;
        put(&*store, &format!("/b/{i}"), "v").await;
    }
    let mut syncer = Syncer::start(store, vec!["/a/".into(), "/none/".into(), "/b/".into()]);
    let mut before = 0;
    'outer: loop {
        for event in syncer.next().await {
            match event {
                SyncEvent::Update { .. } => before += 1,
                SyncEvent::InSync => break 'outer,
                SyncEvent::Status(_) => {}
            }
        }
    }
    assert_eq!(before, 400);
    // Without a prefix there is nothing to wait for.
    let (store, _) = faulty();
    assert_eq!(Syncer::start(store, vec![]).next().await, [SyncEvent::InSync]);
}

#[tokio::test]
async fn overlapping_prefixes_are_told_once() {
    let (store, faults) = faulty();
    put(&*store, "/a/b/1", "v").await;
    let prefixes = ["/a/b/", "/a/", "/a/", "/a/c"];
    let mut follower = Follower::start_with(store.clone(), &prefixes, quick_audits());
    follower.until("connected", SOON, |f| f.in_sync == 1 && f.connected()).await;
    put(&*store, "/a/b/2", "v").await;
    put(&*store, "/a/c", "v").await;
    follower.until("all", SOON, |f| f.state.len() == 3).await;
    follower.idle(Duration::from_millis(700)).await;
    assert_eq!(follower.updates.len(), 3);
    assert_eq!(faults.lists.load(Ordering::SeqCst), 1, "audits agree");
}

#[tokio::test]
async fn a_slow_consumer_gets_the_latest_of_each_key() {
    let (store, _) = faulty();
    let mut follower = Follower::start(store.clone(), &["/"]);
    follower.until("connected", SOON, |f| f.in_sync == 1 && f.connected()).await;
    let mut last = 0;
    for i in 0..3000 {
        last = put(&*store, &format!("/{}", i % 20), &i.to_string()).await;
        if i % 4 == 0 {
            // Came and went: nothing of it remains to be told.
            put(&*store, &format!("/brief/{i}"), "x").await;
            last = last.max(store.delete(&format!("/brief/{i}"), Expect::Any).await.unwrap().rev);
        }
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    follower.updates.clear();
    follower.until("the latest", SOON, |f| f.updates.iter().any(|u| u.2 + 3 >= last)).await;
    follower.idle(Duration::from_millis(50)).await;
    assert!(follower.updates.len() <= 25, "{} updates for 20 keys", follower.updates.len());
    assert_eq!(follower.state.len(), 20);
}

#[tokio::test]
async fn values_are_just_bytes() {
    let (store, _) = faulty();
    let mut follower = Follower::start(store.clone(), &["/"]);
    let values = [vec![], vec![0xff; 1 << 20], b"{\"a\":".to_vec(), (0..=255).collect()];
    for (i, value) in values.iter().enumerate() {
        store.put(&format!("/{i}"), value.clone(), Expect::Any, None).await.unwrap();
    }
    follower.until("all values", SOON, |f| f.state.len() == values.len()).await;
    for (i, value) in values.iter().enumerate() {
        assert!(follower.value(&format!("/{i}")) == Some(value), "value {i}");
    }
}

#[tokio::test]
async fn a_key_that_expires_is_told_as_gone() {
    let (store, _) = faulty();
    let mut follower = Follower::start(store.clone(), &["/"]);
    store.put("/k", vec![], Expect::Any, Some(Duration::from_secs(1))).await.unwrap();
    follower.until("the key", SOON, |f| f.state.len() == 1).await;
    follower.until("its end", Duration::from_secs(3), |f| f.state.is_empty()).await;
}

#[tokio::test]
async fn a_dropped_syncer_stops() {
    let (store, faults) = faulty();
    let mut follower = Follower::start_with(store.clone(), &["/"], quick_audits());
    follower.in_sync().await;
    drop(follower);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let digests = faults.digests.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(faults.digests.load(Ordering::SeqCst), digests);
    assert_eq!(Arc::strong_count(&store), 1, "the task has let go of the store");
}
