//! Frames that we send. All append to a buffer, and none fails.

use super::HEADER_LENGTH;
use super::code::{ErrorCode, SettingId};
use super::header::{ACK, END_HEADERS, END_STREAM, FrameHeader, FrameType};

#[inline]
fn header(out: &mut Vec<u8>, length: usize, kind: FrameType, flags: u8, stream: u32) {
    out.extend_from_slice(&FrameHeader { length: length as u32, kind, flags, stream }.bytes());
}

/// SETTINGS with these entries.
pub fn settings(out: &mut Vec<u8>, entries: &[(SettingId, u32)]) {
    header(out, entries.len() * 6, FrameType::SETTINGS, 0, 0);
    for (id, value) in entries {
        out.extend_from_slice(&id.0.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// The answer to SETTINGS.
pub fn settings_ack(out: &mut Vec<u8>) {
    header(out, 0, FrameType::SETTINGS, ACK, 0);
}

/// PING.
pub fn ping(out: &mut Vec<u8>, data: [u8; 8]) {
    header(out, 8, FrameType::PING, 0, 0);
    out.extend_from_slice(&data);
}

/// The answer to PING.
pub fn ping_ack(out: &mut Vec<u8>, data: [u8; 8]) {
    header(out, 8, FrameType::PING, ACK, 0);
    out.extend_from_slice(&data);
}

/// GOAWAY. `debug` is for the peer's log.
pub fn goaway(out: &mut Vec<u8>, last_stream: u32, code: ErrorCode, debug: &[u8]) {
    header(out, 8 + debug.len(), FrameType::GOAWAY, 0, 0);
    out.extend_from_slice(&last_stream.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
    out.extend_from_slice(debug);
}

/// RST_STREAM.
pub fn rst_stream(out: &mut Vec<u8>, stream: u32, code: ErrorCode) {
    header(out, 4, FrameType::RST_STREAM, 0, stream);
    out.extend_from_slice(&code.0.to_be_bytes());
}

/// WINDOW_UPDATE; stream 0 is the connection.
#[inline]
pub fn window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    header(out, 4, FrameType::WINDOW_UPDATE, 0, stream);
    out.extend_from_slice(&increment.to_be_bytes());
}

/// The header of a DATA frame, after which the caller writes `length` bytes; at most the peer's SETTINGS_MAX_FRAME_SIZE.
#[inline]
pub fn data_header(out: &mut Vec<u8>, stream: u32, length: usize, end_stream: bool) {
    header(out, length, FrameType::DATA, if end_stream { END_STREAM } else { 0 }, stream);
}

/// A HEADERS frame that is being written: the block goes straight into the buffer, and its header is filled in afterwards.
#[derive(Debug)]
#[must_use]
pub struct HeadersFrame {
    start: usize,
}

/// Begins HEADERS; what is appended to `out` until [`HeadersFrame::end`] is its block.
#[inline]
pub fn headers(out: &mut Vec<u8>) -> HeadersFrame {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_LENGTH]);
    HeadersFrame { start }
}

impl HeadersFrame {
    /// Fills in the header. A block beyond `max_frame_size`, which is the peer's SETTINGS_MAX_FRAME_SIZE, goes on in CONTINUATION frames.
    #[inline]
    pub fn end(self, out: &mut Vec<u8>, stream: u32, end_stream: bool, max_frame_size: u32) {
        let block = out.len().saturating_sub(self.start + HEADER_LENGTH);
        let most = (max_frame_size as usize).max(1);
        let flags = if end_stream { END_STREAM } else { 0 };
        if block > most {
            return self.split(out, stream, flags, most);
        }
        self.fill(out, block, flags | END_HEADERS, stream);
    }

    fn fill(&self, out: &mut [u8], length: usize, flags: u8, stream: u32) {
        let header = FrameHeader { length: length as u32, kind: FrameType::HEADERS, flags, stream };
        if let Some(place) = out.get_mut(self.start..).and_then(|rest| rest.first_chunk_mut()) {
            *place = header.bytes();
        }
    }

    #[cold]
    fn split(self, out: &mut Vec<u8>, stream: u32, flags: u8, most: usize) {
        let rest = out.split_off(self.start + HEADER_LENGTH + most);
        self.fill(out, most, flags, stream);
        let mut parts = rest.chunks(most).peekable();
        while let Some(part) = parts.next() {
            let flags = if parts.peek().is_none() { END_HEADERS } else { 0 };
            header(out, part.len(), FrameType::CONTINUATION, flags, stream);
            out.extend_from_slice(part);
        }
    }
}
