//! Which responses of a connection go first (RFC 9218), as quiche is told.

use std::collections::BTreeMap;

use lb_http::h3::ExtensiblePriority;

use crate::connection::Quic;

/// What is added to an urgency: quiche's own of a stream that nothing was said of is 127, and the default of RFC 9218 §4.1 is 3.
const OFFSET: u8 = 124;

/// Requests that have not come, whose priorities are kept (RFC 9218 §7 leaves the number to the server).
const MOST: usize = 256;

/// Has quiche send a response by its priority.
pub(super) fn apply(quic: &mut Quic, id: u64, priority: ExtensiblePriority) {
    // A stream that is gone needs none.
    let _ = quic.stream_priority(id, priority.urgency.saturating_add(OFFSET), priority.incremental);
}

/// Priorities of requests that have not come: a PRIORITY_UPDATE may overtake what it is about.
#[derive(Debug, Default)]
pub(super) struct Awaited(BTreeMap<u64, ExtensiblePriority>);

impl Awaited {
    /// Keeps the last word on a request. Beyond [`MOST`] the oldest request is forgotten, which most likely was over already.
    pub(super) fn keep(&mut self, id: u64, priority: ExtensiblePriority) {
        self.0.insert(id, priority);
        if self.0.len() > MOST {
            self.0.pop_first();
        }
    }

    /// What was said of a request that comes now.
    pub(super) fn take(&mut self, id: u64) -> Option<ExtensiblePriority> {
        if self.0.is_empty() { None } else { self.0.remove(&id) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urgent(urgency: u8) -> ExtensiblePriority {
        ExtensiblePriority { urgency, incremental: false }
    }

    #[test]
    fn the_last_word_on_a_request_counts_once() {
        let mut awaited = Awaited::default();
        awaited.keep(8, urgent(5));
        awaited.keep(8, urgent(1));
        assert_eq!(awaited.take(8), Some(urgent(1)));
        assert_eq!((awaited.take(8), awaited.take(12)), (None, None));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut awaited = Awaited::default();
        (0..1000).for_each(|number| awaited.keep(number * 4, urgent(2)));
        assert_eq!(awaited.0.len(), MOST);
        assert_eq!((awaited.take(0), awaited.take(999 * 4)), (None, Some(urgent(2))));
    }
}
