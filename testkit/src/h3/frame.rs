//! Frames and codes of HTTP/3 (RFC 9114), byte by byte.

/// Types of frames.
pub mod kind {
    #![allow(missing_docs, reason = "the names are those of RFC 9114 section 11.2.1")]
    pub const DATA: u64 = 0x0;
    pub const HEADERS: u64 = 0x1;
    pub const CANCEL_PUSH: u64 = 0x3;
    pub const SETTINGS: u64 = 0x4;
    pub const PUSH_PROMISE: u64 = 0x5;
    pub const GOAWAY: u64 = 0x7;
    pub const MAX_PUSH_ID: u64 = 0xd;
}

/// Types of unidirectional streams.
pub mod stream {
    #![allow(missing_docs, reason = "the names are those of RFC 9114 section 11.2.4")]
    pub const CONTROL: u64 = 0x0;
    pub const PUSH: u64 = 0x1;
    pub const QPACK_ENCODER: u64 = 0x2;
    pub const QPACK_DECODER: u64 = 0x3;
}

/// Settings.
pub mod setting {
    #![allow(missing_docs, reason = "the names are those of RFC 9114 section 11.2.2")]
    pub const QPACK_MAX_TABLE_CAPACITY: u64 = 0x1;
    pub const MAX_FIELD_SECTION_SIZE: u64 = 0x6;
    pub const QPACK_BLOCKED_STREAMS: u64 = 0x7;
    pub const ENABLE_CONNECT_PROTOCOL: u64 = 0x8;
}

/// Error codes.
pub mod code {
    #![allow(missing_docs, reason = "the names are those of RFC 9114 section 8.1 and RFC 9204 section 6")]
    pub const NO_ERROR: u64 = 0x100;
    pub const GENERAL_PROTOCOL_ERROR: u64 = 0x101;
    pub const INTERNAL_ERROR: u64 = 0x102;
    pub const STREAM_CREATION_ERROR: u64 = 0x103;
    pub const CLOSED_CRITICAL_STREAM: u64 = 0x104;
    pub const FRAME_UNEXPECTED: u64 = 0x105;
    pub const FRAME_ERROR: u64 = 0x106;
    pub const EXCESSIVE_LOAD: u64 = 0x107;
    pub const ID_ERROR: u64 = 0x108;
    pub const SETTINGS_ERROR: u64 = 0x109;
    pub const MISSING_SETTINGS: u64 = 0x10a;
    pub const REQUEST_REJECTED: u64 = 0x10b;
    pub const REQUEST_CANCELLED: u64 = 0x10c;
    pub const REQUEST_INCOMPLETE: u64 = 0x10d;
    pub const MESSAGE_ERROR: u64 = 0x10e;
    pub const QPACK_DECOMPRESSION_FAILED: u64 = 0x200;
    pub const QPACK_ENCODER_STREAM_ERROR: u64 = 0x201;
    pub const QPACK_DECODER_STREAM_ERROR: u64 = 0x202;
}

/// An integer of variable length (RFC 9000 section 16).
pub fn varint(value: u64) -> Vec<u8> {
    match value {
        0..0x40 => vec![value as u8],
        0x40..0x4000 => (value as u16 | 0x4000).to_be_bytes().to_vec(),
        0x4000..0x4000_0000 => (value as u32 | 0x8000_0000).to_be_bytes().to_vec(),
        _ => (value | 0xc000_0000_0000_0000).to_be_bytes().to_vec(),
    }
}

/// The integer at the start of `bytes`, and how long it is.
pub fn read_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let length = 1 << (bytes.first()? >> 6);
    let coded = bytes.get(..length)?;
    let first = u64::from(coded[0] & 0x3f);
    Some((coded[1..].iter().fold(first, |value, byte| value << 8 | u64::from(*byte)), length))
}

/// Any frame.
pub fn frame(kind: u64, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    [&varint(kind), &varint(payload.len() as u64), payload].concat()
}

/// A frame that announces `length` bytes, of which none follow here.
pub fn header(kind: u64, length: u64) -> Vec<u8> {
    [varint(kind), varint(length)].concat()
}

/// HEADERS with this field section.
pub fn headers(section: impl AsRef<[u8]>) -> Vec<u8> {
    frame(kind::HEADERS, section)
}

/// DATA.
pub fn data(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    frame(kind::DATA, bytes)
}

/// SETTINGS.
pub fn settings(pairs: &[(u64, u64)]) -> Vec<u8> {
    let payload: Vec<u8> =
        pairs.iter().flat_map(|(id, value)| [varint(*id), varint(*value)].concat()).collect();
    frame(kind::SETTINGS, payload)
}
