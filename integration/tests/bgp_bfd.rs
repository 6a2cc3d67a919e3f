//! The annotation `caracal.io/bfd` in a cluster: a host that falls silent is noticed within a second.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use integration::lab::eventually;
use integration::picture::{NODE_AS, NODES, Options, Picture, ROUTER, ROUTER_AS, binary, routes};
use integration::router::RouterKind;
use integration::seed;
use integration::store::StoreKind;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);

/// Puts BGPConfiguration and the router's BGPPeer with these annotations.
fn annotate(picture: &Picture, mesh: &Value, router: &Value) -> anyhow::Result<()> {
    let (config_key, mut config) = seed::bgp_configuration(NODE_AS, true);
    config["metadata"]["annotations"] = mesh.clone();
    let (peer_key, mut peer) = seed::bgp_peer("tor", ROUTER.into(), ROUTER_AS);
    peer["metadata"]["annotations"] = router.clone();
    picture.store.put(&[(config_key, config), (peer_key, peer)])
}

/// How often the first two nodes logged this, together.
fn said(picture: &Picture, what: &str) -> usize {
    picture.nodes[..2].iter().map(|n| n.agents["node"].log().matches(what).count()).sum()
}

fn until_said(picture: &Picture, what: &str, times: usize) -> anyhow::Result<()> {
    let check = || {
        let now = said(picture, what);
        if now >= times { Ok(()) } else { Err(format!("`{what}` is said {now} times, not {times}")) }
    };
    eventually(SOON, check).with_context(|| picture.lab.logs(40))?;
    Ok(())
}

#[test]
fn a_host_of_the_mesh_that_falls_silent_is_noticed_within_a_second() -> anyhow::Result<()> {
    let options =
        Options { store: StoreKind::Etcd, router: RouterKind::Bird, split: false, binary: binary()? };
    let mut picture = Picture::new("bfd", &options)?;
    picture.seed()?;
    let watched = json!({
        "caracal.io/bfd": "on", "caracal.io/bfd-min-tx": "100ms", "caracal.io/bfd-min-rx": "100ms",
    });
    annotate(&picture, &watched, &json!({ "caracal.io/bfd": "off" }))?;
    picture.start_agents()?;
    picture.converged(SOON)?;
    // Each of the two has the other and the third; the router is not watched.
    until_said(&picture, "BFD is up", 4)?;
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(said(&picture, "BFD is up"), 4);

    let block = NODES[2].2;
    let has = |wanted: bool, limit: Duration| {
        let check = || {
            for node in &picture.nodes[..2] {
                let have = routes(&node.space).map_err(|err| err.to_string())?;
                if have.iter().any(|line| line.starts_with(&format!("{block} via "))) != wanted {
                    return Err(format!("{}: {block} wanted: {wanted}; {have:#?}", node.name));
                }
            }
            Ok(())
        };
        eventually(limit, check).with_context(|| picture.lab.logs(40))
    };
    let port = format!("p{}", NODES[2].1);
    let cut = Instant::now();
    picture.lan.sh(&format!("ip link set {port} nomaster"))?;
    has(false, SOON)?;
    let took = cut.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}\n{}", picture.lab.logs(40));
    assert_eq!(said(&picture, "BFD says that the peer is down"), 2, "the others see each other");
    picture.lan.sh(&format!("ip link set {port} master br0"))?;
    has(true, SOON)?;
    until_said(&picture, "BFD is up", 6)?;

    // Off and on again, with a wrong value among them: no session minds.
    let lost = said(&picture, "session lost");
    annotate(&picture, &json!({ "caracal.io/bfd": "off" }), &json!({}))?;
    std::thread::sleep(Duration::from_secs(1));
    let wrong = json!({ "caracal.io/bfd": "on", "caracal.io/bfd-multiplier": "many" });
    annotate(&picture, &wrong, &json!({ "caracal.io/bfd": "off" }))?;
    until_said(&picture, "`many` is not followed: it must be a number from 1 to 255", 2)?;
    until_said(&picture, "BFD is up", 10)?;
    assert_eq!(said(&picture, "session lost"), lost, "{}", picture.lab.logs(60));
    picture.converged(SOON)?;
    Ok(())
}
