//! Runs the end-to-end tests: several at a time, the heavy ones alone, none for ever.
//!
//! Each test of the gateway runs twice, on io_uring and on epoll, unless it chooses between them itself; `EXPRESSGATEWAY_TEST_IO` names
//! one of them to run only that.
//!
//! A test that needs a program which this machine lacks is reported as ignored, with the reason on stderr, never as passed.
//!
//! `EXPRESSGATEWAY_TEST_UNSTEADY` names a file, as `.ci/run` does: a test that fails is then run twice more with no other test beside it.
//! If both runs pass, the test counts as passed, and the file gets its name with what failed first; at most three tests of a binary can.

use crate::io::Driver;
use crate::tools::Tool;
use libtest_mimic::{Arguments, Failed, Trial};
use std::io::Write;
use std::sync::RwLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Held for reading by each test, for writing by one that must be alone.
static ALONE: RwLock<()> = RwLock::new(());

/// Tests that run at once unless the command line says otherwise, whatever the number of cores: most of their time they wait for deadlines
/// of the gateway.
const AT_ONCE: usize = 8;

/// How long a test may take unless it says otherwise.
const GUARD: Duration = Duration::from_secs(180);

/// The variable that names the file for tests that failed only beside others.
const UNSTEADY: &str = "EXPRESSGATEWAY_TEST_UNSTEADY";

/// How many tests of one binary may count as passed although they failed once. More than that is no accident of a busy machine.
const UNSTEADY_AT_MOST: usize = 3;

/// How many of this binary did.
static UNSTEADY_SO_FAR: AtomicUsize = AtomicUsize::new(0);

/// A test.
#[derive(Clone)]
pub struct Case {
    name: &'static str,
    run: fn(),
    needs: &'static [Tool],
    picks_driver: bool,
    alone: bool,
    guard: Duration,
}

impl Case {
    /// A test that fails by panicking.
    pub fn new(name: &'static str, run: fn()) -> Case {
        Case { name, run, needs: &[], picks_driver: false, alone: false, guard: GUARD }
    }

    /// Names the programs that it needs.
    pub fn needs(mut self, tools: &'static [Tool]) -> Case {
        self.needs = tools;
        self
    }

    /// Says that it sets the gateway's driver itself, so that it runs once and not with each.
    pub fn picks_driver(mut self) -> Case {
        self.picks_driver = true;
        self
    }

    /// Has it run while no other test runs: for measures of memory, and for loads that would disturb others' timeouts.
    pub fn alone(mut self) -> Case {
        self.alone = true;
        self
    }

    /// Sets how long it may take.
    pub fn guard(mut self, limit: Duration) -> Case {
        self.guard = limit;
        self
    }

    fn into_trial(self, driver: Option<Driver>) -> Trial {
        let mut missing: Vec<_> =
            self.needs.iter().filter(|tool| !tool.is_there()).map(|tool| tool.name()).collect();
        missing.extend(driver.filter(|driver| !driver.is_offered()).map(Driver::name));
        if !missing.is_empty() {
            eprintln!("{}: ignored, because this machine has no {}", self.name, missing.join(", "));
        }
        let Case { name, run, alone, guard, .. } = self;
        let kind = driver.map_or("", Driver::name);
        let body = move || match driver {
            Some(driver) => driver.during(run),
            None => run(),
        };
        let run = move || {
            let first = guarded(name, body, alone, guard);
            let list = std::env::var_os(UNSTEADY);
            steadied(first, list.as_deref(), &UNSTEADY_SO_FAR, &format!("[{kind}] {name}"), || {
                guarded(name, body, true, guard)
            })
        };
        Trial::test(name, run).with_kind(kind).with_ignored_flag(!missing.is_empty())
    }
}

/// A list of cases named as their functions are.
#[macro_export]
macro_rules! cases {
    ($($function:path),* $(,)?) => {
        vec![$($crate::harness::Case::new($crate::harness::last_segment(stringify!($function)), $function)),*]
    };
}

/// The name of a function without its path.
pub fn last_segment(path: &'static str) -> &'static str {
    path.rsplit("::").next().unwrap_or(path).trim()
}

fn guarded(
    name: &str,
    run: impl FnOnce() + Send + std::panic::UnwindSafe + 'static,
    alone: bool,
    guard: Duration,
) -> Result<(), Failed> {
    let _shared = (!alone).then(|| ALONE.read().unwrap_or_else(|e| e.into_inner()));
    let _exclusive = alone.then(|| ALONE.write().unwrap_or_else(|e| e.into_inner()));
    let (done, outcome) = channel();
    let body = move || {
        let caught = std::panic::catch_unwind(run);
        done.send(caught).ok();
    };
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body).unwrap();
    match outcome.recv_timeout(guard) {
        Ok(Ok(())) => {
            thread.join().ok();
            Ok(())
        }
        Ok(Err(payload)) => {
            let text = payload.downcast_ref::<String>().cloned();
            let text = text.or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(text.unwrap_or_else(|| "panicked".to_owned()).into())
        }
        Err(RecvTimeoutError::Timeout) => Err(format!("{HANGS} after {guard:?}").into()),
        Err(RecvTimeoutError::Disconnected) => Err("the test's thread vanished".into()),
    }
}

