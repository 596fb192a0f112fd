//! HTTP/2 peers that can lie: frames written by hand, an HPACK writer without scruples, a client and a backend.
//!
//! What comes from the gateway is read strictly, as in [`crate::wire`]: a frame that breaks RFC 9113, a field that HTTP/2 forbids, or
//! a byte beyond a flow-control window fails the test even when the test did not look for it. Nothing here shares code with the
//! gateway.

pub mod backend;
pub mod call;
pub mod client;
pub mod frame;
pub mod hpack;
pub(crate) mod huffman;
mod link;
pub mod reader;
pub mod response;
pub mod window;

pub use backend::{H2Backend, H2Request};
pub use call::Call;
pub use client::H2Client;
pub use frame::{Frame, code, flag, kind, setting};
pub use reader::{Event, Reader, Role};
pub use response::{GoAway, H2Response};
