//! What a router in front of the nodes is told, as its kernel holds it: Calico's default, and what the annotation
//! `caracal.io/export` makes of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use integration::lab::eventually;
use integration::picture::{NODES, Options, Picture, ROUTER, ROUTER_AS, UPLINK, binary, routes};
use integration::raw::{self, RawPeer};
use integration::router::RouterKind;
use integration::seed::{self, Item};
use integration::store::StoreKind;
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);

/// The picture of three nodes and a real BIRD, with this on the router's BGPPeer.
fn picture(name: &str, export: Option<&str>, more: Vec<Item>) -> anyhow::Result<Picture> {
    let options =
        Options { store: StoreKind::Etcd, router: RouterKind::Bird, split: false, binary: binary()? };
    let mut picture = Picture::new(name, &options)?;
    picture.seed()?;
    annotate(&picture, export)?;
    picture.store.put(&more)?;
    picture.start_agents()?;
    Ok(picture)
}

/// Puts the router's BGPPeer with or without the annotation.
fn annotate(picture: &Picture, export: Option<&str>) -> anyhow::Result<()> {
    let (key, mut value) = seed::bgp_peer("tor", ROUTER.into(), ROUTER_AS);
    if let Some(scope) = export {
        value["metadata"]["annotations"] = json!({ "caracal.io/export": scope });
    }
    picture.store.put(&[(key, value)])
}

/// The gateway of each block in the router's kernel, in the order of [`NODES`].
fn gateways(picture: &Picture) -> Result<Vec<String>, String> {
    let have = routes(&picture.router.space).map_err(|err| err.to_string())?;
    NODES
        .iter()
        .map(|(_, _, block)| {
            let line = have.iter().find(|l| l.starts_with(&format!("{block} via ")));
            let gateway = line.and_then(|l| l.split_whitespace().nth(2));
            gateway.map(str::to_owned).ok_or_else(|| format!("no {block} in {have:#?}"))
        })
        .collect()
}

fn own() -> Vec<String> {
    NODES.iter().map(|(_, octet, _)| format!("192.168.174.{octet}")).collect()
}

/// Waits until the router has the blocks by these gateways, and has them still when nothing more comes.
fn has(picture: &Picture, what: &str, fits: impl Fn(&[String]) -> bool) -> anyhow::Result<()> {
    let check = || {
        let now = gateways(picture)?;
        if fits(&now) { Ok(()) } else { Err(format!("{what}, but the blocks go by {now:?}")) }
    };
    for _ in 0..3 {
        eventually(SOON, check).map_err(|err| err.context(picture.lab.logs(20)))?;
        std::thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}

/// The measured wart: every node tells every block, all equally good, so the router sends everything to the one node
/// that it likes best. With `own` each node tells its own, and the router goes straight; the change takes effect while
/// the sessions stay.
#[test]
fn by_default_the_router_sends_every_block_by_one_node_and_with_own_straight_to_each() -> anyhow::Result<()> {
    let picture = picture("exo", None, Vec::new())?;
    picture.converged(SOON)?;
    let by_one = |now: &[String]| now.iter().all(|gateway| gateway == &now[0]);
    has(&picture, "by default by one node", by_one)?;
    let since = sessions(&picture);

    annotate(&picture, Some("own"))?;
    has(&picture, "with own to each", |now| now == own())?;
    assert_eq!(sessions(&picture), since, "no session was reset for it");
    for (node, _, block) in NODES {
        let have = routes(&picture.router.space)?;
        let lines = have.iter().filter(|l| l.starts_with(block)).count();
        assert_eq!(lines, 1, "{node}: one route to {block}: {have:#?}");
    }
    // What a node tells the others of the mesh is not narrowed.
    picture.converged(SOON)?;

    annotate(&picture, None)?;
    has(&picture, "by default again by one node", by_one)?;
    Ok(())
}

/// Times at which the router's sessions came up.
fn sessions(picture: &Picture) -> Vec<String> {
    let socket = picture.lab.file("router/bird.ctl");
    let text = picture.router.space.sh(&format!("birdc -s {} show protocols", socket.display()));
    let mut lines: Vec<String> = text
        .unwrap_or_default()
        .lines()
        .filter(|l| l.contains("Established"))
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    lines.sort();
    assert_eq!(lines.len(), NODES.len(), "{lines:#?}");
    lines
}

/// A second router announces something inside the pool. By default the nodes pass it on to the first; with `no-transit`
/// they do not, and still tell every block.
#[test]
fn with_no_transit_nothing_of_one_router_reaches_the_other() -> anyhow::Result<()> {
    const EDGE: Ipv4Addr = Ipv4Addr::new(192, 168, 174, 3);
    const EDGE_AS: u32 = 64998;
    const PREFIX: &str = "10.100.200.0/24";
    let mut picture = picture("ext", None, vec![seed::bgp_peer("edge", EDGE.into(), EDGE_AS)])?;
    let edge = picture.lab.host("edge")?;
    picture.lan.wire("p3", &edge, UPLINK, Some("br0"))?;
    edge.address(UPLINK, format!("{EDGE}/24").parse()?)?;
    picture.converged(SOON)?;
    let node = SocketAddr::new(picture.nodes[0].address.into(), 179);
    let mut session = RawPeer::establish(&edge, EDGE.into(), node, &raw::open(EDGE_AS, EDGE))?;
    session.send(&raw::update(&raw::attributes(&[EDGE_AS], EDGE), &raw::nlri(PREFIX)))?;

    let passed_on = |wanted: bool| {
        eventually(SOON, || {
            let have = routes(&picture.router.space).map_err(|err| err.to_string())?;
            let there = have.iter().any(|l| l.starts_with(PREFIX));
            if there == wanted { Ok(()) } else { Err(format!("{PREFIX} passed on: {there}; {have:#?}")) }
        })
        .map_err(|err| err.context(picture.lab.logs(20)))
    };
    passed_on(true)?;
    annotate(&picture, Some("no-transit"))?;
    passed_on(false)?;
    has(&picture, "every block is told", |now| now.len() == NODES.len())?;
    // The nodes themselves use it.
    for node in &picture.nodes {
        let have = routes(&node.space)?;
        assert!(have.iter().any(|l| l.starts_with(PREFIX)), "{}: {have:#?}", node.name);
    }
    annotate(&picture, None)?;
    passed_on(true)?;
    Ok(())
}
