//! The process from its first line of configuration to its exit code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "lifecycle/admin.rs"]
mod admin;
#[path = "lifecycle/bad_configs.rs"]
mod bad_configs;
#[path = "lifecycle/caps.rs"]
mod caps;
#[path = "lifecycle/check.rs"]
mod check;
#[path = "lifecycle/command_line.rs"]
mod command_line;
#[path = "lifecycle/drain.rs"]
mod drain;
#[path = "lifecycle/hung_files.rs"]
mod hung_files;
#[path = "lifecycle/idle.rs"]
mod idle;
#[path = "lifecycle/io_backend.rs"]
mod io_backend;
#[path = "lifecycle/packaging.rs"]
mod packaging;
#[path = "lifecycle/places.rs"]
mod places;
#[path = "lifecycle/stalled_logs.rs"]
mod stalled_logs;
#[path = "lifecycle/startup.rs"]
mod startup;
#[path = "lifecycle/successor.rs"]
mod successor;
#[path = "lifecycle/supervised.rs"]
mod supervised;
#[path = "lifecycle/upgrade.rs"]
mod upgrade;

use testkit::harness::Case;
use testkit::tools::Tool;

fn main() {
    let mut cases = testkit::cases![
        startup::log_lines_of_the_guide,
        startup::log_lines_are_json,
        startup::log_format_and_level_follow_the_environment,
        startup::ready_means_ready,
        startup::twelve_listeners,
        startup::listener_by_name,
        startup::taken_port_is_fatal_and_named,
        startup::taken_admin_port_is_fatal_and_named,
        startup::listener_without_backends_is_skipped,
        startup::old_and_new_process_share_the_port,
        startup::l4_10_descriptor_exhaustion_passes,
        startup::closed_outputs_do_not_kill,
        startup::runs_as_long_as_nobody_stops_it,
        stalled_logs::a_log_that_nobody_reads_stops_nothing,
        stalled_logs::a_reader_that_comes_back_gets_the_first_lines_and_the_last,
        stalled_logs::a_start_that_fails_ends_although_nobody_reads_why,
        idle::a_gateway_without_traffic_sleeps,
        caps::connections_of_an_address,
        caps::connections_of_a_listener,
        io_backend::the_log_names_the_driver_that_is_used,
        admin::probes_and_metrics_exactly,
        admin::metric_families_are_declared,
        admin::other_paths_and_methods,
        admin::token_guards_all_but_the_probes,
        admin::data_port_has_no_admin_paths,
        admin::other_hosts_are_refused,
        admin::crowds_and_nonsense_disturb_nobody,
        drain::idle_gateway_ends_at_once,
        drain::under_load_nothing_is_lost,
        drain::a_late_request_on_a_kept_connection_is_served,
        drain::busy_clients_lose_nothing,
        drain::idle_connections_close_in_turn,
        drain::phases_in_order,
        drain::requests_under_way_are_finished,
        drain::missed_deadline_is_told,
        drain::deadline_of_a_listener_counts,
        drain::tcp_connections_may_finish,
        drain::c_02_second_signal_is_harmless,
        drain::interrupt_drains_too,
        command_line::version_and_help,
        command_line::check_says_yes_or_no,
        command_line::flags_as_other_servers_have_them,
        command_line::check_binds_nothing,
        places::files_of_tls_are_told_all_at_once,
        places::names_and_files_are_told_together,
        places::addresses_that_cannot_be_bound_are_told_all_at_once,
        places::check_finds_a_list_of_backends_that_is_not_there,
        places::the_admin_port_and_the_access_log_are_told_with_their_lines,
        places::faults_of_every_kind_are_told_at_once,
        places::a_reload_tells_of_faults_of_every_kind_at_once,
        command_line::unreadable_files,
        command_line::c_01_configurations_from_pipes_are_bounded,
        command_line::an_access_log_that_nobody_reads_is_refused,
        command_line::default_path,
        command_line::values_come_from_the_environment,
        command_line::demo_serves_until_interrupted,
        supervised::signals_before_the_configuration_is_read_kill_nobody,
        supervised::sigquit_drains,
        upgrade::an_upgrade_that_fails_changes_nothing,
        successor::every_socket_passes_on,
        successor::long_streams_finish_where_they_began,
        successor::orders_during_an_upgrade_reach_the_new_process,
        successor::the_new_process_is_the_main_one,
        successor::a_service_that_systemd_hears_nothing_of_does_not_hand_over,
        successor::the_binary_is_found_where_it_was_called,
        upgrade::sockets_of_systemd_are_taken_by_address,
        supervised::systemd_is_told_how_a_reload_went,
        supervised::the_watchdog_is_pinged_as_long_as_workers_answer,
        supervised::a_supervisor_that_does_not_read_holds_nobody_up,
        supervised::the_same_file_is_not_run_twice_unless_asked,
        supervised::a_low_port_names_the_capability,
        supervised::the_unit_does_what_the_pages_say,
        check::it_says_who_can_read_the_key,
        check::keys_of_a_group_are_taken_when_allowed,
        check::an_access_log_that_cannot_be_written_is_found,
        check::authorities_that_verify_nobody_and_loops_are_warned_of,
        check::names_are_asked_for_on_demand,
        bad_configs::each_is_refused_with_its_reason,
        bad_configs::what_is_not_built_says_so,
        bad_configs::running_refuses_as_check_does,
        bad_configs::files_of_the_earlier_implementation_are_accepted,
    ];
    cases.extend([
        Case::new("a_debian_package_installs_and_goes", packaging::a_debian_package_installs_and_goes)
            .needs(&[Tool::Dpkg, Tool::Root])
            .picks_driver(),
        Case::new("prometheus_reads_alerts_and_dashboard", packaging::prometheus_reads_alerts_and_dashboard)
            .needs(&[Tool::Promtool])
            .picks_driver(),
        Case::new("schema_completions_and_man_pages", packaging::schema_completions_and_man_pages)
            .picks_driver(),
        Case::new(
            "default_port_is_used_when_free_and_off_means_off",
            admin::default_port_is_used_when_free_and_off_means_off,
        )
        .needs(&[Tool::Unshare, Tool::Ip, Tool::Curl]),
        Case::new(
            "where_io_uring_is_forbidden_epoll_serves",
            io_backend::where_io_uring_is_forbidden_epoll_serves,
        )
        .needs(&[Tool::IoUring])
        .picks_driver(),
        Case::new("io_uring_on_demand_or_not_at_all", io_backend::io_uring_on_demand_or_not_at_all)
            .needs(&[Tool::IoUring])
            .picks_driver(),
        Case::new(
            "a_worker_whose_ring_fails_ends_the_process",
            io_backend::a_worker_whose_ring_fails_ends_the_process,
        )
        .needs(&[Tool::IoUring])
        .picks_driver(),
        Case::new("an_upgrade_under_load_loses_nothing", upgrade::an_upgrade_under_load_loses_nothing)
            .alone(),
        Case::new("ipv6_on_both_sides", startup::ipv6_on_both_sides).needs(&[Tool::Ipv6]),
        Case::new(
            "certificates_that_hang_do_not_keep_the_gateway_from_stopping",
            hung_files::certificates_that_hang_do_not_keep_the_gateway_from_stopping,
        )
        .needs(&[Tool::HungFiles]),
        Case::new(
            "a_start_that_waits_for_a_file_or_a_name_ends_when_told_to",
            hung_files::a_start_that_waits_for_a_file_or_a_name_ends_when_told_to,
        )
        .needs(&[Tool::HungFiles]),
        Case::new(
            "a_configuration_that_hangs_does_not_keep_the_gateway_from_stopping",
            hung_files::a_configuration_that_hangs_does_not_keep_the_gateway_from_stopping,
        )
        .needs(&[Tool::HungFiles]),
    ]);
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases)
}
