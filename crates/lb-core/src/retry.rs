//! Whether a request may be sent a second time.
//!
//! Three conditions are checked, in this order: the operator wants the failure tried again ([`Conditions`]); another try loses nothing and
//! repeats nothing ([`may_retry`]); tries on top of ordinary load stay within their share ([`Budget`]). [`decide`] checks all three.

mod backoff;
mod budget;
mod conditions;

pub use backoff::{LONGEST_PAUSE, pause};
pub use budget::{Budget, BudgetSettings};
pub use conditions::Conditions;

use std::time::{Duration, Instant};

use crate::failure::{Failure, Kind, Reach};
use crate::hedge::HedgeSettings;

/// Which requests are tried again (`[pools.NAME.retry]`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetrySettings {
    /// Further tries of one request. `None` where the pool has no rules of its own: then the listener decides how many, of which one may
    /// follow a connection that was lost with the request on it.
    pub attempts: Option<u32>,
    /// After which failures.
    pub conditions: Conditions,
    /// How long one try may take to its response head.
    pub per_try_timeout: Option<Duration>,
    /// The range that the pause before the first further try is drawn from; zero = no pauses. See [`pause`].
    pub backoff: Duration,
    /// How many at once.
    pub budget: BudgetSettings,
    /// When a second try runs beside the first.
    pub hedge: HedgeSettings,
}

/// What a failure is for the rules of further tries, and the label under which a further try is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryClass {
    /// No connection to the backend chosen first could be made.
    Connect,
    /// A reused connection turned out to be dead before any byte of the response.
    Stale,
    /// The backend said that it had not processed the request.
    Unprocessed,
    /// The connection or the stream ended before any byte of the response.
    Reset,
    /// No response came in the time for one try.
    Timeout,
    /// A response had a status that is tried again.
    Status,
}

/// The facts about the request that decide whether it may be tried again.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Further tries that the configuration still grants.
    pub tries_left: u32,
    /// The method is idempotent (RFC 9110 §9.2.2).
    pub idempotent: bool,
    /// Bytes of the body were taken from the client and cannot be produced again.
    pub body_consumed: bool,
    /// How often its connection was about to end when it came ([`Kind::GoneAway`]).
    pub gone_away: u32,
}

/// Connections that may end under one request. A backend that ends each after a few requests meets a burst of many with as many GOAWAYs.
const MAX_GONE_AWAY: u32 = 32;

/// Whether another attempt loses nothing and repeats nothing (RFC 9110 §9.2.2, RFC 9112 §9.5).
pub fn may_retry(failure: Failure, attempt: Attempt) -> bool {
    let Some(class) = failure.retry_class() else { return false };
    let tries_left = match failure.kind {
        Kind::GoneAway => attempt.gone_away < MAX_GONE_AWAY,
        _ => attempt.tries_left > 0,
    };
    tries_left
        && failure.reach != Reach::Answered
        && !attempt.body_consumed
        && match class {
            RetryClass::Connect | RetryClass::Unprocessed => true,
            RetryClass::Stale | RetryClass::Reset | RetryClass::Timeout => {
                failure.reach < Reach::Sent || attempt.idempotent
            }
            RetryClass::Status => attempt.idempotent,
        }
}

/// Whether a request may be sent to a second backend while the first has not answered: as after a [`Kind::Timeout`].
pub fn may_hedge(attempt: Attempt) -> bool {
    may_retry(Kind::Timeout.at(Reach::Sent), attempt)
}

/// The decision about a request whose try failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum RetryVerdict {
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

/// Whether a request is tried again, and the place in the budget if so.
pub fn decide(
    conditions: &Conditions,
    failure: Failure,
    attempt: Attempt,
    budget: &mut Budget,
    now: Instant,
) -> RetryVerdict {
    if failure.reach == Reach::Answered {
        return RetryVerdict::No(Why::Answered);
    }
    if !conditions.covers(failure) {
        return RetryVerdict::No(Why::Condition);
    }
    if !may_retry(failure, attempt) {
        return RetryVerdict::No(Why::Unsafe);
    }
    if failure.is_free() {
        return RetryVerdict::Again { charged: false };
    }
    let granted = match failure.retry_class() {
        Some(RetryClass::Reset | RetryClass::Stale) => budget.take_after_loss(now),
        _ => budget.take(now),
    };
    if granted { RetryVerdict::Again { charged: true } } else { RetryVerdict::No(Why::Budget) }
}

