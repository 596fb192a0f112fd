//! What every protocol of a worker borrows from it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use lb_core::address::Address;
use lb_core::failure::Shortage;
use lb_core::rng::SplitMix64;

use crate::buffer::{BufferPool, OUTGOING_SIZE, SEALED_SIZE, Scratch};
use crate::pipe::PipePool;
use crate::shortage;
use crate::socket::{Binds, Connects};
use crate::stream::ByteStream;
use crate::udp::{ReceiveBatch, SendBatch, UdpSocket};
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
    /// The buffer that outgoing data are sealed in. Borrowed like the others.
    pub outgoing: RefCell<Scratch>,
    /// What UDP sockets have received. Borrowed for the length of one call, never across a wait.
    pub datagrams: RefCell<ReceiveBatch>,
    /// What a UDP socket is to send. Borrowed like the others, and left empty.
    pub outgoing_datagrams: RefCell<SendBatch>,
    /// Buffers for leftovers.
    pub buffers: BufferPool,
    /// Pipes for bulk relays.
    pub pipes: PipePool,
    /// Randomness that need not be secret.
    pub rng: RefCell<SplitMix64>,
    spare: Spare,
    plug: Plug,
    /// When a shortage was last logged.
    told: Cell<Option<Instant>>,
}

/// How often a shortage that lasts is logged.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Closes what the worker keeps open without need.
#[derive(Default)]
struct Spare(RefCell<Option<Rc<dyn Fn()>>>);

impl fmt::Debug for Spare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spare")
    }
}

/// Makes connections and sockets in place of the kernel, where there is one.
#[derive(Default)]
struct Plug {
    connects: RefCell<Option<Rc<Connects>>>,
    binds: RefCell<Option<Rc<Binds>>>,
}

impl fmt::Debug for Plug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plug")
    }
}

impl WorkerIo {
    /// Frees buffers that were not needed since the last call. To be called now and then, while none of them is borrowed.
    pub fn rest(&self) {
        self.buffers.rest();
        for scratch in [&self.scratch, &self.sealed, &self.outgoing] {
            scratch.borrow_mut().rest();
        }
        self.datagrams.borrow_mut().rest();
        self.outgoing_datagrams.borrow_mut().rest();
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
            datagrams: RefCell::default(),
            outgoing_datagrams: RefCell::default(),
            buffers: BufferPool::default(),
            pipes: PipePool::default(),
            rng: RefCell::new(SplitMix64::new(seed ^ offset)),
            spare: Spare::default(),
            plug: Plug::default(),
            told: Cell::default(),
        }
    }

    /// Sets what closes the connections that the worker keeps open without need, for [`Self::make_room`].
    pub fn set_spare(&self, give_way: Rc<dyn Fn()>) {
        *self.spare.0.borrow_mut() = Some(give_way);
    }

    /// Has connections made by `connects`, and none by the kernel.
    pub fn set_connects(&self, connects: Rc<Connects>) {
        *self.plug.connects.borrow_mut() = Some(connects);
    }

    /// Has the sockets of [`Self::udp_to_backends`] made by `binds`, and none by the kernel.
    pub fn set_binds(&self, binds: Rc<Binds>) {
        *self.plug.binds.borrow_mut() = Some(binds);
    }

    /// A socket for datagrams to and from backends, of the family of `of`, at a port of the kernel's choice.
    ///
    /// # Errors
    /// When descriptors are wanting, or the kernel refuses an option.
    pub fn udp_to_backends(&self, of: &SocketAddr) -> io::Result<UdpSocket> {
        let binds = self.plug.binds.borrow().clone();
        match binds {
            Some(binds) => binds(of),
            None => UdpSocket::to_backends(of),
        }
    }

    /// Descriptors are wanted: what this worker keeps open without need gives way at once, and what others keep as they notice.
    pub fn make_room(&self) {
        shortage::wanted();
        self.close_spare();
    }

    /// Connects to `address` within `timeout`, with the socket options of backends. Where descriptors are wanting, idle connections give
    /// way first.
    ///
    /// # Errors
    /// Those of connect(2), and [`io::ErrorKind::TimedOut`].
    pub async fn connect(&self, address: Address, timeout: Duration) -> io::Result<ByteStream> {
        let connects = self.plug.connects.borrow().clone();
        if let Some(connects) = connects {
            return connects(address, timeout).await;
        }
        shortage::connect_with_room(address, timeout, || self.close_spare()).await
    }

    /// Logs that a connection to a backend was not made for want of something of our own, within a rate limit.
    pub fn tell_shortage(&self, shortage: Shortage) {
        let now = Instant::now();
        if self.told.get().is_none_or(|told| now >= told + TOLD_EVERY) {
            self.told.set(Some(now));
            tracing::warn!(
                lacks = shortage.as_str(),
                "no connection to a backend can be made — the process lacks what that takes"
            );
        }
    }

    fn close_spare(&self) {
        let give_way = self.spare.0.borrow().clone();
        if let Some(give_way) = give_way {
            give_way();
        }
    }
}
