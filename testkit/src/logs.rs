//! The lines that a process writes, kept while it runs.

use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Everything written to one stream so far.
#[derive(Debug, Default)]
pub struct Logs {
    lines: Mutex<Vec<String>>,
    grew: Condvar,
    ended: AtomicBool,
}

impl Logs {
    /// Reads `stream` to its end on a thread of its own.
    pub fn collect(stream: impl Read + Send + 'static) -> Arc<Logs> {
        let logs = Arc::new(Logs::default());
        let sink = Arc::clone(&logs);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                sink.lines.lock().unwrap().push(text);
                sink.grew.notify_all();
                line.clear();
            }
            sink.ended.store(true, Ordering::SeqCst);
        });
        logs
    }

    /// Whether the writer is gone and every line was read.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// All lines so far that contain `text`.
    pub fn matching(&self, text: &str) -> Vec<String> {
        self.lines.lock().unwrap().iter().filter(|l| l.contains(text)).cloned().collect()
    }

    /// How many lines so far contain `text`.
    pub fn count(&self, text: &str) -> usize {
        self.lines.lock().unwrap().iter().filter(|l| l.contains(text)).count()
    }

    /// How many lines contain `text`, once `wanted` do or, where so many never come, after ten seconds: lines arrive a little after
    /// what they tell of.
    pub fn wait_count(&self, text: &str, wanted: usize) -> usize {
        crate::poll(crate::seconds(10), || (self.count(text) >= wanted).then_some(()));
        self.count(text)
    }

    /// How many lines came so far.
    pub fn len(&self) -> usize {
        self.lines.lock().unwrap().len()
    }

    /// Whether no line came yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first line from number `from` on that `wanted` accepts, waiting for it.
    pub fn wait_from(&self, from: usize, limit: Duration, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let end = Instant::now() + limit;
        let mut lines = self.lines.lock().unwrap();
        let mut seen = from;
        loop {
            if let Some(found) = lines.iter().skip(seen).find(|l| wanted(l)) {
                return Some(found.clone());
            }
            seen = lines.len().max(from);
            let left = end.checked_duration_since(Instant::now())?;
            lines = self.grew.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// The first line that contains `text`, waiting for it.
    pub fn wait(&self, text: &str, limit: Duration) -> Option<String> {
        self.wait_from(0, limit, |line| line.contains(text))
    }
}
