//! A listener that runs on this worker: what becomes of its sockets.

use std::net::SocketAddr;
use std::rc::Rc;

use lb_config::ListenerId;
use lb_control::ListenerKey;
use lb_io::listener::ListeningSocket;
use lb_io::udp::UdpSocket;

use super::Protocol;
use crate::acceptor::Acceptor;

/// A listener of this worker. It stays here until nothing is left of its connections.
pub(super) struct Running {
    pub(super) id: ListenerId,
    pub(super) key: ListenerKey,
    /// Where its sockets are bound, if they are sockets of UDP.
    pub(super) udp: Vec<SocketAddr>,
    pub(super) acceptor: Rc<Acceptor>,
    pub(super) tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Running {
    /// Has its sockets closed, unless they are already; the tasks that do it.
    pub(super) fn close(&mut self) -> Vec<tokio::task::JoinHandle<()>> {
        self.acceptor.stopping.set(true);
        match &self.acceptor.protocol {
            // Flows that live go on by its sockets, until they end or are aborted.
            Protocol::Udp(service) => {
                service.close();
                self.tasks.clear();
            }
            Protocol::Passthrough(_) => self.tasks.clear(),
            _ => {}
        }
        self.acceptor.stop.notify_waiters();
        std::mem::take(&mut self.tasks)
    }

    /// Another process reads the UDP sockets at these addresses from now on.
    pub(super) fn stop_reading(&self, read_elsewhere: &[SocketAddr]) {
        if !self.udp.iter().any(|address| read_elsewhere.contains(address)) {
            return;
        }
        match &self.acceptor.protocol {
            Protocol::Udp(service) => service.stop_reading(),
            Protocol::Quic(quic) => quic.stop_reading(),
            Protocol::Passthrough(service) => service.hand_over(),
            Protocol::Http(_) | Protocol::Tcp(_) => {}
        }
    }

    /// Another listener has its address from now on, by these sockets.
    pub(super) fn give_way(&self, to: &[ListeningSocket]) {
        let duplicates = || {
            let each = to.iter().map(|socket| UdpSocket::listening(socket.for_worker()?));
            each.filter_map(Result::ok).collect()
        };
        match &self.acceptor.protocol {
            Protocol::Udp(service) => service.give_way(duplicates()),
            Protocol::Passthrough(service) => service.give_way(duplicates()),
            // The sockets are duplicates, so that no datagram is queued where nothing reads.
            Protocol::Quic(quic) => quic.stop_reading(),
            Protocol::Http(_) | Protocol::Tcp(_) => {}
        }
    }

    /// Whether it accepts no more, and its connections keep what they began with.
    pub(super) fn is_closed(&self) -> bool {
        self.acceptor.stopping.get()
    }
}
