//! The io_uring driver: one ring for each worker, beside tokio.
//!
//! Small messages cost no system call of their own: a worker's sends go to the kernel together, once a turn, and what arrives comes in
//! buffers that the kernel fills ahead of a read. Bulk flows are moved as with epoll, by splice(2) and direct reads and writes; the ring
//! reports when that is possible. docs/decisions/0012 has the figures.
//!
//! * [`ring`] and [`buffers`]: the kernel's interface, and the ownership of memory meanwhile. All unsafe code of the driver is here.
//! * [`slot`], [`inbox`]: the state of one socket.
//! * [`state`], [`complete`], [`release`], [`receive`], [`send`]: what calls and completions do to it.
//! * [`driver`]: when the ring takes its turns.
//! * [`stream`], [`open`]: what the rest of the crate sees.
//! * [`probe`]: whether this machine has all of it.

pub(crate) mod buffers;
mod complete;
pub(crate) mod driver;
#[cfg(any(test, feature = "faults"))]
pub(crate) mod faults;
mod inbox;
pub(crate) mod open;
pub(crate) mod probe;
mod receive;
mod release;
pub(crate) mod ring;
mod send;
pub(crate) mod slot;
pub(crate) mod state;
pub(crate) mod stream;
#[cfg(test)]
mod tests;

pub(crate) use buffers::Lease;
