//! What a node's BGP speaker should be, derived from the datastore and nothing else.
//!
//! Start at [`derive()`]: a pure function from [`Facts`] (Nodes, BGPPeers, BGPConfigurations, BGPFilters, IPPools,
//! block affinities and blocks, WorkloadEndpoints) to a [`NodeConfig`]. The running speaker and
//! `caracal ctl bgp config` call the same function, so what ctl prints is what the node does.
//!
//! It is *not* a speaker: no session, no route, no clock, no socket. It decides who the peers are, what a peer may be
//! told and what the kernel may be given; `bird-speaker` applies that to routes.
//!
//! ```text
//! datastore key, value --> Facts::update --> Facts --> derive(facts, node, env) --> NodeConfig
//!                             |                                                        |
//!                        quarantined: key, field, reason, fix                     problems: the same for what
//!                        (the last good value stays)                              contradicts something else
//! ```

mod config;
mod derive;
mod facts;
mod parse;
mod peers;
mod place;

pub use config::*;
pub use derive::{DeriveError, Env, derive};
pub use facts::{Facts, Intake};
pub use place::Place;
