//! The ledger of a connection: what a peer does that costs us more than it costs the peer, in one place for all protocols.
//!
//! Each kind of charge has a budget that fills again with time. Ordinary traffic stays far below; a flood empties it, and the
//! connection is to be ended, on HTTP/2 with GOAWAY and ENHANCE_YOUR_CALM. A charge is an addition and a comparison; the budgets of
//! all kinds fill together, once a second, so that the ledger needs one timestamp and a few counters.

use std::time::{Duration, Instant};

/// What a peer can be charged for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Charge {
    /// It reset a stream that was not done.
    PeerReset,
    /// It made us reset a stream.
    LocalReset,
    /// A block of fields went beyond a limit.
    HeaderOverflow,
    /// A part of a body with no byte in it that does not end the body.
    EmptyData,
    /// A part of a body with less than [`TINY_DATA`] bytes that does not end the body.
    TinyData,
    /// It changed its settings.
    Settings,
    /// It wants an answer to a ping.
    Ping,
    /// It changed a priority.
    Priority,
    /// It opened a window.
    WindowUpdate,
    /// It sent something that we do not know.
    Unknown,
    /// It sent what nobody wants any more, for a stream that is gone.
    Unwanted,
}

/// Below so many bytes a part of a body counts as tiny: its frame is dearer than its content.
pub const TINY_DATA: u32 = 16;

/// A DATA frame of at least so many bytes may be answered by window updates without a charge.
const ANSWERED_DATA: u32 = 256;

/// A budget: how much of a kind is borne at once, and how much of it comes back each second.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// The kind.
    pub charge: Charge,
    /// Its name, for metrics and logs.
    pub name: &'static str,
    /// What is borne at once.
    pub burst: u16,
    /// What comes back each second.
    pub refill: u16,
    /// The attacks that it answers.
    pub attacks: &'static str,
}

/// All budgets, in the order of [`Charge`].
#[rustfmt::skip]
pub static BUDGETS: [Budget; KINDS] = [
    budget(Charge::PeerReset, "peer_reset", 100, 50, "H2-01"),
    budget(Charge::LocalReset, "local_reset", 100, 10, "H2-02"),
    budget(Charge::HeaderOverflow, "header_overflow", 20, 1, "H2-03, H2-04"),
    budget(Charge::EmptyData, "empty_data", 100, 10, "H2-05"),
    // Messages of a few bytes are the ordinary case of a chatty gRPC stream.
    budget(Charge::TinyData, "tiny_data", 10_000, 10_000, "H2-05"),
    budget(Charge::Settings, "settings", 100, 10, "H2-06"),
    // gRPC measures its round trip with one ping after the other.
    budget(Charge::Ping, "ping", 1_000, 1_000, "H2-06"),
    budget(Charge::Priority, "priority", 1_000, 1_000, "H2-06"),
    // At one for each 32 KiB of both windows, 800 MB/s.
    budget(Charge::WindowUpdate, "window_update", 50_000, 50_000, "H2-04, H2-06"),
    budget(Charge::Unknown, "unknown", 100, 100, "H2-06"),
    // After we reset a stream, what was under way still comes.
    budget(Charge::Unwanted, "unwanted", 1_000, 100, "H2-06, H2-11"),
];

const KINDS: usize = 11;

const fn budget(
    charge: Charge,
    name: &'static str,
    burst: u16,
    refill: u16,
    attacks: &'static str,
) -> Budget {
    Budget { charge, name, burst, refill, attacks }
}

impl Charge {
    /// The budget of this kind.
    #[inline]
    pub fn budget(self) -> &'static Budget {
        // The table has an entry for each kind.
        BUDGETS.get(self as usize).unwrap_or(&BUDGETS[0])
    }
}

/// Whether the connection may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It may.
    Fine,
    /// The budget of that kind is used up.
    TooMuch(Charge),
}

/// What one connection has been charged.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// When the budgets were filled last, in whole seconds from the start.
    filled: Instant,
    /// What is used up of each budget.
    spent: [u16; KINDS],
    peer_resets: u16,
    local_resets: u16,
}

