//! Reloads validate first, swap at once, and say what they did not apply, while traffic goes on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "reload/included.rs"]
mod included;
#[path = "reload/listeners.rs"]
mod listeners;

use std::sync::atomic::Ordering::Relaxed;
use testkit::gateway::Reload;
use testkit::harness::Case;
use testkit::load::{Load, Tally};
use testkit::process::SIGHUP;
use testkit::{Backend, Config, Gateway, Listener, ms, ports, seconds};

fn main() {
    let cases = vec![
        Case::new("c_01_bad_files_change_nothing", c_01_bad_files_change_nothing).alone(),
        Case::new("c_01_hangup_storm_is_harmless", c_01_hangup_storm_is_harmless).alone(),
        Case::new("restart_required_is_named_every_time", restart_required_is_named_every_time),
        Case::new("uploads_and_short_connections_survive", uploads_and_short_connections_survive).alone(),
        Case::new("unchanged_file_is_fine", unchanged_file_is_fine),
        Case::new("listeners_come_and_go", listeners::listeners_come_and_go).alone(),
        Case::new(
            "a_listener_that_is_gone_has_its_own_budget",
            listeners::a_listener_that_is_gone_has_its_own_budget,
        ),
        Case::new("a_listener_changes_its_protocol", listeners::a_listener_changes_its_protocol).alone(),
        Case::new("certificates_change_by_a_reload", listeners::certificates_change_by_a_reload),
        Case::new("ticket_keys_of_an_added_listener_turn", listeners::ticket_keys_of_an_added_listener_turn),
        Case::new(
            "a_listener_with_added_backends_alone_speaks_tls",
            listeners::a_listener_with_added_backends_alone_speaks_tls,
        ),
        Case::new("a_bind_that_fails_changes_nothing", listeners::a_bind_that_fails_changes_nothing),
        Case::new(
            "included_files_are_read_by_start_reload_and_check",
            included::included_files_are_read_by_start_reload_and_check,
        ),
        Case::new("terminate_during_a_reload_is_not_lost", terminate_during_a_reload_is_not_lost),
    ];
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases)
}

#[track_caller]
fn assert_nothing_lost(tally: &Tally) {
    assert_eq!(tally.failures.lock().unwrap().as_slice(), [] as [String; 0]);
    assert_eq!(tally.failed.load(Relaxed), 0);
    assert_eq!(tally.refused.load(Relaxed), 0, "connections were refused");
    assert_eq!(tally.repeated.load(Relaxed), 0, "connections were cut");
    assert!(tally.served.load(Relaxed) > 100, "too little traffic to show anything");
}

fn c_01_bad_files_change_nothing() {
    let backend = Backend::standard("one");
    let unwanted = Backend::standard("unwanted");
    let listener = Listener::h1().backend(backend.address);
    let mut gateway = Gateway::start(Config::new().listener(listener.clone()));
    let good = gateway.config.render();
    let swapped = good.replace(&backend.address.to_string(), &unwanted.address.to_string());
    let bad = [
        "this is not toml".to_owned(),
        String::new(),
        format!("{swapped}\n[listeners.http]\nbody_timeout_ms = 0\n"),
        swapped.replace("drain_timeout_ms = 500", "drain_timeout_ms = 5"),
        swapped.replace("protocol = \"h1\"", "protocol = \"h9\""),
        swapped.replace("drain_timeout_ms", "drain_timeot_ms"),
        swapped[..swapped.len() / 2].to_owned(),
        format!("{swapped}\n[[listeners]]\naddress = \"127.0.0.1:1\"\n"),
        "x".repeat(50 << 20),
    ];
    let load = Load::start(gateway.front(), 4, "/", ms(0));
    for (number, text) in bad.iter().enumerate() {
        let shown: String = text.chars().take(200).collect();
        let verdict = gateway.reload_text(text);
        assert!(matches!(verdict, Reload::Rejected(_)), "{number}: {verdict:?} for {shown}");
        gateway.wait_metric("config_reload_failed_total", &[], |v| v == (number + 1) as f64);
    }
    // The file is gone altogether.
    let failures = gateway.process.stderr.count("rejected");
    std::fs::remove_file(gateway.dir().join("lb.toml")).unwrap();
    gateway.process.signal(SIGHUP);
    testkit::eventually("a verdict on the missing file", seconds(5), || {
        gateway.process.stderr.count("rejected") > failures
    });
    assert_eq!(gateway.readyz(), Some(200));
    assert_eq!(unwanted.request_count(), 0, "a part of a bad file was applied");
    // And a good one is applied as if nothing had been.
    let verdict = gateway.reload_text(&swapped);
    assert!(matches!(verdict, Reload::Complete(_)), "{verdict:?}");
    assert_eq!(gateway.get("/").text(), "unwanted");
    assert_nothing_lost(&load.stop());
}

