//! State sequences: whatever way leads to a state, the dataplane that follows from it is the same.
//!
//! A case is a list of states; each state names the keys that exist and what must follow. The runner tries every
//! case as written and expanded: keys in reverse, states in reverse, an empty state between any two, each key
//! flushed alone, all states squashed into one flush.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};

use felix_calc::{Calc, Desired, Notice, WepId};

const R: &str = "/calico/resources/v3/projectcalico.org";

type Keys = BTreeMap<String, String>;
/// What must follow: endpoint -> interface, addresses, and a part of the problem ("" for none).
type Follows = BTreeMap<&'static str, (&'static str, Vec<&'static str>, &'static str)>;

#[derive(Clone)]
struct State {
    name: &'static str,
    keys: Keys,
    follows: Follows,
}

fn state(
    name: &'static str,
    keys: &[(String, String)],
    follows: &[(&'static str, &'static str, &[&'static str], &'static str)],
) -> State {
    State {
        name,
        keys: keys.iter().cloned().collect(),
        follows: follows
            .iter()
            .map(|(id, iface, addresses, problem)| (*id, (*iface, addresses.to_vec(), *problem)))
            .collect(),
    }
}

fn pool(name: &str, cidr: &str) -> (String, String) {
    let value = serde_json::json!({"kind": "IPPool", "apiVersion": "projectcalico.org/v3", "metadata": {"name": name},
        "spec": {"cidr": cidr}});
    (format!("{R}/ippools/{name}"), value.to_string())
}

/// An endpoint of `node`, made at second `created`.
fn wep(node: &str, pod: &str, created: u32, iface: &str, addresses: &[&str]) -> (String, String) {
    let name = format!("{node}-k8s-{pod}-eth0");
    let nets: Vec<String> =
        addresses.iter().map(|a| format!("{a}/{}", if a.contains(':') { 128 } else { 32 })).collect();
    let value = serde_json::json!({"kind": "WorkloadEndpoint", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name, "namespace": "default", "creationTimestamp": format!("2026-01-02T03:04:{created:02}Z")},
        "spec": {"orchestrator": "k8s", "node": node, "pod": pod, "endpoint": "eth0", "ipNetworks": nets, "interfaceName": iface}});
    (format!("{R}/workloadendpoints/default/{name}"), value.to_string())
}

fn felix_configuration(name: &str, spec: serde_json::Value) -> (String, String) {
    let value = serde_json::json!({"kind": "FelixConfiguration", "apiVersion": "projectcalico.org/v3", "metadata": {"name": name}, "spec": spec});
    (format!("{R}/felixconfigurations/{name}"), value.to_string())
}

/// What the caller of Calc has been told in all.
#[derive(Default)]
struct Told {
    endpoints: BTreeMap<WepId, Desired>,
    problems: BTreeMap<String, String>,
}

impl Told {
    fn poll(&mut self, calc: &mut Calc) {
        let changes = calc.poll();
        let mut seen = BTreeSet::new();
        for (id, desired) in changes.endpoints {
            assert!(seen.insert(id.clone()), "{id} twice in one poll");
            let old = match &desired {
                Some(d) => self.endpoints.insert(id.clone(), d.clone()),
                None => self.endpoints.remove(&id),
            };
            assert_ne!(old, desired, "{id}: told what was told before");
        }
        for notice in changes.notices {
            match notice {
                Notice::Problem { key, reason } => {
                    assert_ne!(self.problems.insert(key, reason.clone()), Some(reason), "said twice");
                }
                Notice::Solved { key } => {
                    assert!(self.problems.remove(&key).is_some(), "{key}: solved without a problem");
                }
                Notice::Config(_) | Notice::Locked | Notice::Unlocked => {}
            }
        }
    }

