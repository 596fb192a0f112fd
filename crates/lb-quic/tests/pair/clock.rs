//! The time that a thread reads of the system, while it is virtual.
//!
//! quiche and the gateway read the monotonic clock through the standard library, which calls clock_gettime(2) of the C library. This binary has a
//! function of that name itself, which answers with the time of tokio's clock on threads where that is paused. So timers of all of them
//! agree, to the nanosecond. tokio's clock moves only while the thread has nothing to do; after each such moment [`follow`] takes over where it
//! stands.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// A clock that stands still but for what it is told.
#[derive(Clone, Copy)]
struct Stopped {
    now: Duration,
    /// What tokio's clock has shown when this one showed that.
    begun: Option<(Instant, Duration)>,
}

thread_local! {
    static CLOCK: Cell<Option<Stopped>> = const { Cell::new(None) };
}

/// Stops the clock of this thread at the time that it is.
pub(crate) fn stop() {
    CLOCK.set(None);
    let now = of_kernel(libc::CLOCK_MONOTONIC).unwrap();
    CLOCK.set(Some(Stopped { now, begun: None }));
}

/// Has the clock of this thread follow tokio's from now on, which has been made since it was stopped and is paused.
pub(crate) fn begin() {
    let Some(Stopped { now, .. }) = CLOCK.get() else { panic!("the clock goes") };
    CLOCK.set(Some(Stopped { now, begun: Some((Instant::now(), now)) }));
    assert_eq!(Instant::now().into_std(), std::time::Instant::now(), "two clocks, two times");
}

/// Moves the clock of this thread on to where tokio's is.
pub(crate) fn follow() {
    if let Some(Stopped { begun: Some((begun, at)), .. }) = CLOCK.get() {
        let now = at + Instant::now().duration_since(begun);
        CLOCK.set(Some(Stopped { now, begun: Some((begun, at)) }));
    }
}

/// What the kernel says.
#[expect(unsafe_code, reason = "the C library's function of this name is the one below")]
fn of_kernel(clock: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec` to the address of one, and reads nothing.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, &raw mut time) };
    let nanos = u32::try_from(time.tv_nsec).ok()?;
    (result == 0).then_some(Duration::new(u64::try_from(time.tv_sec).ok()?, nanos))
}

/// Takes the place of the C library's function in this binary.
///
/// # Safety
/// As of that: `into` is valid for writing one `timespec`.
#[expect(unsafe_code, reason = "a test binary replaces a function of the C library")]
// SAFETY: it has the type of the C library's function, does what that promises, and unwinds never.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, into: *mut libc::timespec) -> libc::c_int {
    let stopped =
        if clock == libc::CLOCK_MONOTONIC { CLOCK.try_with(Cell::get).ok().flatten() } else { None };
    let Some(time) = stopped.map(|stopped| stopped.now).or_else(|| of_kernel(clock)) else { return -1 };
    let seconds = libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX);
    // SAFETY: the caller promises that the address is one.
    unsafe { into.write(libc::timespec { tv_sec: seconds, tv_nsec: time.subsec_nanos().into() }) };
    0
}

#[test]
fn the_clock_of_the_system_is_that_of_the_test() {
    let before = std::time::Instant::now();
    crate::within(|| async {
        let begun = std::time::Instant::now();
        tokio::time::sleep(Duration::from_secs(86_400)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(86_400));
        assert_eq!(std::time::Instant::now(), Instant::now().into_std());
    });
    CLOCK.set(None);
    assert!(before.elapsed() < Duration::from_secs(3600), "the real clock goes on after it");
}
