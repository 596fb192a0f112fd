//! Services in the kernel, by the gateway's binary and a file: client, gateway and backends are in network namespaces of the test.
//!
//! They need root. Without it they are reported as ignored.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(unsafe_code, reason = "namespaces are made by system calls that have no other form")]

#[path = "xdp/changes.rs"]
mod changes;
#[path = "xdp/cookies.rs"]
mod cookies;
#[path = "../crates/lb-l4-xdp/tests/hosts/mod.rs"]
mod hosts;
#[path = "xdp/join.rs"]
mod join;
#[path = "xdp/listeners.rs"]
mod listeners;
#[path = "xdp/lives.rs"]
mod lives;
#[path = "../crates/lb-l4-xdp/tests/namespaces/peers.rs"]
mod peers;
#[path = "xdp/quic.rs"]
mod quic;
#[path = "xdp/rig.rs"]
mod rig;
#[path = "xdp/rights.rs"]
mod rights;
#[path = "xdp/services.rs"]
mod services;
#[path = "xdp/tunnels.rs"]
mod tunnels;
#[path = "xdp/views.rs"]
mod views;

use libtest_mimic::{Arguments, Trial};

type Test = (&'static str, fn(&'static str));

const TESTS: &[Test] = &[
    ("nat_and_link_carry_tcp_and_udp", services::nat_and_link_carry_tcp_and_udp),
    ("denied_sources_are_dropped", services::denied_sources_are_dropped),
    ("what_cannot_be_had_is_named", services::what_cannot_be_had_is_named),
    ("a_backend_that_dies_gets_nothing", changes::a_backend_that_dies_gets_nothing),
    ("a_backend_that_refuses_probes_finishes", changes::a_backend_that_refuses_probes_finishes),
    ("weights_and_drains_are_followed", changes::weights_and_drains_are_followed),
    ("a_reload_adds_changes_and_removes_services", changes::a_reload_adds_changes_and_removes_services),
    ("flows_go_on_over_a_restart", lives::flows_go_on_over_a_restart),
    ("an_upgrade_under_traffic_loses_nothing", lives::an_upgrade_under_traffic_loses_nothing),
    ("at_its_end_it_can_detach", lives::at_its_end_it_can_detach),
    ("a_listener_is_taken_over", listeners::a_listener_is_taken_over),
    ("a_listener_is_handed_to_the_kernel_and_back", listeners::a_listener_is_handed_to_the_kernel_and_back),
    ("tunnels_carry_tcp_and_udp", tunnels::tunnels_carry_tcp_and_udp),
    (
        "a_gateway_behind_it_drains_and_no_request_fails",
        join::a_gateway_behind_it_drains_and_no_request_fails,
    ),
    ("l4_10_three_capabilities_are_enough", rights::l4_10_three_capabilities_are_enough),
    ("l4_10_two_capabilities_are_not", rights::l4_10_two_capabilities_are_not),
    ("a_driver_that_cannot_is_told", rights::a_driver_that_cannot_is_told),
    ("flows_are_shown_with_their_backends", views::flows_are_shown_with_their_backends),
    ("l4_06_a_full_table_is_told", views::l4_06_a_full_table_is_told),
    (
        "connections_stay_at_their_gateway_when_clients_move",
        quic::connections_stay_at_their_gateway_when_clients_move,
    ),
    (
        "l4_02_a_flood_of_syns_costs_no_client_its_connection",
        cookies::l4_02_a_flood_of_syns_costs_no_client_its_connection,
    ),
    (
        "cookies_that_the_kernel_would_not_take_are_refused",
        cookies::cookies_that_the_kernel_would_not_take_are_refused,
    ),
];

fn main() {
    testkit::gateway::set_binary(env!("CARGO_BIN_EXE_expressgateway"));
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(4));
    let is_able = hosts::is_able();
    if is_able && !arguments.list {
        rig::mount();
    }
    let trials = TESTS.iter().flat_map(|&(name, test)| {
        ["native", "skb"].map(|mode| {
            Trial::test(format!("{name}_{mode}"), move || {
                std::thread::spawn(move || test(mode)).join().map_err(|panic| {
                    let text = panic.downcast_ref::<String>().cloned();
                    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                        .unwrap_or_default()
                        .into()
                })
            })
            .with_ignored_flag(!is_able)
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}
