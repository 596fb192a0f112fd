//! TCP forwarding: bytes from a client to a backend and back, with half-close, and without user space once a flow is bulk.

mod half;
mod relay;
mod service;

pub use relay::serve;
pub use service::{TcpPool, TcpService, TcpSettings};
