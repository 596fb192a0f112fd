//! Which backend a connection ID belongs to.
//!
//! Two kinds of IDs are known. A backend's own, learned from the source of its long headers, is what its client sends from then on. The one
//! that a client has chosen for its first packets leads repetitions of them to the same backend until then. Both are forgotten when they
//! have not been used for a while, and each kind has a bound of its own: clients, who can make up any number of IDs, displace only what
//! clients have chosen. An ID that a backend has issued is never taken over by a client's choice.
//!
//! A short header does not say how long its ID is. The IDs that backends have issued have few different lengths, each of which is tried;
//! the cost of a look-up depends on their number alone, which is 20 at most.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use super::{ConnectionId, MAX_CONNECTION_ID};

/// Whose choice an ID is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdKind {
    /// The client's, for its first packets.
    Chosen,
    /// The backend's.
    Issued,
}

/// The known IDs; `B` is what a backend is known by.
#[derive(Debug)]
pub struct IdTable<B> {
    known: HashMap<ConnectionId, Known<B>>,
    /// How long an ID that is not used stays known.
    idle: Option<Duration>,
    /// How many IDs of each kind there may be.
    cap: usize,
    chosen: Order,
    issued: Order,
    /// How many issued IDs have each length.
    lengths: [usize; MAX_CONNECTION_ID + 1],
}

#[derive(Debug)]
struct Known<B> {
    backend: B,
    kind: IdKind,
    used: Instant,
}

/// The IDs of one kind, and when each is to be looked at: an ID that is used is not moved, but looked at again later.
#[derive(Debug, Default)]
struct Order {
    queue: BinaryHeap<Reverse<(Instant, ConnectionId)>>,
    count: usize,
}

impl<B: Copy + PartialEq> IdTable<B> {
    /// A table for `cap` IDs of each kind, which are forgotten when they have not been used for `idle`, if that is given.
    pub fn new(cap: usize, idle: Option<Duration>) -> Self {
        let (chosen, issued) = (Order::default(), Order::default());
        Self { known: HashMap::new(), idle, cap: cap.max(1), chosen, issued, lengths: Default::default() }
    }

    /// Changes the bounds for what is to come.
    pub fn set_limits(&mut self, cap: usize, idle: Option<Duration>) {
        (self.cap, self.idle) = (cap.max(1), idle);
    }

    /// How many IDs are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no ID is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The backend of an ID that is known whole, as a long header has it.
    pub fn find(&mut self, id: &[u8], now: Instant) -> Option<(ConnectionId, B)> {
        let id = ConnectionId::new(id).filter(|id| !id.is_empty())?;
        let known = self.known.get_mut(&id)?;
        known.used = now;
        Some((id, known.backend))
    }

    /// The backend of the issued ID that `bytes` begin with, as behind a short header.
    pub fn find_prefix(&mut self, bytes: &[u8], now: Instant) -> Option<(ConnectionId, B)> {
        let lengths = self.lengths.iter().enumerate().rev();
        for (length, _) in lengths.filter(|(length, count)| *length > 0 && **count > 0) {
            let Some(id) = bytes.get(..length).and_then(ConnectionId::new) else { continue };
            if let Some(known) = self.known.get_mut(&id).filter(|known| known.kind == IdKind::Issued) {
                known.used = now;
                return Some((id, known.backend));
            }
        }
        None
    }

    /// The backend that has issued an ID, where one has.
    pub fn issuer(&self, id: &ConnectionId) -> Option<B> {
        let known = self.known.get(id)?;
        (known.kind == IdKind::Issued).then_some(known.backend)
    }

    /// Learns an ID. The outcome says whether it is new, and what was displaced for it; an ID that is not learned, because it is empty or is
    /// issued by a backend already and chosen now, is not new.
    pub fn learn(&mut self, id: ConnectionId, kind: IdKind, backend: B, now: Instant) -> Learned {
        let mut learned = Learned::default();
        if id.is_empty() {
            return learned;
        }
        let earlier = self.known.get(&id).map(|known| known.kind);
        if earlier == Some(IdKind::Issued) && kind == IdKind::Chosen {
            return learned;
        }
        learned.is_new = earlier != Some(kind);
        if learned.is_new {
            if let Some(earlier) = earlier {
                self.count(id, earlier, false);
            }
            while self.order(kind).count >= self.cap
                && let Some(displaced) = self.displace(kind)
            {
                learned.displaced = Some(displaced);
            }
            self.count(id, kind, true);
            let due = self.idle.map_or(now, |idle| now + idle);
            self.order(kind).queue.push(Reverse((due, id)));
        }
        self.known.insert(id, Known { backend, kind, used: now });
        learned
    }

