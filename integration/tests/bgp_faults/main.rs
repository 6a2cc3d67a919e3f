//! Faults of BGP, each with its number, against the running daemon: raw peers, real BIRD, a second daemon of ours.
//!
//! What is asserted is seen from outside: kernel routes, octets on the wire, the state of the peer.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up has failed")]

mod attacks;
mod calls;
mod crossing;
mod load;
mod relay;
mod restart;
mod routes;
mod scene;
mod slow;
