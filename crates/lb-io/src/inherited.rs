//! Sockets that the process was started with: by systemd (`LISTEN_FDS`), or by the process that it takes over from.
//!
//! Descriptors are numbers in the environment, which must be taken once, before the process opens any of its own.

use std::env;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use lb_core::address::{Address, UnixPath};
use rustix::io::{FdFlags, fcntl_setfd};
use socket2::SockRef;

use crate::listener::ListeningSocket;
use crate::udp::hand_over::Predecessor;
use crate::unix::{SocketFile, path_of};

/// Names the descriptors that a process takes over: that of the pipe on which it says that it serves, then its sockets.
const HAND_OVER: &str = "EXPRESSGATEWAY_HAND_OVER";

/// Names the descriptor on which a process that takes over passes on what belongs to earlier ones ([`crate::udp::hand_over`]), then the epochs
/// of those.
const PREDECESSOR: &str = "EXPRESSGATEWAY_PREDECESSOR";

/// The first descriptor that systemd passes (sd_listen_fds(3)).
const FIRST_OF_SYSTEMD: RawFd = 3;

/// More descriptors than any configuration has listeners for are no hand-over.
const MOST: i32 = 100_000;

/// What the process was started with.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Listening sockets.
    pub sockets: Vec<ListeningSocket>,
    /// Where a process that takes over says that it serves.
    pub ready: Option<OwnedFd>,
    /// The process that it takes over from, where that may have connections over UDP.
    pub predecessor: Option<Predecessor>,
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
            let mut parts = text.split(',');
            let ready = parts.next().and_then(|number| own(number.parse().ok()?));
            let predecessor = env::var(PREDECESSOR).ok().and_then(|text| predecessor(&text));
            return Self { ready, sockets: parts.filter_map(handed_over).collect(), predecessor };
        }
        let is_ours = number("LISTEN_PID").is_some_and(|pid| u32::try_from(pid) == Ok(std::process::id()));
        let count = number("LISTEN_FDS").filter(|count| is_ours && (0..MOST).contains(count)).unwrap_or(0);
        let numbers = (0..count).map(|at| FIRST_OF_SYSTEMD.saturating_add(at));
        let sockets = numbers.filter_map(own).filter_map(listening).collect();
        Self { sockets, ..Self::default() }
    }

    /// Whether another process waits for this one to serve, and ends then.
    pub fn takes_over(&self) -> bool {
        self.ready.is_some()
    }
}

/// Reads what [`HandOver::variables`] says of the process before.
fn predecessor(text: &str) -> Option<Predecessor> {
    let mut parts = text.split(',');
    let socket = own(parts.next()?.parse().ok()?)?;
    Some(Predecessor::new(socket, parts.map_while(|epoch| epoch.parse().ok()).collect()))
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

/// A descriptor as a listening stream socket or as a bound UDP socket, if it is one.
fn listening(descriptor: OwnedFd) -> Option<ListeningSocket> {
    let socket = SockRef::from(&descriptor);
    if socket.r#type().is_ok_and(|kind| kind == socket2::Type::DGRAM) {
        let address = socket.local_addr().ok()?.as_socket().filter(|address| address.port() != 0)?;
        return Some(ListeningSocket::of_udp(descriptor, address));
    }
    let listens = socket.r#type().is_ok_and(|kind| kind == socket2::Type::STREAM)
        && socket.is_listener().is_ok_and(|is_listener| is_listener);
    let address = socket.local_addr().ok().filter(|_| listens)?;
    let address = match address.as_socket() {
        Some(address) => Address::Ip(address),
        None => Address::Unix(path_of(&address)?),
    };
    Some(ListeningSocket::of(descriptor, address, None))
}

/// Reads what [`HandOver::variables`] says of one socket.
fn handed_over(text: &str) -> Option<ListeningSocket> {
    let mut parts = text.split(':');
    let socket = listening(own(parts.next()?.parse().ok()?)?)?;
    let Some(path) = parts.next() else { return Some(socket) };
    let path = unix_path(path)?;
    let file = match (parts.next(), parts.next()) {
        (Some(device), Some(inode)) => {
            Some(SocketFile::handed_over(path, device.parse().ok()?, inode.parse().ok()?))
        }
        _ => None,
    };
    Some(ListeningSocket::of(socket.into(), path.into(), file))
}

/// A path from its bytes in hexadecimal digits.
fn unix_path(digits: &str) -> Option<UnixPath> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Vec<u8> = pairs.iter().map(byte).collect::<Option<_>>().filter(|_| rest.is_empty())?;
    UnixPath::new(bytes).ok()
}

/// Descriptors that the next process started is given. They stay open here until this is dropped.
#[derive(Debug)]
pub struct HandOver {
    ready: OwnedFd,
    sockets: Vec<(OwnedFd, String)>,
    channel: OwnedFd,
    epochs: Vec<u16>,
}

