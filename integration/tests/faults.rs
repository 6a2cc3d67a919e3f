//! Every fault of the published table (policy apart), each under two streams of 1,000 packets a second.
//!
//! The bound on recovery is far above what we reach, so that a busy machine does not fail a good build; the table that
//! `--nocapture` prints has the figures. What may be lost is exact: nothing beyond what the fault itself takes.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use integration::bench::bulk::{self, Links};
use integration::faults::{Bench, Outcome};
use integration::lab::RouteWatch;
use integration::picture::{Options, Picture, UPLINK, binary};
use integration::router::RouterKind;
use integration::seed;
use integration::store::StoreKind;
use nix::sys::signal::Signal;

/// Recovery that no busy machine should miss.
const BOUND: Duration = Duration::from_secs(10);

fn bench(name: &str, split: bool) -> anyhow::Result<Bench> {
    let options = Options { store: StoreKind::Etcd, router: RouterKind::Bird, split, binary: binary()? };
    Bench::start(Picture::new(name, &options)?)
}

fn lossless(name: &str, outcome: Outcome) {
    assert_eq!(outcome.lost(), 0, "{name}: {outcome:?}");
    assert!(outcome.recovery < BOUND, "{name}: {outcome:?}");
}

fn etcd_signal(picture: &mut Picture, signal: Signal) -> anyhow::Result<()> {
    picture.store.etcd.as_mut().context("the store is etcd")?.signal(signal);
    Ok(())
}

fn pause(seconds: u64) {
    thread::sleep(Duration::from_secs(seconds));
}

#[test]
fn datastore_faults() -> anyhow::Result<()> {
    let mut bench = bench("fds", false)?;

    let name = "etcd killed and back after 3 s";
    let outcome = bench.run(name, |p| {
        let etcd = p.store.etcd.as_mut().context("the store is etcd")?;
        etcd.kill();
        pause(3);
        etcd.start()?;
        p.store.wait_healthy()
    })?;
    lossless(name, outcome);

    let name = "etcd stands still for 15 s, changes right after";
    let outcome = bench.run(name, |p| {
        etcd_signal(p, Signal::SIGSTOP)?;
        pause(15);
        etcd_signal(p, Signal::SIGCONT)?;
        p.store.wait_healthy()
    })?;
    lossless(name, outcome);

    let name = "etcd away 15 s, all agents killed meanwhile";
    let outcome = bench.run(name, |p| {
        p.store.etcd.as_mut().context("the store is etcd")?.kill();
        pause(5);
        for node in &mut p.nodes {
            for agent in node.agents.values_mut() {
                agent.start()?;
            }
        }
        pause(10);
        p.store.etcd.as_mut().context("the store is etcd")?.start()?;
        p.store.wait_healthy()
    })?;
    lossless(name, outcome);

    let name = "etcd restarted and compacted while an agent stands still";
    let outcome = bench.run(name, |p| {
        for agent in p.node("node2").agents.values_mut() {
            agent.signal(Signal::SIGSTOP);
        }
        for round in 0..20 {
            p.store.put_raw(
                "/calico/resources/v3/projectcalico.org/ipreservations/churn",
                &format!("{{\"round\":{round}}}"),
            )?;
        }
        p.store.delete("/calico/resources/v3/projectcalico.org/ipreservations/churn")?;
        p.store.compact()?;
        let etcd = p.store.etcd.as_mut().context("the store is etcd")?;
        etcd.kill();
        etcd.start()?;
        p.store.wait_healthy()?;
        for agent in p.node("node2").agents.values_mut() {
            agent.signal(Signal::SIGCONT);
        }
        Ok(())
    })?;
    lossless(name, outcome);

    let name = "connections to etcd reset";
    let outcome = bench.run(name, |p| {
        p.lan.sh("ss -K sport = :2379 >/dev/null 2>&1 || true")?;
        Ok(())
    })?;
    lossless(name, outcome);

    let name = "etcd unreachable for 20 s";
    let outcome = bench.run(name, |p| {
        p.lan.sh("nft add table inet cut && nft 'add chain inet cut in { type filter hook input priority 0; }' && nft add rule inet cut in tcp dport 2379 ip saddr != 192.168.174.1 drop")?;
        pause(20);
        p.lan.sh("nft delete table inet cut").map(drop)
    })?;
    lossless(name, outcome);
    Ok(())
}

#[test]
fn agent_faults() -> anyhow::Result<()> {
    let mut bench = bench("fag", false)?;

    let name = "agent stopped for 10 s";
    let outcome = bench.run(name, |p| {
        for agent in p.node("node2").agents.values_mut() {
            agent.signal(Signal::SIGSTOP);
        }
        pause(10);
        for agent in p.node("node2").agents.values_mut() {
            agent.signal(Signal::SIGCONT);
        }
        Ok(())
    })?;
    lossless(name, outcome);

    let name = "agents restarted one node after the other";
    let outcome = bench.run(name, |p| {
        for index in 0..p.nodes.len() {
            for agent in p.nodes[index].agents.values_mut() {
                agent.stop();
                agent.start()?;
            }
            pause(1);
        }
        Ok(())
    })?;
    lossless(name, outcome);

    let name = "router killed and back";
    let outcome = bench.run(name, |p| {
        p.router.kill();
        pause(2);
        p.router.restart()
    })?;
    lossless(name, outcome);
    Ok(())
}

