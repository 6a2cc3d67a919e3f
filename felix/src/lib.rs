//! The worker: from the datastore's intent to this node's links and routes, and how they are back to the datastore.
//!
//! What it is: one loop on one thread. It feeds what the Syncer tells to [`felix_calc`], what follows from that to
//! [`felix_dataplane`], and heeds the kernel's own news between them. A task beside it writes status keys.
//!
//! What it is not: it decides nothing (the calculation does) and knows no netlink (the dataplane does). It makes no
//! BGP; the kernel's routes are all that the speaker sees of it.
//!
//! Start at [`run`].
//!
//! ```text
//! datastore --Syncer--> Calc --Changes--> Dataplane --netlink--> kernel
//!     ^                                     |   ^                  |
//!     +-- status keys <-- StatusWriter <----+   +--- Monitor <-----+
//! ```
//!
//! # Readiness
//! Ready after the first complete pass. Not ready, with the reason, while the datastore has not been read once, and
//! when the kernel could not be read or written for 5 s. A datastore that is lost *later* does not make it not ready:
//! what is programmed stays in force, drift is repaired, and a restart would only make things worse.

mod metrics;
mod report;
mod watchdog;
mod worker;

use std::sync::Arc;

use caracal_datastore::Store;
use caracal_process::{Health, Metrics, Shutdown};
use felix_calc::config::Raw;

/// What felix has to be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name, as its objects and its endpoints' names have it.
    pub node: String,
    /// The environment's `FELIX_` variables, see [`felix_calc::config::from_environment`].
    pub environment: Raw,
    /// Where to say how it goes.
    pub health: Health,
    /// Where to count.
    pub metrics: Metrics,
}

impl Config {
    /// For `node`, with this process's environment and nobody who asks for health or metrics.
    pub fn from_process(node: &str) -> Self {
        let variables: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let pairs = variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Self {
            node: node.to_owned(),
            environment: felix_calc::config::from_environment(pairs),
            health: Health::new(),
            metrics: Metrics::new(),
        }
    }
}

/// Runs felix in the calling thread's network namespace until `shutdown` is requested. What it made stays.
///
/// Meant for a current-thread runtime on a thread of its own: a pass over the kernel does not yield.
pub async fn run(config: Config, store: Arc<dyn Store>, shutdown: Shutdown) -> anyhow::Result<()> {
    worker::Worker::start(config, store)?.run(shutdown).await
}
