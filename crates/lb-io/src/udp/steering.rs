//! Datagrams that came to another socket, or another process, than the one that has their connection.
//!
//! The kernel chooses among the sockets of an address by the addresses and ports of both ends. When a client's port changes, by a NAT or by
//! migration, its packets come to another worker. When a listener takes the place of another one, or a process that of another one, both
//! have the same sockets, and the later one reads them. Every table of connections has a number here by which it is passed what belongs to it;
//! what belongs to the process before goes there over a socket (see [`crate::udp::hand_over`]).

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Waker};

use crate::udp::hand_over::Predecessor;

/// Datagrams that wait for one table at most; more are lost, as on a path.
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

/// A table of connections, in whichever process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableId {
    /// Tells processes apart.
    pub epoch: u16,
    /// Tells the tables of a process apart.
    pub number: u16,
}

#[derive(Debug, Default)]
struct Mailbox {
    waiting: VecDeque<Passed>,
    waker: Option<Waker>,
}

/// A mailbox is whole whenever its lock is free.
fn locked(mailbox: &Mutex<Mailbox>) -> MutexGuard<'_, Mailbox> {
    mailbox.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default)]
struct Tables {
    mailboxes: HashMap<u16, Arc<Mutex<Mailbox>>>,
    last: u16,
}

/// What the tables of connections of a process pass on to each other.
#[derive(Debug)]
pub struct Steering {
    epoch: u16,
    tables: RwLock<Tables>,
    predecessor: Option<Predecessor>,
    is_shared: AtomicBool,
}

impl Steering {
    /// For the process `epoch`, which takes over from `predecessor`.
    pub fn new(epoch: u16, predecessor: Option<Predecessor>) -> Arc<Self> {
        let is_shared = AtomicBool::new(false);
        Arc::new(Self { epoch, tables: RwLock::default(), predecessor, is_shared })
    }

    /// The epochs of this process and of those before it that may still have connections.
    pub fn epochs(&self) -> Vec<u16> {
        let earlier =
            self.predecessor.iter().filter(|earlier| !earlier.is_gone()).flat_map(Predecessor::epochs);
        [self.epoch].into_iter().chain(earlier.copied()).collect()
    }

    /// Tells the process before that this one reads the UDP sockets at these addresses.
    pub fn tell_reads(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        if let Some(earlier) = &self.predecessor {
            addresses.into_iter().for_each(|address| earlier.reads(address));
        }
    }

    /// Whether another process reads the sockets of this one and has connections of its own, about which nothing is known here.
    pub fn is_shared(&self) -> bool {
        self.is_shared.load(Ordering::Relaxed)
    }

    /// Says whether another process has the sockets of this one.
    pub fn set_shared(&self, is_shared: bool) {
        self.is_shared.store(is_shared, Ordering::Relaxed);
    }

    /// A number for a table of connections; `None` when all are taken.
    pub fn register(self: &Arc<Self>) -> Option<Registered> {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        // One that was given back long ago rather than just now: packets of connections that are gone are under way for a while.
        let after = tables.last.wrapping_add(1);
        let number =
            (after..=u16::MAX).chain(0..after).find(|number| !tables.mailboxes.contains_key(number))?;
        tables.last = number;
        let mailbox = Arc::default();
        tables.mailboxes.insert(number, Arc::clone(&mailbox));
        let id = TableId { epoch: self.epoch, number };
        Some(Registered { id, mailbox, steering: Arc::clone(self) })
    }

    /// Passes a copy of a datagram on to the table that has its connection. False when there is no such table.
    pub fn pass_on(&self, table: TableId, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> bool {
        if table.epoch != self.epoch {
            let earlier = self.predecessor.as_ref().filter(|earlier| earlier.epochs().contains(&table.epoch));
            return earlier.is_some_and(|earlier| earlier.pass_on(table, from, to, bytes));
        }
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let Some(mailbox) = tables.mailboxes.get(&table.number).map(Arc::clone) else { return false };
        drop(tables);
        let mut mailbox = locked(&mailbox);
        if mailbox.waiting.len() < MOST {
            mailbox.waiting.push_back(Passed { from, to, bytes: bytes.to_vec() });
        }
        let waker = mailbox.waker.take();
        drop(mailbox);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }
}

/// A table that has a number, until this is dropped.
#[derive(Debug)]
pub struct Registered {
    id: TableId,
    mailbox: Arc<Mutex<Mailbox>>,
    steering: Arc<Steering>,
}

impl Registered {
    /// Its number.
    pub fn id(&self) -> TableId {
        self.id
    }

    /// Where others are.
    pub fn steering(&self) -> &Steering {
        &self.steering
    }

    /// What was passed on to this table; the task is woken when there is more.
    pub fn take(&self, cx: &Context<'_>) -> VecDeque<Passed> {
        let mut mailbox = locked(&self.mailbox);
        match mailbox.waker.as_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            None => mailbox.waker = Some(cx.waker().clone()),
        }
        std::mem::take(&mut mailbox.waiting)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut tables = self.steering.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.mailboxes.remove(&self.id.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_reach_their_table_and_no_more_than_there_is_room_for() {
        let steering = Steering::new(7, None);
        let [one, other] = [steering.register().unwrap(), steering.register().unwrap()];
        let cx = Context::from_waker(Waker::noop());
        let (from, to) = ("192.0.2.1:9".parse().unwrap(), "192.0.2.2:443".parse().unwrap());
        for _ in 0..MOST + 5 {
            assert!(steering.pass_on(other.id(), from, to, b"packet"));
        }
        assert!(one.take(&cx).is_empty());
        let passed = other.take(&cx);
        assert_eq!((passed.len(), &*passed[0].bytes, passed[0].from), (MOST, &b"packet"[..], from));
        assert!(other.take(&cx).is_empty());
        let gone = one.id();
        drop(one);
        assert!(!steering.pass_on(gone, from, to, b"to nobody"));
        assert!(!steering.pass_on(TableId { epoch: 8, ..other.id() }, from, to, b"to nobody"));
        assert_ne!(steering.register().unwrap().id(), gone, "its packets are still under way");
    }
}
