//! `grpc-timeout`, and calls that are given up.

use crate::rig::{Front, Rig, assert_code};
use serde_json::Value;
use testkit::{Peer, ms, seconds};

/// The time that the server saw the call have.
#[track_caller]
fn remaining(seen: &Value) -> f64 {
    assert_code(seen, "OK");
    let told: Value = serde_json::from_str(seen["messages"][0].as_str().unwrap()).unwrap();
    told["remaining"].as_f64().unwrap()
}

pub(crate) fn a_deadline_is_passed_on(front: Front) {
    let server = Peer::start("grpc_server.py", &[]);
    let rig = Rig::new(front, server.address);
    let left = remaining(&rig.call("show", &["--option", "20"]));
    assert!((1.0..=20.0).contains(&left), "{left} s of 20 s");
}

pub(crate) fn a_call_without_a_deadline_gets_none(front: Front) {
    let server = Peer::start("grpc_server.py", &[]);
    let rig = Rig::new(front, server.address);
    let left = remaining(&rig.call("show", &[]));
    assert!(left > 1e6, "{left} s");
}

pub(crate) fn a_long_deadline_is_clamped(front: Front) {
    let server = Peer::start("grpc_server.py", &[]);
    let rig = Rig::with(front, |listener| {
        listener.block("grpc", "max_deadline_seconds", 7).h2_backend(server.address)
    });
    let left = remaining(&rig.call("show", &["--option", "3600"]));
    assert!((0.1..=7.0).contains(&left), "{left} s of 7 s");
    let short = remaining(&rig.call("show", &["--option", "3"]));
    assert!((0.1..=3.0).contains(&short), "{short} s of 3 s");
}

pub(crate) fn a_silent_backend_meets_the_deadline(front: Front) {
    // A server that knows nothing of deadlines: it is the gateway that ends the call, long before the client would.
    let server = Peer::start("h2_server.py", &[]);
    let rig = Rig::with(front, |listener| {
        listener.block("grpc", "max_deadline_seconds", 1).h2_backend(server.address)
    });
    let seen = rig.call("raw", &["--path", "/grpc/hang", "--option", "40"]);
    assert_code(&seen, "DEADLINE_EXCEEDED");
    assert!(seen["seconds"].as_f64().unwrap() < 30.0, "the client's own deadline: {seen}");
    server.wait_event("reset", seconds(20), |event| event["path"] == "/grpc/hang");
}

pub(crate) fn a_deadline_covers_the_whole_call(front: Front) {
    let server = Peer::start("h2_server.py", &[]);
    let rig = Rig::with(front, |listener| {
        listener.block("grpc", "max_deadline_seconds", 1).h2_backend(server.address)
    });
    // Head and message come at once, trailers never.
    let seen = rig.call("raw", &["--path", "/grpc/hang/head", "--option", "40"]);
    assert_code(&seen, "DEADLINE_EXCEEDED");
    assert!(seen["seconds"].as_f64().unwrap() < 30.0, "the client's own deadline: {seen}");
    server.wait_event("reset", seconds(20), |event| event["path"] == "/grpc/hang/head");
}

pub(crate) fn a_silent_call_without_a_deadline_ends(front: Front) {
    let server = Peer::start("h2_server.py", &[]);
    let rig = Rig::with(front, |listener| {
        listener.block("grpc", "max_deadline_seconds", 1).h2_backend(server.address)
    });
    for path in ["/grpc/hang", "/grpc/hang/head"] {
        assert_code(&rig.call("raw", &["--path", path]), "UNAVAILABLE");
        server.wait_event("reset", seconds(20), |event| event["path"] == path);
    }
}

pub(crate) fn a_call_outlives_the_limits_of_requests(front: Front) {
    let server = Peer::start("grpc_server.py", &[]);
    let rig = Rig::with(front, |listener| {
        let limits = ["total_timeout_ms", "head_timeout_ms", "body_timeout_ms"];
        let listener = limits.into_iter().fold(listener, |listener, key| listener.http(key, 500));
        listener.block("grpc", "health_synthesized", false).h2_backend(server.address)
    });
    // The server watches its own health, and has nothing new to say until the client's time is up.
    let seen = rig.call("watch", &["--seconds", "3", "--count", "9"]);
    assert_code(&seen, "DEADLINE_EXCEEDED");
    assert!(seen["seconds"].as_f64().unwrap() > 2.0, "{seen}");
}

pub(crate) fn cancellation_reaches_the_backend(front: Front) {
    let server = Peer::start("grpc_server.py", &[]);
    let rig = Rig::new(front, server.address);
    assert_code(&rig.call("cancel", &["--seconds", "0.5"]), "CANCELLED");
    let told = server.wait_event("cancelled", seconds(20), |event| event["method"] == "Hang");
    assert!(told["after"].as_f64().unwrap() < 20.0, "{told}");
    assert_code(&rig.call("cancel_streaming", &[]), "CANCELLED");
    server.wait_event("cancelled", seconds(20), |event| event["method"] == "HangStreaming");
    // The connection to the backend lives on.
    std::thread::sleep(ms(50));
    assert_code(&rig.call("unary", &[]), "OK");
}
