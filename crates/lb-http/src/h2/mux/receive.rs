//! What the peer sends, frame by frame: where each goes, and the bodies.

use lb_core::failure::Reject;
use lb_core::head::RequestHead;
use lb_core::ledger::{Charge, Verdict};
use tokio::time::Instant;

use super::{Ending, Key, Mux, Role};
use crate::h2::frame::{self, ErrorCode, FrameError, Piece, Scope};
use crate::h2::stream::Reset;
use crate::h2::window::DEFAULT_WINDOW;
use crate::section::request::RequestLimits;

/// A connection-wide effect of a frame.
#[derive(Debug)]
pub(in crate::h2) enum Happening {
    /// Nothing that the connection's task has to do.
    Nothing,
    /// A request has come: an exchange is to begin.
    Request(Key),
    /// A request has come that is to be answered with a refusal.
    Refused(Key, Reject),
}

/// A part of a DATA frame.
#[derive(Clone, Copy, Debug)]
struct Part<'a> {
    bytes: &'a [u8],
    /// Bytes that the windows count, padding included.
    flow_len: u32,
    /// The content of the whole frame, with its last part.
    frame: Option<u32>,
    /// The stream ends here.
    end: bool,
}

/// What a request is read with.
#[derive(Debug)]
pub(in crate::h2) struct Received<'a> {
    pub(in crate::h2) limits: RequestLimits<'a>,
    /// Empty; holds the head after [`Happening::Request`] and [`Happening::Refused`].
    pub(in crate::h2) head: &'a mut RequestHead,
}

impl Mux {
    /// Takes one frame, or one part of a DATA frame, or what is wrong with it.
    ///
    /// # Errors
    /// When the connection is to end with the error. Errors of one stream are dealt with here.
    pub(in crate::h2) fn receive(
        &mut self,
        piece: Result<Piece<'_>, FrameError>,
        request: Option<Received<'_>>,
        now: Instant,
    ) -> Result<Happening, FrameError> {
        let result = match piece {
            Ok(piece) => self.take(piece, request, now),
            Err(error) => Err(error),
        };
        match result {
            Err(FrameError { scope: Scope::Stream(id), code, .. }) => self.stream_error(id, code, now),
            other => other,
        }
    }

    fn take(
        &mut self,
        piece: Piece<'_>,
        request: Option<Received<'_>>,
        now: Instant,
    ) -> Result<Happening, FrameError> {
        if !self.peer.known && !matches!(piece, Piece::Settings(_)) {
            return Err(FrameError::connection(
                ErrorCode::PROTOCOL_ERROR,
                "a first frame that is not SETTINGS",
            ));
        }
        match piece {
            Piece::Data { stream, bytes, flow_len, frame_bytes, end_of_frame, end_stream } => {
                let frame = end_of_frame.then_some(frame_bytes);
                self.data(stream, Part { bytes, flow_len, frame, end: end_stream }, now)
            }
            Piece::Headers { stream, block, fault: Some(fault), .. } => {
                self.highest = self.highest.max(if self.role == Role::Server { stream } else { 0 });
                self.seen = self.seen.max(self.highest);
                self.skip(block).and(Err(fault))
            }
            Piece::Headers { stream, block, end_stream, .. } => match self.role {
                Role::Server => self.request_headers(stream, block, end_stream, request, now),
                Role::Client => self.response_headers(stream, block, end_stream, now),
            },
            Piece::WindowUpdate { stream, increment } => self.window_update(stream, increment, now),
            Piece::Settings(settings) => self.settings(settings, now),
            Piece::SettingsAck => {
                if std::mem::replace(&mut self.knows_settings, true) {
                    self.charge(Charge::Unwanted, now)?;
                }
                Ok(Happening::Nothing)
            }
            Piece::Ping { ack, data } => self.ping_received(data, ack, now),
            Piece::RstStream { stream, code } => self.rst_stream(stream, code, now),
            Piece::GoAway { last_stream, .. } => self.goaway_received(last_stream, now),
            Piece::Priority { .. } | Piece::PriorityUpdate { .. } => {
                self.charge(Charge::Priority, now).map(|()| Happening::Nothing)
            }
            Piece::Unknown { .. } => self.charge(Charge::Unknown, now).map(|()| Happening::Nothing),
        }
    }

