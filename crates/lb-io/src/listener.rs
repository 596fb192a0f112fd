//! Listening sockets, and what to make of a failed accept(2).

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use lb_core::address::{Address, ClientAddress, UnixPath};
use lb_core::identity::Transport;
use lb_core::rng::SplitMix64;
use rustix::net::{SocketFlags, accept_with};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::ByteStream;
use crate::runtime::register;
use crate::sockopts::{self, Buffers};
use crate::unix::{self, SocketFile};
use crate::uring::driver::current;
use crate::uring::open::RingListener;

/// A listening socket that is on no event loop yet: of stream kind, or a bound one of UDP.
#[derive(Debug)]
pub struct ListeningSocket {
    descriptor: OwnedFd,
    address: Address,
    transport: Transport,
    /// The file that goes with the last of the duplicates that share it.
    file: Option<Arc<SocketFile>>,
}

impl ListeningSocket {
    /// Takes over a descriptor of a stream socket that is known to listen at `address`.
    pub(crate) fn of(descriptor: OwnedFd, address: Address, file: Option<SocketFile>) -> Self {
        let transport = match address {
            Address::Ip(_) => Transport::Tcp,
            Address::Unix(_) => Transport::Unix,
        };
        Self { descriptor, address, transport, file: file.map(Arc::new) }
    }

    /// Takes over a descriptor of a UDP socket that is known to be bound at `address`.
    pub(crate) fn of_udp(descriptor: OwnedFd, address: SocketAddr) -> Self {
        Self { descriptor, address: address.into(), transport: Transport::Udp, file: None }
    }

    /// Whether it listens there: UDP and TCP may share an address.
    pub fn is_at(&self, address: &Address, transport: Transport) -> bool {
        self.address == *address && self.transport == transport
    }

    /// What it takes: datagrams or connections.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Where it is bound, if it is a socket of UDP.
    pub fn udp_address(&self) -> Option<SocketAddr> {
        self.address.socket_addr().filter(|_| self.transport == Transport::Udp)
    }

    /// Where it listens.
    pub fn address(&self) -> Address {
        self.address
    }

    /// The file of a Unix socket, if this process is to remove it.
    pub fn file(&self) -> Option<&Arc<SocketFile>> {
        self.file.as_ref()
    }

    /// Another descriptor of the socket, with which the file is shared.
    ///
    /// # Errors
    /// When descriptors are wanting.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.clone(), ..self.for_worker()? })
    }

    /// Another descriptor of the socket, for a worker: the file is none of its business.
    ///
    /// # Errors
    /// When descriptors are wanting.
    pub fn for_worker(&self) -> io::Result<Self> {
        let Self { address, transport, .. } = *self;
        Ok(Self { descriptor: self.descriptor.try_clone()?, address, transport, file: None })
    }
}

impl AsFd for ListeningSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl From<ListeningSocket> for OwnedFd {
    fn from(socket: ListeningSocket) -> Self {
        socket.descriptor
    }
}

impl TryFrom<std::net::TcpListener> for ListeningSocket {
    type Error = io::Error;

    fn try_from(listener: std::net::TcpListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        Ok(Self::of(listener.into(), address.into(), None))
    }
}

/// Binds a listening TCP socket for one worker. Every worker binds its own to the same address.
///
/// # Errors
/// When the address cannot be had; the caller names it.
pub fn bind(address: SocketAddr, buffers: Buffers) -> io::Result<ListeningSocket> {
    let socket = bound(address, buffers)?;
    socket.listen(sockopts::BACKLOG)?;
    socket.set_nonblocking(true)?;
    // Port 0 means any.
    let bound = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(ListeningSocket::of(socket.into(), bound.into(), None))
}

fn bound(address: SocketAddr, buffers: Buffers) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    sockopts::apply_listener(&socket, buffers)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Binds a UDP socket for one worker. Every worker binds its own to the same address, and the kernel deals datagrams by the addresses and ports
/// of both ends.
///
/// # Errors
/// When the address cannot be had; the caller names it.
pub fn bind_udp(address: SocketAddr) -> io::Result<ListeningSocket> {
    let (socket, bound) = crate::udp::bind(address)?;
    Ok(ListeningSocket::of_udp(socket.into(), bound))
}

/// Tries whether [`bind`], [`bind_udp`] or [`bind_unix`] could have an address. Nothing listens meanwhile: clients do not notice.
///
/// # Errors
/// When the address cannot be had; the caller names it.
pub fn try_bind(address: &Address, transport: Transport) -> io::Result<()> {
    match address {
        // A datagram that arrives in this moment is lost.
        Address::Ip(address) if transport == Transport::Udp => crate::udp::bind(*address).map(drop),
        Address::Ip(address) => bound(*address, Buffers::default()).map(drop),
        Address::Unix(path) => unix::try_bind(path),
    }
}

