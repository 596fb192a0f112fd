//! Windows: what one side does not take, the other side does not lose.

use crate::rig::{BOTH, Cell, Rig, config, listener};
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use testkit::h2::backend::Manners;
use testkit::h2::{Event, code, frame, hpack, setting};
use testkit::{Gateway, H2Backend, H2Client, Listener, Origin, Usage, Version, ms, pattern, seconds};

const MIB: u64 = 1024 * 1024;

/// An origin whose `/endless` counts what could be sent, per request in the order of their numbers.
fn counting(back: Version) -> (Origin, Arc<Vec<AtomicU64>>) {
    let sent: Arc<Vec<AtomicU64>> = Arc::new((0..100).map(|_| AtomicU64::new(0)).collect());
    let counted = Arc::clone(&sent);
    let origin = Origin::start(back, move |exchange| {
        exchange.drain()?;
        let path = exchange.path();
        let Some(number) = path.strip_prefix("/endless/").and_then(|n| n.parse::<usize>().ok()) else {
            return exchange.respond(200, &[], b"small");
        };
        exchange.start(200, &[])?;
        testkit::standard::stream(64 * MIB, |piece| {
            // Parts well below a stream's window, so that a stream whose window is full has counted most of it.
            for part in piece.chunks(4096) {
                exchange.data(part)?;
                counted[number].fetch_add(part.len() as u64, Ordering::SeqCst);
            }
            Ok(())
        })?;
        exchange.finish(&[])
    });
    (origin, sent)
}

/// Waits until nothing more is taken from the backend, and says how much was.
fn standstill(sent: &[AtomicU64]) -> u64 {
    testkit::standstill("the backend stands still", || sent.iter().map(|n| n.load(Ordering::SeqCst)).sum())
}

pub(crate) fn a_stalled_stream_stalls_only_itself() {
    for back in BOTH {
        let (origin, sent) = counting(back);
        let rig = Rig::on(Cell { front: Version::H2, back }, origin, |listener| listener);
        let usage = Usage::watch(&rig.gateway);
        let mut client = rig.h2().withhold();
        client.credit(0, 1 << 28).unwrap();
        let stalled = client.open("GET", "/endless/0", &[], true).unwrap();
        client
            .until("the first window", seconds(5), |c| c.streams[&stalled].pattern.len() == 65_535)
            .unwrap();
        let taken = standstill(&sent);
        // Besides windows and buffers of ours there are the kernel's, towards an HTTP/1.1 backend.
        assert!(taken < 12 * MIB, "{back:?}: {} KiB were taken while nobody reads", taken / 1024);
        for round in 0..3 {
            let streams: Vec<u32> = (0..20).map(|_| client.open("GET", "/", &[], true).unwrap()).collect();
            for stream in streams {
                let response = client.response(stream).unwrap_or_else(|e| panic!("{back:?} {round}: {e}"));
                assert_eq!(response.text(), "small", "{back:?}");
            }
        }
        assert_eq!(client.streams[&stalled].pattern.len(), 65_535, "{back:?}: beyond the window");
        // What opens the window again moves the backend again, by about as much.
        client.credit(stalled, 1 << 20).unwrap();
        client
            .until("the second window", seconds(5), |c| {
                c.streams[&stalled].pattern.len() == 65_535 + (1 << 20)
            })
            .unwrap_or_else(|e| panic!("{back:?}: {e}"));
        usage.assert_grew_less_than(&rig.gateway, 6 * MIB);
        client.credit(stalled, 1 << 27).unwrap();
        client.response(stalled).unwrap().pattern.assert_complete(64 * MIB);
    }
}

