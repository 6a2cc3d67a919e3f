//! The dataplane against a real kernel, in network namespaces of their own; `ip` and `ping` are the oracle.
#![allow(clippy::unwrap_used, reason = "a test")]

mod drift;
mod foreign;
mod lab;
mod life;
