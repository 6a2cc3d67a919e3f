//! A place for one test: `bird-packet` and `bgp-rs` read the same UPDATEs and must agree.
//!
//! It is not a library, and nothing may depend on it. The text here is Apache-2.0 like the rest, but `bgp-rs` is
//! GPL-3.0: **the test binary, which combines both, is GPL-3.0 as a whole** and is not for distribution. That is why
//! the test lives in a crate of its own, and why `bgp-rs` is a dev-dependency; `deny.toml` has the exception.
