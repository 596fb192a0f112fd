//! Sockets towards backends, which flows share.
//!
//! A reply is told apart by the socket that it arrives at and the address that it comes from, and by nothing else. So a flow needs a *pair*: a
//! socket, and the address of its backend, on which no other flow of these uplinks is. Flows to different backends share sockets; n flows to one
//! backend take n sockets, as they would with any proxy that has one address. Sockets are made when the pairs of a backend have run out, up to
//! a cap, are kept for flows to come, and are closed when they have not been needed for a while.
//!
//! A pair that was given back rests before another flow gets it: a late reply of the earlier flow must not reach the client of the new one. Where
//! all replies have come ([`UplinkRest::Short`]) that is a formality, and gives way when no socket can be had.
//!
//! Sockets are not connected. They report ICMP errors with the destination that each is about (`IP_RECVERR`). An epoll(7) of their own tells
//! which of them can be read, so that the event loop has one descriptor to wait for and not one for each flow.

mod pairs;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use tokio::io::unix::AsyncFd;

use super::kernel::set;
use super::receive::ReceiveBatch;
use super::send::{SendBatch, SendOutcome};
use super::socket::{never_fragment, tell_ecn, unconnected};
use crate::runtime::register;
use pairs::{Pairs, Taken};

/// How long a pair rests on which replies may be on their way.
const LONG_REST: Duration = Duration::from_secs(10);

/// How long a pair rests whose replies have all come.
const SHORT_REST: Duration = Duration::from_millis(500);

/// Events that one call of epoll_wait(2) tells.
const EVENTS: usize = 128;

/// The receive buffer that a socket is given: it may be that of flows to many backends.
const RECEIVE_BUFFER: libc::c_int = 1024 * 1024;

/// Sockets towards backends. A number of the caller's choice stands for each flow.
#[derive(Debug)]
pub struct Uplinks {
    epoll: AsyncFd<OwnedFd>,
    families: [Family; 2],
    /// Sockets that can be read. One may stand here twice.
    ready: VecDeque<Ready>,
    /// Flows whose backend cannot be reached, to be told.
    unreachable: VecDeque<u32>,
    can_segment: Cell<bool>,
    most_sockets: usize,
    fragments: bool,
}

/// The sockets of one version of IP.
#[derive(Debug, Default)]
struct Family {
    sockets: Vec<OwnedFd>,
    pairs: Pairs,
}

/// A socket that can be read.
#[derive(Clone, Copy, Debug)]
struct Ready {
    socket: u64,
    has_error: bool,
    failures: u8,
}

/// A socket and the address of a backend, for one flow. To be given back by [`Uplinks::give_back`].
#[derive(Debug, PartialEq, Eq)]
pub struct Uplink {
    backend: SocketAddr,
    socket: u32,
}

impl Uplink {
    /// Where the backend listens.
    pub fn backend(&self) -> SocketAddr {
        self.backend
    }

    /// Whether datagrams of both flows leave by one socket, and may leave together.
    pub fn shares_socket(&self, other: &Self) -> bool {
        self.path() == other.path()
    }

    /// The socket by which its datagrams leave.
    #[inline]
    pub fn path(&self) -> UplinkSocket {
        UplinkSocket(u64::from(self.socket) << 1 | u64::from(self.backend.is_ipv6()))
    }
}

/// How long a pair that was given back is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UplinkRest {
    /// Not at all: what arrives is no flow's.
    None,
    /// Every reply that was expected has come.
    Short,
    /// Replies may be on their way.
    Long,
}

/// Why no uplink could be had.
#[derive(Debug)]
pub enum NoUplink {
    /// There are as many sockets as there may be, and a flow to this backend is on each of them, or was a moment ago.
    Full,
    /// The kernel gives no further socket.
    Socket(io::Error),
}

/// What has happened at one of the sockets.
#[derive(Debug, PartialEq, Eq)]
pub enum UplinkEvent {
    /// The batch holds what has arrived at this socket; [`Uplinks::flow`] tells whose it is.
    Received(UplinkSocket),
    /// The backend of this flow cannot be reached: an ICMP error says so.
    Unreachable(u32),
}

/// One of the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UplinkSocket(u64);

impl Uplinks {
    /// Uplinks on the event loop of this thread, with `most_sockets` sockets at most.
    ///
    /// # Errors
    /// When descriptors are wanting.
    pub fn new(most_sockets: usize) -> io::Result<Self> {
        Ok(Self {
            epoll: register(epoll::create(epoll::CreateFlags::CLOEXEC)?)?,
            families: Default::default(),
            ready: VecDeque::new(),
            unreachable: VecDeque::new(),
            can_segment: Cell::new(true),
            most_sockets,
            fragments: true,
        })
    }