impl Ledger {
    /// An empty ledger, with the bursts of [`Charge::PeerReset`] (`max_pending_accept_reset_streams`) and [`Charge::LocalReset`]
    /// (`max_local_error_reset_streams`).
    pub fn new(peer_resets: usize, local_resets: usize, now: Instant) -> Self {
        let clamp = |limit| u16::try_from(limit).unwrap_or(u16::MAX);
        Self {
            filled: now,
            spent: [0; KINDS],
            peer_resets: clamp(peer_resets),
            local_resets: clamp(local_resets),
        }
    }

    /// Charges once.
    #[inline]
    pub fn charge(&mut self, charge: Charge, now: Instant) -> Verdict {
        self.charge_many(charge, 1, now)
    }

    /// Charges `times` at once.
    #[inline]
    pub fn charge_many(&mut self, charge: Charge, times: u16, now: Instant) -> Verdict {
        let passed = now.saturating_duration_since(self.filled);
        if passed >= Duration::from_secs(1) {
            self.fill(passed.as_secs());
        }
        let burst = match charge {
            Charge::PeerReset => self.peer_resets,
            Charge::LocalReset => self.local_resets,
            _ => charge.budget().burst,
        };
        let Some(spent) = self.spent.get_mut(charge as usize) else { return Verdict::Fine };
        match spent.checked_add(times) {
            Some(sum) if sum <= burst => *spent = sum,
            _ => return Verdict::TooMuch(charge),
        }
        Verdict::Fine
    }

    /// A request was served to its end, which makes up for a reset: a peer that cancels a part of many requests does no harm.
    #[inline]
    pub fn served(&mut self) {
        if let Some(spent) = self.spent.get_mut(Charge::PeerReset as usize) {
            *spent = spent.saturating_sub(1);
        }
    }

    /// A DATA frame of so many bytes was sent, which makes up for two updates: some clients answer each frame by opening both of its
    /// windows. Not a frame of a few bytes, which a peer can ask for by windows of its making.
    #[inline]
    pub fn data_sent(&mut self, bytes: u32) {
        if bytes < ANSWERED_DATA {
            return;
        }
        if let Some(spent) = self.spent.get_mut(Charge::WindowUpdate as usize) {
            *spent = spent.saturating_sub(2);
        }
    }

