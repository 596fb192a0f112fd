//! What the peer sends, frame by frame.

use lb_core::head::{BodyLength, RequestHead, ResponseHead};
use lb_core::ledger::{Charge, TINY_DATA};
use lb_observe::metrics::UpstreamReject;
use tokio::time::Instant;

use super::{Ending, GOAWAY_PING, Key, MAX_STREAM_ID, Mux, Role};
use crate::exchange::Reject;
use crate::h2::frame::{self, ErrorCode, FrameError, Piece, Scope, SettingId, Settings};
use crate::h2::request::{Refusal, RequestLimits, RequestReader};
use crate::h2::response::{ResponseReader, TrailerReader};
use crate::h2::stream::{Last, Reset};

/// Interim responses that may wait to be taken (attack H1-15).
const MAX_HEADS: usize = 20;

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
                let charge = if end_of_frame && !end_stream && frame_bytes < TINY_DATA {
                    self.charge(if frame_bytes == 0 { Charge::EmptyData } else { Charge::TinyData }, now)
                } else {
                    Ok(())
                };
                charge.and_then(|()| self.data(stream, bytes, flow_len, end_stream, now))
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
            Piece::SettingsAck => Ok(Happening::Nothing),
            Piece::Ping { ack, data } => self.ping_received(data, ack, now),
            Piece::RstStream { stream, code } => self.rst_stream(stream, code, now),
            Piece::GoAway { last_stream, .. } => self.goaway_received(last_stream),
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
        self.charge(charge, now)?;
        match self.find(id) {
            Some(key) => self.reset(key, code),
            None => {
                frame::write::rst_stream(&mut self.out, id, code);
                self.remember(id, Ending::ByUs);
            }
        }
        Ok(Happening::Nothing)
    }

    /// What to make of a frame for a stream that is not there.
    fn absent(&self, id: u32) -> Result<(), FrameError> {
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
    fn late(&mut self, id: u32, now: Instant, what: &'static str) -> Result<Happening, FrameError> {
        let not_served = self.goaway_sent.is_some_and(|last| id > last);
        // What we open and cancel is ours to forget; what is beyond our GOAWAY was never begun (RFC 9113 §6.8).
        if self.role == Role::Client || not_served {
            return Ok(Happening::Nothing);
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

    fn ending(&self, id: u32) -> Option<Ending> {
        self.ended.iter().rev().find(|(ended, _)| *ended == id).map(|(_, ending)| *ending)
    }

    fn data(
        &mut self,
        id: u32,
        bytes: &[u8],
        flow_len: u32,
        end: bool,
        now: Instant,
    ) -> Result<Happening, FrameError> {
        let violation = || FrameError::connection(ErrorCode::FLOW_CONTROL_ERROR, "more DATA than the window");
        self.receive_window.receive(flow_len).map_err(|_| violation())?;
        let Some(key) = self.find(id) else {
            self.release_connection(flow_len);
            self.absent(id)?;
            return self.late(id, now, "DATA on a closed stream");
        };
        let Some(stream) = self.streams.get_mut(key.0) else { return Ok(Happening::Nothing) };
        if let Some(reset) = stream.reset {
            self.release_connection(flow_len);
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
        } else if stream.receive_window.receive(flow_len).is_err() {
            Some((ErrorCode::FLOW_CONTROL_ERROR, "more DATA than the stream's window"))
        } else {
            None
        };
        if let Some((code, what)) = fault {
            self.release_connection(flow_len);
            return Err(FrameError::stream(id, code, what));
        }
        if stream.lingers {
            stream.received_end |= end;
            stream.expected = None;
            self.release_connection(flow_len);
            self.reap(key);
            return Ok(Happening::Nothing);
        }
        stream.traffic.received = stream.traffic.received.saturating_add(u64::from(flow_len));
        if let Some(expected) = &mut stream.expected {
            // The body is as long as it was said to be (attack H2-09).
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
        if !bytes.is_empty() {
            if stream.inbox.capacity() == 0 {
                stream.inbox = self.io.buffers.take();
            }
            stream.inbox.extend_from_slice(bytes);
        }
        stream.received_end |= end;
        stream.wake();
        // Padding is nobody's to take: it is given back at once (attack H2-05).
        let padding = flow_len.saturating_sub(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        if padding > 0 {
            self.release(key, padding);
        }
        Ok(Happening::Nothing)
    }

    /// Gives window back to the peer, for bytes that were taken.
    pub(in crate::h2) fn release(&mut self, key: Key, bytes: u32) {
        if let Some(stream) =
            self.streams.get_mut(key.0).filter(|stream| !stream.received_end && stream.reset.is_none())
            && let Some(increment) = stream.receive_window.consume(bytes)
        {
            frame::write::window_update(&mut self.out, stream.id, increment);
            self.wake_driver();
        }
        self.release_connection(bytes);
    }

    pub(super) fn release_connection(&mut self, bytes: u32) {
        if bytes > 0
            && let Some(increment) = self.receive_window.consume(bytes)
        {
            frame::write::window_update(&mut self.out, 0, increment);
            self.wake_driver();
        }
    }

    fn request_headers(
        &mut self,
        id: u32,
        block: &[u8],
        end_stream: bool,
        request: Option<Received<'_>>,
        now: Instant,
    ) -> Result<Happening, FrameError> {
        if let Some(key) = self.find(id) {
            return self.trailers(key, block, end_stream);
        }
        if id <= self.highest {
            self.skip(block)?;
            return match self.ending(id) {
                Some(Ending::ByUs) => Ok(Happening::Nothing),
                Some(_) => {
                    Err(FrameError::connection(ErrorCode::STREAM_CLOSED, "HEADERS on a closed stream"))
                }
                // Trailers of a stream that ended longer ago than we remember.
                None if self.has_forgotten(id) => {
                    self.charge(Charge::Unwanted, now).map(|()| Happening::Nothing)
                }
                None => {
                    Err(FrameError::connection(ErrorCode::PROTOCOL_ERROR, "a stream identifier used before"))
                }
            };
        }
        if id.is_multiple_of(2) {
            return Err(FrameError::connection(ErrorCode::PROTOCOL_ERROR, "a request on an even stream"));
        }
        if self.goaway_sent.is_some_and(|last| id > last) {
            // It was sent before our GOAWAY could arrive, and will be repeated elsewhere.
            self.seen = self.seen.max(id);
            return self.skip(block).map(|()| Happening::Nothing);
        }
        self.highest = id;
        self.seen = id;
        let Some(Received { limits, head }) = request else {
            return self.skip(block).map(|()| Happening::Nothing);
        };
        if self.streams.len() >= usize::try_from(self.limits.max_concurrent_streams).unwrap_or(usize::MAX) {
            self.skip(block)?;
            return Err(FrameError::stream(id, ErrorCode::REFUSED_STREAM, "too many streams"));
        }
        let mut reader = RequestReader::new(head, limits);
        decode(&mut self.decoder, block, |name, value| reader.field(name, value))?;
        let (length, reject) = match reader.finish(end_stream) {
            Ok(length) => (length, None),
            Err(Refusal::Answer(reject)) => {
                if reject.status == 431 {
                    // The answer is cheap, the block was not (attack H2-04).
                    self.charge(Charge::HeaderOverflow, now)?;
                }
                (None, Some(reject))
            }
            Err(Refusal::Malformed(what)) => {
                return Err(FrameError::stream(id, ErrorCode::PROTOCOL_ERROR, what));
            }
        };
        let key = self.insert(id);
        if let Some(stream) = self.streams.get_mut(key.0) {
            stream.received_head = true;
            stream.received_end = end_stream;
            stream.to_head = head.is_head();
            stream.expected = length;
        }
        Ok(match reject {
            None => Happening::Request(key),
            Some(reject) => Happening::Refused(key, reject),
        })
    }

    fn response_headers(
        &mut self,
        id: u32,
        block: &[u8],
        end_stream: bool,
        now: Instant,
    ) -> Result<Happening, FrameError> {
        let Some(key) = self.find(id) else {
            self.skip(block)?;
            self.absent(id)?;
            return self.late(id, now, "HEADERS on a closed stream");
        };
        let Some(stream) = self.streams.get_mut(key.0) else { return Ok(Happening::Nothing) };
        if stream.received_head || stream.reset.is_some() {
            return self.trailers(key, block, end_stream);
        }
        let mut head = ResponseHead::default();
        let most = usize::try_from(self.limits.max_header_list_size).unwrap_or(usize::MAX);
        let mut reader = ResponseReader::new(&mut head, most);
        decode(&mut self.decoder, block, |name, value| reader.field(name, value))?;
        let outcome = match reader.finish(end_stream, stream.to_head) {
            Ok(()) if stream.heads.len() >= MAX_HEADS => Err(UpstreamReject::InterimFlood),
            other => other,
        };
        stream.traffic.received =
            stream.traffic.received.saturating_add(u64::try_from(block.len()).unwrap_or(u64::MAX));
        if let Err(reason) = outcome {
            stream.fault = Some(reason);
            return Err(FrameError::stream(id, ErrorCode::PROTOCOL_ERROR, "a broken response head"));
        }
        if !head.is_interim() {
            stream.received_head = true;
            if let BodyLength::Known(length) = head.body {
                stream.expected = Some(length);
            }
        }
        stream.received_end = end_stream;
        stream.heads.push_back(head);
        stream.wake();
        Ok(Happening::Nothing)
    }

    /// A second header block: the trailers.
    fn trailers(&mut self, key: Key, block: &[u8], end_stream: bool) -> Result<Happening, FrameError> {
        let mut reader = TrailerReader::default();
        decode(&mut self.decoder, block, |name, value| reader.field(name, value))?;
        let Some(stream) = self.streams.get_mut(key.0) else { return Ok(Happening::Nothing) };
        let fault = |code, what| Err(FrameError::stream(stream.id, code, what));
        match stream.reset {
            Some(Reset::Peer(_)) => return fault(ErrorCode::STREAM_CLOSED, "HEADERS after RST_STREAM"),
            Some(_) => return Ok(Happening::Nothing),
            None => {}
        }
        if stream.received_end {
            return fault(ErrorCode::STREAM_CLOSED, "HEADERS after END_STREAM");
        }
        if !end_stream {
            return fault(ErrorCode::PROTOCOL_ERROR, "trailers without END_STREAM");
        }
        if stream.expected.is_some_and(|left| left > 0) {
            return fault(ErrorCode::PROTOCOL_ERROR, "DATA and content-length differ");
        }
        let Some(fields) = reader.finish() else {
            return fault(ErrorCode::PROTOCOL_ERROR, "a broken trailer section");
        };
        stream.trailers = (!fields.is_empty()).then_some(fields);
        stream.received_end = true;
        stream.wake();
        self.reap(key);
        Ok(Happening::Nothing)
    }

    /// Decodes a block that nobody wants: the tables must stay the same on both ends.
    fn skip(&mut self, block: &[u8]) -> Result<(), FrameError> {
        decode(&mut self.decoder, block, |_, _| {})
    }

    fn window_update(&mut self, id: u32, increment: u32, now: Instant) -> Result<Happening, FrameError> {
        self.charge(Charge::WindowUpdate, now)?;
        if id == 0 {
            let beyond = |_| FrameError::connection(ErrorCode::FLOW_CONTROL_ERROR, "window beyond 2^31-1");
            self.send_window.open(increment).map_err(beyond)?;
        } else {
            let Some(key) = self.find(id) else { return self.absent(id).map(|()| Happening::Nothing) };
            let Some(stream) = self.streams.get_mut(key.0) else { return Ok(Happening::Nothing) };
            if stream.send_window.open(increment).is_err() {
                return Err(FrameError::stream(id, ErrorCode::FLOW_CONTROL_ERROR, "window beyond 2^31-1"));
            }
            self.resume(key);
        }
        // What the windows let pass is sent when all that was read is taken: windows that open bit by bit would make small frames.
        Ok(Happening::Nothing)
    }

    fn settings(&mut self, settings: Settings<'_>, now: Instant) -> Result<Happening, FrameError> {
        if self.peer.known {
            self.charge(Charge::Settings, now)?;
        }
        let first = !std::mem::replace(&mut self.peer.known, true);
        if first {
            // Whoever does not say has no limit (RFC 9113 §6.5.2).
            self.peer.max_concurrent_streams = u32::MAX;
        }
        for setting in settings.iter() {
            let (id, value) = setting?;
            match id {
                SettingId::HEADER_TABLE_SIZE => self.encoder.set_max_table_size(value),
                SettingId::MAX_CONCURRENT_STREAMS => self.peer.max_concurrent_streams = value,
                SettingId::MAX_FRAME_SIZE => self.peer.max_frame_size = value,
                SettingId::ENABLE_CONNECT_PROTOCOL => self.peer.extended_connect = value == 1,
                SettingId::ENABLE_PUSH if value == 1 && self.role == Role::Client => {
                    return Err(FrameError::connection(
                        ErrorCode::PROTOCOL_ERROR,
                        "a server that enables push",
                    ));
                }
                SettingId::INITIAL_WINDOW_SIZE => self.initial_window(value)?,
                _ => {}
            }
        }
        frame::write::settings_ack(&mut self.out);
        if first {
            for (_, stream) in &mut self.streams {
                stream.wake();
            }
        }
        Ok(Happening::Nothing)
    }

    /// The windows of all streams change by the difference (RFC 9113 §6.9.2).
    fn initial_window(&mut self, value: u32) -> Result<(), FrameError> {
        let before = std::mem::replace(&mut self.peer.initial_window, value);
        let mut opened = Vec::new();
        for (key, stream) in &mut self.streams {
            stream.send_window.initial_changed(before, value).map_err(|_| {
                FrameError::connection(ErrorCode::FLOW_CONTROL_ERROR, "a window beyond 2^31-1")
            })?;
            if stream.unsent() > 0 {
                opened.push(key);
            }
        }
        for key in opened {
            self.resume(Key(key));
        }
        Ok(())
    }

    fn ping_received(&mut self, data: [u8; 8], ack: bool, now: Instant) -> Result<Happening, FrameError> {
        if ack {
            self.ping_answered |= data == GOAWAY_PING;
        } else {
            self.charge(Charge::Ping, now)?;
            frame::write::ping_ack(&mut self.out, data);
        }
        Ok(Happening::Nothing)
    }

    fn rst_stream(&mut self, id: u32, code: ErrorCode, now: Instant) -> Result<Happening, FrameError> {
        if self.role == Role::Server {
            self.charge(Charge::PeerReset, now)?;
        }
        let Some(key) = self.find(id) else { return self.absent(id).map(|()| Happening::Nothing) };
        let Some(stream) = self.streams.get_mut(key.0) else { return Ok(Happening::Nothing) };
        // A response that is complete stays so when the rest of the request is not wanted (RFC 9113 §8.1).
        let complete = self.role == Role::Client && stream.received_end && code == ErrorCode::NO_ERROR;
        if complete {
            stream.sent_end = true;
            stream.last = Last::Done;
            stream.pending.clear();
            stream.pending_at = 0;
        } else if stream.reset.is_none() {
            stream.reset = Some(if code == ErrorCode::REFUSED_STREAM && self.role == Role::Client {
                Reset::Unprocessed { goaway: false }
            } else {
                Reset::Peer(code)
            });
        }
        stream.wake();
        self.reap(key);
        Ok(Happening::Nothing)
    }

    fn goaway_received(&mut self, last: u32) -> Result<Happening, FrameError> {
        self.goaway_received = Some(last);
        if self.role == Role::Client {
            for (_, stream) in &mut self.streams {
                if stream.id > last && stream.reset.is_none() {
                    stream.reset = Some(Reset::Unprocessed { goaway: true });
                    stream.wake();
                }
            }
        }
        debug_assert!(last <= MAX_STREAM_ID);
        Ok(Happening::Nothing)
    }
}

fn decode(
    decoder: &mut crate::h2::hpack::Decoder,
    block: &[u8],
    mut each: impl FnMut(&[u8], &[u8]),
) -> Result<(), FrameError> {
    decoder
        .decode(block, &mut |name, value, _| each(name, value))
        .map_err(|_| FrameError::connection(ErrorCode::COMPRESSION_ERROR, "a broken header block"))
}
