//! Pools of backends: who gets a request, who is left alone, how that is found out, and what it costs the clients.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "pools/admin.rs"]
mod admin;
#[path = "pools/c_04.rs"]
mod c_04;
#[path = "pools/connections.rs"]
mod connections;
#[path = "pools/cost.rs"]
mod cost;
#[path = "pools/descriptors.rs"]
mod descriptors;
#[path = "pools/health.rs"]
mod health;
#[path = "pools/health_grpc.rs"]
mod health_grpc;
#[path = "pools/health_quic.rs"]
mod health_quic;
#[path = "pools/health_rig.rs"]
mod health_rig;
#[path = "pools/hedge.rs"]
mod hedge;
#[path = "pools/limits.rs"]
mod limits;
#[path = "pools/lost.rs"]
mod lost;
#[path = "pools/membership.rs"]
mod membership;
#[path = "pools/outlier.rs"]
mod outlier;
#[path = "pools/policies.rs"]
mod policies;
#[path = "pools/queue.rs"]
mod queue;
#[path = "pools/rest.rs"]
mod rest;
#[path = "pools/retry.rs"]
mod retry;
#[path = "pools/rig.rs"]
mod rig;
#[path = "pools/slow_start.rs"]
mod slow_start;
#[path = "pools/sticky.rs"]
mod sticky;
#[path = "pools/traces.rs"]
mod traces;

use testkit::harness::Case;
use testkit::seconds;
use testkit::tools::Tool::Peers;

fn main() {
    let mut cases = testkit::cases![
        policies::every_policy_is_true_to_weights,
        policies::least_request_avoids_a_busy_backend,
        policies::least_connections_counts_tcp_connections,
        policies::a_key_keeps_its_backend,
        policies::tcp_follows_the_source_address,
        policies::connections_without_an_id_go_by_the_address,
        policies::fallback_level_waits_for_its_turn,
        outlier::failures_in_a_row_eject,
        outlier::a_share_of_failures_ejects,
        outlier::half_of_the_backends_stay_whatever_happens,
        outlier::deadlines_of_clients_eject_nobody,
        outlier::failed_connects_are_a_share_of_all_connects,
        slow_start::who_passes_its_checks_again_gets_little_at_first,
        slow_start::who_was_ejected_gets_little_at_first,
        sticky::cookie_brings_a_client_back,
        sticky::cookie_of_nobody_is_replaced,
        sticky::instances_with_one_key_agree,
        sticky::each_file_is_renewed_on_its_own,
        health::a_backend_that_fails_its_checks_gets_nothing_until_it_passes_them,
        health::the_request_is_the_one_that_is_asked_for,
        health::status_body_and_host_must_be_right,
        health::tcp_checks_of_a_tcp_listener,
        health::a_port_of_its_own,
        health::http_2_backends_are_asked_over_http_2,
        health::only_who_is_well_is_asked,
        health::a_pool_without_a_healthy_backend,
        health::each_address_has_one_prober,
        health::probers_follow_a_reload,
        health::probers_follow_a_name,
        health::the_health_of_a_pool_is_that_of_the_gateway,
        health::a_drain_does_not_wait_for_probes,
        health_quic::who_speaks_quic_is_healthy,
        health_grpc::only_serving_is_healthy,
        health_grpc::backends_inside_tls_are_asked_inside_tls,
        health_grpc::plaintext_where_tls_is_due_fails,
        c_04::a_trickle_ends_with_the_probe,
        c_04::flapping_changes_nothing,
        c_04::other_ends,
        admin::backends_are_shown_as_they_stand,
        admin::c_08_changes_need_a_token_in_force,
        admin::backends_come_and_go_under_traffic,
        admin::a_drained_backend_finishes_what_it_has,
        admin::weights_move_the_shares,
        admin::wrong_requests_change_nothing,
        admin::a_reload_keeps_what_the_file_does_not_name,
        admin::tcp_connections_outlive_the_removal,
        admin::who_has_left_changes_nothing,
        admin::who_leaves_meanwhile_changes_nothing,
        connections::http_1_connections_count_while_they_are_open,
        connections::http_2_connections_count_while_they_are_open,
        connections::connections_of_before_end_when_a_backend_is_reached_otherwise,
        connections::connections_of_requests_of_before_end_with_them,
        membership::a_file_is_followed,
        membership::a_file_that_is_wrong_changes_nothing,
        membership::srv_records_are_followed,
        membership::an_answer_that_does_not_fit_a_datagram_is_asked_for_over_tcp,
        membership::c_03_last_good_records_outlive_the_name,
        membership::c_03_names_lead_neither_here_nor_to_the_keeper,
        membership::counts_survive_a_change_of_the_set,
        membership::sources_come_and_go_with_reloads,
    ];
    cases.extend([
        Case::new(
            "a_real_server_answers_for_its_services",
            health_grpc::a_real_server_answers_for_its_services,
        )
        .needs(&[Peers]),
        Case::new("c_04_tar_pit", c_04::tar_pit).alone(),
        Case::new("c_04_a_gibibyte_is_not_read", c_04::a_gibibyte_is_not_read).alone().guard(seconds(120)),
        Case::new("c_04_a_gibibyte_over_http_2_is_not_read", c_04::a_gibibyte_over_http_2_is_not_read)
            .alone(),
        Case::new("c_04_what_has_no_end_is_malformed", c_04::what_has_no_end_is_malformed).alone(),
        Case::new("c_04_http_2_floods_end_with_the_probe", c_04::http_2_floods_end_with_the_probe).alone(),
    ]);
    cases.extend(cost::cases());
    cases.extend(descriptors::cases());
    cases.extend(hedge::cases());
    cases.extend(limits::cases());
    cases.extend(lost::cases());
    cases.extend(queue::cases());
    cases.extend(rest::cases());
    cases.extend(traces::cases());
    cases.extend(retry::cases());
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases)
}
