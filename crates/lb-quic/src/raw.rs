//! QUIC that is not HTTP/3 (Mode B): the client's connection ends here, and goes on as one to a backend. What stands in their streams and
//! datagrams is not read.
//!
//! Each client has a connection to a backend of its own ([`dial`]), with the protocol that it has chosen. `relay` moves streams under the same
//! identifiers on both sides, `datagrams` datagrams, and `end` passes on how a connection has ended. `front` and `back` are what rides on the
//! two connections; a turn of either moves what there is on both ([`session`]).

mod back;
mod datagrams;
mod dial;
mod end;
mod front;
mod half;
mod pulse;
mod relay;
mod session;
mod settings;

pub(crate) use front::{Front, FrontParts};
pub use settings::{RawDialer, RawSettings};
