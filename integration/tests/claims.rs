//! Blocks: who claims them, who announces them; never two. And the picture with both families.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use caracal_netlink::RouteKind;
use integration::lab::{Namespace, RouteChange, RouteWatch, Stream, eventually};
use integration::picture::{Options, Picture, binary, routes};
use integration::router::RouterKind;
use integration::seed::{self, Item, Workload};
use integration::store::StoreKind;
use ipnet::IpNet;
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(20);

fn picture(name: &str) -> anyhow::Result<Picture> {
    let options =
        Options { store: StoreKind::Etcd, router: RouterKind::Bird, split: false, binary: binary()? };
    Picture::new(name, &options)
}

fn block_key(block: IpNet) -> String {
    let family = if block.addr().is_ipv4() { "ipv4" } else { "ipv6" };
    format!("/calico/ipam/v2/assignment/{family}/block/{}", block.to_string().replace('/', "-"))
}

fn affinity_key(node: &str, block: IpNet) -> String {
    let family = if block.addr().is_ipv4() { "ipv4" } else { "ipv6" };
    format!("/calico/ipam/v2/host/{node}/{family}/block/{}", block.to_string().replace('/', "-"))
}

/// Who the block object names, when there is one.
fn owner(picture: &Picture, block: IpNet) -> anyhow::Result<Option<String>> {
    let value = picture.store.get(&block_key(block))?;
    let affinity = value.as_ref().and_then(|v| v["affinity"].as_str());
    Ok(affinity.and_then(|a| a.strip_prefix("host:")).map(String::from))
}

/// Intervals of a node's blackhole for `block`, from the kernel's own events.
fn announced(changes: &[RouteChange], block: IpNet) -> Vec<(Instant, Option<Instant>)> {
    let mut spans: Vec<(Instant, Option<Instant>)> = Vec::new();
    for change in changes.iter().filter(|c| c.route.dst == block && c.route.kind == RouteKind::Blackhole) {
        match (change.gone, spans.last_mut()) {
            (false, Some((_, None))) => {}
            (false, _) => spans.push((change.at, None)),
            (true, Some((_, end @ None))) => *end = Some(change.at),
            (true, _) => {}
        }
    }
    spans
}

