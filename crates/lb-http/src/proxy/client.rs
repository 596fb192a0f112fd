//! The client's side of an exchange.

use std::net::SocketAddr;
use std::rc::Rc;

use super::stall::Stall;
use crate::rules::Hop;
use crate::session::Session;

/// What a connection tells of its client.
#[derive(Debug)]
pub struct Client {
    /// Its address.
    pub address: SocketAddr,
    /// What its requests are given on their way.
    pub hop: Hop,
    /// What TLS has settled, if it came inside it.
    pub session: Option<Rc<Session>>,
}

/// The client of one exchange: its identity, and what has passed between it and the gateway.
#[derive(Debug)]
pub(super) struct ClientSide {
    pub(super) address: SocketAddr,
    pub(super) session: Option<Rc<Session>>,
    /// It takes no more at the moment.
    pub(super) stall: Stall,
    /// Bytes received from it.
    pub(super) received: u64,
    /// Bytes sent to it.
    pub(super) sent: u64,
}

impl ClientSide {
    pub(super) fn new(client: &Client) -> Self {
        Self {
            address: client.address,
            session: client.session.clone(),
            stall: Stall::default(),
            received: 0,
            sent: 0,
        }
    }
}