    fn check(&self, state: &State, how: &str) {
        let place = format!("state \"{}\", {how}", state.name);
        let ids: BTreeSet<String> = self.endpoints.keys().map(ToString::to_string).collect();
        let want: BTreeSet<String> =
            state.follows.keys().map(|id| format!("k8s/default/{id}/eth0")).collect();
        assert_eq!(ids, want, "{place}");
        for (id, desired) in &self.endpoints {
            let pod = id.workload.strip_prefix("default/").unwrap();
            let (iface, addresses, problem) = &state.follows[pod];
            let got = desired.workload.as_ref();
            assert_eq!(got.map_or("", |w| w.iface.as_str()), *iface, "{place}: interface of {pod}");
            let got: Vec<String> =
                got.iter().flat_map(|w| w.addresses.iter().map(ToString::to_string)).collect();
            assert_eq!(got, *addresses, "{place}: addresses of {pod}");
            let got = desired.problem.as_deref().unwrap_or("");
            assert!(
                if problem.is_empty() { got.is_empty() } else { got.contains(problem) },
                "{place}: problem of {pod}: {got:?}"
            );
        }
        let with_problem = state.follows.values().filter(|(_, _, problem)| !problem.is_empty()).count();
        assert_eq!(self.problems.len(), with_problem, "{place}: {:?}", self.problems);
    }
}

/// The changes from one set of keys to another.
fn changes(from: &Keys, to: &Keys) -> Vec<(String, Option<String>)> {
    let gone = from.keys().filter(|k| !to.contains_key(*k)).map(|k| (k.clone(), None));
    let new = to.iter().filter(|(k, v)| from.get(*k) != Some(v)).map(|(k, v)| (k.clone(), Some(v.clone())));
    gone.chain(new).collect()
}

fn run(states: &[State], reverse_keys: bool, flush_each: bool, squash: bool, how: &str) {
    let mut calc = Calc::new("n1", BTreeMap::new());
    let (mut told, mut now) = (Told::default(), Keys::new());
    for (index, state) in states.iter().enumerate() {
        let mut list = changes(&now, &state.keys);
        if reverse_keys {
            list.reverse();
        }
        for (key, value) in list {
            calc.on_update(&key, value.as_deref().map(str::as_bytes));
            if flush_each {
                told.poll(&mut calc);
            }
        }
        now = state.keys.clone();
        if squash && index + 1 < states.len() {
            continue;
        }
        told.poll(&mut calc);
        told.check(state, how);
    }
}

fn check(states: Vec<State>) {
    let empty = state("empty", &[], &[]);
    let mut reversed = states.clone();
    reversed.reverse();
    let between = |list: &[State]| list.iter().flat_map(|s| [s.clone(), empty.clone()]).collect::<Vec<_>>();
    for (states, order) in [(&states, "as written"), (&reversed, "states reversed")] {
        for reverse_keys in [false, true] {
            let keys = if reverse_keys { "keys reversed" } else { "keys in order" };
            run(states, reverse_keys, false, false, &format!("{order}, {keys}"));
            run(states, reverse_keys, true, false, &format!("{order}, {keys}, split"));
            run(states, reverse_keys, false, true, &format!("{order}, {keys}, squashed"));
            run(&between(states), reverse_keys, false, false, &format!("{order}, {keys}, empties inserted"));
            run(
                &between(states),
                reverse_keys,
                false,
                true,
                &format!("{order}, {keys}, empties inserted, squashed"),
            );
        }
    }
}

fn p4() -> (String, String) {
    pool("p4", "10.0.0.0/16")
}

