//! A UDP socket on the event loop of a worker.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use lb_core::address::Address;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::kernel::set;
use super::receive::ReceiveBatch;
use super::send::{SendBatch, SendOutcome};
use crate::listener::ListeningSocket;
use crate::runtime::{register, register_for};
use crate::socket::DatagramSocket;
use crate::uring;

/// The receive and the send buffer that the kernel is asked for. A socket is that of all clients, or of many flows, and what it cannot hold is
/// lost.
pub(crate) const BUFFER: usize = 4 * 1024 * 1024;

/// A UDP socket. Dropping it closes it.
#[derive(Debug)]
pub struct UdpSocket {
    driver: UdpDriver,
    local: SocketAddr,
}

#[derive(Debug)]
enum UdpDriver {
    Kernel(KernelSocket),
    Plugged(Box<dyn DatagramSocket>),
}

/// A socket of the kernel's.
#[derive(Debug)]
struct KernelSocket {
    descriptor: AsyncFd<OwnedFd>,
    /// Waits for room in the send buffer, while there is none. The socket is not watched for that otherwise: each datagram that leaves would
    /// wake the event loop.
    room: RefCell<Option<AsyncFd<OwnedFd>>>,
    can_segment: Cell<bool>,
}

impl UdpSocket {
    /// Puts a listener's socket on the event loop of this thread. It is told which of the machine's addresses a datagram was sent to.
    ///
    /// # Errors
    /// When the kernel refuses an option, or the event loop the socket.
    pub fn listening(socket: ListeningSocket) -> io::Result<Self> {
        let Address::Ip(local) = socket.address() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let descriptor = OwnedFd::from(socket);
        tell_destination(descriptor.as_fd(), &local)?;
        Self::on_loop(descriptor, local)
    }

    /// Binds a socket for datagrams to and from backends, of the family of `of`, at a port of the kernel's choice.
    ///
    /// # Errors
    /// When descriptors are wanting, or the kernel refuses an option.
    pub fn to_backends(of: &SocketAddr) -> io::Result<Self> {
        let socket = unconnected(of.is_ipv6())?;
        let local = socket.local_addr()?.as_socket().unwrap_or(*of);
        Self::on_loop(socket.into(), local)
    }

    fn on_loop(descriptor: OwnedFd, local: SocketAddr) -> io::Result<Self> {
        widen(descriptor.as_fd());
        // Kernels before 5.0 join nothing, and are asked for nothing else.
        let _ = set(descriptor.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1);
        let descriptor = register(descriptor)?;
        let socket = KernelSocket { descriptor, room: RefCell::default(), can_segment: Cell::new(true) };
        Ok(Self { driver: UdpDriver::Kernel(socket), local })
    }

    /// A socket whose datagrams are moved by `socket`.
    pub fn plugged(socket: impl DatagramSocket + 'static) -> Self {
        Self { local: socket.local(), driver: UdpDriver::Plugged(Box::new(socket)) }
    }

    /// Where it is bound.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Has datagrams that are larger than the packets of their path refused rather than cut into fragments, as QUIC wants it (RFC 9000 §14).
    ///
    /// # Errors
    /// When the kernel refuses the option.
    pub fn never_fragment(&self) -> io::Result<()> {
        match &self.driver {
            UdpDriver::Kernel(socket) => never_fragment(socket.as_fd(), self.local.is_ipv6()),
            UdpDriver::Plugged(_) => Ok(()),
        }
    }

    /// Receives what has arrived, as much as the batch has room for, in place of what the batch held. Pending when nothing has.
    ///
    /// # Errors
    /// Those of recvmmsg(2), of which most concern a datagram that was sent earlier.
    pub fn poll_receive(&self, cx: &mut Context<'_>, into: &mut ReceiveBatch) -> Poll<io::Result<()>> {
        match &self.driver {
            UdpDriver::Kernel(socket) => socket.poll_receive(cx, into),
            UdpDriver::Plugged(socket) => into.poll_plugged(cx, &**socket).map(Ok),
        }
    }

    /// Sends everything. Pending while the socket has no room for the rest. A datagram that the kernel refuses is lost, as on the network.
    pub fn poll_send(&self, cx: &mut Context<'_>, from: &mut SendBatch) -> Poll<SendOutcome> {
        match &self.driver {
            UdpDriver::Kernel(socket) => socket.poll_send(cx, from),
            UdpDriver::Plugged(socket) => Poll::Ready(from.send_plugged(&**socket)),
        }
    }