    /// Whether the sockets that are opened from now on cut datagrams into fragments which are larger than the packets of their path, or refuse
    /// them, as QUIC wants it (RFC 9000 §14). At first they cut.
    pub fn set_fragments(&mut self, may: bool) {
        self.fragments = may;
    }

    /// Changes how many sockets there may be. Those that are open beyond that stay open while they are needed.
    pub fn set_most_sockets(&mut self, most: usize) {
        self.most_sockets = most;
    }

    /// How many sockets are open.
    pub fn sockets(&self) -> usize {
        let [v4, v6] = &self.families;
        v4.sockets.len().saturating_add(v6.sockets.len())
    }

    /// A pair for the flow that the number `flow` stands for.
    ///
    /// # Errors
    /// When none can be had now.
    pub fn take(&mut self, backend: SocketAddr, flow: u32, now: Instant) -> Result<Uplink, NoUplink> {
        let is_full = self.sockets() >= self.most_sockets;
        let Self { epoll, families: [v4, v6], fragments, .. } = self;
        let family = if backend.is_ipv4() { v4 } else { v6 };
        let socket = match family.pairs.take(backend, family.sockets.len(), now) {
            Taken::Pair(socket) => socket,
            Taken::NeedsSocket => match (!is_full).then(|| family.open(epoll, backend.is_ipv6(), *fragments))
            {
                Some(Ok(())) => match family.pairs.take(backend, family.sockets.len(), now) {
                    Taken::Pair(socket) => socket,
                    Taken::NeedsSocket => return Err(NoUplink::Full),
                },
                failed => match (family.pairs.take_early(backend), failed) {
                    (Some(socket), _) => socket,
                    (None, Some(Err(error))) => return Err(NoUplink::Socket(error)),
                    (None, _) => return Err(NoUplink::Full),
                },
            },
        };
        family.pairs.assign(socket, backend, flow);
        Ok(Uplink { backend, socket })
    }

    /// The flow needs its pair no more. What arrives on it is no flow's from now on.
    pub fn give_back(&mut self, uplink: Uplink, rest: UplinkRest, now: Instant) {
        let Uplink { backend, socket } = uplink;
        let until = match rest {
            UplinkRest::None => now,
            UplinkRest::Short => now + SHORT_REST,
            UplinkRest::Long => now + LONG_REST,
        };
        let [v4, v6] = &mut self.families;
        let family = if backend.is_ipv4() { v4 } else { v6 };
        family.pairs.give_back(socket, backend, rest, until);
    }

    /// The flow that a datagram belongs to which has arrived at this socket from that address.
    #[inline]
    pub fn flow(&self, socket: UplinkSocket, from: SocketAddr) -> Option<u32> {
        let (family, at) = self.place(socket.0)?;
        family.pairs.flow(u32::try_from(at).ok()?, plain(from))
    }

    /// Sends what the batch holds by the socket of this uplink, without waiting. Says whether that is everything; what is left can be sent
    /// later, or thrown away.
    pub fn send(&self, uplink: &Uplink, batch: &mut SendBatch) -> (bool, SendOutcome) {
        self.send_by(uplink.path(), batch)
    }

    /// Sends what the batch holds by this socket, as [`Self::send`] does. A socket that has been closed loses it.
    pub fn send_by(&self, path: UplinkSocket, batch: &mut SendBatch) -> (bool, SendOutcome) {
        let socket = self.place(path.0).and_then(|(family, at)| family.sockets.get(at));
        let Some(socket) = socket else {
            batch.clear();
            return (true, SendOutcome::default());
        };
        let mut can_segment = self.can_segment.get();
        let sent = batch.send(socket.as_fd(), &mut can_segment);
        self.can_segment.set(can_segment);
        sent
    }

