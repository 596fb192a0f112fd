#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| lb_l4_xdp::fuzz::xdp_packet(input));
