//! Pools of backends: who is used, and how that is found out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "pools/c_04.rs"]
mod c_04;
#[path = "pools/health.rs"]
mod health;
#[path = "pools/health_grpc.rs"]
mod health_grpc;
#[path = "pools/rig.rs"]
mod rig;

use testkit::harness::Case;
use testkit::seconds;
use testkit::tools::Tool::Peers;

fn main() {
    let mut cases = testkit::cases![
        health::a_backend_that_fails_its_checks_gets_nothing_until_it_passes_them,
        health::the_request_is_the_one_that_is_asked_for,
        health::status_body_and_host_must_be_right,
        health::tcp_checks_of_a_tcp_listener,
        health::a_port_of_its_own,
        health::http_2_backends_are_asked_over_http_2,
        health::a_pool_without_a_healthy_backend,
        health::each_address_has_one_prober,
        health::probers_follow_a_reload,
        health::probers_follow_a_name,
        health::the_health_of_a_pool_is_that_of_the_gateway,
        health::a_drain_does_not_wait_for_probes,
        health_grpc::only_serving_is_healthy,
        health_grpc::backends_inside_tls_are_asked_inside_tls,
        health_grpc::plaintext_where_tls_is_due_fails,
        c_04::a_trickle_ends_with_the_probe,
        c_04::flapping_changes_nothing,
        c_04::other_ends,
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
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases)
}
