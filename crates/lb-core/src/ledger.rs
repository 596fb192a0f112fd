//! The ledger of a connection: what a peer does that costs us more than it costs the peer, in one place for all protocols.
//!
//! Each kind of charge has a budget. What is charged against it is made up for in two ways: by time, and by *progress*, which is content
//! that moves in either direction and requests that are answered. Time alone bounds a peer that does nothing useful; progress keeps a
//! useful peer from ever reaching the bound, however fast it is. What remains after both is what a flood is made of, and it ends the
//! connection, on HTTP/2 with GOAWAY and ENHANCE_YOUR_CALM.
//!
//! The peer answers progress with a delay: of a stream of small messages many thousand are under way, each of which will be answered. So
//! progress that nothing is charged against yet is saved up, but no more of it than [`SAVED`] bursts: hours of good traffic allow a flood
//! of a few milliseconds. Progress that makes up for resets is not saved at all. Progress costs the peer as much as this end: content takes
//! its bytes on the wire in full, and an answered request costs its sender a request. A window that lets a byte at a time pass makes frames
//! of one byte, and those pay for a fifth of what a frame of ordinary content pays for.
//!
//! A connection to a backend is shared by many clients, each of which can cause much traffic of the backend. Its budgets are wider by far
//! ([`Side::Backend`]), and content that a client waits for is never charged there.
//!
//! A charge is an addition and a comparison; the budgets of all kinds fill together, once a second, so that the ledger needs one timestamp
//! and a few counters.

use std::time::{Duration, Instant};

use crate::reason::Reason;

/// What a peer can be charged for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Charge {
    /// It reset a stream whose response had not begun.
    PeerReset,
    /// It made us reset a stream.
    LocalReset,
    /// A block of fields went beyond a limit.
    HeaderOverflow,
    /// A part of a body with no byte in it that does not end the body.
    EmptyData,
    /// A part of a body with fewer than [`SMALLEST_MESSAGE`] bytes that does not end the body. One byte counts in full, each further one
    /// makes it less by a quarter.
    TinyData,
    /// It changed its settings.
    Settings,
    /// It wants an answer to a ping.
    Ping,
    /// It changed a priority.
    Priority,
    /// It opened a window.
    WindowUpdate,
    /// It sent a frame of an unknown type.
    Unknown,
    /// It sent a frame for a stream that is gone, or an answer to nothing.
    Unwanted,
}

/// Content of a frame from which on a frame is no overhead: five bytes, the prefix of a gRPC message and the whole of an empty one.
pub const SMALLEST_MESSAGE: u32 = 5;

/// How old a stream must be for its reset to cost nothing: an attacker opens streams to reset them at once.
const SETTLED: Duration = Duration::from_secs(1);

/// What a budget of 1 holds: charges and payments are counted in thousandths.
const ONE: u32 = 1000;

/// A byte of content, as far as small frames are concerned: four of them lie between the smallest message and a byte.
const BYTE: u32 = ONE / (SMALLEST_MESSAGE - 1);

/// Which end of a connection the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It is a client, with a connection of its own.
    Client,
    /// It is a backend, with a connection that clients share.
    Backend,
}

/// How much of a kind is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// At once.
    pub burst: u32,
    /// With each second.
    pub refill: u32,
}

/// A budget.
#[derive(Clone, Copy, Debug)]
pub struct LedgerBudget {
    /// The kind.
    pub charge: Charge,
    /// Its code, for metrics and logs.
    pub reason: Reason,
    /// What a client may do.
    pub client: Room,
    /// What a backend may do.
    pub backend: Room,
    /// The key that widens it for clients.
    pub key: &'static str,
    /// The attacks that it answers.
    pub attacks: &'static str,
}

