//! Two nodes, a router, and what `node-a` would tell of this and that.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up has failed")]

use bird_intent::Facts;
use serde_json::{Value, json};

use super::Picture;
use super::args::Supposed;
use super::explain::ask;

pub(super) const RESOURCES: &str = "/calico/resources/v3/projectcalico.org";

pub(super) fn object(kind: &str, name: &str, annotations: Value, spec: &Value) -> (String, Value) {
    let plural = format!("{}s", kind.to_lowercase());
    let value = json!({
        "kind": kind, "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name, "annotations": annotations}, "spec": spec,
    });
    (format!("{RESOURCES}/{plural}/{name}"), value)
}

fn block(node: &str, cidr: &str) -> Vec<(String, Value)> {
    let dashed = cidr.replace('/', "-");
    vec![
        (
            format!("/calico/ipam/v2/assignment/ipv4/block/{dashed}"),
            json!({"cidr": cidr, "affinity": format!("host:{node}"), "allocations": vec![Value::Null; 64],
                "unallocated": (0..64).collect::<Vec<u8>>(), "attributes": [], "deleted": false}),
        ),
        (
            format!("/calico/ipam/v2/host/{node}/ipv4/block/{dashed}"),
            json!({"state": "confirmed", "deleted": false}),
        ),
    ]
}

fn workload(node: &str, name: &str, address: &str) -> (String, Value) {
    let full = format!("{}-cni-{name}-eth0", node.replace('-', "--"));
    let value = json!({
        "kind": "WorkloadEndpoint", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": full, "namespace": "default"},
        "spec": {"node": node, "orchestrator": "cni", "containerID": name, "endpoint": "eth0",
            "ipNetworks": [format!("{address}/32")], "interfaceName": format!("cali{name}")},
    });
    (format!("{RESOURCES}/workloadendpoints/default/{full}"), value)
}

/// The state of these tests, key by key.
pub(super) fn state() -> Vec<(String, Value)> {
    let mut keys = vec![
        object("Node", "node-a", json!({}), &json!({"bgp": {"ipv4Address": "10.0.0.1/24"}})),
        object("Node", "node-b", json!({}), &json!({"bgp": {"ipv4Address": "10.0.0.2/24"}})),
        object("IPPool", "main", json!({}), &json!({"cidr": "10.65.0.0/16", "blockSize": 26})),
        object(
            "IPPool",
            "quiet",
            json!({}),
            &json!({"cidr": "10.66.0.0/16", "blockSize": 26, "disableBGPExport": true}),
        ),
        object(
            "BGPFilter",
            "no-lent",
            json!({}),
            &json!({"exportV4": [
                {"action": "Accept", "cidr": "172.30.0.0/16", "matchOperator": "In"},
                {"action": "Reject", "cidr": "10.65.2.9/32", "matchOperator": "Equal"},
            ]}),
        ),
        object(
            "BGPConfiguration",
            "default",
            json!({}),
            &json!({"serviceClusterIPs": [{"cidr": "10.96.0.0/12"}],
                "communities": [{"name": "mark", "value": "65000:7"}],
                "prefixAdvertisements": [{"cidr": "10.65.0.0/16", "communities": ["mark"]}]}),
        ),
        object(
            "BGPPeer",
            "router",
            json!({}),
            &json!({"peerIP": "10.0.0.254", "asNumber": 65001, "filters": ["no-lent"]}),
        ),
        object(
            "BGPPeer",
            "strict",
            json!({"caracal.io/export": "own"}),
            &json!({"peerIP": "10.0.0.253", "asNumber": 65002}),
        ),
        workload("node-a", "w1", "10.65.1.5"),
        workload("node-a", "w2", "10.65.2.8"),
        workload("node-a", "w3", "10.65.2.9"),
    ];
    keys.extend(block("node-a", "10.65.1.0/26"));
    keys.extend(block("node-a", "10.66.1.0/26"));
    keys.extend(block("node-b", "10.65.2.0/26"));
    keys
}

