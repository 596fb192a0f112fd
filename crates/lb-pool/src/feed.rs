//! The newest state of something that changes, for any number of subscribers.
//!
//! A [`Feed`] keeps one state: the newest. A subscriber that is slow skips the states between and never misses the last one, so neither
//! the number of changes nor a subscriber that never looks costs memory. The publisher holds nothing that belongs to a subscriber: it
//! ends when it is dropped, on whatever thread.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What a publisher writes to.
#[derive(Debug)]
pub(crate) struct Feed<T> {
    /// The number of [`Newest::state`], to be compared without a lock. It is written while the lock is held.
    number: AtomicU64,
    newest: Mutex<Newest<T>>,
    moved: Notify,
}

#[derive(Debug)]
struct Newest<T> {
    state: Arc<T>,
    has_ended: bool,
}

impl<T> Feed<T> {
    /// A feed with its first state.
    pub(crate) fn new(first: Arc<T>) -> Arc<Self> {
        let newest = Mutex::new(Newest { state: first, has_ended: false });
        Arc::new(Self { number: AtomicU64::new(1), newest, moved: Notify::new() })
    }

    /// Replaces the state. Publishers that race must agree on an order of their own.
    pub(crate) fn publish(&self, state: Arc<T>) {
        self.change(|newest| newest.state = state);
    }

    /// No further state follows.
    pub(crate) fn end(&self) {
        self.change(|newest| newest.has_ended = true);
    }

    fn change(&self, change: impl FnOnce(&mut Newest<T>)) {
        let mut newest = self.lock();
        change(&mut newest);
        self.number.fetch_add(1, Ordering::Relaxed);
        drop(newest);
        self.moved.notify_waiters();
    }

    /// A subscription that has seen nothing yet: the state that is the newest now is its first news.
    pub(crate) fn subscribe(self: &Arc<Self>) -> Subscription<T> {
        Subscription { feed: Arc::clone(self), seen: Cell::new(0) }
    }

    /// A panic elsewhere leaves a whole state behind.
    fn lock(&self) -> MutexGuard<'_, Newest<T>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The view that one subscriber has of something that changes. It may be sent to any thread, and ends when it is dropped.
#[derive(Debug)]
pub struct Subscription<T> {
    feed: Arc<Feed<T>>,
    /// The number of the state that was taken last.
    seen: Cell<u64>,
}

impl<T> Subscription<T> {
    /// Whether anything has changed since [`Self::newest`] was called last. Costs one load, and takes no lock.
    #[inline]
    pub fn is_behind(&self) -> bool {
        self.seen.get() != self.feed.number.load(Ordering::Relaxed)
    }

    /// The newest state, which counts as seen from now on.
    pub fn newest(&self) -> Arc<T> {
        let newest = self.feed.lock();
        self.seen.set(self.feed.number.load(Ordering::Relaxed));
        Arc::clone(&newest.state)
    }

    /// Waits until there is a state that has not been seen, and returns the newest. `None` when there is none and none will follow. A call
    /// that is given up loses nothing.
    pub async fn changed(&self) -> Option<Arc<T>> {
        loop {
            // Made before the look, so that no change falls between the look and the wait.
            let moved = self.feed.moved.notified();
            if self.is_behind() {
                return self.take();
            }
            moved.await;
        }
    }

    fn take(&self) -> Option<Arc<T>> {
        let newest = self.feed.lock();
        let number = self.feed.number.load(Ordering::Relaxed);
        // The end is a change of its own, which brings no state.
        let unseen = number.saturating_sub(u64::from(newest.has_ended));
        if newest.has_ended && self.seen.get() >= unseen {
            return None;
        }
        self.seen.set(unseen);
        Some(Arc::clone(&newest.state))
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<T>(future: impl Future<Output = T>) -> Poll<T> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_slow_subscriber_skips_states_and_sees_the_last() {
        let feed = Feed::new(Arc::new(0));
        let (slow, quick) = (feed.subscribe(), feed.subscribe());
        assert_eq!(poll(quick.changed()), Poll::Ready(Some(Arc::new(0))));
        let first = Arc::downgrade(&slow.feed.lock().state);
        for state in 1..=1000 {
            feed.publish(Arc::new(state));
            assert!(quick.is_behind());
            assert_eq!(*quick.newest(), state);
            assert!(!quick.is_behind());
        }
        assert!(first.upgrade().is_none(), "states that were replaced take no memory");
        assert_eq!(poll(slow.changed()), Poll::Ready(Some(Arc::new(1000))));
        assert_eq!(poll(slow.changed()), Poll::Pending);
    }

    #[test]
    fn the_last_state_is_seen_before_the_end() {
        let feed = Feed::new(Arc::new(0));
        let (behind, abreast) = (feed.subscribe(), feed.subscribe());
        feed.publish(Arc::new(1));
        abreast.newest();
        feed.end();
        assert_eq!(poll(abreast.changed()), Poll::Ready(None));
        assert_eq!(poll(behind.changed()), Poll::Ready(Some(Arc::new(1))));
        for _ in 0..2 {
            assert_eq!(poll(behind.changed()), Poll::Ready(None));
        }
        assert_eq!(poll(feed.subscribe().changed()), Poll::Ready(Some(Arc::new(1))));
    }

    #[test]
    fn a_subscriber_that_leaves_leaves_nothing_behind() {
        let feed = Feed::new(Arc::new(0));
        for state in 1..100 {
            let subscription = feed.subscribe();
            subscription.newest();
            // A wait that is given up, too.
            assert_eq!(poll(subscription.changed()), Poll::Pending);
            drop(subscription);
            feed.publish(Arc::new(state));
        }
        assert_eq!(Arc::strong_count(&feed), 1);
        assert_eq!(Arc::strong_count(&feed.lock().state), 1);
    }

    #[test]
    fn a_subscriber_on_another_thread_is_woken_for_the_last_state() {
        const LAST: u64 = 20_000;
        let feed = Feed::new(Arc::new(0));
        let subscription = feed.subscribe();
        let waits = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut before = None;
                while let Some(state) = subscription.changed().await {
                    assert!(before < Some(*state), "{before:?}, then {state}");
                    before = Some(*state);
                    if *state == LAST {
                        break;
                    }
                }
                before
            })
        });
        for state in 1..=LAST {
            feed.publish(Arc::new(state));
        }
        assert_eq!(waits.join().unwrap(), Some(LAST));
    }
}
