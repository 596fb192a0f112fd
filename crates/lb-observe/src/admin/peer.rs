//! The connection that a request of the admin port came by.

use std::cell::Cell;
use std::net::SocketAddr;

use tokio::sync::Notify;

/// Who asks, and what becomes of the connection.
#[derive(Debug)]
pub(super) struct Peer {
    address: SocketAddr,
    streams: Cell<bool>,
    cut: Notify,
}

impl Peer {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, streams: Cell::new(false), cut: Notify::new() }
    }

    /// Whether it is on this machine.
    pub(super) fn is_loopback(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }

    /// An answer goes on as long as it is read: the connection is no longer closed for its age.
    pub(super) fn begin_stream(&self) {
        self.streams.set(true);
    }

    /// Whether such an answer was begun.
    pub(super) fn streams(&self) -> bool {
        self.streams.get()
    }

    /// Closes the connection at once, whatever it still has to send.
    pub(super) fn cut(&self) {
        self.cut.notify_one();
    }

    /// Ready when the connection is to be closed.
    pub(super) async fn is_cut(&self) {
        self.cut.notified().await;
    }
}