pub(super) fn facts(keys: &[(String, Value)]) -> Facts {
    let mut facts = Facts::new();
    for (key, value) in keys {
        let intake = facts.update(key, Some(value.to_string().as_bytes()));
        assert_eq!(intake.problem, None, "{key}");
    }
    facts
}

fn nothing() -> Supposed {
    Supposed {
        from: None,
        interface: None,
        gateway: None,
        as_path: None,
        community: Vec::new(),
        local_pref: None,
    }
}

fn answer(prefix: &str, peer: Option<&str>, supposed: &Supposed) -> Result<Value, String> {
    let picture = Picture::of(facts(&state()), "node-a").unwrap();
    ask(&picture, prefix, peer, supposed).map(|a| serde_json::to_value(a).unwrap())
}

#[test]
fn each_rule_of_the_order_decides_once() {
    for (prefix, peer, told, reason, why) in [
        ("10.65.1.0/26", "router", true, "own-block", "a block of this node"),
        ("10.65.1.5", "router", false, "inside-own-block", "10.65.1.0/26, which is told in its place"),
        ("10.65.2.8", "router", true, "pool", "inside 10.65.0.0/16"),
        ("10.65.2.9", "router", false, "filter-rejects", "BGPFilter no-lent rule 2 rejects it"),
        ("10.65.2.9", "strict", true, "pool", "inside 10.65.0.0/16"),
        ("10.65.2.0/26", "router", true, "pool", "inside 10.65.0.0/16"),
        ("10.65.2.0/26", "strict", false, "scope-own", "caracal.io/export: own of BGPPeer(strict)"),
        ("10.65.2.0/26", "Mesh_10_0_0_2", false, "split-horizon", "told it"),
        ("10.66.1.0/26", "router", false, "never-export", "pool 10.66.0.0/16, which has disableBGPExport"),
        ("10.96.0.0/12", "router", true, "service", "service range 10.96.0.0/12"),
        ("172.30.1.0/24", "router", true, "filter-accepts", "BGPFilter no-lent rule 1 accepts it"),
        ("172.30.1.0/24", "10.0.0.253", false, "default", "outside every pool"),
    ] {
        let answer = answer(prefix, Some(peer), &nothing()).unwrap();
        let peer_answer = &answer["peers"][0];
        let got = (peer_answer["exported"].as_bool().unwrap(), peer_answer["reason"].as_str().unwrap());
        assert_eq!(got, (told, reason), "{prefix} to {peer}: {answer:#}");
        assert!(peer_answer["why"].as_str().unwrap().contains(why), "{prefix} to {peer}: {answer:#}");
        assert_eq!(peer_answer["told"].is_object(), told);
    }
}

#[test]
fn it_says_where_the_route_is_from_and_what_is_added() {
    for (prefix, words, supposed) in [
        ("10.65.1.0/26", "a block of this node", false),
        ("10.65.2.8", "borrowed from block 10.65.2.0/26 of node-b", false),
        ("10.65.2.0/26", "a block of node node-b, learned from Mesh_10_0_0_2", false),
        ("10.96.0.0/12", "a service range", false),
        ("172.30.1.0/24", "nothing in the datastore has this prefix", true),
    ] {
        let answer = answer(prefix, None, &nothing()).unwrap();
        assert!(answer["route"].as_str().unwrap().contains(words), "{prefix}: {answer:#}");
        assert_eq!(answer["supposed"], supposed, "{prefix}");
        assert_eq!(answer["peers"].as_array().unwrap().len(), 3);
    }
    let own = answer("10.65.1.0/26", Some("router"), &nothing()).unwrap();
    let told = &own["peers"][0]["told"];
    assert_eq!(told["communities"], json!(["65000:7"]));
    assert_eq!(told["asPath"], json!([64512]));
    assert_eq!(told["nextHop"], "10.0.0.1");
}

