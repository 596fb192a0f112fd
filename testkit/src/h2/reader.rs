//! Frames from a socket, put together to events and checked.

use super::frame::{Frame, flag, kind};
use super::hpack::Decoder;
use crate::wire::{Fault, Headers, Wire};

/// The largest payload that a peer may send unless SETTINGS allow more.
const MAX_FRAME_SIZE: usize = 16_384;
/// The largest field block that a test peer reads.
const BLOCK_LIMIT: usize = 4 * 1024 * 1024;

/// What this end is, and so what the other end's field sections must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It reads responses.
    Client,
    /// It reads requests.
    Server,
}

/// What came.
#[derive(Debug, Clone)]
pub enum Event {
    /// A field section: a head, interim or final, or trailers.
    Headers {
        /// The stream.
        stream: u32,
        /// The fields, with the pseudo fields.
        headers: Headers,
        /// Whether the stream ends with it.
        end: bool,
        /// In how many frames it came.
        frames: usize,
    },
    /// Content.
    Data {
        /// The stream.
        stream: u32,
        /// Without padding.
        bytes: Vec<u8>,
        /// How much of the windows it took: with padding.
        flow: usize,
        /// Whether the stream ends with it.
        end: bool,
    },
    /// RST_STREAM.
    Reset {
        /// The stream.
        stream: u32,
        /// The error code.
        code: u32,
    },
    /// GOAWAY.
    GoAway {
        /// The last stream that was or might be processed.
        last: u32,
        /// The error code.
        code: u32,
        /// The additional debug data.
        debug: Vec<u8>,
    },
    /// SETTINGS.
    Settings(Vec<(u16, u32)>),
    /// Our SETTINGS were acknowledged.
    SettingsAck,
    /// PING.
    Ping([u8; 8]),
    /// An answer to our PING.
    Pong([u8; 8]),
    /// WINDOW_UPDATE.
    Window {
        /// The stream; 0 is the connection.
        stream: u32,
        /// By how much.
        increment: u32,
    },
    /// PUSH_PROMISE.
    Push {
        /// The stream that it belongs to.
        stream: u32,
        /// The stream that is promised.
        promised: u32,
        /// The promised request.
        headers: Headers,
    },
    /// PRIORITY, or a type that is not in RFC 9113.
    Other(Frame),
}

/// A field block of which CONTINUATION is still to come.
#[derive(Debug)]
struct Partial {
    stream: u32,
    promised: Option<u32>,
    end: bool,
    block: Vec<u8>,
    frames: usize,
}

/// Reads events from a connection.
#[derive(Debug)]
pub struct Reader {
    /// The socket.
    pub wire: Wire,
    /// What field blocks mean.
    pub decoder: Decoder,
    role: Role,
    partial: Option<Partial>,
}

impl Reader {
    /// Reads from a connection after its preface.
    pub fn new(wire: Wire, role: Role) -> Reader {
        Reader { wire, decoder: Decoder::default(), role, partial: None }
    }

    /// The next frame. After a timeout it may be asked again, and nothing is lost.
    pub fn frame(&mut self) -> Result<Frame, Fault> {
        let head = self.peek(9)?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if len > MAX_FRAME_SIZE {
            return Err(Fault::Malformed(format!("a frame of type {} with {len} bytes", head[3])));
        }
        let bytes = self.peek(9 + len)?;
        let stream = u32::from_be_bytes([bytes[5] & 0x7f, bytes[6], bytes[7], bytes[8]]);
        let frame = Frame { kind: bytes[3], flags: bytes[4], stream, payload: bytes[9..].to_vec() };
        self.wire.consume(9 + len);
        Ok(frame)
    }

    fn peek(&mut self, count: usize) -> Result<&[u8], Fault> {
        while self.wire.pending().len() < count {
            let had = self.wire.pending().len();
            if self.wire.fill()? == 0 {
                return Err(if had == 0 { Fault::Closed } else { Fault::Truncated("a frame".into()) });
            }
        }
        Ok(&self.wire.pending()[..count])
    }

    /// The next event.
    pub fn event(&mut self) -> Result<Event, Fault> {
        loop {
            let frame = self.frame()?;
            let (name, stream) = (frame.kind, frame.stream);
            let event = self
                .read(frame)
                .map_err(|why| Fault::Malformed(format!("frame of type {name} on stream {stream}: {why}")))?;
            if let Some(event) = event {
                return Ok(event);
            }
        }
    }

