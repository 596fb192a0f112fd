//! Datagrams of backends on their way to clients.

use std::net::IpAddr;

use lb_io::udp::{ReceiveBatch, SendBatch, SendOutcome, UdpSocket, UplinkSocket};
use lb_observe::metrics::{DatagramDrop, DatagramPath, FlowEnd, WorkerMetrics};

use super::flow::is_answered;
use super::state::{Around, State};

/// Replies that leave together by one listening socket.
#[derive(Debug, Default)]
pub(super) struct Replies {
    socket: usize,
    sum: SendOutcome,
    pushed: u64,
}

impl Replies {
    /// Adds what was received at an uplink.
    pub(super) fn add(
        &mut self,
        state: &mut State,
        (at, received): (UplinkSocket, &mut ReceiveBatch),
        sockets: &[UdpSocket],
        out: &mut SendBatch,
        around: &Around<'_>,
    ) {
        let (replies, most) = (state.settings.udp.replies, state.settings.udp.max_amplification);
        for received in received.iter_mut() {
            let datagrams = received.count();
            let number = state.uplinks.flow(at, received.from);
            let Some((number, flow)) =
                number.and_then(|number| Some((number, state.table.touch(number, around.now)?)))
            else {
                around.dropped(DatagramDrop::Unasked, datagrams);
                continue;
            };
            flow.target.heard(around.now);
            flow.answered = flow.answered.saturating_add(count(datagrams));
            let bytes_out = flow.bytes_out.saturating_add(count(received.bytes.len()));
            if most.is_some_and(|most| bytes_out > flow.bytes_in.saturating_mul(most.into())) {
                around.dropped(DatagramDrop::Amplification, datagrams);
            } else {
                flow.bytes_out = bytes_out;
                if flow.socket != self.socket || out.is_full() {
                    self.flush(sockets, out);
                    self.socket = flow.socket;
                }
                let from = flow.local.filter(|_| is_wild(sockets.get(flow.socket)));
                self.pushed = self.pushed.saturating_add(count(datagrams));
                out.push_received(flow.client, from, &received);
            }
            if is_answered(flow, replies) {
                state.end(number, FlowEnd::Answered, around);
            }
        }
    }

    /// Sends what has been added.
    pub(super) fn flush(&mut self, sockets: &[UdpSocket], out: &mut SendBatch) {
        if out.is_empty() {
            return;
        }
        if let Some(socket) = sockets.get(self.socket) {
            self.sum.add(socket.try_send(out).1);
        }
        // What the socket has no room for is lost.
        out.clear();
    }

    /// Counts what was sent.
    pub(super) fn tally(self, around: &Around<'_>, worker: &WorkerMetrics) {
        let Self { sum, pushed, .. } = self;
        if pushed == 0 {
            return;
        }
        around.shard().udp_datagrams.of(DatagramPath::ToClient).add(sum.sent);
        worker.bytes_backend_to_client.add(sum.bytes);
        if let Some(lost) = pushed.checked_sub(sum.sent).filter(|lost| *lost > 0) {
            around.shard().udp_datagrams_dropped.of(DatagramDrop::NotSent).add(lost);
        }
    }
}

/// Whether the kernel would have to choose the source address of a reply.
fn is_wild(socket: Option<&UdpSocket>) -> bool {
    socket.is_some_and(|socket| match socket.local().ip() {
        IpAddr::V4(v4) => v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_unspecified(),
    })
}

pub(super) fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