    /// Forgets the IDs that have not been used for too long; each issued one is told to `forgotten`. The work is in proportion to the
    /// IDs that have become due, each of which has been learned or used since it was looked at before.
    pub fn expire(&mut self, now: Instant, mut forgotten: impl FnMut(ConnectionId)) {
        let Some(idle) = self.idle else { return };
        for kind in [IdKind::Chosen, IdKind::Issued] {
            while let Some(Reverse((due, id))) = self.order(kind).queue.peek().copied()
                && due <= now
            {
                self.order(kind).queue.pop();
                let Some(known) = self.known.get(&id).filter(|known| known.kind == kind) else { continue };
                let due = known.used + idle;
                if due > now {
                    self.order(kind).queue.push(Reverse((due, id)));
                } else {
                    self.forget(id, kind);
                    if kind == IdKind::Issued {
                        forgotten(id);
                    }
                }
            }
        }
    }

    /// Forgets the ID of this kind whose turn is next.
    fn displace(&mut self, kind: IdKind) -> Option<ConnectionId> {
        loop {
            let Reverse((_, id)) = self.order(kind).queue.pop()?;
            if self.known.get(&id).is_some_and(|known| known.kind == kind) {
                self.forget(id, kind);
                return Some(id);
            }
        }
    }

    fn forget(&mut self, id: ConnectionId, kind: IdKind) {
        self.known.remove(&id);
        self.count(id, kind, false);
    }

    fn count(&mut self, id: ConnectionId, kind: IdKind, is_more: bool) {
        let step = |count: &mut usize| *count = if is_more { *count + 1 } else { count.saturating_sub(1) };
        step(&mut self.order(kind).count);
        if kind == IdKind::Issued
            && let Some(count) = self.lengths.get_mut(id.len())
        {
            step(count);
        }
    }

    fn order(&mut self, kind: IdKind) -> &mut Order {
        match kind {
            IdKind::Chosen => &mut self.chosen,
            IdKind::Issued => &mut self.issued,
        }
    }
}

