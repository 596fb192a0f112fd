//! QUIC from clients: HTTP/3 with peers that lie, paths that fail and the life of connections; and QUIC that is forwarded without its
//! keys, between clients and servers of a well-known library.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "quic/announced.rs"]
mod announced;
#[path = "quic/browser.rs"]
mod browser;
#[path = "quic/certificates.rs"]
mod certificates;
#[path = "quic/early.rs"]
mod early;
#[path = "quic/frames.rs"]
mod frames;
#[path = "quic/h3_backends.rs"]
mod h3_backends;
#[path = "quic/lies.rs"]
mod lies;
#[path = "quic/life.rs"]
mod life;
#[path = "quic/load.rs"]
mod load;
#[path = "quic/memory.rs"]
mod memory;
#[path = "quic/packets.rs"]
mod packets;
#[path = "quic/passthrough.rs"]
mod passthrough;
#[path = "quic/passthrough_ecn.rs"]
mod passthrough_ecn;
#[path = "quic/passthrough_floods.rs"]
mod passthrough_floods;
#[path = "quic/passthrough_keys.rs"]
mod passthrough_keys;
#[path = "quic/passthrough_operation.rs"]
mod passthrough_operation;
#[path = "quic/passthrough_rig.rs"]
mod passthrough_rig;
#[path = "quic/path.rs"]
mod path;
#[path = "quic/priorities.rs"]
mod priorities;
#[path = "quic/qlog.rs"]
mod qlog;
#[path = "quic/raw.rs"]
mod raw;
#[path = "quic/raw_example.rs"]
mod raw_example;
#[path = "quic/raw_keys.rs"]
mod raw_keys;
#[path = "quic/raw_path.rs"]
mod raw_path;
#[path = "quic/raw_rig.rs"]
mod raw_rig;
#[path = "quic/rig.rs"]
mod rig;
#[path = "quic/upgrade.rs"]
mod upgrade;
#[path = "quic/websocket.rs"]
mod websocket;

use testkit::harness::Case;
use testkit::seconds;
use testkit::tools::Tool::{Chromium, Openssl, Peers};

