//! What holds for every key, selector, name, duration and object, not only for the examples.

#![allow(clippy::unwrap_used, reason = "a strategy that fails fails the test")]

use std::collections::{BTreeMap, BTreeSet};

use caracal_model::{GoDuration, Key, Kind, Port, Resource, Selector, Value, WepName, names, net};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use serde_json::{Map, json};

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9.%_-]{0,12}[a-z0-9])?"
}

fn prefix() -> impl Strategy<Value = IpNet> {
    let v4 =
        (any::<u32>(), 0_u8..=32).prop_map(|(bits, len)| IpNet::V4(Ipv4Net::new(bits.into(), len).unwrap()));
    let v6 = (any::<u128>(), 0_u8..=128)
        .prop_map(|(bits, len)| IpNet::V6(Ipv6Net::new(bits.into(), len).unwrap()));
    prop_oneof![v4, v6].prop_map(|net| net.trunc())
}

fn key() -> impl Strategy<Value = Key> {
    let region = || proptest::option::of(name());
    let kind = proptest::sample::select(Kind::ALL);
    prop_oneof![
        (kind, name(), name()).prop_map(|(kind, namespace, name)| {
            if kind.namespaced() { Key::namespaced(kind, namespace, name) } else { Key::global(kind, name) }
        }),
        prefix().prop_map(Key::Block),
        (name(), prefix()).prop_map(|(host, block)| Key::Affinity { host, block }),
        (name(), prefix()).prop_map(|(owner, block)| Key::VirtualAffinity { owner, block }),
        name().prop_map(Key::Handle),
        Just(Key::IpamConfig),
        name().prop_map(Key::IpamHost),
        (name(), region()).prop_map(|(host, region)| Key::FelixStatus { host, region }),
        (name(), region()).prop_map(|(host, region)| Key::FelixLastStatus { host, region }),
        (name(), region(), name(), "[a-z0-9/%]{1,12}", name()).prop_map(
            |(host, region, orchestrator, workload, endpoint)| {
                Key::WorkloadStatus { host, region, orchestrator, workload, endpoint }
            }
        ),
        (name(), "[a-z0-9/%]{1,12}").prop_map(|(host, name)| Key::HostEndpointStatus { host, name }),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z\" ]{0,4}", "[a-zß' ]{0,4}"]
}

fn selector() -> impl Strategy<Value = Selector> {
    let label = || {
        proptest::sample::select(vec!["a", "b", "in", "has", "all", "projectcalico.org/namespace"])
            .prop_map(str::to_owned)
    };
    let set = || proptest::collection::btree_set(text(), 0..4);
    let leaf = prop_oneof![
        Just(Selector::All),
        Just(Selector::Global),
        label().prop_map(Selector::Has),
        (label(), text()).prop_map(|(label, value)| Selector::Eq(label, value)),
        (label(), text()).prop_map(|(label, value)| Selector::Ne(label, value)),
        (label(), set()).prop_map(|(label, set)| Selector::In(label, set)),
        (label(), set()).prop_map(|(label, set)| Selector::NotIn(label, set)),
        (label(), text()).prop_map(|(label, part)| Selector::Contains(label, part)),
        (label(), text()).prop_map(|(label, part)| Selector::StartsWith(label, part)),
        (label(), text()).prop_map(|(label, part)| Selector::EndsWith(label, part)),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(Selector::negate),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(Selector::And),
            proptest::collection::vec(inner, 2..4).prop_map(Selector::Or),
        ]
    })
}

