//! Pools of backends: who gets a request, who is left alone, and what that costs the clients.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "pools/hedge.rs"]
mod hedge;
#[path = "pools/limits.rs"]
mod limits;
#[path = "pools/outlier.rs"]
mod outlier;
#[path = "pools/policies.rs"]
mod policies;
#[path = "pools/retry.rs"]
mod retry;
#[path = "pools/rig.rs"]
mod rig;
#[path = "pools/sticky.rs"]
mod sticky;

fn main() {
    let mut cases = testkit::cases![
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
    ];
    cases.extend(hedge::cases());
    cases.extend(limits::cases());
    cases.extend(retry::cases());
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases)
}
