//! The life of a request: whom it is sent to, who waits, what follows a try.

use std::time::Duration;

use lb_core::balance::RequestOutcome as Served;
use lb_core::breaker::{Admit, Answer, Need, Ticket};
use lb_core::failure::{Failure, Kind, Reach};
use lb_core::outlier::{EjectionStanding, Ending};
use lb_core::retry::{self, Attempt, RetryVerdict};

use super::{Event, Simulation};
use crate::world::{END, Mode};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct Request {
    pub(super) worker: usize,
    pub(super) began: Duration,
    pub(super) key: Option<u64>,
    pub(super) idempotent: bool,
    pub(super) tries_left: u32,
    pub(super) tried: Vec<usize>,
    pub(super) under_way: Vec<Try>,
    pub(super) waiting: Option<(usize, Ticket, bool)>,
    /// Tries that reached a backend which may have done the work.
    pub(super) worked_on: u32,
    pub(super) is_done: bool,
}

pub(super) struct Try {
    pub(super) number: u32,
    pub(super) at: usize,
    pub(super) began: Duration,
    pub(super) charged: bool,
}

/// No connection came about.
const REFUSED: Failure = Kind::Connect { timed_out: false }.unconnected();

impl Simulation {
    pub(super) fn arrive(&mut self) {
        while self.world.pace.get(self.pace_at + 1).is_some_and(|(from, _)| *from <= self.now) {
            self.pace_at += 1;
        }
        let mean = u64::try_from(self.world.pace[self.pace_at].1.as_nanos()).unwrap();
        let next = Duration::from_nanos(1 + self.rng.below(mean * 2));
        if self.now + next < END {
            self.after(next, Event::Arrive);
        }
        let request = Request {
            worker: usize::try_from(self.rng.below(self.world.workers as u64)).unwrap(),
            began: self.now,
            key: (self.rng.below(2) == 0).then(|| self.rng.below(100)),
            idempotent: self.rng.below(4) > 0,
            tries_left: self.world.tries,
            tried: Vec::new(),
            under_way: Vec::new(),
            waiting: None,
            worked_on: 0,
            is_done: false,
        };
        self.report.requests += 1;
        self.workers[request.worker].begin();
        self.requests.push(request);
        self.choose(self.requests.len() - 1, false);
    }

    /// Sends a request to somebody, or ends it when nobody is left and no other try of it is under way.
    fn choose(&mut self, number: usize, charged: bool) {
        let now = self.instant();
        let request = &mut self.requests[number];
        let worker = &mut self.workers[request.worker];
        let picked = worker.pick(&self.world, &self.shared, now, request.key, &request.tried);
        let Some(at) = picked else { return self.nowhere(number, charged) };
        self.report.panic_picks += u64::from(worker.balancer.standing().panic);
        request.tried.push(at);
        match worker.breakers[at].admit(Need::Both, now, || number) {
            Admit::Go => self.try_begins(number, at, charged),
            Admit::Wait(ticket) => {
                self.report.waited += 1;
                request.waiting = Some((at, ticket, charged));
                self.after(self.world.limits.pending_timeout, Event::WaitEnds { request: number });
            }
            Admit::Refuse(_) => {
                self.report.refused_for_room += 1;
                self.nowhere(number, charged);
            }
        }
        let worker = self.requests[number].worker;
        self.workers[worker].check_breaker(&self.world, worker, at);
    }

    /// A try does not come about.
    fn nowhere(&mut self, number: usize, charged: bool) {
        let request = &self.requests[number];
        if charged {
            self.workers[request.worker].budget.done();
        }
        if request.under_way.is_empty() {
            self.ends(number, false);
        }
    }

    fn try_begins(&mut self, number: usize, at: usize, charged: bool) {
        let backend = &self.world.backends[at];
        let spread = if self.rng.below(100) == 0 { 5000 } else { 500 + self.rng.below(1000) };
        let usual = backend.usual * u32::try_from(spread).unwrap() / 1000;
        let mode = backend.mode(self.now);
        let (takes, result) = match mode {
            Mode::Fine => (usual, Ok(())),
            Mode::Down => (Duration::from_millis(1), Err(REFUSED)),
            Mode::Silent => (CONNECT_TIMEOUT, Err(REFUSED)),
            Mode::Errors(percent) if self.rng.below(100) < percent => {
                (usual / 5, Err(Kind::Status(503).at(Reach::Sent)))
            }
            Mode::Errors(_) => (usual, Ok(())),
            Mode::Slow(factor) => (usual * factor, Ok(())),
            Mode::Resets => (usual / 2, Err(Kind::Closed.at(Reach::Sent))),
        };
        let limit = self.world.per_try_timeout;
        let (takes, result) = match result {
            Err(failure) if failure == REFUSED => (takes, result),
            _ if takes >= limit => (limit, Err(Kind::Timeout.at(Reach::Sent))),
            _ => (takes, result),
        };
        self.report.tries += 1;
        self.report.tries_at[at] += 1;
        let request = &mut self.requests[number];
        request.worked_on += u32::from(result != Err(REFUSED));
        let serial = u32::try_from(request.tried.len()).unwrap();
        request.under_way.push(Try { number: serial, at, began: self.now, charged });
        let worker = &mut self.workers[request.worker];
        worker.balancer.begin(at);
        worker.balancer.opened(at);
        let hedge = worker.hedge.delay();
        self.note(number as u64 ^ ((at as u64) << 32));
        self.after(takes, Event::TryEnds { request: number, number: serial, result });
        if let Some(delay) = hedge {
            self.after(delay, Event::Hedge { request: number, number: serial });
        }
    }

