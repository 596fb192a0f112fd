//! Accepts connections for one listener on one worker, within the caps.

mod entry;
mod passing;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use lb_config::Listener;
use lb_core::address::ClientAddress;
use lb_http::Serving;
use lb_io::gate::AddressTicket;
use lb_io::listener::{AcceptBackoff, AcceptError, WorkerListener};
use lb_io::{ByteStream, ConnectionGuard, Phase, WorkerIo};
use lb_observe::metrics::{AcceptErrorKind, ProxyHeaderResult, TlsResult};
use lb_security::admission::{Admission, Admissions, Cap, Handshakes};
use lb_security::{SharedTlsBundle, Stream, TlsStream, failure_of};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

pub(crate) use entry::Entry;
use passing::Passing;

use crate::worker::Protocol;

/// Clients that may be reading a refusal at a time, per listener and worker; others are closed without a word.
const MAX_REFUSALS: usize = 128;

/// How long a client is given to read a refusal.
const REFUSAL_TIME: Duration = Duration::from_secs(1);

/// What an accept loop needs.
#[derive(Debug)]
pub(crate) struct Acceptor {
    pub(crate) io: Rc<WorkerIo>,
    pub(crate) protocol: Protocol,
    /// Present where clients speak TLS.
    pub(crate) tls: Option<SharedTlsBundle>,
    /// What connections pass first, where there is anything.
    pub(crate) entry: RefCell<Option<Rc<Entry>>>,
    /// The connections that pass inside TLS, where any do.
    pub(crate) passing: RefCell<Option<Rc<Passing>>>,
    /// Whether backends may have to be told where a client has connected to.
    pub(crate) tells_clients: Cell<bool>,
    pub(crate) handshakes: Rc<Handshakes>,
    pub(crate) admissions: Rc<Admissions>,
    /// The time over which connections are asked to end in a drain.
    pub(crate) drain_jitter: Cell<Duration>,
    /// Set before `stop` is notified, for loops that are not waiting at that moment.
    pub(crate) stopping: Cell<bool>,
    pub(crate) stop: Notify,
    pub(crate) refusals: Rc<()>,
}

