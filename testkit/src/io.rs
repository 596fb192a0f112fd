//! What moves the bytes inside the gateway under test.

use std::cell::Cell;

/// One of the gateway's drivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring(7).
    IoUring,
    /// epoll(7).
    Epoll,
}

thread_local! {
    static CURRENT: Cell<Option<Driver>> = const { Cell::new(None) };
}

impl Driver {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Driver::IoUring => "io_uring",
            Driver::Epoll => "epoll",
        }
    }

    /// The drivers to be tested: both, or the one that `EXPRESSGATEWAY_TEST_IO` names.
    pub fn wanted() -> Vec<Driver> {
        let all = vec![Driver::IoUring, Driver::Epoll];
        match std::env::var("EXPRESSGATEWAY_TEST_IO") {
            Ok(name) => {
                let wanted: Vec<_> = all.into_iter().filter(|driver| driver.name() == name).collect();
                assert!(!wanted.is_empty(), "EXPRESSGATEWAY_TEST_IO = {name}: neither io_uring nor epoll");
                wanted
            }
            Err(_) => all,
        }
    }

    /// Whether this machine lets a process make a ring at all. What a ring can do is for the gateway to find out.
    pub fn is_offered(self) -> bool {
        if self == Driver::Epoll {
            return true;
        }
        let mut parameters = [0u32; 30];
        // SAFETY: the kernel reads and writes one `struct io_uring_params` of 120 bytes, which these are.
        let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
        if ring >= 0 {
            // SAFETY: the descriptor was made above and is used nowhere else.
            unsafe { libc::close(i32::try_from(ring).unwrap()) };
        }
        ring >= 0
    }

    /// Runs `test` with this driver in every configuration that its thread makes.
    pub fn during(self, test: impl FnOnce()) {
        CURRENT.set(Some(self));
        test();
    }

    /// The driver of the test that runs on this thread.
    pub fn current() -> Option<Driver> {
        CURRENT.get()
    }
}
