//! Virtual time: requests, tries and probes as events in the order of their moments.

mod requests;

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use lb_core::failure::Failure;
use lb_core::health::ProbeOutcome as Probed;
use lb_core::rng::SplitMix64;

use requests::Request;

use crate::gateway::{Shared, Worker};
use crate::world::{END, Mode, World};

const TICK: Duration = Duration::from_millis(250);

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) requests: u64,
    /// When the requests began that failed.
    pub(crate) failed: Vec<Duration>,
    pub(crate) refused_for_room: u64,
    pub(crate) waited: u64,
    pub(crate) tries: u64,
    /// Tries at each member.
    pub(crate) tries_at: Vec<u64>,
    pub(crate) taken: u64,
    pub(crate) hedges: u64,
    pub(crate) ejections: u64,
    pub(crate) health_changes: u64,
    pub(crate) panic_picks: u64,
    /// Times of the requests that were answered.
    pub(crate) times: Vec<Duration>,
    /// All that happened, in order.
    pub(crate) digest: u64,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Arrive,
    Tick,
    Analyse,
    Probe(usize),
    Probed(usize, Probed),
    TryEnds { request: usize, number: u32, result: Result<(), Failure> },
    Hedge { request: usize, number: u32 },
    WaitEnds { request: usize },
}

struct Due {
    at: Duration,
    serial: u64,
    event: Event,
}

pub(crate) struct Simulation {
    world: World,
    start: Instant,
    now: Duration,
    rng: SplitMix64,
    events: BinaryHeap<Due>,
    serial: u64,
    shared: Shared,
    workers: Vec<Worker>,
    requests: Vec<Request>,
    pace_at: usize,
    report: Report,
}

impl Simulation {
    /// Runs a world to its end, and on until nothing is under way.
    pub(crate) fn run(world: World) -> Report {
        let start = Instant::now();
        let mut simulation = Self {
            start,
            now: Duration::ZERO,
            rng: SplitMix64::new(world.seed),
            events: BinaryHeap::new(),
            serial: 0,
            shared: Shared::new(&world, start),
            workers: (0..world.workers).map(|number| Worker::new(&world, number, start)).collect(),
            requests: Vec::new(),
            pace_at: 0,
            report: Report { tries_at: vec![0; world.backends.len()], ..Report::default() },
            world,
        };
        for at in 0..simulation.world.backends.len() {
            simulation.probe_later(at);
        }
        simulation.after(Duration::ZERO, Event::Arrive);
        simulation.after(Duration::ZERO, Event::Tick);
        simulation.after(simulation.world.analysis_interval, Event::Analyse);
        while let Some(due) = simulation.events.pop() {
            simulation.now = due.at;
            simulation.happen(due.event);
        }
        simulation.finish()
    }

    fn finish(mut self) -> Report {
        assert!(self.requests.iter().all(|request| request.is_done), "a request never ended");
        let spared = |request: &Request| request.worked_on <= 1 || request.idempotent;
        assert!(self.requests.iter().all(spared), "a request was repeated that must not be");
        self.workers.iter().for_each(Worker::check_idle);
        let reached: u64 = self.requests.iter().map(|request| u64::from(request.worked_on)).sum();
        self.report.taken = self.workers.iter().map(|worker| worker.taken).sum();
        assert!(
            reached <= self.report.requests + self.report.taken,
            "work was added that no budget was charged for"
        );
        assert_eq!(self.shared.ejector.out(), 0, "nobody is out so long after the last fault");
        for (at, target) in self.shared.targets.iter().enumerate() {
            let counts = target.counts();
            assert!(target.state().is_usable(), "everybody is well so long after the last fault");
            self.report.health_changes += counts.changes;
            self.report.ejections += self.shared.ejector.ejections(at);
        }
        self.report
    }

    fn instant(&self) -> Instant {
        self.start + self.now
    }

    fn after(&mut self, wait: Duration, event: Event) {
        self.serial += 1;
        self.events.push(Due { at: self.now + wait, serial: self.serial, event });
    }

    /// Adds to the digest.
    fn note(&mut self, what: u64) {
        let sum = self.report.digest ^ what ^ u64::try_from(self.now.as_nanos()).unwrap();
        self.report.digest = SplitMix64::new(sum).next_u64();
    }

    fn happen(&mut self, event: Event) {
        let now = self.instant();
        match event {
            Event::Arrive => self.arrive(),
            Event::Tick => {
                self.shared.tick(&self.world, self.now, now);
                if self.now < END {
                    self.after(TICK, Event::Tick);
                }
            }
            Event::Analyse => {
                self.shared.analyse(&self.world, &self.workers, now);
                if self.now < END {
                    self.after(self.world.analysis_interval, Event::Analyse);
                }
            }
            Event::Probe(at) => self.probe(at),
            Event::Probed(at, outcome) => {
                if self.shared.probed(&self.world, at, outcome, now) {
                    self.note(at as u64);
                }
                self.probe_later(at);
            }
            Event::TryEnds { request, number, result } => self.try_ends(request, number, result),
            Event::Hedge { request, number } => self.hedge(request, number),
            Event::WaitEnds { request } => self.wait_ends(request),
        }
    }

    fn probe_later(&mut self, at: usize) {
        let due = self.shared.targets[at].due().expect("no probe is under way");
        let wait = due.saturating_duration_since(self.instant());
        if self.now + wait < END {
            self.after(wait, Event::Probe(at));
        }
    }

    fn probe(&mut self, at: usize) {
        let now = self.instant();
        assert!(self.shared.targets[at].begin(now));
        let timeout = self.world.health.timeout;
        let usual = self.world.backends[at].usual;
        let (takes, outcome) = match self.world.backends[at].mode(self.now) {
            Mode::Fine => (usual, Probed::Passed),
            Mode::Down => (Duration::from_millis(1), Probed::Connect),
            Mode::Silent => (timeout, Probed::Timeout),
            Mode::Errors(percent) if self.rng.below(100) < percent => (usual, Probed::Status(503)),
            Mode::Errors(_) => (usual, Probed::Passed),
            Mode::Slow(factor) if usual * factor >= timeout => (timeout, Probed::Timeout),
            Mode::Slow(factor) => (usual * factor, Probed::Passed),
            Mode::Resets => (usual, Probed::Closed),
        };
        self.after(takes, Event::Probed(at, outcome));
    }
}

impl Ord for Due {
    /// The earliest first: the heap takes the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.serial).cmp(&(self.at, self.serial))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}
