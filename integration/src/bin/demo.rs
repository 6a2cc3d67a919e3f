//! The demo: three nodes, a router, one workload on each node; what their route tables hold, who reaches whom,
//! and what happens when a node dies and comes back. One page, on this machine, without leaving a trace.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use integration::lab::{Namespace, Stream, eventually, show_routes};
use integration::picture::{NODES, Options, PODS, Picture, ROUTER, binary};
use integration::router::RouterKind;
use integration::sandbox;
use integration::seed::Workload;
use integration::store::StoreKind;

const USAGE: &str = "\
usage: integration/demo [--datastore embedded|etcd] [--router caracal|bird|frr] [--keep]

Builds three nodes and a router out of network namespaces, shows their routes and packets, and ends by itself.
  --datastore  where the objects live: a file (embedded, the default) or a real etcd
  --router     the physical router: caracal itself (the default), BIRD 2 or FRR
  --keep       stays up at the end and says how to look around; Enter ends it
Needs nothing but the kernel; as an ordinary user where user namespaces are allowed, else as root.
";

struct Arguments {
    store: StoreKind,
    router: RouterKind,
    keep: bool,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(err) => {
            eprint!("demo: {err}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("\ndemo: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> anyhow::Result<Option<Arguments>> {
    let mut parsed = Arguments { store: StoreKind::Embedded, router: RouterKind::Caracal, keep: false };
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--keep" => parsed.keep = true,
            "--datastore" => {
                parsed.store = match value()?.as_str() {
                    "embedded" => StoreKind::Embedded,
                    "etcd" => StoreKind::Etcd,
                    other => bail!("--datastore {other}: not one of embedded, etcd"),
                }
            }
            "--router" => {
                parsed.router = match value()?.as_str() {
                    "caracal" => RouterKind::Caracal,
                    "bird" => RouterKind::Bird,
                    "frr" => RouterKind::Frr,
                    other => bail!("--router {other}: not one of caracal, bird, frr"),
                }
            }
            "--help" | "-h" => return Ok(None),
            other => bail!("{other}: unknown argument"),
        }
    }
    Ok(Some(parsed))
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    need_programs(arguments)?;
    let root = nix::unistd::geteuid().is_root();
    if !root {
        sandbox::enter()?;
    }
    println!("{}", include_str!("demo.txt"));
    let options =
        Options { store: arguments.store, router: arguments.router, split: false, binary: binary()? };

    progress("hosts, wires, datastore, router");
    let mut picture = Picture::new("demo", &options)?;
    done("3 nodes, 3 workloads, 1 router, as network namespaces");
    progress("objects into the datastore");
    seed(&picture)?;
    done("pool, peer, nodes, blocks, workload endpoints: Calico's keys and JSON");
    progress("agents: one `caracal node` on each node");
    let start = Instant::now();
    picture.start_agents()?;
    picture.converged(Duration::from_secs(30))?;
    done(&format!("all routes on every node and on the router after {:.2} s", start.elapsed().as_secs_f64()));

    tables(&picture)?;
    reachability(&picture)?;
    restart(&mut picture)?;
    loss_and_return(&mut picture)?;

    if arguments.keep {
        keep(&picture, root);
    }
    println!("\nEverything is removed again. Next: README.md, or `integration/demo --keep` to look around.");
    Ok(())
}

/// The picture's objects, and the peering with the router narrowed to each node's own blocks.
///
/// Without the annotation every node tells the router about every block, as Calico's nodes do, and the router may send
/// everything through one of them.
fn seed(picture: &Picture) -> anyhow::Result<()> {
    let mut items = picture.cluster_items();
    for (_, value) in items.iter_mut().filter(|(key, _)| key.ends_with("/bgppeers/tor")) {
        value["metadata"]["annotations"] = serde_json::json!({ "caracal.io/export": "own" });
    }
    items.extend(picture.workloads().iter().map(Workload::endpoint));
    picture.store.put(&items)
}

/// What `--datastore` and `--router` ask for must be installed; says which package has it.
fn need_programs(arguments: &Arguments) -> anyhow::Result<()> {
    let mut need = Vec::new();
    if arguments.store == StoreKind::Etcd {
        need.extend([("etcd", "etcd-server"), ("etcdctl", "etcd-client")]);
    }
    match arguments.router {
        RouterKind::Caracal => {}
        RouterKind::Bird => need.push(("bird", "bird2")),
        RouterKind::Frr => need.push(("/usr/lib/frr/bgpd", "frr")),
    }
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    for (program, package) in need {
        if !path.split(':').any(|dir| Path::new(dir).join(program).is_file()) {
            bail!("{program} is not installed (Debian: apt-get install {package})");
        }
    }
    Ok(())
}

fn tables(picture: &Picture) -> anyhow::Result<()> {
    heading("Routes", "what `ip route` shows on each host; nothing was configured by hand");
    for node in &picture.nodes {
        println!("{} {}, block {}", node.name, node.address, node.block);
        print_routes(&node.space, |line| {
            if line.starts_with("blackhole") {
                "own block: announced by BGP; unused addresses end here"
            } else if line.contains("proto 80") {
                "workload on this node: written by felix"
            } else if line.contains("proto bird") {
                "another node's block: learned by BGP"
            } else {
                "the LAN"
            }
        })?;
    }
    println!("router {ROUTER}");
    print_routes(&picture.router.space, |line| {
        if line.contains(" via ") {
            "a node's block by way of that node; no /32 leaves its node"
        } else {
            "the LAN"
        }
    })
}

fn reachability(picture: &Picture) -> anyhow::Result<()> {
    heading(
        "Packets",
        "workload to workload, host to workload; the receiver sees the workload's own address: no NAT",
    );
    println!("{:<22} {:<16} {:>9}   address that the receiver sees", "from", "to", "echo");
    let mut missing = 0;
    let hosts = PODS
        .iter()
        .map(|(pod, _, address, _)| (*pod, *address, picture.pods[*pod].clone()))
        .chain(picture.nodes.iter().take(1).map(|n| (n.name.as_str(), "", n.space.clone())));
    for (name, own, space) in hosts {
        for (pod, _, address, _) in PODS.iter().filter(|(pod, ..)| *pod != name) {
            let to: Ipv4Addr = address.parse()?;
            let seen = seen_source(&space, &picture.pods[*pod], to)?;
            let echo = match space.ping(to, Duration::from_secs(2))? {
                Some(time) => format!("{:.2} ms", time.as_secs_f64() * 1000.0),
                None => {
                    missing += 1;
                    "none".into()
                }
            };
            println!("{:<22} {pod} {address:<16} {echo:>9}   {seen}", format!("{name} {own}"));
        }
    }
    if missing > 0 {
        bail!("{missing} pairs did not reach each other");
    }
    Ok(())
}

fn restart(picture: &mut Picture) -> anyhow::Result<()> {
    heading(
        "Restart",
        "kill -9 of the agent on node2 under a stream of 1,000 packets a second from pod-a to pod-c",
    );
    let (from, to) = (picture.pods["pod-a"].clone(), picture.pods["pod-c"].clone());
    let stream = Stream::start(&from, &to, pod_address("pod-c")?, 7000, 1000)?;
    thread::sleep(Duration::from_millis(300));
    let node = picture.node("node2");
    for agent in node.agents.values_mut() {
        agent.kill();
    }
    thread::sleep(Duration::from_secs(1));
    for agent in node.agents.values_mut() {
        agent.start()?;
    }
    thread::sleep(Duration::from_secs(2));
    let report = stream.finish()?;
    println!(
        "sent {}, lost {}, longest gap {:.1} ms: the kernel keeps its routes, the peers keep theirs",
        report.sent,
        report.lost,
        report.longest_gap.as_secs_f64() * 1000.0
    );
    Ok(())
}

fn loss_and_return(picture: &mut Picture) -> anyhow::Result<()> {
    heading("Loss and return", "node2 loses its uplink and its agent for 2 s, then both are back");
    let target: Ipv4Addr = "10.100.104.15".parse()?;
    let from = picture.pods["pod-a"].clone();
    picture.lan.set_down("p131")?;
    let node = picture.node("node2");
    for agent in node.agents.values_mut() {
        agent.kill();
    }
    let answer = from.ping(target, Duration::from_millis(500))?;
    println!("cut:  pod-a to pod-c {}", if answer.is_some() { "answers (unexpected)" } else { "no answer" });
    thread::sleep(Duration::from_secs(2));
    let start = Instant::now();
    picture.lan.set_up("p131")?;
    for agent in picture.node("node2").agents.values_mut() {
        agent.start()?;
    }
    eventually(Duration::from_secs(30), || match from.ping(target, Duration::from_millis(100)) {
        Ok(Some(_)) => Ok(()),
        _ => Err("pod-c does not answer".into()),
    })?;
    println!("back: pod-a reaches pod-c again after {:.2} s", start.elapsed().as_secs_f64());
    picture.converged(Duration::from_secs(30))?;
    println!("      and every route is where it was after {:.2} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn keep(picture: &Picture, root: bool) {
    heading("Look around", "the picture stays until you press Enter");
    let enter = if root {
        String::new()
    } else {
        format!("nsenter --preserve-credentials -U -m -t {} ", std::process::id())
    };
    let node = &picture.nodes[1];
    let variables: Vec<String> = picture.store.env().iter().map(|(k, v)| format!("{k}={v}")).collect();
    println!("{enter}ip netns exec {} ip route", node.space.name());
    println!("{enter}ip netns exec {} ping {}", picture.pods["pod-a"].name(), PODS[1].2);
    println!(
        "{enter}ip netns exec {} env {} CARACAL_RUN_DIR={} target/release/caracal ctl get workloadendpoints -o wide",
        node.space.name(),
        variables.join(" "),
        picture.lab.file("run-node2").display(),
    );
    println!("logs: {}/*.log", picture.lab.dir().display());
    print!("\nEnter ends it: ");
    let _ = std::io::stdout().flush();
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// The source address of one datagram, as its receiver sees it.
fn seen_source(from: &Namespace, to: &Namespace, address: Ipv4Addr) -> anyhow::Result<String> {
    let stream = Stream::start(from, to, address.into(), 7100, 100)?;
    thread::sleep(Duration::from_millis(60));
    Ok(stream.finish()?.source.map_or_else(|| "nothing arrived".into(), |a| a.to_string()))
}

fn pod_address(name: &str) -> anyhow::Result<IpAddr> {
    let (_, _, address, _) = PODS.iter().find(|(pod, ..)| *pod == name).context("no such workload")?;
    Ok(address.parse()?)
}

fn print_routes(space: &Namespace, explain: impl Fn(&str) -> &'static str) -> anyhow::Result<()> {
    for line in show_routes(space)? {
        println!("  {line:<74} {}", explain(&line));
    }
    println!();
    Ok(())
}

fn heading(title: &str, text: &str) {
    println!("\n{title}: {text}\n{}", "-".repeat(title.len() + text.len() + 2));
}

fn progress(what: &str) {
    print!("  {what:<44} ");
    let _ = std::io::stdout().flush();
}

fn done(result: &str) {
    println!("{result}");
}

// The drawing in demo.txt names the same hosts.
const _: () = assert!(NODES.len() == 3 && PODS.len() == 3);
