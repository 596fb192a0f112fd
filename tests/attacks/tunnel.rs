//! Attacks around the switch from HTTP to a tunnel.

use crate::rig::{Rig, SMUGGLED};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use testkit::websocket::{to_client, to_server};
use testkit::{Backend, Fault, Listener, ms, request, seconds};

const UPGRADE: &[(&str, &str)] = &[
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

pub(crate) fn h1_07_bytes_before_the_101_are_held() {
    let early = Arc::new(AtomicBool::new(false));
    let seen_early = Arc::clone(&early);
    let backend = Backend::start(move |conn| {
        let head = conn.head()?;
        if !head.headers.has("upgrade") {
            return conn.respond(200, &[("Connection", "close")], b"plain");
        }
        conn.wire.set_timeout(ms(400));
        let nothing = matches!(conn.wire.fill(), Err(Fault::TimedOut));
        seen_early.store(!nothing || !conn.wire.pending().is_empty(), Ordering::SeqCst);
        conn.wire.set_timeout(seconds(10));
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
        conn.wire.exactly(to_server("").len())?;
        let bytes = conn.wire.exactly(SMUGGLED.len())?;
        conn.send(to_client(bytes))?;
        conn.hold(seconds(10));
        Ok(())
    });
    let rig = Rig::with(backend, |config| config, Listener::websocket);
    let mut client = rig.gateway.client();
    // The frame's mask leaves the request in it as it is.
    client.send([request("GET", "/tunnel", UPGRADE, b""), to_server(SMUGGLED)].concat()).unwrap();
    let (_, head) = client.head("GET").unwrap();
    assert_eq!(head.status, 101);
    assert!(!early.load(Ordering::SeqCst), "bytes arrived before the backend had agreed to a tunnel");
    let expected = to_client(SMUGGLED);
    let echoed = client.wire.exactly(expected.len()).unwrap();
    assert_eq!(echoed, expected, "the held bytes are the tunnel's first");
    assert_eq!(rig.gateway.get("/plain").text(), "plain");
}

pub(crate) fn h1_07_bytes_after_a_refused_upgrade_are_the_next_request() {
    let rig = Rig::with(Backend::standard("origin"), |config| config, Listener::websocket);
    let mut client = rig.gateway.client();
    let next = request("GET", "/echo/next", &[], b"");
    client.send([request("GET", "/echo/upgrade", UPGRADE, b""), next].concat()).unwrap();
    assert_eq!(client.response("GET").unwrap().status, 200);
    let second = client.response("GET").unwrap();
    assert!(second.text().starts_with("GET /echo/next HTTP/1.1\r\n"), "{}", second.text());
    rig.assert_unharmed("a refused upgrade");
}

pub(crate) fn h1_07_upgrade_is_plain_where_tunnels_are_not_allowed() {
    let rig = Rig::standard();
    let mut client = rig.gateway.client();
    let next = request("GET", "/echo/next", &[], b"");
    client.send([request("GET", "/echo/upgrade", UPGRADE, b""), next].concat()).unwrap();
    let first = client.response("GET").unwrap();
    assert_eq!(first.status, 200);
    let seen = first.text().to_ascii_lowercase();
    assert!(!seen.contains("\r\nupgrade:"), "Upgrade was forwarded: {seen}");
    let second = client.response("GET").unwrap();
    assert!(second.text().starts_with("GET /echo/next HTTP/1.1\r\n"), "{}", second.text());
    rig.assert_unharmed("an upgrade without leave");
}

pub(crate) fn h1_14_connect_is_not_allowed() {
    let rig = Rig::standard();
    let heads = [
        "CONNECT backend.example:80 HTTP/1.1\r\nHost: backend.example:80\r\n\r\n",
        "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n",
        "CONNECT backend.example:80 HTTP/1.0\r\n\r\n",
    ];
    for head in heads {
        rig.assert_refused(head, head, &[405]);
    }
    let with_body = "CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\nContent-Length: 4\r\n\r\nwiki";
    rig.assert_refused("CONNECT with a body", with_body, &[400, 405]);
    let odd = [
        "CONNECT /path HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "CONNECT http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
    ];
    for head in odd {
        rig.assert_refused(head, head, &[400, 405]);
    }
}
