//! What concerns a whole table at once: filters, a next hop, an aggregate; and questions about all of it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use integration::bench::sender;
use integration::lab::Lab;
use nix::sys::signal::Signal;

use super::{LATER, LOADER, SPEAKER, Stage, TAKER, yaml_with};

/// The next hop of all routes: behind the neighbour that tells them, so that it goes and returns with a kernel route.
const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const METRICS: u16 = 9179;
/// How long something is asked again and again, and how often.
const ASKING: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

/// A change of the configuration: what it is, filters, settings of the three neighbours, and what stands at the end.
type Change = (&'static str, &'static str, [&'static str; 3], &'static str);

const NONE: Change = ("no filter, no aggregate", "", ["", "", ""], "");
const CHANGES: [Change; 7] = [
    (
        "import filter rejects half",
        "  loads: { importV4: [{ action: Reject, cidr: 20.0.0.0/13 }] }\n",
        [", import: [loads]", "", ""],
        "",
    ),
    NONE,
    (
        "import filter adds a community",
        "  loads: { importV4: [{ action: Accept, operations: [{ addCommunity: '65000:1' }] }] }\n",
        [", import: [loads]", "", ""],
        "",
    ),
    NONE,
    (
        "export filter of one that takes adds a community",
        "  takes: { exportV4: [{ action: Accept, operations: [{ addCommunity: '65000:2' }] }] }\n",
        ["", ", export: [takes]", ""],
        "",
    ),
    ("an aggregate of everything", "", ["", "", ""], "aggregates: [{ prefix: 20.0.0.0/7 }]\n"),
    NONE,
];

pub(super) fn run(binary: &Path, routes: u32, bfd: bool) -> anyhow::Result<()> {
    let text = |lab: &Lab, (_, filters, more, end): &Change| -> anyhow::Result<String> {
        let socket = socket(lab);
        Ok(yaml_with(false, bfd, filters, *more)?
            + end
            + &format!("api: {{ socket: {} }}\nmetrics: '{SPEAKER}:{METRICS}'\n", socket.display()))
    };
    let mut stage = Stage::new(binary, |lab| text(lab, &NONE))?;
    stage.here.sh(&format!("ip route add {FAR}/32 via {}", LOADER.0))?;
    let mut loader = stage.session(LOADER)?;
    let taker = stage.session(TAKER)?;
    let later = stage.session(LATER)?;
    stage.ready(bfd)?;
    let announce = sender::announcements(&sender::prefixes(routes), LOADER.1, FAR, (routes / 6).max(1))?;
    stage.phase("all announced, two neighbours told", || loader.say(&announce).map(drop))?;
    for change in &CHANGES {
        std::fs::write(stage.lab.file("router.yaml"), text(&stage.lab, change)?)?;
        stage.bird.signal(Signal::SIGHUP);
        stage.phase(change.0, || Ok(()))?;
    }
    stage.phase("the next hop of all routes goes", || {
        stage.here.sh(&format!("ip route del {FAR}/32")).map(drop)
    })?;
    stage.phase("and returns", || {
        stage.here.sh(&format!("ip route add {FAR}/32 via {}", LOADER.0)).map(drop)
    })?;
    let ctl = |args: &[&str]| ask(binary, &stage, args);
    stage.phase("ctl bgp routes -o json of all", || ctl(&["routes", "-o", "json"]))?;
    stage.phase("ctl bgp peers, ten times a second", || again(|| ctl(&["peers"])))?;
    stage.phase("ctl bgp explain, ten times a second", || again(|| ctl(&["explain", "20.0.1.0/24"])))?;
    let dump = stage.lab.file("table.mrt");
    stage.phase("ctl bgp mrt dump", || ctl(&["mrt", "dump", &dump.to_string_lossy()]))?;
    stage.phase("metrics, ten times a second", || again(|| scrape(&stage)))?;
    stage.phase("one that takes goes", || {
        later.close();
        Ok(())
    })?;
    stage.phase("the loading session breaks", || {
        loader.close();
        Ok(())
    })?;
    taker.close();
    stage.end()
}

fn socket(lab: &Lab) -> PathBuf {
    lab.file("bgp.sock")
}

fn again(mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let end = Instant::now() + ASKING;
    while Instant::now() < end {
        work()?;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Asks with `ctl bgp`; the answer goes to a file, which nobody reads.
fn ask(binary: &Path, stage: &Stage, args: &[&str]) -> anyhow::Result<()> {
    let answer = File::create(stage.lab.file("answer"))?;
    let status = Command::new(binary)
        .args(["ctl", "bgp"])
        .args(args)
        .arg("--socket")
        .arg(socket(&stage.lab))
        .stdout(answer)
        .stdin(Stdio::null())
        .status()?;
    anyhow::ensure!(status.success(), "ctl bgp {} failed", args.join(" "));
    Ok(())
}

fn scrape(stage: &Stage) -> anyhow::Result<()> {
    let length = stage.there.run(|| -> anyhow::Result<usize> {
        let mut stream = TcpStream::connect(SocketAddr::from((SPEAKER, METRICS)))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut page = Vec::new();
        stream.read_to_end(&mut page)?;
        Ok(page.len())
    });
    anyhow::ensure!(length.context("metrics")? > 1000, "the page of metrics is short");
    Ok(())
}
