//! The sockets of a passthrough on one worker.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use lb_core::quic::paths::{ClientKey, PathId};
use lb_io::listener::ListeningSocket;
use lb_io::udp::{ReceiveBatch, SendBatch, SendOutcome, UdpSocket, UplinkEvent, UplinkSocket, Uplinks};
use lb_io::{Deadline, Phase, WorkerIo};
use lb_observe::metrics::{PassthroughDrop, WorkerMetrics};
use lb_security::admission::Admissions;
use tokio::time::sleep_until;

use super::forwarder::{Forwarder, Verdict};
use super::settings::PassthroughSettings;
use super::shared::PassthroughShared;
use super::waiting::Marked;

/// Batches that a socket may take before others of the worker have a turn.
const TURNS: usize = 8;

/// Events of sockets towards backends that are taken before clients have their turn again.
const EVENTS: usize = 256;

/// One passthrough on one worker.
#[derive(Debug)]
pub struct PassthroughService {
    io: Rc<WorkerIo>,
    shared: Arc<PassthroughShared>,
    most_sockets: usize,
    admissions: Rc<Admissions>,
    worker_metrics: Arc<WorkerMetrics>,
    settings: RefCell<Rc<PassthroughSettings>>,
    sockets: RefCell<Vec<Rc<Serving>>>,
    is_handed_over: Cell<bool>,
}

/// One socket of clients, with its flows.
#[derive(Debug)]
struct Serving {
    socket: RefCell<Rc<UdpSocket>>,
    forwarder: RefCell<Forwarder>,
    waker: RefCell<Option<Waker>>,
}

impl PassthroughService {
    /// A passthrough with its first settings, which has no sockets yet. It opens so many towards backends at most.
    pub fn new(
        io: Rc<WorkerIo>,
        (shared, most_sockets): (Arc<PassthroughShared>, usize),
        admissions: Rc<Admissions>,
        worker_metrics: Arc<WorkerMetrics>,
        settings: Rc<PassthroughSettings>,
    ) -> Rc<Self> {
        let settings = RefCell::new(settings);
        Rc::new(Self {
            io,
            shared,
            most_sockets,
            admissions,
            worker_metrics,
            settings,
            sockets: RefCell::default(),
            is_handed_over: Cell::default(),
        })
    }

    /// From now on the sockets are read by another process. This one only sends what backends still answer.
    pub fn hand_over(&self) {
        self.is_handed_over.set(true);
        for serving in self.sockets.borrow().iter() {
            serving.wake();
        }
    }

    /// Another listener has the address from now on, and reads these sockets. What backends still answer is sent by them; the earlier ones are
    /// closed, for the kernel would go on to queue a part of the datagrams there.
    pub fn give_way(&self, to: Vec<UdpSocket>) {
        for socket in to.into_iter().map(Rc::new) {
            for serving in self.sockets.borrow().iter() {
                if serving.socket.borrow().local() == socket.local() {
                    *serving.socket.borrow_mut() = Rc::clone(&socket);
                }
            }
        }
        self.hand_over();
    }

    /// Puts new settings in force for connections to come; those that are known stay where they are.
    pub fn replace(&self, settings: Rc<PassthroughSettings>) {
        for serving in self.sockets.borrow().iter() {
            serving.forwarder.borrow_mut().replace(Rc::clone(&settings));
        }
        *self.settings.borrow_mut() = settings;
    }

    /// Forwards what arrives at a socket, until the listener is aborted, or has drained.
    ///
    /// # Errors
    /// When the socket cannot be used.
    pub async fn serve(self: Rc<Self>, socket: ListeningSocket) -> io::Result<()> {
        let socket = UdpSocket::listening(socket)?;
        socket.never_fragment()?;
        let forwarder = Forwarder::new(
            Rc::clone(&self.settings.borrow()),
            Arc::clone(&self.shared),
            Rc::clone(&self.admissions),
            Arc::clone(&self.worker_metrics),
            (self.io.id, socket.local(), self.io.rng.borrow_mut().next_u64()),
            Uplinks::new(self.most_sockets)?,
        );
        let serving = Rc::new(Serving {
            socket: RefCell::new(Rc::new(socket)),
            forwarder: RefCell::new(forwarder),
            waker: RefCell::default(),
        });
        self.sockets.borrow_mut().push(Rc::clone(&serving));
        let sleep = pin!(sleep_until(Instant::now().into()));
        let mut deadline = Deadline::new(sleep);
        let mut follower = None;
        let ended = poll_fn(|cx| {
            if follower.is_none() {
                follower = Some(self.admissions.connections.follow(cx.waker()));
                *serving.waker.borrow_mut() = Some(cx.waker().clone());
            }
            let socket = Rc::clone(&serving.socket.borrow());
            let mut forwarder = serving.forwarder.borrow_mut();
            loop {
                let now = Instant::now();
                match forwarder.phase() {
                    Phase::Abort => {
                        forwarder.close_all(now);
                        return Poll::Ready(Ok(()));
                    }
                    Phase::Draining | Phase::Farewell if forwarder.is_idle() => return Poll::Ready(Ok(())),
                    _ => {}
                }
                self.turn(cx, &mut forwarder, &socket, now)?;
                match forwarder.due() {
                    Some(due) if deadline.poll(cx, due.into()) => forwarder.expire(Instant::now()),
                    _ => return Poll::Pending,
                }
            }
        })
        .await;
        self.sockets.borrow_mut().retain(|other| !Rc::ptr_eq(other, &serving));
        ended
    }

