//! What the tests share: a worker on a driver of their choice, plain sockets opposite, and what must be left over in the end: nothing.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream as Plain};
use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::super::driver::current;
use super::super::ring::Prepared;
use super::super::slot::Slot;
use super::super::state::State;
use super::super::stream::RingStream;
use crate::{ByteStream, IoChoice, Runtime, Scratch};

/// Nothing takes so long unless it hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What moves the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The ring as a worker gets it on this machine.
    Ring,
    /// The ring as kernels before 6.17 have it: every receive brings one message.
    Single,
    /// epoll.
    Epoll,
}

impl Mode {
    /// Both rings.
    pub(super) fn rings() -> [Self; 2] {
        [Self::Ring, Self::Single]
    }

    fn runtime(self) -> Runtime {
        match self {
            Self::Ring => Runtime::new(IoChoice::IoUring, 1).unwrap(),
            Self::Single => Runtime::on(Prepared::new(false).unwrap()),
            Self::Epoll => Runtime::new(IoChoice::Epoll, 1).unwrap(),
        }
    }
}

/// One test at a time, which must leave no socket open.
pub(super) struct Rig {
    before: BTreeSet<String>,
    _alone: MutexGuard<'static, ()>,
}

impl Rig {
    pub(super) fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        // Sockets that tokio keeps for the whole process are made with the first runtime.
        drop(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
        Self { before: sockets(), _alone: alone }
    }

    /// Runs `main` on a worker. When it has ended, the worker must know of no socket any more, and every buffer must be free.
    pub(super) fn run<T, F, Fut>(&self, mode: Mode, main: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        self.run_on(&mode.runtime(), main)
    }

    /// As [`Self::run`], on a worker of `runtime`.
    pub(super) fn run_on<T, F, Fut>(&self, runtime: &Runtime, main: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        self.run_short(runtime, move || async move {
            let result = main().await;
            freed().await;
            result
        })
    }

    /// As [`Self::run_on`], but the worker ends with whatever is left.
    pub(super) fn run_short<T, F, Fut>(&self, runtime: &Runtime, main: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        let (done, result) = channel();
        let worker = runtime.spawn_worker(0, move || async move {
            let _ = done.send(main().await);
        });
        let worker = worker.unwrap();
        match result.recv_timeout(PATIENCE * 10) {
            Ok(result) => {
                worker.join().unwrap();
                result
            }
            Err(RecvTimeoutError::Timeout) => panic!("the worker hangs"),
            Err(RecvTimeoutError::Disconnected) => resume_unwind(worker.join().unwrap_err()),
        }
    }

    /// Runs `main`, which does not end, on a worker that must end without it.
    pub(super) fn run_until_lost<F, Fut>(&self, mode: Mode, main: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let (done, result) = channel::<()>();
        let worker = mode.runtime().spawn_worker(0, move || async move {
            main().await;
            let _ = done.send(());
        });
        let lost = result.recv_timeout(PATIENCE);
        assert_eq!(lost, Err(RecvTimeoutError::Disconnected));
        worker.unwrap().join().unwrap();
    }

    /// As [`Self::run_short`], on a driver as usual.
    pub(super) fn run_to_its_end<T, F, Fut>(&self, mode: Mode, main: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        self.run_short(&mode.runtime(), main)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // Other tests of this process have sockets too, but not for long.
        let mut left: BTreeSet<_> = sockets().difference(&self.before).cloned().collect();
        let end = Instant::now() + PATIENCE;
        while !left.is_empty() {
            assert!(Instant::now() < end, "descriptors are left open: {left:?}");
            std::thread::sleep(Duration::from_millis(1));
            let now = sockets();
            left.retain(|socket| now.contains(socket));
        }
    }
}

/// The sockets that this process has open, by inode.
fn sockets() -> BTreeSet<String> {
    let links = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| {
        let link = std::fs::read_link(entry.ok()?.path()).ok()?;
        link.to_str().filter(|link| link.starts_with("socket:")).map(str::to_owned)
    });
    links.collect()
}

/// Runs `f` on what this worker's driver knows.
pub(super) fn with<R>(f: impl FnOnce(&mut State) -> R) -> R {
    current().unwrap().with(f)
}

