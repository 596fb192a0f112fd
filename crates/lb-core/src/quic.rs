//! QUIC as far as it can be read without keys: headers and connection IDs.
//!
//! A gateway that forwards QUIC without its keys sees the fields that no version of QUIC changes ([`header`], RFC 8999), and connection IDs
//! whose maker has put the server's number into them ([`routable`], draft-ietf-quic-load-balancers). From these and from what it has seen
//! before ([`paths`], [`ids`]) it tells to which backend a datagram belongs. How many connections a source may begin is bounded by [`rates`].

pub mod connection_id;
pub mod header;
pub mod ids;
pub mod paths;
pub mod rates;
pub mod routable;

pub use connection_id::{ConnectionId, MAX_CONNECTION_ID};
