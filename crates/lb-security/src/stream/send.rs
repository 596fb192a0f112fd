//! Data from the caller, through rustls, to the socket.

use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use super::{Side, State, TlsStream, engine};
use crate::failure::TlsFailure;

/// Data in one record (RFC 8446 §5.1).
const RECORD: usize = 16_384;

/// Data that one call takes at most.
const MAX_TAKE: usize = 4 * RECORD;

/// Ciphertext that may wait and still leave together with data; more is sent first.
const JOINS: usize = 4096;

impl TlsStream {
    /// Takes some of `bytes`, as [`Self::poll_send_vectored`].
    #[inline]
    pub fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send_vectored(cx, &[IoSlice::new(bytes)])
    }

    /// Takes some of several slices, seals them, short ones together in one record, and sends what the socket takes. What it did
    /// not take waits: see [`Self::poll_flush`]. Nothing is taken before what waits is gone.
    pub fn poll_send_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.state {
            State::Established | State::PeerClosed if !self.write_shut => {}
            State::Failed(failure) => return Poll::Ready(Err(failure.error(None))),
            _ => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
        if self.is_blocked || self.out.len().saturating_sub(self.sent) > JOINS {
            ready!(self.poll_out(cx))?;
        }
        let io = Rc::clone(&self.io);
        let mut outgoing = io.outgoing.borrow_mut();
        let (gather, sealed) = outgoing.bytes_mut().split_at_mut_checked(RECORD).unwrap_or_default();
        // A handshake's last records, or the answer to a key update, go in front.
        let waiting = self.out.get(self.sent..).unwrap_or_default();
        let mut length = waiting.len();
        if let Some(front) = sealed.get_mut(..length) {
            front.copy_from_slice(waiting);
        }
        let mut taken = 0usize;
        let mut source = Source::new(slices);
        while let Some(data) = source.next(MAX_TAKE.saturating_sub(taken), gather) {
            let to = sealed.get_mut(length..).unwrap_or_default();
            let n = match &mut self.side {
                Side::Server(server) => engine::seal(server.as_mut(), &mut self.held, data, to),
                Side::Client(client) => engine::seal(client.as_mut(), &mut self.held, data, to),
                Side::Accepting(_) => Err(rustls::Error::HandshakeNotComplete),
            };
            match n {
                Ok(n) => length = length.saturating_add(n),
                Err(error) => return Poll::Ready(Err(self.fail(TlsFailure::Internal, Some(&error)))),
            }
            taken = taken.saturating_add(data.len());
        }
        self.sent = 0;
        self.out.clear();
        let mut rest = sealed.get(..length).unwrap_or_default();
        while !rest.is_empty() {
            match self.tcp.poll_send(cx, rest) {
                Poll::Ready(Ok(n)) => rest = rest.get(n..).unwrap_or_default(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if self.out.capacity() == 0 {
                        self.out = io.buffers.take();
                    }
                    self.out.extend_from_slice(rest);
                    self.is_blocked = true;
                    return Poll::Ready(Ok(taken));
                }
            }
        }
        io.buffers.put(&mut self.out);
        Poll::Ready(Ok(taken))
    }

    /// Sends what waits, and FIN once [`Self::shutdown_write`] was called.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.sent < self.out.len() || self.fin_follows { self.poll_out(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Ends the data of this side: close_notify, then FIN. Where the socket does not take it at once, [`Self::poll_flush`] goes on with it.
    /// The peer's own data may still arrive.
    ///
    /// # Errors
    /// That of the socket.
    pub fn shutdown_write(&mut self) -> io::Result<()> {
        if self.write_shut {
            return Ok(());
        }
        self.write_shut = true;
        if matches!(self.state, State::Established | State::PeerClosed) {
            let mut alert = [0u8; 256];
            let n = match &mut self.side {
                Side::Server(server) => engine::close_notify(server.as_mut(), &mut self.held, &mut alert),
                Side::Client(client) => engine::close_notify(client.as_mut(), &mut self.held, &mut alert),
                Side::Accepting(_) => Ok(0),
            };
            let n = n.map_err(|error| self.fail(TlsFailure::Internal, Some(&error)))?;
            if self.out.capacity() == 0 {
                self.out = self.io.buffers.take();
            }
            self.out.extend_from_slice(alert.get(..n).unwrap_or_default());
        }
        self.fin_follows = true;
        match self.poll_out(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Sends all of `out`.
    pub(super) fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.tcp.poll_send(cx, rest) {
                Poll::Ready(n) => self.sent = self.sent.saturating_add(n?),
                Poll::Pending => {
                    self.is_blocked = true;
                    return Poll::Pending;
                }
            }
        }
        self.is_blocked = false;
        self.sent = 0;
        self.io.buffers.put(&mut self.out);
        if self.fin_follows {
            self.fin_follows = false;
            self.tcp.shutdown_write()?;
        }
        Poll::Ready(Ok(()))
    }
}