pub(crate) fn what_a_connection_buffers_is_capped() {
    for back in BOTH {
        let (origin, sent) = counting(back);
        let rig = Rig::on(Cell { front: Version::H2, back }, origin, |listener| listener);
        let mut client = rig.h2().withhold();
        let usage = Usage::watch(&rig.gateway);
        for number in 0..100 {
            client.open("GET", &format!("/endless/{number}"), &[], true).unwrap();
        }
        rig.origin.wait_requests(100);
        client.read_for(seconds(1));
        standstill(&sent);
        assert_eq!(client.streams.values().map(|s| s.pattern.len()).sum::<u64>(), 65_535, "{back:?}");
        usage.assert_grew_less_than(&rig.gateway, 24 * MIB);
    }
}

/// The connection's window is shared fairly enough that nobody starves.
pub(crate) fn all_streams_get_their_share() {
    for back in BOTH {
        let rig = Rig::standard(Cell { front: Version::H2, back });
        let mut client = rig.h2();
        let streams: Vec<u32> =
            (0..10).map(|_| client.open("GET", "/bytes/3000000", &[], true).unwrap()).collect();
        client.response(streams[0]).unwrap();
        for stream in &streams[1..] {
            let seen = client.streams[stream].pattern.len();
            assert!(seen > 300_000, "{back:?}: {seen} of 3000000 bytes when the first stream ended");
        }
        for stream in streams {
            client.response(stream).unwrap().pattern.assert_complete(3_000_000);
        }
    }
}

pub(crate) fn initial_window_size_changes_in_mid_stream() {
    for back in BOTH {
        let rig = Rig::standard(Cell { front: Version::H2, back });
        let small = [(setting::INITIAL_WINDOW_SIZE, 1000)];
        let mut client = H2Client::connect_with(rig.gateway.front(), &small).unwrap().withhold();
        let stream = client.open("GET", "/bytes/60000", &[], true).unwrap();
        let len = |c: &H2Client| c.streams[&stream].pattern.len();
        client.until("the first window", seconds(5), |c| len(c) == 1000).unwrap();
        // Up: the stream that exists gains the difference.
        client.send_settings(&[(setting::INITIAL_WINDOW_SIZE, 5000)]).unwrap();
        client
            .until("the larger window", seconds(5), |c| len(c) == 5000)
            .unwrap_or_else(|e| panic!("{back:?}: {e}"));
        // Down: its window becomes negative, and credit first fills the hole.
        client.send_settings(&[(setting::INITIAL_WINDOW_SIZE, 2000)]).unwrap();
        client.until("the acknowledgement", seconds(5), |c| c.settings_acks == 3).unwrap();
        client.credit(stream, 3000).unwrap();
        client.read_for(ms(300));
        assert_eq!(len(&client), 5000, "{back:?}: sent into a negative window");
        client.credit(stream, 1).unwrap();
        client.until("one byte", seconds(5), |c| len(c) == 5001).unwrap_or_else(|e| panic!("{back:?}: {e}"));
        client.credit(stream, 60_000).unwrap();
        client.response(stream).unwrap().pattern.assert_complete(60_000);
        // Beyond 2^31-1 is FLOW_CONTROL_ERROR.
        client.send(frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 0x8000_0000)])).unwrap();
        client.closed(seconds(5)).unwrap();
        assert_eq!(client.goaways.last().map(|g| g.code), Some(code::FLOW_CONTROL_ERROR), "{back:?}");
    }
}

/// The same from a backend, in an upload.
pub(crate) fn backend_changes_its_windows_in_mid_stream() {
    let manners = Manners {
        withholds: true,
        settings: vec![(setting::INITIAL_WINDOW_SIZE, 1000)],
        ..Manners::default()
    };
    let backend = H2Backend::with(manners, |call| {
        let arrived = |call: &mut testkit::h2::Call, wanted: u64| {
            testkit::poll(seconds(5), || (call.request().pattern.len() >= wanted).then_some(()));
            std::thread::sleep(ms(200));
            call.request().pattern.len()
        };
        if call.request().method() == "GET" {
            return call.respond(200, &[], b"ready");
        }
        let first = arrived(call, 1000);
        call.raw(frame::settings(&[(setting::INITIAL_WINDOW_SIZE, 5000)]))?;
        let second = arrived(call, 5000);
        call.credit(call.stream, 100_000)?;
        let all = call.body()?.pattern.len();
        call.respond(200, &[], format!("{first} {second} {all}").as_bytes())
    });
    let gateway = Gateway::start(config().listener(Listener::h2c().h2_backend(backend.address)));
    let mut client = H2Client::connect(gateway.front()).unwrap();
    // One request makes sure that the gateway has read the settings.
    assert_eq!(client.get("/").unwrap().text(), "ready");
    let response = client.request("POST", "/", &[], &pattern::bytes(60_000)).unwrap();
    assert_eq!(response.text(), "1000 5000 60000");
    backend.assert_clean();
}

