//! TLS in front and behind, on listeners that carry raw bytes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "tls/attacks.rs"]
mod attacks;
#[path = "tls/backends.rs"]
mod backends;
#[path = "tls/files.rs"]
mod files;
#[path = "tls/rig.rs"]
mod rig;
#[path = "tls/serving.rs"]
mod serving;
#[path = "tls/sessions.rs"]
mod sessions;

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
        attacks::t_01_a_hello_in_tiny_records_is_answered,
        attacks::t_01_a_hello_without_end_is_closed,
        attacks::t_04_a_flood_of_key_updates_is_closed,
        attacks::t_05_plaintext_from_clients_is_closed,
        attacks::t_06_a_revoked_client_certificate_is_refused,
        attacks::t_08_handshakes_beyond_the_cap_are_closed_at_once,
        backends::tls_to_a_backend_is_verified_and_resumed,
        backends::t_05_a_backend_in_plaintext_fails_closed,
        backends::a_backend_with_another_name_is_not_used,
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
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases)
}