/// Cuts slices into what is sealed together.
struct Source<'a, 'b> {
    slices: &'a [IoSlice<'b>],
    /// Where in the first of them the rest begins.
    at: usize,
}

impl<'a, 'b> Source<'a, 'b> {
    fn new(slices: &'a [IoSlice<'b>]) -> Self {
        Self { slices, at: 0 }
    }

    /// The next piece, of `most` bytes at most: several records' worth where one slice has it, else up to one record, put
    /// together in `gather`.
    fn next<'g>(&mut self, most: usize, gather: &'g mut [u8]) -> Option<&'g [u8]>
    where
        'a: 'g,
    {
        while let Some((first, others)) = self.slices.split_first() {
            if self.at < first.len() {
                break;
            }
            (self.slices, self.at) = (others, 0);
        }
        let (first, others) = self.slices.split_first()?;
        if most == 0 {
            return None;
        }
        let rest = first.get(self.at..).unwrap_or_default();
        if others.iter().all(|slice| slice.is_empty()) || rest.len() >= RECORD {
            let whole = if rest.len() > RECORD && !others.is_empty() {
                rest.len() / RECORD * RECORD
            } else {
                rest.len()
            };
            let n = whole.min(most);
            self.at = self.at.saturating_add(n);
            return rest.get(..n);
        }
        let most = most.min(gather.len());
        let mut filled = 0usize;
        while let Some((first, others)) = self.slices.split_first() {
            let rest = first.get(self.at..).unwrap_or_default();
            let n = rest.len().min(most.saturating_sub(filled));
            if n == 0 && !rest.is_empty() {
                break;
            }
            if let (Some(to), Some(from)) = (gather.get_mut(filled..filled.saturating_add(n)), rest.get(..n))
            {
                to.copy_from_slice(from);
            }
            filled = filled.saturating_add(n);
            self.at = self.at.saturating_add(n);
            if self.at >= first.len() {
                (self.slices, self.at) = (others, 0);
            }
        }
        gather.get(..filled)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(slices: &[Vec<u8>], most: usize) -> Vec<Vec<u8>> {
        let slices: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        let mut source = Source::new(&slices);
        let mut gather = vec![0; RECORD];
        let (mut taken, mut pieces) = (0, Vec::new());
        while let Some(piece) = source.next(most - taken, &mut gather) {
            taken += piece.len();
            pieces.push(piece.to_vec());
        }
        pieces
    }

    proptest! {
        #[test]
        fn pieces_are_the_slices_in_order_up_to_the_cap(
            lengths in proptest::collection::vec(prop_oneof![0usize..50, 16_000usize..40_000], 0..6),
            most in 1usize..MAX_TAKE,
        ) {
            let slices: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(i, n)| (0..*n).map(|at| (at + i) as u8).collect()).collect();
            let all = slices.concat();
            let pieces = pieces(&slices, most);
            prop_assert!(pieces.iter().all(|piece| !piece.is_empty()));
            prop_assert_eq!(pieces.concat(), all[..all.len().min(most)].to_vec());
        }
    }

    #[test]
    fn a_head_and_a_small_body_are_one_record() {
        assert_eq!(pieces(&[vec![1; 200], vec![2; 3000]], MAX_TAKE).len(), 1);
        assert_eq!(pieces(&[vec![1; 200], vec![], vec![]], MAX_TAKE).len(), 1);
        assert_eq!(pieces(&[vec![1; 40_000]], MAX_TAKE).len(), 1, "cut into records by rustls");
    }
}
