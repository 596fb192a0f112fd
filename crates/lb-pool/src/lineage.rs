//! Pools that follow each other in one worker, as backends come and go.
//!
//! A request that began with an earlier pool ends there, but its load counts in the newest pool, which picks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use lb_core::balance::Balancer;

use crate::shared::SharedPool;

/// The newest of the pools that follow each other.
#[derive(Debug)]
pub(crate) struct Lineage {
    generation: Cell<u64>,
    newest: RefCell<(Rc<RefCell<Balancer>>, Arc<SharedPool>)>,
}

impl Lineage {
    /// The first pool of a lineage.
    pub(crate) fn new(balancer: &Rc<RefCell<Balancer>>, shared: &Arc<SharedPool>) -> Rc<Self> {
        let newest = RefCell::new((Rc::clone(balancer), Arc::clone(shared)));
        Rc::new(Self { generation: Cell::new(0), newest })
    }

    /// Another pool takes over; returns its number.
    pub(crate) fn follow(&self, balancer: &Rc<RefCell<Balancer>>, shared: &Arc<SharedPool>) -> u64 {
        *self.newest.borrow_mut() = (Rc::clone(balancer), Arc::clone(shared));
        self.generation.set(self.generation.get().wrapping_add(1));
        self.generation.get()
    }

    /// Whether another pool has taken over since this number was given out.
    #[inline]
    pub(crate) fn has_moved_on(&self, generation: u64) -> bool {
        self.generation.get() != generation
    }

    /// Applies to the newest pool what happens to the member at `at` of `shared`, if it still is a member.
    pub(crate) fn tell(&self, shared: &SharedPool, at: usize, act: impl FnOnce(&mut Balancer, usize)) {
        let newest = self.newest.borrow();
        let (balancer, now_shared) = &*newest;
        let Some((member, _)) = shared.members.get(at) else { return };
        if let Some(at) = now_shared.members.iter().position(|(other, _)| Arc::ptr_eq(other, member)) {
            act(&mut balancer.borrow_mut(), at);
        }
    }
}
