//! The first hundred lines of every main: log, health, metrics, run directory, shutdown.
//!
//! What it is: the few things that each role of the binary does alike before its own work begins.
//! What it is not: a framework. Each piece is usable alone and none of them owns the caller's loop.
//!
//! Start at [`Health`] for what `/readiness` says, at [`Metrics`] for what Prometheus reads and at
//! [`Shutdown`] for how a role learns that it has to stop.
//!
//! ```text
//! role thread --Reporter--> Health  --+
//! role thread --Registry--> Metrics --+--> http::serve (a thread of its own)
//! signal -----------------> Shutdown ----> every role
//! ```

pub mod health;
pub mod http;
pub mod log;
pub mod metrics;
pub mod rundir;
pub mod shutdown;

pub use health::{Health, Reporter};
pub use metrics::Metrics;
pub use rundir::RunDir;
pub use shutdown::Shutdown;
