//! `bgp`, which calicoctl does not have: what a node's speaker makes of the datastore.

pub(crate) mod args;
mod config;

use args::Bgp;

/// `bgp …`.
pub(crate) async fn run(command: &Bgp, allow_mismatch: bool) -> Result<bool, String> {
    match command {
        Bgp::Config(arguments) => config::config(arguments, allow_mismatch).await,
    }
}
