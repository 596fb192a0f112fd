//! Bytes as they come from the socket into frames.
//!
//! A frame that lies whole in what was read is handed out as a slice of it. Of any other frame the part that is there is kept, and
//! nothing more is reserved than came. DATA is never kept: each part is handed on as it comes. What a frame may be is decided by its
//! header alone wherever that is possible, so that a frame that will be refused is refused before its payload is read.

use lb_core::ledger::Charge;

use super::code::{ErrorCode, FrameError, Scope};
use super::header::{ACK, END_HEADERS, END_STREAM, FrameHeader, FrameType, PADDED, PRIORITY, STREAM_MASK};
use super::payload::{Priority, Settings};
use super::{DEFAULT_MAX_FRAME_SIZE, HEADER_LENGTH};

/// How large one block of fields may be on the wire (attack H2-03).
#[derive(Clone, Copy, Debug)]
pub struct BlockLimits {
    /// Bytes of all its fragments, with their padding.
    pub bytes: usize,
    /// Frames: the HEADERS, and its CONTINUATIONs.
    pub frames: u32,
}

/// What was read: a frame, or a part of a DATA frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A part of a DATA frame, without padding.
    Data {
        /// The stream.
        stream: u32,
        /// The part.
        bytes: &'a [u8],
        /// What the part costs of the flow-control windows: its bytes, and the padding that was read with it.
        flow_len: u32,
        /// Bytes in the whole frame, without padding.
        frame_bytes: u32,
        /// Whether the frame ends here.
        end_of_frame: bool,
        /// Whether the stream ends here; only together with the end of the frame.
        end_stream: bool,
    },
    /// A whole block of fields.
    Headers {
        /// The stream.
        stream: u32,
        /// Whether the stream ends with it.
        end_stream: bool,
        /// The fragments, joined.
        block: &'a [u8],
        /// In how many frames it came.
        frames: u32,
        /// An error of the stream. The block has to be decoded all the same, for the sake of the blocks that follow.
        fault: Option<FrameError>,
    },
    /// PRIORITY.
    Priority {
        /// The stream.
        stream: u32,
        /// The fields.
        priority: Priority,
    },
    /// RST_STREAM.
    RstStream {
        /// The stream.
        stream: u32,
        /// Why.
        code: ErrorCode,
    },
    /// SETTINGS.
    Settings(Settings<'a>),
    /// SETTINGS with ACK.
    SettingsAck,
    /// PING.
    Ping {
        /// Whether it answers ours.
        ack: bool,
        /// What to send back.
        data: [u8; 8],
    },
    /// GOAWAY.
    GoAway {
        /// The last stream that the peer may have processed.
        last_stream: u32,
        /// Why.
        code: ErrorCode,
        /// Text for a log; any bytes at all.
        debug: &'a [u8],
    },
    /// WINDOW_UPDATE.
    WindowUpdate {
        /// The stream, or 0 for the connection.
        stream: u32,
        /// From 1 to 2^31-1.
        increment: u32,
    },
    /// PRIORITY_UPDATE (RFC 9218 §7.1).
    PriorityUpdate {
        /// The stream whose priority it is.
        stream: u32,
        /// The Priority Field Value; any bytes at all.
        value: &'a [u8],
    },
    /// A type that we do not know. Its payload is dropped.
    Unknown {
        /// The type.
        kind: FrameType,
        /// Bytes of payload.
        length: u32,
    },
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

#[derive(Clone, Copy, Debug)]
struct Data {
    stream: u32,
    end_stream: bool,
    /// The Pad Length field is still to come.
    pad_length_due: bool,
    frame_bytes: usize,
    /// Bytes of data and of padding still to come.
    left: usize,
    padding: usize,
    /// Flow-controlled bytes that no piece has accounted for yet.
    unaccounted: usize,
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
        if let Err(error) = self.check(header) {
            self.state = State::Skip(header.length as usize);
            return Err(error);
        }
        let length = header.length as usize;
        self.state = match header.kind {
            FrameType::DATA => State::Data(Data {
                stream: header.stream,
                end_stream: header.has(END_STREAM),
                pad_length_due: header.has(PADDED),
                frame_bytes: length,
                left: length,
                padding: 0,
                unaccounted: 0,
            }),
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

    fn check(&self, header: FrameHeader) -> Result<(), FrameError> {
        let FrameHeader { length, kind, stream, .. } = header;
        if length > DEFAULT_MAX_FRAME_SIZE {
            return Err(size("a frame beyond SETTINGS_MAX_FRAME_SIZE"));
        }
        match self.open {
            Some(open) if kind != FrameType::CONTINUATION || stream != open.stream => {
                return Err(protocol("another frame inside a block of fields"));
            }
            None if kind == FrameType::CONTINUATION => {
                return Err(protocol("CONTINUATION without HEADERS"));
            }
            _ => {}
        }
        let on_stream = match kind {
            FrameType::DATA
            | FrameType::HEADERS
            | FrameType::PRIORITY
            | FrameType::RST_STREAM
            | FrameType::CONTINUATION => Some(true),
            FrameType::SETTINGS | FrameType::PING | FrameType::GOAWAY | FrameType::PRIORITY_UPDATE => {
                Some(false)
            }
            FrameType::PUSH_PROMISE => return Err(protocol("PUSH_PROMISE, which we never allow")),
            _ => None,
        };
        if on_stream.is_some_and(|on_stream| on_stream != (stream != 0)) {
            return Err(protocol("a frame on a stream where its type cannot be"));
        }
        let padding = u32::from(header.has(PADDED));
        let fits = match kind {
            FrameType::DATA => length >= padding,
            FrameType::HEADERS => length >= padding + if header.has(PRIORITY) { 5 } else { 0 },
            FrameType::PRIORITY if length != 5 => {
                let what = "PRIORITY of a wrong length";
                return Err(FrameError::stream(stream, ErrorCode::FRAME_SIZE_ERROR, what));
            }
            FrameType::SETTINGS if header.has(ACK) => length == 0,
            FrameType::SETTINGS => length % 6 == 0,
            FrameType::RST_STREAM | FrameType::WINDOW_UPDATE => length == 4,
            FrameType::PING => length == 8,
            FrameType::GOAWAY => length >= 8,
            FrameType::PRIORITY_UPDATE => length >= 4,
            _ => true,
        };
        if !fits {
            return Err(size("a frame of a length that its type cannot have"));
        }
        if is_fields(kind) {
            let (bytes, frames) = self.open.map_or((0, 0), |open| (open.wire_bytes, open.frames));
            if bytes + length as usize > self.limits.bytes || frames >= self.limits.frames {
                let what = Charge::HeaderOverflow.budget().name;
                return Err(FrameError::connection(ErrorCode::ENHANCE_YOUR_CALM, what));
            }
        }
        Ok(())
    }
}

impl Data {
    fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, FrameError> {
        if self.pad_length_due {
            let [padding] = *take(input, 1) else { return Ok(None) };
            let padding = usize::from(padding);
            // The length counts the Pad Length field, too.
            let data = (self.left - 1).checked_sub(padding).ok_or(BAD_PADDING)?;
            (self.frame_bytes, self.left, self.padding) = (data, data, padding);
            self.unaccounted = 1;
            self.pad_length_due = false;
        }
        let bytes = take(input, self.left);
        self.left -= bytes.len();
        let padding = if self.left == 0 { take(input, self.padding).len() } else { 0 };
        self.padding -= padding;
        self.unaccounted += bytes.len() + padding;
        let end_of_frame = self.left == 0 && self.padding == 0;
        if bytes.is_empty() && !end_of_frame {
            return Ok(None);
        }
        let flow_len = self.unaccounted as u32;
        self.unaccounted = 0;
        Ok(Some(Piece::Data {
            stream: self.stream,
            bytes,
            flow_len,
            frame_bytes: self.frame_bytes as u32,
            end_of_frame,
            end_stream: end_of_frame && self.end_stream,
        }))
    }
}

#[inline]
fn is_fields(kind: FrameType) -> bool {
    matches!(kind, FrameType::HEADERS | FrameType::CONTINUATION)
}

/// The fragment of a HEADERS or CONTINUATION frame, without padding and priority.
fn fragment(header: FrameHeader, payload: &[u8]) -> Result<(&[u8], Option<FrameError>), FrameError> {
    let mut rest = payload;
    if header.kind == FrameType::CONTINUATION {
        return Ok((rest, None));
    }
    let padding = if header.has(PADDED) { take(&mut rest, 1).first().copied().unwrap_or(0) } else { 0 };
    let mut fault = None;
    if header.has(PRIORITY)
        && let Some((priority, behind)) = rest.split_first_chunk::<5>()
    {
        rest = behind;
        if Priority::parse(*priority).depends_on == header.stream {
            fault = Some(depends_on_itself(header.stream));
        }
    }
    let length = rest.len().checked_sub(usize::from(padding)).ok_or(BAD_PADDING)?;
    Ok((take(&mut rest, length), fault))
}

/// A frame that is not DATA, and not part of a block of fields. Its length has been checked.
fn simple(header: FrameHeader, payload: &[u8]) -> Result<Piece<'_>, FrameError> {
    let stream = header.stream;
    let mut rest = payload;
    Ok(match header.kind {
        FrameType::PRIORITY => {
            let priority = Priority::parse(array(&mut rest)?);
            if priority.depends_on == stream {
                return Err(depends_on_itself(stream));
            }
            Piece::Priority { stream, priority }
        }
        FrameType::RST_STREAM => {
            Piece::RstStream { stream, code: ErrorCode(u32::from_be_bytes(array(&mut rest)?)) }
        }
        FrameType::SETTINGS if header.has(ACK) => Piece::SettingsAck,
        FrameType::SETTINGS => Piece::Settings(Settings::parse(payload)?),
        FrameType::PING => Piece::Ping { ack: header.has(ACK), data: array(&mut rest)? },
        FrameType::GOAWAY => Piece::GoAway {
            last_stream: u32::from_be_bytes(array(&mut rest)?) & STREAM_MASK,
            code: ErrorCode(u32::from_be_bytes(array(&mut rest)?)),
            debug: rest,
        },
        FrameType::WINDOW_UPDATE => {
            let increment = u32::from_be_bytes(array(&mut rest)?) & STREAM_MASK;
            if increment == 0 {
                let scope = if stream == 0 { Scope::Connection } else { Scope::Stream(stream) };
                return Err(FrameError {
                    scope,
                    code: ErrorCode::PROTOCOL_ERROR,
                    what: "WINDOW_UPDATE by 0",
                });
            }
            Piece::WindowUpdate { stream, increment }
        }
        FrameType::PRIORITY_UPDATE => {
            let stream = u32::from_be_bytes(array(&mut rest)?) & STREAM_MASK;
            if stream == 0 {
                return Err(protocol("PRIORITY_UPDATE for stream 0"));
            }
            Piece::PriorityUpdate { stream, value: rest }
        }
        kind => Piece::Unknown { kind, length: header.length },
    })
}

/// The start of `input`, at most `most` bytes, which are taken from it.
#[inline]
fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (here, behind) = input.split_at(most.min(input.len()));
    *input = behind;
    here
}

#[inline]
fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], FrameError> {
    let (array, behind) = rest.split_first_chunk().ok_or(size("a frame that is too short"))?;
    *rest = behind;
    Ok(*array)
}

const BAD_PADDING: FrameError = protocol("padding longer than its frame");

const fn depends_on_itself(stream: u32) -> FrameError {
    FrameError::stream(stream, ErrorCode::PROTOCOL_ERROR, "a stream that depends on itself")
}

const fn protocol(what: &'static str) -> FrameError {
    FrameError::connection(ErrorCode::PROTOCOL_ERROR, what)
}

const fn size(what: &'static str) -> FrameError {
    FrameError::connection(ErrorCode::FRAME_SIZE_ERROR, what)
}

#[cfg(test)]
mod tests;
