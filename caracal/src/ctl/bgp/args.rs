//! The flags of `bgp …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::offline::args::Supposed;
use crate::ctl::args::{Connection, Files};

/// `bgp …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Bgp {
    /// The speaker's configuration, derived from the datastore as the node derives it
    Config(BgpConfig),
    /// The speaker of this host on one screen: who it is, its sessions, tables and restarts
    Summary(BgpSummary),
    /// The peers of this host's speaker, with the routes of each
    Peers(BgpPeers),
    /// Everything about one peer; without a session the one cause, and what mends it
    Neighbor(BgpNeighbor),
    /// Routes: which are best, and why the others are not, were rejected or are not told
    Routes(BgpRoutes),
    /// A prefix from the UPDATE to the kernel route and to each peer; with --node from the datastore alone
    Explain(BgpExplain),
    /// What a change of objects would do to each node's sessions, before it is made
    Diff(BgpDiff),
    /// MRT files (RFC 6396) of this host's speaker
    #[command(subcommand, arg_required_else_help = true)]
    Mrt(Mrt),
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
    #[command(flatten)]
    pub(crate) live: Live,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// What every question to a running speaker takes.
#[derive(Debug, Args)]
pub(crate) struct Live {
    /// The form
    #[arg(short, long, default_value = "ps", value_name = "FORMAT", value_parser = ["ps", "wide", "yaml", "json"])]
    pub(crate) output: String,
    /// Ask again and again, and show what changes
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// The speaker's socket; without it $CARACAL_BGP_SOCKET, bgp.sock in $CARACAL_RUN_DIR, or /run/caracal/bgp.sock
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
}

/// `bgp summary`.
#[derive(Debug, Args)]
pub(crate) struct BgpSummary {
    #[command(flatten)]
    pub(crate) live: Live,
}

/// `bgp peers`.
#[derive(Debug, Args)]
pub(crate) struct BgpPeers {
    #[command(flatten)]
    pub(crate) live: Live,
}

/// `bgp neighbor`.
#[derive(Debug, Args)]
pub(crate) struct BgpNeighbor {
    /// Its name, or its address
    pub(crate) peer: String,
    #[command(flatten)]
    pub(crate) live: Live,
}

/// `bgp routes`.
#[derive(Debug, Args)]
pub(crate) struct BgpRoutes {
    /// This prefix only; an address stands for the route that carries its packets
    pub(crate) prefix: Option<String>,
    /// And everything inside the prefix
    #[arg(long, requires = "prefix")]
    pub(crate) longer: bool,
    /// Received from this peer; static, connected and kernel are this host's own
    #[arg(long, value_name = "PEER", conflicts_with_all = ["advertised", "withheld"])]
    pub(crate) received: Option<String>,
    /// Told to this peer
    #[arg(long, value_name = "PEER", conflicts_with_all = ["withheld", "rejected"])]
    pub(crate) advertised: Option<String>,
    /// Best here, but not told to this peer, and why
    #[arg(long, value_name = "PEER", conflicts_with = "rejected")]
    pub(crate) withheld: Option<String>,
    /// Not taken on import, and why
    #[arg(long)]
    pub(crate) rejected: bool,
    /// At most so many
    #[arg(long, value_name = "NUMBER")]
    pub(crate) limit: Option<u64>,
    #[command(flatten)]
    pub(crate) live: Live,
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

/// `bgp mrt …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Mrt {
    /// The table: what import took of all peers, and this host's own routes (TABLE_DUMP_V2)
    Dump(MrtDump),
    /// The messages of peers as they come (BGP4MP), until a limit or Ctrl-C
    Record(MrtRecord),
}

/// `bgp mrt dump`.
#[derive(Debug, Args)]
pub(crate) struct MrtDump {
    /// The file, or - for standard output
    pub(crate) file: PathBuf,
    /// The speaker's socket; without it as for bgp peers
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
}

/// `bgp mrt record`.
#[derive(Debug, Args)]
pub(crate) struct MrtRecord {
    /// The file, or - for standard output
    pub(crate) file: PathBuf,
    /// Of this peer only, by its name or address
    #[arg(long, value_name = "PEER")]
    pub(crate) peer: Option<String>,
    /// What this host sends too
    #[arg(long)]
    pub(crate) sent: bool,
    /// End after so many seconds
    #[arg(long, value_name = "NUMBER", default_value = "600")]
    pub(crate) seconds: u64,
    /// End when the file has so many megabytes
    #[arg(long, value_name = "NUMBER", default_value = "100")]
    pub(crate) megabytes: u64,
    /// The speaker's socket; without it as for bgp peers
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
}
