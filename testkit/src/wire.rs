//! A strict reader of HTTP/1.1 messages from a socket.
//!
//! It refuses whatever a sender should not send: bare LF, two framings, a length that is not plain digits, a chunk size with
//! decoration. Both the client and the backends read through it, so a gateway that emits something ambiguous fails the test even
//! when the test did not look for it.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const BUFFER: usize = 128 * 1024;
const LINE_LIMIT: usize = 2 * 1024 * 1024;
const TAP_LIMIT: usize = 512 * 1024;

/// Why a message could not be read.
#[derive(Debug)]
pub enum Fault {
    /// The peer ended the connection between two messages.
    Closed,
    /// The peer ended the connection inside a message.
    Truncated(String),
    /// The peer reset the connection.
    Reset,
    /// Nothing came within the socket's timeout.
    TimedOut,
    /// What came is not what the protocol allows.
    Malformed(String),
    /// Anything else that the system says.
    Io(io::Error),
}

impl Fault {
    /// Whether the peer is gone, in whatever manner.
    pub fn is_gone(&self) -> bool {
        matches!(self, Fault::Closed | Fault::Truncated(_) | Fault::Reset)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Closed => write!(f, "closed by the peer"),
            Fault::Truncated(at) => write!(f, "ended inside {at}"),
            Fault::Reset => write!(f, "reset by the peer"),
            Fault::TimedOut => write!(f, "timed out"),
            Fault::Malformed(why) => write!(f, "malformed: {why}"),
            Fault::Io(e) => write!(f, "{e}"),
        }
    }
}

impl std::error::Error for Fault {}

impl From<io::Error> for Fault {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Fault::TimedOut,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Fault::Reset,
            _ => Fault::Io(e),
        }
    }
}

fn malformed<T>(why: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Malformed(why.into()))
}

/// Header or trailer fields in the order in which they came, names as sent.
#[derive(Clone, Default)]
pub struct Headers(pub Vec<(String, Vec<u8>)>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(n, v)| (n, String::from_utf8_lossy(v)))).finish()
    }
}

impl Headers {
    /// The first value under `name`, as text.
    pub fn get(&self, name: &str) -> Option<String> {
        self.bytes(name).map(|v| String::from_utf8_lossy(v).into_owned())
    }

    /// The first value under `name`, byte for byte.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_slice())
    }

    /// Every value under `name`, as text.
    pub fn all(&self, name: &str) -> Vec<String> {
        let values = self.0.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        values.map(|(_, v)| String::from_utf8_lossy(v).into_owned()).collect()
    }

    /// Whether a field of that name came.
    pub fn has(&self, name: &str) -> bool {
        self.bytes(name).is_some()
    }

    /// All values under `name` as one list, items trimmed.
    pub fn list(&self, name: &str) -> Vec<String> {
        let joined = self.all(name).join(",");
        joined.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
    }

    /// Whether the list under `name` holds `item`, whatever the case.
    pub fn lists(&self, name: &str, item: &str) -> bool {
        self.list(name).iter().any(|i| i.eq_ignore_ascii_case(item))
    }
}

/// How a body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// By `Content-Length`.
    Length(u64),
    /// By `Transfer-Encoding: chunked`.
    Chunked,
    /// By the end of the connection.
    Close,
}

/// A request head.
#[derive(Clone)]
pub struct RequestHead {
    /// As sent.
    pub method: String,
    /// As sent; bytes that are not UTF-8 are replaced (see `raw`).
    pub target: String,
    /// 0 or 1, of HTTP/1.x.
    pub minor: u8,
    /// In order.
    pub headers: Headers,
    /// How the body is delimited.
    pub framing: Framing,
    /// Every byte of the head.
    pub raw: Vec<u8>,
}

impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({:?})", String::from_utf8_lossy(&self.raw), self.framing)
    }
}

/// A response head.
#[derive(Clone)]
pub struct ResponseHead {
    /// 100 to 999.
    pub status: u16,
    /// Reason phrase.
    pub reason: String,
    /// 0 or 1, of HTTP/1.x.
    pub minor: u8,
    /// In order.
    pub headers: Headers,
    /// How the body is delimited.
    pub framing: Framing,
    /// Every byte of the head.
    pub raw: Vec<u8>,
}

