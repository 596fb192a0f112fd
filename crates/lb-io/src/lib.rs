//! Everything that touches a socket, and nothing that decides.
//!
//! A [`Runtime`] starts workers: one thread each, with its own event loop. A worker owns its listeners, connections and
//! buffers; nothing of them is shared with another thread. [`ByteStream`] is the gateway's own stream type, so that another
//! driver can stand behind it without the protocols knowing.

pub mod buffer;
pub mod connections;
pub mod deadline;
mod early;
mod epoll;
#[cfg(any(test, feature = "faults"))]
pub mod faults;
mod file;
pub mod gate;
pub mod inherited;
pub mod listener;
pub mod memory;
pub mod pipe;
pub mod resolver;
mod runtime;
pub mod shortage;
pub mod signals;
pub mod socket;
pub mod sockopts;
mod stream;
pub mod udp;
pub mod unix;
mod uring;
mod worker;

pub use buffer::{BufferPool, Scratch};
pub use connections::{ConnectionGuard, Connections, Follower, Phase};
pub use deadline::Deadline;
pub use file::{open_regular, read_text};
pub use runtime::{IoChoice, IoInUse, Runtime, default_workers};
pub use shortage::shortage_of;
pub use stream::{ByteStream, connect};
pub use worker::WorkerIo;
