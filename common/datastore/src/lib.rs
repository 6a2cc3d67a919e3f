//! One store trait, two real stores: etcd v3 and an embedded file.
//!
//! What it is: keys, bytes and revisions. [`Store`] reads, lists, watches and writes by
//! compare-and-swap; [`Config`] finds the store the way Calico's tools do (environment or a
//! `CalicoAPIConfig` file); [`Syncer`] turns "list, then watch, survive everything" into one
//! stream of updates.
//!
//! What it is not: it does not know Calico's objects (that is `caracal-model`), it never parses a
//! value, and it takes no decision about what a missing or broken value means.
//!
//! Start at [`connect`] (tools: fails within seconds when the store cannot be reached) or
//! [`connect_lazy`] (agents: an absent store is a state, not an error), then [`Syncer::start`].
//!
//! ```text
//!   Config ──> connect ──> Arc<dyn Store> ──┬── get / list / put / delete     (callers)
//!   (env, file)             │      │        └── watch ──> Syncer ──> SyncEvent (agents)
//!                         etcd   embedded         list, watch, audit, reconnect
//! ```
//!
//! Everything runs on the caller's Tokio runtime, a current-thread one included.

mod config;
mod embedded;
mod error;
mod etcd;
mod store;
mod sync;

pub use config::{
    Backend, Config, DEFAULT_EMBEDDED_PATH, DEFAULT_FILE, EmbeddedConfig, EtcdConfig, Pem, Timing,
};
pub use embedded::Embedded;
pub use error::Error;
pub use etcd::Etcd;
pub use store::{
    Digest, Event, Expect, KeyValue, Listing, Store, Watch, WatchBatch, WatchSource, connect, connect_lazy,
};
pub use sync::{SyncEvent, SyncOptions, SyncStatus, Syncer};
