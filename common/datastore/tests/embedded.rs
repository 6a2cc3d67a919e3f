//! The embedded store among processes: latency, crashes, locks, replacement, idleness.
//!
//! Other processes are this test binary itself, started with a role in its environment; see
//! [`role`].

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caracal_datastore::{Embedded, Error, Expect, Store, Syncer};
use common::{Follower, temp_dir};
use nix::time::{ClockId, clock_gettime};

const SOON: Duration = Duration::from_secs(10);
const ROLE: &str = "CARACAL_TEST_ROLE";
const FILE: &str = "CARACAL_TEST_FILE";

fn micros(clock: ClockId) -> i64 {
    let time = clock_gettime(clock).unwrap();
    time.tv_sec() * 1_000_000 + time.tv_nsec() / 1000
}

fn open(dir: &Path) -> Arc<Embedded> {
    Arc::new(Embedded::open(&dir.join("store.db")).unwrap())
}

/// Starts this binary again to play `role` on a store.
fn start(role: &str, dir: &Path) -> Child {
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "role", "--nocapture", "--test-threads", "1"])
        .env(ROLE, role)
        .env(FILE, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("setpriv must be installed")
}

/// Not a test of its own: what the other processes do. Does nothing without a role.
#[tokio::test]
async fn role() {
    let (Ok(role), Ok(dir)) = (std::env::var(ROLE), std::env::var(FILE)) else { return };
    let store = open(Path::new(&dir));
    match role.as_str() {
        // Writes the time of each write into it.
        "clock" => {
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_millis(5)).await;
                let now = micros(ClockId::CLOCK_MONOTONIC).to_be_bytes().to_vec();
                store.put("/clock", now, Expect::Any, None).await.unwrap();
            }
        }
        // Counts up by compare-and-swap.
        "count" => {
            for _ in 0..100 {
                loop {
                    let kv = store.get("/n").await.unwrap().unwrap();
                    let n: u32 = std::str::from_utf8(&kv.value).unwrap().parse().unwrap();
                    let next = (n + 1).to_string().into_bytes();
                    match store.put("/n", next, Expect::Rev(kv.rev), None).await {
                        Ok(_) => break,
                        Err(Error::Conflict { .. }) => {}
                        Err(err) => panic!("{err}"),
                    }
                }
            }
        }
        // Writes until killed, telling each write that was answered.
        "write" => {
            for i in 0_u32.. {
                let key = format!("/w/{}", i % 50);
                let size = usize::try_from(i % 7).unwrap() * 500;
                if i % 5 == 4 {
                    let _ = store.delete(&key, Expect::Any).await;
                } else {
                    let mut value = i.to_string().into_bytes();
                    value.resize(value.len() + size, b' ');
                    let rev = store.put(&key, value, Expect::Any, None).await.unwrap();
                    println!("wrote {key} {rev} {i}");
                }
            }
        }
        // Sits on a watch and tells how much processor time that took in three seconds.
        "idle" => {
            let mut syncer = Syncer::start(store, vec!["/a/".into(), "/b/".into()]);
            let settle = tokio::time::sleep(Duration::from_millis(500));
            tokio::pin!(settle);
            loop {
                tokio::select! { _ = syncer.next() => {}, () = &mut settle => break }
            }
            let before = micros(ClockId::CLOCK_PROCESS_CPUTIME_ID);
            let _ = tokio::time::timeout(Duration::from_secs(3), syncer.next()).await;
            println!("used {}", micros(ClockId::CLOCK_PROCESS_CPUTIME_ID) - before);
        }
        other => panic!("unknown role {other}"),
    }
}

/// What a process tells in lines that begin with `word`.
fn told(child: &mut Child, word: &str) -> Vec<Vec<String>> {
    BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| {
            // libtest writes its own words before the first line.
            let at = line.find(word)?;
            Some(line[at..].split(' ').skip(1).map(ToOwned::to_owned).collect())
        })
        .collect()
}

