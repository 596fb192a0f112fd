//! METRICS.md, made from the table of families.

use std::fmt::Write;

use lb_core::reason::Reason;

use super::families::{FAMILIES, Family, FamilyKind};

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
            FamilyKind::Counter => ("counter", String::new()),
            FamilyKind::Gauge => ("gauge", String::new()),
            FamilyKind::Histogram(bounds) => ("histogram", format!(" Buckets: {}.", seconds(bounds))),
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
    let _ = write!(text, "\n## Reasons\n\n{REASONS}\n{}", Reason::table());
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

const REASONS: &str = "\
One set of codes tells why the gateway refused, gave up or cut a request: `reason` in the access log and in log lines, and the label
values of `request_rejected_total`, `filter_answers_total`, `upstream_rejected_total`, `http2_abuse_total`, `pool_overflow_total` and,
where the gateway ended a tunnel, `websocket_tunnels_ended_total`. The status is the one that the client is told; where there is none, a response had begun or
nobody was left to be told.
";

const INTRODUCTION: &str = "\
# Metrics

`GET /metrics` on the admin address answers in the Prometheus text format 0.0.4.

Counters are kept per worker without locks and added up by each scrape. Label values are names from the configuration or
one of the values listed here, never anything that a client or a backend sent. `route` is empty for requests that no named
route took. Request families are kept for HTTP listeners only.

**What exists from the start, at zero**: every series whose label values are listed here or come from the configuration, for
each listener and each pool, as long as what it is about is configured: the families of TLS, gRPC, health checks, ejections,
limits, retries and discovery come with their blocks. So each alert of RUNBOOK.md sees the first event. These come with their
first event instead: the series of a single backend, of an HTTP version that the listener does not offer by itself, and
`config_reload_applied_swappable_total`.

**Backends**: the series belong to the backend of a pool, however many listeners share the pool. `pool` is its name, or that of
the listener whose own it is; `listener` is that listener, and empty where the pool has a name of its own. A backend that was
never used has no series. At most `[observability] max_exported_backends` backends have some, in the order in which they are
first used; all others of a pool are added up as `backend=\"other\"`, which every pool has from the start, so that sums over a
pool are complete. `backend_reachable` and `backend_healthy` of `other` are 0 when they are for any of them. A backend that was
once counted there stays there. The series of a backend go when a reload removes it and its last work has ended.

**Versions**: `version` of requests is what the client spoke: `h1` is HTTP/1.0 and HTTP/1.1, `h2` is HTTP/2, `h3` is HTTP/3.
`version` of `build_info` is that of the program, and `config_reload_applied_version` is the number of a configuration.

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
