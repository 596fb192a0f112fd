//! One client connection from accept to close: heads, exchanges, and an end that does not destroy the last answer.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use lb_core::failure::{Reject, ResetReason};
use lb_core::head::{Fields, RequestHead};
use lb_core::reason::Reason;
use lb_io::{ConnectionGuard, Deadline, Phase};
use lb_security::Stream;
use tokio::time::{Instant, sleep_until};

use super::front::{H1Front, HeadError, MAX_DISCARD_BYTES};
use crate::message::{Front, Gone, Progress, Sink};
use crate::proxy::{Arrival, Client, End, Running};
use crate::serve::Serving;
use crate::service::{Service, Settings};

/// How long the last answer is given to be read, and the client to end what it sends: a close before that would reset the connection
/// and may destroy the answer.
const LINGER: Duration = Duration::from_secs(2);

/// [`LINGER`] while the gateway drains.
const DRAIN_LINGER: Duration = Duration::from_millis(500);

/// How long a connection is given in a drain to bring a request: one that was accepted just before, or that had an answer just before. Where
/// clients are busy their next request is on its way, and a close would meet it half-way.
pub(crate) const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// Serves one connection to its end. `early` was read from it already, since it was `born`; `guard` is its entry in the registry of live connections.
pub(crate) fn serve(
    stream: Stream,
    early: Vec<u8>,
    client: Client,
    guard: ConnectionGuard,
    service: Rc<Service>,
    born: Instant,
) -> Serving {
    let first = born + service.settings().http.header_timeout;
    let front = H1Front::new(stream, &early, guard, Rc::clone(&service.worker.io));
    drop(early);
    let mut connection = Connection {
        front,
        client,
        state: State::Head { since: born, first_byte: None },
        requests: 0,
        registered: false,
        service,
    };
    Box::pin(async move {
        let sleep = pin!(sleep_until(first));
        let mut deadline = Deadline::new(sleep);
        poll_fn(|cx| connection.poll(cx, &mut deadline)).await;
    })
}

struct Connection {
    front: H1Front,
    client: Client,
    state: State,
    requests: u32,
    registered: bool,
    service: Rc<Service>,
}

enum State {
    /// Between requests, or within a head.
    Head { since: Instant, first_byte: Option<Instant> },
    /// Within a request.
    Exchange(Running),
    /// The answer is sent; what is left of a small body is thrown away.
    Discard { until: Instant, left: u64 },
    /// The last answer is being sent, then our side is shut down.
    Last { until: Instant },
    /// Our side is shut down; the client's bytes run out.
    Linger { until: Instant },
    /// Nothing is left to do.
    Ended,
}

