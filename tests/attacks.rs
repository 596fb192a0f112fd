//! One test per row of the attack table, named by the row's ID.
//!
//! Each case is judged twice: by the answer that the attacker gets, and by the bytes that the backend received. After each
//! case a well-behaved request on a connection of its own must still be served.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "attacks/request.rs"]
mod request;
#[path = "attacks/response.rs"]
mod response;
#[path = "attacks/rig.rs"]
mod rig;
#[path = "attacks/slow.rs"]
mod slow;
#[path = "attacks/tunnel.rs"]
mod tunnel;

fn main() {
    let cases = testkit::cases![
        request::h1_01_content_length_and_transfer_encoding,
        request::h1_02_content_length_that_is_no_single_number,
        request::h1_03_transfer_encoding_that_is_not_one_chunked,
        request::h1_04_transfer_encoding_in_http_1_0,
        request::h1_05_bare_line_ends_in_the_head,
        request::h1_05_bare_line_ends_in_a_chunked_body,
        request::h1_06_chunk_sizes_with_decoration,
        request::h1_06_chunk_extensions_are_dropped_and_capped,
        tunnel::h1_07_bytes_before_the_101_are_held,
        tunnel::h1_07_bytes_after_a_refused_upgrade_are_the_next_request,
        tunnel::h1_07_upgrade_is_plain_where_tunnels_are_not_allowed,
        response::h1_08_early_answer_never_turns_the_body_into_a_request,
        request::h1_09_connection_cannot_name_framing_or_host,
        request::h1_10_malformed_field_lines,
        request::h1_11_host_that_is_missing_doubled_or_odd,
        request::h1_11_absolute_target_must_agree_with_host,
        request::h1_12_underscore_names_are_rejected_by_default,
        request::h1_12_underscore_names_follow_the_policy,
        request::h1_13_odd_paths_arrive_unchanged_or_not_at_all,
        tunnel::h1_14_connect_is_not_allowed,
        response::h1_15_malformed_response_heads,
        response::h1_15_malformed_response_bodies,
        response::h1_15_bytes_after_the_body_reach_nobody,
        response::h1_15_an_answer_before_the_question_reaches_nobody,
        response::h1_15_interim_flood_is_bounded,
        slow::h1_16_slow_head,
        slow::h1_16_silent_head,
        slow::h1_16_slow_body,
        slow::h1_16_slow_reader,
        request::h1_17_forbidden_request_trailers,
        request::h1_17_too_many_request_trailers,
        response::h1_17_response_trailers,
    ];
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases)
}
