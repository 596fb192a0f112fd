//! Field compression of HTTP/3 (RFC 9204), by the static table alone.
//!
//! The gateway's SETTINGS leave the peer's encoder no dynamic table, and its own encoder uses none. So a field section stands for itself: no
//! stream waits for another one, a section that is not read changes nothing, and no memory is kept for a connection. One byte of a section
//! stands for at most the 85 bytes of one entry; how many fields and bytes a section may unfold to is for the caller to limit (attack Q-09).

mod decoder;
mod encoder;
pub(crate) mod instructions;
#[cfg(test)]
mod measure;
mod static_table;

pub use decoder::QpackDecoder;
pub(crate) use encoder::StaticEncoder;

use super::code::{H3Code, H3Error};
use crate::section::CodingError;

/// A field section that cannot be decoded: a connection error of type QPACK_DECOMPRESSION_FAILED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QpackError {
    /// A string or an integer is broken.
    Coding(CodingError),
    /// The static table has no such entry.
    Index,
    /// A reference to the dynamic table, which has no entry.
    Dynamic,
    /// A base before the first entry (RFC 9204 §4.5.1.2).
    Base,
}

impl From<CodingError> for QpackError {
    #[inline]
    fn from(error: CodingError) -> Self {
        Self::Coding(error)
    }
}

impl From<QpackError> for H3Error {
    fn from(error: QpackError) -> Self {
        let what = match error {
            QpackError::Coding(CodingError::Truncated) => "a field section that ends inside a field",
            QpackError::Coding(CodingError::Integer) => "an integer that is too large",
            QpackError::Coding(CodingError::Huffman) => "a broken Huffman code",
            QpackError::Index => "an index that the static table has not",
            QpackError::Dynamic => "a reference to the dynamic table",
            QpackError::Base => "a negative base",
        };
        Self::connection(H3Code::QPACK_DECOMPRESSION_FAILED, what)
    }
}
