//! What happens to etcd, and what its users notice of it. Every test has servers of its own.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::{Duration, Instant};

use caracal_datastore::{Backend, Config, Error, Expect, SyncStatus, connect, connect_lazy};
use common::proxy::{Mode, Proxy};
use common::{Etcd, Follower};
use nix::sys::signal::Signal;
use tokio::time::{sleep, timeout};

const SOON: Duration = Duration::from_secs(10);

fn with_user(config: &Config, name: &str, password: &str) -> Config {
    let Backend::Etcd(etcd) = &config.backend else { panic!("etcd expected") };
    let mut etcd = etcd.clone();
    etcd.user = Some((name.to_owned(), password.to_owned()));
    Config { backend: Backend::Etcd(etcd) }
}

async fn refused(config: &Config, limit: Duration) -> Error {
    let start = Instant::now();
    let err = connect(config).await.err().expect("no connection");
    assert!(start.elapsed() < limit, "took {:?}: {err}", start.elapsed());
    err
}

#[tokio::test]
async fn an_unreachable_endpoint_is_named_with_the_reason_within_seconds() {
    let nobody = format!("http://{}:2379", common::own_address());
    let err = refused(&Config::etcd([&nobody]), Duration::from_secs(1)).await;
    match &err {
        Error::Unavailable { endpoint, reason } => {
            assert_eq!(*endpoint, nobody);
            assert!(reason.contains("Connection refused"), "{reason}");
        }
        other => panic!("{other:?}"),
    }

    // Somebody who accepts and says nothing.
    let address = format!("{}:2379", common::own_address());
    let _silent = std::net::TcpListener::bind(&address).unwrap();
    let silent = format!("http://{address}");
    let err = refused(&Config::etcd([&silent, &nobody]), Duration::from_secs(4)).await;
    let text = err.to_string();
    assert!(text.contains(&format!("{silent}: no answer within 3 s")), "{text}");
    assert!(text.contains(&nobody) && text.contains("Connection refused"), "{text}");

    let err = refused(&Config::etcd(["http://no.such.host.invalid:2379"]), SOON).await;
    let text = err.to_string();
    assert!(text.contains("http://no.such.host.invalid:2379"), "{text}");
    assert!(text.contains("lookup") || text.contains("resolve"), "{text}");

    // A lazy store fails in its calls only.
    let store = connect_lazy(&Config::etcd([&nobody])).unwrap();
    let err = store.get("/k").await.unwrap_err();
    assert!(matches!(&err, Error::Unavailable { endpoint, .. } if *endpoint == nobody), "{err}");
    assert!(matches!(store.list("/").await, Err(Error::Unavailable { .. })));
    assert!(matches!(store.watch(&["/".into()], 1).await, Err(Error::Unavailable { .. })));
}

#[tokio::test]
async fn dead_endpoints_beside_a_live_one_do_not_matter() {
    let etcd = Etcd::start();
    let address = format!("{}:2379", common::own_address());
    let _silent = std::net::TcpListener::bind(&address).unwrap();
    let dead = format!("http://{}:2379", common::own_address());
    let config = Config::etcd([dead, format!("http://{address}"), etcd.url()]);
    let start = Instant::now();
    let store = connect(&config).await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(1500), "took {:?}", start.elapsed());
    store.put("/k", b"v".to_vec(), Expect::Absent, None).await.unwrap();
    let mut follower = Follower::start(store, &["/"]);
    follower.in_sync().await;
    assert_eq!(follower.value("/k"), Some(&b"v"[..]));
}

#[tokio::test]
async fn a_change_arrives_about_as_fast_as_etcd_itself() {
    let etcd = Etcd::start();
    let store = etcd.store().await;
    let mut follower = Follower::start(store.clone(), &["/a/", "/b/"]);
    follower.in_sync().await;
    follower.until("connected", SOON, Follower::connected).await;
    let mut spans = Vec::new();
    for i in 0..300_u32 {
        let start = Instant::now();
        let rev = store.put("/b/k", vec![1], Expect::Any, None).await.unwrap();
        let answered = start.elapsed();
        follower.until("the change", SOON, |f| f.updates.last().is_some_and(|u| u.2 == rev)).await;
        if i >= 20 {
            spans.push((start.elapsed(), answered));
        }
    }
    spans.sort_unstable();
    let (told, answered) = spans[spans.len() / 2];
    println!("put to event: median {told:?} (the put itself {answered:?}), worst {:?}", spans.last());
    assert!(told < Duration::from_millis(5), "median {told:?}");
}

