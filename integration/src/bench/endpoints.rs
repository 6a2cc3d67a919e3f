//! Endpoint written to the datastore -> its route in the kernel, at a steady rate; and the way back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use caracal_datastore::Expect;
use caracal_netlink::{Netlink, RouteFilter};
use ipnet::IpNet;

use super::bulk::{self, Links};
use super::{Table, cpu_seconds, settle};
use crate::lab::RouteWatch;
use crate::picture::{Options, Picture};
use crate::seed::Workload;

const NODE: &str = "node2";

/// Runs it: `count` endpoints at `rate` a second, put and then deleted.
pub fn run(options: &Options, links: Links, count: u32, rate: u32, table: &mut Table) -> anyhow::Result<()> {
    let mut picture = Picture::new("be", options)?;
    picture.seed()?;
    let workloads = bulk::endpoints(&mut picture, NODE, count, links)?;
    picture.start_agents()?;
    picture.converged(Duration::from_secs(30))?;
    let watch = RouteWatch::start(&picture.node(NODE).space)?;
    let what = format!(
        "{}, {rate}/s, {:?}",
        match links {
            Links::Agent => "link made by us",
            Links::Plugin => "link made by a plugin",
        },
        options.store
    );
    for (gone, name) in
        [(false, "endpoint put -> route in the kernel"), (true, "endpoint deleted -> route gone")]
    {
        let pid = picture.node(NODE).agents.values_mut().find_map(crate::lab::Process::pid).unwrap_or(0);
        settle(pid, Duration::from_secs(30));
        watch.take();
        let before = cpu_seconds(pid);
        let sent = paced(&picture, &workloads, rate, gone)?;
        let seen = watch.first(&bulk::host_routes(&workloads), gone, Duration::from_mins(1));
        let mut late = Vec::new();
        for (workload, at) in workloads.iter().zip(&sent) {
            for address in &workload.addresses {
                if let Some(came) = seen.get(&(*address).into()) {
                    late.push(came.saturating_duration_since(*at));
                }
            }
        }
        settle(pid, Duration::from_secs(30));
        let cpu = (cpu_seconds(pid) - before) * 1000.0 / f64::from(count);
        let remark =
            format!("{what}; {cpu:.2} CPU ms each{}", unheard(&mut picture, &workloads, &seen, gone)?);
        table.times(name, &late, &remark);
    }
    Ok(())
}

/// About routes of which no event came: those that are as they should be, and those that are not.
///
/// The kernel tells of no IPv4 route that goes with its link.
fn unheard(
    picture: &mut Picture,
    workloads: &[Workload],
    seen: &BTreeMap<IpNet, Instant>,
    gone: bool,
) -> anyhow::Result<String> {
    let space = picture.node(NODE).space.clone();
    let there: BTreeSet<IpNet> =
        Netlink::open_in(&space.path())?.routes(RouteFilter::main())?.into_iter().map(|r| r.dst).collect();
    let open = bulk::host_routes(workloads).into_iter().filter(|net| !seen.contains_key(net));
    let (wrong, silent): (Vec<IpNet>, Vec<IpNet>) = open.partition(|net| there.contains(net) == gone);
    Ok(match (wrong.len(), silent.len()) {
        (0, 0) => String::new(),
        (0, silent) => format!("; {silent} more without an event"),
        (wrong, _) => format!("; {wrong} MORE WRONG"),
    })
}

/// Puts (or deletes) each endpoint at its time; when each call was made.
fn paced(picture: &Picture, workloads: &[Workload], rate: u32, delete: bool) -> anyhow::Result<Vec<Instant>> {
    let objects = bulk::objects(workloads);
    let interval = Duration::from_secs(1) / rate;
    picture.store.client(async move |store| {
        let mut sent = Vec::with_capacity(objects.len());
        let mut due = Instant::now();
        for (key, value) in objects {
            tokio::time::sleep_until(due.into()).await;
            sent.push(Instant::now());
            if delete {
                store.delete(&key, Expect::Any).await?;
            } else {
                store.put(&key, value, Expect::Any, None).await?;
            }
            due += interval;
        }
        Ok(sent)
    })
}
