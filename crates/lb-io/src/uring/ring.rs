//! One ring of the kernel, and the ownership of the memory of what is under way in it.
//!
//! All that is unsafe about io_uring(7) stands here and in [`super::buffers`]: an operation takes the memory that the kernel will read
//! along, as a [`Flight`], and only the operation's last completion gives it back.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::event::{EventfdFlags, eventfd};
use socket2::SockAddr;

use super::buffers::{BUFFER_COUNT, Buffers, GROUP};

/// Entries of the submission queue. One more costs an early submission, nothing else.
const SUBMISSIONS: u32 = 1024;

/// Entries of the completion queue. More than fit wait in the kernel until there is room.
const COMPLETIONS: u32 = 8192;

/// Bytes that one multishot receive takes in before it must be started anew, so that a stream whose reader stalls holds no more.
pub(crate) const RECEIVE_AHEAD: u32 = 16 * 1024;

/// `IORING_ENTER_GETEVENTS`: run what the kernel has deferred, and post its completions.
const GETEVENTS: u32 = 1;

/// `IORING_RECVSEND_POLL_FIRST`: there is nothing to receive yet.
const POLL_FIRST: u16 = 1;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Takes connections, one completion each.
    Accept = 1,
    /// Connects a socket.
    Connect,
    /// Receives into the kernel's buffers.
    Receive,
    /// Sends all of a buffer.
    Send,
    /// Waits until there is something to read, or the peer has hung up.
    Readable,
    /// Waits until there is room to write.
    Writable,
    /// Waits until the peer has hung up.
    Hangup,
    /// Takes another operation back.
    Cancel,
}

impl Kind {
    /// In the order of their numbers.
    const ALL: [Self; 8] = [
        Self::Accept,
        Self::Connect,
        Self::Receive,
        Self::Send,
        Self::Readable,
        Self::Writable,
        Self::Hangup,
        Self::Cancel,
    ];
}

/// Names an operation: its kind, and the key of the socket that waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) key: usize,
}

impl Token {
    const KIND_SHIFT: u32 = 56;

    fn encode(self) -> u64 {
        ((self.kind as u64) << Self::KIND_SHIFT) | (self.key as u64 & ((1 << Self::KIND_SHIFT) - 1))
    }

    fn decode(data: u64) -> Option<Self> {
        let index = ((data >> Self::KIND_SHIFT) as u8).checked_sub(1)?;
        let kind = *Kind::ALL.get(usize::from(index))?;
        Some(Self { kind, key: usize::try_from(data & ((1 << Self::KIND_SHIFT) - 1)).ok()? })
    }
}

/// What became of an operation.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) token: Token,
    /// What the system call would have returned: a number, or an error code.
    pub(crate) result: Result<usize, i32>,
    /// The connection that was accepted.
    pub(crate) accepted: Option<OwnedFd>,
    /// The buffer that the kernel has filled.
    pub(crate) buffer: Option<u16>,
    /// More will follow from the same operation.
    pub(crate) more: bool,
    /// There was more to receive at that moment.
    pub(crate) not_empty: bool,
}

impl Completion {
    fn new(entry: &cqueue::Entry) -> Option<Self> {
        let token = Token::decode(entry.user_data())?;
        let (result, flags) = (entry.result(), entry.flags());
        let accepted = (token.kind == Kind::Accept && result >= 0).then(|| own(result));
        Some(Self {
            token,
            result: usize::try_from(result).map_err(|_| result.saturating_neg()),
            accepted,
            buffer: cqueue::buffer_select(flags),
            more: cqueue::more(flags),
            not_empty: cqueue::sock_nonempty(flags),
        })
    }
}