fn c_01_hangup_storm_is_harmless() {
    let (a, b) = (Backend::standard("a"), Backend::standard("b"));
    let listener = Listener::h1();
    let base = Config::new();
    let gateway = Gateway::start(base.clone().with_listener(listener.clone().backend(a.address)));
    let load = Load::start(gateway.front(), 4, "/", ms(0));
    testkit::eventually("traffic", seconds(10), || load.served() > 50);
    let descriptors = gateway.process.open_fds();
    for number in 0..100 {
        let address = if number % 2 == 0 { b.address } else { a.address };
        let last = if number == 99 { b.address } else { address };
        gateway.write_config(&base.clone().with_listener(listener.clone().backend(last)).render());
        gateway.process.signal(SIGHUP);
    }
    testkit::eventually("the last file counts", seconds(10), || gateway.get("/").text() == "b");
    std::thread::sleep(ms(500));
    assert_eq!(gateway.get("/").text(), "b");
    assert_nothing_lost(&load.stop());
    assert!(gateway.process.open_fds() < descriptors + 50, "descriptors leak");
    assert_eq!(gateway.process.stderr.count("rejected"), 0);
}

fn restart_required_is_named_every_time() {
    let (a, b) = (Backend::standard("a"), Backend::standard("b"));
    let listener = Listener::h1();
    let base = Config::new().runtime("workers", 1);
    let mut gateway = Gateway::start(base.clone().with_listener(listener.clone().backend(a.address)));
    let drifted = base.clone().runtime("workers", 2).block(
        "observability",
        "metrics_bind",
        ports::reserve().to_string(),
    );
    for round in 1..=3 {
        // Something that can be live changes as well, and is applied.
        let (address, name) = if round % 2 == 1 { (b.address, "b") } else { (a.address, "a") };
        let from = gateway.process.stderr.len();
        let verdict = gateway.reload(drifted.clone().with_listener(listener.clone().backend(address)));
        assert!(matches!(verdict, Reload::Complete(_)), "{verdict:?}");
        assert_eq!(gateway.get("/").text(), name, "round {round}");
        for word in ["workers", "metrics_bind"] {
            let line = gateway.process.stderr.wait_from(from, seconds(3), |line| {
                line.contains("restart") && (line.contains(word) || line.contains("observability"))
            });
            assert!(line.is_some(), "round {round}: {word} is not named");
        }
        let counted = |v: f64| v >= 2.0 * f64::from(round);
        gateway.wait_metric("config_reload_restart_required_fields_total", &[], counted);
    }
    // Back to what runs: nothing is left to name.
    let from = gateway.process.stderr.len();
    let verdict = gateway.reload(base.with_listener(listener.backend(a.address)));
    assert!(matches!(verdict, Reload::Complete(_)), "{verdict:?}");
    let lines = gateway.process.stderr.lines();
    let named: Vec<_> = lines.iter().skip(from).filter(|l| l.contains("requires restart")).collect();
    assert!(named.is_empty(), "{named:?}");
}

fn uploads_and_short_connections_survive() {
    let backend = Backend::standard("one");
    let other = Backend::standard("other");
    let listener = Listener::h1();
    let base = Config::new();
    let mut gateway = Gateway::start(base.clone().with_listener(listener.clone().backend(backend.address)));
    let front = gateway.front();
    let uploads: Vec<_> = (0..2)
        .map(|_| {
            std::thread::spawn(move || {
                let body = testkit::pattern::bytes(2_000_000);
                let mut client = testkit::Client::connect(front).unwrap();
                client.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n").unwrap();
                client.drip(&body, 20_000, ms(20)).unwrap();
                client.response("POST").unwrap().text()
            })
        })
        .collect();
    let short = std::thread::spawn(move || {
        (0..200).all(|_| {
            std::thread::sleep(ms(5));
            testkit::Client::connect(front).and_then(|mut c| c.get("/")).is_ok_and(|r| r.status == 200)
        })
    });
    for round in 0..12 {
        let address = if round % 2 == 0 { other.address } else { backend.address };
        let verdict = gateway.reload(base.clone().with_listener(listener.clone().backend(address)));
        assert!(matches!(verdict, Reload::Complete(_)), "{verdict:?}");
        std::thread::sleep(ms(150));
    }
    for upload in uploads {
        assert_eq!(upload.join().unwrap(), "2000000 right");
    }
    assert!(short.join().unwrap(), "a short connection failed");
}

fn unchanged_file_is_fine() {
    let backend = Backend::standard("one");
    let mut gateway = Gateway::start(Config::new().listener(Listener::h1().backend(backend.address)));
    let mut client = gateway.client();
    client.get("/").unwrap();
    for _ in 0..3 {
        let verdict = gateway.reload(gateway.config.clone());
        assert!(!matches!(verdict, Reload::Rejected(_)), "{verdict:?}");
    }
    assert_eq!(client.get("/").unwrap().status, 200);
    assert_eq!(backend.connections(), 1, "the pool was thrown away for nothing");
}

fn terminate_during_a_reload_is_not_lost() {
    let backend = Backend::standard("one");
    for _ in 0..5 {
        let mut gateway = Gateway::start(Config::new().listener(Listener::h1().backend(backend.address)));
        gateway.write_config(&gateway.config.clone().runtime("workers", 1).render());
        gateway.process.signal(SIGHUP);
        assert_eq!(gateway.stop(seconds(10)), 0);
    }
}
