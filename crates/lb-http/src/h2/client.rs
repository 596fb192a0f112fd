//! One HTTP/2 connection to a backend, shared by the exchanges of a worker.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use lb_core::address::Address;
use lb_core::ledger::Ledger;
use lb_io::{Deadline, WorkerIo};
use lb_pool::Connection;
use tokio::time::{Instant, sleep_until};

use super::back::H2Back;
use super::driver::{Ended, KEEP_ALIVE_PING, ROUNDS, Wire};
use super::excess;
use super::frame::{ErrorCode, Piece};
use super::mux::{Limits, Mux, Role};
use super::patience::Patience;
use super::window::MAX_WINDOW;
use lb_security::Stream;

/// The backend that a connection leads to, for lines of the log.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) name: Box<str>,
    pub(crate) address: Address,
}

/// What a connection to a backend is held to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientSettings {
    pub(crate) max_concurrent_streams: u32,
    pub(crate) max_header_list_size: u32,
    pub(crate) initial_stream_window: u32,
    pub(crate) initial_connection_window: u32,
    pub(crate) max_send_buffer: usize,
    pub(crate) keep_alive_interval: Option<Duration>,
    pub(crate) keep_alive_timeout: Duration,
    /// How wide the budgets of the ledger are.
    pub(crate) flood_budget_percent: u32,
    /// How long a write may make no progress.
    pub(crate) write_timeout: Duration,
    /// How long the backend may take to acknowledge our SETTINGS (RFC 9113 §6.5.3).
    pub(crate) settings_timeout: Duration,
}

/// A connection to a backend.
#[derive(Debug)]
pub(crate) struct ClientConnection {
    mux: Rc<RefCell<Mux>>,
    io: Rc<WorkerIo>,
    tls: bool,
    pub(super) born: Instant,
    /// The last stream was opened or has ended.
    pub(super) used: Cell<Instant>,
}

impl ClientConnection {
    /// Speaks HTTP/2 over `stream`. The socket belongs to a task of its own, which ends with the connection.
    pub(crate) fn start(
        stream: Stream,
        tls: bool,
        backend: Backend,
        settings: ClientSettings,
        io: Rc<WorkerIo>,
        connection: Option<Connection>,
        now: Instant,
    ) -> Rc<Self> {
        let ClientSettings { max_concurrent_streams, max_header_list_size, .. } = settings;
        let limits = Limits {
            max_concurrent_streams,
            max_header_list_size,
            initial_stream_window: settings.initial_stream_window,
            // Streams whose clients do not read must not use up what the others need: their own windows bound what they hold.
            initial_connection_window: settings
                .initial_stream_window
                .saturating_mul(max_concurrent_streams)
                .clamp(settings.initial_connection_window, MAX_WINDOW),
            max_send_buffer: settings.max_send_buffer,
            extended_connect: false,
        };
        let block = super::block_limits(max_header_list_size);
        let mux = Rc::new(RefCell::new(Mux::new(
            Role::Client,
            limits,
            Ledger::of_backend(settings.flood_budget_percent, now.into_std()),
            Rc::clone(&io),
        )));
        let driver = Driver {
            backend,
            wire: Wire::new(stream, Vec::new(), block, None, Rc::clone(&io), now),
            mux: Rc::clone(&mux),
            settings,
            patience: Patience::default(),
            unacknowledged: Some(now + settings.settings_timeout),
            _connection: connection,
        };
        tokio::task::spawn_local(driver.run(now));
        Rc::new(Self { mux, io, tls, born: now, used: Cell::new(now) })
    }

    /// Opens a stream, if the backend takes one more. A connection that has had `lifetime` streams is retired instead.
    pub(crate) fn open(&self, lifetime: u32, now: Instant) -> Option<H2Back> {
        let key = {
            let mut mux = self.mux.borrow_mut();
            if mux.opened() >= lifetime {
                mux.go_away(false, ErrorCode::NO_ERROR, "");
            }
            mux.takes_streams().then(|| mux.open())?
        };
        self.used.set(now);
        Some(H2Back::new(Rc::clone(&self.mux), key, Rc::clone(&self.io), self.tls))
    }

    /// Whether [`Self::open`] would open a stream.
    pub(crate) fn has_room(&self, lifetime: u32) -> bool {
        let mux = self.mux.borrow();
        mux.opened() < lifetime && mux.takes_streams()
    }

    /// How many streams the backend has processed, if it has said that it takes no more.
    pub(crate) fn served(&self) -> Option<u32> {
        self.mux.borrow().served()
    }

    /// Whether no stream can ever be opened on it again.
    pub(crate) fn is_retired(&self) -> bool {
        self.mux.borrow().is_retired()
    }

    /// Whether the backend takes bodies now: its window for all streams together is open.
    pub(crate) fn can_send(&self) -> bool {
        self.mux.borrow().can_send()
    }

    /// Whether it has not taken any for a while: a stream's body is not read there.
    pub(crate) fn is_stuck(&self, now: Instant) -> bool {
        self.mux.borrow().is_stuck(now)
    }

    /// Streams that are open.
    pub(crate) fn active(&self) -> usize {
        self.mux.borrow().active()
    }

