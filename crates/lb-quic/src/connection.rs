//! One QUIC connection of a worker: quiche's state machine, what rides on it, and when its turn comes.

use std::cell::RefCell;
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lb_io::udp::SendBatch;

use crate::closing::Closing;
use crate::memory::Holding;
use crate::nudge::Nudges;
use crate::peer::{Brought, Ends, LEAST, Peer};

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

    /// The connection has ended, and its peer has moved so many times.
    fn closed(&mut self, quic: &Quic, moves: u64);
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

/// Packets without its end that a closing connection sends at once: one for each kind of keys.
///
/// quiche makes packets of acknowledgements without end where an application closes a connection before the handshake is confirmed, and
/// something of the handshake was lost.
const CLOSING_PACKETS: u8 = 3;

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
    /// Where its peer is.
    peer: Peer,
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
    /// It was closed here, and this is to take its place.
    closing: Option<Closing>,
    /// PINGs that are still to be sent.
    nudges: Option<Nudges>,
    /// What it holds of what it has received.
    pub(crate) holding: Holding,
    /// What is known of the socket and the peer.
    site: Site,
}

/// What a connection is told of its socket and its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    /// Whether the source address of packets is to be set.
    pub(crate) from_any: bool,
    /// Whether the peer may come to be elsewhere: clients may, servers may not (RFC 9000 §9).
    pub(crate) may_move: bool,
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
        ends: Ends,
        (site, holding): (Site, Holding),
    ) -> Self {
        let nudges = Nudges::of(&quic);
        Self {
            quic,
            app,
            place,
            generation,
            chosen: Box::default(),
            ids: 1,
            wants_id: false,
            peer: Peer::new(ends),
            turns: Rc::clone(turns),
            is_due: false,
            armed: None,
            paced: None,
            received: 0,
            acknowledge_by: None,
            has_said: true,
            closing: None,
            nudges,
            holding,
            site,
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

    /// The connection has ended.
    pub(crate) fn closed(&mut self) {
        self.app.closed(&self.quic, self.peer.moves());
    }

    /// Has something to be sent in the turn that it has, or in the next.
    pub(crate) fn speaks(&mut self) {
        self.has_said = true;
    }

    /// What is to take its place, once it has sent the packet that closes it.
    pub(crate) fn take_closing(&mut self) -> Option<Closing> {
        self.closing.take()
    }

    /// Its turn has come.
    pub(crate) fn on_turn(&mut self) {
        self.is_due = false;
    }

    /// Takes a datagram that was sent to this connection.
    pub(crate) fn receive(&mut self, bytes: &mut [u8], ends: Ends) {
        if self.is_to_retired(bytes) {
            return;
        }
        let is_elsewhere = !self.peer.is_at(ends);
        // A peer that may not move, or not yet (RFC 9000 §9).
        if is_elsewhere && !(self.site.may_move && self.quic.is_established()) {
            return;
        }
        // Handshakes have caps of their own.
        let counts = self.quic.is_established() || self.quic.is_in_early_data();
        if counts && !self.holding.receives(bytes.len()) {
            // It has a turn nevertheless, in which it finds out what it holds.
            return self.due();
        }
        self.received = self.received.saturating_add(1);
        let before = (is_elsewhere || self.peer.is_on_trial()).then(|| self.quic.stats());
        let Ends { peer, local } = self.peer.shown();
        let length = bytes.len();
        if let Err(error) = self.quic.recv(bytes, quiche::RecvInfo { from: peer, to: local }) {
            if error != quiche::Error::Done {
                tracing::trace!(?error, "a QUIC packet is not accepted");
            }
            self.has_said = true;
        }
        if let Some(before) = before {
            self.follow(ends, length, &before);
        }
        self.due();
    }

    /// Whether datagrams have come since it last spoke.
    pub(crate) fn has_received(&self) -> bool {
        self.received > 0
    }

    /// Follows the peer to where a datagram came from, if that was a genuine one which has not come before.
    fn follow(&mut self, ends: Ends, length: usize, before: &quiche::Stats) {
        let (stats, now) = (self.quic.stats(), Instant::now());
        if stats.recv == before.recv {
            return;
        }
        if self.peer.is_at(ends) {
            return self.peer.received(length, stats.acked_bytes, now);
        }
        let round_trip = self.quic.path_stats().next().map_or(Duration::ZERO, |path| path.rtt);
        let brought = Brought {
            length,
            probes: stats.path_challenge_rx_count != before.path_challenge_rx_count,
            acknowledged: stats.acked_bytes,
            round_trip,
        };
        if self.peer.heard_elsewhere(ends, &brought, now) {
            // Another path may take less.
            self.quic.revalidate_pmtu();
        }
        tracing::trace!(?ends, ?brought, "a QUIC peer was heard elsewhere");
        self.has_said = true;
    }

    /// Whether a packet is sent to an ID that the peer has retired since: it was overtaken on its way, as when a peer moves to another port.
    /// quiche would take it for a breach of the protocol, and end the connection.
    fn is_to_retired(&self, packet: &[u8]) -> bool {
        let is_short = packet.first().is_some_and(|first| first & 0x80 == 0);
        let length = self.quic.source_ids().next().map_or(0, |id| id.len());
        let to = packet.get(1..=length);
        is_short && to.is_some_and(|to| self.quic.source_ids().all(|id| id.as_ref() != to))
    }

    /// Notes that the peer has given up IDs, so that it is given others.
    pub(crate) fn replace_ids(&mut self) {
        // What quiche thinks of its one path is of no use.
        while self.quic.path_event_next().is_some() {}
        while self.quic.retired_scid_next().is_some() {
            self.wants_id = true;
        }
    }

    /// A timer has fired.
    pub(crate) fn tick(&mut self, now: Instant) {
        if self.quic.timeout_instant().is_some_and(|at| at <= now) {
            self.quic.on_timeout();
            self.peer.timed_out(now);
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
        self.holding.look(&self.quic, now);
        if let Some(nudges) = &mut self.nudges
            && !nudges.look(&mut self.quic, now)
        {
            self.nudges = None;
        }
        if self.paced.is_some_and(|at| at > now + LOOK_AHEAD) || self.may_wait(now) {
            return Flushed::All;
        }
        self.paced = None;
        let mut without_end = 0_u8;
        for _ in 0..MOST_PACKETS {
            let (ends, most) = self.peer.destination();
            if most < LEAST {
                // Until more comes from there.
                return Flushed::All;
            }
            let mut release = now;
            let from: Option<IpAddr> = self.site.from_any.then(|| ends.local.ip());
            let (quic, peer, closing) = (&mut self.quic, &mut self.peer, &mut self.closing);
            let written = batch.write(PACKET, |room| {
                let most = most.min(room.len());
                let (length, info) = quic.send(room.get_mut(..most).unwrap_or_default())?;
                release = info.at;
                peer.sent(length);
                without_end += u8::from(quic.local_error().is_some() && !quic.is_draining());
                if quic.is_draining() && quic.local_error().is_some() && quic.is_established() {
                    let lasts = quic.timeout().unwrap_or_default();
                    let packet = room.get(..length).unwrap_or_default();
                    *closing = Some(Closing::new(packet, (ends.peer, from), lasts, now));
                }
                Ok::<_, quiche::Error>((length, ends.peer, from))
            });
            match written {
                Ok(_) if without_end >= CLOSING_PACKETS => {
                    // The next packet of the peer, or a timer, brings another turn.
                    self.settled();
                    return Flushed::All;
                }
                Ok(_) => {}
                Err(quiche::Error::Done) => {
                    self.peer.sent(0);
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
        let nudge = self.nudges.as_ref().and_then(Nudges::next);
        [self.quic.timeout_instant(), self.app.deadline(), pace, self.acknowledge_by, nudge]
            .into_iter()
            .flatten()
            .min()
    }
}