#[tokio::test]
async fn updates_flow_again_at_once_after_etcd_was_killed() {
    let mut etcd = Etcd::start();
    let store = etcd.store().await;
    store.put("/k", b"1".to_vec(), Expect::Any, None).await.unwrap();
    let mut follower = Follower::start(store.clone(), &["/"]);
    follower.until("connected", SOON, |f| f.in_sync == 1 && f.connected()).await;

    etcd.kill();
    follower.until("lost", Duration::from_secs(1), Follower::lost).await;
    match follower.status.last() {
        Some(SyncStatus::Lost { endpoint, reason }) => {
            assert_eq!(*endpoint, etcd.url());
            assert!(!reason.is_empty());
        }
        other => panic!("{other:?}"),
    }
    let start = Instant::now();
    let err = store.put("/k", b"2".to_vec(), Expect::Any, None).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}: {err}", start.elapsed());
    follower.idle(Duration::from_secs(3)).await;
    assert_eq!(follower.status.len(), 2, "one loss is one status: {:?}", follower.status);
    assert_eq!(follower.value("/k"), Some(&b"1"[..]), "what is known stays");

    // The moment it is back is the moment at which somebody else gets a write through.
    etcd.launch();
    let rev = tokio::task::spawn_blocking({
        let config = etcd.config();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                loop {
                    if let Ok(store) = connect(&config).await
                        && let Ok(rev) = store.put("/k", b"3".to_vec(), Expect::Any, None).await
                    {
                        return rev;
                    }
                }
            })
        }
    })
    .await
    .unwrap();
    let took = follower.until("the update", SOON, |f| f.updates.last().is_some_and(|u| u.2 == rev)).await;
    println!("updates flow {took:?} after the first write");
    assert!(took < Duration::from_millis(300), "took {took:?}");
    follower.until("connected", SOON, Follower::connected).await;
    assert_eq!(follower.in_sync, 1, "in sync comes once");
    assert_eq!(store.get("/k").await.unwrap().unwrap().rev, rev, "the same store works again");
}

#[tokio::test]
async fn an_agent_started_before_etcd_is_in_sync_soon_after_it() {
    let mut etcd = Etcd::prepare("http", &[]);
    let store = connect_lazy(&etcd.config()).unwrap();
    let mut follower = Follower::start(store, &["/"]);
    follower.until("lost", SOON, Follower::lost).await;
    follower.idle(Duration::from_secs(1)).await;
    assert_eq!((follower.in_sync, follower.status.len()), (0, 1));
    etcd.launch();
    let took = follower.in_sync().await;
    assert!(took < Duration::from_secs(2), "took {took:?}");
}

