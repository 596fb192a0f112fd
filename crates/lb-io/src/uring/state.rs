//! The sockets of a worker, and what completions do to them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::Waker;
use std::time::{Duration, Instant};

use slab::Slab;

use super::receive::LEAST_AHEAD;
use super::release::reset_on_close;
use super::ring::{Completion, Kind, Ring, Token};
use super::send::send_now;
use super::slot::{Listening, Slot, Socket};

/// Buffers for output kept for reuse.
const KEEP_BUFFERS: usize = 256;

/// A buffer that has grown beyond this is not kept.
const KEEP_CAPACITY: usize = 32 * 1024;

/// Sends of one turn from which on they are handed to the kernel together.
const FEW_SENDS: usize = 2;

/// The whole state of a worker's driver.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) ring: Ring,
    pub(crate) slots: Slab<Slot>,
    /// Sockets whose output is to be sent.
    listed: Vec<usize>,
    /// Sockets that found no buffer to receive into.
    pub(super) starved: Vec<usize>,
    pub(super) lingering: VecDeque<(usize, Instant)>,
    spare: Vec<Vec<u8>>,
    /// The fewest that were spare since [`Self::rest`] was called.
    least_spare: usize,
    completed: Vec<Completion>,
    pub(super) wakers: Vec<Waker>,
}

impl State {
    pub(crate) fn new(ring: Ring) -> Self {
        Self {
            ring,
            slots: Slab::new(),
            listed: Vec::new(),
            starved: Vec::new(),
            lingering: VecDeque::new(),
            spare: Vec::new(),
            least_spare: 0,
            completed: Vec::new(),
            wakers: Vec::new(),
        }
    }

    /// A socket and the ring, to do something for the one with the other.
    #[inline]
    pub(crate) fn socket(&mut self, key: usize) -> Option<(&mut Socket, &mut Ring)> {
        match self.slots.get_mut(key) {
            Some(Slot::Socket(socket)) => Some((socket, &mut self.ring)),
            _ => None,
        }
    }

    /// A listening socket and the ring.
    pub(crate) fn listening(&mut self, key: usize) -> Option<(&mut Listening, &mut Ring)> {
        match self.slots.get_mut(key) {
            Some(Slot::Listening(listening)) => Some((listening, &mut self.ring)),
            _ => None,
        }
    }

    /// Takes a connected socket over.
    pub(crate) fn adopt(&mut self, descriptor: OwnedFd) -> usize {
        self.slots.insert(Slot::Socket(Socket::new(descriptor)))
    }

    /// Asks for the output of socket `key` to be sent with the next turn.
    #[inline]
    pub(crate) fn list(&mut self, key: usize) {
        if let Some(Slot::Socket(socket)) = self.slots.get_mut(key)
            && !socket.is_listed
        {
            socket.is_listed = true;
            self.listed.push(key);
        }
    }

    /// One turn: submits the operations to the kernel, and takes in what has completed. With `wait`, sleeps for a completion. The tasks to
    /// be woken are left in `wakers`.
    pub(crate) fn turn(&mut self, wait: Option<Duration>, wakers: &mut Vec<Waker>) -> io::Result<()> {
        if self.ring.buffers().are_few() || !self.starved.is_empty() {
            self.ring.buffers().grow();
        }
        if self.ring.buffers().are_few() {
            self.spill();
        }
        for key in std::mem::take(&mut self.starved) {
            if let Some((socket, ring)) = self.socket(key)
                && socket.closing.is_none()
                && !socket.pending.receive
                && socket.reader.is_some()
            {
                socket.pending.receive = true;
                ring.receive(socket.descriptor.as_fd(), LEAST_AHEAD, Token { kind: Kind::Receive, key });
            }
        }
        let mut listed = std::mem::take(&mut self.listed);
        let directly = listed.len() <= FEW_SENDS;
        for key in listed.drain(..) {
            self.transmit(key, directly);
        }
        listed.append(&mut self.listed);
        self.listed = listed;
        // A task that was woken by a direct send must not be left to sleep.
        let wait = wait.filter(|_| self.wakers.is_empty());
        let result = self.ring.enter(wait);
        let mut completed = std::mem::take(&mut self.completed);
        self.ring.reap(&mut completed);
        for completion in completed.drain(..) {
            self.complete(completion);
        }
        self.completed = completed;
        std::mem::swap(wakers, &mut self.wakers);
        result
    }

