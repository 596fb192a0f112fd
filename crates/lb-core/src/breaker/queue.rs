//! A first-come-first-served queue whose entries may leave from the middle.
//!
//! Places are linked both ways within one vector, and used again: an entry that leaves frees its place at once, so the memory is that of
//! the greatest number of entries that ever waited together, however many arrive and leave.

use std::time::Instant;

/// A place in a queue. It stays valid until it is spent, and does not match the entry that has the place afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    at: u32,
    serial: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Queue<W> {
    places: Vec<QueuePlace<W>>,
    free: Vec<u32>,
    head: Option<u32>,
    tail: Option<u32>,
    len: u32,
    serial: u64,
}

#[derive(Clone, Debug)]
struct QueuePlace<W> {
    /// What waits here; `None` when the place is free.
    waiting: Option<Waiting<W>>,
    before: Option<u32>,
    after: Option<u32>,
}

#[derive(Clone, Debug)]
struct Waiting<W> {
    serial: u64,
    until: Instant,
    waiter: W,
}

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new(), head: None, tail: None, len: 0, serial: 0 }
    }
}

impl<W> Queue<W> {
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn first(&self) -> Option<&W> {
        Some(&self.places.get(index(self.head?))?.waiting.as_ref()?.waiter)
    }

    pub(super) fn is_first(&self, ticket: Ticket) -> bool {
        self.head == Some(ticket.at) && self.waiting(ticket).is_some()
    }

    pub(super) fn until(&self, ticket: Ticket) -> Option<Instant> {
        self.waiting(ticket).map(|waiting| waiting.until)
    }

    pub(super) fn waiter(&mut self, ticket: Ticket) -> Option<&mut W> {
        let waiting = self.places.get_mut(index(ticket.at))?.waiting.as_mut()?;
        (waiting.serial == ticket.serial).then_some(&mut waiting.waiter)
    }

    pub(super) fn push(&mut self, until: Instant, waiter: W) -> Ticket {
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let place =
            QueuePlace { waiting: Some(Waiting { serial, until, waiter }), before: self.tail, after: None };
        let at = match self.free.pop() {
            Some(at) => {
                if let Some(free) = self.places.get_mut(index(at)) {
                    *free = place;
                }
                at
            }
            None => {
                // No more places than a u32 counts: the limit on the queue is one.
                let at = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
                self.places.push(place);
                at
            }
        };
        match self.tail.and_then(|tail| self.places.get_mut(index(tail))) {
            Some(last) => last.after = Some(at),
            None => self.head = Some(at),
        }
        self.tail = Some(at);
        self.len += 1;
        Ticket { at, serial }
    }

    /// Frees a place; a spent ticket is ignored.
    pub(super) fn remove(&mut self, ticket: Ticket) {
        if self.waiting(ticket).is_none() {
            return;
        }
        let Some(place) = self.places.get_mut(index(ticket.at)) else { return };
        place.waiting = None;
        let (before, after) = (place.before.take(), place.after.take());
        match before.and_then(|before| self.places.get_mut(index(before))) {
            Some(before) => before.after = after,
            None => self.head = after,
        }
        match after.and_then(|after| self.places.get_mut(index(after))) {
            Some(after) => after.before = before,
            None => self.tail = before,
        }
        self.free.push(ticket.at);
        self.len -= 1;
    }

    fn waiting(&self, ticket: Ticket) -> Option<&Waiting<W>> {
        let waiting = self.places.get(index(ticket.at))?.waiting.as_ref()?;
        (waiting.serial == ticket.serial).then_some(waiting)
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }
}

#[inline]
fn index(at: u32) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}
