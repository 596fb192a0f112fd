//! Logs of single connections (`[observability] qlog_dir`).

use std::path::Path;

use crate::rig::config;
use testkit::{Backend, Gateway, H3Client, Listener, eventually, seconds};

fn gateway(backend: &Backend, directory: &Path, one_in: i64) -> Gateway {
    let config = config().block("observability", "qlog_dir", directory.display().to_string()).block(
        "observability",
        "qlog_one_in",
        one_in,
    );
    Gateway::start(config.listener(Listener::quic().backend(backend.address)))
}

/// The records of each log in the directory.
fn logs(directory: &Path) -> Vec<Vec<serde_json::Value>> {
    let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let texts =
        paths.filter(|path| path.extension().is_some_and(|end| end == "sqlog")).map(std::fs::read_to_string);
    let records = |text: String| {
        let records = text.split('\u{1e}').filter(|record| !record.trim().is_empty());
        records.map(|record| serde_json::from_str(record).unwrap_or_default()).collect()
    };
    texts.map(|text| records(text.unwrap())).collect()
}

pub(crate) fn connections_are_logged() {
    let (backend, parent) = (Backend::standard("one"), tempfile::tempdir().unwrap());
    let directory = parent.path().join("made");
    let gateway = gateway(&backend, &directory, 2);
    for _ in 0..4 {
        let mut client = H3Client::connect(gateway.front()).unwrap();
        assert_eq!(client.get("/").unwrap().status(), 200);
    }
    let is_told = |records: &Vec<serde_json::Value>, name: &str| {
        records.iter().any(|record| record["name"].as_str().is_some_and(|said| said.ends_with(name)))
    };
    // One of two, each from its first packet to its end.
    eventually("two whole logs", seconds(10), || {
        let logs = logs(&directory);
        logs.len() == 2
            && logs.iter().all(|log| {
                log.iter().all(|record| !record.is_null())
                    && ["packet_received", "packet_sent", "connection_closed"]
                        .iter()
                        .all(|name| is_told(log, name))
            })
    });
}

pub(crate) fn a_directory_that_cannot_be_written_is_told_of() {
    let (backend, parent) = (Backend::standard("one"), tempfile::tempdir().unwrap());
    let file = parent.path().join("file");
    std::fs::write(&file, "").unwrap();
    let config = config().block("observability", "qlog_dir", file.display().to_string());
    let mut gateway = Gateway::launch(config.listener(Listener::quic().backend(backend.address)));
    assert_eq!(gateway.process.wait_exit(seconds(10)), Some(1));
    let said = gateway.process.stderr.wait_from(0, seconds(1), |line| {
        ["lb.toml:", "qlog_dir", "cannot be written", &file.display().to_string()]
            .iter()
            .all(|part| line.contains(part))
    });
    assert!(said.is_some(), "{:?}", gateway.messages());
}