/// Waits until `is_so`.
pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() >= end {
            let slots = current().map(|driver| driver.with(|state| format!("{:#?}", state.slots)));
            panic!("never: {what}; {}", slots.unwrap_or_default());
        }
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
}

/// Waits until the worker knows of no socket and all buffers are free.
pub(super) async fn freed() {
    if current().is_some() {
        let is_freed = || with(|state| state.slots.is_empty() && state.ring.buffers().are_all_free());
        until("everything is freed", is_freed).await;
    }
}

/// Has the driver hand everything to the kernel and take everything in, a few times.
pub(super) async fn turns() {
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
}

/// A connection from the worker to a plain socket. `room` bounds what the kernel holds of the worker's output, if not 0.
pub(super) fn connection(room: usize) -> (ByteStream, Plain) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    if room > 0 {
        socket2::SockRef::from(&listener).set_send_buffer_size(room).unwrap();
    }
    let plain = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    if room > 0 {
        plain.set_recv_buffer_size(room).unwrap();
    }
    plain.connect(&listener.local_addr().unwrap().into()).unwrap();
    let plain = Plain::from(plain);
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    let stream = match current() {
        Some(driver) => ByteStream::ring(RingStream::new(&driver, stream.into())),
        None => ByteStream::epoll(tokio::net::TcpStream::from_std(stream).unwrap()),
    };
    (stream, plain)
}

/// The slots of closed streams.
pub(super) fn closing() -> usize {
    with(|state| {
        let is_closing = |slot: &Slot| matches!(slot, Slot::Socket(socket) if socket.closing.is_some());
        state.slots.iter().filter(|(_, slot)| is_closing(slot)).count()
    })
}

/// Asks once, and lets nobody be woken.
pub(super) fn once<R>(f: impl FnOnce(&mut Context<'_>) -> R) -> R {
    f(&mut Context::from_waker(Waker::noop()))
}

/// Bytes of which no two stretches are alike.
pub(super) fn pattern(len: usize, seed: u32) -> Vec<u8> {
    let byte = |i: usize| (i as u32).wrapping_add(seed).wrapping_mul(2_654_435_761).to_be_bytes()[0];
    (0..len).map(byte).collect()
}

/// What arrives next, at most `most` bytes.
pub(super) async fn take(stream: &mut ByteStream, most: usize) -> io::Result<Vec<u8>> {
    let mut scratch = Scratch::new();
    poll_fn(|cx| stream.poll_take(cx, &mut scratch, most).map_ok(<[u8]>::to_vec)).await
}

/// What arrives until the peer sends no more.
pub(super) async fn take_all(stream: &mut ByteStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let bytes = take(stream, usize::MAX).await?;
        if bytes.is_empty() {
            return Ok(all);
        }
        all.extend_from_slice(&bytes);
    }
}

/// Sends all of `bytes`.
pub(super) async fn send_all(stream: &mut ByteStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = poll_fn(|cx| stream.poll_send(cx, bytes)).await?;
        bytes = &bytes[n..];
    }
    Ok(())
}

/// Sends until nothing more is taken, and says how much of `bytes` was.
pub(super) async fn fill(stream: &mut ByteStream, bytes: &[u8]) -> usize {
    let mut taken = 0;
    loop {
        let before = taken;
        while let Poll::Ready(n) = once(|cx| stream.poll_send(cx, &bytes[taken..])) {
            taken += n.unwrap();
            assert!(taken < bytes.len(), "everything was taken");
        }
        if taken == before {
            return taken;
        }
        turns().await;
    }
}

/// Reads until the peer has closed, or an error; and whether it was closed rather than reset.
pub(super) fn read_all(mut plain: &Plain) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    match plain.read_to_end(&mut bytes) {
        Ok(_) => (bytes, true),
        Err(error) => {
            assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET), "{error}");
            (bytes, false)
        }
    }
}

/// Reads as [`read_all`] beside the worker.
pub(super) async fn reading(plain: Plain) -> (Vec<u8>, bool) {
    tokio::task::spawn_blocking(move || read_all(&plain)).await.unwrap()
}
