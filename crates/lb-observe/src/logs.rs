//! The process log.
//!
//! Logs go to standard error, where journald, a container's log driver and an operator's terminal all look, and
//! which leaves standard output to the access log.

use std::backtrace::Backtrace;
use std::io::Write;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::{env, io};

use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::metrics::Metrics;

/// Starts the log of this process: one JSON object a line, or text with `LB_LOG_FORMAT=text` (or `plain`),
/// filtered by `RUST_LOG` (default `info`). A variable that does not parse is reported in the log, and its
/// default used.
///
/// # Errors
///
/// Fails when the process has a log already.
pub fn init() -> Result<(), TryInitError> {
    let wanted_filter = variable("RUST_LOG");
    let filter = EnvFilter::try_new(wanted_filter.as_deref().unwrap_or(DEFAULT_FILTER));
    let filter_error = filter.as_ref().err().map(ToString::to_string);
    let wanted_format = variable("LB_LOG_FORMAT");
    let format = wanted_format.as_deref().map_or(Some(Format::Json), Format::parse);

    let log = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        // It would report a failed write with eprintln!, which panics when standard error is a broken pipe.
        .log_internal_errors(false)
        .with_env_filter(filter.unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER)));
    match format {
        Some(Format::Text) => log.finish().try_init()?,
        _ => log
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .finish()
            .try_init()?,
    }

    if let Some(error) = filter_error {
        tracing::warn!(%error, value = wanted_filter, default = DEFAULT_FILTER, "RUST_LOG does not parse");
    }
    if format.is_none() {
        tracing::warn!(value = wanted_format, default = "json", "LB_LOG_FORMAT is none of json, text, plain");
    }
    Ok(())
}

/// Makes every panic of the process a line in the log and a count in `panic_total`.
pub fn install_panic_hook(metrics: Arc<Metrics>) {
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panics.inc();
        report(panic);
    }));
}

fn report(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let payload = panic.payload();
    let payload = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("not a string");
    let backtrace = Backtrace::capture();
    if tracing::enabled!(target: "panic", Level::ERROR) {
        tracing::error!(target: "panic", location, payload, %backtrace, "process panic — aborting");
    } else {
        // No filter may hide why the process died.
        let _ = writeln!(io::stderr(), "process panic — aborting: {payload}, at {location}\n{backtrace}");
    }
}

/// The variable's value, unless it is unset or blank.
fn variable(name: &str) -> Option<String> {
    env::var_os(name).map(|value| value.to_string_lossy().trim().to_owned()).filter(|value| !value.is_empty())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Text,
}

impl Format {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Self::Json),
            "text" | "plain" => Some(Self::Text),
            _ => None,
        }
    }
}

const DEFAULT_FILTER: &str = "info";

#[cfg(test)]
mod tests;
