//! `bgp`, which calicoctl does not have: the speaker of this host as it runs, and what a node's speaker makes of the
//! datastore.

pub(crate) mod args;
mod config;
mod live;
mod offline;

use args::Bgp;

/// `bgp …`.
pub(crate) async fn run(command: &Bgp, allow_mismatch: bool) -> Result<bool, String> {
    match command {
        Bgp::Config(arguments) => config::config(arguments, allow_mismatch).await,
        Bgp::Explain(arguments) => match &arguments.node {
            Some(node) => offline::explain(arguments, node, allow_mismatch).await,
            None => live::explain(arguments),
        },
        Bgp::Summary(arguments) => live::summary(arguments),
        Bgp::Peers(arguments) => live::peers(arguments),
        Bgp::Neighbor(arguments) => live::neighbor(arguments),
        Bgp::Routes(arguments) => live::routes(arguments),
        Bgp::Mrt(command) => live::mrt(command),
        Bgp::Diff(arguments) => offline::diff(arguments, allow_mismatch).await,
    }
}
