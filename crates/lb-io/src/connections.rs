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
    entries: RefCell<Slab<Entry>>,
    followers: RefCell<Slab<Waker>>,
}

/// A live connection.
#[derive(Debug, Default)]
struct Entry {
    waker: Option<Waker>,
    /// The connection is to end as soon as it can.
    is_asked: bool,
}

impl Connections {
    /// An empty registry in [`Phase::Serving`].
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            phase: Cell::new(Phase::Serving),
            entries: RefCell::default(),
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
        self.entries.borrow().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a connection for as long as the guard lives.
    pub fn enter(self: &Rc<Self>) -> ConnectionGuard {
        let key = self.entries.borrow_mut().insert(Entry::default());
        ConnectionGuard { registry: Rc::clone(self), key }
    }

    /// Keys of all live connections, for [`Self::ask`].
    pub fn keys(&self) -> Vec<usize> {
        self.entries.borrow().iter().map(|(key, _)| key).collect()
    }

    /// Asks one connection to end as soon as it can, if it still lives.
    pub fn ask(&self, key: usize) {
        if let Some(entry) = self.entries.borrow_mut().get_mut(key) {
            entry.is_asked = true;
        }
        self.wake(key);
    }

    /// Wakes one connection, if it still lives.
    fn wake(&self, key: usize) {
        // Cloned out first: waking may run code that comes back here.
        let waker = self.entries.borrow().get(key).and_then(|entry| entry.waker.clone());
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Has a task woken by [`Self::wake_all`] that is no connection: one of the streams that a connection carries, say.
    pub fn follow(self: &Rc<Self>, waker: &Waker) -> Follower {
        let key = self.followers.borrow_mut().insert(waker.clone());
        Follower { registry: Rc::clone(self), key }
    }

    /// Wakes all connections, and the tasks that follow the phase.
    pub fn wake_all(&self) {
        for key in self.keys() {
            self.wake(key);
        }
        self.wake_followers();
    }

    /// Wakes the tasks that follow the phase.
    pub fn wake_followers(&self) {
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
    /// Sets how the connection's task is woken. A task's waker does not change, so once is enough.
    pub fn set_waker(&self, waker: &Waker) {
        if let Some(entry) = self.registry.entries.borrow_mut().get_mut(self.key) {
            entry.waker = Some(waker.clone());
        }
    }

    /// Whether the connection is to end as soon as it can: in a drain connections are asked one after the other, and all of them when the
    /// farewell begins.
    pub fn is_asked(&self) -> bool {
        match self.phase() {
            Phase::Serving => false,
            Phase::Draining => {
                self.registry.entries.borrow().get(self.key).is_some_and(|entry| entry.is_asked)
            }
            Phase::Farewell | Phase::Abort => true,
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
        self.registry.entries.borrow_mut().try_remove(self.key);
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

    #[test]
    fn connections_are_asked_to_end_one_by_one_and_all_with_the_farewell() {
        let registry = Connections::new();
        let (first, second) = (registry.enter(), registry.enter());
        registry.advance(Phase::Draining);
        assert!(!first.is_asked() && !second.is_asked());
        registry.ask(registry.keys()[0]);
        registry.ask(99);
        assert!(first.is_asked() && !second.is_asked());
        registry.advance(Phase::Farewell);
        assert!(second.is_asked());
    }
}
