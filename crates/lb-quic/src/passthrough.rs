//! QUIC forwarded by connection ID, without its keys (Mode A).
//!
//! Each worker has one socket at the listener's address, and a [`PassthroughService`] that takes what arrives there in batches. A datagram's path is
//! found by its connection ID and by its client's address, and what no path is known for begins a connection: a backend is picked, by the
//! server name of its ClientHello where routes ask for that ([`initial`], [`hello`]), or the client is sent away with a Retry. Nothing is
//! decrypted but Initial packets, whose keys everybody can derive (RFC 9001 §5.2), and nothing is changed.
//!
//! What decides is pure: the tables are those of [`lb_core::quic`], and everything here takes the time as an argument. [`PassthroughService`] alone
//! touches sockets.

mod cipher;
mod forwarder;
pub mod hello;
pub mod initial;
mod load;
mod names;
pub mod retry;
mod service;
mod settings;
mod shared;
mod waiting;

pub use cipher::Aes128;
pub use service::PassthroughService;
pub use settings::{PassthroughPool, PassthroughSecrets, PassthroughSettings};
pub use shared::PassthroughShared;
