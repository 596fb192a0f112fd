//! The QUIC connections of a worker on one socket, and the loop that drives them.
//!
//! A turn of the loop receives everything that has arrived, lets the connections that are concerned make progress, gives the tasks that they
//! have woken a chance to speak, and then sends what all of them have to say at once. So a connection has one flush for each turn, and an
//! acknowledgement travels with the answer where there is one.

mod accept;
mod table;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use lb_io::udp::{Passed, UdpSocket};
use lb_io::{Phase, WorkerIo};
use tokio::time::Sleep;

pub(crate) use accept::{Acceptor, AcceptorParts, Arrived};
pub(crate) use table::{Shared, Table};

use crate::closing::Closing;
use crate::connection::{Application, Connection, Flushed, Turns};
use crate::packet::Start;
use crate::peer::Ends;

/// Batches that are received before others have their turn.
const ROUNDS: usize = 4;

/// IDs that a connection has at once.
const IDS: usize = 2;

/// How often connections look at the phase while their listener drains.
const ROUND: Duration = Duration::from_millis(20);

/// Packets that open a connection or answer one that is gone: what an endpoint does with what belongs to no connection.
pub(crate) trait Stray<A: Application> {
    /// A datagram that belongs to no connection of the table.
    fn stray(&mut self, endpoint: &mut Ground<A>, datagram: Datagram<'_>);

    /// A turn begins.
    fn begin(&mut self, _ground: &mut Ground<A>) {}

    /// Datagrams that others have passed on.
    fn passed(&mut self, cx: &Context<'_>) -> VecDeque<Passed>;

    /// Whether the socket is read here. Where it is not, all that belongs to connections is passed on.
    fn reads(&self) -> bool {
        true
    }

    /// The token by which a peer knows a stateless reset of the connection with this ID.
    fn reset_token(&self, id: &[u8]) -> u128;

    /// What connections may do now. When the last of them is gone after [`Phase::Serving`], the loop ends.
    fn phase(&self) -> Phase;
}

/// A datagram, and where it came from.
pub(crate) struct Datagram<'a> {
    pub(crate) bytes: &'a mut [u8],
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
}

/// What all connections of an endpoint stand on.
pub(crate) struct Ground<A: Application> {
    pub(crate) io: Rc<WorkerIo>,
    pub(crate) socket: UdpSocket,
    pub(crate) table: Table<A>,
    pub(crate) turns: Rc<Turns>,
}

/// The loop of one socket.
pub(crate) struct Endpoint<A: Application, S> {
    ground: Ground<A>,
    stray: S,
    timers: BinaryHeap<Reverse<(Instant, usize, u32)>>,
    sleep: Pin<Box<Sleep>>,
    /// The connections that have had progress in this turn, and speak at its end.
    speaking: Vec<Rc<RefCell<Connection<A>>>>,
    due: Vec<usize>,
    /// Tasks that were woken have had their chance to speak.
    has_yielded: bool,
    /// When all connections look at the phase again, while the listener drains.
    round: Option<Instant>,
}

impl<A: Application, S> fmt::Debug for Endpoint<A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("socket", &self.ground.socket).finish_non_exhaustive()
    }
}

impl<A: Application, S: Stray<A>> Endpoint<A, S> {
    pub(crate) fn new(
        io: Rc<WorkerIo>,
        socket: UdpSocket,
        table: Table<A>,
        turns: Rc<Turns>,
        stray: S,
    ) -> Self {
        let ground = Ground { io, socket, table, turns };
        let sleep = Box::pin(tokio::time::sleep(Duration::ZERO));
        Self {
            ground,
            stray,
            timers: BinaryHeap::new(),
            sleep,
            speaking: Vec::new(),
            due: Vec::new(),
            has_yielded: false,
            round: None,
        }
    }

