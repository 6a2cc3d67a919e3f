#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bird_fuzz::session(data));
