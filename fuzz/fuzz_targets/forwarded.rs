#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| lb_core::fuzz::forwarded(input));
