//! Network namespaces with links, for tests that need a kernel: named after test and process, and removed with
//! everything that runs in them however the test ends.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types, reason = "a test")]
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bird_bfd::{Bfd, Change, Event, Options, SessionKey, Status};
use nix::sched::{CloneFlags, setns};

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Waits until `check` gives a value.
#[track_caller]
pub fn eventually<T>(what: &str, deadline: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(start.elapsed() < deadline, "not within {deadline:?}: {what}");
        std::thread::sleep(ms(10));
    }
}

/// Tests that measure time take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the test can run; without the tool it fails under CI and is left out elsewhere.
fn have(program: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    let found = program.starts_with('/') && std::path::Path::new(program).exists()
        || std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .any(|dir| dir.join(program).exists());
    let fine = root && found;
    assert!(fine || std::env::var_os("CI").is_none(), "needs root and {program}");
    if !fine {
        eprintln!("left out: needs root and {program}");
    }
    fine
}

pub struct Lab {
    name: String,
    spaces: Vec<String>,
    children: Vec<Child>,
    pub dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Lab {
    /// Namespaces `spaces`, if `programs` are there.
    pub fn new(test: &str, spaces: &[&str], programs: &[&str]) -> Option<Self> {
        let turn = turn();
        if !programs.iter().chain(&["ip", "nft"]).all(|program| have(program)) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let name = format!("bfd-{test}-{}", std::process::id());
        let mut lab = Self { name, spaces: Vec::new(), children: Vec::new(), dir, _turn: turn };
        for space in spaces {
            let full = lab.full(space);
            sh(&format!("ip netns add {full}"));
            lab.spaces.push(full);
            // One second of duplicate address detection is nobody's business here.
            lab.exec(space, "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0");
            lab.exec(space, "ip link set lo up");
        }
        Some(lab)
    }

    fn full(&self, space: &str) -> String {
        format!("{}-{space}", self.name)
    }

    /// A link `to-<b>` in `a`, `to-<a>` in `b`, with 10.<net>.0.1 and fd00:<net>::1 in `a`, 2 in `b`.
    pub fn link(&self, a: &str, b: &str, net: u8) {
        let (left, right) = (self.full(a), self.full(b));
        sh(&format!("ip -n {left} link add name to-{b} type veth peer name to-{a} netns {right}"));
        for (space, dev, host) in [(&left, b, 1), (&right, a, 2)] {
            sh(&format!("ip -n {space} addr add 10.{net}.0.{host}/24 dev to-{dev}"));
            sh(&format!("ip -n {space} addr add fd00:{net}::{host}/64 dev to-{dev} nodad"));
            sh(&format!("ip -n {space} link set to-{dev} up"));
        }
    }

    /// Runs a command line in a namespace; its standard output.
    #[track_caller]
    pub fn exec(&self, space: &str, line: &str) -> String {
        sh(&format!("ip netns exec {} {line}", self.full(space)))
    }

    /// As [`Lab::exec`], for a question that may be asked too early.
    pub fn ask(&self, space: &str, line: &str) -> String {
        let line = format!("ip netns exec {} {line}", self.full(space));
        let output = Command::new("sh").args(["-c", &line]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts a program that runs until the lab ends.
    pub fn start(&mut self, space: &str, line: &str) {
        let line = format!("exec ip netns exec {} {line}", self.full(space));
        let log = File::create(self.dir.path().join(format!("log{}", self.children.len()))).unwrap();
        let child = Command::new("sh")
            .args(["-c", &line])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.children.push(child);
    }

    /// Ends the programs that were started.
    pub fn kill(&mut self) {
        for mut child in self.children.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Runs `work` on a thread in the namespace.
    pub fn inside<T: Send>(&self, space: &str, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.full(space));
        std::thread::scope(|scope| {
            let run = || {
                setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
                work()
            };
            scope.spawn(run).join().unwrap()
        })
    }

    /// BFD in a namespace.
    pub fn bfd(&self, space: &str, options: Options) -> Watched {
        let rings = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&rings);
        let note = move || noted.lock().unwrap().push(Instant::now());
        let bfd = self.inside(space, || Bfd::start(options, note).unwrap());
        Watched { bfd, rings }
    }

    /// Drops every BFD packet that arrives in the namespace. When this began, and when it was done.
    pub fn cut(&self, space: &str) -> (Instant, Instant) {
        let file = self.dir.path().join("cut.nft");
        let rules = "table inet cut { chain in { type filter hook input priority 0; \
                     udp dport { 3784, 4784 } drop; }; }";
        std::fs::write(&file, rules).unwrap();
        let before = Instant::now();
        self.exec(space, &format!("nft -f {}", file.display()));
        (before, Instant::now())
    }

    pub fn mend(&self, space: &str) {
        self.exec(space, "nft delete table inet cut");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for n in 0..self.children.len() {
                let log =
                    std::fs::read_to_string(self.dir.path().join(format!("log{n}"))).unwrap_or_default();
                eprintln!("--- log of program {n}\n{log}");
            }
        }
        self.kill();
        for space in &self.spaces {
            let _ = Command::new("ip").args(["netns", "del", space]).status();
        }
    }
}

/// The thread, and when it had news.
pub struct Watched {
    pub bfd: Bfd,
    rings: Arc<Mutex<Vec<Instant>>>,
}

impl Watched {
    /// The next events, and when the thread reported the last of them.
    #[track_caller]
    pub fn events(&self, deadline: Duration) -> (Vec<Event>, Instant) {
        eventually("an event", deadline, || {
            let events = self.bfd.events();
            let last = *self.rings.lock().unwrap().last()?;
            (!events.is_empty()).then_some((events, last))
        })
    }

    /// Waits for Up of this session, and says when.
    #[track_caller]
    pub fn up(&self, key: SessionKey, deadline: Duration) -> Instant {
        let (events, at) = self.events(deadline);
        assert_eq!(events, [Event { key, change: Change::Up }]);
        at
    }

    pub fn status(&self, key: SessionKey) -> Status {
        let report = self.bfd.report(ms(2_000)).unwrap();
        report.sessions.into_iter().find(|(status, _)| status.key == key).unwrap().0
    }
}

#[track_caller]
pub fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
