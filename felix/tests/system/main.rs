//! felix as it runs, in network namespaces of its own, against both stores; `ip`, `ping` and the store are the oracle.
#![allow(clippy::unwrap_used, reason = "a test")]

mod lab;
mod life;
mod trouble;