impl Connection {
    fn poll(&mut self, cx: &mut Context<'_>, deadline: &mut Deadline<'_>) -> Poll<()> {
        if !self.registered {
            self.registered = true;
            self.front.guard().set_waker(cx.waker());
        }
        loop {
            if self.front.phase() == Phase::Abort {
                self.front.abort(ResetReason::Fault);
                return Poll::Ready(());
            }
            let next = match &mut self.state {
                State::Head { .. } => self.poll_head(cx, deadline),
                State::Exchange(running) => match running.poll(cx, &mut self.front, deadline) {
                    Poll::Ready(End::Complete) => {
                        let now = running.now().unwrap_or_else(Instant::now);
                        let next = self.after_exchange(now);
                        self.state = State::Ended;
                        Poll::Ready(next)
                    }
                    Poll::Ready(End::Broken) => return Poll::Ready(()),
                    Poll::Pending => Poll::Pending,
                },
                State::Ended => Poll::Ready(None),
                State::Discard { .. } => self.poll_discard(cx, deadline),
                State::Last { .. } => self.poll_last(cx, deadline),
                State::Linger { .. } => self.poll_linger(cx, deadline),
            };
            match next {
                Poll::Ready(Some(state)) => self.state = state,
                Poll::Ready(None) => {
                    self.front.part();
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Waits for a request. `None` closes the connection.
    fn poll_head(&mut self, cx: &mut Context<'_>, deadline: &mut Deadline<'_>) -> Poll<Option<State>> {
        let State::Head { since, first_byte } = self.state else { return Poll::Ready(None) };
        let worker = Rc::clone(&self.service.worker);
        let settings = self.service.settings();
        let mut head = worker.take_head();
        let result = {
            let mut scratch = worker.io.scratch.borrow_mut();
            self.front.poll_request(cx, &mut scratch, &settings.limits, &mut head)
        };
        let rejected = match result {
            Poll::Ready(Ok(())) => {
                let started = first_byte.unwrap_or_else(Instant::now);
                self.requests = self.requests.saturating_add(1);
                if settings.max_requests != 0 && self.requests >= settings.max_requests {
                    self.front.last_request();
                }
                let arrival = self.arrival(&settings, started);
                return Poll::Ready(Some(State::Exchange(arrival.begin(head, &self.front))));
            }
            Poll::Ready(Err(HeadError::Closed)) => {
                worker.put_head(head);
                return Poll::Ready(None);
            }
            Poll::Ready(Err(HeadError::Reject(reject))) => reject,
            Poll::Pending => {
                let partial = self.front.has_early();
                if !partial {
                    self.front.rest();
                }
                let first_byte = first_byte.or_else(|| partial.then(Instant::now));
                self.state = State::Head { since, first_byte };
                if !deadline.poll(cx, self.head_due(&settings, since, first_byte)) {
                    worker.put_head(head);
                    return Poll::Pending;
                }
                if !partial {
                    worker.put_head(head);
                    // What has arrived in this moment will wake the connection, and is served.
                    return if self.front.has_arrived() { Poll::Pending } else { Poll::Ready(None) };
                }
                Reject::new(408, Reason::HeaderTimeout)
            }
        };
        self.refuse_head(cx, reject_start(first_byte), &head, rejected);
        worker.put_head(head);
        Poll::Ready(Some(State::Last { until: Instant::now() + settings.http.write_timeout }))
    }

    /// When the wait for a head ends. In a drain an idle connection waits for its turn, and then until it has been idle for a while; what
    /// comes until then is served.
    fn head_due(&self, settings: &Settings, since: Instant, first_byte: Option<Instant>) -> Instant {
        let http = &settings.http;
        if first_byte.is_none() && self.front.guard().is_asked() {
            // The farewell is the last moment for a close in peace.
            let is_late = self.front.phase() >= Phase::Farewell;
            return if is_late { since } else { since + FIRST_REQUEST };
        }
        match first_byte {
            Some(first) if self.requests == 0 => {
                (since + http.header_timeout).min(first + settings.header_deadline)
            }
            Some(first) => first + http.header_timeout.min(settings.header_deadline),
            None if self.requests == 0 => since + http.header_timeout,
            None => since + http.keepalive_timeout,
        }
    }

    /// A request that has come on this connection.
    fn arrival<'a>(&'a self, settings: &'a Rc<Settings>, started: Instant) -> Arrival<'a> {
        Arrival { service: &self.service, settings, client: &self.client, started }
    }

    /// Answers a head that is refused; nothing more is read as a request. What of the answer does not leave at once leaves later.
    fn refuse_head(&mut self, cx: &mut Context<'_>, started: Instant, head: &RequestHead, reject: Reject) {
        self.front.last_request();
        let settings = self.service.settings();
        let Self { front, client, service, .. } = self;
        let arrival = Arrival { service, settings: &settings, client, started };
        let _ = arrival.refuse(cx, head, front, reject);
    }

    /// The client has its response: what next?
    fn after_exchange(&mut self, now: Instant) -> Option<State> {
        if !self.front.body_is_done() && !self.front.body_is_withheld() {
            return Some(State::Discard { until: now + LINGER, left: MAX_DISCARD_BYTES });
        }
        if self.front.is_kept() {
            return Some(State::Head { since: now, first_byte: None });
        }
        // A client that asked for the close sends nothing more; another may have a request on its way, and closing on that would reset
        // the connection under the answer.
        let write_timeout = self.service.settings().http.write_timeout;
        (!self.front.client_closes()).then_some(State::Last { until: now + write_timeout })
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>, deadline: &mut Deadline<'_>) -> Poll<Option<State>> {
        let State::Discard { until, left } = &mut self.state else { return Poll::Ready(None) };
        let until = *until;
        let worker = Rc::clone(&self.service.worker);
        loop {
            let mut nothing = Nothing { bytes: 0 };
            let result = {
                let mut scratch = worker.io.scratch.borrow_mut();
                self.front.poll_body(cx, &mut scratch, &mut nothing)
            };
            let last = Poll::Ready(Some(State::Last { until }));
            match result {
                Poll::Ready(Ok(progress)) => {
                    *left = left.saturating_sub(nothing.bytes.max(1));
                    if progress == Progress::End && self.front.is_kept() {
                        return Poll::Ready(Some(State::Head { since: Instant::now(), first_byte: None }));
                    }
                    if progress == Progress::End || *left == 0 {
                        return last;
                    }
                }
                Poll::Ready(Err(_)) => return last,
                Poll::Pending if deadline.poll(cx, until) => return last,
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_last(&mut self, cx: &mut Context<'_>, deadline: &mut Deadline<'_>) -> Poll<Option<State>> {
        let State::Last { until } = self.state else { return Poll::Ready(None) };
        match self.front.poll_flush(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(None),
            Poll::Pending if deadline.poll(cx, until) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        }
        self.front.shutdown();
        let Poll::Ready(Ok(())) = self.front.poll_flush(cx) else { return Poll::Ready(None) };
        let linger = if self.front.phase() == Phase::Serving { LINGER } else { DRAIN_LINGER };
        Poll::Ready(Some(State::Linger { until: Instant::now() + linger }))
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>, deadline: &mut Deadline<'_>) -> Poll<Option<State>> {
        let State::Linger { until } = self.state else { return Poll::Ready(None) };
        let worker = Rc::clone(&self.service.worker);
        let mut scratch = worker.io.scratch.borrow_mut();
        loop {
            match self.front.poll_discard(cx, &mut scratch) {
                Poll::Ready(0) => return Poll::Ready(None),
                Poll::Ready(_) if Instant::now() >= until => return Poll::Ready(None),
                Poll::Ready(_) => {}
                Poll::Pending if deadline.poll(cx, until) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

fn reject_start(first_byte: Option<Instant>) -> Instant {
    first_byte.unwrap_or_else(Instant::now)
}

/// Throws a body away and counts it.
struct Nothing {
    bytes: u64,
}

impl Sink for Nothing {
    fn data(&mut self, _: &mut Context<'_>, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }
    fn trailers(&mut self, _: &Fields) {}
    fn end(&mut self) {}
    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }
}