/// All budgets, in the order of [`Charge`]. Those of resets by clients follow their settings: [`Limits`].
#[rustfmt::skip]
pub static BUDGETS: [LedgerBudget; KINDS] = [
    budget(Charge::PeerReset, Reason::PeerReset, (100, 50), (10_000, 10_000), "max_pending_accept_reset_streams", "H2-01"),
    // What one client asks for may make a backend break the protocol in each of its answers.
    budget(Charge::LocalReset, Reason::LocalReset, (100, 10), (1_000, 100), "max_local_error_reset_streams", "H2-02"),
    budget(Charge::HeaderOverflow, Reason::HeaderOverflow, (20, 1), (20, 1), "max_header_list_size", "H2-03, H2-04"),
    budget(Charge::EmptyData, Reason::EmptyData, (100, 10), (10_000, 10_000), PERCENT, "H2-05"),
    budget(Charge::TinyData, Reason::TinyData, (100_000, 100_000), (100_000, 100_000), PERCENT, "H2-05"),
    // Windows that follow the round trip are doubled a dozen times in the life of a connection.
    budget(Charge::Settings, Reason::Settings, (100, 10), (1_000, 100), PERCENT, "H2-06"),
    budget(Charge::Ping, Reason::Ping, (1_000, 1_000), (10_000, 10_000), PERCENT, "H2-06"),
    budget(Charge::Priority, Reason::Priority, (1_000, 1_000), (10_000, 10_000), PERCENT, "H2-06"),
    budget(Charge::WindowUpdate, Reason::WindowUpdate, (50_000, 50_000), (100_000, 100_000), PERCENT, "H2-04, H2-06"),
    budget(Charge::Unknown, Reason::Unknown, (100, 100), (10_000, 1_000), PERCENT, "H2-06"),
    // After we reset a stream, what was under way still comes.
    budget(Charge::Unwanted, Reason::Unwanted, (1_000, 100), (20_000, 10_000), PERCENT, "H2-06, H2-11, H2-13"),
];

const KINDS: usize = 11;

/// The key that widens the budgets without a key of their own.
const PERCENT: &str = "flood_budget_percent";

const fn budget(
    charge: Charge,
    reason: Reason,
    client: (u32, u32),
    backend: (u32, u32),
    key: &'static str,
    attacks: &'static str,
) -> LedgerBudget {
    let client = Room { burst: client.0, refill: client.1 };
    let backend = Room { burst: backend.0, refill: backend.1 };
    LedgerBudget { charge, reason, client, backend, key, attacks }
}

impl LedgerBudget {
    /// The key that widens it for backends. The keys of resets are about clients.
    pub fn backend_key(&self) -> &'static str {
        match self.charge {
            Charge::HeaderOverflow => self.key,
            _ => PERCENT,
        }
    }
}

impl Charge {
    /// The budget of this kind.
    #[inline]
    pub fn budget(self) -> &'static LedgerBudget {
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

/// The settings for the budgets of a client.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Streams that the client may have open at once, and so may give up at once.
    pub streams: u32,
    /// Resets before a response beyond those (`max_pending_accept_reset_streams`).
    pub peer_resets: usize,
    /// Resets that the client's faults may make necessary (`max_local_error_reset_streams`).
    pub local_resets: usize,
    /// How wide the other budgets are, in percent of the table (`flood_budget_percent`).
    pub percent: u32,
}

/// How many bursts of each budget progress may save up.
pub const SAVED: u32 = 10;

/// What one connection has been charged.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// When the budgets were filled last, in whole seconds from the start.
    filled: Instant,
    /// What is used up of each budget and of what was saved for it, in thousandths. Nothing is saved at [`Self::saved`], and all at 0.
    spent: [u32; KINDS],
    /// What one charge takes, in thousandths: less where the budgets are wider.
    unit: u32,
    side: Side,
    peer_resets: u32,
    local_resets: u32,
}

impl Ledger {
    /// An empty ledger of a connection from a client.
    pub fn of_client(limits: Limits, now: Instant) -> Self {
        let clamp = |limit: usize| u32::try_from(limit).unwrap_or(u32::MAX).min(MOST);
        Self {
            peer_resets: clamp(limits.peer_resets).saturating_add(limits.streams).min(MOST),
            local_resets: clamp(limits.local_resets),
            ..Self::new(Side::Client, limits.percent, now)
        }
    }

