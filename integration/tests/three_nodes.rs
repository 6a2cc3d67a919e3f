//! The classic three-node picture, asserted on kernel state and on packets.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use integration::lab::{Process, Stream, eventually};
use integration::picture::{NODES, Options, PODS, Picture, binary, routes};
use integration::router::RouterKind;
use integration::seed::Item;
use integration::store::StoreKind;

const CONVERGE: Duration = Duration::from_secs(20);

/// How the objects get into the datastore.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// Raw JSON, by `etcdctl` (or into the embedded store's file).
    Raw,
    /// `caracal ctl create -f`.
    Ctl,
}

fn picture(name: &str, store: StoreKind, router: RouterKind, split: bool) -> anyhow::Result<Picture> {
    Picture::new(name, &Options { store, router, split, binary: binary()? })
}

/// The whole picture: routes exactly, router exactly, packets with their source addresses.
fn classic(name: &str, store: StoreKind, router: RouterKind, by: By) -> anyhow::Result<()> {
    let mut picture = picture(name, store, router, false)?;
    match by {
        By::Raw => picture.seed()?,
        By::Ctl => seed_by_ctl(&picture)?,
    }
    picture.start_agents()?;
    picture.converged(CONVERGE)?;

    for node in &picture.nodes {
        let mut want = picture.expected_routes(node);
        want.sort();
        let mut ours: Vec<String> = routes(&node.space)?
            .into_iter()
            .filter(|line| line.contains("proto bird") || line.contains("proto 80"))
            .collect();
        ours.sort();
        assert_eq!(ours, want, "{}: exactly these routes are ours", node.name);
        assert!(
            !routes(&node.space)?.iter().any(|line| line.starts_with("default")),
            "{}: the picture has no default route and must work without",
            node.name
        );
    }
    // Several next hops stand on lines of their own below their prefix.
    let learned: Vec<String> =
        routes(&picture.router.space)?.into_iter().filter(|line| line.starts_with("10.100.")).collect();
    assert_eq!(learned.len(), 3, "the router holds three blocks and no single address: {learned:#?}");
    for (_, _, block) in NODES {
        assert!(
            learned.iter().any(|line| line.starts_with(&format!("{block} "))),
            "{block} missing in {learned:#?}"
        );
    }
    packets(&picture)
}

/// The three rules of the Kubernetes network model.
fn packets(picture: &Picture) -> anyhow::Result<()> {
    for (from, _, own, _) in PODS {
        let own: IpAddr = own.parse()?;
        for (to, _, address, _) in PODS.into_iter().filter(|(to, ..)| *to != from) {
            let stream = Stream::start(&picture.pods[from], &picture.pods[to], address.parse()?, 7000, 500)?;
            thread::sleep(Duration::from_millis(100));
            let report = stream.finish()?;
            assert_eq!(report.lost, 0, "{from} to {to}: {report:?}");
            assert_eq!(report.source, Some(own), "{from} to {to}: the source address is the workload's own");
        }
    }
    for node in &picture.nodes {
        for (pod, _, address, _) in PODS {
            let stream = Stream::start(&node.space, &picture.pods[pod], address.parse()?, 7001, 500)?;
            thread::sleep(Duration::from_millis(40));
            let report = stream.finish()?;
            assert_eq!(report.lost, 0, "{} to {pod}: {report:?}", node.name);
            assert_eq!(report.source, Some(node.address.into()), "{} to {pod}: no NAT", node.name);

            let stream = Stream::start(&picture.pods[pod], &node.space, node.address.into(), 7002, 500)?;
            thread::sleep(Duration::from_millis(40));
            let report = stream.finish()?;
            assert_eq!(report.lost, 0, "{pod} to {}: {report:?}", node.name);
            assert_eq!(report.source, Some(address.parse()?), "{pod} to {}: no NAT", node.name);
        }
    }
    Ok(())
}

