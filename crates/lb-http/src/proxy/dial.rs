//! A connection in the making.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use lb_io::TcpStream;

/// A connect with its timeout.
pub(super) struct Dial {
    address: SocketAddr,
    connecting: Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>,
}

impl Dial {
    pub(super) fn new(address: SocketAddr, timeout: Duration) -> Self {
        Self { address, connecting: Box::pin(lb_io::connect(address, timeout)) }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        self.connecting.as_mut().poll(cx)
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dial").field(&self.address).finish()
    }
}
