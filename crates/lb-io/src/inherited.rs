//! Sockets that the process was started with: by systemd (`LISTEN_FDS`), or by the process that it takes over from.
//!
//! Descriptors are numbers in the environment, which must be taken once, before the process opens any of its own.

use std::env;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_setfd};
use socket2::SockRef;

/// Names the descriptors that a process takes over: that of the pipe on which it says that it serves, then its sockets.
const HAND_OVER: &str = "EXPRESSGATEWAY_HAND_OVER";

/// The first descriptor that systemd passes (sd_listen_fds(3)).
const FIRST_OF_SYSTEMD: RawFd = 3;

/// More descriptors than any configuration has listeners for are no hand-over.
const MOST: i32 = 100_000;

/// What the process was started with.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Listening sockets.
    pub sockets: Vec<TcpListener>,
    /// Where a process that takes over says that it serves.
    pub ready: Option<OwnedFd>,
}

static TAKEN: AtomicBool = AtomicBool::new(false);

impl Inherited {
    /// Takes what the environment names. To be called first of all, and once: a second call finds nothing.
    pub fn take() -> Self {
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Self::default();
        }
        let number = |name: &str| env::var(name).ok()?.parse::<i32>().ok();
        if let Ok(text) = env::var(HAND_OVER) {
            let mut numbers = text.split(',').map_while(|number| number.parse().ok());
            let ready = numbers.next().and_then(own);
            return Self { ready, sockets: numbers.filter_map(own).filter_map(listening).collect() };
        }
        let is_ours = number("LISTEN_PID").is_some_and(|pid| u32::try_from(pid) == Ok(std::process::id()));
        let count = number("LISTEN_FDS").filter(|count| is_ours && (0..MOST).contains(count)).unwrap_or(0);
        let numbers = (0..count).map(|at| FIRST_OF_SYSTEMD.saturating_add(at));
        Self { ready: None, sockets: numbers.filter_map(own).filter_map(listening).collect() }
    }

    /// Whether another process waits for this one to serve, and ends then.
    pub fn takes_over(&self) -> bool {
        self.ready.is_some()
    }
}

/// Takes a descriptor over that is open and would be passed on: what this process has opened itself is not.
#[expect(unsafe_code, reason = "a descriptor that was inherited is a number")]
fn own(number: RawFd) -> Option<OwnedFd> {
    // The standard streams belong to the standard library.
    if number <= libc::STDERR_FILENO {
        return None;
    }
    // SAFETY: fcntl(2) with F_GETFD takes any number, and reads no memory.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    // Whatever the standard library or tokio opens closes on exec, so what does not was inherited, and nothing else owns it. A number that
    // stands twice is not taken again, since it closes on exec from here on.
    if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        return None;
    }
    // SAFETY: the descriptor is open, and nothing in this process owns it, as was just seen.
    // JUSTIFICATION: no interface hands inherited descriptors over otherwise.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&owned, FdFlags::CLOEXEC).ok()?;
    Some(owned)
}

/// A descriptor as a listening TCP socket, if it is one.
fn listening(descriptor: OwnedFd) -> Option<TcpListener> {
    let socket = SockRef::from(&descriptor);
    let is_tcp = socket.r#type().is_ok_and(|kind| kind == socket2::Type::STREAM)
        && socket.local_addr().is_ok_and(|address| address.as_socket().is_some())
        && socket.is_listener().is_ok_and(|is_listener| is_listener);
    is_tcp.then(|| descriptor.into())
}

/// Descriptors that the next process started is given. They stay open here until this is dropped.
#[derive(Debug)]
pub struct HandOver {
    passed: Vec<OwnedFd>,
}

impl HandOver {
    /// Duplicates what is to be passed on.
    ///
    /// # Errors
    /// When descriptors are wanting.
    pub fn new<'a>(
        ready: BorrowedFd<'_>,
        sockets: impl IntoIterator<Item = &'a TcpListener>,
    ) -> io::Result<Self> {
        // Duplicates of dup(2) are passed on by exec(2).
        let mut passed = vec![rustix::io::dup(ready)?];
        for socket in sockets {
            passed.push(rustix::io::dup(socket)?);
        }
        Ok(Self { passed })
    }

    /// The variable of the environment that names them.
    pub fn variable(&self) -> (&'static str, String) {
        let numbers: Vec<String> =
            self.passed.iter().map(|descriptor| descriptor.as_raw_fd().to_string()).collect();
        (HAND_OVER, numbers.join(","))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn only_what_was_inherited_is_taken_and_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(own(listener.as_raw_fd()).is_none(), "it closes on exec, so it is this process's own");
        let passed = HandOver::new(listener.as_fd(), [&listener]).unwrap();
        let numbers: Vec<RawFd> =
            passed.variable().1.split(',').map(|number| number.parse().unwrap()).collect();
        std::mem::forget(passed);
        let first = own(numbers[0]).unwrap();
        assert!(own(numbers[0]).is_none());
        assert_eq!(listening(first).unwrap().local_addr().unwrap(), listener.local_addr().unwrap());
        assert!(own(numbers[1]).is_some() && own(0).is_none() && own(-1).is_none() && own(60_000).is_none());
    }

    #[test]
    fn what_does_not_listen_is_no_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(listening(stream.into()).is_none());
        assert!(listening(std::fs::File::open("/dev/null").unwrap().into()).is_none());
        let unix = std::os::unix::net::UnixListener::bind(
            std::env::temp_dir().join(format!("lb-{}", std::process::id())),
        );
        assert!(unix.is_err() || listening(unix.unwrap().into()).is_none());
    }
}
