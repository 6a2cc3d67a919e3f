//! What anybody may write into the datastore harms its own object only, and one line says what, where, why and how to mend.
//!
//! Every case runs under two streams of 1,000 packets a second, and a new endpoint on every node has to come and go while
//! the bad object is still there.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use integration::faults::Bench;
use integration::lab::{Process, eventually};
use integration::picture::{Options, Picture, binary, routes};
use integration::router::RouterKind;
use integration::seed::{self, Item, Workload};
use integration::store::StoreKind;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(20);
const RESOURCES: &str = "/calico/resources/v3/projectcalico.org";
/// What a value is filled with; no log line may repeat a value.
const FILLING: &str = "needle-in-a-haystack";

/// Every kind of the model: its plural, whether it has a namespace.
const KINDS: [(&str, bool); 23] = [
    ("nodes", false),
    ("workloadendpoints", true),
    ("hostendpoints", false),
    ("ippools", false),
    ("ipreservations", false),
    ("bgppeers", false),
    ("bgpconfigurations", false),
    ("bgpfilters", false),
    ("felixconfigurations", false),
    ("clusterinformations", false),
    ("globalnetworkpolicies", false),
    ("networkpolicies", true),
    ("stagedglobalnetworkpolicies", false),
    ("stagednetworkpolicies", true),
    ("stagedkubernetesnetworkpolicies", true),
    ("globalnetworksets", false),
    ("networksets", true),
    ("tiers", false),
    ("profiles", false),
    ("caliconodestatuses", false),
    ("kubecontrollersconfigurations", false),
    ("ipamconfigurations", false),
    ("blockaffinities", false),
];

fn key(plural: &str, namespaced: bool, name: &str) -> String {
    format!("{RESOURCES}/{plural}/{}{name}", if namespaced { "default/" } else { "" })
}

/// The picture with felix and bird as two processes on each node, so that each log is one agent's.
struct Victim {
    bench: Bench,
    pids: Vec<Option<i32>>,
}

type Marks = BTreeMap<String, usize>;

impl Victim {
    fn start(name: &str) -> anyhow::Result<Self> {
        let options =
            Options { store: StoreKind::Etcd, router: RouterKind::Bird, split: true, binary: binary()? };
        let mut bench = Bench::start(Picture::new(name, &options)?)?;
        let pids = pids(&mut bench.picture);
        Ok(Self { bench, pids })
    }

    /// Lengths of all logs now.
    fn mark(&self) -> Marks {
        let mut marks = Marks::new();
        for node in &self.bench.picture.nodes {
            for (role, agent) in &node.agents {
                marks.insert(format!("{} {role}", node.name), agent.log().len());
            }
        }
        marks
    }

    /// Warnings and errors since `marks` that hold `needle`, by node and agent.
    fn complaints(&self, marks: &Marks, needle: &str) -> BTreeMap<String, Vec<String>> {
        let mut found = BTreeMap::new();
        for node in &self.bench.picture.nodes {
            for (role, agent) in &node.agents {
                let who = format!("{} {role}", node.name);
                let log = agent.log();
                let new = log.get(marks.get(&who).copied().unwrap_or(0)..).unwrap_or_default();
                let lines: Vec<String> = new
                    .lines()
                    .filter(|line| {
                        (line.contains(" WARN ") || line.contains("ERROR ")) && line.contains(needle)
                    })
                    .map(String::from)
                    .collect();
                if !lines.is_empty() {
                    found.insert(who, lines);
                }
            }
        }
        found
    }

    /// Writes under traffic; nothing may be lost, no agent may end, new endpoints must come and go.
    fn survives(&mut self, name: &str, items: Vec<(String, Vec<u8>)>) -> anyhow::Result<()> {
        let outcome = self.bench.run(name, |picture| {
            picture.store.put_many(items)?;
            std::thread::sleep(Duration::from_millis(500));
            Ok(())
        })?;
        assert_eq!(outcome.lost(), 0, "{name}: {outcome:?}");
        self.same_agents(name);
        Ok(())
    }

    fn same_agents(&mut self, name: &str) {
        assert_eq!(pids(&mut self.bench.picture), self.pids, "{name}: an agent has ended");
    }