#[test]
fn a_supposed_route_is_taken_as_said() {
    let learned =
        Supposed { from: Some("10.0.0.253".into()), as_path: Some(vec![65002, 64512]), ..nothing() };
    let looped = answer("10.65.9.0/24", Some("router"), &learned).unwrap();
    assert_eq!(looped["import"], "own-as", "{looped:#}");
    assert_eq!(looped["peers"][0]["reason"], "no-path");
    let tunnel = Supposed { from: Some("connected".into()), interface: Some("tunl0".into()), ..nothing() };
    let held = answer("10.65.9.1/32", Some("Mesh_10_0_0_2"), &tunnel).unwrap();
    assert_eq!(held["peers"][0]["reason"], "internal-interface", "{held:#}");
    let marked = Supposed { from: Some("strict".into()), community: vec!["65535:65281".into()], ..nothing() };
    let kept = answer("10.65.9.0/24", Some("router"), &marked).unwrap();
    assert_eq!(kept["peers"][0]["reason"], "no-export", "{kept:#}");
}

/// Nobody knows here where the node will find them, and what they are told does not depend on it.
#[test]
fn peers_that_the_node_finds_are_told_too() {
    let mut keys = state();
    let selector = json!({"peerSelector": "!all()", "filters": ["no-lent"]});
    let eth1 = json!({"caracal.io/interface": "eth1", "caracal.io/remote-as": "external"});
    keys.push(object("BGPPeer", "up", eth1, &selector));
    let gateway = json!({"caracal.io/default-gateway": "ipv4"});
    keys.push(object("BGPPeer", "gate", gateway, &json!({"asNumber": 65009})));
    let picture = Picture::of(facts(&keys), "node-a").unwrap();
    let of = |peer: &str, prefix: &str| {
        let answer = ask(&picture, prefix, Some(peer), &nothing()).unwrap();
        serde_json::to_value(answer).unwrap()["peers"][0].clone()
    };
    for (peer, name) in [("up", "Global_interface_eth1"), ("gate", "Global_gateway_ipv4")] {
        let told = of(peer, "10.65.1.0/26");
        assert_eq!((&told["peer"], &told["exported"]), (&name.into(), &true.into()), "{told:#}");
        assert_eq!(told.get("address"), None);
        assert_eq!(told["told"]["asPath"], json!([64512]));
    }
    assert_eq!(of("up", "10.65.2.9")["reason"], "filter-rejects");
    assert_eq!(of("gate", "10.65.2.9")["reason"], "pool");
    let learned = Supposed { from: Some("up".into()), ..nothing() };
    let answer = ask(&picture, "10.65.9.0/24", Some("router"), &learned).unwrap();
    assert_eq!(serde_json::to_value(answer).unwrap()["peers"][0]["reason"], "pool");
}

#[test]
fn mistakes_are_named() {
    for (prefix, peer, needle) in [
        ("10.65.1.5/26", None, "did you mean 10.65.1.0/26"),
        ("ten", None, "neither a prefix"),
        ("10.65.1.0/26", Some("tor"), "its peers are Global_10_0_0_253, Global_10_0_0_254, Mesh_10_0_0_2"),
    ] {
        let err = answer(prefix, peer, &nothing()).unwrap_err();
        assert!(err.contains(needle), "{err}");
    }
    let odd = Supposed { from: Some("moon".into()), ..nothing() };
    assert!(answer("10.65.1.0/26", None, &odd).unwrap_err().contains("--from moon"));
    let err = Picture::of(facts(&state()), "node-z").err().unwrap();
    assert!(err.contains("node-z has no Node object"), "{err}");
}

/// What `node-a` and `node-b` notice when the objects are put into the state, or taken out of it.
fn foretold(put: &[(String, Value)], gone: &[&str]) -> Vec<Value> {
    let before = facts(&state());
    let mut changes: Vec<_> =
        put.iter().map(|(key, value)| (key.clone(), Some(value.to_string().into_bytes()))).collect();
    changes.extend(gone.iter().map(|key| ((*key).to_owned(), None)));
    let after = super::diff::with(&before, &changes);
    ["node-a", "node-b"]
        .iter()
        .map(|node| serde_json::to_value(super::diff::change(&before, &after, node).unwrap()).unwrap())
        .collect()
}

fn session(peer: &str, effect: &str, fields: &[&str]) -> Value {
    match fields {
        [] => json!({"peer": peer, "effect": effect}),
        fields => json!({"peer": peer, "effect": effect, "fields": fields}),
    }
}

