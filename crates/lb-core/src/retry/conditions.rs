//! Which failures are worth another try, as the operator sees it.

use super::RetryClass;
use crate::failure::{Failure, Kind};
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
        match (failure.retry_class(), failure.kind) {
            (Some(RetryClass::Connect), _) => self.connect,
            (Some(RetryClass::Stale), _) | (_, Kind::GoneAway) => true,
            (Some(RetryClass::Unprocessed), _) => self.refused,
            (Some(RetryClass::Reset), _) => self.reset,
            (Some(RetryClass::Timeout), _) => self.timeout,
            (Some(RetryClass::Status), Kind::Status(status)) => self.statuses.contains(status),
            (Some(RetryClass::Status) | None, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Reach;
    use crate::reason::Reason;

    #[test]
    fn each_condition_covers_its_failure_and_no_other() {
        let status = |status| Kind::Status(status).at(Reach::Sent);
        let of = |n: usize| match n {
            0 => (
                Conditions { connect: true, ..Conditions::NONE },
                Kind::Connect { timed_out: false }.unconnected(),
            ),
            1 => (Conditions { refused: true, ..Conditions::NONE }, Kind::Refused.at(Reach::Sent)),
            2 => (Conditions { reset: true, ..Conditions::NONE }, Kind::Closed.at(Reach::Sent)),
            3 => (Conditions { timeout: true, ..Conditions::NONE }, Kind::Timeout.at(Reach::Sent)),
            _ => (Conditions { statuses: [502].into_iter().collect(), ..Conditions::NONE }, status(502)),
        };
        for condition in 0..5 {
            for failure in 0..5 {
                assert_eq!(of(condition).0.covers(of(failure).1), condition == failure);
            }
            let conditions = of(condition).0;
            assert!(conditions.covers(Kind::Stale.at(Reach::Sent)));
            assert!(conditions.covers(Kind::GoneAway.at(Reach::Sent)));
            assert!(!conditions.covers(status(503)));
            assert!(!conditions.covers(Failure::malformed(Reason::Framing)));
        }
    }
}