impl fmt::Debug for ResponseHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({:?})", String::from_utf8_lossy(&self.raw), self.framing)
    }
}

/// A socket with the bytes that came and were not consumed yet.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    tap: Option<Arc<Mutex<Vec<u8>>>>,
}

impl Wire {
    /// Reads from and writes to `stream`, with a timeout of 20 s for each.
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).ok();
        stream.set_read_timeout(Some(Duration::from_secs(20))).ok();
        stream.set_write_timeout(Some(Duration::from_secs(20))).ok();
        Wire { stream, buffer: Vec::new(), start: 0, end: 0, tap: None }
    }

    /// Copies the first half MiB that arrives into `tap`.
    pub fn set_tap(&mut self, tap: Arc<Mutex<Vec<u8>>>) {
        self.tap = Some(tap);
    }

    /// The socket below.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sets how long a read may wait.
    pub fn set_timeout(&self, timeout: Duration) {
        self.stream.set_read_timeout(Some(timeout)).unwrap();
    }

    /// Bytes that arrived and were not consumed.
    pub fn pending(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// The last `count` bytes that were consumed.
    pub(crate) fn recent(&self, count: usize) -> &[u8] {
        &self.buffer[self.start - count..self.start]
    }

    /// Forgets `count` of the pending bytes.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.end - self.start);
        self.start += count;
    }

    /// Waits for more bytes. 0 is the end of the stream.
    pub fn fill(&mut self) -> Result<usize, Fault> {
        if self.buffer.is_empty() {
            self.buffer = vec![0; BUFFER];
        }
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        } else if self.end == self.buffer.len() {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            } else {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
        }
        let count = loop {
            match self.stream.read(&mut self.buffer[self.end..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if let Some(tap) = &self.tap {
            let mut tap = tap.lock().unwrap();
            let room = TAP_LIMIT.saturating_sub(tap.len()).min(count);
            tap.extend_from_slice(&self.buffer[self.end..self.end + room]);
        }
        self.end += count;
        Ok(count)
    }

    /// Sends every byte.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.stream.write_all(bytes).map_err(Fault::from)
    }

    /// Reads exactly `count` bytes, outside any message.
    pub fn exactly(&mut self, count: usize) -> Result<Vec<u8>, Fault> {
        while self.end - self.start < count {
            if self.fill()? == 0 {
                return Err(Fault::Truncated(format!("{} of {count} bytes", self.end - self.start)));
            }
        }
        let bytes = self.buffer[self.start..self.start + count].to_vec();
        self.start += count;
        Ok(bytes)
    }

    /// Reads until the peer ends the stream, outside any message.
    pub fn to_end(&mut self) -> Result<Vec<u8>, Fault> {
        while self.fill()? > 0 {}
        let bytes = self.pending().to_vec();
        self.start = self.end;
        Ok(bytes)
    }

    /// One line without its CRLF. A bare LF or CR is an error.
    fn line(&mut self, what: &str) -> Result<Vec<u8>, Fault> {
        let mut searched = 0;
        loop {
            let pending = self.pending();
            if let Some(at) = pending[searched..].iter().position(|&b| b == b'\n').map(|at| at + searched) {
                let line = pending[..at].to_vec();
                self.start += at + 1;
                return match line.split_last() {
                    Some((b'\r', rest)) if !rest.contains(&b'\r') => Ok(rest.to_vec()),
                    Some((b'\r', _)) => malformed(format!("a bare CR in {what}")),
                    _ => malformed(format!("a bare LF ends {what}: {:?}", String::from_utf8_lossy(&line))),
                };
            }
            searched = pending.len();
            if searched > LINE_LIMIT {
                return malformed(format!("{what} has no end"));
            }
            let nothing = searched == 0;
            if self.fill()? == 0 {
                return Err(if nothing { Fault::Closed } else { Fault::Truncated(what.to_owned()) });
            }
        }
    }

    /// Start line, fields and raw bytes of a head.
    fn head(&mut self, what: &str) -> Result<(Vec<u8>, Headers, Vec<u8>), Fault> {
        let start_line = self.line(what)?;
        let mut raw = [&start_line[..], b"\r\n"].concat();
        let headers = self.fields(what, &mut raw)?;
        Ok((start_line, headers, raw))
    }

    fn fields(&mut self, what: &str, raw: &mut Vec<u8>) -> Result<Headers, Fault> {
        let mut fields = Vec::new();
        loop {
            let line = self.line(what).map_err(|e| match e {
                Fault::Closed => Fault::Truncated(what.to_owned()),
                other => other,
            })?;
            raw.extend_from_slice(&line);
            raw.extend_from_slice(b"\r\n");
            if line.is_empty() {
                return Ok(Headers(fields));
            }
            fields.push(field(&line)?);
        }
    }

    /// The next request head.
    pub fn request_head(&mut self) -> Result<RequestHead, Fault> {
        let (line, headers, raw) = self.head("a request head")?;
        let mut parts = line.split(|&b| b == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return malformed(format!("request line {:?}", String::from_utf8_lossy(&line)));
        };
        if method.is_empty() || !method.iter().all(|&b| is_token(b)) {
            return malformed("method");
        }
        if target.is_empty() || target.iter().any(|&b| b < 0x21 || b == 0x7f) {
            return malformed("request target");
        }
        let minor = minor(version)?;
        if minor == 1 && headers.all("host").len() != 1 {
            return malformed(format!("{} Host fields", headers.all("host").len()));
        }
        let framing = declared(&headers)?.unwrap_or(Framing::None);
        if framing == Framing::Chunked && minor == 0 {
            return malformed("chunked in HTTP/1.0");
        }
        Ok(RequestHead {
            method: String::from_utf8_lossy(method).into_owned(),
            target: String::from_utf8_lossy(target).into_owned(),
            minor,
            headers,
            framing,
            raw,
        })
    }

    /// The next response head, interim or final, to a request with `method`.
    pub fn response_head(&mut self, method: &str) -> Result<ResponseHead, Fault> {
        let (line, headers, raw) = self.head("a response head")?;
        let text = String::from_utf8_lossy(&line).into_owned();
        let Some((version, rest)) = text.split_once(' ') else {
            return malformed(format!("status line {text:?}"));
        };
        let minor = minor(version.as_bytes())?;
        let (digits, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        if digits.len() != 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return malformed(format!("status line {text:?}"));
        }
        let status: u16 = digits.parse().unwrap();
        let declared = declared(&headers)?;
        let bodyless = method == "HEAD" || status < 200 || status == 204 || status == 304;
        if (status < 200 || status == 204) && headers.has("transfer-encoding") {
            return malformed(format!("Transfer-Encoding on a {status}"));
        }
        let framing = if bodyless { Framing::None } else { declared.unwrap_or(Framing::Close) };
        Ok(ResponseHead { status, reason: reason.to_owned(), minor, headers, framing, raw })
    }
}

