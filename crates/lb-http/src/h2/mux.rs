//! The state that the streams of one connection share, at either end.
//!
//! Nothing here reads or writes the socket: frames that were read come in through [`Mux::receive`], frames to be written gather in an output
//! buffer that the connection's task empties. So the answers of all streams that got on in one turn of the event loop leave in one write.
//!
//! Memory is bounded on both ways. What the peer sends is bounded by the windows that it was given. What is sent to it waits in the stream
//! that it belongs to while the peer's windows are closed or the output buffer is full, and a stream in which something waits takes no
//! more ([`Mux::room`]).

mod control;
mod ending;
mod heads;
mod hold;
mod output;
mod receive;
mod send;

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use lb_core::ledger::{Charge, Ledger, Verdict};
use lb_core::reason::Reason;
use lb_io::WorkerIo;
use slab::Slab;
use tokio::time::Instant;

use super::frame::{self, ErrorCode, FrameError, Scope, SettingId};
use super::hpack::{DEFAULT_TABLE_SIZE, Decoder, Encoder};
use super::stream::{Reset, Stream};
use super::window::{DEFAULT_WINDOW, ReceiveWindow, SendWindow};
use crate::message::Gone;
use output::Output;

pub(super) use receive::{Happening, Received};

/// The least that a stream takes at once: a head fits, and the streams of a connection together stay small.
const LEAST_ROOM: usize = 4096;

/// Where a stream stands in its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(usize);

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The peer opens streams.
    Server,
    /// We do.
    Client,
}

/// What we tell the peer in SETTINGS, and hold it to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_concurrent_streams: u32,
    pub(super) max_header_list_size: u32,
    pub(super) initial_stream_window: u32,
    pub(super) initial_connection_window: u32,
    /// Unsent body bytes that one stream may hold.
    pub(super) max_send_buffer: usize,
    /// Whether the extended CONNECT is offered (RFC 8441); servers only.
    pub(super) extended_connect: bool,
}

/// What the peer told us in SETTINGS.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerSettings {
    pub(super) max_concurrent_streams: u32,
    pub(super) initial_window: u32,
    pub(super) max_frame_size: u32,
    pub(super) extended_connect: bool,
    /// They have come.
    pub(super) known: bool,
}

/// How a stream that is gone ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Both sides were done.
    Done,
    /// The peer reset it.
    ByPeer,
    /// We reset it; the peer may not have known when it sent what comes late.
    ByUs,
}

/// The shared state.
#[derive(Debug)]
pub(super) struct Mux {
    role: Role,
    limits: Limits,
    /// The peer has answered for our SETTINGS.
    knows_settings: bool,
    pub(super) peer: PeerSettings,
    encoder: Encoder,
    decoder: Decoder,
    out: Output,
    send_window: SendWindow,
    /// The send window was used up then, and was not opened since.
    used_up: Option<Instant>,
    receive_window: ReceiveWindow,
    streams: Slab<Stream>,
    /// Identifier and place of each stream, by identifier.
    index: Vec<(u32, usize)>,
    ended: VecDeque<(u32, Ending)>,
    /// The highest identifier of a stream that has ended and is not remembered any more.
    forgotten: u32,
    /// Streams with something to send that wait for the connection, in turn.
    queue: VecDeque<usize>,
    /// Bodies are held back for want of more than a sliver of a window.
    held: bool,
    /// When the next tick of those is due.
    hold_due: Option<Instant>,
    /// The peer was waited for in vain: its windows are used up however little is open.
    eager: bool,
    /// Streams whose answers are complete and whose requests are not, and until when they are waited for.
    lingering: VecDeque<(Key, u32, Instant)>,
    ledger: Ledger,
    /// Why this end has given the connection up; `None` while it has not.
    given_up: Option<Reason>,
    /// The peer has erred so often that it gets no more streams, and the log was not told yet.
    pub(super) shunned: bool,
    /// The highest identifier of a request that is or was served.
    highest: u32,
    /// The highest identifier that the peer has used, beyond our GOAWAY too.
    seen: u32,
    next_id: u32,
    /// The last stream that is served, once the peer was told so.
    goaway_sent: Option<u32>,
    /// The last stream that the peer has processed, once it has said that it takes no more.
    goaway_received: Option<u32>,
    /// The peer has answered the PING that was sent with the first GOAWAY.
    pub(super) ping_answered: bool,
    closed: bool,
    driver: Option<Waker>,
    io: Rc<WorkerIo>,
}

