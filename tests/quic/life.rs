//! How connections end: by drains, caps, timeouts, and after as many requests as they may carry.

use crate::rig::{Rig, config};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use testkit::h3::code;
use testkit::process::SIGTERM;
use testkit::quic::{QuicClient, code_of};
use testkit::{H3Client, eventually, ms, seconds};

pub(crate) fn drain_lets_running_requests_finish() {
    let mut rig = Rig::under(config().runtime("drain_timeout_ms", 8000), |listener| listener);
    let mut client = rig.client();
    let mut quiet = rig.client();
    assert_eq!(quiet.get("/").unwrap().text(), "one");
    let slow = client.open("GET", "/slow/1500", &[], true).unwrap();
    let upload = client.open("POST", "/upload", &[], false).unwrap();
    client.data(upload, &testkit::pattern::bytes(1000)).unwrap();
    rig.origin.wait_requests(3);
    rig.gateway.process.signal(SIGTERM);
    eventually("a GOAWAY on each connection", seconds(5), || {
        !client.heard().goaways.is_empty() && !quiet.heard().goaways.is_empty()
    });
    assert_eq!(client.response(slow).unwrap().text(), "one");
    client.data(upload, &testkit::pattern::bytes(2000)[1000..]).unwrap();
    client.end(upload).unwrap();
    assert_eq!(client.response(upload).unwrap().text(), "2000 right");
    assert_eq!(client.closed(), (true, code::NO_ERROR));
    assert_eq!(quiet.closed(), (true, code::NO_ERROR));
    assert!(
        client.heard().goaways.last().is_some_and(|last| *last <= upload + 4),
        "{:?}",
        client.heard().goaways
    );
    assert_eq!((&client.heard().faults, rig.gateway.process.wait_exit(seconds(10))), (&vec![], Some(0)));
}

/// One request after the other until the gateway says that the end is near; how many of them it has taken and not answered.
fn requests(mut client: H3Client, served: &AtomicU64) -> usize {
    let mut lost = 0;
    while client.heard().goaways.is_empty() && client.quic.quic.close_reason().is_none() {
        let Ok(id) = client.open("GET", "/", &[], true) else { break };
        match client.over_with(id) {
            Ok(answer) if answer.status() == 200 => drop(served.fetch_add(1, Relaxed)),
            // Not processed, so says the last GOAWAY: it may be sent again elsewhere.
            _ if client.heard().goaways.last().is_some_and(|last| *last <= id) => {}
            _ => lost += 1,
        }
        std::thread::sleep(ms(3));
    }
    assert_eq!(client.closed(), (true, code::NO_ERROR));
    assert_eq!(client.heard().faults, [""; 0]);
    lost
}

pub(crate) fn busy_connections_lose_nothing_in_a_drain() {
    for jitter in [0, 800] {
        let config = config().runtime("drain_timeout_ms", 6000).runtime("drain_jitter_ms", jitter);
        let mut rig = Rig::under(config.runtime("workers", 2), |listener| listener);
        let served = Arc::new(AtomicU64::new(0));
        let clients: Vec<_> = (0..6)
            .map(|_| {
                let (client, served) = (rig.client(), Arc::clone(&served));
                std::thread::spawn(move || requests(client, &served))
            })
            .collect();
        eventually("traffic", seconds(10), || served.load(Relaxed) > 100);
        rig.gateway.process.signal(SIGTERM);
        let lost: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert_eq!(lost, 0, "jitter {jitter}");
        assert_eq!(rig.gateway.process.wait_exit(seconds(10)), Some(0));
        rig.origin.assert_clean();
    }
}

pub(crate) fn max_requests_per_h3_connection_loses_none() {
    let cap = config().runtime("max_requests_per_h3_connection", 20).runtime("workers", 1);
    let rig = Rig::under(cap, |listener| listener);
    let served = AtomicU64::new(0);
    for _ in 0..3 {
        assert_eq!(requests(rig.client(), &served), 0);
    }
    let served = served.load(Relaxed);
    assert!((60..600).contains(&served), "{served} requests on three connections of 20");
    // Many at once: those that are beyond the GOAWAY are refused as not processed.
    let mut client = rig.client();
    let ids: Vec<u64> = (0..60).map(|_| client.open("GET", "/", &[], true).unwrap()).collect();
    for id in ids {
        let answer = client.over_with(id).unwrap();
        let refused = answer.reset == Some(code::REQUEST_REJECTED)
            && client.heard().goaways.last().is_some_and(|last| *last <= id);
        assert!(answer.status() == 200 || refused, "{id}: {answer:?}");
    }
    assert_eq!(client.closed(), (true, code::NO_ERROR));
    // Each was told twice: that the end is near, and which request is the last.
    let count = |name| rig.gateway.metric(name, &[]);
    assert_eq!((count("h3_connections_recycled_total"), count("h3_goaway_sent_total")), (4.0, 8.0));
}

pub(crate) fn idle_connections_end() {
    let rig = Rig::with(|listener| listener.quic_key("max_idle_timeout_ms", 700));
    let client = rig.quic();
    let why = client.closed(seconds(5)).expect("the end of a silent connection");
    assert!(matches!(why, testkit::quic::ConnectionError::TimedOut), "{why}");
    rig.gateway.wait_metric("accept_inflight", &[], |n| n == 0.0);
    // One whose client says something now and then goes on.
    let lively = QuicClient::default().keep_alive(ms(200)).connect(rig.gateway.front()).unwrap();
    let mut client = H3Client::over(lively).unwrap();
    std::thread::sleep(ms(1500));
    assert_eq!(client.get("/").unwrap().text(), "one");
}

