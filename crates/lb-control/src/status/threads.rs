//! How busy the workers are, as the kernel counts it.

use std::fs;
use std::path::PathBuf;

/// Where the kernel tells of each worker's thread.
#[derive(Debug, Default)]
pub(super) struct WorkerThreads(Vec<Option<PathBuf>>);

impl WorkerThreads {
    /// For each of `count` workers the time that it ran and the time that it was ready and had no processor, nanoseconds since it began. `None`
    /// where the kernel does not tell.
    pub(super) fn times(&mut self, count: usize) -> Vec<Option<(u64, u64)>> {
        // A thread has its name a moment after it has begun.
        if self.0.len() != count || self.0.iter().any(Option::is_none) {
            self.0 = find(count);
        }
        self.0.iter().map(|path| parse(&fs::read_to_string(path.as_ref()?).ok()?)).collect()
    }
}

fn find(count: usize) -> Vec<Option<PathBuf>> {
    let mut found = vec![None; count];
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return found };
    for task in tasks.flatten().map(|task| task.path()) {
        let Ok(name) = fs::read_to_string(task.join("comm")) else { continue };
        let number = name.trim().strip_prefix("worker-").and_then(|number| number.parse::<usize>().ok());
        if let Some(place) = number.and_then(|number| found.get_mut(number)) {
            *place = Some(task.join("schedstat"));
        }
    }
    found
}

/// The first two numbers of `schedstat` (Documentation/scheduler/sched-stats.rst).
fn parse(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_found_by_their_names() {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel::<()>();
        let worker = move || {
            ready.send(()).unwrap();
            wait.recv()
        };
        let thread = std::thread::Builder::new().name("worker-1".to_owned()).spawn(worker).unwrap();
        is_ready.recv().unwrap();
        let mut threads = WorkerThreads::default();
        let times = threads.times(3);
        assert!(times[0].is_none() && times[2].is_none());
        if fs::metadata("/proc/self/schedstat").is_ok() {
            assert!(times[1].is_some());
        }
        drop(done);
        let _ = thread.join();
        assert_eq!((parse("12 34 5\n"), parse(""), parse("x 1 1")), (Some((12, 34)), None, None));
    }
}