#[tokio::test]
async fn a_watch_hears_other_processes_at_once() {
    let dir = temp_dir();
    let store = open(dir.path());
    let rev = store.list("/").await.unwrap().rev;
    let mut watch = store.watch(&["/clock".into()], rev + 1).await.unwrap();
    let mut child = start("clock", dir.path());
    let mut spans = Vec::new();
    while spans.len() < 100 {
        let batch = tokio::time::timeout(SOON, watch.next()).await.unwrap().unwrap();
        let now = micros(ClockId::CLOCK_MONOTONIC);
        for event in batch.events {
            let sent: [u8; 8] = event.value.unwrap().try_into().unwrap();
            spans.push(now - i64::from_be_bytes(sent));
        }
    }
    assert!(child.wait().unwrap().success());
    spans.sort_unstable();
    println!("put to event across processes: median {} us, p95 {} us", spans[50], spans[95]);
    assert!(spans[50] < 5_000, "median {} us", spans[50]);
    assert!(spans[95] < 20_000, "p95 {} us", spans[95]);
}

#[tokio::test]
async fn processes_count_together() {
    let dir = temp_dir();
    let store = open(dir.path());
    store.put("/n", b"0".to_vec(), Expect::Absent, None).await.unwrap();
    let mut children: Vec<Child> = (0..3).map(|_| start("count", dir.path())).collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(store.get("/n").await.unwrap().unwrap().value, b"300");
}