/// A body in the middle of being read.
#[derive(Debug)]
pub struct Body {
    /// How it is delimited.
    pub framing: Framing,
    /// The trailer section, once the body has ended.
    pub trailers: Headers,
    /// Whether a chunk carried an extension.
    pub extensions: bool,
    /// Bytes of content so far.
    pub received: u64,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Data(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    UntilClose,
    Done,
}

impl Body {
    /// A body that has not begun.
    pub fn new(framing: Framing) -> Self {
        let stage = match framing {
            Framing::None | Framing::Length(0) => Stage::Done,
            Framing::Length(len) => Stage::Data(len),
            Framing::Chunked => Stage::ChunkSize,
            Framing::Close => Stage::UntilClose,
        };
        Body { framing, trailers: Headers::default(), extensions: false, received: 0, stage }
    }

    /// Whether the whole body was read.
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// The next piece of content; `None` at the end.
    pub fn next<'w>(&mut self, wire: &'w mut Wire) -> Result<Option<&'w [u8]>, Fault> {
        loop {
            match self.stage {
                Stage::Done => return Ok(None),
                Stage::Data(left) => {
                    let take = self.available(wire, left)?;
                    let left = left - take as u64;
                    self.stage = if left == 0 { Stage::Done } else { Stage::Data(left) };
                    return Ok(Some(taken(wire, take)));
                }
                Stage::ChunkData(left) => {
                    let take = self.available(wire, left)?;
                    let left = left - take as u64;
                    self.stage = if left == 0 { Stage::ChunkEnd } else { Stage::ChunkData(left) };
                    return Ok(Some(taken(wire, take)));
                }
                Stage::ChunkSize => {
                    let line = self.framed_line(wire)?;
                    let text = String::from_utf8_lossy(&line).into_owned();
                    let (digits, extension) = match text.split_once(';') {
                        Some((digits, _)) => (digits, true),
                        None => (&text[..], false),
                    };
                    self.extensions |= extension;
                    let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
                    if digits.is_empty() || digits.len() > 16 || !plain {
                        return malformed(format!("chunk size {text:?}"));
                    }
                    let size = u64::from_str_radix(digits, 16).unwrap();
                    self.stage = if size == 0 { Stage::Trailers } else { Stage::ChunkData(size) };
                }
                Stage::ChunkEnd => {
                    let line = self.framed_line(wire)?;
                    if !line.is_empty() {
                        return malformed("a chunk is longer than its size says");
                    }
                    self.stage = Stage::ChunkSize;
                }
                Stage::Trailers => {
                    self.trailers = wire.fields("a trailer section", &mut Vec::new())?;
                    self.stage = Stage::Done;
                }
                Stage::UntilClose => {
                    if wire.pending().is_empty() && wire.fill()? == 0 {
                        self.stage = Stage::Done;
                        continue;
                    }
                    let take = wire.pending().len();
                    self.received += take as u64;
                    return Ok(Some(taken(wire, take)));
                }
            }
        }
    }

    /// How many of the `left` bytes can be taken now, waiting for at least one.
    fn available(&mut self, wire: &mut Wire, left: u64) -> Result<usize, Fault> {
        if wire.pending().is_empty() && wire.fill()? == 0 {
            return Err(Fault::Truncated(format!("a body, after {} bytes", self.received)));
        }
        let take = left.min(wire.pending().len() as u64) as usize;
        self.received += take as u64;
        Ok(take)
    }

    fn framed_line(&self, wire: &mut Wire) -> Result<Vec<u8>, Fault> {
        wire.line("a chunk size").map_err(|e| match e {
            Fault::Closed => Fault::Truncated(format!("a chunked body, after {} bytes", self.received)),
            other => other,
        })
    }

    /// Reads to the end, handing each piece to `sink`.
    pub fn drain(&mut self, wire: &mut Wire, mut sink: impl FnMut(&[u8])) -> Result<(), Fault> {
        while let Some(piece) = self.next(wire)? {
            sink(piece);
        }
        Ok(())
    }
}