#[expect(unsafe_code, reason = "accepted connections come as numbers")]
fn own(descriptor: i32) -> OwnedFd {
    // SAFETY: the kernel has opened this descriptor for this completion, which is looked at once; no other owner exists.
    // JUSTIFICATION: from here on it is closed by its owner.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Memory that the kernel may read until its operation is complete. Dropped before that, it stays allocated for good.
pub(crate) struct Flight<T> {
    token: Token,
    memory: ManuallyDrop<T>,
}

impl<T> Flight<T> {
    /// Gives the memory back, if `completion` is the last word on its operation.
    pub(crate) fn land(self, completion: &Completion) -> Option<T> {
        (completion.token == self.token && !completion.more).then(|| ManuallyDrop::into_inner(self.memory))
    }
}

impl<T> fmt::Debug for Flight<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight").field("token", &self.token).finish_non_exhaustive()
    }
}

/// A ring that is set up whole and waits for the thread that will use it.
pub(crate) struct Prepared {
    // Dropped first, as in `Ring`.
    ring: IoUring,
    wakeup: OwnedFd,
    buffers: Buffers,
    /// Whether one receive can bring several completions.
    multishot: bool,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("multishot", &self.multishot).finish_non_exhaustive()
    }
}

/// A step of setting a ring up, for the message that says why there is none.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) step: &'static str,
    pub(crate) error: io::Error,
}

pub(crate) fn failed(step: &'static str) -> impl Fn(io::Error) -> Failed {
    move |error| Failed { step, error }
}

impl Prepared {
    /// Sets a ring up, not yet bound to a thread, with all the memory that the kernel counts as locked.
    pub(crate) fn new(multishot: bool) -> Result<Self, Failed> {
        Self::with_queues(multishot, SUBMISSIONS, COMPLETIONS)
    }

    /// As [`Self::new`], with queues of other lengths.
    #[expect(unsafe_code, reason = "the kernel is given memory for a ring of buffers")]
    pub(super) fn with_queues(multishot: bool, submissions: u32, completions: u32) -> Result<Self, Failed> {
        let ring = IoUring::builder()
            .setup_cqsize(completions)
            .setup_submit_all()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_defer_taskrun()
            .setup_r_disabled()
            .build(submissions)
            .map_err(failed("io_uring_setup(2) with SINGLE_ISSUER, COOP_TASKRUN and DEFER_TASKRUN"))?;
        let parameters = ring.params();
        if !parameters.is_feature_nodrop() || !parameters.is_feature_ext_arg() {
            return Err(failed("features NODROP and EXT_ARG")(io::ErrorKind::Unsupported.into()));
        }
        let wakeup = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(|error| failed("eventfd(2)")(error.into()))?;
        ring.submitter().register_eventfd(wakeup.as_raw_fd()).map_err(failed("an eventfd for the ring"))?;
        let buffers = Buffers::new().map_err(failed("memory for received bytes"))?;
        // SAFETY: the address is that of `BUFFER_COUNT` entries on pages of their own, which live until after the ring is closed.
        // JUSTIFICATION: a provided-buffer ring is the only way to receive without naming a buffer in advance.
        unsafe { ring.submitter().register_buf_ring_with_flags(buffers.address(), BUFFER_COUNT, GROUP, 0) }
            .map_err(failed("a provided-buffer ring"))?;
        Ok(Self { ring, wakeup, buffers, multishot })
    }
}

/// A ring on the thread that uses it.
pub(crate) struct Ring {
    // Dropped first: nothing of the ring runs when the memory below goes.
    ring: IoUring,
    wakeup: OwnedFd,
    buffers: Rc<Buffers>,
    multishot: bool,
    /// Operations for which the submission queue had no room.
    backlog: VecDeque<Entry>,
    #[cfg(any(test, feature = "faults"))]
    faults: super::faults::Faults,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("multishot", &self.multishot).finish_non_exhaustive()
    }
}

impl Ring {
    /// Binds a prepared ring to this thread, the only one that may use it from now on.
    pub(crate) fn start(prepared: Prepared) -> Result<Self, Failed> {
        // The last of these is dropped first.
        let Prepared { buffers, wakeup, multishot, ring } = prepared;
        ring.submitter().register_enable_rings().map_err(failed("the ring's start"))?;
        // Saves a look-up with each call; the ring works as well without.
        let _ = ring.submitter().register_ring_fd();
        Ok(Self {
            ring,
            wakeup,
            buffers: Rc::new(buffers),
            multishot,
            backlog: VecDeque::new(),
            #[cfg(any(test, feature = "faults"))]
            faults: super::faults::Faults::default(),
        })
    }

