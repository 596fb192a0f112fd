//! Connections that serve many requests, as their member counts them.

use std::sync::Arc;

use crate::gate::Place;
use crate::tally::Tally;

/// What a connection to a member holds while it is open, in use or idle: its count, and its room where the member has limits. It refers to
/// the counts alone, so that a connection which other pools go on using keeps nothing else of a member that is gone.
#[derive(Debug)]
pub struct Connection {
    tallies: Arc<[Tally]>,
    worker: usize,
    _place: Option<Place>,
}

impl Connection {
    pub(crate) fn new(tallies: Arc<[Tally]>, worker: usize, place: Option<Place>) -> Self {
        if let Some(tally) = tallies.get(worker) {
            tally.open();
        }
        Self { tallies, worker, _place: place }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(tally) = self.tallies.get(self.worker) {
            tally.close();
        }
    }
}