    /// Sends what the socket takes without waiting; says whether that is everything.
    pub fn try_send(&self, from: &mut SendBatch) -> (bool, SendOutcome) {
        match &self.driver {
            UdpDriver::Kernel(socket) => socket.try_send(from),
            UdpDriver::Plugged(socket) => (true, from.send_plugged(&**socket)),
        }
    }
}

#[cfg(test)]
impl UdpSocket {
    /// As [`Self::try_send`], by a device that does not cut messages into datagrams.
    pub(super) fn without_segments(&self, from: &mut SendBatch) -> (bool, SendOutcome) {
        match &self.driver {
            UdpDriver::Kernel(socket) => from.send(socket.as_fd(), &mut false),
            UdpDriver::Plugged(socket) => (true, from.send_plugged(&**socket)),
        }
    }
}

impl KernelSocket {
    fn poll_receive(&self, cx: &mut Context<'_>, into: &mut ReceiveBatch) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.descriptor.poll_read_ready(cx))?;
            match into.receive(self.as_fd()) {
                Ok(more) => {
                    uring::driver::heard_outside();
                    if !more {
                        // All was taken. What arrives from now on is an event of its own.
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_send(&self, cx: &mut Context<'_>, from: &mut SendBatch) -> Poll<SendOutcome> {
        let mut outcome = SendOutcome::default();
        loop {
            let (all, some) = self.try_send(from);
            outcome.add(some);
            if all {
                *self.room.borrow_mut() = None;
                return Poll::Ready(outcome);
            }
            if self.poll_room(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn try_send(&self, from: &mut SendBatch) -> (bool, SendOutcome) {
        let mut can_segment = self.can_segment.get();
        let sent = from.send(self.as_fd(), &mut can_segment);
        self.can_segment.set(can_segment);
        sent
    }

    /// Ready when the socket may have room for more.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut room = self.room.borrow_mut();
        if room.is_none() {
            let duplicate = self.descriptor.get_ref().try_clone();
            *room = duplicate.and_then(|duplicate| register_for(duplicate, Interest::WRITABLE)).ok();
        }
        let Some(watched) = room.as_ref() else {
            // Without a descriptor nothing can be waited for: the next turn tries again.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        match ready!(watched.poll_write_ready(cx)) {
            Ok(mut guard) => guard.clear_ready(),
            Err(_) => *room = None,
        }
        Poll::Ready(())
    }
}

impl AsFd for KernelSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.get_ref().as_fd()
    }
}

/// A socket at a port of the kernel's choice.
pub(super) fn unconnected(is_v6: bool) -> io::Result<Socket> {
    let any: SocketAddr = match is_v6 {
        false => (Ipv4Addr::UNSPECIFIED, 0).into(),
        true => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(any), kind, Some(Protocol::UDP))?;
    if is_v6 {
        socket.set_only_v6(true)?;
    }
    socket.bind(&any.into())?;
    Ok(socket)
}

/// Has datagrams that are larger than the packets of their path refused, whatever the kernel has been told of that path.
pub(super) fn never_fragment(socket: BorrowedFd<'_>, is_v6: bool) -> io::Result<()> {
    match is_v6 {
        false => set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
        true => set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE),
    }
}

/// Has the kernel say which address a datagram was sent to, and its ECN bits.
fn tell_destination(socket: BorrowedFd<'_>, local: &SocketAddr) -> io::Result<()> {
    match local {
        SocketAddr::V4(_) => set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?,
        SocketAddr::V6(_) => set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?,
    }
    tell_ecn(socket, local.is_ipv6())
}

/// Has the kernel say which ECN bits a datagram has come with.
pub(super) fn tell_ecn(socket: BorrowedFd<'_>, is_v6: bool) -> io::Result<()> {
    match is_v6 {
        false => set(socket, libc::IPPROTO_IP, libc::IP_RECVTOS, 1),
        true => set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1),
    }
}

/// Asks for large buffers: beyond `net.core.rmem_max` with the right to (`CAP_NET_ADMIN`), and up to it without.
fn widen(socket: BorrowedFd<'_>) {
    let bytes = libc::c_int::try_from(BUFFER).unwrap_or(libc::c_int::MAX);
    for (forced, asked) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        if set(socket, libc::SOL_SOCKET, forced, bytes).is_err() {
            // What the kernel gives instead is a size as well.
            let _ = set(socket, libc::SOL_SOCKET, asked, bytes);
        }
    }
}

/// Binds a UDP socket for one worker. Every worker binds its own to the same address.
///
/// # Errors
/// When the address cannot be had.
pub(crate) fn bind(address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    let bound = SockRef::from(&socket).local_addr()?.as_socket().unwrap_or(address);
    Ok((socket, bound))
}