    /// The descriptor that becomes readable when completions wait and [`Self::set_wakeup`] is on.
    pub(crate) fn wakeup_fd(&self) -> &OwnedFd {
        &self.wakeup
    }

    /// The buffers that are received into.
    pub(crate) fn buffers(&self) -> &Rc<Buffers> {
        &self.buffers
    }

    /// Whether the kernel shall say by the eventfd that there is something to do.
    pub(crate) fn set_wakeup(&mut self, on: bool) {
        let completions = self.ring.completion();
        if on { completions.enable_eventfd() } else { completions.disable_eventfd() }
    }

    /// Whether [`Self::enter`] would bring something.
    pub(crate) fn has_work(&mut self) -> bool {
        if self.has_refused() || !self.backlog.is_empty() {
            return true;
        }
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        let (_, mut submissions, mut completions) = self.ring.split();
        submissions.sync();
        completions.sync();
        submissions.taskrun()
            || submissions.cq_overflow()
            || !submissions.is_empty()
            || !completions.is_empty()
    }

    /// Hands all that was asked for to the kernel and runs what it has deferred. With `wait`, sleeps until there is a completion, for
    /// no longer than that.
    ///
    /// # Errors
    /// When the ring itself is unusable.
    #[expect(unsafe_code, reason = "the crate's safe calls run deferred work only when they also wait")]
    pub(crate) fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        #[cfg(any(test, feature = "faults"))]
        if let Some(code) = self.faults.breaks() {
            return Err(io::Error::from_raw_os_error(code));
        }
        loop {
            self.refill();
            let pending = self.ring.submission().len();
            let result = if let Some(wait) = wait.filter(|_| self.backlog.is_empty()) {
                let wait = Timespec::from(wait);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&wait))
            } else if pending > 0 || self.has_work() {
                let count = u32::try_from(pending).unwrap_or(u32::MAX);
                // SAFETY: no argument is passed, and the entries up to `count` are whole; what they point to is owned by flights.
                // JUSTIFICATION: one call for both submission and completions, without waiting.
                unsafe { self.ring.submitter().enter::<libc::sigset_t>(count, 0, GETEVENTS, None) }
            } else {
                Ok(0)
            };
            match result.map_err(|error| error.raw_os_error()) {
                Ok(_) => {}
                // Nothing came in time; a signal; completions wait for room, which reaping makes.
                Err(Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => return Ok(()),
                Err(code) => return Err(io::Error::from_raw_os_error(code.unwrap_or(libc::EIO))),
            }
            if self.backlog.is_empty() {
                return Ok(());
            }
        }
    }

    /// Adds what has completed to `completed`, in order.
    pub(crate) fn reap(&mut self, completed: &mut Vec<Completion>) {
        for entry in self.ring.completion() {
            completed.extend(Completion::new(&entry));
        }
        #[cfg(any(test, feature = "faults"))]
        self.faults.reaped(completed);
    }

    /// Takes connections until cancelled.
    pub(crate) fn accept(&mut self, socket: BorrowedFd<'_>, token: Token) {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        self.push(opcode::AcceptMulti::new(Fd(socket.as_raw_fd())).flags(flags).build(), token);
    }

    /// Connects `socket`.
    pub(crate) fn connect(
        &mut self,
        socket: BorrowedFd<'_>,
        address: Box<SockAddr>,
        token: Token,
    ) -> Flight<Box<SockAddr>> {
        let entry = opcode::Connect::new(Fd(socket.as_raw_fd()), address.as_ptr().cast(), address.len());
        self.push(entry.build(), token);
        Flight { token, memory: ManuallyDrop::new(address) }
    }

    /// Receives into the kernel's buffers: up to `most` bytes in several completions, [`RECEIVE_AHEAD`] at most, or once, where the
    /// kernel cannot keep such a bound.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>, most: u32, token: Token) {
        let socket = Fd(socket.as_raw_fd());
        let entry = if self.multishot {
            with_limit(opcode::RecvMulti::new(socket, GROUP).build(), most.min(RECEIVE_AHEAD))
        } else {
            let entry =
                opcode::Recv::new(socket, std::ptr::null_mut(), 0).buf_group(GROUP).ioprio(POLL_FIRST);
            entry.build().flags(squeue::Flags::BUFFER_SELECT)
        };
        self.push(entry, token);
    }

    /// Sends all of `bytes`, however long that takes.
    pub(crate) fn send(&mut self, socket: BorrowedFd<'_>, bytes: Vec<u8>, token: Token) -> Flight<Vec<u8>> {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(Fd(socket.as_raw_fd()), bytes.as_ptr(), len)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL);
        self.push(entry.build(), token);
        Flight { token, memory: ManuallyDrop::new(bytes) }
    }

    /// Waits once for one of the events of poll(2).
    pub(crate) fn poll(&mut self, socket: BorrowedFd<'_>, events: i16, token: Token) {
        let events = u32::from(events.cast_unsigned());
        self.push(opcode::PollAdd::new(Fd(socket.as_raw_fd()), events).build(), token);
    }

    /// Takes an operation back. It still completes, perhaps with what it had done already.
    pub(crate) fn cancel(&mut self, target: Token) {
        let token = Token { kind: Kind::Cancel, key: target.key };
        self.push(opcode::AsyncCancel::new(target.encode()).build(), token);
    }

    fn push(&mut self, entry: Entry, token: Token) {
        #[cfg(any(test, feature = "faults"))]
        if self.faults.refuses(token) {
            return;
        }
        let entry = entry.user_data(token.encode());
        // None overtakes another.
        if !self.backlog.is_empty() || !self.submit(&entry) {
            self.backlog.push_back(entry);
            self.refill();
        }
    }

    /// Moves what waits into the submission queue; hands that to the kernel when it is full.
    fn refill(&mut self) {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.submit(&entry) {
                self.backlog.push_front(entry);
                // Where the kernel takes nothing for the moment, `enter` tries again after completions were reaped.
                if self.ring.submit().is_err() {
                    return;
                }
            }
        }
    }

    /// Adds to the submission queue, if that has room.
    #[inline]
    #[expect(unsafe_code, reason = "entries point to memory")]
    fn submit(&mut self, entry: &Entry) -> bool {
        // SAFETY: what the entry points to is kept by a flight until the operation is complete, and its descriptor by the socket that
        // counts it among its operations.
        // JUSTIFICATION: there is no other way to ask for an operation.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }
}

