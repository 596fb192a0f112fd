//! Sockets that are not the kernel's.
//!
//! A protocol that stands on [`ByteStream`] or on [`UdpSocket`] can be driven over one of these: over a pipe or a network
//! in memory, by a clock that a test moves.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use lb_core::address::Address;

use crate::stream::ByteStream;
use crate::udp::UdpSocket;

/// A connected stream of bytes. Its methods do what those of the same name do on [`ByteStream`].
pub trait Socket: fmt::Debug {
    /// Reads what has arrived into `buffer`; 0 bytes mean that the peer will send no more.
    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Takes some of several slices to be sent.
    fn poll_send(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;

    /// The stream that goes on in place of this socket, which has nothing more to give. Asked for after each read.
    fn succeed(&mut self) -> Option<ByteStream> {
        None
    }

    /// Takes back the bytes that were handed over and that the peer will not see; how many they are.
    fn recall(&mut self) -> usize {
        0
    }

    /// Ends the bytes of this side.
    ///
    /// # Errors
    /// When the connection has broken.
    fn shutdown_write(&mut self) -> io::Result<()>;

    /// Makes closing reset the connection.
    fn reset_on_close(&mut self);

    /// The address that the peer has connected to, where there is one.
    fn local_address(&self) -> Option<SocketAddr> {
        None
    }

    /// Whether anything has arrived that was not read, the end included.
    fn has_arrived(&self) -> bool;

    /// Whether there is something to read, the end included.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Whether the peer has closed its side or reset the connection.
    fn poll_hangup(&self, cx: &mut Context<'_>) -> Poll<()>;
}

/// A connect that is under way.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<ByteStream>>>>;

/// Makes connections in place of the kernel, within a time.
pub type Connects = dyn Fn(Address, Duration) -> Connecting;

/// A UDP socket.
pub trait DatagramSocket: fmt::Debug {
    /// Where it is bound.
    fn local(&self) -> SocketAddr;

    /// Receives one datagram into `buffer`, which has room for the largest there is. Pending when none has arrived.
    fn poll_receive(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Arrived>;

    /// Sends a datagram to `to`, from the address `from` of this machine if that is said.
    fn send(&self, to: SocketAddr, from: Option<IpAddr>, bytes: &[u8]);
}

/// A datagram that a [`DatagramSocket`] has received.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    /// Who has sent it.
    pub from: SocketAddr,
    /// The address that it was sent to.
    pub to: IpAddr,
    /// Its length, in bytes.
    pub length: usize,
}

/// Makes sockets for datagrams to and from backends in place of the kernel, for an address of the family that they are to have.
pub type Binds = dyn Fn(&SocketAddr) -> io::Result<UdpSocket>;

/// The error of moving bytes by splice(2) where no kernel has them.
pub(crate) fn no_splice() -> io::Error {
    io::ErrorKind::Unsupported.into()
}
