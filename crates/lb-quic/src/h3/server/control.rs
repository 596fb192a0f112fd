//! Unidirectional streams: what the client says of the connection, and what it is told.

use std::time::Instant;

use lb_core::ledger::{Charge, Verdict};
use lb_http::h3::{ControlEvent, H3Code, H3Error};

use super::{CONTROL, Server};
use crate::connection::Connection;
use crate::h3::priority;

/// Bytes of a unidirectional stream that are read at once.
const PIECE: usize = 1024;

/// A priority of a request that the client cannot send (RFC 9218 §7.2).
const BEYOND: H3Error = H3Error::connection(H3Code::ID_ERROR, "PRIORITY_UPDATE of a stream beyond the limit");

/// Gives quiche what is to be said on the control stream.
pub(super) fn give(connection: &mut Connection<Server>) {
    let Connection { app, quic, .. } = connection;
    if app.control.is_empty() {
        return;
    }
    // The most urgent of all streams (RFC 9218 §4.1 leaves it to the server).
    let _ = quic.stream_priority(CONTROL, 0, false);
    // What there is no room for waits for the peer, whose next packet brings another turn.
    if let Ok(taken @ 1..) = quic.stream_send(CONTROL, &app.control, false) {
        app.control.drain(..taken);
        connection.said();
    }
}

/// Reads a unidirectional stream of the client.
pub(super) fn readable(connection: &mut Connection<Server>, id: u64, now: Instant) {
    let mut piece = [0; PIECE];
    loop {
        let Connection { app, quic, .. } = &mut *connection;
        let openable = app.openable();
        let stream = app.told.entry(id).or_default();
        let (length, fin) = match quic.stream_recv(id, &mut piece) {
            Ok(taken) => taken,
            Err(quiche::Error::Done) => return,
            Err(_) => (0, true),
        };
        let mut input = piece.get(..length).unwrap_or_default();
        loop {
            match app.peer.receive(stream, &mut input) {
                Ok(Some(event)) => {
                    let verdict = match event {
                        ControlEvent::PriorityUpdate { stream: request, priority } => {
                            if request >= openable {
                                return Server::fault(connection, BEYOND);
                            }
                            match app.streams.get_mut(&request).filter(|stream| stream.has_begun) {
                                Some(stream) => {
                                    stream.is_ordered = true;
                                    priority::apply(quic, request, priority);
                                }
                                None => app.priorities.keep(request, priority),
                            }
                            app.ledger.charge(Charge::Priority, now)
                        }
                        ControlEvent::Unknown { .. } => app.ledger.charge(Charge::Unknown, now),
                        ControlEvent::MaxPushId(_) => app.ledger.charge(Charge::Settings, now),
                        // What a client says of pushes concerns none of ours.
                        ControlEvent::Settings(_) | ControlEvent::GoAway(_) => Verdict::Fine,
                    };
                    if verdict != Verdict::Fine {
                        return Server::exceeded(connection, verdict);
                    }
                }
                Ok(None) => break,
                Err(error) => return Server::fault(connection, error),
            }
        }
        if fin {
            let finished = app.peer.finish(stream);
            app.told.remove(&id);
            if let Err(error) = finished {
                return Server::fault(connection, error);
            }
            return;
        }
        if stream.is_discarded() {
            app.told.remove(&id);
            let _ = quic.stream_shutdown(id, quiche::Shutdown::Read, H3Code::STREAM_CREATION_ERROR.0);
            return;
        }
    }
}
