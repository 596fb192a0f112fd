//! The one place that drives an exchange: chooses a backend, moves both directions at once, keeps the deadlines, decides what the client
//! is told when something fails.

mod account;
mod again;
mod answers;
mod attempt;
mod begin;
mod buffer;
mod choose;
mod client;
mod delay;
mod dial;
mod exchange;
mod extras;
mod grpc;
mod health;
mod hedge;
mod mirror;
mod queue;
mod relay;
mod replay;
mod request;
mod response;
mod sinks;
mod stall;
mod timing;
mod trace;
mod tries;
mod tunnel;
mod upload;

pub use begin::{Arrival, Running};
pub use client::Client;
pub(crate) use client::ClientSide;
pub use exchange::End;
pub(crate) use exchange::Exchange;
pub use tunnel::TunnelLimits;
