//! One UDP listener on one worker: its task.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use lb_io::udp::{UdpSocket, UplinkEvent};
use lb_io::{Deadline, Phase, WorkerIo};
use lb_security::admission::Admissions;
use tokio::time::sleep_until;

use super::forward::forward;
use super::reply::Replies;
use super::settings::UdpSettings;
use super::state::{Around, State};

/// How often a turn looks at all sockets before other tasks of the worker have theirs.
const ROUNDS: usize = 8;

/// Events of uplinks that are taken before the listening sockets are looked at again.
const EVENTS: usize = 256;

/// One UDP listener on one worker.
#[derive(Debug)]
pub struct UdpService {
    io: Rc<WorkerIo>,
    admissions: Rc<Admissions>,
    state: RefCell<State>,
    waker: RefCell<Option<Waker>>,
    sockets: RefCell<Rc<[UdpSocket]>>,
    /// Another listener, or another process, reads the sockets.
    is_read_elsewhere: Cell<bool>,
}

impl UdpService {
    /// A listener at these sockets, with its first settings. `seed` is secret.
    ///
    /// # Errors
    /// When descriptors are wanting.
    pub fn new(
        io: Rc<WorkerIo>,
        admissions: Rc<Admissions>,
        settings: Rc<UdpSettings>,
        sockets: Vec<UdpSocket>,
        seed: u64,
    ) -> io::Result<Rc<Self>> {
        admissions.metrics.set_udp();
        set_source_cap(&admissions, &settings);
        Ok(Rc::new(Self {
            io,
            admissions,
            state: RefCell::new(State::new(settings, seed, Instant::now())?),
            waker: RefCell::default(),
            sockets: RefCell::new(sockets.into()),
            is_read_elsewhere: Cell::new(false),
        }))
    }

    /// Puts new settings in force, for flows that live as well.
    pub fn replace(&self, settings: Rc<UdpSettings>) {
        set_source_cap(&self.admissions, &settings);
        self.state.borrow_mut().replace(settings, Instant::now());
        self.wake();
    }

    /// No flow begins any more. Those that live go on until they end or are aborted; the task ends with the last of them.
    pub fn close(&self) {
        self.state.borrow_mut().is_closing = true;
        self.wake();
    }

    /// Another process reads the sockets from now on. Replies of flows that live are still passed on by them.
    pub fn stop_reading(&self) {
        self.is_read_elsewhere.set(true);
        self.wake();
    }

    /// Another listener has the address from now on, and reads these sockets. Replies of flows that live are passed on by them; the earlier
    /// ones are closed, for the kernel would go on to queue a part of the datagrams there.
    pub fn give_way(&self, to: Vec<UdpSocket>) {
        *self.sockets.borrow_mut() = to.into();
        self.stop_reading();
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Forwards what arrives, until the listener is closed and no flow is left.
    pub async fn run(self: Rc<Self>) {
        let mut follower = None;
        let sleep = pin!(sleep_until(Instant::now().into()));
        let mut deadline = Deadline::new(sleep);
        poll_fn(|cx| {
            if follower.is_none() {
                follower = Some(self.admissions.connections.follow(cx.waker()));
                *self.waker.borrow_mut() = Some(cx.waker().clone());
            }
            loop {
                if self.turn(cx).is_ready() {
                    return Poll::Ready(());
                }
                let due = self.state.borrow().due();
                match due {
                    Some(due) if deadline.poll(cx, due.into()) => {}
                    _ => return Poll::Pending,
                }
            }
        })
        .await;
        // What the gauge shows of this worker goes with its sockets.
        self.admissions.metrics.worker(self.io.id).udp_uplinks.set(0);
        *self.sockets.borrow_mut() = Rc::new([]);
    }

    /// Moves what has arrived. Ready when the listener has ended.
    fn turn(&self, cx: &mut Context<'_>) -> Poll<()> {
        let sockets = Rc::clone(&self.sockets.borrow());
        let sockets = &*sockets;
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let around = Around { io: &self.io, admissions: &self.admissions, now: Instant::now() };
        if self.admissions.connections.phase() == Phase::Abort {
            state.end_all(&around);
        }
        let mut rounds = 0;
        while self.receive(cx, state, sockets, &around) | self.reply(cx, state, sockets, &around) {
            rounds += 1;
            if rounds >= ROUNDS {
                cx.waker().wake_by_ref();
                break;
            }
        }
        state.tidy(&around);
        if state.is_closing && state.table.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Forwards one batch of each listening socket. Whether there was any.
    fn receive(
        &self,
        cx: &mut Context<'_>,
        state: &mut State,
        sockets: &[UdpSocket],
        around: &Around<'_>,
    ) -> bool {
        if self.is_read_elsewhere.get() {
            return false;
        }
        let mut batch = self.io.datagrams.borrow_mut();
        let mut any = false;
        for (number, socket) in sockets.iter().enumerate() {
            match socket.poll_receive(cx, &mut batch) {
                Poll::Ready(Ok(())) => {
                    any = true;
                    let worker = &self.admissions.worker_metrics;
                    forward(state, &mut batch, (socket, number), around, worker);
                }
                Poll::Ready(Err(error)) => {
                    any = true;
                    tracing::debug!(%error, listener = self.admissions.name, "a listening socket has an error");
                }
                Poll::Pending => {}
            }
        }
        any
    }

    /// Passes replies on. Whether there were any.
    fn reply(
        &self,
        cx: &mut Context<'_>,
        state: &mut State,
        sockets: &[UdpSocket],
        around: &Around<'_>,
    ) -> bool {
        let mut batch = self.io.datagrams.borrow_mut();
        let mut out = self.io.outgoing_datagrams.borrow_mut();
        let mut replies = Replies::default();
        let mut events = 0;
        while events < EVENTS {
            match state.uplinks.poll_event(cx, &mut batch) {
                Poll::Ready(Ok(UplinkEvent::Received(at))) => {
                    replies.add(state, (at, &mut batch), sockets, &mut out, around);
                }
                Poll::Ready(Ok(UplinkEvent::Unreachable(flow))) => {
                    if let Some(flow) = state.table.get_mut(flow) {
                        flow.target.unreachable(around.now);
                    }
                }
                Poll::Ready(Err(error)) => {
                    tracing::error!(%error, listener = self.admissions.name, "sockets to backends cannot be waited for");
                    break;
                }
                Poll::Pending => break,
            }
            events += 1;
        }
        replies.flush(sockets, &mut out);
        replies.tally(around, &self.admissions.worker_metrics);
        events > 0
    }
}

fn set_source_cap(admissions: &Admissions, settings: &UdpSettings) {
    admissions.set_max_of_source(settings.udp.max_flows_per_source.unwrap_or(u32::MAX));
}
