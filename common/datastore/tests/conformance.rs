//! One suite, run on every store: what holds for one holds for the other.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use caracal_datastore::{Embedded, Error, Event, Expect, Store, Watch};
use futures_util::stream::{StreamExt as _, iter};
use tokio::time::timeout;

type Case = (&'static str, fn(Arc<dyn Store>, String) -> Pin<Box<dyn Future<Output = ()>>>);

macro_rules! cases {
    ($($name:ident),* $(,)?) => { [$((stringify!($name), |store, base| Box::pin($name(store, base)))),*] };
}

const CASES: &[Case] = &cases![
    missing_keys,
    any_bytes,
    create_once,
    update_by_revision,
    delete_by_revision,
    revisions_tell_incarnations,
    list_is_a_string_prefix,
    list_many,
    list_is_one_revision,
    watch_tells_all_in_order,
    watch_several_prefixes,
    watch_replays_history,
    watch_from_the_future_waits,
    watch_is_cancel_safe,
    expiry,
    counter_by_compare_and_swap,
    too_large,
    digest_of_a_prefix,
    keys_need_no_meaning,
];

async fn run(store: Arc<dyn Store>) {
    for (name, case) in CASES {
        println!("case {name}");
        case(store.clone(), format!("/{name}/")).await;
    }
    // Last, as it sees everything the others left.
    let all = store.list("").await.unwrap();
    assert!(all.items.is_sorted_by(|a, b| a.key < b.key));
    assert_eq!(all.items.len(), store.digest("", 0).await.unwrap().count);
}

#[tokio::test]
async fn etcd_conforms() {
    let etcd = common::Etcd::start();
    run(etcd.store().await).await;
}

#[tokio::test]
async fn embedded_conforms() {
    let dir = common::temp_dir();
    run(Arc::new(Embedded::open(&dir.path().join("store.db")).unwrap())).await;
}

async fn events(watch: &mut Watch, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        let batch = timeout(Duration::from_secs(5), watch.next()).await;
        let batch = batch.unwrap_or_else(|_| panic!("{} of {count} events", events.len()));
        events.extend(batch.unwrap().events);
    }
    assert_eq!(events.len(), count, "more events than writes: {events:?}");
    events
}

async fn missing_keys(store: Arc<dyn Store>, base: String) {
    let key = base.clone() + "no";
    assert_eq!(store.get(&key).await.unwrap(), None);
    assert!(store.list(&base).await.unwrap().items.is_empty());
    for expect in [Expect::Any, Expect::Rev(1), Expect::Absent] {
        let err = store.delete(&key, expect).await.unwrap_err();
        assert!(matches!(&err, Error::NotFound { key: k } if *k == key), "{expect:?}: {err}");
    }
    let err = store.put(&key, vec![1], Expect::Rev(3), None).await.unwrap_err();
    assert!(matches!(&err, Error::NotFound { key: k } if *k == key), "{err}");
    assert_eq!(store.get(&key).await.unwrap(), None);
}

async fn any_bytes(store: Arc<dyn Store>, base: String) {
    let mib: Vec<u8> = (0..1_048_576_u32).map(|i| i.to_le_bytes()[1]).collect();
    for (name, value) in [("empty", vec![]), ("all", (0..=255).collect()), ("mib", mib)] {
        let key = base.clone() + name;
        let rev = store.put(&key, value.clone(), Expect::Any, None).await.unwrap();
        let got = store.get(&key).await.unwrap().unwrap();
        assert!(got.value == value && got.rev == rev && got.create_rev == rev, "{name}");
    }
    assert_eq!(store.list(&base).await.unwrap().items.len(), 3);
}