/// Binds a listening Unix socket. Workers share it, each with a descriptor of its own: the kernel has no `SO_REUSEPORT` for them. The file
/// gets the permissions of `mode`; a name in the abstract namespace has none.
///
/// # Errors
/// When something accepts connections at `path` already, when a file stands there that is no socket, and those of bind(2) and rename(2).
pub fn bind_unix(path: &UnixPath, mode: u32) -> io::Result<ListeningSocket> {
    let (descriptor, file) = unix::bind(path, mode)?;
    Ok(ListeningSocket::of(descriptor, (*path).into(), file))
}

/// Gives a listening socket that the process was started with what [`bind`] gives its own, as far as it can be had later.
///
/// # Errors
/// When the kernel refuses an option.
pub fn adopt(listener: &ListeningSocket, buffers: Buffers) -> io::Result<Adopted> {
    let socket = socket2::SockRef::from(listener);
    socket.set_nonblocking(true)?;
    let Address::Ip(address) = listener.address else { return Ok(Adopted { takes_ipv4: false }) };
    // A UDP socket is given its options by the worker that reads it.
    if listener.transport == Transport::Tcp {
        sockopts::release_buffers(&socket)?;
        sockopts::apply_accepted(&socket, buffers)?;
    }
    let takes_ipv4 =
        address.ip() == std::net::Ipv6Addr::UNSPECIFIED && socket.only_v6().is_ok_and(|only| !only);
    Ok(Adopted { takes_ipv4 })
}

/// What cannot be had of a socket that another process has bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// It is bound to `[::]` and accepts IPv4 as well.
    pub takes_ipv4: bool,
}

/// A listening socket on a worker's event loop.
#[derive(Debug)]
pub struct WorkerListener {
    driver: AcceptDriver,
}

#[derive(Debug)]
enum AcceptDriver {
    Epoll(tokio::net::TcpListener),
    EpollUnix(AsyncFd<OwnedFd>),
    Ring(RingListener),
}

impl WorkerListener {
    /// Registers a bound socket with the event loop of this thread.
    ///
    /// # Errors
    /// When the event loop does not take it.
    pub fn new(listener: ListeningSocket) -> io::Result<Self> {
        let is_unix = matches!(listener.address, Address::Unix(_));
        let descriptor = listener.descriptor;
        let driver = match current() {
            Some(driver) => AcceptDriver::Ring(RingListener::new(&driver, descriptor, is_unix)),
            None if is_unix => AcceptDriver::EpollUnix(register(descriptor)?),
            None => AcceptDriver::Epoll(tokio::net::TcpListener::from_std(descriptor.into())?),
        };
        Ok(Self { driver })
    }

    /// The next connection.
    ///
    /// # Errors
    /// Those of accept(2); see [`AcceptError`].
    pub async fn accept(&self) -> io::Result<(ByteStream, ClientAddress)> {
        match &self.driver {
            AcceptDriver::Epoll(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((ByteStream::epoll(stream), peer.into()))
            }
            AcceptDriver::EpollUnix(listener) => {
                let accepted =
                    listener.async_io(Interest::READABLE, |listener| accept_unix(listener.as_fd()));
                Ok((ByteStream::adopt_epoll(accepted.await?)?, ClientAddress::Unix))
            }
            AcceptDriver::Ring(listener) => {
                let (stream, peer) = poll_fn(|cx| listener.poll_accept(cx)).await?;
                Ok((ByteStream::ring(stream), peer))
            }
        }
    }

    /// Closes the socket, but first takes every connection whose handshake is done: closing would reset them.
    pub fn close(self, mut take: impl FnMut(ByteStream, ClientAddress)) {
        let listener = match self.driver {
            AcceptDriver::Ring(listener) => {
                return listener.close(|stream, peer| take(ByteStream::ring(stream), peer));
            }
            AcceptDriver::EpollUnix(listener) => {
                while let Ok(descriptor) = accept_unix(listener.as_fd()) {
                    if let Ok(stream) = ByteStream::adopt_epoll(descriptor) {
                        take(stream, ClientAddress::Unix);
                    }
                }
                return;
            }
            AcceptDriver::Epoll(listener) => listener,
        };
        let Ok(listener) = listener.into_std() else { return };
        while let Ok((stream, peer)) = listener.accept() {
            let stream = stream.set_nonblocking(true).and_then(|()| ByteStream::adopt_epoll(stream.into()));
            if let Ok(stream) = stream {
                take(stream, peer.into());
            }
        }
    }
}

fn accept_unix(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)
}

/// What a failed accept(2) means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptError {
    /// The process or the machine is out of descriptors (`EMFILE`, `ENFILE`).
    Descriptors,
    /// The machine is out of memory for sockets (`ENOBUFS`, `ENOMEM`).
    Memory,
    /// The connection was gone before it was taken; the next one is not affected.
    Connection,
    /// The listening socket itself is unusable.
    Fatal,
}