impl Acceptor {
    /// Accepts until told to stop; then takes what waits already and closes the socket.
    pub(crate) async fn run(self: Rc<Self>, listener: WorkerListener, seed: u64) {
        let mut backoff = AcceptBackoff::new(seed);
        while !self.stopping.get() {
            let accepted = tokio::select! {
                biased;
                () = self.stop.notified() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    backoff.reset();
                    self.admit(stream, peer);
                }
                Err(error) => {
                    if let Some(wait) = self.failed(&error, &mut backoff) {
                        tokio::select! {
                            () = self.stop.notified() => break,
                            () = tokio::time::sleep(wait) => {}
                        }
                    }
                }
            }
        }
        listener.close(|stream, peer| self.admit(stream, peer));
    }

    /// Counts a failure and says how long to wait before the next try.
    fn failed(&self, error: &std::io::Error, backoff: &mut AcceptBackoff) -> Option<Duration> {
        let (kind, wait) = match AcceptError::of(error) {
            AcceptError::Connection => (AcceptErrorKind::ConnReset, None),
            AcceptError::Descriptors => (AcceptErrorKind::FdExhausted, Some(backoff.wait())),
            AcceptError::Memory => (AcceptErrorKind::NoMemory, Some(backoff.wait())),
            AcceptError::Fatal => (AcceptErrorKind::Fatal, Some(Duration::from_secs(1))),
        };
        self.admissions.worker_metrics.accept_errors.of(kind).inc();
        if kind == AcceptErrorKind::FdExhausted {
            // Clients go before connections that nobody uses.
            self.io.make_room();
        }
        match kind {
            AcceptErrorKind::ConnReset => {}
            AcceptErrorKind::Fatal => tracing::error!(%error, "listening socket fails — trying on"),
            _ => tracing::warn!(%error, "transient accept error — backing off"),
        }
        wait
    }

    /// Puts other rules in force for connections to come.
    pub(crate) fn set_entry(&self, listener: &Listener) {
        let entry = Entry::of(listener);
        let mut backends = listener.pools().flat_map(|pool| &pool.backends);
        self.tells_clients.set(backends.any(|backend| backend.proxy_protocol.is_some()));
        if entry.as_ref().is_some_and(Entry::takes_headers) {
            self.admissions.metrics.set_proxied();
        }
        *self.entry.borrow_mut() = entry.map(Rc::new);
    }

    fn admit(self: &Rc<Self>, stream: ByteStream, peer: ClientAddress) {
        let entry = self.entry.borrow().clone();
        if let Some(entry) = entry {
            if entry.turns_away(peer) {
                return self.refuse_header(ProxyHeaderResult::Untrusted, peer);
            }
            if entry.is_proxy(peer) {
                return self.admit_proxy(stream, peer, entry);
            }
            if !self.lets_in(peer, &entry.access) {
                return;
            }
        }
        let (admission, guard) = match self.admissions.admit(peer) {
            Ok(admitted) => admitted,
            Err(Cap::Listener) => return self.shed(stream),
            Err(_) => return,
        };
        let asked = self.asked(&stream);
        let stage = match &self.tls {
            None => Stage::Serving(self.serving(Stream::Plain(stream), peer, asked, guard)),
            Some(tls) => {
                let (acceptor, tls) = (Rc::clone(self), tls.clone());
                Stage::Handshake(Box::pin(async move {
                    let stream = acceptor.handshake(stream, peer, &tls, &guard).await?;
                    Some(acceptor.serving(stream, peer, asked, guard))
                }))
            }
        };
        tokio::task::spawn_local(Admitted { stage, admission });
    }

    /// Admits a connection of a proxy, which says for whom it connects; its own address does not count.
    fn admit_proxy(self: &Rc<Self>, mut stream: ByteStream, proxy: ClientAddress, entry: Rc<Entry>) {
        let Ok((admission, guard)) = self.admissions.admit_proxy(proxy) else { return self.shed(stream) };
        let acceptor = Rc::clone(self);
        let stage = Stage::Greeting(Box::pin(async move {
            let (client, asked) = acceptor.client_behind(&mut stream, proxy, &entry, &guard).await?;
            let asked = asked.or_else(|| acceptor.asked(&stream));
            if !acceptor.lets_in(client, &entry.access) {
                return None;
            }
            let address = acceptor.admissions.admit_address(client).ok()?;
            let stream = match &acceptor.tls {
                None => Stream::Plain(stream),
                Some(tls) => acceptor.handshake(stream, client, tls, &guard).await?,
            };
            Some((acceptor.serving(stream, client, asked, guard), address))
        }));
        tokio::task::spawn_local(Admitted { stage, admission });
    }

    /// Where a client has connected to, where backends are to be told.
    fn asked(&self, stream: &ByteStream) -> Option<SocketAddr> {
        if self.tells_clients.get() { stream.local_address() } else { None }
    }

    fn serving(
        &self,
        stream: Stream,
        peer: ClientAddress,
        asked: Option<SocketAddr>,
        guard: ConnectionGuard,
    ) -> Serving {
        // Where TLS ends here, a connection without it is one that passes.
        if let (Stream::Plain(_), true, Some(passing)) = (&stream, self.tls.is_some(), self.passing()) {
            return Box::pin(lb_l4::serve(stream, peer, asked, guard, passing.service()));
        }
        match &self.protocol {
            Protocol::Http(service) => lb_http::serve(stream, peer, asked, guard, Rc::clone(service)),
            Protocol::Tcp(service) => Box::pin(lb_l4::serve(stream, peer, asked, guard, Rc::clone(service))),
            // Their sockets take no connections of TCP.
            Protocol::Quic(_) | Protocol::Udp(_) | Protocol::Passthrough(_) => {
                Box::pin(std::future::ready(()))
            }
        }
    }

    /// Puts a client's connection inside TLS, or leaves it as it is where it is one that passes; none when that fails.
    ///
    /// A connection takes one of the worker's places for handshakes with its first byte, so that silent ones take none; without
    /// a place it is closed before any key exchange (attack T-08). The time runs from the accept.
    async fn handshake(
        &self,
        mut stream: ByteStream,
        peer: ClientAddress,
        tls: &SharedTlsBundle,
        guard: &ConnectionGuard,
    ) -> Option<Stream> {
        let Admissions { name, metrics, .. } = &*self.admissions;
        let limit = self.handshakes.timeout();
        let handshake = async {
            until(guard, |cx| stream.poll_readable(cx)).await?;
            let _place = match self.handshakes.enter(peer, (metrics, self.io.id)) {
                Ok(place) => place,
                Err(cap) => {
                    cap.tell(name, peer);
                    return Ok(None);
                }
            };
            if let Some(passing) = self.passing()
                && passing.takes(&mut stream, peer, guard).await
            {
                let shaken = match self.lets_in(peer, passing.access()) {
                    true => Shaken::Passed(stream),
                    false => Shaken::Refused,
                };
                return Ok(Some(shaken));
            }
            let mut stream = Box::new(TlsStream::server(stream, Rc::clone(&self.io), tls.load())?);
            until(guard, |cx| stream.poll_handshake(cx)).await?;
            std::io::Result::Ok(Some(Shaken::Done(stream)))
        };
        let (stream, result) = match tokio::time::timeout(limit, handshake).await {
            // No handshake of ours.
            Ok(Ok(Some(Shaken::Passed(stream)))) => return Some(Stream::Plain(stream)),
            Ok(Ok(Some(Shaken::Refused))) => return None,
            Ok(Ok(Some(Shaken::Done(stream)))) => {
                let result = if stream.is_resumed() { TlsResult::Resumed } else { TlsResult::Full };
                (Some(Stream::Tls(stream)), result)
            }
            Ok(Ok(None)) => (None, TlsResult::Overload),
            Ok(Err(error)) => {
                tracing::debug!(%error, "TLS handshake failed");
                let failure = failure_of(&error);
                // A socket that fails has been closed by its peer.
                (None, failure.map_or(TlsResult::Closed, |failure| failure.result()))
            }
            Err(_) => (None, TlsResult::Timeout),
        };
        metrics.worker(self.io.id).tls_handshakes.of(result).inc();
        stream
    }

    /// Says to a connection that the listener is full, where there are words for it.
    fn shed(&self, mut stream: ByteStream) {
        // Inside TLS nothing can be said before a handshake, which is what there is no place for.
        let http = matches!(self.protocol, Protocol::Http(_)) && self.tls.is_none();
        if !http
            || self.admissions.connections.phase() != Phase::Serving
            || Rc::strong_count(&self.refusals) > MAX_REFUSALS
        {
            return;
        }
        let busy = Rc::clone(&self.refusals);
        tokio::task::spawn_local(async move {
            // Closed only when the client has read it: unread bytes of its request would turn the close into a reset.
            let told = async {
                stream.write_all(lb_http::answer::OVER_CAPACITY).await?;
                stream.shutdown().await?;
                let mut rest = [0u8; 512];
                while stream.read(&mut rest).await? > 0 {}
                std::io::Result::Ok(())
            };
            let _ = tokio::time::timeout(REFUSAL_TIME, told).await;
            drop(busy);
        });
    }
}

