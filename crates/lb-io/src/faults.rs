//! Failures on purpose, and what is left after them: for tests of whole gateways alone (attack C-17).
//!
//! All of it concerns the ring of the worker on whose thread it is called. Nothing of this exists without the feature `faults`, which only
//! builds for tests ask for.

use std::io;

use crate::Runtime;
use crate::uring::driver::current;
pub use crate::uring::faults::RingFault;
use crate::uring::ring::Prepared;
use crate::uring::slot::Slot;
use crate::uring::state::State;

/// What a worker's ring is busy with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Listening sockets, those included whose owners are gone.
    pub listeners: usize,
    /// Connections that are being made, or were given up.
    pub connecting: usize,
    /// Connections that have an owner.
    pub open: usize,
    /// Connections without an owner that are not closed yet.
    pub closing: usize,
    /// Buffers that hold received bytes.
    pub buffers: usize,
}

/// Has `fault` happen once, with the error `code` of the system, counted from now.
///
/// # Errors
/// When this thread has no ring.
pub fn arm(fault: RingFault, code: i32) -> io::Result<()> {
    with(|state| state.ring.faults().arm(fault, code))
}

/// Has nothing fail any more, and names the kind of operation that has failed since [`arm`], if any.
///
/// # Errors
/// When this thread has no ring.
pub fn disarm() -> io::Result<Option<String>> {
    with(|state| state.ring.faults().disarm().map(|kind| format!("{kind:?}")))
}

/// What is left at this moment.
///
/// # Errors
/// When this thread has no ring.
pub fn left() -> io::Result<Left> {
    with(|state| {
        let mut left = Left { buffers: state.ring.buffers().leased().into(), ..Left::default() };
        for (_, slot) in &state.slots {
            let count = match slot {
                Slot::Listening(_) => &mut left.listeners,
                Slot::Connecting(_) => &mut left.connecting,
                Slot::Socket(socket) if socket.closing.is_some() => &mut left.closing,
                Slot::Socket(_) => &mut left.open,
            };
            *count = count.saturating_add(1);
        }
        left
    })
}

/// For one worker on a ring as kernels before 6.17 have it: every receive brings one message.
///
/// # Errors
/// When the ring cannot be had.
pub fn runtime_of_single_receives() -> io::Result<Runtime> {
    Prepared::new(false).map(Runtime::on).map_err(|failed| failed.error)
}

fn with<R>(f: impl FnOnce(&mut State) -> R) -> io::Result<R> {
    let driver = current().ok_or(io::ErrorKind::Unsupported)?;
    Ok(driver.with(f))
}
