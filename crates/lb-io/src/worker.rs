//! What every protocol of a worker borrows from it.

use std::cell::RefCell;

use lb_core::rng::SplitMix64;

use crate::buffer::{BufferPool, OUTGOING_SIZE, SEALED_SIZE, Scratch};
use crate::pipe::PipePool;
use crate::uring::driver::current;

/// The resources of one worker thread. Held in an `Rc`; never shared with another thread.
#[derive(Debug)]
pub struct WorkerIo {
    /// 0-based number of the worker.
    pub id: usize,
    /// The buffer that reads go through. Borrowed for the length of one call, never across a wait.
    pub scratch: RefCell<Scratch>,
    /// The buffer that ciphertext is read into and opened in. Borrowed for the length of one call, `scratch` perhaps with it.
    pub sealed: RefCell<Scratch>,
    /// The buffer that outgoing data are sealed in. Borrowed as the others.
    pub outgoing: RefCell<Scratch>,
    /// Buffers for leftovers.
    pub buffers: BufferPool,
    /// Pipes for bulk relays.
    pub pipes: PipePool,
    /// Randomness that need not be secret.
    pub rng: RefCell<SplitMix64>,
}

impl WorkerIo {
    /// Frees buffers that were not needed since the last call. To be called now and then, while nobody borrows anything.
    pub fn rest(&self) {
        self.buffers.rest();
        for scratch in [&self.scratch, &self.sealed, &self.outgoing] {
            scratch.borrow_mut().rest();
        }
        if let Some(driver) = current() {
            driver.rest();
        }
    }

    /// Fresh resources for worker `id`; `seed` makes its randomness differ from that of other workers and processes.
    pub fn new(id: usize, seed: u64) -> Self {
        let offset = u64::try_from(id).unwrap_or_default().wrapping_mul(0xd6e8_feb8_6659_fd93);
        Self {
            id,
            scratch: RefCell::default(),
            sealed: RefCell::new(Scratch::with_size(SEALED_SIZE)),
            outgoing: RefCell::new(Scratch::with_size(OUTGOING_SIZE)),
            buffers: BufferPool::default(),
            pipes: PipePool::default(),
            rng: RefCell::new(SplitMix64::new(seed ^ offset)),
        }
    }
}
