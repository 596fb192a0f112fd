//! HTTP/1.1 through the gateway, as its clients and its backends see it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "http/balance.rs"]
mod balance;
#[path = "http/bodies.rs"]
mod bodies;
#[path = "http/expect.rs"]
mod expect;
#[path = "http/headers.rs"]
mod headers;
#[path = "http/limits.rs"]
mod limits;
#[path = "http/messages.rs"]
mod messages;
#[path = "http/names.rs"]
mod names;
#[path = "http/observe.rs"]
mod observe;
#[path = "http/peers.rs"]
mod peers;
#[path = "http/pool.rs"]
mod pool;
#[path = "http/rig.rs"]
mod rig;
#[path = "http/scale.rs"]
mod scale;
#[path = "http/streams.rs"]
mod streams;
#[path = "http/timeouts.rs"]
mod timeouts;
#[path = "http/tunnel.rs"]
mod tunnel;

use testkit::harness::Case;
use testkit::seconds;
use testkit::tools::Tool::{Curl, Descriptors, Nginx};

fn main() {
    let mut cases = testkit::cases![
        messages::keep_alive_carries_many_requests,
        messages::max_keepalive_requests_ends_a_connection,
        messages::pipelined_requests_are_answered_in_order,
        messages::head_and_bodyless_statuses_have_no_body,
        messages::http_1_0_clients_get_what_they_can_read,
        messages::http_1_0_backend,
        messages::other_versions_are_refused,
        messages::any_method_passes,
        messages::expect_100_continue_reaches_the_backend_and_back,
        messages::expect_100_continue_refused,
        expect::a_refused_body_ends_the_connection,
        expect::our_own_answers_do_so_too,
        expect::a_body_that_was_asked_for_keeps_the_connection,
        messages::early_hints_pass,
        messages::empty_lines_before_a_request_are_skipped,
        messages::a_head_in_single_bytes,
        messages::client_that_leaves_ends_the_upstream_request,
        messages::backend_that_resets_in_an_upload_is_502,
        bodies::download_sizes_and_framings,
        bodies::upload_sizes_and_framings,
        bodies::get_with_a_body,
        bodies::post_without_a_body,
        bodies::chunks_of_all_shapes,
        bodies::truncated_upload_is_never_whole_for_the_backend,
        bodies::trailers_both_ways,
        headers::hop_by_hop_fields_stay_behind,
        headers::forwarding_fields_are_added,
        headers::forwarding_fields_are_extended,
        headers::other_fields_arrive_byte_for_byte,
        headers::response_fields_arrive_byte_for_byte,
        headers::trace_context_keeps_its_trace,
        balance::weights_are_true,
        balance::equal_backends_take_turns,
        balance::dead_backend_is_passed_over,
        balance::all_dead_is_502,
        balance::unreachable_backend_times_out,
        pool::one_client_needs_one_upstream_connection,
        pool::bulk_gives_the_connection_back,
        pool::connections_are_shared_by_clients,
        pool::stale_connection_is_retried_for_get,
        pool::stale_connection_is_not_retried_for_post,
        pool::an_empty_chunked_upload_is_sent_again_with_its_end,
        pool::the_idle_gauge_forgets_a_removed_backend,
        pool::a_connection_that_says_close_is_not_reused,
        pool::idle_connections_are_let_go,
        pool::backend_that_dies_in_a_response_shows,
        pool::half_read_response_is_not_reused,
        streams::echo_flows_before_the_upload_ends,
        streams::server_sent_events_flow,
        streams::early_answer_does_not_wait_for_the_upload,
        streams::early_close_of_the_backend_delivers_its_answer,
        tunnel::bytes_flow_both_ways,
        tunnel::a_tunnel_ends_with_its_backend,
        tunnel::half_close_passes,
        tunnel::handshake_fields_pass,
        tunnel::plain_get_where_not_allowed,
        tunnel::refusal_passes,
        timeouts::idle_connection_is_closed,
        timeouts::stalled_upload_is_408,
        timeouts::a_client_told_to_wait_is_not_late,
        timeouts::steady_upload_lives_on,
        timeouts::late_response_head_is_504,
        timeouts::total_bounds_a_request_not_a_connection,
        timeouts::total_cuts_an_endless_response,
        timeouts::response_longer_than_head_timeout_lives,
        limits::body_over_the_cap_is_413,
        limits::no_cap_unless_configured,
        limits::head_over_the_cap_is_431,
        limits::target_over_the_cap_is_414,
        limits::limits_follow_the_configuration,
        limits::connections_over_the_cap_get_503,
        limits::connections_over_the_cap_of_an_address_are_closed,
        observe::request_metrics_are_true,
        observe::backend_metrics_are_true,
        observe::labels_do_not_grow_with_clients,
        observe::access_log_has_a_line_per_request,
        observe::access_log_on_stdout,
        observe::access_log_in_other_forms,
        observe::error_answers_are_short_text,
        names::all_addresses_of_a_name_are_used,
        names::traffic_follows_the_record,
        names::last_good_addresses_outlive_the_name,
        names::one_name_without_an_answer_blocks_neither_start_nor_reload,
        names::a_name_server_that_is_silent_holds_up_neither_start_nor_reload,
        names::backends_of_weight_0_alone_are_answered_503_until_one_rises,
        limits::buffers_of_sockets_follow_the_configuration,
    ];
    cases.extend([
        Case::new("nginx_as_backend_curl_as_client", peers::nginx_as_backend_curl_as_client)
            .needs(&[Nginx, Curl]),
        Case::new("nginx_keep_alive_under_load", peers::nginx_keep_alive_under_load).needs(&[Nginx]),
        Case::new("curl_uploads", peers::curl_uploads).needs(&[Curl]),
        Case::new("curl_waits_for_nobody_after_a_refusal", expect::curl_waits_for_nobody_after_a_refusal)
            .needs(&[Curl]),
        Case::new("slow_reader_costs_no_memory", scale::slow_reader_costs_no_memory).alone(),
        Case::new("slow_backend_costs_no_memory", scale::slow_backend_costs_no_memory).alone(),
        Case::new("gibibyte_down", scale::gibibyte_down).alone().guard(seconds(120)),
        Case::new("gibibyte_up", scale::gibibyte_up).alone().guard(seconds(120)),
        Case::new("gibibyte_chunked_both_ways", scale::chunked_both_ways).alone().guard(seconds(120)),
        Case::new("ten_thousand_connections", scale::ten_thousand_connections)
            .needs(&[Descriptors])
            .alone()
            .guard(seconds(120)),
        Case::new("thousand_keep_alive_clients", scale::thousand_keep_alive_clients).alone(),
        Case::new("descriptors_come_back", scale::descriptors_come_back).alone(),
    ]);
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases)
}
