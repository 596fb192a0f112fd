//! What becomes of the requests of a connection: an exchange, or a refusal.

use lb_core::failure::Reject;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use lb_core::head::RequestHead;
use lb_io::Deadline;
use tokio::time::{Instant, sleep_until};

use crate::answer;
use crate::h2::front::H2Front;
use crate::message::{Front, Sink};
use crate::proxy::{Client, End, Exchange};
use crate::record;
use crate::service::{Service, Settings};

/// Starts the exchange of a request in a task of its own.
pub(super) fn begin(
    service: &Rc<Service>,
    settings: &Rc<Settings>,
    head: RequestHead,
    mut front: H2Front,
    client: &Client,
    now: Instant,
) {
    let worker = Rc::clone(&service.worker);
    let mut place = worker.place(Exchange::new(Rc::clone(service), Rc::clone(settings), head, client, now));
    // Moved to what is due once the exchange runs.
    let first = now + settings.http.head_timeout;
    tokio::task::spawn_local(async move {
        let sleep = pin!(sleep_until(first));
        let mut deadline = Deadline::new(sleep);
        let end = poll_fn(|cx| match place.as_mut() {
            Some(exchange) => exchange.poll(cx, &mut front, &mut deadline),
            None => Poll::Ready(End::Broken),
        })
        .await;
        worker.put_place(place);
        if end == End::Complete {
            front.complete();
        }
    });
}

/// Answers a request that is not served.
pub(super) fn refuse(
    service: &Rc<Service>,
    settings: &Settings,
    head: RequestHead,
    mut front: H2Front,
    client: &Client,
    now: Instant,
    reject: Reject,
) {
    let cx = &mut Context::from_waker(Waker::noop());
    let worker = &service.worker;
    worker.metrics.request_rejected.of(reject.reason).inc();
    let mut answer = worker.response.borrow_mut();
    let told = answer::refuse(cx, &mut front, settings, &head, reject.status, &mut answer);
    drop(answer);
    let flushed = front.poll_flush(cx);
    let traffic = front.take_traffic();
    worker.metrics.bytes_backend_to_client.add(traffic.sent);
    record::write(&record::Entry {
        service,
        request: &head,
        client: client.address,
        session: client.session.as_deref(),
        status: Some(told.status),
        call: told.call,
        received: traffic.received,
        sent: traffic.sent,
        duration: now.elapsed(),
        backend: None,
        reason: Some(reject.reason),
        retries: 0,
    });
    worker.put_head(head);
    if flushed.is_ready() {
        front.complete();
        return;
    }
    // The client's windows are closed: the answer waits for them as any other does.
    let limit = settings.http.write_timeout;
    tokio::task::spawn_local(async move {
        if let Ok(Ok(())) = tokio::time::timeout(limit, poll_fn(|cx| front.poll_flush(cx))).await {
            front.complete();
        }
    });
}
