//! One request stream, read frame by frame (RFC 9114 §4.1): a head, content, trailers.

use super::{
    CANCEL_PUSH, DATA, GOAWAY, HEADERS, MAX_PUSH_ID, PRIORITY_UPDATE_PUSH, PRIORITY_UPDATE_REQUEST,
    PUSH_PROMISE, SETTINGS, Side, is_of_http2, unexpected,
};
use crate::h3::code::{H3Code, H3Error};
use crate::h3::varint;

/// A part of a message, as it stands on its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessagePiece<'a> {
    /// The field section of a head, interim or final.
    Head(&'a [u8]),
    /// Content.
    Data {
        /// The bytes, as they came. Empty only where the frame is.
        bytes: &'a [u8],
        /// With the last part of a DATA frame, the length of the whole frame; `u32::MAX` stands for all greater ones.
        frame: Option<u32>,
    },
    /// The field section of the trailers.
    Trailers(&'a [u8]),
    /// A field section that is longer than the limit, and is skipped.
    Oversized {
        /// Whether it is one of trailers.
        trailers: bool,
    },
    /// A frame of an unknown or reserved type, which is skipped.
    Unknown {
        /// Bytes of its payload.
        bytes: u64,
    },
}

/// Reads one request stream: a request on the side of a server, responses on that of a client.
///
/// Bytes may arrive in any pieces. Content is handed out where it stands. A field section is too, unless it arrives in pieces: then they
/// are collected, up to the limit. Between two frames the reader holds no memory beside its own few bytes.
#[derive(Debug)]
pub struct MessageReader {
    /// Bytes of the payload that are missing; or the number that is read before a payload, as far as it has arrived.
    left: u64,
    /// Bytes of content that are still announced, or [`UNKNOWN`].
    content: u64,
    /// A field section of which pieces have arrived.
    section: Vec<u8>,
    max_section: u32,
    /// The length of the frame that is read, for [`MessagePiece::Data`].
    frame: u32,
    /// Bytes of the number in `left` that are missing.
    missing: u8,
    side: Side,
    stage: Stage,
    phase: Phase,
    kind: Kind,
}

/// No content length is known.
const UNKNOWN: u64 = u64::MAX;

/// Which part of a frame comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Type,
    Length,
    Payload,
}

/// What is made of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Head,
    Data,
    Trailers,
    Skipped,
}

/// Where the message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A head comes next.
    Head,
    /// The head has been handed out.
    Content,
    /// The trailers have.
    End,
    /// Nothing but DATA may follow (RFC 9114 §4.4).
    Tunnel,
}

impl MessageReader {
    /// A reader of a request, of which a field section may have `max_section` bytes as encoded.
    pub fn requests(max_section: u32) -> Self {
        Self::new(Side::Server, max_section)
    }

    /// A reader of the responses to a request, of which a field section may have `max_section` bytes as encoded.
    pub fn responses(max_section: u32) -> Self {
        Self::new(Side::Client, max_section)
    }

    fn new(side: Side, max_section: u32) -> Self {
        Self {
            left: 0,
            content: UNKNOWN,
            section: Vec::new(),
            max_section,
            frame: 0,
            missing: 0,
            side,
            stage: Stage::Type,
            phase: Phase::Head,
            kind: Kind::Skipped,
        }
    }

    /// The head that was handed out last is of an interim response: another head follows.
    pub fn expect_head(&mut self) {
        self.phase = Phase::Head;
    }

    /// The content has so many bytes, as the head says. More or fewer of them are an error of the stream.
    pub fn expect_content(&mut self, length: Option<u64>) {
        self.content = length.unwrap_or(UNKNOWN);
    }

    /// The stream is a tunnel: nothing but DATA may follow.
    pub fn expect_tunnel(&mut self) {
        self.phase = Phase::Tunnel;
        self.content = UNKNOWN;
    }

