//! Datagrams that the kernel has dealt to another worker than the one that has their connection.
//!
//! The kernel chooses among the sockets of an address by the addresses and ports of both ends. When a client's port changes, by a NAT or by
//! migration, its packets come to another worker, which passes them on here.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

/// Datagrams that wait for one worker at most; more are lost, as on a path.
const MOST: usize = 1024;

/// A datagram that was passed on.
#[derive(Debug)]
pub struct Passed {
    /// The peer's address.
    pub from: SocketAddr,
    /// The address that it was sent to.
    pub to: SocketAddr,
    /// The datagram.
    pub bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct Mailbox {
    waiting: VecDeque<Passed>,
    waker: Option<Waker>,
}

/// What the workers of one listener pass on to each other.
#[derive(Debug)]
pub struct Steering {
    mailboxes: Vec<Mutex<Mailbox>>,
}

impl Steering {
    /// For so many workers.
    pub fn new(workers: usize) -> Self {
        Self { mailboxes: (0..workers).map(|_| Mutex::default()).collect() }
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.mailboxes.len()
    }

    fn mailbox(&self, worker: usize) -> Option<MutexGuard<'_, Mailbox>> {
        // A mailbox is whole whenever its lock is free.
        Some(self.mailboxes.get(worker)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Passes a copy of a datagram on to the worker that has its connection.
    pub fn pass_on(&self, worker: usize, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let Some(mut mailbox) = self.mailbox(worker) else { return };
        if mailbox.waiting.len() < MOST {
            mailbox.waiting.push_back(Passed { from, to, bytes: bytes.to_vec() });
        }
        let waker = mailbox.waker.take();
        drop(mailbox);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What was passed on to this worker; its task is woken when there is more.
    pub fn take(&self, worker: usize, cx: &Context<'_>) -> VecDeque<Passed> {
        let Some(mut mailbox) = self.mailbox(worker) else { return VecDeque::new() };
        mailbox.waker = Some(cx.waker().clone());
        std::mem::take(&mut mailbox.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_reach_their_worker_and_no_more_than_there_is_room_for() {
        let steering = Steering::new(2);
        let cx = Context::from_waker(Waker::noop());
        let (from, to) = ("192.0.2.1:9".parse().unwrap(), "192.0.2.2:443".parse().unwrap());
        for _ in 0..MOST + 5 {
            steering.pass_on(1, from, to, b"packet");
        }
        steering.pass_on(7, from, to, b"to nobody");
        assert!(steering.take(0, &cx).is_empty());
        let passed = steering.take(1, &cx);
        assert_eq!((passed.len(), &*passed[0].bytes, passed[0].from), (MOST, &b"packet"[..], from));
        assert!(steering.take(1, &cx).is_empty());
    }
}
