//! Listeners come, go and turn into others by a reload, while the others lose nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use testkit::certificates::Authority;
use testkit::gateway::Reload;
use testkit::load::Load;
use testkit::tls::{Bridge, TlsClient, TlsConnection};
use testkit::{Backend, Client, Config, Gateway, Listener, eventually, ms, ports, seconds};

use crate::assert_nothing_lost;

#[track_caller]
fn complete(gateway: &mut Gateway, base: &Config, listeners: &[&Listener]) -> String {
    let config = listeners.iter().fold(base.clone(), |config, one| config.listener((*one).clone()));
    match gateway.reload(config) {
        Reload::Complete(line) => line,
        other => panic!("{other:?}"),
    }
}

/// SHA-256 of "secret-token".
const TOKEN_HASH: &str = "930bbdc51b6aed5c2a5678fd6e28dee7a05e8a4b643cfc0b4427c3efb86c0d94";

fn base() -> Config {
    Config::new().runtime("per_ip_connection_cap", 10_000).runtime("drain_timeout_ms", 5000)
}

fn refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

#[track_caller]
fn ask(address: SocketAddr, target: &str) -> String {
    Client::connect(address).and_then(|mut client| client.get(target)).map(|answer| answer.text()).unwrap()
}

/// A request that is under way when this returns.
fn begun(address: SocketAddr, millis: u32) -> Client {
    let mut client = Client::connect(address).unwrap();
    client.send(format!("GET /slow/{millis} HTTP/1.1\r\nHost: a\r\n\r\n")).unwrap();
    std::thread::sleep(ms(100));
    client
}

pub(crate) fn listeners_come_and_go() {
    let base = base();
    let [one, two] = ["one", "two"].map(Backend::standard);
    let steady = Listener::h1().backend(one.address);
    let other = Listener::h1().backend(two.address).key("drain_timeout_ms", 3000).key("drain_jitter_ms", 0);
    let third = Listener::tcp().backend(two.address);
    let mut gateway = Gateway::start(base.clone().listener(steady.clone()).listener(other.clone()));
    let descriptors = gateway.process.open_fds();
    let load = Load::start(steady.address, 8, "/", ms(0));
    // Each connection of its own as well: what is accepted counts as much as what is kept.
    let stop = Arc::new(AtomicBool::new(false));
    let fresh = {
        let (stop, front) = (Arc::clone(&stop), steady.address);
        std::thread::spawn(move || {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(ask(front, "/"), "one");
                count += 1;
            }
            count
        })
    };
    // Added.
    complete(&mut gateway, &base, &[&steady, &other, &third]);
    assert_eq!(ask(third.address, "/"), "two");
    // Removed: what runs ends well, an idle connection is closed, and nobody else comes in.
    let mut slow = begun(other.address, 1000);
    let mut idle = Client::connect(other.address).unwrap();
    assert_eq!(idle.get("/").unwrap().text(), "two");
    let line = complete(&mut gateway, &base, &[&steady, &third]);
    assert!(line.contains("\"restart_required\":0"), "{line}");
    assert!(refused(other.address));
    idle.closed(seconds(2)).unwrap();
    // Added again while the last connection of the one before is still there.
    complete(&mut gateway, &base, &[&third, &other, &steady]);
    assert_eq!(ask(other.address, "/"), "two");
    assert_eq!(slow.response("GET").unwrap().status, 200);
    let ended = "connections of a listener that is gone have ended";
    let line = gateway.process.stderr.wait(ended, seconds(3)).expect("the end is told");
    assert!(line.contains("\"aborted\":0"), "{line}");
    // Moved to another address.
    let moved = other.clone().at(ports::reserve());
    complete(&mut gateway, &base, &[&steady, &moved, &third]);
    assert_eq!(ask(moved.address, "/"), "two");
    assert!(refused(other.address));
    // Its series end with it.
    let name = other.address.to_string();
    eventually("the series are gone", seconds(5), || {
        gateway.metrics().lines_of("connections_inflight").iter().all(|line| !line.contains(&name))
    });
    for _ in 0..10 {
        complete(&mut gateway, &base, &[&steady]);
        complete(&mut gateway, &base, &[&steady, &moved, &third]);
    }
    assert_eq!(ask(moved.address, "/"), "two");
    stop.store(true, Ordering::Relaxed);
    assert!(fresh.join().unwrap() > 20);
    assert_nothing_lost(&load.stop());
    eventually("no descriptor is kept", seconds(5), || gateway.process.open_fds() < descriptors + 30);
    assert_eq!(gateway.stop(seconds(10)), 0);
    assert!(refused(steady.address) && refused(moved.address));
}