    /// An empty ledger of a connection to a backend, whose budgets are `percent` of the table's.
    pub fn of_backend(percent: u32, now: Instant) -> Self {
        Self::new(Side::Backend, percent, now)
    }

    fn new(side: Side, percent: u32, now: Instant) -> Self {
        let resets = |charge: Charge| charge.budget().backend.burst;
        let mut ledger = Self {
            filled: now,
            spent: [0; KINDS],
            unit: (ONE * 100 / percent.max(1)).max(1),
            side,
            peer_resets: resets(Charge::PeerReset),
            local_resets: resets(Charge::LocalReset),
        };
        for budget in &BUDGETS {
            let saved = ledger.saved(budget.charge);
            if let Some(spent) = ledger.spent.get_mut(budget.charge as usize) {
                *spent = saved;
            }
        }
        ledger
    }

    /// How much progress may save for a kind, in thousandths.
    #[inline]
    fn saved(&self, charge: Charge) -> u32 {
        let bursts = match charge {
            Charge::PeerReset | Charge::LocalReset | Charge::HeaderOverflow | Charge::Settings => 0,
            _ => SAVED * ONE,
        };
        self.burst(charge).saturating_mul(bursts)
    }

    /// Charges once.
    #[inline]
    pub fn charge(&mut self, charge: Charge, now: Instant) -> Verdict {
        self.take(charge, self.unit_of(charge), now)
    }

    /// What one charge takes.
    #[inline]
    fn unit_of(&self, charge: Charge) -> u32 {
        match charge {
            // These have keys of their own.
            Charge::PeerReset | Charge::LocalReset if self.side == Side::Client => ONE,
            _ => self.unit,
        }
    }

    /// How many of a kind are charged and not made up for, plus the one that is too many.
    pub fn count(&self, charge: Charge) -> u32 {
        let spent = self.spent.get(charge as usize).copied().unwrap_or(0);
        (spent.saturating_sub(self.saved(charge)) / self.unit_of(charge)).saturating_add(1)
    }

    /// The peer reset a stream whose response had not begun, after it had been open for `open`. A request that is given up at once counts
    /// in full; the longer a client has waited in vain, the less its reset counts, and after a second not at all: all streams that may be
    /// open at once can time out together again and again.
    #[inline]
    pub fn reset(&mut self, open: Duration, now: Instant) -> Verdict {
        let left = SETTLED.saturating_sub(open);
        let weight = u32::try_from(left.as_millis()).unwrap_or(ONE).min(ONE);
        self.take(Charge::PeerReset, weight, now)
    }

    /// A whole DATA frame with `content` bytes arrived for a stream whose reader wants it; `ends` means that it ends the stream.
    #[inline]
    pub fn data_received(&mut self, content: u32, ends: bool, now: Instant) -> Verdict {
        if content == 0 {
            return if ends { Verdict::Fine } else { self.charge(Charge::EmptyData, now) };
        }
        self.pay(Charge::Ping, ONE);
        self.pay(Charge::EmptyData, ONE);
        if content >= SMALLEST_MESSAGE {
            self.pay(Charge::TinyData, content.saturating_sub(SMALLEST_MESSAGE).saturating_mul(BYTE));
        } else if !ends && self.side == Side::Client {
            return self.tiny(content, now);
        }
        Verdict::Fine
    }

    /// A whole DATA frame with `content` bytes arrived for a stream that no reader wants any more.
    #[inline]
    pub fn data_unwanted(&mut self, content: u32, now: Instant) -> Verdict {
        match content {
            0 => self.charge(Charge::Unwanted, now),
            1..SMALLEST_MESSAGE => self.tiny(content, now),
            // Its bytes stand in proportion to what they cost.
            _ => Verdict::Fine,
        }
    }

    fn tiny(&mut self, content: u32, now: Instant) -> Verdict {
        let missing = SMALLEST_MESSAGE.saturating_sub(content);
        self.take(Charge::TinyData, missing.saturating_mul(self.unit) / (SMALLEST_MESSAGE - 1), now)
    }

