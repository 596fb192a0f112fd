//! The dynamic table (RFC 7541 §2.3.2 and §4).

use std::collections::VecDeque;

/// What an entry costs beside its bytes (RFC 7541 §4.1).
pub const ENTRY_OVERHEAD: usize = 32;

/// Fields in the order in which they came, the oldest evicted when a new one needs its room.
///
/// The text of all entries stands in one buffer, oldest first. Evicting moves the start of the living part; when as much lies dead
/// before it as the table may hold at all, the living part moves to the front. So the buffer never holds more than twice the size of
/// the table, and each byte moves at most once.
#[derive(Debug)]
pub struct Table {
    text: Vec<u8>,
    /// Newest first.
    entries: VecDeque<Entry>,
    /// The sum of RFC 7541 §4.1.
    size: usize,
    max_size: usize,
    /// Entries inserted so far.
    inserted: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u32,
    /// Where the name ends and the value starts.
    middle: u32,
    end: u32,
}

impl Table {
    /// An empty table that takes no memory yet.
    pub fn new(max_size: usize) -> Self {
        Self { text: Vec::new(), entries: VecDeque::new(), size: 0, max_size, inserted: 0 }
    }

    /// Entries in the table.
    #[inline]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no entry is in the table.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The size as RFC 7541 §4.1 counts it.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The most that [`Table::size`] may become.
    #[inline]
    pub fn max_size(&self) -> usize {
        self.max_size
    }

    /// Entries inserted since the start, wrapping. An entry's number is this count just before it was inserted.
    #[inline]
    pub fn inserted(&self) -> u32 {
        self.inserted
    }

    /// Name and value of an entry; the newest is 0.
    #[inline]
    pub fn entry(&self, at: usize) -> Option<(&[u8], &[u8])> {
        let entry = self.entries.get(at)?;
        let whole = self.text.get(entry.start as usize..entry.end as usize)?;
        whole.split_at_checked(entry.middle.wrapping_sub(entry.start) as usize)
    }

    /// Changes the maximum, and evicts what no longer fits.
    pub fn set_max_size(&mut self, max_size: usize) {
        self.max_size = max_size;
        self.evict_to(max_size);
    }

    /// Adds an entry. One that is larger than the table leaves it empty (RFC 7541 §4.4).
    pub fn insert(&mut self, name: &[u8], value: &[u8]) {
        if self.make_room(name.len(), value.len()) {
            self.text.extend_from_slice(name);
            self.finish(name.len(), value);
        }
    }

    /// Adds an entry with the name of another one, which may be evicted by it.
    pub fn insert_with_name_of(&mut self, at: usize, value: &[u8]) {
        self.compact();
        let Some(entry) = self.entries.get(at).copied() else { return };
        let name = entry.start as usize..entry.middle as usize;
        // Evicting leaves the text where it is.
        if self.make_room(name.len(), value.len()) {
            let length = name.len();
            self.text.extend_from_within(name);
            self.finish(length, value);
        }
    }

    fn make_room(&mut self, name: usize, value: usize) -> bool {
        let need = name.saturating_add(value).saturating_add(ENTRY_OVERHEAD);
        let Some(rest) = self.max_size.checked_sub(need) else {
            self.evict_to(0);
            return false;
        };
        self.evict_to(rest);
        true
    }

    fn finish(&mut self, name: usize, value: &[u8]) {
        let middle = self.text.len();
        self.text.extend_from_slice(value);
        let end = self.text.len();
        self.size += name + value.len() + ENTRY_OVERHEAD;
        let start = (middle - name) as u32;
        self.entries.push_front(Entry { start, middle: middle as u32, end: end as u32 });
        self.inserted = self.inserted.wrapping_add(1);
        self.compact();
    }

    fn evict_to(&mut self, size: usize) {
        while self.size > size {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size -= oldest.end.wrapping_sub(oldest.start) as usize + ENTRY_OVERHEAD;
        }
    }

    fn compact(&mut self) {
        let dead = self.entries.back().map_or(self.text.len(), |oldest| oldest.start as usize);
        if dead < self.max_size.max(256) {
            return;
        }
        self.text.copy_within(dead.., 0);
        self.text.truncate(self.text.len() - dead);
        for entry in &mut self.entries {
            entry.start -= dead as u32;
            entry.middle -= dead as u32;
            entry.end -= dead as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Vec<u8>, Vec<u8>),
        Again(usize, Vec<u8>),
        Resize(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
        prop_oneof![
            4 => (bytes(60), bytes(200)).prop_map(|(name, value)| Step::Insert(name, value)),
            4 => (0usize..8, bytes(200)).prop_map(|(at, value)| Step::Again(at, value)),
            1 => (0usize..600).prop_map(Step::Resize),
        ]
    }

    proptest! {
        /// Against a list that does the same without any cleverness.
        #[test]
        fn it_does_what_a_plain_list_does(steps in prop::collection::vec(step(), 0..120)) {
            let (mut table, mut max) = (Table::new(500), 500);
            let mut list: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
            let size = |list: &[(Vec<u8>, Vec<u8>)]| list.iter().map(|(n, v)| n.len() + v.len() + 32).sum::<usize>();
            for step in steps {
                let added = match step {
                    Step::Insert(name, value) => {
                        table.insert(&name, &value);
                        Some((name, value))
                    }
                    Step::Again(at, value) => {
                        table.insert_with_name_of(at, &value);
                        list.get(at).map(|entry| (entry.0.clone(), value))
                    }
                    Step::Resize(to) => {
                        table.set_max_size(to);
                        max = to;
                        None
                    }
                };
                if let Some((name, value)) = added {
                    let need = name.len() + value.len() + 32;
                    while !list.is_empty() && size(&list) + need > max {
                        list.pop();
                    }
                    if need <= max {
                        list.insert(0, (name, value));
                    }
                }
                while size(&list) > max {
                    list.pop();
                }
                prop_assert_eq!(table.size(), size(&list));
                prop_assert_eq!(table.len(), list.len());
                for (at, (name, value)) in list.iter().enumerate() {
                    prop_assert_eq!(table.entry(at), Some((&name[..], &value[..])));
                }
                prop_assert_eq!(table.entry(list.len()), None);
                prop_assert!(table.text.len() <= 2 * 600 + 256);
            }
        }
    }
}
