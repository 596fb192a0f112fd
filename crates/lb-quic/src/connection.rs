//! One QUIC connection of a worker: quiche's state machine, what rides on it, and when its turn comes.

use std::cell::RefCell;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lb_io::udp::SendBatch;

use crate::connection_id;

/// A connection of quiche, which is lent the bytes of bodies.
pub(crate) type Quic = quiche::Connection<Lent>;

/// Buffers that quiche keeps until they are acknowledged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lent;

impl quiche::BufFactory for Lent {
    type Buf = Bytes;
    type DgramBuf = Vec<u8>;

    fn buf_from_slice(bytes: &[u8]) -> Bytes {
        Bytes::copy_from_slice(bytes)
    }

    fn dgram_buf_from_slice(bytes: &[u8]) -> Vec<u8> {
        bytes.to_vec()
    }
}

/// What rides on connections of an endpoint.
pub(crate) trait Application: Sized + 'static {
    /// Something may have happened on the connection: packets came, a timer fired, the phase of the listener has changed.
    fn progress(connection: &Rc<RefCell<Connection<Self>>>, now: Instant);

    /// When [`Self::progress`] is to be called at the latest.
    fn deadline(&self) -> Option<Instant>;

    /// Whether the other side waits for something that is under way, so that acknowledgements may wait for it as well.
    fn is_busy(&self) -> bool;

    /// The connection has ended.
    fn closed(&mut self);
}

/// The connections whose turn it is.
#[derive(Default)]
pub(crate) struct Turns {
    due: RefCell<Vec<usize>>,
    waker: RefCell<Option<Waker>>,
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").field("due", &self.due).finish_non_exhaustive()
    }
}

impl Turns {
    fn add(&self, place: usize) {
        self.due.borrow_mut().push(place);
        self.wake();
    }

    /// Has the endpoint take a turn.
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// The places of those connections, in order; `into` gives its memory for the next ones.
    pub(crate) fn take(&self, into: &mut Vec<usize>) {
        into.clear();
        std::mem::swap(&mut *self.due.borrow_mut(), into);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.due.borrow().is_empty()
    }

    /// Has the endpoint woken when a connection's turn comes.
    pub(crate) fn wait(&self, waker: &Waker) {
        let mut kept = self.waker.borrow_mut();
        match kept.as_mut() {
            Some(kept) => kept.clone_from(waker),
            None => *kept = Some(waker.clone()),
        }
    }
}

/// How far ahead of its time a packet may leave: timers are no finer, and a wait for each packet costs more than all the rest.
const LOOK_AHEAD: Duration = Duration::from_millis(1);

/// How long the acknowledgement of a single packet waits for what is said in answer to it (RFC 9000 §13.2.1 allows 25 ms).
const ACK_DELAY: Duration = Duration::from_millis(2);

/// Packets that one connection sends before others have their turn.
const MOST_PACKETS: usize = 128;

/// Room for one packet.
const PACKET: usize = 16 * 1024;

/// What flushing a connection has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Everything has been said that may be said now.
    All,
    /// There is more, but others come first.
    More,
    /// The batch is full.
    Full,
}

/// A connection in its place.
pub(crate) struct Connection<A> {
    pub(crate) quic: Quic,
    pub(crate) app: A,
    /// Its place in the table of the endpoint.
    pub(crate) place: usize,
    pub(crate) generation: u32,
    /// The ID that its client has sent the first packet to; empty on connections of our own.
    pub(crate) chosen: Box<[u8]>,
    /// IDs that were made for it.
    pub(crate) ids: u32,
    /// It is to have further IDs.
    pub(crate) wants_id: bool,
    turns: Rc<Turns>,
    is_due: bool,
    /// The earliest timer that is set for it.
    pub(crate) armed: Option<Instant>,
    /// Nothing is sent before: the pace of the path.
    paced: Option<Instant>,
    /// Datagrams received since the last flush.
    received: u32,
    /// A lone acknowledgement is due then.
    acknowledge_by: Option<Instant>,
    /// The application or a timer has something to be sent.
    has_said: bool,
    /// Whether the source address of packets is to be set.
    from_any: bool,
}

impl<A> fmt::Debug for Connection<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("trace", &self.quic.trace_id()).finish_non_exhaustive()
    }
}

impl<A: Application> Connection<A> {
    pub(crate) fn new(
        quic: Quic,
        app: A,
        (place, generation): (usize, u32),
        turns: &Rc<Turns>,
        from_any: bool,
    ) -> Self {
        Self {
            quic,
            app,
            place,
            generation,
            chosen: Box::default(),
            ids: 1,
            wants_id: false,
            turns: Rc::clone(turns),
            is_due: false,
            armed: None,
            paced: None,
            received: 0,
            acknowledge_by: None,
            has_said: true,
            from_any,
        }
    }

