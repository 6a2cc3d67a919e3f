//! How late KEEPALIVEs and BFD packets are while the speaker works: fifty sessions with a hold time of 3 s that are told
//! nothing, one of them with BFD at 50 ms, beside one neighbour that tells 1,000,000 routes and two that take them.
//!
//! ```text
//!   bird 192.0.2.1 ---- veth ---- .2 loads, .3 takes, .4 takes later, .100 and the next 49 listen to the clock
//! ```
//!
//! Late is what an interval is longer than agreed (1 s; 50 ms), by the kernel's own time of arrival.
//!
//! `nice -n -20 cargo bench -p integration --bench lateness -- [ROUTES] [no-bfd] [loads]`, as root, with a release build.
//! `loads`: what concerns the whole table at once, and questions about it, without kernel routes.

mod loads;
mod probe;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use integration::bench::sender::{self, Sender};
use integration::bench::{cpu_seconds, machine, memory};
use integration::lab::{Lab, Namespace, Process};
use integration::picture::binary;
use probe::{Late, Probes};

const SPEAKER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const LOADER: (Ipv4Addr, u32) = (Ipv4Addr::new(192, 0, 2, 2), 65_001);
const TAKER: (Ipv4Addr, u32) = (Ipv4Addr::new(192, 0, 2, 3), 65_002);
const LATER: (Ipv4Addr, u32) = (Ipv4Addr::new(192, 0, 2, 4), 65_003);
const PROBES: u8 = 50;
/// Longer than the speaker's own audit of the kernel's routes takes to come round.
const REST: Duration = Duration::from_secs(40);
const LIMIT: Duration = Duration::from_mins(2);

fn main() -> anyhow::Result<()> {
    let routes = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(1_000_000);
    let said = |word: &str| std::env::args().any(|a| a == word);
    let bfd = !said("no-bfd");
    let binary = binary()?;
    println!("\n{}\nbinary: {}\n", machine(), binary.display());
    println!(
        "| {routes} routes | s | CPU s | KEEPALIVEs | late p99, ms | worst, ms | BFD packets | late p99, ms | worst, ms |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    if said("loads") {
        return loads::run(&binary, routes, bfd);
    }
    for fib in [false, true] {
        run(&binary, routes, fib, bfd)?;
    }
    Ok(())
}

/// The speaker with its neighbours' addresses, and the neighbours that listen to the clock.
struct Stage {
    bird: Process,
    here: Namespace,
    there: Namespace,
    probes: Option<Probes>,
    pid: i32,
    lab: Lab,
}

impl Stage {
    fn new(binary: &Path, config: impl FnOnce(&Lab) -> anyhow::Result<String>) -> anyhow::Result<Stage> {
        let mut lab = Lab::new("blat")?;
        let (here, there) = (lab.host("bird")?, lab.host("peers")?);
        here.wire("up0", &there, "up0", None)?;
        here.address("up0", "192.0.2.1/24".parse()?)?;
        for (address, _) in [LOADER, TAKER, LATER] {
            there.address("up0", format!("{address}/24").parse()?)?;
        }
        for probe in 0..PROBES {
            there.address("up0", format!("{}/24", probe::address(probe)).parse()?)?;
        }
        let file = lab.file("router.yaml");
        std::fs::write(&file, config(&lab)?)?;
        let argv = [&*binary.to_string_lossy(), "bird", "--config", &file.to_string_lossy()];
        let mut bird = Process::new("bird", &here, lab.dir(), &argv)
            .env("CARACAL_RUN_DIR", &lab.file("run").to_string_lossy());
        bird.start()?;
        let pid = bird.pid().context("bird has ended")?;
        Ok(Stage { bird, here, there, probes: None, pid, lab })
    }

    /// A session of a neighbour that tells or takes routes.
    fn session(&self, (address, asn): (Ipv4Addr, u32)) -> anyhow::Result<Sender> {
        let speaker = SocketAddr::from((SPEAKER, 179));
        Sender::connect_from(&self.there, address, speaker, asn).with_context(|| self.lab.logs(20))
    }

    /// From here on lateness counts.
    fn ready(&mut self, bfd: bool) -> anyhow::Result<()> {
        self.probes = Some(Probes::start(&self.there, SPEAKER, PROBES, bfd));
        std::thread::sleep(Duration::from_secs(4));
        self.heard().map(drop)
    }

    /// What the probes heard since the last call.
    fn heard(&self) -> anyhow::Result<Late> {
        self.probes.as_ref().context("nobody listens to the clock yet")?.take()
    }

    /// Does something, waits until the speaker has done what follows from it, and shows how late it was meanwhile.
    fn phase(&self, what: &str, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let (start, before) = (Instant::now(), cpu_seconds(self.pid));
        work()?;
        settle(self.pid)?;
        let took = start.elapsed().saturating_sub(QUIET).as_secs_f64();
        row(what, took, cpu_seconds(self.pid) - before, &self.heard()?);
        Ok(())
    }

