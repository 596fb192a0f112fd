//! A gateway without traffic sleeps.

use std::collections::BTreeMap;

use testkit::certificates::Authority;
use testkit::{Backend, Config, Gateway, Listener, seconds};

pub(crate) fn a_gateway_without_traffic_sleeps() {
    let (backend, dir) = (Backend::standard("one"), tempfile::tempdir().unwrap());
    Authority::new("test authority").server(&["server.test"]).write(dir.path(), "s");
    let config = Config::new()
        .runtime("workers", 2)
        .block("observability", "access_log", dir.path().join("access.log").display().to_string())
        .listener(Listener::h1().backend(backend.address))
        .listener(Listener::tls(dir.path(), "s").backend(backend.address));
    let gateway = Gateway::start(config);
    // Connections to the backend are kept, and looked at from time to time.
    for _ in 0..8 {
        assert_eq!(gateway.get("/").status, 200);
    }
    std::thread::sleep(seconds(2));
    let before = gateway.process.context_switches();
    std::thread::sleep(seconds(6));
    let after = gateway.process.context_switches();
    let woken: BTreeMap<&str, u64> = after
        .iter()
        .map(|(thread, count)| (thread.as_str(), count - before.get(thread).unwrap_or(count)))
        .collect();
    assert!(woken.len() >= 4, "{woken:?}");
    // A timer of five seconds, which tokio's wheel may split in a few steps.
    assert!(woken.values().all(|count| *count <= 8), "in six seconds: {woken:?}");
}
