//! HTTP/2 (RFC 9113), on both sides.
//!
//! From below: [`frame`], [`hpack`] and [`window`] turn bytes into frames and fields and back, and know no connection. `mux` is the state that
//! the streams of a connection share; it reads and writes no socket. `driver` moves bytes between it and the socket; `server` and `client` own
//! a connection, and `front` and `back` are one stream of it as an exchange sees it. `pool` shares connections to backends, and `patience`
//! says how often those may be asked whether they are there.

mod back;
mod client;
mod driver;
mod encode;
mod field;
pub mod frame;
mod front;
pub mod hpack;
mod mux;
mod patience;
mod pool;
mod request;
mod response;
mod server;
mod stream;
pub mod window;

pub use back::H2Back;
pub(crate) use client::{ClientConnection, ClientSettings};
pub(crate) use pool::{DialTicket, H2Pool, Outcome, Wait, Way};
pub(crate) use server::serve;

/// Frames that one header block may take (attack H2-03).
pub(crate) const MAX_BLOCK_FRAMES: u32 = 16;

/// Bytes of a backend's header block that are decoded even though fewer may pass. A larger block ends the connection, and so the requests
/// of others on it (attack H2-13).
const MAX_RESPONSE_BLOCK: usize = 256 * 1024;
