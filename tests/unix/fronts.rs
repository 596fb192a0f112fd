//! Clients that come to Unix sockets.

use testkit::certificates::Authority;
use testkit::tls::{Bridge, TlsClient};
use testkit::tools::curl;
use testkit::unix::{Port, Socket};
use testkit::websocket::{read, to_client, to_server};
use testkit::{Backend, Client, Gateway, H2Client, Listener, eventually, pattern, request, seconds};

use crate::rig::{ask, base, directory, path};

pub(crate) fn every_protocol_is_served_at_a_unix_socket() {
    let (directory, authority) = (directory(), Authority::new("test authority"));
    let (certificate, key) = authority.server(&["server.test"]).write(directory.path(), "s");
    let (backend, echo) = (Backend::standard("one"), Backend::tcp_echo());
    let at = |name: &str| path(&directory, name);
    let (plain, secure, raw, raw_secure) = (at("h"), at("hs"), at("t"), at("ts"));
    let name = format!("@eg-test-{}-{}", std::process::id(), backend.address.port());
    let mut gateway = Gateway::start(
        base()
            .listener(Listener::h2c().at_unix(&plain).backend(backend.address))
            .listener(Listener::h1s(&certificate, &key).at_unix(&secure).backend(backend.address))
            .listener(Listener::tcp().at_unix(&raw).backend(backend.address))
            .listener(Listener::tls(directory.path(), "s").at_unix(&raw_secure).backend(echo.address))
            .listener(Listener::h1().at_unix(&name).backend(backend.address)),
    );
    // HTTP/1.1, several on one connection, and many connections: workers share the socket.
    let mut client = Client::connect(Port::to(&plain).address).unwrap();
    for _ in 0..3 {
        assert_eq!(client.get("/").unwrap().text(), "one");
    }
    for _ in 0..30 {
        assert_eq!(ask(&plain, "/"), "one");
    }
    assert_eq!(ask(&name, "/"), "one");
    assert_eq!(ask(&raw, "/"), "one");
    // HTTP/2 by its preface, and inside TLS.
    let mut h2 = H2Client::connect(Port::to(&plain).address).unwrap();
    assert_eq!(h2.get("/").unwrap().text(), "one");
    let tls = TlsClient::new(&authority, None);
    for alpn in ["h2", "http/1.1"] {
        let bridge = Bridge::start(tls.clone().alpn(&[alpn]), Port::to(&secure).address, "server.test");
        let text = match alpn {
            "h2" => H2Client::connect(bridge.address).unwrap().get("/").unwrap().text(),
            _ => Client::connect(bridge.address).unwrap().get("/").unwrap().text(),
        };
        assert_eq!(text, "one", "{alpn}");
    }
    let mut inside = tls.connect(Port::to(&raw_secure).address, "server.test").unwrap();
    assert!(inside.echo(b"raw bytes inside TLS").unwrap());
    // Large bodies both ways, through splice(2) as well.
    let size = 3 << 20;
    for socket in [&plain, &raw] {
        let mut client = Client::connect(Port::to(socket).address).unwrap();
        let down = client.get(&format!("/bytes/{size}")).unwrap();
        assert!(down.body == pattern::bytes(size), "{socket}: {} bytes", down.body.len());
        let up = client.request("POST", "/upload", &[], &pattern::bytes(size)).unwrap();
        assert_eq!(up.text(), format!("{size} right"), "{socket}");
    }
    h2.get(&format!("/bytes/{size}")).unwrap().pattern.assert_complete(size as u64);
    assert!(gateway.process.stderr.wait(&format!("listening on unix:{plain}"), seconds(1)).is_some());
    drop((client, h2, inside));
    assert_eq!(gateway.stop(seconds(10)), 0);
    assert!(testkit::unix::connect(&name).is_err(), "the name in the abstract namespace is free again");
}

