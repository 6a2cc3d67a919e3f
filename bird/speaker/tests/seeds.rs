//! The fuzzer's seeds without the fuzzer: every one of them, and some mutants, on any toolchain.

#[path = "../../fuzz/src/filter.rs"]
#[allow(unreachable_pub, reason = "the fuzzer's own source")]
mod filter;
#[path = "../../fuzz/src/seeds.rs"]
#[allow(unreachable_pub, reason = "the fuzzer's own source")]
mod seeds;
#[path = "../../fuzz/src/session.rs"]
#[allow(unreachable_pub, reason = "the fuzzer's own source")]
mod session;

#[test]
fn filter() {
    seeds::replay(include_str!("../../fuzz/seeds/filter.hex"), 10, filter::filter);
}

#[test]
fn session() {
    seeds::replay(include_str!("../../fuzz/seeds/session.hex"), 3, session::session);
}
