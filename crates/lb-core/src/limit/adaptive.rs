//! A limit on requests at once that finds itself: as many as the backends take without becoming slower.
//!
//! After each window of time, limit = limit × clamp(1.5 × long mean ÷ short mean of the latency, 0.5, 1) + √limit, within bounds, and only where at
//! least half of the limit was in use: latencies at less say nothing about it. The short mean is that of the window. The long mean follows it within some seconds
//! while answers take about as long as they used to; where they take longer it follows slowly, within minutes. So a queue that grows in front of the
//! backends is taken for one and not for the new measure, and backends that have become slower for good get their requests back in the end. There is no phase in which requests
//! are held back to measure.
//!
//! Each worker has a limit of its own. Time is an argument.

use std::time::{Duration, Instant};

/// The least time between two changes.
const WINDOW: Duration = Duration::from_millis(100);

/// The least latencies between two changes.
const SAMPLES: u32 = 10;

/// What the limit is at first, within its bounds.
const FIRST: f64 = 100.0;

/// How much longer than usual answers may take.
const TOLERANCE: f64 = 1.5;

/// The most that the limit shrinks by at once.
const LEAST_GRADIENT: f64 = 0.5;

/// The time within which the long mean follows, seconds: while answers take about as long as usual, and while they take longer.
const FOLLOWS: f64 = 10.0;
const FOLLOWS_SLOWLY: f64 = 300.0;

/// What is left of a long mean after a window of answers that took less than half of it: backends have recovered.
const RECOVERS: f64 = 0.95;

/// Where the limit may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AdaptiveBounds {
    /// The least; at least 1.
    pub min: u32,
    /// The most.
    pub max: u32,
}

/// A limit with the requests that it counts.
#[derive(Clone, Debug)]
pub struct AdaptiveLimit {
    bounds: AdaptiveBounds,
    limit: f64,
    running: u32,
    /// The most that ran at once since the last change.
    most_running: u32,
    window: Option<Instant>,
    samples: u32,
    /// The sum of the latencies, seconds.
    sum: f64,
    long: Option<f64>,
}

impl AdaptiveLimit {
    /// A limit that has counted nothing yet.
    pub fn new(bounds: AdaptiveBounds) -> Self {
        let limit = bounds.within(FIRST);
        let (running, most_running, samples) = (0, 0, 0);
        Self { bounds, limit, running, most_running, window: None, samples, sum: 0.0, long: None }
    }

    /// Moves it within other bounds.
    pub fn set_bounds(&mut self, bounds: AdaptiveBounds) {
        self.bounds = bounds;
        self.limit = bounds.within(self.limit);
    }

    /// Requests that may run at once now.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within bounds of u32")]
    pub fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// Requests that run.
    pub fn running(&self) -> u32 {
        self.running
    }

    /// A request begins, if there is room for it.
    pub fn begin(&mut self) -> bool {
        let has_room = self.running < self.limit();
        if has_room {
            self.running = self.running.saturating_add(1);
            self.most_running = self.most_running.max(self.running);
        }
        has_room
    }

    /// A request that had begun ends. `latency` is the time until its response began, where one came or was waited for in vain.
    pub fn end(&mut self, latency: Option<Duration>, now: Instant) {
        self.running = self.running.saturating_sub(1);
        let Some(latency) = latency else { return };
        self.sum += latency.as_secs_f64();
        self.samples = self.samples.saturating_add(1);
        let began = *self.window.get_or_insert(now);
        let passed = now.saturating_duration_since(began);
        if passed >= WINDOW && self.samples >= SAMPLES {
            self.change(passed);
            self.window = Some(now);
        }
    }

    fn change(&mut self, passed: Duration) {
        // A millionth of a second at least, so that quotients have a meaning.
        let short = (self.sum / f64::from(self.samples)).max(1e-6);
        let most_running = std::mem::replace(&mut self.most_running, self.running);
        (self.sum, self.samples) = (0.0, 0);
        let Some(long) = self.long else {
            self.long = Some(short);
            return;
        };
        let follows = if short > TOLERANCE * long { FOLLOWS_SLOWLY } else { FOLLOWS };
        let mut long = long + (short - long) * (passed.as_secs_f64() / follows).min(1.0);
        if long > 2.0 * short {
            long *= RECOVERS;
        }
        self.long = Some(long);
        if f64::from(most_running) * 2.0 < self.limit {
            return;
        }
        let gradient = (TOLERANCE * long / short).clamp(LEAST_GRADIENT, 1.0);
        self.limit = self.bounds.within(self.limit * gradient + self.limit.sqrt());
    }
}

impl AdaptiveBounds {
    fn within(self, limit: f64) -> f64 {
        let min = self.min.max(1);
        limit.clamp(f64::from(min), f64::from(self.max.max(min)))
    }
}