fn taken(wire: &mut Wire, count: usize) -> &[u8] {
    let at = wire.start;
    wire.start += count;
    &wire.buffer[at..at + count]
}

fn minor(version: &[u8]) -> Result<u8, Fault> {
    match version {
        b"HTTP/1.0" => Ok(0),
        b"HTTP/1.1" => Ok(1),
        other => malformed(format!("version {:?}", String::from_utf8_lossy(other))),
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn field(line: &[u8]) -> Result<(String, Vec<u8>), Fault> {
    let shown = || String::from_utf8_lossy(line).into_owned();
    let Some(colon) = line.iter().position(|&b| b == b':') else {
        return malformed(format!("field without a colon: {:?}", shown()));
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|&b| is_token(b)) {
        return malformed(format!("field name: {:?}", shown()));
    }
    if value.iter().any(|&b| (b < 0x20 && b != b'\t') || b == 0x7f) {
        return malformed(format!("control byte in a field: {:?}", shown()));
    }
    let value = value.trim_ascii();
    Ok((String::from_utf8_lossy(name).into_owned(), value.to_vec()))
}

/// The framing that the fields declare; an error when they declare more than one or an odd one.
fn declared(headers: &Headers) -> Result<Option<Framing>, Fault> {
    let lengths = headers.all("content-length");
    let codings = headers.all("transfer-encoding");
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(None),
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Ok(Some(Framing::Chunked)),
        ([length], []) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
            let length = length.parse().map_err(|_| Fault::Malformed("Content-Length too large".into()))?;
            Ok(Some(Framing::Length(length)))
        }
        _ => malformed(format!("Content-Length {lengths:?} with Transfer-Encoding {codings:?}")),
    }
}
