//! HTTP/1.1 (RFC 9112), both sides. Parsing of lines is httparse's; framing, limits and rewriting are ours.

pub mod authority;
pub mod back;
pub mod body;
pub mod chunked;
mod connection;
mod encode;
pub mod framing;
mod front;
pub mod request;
pub mod response;
mod upstream;
mod wire;

pub(crate) use connection::{FIRST_REQUEST, serve};
pub(crate) use encode::request as encode_request;
pub(crate) use upstream::H1Upstream;
