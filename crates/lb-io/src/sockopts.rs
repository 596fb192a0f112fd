//! Socket options of listeners and of connections to backends.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// The receive and send buffers that the kernel is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// Bytes for what a client has sent and the gateway has not read; `None` leaves the size, and the window that follows from it, to the
    /// kernel.
    pub receive: Option<usize>,
    /// Bytes for what a client or a backend has not acknowledged; `None` leaves the size to the kernel.
    pub send: Option<usize>,
}

impl Buffers {
    /// Bytes of either buffer, unless others are configured.
    pub const BYTES: usize = 262_144;
}

impl Default for Buffers {
    fn default() -> Self {
        Self { receive: Some(Self::BYTES), send: Some(Self::BYTES) }
    }
}

/// The send buffer of connections to backends, for all workers: set before the first of them starts. 0 leaves it to the kernel.
static BACKEND_SEND_BYTES: AtomicUsize = AtomicUsize::new(Buffers::BYTES);

/// Length asked for the queue of connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
pub const BACKLOG: i32 = 50_000;

/// Probes for connections whose peer vanished: first after a minute, then every ten seconds, six times.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(6)
}

/// Sets what a listener needs **before** it is bound: `SO_REUSEADDR`, `SO_REUSEPORT` (one socket per worker, and a second process
/// beside this one), and what accepted connections inherit: `TCP_NODELAY`, `SO_KEEPALIVE`, both buffer sizes.
///
/// A receive buffer of fixed size makes the offered window follow every byte that waits in it, and each change of the window
/// costs the receiver of the segment the kernel's fast path. A clamp at half of the buffer keeps the window still: 8 to 15 %
/// less CPU for small exchanges (docs/decisions/0007). Without a fixed size there is nothing to clamp: the kernel widens the window as the
/// path asks for it.
///
/// # Errors
/// When the kernel refuses an option.
pub fn apply_listener(socket: &Socket, buffers: Buffers) -> io::Result<()> {
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    apply_accepted(socket, buffers)
}

/// Sets what connections that a listening socket accepts inherit.
///
/// # Errors
/// When the kernel refuses an option.
pub(crate) fn apply_accepted(socket: &Socket, buffers: Buffers) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive())?;
    if let Some(bytes) = buffers.send {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = buffers.receive {
        socket.set_recv_buffer_size(bytes)?;
        set_window_clamp(socket, libc::c_int::try_from(bytes / 2).unwrap_or(libc::c_int::MAX))?;
    }
    Ok(())
}

/// Sets which send buffer connections to backends have from now on.
pub fn set_backend_buffers(buffers: Buffers) {
    BACKEND_SEND_BYTES.store(buffers.send.unwrap_or(0), Relaxed);
}

/// Sets what a connection to a backend needs: `TCP_NODELAY`, `SO_KEEPALIVE`, the send buffer. The receive buffer is left to the
/// kernel, which fits it to the path.
///
/// # Errors
/// When the kernel refuses an option.
pub fn apply_backend(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive())?;
    match BACKEND_SEND_BYTES.load(Relaxed) {
        0 => Ok(()),
        bytes => socket.set_send_buffer_size(bytes),
    }
}

fn set_window_clamp(socket: &Socket, bytes: libc::c_int) -> io::Result<()> {
    set_number(socket, libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, bytes)
}

/// Which buffers of a socket have a fixed size (`SOCK_SNDBUF_LOCK`, `SOCK_RCVBUF_LOCK`); since Linux 5.14, missing in libc.
const SO_BUF_LOCK: libc::c_int = 72;

/// The largest window that TCP can offer (RFC 7323 §2.3).
const LARGEST_WINDOW: libc::c_int = 65_535 << 14;

/// Takes back the buffer sizes that another process has fixed: the kernel fits them to the path again, as on a new socket.
///
/// # Errors
/// When the kernel refuses an option.
pub(crate) fn release_buffers(socket: &Socket) -> io::Result<()> {
    let new = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    // The kernel doubles the size that it is given.
    socket.set_send_buffer_size(new.send_buffer_size()? / 2)?;
    socket.set_recv_buffer_size(new.recv_buffer_size()? / 2)?;
    set_window_clamp(socket, LARGEST_WINDOW)?;
    match set_number(socket, libc::SOL_SOCKET, SO_BUF_LOCK, 0) {
        // Before Linux 5.14 a size that was fixed once stays fixed.
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
        released => released,
    }
}

#[expect(unsafe_code, reason = "no crate offers TCP_WINDOW_CLAMP and SO_BUF_LOCK")]
fn set_number(socket: &Socket, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or_default();
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; the pointer and the length describe one `c_int` that
    // outlives the call; the kernel only reads it.
    // JUSTIFICATION: 8 to 15 % of the CPU of small exchanges, measured (the clamp); buffers of inherited sockets (the lock).
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the send and the receive buffer have a fixed size.
#[cfg(test)]
#[expect(unsafe_code, reason = "no crate offers SO_BUF_LOCK")]
pub(crate) fn locked_buffers(socket: &Socket) -> io::Result<(bool, bool)> {
    let (mut value, mut length) =
        (0, libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or_default());
    // SAFETY: the descriptor is open; the pointers describe one `c_int` and its length, which outlive the call.
    // JUSTIFICATION: shows what `release_buffers` does.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_BUF_LOCK,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok((value & 1 != 0, value & 2 != 0)) } else { Err(io::Error::last_os_error()) }
}