/// A backend that does not read an upload stops its client, and nobody else.
pub(crate) fn a_stalled_upload_stalls_only_itself() {
    for back in BOTH {
        let origin = Origin::start(back, |exchange| {
            if exchange.path() == "/stall" {
                std::thread::sleep(seconds(3));
            }
            let seen = exchange.drain()?;
            exchange.respond(200, &[], seen.len().to_string().as_bytes())
        });
        let rig = Rig::on(Cell { front: Version::H2, back }, origin, |listener| listener);
        let usage = Usage::watch(&rig.gateway);
        let mut client = rig.h2();
        let stalled = client.open("POST", "/stall", &[], false).unwrap();
        let body = pattern::bytes(16 << 20);
        let mut sent = 0;
        // As much as the windows allow; an HTTP/1.1 backend's kernel takes some of it.
        let start = std::time::Instant::now();
        while start.elapsed() < seconds(1) && sent < body.len() {
            let room =
                client.send_windows.stream(stalled).min(client.send_windows.connection()).clamp(0, 16_384);
            let room = (room as usize).min(body.len() - sent);
            if room == 0 {
                client.pump(ms(50));
                continue;
            }
            client.data(stalled, &body[sent..sent + room], false).unwrap();
            sent += room;
        }
        assert!(sent < 12 << 20, "{back:?}: {sent} bytes were taken for a backend that does not read");
        for _ in 0..20 {
            let response = client.request("POST", "/", &[], &pattern::bytes(20_000));
            assert_eq!(response.unwrap_or_else(|e| panic!("{back:?}: {e}")).text(), "20000", "{back:?}");
        }
        usage.assert_grew_less_than(&rig.gateway, 6 * MIB);
        client.data(stalled, &body[sent..], true).unwrap_or_else(|e| panic!("{back:?}: {e}"));
        assert_eq!(client.response(stalled).unwrap().text(), (16 << 20).to_string(), "{back:?}");
    }
}

/// The windows of the configuration are those that the client gets to know.
pub(crate) fn windows_follow_the_configuration() {
    // It reads nothing for a while: once what lies between is full, the window stays shut.
    let origin = Origin::start(Version::H1, |_| {
        std::thread::sleep(seconds(5));
        Err(testkit::Fault::Closed)
    });
    let keys = listener(&origin)
        .h2("initial_stream_window_size", 100_000)
        .h2("initial_connection_window_size", 300_000)
        .h2("max_concurrent_streams", 17);
    let gateway = Gateway::start(config().listener(keys));
    let mut client = H2Client::connect(gateway.front()).unwrap();
    client.pump(ms(200));
    assert_eq!(client.settings.get(&setting::INITIAL_WINDOW_SIZE), Some(&100_000));
    assert_eq!(client.settings.get(&setting::MAX_CONCURRENT_STREAMS), Some(&17));
    assert_eq!(client.send_windows.connection(), 300_000);
    let stream = client.open("POST", "/", &[], false).unwrap();
    let piece = frame::data(stream, [0; 10_000], false);
    client.send_anyway(piece.repeat(2000));
    client.until("an end", seconds(5), |c| c.streams[&stream].is_over() || c.gone.is_some()).unwrap();
    let blamed = client.streams[&stream].reset == Some(code::FLOW_CONTROL_ERROR)
        || client.goaways.iter().any(|g| g.code == code::FLOW_CONTROL_ERROR);
    assert!(blamed, "{:?} {:?}", client.streams[&stream].reset, client.goaways);
}

