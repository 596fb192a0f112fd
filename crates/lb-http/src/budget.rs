//! What the bodies of requests may hold together in the memory of a worker.

use std::cell::Cell;
use std::rc::Rc;

/// Bytes that all requests of a worker may hold together, in one use of them.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    most: usize,
    used: Cell<usize>,
}

impl BodyBudget {
    /// A budget of so many bytes, of which none is used.
    pub(crate) fn new(most: usize) -> Rc<Self> {
        Rc::new(Self { most, used: Cell::new(0) })
    }

    /// Bytes in use.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used.get()
    }
}

/// What one request holds of a budget. Dropping it gives that back.
#[derive(Debug)]
pub(crate) struct BodyShare {
    budget: Rc<BodyBudget>,
    bytes: usize,
}

impl BodyShare {
    /// A share that holds nothing yet.
    pub(crate) fn new(budget: &Rc<BodyBudget>) -> Self {
        Self { budget: Rc::clone(budget), bytes: 0 }
    }

    /// Has the share hold so many bytes. `false` where the budget has no room for more than it holds: then nothing changes.
    pub(crate) fn hold(&mut self, bytes: usize) -> bool {
        let others = self.budget.used.get().saturating_sub(self.bytes);
        let fits = others.saturating_add(bytes) <= self.budget.most;
        if fits || bytes <= self.bytes {
            self.budget.used.set(others.saturating_add(bytes));
            self.bytes = bytes;
            return true;
        }
        false
    }
}

impl Drop for BodyShare {
    fn drop(&mut self) {
        self.hold(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_fit_together_and_are_given_back() {
        let budget = BodyBudget::new(100);
        let (mut one, mut other) = (BodyShare::new(&budget), BodyShare::new(&budget));
        assert!(one.hold(60) && other.hold(40) && !other.hold(41) && !one.hold(61));
        assert!(one.hold(50) && other.hold(50) && budget.used() == 100);
        drop(one);
        assert!(budget.used() == 50 && other.hold(100) && !other.hold(usize::MAX));
        drop(other);
        assert_eq!(budget.used(), 0);
    }
}
