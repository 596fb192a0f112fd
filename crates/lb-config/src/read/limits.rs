//! `http` and `retry` of routes.

use std::time::Duration;

use super::{Report, resilience};
use crate::config::{RouteLimits, RouteRetry};
use crate::document::View;

/// What a route says otherwise than its listener and its pool, if anything.
pub(super) fn read(view: View<'_>, forwards: bool, report: &mut Report<'_>) -> Option<Box<RouteLimits>> {
    for key in ["http", "retry"] {
        if !forwards && view.entry(key).is_some() {
            report.error(view, key, "needs pool or split: no backend gets the request");
        }
    }
    let http = view.block("http");
    let time = |key: &str| -> Option<Option<Duration>> {
        http.entry(key)?;
        Some(http.optional_millis(key).filter(|time| !time.is_zero()))
    };
    let size = |key: &str| http.optional_integer(key).and_then(|bytes| usize::try_from(bytes).ok());
    let limits = RouteLimits {
        total_timeout: time("total_timeout_ms"),
        head_timeout: time("head_timeout_ms"),
        body_timeout: time("body_timeout_ms"),
        response_idle_timeout: time("response_idle_timeout_ms"),
        write_timeout: time("write_timeout_ms"),
        max_request_body_bytes: http.optional_integer("max_request_body_bytes"),
        max_response_body_bytes: http.optional_integer("max_response_body_bytes"),
        buffer_request_bytes: size("buffer_request_bytes"),
        replay_bytes: size("replay_bytes"),
        retry: view.present("retry").map(|view| retry(view, report)),
    };
    (limits != RouteLimits::default()).then(|| Box::new(limits))
}

fn retry(view: View<'_>, report: &mut Report<'_>) -> RouteRetry {
    let per_try = view
        .entry("per_try_timeout_ms")
        .map(|_| view.optional_millis("per_try_timeout_ms").filter(|time| !time.is_zero()));
    let conditions = resilience::conditions(view, report);
    if conditions.is_some_and(|conditions| conditions.timeout) && per_try == Some(None) {
        report.error(view, "per_try_timeout_ms", "must be above 0, because `on` holds \"timeout\"");
    }
    RouteRetry {
        attempts: view.optional_integer("attempts").and_then(|attempts| u32::try_from(attempts).ok()),
        conditions,
        per_try_timeout: per_try,
        backoff: view.entry("backoff_ms").and_then(|_| view.optional_millis("backoff_ms")),
    }
}
