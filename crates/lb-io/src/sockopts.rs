//! Socket options of listeners and of connections to backends.

use std::io;
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

/// Sets what a listener needs **before** it is bound: `SO_REUSEADDR`, `SO_REUSEPORT` (one socket per worker, and a second process
/// beside this one), and what accepted connections inherit: `TCP_NODELAY`, `SO_KEEPALIVE`, both buffer sizes.
///
/// # Errors
/// When the kernel refuses an option.
pub fn apply_listener(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    apply_backend(SockRef::from(socket))
}

/// Sets what a connection to a backend needs: `TCP_NODELAY`, `SO_KEEPALIVE`, both buffer sizes.
///
/// # Errors
/// When the kernel refuses an option.
pub fn apply_backend(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive())?;
    socket.set_recv_buffer_size(BUFFER_BYTES)?;
    socket.set_send_buffer_size(BUFFER_BYTES)
}