/// The same objects through the operator's tool; blocks are claimed by the nodes themselves.
fn seed_by_ctl(picture: &Picture) -> anyhow::Result<()> {
    let resource = |(key, _): &&Item| key.contains("/resources/v3/");
    let endpoints: Vec<Item> =
        picture.workloads().iter().map(integration::seed::Workload::endpoint).collect();
    let cluster = picture.cluster_items();
    // IPAM's own keys have no kind that ctl could write.
    picture.store.put(&cluster.iter().filter(|item| !resource(item)).cloned().collect::<Vec<_>>())?;
    let mut documents = Vec::new();
    for (_, value) in cluster.iter().filter(resource).chain(&endpoints) {
        // ctl makes these itself with the first object that it writes.
        if !["ClusterInformation", "Tier"].contains(&value["kind"].as_str().unwrap_or_default()) {
            documents.push(value.to_string());
        }
    }
    let file = picture.lab.file("objects.yaml");
    std::fs::write(&file, documents.join("\n---\n"))?;
    let (ok, stdout, stderr) = picture.store.ctl(&["create", "-f", &file.to_string_lossy()])?;
    anyhow::ensure!(ok, "ctl create: {stdout}{stderr}");
    Ok(())
}

#[test]
fn etcd_and_bird() -> anyhow::Result<()> {
    classic("p3b", StoreKind::Etcd, RouterKind::Bird, By::Raw)
}

#[test]
fn etcd_and_frr() -> anyhow::Result<()> {
    classic("p3f", StoreKind::Etcd, RouterKind::Frr, By::Raw)
}

#[test]
fn etcd_through_ctl() -> anyhow::Result<()> {
    classic("p3c", StoreKind::Etcd, RouterKind::Bird, By::Ctl)
}

#[test]
fn embedded_store_and_our_own_router() -> anyhow::Result<()> {
    classic("p3e", StoreKind::Embedded, RouterKind::Caracal, By::Raw)
}

#[test]
fn embedded_store_through_ctl() -> anyhow::Result<()> {
    classic("p3x", StoreKind::Embedded, RouterKind::Bird, By::Ctl)
}

/// kill -9 of felix, then of bird: no packet of a 1,000-per-second stream is lost, no kernel route changes anywhere.
#[test]
fn killed_agents_lose_no_packet_and_write_nothing() -> anyhow::Result<()> {
    let mut picture = picture("p3k", StoreKind::Etcd, RouterKind::Bird, true)?;
    picture.seed()?;
    picture.start_agents()?;
    picture.converged(CONVERGE)?;
    for role in ["felix", "bird"] {
        settled(&picture)?;
        let mut watchers = Vec::new();
        let spaces: Vec<_> =
            picture.nodes.iter().map(|n| n.space.clone()).chain([picture.router.space.clone()]).collect();
        for space in &spaces {
            let name = format!("monitor-{role}-{}", space.name());
            let mut watcher = Process::new(
                &name,
                space,
                picture.lab.dir(),
                &["ip", "monitor", "link", "address", "route", "neigh"],
            );
            watcher.start()?;
            watchers.push(watcher);
        }
        let inward = Stream::start(
            &picture.pods["pod-a"],
            &picture.pods["pod-c"],
            "10.100.104.15".parse()?,
            7100,
            1000,
        )?;
        let outward = Stream::start(
            &picture.pods["pod-c"],
            &picture.pods["pod-d"],
            "10.100.166.130".parse()?,
            7101,
            1000,
        )?;
        thread::sleep(Duration::from_millis(500));
        let agent = picture.node("node2").agents.get_mut(role).context("split picture")?;
        agent.kill();
        thread::sleep(Duration::from_millis(300));
        agent.start()?;
        thread::sleep(Duration::from_secs(4));
        for stream in [inward, outward] {
            let report = stream.finish()?;
            assert_eq!(report.lost, 0, "{role} killed: {report:?}");
        }
        for mut watcher in watchers {
            watcher.kill();
            let changes: Vec<String> = watcher
                .log()
                .lines()
                // The kernel's own ageing of neighbours is not a write of ours.
                .filter(|line| {
                    !line.contains("lladdr") && !line.contains("FAILED") && !line.trim().is_empty()
                })
                .map(String::from)
                .collect();
            assert!(
                changes.is_empty(),
                "{role} killed and restarted: no kernel write is due, got {changes:#?}"
            );
        }
    }
    picture.converged(CONVERGE)?;
    Ok(())
}

/// Sessions with the router are up and have exchanged what they have.
fn settled(picture: &Picture) -> anyhow::Result<()> {
    picture.converged(CONVERGE)?;
    let mut last = String::new();
    eventually(Duration::from_secs(20), || {
        let now = picture
            .router
            .space
            .sh(&format!("birdc -s {} show protocols", picture.lab.file("router/bird.ctl").display()))
            .map_err(|err| err.to_string())?;
        let up = now.matches("Established").count();
        let same = now == last;
        last.clone_from(&now);
        if up == 3 && same { Ok(()) } else { Err(now) }
    })?;
    Ok(())
}
