//! Whatever sequence of updates, flushed whenever: the answer is that of a calculation that only saw the end.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;

use felix_calc::{Calc, Desired, WepId};
use proptest::prelude::*;

const R: &str = "/calico/resources/v3/projectcalico.org";

/// A value for one of a few endpoints that share a few links and addresses.
#[derive(Clone, Debug)]
struct Endpoint {
    pod: u8,
    iface: u8,
    addresses: Vec<u8>,
    created: u8,
}

#[derive(Clone, Debug)]
enum Event {
    Put(Endpoint),
    Delete(u8),
    Prefixes(bool),
    Garbage(Vec<u8>, Vec<u8>),
    Poll,
}

fn event() -> impl Strategy<Value = Event> {
    let endpoint = (0u8..6, 0u8..4, proptest::collection::vec(0u8..5, 0..3), 0u8..4);
    prop_oneof![
        6 => endpoint.prop_map(|(pod, iface, addresses, created)| Event::Put(Endpoint { pod, iface, addresses, created })),
        3 => (0u8..6).prop_map(Event::Delete),
        1 => any::<bool>().prop_map(Event::Prefixes),
        1 => (proptest::collection::vec(any::<u8>(), 0..20), proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(key, value)| Event::Garbage(key, value)),
        3 => Just(Event::Poll),
    ]
}

fn key(pod: u8) -> String {
    format!("{R}/workloadendpoints/default/n1-k8s-pod{pod}-eth0")
}

fn value(endpoint: &Endpoint) -> String {
    let Endpoint { pod, iface, addresses, created } = endpoint;
    // Equally old objects are told apart by who was first, which is not in the datastore: not here.
    let created = format!("2026-01-02T03:{created:02}:{pod:02}Z");
    let iface = format!("{}{iface}", if iface % 2 == 0 { "cali" } else { "tap" });
    let nets: Vec<String> = addresses.iter().map(|a| format!("10.0.0.{a}/32")).collect();
    serde_json::json!({"metadata": {"creationTimestamp": created},
        "spec": {"node": "n1", "interfaceName": iface, "endpoint": "eth0", "ipNetworks": nets}})
    .to_string()
}

fn pool(calc: &mut Calc) {
    calc.on_update(&format!("{R}/ippools/p"), Some(br#"{"spec":{"cidr":"10.0.0.0/24"}}"#));
}

fn poll(calc: &mut Calc, told: &mut BTreeMap<WepId, Desired>) {
    for (id, desired) in calc.poll().endpoints {
        match desired {
            Some(desired) => told.insert(id, desired),
            None => told.remove(&id),
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn only_the_end_counts(events in proptest::collection::vec(event(), 0..60)) {
        let mut calc = Calc::new("n1", BTreeMap::new());
        let (mut told, mut keys) = (BTreeMap::new(), BTreeMap::new());
        pool(&mut calc);
        for event in &events {
            match event {
                Event::Put(endpoint) => {
                    let (key, value) = (key(endpoint.pod), value(endpoint));
                    calc.on_update(&key, Some(value.as_bytes()));
                    keys.insert(key, value);
                }
                Event::Delete(pod) => {
                    calc.on_update(&key(*pod), None);
                    keys.remove(&key(*pod));
                }
                Event::Prefixes(both) => {
                    let key = format!("{R}/felixconfigurations/default");
                    let value = format!(r#"{{"spec":{{"interfacePrefix":"{}"}}}}"#, if *both { "cali,tap" } else { "cali" });
                    calc.on_update(&key, Some(value.as_bytes()));
                    keys.insert(key, value);
                }
                Event::Garbage(key, value) => {
                    let key = format!("{R}/workloadendpoints/{}", String::from_utf8_lossy(key));
                    calc.on_update(&key, Some(value));
                    calc.on_update(&key, None);
                }
                Event::Poll => poll(&mut calc, &mut told),
            }
        }
        poll(&mut calc, &mut told);
        let mut fresh = Calc::new("n1", BTreeMap::new());
        let mut expected = BTreeMap::new();
        pool(&mut fresh);
        for (key, value) in &keys {
            fresh.on_update(key, Some(value.as_bytes()));
        }
        poll(&mut fresh, &mut expected);
        prop_assert_eq!(&told, &expected);
        // No link and no address belongs to two.
        let workloads: Vec<_> = told.values().filter_map(|d| d.workload.as_ref()).collect();
        let mut links: Vec<_> = workloads.iter().map(|w| &w.iface).collect();
        let mut addresses: Vec<_> = workloads.iter().flat_map(|w| &w.addresses).collect();
        let (some_links, some_addresses) = (links.len(), addresses.len());
        links.sort();
        links.dedup();
        addresses.sort();
        addresses.dedup();
        prop_assert_eq!((links.len(), addresses.len()), (some_links, some_addresses));
    }
}
