//! A worker's driver: when the ring takes its turns, and how it shares the thread with tokio.
//!
//! The turns are taken by one task of the worker. While there is work it stands at the end of tokio's queue: all operations of the tasks
//! before it go to the kernel in one call, and tasks whose operations have completed are woken. With nothing left to do it sleeps until the
//! ring's eventfd is signalled or a task starts an operation; while completions come in quick succession it sleeps in the ring instead, for
//! [`NAP`] at most, and saves the way around.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;

use super::ring::Ring;
use super::slot::register;
use super::state::State;

/// The longest sleep in the ring. A short one costs more: it is mostly the next timer of its core then, which must be programmed.
const NAP: Duration = Duration::from_millis(5);

/// For so long after datagrams the thread does not sleep in the ring, which does not see what arrives at tokio's descriptors, and those over UDP are
/// such: an answer would wait for the end of the nap.
const OUTSIDE: Duration = Duration::from_millis(100);

/// Tokio's timers and descriptors are looked at so often, whatever there is to do, unless the thread sleeps in the ring.
const LOOK: Duration = Duration::from_millis(1);

/// A sleep outside the ring shorter than this is one that could have been in it.
const SHORT: Duration = Duration::from_micros(500);

/// So many short sleeps in a row, and the next ones are in the ring.
const STREAK: u8 = 4;

/// So many rounds of tokio's queue without a call, and the thread may sleep in the ring. In one round a task that asks for nothing can
/// still wake another that does: those of HTTP/2 streams and of their connections do so.
const QUIET: u8 = 2;

/// Calls of streams after which there is a turn, whatever else is in tokio's queue.
const CALLS: u32 = 256;

/// For how long output of closed streams is waited for at most when the worker ends.
const FAREWELL: Duration = Duration::from_secs(5);

thread_local! {
    static CURRENT: RefCell<Option<Rc<Driver>>> = const { RefCell::new(None) };
}

