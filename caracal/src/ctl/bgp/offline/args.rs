//! The flags of what follows from the datastore alone.

use std::net::IpAddr;

use clap::Args;

/// The route to suppose, where the datastore does not say how the node has the prefix.
#[derive(Debug, Args)]
pub(crate) struct Supposed {
    /// With --node: suppose that the node has the route from here: kernel, connected, or a peer
    #[arg(long, value_name = "SOURCE", requires = "node")]
    pub(crate) from: Option<String>,
    /// With --from kernel or connected: the route's interface
    #[arg(long, value_name = "NAME", requires = "from")]
    pub(crate) interface: Option<String>,
    /// With --from kernel: the route's gateway
    #[arg(long, value_name = "IP", requires = "from")]
    pub(crate) gateway: Option<IpAddr>,
    /// With --from a peer: the AS path, nearest first
    #[arg(long, value_name = "AS,AS", requires = "from", value_delimiter = ',')]
    pub(crate) as_path: Option<Vec<u32>>,
    /// With --from a peer: a community of the route, a:b or a:b:c
    #[arg(long, value_name = "COMMUNITY", requires = "from")]
    pub(crate) community: Vec<String>,
    /// With --from an internal peer: LOCAL_PREF
    #[arg(long, value_name = "NUMBER", requires = "from")]
    pub(crate) local_pref: Option<u32>,
}