    /// Receives what has arrived. True when there may be more.
    fn receive(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.stray.reads() {
            return false;
        }
        let io = Rc::clone(&self.ground.io);
        let mut batch = io.datagrams.borrow_mut();
        for _ in 0..ROUNDS {
            match self.ground.socket.poll_receive(cx, &mut batch) {
                Poll::Pending => return false,
                // Errors of UDP sockets concern datagrams that were sent earlier.
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "a QUIC socket has failed");
                    continue;
                }
                Poll::Ready(Ok(())) => {}
            }
            let local = self.ground.socket.local();
            for mut received in batch.iter_mut() {
                let from = received.from;
                let to = SocketAddr::new(received.to.unwrap_or(local.ip()), local.port());
                for bytes in received.datagrams() {
                    self.dispatch(Datagram { bytes, from, to });
                }
            }
            batch.clear();
        }
        true
    }

    /// Takes what came to others for connections of this endpoint.
    fn take_passed(&mut self, cx: &Context<'_>) {
        for mut passed in self.stray.passed(cx) {
            let Passed { from, to, ref mut bytes } = passed;
            self.dispatch(Datagram { bytes, from, to });
        }
    }

    /// While the listener drains, lets every connection look at its phase now and then.
    fn look_round(&mut self, now: Instant) {
        if self.stray.phase() == Phase::Serving || self.round.is_some_and(|at| now < at) {
            return;
        }
        self.round = Some(now + ROUND);
        self.ground.table.iter().for_each(|connection| connection.borrow_mut().due());
    }

    fn dispatch(&mut self, datagram: Datagram<'_>) {
        let found =
            Start::read(datagram.bytes, self.ground.table.id_length()).and_then(|start| match start {
                Start::Short { to } | Start::Long { to, .. } => self.ground.table.find(to),
            });
        match found {
            Some(table::Found::Open(connection)) => {
                let Datagram { bytes, from: peer, to: local } = datagram;
                connection.borrow_mut().receive(bytes, Ends { peer, local });
            }
            Some(table::Found::Closing(closing)) => {
                if closing.hear(datagram.from) {
                    send_closing(closing, &self.ground.io, &self.ground.socket);
                }
            }
            None => self.stray.stray(&mut self.ground, datagram),
        }
    }

    /// Gives connections whose timers have fired a turn.
    fn fire(&mut self, now: Instant) {
        while let Some(Reverse((at, place, generation))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            let Some(connection) = self.ground.table.get(place, generation) else {
                self.look_at_closing(place, generation, now);
                continue;
            };
            let mut connection = connection.borrow_mut();
            if connection.armed == Some(at) {
                connection.armed = None;
                connection.tick(now);
            }
        }
    }

    /// Sends the packet of a connection that closes once more if it is time, and forgets it when that is over.
    fn look_at_closing(&mut self, place: usize, generation: u32, now: Instant) {
        let Ground { io, socket, table, .. } = &mut self.ground;
        let Some(closing) = table.closing(place, generation) else { return };
        if closing.is_over(now) {
            return table.remove_closing(place);
        }
        if closing.is_due(now) {
            send_closing(closing, io, socket);
        }
        self.timers.push(Reverse((closing.next(), place, generation)));
    }

    /// Lets every connection make progress whose turn it is.
    fn progress(&mut self, now: Instant) {
        let mut due = std::mem::take(&mut self.due);
        self.ground.turns.take(&mut due);
        for place in due.drain(..) {
            let Some(connection) = self.ground.table.at(place) else { continue };
            let mut own = connection.borrow_mut();
            own.on_turn();
            own.replace_ids();
            drop(own);
            A::progress(&connection, now);
            self.speaking.push(connection);
        }
        self.due = due;
    }

    /// Sends what connections have to say.
    fn speak(&mut self, now: Instant) {
        let io = Rc::clone(&self.ground.io);
        let mut batch = io.outgoing_datagrams.borrow_mut();
        let mut speaking = std::mem::take(&mut self.speaking);
        for shared in speaking.drain(..) {
            let mut connection = shared.borrow_mut();
            if std::mem::take(&mut connection.wants_id) {
                self.give_ids(&mut connection);
            }
            loop {
                match connection.flush(&mut batch, now) {
                    Flushed::All => break,
                    Flushed::More => {
                        connection.said();
                        break;
                    }
                    Flushed::Full => self.send(&mut batch),
                }
            }
            if let Some(closing) = connection.take_closing() {
                connection.closed();
                let (next, place, generation) = (closing.next(), connection.place, connection.generation);
                self.ground.table.close(&mut connection, closing);
                self.timers.push(Reverse((next, place, generation)));
                continue;
            }
            if connection.quic.is_closed() {
                connection.closed();
                self.ground.table.remove(&connection);
                continue;
            }
            if let Some(at) = connection.next()
                && connection.armed.is_none_or(|armed| at < armed)
            {
                connection.armed = Some(at);
                self.timers.push(Reverse((at, connection.place, connection.generation)));
            }
        }
        self.speaking = speaking;
        self.send(&mut batch);
    }

    /// Gives a connection as many IDs as its peer keeps, up to one in reserve.
    fn give_ids(&mut self, connection: &mut Connection<A>) {
        while connection.quic.active_scids() < IDS && connection.quic.scids_left() > 0 {
            let number = connection.ids;
            connection.ids = number.wrapping_add(1);
            let Some(id) = self.ground.table.id(connection.place, connection.generation, number) else {
                return;
            };
            let token = self.stray.reset_token(&id);
            if connection.quic.new_scid(&quiche::ConnectionId::from_ref(&id), token, false).is_err() {
                return;
            }
        }
    }

    /// Sends a batch. What the socket has no room for is lost, as on a path that is too narrow: it is found out and sent anew.
    fn send(&self, batch: &mut lb_io::udp::SendBatch) {
        if !batch.is_empty() {
            let _ = self.ground.socket.try_send(batch);
            batch.clear();
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.stray.begin(&mut self.ground);
            let more = self.receive(cx);
            self.take_passed(cx);
            let now = Instant::now();
            self.fire(now);
            self.look_round(now);
            self.progress(now);
            if !self.speaking.is_empty() && !self.has_yielded {
                // The tasks that were woken run before this one does again.
                self.has_yielded = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.has_yielded = false;
            self.speak(now);
            if self.stray.phase() != Phase::Serving && self.ground.table.len() == 0 {
                return Poll::Ready(());
            }
            self.ground.turns.wait(cx.waker());
            if more || !self.ground.turns.is_empty() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let timer = self.timers.peek().map(|Reverse((at, ..))| *at);
            let Some(at) = [timer, self.round].into_iter().flatten().min() else { return Poll::Pending };
            self.sleep.as_mut().reset(tokio::time::Instant::from_std(at));
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

/// Sends the packet that closed a connection.
fn send_closing(closing: &Closing, io: &WorkerIo, socket: &UdpSocket) {
    let mut batch = io.outgoing_datagrams.borrow_mut();
    let (to, from, packet) = closing.packet();
    batch.push(to, from, packet);
    let _ = socket.try_send(&mut batch);
    batch.clear();
}

impl<A: Application, S: Stray<A> + Unpin> Future for Endpoint<A, S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.turn(cx)
    }
}
