//! What a process has before its control thread starts: descriptors, the driver of its sockets, and how its workers are run.

use lb_config::{Config, IoBackend};
use lb_control::{Control, Start};
use lb_io::{IoChoice, Runtime};

use crate::worker;

/// Starts the control thread's part and the workers; when this returns, traffic is served.
pub(crate) async fn start(start: Start) -> anyhow::Result<Control> {
    let runtime = Runtime::new(io_choice(&start.config), start.workers)?;
    Control::start(start, &|new| runtime.spawn_worker(new.id, move || worker::run(new))).await
}

/// The number of workers that the configuration asks for.
pub(crate) fn worker_count(config: &Config) -> usize {
    config.runtime.workers.map_or_else(lb_io::default_workers, std::num::NonZeroUsize::get)
}

/// What the configuration says of the driver.
fn io_choice(config: &Config) -> IoChoice {
    match config.runtime.io_backend {
        IoBackend::Auto => IoChoice::Auto,
        IoBackend::IoUring => IoChoice::IoUring,
        IoBackend::Epoll => IoChoice::Epoll,
    }
}

/// Lets the process open as many descriptors as it may. The default soft limit is made for programs that use select(2).
pub(crate) fn raise_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit on open files could not be raised");
    }
}