/// No cap counts clients that have no address, and backends and the log are told the word for one.
pub(crate) fn clients_have_no_address() {
    let directory = directory();
    let (socket, log) = (path(&directory, "h"), path(&directory, "log"));
    let backends = [Backend::standard("one"), Backend::standard("two")];
    let pool = testkit::Pool::named("p").key("policy", "maglev");
    let pool = backends.iter().fold(pool, |pool, backend| pool.backend(backend.address));
    let config = base()
        .runtime("per_ip_connection_cap", 1)
        .block("observability", "access_log", log.as_str())
        .listener(Listener::h1().at_unix(&socket).pool("p"))
        .pool(pool);
    let gateway = Gateway::start(config);
    let port = Port::to(&socket);
    let mut clients: Vec<_> = (0..5).map(|_| Client::connect(port.address).unwrap()).collect();
    let texts: Vec<_> = clients.iter_mut().map(|client| client.get("/").unwrap().text()).collect();
    assert!(texts.iter().all(|text| *text == texts[0]), "source_address is one key for all: {texts:?}");
    let seen = clients[0].get("/echo").unwrap().text().to_lowercase();
    assert!(seen.contains("x-forwarded-for: unknown\r\n"), "{seen}");
    let fields = [("X-Forwarded-For", "192.0.2.1")];
    let seen = clients[0].request("GET", "/echo", &fields, b"").unwrap().text().to_lowercase();
    assert!(seen.contains("x-forwarded-for: 192.0.2.1, unknown\r\n"), "{seen}");
    eventually("lines of the access log", seconds(5), || {
        let text = std::fs::read_to_string(&log).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let listener = format!("\"listener\":\"unix:{socket}\"");
        lines.len() == 7
            && lines.iter().all(|line| line.contains("\"client\":\"unix:\"") && line.contains(&listener))
    });
    drop(gateway);
}

pub(crate) fn a_websocket_passes_through_two_unix_sockets() {
    let directory = directory();
    let (front, back) = (path(&directory, "front"), path(&directory, "back"));
    let server = Backend::start(|conn| {
        conn.head()?;
        conn.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        )?;
        while let Some((first, payload)) = read(&mut conn.wire)? {
            if first == 0x88 {
                return Ok(());
            }
            conn.send(to_client(payload))?;
        }
        Ok(())
    });
    let backend = Socket::at(&back, server.address);
    let listener = Listener::h1().websocket().at_unix(&front).backend(&backend.name);
    let _gateway = Gateway::start(base().listener(listener));
    let mut client = Client::connect(Port::to(&front).address).unwrap();
    let fields = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    client.send(request("GET", "/", &fields, b"")).unwrap();
    assert_eq!(client.head("GET").unwrap().1.status, 101);
    for round in 0..5 {
        let text = format!("message {round}");
        client.send(to_server(&text)).unwrap();
        assert_eq!(read(&mut client.wire).unwrap(), Some((0x82, text.into_bytes())));
    }
}

pub(crate) fn curl_speaks_to_a_unix_socket() {
    let directory = directory();
    let socket = path(&directory, "h");
    let (backend, h2) = (Backend::standard("one"), testkit::Origin::standard(testkit::Version::H2, "two"));
    let behind = Socket::at(&path(&directory, "app"), h2.address());
    let other = path(&directory, "h2");
    let _gateway = Gateway::start(
        base()
            .listener(Listener::h2c().at_unix(&socket).backend(backend.address))
            .listener(Listener::h1().at_unix(&other).h2_backend(&behind.name)),
    );
    for (socket, version, text) in [
        (&socket, "--http1.1", "one"),
        (&socket, "--http2-prior-knowledge", "one"),
        (&other, "--http1.1", "two"),
    ] {
        let got = curl(&["-sf", version, "--unix-socket", socket, "http://server.test/"]);
        assert!(got.code == 0 && got.stdout == text, "{version}: {} {}", got.stdout, got.stderr);
    }
}