    /// Begins to send what socket `key` has queued. `directly` for few sends at a time: a call each costs no more then than asking for
    /// them and learning of their end.
    fn transmit(&mut self, key: usize, directly: bool) {
        let Some(Slot::Socket(socket)) = self.slots.get_mut(key) else { return };
        socket.is_listed = false;
        if socket.flight.is_some() || socket.queued.is_empty() {
            self.free(key);
            return;
        }
        if directly {
            let result = send_now(socket, &[]);
            match result {
                Ok(n) if n >= socket.queued.len() => {
                    let mut buffer = std::mem::take(&mut socket.queued);
                    buffer.clear();
                    self.sent(key, Some(buffer));
                    return;
                }
                Ok(n) => drop(socket.queued.drain(..n)),
                Err(code) => {
                    socket.fail(code);
                    self.sent(key, None);
                    return;
                }
            }
        }
        self.fly(key);
    }

    /// Has the kernel send what is queued, however long it takes.
    pub(crate) fn fly(&mut self, key: usize) {
        if let Some((socket, ring)) = self.socket(key)
            && socket.flight.is_none()
            && !socket.queued.is_empty()
        {
            let bytes = std::mem::take(&mut socket.queued);
            let flight = ring.send(socket.descriptor.as_fd(), bytes, Token { kind: Kind::Send, key });
            socket.flight = Some(flight);
        }
    }

    /// Output of socket `key` has gone, or has failed. `buffer` is empty and can be used again.
    pub(super) fn sent(&mut self, key: usize, buffer: Option<Vec<u8>>) {
        if let Some(buffer) = buffer.filter(|buffer| buffer.capacity() <= KEEP_CAPACITY)
            && self.spare.len() < KEEP_BUFFERS
        {
            self.spare.push(buffer);
        }
        let Some(Slot::Socket(socket)) = self.slots.get_mut(key) else { return };
        if socket.broken.is_some() {
            // Bytes that were taken are lost: the peer must not take what it has got for all there was.
            reset_on_close(socket);
            self.wakers.extend(socket.reader.take());
        }
        self.wakers.extend(socket.writer.take());
        if !socket.queued.is_empty() {
            self.list(key);
        } else if socket.shuts && socket.broken.is_none() && !socket.is_cut_off() {
            // Fails only on a socket that is gone already.
            let _ = rustix::net::shutdown(&socket.descriptor, rustix::net::Shutdown::Write);
        }
        self.free(key);
    }

    /// Frees memory that was not needed since the last call.
    pub(crate) fn rest(&mut self) {
        let unused = self.least_spare.min(self.spare.len());
        self.spare.drain(..unused);
        self.least_spare = self.spare.len();
        // What has completed and was not taken in yet lies in buffers that count as free.
        if !self.has_work() && self.ring.buffers().are_idle() {
            // A few unread bytes would keep all buffers in memory for as long as their readers stall.
            self.spill();
            self.ring.buffers().give_back();
        }
    }

    /// Whether a turn would bring something.
    pub(crate) fn has_work(&mut self) -> bool {
        !self.listed.is_empty() || !self.starved.is_empty() || !self.wakers.is_empty() || self.ring.has_work()
    }

    /// A buffer for the output of socket `key`, if that has none.
    #[inline]
    pub(super) fn spare_buffer(&mut self, key: usize) -> Option<Vec<u8>> {
        match self.slots.get(key) {
            Some(Slot::Socket(socket)) if socket.queued.capacity() == 0 => {
                let spare = self.spare.pop();
                self.least_spare = self.least_spare.min(self.spare.len());
                spare
            }
            _ => None,
        }
    }

    /// Gives back the kernel's buffers that hold unread bytes.
    fn spill(&mut self) {
        for (_, slot) in &mut self.slots {
            if let Slot::Socket(socket) = slot
                && socket.inbox.holds_buffers()
            {
                socket.inbox.spill();
            }
        }
    }
}
