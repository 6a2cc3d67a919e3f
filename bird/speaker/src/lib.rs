//! A BGP speaker as a value: sessions, RIBs, decision, filters, export groups, restart. No I/O, no clock, no threads.
pub mod config;
pub mod io;
pub mod policy;
pub mod restart;

pub use config::{Config, PeerConfig};
pub use io::{ConnId, Event, FibChange, FibRoute, Input, LocalRoute, Output, PeerId, Time};
