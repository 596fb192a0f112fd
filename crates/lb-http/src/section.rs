//! Field sections of HTTP/2 and HTTP/3: what both protocols say about the fields of a message, in the same rules.
//!
//! HPACK and QPACK differ in their tables; the strings and integers that they are made of ([`string`], [`huffman`], [`integer`]) are one
//! and the same, and so is what a decoded list of fields means: [`request`] and [`response`] turn it into the heads of an exchange, and
//! refuse what is malformed (RFC 9113 §8, RFC 9114 §4). [`encode`] writes heads and trailers through the encoder of either protocol.
//! Everything here is generic or inlined: neither protocol pays for the other.

pub(crate) mod encode;
pub(crate) mod field;
pub(crate) mod huffman;
pub(crate) mod integer;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod string;

/// A string or an integer that cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodingError {
    /// The input ends inside it.
    Truncated,
    /// An integer is too large, or written with too many bytes (RFC 7541 §5.1).
    Integer,
    /// A Huffman code with EOS in it, or with padding that is too long or is not a prefix of EOS (RFC 7541 §5.2).
    Huffman,
}
