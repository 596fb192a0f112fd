//! What few exchanges have: it stands in memory of its own, so that others neither fill nor clear it.

use std::rc::Rc;

use lb_core::retry::RetrySettings;

use super::delay::Delayed;
use super::exchange::Exchange;
use super::mirror::Mirrors;
use super::trace::Trace;
use crate::errand::ErrandBody;

/// What an exchange has besides, because of its route or because it is an errand.
#[derive(Debug, Default)]
pub(super) struct Extras {
    /// The rules for further tries, where the route has some of its own.
    pub(super) rules: Option<RetrySettings>,
    /// What the request is about once it has waited on purpose.
    pub(super) delayed: Option<Delayed>,
    /// Copies of the request to other pools.
    pub(super) mirrors: Mirrors,
    /// What is noted down for its trace, where that is recorded.
    pub(super) trace: Option<Trace>,
    /// The exchange is a copy itself: nobody hears its answer, and it is not counted as a request.
    pub(super) is_errand: bool,
}

impl Extras {
    /// The extras of an exchange with these rules, this delay and this trace; None where it has none of them.
    #[inline]
    pub(super) fn of(
        rules: Option<RetrySettings>,
        delayed: Option<Delayed>,
        trace: Option<Trace>,
    ) -> Option<Box<Self>> {
        if rules.is_none() && delayed.is_none() && trace.is_none() {
            return None;
        }
        Some(Box::new(Self { rules, delayed, trace, ..Self::default() }))
    }

    /// The rules for further tries among the extras of an exchange, or else those of its pool.
    #[inline]
    pub(super) fn rules<'a>(extras: Option<&'a Self>, of_pool: &'a RetrySettings) -> &'a RetrySettings {
        extras.and_then(|extras| extras.rules.as_ref()).unwrap_or(of_pool)
    }

    /// The bodies of the mirrors that run.
    #[inline]
    pub(super) fn mirrored(extras: Option<&Self>) -> &[Rc<ErrandBody>] {
        extras.map_or(&[], |extras| extras.mirrors.bodies())
    }
}

impl Exchange {
    /// Whether it is a copy of another exchange's request, whose answer nobody hears.
    #[inline]
    pub(super) fn is_errand(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.is_errand)
    }
}

#[cfg(test)]
mod tests {
    use crate::back::AnyBack;
    use crate::proxy::exchange::Exchange;
    use crate::upstream::Link;

    /// Exchanges are filled, moved and cleared for each request: what few of them need belongs into [`Extras`](super::Extras).
    #[test]
    fn an_exchange_stays_small() {
        let sizes = [size_of::<Exchange>(), size_of::<Link>(), size_of::<AnyBack>()];
        assert!(sizes[0] <= 1000 && sizes[1] <= 128, "{sizes:?}");
    }
}