    /// Moves what has arrived, on both sides.
    fn turn(
        &self,
        cx: &mut Context<'_>,
        forwarder: &mut Forwarder,
        socket: &UdpSocket,
        now: Instant,
    ) -> io::Result<()> {
        let mut received = self.io.datagrams.borrow_mut();
        let mut outgoing = self.io.outgoing_datagrams.borrow_mut();
        let (received, outgoing) = (&mut *received, &mut *outgoing);
        let mut turns = 0;
        while turns < TURNS && !self.is_handed_over.get() {
            match socket.poll_receive(cx, received) {
                Poll::Ready(Ok(())) => self.take_from_clients(forwarder, socket, (received, outgoing), now),
                Poll::Ready(Err(error)) => tracing::debug!(%error, "an error of an earlier datagram"),
                Poll::Pending => break,
            }
            turns += 1;
        }
        let mut events = 0;
        let mut replies = ToClients { socket, outgoing, pushed: 0 };
        while events < EVENTS
            && let Poll::Ready(event) = forwarder.uplinks.poll_event(cx, received)
        {
            match event? {
                UplinkEvent::Received(from) => replies.add(forwarder, (from, received), now),
                UplinkEvent::Unreachable(flow) => forwarder.unreachable(flow, now),
            }
            events += 1;
        }
        replies.send(forwarder);
        received.clear();
        if turns == TURNS || events == EVENTS {
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    /// Forwards a batch of clients.
    fn take_from_clients(
        &self,
        forwarder: &mut Forwarder,
        socket: &UdpSocket,
        (received, outgoing): (&mut ReceiveBatch, &mut SendBatch),
        now: Instant,
    ) {
        let mut leaving = ToBackends { outgoing, socket: None, pushed: 0 };
        for mut received in received.iter_mut() {
            let client = ClientKey { from: received.from, to: received.to };
            let ecn = received.ecn;
            for bytes in received.datagrams() {
                let datagram = Marked { ecn, bytes: &*bytes };
                match forwarder.route(client, datagram, now) {
                    Verdict::Forward(path) => leaving.add(forwarder, path, datagram, now),
                    Verdict::After(path, earlier) => {
                        for earlier in &earlier {
                            leaving.add(forwarder, path, earlier.as_marked(), now);
                        }
                        leaving.add(forwarder, path, datagram, now);
                    }
                    Verdict::Answer(packet) => {
                        leaving.send(forwarder);
                        let mut answer = ToClients { socket, outgoing: leaving.outgoing, pushed: 1 };
                        answer.outgoing.push(client.from, forwarder.answers_from(&client), &packet);
                        answer.send(forwarder);
                    }
                    Verdict::Waits => {}
                    Verdict::Drop(why) => forwarder.dropped(why, 1),
                }
            }
        }
        leaving.send(forwarder);
    }
}

impl Serving {
    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

/// Datagrams of clients that leave together, by one socket. What does not fit into it is lost, as on the network.
struct ToBackends<'a> {
    outgoing: &'a mut SendBatch,
    socket: Option<UplinkSocket>,
    pushed: u64,
}

impl ToBackends<'_> {
    /// Adds a datagram of a path, after sending what leaves by another socket.
    #[inline]
    fn add(&mut self, forwarder: &mut Forwarder, path: PathId, datagram: Marked<'_>, now: Instant) {
        let Marked { ecn, bytes } = datagram;
        let Some((socket, backend, header)) = forwarder.leave(path, bytes.len(), now) else { return };
        if self.socket != Some(socket) || self.outgoing.is_full() {
            self.send(forwarder);
            self.socket = Some(socket);
        }
        self.pushed += 1;
        match header {
            None => self.outgoing.push_marked(backend, None, ecn, bytes),
            Some(header) => {
                self.outgoing.push_marked(backend, None, ecn, &[header.bytes(), bytes].concat());
            }
        }
    }

    fn send(&mut self, forwarder: &mut Forwarder) {
        let Some(socket) = self.socket.take() else { return };
        let SendOutcome { sent, bytes, refused } = forwarder.uplinks.send_by(socket, self.outgoing).1;
        self.outgoing.clear();
        let lost = std::mem::take(&mut self.pushed).saturating_sub(sent);
        forwarder.worker_metrics.bytes_client_to_backend.add(bytes);
        if lost > 0 {
            forwarder.metrics().backend_socket_errors.add(refused);
            forwarder.dropped(PassthroughDrop::BackendSocket, lost);
        }
    }
}

/// Datagrams that leave together by the clients' socket.
struct ToClients<'a> {
    socket: &'a UdpSocket,
    outgoing: &'a mut SendBatch,
    pushed: u64,
}

impl ToClients<'_> {
    /// Adds what backends have sent.
    fn add(
        &mut self,
        forwarder: &mut Forwarder,
        (from, received): (UplinkSocket, &mut ReceiveBatch),
        now: Instant,
    ) {
        for received in received.iter_mut() {
            let Some(flow) = forwarder.uplinks.flow(from, received.from) else { continue };
            let count = u64::try_from(received.count()).unwrap_or(u64::MAX);
            match forwarder.reply(flow, (received.segment, received.bytes), now) {
                Ok((client, own)) => {
                    self.pushed += count;
                    self.outgoing.push_received(client, own, &received);
                }
                Err(Some(why)) => forwarder.dropped(why, count),
                Err(None) => {}
            }
            if self.outgoing.is_full() {
                self.send(forwarder);
            }
        }
    }

    fn send(&mut self, forwarder: &Forwarder) {
        if self.outgoing.is_empty() {
            return;
        }
        let SendOutcome { sent, bytes, .. } = self.socket.try_send(self.outgoing).1;
        self.outgoing.clear();
        forwarder.worker_metrics.bytes_backend_to_client.add(bytes);
        let lost = std::mem::take(&mut self.pushed).saturating_sub(sent);
        if lost > 0 {
            forwarder.dropped(PassthroughDrop::ClientSocket, lost);
        }
    }
}
