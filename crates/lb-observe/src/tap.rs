//! Live taps: requests as they end, for whoever looks on (`GET /tap`, `expressgateway tap`).
//!
//! While no tap is open, a finished request costs one relaxed load. An open tap looks at the record that the access log has of each request, takes
//! those that its filter wants, and of these no more than its rate allows: one in so many where there are more. A line is written only then, and
//! handed over through a bounded queue that no worker waits for. No body is ever seen, and secrets in fields are masked (attack row D-06).

mod filter;
mod line;
mod sampler;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use lb_core::head::Fields;
use tokio::sync::mpsc;

use crate::access_log::AccessRecord;
pub use filter::TapFilter;
use sampler::Sampler;

/// Taps that may be open at a time.
pub const MAX_TAPS: usize = 4;

/// Lines that wait for a reader.
const QUEUED_LINES: usize = 256;

/// All taps of the process.
#[derive(Debug, Default)]
pub struct Taps {
    /// How many there are: what a worker looks at for each request.
    open: AtomicUsize,
    list: ArcSwap<Vec<Arc<Tap>>>,
    /// Held while the list is changed.
    changing: Mutex<()>,
}

/// What one tap wants, and how much of it there was.
#[derive(Debug)]
struct Tap {
    filter: TapFilter,
    lines: mpsc::Sender<Vec<u8>>,
    sampler: Sampler,
    matched: AtomicU64,
    shown: AtomicU64,
}

/// The end of a tap at which its lines come out. The tap is closed when this is dropped.
#[derive(Debug)]
pub struct OpenTap {
    taps: Arc<Taps>,
    tap: Arc<Tap>,
    lines: mpsc::Receiver<Vec<u8>>,
}

impl Taps {
    /// Whether any tap is open.
    #[inline]
    pub fn is_any(&self) -> bool {
        self.open.load(Relaxed) > 0
    }

    /// Opens a tap; `None` when as many are open as may be.
    pub fn open(self: &Arc<Self>, filter: TapFilter) -> Option<OpenTap> {
        let (sender, lines) = mpsc::channel(QUEUED_LINES);
        let tap = Arc::new(Tap {
            sampler: Sampler::new(filter.per_second),
            filter,
            lines: sender,
            matched: AtomicU64::new(0),
            shown: AtomicU64::new(0),
        });
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list = Vec::clone(&self.list.load());
        if list.len() >= MAX_TAPS {
            return None;
        }
        list.push(Arc::clone(&tap));
        self.set(list);
        Some(OpenTap { taps: Arc::clone(self), tap, lines })
    }

    fn close(&self, tap: &Arc<Tap>) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list = Vec::clone(&self.list.load());
        list.retain(|known| !Arc::ptr_eq(known, tap));
        self.set(list);
    }

    fn set(&self, list: Vec<Arc<Tap>>) {
        self.open.store(list.len(), Relaxed);
        self.list.store(Arc::new(list));
    }

    /// A request has ended; `fields` are those of its head. Never blocks.
    pub fn see(&self, record: &AccessRecord<'_>, fields: &Fields) {
        for tap in self.list.load().iter() {
            if tap.filter.wants(record) {
                tap.take(record, fields);
            }
        }
    }
}

impl Tap {
    fn take(&self, record: &AccessRecord<'_>, fields: &Fields) {
        self.matched.fetch_add(1, Relaxed);
        let since = record.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if !self.sampler.takes(since.as_secs()) {
            return;
        }
        // A reader that is slow misses lines, and no worker waits for it.
        let Ok(room) = self.lines.try_reserve() else { return };
        self.shown.fetch_add(1, Relaxed);
        room.send(line::of(record, self.filter.fields.then_some(fields)));
    }
}

impl OpenTap {
    /// The next line, with its line feed.
    pub async fn line(&mut self) -> Option<Vec<u8>> {
        self.lines.recv().await
    }

    /// The next line, if it is there already.
    pub fn ready(&mut self) -> Option<Vec<u8>> {
        self.lines.try_recv().ok()
    }

    /// How many requests were wanted so far, and how many of them have a line.
    pub fn counts(&self) -> (u64, u64) {
        (self.tap.matched.load(Relaxed), self.tap.shown.load(Relaxed))
    }
}

impl Drop for OpenTap {
    fn drop(&mut self) {
        self.taps.close(&self.tap);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lb_core::address::ClientAddress;

    use super::*;

    fn record(status: u16) -> AccessRecord<'static> {
        AccessRecord {
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(7),
            listener: "web",
            client: ClientAddress::Ip("192.0.2.7:4000".parse().unwrap()),
            method: b"GET",
            target: b"/a",
            host: None,
            version: "HTTP/1.1",
            tls: None,
            status: Some(status),
            grpc_status: None,
            bytes_in: 0,
            bytes_out: 0,
            duration: Duration::from_millis(5),
            backend: None,
            reason: "",
            route: "shop",
            request_id: None,
            trace_id: None,
            retries: 0,
            user_agent: None,
            referer: None,
        }
    }

    #[test]
    fn what_is_wanted_is_given_and_counted() {
        let taps = Arc::<Taps>::default();
        assert!(!taps.is_any());
        let mut tap = taps.open(TapFilter::parse("status=5xx").unwrap()).unwrap();
        assert!(taps.is_any());
        taps.see(&record(200), &Fields::default());
        taps.see(&record(503), &Fields::default());
        assert_eq!(tap.counts(), (1, 1));
        let line = tap.lines.try_recv().unwrap();
        assert!(String::from_utf8(line).unwrap().contains("\"status\":503"));
        drop(tap);
        assert!(!taps.is_any());
    }

    #[test]
    fn d_06_taps_and_what_waits_in_them_are_bounded() {
        let taps = Arc::<Taps>::default();
        let open = || taps.open(TapFilter::parse("per_second=1000").unwrap());
        let tap = open().unwrap();
        let others: Vec<_> = (1..MAX_TAPS).map(|_| open().unwrap()).collect();
        assert!(open().is_none());
        (0..900).for_each(|_| taps.see(&record(200), &Fields::default()));
        assert_eq!(tap.counts(), (900, QUEUED_LINES as u64), "nobody reads");
        drop(others);
        assert!(open().is_some());
    }
}
