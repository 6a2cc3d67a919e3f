//! How long it takes until many endpoints have their links and routes, and what is inside, beside `ip -batch` making
//! the same links and routes.
//!
//! `cargo run --release -p felix-dataplane --example mass_creation [count]`, as root. Prints one table. Every workload
//! has a namespace of its own; namespaces are made before the clock starts.
#![allow(clippy::print_stdout, reason = "prints a table")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use caracal_netlink::{Event, Groups, Monitor, netns};
use caracal_reconcile::Moment;
use felix_calc::{Config, Desired, WepId, Workload};
use felix_dataplane::Dataplane;

fn main() {
    let count: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1000);
    println!("| endpoints | what | seconds | per endpoint, ms |");
    println!("|--:|---|--:|--:|");
    let mut best = [Duration::MAX; 3];
    for _ in 0..3 {
        let (routes, _) = round(count, by_ip);
        let (first, whole) = round(count, by_felix);
        for (best, new) in best.iter_mut().zip([routes, first, whole]) {
            *best = new.min(*best);
        }
    }
    let [floor, routes, whole] = best.map(|d| d.as_secs_f64());
    let each = f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / 1e3;
    println!("| {count} | links and routes, by `ip -batch` | {floor:.3} | {:.3} |", floor / each);
    println!("| {count} | links and routes, by felix | {routes:.3} | {:.3} |", routes / each);
    println!("| {count} | and insides and switches, by felix | {whole:.3} | {:.3} |", whole / each);
    println!("| | ratios | {:.2}, {:.2} | |", routes / floor, whole / floor);
}

/// One measurement on a host of its own.
fn round(count: usize, work: fn(&str, usize) -> Times) -> Times {
    let tag = format!("fmass{}", std::process::id());
    let names: Vec<String> = (0..count).map(|n| format!("{tag}-{n}")).chain([tag.clone()]).collect();
    for name in &names {
        netns::create_named(name).expect("namespace; run as root");
    }
    let host = netns::create_named(&format!("{tag}-host")).expect("namespace");
    let took = std::thread::scope(|scope| {
        let inside = || {
            netns::enter(&host).expect("enter");
            work(&tag, count)
        };
        scope.spawn(inside).join().expect("no panic")
    });
    drop(host);
    for name in names.iter().chain([&format!("{tag}-host")]) {
        let _ = netns::delete_named(name);
    }
    std::thread::sleep(Duration::from_secs(1));
    took
}

/// Until the last route, and until the end.
type Times = (Duration, Duration);

fn by_ip(tag: &str, count: usize) -> Times {
    let mut batch = String::new();
    for n in 0..count {
        let _ = writeln!(
            batch,
            "link add cali{n} address ee:ee:ee:ee:ee:ee up type veth peer name eth0 netns {tag}-{n}"
        );
        let _ = writeln!(
            batch,
            "route add 10.0.{}.{} dev cali{n} scope link proto 80 metric 1024",
            n / 256,
            n % 256
        );
    }
    let start = Instant::now();
    let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("ip");
    ip.stdin.take().expect("piped").write_all(batch.as_bytes()).expect("ip reads");
    assert!(ip.wait().expect("ip ends").success());
    (start.elapsed(), start.elapsed())
}

fn by_felix(tag: &str, count: usize) -> Times {
    let mut monitor = Monitor::open(Groups::ROUTE4).expect("monitor");
    let start = Instant::now();
    let mut plane = Dataplane::open(Config::default(), Moment::ZERO).expect("dataplane");
    for n in 0..count {
        let id =
            WepId { orchestrator: "k8s".into(), workload: format!("default/{n}"), endpoint: "eth0".into() };
        let workload = Workload {
            iface: format!("cali{n}"),
            netns: Some(format!("/run/netns/{tag}-{n}")),
            peer: "eth0".into(),
            mac: Some([2, 0, 0, 0, 0, 1]),
            addresses: vec![format!("10.0.{}.{}", n / 256, n % 256).parse().expect("address")],
            spoofs: false,
        };
        plane.set(
            id,
            Some(Desired { name: format!("default/{n}").into(), workload: Some(workload), problem: None }),
        );
    }

    let routed = std::thread::scope(|scope| {
        let routed = scope.spawn(|| {
            let mut seen = 0;
            while seen < count {
                let events = monitor.try_next().expect("monitor");
                seen += events
                    .iter()
                    .filter(|e| matches!(e, Event::Route { route, .. } if route.proto == 80))
                    .count();
                std::thread::sleep(Duration::from_millis(1));
            }
            start.elapsed()
        });
        assert_eq!(plane.apply(start.elapsed()).error, None);
        routed.join().expect("no panic")
    });
    let whole = start.elapsed();
    assert_eq!((plane.routes(), plane.counters().failures), (count, 0));
    (routed, whole)
}
