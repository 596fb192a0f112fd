//! Port numbers that no other process takes between the moment a test learns them and the moment its peer binds them.
//!
//! Numbers lie below the kernel's ephemeral range, so that no outgoing connection of a parallel test can sit on one.
//! Test processes share out the range in blocks by file lock, and a process never hands a number out twice.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Mutex;

const FIRST: u16 = 10_240;
const LAST: u16 = 31_744;
const BLOCK: u16 = 512;

struct Block {
    next: u16,
    end: u16,
    /// Holds the block until the process ends.
    _lock: File,
}

static CURRENT: Mutex<Vec<Block>> = Mutex::new(Vec::new());

/// How many sockets of this machine are connected to a local port, as they see it themselves: the end of a connection may still be on
/// its way to them.
pub fn connected_to(port: u16) -> usize {
    const ESTABLISHED: &str = "01";
    let ending = format!(":{port:04X}");
    let is_connected = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next().is_some_and(|peer| peer.ends_with(&ending)) && fields.next() == Some(ESTABLISHED)
    };
    std::fs::read_to_string("/proc/net/tcp").unwrap().lines().filter(is_connected).count()
}

/// A loopback address whose port is free for TCP and UDP on every local address.
pub fn reserve() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port()))
}

/// A port that is free for TCP and UDP on every local address.
pub fn port() -> u16 {
    let mut blocks = CURRENT.lock().unwrap_or_else(|e| e.into_inner());
    loop {
        if blocks.last().is_none_or(|b| b.next >= b.end) {
            blocks.push(take_block());
        }
        let block = blocks.last_mut().unwrap();
        let port = block.next;
        block.next += 1;
        if TcpListener::bind(("0.0.0.0", port)).is_ok() && UdpSocket::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// Runs `work` while no port is probed.
pub(crate) fn undisturbed<T>(work: impl FnOnce() -> T) -> T {
    let _probing = CURRENT.lock().unwrap_or_else(|e| e.into_inner());
    work()
}

fn take_block() -> Block {
    // SAFETY: getuid has no preconditions and cannot fail.
    let user = unsafe { libc::getuid() };
    let dir = std::env::temp_dir().join(format!("expressgateway-testkit-ports-{user}"));
    std::fs::create_dir_all(&dir).unwrap();
    let count = (LAST - FIRST) / BLOCK;
    let start = (std::process::id() as u16).wrapping_mul(7) % count;
    for step in 0..count {
        let index = (start + step) % count;
        let file = File::create(dir.join(index.to_string())).unwrap();
        // SAFETY: the descriptor belongs to `file`, which outlives the call.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            let first = FIRST + index * BLOCK;
            return Block { next: first, end: first + BLOCK, _lock: file };
        }
    }
    panic!("all {count} port blocks are taken by other test processes");
}
