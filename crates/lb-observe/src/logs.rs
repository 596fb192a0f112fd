//! The process log.
//!
//! Logs go to standard error, where journald, a container's log driver and an operator's terminal all look, and
//! which leaves standard output to the access log.
//!
//! No thread that logs waits for the reader of standard error. Lines go through a bounded queue to a thread that writes. A line that finds
//! no room is dropped and counted in `log_dropped_total`; when the reader is back, one line of the log reports how many were dropped.

mod queue;
mod writer;

use std::backtrace::Backtrace;
use std::panic::PanicHookInfo;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;
use std::{env, io};

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::metrics::Metrics;
use queue::Queue;

/// How long the last lines of a process may take to be written.
pub const LAST_WORDS: Duration = Duration::from_secs(1);

/// The log of this process.
static LOG: OnceLock<Arc<Queue>> = OnceLock::new();

/// Starts the log of this process: one JSON object a line, or text with `LB_LOG_FORMAT=text` (or `plain`),
/// filtered by `RUST_LOG` (default `info`). A variable that does not parse is reported in the log, and its
/// default used.
///
/// # Errors
///
/// Fails when the process has a log already, or when the thread that writes cannot be started.
pub fn init() -> io::Result<()> {
    let queue = Arc::new(Queue::default());
    LOG.set(Arc::clone(&queue)).map_err(|_| io::Error::other("the process has a log already"))?;
    let of_writer = Arc::clone(&queue);
    thread::Builder::new().name("log".to_owned()).spawn(move || writer::run(&of_writer, &io::stderr()))?;
    let lines = Lines(queue);

    let wanted_filter = variable("RUST_LOG");
    let filter = EnvFilter::try_new(wanted_filter.as_deref().unwrap_or(DEFAULT_FILTER));
    let filter_error = filter.as_ref().err().map(ToString::to_string);
    let wanted_format = variable("LB_LOG_FORMAT");
    let format = wanted_format.as_deref().map_or(Some(Format::Json), Format::parse);

    let log = tracing_subscriber::fmt()
        .with_writer(lines)
        .with_ansi(false)
        // It would report a line that it cannot format with eprintln!, which waits for the reader of standard error.
        .log_internal_errors(false)
        .with_env_filter(filter.unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER)));
    match format {
        Some(Format::Text) => log.finish().try_init(),
        _ => {
            log.json().flatten_event(true).with_current_span(false).with_span_list(false).finish().try_init()
        }
    }
    .map_err(io::Error::other)?;

    if let Some(error) = filter_error {
        tracing::warn!(%error, value = wanted_filter, default = DEFAULT_FILTER, "RUST_LOG does not parse");
    }
    if format.is_none() {
        tracing::warn!(value = wanted_format, default = "json", "LB_LOG_FORMAT is none of json, text, plain");
    }
    Ok(())
}

/// Waits until all lines are written, for `patience` at most. Returns whether they are. To be called before the process ends.
pub fn finish(patience: Duration) -> bool {
    LOG.get().is_none_or(|queue| queue.flush(patience))
}

/// Writes a line to standard error that is not part of the log and that no filter hides, after what the log has said. Waits until it is
/// written, for [`LAST_WORDS`] at most.
pub fn say(line: &str) {
    let line = format!("{line}\n");
    if let Some(queue) = LOG.get() {
        queue.push(line.as_bytes(), true);
        queue.flush(LAST_WORDS);
        return;
    }
    let (done, is_done) = mpsc::sync_channel(1);
    let write = move || {
        // There is no log left to report an error in.
        let _ = writer::write_all(&io::stderr(), line.as_bytes());
        let _ = done.send(());
    };
    if thread::Builder::new().spawn(write).is_ok() {
        let _ = is_done.recv_timeout(LAST_WORDS);
    }
}

/// `log_dropped_total`: lines that found no room or could not be written.
pub(crate) fn dropped() -> u64 {
    LOG.get().map_or(0, |queue| queue.dropped())
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
        finish(LAST_WORDS);
    } else {
        // No filter may hide why the process died.
        say(&format!("process panic — aborting: {payload}, at {location}\n{backtrace}"));
    }
}

/// Hands the lines of the log to the queue.
struct Lines(Arc<Queue>);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { queue: &self.0, urgent: true }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        Line { queue: &self.0, urgent: *metadata.level() <= Level::INFO }
    }
}

struct Line<'a> {
    queue: &'a Queue,
    urgent: bool,
}

impl io::Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.push(line, self.urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
