//! Shortages of this process or its machine: what a connection to a backend takes and cannot be had.
//!
//! No backend is to blame for a shortage, and no other backend would do better. Idle connections give way first: a task that lacks a
//! descriptor calls [`wanted`], and every worker that keeps idle connections looks at its [`Watch`] when it puts one back, and closes some.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use lb_core::address::Address;
use lb_core::failure::Shortage;

use crate::stream::{ByteStream, connect};

/// What an error of socket(2) or connect(2) lacks, if it is not the peer's or the network's.
pub fn shortage_of(error: &io::Error) -> Option<Shortage> {
    match error.raw_os_error()? {
        libc::EMFILE | libc::ENFILE => Some(Shortage::Descriptors),
        libc::ENOBUFS | libc::ENOMEM => Some(Shortage::Memory),
        libc::EADDRNOTAVAIL => Some(Shortage::Ports),
        _ => None,
    }
}

/// How often descriptors were wanted. They belong to the process as a whole.
static WANTED: AtomicU64 = AtomicU64::new(0);

/// Asks all workers to close idle connections.
pub fn wanted() {
    WANTED.fetch_add(1, Relaxed);
}

/// Notices that descriptors are wanted.
#[derive(Debug)]
pub struct Watch(Cell<u64>);

impl Default for Watch {
    /// For what is wanted from now on.
    fn default() -> Self {
        Self(Cell::new(WANTED.load(Relaxed)))
    }
}

impl Watch {
    /// Whether descriptors were wanted since the last call.
    #[inline]
    pub fn is_called(&self) -> bool {
        let wanted = WANTED.load(Relaxed);
        self.0.replace(wanted) != wanted
    }
}

/// The waits for descriptors that others give back, one after the other.
const WAITS: [Duration; 4] = [
    Duration::from_millis(2),
    Duration::from_millis(8),
    Duration::from_millis(30),
    Duration::from_millis(60),
];

/// [`connect`], which waits a little for idle connections to give way when there are no descriptors. `make_room` closes those of this
/// worker.
///
/// # Errors
/// Those of [`connect`].
pub async fn connect_with_room(
    address: Address,
    timeout: Duration,
    make_room: impl Fn(),
) -> io::Result<ByteStream> {
    for wait in WAITS {
        match connect(address, timeout).await {
            Err(error) if shortage_of(&error) == Some(Shortage::Descriptors) => {
                wanted();
                make_room();
                // What was closed is gone when the event loop has had its turn.
                tokio::time::sleep(wait).await;
            }
            result => return result,
        }
    }
    connect(address, timeout).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_here_is_told_from_what_fails_there() {
        let of = |code| shortage_of(&io::Error::from_raw_os_error(code));
        assert_eq!(of(libc::EMFILE), Some(Shortage::Descriptors));
        assert_eq!(of(libc::ENFILE), Some(Shortage::Descriptors));
        assert_eq!(of(libc::ENOBUFS), Some(Shortage::Memory));
        assert_eq!(of(libc::EADDRNOTAVAIL), Some(Shortage::Ports));
        for code in [libc::ECONNREFUSED, libc::ETIMEDOUT, libc::ENETUNREACH, libc::EHOSTUNREACH] {
            assert_eq!(of(code), None);
        }
        assert_eq!(shortage_of(&io::ErrorKind::TimedOut.into()), None);
    }

    #[test]
    fn each_watch_is_called_once() {
        let (one, two) = (Watch::default(), Watch::default());
        wanted();
        assert!(one.is_called() && two.is_called());
    }
}
