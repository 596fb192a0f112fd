//! What the streams send: heads at once, bodies as far as windows and output go.

use std::task::{Context, Poll};

use lb_core::head::{Fields, RequestHead, ResponseHead};
use tokio::time::Instant;

use super::output::{HIGH_WATER, length};
use super::{Key, LEAST_ROOM, Mux};
use crate::h2::frame::HEADER_LENGTH;
use crate::h2::frame::{self, header::END_STREAM};
use crate::h2::stream::{Hold, Last};
use crate::message::Gone;
use crate::section::encode;

/// Bytes of body that one stream sends before the others get their turn.
const QUANTUM: usize = 32 * 1024;

impl Mux {
    /// Sends a response head. `end` says that nothing follows.
    pub(crate) fn send_response(&mut self, key: Key, head: &ResponseHead, end: bool) {
        if let Some(stream) = self.streams.get_mut(key.0).filter(|_| !head.is_interim())
            && !std::mem::replace(&mut stream.answered, true)
        {
            self.ledger.request();
        }
        self.send_block(key, end, |encoder, out| encode::response(head, encoder, out));
    }

    /// Sends a request head. `end` says that nothing follows.
    pub(crate) fn send_request(&mut self, key: Key, head: &RequestHead, scheme: &[u8], end: bool) {
        self.send_block(key, end, |encoder, out| encode::request(head, scheme, encoder, out));
    }

    fn send_block(
        &mut self,
        key: Key,
        end: bool,
        encode: impl FnOnce(&mut crate::h2::hpack::Encoder, &mut Vec<u8>),
    ) {
        let Some(stream) = self.streams.get_mut(key.0) else { return };
        if stream.reset.is_some() || stream.sent_end {
            return;
        }
        let before = self.out.end();
        stream.head_at.get_or_insert(before);
        let frame = frame::write::headers(&mut self.out.frames);
        encode(&mut self.encoder, &mut self.out.frames);
        frame.end(&mut self.out.frames, stream.id, end, self.peer.max_frame_size);
        stream.traffic.sent = stream.traffic.sent.saturating_add(self.out.end().saturating_sub(before));
        if end {
            stream.sent_end = true;
            stream.last = Last::Done;
        }
        self.wake_driver();
    }

    /// Whether any byte of a stream from this end was handed to the kernel.
    pub(in crate::h2) fn has_left(&self, key: Key) -> bool {
        let head_at = self.streams.get(key.0).and_then(|stream| stream.head_at);
        head_at.is_some_and(|head_at| self.out.has_left(head_at))
    }

    /// Takes body bytes. What cannot leave now waits in the stream.
    pub(crate) fn send_data(&mut self, key: Key, bytes: &[u8]) {
        let Some(stream) = self.streams.get_mut(key.0) else { return };
        if stream.reset.is_some() || !matches!(stream.last, Last::Open) || bytes.is_empty() {
            return;
        }
        let mut rest = bytes;
        if stream.unsent() == 0 {
            let left = self.frame_data(key, bytes);
            rest = bytes.get(bytes.len().saturating_sub(left)..).unwrap_or(&[]);
            self.wake_driver();
        }
        if !rest.is_empty() {
            let Some(stream) = self.streams.get_mut(key.0) else { return };
            if stream.pending.capacity() == 0 {
                stream.pending = self.io.buffers.take();
            }
            stream.pending.extend_from_slice(rest);
            self.enqueue(key);
        }
    }

