//! The blocks inside `[pools.NAME]` that say what happens when a backend fails.

use lb_core::breaker::MemberLimits;
use lb_core::health::ProbeSettings;
use lb_core::hedge::HedgeSettings;
use lb_core::outlier::{Analysis, EjectionSettings, OutlierSettings, StreakLimits};
use lb_core::retry::{BudgetSettings, Conditions, RetrySettings};

use super::Report;
use crate::config::{
    BackendProtocol, Discovery, DiscoverySource, HealthCheck, HttpProbe, Probe, ProbeKind, ProbeMethod,
    RetryOn, UdpProbe,
};
use crate::document::View;
use crate::schema::{read_payload, read_statuses};

/// Keys of `[pools.NAME.health]` that only some probes have.
const PROBE_KEYS: &[(&str, &[ProbeKind])] = &[
    ("method", &[ProbeKind::Http]),
    ("path", &[ProbeKind::Http]),
    ("host", &[ProbeKind::Http, ProbeKind::Grpc]),
    ("expected_statuses", &[ProbeKind::Http]),
    ("body_contains", &[ProbeKind::Http]),
    ("max_body_bytes", &[ProbeKind::Http]),
    ("grpc_service", &[ProbeKind::Grpc]),
    ("send", &[ProbeKind::Udp]),
    ("expect", &[ProbeKind::Udp]),
];

pub(super) fn health(view: View<'_>, report: &mut Report<'_>) -> Option<(ProbeSettings, HealthCheck)> {
    let kind = ProbeKind::from_word(view.word("type")?)?;
    for (name, kinds) in PROBE_KEYS {
        if view.entry(name).is_some() && !kinds.contains(&kind) {
            let list: Vec<_> = kinds.iter().map(|kind| format!("\"{kind}\"")).collect();
            let problem = format!("only allowed with type = {}; this one is \"{kind}\"", list.join(" or "));
            report.error(view, name, problem);
        }
    }
    let host = view.text("host").map(str::to_owned);
    let probe = match kind {
        ProbeKind::Tcp => Probe::Tcp,
        ProbeKind::Quic => Probe::Quic,
        ProbeKind::Grpc => {
            Probe::Grpc { service: view.text("grpc_service").unwrap_or_default().to_owned(), host }
        }
        ProbeKind::Http => Probe::Http(http_probe(view, host, report)?),
        ProbeKind::Udp => {
            let bytes = |name| view.text(name).and_then(read_payload).unwrap_or_default();
            Probe::Udp(UdpProbe { send: bytes("send"), expect: bytes("expect") })
        }
    };
    let (interval, timeout) = (view.millis("interval_ms"), view.millis("timeout_ms"));
    if timeout > interval {
        report.error(view, "timeout_ms", format!("must be at most interval_ms ({})", interval.as_millis()));
    }
    let settings = ProbeSettings {
        interval,
        timeout,
        rise: view.int32("rise"),
        fall: view.int32("fall"),
        jitter_percent: view.int32("jitter_percent"),
    };
    let port = view.optional_integer("port").and_then(|port| port.try_into().ok());
    Some((settings, HealthCheck { probe, port }))
}

fn http_probe(view: View<'_>, host: Option<String>, report: &mut Report<'_>) -> Option<HttpProbe> {
    let expected_statuses = match view.entry("expected_statuses") {
        Some(_) => view.texts("expected_statuses").iter().filter_map(|text| read_statuses(text)).collect(),
        None => vec![200..=399],
    };
    if expected_statuses.is_empty() {
        report.error(view, "expected_statuses", "must not be empty: no response would be right");
    }
    let probe = HttpProbe {
        method: ProbeMethod::from_word(view.word("method")?)?,
        path: view.text("path").unwrap_or("/").to_owned(),
        host,
        expected_statuses,
        body_contains: view.text("body_contains").map(str::to_owned),
        max_body_bytes: view.size("max_body_bytes"),
    };
    if let Some(wanted) = &probe.body_contains {
        if probe.method == ProbeMethod::Head {
            report.error(
                view,
                "body_contains",
                "not allowed with method = \"HEAD\": its responses have no body",
            );
        } else if wanted.len() > probe.max_body_bytes {
            let problem = format!("longer than max_body_bytes ({}), so never found", probe.max_body_bytes);
            report.error(view, "body_contains", problem);
        }
    }
    Some(probe)
}

