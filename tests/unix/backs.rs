//! Backends at Unix sockets.

use std::time::Instant;

use testkit::certificates::Authority;
use testkit::unix::{Socket, listen};
use testkit::{
    Backend, Client, Config, Gateway, H2Client, Listener, Origin, Pool, Version, eventually, ms, pattern,
    seconds,
};

use crate::rig::{base, directory, path};

/// SHA-256 of "secret-token".
const TOKEN_HASH: &str = "930bbdc51b6aed5c2a5678fd6e28dee7a05e8a4b643cfc0b4427c3efb86c0d94";

pub(crate) fn every_protocol_reaches_a_unix_socket() {
    let directory = directory();
    let at = |name: &str| path(&directory, name);
    let (one, two, echo) =
        (Backend::standard("one"), Origin::standard(Version::H2, "two"), Backend::tcp_echo());
    let h1 = Socket::at(&at("h1"), one.address);
    let h2 = Socket::at(&at("h2"), two.address());
    let raw = Socket::at(&at("t"), one.address);
    let name = format!("@eg-back-{}-{}", std::process::id(), one.address.port());
    let hidden = Socket::at(&name, one.address);
    let listeners = [
        Listener::h2c().backend(&h1.name),
        Listener::h2c().h2_backend(&h2.name),
        Listener::tcp().backend(&raw.name),
        Listener::h1().backend(&hidden.name),
    ];
    let config = listeners.into_iter().fold(base().runtime("workers", 1), Config::listener);
    let gateway = Gateway::start(config);
    for (at, text) in [(0, "one"), (1, "two"), (2, "one"), (3, "one")] {
        let mut client = Client::connect(gateway.config.address(at)).unwrap();
        for _ in 0..5 {
            assert_eq!(client.get("/").unwrap().text(), text, "listener {at}");
        }
    }
    for (at, text) in [(0, "one"), (1, "two")] {
        assert_eq!(H2Client::connect(gateway.config.address(at)).unwrap().get("/").unwrap().text(), text);
    }
    // Connections are kept and shared as those over TCP are.
    assert_eq!((h1.connections(), h2.connections(), hidden.connections()), (1, 1, 1));
    let seen = Client::connect(gateway.config.address(0)).unwrap().get("/echo").unwrap().text();
    assert!(seen.to_lowercase().contains("x-forwarded-for: 127.0.0.1"), "{seen}");
    let name = h1.name.as_str();
    assert_eq!(gateway.metric("backend_reachable", &[("backend", name)]), 1.0);
    // TLS goes by the name that the file gives.
    let authority = Authority::new("test authority");
    let (certificate, key) = authority.server(&["app.test"]).write(directory.path(), "s");
    testkit::certificates::write(&directory.path().join("ca.pem"), authority.pem(), 0o644);
    let inner =
        Gateway::start(Config::new().listener(Listener::tls(directory.path(), "s").backend(echo.address)));
    let _ = (certificate, key);
    let secured = Socket::at(&at("s"), inner.front());
    let outer = Listener::tcp().backend_tls(&secured.name, "app.test", &directory.path().join("ca.pem"));
    let outer = Gateway::start(Config::new().listener(outer));
    let mut client = outer.client();
    client.send("through TLS at a Unix socket").unwrap();
    client.wire.set_timeout(seconds(10));
    assert!(client.wire.fill().unwrap() > 0);
    assert_eq!(client.wire.pending(), b"through TLS at a Unix socket");
}

pub(crate) fn bytes_of_every_size_pass_whole() {
    let directory = directory();
    let one = Backend::standard("one");
    let socket = Socket::at(&path(&directory, "h1"), one.address);
    let config =
        base().listener(Listener::h1().backend(&socket.name)).listener(Listener::tcp().backend(&socket.name));
    let gateway = Gateway::start(config);
    for at in [0, 1] {
        let mut client = Client::connect(gateway.config.address(at)).unwrap();
        for size in [0usize, 1, 4096, 70_000, 1 << 20, 8 << 20] {
            let answer = client.get(&format!("/bytes/{size}")).unwrap();
            assert!(answer.body == pattern::bytes(size), "{size} bytes, {} came", answer.body.len());
            let answer = client.request("POST", "/upload", &[], &pattern::bytes(size)).unwrap();
            assert_eq!(answer.text(), format!("{size} right"));
        }
        assert!(client.get(&format!("/chunked/{}", 2 << 20)).unwrap().body == pattern::bytes(2 << 20));
        assert!(client.get(&format!("/close/{}", 2 << 20)).unwrap().body == pattern::bytes(2 << 20));
    }
    one.assert_clean();
}

