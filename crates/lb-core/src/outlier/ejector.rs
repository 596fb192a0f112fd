//! Ejections: which members are put aside, and for how long.
//!
//! * A bound on the share of a pool that may be out at once, and never the last member that could take load: whatever detection says, a
//!   fault that all members share (a database that they all need) must not empty the pool.
//! * The first ejection lasts `base`; each further one twice as long, up to `max`. The count falls by one for each quiet period of
//!   service. Times are shortened at random by up to a tenth, so that members ejected together do not return together.
//! * A member that returns is on probation: the detectors bear less of it, and as a quiet period is no shorter than probation, its next
//!   ejection is the longer one.
//!
//! All members are known by position. Nothing here is on the path of a request that ends well.

use std::time::{Duration, Instant};

use crate::rng::SplitMix64;

/// How ejections go (`[pools.NAME.outlier]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectionSettings {
    /// How long the first one lasts.
    pub base: Duration,
    /// How long one lasts at most; less than `base` counts as `base`.
    pub max: Duration,
    /// The share of the pool that may be out at once, in percent, rounded down; but one member of two or more may, unless this is 0.
    pub max_percent: u32,
    /// How long a member is on probation after it returned; 0 is not at all.
    pub probation: Duration,
}

impl Default for EjectionSettings {
    fn default() -> Self {
        Self {
            base: Duration::from_secs(30),
            max: Duration::from_secs(300),
            max_percent: 50,
            probation: Duration::from_secs(30),
        }
    }
}

impl EjectionSettings {
    /// How many members of a pool of `members` may be out at once.
    pub fn most_out(&self, members: usize) -> usize {
        if self.max_percent == 0 || members < 2 {
            return 0;
        }
        let percent = usize::try_from(self.max_percent.min(100)).unwrap_or(100);
        (members.saturating_mul(percent) / 100).clamp(1, members - 1)
    }

    /// How long the `n`th ejection in succession lasts before it is shortened at random.
    fn duration(&self, n: u32) -> Duration {
        let factor = 1u32.checked_shl(n.saturating_sub(1)).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.max.max(self.base))
    }

    /// The time in service that makes up for one ejection.
    fn quiet_period(&self) -> Duration {
        self.base.max(self.probation)
    }
}

/// The standing of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EjectionStanding {
    /// In service.
    In,
    /// In service, and to be watched more closely.
    Probation,
    /// Out.
    Out {
        /// The moment at which the ejection ends.
        until: Instant,
    },
}

/// Why a member was not ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is out already; the failure belongs to a request that began before.
    AlreadyOut,
    /// As many are out as may be.
    TooMany,
    /// No other member could take load.
    Last,
    /// There is no such member.
    Unknown,
}

/// The ejections of one pool.
#[derive(Clone, Debug)]
pub struct Ejector {
    settings: EjectionSettings,
    members: Vec<EjectionRecord>,
    out: usize,
    rng: SplitMix64,
}

#[derive(Clone, Copy, Debug, Default)]
struct EjectionRecord {
    /// When it returns, while it is out.
    until: Option<Instant>,
    /// When it returned last.
    returned: Option<Instant>,
    /// Ejections in succession, before those that quiet periods have made up for are taken off.
    level: u32,
    /// All ejections.
    ejections: u64,
}

impl Ejector {
    /// An ejector for `members` members that are all in service.
    pub fn new(settings: EjectionSettings, members: usize, seed: u64) -> Self {
        Self {
            settings,
            members: vec![EjectionRecord::default(); members],
            out: 0,
            rng: SplitMix64::new(seed),
        }
    }

