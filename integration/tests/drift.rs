//! What somebody else changes of ours is put right; what is theirs stays as it is, byte for byte.
//!
//! The times that `--nocapture` prints are the figures; the bound is for a busy machine.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use integration::lab::{Namespace, Process, RouteWatch, Stream, eventually};
use integration::picture::{Options, Picture, UPLINK, binary, routes};
use integration::router::RouterKind;
use integration::store::StoreKind;
use ipnet::IpNet;

/// Repair that no busy machine should miss, and far below any periodic refresh that would hide a missed event.
const BOUND: Duration = Duration::from_secs(5);
/// The same where a retry has to find out: nothing tells that a namespace came back.
const RETRY: Duration = Duration::from_secs(20);

/// The same where no event tells, only the comparison of everything each 30 s.
const AUDIT: Duration = Duration::from_secs(50);

const LINK: &str = "cali1b15813a0a8";
const POD: &str = "10.100.104.15";

struct Drift {
    picture: Picture,
    node: Namespace,
    pod: Namespace,
    foreign: String,
    port: u16,
}

impl Drift {
    fn start() -> anyhow::Result<Self> {
        let options =
            Options { store: StoreKind::Etcd, router: RouterKind::Bird, split: false, binary: binary()? };
        let mut picture = Picture::new("drf", &options)?;
        picture.seed()?;
        picture.start_agents()?;
        picture.converged(Duration::from_secs(30))?;
        let (node, pod) = (picture.node("node2").space.clone(), picture.pods["pod-c"].clone());
        // Everything that an operator or another agent may have on a host, much of it close to ours. Not the prefix of
        // another node's block: a static route for that is the operator's word and wins, with Calico too.
        for line in [
            "ip link add foreign0 type veth peer name foreign3",
            "ip link add foreign1 type veth peer name foreign2",
            "ip address add 10.77.0.1/24 dev foreign0",
            "ip link set foreign0 up",
            "ip link set foreign3 up",
            "ip link set foreign1 up",
            "ip route add 198.51.100.0/24 via 192.168.174.2 proto static",
            "ip route add 203.0.113.0/24 dev foreign0 proto 99 metric 7",
            "ip route add blackhole 10.100.77.0/26 proto static",
            "ip route add 10.100.128.0/17 via 192.168.174.2 proto static metric 5000",
            "ip route add 10.100.104.0/26 via 192.168.174.2 proto static metric 5000",
            "ip route add 10.100.104.15 via 192.168.174.2 proto static metric 5000",
            "ip route add 10.100.135.0/26 via 192.168.174.2 proto bird table 77",
            "ip rule add from 198.51.100.7 lookup 77 priority 4000",
            "ip neighbour add 192.168.174.200 lladdr 02:00:00:00:00:01 dev ens160",
            "ip -6 route add fd77::/64 via fe80::1 dev ens160 proto static",
        ] {
            node.sh(line)?;
        }
        // Neighbour discovery on the new links comes to rest.
        let mut last = String::new();
        eventually(Duration::from_secs(10), || {
            let now = foreign(&node).map_err(|err| err.to_string())?;
            let same = now == last;
            let was = std::mem::replace(&mut last, now);
            thread::sleep(Duration::from_millis(500));
            if same { Ok(()) } else { Err(format!("the host is not at rest: {was}\n--- and now\n{last}")) }
        })?;
        Ok(Self { picture, node, pod, foreign: last, port: 7600 })
    }

