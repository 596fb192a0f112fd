//! HTTP/2 through the gateway, beside HTTP/1.1 on either side and HTTP/3 from clients: the cells of the matrix, and what only HTTP/2 has.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "http2/cut.rs"]
mod cut;
#[path = "http2/drain.rs"]
mod drain;
#[path = "http2/fast.rs"]
mod fast;
#[path = "http2/flow.rs"]
mod flow;
#[path = "http2/heads.rs"]
mod heads;
#[path = "http2/late.rs"]
mod late;
#[path = "http2/lifetime.rs"]
mod lifetime;
#[path = "http2/matrix.rs"]
mod matrix;
#[path = "http2/messages.rs"]
mod messages;
#[path = "http2/neighbours.rs"]
mod neighbours;
#[path = "http2/peers.rs"]
mod peers;
#[path = "http2/quiet.rs"]
mod quiet;
#[path = "http2/rig.rs"]
mod rig;
#[path = "http2/semantics.rs"]
mod semantics;
#[path = "http2/shared.rs"]
mod shared;
#[path = "http2/slivers.rs"]
mod slivers;
#[path = "http2/slow.rs"]
mod slow;
#[path = "http2/streams.rs"]
mod streams;

use testkit::harness::Case;
use testkit::seconds;
use testkit::tools::Tool::{Curl, H2load, Nghttp, Nghttpd, Nginx};

