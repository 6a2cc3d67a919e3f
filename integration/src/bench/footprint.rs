//! What a node's agent costs at rest.

use std::time::Duration;

use super::bulk::{self, Links};
use super::{Table, cpu_seconds, memory, settle};
use crate::lab::{Process, RouteWatch};
use crate::picture::{Options, Picture};

const NODE: &str = "node2";
const REST: Duration = Duration::from_secs(30);

/// Runs it: one node of the picture with `count` endpoints more.
pub fn run(options: &Options, count: u32, table: &mut Table) -> anyhow::Result<()> {
    let mut picture = Picture::new("bf", options)?;
    picture.seed()?;
    let workloads = bulk::endpoints(&mut picture, NODE, count, Links::Plugin)?;
    picture.start_agents()?;
    picture.converged(Duration::from_secs(30))?;
    rest(&mut picture, "1 endpoint of 3 in the cluster", table);
    let watch = RouteWatch::start(&picture.node(NODE).space)?;
    picture.store.put_many(bulk::objects(&workloads))?;
    let wanted = bulk::host_routes(&workloads);
    let seen = watch.first(&wanted, false, Duration::from_mins(1));
    anyhow::ensure!(seen.len() == wanted.len(), "{} of {count} routes came", seen.len());
    drop(watch);
    rest(&mut picture, &format!("{} endpoints", count + 1), table);
    Ok(())
}

fn rest(picture: &mut Picture, what: &str, table: &mut Table) {
    let pids: Vec<i32> = picture.node(NODE).agents.values_mut().filter_map(Process::pid).collect();
    for &pid in &pids {
        settle(pid, Duration::from_mins(1));
    }
    let sum = |of: &dyn Fn(i32) -> f64| pids.iter().map(|&pid| of(pid)).sum::<f64>();
    let remark = format!(
        "of which anonymous {:.1}; PSS {:.1}; {} process(es)",
        sum(&|pid| memory(pid, "Anonymous")),
        sum(&|pid| memory(pid, "Pss")),
        pids.len()
    );
    table.value(&format!("resident memory, {what}"), "MiB", sum(&|pid| memory(pid, "Rss")), &remark);
    let before = sum(&cpu_seconds);
    std::thread::sleep(REST);
    let used = (sum(&cpu_seconds) - before) / REST.as_secs_f64() * 100.0;
    table.value(&format!("idle CPU, {what}"), "%", used, "of one core, over 30 s; steps of 0.03 %");
}
