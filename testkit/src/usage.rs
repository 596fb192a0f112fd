//! How much memory and processor time the gateway takes while something happens to it.

use crate::gateway::Gateway;
use crate::ms;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A watch on a running gateway.
pub struct Usage {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    peak: Arc<AtomicU64>,
    base_kib: u64,
    base_ticks: u64,
    pid: u32,
}

/// What a watch has seen.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// By how many bytes resident memory grew at most.
    pub grown: u64,
    /// Processor time, user and system.
    pub processor: Duration,
}

fn proc(pid: u32, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

fn rss_kib(pid: u32) -> u64 {
    status_kib(pid, "VmRSS:")
}

fn status_kib(pid: u32, field: &str) -> u64 {
    let status = proc(pid, "status");
    let line = status.lines().find(|l| l.starts_with(field)).unwrap_or("");
    line.split_whitespace().nth(1).and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Bytes of memory that the gateway has written to and not given back: no code, no files.
pub fn anonymous(gateway: &Gateway) -> u64 {
    status_kib(gateway.process.pid(), "RssAnon:") * 1024
}

impl Usage {
    /// Begins to watch; memory is looked at every 10 ms.
    #[track_caller]
    pub fn watch(gateway: &Gateway) -> Usage {
        let pid = gateway.process.pid();
        let base_kib = rss_kib(pid);
        assert!(base_kib > 0, "no memory figure");
        let (stop, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(base_kib)));
        let (halt, top) = (Arc::clone(&stop), Arc::clone(&peak));
        let thread = std::thread::spawn(move || {
            while !halt.load(Ordering::Relaxed) {
                top.fetch_max(rss_kib(pid), Ordering::Relaxed);
                std::thread::sleep(ms(10));
            }
        });
        Usage { stop, thread: Some(thread), peak, base_kib, base_ticks: gateway.process.cpu_ticks(), pid }
    }

    /// What was spent so far.
    pub fn so_far(&self, gateway: &Gateway) -> Spent {
        self.peak.fetch_max(rss_kib(self.pid), Ordering::Relaxed);
        let grown = (self.peak.load(Ordering::Relaxed) - self.base_kib) * 1024;
        // A tick is a hundredth of a second on every Linux that a program can see.
        let processor = ms(10 * (gateway.process.cpu_ticks() - self.base_ticks));
        Spent { grown, processor }
    }

    /// Panics when memory grew by `bytes` or more.
    #[track_caller]
    pub fn assert_grew_less_than(&self, gateway: &Gateway, bytes: u64) {
        let grown = self.so_far(gateway).grown;
        assert!(grown < bytes, "memory grew by {} KiB, over {} KiB", grown / 1024, bytes / 1024);
    }
}

impl Drop for Usage {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