    fn attempt(&self, number: usize) -> Attempt {
        let request = &self.requests[number];
        Attempt {
            tries_left: request.tries_left,
            idempotent: request.idempotent,
            body_consumed: false,
            gone_away: 0,
        }
    }

    pub(super) fn hedge(&mut self, number: usize, serial: u32) {
        let now = self.instant();
        let [one] = self.requests[number].under_way.as_slice() else { return };
        if one.number != serial || !retry::may_hedge(self.attempt(number)) {
            return;
        }
        let request = &mut self.requests[number];
        let worker = &mut self.workers[request.worker];
        if request.waiting.is_none() && worker.budget.take(now) {
            worker.check_budget(&self.world, self.now);
            request.tries_left -= 1;
            self.report.hedges += 1;
            self.choose(number, true);
        }
    }

    pub(super) fn try_ends(&mut self, number: usize, serial: u32, result: Result<(), Failure>) {
        let now = self.instant();
        let request = &mut self.requests[number];
        let Some(place) = request.under_way.iter().position(|one| one.number == serial) else { return };
        let one = request.under_way.swap_remove(place);
        let latency = result.is_ok().then(|| self.now - one.began);
        let worker = &mut self.workers[request.worker];
        let ending = match result {
            Ok(()) => Ending::Fine,
            Err(failure) => failure.ending().unwrap_or(Ending::GatewayFailure),
        };
        let probation = self.shared.ejector.standing(one.at, now) == EjectionStanding::Probation;
        let fires = worker.record(&self.world, one.at, ending, latency, probation);
        if let Some(latency) = latency {
            worker.hedge.record(latency);
        }
        worker.balancer.end(one.at, now, Served { latency, failed: result.is_err() });
        if fires.is_some() {
            self.shared.eject(&self.world, one.at, now);
        }
        self.gives_back(number, &one);
        match result {
            Ok(()) => self.ends(number, true),
            Err(failure) => self.try_failed(number, failure),
        }
        let worker = self.requests[number].worker;
        self.wakes(worker, one.at);
    }

    fn try_failed(&mut self, number: usize, failure: Failure) {
        let (now, attempt) = (self.instant(), self.attempt(number));
        let request = &mut self.requests[number];
        if !request.under_way.is_empty() || request.waiting.is_some() {
            // The other try may still be answered.
            return;
        }
        let worker = &mut self.workers[request.worker];
        match retry::decide(&self.world.conditions, failure, attempt, &mut worker.budget, now) {
            RetryVerdict::Again { charged } => {
                if charged {
                    worker.check_budget(&self.world, self.now);
                }
                request.tries_left -= 1;
                self.choose(number, charged);
            }
            RetryVerdict::No(_) => self.ends(number, false),
        }
    }

    fn gives_back(&mut self, number: usize, one: &Try) {
        let worker = &mut self.workers[self.requests[number].worker];
        worker.balancer.closed(one.at);
        worker.breakers[one.at].request_done();
        worker.breakers[one.at].connection_done();
        if one.charged {
            worker.budget.done();
        }
    }

    fn ends(&mut self, number: usize, answered: bool) {
        let now = self.instant();
        let request = &mut self.requests[number];
        assert!(!request.is_done, "a request ended twice");
        request.is_done = true;
        let (worker, took) = (request.worker, self.now - request.began);
        if answered {
            self.report.times.push(took);
        } else {
            self.report.failed.push(request.began);
        }
        let waiting = request.waiting.take();
        for one in std::mem::take(&mut request.under_way) {
            let balancer = &mut self.workers[worker].balancer;
            balancer.end(one.at, now, Served { latency: None, failed: false });
            self.workers[worker].hedge.record(self.now - one.began);
            self.gives_back(number, &one);
            self.wakes(worker, one.at);
        }
        if let Some((at, ticket, charged)) = waiting {
            self.workers[worker].breakers[at].leave(ticket);
            if charged {
                self.workers[worker].budget.done();
            }
            self.wakes(worker, at);
        }
        self.workers[worker].budget.end();
        self.note(u64::from(answered));
    }

    /// Lets those go on who wait for a member of a worker.
    fn wakes(&mut self, worker: usize, at: usize) {
        while let Some(&number) = self.workers[worker].breakers[at].first() {
            let (_, ticket, charged) = self.requests[number].waiting.expect("only who waits is woken");
            match self.workers[worker].breakers[at].ask(ticket, Need::Both, self.start + self.now) {
                Answer::Wait(_) => break,
                Answer::Go => {
                    self.requests[number].waiting = None;
                    self.try_begins(number, at, charged);
                }
                Answer::Refuse(_) => {
                    self.requests[number].waiting = None;
                    self.nowhere(number, charged);
                }
            }
        }
        self.workers[worker].check_breaker(&self.world, worker, at);
    }

    pub(super) fn wait_ends(&mut self, number: usize) {
        let now = self.instant();
        let request = &mut self.requests[number];
        let Some((at, ticket, charged)) = request.waiting else { return };
        let worker = request.worker;
        if let Answer::Refuse(_) = self.workers[worker].breakers[at].ask(ticket, Need::Both, now) {
            self.requests[number].waiting = None;
            self.nowhere(number, charged);
        }
        self.wakes(worker, at);
    }
}