/// Writers are killed in the middle of their work, again and again: what was answered is there, the
/// history leads to the present without a gap, and the file is sound.
#[tokio::test]
async fn killed_writers_leave_the_store_whole() {
    let dir = temp_dir();
    let store = open(dir.path());
    let mut follower = Follower::start(store.clone(), &["/w/"]);
    follower.in_sync().await;
    let mut history = store.watch(&["/w/".into()], 1).await.unwrap();
    let mut answered: BTreeMap<String, (i64, String)> = BTreeMap::new();
    for round in 0..12_u64 {
        let mut child = start("write", dir.path());
        tokio::time::sleep(Duration::from_millis(60 + 7 * round)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        for line in told(&mut child, "wrote ") {
            // The last line may have been cut off.
            if let [key, rev, number] = line.as_slice() {
                answered.insert(key.clone(), (rev.parse().unwrap(), number.clone()));
            }
        }
        assert!(!answered.is_empty(), "killed before it wrote anything");
        // A process that comes new to the file finds the same.
        let fresh = open(dir.path());
        for (key, (rev, number)) in &answered {
            if let Some(kv) = fresh.get(key).await.unwrap() {
                assert!(kv.rev >= *rev, "{key} lost an answered write");
                let text = String::from_utf8(kv.value).unwrap();
                assert!(kv.rev > *rev || text.trim_end() == number, "{key}");
            }
        }
    }
    let end = store.put("/w/end", vec![], Expect::Any, None).await.unwrap();
    let mut replayed: BTreeMap<String, i64> = BTreeMap::new();
    let mut last = 1;
    while last < end {
        for event in tokio::time::timeout(SOON, history.next()).await.unwrap().unwrap().events {
            assert_eq!(event.rev, last + 1, "a gap in history");
            last = event.rev;
            match event.value {
                Some(_) => replayed.insert(event.key, event.rev),
                None => replayed.remove(&event.key),
            };
        }
    }
    let listing = store.list("/w/").await.unwrap();
    let present: BTreeMap<String, i64> = listing.items.into_iter().map(|kv| (kv.key, kv.rev)).collect();
    assert_eq!(replayed, present);
    follower.until("the end", SOON, |f| f.value("/w/end").is_some()).await;
    let told: BTreeMap<String, i64> =
        follower.state.iter().map(|(key, (_, rev))| (key.clone(), *rev)).collect();
    assert_eq!(told, present);

    let conn = rusqlite::Connection::open(dir.path().join("store.db")).unwrap();
    let sound: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
}

#[test]
fn a_watch_costs_next_to_nothing_while_idle() {
    let dir = temp_dir();
    let mut child = start("idle", dir.path());
    let used = told(&mut child, "used ");
    assert!(child.wait().unwrap().success());
    let used: i64 = used[0][0].parse().unwrap();
    println!("idle for 3 s: {used} us of processor time");
    // 0.3 % of a core.
    assert!(used < 9_000, "{used} us in 3 s");
}

#[tokio::test]
async fn files_are_private() {
    let dir = temp_dir();
    let path = dir.path().join("not/there/yet/store.db");
    let store = Embedded::open(&path).unwrap();
    store.put("/k", vec![], Expect::Any, None).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        let file = entry.unwrap().path();
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    drop(store);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let _store = Embedded::open(&path).unwrap();
    assert_eq!(mode(&path), 0o600, "what was open to others is closed");
}

#[tokio::test]
async fn unusable_paths_are_named() {
    let dir = temp_dir();
    let garbage = dir.path().join("garbage");
    std::fs::write(&garbage, "no database at all, but long enough to look at".repeat(50)).unwrap();
    let newer = dir.path().join("newer");
    let conn = rusqlite::Connection::open(&newer).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    drop(conn);
    let below = dir.path().join("garbage/store.db");
    for path in [&garbage, &newer, &below, &dir.path().to_owned()] {
        match Embedded::open(path).err() {
            Some(Error::Config { field, reason }) => {
                assert_eq!(field, "CARACAL_EMBEDDED_PATH");
                assert!(reason.contains(path.to_str().unwrap()), "{reason}");
            }
            other => panic!("{}: {other:?}", path.display()),
        }
    }
}

/// More is written than history holds: a watch from the beginning is refused, a syncer that was
/// away lists.
#[tokio::test]
async fn history_is_bounded() {
    let dir = temp_dir();
    let store = open(dir.path());
    let mut watch = store.watch(&["/big/".into()], 1).await.unwrap();
    for i in 0..600 {
        store.put(&format!("/big/{}", i % 3), vec![7; 200_000], Expect::Any, None).await.unwrap();
    }
    let seen = loop {
        match watch.next().await {
            Ok(_) => {}
            Err(err) => break err,
        }
    };
    assert!(matches!(seen, Error::Compacted { rev } if rev > 200), "{seen:?}");
    let again = store.watch(&["/big/".into()], 1).await.expect_err("refused");
    assert!(matches!(again, Error::Compacted { rev } if rev > 200), "{again:?}");
    let size = std::fs::metadata(dir.path().join("store.db")).unwrap().len();
    assert!(size < 200 << 20, "{size} bytes");
    let mut follower = Follower::start(store, &["/big/"]);
    follower.until("all", SOON, |f| f.state.len() == 3 && f.in_sync == 1).await;
}

#[tokio::test]
async fn times_to_live_survive_a_reboot() {
    let dir = temp_dir();
    let store = open(dir.path());
    store.put("/t", vec![], Expect::Any, Some(Duration::from_secs(2))).await.unwrap();
    drop(store);
    // As after a boot: another identity, and a clock that began anew far behind.
    let conn = rusqlite::Connection::open(dir.path().join("store.db")).unwrap();
    conn.execute("UPDATE meta SET boot = 'before'", []).unwrap();
    conn.execute("UPDATE kv SET expires = 1", []).unwrap();
    drop(conn);
    let store = open(dir.path());
    assert!(store.get("/t").await.unwrap().is_some(), "gets its full time again");
    let start = Instant::now();
    let mut follower = Follower::start(store.clone(), &["/"]);
    follower.until("the key", SOON, |f| f.state.len() == 1).await;
    follower.until("its end", SOON, |f| f.state.is_empty()).await;
    assert!(start.elapsed() > Duration::from_millis(1500), "after {:?}", start.elapsed());
}

/// An operator puts a backup in place of the file; then the file is gone for a while.
#[tokio::test]
async fn a_restored_backup_is_read_again() {
    let dir = temp_dir();
    let (file, backup) = (dir.path().join("store.db"), dir.path().join("backup"));
    let store = open(dir.path());
    store.put("/old", vec![], Expect::Any, None).await.unwrap();
    let conn = rusqlite::Connection::open(&file).unwrap();
    conn.execute("VACUUM INTO ?", [backup.to_str().unwrap()]).unwrap();
    drop(conn);
    for i in 0..5 {
        store.put(&format!("/new/{i}"), vec![], Expect::Any, None).await.unwrap();
    }
    let mut follower = Follower::start(store.clone(), &["/"]);
    follower.until("all", SOON, |f| f.state.len() == 6 && f.connected()).await;

    let remove = || {
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(dir.path().join(format!("store.db{suffix}")));
        }
    };
    remove();
    follower.until("lost", SOON, Follower::lost).await;
    let err = store.put("/k", vec![], Expect::Any, None).await.unwrap_err();
    assert!(matches!(&err, Error::Unavailable { reason, .. } if reason.contains("gone")), "{err}");
    assert_eq!(follower.state.len(), 6, "what is known stays");

    std::fs::rename(&backup, &file).unwrap();
    follower.until("the backup", SOON, |f| f.state.len() == 1 && f.connected()).await;
    store.put("/after", vec![], Expect::Any, None).await.unwrap();
    follower.until("a write", SOON, |f| f.state.contains_key("/after")).await;
}
