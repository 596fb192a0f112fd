//! Rates and recent latencies, from counters that only grow.
//!
//! Nothing is kept while nobody looks: a rate is taken over the time since the state before, and says over how long. Percentiles are those of
//! the requests of the last half minute to minute, or since the last look where that is longer ago.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use lb_observe::metrics::Latency;

/// A rate is taken over at least this.
const LEAST_INTERVAL: Duration = Duration::from_millis(900);

/// How long a window of latencies is at least; twice as long at most while somebody looks.
const WINDOW: Duration = Duration::from_secs(30);

/// Three counters of a row.
pub(super) type Counts = [u64; 3];

/// What was counted at earlier looks.
#[derive(Debug)]
pub(super) struct Rates {
    /// The look before, and the one before that.
    looks: [(Instant, HashMap<String, Counts>); 2],
    /// Latencies at the beginning of the window before, and of this one.
    windows: [(Instant, HashMap<String, Latency>); 2],
}

/// One look, which is compared with earlier ones.
#[derive(Debug)]
pub(super) struct Look<'a> {
    rates: &'a mut Rates,
    now: Instant,
    /// Which of the looks before is compared with.
    with: usize,
    counts: HashMap<String, Counts>,
    /// Present where another window begins now.
    latencies: Option<HashMap<String, Latency>>,
}

impl Rates {
    /// Counters that were zero at `start`.
    pub(super) fn new(start: Instant) -> Self {
        let none = || (start, HashMap::new());
        Self { looks: [none(), none()], windows: [(start, HashMap::new()), (start, HashMap::new())] }
    }

    pub(super) fn look(&mut self, now: Instant) -> Look<'_> {
        let age = |at: Instant| now.saturating_duration_since(at);
        let with = usize::from(age(self.looks[0].0) < LEAST_INTERVAL);
        let counts = HashMap::with_capacity(self.looks[0].1.len());
        let latencies = (age(self.windows[1].0) >= WINDOW).then(HashMap::new);
        Look { rates: self, now, with, counts, latencies }
    }
}

impl Look<'_> {
    /// Over how long rates are taken.
    pub(super) fn interval(&self) -> Duration {
        let [before, earlier] = &self.rates.looks;
        self.now.saturating_duration_since(if self.with == 0 { before.0 } else { earlier.0 })
    }

    /// Over how long percentiles are taken.
    pub(super) fn window(&self) -> Duration {
        self.now.saturating_duration_since(self.rates.windows[0].0)
    }

    /// How much the counters of a row have grown, by the second. What went back has not grown. A row that was not there before grew from zero.
    pub(super) fn per_second(&mut self, key: &str, counts: Counts) -> [Option<f64>; 3] {
        let seconds = self.interval().as_secs_f64();
        let [before, earlier] = &self.rates.looks;
        let (_, known) = if self.with == 0 { before } else { earlier };
        let known = known.get(key).copied().unwrap_or_default();
        self.counts.insert(key.to_owned(), counts);
        let mut rates = [None; 3];
        for ((rate, count), known) in rates.iter_mut().zip(counts).zip(known) {
            *rate = (seconds > 0.0).then(|| count.saturating_sub(known) as f64 / seconds);
        }
        rates
    }

    /// The latencies of a row within the window.
    pub(super) fn recent(&mut self, key: &str, latency: &Latency) -> Latency {
        if let Some(latencies) = &mut self.latencies {
            latencies.insert(key.to_owned(), latency.clone());
        }
        match self.rates.windows[0].1.get(key) {
            Some(earlier) => latency.since(earlier),
            None => latency.clone(),
        }
    }

    /// Remembers this look.
    pub(super) fn end(self) {
        let Self { rates, now, with, counts, latencies } = self;
        if with == 0 {
            let before = std::mem::replace(&mut rates.looks[0], (now, counts));
            rates.looks[1] = before;
        }
        if let Some(latencies) = latencies {
            let before = std::mem::replace(&mut rates.windows[1], (now, latencies));
            rates.windows[0] = before;
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_observe::metrics::{HttpVersion, Metrics, StatusClass};

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn rate(rates: &mut Rates, now: Instant, count: u64) -> f64 {
        let mut look = rates.look(now);
        let [rate, ..] = look.per_second("web", [count, 0, 0]);
        look.end();
        rate.unwrap()
    }

    #[test]
    fn rates_are_taken_over_a_second_or_longer() {
        let start = Instant::now();
        let mut rates = Rates::new(start);
        assert_eq!(rate(&mut rates, start + seconds(10), 100), 10.0, "since the start");
        assert_eq!(rate(&mut rates, start + seconds(11), 150), 50.0);
        // A look that follows at once is compared with an earlier one, and does not disturb the next.
        assert_eq!(rate(&mut rates, start + Duration::from_millis(11_250), 150), 40.0);
        assert_eq!(rate(&mut rates, start + seconds(12), 170), 20.0);
        assert_eq!(rate(&mut rates, start + seconds(13), 5), 0.0, "a counter that went back has not grown");
        let mut look = rates.look(start + seconds(14));
        assert_eq!(look.per_second("new", [3, 0, 0])[0], Some(3.0));
        look.end();
    }

    #[test]
    fn rows_that_are_gone_are_forgotten() {
        let start = Instant::now();
        let mut rates = Rates::new(start);
        for at in 1..100 {
            let mut look = rates.look(start + seconds(at * 40));
            look.per_second(&format!("row {at}"), [1, 1, 1]);
            look.recent(&format!("row {at}"), &Latency::default());
            look.end();
        }
        let kept = |maps: usize| (1..=2).contains(&maps);
        assert!(kept(rates.looks.iter().map(|(_, rows)| rows.len()).sum()));
        assert!(kept(rates.windows.iter().map(|(_, rows)| rows.len()).sum()));
    }

    #[test]
    fn percentiles_forget_what_is_a_minute_old() {
        let start = Instant::now();
        let metrics = Metrics::new(1);
        let listener = metrics.listener("web");
        let record = |millis| {
            let took = Duration::from_millis(millis);
            listener.worker(0).unrouted.record(HttpVersion::H1, StatusClass::Success, took);
        };
        let mut rates = Rates::new(start);
        let mut recent = |at| {
            let latency = metrics.reading().listeners["web"].requests.latency.clone();
            let mut look = rates.look(start + seconds(at));
            let recent = look.recent("web", &latency);
            look.end();
            recent.count()
        };
        record(4000);
        assert_eq!(recent(1), 1);
        assert_eq!(recent(31), 1, "another window begins");
        record(1);
        assert_eq!(recent(40), 2);
        assert_eq!(recent(62), 2);
        assert_eq!(recent(63), 1, "what came before the window is forgotten");
        assert_eq!(recent(200), 1);
    }
}
