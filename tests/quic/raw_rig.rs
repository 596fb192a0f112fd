//! A gateway that relays QUIC to a server of a well-known library.

use std::future::Future;

use testkit::quic::quinn::{Connection, RecvStream, SendStream};
use testkit::quic::server::QuicServer;
use testkit::quic::{QuicClient, QuicConnection, wait};
use testkit::{Config, Gateway, Listener, seconds};

/// The protocol that is spoken.
pub(crate) const PROTOCOL: &str = "test/1";

pub(crate) struct RawRig {
    pub(crate) gateway: Gateway,
    pub(crate) server: QuicServer,
}

impl RawRig {
    #[track_caller]
    pub(crate) fn standard() -> RawRig {
        RawRig::with(|listener| listener)
    }

    #[track_caller]
    pub(crate) fn with(change: impl FnOnce(Listener) -> Listener) -> RawRig {
        RawRig::of(QuicServer::start(&[PROTOCOL]), config(), change)
    }

    #[track_caller]
    pub(crate) fn of(
        server: QuicServer,
        config: Config,
        change: impl FnOnce(Listener) -> Listener,
    ) -> RawRig {
        let listener = change(Listener::quic_relay(server.address));
        RawRig { gateway: Gateway::start(config.listener(listener)), server }
    }

    /// A client and its connection as the server has it.
    #[track_caller]
    pub(crate) fn connect(&self) -> (QuicConnection, Connection) {
        self.connect_as(client())
    }

    #[track_caller]
    pub(crate) fn connect_as(&self, client: QuicClient) -> (QuicConnection, Connection) {
        let client = client.connect(self.gateway.front()).expect("a connection");
        (client, self.server.accept())
    }
}

/// The usual configuration.
pub(crate) fn config() -> Config {
    Config::new().runtime("per_ip_connection_cap", 100_000).runtime("workers", 1)
}

pub(crate) fn client() -> QuicClient {
    QuicClient::default().alpn(&[PROTOCOL])
}

/// What a future comes to, which it does soon.
#[track_caller]
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    wait(seconds(20), future).expect("in time")
}

/// All bytes of a stream.
pub(crate) async fn read(recv: &mut RecvStream) -> Vec<u8> {
    recv.read_to_end(64 << 20).await.expect("a whole stream")
}

/// Sends all of it, and the end.
pub(crate) async fn send(send: &mut SendStream, bytes: &[u8]) {
    send.write_all(bytes).await.expect("a stream that is read");
    send.finish().expect("it is not finished yet");
}
