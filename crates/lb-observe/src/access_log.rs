//! The access log: one line for each request, to a file or to standard output.
//!
//! Workers never wait for a disk. A worker encodes its line and hands it over through a bounded channel to a
//! thread that writes; when the channel is full the line is dropped and counted in `access_log_dropped_total`.
//! The thread rests between batches, so that a busy gateway pays neither a wake-up nor a write for each line.

mod record;
mod timestamp;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use lb_core::access_log::AccessLogFormat;
pub(crate) use record::push_text as push_json_text;
pub use record::{AccessRecord, TlsRecord};

use crate::metrics::Metrics;
use writer::Writer;

/// Where an access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Appended to this file, which is made with mode 0640 if it does not exist.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

/// An access log and its writer thread.
#[derive(Debug)]
pub struct AccessLog {
    handle: AccessLogHandle,
    finished: Receiver<()>,
}

impl AccessLog {
    /// Opens `target` and starts the thread that writes to it. Lines are in `format`.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be opened or the thread not started.
    pub fn open(target: LogTarget, format: AccessLogFormat, metrics: Arc<Metrics>) -> io::Result<Self> {
        let signals = Arc::new(Signals::default());
        let (sender, lines) = mpsc::sync_channel(QUEUED_LINES);
        // Never sent on: the end of the thread closes it.
        let (running, finished) = mpsc::sync_channel(0);
        let writer = Writer::open(target, lines, Arc::clone(&signals), Arc::clone(&metrics))?;
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            let _running: SyncSender<()> = running;
            writer.run();
        })?;
        let format = Arc::new(format);
        Ok(Self { handle: AccessLogHandle { sender, format, signals, metrics }, finished })
    }

    /// A handle for a worker, to be taken once.
    pub fn handle(&self) -> AccessLogHandle {
        self.handle.clone()
    }

    /// Opens the file anew under its name, after a rotation has renamed it. Returns at once; if the file cannot be opened, a line of the
    /// log reports it and the old one stays in use.
    pub fn reopen(&self) {
        self.handle.signals.reopen.store(true, Ordering::Release);
        self.handle.wake_writer();
    }

    /// Writes what was handed over so far and ends the thread; lines handed over later are dropped and counted. Blocks until then, or for
    /// `patience` at most. Returns whether all was written in time.
    pub fn flush_and_close(self, patience: Duration) -> bool {
        self.handle.signals.close.store(true, Ordering::Release);
        self.handle.wake_writer();
        matches!(self.finished.recv_timeout(patience), Err(RecvTimeoutError::Disconnected))
    }
}

/// A worker's end of an access log.
#[derive(Clone, Debug)]
pub struct AccessLogHandle {
    sender: SyncSender<Vec<u8>>,
    format: Arc<AccessLogFormat>,
    signals: Arc<Signals>,
    metrics: Arc<Metrics>,
}

impl AccessLogHandle {
    /// Writes down a request. Never blocks.
    pub fn record(&self, record: &AccessRecord<'_>) {
        let mut line = Vec::new();
        record.append_to(&self.format, &mut line);
        self.write(line);
    }

    /// Hands over a line, line feed included, such as [`AccessRecord::append_to`] makes. Never blocks.
    pub fn write(&self, line: Vec<u8>) {
        if self.sender.try_send(line).is_err() {
            self.metrics.access_log_dropped.inc();
        }
    }

    fn wake_writer(&self) {
        // An empty line writes nothing. When the channel is full the writer is awake already.
        let _ = self.sender.try_send(Vec::new());
    }
}

/// What the writer has to do besides writing. Flags rather than messages, so that a full channel cannot hold them up.
#[derive(Debug, Default)]
struct Signals {
    reopen: AtomicBool,
    close: AtomicBool,
}

/// Enough for a hundred thousand requests a second when the writer gets no processor for 80 ms.
const QUEUED_LINES: usize = 8_192;

#[cfg(test)]
mod tests;
