//! Benches: each prints a table and can be run again; none of them is a test.
//!
//! What is measured is seen from outside: from a write to the datastore, a start or an UPDATE on the wire to a
//! notification of the kernel or a route in its table. Where a figure depends on the machine, the floor is measured in
//! the same run: the same links by `ip -batch`, the same routes by raw netlink.
//!
//! Start at `src/bin/bench.rs`; [`bulk`] makes many endpoints, [`sender`] is a BGP neighbour that only talks.

pub mod bulk;
pub mod endpoints;
pub mod footprint;
pub mod learn;
pub mod sender;
pub mod start;

use std::time::{Duration, Instant};

/// Rows of a table, printed as they come.
#[derive(Debug, Default)]
pub struct Table {
    started: bool,
}

impl Table {
    /// Prints one row: what was measured, all values in milliseconds, and a remark.
    pub fn times(&mut self, what: &str, values: &[Duration], remark: &str) {
        let mut sorted: Vec<f64> = values.iter().map(|v| v.as_secs_f64() * 1000.0).collect();
        sorted.sort_by(f64::total_cmp);
        let at =
            |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)));
        let text = |value: Option<&f64>| value.map_or_else(|| "-".into(), |v| format!("{v:.1}"));
        self.line(what, "ms", &text(at(50)), &text(at(99)), sorted.len(), remark);
    }

    /// Prints one row with a single value.
    pub fn value(&mut self, what: &str, unit: &str, value: f64, remark: &str) {
        self.line(what, unit, &format!("{value:.2}"), "", 1, remark);
    }

    fn line(&mut self, what: &str, unit: &str, p50: &str, p99: &str, n: usize, remark: &str) {
        if !std::mem::replace(&mut self.started, true) {
            println!("\n| what | unit | p50 | p99 | n | remark |\n|---|---|--:|--:|--:|---|");
        }
        println!("| {what} | {unit} | {p50} | {p99} | {n} | {remark} |");
    }
}

/// One line about this machine and what else it is doing.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("unknown CPU").to_owned();
    let load = read("/proc/loadavg").split_whitespace().next().unwrap_or("?").to_owned();
    format!(
        "machine: {} x {model}, Linux {}, load average {load} at the start",
        std::thread::available_parallelism().map_or(0, usize::from),
        read("/proc/sys/kernel/osrelease").trim()
    )
}

/// User and system seconds that a process has used.
pub fn cpu_seconds(pid: i32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    // USER_HZ is 100 on every Linux that we run on.
    (ticks(11) + ticks(12)) / 100.0
}

/// A line of `/proc/<pid>/smaps_rollup` in MiB, such as `Rss`, `Pss`, `Anonymous`.
pub fn memory(pid: i32, what: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(&format!("{what}:")));
    line.and_then(|l| l.split_whitespace().nth(1)).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// Waits until the process uses under 4 % of a core for a second, at most `limit`; how long that took.
pub fn settle(pid: i32, limit: Duration) -> Duration {
    let start = Instant::now();
    while start.elapsed() < limit {
        let before = cpu_seconds(pid);
        std::thread::sleep(Duration::from_secs(1));
        if cpu_seconds(pid) - before < 0.04 {
            break;
        }
    }
    start.elapsed()
}