    /// What happens next at one of the sockets. Datagrams stand in the batch, in place of what it held.
    ///
    /// # Errors
    /// Those of epoll_wait(2).
    pub fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut ReceiveBatch,
    ) -> Poll<io::Result<UplinkEvent>> {
        loop {
            if let Some(flow) = self.unreachable.pop_front() {
                return Poll::Ready(Ok(UplinkEvent::Unreachable(flow)));
            }
            let Some(next) = self.ready.pop_front() else {
                ready!(self.poll_epoll(cx))?;
                continue;
            };
            if next.has_error {
                self.read_errors(next.socket, batch);
                self.ready.push_front(Ready { has_error: false, ..next });
                continue;
            }
            let Some((family, at)) = self.place(next.socket) else { continue };
            let Some(socket) = family.sockets.get(at) else { continue };
            match batch.receive(socket.as_fd()) {
                Ok(more) => {
                    if more {
                        self.ready.push_back(Ready { failures: 0, ..next });
                    }
                    return Poll::Ready(Ok(UplinkEvent::Received(UplinkSocket(next.socket))));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The error for a datagram that was sent earlier stands before what has arrived.
                Err(_) if next.failures < 3 => {
                    self.ready.push_front(Ready { failures: next.failures.saturating_add(1), ..next });
                }
                Err(_) => {}
            }
        }
    }

    /// Closes sockets that have not been needed since the last call. To be called every few seconds.
    pub fn rest(&mut self, now: Instant) {
        for family in &mut self.families {
            let needed = family.pairs.rest(now, family.sockets.len());
            family.sockets.truncate(needed);
        }
    }

    /// Waits until sockets can be read, and lists them.
    fn poll_epoll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.epoll.poll_read_ready(cx))?;
            let mut events = [MaybeUninit::uninit(); EVENTS];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            let told = match epoll::wait(guard.get_inner(), &mut events[..], Some(&now)) {
                Ok((told, _)) => told,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Poll::Ready(Err(error.into())),
            };
            if told.len() < EVENTS {
                guard.clear_ready();
            }
            self.ready.extend(told.iter().map(|event| Ready {
                socket: event.data.u64(),
                has_error: { event.flags }.contains(epoll::EventFlags::ERR),
                failures: 0,
            }));
            if !self.ready.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn read_errors(&mut self, socket: u64, batch: &mut ReceiveBatch) {
        let Self { families: [v4, v6], unreachable, .. } = self;
        let (family, at) = match split(socket) {
            (at, false) => (v4, at),
            (at, true) => (v6, at),
        };
        let Some(descriptor) = usize::try_from(at).ok().and_then(|at| family.sockets.get(at)) else { return };
        let pairs = &family.pairs;
        let told = |to: SocketAddr, error: i32| {
            if is_unreachable(error) {
                // What is about no flow of ours was made up, or is late.
                unreachable.extend(pairs.flow(at, plain(to)));
            }
        };
        // Further errors of the socket are an event of their own.
        let _ = batch.receive_errors(descriptor.as_fd(), told);
    }

    fn place(&self, socket: u64) -> Option<(&Family, usize)> {
        let [v4, v6] = &self.families;
        let (at, is_v6) = split(socket);
        Some((if is_v6 { v6 } else { v4 }, usize::try_from(at).ok()?))
    }
}

impl Family {
    /// Opens another socket.
    fn open(&mut self, epoll: &AsyncFd<OwnedFd>, is_v6: bool, fragments: bool) -> io::Result<()> {
        let socket = OwnedFd::from(unconnected(is_v6)?);
        let (level, errors) = match is_v6 {
            false => (libc::IPPROTO_IP, libc::IP_RECVERR),
            true => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
        };
        set(socket.as_fd(), level, errors, 1)?;
        tell_ecn(socket.as_fd(), is_v6)?;
        if !fragments {
            never_fragment(socket.as_fd(), is_v6)?;
        }
        // Kernels before 5.0 join nothing, and less room is room as well.
        let _ = set(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1);
        let _ = set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER);
        let number = u64::try_from(self.sockets.len()).unwrap_or_default() << 1 | u64::from(is_v6);
        let wanted = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(epoll.get_ref(), &socket, epoll::EventData::new_u64(number), wanted)?;
        self.sockets.push(socket);
        Ok(())
    }
}

/// Which socket of which family a number stands for: its position, and whether it is one of IPv6.
fn split(socket: u64) -> (u32, bool) {
    (u32::try_from(socket >> 1).unwrap_or(u32::MAX), socket & 1 == 1)
}

/// The address as a backend is known by: without what a flow label adds.
fn plain(mut address: SocketAddr) -> SocketAddr {
    if let SocketAddr::V6(v6) = &mut address {
        v6.set_flowinfo(0);
    }
    address
}

/// Whether an error says that nothing listens there, or that there is no way to it.
fn is_unreachable(error: i32) -> bool {
    matches!(error, libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENOPROTOOPT)
}