/// Turns the failure `first` into a pass when there is a `list` of unsteady tests, `so_far` is below its limit, and two runs of `again` pass;
/// `test` and what failed first are appended to the list.
///
/// A test that hangs is not run again: its thread still runs, and would disturb.
fn steadied(
    first: Result<(), Failed>,
    list: Option<&std::ffi::OsStr>,
    so_far: &AtomicUsize,
    test: &str,
    again: impl Fn() -> Result<(), Failed>,
) -> Result<(), Failed> {
    let (Err(failed), Some(list)) = (&first, list) else {
        return first;
    };
    let text = failed.message().unwrap_or_default().to_owned();
    let tried = !text.starts_with(HANGS) && so_far.fetch_add(1, Ordering::SeqCst) < UNSTEADY_AT_MOST;
    if !tried || again().is_err() || again().is_err() {
        return first;
    }
    eprintln!("{test}: failed once and passed twice: {text}");
    let mut file =
        std::fs::OpenOptions::new().create(true).append(true).open(list).expect("the list of unsteady tests");
    writeln!(file, "{test}: {text}").expect("the list of unsteady tests");
    Ok(())
}

/// How the text of a test that does not end begins.
const HANGS: &str = "still running";

/// Runs the cases on each driver as `cargo test` expects, and ends the process.
pub fn main(binary: &str, cases: Vec<Case>) -> ! {
    crate::gateway::set_binary(binary);
    run(&Driver::wanted().into_iter().map(Some).collect::<Vec<_>>(), &cases)
}

/// As [`main`] for cases without a gateway: each runs once.
pub fn main_without_gateway(cases: &[Case]) -> ! {
    run(&[None], cases)
}

fn run(drivers: &[Option<Driver>], cases: &[Case]) -> ! {
    raise_descriptor_limit();
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let (once, each): (Vec<Case>, Vec<Case>) = cases.iter().cloned().partition(|case| case.picks_driver);
    let mut trials: Vec<Trial> = once.into_iter().map(|case| case.into_trial(None)).collect();
    for driver in drivers {
        trials.extend(each.iter().cloned().map(|case| case.into_trial(*driver)));
    }
    libtest_mimic::run(&arguments, trials).exit()
}

/// How many descriptors this process may have.
pub fn descriptors() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call gets a valid, exclusively borrowed rlimit.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } == 0;
    if known { usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX) } else { 1024 }
}

/// A thousand clients and their backends need more than the usual 1024.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a valid, exclusively borrowed rlimit.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_passes_twice_alone_is_unsteady() {
        let list = std::env::temp_dir().join(format!("unsteady-{}", std::process::id()));
        let so_far = AtomicUsize::new(0);
        let outcomes = |passes: &'static [bool]| {
            let next = AtomicUsize::new(0);
            move || {
                let passes = passes[next.fetch_add(1, Ordering::SeqCst)];
                if passes { Ok(()) } else { Err(Failed::from("again")) }
            }
        };
        let steadied = |first: Result<(), Failed>, with_list: bool, passes| {
            let list = with_list.then(|| list.as_os_str());
            steadied(first, list, &so_far, "a test", outcomes(passes)).is_ok()
        };
        let failed = || Err(Failed::from("the reason"));
        assert!(steadied(Ok(()), true, &[]));
        assert!(!steadied(failed(), false, &[]), "without a list a failure is a failure");
        assert!(!steadied(Err(format!("{HANGS} after 1s").into()), true, &[]));
        assert!(!steadied(failed(), true, &[false]));
        assert!(!steadied(failed(), true, &[true, false]));
        assert!(!list.exists());
        assert!(steadied(failed(), true, &[true, true]));
        assert!(!steadied(failed(), true, &[true, true]), "beyond the limit");
        assert_eq!(std::fs::read_to_string(&list).unwrap(), "a test: the reason\n");
        std::fs::remove_file(&list).unwrap();
    }

    #[test]
    fn a_test_that_panics_or_hangs_fails_with_the_reason() {
        let said =
            |outcome: Result<(), Failed>| outcome.unwrap_err().message().unwrap_or_default().to_owned();
        assert!(guarded("fine", || {}, false, GUARD).is_ok());
        assert_eq!(said(guarded("panics", || panic!("the reason"), false, GUARD)), "the reason");
        let hang = || std::thread::sleep(Duration::from_secs(5));
        let short = Duration::from_millis(50);
        assert!(said(guarded("hangs", hang, true, short)).contains("still running"));
        assert!(guarded("fine afterwards", || {}, true, GUARD).is_ok());
    }
}
