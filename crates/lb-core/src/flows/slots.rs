//! Lists of flows that one can be taken out of anywhere, at the same small cost.

/// Stands for no flow.
pub(super) const NOBODY: u32 = u32::MAX;

/// A fixed number of lists. A flow is in one at most.
#[derive(Debug)]
pub(super) struct Lists {
    first: Vec<u32>,
    links: Vec<Link>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
    list: u32,
}

const FREE: Link = Link { before: NOBODY, after: NOBODY, list: NOBODY };

impl Lists {
    pub(super) fn new(count: u64) -> Self {
        Self { first: vec![NOBODY; usize::try_from(count).unwrap_or(1).max(1)], links: Vec::new() }
    }

    /// The flow that stands first in the list of this turn.
    pub(super) fn first(&self, turn: u64) -> Option<u32> {
        self.first.get(self.place(turn)).copied().filter(|flow| *flow != NOBODY)
    }

    /// Puts a flow that is in no list into that of this turn.
    pub(super) fn push(&mut self, turn: u64, flow: u32) {
        let list = self.place(turn);
        let Some(first) = self.first.get_mut(list) else { return };
        let after = std::mem::replace(first, flow);
        let link = Link { before: NOBODY, after, list: u32::try_from(list).unwrap_or(NOBODY) };
        if self.links.len() <= super::place(flow) {
            self.links.resize(super::place(flow).saturating_add(1), FREE);
        }
        if let Some(place) = self.links.get_mut(super::place(flow)) {
            *place = link;
        }
        if let Some(next) = self.links.get_mut(super::place(after)) {
            next.before = flow;
        }
    }

    /// Takes a flow out of its list.
    pub(super) fn remove(&mut self, flow: u32) {
        let Some(place) = self.links.get_mut(super::place(flow)) else { return };
        let link = std::mem::replace(place, FREE);
        if link.list == NOBODY {
            return;
        }
        match self.links.get_mut(super::place(link.before)) {
            Some(before) => before.after = link.after,
            None => {
                if let Some(first) = self.first.get_mut(super::place(link.list)) {
                    *first = link.after;
                }
            }
        }
        if let Some(after) = self.links.get_mut(super::place(link.after)) {
            after.before = link.before;
        }
    }

    fn place(&self, turn: u64) -> usize {
        let count = u64::try_from(self.first.len()).unwrap_or(1).max(1);
        usize::try_from(turn % count).unwrap_or(0)
    }
}
