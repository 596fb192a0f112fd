//! Requests and responses as such: connections, versions, methods, interim responses.

use crate::rig::{gateway, gateway_with};
use testkit::{Backend, ms, request, seconds};

pub(crate) fn keep_alive_carries_many_requests() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    for number in 0..50 {
        let response = client.get(&format!("/echo/{number}")).unwrap();
        assert!(response.text().starts_with(&format!("GET /echo/{number} HTTP/1.1\r\n")));
        assert!(!response.closes(), "request {number}");
    }
    let last = client.request("GET", "/", &[("Connection", "close")], b"").unwrap();
    assert_eq!(last.status, 200);
    assert!(last.closes(), "the end is announced");
    client.closed(seconds(3)).unwrap();
    assert_eq!(backend.request_count(), 51);
    backend.assert_clean();
}

pub(crate) fn max_keepalive_requests_ends_a_connection() {
    let backend = Backend::standard("one");
    let limited = gateway_with(&[&backend], |config| config.runtime("max_keepalive_requests", 3), |l| l);
    let mut client = limited.client();
    for number in 1..=3 {
        assert_eq!(client.get("/").unwrap().closes(), number == 3, "response {number}");
    }
    client.closed(seconds(3)).unwrap();

    let unlimited = gateway_with(&[&backend], |config| config.runtime("max_keepalive_requests", 0), |l| l);
    let mut client = unlimited.client();
    for number in 0..250 {
        assert!(!client.get("/").unwrap().closes(), "response {number}");
    }
}

pub(crate) fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    let mut bytes = Vec::new();
    for number in 0..30 {
        // The first is the slowest: order must come from the requests, not from the answers.
        bytes.extend(request("GET", if number == 0 { "/slow/200" } else { "/echo" }, &[], b""));
        bytes.extend(request("POST", &format!("/echo/{number}"), &[], format!("body {number}").as_bytes()));
    }
    client.send(bytes).unwrap();
    for number in 0..30 {
        assert_eq!(client.response("GET").unwrap().status, 200);
        let response = client.response("POST").unwrap();
        assert!(response.text().starts_with(&format!("POST /echo/{number} HTTP/1.1\r\n")));
        assert!(response.text().ends_with(&format!("body {number}")));
    }
    backend.assert_clean();
}

pub(crate) fn head_and_bodyless_statuses_have_no_body() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    for (method, target, status, length) in [
        ("HEAD", "/bytes/12345", 200, Some("12345")),
        ("HEAD", "/chunked/12345", 200, None),
        ("GET", "/status/204", 204, None),
        ("GET", "/status/304", 304, None),
        ("HEAD", "/status/304", 304, None),
        ("POST", "/status/204", 204, None),
    ] {
        let response = client.request(method, target, &[], b"").unwrap();
        assert_eq!((response.status, response.body.len()), (status, 0), "{method} {target}");
        assert_eq!(response.header("content-length").as_deref(), length, "{method} {target}");
        // Whatever had been sent as a body would be taken for the next answer.
        assert_eq!(client.get("/").unwrap().text(), "one", "after {method} {target}");
    }
    backend.assert_clean();
    let validator = Backend::reply("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 100\r\n\r\n");
    let second = crate::rig::gateway(&[&validator]);
    let mut client = second.client();
    for _ in 0..2 {
        let response = client.get("/").unwrap();
        assert_eq!((response.status, response.header("etag").as_deref()), (304, Some("\"x\"")));
    }
}

