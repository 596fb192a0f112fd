//! WebSocket (RFC 6455) seen from between the two ends.
//!
//! A tunnel's bytes pass as they came: no frame is taken apart and put together again, so extensions such as permessage-deflate work
//! whatever the gateway knows of them. An [`Inspector`] for each direction reads the frame headers that go by and says when the sender
//! breaks the framing or a limit; [`Idle`] says when both have been silent for too long. How a tunnel ends is a [`Close`], which
//! becomes a frame of the gateway's own ([`close_frame`]) towards each side that stands between two frames.
//!
//! [`handshake`] holds what HTTP/1.1 and HTTP/2 (RFC 8441) need of each other to open a tunnel.

pub mod close;
pub mod handshake;
pub mod idle;
pub mod inspector;

pub use close::{Close, close_frame};
pub use idle::Idle;
pub use inspector::{Inspector, MessageLimits, Role, Violation, ViolationKind};
