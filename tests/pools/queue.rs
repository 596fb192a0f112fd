//! Room at a backend with limits: who gets it when a connection is not what it was hoped to be, and when it is given back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::retry::pool;
use crate::rig::one_worker;
use testkit::h2::{frame, hpack, setting};
use testkit::harness::Case;
use testkit::{Backend, Config, Gateway, H2Backend, H2Client, Listener, ms, seconds};

pub(crate) fn cases() -> Vec<Case> {
    testkit::cases![who_hoped_for_a_stream_queues, who_reads_an_error_slowly_holds_no_room,]
}

fn limits(keys: &[(&str, u32)]) -> Config {
    keys.iter()
        .fold(one_worker(Config::new()), |config, (key, value)| config.block("pools.p.limits", key, *value))
}

/// A backend that takes its time, and a count of the streams that it had at once.
fn slow(name: &'static str) -> (H2Backend, Arc<AtomicUsize>) {
    let most = Arc::new(AtomicUsize::new(0));
    let (now, most_here) = (AtomicUsize::new(0), Arc::clone(&most));
    let backend = H2Backend::start(move |call| {
        most_here.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        call.pause(ms(20));
        now.fetch_sub(1, Ordering::SeqCst);
        call.respond(200, &[], name.as_bytes())
    });
    (backend, most)
}

/// A connection is given two streams, though as many as it may take are expected of one that is being made.
fn listener(backends: &[&H2Backend]) -> Listener {
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    pool(Listener::h2c(), "h2", &addresses).h2("max_concurrent_streams", 2)
}

/// The statuses of `count` requests that come in one piece, so that all of them meet the same dial. A connection carries two at a time.
fn burst(gateway: &Gateway, count: usize) -> Vec<u16> {
    let mut clients: Vec<H2Client> =
        (0..count / 2).map(|_| H2Client::connect(gateway.front()).unwrap()).collect();
    let mut asked = Vec::new();
    for client in &mut clients {
        let block = hpack::block(&client.fields("GET", "/", &[]));
        let streams = [client.next_stream(), client.next_stream()];
        client.send(streams.map(|stream| frame::headers(stream, &block, true)).concat()).unwrap();
        asked.push(streams);
    }
    let asked = clients.iter_mut().zip(asked);
    asked
        .flat_map(|(client, streams)| streams.map(|stream| client.response(stream).unwrap().status()))
        .collect()
}

fn who_hoped_for_a_stream_queues() {
    let (backend, most) = slow("one");
    let keys = [("max_connections", 1), ("max_pending", 100), ("pending_timeout_ms", 30_000)];
    let gateway = Gateway::start(limits(&keys).listener(listener(&[&backend])));
    for round in 0..10 {
        assert_eq!(burst(&gateway, 16), [200; 16], "round {round}");
        backend.cut();
    }
    assert!(most.load(Ordering::SeqCst) <= 2);
    // A hope that was in vain is no request, at the backend or in the counts.
    let counted = || -> (u64, f64) {
        let pools: serde_json::Value =
            serde_json::from_str(&gateway.admin_get("/backends/p").text()).unwrap();
        let requests = pools[0]["members"][0]["requests_total"].as_u64().unwrap();
        (requests, gateway.metric("pool_acquires_total", &[]))
    };
    testkit::eventually("all have ended", seconds(5), || counted().0 >= 160);
    assert_eq!((backend.request_count(), counted()), (160, (160, 160.0)));
    assert_eq!(gateway.metric("pool_overflow_total", &[("pool", "p")]), 0.0);
    assert_eq!(gateway.metric("pool_pending", &[("pool", "p")]), 0.0);
}

fn who_reads_an_error_slowly_holds_no_room() {
    let backend = Backend::each(|request, conn| match request.target() {
        "/bad" => conn.send("what is this\r\n\r\n"),
        _ => conn.respond(200, &[], b"ok"),
    });
    let listener = pool(Listener::h2c(), "h1", &[backend.address]);
    let gateway = Gateway::start(limits(&[("max_requests", 1)]).listener(listener));
    // Nothing of a body may be sent to it.
    let windows = [(setting::INITIAL_WINDOW_SIZE, 0)];
    let mut slow = H2Client::connect_with(gateway.front(), &windows).unwrap();
    let stream = slow.open("GET", "/bad", &[], true).unwrap();
    assert_eq!(slow.head(stream).unwrap().get(":status").as_deref(), Some("502"));
    assert!(!slow.streams[&stream].is_over(), "its body waits");
    for _ in 0..3 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert!(!slow.streams[&stream].is_over());
}
