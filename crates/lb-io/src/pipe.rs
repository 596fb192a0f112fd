//! Pipes for splice(2): bulk bytes go from socket to socket without passing through user space.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::retry_on_intr;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

const HOW: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// Capacity asked for, bytes. Larger pipes mean fewer system calls; the kernel may grant less.
pub const PIPE_BYTES: usize = 1 << 20;

/// Empty pipes kept for reuse.
const KEEP_PIPES: usize = 64;

/// A pipe and how many bytes it holds.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
}

impl Pipe {
    /// A new pipe, of [`PIPE_BYTES`] where the kernel grants it.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // Refused beyond the user's share of pipe memory: the default size works as well, only slower.
        let _ = fcntl_setpipe_size(&write, PIPE_BYTES);
        Ok(Self { read, write, held: 0 })
    }

    /// Bytes in the pipe.
    #[inline]
    pub fn held(&self) -> usize {
        self.held
    }

    pub(crate) fn fill_from(&mut self, socket: impl AsFd, limit: usize) -> io::Result<usize> {
        let n = retry_on_intr(|| splice(&socket, None, &self.write, None, limit, HOW))?;
        self.held = self.held.saturating_add(n);
        Ok(n)
    }

    /// Copies `bytes` into the pipe, as far as there is room.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = rustix::io::write(&self.write, bytes)?;
        self.held = self.held.saturating_add(n);
        Ok(n)
    }

    pub(crate) fn drain_to(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let n = retry_on_intr(|| splice(&self.read, None, &socket, None, self.held, HOW))?;
        self.held = self.held.saturating_sub(n);
        Ok(n)
    }
}

/// Empty pipes of a worker.
#[derive(Debug, Default)]
pub struct PipePool {
    free: RefCell<Vec<Pipe>>,
}

impl PipePool {
    /// An empty pipe.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn take(&self) -> io::Result<Pipe> {
        match self.free.borrow_mut().pop() {
            Some(pipe) => Ok(pipe),
            None => Pipe::new(),
        }
    }

    /// Gives a pipe back. One that still holds bytes is closed: they must never reach another connection.
    pub fn put(&self, pipe: Pipe) {
        let mut free = self.free.borrow_mut();
        if pipe.held == 0 && free.len() < KEEP_PIPES {
            free.push(pipe);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_that_holds_bytes_is_never_reused() {
        let pool = PipePool::default();
        let (mut a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut a, b"secret").unwrap();
        let mut pipe = pool.take().unwrap();
        assert_eq!(pipe.fill_from(&b, 100).unwrap(), 6);
        pool.put(pipe);
        assert!(pool.free.borrow().is_empty());
        pool.put(Pipe::new().unwrap());
        assert_eq!(pool.free.borrow().len(), 1);
    }
}
