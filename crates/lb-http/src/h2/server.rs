//! One HTTP/2 connection from a client, from its preface to its end.

mod requests;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use lb_core::ledger::{Ledger, Limits as Budgets};
use lb_core::reason::Reason;
use lb_io::{ConnectionGuard, Deadline, Phase};
use lb_observe::metrics::{Http2Error, Label};
use tokio::time::{Instant, sleep_until};

use super::block_limits;
use super::driver::{Ended, KEEP_ALIVE_PING, ROUNDS, Wire};
use super::excess;
use super::frame::{ErrorCode, FrameError, Preface, Scope};
use super::front::H2Front;
use super::mux::{Happening, Limits, Mux, Received, Role};
use crate::message::Gone;
use crate::proxy::{Arrival, Client};
use crate::section::request::RequestLimits;
use crate::serve::Serving;
use crate::service::{Service, Settings};
use lb_security::Stream;

/// How long the client is given to read the last bytes: a close while its own are on their way would reset the connection.
const LINGER: Duration = Duration::from_secs(1);

/// How long the client is given to read the last bytes while the gateway drains.
const DRAIN_LINGER: Duration = Duration::from_millis(500);

/// How long the first of the two GOAWAYs is given to arrive.
const NOTICE: Duration = Duration::from_secs(1);

/// Serves one connection to its end. `early` was read from it already, since it was `born`.
pub(crate) fn serve(
    stream: Stream,
    early: Vec<u8>,
    client: Client,
    guard: ConnectionGuard,
    service: Rc<Service>,
    born: Instant,
) -> Serving {
    let now = Instant::now();
    let settings = service.settings();
    let first = born + settings.http.header_timeout;
    let h2 = &settings.h2;
    let limits = Limits {
        max_concurrent_streams: h2.max_concurrent_streams,
        max_header_list_size: h2.max_header_list_size,
        initial_stream_window: h2.initial_stream_window_size,
        initial_connection_window: h2.initial_connection_window_size,
        max_send_buffer: h2.max_send_buf_size,
        extended_connect: settings.h2_extended_connect,
    };
    let budgets = Budgets {
        streams: h2.max_concurrent_streams,
        peer_resets: h2.max_pending_accept_reset_streams,
        local_resets: h2.max_local_error_reset_streams,
        percent: h2.flood_budget_percent,
    };
    let ledger = Ledger::of_client(budgets, now.into_std());
    let io = Rc::clone(&service.worker.io);
    let mux = Rc::new(RefCell::new(Mux::new(Role::Server, limits, ledger, Rc::clone(&io))));
    let mut connection = Connection {
        wire: Wire::new(
            stream,
            early,
            block_limits(h2.max_header_list_size),
            Some(Preface::default()),
            io,
            now,
        ),
        mux,
        client,
        guard,
        service,
        state: State::Serving,
        requests: 0,
        deaf: false,
        idle_since: Some(now),
        born,
        registered: false,
    };
    Box::pin(async move {
        let sleep = pin!(sleep_until(first));
        let mut deadline = Deadline::new(sleep);
        poll_fn(|cx| connection.poll(cx, &mut deadline)).await;
    })
}

struct Connection {
    wire: Wire,
    mux: Rc<RefCell<Mux>>,
    client: Client,
    guard: ConnectionGuard,
    service: Rc<Service>,
    state: State,
    /// The client has broken the protocol: nothing more is read.
    deaf: bool,
    requests: u32,
    /// Since when there is no stream; `None` while there is one.
    idle_since: Option<Instant>,
    born: Instant,
    registered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Serving,
    /// The client was told that the end is near; which stream is the last is not settled yet.
    Notice {
        since: Instant,
    },
    /// No new stream is served; those that run are finished.
    Finishing,
    /// Everything is said, and our side is shut down.
    Linger {
        until: Instant,
    },
}

/// What a connection has a deadline for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// The client takes some of the output.
    Written,
    /// A header block is complete, or the client's SETTINGS have come.
    Head,
    /// The client has acknowledged our SETTINGS.
    Acknowledged,
    /// The last stream is named.
    LastStream,
    /// The client is asked whether it is there.
    Ping,
    /// It has answered.
    Pong,
    /// A request whose answer is complete has ended.
    Lingering,
    /// Bodies that are held back are looked at again.
    Held,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The exchanges outlive the connection by a moment: they find it gone.
        self.mux.borrow_mut().close();
    }
}

impl Connection {
    fn poll(&mut self, cx: &mut Context<'_>, deadline: &mut Deadline<'_>) -> Poll<()> {
        if !self.registered {
            self.registered = true;
            self.guard.set_waker(cx.waker());
        }
        let settings = self.service.settings();
        let done = self.go_on(cx, deadline, &settings);
        if done.is_pending() {
            self.mux.borrow_mut().set_driver(cx.waker());
        }
        done
    }

