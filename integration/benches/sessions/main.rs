//! A whole mesh at start: `caracal bird --config` with 1,000 internal peers, from the start of the process until every
//! session is Established, every peer has heard End-of-RIB, and every route is where it belongs.
//!
//! ```text
//!   bird 10.251.0.1 ---- veth ---- 10.251.0.2, and 10.250.0.1 and the next 999: one program that is all the peers
//! ```
//!
//! A mesh member has all routes in its kernel and passes none on; a reflector tells every client all others' routes.
//!
//! `cargo bench -p integration --bench sessions -- [PEERS]`, as root, with a release build of the binary.

mod crowd;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crowd::{ASN, Calls, Crowd, Seen, address};
use integration::bench::{cpu_seconds, learn, machine};
use integration::lab::{Lab, Namespace, Process};
use integration::picture::binary;

const SPEAKER: Ipv4Addr = Ipv4Addr::new(10, 251, 0, 1);
const LIMIT: Duration = Duration::from_mins(1);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Mesh,
    Reflector,
}

fn main() -> anyhow::Result<()> {
    let peers = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(1000);
    let binary = binary()?;
    println!("\n{}\nbinary: {}\n", machine(), binary.display());
    println!(
        "| {peers} internal peers | Established, s | End-of-RIB, s | all routes, s | CPU, s | peak MiB |"
    );
    println!("|---|--:|--:|--:|--:|--:|");
    run(&binary, peers, Role::Mesh, Calls::TheyAreCalled)?;
    run(&binary, peers, Role::Mesh, Calls::TheyCall)?;
    run(&binary, peers, Role::Mesh, Calls::Both)?;
    run(&binary, peers, Role::Reflector, Calls::TheyCall)
}

fn run(binary: &Path, peers: usize, role: Role, calls: Calls) -> anyhow::Result<()> {
    let mut lab = Lab::new("bses")?;
    let (here, there) = (lab.host("bird")?, lab.host("peers")?);
    here.wire("up0", &there, "up0", None)?;
    here.address("up0", "10.251.0.1/24".parse()?)?;
    there.address("up0", "10.251.0.2/24".parse()?)?;
    // One neighbour for the kernel, whose table of neighbours is one for all namespaces.
    here.sh("ip route add 10.250.0.0/16 via 10.251.0.2")?;
    there.sh("ip route add local 10.250.0.0/16 dev lo")?;

    let file = lab.file("router.yaml");
    std::fs::write(&file, yaml(peers, role, calls)?)?;
    let argv = [&*binary.to_string_lossy(), "bird", "--config", &file.to_string_lossy()];
    let mut bird = Process::new("bird", &here, lab.dir(), &argv)
        .env("CARACAL_RUN_DIR", &lab.file("run").to_string_lossy());
    let told = if role == Role::Reflector { peers - 1 } else { 0 };
    let crowd = Crowd::start(&there, peers, SocketAddr::from((SPEAKER, 179)), calls, told)?;
    let base = learn::routes(&here)?;
    let kernel = if role == Role::Mesh { base + u64::try_from(peers)? } else { base };

    let what = match (role, calls) {
        (Role::Mesh, Calls::TheyAreCalled) => "mesh member, calls",
        (Role::Mesh, Calls::TheyCall) => "mesh member, is called",
        (Role::Mesh, Calls::Both) => "mesh member, both call",
        (Role::Reflector, _) => "reflector of all others' routes, is called",
    };
    for again in [false, true] {
        if again {
            bird.kill();
            wait(&crowd, &here, |seen, _| seen.established == 0).context("sessions end")?;
        }
        let start = Instant::now();
        bird.start()?;
        let since = |wait: anyhow::Result<Instant>| {
            wait.map(|at| at.saturating_duration_since(start).as_secs_f64()).with_context(|| lab.logs(20))
        };
        let established = since(wait(&crowd, &here, |seen, _| seen.established == peers))?;
        let end_of_rib = since(wait(&crowd, &here, |seen, _| seen.end_of_rib == peers))?;
        let all = since(wait(&crowd, &here, |seen, routes| seen.complete == peers && routes == kernel))?;
        let pid = bird.pid().context("bird has ended")?;
        println!(
            "| {what}{} | {established:.2} | {end_of_rib:.2} | {all:.2} | {:.2} | {:.1} |",
            if again { ": kill -9 and start" } else { "" },
            cpu_seconds(pid),
            peak(pid)
        );
    }
    crowd.stop()
}

fn yaml(peers: usize, role: Role, calls: Calls) -> anyhow::Result<String> {
    let (client, fib) = (role == Role::Reflector, role == Role::Mesh);
    let passive = calls == Calls::TheyCall;
    let mut text = format!(
        "routerId: {SPEAKER}\nasNumber: {ASN}\nlisten: ['{SPEAKER}:179']\nfib: {{ program: {fib} }}\n\
         groups:\n  all: {{ asNumber: {ASN}, routeReflectorClient: {client}, passive: {passive}, holdTime: 90 }}\n\
         neighbours:\n"
    );
    for peer in 0..peers {
        writeln!(text, "  - {{ address: {}, group: all, sourceAddress: {SPEAKER} }}", address(peer))?;
    }
    Ok(text)
}

/// Waits until the peers and the kernel's count of routes are so.
fn wait(crowd: &Crowd, space: &Namespace, so: impl Fn(Seen, u64) -> bool) -> anyhow::Result<Instant> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let (seen, routes) = (crowd.seen()?, learn::routes(space)?);
        if so(seen, routes) {
            return Ok(Instant::now());
        }
        anyhow::ensure!(Instant::now() < deadline, "after a minute: {seen:?}, {routes} routes in the kernel");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The most memory that a process ever had resident, in MiB.
fn peak(pid: i32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}
