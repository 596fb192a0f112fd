//! The system calls, and the structures that they work on. All unsafe code of UDP sockets is here.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::control::{RECEIVE_ROOM, SEND_ROOM, write_arrived};
use super::name::{NAME, Name};
use crate::socket::Arrived;

/// Messages that one system call moves at most.
pub(super) const MESSAGES: usize = 64;

/// Bytes of one message at most: what the kernel joins, or one datagram of any size.
pub(super) const MESSAGE: usize = 65_536;

/// Control messages, at an address that the kernel can read them from.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Room<const N: usize>([u8; N]);

const NO_HEADER: libc::mmsghdr = libc::mmsghdr {
    msg_hdr: libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: std::ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: std::ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    },
    msg_len: 0,
};

const NO_VECTOR: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

fn length(bytes: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(bytes).unwrap_or_default()
}

fn checked(result: libc::c_int) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Where the kernel puts what it has received. The pointers of `headers` lead into the other fields, whose memory stays where it is.
pub(super) struct Inbound {
    headers: Box<[libc::mmsghdr]>,
    _vectors: Box<[libc::iovec]>,
    names: Box<[[u8; NAME]]>,
    controls: Box<[Room<RECEIVE_ROOM>]>,
    payload: Box<[u8]>,
    /// How many messages the last call has received.
    received: usize,
}

/// One message that was received.
pub(super) struct InboundMessage<'a> {
    pub(super) name: &'a [u8],
    pub(super) control: &'a [u8],
    pub(super) bytes: &'a mut [u8],
    /// It was longer than the memory for it.
    pub(super) is_cut: bool,
}

impl Inbound {
    pub(super) fn new() -> Self {
        // The kernel gives memory only for what of the payload is used.
        let mut payload = vec![0; MESSAGES * MESSAGE].into_boxed_slice();
        let mut names = vec![[0; NAME]; MESSAGES].into_boxed_slice();
        let mut controls = vec![Room([0; RECEIVE_ROOM]); MESSAGES].into_boxed_slice();
        let mut vectors = vec![NO_VECTOR; MESSAGES].into_boxed_slice();
        for (vector, bytes) in vectors.iter_mut().zip(payload.chunks_exact_mut(MESSAGE)) {
            *vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        }
        let mut headers = vec![NO_HEADER; MESSAGES].into_boxed_slice();
        let parts = vectors.iter_mut().zip(&mut names).zip(&mut controls);
        for (header, ((vector, name), control)) in headers.iter_mut().zip(parts) {
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = name.as_mut_ptr().cast();
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
        }
        Self { headers, _vectors: vectors, names, controls, payload, received: MESSAGES }
    }

    /// Receives what has arrived, without waiting; says whether there may be more.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        self.take(socket, libc::MSG_DONTWAIT)
    }

    /// Receives what has come back of datagrams that were sent, each with the error for it (`IP_RECVERR`) and under the name that it was sent
    /// to; says whether there may be more.
    pub(super) fn receive_errors(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        self.take(socket, libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE)
    }

    #[expect(unsafe_code, reason = "no crate offers recvmmsg with memory that is kept between calls")]
    fn take(&mut self, socket: BorrowedFd<'_>, flags: libc::c_int) -> io::Result<bool> {
        // The kernel has written the lengths that it used.
        for header in self.headers.iter_mut().take(self.received) {
            header.msg_hdr.msg_namelen = length(NAME);
            header.msg_hdr.msg_controllen = RECEIVE_ROOM as _;
        }
        self.received = 0;
        let (headers, count) = (self.headers.as_mut_ptr(), MESSAGES as libc::c_uint);
        // SAFETY: `headers` are `count` headers; the pointers in them were made of fields of `self`, with their lengths, from slices that
        // own their memory, which does not move when `self` does; `self` is borrowed exclusively, so nothing else reads or writes that
        // memory meanwhile. The kernel keeps no pointer after the call.
        // JUSTIFICATION: one system call for 64 datagrams: one for each costs more than the rest of what forwarding takes.
        let received = checked(unsafe {
            libc::recvmmsg(socket.as_raw_fd(), headers, count, flags, std::ptr::null_mut())
        })?;
        self.received = received;
        Ok(received == MESSAGES)
    }

    /// Forgets what was received.
    pub(super) fn clear(&mut self) {
        for header in self.headers.iter_mut().take(self.received) {
            header.msg_hdr.msg_namelen = length(NAME);
            header.msg_hdr.msg_controllen = RECEIVE_ROOM as _;
        }
        self.received = 0;
    }

    /// Has `next` put datagrams where the kernel would, until it has none or there is no more room, and says how many there are.
    pub(super) fn put_each(&mut self, mut next: impl FnMut(&mut [u8]) -> Option<Arrived>) -> usize {
        let payloads = self.payload.chunks_exact_mut(MESSAGE);
        let parts = payloads.zip(&mut self.names).zip(&mut self.controls);
        for (header, ((payload, name), control)) in self.headers.iter_mut().zip(parts) {
            let Some(Arrived { from, to, length: bytes }) = next(payload) else { break };
            let from = Name::from(from);
            for (place, byte) in name.iter_mut().zip(from.bytes()) {
                *place = *byte;
            }
            header.msg_hdr.msg_namelen = length(from.bytes().len());
            header.msg_hdr.msg_controllen = write_arrived(to, &mut control.0) as _;
            header.msg_hdr.msg_flags = 0;
            header.msg_len = length(bytes);
            self.received = self.received.saturating_add(1);
        }
        self.received
    }

    /// What was received, in order.
    pub(super) fn messages(&mut self) -> impl Iterator<Item = InboundMessage<'_>> {
        let payloads = self.payload.chunks_exact_mut(MESSAGE);
        let parts = payloads.zip(&self.names).zip(&self.controls);
        self.headers.iter().take(self.received).zip(parts).map(|(header, ((payload, name), control))| {
            let used = |length: usize, whole: usize| length.min(whole);
            let (name_length, control_length) =
                (header.msg_hdr.msg_namelen as usize, header.msg_hdr.msg_controllen as _);
            InboundMessage {
                name: name.get(..used(name_length, NAME)).unwrap_or_default(),
                control: control.0.get(..used(control_length, RECEIVE_ROOM)).unwrap_or_default(),
                bytes: payload.get_mut(..used(header.msg_len as usize, MESSAGE)).unwrap_or_default(),
                is_cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            }
        })
    }
}

