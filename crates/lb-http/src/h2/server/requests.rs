//! What becomes of the requests of a connection: an exchange, or a refusal.

use std::future::poll_fn;
use std::task::{Context, Waker};

use lb_core::failure::Reject;
use lb_core::head::RequestHead;

use crate::h2::front::H2Front;
use crate::message::Sink;
use crate::proxy::{Arrival, End};

/// Starts the exchange of a request in a task of its own.
pub(super) fn begin(arrival: Arrival<'_>, head: RequestHead, mut front: H2Front) {
    let running = arrival.begin(head, &front);
    tokio::task::spawn_local(async move {
        if running.run(&mut front).await == End::Complete {
            front.complete();
        }
    });
}

/// Answers a request that is not served.
pub(super) fn refuse(arrival: Arrival<'_>, head: RequestHead, mut front: H2Front, reject: Reject) {
    let cx = &mut Context::from_waker(Waker::noop());
    let flushed = arrival.refuse(cx, &head, &mut front, reject);
    arrival.service.worker.put_head(head);
    if flushed.is_ready() {
        front.complete();
        return;
    }
    // The client's windows are closed: the answer waits for them as any other does.
    let limit = arrival.settings.http.write_timeout;
    tokio::task::spawn_local(async move {
        if let Ok(Ok(())) = tokio::time::timeout(limit, poll_fn(|cx| front.poll_flush(cx))).await {
            front.complete();
        }
    });
}
