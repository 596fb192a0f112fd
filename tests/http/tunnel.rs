//! Upgrades.

use crate::rig::{gateway, gateway_with};
use testkit::websocket::{read, to_client, to_server};
use testkit::{Backend, Client, Fault, Listener, pattern, request, seconds};

const FIELDS: &[(&str, &str)] = &[
    ("Connection", "keep-alive, Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Protocol", "chat, superchat"),
    ("Sec-WebSocket-Extensions", "permessage-deflate"),
    ("Origin", "http://app.example"),
    ("Cookie", "session=1"),
    ("Authorization", "Bearer t"),
];

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: superchat\r\n\
                      Set-Cookie: a=b\r\n\r\n";

/// Switches, says hello at once, then sends back whatever comes; says goodbye after the client's end.
fn echo() -> Backend {
    Backend::start(|conn| {
        let head = conn.head()?;
        if !head.headers.has("upgrade") {
            return conn.respond(200, &[("Connection", "close")], b"plain");
        }
        conn.send([SWITCH.as_bytes(), &to_client("hello")].concat())?;
        while let Some((_, message)) = read(&mut conn.wire)? {
            conn.send(to_client(message))?;
        }
        conn.send(to_client("goodbye"))
    })
}

#[track_caller]
fn switched(client: &mut Client) {
    client.send(request("GET", "/chat?room=1", FIELDS, b"")).unwrap();
    let (_, head) = client.head("GET").unwrap();
    assert_eq!(head.status, 101);
    assert_eq!(client.wire.exactly(7).unwrap(), to_client("hello"), "what the backend sent behind its 101");
}

pub(crate) fn bytes_flow_both_ways() {
    let backend = echo();
    let gateway = gateway_with(&[&backend], |config| config, Listener::websocket);
    let mut client = gateway.client();
    switched(&mut client);
    for round in 0..10 {
        // Whatever a frame holds, it is not looked at.
        let message = [&[0x81, round, 0, 0xff][..], b"GET / HTTP/1.1\r\n\r\n"].concat();
        client.send(to_server(&message)).unwrap();
        let expected = to_client(&message);
        assert_eq!(client.wire.exactly(expected.len()).unwrap(), expected);
    }
    let bulk = pattern::bytes(5_000_000);
    let writer = client.wire.stream().try_clone().unwrap();
    let sent = to_server(&bulk);
    let sending = std::thread::spawn(move || {
        use std::io::Write;
        (&writer).write_all(&sent).unwrap();
    });
    let expected = to_client(&bulk);
    assert!(client.wire.exactly(expected.len()).unwrap() == expected);
    sending.join().unwrap();
    // The backend's end ends the client's connection.
    backend.cut();
    client.closed(seconds(5)).unwrap();
    assert_eq!(gateway.get("/").text(), "plain");
}

pub(crate) fn half_close_passes() {
    let backend = echo();
    let gateway = gateway_with(&[&backend], |config| config, Listener::websocket);
    let mut client = gateway.client();
    switched(&mut client);
    client.send(to_server("last words")).unwrap();
    client.finish();
    assert_eq!(client.wire.to_end().unwrap(), [to_client("last words"), to_client("goodbye")].concat());

    // From the other side: the backend stops sending, and still listens.
    let listening = Backend::start(|conn| {
        conn.head()?;
        conn.send(SWITCH)?;
        conn.finish();
        conn.wire.to_end().map(drop)
    });
    let second = gateway_with(&[&listening], |config| config, Listener::websocket);
    let mut client = second.client();
    client.send(request("GET", "/", FIELDS, b"")).unwrap();
    assert_eq!(client.head("GET").unwrap().1.status, 101);
    assert_eq!(client.wire.to_end().unwrap(), b"");
    client.send(to_server("are you there?")).unwrap();
    client.finish();
    testkit::eventually("the bytes arrive", seconds(5), || listening.saw(b"are you there?"));
}

pub(crate) fn handshake_fields_pass() {
    let backend = echo();
    let gateway = gateway_with(&[&backend], |config| config, Listener::websocket);
    let mut client = gateway.client();
    client.send(request("GET", "/chat?room=1", FIELDS, b"")).unwrap();
    let (_, head) = client.head("GET").unwrap();
    let seen = backend.last_request();
    assert_eq!(seen.target(), "/chat?room=1");
    assert!(seen.head.headers.lists("connection", "upgrade"), "{seen:?}");
    for (name, value) in FIELDS.iter().skip(1) {
        assert_eq!(seen.header(name).as_deref(), Some(*value), "{name}");
    }
    assert_eq!(seen.header("host").as_deref(), Some("test.example"));
    assert_eq!(seen.header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert!(head.headers.lists("connection", "upgrade"));
    for (name, value) in [
        ("upgrade", "websocket"),
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("sec-websocket-protocol", "superchat"),
        ("set-cookie", "a=b"),
    ] {
        assert_eq!(head.headers.get(name).as_deref(), Some(value));
    }
}

pub(crate) fn plain_get_where_not_allowed() {
    let backend = echo();
    let without = gateway(&[&backend]);
    let off =
        gateway_with(&[&backend], |config| config, |listener| listener.block("websocket", "enabled", false));
    for gateway in [without, off] {
        let mut client = gateway.client();
        client.send(request("GET", "/", FIELDS, b"")).unwrap();
        let response = client.response("GET").unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "plain"));
    }
}

pub(crate) fn refusal_passes() {
    let backend = Backend::each(|_, conn| conn.respond(426, &[("Upgrade", "other")], b"another protocol"));
    let gateway = gateway_with(&[&backend], |config| config, Listener::websocket);
    let mut client = gateway.client();
    let response = client.request("GET", "/", FIELDS, b"").unwrap();
    assert_eq!((response.status, response.text().as_str()), (426, "another protocol"));
    assert!(backend.last_request().head.headers.has("upgrade"));
    if !response.closes() {
        assert_eq!(client.get("/").unwrap().status, 426, "still HTTP");
    }
    // A POST cannot be a WebSocket handshake; whatever becomes of it, its body is not taken for a tunnel.
    let standard = Backend::standard("one");
    let second = gateway_with(&[&standard], |config| config, Listener::websocket);
    let mut client = second.client();
    client.send(request("POST", "/upload", FIELDS, &pattern::bytes(100))).unwrap();
    let response = client.response("POST").unwrap();
    assert!(
        response.status == 400 || response.text() == "100 right",
        "{} {}",
        response.status,
        response.text()
    );
    standard.assert_clean();
}

pub(crate) fn a_tunnel_ends_with_its_backend() {
    let backend = Backend::start(|conn| {
        conn.head()?;
        conn.send([SWITCH.as_bytes(), &to_client("hello")].concat())?;
        // Not the kit's gentle end: the socket is closed at once, and what comes then is answered with a reset.
        Err(Fault::Reset)
    });
    let gateway = gateway_with(&[&backend], |config| config, Listener::websocket);
    let mut client = gateway.client();
    switched(&mut client);
    // The backend is gone for good; the client learns that it sends no more, and sends all the same.
    for _ in 0..3 {
        client.send_anyway(to_server("into the void"));
        std::thread::sleep(testkit::ms(50));
    }
    gateway.wait_metric("connections_inflight", &[], |v| v == 0.0);
}