pub(crate) fn a_listener_that_is_gone_has_its_own_budget() {
    let base = base();
    let backend = Backend::standard("one");
    let steady = Listener::h1().backend(backend.address);
    let going =
        Listener::h1().backend(backend.address).key("drain_timeout_ms", 800).key("drain_jitter_ms", 0);
    let mut gateway = Gateway::start(base.clone().listener(steady.clone()).listener(going.clone()));
    let (mut stays, mut cut) = (begun(steady.address, 3000), begun(going.address, 20_000));
    let began = Instant::now();
    complete(&mut gateway, &base, &[&steady]);
    cut.set_timeout(seconds(10));
    assert!(cut.response("GET").is_err(), "it was answered");
    assert!((ms(600)..seconds(4)).contains(&began.elapsed()), "after {:?}", began.elapsed());
    let line = gateway.process.stderr.wait("connections of a listener that is gone have ended", seconds(3));
    assert!(line.as_ref().is_some_and(|line| line.contains("\"aborted\":1")), "{line:?}");
    stays.set_timeout(seconds(10));
    assert_eq!(stays.response("GET").unwrap().status, 200);
    // An end of the process waits for what a reload has taken away.
    complete(&mut gateway, &base, &[&steady, &going.clone().key("drain_timeout_ms", 20_000)]);
    let mut last = begun(going.address, 1500);
    complete(&mut gateway, &base, &[&steady]);
    gateway.process.signal(testkit::process::SIGTERM);
    last.set_timeout(seconds(10));
    assert_eq!(last.response("GET").unwrap().status, 200);
    assert_eq!(gateway.process.wait_exit(seconds(10)), Some(0));
}

/// Sends what is neither a handshake nor a request: what accepts the connection answers with something, or ends it in order. A connection
/// that nothing has accepted is reset without a word.
fn knock_once(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(seconds(10)))?;
    stream.write_all(b"x y z\r\n\r\n")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(()),
    }
}

/// Connects again and again; every connection must be accepted.
fn knock(address: SocketAddr, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<usize> {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            if let Err(error) = knock_once(address) {
                panic!("connection {count}: {error}");
            }
            count += 1;
            std::thread::sleep(ms(1));
        }
        count
    })
}

