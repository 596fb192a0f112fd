//! Datagrams that are to be sent.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

use super::control::{SEND_ROOM, Writer};
use super::kernel::{Outbound, OutboundMessage};
use super::name::{self, Name};
use super::receive::Received;
use crate::socket::DatagramSocket;

/// Datagrams that one message carries at most (`UDP_MAX_SEGMENTS` of kernels before 6.9).
const SEGMENTS: usize = 64;

/// Bytes that one message carries at most: the largest payload that IPv4 has room for.
const MESSAGE: usize = super::MAX_DATAGRAM;

/// A batch is full when it holds this many bytes, or [`FULL_MESSAGES`].
const FULL_BYTES: usize = 512 * 1024;

/// Messages of a full batch.
const FULL_MESSAGES: usize = 256;

/// Datagrams that leave together.
pub struct SendBatch {
    /// Bytes of messages up to `used`, and room behind them that was cleared once.
    payload: Vec<u8>,
    used: usize,
    messages: Vec<Message>,
    /// The messages before this one have been sent or refused.
    next: usize,
    outbound: Outbound,
    is_used: bool,
}

/// Datagrams of one size and with one mark for one destination; the last may be shorter.
#[derive(Clone, Copy, Debug)]
struct Message {
    name: Name,
    from: Option<IpAddr>,
    ecn: u8,
    start: usize,
    length: usize,
    segment: usize,
}

impl Message {
    fn count(&self) -> usize {
        self.length.div_ceil(self.segment.max(1)).max(1)
    }

    /// Each of its datagrams as a message of its own.
    fn alone(&self) -> impl Iterator<Item = Self> + use<> {
        let message = *self;
        (0..message.count()).map(move |number| {
            let offset = number.saturating_mul(message.segment);
            let length = message.segment.min(message.length.saturating_sub(offset));
            Self { start: message.start.saturating_add(offset), length, segment: length, ..message }
        })
    }

    /// Whether another datagram can follow in this message.
    fn takes(&self, name: &Name, from: Option<IpAddr>, ecn: u8, bytes: usize) -> bool {
        let is_closed = self.segment == 0 || !self.length.is_multiple_of(self.segment);
        !is_closed
            && (1..=self.segment).contains(&bytes)
            && self.count() < SEGMENTS
            && self.length.saturating_add(bytes) <= MESSAGE
            && self.ecn == ecn
            && self.name == *name
            && self.from == from
    }
}

/// What became of the datagrams of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendOutcome {
    /// Datagrams that the kernel has taken.
    pub sent: u64,
    /// Bytes of their payload.
    pub bytes: u64,
    /// Datagrams that the kernel has refused: too large for the path, no route, a firewall.
    pub refused: u64,
}

impl SendOutcome {
    /// Adds what became of others.
    pub fn add(&mut self, other: Self) {
        self.sent = self.sent.saturating_add(other.sent);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.refused = self.refused.saturating_add(other.refused);
    }
}

impl Default for SendBatch {
    fn default() -> Self {
        Self {
            payload: Vec::new(),
            used: 0,
            messages: Vec::new(),
            next: 0,
            outbound: Outbound::new(),
            is_used: false,
        }
    }
}

impl fmt::Debug for SendBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendBatch").field("messages", &self.messages).finish_non_exhaustive()
    }
}

impl SendBatch {
    /// Adds a copy of a datagram for `to`, without an ECN mark. `from` is the address of this machine that it is sent from; without, the kernel
    /// chooses.
    pub fn push(&mut self, to: SocketAddr, from: Option<IpAddr>, bytes: &[u8]) {
        self.push_marked(to, from, 0, bytes);
    }

    /// As [`Self::push`], with the two bits of explicit congestion notification (RFC 3168).
    pub fn push_marked(&mut self, to: SocketAddr, from: Option<IpAddr>, ecn: u8, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.commit(to, from, ecn, bytes.len());
    }

    /// Adds a copy of datagrams that were received, whose ECN marks they keep (RFC 9331 §3: who forwards a packet does not clear its mark).
    pub fn push_received(&mut self, to: SocketAddr, from: Option<IpAddr>, received: &Received<'_>) {
        let Received { ecn, segment, .. } = *received;
        let bytes = &*received.bytes;
        if segment >= bytes.len() {
            return self.push_marked(to, from, ecn, bytes);
        }
        for datagram in bytes.chunks(segment.max(1)) {
            self.push_marked(to, from, ecn, datagram);
        }
    }

    /// Adds the datagram that `write` puts into the `room` bytes that it is given, if it says that it has put any: of so many bytes. Its
    /// result comes back. It has no ECN mark.
    pub fn write<E>(
        &mut self,
        room: usize,
        write: impl FnOnce(&mut [u8]) -> Result<(usize, SocketAddr, Option<IpAddr>), E>,
    ) -> Result<usize, E> {
        let (length, to, from) = write(self.room(room))?;
        let length = length.min(room);
        if length > 0 {
            self.commit(to, from, 0, length);
        }
        Ok(length)
    }

    /// So many bytes behind those that are used.
    fn room(&mut self, bytes: usize) -> &mut [u8] {
        let end = self.used.saturating_add(bytes);
        if self.payload.len() < end {
            self.payload.resize(end, 0);
        }
        self.payload.get_mut(self.used..end).unwrap_or_default()
    }

