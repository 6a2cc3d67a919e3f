//! Routes: attribute store, next hops, the table of one family, and the decision process.
//!
//! Everything is a `u32` into a slab. A path is 16 bytes and lies inside its destination while it is the only one; what the
//! decision process asks about its attributes was computed once, when these attributes were seen first ([`attrs`]).

pub(crate) mod attrs;
pub(crate) mod decide;
pub(crate) mod groups;
mod index;
mod kernel;
pub(crate) mod local;
pub(crate) mod net;
pub(crate) mod nexthop;
pub(crate) mod originals;
pub(crate) mod review;
mod round;
pub(crate) mod routes;
mod shards;
pub(crate) mod stale;
pub(crate) mod stamp;
pub(crate) mod table;

/// Index of a slab entry; slabs of more than 2^32 entries do not fit the memory of any machine this runs on.
pub(crate) fn index32(n: usize) -> u32 {
    u32::try_from(n).expect("invariant: a slab has fewer than 2^32 entries")
}
