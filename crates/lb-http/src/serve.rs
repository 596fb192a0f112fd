//! A connection from a client, before it is known what it speaks.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use lb_core::address::ClientAddress;
use lb_core::head::Version;
use lb_io::{ConnectionGuard, Deadline, Phase};
use lb_security::Stream;
use tokio::time::{Instant, sleep_until};

use crate::h1::FIRST_REQUEST;
use crate::h2::frame::preface::PREFACE;
use crate::proxy::Client;
use crate::service::Service;
use crate::session::Session;
use crate::{h1, h2};

/// The name of HTTP/2 in ALPN (RFC 9113 §3.2).
pub(crate) const H2: &[u8] = b"h2";

/// Serves one accepted connection to its end, after its TLS handshake if it has one. `guard` is its entry in the registry of live
/// connections; `asked` is where the client has connected to, where backends are to be told.
///
/// Inside TLS the client has chosen a protocol by ALPN. Without, it speaks HTTP/2 if the listener allows that and its first bytes are the
/// preface ("prior knowledge", RFC 9113 §3.3). The upgrade from HTTP/1.1 is not offered (attack H2-14).
pub fn serve(
    mut stream: Stream,
    peer: ClientAddress,
    asked: Option<SocketAddr>,
    guard: ConnectionGuard,
    service: Rc<Service>,
) -> Serving {
    let born = Instant::now();
    let tls = stream.tls();
    let version = match tls {
        Some(tls) if tls.alpn() == Some(H2) => Version::H2,
        _ => Version::Http11,
    };
    let session = tls.map(|tls| Rc::new(Session::of(tls)));
    if session.is_some() || !service.settings().h2c {
        let client = Client::new(peer, version, session, &service.settings());
        let client = if asked.is_some() { client.told(asked) } else { client };
        return speak(version, stream, Vec::new(), client, guard, service, born);
    }
    Box::pin(async move {
        let Some(early) = first_bytes(&mut stream, &guard, &service, born).await else { return };
        let version = if early.starts_with(PREFACE) { Version::H2 } else { Version::Http11 };
        let client = Client::new(peer, version, None, &service.settings());
        let client = if asked.is_some() { client.told(asked) } else { client };
        speak(version, stream, early, client, guard, service, born).await;
    })
}

/// A connection that is served, in memory of its own: each protocol takes what it needs, and an idle connection of one does not pay for
/// the size of the others.
pub type Serving = Pin<Box<dyn Future<Output = ()>>>;

fn speak(
    version: Version,
    stream: Stream,
    early: Vec<u8>,
    client: Client,
    guard: ConnectionGuard,
    service: Rc<Service>,
    born: Instant,
) -> Serving {
    match version {
        Version::H2 => h2::serve(stream, early, client, guard, service, born),
        _ => h1::serve(stream, early, client, guard, service, born),
    }
}

/// Reads until it is clear whether the client begins with the preface; `None` when there is nothing to serve: it sends nothing, or hangs up,
/// or the process ends.
async fn first_bytes(
    stream: &mut Stream,
    guard: &ConnectionGuard,
    service: &Rc<Service>,
    since: Instant,
) -> Option<Vec<u8>> {
    let within = service.settings().http.header_timeout;
    let sleep = pin!(sleep_until(since + within));
    let mut deadline = Deadline::new(sleep);
    let mut bytes = Vec::new();
    poll_fn(|cx| {
        guard.set_waker(cx.waker());
        let mut scratch = service.worker.io.scratch.borrow_mut();
        while let Poll::Ready(received) = stream.poll_take(cx, &mut scratch, usize::MAX) {
            match received {
                Ok([]) | Err(_) => return Poll::Ready(None),
                Ok(input) => bytes.extend_from_slice(input),
            }
            let n = bytes.len().min(PREFACE.len());
            if n == PREFACE.len() || bytes.get(..n) != PREFACE.get(..n) {
                return Poll::Ready(Some(std::mem::take(&mut bytes)));
            }
        }
        let within = match guard.phase() {
            Phase::Abort => return Poll::Ready(None),
            Phase::Draining | Phase::Farewell if bytes.is_empty() => within.min(FIRST_REQUEST),
            _ => within,
        };
        let is_over = deadline.poll(cx, since + within) && !stream.has_arrived();
        if is_over { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}