pub(crate) fn http_1_0_clients_get_what_they_can_read() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    for (target, len) in [("/bytes/70000", 70_000), ("/chunked/70000", 70_000), ("/close/70000", 70_000)] {
        let mut client = gateway.client();
        client.send(format!("GET {target} HTTP/1.0\r\nHost: test.example\r\n\r\n")).unwrap();
        let response = client.response("GET").unwrap();
        assert_eq!(response.status, 200);
        assert!(!response.head.headers.has("transfer-encoding"), "{target}: chunked to HTTP/1.0");
        assert!(response.body == testkit::pattern::bytes(len), "{target}");
        client.closed(seconds(3)).unwrap();
    }
    // Without Host, which HTTP/1.0 does not require.
    let mut client = gateway.client();
    client.send("GET /no-host HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(client.response("GET").unwrap().status, 200);
    client.closed(seconds(3)).unwrap();
    // Kept alive on request.
    let mut client = gateway.client();
    for _ in 0..2 {
        client.send("GET /bytes/10 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").unwrap();
        let response = client.response("GET").unwrap();
        assert_eq!(response.body.len(), 10);
        if response.closes() {
            client = gateway.client();
        }
    }
    // Interim responses did not exist then.
    let hints = Backend::reply(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let second = crate::rig::gateway(&[&hints]);
    let mut client = second.client();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").unwrap();
    let response = client.response("GET").unwrap();
    assert_eq!((response.interim.len(), response.text().as_str()), (0, "ok"));
    backend.assert_clean();
}

pub(crate) fn http_1_0_backend() {
    let backend = Backend::start(|conn| {
        let request = conn.request()?;
        match request.target() {
            "/length" => conn.send("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nwhole"),
            _ => conn.send("HTTP/1.0 200 OK\r\n\r\nto the end"),
        }
    });
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    for _ in 0..2 {
        for (target, body) in [("/length", "whole"), ("/close", "to the end")] {
            let response = client.get(target).unwrap();
            assert_eq!((response.status, response.text().as_str()), (200, body));
            assert_eq!(response.head.minor, 1, "the gateway answers in its own version");
            if response.closes() {
                client = gateway.client();
            }
        }
    }
}

pub(crate) fn other_versions_are_refused() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    for bytes in [
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET / HTTP/3\r\nHost: a\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/0.9\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / ICY/1.1\r\nHost: a\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03 client hello\r\n\r\n",
    ] {
        let mut client = gateway.client();
        client.send(bytes).unwrap();
        let status = client.response("GET").unwrap_or_else(|e| panic!("{bytes:?}: {e}")).status;
        assert!([400, 505].contains(&status), "{bytes:?}: {status}");
        client.closed(seconds(3)).unwrap();
    }
    assert_eq!(backend.request_count(), 0);
}

pub(crate) fn any_method_passes() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "PROPFIND", "PURGE", "M-SEARCH", "get", "X!#$%"] {
        let response = client.request(method, "/any", &[], b"").unwrap();
        assert_eq!(response.status, 200, "{method}");
        assert_eq!(backend.last_request().method(), method);
    }
    let response = client.request("OPTIONS", "*", &[], b"").unwrap();
    assert_eq!(response.status, 200);
    assert_eq!(backend.last_request().target(), "*");
    backend.assert_clean();
}

pub(crate) fn expect_100_continue_reaches_the_backend_and_back() {
    let backend = Backend::start(|conn| {
        loop {
            let head = conn.head()?;
            if head.headers.lists("expect", "100-continue") {
                conn.pause(ms(100));
                conn.send("HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let len = conn.body()?.body_len();
            conn.respond(200, &[], len.to_string().as_bytes())?;
        }
    });
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    for framing in [("Content-Length", "5"), ("Transfer-Encoding", "chunked")] {
        client.send(request("POST", "/", &[("Expect", "100-continue"), framing], b"")).unwrap();
        let interim = client.wire.response_head("POST").unwrap();
        assert_eq!(interim.status, 100);
        client.send(if framing.1 == "5" { "hello" } else { "5\r\nhello\r\n0\r\n\r\n" }).unwrap();
        let response = client.response("POST").unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "5"));
    }
    // A client need not wait.
    client.send(request("POST", "/", &[("Expect", "100-continue")], b"at once")).unwrap();
    let response = client.response("POST").unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "7"));
    backend.assert_clean();
}

