//! What HTTP/3 says on the wire (RFC 9114), without QUIC: bytes of streams in, frames and heads out, and the other way round.
//!
//! Nothing here opens a stream, reads a socket or allocates for a frame. A [`MessageReader`] reads one request stream, [`PeerStreams`] the
//! unidirectional streams of the peer, whatever the pieces in which their bytes arrive. [`head`] turns field sections into heads and back by
//! the rules that HTTP/2 has, and [`qpack`] compresses them. A rule that is broken is an [`H3Error`], with the code that the RFC
//! names for it (attack Q-10).
//!
//! What needs the state of a connection is left to its owner: how many frames of a kind it tolerates, and whether an identifier of a
//! stream is within the limits of streams.

mod code;
pub mod frame;
pub mod head;
mod peer;
mod priority;
pub mod qpack;
mod settings;
mod varint;

pub use code::{H3Code, H3Error, H3Scope};
pub use frame::control::ControlEvent;
pub use frame::message::{MessagePiece, MessageReader};
pub use frame::write;
pub use head::{
    RequestError, ResponseError, decode_request, decode_response, decode_trailers, encode_request,
    encode_response, encode_trailers,
};
pub use peer::{PeerStreams, UniStream};
pub use priority::ExtensiblePriority;
pub use qpack::QpackDecoder;
pub use settings::H3Settings;

pub use crate::section::encode::is_whole;
pub use crate::section::request::RequestLimits;

#[cfg(test)]
mod tests {
    /// Bytes written in hexadecimal, blanks ignored.
    #[track_caller]
    pub(super) fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }
}
