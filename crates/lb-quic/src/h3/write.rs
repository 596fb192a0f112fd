//! What an exchange says on its stream: frames, given to quiche as its windows allow.

use std::task::{Context, Poll};

use bytes::Bytes;
use lb_http::h3::{H3Code, write};
use lb_http::message::Gone;

use super::stream::Stream;
use crate::connection::Quic;
use crate::lent;

/// Below this, a copy costs less than lending the memory.
const LENT: usize = 2048;

/// Bytes of the header of a DATA frame, at most.
const DATA_HEADER: usize = 9;

/// Bytes of a response that had better be given at once, whatever the windows say.
const LEAST_ROOM: usize = 4096;

/// Bytes that a stream holds at most for its peer: what one read brings.
const MOST_ROOM: usize = 64 * 1024;

/// An empty frame of a type that is reserved to be ignored.
const RESERVED_FRAME: &[u8] = &[0x21, 0];

impl Stream {
    /// Adds body bytes in a DATA frame.
    pub(super) fn say_data(&mut self, bytes: &[u8]) {
        if self.gone.is_some() || bytes.is_empty() {
            return;
        }
        lent::make_room(&mut self.pending, bytes.len().saturating_add(DATA_HEADER));
        write::data_header(u64::try_from(bytes.len()).unwrap_or(u64::MAX), &mut self.pending);
        self.pending.extend_from_slice(bytes);
    }

    /// Gives quiche what it takes.
    pub(super) fn give(&mut self, quic: &mut Quic, id: u64) -> Result<(), Gone> {
        if let Some(gone) = self.gone {
            return Err(gone);
        }
        if let Some(rest) = self.rest.take() {
            self.lend(quic, id, rest)?;
        }
        if self.ends && !self.has_ended && self.rest.is_none() && self.pending.is_empty() {
            // quiche forgets a stream when all of its bytes are acknowledged, even where the end has not been sent yet or was lost
            // (cloudflare/quiche#2525). So the end never travels alone: a reserved frame goes with it, which means nothing (RFC 9114 §7.2.8).
            self.pending.extend_from_slice(RESERVED_FRAME);
        }
        if self.rest.is_none() && !self.pending.is_empty() {
            if self.pending.len() < LENT {
                self.copy(quic, id)?;
            } else {
                let bytes = lent::lend(std::mem::take(&mut self.pending));
                self.lend(quic, id, bytes)?;
            }
        }
        Ok(())
    }

    fn copy(&mut self, quic: &mut Quic, id: u64) -> Result<(), Gone> {
        let taken = self.sent(quic.stream_send(id, &self.pending, self.ends))?;
        if taken == self.pending.len() {
            self.has_ended = self.ends;
            self.pending.clear();
        } else {
            self.pending.drain(..taken);
        }
        Ok(())
    }

    fn lend(&mut self, quic: &mut Quic, id: u64, bytes: Bytes) -> Result<(), Gone> {
        let fin = self.ends && self.pending.is_empty();
        // A copy of the handle: what an error leaves behind is still to be sent.
        match quic.stream_send_zc(id, bytes.clone(), fin) {
            Ok((taken, rest)) => {
                self.sent(Ok(taken))?;
                self.rest = rest.filter(|rest| !rest.is_empty());
                self.has_ended = fin && self.rest.is_none();
                Ok(())
            }
            Err(quiche::Error::Done) => {
                self.rest = Some(bytes);
                Ok(())
            }
            Err(error) => self.sent(Err(error)).map(drop),
        }
    }

    /// What became of a send.
    fn sent(&mut self, result: quiche::Result<usize>) -> Result<usize, Gone> {
        let gone = match result {
            Ok(taken) => {
                let bytes = u64::try_from(taken).unwrap_or(u64::MAX);
                self.traffic.sent = self.traffic.sent.saturating_add(bytes);
                return Ok(taken);
            }
            Err(quiche::Error::Done) => return Ok(0),
            Err(quiche::Error::StreamStopped(code)) => Gone::Reset(H3Code(code).reset()),
            Err(_) => Gone::Closed,
        };
        self.is_gone(gone);
        Err(gone)
    }

    /// Gives quiche everything, as its windows open.
    pub(super) fn poll_given(
        &mut self,
        cx: &Context<'_>,
        quic: &mut Quic,
        id: u64,
    ) -> Poll<Result<(), Gone>> {
        self.give(quic, id)?;
        if self.is_flushed() {
            return Poll::Ready(Ok(()));
        }
        self.wait(cx);
        // The stream is told when there is room for a part that is worth a wake.
        let left = self.rest.as_ref().map_or(self.pending.len(), Bytes::len);
        match quic.stream_writable(id, left.clamp(1, LEAST_ROOM)) {
            // There was room in the meantime.
            Ok(true) => cx.waker().wake_by_ref(),
            Ok(false) => {}
            Err(error) => return Poll::Ready(self.sent(Err(error)).map(drop)),
        }
        Poll::Pending
    }

    /// Bytes that may be given without that much waits here; little where memory `is_scarce`.
    pub(super) fn room(quic: &mut Quic, id: u64, is_scarce: bool) -> usize {
        let most = if is_scarce { LEAST_ROOM } else { MOST_ROOM };
        quic.stream_capacity(id).unwrap_or(0).clamp(LEAST_ROOM, most)
    }
}
