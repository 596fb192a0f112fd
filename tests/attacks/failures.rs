//! Attacks C-17 and C-06: whichever call of the system on the way of a request fails, and whoever leaves in the middle, the gateway goes
//! on, and nobody takes a part for the whole.

use std::collections::BTreeSet;

use testkit::calls::{Calls, Number, watch};
use testkit::io::Driver;
use testkit::{Backend, Client, Config, Gateway, Listener, Usage, eventually, pattern, seconds};

const CALLS: &[Number] = &[
    libc::SYS_accept4,
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_epoll_ctl,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_writev,
    libc::SYS_readv,
    libc::SYS_shutdown,
    libc::SYS_pipe2,
    libc::SYS_splice,
];

/// What a call may say when the connection is at fault.
fn broken(call: Number) -> Option<i32> {
    Some(match call {
        libc::SYS_accept4 => libc::ECONNABORTED,
        libc::SYS_socket | libc::SYS_pipe2 => libc::ENFILE,
        libc::SYS_connect => libc::ECONNREFUSED,
        libc::SYS_epoll_ctl => libc::ENOSPC,
        libc::SYS_shutdown | libc::SYS_getpeername | libc::SYS_getsockname => libc::ENOTCONN,
        libc::SYS_setsockopt | libc::SYS_getsockopt => libc::EINVAL,
        _ => libc::ECONNRESET,
    })
}

/// What a call may say when the machine is at its end.
fn exhausted(call: Number) -> Option<i32> {
    Some(match call {
        libc::SYS_accept4 | libc::SYS_socket | libc::SYS_pipe2 => libc::EMFILE,
        libc::SYS_connect => libc::EADDRNOTAVAIL,
        _ => libc::ENOMEM,
    })
}

/// A signal came in between, which changes nothing.
fn interrupted(call: Number) -> Option<i32> {
    let can_wait =
        [libc::SYS_accept4, libc::SYS_recvfrom, libc::SYS_sendto, libc::SYS_sendmsg, libc::SYS_splice];
    can_wait.contains(&call).then_some(libc::EINTR)
}

/// How a client's requests ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Well,
    /// With an answer that says so, or without a whole answer.
    Badly,
}

/// Small and large, in both directions, one after the other on one connection.
fn converse(gateway: &Gateway, calls: &Calls) -> Ended {
    const SIZE: usize = 300_000;
    let (upload, taken) = (pattern::bytes(SIZE), format!("{SIZE} right"));
    let mut client = Client::connect(gateway.front()).unwrap();
    client.set_timeout(seconds(20));
    let asks: [(&str, &str, &[u8], &[u8]); 5] = [
        ("GET", "/bytes/100", b"", &pattern::bytes(100)),
        ("POST", "/upload", &upload, taken.as_bytes()),
        ("GET", "/chunked/300000", b"", &upload),
        ("GET", "/bytes/2000000", b"", &pattern::bytes(2_000_000)),
        // The next client needs another connection to the backend.
        ("GET", "/close/100", b"", &pattern::bytes(100)),
    ];
    for (method, target, body, expected) in asks {
        match client.request(method, target, &[], body) {
            Ok(response) if response.status == 200 => {
                assert!(response.body == expected, "{target}: wrong bytes");
            }
            Ok(response) => {
                assert!(matches!(response.status, 500 | 502..=504), "{target}: {}", response.status);
                return Ended::Badly;
            }
            Err(fault) => {
                let is_gone = fault.is_gone() || matches!(&fault, testkit::Fault::Io(_));
                assert!(is_gone, "{target}: {fault} after {:?}", calls.failed());
                return Ended::Badly;
            }
        }
    }
    client.finish();
    Ended::Well
}