async fn create_once(store: Arc<dyn Store>, base: String) {
    let key = base + "k";
    let rev = store.put(&key, b"a".to_vec(), Expect::Absent, None).await.unwrap();
    match store.put(&key, b"b".to_vec(), Expect::Absent, None).await {
        Err(Error::Conflict { key: k, current: Some(kv) }) => {
            assert_eq!((k, kv.value, kv.rev), (key.clone(), b"a".to_vec(), rev));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(store.get(&key).await.unwrap().unwrap().value, b"a");
}

async fn update_by_revision(store: Arc<dyn Store>, base: String) {
    let key = base + "k";
    let first = store.put(&key, b"a".to_vec(), Expect::Absent, None).await.unwrap();
    let second = store.put(&key, b"b".to_vec(), Expect::Rev(first), None).await.unwrap();
    assert!(second > first);
    match store.put(&key, b"c".to_vec(), Expect::Rev(first), None).await {
        Err(Error::Conflict { current: Some(kv), .. }) => {
            assert_eq!((kv.value, kv.rev, kv.create_rev), (b"b".to_vec(), second, first));
        }
        other => panic!("{other:?}"),
    }
    let third = store.put(&key, b"d".to_vec(), Expect::Any, None).await.unwrap();
    assert!(third > second);
}

async fn delete_by_revision(store: Arc<dyn Store>, base: String) {
    let key = base + "k";
    let first = store.put(&key, b"a".to_vec(), Expect::Any, None).await.unwrap();
    let second = store.put(&key, b"b".to_vec(), Expect::Any, None).await.unwrap();
    for expect in [Expect::Rev(first), Expect::Absent] {
        match store.delete(&key, expect).await {
            Err(Error::Conflict { current: Some(kv), .. }) => assert_eq!(kv.rev, second),
            other => panic!("{other:?}"),
        }
    }
    let gone = store.delete(&key, Expect::Rev(second)).await.unwrap();
    assert_eq!((gone.value, gone.rev, gone.create_rev), (b"b".to_vec(), second, first));
    assert!(matches!(store.delete(&key, Expect::Any).await, Err(Error::NotFound { .. })));
    assert_eq!(store.get(&key).await.unwrap(), None);
}

async fn revisions_tell_incarnations(store: Arc<dyn Store>, base: String) {
    let key = base.clone() + "k";
    let first = store.put(&key, vec![], Expect::Any, None).await.unwrap();
    store.delete(&key, Expect::Any).await.unwrap();
    let again = store.put(&key, vec![], Expect::Absent, None).await.unwrap();
    let other = store.put(&(base + "l"), vec![], Expect::Any, None).await.unwrap();
    assert!(first < again && again < other, "one counter for all keys");
    let kv = store.get(&key).await.unwrap().unwrap();
    assert_eq!((kv.rev, kv.create_rev), (again, again));
}

async fn list_is_a_string_prefix(store: Arc<dyn Store>, base: String) {
    for name in ["a", "a/1", "a/2", "a0", "ab/1", "b/1", "é/1"] {
        store.put(&(base.clone() + name), name.into(), Expect::Any, None).await.unwrap();
    }
    let names = async |prefix: &str| -> Vec<String> {
        let listing = store.list(&(base.clone() + prefix)).await.unwrap();
        listing.items.iter().map(|kv| kv.key[base.len()..].to_owned()).collect()
    };
    assert_eq!(names("a/").await, ["a/1", "a/2"]);
    assert_eq!(names("a").await, ["a", "a/1", "a/2", "a0", "ab/1"]);
    assert_eq!(names("é").await, ["é/1"]);
    assert_eq!(names("").await.len(), 7);
    assert!(names("c").await.is_empty());
}

async fn list_many(store: Arc<dyn Store>, base: String) {
    iter(0..3000)
        .for_each_concurrent(64, async |i| {
            let size = if i % 100 == 0 { 60_000 } else { 100 };
            let key = format!("{base}{i:05}");
            store.put(&key, vec![7; size], Expect::Any, None).await.unwrap();
        })
        .await;
    let listing = store.list(&base).await.unwrap();
    assert_eq!(listing.items.len(), 3000);
    for (i, kv) in listing.items.iter().enumerate() {
        assert_eq!(kv.key, format!("{base}{i:05}"));
        assert!(kv.rev <= listing.rev);
    }
}

/// Two keys always written one after the other are never seen the wrong way round, however many
/// pages lie between them.
async fn list_is_one_revision(store: Arc<dyn Store>, base: String) {
    iter(0..1200)
        .for_each_concurrent(64, async |i| {
            store.put(&format!("{base}m{i:05}"), vec![0; 50], Expect::Any, None).await.unwrap();
        })
        .await;
    let (first, last) = (format!("{base}a"), format!("{base}z"));
    let writer = async {
        for i in 0..150_u32 {
            store.put(&last, i.to_be_bytes().to_vec(), Expect::Any, None).await.unwrap();
            store.put(&first, i.to_be_bytes().to_vec(), Expect::Any, None).await.unwrap();
        }
    };
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    let reader = async {
        let mut seen = 0;
        while seen < 149 {
            let listing = store.list(&base).await.unwrap();
            let value = |key: &str| listing.items.iter().find(|kv| kv.key == key);
            if let (Some(a), Some(z)) = (value(&first), value(&last)) {
                let (a, z) = (number(&a.value), number(&z.value));
                assert!(z == a || z == a + 1, "a is {a}, z is {z}");
                seen = a;
            }
        }
    };
    tokio::join!(writer, reader);
}

async fn watch_tells_all_in_order(store: Arc<dyn Store>, base: String) {
    let key = base.clone() + "k";
    let rev = store.list(&base).await.unwrap().rev;
    let mut watch = store.watch(std::slice::from_ref(&base), rev + 1).await.unwrap();
    let one = store.put(&key, b"1".to_vec(), Expect::Any, None).await.unwrap();
    let two = store.put(&key, b"2".to_vec(), Expect::Any, None).await.unwrap();
    store.put("/elsewhere", vec![], Expect::Any, None).await.unwrap();
    store.delete(&key, Expect::Any).await.unwrap();
    let four = store.put(&key, b"4".to_vec(), Expect::Any, None).await.unwrap();
    let got = events(&mut watch, 4).await;
    let brief: Vec<_> = got
        .iter()
        .map(|e| (e.prefix, e.key.as_str(), e.value.as_deref(), e.create_rev, e.prev.as_deref()))
        .collect();
    let k = key.as_str();
    assert_eq!(
        brief,
        [
            (0, k, Some(&b"1"[..]), one, None),
            (0, k, Some(b"2"), one, Some(&b"1"[..])),
            (0, k, None, 0, Some(b"2")),
            (0, k, Some(b"4"), four, None),
        ]
    );
    assert!(got.is_sorted_by(|a, b| a.rev < b.rev));
    assert_eq!((got[0].rev, got[1].rev, got[3].rev), (one, two, four));
}

async fn watch_several_prefixes(store: Arc<dyn Store>, base: String) {
    let prefixes: Vec<String> = (0..20).map(|i| format!("{base}{i:02}/")).collect();
    let rev = store.list(&base).await.unwrap().rev;
    let mut watch = store.watch(&prefixes, rev + 1).await.unwrap();
    for i in [19, 0, 7, 0] {
        store.put(&format!("{}x", prefixes[i]), vec![], Expect::Any, None).await.unwrap();
    }
    store.put(&format!("{base}20/x"), vec![], Expect::Any, None).await.unwrap();
    let mut got: Vec<_> = events(&mut watch, 4).await.iter().map(|e| (e.rev, e.prefix)).collect();
    got.sort_unstable();
    assert_eq!(got.iter().map(|(_, prefix)| *prefix).collect::<Vec<_>>(), [19, 0, 7, 0]);
}

async fn watch_replays_history(store: Arc<dyn Store>, base: String) {
    let mut revs = Vec::new();
    for i in 0..100_u8 {
        revs.push(store.put(&format!("{base}{i}"), vec![i], Expect::Any, None).await.unwrap());
    }
    let mut watch = store.watch(std::slice::from_ref(&base), revs[20]).await.unwrap();
    assert!(watch.rev >= revs[99]);
    let got: Vec<i64> = events(&mut watch, 80).await.iter().map(|e| e.rev).collect();
    assert_eq!(got, revs[20..]);
}

async fn watch_from_the_future_waits(store: Arc<dyn Store>, base: String) {
    let rev = store.list(&base).await.unwrap().rev;
    let mut watch = store.watch(std::slice::from_ref(&base), rev + 3).await.unwrap();
    assert!(watch.rev < rev + 3);
    for i in 0..3_u8 {
        store.put(&format!("{base}{i}"), vec![i], Expect::Any, None).await.unwrap();
    }
    assert_eq!(events(&mut watch, 1).await[0].rev, rev + 3);
}

async fn watch_is_cancel_safe(store: Arc<dyn Store>, base: String) {
    let rev = store.list(&base).await.unwrap().rev;
    let mut watch = store.watch(std::slice::from_ref(&base), rev + 1).await.unwrap();
    let writer = async {
        for i in 0..300_u32 {
            store.put(&format!("{base}{i}"), vec![], Expect::Any, None).await.unwrap();
        }
    };
    let reader = async {
        let mut revs = Vec::new();
        while revs.len() < 300 {
            // Gives up again and again in the middle of waiting.
            if let Ok(batch) = timeout(Duration::from_micros(150), watch.next()).await {
                revs.extend(batch.unwrap().events.iter().map(|e| e.rev));
            }
        }
        revs
    };
    let ((), revs) = timeout(Duration::from_secs(20), async { tokio::join!(writer, reader) })
        .await
        .expect("every event despite the cancellations");
    assert!(revs.is_sorted_by(|a, b| a < b));
}

async fn expiry(store: Arc<dyn Store>, base: String) {
    let (short, kept) = (base.clone() + "short", base.clone() + "kept");
    let rev = store.list(&base).await.unwrap().rev;
    let mut watch = store.watch(std::slice::from_ref(&base), rev + 1).await.unwrap();
    let ttl = Some(Duration::from_millis(700));
    let born = std::time::Instant::now();
    store.put(&short, b"s".to_vec(), Expect::Any, ttl).await.unwrap();
    store.put(&kept, b"k".to_vec(), Expect::Any, ttl).await.unwrap();
    // A write without a time to live ends the one it had.
    store.put(&kept, b"k".to_vec(), Expect::Any, None).await.unwrap();
    events(&mut watch, 3).await;
    let gone = timeout(Duration::from_secs(6), watch.next()).await.expect("expires").unwrap();
    assert_eq!(gone.events.len(), 1);
    assert_eq!((gone.events[0].key.as_str(), &gone.events[0].value), (short.as_str(), &None));
    assert!(born.elapsed() >= Duration::from_millis(990), "rounded up to a second");
    assert_eq!(store.get(&short).await.unwrap(), None);
    assert_eq!(store.get(&kept).await.unwrap().unwrap().value, b"k");
    store.put(&short, vec![], Expect::Absent, None).await.unwrap();
    // A refused write with a time to live changes nothing.
    let refused = store.put(&kept, b"x".to_vec(), Expect::Absent, ttl).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })));
}