impl Mux {
    /// A new connection; its SETTINGS are the first output.
    pub(super) fn new(role: Role, limits: Limits, ledger: Ledger, io: Rc<WorkerIo>) -> Self {
        let mut out = io.buffers.take();
        if role == Role::Client {
            out.extend_from_slice(frame::preface::PREFACE);
        }
        let common = [
            (SettingId::INITIAL_WINDOW_SIZE, limits.initial_stream_window),
            (SettingId::MAX_HEADER_LIST_SIZE, limits.max_header_list_size),
        ];
        match role {
            Role::Client => {
                let [a, b] = common;
                frame::write::settings(&mut out, &[(SettingId::ENABLE_PUSH, 0), a, b]);
            }
            Role::Server => {
                let [a, b] = common;
                let most = (SettingId::MAX_CONCURRENT_STREAMS, limits.max_concurrent_streams);
                let connect = (SettingId::ENABLE_CONNECT_PROTOCOL, u32::from(limits.extended_connect));
                let entries = [most, a, b, connect];
                let entries =
                    if limits.extended_connect { &entries[..] } else { entries.get(..3).unwrap_or(&[]) };
                frame::write::settings(&mut out, entries);
            }
        }
        let mut receive_window = ReceiveWindow::new(DEFAULT_WINDOW);
        if let Some(more) = receive_window.grow(limits.initial_connection_window) {
            frame::write::window_update(&mut out, 0, more);
        }
        Self {
            role,
            limits,
            knows_settings: false,
            peer: PeerSettings {
                max_concurrent_streams: 100,
                initial_window: DEFAULT_WINDOW,
                max_frame_size: frame::DEFAULT_MAX_FRAME_SIZE,
                extended_connect: false,
                known: false,
            },
            encoder: Encoder::new(),
            decoder: Decoder::new(DEFAULT_TABLE_SIZE),
            out: Output::new(out),
            send_window: SendWindow::new(DEFAULT_WINDOW),
            used_up: None,
            receive_window,
            streams: Slab::new(),
            index: Vec::new(),
            ended: VecDeque::new(),
            forgotten: 0,
            queue: VecDeque::new(),
            held: false,
            hold_due: None,
            eager: false,
            lingering: VecDeque::new(),
            ledger,
            given_up: None,
            shunned: false,
            highest: 0,
            seen: 0,
            next_id: 1,
            goaway_sent: None,
            goaway_received: None,
            ping_answered: false,
            closed: false,
            driver: None,
            io,
        }
    }

    /// Streams that have an exchange behind them.
    pub(super) fn active(&self) -> usize {
        self.streams.len()
    }

    /// Responses that have begun and were not sent to their end.
    pub(super) fn unfinished(&self) -> usize {
        let streams = self.streams.iter().map(|(_, stream)| stream);
        streams.filter(|stream| stream.answered && !stream.sent_end && stream.reset.is_none()).count()
    }

    /// Whether a new stream may be opened from this end.
    pub(super) fn takes_streams(&self) -> bool {
        let most = self.peer.max_concurrent_streams.min(self.limits.max_concurrent_streams);
        !self.closed
            && self.goaway_received.is_none()
            && self.goaway_sent.is_none()
            && self.next_id < MAX_STREAM_ID
            && self.streams.len() < usize::try_from(most).unwrap_or(usize::MAX)
    }

    /// Whether new streams may ever be opened from this end again.
    pub(super) fn is_retired(&self) -> bool {
        self.closed
            || self.goaway_received.is_some()
            || self.goaway_sent.is_some()
            || self.next_id >= MAX_STREAM_ID
    }

    /// Whether the peer's window for the whole connection is open.
    pub(super) fn can_send(&self) -> bool {
        self.send_window.available() > 0
    }