    /// The next `length` bytes of the payload are a datagram.
    fn commit(&mut self, to: SocketAddr, from: Option<IpAddr>, ecn: u8, length: usize) {
        self.is_used = true;
        let (name, start) = (Name::from(to), self.used);
        self.used = start.saturating_add(length);
        match self.messages.last_mut() {
            Some(last) if last.takes(&name, from, ecn, length) => {
                last.length = last.length.saturating_add(length);
            }
            _ => self.messages.push(Message { name, from, ecn, start, length, segment: length }),
        }
    }

    /// Whether nothing waits to be sent.
    pub fn is_empty(&self) -> bool {
        self.next >= self.messages.len()
    }

    /// Whether the batch had better be sent before more is added.
    pub fn is_full(&self) -> bool {
        self.messages.len() >= FULL_MESSAGES || self.used >= FULL_BYTES
    }

    /// Throws away what waits.
    pub fn clear(&mut self) {
        self.used = 0;
        self.messages.clear();
        self.next = 0;
    }

    /// Frees the memory that was not needed since the last call.
    pub(crate) fn rest(&mut self) {
        if !std::mem::take(&mut self.is_used) && self.is_empty() {
            *self = Self::default();
        }
    }

    /// Sends as much as the socket takes without waiting; says whether that is everything. `can_segment` is cleared where the device of a
    /// destination cannot cut messages into datagrams.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>, can_segment: &mut bool) -> (bool, SendOutcome) {
        let mut outcome = SendOutcome::default();
        // The message that was tried again, by its position.
        let mut again = None;
        while !self.is_empty() {
            if !*can_segment {
                self.split();
            }
            match self.send_some(socket) {
                Ok(count) => {
                    let sent = self.messages.iter().skip(self.next).take(count);
                    for message in sent {
                        outcome.sent = outcome.sent.saturating_add(wide(message.count()));
                        outcome.bytes = outcome.bytes.saturating_add(wide(message.length));
                    }
                    self.next = self.next.saturating_add(count);
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN) => return (false, outcome),
                    // The device cannot make checksums, without which the kernel does not cut.
                    Some(libc::EIO) if self.is_joined() => *can_segment = false,
                    // A datagram is larger than the path's packets: each is tried by itself, and those that fit leave.
                    Some(libc::EINVAL | libc::EMSGSIZE) if self.is_joined() => self.split_first(),
                    // Perhaps the error for a datagram that was sent earlier, to another destination: then this one has not been tried.
                    Some(libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH)
                        if again != Some(self.next) =>
                    {
                        again = Some(self.next);
                    }
                    _ => {
                        let refused = self.messages.get(self.next).map_or(0, Message::count);
                        outcome.refused = outcome.refused.saturating_add(wide(refused));
                        self.next = self.next.saturating_add(1);
                    }
                },
            }
        }
        self.clear();
        (true, outcome)
    }

    /// Sends everything by a socket that is not the kernel's.
    pub(super) fn send_plugged(&mut self, socket: &dyn DatagramSocket) -> SendOutcome {
        let mut outcome = SendOutcome::default();
        for one in self.messages.iter().skip(self.next).flat_map(Message::alone) {
            let bytes = self.payload.get(one.start..one.start.saturating_add(one.length)).unwrap_or_default();
            if let Some(to) = name::read(one.name.bytes()) {
                socket.send(to, one.from, bytes);
                outcome.sent = outcome.sent.saturating_add(1);
                outcome.bytes = outcome.bytes.saturating_add(wide(one.length));
            }
        }
        self.clear();
        outcome
    }

    fn send_some(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let Self { payload, messages, next, outbound, .. } = self;
        let waiting = messages.iter().skip(*next).map(|message| {
            let end = message.start.saturating_add(message.length);
            let bytes = payload.get(message.start..end).unwrap_or_default();
            (OutboundMessage { name: message.name.bytes(), bytes }, message)
        });
        outbound.send(socket, waiting, write_control)
    }

    /// Whether the next message has more than one datagram.
    fn is_joined(&self) -> bool {
        self.messages.get(self.next).is_some_and(|message| message.count() > 1)
    }

    /// Makes a message of each datagram of the next message.
    fn split_first(&mut self) {
        let Some(message) = self.messages.get(self.next).copied() else { return };
        let after = self.next.saturating_add(1);
        self.messages.splice(self.next..after, message.alone());
    }

    /// Makes a message of each datagram.
    fn split(&mut self) {
        let waiting = self.messages.split_off(self.next.min(self.messages.len()));
        self.messages.extend(waiting.iter().flat_map(Message::alone));
    }
}

fn write_control(message: &Message, room: &mut [u8; SEND_ROOM]) -> usize {
    let mut writer = Writer::new(room);
    if let Some(from) = message.from {
        writer.from(from);
    }
    if message.ecn != 0 {
        writer.ecn(message.ecn, message.name.is_v6());
    }
    if message.count() > 1 {
        writer.segment(u16::try_from(message.segment).unwrap_or(u16::MAX));
    }
    writer.finish()
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
