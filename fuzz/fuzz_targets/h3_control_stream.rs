#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| lb_http::fuzz::h3_control_stream(input));