    fn end(mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.bird.pid().is_some(), "bird has ended: {}", self.lab.logs(20));
        self.probes.map_or(Ok(()), Probes::stop)
    }
}

fn run(binary: &Path, routes: u32, fib: bool, bfd: bool) -> anyhow::Result<()> {
    let mut stage = Stage::new(binary, |_| yaml(fib, bfd))?;
    let mut loader = stage.session(LOADER)?;
    let taker = stage.session(TAKER)?;
    stage.ready(bfd)?;
    let kernel = if fib { "kernel routes too" } else { "no kernel routes" };
    let prefixes = sender::prefixes(routes);
    let phase = |what: &str, work: &mut dyn FnMut() -> anyhow::Result<()>| {
        stage.phase(&format!("{what}, {kernel}"), work)
    };
    phase("idle", &mut || {
        std::thread::sleep(Duration::from_secs(5));
        Ok(())
    })?;
    let announce = sender::announcements(&prefixes, LOADER.1, LOADER.0, (routes / 6).max(1))?;
    phase("all announced, one neighbour told", &mut || loader.say(&announce).map(drop))?;
    let mut later = None;
    phase("another neighbour comes and is told all", &mut || {
        later = Some(stage.session(LATER)?);
        Ok(())
    })?;
    phase(&format!("{:.0} MiB at rest for 40 s", memory(stage.pid, "Rss")), &mut || {
        std::thread::sleep(REST);
        Ok(())
    })?;
    let withdraw = sender::withdrawals(&prefixes)?;
    phase("all withdrawn", &mut || loader.say(&withdraw).map(drop))?;
    phase("all announced again", &mut || loader.say(&announce).map(drop))?;
    let mut loader = Some(loader);
    phase("the loading session breaks", &mut || {
        if let Some(session) = loader.take() {
            session.close();
        }
        Ok(())
    })?;
    taker.close();
    if let Some(session) = later {
        session.close();
    }
    stage.end()
}

fn yaml(fib: bool, bfd: bool) -> anyhow::Result<String> {
    yaml_with(fib, bfd, "", ["", "", ""])
}

/// With more filters, and with more settings of the loading neighbour and the two that take.
fn yaml_with(fib: bool, bfd: bool, filters: &str, more: [&str; 3]) -> anyhow::Result<String> {
    let neighbour = |((address, asn), more): ((Ipv4Addr, u32), &str)| {
        format!(
            "  - {{ address: {address}, asNumber: {asn}, passive: true, gracefulRestart: {{ enabled: false }}{more} }}\n"
        )
    };
    let mut text = format!(
        "routerId: {SPEAKER}\nasNumber: 64512\nlisten: ['{SPEAKER}:179']\nfib: {{ program: {fib} }}\n\
         filters:\n  nothing: {{ exportV4: [{{ action: Reject }}] }}\n{filters}\
         groups:\n  probes: {{ asNumber: {}, passive: true, holdTime: 3, keepalive: 1, export: [nothing] }}\n\
         neighbours:\n",
        probe::ASN
    );
    for neighbour in [LOADER, TAKER, LATER].into_iter().zip(more).map(neighbour) {
        text += &neighbour;
    }
    for at in 0..PROBES {
        let bfd = if bfd && at == 0 {
            let ms = probe::BFD.as_millis();
            format!(", bfd: {{ minTx: {ms}ms, minRx: {ms}ms, multiplier: 3 }}")
        } else {
            String::new()
        };
        writeln!(text, "  - {{ address: {}, group: probes{bfd} }}", probe::address(at))?;
    }
    Ok(text)
}

/// A process that uses little for this long has done its work.
const QUIET: Duration = Duration::from_millis(1500);

/// Waits until the speaker has done what it was given; keeping sessions alive costs it a few hundredths of a core.
fn settle(pid: i32) -> anyhow::Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let before = cpu_seconds(pid);
        std::thread::sleep(QUIET);
        if cpu_seconds(pid) - before < 0.15 {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "the speaker is still busy after two minutes");
    }
}

fn row(what: &str, took: f64, cpu: f64, late: &Late) {
    let figures = |times: &[Duration]| {
        let mut ms: Vec<f64> = times.iter().map(|t| t.as_secs_f64() * 1e3).collect();
        ms.sort_by(f64::total_cmp);
        let at = |percent: usize| ms.get((ms.len() * percent / 100).min(ms.len().saturating_sub(1)));
        let text = |ms: Option<&f64>| ms.map_or_else(|| "-".into(), |ms| format!("{ms:.1}"));
        format!("{} | {} | {}", ms.len(), text(at(99)), text(at(100)))
    };
    println!("| {what} | {took:.1} | {cpu:.2} | {} | {} |", figures(&late.keepalives), figures(&late.bfd));
    for why in &late.lost {
        println!("a session is lost: {why}");
    }
}
