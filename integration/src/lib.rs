//! The lab: hosts as network namespaces, topologies as typed values.
//!
//! What it is: the parts from which the system tests, the benches and the demo build their picture:
//! namespaces, links, processes, datastores, routers, packet streams, captures.
//! What it is not: a mock. Every host has the kernel's own stack, every daemon is the real program.
//!
//! Start at [`lab::Lab`] for one run's names and clean-up, at [`picture::Picture`] for the classic picture.

pub mod bench;
pub mod faults;
pub mod lab;
pub mod picture;
pub mod raw;
pub mod router;
pub mod sandbox;
pub mod seed;
pub mod store;
