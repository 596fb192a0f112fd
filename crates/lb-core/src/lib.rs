//! Pure decisions of the gateway: no sockets, no clock of its own, no randomness of its own.
//!
//! Where peers are ([`address`]), what a request looks like ([`head`]), which pool it goes to ([`route`]), what
//! is changed in it on its way ([`filter`]), which branch of a split it takes ([`split`]), which member of the pool takes it
//! ([`balance`]), which members are fit for it ([`health`], [`outlier`]) and have room ([`breaker`]), whether it may be tried
//! again ([`retry`]) or sent twice ([`hedge`]), what follows from a failure ([`failure`]) and under which code it is counted and logged
//! ([`reason`]), what a peer may cost us ([`ledger`]),
//! how often a log line about it is written ([`log_limit`]), which datagrams belong together ([`flows`]), what tells listeners apart, and pools
//! ([`identity`]), whom a request is from ([`forwarded`]) and which networks that is in ([`network`]), what QUIC shows to those who have no
//! keys ([`quic`]), and which requests are traced ([`trace`]). Clocks and seeds are arguments, so
//! that every decision can be tested without a socket and replayed.

pub mod access_log;
pub mod address;
pub mod balance;
pub mod breaker;
pub mod failure;
pub mod filter;
pub mod flows;
pub mod forwarded;
pub mod fraction;
pub mod fuzz;
pub mod grpc;
pub mod head;
pub mod health;
pub mod hedge;
pub mod identity;
pub mod ledger;
pub mod limit;
pub mod log_limit;
pub mod network;
pub mod outlier;
pub mod pool;
pub mod proxy_protocol;
pub mod quic;
pub mod reason;
pub mod relief;
pub mod rest;
pub mod retry;
pub mod rng;
pub mod route;
pub mod split;
pub mod status_set;
pub mod trace;
mod words;
