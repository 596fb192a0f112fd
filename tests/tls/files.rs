//! The files that a gateway reads.

use testkit::certificates::write;
use testkit::{Gateway, seconds};

use crate::rig::{Rig, renew};

pub(crate) fn t_07_a_bad_file_at_reload_changes_nothing() {
    let rig = Rig::new();
    let gateway = rig.gateway("");
    let (cert, key) = (
        std::fs::read_to_string(rig.file("s.pem")).unwrap(),
        std::fs::read_to_string(rig.file("s.key")).unwrap(),
    );
    let other = rig.authority.server(&["server.test"]);
    let expired = rig.authority.expired(&["server.test"]);
    let cases: [(&str, &dyn Fn()); 6] = [
        ("key_mismatch", &|| write(&rig.file("s.key"), &other.key, 0o600)),
        ("permissions", &|| write(&rig.file("s.key"), &key, 0o644)),
        ("key_parse", &|| write(&rig.file("s.key"), &key[..key.len() / 2], 0o600)),
        ("cert_parse", &|| write(&rig.file("s.pem"), &cert[..cert.len() / 2], 0o644)),
        ("expired", &|| {
            expired.write(rig.files.path(), "s");
        }),
        ("io", &|| std::fs::remove_file(rig.file("s.key")).unwrap()),
    ];
    for (reason, spoil) in cases {
        write(&rig.file("s.pem"), &cert, 0o644);
        write(&rig.file("s.key"), &key, 0o600);
        spoil();
        let line = renew(&gateway);
        assert!(line.contains("\"fail\":1"), "{reason}: {line}");
        gateway.wait_metric("cert_rotation_failed_total", &[("reason", reason)], |n| n == 1.0);
        assert!(rig.client().connect(gateway.front(), "server.test").unwrap().echo(b"still here").unwrap());
    }
    assert_eq!(gateway.process.stderr.wait_count("keeping previous bundle live", 6), 6);
    write(&rig.file("s.pem"), &cert, 0o644);
    write(&rig.file("s.key"), &key, 0o600);
    assert!(renew(&gateway).contains("\"ok\":1"));
    assert_eq!(gateway.process.stderr.wait_count("TLS cert reload succeeded", 1), 1);
}

pub(crate) fn t_07_a_bad_file_at_start_is_fatal_and_named() {
    let rig = Rig::new();
    let key = std::fs::read_to_string(rig.file("s.key")).unwrap();
    write(&rig.file("s.key"), &key, 0o604);
    let mut gateway = Gateway::launch(rig.config(""));
    assert_eq!(gateway.process.wait_exit(seconds(10)), Some(1));
    assert!(gateway.process.tail(20).contains("s.key"), "{}", gateway.process.tail(20));
    let file = rig.file("lb.toml");
    std::fs::write(&file, rig.config("").render()).unwrap();
    let checked = testkit::gateway::cli(&["check", &file.display().to_string()]);
    assert_eq!(checked.code, 1);
    assert!(checked.stderr.contains("s.key") && checked.stderr.contains("0604"), "{}", checked.stderr);
    write(&rig.file("s.key"), &key, 0o600);
    assert_eq!(testkit::gateway::cli(&["check", &file.display().to_string()]).code, 0);
}

pub(crate) fn t_09_a_chain_that_is_too_deep_is_refused() {
    let rig = Rig::new();
    let cert = std::fs::read_to_string(rig.file("s.pem")).unwrap();
    write(&rig.file("s.pem"), cert.repeat(7), 0o644);
    let mut gateway = Gateway::launch(rig.config(""));
    assert_eq!(gateway.process.wait_exit(seconds(10)), Some(1));
    assert!(gateway.process.tail(20).contains("at most 6"), "{}", gateway.process.tail(20));
}

pub(crate) fn t_10_no_key_material_in_logs_metrics_and_check() {
    let rig = Rig::new();
    write(&rig.file("tickets"), b"sixteen byte name".repeat(10).get(..80).unwrap(), 0o600);
    let listener =
        rig.listener("").block("tls", "ticket_key_path", rig.file("tickets").display().to_string());
    let config = testkit::Config::new().listener(listener);
    let gateway = Gateway::launch_with(config, &[("RUST_LOG", "trace")]);
    testkit::eventually("it is ready", seconds(10), || gateway.readyz() == Some(200));
    assert!(rig.client().connect(gateway.front(), "server.test").unwrap().echo(b"payload-payload").unwrap());
    let key = std::fs::read_to_string(rig.file("s.key")).unwrap();
    write(&rig.file("s.key"), key.replace("PRIVATE", "PRIVAT"), 0o600);
    renew(&gateway);
    let said =
        format!("{}{}", gateway.process.stderr.lines().join("\n"), gateway.admin_get("/metrics").text());
    for line in key.lines().filter(|line| line.len() > 20 && !line.contains("-----")) {
        assert!(!said.contains(&line[..20]), "a line of the key");
    }
    assert!(!said.contains("payload-payload") && !said.contains("sixteen byte name"));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.process.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(core.split_whitespace().nth(4) == Some("0"), "{core}");
}

pub(crate) fn metrics_of_certificates_exist_from_boot() {
    let rig = Rig::new();
    let gateway = rig.gateway("");
    let cert = rig.file("s.pem").display().to_string();
    assert!(gateway.metric("cert_expiry_seconds", &[("cert", &cert)]) > 3.9e9, "in 2094");
    assert!(gateway.metric("cert_loaded_at_seconds", &[]) > 1.7e9);
    for name in ["cert_rotation_succeeded_total", "cert_rotation_failed_total", "ticket_key_rotations_total"]
    {
        assert!(gateway.metrics().has(name), "{name}");
        assert_eq!(gateway.metric(name, &[]), 0.0);
    }
}

/// SIGHUP reads no certificate; who expects it to is told what does.
pub(crate) fn a_reload_names_the_files_that_are_newer_than_those_in_force() {
    const NEWER: &str = "are newer on disk than in force";
    let rig = Rig::new();
    let mut gateway = rig.gateway("");
    let reload = |gateway: &mut Gateway, drain_ms: u64| {
        let from = gateway.process.stderr.len();
        // The same listener, at its own address.
        let config = gateway.config.clone().runtime("drain_timeout_ms", drain_ms);
        gateway.reload(config);
        // What follows in the log when the pass is over.
        testkit::eventually("the pass is over", seconds(5), || gateway.readyz() == Some(200));
        std::thread::sleep(testkit::ms(200));
        let lines = gateway.process.stderr.lines();
        lines[from..].iter().filter(|line| line.contains(NEWER)).cloned().collect::<Vec<_>>()
    };
    assert_eq!(reload(&mut gateway, 1001), [""; 0]);
    rig.authority.server(&["server.test"]).write(rig.files.path(), "s");
    let told = reload(&mut gateway, 1002);
    assert!(told.len() == 1 && told[0].contains("s.pem") && told[0].contains("SIGUSR1"), "{told:?}");
    assert!(renew(&gateway).contains("\"ok\":1"));
    assert_eq!(reload(&mut gateway, 1003), [""; 0]);
    // What cannot be used is not in force.
    write(&rig.file("s.pem"), "nonsense", 0o644);
    assert!(renew(&gateway).contains("\"fail\":1"));
    assert_eq!(reload(&mut gateway, 1004).len(), 1);
}