    /// A DATA frame with `content` bytes was sent.
    ///
    /// It makes up for a PING, since peers that measure the round trip send one after data, and for one more with each KiB. And it makes up
    /// for window updates. Clients answer each frame, or each 256 bytes of it, by opening both windows; frames of less than the smallest
    /// message, which a client can ask for by windows of its making, pay for less. Backends may answer each byte.
    #[inline]
    pub fn data_sent(&mut self, content: u32) {
        self.pay(Charge::Ping, ONE.saturating_add(content));
        self.pay(Charge::TinyData, content.saturating_mul(BYTE));
        let updates = match self.side {
            Side::Backend => content.saturating_mul(2 * ONE),
            Side::Client if content < SMALLEST_MESSAGE => content * (2 * ONE / SMALLEST_MESSAGE),
            Side::Client => (2 * ONE).saturating_add(content.saturating_mul((2 * ONE).div_ceil(256))),
        };
        self.pay(Charge::WindowUpdate, updates);
    }

    /// A request of the client's is being answered, or one was sent to the backend. It makes up for a reset of either kind: a peer that
    /// cancels a part of many requests, or breaks the protocol in some, does no harm. It also makes up for what accompanies requests:
    /// priorities, frames that only some peers know, and frames under way when requests are given up.
    #[inline]
    pub fn request(&mut self) {
        for (charge, paid) in [
            (Charge::PeerReset, ONE),
            (Charge::LocalReset, ONE),
            (Charge::Ping, ONE),
            (Charge::Unwanted, 4 * ONE),
            (Charge::Unknown, 4 * ONE),
            (Charge::Priority, 8 * ONE),
        ] {
            self.pay(charge, paid);
        }
    }

    /// Forgets what was charged of a kind.
    pub fn forgive(&mut self, charge: Charge) {
        let saved = self.saved(charge);
        if let Some(spent) = self.spent.get_mut(charge as usize) {
            *spent = saved;
        }
    }

    /// How much of a kind is allowed at once.
    #[inline]
    pub fn burst(&self, charge: Charge) -> u32 {
        match (charge, self.side) {
            (Charge::PeerReset, _) => self.peer_resets,
            (Charge::LocalReset, _) => self.local_resets,
            (_, Side::Client) => charge.budget().client.burst,
            (_, Side::Backend) => charge.budget().backend.burst,
        }
    }

    #[inline]
    fn take(&mut self, charge: Charge, amount: u32, now: Instant) -> Verdict {
        let passed = now.saturating_duration_since(self.filled);
        if passed >= Duration::from_secs(1) {
            self.fill(passed.as_secs());
        }
        let most = self.burst(charge).saturating_mul(ONE).saturating_add(self.saved(charge));
        let Some(spent) = self.spent.get_mut(charge as usize) else { return Verdict::Fine };
        match spent.checked_add(amount) {
            Some(sum) if sum <= most => *spent = sum,
            _ => return Verdict::TooMuch(charge),
        }
        Verdict::Fine
    }

    #[inline]
    fn pay(&mut self, charge: Charge, amount: u32) {
        if let Some(spent) = self.spent.get_mut(charge as usize) {
            *spent = spent.saturating_sub(amount);
        }
    }

    #[cold]
    fn fill(&mut self, seconds: u64) {
        self.filled = self.filled.checked_add(Duration::from_secs(seconds)).unwrap_or(self.filled);
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        let resets = self.peer_resets / 2;
        let saved = BUDGETS.each_ref().map(|budget| self.saved(budget.charge));
        for ((spent, budget), saved) in self.spent.iter_mut().zip(&BUDGETS).zip(saved) {
            let refill = match (budget.charge, self.side) {
                (Charge::PeerReset, Side::Client) => resets,
                (_, Side::Client) => budget.client.refill,
                (_, Side::Backend) => budget.backend.refill,
            };
            // Time makes up for what was charged, and saves nothing.
            let filled = spent.saturating_sub(refill.saturating_mul(ONE).saturating_mul(seconds));
            *spent = filled.max(saved).min(*spent);
        }
    }
}

/// The widest budget that is counted.
const MOST: u32 = u32::MAX / ONE;

#[cfg(test)]
mod tests;
