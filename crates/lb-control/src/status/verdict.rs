//! One word for how a backend stands, and why.

use lb_core::health::{HealthState, ProbeOutcome};
use lb_pool::Report;

/// The word, and the reason in a few more; empty where the word says it.
pub(super) fn of(report: &Report) -> (&'static str, String) {
    if report.draining {
        return ("draining", "told to by an operator".to_owned());
    }
    if report.ejected_for.is_some() {
        let cause = report.ejection_cause.map_or("", |cause| cause.as_str());
        return ("ejected", cause.to_owned());
    }
    if report.health == Some(HealthState::Unhealthy) {
        return ("down", report.last.map_or_else(String::new, probe));
    }
    if let Some((cause, _)) = report.rest {
        return ("resting", cause.as_str().to_owned());
    }
    if report.weight == 0 {
        return ("no weight", String::new());
    }
    if report.probation {
        let cause = report.ejection_cause.map_or("", |cause| cause.as_str());
        return ("probation", cause.to_owned());
    }
    match report.health {
        None => ("up", "not probed".to_owned()),
        Some(HealthState::Unknown) => ("unknown", "no probe has ended yet".to_owned()),
        // It may be failing, and not often enough in a row.
        Some(_) => match report.last {
            Some(outcome) if !outcome.passed() => ("up", probe(outcome)),
            _ => ("up", String::new()),
        },
    }
}

fn probe(outcome: ProbeOutcome) -> String {
    match outcome {
        ProbeOutcome::Status(status) => format!("probe: status {status}"),
        other => format!("probe: {}", other.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lb_core::address::Address;
    use lb_core::outlier::EjectionCause;
    use lb_core::rest::RestCause;

    use super::*;

    fn report() -> Report {
        Report {
            backend: "10.0.0.1:80".to_owned(),
            address: Address::Ip("10.0.0.1:80".parse().unwrap()),
            weight: 1,
            priority: 0,
            draining: false,
            health: None,
            last: None,
            ejected_for: None,
            ejection_cause: None,
            probation: false,
            ejections: 0,
            rest: None,
            requests_running: 0,
            connections: 0,
            requests: 0,
            failures: 0,
            mean_latency: None,
        }
    }

    #[test]
    fn the_strongest_reason_is_told() {
        let is = |report: &Report, word, why: &str| assert_eq!(of(report), (word, why.to_owned()));
        let mut one = report();
        is(&one, "up", "not probed");
        one.health = Some(HealthState::Unknown);
        is(&one, "unknown", "no probe has ended yet");
        (one.health, one.last) = (Some(HealthState::Healthy), Some(ProbeOutcome::Passed));
        is(&one, "up", "");
        one.last = Some(ProbeOutcome::Timeout);
        is(&one, "up", "probe: timeout");
        (one.probation, one.ejection_cause) = (true, Some(EjectionCause::ErrorRate));
        is(&one, "probation", EjectionCause::ErrorRate.as_str());
        one.weight = 0;
        is(&one, "no weight", "");
        one.rest = Some((RestCause::Connect, Duration::ZERO));
        is(&one, "resting", RestCause::Connect.as_str());
        (one.health, one.last) = (Some(HealthState::Unhealthy), Some(ProbeOutcome::Status(503)));
        is(&one, "down", "probe: status 503");
        one.ejected_for = Some(Duration::from_secs(1));
        is(&one, "ejected", EjectionCause::ErrorRate.as_str());
        one.draining = true;
        is(&one, "draining", "told to by an operator");
    }
}
