//! The kernel's network state, read and written over netlink: links, addresses, routes, neighbours,
//! change notifications, connection tracking, network namespaces and sysctls.
//!
//! What it is: a synchronous, batched client. [`Netlink::apply`] packs hundreds of requests in one
//! system call and matches every error to its request; a dump is either complete or an error.
//!
//! What it is not: a reconciler. It keeps no state, makes no choice about what should exist and owns
//! no object; whoever calls it does. Firewall rules live elsewhere.
//!
//! Start at [`Netlink`] to read and write, at [`Monitor`] to hear about changes.
//!
//! ```text
//!   &[Request] --encode--> [ message | message | ... | message+ACK ] --one send--> kernel
//!                                                                                    |
//!   failures by index  <--match by sequence number-- [ error | ... | ack ] <---------+
//!
//!   Netlink::routes(filter) --dump--> complete Vec<Route>      (changed meanwhile: asked again)
//!   Monitor::next()         <------- Event::{Link, Route, ..., Overrun}
//! ```
//!
//! Every socket stays bound to the network namespace it was opened in, whatever thread uses it later:
//! [`Netlink::open`] takes the calling thread's namespace, [`Netlink::open_in`] a named one.
//!
//! # What the kernel does differently from what one expects
//!
//! * A batch is not a transaction: when one request fails, the others are applied.
//! * `ReplaceRoute` replaces the route with the same prefix, table and metric *whoever owns
//!   it*. Use [`Request::AddRoute`] (which fails with `EEXIST`) when another program's route may be there.
//! * IPv6 keeps several routes with one prefix and metric. Replace takes the place of one of them (an
//!   ECMP set counts as one); metric 0 means 1024. [`Route::normalized`] is a route as the kernel will report it.
//! * A delete with metric 0 matches any metric, in both families. The `proto` of the route is always
//!   sent, so a foreign route is never deleted by accident.
//! * Deleting a veth pair costs about 16 ms; [`Netlink::delete_links`] removes a thousand in 160 ms.
//! * Deleting IPv4 routes in ascending order makes its trie shrink again and again: 270 thousand a second,
//!   against 680 in no order (100,000 /24, `examples/rates.rs`). Do not sort what is to be deleted.
//! * A dump of IPv6 routes skips existing routes when others are deleted meanwhile, and does not say so;
//!   [`Netlink::routes`] listens during the dump and repeats it.

mod address;
mod channel;
pub mod conntrack;
mod elsewhere;
mod error;
mod link;
mod monitor;
mod neighbour;
mod netlink;
pub mod netns;
mod route;
pub mod sysctl;
mod wire;

pub use address::Address;
pub use channel::Failure;
pub use elsewhere::{LossMonitor, Losses};
pub use error::{Error, Result};
pub use link::{Link, Mac, NewVeth, SetLink};
pub use monitor::{Event, Groups, Monitor, MonitorConfig};
pub use neighbour::{Neighbour, nud};
pub use netlink::{Netlink, Request, ResolvedRoute};
pub use netns::Netns;
/// The kernel's error number, as every failure of a request carries it.
pub use nix::errno::Errno;
pub use route::{Hops, NextHop, Route, RouteFilter, RouteKind, proto, scope, table};
pub use sysctl::Sysctls;

/// An address family, where only IP is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: &std::net::IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The kernel's `AF_*` number.
    pub(crate) const fn raw(self) -> u8 {
        match self {
            Self::V4 => wire::AF_INET,
            Self::V6 => wire::AF_INET6,
        }
    }
}