pub(crate) fn expect_100_continue_refused() {
    let backend = Backend::start(|conn| {
        conn.head()?;
        conn.respond(417, &[("Connection", "close")], b"no")
    });
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    client.send(request("PUT", "/", &[("Expect", "100-continue"), ("Content-Length", "5")], b"")).unwrap();
    let response = client.response("PUT").unwrap();
    assert_eq!((response.interim.len(), response.status, response.text().as_str()), (0, 417, "no"));
}

pub(crate) fn early_hints_pass() {
    let backend = Backend::each(|_, conn| {
        conn.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")?;
        conn.pause(ms(300));
        conn.send("HTTP/1.1 103 Early Hints\r\nLink: </b.css>; rel=preload\r\n\r\n")?;
        conn.respond(200, &[], b"page")
    });
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    client.send(request("GET", "/", &[], b"")).unwrap();
    client.set_timeout(ms(5000));
    let first = client.wire.response_head("GET").unwrap();
    assert_eq!((first.status, first.headers.get("link").as_deref()), (103, Some("</a.css>; rel=preload")));
    let rest = client.response("GET").unwrap();
    assert_eq!((rest.interim.len(), rest.status, rest.text().as_str()), (1, 200, "page"));
    assert_eq!(client.get("/").unwrap().interim.len(), 2, "the connection goes on");
}

pub(crate) fn empty_lines_before_a_request_are_skipped() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    client.send("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(client.response("GET").unwrap().status, 200);
    backend.assert_clean();
}

pub(crate) fn a_head_in_single_bytes() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    let body = "4\r\nwiki\r\n5;x=y\r\npedia\r\n0\r\nX-Trailer: t\r\n\r\n";
    let head = request("POST", "/echo", &[("Transfer-Encoding", "chunked"), ("X-A", "b")], b"");
    client.drip([&head[..], body.as_bytes()].concat(), 1, ms(1)).unwrap();
    let response = client.response("POST").unwrap();
    assert!(response.text().ends_with("\r\n\r\nwikipedia"), "{}", response.text());
    assert_eq!(backend.last_request().trailers.get("x-trailer").as_deref(), Some("t"));
    backend.assert_clean();

    // The same from a backend that writes byte by byte.
    let slow = Backend::each(|_, conn| {
        for byte in b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n0\r\nX-T: t\r\n\r\n" {
            conn.send([*byte])?;
            conn.pause(ms(1));
        }
        Ok(())
    });
    let second = crate::rig::gateway(&[&slow]);
    let response = second.get("/");
    assert_eq!(response.text(), "wiki");
    assert_eq!(response.trailers.get("x-t").as_deref(), Some("t"));
}

pub(crate) fn client_that_leaves_ends_the_upstream_request() {
    let backend = Backend::start(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            conn.send("4\r\ntick\r\n")?;
            conn.pause(ms(20));
        }
    });
    let gateway = gateway(&[&backend]);
    for reset in [false, true] {
        let mut client = gateway.client();
        client.send(request("GET", "/", &[], b"")).unwrap();
        client.head("GET").unwrap();
        assert_eq!(backend.open_connections(), 1);
        if reset {
            client.reset();
        } else {
            drop(client);
        }
        testkit::eventually("the upstream is let go", seconds(5), || backend.open_connections() == 0);
    }
    backend.assert_clean();
}

pub(crate) fn backend_that_resets_in_an_upload_is_502() {
    let backend = Backend::start(|conn| {
        conn.head()?;
        conn.pause(ms(100));
        conn.reset();
        Ok(())
    });
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    client.set_timeout(seconds(5));
    client.send(request("POST", "/", &[("Content-Length", "1000000")], &[b'x'; 1000])).unwrap();
    assert_eq!(client.response("POST").unwrap().status, 502);
    assert_eq!(backend.request_count(), 1, "an upload was sent twice");
}
