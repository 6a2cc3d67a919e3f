use proptest::prelude::*;

use super::*;

fn put(key: &str, rev: i64, create_rev: i64) -> Event {
    let value = Some(format!("{rev}").into_bytes());
    Event { prefix: 0, key: key.to_owned(), value, rev, create_rev, prev: None }
}

fn del(key: &str, rev: i64) -> Event {
    Event { prefix: 0, key: key.to_owned(), value: None, rev, create_rev: 0, prev: None }
}

/// Events as `key@rev`, deletions as `-key@rev`.
fn told(queue: &mut Queue) -> Vec<String> {
    queue
        .take(usize::MAX)
        .into_iter()
        .map(|event| match event {
            SyncEvent::Update { key, value, rev } => {
                format!("{}{key}@{rev}", if value.is_some() { "" } else { "-" })
            }
            SyncEvent::InSync => "in sync".to_owned(),
            SyncEvent::Status(SyncStatus::Connected) => "connected".to_owned(),
            SyncEvent::Status(SyncStatus::Lost { .. }) => "lost".to_owned(),
        })
        .collect()
}

fn after(events: Vec<Event>) -> Vec<String> {
    let mut queue = Queue::new();
    for event in events {
        queue.event(event);
    }
    told(&mut queue)
}

#[test]
fn the_latest_value_of_each_key_in_order_of_arrival() {
    assert_eq!(after(vec![put("a", 1, 1), put("b", 2, 2), put("a", 3, 1)]), ["a@3", "b@2"]);
}

#[test]
fn what_came_and_went_unheard_is_not_told() {
    assert!(after(vec![put("a", 1, 1), del("a", 2)]).is_empty());
    assert_eq!(after(vec![put("a", 1, 1), del("a", 2), put("a", 3, 3)]), ["a@3"]);
    assert!(after(vec![del("a", 2)]).is_empty());
}

#[test]
fn stale_and_repeated_events_are_ignored() {
    let mut queue = Queue::new();
    assert_eq!(queue.event(put("a", 5, 5)), Some(1));
    assert_eq!(queue.event(put("a", 5, 5)), None);
    assert_eq!(queue.event(put("a", 4, 4)), None);
    assert_eq!(queue.event(del("a", 4)), None);
    assert_eq!(queue.event(put("a", 6, 5)), Some(0));
    assert_eq!(queue.event(del("a", 7)), Some(-1));
    assert_eq!(queue.event(del("a", 7)), None);
}

#[test]
fn a_replaced_key_is_told_as_gone_first() {
    let mut queue = Queue::new();
    queue.event(put("a", 1, 1));
    assert_eq!(told(&mut queue), ["a@1"]);
    queue.event(del("a", 5));
    queue.event(put("a", 8, 8));
    queue.event(put("a", 9, 8));
    assert_eq!(told(&mut queue), ["-a@5", "a@9"]);
    // The same found by a listing, which cannot know when the key was deleted.
    let kv = KeyValue { key: "a".into(), value: vec![], rev: 20, create_rev: 15 };
    queue.listing("", Listing { items: vec![kv], rev: 30, cluster: 1 });
    assert_eq!(told(&mut queue), ["-a@14", "a@20"]);
    queue.event(put("a", 21, 15));
    queue.event(del("a", 22));
    assert_eq!(told(&mut queue), ["-a@22"]);
}

#[test]
fn status_tells_only_the_latest_and_in_sync_keeps_its_place() {
    let mut queue = Queue::new();
    queue.status(SyncStatus::Lost { endpoint: "e".into(), reason: "r".into() });
    queue.event(put("a", 1, 1));
    queue.in_sync();
    queue.status(SyncStatus::Connected);
    queue.event(put("b", 2, 2));
    assert_eq!(told(&mut queue), ["a@1", "in sync", "connected", "b@2"]);
    assert!(queue.is_empty());
}

#[test]
fn a_batch_has_its_limit() {
    let mut queue = Queue::new();
    for i in 1..=10 {
        queue.event(put(&i.to_string(), i, i));
    }
    assert_eq!(queue.take(4).len(), 4);
    assert_eq!(queue.take(100).len(), 6);
}