    /// Each of `who` says exactly one line about `needle`, with all of `words`; nobody else says anything.
    fn one_line(
        &self,
        name: &str,
        marks: &Marks,
        needle: &str,
        who: &[&str],
        words: &[&str],
    ) -> anyhow::Result<()> {
        let found = eventually(LIMIT, || {
            let found = self.complaints(marks, needle);
            if who.iter().all(|w| found.contains_key(*w)) { Ok(found) } else { Err(format!("{found:#?}")) }
        })
        .with_context(|| format!("{name}: {who:?} have to say something about {needle}\n{}", self.logs()))?
        .0;
        assert_eq!(found.keys().collect::<Vec<_>>(), who.iter().collect::<Vec<_>>(), "{name}: {found:#?}");
        for lines in found.values() {
            let [line] = lines.as_slice() else { panic!("{name}: one line is due: {lines:#?}") };
            for word in words {
                assert!(line.contains(word), "{name}: {word:?} missing in: {line}");
            }
            assert!(line.len() < 1000 && !line.contains(FILLING), "{name}: the value is in the log: {line}");
            println!("said | {name}: {}", line.split_once("WARN ").map_or(line.as_str(), |(_, text)| text));
        }
        Ok(())
    }

    fn logs(&self) -> String {
        self.bench.picture.lab.logs(25)
    }
}

fn pids(picture: &mut Picture) -> Vec<Option<i32>> {
    picture.nodes.iter_mut().flat_map(|n| n.agents.values_mut()).map(Process::pid).collect()
}

/// Name; key, bad value and the good one; what the log line must say.
type Case<'a> = (&'a str, (String, String, Value), &'a [&'a str]);

/// A workload endpoint of node2 that is in order, to be spoiled.
fn endpoint(name: &str, octet: u8, netns: Option<String>) -> Item {
    Workload {
        pod: name.into(),
        node: "node2".into(),
        addresses: vec![[10, 100, 104, octet].into()],
        interface: format!("cali{:011x}", 0xbad_000 + u32::from(octet)),
        number: 800 + u32::from(octet),
        netns,
    }
    .endpoint()
}

/// One workload endpoint with one mistake, what the log must say about it, and what heals it.
#[test]
fn one_bad_endpoint_is_one_line() -> anyhow::Result<()> {
    let mut victim = Victim::start("bie")?;
    let space = victim.bench.picture.lab.host("healed")?;
    let path = space.path().to_string_lossy().into_owned();
    let gone = format!("{path}-is-gone");
    let spoil = |octet: u8, field: &str, value: Value| -> (String, String, Value) {
        let (key, good) = endpoint("spoiled", octet, Some(path.clone()));
        let mut bad = good.clone();
        *bad.pointer_mut(field).expect("the field is there") = value;
        (key, bad.to_string(), good)
    };
    let raw = |octet: u8, text: String| -> (String, String, Value) {
        let (key, good) = endpoint("spoiled", octet, Some(path.clone()));
        (key, text, good)
    };
    let cases: Vec<Case> = vec![
        (
            "invalid JSON",
            raw(50, format!("{{\"kind\":\"WorkloadEndpoint\",\"spec\":\"{FILLING}")),
            &["damaged"],
        ),
        ("JSON null", raw(50, "null".into()), &[]),
        ("a JSON text", raw(50, format!("\"{FILLING}\"")), &[]),
        ("nothing at all", raw(50, String::new()), &[]),
        ("1 MiB", raw(50, format!("{{\"spec\":\"{}\"}}", FILLING.repeat(1024 * 1024 / FILLING.len()))), &[]),
        ("wrong type", spoil(50, "/spec/ipNetworks", json!(FILLING)), &["ipNetworks"]),
        ("unknown kind", spoil(50, "/kind", json!("Quantum")), &["kind"]),
        (
            "address outside any pool",
            spoil(50, "/spec/ipNetworks", json!(["172.31.0.5/32"])),
            &["ipNetworks", "pool"],
        ),
        ("no address", spoil(50, "/spec/ipNetworks", json!(["10.100.104.50.1/32"])), &["ipNetworks"]),
        (
            "interface name too long",
            spoil(50, "/spec/interfaceName", json!("cali0123456789abcdef")),
            &["interfaceName", "15"],
        ),
        (
            "foreign interface name",
            spoil(50, "/spec/interfaceName", json!("ens160")),
            &["interfaceName", "cali"],
        ),
        (
            "namespace that is gone",
            spoil(50, "/metadata/annotations", json!({ "caracal.io/netns": gone })),
            &["is-gone"],
        ),
        (
            "address that pod-c has",
            spoil(50, "/spec/ipNetworks", json!(["10.100.104.15/32"])),
            &["10.100.104.15"],
        ),
    ];
    for (name, (key, bad, good), words) in cases {
        let marks = victim.mark();
        victim.survives(name, vec![(key.clone(), bad.into_bytes())])?;
        victim.one_line(name, &marks, "spoiled", &["node2 felix"], words)?;

        // Healed, it works as if nothing had been.
        let node = victim.bench.picture.node("node2").space.clone();
        victim.bench.picture.store.put(&[(key.clone(), good)])?;
        eventually(LIMIT, || {
            let lines = routes(&node).map_err(|err| err.to_string())?;
            if lines.iter().any(|l| l.starts_with("10.100.104.50 dev cali")) {
                Ok(())
            } else {
                Err(format!("{lines:#?}"))
            }
        })
        .with_context(|| format!("{name}: healed\n{}", victim.logs()))?;
        victim.bench.picture.store.delete(&key)?;
        eventually(LIMIT, || {
            let lines = routes(&node).map_err(|err| err.to_string())?;
            if lines.iter().any(|l| l.starts_with("10.100.104.50 ")) {
                Err(format!("{lines:#?}"))
            } else {
                Ok(())
            }
        })
        .with_context(|| format!("{name}: deleted\n{}", victim.logs()))?;
    }
    Ok(())
}

