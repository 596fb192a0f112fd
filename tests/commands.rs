//! What the commands tell operators of a process that runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "commands/import.rs"]
mod import;
#[path = "commands/plan.rs"]
mod plan;
#[path = "commands/simulate.rs"]
mod simulate;

fn main() {
    let mut cases = testkit::cases![
        plan::it_is_what_the_reload_then_does,
        plan::connections_are_counted_where_they_end,
        plan::what_the_admin_port_was_told_and_a_reload_takes_back,
        plan::codes_and_reasons,
        plan::the_token_and_the_environment,
        plan::c_08_other_origins_and_large_bodies,
        import::what_is_written_passes_check_and_what_is_not_is_told,
        simulate::a_log_against_the_file_that_wrote_it_has_no_difference,
    ];
    cases.push(
        testkit::harness::Case::new(
            "five_hundred_lines_take_a_tenth_of_a_second",
            import::five_hundred_lines_take_a_tenth_of_a_second,
        )
        .alone(),
    );
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases)
}
