//! Clients that mean no good.

use std::time::Instant;

use testkit::certificates::write;
use testkit::tls::TlsClient;
use testkit::{Client, Gateway, ms, seconds};

use crate::rig::{Rig, renew};
use crate::sessions::openssl;

/// The gateway still serves a client that behaves.
#[track_caller]
fn serves(rig: &Rig, gateway: &Gateway) {
    assert!(rig.client().connect(gateway.front(), "server.test").unwrap().echo(b"well-behaved").unwrap());
}

pub(crate) fn t_01_a_hello_in_tiny_records_is_answered() {
    let rig = Rig::new();
    let gateway = rig.gateway("");
    let hello = rig.client().hello("server.test");
    let tiny: Vec<u8> = hello[5..].iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect();
    let mut client = gateway.client();
    client.drip(&tiny, 97, ms(1)).unwrap();
    assert_eq!(client.wire.exactly(1).unwrap(), [22], "a ServerHello");
    serves(&rig, &gateway);
}

pub(crate) fn t_01_a_hello_without_end_is_closed() {
    let rig = Rig::new();
    let gateway = rig.gateway("");
    for length in [[0, 255, 255], [255, 255, 255]] {
        let mut client = gateway.client();
        let mut record = vec![22, 3, 1, 64, 0, 1, length[0], length[1], length[2]];
        record.resize(5 + 16_384, 0);
        (0..64).for_each(|_| client.send_anyway(&record));
        client.closed(seconds(3)).unwrap();
    }
    gateway.wait_metric("tls_handshakes_inflight", &[], |n| n == 0.0);
    serves(&rig, &gateway);
}

pub(crate) fn t_02_a_session_of_an_open_name_does_not_open_a_closed_one() {
    let rig = Rig::new();
    rig.authority.server(&["closed.test"]).write(rig.files.path(), "closed");
    let gateway = rig.gateway(
        "[[listeners.tls.certificates]]\ncert_path = \"DIR/closed.pem\"\nkey_path = \"DIR/closed.key\"\n\
         client_auth = \"require\"\nclient_ca_path = \"DIR/ca.pem\"\n",
    );
    let admitted = rig.authority.client("a client");
    for version in ["-tls1_3", "-tls1_2"] {
        let session = rig.file(&format!("session{version}")).display().to_string();
        openssl(&rig, &gateway, "server.test", &[version, "-sess_out", &session]);
        let before = rig.backend.connections();
        let intruder = openssl(&rig, &gateway, "closed.test", &[version, "-sess_in", &session]);
        assert!(!intruder.contains("Reused, TLSv1"), "{intruder}");
        assert_eq!(rig.backend.connections(), before, "the backend never hears of it");
    }
    let client = TlsClient::new(&rig.authority, Some(&admitted));
    assert!(client.connect(gateway.front(), "closed.test").unwrap().echo(b"with a certificate").unwrap());
    serves(&rig, &gateway);
}

pub(crate) fn t_04_a_flood_of_key_updates_is_closed() {
    let rig = Rig::new();
    let gateway = rig.gateway("");
    let mut client = rig.client().connect(gateway.front(), "server.test").unwrap();
    assert!(client.echo(b"hello").unwrap());
    let mut sent = 0;
    let ended = (0..5000).any(|_| {
        sent += 1;
        client.tls.refresh_traffic_keys().is_err() || client.tls.write_tls(&mut client.tcp).is_err()
    });
    assert!(ended || client.exactly(1).is_err(), "after {sent} key updates");
    gateway.wait_metric("tls_faults_total", &[("reason", "flood")], |n| n == 1.0);
    serves(&rig, &gateway);
}

pub(crate) fn t_05_plaintext_from_clients_is_closed() {
    let rig = Rig::new();
    let gateway = rig.gateway("");
    for bytes in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"SSH-2.0-x\r\n", &[0; 600], &[255; 600]] {
        let mut client = gateway.client();
        client.send(bytes).unwrap();
        client.closed(seconds(3)).unwrap();
    }
    gateway.wait_metric("tls_handshakes_total", &[("result", "not_tls")], |n| n == 4.0);
    assert_eq!(rig.backend.connections(), 0);
    serves(&rig, &gateway);
}