impl AcceptError {
    /// Sorts an error of accept(2). Errors of the network that accept(2) passes on concern one connection.
    pub fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => Self::Descriptors,
            Some(libc::ENOBUFS | libc::ENOMEM) => Self::Memory,
            Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK | libc::EOPNOTSUPP | libc::EFAULT) => {
                Self::Fatal
            }
            _ => Self::Connection,
        }
    }
}

/// Waits that grow while accepting keeps failing for want of resources: 10 ms doubling to 1 s, ± 25 %.
#[derive(Debug)]
pub struct AcceptBackoff {
    next: Duration,
    rng: SplitMix64,
}

impl AcceptBackoff {
    const FIRST: Duration = Duration::from_millis(10);
    const LAST: Duration = Duration::from_secs(1);

    /// A fresh series; `seed` spreads the waits of workers.
    pub fn new(seed: u64) -> Self {
        Self { next: Self::FIRST, rng: SplitMix64::new(seed) }
    }

    /// The wait before the next try.
    pub fn wait(&mut self) -> Duration {
        let base = self.next;
        self.next = base.saturating_mul(2).min(Self::LAST);
        let micros = u64::try_from(base.as_micros()).unwrap_or(u64::MAX);
        let quarter = micros / 4;
        let spread = self.rng.below(quarter.saturating_mul(2).saturating_add(1));
        Duration::from_micros(micros.saturating_sub(quarter).saturating_add(spread))
    }

    /// A connection was accepted: the series starts anew.
    pub fn reset(&mut self) {
        self.next = Self::FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_second_within_a_quarter() {
        let mut backoff = AcceptBackoff::new(1);
        let mut expected = 10_000u128;
        for _ in 0..12 {
            let wait = backoff.wait().as_micros();
            assert!(wait >= expected * 3 / 4 && wait <= expected * 5 / 4, "{wait} for {expected}");
            expected = (expected * 2).min(1_000_000);
        }
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_micros(12_500));
    }

    #[test]
    fn errors_of_one_connection_are_told_from_those_of_the_socket() {
        let of = |code| AcceptError::of(&io::Error::from_raw_os_error(code));
        assert_eq!(of(libc::EMFILE), AcceptError::Descriptors);
        assert_eq!(of(libc::ENOMEM), AcceptError::Memory);
        assert_eq!(of(libc::ECONNABORTED), AcceptError::Connection);
        assert_eq!(of(libc::EPROTO), AcceptError::Connection);
        assert_eq!(of(libc::EBADF), AcceptError::Fatal);
    }

    #[test]
    fn buffers_are_as_asked_or_the_kernels() {
        let any = "127.0.0.1:0".parse().unwrap();
        let sizes = |buffers| {
            let socket = Socket::from(OwnedFd::from(bind(any, buffers).unwrap()));
            (socket.recv_buffer_size().unwrap(), socket.send_buffer_size().unwrap())
        };
        let plain = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        let own = (plain.recv_buffer_size().unwrap(), plain.send_buffer_size().unwrap());
        // The kernel doubles the size that it is given.
        assert_eq!(sizes(Buffers { receive: Some(65_536), send: Some(32_768) }), (131_072, 65_536));
        assert_eq!(sizes(Buffers { receive: None, send: Some(32_768) }), (own.0, 65_536));
        assert_eq!(sizes(Buffers { receive: None, send: None }), own);
    }

    #[test]
    fn an_adopted_socket_has_the_buffers_that_it_would_be_bound_with() {
        let any = "127.0.0.1:0".parse().unwrap();
        let sizes = |listener: &ListeningSocket| {
            let address = listener.address().socket_addr().unwrap();
            let client = std::net::TcpStream::connect(address).unwrap();
            // The listener does not block, and the connection has been made.
            let accepted = socket2::SockRef::from(listener).accept().unwrap().0;
            drop(client);
            (accepted.recv_buffer_size().unwrap(), accepted.send_buffer_size().unwrap())
        };
        let kernels = Buffers { receive: None, send: None };
        let small = Buffers { receive: Some(65_536), send: Some(32_768) };
        for (bound, adopted) in [(Buffers::default(), small), (small, kernels), (kernels, small)] {
            let socket = bind(any, bound).unwrap();
            assert!(!adopt(&socket, adopted).unwrap().takes_ipv4);
            let expected = sizes(&bind(any, adopted).unwrap());
            assert_eq!(sizes(&socket), expected, "{bound:?} becomes {adopted:?}");
            let locked = sockopts::locked_buffers(&Socket::from(OwnedFd::from(socket))).unwrap();
            assert_eq!(locked, (adopted.send.is_some(), adopted.receive.is_some()));
        }
    }

    #[test]
    fn two_sockets_share_an_address() {
        let any = "127.0.0.1:0".parse().unwrap();
        let first = bind(any, Buffers::default()).unwrap();
        assert!(bind(first.address().socket_addr().unwrap(), Buffers::default()).is_ok());
    }
}
