//! `bgp`, which calicoctl does not have: what a node's speaker makes of the datastore.

pub(crate) mod args;
mod config;
mod offline;

use args::Bgp;

/// `bgp …`.
pub(crate) async fn run(command: &Bgp, allow_mismatch: bool) -> Result<bool, String> {
    match command {
        Bgp::Config(arguments) => config::config(arguments, allow_mismatch).await,
        Bgp::Explain(arguments) => match &arguments.node {
            Some(node) => offline::explain(arguments, node, allow_mismatch).await,
            None => Err("name the node with --node".to_owned()),
        },
        Bgp::Diff(arguments) => offline::diff(arguments, allow_mismatch).await,
    }
}