    /// Breaks something, waits until `whole` says that it is repaired, then checks traffic and what is not ours.
    fn case(
        &mut self,
        name: &str,
        bound: Duration,
        harm: impl FnOnce(&Self) -> anyhow::Result<()>,
        whole: impl Fn(&Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        whole(self).with_context(|| format!("before: {name}"))?;
        harm(self).with_context(|| format!("harm: {name}"))?;
        let ((), took) = eventually(bound, || whole(self).map_err(|err| format!("{err:#}")))
            .with_context(|| format!("not repaired: {name}\n{}", self.picture.lab.logs(40)))?;
        println!("drift | {name:<60} | {:>7.1} ms", took.as_secs_f64() * 1000.0);
        self.picture.converged(bound)?;
        self.passes(name)?;
        assert_eq!(foreign(&self.node)?, self.foreign, "{name}: what is not ours has changed");
        Ok(())
    }

    /// The same for one route: from the notification that it is gone to the one that it is back.
    fn route_case(&mut self, name: &str, dst: &str, line: &str) -> anyhow::Result<()> {
        let watch = RouteWatch::start(&self.node)?;
        let dst: IpNet = dst.parse()?;
        let present = format!("{line} ");
        self.case(
            name,
            BOUND,
            |this| this.node.sh(&format!("ip route del {line}")).map(drop),
            |this| {
                anyhow::ensure!(
                    routes(&this.node)?.iter().any(|l| format!("{l} ").starts_with(&present)),
                    "no route {line}"
                );
                Ok(())
            },
        )?;
        let changes: Vec<_> = watch.take().into_iter().filter(|c| c.route.dst == dst).collect();
        let [gone, back] = changes.as_slice() else {
            anyhow::bail!("{name}: one deletion and one repair are due: {changes:#?}")
        };
        assert!(gone.gone && !back.gone && gone.route == back.route, "{name}: {changes:#?}");
        println!(
            "drift | {:<60} | {:>7.1} ms",
            "  by the kernel's events",
            (back.at - gone.at).as_secs_f64() * 1000.0
        );
        Ok(())
    }

    /// Packets into and out of the workload, with its own address.
    fn passes(&mut self, name: &str) -> anyhow::Result<()> {
        let pods = &self.picture.pods;
        for (from, to, address, source) in
            [("pod-a", "pod-c", POD, "10.100.135.25"), ("pod-c", "pod-d", "10.100.166.130", POD)]
        {
            let (from, to) = (pods[from].clone(), pods[to].clone());
            let address = address.parse()?;
            self.port += 1;
            let port = self.port;
            // The first packets may wait for neighbours to be found again.
            eventually(BOUND, || {
                let report = Stream::start(&from, &to, address, port, 500)
                    .and_then(|stream| {
                        thread::sleep(Duration::from_millis(60));
                        stream.finish()
                    })
                    .map_err(|err| err.to_string())?;
                let whole = report.lost == 0 && report.source == Some(source.parse().map_err(|_| "address")?);
                if whole { Ok(()) } else { Err(format!("{name}: {report:?}")) }
            })?;
        }
        Ok(())
    }
}

/// Everything on a host that is not ours, as text.
fn foreign(node: &Namespace) -> anyhow::Result<String> {
    let ours = r"proto 80\|proto bird\|cali";
    node.sh(&format!(
        "ip -o -d link show | grep -v cali; ip -o address show | grep -v cali; ip rule show; ip -6 rule show; \
         ip route show table all | grep -v '{ours}'; ip route show table 77; \
         ip -6 route show table all | grep -v '{ours}'; ip neighbour show nud permanent | grep -v cali"
    ))
}

/// A workload as felix leaves it.
fn inside(pod: &Namespace) -> anyhow::Result<()> {
    let addresses = pod.sh("ip -o address show dev eth0")?;
    anyhow::ensure!(addresses.contains(&format!("inet {POD}/32")), "address missing: {addresses}");
    let link = pod.sh("ip -o link show dev eth0")?;
    anyhow::ensure!(link.contains("LOWER_UP") && link.contains("ca:fe:1d:"), "link: {link}");
    let routes = routes(pod)?.join("; ");
    anyhow::ensure!(
        routes.contains("default via 169.254.1.1 dev eth0") && routes.contains("; 169.254.1.1 dev eth0 "),
        "routes: {routes}"
    );
    let neighbours = pod.sh("ip neighbour show nud permanent")?;
    anyhow::ensure!(
        neighbours.contains("169.254.1.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee"),
        "permanent neighbour: {neighbours}"
    );
    Ok(())
}

fn host_side(drift: &Drift) -> anyhow::Result<()> {
    let link = drift.node.sh(&format!("ip -o link show dev {LINK}"))?;
    anyhow::ensure!(link.contains("LOWER_UP") && link.contains("ee:ee:ee:ee:ee:ee"), "link: {link}");
    let want = format!("{POD} dev {LINK} proto 80 scope link metric 1024");
    anyhow::ensure!(routes(&drift.node)?.contains(&want), "no route {want}");
    Ok(())
}

fn whole(drift: &Drift) -> anyhow::Result<()> {
    host_side(drift)?;
    inside(&drift.pod)
}

#[test]
fn drift_is_repaired_and_foreign_things_stay() -> anyhow::Result<()> {
    let mut drift = Drift::start()?;
    let pids: Vec<_> = drift.picture.node("node2").agents.values_mut().map(Process::pid).collect();

    drift.route_case(
        "workload route deleted",
        "10.100.104.15/32",
        &format!("{POD} dev {LINK} proto 80 scope link metric 1024"),
    )?;
    drift.route_case(
        "learned route deleted",
        "10.100.135.0/26",
        &format!("10.100.135.0/26 via 192.168.174.133 dev {UPLINK} proto bird metric 1024"),
    )?;
    drift.route_case(
        "blackhole of the own block deleted",
        "10.100.104.0/26",
        "blackhole 10.100.104.0/26 proto bird",
    )?;

    drift.case(
        "workload route turned to another device",
        BOUND,
        |d| {
            d.node
                .sh(&format!("ip route replace {POD} dev {UPLINK} proto 80 scope link metric 1024"))
                .map(drop)
        },
        host_side,
    )?;
    drift.case(
        "another's route takes the place of a learned one, and goes",
        BOUND,
        |d| {
            d.node.sh("ip route replace 10.100.135.0/26 via 192.168.174.2 metric 1024")?;
            thread::sleep(Duration::from_millis(300));
            d.node.sh("ip route del 10.100.135.0/26 via 192.168.174.2").map(drop)
        },
        |d| {
            let want = format!("10.100.135.0/26 via 192.168.174.133 dev {UPLINK} proto bird metric 1024");
            anyhow::ensure!(routes(&d.node)?.contains(&want), "no route {want}");
            Ok(())
        },
    )?;
    drift.case(
        "a learned route turned, and one added, under bird's own mark",
        AUDIT,
        |d| {
            d.node.sh("ip route replace 10.100.135.0/26 via 192.168.174.2 proto bird metric 1024")?;
            d.node.sh("ip route add 10.100.222.0/26 via 192.168.174.2 proto bird metric 1024").map(drop)
        },
        |d| {
            let here = routes(&d.node)?;
            let want = format!("10.100.135.0/26 via 192.168.174.133 dev {UPLINK} proto bird metric 1024");
            anyhow::ensure!(here.contains(&want), "no route {want}");
            anyhow::ensure!(
                !here.iter().any(|l| l.starts_with("10.100.222.0/26 ")),
                "the stray one is still there"
            );
            Ok(())
        },
    )?;
    drift.case(
        "a stray route of ours added",
        BOUND,
        |d| {
            d.node
                .sh(&format!("ip route add 10.100.104.60 dev {LINK} proto 80 scope link metric 1024"))
                .map(drop)
        },
        |d| {
            anyhow::ensure!(!routes(&d.node)?.iter().any(|l| l.starts_with("10.100.104.60 ")), "still there");
            Ok(())
        },
    )?;
    drift.case(
        "host link down and up, twenty times",
        BOUND,
        |d| {
            for _ in 0..20 {
                d.node.set_down(LINK)?;
                d.node.set_up(LINK)?;
            }
            Ok(())
        },
        whole,
    )?;
    drift.case("host link set down", BOUND, |d| d.node.set_down(LINK), whole)?;
    drift.case(
        "host link's address changed",
        BOUND,
        |d| d.node.sh(&format!("ip link set {LINK} address 02:00:00:00:00:77")).map(drop),
        whole,
    )?;
    drift.case("host link deleted", BOUND, |d| d.node.sh(&format!("ip link del {LINK}")).map(drop), whole)?;
    drift.case(
        "address removed inside the workload",
        BOUND,
        |d| d.pod.sh(&format!("ip address del {POD}/32 dev eth0")).map(drop),
        whole,
    )?;
    drift.case(
        "permanent neighbour removed inside the workload",
        BOUND,
        |d| d.pod.sh("ip neighbour del 169.254.1.1 dev eth0").map(drop),
        whole,
    )?;
    drift.case(
        "default route removed inside the workload",
        BOUND,
        |d| d.pod.sh("ip route del default").map(drop),
        whole,
    )?;
    drift.case(
        "workload's own link set down",
        BOUND,
        |d| d.pod.sh("ip link set eth0 down").map(drop),
        whole,
    )?;
    drift.case(
        "workload's whole network namespace made anew",
        RETRY,
        |d| d.picture.lab.recreate(&d.pod),
        whole,
    )?;

    let after: Vec<_> = drift.picture.node("node2").agents.values_mut().map(Process::pid).collect();
    assert_eq!(pids, after, "the agent has ended meanwhile");
    Ok(())
}

/// 2,000 routes vanish while the agent stands still: more than any event queue of default size holds.
#[test]
fn what_happened_while_the_agent_stood_still_is_repaired() -> anyhow::Result<()> {
    use nix::sys::signal::Signal;
    let options =
        Options { store: StoreKind::Etcd, router: RouterKind::Bird, split: false, binary: binary()? };
    let mut picture = Picture::new("drs", &options)?;
    picture.seed()?;
    picture.start_agents()?;
    picture.converged(Duration::from_secs(30))?;
    let node = picture.node("node2").space.clone();
    for agent in picture.node("node2").agents.values_mut() {
        agent.signal(Signal::SIGSTOP);
    }
    let file = picture.lab.file("flood.batch");
    let mut flood = String::new();
    for verb in ["add", "del"] {
        for i in 0..5000 {
            writeln!(flood, "route {verb} 172.16.{}.{}/32 via 192.168.174.2 proto static", i / 250, i % 250)?;
        }
    }
    std::fs::write(&file, flood)?;
    node.sh(&format!("ip -batch {}", file.display()))?;
    node.sh("ip route flush proto 80; ip route flush proto bird")?;
    for agent in picture.node("node2").agents.values_mut() {
        agent.signal(Signal::SIGCONT);
    }
    let start = Instant::now();
    picture.converged(BOUND)?;
    println!(
        "drift | {:<60} | {:>7.1} ms",
        "10,000 foreign changes and all routes flushed, agent stopped",
        start.elapsed().as_secs_f64() * 1000.0
    );
    Ok(())
}
