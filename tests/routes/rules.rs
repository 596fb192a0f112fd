//! `explain` against a matcher in another language, which is written from the rules alone (`tests/peers/route_matcher.py`).

use std::path::Path;
use std::process::Command;

use testkit::gateway::binary;
use testkit::process::run_command;
use testkit::seconds;

/// Files and requests for each; a file has 24 listeners, which are all judged. `EG_MATCHER_FILES` makes it another number of files.
const FILES: &str = "3";
const REQUESTS: &str = "10";

pub(crate) fn explain_agrees_with_the_rules_alone() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers/route_matcher.py");
    let files = std::env::var("EG_MATCHER_FILES").unwrap_or_else(|_| FILES.to_owned());
    let seed = std::env::var("EG_MATCHER_SEED").unwrap_or_else(|_| "16".to_owned());
    let mut command = Command::new(testkit::peers::python().unwrap());
    command.arg(script).arg(binary()).args([&*seed, &*files, REQUESTS]);
    let done = run_command(command, seconds(600));
    assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
    assert!(done.stdout.contains(" agreed, "), "{}", done.stdout);
}
