//! The flags of `bgp …`.

use clap::{Args, Subcommand};

use super::offline::args::Supposed;
use crate::ctl::args::{Connection, Files};

/// `bgp …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Bgp {
    /// The speaker's configuration, derived from the datastore as the node derives it
    Config(BgpConfig),
    /// Whether and why a node's peers are told a prefix; with --node from the datastore alone
    Explain(BgpExplain),
    /// What a change of objects would do to each node's sessions, before it is made
    Diff(BgpDiff),
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

/// `bgp explain`.
#[derive(Debug, Args)]
pub(crate) struct BgpExplain {
    /// The prefix, or an address
    pub(crate) prefix: String,
    /// Say from the datastore alone what this node would do
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// One peer only, by its name, its address or its BGPPeer
    #[arg(long, value_name = "PEER")]
    pub(crate) peer: Option<String>,
    #[command(flatten)]
    pub(crate) supposed: Supposed,
    /// The form: ps, yaml or json
    #[arg(short, long, default_value = "ps", value_name = "FORMAT", value_parser = ["ps", "yaml", "json"])]
    pub(crate) output: String,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// `bgp diff`.
#[derive(Debug, Args)]
pub(crate) struct BgpDiff {
    #[command(flatten)]
    pub(crate) files: Files,
    /// As if the objects were deleted, not applied
    #[arg(long)]
    pub(crate) delete: bool,
    /// One node only
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// The form: ps, yaml or json
    #[arg(short, long, default_value = "ps", value_name = "FORMAT", value_parser = ["ps", "yaml", "json"])]
    pub(crate) output: String,
}
