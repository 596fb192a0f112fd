//! The programs, run by the kernel on packets of the test (`BPF_PROG_TEST_RUN`), in a network namespace of each test's own.
//!
//! They need root. Without it they are reported as ignored.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "programs/attacks.rs"]
mod attacks;
#[path = "programs/cookies.rs"]
mod cookies;
#[path = "programs/direct.rs"]
mod direct;
#[path = "programs/errors.rs"]
mod errors;
#[path = "programs/flows.rs"]
mod flows;
#[path = "programs/fragments.rs"]
mod fragments;
mod hosts;
#[path = "programs/ids.rs"]
mod ids;
#[path = "programs/packets.rs"]
mod packets;
#[path = "programs/passed.rs"]
mod passed;
#[path = "programs/rig.rs"]
mod rig;
#[path = "programs/translated.rs"]
mod translated;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let mut arguments = Arguments::from_args();
    // They mostly wait for the kernel to take namespaces down.
    arguments.test_threads = arguments.test_threads.or(Some(8));
    let is_able = hosts::is_able();
    let tests = [
        passed::TESTS,
        direct::TESTS,
        translated::TESTS,
        fragments::TESTS,
        errors::TESTS,
        flows::TESTS,
        attacks::TESTS,
        ids::TESTS,
        cookies::TESTS,
    ];
    let trials = tests.into_iter().flatten().map(|&(name, test)| {
        Trial::test(name, move || {
            // The namespace is the thread's: it must not be that of the next test.
            std::thread::spawn(test).join().map_err(|panic| {
                let text = panic.downcast_ref::<String>().cloned();
                text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                    .unwrap_or_default()
                    .into()
            })
        })
        .with_ignored_flag(!is_able)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// A test and its name.
type Test = (&'static str, fn());
