//! Socket options of listeners and of connections to backends.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{SockRef, Socket, TcpKeepalive};

/// Receive and send buffer asked of the kernel, bytes.
pub const BUFFER_BYTES: usize = 262_144;

/// Length asked for the queue of connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
pub const BACKLOG: i32 = 50_000;

/// Probes for connections whose peer vanished: first after a minute, then every ten seconds, six times.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(6)
}

/// Receive window that accepted connections offer at most, bytes; see [`apply_listener`].
const WINDOW_CLAMP: libc::c_int = 131_072;

/// Sets what a listener needs **before** it is bound: `SO_REUSEADDR`, `SO_REUSEPORT` (one socket per worker, and a second process
/// beside this one), and what accepted connections inherit: `TCP_NODELAY`, `SO_KEEPALIVE`, both buffer sizes.
///
/// A receive buffer of fixed size makes the offered window follow every byte that waits in it, and each change of the window
/// costs the receiver of the segment the kernel's fast path. A clamp well below the buffer keeps the window still: 8 to 15 %
/// less CPU for small exchanges (docs/decisions/0007).
///
/// # Errors
/// When the kernel refuses an option.
pub fn apply_listener(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive())?;
    socket.set_recv_buffer_size(BUFFER_BYTES)?;
    socket.set_send_buffer_size(BUFFER_BYTES)?;
    set_window_clamp(socket, WINDOW_CLAMP)
}

/// Sets what a connection to a backend needs: `TCP_NODELAY`, `SO_KEEPALIVE`, the send buffer. The receive buffer is left to the
/// kernel, which fits it to the path.
///
/// # Errors
/// When the kernel refuses an option.
pub fn apply_backend(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive())?;
    socket.set_send_buffer_size(BUFFER_BYTES)
}

#[expect(unsafe_code, reason = "no crate offers TCP_WINDOW_CLAMP")]
fn set_window_clamp(socket: &Socket, bytes: libc::c_int) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or_default();
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; the pointer and the length describe one `c_int` that
    // outlives the call; the kernel only reads it.
    // JUSTIFICATION: 8 to 15 % of the CPU of small exchanges, measured.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_WINDOW_CLAMP,
            (&raw const bytes).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
