//! Forwarding of what the gateway does not read.
//!
//! TCP: bytes from a client to a backend and back, with half-close, and without user space once a flow is bulk. UDP: datagrams of flows, many for each system call ([`UdpService`]).

mod connect;
mod half;
mod load;
mod names;
mod relay;
mod service;
mod udp;

pub use connect::{Connects, Stay};
pub use names::NameRoutes;
pub use relay::serve;
pub use service::{TcpPool, TcpService, TcpSettings};
pub use udp::{UdpService, UdpSettings};
