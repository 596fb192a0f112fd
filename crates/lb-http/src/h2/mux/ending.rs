//! How streams end, and what is known of them afterwards.

use std::time::Duration;

use tokio::time::Instant;

use super::{Ending, Key, Mux};
use crate::h2::frame::{self, ErrorCode};
use crate::h2::stream::Reset;

/// Streams that ended lately are remembered, so that a late frame is told from a wrong one.
const REMEMBERED: usize = 512;

/// How long the end of a request is waited for when its answer is complete.
const LINGER: Duration = Duration::from_secs(1);

impl Mux {
    /// The exchange behind a stream has ended. What the peer still sends on it is thrown away; a stream that is not complete is reset
    /// with `code`.
    pub(in crate::h2) fn leave(&mut self, key: Key, code: ErrorCode) {
        let Some(stream) = self.streams.get_mut(key.0) else { return };
        if code == ErrorCode::NO_ERROR && stream.sent_end && !stream.is_closed() && !self.closed {
            // The answer is complete, and the end of the request is likely on its way. Some clients throw an answer away when a reset
            // follows it, though they should not (RFC 9113 §8.1): the reset waits for a moment.
            stream.lingers = true;
            let unread = u32::try_from(stream.inbox.len()).unwrap_or(u32::MAX);
            self.io.buffers.put(&mut stream.inbox);
            self.lingering.push_back((key, stream.id, Instant::now() + LINGER));
            self.release_connection(unread);
            self.wake_driver();
            return;
        }
        self.remove(key, code);
    }

    /// Ends a stream that lingers, once the peer has ended it.
    pub(super) fn reap(&mut self, key: Key) {
        if self.streams.get(key.0).is_some_and(|stream| stream.lingers && stream.is_closed()) {
            self.remove(key, ErrorCode::NO_ERROR);
        }
    }

    /// When the next stream has lingered for long enough.
    pub(in crate::h2) fn lingers_until(&self) -> Option<Instant> {
        self.lingering.front().map(|(_, _, until)| *until)
    }

    /// Resets the streams that have lingered for long enough.
    pub(in crate::h2) fn end_lingering(&mut self, now: Instant) {
        while let Some((key, id, _)) = self.next_lingering(now) {
            if self.streams.get(key.0).is_some_and(|stream| stream.lingers && stream.id == id) {
                self.remove(key, ErrorCode::NO_ERROR);
            }
        }
    }

    pub(super) fn next_lingering(&mut self, now: Instant) -> Option<(Key, u32, Instant)> {
        self.lingers_until().filter(|until| *until <= now)?;
        self.lingering.pop_front()
    }

    pub(super) fn remove(&mut self, key: Key, code: ErrorCode) {
        let Some(stream) = self.streams.try_remove(key.0) else { return };
        if let Ok(at) = self.index.binary_search_by_key(&stream.id, |(id, _)| *id) {
            self.index.remove(at);
        }
        if stream.queued {
            self.queue.retain(|queued| *queued != key.0);
        }
        let unread = u32::try_from(stream.inbox.len()).unwrap_or(u32::MAX);
        self.release_connection(unread);
        let ending = match stream.reset {
            None if stream.is_closed() => Ending::Done,
            None => {
                if !self.closed {
                    frame::write::rst_stream(&mut self.out.frames, stream.id, code);
                }
                Ending::ByUs
            }
            Some(Reset::Peer(_)) => Ending::ByPeer,
            Some(_) => Ending::ByUs,
        };
        self.remember(stream.id, ending);
        let mut inbox = stream.inbox;
        self.io.buffers.put(&mut inbox);
        let mut pending = stream.pending;
        self.io.buffers.put(&mut pending);
        self.wake_driver();
    }

    /// Whether a stream of this identifier may have been there and is no longer remembered.
    pub(super) fn has_forgotten(&self, id: u32) -> bool {
        id <= self.forgotten
    }

    pub(super) fn remember(&mut self, id: u32, ending: Ending) {
        if self.ended.len() >= REMEMBERED
            && let Some((forgotten, _)) = self.ended.pop_front()
        {
            // Streams do not end in the order in which they began.
            self.forgotten = self.forgotten.max(forgotten);
        }
        self.ended.push_back((id, ending));
    }
}
