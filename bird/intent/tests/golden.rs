//! The golden cases: datastore states, and what real Calico makes of them. See `integration/golden/bgp/README.md`.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its case has failed")]
#![allow(clippy::disallowed_methods, reason = "the crate is pure, its cases are files")]

use std::path::PathBuf;

use bird_intent::{Env, Facts, derive};
use serde_json::Value;

/// Lists whose order counts.
const ORDERED: &[&str] = &[
    "importFilters",
    "exportFilters",
    "importV4",
    "importV6",
    "exportV4",
    "exportV6",
    "operations",
    "asPathPrefix",
    "prependASPath",
];
/// Fields beyond the schema that ours may have; anything else beyond it is a mistake.
const OURS: &[&str] = &["problems"];
const OURS_IN_PEER: &[&str] = &["bgpPeer", "export"];

fn cases() -> Vec<(String, Value)> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../integration/golden/bgp/cases");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&dir).expect("the cases are there").map(|e| e.unwrap().path()).collect();
    files.sort();
    files
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            (path.file_stem().unwrap().to_string_lossy().into_owned(), serde_json::from_str(&text).unwrap())
        })
        .collect()
}

fn bytes_of(value: &Value) -> Vec<u8> {
    value.as_str().map_or_else(|| serde_json::to_vec(value).unwrap(), |raw| raw.as_bytes().to_vec())
}

fn facts_of(case: &Value, reversed: bool) -> Facts {
    let mut facts = Facts::new();
    let mut keys: Vec<(&String, &Value)> = case["etcd"].as_object().unwrap().iter().collect();
    if reversed {
        keys.reverse();
    }
    let mut prefixes = Facts::prefixes(None);
    prefixes.push(Facts::workload_prefix());
    for (key, value) in keys {
        if prefixes.iter().any(|p| key.starts_with(p.as_str())) {
            assert_eq!(facts.update(key, Some(&bytes_of(value))).problem, None, "{key}");
        }
    }
    facts
}

fn env_of(case: &Value) -> Env {
    Env::from_lookup(&|name: &str| case["env"][name].as_str().map(str::to_owned))
}

/// Nulls dropped, unordered lists sorted.
fn canonical(value: &Value, key: &str) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), canonical(v, k))).collect(),
        ),
        Value::Array(list) => {
            let mut list: Vec<Value> = list.iter().map(|v| canonical(v, "")).collect();
            if !ORDERED.contains(&key) {
                list.sort_by_key(ToString::to_string);
            }
            Value::Array(list)
        }
        other => other.clone(),
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty)
}

fn diff(want: &Value, got: &Value, path: &str, out: &mut Vec<String>) {
    if let (Value::Object(want), Value::Object(got)) = (want, got) {
        for (key, value) in want {
            match got.get(key) {
                Some(other) => diff(value, other, &format!("{path}.{key}"), out),
                None if is_empty(value) => {}
                None => out.push(format!("{path}.{key}: want {value}, got nothing")),
            }
        }
        for (key, value) in got {
            let ours = match path {
                "" => OURS,
                ".peers[]" => OURS_IN_PEER,
                _ => &[],
            };
            if !want.contains_key(key) && !is_empty(value) && !ours.contains(&key.as_str()) {
                out.push(format!("{path}.{key}: want nothing, got {value}"));
            }
        }
        return;
    }
    if path == ".peers"
        && let (Value::Array(want), Value::Array(got)) = (want, got)
    {
        let names = |list: &[Value]| list.iter().map(|p| p["name"].to_string()).collect::<Vec<_>>();
        if names(want) != names(got) {
            out.push(format!(".peers: want {:?}, got {:?}", names(want), names(got)));
        }
        for (want, got) in want.iter().zip(got) {
            diff(want, got, ".peers[]", out);
        }
        return;
    }
    if want != got {
        out.push(format!("{path}: want {want}, got {got}"));
    }
}

fn by_name(mut config: Value) -> Value {
    if let Some(peers) = config["peers"].as_array_mut() {
        peers.sort_by_key(|p| p["name"].to_string());
    }
    config
}

#[test]
fn every_case_is_derived_as_calico_does() {
    let cases = cases();
    assert_eq!(cases.len(), 84);
    let mut failures = Vec::new();
    for (name, case) in &cases {
        let node = case["node"].as_str().unwrap();
        let derived = derive(&facts_of(case, false), node, &env_of(case));
        let mut found = Vec::new();
        match (case["expect"]["error"].as_bool(), derived) {
            (Some(true), Err(_)) => {}
            (Some(true), Ok(_)) => found.push("must fail".to_owned()),
            (_, Err(err)) => found.push(err.to_string()),
            (_, Ok(config)) => {
                let got = by_name(canonical(&serde_json::to_value(&config).unwrap(), ""));
                diff(&by_name(canonical(&case["expect"], "")), &got, "", &mut found);
                let reversed = derive(&facts_of(case, true), node, &env_of(case)).unwrap();
                assert_eq!(config, reversed, "{name}: the order of the keys must not matter");
            }
        }
        if !found.is_empty() {
            failures.push(format!("{name}: {}\n    {}", case["description"], found.join("\n    ")));
        }
    }
    assert!(failures.is_empty(), "{} of {} fail:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

/// Keys that go leave nothing behind: what remains is derived as if they had never been there.
#[test]
fn a_key_that_goes_leaves_nothing() {
    let cases = cases();
    for pair in cases.windows(2) {
        let [(_, first), (name, second)] = pair else { unreachable!("windows of two") };
        let mut facts = facts_of(first, false);
        for key in first["etcd"].as_object().unwrap().keys() {
            facts.update(key, None);
        }
        for (key, value) in second["etcd"].as_object().unwrap() {
            facts.update(key, Some(&bytes_of(value)));
        }
        let node = second["node"].as_str().unwrap();
        let fresh = derive(&facts_of(second, false), node, &env_of(second));
        assert_eq!(derive(&facts, node, &env_of(second)), fresh, "{name}");
    }
}