#[test]
fn endpoints_come_change_and_go() {
    let a = wep("n1", "a", 1, "calia", &["10.0.0.1"]);
    let a2 = wep("n1", "a", 1, "calia", &["10.0.0.1", "10.0.0.2"]);
    let a3 = wep("n1", "a", 1, "calix", &["10.0.0.2"]);
    let b = wep("n1", "b", 2, "calib", &["10.0.0.3", "fd00::3"]);
    let p6 = pool("p6", "fd00::/64");
    check(vec![
        state("one", &[p4(), a.clone()], &[("a", "calia", &["10.0.0.1"], "")]),
        state(
            "two",
            &[p4(), p6.clone(), a.clone(), b.clone()],
            &[("a", "calia", &["10.0.0.1"], ""), ("b", "calib", &["10.0.0.3", "fd00::3"], "")],
        ),
        state(
            "one more address",
            &[p4(), p6.clone(), a2, b.clone()],
            &[("a", "calia", &["10.0.0.1", "10.0.0.2"], ""), ("b", "calib", &["10.0.0.3", "fd00::3"], "")],
        ),
        state(
            "another link",
            &[p4(), p6, a3, b.clone()],
            &[("a", "calix", &["10.0.0.2"], ""), ("b", "calib", &["10.0.0.3", "fd00::3"], "")],
        ),
        state(
            "an address that never was in a pool",
            &[p4(), wep("n1", "d", 1, "calid", &["10.0.0.4", "2001:db8::1"])],
            &[("d", "calid", &["10.0.0.4"], "spec.ipNetworks[1]: 2001:db8::1 is in no IPPool")],
        ),
    ]);
}

#[test]
fn other_nodes_endpoints_are_nothing_here() {
    let a = wep("n1", "a", 1, "calia", &["10.0.0.1"]);
    check(vec![
        state(
            "others",
            &[p4(), wep("n2", "x", 1, "calia", &["10.0.0.1"]), wep("n1--2", "y", 1, "calia", &["10.0.0.1"])],
            &[],
        ),
        state(
            "ours",
            &[p4(), wep("n2", "x", 1, "calia", &["10.0.0.1"]), a],
            &[("a", "calia", &["10.0.0.1"], "")],
        ),
    ]);
}

#[test]
fn one_link_belongs_to_the_smaller_identity() {
    let a = wep("n1", "a", 5, "cali1", &["10.0.0.1"]);
    let b = wep("n1", "b", 1, "cali1", &["10.0.0.2"]);
    let c = wep("n1", "c", 1, "cali3", &["10.0.0.1"]);
    check(vec![
        state("b alone", &[p4(), b.clone()], &[("b", "cali1", &["10.0.0.2"], "")]),
        state(
            "a and b",
            &[p4(), a.clone(), b.clone()],
            &[
                ("a", "cali1", &["10.0.0.1"], ""),
                ("b", "", &[], "spec.interfaceName: cali1 belongs to endpoint default/n1-k8s-a-eth0"),
            ],
        ),
        state(
            "c has the address already",
            &[p4(), a, b, c.clone()],
            &[
                ("a", "", &[], "spec.ipNetworks: 10.0.0.1 belongs to endpoint default/n1-k8s-c-eth0"),
                ("b", "", &[], "spec.interfaceName: cali1 belongs to"),
                ("c", "cali3", &["10.0.0.1"], ""),
            ],
        ),
        state("c alone", &[p4(), c], &[("c", "cali3", &["10.0.0.1"], "")]),
    ]);
}

#[test]
fn a_shadowed_endpoint_holds_no_address() {
    // b is older, but a owns the link: the address goes where the link is.
    let a = wep("n1", "a", 9, "cali1", &["10.0.0.1"]);
    let b = wep("n1", "b", 1, "cali1", &["10.0.0.1"]);
    check(vec![
        state(
            "both",
            &[p4(), a.clone(), b.clone()],
            &[("a", "cali1", &["10.0.0.1"], ""), ("b", "", &[], "spec.interfaceName")],
        ),
        state("b", &[p4(), b], &[("b", "cali1", &["10.0.0.1"], "")]),
        state("a", &[p4(), a], &[("a", "cali1", &["10.0.0.1"], "")]),
    ]);
}

