//! What the streams of many clients do to the backend connections that they share, and what they do not.

use crate::rig::config;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use testkit::h2::{Event, code, frame, hpack, setting};
use testkit::{Gateway, H2Backend, H2Client, Listener, eventually, ms, seconds};

fn ok(stream: u32) -> Vec<u8> {
    let head = frame::headers(stream, hpack::block(&[(":status", "200")]), false);
    [head, frame::data(stream, b"sixteen bytes or more", true)].concat()
}

fn gateway(backend: &H2Backend) -> Gateway {
    // Connections are counted, and each worker has its own.
    Gateway::start(config().runtime("workers", 1).listener(Listener::h2c().h2_backend(backend.address)))
}

/// What is answered after a client has cancelled it is no fault of the backend's, however often that is. Its connection, and the
/// requests of others on it, go on.
pub(crate) fn what_clients_cancel_is_not_charged_to_the_backend() {
    let (opened, reset) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (opened_here, reset_here) = (Arc::clone(&opened), Arc::clone(&reset));
    let backend = H2Backend::raw(move |reader, _| {
        let mut cancelled = Vec::new();
        let mut victim = None;
        reader.wire.send(&frame::settings(&[(setting::MAX_CONCURRENT_STREAMS, 1000)]))?;
        reader.wire.set_timeout(seconds(60));
        loop {
            match reader.event()? {
                Event::Settings(_) => reader.wire.send(&frame::settings_ack())?,
                Event::Ping(data) => reader.wire.send(&frame::pong(data))?,
                Event::Headers { stream, headers, .. } => match headers.get(":path").as_deref() {
                    Some("/cancelled") => {
                        cancelled.push(stream);
                        opened_here.fetch_add(1, Ordering::SeqCst);
                    }
                    Some("/victim") => victim = Some(stream),
                    // Everything that was cancelled is answered at last.
                    _ => {
                        let late = cancelled.drain(..).flat_map(ok).collect::<Vec<u8>>();
                        reader.wire.send(&late)?;
                        reader.wire.send(&ok(stream))?;
                        reader.wire.send(&victim.take().map(ok).unwrap_or_default())?;
                    }
                },
                Event::Reset { .. } => {
                    reset_here.fetch_add(1, Ordering::SeqCst);
                }
                _ => {}
            }
        }
    });
    let gateway = gateway(&backend);
    let mut other = H2Client::connect(gateway.front()).unwrap();
    let victim = other.open("POST", "/victim", &[], true).unwrap();
    // One client may not cancel as many in so short a time.
    for client in 1..=32 {
        let mut canceller = H2Client::connect(gateway.front()).unwrap();
        let streams: Vec<u32> =
            (0..60).map(|_| canceller.open("GET", "/cancelled", &[], true).unwrap()).collect();
        eventually("they are at the backend", seconds(5), || opened.load(Ordering::SeqCst) == client * 60);
        streams.iter().for_each(|stream| canceller.reset(*stream, code::CANCEL).unwrap());
        eventually("they are given up", seconds(5), || reset.load(Ordering::SeqCst) == client * 60);
        assert_eq!(canceller.goaways, []);
    }
    let mut client = H2Client::connect(gateway.front()).unwrap();
    assert_eq!(client.get("/").unwrap().status(), 200);
    let answer = other.response(victim).unwrap_or_else(|e| panic!("beside what was cancelled: {e}"));
    assert_eq!(answer.status(), 200, "beside what was cancelled");
    assert_eq!(client.get("/").unwrap().status(), 200);
    assert_eq!(backend.connections(), 1);
    backend.assert_clean();
}

/// A backend that lets an idle connection go after one request says nothing of what it would take of the next.
pub(crate) fn a_goaway_on_an_idle_connection_teaches_nothing() {
    let backend = H2Backend::start(|call| {
        if call.connection() == 1 {
            call.respond(200, &[], b"one")?;
            return call.goaway(call.stream, code::NO_ERROR);
        }
        call.pause(ms(300));
        call.respond(200, &[], b"one")
    });
    let gateway = gateway(&backend);
    let mut client = H2Client::connect(gateway.front()).unwrap();
    assert_eq!(client.get("/").unwrap().status(), 200);
    eventually("the idle connection ends", seconds(5), || backend.open_connections() == 0);
    let streams: Vec<u32> = (0..60).map(|_| client.open("GET", "/", &[], true).unwrap()).collect();
    for stream in streams {
        assert_eq!(client.response(stream).unwrap().status(), 200);
    }
    assert_eq!(backend.connections(), 2, "60 requests at once");
    backend.assert_clean();
}