    #[cold]
    fn fill(&mut self, seconds: u64) {
        self.filled = self.filled.checked_add(Duration::from_secs(seconds)).unwrap_or(self.filled);
        let seconds = u16::try_from(seconds).unwrap_or(u16::MAX);
        for (spent, budget) in self.spent.iter_mut().zip(&BUDGETS) {
            *spent = spent.saturating_sub(budget.refill.saturating_mul(seconds));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_kinds_and_the_ledger_is_small() {
        for (at, budget) in BUDGETS.iter().enumerate() {
            assert_eq!(budget.charge as usize, at, "{}", budget.name);
            assert!(budget.burst > 0 && budget.refill > 0 && !budget.attacks.is_empty());
        }
        assert!(size_of::<Ledger>() <= 48, "{}", size_of::<Ledger>());
    }

    #[test]
    fn each_kind_is_borne_up_to_its_burst_and_comes_back_with_time() {
        let start = Instant::now();
        for budget in &BUDGETS {
            let mut ledger = Ledger::new(100, 100, start);
            for _ in 0..budget.burst {
                assert_eq!(ledger.charge(budget.charge, start), Verdict::Fine, "{}", budget.name);
            }
            // The other budgets are untouched.
            for other in BUDGETS.iter().filter(|other| other.charge != budget.charge) {
                assert_eq!(ledger.charge(other.charge, start), Verdict::Fine);
            }
            let almost = start + Duration::from_millis(999);
            assert_eq!(ledger.charge(budget.charge, almost), Verdict::TooMuch(budget.charge));
            let later = start + Duration::from_millis(1000);
            for _ in 0..budget.refill.min(budget.burst) {
                assert_eq!(ledger.charge(budget.charge, later), Verdict::Fine, "{}", budget.name);
            }
            assert_eq!(ledger.charge(budget.charge, later), Verdict::TooMuch(budget.charge));
        }
    }

    #[test]
    fn a_flood_just_above_the_refill_ends_and_one_just_below_does_not() {
        let start = Instant::now();
        for budget in &BUDGETS {
            let runs = |each_second: u16| {
                let mut ledger = Ledger::new(100, 100, start);
                let seconds = 2 * u64::from(budget.burst).min(2_000);
                (0..seconds).all(|second| {
                    let now = start + Duration::from_secs(second);
                    ledger.charge_many(budget.charge, each_second, now) == Verdict::Fine
                })
            };
            assert!(runs(budget.refill.min(budget.burst)), "{}", budget.name);
            assert!(!runs(budget.refill.saturating_add((budget.burst / 50).max(1))), "{}", budget.name);
        }
    }

    #[test]
    fn both_resets_follow_their_settings() {
        let now = Instant::now();
        for (charge, ledger) in
            [(Charge::PeerReset, Ledger::new(3, 1000, now)), (Charge::LocalReset, Ledger::new(1000, 3, now))]
        {
            let mut ledger = ledger;
            assert!((0..3).all(|_| ledger.charge(charge, now) == Verdict::Fine));
            assert_eq!(ledger.charge(charge, now), Verdict::TooMuch(charge));
        }
        let mut none = Ledger::new(0, usize::MAX, now);
        assert_eq!(none.charge(Charge::PeerReset, now), Verdict::TooMuch(Charge::PeerReset));
        assert_eq!(none.charge_many(Charge::LocalReset, u16::MAX, now), Verdict::Fine);
    }

    #[test]
    fn h2_01_served_requests_pay_for_resets_and_nothing_else_does() {
        let now = Instant::now();
        let mut ledger = Ledger::new(100, 100, now);
        for _ in 0..10_000 {
            ledger.served();
            assert_eq!(ledger.charge(Charge::PeerReset, now), Verdict::Fine);
        }
        // Nothing is saved up beyond the burst.
        (0..10_000).for_each(|_| ledger.served());
        assert!((0..100).all(|_| ledger.charge(Charge::PeerReset, now) == Verdict::Fine));
        assert_eq!(ledger.charge(Charge::PeerReset, now), Verdict::TooMuch(Charge::PeerReset));
    }

    #[test]
    fn a_client_may_open_both_windows_after_each_frame_but_not_byte_by_byte() {
        let start = Instant::now();
        let mut ledger = Ledger::new(100, 100, start);
        let mut frames = |bytes: u32| {
            (0..1_000_000)
                .take_while(|_| {
                    ledger.data_sent(bytes);
                    ledger.charge_many(Charge::WindowUpdate, 2, start) == Verdict::Fine
                })
                .count()
        };
        // A gigabyte within a second.
        assert_eq!(frames(1024), 1_000_000);
        assert!(frames(1) < 25_000);
    }

    #[test]
    fn heavy_ordinary_traffic_never_trips() {
        let start = Instant::now();
        let mut ledger = Ledger::new(100, 100, start);
        for _ in 0..3 {
            assert_eq!(ledger.charge(Charge::Settings, start), Verdict::Fine);
        }
        // A minute of 10,000 requests a second of 32 KiB each, one in a hundred cancelled, with messages of a few bytes here and there.
        for request in 0..600_000u32 {
            let now = start + Duration::from_micros(u64::from(request) * 100);
            let mut charges = vec![Charge::WindowUpdate, Charge::WindowUpdate];
            if request % 100 == 0 {
                charges.extend([Charge::PeerReset, Charge::Priority]);
            } else {
                ledger.served();
            }
            if request % 3 == 0 {
                charges.push(Charge::TinyData);
            }
            if request % 1000 == 0 {
                charges.extend([Charge::LocalReset, Charge::Unknown]);
            }
            if request % 100_000 == 0 {
                charges.push(Charge::Ping);
            }
            for charge in charges {
                assert_eq!(ledger.charge(charge, now), Verdict::Fine, "at request {request}");
            }
        }
    }
}