/// The driver of this thread's sockets, where that is io_uring.
pub(crate) fn current() -> Option<Rc<Driver>> {
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

/// Something was received on this thread outside the ring.
pub(crate) fn heard_outside() {
    let _ = CURRENT.try_with(|current| {
        if let Ok(current) = current.try_borrow()
            && let Some(driver) = current.as_ref()
        {
            driver.outside.set(Some(Instant::now()));
        }
    });
}

/// The ring of one worker and the state of its sockets.
#[derive(Debug)]
pub(crate) struct Driver {
    state: RefCell<State>,
    wakers: RefCell<Vec<Waker>>,
    /// Calls of streams since the last turn.
    calls: Cell<u32>,
    /// Set while the task that takes the turns sleeps: the waker that a call must use.
    sleeper: RefCell<Option<Waker>>,
    /// A task has used up its budget: tokio goes on with it only after a look at its timers and descriptors.
    defers: Cell<bool>,
    /// When something was last received outside the ring.
    outside: Cell<Option<Instant>>,
    /// Why the ring is unusable, until the reason was reported.
    has_failed: Cell<bool>,
    failure: RefCell<Option<io::Error>>,
    #[cfg(test)]
    naps_in_vain: Cell<u32>,
}

impl Driver {
    /// Makes `ring` the driver of this thread.
    pub(crate) fn install(ring: Ring) -> Rc<Self> {
        let driver = Rc::new(Self {
            state: RefCell::new(State::new(ring)),
            wakers: RefCell::default(),
            calls: Cell::new(0),
            sleeper: RefCell::new(None),
            defers: Cell::new(false),
            outside: Cell::new(None),
            has_failed: Cell::new(false),
            failure: RefCell::new(None),
            #[cfg(test)]
            naps_in_vain: Cell::new(0),
        });
        CURRENT.with(|current| *current.borrow_mut() = Some(Rc::clone(&driver)));
        driver
    }

    /// The eventfd that the kernel signals when there is something to do.
    pub(crate) fn wakeup_fd(&self) -> io::Result<OwnedFd> {
        self.state.borrow().ring.wakeup_fd().try_clone()
    }

    /// Runs `f` on the driver's state; there will be a turn afterwards.
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let calls = self.calls.get().wrapping_add(1);
        self.calls.set(calls);
        if calls == 1 {
            let sleeper = self.sleeper.take();
            if let Some(sleeper) = sleeper {
                sleeper.wake();
            }
        } else if calls >= CALLS {
            self.turn(None);
            // What follows has not had a turn.
            self.calls.set(1);
        }
        f(&mut self.state.borrow_mut())
    }

    /// Frees memory that was not needed since the last call.
    pub(crate) fn rest(&self) {
        self.state.borrow_mut().rest();
    }

    /// One turn of the ring. Returns whether a task was woken.
    pub(crate) fn turn(&self, wait: Option<Duration>) -> bool {
        self.calls.set(0);
        let mut wakers = self.wakers.take();
        let result = self.state.borrow_mut().turn(wait, &mut wakers);
        if let Err(error) = result
            && !self.has_failed.replace(true)
        {
            self.failure.replace(Some(error));
        }
        let woken = !wakers.is_empty();
        // Nothing is borrowed here: waking may run code that comes back.
        wakers.drain(..).for_each(Waker::wake);
        self.wakers.replace(wakers);
        woken
    }

    /// Takes the turns, as long as the worker lives and the ring can be used; why it cannot. `wakeup` is the ring's eventfd.
    pub(crate) async fn run(self: Rc<Self>, wakeup: AsyncFd<OwnedFd>) -> io::Error {
        let mut looked = Instant::now();
        let mut streak = 0u8;
        let mut quiet = 0u8;
        loop {
            let was_idle = self.calls.get() == 0;
            let woken = self.turn(None);
            if let Some(failure) = self.failure.take() {
                return failure;
            }
            quiet = if woken || !was_idle { 0 } else { quiet.saturating_add(1) };
            let defers = self.defers.take();
            if quiet > 0 && !defers {
                if streak >= STREAK && quiet < QUIET {
                    requeue().await;
                    continue;
                }
                if streak < STREAK || self.hears_outside() || !self.nap() {
                    let since = Instant::now();
                    let waited = self.sleep(&wakeup).await;
                    let now = Instant::now();
                    streak = if now.duration_since(since) < SHORT { streak.saturating_add(1) } else { 0 };
                    if waited {
                        looked = now;
                        self.state.borrow_mut().expire(now);
                        continue;
                    }
                }
                quiet = 0;
            }
            let now = Instant::now();
            if now.duration_since(looked) < LOOK && !defers {
                requeue().await;
            } else {
                // Tokio looks at its timers and descriptors before it goes on with a task that yields in this way.
                looked = now;
                self.state.borrow_mut().expire(now);
                tokio::task::yield_now().await;
            }
        }
    }

    /// Whether more may come outside the ring before long.
    fn hears_outside(&self) -> bool {
        self.outside.get().is_some_and(|at| at.elapsed() < OUTSIDE)
    }

    /// Sleeps in the ring. Returns whether a task was woken.
    fn nap(&self) -> bool {
        let woken = self.turn(Some(NAP));
        #[cfg(test)]
        self.naps_in_vain.set(self.naps_in_vain.get().saturating_add(u32::from(!woken)));
        woken
    }

    /// Sleeps until the kernel or a task has something to do, or a closed stream's output has taken too long. False when there is
    /// something already, and nobody else had a turn.
    async fn sleep(&self, wakeup: &AsyncFd<OwnedFd>) -> bool {
        let expiry = {
            let mut state = self.state.borrow_mut();
            state.ring.set_wakeup(true);
            // What arrived before the kernel saw the request for wake-ups wakes no task.
            if state.has_work() {
                state.ring.set_wakeup(false);
                return false;
            }
            state.expiry()
        };
        let mut waited = false;
        let something = poll_fn(|cx| {
            if self.calls.get() > 0 {
                return Poll::Ready(());
            }
            match wakeup.poll_read_ready(cx) {
                Poll::Ready(Ok(mut ready)) => {
                    ready.clear_ready();
                    Poll::Ready(())
                }
                Poll::Ready(Err(_)) => Poll::Ready(()),
                Poll::Pending => {
                    register(&mut self.sleeper.borrow_mut(), cx);
                    waited = true;
                    Poll::Pending
                }
            }
        });
        match expiry {
            None => something.await,
            Some(expiry) => drop(tokio::time::timeout_at(expiry.into(), something).await),
        }
        self.sleeper.take();
        self.state.borrow_mut().ring.set_wakeup(false);
        waited
    }

    /// Charges the running task for an operation, so that one busy stream does not starve its neighbours.
    #[inline]
    pub(crate) fn charge(&self, cx: &mut Context<'_>) -> Poll<()> {
        let charged = pin!(tokio::task::consume_budget()).poll(cx);
        if charged.is_pending() {
            self.defers.set(true);
        }
        charged
    }

    /// Lets the output of closed streams go out, then takes back all that is under way. The worker's tasks have ended.
    pub(crate) fn finish(&self) {
        self.sleeper.take();
        let end = Instant::now() + FAREWELL;
        while self.state.borrow().is_flushing() && !self.has_failed.get() && Instant::now() < end {
            self.turn(Some(NAP));
        }
        self.state.borrow_mut().abandon();
        let end = Instant::now() + FAREWELL;
        while !self.state.borrow().slots.is_empty() && !self.has_failed.get() && Instant::now() < end {
            self.turn(Some(NAP));
        }
        CURRENT.with(|current| current.borrow_mut().take());
    }
}

