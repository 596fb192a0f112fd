//! The operator's desk: the status as JSON, the page that shows it, and what watches them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "desk/large.rs"]
mod large;
#[path = "desk/page.rs"]
mod page;
#[path = "desk/rig.rs"]
mod rig;
#[path = "desk/status.rs"]
mod status;
#[path = "desk/terminal.rs"]
mod terminal;
#[path = "desk/viewers.rs"]
mod viewers;

use testkit::harness::Case;
use testkit::seconds;
use testkit::tools::Tool;

fn main() {
    let mut cases = testkit::cases![
        status::all_of_it_is_there_and_counts_what_was_served,
        status::an_ejected_backend_says_why,
        status::reloads_are_remembered_with_what_they_changed,
        status::a_reload_begins_at_the_admin_port,
        status::certificates_say_how_long_they_hold,
        status::a_drain_is_shown_until_the_end,
        terminal::top_writes_how_everything_stands,
        terminal::a_tap_shows_what_is_chosen,
        terminal::d_06_a_tap_shows_a_part_of_too_much_and_holds_nobody_up,
        viewers::changes_follow_the_whole,
        viewers::one_more_than_may_watch_is_told,
    ];
    cases.extend([
        Case::new(
            "d_01_viewers_that_do_not_read_are_cut_off",
            viewers::d_01_viewers_that_do_not_read_are_cut_off,
        )
        .alone()
        .picks_driver(),
        Case::new(
            "d_01_two_hundred_viewers_cost_the_workers_nothing",
            viewers::d_01_two_hundred_viewers_cost_the_workers_nothing,
        )
        .alone()
        .picks_driver(),
        Case::new(
            "three_thousand_backends_are_read_in_time",
            large::three_thousand_backends_are_read_in_time,
        )
        .alone()
        .picks_driver(),
        Case::new("large_pages_stay_usable", large::large_pages_stay_usable)
            .needs(&[Tool::Chromium])
            .alone()
            .guard(seconds(240))
            .picks_driver(),
        Case::new("every_table_is_filled_from_traffic", page::every_table_is_filled_from_traffic)
            .needs(&[Tool::Chromium])
            .picks_driver(),
        Case::new(
            "an_ejected_backend_is_seen_within_two_seconds",
            page::an_ejected_backend_is_seen_within_two_seconds,
        )
        .needs(&[Tool::Chromium])
        .picks_driver(),
        Case::new("an_action_works_and_needs_its_token", page::an_action_works_and_needs_its_token)
            .needs(&[Tool::Chromium])
            .picks_driver(),
        Case::new("everything_has_a_name_and_contrast", page::everything_has_a_name_and_contrast)
            .needs(&[Tool::Chromium])
            .picks_driver(),
        Case::new("d_04_script_in_a_name_is_shown_as_text", page::d_04_script_in_a_name_is_shown_as_text)
            .needs(&[Tool::Chromium])
            .picks_driver(),
    ]);
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases)
}
