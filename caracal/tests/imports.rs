//! The import table of ARCHITECTURE.md: who may depend on whom. A new edge is a decision, made here.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Crate, then every crate of ours that it may use.
const TABLE: &[(&str, &[&str])] = &[
    ("caracal-model", &[]),
    ("caracal-reconcile", &[]),
    ("caracal-datastore", &[]),
    ("caracal-netlink", &[]),
    ("caracal-process", &[]),
    ("caracal-ipam", &["caracal-model", "caracal-datastore"]),
    ("felix-calc", &["caracal-model", "caracal-reconcile"]),
    ("felix-dataplane", &["caracal-model", "caracal-reconcile", "caracal-netlink", "felix-calc"]),
    (
        "felix",
        &[
            "caracal-model",
            "caracal-reconcile",
            "caracal-datastore",
            "caracal-ipam",
            "caracal-netlink",
            "caracal-process",
            "felix-calc",
            "felix-dataplane",
        ],
    ),
    ("bird-packet", &[]),
    ("bird-speaker", &["bird-packet", "caracal-reconcile"]),
    ("bird-intent", &["caracal-model"]),
    ("bird-bfd", &[]),
    (
        "bird",
        &[
            "caracal-model",
            "caracal-reconcile",
            "caracal-datastore",
            "caracal-netlink",
            "caracal-process",
            "bird-packet",
            "bird-speaker",
            "bird-intent",
            "bird-bfd",
        ],
    ),
    (
        "caracal",
        &[
            "caracal-model",
            "caracal-datastore",
            "caracal-ipam",
            "caracal-netlink",
            "caracal-process",
            "felix",
            "felix-calc",
            "bird",
            "bird-intent",
            "bird-speaker",
        ],
    ),
    ("integration", &["bird-packet", "caracal-model", "caracal-datastore", "caracal-netlink"]),
    ("bird-oracle", &[]),
];

/// Crates that do no I/O; none of these may appear among what they depend on, at any depth.
const PURE: &[&str] =
    &["caracal-model", "caracal-reconcile", "felix-calc", "bird-packet", "bird-speaker", "bird-intent"];
const IMPURE: &[&str] = &[
    "tokio",
    "mio",
    "nix",
    "socket2",
    "netlink-sys",
    "rtnetlink",
    "etcd-client",
    "rusqlite",
    "rand",
    "tracing",
];

struct Graph {
    ours: BTreeSet<String>,
    /// Package name -> names of its normal and build dependencies.
    edges: BTreeMap<String, BTreeSet<String>>,
}

fn graph() -> Graph {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let members: BTreeSet<String> =
        list(&metadata["workspace_members"]).iter().filter_map(|id| id.as_str().map(String::from)).collect();
    let mut names = BTreeMap::new();
    let mut ours = BTreeSet::new();
    for package in list(&metadata["packages"]) {
        let (id, name) = (text(&package["id"]), text(&package["name"]));
        if members.contains(&id) {
            ours.insert(name.clone());
        }
        names.insert(id, name);
    }
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for node in list(&metadata["resolve"]["nodes"]) {
        let from = names[&text(&node["id"])].clone();
        let to = edges.entry(from).or_default();
        for dep in list(&node["deps"]) {
            if list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].as_str() != Some("dev")) {
                to.insert(names[&text(&dep["pkg"])].clone());
            }
        }
    }
    Graph { ours, edges }
}

#[test]
fn imports_point_one_way() {
    let graph = graph();
    let table: BTreeMap<&str, &[&str]> = TABLE.iter().copied().collect();
    let mut wrong = Vec::new();
    for name in &graph.ours {
        let Some(allowed) = table.get(name.as_str()) else {
            wrong.push(format!("{name} is not in the table"));
            continue;
        };
        for dep in graph.edges[name].intersection(&graph.ours) {
            if !allowed.contains(&dep.as_str()) {
                wrong.push(format!("{name} must not depend on {dep}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn pure_crates_reach_no_io() {
    let graph = graph();
    let mut wrong = Vec::new();
    for start in PURE {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![(*start).to_owned()]);
        while let Some(name) = todo.pop() {
            for dep in graph.edges.get(&name).into_iter().flatten() {
                if IMPURE.contains(&dep.as_str()) {
                    wrong.push(format!("{start} reaches {dep} through {name}"));
                }
                if seen.insert(dep.clone()) {
                    todo.push(dep.clone());
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
