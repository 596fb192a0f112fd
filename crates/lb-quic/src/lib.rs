//! QUIC: a driver for quiche on the sockets of a worker, and HTTP/3 on it. Beside it stands [`passthrough`], which forwards connections to their
//! servers without taking part in them.
//!
//! An `Endpoint` drives all connections of a listener on one worker: it receives and sends datagrams in batches, keeps the timers, and leads
//! packets to connections by their connection IDs. What rides on a connection is an `Application`; `h3` has that of HTTP/3, and `raw` that of
//! connections whose streams are relayed and not read.

mod closing;
mod connection;
mod connection_id;
mod dialer;
mod endpoint;
pub mod fuzz;
mod h3;
mod handshake;
mod identity;
mod lent;
mod listener;
mod memory;
mod nudge;
mod packet;
pub mod passthrough;
mod peer;
mod qlog;
mod raw;
mod streams;
mod tally;
mod tls;
mod transport;
mod upstream;

pub use listener::{QuicListener, QuicListenerParts, QuicService, QuicShared};
pub use memory::QuicMemory;
pub use qlog::Qlogs;
pub use raw::{RawDialer, RawSettings};
pub use transport::QuicSettings;
pub use upstream::plug;