/// What the kernel is given to send. Filled and used within one call of [`Outbound::send`].
pub(super) struct Outbound {
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    controls: Vec<Room<SEND_ROOM>>,
}

/// One message to be sent.
pub(super) struct OutboundMessage<'a> {
    pub(super) name: &'a [u8],
    pub(super) bytes: &'a [u8],
}

impl Outbound {
    pub(super) const fn new() -> Self {
        Self { headers: Vec::new(), vectors: Vec::new(), controls: Vec::new() }
    }

    /// Sends the first [`MESSAGES`] messages at most, without waiting; `control` writes the control messages of each and says how long they are.
    /// Returns how many messages the kernel has taken: at least one.
    #[expect(unsafe_code, reason = "no crate offers sendmmsg with UDP_SEGMENT")]
    pub(super) fn send<'a, M>(
        &mut self,
        socket: BorrowedFd<'_>,
        messages: impl Iterator<Item = (OutboundMessage<'a>, M)>,
        control: impl Fn(M, &mut [u8; SEND_ROOM]) -> usize,
    ) -> io::Result<usize> {
        self.headers.clear();
        self.vectors.clear();
        // Pointers lead into these from here on: nothing may move them.
        self.headers.reserve(MESSAGES);
        self.vectors.reserve(MESSAGES);
        self.controls.resize(MESSAGES, Room([0; SEND_ROOM]));
        for ((message, facts), room) in messages.take(MESSAGES).zip(&mut self.controls) {
            let mut header = NO_HEADER;
            header.msg_hdr.msg_name = message.name.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = length(message.name.len());
            let controls = control(facts, &mut room.0);
            if controls > 0 {
                header.msg_hdr.msg_control = room.0.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = controls as _;
            }
            let (base, bytes) = (message.bytes.as_ptr().cast_mut().cast(), message.bytes.len());
            self.vectors.push(libc::iovec { iov_base: base, iov_len: bytes });
            self.headers.push(header);
        }
        for (header, vector) in self.headers.iter_mut().zip(&mut self.vectors) {
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        let count = libc::c_uint::try_from(self.headers.len()).unwrap_or_default();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: `headers` are `count` headers. Their names and payloads are slices that are borrowed for longer than this call; vectors and
        // control messages are fields of `self` that were not moved since the pointers were made. The kernel only reads what they point to,
        // writes `msg_len` in the headers, and keeps no pointer after the call.
        // JUSTIFICATION: one system call for 64 messages of up to 64 datagrams each.
        checked(unsafe { libc::sendmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), count, flags) })
    }
}

/// Sets an option that is a number.
#[expect(unsafe_code, reason = "socket2 does not offer UDP_GRO, IP_PKTINFO and their like")]
pub(super) fn set(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as it is borrowed; the pointer and the length describe one `c_int` that outlives the call; the
    // kernel only reads it.
    // JUSTIFICATION: joined datagrams, and answers from the address that was asked.
    checked(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            length(size_of::<libc::c_int>()),
        )
    })
    .map(drop)
}
