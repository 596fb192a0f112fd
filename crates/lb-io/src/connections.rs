//! The connections of one listener on one worker: how many there are, and a way to reach them all.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use slab::Slab;

/// What a connection may still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Everything.
    Serving,
    /// Finish what runs; take nothing new on this connection.
    Draining,
    /// Say farewell, where the protocol has words for it: the time to finish is over in a moment.
    Farewell,
    /// End now.
    Abort,
}

/// Registry of live connections.
#[derive(Debug)]
pub struct Connections {
    phase: Cell<Phase>,
    wakers: RefCell<Slab<Option<Waker>>>,
    followers: RefCell<Slab<Waker>>,
}

impl Connections {
    /// An empty registry in [`Phase::Serving`].
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            phase: Cell::new(Phase::Serving),
            wakers: RefCell::default(),
            followers: RefCell::default(),
        })
    }

    /// What connections may do now. Read at every turn of a connection.
    #[inline]
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Moves on to a later phase; never back. Connections notice when they are next woken.
    pub fn advance(&self, phase: Phase) {
        self.phase.set(self.phase.get().max(phase));
    }

    /// Live connections.
    pub fn len(&self) -> usize {
        self.wakers.borrow().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a connection for as long as the guard lives.
    pub fn enter(self: &Rc<Self>) -> ConnectionGuard {
        let key = self.wakers.borrow_mut().insert(None);
        ConnectionGuard { registry: Rc::clone(self), key }
    }

    /// Keys of all live connections, for [`Self::wake`].
    pub fn keys(&self) -> Vec<usize> {
        self.wakers.borrow().iter().map(|(key, _)| key).collect()
    }

    /// Wakes one connection, if it still lives.
    pub fn wake(&self, key: usize) {
        // Cloned out first: waking may run code that comes back here.
        let waker = self.wakers.borrow().get(key).cloned().flatten();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Has a task woken by [`Self::wake_all`] that is no connection: one of the streams that a connection carries, say.
    pub fn follow(self: &Rc<Self>, waker: &Waker) -> Follower {
        let key = self.followers.borrow_mut().insert(waker.clone());
        Follower { registry: Rc::clone(self), key }
    }

    /// Wakes all connections, and those who follow.
    pub fn wake_all(&self) {
        for key in self.keys() {
            self.wake(key);
        }
        let followers: Vec<Waker> = self.followers.borrow().iter().map(|(_, waker)| waker.clone()).collect();
        followers.into_iter().for_each(Waker::wake);
    }
}

/// Keeps a task among those that are woken with the connections.
#[derive(Debug)]
pub struct Follower {
    registry: Rc<Connections>,
    key: usize,
}

impl Follower {
    /// What the connections may do now.
    #[inline]
    pub fn phase(&self) -> Phase {
        self.registry.phase()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.registry.followers.borrow_mut().try_remove(self.key);
    }
}

/// Keeps a connection in its registry.
#[derive(Debug)]
pub struct ConnectionGuard {
    registry: Rc<Connections>,
    key: usize,
}

impl ConnectionGuard {
    /// Says how the connection's task is woken. A task's waker does not change, so once is enough.
    pub fn set_waker(&self, waker: &Waker) {
        if let Some(slot) = self.registry.wakers.borrow_mut().get_mut(self.key) {
            *slot = Some(waker.clone());
        }
    }

    /// What the connection may do now.
    #[inline]
    pub fn phase(&self) -> Phase {
        self.registry.phase()
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.registry.wakers.borrow_mut().try_remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_count_and_phases_only_advance() {
        let registry = Connections::new();
        let first = registry.enter();
        let second = registry.enter();
        assert_eq!(registry.len(), 2);
        drop(first);
        assert_eq!(registry.len(), 1);
        registry.advance(Phase::Abort);
        registry.advance(Phase::Draining);
        assert_eq!(second.phase(), Phase::Abort);
    }
}
