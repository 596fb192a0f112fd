//! HTTP/2 (RFC 9113): the pure lower half, which turns bytes into frames and fields and back. No sockets and no clock.

pub mod frame;
pub mod hpack;
pub mod window;
