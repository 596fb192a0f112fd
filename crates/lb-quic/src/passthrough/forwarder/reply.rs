//! What backends send.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use lb_core::quic::ConnectionId;
use lb_core::quic::header::packets;
use lb_core::quic::paths::PathId;
use lb_observe::metrics::PassthroughDrop;

use super::Forwarder;

impl Forwarder {
    /// Where datagrams of a backend on this flow go, if they may: to the client at an address, from an address of this machine. They are
    /// `segment` bytes each, and stand one behind the other.
    pub(crate) fn reply(
        &mut self,
        flow: u32,
        (segment, bytes): (usize, &[u8]),
        now: Instant,
    ) -> Result<(SocketAddr, Option<IpAddr>), Option<PassthroughDrop>> {
        let id = self.paths.numbered(flow).ok_or(None)?;
        let path = self.paths.get(id).ok_or(None)?;
        if path.answered.is_none() {
            path.answered = Some(now);
            if let Some(load) = &mut path.carrier.load {
                load.answered(now);
            }
        }
        let (client, backend) = (path.client, path.backend);
        if !path.send(bytes.len(), now) {
            return Err(Some(PassthroughDrop::Amplification));
        }
        for datagram in bytes.chunks(segment.max(1)).filter(|datagram| is_long(datagram)) {
            self.learn(id, backend, datagram, now);
        }
        Ok((client.from, self.answers_from(&client)))
    }

    /// The backend of a flow cannot be reached: an ICMP error says so.
    pub(crate) fn unreachable(&mut self, flow: u32, now: Instant) {
        self.metrics().backend_socket_errors.inc();
        let Some(id) = self.paths.numbered(flow) else { return };
        let Some(path) = self.paths.get(id).filter(|path| path.answered.is_none()) else { return };
        path.carrier.is_refused = true;
        if let Some(load) = &mut path.carrier.load {
            load.failed(now);
        }
    }

    /// Learns what a backend calls its connections: the source connection ID of its long headers, which the client sends from then on. One of a
    /// Retry is among them; Version Negotiation only has the ID back that the client has sent.
    fn learn(&mut self, path: PathId, backend: SocketAddr, datagram: &[u8], now: Instant) {
        for (header, _) in packets(datagram) {
            if header.is_negotiation() {
                return;
            }
            if let Some(id) = ConnectionId::new(header.scid).filter(|id| !id.is_empty()) {
                self.issued(id, backend, Some(path), now);
            }
        }
    }
}

fn is_long(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & 0x80 != 0)
}
