//! Whether a request may be sent a second time.
//!
//! Three questions, in this order: is the failure one that the operator wants tried again ([`Conditions`]); does another try lose nothing and
//! repeat nothing ([`may_retry`]); do tries on top of ordinary load stay within their share ([`Budget`]). [`decide`] asks all three.

mod budget;
mod conditions;

pub use budget::{Budget, BudgetSettings};
pub use conditions::Conditions;

use std::time::Instant;

/// How far an attempt got when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection came about: the backend has seen nothing.
    Connect,
    /// A connection that had served before ended before any byte of a response; the usual cause is a backend that closed it while
    /// idle. One that requests share says so by GOAWAY: it is stale only while nothing of this request has left. `sent` says whether any
    /// byte of this request left.
    Stale {
        /// Whether any byte of the request was handed to the kernel.
        sent: bool,
    },
    /// The backend said that it has not processed the request, because it takes no more at the moment (REFUSED_STREAM, RFC 9113 §8.7).
    Refused,
    /// The backend said that it has not processed the request, because it is about to end the connection (GOAWAY, RFC 9113 §6.8). It
    /// says nothing against the backend, and costs it nothing.
    GoneAway {
        /// How often that has happened to this request.
        before: u32,
    },
    /// The connection or the stream was reset or ended before any byte of a response, though it was not [`Failure::Stale`]. `sent` says
    /// whether any byte of this request left.
    Reset {
        /// Whether any byte of the request was handed to the kernel.
        sent: bool,
    },
    /// No response within the time for one try. `sent` says whether any byte of this request left.
    Timeout {
        /// Whether any byte of the request was handed to the kernel.
        sent: bool,
    },
    /// A response with this status, none of which has reached the client.
    Status(u16),
    /// Anything later, or on a connection made for this request.
    Later,
}

impl Failure {
    /// Whether no backend has done any work for the request: another try is then the first that costs one, and adds no load.
    #[inline]
    pub fn is_free(self) -> bool {
        matches!(self, Self::Connect | Self::Stale { sent: false } | Self::GoneAway { .. })
    }
}

/// What is known of the request.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Further tries that the configuration still grants.
    pub tries_left: u32,
    /// The method is idempotent (RFC 9110 §9.2.2).
    pub idempotent: bool,
    /// Bytes of the body were taken from the client and cannot be produced again.
    pub body_consumed: bool,
}

/// Connections that may end under one request. A backend that ends each after a few requests meets a burst of many with as many GOAWAYs.
const MAX_GONE_AWAY: u32 = 32;

/// Whether another attempt loses nothing and repeats nothing (RFC 9110 §9.2.2, RFC 9112 §9.5).
pub fn may_retry(failure: Failure, attempt: Attempt) -> bool {
    let tries_left = match failure {
        Failure::GoneAway { before } => before < MAX_GONE_AWAY,
        _ => attempt.tries_left > 0,
    };
    tries_left
        && !attempt.body_consumed
        && match failure {
            Failure::Connect | Failure::Refused | Failure::GoneAway { .. } => true,
            Failure::Stale { sent } | Failure::Reset { sent } | Failure::Timeout { sent } => {
                !sent || attempt.idempotent
            }
            Failure::Status(_) => attempt.idempotent,
            Failure::Later => false,
        }
}

/// Whether a request may be sent to a second backend while the first has not answered: as after a [`Failure::Timeout`].
pub fn may_hedge(attempt: Attempt) -> bool {
    may_retry(Failure::Timeout { sent: true }, attempt)
}

/// What becomes of a request whose try failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It is tried again.
    Again {
        /// The try was taken from the budget: [`Budget::done`] is due when it has ended.
        charged: bool,
    },
    /// It ends with its failure.
    No(Why),
}

/// Why a request is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A byte of a response has reached the client: nothing that follows could be another response.
    Answered,
    /// The operator does not want it after this failure.
    Condition,
    /// It could be done twice, it cannot be produced again, or no tries are left.
    Unsafe,
    /// Too many are being tried again already (attack C-05).
    Budget,
}

/// Whether a request is tried again, and the place in the budget if so. `answered` says whether any byte of a response, interim ones
/// included, has reached the client.
pub fn decide(
    conditions: &Conditions,
    failure: Failure,
    attempt: Attempt,
    answered: bool,
    budget: &mut Budget,
    now: Instant,
) -> Verdict {
    if answered {
        return Verdict::No(Why::Answered);
    }
    if !conditions.covers(failure) {
        return Verdict::No(Why::Condition);
    }
    if !may_retry(failure, attempt) {
        return Verdict::No(Why::Unsafe);
    }
    if failure.is_free() {
        return Verdict::Again { charged: false };
    }
    let granted = match failure {
        Failure::Reset { .. } | Failure::Stale { .. } => budget.take_after_loss(now),
        _ => budget.take(now),
    };
    if granted { Verdict::Again { charged: true } } else { Verdict::No(Why::Budget) }
}

