//! A strict reader of HTTP/1.1 messages from a socket.
//!
//! It refuses whatever a sender should not send: bare LF, two framings, a length that is not plain digits, a chunk size with
//! decoration. Both the client and the backends read through it, so a gateway that emits something ambiguous fails the test even
//! when the test did not look for it.

mod body;
mod fault;
mod head;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use body::Body;
pub use fault::Fault;
pub use head::{Framing, Headers, RequestHead, ResponseHead};

use fault::malformed;
use head::{declared, field, is_token, minor};

const BUFFER: usize = 128 * 1024;
const LINE_LIMIT: usize = 2 * 1024 * 1024;
const TAP_LIMIT: usize = 512 * 1024;

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