/// Whether `method` is idempotent (RFC 9110 §9.2.2).
#[inline]
pub fn is_idempotent(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"PUT" | b"DELETE" | b"TRACE")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Reset, ResetReason, Shortage};
    use crate::reason::Reason;

    const BASE: Attempt = Attempt { tries_left: 1, idempotent: false, body_consumed: false, gone_away: 0 };
    const IDEMPOTENT: Attempt = Attempt { idempotent: true, ..BASE };

    /// Every kind of failure that may be tried again, with every reach that it can have.
    fn failures() -> Vec<Failure> {
        let reset = Kind::StreamReset(Reset { reason: ResetReason::Fault, code: 2 });
        let lost = [Kind::Stale, Kind::Closed, Kind::ConnectionReset, reset, Kind::Timeout];
        let lost = lost.into_iter().flat_map(|kind| [kind.at(Reach::Unsent), kind.at(Reach::Sent)]);
        let timed = [false, true].into_iter();
        let connects = timed.flat_map(|timed_out| [Kind::Connect { timed_out }, Kind::Tls { timed_out }]);
        let connects = connects.chain([Kind::Shortage(Shortage::Ports)]).map(Kind::unconnected);
        let sent = [Kind::Refused, Kind::GoneAway, Kind::Truncated, Kind::Status(503)];
        lost.chain(connects).chain(sent.into_iter().map(|kind| kind.at(Reach::Sent))).collect()
    }

    #[test]
    fn only_what_cannot_have_been_processed_or_may_be_repeated_is_retried() {
        assert!(may_retry(Kind::Connect { timed_out: false }.unconnected(), BASE));
        assert!(may_retry(Kind::Stale.at(Reach::Unsent), BASE));
        assert!(!may_retry(Kind::Stale.at(Reach::Sent), BASE));
        assert!(may_retry(Kind::Stale.at(Reach::Sent), IDEMPOTENT));
        assert!(!may_retry(
            Kind::Connect { timed_out: true }.unconnected(),
            Attempt { tries_left: 0, ..BASE }
        ));
        let (refused, gone) = (Kind::Refused.at(Reach::Sent), Kind::GoneAway.at(Reach::Sent));
        let tired = Attempt { tries_left: 0, ..BASE };
        assert!(may_retry(refused, BASE) && !may_retry(refused, tired));
        assert!(may_retry(gone, Attempt { gone_away: 31, ..tired }));
        assert!(!may_retry(gone, Attempt { gone_away: 32, ..BASE }));
        for never in [
            Failure::malformed(Reason::Framing),
            Kind::NoMember.unconnected(),
            Kind::AllFailed.unconnected(),
            Kind::Shortage(Shortage::Descriptors).unconnected(),
            Kind::CallDeadline.at(Reach::Sent),
            Kind::CallIdle.at(Reach::Sent),
        ] {
            assert!(!may_retry(never, IDEMPOTENT), "{never:?}");
        }
    }

    #[test]
    fn nothing_that_may_have_been_done_is_repeated_unless_idempotent() {
        for failure in failures() {
            let unprocessed =
                failure.is_free() || failure.kind == Kind::Refused || failure.reach == Reach::Unsent;
            assert_eq!(may_retry(failure, BASE), unprocessed, "{failure:?}");
            assert!(may_retry(failure, IDEMPOTENT), "{failure:?}");
            assert!(!may_retry(failure, Attempt { body_consumed: true, ..IDEMPOTENT }), "{failure:?}");
            assert!(!may_retry(failure.reaching(Reach::Answered), IDEMPOTENT), "{failure:?}");
        }
        assert!(may_hedge(IDEMPOTENT) && !may_hedge(BASE));
    }

    #[test]
    fn the_first_answer_that_is_no_decides_and_only_a_yes_is_charged() {
        let now = Instant::now();
        let mut budget = Budget::new(BudgetSettings { percent: 0, min: 1 }, now);
        budget.begin();
        let all =
            Conditions { statuses: [503].into_iter().collect(), timeout: true, ..Conditions::default() };
        let safe = Attempt { tries_left: 9, ..IDEMPOTENT };
        let mut ask = |conditions: &Conditions, failure, attempt| {
            decide(conditions, failure, attempt, &mut budget, now)
        };
        for failure in failures() {
            let answered = failure.reaching(Reach::Answered);
            assert_eq!(ask(&all, answered, safe), RetryVerdict::No(Why::Answered), "{failure:?}");
        }
        let status = Kind::Status(503).at(Reach::Sent);
        assert_eq!(ask(&Conditions::default(), status, safe), RetryVerdict::No(Why::Condition));
        let post = Attempt { idempotent: false, ..safe };
        assert_eq!(ask(&all, status, post), RetryVerdict::No(Why::Unsafe));
        assert_eq!(ask(&all, status, safe), RetryVerdict::Again { charged: true });
        assert_eq!(ask(&all, status, safe), RetryVerdict::No(Why::Budget));
        assert_eq!(ask(&all, Kind::Refused.at(Reach::Sent), post), RetryVerdict::No(Why::Budget));
        // What has cost no backend anything is not charged.
        let connect = Kind::Connect { timed_out: false }.unconnected();
        assert_eq!(ask(&all, connect, post), RetryVerdict::Again { charged: false });
    }

    #[test]
    fn idempotence_is_case_sensitive() {
        assert!(is_idempotent(b"PUT"));
        assert!(!is_idempotent(b"put"));
        assert!(!is_idempotent(b"POST"));
    }
}