#[test]
fn one_address_belongs_to_the_older_object() {
    let old = wep("n1", "z", 1, "caliz", &["10.0.0.1"]);
    let new = wep("n1", "a", 2, "calia", &["10.0.0.1", "10.0.0.2"]);
    let reborn = wep("n1", "z", 3, "caliz", &["10.0.0.1"]);
    let lost = "spec.ipNetworks: 10.0.0.1 belongs to endpoint default/n1-k8s-z-eth0, which is older";
    check(vec![
        state(
            "newcomer",
            &[p4(), old.clone(), new.clone()],
            &[("z", "caliz", &["10.0.0.1"], ""), ("a", "calia", &["10.0.0.2"], lost)],
        ),
        state("incumbent gone", &[p4(), new.clone()], &[("a", "calia", &["10.0.0.1", "10.0.0.2"], "")]),
        state(
            "incumbent made again",
            &[p4(), new, reborn],
            &[
                ("a", "calia", &["10.0.0.1", "10.0.0.2"], ""),
                ("z", "", &[], "10.0.0.1 belongs to endpoint default/n1-k8s-a-eth0"),
            ],
        ),
    ]);
}

#[test]
fn of_equally_old_objects_the_incumbent_keeps_the_address_also_over_a_restart() {
    let (a, z) = (wep("n1", "a", 1, "calia", &["10.0.0.1"]), wep("n1", "z", 1, "caliz", &["10.0.0.1"]));
    let holder = |told: &Told| {
        let with = told.endpoints.iter().filter(|(_, d)| d.workload.is_some());
        with.map(|(id, _)| id.workload.clone()).collect::<Vec<_>>()
    };
    for (first, second) in [(&a, &z), (&z, &a)] {
        let mut calc = Calc::new("n1", BTreeMap::new());
        let mut told = Told::default();
        calc.on_update(&p4().0, Some(p4().1.as_bytes()));
        for (key, value) in [first, second] {
            calc.on_update(key, Some(value.as_bytes()));
            told.poll(&mut calc);
        }
        let pod = if first == &a { "default/a" } else { "default/z" };
        assert_eq!(holder(&told), [pod]);
        let mut calc = Calc::new("n1", BTreeMap::new());
        let mut told = Told::default();
        let iface = if first == &a { "calia" } else { "caliz" };
        calc.adopt(BTreeMap::from([("10.0.0.1".parse().unwrap(), iface.to_owned())]));
        for (key, value) in [&p4(), &a, &z] {
            calc.on_update(key, Some(value.as_bytes()));
        }
        told.poll(&mut calc);
        assert_eq!(holder(&told), [pod], "after a restart");
    }
}

#[test]
fn pools_and_configuration_are_obeyed_whenever_they_come() {
    let a = wep("n1", "a", 1, "calia", &["10.0.0.1", "fd00::1"]);
    let t = wep("n1", "t", 1, "tapt", &["10.0.0.2"]);
    let p6 = pool("p6", "fd00::/64");
    check(vec![
        state(
            "no pool",
            &[wep("n1", "q", 1, "caliq", &["172.16.9.9"])],
            &[("q", "", &[], "spec.ipNetworks[0]: 172.16.9.9 is in no IPPool")],
        ),
        state(
            "prefix unknown",
            &[p4(), p6.clone(), a.clone(), t.clone()],
            &[
                ("a", "calia", &["10.0.0.1", "fd00::1"], ""),
                ("t", "", &[], "spec.interfaceName: \"tapt\" does not begin with cali"),
            ],
        ),
        state(
            "prefix known to this node",
            &[
                p4(),
                p6.clone(),
                a.clone(),
                t.clone(),
                felix_configuration("node.n1", serde_json::json!({"interfacePrefix": "cali,tap"})),
            ],
            &[("a", "calia", &["10.0.0.1", "fd00::1"], ""), ("t", "tapt", &["10.0.0.2"], "")],
        ),
        state(
            "no IPv6, and another node's prefix",
            &[
                p4(),
                p6,
                a,
                t,
                felix_configuration("default", serde_json::json!({"ipv6Support": false})),
                felix_configuration("node.n2", serde_json::json!({"interfacePrefix": "cali,tap"})),
            ],
            &[("a", "calia", &["10.0.0.1"], ""), ("t", "", &[], "spec.interfaceName")],
        ),
    ]);
}