/// Any JSON, not deep.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "[a-z/. ]{0,6}".prop_map(Into::into),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::btree_map("[a-z]{1,4}", inner, 0..4)
                .prop_map(|map| map.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_key_reads_back(key in key()) {
        prop_assert_eq!(Key::parse(&key.path()), Ok(key));
    }

    #[test]
    fn a_path_that_is_a_key_prints_back(path in "/calico/(ipam/v2|felix/v[12]|resources/v3/projectcalico.org)(/[a-z0-9%.:-]{0,9}){0,7}") {
        if let Ok(key) = Key::parse(&path) {
            prop_assert_eq!(key.path(), path);
        }
    }

    #[test]
    fn any_text_is_a_key_or_an_error(path in "\\PC{0,40}") {
        let _ = Key::parse(&path);
    }

    #[test]
    fn a_selector_reads_back(selector in selector()) {
        let canonical = selector.to_string();
        let parsed = Selector::parse(&canonical);
        prop_assert_eq!(parsed.as_ref(), Ok(&selector));
        prop_assert_eq!(parsed.unwrap().to_string(), canonical);
    }

    #[test]
    fn any_text_is_a_selector_or_an_error(text in "([a-c]|has\\(|all\\(\\)|[(){}!,'\" =&|]|==|!=| in | not in | contains ){0,24}") {
        if let Ok(selector) = Selector::parse(&text) {
            prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector));
        }
    }

    #[test]
    fn a_negation_matches_what_the_selector_does_not(
        selector in selector(),
        labels in proptest::collection::btree_map("[ab]", text(), 0..3),
    ) {
        prop_assert_eq!(selector.matches(&labels), !selector.clone().negate().matches(&labels));
        // Labels that it does not name make no difference.
        let named: BTreeSet<String> = selector.labels().into_iter().map(str::to_owned).collect();
        let fewer: BTreeMap<_, _> = labels.clone().into_iter().filter(|(label, _)| named.contains(label)).collect();
        prop_assert_eq!(selector.matches(&labels), selector.matches(&fewer));
    }

    #[test]
    fn a_workload_endpoint_name_reads_back(
        node in name(), orchestrator in "[a-z0-9]{1,5}", workload in "[a-z0-9](-{0,3}[a-z0-9]){0,6}", endpoint in "[a-z0-9]{1,6}",
    ) {
        let parts = WepName { node, orchestrator, workload, endpoint };
        let name = parts.format().unwrap();
        prop_assert!(name.starts_with(&WepName::workload_prefix(&parts.node, &parts.orchestrator, &parts.workload)));
        prop_assert_eq!(WepName::parse(&name), Ok(parts));
    }

    #[test]
    fn a_name_that_reads_prints_back(name in "[a-c-]{0,16}") {
        if let Ok(parts) = WepName::parse(&name) {
            prop_assert_eq!(parts.format(), Ok(name));
        }
    }

    #[test]
    fn an_interface_name_fits_the_kernel(namespace in "\\PC{0,64}", pod in "\\PC{0,64}") {
        prop_assert_eq!(names::pod_interface("cali", &namespace, &pod).len(), 15);
    }

    #[test]
    fn a_duration_reads_back(nanos in any::<i64>()) {
        let duration = GoDuration::from_nanos(nanos);
        prop_assert_eq!(duration.to_string().parse(), Ok(duration));
    }

    #[test]
    fn a_port_reads_back(min in any::<u16>(), max in any::<u16>(), name in "[a-z][a-z0-9-]{0,9}") {
        let range = if min < max { Port::Range(min, max) } else { Port::Number(min) };
        for port in [range, Port::Named(name)] {
            let json = serde_json::to_string(&port).unwrap();
            prop_assert_eq!(serde_json::from_str::<Port>(&json).unwrap(), port);
        }
    }

    #[test]
    fn an_address_is_where_its_ordinal_says(net in prefix(), ordinal in any::<u32>()) {
        let inside = net::size_of(net).is_none_or(|size| ordinal < size);
        let address = net::nth_address(net, ordinal);
        prop_assert_eq!(address.is_some(), inside);
        if let Some(address) = address {
            prop_assert_eq!(net::ordinal_of(net, address), Some(ordinal));
        }
    }

    #[test]
    fn unknown_fields_survive_at_every_level(unknown in any_json(), kind in proptest::sample::select(Kind::ALL)) {
        let mut object = json!({
            "kind": kind.kind_name(), "apiVersion": "projectcalico.org/v3", "x": unknown,
            "metadata": {"name": "n", "x": unknown}, "spec": {"x": unknown}, "status": {"x": unknown},
        });
        match kind {
            Kind::Node => object["spec"]["bgp"] = json!({"ipv4Address": "10.0.0.1/24", "x": unknown}),
            Kind::BgpFilter => object["spec"]["importV4"] = json!([{"action": "Accept", "x": unknown, "operations": [{"x": unknown}]}]),
            Kind::GlobalNetworkPolicy => {
                object["spec"]["ingress"] = json!([{"action": "Allow", "x": unknown, "source": {"ports": [1, "2:3", "d"], "x": unknown}}]);
            }
            Kind::WorkloadEndpoint => object["spec"]["ports"] = json!([{"name": "", "port": 80, "x": unknown}]),
            _ => {}
        }
        let resource = Resource::from_json(kind, &serde_json::to_vec(&object).unwrap()).unwrap();
        let again: serde_json::Value = serde_json::from_slice(&resource.to_json()).unwrap();
        prop_assert_eq!(&again, &object);
        prop_assert_eq!(resource.to_value(), object.clone());
        prop_assert_eq!(Resource::from_value(kind, object).unwrap(), resource);
    }

    #[test]
    fn any_value_is_read_or_one_error(key in key(), spec in any_json(), other in any_json()) {
        for json in [json!({"spec": spec, "metadata": other}), json!({"spec": {"bgp": spec, "ingress": other}}), spec, other] {
            let bytes = serde_json::to_vec(&json).unwrap();
            match Value::parse(&key, &bytes) {
                // What is read once is read again from what is written.
                Ok(value) => prop_assert_eq!(Value::parse(&key, &value.to_json()), Ok(value)),
                Err(error) => prop_assert!(!error.reason.is_empty() && !error.fix.is_empty()),
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_one_error(key in key(), bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = Value::parse(&key, &bytes);
    }
}
