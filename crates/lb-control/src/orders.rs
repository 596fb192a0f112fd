//! What the control thread tells workers, and the workers as it sees them.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use lb_config::ListenerId;
use lb_io::listener::ListeningSocket;
use lb_quic::QuicShared;
use lb_quic::passthrough::PassthroughShared;
use lb_security::SharedTlsBundle;
use lb_security::admission::Gates;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;

use crate::snapshot::Snapshot;

/// How long workers may take to put a change in force before what waits for it goes on.
const TAKEN_WITHIN: Duration = Duration::from_secs(1);

/// Orders to a worker.
#[derive(Debug)]
pub enum Order {
    /// Serve by this from now on; tell when it is done, and the sockets of listeners that close are closed.
    Apply(Change, oneshot::Sender<()>),
    /// Accept no more.
    StopAccepting {
        /// Where another process reads the UDP sockets.
        read_elsewhere: Arc<[SocketAddr]>,
        /// To tell when every socket is closed from which connections are accepted.
        done: oneshot::Sender<()>,
    },
    /// Close idle connections of these listeners, spread over the jitter of each; finish the others.
    Drain(Vec<ListenerKey>),
    /// Announce the end on what is left of a listener.
    Farewell(ListenerKey),
    /// End what is left of it.
    Abort(ListenerKey),
    /// Nothing is left of it.
    Forget(ListenerKey),
    /// Tell that orders are taken.
    Answer(oneshot::Sender<()>),
    /// End.
    Stop,
}

/// What is in force from now on.
#[derive(Debug)]
pub struct Change {
    /// What is served.
    pub snapshot: Arc<Snapshot>,
    /// Listeners that accept no more.
    pub closed: Vec<ListenerKey>,
    /// Listeners that accept from now on. The snapshot has them.
    pub opened: Vec<ListenerSockets>,
}

/// Tells a listener from those that had its address before, or will have it: their connections may live at one time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ListenerKey(pub u64);

/// A listener's sockets on one worker.
#[derive(Debug)]
pub struct ListenerSockets {
    /// Which listener of the snapshot.
    pub id: ListenerId,
    /// Which of those that have had its address.
    pub key: ListenerKey,
    /// One bound socket for each address.
    pub sockets: Vec<ListeningSocket>,
    /// Caps on its connections.
    pub gates: Gates,
    /// Its certificates, where clients speak TLS.
    pub tls: Option<SharedTlsBundle>,
    /// What its workers share, where clients speak QUIC.
    pub quic: Option<QuicShared>,
    /// What all workers know of QUIC that it forwards without keys.
    pub passthrough: Arc<PassthroughShared>,
}

/// The running workers.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    pub(crate) orders: Vec<mpsc::UnboundedSender<Order>>,
    pub(crate) threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Waits until a worker is gone that nobody has told to stop, and says which.
    pub(crate) fn lost(&self) -> impl Future<Output = usize> + use<> {
        let mut gone: Vec<_> = self
            .orders
            .iter()
            .cloned()
            .map(|orders| Box::pin(async move { orders.closed().await }))
            .collect();
        poll_fn(move |cx| match gone.iter_mut().position(|gone| gone.as_mut().poll(cx).is_ready()) {
            Some(worker) => Poll::Ready(worker),
            None => Poll::Pending,
        })
    }

    /// Orders every worker to put a change in force, one change for each. The orders are given at once.
    pub(crate) fn apply(&self, changes: impl IntoIterator<Item = Change>) -> Answers {
        let mut changes = changes.into_iter();
        ask(&self.orders, |done| changes.next().map(|change| Order::Apply(change, done)))
    }

    /// Orders every worker to close its listening sockets. The orders are given at once.
    pub(crate) fn stop_accepting(&self, read_elsewhere: &Arc<[SocketAddr]>) -> Answers {
        ask(&self.orders, |done| {
            Some(Order::StopAccepting { read_elsewhere: Arc::clone(read_elsewhere), done })
        })
    }

    /// Gives an order to every worker.
    pub(crate) fn order(&self, mut order: impl FnMut() -> Order) {
        for orders in &self.orders {
            // A worker that is gone has nothing left to do.
            let _ = orders.send(order());
        }
    }
}

/// Gives an order that is answered to each of these workers; `None` leaves a worker out.
pub(crate) fn ask(
    workers: &[mpsc::UnboundedSender<Order>],
    mut order: impl FnMut(oneshot::Sender<()>) -> Option<Order>,
) -> Answers {
    let asked = workers.iter().enumerate().filter_map(|(worker, orders)| {
        let (answer, answered) = oneshot::channel();
        let order = order(answer)?;
        // A worker that has ended has nothing left to do.
        orders.send(order).ok().map(|()| (worker, answered))
    });
    Answers(asked.collect())
}

/// Answers that workers owe. A worker that ends owes none any more.
#[derive(Debug)]
pub(crate) struct Answers(Vec<(usize, oneshot::Receiver<()>)>);

impl Answers {
    /// Waits until a change is in force everywhere, but not for ever.
    pub(crate) async fn taken(self) {
        if self.within(TAKEN_WITHIN).await.is_some() {
            tracing::warn!("a worker has not taken the new configuration yet; it will");
        }
    }

    /// Waits for all answers, but no longer than that; the first worker that has not answered by then.
    pub(crate) async fn within(self, time: Duration) -> Option<usize> {
        let deadline = tokio::time::Instant::now() + time;
        for (worker, answered) in self.0 {
            if timeout_at(deadline, answered).await.is_err() {
                return Some(worker);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_that_hangs_is_found_and_one_that_has_ended_is_not_asked() {
        let (answers, mut orders) = mpsc::unbounded_channel();
        tokio::task::LocalSet::new()
            .run_until(async {
                tokio::task::spawn_local(async move {
                    while let Some(Order::Answer(answer)) = orders.recv().await {
                        answer.send(()).unwrap();
                    }
                });
                let (hangs, held) = mpsc::unbounded_channel();
                let (ended, _) = mpsc::unbounded_channel();
                let silent = async |workers: &[_]| {
                    ask(workers, |answer| Some(Order::Answer(answer)))
                        .within(Duration::from_millis(200))
                        .await
                };
                assert_eq!(silent(&[answers.clone(), ended.clone()]).await, None);
                assert_eq!(silent(&[answers.clone(), ended, hangs.clone()]).await, Some(2));
                drop(held);
                assert_eq!(silent(&[answers, hangs]).await, None);
            })
            .await;
    }
}