/// Objects that are in use turn bad: their last good state stays.
#[test]
fn good_objects_that_turn_bad_keep_working() -> anyhow::Result<()> {
    let mut victim = Victim::start("big")?;
    let good: Vec<Item> = victim.bench.picture.cluster_items();
    let endpoints: Vec<Item> = victim.bench.picture.workloads().iter().map(Workload::endpoint).collect();
    let live = |needle: &str| -> anyhow::Result<Item> {
        let found = good.iter().chain(&endpoints).find(|(key, _)| key.contains(needle));
        found.cloned().with_context(|| format!("{needle} is seeded"))
    };
    for (needle, value) in [
        ("/workloadendpoints/default/node2-k8s-pod--c-eth0", "null"),
        ("/nodes/node1", "null"),
        ("/nodes/node2", "{\"kind\":"),
        ("/ippools/pool1", "null"),
        ("/ippools/pool1", "{\"kind\":\"IPPool\",\"spec\":{\"cidr\":12}}"),
        ("/bgpconfigurations/default", "null"),
        ("/bgppeers/tor", "null"),
        ("/clusterinformations/default", "null"),
        ("/ipv4/block/10.100.104.0-26", "null"),
        ("/host/node2/ipv4/block/10.100.104.0-26", "null"),
    ] {
        let (key, whole) = live(needle)?;
        let name = format!("{needle} = {value}");
        let marks = victim.mark();
        victim.survives(&name, vec![(key.clone(), value.into())])?;
        let said = victim.complaints(&marks, needle.rsplit('/').next().unwrap_or_default());
        assert!(!said.is_empty(), "{name}: nobody says anything\n{}", victim.logs());
        for (who, lines) in &said {
            assert_eq!(lines.len(), 1, "{name}: {who} says it once: {lines:#?}");
        }
        // Agents that start now find it bad from the beginning; those that run keep what they know.
        victim.survives("and put right", vec![(key, whole.to_string().into_bytes())])?;
    }
    Ok(())
}

#[test]
fn null_under_every_kind() -> anyhow::Result<()> {
    let mut victim = Victim::start("bin")?;
    let marks = victim.mark();
    let mut items: Vec<(String, Vec<u8>)> = KINDS
        .iter()
        .map(|(plural, namespaced)| (key(plural, *namespaced, "node2-k8s-nothing-eth0"), b"null".to_vec()))
        .collect();
    items.push(("/calico/ipam/v2/assignment/ipv4/block/10.100.250.0-26".into(), b"null".to_vec()));
    items.push(("/calico/ipam/v2/host/node2/ipv4/block/10.100.250.0-26".into(), b"null".to_vec()));
    items.push(("/calico/ipam/v2/handle/nothing".into(), b"null".to_vec()));
    items.push(("/calico/ipam/v2/config".into(), b"null".to_vec()));
    let keys: Vec<String> = items.iter().map(|(key, _)| key.clone()).collect();
    victim.survives("null under a key of every kind", items)?;
    let said = victim.complaints(&marks, "node2-k8s-nothing-eth0");
    for agent in ["node2 felix", "node2 bird"] {
        let lines = said.get(agent).with_context(|| format!("{agent} says nothing\n{}", victim.logs()))?;
        // One line a key at most, each about another key.
        for (plural, _) in KINDS {
            let about: Vec<_> = lines.iter().filter(|l| l.contains(&format!("/{plural}/"))).collect();
            assert!(about.len() <= 1, "{agent}: {about:#?}");
        }
    }
    victim.bench.picture.store.delete_many(keys)?;
    victim.survives("and deleted", Vec::new())
}

