//! One timer per connection, moved as seldom as possible.
//!
//! A busy connection changes its deadline several times per request, nearly always to a later moment. The timer stays where it
//! is then; only when it fires is the true deadline looked at, and the timer set again if that lies ahead. Only a deadline
//! earlier than the timer moves it at once.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;

use tokio::time::{Instant, Sleep};

/// A lazily moved timer over a pinned [`Sleep`].
#[derive(Debug)]
pub struct Deadline<'a> {
    sleep: Pin<&'a mut Sleep>,
    registered: bool,
}

impl<'a> Deadline<'a> {
    /// Takes over `sleep`, whatever it is set to.
    pub fn new(sleep: Pin<&'a mut Sleep>) -> Self {
        Self { sleep, registered: false }
    }

    /// Whether `at` has come. Otherwise the task will be woken at `at` or before.
    pub fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> bool {
        if at < self.sleep.deadline() {
            self.sleep.as_mut().reset(at);
            self.registered = false;
        }
        if self.registered && !self.sleep.is_elapsed() {
            return false;
        }
        loop {
            if self.sleep.as_mut().poll(cx).is_pending() {
                // For a task that has used up its budget tokio returns Pending before it looks at the timer; the task is polled again.
                self.registered = tokio::task::coop::has_budget_remaining();
                return false;
            }
            if self.sleep.deadline() >= at {
                self.registered = false;
                return true;
            }
            self.sleep.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn fires_at_the_true_deadline_after_moves_both_ways() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let sleep = pin!(tokio::time::sleep_until(at(1_000)));
        let mut deadline = Deadline::new(sleep);
        // Later than armed: the timer fires once in vain and is moved.
        poll_fn(|cx| if deadline.poll(cx, at(2_500)) { Poll::Ready(()) } else { Poll::Pending }).await;
        assert_eq!(Instant::now(), at(2_500));
        // Already past: at once.
        assert!(poll_fn(|cx| Poll::Ready(deadline.poll(cx, at(100)))).await);
        // Earlier than armed: moved at once.
        assert!(!poll_fn(|cx| Poll::Ready(deadline.poll(cx, at(9_000)))).await);
        poll_fn(|cx| if deadline.poll(cx, at(3_000)) { Poll::Ready(()) } else { Poll::Pending }).await;
        assert_eq!(Instant::now(), at(3_000));
    }
}
