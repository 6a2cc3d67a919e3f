//! A fault under traffic: two streams of 1,000 packets a second, one fault, and the time until all is well again.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::lab::{Namespace, Stream, StreamReport, eventually};
use crate::picture::{Picture, routes};
use crate::seed::Workload;

/// What a fault cost.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// pod-a on node3 to pod-c on node2.
    pub inward: StreamReport,
    /// pod-c on node2 to pod-d on node1.
    pub outward: StreamReport,
    /// From the end of the fault until routes, traffic and new endpoints on every node hold.
    pub recovery: Duration,
}

impl Outcome {
    /// Packets lost in both directions.
    pub fn lost(&self) -> u64 {
        self.inward.lost + self.outward.lost
    }
}

/// A running picture with a place for one more workload on each node.
#[derive(Debug)]
pub struct Bench {
    /// The picture, converged.
    pub picture: Picture,
    probes: Vec<Workload>,
    round: u16,
}

impl Bench {
    /// Seeds and starts the picture and waits until it has converged.
    pub fn start(mut picture: Picture) -> anyhow::Result<Self> {
        picture.seed()?;
        picture.start_agents()?;
        picture.converged(Duration::from_secs(30))?;
        let mut probes = Vec::new();
        let nodes: Vec<(String, IpAddr)> =
            picture.nodes.iter().map(|n| (n.name.clone(), n.block.network())).collect();
        for (number, (node, base)) in (100u32..).zip(nodes) {
            let space = picture.lab.host(&format!("probe-{node}"))?;
            let IpAddr::V4(base) = base else { anyhow::bail!("invariant: the picture's blocks are IPv4") };
            probes.push(Workload {
                pod: format!("probe-{node}"),
                node,
                addresses: vec![Ipv4Addr::from(u32::from(base) + 40).into()],
                interface: format!("cali{:011x}", 0xbad_0000 + number),
                number,
                netns: Some(space.path().to_string_lossy().into_owned()),
            });
        }
        Ok(Self { picture, probes, round: 0 })
    }

    /// Runs `fault` under both streams. `fault` returns when it is over; recovery is counted from there.
    pub fn run(
        &mut self,
        name: &str,
        fault: impl FnOnce(&mut Picture) -> anyhow::Result<()>,
    ) -> anyhow::Result<Outcome> {
        self.round += 1;
        let port = 7200 + 2 * self.round;
        let pods = &self.picture.pods;
        let inward = Stream::start(&pods["pod-a"], &pods["pod-c"], "10.100.104.15".parse()?, port, 1000)?;
        let outward =
            Stream::start(&pods["pod-c"], &pods["pod-d"], "10.100.166.130".parse()?, port + 1, 1000)?;
        std::thread::sleep(Duration::from_millis(300));
        fault(&mut self.picture).with_context(|| format!("fault: {name}"))?;
        let start = Instant::now();
        let recovered = self.recovered();
        let recovery = start.elapsed();
        let outcome = Outcome { inward: inward.finish()?, outward: outward.finish()?, recovery };
        recovered.with_context(|| format!("after the fault: {name}\n{}", self.picture.lab.logs(40)))?;
        println!(
            "fault | {name:<64} | lost {:>5}, {:>5} | recovery {:>5.2} s",
            outcome.inward.lost,
            outcome.outward.lost,
            recovery.as_secs_f64()
        );
        Ok(outcome)
    }

    /// Routes everywhere, traffic both ways, and a new endpoint on each node that comes and goes.
    fn recovered(&self) -> anyhow::Result<()> {
        let limit = Duration::from_mins(1);
        let items: Vec<_> = self.probes.iter().map(Workload::endpoint).collect();
        self.picture.store.put(&items)?;
        self.picture.converged(limit)?;
        for (probe, node) in self.probes.iter().zip(&self.picture.nodes) {
            eventually(limit, || has_route(&node.space, probe.addresses[0]))?;
        }
        for (from, to) in
            [("pod-a", "10.100.104.15"), ("pod-c", "10.100.166.130"), ("pod-d", "10.100.135.25")]
        {
            let (space, to): (Namespace, Ipv4Addr) = (self.picture.pods[from].clone(), to.parse()?);
            eventually(limit, || match space.ping(to, Duration::from_millis(50)) {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err(format!("{from} does not reach {to}")),
                Err(err) => Err(err.to_string()),
            })?;
        }
        for (key, _) in &items {
            self.picture.store.delete(key)?;
        }
        for (probe, node) in self.probes.iter().zip(&self.picture.nodes) {
            eventually(limit, || match has_route(&node.space, probe.addresses[0]) {
                Ok(()) => Err(format!("{}: the route of {} is still there", node.name, probe.pod)),
                Err(_) => Ok(()),
            })?;
        }
        Ok(())
    }
}

fn has_route(space: &Namespace, address: IpAddr) -> Result<(), String> {
    let lines = routes(space).map_err(|err| err.to_string())?;
    if lines.iter().any(|line| line.starts_with(&format!("{address} dev cali"))) {
        Ok(())
    } else {
        Err(format!("{}: no route to {address}", space.name()))
    }
}