/// A client that has not heard of a smaller window may send as much as before (RFC 9113 §6.9.3).
pub(crate) fn windows_bind_only_who_knows_of_them() {
    for window in [1024, 16_384] {
        let origin = Origin::standard(Version::H1, "one");
        let keys = listener(&origin).h2("initial_stream_window_size", window);
        let gateway = Gateway::start(config().listener(keys));
        let mut client = H2Client::silent(TcpStream::connect(gateway.front()).unwrap());
        client.send(frame::PREFACE).unwrap();
        client.send_settings(&[]).unwrap();
        let stream = client.open("POST", "/upload", &[], false).unwrap();
        let pieces = pattern::bytes(65_535);
        pieces.chunks(16_384).for_each(|piece| client.send(frame::data(stream, piece, false)).unwrap());
        client.send(frame::data(stream, [], true)).unwrap();
        assert_eq!(client.response(stream).unwrap().text(), "65535 right", "{window}");
        // It knows now.
        assert_eq!(client.settings.get(&setting::INITIAL_WINDOW_SIZE), Some(&window));
        let body = pattern::bytes(100_000);
        assert_eq!(client.request("POST", "/upload", &[], &body).unwrap().text(), "100000 right", "{window}");
    }
}

/// What is refused costs the connection nothing that lasts.
pub(crate) fn refused_uploads_give_their_window_back() {
    let origin = Origin::standard(Version::H1, "one");
    let gateway = Gateway::start(config().listener(listener(&origin).http("max_request_body_bytes", 1000)));
    let mut client = H2Client::connect(gateway.front()).unwrap();
    // Twice the connection's window of a mebibyte.
    for number in 0..40 {
        let stream = client.open("POST", "/upload", &[], false).unwrap();
        client.data(stream, &[0; 60_000][..], true).unwrap();
        assert_eq!(client.response(stream).unwrap().status(), 413, "upload {number}");
    }
}

