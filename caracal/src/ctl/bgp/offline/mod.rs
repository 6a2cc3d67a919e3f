//! What follows from the datastore alone: no agent is asked, none need run.

pub(crate) mod args;
mod diff;
mod explain;
mod route;
#[cfg(test)]
mod tests;
mod why;

use std::collections::BTreeMap;
use std::net::IpAddr;

use bird_intent::{Env, Facts, Family, NodeConfig, derive};
use bird_speaker::config::Config;

pub(super) use diff::diff;
pub(super) use explain::explain;

use crate::ctl::client::Client;
use crate::ctl::commands::console::complain;

/// A node as the datastore describes it.
struct Picture {
    facts: Facts,
    derived: NodeConfig,
    speaker: Config,
    own: BTreeMap<Family, IpAddr>,
}

impl Picture {
    fn of(facts: Facts, node: &str) -> Result<Self, String> {
        let env = Env::from_lookup(&|name: &str| std::env::var(name).ok());
        let derived = derive(&facts, node, &env).map_err(|e| e.to_string())?;
        let speaker = bird::rehearsal::speaker_config(&derived).ok_or_else(|| {
            let problems: Vec<String> = derived.problems.iter().map(ToString::to_string).collect();
            format!("the speaker of node {node} cannot start: {}", problems.join("; "))
        })?;
        let own = [Family::Ipv4, Family::Ipv6]
            .into_iter()
            .filter_map(|family| Some((family, facts.address_of(node, family)?)))
            .collect();
        Ok(Self { facts, derived, speaker, own })
    }
}

/// Everything that the configuration of `node` is derived from, or of all nodes; with all workloads if `workloads`.
pub(super) async fn read(client: &Client, node: Option<&str>, workloads: bool) -> Result<Facts, String> {
    let mut facts = Facts::new();
    for prefix in Facts::prefixes(node) {
        take_in(client, &mut facts, &prefix).await?;
    }
    if workloads || facts.wants_workloads() {
        take_in(client, &mut facts, &Facts::workload_prefix()).await?;
    }
    Ok(facts)
}

async fn take_in(client: &Client, facts: &mut Facts, prefix: &str) -> Result<(), String> {
    let listing = client.store.list(prefix).await.map_err(|e| format!("cannot read {prefix}: {e}"))?;
    for kv in listing.items {
        if let Some(problem) = facts.update(&kv.key, Some(&kv.value)).problem {
            complain(format!("warning: {problem}"));
        }
    }
    Ok(())
}