fn main() {
    let mut cases = testkit::cases![
        fast::a_ping_for_each_message_of_a_stream,
        fast::pings_of_a_backend_end_nobodys_call,
        fast::an_upload_of_small_messages,
        fast::a_download_of_small_messages,
        fast::bodies_that_nobody_reads_to_the_end,
        fast::everything_is_cancelled_at_once,
        fast::faults_that_one_client_provokes_are_its_own,
        fast::who_gave_up_is_told,
        matrix::every_version_to_every_version,
        messages::methods,
        messages::bodies_up,
        messages::bodies_down,
        messages::trailers_both_ways,
        messages::interim_responses_pass_as_they_come,
        messages::expect_100_continue,
        messages::bodyless_answers,
        messages::close_delimited_answers,
        messages::error_answers,
        messages::a_refused_head_request_gets_no_body,
        messages::early_answer_while_uploading,
        messages::requests_count_by_version,
        messages::both_versions_on_one_listener,
        semantics::requests_without_content_say_so_to_http_1,
        semantics::answers_without_content_say_so_to_http_1,
        semantics::upgrade_in_a_final_answer,
        semantics::our_own_426_has_its_upgrade,
        semantics::max_forwards,
        semantics::authority_and_host_that_are_equal,
        semantics::absolute_targets_without_a_path,
        heads::fields_pass_byte_for_byte,
        heads::cookie_crumbs_become_one,
        heads::te_trailers_is_all_of_te_that_passes,
        heads::hop_by_hop_fields_stay_behind,
        heads::forwarding_fields,
        heads::host_and_authority,
        heads::requests_without_host,
        heads::options_asterisk,
        heads::large_heads,
        heads::heads_over_the_limit_are_431,
        heads::huffman_and_tables_are_understood,
        streams::echo_flows_before_the_upload_ends,
        streams::client_abort_before_the_answer,
        streams::client_abort_in_the_upload,
        streams::client_abort_in_the_response,
        streams::backend_abort_in_the_response,
        streams::backend_abort_before_the_response,
        streams::many_streams_on_one_connection,
        streams::interleaved_uploads,
        streams::a_bad_stream_never_costs_its_neighbours,
        flow::all_streams_get_their_share,
        slivers::windows_that_open_bit_by_bit_make_no_tiny_frames,
        slivers::windows_that_open_when_used_up_are_used_up,
        flow::initial_window_size_changes_in_mid_stream,
        flow::backend_changes_its_windows_in_mid_stream,
        flow::refused_uploads_give_their_window_back,
        flow::readers_are_served_beside_those_that_do_not_read,
        flow::windows_follow_the_configuration,
        flow::windows_bind_only_who_knows_of_them,
        flow::refusals_wait_for_the_windows,
        flow::reading_goes_on_when_the_output_has_left,
        cut::silence_cuts_a_response_and_says_so,
        cut::the_total_cuts_a_response_and_says_so,
        cut::other_ends_are_told_too_and_seldom,
        cut::a_connection_that_ends_tells_of_its_responses,
        drain::busy_connections_lose_nothing_in_a_drain,
        lifetime::drain_lets_running_streams_finish,
        lifetime::streams_after_goaway_are_not_processed,
        lifetime::drain_has_an_end,
        lifetime::drain_ends_connections_that_have_said_nothing,
        lifetime::drain_lets_backends_go,
        lifetime::max_requests_per_h2_connection_ends_it,
        lifetime::the_cap_on_requests_loses_none,
        lifetime::keep_alive_pings_find_dead_clients,
        lifetime::keep_alive_pings_find_dead_backends,
        lifetime::keep_alive_pings_are_few_enough_for_grpc,
        lifetime::max_concurrent_streams_towards_clients,
        lifetime::max_concurrent_streams_of_a_backend,
        lifetime::streams_share_a_backend_connection,
        lifetime::goaway_of_a_backend_is_graceful,
        lifetime::goaway_in_a_crowd,
        lifetime::reload_leaves_connections_alone,
        late::frames_beyond_our_goaway_are_ignored,
        late::uploads_may_go_on_after_early_answers,
        late::errors_are_told_after_the_last_goaway,
        shared::what_clients_cancel_is_not_charged_to_the_backend,
        shared::a_goaway_on_an_idle_connection_teaches_nothing,
        shared::a_head_beyond_the_limit_costs_only_its_stream,
        shared::connections_with_an_open_window_come_first,
        neighbours::unread_answers_stall_no_other_client,
        neighbours::unread_uploads_stall_no_other_client,
        neighbours::unread_uploads_under_a_cap_of_connections,
        neighbours::unread_uploads_leave_the_rest_of_the_window,
        quiet::connections_without_a_request_end,
        quiet::peers_that_acknowledge_no_settings_are_sent_away,
        quiet::backends_that_acknowledge_no_settings_get_no_more,
        messages::bytes_of_a_request_are_counted_from_the_first_on,
    ];
    cases.extend([
        Case::new("curl_uploads", peers::curl_uploads).needs(&[Curl]),
        Case::new("nginx_behind_curl", peers::nginx_behind_curl).needs(&[Nginx, Curl]),
        Case::new("nghttpd_behind_curl", peers::nghttpd_behind_curl).needs(&[Nghttpd, Curl]),
        Case::new("nginx_behind_nghttp", peers::nginx_behind_nghttp).needs(&[Nginx, Nghttp]),
        Case::new("nghttpd_behind_nghttp", peers::nghttpd_behind_nghttp).needs(&[Nghttpd, Nghttp]),
        Case::new("nginx_h2c_as_backend", peers::nginx_h2c_as_backend).needs(&[Nginx, H2load]),
        Case::new("nginx_behind_h2load", peers::nginx_behind_h2load)
            .needs(&[Nginx, H2load])
            .guard(seconds(120)),
        Case::new("nghttpd_behind_h2load", peers::nghttpd_behind_h2load)
            .needs(&[Nghttpd, H2load])
            .guard(seconds(120)),
        Case::new("h2load_uploads", peers::h2load_uploads).needs(&[H2load]),
        Case::new("h2load_up_to_the_cap_on_requests", peers::h2load_up_to_the_cap_on_requests)
            .needs(&[H2load])
            .guard(seconds(120)),
        // Measured for memory: alone.
        Case::new("twenty_mebibytes_up_and_down", messages::twenty_mebibytes_up_and_down)
            .alone()
            .guard(seconds(120)),
        Case::new("a_flood_each_way", streams::a_flood_each_way).alone().guard(seconds(120)),
        Case::new(
            "a_client_that_reads_slowly_costs_no_memory",
            slow::a_client_that_reads_slowly_costs_no_memory,
        )
        .alone()
        .guard(seconds(120)),
        Case::new(
            "a_backend_that_reads_slowly_costs_no_memory",
            slow::a_backend_that_reads_slowly_costs_no_memory,
        )
        .alone()
        .guard(seconds(120)),
        Case::new(
            "streams_that_nobody_reads_hold_little_and_leave_nothing",
            slow::streams_that_nobody_reads_hold_little_and_leave_nothing,
        )
        .alone()
        .guard(seconds(120)),
        Case::new("a_stalled_stream_stalls_only_itself", flow::a_stalled_stream_stalls_only_itself)
            .alone()
            .guard(seconds(120)),
        Case::new("what_a_connection_buffers_is_capped", flow::what_a_connection_buffers_is_capped)
            .alone()
            .guard(seconds(120)),
        Case::new("a_stalled_upload_stalls_only_itself", flow::a_stalled_upload_stalls_only_itself)
            .alone()
            .guard(seconds(120)),
    ]);
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases)
}
