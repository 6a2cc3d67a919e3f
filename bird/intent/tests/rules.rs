//! What goes beyond Calico, or repairs it: one test for each rule.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its case has failed")]

use bird_intent::{Action, Env, ExportScope, Facts, NodeConfig, derive};

const NODES: &str = "/calico/resources/v3/projectcalico.org/nodes/";
const PEERS: &str = "/calico/resources/v3/projectcalico.org/bgppeers/";
const FILTERS: &str = "/calico/resources/v3/projectcalico.org/bgpfilters/";
const CONFIGS: &str = "/calico/resources/v3/projectcalico.org/bgpconfigurations/";

struct Store(Facts);

impl Store {
    /// Two nodes, node-a at 10.20.0.1 and node-b at 10.20.0.2, without a mesh.
    fn new() -> Self {
        let mut store = Store(Facts::new());
        store.node("node-a", "10.20.0.1/24");
        store.node("node-b", "10.20.0.2/24");
        store.resource(CONFIGS, "BGPConfiguration", "default", r#"{"nodeToNodeMeshEnabled":false}"#);
        store
    }

    fn put(&mut self, key: &str, value: &str) -> Option<String> {
        self.0.update(key, Some(value.as_bytes())).problem.map(|p| p.to_string())
    }

    fn resource(&mut self, prefix: &str, kind: &str, name: &str, spec: &str) -> Option<String> {
        self.put(&format!("{prefix}{name}"), &object(kind, name, spec))
    }

    fn node(&mut self, name: &str, address: &str) {
        let spec = format!(r#"{{"bgp":{{"ipv4Address":"{address}"}}}}"#);
        assert_eq!(self.resource(NODES, "Node", name, &spec), None);
    }

    fn peer(&mut self, name: &str, spec: &str) {
        assert_eq!(self.resource(PEERS, "BGPPeer", name, spec), None);
    }

    fn affinity(&mut self, host: &str, state: &str) {
        let key = format!("/calico/ipam/v2/host/{host}/ipv4/block/10.76.0.0-28");
        assert_eq!(self.put(&key, &format!(r#"{{"state":"{state}","deleted":false}}"#)), None);
    }

    fn block(&mut self, owner: &str) {
        let allocations = vec!["null"; 16].join(",");
        let unallocated = (0..16).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let value = format!(
            r#"{{"cidr":"10.76.0.0/28","affinity":{owner},"allocations":[{allocations}],"unallocated":[{unallocated}],"attributes":[],"deleted":false}}"#
        );
        assert_eq!(self.put("/calico/ipam/v2/assignment/ipv4/block/10.76.0.0-28", &value), None);
    }

    fn derive(&self) -> NodeConfig {
        derive(&self.0, "node-a", &Env::default()).unwrap()
    }
}

fn object(kind: &str, name: &str, spec: &str) -> String {
    format!(
        r#"{{"kind":"{kind}","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}"}},"spec":{spec}}}"#
    )
}

#[test]
fn a_block_is_announced_only_if_affinity_and_block_name_this_node() {
    let mut store = Store::new();
    store.affinity("node-a", "confirmed");
    assert!(store.derive().originates.is_empty(), "no block object yet");
    store.block(r#""host:node-b""#);
    let config = store.derive();
    assert!(config.originates.is_empty() && config.blackholes.is_empty(), "the block names node-b");
    store.block("null");
    assert!(store.derive().originates.is_empty(), "the block names nobody");
    store.block(r#""host:node-a""#);
    assert_eq!(store.derive().originates, ["10.76.0.0/28".parse().unwrap()]);
    store.affinity("node-a", "pending");
    assert!(store.derive().originates.is_empty(), "not confirmed");
    store.affinity("node-a", "of-a-newer-release");
    assert!(store.derive().originates.is_empty(), "an unknown state is no confirmation");
}

#[test]
fn two_nodes_racing_for_one_block_never_both_announce_it() {
    let mut store = Store::new();
    store.affinity("node-a", "confirmed");
    store.affinity("node-b", "confirmed");
    for owner in [r#""host:node-a""#, r#""host:node-b""#, "null"] {
        store.block(owner);
        let announcers = ["node-a", "node-b"]
            .iter()
            .filter(|n| !derive(&store.0, n, &Env::default()).unwrap().originates.is_empty())
            .count();
        assert!(announcers <= 1, "{owner}");
    }
}

#[test]
fn one_unreadable_filter_harms_only_the_peers_that_name_it() {
    let mut store = Store::new();
    store.peer("bad", r#"{"peerIP":"10.20.0.250","asNumber":65500,"filters":["broken"]}"#);
    store.peer("good", r#"{"peerIP":"10.20.0.251","asNumber":65500,"filters":["fine"]}"#);
    store.resource(FILTERS, "BGPFilter", "fine", r#"{"importV4":[{"action":"Accept"}]}"#);
    let said =
        store.resource(FILTERS, "BGPFilter", "broken", r#"{"importV4":[{"action":"Perhaps"}]}"#).unwrap();
    assert!(said.contains("bgpfilters/broken spec.importV4[0].action: `Perhaps` is no action"), "{said}");
    let config = store.derive();
    assert_eq!(config.peers.len(), 2);
    assert_eq!(config.peers[0].import_filters, ["broken"]);
    assert_eq!(config.peers[0].export_filters, ["broken"], "nothing may slip through either way");
    assert_eq!(config.filters["broken"].import_v4[0].action, Action::Reject);
    assert_eq!(config.filters["fine"].import_v4[0].action, Action::Accept);
}

#[test]
fn the_last_good_value_stays_when_garbage_overwrites_it() {
    let mut store = Store::new();
    store.peer("tor", r#"{"peerIP":"10.20.0.254","asNumber":65500,"filters":["f"]}"#);
    store.resource(FILTERS, "BGPFilter", "f", r#"{"exportV4":[{"action":"Accept"}]}"#);
    let before = store.derive();
    for garbage in ["", "null", "[]", "{", "\u{1}", r#"{"spec":7}"#] {
        for key in [
            format!("{PEERS}tor"),
            format!("{FILTERS}f"),
            format!("{NODES}node-a"),
            format!("{CONFIGS}default"),
        ] {
            assert!(store.put(&key, garbage).is_some(), "{key} {garbage:?} must be said");
            assert_eq!(store.put(&key, garbage), None, "once only");
            assert_eq!(store.derive(), before, "{key} {garbage:?}");
        }
    }
    assert_eq!(store.0.quarantined().count(), 4);
    store.peer("tor", r#"{"peerIP":"10.20.0.254","asNumber":65501,"filters":["f"]}"#);
    assert_eq!(store.derive().peers[0].as_number, 65501);
    assert_eq!(store.0.quarantined().count(), 3);
}

#[test]
fn conflicting_peers_resolve_by_name_and_say_so() {
    let mut store = Store::new();
    store.peer("b", r#"{"peerIP":"10.20.0.254","asNumber":65501}"#);
    store.peer("a", r#"{"peerIP":"10.20.0.254","asNumber":65500}"#);
    let config = store.derive();
    assert_eq!(config.peers.len(), 1);
    assert_eq!(config.peers[0].as_number, 65500);
    assert_eq!(config.problems[0].object, "BGPPeer(b)");
    assert!(config.problems[0].reason.contains("BGPPeer(a) already names"), "{}", config.problems[0]);
}

#[test]
fn a_node_without_a_router_id_says_so() {
    let mut store = Store::new();
    let spec = r#"{"bgp":{"ipv6Address":"fd20::1/64"}}"#;
    assert_eq!(store.resource(NODES, "Node", "node-a", spec), None);
    let config = store.derive();
    assert_eq!(config.router_id, None);
    assert!(config.problems[0].to_string().contains("CALICO_ROUTER_ID"), "{:?}", config.problems);
    let env = Env { router_id: Some("hash".into()), ..Env::default() };
    assert!(derive(&store.0, "node-a", &env).unwrap().router_id.is_some());
}

#[test]
fn a_node_without_an_object_is_an_error_that_names_it() {
    let err = derive(&Store::new().0, "node-z", &Env::default()).unwrap_err();
    assert!(err.to_string().contains("node-z has no Node object"), "{err}");
}

#[test]
fn a_short_keepalive_is_one_second() {
    let mut store = Store::new();
    store.peer("tor", r#"{"peerIP":"10.20.0.254","asNumber":65500,"keepaliveTime":"300ms"}"#);
    assert_eq!(store.derive().peers[0].keepalive_seconds, Some(1));
}

/// Calico loses this mirror when another global listenPort exists.
#[test]
fn the_mirror_compares_with_the_port_that_the_node_really_listens_on() {
    let mut store = Store::new();
    store.resource(
        CONFIGS,
        "BGPConfiguration",
        "default",
        r#"{"nodeToNodeMeshEnabled":false,"listenPort":1790}"#,
    );
    store.resource(CONFIGS, "BGPConfiguration", "node.node-a", r#"{"listenPort":1795}"#);
    store.peer("ba", r#"{"node":"node-b","peerIP":"10.20.0.1:1795","asNumber":64512}"#);
    let config = store.derive();
    assert_eq!(config.peers.len(), 1, "{:?}", config.peers);
    assert_eq!(config.peers[0].port, Some(1790));
}

#[test]
fn the_export_annotation_is_carried_and_checked() {
    let mut store = Store::new();
    let with = |value: &str| {
        format!(
            r#"{{"kind":"BGPPeer","apiVersion":"projectcalico.org/v3","metadata":{{"name":"tor","annotations":{{"caracal.io/export":"{value}"}}}},"spec":{{"peerIP":"10.20.0.254","asNumber":65500}}}}"#
        )
    };
    for (value, scope) in
        [("own", Some(ExportScope::Own)), ("no-transit", Some(ExportScope::NoTransit)), ("all", None)]
    {
        assert_eq!(store.put(&format!("{PEERS}tor"), &with(value)), None);
        assert_eq!(store.derive().peers[0].export, scope);
    }
    let said = store.put(&format!("{PEERS}tor"), &with("mine")).unwrap();
    assert!(said.contains("caracal.io/export") && said.contains("own, no-transit or all"), "{said}");
}

#[test]
fn a_password_is_set_only_when_the_agent_knows_the_secret_and_is_never_printed() {
    let mut store = Store::new();
    store.peer(
        "tor",
        r#"{"peerIP":"10.20.0.254","asNumber":65500,"password":{"secretKeyRef":{"name":"bgp","key":"tor"}}}"#,
    );
    let config = store.derive();
    assert!(!config.peers[0].password);
    assert!(
        config.problems[0].reason.contains("key tor of secret bgp is not known"),
        "{:?}",
        config.problems
    );
    let mut env = Env::default();
    env.secrets.insert(bird_intent::SecretRef { name: "bgp".into(), key: "tor".into() });
    let config = derive(&store.0, "node-a", &env).unwrap();
    assert!(config.peers[0].password && config.problems.is_empty());
    assert!(!serde_json::to_string(&config).unwrap().contains("\"bgp\""));
}

/// What the nearest object says counts, setting by setting; the mesh follows BGPConfiguration.
#[test]
fn annotations_are_taken_from_the_nearest_object() {
    let mut store = Store::new();
    let annotated = |kind: &str, name: &str, annotations: &str, spec: &str| {
        format!(
            r#"{{"kind":"{kind}","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}","annotations":{{{annotations}}}}},"spec":{spec}}}"#
        )
    };
    let default = r#""caracal.io/bfd":"on","caracal.io/hold-time":"90s","caracal.io/ecmp":"8""#;
    let here = r#""caracal.io/hold-time":"30s","caracal.io/graceful-shutdown":"on""#;
    let tor =
        r#""caracal.io/hold-time":"9s","caracal.io/bfd-min-rx":"100ms","caracal.io/prefix-limit":"1000""#;
    let far = r#""caracal.io/bfd":"off""#;
    for (key, value) in [
        (format!("{CONFIGS}default"), annotated("BGPConfiguration", "default", default, "{}")),
        (format!("{CONFIGS}node.node-a"), annotated("BGPConfiguration", "node.node-a", here, "{}")),
        (
            format!("{PEERS}tor"),
            annotated("BGPPeer", "tor", tor, r#"{"peerIP":"10.20.0.254","asNumber":65500}"#),
        ),
        (
            format!("{PEERS}far"),
            annotated("BGPPeer", "far", far, r#"{"peerIP":"10.99.0.1","asNumber":65501}"#),
        ),
        (
            format!("{PEERS}remote"),
            annotated("BGPPeer", "remote", "", r#"{"peerIP":"10.99.0.2","asNumber":65502}"#),
        ),
    ] {
        assert_eq!(store.put(&key, &value), None);
    }
    let config = store.derive();
    assert_eq!(config.problems, []);
    assert_eq!(config.ecmp, Some(8));
    let peer = |name: &str| config.peers.iter().find(|p| p.name == name).unwrap();
    let shown = |name: &str| serde_json::to_value(peer(name)).unwrap();
    assert_eq!(
        shown("Global_10_20_0_254")["settings"],
        serde_json::json!({"holdTime": "9s", "prefixLimit": 1000, "gracefulShutdown": true})
    );
    assert_eq!(
        shown("Global_10_20_0_254")["bfd"],
        serde_json::json!({"minTx": "300ms", "minRx": "100ms", "multiplier": 3, "multihop": false, "failure": "drop"})
    );
    assert_eq!(peer("Global_10_99_0_1").bfd, None, "its own word is off");
    assert!(peer("Global_10_99_0_2").bfd.unwrap().multihop, "it is not in the node's subnet");
    let mesh = shown("Mesh_10_20_0_2");
    assert_eq!(mesh["settings"], serde_json::json!({"holdTime": "30s", "gracefulShutdown": true}));
    assert_eq!(mesh["bfd"]["multihop"], false);
    // Another node has the default's.
    let other = derive(&store.0, "node-b", &Env::default()).unwrap();
    let mesh = other.peers.iter().find(|p| p.name == "Mesh_10_20_0_1").unwrap();
    assert_eq!(serde_json::to_value(mesh.settings).unwrap(), serde_json::json!({"holdTime": "1m30s"}));
}

#[test]
fn a_wrong_annotation_counts_as_not_given_and_is_named() {
    let mut store = Store::new();
    let value = r#"{"kind":"BGPPeer","apiVersion":"projectcalico.org/v3","metadata":{"name":"tor","annotations":
        {"caracal.io/hold-time":"2s","caracal.io/bdf":"on","caracal.io/bfd":"on","caracal.io/ecmp":"2"}},
        "spec":{"peerIP":"10.20.0.254","asNumber":65500}}"#;
    assert_eq!(store.put(&format!("{PEERS}tor"), value), None);
    let config = store.derive();
    assert_eq!(config.peers[0].settings.hold_time, None);
    assert!(config.peers[0].bfd.is_some());
    let said: Vec<String> = config.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "BGPPeer(tor) metadata.annotations[caracal.io/bdf]: is no annotation that BGP knows; \
             correct its name (docs/annotations.md has all), or remove it",
            "BGPPeer(tor) metadata.annotations[caracal.io/ecmp]: `2` is not followed: it is for a BGPConfiguration only; \
             correct or remove the annotation",
            "BGPPeer(tor) metadata.annotations[caracal.io/hold-time]: `2s` is not followed: it must be 0s, or a duration of \
             whole seconds from 3s to 65535s; correct or remove the annotation",
        ]
    );
    // Not the business of a node that has no session by it.
    let value = value.replace("\"spec\":{", "\"spec\":{\"node\":\"node-b\",");
    assert_eq!(store.put(&format!("{PEERS}tor"), &value), None);
    assert_eq!(store.derive().problems, []);
}

const SOUGHT: &str = r#"{"kind":"BGPPeer","apiVersion":"projectcalico.org/v3",
    "metadata":{"name":"tor","annotations":{ANNOTATIONS}},"spec":SPEC}"#;

fn sought(annotations: &str, spec: &str) -> String {
    SOUGHT.replace("ANNOTATIONS", annotations).replace("SPEC", spec)
}

#[test]
fn a_peer_that_the_node_finds_stands_without_an_address() {
    let mut store = Store::new();
    store.resource(
        FILTERS,
        "BGPFilter",
        "six",
        r#"{"importV6":[{"action":"Reject"}],"importV4":[{"action":"Accept"}]}"#,
    );
    let unnumbered =
        r#""caracal.io/interface":"eth1","caracal.io/remote-as":"external","caracal.io/bfd":"on""#;
    let spec = r#"{"nodeSelector":"all()","peerSelector":"!all()","filters":["six"]}"#;
    assert_eq!(store.put(&format!("{PEERS}tor"), &sought(unnumbered, spec)), None);
    let gateway = sought(r#""caracal.io/default-gateway":"ipv4""#, r#"{"asNumber":64999}"#);
    assert_eq!(store.put(&format!("{PEERS}gateway"), &gateway.replace("tor", "gateway")), None);
    let config = store.derive();
    assert_eq!(config.problems, []);
    let names: Vec<&str> = config.peers.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["Global_gateway_ipv4", "Node_interface_eth1"]);
    let [gateway, tor] = config.peers.as_slice() else { unreachable!() };
    let shown = serde_json::to_value(&config.peers).unwrap();
    assert_eq!(shown[0]["discover"], serde_json::json!({"defaultGateway": "ipv4"}));
    assert_eq!(shown[1]["discover"], serde_json::json!({"interface": "eth1"}));
    assert_eq!(shown[1].get("address"), None);
    assert_eq!((gateway.as_number, gateway.internal), (64999, false));
    assert_eq!(gateway.source_address, Some("10.20.0.1".parse().unwrap()));
    assert_eq!((tor.as_number, tor.internal, tor.source_address), (0, false, None));
    assert!(!tor.bfd.unwrap().multihop);
    assert_eq!(tor.import_filters, ["six"]);
    let six = &config.filters["six"];
    assert_eq!((six.import_v4.len(), six.import_v6.len()), (1, 1), "one session carries both families");
    // The other end of nobody.
    assert_eq!(derive(&store.0, "node-b", &Env::default()).unwrap().peers.len(), 2);
}

#[test]
fn a_peer_that_is_found_is_nobody_else_for_calico() {
    let mut store = Store::new();
    let eth1 = r#""caracal.io/interface":"eth1""#;
    for (annotations, spec, said) in [
        (
            eth1,
            r#"{"asNumber":64512}"#,
            "is the AS of the node node-a: nodes that run Calico would peer with it",
        ),
        (
            r#""caracal.io/interface":"eth1","caracal.io/remote-as":"internal""#,
            r#"{"peerSelector":"all()"}"#,
            "selects the node node-a beside the peer to be found",
        ),
    ] {
        assert_eq!(store.put(&format!("{PEERS}tor"), &sought(annotations, spec)), None);
        let config = store.derive();
        assert_eq!(config.peers, []);
        assert!(config.problems[0].reason.contains(said), "{:?}", config.problems);
    }
    // What says too much or too little is not taken, and the last good one stays.
    let internal = r#""caracal.io/interface":"eth1","caracal.io/remote-as":"internal""#;
    assert_eq!(store.put(&format!("{PEERS}tor"), &sought(internal, r#"{"peerSelector":"!all()"}"#)), None);
    for spec in [r#"{"peerIP":"10.20.0.254","asNumber":65500}"#, "{}"] {
        let said = store.put(&format!("{PEERS}tor"), &sought(eth1, spec)).unwrap();
        assert!(said.contains("bgppeers/tor spec"), "{said}");
    }
    let peers = store.derive().peers;
    assert_eq!((peers.len(), peers[0].as_number, peers[0].internal), (1, 64512, true));
}