impl HandOver {
    /// Duplicates what is to be passed on: the writing end of a pipe, the end of a [`pair`](crate::udp::hand_over::pair) with the epochs that
    /// are behind it, and sockets.
    ///
    /// # Errors
    /// When descriptors are wanting.
    pub fn new<'a>(
        ready: BorrowedFd<'_>,
        (channel, epochs): (BorrowedFd<'_>, Vec<u16>),
        sockets: impl IntoIterator<Item = &'a ListeningSocket>,
    ) -> io::Result<Self> {
        // Duplicates of dup(2) are passed on by exec(2).
        let (ready, channel) = (rustix::io::dup(ready)?, rustix::io::dup(channel)?);
        let sockets = sockets.into_iter().map(|socket| Ok((rustix::io::dup(socket)?, described(socket))));
        Ok(Self { ready, sockets: sockets.collect::<io::Result<_>>()?, channel, epochs })
    }

    /// The variables of the environment that name them.
    pub fn variables(&self) -> [(&'static str, String); 2] {
        let mut text = self.ready.as_raw_fd().to_string();
        for (descriptor, what) in &self.sockets {
            text.push_str(&format!(",{}{what}", descriptor.as_raw_fd()));
        }
        let mut predecessor = self.channel.as_raw_fd().to_string();
        for epoch in &self.epochs {
            predecessor.push_str(&format!(",{epoch}"));
        }
        [(HAND_OVER, text), (PREDECESSOR, predecessor)]
    }
}

/// What follows the number of a descriptor. A Unix socket was bound under another name than that of its file, so the name goes with it, and
/// what identifies the file if the next process is to remove it.
fn described(socket: &ListeningSocket) -> String {
    let Address::Unix(path) = socket.address() else { return String::new() };
    let mut text: String = ":".to_owned();
    text.extend(path.as_bytes().iter().map(|byte| format!("{byte:02x}")));
    if let Some((device, inode)) = socket.file().map(|file| file.identity()) {
        text.push_str(&format!(":{device}:{inode}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    use super::*;
    use lb_core::identity::Transport;

    use crate::listener::{bind, bind_unix};

    #[test]
    fn only_what_was_inherited_is_taken_and_once() {
        let listener = bind("127.0.0.1:0".parse().unwrap(), Default::default()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a,:b.sock");
        let unix = UnixPath::new(path.as_os_str().as_encoded_bytes()).unwrap();
        let unix = bind_unix(&unix, 0o600).unwrap();
        assert!(
            own(listener.as_fd().as_raw_fd()).is_none(),
            "it closes on exec, so it is this process's own"
        );
        let (channel, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let passed =
            HandOver::new(listener.as_fd(), (channel.as_fd(), vec![7, 9]), [&listener, &unix]).unwrap();
        let [(_, text), (_, earlier)] = passed.variables();
        let parts: Vec<&str> = text.split(',').collect();
        std::mem::forget(passed);
        let first: RawFd = parts[0].parse().unwrap();
        let taken = own(first).unwrap();
        assert!(own(first).is_none());
        assert_eq!(listening(taken).unwrap().address(), listener.address());
        assert_eq!(handed_over(parts[1]).unwrap().address(), listener.address());
        let taken = handed_over(parts[2]).unwrap();
        assert_eq!(taken.address(), unix.address());
        assert_eq!(taken.file().unwrap().identity(), unix.file().unwrap().identity());
        assert_eq!(predecessor(&earlier).unwrap().epochs(), [7, 9]);
        assert!(predecessor(&earlier).is_none());
        assert!(own(0).is_none() && own(-1).is_none() && own(60_000).is_none());
        // As long as the process is there that has given it, the file is that one's.
        drop(taken);
        assert!(path.exists());
        drop(unix);
        assert!(!path.exists());
    }

    #[test]
    fn what_does_not_listen_is_no_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(listening(stream.into()).is_none());
        assert!(listening(std::fs::File::open("/dev/null").unwrap().into()).is_none());
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(listening(one.into()).is_none());
        assert!(listening(std::os::unix::net::UnixDatagram::unbound().unwrap().into()).is_none());
    }

    #[test]
    fn a_udp_socket_is_known_by_its_transport() {
        let socket = crate::listener::bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.address();
        let known = listening(socket.into()).unwrap();
        assert!(known.is_at(&address, Transport::Udp) && !known.is_at(&address, Transport::Tcp));
        let unbound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        assert!(listening(unbound.into()).is_none());
    }

    #[test]
    fn a_unix_socket_of_another_process_is_known_by_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let known = listening(socket.into()).unwrap();
        assert_eq!(known.address().to_string(), format!("unix:{}", path.display()));
        assert!(known.file().is_none());
        drop(known);
        assert!(path.exists(), "it is not removed");
    }
}
