//! gRPC through the gateway, between a client and a server of the official library.
//!
//! Each case runs twice: by prior knowledge of HTTP/2 on an `h1` listener, and by ALPN on an `h1s` listener.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "grpc/attacks.rs"]
mod attacks;
#[path = "grpc/calls.rs"]
mod calls;
#[path = "grpc/deadlines.rs"]
mod deadlines;
#[path = "grpc/failures.rs"]
mod failures;
#[path = "grpc/health.rs"]
mod health;
#[path = "grpc/rig.rs"]
mod rig;
#[path = "grpc/unread.rs"]
mod unread;

use rig::Front::{Plain, Tls};
use testkit::harness::Case;
use testkit::seconds;
use testkit::tools::Tool::{Curl, Openssl, Peers};

/// Two cases of a function that takes the front.
macro_rules! on_both_fronts {
    ($($module:ident::$name:ident),* $(,)?) => {
        vec![$(
            Case::new(concat!(stringify!($name), "_h2c"), || $module::$name(Plain)).needs(&[Peers, Curl]),
            Case::new(concat!(stringify!($name), "_tls"), || $module::$name(Tls)).needs(&[Peers, Curl, Openssl]),
        )*]
    };
}

fn main() {
    let mut cases = on_both_fronts![
        calls::all_four_kinds,
        calls::messages_flow_both_ways_at_once,
        calls::the_server_may_speak_first,
        calls::metadata_and_trailers_pass,
        calls::trailers_only_answers_pass,
        calls::an_error_after_messages_passes,
        calls::calls_share_a_connection,
        calls::calls_are_counted_by_status,
        deadlines::a_deadline_is_passed_on,
        deadlines::a_call_without_a_deadline_gets_none,
        deadlines::a_long_deadline_is_clamped,
        deadlines::a_silent_backend_meets_the_deadline,
        deadlines::a_deadline_covers_the_whole_call,
        deadlines::a_silent_call_without_a_deadline_ends,
        deadlines::a_call_outlives_the_limits_of_requests,
        deadlines::cancellation_reaches_the_backend,
        failures::an_unreachable_backend_is_unavailable,
        failures::a_lost_connection_is_unavailable,
        failures::resets_are_mapped,
        failures::plain_http_answers_are_mapped,
        failures::a_refused_call_is_made_again,
        failures::refusals_are_told_as_statuses,
        health::health_is_that_of_the_backends,
        health::health_may_be_left_to_the_backend,
        health::a_watch_sees_changes,
        attacks::c_14_malformed_timeouts_are_refused,
        attacks::c_14_a_reset_after_ok_is_ok,
        attacks::c_14_trailers_only_of_every_status,
    ];
    cases.extend([
        Case::new(
            "c_14_an_error_page_is_not_the_next_response",
            unread::c_14_an_error_page_is_not_the_next_response,
        ),
        Case::new(
            "h2_04_the_end_of_a_call_waits_for_the_client_alone",
            unread::h2_04_the_end_of_a_call_waits_for_the_client_alone,
        ),
        Case::new(
            "h2_04_a_watch_that_nobody_reads_costs_nothing",
            unread::h2_04_a_watch_that_nobody_reads_costs_nothing,
        ),
        Case::new(
            "a_broken_upload_is_not_the_backends_fault",
            unread::a_broken_upload_is_not_the_backends_fault,
        ),
        Case::new("the_peers_agree_without_a_gateway", calls::the_peers_agree_without_a_gateway)
            .needs(&[Peers, Openssl]),
        Case::new("an_h1_backend_may_serve_calls", calls::an_h1_backend_may_serve_calls).needs(&[Peers]),
        Case::new("an_h1_client_gets_the_trailers", calls::an_h1_client_gets_the_trailers).needs(&[Peers]),
        Case::new("an_h1_client_is_told_every_end", calls::an_h1_client_is_told_every_end).needs(&[Peers]),
        Case::new("disabled_grpc_is_plain_http", calls::disabled_grpc_is_plain_http).needs(&[Peers]),
        Case::new("large_messages_cost_no_memory", attacks::large_messages_cost_no_memory)
            .needs(&[Peers])
            .alone()
            .guard(seconds(120)),
        Case::new("c_14_prefixes_of_4_gib_cost_nothing", attacks::c_14_prefixes_of_4_gib_cost_nothing)
            .needs(&[Peers, Curl])
            .alone(),
    ]);
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases)
}
