//! What was recorded of a request against what would become of it.

use lb_config::Config;
use lb_core::identity::PoolId;
use lb_core::reason::Reason;

use super::judge::{Goes, Outcome};
use super::record::LoggedRequest;
use super::report::Axis;

/// What the comparison has come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// The request fares as it did.
    Same,
    /// The log has too little to tell, for this reason.
    Undecided(&'static str),
    /// What differs: what it was and what it would be.
    Changed(Vec<(Axis, String, String)>),
}

const CANNOT_TELL: &str = "the line has too little of the request";
const NOT_ROUTED: &str = "it was refused before a route was looked for";
const TWO_WAYS: &str = "where it goes depends on what the log does not have";

/// Compares what was recorded with what may become of the request.
pub(super) fn compare(logged: &LoggedRequest, found: &[Outcome], config: &Config) -> Comparison {
    if found.is_empty() {
        return Comparison::Undecided(CANNOT_TELL);
    }
    // What the gateway refuses by its configuration alone; other reasons are matters of load and time.
    let decides = |reason: Reason| {
        use Reason as R;
        matches!(reason, R::NoRoute | R::Access | R::Host | R::PathSyntax | R::PathAmbiguous | R::NoTarget)
    };
    let cut_short = logged.reason.flatten().is_some_and(|reason| !decides(reason));
    if cut_short
        && logged.route.as_deref().is_none_or(str::is_empty)
        && logged.backend.clone().flatten().is_none()
    {
        return Comparison::Undecided(NOT_ROUTED);
    }
    // Two hosts that contradict each other, or none that can be read.
    if logged.reason.flatten() == Some(Reason::Host) && logged.host.as_deref().is_none_or(str::is_empty) {
        return Comparison::Undecided(NOT_ROUTED);
    }
    let mut last = None;
    for outcome in found {
        let changes = differences(logged, outcome, config, cut_short);
        if changes.is_empty() {
            return Comparison::Same;
        }
        last = Some(changes);
    }
    match last {
        // Without names of routes and backends nothing tells which of several was taken.
        Some(_) if found.len() > 1 && logged.route.is_none() => Comparison::Undecided(TWO_WAYS),
        Some(changes) => Comparison::Changed(changes),
        None => Comparison::Same,
    }
}

fn differences(
    logged: &LoggedRequest,
    outcome: &Outcome,
    config: &Config,
    cut_short: bool,
) -> Vec<(Axis, String, String)> {
    let mut changes = Vec::new();
    if let Some(route) = logged.route.as_deref().filter(|route| *route != outcome.route) {
        changes.push((Axis::Route, called(route), called(&outcome.route)));
    }
    if matches!(outcome.goes, Goes::NoListener) {
        let was = logged.listener.clone().unwrap_or_default();
        changes.push((Axis::Status, format!("listener {was}"), outcome.goes.to_string()));
        return changes;
    }
    if cut_short {
        return changes;
    }
    let was = match (logged.status, logged.reason.flatten()) {
        (Some(status), Some(reason)) => format!("{status} ({})", reason.name()),
        (Some(status), None) => status.to_string(),
        (None, _) => "no response".to_owned(),
    };
    match (&outcome.goes, &logged.backend) {
        (Goes::Pools(pools), Some(Some(backend))) => {
            if !pools.iter().any(|pool| may_have(config, pool, backend)) {
                changes.push((Axis::Pool, format!("backend {backend}"), outcome.goes.to_string()));
            }
        }
        // The gateway has answered by itself. A status of ours alone, such as 200 of a log that another wrote, says nothing.
        (Goes::Pools(_), Some(None)) if logged.status.is_some() => {
            changes.push((Axis::Pool, format!("an answer {was}"), outcome.goes.to_string()));
        }
        (Goes::Pools(_), _) => {}
        (Goes::Answer(status) | Goes::Refused(status, _), backend) => {
            if let Some(Some(backend)) = backend {
                changes.push((Axis::Pool, format!("backend {backend}"), outcome.goes.to_string()));
            }
            if logged.status.is_some_and(|was| was != *status) {
                let now = match &outcome.goes {
                    Goes::Refused(status, reason) => format!("{status} ({})", reason.name()),
                    _ => status.to_string(),
                };
                changes.push((Axis::Status, was, now));
            }
        }
        (Goes::NoListener, _) => {}
    }
    changes
}

/// Compares what may become of a request by two configurations.
pub(super) fn compare_files(before: &[Outcome], after: &[Outcome]) -> Comparison {
    match (before, after) {
        ([], _) | (_, []) => Comparison::Undecided(CANNOT_TELL),
        (before, after) if before == after => Comparison::Same,
        // What becomes of it unless fields do that the log does not have.
        ([.., before], [.., after]) if before != after => {
            let mut changes = Vec::new();
            if before.route != after.route {
                changes.push((Axis::Route, called(&before.route), called(&after.route)));
            }
            if before.goes != after.goes {
                let (was, now) = (before.goes.to_string(), after.goes.to_string());
                let pools = [&before.goes, &after.goes].iter().all(|goes| matches!(goes, Goes::Pools(_)));
                changes.push((if pools { Axis::Pool } else { Axis::Status }, was, now));
            }
            Comparison::Changed(changes)
        }
        _ => Comparison::Undecided(TWO_WAYS),
    }
}

fn called(route: &str) -> String {
    if route.is_empty() { "(no name)".to_owned() } else { route.to_owned() }
}

/// Whether a backend is one of the pool, which others than the file may have filled.
fn may_have(config: &Config, pool: &PoolId, backend: &str) -> bool {
    config
        .pool(pool)
        .is_some_and(|pool| pool.discovery.is_some() || pool.backends.iter().any(|one| one.name == backend))
}
