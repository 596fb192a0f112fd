//! Routes: which backend a request reaches, by every protocol of clients.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "routes/answers.rs"]
mod answers;
#[path = "routes/client.rs"]
mod client;
#[path = "routes/crowds.rs"]
mod crowds;
#[path = "routes/examples.rs"]
mod examples;
#[path = "routes/explain.rs"]
mod explain;
#[path = "routes/faults.rs"]
mod faults;
#[path = "routes/filters.rs"]
mod filters;
#[path = "routes/gateway_api.rs"]
mod gateway_api;
#[path = "routes/guards.rs"]
mod guards;
#[path = "routes/limits.rs"]
mod limits;
#[path = "routes/mirrors.rs"]
mod mirrors;
#[path = "routes/names.rs"]
mod names;
#[path = "routes/operation.rs"]
mod operation;
#[path = "routes/pages.rs"]
mod pages;
#[path = "routes/proxied.rs"]
mod proxied;
#[path = "routes/rates.rs"]
mod rates;
#[path = "routes/rules.rs"]
mod rules;
#[path = "routes/sharing.rs"]
mod sharing;
#[path = "routes/splits.rs"]
mod splits;
#[path = "routes/ways.rs"]
mod ways;

use testkit::harness::Case;
use testkit::tools::Tool;

fn main() {
    let mut cases = testkit::cases![
        gateway_api::the_rows_hold_over_http_1_2_and_3,
        answers::redirects_are_absolute,
        answers::t_12_to_t_23_redirects_have_the_port_that_they_need,
        answers::fixed_answers,
        answers::what_no_route_takes,
        answers::virtual_hosts_do_not_fall_through,
        filters::t_01_to_t_11_the_backend_is_asked_for_another_path,
        filters::x_01_to_x_06_fields_are_edited_both_ways,
        filters::policies_hold_level_by_level,
        filters::requests_have_ids,
        filters::an_answer_stands_in_a_file,
        filters::a_route_may_have_no_tunnels,
        limits::x_13_a_route_tries_500_again,
        limits::x_14_a_route_waits_between_tries,
        limits::bodies_are_buffered_by_route,
        limits::x_11_x_12_a_route_has_times_of_its_own,
        limits::bodies_are_bounded_by_route,
        limits::a_route_lifts_the_bound_of_its_listener,
        mirrors::x_10_requests_are_mirrored,
        mirrors::a_mirror_holds_up_nobody,
        pages::the_gateways_own_answers_have_pages,
        pages::responses_of_backends_are_intercepted,
        pages::calls_are_answered_in_grpcs_words,
        pages::pages_are_read_with_the_file_and_again_on_a_signal,
        splits::x_06_a_branch_has_edits_of_its_own,
        splits::x_07_requests_are_split_by_weight,
        splits::x_08_x_09_no_weight_and_no_backend,
        splits::clients_stay_by_cookie_and_move_only_with_their_share,
        splits::clients_stay_by_pool_address_or_field,
        splits::weights_change_at_the_admin_port,
        operation::routes_are_named_in_metrics_and_log,
        operation::a_reload_changes_routes_and_weighs_nothing_else,
        operation::a_listener_may_have_routes_alone,
        client::the_clients_address_is_used_everywhere,
        client::clients_are_told_apart_over_http_2_and_3,
        client::clients_are_spread_by_their_own_addresses,
        client::trust_changes_with_a_reload_and_a_range_of_all_is_warned_of,
        proxied::the_address_of_a_header_counts_everywhere,
        proxied::a_trusted_client_behind_a_balancer_is_believed,
        proxied::bytes_behind_a_header_are_carried_whole,
        proxied::headers_come_before_tls,
        proxied::the_cap_of_an_address_counts_clients_and_not_the_balancer,
        proxied::where_headers_are_optional_peers_come_without,
        proxied::backends_are_told_the_client_of_raw_bytes,
        proxied::a_gateway_behind_a_gateway_knows_the_client,
        proxied::a_connection_that_was_told_its_client_serves_all_its_requests,
        guards::access_lists_of_all_levels_hold,
        guards::a_listener_without_routes_has_its_list,
        guards::raw_connections_are_let_in_or_closed,
        guards::files_of_access_lists_are_watched,
        guards::a_file_of_an_access_list_is_needed_at_the_start,
        guards::who_shows_no_certificate_is_not_let_in,
        guards::an_access_list_may_only_count,
        guards::routes_ask_for_certificates_and_names,
        guards::conditions_on_connections_hold_over_http_3,
        rates::a_limit_holds_over_every_protocol,
        rates::workers_and_listeners_share_a_limit,
        rates::requests_are_counted_by_keys,
        rates::clients_are_counted_by_network_behind_trusted_proxies_too,
        rates::limits_of_all_levels_add_up,
        rates::a_limit_that_runs_dry_counts_and_lets_pass,
        rates::a_reload_keeps_what_is_owed,
        rates::calls_and_tunnels_are_limited_in_their_words,
        rates::explain_and_the_log_name_the_limit,
        crowds::requests_beyond_the_limit_are_refused_over_every_protocol,
        crowds::a_request_that_finds_no_place_has_spent_nothing,
        crowds::a_preflight_takes_no_place,
        crowds::a_client_that_leaves_gives_its_place_back,
        crowds::further_tries_and_hedges_hold_the_place_of_their_request,
        crowds::tunnels_hold_their_places_and_calls_are_refused_in_their_words,
        crowds::requests_at_once_are_counted_by_key,
        crowds::a_reload_knows_what_runs_and_dry_runs_refuse_nothing,
        crowds::an_adaptive_limit_follows_the_backend,
        names::connections_go_by_the_server_that_is_asked_for,
        names::where_tls_ends_here_names_and_certificates_decide,
        names::x_18_some_names_pass_inside_tls_and_others_end_here,
        names::what_no_route_takes_is_closed_or_goes_to_the_listeners_backends,
        faults::shares_of_requests_wait_or_are_answered,
        faults::a_client_that_leaves_while_it_waits_has_asked_no_backend,
        sharing::x_15_r_12_r_13_preflights_are_answered_and_responses_name_their_origin,
        examples::virtual_hosts_and_a_redirect_to_tls,
        examples::services_by_path,
        examples::a_canary,
        examples::blue_and_green,
        explain::it_says_what_a_request_meets,
        explain::it_says_what_a_server_name_leads_to,
    ];
    cases.push(
        Case::new("haproxy_tells_its_clients", proxied::haproxy_tells_its_clients).needs(&[Tool::Haproxy]),
    );
    cases.push(
        Case::new("nginx_is_told_each_client_and_no_other", proxied::nginx_is_told_each_client_and_no_other)
            .needs(&[Tool::Nginx]),
    );
    cases.push(
        Case::new("chromium_heeds_the_policy", sharing::chromium_heeds_the_policy).needs(&[Tool::Chromium]),
    );
    cases.push(
        Case::new("explain_agrees_with_the_rules_alone", rules::explain_agrees_with_the_rules_alone)
            .needs(&[Tool::Peers]),
    );
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases)
}