/// Routes inside `block` that a node has learned, prefix and gateway: what the mesh peers announce as their own.
fn learned(picture: &Picture, node: &str, block: IpNet) -> Result<BTreeMap<String, String>, String> {
    let mut found = BTreeMap::new();
    let node = picture.nodes.iter().find(|n| n.name == node).ok_or("no such node")?;
    for line in routes(&node.space).map_err(|err| err.to_string())? {
        let mut words = line.split_whitespace();
        let (Some(dst), Some("via"), Some(gateway)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let net = dst.parse::<IpNet>().or_else(|_| dst.parse::<IpAddr>().map(IpNet::from));
        if net.is_ok_and(|net| block.contains(&net)) {
            found.insert(dst.to_owned(), gateway.to_owned());
        }
    }
    Ok(found)
}

struct Racer {
    node: &'static str,
    gateway: &'static str,
    pod: Namespace,
}

/// Two nodes, each with a workload in the same unclaimed block, started together, again and again; in some rounds one
/// of them is stopped for a while at a moment that moves through its claim. At no time do both announce the block.
#[test]
fn a_race_for_a_block_has_one_winner() -> anyhow::Result<()> {
    let mut picture = picture("clr")?;
    picture.seed()?;
    picture.start_agents()?;
    picture.converged(LIMIT)?;
    let racers = [
        Racer { node: "node1", gateway: "192.168.174.129", pod: picture.lab.host("race1")? },
        Racer { node: "node2", gateway: "192.168.174.131", pod: picture.lab.host("race2")? },
    ];
    let watches: Vec<RouteWatch> =
        racers.iter().map(|r| RouteWatch::start(&picture.node(r.node).space)).collect::<Result<_, _>>()?;
    let mut wins: BTreeMap<String, usize> = BTreeMap::new();

    for round in 0u8..12 {
        let base = Ipv4Addr::new(10, 100, 210 + round, 64);
        let block: IpNet = format!("{base}/26").parse()?;
        for watch in &watches {
            watch.take();
        }
        let workloads: Vec<Workload> = racers
            .iter()
            .zip(1u32..)
            .map(|(racer, n)| Workload {
                pod: format!("race-{n}"),
                node: racer.node.into(),
                addresses: vec![Ipv4Addr::from(u32::from(base) + 10 * n).into()],
                interface: format!("cali{:011x}", 0xace_0000 + n),
                number: 700 + n,
                netns: Some(racer.pod.path().to_string_lossy().into_owned()),
            })
            .collect();
        let items: Vec<(String, Vec<u8>)> =
            workloads.iter().map(Workload::endpoint).map(|(k, v)| (k, v.to_string().into_bytes())).collect();
        picture.store.put_many(items.clone())?;
        // Every third round both run freely; else one of them stands still, somewhere within its claim.
        let halted = (round % 3 != 0).then(|| racers[usize::from(round % 3 - 1)].node);
        if let Some(node) = halted {
            thread::sleep(Duration::from_millis(u64::from(round)));
            for agent in picture.node(node).agents.values_mut() {
                agent.signal(Signal::SIGSTOP);
            }
            thread::sleep(Duration::from_millis(300));
            for agent in picture.node(node).agents.values_mut() {
                agent.signal(Signal::SIGCONT);
            }
        }

        // The winner announces the block, the loser its one address as borrowed; nobody anything else.
        let won = eventually(LIMIT, || {
            let won =
                owner(&picture, block).map_err(|err| format!("{err:#}"))?.ok_or("nobody owns the block")?;
            let mut want = BTreeMap::new();
            for (racer, workload) in racers.iter().zip(&workloads) {
                let net =
                    if won == racer.node { block.to_string() } else { workload.addresses[0].to_string() };
                want.insert(net, racer.gateway.to_owned());
            }
            let have = learned(&picture, "node3", block)?;
            if have == want {
                Ok(won)
            } else {
                Err(format!("{block} of {won}: node3 has {have:?}, want {want:?}"))
            }
        })
        .with_context(|| picture.lab.logs(40))?
        .0;
        for racer in &racers {
            let stored = picture.store.get(&affinity_key(racer.node, block))?;
            let state = stored.as_ref().and_then(|v| v["state"].as_str());
            assert_eq!(
                state,
                (racer.node == won).then_some("confirmed"),
                "{block} is {won}'s: what remains of the claim of {}",
                racer.node
            );
        }
        let spans: Vec<_> = watches.iter().map(|watch| announced(&watch.take(), block)).collect();
        for (racer, span) in racers.iter().zip(&spans) {
            assert_eq!(
                span.len(),
                usize::from(racer.node == won),
                "{block} is {won}'s; {} had it as its own: {span:?}",
                racer.node
            );
        }

        // Both workloads work, whoever won.
        for workload in &workloads {
            let from = picture.pods["pod-a"].clone();
            let IpAddr::V4(address) = workload.addresses[0] else { anyhow::bail!("invariant: IPv4") };
            eventually(LIMIT, || match from.ping(address, Duration::from_millis(200)) {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err(format!("{} does not answer", workload.pod)),
                Err(err) => Err(err.to_string()),
            })
            .with_context(|| picture.lab.logs(40))?;
        }
        *wins.entry(won).or_default() += 1;
        picture.store.delete_many(items.into_iter().map(|(key, _)| key).collect())?;
        for (racer, workload) in racers.iter().zip(&workloads) {
            let space = picture.node(racer.node).space.clone();
            eventually(LIMIT, || {
                match space.sh(&format!("ip link show {} 2>&1 || true", workload.interface)) {
                    Ok(text) if text.contains("does not exist") => Ok(()),
                    Ok(text) => Err(text),
                    Err(err) => Err(err.to_string()),
                }
            })?;
        }
    }
    println!("claims | winners of 12 rounds: {wins:?}");
    Ok(())
}

/// No block is seeded: each node claims the one around its workload, in Calico's form, and only then announces it.
#[test]
fn the_first_block_is_claimed_when_a_workload_needs_it() -> anyhow::Result<()> {
    let mut picture = picture("clf")?;
    let items: Vec<Item> =
        picture.cluster_items().into_iter().filter(|(key, _)| !key.starts_with("/calico/ipam/")).collect();
    picture.store.put(&items)?;
    picture.start_agents()?;
    // Nothing needs a block yet.
    for node in &picture.nodes {
        let space = node.space.clone();
        eventually(LIMIT, || match space.run(|| std::net::TcpStream::connect("127.0.0.1:9099")) {
            Ok(_) => Ok(()),
            Err(err) => Err(format!("{}: health is not served: {err}", space.name())),
        })
        .with_context(|| picture.lab.logs(30))?;
    }
    thread::sleep(Duration::from_millis(500));
    let blocks = picture.store.etcdctl(&["get", "--prefix", "--keys-only", "/calico/ipam/v2/assignment/"])?;
    assert_eq!(blocks.trim(), "", "no workload, no block");

    let endpoints: Vec<Item> = picture.workloads().iter().map(Workload::endpoint).collect();
    picture.store.put(&endpoints)?;
    picture.converged(LIMIT)?;
    for node in &picture.nodes {
        assert_eq!(owner(&picture, node.block)?.as_deref(), Some(node.name.as_str()), "{}", node.block);
        let value = picture.store.get(&block_key(node.block))?.context("the block exists")?;
        assert_eq!(value["cidr"], node.block.to_string());
        assert_eq!(value["allocations"].as_array().map(Vec::len), Some(64));
        assert_eq!(value["unallocated"].as_array().map(Vec::len), Some(64), "felix allocates no address");
        let affinity =
            picture.store.get(&affinity_key(&node.name, node.block))?.context("the affinity exists")?;
        assert_eq!(affinity["state"], "confirmed");
    }
    Ok(())
}

/// What a crash, a bug or a malicious node may leave: an affinity that claims a block whose object names another node.
#[test]
fn an_affinity_without_the_block_object_is_not_announced() -> anyhow::Result<()> {
    let mut picture = picture("cla")?;
    picture.seed()?;
    let (stolen, orphan): (IpNet, IpNet) = ("10.100.240.0/26".parse()?, "10.100.241.0/26".parse()?);
    // node1 owns `stolen`; node2's affinity for it says confirmed as well.
    picture.store.put(&seed::block("node1", stolen, &[]))?;
    let confirmed = serde_json::json!({ "state": "confirmed", "deleted": false });
    picture.store.put(&[(affinity_key("node2", stolen), confirmed)])?;
    // node2 died between the first and the second step of a claim.
    let pending = serde_json::json!({ "state": "pending", "deleted": false });
    picture.store.put(&[(affinity_key("node2", orphan), pending)])?;
    picture.start_agents()?;
    picture.converged(LIMIT)?;
    eventually(LIMIT, || {
        let have = learned(&picture, "node3", stolen)?;
        let want = BTreeMap::from([(stolen.to_string(), "192.168.174.129".to_owned())]);
        if have == want { Ok(()) } else { Err(format!("{have:?}")) }
    })
    .with_context(|| picture.lab.logs(40))?;
    let here = routes(&picture.node("node2").space)?;
    assert!(
        !here.iter().any(|line| line.starts_with(&format!("blackhole {stolen}"))),
        "node2 must not blackhole a block of node1: {here:#?}"
    );
    assert!(here.iter().any(|line| line.starts_with(&format!("{stolen} via 192.168.174.129"))), "{here:#?}");
    assert_eq!(
        learned(&picture, "node3", orphan).map_err(anyhow::Error::msg)?,
        BTreeMap::new(),
        "a pending claim is not announced"
    );

    // The orphan is free: another node's workload gets it.
    let pod = picture.lab.host("late")?;
    let late = Workload {
        pod: "late".into(),
        node: "node3".into(),
        addresses: vec!["10.100.241.9".parse()?],
        interface: "cali00000001a7e".into(),
        number: 750,
        netns: Some(pod.path().to_string_lossy().into_owned()),
    };
    picture.store.put(&[late.endpoint()])?;
    eventually(LIMIT, || {
        let have = learned(&picture, "node1", orphan)?;
        let want = BTreeMap::from([(orphan.to_string(), "192.168.174.133".to_owned())]);
        if have == want { Ok(()) } else { Err(format!("{have:?}")) }
    })
    .with_context(|| picture.lab.logs(40))?;
    assert_eq!(owner(&picture, orphan)?.as_deref(), Some("node3"));
    Ok(())
}

/// Both families: nodes, blocks and workloads with IPv4 and IPv6; packets of both, unchanged, and no default route.
#[test]
fn both_families() -> anyhow::Result<()> {
    let mut picture = picture("cl6")?;
    let blocks: [IpNet; 3] =
        ["fd00:100::80/122".parse()?, "fd00:100::40/122".parse()?, "fd00:100::c0/122".parse()?];
    let mut items = picture.cluster_items();
    items.retain(|(key, _)| !key.contains("/nodes/"));
    items.push(seed::pool("pool6", "fd00:100::/64", 122));
    let mut workloads = picture.workloads();
    for (number, index) in (0u32..).zip(0..picture.nodes.len()) {
        let node = &mut picture.nodes[index];
        let octet = node.address.octets()[3];
        let v6: IpNet = format!("fd00:174::{octet}/64").parse()?;
        node.space.address("ens160", v6)?;
        for agent in node.agents.values_mut() {
            agent.set_env("IP6", &v6.addr().to_string());
        }
        items.push(seed::node(&node.name, number, &[IpNet::new(node.address.into(), 24)?, v6]));
        let workload =
            workloads.iter_mut().find(|w| w.node == node.name).context("a workload on each node")?;
        let IpAddr::V6(base) = blocks[index].network() else { anyhow::bail!("invariant: IPv6") };
        let address: IpAddr = std::net::Ipv6Addr::from(u128::from(base) + 5).into();
        workload.addresses.push(address);
        items.extend(seed::block(&node.name, blocks[index], &[(&format!("{}-6", workload.pod), address)]));
    }
    picture.store.put(&items)?;
    picture.store.put(&workloads.iter().map(Workload::endpoint).collect::<Vec<_>>())?;
    picture.start_agents()?;
    picture.converged(LIMIT)?;
    for (index, node) in picture.nodes.iter().enumerate() {
        let workload = workloads.iter().find(|w| w.node == node.name).context("a workload on each node")?;
        let mut want = vec![
            format!("blackhole {} dev lo proto bird metric 1024", blocks[index]),
            format!("{} dev {} proto 80 metric 1024", workload.addresses[1], workload.interface),
        ];
        for (other, block) in picture.nodes.iter().zip(&blocks).filter(|(other, _)| other.name != node.name) {
            let octet = other.address.octets()[3];
            want.push(format!("{block} via fd00:174::{octet} dev ens160 proto bird metric 1024"));
        }
        want.sort();
        eventually(LIMIT, || {
            let text = node.space.sh("ip -6 route show").map_err(|err| err.to_string())?;
            let mut have: Vec<String> = text
                .lines()
                .filter(|line| line.contains("proto bird") || line.contains("proto 80"))
                .map(|line| {
                    line.split_whitespace().filter(|w| *w != "pref" && *w != "medium").collect::<Vec<_>>()
                })
                .map(|words| words.join(" "))
                .collect();
            have.sort();
            if have == want { Ok(()) } else { Err(format!("{}: {have:#?}, want {want:#?}", node.name)) }
        })
        .with_context(|| picture.lab.logs(40))?;
        let default = node.space.sh("ip route show default; ip -6 route show default")?;
        assert_eq!(default.trim(), "", "{}: works without a default route", node.name);
    }
    let mut port = 7800;
    for from in &workloads {
        for to in workloads.iter().filter(|to| to.pod != from.pod) {
            for (own, address) in from.addresses.iter().zip(&to.addresses) {
                port += 1;
                let (here, there) = (picture.pods[&from.pod].clone(), picture.pods[&to.pod].clone());
                here.sh(&format!("ping -c 1 -W 5 -q {address}"))
                    .with_context(|| format!("{} to {address}\n{}", from.pod, picture.lab.logs(20)))?;
                let stream = Stream::start(&here, &there, *address, port, 500)?;
                thread::sleep(Duration::from_millis(100));
                let report = stream.finish()?;
                assert_eq!(
                    (report.lost, report.source),
                    (0, Some(*own)),
                    "{} to {address}: {report:?}",
                    from.pod
                );
            }
        }
    }
    // Host to workload and back.
    for node in &picture.nodes {
        for workload in &workloads {
            for address in &workload.addresses {
                node.space.sh(&format!("ping -c 1 -W 5 -q {address}")).with_context(|| node.name.clone())?;
            }
        }
    }
    Ok(())
}
