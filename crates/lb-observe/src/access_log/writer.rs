//! The thread that writes the access log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_setfl};

use super::{LogTarget, QUEUED_LINES, Signals};
use crate::metrics::Metrics;

pub(super) struct Writer {
    target: LogTarget,
    output: Output,
    lines: Receiver<Vec<u8>>,
    signals: Arc<Signals>,
    metrics: Arc<Metrics>,
    batch: Vec<u8>,
    lines_in_batch: u64,
    failing: bool,
}

impl Writer {
    pub(super) fn open(
        target: LogTarget,
        lines: Receiver<Vec<u8>>,
        signals: Arc<Signals>,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let output = Output::open(&target)?;
        Ok(Self {
            target,
            output,
            lines,
            signals,
            metrics,
            batch: Vec::with_capacity(2 * BATCH_BYTES),
            lines_in_batch: 0,
            failing: false,
        })
    }

    /// Writes until the log is closed, or until every handle is gone.
    pub(super) fn run(mut self) {
        loop {
            // A signal is always accompanied by an empty line, unless the queue is so full that this thread does not sleep.
            let Ok(first) = self.lines.recv() else { return };
            // Read before the channel is emptied: what was handed over before the close is then still written.
            let closing = self.signals.close.load(Ordering::Acquire);
            if self.signals.reopen.swap(false, Ordering::AcqRel) {
                self.reopen();
            }
            self.take(&first);
            // Bounded, so that workers that go on logging cannot keep the signals from being seen.
            for _ in 0..QUEUED_LINES {
                let Ok(line) = self.lines.try_recv() else { break };
                self.take(&line);
            }
            self.write_batch();
            if closing {
                return;
            }
            std::thread::sleep(REST);
        }
    }

    fn take(&mut self, line: &[u8]) {
        self.batch.extend_from_slice(line);
        self.lines_in_batch += u64::from(!line.is_empty());
        if self.batch.len() >= BATCH_BYTES {
            self.write_batch();
        }
    }

    fn write_batch(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        match self.output.write_all(&self.batch) {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("access log is written again");
                }
            }
            Err(error) => {
                self.metrics.access_log_dropped.add(self.lines_in_batch);
                // Said once, not for each batch of a full disk.
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "access log cannot be written — dropping lines");
                }
            }
        }
        self.batch.clear();
        self.lines_in_batch = 0;
    }

    fn reopen(&mut self) {
        match Output::open(&self.target) {
            Ok(output) => {
                self.output = output;
                tracing::info!("access log reopened");
            }
            Err(error) => tracing::error!(%error, "access log cannot be reopened — keeping the old file"),
        }
    }
}

enum Output {
    File(File),
    Stdout,
}

impl Output {
    fn open(target: &LogTarget) -> io::Result<Self> {
        match target {
            LogTarget::File(path) => Ok(Self::File(open(path)?)),
            LogTarget::Stdout => Ok(Self::Stdout),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write_all(bytes),
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
        }
    }
}

/// A pipe without a reader is an error, and not a reason to wait.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path)?;
    // Lines wait for a slow reader, as they do for a slow disk.
    fcntl_setfl(&file, OFlags::APPEND)?;
    Ok(file)
}

/// When a batch is written even though more lines wait.
const BATCH_BYTES: usize = 64 * 1024;

/// How long lines gather before the next batch. A thread that never waited on the channel would not need to be
/// woken by each line, and this is long enough to come close.
const REST: Duration = Duration::from_millis(5);