#[test]
fn two_hundred_garbage_keys_at_once() -> anyhow::Result<()> {
    let mut victim = Victim::start("bgk")?;
    let marks = victim.mark();
    let kinds = [
        ("workloadendpoints", true),
        ("globalnetworkpolicies", false),
        ("networkpolicies", true),
        ("bgppeers", false),
        ("nodes", false),
        ("ippools", false),
        ("bgpfilters", false),
        ("hostendpoints", false),
    ];
    let values: [&[u8]; 10] = [
        b"",
        b"null",
        b"{",
        b"[]",
        b"[[[[[[[[[[[[[[[[[[[[",
        b"\xff\xfe\x00garbage",
        b"{\"spec\":null,\"metadata\":null}",
        b"{\"kind\":\"Node\",\"apiVersion\":7,\"metadata\":{\"name\":[]},\"spec\":{\"bgp\":-1e999}}",
        b"{\"kind\":\"BGPPeer\",\"metadata\":{\"name\":\"x\"},\"spec\":{\"peerIP\":\"nowhere\",\"asNumber\":\"-5\"}}",
        b"{\"kind\":\"IPPool\",\"metadata\":{\"name\":\"x\"},\"spec\":{\"cidr\":\"0.0.0.0/99\",\"blockSize\":1e30}}",
    ];
    let items: Vec<(String, Vec<u8>)> = (0..200)
        .map(|i| {
            let (plural, namespaced) = kinds[i % kinds.len()];
            (
                key(plural, namespaced, &format!("node2-k8s-garbage{i}-eth0")),
                values[i / 8 % values.len()].to_vec(),
            )
        })
        .collect();
    let keys: Vec<String> = items.iter().map(|(key, _)| key.clone()).collect();
    victim.survives("200 garbage keys at once", items)?;
    let said = victim.complaints(&marks, "garbage");
    for (who, lines) in &said {
        assert!(lines.len() <= 200, "{who} says {} lines about 200 keys", lines.len());
        for key in &keys {
            let needle = format!("{} ", key.rsplit('/').next().unwrap_or_default());
            let about = lines.iter().filter(|line| line.replace('"', " ").contains(&needle)).count();
            assert!(about <= 1, "{who}: {about} lines about {key}");
        }
    }
    assert!(said.contains_key("node2 felix") && said.contains_key("node2 bird"), "{said:#?}");
    victim.bench.picture.store.delete_many(keys)?;
    victim.survives("200 garbage keys deleted", Vec::new())
}

#[test]
fn values_of_one_mebibyte() -> anyhow::Result<()> {
    let mut victim = Victim::start("bim")?;
    let marks = victim.mark();
    let text = FILLING.repeat(1024 * 1024 / FILLING.len());
    let mut items = Vec::new();
    for (plural, namespaced) in KINDS {
        let name = "node2-k8s-heavy-eth0";
        let value =
            json!({ "kind": "Any", "metadata": { "name": name, "annotations": { "a": text } }, "spec": {} });
        items.push((key(plural, namespaced, name), value.to_string().into_bytes()));
    }
    let keys: Vec<String> = items.iter().map(|(key, _)| key.clone()).collect();
    victim.survives("1 MiB under a key of every kind", items)?;
    for (who, lines) in victim.complaints(&marks, "heavy") {
        for line in &lines {
            assert!(line.len() < 2000 && !line.contains(FILLING), "{who}: the value is in the log");
        }
    }
    victim.bench.picture.store.delete_many(keys)?;
    victim.survives("and deleted", Vec::new())
}

