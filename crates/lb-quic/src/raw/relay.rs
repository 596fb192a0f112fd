//! Moves streams and datagrams between the two connections of a client: what is read on one side is given to the other in the same turn, and
//! nothing is read that the other side has no room for. So the windows of each connection bound what is held, and a receiver that does not
//! read stops its sender.
//!
//! quiche forgets a stream once all of its bytes are acknowledged, even where its end was not sent yet or was lost (cloudflare/quiche#2525).
//! An end that comes with bytes is safe: they are acknowledged together. One that comes alone waits until all bytes before it are, and quiche
//! then keeps the stream for it, unless the other direction is read to its end meanwhile: so that direction rests for a round trip.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_io::WorkerIo;
use lb_observe::metrics::{DatagramPath, ListenerMetrics, RelayShard, WorkerMetrics};
use quiche::Shutdown;

use super::half::{Half, Lending, Stream, Way, begun_by_sender_of};
use crate::connection::Quic;
use crate::memory::Holding;
use crate::streams::{Met, Streams};

/// Bytes that are read at once.
const PIECE: usize = 64 * 1024;

/// Streams that may be stopped while a connection lives: quiche keeps some of them for as long.
const MOST_STOPS: usize = 16_384;

/// The code of a stop or a reset whose own is not known any more.
const NO_CODE: u64 = 0;

/// The two connections of a client.
pub(crate) struct Pair<'a> {
    pub(crate) front: &'a mut Quic,
    pub(crate) back: &'a mut Quic,
    /// What each of them holds of what it has received.
    pub(crate) holds: [&'a mut Holding; 2],
}

impl Pair<'_> {
    /// Where bytes come from in this direction.
    pub(super) fn from(&mut self, way: Way) -> &mut Quic {
        match way {
            Way::Up => self.front,
            Way::Down => self.back,
        }
    }

    /// So many bytes were passed on.
    pub(super) fn passes(&mut self, way: Way, length: usize) {
        let [front, back] = &mut self.holds;
        match way {
            Way::Up => front.passes(length),
            Way::Down => back.passes(length),
        }
    }

    /// Where bytes go to in this direction.
    pub(super) fn to(&mut self, way: Way) -> &mut Quic {
        self.from(way.other())
    }
}

/// What a relay is counted in, and what it borrows.
#[derive(Clone, Debug)]
pub(crate) struct Counters {
    pub(crate) listener: Arc<ListenerMetrics>,
    pub(crate) worker: Arc<WorkerMetrics>,
    pub(crate) worker_id: usize,
}

impl Counters {
    pub(super) fn relay(&self) -> &RelayShard {
        &self.listener.worker(self.worker_id).quic_relay
    }
}

/// Whether there is something to be sent on either side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) front: bool,
    pub(crate) back: bool,
}

/// What is kept of a direction besides its streams.
#[derive(Debug, Default)]
struct Course {
    /// Streams that the receiver has stopped, as quiche counts them.
    stopped: u64,
    /// Streams that the sender has reset, as quiche counts them.
    resets: u64,
    /// Streams that the receiver has no room for.
    blocked: Vec<u64>,
    /// What the receiver has not acknowledged, of all streams.
    lending: Lending,
    /// When an end or a reset was last given to the receiver without a byte.
    last_bare: Option<Instant>,
}

/// The streams of one client.
pub(crate) struct Relay {
    streams: Streams<Stream>,
    met: Met,
    /// Streams that the other side does not let be opened yet.
    waiting: BTreeSet<u64>,
    /// Ends that wait for acknowledgements.
    held: Vec<(u64, Way)>,
    /// Directions that are read on later.
    resting: Vec<(Instant, u64, Way)>,
    up: Course,
    down: Course,
    /// Directions that were stopped.
    stops: usize,
    counters: Counters,
    moved: Moved,
}