fn main() {
    let mut cases = testkit::cases![
        frames::q_10_what_breaks_a_connection_has_its_code,
        frames::q_08_qpack_that_breaks_a_connection_has_its_code,
        frames::q_10_what_breaks_a_stream_costs_only_the_stream,
        frames::q_10_bodies_that_are_not_as_long_as_said,
        frames::q_10_what_is_unknown_is_ignored,
        frames::q_09_heads_over_the_limit_are_431,
        frames::many_streams_on_one_connection,
        frames::interleaved_uploads,
        packets::q_02_garbage_is_dropped,
        packets::q_02_other_versions_are_negotiated,
        packets::q_12_tokens_of_others_are_no_tokens,
        packets::q_13_stateless_resets_are_small_and_few,
        packets::q_13_a_close_that_was_lost_is_told_again_with_its_code,
        packets::q_13_a_restarted_gateway_resets_old_connections,
        packets::q_16_a_trickle_keeps_no_connection_that_closes,
        packets::q_01_nothing_is_amplified,
        packets::retry_before_every_handshake,
        path::clients_move_to_another_port,
        path::clients_move_to_another_worker,
        path::q_05_a_storm_of_moves,
        path::packets_grow_to_what_the_path_takes,
        path::loss_and_reordering_change_nothing,
        life::drain_lets_running_requests_finish,
        life::busy_connections_lose_nothing_in_a_drain,
        life::max_requests_per_h3_connection_loses_none,
        life::idle_connections_end,
        life::connections_without_a_request_end,
        life::heads_without_end_are_given_up,
        life::handshakes_have_an_end,
        life::connections_of_an_address_are_capped,
        life::handshakes_are_counted,
        life::a_listener_that_is_removed_gives_its_port_back,
        websocket::tunnels_pass_between_all_versions,
        websocket::a_tunnel_that_is_reset_is_missed,
        websocket::tunnels_need_leave_on_both_sides,
        upgrade::q_15_an_upgrade_loses_no_packet_of_a_connection,
        upgrade::other_numbers_of_workers_take_the_sockets_over,
        certificates::new_connections_see_new_certificates,
        certificates::names_have_certificates,
        certificates::clients_show_certificates,
        certificates::sessions_are_resumed,
        certificates::other_protocols_are_refused,
        qlog::connections_are_logged,
        qlog::a_directory_that_cannot_be_written_is_told_of,
        early::q_11_what_comes_early_is_safe_to_repeat,
        early::q_11_clients_with_certificates_wait,
        early::q_11_nothing_comes_early_unless_allowed,
        early::limits_that_were_lowered_end_early_data,
        raw::streams_of_all_kinds_pass_whoever_opens_them,
        raw::streams_follow_each_other_within_the_limit,
        raw::resets_and_stops_pass_with_their_codes,
        raw::ends_of_connections_pass_with_their_codes,
        raw::datagrams_pass_both_ways,
        raw::the_protocol_of_the_client_is_that_of_the_backend,
        raw::a_client_without_a_backend_is_told,
        raw::backends_are_balanced,
        raw::silence_ends_both_sides_and_a_sign_of_life_keeps_both,
        raw::a_drain_waits_for_streams,
        announced::listeners_over_tcp_announce_the_one_over_quic,
        announced::answers_of_the_gateway_announce_too,
        announced::nothing_is_announced_where_nobody_serves_it,
        h3_backends::t_10_a_backend_that_is_somebody_else_is_not_spoken_to,
        h3_backends::a_backend_of_another_protocol_is_not_spoken_to,
        h3_backends::sessions_with_backends_are_resumed,
        h3_backends::one_pool_has_members_of_all_versions,
        h3_backends::members_are_probed_over_quic,
        raw_keys::backend_addr,
        raw_keys::sni,
        raw_keys::backend_ca_path,
        raw_example::dns_over_quic_passes_as_in_the_example,
        raw_path::loss_on_both_sides_changes_nothing,
        raw_path::relayed_clients_move,
        raw_path::relays_outlive_an_upgrade,
        raw_path::q_01_forged_hellos_reach_no_backend,
        raw_path::a_reload_moves_new_connections_to_another_backend,
    ];
    cases.extend([
        Case::new("chromium_loads_a_page", browser::chromium_loads_a_page).needs(&[Chromium]),
        Case::new("chromium_follows_the_announcement", announced::chromium_follows_the_announcement)
            .needs(&[Chromium]),
        // Measured for memory: alone.
        Case::new(
            "q_01_a_flood_of_initials_costs_no_memory",
            packets::q_01_a_flood_of_initials_costs_no_memory,
        )
        .alone()
        .guard(seconds(120)),
        Case::new("h2_01_rapid_reset", load::h2_01_rapid_reset).alone(),
        Case::new("q_09_a_head_bomb_costs_no_memory", load::q_09_a_head_bomb_costs_no_memory).alone(),
        Case::new("streams_that_nobody_reads_hold_little", load::streams_that_nobody_reads_hold_little)
            .alone(),
        Case::new(
            "a_client_that_reads_slowly_costs_no_memory",
            load::a_client_that_reads_slowly_costs_no_memory,
        )
        .alone(),
        Case::new("uploads_that_nobody_reads_have_a_budget", memory::uploads_that_nobody_reads_have_a_budget)
            .alone()
            .guard(seconds(120)),
        Case::new("a_flood_each_way", load::a_flood_each_way).alone(),
        Case::new("a_mebibyte_each_way_on_many_streams", raw::a_mebibyte_each_way_on_many_streams).alone(),
        Case::new(
            "q_17_a_flood_of_datagrams_is_cut_to_the_queue",
            raw::q_17_a_flood_of_datagrams_is_cut_to_the_queue,
        )
        .alone(),
        Case::new("readers_that_stop_hold_little", raw::readers_that_stop_hold_little).alone(),
        Case::new(
            "q_18_streams_that_are_given_up_cost_no_memory",
            raw_path::q_18_streams_that_are_given_up_cost_no_memory,
        )
        .alone(),
    ]);
    cases.extend(testkit::cases![
        passthrough_floods::q_14_garbage_takes_no_memory_and_gets_no_answer,
        passthrough_floods::q_14_forged_ids_move_nobody,
        passthrough_floods::q_14_packets_that_no_server_answers_are_held_against_none,
        passthrough_floods::a_client_that_has_proven_nothing_gets_three_times_what_it_sent,
        passthrough_floods::a_source_begins_no_more_connections_than_its_rate,
        passthrough_floods::a_strict_binding_holds_connections_to_their_address,
        passthrough_floods::versions_that_nobody_knows_pass,
        passthrough_floods::the_first_datagram_says_where_the_client_is,
        passthrough_ecn::marks_survive_both_ways,
        passthrough_keys::min_client_dcid_len,
        passthrough_keys::max_dcid_len_routed,
        passthrough_keys::flow_idle_timeout_ms,
        passthrough_keys::per_flow_backlog,
        passthrough_keys::audit_throttle_window_secs,
        passthrough_keys::mint_retry,
        passthrough_keys::retry_secret_path,
        passthrough_keys::pools_of_either_kind,
        passthrough::a_quic_listener_with_the_secret_completes_a_handshake_after_a_retry_of_the_gateway,
    ]);
    let with_python = testkit::cases![
        lies::q_03_handshake_data_with_gaps_end_the_connection,
        lies::q_04_ids_that_retire_each_other_end_the_connection,
        lies::q_06_what_was_not_sent_cannot_be_acknowledged,
        lies::q_07_windows_and_limits_hold,
        lies::an_end_that_comes_with_bytes_that_were_read_is_seen,
        announced::a_client_follows_the_announcement,
        priorities::an_urgent_response_overtakes,
        priorities::a_frame_changes_what_a_field_has_said,
        priorities::incremental_responses_share_the_connection,
    ];
    cases.extend(with_python.into_iter().map(|case| case.needs(&[Peers])));
    let with_peers = testkit::cases![
        passthrough::unmodified_servers_are_reached_by_the_default_configuration,
        passthrough::ids_of_all_lengths_and_version_2_pass,
        passthrough::clients_keep_their_servers_when_their_ports_change,
        passthrough::ids_that_name_their_servers_are_followed_to_them,
        passthrough::a_retry_of_the_server_passes,
        passthrough::a_retry_of_the_gateway_is_for_servers_that_share_its_secret,
        passthrough::server_names_choose_the_pool,
        passthrough::weights_count_and_a_server_that_is_gone_is_passed_over,
        passthrough_operation::a_reload_moves_new_connections_and_leaves_the_others,
        passthrough_operation::a_drain_waits_for_connections_that_talk,
        passthrough_operation::connections_outlive_an_upgrade,
        raw_path::clients_and_servers_of_aioquic_are_relayed,
    ];
    cases.extend(with_peers.into_iter().map(|case| case.needs(&[Peers, Openssl])));
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases)
}
