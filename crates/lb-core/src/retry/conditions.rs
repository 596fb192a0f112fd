//! Which failures are worth another try, as the operator sees it.

use super::Failure;
use crate::status_set::StatusSet;

/// The failures after which a request is tried again if that is safe (`[pools.NAME.retry]`, `on`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// `"connect"`: no connection came about.
    pub connect: bool,
    /// `"refused"`: the backend said that it takes no more (REFUSED_STREAM).
    pub refused: bool,
    /// `"reset"`: the connection or the stream ended before any byte of a response.
    pub reset: bool,
    /// `"timeout"`: no response within the time for one try.
    pub timeout: bool,
    /// Responses with one of these.
    pub statuses: StatusSet,
}

impl Default for Conditions {
    /// What says nothing about the request itself: connect, refused, reset.
    fn default() -> Self {
        Self { connect: true, refused: true, reset: true, timeout: false, statuses: StatusSet::EMPTY }
    }
}

impl Conditions {
    /// Nothing is tried again but what no backend has any part in.
    pub const NONE: Self =
        Self { connect: false, refused: false, reset: false, timeout: false, statuses: StatusSet::EMPTY };

    /// Whether the failure is among them. A connection that proved stale, or was ended with GOAWAY, always is: it is the gateway that chose
    /// to use a connection again, and clients must not see that.
    #[inline]
    pub fn covers(&self, failure: Failure) -> bool {
        match failure {
            Failure::Connect => self.connect,
            Failure::Refused => self.refused,
            Failure::Stale { .. } | Failure::GoneAway { .. } => true,
            Failure::Reset { .. } => self.reset,
            Failure::Timeout { .. } => self.timeout,
            Failure::Status(code) => self.statuses.contains(code),
            Failure::Later => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_condition_covers_its_failure_and_no_other() {
        let of = |n: usize| match n {
            0 => (Conditions { connect: true, ..Conditions::NONE }, Failure::Connect),
            1 => (Conditions { refused: true, ..Conditions::NONE }, Failure::Refused),
            2 => (Conditions { reset: true, ..Conditions::NONE }, Failure::Reset { sent: true }),
            3 => (Conditions { timeout: true, ..Conditions::NONE }, Failure::Timeout { sent: true }),
            _ => (
                Conditions { statuses: [502].into_iter().collect(), ..Conditions::NONE },
                Failure::Status(502),
            ),
        };
        for condition in 0..5 {
            for failure in 0..5 {
                assert_eq!(of(condition).0.covers(of(failure).1), condition == failure);
            }
            let conditions = of(condition).0;
            assert!(conditions.covers(Failure::Stale { sent: true }));
            assert!(conditions.covers(Failure::GoneAway { before: 0 }));
            assert!(!conditions.covers(Failure::Status(503)) && !conditions.covers(Failure::Later));
        }
    }
}
