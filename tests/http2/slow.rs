//! Peers that open their windows wide and read more slowly than the other side sends: what was sent is not kept.

use crate::rig::{Cell, Rig, config, listener};
use std::time::{Duration, Instant};
use testkit::h2::{Event, frame, hpack, setting};
use testkit::pattern::Verifier;
use testkit::usage::anonymous;
use testkit::{Gateway, H2Backend, H2Client, Listener, Origin, Usage, Version, ms, pattern, seconds};

/// What is sent: ten times as much as may gather on the way.
const SIZE: u64 = 48 << 20;

/// What the gateway may need for it.
const MEMORY: u64 = 6 << 20;

/// The window of a stream, and what is added to that of a connection.
const WIDE: [(u16, u32); 1] = [(setting::INITIAL_WINDOW_SIZE, 0x7fff_ffff)];
const WIDER: u32 = 1 << 30;

/// How long a slow peer rests after each frame.
const REST: Duration = ms(1);

pub(crate) fn a_client_that_reads_slowly_costs_no_memory() {
    let rig = Rig::standard(Cell { front: Version::H2, back: Version::H1 });
    let mut client = H2Client::connect_narrow(rig.gateway.front(), &WIDE).unwrap().withhold();
    client.credit(0, WIDER).unwrap();
    let usage = Usage::watch(&rig.gateway);
    let stream = client.open("GET", &format!("/bytes/{SIZE}"), &[], true).unwrap();
    let started = Instant::now();
    while !client.streams[&stream].is_over() && started.elapsed() < seconds(30) {
        client.step(seconds(5)).unwrap();
        std::thread::sleep(REST);
    }
    client.streams[&stream].pattern.assert_complete(SIZE);
    usage.assert_grew_less_than(&rig.gateway, MEMORY);
}

pub(crate) fn a_backend_that_reads_slowly_costs_no_memory() {
    let backend = H2Backend::raw(|reader, _| {
        reader.wire.send(&[frame::settings(&WIDE), frame::window_update(0, WIDER)].concat())?;
        reader.wire.set_timeout(seconds(60));
        let mut upload = Verifier::default();
        loop {
            match reader.event()? {
                Event::Settings(_) => reader.wire.send(&frame::settings_ack())?,
                Event::Data { stream, bytes, end, .. } => {
                    upload.feed(&bytes);
                    if end {
                        upload.assert_complete(SIZE);
                        reader.wire.send(&frame::headers(
                            stream,
                            hpack::block(&[(":status", "200")]),
                            true,
                        ))?;
                    }
                    std::thread::sleep(REST);
                }
                _ => {}
            }
        }
    });
    let gateway = Gateway::start(config().listener(Listener::h2c().h2_backend(backend.address)));
    let mut client = H2Client::connect(gateway.front()).unwrap();
    let usage = Usage::watch(&gateway);
    let response = client.request("POST", "/", &[], &pattern::bytes(SIZE as usize)).unwrap();
    assert_eq!(response.status(), 200);
    usage.assert_grew_less_than(&gateway, MEMORY);
    backend.assert_clean();
}

/// Streams whose clients open no window hold little, whatever moves the bytes, and when they have gone their memory is the system's again.
pub(crate) fn streams_that_nobody_reads_hold_little_and_leave_nothing() {
    const STREAMS: u64 = 1000;
    let origin = Origin::standard(Version::H1, "one");
    let gateway = Gateway::start(config().runtime("workers", 1).listener(listener(&origin)));
    assert_eq!(gateway.get("/").status, 200);
    let before = anonymous(&gateway);
    let held = || anonymous(&gateway).saturating_sub(before);
    let mut clients = Vec::new();
    for _ in 0..4 {
        let closed = [(setting::INITIAL_WINDOW_SIZE, 0)];
        let mut client = H2Client::connect_with(gateway.front(), &closed).unwrap();
        client.credit(0, WIDER).unwrap();
        for _ in 0..STREAMS / 4 {
            client.open("GET", "/bytes/100000", &[], true).unwrap();
        }
        client
            .until("a head on each stream", seconds(20), |c| c.streams.values().all(|s| s.head.is_some()))
            .unwrap();
        clients.push(client);
    }
    let allowed = STREAMS * 9 * 1024;
    let fits = testkit::poll(seconds(10), || (held() < allowed).then_some(())).is_some();
    assert!(fits, "{} bytes for each stream", held() / STREAMS);
    assert!(clients.iter().all(|client| client.streams.values().all(|stream| !stream.is_over())));
    drop(clients);
    let allowed = 3 << 20;
    let fits = testkit::poll(seconds(15), || (held() < allowed).then_some(())).is_some();
    assert!(fits, "{} KiB are kept for nobody", held() / 1024);
}
