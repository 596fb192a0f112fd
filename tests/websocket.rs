//! WebSocket through the gateway, between clients and servers of well-known libraries.
//!
//! A cell is a pair of protocols, named front first: `h1` is an upgrade, `h2` an extended CONNECT (RFC 8441), `s` stands for TLS.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "websocket/attacks.rs"]
mod attacks;
#[path = "websocket/autobahn.rs"]
mod autobahn;
#[path = "websocket/drain.rs"]
mod drain;
#[path = "websocket/handshake.rs"]
mod handshake;
#[path = "websocket/limits.rs"]
mod limits;
#[path = "websocket/memory.rs"]
mod memory;
#[path = "websocket/messages.rs"]
mod messages;
#[path = "websocket/rig.rs"]
mod rig;

use rig::{H1_H1, H1_H2, H1S_H1, H2_H1, H2_H2, H2S_H1, H2S_H2};
use testkit::harness::Case;
use testkit::seconds;
use testkit::tools::Tool::{Openssl, Peers, Wstest};

/// A case for each cell, of functions that take one.
macro_rules! on_every_cell {
    ($($module:ident::$name:ident),* $(,)?) => {
        vec![$(
            Case::new(concat!(stringify!($name), "_h1_h1"), || $module::$name(H1_H1)).needs(&[Peers]),
            Case::new(concat!(stringify!($name), "_h1s_h1"), || $module::$name(H1S_H1)).needs(&[Peers, Openssl]),
            Case::new(concat!(stringify!($name), "_h1_h2"), || $module::$name(H1_H2)).needs(&[Peers]),
            Case::new(concat!(stringify!($name), "_h2_h1"), || $module::$name(H2_H1)).needs(&[Peers]),
            Case::new(concat!(stringify!($name), "_h2s_h1"), || $module::$name(H2S_H1)).needs(&[Peers, Openssl]),
            Case::new(concat!(stringify!($name), "_h2_h2"), || $module::$name(H2_H2)).needs(&[Peers]),
            Case::new(concat!(stringify!($name), "_h2s_h2"), || $module::$name(H2S_H2)).needs(&[Peers, Openssl]),
        )*]
    };
}

/// The same without TLS, and alone: for measures of memory.
macro_rules! alone_on_plain_cells {
    ($($module:ident::$name:ident),* $(,)?) => {
        vec![$(
            Case::new(concat!(stringify!($name), "_h1_h1"), || $module::$name(H1_H1)).needs(&[Peers]).alone(),
            Case::new(concat!(stringify!($name), "_h1_h2"), || $module::$name(H1_H2)).needs(&[Peers]).alone(),
            Case::new(concat!(stringify!($name), "_h2_h1"), || $module::$name(H2_H1)).needs(&[Peers]).alone(),
            Case::new(concat!(stringify!($name), "_h2_h2"), || $module::$name(H2_H2)).needs(&[Peers]).alone(),
        )*]
    };
}

fn main() {
    let mut cases = on_every_cell![
        messages::messages_pass_both_ways,
        messages::fields_and_sub_protocol_are_the_origins,
        messages::close_codes_pass,
        messages::a_refusal_passes,
        messages::a_client_that_leaves_is_missed,
        limits::a_large_message_ends_with_1009,
        limits::a_large_message_of_the_backend_ends_with_1009,
        limits::a_ping_flood_ends_with_1008,
        limits::pings_within_the_limit_pass,
        limits::silence_ends_with_1001,
        limits::half_a_frame_ends_with_1008,
        limits::a_backend_that_takes_nothing_ends_with_1008,
        attacks::c_13_a_length_of_2_63_ends_the_tunnel,
        drain::the_end_of_a_drain_ends_with_1001,
    ];
    cases.extend(alone_on_plain_cells![
        memory::a_client_that_never_reads_costs_no_memory,
        memory::a_backend_that_never_reads_costs_no_memory,
    ]);
    cases.extend([
        Case::new("the_peers_agree_without_a_gateway", messages::the_peers_agree_without_a_gateway)
            .needs(&[Peers, Openssl]),
        Case::new("deflate_is_untouched_h1", || messages::deflate_is_untouched(H1_H1)).needs(&[Peers]),
        Case::new("deflate_is_untouched_h2", || messages::deflate_is_untouched(H2_H1)).needs(&[Peers]),
        Case::new("extended_connect_needs_leave", messages::extended_connect_needs_leave).needs(&[Peers]),
        Case::new("fragments_count_as_one_message", limits::fragments_count_as_one_message),
        Case::new("a_wrong_proof_is_not_passed_on", handshake::a_wrong_proof_is_not_passed_on)
            .needs(&[Peers]),
    ]);
    cases.extend(testkit::cases![
        drain::a_tunnel_within_a_frame_is_told_when_it_ends,
        handshake::broken_handshakes_are_refused,
        handshake::a_success_that_switches_nothing_opens_no_tunnel,
        handshake::a_backend_without_extended_connect_is_a_bad_gateway,
        limits::a_frame_may_take_as_long_as_its_receiver,
        limits::ends_are_counted,
        attacks::c_13_what_only_an_end_can_judge_passes,
        attacks::c_13_bytes_after_a_close_pass,
    ]);
    cases.extend([
        Case::new("c_13_broken_frames_end_the_tunnel", attacks::c_13_broken_frames_end_the_tunnel).alone(),
        Case::new("autobahn_h1", || autobahn::verdicts_are_the_same(H1_H1))
            .needs(&[Wstest, Peers])
            .guard(seconds(900)),
        Case::new("autobahn_h1s", || autobahn::verdicts_are_the_same(H1S_H1))
            .needs(&[Wstest, Peers, Openssl])
            .guard(seconds(900)),
        Case::new("autobahn_h2", || autobahn::verdicts_are_the_same(H2_H1))
            .needs(&[Wstest, Peers])
            .guard(seconds(900)),
    ]);
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases)
}
