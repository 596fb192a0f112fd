//! Attack C-17: whichever system call on the way of a request fails, the gateway goes on, and no client takes a part for the whole.

use std::net::SocketAddr;

use testkit::calls::{Calls, Number, watch};
use testkit::certificates::Authority;
use testkit::exchange::{Origin, Version};
use testkit::io::Driver;
use testkit::tls::{Bridge, TlsClient};
use testkit::{Backend, Client, Config, Fault, Gateway, H2Client, Listener, eventually, pattern, seconds};

/// Bodies of this size take several reads and stay below the size from which bodies are spliced.
const MIDDLE: usize = 300_000;
/// Bodies of this size are spliced where nothing forbids it.
const LARGE: usize = 2_000_000;

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

/// How a client's conversation ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Well,
    /// With an answer that says so, or without a whole answer.
    Badly,
}

/// Talks to the gateway at this address, on one connection and from the beginning to the end, and checks every byte that arrives.
type Conversation = fn(SocketAddr) -> Result<Ended, String>;

/// Small and large requests and responses, one after the other over HTTP/1.1.
fn over_http1(address: SocketAddr) -> Result<Ended, String> {
    let (upload, taken) = (pattern::bytes(MIDDLE), format!("{MIDDLE} right"));
    let mut client = match Client::connect(address) {
        Ok(client) => client,
        Err(fault) => return gone("the connection", &fault),
    };
    client.set_timeout(seconds(20));
    let asks: [(&str, &str, &[u8], &[u8]); 5] = [
        ("GET", "/bytes/100", b"", &pattern::bytes(100)),
        ("POST", "/upload", &upload, taken.as_bytes()),
        ("GET", "/chunked/300000", b"", &upload),
        ("GET", "/bytes/2000000", b"", &pattern::bytes(LARGE)),
        // The next client needs another connection to the backend.
        ("GET", "/close/100", b"", &pattern::bytes(100)),
    ];
    for (method, target, body, expected) in asks {
        match client.request(method, target, &[], body) {
            Ok(response) => match judge(target, response.status, response.body == expected)? {
                Ended::Well => {}
                Ended::Badly => return Ok(Ended::Badly),
            },
            Err(fault) => return gone(target, &fault),
        }
    }
    client.finish();
    Ok(Ended::Well)
}

/// The requests of [`over_http1`] over HTTP/2, two of them at a time.
fn over_http2(address: SocketAddr) -> Result<Ended, String> {
    let (upload, taken) = (pattern::bytes(MIDDLE), format!("{MIDDLE} right"));
    let mut client = match H2Client::connect(address) {
        Ok(client) => client,
        Err(fault) => return gone("the preface", &fault),
    };
    let exchange = |client: &mut H2Client| -> Result<Vec<(&str, u16, bool)>, Fault> {
        let small = client.open("GET", "/bytes/100", &[], true)?;
        let sent = client.open("POST", "/upload", &[], false)?;
        client.data(sent, &upload, true)?;
        let small = client.response(small)?;
        let sent = client.response(sent)?;
        let streamed = client.open("GET", "/chunked/300000", &[], true)?;
        let large = client.open("GET", "/bytes/1000000", &[], true)?;
        let streamed = client.response(streamed)?;
        let large = client.response(large)?;
        Ok(vec![
            ("/bytes/100", small.status(), small.body == pattern::bytes(100)),
            ("/upload", sent.status(), sent.body == taken.as_bytes()),
            ("/chunked/300000", streamed.status(), streamed.body == upload),
            ("/bytes/1000000", large.status(), large.body == pattern::bytes(1_000_000)),
        ])
    };
    match exchange(&mut client) {
        Ok(answers) => {
            for (target, status, is_whole) in answers {
                if judge(target, status, is_whole)? == Ended::Badly {
                    return Ok(Ended::Badly);
                }
            }
            Ok(Ended::Well)
        }
        Err(fault) => gone("over HTTP/2", &fault),
    }
}

/// Messages of several sizes there and back, without HTTP.
fn over_tcp(address: SocketAddr) -> Result<Ended, String> {
    let mut client = match Client::connect(address) {
        Ok(client) => client,
        Err(fault) => return gone("the connection", &fault),
    };
    client.set_timeout(seconds(20));
    for size in [100, MIDDLE, LARGE, 1] {
        let data = pattern::bytes(size);
        let (mut sender, sent) = (client.writer(), data.clone());
        let sending = std::thread::spawn(move || sender.send(sent).is_ok());
        let echoed = client.wire.exactly(size);
        // The end of the gateway's side lets the sender go.
        let is_sent = sending.join().unwrap();
        match echoed {
            Ok(bytes) if bytes == data && is_sent => {}
            Ok(bytes) if bytes == data => return Ok(Ended::Badly),
            Ok(_) => return Err(format!("{size} bytes came back wrong")),
            Err(fault) => return gone("an echo", &fault),
        }
    }
    client.finish();
    match client.wire.to_end() {
        Ok(rest) if rest.is_empty() => Ok(Ended::Well),
        Ok(_) => Err("bytes that nobody sent".into()),
        Err(fault) => gone("the end", &fault),
    }
}

/// What an answer means: wrong bytes under 200 are never right, and other answers must say whose fault it was.
fn judge(target: &str, status: u16, is_whole: bool) -> Result<Ended, String> {
    match status {
        200 if is_whole => Ok(Ended::Well),
        200 => Err(format!("{target}: wrong bytes")),
        500 | 502..=504 => Ok(Ended::Badly),
        _ => Err(format!("{target}: {status}")),
    }
}