pub(crate) fn a_listener_changes_its_protocol() {
    let base = base();
    let authority = Authority::new("test authority");
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.server(&["server.test"]).write(files.path(), "s");
    let (one, two) = (Backend::standard("one"), Backend::standard("two"));
    let steady = Listener::h1().backend(one.address);
    let plain = Listener::h1().backend(two.address).key("drain_jitter_ms", 0);
    let at = plain.address;
    let secure = Listener::h1s(&certificate, &key).at(at).backend(two.address).key("drain_jitter_ms", 0);
    let raw = Listener::tcp().at(at).backend(two.address);
    let raw_secure = Listener::tls(files.path(), "s").at(at).backend(two.address);
    let mut gateway = Gateway::start(base.clone().listener(steady.clone()).listener(plain.clone()));
    let load = Load::start(steady.address, 8, "/", ms(0));
    let stop = Arc::new(AtomicBool::new(false));
    let knocks = knock(at, &stop);
    let client = TlsClient::new(&authority, None).alpn(&["http/1.1"]);
    let ask_inside_tls = || ask(Bridge::start(client.clone(), at, "server.test").address, "/");
    for _ in 0..2 {
        let mut slow = begun(at, 700);
        complete(&mut gateway, &base, &[&steady, &secure]);
        assert_eq!(ask_inside_tls(), "two");
        assert_eq!(slow.response("GET").unwrap().status, 200, "what ran before ends as it began");
        complete(&mut gateway, &base, &[&steady, &raw_secure]);
        assert_eq!(ask_inside_tls(), "two");
        complete(&mut gateway, &base, &[&steady, &raw]);
        assert_eq!(ask(at, "/"), "two");
        // What runs through the relay goes on while the listener speaks HTTP.
        let mut kept = Client::connect(at).unwrap();
        assert_eq!(kept.get("/").unwrap().text(), "two");
        complete(&mut gateway, &base, &[&steady, &plain]);
        let answer = Client::connect(at).and_then(|mut client| client.get("/echo")).unwrap().text();
        assert!(answer.to_lowercase().contains("x-forwarded-for"), "{answer}");
        assert_eq!(kept.get("/").unwrap().text(), "two");
    }
    stop.store(true, Ordering::Relaxed);
    assert!(knocks.join().unwrap() > 100);
    assert_nothing_lost(&load.stop());
}

/// The first ticket key to turn may be that of a listener which was not there at the start.
pub(crate) fn ticket_keys_of_an_added_listener_turn() {
    let base = base();
    let authority = Authority::new("test authority");
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.server(&["server.test"]).write(files.path(), "s");
    let backend = Backend::standard("one");
    let steady = Listener::h1().backend(backend.address);
    let added = Listener::h1s(&certificate, &key)
        .backend(backend.address)
        .block("tls", "ticket_rotation_interval_seconds", 1)
        .block("tls", "ticket_rotation_overlap_seconds", 3600);
    let mut gateway = Gateway::start(base.clone().listener(steady.clone()));
    complete(&mut gateway, &base, &[&steady, &added]);
    gateway.wait_metric("ticket_key_rotations_total", &[], |turned| turned >= 1.0);
}

