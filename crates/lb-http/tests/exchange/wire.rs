//! Connections in memory, in virtual time: bytes are under way for a while, arrive in pieces of any size, and stop at any byte.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lb_core::rng::SplitMix64;
use lb_io::ByteStream;
use lb_io::socket::Socket;
use tokio::time::{Instant, Sleep, sleep};

/// How a connection carries bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) latency: Duration,
    /// The most that one read returns and one write takes; each is of random size up to that.
    pub(crate) piece: usize,
    /// Bytes that are under way or unread at once.
    pub(crate) capacity: usize,
    /// After how many bytes it breaks, in this direction, counted from the first.
    pub(crate) cut: Option<Cut>,
    pub(crate) seed: u64,
}

/// Where a connection breaks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// In the bytes of the end that has connected, or of the other.
    pub(crate) of_client: bool,
    pub(crate) after: u64,
    /// By a reset; otherwise as if each end had closed.
    pub(crate) by_reset: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self { latency: Duration::from_millis(1), piece: usize::MAX, capacity: 64 * 1024, cut: None, seed: 0 }
    }
}

/// How the bytes of one direction end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Fin,
    Reset,
}

/// One direction.
#[derive(Debug, Default)]
struct Lane {
    /// What is under way or unread, with the time of its arrival.
    chunks: VecDeque<(Instant, VecDeque<u8>)>,
    held: usize,
    written: u64,
    end: Option<(Instant, End)>,
    /// The reader is gone: what is written breaks the connection.
    deaf: bool,
    wakers: Vec<Waker>,
}

impl Lane {
    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }

    fn wait(&mut self, cx: &Context<'_>) {
        if !self.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.wakers.push(cx.waker().clone());
        }
    }

    fn end(&mut self, at: Instant, end: End) {
        if self.end.is_none() || end == End::Reset {
            self.end = Some((at, end));
        }
        self.wake();
    }

    /// When something can be read, or the end be seen.
    fn arrival(&self) -> Option<Instant> {
        self.chunks.front().map(|(at, _)| *at).or(self.end.map(|(at, _)| at))
    }
}

/// A connection.
#[derive(Debug)]
struct Link {
    lanes: [RefCell<Lane>; 2],
    shape: Shape,
    rng: RefCell<SplitMix64>,
    broken: Cell<bool>,
}

impl Link {
    /// Both ends lose it.
    fn break_off(&self, how: End) {
        self.broken.set(true);
        let at = Instant::now() + self.shape.latency;
        for lane in &self.lanes {
            let mut lane = lane.borrow_mut();
            lane.deaf = true;
            lane.end(at, how);
        }
    }

    fn some(&self, most: usize) -> usize {
        let most = most.min(self.shape.piece);
        if most <= 1 || self.shape.piece == usize::MAX {
            return most;
        }
        1 + (self.rng.borrow_mut().next_u64() % most as u64) as usize
    }
}

const ARRIVAL: usize = 0;
const END: usize = 1;

/// One end of a connection.
pub(crate) struct Endpoint {
    link: Rc<Link>,
    /// The lane that it writes to.
    side: usize,
    /// Wakes it when something arrives, and when the end does.
    timers: [RefCell<Pin<Box<Sleep>>>; 2],
    resets: bool,
    shut: bool,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({})", self.side)
    }
}

/// A connection: the end that has connected, and the other.
pub(crate) fn connection(shape: Shape) -> (ByteStream, ByteStream) {
    let link = Rc::new(Link {
        lanes: Default::default(),
        rng: RefCell::new(SplitMix64::new(shape.seed)),
        shape,
        broken: Cell::new(false),
    });
    let end = |side: usize| {
        ByteStream::plugged(Endpoint {
            link: Rc::clone(&link),
            side,
            timers: [(); 2].map(|()| RefCell::new(Box::pin(sleep(Duration::ZERO)))),
            resets: false,
            shut: false,
        })
    };
    (end(0), end(1))
}

impl Endpoint {
    fn incoming(&self) -> &RefCell<Lane> {
        &self.link.lanes[1 - self.side]
    }

    fn outgoing(&self) -> &RefCell<Lane> {
        &self.link.lanes[self.side]
    }

