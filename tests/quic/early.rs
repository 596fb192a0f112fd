//! Early data (0-RTT): what comes before the handshake is over may have been sent by anybody who has seen it before (attack Q-11, RFC 8470).

use std::net::UdpSocket;

use crate::rig::{Rig, config};
use testkit::certificates::Authority;
use testkit::quic::relay::Relay;
use testkit::quic::{QuicClient, QuicConnection, ZeroRttAccepted, wait};
use testkit::{Backend, Config, Gateway, H3Client, Listener, Received, eventually, ports, seconds};

/// A gateway that allows early data.
fn rig() -> Rig {
    Rig::with(|listener| listener.quic_key("early_data", true))
}

/// Has a client make a connection, so that it may speak early in the next one.
#[track_caller]
fn prime(client: &QuicClient, gateway: &Gateway) {
    let quic = client.connect(gateway.front()).unwrap();
    assert_eq!(H3Client::over(quic).unwrap().get("/").unwrap().status(), 200);
}

/// Whether the server has accepted the early data of a connection.
#[track_caller]
fn is_accepted(early: ZeroRttAccepted) -> bool {
    wait(seconds(20), early).expect("the end of the handshake")
}

fn targets(requests: &[Received], target: &str) -> Vec<Option<String>> {
    let with_target = requests.iter().filter(|request| request.path == target);
    with_target.map(|request| request.headers.get("early-data")).collect()
}

/// A connection that can speak early.
#[track_caller]
fn begin(client: &QuicClient, path: &Relay) -> (H3Client, ZeroRttAccepted) {
    let (quic, early): (QuicConnection, _) =
        client.connect_early(path.address).expect("a session that allows early data");
    (H3Client::silent(quic), early)
}

pub(crate) fn q_11_what_comes_early_is_safe_to_repeat() {
    let rig = rig();
    let client = QuicClient::default().early_data();
    prime(&client, &rig.gateway);
    let path = Relay::to(rig.gateway.front());
    // The handshake cannot end.
    path.mute(true);
    let (mut early, accepted) = begin(&client, &path);
    let post = early.open("POST", "/order", &[], false).unwrap();
    early.data(post, b"one").unwrap();
    early.end(post).unwrap();
    let upload = early.open("GET", "/with-body", &[("content-length", "3")], false).unwrap();
    early.data(upload, b"one").unwrap();
    early.end(upload).unwrap();
    let get = early.open("GET", "/page", &[], true).unwrap();
    let come = |target: &str| targets(&rig.origin.requests(), target);
    eventually("the safe request", seconds(10), || come("/page") == [Some("1".to_owned())]);
    assert_eq!((come("/order"), come("/with-body")), (vec![], vec![]), "before the end of the handshake");
    path.mute(false);
    for (id, target) in [(get, "/page"), (post, "/order"), (upload, "/with-body")] {
        assert_eq!(early.response(id).unwrap().status(), 200, "{target}");
    }
    assert!(is_accepted(accepted));
    let handled = |how| rig.gateway.metric("h3_early_requests_total", &[("handling", how)]);
    assert_eq!((handled("forwarded"), handled("held")), (1.0, 2.0));
    // Those that had to wait are no early data any more, and came once.
    assert_eq!((come("/order"), come("/with-body")), (vec![None], vec![None]));
    let later = early.open("GET", "/later", &[], true).unwrap();
    assert_eq!(early.response(later).unwrap().status(), 200);
    assert_eq!(come("/later"), [None]);
    // Somebody has seen the packets, and sends them again when the connection is gone.
    drop(early);
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    eventually("the safe request once more", seconds(10), || {
        for datagram in path.first_from_client() {
            other.send_to(&datagram, rig.gateway.front()).unwrap();
        }
        come("/page") == vec![Some("1".to_owned()); 2]
    });
    rig.assert_serves("packets that were sent again");
    assert_eq!((come("/order").len(), come("/with-body").len()), (1, 1));
}

pub(crate) fn q_11_clients_with_certificates_wait() {
    let (authority, files) = (Authority::new("an authority"), tempfile::tempdir().unwrap());
    authority.server(&["test.example"]).write(files.path(), "s");
    std::fs::write(files.path().join("ca.pem"), authority.pem()).unwrap();
    let backend = Backend::standard("one");
    let listener = Listener::quic()
        .certificate(&files.path().join("s.pem"), &files.path().join("s.key"))
        .quic_key("client_auth", "require")
        .quic_key("client_ca_path", files.path().join("ca.pem").display().to_string())
        .quic_key("early_data", true);
    let gateway = Gateway::start(config().listener(listener.backend(backend.address)));
    let alice = authority.client("alice");
    let client = QuicClient::new(&authority.pem(), Some(&alice)).early_data();
    prime(&client, &gateway);
    let path = Relay::to(gateway.front());
    path.mute(true);
    let (mut early, accepted) = begin(&client, &path);
    let get = early.open("GET", "/page", &[], true).unwrap();
    // The server has taken the packets by the time it answers to them.
    eventually("an answer", seconds(10), || path.bytes().1 > 0);
    path.mute(false);
    assert_eq!(early.response(get).unwrap().status(), 200);
    assert!(is_accepted(accepted));
    assert_eq!(backend.last_request().header("early-data"), None);
}

pub(crate) fn q_11_nothing_comes_early_unless_allowed() {
    let rig = Rig::standard();
    let client = QuicClient::default().early_data();
    prime(&client, &rig.gateway);
    // The session is good for a handshake, and for nothing before it.
    assert!(client.connect_early(rig.gateway.front()).is_none());
    prime(&client, &rig.gateway);
    rig.gateway.wait_metric("tls_handshakes_total", &[("result", "resumed")], |n| n >= 1.0);
}

pub(crate) fn limits_that_were_lowered_end_early_data() {
    let (backend, address) = (Backend::standard("one"), ports::reserve());
    let with = |streams: i64| -> Config {
        let listener = Listener::quic().at(address).quic_key("early_data", true);
        config().listener(
            listener.block("h2_security", "max_concurrent_streams", streams).backend(backend.address),
        )
    };
    let mut gateway = Gateway::start(with(100));
    let client = QuicClient::default().early_data();
    prime(&client, &gateway);
    gateway.reload(with(100).runtime("drain_timeout_ms", 5000));
    let (quic, accepted) = client.connect_early(gateway.front()).expect("a session that allows early data");
    let mut early = H3Client::silent(quic);
    let same = early.open("GET", "/page", &[], true).unwrap();
    assert!(is_accepted(accepted), "a reload that lowers nothing");
    assert_eq!(early.response(same).unwrap().status(), 200);
    drop(early);
    prime(&client, &gateway);
    gateway.reload(with(10));
    // A client that is told of lower limits than it remembers ends the connection, unless its early data were not accepted.
    let (quic, accepted) = client.connect_early(gateway.front()).expect("a session that allows early data");
    let mut early = H3Client::silent(quic);
    early.open("GET", "/lost", &[], true).unwrap();
    assert!(!is_accepted(accepted));
    let again = early.open("GET", "/page", &[], true).unwrap();
    assert_eq!(early.response(again).unwrap().status(), 200);
    assert_eq!(backend.last_request().header("early-data"), None);
}