#[test]
fn a_change_says_which_sessions_reset_and_which_only_look_again() {
    let router = |extra: Value| {
        let mut spec = json!({"peerIP": "10.0.0.254", "asNumber": 65001, "filters": ["no-lent"]});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        object("BGPPeer", "router", json!({}), &spec)
    };
    let name = "Global_10_0_0_254";
    let secret = json!({"password": {"secretKeyRef": {"name": "bgp", "key": "tor"}}});
    let cases = [
        (router(json!({})), vec![]),
        (router(json!({"asNumber": 65009})), vec![session(name, "reset", &["asNumber"])]),
        (router(json!({"ttlSecurity": 1})), vec![session(name, "reset", &["ttlSecurity"])]),
        (router(secret), vec![session(name, "reset", &["password"])]),
        (router(json!({"keepaliveTime": "5s"})), vec![session(name, "at-once", &["keepaliveSeconds"])]),
        (
            router(json!({"maxRestartTime": "60s"})),
            vec![session(name, "next-session", &["gracefulRestartSeconds"])],
        ),
        (router(json!({"nextHopMode": "Self"})), vec![session(name, "reevaluate", &[])]),
        (
            router(json!({"peerIP": "10.0.0.252"})),
            vec![session("Global_10_0_0_252", "new", &[]), session(name, "end", &[])],
        ),
        (
            object("BGPFilter", "no-lent", json!({}), &json!({"exportV4": [{"action": "Reject"}]})),
            vec![session(name, "reevaluate", &[])],
        ),
    ];
    for (change, want) in cases {
        for node in foretold(std::slice::from_ref(&change), &[]) {
            assert_eq!(node["sessions"], Value::from(want.clone()), "{change:?}\n{node:#}");
            let touched = want.iter().filter(|s| s["effect"] != "end").count();
            assert_eq!(node["untouched"], 3 - touched, "{node:#}");
        }
    }
}

#[test]
fn a_change_says_what_is_told_more_and_less_and_who_is_not_concerned() {
    let services = json!({"serviceClusterIPs": [{"cidr": "10.112.0.0/12"}]});
    let nodes = foretold(&[object("BGPConfiguration", "default", json!({}), &services)], &[]);
    for node in &nodes {
        assert_eq!(node["announces"], json!(["10.112.0.0/12"]));
        assert_eq!(node["withdraws"], json!(["10.96.0.0/12"]));
    }
    let port = json!({"listenPort": 1179});
    let nodes = foretold(&[object("BGPConfiguration", "node.node-a", json!({}), &port)], &[]);
    assert_eq!((&nodes[0]["listensElsewhere"], &nodes[0]["sessions"]), (&json!(true), &json!([])));
    // The mesh calls that port.
    assert_eq!(nodes[1]["sessions"], json!([session("Mesh_10_0_0_1", "reset", &["port"])]));
    let gone = foretold(&[], &[&format!("{RESOURCES}/nodes/node-b")]);
    assert_eq!(gone[0]["sessions"], json!([session("Mesh_10_0_0_2", "end", &[])]));
    assert_eq!(gone[1]["sessions"].as_array().unwrap().len(), 3, "{:#}", gone[1]);
    assert!(super::diff::change(&facts(&[]), &facts(&[]), "node-z").is_err());
}

#[test]
fn the_table_counts() {
    let before = facts(&state());
    let filter = object("BGPFilter", "no-lent", json!({}), &json!({}));
    let after = super::diff::with(&before, &[(filter.0, Some(filter.1.to_string().into_bytes()))]);
    let changes = ["node-a", "node-b"].map(|n| super::diff::change(&before, &after, n).unwrap());
    let text = super::diff::table(&changes);
    assert!(text.contains("node-a   Global_10_0_0_254   stays, routes are evaluated anew"), "{text}");
    assert!(text.ends_with(
        "0 sessions reset, 0 end, 0 begin, 2 evaluate their routes anew, 4 notice nothing; 0 of 2 nodes notice nothing.\n"
    ), "{text}");
}
