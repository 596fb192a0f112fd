//! Backends that fail requests are put aside, and not more of them than the rest can do without.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use testkit::backend::Conn;
use testkit::{Backend, Config, Gateway, Listener, seconds};

use crate::admin::members;
use crate::rig::{gateway, listener_to, one_worker};

/// A backend that answers with a status that the test can change.
pub(crate) fn changeable(name: &'static str, status: u16) -> (Backend, Arc<AtomicU16>) {
    let shared = Arc::new(AtomicU16::new(status));
    let answer = Arc::clone(&shared);
    let backend = Backend::start(move |conn: &mut Conn| {
        loop {
            conn.request()?;
            conn.respond(answer.load(Ordering::SeqCst), &[], name.as_bytes())?;
        }
    });
    (backend, shared)
}

/// Statuses of so many requests.
fn statuses(gateway: &Gateway, number: usize) -> Vec<u16> {
    let mut client = gateway.client();
    (0..number).map(|_| client.get("/").unwrap().status).collect()
}

pub(crate) fn failures_in_a_row_eject() {
    let (good, _) = changeable("good", 200);
    let (bad, status) = changeable("bad", 503);
    let gateway = gateway("round_robin", &[&good, &bad], |config| {
        one_worker(config)
            .block("pools.p.outlier", "consecutive_5xx", 3)
            .block("pools.p.outlier", "base_ejection_ms", 1000)
            .block("pools.p.outlier", "max_ejection_ms", 1000)
    });
    let failed = statuses(&gateway, 60).iter().filter(|status| **status == 503).count();
    assert_eq!(failed, 3, "then it is out");
    assert!(gateway.messages().iter().any(|message| message == "backend ejected"));
    // It recovers meanwhile, and gets its share again when it is back.
    status.store(200, Ordering::SeqCst);
    let before = bad.request_count();
    testkit::eventually("it is back", seconds(30), || {
        assert!(statuses(&gateway, 2).iter().all(|status| *status == 200));
        bad.request_count() > before
    });
}

pub(crate) fn a_share_of_failures_ejects() {
    let backends = [changeable("a", 200), changeable("b", 200), changeable("c", 200)];
    // Every other request fails: never two in a row.
    let turn = AtomicU16::new(0);
    let flaky = Backend::start(move |conn: &mut Conn| {
        loop {
            conn.request()?;
            let status = if turn.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) { 500 } else { 200 };
            conn.respond(status, &[], b"flaky")?;
        }
    });
    let all = [&backends[0].0, &backends[1].0, &backends[2].0, &flaky];
    let gateway = gateway("round_robin", &all, |config| {
        config
            .block("pools.p.outlier", "consecutive_5xx", 3)
            .block("pools.p.outlier", "error_rate_percent", 30)
            .block("pools.p.outlier", "min_requests", 10)
            .block("pools.p.outlier", "interval_ms", 500)
    });
    testkit::eventually("the flaky one is out", seconds(30), || {
        statuses(&gateway, 40);
        gateway.messages().iter().any(|message| message == "backend ejected")
    });
    let before = flaky.request_count();
    assert!(statuses(&gateway, 60).iter().all(|status| *status == 200));
    assert_eq!(flaky.request_count(), before);
}

pub(crate) fn half_of_the_backends_stay_whatever_happens() {
    let backends = [changeable("a", 500), changeable("b", 500), changeable("c", 500), changeable("d", 500)];
    let all: Vec<&Backend> = backends.iter().map(|(backend, _)| backend).collect();
    let gateway = gateway("round_robin", &all, |config| {
        one_worker(config).block("pools.p.outlier", "consecutive_5xx", 2).block(
            "pools.p",
            "panic_threshold_percent",
            0,
        )
    });
    statuses(&gateway, 100);
    let before: Vec<usize> = all.iter().map(|backend| backend.request_count()).collect();
    statuses(&gateway, 100);
    let taking = all.iter().zip(before).filter(|(backend, before)| backend.request_count() > *before).count();
    assert_eq!(taking, 2, "half of four are out, and no more");
}

pub(crate) fn deadlines_of_clients_eject_nobody() {
    // A client that gives its calls no time could otherwise take backends from the others.
    let backend = |name: &'static str| {
        Backend::start(move |conn: &mut Conn| {
            loop {
                if conn.request()?.method() == "POST" {
                    conn.hold(seconds(60));
                    return Ok(());
                }
                conn.respond(200, &[], name.as_bytes())?;
            }
        })
    };
    let (one, two) = (backend("one"), backend("two"));
    let listener = Listener::h1().block("grpc", "enabled", true);
    let listener = listener_to(listener, &[(one.address, ""), (two.address, "")]);
    let config = one_worker(Config::new())
        .block("pools.p.outlier", "consecutive_5xx", 1)
        .block("pools.p.outlier", "consecutive_gateway_failures", 1)
        .listener(listener);
    let gateway = Gateway::start(config);
    for _ in 0..6 {
        let headers = [("Content-Type", "application/grpc"), ("TE", "trailers"), ("grpc-timeout", "400m")];
        let call = gateway.client().request("POST", "/x.Y/Z", &headers, b"").unwrap();
        assert_eq!(call.header("grpc-status").as_deref(), Some("4"));
    }
    assert_eq!(one.request_count() + two.request_count(), 6);
    let before = (one.request_count(), two.request_count());
    assert_eq!(statuses(&gateway, 20), [200; 20]);
    assert_eq!((one.request_count() - before.0, two.request_count() - before.1), (10, 10));
    assert!(!gateway.messages().iter().any(|message| message == "backend ejected"));
}

/// Every TCP connection is one request, however long it lives: half of the connects that fail are half of the requests.
pub(crate) fn failed_connects_are_a_share_of_all_connects() {
    let (good, flaky) = (Backend::tcp_echo(), Backend::tcp_echo());
    let address = flaky.address;
    let listener = Listener::tcp().block("tcp", "connect_tries", 1);
    let config = one_worker(Config::new())
        // It would get no more after the first.
        .block("pools.p", "rest_ms", 0)
        .block("pools.p.outlier", "consecutive_gateway_failures", 0)
        .block("pools.p.outlier", "consecutive_5xx", 0)
        .block("pools.p.outlier", "error_rate_percent", 45)
        .block("pools.p.outlier", "min_requests", 20)
        .block("pools.p.outlier", "interval_ms", 2000)
        .listener(listener_to(listener, &[(good.address, ""), (address, "")]));
    let gateway = Gateway::start(config);
    let visits = || -> usize {
        let visit = || {
            let mut client = gateway.client();
            client.send("x").is_ok() && client.wire.exactly(1).is_ok()
        };
        (0..20).filter(|_| visit()).count()
    };
    let (all, half) = (visits(), {
        drop(flaky);
        visits()
    });
    assert_eq!((all, half), (20, 10));
    testkit::eventually("all have ended", seconds(10), || {
        let mut members = members(&gateway).into_iter();
        members.all(|member| member["requests_in_flight"].as_u64() == Some(0))
    });
    let shown = members(&gateway);
    let counts = |at: usize| (shown[at]["requests_total"].as_u64(), shown[at]["failures_total"].as_u64());
    assert_eq!((counts(0), counts(1)), ((Some(20), Some(0)), (Some(20), Some(10))));
    testkit::eventually("the flaky one is out", seconds(40), || {
        let flaky = Backend::start_at(address, |conn| {
            conn.wire.exactly(1)?;
            conn.send("x")
        });
        visits();
        drop(flaky);
        visits();
        gateway.messages().iter().any(|message| message == "backend ejected")
    });
}