pub(crate) fn a_socket_that_vanishes_and_comes_back() {
    let directory = directory();
    let place = path(&directory, "app");
    let one = Backend::standard("one");
    let gateway = Gateway::start(base().listener(Listener::h1().backend(format!("unix:{place}"))));
    // It was never there.
    assert_eq!(gateway.get("/").status, 502);
    let socket = Socket::at(&place, one.address);
    assert_eq!(gateway.get("/").text(), "one");
    // The file stays behind, and nothing accepts there; then the file is gone too.
    drop(socket);
    one.cut();
    eventually("the lost connection is noticed", seconds(5), || gateway.get("/").status == 502);
    std::fs::remove_file(&place).unwrap();
    assert_eq!(gateway.get("/").status, 502);
    let socket = Socket::at(&place, one.address);
    assert_eq!(gateway.get("/").text(), "one");
    drop(socket);
}

pub(crate) fn a_pool_of_both_kinds_is_checked() {
    let directory = directory();
    let place = path(&directory, "app");
    let (tcp, unix) = (Backend::standard("tcp"), Backend::standard("unix"));
    let socket = Socket::at(&place, unix.address);
    let name = socket.name.clone();
    let pool = Pool::named("p").backend(tcp.address).backend(&name);
    let pool = [("interval_ms", 100), ("timeout_ms", 100), ("rise", 1), ("fall", 1)]
        .into_iter()
        .fold(pool.block("health", "type", "http"), |pool, (key, value)| pool.block("health", key, value));
    let config = base().block("admin", "api_token_hash", TOKEN_HASH);
    let gateway = Gateway::start(config.listener(Listener::h1().pool("p")).pool(pool));
    let both = || {
        let texts: Vec<_> = (0..8).map(|_| gateway.get("/").text()).collect();
        ["tcp", "unix"].map(|name| texts.iter().filter(|text| *text == name).count())
    };
    assert!(both().iter().all(|count| *count > 0));
    // Its checks have a host that a server takes.
    eventually("a check arrives", seconds(5), || {
        unix.requests().iter().any(|request| request.head.headers.get("host").as_deref() == Some("localhost"))
    });
    let admin = |method: &str, path: &str, body: &str| {
        let length = body.len().to_string();
        let fields = [("Authorization", "Bearer secret-token"), ("Content-Length", length.as_str())];
        gateway.admin_client().request(method, path, &fields, body.as_bytes()).unwrap()
    };
    let health = |wanted: &str| {
        let report: serde_json::Value =
            serde_json::from_str(&admin("GET", "/backends/p", "").text()).unwrap();
        let members = report[0]["members"].as_array().unwrap();
        members.iter().any(|one| one["address"] == name.as_str() && one["health"] == wanted)
    };
    drop(socket);
    std::fs::remove_file(&place).unwrap();
    eventually("the check fails", seconds(5), || health("unhealthy"));
    for _ in 0..8 {
        assert_eq!(gateway.get("/").text(), "tcp");
    }
    let _socket = Socket::at(&place, unix.address);
    eventually("the check passes", seconds(5), || health("healthy"));
    assert!(both().iter().all(|count| *count > 0));
    // The admin port takes the name with its slashes encoded, and adds no Unix socket.
    let encoded = name.replace('/', "%2F");
    let answer = admin("POST", &format!("/backends/p/{encoded}/drain"), "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(both(), [8, 0]);
    assert_eq!(admin("POST", &format!("/backends/p/{encoded}/undrain"), "").status, 200);
    let answer = admin("POST", "/backends/p", "{\"address\": \"unix:/run/docker.sock\"}");
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("in the configuration alone"), "{}", answer.text());
}

/// connect(2) does not wait for room in the queue of a Unix socket, so the gateway does.
pub(crate) fn a_full_queue_is_waited_for_and_no_longer_than_allowed() {
    let directory = directory();
    let place = path(&directory, "app");
    let one = Backend::standard("one");
    let listener = listen(&place).unwrap();
    // A queue of one, which holds two.
    rustix::net::listen(&listener, 1).unwrap();
    let waiting: Vec<_> = (0..2).map(|_| testkit::unix::connect(&place).unwrap()).collect();
    let listener_line = Listener::h1().backend(format!("unix:{place}"));
    let gateway =
        Gateway::start(base().runtime("connect_timeout_ms", 1500).listener(listener_line.http("retries", 0)));
    let began = Instant::now();
    assert_eq!(gateway.get("/").status, 504);
    assert!((ms(1300)..seconds(6)).contains(&began.elapsed()), "after {:?}", began.elapsed());
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    std::thread::sleep(ms(300));
    // Those that wait are gone, and the gateway's own turn comes.
    drop(waiting);
    let address = one.address;
    std::thread::spawn(move || {
        while let Ok((mut unix, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut tcp = std::net::TcpStream::connect(address).unwrap();
                let (mut up, mut to) = (unix.try_clone().unwrap(), tcp.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut up, &mut to).ok());
                std::io::copy(&mut tcp, &mut unix).ok();
            });
        }
    });
    client.set_timeout(seconds(10));
    assert_eq!(client.response("GET").unwrap().text(), "one");
}