pub(crate) fn t_06_a_revoked_client_certificate_is_refused() {
    let rig = Rig::new();
    let (good, bad) = (rig.authority.client("good"), rig.authority.client("bad"));
    write(&rig.file("crl.pem"), rig.authority.revocation_list(&[]), 0o644);
    let file = |name: &str| rig.file(name).display().to_string();
    let listener = rig
        .listener("")
        .block("tls", "client_auth", "require")
        .block("tls", "client_ca_path", file("ca.pem"))
        .block("tls", "client_crl_path", file("crl.pem"));
    let gateway = Gateway::start(testkit::Config::new().listener(listener));
    let good = TlsClient::new(&rig.authority, Some(&good));
    let serial = bad.serial;
    let bad = TlsClient::new(&rig.authority, Some(&bad));
    let visit = |client: &TlsClient| -> bool {
        client.connect(gateway.front(), "server.test").and_then(|mut c| c.echo(b"hello")).unwrap_or(false)
    };
    assert!(visit(&good) && visit(&bad) && !visit(&rig.client()));
    write(&rig.file("crl.pem"), rig.authority.revocation_list(&[serial]), 0o644);
    assert!(renew(&gateway).contains("\"ok\":1"));
    assert!(!visit(&bad), "neither anew nor with its session");
    assert!(visit(&good));
    gateway.wait_metric("tls_handshakes_total", &[("result", "certificate")], |n| n == 2.0);
}

pub(crate) fn t_08_handshakes_beyond_the_cap_are_closed_at_once() {
    let rig = Rig::new();
    let config = rig
        .config("")
        .runtime("max_handshakes_in_flight", 2)
        .runtime("max_handshakes_per_network", 2)
        .runtime("workers", 1);
    let gateway = Gateway::start(config.runtime("handshake_timeout_ms", 20_000));
    // Connections that say nothing take no place.
    let _silent: Vec<_> = (0..20).map(|_| gateway.client()).collect();
    serves(&rig, &gateway);
    let hello = rig.client().hello("server.test");
    let mut holders: Vec<_> = (0..2).map(|_| gateway.client()).collect();
    holders.iter_mut().for_each(|holder| holder.send(&hello[..50]).unwrap());
    gateway.wait_metric("tls_handshakes_inflight", &[], |n| n == 2.0);
    let began = Instant::now();
    let mut late = gateway.client();
    late.send_anyway(&hello);
    late.closed(seconds(5)).unwrap();
    assert!(began.elapsed() < seconds(5));
    gateway.wait_metric("tls_handshakes_total", &[("result", "overload")], |n| n == 1.0);
    tells_of_the_cap(&gateway, "127.0.0.0/24", "runtime.max_handshakes_in_flight");
    drop(holders);
    gateway.wait_metric("tls_handshakes_inflight", &[], |n| n == 0.0);
    serves(&rig, &gateway);
}

/// A few lines, however many handshakes were turned away, with the client's network and the key.
#[track_caller]
fn tells_of_the_cap(gateway: &Gateway, network: &str, key: &str) {
    gateway.process.stderr.wait("refused TLS handshake", seconds(10)).expect("the line of the cap");
    let lines = gateway.process.stderr.matching("refused TLS handshake");
    assert!((1..=4).contains(&lines.len()), "{lines:?}");
    for part in ["WARN", network, key] {
        assert!(lines[0].contains(part), "{part} is not in {}", lines[0]);
    }
}

/// The clients of one network do not take all the places: beyond their share they are closed at once, and others are served.
pub(crate) fn t_08_one_network_has_its_share_of_the_handshakes() {
    let rig = Rig::new();
    let config = rig.config("").runtime("max_handshakes_in_flight", 8).runtime("workers", 1);
    let gateway = Gateway::start(config.runtime("handshake_timeout_ms", 20_000));
    let hello = rig.client().hello("server.test");
    let from = |last: u8| Client::connect_from([127, 1, 2, last].into(), gateway.front()).unwrap();
    let mut holders: Vec<_> = (1..=4).map(from).collect();
    holders.iter_mut().for_each(|holder| holder.send(&hello[..50]).unwrap());
    gateway.wait_metric("tls_handshakes_inflight", &[], |n| n == 4.0);
    for last in 1..=20 {
        let mut late = from(last);
        late.send_anyway(&hello);
        late.closed(seconds(5)).unwrap();
    }
    gateway.wait_metric("tls_handshakes_total", &[("result", "overload")], |n| n == 20.0);
    tells_of_the_cap(&gateway, "127.1.2.0/24", "runtime.max_handshakes_per_network");
    serves(&rig, &gateway);
    drop(holders);
    gateway.wait_metric("tls_handshakes_inflight", &[], |n| n == 0.0);
    let mut again = from(1);
    again.send(&hello).unwrap();
    assert_eq!(again.wire.exactly(1).unwrap(), [22], "a ServerHello");
}
