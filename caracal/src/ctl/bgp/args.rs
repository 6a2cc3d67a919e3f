//! The flags of `bgp …`.

use clap::{Args, Subcommand};

use crate::ctl::args::Connection;

/// `bgp …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Bgp {
    /// The speaker's configuration, derived from the datastore as the node derives it
    Config(BgpConfig),
}

/// `bgp config`.
#[derive(Debug, Args)]
pub(crate) struct BgpConfig {
    /// The node; without it NODENAME or the host's name
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// The form
    #[arg(short, long, default_value = "yaml", value_name = "FORMAT", value_parser = ["yaml", "json"])]
    pub(crate) output: String,
    #[command(flatten)]
    pub(crate) connection: Connection,
}
