//! Further tries of the requests of a pool in one worker, and what they cost.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use lb_core::failure::Failure;
use lb_core::hedge::Hedge;
use lb_core::retry::{self, Attempt, Budget, Conditions, RetrySettings, RetryVerdict};

/// The tries of a pool in one worker. Reloads keep what is counted.
#[derive(Clone, Debug)]
pub(crate) struct Tries {
    pub(crate) settings: RetrySettings,
    budget: Rc<RefCell<Budget>>,
    hedge: Rc<RefCell<Hedge>>,
}

impl Tries {
    pub(crate) fn new(settings: RetrySettings, earlier: Option<&Self>, now: Instant) -> Self {
        let Some(earlier) = earlier else {
            let budget = Rc::new(RefCell::new(Budget::new(settings.budget, now)));
            return Self { settings, budget, hedge: Rc::new(RefCell::new(Hedge::new(settings.hedge))) };
        };
        earlier.budget.borrow_mut().reconfigure(settings.budget);
        earlier.hedge.borrow_mut().reconfigure(settings.hedge);
        Self { settings, ..earlier.clone() }
    }

    pub(crate) fn begin(&self) {
        self.budget.borrow_mut().begin();
    }

    pub(crate) fn end(&self) {
        self.budget.borrow_mut().end();
    }

    pub(crate) fn decide(
        &self,
        conditions: &Conditions,
        failure: Failure,
        attempt: Attempt,
        now: Instant,
    ) -> RetryVerdict {
        let mut budget = self.budget.borrow_mut();
        retry::decide(conditions, failure, attempt, &mut budget, now)
    }

    pub(crate) fn take(&self, now: Instant) -> bool {
        self.budget.borrow_mut().take(now)
    }

    pub(crate) fn done(&self) {
        self.budget.borrow_mut().done();
    }

    pub(crate) fn hedge(&self) -> &RefCell<Hedge> {
        &self.hedge
    }
}