    /// Whether the peer has left its window for the whole connection shut for so long that a body would not get on: some stream's body is
    /// not read there.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        self.used_up.is_some_and(|since| now >= since + STUCK)
    }

    /// Whether the peer has acknowledged our SETTINGS.
    pub(super) fn knows_settings(&self) -> bool {
        self.knows_settings
    }

    /// Whether the peer has opened a stream ever, and be it one that was refused.
    pub(super) fn was_asked(&self) -> bool {
        self.seen > 0
    }

    /// Streams that were opened from this end.
    pub(super) fn opened(&self) -> u32 {
        self.next_id / 2
    }

    /// Of the streams that were opened from this end, how many the peer had processed when it turned others away.
    pub(super) fn served(&self) -> Option<u32> {
        let answers_ours = self.goaway_sent.is_some();
        self.goaway_received
            .map(|last| last.div_ceil(2))
            .filter(|served| *served < self.opened() && !answers_ours)
    }

    /// Opens a stream from this end.
    pub(super) fn open(&mut self) -> Key {
        let id = self.next_id;
        self.next_id = self.next_id.saturating_add(2);
        self.ledger.request();
        self.insert(id)
    }

    fn insert(&mut self, id: u32) -> Key {
        let stream = Stream::new(
            id,
            ReceiveWindow::new(self.limits.initial_stream_window),
            SendWindow::new(self.peer.initial_window),
        );
        let key = self.streams.insert(stream);
        // Identifiers only grow.
        self.index.push((id, key));
        Key(key)
    }

    #[inline]
    pub(super) fn stream(&mut self, key: Key) -> Option<&mut Stream> {
        self.streams.get_mut(key.0)
    }

    fn find(&self, id: u32) -> Option<Key> {
        let at = self.index.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.index.get(at).map(|(_, key)| Key(*key))
    }

    /// Resets a stream for what the peer did; its exchange finds out, and goes on to count until it has ended.
    pub(super) fn reset(&mut self, key: Key, code: ErrorCode) {
        let Some(stream) = self.streams.get_mut(key.0) else { return };
        match stream.reset {
            None => {
                stream.reset = Some(Reset::Ours(code));
                stream.wake();
            }
            // The peer goes on with a stream that it has reset, and is told again and again (RFC 9113 §5.1), at its own cost.
            Some(Reset::Peer(_)) => {}
            Some(_) => return,
        }
        let id = stream.id;
        frame::write::rst_stream(&mut self.out.frames, id, code);
        self.reap(key);
    }

    /// Charges the peer for `what`.
    pub(super) fn charge(&mut self, what: Charge, now: Instant) -> Result<(), FrameError> {
        calm(self.ledger.charge(what, now.into_std()))
    }

    /// How many of `what` the peer was charged for, with one that is too many.
    pub(super) fn count(&self, what: Charge) -> u32 {
        self.ledger.count(what)
    }

    /// Remembers why this end gives the connection up: the first reason is the one that counts.
    pub(super) fn give_up(&mut self, why: Reason) {
        self.given_up.get_or_insert(why);
    }

    /// Why a stream has ended before both sides were done; `None` while it has not.
    #[inline]
    pub(super) fn gone(&self, key: Key) -> Option<Gone> {
        let Some(stream) = self.streams.get(key.0) else { return Some(Gone::Closed) };
        Some(match stream.reset? {
            Reset::Peer(code) => Gone::Reset(code.reset()),
            Reset::Ours(_) => Gone::GivenUp(Reason::ProtocolError),
            Reset::Unprocessed { .. } => Gone::Reset(ErrorCode::REFUSED_STREAM.reset()),
            Reset::Connection => self.given_up.map_or(Gone::Closed, Gone::GivenUp),
        })
    }

    /// Says that no stream after the last one so far will be served; with `graceful`, that there will soon be none. An error is told
    /// to a peer that knows the last stream already as well.
    pub(super) fn go_away(&mut self, graceful: bool, code: ErrorCode, debug: &str) {
        let mut last = if graceful { MAX_STREAM_ID } else { self.highest };
        if let Some(sent) = self.goaway_sent.filter(|sent| *sent <= last) {
            if code == ErrorCode::NO_ERROR {
                return;
            }
            // A stream that was turned away is not taken back (RFC 9113 §6.8).
            last = sent;
        }
        if self.closed {
            return;
        }
        self.goaway_sent = Some(last);
        frame::write::goaway(&mut self.out.frames, last, code, debug.as_bytes());
        if graceful {
            frame::write::ping(&mut self.out.frames, GOAWAY_PING);
        }
        self.wake_driver();
    }

    /// Ends the connection for all streams.
    pub(super) fn close(&mut self) {
        self.closed = true;
        for (_, stream) in &mut self.streams {
            if !stream.is_closed() {
                stream.reset = Some(Reset::Connection);
            }
            stream.wake();
        }
        self.wake_driver();
    }

    /// Asks whether the peer is there.
    pub(super) fn ping(&mut self, data: [u8; 8]) {
        frame::write::ping(&mut self.out.frames, data);
    }

    /// Keeps the waker of the task that reads and writes the socket.
    pub(super) fn set_driver(&mut self, waker: &Waker) {
        match &mut self.driver {
            Some(driver) => driver.clone_from(waker),
            None => self.driver = Some(waker.clone()),
        }
    }

    /// Lets the connection's task write what there is to write, after the tasks that are ready now.
    #[inline]
    pub(super) fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// Whether any stream is open, or its end not yet noticed.
    pub(super) fn has_streams(&self) -> bool {
        !self.streams.is_empty()
    }

    /// Gives buffers back while the connection is idle.
    pub(super) fn rest(&mut self) {
        if self.out.frames.is_empty() {
            self.io.buffers.put(&mut self.out.frames);
        }
        if self.streams.is_empty() {
            self.streams.shrink_to_fit();
            self.index.shrink_to_fit();
            self.queue.shrink_to_fit();
        }
    }
}

/// What a verdict of the ledger means for the connection.
#[inline]
fn calm(verdict: Verdict) -> Result<(), FrameError> {
    match verdict {
        Verdict::Fine => Ok(()),
        Verdict::TooMuch(what) => Err(FrameError::excess(Scope::Connection, what.budget().reason)),
    }
}

/// How long the window of a connection is shut before its peer is taken for one that does not read: several round trips of a far peer.
const STUCK: Duration = Duration::from_millis(500);

/// The highest stream identifier, and the last stream of a graceful GOAWAY.
const MAX_STREAM_ID: u32 = 0x7fff_ffff;

/// The PING that tells when a graceful GOAWAY has reached the peer.
pub(super) const GOAWAY_PING: [u8; 8] = *b"goaway\0\0";

#[cfg(test)]
mod tests;
