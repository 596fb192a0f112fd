//! Header blocks that the peer sends: requests, responses, trailers, and what is late.

use lb_core::head::{BodyLength, ResponseHead, Version};
use lb_core::ledger::Charge;
use lb_core::reason::Reason;
use tokio::time::Instant;

use super::{Ending, Happening, Key, Mux, Received};
use crate::h2::frame::{ErrorCode, FrameError, HEADER_LENGTH};
use crate::h2::hpack::Decoder;
use crate::h2::stream::Reset;
use crate::section::request::{Refusal, RequestReader};
use crate::section::response::{ResponseReader, TrailerReader};

/// Interim responses that may wait to be taken (attack H1-15).
const MAX_HEADS: usize = 20;

impl Mux {
    pub(super) fn request_headers(
        &mut self,
        id: u32,
        block: &[u8],
        end_stream: bool,
        request: Option<Received<'_>>,
        now: Instant,
    ) -> Result<Happening, FrameError> {
        if let Some(key) = self.find(id) {
            return self.trailers(key, block, end_stream, now);
        }
        if id <= self.highest {
            self.skip(block)?;
            return match self.ending(id) {
                // Trailers were under way when we reset the stream.
                Some(Ending::ByUs) => self.charge(Charge::Unwanted, now).map(|()| Happening::Nothing),
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
        let mut reader = RequestReader::new(head, limits, Version::H2);
        decode(&mut self.decoder, block, |name, value| reader.field(name, value))?;
        let (length, reject) = match reader.finish(end_stream) {
            Ok(length) => (length, None),
            Err(Refusal::Answer(reject)) => {
                if matches!(reject.status, 414 | 431) {
                    // The answer is cheap, the block may not have been (attack H2-04).
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
            stream.began = Some(now);
            stream.received_end = end_stream;
            stream.to_head = head.is_head();
            stream.expected = length;
            stream.traffic.received = super::output::length(block.len().saturating_add(HEADER_LENGTH));
        }
        Ok(match reject {
            None => Happening::Request(key),
            Some(reject) => Happening::Refused(key, reject),
        })
    }

    pub(super) fn response_headers(
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
            return self.trailers(key, block, end_stream, now);
        }
        let mut head = ResponseHead::default();
        let most = usize::try_from(self.limits.max_header_list_size).unwrap_or(usize::MAX);
        let mut reader = ResponseReader::new(&mut head, most, Version::H2);
        decode(&mut self.decoder, block, |name, value| reader.field(name, value))?;
        let outcome = match reader.finish(end_stream, stream.to_head) {
            Ok(()) if stream.heads.len() >= MAX_HEADS => Err(Reason::InterimFlood),
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
    fn trailers(
        &mut self,
        key: Key,
        block: &[u8],
        end_stream: bool,
        now: Instant,
    ) -> Result<Happening, FrameError> {
        let mut reader = TrailerReader::default();
        decode(&mut self.decoder, block, |name, value| reader.field(name, value))?;
        let Some(stream) = self.streams.get_mut(key.0) else { return Ok(Happening::Nothing) };
        let fault = |code, what| Err(FrameError::stream(stream.id, code, what));
        match stream.reset {
            Some(Reset::Peer(_)) => return fault(ErrorCode::STREAM_CLOSED, "HEADERS after RST_STREAM"),
            Some(_) => return self.charge(Charge::Unwanted, now).map(|()| Happening::Nothing),
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

    /// Decodes a block of a stream that is gone: the tables of both ends must stay equal.
    pub(super) fn skip(&mut self, block: &[u8]) -> Result<(), FrameError> {
        decode(&mut self.decoder, block, |_, _| {})
    }
}

fn decode(decoder: &mut Decoder, block: &[u8], mut each: impl FnMut(&[u8], &[u8])) -> Result<(), FrameError> {
    decoder
        .decode(block, &mut |name, value, _| each(name, value))
        .map_err(|_| FrameError::connection(ErrorCode::COMPRESSION_ERROR, "a broken header block"))
}
