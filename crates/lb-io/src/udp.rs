//! UDP sockets of a worker: many datagrams for each system call, in both directions.
//!
//! * [`ReceiveBatch`]: what one call of recvmmsg(2) has received. Datagrams of one peer that the kernel has joined (`UDP_GRO`) stay together.
//! * [`SendBatch`]: what one call of sendmmsg(2) sends. Neighbours with one destination leave as one message (`UDP_SEGMENT`).
//! * [`UdpSocket`]: a socket on the event loop.
//! * [`Uplinks`]: sockets towards backends, which flows share.
//!
//! A worker has one batch of each kind, in [`WorkerIo`](crate::WorkerIo), so that a socket needs no memory of its own. Both drivers learn from
//! epoll(7) that a socket can be read.

mod control;
pub mod hand_over;
mod kernel;
mod name;
mod receive;
mod send;
mod socket;
mod steering;
#[cfg(test)]
mod tests;
mod uplinks;

pub use receive::{ReceiveBatch, Received};
pub use send::{SendBatch, SendOutcome};
pub use socket::UdpSocket;
pub(crate) use socket::bind;
pub use steering::{Passed, Registered, Steering, TableId};
pub use uplinks::{NoUplink, Uplink, UplinkEvent, UplinkRest, UplinkSocket, Uplinks};

/// The largest payload of a datagram over IPv4, in bytes (RFC 768, RFC 791).
pub const MAX_DATAGRAM: usize = 65_507;
