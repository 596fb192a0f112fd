//! Peers that take their time.

use crate::rig::{Rig, assert_error};
use std::time::Duration;
use testkit::{Backend, Client, Fault, Response, ms, request, seconds};

/// Sends a byte, looks for an answer for the length of `pause`, and so on.
fn drip_until_answered(client: &mut Client, bytes: &[u8], pause: Duration) -> Result<Response, Fault> {
    for byte in bytes {
        client.send_anyway([*byte]);
        client.set_timeout(pause);
        match client.wire.fill() {
            Err(Fault::TimedOut) => {}
            Ok(0) => return Err(Fault::Closed),
            Ok(_) => break,
            Err(other) => return Err(other),
        }
    }
    client.set_timeout(seconds(5));
    client.response("POST")
}

pub(crate) fn h1_16_slow_head() {
    // No single pause is long; the head as a whole takes too long.
    let rig = Rig::with(
        Backend::standard("origin"),
        |config| config.block("runtime.watchdog", "header_deadline_ms", 600),
        |listener| listener.http("header_timeout_ms", 20_000),
    );
    let mut client = rig.gateway.client();
    let head = request("GET", "/slow", &[("X-Padding", &"x".repeat(300))], b"");
    let response = drip_until_answered(&mut client, &head, ms(50)).expect("an answer");
    assert_eq!(response.status, 408);
    assert_error("slow head", &response);
    client.closed(seconds(3)).unwrap();
    assert_eq!(rig.backend.request_count(), 0, "half a head was forwarded");
    rig.assert_unharmed("slow head");

    // The second head on a connection is held to the same.
    let mut client = rig.gateway.client();
    assert_eq!(client.get("/first").unwrap().status, 200);
    let response = drip_until_answered(&mut client, &head, ms(50)).expect("an answer");
    assert_eq!(response.status, 408, "second request on the connection");
    rig.assert_unharmed("slow second head");
}

pub(crate) fn h1_16_silent_head() {
    let rig = Rig::with(
        Backend::standard("origin"),
        |config| config,
        |listener| listener.http("header_timeout_ms", 400),
    );
    // Nothing at all: no words are owed.
    let mut silent = rig.gateway.client();
    silent.closed(seconds(5)).unwrap();
    // Half a head.
    let mut half = rig.gateway.client();
    half.send("GET /half HTTP/1.1\r\nHost: te").unwrap();
    half.set_timeout(seconds(5));
    let response = half.response("GET").unwrap();
    assert_eq!(response.status, 408);
    assert_error("half a head", &response);
    half.closed(seconds(3)).unwrap();
    rig.assert_unharmed("silent head");
}

pub(crate) fn h1_16_slow_body() {
    let rig = Rig::with(
        Backend::standard("origin"),
        |config| {
            config.block("runtime.watchdog", "body_progress_min_bps", 2000).block(
                "runtime.watchdog",
                "sweep_interval_ms",
                100,
            )
        },
        |listener| listener,
    );
    let mut client = rig.gateway.client();
    client.send("POST /upload HTTP/1.1\r\nHost: test.example\r\nContent-Length: 100000\r\n\r\n").unwrap();
    let response = drip_until_answered(&mut client, &[b'x'; 400], ms(50)).expect("an answer");
    assert_eq!(response.status, 408);
    client.closed(seconds(3)).unwrap();
    testkit::eventually("the upstream is let go", seconds(5), || {
        rig.backend.requests().iter().all(|r| !r.complete) && rig.backend.open_connections() == 0
    });
    rig.assert_unharmed("slow body");
}

pub(crate) fn h1_16_slow_reader() {
    let rig = Rig::with(
        Backend::standard("origin"),
        |config| config,
        |listener| listener.http("write_timeout_ms", 500),
    );
    let mut client = Client::connect_narrow(rig.gateway.front()).unwrap();
    client.send(request("GET", "/bytes/200000000", &[], b"")).unwrap();
    rig.backend.wait_requests(1);
    testkit::eventually("the upstream is let go", seconds(15), || rig.backend.open_connections() == 0);
    let outcome = client.response("GET");
    assert!(matches!(&outcome, Err(fault) if fault.is_gone()), "the body has no clean end");
    rig.assert_unharmed("slow reader");
}
