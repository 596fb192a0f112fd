//! Field compression of HTTP/2 (RFC 7541).
//!
//! Both directions keep their dynamic table in one byte buffer, and neither allocates for a field once its buffers have grown to
//! what the connection needs. Reading a field that is in a table copies nothing, so that a block of a thousand one-byte references
//! costs a thousand look-ups and no more (attack H2-04); how many fields and bytes a block may unfold to is for the caller to limit. So is
//! the length of a block, which bounds that of its strings.

pub mod decoder;
pub mod encoder;
pub mod static_table;
pub mod table;

pub use decoder::Decoder;
pub use encoder::Encoder;

use crate::section::CodingError;
pub use crate::section::encode::Indexing;

/// The size of a dynamic table before anybody has changed it (RFC 9113 §6.5.2).
pub const DEFAULT_TABLE_SIZE: u32 = 4096;

/// A block of fields that cannot be decoded: a connection error of type COMPRESSION_ERROR, for the two tables differ from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HpackError {
    /// The block ends inside a field.
    Truncated,
    /// An integer is too large, or written with too many bytes (RFC 7541 §5.1).
    Integer,
    /// An index that no table has (RFC 7541 §2.3.3).
    Index,
    /// A Huffman code with EOS in it, or with padding that is too long or is not a prefix of EOS (RFC 7541 §5.2).
    Huffman,
    /// A table size update in the wrong place, a third one, one beyond what we allow, or none where one is owed (RFC 7541 §4.2, §6.3).
    TableSize,
}

impl From<CodingError> for HpackError {
    #[inline]
    fn from(error: CodingError) -> Self {
        match error {
            CodingError::Truncated => Self::Truncated,
            CodingError::Integer => Self::Integer,
            CodingError::Huffman => Self::Huffman,
        }
    }
}

#[cfg(test)]
mod tests {
    /// Bytes written in hexadecimal, blanks ignored.
    #[track_caller]
    pub(super) fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }
}
