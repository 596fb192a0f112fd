//! TLS in front and behind, on listeners that carry raw bytes and on those that speak HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "tls/attacks.rs"]
mod attacks;
#[path = "tls/backends.rs"]
mod backends;
#[path = "tls/files.rs"]
mod files;
#[path = "tls/h1s.rs"]
mod h1s;
#[path = "tls/h1s_backends.rs"]
mod h1s_backends;
#[path = "tls/h1s_changes.rs"]
mod h1s_changes;
#[path = "tls/h1s_rules.rs"]
mod h1s_rules;
#[path = "tls/rig.rs"]
mod rig;
#[path = "tls/serving.rs"]
mod serving;
#[path = "tls/sessions.rs"]
mod sessions;
#[path = "tls/site.rs"]
mod site;

use testkit::harness::Case;
use testkit::tools::Tool;

fn main() {
    let mut cases = testkit::cases![
        serving::echo_of_any_size,
        serving::half_close_and_the_end_of_each_side,
        serving::sni_and_wildcards_choose_the_certificate,
        serving::handshake_timeout_closes_the_silent_and_the_slow,
        serving::tls13_only_refuses_tls12,
        serving::drain_lets_connections_finish,
        sessions::sessions_survive_reload_new_certificates_and_restart,
        sessions::ticket_keys_turn_and_old_tickets_hold_for_the_overlap,
        files::t_07_a_bad_file_at_reload_changes_nothing,
        files::t_07_a_bad_file_at_start_is_fatal_and_named,
        files::t_09_a_chain_that_is_too_deep_is_refused,
        files::t_10_no_key_material_in_logs_metrics_and_check,
        files::metrics_of_certificates_exist_from_boot,
        files::a_reload_names_the_files_that_are_newer_than_those_in_force,
        attacks::t_01_a_hello_in_tiny_records_is_answered,
        attacks::t_01_a_hello_without_end_is_closed,
        attacks::t_04_a_flood_of_key_updates_is_closed,
        attacks::t_05_plaintext_from_clients_is_closed,
        attacks::t_06_a_revoked_client_certificate_is_refused,
        attacks::t_08_handshakes_beyond_the_cap_are_closed_at_once,
        attacks::t_08_one_network_has_its_share_of_the_handshakes,
        backends::tls_to_a_backend_is_verified_and_resumed,
        backends::t_05_a_backend_in_plaintext_fails_closed,
        backends::a_backend_with_another_name_is_not_used,
        backends::a_backend_that_leaves_the_handshake_has_closed_it,
        backends::a_self_signed_backend_is_believed_where_it_is_named,
        backends::a_failed_handshake_with_a_backend_is_told_with_its_reason,
    ];
    cases.extend([
        Case::new("rotation_under_load_fails_no_handshake", sessions::rotation_under_load_fails_no_handshake)
            .alone(),
        Case::new("idle_connections_are_small", serving::idle_connections_are_small).alone(),
        Case::new("openssl_is_served_and_resumes", sessions::openssl_is_served_and_resumes)
            .needs(&[Tool::Openssl]),
        Case::new(
            "t_02_a_session_of_an_open_name_does_not_open_a_closed_one",
            attacks::t_02_a_session_of_an_open_name_does_not_open_a_closed_one,
        )
        .needs(&[Tool::Openssl]),
        Case::new("openssl_as_backend", backends::openssl_as_backend).needs(&[Tool::Openssl]),
    ]);
    cases.extend(h1s_cases());
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases)
}

/// Listeners that speak HTTP inside TLS.
fn h1s_cases() -> Vec<Case> {
    const CURL: &[Tool] = &[Tool::Curl];
    const NGINX: &[Tool] = &[Tool::Nginx, Tool::Curl];
    let plain = testkit::cases![
        h1s::alpn_chooses_the_protocol,
        h1s::drain_says_close_and_goaway,
        h1s::handshake_timeout_holds_on_h1s,
        h1s::c_07_the_access_log_tells_version_alpn_and_server_name,
        h1s::kept_connections_serve_many_requests,
        h1s::the_end_of_a_connection_is_told_inside_tls,
        h1s_backends::a_backend_that_is_cut_off_has_not_ended,
        h1s_backends::kept_connections_to_backends_end_well,
        h1s_changes::sessions_of_both_versions_survive_changes,
        h1s_rules::t_03_without_a_host_the_listeners_own_rules_hold,
        h1s_rules::t_03_a_misdirected_request_costs_its_connection_nothing,
        h1s_rules::t_06_a_revoked_client_is_refused_on_h1s,
    ];
    let alone = testkit::cases![
        h1s::large_bodies_pass_in_bounded_memory,
        h1s::idle_connections_hold_no_buffers,
        h1s_backends::large_bodies_pass_to_backends_in_bounded_memory,
    ];
    let curl = testkit::cases![
        h1s::curl_speaks_both_versions,
        h1s_backends::t_05_an_http_backend_in_plaintext_fails_closed,
        h1s_rules::t_03_a_host_with_other_rules_is_misdirected,
    ];
    let nginx = testkit::cases![
        h1s_backends::nginx_in_all_four_cells,
        h1s_backends::sessions_with_backends_are_resumed,
        h1s_backends::t_10_reasons_of_backends_are_not_shown_to_clients,
        h1s_backends::a_backend_that_does_not_choose_http_2_is_not_spoken_to,
        h1s_backends::a_client_certificate_is_shown_to_backends,
        h1s_backends::backends_with_and_without_tls_are_mixed,
    ];
    let openssl = testkit::cases![
        h1s_rules::t_02_sessions_of_an_open_host_do_not_open_a_closed_one,
        h1s_rules::client_certificates_are_told_and_cannot_be_forged,
    ];
    let h2load = testkit::cases![
        h1s::h2load_over_tls_meets_no_error,
        h1s_changes::rotation_under_load_drops_no_request,
    ];
    plain
        .into_iter()
        .chain(alone.into_iter().map(Case::alone))
        .chain(curl.into_iter().map(|case| case.needs(CURL)))
        .chain(nginx.into_iter().map(|case| case.needs(NGINX)))
        .chain(openssl.into_iter().map(|case| case.needs(&[Tool::Openssl, Tool::Curl])))
        .chain(
            h2load.into_iter().map(|case| case.needs(&[Tool::H2load]).alone().guard(testkit::seconds(180))),
        )
        .collect()
}
