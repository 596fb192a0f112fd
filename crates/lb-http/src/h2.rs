//! HTTP/2 (RFC 9113), on both sides.
//!
//! From below: [`frame`], [`hpack`] and [`window`] turn bytes into frames and fields and back, and know no connection; what a list of fields
//! means is read by `crate::section`. `mux` is the state that
//! the streams of a connection share; it reads and writes no socket. `driver` moves bytes between it and the socket; `server` and `client` own
//! a connection, and `front` and `back` are one stream of it as an exchange sees it. `pool` shares connections to backends, and `patience`
//! says how often those may be asked whether they are there.

mod back;
mod client;
mod driver;
mod excess;
pub mod frame;
mod front;
pub mod hpack;
mod mux;
mod patience;
mod pool;
mod server;
mod stream;
pub mod window;

pub use back::H2Back;
pub(crate) use client::ClientSettings;
pub(crate) use pool::H2Pool;
pub(crate) use server::serve;

/// What one header block may take on the wire, where the decoded list may have `list` bytes (attack H2-03).
///
/// A list that is too large is the fault of its stream alone: its block is decoded all the same, for the sake of the connection's table,
/// and thrown away. A block beyond these limits ends the connection. So they are far wider than the list's, and as wide for a client as
/// for a backend, on whose connection the requests of many run (attack H2-13).
fn block_limits(list: u32) -> frame::BlockLimits {
    let list = usize::try_from(list).unwrap_or(usize::MAX);
    let bytes = list.saturating_mul(2).max(MAX_BLOCK_BYTES);
    let frames = bytes.div_ceil(frame::DEFAULT_MAX_FRAME_SIZE as usize);
    frame::BlockLimits { bytes, frames: u32::try_from(frames).unwrap_or(u32::MAX) }
}

/// Bytes of a header block that are decoded even where fewer may pass: 16 frames.
const MAX_BLOCK_BYTES: usize = 256 * 1024;