#[test]
fn a_pool_deleted_under_its_workloads_takes_nothing_from_them_also_over_a_restart() {
    let a = wep("n1", "a", 1, "calia", &["10.0.0.1"]);
    // Claims the same link, but may not even have an address.
    let outsider = wep("n1", "A", 1, "calia", &["172.16.0.1"]);
    for restart in [false, true] {
        let mut calc = Calc::new("n1", BTreeMap::new());
        let mut told = Told::default();
        if restart {
            calc.adopt(BTreeMap::from([("10.0.0.1".parse().unwrap(), "calia".to_owned())]));
        } else {
            calc.on_update(&p4().0, Some(p4().1.as_bytes()));
        }
        calc.on_update(&a.0, Some(a.1.as_bytes()));
        calc.on_update(&outsider.0, Some(outsider.1.as_bytes()));
        told.poll(&mut calc);
        calc.on_update(&p4().0, None);
        told.poll(&mut calc);
        let of = |pod: &str| {
            told.endpoints.iter().find(|(id, _)| id.workload == format!("default/{pod}")).unwrap().1.clone()
        };
        assert_eq!(of("a").workload.unwrap().addresses.len(), 1, "restart: {restart}");
        assert!(of("a").problem.unwrap().contains("10.0.0.1 is in no IPPool"));
        assert!(of("A").workload.is_none());
    }
}

#[test]
fn an_endpoint_without_addresses_is_invisible() {
    check(vec![
        state("none", &[p4(), wep("n1", "a", 1, "calia", &[])], &[]),
        state(
            "one",
            &[p4(), wep("n1", "a", 1, "calia", &["10.0.0.1"])],
            &[("a", "calia", &["10.0.0.1"], "")],
        ),
        state(
            "IPv6 only, switched off",
            &[
                p4(),
                pool("p6", "fd00::/64"),
                wep("n1", "a", 1, "calia", &["fd00::1"]),
                felix_configuration("default", serde_json::json!({"ipv6Support": false})),
            ],
            &[],
        ),
    ]);
}

