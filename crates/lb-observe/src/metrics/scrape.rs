//! The text of a scrape: sums over the workers, written by the `prometheus` crate's text encoder.

use std::collections::HashMap;

use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::families::{FAMILIES, Family, FamilyKind};
use super::values::HistogramTotals;

/// Series collected so far, by family name.
#[derive(Default)]
pub(super) struct Scrape(HashMap<&'static str, Vec<Metric>>);

impl Scrape {
    /// Adds a counter's series. `labels` are the values in the order in which the family declares them.
    pub(super) fn counter(&mut self, family: &Family, labels: &[&str], value: u64) {
        debug_assert_eq!(family.kind, FamilyKind::Counter);
        let mut counter = Counter::default();
        counter.set_value(value as f64);
        self.push(family, labels, |metric| metric.set_counter(counter));
    }

    /// Adds a gauge's series.
    pub(super) fn gauge(&mut self, family: &Family, labels: &[&str], value: f64) {
        debug_assert_eq!(family.kind, FamilyKind::Gauge);
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        self.push(family, labels, |metric| metric.set_gauge(gauge));
    }

    /// Adds the series of histograms that have the family's bounds, summed.
    pub(super) fn histogram<'a>(
        &mut self,
        family: &Family,
        labels: &[&str],
        shards: impl Iterator<Item = &'a super::Histogram>,
    ) {
        let mut totals = HistogramTotals::default();
        shards.for_each(|shard| shard.add_to(&mut totals));
        self.histogram_of(family, labels, &totals);
    }

    /// Adds the series of a histogram that is summed already.
    pub(super) fn histogram_of(&mut self, family: &Family, labels: &[&str], totals: &HistogramTotals) {
        let FamilyKind::Histogram(bounds) = family.kind else {
            debug_assert!(false, "{} is no histogram", family.name);
            return;
        };
        let mut histogram = Histogram::default();
        histogram.set_sample_count(totals.count());
        histogram.set_sample_sum(totals.nanoseconds as f64 / NANOSECONDS_PER_SECOND);
        histogram.set_bucket(
            bounds
                .iter()
                .zip(totals.cumulative())
                .map(|(bound, count)| {
                    let mut bucket = Bucket::default();
                    bucket.set_upper_bound(*bound as f64 / NANOSECONDS_PER_SECOND);
                    bucket.set_cumulative_count(count);
                    bucket
                })
                .collect(),
        );
        self.push(family, labels, |metric| metric.set_histogram(histogram));
    }

    /// The text, families in the order of their table. A family without series is left out.
    pub(super) fn into_text(mut self) -> String {
        let families = FAMILIES
            .iter()
            .filter_map(|family| {
                let mut exposed = MetricFamily::default();
                exposed.set_name(family.name.to_owned());
                exposed.set_help(family.help.to_owned());
                exposed.set_field_type(match family.kind {
                    FamilyKind::Counter => MetricType::COUNTER,
                    FamilyKind::Gauge => MetricType::GAUGE,
                    FamilyKind::Histogram(_) => MetricType::HISTOGRAM,
                });
                exposed.set_metric(self.0.remove(family.name)?);
                Some(exposed)
            })
            .collect::<Vec<_>>();
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&families, &mut text) {
            tracing::error!(%error, "metrics exposition is incomplete");
        }
        text
    }

    fn push(&mut self, family: &Family, labels: &[&str], fill: impl FnOnce(&mut Metric)) {
        debug_assert_eq!(family.labels.len(), labels.len(), "{}", family.name);
        let pairs = family.labels.iter().zip(labels).map(|(label, value)| {
            let mut pair = LabelPair::default();
            pair.set_name(label.name.to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        let mut metric = Metric::from_label(pairs.collect());
        fill(&mut metric);
        self.0.entry(family.name).or_default().push(metric);
    }
}

pub(super) const NANOSECONDS_PER_SECOND: f64 = 1e9;
