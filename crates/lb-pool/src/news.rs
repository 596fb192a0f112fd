//! Wakes the thread that tends the pools when a worker has learned something that ends with time.
//!
//! That thread sleeps until the first pool is due. A rest or an ejection that begins while it sleeps may end sooner, and so may the wait
//! for the next trial of a member that has failed one.

use std::sync::OnceLock;

static WAKE: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

/// Has `wake` called, from any thread, when [`crate::SharedPool::due`] of some pool may be earlier than before. Only the first call in a
/// process has an effect.
pub fn on_news(wake: impl Fn() + Send + Sync + 'static) {
    // One thread of a process tends the pools.
    let _ = WAKE.set(Box::new(wake));
}

pub(crate) fn tell() {
    if let Some(wake) = WAKE.get() {
        wake();
    }
}