    fn go_on(
        &mut self,
        cx: &mut Context<'_>,
        deadline: &mut Deadline<'_>,
        settings: &Rc<Settings>,
    ) -> Poll<()> {
        loop {
            let now = Instant::now();
            match self.guard.phase() {
                Phase::Serving => {}
                Phase::Abort => {
                    self.mux.borrow_mut().give_up(Reason::Aborted);
                    self.wire.stream.reset_on_close();
                    return Poll::Ready(());
                }
                _ if self.guard.is_asked() => self.notice(now),
                _ => {}
            }
            if let State::Linger { until } = self.state {
                let over = self.wire.poll_discard(cx).is_ready() || deadline.poll(cx, until);
                return if over { Poll::Ready(()) } else { Poll::Pending };
            }
            if self.read(cx, settings, now).is_err() {
                return Poll::Ready(());
            }
            let held = self.mux.borrow().is_full();
            if let Poll::Ready(Err(_)) = self.wire.poll_write(cx, &self.mux, now) {
                return Poll::Ready(());
            }
            // What was not read for want of room may be what frees the streams.
            if self.settle(now) || (held && !self.deaf && !self.mux.borrow().is_full()) {
                continue;
            }
            self.rest(now);
            let Some((at, due)) = self.due(settings, now) else { return Poll::Pending };
            if !deadline.poll(cx, at) {
                return Poll::Pending;
            }
            if self.expired(due, Instant::now()) {
                return Poll::Ready(());
            }
        }
    }

    /// Reads what has arrived, within limits. `Err` says that the connection is gone.
    fn read(&mut self, cx: &mut Context<'_>, settings: &Rc<Settings>, now: Instant) -> Result<(), Gone> {
        for _ in 0..ROUNDS {
            if self.deaf || self.mux.borrow().is_full() {
                return Ok(());
            }
            match self.poll_read(cx, settings, now) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(Ended::Closed)) => return Err(Gone::Closed),
                Poll::Ready(Err(Ended::Fault(error))) => {
                    self.fault(error, now);
                    return Ok(());
                }
                Poll::Pending => return Ok(()),
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        settings: &Rc<Settings>,
        now: Instant,
    ) -> Poll<Result<(), Ended>> {
        let worker = Rc::clone(&self.service.worker);
        let mut scratch = worker.io.scratch.borrow_mut();
        let Self { wire, mux, client, service, state, requests, .. } = self;
        let mut spare = worker.take_head();
        let result = wire.poll_read(cx, &mut scratch, now, |piece| {
            let received = Received {
                limits: RequestLimits {
                    head: &settings.limits,
                    list: usize::try_from(settings.h2.max_header_list_size).unwrap_or(usize::MAX),
                    extended_connect: settings.h2_extended_connect,
                },
                head: &mut spare,
            };
            let happening = mux.borrow_mut().receive(piece, Some(received), now)?;
            let (key, reject) = match happening {
                Happening::Nothing => return Ok(()),
                Happening::Request(key) => (key, None),
                Happening::Refused(key, reject) => (key, Some(reject)),
            };
            let head = std::mem::replace(&mut spare, worker.take_head());
            *requests = requests.saturating_add(1);
            let most = settings.max_h2_requests;
            if most != 0 && *requests >= most && *state == State::Serving {
                // Enough for one connection: the next requests are balanced anew.
                *state = State::Notice { since: now };
                mux.borrow_mut().go_away(true, ErrorCode::NO_ERROR, "");
            }
            let io = Rc::clone(&worker.io);
            let front = H2Front::new(Rc::clone(mux), key, io, head.is_head());
            let arrival = Arrival { service, settings, client, started: now };
            match reject {
                None => requests::begin(arrival, head, front),
                Some(reject) => requests::refuse(arrival, head, front, reject),
            }
            Ok(())
        });
        worker.put_head(spare);
        result
    }

    /// Tells the client that no more requests will be served soon. Requests that are on their way still are.
    fn notice(&mut self, now: Instant) {
        if self.state == State::Serving {
            self.state = State::Notice { since: now };
            self.mux.borrow_mut().go_away(true, ErrorCode::NO_ERROR, "");
        }
    }

    /// Tells the client which stream is the last.
    fn finish(&mut self) {
        self.mux.borrow_mut().go_away(false, ErrorCode::NO_ERROR, "");
        self.state = State::Finishing;
    }

    /// Goes on with an end that has begun. True when there is more to do.
    fn settle(&mut self, now: Instant) -> bool {
        let (answered, idle, flushed) = {
            let mux = self.mux.borrow();
            (mux.ping_answered, mux.active() == 0, mux.output().is_empty())
        };
        match self.state {
            State::Notice { .. } if answered => self.finish(),
            State::Finishing if idle && flushed && self.wire.is_flushed() => {
                self.wire.shutdown();
                let linger = if self.guard.phase() == Phase::Serving { LINGER } else { DRAIN_LINGER };
                self.state = State::Linger { until: now + linger };
            }
            _ => return false,
        }
        true
    }