/// What learning an ID came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Learned {
    /// Whether the ID was not known before as one of this kind.
    pub is_new: bool,
    /// The ID that was forgotten for it.
    pub displaced: Option<ConnectionId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IDLE: Duration = Duration::from_secs(60);

    fn id(bytes: &[u8]) -> ConnectionId {
        ConnectionId::new(bytes).unwrap()
    }

    fn table(cap: usize) -> (IdTable<u8>, Instant) {
        (IdTable::new(cap, Some(IDLE)), Instant::now())
    }

    #[test]
    fn short_headers_find_issued_ids_of_every_length_by_their_beginning() {
        let (mut table, now) = table(100);
        for length in 1..=20u8 {
            table.learn(id(&vec![length; usize::from(length)]), IdKind::Issued, length, now);
        }
        for length in 1..=20u8 {
            let packet = [&vec![length; usize::from(length)][..], &[0xff; 5]].concat();
            assert_eq!(table.find_prefix(&packet, now).map(|(_, backend)| backend), Some(length));
        }
        assert_eq!(table.find_prefix(&[0xff; 30], now), None);
        assert_eq!(table.find_prefix(&[20; 19], now), None, "shorter than the ID that it begins");
    }

    #[test]
    fn the_longest_id_wins_and_chosen_ids_do_not_count_behind_a_short_header() {
        let (mut table, now) = table(100);
        table.learn(id(&[1, 2]), IdKind::Issued, 1, now);
        table.learn(id(&[1, 2, 3]), IdKind::Issued, 2, now);
        table.learn(id(&[1, 2, 3, 4]), IdKind::Chosen, 3, now);
        assert_eq!(table.find_prefix(&[1, 2, 3, 4, 5], now).map(|found| found.1), Some(2));
        assert_eq!(table.find(&[1, 2, 3, 4], now).map(|found| found.1), Some(3));
    }

    #[test]
    fn no_client_takes_over_the_id_of_a_backend() {
        let (mut table, now) = table(100);
        assert!(table.learn(id(b"backend1"), IdKind::Issued, 1, now).is_new);
        assert!(!table.learn(id(b"backend1"), IdKind::Chosen, 2, now).is_new);
        assert_eq!(table.issuer(&id(b"backend1")), Some(1));
        assert_eq!(table.find(b"backend1", now).map(|found| found.1), Some(1));
        assert!(table.learn(id(b"client01"), IdKind::Chosen, 2, now).is_new);
        assert_eq!(table.issuer(&id(b"client01")), None);
        assert!(table.learn(id(b"client01"), IdKind::Issued, 3, now).is_new);
        assert_eq!(table.find_prefix(b"client01...", now).map(|found| found.1), Some(3));
        assert!(!table.learn(ConnectionId::EMPTY, IdKind::Issued, 3, now).is_new);
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn ids_in_use_stay_and_others_go() {
        let (mut table, start) = table(100);
        table.learn(id(b"used"), IdKind::Issued, 1, start);
        table.learn(id(b"left"), IdKind::Issued, 1, start);
        table.learn(id(b"first"), IdKind::Chosen, 1, start);
        let later = start + IDLE / 2;
        assert!(table.find_prefix(b"used and more", later).is_some());
        let mut forgotten = Vec::new();
        table.expire(start + IDLE, |id| forgotten.push(id));
        assert_eq!((forgotten, table.len()), (vec![id(b"left")], 1));
        table.expire(later + IDLE, |_| {});
        assert!(table.is_empty());
        assert_eq!(table.lengths, [0; 21]);
    }

    #[test]
    fn a_flood_of_chosen_ids_displaces_its_own_kind_alone() {
        let (mut table, now) = table(10);
        for number in 0..10u8 {
            table.learn(id(&[0xee, number]), IdKind::Issued, 1, now);
        }
        for number in 0..10_000u32 {
            table.learn(id(&number.to_be_bytes()), IdKind::Chosen, 2, now);
        }
        assert_eq!(table.len(), 20);
        assert!((0..10u8).all(|number| table.find_prefix(&[0xee, number, 0], now).is_some()));
        let over = table.learn(id(&[0xee, 10]), IdKind::Issued, 1, now);
        assert_eq!(over.displaced, Some(id(&[0xee, 0])));
    }

    proptest! {
        /// Against a table that does everything the slow way.
        #[test]
        fn what_was_learned_is_found_until_it_is_idle(
            steps in prop::collection::vec((0u8..4, prop::collection::vec(0u8..3, 0..4), 0u8..5, 0u64..40), 0..200),
        ) {
            let (mut table, start) = table(1000);
            let mut model: HashMap<Vec<u8>, (IdKind, u8, Instant)> = HashMap::new();
            let mut now = start;
            for (step, bytes, backend, seconds) in steps {
                now += Duration::from_secs(seconds);
                table.expire(now, |_| {});
                model.retain(|_, (_, _, used)| *used + IDLE > now);
                prop_assert_eq!(table.len(), model.len());
                match step {
                    0 | 1 => {
                        let kind = if step == 0 { IdKind::Chosen } else { IdKind::Issued };
                        table.learn(id(&bytes), kind, backend, now);
                        let is_issued = model.get(&bytes).is_some_and(|known| known.0 == IdKind::Issued);
                        if !(bytes.is_empty() || is_issued && kind == IdKind::Chosen) {
                            model.insert(bytes, (kind, backend, now));
                        }
                    }
                    2 => {
                        let found = table.find(&bytes, now).map(|found| found.1);
                        let known = model.get_mut(&bytes);
                        prop_assert_eq!(found, known.as_ref().map(|known| known.1));
                        if let Some(known) = known { known.2 = now }
                    }
                    _ => {
                        let found = table.find_prefix(&bytes, now).map(|found| found.1);
                        let lengths = (1..=bytes.len()).rev();
                        let prefix = lengths.map(|length| bytes[..length].to_vec())
                            .find(|prefix| model.get(prefix).is_some_and(|known| known.0 == IdKind::Issued));
                        let known = prefix.and_then(|prefix| model.get_mut(&prefix));
                        prop_assert_eq!(found, known.as_ref().map(|known| known.1));
                        if let Some(known) = known { known.2 = now }
                    }
                }
            }
        }
    }
}
