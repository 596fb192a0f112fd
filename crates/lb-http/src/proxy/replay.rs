//! The beginning of a request's body, kept while no backend has answered: a backend that speaks HTTP/2 may say that it has not processed a
//! request (RFC 9113 §8.7) when a small body has left long since. A body that is buffered before a backend is chosen is kept here as well.

use std::rc::Rc;
use std::task::{Context, Poll};

use lb_core::head::Fields;

use crate::budget::{BodyBudget, BodyShare};
use crate::message::{Gone, Sink};

/// What is kept of a body without a share in the worker's budget.
pub(super) const FREE_BYTES: usize = 16 * 1024;

/// Bytes that are given to a backend at once.
const PIECE_BYTES: usize = 64 * 1024;

/// What was taken from the client and may have to be sent again.
#[derive(Debug)]
pub(super) struct Replay {
    bytes: Vec<u8>,
    /// Trailer fields that came behind a buffered body.
    trailers: Option<Box<Fields>>,
    /// Something is missing.
    broken: bool,
    /// So many bytes are kept of a body that goes on its way as it comes.
    most: usize,
    /// What is held above [`FREE_BYTES`]; None where nothing ever is.
    share: Option<BodyShare>,
}

impl Replay {
    /// Keeps bodies of up to `most` bytes, within the budget of the worker where that is given; without one, up to [`FREE_BYTES`].
    pub(super) fn new(most: usize, budget: Option<&Rc<BodyBudget>>) -> Self {
        let share = budget.map(BodyShare::new);
        Self { bytes: Vec::new(), trailers: None, broken: false, most, share }
    }

    /// Keeps a piece of the body, if it still belongs to a whole.
    pub(super) fn push(&mut self, piece: &[u8]) {
        if self.broken {
            return;
        }
        let length = self.bytes.len().saturating_add(piece.len());
        if length > self.most || !self.has_room(length, self.most) {
            self.forget();
        } else {
            self.bytes.extend_from_slice(piece);
        }
    }

    /// Keeps a piece of a body that is buffered, whatever it is. Whether more may come: there are no more than `most` bytes, and the worker has room
    /// for more.
    pub(super) fn hold(&mut self, piece: &[u8], most: usize) -> bool {
        let length = self.bytes.len().saturating_add(piece.len());
        let has_room = self.has_room(length, most.max(length));
        self.bytes.extend_from_slice(piece);
        has_room && length <= most
    }

    /// Makes room for so many bytes. A body that grows takes twice the room each time, as far as it may grow, so that what is held is what is
    /// counted.
    fn has_room(&mut self, length: usize, most: usize) -> bool {
        if length <= self.bytes.capacity() {
            return true;
        }
        let wanted = length.max(self.bytes.capacity().saturating_mul(2).min(most));
        let granted = match &mut self.share {
            _ if wanted <= FREE_BYTES => true,
            Some(share) => share.hold(wanted),
            None => false,
        };
        if granted {
            self.bytes.reserve_exact(wanted.saturating_sub(self.bytes.len()));
        }
        granted
    }

    /// Keeps the trailer fields of a body that is buffered.
    fn hold_trailers(&mut self, fields: &Fields) {
        self.trailers = Some(Box::new(fields.clone()));
    }

    /// Keeps nothing of this body, now and later.
    pub(super) fn forget(&mut self) {
        self.broken = true;
        if self.bytes.capacity() > 0 || self.trailers.is_some() || self.share.is_some() {
            (self.bytes, self.trailers, self.share) = (Vec::new(), None, None);
        }
    }

    /// Whether all that was taken of the body is here.
    pub(super) fn is_whole(&self) -> bool {
        !self.broken
    }

    /// Bytes that are here.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether trailer fields are here.
    pub(super) fn has_trailers(&self) -> bool {
        self.trailers.is_some()
    }

    /// Whether a body of which more is to come is kept on from here.
    fn is_within_bounds(&self) -> bool {
        self.bytes.len() <= self.most && self.trailers.is_none()
    }

