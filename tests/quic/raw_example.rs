//! DNS over QUIC (RFC 9250) through the gateway, as `config/examples/quic-doq.toml` has it.

use testkit::quic::quinn::Connection;
use testkit::quic::server::{QuicServer, spawn};
use testkit::quic::{NAME, QuicClient, site};
use testkit::{Config, Gateway, Listener, ports};

use crate::raw_rig::{now, read, send};

/// A question for the address of example.org, and an answer to it, each behind its length.
fn message(flags: u16, answers: u8) -> Vec<u8> {
    let mut message = vec![0, 0];
    message.extend(flags.to_be_bytes());
    message.extend([0, 1, 0, answers, 0, 0, 0, 0]);
    message.extend(b"\x07example\x03org\x00\x00\x01\x00\x01");
    for _ in 0..answers {
        message.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x0e\x10\x00\x04\xc0\x00\x02\x01");
    }
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    [&length[..], &message].concat()
}

/// Answers each question, until the connection ends.
fn resolve(connection: Connection) {
    spawn(async move {
        while let Ok((mut answer, mut question)) = connection.accept_bi().await {
            let asked = read(&mut question).await;
            // A question with the ID 0, as all have over QUIC (RFC 9250 section 4.2.1).
            let known = asked == message(0x0100, 0);
            send(&mut answer, &message(0x8180, u8::from(known))).await;
        }
    });
}

pub(crate) fn dns_over_quic_passes_as_in_the_example() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/examples/quic-doq.toml");
    let example = std::fs::read_to_string(root).unwrap();
    let servers = [QuicServer::start(&["doq"]), QuicServer::start(&["doq"])];
    servers.iter().for_each(|server| server.on_each(resolve));
    let mut gateway = Gateway::start(Config::new().listener(Listener::tcp().backend(ports::reserve())));
    let (address, directory) = (ports::reserve(), site().directory().display().to_string());
    let file = |name: &str| format!("{directory}/{name}");
    let mut text = gateway.config.render();
    text.push_str(
        &example
            .replace("0.0.0.0:853", &address.to_string())
            .replace("/etc/expressgateway/tls/cert.pem", &file("quic.pem"))
            .replace("/etc/expressgateway/tls/key.pem", &file("quic.key"))
            .replace("/etc/expressgateway/quic/retry.secret", &file("retry.secret"))
            .replace("/etc/expressgateway/tls/backend-ca.pem", &file("ca.pem"))
            .replace("resolver.internal", NAME)
            .replace("10.0.0.53:853", &servers[0].address.to_string())
            .replace("10.0.1.53:853", &servers[1].address.to_string()),
    );
    let verdict = gateway.reload_text(&text);
    assert!(matches!(verdict, testkit::gateway::Reload::Complete(_)), "{verdict:?}");
    let clients: Vec<_> =
        (0..2).map(|_| QuicClient::default().alpn(&["doq"]).connect(address).unwrap()).collect();
    now(async {
        for round in 0..20 {
            let (mut question, mut answer) = clients[round % 2].quic.open_bi().await.unwrap();
            send(&mut question, &message(0x0100, 0)).await;
            assert_eq!(read(&mut answer).await, message(0x8180, 1));
        }
    });
    gateway.wait_metric("quic_relay_streams_total", &[], |n| n == 20.0);
}
