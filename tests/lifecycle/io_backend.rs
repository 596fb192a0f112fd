//! Which driver moves the bytes, and what the log says of it.

use testkit::calls::{Calls, watch};
use testkit::io::Driver;
use testkit::process::{Call, forbid_call};
use testkit::{Backend, Config, Gateway, Listener, eventually, seconds};

fn config(backend: &Backend, choice: &str) -> Config {
    Config::new().runtime("io_backend", choice).listener(Listener::h1().backend(backend.address))
}

/// Whether the process holds a ring.
fn has_ring(gateway: &Gateway) -> bool {
    let descriptors = format!("/proc/{}/fd", gateway.process.pid());
    std::fs::read_dir(descriptors)
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .any(|target| target.to_string_lossy().contains("io_uring"))
}

fn ready_line(gateway: &Gateway) -> String {
    gateway.process.stderr.wait("lb-io runtime ready", seconds(5)).unwrap()
}

pub(crate) fn the_log_names_the_driver_that_is_used() {
    let backend = Backend::standard("one");
    let driver = Driver::current().unwrap();
    let gateway = Gateway::start(config(&backend, driver.name()));
    assert!(ready_line(&gateway).contains(&format!("backend={}", driver.name())));
    assert_eq!(has_ring(&gateway), driver == Driver::IoUring);
    assert_eq!(gateway.get("/").text(), "one");
    if driver == Driver::IoUring {
        let gateway = Gateway::start(config(&backend, "auto"));
        assert!(ready_line(&gateway).contains("backend=io_uring"));
        assert!(has_ring(&gateway));
    }
}

pub(crate) fn where_io_uring_is_forbidden_epoll_serves() {
    let backend = Backend::standard("one");
    for (call, code) in [(Call::RingSetup, 1), (Call::RingRegister, 38), (Call::RingEnter, 13)] {
        let gateway =
            Gateway::launch_as(config(&backend, "auto"), |command| forbid_call(command, call, code));
        eventually("ready", seconds(10), || gateway.readyz() == Some(200));
        assert!(ready_line(&gateway).contains("backend=epoll"));
        assert!(!has_ring(&gateway), "a ring is left");
        let said = gateway.process.stderr.matching("io_uring cannot be had");
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("probe") && said[0].contains(&format!("os error {code}")), "{}", said[0]);
        assert_eq!(gateway.get("/").text(), "one");
    }
}

pub(crate) fn io_uring_on_demand_or_not_at_all() {
    let backend = Backend::standard("one");
    let mut gateway = Gateway::launch_as(config(&backend, "io_uring"), |command| {
        forbid_call(command, Call::RingSetup, 1);
    });
    assert_eq!(gateway.process.wait_exit(seconds(10)), Some(1));
    let said = gateway.process.stderr.matching("startup failed");
    assert!(said[0].contains("io_uring cannot be had: io_uring_setup(2)"), "{}", said[0]);
}

/// A ring that the kernel calls broken loses answers: its worker ends, what the others do is finished, and the process ends with a code
/// of its own.
pub(crate) fn a_worker_whose_ring_fails_ends_the_process() {
    let backend = Backend::standard("one");
    let mut gateway = Gateway::launch_as(config(&backend, "io_uring"), |command| {
        watch(command, &[libc::SYS_io_uring_enter]);
    });
    let calls = Calls::of(&gateway.process);
    eventually("ready", seconds(10), || gateway.readyz() == Some(200));
    assert_eq!(gateway.get("/").text(), "one");
    calls.fail(0, |_| Some(libc::EBADR));
    let mut client = gateway.client();
    client.send_anyway("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(gateway.process.wait_exit(seconds(20)), Some(4));
    assert_eq!(gateway.process.stderr.matching("io_uring fails").len(), 1);
    assert_eq!(gateway.process.stderr.matching("a worker has ended").len(), 1);
}
