//! What happens to the gateway: a pool, its settings and the faults of its backends, all drawn from a seed.

use std::time::Duration;

use lb_core::balance::{BalanceSettings, Policy};
use lb_core::breaker::MemberLimits;
use lb_core::health::ProbeSettings;
use lb_core::hedge::HedgeSettings;
use lb_core::outlier::{Analysis, EjectionSettings, StreakLimits};
use lb_core::retry::{BudgetSettings, Conditions};
use lb_core::rng::SplitMix64;

/// Faults come until then; afterwards everything has to be well again.
pub(crate) const FAULTS_UNTIL: Duration = Duration::from_secs(1500);
/// From then on no request may fail: every ejection is over, every health check has risen.
pub(crate) const WELL_FROM: Duration = Duration::from_secs(1900);
/// Requests come until then.
pub(crate) const END: Duration = Duration::from_secs(2000);

/// What a backend does to whoever comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Fine,
    /// Connections are refused.
    Down,
    /// Connects run into their timeout.
    Silent,
    /// So many percent of responses are 503.
    Errors(u64),
    /// So many times slower.
    Slow(u32),
    /// Connections are reset before a response.
    Resets,
}

/// A fault in a stretch of time; a flapping one comes and goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) from: Duration,
    pub(crate) until: Duration,
    pub(crate) mode: Mode,
    pub(crate) flaps_each: Option<Duration>,
}

#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) weight: u32,
    pub(crate) priority: u32,
    pub(crate) usual: Duration,
    pub(crate) faults: Vec<Fault>,
    pub(crate) drains: Option<(Duration, Duration)>,
}

impl Backend {
    pub(crate) fn mode(&self, at: Duration) -> Mode {
        let present = self.faults.iter().filter(|fault| (fault.from..fault.until).contains(&at));
        let acts = |fault: &&Fault| {
            fault
                .flaps_each
                .is_none_or(|each| ((at - fault.from).as_nanos() / each.as_nanos()).is_multiple_of(2))
        };
        present.clone().find(acts).map_or(Mode::Fine, |fault| fault.mode)
    }

    pub(crate) fn is_draining(&self, at: Duration) -> bool {
        self.drains.is_some_and(|(from, until)| (from..until).contains(&at))
    }
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) workers: usize,
    pub(crate) backends: Vec<Backend>,
    pub(crate) balance: BalanceSettings,
    pub(crate) health: ProbeSettings,
    pub(crate) streak: StreakLimits,
    pub(crate) analysis: Analysis,
    pub(crate) analysis_interval: Duration,
    pub(crate) ejection: EjectionSettings,
    pub(crate) limits: MemberLimits,
    pub(crate) conditions: Conditions,
    pub(crate) tries: u32,
    pub(crate) per_try_timeout: Duration,
    pub(crate) budget: BudgetSettings,
    pub(crate) hedge: HedgeSettings,
    /// The mean time between requests, from each moment on.
    pub(crate) pace: Vec<(Duration, Duration)>,
}

impl World {
    /// Health checks, ejections and retries, and no faults; 20 requests a second.
    pub(crate) fn calm(seed: u64, policy: Policy, backends: usize) -> Self {
        let backend = Backend {
            weight: 1,
            priority: 0,
            usual: Duration::from_millis(10),
            faults: Vec::new(),
            drains: None,
        };
        let mut conditions = Conditions { timeout: true, ..Conditions::default() };
        conditions.statuses.insert(503);
        Self {
            seed,
            workers: 2,
            backends: vec![backend; backends],
            balance: BalanceSettings {
                policy,
                table_size: 251,
                ring_points: 20,
                ..BalanceSettings::default()
            },
            health: ProbeSettings::default(),
            streak: StreakLimits::default(),
            analysis: Analysis { error_rate_percent: 50, min_requests: 20, latency_factor_percent: 500 },
            analysis_interval: Duration::from_secs(10),
            ejection: EjectionSettings { max: Duration::from_secs(120), ..EjectionSettings::default() },
            limits: MemberLimits::default(),
            conditions,
            tries: 2,
            per_try_timeout: Duration::from_secs(1),
            budget: BudgetSettings::default(),
            hedge: HedgeSettings::default(),
            pace: vec![(Duration::ZERO, Duration::from_millis(50))],
        }
    }

