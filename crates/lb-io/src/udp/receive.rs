//! Datagrams that were received.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll};

use super::control::Facts;
use super::kernel::{Inbound, InboundMessage};
use super::name;
use crate::socket::DatagramSocket;

/// Memory for the datagrams that one system call receives: 64 messages, each of up to 64 KiB. It is there from the first call on.
#[derive(Default)]
pub struct ReceiveBatch {
    inbound: Option<Inbound>,
    /// Something was received since the last [`Self::rest`].
    is_used: bool,
}

impl fmt::Debug for ReceiveBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveBatch").field("is_used", &self.is_used).finish_non_exhaustive()
    }
}

/// What one peer has sent at once: one datagram, or several of one size that the kernel has joined.
#[derive(Debug)]
pub struct Received<'a> {
    /// The peer's address.
    pub from: SocketAddr,
    /// The address of this machine that the datagrams were sent to. `None` on sockets that are not told it.
    pub to: Option<IpAddr>,
    /// The two bits of explicit congestion notification (RFC 3168).
    pub ecn: u8,
    /// Bytes of each datagram; the last may have fewer. At least 1.
    pub segment: usize,
    /// The datagrams, one behind the other.
    pub bytes: &'a mut [u8],
}

impl Received<'_> {
    /// Each datagram by itself. One without a byte is one as well.
    pub fn datagrams(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let segment = self.segment.max(1);
        let mut rest = Some(std::mem::take(&mut self.bytes));
        std::iter::from_fn(move || {
            let bytes = rest.take()?;
            let (datagram, more) = bytes.split_at_mut(segment.min(bytes.len()));
            rest = (!more.is_empty()).then_some(more);
            Some(datagram)
        })
    }

    /// How many datagrams there are.
    pub fn count(&self) -> usize {
        self.bytes.len().div_ceil(self.segment.max(1)).max(1)
    }
}

impl ReceiveBatch {
    /// Receives what has arrived at a socket, without waiting; says whether there may be more.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        self.is_used = true;
        self.inbound.get_or_insert_with(Inbound::new).receive(socket)
    }

    /// Receives what has arrived at a socket that is not the kernel's. Pending when nothing has.
    pub(super) fn poll_plugged(&mut self, cx: &mut Context<'_>, socket: &dyn DatagramSocket) -> Poll<()> {
        self.is_used = true;
        let inbound = self.inbound.get_or_insert_with(Inbound::new);
        inbound.clear();
        let put = |buffer: &mut [u8]| match socket.poll_receive(cx, buffer) {
            Poll::Ready(arrived) => Some(arrived),
            Poll::Pending => None,
        };
        if inbound.put_each(put) == 0 { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Receives the errors for datagrams that were sent, without waiting: calls `each` with the address that a datagram was sent to and the
    /// error (errno(3)). Says whether there may be more.
    pub(super) fn receive_errors(
        &mut self,
        socket: BorrowedFd<'_>,
        mut each: impl FnMut(SocketAddr, i32),
    ) -> io::Result<bool> {
        self.is_used = true;
        let inbound = self.inbound.get_or_insert_with(Inbound::new);
        let more = inbound.receive_errors(socket)?;
        for message in inbound.messages() {
            if let (Some(to), Some(error)) = (name::read(message.name), Facts::read(message.control).error) {
                each(to, error);
            }
        }
        inbound.clear();
        Ok(more)
    }

    /// What the last call has received, in order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = Received<'_>> {
        self.inbound.iter_mut().flat_map(Inbound::messages).filter_map(|message| {
            let InboundMessage { name, control, bytes, is_cut } = message;
            let facts = Facts::read(control);
            // A datagram that is not whole is none. No datagram of UDP over IPv4 or IPv6 is that long, save jumbograms (RFC 2675).
            let from = name::read(name).filter(|_| !is_cut)?;
            let segment = facts.segment.unwrap_or(bytes.len()).max(1);
            Some(Received { from, to: facts.to, ecn: facts.ecn, segment, bytes })
        })
    }

    /// Forgets what was received.
    pub fn clear(&mut self) {
        if let Some(inbound) = &mut self.inbound {
            inbound.clear();
        }
    }

    /// Frees the memory that was not needed since the last call.
    pub(crate) fn rest(&mut self) {
        if !std::mem::take(&mut self.is_used) {
            self.inbound = None;
        }
    }
}