pub(super) fn outlier(view: View<'_>, report: &mut Report<'_>) -> OutlierSettings {
    let streaks = StreakLimits {
        server_errors: view.int32("consecutive_5xx"),
        gateway_failures: view.int32("consecutive_gateway_failures"),
    };
    let analysis = Analysis {
        error_rate_percent: view.int32("error_rate_percent"),
        min_requests: view.int32("min_requests").into(),
        latency_factor_percent: view.int32("latency_factor_percent"),
    };
    let ejection = EjectionSettings {
        base: view.millis("base_ejection_ms"),
        max: view.millis("max_ejection_ms"),
        max_percent: view.int32("max_ejection_percent"),
        probation: view.millis("probation_ms"),
    };
    if ejection.max < ejection.base {
        let base = ejection.base.as_millis();
        report.error(view, "max_ejection_ms", format!("must be at least base_ejection_ms ({base})"));
    }
    let rules = [
        streaks.server_errors,
        streaks.gateway_failures,
        analysis.error_rate_percent,
        analysis.latency_factor_percent,
    ];
    if rules.iter().all(|rule| *rule == 0) {
        report.warn_about(view, "does nothing, because every rule in it is 0");
    }
    OutlierSettings { streaks, analysis, interval: view.millis("interval_ms"), ejection }
}

pub(super) fn limits(view: View<'_>, report: &mut Report<'_>) -> MemberLimits {
    let limits = MemberLimits {
        max_connections: view.int32("max_connections"),
        max_requests: view.int32("max_requests"),
        max_pending: view.int32("max_pending"),
        pending_timeout: view.millis("pending_timeout_ms"),
    };
    if limits.max_pending > 0 && limits.is_off() {
        let problem = "needs max_connections or max_requests, or there is nothing to wait for";
        report.error(view, "max_pending", problem);
    }
    limits
}

/// The failures that `on` names, if it is there.
pub(super) fn conditions(view: View<'_>, report: &mut Report<'_>) -> Option<Conditions> {
    view.entry("on")?;
    let on: Vec<_> = view.texts("on").iter().filter_map(|text| RetryOn::from_word(text)).collect();
    if on.is_empty() {
        report.error(view, "on", "must not be empty: attempts = 0 switches further tries off");
    }
    let has = |condition| on.contains(&condition);
    Some(Conditions {
        connect: has(RetryOn::Connect),
        refused: has(RetryOn::Refused),
        reset: has(RetryOn::Reset),
        timeout: has(RetryOn::Timeout),
        statuses: on.iter().filter_map(|condition| condition.status()).collect(),
    })
}

pub(super) fn retry(view: View<'_>, report: &mut Report<'_>) -> RetrySettings {
    let conditions = conditions(view, report).unwrap_or_default();
    let per_try_timeout = view.nonzero_millis("per_try_timeout_ms");
    if conditions.timeout && per_try_timeout.is_none() {
        report.error(view, "per_try_timeout_ms", "must be above 0, because `on` holds \"timeout\"");
    }
    RetrySettings {
        attempts: Some(view.int32("attempts")),
        conditions,
        per_try_timeout,
        backoff: view.millis("backoff_ms"),
        budget: BudgetSettings { percent: view.int32("budget_percent"), min: view.int32("budget_min") },
        hedge: HedgeSettings {
            percentile: view.int32("hedge_percentile"),
            min_delay: view.millis("hedge_min_delay_ms"),
        },
    }
}

pub(super) fn discovery(view: View<'_>, report: &mut Report<'_>) -> Option<Discovery> {
    let protocol = BackendProtocol::from_word(view.word("protocol")?)?;
    let source = match (view.text("srv"), view.path("file")) {
        (Some(name), None) => DiscoverySource::Srv {
            name: name.to_owned(),
            protocol,
            allow_loopback: view.flag("allow_loopback"),
        },
        (None, Some(file)) => {
            if view.entry("protocol").is_some() {
                report.error(view, "protocol", "only allowed with srv; in a file each backend has its own");
            }
            if view.entry("allow_loopback").is_some() {
                report.error(view, "allow_loopback", "only allowed with srv");
            }
            DiscoverySource::File(file)
        }
        (Some(_), Some(_)) => {
            report.error(view, "file", "not allowed together with srv");
            return None;
        }
        (None, None) => {
            report.error(view, "srv", "missing: a pool is discovered by srv or by file");
            return None;
        }
    };
    Some(Discovery { source, refresh: view.millis("refresh_ms") })
}
