//! What the fuzzer calls: one plain function for each target, to be fed any bytes.
//!
//! A function returns when all is well and panics when a promise of the code under test is broken.
//! It is not a test suite: `targets/` hands these functions to libFuzzer, and an ordinary test of each crate replays
//! the seeds in `seeds/` through them without it. Start at [`update`].

mod bfd;
mod filter;
mod packet;
mod session;

pub use bfd::bfd;
pub use filter::filter;
pub use packet::{open, stream, update};
pub use session::session;
