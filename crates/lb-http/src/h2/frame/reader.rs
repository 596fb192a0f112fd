//! Bytes as they come from the socket into frames.
//!
//! A frame that lies whole in what was read is handed out as a slice of it. Of any other frame the part that is there is kept, and
//! nothing more is reserved than came. DATA is never kept: each part is handed on as it comes. What a frame may be is decided by its
//! header alone wherever that is possible, so that a frame that will be refused is refused before its payload is read.

mod data;
mod rules;
mod whole;

use super::HEADER_LENGTH;
use super::code::{ErrorCode, FrameError};
use super::header::{END_HEADERS, END_STREAM, FrameHeader, FrameType};
use super::piece::Piece;
use data::Data;
use whole::{fragment, simple};

/// How large one block of fields may be on the wire (attack H2-03).
#[derive(Clone, Copy, Debug)]
pub struct BlockLimits {
    /// Bytes of all its fragments, with their padding.
    pub bytes: usize,
    /// Frames: the HEADERS, and its CONTINUATIONs.
    pub frames: u32,
}

/// Finds frames in a stream of bytes, after the preface.
#[derive(Debug)]
pub struct FrameReader {
    limits: BlockLimits,
    state: State,
    /// The start of a header that was cut, and its length.
    header: [u8; HEADER_LENGTH],
    header_length: usize,
    /// The start of a payload that was cut.
    held: Vec<u8>,
    /// Fragments of a block that takes several frames.
    block: Vec<u8>,
    open: Option<OpenBlock>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Header,
    Payload(FrameHeader),
    Data(Data),
    Skip(usize),
}

