//! What the tests share: etcd servers of their own, and patience with a limit.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

pub mod proxy;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use caracal_datastore::{Config, Store, SyncEvent, SyncOptions, SyncStatus, Syncer, connect};
use tempfile::TempDir;

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A loopback address that no other test process uses, so that any port of it is free.
pub fn own_address() -> String {
    let pid = std::process::id();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let (a, b) = ((pid >> 8) % 120 + 100, pid % 256);
    format!("127.{a}.{b}.{number}")
}

/// A directory in memory: etcd's and SQLite's syncs cost nothing there.
pub fn temp_dir() -> TempDir {
    let base = Path::new("/dev/shm");
    let builder = &mut tempfile::Builder::new();
    builder.prefix("caracal-datastore-");
    if base.is_dir() { builder.tempdir_in(base) } else { builder.tempdir() }.expect("temp dir")
}

/// One etcd server, killed when dropped.
pub struct Etcd {
    pub dir: TempDir,
    pub address: String,
    scheme: &'static str,
    extra: Vec<String>,
    child: Option<Child>,
}

impl Etcd {
    /// Starts a single-member cluster and waits until it serves.
    pub fn start() -> Etcd {
        Etcd::start_with("http", &[])
    }

    pub fn start_with(scheme: &'static str, extra: &[&str]) -> Etcd {
        let mut etcd = Etcd::prepare(scheme, extra);
        etcd.launch();
        etcd
    }

    /// Reserves an address without starting anything.
    pub fn prepare(scheme: &'static str, extra: &[&str]) -> Etcd {
        Etcd {
            dir: temp_dir(),
            address: own_address(),
            scheme,
            extra: extra.iter().map(|arg| (*arg).to_owned()).collect(),
            child: None,
        }
    }

    /// More arguments for the next start; the last of a kind counts.
    pub fn add_args(&mut self, args: &[&str]) {
        self.extra.extend(args.iter().map(|arg| (*arg).to_owned()));
    }

    /// Starts the process and waits until its port is open.
    pub fn launch(&mut self) {
        self.spawn();
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect((self.address.as_str(), 2379)).is_err() {
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().expect("wait")) {
                panic!("etcd ended ({status}):\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "etcd does not serve:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts the process without waiting.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "etcd runs already");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .expect("log file");
        let peer = format!("http://{}:2380", self.address);
        let child = Command::new("setpriv")
            // Whatever becomes of this test, no server outlives it.
            .args(["--pdeathsig", "KILL", "etcd"])
            .args(["--name", "t", "--data-dir"])
            .arg(self.dir.path().join("data"))
            .args(["--listen-client-urls", &self.url(), "--advertise-client-urls", &self.url()])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("t={peer}")])
            .args(["--heartbeat-interval", "50", "--election-timeout", "250"])
            .args(["--logger", "zap", "--log-level", "warn"])
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .spawn()
            .expect("setpriv and etcd must be installed");
        self.child = Some(child);
    }

    pub fn url(&self) -> String {
        format!("{}://{}:2379", self.scheme, self.address)
    }

    pub fn config(&self) -> Config {
        Config::etcd([self.url()])
    }

    pub async fn store(&self) -> Arc<dyn Store> {
        connect(&self.config()).await.unwrap_or_else(|err| panic!("{err}\n{}", self.log()))
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let id = self.child.as_ref().expect("etcd runs").id();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(id).expect("pid"));
        nix::sys::signal::kill(pid, signal).expect("signal etcd");
    }

    /// Runs etcdctl against this server.
    pub fn ctl(&self, args: &[&str]) -> String {
        let out = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg("--endpoints")
            .arg(self.url())
            .args(args)
            .output()
            .expect("etcdctl must be installed");
        assert!(
            out.status.success(),
            "etcdctl {args:?}: {}\n{}",
            String::from_utf8_lossy(&out.stderr),
            self.log()
        );
        String::from_utf8(out.stdout).expect("etcdctl writes UTF-8")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A syncer and the state it has told so far.
pub struct Follower {
    pub syncer: Syncer,
    pub state: std::collections::BTreeMap<String, (Vec<u8>, i64)>,
    pub in_sync: u32,
    pub status: Vec<SyncStatus>,
    /// Every update, as (key, is there, revision).
    pub updates: Vec<(String, bool, i64)>,
}

impl Follower {
    pub fn start(store: Arc<dyn Store>, prefixes: &[&str]) -> Follower {
        Follower::start_with(store, prefixes, SyncOptions::default())
    }

    pub fn start_with(store: Arc<dyn Store>, prefixes: &[&str], options: SyncOptions) -> Follower {
        let prefixes = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
        Follower {
            syncer: Syncer::start_with(store, prefixes, options),
            state: std::collections::BTreeMap::new(),
            in_sync: 0,
            status: Vec::new(),
            updates: Vec::new(),
        }
    }

    /// Takes events until `done` says so; fails when that takes longer than `limit`.
    pub async fn until(&mut self, what: &str, limit: Duration, done: impl Fn(&Follower) -> bool) -> Duration {
        let start = Instant::now();
        while !done(self) {
            let left = limit.saturating_sub(start.elapsed());
            let Ok(batch) = tokio::time::timeout(left, self.syncer.next()).await else {
                panic!(
                    "not within {limit:?}: {what}; in sync {}, {} keys, status {:?}",
                    self.in_sync,
                    self.state.len(),
                    self.status
                );
            };
            assert!(!batch.is_empty(), "an empty batch");
            self.take(batch);
        }
        start.elapsed()
    }

    /// Takes whatever comes in `span`.
    pub async fn idle(&mut self, span: Duration) {
        let end = tokio::time::Instant::now() + span;
        while let Ok(batch) = tokio::time::timeout_at(end, self.syncer.next()).await {
            self.take(batch);
        }
    }

    pub async fn in_sync(&mut self) -> Duration {
        self.until("in sync", Duration::from_secs(10), |f| f.in_sync > 0).await
    }

    pub fn value(&self, key: &str) -> Option<&[u8]> {
        self.state.get(key).map(|(value, _)| value.as_slice())
    }

    pub fn lost(&self) -> bool {
        matches!(self.status.last(), Some(SyncStatus::Lost { .. }))
    }

    pub fn connected(&self) -> bool {
        matches!(self.status.last(), Some(SyncStatus::Connected))
    }

    fn take(&mut self, batch: Vec<SyncEvent>) {
        for event in batch {
            match event {
                SyncEvent::Update { key, value, rev } => {
                    self.updates.push((key.clone(), value.is_some(), rev));
                    match value {
                        Some(value) => {
                            self.state.insert(key, (value, rev));
                        }
                        None => {
                            self.state.remove(&key);
                        }
                    }
                }
                SyncEvent::InSync => self.in_sync += 1,
                SyncEvent::Status(status) => self.status.push(status),
            }
        }
    }
}
