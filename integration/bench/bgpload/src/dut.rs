//! The device under test: adapter templates, network namespaces, launch, and
//! what /proc says about it.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Error};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Built-in adapters. See README.md for the template language.
const ADAPTERS: &[(&str, &str)] = &[
    ("bird2", include_str!("../adapters/bird2.tmpl")),
    ("caracal", include_str!("../adapters/caracal.tmpl")),
    ("frr", include_str!("../adapters/frr.tmpl")),
    ("gobgpd", include_str!("../adapters/gobgpd.tmpl")),
    ("openbgpd", include_str!("../adapters/openbgpd.tmpl")),
    ("rustybgp", include_str!("../adapters/rustybgp.tmpl")),
    ("null", include_str!("../adapters/null.tmpl")),
];

/// Template text of a built-in adapter, or of the file `name`.
pub fn template(name: &str) -> io::Result<String> {
    match ADAPTERS.iter().find(|a| a.0 == name) {
        Some(a) => Ok(a.1.to_string()),
        None => fs::read_to_string(name).map_err(|e| Error::other(format!("adapter {name}: {e}"))),
    }
}

pub type Vars = HashMap<String, String>;

/// What a template is rendered with: flags for `@if`, variables for `{name}`,
/// and one variable set per neighbor for `@each`.
#[derive(Default)]
pub struct Context {
    pub flags: HashSet<String>,
    pub vars: Vars,
    pub neighbors: Vec<Vars>,
}

fn substitute(line: &str, scopes: &[&Vars]) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        let value = rest.find('}').and_then(|close| {
            let value = scopes.iter().find_map(|s| s.get(&rest[1..close]))?;
            Some((value, close))
        });
        if let Some((value, close)) = value {
            out.push_str(value);
            rest = &rest[close + 1..];
        } else {
            out.push('{');
            rest = &rest[1..];
        }
    }
    out + rest
}

