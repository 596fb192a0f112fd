//! What the tests of this suite share.

use std::path::Path;
use std::sync::atomic::Ordering;

use testkit::load::Tally;
use testkit::unix::Port;
use testkit::{Client, Config};

/// A directory for sockets, short enough for their paths.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("eg").tempdir_in("/tmp").unwrap()
}

/// The path of a socket in that directory.
pub(crate) fn path(directory: &tempfile::TempDir, name: &str) -> String {
    directory.path().join(name).display().to_string()
}

pub(crate) fn base() -> Config {
    Config::new().runtime("workers", 2).runtime("drain_timeout_ms", 4000)
}

/// One request to the listener at `path`, on a connection of its own.
#[track_caller]
pub(crate) fn ask(path: &str, target: &str) -> String {
    Client::connect(Port::to(path).address).unwrap().get(target).unwrap().text()
}

/// The names of the files in a directory.
pub(crate) fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[track_caller]
pub(crate) fn assert_nothing_lost(tally: &Tally) {
    assert_eq!(tally.failures.lock().unwrap().as_slice(), [] as [String; 0]);
    assert_eq!(tally.failed.load(Ordering::Relaxed), 0);
    assert_eq!(tally.refused.load(Ordering::Relaxed), 0, "connections were refused");
    assert_eq!(tally.repeated.load(Ordering::Relaxed), 0, "connections were cut");
    assert!(tally.served.load(Ordering::Relaxed) > 50, "too little traffic to show anything");
}
