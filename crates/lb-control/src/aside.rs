//! Work that takes its time, on a thread of its own that gives way to all others.

use std::io;

use tokio::sync::oneshot;

/// How much less of a processor such a thread gets than others where both want it: what nice(1) calls 10.
const NICE: i32 = 10;

/// Does `work` on a thread of this name. A large configuration takes a tenth of a second to read, which neither the answers to probes nor, where a
/// worker has the only processor, its clients have to wait for.
///
/// # Errors
/// Where the thread cannot be started, or has panicked.
pub(crate) async fn run<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, outcome) = oneshot::channel();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // A thread at the priority of others does the work as well.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
        let _ = done.send(work());
    })?;
    outcome.await.map_err(|_| io::Error::other("the thread has ended before its work"))
}