pub(crate) fn c_17_any_call_of_the_system_may_fail() {
    let backend = Backend::standard("one");
    let config = Config::new()
        .runtime("workers", 1)
        .runtime("readiness_settle_ms", 0)
        .listener(Listener::h1().backend(backend.address));
    let mut gateway = Gateway::launch_as(config, |command| watch(command, CALLS));
    let calls = Calls::of(&gateway.process);
    eventually("ready", seconds(10), || gateway.readyz() == Some(200));
    assert_eq!(converse(&gateway, &calls), Ended::Well);
    let at_first = gateway.process.open_fds();
    let mut seen = BTreeSet::new();
    for code in [broken, exhausted, interrupted] {
        for n in 0.. {
            calls.fail(n, code);
            let first = converse(&gateway, &calls);
            let failed = calls.failed();
            // Whoever comes next is served, whatever has happened to the one before.
            if calls.failed().is_some() {
                assert_eq!(converse(&gateway, &calls), Ended::Well, "after {failed:?}, the {n}th");
            }
            let Some((call, code)) = failed else { break };
            assert!(code != libc::EINTR || first == Ended::Well, "an interrupted call, {call}, the {n}th");
            seen.insert(call);
        }
    }
    let needed: &[Number] = match Driver::current().unwrap() {
        Driver::Epoll => &[libc::SYS_accept4, libc::SYS_connect, libc::SYS_epoll_ctl, libc::SYS_writev],
        Driver::IoUring => &[libc::SYS_sendmsg],
    };
    let always =
        [libc::SYS_socket, libc::SYS_setsockopt, libc::SYS_recvfrom, libc::SYS_sendto, libc::SYS_splice];
    let is_missing = |call: &&Number| !seen.contains(*call);
    let missing: Vec<_> = needed.iter().chain(&always).filter(is_missing).collect();
    assert_eq!(missing, [&0; 0], "of these: {seen:?}");
    let front = gateway.front();
    let listener = front.to_string();
    gateway.wait_metric("connections_inflight", &[("listener", &listener)], |open| open == 0.0);
    eventually("the sockets are closed", seconds(10), || gateway.process.open_fds() <= at_first);
    assert_eq!(gateway.readyz(), Some(200));
    assert_eq!(gateway.stop(seconds(10)), 0);
}

/// Clients that leave in the middle, ten thousand of them: what they asked for is called off, what they leave behind serves others, and
/// nothing stays.
pub(crate) fn c_06_clients_that_leave_by_the_thousand() {
    const EACH: usize = 2500;
    let backend = Backend::standard("one");
    let config = Config::new().listener(Listener::h1().backend(backend.address));
    let gateway = Gateway::start(config);
    gateway.get("/");
    let (at_first, usage) = (gateway.process.open_fds(), Usage::watch(&gateway));
    let body = pattern::bytes(100_000);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (gateway, body) = (&gateway, &body);
            scope.spawn(move || {
                for round in 0..EACH {
                    let mut client = gateway.client();
                    let whole = round * 7919 % body.len();
                    match (thread + round) % 4 {
                        // Within the head, within an upload, within an answer; between a request and its answer.
                        0 => client.send_anyway("GET / HTTP/1.1\r\nHo"),
                        1 => client.send_anyway(
                            [
                                b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n",
                                &body[..whole],
                            ]
                            .concat(),
                        ),
                        2 => {
                            client.send_anyway("GET /bytes/3000000 HTTP/1.1\r\nHost: a\r\n\r\n");
                            drop(client.head("GET"));
                        }
                        _ => client.send_anyway("GET /bytes/100 HTTP/1.1\r\nHost: a\r\n\r\n"),
                    }
                    if round % 2 == 0 { client.reset() } else { drop(client) }
                }
            });
        }
    });
    let listener = gateway.front().to_string();
    gateway.wait_metric("connections_inflight", &[("listener", &listener)], |open| open == 0.0);
    eventually("the sockets are closed", seconds(20), || gateway.process.open_fds() <= at_first + 16);
    usage.assert_grew_less_than(&gateway, 16 << 20);
    for round in 0..200 {
        let size = round * 100;
        let response = gateway.get(&format!("/bytes/{size}"));
        assert!(response.status == 200 && response.body == pattern::bytes(size), "{round}");
    }
    backend.assert_clean();
}