    /// Writes frames of `bytes` as far as the windows and the output go, and returns how many bytes are left.
    fn frame_data(&mut self, key: Key, bytes: &[u8]) -> usize {
        let most = usize::try_from(self.peer.max_frame_size).unwrap_or(usize::MAX);
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(stream) = self.streams.get_mut(key.0) else { break };
            let wanted = rest.len().min(most);
            let room = HIGH_WATER.saturating_sub(self.out.unsent().len());
            let open = stream.send_window.available().min(self.send_window.available()) as usize;
            let n = wanted.min(room).min(open);
            if n == 0 || (n == open && n < wanted && self.holds(key)) {
                break;
            }
            let Some(stream) = self.streams.get_mut(key.0) else { break };
            stream.hold = Hold::None;
            let (now, later) = rest.split_at_checked(n).unwrap_or((rest, &[]));
            stream.last_data = Some(self.out.end());
            frame::write::data_header(&mut self.out.frames, stream.id, n, false);
            self.out.frames.extend_from_slice(now);
            let taken = u32::try_from(n).unwrap_or(u32::MAX);
            stream.send_window.take(taken);
            self.send_window.take(taken);
            if self.send_window.available() == 0 {
                self.used_up = Some(Instant::now());
            }
            self.ledger.data_sent(taken);
            stream.traffic.sent = stream.traffic.sent.saturating_add(length(n.saturating_add(HEADER_LENGTH)));
            rest = later;
        }
        rest.len()
    }

    /// The body is complete.
    pub(crate) fn send_end(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key.0) else { return };
        if !matches!(stream.last, Last::Open) {
            return;
        }
        stream.last = Last::End;
        if stream.unsent() == 0 {
            self.finish(key);
        }
    }

    /// The body is complete, and these are its trailers.
    pub(crate) fn send_trailers(&mut self, key: Key, fields: &Fields) {
        let Some(stream) = self.streams.get_mut(key.0) else { return };
        if !matches!(stream.last, Last::Open) {
            return;
        }
        stream.last = Last::Trailers(Box::new(fields.clone()));
        if stream.unsent() == 0 {
            self.finish(key);
        }
    }

    /// Sends what follows the body, which has left.
    fn finish(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key.0) else { return };
        if stream.reset.is_some() {
            stream.last = Last::Done;
            return;
        }
        match std::mem::take(&mut stream.last) {
            Last::Open => return,
            Last::Done => {}
            Last::End => {
                // The last DATA frame may still stand in the output: it carries the end then.
                let frame = stream.last_data.and_then(|place| self.out.frame_at(place));
                match frame.and_then(|frame| frame.get_mut(FLAGS_AT)) {
                    Some(flags) => *flags |= END_STREAM,
                    None => frame::write::data_header(&mut self.out.frames, stream.id, 0, true),
                }
            }
            Last::Trailers(fields) => {
                let frame = frame::write::headers(&mut self.out.frames);
                encode::trailers(&fields, &mut self.encoder, &mut self.out.frames);
                frame.end(&mut self.out.frames, stream.id, true, self.peer.max_frame_size);
            }
        }
        stream.last = Last::Done;
        stream.sent_end = true;
        self.wake_driver();
    }

    fn enqueue(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(key.0).filter(|stream| !stream.queued) {
            stream.queued = true;
            self.queue.push_back(key.0);
        }
    }

    /// Sends what waits in the streams, a quantum of each in turn. Those whose own window is closed leave the queue until it opens.
    pub(crate) fn send_queued(&mut self) {
        let mut moved = false;
        self.held = false;
        for _ in 0..self.queue.len() {
            if self.output().len() >= HIGH_WATER || self.send_window.available() == 0 {
                break;
            }
            let Some(at) = self.queue.pop_front() else { break };
            moved |= self.send_pending(Key(at));
        }
        if moved {
            self.wake_driver();
        }
    }

    fn send_pending(&mut self, key: Key) -> bool {
        let Some(stream) = self.streams.get_mut(key.0) else { return false };
        stream.queued = false;
        if stream.reset.is_some() {
            return false;
        }
        let mut pending = std::mem::take(&mut stream.pending);
        let from = stream.pending_at;
        let all = pending.get(from..).unwrap_or(&[]);
        let part = all.get(..QUANTUM).unwrap_or(all);
        let left = self.frame_data(key, part);
        let n = part.len().saturating_sub(left);
        let at = from.saturating_add(n);
        let empty = at >= pending.len();
        if empty {
            pending.clear();
            self.io.buffers.put(&mut pending);
        }
        let Some(stream) = self.streams.get_mut(key.0) else { return n > 0 };
        stream.pending = pending;
        stream.pending_at = if empty { 0 } else { at };
        if empty {
            stream.wake();
            self.finish(key);
        } else if stream.send_window.available() > 0 {
            self.enqueue(key);
        }
        n > 0
    }

    /// The peer's window for this stream has opened.
    pub(super) fn resume(&mut self, key: Key) {
        if self.streams.get(key.0).is_some_and(|stream| stream.unsent() > 0) {
            self.enqueue(key);
        }
    }

    /// Ready when nothing of the stream waits any more. Its output may still wait for the socket, but not more than
    /// [`HIGH_WATER`] of all streams together.
    pub(crate) fn poll_flush(&mut self, key: Key, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        if let Some(gone) = self.gone(key) {
            return Poll::Ready(Err(gone));
        }
        let Some(stream) = self.streams.get_mut(key.0) else { return Poll::Ready(Err(Gone::Closed)) };
        if stream.is_flushed() {
            return Poll::Ready(Ok(()));
        }
        stream.wait(cx);
        Poll::Pending
    }

    /// How much the stream had better be given at once.
    pub(crate) fn room(&self, key: Key) -> usize {
        let Some(stream) = self.streams.get(key.0) else { return LEAST_ROOM };
        let window = stream.send_window.available().min(self.send_window.available());
        let output = HIGH_WATER.saturating_sub(self.output().len());
        (window as usize).min(output).min(self.limits.max_send_buffer).max(LEAST_ROOM)
    }
}

/// Where the flags stand in a frame.
const FLAGS_AT: usize = 4;
