//! A browser without a screen.

mod devtools;

pub use devtools::Browser;

use std::process::Command;

use crate::process::{Finished, run_command};
use crate::seconds;
use crate::tools::Tool;

/// Arguments without which it wants a screen, a user or another network.
const QUIET: [&str; 5] =
    ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"];

/// Loads a page in Chromium with these arguments besides, lets its scripts run for 8 s of the page's own time, and gives the document as it is then, on
/// standard output. Only for tests that need [`Tool::Chromium`].
pub fn document_of(url: &str, arguments: &[String]) -> Finished {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(Tool::Chromium.path().expect("the test needs it"));
    command
        .args(QUIET)
        .arg(format!("--user-data-dir={}", directory.path().display()))
        .args(arguments)
        .args(["--virtual-time-budget=8000", "--dump-dom"])
        .arg(url);
    run_command(command, seconds(90))
}
