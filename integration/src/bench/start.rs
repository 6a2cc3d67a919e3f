//! A node that starts with many endpoints: until every link and route is there, against `ip -batch`.

use std::time::{Duration, Instant};

use super::bulk::{self, Links};
use super::{Table, cpu_seconds, settle};
use crate::lab::RouteWatch;
use crate::picture::{Options, Picture};

const NODE: &str = "node2";

/// Runs it: the node's agent starts with `count` endpoints in the datastore, each with a namespace of its own.
pub fn run(options: &Options, count: u32, table: &mut Table) -> anyhow::Result<()> {
    let mut picture = Picture::new("bs", options)?;
    picture.seed()?;
    let workloads = bulk::endpoints(&mut picture, NODE, count, Links::Agent)?;
    let host = picture.node(NODE).space.clone();
    let batch = picture.lab.file("floor.batch");

    let start = Instant::now();
    bulk::run_batch(&host, &batch, &(bulk::link_batch(&workloads, None) + &bulk::route_batch(&workloads)))?;
    let outside = start.elapsed();
    table.value(
        &format!("{count} links and host routes by one `ip -batch`"),
        "s",
        outside.as_secs_f64(),
        "pair, MAC, up, route; nothing inside the workloads",
    );
    let script = picture.lab.file("inside.sh");
    std::fs::write(&script, bulk::inside_script(&workloads)?)?;
    let start = Instant::now();
    host.sh(&format!("sh {}", script.display()))?;
    let floor = outside + start.elapsed();
    table.value(
        &format!("{count} links as ours, with an `ip -batch` for each workload's inside"),
        "s",
        floor.as_secs_f64(),
        "the above and up, address, two routes, permanent neighbour inside",
    );
    // Grouped, they go at the price of one.
    let mut lines: Vec<String> =
        workloads.iter().map(|w| format!("link set {} group 4711", w.interface)).collect();
    lines.push("link del group 4711\n".into());
    bulk::run_batch(&host, &batch, &lines.join("\n"))?;

    picture.store.put_many(bulk::objects(&workloads))?;
    let watch = RouteWatch::start(&host)?;
    let start = Instant::now();
    picture.start_agents()?;
    let wanted = bulk::host_routes(&workloads);
    let seen = watch.first(&wanted, false, Duration::from_mins(2));
    anyhow::ensure!(
        seen.len() == wanted.len(),
        "{} of {count} routes came\n{}",
        seen.len(),
        picture.lab.logs(30)
    );
    let last = seen.values().max().map_or(Duration::ZERO, |at| at.saturating_duration_since(start));
    let up = host.sh("ip -o link show up type veth")?.lines().filter(|line| line.contains(": cali")).count();
    let pid = picture.node(NODE).agents.values_mut().find_map(crate::lab::Process::pid).unwrap_or(0);
    settle(pid, Duration::from_mins(1));
    table.value(
        &format!("{count} endpoints at start: all links and routes"),
        "s",
        last.as_secs_f64(),
        &format!(
            "from the start of three agents; {up} links up; {:.2} x and {:.2} x `ip -batch`; {:.2} CPU s until settled",
            last.as_secs_f64() / outside.as_secs_f64(),
            last.as_secs_f64() / floor.as_secs_f64(),
            cpu_seconds(pid)
        ),
    );

    // The links are there now, as after an upgrade or a crash.
    let agent = picture.node(NODE).agents.values_mut().next().expect("invariant: a node has an agent");
    agent.kill();
    host.sh("ip route flush proto 80")?;
    watch.take();
    let start = Instant::now();
    agent.start()?;
    let seen = watch.first(&wanted, false, Duration::from_mins(2));
    let last = seen.values().max().map_or(Duration::ZERO, |at| at.saturating_duration_since(start));
    table.value(
        &format!("{count} endpoints at start, links there: all routes"),
        "s",
        last.as_secs_f64(),
        &format!("{} routes; from the start of the agent", seen.len()),
    );
    Ok(())
}
