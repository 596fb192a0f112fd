//! METRICS.md, made from the table of families.

use std::fmt::Write;

use super::families::{FAMILIES, Family, Kind};

/// The text of METRICS.md.
pub fn render_metrics_md() -> String {
    let mut text = INTRODUCTION.to_owned();
    let mut subject = "";
    for family in FAMILIES {
        if family.subject != subject {
            subject = family.subject;
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "\n## {subject}\n\n| Family | Type | Labels | Unit | Meaning |\n|---|---|---|---|---|\n"
            );
        }
        let (kind, buckets) = match family.kind {
            Kind::Counter => ("counter", String::new()),
            Kind::Gauge => ("gauge", String::new()),
            Kind::Histogram(bounds) => ("histogram", format!(" Buckets: {}.", seconds(bounds))),
        };
        let _ = writeln!(
            text,
            "| `{}` | {kind} | {} | {} | {}{buckets} |",
            family.name,
            labels(family),
            family.unit,
            family.help,
        );
    }
    text
}

fn labels(family: &Family) -> String {
    if family.labels.is_empty() {
        return "–".to_owned();
    }
    let labels = family.labels.iter().map(|label| match label.values {
        [] => format!("`{}`", label.name),
        values => format!("`{}` = {}", label.name, values.join(", ")),
    });
    labels.collect::<Vec<_>>().join("; ")
}

fn seconds(bounds: &[u64]) -> String {
    bounds.iter().map(|bound| (*bound as f64 / 1e9).to_string()).collect::<Vec<_>>().join(", ")
}

const INTRODUCTION: &str = "\
# Metrics

`GET /metrics` on the admin address answers in the Prometheus text format 0.0.4.

Counters are kept per worker without locks and added up by each scrape. Label values are names from the configuration or
one of the values listed here, never anything that a client or a backend sent. Series whose label values are known are
there from the start, at zero; series of a listener or a backend appear with it, and those of a backend go when a reload
removes it and its last work has ended. `route` is empty for requests that no named route took. Request families are
kept for HTTP listeners only.

This file is generated: `cargo run -p lb-observe --example metrics-md > METRICS.md`.
";

#[cfg(test)]
mod tests {
    #[test]
    fn metrics_md_is_current() {
        let written = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../METRICS.md"));
        assert!(
            written == super::render_metrics_md(),
            "run: cargo run -p lb-observe --example metrics-md > METRICS.md"
        );
    }
}
