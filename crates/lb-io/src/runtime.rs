//! Worker threads and the driver behind their sockets.

use std::future::Future;
use std::io;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, LocalOptions};

/// What moves the bytes of TCP sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoBackend {
    /// Readiness by epoll(7).
    Epoll,
}

impl IoBackend {
    /// The name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Epoll => "epoll",
        }
    }
}

/// Starts workers on the driver that this machine offers.
#[derive(Debug)]
pub struct Runtime {
    backend: IoBackend,
}

impl Runtime {
    /// Chooses the driver and says so in the log (`lb-io runtime ready`).
    pub fn new() -> Self {
        let backend = IoBackend::Epoll;
        tracing::info!(backend = backend.name(), "lb-io runtime ready backend={}", backend.name());
        Self { backend }
    }

    /// The driver in use.
    pub fn backend(&self) -> IoBackend {
        self.backend
    }

    /// Runs `main` on a new thread with an event loop of its own; tasks are spawned with [`tokio::task::spawn_local`].
    ///
    /// # Errors
    /// When the thread or its event loop cannot be had.
    pub fn spawn_worker<F, Fut>(&self, id: usize, main: F) -> io::Result<JoinHandle<()>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()>,
    {
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let thread = thread::Builder::new().name(format!("worker-{id}")).spawn(move || {
            match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => {
                    let _ = ready.send(Ok(()));
                    runtime.block_on(main());
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        })?;
        started.recv().map_err(|_| io::Error::other("worker thread ended before it started"))??;
        Ok(thread)
    }
}

impl Default for Runtime {
    fn default() -> Self {
        Self::new()
    }
}

/// The number of workers for this process: the cores that its affinity mask and cgroup allow.
pub fn default_workers() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}
