//! `bgp config`: the speaker's configuration, from the datastore alone.

use bird_intent::{Env, Facts, derive};

use super::args::BgpConfig;
use crate::ctl::client::Client;
use crate::ctl::commands::console::{complain, line, out};
use crate::ctl::commands::session;
use crate::ctl::output::yaml::to_yaml;

/// `bgp config`.
pub(super) async fn config(arguments: &BgpConfig, allow_mismatch: bool) -> Result<bool, String> {
    let client = session::open(&arguments.connection, allow_mismatch).await?;
    let node = match &arguments.node {
        Some(node) => node.clone(),
        None => this_node().ok_or("name the node with --node; neither NODENAME nor a host name is set")?,
    };
    let mut facts = Facts::new();
    for prefix in Facts::prefixes(Some(&node)) {
        take_in(&client, &mut facts, &prefix).await?;
    }
    if facts.wants_workloads() {
        take_in(&client, &mut facts, &Facts::workload_prefix()).await?;
    }
    let env = Env::from_lookup(&|name: &str| std::env::var(name).ok());
    let config = derive(&facts, &node, &env).map_err(|e| e.to_string())?;
    let config = serde_json::to_value(&config).map_err(|e| format!("cannot show the configuration: {e}"))?;
    match arguments.output.as_str() {
        "json" => line(format!("{config:#}")),
        _ => out(&to_yaml(&config)),
    }
    Ok(true)
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

fn this_node() -> Option<String> {
    let named = std::env::var("NODENAME").ok().filter(|name| !name.is_empty());
    named.or_else(|| nix::unistd::gethostname().ok()?.into_string().ok().map(|name| name.to_lowercase()))
}
