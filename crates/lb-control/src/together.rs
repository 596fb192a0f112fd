//! Several waits at once.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// Waits for all of these at once; what they give is in their order. Meant for few, and rare, waits: each is looked at whenever one of
/// them moves.
pub(crate) async fn together<F: Future>(waits: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut waits: Vec<Wait<F>> = waits.into_iter().map(|wait| (Box::pin(wait), None)).collect();
    poll_fn(|cx| {
        for (wait, result) in waits.iter_mut().filter(|(_, result)| result.is_none()) {
            if let Poll::Ready(ready) = wait.as_mut().poll(cx) {
                *result = Some(ready);
            }
        }
        if waits.iter().all(|(_, result)| result.is_some()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    waits.into_iter().filter_map(|(_, result)| result).collect()
}

/// One wait, and what it gave.
type Wait<F> = (Pin<Box<F>>, Option<<F as Future>::Output>);
