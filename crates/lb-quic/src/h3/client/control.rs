//! Unidirectional streams of a backend, and our control stream.

use std::time::Instant;

use lb_core::ledger::Charge;
use lb_http::h3::{ControlEvent, H3Code};

use super::{CONTROL, Client};
use crate::connection::Connection;

/// Bytes of a unidirectional stream that are read at once.
const PIECE: usize = 1024;

/// Gives quiche what is to be said on the control stream.
pub(super) fn give(connection: &mut Connection<Client>) {
    let Connection { app, quic, .. } = connection;
    if app.control.is_empty() {
        return;
    }
    // What there is no room for waits for the peer, whose next packet brings another turn.
    if let Ok(taken @ 1..) = quic.stream_send(CONTROL, &app.control, false) {
        app.control.drain(..taken);
        connection.said();
    }
}

/// Reads a unidirectional stream of the backend.
pub(super) fn readable(connection: &mut Connection<Client>, id: u64, now: Instant) {
    let mut piece = [0; PIECE];
    loop {
        let Connection { app, quic, .. } = &mut *connection;
        let stream = app.told.entry(id).or_default();
        let (length, fin) = match quic.stream_recv(id, &mut piece) {
            Ok(taken) => taken,
            Err(quiche::Error::Done) => return,
            Err(_) => (0, true),
        };
        let mut input = piece.get(..length).unwrap_or_default();
        let (mut charges, mut refused_from) = (0u32, None);
        loop {
            match app.peer.receive(stream, &mut input) {
                Ok(Some(ControlEvent::Settings(settings))) => {
                    app.settings = Some(settings);
                    app.streams.values_mut().for_each(crate::h3::stream::Stream::wake);
                }
                // Streams of that identifier and those after it were not processed (RFC 9114 §5.2).
                Ok(Some(ControlEvent::GoAway(id))) => refused_from = Some(id),
                Ok(Some(_)) => charges = charges.saturating_add(1),
                Ok(None) => break,
                Err(error) => return Client::fault(connection, error),
            }
        }
        let is_discarded = stream.is_discarded();
        let finished = fin.then(|| app.peer.finish(stream));
        if fin || is_discarded {
            app.told.remove(&id);
        }
        if let Some(id) = refused_from {
            app.refused_from(id);
        }
        if is_discarded && !fin {
            let _ = quic.stream_shutdown(id, quiche::Shutdown::Read, H3Code::STREAM_CREATION_ERROR.0);
        }
        for _ in 0..charges {
            Client::charge(connection, Charge::Unknown, now);
        }
        match finished {
            Some(Err(error)) => return Client::fault(connection, error),
            Some(Ok(())) => return,
            None if is_discarded => return,
            None => {}
        }
    }
}