    fn read(&mut self, mut frame: Frame) -> Result<Option<Event>, String> {
        if let Some(partial) = &self.partial
            && (frame.kind != kind::CONTINUATION || frame.stream != partial.stream)
        {
            return Err(format!("inside the field block of stream {}", partial.stream));
        }
        let on_connection = matches!(frame.kind, kind::SETTINGS | kind::PING | kind::GOAWAY);
        let on_stream = matches!(
            frame.kind,
            kind::DATA
                | kind::HEADERS
                | kind::PRIORITY
                | kind::RST_STREAM
                | kind::PUSH_PROMISE
                | kind::CONTINUATION
        );
        if on_connection && frame.stream != 0 || on_stream && frame.stream == 0 {
            return Err("on the wrong stream".into());
        }
        let flow = frame.payload.len();
        if matches!(frame.kind, kind::DATA | kind::HEADERS | kind::PUSH_PROMISE) && frame.has(flag::PADDED) {
            let padding = usize::from(*frame.payload.first().ok_or("no padding length")?);
            let end = flow.checked_sub(padding).filter(|end| *end >= 1).ok_or("more padding than payload")?;
            frame.payload = frame.payload[1..end].to_vec();
        }
        let (stream, end) = (frame.stream, frame.has(flag::END_STREAM));
        let event = match frame.kind {
            kind::DATA => Event::Data { stream, bytes: frame.payload, flow, end },
            kind::HEADERS => {
                if frame.has(flag::PRIORITY) {
                    frame.payload = frame.payload.get(5..).ok_or("no priority")?.to_vec();
                }
                return self.block(stream, None, end, frame);
            }
            kind::PUSH_PROMISE => {
                let promised = word(&frame.payload, 0)? & 0x7fff_ffff;
                frame.payload.drain(..4);
                return self.block(stream, Some(promised), false, frame);
            }
            kind::CONTINUATION => {
                let mut partial = self.partial.take().ok_or("without a field block")?;
                partial.block.extend(&frame.payload);
                partial.frames += 1;
                return self.assemble(partial, frame.has(flag::END_HEADERS));
            }
            kind::RST_STREAM => Event::Reset { stream, code: exactly_a_word(&frame.payload)? },
            kind::SETTINGS if frame.has(flag::ACK) && frame.payload.is_empty() => Event::SettingsAck,
            kind::SETTINGS if !frame.has(flag::ACK) && flow.is_multiple_of(6) => {
                let pair = |p: &[u8]| {
                    (u16::from_be_bytes([p[0], p[1]]), u32::from_be_bytes([p[2], p[3], p[4], p[5]]))
                };
                Event::Settings(frame.payload.chunks(6).map(pair).collect())
            }
            kind::SETTINGS => return Err("wrong length".into()),
            kind::PING => {
                let data = frame.payload.as_slice().try_into().map_err(|_| "wrong length")?;
                if frame.has(flag::ACK) { Event::Pong(data) } else { Event::Ping(data) }
            }
            kind::GOAWAY => Event::GoAway {
                last: word(&frame.payload, 0)? & 0x7fff_ffff,
                code: word(&frame.payload, 4)?,
                debug: frame.payload[8..].to_vec(),
            },
            kind::WINDOW_UPDATE => match exactly_a_word(&frame.payload)? & 0x7fff_ffff {
                0 => return Err("an increment of 0".into()),
                increment => Event::Window { stream, increment },
            },
            _ => Event::Other(frame),
        };
        Ok(Some(event))
    }

    fn block(
        &mut self,
        stream: u32,
        promised: Option<u32>,
        end: bool,
        frame: Frame,
    ) -> Result<Option<Event>, String> {
        let done = frame.has(flag::END_HEADERS);
        self.assemble(Partial { stream, promised, end, block: frame.payload, frames: 1 }, done)
    }

    fn assemble(&mut self, partial: Partial, done: bool) -> Result<Option<Event>, String> {
        if partial.block.len() > BLOCK_LIMIT {
            return Err("a field block without end".into());
        }
        if !done {
            self.partial = Some(partial);
            return Ok(None);
        }
        let headers = self.decoder.decode(&partial.block)?;
        let Partial { stream, promised, end, frames, .. } = partial;
        match promised {
            Some(promised) => Ok(Some(Event::Push { stream, promised, headers })),
            None => {
                check(&headers, self.role)?;
                Ok(Some(Event::Headers { stream, headers, end, frames }))
            }
        }
    }
}

fn word(payload: &[u8], at: usize) -> Result<u32, String> {
    let bytes = payload.get(at..at + 4).ok_or("too short")?;
    Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn exactly_a_word(payload: &[u8]) -> Result<u32, String> {
    if payload.len() == 4 { word(payload, 0) } else { Err(format!("{} bytes", payload.len())) }
}

/// What RFC 9113 section 8.2 and 8.3 forbid in a field section. One without pseudo fields is taken for trailers.
fn check(headers: &Headers, role: Role) -> Result<(), String> {
    let mut fields_began = false;
    let mut pseudo: Vec<&str> = Vec::new();
    for (name, value) in &headers.0 {
        let shown = || format!("{name}: {:?}", String::from_utf8_lossy(value));
        if value.iter().any(|&b| (b < 0x20 && b != b'\t') || b == 0x7f)
            || value.trim_ascii() != value.as_slice()
        {
            return Err(format!("field value: {}", shown()));
        }
        if name.starts_with(':') {
            if fields_began || pseudo.contains(&name.as_str()) {
                return Err(format!("pseudo field late or twice: {}", shown()));
            }
            pseudo.push(name);
            continue;
        }
        fields_began = true;
        let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(token) {
            return Err(format!("field name: {}", shown()));
        }
        let hop = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
        if hop.contains(&name.as_str()) || name == "te" && value != b"trailers" {
            return Err(format!("connection-specific field: {}", shown()));
        }
    }
    if pseudo.is_empty() {
        return Ok(());
    }
    let (needed, allowed): (&[&str], &[&str]) = match role {
        Role::Client => (&[":status"], &[]),
        Role::Server if headers.get(":method").as_deref() == Some("CONNECT") => {
            (&[":method", ":authority"], &[":scheme", ":path", ":protocol"])
        }
        Role::Server => (&[":method", ":scheme", ":path"], &[":authority"]),
    };
    let odd = pseudo.iter().any(|name| !needed.contains(name) && !allowed.contains(name));
    if odd || needed.iter().any(|name| !pseudo.contains(name)) {
        return Err(format!("pseudo fields {pseudo:?}"));
    }
    if headers.get(":path").is_some_and(|path| path.is_empty()) {
        return Err("an empty :path".into());
    }
    Ok(())
}