/// A head beyond our limits is the fault of its stream alone: the block is decoded all the same, for the sake of the connection's table,
/// until it is larger than a hard bound.
pub(crate) fn a_head_beyond_the_limit_costs_only_its_stream() {
    let backend = H2Backend::raw(move |reader, _| {
        reader.wire.send(&frame::settings(&[]))?;
        reader.wire.set_timeout(seconds(60));
        let status = || hpack::block(&[(":status", "200")]);
        // What follows refers to a field that the block adds to the table after all that is too large.
        let with_large = |large: Vec<u8>| [status(), large, hpack::incremental("x-kept", "yes")].concat();
        let short = [status(), hpack::indexed(hpack::FIRST_DYNAMIC)].concat();
        let mut held = None;
        loop {
            match reader.event()? {
                Event::Settings(_) => reader.wire.send(&frame::settings_ack())?,
                Event::Headers { stream, headers, .. } => {
                    let large = match headers.get(":path").as_deref() {
                        Some("/one-value") => hpack::literal("x-large", "v".repeat(100_000)),
                        Some("/many-fields") => hpack::literal("x-large", "v".repeat(1000)).repeat(100),
                        Some("/many-references") => {
                            let once = hpack::incremental("x-large", "v".repeat(1000));
                            [once, hpack::indexed(hpack::FIRST_DYNAMIC).repeat(10_000)].concat()
                        }
                        Some("/coded") => {
                            // The letter `a` 300000 times, in five bits each: fewer bytes on the wire than the bound has.
                            let code = [0x18, 0xc6, 0x31, 0x8c, 0x63].repeat(300_000 / 8);
                            let name = [hpack::integer(0, 4, 0), hpack::integer(0, 7, 1), b"a".to_vec()];
                            [name.concat(), hpack::integer(0x80, 7, code.len()), code].concat()
                        }
                        Some("/trailers") => {
                            reader.wire.send(&frame::headers(stream, status(), false))?;
                            reader.wire.send(&frame::data(stream, b"sixteen bytes or more", false))?;
                            let block = [
                                hpack::literal("x-large", "v".repeat(100_000)),
                                hpack::incremental("x-kept", "yes"),
                            ];
                            reader.wire.send(&frame::headers_in_pieces(
                                stream,
                                &block.concat(),
                                true,
                                16_384,
                            ))?;
                            continue;
                        }
                        Some("/beyond-the-bound") => hpack::literal("x-large", "v".repeat(300_000)),
                        Some("/held") => {
                            held = Some(stream);
                            continue;
                        }
                        _ => {
                            reader.wire.send(&frame::headers(stream, &short, true))?;
                            reader.wire.send(&held.take().map(ok).unwrap_or_default())?;
                            continue;
                        }
                    };
                    let block = with_large(large);
                    reader.wire.send(&frame::headers_in_pieces(stream, &block, true, 16_384))?;
                }
                _ => {}
            }
        }
    });
    let gateway = gateway(&backend);
    let mut client = H2Client::connect(gateway.front()).unwrap();
    for path in ["/one-value", "/many-fields", "/many-references", "/coded", "/trailers"] {
        let held = client.open("GET", "/held", &[], true).unwrap();
        let stream = client.open("GET", path, &[], true).unwrap();
        let answer = client.over(stream).unwrap();
        if path == "/trailers" {
            // What has begun cannot be taken back, and is not told to be whole.
            assert!(answer.status() == 200 && answer.reset.is_some() && !answer.ended, "{path}: {answer:?}");
        } else {
            assert_eq!(answer.status(), 502, "{path}");
        }
        let next = client.get("/").unwrap();
        assert_eq!(next.head.and_then(|head| head.get("x-kept")).as_deref(), Some("yes"), "{path}");
        assert_eq!(client.response(held).unwrap().status(), 200, "beside {path}");
    }
    assert_eq!(gateway.metric("upstream_rejected_total", &[("reason", "head_too_large")]), 4.0);
    assert_eq!(backend.connections(), 1);
    assert_eq!(client.get("/beyond-the-bound").unwrap().status(), 502);
    eventually("the connection ends", seconds(5), || backend.open_connections() == 0);
}

/// Where the window of a whole connection is closed, a request with a body would wait: it goes where there is room.
pub(crate) fn connections_with_an_open_window_come_first() {
    let given_up = Arc::new(AtomicUsize::new(0));
    let given_up_here = Arc::clone(&given_up);
    // Takes two requests at a time, and gives back no window on its first connection.
    let backend = H2Backend::raw(move |reader, number| {
        reader.wire.send(&frame::settings(&[(setting::MAX_CONCURRENT_STREAMS, 2)]))?;
        reader.wire.set_timeout(seconds(60));
        loop {
            match reader.event()? {
                Event::Settings(_) => reader.wire.send(&frame::settings_ack())?,
                Event::Headers { stream, end, headers, .. } => {
                    let held = headers.get(":path").as_deref() == Some("/held");
                    if end && !held {
                        reader.wire.send(&ok(stream))?;
                    }
                }
                Event::Data { stream, flow, end, .. } if number > 1 && flow > 0 => {
                    reader.wire.send(&frame::window_update(0, flow as u32))?;
                    if end {
                        reader.wire.send(&ok(stream))?;
                    }
                }
                Event::Reset { .. } => {
                    given_up_here.fetch_add(1, Ordering::SeqCst);
                }
                _ => {}
            }
        }
    });
    let gateway = gateway(&backend);
    let mut client = H2Client::connect(gateway.front()).unwrap();
    // The backend's SETTINGS have come by the end of this.
    assert_eq!(client.get("/").unwrap().status(), 200);
    let stalled = client.open("POST", "/stalled", &[], false).unwrap();
    client.data(stalled, &[0; 65_535], false).unwrap();
    let held = client.open("GET", "/held", &[], true).unwrap();
    assert_eq!(client.request("POST", "/second", &[], b"body").unwrap().status(), 200);
    assert_eq!(backend.connections(), 2);
    // The first connection has room for a stream again, and none for a body.
    client.reset(held, code::CANCEL).unwrap();
    eventually("the stream is given up", seconds(5), || given_up.load(Ordering::SeqCst) == 1);
    for number in 0..3 {
        let answer = client.request("POST", "/next", &[], b"body").unwrap();
        assert_eq!(answer.status(), 200, "request {number}");
    }
    assert_eq!(backend.connections(), 2);
    // Nobody waits where there is no other room: what has no body passes there too.
    let held = client.open("GET", "/held", &[], true).unwrap();
    let other = client.open("GET", "/held", &[], true).unwrap();
    assert_eq!(client.get("/").unwrap().status(), 200);
    assert!(!client.streams[&held].is_over() && !client.streams[&other].is_over());
    assert_eq!(backend.connections(), 2);
}