async fn counter_by_compare_and_swap(store: Arc<dyn Store>, base: String) {
    let key = &(base + "n");
    let store = &store;
    store.put(key, b"0".to_vec(), Expect::Absent, None).await.unwrap();
    iter(0..8)
        .for_each_concurrent(8, async |_| {
            for _ in 0..20 {
                loop {
                    let kv = store.get(key).await.unwrap().unwrap();
                    let n: u32 = std::str::from_utf8(&kv.value).unwrap().parse().unwrap();
                    let next = (n + 1).to_string().into_bytes();
                    match store.put(key, next, Expect::Rev(kv.rev), None).await {
                        Ok(_) => break,
                        Err(Error::Conflict { .. }) => {}
                        Err(err) => panic!("{err}"),
                    }
                }
            }
        })
        .await;
    assert_eq!(store.get(key).await.unwrap().unwrap().value, b"160");
}

async fn too_large(store: Arc<dyn Store>, base: String) {
    let key = base + "k";
    let err = store.put(&key, vec![0; 2 << 20], Expect::Any, None).await.unwrap_err();
    assert!(matches!(&err, Error::TooLarge { key: k, .. } if *k == key), "{err:?}");
    assert_eq!(store.get(&key).await.unwrap(), None);
}

async fn digest_of_a_prefix(store: Arc<dyn Store>, base: String) {
    for i in 0..10 {
        store.put(&format!("{base}{i}"), vec![], Expect::Any, None).await.unwrap();
    }
    let before = store.list(&base).await.unwrap();
    let rev = store.put(&format!("{base}3"), vec![], Expect::Any, None).await.unwrap();
    store.delete(&format!("{base}4"), Expect::Any).await.unwrap();
    let digest = store.digest(&base, before.rev).await.unwrap();
    assert_eq!(digest.changed, [(format!("{base}3"), rev)]);
    assert_eq!((digest.count, digest.rev, digest.cluster), (9, rev + 1, before.cluster));
    assert_eq!(store.digest(&base, 0).await.unwrap().changed.len(), 9);
}

async fn keys_need_no_meaning(store: Arc<dyn Store>, base: String) {
    for name in ["", "with space", "ümläut", "%2f", "//", "\u{10FFFF}", "a'b\"c;--"] {
        let key = base.clone() + name;
        store.put(&key, name.into(), Expect::Absent, None).await.unwrap();
        assert_eq!(store.get(&key).await.unwrap().unwrap().value, name.as_bytes());
    }
    assert_eq!(store.list(&base).await.unwrap().items.len(), 7);
    assert!(store.put("", vec![], Expect::Any, None).await.is_err());
    assert_eq!(store.describe().split(' ').count(), 2);
}
