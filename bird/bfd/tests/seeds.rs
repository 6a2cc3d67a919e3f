//! The fuzzer's seeds without the fuzzer: every one of them, and some mutants, on any toolchain.

#[path = "../../fuzz/src/bfd.rs"]
#[allow(unreachable_pub, reason = "the fuzzer's own source")]
mod bfd;
#[path = "../../fuzz/src/seeds.rs"]
#[allow(unreachable_pub, reason = "the fuzzer's own source")]
mod seeds;

#[test]
fn bfd() {
    seeds::replay(include_str!("../../fuzz/seeds/bfd.hex"), 300, bfd::bfd);
}
