//! `bgp config`: the speaker's configuration, from the datastore alone.

use bird_intent::{Env, derive};

use super::args::BgpConfig;
use super::offline;
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
    let facts = offline::read(&client, Some(&node), false).await?;
    let mut env = Env::from_lookup(&|name: &str| std::env::var(name).ok());
    let (secrets, complaints) = bird::passwords::known();
    for complaint in complaints {
        complain(format!("warning: {complaint}"));
    }
    env.secrets = secrets;
    let config = derive(&facts, &node, &env).map_err(|e| e.to_string())?;
    let config = serde_json::to_value(&config).map_err(|e| format!("cannot show the configuration: {e}"))?;
    match arguments.output.as_str() {
        "json" => line(format!("{config:#}")),
        _ => out(&to_yaml(&config)),
    }
    Ok(true)
}

fn this_node() -> Option<String> {
    let named = std::env::var("NODENAME").ok().filter(|name| !name.is_empty());
    named.or_else(|| nix::unistd::gethostname().ok()?.into_string().ok().map(|name| name.to_lowercase()))
}