#[tokio::test]
async fn a_stopped_etcd_is_noticed_and_its_return_too() {
    let etcd = Etcd::start();
    let store = etcd.store().await;
    let mut follower = Follower::start(store.clone(), &["/"]);
    follower.until("connected", SOON, |f| f.in_sync == 1 && f.connected()).await;
    etcd.signal(Signal::SIGSTOP);
    let start = Instant::now();
    let err = timeout(Duration::from_secs(9), store.get("/k")).await.expect("a limit").unwrap_err();
    assert!(matches!(&err, Error::Unavailable { endpoint, .. } if *endpoint == etcd.url()), "{err}");
    follower.until("lost", Duration::from_secs(8), Follower::lost).await;
    let noticed = start.elapsed();
    assert!(noticed < Duration::from_secs(10), "noticed after {noticed:?}");
    etcd.signal(Signal::SIGCONT);
    let start = Instant::now();
    let rev = store.put("/k", vec![], Expect::Any, None).await.unwrap();
    follower.until("the update", SOON, |f| f.updates.last().is_some_and(|u| u.2 == rev)).await;
    println!("stop noticed after {noticed:?}, repaired after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_millis(2500), "took {:?}", start.elapsed());
}

#[tokio::test]
async fn a_black_hole_is_noticed_and_nothing_is_missed() {
    let etcd = Etcd::start();
    let direct = etcd.store().await;
    let proxy = Proxy::start(format!("{}:2379", etcd.address)).await;
    let store = connect(&Config::etcd([&proxy.url])).await.unwrap();
    let mut follower = Follower::start(store, &["/"]);
    follower.until("connected", SOON, |f| f.in_sync == 1 && f.connected()).await;
    proxy.set(Mode::Hole);
    let start = Instant::now();
    for i in 0..50 {
        direct.put(&format!("/k{i}"), vec![], Expect::Any, None).await.unwrap();
    }
    direct.delete("/k7", Expect::Any).await.unwrap();
    follower.until("lost", SOON, Follower::lost).await;
    let noticed = start.elapsed();
    assert!(noticed < Duration::from_secs(7), "noticed after {noticed:?}");
    match follower.status.last() {
        Some(SyncStatus::Lost { endpoint, reason }) => {
            assert_eq!(*endpoint, proxy.url);
            assert!(reason.contains("silent"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    proxy.set(Mode::Open);
    let took = follower.until("all keys", SOON, |f| f.state.len() == 49 && f.connected()).await;
    println!("hole noticed after {noticed:?}, healed after {took:?}");
    assert!(took < Duration::from_secs(4), "took {took:?}");
}

/// The history the agent missed is compacted before it comes back: it lists and finds out what was
/// deleted meanwhile.
#[tokio::test]
async fn compaction_while_away_misses_nothing() {
    let etcd = Etcd::start();
    let direct = etcd.store().await;
    for i in 0..100 {
        direct.put(&format!("/k{i:03}"), b"old".to_vec(), Expect::Any, None).await.unwrap();
    }
    let proxy = Proxy::start(format!("{}:2379", etcd.address)).await;
    let store = connect(&Config::etcd([&proxy.url])).await.unwrap();
    let mut follower = Follower::start(store, &["/k0", "/k1"]);
    follower.until("connected", SOON, |f| f.in_sync == 1 && f.connected()).await;
    assert_eq!(follower.state.len(), 100);

    proxy.set(Mode::Cut);
    follower.until("lost", SOON, Follower::lost).await;
    for i in 0..30 {
        direct.delete(&format!("/k{i:03}"), Expect::Any).await.unwrap();
    }
    for i in 20..40 {
        direct.put(&format!("/k{i:03}"), b"new".to_vec(), Expect::Any, None).await.unwrap();
    }
    let rev = direct.put("/k100", b"new".to_vec(), Expect::Any, None).await.unwrap();
    etcd.ctl(&["compact", &rev.to_string()]);
    let gone = direct.watch(&["/k".into()], rev - 10).await;
    let compacted = match gone {
        Err(err) => err,
        Ok(mut watch) => watch.next().await.unwrap_err(),
    };
    assert!(matches!(compacted, Error::Compacted { rev: at } if at == rev), "{compacted:?}");

    follower.updates.clear();
    proxy.set(Mode::Open);
    let took = follower.until("the new state", SOON, |f| f.value("/k100").is_some()).await;
    assert!(took < Duration::from_secs(1), "took {took:?}");
    follower.until("deletions", SOON, |f| f.state.len() == 81).await;
    let truth = direct.list("/k").await.unwrap();
    let same = truth.items.iter().all(|kv| follower.state.get(&kv.key).is_some_and(|s| s.1 == kv.rev));
    assert!(same, "state equals the store");
    assert_eq!(follower.in_sync, 1);
    // 20 vanished, 10 were replaced (gone and back), 10 changed, 1 is new; the rest is not told.
    assert_eq!(follower.updates.len(), 20 + 2 * 10 + 10 + 1);
}

/// A cluster restored from an old snapshot: revisions start again from a lower number.
#[tokio::test]
async fn a_store_that_went_back_in_time_is_read_again() {
    let mut etcd = Etcd::start();
    let store = etcd.store().await;
    for i in 0..10 {
        store.put(&format!("/k{i}"), b"old".to_vec(), Expect::Any, None).await.unwrap();
    }
    let snapshot = etcd.dir.path().join("snapshot");
    etcd.ctl(&["snapshot", "save", snapshot.to_str().unwrap()]);
    let mut follower = Follower::start(store.clone(), &["/"]);
    follower.until("connected", SOON, |f| f.in_sync == 1 && f.connected()).await;
    for i in 5..15 {
        store.put(&format!("/k{i}"), b"new".to_vec(), Expect::Any, None).await.unwrap();
    }
    follower.until("new keys", SOON, |f| f.state.len() == 15).await;

    etcd.kill();
    std::fs::remove_dir_all(etcd.data()).unwrap();
    let peer = format!("http://{}:2380", etcd.address);
    etcd.ctl(&[
        "snapshot",
        "restore",
        snapshot.to_str().unwrap(),
        "--name",
        "t",
        "--data-dir",
        etcd.data().to_str().unwrap(),
        "--initial-cluster",
        &format!("t={peer}"),
        "--initial-advertise-peer-urls",
        &peer,
    ]);
    follower.updates.clear();
    etcd.launch();
    follower.until("the old state", SOON, |f| f.state.len() == 10 && f.connected()).await;
    assert!(follower.state.values().all(|(value, _)| value == b"old"));
    // Revisions are reused now: the syncer must not take the new ones for old news.
    let rev = store.put("/k1", b"after".to_vec(), Expect::Any, None).await.unwrap();
    follower.until("an update", SOON, |f| f.value("/k1") == Some(b"after")).await;
    assert!(rev < 20, "revisions started again: {rev}");
    assert_eq!(follower.in_sync, 1);
}

#[tokio::test]
async fn a_full_etcd_is_named_and_still_read() {
    let etcd = Etcd::start_with("http", &["--quota-backend-bytes", "4194304"]);
    let store = etcd.store().await;
    store.put("/first", b"v".to_vec(), Expect::Any, None).await.unwrap();
    let mut follower = Follower::start(store.clone(), &["/first"]);
    follower.in_sync().await;
    let mut full = None;
    // etcd looks at its size a little late: a few more go in than there is room for.
    for i in 0..100 {
        sleep(Duration::from_millis(20)).await;
        if let Err(err) = store.put(&format!("/{i}"), vec![0; 1 << 20], Expect::Any, None).await {
            full = Some(err);
            break;
        }
    }
    let full = full.expect("full after some MiB");
    assert!(matches!(&full, Error::Full { endpoint, .. } if *endpoint == etcd.url()), "{full:?}");
    assert!(full.to_string().contains("space exceeded"), "{full}");
    assert_eq!(store.get("/first").await.unwrap().unwrap().value, b"v");
    assert_eq!(store.list("/first").await.unwrap().items.len(), 1);
    follower.idle(Duration::from_millis(100)).await;
    assert!(!follower.lost());
}

#[tokio::test]
async fn users_passwords_and_roles() {
    let mut etcd = Etcd::start();
    // A user is harmless while etcd asks for none.
    let store = connect(&with_user(&etcd.config(), "nobody", "x")).await.unwrap();
    store.put("/deep/k", b"v".to_vec(), Expect::Any, None).await.unwrap();
    drop(store);

    etcd.ctl(&["user", "add", "root:hunter2"]);
    etcd.ctl(&["user", "add", "reader:hunter3"]);
    etcd.ctl(&["role", "add", "deep"]);
    etcd.ctl(&["role", "grant-permission", "deep", "read", "--prefix=true", "/deep/"]);
    etcd.ctl(&["user", "grant-role", "reader", "deep"]);
    etcd.ctl(&["auth", "enable"]);

    let err = refused(&with_user(&etcd.config(), "root", "wr0ng"), SOON).await;
    assert!(matches!(&err, Error::Unauthorized { endpoint, .. } if *endpoint == etcd.url()));
    assert!(!format!("{err} {err:?}").contains("wr0ng"), "a password in {err:?}");
    let nobody = connect_lazy(&etcd.config()).unwrap();
    assert!(matches!(nobody.get("/deep/k").await, Err(Error::Unauthorized { .. })));
    let mut denied = Follower::start(nobody, &["/deep/"]);
    denied.until("lost", SOON, Follower::lost).await;

    let root = connect(&with_user(&etcd.config(), "root", "hunter2")).await.unwrap();
    root.put("/other", vec![], Expect::Any, None).await.unwrap();

    // The reader may see its prefix, not more; `connect` works although it may not read everywhere.
    let reader = connect(&with_user(&etcd.config(), "reader", "hunter3")).await.unwrap();
    let mut follower = Follower::start(reader.clone(), &["/deep/"]);
    follower.until("connected", SOON, |f| f.in_sync == 1 && f.connected()).await;
    let err = reader.put("/deep/k", vec![], Expect::Any, None).await.unwrap_err();
    assert!(matches!(&err, Error::Unauthorized { reason, .. } if reason.contains("/deep/k")), "{err}");
    let err = reader.list("/other").await.unwrap_err();
    assert!(matches!(&err, Error::Unauthorized { reason, .. } if reason.contains("/other")), "{err}");
    let refused = match reader.watch(&["/other".into()], 1).await {
        Err(err) => err,
        Ok(mut watch) => watch.next().await.unwrap_err(),
    };
    assert!(matches!(&refused, Error::Unauthorized { reason, .. } if reason.contains("/other")), "{refused}");

    // Tokens die with the server: clients log in again by themselves.
    etcd.kill();
    etcd.launch();
    timeout(SOON, async {
        while root.put("/deep/k", b"2".to_vec(), Expect::Any, None).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    follower.until("an update", SOON, |f| f.value("/deep/k") == Some(b"2")).await;
    assert!(follower.connected());
    assert!(denied.lost() && denied.in_sync == 0);
}

/// Three members: the one in use dies or stands still, the others go on.
#[tokio::test]
async fn another_member_takes_over() {
    let names = ["t", "u", "v"];
    let mut members: Vec<Etcd> = names.iter().map(|_| Etcd::prepare("http", &[])).collect();
    let cluster: Vec<String> = names
        .iter()
        .zip(&members)
        .map(|(name, etcd)| format!("{name}=http://{}:2380", etcd.address))
        .collect();
    let cluster = cluster.join(",");
    for (name, etcd) in names.iter().zip(&mut members) {
        // Later options win over the single-member ones.
        etcd.add_args(&["--name", name, "--initial-cluster", &cluster, "--election-timeout", "500"]);
        etcd.spawn();
    }
    let config = Config::etcd(members.iter().map(Etcd::url));
    let store = timeout(Duration::from_secs(20), async {
        loop {
            match connect(&config).await {
                Ok(store) => return store,
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await
    .unwrap();
    let mut follower = Follower::start(store.clone(), &["/"]);
    follower.until("connected", SOON, |f| f.in_sync == 1 && f.connected()).await;
    let writer = |value: &'static str| {
        let store = store.clone();
        async move {
            while store.put("/k", value.into(), Expect::Any, None).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        }
    };
    // The members are tried in the order given: the first is the one in use.
    members[0].kill();
    let start = Instant::now();
    timeout(SOON, writer("a")).await.unwrap();
    follower.until("an update", SOON, |f| f.value("/k") == Some(b"a")).await;
    println!("a dead member is replaced in {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(4), "took {:?}", start.elapsed());

    members[0].launch();
    members[1].signal(Signal::SIGSTOP);
    let start = Instant::now();
    timeout(Duration::from_secs(15), writer("b")).await.unwrap();
    follower.until("an update", SOON, |f| f.value("/k") == Some(b"b")).await;
    println!("a stopped member is replaced in {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(9), "took {:?}", start.elapsed());
    members[1].signal(Signal::SIGCONT);
    assert_eq!(follower.in_sync, 1);
}