/// How far reading has come.
enum Advance<'i> {
    Starved,
    Piece(Piece<'i>),
    /// A payload is complete, and is held unless it is given.
    Whole(FrameHeader, Option<&'i [u8]>),
}

/// A block whose END_HEADERS is still to come.
#[derive(Clone, Copy, Debug)]
struct OpenBlock {
    stream: u32,
    end_stream: bool,
    wire_bytes: usize,
    frames: u32,
    fault: Option<FrameError>,
}

impl FrameReader {
    /// A reader before the first frame.
    pub fn new(limits: BlockLimits) -> Self {
        Self {
            limits,
            state: State::Header,
            header: [0; HEADER_LENGTH],
            header_length: 0,
            held: Vec::new(),
            block: Vec::new(),
            open: None,
        }
    }

    /// The next piece, taken from the start of `input`; `None` when all of it is used up.
    ///
    /// # Errors
    /// After an error of a stream the frame is passed over, and reading goes on. After an error of the connection it must not.
    #[inline]
    pub fn next<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<Piece<'a>>, FrameError> {
        let (header, payload) = match self.advance(input)? {
            Advance::Starved => return Ok(None),
            Advance::Piece(piece) => return Ok(Some(piece)),
            Advance::Whole(header, payload) => (header, payload),
        };
        if !is_fields(header.kind) {
            return simple(header, payload.unwrap_or(&self.held)).map(Some);
        }
        let payload = payload.unwrap_or(&self.held);
        let (fragment, fault) = fragment(header, payload)?;
        let Some(open) = self.open.take() else {
            let (stream, end_stream) = (header.stream, header.has(END_STREAM));
            return Ok(Some(Piece::Headers { stream, end_stream, block: fragment, frames: 1, fault }));
        };
        self.block.extend_from_slice(fragment);
        Ok(Some(Piece::Headers {
            stream: open.stream,
            end_stream: open.end_stream,
            block: &self.block,
            frames: open.frames + 1,
            fault: open.fault,
        }))
    }

    /// Reads on until there is something to hand out.
    fn advance<'i>(&mut self, input: &mut &'i [u8]) -> Result<Advance<'i>, FrameError> {
        loop {
            match &mut self.state {
                State::Header => {
                    let Some(header) = self.take_header(input) else { return Ok(Advance::Starved) };
                    if let Some(unknown) = self.start(header)? {
                        return Ok(Advance::Piece(unknown));
                    }
                }
                State::Skip(left) => {
                    *left -= take(input, *left).len();
                    if *left > 0 {
                        return Ok(Advance::Starved);
                    }
                    self.state = State::Header;
                }
                State::Data(data) => {
                    let piece = data.next(input);
                    if !matches!(piece, Ok(Some(Piece::Data { end_of_frame: false, .. }) | None)) {
                        self.state = State::Header;
                    }
                    return piece.map(|piece| piece.map_or(Advance::Starved, Advance::Piece));
                }
                State::Payload(header) => {
                    let (header, length) = (*header, header.length as usize);
                    let whole = if self.held.is_empty() { input.split_at_checked(length) } else { None };
                    if let Some((_, behind)) = whole {
                        *input = behind;
                    } else {
                        self.held.extend_from_slice(take(input, length - self.held.len()));
                        if self.held.len() < length {
                            return Ok(Advance::Starved);
                        }
                    }
                    self.state = State::Header;
                    let payload = whole.map(|(payload, _)| payload);
                    if header.has(END_HEADERS) || !is_fields(header.kind) {
                        return Ok(Advance::Whole(header, payload));
                    }
                    self.join(header, payload)?;
                }
            }
        }
    }

    /// Adds a frame that does not end its block. The payload is held unless it is given.
    fn join(&mut self, header: FrameHeader, payload: Option<&[u8]>) -> Result<(), FrameError> {
        let (fragment, fault) = fragment(header, payload.unwrap_or(&self.held))?;
        if self.open.is_none() {
            self.block.clear();
        }
        let (stream, end_stream) = (header.stream, header.has(END_STREAM));
        let open = self.open.get_or_insert(OpenBlock { stream, end_stream, wire_bytes: 0, frames: 0, fault });
        open.wire_bytes += header.length as usize;
        open.frames += 1;
        self.block.extend_from_slice(fragment);
        Ok(())
    }

    /// Whether a block of fields has begun and is still to end.
    pub fn is_inside_block(&self) -> bool {
        self.open.is_some() || matches!(self.state, State::Payload(header) if is_fields(header.kind))
    }

    /// Gives back the memory of a large block that was handed out.
    #[inline]
    pub fn trim(&mut self) {
        if self.block.capacity() > KEPT_BLOCK && self.open.is_none() {
            self.block = Vec::new();
        }
    }

    /// Gives back the memory of buffers that hold nothing, for a connection that has become quiet.
    pub fn shrink(&mut self) {
        if !matches!(self.state, State::Payload(_)) {
            self.held = Vec::new();
        }
        if self.open.is_none() {
            self.block = Vec::new();
        }
    }

    #[inline]
    fn take_header(&mut self, input: &mut &[u8]) -> Option<FrameHeader> {
        if self.header_length == 0
            && let Some((header, behind)) = input.split_first_chunk::<HEADER_LENGTH>()
        {
            *input = behind;
            return Some(FrameHeader::parse(*header));
        }
        let part = take(input, HEADER_LENGTH - self.header_length);
        for (to, from) in self.header.iter_mut().skip(self.header_length).zip(part) {
            *to = *from;
        }
        self.header_length += part.len();
        if self.header_length < HEADER_LENGTH {
            return None;
        }
        self.header_length = 0;
        Some(FrameHeader::parse(self.header))
    }

    /// Decides by its header what to do with a frame.
    fn start(&mut self, header: FrameHeader) -> Result<Option<Piece<'static>>, FrameError> {
        if let Err(error) = rules::check(header, self.open, self.limits) {
            self.state = State::Skip(header.length as usize);
            return Err(error);
        }
        let length = header.length as usize;
        self.state = match header.kind {
            FrameType::DATA => State::Data(Data::new(header)),
            FrameType(0x1..=0x9) | FrameType::PRIORITY_UPDATE => {
                self.held.clear();
                State::Payload(header)
            }
            kind => {
                self.state = State::Skip(length);
                return Ok(Some(Piece::Unknown { kind, length: header.length }));
            }
        };
        Ok(None)
    }
}

#[inline]
fn is_fields(kind: FrameType) -> bool {
    matches!(kind, FrameType::HEADERS | FrameType::CONTINUATION)
}

/// The start of `input`, at most `most` bytes, which are taken from it.
#[inline]
fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (here, behind) = input.split_at(most.min(input.len()));
    *input = behind;
    here
}

/// The most memory that stays allocated for blocks of several frames.
const KEPT_BLOCK: usize = 32 * 1024;

const BAD_PADDING: FrameError = protocol("padding longer than its frame");

const fn protocol(what: &'static str) -> FrameError {
    FrameError::connection(ErrorCode::PROTOCOL_ERROR, what)
}

const fn size(what: &'static str) -> FrameError {
    FrameError::connection(ErrorCode::FRAME_SIZE_ERROR, what)
}

#[cfg(test)]
mod tests;