/// Goes to the end of tokio's queue.
async fn requeue() {
    let mut has_waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use tokio::sync::Notify;
    use tokio::task::spawn_local;

    use super::*;
    use crate::udp::{ReceiveBatch, UdpSocket};
    use crate::{IoChoice, Runtime, listener};

    const ROUNDS: u32 = 200;

    /// Answers a peer, asking another task or working for long before each answer; how often the ring was slept in for nothing.
    fn naps_in_vain(works: bool) -> u32 {
        let socket = listener::bind("127.0.0.1:0".parse().unwrap(), Default::default()).unwrap();
        let address = socket.address().socket_addr().unwrap();
        let runtime = Runtime::new(IoChoice::IoUring, 1).unwrap();
        let (tell, naps_in_vain) = std::sync::mpsc::channel();
        let main = move || async move {
            let (mut stream, _) = listener::WorkerListener::new(socket).unwrap().accept().await.unwrap();
            let (asked, answered) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
            let (question, answer) = (Rc::clone(&asked), Rc::clone(&answered));
            spawn_local(async move {
                loop {
                    question.notified().await;
                    answer.notify_one();
                }
            });
            let conversation = async move {
                let mut byte = [0];
                while poll_fn(|cx| stream.poll_recv(cx, &mut byte).map_ok(<[u8]>::len)).await.unwrap() > 0 {
                    if works {
                        // More than a task may do at a time.
                        for _ in 0..200 {
                            poll_fn(|cx| stream.poll_send(cx, b"")).await.unwrap();
                        }
                    } else {
                        asked.notify_one();
                        answered.notified().await;
                    }
                    poll_fn(|cx| stream.poll_send(cx, b"a")).await.unwrap();
                }
            };
            spawn_local(conversation).await.unwrap();
            tell.send(current().unwrap().naps_in_vain.get()).unwrap();
        };
        let worker = runtime.spawn_worker(0, main).unwrap();
        let mut peer = std::net::TcpStream::connect(address).unwrap();
        for _ in 0..ROUNDS {
            peer.write_all(b"a").unwrap();
            peer.read_exact(&mut [0]).unwrap();
        }
        drop(peer);
        worker.join().unwrap();
        naps_in_vain.recv().unwrap()
    }

    // Each nap ends with what the peer says, unless that takes longer for once.

    #[test]
    #[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
    fn nobody_sleeps_in_the_ring_while_tasks_wake_each_other() {
        let naps = naps_in_vain(false);
        assert!(naps < ROUNDS / 2, "{naps} of {ROUNDS}");
    }

    #[test]
    #[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
    fn nobody_sleeps_in_the_ring_while_a_task_has_used_up_its_budget() {
        let naps = naps_in_vain(true);
        assert!(naps < ROUNDS / 2, "{naps} of {ROUNDS}");
    }

    /// What an HTTP/3 request does that goes to a backend over HTTP/1.1, one after the other.
    #[test]
    #[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
    fn nobody_sleeps_in_the_ring_while_datagrams_come() {
        let socket = listener::bind("127.0.0.1:0".parse().unwrap(), Default::default()).unwrap();
        let address = socket.address().socket_addr().unwrap();
        let runtime = Runtime::new(IoChoice::IoUring, 1).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let main = move || async move {
            let (mut stream, _) = listener::WorkerListener::new(socket).unwrap().accept().await.unwrap();
            let datagrams = UdpSocket::to_backends(&address).unwrap();
            tell.send((datagrams.local(), 0)).unwrap();
            let conversation = async move {
                let (mut received, mut byte) = (ReceiveBatch::default(), [0]);
                for _ in 0..ROUNDS {
                    poll_fn(|cx| datagrams.poll_receive(cx, &mut received)).await.unwrap();
                    for _ in 0..2 * STREAK {
                        poll_fn(|cx| stream.poll_send(cx, b"a")).await.unwrap();
                        poll_fn(|cx| stream.poll_recv(cx, &mut byte).map_ok(<[u8]>::len)).await.unwrap();
                    }
                }
                tell.send((address, current().unwrap().naps_in_vain.get())).unwrap();
            };
            spawn_local(conversation).await.unwrap();
        };
        let worker = runtime.spawn_worker(0, main).unwrap();
        let mut peer = std::net::TcpStream::connect(address).unwrap();
        let (to, _) = told.recv().unwrap();
        let from = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..ROUNDS {
            from.send_to(b"a", to).unwrap();
            for _ in 0..2 * STREAK {
                peer.read_exact(&mut [0]).unwrap();
                peer.write_all(b"a").unwrap();
            }
        }
        let (_, naps) = told.recv().unwrap();
        worker.join().unwrap();
        assert!(naps < ROUNDS / 2, "{naps} of {ROUNDS}");
    }
}
