//! Listeners and backends at Unix sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "unix/backs.rs"]
mod backs;
#[path = "unix/files.rs"]
mod files;
#[path = "unix/fronts.rs"]
mod fronts;
#[path = "unix/handed.rs"]
mod handed;
#[path = "unix/reloads.rs"]
mod reloads;
#[path = "unix/rig.rs"]
mod rig;

use testkit::harness::Case;
use testkit::tools::Tool;

fn main() {
    let mut cases = testkit::cases![
        fronts::every_protocol_is_served_at_a_unix_socket,
        fronts::clients_have_no_address,
        fronts::a_websocket_passes_through_two_unix_sockets,
        backs::every_protocol_reaches_a_unix_socket,
        backs::bytes_of_every_size_pass_whole,
        backs::a_socket_that_vanishes_and_comes_back,
        backs::a_pool_of_both_kinds_is_checked,
        backs::a_full_queue_is_waited_for_and_no_longer_than_allowed,
        files::a_stale_file_is_replaced_and_nothing_else,
        files::the_file_has_its_mode_and_goes_with_the_process,
        files::a_file_that_is_another_by_now_is_left_alone,
        files::long_paths_are_bound,
        files::check_looks_at_the_directory,
        reloads::a_bind_that_fails_leaves_no_file,
        handed::sockets_of_systemd_are_taken_by_path,
        handed::an_upgrade_that_fails_leaves_the_file,
    ];
    cases.extend([
        Case::new("curl_speaks_to_a_unix_socket", fronts::curl_speaks_to_a_unix_socket).needs(&[Tool::Curl]),
        Case::new("a_reload_changes_unix_listeners", reloads::a_reload_changes_unix_listeners).alone(),
        Case::new("an_upgrade_under_load_loses_nothing", handed::an_upgrade_under_load_loses_nothing).alone(),
    ]);
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases)
}