/// A connection that ends early is a bad end; one that stands still or talks nonsense is none at all.
fn gone(target: &str, fault: &Fault) -> Result<Ended, String> {
    match fault {
        Fault::Io(_) => Ok(Ended::Badly),
        fault if fault.is_gone() => Ok(Ended::Badly),
        fault => Err(format!("{target}: {fault}")),
    }
}

/// Has each system call of the gateway's worker fail in turn while `conversation` is held, and checks after each that the next
/// conversation ends well. The calls of the kinds in `needed` each fail once by name as well. At the end nothing is left over.
fn any_call_may_fail(
    listener: Listener,
    conversation: Conversation,
    reach: impl Fn(SocketAddr) -> SocketAddr,
    needed: fn(Driver) -> &'static [Number],
) {
    let config = Config::new().runtime("workers", 1).runtime("readiness_settle_ms", 0).listener(listener);
    let mut gateway = Gateway::launch_as(config, |command| watch(command, CALLS));
    let calls = Calls::of(&gateway.process);
    eventually("ready", seconds(10), || gateway.readyz() == Some(200));
    let address = reach(gateway.front());
    assert_eq!(conversation(address), Ok(Ended::Well));
    let at_first = gateway.process.open_fds();
    // One conversation in which a call may fail, and one afterwards that must end well. Returns the call that has failed.
    let hold = |what: &str| {
        let first = conversation(address);
        let failed = calls.failed();
        let first = first.unwrap_or_else(|e| panic!("{e}, after {failed:?}, {what}"));
        let (call, code) = failed?;
        assert_eq!(conversation(address), Ok(Ended::Well), "after {failed:?}, {what}");
        assert!(code != libc::EINTR || first == Ended::Well, "an interrupted call, {call}, {what}");
        Some(call)
    };
    for code in [broken, exhausted, interrupted] {
        for n in 0.. {
            calls.fail(n, code);
            if hold(&format!("the {n}th")).is_none() {
                break;
            }
        }
    }
    // A call that moved within its conversation from one time to the next has been missed by its number.
    for &call in needed(Driver::current().unwrap()) {
        calls.fail(0, move |number| broken(number).filter(|_| number == call));
        assert_eq!(hold("the first of its kind"), Some(call), "the conversation holds no call {call}");
    }
    // What is left of the last plan must not meet a call that ends the process.
    calls.let_pass();
    let front = gateway.front();
    let listener = front.to_string();
    gateway.wait_metric("connections_inflight", &[("listener", &listener)], |open| open == 0.0);
    // Pipes of two connections that overlapped are kept for later ones. A descriptor lost to each failure would be many more.
    eventually("the sockets are closed", seconds(10), || gateway.process.open_fds() <= at_first + 8);
    assert_eq!(gateway.readyz(), Some(200));
    assert_eq!(gateway.stop(seconds(10)), 0);
}

pub(crate) fn c_17_any_call_of_the_system_may_fail() {
    let backend = Backend::standard("one");
    any_call_may_fail(
        Listener::h1().backend(backend.address),
        over_http1,
        |front| front,
        |driver| match driver {
            Driver::Epoll => &[
                libc::SYS_accept4,
                libc::SYS_connect,
                libc::SYS_epoll_ctl,
                libc::SYS_writev,
                libc::SYS_socket,
                libc::SYS_setsockopt,
                libc::SYS_recvfrom,
                libc::SYS_sendto,
                libc::SYS_splice,
            ],
            Driver::IoUring => &[
                libc::SYS_sendmsg,
                libc::SYS_socket,
                libc::SYS_setsockopt,
                libc::SYS_recvfrom,
                libc::SYS_sendto,
                libc::SYS_splice,
            ],
        },
    );
}

pub(crate) fn c_17_any_call_may_fail_inside_tls() {
    let (authority, files) = (Authority::new("test authority"), tempfile::tempdir().unwrap());
    let (certificate, key) = authority.server(&["server.test"]).write(files.path(), "s");
    let backend = Backend::standard("one");
    let listener = Listener::h1s(&certificate, &key).backend(backend.address);
    let client = TlsClient::new(&authority, None).alpn(&["http/1.1"]);
    let reach = |front| Bridge::start(client.clone(), front, "server.test").address;
    any_call_may_fail(listener, over_http1, reach, |driver| match driver {
        Driver::Epoll => &[libc::SYS_accept4, libc::SYS_recvfrom, libc::SYS_sendto],
        Driver::IoUring => &[libc::SYS_socket, libc::SYS_sendto],
    });
}

pub(crate) fn c_17_any_call_may_fail_under_http2() {
    let backend = Origin::standard(Version::H2, "one");
    let listener = Listener::h2c().h2_backend(backend.address());
    any_call_may_fail(
        listener,
        over_http2,
        |front| front,
        |driver| match driver {
            Driver::Epoll => &[libc::SYS_accept4, libc::SYS_recvfrom, libc::SYS_sendto],
            // The first connections stay, and none is opened anew by this driver without need.
            Driver::IoUring => &[libc::SYS_sendto, libc::SYS_recvfrom],
        },
    );
}

pub(crate) fn c_17_any_call_may_fail_on_a_relay() {
    let backend = Backend::tcp_echo();
    any_call_may_fail(
        Listener::tcp().backend(backend.address),
        over_tcp,
        |front| front,
        |driver| match driver {
            Driver::Epoll => &[
                libc::SYS_accept4,
                libc::SYS_connect,
                libc::SYS_recvfrom,
                libc::SYS_sendto,
                libc::SYS_splice,
            ],
            Driver::IoUring => &[libc::SYS_socket, libc::SYS_splice],
        },
    );
}