    /// Ready when something can be read or the end seen; otherwise the task is woken then.
    fn poll_arrival(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut lane = self.incoming().borrow_mut();
        match lane.arrival() {
            Some(at) if at <= Instant::now() => Poll::Ready(()),
            arrival => {
                lane.wait(cx);
                self.wake_at(cx, ARRIVAL, arrival);
                Poll::Pending
            }
        }
    }

    fn wake_at(&self, cx: &mut Context<'_>, which: usize, at: Option<Instant>) {
        let Some(at) = at else { return };
        let mut timer = self.timers[which].borrow_mut();
        timer.as_mut().reset(at);
        if timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}

impl Socket for Endpoint {
    fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.poll_arrival(cx).is_pending() {
            return Poll::Pending;
        }
        let mut lane = self.incoming().borrow_mut();
        if lane.chunks.is_empty() {
            return Poll::Ready(match lane.end {
                Some((_, End::Reset)) => Err(io::Error::from_raw_os_error(104)),
                _ => Ok(0),
            });
        }
        let (most, now) = (self.link.some(buffer.len()), Instant::now());
        let mut n = 0;
        while n < most
            && let Some((at, chunk)) = lane.chunks.front_mut()
            && *at <= now
        {
            let part = chunk.len().min(most - n);
            for (slot, byte) in buffer[n..].iter_mut().zip(chunk.drain(..part)) {
                *slot = byte;
            }
            n += part;
            if chunk.is_empty() {
                lane.chunks.pop_front();
            }
        }
        lane.held -= n;
        lane.wake();
        Poll::Ready(Ok(n))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut lane = self.outgoing().borrow_mut();
        if lane.deaf || self.shut {
            return Poll::Ready(Err(io::Error::from_raw_os_error(32)));
        }
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        let room = self.link.shape.capacity.saturating_sub(lane.held);
        if room == 0 {
            lane.wait(cx);
            return Poll::Pending;
        }
        let mut n = self.link.some(total.min(room));
        let cut = self.link.shape.cut.filter(|cut| cut.of_client == (self.side == 0));
        let mut breaks = None;
        if let Some(cut) = cut
            && lane.written + n as u64 >= cut.after
        {
            n = usize::try_from(cut.after - lane.written).unwrap();
            breaks = Some(if cut.by_reset { End::Reset } else { End::Fin });
        }
        let bytes: VecDeque<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(n).collect();
        if n > 0 {
            lane.chunks.push_back((Instant::now() + self.link.shape.latency, bytes));
        }
        lane.held += n;
        lane.written += n as u64;
        lane.wake();
        drop(lane);
        if let Some(how) = breaks {
            self.link.break_off(how);
            if n == 0 {
                return Poll::Ready(Err(io::Error::from_raw_os_error(32)));
            }
        }
        Poll::Ready(Ok(n))
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.shut = true;
        let at = Instant::now() + self.link.shape.latency;
        self.outgoing().borrow_mut().end(at, End::Fin);
        Ok(())
    }

    fn reset_on_close(&mut self) {
        self.resets = true;
    }

    fn has_arrived(&self) -> bool {
        self.incoming().borrow().arrival().is_some_and(|at| at <= Instant::now())
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_arrival(cx).map(Ok)
    }

    fn poll_hangup(&self, cx: &mut Context<'_>) -> Poll<()> {
        let at = self.incoming().borrow().end.map(|(at, _)| at);
        if at.is_some_and(|at| at <= Instant::now()) {
            return Poll::Ready(());
        }
        let mut lane = self.incoming().borrow_mut();
        lane.wait(cx);
        drop(lane);
        self.wake_at(cx, END, at);
        Poll::Pending
    }
}

impl Drop for Endpoint {
    /// As of a socket: bytes that were not read make a reset of the close.
    fn drop(&mut self) {
        let at = Instant::now() + self.link.shape.latency;
        let unread = self.incoming().borrow().held > 0;
        let how = if self.resets || unread { End::Reset } else { End::Fin };
        self.outgoing().borrow_mut().end(at, how);
        let mut incoming = self.incoming().borrow_mut();
        incoming.deaf = true;
        incoming.wake();
    }
}