impl Relay {
    pub(crate) fn new(counters: Counters) -> Self {
        Self {
            streams: Streams::default(),
            met: Met::default(),
            waiting: BTreeSet::new(),
            held: Vec::new(),
            resting: Vec::new(),
            up: Course::default(),
            down: Course::default(),
            stops: 0,
            counters,
            moved: Moved::default(),
        }
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Streams that are open on either side.
    pub(crate) fn open(&self) -> usize {
        self.streams.len()
    }

    /// Whether the peers have given up more than a connection may hold. `most` streams are the most that either side lets be open, of all kinds.
    pub(crate) fn is_exhausted(&self, most: usize) -> bool {
        self.streams.len() > most || self.stops > MOST_STOPS
    }

    /// When [`Self::turn`] is to be called at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.resting.iter().map(|(until, ..)| *until).min()
    }

    /// Moves what can be moved.
    pub(crate) fn turn(&mut self, pair: &mut Pair<'_>, io: &WorkerIo, now: Instant) -> Moved {
        self.moved = Moved::default();
        for way in Way::BOTH {
            self.find_stopped(pair, way, io, now);
            while let Some(id) = pair.from(way).stream_readable_next() {
                self.pump(pair, id, way, io, now);
            }
            self.find_ended(pair, way, now);
            for id in std::mem::take(&mut self.course(way).blocked) {
                self.pump(pair, id, way, io, now);
            }
        }
        while let Some(id) = self.waiting.first().copied() {
            self.waiting.pop_first();
            Way::BOTH.into_iter().for_each(|way| self.pump(pair, id, way, io, now));
            if self.waiting.contains(&id) {
                break;
            }
        }
        for (id, way) in std::mem::take(&mut self.held) {
            self.end(pair, id, way, now);
        }
        let due: Vec<_> = self.resting.extract_if(.., |(until, ..)| *until <= now).collect();
        for (_, id, way) in due {
            self.pump(pair, id, way, io, now);
        }
        std::mem::take(&mut self.moved)
    }

    /// Whether the receiver has all that was sent in this direction, as far as can be told, where nothing more comes.
    pub(crate) fn is_delivered(&mut self, pair: &mut Pair<'_>, way: Way, now: Instant) -> bool {
        if !self.course(way).lending.is_acknowledged() || self.held.iter().any(|(_, held)| *held == way) {
            return false;
        }
        let settling = round_trip(pair.to(way)).saturating_add(ACK_DELAY);
        if self.course(way).last_bare.is_some_and(|at| now < at + settling) {
            return false;
        }
        let from = pair.from(way);
        self.streams.iter_mut().all(|(id, stream)| stream.half(way).is_over || !from.stream_readable(*id))
    }

    /// Whether both sides have all that was sent.
    pub(crate) fn is_all_delivered(&mut self, pair: &mut Pair<'_>, now: Instant) -> bool {
        Way::BOTH.into_iter().all(|way| self.is_delivered(pair, way, now))
    }

    fn course(&mut self, way: Way) -> &mut Course {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }

    fn count_reset(&self, way: Way) {
        self.counters.relay().resets.of(path(way)).inc();
    }

    /// Something was said in this direction.
    fn said(&mut self, way: Way) {
        match way {
            Way::Up => self.moved.back = true,
            Way::Down => self.moved.front = true,
        }
    }

    /// Looks for streams whose receiver wants no more. quiche tells of it only where bytes are given to a stream, or wait for room. It keeps a
    /// stream that was stopped, with the code, as long as that stream is among those that can be written to; so none is taken out of them.
    fn find_stopped(&mut self, pair: &mut Pair<'_>, way: Way, io: &WorkerIo, now: Instant) {
        let to = pair.to(way);
        let count = to.stats().stopped_stream_count_remote;
        if std::mem::replace(&mut self.course(way).stopped, count) == count {
            return;
        }
        // A stream may have begun with that.
        for id in to.writable() {
            if !self.streams.contains_key(&id) {
                self.pump(pair, id, way, io, now);
            }
        }
        let open = self.streams.iter_mut().filter_map(|(id, stream)| {
            let knows = stream.is_open || !begun_by_sender_of(way, *id);
            (knows && !stream.half(way).is_over).then_some(*id)
        });
        let open: Vec<u64> = open.collect();
        for id in open {
            if let Err(error) = pair.to(way).stream_capacity(id) {
                self.stop(pair, id, way, code_of(&error));
            }
        }
    }

