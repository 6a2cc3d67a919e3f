//! Which node owns which block.
//!
//! What it is: Calico's claim protocol for blocks, as a compare-and-swap client of the datastore. Two nodes that race
//! for one block never both own it: the block object decides, and it is created at most once.
//! What it is not: the allocator of single addresses; workloads come with theirs.
//!
//! Start at [`claim_for`]: it makes sure that the block around an address has an owner.
//!
//! ```text
//!   affinity: pending --> block: created, naming this host --> affinity: confirmed
//!                              | exists and names another host
//!                              +--> our affinity is deleted, the address is a borrowed one
//! ```

mod claim;
mod plan;

pub use claim::{Error, Outcome, claim_for, release_stale};
pub use plan::{Pool, block_around, pool_of};
