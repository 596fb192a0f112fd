//! One client connection and the backend connection made for it.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use lb_core::address::ClientAddress;
use lb_core::balance::hash;
use lb_core::filter::request_id;
use lb_core::proxy_protocol::{ProxyClient, ProxySends, ProxyTls};
use lb_io::{ByteStream, ConnectionGuard, Deadline, Phase, WorkerIo};
use lb_observe::metrics::{AcceptReject, Counter};
use lb_pool::WorkerMember;
use lb_security::{ClientTls, Connector, Stream, TlsFailure, failure_of};
use tokio::time::{Instant, sleep_until};

use crate::connect::Connects;
use crate::half::{Half, Moved};
use crate::names::NameChoice;
use crate::service::{TcpService, TcpSettings};

/// Relays one accepted connection to its end. `guard` is its entry in the registry of live connections; `asked` is where the client has
/// connected to, where backends are to be told.
pub async fn serve(
    mut stream: Stream,
    peer: ClientAddress,
    asked: Option<SocketAddr>,
    guard: ConnectionGuard,
    service: Rc<TcpService>,
) {
    poll_fn(|cx| {
        guard.set_waker(cx.waker());
        Poll::Ready(())
    })
    .await;
    let mut settings = service.settings();
    if let Some(names) = Rc::clone(&settings).names() {
        let choosing = names.choose(&mut stream, peer, &guard, &service.io);
        match tokio::time::timeout(settings.handshake_timeout, choosing).await {
            Ok(Some(NameChoice::Route(of_route))) => settings = of_route,
            Ok(Some(NameChoice::Own)) => {}
            Ok(Some(NameChoice::Nothing) | None) | Err(_) => {
                service.worker_metrics.accept_rejects.of(AcceptReject::NoRoute).inc();
                tracing::debug!(%peer, "connection closed: no route takes it");
                return;
            }
        }
    }
    // The one key that bytes without a protocol have. Connections over TCP have no ID.
    let key = settings.pool().follows_key().then(|| hash::connection(None, peer));
    let connects = Connects { io: &service.io, metrics: &service.worker_metrics, settings: &settings };
    if let Some((backend, _stay)) = connects
        .connect(key, async |backend| {
            let header =
                backend.proxy_protocol.map(|sends| header(sends, &stream, (peer, asked), &service.io));
            open(&service, &settings, backend, header.unwrap_or_default()).await
        })
        .await
    {
        let (up, down) = (Half::default(), Half::default());
        Relay { client: stream, backend, up, down, service, settings: &settings, guard: &guard }.run().await;
    }
}

impl TcpService {
    /// Whether a route takes a connection by what its client asks for in TLS, which ends behind the gateway. The connection is as it was then. The caller
    /// keeps the time.
    pub async fn is_for_route(
        &self,
        stream: &mut ByteStream,
        peer: ClientAddress,
        guard: &ConnectionGuard,
    ) -> bool {
        let settings = self.settings();
        let Some(names) = settings.names() else { return false };
        let choice = names.choose_unopened(stream, peer, guard, &self.io).await;
        matches!(choice, Some(NameChoice::Route(_)))
    }
}

/// Connects, and does the handshake where the backend is inside TLS.
async fn open(
    service: &TcpService,
    settings: &TcpSettings,
    backend: &WorkerMember<ClientTls>,
    preface: Vec<u8>,
) -> io::Result<Stream> {
    let connector = Connector {
        address: backend.address(),
        timeout: settings.connect_timeout,
        tls: backend.tls.clone(),
        handshake_timeout: settings.handshake_timeout,
        resets: false,
        preface,
    };
    let count = |result| service.worker_metrics.backend_tls_handshakes.of(result).inc();
    Ok(connector.connect(&service.io, count).await?)
}

/// What a backend is told of the client.
fn header(
    sends: ProxySends,
    stream: &Stream,
    (from, to): (ClientAddress, Option<SocketAddr>),
    io: &WorkerIo,
) -> Vec<u8> {
    let tls = stream.tls();
    let certificate = tls.and_then(|tls| tls.peer_certificate());
    sends.header(&ProxyClient {
        from,
        to,
        authority: tls.and_then(|tls| tls.server_name()).map(str::as_bytes),
        alpn: tls.and_then(|tls| tls.alpn()),
        tls: tls.map(|tls| ProxyTls {
            version: tls.version(),
            certificate: certificate.map(|certificate| certificate.common_name.as_str()),
        }),
        unique_id: &request_id::new(&mut io.rng.borrow_mut()),
    })
}

struct Relay<'a> {
    client: Stream,
    backend: Stream,
    up: Half,
    down: Half,
    service: Rc<TcpService>,
    settings: &'a TcpSettings,
    guard: &'a ConnectionGuard,
}

/// What a turn of the relay came to.
enum Turn {
    Moved,
    Quiet,
    Over,
}

impl Relay<'_> {
    async fn run(mut self) {
        let idle = self.settings.tcp.idle_timeout;
        let mut active = Instant::now();
        // Never polled, and so never armed, where there is no idle timeout.
        let sleep = pin!(sleep_until(active));
        let mut deadline = Deadline::new(sleep);
        poll_fn(|cx| {
            match self.turn(cx) {
                Turn::Over => return Poll::Ready(()),
                Turn::Moved if idle.is_some() => active = Instant::now(),
                Turn::Moved | Turn::Quiet => {}
            }
            match idle {
                Some(idle) if deadline.poll(cx, active + idle) => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Turn {
        if self.guard.phase() == Phase::Abort {
            self.reset();
            return Turn::Over;
        }
        let Self { client, backend, up, down, service, settings, .. } = self;
        let (io, metrics) = (&service.io, &service.worker_metrics);
        let splice = settings.tcp.splice && client.can_splice() && backend.can_splice();
        let moved = up
            .pump(cx, client, backend, io, splice)
            .and_then(|sent| Ok((sent, down.pump(cx, backend, client, io, splice)?)));
        let (sent, received) = match moved {
            Ok(moved) => moved,
            Err(error) => {
                let failure = failure_of(&error);
                if failure == Some(TlsFailure::Truncated) && (up.is_done() || down.is_done()) {
                    // The other direction has ended well, and many a peer then leaves without a word.
                    self.reset();
                    return Turn::Over;
                }
                if let Some(failure) = failure {
                    metrics.tls_faults.of(failure.fault()).inc();
                    tracing::debug!(%error, "TLS connection given up");
                }
                // A reset, so that the other side does not take what it has for the whole.
                self.reset();
                return Turn::Over;
            }
        };
        add(&metrics.bytes_client_to_backend, sent.bytes);
        add(&metrics.bytes_backend_to_client, received.bytes);
        add(&metrics.tcp_splice_bytes, sent.spliced.saturating_add(received.spliced));
        if up.is_done() && down.is_done() {
            return Turn::Over;
        }
        if sent.more || received.more {
            cx.waker().wake_by_ref();
        }
        if sent == Moved::default() && received == Moved::default() { Turn::Quiet } else { Turn::Moved }
    }

    fn reset(&mut self) {
        self.client.reset_on_close();
        self.backend.reset_on_close();
    }
}

fn add(counter: &Counter, amount: u64) {
    if amount > 0 {
        counter.add(amount);
    }
}
