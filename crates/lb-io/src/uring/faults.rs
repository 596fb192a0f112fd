//! Failures on purpose, for tests: the n-th operation that is submitted, or the n-th that completes, fails.

use super::ring::{Completion, Kind, Token};

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingFault {
    /// The n-th operation, from 0, never reaches the kernel.
    Submission(usize),
    /// The n-th completion, from 0, says that its operation failed.
    Completion(usize),
    /// The next call to the kernel says that the ring is unusable.
    Enter,
}

/// Counts operations and makes one of them fail. Cancellations are neither counted nor failed: the kernel does not refuse them.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    plan: Option<(RingFault, i32)>,
    seen: usize,
    happened: Option<Kind>,
    refused: Vec<Completion>,
}

impl Faults {
    /// Has `fault` happen once, with the error `code`, counted from now.
    pub(crate) fn arm(&mut self, fault: RingFault, code: i32) {
        *self =
            Self { plan: Some((fault, code)), refused: std::mem::take(&mut self.refused), ..Self::default() };
    }

    /// Has nothing fail any more, and says what kind of operation has, of what was armed last.
    pub(crate) fn disarm(&mut self) -> Option<Kind> {
        self.plan = None;
        self.happened
    }

    /// Whether what was armed has happened.
    #[cfg(test)]
    pub(crate) fn has_happened(&self) -> bool {
        self.happened.is_some()
    }

    /// Whether this operation is the one that must not reach the kernel.
    pub(super) fn refuses(&mut self, token: Token) -> bool {
        let Some((RingFault::Submission(n), code)) = self.plan else { return false };
        if token.kind == Kind::Cancel {
            return false;
        }
        let is_it = self.seen == n;
        self.seen = self.seen.saturating_add(1);
        if is_it {
            self.plan = None;
            self.happened = Some(token.kind);
            self.refused.push(Completion {
                token,
                result: Err(code),
                accepted: None,
                buffer: None,
                more: false,
                not_empty: false,
            });
        }
        is_it
    }

    /// With which code the ring fails as a whole, if it does.
    pub(super) fn breaks(&mut self) -> Option<i32> {
        let (_, code) = self.plan.take_if(|(fault, _)| *fault == RingFault::Enter)?;
        Some(code)
    }

    /// Whether a refused operation waits to be completed.
    pub(super) fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Changes what was reaped.
    pub(super) fn reaped(&mut self, completed: &mut Vec<Completion>) {
        completed.append(&mut self.refused);
        let Some((RingFault::Completion(n), code)) = self.plan else { return };
        for completion in completed.iter_mut().filter(|completion| completion.token.kind != Kind::Cancel) {
            if self.seen == n {
                self.plan = None;
                self.happened = Some(completion.token.kind);
                completion.result = Err(code);
                completion.accepted = None;
                self.seen = self.seen.saturating_add(1);
                return;
            }
            self.seen = self.seen.saturating_add(1);
        }
    }
}
