//! HTTP/2 frames as bytes (RFC 9113 sections 4 and 6), right or wrong.

/// What a client sends before its first frame.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types.
pub mod kind {
    #![expect(missing_docs, reason = "the names are those of RFC 9113 section 6")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Frame flags.
pub mod flag {
    #![expect(missing_docs, reason = "the names are those of RFC 9113 section 6")]
    pub const ACK: u8 = 1;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 0x20;
}

/// Error codes.
pub mod code {
    #![expect(missing_docs, reason = "the names are those of RFC 9113 section 7")]
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INTERNAL_ERROR: u32 = 2;
    pub const FLOW_CONTROL_ERROR: u32 = 3;
    pub const SETTINGS_TIMEOUT: u32 = 4;
    pub const STREAM_CLOSED: u32 = 5;
    pub const FRAME_SIZE_ERROR: u32 = 6;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
    pub const COMPRESSION_ERROR: u32 = 9;
    pub const CONNECT_ERROR: u32 = 10;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
    pub const INADEQUATE_SECURITY: u32 = 12;
    pub const HTTP_1_1_REQUIRED: u32 = 13;
}

/// Settings.
pub mod setting {
    #![expect(missing_docs, reason = "the names are those of RFC 9113 section 6.5.2 and RFC 8441")]
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
    pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream, without the reserved bit.
    pub stream: u32,
    /// What follows the nine bytes of its head.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Whether a flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A frame whose length is that of its payload.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    frame_claiming(payload.len(), kind, flags, stream, payload)
}

/// A frame that claims any length.
pub fn frame_claiming(len: usize, kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let mut out = (len as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload.as_ref());
    out
}

/// SETTINGS.
pub fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        pairs.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(kind::SETTINGS, 0, 0, payload)
}

/// The acknowledgement of SETTINGS.
pub fn settings_ack() -> Vec<u8> {
    frame(kind::SETTINGS, flag::ACK, 0, [])
}

/// PING.
pub fn ping(data: [u8; 8]) -> Vec<u8> {
    frame(kind::PING, 0, 0, data)
}

/// The answer to PING.
pub fn pong(data: [u8; 8]) -> Vec<u8> {
    frame(kind::PING, flag::ACK, 0, data)
}

/// WINDOW_UPDATE; stream 0 is the connection.
pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
}

/// RST_STREAM.
pub fn rst_stream(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, code.to_be_bytes())
}

/// GOAWAY.
pub fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(kind::GOAWAY, 0, 0, [last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// PRIORITY.
pub fn priority(stream: u32, parent: u32) -> Vec<u8> {
    frame(kind::PRIORITY, 0, stream, [&parent.to_be_bytes()[..], &[15]].concat())
}

/// DATA.
pub fn data(stream: u32, bytes: impl AsRef<[u8]>, end: bool) -> Vec<u8> {
    frame(kind::DATA, if end { flag::END_STREAM } else { 0 }, stream, bytes)
}

/// DATA with so many bytes of padding.
pub fn padded_data(stream: u32, bytes: &[u8], padding: u8, end: bool) -> Vec<u8> {
    let payload = [&[padding][..], bytes, &vec![0; padding.into()]].concat();
    frame(kind::DATA, flag::PADDED | if end { flag::END_STREAM } else { 0 }, stream, payload)
}

/// HEADERS that hold the whole block.
pub fn headers(stream: u32, block: impl AsRef<[u8]>, end: bool) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS | if end { flag::END_STREAM } else { 0 }, stream, block)
}

/// HEADERS, and CONTINUATION for what lies beyond each `size` bytes of the block.
pub fn headers_in_pieces(stream: u32, block: &[u8], end: bool, size: usize) -> Vec<u8> {
    let count = block.chunks(size).count().max(1);
    let mut pieces = block.chunks(size);
    let mut out = Vec::new();
    for number in 0..count {
        let last = if number + 1 == count { flag::END_HEADERS } else { 0 };
        let piece = pieces.next().unwrap_or_default();
        out.extend(match number {
            0 => frame(kind::HEADERS, last | if end { flag::END_STREAM } else { 0 }, stream, piece),
            _ => frame(kind::CONTINUATION, last, stream, piece),
        });
    }
    out
}

/// PUSH_PROMISE.
pub fn push_promise(stream: u32, promised: u32, block: &[u8]) -> Vec<u8> {
    frame(kind::PUSH_PROMISE, flag::END_HEADERS, stream, [&promised.to_be_bytes()[..], block].concat())
}
