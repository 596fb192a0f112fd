//! What a client of a `tls` listener gets.

use testkit::tls::TlsClient;
use testkit::{Backend, Config, Gateway, Listener, ms, pattern, seconds};

use crate::rig::Rig;

pub(crate) fn echo_of_any_size() {
    let rig = Rig::new();
    let gateway = rig.gateway("");
    let mut client = rig.client().connect(gateway.front(), "server.test").unwrap();
    let group = client.tls.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(format!("{group:?}"), "X25519MLKEM768", "post-quantum by default");
    for length in [1, 2, 1000, 16_384, 16_385, 65_536, 1] {
        assert!(client.echo(&pattern::bytes(length)).unwrap(), "{length} bytes");
    }
    gateway.wait_metric("tls_handshakes_total", &[("result", "full")], |n| n == 1.0);
    gateway.wait_metric("tls_handshakes_inflight", &[], |n| n == 0.0);
    assert!(gateway.messages().iter().any(|line| line.contains("listener configured for TLS")));
}

pub(crate) fn half_close_and_the_end_of_each_side() {
    let rig = Rig::new();
    let backend = Backend::start(|conn| {
        let question = conn.wire.to_end()?;
        conn.pause(ms(100));
        conn.send(vec![b'x'; 3_000_000])?;
        conn.send(format!("heard {} bytes", question.len()))
    });
    let listener = Listener::tls(rig.files.path(), "s").backend(backend.address);
    let gateway = Gateway::start(Config::new().listener(listener));
    let mut client = rig.client().connect(gateway.front(), "server.test").unwrap();
    client.send(&pattern::bytes(1_000_000)).unwrap();
    client.finish().unwrap();
    let answer = client.to_end().unwrap();
    assert_eq!(answer.len(), 3_000_000 + "heard 1000000 bytes".len());
    assert!(answer.ends_with(b"heard 1000000 bytes"));
}

pub(crate) fn sni_and_wildcards_choose_the_certificate() {
    let rig = Rig::new();
    rig.authority.server(&["exact.shop.test"]).write(rig.files.path(), "exact");
    rig.authority.server(&["*.shop.test"]).write(rig.files.path(), "wild");
    rig.authority.server(&["named.test", "other.test"]).write(rig.files.path(), "named");
    let block = |name: &str, more: &str| {
        format!(
            "[[listeners.tls.certificates]]\ncert_path = \"DIR/{name}.pem\"\nkey_path = \"DIR/{name}.key\"\n{more}"
        )
    };
    let lines =
        [block("wild", ""), block("exact", ""), block("named", "server_names = [\"named.test\"]\n")].concat();
    let gateway = rig.gateway(&lines);
    let client = rig.client();
    // The client verifies each name, so an answer means that the right certificate came.
    for name in ["server.test", "exact.shop.test", "any.shop.test", "named.test"] {
        assert!(client.connect(gateway.front(), name).unwrap().echo(b"hello").unwrap(), "{name}");
    }
    for name in ["a.b.shop.test", "shop.test", "other.test"] {
        assert!(client.connect(gateway.front(), name).is_err(), "{name} has no certificate");
    }
}

pub(crate) fn handshake_timeout_closes_the_silent_and_the_slow() {
    let rig = Rig::new();
    let gateway = Gateway::start(rig.config("").runtime("handshake_timeout_ms", 300));
    let hello = rig.client().hello("server.test");
    let mut silent = gateway.client();
    let mut slow = gateway.client();
    slow.send(&hello[..100]).unwrap();
    let mut stuck = gateway.client();
    stuck.send(&hello).unwrap();
    silent.closed(seconds(5)).unwrap();
    slow.closed(seconds(5)).unwrap();
    gateway.wait_metric("tls_handshakes_total", &[("result", "timeout")], |n| n == 3.0);
    assert_eq!(rig.backend.connections(), 0);
}

pub(crate) fn tls13_only_refuses_tls12() {
    let rig = Rig::new();
    for (only, is_served) in [(false, true), (true, false)] {
        let gateway = Gateway::start(rig.config("").block("runtime.tls", "tls13_only", only));
        let client = TlsClient::tls12(&rig.authority);
        assert_eq!(client.connect(gateway.front(), "server.test").is_ok(), is_served);
        assert!(rig.client().connect(gateway.front(), "server.test").unwrap().echo(b"13").unwrap());
    }
}

pub(crate) fn drain_lets_connections_finish() {
    let rig = Rig::new();
    let mut gateway = Gateway::start(rig.config("").runtime("drain_timeout_ms", 5000));
    let mut client = rig.client().connect(gateway.front(), "server.test").unwrap();
    assert!(client.echo(b"before").unwrap());
    gateway.process.signal(testkit::process::SIGTERM);
    std::thread::sleep(ms(300));
    assert!(client.echo(b"while draining").unwrap());
    client.finish().unwrap();
    assert_eq!(client.to_end().unwrap(), b"");
    assert_eq!(gateway.process.wait_exit(seconds(5)), Some(0));
}

pub(crate) fn idle_connections_are_small() {
    const COUNT: u64 = 500;
    let rig = Rig::new();
    let gateway = |listener: Listener| {
        let config = Config::new().listener(listener.backend(rig.backend.address));
        Gateway::start(config.runtime("per_ip_connection_cap", 10_000).runtime("workers", 1))
    };
    let plain = gateway(Listener::tcp());
    let before = plain.process.rss_kib();
    let clients: Vec<_> = (0..COUNT).map(|_| plain.client()).collect();
    plain.wait_metric("connections_inflight", &[], |n| n == COUNT as f64);
    let of_plain = plain.process.rss_kib().saturating_sub(before);
    drop(clients);
    let tls = gateway(Listener::tls(rig.files.path(), "s"));
    let client = rig.client();
    // What handshakes need once is not counted.
    drop((0..20).map(|_| client.connect(tls.front(), "server.test").unwrap()).collect::<Vec<_>>());
    let before = tls.process.rss_kib();
    let connect = |_| {
        let mut connection = client.connect(tls.front(), "server.test").unwrap();
        assert!(connection.echo(&[7; 1000]).unwrap());
        connection
    };
    let connections: Vec<_> = (0..COUNT).map(connect).collect();
    tls.wait_metric("connections_inflight", &[], |n| n == COUNT as f64);
    let of_tls = tls.process.rss_kib().saturating_sub(before);
    drop(connections);
    let more = of_tls.saturating_sub(of_plain) as f64 / COUNT as f64;
    assert!(more <= 16.0, "a TLS connection takes {more:.1} KiB more than a plain one");
    eprintln!("a TLS connection takes {more:.1} KiB more than a plain one");
}