    /// The client broke a rule, which ends the connection: it is told so, and its requests are given up.
    fn fault(&mut self, error: FrameError, now: Instant) {
        let worker = &self.service.worker;
        worker.metrics.http2_errors.of(label(error.code)).inc();
        if let Some(reason) = error.excess {
            worker.metrics.http2_abuse.of(reason).inc();
        }
        tracing::debug!(client = %self.client.address, code = error.code.name(), "HTTP/2 connection ended: {}", error.what);
        let mut mux = self.mux.borrow_mut();
        let reason = error.excess.unwrap_or(Reason::ProtocolError);
        let (listener, client) = (&self.service.name, self.client.address);
        if error.excess.is_none() || !excess::client_ended(listener, client, reason, &mux, now) {
            let is_late = reason == Reason::HeaderTimeout || error.code == ErrorCode::SETTINGS_TIMEOUT;
            excess::client_cut(listener, client, reason, is_late.then_some("header_timeout_ms"), &mux, now);
        }
        mux.give_up(reason);
        mux.go_away(false, error.code, error.what);
        mux.close();
        self.deaf = true;
        self.state = State::Finishing;
    }

    /// Says in the log that the client's responses are cut for the limit of `key`.
    fn tell_cut(&self, reason: Reason, key: &str, now: Instant) {
        let mux = self.mux.borrow();
        excess::client_cut(&self.service.name, self.client.address, reason, Some(key), &mux, now);
    }

    /// Gives up memory while nothing runs.
    fn rest(&mut self, now: Instant) {
        let mut mux = self.mux.borrow_mut();
        if mux.active() > 0 {
            self.idle_since = None;
            return;
        }
        self.idle_since.get_or_insert(now);
        mux.rest();
        self.wire.rest();
    }

    /// When the header block that is being read is to be complete; nothing is due of a client that is not listened to any more.
    fn head_due(&self, settings: &Settings) -> Option<Instant> {
        let since = self.wire.head_since().filter(|_| !self.deaf)?;
        Some(since + settings.http.header_timeout)
    }

    /// What is due next, and when.
    fn due(&self, settings: &Settings, now: Instant) -> Option<(Instant, Due)> {
        let (http, h2) = (&settings.http, &settings.h2);
        let mut mux = self.mux.borrow_mut();
        let written = self.wire.stalled_since().map(|since| (since + http.write_timeout, Due::Written));
        let head = self.head_due(settings).map(|at| (at, Due::Head));
        let first = self.born + http.header_timeout;
        let state = match self.state {
            State::Notice { since } => Some((since + NOTICE, Due::LastStream)),
            State::Serving if !mux.peer.known => Some((first, Due::Head)),
            // The first head is late like one of HTTP/1.1. It is no fault not to have begun it: some clients connect ahead of need.
            State::Serving if !mux.was_asked() => {
                let begun = self.wire.head_since().is_some();
                Some((first, if begun { Due::Head } else { Due::LastStream }))
            }
            State::Serving => self.idle_since.map(|since| (since + http.keepalive_timeout, Due::LastStream)),
            State::Finishing | State::Linger { .. } => None,
        };
        let alive = h2.keep_alive_interval.map(|interval| {
            let at = self.wire.ping_due(interval, h2.keep_alive_timeout);
            (at, if self.wire.awaits_ping() { Due::Pong } else { Due::Ping })
        });
        let acknowledged = (!mux.knows_settings() && !self.deaf).then_some((first, Due::Acknowledged));
        let lingering = mux.lingers_until().map(|at| (at, Due::Lingering));
        let held = mux.hold_due(now).map(|at| (at, Due::Held));
        [written, head, state, acknowledged, alive, lingering, held]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }

    /// A deadline has come. True when the connection is given up.
    fn expired(&mut self, due: Due, now: Instant) -> bool {
        let rejected = &self.service.worker.metrics.request_rejected;
        match due {
            Due::Written => {
                rejected.of(Reason::WriteTimeout).inc();
                self.tell_cut(Reason::WriteTimeout, "write_timeout_ms", now);
                self.mux.borrow_mut().give_up(Reason::WriteTimeout);
                self.wire.stream.reset_on_close();
                return true;
            }
            Due::Head => {
                rejected.of(Reason::HeaderTimeout).inc();
                self.fault(FrameError::excess(Scope::Connection, Reason::HeaderTimeout), now);
            }
            Due::Acknowledged => {
                let what = "SETTINGS not acknowledged";
                self.fault(FrameError::connection(ErrorCode::SETTINGS_TIMEOUT, what), now);
            }
            Due::LastStream => self.finish(),
            Due::Ping => {
                self.wire.pinged(now);
                self.mux.borrow_mut().ping(KEEP_ALIVE_PING);
            }
            Due::Pong => {
                self.tell_cut(Reason::ClientGone, "h2_security.keep_alive_timeout_ms", now);
                self.wire.stream.reset_on_close();
                return true;
            }
            Due::Lingering => self.mux.borrow_mut().end_lingering(now),
            Due::Held => self.mux.borrow_mut().end_hold(now),
        }
        false
    }
}

/// The metric label of an error code.
fn label(code: ErrorCode) -> Http2Error {
    Http2Error::ALL.iter().find(|error| error.name() == code.name()).copied().unwrap_or(Http2Error::Other)
}