impl Ring {
    #[cfg(any(test, feature = "faults"))]
    fn has_refused(&self) -> bool {
        self.faults.has_refused()
    }

    #[cfg(not(any(test, feature = "faults")))]
    fn has_refused(&self) -> bool {
        false
    }
}

#[cfg(any(test, feature = "faults"))]
impl Ring {
    /// What goes wrong on purpose.
    pub(crate) fn faults(&mut self) -> &mut super::faults::Faults {
        &mut self.faults
    }
}

#[cfg(test)]
impl Ring {
    /// Whether completions wait in the kernel for room in the queue.
    pub(super) fn has_overflown(&mut self) -> bool {
        self.ring.submission().cq_overflow()
    }
}

/// Bounds a multishot receive. The crate's builder does not know the field, `optlen` at byte 44 of an entry.
#[expect(unsafe_code, reason = "a field that the crate does not name yet")]
fn with_limit(mut entry: Entry, bytes: u32) -> Entry {
    const { assert!(size_of::<Entry>() == 64) };
    // SAFETY: an entry is one `struct io_uring_sqe` of 64 bytes, plain data; byte 44 begins its `optlen`, a 32-bit field that is aligned.
    // JUSTIFICATION: without the bound a stream whose reader stalls could fill all buffers of the worker.
    unsafe { (&raw mut entry).cast::<u32>().add(11).write(bytes) };
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        for kind in Kind::ALL {
            let token = Token { kind, key: 123_456_789 };
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
        assert_eq!(Token::decode(0), None);
        assert_eq!(Token::decode(u64::MAX), None);
    }
}
