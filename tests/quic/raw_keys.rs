//! Keys of `[listeners.quic.raw_proxy]` by their names: whom the gateway takes for the backend. What bounds a relay is in `raw`.

use testkit::certificates::Authority;
use testkit::quic::code_of;
use testkit::quic::quinn::crypto::rustls::HandshakeData;
use testkit::quic::server::QuicServer;
use testkit::{Gateway, Listener, ms, seconds};

use crate::raw_rig::{PROTOCOL, RawRig, client, config};

/// CONNECTION_REFUSED (RFC 9000 section 20.1): what a client is told that has no backend.
const REFUSED: u64 = 0x2;

pub(crate) fn backend_addr() {
    let server = QuicServer::start(&[PROTOCOL]);
    let port = server.address.port();
    for address in [format!("127.0.0.1:{port}"), format!("localhost:{port}")] {
        let gateway = Gateway::start(config().listener(Listener::quic_relay(&address)));
        let _client = client().connect(gateway.front()).unwrap();
        assert!(server.accept_within(seconds(5)).is_some(), "{address}");
    }
}

pub(crate) fn sni() {
    let names = |rig: &RawRig| {
        let (_client, server) = rig.connect();
        let data = server.handshake_data().unwrap().downcast::<HandshakeData>().unwrap();
        data.server_name
    };
    for name in [testkit::quic::NAME, "localhost"] {
        let rig = RawRig::with(|listener| listener.raw_key("sni", name));
        assert_eq!(names(&rig).as_deref(), Some(name));
    }
    // The certificate is for other names.
    refused(|listener| listener.raw_key("sni", "another.example"));
}

pub(crate) fn backend_ca_path() {
    let directory = tempfile::tempdir().unwrap();
    let other = directory.path().join("other.pem");
    std::fs::write(&other, Authority::new("another authority").pem()).unwrap();
    refused(|listener| listener.raw_key("backend_ca_path", other.display().to_string()));
}

/// The backend is not taken for what it is to be: the client is told, and the reason is counted.
#[track_caller]
fn refused(change: impl FnOnce(Listener) -> Listener) {
    let rig = RawRig::with(change);
    let client = client().connect(rig.gateway.front()).unwrap();
    assert_eq!(code_of(&client.closed(seconds(10)).unwrap()), Some((false, REFUSED)));
    rig.gateway.wait_metric("quic_relays_ended_total", &[("reason", "unreachable")], |n| n == 1.0);
    rig.gateway.wait_metric("backend_tls_handshakes_total", &[("result", "certificate")], |n| n >= 1.0);
    assert!(rig.server.accept_within(ms(200)).is_none(), "the backend has a connection");
}