    /// Gives the connection a turn.
    pub(crate) fn due(&mut self) {
        if !self.is_due {
            self.is_due = true;
            self.turns.add(self.place);
        }
    }

    /// Gives the connection a turn, in which it says something.
    #[inline]
    pub(crate) fn said(&mut self) {
        self.has_said = true;
        self.due();
    }

    /// Its turn has come.
    pub(crate) fn on_turn(&mut self) {
        self.is_due = false;
    }

    /// Takes a datagram that was sent to this connection.
    pub(crate) fn receive(&mut self, bytes: &mut [u8], from: SocketAddr, to: SocketAddr) {
        if self.is_to_retired(bytes) {
            return;
        }
        self.received = self.received.saturating_add(1);
        if let Err(error) = self.quic.recv(bytes, quiche::RecvInfo { from, to }) {
            if error != quiche::Error::Done {
                tracing::trace!(?error, "a QUIC packet is not accepted");
            }
            self.has_said = true;
        }
        self.due();
    }

    /// Whether a packet is sent to an ID that the peer has retired since: it was overtaken on its way, as when a peer moves to another port.
    /// quiche would take it for a breach of the protocol, and end the connection.
    fn is_to_retired(&self, packet: &[u8]) -> bool {
        let is_short = packet.first().is_some_and(|first| first & 0x80 == 0);
        let to = packet.get(1..=connection_id::LENGTH);
        is_short && to.is_some_and(|to| self.quic.source_ids().all(|id| id.as_ref() != to))
    }

    /// Goes along with what has become of the paths of the connection: one that a peer has turned up on is to be proved before it is used
    /// (RFC 9000 §9.3).
    pub(crate) fn follow_paths(&mut self) {
        while let Some(event) = self.quic.path_event_next() {
            if let quiche::PathEvent::New(local, peer) = event {
                // Fails where too many are being proved already (attack Q-05).
                let _ = self.quic.probe_path(local, peer);
            }
        }
        while self.quic.retired_scid_next().is_some() {
            self.wants_id = true;
        }
    }

    /// A timer has fired.
    pub(crate) fn tick(&mut self, now: Instant) {
        if self.quic.timeout_instant().is_some_and(|at| at <= now) {
            self.quic.on_timeout();
            self.has_said = true;
        }
        self.due();
    }

    /// Whether an acknowledgement that has nothing to travel with is all there is to say, and may wait a little.
    fn may_wait(&mut self, now: Instant) -> bool {
        if self.has_said || self.received != 1 || !self.quic.is_established() || !self.app.is_busy() {
            return false;
        }
        now < *self.acknowledge_by.get_or_insert(now + ACK_DELAY)
    }

    /// Writes what the connection has to say into the batch.
    pub(crate) fn flush(&mut self, batch: &mut SendBatch, now: Instant) -> Flushed {
        if self.paced.is_some_and(|at| at > now + LOOK_AHEAD) || self.may_wait(now) {
            return Flushed::All;
        }
        self.paced = None;
        for _ in 0..MOST_PACKETS {
            let mut release = now;
            let from_any = self.from_any;
            let quic = &mut self.quic;
            let written = batch.write(PACKET, |room| {
                let (length, info) = quic.send(room)?;
                release = info.at;
                let from: Option<IpAddr> = from_any.then(|| info.from.ip());
                Ok::<_, quiche::Error>((length, info.to, from))
            });
            match written {
                Ok(_) => {}
                Err(quiche::Error::Done) => {
                    self.settled();
                    return Flushed::All;
                }
                Err(error) => {
                    tracing::debug!(?error, "a QUIC connection cannot go on");
                    let _ = self.quic.close(false, 0x1, b"");
                    self.settled();
                    return Flushed::All;
                }
            }
            if release > now + LOOK_AHEAD {
                self.paced = Some(release);
                return Flushed::All;
            }
            if batch.is_full() {
                return Flushed::Full;
            }
        }
        Flushed::More
    }

    fn settled(&mut self) {
        self.received = 0;
        self.has_said = false;
        self.acknowledge_by = None;
    }

    /// When it needs a turn again at the latest.
    pub(crate) fn next(&self) -> Option<Instant> {
        let pace = self.paced.map(|at| at.checked_sub(LOOK_AHEAD / 2).unwrap_or(at));
        [self.quic.timeout_instant(), self.app.deadline(), pace, self.acknowledge_by]
            .into_iter()
            .flatten()
            .min()
    }
}