/// A peer of another AS than its object says, and one that does not exist: one line, the other sessions stay.
#[test]
fn peers_that_cannot_work() -> anyhow::Result<()> {
    let mut victim = Victim::start("bip")?;
    let birds = ["node1 bird", "node2 bird", "node3 bird"];

    let marks = victim.mark();
    let (key, value) = seed::bgp_peer("nobody", "192.168.174.99".parse()?, 65_099);
    victim.survives("a peer that is not there", vec![(key.clone(), value.to_string().into_bytes())])?;
    victim.one_line(
        "a peer that is not there",
        &marks,
        "192_168_174_99",
        &birds,
        &["no route to the peer"],
    )?;
    victim.bench.picture.store.delete(&key)?;

    // The router is in AS 64999.
    let name = "the router is of another AS";
    let marks = victim.mark();
    let (key, mut value) = seed::bgp_peer("tor", "192.168.174.2".parse()?, 64_998);
    let wrong = (key.clone(), value.clone());
    victim.bench.picture.store.put(&[wrong])?;
    let bad_as = |victim: &Victim| -> BTreeMap<String, Vec<String>> {
        let mut said = victim.complaints(&marks, "192_168_174_2");
        for lines in said.values_mut() {
            lines.retain(|line| line.contains("AS"));
        }
        said.retain(|_, lines| !lines.is_empty());
        said
    };
    eventually(LIMIT, || {
        let said = bad_as(&victim);
        if birds.iter().all(|bird| said.contains_key(*bird)) { Ok(()) } else { Err(format!("{said:#?}")) }
    })
    .with_context(|| format!("{name}\n{}", victim.logs()))?;
    // It tries again and again, and says it once.
    std::thread::sleep(Duration::from_secs(4));
    let said = bad_as(&victim);
    for (who, lines) in &said {
        let [line] = lines.as_slice() else { panic!("{name}: {who}: one line is due: {lines:#?}") };
        assert!(line.contains("Bad Peer AS") && line.contains("fix=") && line.contains("asNumber"), "{line}");
        println!("said | {name}: {line}");
    }
    victim.same_agents(name);
    value["spec"]["asNumber"] = json!(64_999);
    let outcome = victim.bench.run("and put right", |picture| {
        picture.store.put(&[(key, value)])?;
        // BIRD waits a minute or more after an error of ours; this test does not.
        picture.router.kill();
        picture.router.restart()
    })?;
    assert_eq!(outcome.lost(), 0, "{outcome:?}");
    victim.same_agents("and put right");
    Ok(())
}

/// What ctl says about the same mistakes, before they get into the datastore and after.
#[test]
fn ctl_names_object_field_and_reason() -> anyhow::Result<()> {
    let options =
        Options { store: StoreKind::Etcd, router: RouterKind::Bird, split: false, binary: binary()? };
    let picture = Picture::new("bic", &options)?;
    picture.seed()?;
    let (_, good) = endpoint("checked", 51, None);
    let file = picture.lab.file("bad.json");
    for (name, field, value, words) in [
        ("interface name too long", "/spec/interfaceName", json!("cali0123456789abcdef"), &["nterface"][..]),
        ("no address", "/spec/ipNetworks", json!(["10.100.104.51.1/32"]), &["10.100.104.51.1/32"][..]),
        ("wrong type", "/spec/ipNetworks", json!("10.100.104.51/32"), &["ipNetworks"][..]),
        ("unknown kind", "/kind", json!("Quantum"), &["Quantum"][..]),
        ("unknown field", "/spec", json!({ "node": "node2", "colour": "red" }), &["colour"][..]),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(field).context("the field is there")? = value;
        std::fs::write(&file, bad.to_string())?;
        let (ok, stdout, stderr) = picture.store.ctl(&["apply", "-f", &file.to_string_lossy()])?;
        let said = format!("{stdout}{stderr}");
        assert!(!ok, "{name}: accepted: {said}");
        for word in words {
            assert!(said.contains(word), "{name}: {word:?} missing in: {said}");
        }
        assert!(said.lines().count() <= 4, "{name}: {said}");
        println!("said | ctl, {name}: {}", said.trim());
    }
    for (name, value) in [("invalid JSON", "{\"kind\":"), ("JSON null", "null")] {
        picture.store.put_raw(&key("ippools", false, "broken"), value)?;
        let (ok, stdout, stderr) = picture.store.ctl(&["get", "ippool", "broken", "-o", "yaml"])?;
        let said = format!("{stdout}{stderr}");
        assert!(!ok && said.contains("broken"), "{name}: {said}");
        println!("said | ctl get, {name}: {}", said.trim());
        let (ok, stdout, stderr) = picture.store.ctl(&["get", "ippools"])?;
        assert!(ok && stdout.contains("pool1"), "{name}: the others are listed: {stdout}{stderr}");
    }
    Ok(())
}
