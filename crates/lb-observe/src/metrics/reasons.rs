//! Label values that are words of [`lb_core`]: reason codes, classes of retries, limits of pools.

use std::fmt;
use std::marker::PhantomData;

use lb_core::breaker::Full;
use lb_core::health::ProbeOutcome;
use lb_core::outlier::EjectionCause;
use lb_core::reason::Reason;
use lb_core::retry::RetryClass;

use super::label::{Label, label};
use super::values::Counter;

label!(RetryClass {
    Connect = "connect",
    Stale = "stale",
    Unprocessed = "unprocessed",
    Reset = "reset",
    Timeout = "timeout",
    Status = "status",
});

label!(Full {
    Connections = Self::Connections.reason().name(),
    Requests = Self::Requests.reason().name(),
    Pending = Self::Pending.reason().name(),
    PendingTimeout = Self::PendingTimeout.reason().name(),
});

label!(EjectionCause {
    ConsecutiveServerErrors = Self::ConsecutiveServerErrors.as_str(),
    ConsecutiveGatewayFailures = Self::ConsecutiveGatewayFailures.as_str(),
    ErrorRate = Self::ErrorRate.as_str(),
    Latency = Self::Latency.as_str(),
});

/// Which status it was that a probe did not expect is no label.
impl Label for ProbeOutcome {
    const ALL: &'static [Self] = &[
        Self::Passed,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Closed,
        Self::Malformed,
        Self::Status(0),
        Self::Body,
        Self::NotServing,
        Self::NotAsked,
    ];
    const NAMES: &'static [&'static str] = &[
        Self::Passed.as_str(),
        Self::Connect.as_str(),
        Self::Tls.as_str(),
        Self::Timeout.as_str(),
        Self::Closed.as_str(),
        Self::Malformed.as_str(),
        Self::Status(0).as_str(),
        Self::Body.as_str(),
        Self::NotServing.as_str(),
        Self::NotAsked.as_str(),
    ];
    type Array<T: Default + fmt::Debug> = [T; 10];

    fn name(self) -> &'static str {
        self.as_str()
    }

    fn select<T: Default + fmt::Debug>(self, array: &Self::Array<T>) -> &T {
        let [passed, connect, tls, timeout, closed, malformed, status, body, not_serving, not_asked] = array;
        match self {
            Self::Passed => passed,
            Self::Connect => connect,
            Self::Tls => tls,
            Self::Timeout => timeout,
            Self::Closed => closed,
            Self::Malformed => malformed,
            Self::Status(_) => status,
            Self::Body => body,
            Self::NotServing => not_serving,
            Self::NotAsked => not_asked,
        }
    }
}

/// The reasons that a family counts by.
pub trait ReasonSet: fmt::Debug {
    /// The reasons, in the order of the exposition.
    const REASONS: &'static [Reason];
    /// Their codes, in that order.
    const NAMES: &'static [&'static str];
}

/// The reasons of `request_rejected_total`.
#[derive(Debug)]
pub struct Rejections;

impl ReasonSet for Rejections {
    const REASONS: &'static [Reason] = Reason::REJECTIONS;
    const NAMES: &'static [&'static str] = &names::<{ Reason::REJECTIONS.len() }>(Self::REASONS);
}

/// The reasons of `filter_answers_total`.
#[derive(Debug)]
pub struct FilterAnswers;

impl ReasonSet for FilterAnswers {
    const REASONS: &'static [Reason] = Reason::FILTERS;
    const NAMES: &'static [&'static str] = &names::<{ Reason::FILTERS.len() }>(Self::REASONS);
}

/// The reasons of `filter_dry_run_total`.
#[derive(Debug)]
pub struct DryRuns;

impl ReasonSet for DryRuns {
    const REASONS: &'static [Reason] = Reason::DRY_RUNS;
    const NAMES: &'static [&'static str] = &names::<{ Reason::DRY_RUNS.len() }>(Self::REASONS);
}

/// The reasons of `upstream_rejected_total`.
#[derive(Debug)]
pub struct UpstreamRejections;

impl ReasonSet for UpstreamRejections {
    const REASONS: &'static [Reason] = Reason::UPSTREAM;
    const NAMES: &'static [&'static str] = &names::<{ Reason::UPSTREAM.len() }>(Self::REASONS);
}

/// The reasons of `http2_abuse_total`.
#[derive(Debug)]
pub struct Http2Abuse;

impl ReasonSet for Http2Abuse {
    const REASONS: &'static [Reason] = Reason::HTTP2_ABUSE;
    const NAMES: &'static [&'static str] = &names::<{ Reason::HTTP2_ABUSE.len() }>(Self::REASONS);
}

/// A counter for each reason of a set.
#[derive(Debug)]
pub struct ByReason<S: ReasonSet> {
    counters: Box<[Counter]>,
    /// Takes what is counted under a reason outside the set, which is a fault of the program.
    stray: Counter,
    set: PhantomData<S>,
}

impl<S: ReasonSet> ByReason<S> {
    /// The counter of a reason. To be used where something failed: it looks through the set.
    pub fn of(&self, reason: Reason) -> &Counter {
        let at = S::REASONS.iter().position(|known| *known == reason);
        debug_assert!(at.is_some(), "no counter for {reason}");
        at.and_then(|at| self.counters.get(at)).unwrap_or(&self.stray)
    }

    /// Each reason of the set, with its count.
    pub(super) fn values(&self) -> impl Iterator<Item = (Reason, u64)> {
        S::REASONS.iter().zip(&self.counters).map(|(reason, counter)| (*reason, counter.value()))
    }
}

impl<S: ReasonSet> Default for ByReason<S> {
    fn default() -> Self {
        let counters = S::REASONS.iter().map(|_| Counter::default()).collect();
        Self { counters, stray: Counter::default(), set: PhantomData }
    }
}

/// The codes of so many reasons.
#[expect(clippy::indexing_slicing, reason = "evaluated at compile time, where a wrong index is an error")]
const fn names<const N: usize>(reasons: &[Reason]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut at = 0;
    while at < N {
        names[at] = reasons[at].name();
        at += 1;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::TunnelEnd;

    #[test]
    fn each_reason_has_its_own_counter() {
        let counters = ByReason::<Rejections>::default();
        for (index, reason) in Reason::REJECTIONS.iter().enumerate() {
            counters.of(*reason).add(index as u64);
        }
        for (index, reason) in Reason::REJECTIONS.iter().enumerate() {
            assert_eq!(counters.of(*reason).value(), index as u64);
        }
    }

    #[test]
    fn ends_of_tunnels_are_called_by_their_reasons() {
        let known = |name| Reason::ALL.iter().any(|reason| reason.name() == name);
        for end in TunnelEnd::ALL {
            let plain = matches!(end, TunnelEnd::Done | TunnelEnd::Cut);
            assert!(plain != known(end.name()), "{end:?}");
        }
    }
}
