//! HTTP/3 on a QUIC connection, as the exchanges of both sides see it.
//!
//! `server` opens exchanges for the requests of a client, `front` is one of them as the proxy sees it, and `stream` is what either side keeps of
//! a request stream. Frames and heads are read and written by [`lb_http::h3`].

mod back;
mod client;
mod front;
mod priority;
mod read;
mod server;
mod stream;
mod write;

pub(crate) use back::H3Back;
pub(crate) use client::{Client, ClientLimits};
pub(crate) use server::{Server, ServerParts};
