//! A gateway between a WebSocket client and a WebSocket server.

use serde_json::Value;
use testkit::peers::{Certificate, Peer, scenario};
use testkit::{Config, Gateway, Listener, seconds};

/// The protocols on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) front_h2: bool,
    pub(crate) tls: bool,
    pub(crate) back_h2: bool,
}

const fn cell(front_h2: bool, tls: bool, back_h2: bool) -> Cell {
    Cell { front_h2, tls, back_h2 }
}

pub(crate) const H1_H1: Cell = cell(false, false, false);
pub(crate) const H1S_H1: Cell = cell(false, true, false);
pub(crate) const H1_H2: Cell = cell(false, false, true);
pub(crate) const H2_H1: Cell = cell(true, false, false);
pub(crate) const H2S_H1: Cell = cell(true, true, false);
pub(crate) const H2_H2: Cell = cell(true, false, true);
pub(crate) const H2S_H2: Cell = cell(true, true, true);

pub(crate) struct Rig {
    pub(crate) gateway: Gateway,
    pub(crate) server: Peer,
    pub(crate) cell: Cell,
    certificate: Option<Certificate>,
}

impl Rig {
    /// Both sides of the cell, with keys of `[listeners.websocket]`.
    #[track_caller]
    pub(crate) fn new(cell: Cell, keys: &[(&str, u64)]) -> Rig {
        let script = if cell.back_h2 { "h2_server.py" } else { "ws_server.py" };
        Rig::before(cell, Peer::start(script, &[]), keys)
    }

    /// The same before a server that runs already.
    #[track_caller]
    pub(crate) fn before(cell: Cell, server: Peer, keys: &[(&str, u64)]) -> Rig {
        let certificate = cell.tls.then(Certificate::localhost);
        let mut listener = match &certificate {
            Some(certificate) => Listener::h1s(&certificate.chain, &certificate.key),
            None if cell.front_h2 => Listener::h2c(),
            None => Listener::h1(),
        };
        listener = listener.websocket();
        for (key, value) in keys {
            listener = listener.block("websocket", key, *value);
        }
        listener = match cell.back_h2 {
            true => listener.h2_backend(server.address),
            false => listener.backend(server.address),
        };
        let config = Config::new().runtime("drain_timeout_ms", 4000).listener(listener);
        let gateway = Gateway::start(config);
        Rig { gateway, server, cell, certificate }
    }

    /// Runs a scenario of the cell's client.
    #[track_caller]
    pub(crate) fn client(&self, name: &str, args: &[&str]) -> Value {
        let script = if self.cell.front_h2 { "ws_h2_client.py" } else { "ws_client.py" };
        let trust = self.trust();
        let trust: Vec<&str> = trust.iter().map(String::as_str).collect();
        scenario(script, self.gateway.front(), name, &[&trust[..], args].concat())
    }

    /// The arguments that make a client trust the gateway.
    pub(crate) fn trust(&self) -> Vec<String> {
        let path = self.certificate.as_ref().map(|certificate| certificate.chain.display().to_string());
        path.into_iter().flat_map(|path| ["--ca".to_owned(), path]).collect()
    }

    /// Waits until the backend has seen a tunnel end with this code.
    #[track_caller]
    pub(crate) fn backend_closed(&self, code: u16) {
        self.server.wait_event("closed", seconds(10), |event| event["code"] == code);
    }
}

/// The client was told this.
#[track_caller]
pub(crate) fn assert_closed(seen: &Value, code: u16, reason: &str) {
    assert_eq!(seen["close"], serde_json::json!([code, reason]), "{seen}");
}
