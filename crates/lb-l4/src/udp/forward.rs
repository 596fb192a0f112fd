//! Datagrams of clients on their way to backends.

use std::net::SocketAddr;

use lb_core::flows::FlowKey;
use lb_io::udp::{MAX_DATAGRAM, ReceiveBatch, Received, SendBatch, SendOutcome, UdpSocket, UplinkSocket};
use lb_observe::metrics::{DatagramDrop, DatagramPath, FlowEnd, WorkerMetrics};
use lb_security::ProxyHeader;

use super::reply::count;
use super::state::{Around, State};

/// Sends on what was received at a listening socket.
pub(super) fn forward(
    state: &mut State,
    received: &mut ReceiveBatch,
    (socket, number): (&UdpSocket, usize),
    around: &Around<'_>,
    worker: &WorkerMetrics,
) {
    let mut out = around.io.outgoing_datagrams.borrow_mut();
    let mut leaving = Leaving { out: &mut out, path: None, sum: SendOutcome::default(), pushed: 0 };
    let mut port = socket.local();
    for mut received in received.iter_mut() {
        let (client, local) = (received.from, received.to);
        let datagrams = received.count();
        if let Some(local) = local {
            port.set_ip(local);
        }
        if state.settings.udp.replies == Some(0) {
            let (ecn, segment) = (received.ecn, received.segment);
            for bytes in received.datagrams() {
                let one = Received { from: client, to: local, ecn, segment, bytes };
                if let Some(flow) = find(state, &one, number, 1, around) {
                    pass(state, flow, one, port, &mut leaving, around);
                    leaving.flush(state);
                    state.end(flow, FlowEnd::Answered, around);
                }
            }
        } else if let Some(flow) = find(state, &received, number, datagrams, around) {
            pass(state, flow, received, port, &mut leaving, around);
        }
    }
    leaving.flush(state);
    let Leaving { sum, pushed, .. } = leaving;
    around.shard().udp_datagrams.of(DatagramPath::ToBackend).add(sum.sent);
    worker.bytes_client_to_backend.add(sum.bytes);
    if let Some(lost) = pushed.checked_sub(sum.sent).filter(|lost| *lost > 0) {
        around.shard().udp_datagrams_dropped.of(DatagramDrop::NotSent).add(lost);
    }
}

/// The flow of these datagrams, which begins with them if there is none.
#[inline]
fn find(
    state: &mut State,
    received: &Received<'_>,
    socket: usize,
    datagrams: usize,
    around: &Around<'_>,
) -> Option<u32> {
    let (client, local) = (received.from, received.to);
    if let Some(flow) = state.table.find(&FlowKey::new(client, local))
        && state.follow(flow, around)
    {
        return Some(flow);
    }
    match state.begin((client, local), socket, around) {
        Ok(flow) => Some(flow),
        Err(refusal) => {
            around.dropped(refusal.drop(), datagrams);
            refusal.tell(&around.admissions.name, client, around.now);
            None
        }
    }
}

/// Adds the datagrams of a flow to what leaves.
fn pass(
    state: &mut State,
    number: u32,
    mut received: Received<'_>,
    local: SocketAddr,
    leaving: &mut Leaving<'_>,
    around: &Around<'_>,
) {
    let has_header = state.settings.udp.proxy_protocol;
    let Some(flow) = state.table.touch(number, around.now) else { return };
    let ecn = received.ecn;
    flow.asked = flow.asked.saturating_add(count(received.count()));
    flow.bytes_in = flow.bytes_in.saturating_add(count(received.bytes.len()));
    let (backend, client) = (flow.target.uplink.backend(), flow.client);
    let is_first = has_header && !std::mem::replace(&mut flow.target.is_greeted, true);
    // A change of the socket sends what was to leave by the one before.
    let path = flow.target.uplink.path();
    if leaving.path.is_some_and(|other| other != path) {
        leaving.flush(state);
    }
    leaving.path = Some(path);
    if !is_first {
        leaving.pushed = leaving.pushed.saturating_add(count(received.count()));
        leaving.out.push_received(backend, None, &received);
    } else {
        let header = ProxyHeader::new(client, local);
        for (at, datagram) in received.datagrams().enumerate() {
            let header = if at == 0 { header.bytes() } else { &[] };
            let length = header.len().saturating_add(datagram.len());
            if length > MAX_DATAGRAM {
                around.dropped(DatagramDrop::TooLarge, 1);
                if let Some(flow) = state.table.get_mut(number) {
                    // The next one takes the header.
                    flow.target.is_greeted = false;
                }
                continue;
            }
            leaving.pushed = leaving.pushed.saturating_add(1);
            leaving.out.push_marked(backend, None, ecn, &[header, &*datagram].concat());
        }
    }
    if leaving.out.is_full() {
        leaving.flush(state);
    }
}

/// Datagrams that leave by one socket.
struct Leaving<'a> {
    out: &'a mut SendBatch,
    path: Option<UplinkSocket>,
    sum: SendOutcome,
    /// How many were to be sent.
    pushed: u64,
}

impl Leaving<'_> {
    fn flush(&mut self, state: &State) {
        if let Some(path) = self.path.take() {
            self.sum.add(state.uplinks.send_by(path, self.out).1);
        }
        // What the socket has no room for is lost.
        self.out.clear();
    }
}