    /// Resets one stream for what the peer did. All such resets are charged (attack H2-02).
    fn stream_error(&mut self, id: u32, code: ErrorCode, now: Instant) -> Result<Happening, FrameError> {
        // A stream too many is no fault: the limit may not have reached the peer yet.
        let charge = if code == ErrorCode::REFUSED_STREAM { Charge::Unwanted } else { Charge::LocalReset };
        if let Err(error) = self.charge(charge, now) {
            if self.role == Role::Server || self.goaway_sent.is_some() {
                return Err(error);
            }
            // A backend that errs so often is given no more requests on this connection. Those that it has are of clients who have nothing
            // to do with it: they are finished, unless it errs as often again.
            self.ledger.forgive(charge);
            self.go_away(false, ErrorCode::NO_ERROR, error.what);
            self.shunned = true;
        }
        match self.find(id) {
            Some(key) => self.reset(key, code),
            None => {
                frame::write::rst_stream(&mut self.out.frames, id, code);
                self.remember(id, Ending::ByUs);
            }
        }
        Ok(Happening::Nothing)
    }

    /// What to make of a frame for a stream that is not there.
    pub(super) fn absent(&self, id: u32) -> Result<(), FrameError> {
        let ours = match self.role {
            Role::Server => id.is_multiple_of(2),
            Role::Client => !id.is_multiple_of(2),
        };
        let highest = if ours { self.next_id.saturating_sub(1) } else { self.seen };
        if id > highest || (ours && self.role == Role::Server) {
            return Err(FrameError::connection(ErrorCode::PROTOCOL_ERROR, "a frame on an idle stream"));
        }
        Ok(())
    }

    /// A part of a message has come for a stream that was there.
    pub(super) fn late(
        &mut self,
        id: u32,
        now: Instant,
        what: &'static str,
    ) -> Result<Happening, FrameError> {
        let not_served = self.goaway_sent.is_some_and(|last| id > last);
        // What is beyond our GOAWAY was never begun (RFC 9113 §6.8).
        if not_served {
            return Ok(Happening::Nothing);
        }
        if self.role == Role::Client {
            // A stream that the gateway opened and cancelled is forgotten; what still comes for it is bounded (attack H2-13).
            return self.charge(Charge::Unwanted, now).map(|()| Happening::Nothing);
        }
        match self.ending(id) {
            // It was sent before our RST_STREAM could arrive (attack H2-11: nothing looks at it).
            Some(Ending::ByUs) => Ok(Happening::Nothing),
            // Longer ago than we remember.
            None => self.charge(Charge::Unwanted, now).map(|()| Happening::Nothing),
            Some(Ending::Done | Ending::ByPeer) => {
                Err(FrameError::stream(id, ErrorCode::STREAM_CLOSED, what))
            }
        }
    }

    pub(super) fn ending(&self, id: u32) -> Option<Ending> {
        self.ended.iter().rev().find(|(ended, _)| *ended == id).map(|(_, ending)| *ending)
    }

    /// Charges for a whole DATA frame with `content` bytes of a stream that wants it. `Err` names what is too much of it.
    #[inline]
    fn wanted(&mut self, content: u32, end: bool, now: Instant) -> Result<(), FrameError> {
        match self.ledger.data_received(content, end, now.into_std()) {
            // The stream alone is to blame at first: the connection is shared, and goes on unless this does.
            Verdict::TooMuch(what) if self.role == Role::Client => {
                Err(FrameError::excess(Scope::Stream(0), what.budget().reason))
            }
            verdict => super::calm(verdict),
        }
    }

    /// Charges for a part of a body whose stream is gone.
    fn unwanted(&mut self, part: &Part<'_>, now: Instant) -> Result<(), FrameError> {
        let Some(content) = part.frame else { return Ok(()) };
        super::calm(self.ledger.data_unwanted(content, now.into_std()))
    }

