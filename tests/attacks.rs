//! One test per row of the attack table, named by the row's ID.
//!
//! Each case is judged twice: by the answer that the attacker gets, and by the bytes that the backend received. After each
//! case a well-behaved request on a connection of its own must still be served.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "attacks/client.rs"]
mod client;
#[path = "attacks/desk.rs"]
mod desk;
#[path = "attacks/failures.rs"]
mod failures;
#[path = "attacks/framing.rs"]
mod framing;
#[path = "attacks/guards.rs"]
mod guards;
#[path = "attacks/h2_blocks.rs"]
mod h2_blocks;
#[path = "attacks/h2_frames.rs"]
mod h2_frames;
#[path = "attacks/h2_heads.rs"]
mod h2_heads;
#[path = "attacks/h2_resets.rs"]
mod h2_resets;
#[path = "attacks/h2_rig.rs"]
mod h2_rig;
#[path = "attacks/h2_upstream.rs"]
mod h2_upstream;
#[path = "attacks/leaving.rs"]
mod leaving;
#[path = "attacks/proxied.rs"]
mod proxied;
#[path = "attacks/request.rs"]
mod request;
#[path = "attacks/response.rs"]
mod response;
#[path = "attacks/rig.rs"]
mod rig;
#[path = "attacks/routes.rs"]
mod routes;
#[path = "attacks/slow.rs"]
mod slow;
#[path = "attacks/tunnel.rs"]
mod tunnel;

use testkit::harness::Case;
use testkit::seconds;
use testkit::tools::Tool;

