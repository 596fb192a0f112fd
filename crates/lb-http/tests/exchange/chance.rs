//! Pools, origins and requests by chance.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use lb_core::balance::{BalanceSettings, Policy};
use lb_core::breaker::MemberLimits;
use lb_core::failure::{Kind, Reset, ResetReason};
use lb_core::head::BodyLength;
use lb_core::hedge::HedgeSettings;
use lb_core::pool::PoolSettings;
use lb_core::retry::{BudgetSettings, Conditions, RetrySettings};
use lb_core::rng::SplitMix64;
use lb_http::message::Gone;

use crate::back::Step;
use crate::call::{Call, pattern};
use crate::front::{Habits, Send};

const MS: Duration = Duration::from_millis(1);

/// Choices by a seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice(Rc<RefCell<SplitMix64>>);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Rc::new(RefCell::new(SplitMix64::new(seed))))
    }

    pub(crate) fn below(&self, n: usize) -> usize {
        (self.0.borrow_mut().next_u64() % n as u64) as usize
    }

    /// True in so many of a hundred cases.
    pub(crate) fn percent(&self, n: usize) -> bool {
        self.below(100) < n
    }

    pub(crate) fn ms(&self, most: usize) -> Duration {
        MS * self.below(most + 1) as u32
    }

    pub(crate) fn of<T: Clone>(&self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }
}

/// How a world is out to get the gateways, in percent of the cases.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Malice {
    pub(crate) cuts: usize,
    pub(crate) connects: usize,
    pub(crate) origins: usize,
    pub(crate) clients: usize,
    pub(crate) drains: usize,
}

impl Malice {
    pub(crate) fn of(dice: &Dice) -> Self {
        let some = || if dice.percent(50) { dice.below(40) } else { 0 };
        Self { cuts: some(), connects: some(), origins: some(), clients: some(), drains: some() }
    }
}

/// What the near gateway's pool does.
pub(crate) fn pool(dice: &Dice) -> PoolSettings {
    let limits = match dice.percent(40) {
        true => MemberLimits {
            max_connections: 1 + dice.below(3) as u32,
            max_requests: 1 + dice.below(4) as u32,
            max_pending: 1 + dice.below(8) as u32,
            pending_timeout: dice.ms(3000),
        },
        false => MemberLimits::default(),
    };
    let hedge = match dice.percent(40) {
        true => HedgeSettings { percentile: 50 + dice.below(49) as u32, min_delay: MS * 5 },
        false => HedgeSettings::default(),
    };
    let retry = RetrySettings {
        attempts: dice.percent(60).then(|| dice.below(4) as u32),
        conditions: Conditions {
            connect: dice.percent(80),
            refused: dice.percent(80),
            reset: dice.percent(80),
            timeout: dice.percent(50),
            statuses: [503, 502].into_iter().filter(|_| dice.percent(50)).collect(),
        },
        per_try_timeout: dice.percent(40).then(|| MS * (50 + dice.below(2000) as u32)),
        backoff: if dice.percent(30) { dice.ms(300) } else { Duration::ZERO },
        budget: BudgetSettings { percent: dice.below(100) as u32, min: dice.below(5) as u32 },
        hedge,
    };
    let policies = [Policy::RoundRobin, Policy::P2c, Policy::LeastRequest];
    let balance = BalanceSettings { policy: dice.of(&policies), ..BalanceSettings::default() };
    PoolSettings { limits, retry, balance, ..PoolSettings::default() }
}

/// Bodies of messages are of these lengths; where connections carry next to nothing, of the shorter.
const LENGTHS: [usize; 6] = [0, 1, 100, 2000, 10_000, 60_000];

/// What an origin does with a request.
pub(crate) fn answer(dice: &Dice, malice: Malice, short: bool, number: usize) -> Vec<Step> {
    let mut steps = vec![Step::After(dice.ms(80))];
    if dice.percent(10) {
        steps.push(Step::Interim(103));
    }
    if dice.percent(70) {
        steps.push(Step::Request);
    }
    let fails = dice.percent(malice.origins);
    if fails && dice.percent(60) {
        let reset = |reason| Kind::StreamReset(Reset { reason, code: 9 });
        let kinds = [
            Kind::Refused,
            Kind::GoneAway,
            Kind::Closed,
            Kind::ConnectionReset,
            reset(ResetReason::Cancelled),
            reset(ResetReason::Fault),
        ];
        steps.push(if dice.percent(80) { Step::Fail(dice.of(&kinds)) } else { Step::Never });
        return steps;
    }
    if dice.percent(5) {
        steps.push(Step::GoAway);
    }
    let length = dice.of(&LENGTHS[..if short { 4 } else { 6 }]);
    let status = if fails && dice.percent(30) { 503 } else { 200 };
    let known = dice.percent(50);
    let body = pattern(number, length);
    steps
        .push(Step::Head(status, if known { BodyLength::Known(length as u64) } else { BodyLength::Unknown }));
    let stop = if fails && status == 200 { dice.below(length + 1) } else { length };
    // No more pieces than there is time for, with their pauses.
    for piece in body[..stop].chunks((1 + dice.below(20_000)).max(length / 500)) {
        steps.push(Step::Data(piece.to_vec()));
        if dice.percent(10) {
            steps.push(Step::After(dice.ms(100)));
        }
    }
    if fails && status == 200 {
        steps.push(if dice.percent(70) { Step::Fail(Kind::Truncated) } else { Step::Never });
        return steps;
    }
    if !known && dice.percent(30) {
        steps.push(Step::Trailer("x-sum", "1"));
    }
    steps.push(Step::End);
    steps
}

/// A request by chance.
pub(crate) fn call(dice: &Dice, malice: Malice, short: bool, id: usize) -> Call {
    let mut habits = Habits::default();
    if dice.percent(malice.clients) {
        let gone = [Gone::Closed, Gone::Reset(Reset { reason: ResetReason::Cancelled, code: 8 })];
        habits.leaves = Some((dice.ms(300), dice.of(&gone)));
    }
    if dice.percent(20) {
        habits.gulp = if short { 1 + dice.below(100) } else { 2000 + dice.below(20_000) };
        habits.pause = dice.ms(20);
    }
    let method = dice.of(&["GET", "PUT", "POST", "POST"]);
    if method == "GET" {
        return Call { habits, ..Call::get(id) };
    }
    let length = dice.of(&LENGTHS[..if short { 4 } else { 6 }]);
    let body = pattern(id, length);
    let mut sends = Vec::new();
    // Twenty pieces at most, with their pauses: slower clients are told so.
    for piece in body.chunks(1 + length / 20 + dice.below(15_000)) {
        sends.push(Send::Data(piece.to_vec()));
        if dice.percent(20) {
            sends.push(Send::After(dice.ms(200)));
        }
    }
    // A client that stops sending is told so, sooner or later.
    if !dice.percent(malice.clients / 4) {
        sends.push(Send::End);
    }
    let known = if dice.percent(50) { BodyLength::Known(length as u64) } else { BodyLength::Unknown };
    Call { id, method, body: known, sends, habits }
}
