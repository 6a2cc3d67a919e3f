//! The fuzzer's seeds without the fuzzer: every one of them, and some mutants, on any toolchain.

#[path = "../../fuzz/src/packet.rs"]
#[allow(unreachable_pub, dead_code, reason = "the fuzzer's own source")]
mod packet;
#[path = "../../fuzz/src/seeds.rs"]
#[allow(unreachable_pub, reason = "the fuzzer's own source")]
mod seeds;

#[test]
fn open() {
    seeds::replay(include_str!("../../fuzz/seeds/open.hex"), 500, packet::open);
}

#[test]
fn update() {
    seeds::replay(include_str!("../../fuzz/seeds/update.hex"), 200, packet::update);
}

#[test]
fn stream() {
    seeds::replay(include_str!("../../fuzz/seeds/stream.hex"), 200, packet::stream);
}
