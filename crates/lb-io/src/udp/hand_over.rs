//! What a process that takes over tells the one before it: which sockets it reads, and the datagrams that belong to connections there.
//!
//! A pair of connected sockets of type `SOCK_SEQPACKET`, which nothing else can reach. Messages that a version does not know are left out, so
//! that the versions of both processes may differ.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use tokio::io::unix::AsyncFd;

use crate::runtime::register;
use crate::udp::steering::TableId;

/// Both ends of a hand-over: for the process that takes over, and for the one before it.
///
/// # Errors
/// When descriptors are wanting.
pub fn pair() -> io::Result<(OwnedFd, Successor)> {
    let (theirs, ours) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    Ok((theirs, Successor { socket: register(ours)?, room: vec![0; ROOM] }))
}

/// Room for the largest message.
const ROOM: usize = crate::udp::MAX_DATAGRAM + 64;

/// Kinds of messages.
const PACKET: u8 = 1;
const READS: u8 = 2;

/// The process that this one takes over from.
#[derive(Debug)]
pub struct Predecessor {
    socket: OwnedFd,
    epochs: Vec<u16>,
    is_gone: AtomicBool,
}

impl Predecessor {
    /// By the end that was inherited, and the epochs that are behind it.
    pub fn new(socket: OwnedFd, epochs: Vec<u16>) -> Self {
        Self { socket, epochs, is_gone: AtomicBool::new(false) }
    }

    /// The epochs of connections that it can reach.
    pub fn epochs(&self) -> &[u16] {
        &self.epochs
    }

    /// Whether it has ended.
    pub fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    /// Tells it that this process reads the sockets at an address from now on.
    pub fn reads(&self, address: SocketAddr) {
        let mut message = vec![READS];
        put(&mut message, address);
        self.send(&message);
    }

    /// Passes a copy of a datagram on. What there is no room for is lost, as on a path. False when the process is gone.
    pub(super) fn pass_on(&self, table: TableId, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> bool {
        if self.is_gone() {
            return false;
        }
        let mut message = Vec::with_capacity(bytes.len() + 64);
        message.push(PACKET);
        message.extend_from_slice(&table.epoch.to_be_bytes());
        message.extend_from_slice(&table.number.to_be_bytes());
        put(&mut message, from);
        put(&mut message, to);
        message.extend_from_slice(bytes);
        self.send(&message)
    }

    fn send(&self, message: &[u8]) -> bool {
        match send(&self.socket, message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET | rustix::io::Errno::CONNREFUSED) => {
                self.is_gone.store(true, Ordering::Relaxed);
                false
            }
            _ => true,
        }
    }
}

/// What the process that takes over has said.
#[derive(Debug, PartialEq, Eq)]
pub enum Told<'a> {
    /// A datagram for a table of this process, or of one before it.
    Packet {
        /// The table.
        table: TableId,
        /// The peer's address.
        from: SocketAddr,
        /// The address that it was sent to.
        to: SocketAddr,
        /// The datagram.
        bytes: &'a [u8],
    },
    /// It reads the sockets at this address.
    Reads(SocketAddr),
}

/// The process that takes over from this one.
#[derive(Debug)]
pub struct Successor {
    socket: AsyncFd<OwnedFd>,
    room: Vec<u8>,
}

impl Successor {
    /// Waits for what it says next. `None` when it has ended.
    pub fn poll_told(&mut self, cx: &mut Context<'_>) -> Poll<Option<Told<'_>>> {
        loop {
            let Ok(mut ready) = ready!(self.socket.poll_read_ready(cx)) else { return Poll::Ready(None) };
            match recv(self.socket.get_ref(), self.room.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Poll::Ready(None),
                Ok((length, _)) => {
                    // What follows borrows from the room, so that it is read once more.
                    if read(self.room.get(..length).unwrap_or_default()).is_some() {
                        return Poll::Ready(read(self.room.get(..length).unwrap_or_default()));
                    }
                }
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Poll::Ready(None),
            }
        }
    }
}

/// Reads a message, if it is one that is known.
fn read(message: &[u8]) -> Option<Told<'_>> {
    let (kind, mut rest) = message.split_first()?;
    match *kind {
        PACKET => {
            let epoch = u16::from_be_bytes(*take(&mut rest)?);
            let number = u16::from_be_bytes(*take(&mut rest)?);
            let (from, to) = (address(&mut rest)?, address(&mut rest)?);
            Some(Told::Packet { table: TableId { epoch, number }, from, to, bytes: rest })
        }
        READS => Some(Told::Reads(address(&mut rest)?)),
        _ => None,
    }
}

fn take<'a, const N: usize>(from: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (bytes, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(bytes)
}

fn address(from: &mut &[u8]) -> Option<SocketAddr> {
    let ip: IpAddr = match take(from)? {
        [4] => (*take::<4>(from)?).into(),
        [6] => (*take::<16>(from)?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(*take(from)?)))
}

fn put(message: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            message.push(4);
            message.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            message.push(6);
            message.extend_from_slice(&ip.octets());
        }
    }
    message.extend_from_slice(&address.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn what_is_said_is_heard_until_one_of_them_is_gone() {
        let (theirs, mut successor) = pair().unwrap();
        let predecessor = Predecessor::new(theirs, vec![3]);
        let (v4, v6) = ("192.0.2.1:9".parse().unwrap(), "[2001:db8::1]:443".parse().unwrap());
        let table = TableId { epoch: 3, number: 0x0102 };
        predecessor.reads(v6);
        predecessor.send(b"\xffsomething of a later version");
        let bytes = vec![7; 60_000];
        assert!(predecessor.pass_on(table, v4, v6, &bytes));
        assert!(poll_fn(|cx| successor.poll_told(cx).map(|told| told == Some(Told::Reads(v6)))).await);
        let heard = poll_fn(|cx| {
            let expected = Told::Packet { table, from: v4, to: v6, bytes: &bytes };
            successor.poll_told(cx).map(|told| told == Some(expected))
        });
        assert!(heard.await);
        drop(successor);
        assert!(!predecessor.pass_on(table, v4, v6, b"late") && predecessor.is_gone());
        let (theirs, mut successor) = pair().unwrap();
        drop(theirs);
        assert!(poll_fn(|cx| successor.poll_told(cx).map(|told| told.is_none())).await);
    }

    #[test]
    fn messages_that_break_off_are_left_out() {
        let mut message = vec![PACKET, 0, 3, 0, 4];
        put(&mut message, "192.0.2.1:9".parse().unwrap());
        put(&mut message, "[2001:db8::1]:443".parse().unwrap());
        assert!(read(&message).is_some());
        for length in 0..message.len() {
            assert_eq!(read(&message[..length]), None);
        }
    }
}
