//! A worker's driver: when the ring takes its turns, and how it shares the thread with tokio.
//!
//! The turns are taken by a task among the worker's others. While there is work it stands at the end of tokio's queue: all that the tasks
//! before it have asked for goes to the kernel in one call, and who has got an answer is woken. With nothing left to do it sleeps until
//! the ring's eventfd says that there is something, or a task asks for something; while answers come in quick succession it sleeps in the
//! ring instead, for [`NAP`] at most, and saves the way around.

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

/// Tokio's timers and descriptors are looked at so often, whatever there is to do, unless the thread sleeps in the ring.
const LOOK: Duration = Duration::from_millis(1);

/// A sleep outside the ring shorter than this is one that could have been in it.
const SHORT: Duration = Duration::from_micros(500);

/// So many short sleeps in a row, and the next ones are in the ring.
const STREAK: u8 = 4;

/// Calls of streams after which there is a turn, whatever else is in tokio's queue.
const CALLS: u32 = 256;

/// For how long output of closed streams is waited for when the worker ends.
const FAREWELL: Duration = Duration::from_secs(1);

thread_local! {
    static CURRENT: RefCell<Option<Rc<Driver>>> = const { RefCell::new(None) };
}

/// The driver of this thread's sockets, where that is io_uring.
pub(crate) fn current() -> Option<Rc<Driver>> {
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

/// The ring of one worker and what it knows of its sockets.
#[derive(Debug)]
pub(crate) struct Driver {
    state: RefCell<State>,
    wakers: RefCell<Vec<Waker>>,
    /// Calls of streams since the last turn.
    calls: Cell<u32>,
    /// Set while the task that takes the turns sleeps: whom a call must wake.
    sleeper: RefCell<Option<Waker>>,
    has_failed: Cell<bool>,
}

impl Driver {
    /// Makes `ring` the driver of this thread.
    pub(crate) fn install(ring: Ring) -> Rc<Self> {
        let driver = Rc::new(Self {
            state: RefCell::new(State::new(ring)),
            wakers: RefCell::default(),
            calls: Cell::new(0),
            sleeper: RefCell::new(None),
            has_failed: Cell::new(false),
        });
        CURRENT.with(|current| *current.borrow_mut() = Some(Rc::clone(&driver)));
        driver
    }

    /// The eventfd that says that there is something to do.
    pub(crate) fn wakeup_fd(&self) -> io::Result<OwnedFd> {
        self.state.borrow().ring.wakeup_fd().try_clone()
    }

    /// Runs `f` on what the driver knows; there will be a turn afterwards.
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
        }
        f(&mut self.state.borrow_mut())
    }

    /// One turn of the ring; whether anybody was woken.
    pub(crate) fn turn(&self, wait: Option<Duration>) -> bool {
        self.calls.set(0);
        let mut wakers = self.wakers.take();
        let result = self.state.borrow_mut().turn(wait, &mut wakers);
        if let Err(error) = result
            && !self.has_failed.replace(true)
        {
            tracing::error!(%error, "io_uring fails — connections of this worker stand still");
        }
        let woken = !wakers.is_empty();
        // Nothing is borrowed here: waking may run code that comes back.
        wakers.drain(..).for_each(Waker::wake);
        self.wakers.replace(wakers);
        woken
    }

    /// Takes the turns, as long as the worker lives. `wakeup` is the ring's eventfd.
    pub(crate) async fn run(self: Rc<Self>, wakeup: AsyncFd<OwnedFd>) {
        let mut looked = Instant::now();
        let mut streak = 0u8;
        loop {
            // A task that asks for nothing may still be in the queue, but it waits for nothing that the ring would bring.
            let was_idle = self.calls.get() == 0;
            let woken = self.turn(None) || (was_idle && streak >= STREAK && self.turn(Some(NAP)));
            if woken || !was_idle {
                let now = Instant::now();
                if now.duration_since(looked) < LOOK {
                    requeue().await;
                } else {
                    // Tokio looks at its timers and descriptors before it goes on with a task that yields in this way.
                    looked = now;
                    self.state.borrow_mut().expire(now);
                    tokio::task::yield_now().await;
                }
                continue;
            }
            let since = Instant::now();
            self.sleep(&wakeup).await;
            looked = Instant::now();
            streak = if looked.duration_since(since) < SHORT { streak.saturating_add(1) } else { 0 };
            self.state.borrow_mut().expire(looked);
        }
    }

    /// Sleeps until the kernel or a task has something to do.
    async fn sleep(&self, wakeup: &AsyncFd<OwnedFd>) {
        {
            let mut state = self.state.borrow_mut();
            state.ring.set_wakeup(true);
            // What came before the kernel saw that wakes nobody.
            if state.has_work() {
                state.ring.set_wakeup(false);
                return;
            }
        }
        poll_fn(|cx| {
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
                    Poll::Pending
                }
            }
        })
        .await;
        self.sleeper.take();
        self.state.borrow_mut().ring.set_wakeup(false);
    }

    /// Lets the output of closed streams go out, then takes back all that is under way. The worker's tasks have ended.
    pub(crate) fn finish(&self) {
        self.sleeper.take();
        let end = Instant::now() + FAREWELL;
        while self.state.borrow().is_flushing() && Instant::now() < end {
            self.turn(Some(NAP));
        }
        self.state.borrow_mut().abandon();
        let end = Instant::now() + FAREWELL;
        while !self.state.borrow().slots.is_empty() && Instant::now() < end {
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

/// Charges the running task for an operation, so that one busy stream does not starve its neighbours.
#[inline]
pub(crate) fn charge(cx: &mut Context<'_>) -> Poll<()> {
    pin!(tokio::task::consume_budget()).poll(cx)
}