    /// Takes no more streams; ends when those that run have ended.
    pub(crate) fn retire(&self) {
        self.mux.borrow_mut().go_away(false, ErrorCode::NO_ERROR, "");
    }
}

/// The task behind a connection.
struct Driver {
    /// The backend at the other end.
    backend: Backend,
    wire: Wire,
    mux: Rc<RefCell<Mux>>,
    settings: ClientSettings,
    patience: Patience,
    /// Until when the backend is to acknowledge our SETTINGS; `None` once it has, or the time is over.
    unacknowledged: Option<Instant>,
    /// Its count at its member, until the socket is closed.
    _connection: Option<Connection>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        let mut mux = self.mux.borrow_mut();
        if mux.has_streams() {
            // The connection is lost under them: what of their requests is still here can go elsewhere, if it does not leave now.
            mux.unwrote(self.wire.stream.recall());
        }
        mux.close();
    }
}

impl Driver {
    async fn run(mut self, now: Instant) {
        let sleep = pin!(sleep_until(now + self.settings.write_timeout));
        let mut deadline = Deadline::new(sleep);
        poll_fn(|cx| self.poll(cx, &mut deadline)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>, deadline: &mut Deadline<'_>) -> Poll<()> {
        let done = self.go_on(cx, deadline);
        if done.is_pending() {
            self.mux.borrow_mut().set_driver(cx.waker());
        }
        done
    }

    fn go_on(&mut self, cx: &mut Context<'_>, deadline: &mut Deadline<'_>) -> Poll<()> {
        loop {
            let now = Instant::now();
            let read = self.read(cx, now);
            let held = self.mux.borrow().is_full();
            if let Poll::Ready(Err(_)) = self.wire.poll_write(cx, &self.mux, now) {
                return Poll::Ready(());
            }
            if held && read.is_ok() && !self.mux.borrow().is_full() {
                continue;
            }
            if read.is_err() {
                return Poll::Ready(());
            }
            {
                let mut mux = self.mux.borrow_mut();
                if mux.active() == 0 {
                    if mux.is_retired() && mux.output().is_empty() && self.wire.is_flushed() {
                        self.wire.shutdown();
                        return Poll::Ready(());
                    }
                    mux.rest();
                    self.wire.rest();
                }
            }
            let stalled = self.wire.stalled_since().map(|since| since + self.settings.write_timeout);
            let alive = self.alive_due();
            let held = self.mux.borrow_mut().hold_due(now);
            if self.mux.borrow().knows_settings() {
                self.unacknowledged = None;
            }
            let due = [stalled, alive, held, self.unacknowledged].into_iter().flatten().min();
            let Some(due) = due else { return Poll::Pending };
            if !deadline.poll(cx, due) {
                return Poll::Pending;
            }
            let now = Instant::now();
            if stalled.is_some_and(|due| due <= now)
                || (self.wire.awaits_ping() && alive.is_some_and(|due| due <= now))
            {
                return Poll::Ready(());
            }
            if self.unacknowledged.take_if(|due| *due <= now).is_some() {
                // It may not keep to them. What it has is left to the timeouts of each request; it is given no more.
                tracing::debug!("backend has not acknowledged SETTINGS");
                self.mux.borrow_mut().go_away(
                    false,
                    ErrorCode::SETTINGS_TIMEOUT,
                    "SETTINGS not acknowledged",
                );
                continue;
            }
            self.mux.borrow_mut().end_hold(now);
            if alive.is_some_and(|due| due <= now) {
                self.wire.pinged(now);
                self.patience.pinged(now);
                self.mux.borrow_mut().ping(KEEP_ALIVE_PING);
            }
        }
    }

    /// When the backend is to be asked whether it is there, or is taken for gone. While no stream is open it does not matter, and TCP has
    /// probes of its own.
    fn alive_due(&self) -> Option<Instant> {
        let due = self.wire.ping_due(self.settings.keep_alive_interval?, self.settings.keep_alive_timeout);
        if self.wire.awaits_ping() {
            return Some(due);
        }
        (self.mux.borrow().active() > 0).then(|| self.patience.earliest(due))
    }

    fn read(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), Ended> {
        let io = Rc::clone(&self.wire.io);
        let mut scratch = io.scratch.borrow_mut();
        for _ in 0..ROUNDS {
            if self.mux.borrow().is_full() {
                return Ok(());
            }
            let Self { wire, mux, patience, .. } = self;
            let read = wire.poll_read(cx, &mut scratch, now, |frame| {
                if let Ok(Piece::Headers { .. } | Piece::Data { .. }) = frame {
                    patience.answered();
                }
                mux.borrow_mut().receive(frame, None, now).map(|_| ())
            });
            match read {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) => {
                    if std::mem::take(&mut self.mux.borrow_mut().shunned) {
                        excess::backend_retired(&self.backend, now);
                    }
                }
                Poll::Ready(Err(ended)) => {
                    if let Ended::Fault(error) = ended {
                        tracing::debug!(code = error.code.name(), "backend ended: {}", error.what);
                        let mut mux = self.mux.borrow_mut();
                        if let Some(reason) = error.excess {
                            excess::backend_ended(&self.backend, reason, &mux, now);
                        }
                        mux.go_away(false, error.code, error.what);
                    }
                    return Err(ended);
                }
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }
}
