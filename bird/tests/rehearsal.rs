//! What a rehearsal says is what real Calico did: the recorded cases with traffic of `integration/golden/bgp`, route by
//! route and peer by peer.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its case has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use bird::rehearsal::{Learned, Route, RouteSource, rehearse, speaker_config};
use bird_intent::{Env, Facts, Family, NodeConfig, derive};
use bird_speaker::ExportReason;
use ipnet::IpNet;
use serde_json::Value;

struct Case {
    value: Value,
    config: NodeConfig,
    own: BTreeMap<Family, IpAddr>,
}

fn texts(v: &Value) -> Vec<String> {
    v.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

fn number(v: &Value) -> Option<u32> {
    v.as_u64().map(|n| u32::try_from(n).unwrap())
}

fn parsed<T: std::str::FromStr>(v: &Value) -> Option<T> {
    v.as_str().and_then(|t| t.parse().ok())
}

fn read(path: &Path) -> Option<Case> {
    let value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    value.get("inputs")?;
    let mut facts = Facts::new();
    for (key, stored) in value["etcd"].as_object().unwrap() {
        let bytes = match stored {
            Value::String(raw) => raw.as_bytes().to_vec(),
            other => serde_json::to_vec(other).unwrap(),
        };
        facts.update(key, Some(&bytes));
    }
    let env = Env::from_lookup(&|name: &str| value["env"][name].as_str().map(str::to_owned));
    let node = value["node"].as_str().unwrap().to_owned();
    let config = derive(&facts, &node, &env).unwrap();
    let own = [Family::Ipv4, Family::Ipv6]
        .into_iter()
        .filter_map(|f| facts.address_of(&node, f).map(|a| (f, a)))
        .collect();
    Some(Case { value, config, own })
}

/// Every prefix of the case that the node has from one place only, so that there is no choice of a best path.
fn routes(case: &Case) -> Vec<Route> {
    let inputs = &case.value["inputs"];
    let mut found: BTreeMap<IpNet, Vec<RouteSource>> = BTreeMap::new();
    for prefix in case.config.blackholes.iter().chain(&case.config.services) {
        found.entry(*prefix).or_default().push(RouteSource::Own);
    }
    for route in &case.config.host_routes {
        found.entry(route.destination).or_default().push(RouteSource::Own);
    }
    for interface in inputs["interfaces"].as_array().into_iter().flatten() {
        for address in texts(&interface["addresses"]) {
            let interface = interface["name"].as_str().unwrap().to_owned();
            let ignored = ["cali", "kube-ipvs"].iter().any(|p| interface.starts_with(p))
                || case.config.ignored_interfaces.contains(&interface);
            if !ignored {
                let prefix = address.parse::<IpNet>().unwrap().trunc();
                found.entry(prefix).or_default().push(RouteSource::Connected { interface });
            }
        }
    }
    for route in inputs["routes"].as_array().into_iter().flatten() {
        found.entry(parsed(&route["dst"]).unwrap()).or_default().push(RouteSource::Kernel {
            interface: route["dev"].as_str().unwrap_or("eth0").to_owned(),
            gateway: parsed(&route["via"]),
            metric: number(&route["metric"]).unwrap_or(0),
        });
    }
    for (peer, list) in inputs["receives"].as_object().into_iter().flatten() {
        for route in list.as_array().unwrap() {
            let learned = Learned {
                peer: peer.clone(),
                as_path: route["asPath"].as_array().map(|p| p.iter().filter_map(number).collect()),
                local_pref: number(&route["localPref"]),
                med: number(&route["med"]),
                communities: texts(&route["communities"])
                    .iter()
                    .chain(&texts(&route["largeCommunities"]))
                    .map(|c| c.parse().unwrap())
                    .collect(),
                next_hop: parsed(&route["nextHop"]),
                originator_id: parsed(&route["originatorId"]),
                cluster_list: texts(&route["clusterList"]).iter().map(|c| c.parse().unwrap()).collect(),
            };
            found.entry(parsed(&route["prefix"]).unwrap()).or_default().push(RouteSource::Peer(learned));
        }
    }
    found
        .into_iter()
        .filter_map(|(prefix, mut sources)| {
            let source = sources.pop()?;
            sources.is_empty().then_some(Route { prefix, source })
        })
        .collect()
}

#[test]
fn every_recorded_export_is_foretold() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../integration/golden/bgp/cases");
    let (mut cases, mut told, mut untold) = (0, 0, 0);
    let (mut reasons, mut wrong) = (BTreeSet::new(), Vec::new());
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let Some(case) = read(&path) else { continue };
        cases += 1;
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        for route in routes(&case) {
            for peer in &case.config.peers {
                let sends = &case.value["sends"][&peer.name][route.prefix.to_string()];
                let speaker = speaker_config(&case.config).unwrap();
                let answer = rehearse(speaker, &case.own, &route, std::slice::from_ref(&peer.name)).unwrap();
                let telling = &answer.peers[0];
                let want = !sends.is_null();
                *(if want { &mut told } else { &mut untold }) += 1;
                reasons.insert(format!("{:?}", telling.reason));
                let mut differs = |what: &str, got: Value, want: &Value| {
                    if got != *want {
                        let (prefix, peer) = (route.prefix, &peer.name);
                        wrong.push(format!("{name} {prefix} to {peer}: {what} {got}, not {want}"));
                    }
                };
                differs(&format!("{:?}: exported", telling.reason), telling.exported.into(), &want.into());
                assert_eq!(telling.told.is_some(), telling.exported, "{name} {}", route.prefix);
                if let Some(told) = telling.told.as_ref().filter(|_| want) {
                    differs("asPath", told.attrs.as_path.clone().into(), &sends["asPath"]);
                    let communities = match &told.attrs.communities {
                        list if list.is_empty() => Value::Null,
                        list => list.clone().into(),
                    };
                    differs("communities", communities, &sends["communities"]);
                    let next_hop = told.next_hop.map(|n| n.to_string());
                    differs("nextHop", next_hop.into(), &sends["nextHop"]);
                    differs("localPref", told.attrs.local_pref.into(), &sends["localPref"]);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
    assert!(cases >= 19 && told > 100 && untold > 100, "{cases} cases, {told} told, {untold} not");
    assert!(reasons.len() >= 8, "{reasons:?}");
}

#[test]
fn a_filter_is_named_with_its_rule() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../integration/golden/bgp/cases");
    let mut named = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let Some(case) = read(&entry.unwrap().path()) else { continue };
        for route in routes(&case) {
            let peers: Vec<String> = case.config.peers.iter().map(|p| p.name.clone()).collect();
            let answer = rehearse(speaker_config(&case.config).unwrap(), &case.own, &route, &peers).unwrap();
            for telling in &answer.peers {
                let by_filter =
                    matches!(telling.reason, ExportReason::FilterAccepts | ExportReason::FilterRejects);
                assert_eq!(telling.rule.is_some(), by_filter);
                if let Some(rule) = &telling.rule {
                    let (filter, number) = rule.split_once(" rule ").unwrap();
                    let peer = case.config.peers.iter().find(|p| p.name == telling.peer).unwrap();
                    assert!(peer.export_filters.iter().any(|f| f == filter), "{rule}");
                    assert!(number.parse::<usize>().unwrap() >= 1);
                    named += 1;
                }
            }
        }
    }
    assert!(named > 0);
}

#[test]
fn an_unknown_peer_is_refused() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../integration/golden/bgp/cases");
    let case = std::fs::read_dir(dir).unwrap().find_map(|e| read(&e.unwrap().path())).unwrap();
    let route = Route { prefix: "10.0.0.0/24".parse().unwrap(), source: RouteSource::Own };
    let config = speaker_config(&case.config).unwrap();
    let err = rehearse(config, &case.own, &route, &["Mesh_1_2_3_4".into()]).unwrap_err();
    assert!(err.contains("Mesh_1_2_3_4"), "{err}");
}