#[test]
fn another_history_tells_everything_again() {
    let mut queue = Queue::new();
    for (key, rev) in [("p/a", 10), ("p/b", 20), ("q/c", 30)] {
        queue.event(put(key, rev, rev));
    }
    told(&mut queue);
    queue.forget_revisions();
    let kv = |key: &str, rev| KeyValue { key: key.into(), value: vec![], rev, create_rev: rev };
    let items = vec![kv("p/a", 10), kv("p/z", 12)];
    queue.listing("p/", Listing { items, rev: 12, cluster: 2 });
    assert_eq!(told(&mut queue), ["-p/b@12", "p/a@10", "p/z@12"]);
    assert_eq!(queue.count("p/"), 2);
    assert_eq!(queue.count("q/"), 1);
}

/// What may happen to a store of four keys and its follower.
#[derive(Debug, Clone)]
enum Step {
    Put(usize),
    Delete(usize),
    /// The follower misses what happens until the next listing.
    Lose,
    List,
    /// The watch repeats its last events.
    Replay,
    Take(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_usize).prop_map(Step::Put),
        3 => (0..4_usize).prop_map(Step::Delete),
        1 => Just(Step::Lose),
        2 => Just(Step::List),
        1 => Just(Step::Replay),
        2 => (1..4_usize).prop_map(Step::Take),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever happens, a consumer that has taken everything holds what the store holds, and has
    /// seen every incarnation end before the next began.
    #[test]
    fn the_consumer_ends_with_the_store(steps in proptest::collection::vec(step(), 1..60)) {
        const KEYS: [&str; 4] = ["p/a", "p/b", "p/c", "p/d"];
        let mut store: BTreeMap<&str, KeyValue> = BTreeMap::new();
        let mut queue = Queue::new();
        let mut history: Vec<Event> = Vec::new();
        let mut rev = 1;
        let mut losing = false;
        let mut view: BTreeMap<String, (Vec<u8>, i64)> = BTreeMap::new();
        let mut consume = |queue: &mut Queue, most: usize| {
            for event in queue.take(most) {
                let SyncEvent::Update { key, value, rev } = event else { continue };
                match value {
                    Some(value) => { view.insert(key, (value, rev)); }
                    None => assert!(view.remove(&key).is_some(), "{key} was not there"),
                }
            }
            view.clone()
        };
        let list = |store: &BTreeMap<&str, KeyValue>, queue: &mut Queue, rev| {
            let items = store.values().cloned().collect();
            queue.listing("p/", Listing { items, rev, cluster: 1 });
        };
        for step in steps {
            match step {
                Step::Put(at) => {
                    rev += 1;
                    let create_rev = store.get(KEYS[at]).map_or(rev, |kv| kv.create_rev);
                    let event = put(KEYS[at], rev, create_rev);
                    let value = event.value.clone().unwrap_or_default();
                    let key = KEYS[at].to_owned();
                    store.insert(KEYS[at], KeyValue { key, value, rev, create_rev });
                    history.push(event.clone());
                    if !losing { queue.event(event); }
                }
                Step::Delete(at) => if store.remove(KEYS[at]).is_some() {
                    rev += 1;
                    let event = del(KEYS[at], rev);
                    history.push(event.clone());
                    if !losing { queue.event(event); }
                },
                Step::Lose => losing = true,
                Step::List => { list(&store, &mut queue, rev); losing = false; }
                // Only the latest revision may come twice: older ones the worker has filtered.
                Step::Replay => if !losing && let Some(event) = history.last() {
                    queue.event(event.clone());
                },
                Step::Take(most) => { consume(&mut queue, most); }
            }
        }
        list(&store, &mut queue, rev);
        let view = consume(&mut queue, usize::MAX);
        let truth: BTreeMap<String, (Vec<u8>, i64)> =
            store.into_values().map(|kv| (kv.key, (kv.value, kv.rev))).collect();
        prop_assert_eq!(view, truth);
        prop_assert!(queue.changes.is_empty() && queue.items.is_empty());
    }
}