#[test]
fn network_faults() -> anyhow::Result<()> {
    let mut bench = bench("fnw", false)?;

    let name = "BGP cut for 10 s, new blocks meanwhile";
    let outcome = bench.run(name, |p| {
        let space = p.node("node2").space.clone();
        space.sh("nft add table inet cut && nft 'add chain inet cut in { type filter hook input priority 0; }' && nft 'add chain inet cut out { type filter hook output priority 0; }' && nft add rule inet cut in tcp dport 179 drop && nft add rule inet cut in tcp sport 179 drop && nft add rule inet cut out tcp dport 179 drop")?;
        pause(5);
        p.store.put(&seed::block("node1", "10.100.200.0/26".parse()?, &[]))?;
        pause(5);
        space.sh("nft delete table inet cut").map(drop)
    })?;
    lossless(name, outcome);

    let name = "conntrack flushed";
    let outcome =
        bench.run(name, |p| p.node("node2").space.sh("conntrack -F 2>/dev/null || true").map(drop))?;
    lossless(name, outcome);

    let name = "host end of a workload's link down and up";
    let outcome = bench.run(name, |p| {
        let space = p.node("node2").space.clone();
        space.set_down("cali1b15813a0a8")?;
        pause(1);
        space.set_up("cali1b15813a0a8")
    })?;
    down_for(name, outcome, 1.0);

    let name = "all routes of the agent flushed";
    let outcome = bench.run(name, |p| {
        let space = p.node("node2").space.clone();
        space.sh("ip route flush proto bird; ip route flush proto 80").map(drop)
    })?;
    down_for(name, outcome, 0.0);

    let name = "uplink down for 3 s";
    let outcome = bench.run(name, |p| {
        let space = p.node("node2").space.clone();
        space.set_down(UPLINK)?;
        pause(3);
        space.set_up(UPLINK)
    })?;
    down_for(name, outcome, 3.0);

    let name = "uplink address removed and added";
    let outcome = bench.run(name, |p| {
        let node = p.node("node2");
        let (space, address) = (node.space.clone(), node.address);
        space.sh(&format!("ip address del {address}/24 dev {UPLINK}"))?;
        pause(1);
        space.sh(&format!("ip address add {address}/24 dev {UPLINK}")).map(drop)
    })?;
    down_for(name, outcome, 1.0);
    Ok(())
}

/// 500 endpoints come at once, as after a reboot of a scheduler, and go at once.
#[test]
fn five_hundred_endpoints() -> anyhow::Result<()> {
    let mut bench = bench("fbk", false)?;
    let workloads = bulk::endpoints(&mut bench.picture, "node2", 500, Links::Plugin)?;
    let (objects, wanted) = (bulk::objects(&workloads), bulk::host_routes(&workloads));
    let watch = RouteWatch::start(&bench.picture.node("node2").space)?;
    let keys: Vec<String> = objects.iter().map(|(key, _)| key.clone()).collect();

    let all = |watch: &RouteWatch, gone: bool, since: Instant| -> anyhow::Result<()> {
        let seen = watch.first(&wanted, gone, BOUND);
        anyhow::ensure!(seen.len() == wanted.len(), "{} of 500 routes changed in time", seen.len());
        let last = seen.values().max().map_or(Duration::ZERO, |at| at.saturating_duration_since(since));
        println!("fault |   500 routes {}: {:.2} s", if gone { "gone" } else { "there" }, last.as_secs_f64());
        Ok(())
    };
    let name = "500 endpoints put at once";
    let outcome = bench.run(name, |p| {
        let start = Instant::now();
        p.store.put_many(objects)?;
        all(&watch, false, start)
    })?;
    lossless(name, outcome);
    watch.take();
    let name = "500 endpoints deleted at once";
    let outcome = bench.run(name, |p| {
        let start = Instant::now();
        p.store.delete_many(keys)?;
        all(&watch, true, start)
    })?;
    lossless(name, outcome);
    Ok(())
}

/// A fault that itself takes packets for `seconds`: each stream may lose those, and what passes until recovery.
fn down_for(name: &str, outcome: Outcome, seconds: f64) {
    assert!(outcome.recovery < BOUND, "{name}: {outcome:?}");
    let bound = (seconds + 2.0) * 1000.0;
    for report in [outcome.inward, outcome.outward] {
        let lost = u32::try_from(report.lost).map_or(f64::MAX, f64::from);
        assert!(lost <= bound, "{name}: lost {lost}, bound {bound}: {outcome:?}");
    }
}