    /// The next part of the message; `None` when `input` is used up. What is taken leaves the front of `input`.
    ///
    /// # Errors
    /// When a rule is broken. The reader is of no use then, even if the error is one of the stream alone.
    pub fn next<'a, 'input: 'a>(
        &'a mut self,
        input: &mut &'input [u8],
    ) -> Result<Option<MessagePiece<'a>>, H3Error> {
        if self.stage == Stage::Type && self.section.capacity() > 0 {
            // A field section that was handed out is done with.
            self.section = Vec::new();
        }
        loop {
            match self.stage {
                Stage::Type => {
                    let Some(kind) = self.number(input) else { return Ok(None) };
                    self.kind = self.kind_of(kind)?;
                    self.stage = Stage::Length;
                }
                Stage::Length => {
                    let Some(length) = self.number(input) else { return Ok(None) };
                    self.stage = Stage::Payload;
                    self.left = length;
                    if let Some(piece) = self.begin(length)? {
                        return Ok(Some(piece));
                    }
                }
                Stage::Payload => return self.payload(input),
            }
        }
    }

    #[inline]
    fn number(&mut self, input: &mut &[u8]) -> Option<u64> {
        varint::read(&mut self.left, &mut self.missing, input)
    }

    /// What a frame of this type is here.
    fn kind_of(&self, kind: u64) -> Result<Kind, H3Error> {
        match (kind, self.phase) {
            (DATA, Phase::Content | Phase::Tunnel) => Ok(Kind::Data),
            (DATA, Phase::Head) => Err(unexpected("DATA before HEADERS")),
            (DATA, Phase::End) => Err(unexpected("DATA after trailers")),
            (HEADERS, Phase::Head) => Ok(Kind::Head),
            (HEADERS, Phase::Content) => Ok(Kind::Trailers),
            (HEADERS, Phase::End) => Err(unexpected("HEADERS after trailers")),
            (HEADERS, Phase::Tunnel) => Err(unexpected("HEADERS in a tunnel")),
            (PUSH_PROMISE, _) if self.side == Side::Client => {
                // RFC 9114 §7.2.5: no push was allowed, so that any identifier is beyond what is.
                Err(H3Error::connection(H3Code::ID_ERROR, "PUSH_PROMISE though push is not allowed"))
            }
            (
                PUSH_PROMISE
                | CANCEL_PUSH
                | SETTINGS
                | GOAWAY
                | MAX_PUSH_ID
                | PRIORITY_UPDATE_REQUEST
                | PRIORITY_UPDATE_PUSH,
                _,
            ) => Err(unexpected("a frame that a request stream has not")),
            (kind, _) if is_of_http2(kind) => Err(unexpected("a frame of HTTP/2")),
            _ => Ok(Kind::Skipped),
        }
    }

    /// A frame of `self.kind` begins; its payload has `length` bytes.
    fn begin(&mut self, length: u64) -> Result<Option<MessagePiece<'static>>, H3Error> {
        let trailers = self.kind == Kind::Trailers;
        match self.kind {
            Kind::Data => {
                if self.content != UNKNOWN {
                    let left = self.content.checked_sub(length);
                    self.content = left.ok_or(DIFFERS)?;
                }
                self.frame = u32::try_from(length).unwrap_or(u32::MAX);
                if length == 0 {
                    self.stage = Stage::Type;
                    return Ok(Some(MessagePiece::Data { bytes: &[], frame: Some(0) }));
                }
            }
            Kind::Head | Kind::Trailers => {
                if trailers && self.content != UNKNOWN && self.content > 0 {
                    return Err(DIFFERS);
                }
                self.phase = if trailers { Phase::End } else { Phase::Content };
                if length > u64::from(self.max_section) {
                    self.kind = Kind::Skipped;
                    return Ok(Some(MessagePiece::Oversized { trailers }));
                }
            }
            Kind::Skipped => {
                if length == 0 {
                    self.stage = Stage::Type;
                }
                return Ok(Some(MessagePiece::Unknown { bytes: length }));
            }
        }
        Ok(None)
    }

    fn payload<'a, 'input: 'a>(
        &'a mut self,
        input: &mut &'input [u8],
    ) -> Result<Option<MessagePiece<'a>>, H3Error> {
        let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
        let (bytes, rest) = input.split_at(take);
        *input = rest;
        self.left -= take as u64;
        let is_last = self.left == 0;
        if is_last {
            self.stage = Stage::Type;
        }
        match self.kind {
            Kind::Data if take == 0 => Ok(None),
            Kind::Data => Ok(Some(MessagePiece::Data { bytes, frame: is_last.then_some(self.frame) })),
            Kind::Skipped if is_last => self.next(input),
            Kind::Skipped => Ok(None),
            Kind::Head | Kind::Trailers => {
                if !is_last {
                    self.section.extend_from_slice(bytes);
                    return Ok(None);
                }
                let section = if self.section.is_empty() {
                    bytes
                } else {
                    self.section.extend_from_slice(bytes);
                    self.section.as_slice()
                };
                Ok(Some(match self.kind {
                    Kind::Trailers => MessagePiece::Trailers(section),
                    _ => MessagePiece::Head(section),
                }))
            }
        }
    }

    /// The stream has ended, and all its bytes were read.
    ///
    /// # Errors
    /// When it ends inside a frame, before a final head, or before all content that its head announced.
    pub fn finish(&self) -> Result<(), H3Error> {
        if self.stage != Stage::Type || self.missing > 0 {
            // RFC 9114 §7.1.
            return Err(H3Error::connection(H3Code::FRAME_ERROR, "a stream that ends inside a frame"));
        }
        match (self.phase, self.side) {
            (Phase::Head, Side::Server) => {
                Err(H3Error::stream(H3Code::REQUEST_INCOMPLETE, "a request without a head"))
            }
            (Phase::Head, Side::Client) => Err(H3Error::message("no final response")),
            _ if self.content != UNKNOWN && self.content > 0 => Err(DIFFERS),
            _ => Ok(()),
        }
    }
}

/// RFC 9114 §4.1.2 (attack H2-09 in HTTP/3).
const DIFFERS: H3Error = H3Error::message("DATA and content-length differ");

#[cfg(test)]
mod tests;
