//! Reads the frames of a response from the bytes of its stream, and refuses what RFC 9114 forbids.

use super::frame::{kind, read_varint};
use super::qpack;
use super::response::{BODY_KEPT, H3Response, status_of};
use crate::wire::Headers;

/// The largest field section that is read.
const SECTION: u64 = 4 << 20;

/// Fields that speak of one connection of HTTP/1.1 (RFC 9114 section 4.2).
const FORBIDDEN: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// Where a stream stands.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Bytes that make no whole frame yet, but for those of DATA.
    buffer: Vec<u8>,
    /// Bytes of a frame that are still to come: of DATA, or of a frame that is skipped.
    left: u64,
    is_data: bool,
    received: u64,
    to_head: bool,
}

impl Reader {
    pub(super) fn new(to_head: bool) -> Reader {
        Reader { to_head, ..Reader::default() }
    }

    pub(super) fn take(&mut self, bytes: &[u8], into: &mut H3Response) -> Result<(), String> {
        self.buffer.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            if self.left > 0 {
                let count = (self.left as usize).min(self.buffer.len() - at);
                if self.is_data {
                    let piece = &self.buffer[at..at + count];
                    let room = BODY_KEPT.saturating_sub(into.body.len()).min(count);
                    into.body.extend_from_slice(&piece[..room]);
                    into.pattern.feed(piece);
                    self.received += count as u64;
                }
                at += count;
                self.left -= count as u64;
                if self.left > 0 {
                    break;
                }
            }
            let rest = &self.buffer[at..];
            let Some((frame, first)) = read_varint(rest) else { break };
            let Some((length, second)) = read_varint(&rest[first..]) else { break };
            let begin = first + second;
            match frame {
                kind::DATA => {
                    if into.head.is_none() || into.trailers.is_some() {
                        return Err("DATA outside of a body".into());
                    }
                    if self.to_head {
                        return Err("DATA in the answer to a HEAD".into());
                    }
                    (self.left, self.is_data) = (length, true);
                    at += begin;
                }
                kind::HEADERS => {
                    if length > SECTION {
                        return Err(format!("a field section of {length} bytes"));
                    }
                    let Some(section) = rest.get(begin..begin + length as usize) else { break };
                    file(qpack::decode(section)?, into)?;
                    at += begin + length as usize;
                }
                // What has no place on a request stream.
                kind::CANCEL_PUSH
                | kind::SETTINGS
                | kind::GOAWAY
                | kind::MAX_PUSH_ID
                | kind::PUSH_PROMISE
                | 0x2
                | 0x6
                | 0x8
                | 0x9 => return Err(format!("a frame of type {frame:#x}")),
                _ => {
                    (self.left, self.is_data) = (length, false);
                    at += begin;
                }
            }
        }
        self.buffer.drain(..at);
        Ok(())
    }

    /// The stream has ended.
    pub(super) fn finish(&self, into: &mut H3Response) -> Result<(), String> {
        if !self.buffer.is_empty() || self.left > 0 {
            return Err("a stream that ends inside a frame".into());
        }
        let Some(head) = &into.head else { return Err("a stream that ends without a response".into()) };
        let bodyless = self.to_head || matches!(into.status(), 204 | 304);
        if let Some(length) = head.get("content-length")
            && !bodyless
            && length.parse() != Ok(self.received)
        {
            return Err(format!("{} bytes where content-length is {length}", self.received));
        }
        into.ended = true;
        Ok(())
    }
}

fn file(fields: Headers, into: &mut H3Response) -> Result<(), String> {
    for (name, value) in &fields.0 {
        if name.chars().any(|c| c.is_ascii_uppercase()) || FORBIDDEN.contains(&name.as_str()) {
            return Err(format!("a field {name}"));
        }
        if value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
            return Err(format!("a value of {name}"));
        }
    }
    let pseudo = fields.0.iter().filter(|(name, _)| name.starts_with(':')).count();
    let status = status_of(Some(&fields));
    if into.head.is_some() {
        if into.trailers.is_some() || pseudo > 0 {
            return Err(format!("behind a body: {fields:?}"));
        }
        into.trailers = Some(fields);
        return Ok(());
    }
    if pseudo != 1 || !fields.0[0].0.starts_with(':') {
        return Err(format!("pseudo fields: {fields:?}"));
    }
    match status {
        // RFC 9114 section 4.5.
        101 => return Err("a 101".into()),
        100..=199 => into.interim.push(fields),
        200..=999 => into.head = Some(fields),
        _ => return Err(format!("a head {fields:?}")),
    }
    Ok(())
}
