//! Caps on how many connections are admitted: per client address over the whole process, and per listener.
//!
//! Taken once per connection, never per request.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

const SHARDS: usize = 16;

/// Counts connections per client address.
#[derive(Debug)]
pub struct AddressGate {
    cap: AtomicU32,
    shards: [Mutex<HashMap<IpAddr, u32>>; SHARDS],
}

impl AddressGate {
    /// A gate that admits `cap` connections per address.
    pub fn new(cap: u32) -> Arc<Self> {
        Arc::new(Self { cap: AtomicU32::new(cap), shards: Default::default() })
    }

    /// Changes the cap for connections to come.
    pub fn set_cap(&self, cap: u32) {
        self.cap.store(cap, Ordering::Relaxed);
    }

    /// Admits a connection from `address` while the ticket lives, or refuses it. IPv4-mapped IPv6 addresses count as IPv4.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Option<AddressTicket> {
        let address = address.to_canonical();
        let mut shard = self.shard(address);
        let count = shard.entry(address).or_insert(0);
        if *count >= self.cap.load(Ordering::Relaxed) {
            return None;
        }
        *count = count.saturating_add(1);
        drop(shard);
        Some(AddressTicket { gate: Arc::clone(self), address })
    }

    fn shard(&self, address: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        let last = match address {
            IpAddr::V4(v4) => v4.octets().into_iter().fold(0u8, u8::wrapping_add),
            IpAddr::V6(v6) => v6.octets().into_iter().fold(0u8, u8::wrapping_add),
        };
        let [first, ..] = &self.shards;
        // The counts stay right when a thread dies while it holds the lock: no update is ever half done.
        self.shards
            .get(usize::from(last) % SHARDS)
            .unwrap_or(first)
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// One admitted connection of an address.
#[derive(Debug)]
pub struct AddressTicket {
    gate: Arc<AddressGate>,
    address: IpAddr,
}

impl Drop for AddressTicket {
    fn drop(&mut self) {
        let mut shard = self.gate.shard(self.address);
        if let Some(count) = shard.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                shard.remove(&self.address);
            }
        }
    }
}

/// Counts the connections of a listener over all workers.
#[derive(Debug, Default)]
pub struct CountGate {
    open: AtomicUsize,
}

impl CountGate {
    /// Admits a connection while fewer than `cap` are open; the ticket gives the place back.
    pub fn admit(self: &Arc<Self>, cap: usize) -> Option<CountTicket> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let ticket = CountTicket { gate: Arc::clone(self) };
        (before < cap).then_some(ticket)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// One admitted connection of a listener.
#[derive(Debug)]
pub struct CountTicket {
    gate: Arc<CountGate>,
}

impl Drop for CountTicket {
    fn drop(&mut self) {
        self.gate.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_admitted_up_to_the_cap_and_again_after_it_left() {
        let gate = AddressGate::new(2);
        let one = IpAddr::from([127, 0, 0, 1]);
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        let first = gate.admit(one).unwrap();
        let _second = gate.admit(mapped).unwrap();
        assert!(gate.admit(one).is_none());
        assert!(gate.admit(IpAddr::from([127, 0, 0, 2])).is_some());
        drop(first);
        assert!(gate.admit(one).is_some());
        gate.set_cap(0);
        assert!(gate.admit(one).is_none());
    }

    #[test]
    fn nothing_is_remembered_of_an_address_that_left() {
        let gate = AddressGate::new(1);
        drop(gate.admit(IpAddr::from([10, 0, 0, 1])));
        assert!(gate.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn a_listener_refuses_beyond_its_cap_without_leaking_places() {
        let gate = Arc::new(CountGate::default());
        let first = gate.admit(1);
        assert!(first.is_some());
        assert!(gate.admit(1).is_none());
        assert_eq!(gate.open(), 1);
        drop(first);
        assert!(gate.admit(1).is_some());
    }
}