/// Clients that do not read leave the others their share of the backend connection that all use.
pub(crate) fn readers_are_served_beside_those_that_do_not_read() {
    let rig = Rig::standard(Cell { front: Version::H1, back: Version::H2 });
    let mut silent: Vec<_> = (0..60).map(|_| rig.gateway.client()).collect();
    for client in &mut silent {
        client.send("GET /bytes/20000000 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    }
    rig.origin.wait_requests(60);
    std::thread::sleep(seconds(1));
    for _ in 0..4 {
        assert_eq!(rig.front().get("/").unwrap().text(), "one");
    }
}

/// A refusal waits for the client's windows as any other answer does.
pub(crate) fn refusals_wait_for_the_windows() {
    let origin = Origin::standard(Version::H1, "one");
    let listener = listener(&origin).http("max_request_body_bytes", 1000);
    let gateway = Gateway::start(config().runtime("header_underscore_policy", "reject").listener(listener));
    let closed = [(setting::INITIAL_WINDOW_SIZE, 0)];
    let mut client = H2Client::connect_with(gateway.front(), &closed).unwrap();
    for (method, field, status) in [
        ("GET", ("under_score", "1"), 400),
        ("POST", ("under_score", "1"), 400),
        // The length that is announced decides, before a byte of the body.
        ("POST", ("content-length", "2000"), 413),
    ] {
        let stream = client.open(method, "/upload", &[field], method == "GET").unwrap();
        let head = client.head(stream).unwrap();
        assert_eq!(head.get(":status"), Some(format!("{status}")), "{method}");
        client.read_for(ms(300));
        let waiting = &client.streams[&stream];
        assert!(!waiting.is_over() && waiting.body.is_empty(), "{method} {status}: {waiting:?}");
        client.credit(stream, 10).unwrap();
        client.until("ten bytes", seconds(5), |c| c.streams[&stream].body.len() == 10).unwrap();
        client.credit(stream, 1000).unwrap();
        let answer = client.response(stream).unwrap_or_else(|e| panic!("{method} {status}: {e}"));
        assert!(answer.text().starts_with(&status.to_string()), "{method} {status}: {}", answer.text());
        let length = answer.head.as_ref().and_then(|head| head.get("content-length"));
        assert_eq!(length, Some(answer.body.len().to_string()), "{method} {status}");
    }
    assert_eq!(origin.request_count(), 0);
}

/// While much output waits nothing is read. That ends with the output, also where all of it leaves in one write and the client, which has
/// sent something meanwhile, waits for an answer to it.
pub(crate) fn reading_goes_on_when_the_output_has_left() {
    const STREAMS: usize = 240;
    // Answers to all at once: their heads, which no window holds back, are more than may wait.
    let backend = H2Backend::raw(move |reader, _| {
        reader.wire.send(&frame::settings(&[(setting::MAX_CONCURRENT_STREAMS, 1000)]))?;
        reader.wire.set_timeout(seconds(60));
        // To the backend the large field is a reference to its table; to the client it is written out.
        let large =
            [hpack::block(&[(":status", "200")]), hpack::incremental("etag", "v".repeat(2000))].concat();
        let block = [hpack::block(&[(":status", "200")]), hpack::indexed(hpack::FIRST_DYNAMIC)].concat();
        let answer = |stream: u32| {
            [frame::headers(stream, &block, false), frame::data(stream, [b'z'; 201], true)].concat()
        };
        let mut held = Vec::new();
        loop {
            match reader.event()? {
                Event::Settings(_) => reader.wire.send(&frame::settings_ack())?,
                Event::Headers { stream: 1, .. } => reader.wire.send(&frame::headers(1, &large, true))?,
                Event::Headers { stream, .. } => {
                    held.push(stream);
                    if held.len() == STREAMS {
                        let answers: Vec<u8> = held.drain(..).flat_map(answer).collect();
                        reader.wire.send(&answers)?;
                    }
                }
                _ => {}
            }
        }
    });
    let listener = Listener::h2c().h2_backend(backend.address);
    let gateway = Gateway::start(config().runtime("workers", 1).listener(listener));
    assert_eq!(gateway.get("/").status, 200);
    for round in 0..3 {
        let small = [(setting::INITIAL_WINDOW_SIZE, 200)];
        let mut client = H2Client::connect_with(gateway.front(), &small).unwrap().withhold();
        client.credit(0, 1 << 20).unwrap();
        let mut streams: Vec<u32> =
            (1..STREAMS).map(|_| client.open("GET", "/held", &[], true).unwrap()).collect();
        // It goes on to send, so that something arrives while the output waits.
        let mut writer = client.reader.wire.stream().try_clone().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let sender = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                writer.write_all(&frame::window_update(0, 1)).unwrap();
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        streams.push(client.open("GET", "/held", &[], true).unwrap());
        let first = |c: &H2Client| streams.iter().all(|stream| c.streams[stream].body.len() == 200);
        let sent = client.until("the first window of each", seconds(10), first);
        stop.store(true, Ordering::Relaxed);
        sender.join().unwrap();
        sent.unwrap_or_else(|e| panic!("round {round}: {e}"));
        client.send(frame::ping([7; 8])).unwrap();
        // Long before a ping of the gateway's own would wake it.
        let answered = client.until("an answer to PING", seconds(5), |c| !c.pongs.is_empty());
        answered.unwrap_or_else(|e| panic!("round {round}: {e}"));
        streams.iter().for_each(|stream| client.credit(*stream, 200).unwrap());
        for stream in streams {
            assert_eq!(client.response(stream).unwrap().body.len(), 201, "round {round}");
        }
    }
}
