//! Against a real kernel, in network namespaces of their own. `ip`, `conntrack` and `nft` are the oracle:
//! what was written is read back by a program that shares no code with this one.
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

mod conntrack;
mod dumps;
mod lab;
mod links;
mod monitor;
mod netns;
mod routes;
