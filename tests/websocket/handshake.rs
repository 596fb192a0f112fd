//! What the gateway asks of a handshake.

use crate::attacks::FIELDS;
use testkit::peers::scenario;
use testkit::{Backend, Config, Gateway, H2Client, Listener, request};

/// What no server could agree to does not reach one.
pub(crate) fn broken_handshakes_are_refused() {
    let backend = Backend::standard("origin");
    let gateway = Gateway::start(Config::new().listener(Listener::h1().websocket().backend(backend.address)));
    let without = |name: &str| -> Vec<_> { FIELDS.iter().copied().filter(|field| field.0 != name).collect() };
    let with = |name, value| -> Vec<_> { without(name).into_iter().chain([(name, value)]).collect() };
    let (key, version) = ("Sec-WebSocket-Key", "Sec-WebSocket-Version");
    for (fields, status) in [
        (without(key), 400),
        (with(key, "dGhlIHNhbXBsZSBub25j"), 400),
        (FIELDS.iter().copied().chain([(key, "dGhlIHNhbXBsZSBub25jZQ==")]).collect(), 400),
        (without(version), 426),
        (with(version, "8"), 426),
    ] {
        let mut client = gateway.client();
        client.send(request("GET", "/", &fields, b"")).unwrap();
        let response = client.response("GET").unwrap();
        assert_eq!(response.status, status, "{fields:?}");
        let version = response.header("sec-websocket-version");
        assert_eq!(version.as_deref(), (status == 426).then_some("13"), "{fields:?}");
    }
    assert_eq!(backend.request_count(), 0);
    assert_eq!(gateway.metric("request_rejected_total", &[("reason", "websocket_handshake")]), 5.0);
}

/// A client of HTTP/2 cannot check a proof: the gateway does, and keeps it to itself.
pub(crate) fn a_wrong_proof_is_not_passed_on() {
    let backend = Backend::start(|conn| {
        let head = conn.head()?;
        let key = head.headers.get("sec-websocket-key").expect("a key");
        assert_eq!(head.headers.get("sec-websocket-version").as_deref(), Some("13"));
        let proof =
            testkit::websocket::accept_key(if head.target == "/right" { &key } else { "another key" });
        conn.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {proof}\r\nX-Kept: yes\r\n\r\n"
        ))?;
        conn.hold(testkit::seconds(5));
        Ok(())
    });
    let gateway =
        Gateway::start(Config::new().listener(Listener::h2c().websocket().backend(backend.address)));
    let run =
        |path| scenario("ws_h2_client.py", gateway.front(), "read", &["--path", path, "--seconds", "1"]);
    let seen = run("/right");
    assert_eq!((&seen["status"], &seen["fields"]["x-kept"]), (&200.into(), &"yes".into()), "{seen}");
    assert!(seen["fields"]["sec-websocket-accept"].is_null(), "{seen}");
    let seen = run("/wrong");
    assert_eq!(seen["status"], 502, "{seen}");
    assert_eq!(gateway.metric("upstream_rejected_total", &[("reason", "websocket_handshake")]), 1.0);
}

/// To a client of HTTP/2 any 2xx opens the tunnel (RFC 8441 §5); from a backend of HTTP/1.1 only 101 does. What it answers instead must not
/// be taken for one.
pub(crate) fn a_success_that_switches_nothing_opens_no_tunnel() {
    for (status, body) in [(200, "hello"), (204, ""), (299, "hello")] {
        let backend = Backend::start(move |conn| {
            conn.request()?;
            let length =
                if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
            conn.send(format!("HTTP/1.1 {status} Fine\r\n{length}\r\n{body}"))
        });
        let gateway =
            Gateway::start(Config::new().listener(Listener::h2c().websocket().backend(backend.address)));
        let mut client = H2Client::connect(gateway.front()).unwrap();
        let connect = [(":protocol", "websocket"), ("sec-websocket-version", "13")];
        let stream = client.open("CONNECT", "/", &connect, false).unwrap();
        assert_eq!(client.over(stream).unwrap().status(), 502, "{status}");
        assert_eq!(backend.last_request().header("upgrade").as_deref(), Some("websocket"), "{status}");
        let rejected = gateway.metric("upstream_rejected_total", &[("reason", "websocket_handshake")]);
        assert_eq!(rejected, 1.0, "{status}");
        assert_eq!(client.goaways, [], "{status}");
    }
}

/// A backend that speaks HTTP/2 has to offer it (RFC 8441 §3).
pub(crate) fn a_backend_without_extended_connect_is_a_bad_gateway() {
    let backend = testkit::H2Backend::start(|call| call.respond(200, &[], b"one"));
    let listener = Listener::h1().websocket().h2_backend(backend.address);
    let gateway = Gateway::start(Config::new().listener(listener));
    let mut client = gateway.client();
    client.send(request("GET", "/", FIELDS, b"")).unwrap();
    assert_eq!(client.response("GET").unwrap().status, 502);
    assert_eq!(gateway.metric("upstream_rejected_total", &[("reason", "no_extended_connect")]), 1.0);
    assert_eq!(gateway.get("/").status, 200);
}