fn render(lines: &[&str], cx: &Context, neighbor: Option<&Vars>, out: &mut Vec<String>) {
    let mut i = 0;
    while i < lines.len() {
        let line = lines[i].trim();
        if !line.starts_with("@if ") && line != "@each" {
            let scopes: Vec<&Vars> = neighbor.into_iter().chain([&cx.vars]).collect();
            out.push(substitute(lines[i], &scopes));
            i += 1;
            continue;
        }
        let (mut depth, mut end, mut middle) = (1, i + 1, None);
        while end < lines.len() {
            match lines[end].trim() {
                l if l.starts_with("@if ") || l == "@each" => depth += 1,
                "@else" if depth == 1 => middle = Some(end),
                "@end" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            end += 1;
        }
        let body = &lines[i + 1..middle.unwrap_or(end)];
        let other = middle.map_or(&[][..], |m| &lines[m + 1..end]);
        if line == "@each" {
            cx.neighbors.iter().for_each(|n| render(body, cx, Some(n), out));
        } else {
            let flag = line[4..].trim();
            let (negate, flag) = flag.strip_prefix('!').map_or((false, flag), |f| (true, f));
            let set = cx.flags.contains(flag) || neighbor.is_some_and(|n| n["role"] == flag);
            render(if set != negate { body } else { other }, cx, neighbor, out);
        }
        i = end + 1;
    }
}

/// A pair of namespaces, `bm-gen-<pid>` and `bm-dut-<pid>`, joined by a veth.
pub struct Net {
    pub dut: String,
    pub gen: String,
}

fn sh(command: &str) -> io::Result<()> {
    match Command::new("sh").args(["-c", command]).status()?.success() {
        true => Ok(()),
        false => Err(Error::other(format!("failed: {command}"))),
    }
}

pub fn enter(netns: &str) -> io::Result<()> {
    let f = fs::File::open(format!("/run/netns/{netns}"))?;
    // SAFETY: a plain syscall on a descriptor owned by `f`.
    match unsafe { libc::setns(f.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

impl Net {
    /// The DUT side holds `dut`, the generator side every one of `ours`, all
    /// as 198.18.0.0/15 (the benchmarking range).
    pub fn new(dut_ip: &str, ours: &[String], ours6: &[String]) -> io::Result<Net> {
        let id = std::process::id();
        let net = Net { dut: format!("bm-dut-{id}"), gen: format!("bm-gen-{id}") };
        let (d, g) = (&net.dut, &net.gen);
        sh(&format!(
            "ip netns add {d} && ip netns add {g} && \
             ip link add bmv0 netns {g} type veth peer name bmv0 netns {d} && \
             ip netns exec {d} sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 && \
             ip netns exec {g} sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 && \
             ip -n {d} link set lo up && ip -n {g} link set lo up && \
             ip -n {d} addr add {dut_ip}/15 dev bmv0 && ip -n {d} addr add 2001:db8::1/64 nodad dev bmv0 && \
             ip -n {d} link set bmv0 up && ip -n {g} link set bmv0 up"
        ))?;
        let mut batch = String::new();
        ours.iter().for_each(|ip| batch += &format!("addr add {ip}/15 dev bmv0\n"));
        ours6.iter().for_each(|ip| batch += &format!("addr add {ip}/64 dev bmv0 nodad\n"));
        let file = std::env::temp_dir().join(format!("bm-addr-{id}"));
        fs::write(&file, batch)?;
        let r = sh(&format!("ip -n {g} -batch {}", file.display()));
        fs::remove_file(&file)?;
        r.map(|()| net)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = sh(&format!("ip netns del {}; ip netns del {}", self.gen, self.dut));
    }
}

/// Cumulative resource use of all processes of the DUT.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    pub cpu_s: f64,
    pub rss_peak_kb: u64,
    pub processes: usize,
}

pub struct Dut {
    pub version: String,
    children: Vec<Child>,
    netns_inode: u64,
    dir: PathBuf,
}

impl Dut {
    /// Render `text`, write its files under a fresh directory, and run its
    /// commands inside the DUT namespace.
    pub fn launch(text: &str, cx: &mut Context, net: &Net) -> io::Result<Dut> {
        let dir = std::env::temp_dir().join(&net.dut);
        fs::create_dir_all(&dir)?;
        // Some speakers drop privileges and still write here.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777))?;
        cx.vars.insert("dir".into(), dir.display().to_string());
        let exe = std::env::current_exe()?.display().to_string();
        cx.vars.insert("self".into(), exe);
        let mut lines = Vec::new();
        render(&text.lines().collect::<Vec<_>>(), cx, None, &mut lines);
        let mut files: Vec<(String, String)> = Vec::new();
        let mut steps = Vec::new();
        for line in lines {
            if let Some(name) = line.strip_prefix("@file ") {
                files.push((name.trim().into(), String::new()));
            } else if let Some((_, text)) = files.last_mut() {
                text.push_str(&line);
                text.push('\n');
            } else if line.starts_with('@') {
                steps.push(line);
            }
        }
        for (name, text) in files {
            fs::write(dir.join(name), text)?;
        }
        let netns_inode = fs::metadata(format!("/run/netns/{}", net.dut))?.ino();
        let mut dut = Dut { version: String::new(), children: Vec::new(), netns_inode, dir };
        for step in steps {
            match step.split_once(' ').unwrap_or((&step, "")) {
                ("@cmd", c) => dut.spawn(c, &net.dut)?,
                ("@wait", path) => {
                    let deadline = Instant::now() + Duration::from_secs(10);
                    while !Path::new(path).exists() && Instant::now() < deadline {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                }
                ("@version", c) => {
                    let o = Command::new("sh").args(["-c", &format!("{c} 2>&1 | head -1")]).output()?;
                    dut.version = String::from_utf8_lossy(&o.stdout).trim().to_string();
                }
                ("@prepare", c) => sh(c)?,
                ("@unsupported", why) => return Err(Error::other(format!("unsupported: {why}"))),
                _ => return Err(Error::other(format!("adapter: unknown directive {step}"))),
            }
        }
        Ok(dut)
    }

    fn spawn(&mut self, command: &str, netns: &str) -> io::Result<()> {
        let log = fs::File::create(self.dir.join(format!("cmd{}.log", self.children.len())))?;
        let mut c = Command::new("sh");
        c.args(["-c", &format!("exec {command}")]).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        c.current_dir(&self.dir);
        let netns = netns.to_string();
        let inside = move || {
            // SAFETY: a plain syscall; the DUT must not outlive the harness.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            enter(&netns)
        };
        // SAFETY: between fork and exec only open, setns and prctl are used
        // and no other thread exists yet.
        unsafe { c.pre_exec(inside) };
        self.children.push(c.spawn()?);
        Ok(())
    }

    /// Every process whose network namespace is the DUT's.
    fn pids(&self) -> Vec<i32> {
        let procs = fs::read_dir("/proc").into_iter().flatten().flatten();
        procs
            .filter_map(|e| e.file_name().to_str()?.parse().ok())
            .filter(|pid: &i32| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|m| m.ino() == self.netns_inode))
            .collect()
    }

    pub fn usage(&self) -> Usage {
        let mut u = Usage::default();
        for pid in self.pids() {
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let fields: Vec<u64> =
                stat.rsplit(") ").next().unwrap_or("").split(' ').map(|f| f.parse().unwrap_or(0)).collect();
            // utime, stime and those of reaped children, in 1/100 s.
            u.cpu_s += fields.get(11..15).map_or(0, |f| f.iter().sum::<u64>()) as f64 / 100.0;
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let hwm = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
            u.rss_peak_kb += hwm.and_then(|v| v.split_whitespace().next()?.parse().ok()).unwrap_or(0);
            u.processes += 1;
        }
        u
    }

    /// Routes in the main table of the DUT namespace.
    pub fn fib_count(&self, v6: bool) -> Option<i64> {
        self.fib_counter(v6)()
    }

    /// A counter usable from another thread. Cheap: the kernel walks the trie
    /// and formats one number, no dump crosses to user space.
    pub fn fib_counter(&self, v6: bool) -> impl Fn() -> Option<i64> {
        let net = format!("/proc/{}/net", self.children.first().map_or(0, Child::id));
        move || {
            if v6 {
                let s = fs::read_to_string(format!("{net}/rt6_stats")).ok()?;
                return i64::from_str_radix(s.split_whitespace().nth(3)?, 16).ok();
            }
            let s = fs::read_to_string(format!("{net}/fib_triestat")).ok()?;
            let main = s.split("Main:").nth(1)?;
            main.lines().find_map(|l| l.trim().strip_prefix("Prefixes:"))?.trim().parse().ok()
        }
    }

    /// Fail with the log tail when a process we launched has exited.
    pub fn check(&mut self) -> io::Result<()> {
        for (i, c) in self.children.iter_mut().enumerate() {
            if let Some(status) = c.try_wait()? {
                let log = fs::read_to_string(self.dir.join(format!("cmd{i}.log"))).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(5).collect();
                return Err(Error::other(format!("speaker process {i} exited ({status}): {tail:?}")));
            }
        }
        Ok(())
    }
}

impl Drop for Dut {
    fn drop(&mut self) {
        for (signal, patience) in [(libc::SIGTERM, 2000), (libc::SIGKILL, 2000)] {
            // SAFETY: signals go only to processes inside our own namespace.
            self.pids().iter().for_each(|pid| unsafe { _ = libc::kill(*pid, signal) });
            let deadline = Instant::now() + Duration::from_millis(patience);
            while Instant::now() < deadline && !self.pids().is_empty() {
                self.children.iter_mut().for_each(|c| _ = c.try_wait());
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self.children.iter_mut().for_each(|c| _ = c.wait());
        if std::env::var_os("BM_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Busy CPU seconds of the whole machine so far.
pub fn machine_busy_s() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let f: Vec<u64> =
        stat.lines().next().unwrap_or("").split_whitespace().skip(1).map(|v| v.parse().unwrap_or(0)).collect();
    // user, nice, system, irq, softirq; not idle, iowait, steal.
    [0, 1, 2, 5, 6].iter().map(|i| f.get(*i).copied().unwrap_or(0)).sum::<u64>() as f64 / 100.0
}

/// CPU seconds of this process so far.
pub fn self_cpu_s() -> f64 {
    // SAFETY: `usage` is a plain C struct that getrusage fills in.
    let u = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let s = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    s(u.ru_utime) + s(u.ru_stime)
}