    /// Sends a piece of what is here again, and moves `at` behind it. Whether that was the last one: then, if the body is `complete`, its end is
    /// sent as well.
    pub(super) fn send(
        &mut self,
        cx: &mut Context<'_>,
        at: &mut usize,
        complete: bool,
        to: &mut impl Sink,
    ) -> bool {
        let rest = self.bytes.get(*at..).unwrap_or_default();
        let piece = rest.get(..PIECE_BYTES).unwrap_or(rest);
        if !piece.is_empty() {
            to.data(cx, piece);
            *at = at.saturating_add(piece.len());
        }
        if *at < self.bytes.len() {
            return false;
        }
        if complete {
            if let Some(trailers) = &self.trailers {
                to.trailers(trailers);
            }
            to.end();
        } else if !self.is_within_bounds() {
            self.forget();
        }
        true
    }
}

/// Keeps a body on its way.
pub(super) struct Keep<'a, S> {
    pub(super) to: &'a mut S,
    pub(super) replay: &'a mut Replay,
}

impl<S: Sink> Sink for Keep<'_, S> {
    #[inline]
    fn data(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        self.replay.push(bytes);
        self.to.data(cx, bytes);
    }

    fn trailers(&mut self, fields: &Fields) {
        self.replay.forget();
        self.to.trailers(fields);
    }

    fn end(&mut self) {
        self.to.end();
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.to.poll_flush(cx)
    }
}

/// Keeps a body for which no backend is chosen yet.
pub(super) struct Hold<'a> {
    pub(super) replay: &'a mut Replay,
    /// So many bytes are waited for.
    pub(super) most: usize,
    /// No more may come.
    pub(super) full: bool,
}

impl Sink for Hold<'_> {
    fn data(&mut self, _: &mut Context<'_>, bytes: &[u8]) {
        self.full |= !self.replay.hold(bytes, self.most);
    }

    fn trailers(&mut self, fields: &Fields) {
        self.replay.hold_trailers(fields);
    }

    fn end(&mut self) {}

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_kept_whole_or_not_at_all() {
        for (most, budget) in [(FREE_BYTES, None), (100_000, Some(BodyBudget::new(100_000)))] {
            let mut replay = Replay::new(most, budget.as_ref());
            replay.push(&vec![0; most - 1]);
            replay.push(&[0; 1]);
            assert!(replay.is_whole() && replay.len() == most && replay.bytes.capacity() == most);
            replay.push(&[0; 1]);
            assert!(!replay.is_whole() && replay.bytes.capacity() == 0);
            replay.push(&[0; 1]);
            assert!(!replay.is_whole() && replay.bytes.capacity() == 0);
            assert!(budget.is_none_or(|budget| budget.used() == 0));
        }
    }

    #[test]
    fn what_is_kept_stays_within_the_budget_of_the_worker() {
        let budget = BodyBudget::new(100_000);
        let mut one = Replay::new(1 << 20, Some(&budget));
        let mut other = Replay::new(1 << 20, Some(&budget));
        for _ in 0..6 {
            one.push(&[0; 10_000]);
            other.push(&[0; 10_000]);
            assert!(budget.used() <= 100_000);
            assert!(
                [&one, &other].into_iter().all(|body| body.bytes.capacity() <= FREE_BYTES.max(budget.used()))
            );
        }
        assert!(one.is_whole() != other.is_whole(), "there is room for one of them");
        // Small bodies need no budget.
        let mut small = Replay::new(1 << 20, Some(&BodyBudget::new(0)));
        small.push(&[0; FREE_BYTES]);
        assert!(small.is_whole());
        small.push(&[0; 1]);
        assert!(!small.is_whole());
        drop((one, other));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_buffered_body_is_complete_or_goes_on() {
        let budget = BodyBudget::new(1 << 20);
        let mut replay = Replay::new(10, Some(&budget));
        assert!(replay.hold(&[0; 50], 100) && replay.hold(&[0; 49], 100));
        assert!(!replay.hold(&[0; 1000], 100), "it is kept, and no more is read");
        assert!(replay.is_whole() && replay.len() == 1099);
        // Where the budget is used up, what has been read is kept as well.
        let mut late = Replay::new(10, Some(&BodyBudget::new(0)));
        assert!(!late.hold(&[0; 20_000], 100_000));
        assert!(late.is_whole() && late.len() == 20_000);
    }
}
