//! A connection in the making.

use std::fmt;
use std::io;
use std::task::{Context, Poll};

use lb_core::address::Address;
use lb_pool::Place;

use crate::upstream::{DialTicket, Dialled, Dialling};

/// A connect with its timeouts, the handshakes included.
pub(super) struct Dial {
    address: Address,
    connecting: Dialling,
    /// Held while others wait for this connection.
    pub(super) ticket: Option<DialTicket>,
    /// Room for the connection, where its backend has limits.
    pub(super) place: Option<Place>,
}

impl Dial {
    pub(super) fn new(
        address: Address,
        connecting: Dialling,
        ticket: Option<DialTicket>,
        place: Option<Place>,
    ) -> Self {
        Self { address, connecting, ticket, place }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Dialled>> {
        self.connecting.as_mut().poll(cx)
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dial").field(&self.address).finish()
    }
}