    fn data(&mut self, id: u32, part: Part<'_>, now: Instant) -> Result<Happening, FrameError> {
        let Part { bytes, flow_len, frame, end } = part;
        let violation = || FrameError::connection(ErrorCode::FLOW_CONTROL_ERROR, "more DATA than the window");
        self.receive_window.receive(flow_len, 0).map_err(|_| violation())?;
        let beyond = self.unknown_window();
        let Some(key) = self.find(id) else {
            self.release_connection(flow_len);
            self.absent(id)?;
            self.unwanted(&part, now)?;
            if self.role == Role::Client {
                return Ok(Happening::Nothing);
            }
            return self.late(id, now, "DATA on a closed stream");
        };
        let Some(stream) = self.streams.get_mut(key.0) else { return Ok(Happening::Nothing) };
        if let Some(reset) = stream.reset {
            self.release_connection(flow_len);
            self.unwanted(&part, now)?;
            return match reset {
                Reset::Peer(_) => {
                    Err(FrameError::stream(id, ErrorCode::STREAM_CLOSED, "DATA after RST_STREAM"))
                }
                _ => Ok(Happening::Nothing),
            };
        }
        let fault = if stream.received_end {
            Some((ErrorCode::STREAM_CLOSED, "DATA after END_STREAM"))
        } else if !stream.received_head {
            Some((ErrorCode::PROTOCOL_ERROR, "DATA before HEADERS"))
        } else if stream.receive_window.receive(flow_len, beyond).is_err() {
            Some((ErrorCode::FLOW_CONTROL_ERROR, "more DATA than the stream's window"))
        } else {
            None
        };
        if let Some((code, what)) = fault {
            self.release_connection(flow_len);
            return Err(FrameError::stream(id, code, what));
        }
        if let Some(content) = frame
            && let Err(error) = self.wanted(content, end, now)
        {
            self.release_connection(flow_len);
            return Err(match error.scope {
                Scope::Stream(_) => FrameError::stream(id, error.code, error.what),
                Scope::Connection => error,
            });
        }
        let Some(stream) = self.streams.get_mut(key.0) else { return Ok(Happening::Nothing) };
        stream.traffic.received = stream.traffic.received.saturating_add(u64::from(flow_len));
        if let Some(expected) = &mut stream.expected {
            // The body is as long as it was said to be, also when its answer was complete before it (attack H2-09).
            match expected.checked_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX)) {
                Some(left) if left == 0 || !end => *expected = left,
                _ => {
                    self.release_connection(flow_len);
                    return Err(FrameError::stream(
                        id,
                        ErrorCode::PROTOCOL_ERROR,
                        "DATA and content-length differ",
                    ));
                }
            }
        }
        if stream.lingers {
            stream.received_end |= end;
            self.release_connection(flow_len);
            self.reap(key);
            return Ok(Happening::Nothing);
        }
        if !bytes.is_empty() {
            if stream.inbox.capacity() == 0 {
                stream.inbox = self.io.buffers.take();
            }
            stream.inbox.extend_from_slice(bytes);
        }
        stream.received_end |= end;
        stream.wake();
        // No exchange takes padding: it is given back at once (attack H2-05).
        let padding = flow_len.saturating_sub(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        if padding > 0 {
            self.release(key, padding);
        }
        Ok(Happening::Nothing)
    }

    /// By how much the peer may overrun the window of a stream, because it has not answered for our SETTINGS: until then it goes by the
    /// window that nobody has changed (RFC 9113 §6.9.3).
    fn unknown_window(&self) -> u32 {
        if self.knows_settings { 0 } else { DEFAULT_WINDOW.saturating_sub(self.limits.initial_stream_window) }
    }

    /// Gives window back to the peer, for bytes that were taken.
    pub(in crate::h2) fn release(&mut self, key: Key, bytes: u32) {
        if let Some(stream) =
            self.streams.get_mut(key.0).filter(|stream| !stream.received_end && stream.reset.is_none())
            && let Some(increment) = stream.receive_window.consume(bytes)
        {
            frame::write::window_update(&mut self.out.frames, stream.id, increment);
            self.wake_driver();
        }
        self.release_connection(bytes);
    }

    pub(super) fn release_connection(&mut self, bytes: u32) {
        if bytes > 0
            && let Some(increment) = self.receive_window.consume_shared(bytes)
        {
            frame::write::window_update(&mut self.out.frames, 0, increment);
            self.wake_driver();
        }
    }
}