/// Whatever is said on a connection, it ends when no request comes; between requests another time counts.
pub(crate) fn connections_without_a_request_end() {
    let rig = Rig::with(|l| l.http("header_timeout_ms", 800).http("keepalive_timeout_ms", 2500));
    let lively = QuicClient::default().keep_alive(ms(100));
    let quiet = H3Client::over(lively.connect(rig.gateway.front()).unwrap()).unwrap();
    let mut served = H3Client::over(lively.connect(rig.gateway.front()).unwrap()).unwrap();
    assert_eq!(served.get("/").unwrap().text(), "one");
    assert_eq!(quiet.closed(), (true, code::NO_ERROR));
    assert_eq!(served.get("/").unwrap().text(), "one");
    assert_eq!(served.closed(), (true, code::NO_ERROR));
}

/// A head that does not end is waited for as long, whether other requests run beside it or none.
pub(crate) fn heads_without_end_are_given_up() {
    let rig = Rig::with(|l| l.http("header_timeout_ms", 800));
    for is_alone in [true, false] {
        let lively = QuicClient::default().keep_alive(ms(100));
        let mut client = H3Client::over(lively.connect(rig.gateway.front()).unwrap()).unwrap();
        let beside = (!is_alone).then(|| client.open("GET", "/slow/2500", &[], true).unwrap());
        let started = std::time::Instant::now();
        let slow = client.open_with([1, 60, 0, 0], false).unwrap();
        let answer = client.over_with(slow).unwrap();
        assert_eq!(answer.status(), 408, "{answer:?}");
        assert!(started.elapsed() >= ms(750), "after {:?}", started.elapsed());
        if let Some(beside) = beside {
            assert_eq!(client.response(beside).unwrap().text(), "one");
        }
        if is_alone {
            assert_eq!(client.closed(), (true, code::NO_ERROR));
        }
    }
    rig.gateway.wait_metric("request_rejected_total", &[("reason", "header_timeout")], |n| n == 2.0);
}

pub(crate) fn handshakes_have_an_end() {
    let rig = Rig::under(config().runtime("handshake_timeout_ms", 600), |listener| listener);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for datagram in QuicClient::default().hello() {
        socket.send_to(&datagram, rig.gateway.front()).unwrap();
    }
    rig.gateway.wait_metric("tls_handshakes_total", &[("result", "timeout")], |n| n == 1.0);
    rig.gateway.wait_metric("tls_handshakes_inflight", &[], |n| n == 0.0);
    rig.gateway.wait_metric("accept_inflight", &[], |n| n == 0.0);
    rig.assert_serves("a handshake without end");
}

pub(crate) fn connections_of_an_address_are_capped() {
    let caps = [
        ("per_ip_connection_cap", 3, "accept_reject_total", "refused accept"),
        ("max_inflight_connections", 100, "accept_shed_total", "shed accept"),
    ];
    for (key, most, metric, line) in caps {
        let rig = Rig::under(config().runtime(key, most).runtime("workers", 1), |listener| listener);
        let held: Vec<_> = (0..most).map(|_| rig.quic()).collect();
        let why = QuicClient::default().connect(rig.gateway.front()).unwrap_err();
        // CONNECTION_REFUSED (RFC 9000 section 20.1).
        assert_eq!(code_of(&why), Some((false, 0x2)), "{key}: {why}");
        rig.gateway.wait_metric(metric, &[], |n| n >= 1.0);
        assert!(
            rig.gateway.process.stderr.wait(line, seconds(5)).is_some_and(|line| line.contains(key)),
            "{key}"
        );
        drop(held);
        rig.gateway.wait_metric("accept_inflight", &[], |n| n == 0.0);
        rig.assert_serves(key);
    }
}

pub(crate) fn handshakes_are_counted() {
    let rig = Rig::standard();
    for _ in 0..3 {
        rig.client().get("/").unwrap();
    }
    rig.gateway.wait_metric("tls_handshakes_total", &[("result", "full")], |n| n == 3.0);
    rig.gateway.wait_metric("connections_total", &[], |n| n == 3.0);
    rig.gateway
        .wait_metric("http_requests_total", &[("version", "h3"), ("status_class", "2xx")], |n| n == 3.0);
    rig.gateway.wait_metric("accept_inflight", &[], |n| n == 0.0);
}

/// A listener without connections has nothing that would wake it.
pub(crate) fn a_listener_that_is_removed_gives_its_port_back() {
    let origin = testkit::Origin::standard(testkit::Version::H1, "one");
    let testkit::Origin::H1(backend) = &origin else { panic!("it speaks HTTP/1.1") };
    let (backend, front) = (backend.address, testkit::ports::reserve());
    let quic = testkit::Listener::quic().backend(backend).at(front);
    let other = testkit::Listener::udp().backend(backend).at(testkit::ports::reserve());
    let mut gateway = testkit::Gateway::start(config().listener(quic).listener(other.clone()));
    let mut client = H3Client::connect(front).expect("a connection");
    assert_eq!(client.get("/").unwrap().text(), "one");
    drop(client);
    let none = gateway.metric("connections_inflight", &[("listener", &format!("{front}/udp"))]);
    assert!(none <= 1.0);
    gateway.reload(config().listener(other));
    eventually("the port is free", seconds(10), || std::net::UdpSocket::bind(front).is_ok());
}
