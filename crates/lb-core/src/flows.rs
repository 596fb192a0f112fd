//! Flows of datagrams: which datagrams belong together, and when a flow is over.
//!
//! A flow is what one client address and port sends to one local address. It lives until nothing has passed for the idle timeout, or until its
//! owner ends it. A full table takes no new flow: those that live go on, so that a flood of made-up senders takes nothing from clients that were
//! there before.
//!
//! A datagram costs one look-up and one store of the time. Flows stand in a wheel of `SLOTS` lists by when they are looked at next: when a list's
//! turn comes, a flow that was active meanwhile moves on to the list of its new time, and others are over. So each flow moves once in an idle
//! timeout, however many datagrams it has, and is found over at most a thirty-second part of the timeout late.

mod key;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::{Duration, Instant};

pub use key::{FlowHash, FlowKey};
use slots::{Lists, NOBODY};

/// Lists of the wheel: twice as many as an idle timeout takes, so that what is put in never falls on the list at hand.
const SLOTS: u64 = 64;

/// Turns of the wheel in an idle timeout.
const TURNS: u32 = 32;

/// The flows of one listener on one worker, each with what its owner keeps of it.
#[derive(Debug)]
pub struct FlowTable<V> {
    index: HashMap<FlowKey, u32, FlowHash>,
    entries: Vec<Entry<V>>,
    /// Entries without a flow.
    free: Vec<u32>,
    lists: Lists,
    /// When turn 0 began.
    origin: Instant,
    /// The last turn whose list is empty, or is being emptied.
    turn: u64,
    idle: Duration,
    step: Duration,
    most: usize,
}

#[derive(Debug)]
struct Entry<V> {
    key: FlowKey,
    active: Instant,
    value: Option<V>,
}

/// There are as many flows as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFull;

impl<V> FlowTable<V> {
    /// A table of `most` flows at most, which are over after `idle` without a datagram. `seed` is secret: without it senders could be made up
    /// whose look-ups are slow.
    pub fn new(most: usize, idle: Duration, seed: u64, now: Instant) -> Self {
        Self {
            index: HashMap::with_hasher(FlowHash::new(seed)),
            entries: Vec::new(),
            free: Vec::new(),
            lists: Lists::new(SLOTS),
            origin: now,
            turn: 0,
            idle,
            step: step(idle),
            most,
        }
    }

    /// Changes how many flows there may be, and how long one may be silent. Flows that are there keep their places.
    pub fn set_limits(&mut self, most: usize, idle: Duration, now: Instant) {
        self.most = most;
        if self.idle == idle {
            return;
        }
        (self.idle, self.step, self.origin, self.turn) = (idle, step(idle), now, 0);
        self.lists = Lists::new(SLOTS);
        for at in self.index.values().copied().collect::<Vec<_>>() {
            self.list(at);
        }
    }

    /// How many flows there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The number of the flow that this key belongs to.
    #[inline]
    pub fn find(&self, key: &FlowKey) -> Option<u32> {
        self.index.get(key).copied()
    }

    /// What is kept of a flow.
    #[inline]
    pub fn get(&self, flow: u32) -> Option<&V> {
        self.entries.get(place(flow))?.value.as_ref()
    }

    /// What is kept of a flow of which a datagram passes now: its idle timeout begins anew.
    #[inline]
    pub fn touch(&mut self, flow: u32, now: Instant) -> Option<&mut V> {
        let entry = self.entries.get_mut(place(flow))?;
        entry.active = now;
        entry.value.as_mut()
    }

    /// What is kept of a flow, which stays as idle as it is.
    pub fn get_mut(&mut self, flow: u32) -> Option<&mut V> {
        self.entries.get_mut(place(flow))?.value.as_mut()
    }

    /// Whether there is room for another flow.
    pub fn has_room(&self) -> bool {
        self.index.len() < self.most
    }

    /// Adds a flow that begins now; `make` is given the flow's number. A flow that has this key already is replaced.
    ///
    /// # Errors
    /// When there are as many as there may be, or when `make` fails, with its error.
    pub fn insert<E: From<TableFull>>(
        &mut self,
        key: FlowKey,
        now: Instant,
        make: impl FnOnce(u32) -> Result<V, E>,
    ) -> Result<u32, E> {
        if let Some(earlier) = self.find(&key) {
            self.remove(earlier);
        }
        if !self.has_room() {
            return Err(TableFull.into());
        }
        let flow = self.free.last().copied().unwrap_or_else(|| number(self.entries.len()));
        let entry = Entry { key, active: now, value: Some(make(flow)?) };
        match self.entries.get_mut(place(flow)) {
            Some(place) => {
                self.free.pop();
                *place = entry;
            }
            None => self.entries.push(entry),
        }
        self.index.insert(key, flow);
        self.list(flow);
        Ok(flow)
    }

    /// Ends a flow.
    pub fn remove(&mut self, flow: u32) -> Option<V> {
        let entry = self.entries.get_mut(place(flow))?;
        let value = entry.value.take()?;
        self.index.remove(&entry.key);
        self.lists.remove(flow);
        self.free.push(flow);
        if self.index.is_empty() {
            // What a crowd needed is not kept for the next.
            self.entries = Vec::new();
            self.free = Vec::new();
            self.lists = Lists::new(SLOTS);
            self.index.shrink_to(0);
        }
        Some(value)
    }

    /// Ends the next flow that has been silent for too long. To be called until there is none.
    pub fn expire(&mut self, now: Instant) -> Option<V> {
        let due = self.turn_of(now);
        // Each list once is enough, however long ago the last look was.
        self.turn = self.turn.max(due.saturating_sub(SLOTS));
        loop {
            while let Some(flow) = self.lists.first(self.turn) {
                let active = self.entries.get(place(flow)).map_or(self.origin, |entry| entry.active);
                if now.saturating_duration_since(active) >= self.idle {
                    return self.remove(flow);
                }
                self.lists.remove(flow);
                self.list(flow);
            }
            if self.turn >= due {
                return None;
            }
            self.turn = self.turn.saturating_add(1);
        }
    }

    /// When [`Self::expire`] is to be called next; `None` while there is no flow.
    pub fn due(&self) -> Option<Instant> {
        if self.is_empty() {
            return None;
        }
        let next = u32::try_from(self.turn.saturating_add(1)).unwrap_or(u32::MAX);
        self.origin.checked_add(self.step.saturating_mul(next))
    }

    /// The numbers of all flows.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.index.values().copied()
    }

    /// The turn at hand at `now`.
    fn turn_of(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.origin).as_nanos();
        u64::try_from(since / self.step.as_nanos().max(1)).unwrap_or(u64::MAX)
    }

    /// Puts a flow into the list of the turn in which it is over, if it stays silent: behind the one at hand.
    fn list(&mut self, flow: u32) {
        let active = self.entries.get(place(flow)).map_or(self.origin, |entry| entry.active);
        let over = self.turn_of(active.checked_add(self.idle).unwrap_or(active)).saturating_add(1);
        let turn = over.clamp(self.turn.saturating_add(1), self.turn.saturating_add(SLOTS - 1));
        self.lists.push(turn, flow);
    }
}

fn step(idle: Duration) -> Duration {
    (idle / TURNS).max(Duration::from_millis(1))
}

fn place(flow: u32) -> usize {
    usize::try_from(flow).unwrap_or(usize::MAX)
}

fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(NOBODY)
}