#[test]
fn damage_costs_its_own_object_only_and_the_last_good_value_stays() {
    let (key, good) = wep("n1", "a", 1, "calia", &["10.0.0.1"]);
    let (other_key, other) = wep("n1", "b", 1, "calib", &["10.0.0.2"]);
    let huge = format!("{{\"spec\":\"{}\"}}", "x".repeat(1 << 20));
    let wrong_kind = pool("p4", "10.0.0.0/16").1;
    let damages: [(&[u8], &str); 9] = [
        (b"{", "value: "),
        (b"null", "value: null"),
        (b"[]", "value: not a JSON object"),
        (b"\xff\xfe", "value: not UTF-8"),
        (b"", "value: empty"),
        (br#"{"spec":{"ipNetworks":"10.0.0.1"}}"#, "spec.ipNetworks: "),
        (br#"{"spec":[]}"#, "spec"),
        (huge.as_bytes(), "value: 1048587 bytes"),
        (wrong_kind.as_bytes(), ""),
    ];
    for (damage, part) in damages {
        let mut calc = Calc::new("n1", BTreeMap::new());
        let mut told = Told::default();
        let (pool_key, pool_value) = p4();
        calc.on_update(&pool_key, Some(pool_value.as_bytes()));
        calc.on_update(&key, Some(good.as_bytes()));
        told.poll(&mut calc);
        let before = told.endpoints.values().next().unwrap().workload.clone();
        assert!(before.is_some());
        for _ in 0..3 {
            calc.on_update(&key, Some(damage));
            calc.on_update(&other_key, Some(other.as_bytes()));
            told.poll(&mut calc);
        }
        assert_eq!(told.endpoints.len(), 2);
        let ours = told.endpoints.iter().find(|(id, _)| id.workload == "default/a").unwrap().1;
        assert_eq!(ours.workload, before, "the last good value stays");
        let problem = ours.problem.clone().unwrap();
        assert!(problem.contains(part) && problem.len() < 300, "{problem}");
        assert_eq!(told.problems.len(), 1, "{:?}", told.problems);
        // Mended, then deleted.
        calc.on_update(&key, Some(good.as_bytes()));
        told.poll(&mut calc);
        assert_eq!(told.problems.len(), 0);
        calc.on_update(&key, Some(damage));
        calc.on_update(&key, None);
        told.poll(&mut calc);
        assert_eq!(told.endpoints.len(), 1);
        assert_eq!(told.problems.len(), 0);
        // Damaged from the beginning: nothing to program, but a status that says why.
        calc.on_update(&key, Some(damage));
        told.poll(&mut calc);
        let ours = told.endpoints.iter().find(|(id, _)| id.workload == "default/a").unwrap().1;
        assert!(ours.workload.is_none() && ours.problem.is_some());
    }
}

#[test]
fn garbage_under_any_watched_prefix_is_one_line_each() {
    let mut calc = Calc::new("n1", BTreeMap::new());
    let mut told = Told::default();
    let (key, good) = wep("n1", "a", 1, "calia", &["10.0.0.1"]);
    calc.on_update(&p4().0, Some(p4().1.as_bytes()));
    calc.on_update(&key, Some(good.as_bytes()));
    for _ in 0..2 {
        for name in [
            "ippools/bad",
            "felixconfigurations/default",
            "bgpconfigurations/default",
            "clusterinformations/default",
        ] {
            calc.on_update(&format!("{R}/{name}"), Some(b"null"));
        }
        for name in [
            "ippools/p4",
            "unknownkind/x",
            "workloadendpoints/x",
            "workloadendpoints/default/n1-k8s",
            "workloadendpoints/default/n1---",
            "networkpolicies/x/y",
        ] {
            calc.on_update(&format!("{R}/{name}"), Some(b"{{{{"));
        }
        told.poll(&mut calc);
    }
    assert_eq!(told.problems.len(), 5, "{:?}", told.problems);
    assert_eq!(told.endpoints.len(), 1);
    assert!(told.endpoints.values().all(|d| d.workload.is_some() && d.problem.is_none()));
}

#[test]
fn a_locked_datastore_holds_everything() {
    let mut calc = Calc::new("n1", BTreeMap::new());
    let info = format!("{R}/clusterinformations/default");
    let (key, good) = wep("n1", "a", 1, "calia", &["10.0.0.1"]);
    calc.on_update(&p4().0, Some(p4().1.as_bytes()));
    calc.on_update(&info, Some(br#"{"spec":{"datastoreReady":false}}"#));
    calc.on_update(&key, Some(good.as_bytes()));
    let changes = calc.poll();
    assert_eq!((changes.endpoints.len(), changes.notices), (0, vec![Notice::Locked]));
    assert!(!calc.is_ready());
    calc.on_update(&info, Some(br#"{"spec":{"datastoreReady":true}}"#));
    let changes = calc.poll();
    assert_eq!((changes.endpoints.len(), changes.notices), (1, vec![Notice::Unlocked]));
}

#[test]
fn route_priority_from_bgp_configuration_stands_below_felix() {
    let mut calc = Calc::new("n1", BTreeMap::new());
    assert!(calc.poll().config.is_some(), "the first poll tells the configuration");
    let bgp = format!("{R}/bgpconfigurations/default");
    calc.on_update(
        &bgp,
        Some(br#"{"spec":{"ipv4NormalRoutePriority":700,"listenPort":178,"asNumber":64512}}"#),
    );
    assert_eq!(calc.poll().config.map(|c| c.metric_v4), Some(700));
    let (key, value) = felix_configuration("default", serde_json::json!({"ipv4NormalRoutePriority": 500}));
    calc.on_update(&key, Some(value.as_bytes()));
    assert_eq!(calc.poll().config.map(|c| c.metric_v4), Some(500));
    calc.on_update(&key, Some(value.as_bytes()));
    assert_eq!(calc.poll().config, None);
}
