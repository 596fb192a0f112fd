//! Clients that want much and give little: what they make the gateway hold has bounds.

use crate::rig::{MIB, Rig};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use testkit::h3::frame::{header, headers};
use testkit::h3::qpack::{self, indexed};
use testkit::h3::{H3Response, code, kind};
use testkit::quic::QuicClient;
use testkit::usage::anonymous;
use testkit::{H3Client, Usage, eventually, ms, pattern, seconds};

/// Like attack H2-01: a stream is opened and given up, again and again.
pub(crate) fn h2_01_rapid_reset() {
    let at_work = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&at_work);
    let tune = |listener: testkit::Listener| {
        listener.h2("max_concurrent_streams", 10).h2("max_pending_accept_reset_streams", 50)
    };
    let rig = Rig::scripted(tune, move |exchange| {
        if exchange.path() == "/" {
            return exchange.respond(200, &[], b"one");
        }
        counter.fetch_add(1, Ordering::SeqCst);
        exchange.abandoned(seconds(20));
        counter.fetch_sub(1, Ordering::SeqCst);
        Err(testkit::Fault::Closed)
    });
    let usage = Usage::watch(&rig.gateway);
    let mut client = rig.client();
    let mut opened = 0;
    'flood: while opened < 4000 {
        let mut batch = Vec::new();
        for _ in 0..8 {
            let Ok(id) = client.open("GET", "/attack", &[], true) else { break 'flood };
            batch.push(id);
        }
        opened += batch.len();
        // The requests leave, so that they are not given up before anybody has heard of them.
        std::thread::sleep(ms(1));
        batch.into_iter().for_each(|id| client.reset(id, code::REQUEST_CANCELLED).unwrap());
    }
    assert_eq!(client.closed(), (true, code::EXCESSIVE_LOAD), "after {opened} streams");
    assert!(rig.origin.request_count() < 500, "{} requests reached the backend", rig.origin.request_count());
    eventually("the backend's work is cancelled", seconds(5), || at_work.load(Ordering::SeqCst) == 0);
    usage.assert_grew_less_than(&rig.gateway, 24 * MIB);
    assert_eq!(rig.gateway.metric("http2_abuse_total", &[("kind", "peer_reset")]), 1.0);
    rig.assert_serves("rapid reset");
}

/// Attack Q-09 as a flood: heads that are too large, and heads that never end.
pub(crate) fn q_09_a_head_bomb_costs_no_memory() {
    let rig = Rig::standard();
    rig.assert_serves("nothing");
    let usage = Usage::watch(&rig.gateway);
    let fields = [(":method", "GET"), (":scheme", "https"), (":authority", "test.example"), (":path", "/")];
    let bomb = headers([&qpack::section(&fields)[..], &indexed(85).repeat(60_000)].concat());
    let mut client = rig.client();
    let mut sent = 0;
    while sent < 2000 && client.open_with(&bomb, true).is_ok() {
        sent += 1;
    }
    assert_eq!(client.closed(), (true, code::EXCESSIVE_LOAD), "after {sent} bombs");
    assert_eq!(rig.gateway.metric("http2_abuse_total", &[("kind", "header_overflow")]), 1.0);
    // A section of a gibibyte, of which as much comes as the window lets through.
    let mut clients: Vec<H3Client> = (0..4).map(|_| rig.client()).collect();
    for client in &mut clients {
        for _ in 0..50 {
            let head = [header(kind::HEADERS, 1 << 30), vec![b'x'; 60_000]].concat();
            if client.open_with(head, false).is_err() {
                break;
            }
        }
    }
    std::thread::sleep(ms(500));
    usage.assert_grew_less_than(&rig.gateway, 32 * MIB);
    rig.assert_serves("bombs");
    assert_eq!(rig.origin.request_count(), 2, "a bomb reached the backend");
}

/// Requests whose answers nobody reads hold what the client's window lets out, and little more.
pub(crate) fn streams_that_nobody_reads_hold_little() {
    const STREAMS: usize = 400;
    let rig = Rig::with(|listener| listener.http("write_timeout_ms", 60_000));
    rig.assert_serves("nothing");
    let before = anonymous(&rig.gateway);
    let held = || anonymous(&rig.gateway).saturating_sub(before);
    let mut clients = Vec::new();
    for _ in 0..4 {
        let narrow = QuicClient::default().windows(16_384, 1 << 30);
        let mut client = H3Client::over(narrow.connect(rig.gateway.front()).unwrap()).unwrap();
        for _ in 0..STREAMS / 4 {
            client.open("GET", "/bytes/3000000", &[], true).unwrap();
        }
        clients.push(client);
    }
    rig.origin.wait_requests(STREAMS + 1);
    std::thread::sleep(ms(1500));
    let allowed = (STREAMS as u64) * 100 * 1024;
    assert!(held() < allowed, "{} bytes for each stream", held() / STREAMS as u64);
    // All of them are still served.
    let last = *clients[3].streams.keys().last().unwrap();
    clients[3].response(last).unwrap().pattern.assert_complete(3_000_000);
    drop(clients);
    let fits = testkit::poll(seconds(15), || (held() < 8 * MIB).then_some(())).is_some();
    assert!(fits, "{} KiB are kept for nobody", held() / 1024);
}

pub(crate) fn a_client_that_reads_slowly_costs_no_memory() {
    const SIZE: u64 = 24 << 20;
    let rig = Rig::standard();
    rig.assert_serves("nothing");
    let usage = Usage::watch(&rig.gateway);
    let wide = QuicClient::default().windows(1 << 30, 1 << 30);
    let mut client = H3Client::over(wide.connect(rig.gateway.front()).unwrap()).unwrap();
    let narrow = QuicClient::default().windows(100_000, 100_000);
    let mut slow = H3Client::over(narrow.connect(rig.gateway.front()).unwrap()).unwrap();
    let id = slow.open("GET", &format!("/bytes/{SIZE}"), &[], true).unwrap();
    // One whose window takes everything, and whose answer is as large.
    client.get(&format!("/bytes/{SIZE}")).unwrap().pattern.assert_complete(SIZE);
    let mut seen = 0;
    while !slow.streams[&id].is_over() {
        slow.until(id, seconds(10), |response: &H3Response| response.pattern.len() > seen).unwrap();
        seen = slow.streams[&id].pattern.len();
        std::thread::sleep(ms(2));
    }
    slow.streams[&id].pattern.assert_complete(SIZE);
    usage.assert_grew_less_than(&rig.gateway, 12 * MIB);
}

/// Eight mebibytes each way in one exchange.
pub(crate) fn a_flood_each_way() {
    const SIZE: usize = 8 << 20;
    let rig = Rig::standard();
    rig.assert_serves("nothing");
    let usage = Usage::watch(&rig.gateway);
    let mut client = rig.client();
    let id = client.open("POST", "/stream-echo", &[], false).unwrap();
    for piece in pattern::bytes(SIZE).chunks(64 * 1024) {
        client.data(id, piece).unwrap();
    }
    client.end(id).unwrap();
    client.response(id).unwrap().pattern.assert_complete(SIZE as u64);
    usage.assert_grew_less_than(&rig.gateway, 10 * MIB);
    rig.origin.assert_clean();
}