/// What came of the beginning of a connection inside TLS.
enum Shaken {
    /// The handshake is done.
    Done(Box<TlsStream>),
    /// The connection passes as it is.
    Passed(ByteStream),
    /// Its client is not let in.
    Refused,
}

/// A connection that was admitted. It is small: an idle one has little more, and the event loop makes tasks 128 bytes at a time larger.
struct Admitted {
    stage: Stage,
    admission: Admission,
}

/// What comes of the beginning of a connection that a proxy has made: the client's address is counted with it.
type Greeted = Option<(Serving, Option<AddressTicket>)>;

/// How far an admitted connection has got; each stage has memory of its own, which is given back with it.
enum Stage {
    /// Nothing is served, and no handshake begins, before it is known who the client is.
    Greeting(Pin<Box<dyn Future<Output = Greeted>>>),
    /// Inside TLS nothing is served before the handshake.
    Handshake(Pin<Box<dyn Future<Output = Option<Serving>>>>),
    Serving(Serving),
}

impl Future for Admitted {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.stage {
                Stage::Greeting(greeting) => match greeting.as_mut().poll(cx) {
                    Poll::Ready(Some((serving, address))) => {
                        self.admission.count(address);
                        self.stage = Stage::Serving(serving);
                    }
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                },
                Stage::Handshake(handshake) => match handshake.as_mut().poll(cx) {
                    Poll::Ready(Some(serving)) => self.stage = Stage::Serving(serving),
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                },
                Stage::Serving(serving) => return serving.as_mut().poll(cx),
            }
        }
    }
}

/// Polls until ready, or until the connection is to end now.
async fn until(
    guard: &ConnectionGuard,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<std::io::Result<()>>,
) -> std::io::Result<()> {
    poll_fn(|cx| {
        guard.set_waker(cx.waker());
        if guard.phase() == Phase::Abort {
            return Poll::Ready(Err(std::io::ErrorKind::ConnectionAborted.into()));
        }
        poll(cx)
    })
    .await
}
