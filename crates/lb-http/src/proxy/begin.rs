//! Where every front begins an exchange, or refuses a request.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use lb_core::failure::Reject;
use lb_core::head::RequestHead;
use lb_io::Deadline;
use tokio::time::{Instant, sleep_until};

use super::client::Client;
use super::exchange::{End, Exchange};
use crate::answer;
use crate::message::{Front, Gone};
use crate::record;
use crate::service::{Service, Settings};

/// A request that a client has sent.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The listener that it came to.
    pub service: &'a Rc<Service>,
    /// The settings that it is served under, whatever a reload changes meanwhile.
    pub settings: &'a Rc<Settings>,
    /// The client.
    pub client: &'a Client,
    /// When the first byte of the request came.
    pub started: Instant,
}

impl Arrival<'_> {
    /// Begins the exchange of a request whose head `front` has read. The head comes from [`HttpWorker::take_head`] and goes back there.
    ///
    /// [`HttpWorker::take_head`]: crate::service::HttpWorker::take_head
    pub fn begin(self, head: RequestHead, front: &impl Front) -> Running {
        let worker = &self.service.worker;
        let mut running =
            Running { place: Some(worker.place(Exchange::new(self, head, front.capabilities()))) };
        if let Some(exchange) = running.exchange() {
            exchange.prepare();
        }
        running
    }

    /// Answers a request that cannot be served, as far as its head was read, and records it. Ready when the answer has left; until then the
    /// front has to be flushed.
    pub fn refuse(
        self,
        cx: &mut Context<'_>,
        head: &RequestHead,
        front: &mut impl Front,
        reject: Reject,
    ) -> Poll<Result<(), Gone>> {
        let Self { service, settings, client, started } = self;
        let worker = &service.worker;
        worker.metrics.request_rejected.of(reject.reason).inc();
        let told = {
            let mut answer = worker.response.borrow_mut();
            answer::refuse(cx, front, settings, head, reject.status, &mut answer)
        };
        // As much as leaves at once, so that the record can say so.
        let flushed = front.poll_flush(cx);
        let traffic = front.take_traffic();
        worker.metrics.bytes_backend_to_client.add(traffic.sent);
        record::write(&record::Entry {
            service,
            request: head,
            asked: None,
            request_id: None,
            client: client.address,
            session: client.session.as_deref(),
            status: Some(told.status),
            call: told.call,
            received: traffic.received,
            sent: traffic.sent,
            duration: started.elapsed(),
            backend: None,
            reason: Some(reject.reason),
            route: None,
            retries: 0,
        });
        flushed
    }
}

/// An exchange that runs, in memory that the worker keeps for the next one. Dropping it gives the request up.
#[derive(Debug)]
pub struct Running {
    /// Empty only while it is dropped.
    place: Option<Box<Option<Exchange>>>,
}

impl Running {
    /// An exchange that has its memory already.
    pub(super) fn new(place: Box<Option<Exchange>>) -> Self {
        Self { place: Some(place) }
    }

    fn exchange(&mut self) -> Option<&mut Exchange> {
        self.place.as_deref_mut()?.as_mut()
    }

    /// Drives the exchange as far as it goes. `deadline` belongs to this exchange while it runs.
    #[inline]
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        front: &mut impl Front,
        deadline: &mut Deadline<'_>,
    ) -> Poll<End> {
        match self.exchange() {
            Some(exchange) => exchange.poll(cx, front, deadline),
            None => Poll::Ready(End::Broken),
        }
    }

    /// When the last turn was taken.
    pub(crate) fn now(&self) -> Option<Instant> {
        Some(self.place.as_deref()?.as_ref()?.clock.now)
    }

    /// Drives the exchange to its end, for a front whose exchanges have tasks of their own.
    pub async fn run(mut self, front: &mut impl Front) -> End {
        let first = self.exchange().map(|exchange| exchange.clock.now + exchange.settings.http.head_timeout);
        // Moved to what is due once the exchange runs.
        let sleep = pin!(sleep_until(first.unwrap_or_else(Instant::now)));
        let mut deadline = Deadline::new(sleep);
        poll_fn(|cx| self.poll(cx, front, &mut deadline)).await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        if let Some(worker) = (*place).as_ref().map(|exchange| Rc::clone(&exchange.service.worker)) {
            worker.put_place(place);
        }
    }
}
