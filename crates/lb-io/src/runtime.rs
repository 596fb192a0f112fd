//! Worker threads and the driver behind their sockets.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use crate::uring::driver::Driver;
use crate::uring::probe;
use crate::uring::ring::{Prepared, Ring};

/// What moves the bytes of TCP sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoInUse {
    /// Readiness by epoll(7).
    Epoll,
    /// Completions by io_uring(7).
    IoUring,
}

impl IoInUse {
    /// The name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Epoll => "epoll",
            Self::IoUring => "io_uring",
        }
    }
}

/// Which driver is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoChoice {
    /// io_uring where this machine has all that is needed, otherwise epoll.
    #[default]
    Auto,
    /// io_uring or nothing.
    IoUring,
    /// epoll.
    Epoll,
}

/// Starts workers on one driver.
#[derive(Debug)]
pub struct Runtime {
    backend: IoInUse,
    /// Rings that wait for their workers.
    rings: Mutex<Vec<Prepared>>,
}

impl Runtime {
    /// Chooses the driver for `workers` workers, which have what they need of the kernel from then on, and logs the choice (`lb-io runtime
    /// ready`).
    ///
    /// # Errors
    /// When io_uring is demanded and cannot be had; the error names the step that failed.
    pub fn new(choice: IoChoice, workers: usize) -> io::Result<Self> {
        let rings = match choice {
            IoChoice::Epoll => Vec::new(),
            IoChoice::Auto | IoChoice::IoUring => match probe::prepare(workers) {
                Ok(rings) => rings,
                Err(failed) if choice == IoChoice::IoUring => {
                    return Err(io::Error::new(
                        failed.error.kind(),
                        format!("io_uring cannot be had: {}: {}", failed.step, failed.error),
                    ));
                }
                Err(failed) => {
                    tracing::info!(
                        probe = failed.step,
                        error = %failed.error,
                        "io_uring cannot be had, epoll is used instead"
                    );
                    Vec::new()
                }
            },
        };
        let backend = if rings.is_empty() { IoInUse::Epoll } else { IoInUse::IoUring };
        tracing::info!(backend = backend.name(), "lb-io runtime ready backend={}", backend.name());
        Ok(Self { backend, rings: Mutex::new(rings) })
    }

    /// The driver in use.
    pub fn backend(&self) -> IoInUse {
        self.backend
    }

    /// Runs `main` on a new thread with an event loop of its own; tasks are spawned with [`tokio::task::spawn_local`]. Output that was
    /// taken before `main` ends goes out before the thread ends, as far as peers make room for it within five seconds. Where the ring
    /// of a worker becomes unusable, the thread ends without `main`'s end.
    ///
    /// # Errors
    /// When the thread or its event loop cannot be had, or on io_uring more workers are started than were said.
    pub fn spawn_worker<F, Fut>(&self, id: usize, main: F) -> io::Result<JoinHandle<()>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let ring = self.rings.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if ring.is_none() && self.backend == IoInUse::IoUring {
            return Err(io::Error::other("no ring is left for this worker"));
        }
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let thread =
            thread::Builder::new().name(format!("worker-{id}")).spawn(move || match build(ring) {
                Ok((runtime, driver)) => {
                    let _ = ready.send(Ok(()));
                    match driver {
                        None => runtime.block_on(main()),
                        Some(turns) => run_on_ring(runtime, turns, main),
                    }
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            })?;
        started.recv().map_err(|_| io::Error::other("worker thread ended before it started"))??;
        Ok(thread)
    }
}

#[cfg(any(test, feature = "faults"))]
impl Runtime {
    /// For one worker, on a ring that is not made as usual.
    pub(crate) fn on(ring: Prepared) -> Self {
        Self { backend: IoInUse::IoUring, rings: Mutex::new(vec![ring]) }
    }
}

/// A ring on the thread of its worker, and the eventfd by which it wakes it.
type Turns = (Rc<Driver>, AsyncFd<OwnedFd>);

fn build(ring: Option<Prepared>) -> io::Result<(LocalRuntime, Option<Turns>)> {
    let mut builder = Builder::new_current_thread();
    builder.enable_all();
    let Some(ring) = ring else { return Ok((builder.build_local(LocalOptions::default())?, None)) };
    // Few events come by epoll here, and the driver sees to it that they are looked at.
    let runtime = builder.event_interval(256).build_local(LocalOptions::default())?;
    let driver = Driver::install(Ring::start(ring).map_err(|failed| failed.error)?);
    let entered = runtime.enter();
    let wakeup = register(driver.wakeup_fd()?)?;
    drop(entered);
    Ok((runtime, Some((driver, wakeup))))
}

fn run_on_ring<F, Fut>(runtime: LocalRuntime, (driver, wakeup): Turns, main: F)
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = ()> + 'static,
{
    runtime.block_on(async {
        let mut turns = tokio::task::spawn_local(Rc::clone(&driver).run(wakeup));
        // A task among others: tokio looks at the future that it blocks on only when its queue is empty, which the driver's task seldom
        // lets happen.
        let ended = tokio::select! {
            ended = tokio::task::spawn_local(main()) => ended,
            failure = &mut turns => match failure {
                Ok(error) => {
                    // Operations may have been lost, and which is unknown.
                    tracing::error!(%error, "io_uring fails — the worker ends");
                    return;
                }
                Err(error) => Err(error),
            },
        };
        turns.abort();
        if let Err(error) = ended
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    });
    // Drops what tasks are left, and their streams with them.
    drop(runtime);
    driver.finish();
}

/// Has the event loop of this thread wait until a descriptor can be read.
pub(crate) fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    register_for(descriptor, Interest::READABLE)
}

/// Has the event loop of this thread wait until a descriptor can be read, or written to.
#[expect(unsafe_code, reason = "tokio takes descriptors of unknown kind on trust")]
pub(crate) fn register_for(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor until it is dropped, which the `AsyncFd` does after it has deregistered it.
    // JUSTIFICATION: tokio offers no other way to sleep on an eventfd, on a listening socket whose connections are adopted, or on a socket
    // that is read by recvmmsg(2).
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}

/// The number of workers for this process: the cores that its affinity mask and cgroup allow.
pub fn default_workers() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}
