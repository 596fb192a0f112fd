//! One request of a probe and the head of its response, over either version of HTTP.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use lb_core::health::ProbeOutcome;
use lb_io::WorkerIo;
use tokio::task::JoinSet;

use super::connection::{Metered, Trace, open};
use super::plan::Plan;

/// What is read on a connection besides the body that is looked at: heads, framing, whatever the protocol sends by itself.
pub(super) const OVERHEAD_BYTES: usize = 64 * 1024;

/// The largest response head.
const HEAD_BYTES: u32 = 32 * 1024;

/// How far a backend may send ahead of what is looked at, over HTTP/2.
const WINDOW_BYTES: u32 = 65_535;

/// Its name in requests.
pub(super) const USER_AGENT: &str = concat!("ExpressGateway-health/", env!("CARGO_PKG_VERSION"));

/// A request under way. The connection ends with it.
pub(super) struct Exchange {
    trace: Rc<Trace>,
    _tasks: Tasks,
}

/// What drives a connection, and ends when this is dropped.
#[derive(Clone, Default)]
struct Tasks(Rc<RefCell<JoinSet<()>>>);

impl Tasks {
    fn run(&self, future: impl Future<Output = ()> + 'static) {
        self.0.borrow_mut().spawn_local(future);
    }
}

/// What a connection itself starts must not hold on to what ends it.
#[derive(Clone)]
struct Executor(std::rc::Weak<RefCell<JoinSet<()>>>);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        if let Some(tasks) = self.0.upgrade() {
            tasks.borrow_mut().spawn_local(future);
        }
    }
}

impl Exchange {
    /// Connects, sends a request and waits for the head of its response. At most `limit` bytes are read, all in all.
    pub(super) async fn begin(
        plan: &Plan,
        request: Request<Full<Bytes>>,
        limit: usize,
        io: &Rc<WorkerIo>,
    ) -> Result<(Self, Response<Incoming>), ProbeOutcome> {
        let stream = open(plan, io).await?;
        let (trace, tasks) = (Rc::<Trace>::default(), Tasks::default());
        let metered = Metered::new(stream, limit, Rc::clone(&trace));
        let response = if plan.http2 {
            over_http2(metered, request, &tasks).await
        } else {
            over_http1(metered, request, &tasks).await
        };
        let response = response.map_err(|error| trace.fault(&error))?;
        Ok((Self { trace, _tasks: tasks }, response))
    }

    /// What an error in the body says of the backend.
    pub(super) fn fault(&self, error: &hyper::Error) -> ProbeOutcome {
        self.trace.fault(error)
    }

    /// The answer was as expected.
    pub(super) fn settle(&self) {
        self.trace.is_settled.set(true);
    }
}

async fn over_http1(
    stream: Metered,
    request: Request<Full<Bytes>>,
    tasks: &Tasks,
) -> hyper::Result<Response<Incoming>> {
    let mut settings = http1::Builder::new();
    settings.max_buf_size(HEAD_BYTES as usize);
    let (mut sender, connection) = settings.handshake(stream).await?;
    tasks.run(async {
        // The request or the body has its end, too.
        let _ = connection.await;
    });
    sender.send_request(request).await
}

async fn over_http2(
    stream: Metered,
    request: Request<Full<Bytes>>,
    tasks: &Tasks,
) -> hyper::Result<Response<Incoming>> {
    let mut settings = http2::Builder::new(Executor(Rc::downgrade(&tasks.0)));
    settings
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_header_list_size(HEAD_BYTES);
    let (mut sender, connection) = settings.handshake(stream).await?;
    tasks.run(async {
        let _ = connection.await;
    });
    sender.send_request(request).await
}