    /// Looks for streams that have ended without becoming readable: quiche tells nobody of an end that comes with bytes which were read before, as
    /// when their acknowledgement was lost, or of a reset behind an end. Which of the two it was it does not say, but whether there were resets;
    /// a stream that was reset must not be taken for whole.
    fn find_ended(&mut self, pair: &mut Pair<'_>, way: Way, now: Instant) {
        let from = pair.from(way);
        let count = from.stats().reset_stream_count_remote;
        let ended = self.streams.iter_mut().filter_map(|(id, stream)| {
            let knows = stream.is_open || begun_by_sender_of(way, *id);
            let half = stream.half(way);
            let runs = knows && !half.is_over && !half.has_ended;
            (runs && from.stream_finished(*id) && !from.stream_readable(*id)).then_some(*id)
        });
        let ended: Vec<u64> = ended.collect();
        let had_resets = std::mem::replace(&mut self.course(way).resets, count) != count;
        for id in ended {
            match had_resets {
                false => self.end(pair, id, way, now),
                true => self.reset(pair, id, way, NO_CODE, now),
            }
        }
    }

    /// The stream, with the side that has not begun it told of it. False where that side has no room for it yet, or the stream is over.
    fn is_open(&mut self, pair: &mut Pair<'_>, id: u64) -> bool {
        if self.met.meet(id) {
            self.streams.insert(id, Stream::new(id));
            self.counters.relay().streams.inc();
            self.counters.relay().streams_opened.inc();
        }
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        if stream.is_open {
            return true;
        }
        let way = if begun_by_sender_of(Way::Up, id) { Way::Up } else { Way::Down };
        match pair.to(way).stream_send(id, b"", false) {
            Ok(_) | Err(quiche::Error::StreamStopped(_)) => {
                stream.is_open = true;
                if let Some(code) = stream.half(way.other()).stop.take() {
                    let _ = pair.to(way).stream_shutdown(id, Shutdown::Read, code);
                    self.said(way);
                }
                true
            }
            Err(_) => {
                self.waiting.insert(id);
                false
            }
        }
    }

    /// Moves what a stream has in one direction.
    fn pump(&mut self, pair: &mut Pair<'_>, id: u64, way: Way, io: &WorkerIo, now: Instant) {
        if !self.is_open(pair, id) {
            return;
        }
        let mut scratch = io.scratch.borrow_mut();
        loop {
            let Some(half) = self.live_half(id, way) else { return };
            if half.has_ended || half.rests_until.is_some_and(|until| now < until) {
                return;
            }
            let room = match pair.to(way).stream_capacity(id) {
                Ok(room) => room,
                Err(error) => return self.stop(pair, id, way, code_of(&error)),
            };
            let from = pair.from(way);
            // An end and a reset need no room.
            let is_bare = from.stream_readable(id) && from.stream_readable_len(id, 1) == 0;
            if room == 0 && !is_bare {
                let _ = pair.to(way).stream_writable(id, 1);
                self.course(way).blocked.push(id);
                return;
            }
            let piece = scratch.room(room.clamp(1, PIECE));
            let (length, has_ended) = match from.stream_recv(id, piece) {
                Ok(taken) => taken,
                Err(quiche::Error::StreamReset(code)) => return self.reset(pair, id, way, code, now),
                Err(_) => return,
            };
            pair.passes(way, length);
            // Its window may be opened.
            self.said(way.other());
            let bytes = piece.get(..length).unwrap_or_default();
            if !bytes.is_empty() {
                self.give(pair, id, way, (bytes, has_ended));
            } else if has_ended {
                self.end(pair, id, way, now);
            } else {
                return;
            }
        }
    }

    /// A direction of a stream, if it is not over.
    fn live_half(&mut self, id: u64, way: Way) -> Option<&mut Half> {
        self.streams.get_mut(&id).map(|stream| stream.half(way)).filter(|half| !half.is_over)
    }

