#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| lb_quic::fuzz::quic_datagrams(input));
