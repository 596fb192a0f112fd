//! An HTTP/3 client that can lie: frames written by hand on streams of quinn, and a reader as strict as that of [`crate::h2`].
//!
//! Nothing here shares code with the gateway, neither in QUIC nor in HTTP/3.

pub mod client;
pub mod frame;
pub mod qpack;
mod reader;
pub mod response;

pub use client::H3Client;
pub use frame::{code, kind, setting};
pub use response::H3Response;
