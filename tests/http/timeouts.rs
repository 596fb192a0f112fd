//! Each timeout with a short value: what it ends, and what it must leave alone.

use crate::rig::{gateway_http, gateway_with};
use std::time::Instant;
use testkit::{Backend, ms, seconds};

pub(crate) fn idle_connection_is_closed() {
    let backend = Backend::standard("one");
    let gateway = gateway_http(&[&backend], &[("keepalive_timeout_ms", 500)]);
    let mut client = gateway.client();
    for _ in 0..4 {
        assert_eq!(client.get("/").unwrap().status, 200);
        std::thread::sleep(ms(200));
    }
    // Silently: a 408 here would be taken for the answer to the next request.
    client.closed(seconds(5)).unwrap();
}

pub(crate) fn stalled_upload_is_408() {
    let backend = Backend::standard("one");
    let gateway = gateway_http(&[&backend], &[("body_timeout_ms", 400)]);
    for (framing, part) in
        [("Content-Length: 100", "a part"), ("Transfer-Encoding: chunked", "6\r\na part\r\n")]
    {
        let mut client = gateway.client();
        client.set_timeout(seconds(10));
        client.send(format!("POST /upload HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{part}")).unwrap();
        let response = client.response("POST").unwrap();
        assert_eq!(response.status, 408, "{framing}");
        assert!(response.closes());
        client.closed(seconds(3)).unwrap();
        testkit::eventually("the upstream is let go", seconds(5), || backend.open_connections() == 0);
    }
    assert!(backend.requests().iter().all(|r| !r.complete));
}

pub(crate) fn steady_upload_lives_on() {
    let backend = Backend::standard("one");
    let gateway = gateway_with(
        &[&backend],
        |config| {
            config.block("runtime.watchdog", "body_progress_min_bps", 1000).block(
                "runtime.watchdog",
                "sweep_interval_ms",
                100,
            )
        },
        |listener| listener.http("body_timeout_ms", 1000),
    );
    let mut client = gateway.client();
    let body = testkit::pattern::bytes(60_000);
    client.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n").unwrap();
    // Three times as long as the timeout, never idle for as long.
    client.drip(&body, 2000, ms(100)).unwrap();
    assert_eq!(client.response("POST").unwrap().text(), "60000 right");
}

pub(crate) fn late_response_head_is_504() {
    let backend = Backend::standard("one");
    let gateway = gateway_http(&[&backend], &[("head_timeout_ms", 400)]);
    let mut client = gateway.client();
    client.set_timeout(seconds(10));
    let response = client.get("/slow/3000").unwrap();
    assert_eq!(response.status, 504);
    if response.closes() {
        client = gateway.client();
    }
    assert_eq!(client.get("/slow/50").unwrap().status, 200);
    // The wait begins when the upload is complete, not before.
    let mut client = gateway.client();
    client.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n").unwrap();
    client.drip(testkit::pattern::bytes(30_000), 3000, ms(100)).unwrap();
    assert_eq!(client.response("POST").unwrap().text(), "30000 right");
    // The late answer of the first request reaches nobody.
    std::thread::sleep(ms(200));
    assert_eq!(gateway.get("/").text(), "one");
}

pub(crate) fn total_bounds_a_request_not_a_connection() {
    let backend = Backend::standard("one");
    let gateway = gateway_http(&[&backend], &[("total_timeout_ms", 800)]);
    let mut client = gateway.client();
    let start = Instant::now();
    while start.elapsed() < ms(2500) {
        assert_eq!(client.get("/slow/100").unwrap().status, 200, "after {:?}", start.elapsed());
        std::thread::sleep(ms(200));
    }
    client.set_timeout(seconds(10));
    assert_eq!(client.get("/slow/5000").unwrap().status, 504);
}

pub(crate) fn total_cuts_an_endless_response() {
    let backend = Backend::start(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            conn.send("4\r\ntick\r\n")?;
            conn.pause(ms(50));
        }
    });
    let gateway = gateway_http(&[&backend], &[("total_timeout_ms", 600)]);
    let mut client = gateway.client();
    let start = Instant::now();
    let outcome = client.get("/");
    assert!(matches!(&outcome, Err(fault) if fault.is_gone()), "an endless body looks whole");
    assert!(start.elapsed() >= ms(550), "ended early, after {:?}", start.elapsed());
    testkit::eventually("the upstream is let go", seconds(5), || backend.open_connections() == 0);
}

pub(crate) fn response_longer_than_head_timeout_lives() {
    let backend = Backend::start(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n")?;
        for _ in 0..10 {
            conn.pause(ms(150));
            conn.send("tick")?;
        }
        Ok(())
    });
    let gateway = gateway_http(
        &[&backend],
        &[("head_timeout_ms", 500), ("body_timeout_ms", 500), ("header_timeout_ms", 500)],
    );
    assert_eq!(gateway.get("/").text(), "tick".repeat(10));
}

pub(crate) fn a_client_told_to_wait_is_not_late() {
    // The backend takes its time to say 100: neither the rate of the upload nor its pause is the client's doing.
    let backend = Backend::start(|conn| {
        conn.head()?;
        conn.pause(ms(1500));
        conn.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        conn.wire.exactly(5)?;
        conn.respond(200, &[("Connection", "close")], b"thanks")
    });
    let gateway = gateway_with(
        &[&backend],
        |config| {
            config.block("runtime.watchdog", "sweep_interval_ms", 100).block(
                "runtime.watchdog",
                "body_progress_min_bps",
                1_000_000,
            )
        },
        |listener| listener.http("body_timeout_ms", 500),
    );
    let mut client = gateway.client();
    client.set_timeout(seconds(10));
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").unwrap();
    assert!(client.wire.exactly(12).unwrap().ends_with(b" 100"), "no interim response");
    client.wire.exactly("Continue\r\n\r\n".len() + 1).unwrap();
    client.send("hello").unwrap();
    let response = client.response("POST").unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "thanks"));
}
