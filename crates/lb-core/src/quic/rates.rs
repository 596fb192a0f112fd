//! How fast a source may begin connections.
//!
//! Addresses of UDP can be forged, so that nothing may be kept for each of them before it has proven itself. The rates stand in a table of
//! fixed size instead, in which each source has two cells by a keyed hash. A source is over its rate only when both cells are, so that it
//! suffers for others only if it shares each of its cells with one of them.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Cells in each half of the table.
const CELLS: usize = 4096;

/// The rates of all sources. All workers share it; it is asked once for each new connection.
#[derive(Debug)]
pub struct SourceRates {
    keys: RandomState,
    start: Instant,
    /// When the connections that were begun will have been paid for, each by one interval; in nanoseconds from `start`.
    due: Box<[AtomicU64]>,
}

/// A rate with a burst.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Connections in a second; 0 for no limit.
    pub per_second: u32,
    /// Connections at once, at least one.
    pub burst: u32,
}

impl SourceRates {
    /// A table in which no source has begun anything. It grows no more.
    pub fn new(start: Instant) -> Self {
        let cells = std::iter::repeat_with(AtomicU64::default).take(2 * CELLS);
        Self { keys: RandomState::new(), start, due: cells.collect() }
    }

    /// Counts a connection of this source, unless it is over the rate.
    #[must_use]
    pub fn take(&self, source: IpAddr, rate: Rate, now: Instant) -> bool {
        let Some(interval) = 1_000_000_000u64.checked_div(u64::from(rate.per_second)) else { return true };
        let now = nanos(now.saturating_duration_since(self.start));
        let ahead = interval.saturating_mul(u64::from(rate.burst.saturating_sub(1)));
        let hash = self.keys.hash_one(network(source));
        let cells = [hash & 0xffff_ffff, hash >> 32].map(|half| half as usize % CELLS);
        let [first, second] = [self.due.get(cells[0]), self.due.get(CELLS + cells[1])];
        let mut taken = false;
        for cell in [first, second].into_iter().flatten() {
            let next = |due: u64| (due <= now.saturating_add(ahead)).then_some(due.max(now) + interval);
            taken |= cell.fetch_update(Relaxed, Relaxed, next).is_ok();
        }
        taken
    }
}

/// What counts as one source: an IPv4 address, or the 64 bits of an IPv6 address that a provider hands out at least.
pub fn network(source: IpAddr) -> u64 {
    match source.to_canonical() {
        IpAddr::V4(address) => u64::from(u32::from(address)),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            // No IPv4 address has these bits.
            [a, b, c, d].into_iter().fold(0, |all, part| all << 16 | u64::from(part))
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn a_source_begins_its_burst_and_then_no_more_than_its_rate_while_others_begin_theirs() {
        let start = Instant::now();
        let rates = SourceRates::new(start);
        let rate = Rate { per_second: 10, burst: 20 };
        let begun = (0..1000).filter(|_| rates.take(source(1), rate, start)).count();
        assert_eq!(begun, 20);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..1000).filter(|_| rates.take(source(1), rate, later)).count(), 10);
        let others = (2..202).filter(|other| rates.take(source(*other), rate, later)).count();
        assert_eq!(others, 200);
        assert!((0..1000).all(|_| rates.take(source(1), Rate { per_second: 0, burst: 0 }, start)));
    }

    #[test]
    fn a_flood_from_forged_addresses_leaves_most_others_their_rate_and_takes_no_memory() {
        let start = Instant::now();
        let rates = SourceRates::new(start);
        let rate = Rate { per_second: 10, burst: 20 };
        for number in 0..1000 {
            for _ in 0..100 {
                let _ = rates.take(source(number), rate, start);
            }
        }
        let served = (10_000..11_000).filter(|other| rates.take(source(*other), rate, start)).count();
        assert!(served > 900, "{served}");
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
