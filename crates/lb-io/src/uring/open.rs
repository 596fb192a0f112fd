//! Connections that begin: taken from a listening socket, or made to a backend.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use lb_core::address::ClientAddress;

use super::driver::Driver;
use super::ring::{Kind, Ring, Token};
use super::send::gone;
use super::slot::{Connecting, Listening, Slot, Socket, register};
use super::stream::RingStream;

/// How long closing waits for the kernel to take no more connections; it does not hesitate, unless the ring is broken.
const WITHIN: Duration = Duration::from_secs(1);

/// A listening socket on the ring.
#[derive(Debug)]
pub(crate) struct RingListener {
    driver: Rc<Driver>,
    key: usize,
    is_unix: bool,
}

impl Listening {
    /// Has the kernel take connections, or say when there is one.
    pub(super) fn ask(&mut self, ring: &mut Ring, key: usize) {
        if self.is_accepting || self.is_polling {
            return;
        }
        let socket = self.descriptor.as_fd();
        if self.is_short {
            self.is_polling = true;
            ring.poll(socket, libc::POLLIN, Token { kind: Kind::Readable, key });
        } else {
            self.is_accepting = true;
            ring.accept(socket, Token { kind: Kind::Accept, key });
        }
    }
}

impl RingListener {
    /// Hands a listening socket to the driver.
    pub(crate) fn new(driver: &Rc<Driver>, descriptor: OwnedFd, is_unix: bool) -> Self {
        let listening = Listening {
            descriptor,
            accepted: VecDeque::new(),
            is_accepting: false,
            is_polling: false,
            is_short: false,
            cancels: 0,
            waker: None,
            is_closing: false,
        };
        let key = driver.with(|state| state.slots.insert(Slot::Listening(listening)));
        Self { driver: Rc::clone(driver), key, is_unix }
    }

    /// The next connection.
    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(RingStream, ClientAddress)>> {
        ready!(self.driver.charge(cx));
        let next = self.driver.with(|state| {
            let Some((listening, ring)) = state.listening(self.key) else { return Some(Err(libc::EBADF)) };
            if let Some(accepted) = listening.accepted.pop_front() {
                return Some(accepted);
            }
            listening.ask(ring, self.key);
            register(&mut listening.waker, cx);
            None
        });
        match next {
            None => Poll::Pending,
            Some(Ok(descriptor)) => Poll::Ready(self.stream(descriptor)),
            Some(Err(code)) => Poll::Ready(Err(io::Error::from_raw_os_error(code))),
        }
    }

    fn stream(&self, descriptor: OwnedFd) -> io::Result<(RingStream, ClientAddress)> {
        let peer = if self.is_unix {
            ClientAddress::Unix
        } else {
            socket2::SockRef::from(&descriptor).peer_addr()?.as_socket().ok_or_else(gone)?.into()
        };
        Ok((RingStream::new(&self.driver, descriptor), peer))
    }

    /// Closes the socket, but first takes every connection whose handshake is done.
    pub(crate) fn close(self, mut take: impl FnMut(RingStream, ClientAddress)) {
        let end = Instant::now() + WITHIN;
        loop {
            let (next, is_accepting) = self.driver.with(|state| {
                state.stop_accepting(self.key);
                match state.listening(self.key) {
                    Some((listening, _)) => (listening.accepted.pop_front(), listening.is_accepting),
                    None => (None, false),
                }
            });
            match next {
                Some(Ok(descriptor)) => {
                    self.stream(descriptor).into_iter().for_each(|(stream, peer)| take(stream, peer));
                }
                Some(Err(_)) => {}
                None if is_accepting && Instant::now() < end => drop(self.driver.turn(None)),
                None => break,
            }
        }
        let waiting = || {
            self.driver.with(|state| {
                let (listening, _) = state.listening(self.key)?;
                socket2::SockRef::from(&listening.descriptor).accept().ok()
            })
        };
        while let Some((socket, _)) = waiting() {
            if socket.set_nonblocking(true).is_ok() {
                self.stream(socket.into()).into_iter().for_each(|(stream, peer)| take(stream, peer));
            }
        }
    }
}

impl Drop for RingListener {
    fn drop(&mut self) {
        self.driver.with(|state| state.release(self.key, Instant::now()));
    }
}

/// A connection that is being made. Dropped before it is there, it is given up.
#[derive(Debug)]
pub(crate) struct Connect {
    driver: Rc<Driver>,
    key: usize,
    is_handed_on: bool,
}

impl Connect {
    /// Begins to connect `socket` to `address`.
    pub(crate) fn new(driver: &Rc<Driver>, socket: OwnedFd, address: SocketAddr) -> Self {
        let key = driver.with(|state| {
            let entry = state.slots.vacant_entry();
            let token = Token { kind: Kind::Connect, key: entry.key() };
            let flight = state.ring.connect(socket.as_fd(), Box::new(address.into()), token);
            entry.insert(Slot::Connecting(Connecting {
                descriptor: Some(socket),
                flight: Some(flight),
                result: None,
                cancels: 0,
                waker: None,
                is_closing: false,
            }));
            token.key
        });
        Self { driver: Rc::clone(driver), key, is_handed_on: false }
    }

    /// The connection, when it is there.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<io::Result<RingStream>> {
        let result = self.driver.with(|state| {
            let Some(slot) = state.slots.get_mut(self.key) else { return Some(Err(libc::EBADF)) };
            let Slot::Connecting(connecting) = slot else { return Some(Err(libc::EBADF)) };
            match connecting.result {
                None => {
                    register(&mut connecting.waker, cx);
                    None
                }
                Some(Ok(())) => match connecting.descriptor.take() {
                    Some(descriptor) => {
                        *slot = Slot::Socket(Socket::new(descriptor));
                        Some(Ok(()))
                    }
                    None => Some(Err(libc::EBADF)),
                },
                Some(Err(code)) => Some(Err(code)),
            }
        });
        match result {
            None => Poll::Pending,
            Some(Ok(())) => {
                self.is_handed_on = true;
                Poll::Ready(Ok(RingStream::of(&self.driver, self.key)))
            }
            Some(Err(code)) => Poll::Ready(Err(io::Error::from_raw_os_error(code))),
        }
    }
}

impl Drop for Connect {
    fn drop(&mut self) {
        if !self.is_handed_on {
            self.driver.with(|state| state.release(self.key, Instant::now()));
        }
    }
}
