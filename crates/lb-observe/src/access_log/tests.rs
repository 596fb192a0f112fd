use std::fs;
use std::path::Path;
use std::time::Instant;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn open(path: &Path) -> (AccessLog, Arc<Metrics>) {
    let metrics = Metrics::new(1);
    (
        AccessLog::open(LogTarget::File(path.to_owned()), AccessLogFormat::default(), Arc::clone(&metrics))
            .unwrap(),
        metrics,
    )
}

fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn wait_for(path: &Path, content: &str) {
    wait_until(|| fs::read_to_string(path).is_ok_and(|text| text == content));
}

#[test]
fn lines_of_all_workers_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let (log, metrics) = open(&path);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let handle = log.handle();
            scope.spawn(move || (0..500).for_each(|i| handle.write(format!("{worker} {i}\n").into_bytes())));
        }
    });
    assert!(log.flush_and_close(PATIENCE));
    assert_eq!(metrics.access_log_dropped.value(), 0);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 2_000);
    for worker in 0..4 {
        let own = text.lines().filter_map(|line| line.strip_prefix(&format!("{worker} ")));
        assert!(own.map(|i| i.parse::<u32>().unwrap()).eq(0..500));
    }
}

#[test]
fn lines_reach_the_file_while_it_is_open() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    fs::write(&path, "before\n").unwrap();
    let (log, _) = open(&path);
    log.handle().write(b"a\n".to_vec());
    wait_for(&path, "before\na\n");
}

#[test]
fn reopen_follows_a_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let rotated = directory.path().join("access.log.1");
    let (log, _) = open(&path);
    let handle = log.handle();
    handle.write(b"old\n".to_vec());
    wait_for(&path, "old\n");
    fs::rename(&path, &rotated).unwrap();
    handle.write(b"late\n".to_vec());
    wait_for(&rotated, "old\nlate\n");
    log.reopen();
    wait_for(&path, "");
    handle.write(b"new\n".to_vec());
    wait_for(&path, "new\n");
    assert_eq!(fs::read_to_string(&rotated).unwrap(), "old\nlate\n");
}

#[test]
fn a_failed_reopen_keeps_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let path = inner.join("access.log");
    let (log, metrics) = open(&path);
    let moved = directory.path().join("moved");
    fs::rename(&inner, &moved).unwrap();
    log.reopen();
    log.handle().write(b"a\n".to_vec());
    assert!(log.flush_and_close(PATIENCE));
    assert_eq!(fs::read_to_string(moved.join("access.log")).unwrap(), "a\n");
    assert_eq!(metrics.access_log_dropped.value(), 0);
}

#[test]
fn lines_after_the_close_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (log, metrics) = open(&directory.path().join("access.log"));
    let handle = log.handle();
    assert!(log.flush_and_close(PATIENCE));
    handle.write(b"a\n".to_vec());
    assert_eq!(metrics.access_log_dropped.value(), 1);
}

#[test]
fn a_full_disk_drops_and_counts() {
    let (log, metrics) = open(Path::new("/dev/full"));
    (0..3).for_each(|_| log.handle().write(b"a\n".to_vec()));
    assert!(log.flush_and_close(PATIENCE));
    assert_eq!(metrics.access_log_dropped.value(), 3);
}

#[test]
fn a_stalled_reader_never_blocks_a_worker() {
    let metrics = Metrics::new(1);
    let (sender, lines) = mpsc::sync_channel(4);
    let handle = AccessLogHandle {
        sender,
        format: Arc::default(),
        signals: Arc::default(),
        metrics: Arc::clone(&metrics),
    };
    (0..10).for_each(|_| handle.write(b"a\n".to_vec()));
    assert_eq!(metrics.access_log_dropped.value(), 6);
    assert_eq!(lines.try_iter().count(), 4);
}

#[test]
fn a_path_that_cannot_be_opened_is_an_error() {
    let missing = LogTarget::File("/nonexistent/access.log".into());
    assert!(AccessLog::open(missing, AccessLogFormat::default(), Metrics::new(1)).is_err());
}
