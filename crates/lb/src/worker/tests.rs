//! Attack C-17, through HTTP: whichever operation of a worker's ring fails, from the accept to the last byte of an answer, one request at
//! most suffers. Its client has an error answer, or a connection that ends before the answer does; nobody has a wrong byte, nobody waits
//! for ever, and in the end no descriptor, no buffer and no place is kept.

mod gateway;
mod peers;

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lb_io::faults::{self, RingFault};
use lb_io::{IoChoice, Runtime};

use gateway::{Gateway, Sockets};
use peers::{Backend, Outcome, Wanted, play};

/// Nothing takes so long unless it hangs. The gateway's own patience is longer, so that it does not hide that.
const PATIENCE: Duration = Duration::from_secs(30);

/// What an operation may say. Not that the connection is reset: of sends the kernel says so only when it is gone, which it is not here, and
/// its end can be read.
const CODES: [i32; 4] = [libc::ECONNABORTED, libc::ENOMEM, libc::EINVAL, libc::EMFILE];

/// So many runs in a row in which nothing was left to fail, and all that can fail has. How many operations a run needs is a matter of
/// how the kernel puts bytes together.
const MISSES: usize = 5;

/// What a client asks for on one connection: with a backend connection that is new, with one that was used, and with a new one again.
const CONVERSATION: [Wanted; 4] = [
    Wanted { uploads: false, is_large: false, is_chunked: false, closes: false },
    Wanted { uploads: true, is_large: true, is_chunked: true, closes: false },
    Wanted { uploads: true, is_large: true, is_chunked: false, closes: true },
    Wanted { uploads: false, is_large: false, is_chunked: false, closes: false },
];

/// What takes an idle backend connection out of the pool.
const FAREWELL: [Wanted; 1] = [Wanted { uploads: false, is_large: false, is_chunked: false, closes: true }];

/// Two clients at a time, of whom one may suffer from what is armed. What kind of operation has failed, if any.
fn converse(gateway: &Gateway, backend: &Backend) -> Option<String> {
    let outcomes = std::thread::scope(|scope| {
        let clients = [(); 2].map(|()| scope.spawn(|| play(gateway.address, &CONVERSATION)));
        clients.map(|client| client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let mut idle = gateway.until_quiet();
    let failed = gateway.ask(faults::disarm).unwrap();
    let harmed = outcomes.iter().flatten().filter(|outcome| **outcome != Outcome::Whole).count();
    assert!(
        harmed <= usize::from(failed.is_some()),
        "{failed:?} has failed, and this came of it: {outcomes:?}"
    );
    // Whatever has failed, the gateway is as good as before.
    while idle > 0 {
        assert_eq!(play(gateway.address, &FAREWELL), [Outcome::Whole]);
        idle = gateway.until_quiet();
    }
    backend.assert_content();
    failed
}

/// Tells what had been armed when the test failed.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was while {} was to happen", self.0);
        }
    }
}

/// Has every operation fail in turn, with each of a few errors. After each nothing must be left.
fn every(fault: fn(usize) -> RingFault) {
    // Neither test's sockets are the other's.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Sockets that tokio keeps for the whole process are made with the first runtime.
    drop(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
    let runtimes: [fn() -> io::Result<Runtime>; 2] =
        [|| Runtime::new(IoChoice::IoUring, 1), faults::runtime_of_single_receives];
    for runtime in runtimes {
        let mut kinds = BTreeSet::new();
        for code in CODES {
            let before = Sockets::open();
            let backend = Backend::start();
            // The first operation of all is the worker's first accept.
            let gateway = Gateway::start(&runtime().unwrap(), backend.address, (fault(0), code));
            let running = Sockets::open();
            let (mut n, mut misses) = (0, 0);
            while misses < MISSES {
                if n > 0 {
                    gateway.ask(move || faults::arm(fault(n), code)).unwrap();
                }
                let told = Told(format!("{:?} with error {code}", fault(n)));
                match converse(&gateway, &backend) {
                    Some(kind) => {
                        kinds.insert(kind);
                        misses = 0;
                    }
                    None => misses += 1,
                }
                running.assert_no_others();
                drop(told);
                n += 1;
            }
            assert!(n > 15, "only {n} operations were needed");
            gateway.stop();
            drop(backend);
            before.assert_no_others();
        }
        for kind in ["Accept", "Connect", "Receive", "Send", "Readable"] {
            assert!(kinds.contains(kind), "no {kind} has failed, only {kinds:?}");
        }
    }
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn any_operation_of_a_request_may_be_refused() {
    every(RingFault::Submission);
}

#[test]
#[cfg_attr(not(has_io_uring), ignore = "this machine has no io_uring")]
fn any_operation_of_a_request_may_fail() {
    every(RingFault::Completion);
}
