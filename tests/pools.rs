//! Pools of backends: who gets a request, who is left alone, and what that costs the clients.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "pools/admin.rs"]
mod admin;
#[path = "pools/membership.rs"]
mod membership;
#[path = "pools/outlier.rs"]
mod outlier;
#[path = "pools/policies.rs"]
mod policies;
#[path = "pools/rig.rs"]
mod rig;
#[path = "pools/sticky.rs"]
mod sticky;

fn main() {
    let cases = testkit::cases![
        policies::every_policy_is_true_to_weights,
        policies::least_request_avoids_a_busy_backend,
        policies::least_connections_counts_tcp_connections,
        policies::a_key_keeps_its_backend,
        policies::tcp_follows_the_source_address,
        policies::fallback_level_waits_for_its_turn,
        outlier::failures_in_a_row_eject,
        outlier::a_share_of_failures_ejects,
        outlier::half_of_the_backends_stay_whatever_happens,
        outlier::deadlines_of_clients_eject_nobody,
        sticky::cookie_brings_a_client_back,
        sticky::cookie_of_nobody_is_replaced,
        sticky::instances_with_one_key_agree,
        admin::backends_are_shown_as_they_stand,
        admin::c_08_changes_need_a_token_in_force,
        admin::backends_come_and_go_under_traffic,
        admin::a_drained_backend_finishes_what_it_has,
        admin::weights_move_the_shares,
        admin::wrong_requests_change_nothing,
        admin::a_reload_keeps_what_the_file_does_not_name,
        admin::tcp_connections_outlive_the_removal,
        membership::a_file_is_followed,
        membership::a_file_that_is_wrong_changes_nothing,
        membership::srv_records_are_followed,
        membership::c_03_last_good_records_outlive_the_name,
        membership::c_03_names_lead_neither_here_nor_to_the_keeper,
        membership::counts_survive_a_change_of_the_set,
        membership::sources_come_and_go_with_reloads,
    ];
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases)
}