    /// Ejects a member, and returns until when. `usable` lists the other members that could take load as far as the caller has found out
    /// (healthy, not draining, with weight).
    pub fn eject(
        &mut self,
        at: usize,
        now: Instant,
        usable: impl Fn(usize) -> bool,
    ) -> Result<Instant, Refused> {
        let most = self.settings.most_out(self.members.len());
        let others = self.members.iter().enumerate().filter(|(other, _)| *other != at);
        let anybody = others.into_iter().any(|(other, member)| member.until.is_none() && usable(other));
        let Some(member) = self.members.get_mut(at) else { return Err(Refused::Unknown) };
        if member.until.is_some() {
            return Err(Refused::AlreadyOut);
        }
        if !anybody {
            return Err(Refused::Last);
        }
        if self.out >= most {
            return Err(Refused::TooMany);
        }
        let level = level(member, &self.settings, now).saturating_add(1);
        let full = self.settings.duration(level);
        let tenth = u64::try_from((full / 10).as_nanos()).unwrap_or(u64::MAX);
        let shorter = Duration::from_nanos(self.rng.below(tenth.saturating_add(1)));
        // A time beyond what the clock can say is one that never comes; a year stands in for it.
        let lasts = full.saturating_sub(shorter).min(YEAR);
        let until = now.checked_add(lasts).unwrap_or(now);
        member.until = Some(until);
        member.level = level;
        member.ejections = member.ejections.saturating_add(1);
        self.out += 1;
        Ok(until)
    }

    /// Takes back the members whose ejection is over, and calls `returned` for each.
    pub fn expire(&mut self, now: Instant, mut returned: impl FnMut(usize)) {
        for (at, member) in self.members.iter_mut().enumerate() {
            if member.until.is_some_and(|until| until <= now) {
                member.take_back(now);
                self.out = self.out.saturating_sub(1);
                returned(at);
            }
        }
    }

    /// When [`Self::expire`] has something to do next.
    pub fn next_return(&self) -> Option<Instant> {
        self.members.iter().filter_map(|member| member.until).min()
    }

    /// The standing of a member. A member whose ejection is over counts as out until [`Self::expire`] takes it back.
    pub fn standing(&self, at: usize, now: Instant) -> EjectionStanding {
        let Some(member) = self.members.get(at) else { return EjectionStanding::In };
        if let Some(until) = member.until {
            return EjectionStanding::Out { until };
        }
        match member.returned {
            Some(returned) if now.saturating_duration_since(returned) < self.settings.probation => {
                EjectionStanding::Probation
            }
            _ => EjectionStanding::In,
        }
    }

    /// When a member returned last, if it is in service: the start of its slow start.
    pub fn returned(&self, at: usize) -> Option<Instant> {
        self.members.get(at).filter(|member| member.until.is_none())?.returned
    }

    /// All ejections of a member so far.
    pub fn ejections(&self, at: usize) -> u64 {
        self.members.get(at).map_or(0, |member| member.ejections)
    }

    /// How many are out. For tests and the simulator.
    pub fn out(&self) -> usize {
        self.out
    }

    /// Continues with other members and settings. `from` has for each new position the old one, if there was one. When more members would
    /// be out than the new pool allows, those that would return first are taken back at once, and `returned` is called with their new
    /// positions.
    pub fn rebuild(
        &mut self,
        settings: EjectionSettings,
        from: &[Option<usize>],
        now: Instant,
        mut returned: impl FnMut(usize),
    ) {
        let old = std::mem::take(&mut self.members);
        let kept = |old_at: &Option<usize>| old_at.and_then(|at| old.get(at)).copied().unwrap_or_default();
        self.members = from.iter().map(kept).collect();
        self.settings = settings;
        self.out = self.members.iter().filter(|member| member.until.is_some()).count();
        let most = settings.most_out(self.members.len());
        while self.out > most {
            let out = self
                .members
                .iter_mut()
                .enumerate()
                .filter_map(|(at, member)| Some((member.until?, at, member)));
            let Some((_, at, member)) = out.min_by_key(|(until, at, _)| (*until, *at)) else { return };
            member.take_back(now);
            self.out -= 1;
            returned(at);
        }
    }
}

impl EjectionRecord {
    fn take_back(&mut self, now: Instant) {
        self.until = None;
        self.returned = Some(now);
    }
}

/// Ejections in succession that are not made up for.
fn level(member: &EjectionRecord, settings: &EjectionSettings, now: Instant) -> u32 {
    let Some(returned) = member.returned else { return member.level };
    let quiet = now.saturating_duration_since(returned).as_nanos();
    let periods = quiet.checked_div(settings.quiet_period().as_nanos()).unwrap_or(u128::MAX);
    member.level.saturating_sub(u32::try_from(periods).unwrap_or(u32::MAX))
}

const YEAR: Duration = Duration::from_secs(365 * 86_400);

#[cfg(test)]
mod tests;