fn main() {
    let mut cases = testkit::cases![
        framing::h1_01_content_length_and_transfer_encoding,
        framing::h1_02_content_length_that_is_no_single_number,
        framing::h1_03_transfer_encoding_that_is_not_one_chunked,
        framing::h1_04_transfer_encoding_in_http_1_0,
        framing::h1_05_bare_line_ends_in_the_head,
        framing::h1_05_bare_line_ends_in_a_chunked_body,
        framing::h1_06_chunk_sizes_with_decoration,
        framing::h1_06_chunk_extensions_are_dropped_and_capped,
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
        framing::h1_17_forbidden_request_trailers,
        framing::h1_17_too_many_request_trailers,
        response::h1_17_response_trailers,
        client::c_09_r_16_fields_of_strangers_are_dropped,
        client::c_09_r_16_a_trusted_proxy_is_believed_and_its_clients_are_not,
        client::r_16_quotes_in_forwarded_hide_nothing,
        proxied::r_28_hellos_in_pieces_and_without_end,
        proxied::r_17_headers_of_strangers_are_not_believed,
        proxied::r_17_headers_that_lie_end_the_connection,
        proxied::r_17_headers_that_are_cut_or_slow_hold_nothing,
        routes::r_16_a_forged_address_opens_no_access_list,
        routes::r_11_a_guarded_route_is_not_reached_by_another_spelling,
        desk::d_02_pages_of_other_sites_read_and_change_nothing,
        desk::d_03_nothing_of_it_is_shown_inside_another_page,
        desk::d_05_a_name_that_leads_here_reads_nothing,
        desk::d_06_a_tap_needs_the_token_and_shows_no_secrets,
        guards::r_20_a_redirect_leads_where_the_file_says,
        guards::r_24_an_upgrade_meets_the_guards_of_its_route,
        guards::r_29_guards_that_reloads_flip_hold_whole_for_each_request,
        routes::r_18_a_million_keys_take_no_memory,
        routes::r_01_dot_segments,
        routes::r_02_slashes_in_a_row,
        routes::r_03_parameters_of_segments,
        routes::r_04_encoded_separators,
        routes::r_05_double_and_overlong_encoding,
        routes::r_06_control_characters_and_broken_escapes,
        routes::r_07_encoded_ends_of_the_path,
        routes::r_08_dots_around_a_prefix_that_is_taken_off,
        routes::r_09_second_spellings_of_a_host,
        routes::r_10_fields_that_name_another_request,
        routes::r_11_a_field_that_connection_takes_away_is_not_matched,
        routes::r_11_fields_that_the_gateway_writes_cannot_be_forged,
        routes::r_19_r_31_long_paths_cost_little,
        routes::r_23_a_mirror_that_never_reads,
        routes::r_25_options_of_the_whole_server,
        routes::r_26_no_line_break_from_a_value_of_the_request,
    ];
    // Those that are measured for memory and processor time run one at a time.
    cases.extend([
        Case::new("h2_01_a_few_cancels_are_no_attack", h2_resets::h2_01_a_few_cancels_are_no_attack)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_01_rapid_reset", h2_resets::h2_01_rapid_reset).alone().guard(seconds(120)),
        Case::new("h2_01_reset_of_work_in_progress", h2_resets::h2_01_reset_of_work_in_progress)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_02_a_window_update_of_zero", h2_resets::h2_02_a_window_update_of_zero)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_02_b_window_overflow", h2_resets::h2_02_b_window_overflow).alone().guard(seconds(120)),
        Case::new("h2_02_c_priority_of_wrong_length", h2_resets::h2_02_c_priority_of_wrong_length)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_02_d_priority_on_itself", h2_resets::h2_02_d_priority_on_itself)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_02_e_headers_after_end_stream", h2_resets::h2_02_e_headers_after_end_stream)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_02_f_data_after_end_stream", h2_resets::h2_02_f_data_after_end_stream)
            .alone()
            .guard(seconds(120)),
        Case::new(
            "h2_02_g_other_stream_errors_share_the_budget",
            h2_resets::h2_02_g_other_stream_errors_share_the_budget,
        )
        .alone()
        .guard(seconds(120)),
        Case::new("h2_03_block_that_stays_open", h2_blocks::h2_03_block_that_stays_open)
            .alone()
            .guard(seconds(120)),
        Case::new(
            "h2_03_block_that_stays_open_beside_work",
            h2_blocks::h2_03_block_that_stays_open_beside_work,
        ),
        Case::new("h2_03_continuation_flood", h2_blocks::h2_03_continuation_flood)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_03_frames_inside_a_block", h2_blocks::h2_03_frames_inside_a_block)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_04_bomb_of_cookie_crumbs", h2_blocks::h2_04_bomb_of_cookie_crumbs)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_04_bomb_of_large_fields", h2_blocks::h2_04_bomb_of_large_fields)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_04_bomb_of_small_fields", h2_blocks::h2_04_bomb_of_small_fields)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_04_bombs_on_one_connection", h2_blocks::h2_04_bombs_on_one_connection)
            .alone()
            .guard(seconds(120)),
        Case::new(
            "h2_04_field_count_is_capped_apart_from_bytes",
            h2_blocks::h2_04_field_count_is_capped_apart_from_bytes,
        )
        .alone()
        .guard(seconds(120)),
        Case::new(
            "h2_04_refused_blocks_leave_the_table_whole",
            h2_blocks::h2_04_refused_blocks_leave_the_table_whole,
        )
        .alone()
        .guard(seconds(120)),
        Case::new(
            "h2_04_a_field_beyond_the_limit_costs_only_its_stream",
            h2_blocks::h2_04_a_field_beyond_the_limit_costs_only_its_stream,
        )
        .guard(seconds(120)),
        Case::new(
            "h2_04_targets_and_trailers_beyond_the_limit",
            h2_blocks::h2_04_targets_and_trailers_beyond_the_limit,
        )
        .guard(seconds(120)),
        Case::new(
            "h2_09_content_length_and_data_differ_after_an_early_answer",
            h2_heads::h2_09_content_length_and_data_differ_after_an_early_answer,
        )
        .guard(seconds(120)),
        Case::new("h2_05_empty_data", h2_frames::h2_05_empty_data).alone().guard(seconds(120)),
        Case::new("h2_05_nothing_but_padding", h2_frames::h2_05_nothing_but_padding)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_05_padding_is_credited_back", h2_frames::h2_05_padding_is_credited_back)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_05_small_requests_are_no_attack", h2_frames::h2_05_small_requests_are_no_attack)
            .alone()
            .guard(seconds(120)),
        Case::new(
            "h2_06_a_few_control_frames_are_no_attack",
            h2_frames::h2_06_a_few_control_frames_are_no_attack,
        )
        .alone()
        .guard(seconds(120)),
        Case::new("h2_06_answers_that_nobody_reads", h2_frames::h2_06_answers_that_nobody_reads)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_06_ping_flood", h2_frames::h2_06_ping_flood).alone().guard(seconds(120)),
        Case::new("h2_06_priority_flood", h2_frames::h2_06_priority_flood).alone().guard(seconds(120)),
        Case::new("h2_06_settings_flood", h2_frames::h2_06_settings_flood).alone().guard(seconds(120)),
        Case::new("h2_06_table_size_flapping", h2_frames::h2_06_table_size_flapping)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_06_unknown_frame_flood", h2_frames::h2_06_unknown_frame_flood)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_06_window_update_flood", h2_frames::h2_06_window_update_flood)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_07_a_slow_reader_is_no_attack", h2_frames::h2_07_a_slow_reader_is_no_attack)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_07_dripped_windows", h2_frames::h2_07_dripped_windows).alone().guard(seconds(120)),
        Case::new("h2_07_zero_windows", h2_frames::h2_07_zero_windows).alone().guard(seconds(120)),
        Case::new("h2_08_connection_specific_fields", h2_heads::h2_08_connection_specific_fields)
            .guard(seconds(120)),
        Case::new("h2_08_field_names", h2_heads::h2_08_field_names).guard(seconds(120)),
        Case::new("h2_08_field_values_with_line_ends", h2_heads::h2_08_field_values_with_line_ends)
            .guard(seconds(120)),
        Case::new("h2_08_forbidden_trailers_stay_behind", h2_heads::h2_08_forbidden_trailers_stay_behind)
            .guard(seconds(120)),
        Case::new("h2_08_pseudo_fields", h2_heads::h2_08_pseudo_fields).guard(seconds(120)),
        Case::new("h2_08_trailers", h2_heads::h2_08_trailers).guard(seconds(120)),
        Case::new("h2_09_content_length_and_data_differ", h2_heads::h2_09_content_length_and_data_differ)
            .guard(seconds(120)),
        Case::new(
            "h2_09_content_length_that_is_no_single_number",
            h2_heads::h2_09_content_length_that_is_no_single_number,
        )
        .guard(seconds(120)),
        Case::new(
            "h2_08_refused_heads_leave_nothing_behind",
            h2_heads::h2_08_refused_heads_leave_nothing_behind,
        ),
        Case::new("h2_09_promise_cut_short", h2_heads::h2_09_promise_cut_short).guard(seconds(120)),
        Case::new("h2_10_authority_and_host", h2_heads::h2_10_authority_and_host).guard(seconds(120)),
        Case::new("h2_11_frames_after_a_reset", h2_resets::h2_11_frames_after_a_reset)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_11_meaningless_flags_are_ignored", h2_resets::h2_11_meaningless_flags_are_ignored)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_12_mass_cancel", h2_resets::h2_12_mass_cancel).alone().guard(seconds(120)),
        Case::new("h2_13_backend_floods", h2_upstream::h2_13_backend_floods).alone().guard(seconds(120)),
        Case::new("h2_13_backend_that_gives_no_window", h2_upstream::h2_13_backend_that_gives_no_window)
            .alone()
            .guard(seconds(120)),
        Case::new(
            "h2_13_backend_that_leaves_after_each_answer",
            h2_upstream::h2_13_backend_that_leaves_after_each_answer,
        )
        .alone()
        .guard(seconds(120)),
        Case::new("h2_13_backend_that_lies_in_settings", h2_upstream::h2_13_backend_that_lies_in_settings)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_13_backend_that_pushes", h2_upstream::h2_13_backend_that_pushes)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_13_body_that_breaks_its_promise", h2_upstream::h2_13_body_that_breaks_its_promise)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_13_frames_that_break_the_protocol", h2_upstream::h2_13_frames_that_break_the_protocol)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_13_goaway_decides_what_is_retried", h2_upstream::h2_13_goaway_decides_what_is_retried)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_13_malformed_responses", h2_upstream::h2_13_malformed_responses)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_13_other_resets_are_not_retried", h2_upstream::h2_13_other_resets_are_not_retried)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_13_refusals_have_an_end", h2_upstream::h2_13_refusals_have_an_end)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_13_refused_stream_is_retried", h2_upstream::h2_13_refused_stream_is_retried)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_13_response_heads_without_measure", h2_upstream::h2_13_response_heads_without_measure)
            .alone()
            .guard(seconds(120)),
        Case::new("h2_13_tiny_frames", h2_upstream::h2_13_tiny_frames).alone().guard(seconds(120)),
        Case::new(
            "c_06_clients_that_leave_by_the_thousand",
            leaving::c_06_clients_that_leave_by_the_thousand,
        )
        .alone()
        .guard(seconds(120)),
        Case::new("c_17_any_call_of_the_system_may_fail", failures::c_17_any_call_of_the_system_may_fail)
            .needs(&[Tool::WatchedCalls])
            .alone()
            .guard(seconds(240)),
        Case::new("c_17_any_call_may_fail_inside_tls", failures::c_17_any_call_may_fail_inside_tls)
            .needs(&[Tool::WatchedCalls])
            .alone()
            .guard(seconds(240)),
        Case::new("c_17_any_call_may_fail_under_http2", failures::c_17_any_call_may_fail_under_http2)
            .needs(&[Tool::WatchedCalls])
            .alone()
            .guard(seconds(240)),
        Case::new("c_17_any_call_may_fail_on_a_relay", failures::c_17_any_call_may_fail_on_a_relay)
            .needs(&[Tool::WatchedCalls])
            .alone()
            .guard(seconds(240)),
        Case::new("h2_14_broken_prefaces", h2_heads::h2_14_broken_prefaces).guard(seconds(120)),
        Case::new(
            "h2_14_prior_knowledge_where_not_configured",
            h2_heads::h2_14_prior_knowledge_where_not_configured,
        )
        .guard(seconds(120)),
        Case::new("h2_14_upgrade_to_h2c_is_not_honoured", h2_heads::h2_14_upgrade_to_h2c_is_not_honoured)
            .guard(seconds(120)),
    ]);
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases)
}
