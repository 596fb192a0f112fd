//! Peers that open their windows wide and read more slowly than the other side sends: what was sent is not kept.

use crate::rig::{Cell, Rig, config};
use std::time::{Duration, Instant};
use testkit::h2::{Event, frame, hpack, setting};
use testkit::pattern::Verifier;
use testkit::{Gateway, H2Backend, H2Client, Listener, Usage, Version, ms, pattern, seconds};

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
