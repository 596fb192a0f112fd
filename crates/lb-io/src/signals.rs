//! Signals that arrive before anything listens to them.
//!
//! A signal whose handler is not installed yet ends the process. [`hold`] is one system call and stands first in `main`: from then on
//! the signals of the gateway wait in the kernel. [`release`] delivers them once handlers are installed, or ends the process where none
//! ever will be.

use std::mem::MaybeUninit;
use std::ptr;

/// Every signal that the gateway gives a meaning.
const OURS: [libc::c_int; 6] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2];

/// Lets signals wait. Threads that are started before [`release`] never take one.
pub fn hold() {
    mask(libc::SIG_BLOCK);
}

/// Delivers the signals that wait, and later ones at once. Called by the thread that has called [`hold`].
pub fn release() {
    mask(libc::SIG_UNBLOCK);
}

#[expect(unsafe_code, reason = "no crate offers pthread_sigmask(3)")]
fn mask(how: libc::c_int) {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set before anything reads it; sigaddset and pthread_sigmask read and write that set alone,
    // which outlives the calls; the old mask is not asked for. None of them can fail with these arguments.
    // JUSTIFICATION: a handler that tokio installs needs an event loop, which takes longer than a signal may.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in OURS {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(how, set.as_ptr(), ptr::null_mut());
    }
}