    /// A world in which anything may happen.
    pub(crate) fn drawn(seed: u64) -> Self {
        let mut rng = SplitMix64::new(seed ^ 0x5eed);
        let mut draw = |from: u64, to: u64| from + rng.below(to - from + 1);
        let policy = Policy::ALL[usize::try_from(draw(0, 8)).unwrap()];
        let mut world = Self::calm(seed, policy, usize::try_from(draw(1, 9)).unwrap());
        world.workers = usize::try_from(draw(1, 3)).unwrap();
        world.balance.panic_threshold_percent = [0, 50, 50, 90][usize::try_from(draw(0, 3)).unwrap()];
        world.balance.slow_start = Duration::from_secs(draw(0, 1) * 30);
        world.balance.balance_factor = (draw(0, 2) == 0).then_some(125);
        world.health.rise = u32::try_from(draw(1, 3)).unwrap();
        world.health.fall = u32::try_from(draw(1, 4)).unwrap();
        world.health.interval = Duration::from_secs(draw(1, 10));
        world.streak.server_errors = u32::try_from(draw(0, 6)).unwrap();
        world.streak.gateway_failures = u32::try_from(draw(0, 6)).unwrap();
        world.ejection.max_percent = u32::try_from(draw(0, 10) * 10).unwrap();
        world.ejection.base = Duration::from_secs(draw(1, 30));
        world.ejection.probation = Duration::from_secs(draw(0, 30));
        if draw(0, 1) == 0 {
            world.limits.max_requests = u32::try_from(draw(30, 60)).unwrap();
            world.limits.max_connections = u32::try_from(draw(0, 1) * draw(30, 60)).unwrap();
            world.limits.max_pending = u32::try_from(draw(0, 1) * draw(1, 20)).unwrap();
        }
        world.tries = u32::try_from(draw(0, 4)).unwrap();
        world.budget.percent = u32::try_from(draw(0, 10) * 5).unwrap();
        world.budget.min = u32::try_from(draw(0, 4)).unwrap();
        world.hedge.percentile = [0, 90, 95, 99][usize::try_from(draw(0, 3)).unwrap()];
        // Lulls, and bursts that are long enough to fill queues and budgets.
        let mut at = Duration::ZERO;
        while at < WELL_FROM {
            world.pace.push((at, Duration::from_millis(draw(50, 500))));
            at += Duration::from_secs(draw(10, 60));
            world.pace.push((at, Duration::from_millis(draw(2, 8))));
            at += Duration::from_secs(draw(1, 3));
        }
        world.pace.push((FAULTS_UNTIL, Duration::from_millis(100)));
        world.pace.retain(|(from, _)| *from <= FAULTS_UNTIL);
        world.draw_faults(&mut rng);
        world
    }

    fn draw_faults(&mut self, rng: &mut SplitMix64) {
        let until = FAULTS_UNTIL.as_secs();
        let fault = |rng: &mut SplitMix64| {
            let from = rng.below(until);
            let lasts = 5 + rng.below(200);
            let mode = match rng.below(6) {
                0 => Mode::Down,
                1 => Mode::Silent,
                2 => Mode::Errors(20 + rng.below(81)),
                3 => Mode::Slow(5 + u32::try_from(rng.below(200)).unwrap()),
                4 => Mode::Resets,
                _ => Mode::Errors(100),
            };
            let flaps_each = (rng.below(3) == 0).then(|| Duration::from_millis(200 + rng.below(20_000)));
            let seconds = Duration::from_secs;
            Fault { from: seconds(from), until: seconds((from + lasts).min(until)), mode, flaps_each }
        };
        for backend in &mut self.backends {
            backend.weight = 1 + u32::try_from(rng.below(3)).unwrap();
            backend.priority = u32::from(rng.below(4) == 0);
            // Not so different that one would be an outlier without a fault.
            backend.usual = Duration::from_millis(6 + rng.below(7));
            backend.faults = (0..rng.below(6)).map(|_| fault(rng)).collect();
            backend.drains = (rng.below(6) == 0).then(|| {
                let from = rng.below(until);
                (Duration::from_secs(from), Duration::from_secs(until.min(from + 300)))
            });
        }
        // Faults that several share at the same moments.
        for _ in 0..rng.below(4) {
            let shared = fault(rng);
            for backend in &mut self.backends {
                if rng.below(3) > 0 {
                    backend.faults.insert(0, shared);
                }
            }
        }
    }
}