/// Whether `method` is idempotent (RFC 9110 §9.2.2).
#[inline]
pub fn is_idempotent(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"PUT" | b"DELETE" | b"TRACE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_have_been_processed_or_may_be_repeated_is_retried() {
        let base = Attempt { tries_left: 1, idempotent: false, body_consumed: false };
        assert!(may_retry(Failure::Connect, base));
        assert!(may_retry(Failure::Stale { sent: false }, base));
        assert!(!may_retry(Failure::Stale { sent: true }, base));
        assert!(may_retry(Failure::Stale { sent: true }, Attempt { idempotent: true, ..base }));
        assert!(!may_retry(Failure::Later, Attempt { idempotent: true, ..base }));
        assert!(!may_retry(Failure::Connect, Attempt { tries_left: 0, ..base }));
        let tired = Attempt { tries_left: 0, ..base };
        assert!(may_retry(Failure::Refused, base) && !may_retry(Failure::Refused, tired));
        assert!(may_retry(Failure::GoneAway { before: 31 }, tired));
        assert!(!may_retry(Failure::GoneAway { before: 32 }, base));
        assert!(!may_retry(Failure::Connect, Attempt { body_consumed: true, ..base }));
    }

    /// Every failure there is.
    fn failures() -> impl Iterator<Item = Failure> {
        let sent = [false, true].into_iter();
        let sent = sent
            .flat_map(|sent| [Failure::Stale { sent }, Failure::Reset { sent }, Failure::Timeout { sent }]);
        sent.chain([Failure::Connect, Failure::Refused, Failure::GoneAway { before: 0 }])
            .chain([Failure::Status(503), Failure::Later])
    }

    #[test]
    fn nothing_that_may_have_been_done_is_repeated_unless_idempotent() {
        let base = Attempt { tries_left: 1, idempotent: false, body_consumed: false };
        for failure in failures() {
            let unprocessed = failure.is_free()
                || matches!(
                    failure,
                    Failure::Refused | Failure::Reset { sent: false } | Failure::Timeout { sent: false }
                );
            assert_eq!(may_retry(failure, base), unprocessed, "{failure:?}");
            let idempotent = Attempt { idempotent: true, ..base };
            assert_eq!(may_retry(failure, idempotent), failure != Failure::Later, "{failure:?}");
            assert!(!may_retry(failure, Attempt { body_consumed: true, ..idempotent }), "{failure:?}");
        }
        assert!(may_hedge(Attempt { idempotent: true, ..base }) && !may_hedge(base));
    }

    #[test]
    fn the_first_answer_that_is_no_decides_and_only_a_yes_is_charged() {
        let now = Instant::now();
        let mut budget = Budget::new(BudgetSettings { percent: 0, min: 1 }, now);
        budget.begin();
        let all =
            Conditions { statuses: [503].into_iter().collect(), timeout: true, ..Conditions::default() };
        let safe = Attempt { tries_left: 9, idempotent: true, body_consumed: false };
        let mut ask = |conditions: &Conditions, failure, attempt, answered| {
            decide(conditions, failure, attempt, answered, &mut budget, now)
        };
        for failure in failures() {
            assert_eq!(ask(&all, failure, safe, true), Verdict::No(Why::Answered), "{failure:?}");
        }
        assert_eq!(
            ask(&Conditions::default(), Failure::Status(503), safe, false),
            Verdict::No(Why::Condition)
        );
        let post = Attempt { idempotent: false, ..safe };
        assert_eq!(ask(&all, Failure::Status(503), post, false), Verdict::No(Why::Unsafe));
        assert_eq!(ask(&all, Failure::Status(503), safe, false), Verdict::Again { charged: true });
        assert_eq!(ask(&all, Failure::Status(503), safe, false), Verdict::No(Why::Budget));
        assert_eq!(ask(&all, Failure::Refused, post, false), Verdict::No(Why::Budget));
        // What has cost no backend anything is not charged.
        assert_eq!(ask(&all, Failure::Connect, post, false), Verdict::Again { charged: false });
    }

    #[test]
    fn idempotence_is_case_sensitive() {
        assert!(is_idempotent(b"PUT"));
        assert!(!is_idempotent(b"put"));
        assert!(!is_idempotent(b"POST"));
    }
}
