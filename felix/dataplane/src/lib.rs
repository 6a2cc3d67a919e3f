//! Convert, drive, apply: from what a node's workloads should have to what its kernel has.
//!
//! What it is: the only part of felix that writes to the kernel. It keeps what should be ([`Dataplane::set`]) beside
//! what is (dumps and notifications), and one pass ([`Dataplane::apply`]) makes them one, whether an endpoint came,
//! a route was deleted by hand or everything was lost.
//!
//! What it is not: it decides nothing about endpoints (that is `felix-calc`) and it never waits; the caller's loop
//! wakes it by [`Dataplane::changed`] and [`Dataplane::next_due`].
//!
//! Start at [`Dataplane`].
//!
//! ```text
//! Desired --convert--> link, inside, routes, neighbours --Delta--> one pass --netlink--> kernel
//!                                                           ^                              |
//!                                                           +---- dump, notifications -----+
//! ```
//!
//! What is ours, told from the kernel alone: routes of our protocol number (80), any hand's route over a workload's
//! link (after 10 s of grace on a new link), links in our group. Everything else is never touched. Nothing is
//! removed before a complete dump on this side and a complete intent on the other.

mod convert;
mod dataplane;
mod endpoint;
mod inside;
mod janitor;
mod links;
mod mtu;
mod neighbours;
mod routes;
mod status;
mod sysctls;

pub use dataplane::{Applied, Census, Counters, Dataplane};
pub use links::OUR_GROUP;
pub use status::{State, Status};