/// A listener whose only backends were told to the admin port has its certificates like any other one.
pub(crate) fn a_listener_with_added_backends_alone_speaks_tls() {
    let base = base().block("admin", "api_token_hash", TOKEN_HASH);
    let authority = Authority::new("test authority");
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.server(&["server.test"]).write(files.path(), "s");
    let [one, two] = ["one", "two"].map(Backend::standard);
    let steady = Listener::h1().backend(one.address);
    let plain = Listener::h1().backend(one.address);
    let at = plain.address;
    let secure = Listener::h1s(&certificate, &key).at(at).without_backends();
    let mut gateway = Gateway::start(base.clone().listener(steady.clone()).listener(plain.clone()));
    let body = format!("{{\"address\": \"{}\", \"protocol\": \"h1\"}}", two.address);
    let length = body.len().to_string();
    let fields = [("Authorization", "Bearer secret-token"), ("Content-Length", length.as_str())];
    let path = format!("/backends/{at}");
    let answer = gateway.admin_client().request("POST", &path, &fields, body.as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    complete(&mut gateway, &base, &[&steady, &secure]);
    let client = TlsClient::new(&authority, None).alpn(&["http/1.1"]);
    assert_eq!(ask(Bridge::start(client, at, "server.test").address, "/"), "two");
}

pub(crate) fn certificates_change_by_a_reload() {
    let base = base();
    let [old, new] = ["old", "new"].map(Authority::new);
    let files = tempfile::tempdir().unwrap();
    old.server(&["server.test"]).write(files.path(), "a");
    new.server(&["server.test"]).write(files.path(), "b");
    let echo = Backend::tcp_echo();
    let listener = |name: &str| Listener::tls(files.path(), name).backend(echo.address);
    let first = listener("a");
    let at = first.address;
    let mut gateway = Gateway::start(base.clone().listener(first));
    let connect = |authority: &Authority| -> std::io::Result<TlsConnection> {
        let mut connection = TlsClient::new(authority, None).connect(at, "server.test")?;
        assert!(connection.echo(b"x")?);
        Ok(connection)
    };
    let mut kept = connect(&old).unwrap();
    let line = complete(&mut gateway, &base, &[&listener("b").at(at)]);
    assert!(line.contains("\"restart_required\":0"), "{line}");
    connect(&new).unwrap();
    assert!(connect(&old).is_err(), "the old certificate is still shown");
    assert!(kept.echo(b"goes on").unwrap());
    // A certificate that cannot be read changes nothing, and is named with its place.
    let broken = base.clone().listener(listener("c").at(at)).render();
    match gateway.reload_text(&broken) {
        Reload::Rejected(line) => assert!(line.contains("lb.toml:") && line.contains("c.pem"), "{line}"),
        other => panic!("{other:?}"),
    }
    connect(&new).unwrap();
    assert!(kept.echo(b"still").unwrap());
    // Refused from now on: TLS 1.2.
    TlsClient::tls12(&new).connect(at, "server.test").unwrap();
    let strict = base.clone().block("runtime.tls", "tls13_only", true).listener(listener("b").at(at));
    assert!(matches!(gateway.reload(strict), Reload::Complete(_)));
    assert!(TlsClient::tls12(&new).connect(at, "server.test").is_err());
    connect(&new).unwrap();
}

pub(crate) fn a_bind_that_fails_changes_nothing() {
    let base = base();
    let [one, two] = ["one", "two"].map(Backend::standard);
    let steady = Listener::h1().backend(one.address);
    let going = Listener::h1().backend(one.address);
    let mut gateway = Gateway::start(base.clone().listener(steady.clone()).listener(going.clone()));
    let held = ports::reserve();
    let holder = TcpListener::bind(held).unwrap();
    let descriptors = gateway.process.open_fds();
    let good = Listener::h1().backend(two.address);
    let bad = Listener::h1().at(held).backend(two.address);
    let changed = Listener::h1().at(steady.address).backend(two.address);
    let load = Load::start(steady.address, 4, "/", ms(0));
    eventually("traffic", seconds(10), || load.served() > 100);
    let config = base.clone().listener(changed.clone()).listener(good.clone()).listener(bad.clone());
    let text = config.render();
    let line_of = text.lines().position(|line| line.contains(&held.to_string())).unwrap() + 1;
    for _ in 0..3 {
        match gateway.reload_text(&text) {
            Reload::Rejected(line) => {
                let place = format!("lb.toml:{line_of}");
                assert!(line.contains(&place) && line.contains("address"), "{line}");
                assert!(line.contains(&format!("cannot bind {held}")), "{line}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(refused(good.address), "a part of it was bound");
    assert_eq!(ask(steady.address, "/"), "one", "a part of it was applied");
    assert_eq!(ask(going.address, "/"), "one", "a listener was closed");
    assert_eq!(gateway.readyz(), Some(200));
    gateway.wait_metric("config_reload_failed_total", &[], |value| value == 3.0);
    let tally = load.stop();
    assert_eq!(tally.served_by("two"), 0);
    assert_nothing_lost(&tally);
    eventually("no descriptor is kept", seconds(5), || gateway.process.open_fds() < descriptors + 30);
    drop(holder);
    assert!(matches!(gateway.reload(config), Reload::Complete(_)));
    for address in [steady.address, good.address, bad.address] {
        assert_eq!(ask(address, "/"), "two");
    }
    assert!(refused(going.address));
    // A file without a listener would end all service.
    let none = base.clone().listener(Listener::h1().without_backends());
    assert!(matches!(gateway.reload(none), Reload::Rejected(_)));
    assert_eq!(ask(steady.address, "/"), "two");
}