    /// Gives bytes to the receiver, which has room for them, and the end of the stream with them where it comes at once.
    fn give(&mut self, pair: &mut Pair<'_>, id: u64, way: Way, (bytes, ends): (&[u8], bool)) {
        let course = match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        };
        let Some(half) = self.streams.get_mut(&id).map(|stream| stream.half(way)) else { return };
        let lent = half.lending.lend(bytes, &course.lending);
        match pair.to(way).stream_send_zc(id, lent, ends) {
            Ok((length, _)) if length == bytes.len() => {
                let worker = &self.counters.worker;
                let counter = match way {
                    Way::Up => &worker.bytes_client_to_backend,
                    Way::Down => &worker.bytes_backend_to_client,
                };
                counter.add(u64::try_from(length).unwrap_or(u64::MAX));
                half.is_over = ends;
                self.said(way);
                if ends {
                    self.forget_if_done(id);
                }
            }
            Err(quiche::Error::StreamStopped(code)) => self.stop(pair, id, way, code),
            // Room was there, so that this does not happen; a stream with a hole must not be taken for whole.
            _ => {
                let _ = pair.to(way).stream_shutdown(id, Shutdown::Write, NO_CODE);
                self.stop(pair, id, way, NO_CODE);
            }
        }
    }

    /// The sender has ended the stream, and the receiver is told when it has acknowledged what came before.
    fn end(&mut self, pair: &mut Pair<'_>, id: u64, way: Way, now: Instant) {
        let Some(half) = self.live_half(id, way) else { return };
        half.has_ended = true;
        if !half.lending.is_acknowledged() {
            self.held.push((id, way));
            return;
        }
        half.is_over = true;
        let _ = pair.to(way).stream_send(id, b"", true);
        let until = now + round_trip(pair.to(way));
        if let Some(other) = self.live_half(id, way.other()) {
            other.rests_until = Some(until);
            self.resting.push((until, id, way.other()));
            // So that the time is kept.
            self.moved.front = true;
        }
        self.was_bare(id, way, now);
    }

    /// The sender has reset the stream.
    fn reset(&mut self, pair: &mut Pair<'_>, id: u64, way: Way, code: u64, now: Instant) {
        let _ = pair.to(way).stream_shutdown(id, Shutdown::Write, code);
        if let Some(half) = self.live_half(id, way) {
            half.is_over = true;
            self.count_reset(way);
        }
        self.was_bare(id, way, now);
    }

    /// The receiver wants no more of the stream.
    fn stop(&mut self, pair: &mut Pair<'_>, id: u64, way: Way, code: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let knows = stream.is_open || begun_by_sender_of(way, id);
        let half = stream.half(way);
        if half.is_over {
            return;
        }
        half.is_over = true;
        self.stops = self.stops.saturating_add(1);
        if knows {
            let _ = pair.from(way).stream_shutdown(id, Shutdown::Read, code);
            self.said(way.other());
        } else {
            half.stop = Some(code);
        }
        self.count_reset(way);
        self.forget_if_done(id);
    }

    fn was_bare(&mut self, id: u64, way: Way, now: Instant) {
        self.course(way).last_bare = Some(now);
        self.said(way);
        self.forget_if_done(id);
    }

    fn forget_if_done(&mut self, id: u64) {
        if self.streams.get(&id).is_some_and(Stream::is_done) {
            self.streams.remove(&id);
            self.counters.relay().streams.dec();
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.streams.iter().for_each(|_| self.counters.relay().streams.dec());
    }
}

/// What acknowledgements wait for at most (RFC 9000 §18.2).
const ACK_DELAY: Duration = Duration::from_millis(25);

pub(super) fn path(way: Way) -> DatagramPath {
    match way {
        Way::Up => DatagramPath::ToBackend,
        Way::Down => DatagramPath::ToClient,
    }
}

fn round_trip(quic: &Quic) -> Duration {
    quic.path_stats().next().map_or(Duration::ZERO, |path| path.rtt)
}

/// The code with which a receiver has stopped a stream. Where quiche has forgotten the stream, it has forgotten the code.
fn code_of(error: &quiche::Error) -> u64 {
    match error {
        quiche::Error::StreamStopped(code) => *code,
        _ => NO_CODE,
    }
}
