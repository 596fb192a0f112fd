//! Backends that break HTTP/2, flood, lie, or cannot make up their minds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use testkit::h2::{Call, Event, Reader, code, frame, hpack, kind, setting};
use testkit::{
    Client, Config, Fault, Front, Gateway, H2Backend, H2Client, Listener, Usage, Version, pattern, seconds,
};

const BOTH: [Version; 2] = [Version::H1, Version::H2];
const MIB: u64 = 1024 * 1024;

/// The cap on requests of a connection is not what is tried here.
fn config() -> Config {
    Config::new().runtime("max_keepalive_requests", 0)
}

fn gateway(backends: &[&H2Backend]) -> Gateway {
    let listener = backends.iter().fold(Listener::h2c(), |listener, b| listener.h2_backend(b.address));
    Gateway::start(config().listener(listener))
}

/// Greets, and answers each request with `answer`; the pattern of a server that lies in frames.
fn lying(
    settings: &[(u16, u32)],
    answer: impl Fn(&mut Reader, u32) -> Result<(), Fault> + Send + Sync + 'static,
) -> H2Backend {
    let greeting = frame::settings(settings);
    H2Backend::raw(move |reader, _| {
        reader.wire.send(&greeting)?;
        reader.wire.set_timeout(seconds(30));
        loop {
            match reader.event()? {
                Event::Settings(_) => reader.wire.send(&frame::settings_ack())?,
                Event::Ping(data) => reader.wire.send(&frame::pong(data))?,
                Event::Headers { stream, .. } => answer(reader, stream)?,
                _ => {}
            }
        }
    })
}

fn ok_head(stream: u32, end: bool) -> Vec<u8> {
    frame::headers(stream, hpack::block(&[(":status", "200")]), end)
}

/// Bears with the backend as `bear` says, and drops its connection.
fn survive(case: &str, bad: &H2Backend) {
    bear(case, bad);
    testkit::eventually(&format!("{case}: the connection is dropped"), seconds(10), || {
        bad.open_connections() == 0
    });
}

/// Each client gets an error or a visible break, in time; a good backend's client beside it is served; memory stays small.
fn bear(case: &str, bad: &H2Backend) {
    let good = H2Backend::start(|call| call.respond(200, &[], b"good"));
    let second = Listener::h2c().h2_backend(good.address);
    let beside = second.address;
    let first = Listener::h2c().h2_backend(bad.address);
    let gateway = Gateway::start(config().listener(first).listener(second));
    let mut witness = H2Client::connect(beside).unwrap();
    assert_eq!(witness.get("/").unwrap().status(), 200);
    let usage = Usage::watch(&gateway);
    for front in BOTH {
        for round in 0..3 {
            let mut client = Front::connect(front, gateway.front()).unwrap();
            match client.get("/") {
                Ok(answer) => {
                    assert!([502, 504].contains(&answer.status), "{case}, {front:?}: {}", answer.status);
                }
                // A head went out before the backend showed what it is.
                Err(Fault::Reset | Fault::Truncated(_) | Fault::Closed) => {}
                Err(other) => panic!("{case}, {front:?}, round {round}: {other}"),
            }
            assert_eq!(witness.get("/").unwrap().text(), "good", "{case}: beside it");
        }
    }
    let spent = usage.so_far(&gateway);
    assert!(spent.grown < 24 * MIB, "{case}: memory grew by {} KiB", spent.grown / 1024);
    assert!(spent.processor < seconds(8), "{case}: {:?} of processor time", spent.processor);
}

pub(crate) fn h2_13_backend_that_pushes() {
    let block = || {
        hpack::block(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/pushed")])
    };
    let pushing = lying(&[], move |reader, stream| {
        reader.wire.send(&frame::push_promise(stream, 2, &block()))?;
        reader.wire.send(&[ok_head(2, false), frame::data(2, b"pushed", true)].concat())?;
        reader.wire.send(&[ok_head(stream, false), frame::data(stream, b"asked", true)].concat())
    });
    survive("push", &pushing);
}

pub(crate) fn h2_13_backend_that_lies_in_settings() {
    let lies: [(&str, &[(u16, u32)]); 5] = [
        ("INITIAL_WINDOW_SIZE beyond 2^31-1", &[(setting::INITIAL_WINDOW_SIZE, 0x8000_0000)]),
        ("MAX_FRAME_SIZE of 1", &[(setting::MAX_FRAME_SIZE, 1)]),
        ("MAX_FRAME_SIZE of 2^24", &[(setting::MAX_FRAME_SIZE, 1 << 24)]),
        ("ENABLE_PUSH of 2", &[(setting::ENABLE_PUSH, 2)]),
        ("ENABLE_PUSH of 1, from a server", &[(setting::ENABLE_PUSH, 1)]),
    ];
    for (case, settings) in lies {
        let backend = lying(settings, |_, _| Ok(()));
        survive(case, &backend);
    }
    // Huge but lawful: nobody may take it for an order to allocate.
    let huge = [
        (setting::HEADER_TABLE_SIZE, u32::MAX),
        (setting::MAX_CONCURRENT_STREAMS, u32::MAX),
        (setting::INITIAL_WINDOW_SIZE, 0x7fff_ffff),
        (setting::MAX_FRAME_SIZE, 0xff_ffff),
        (setting::MAX_HEADER_LIST_SIZE, u32::MAX),
        (0xabcd, 7),
    ];
    let backend = lying(&huge, |reader, stream| {
        reader.wire.send(&[ok_head(stream, false), frame::data(stream, b"fine", true)].concat())
    });
    let gateway = gateway(&[&backend]);
    let usage = Usage::watch(&gateway);
    let mut client = H2Client::connect(gateway.front()).unwrap();
    for round in 0..50 {
        let value = format!("{round}").repeat(500);
        assert_eq!(client.request("GET", "/", &[("x-long", &value)], b"").unwrap().text(), "fine");
    }
    usage.assert_grew_less_than(&gateway, 16 * MIB);
}

/// A window of nothing: the upload waits, and neither grows nor spins; what carries no content passes.
pub(crate) fn h2_13_backend_that_gives_no_window() {
    let backend = lying(&[(setting::INITIAL_WINDOW_SIZE, 0)], |_, _| Ok(()));
    let listener = Listener::h2c()
        .h2_backend(backend.address)
        .http("write_timeout_ms", 1500)
        .http("body_timeout_ms", 1500);
    let gateway = Gateway::start(config().listener(listener.http("head_timeout_ms", 1500)));
    let usage = Usage::watch(&gateway);
    let mut client = H2Client::connect(gateway.front()).unwrap();
    let streams: Vec<u32> = (0..20)
        .map(|_| {
            let stream = client.open("POST", "/", &[], false).unwrap();
            let room = client.send_windows.room(stream);
            client.data(stream, &pattern::bytes(room.min(60_000)), false).unwrap();
            stream
        })
        .collect();
    for stream in streams {
        let outcome = client.over(stream).unwrap();
        assert!([0, 408, 502, 504].contains(&outcome.status()), "{}", outcome.status());
    }
    let spent = usage.so_far(&gateway);
    assert!(spent.grown < 16 * MIB && spent.processor < seconds(2), "{spent:?}");
}

pub(crate) fn h2_13_backend_floods() {
    fn flood(unit: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static, headed: bool) -> H2Backend {
        lying(&[], move |reader, stream| {
            if headed {
                reader.wire.send(&ok_head(stream, false))?;
            }
            let batch = unit(stream).repeat(1000);
            (0..200).try_for_each(|_| reader.wire.send(&batch))
        })
    }
    survive("200000 empty DATA", &flood(|s| frame::data(s, b"", false), true));
    survive("200000 DATA of nothing but padding", &flood(|s| frame::padded_data(s, b"", 10, false), true));
    survive("200000 PING", &flood(|_| frame::ping([0; 8]), false));
    survive("200000 SETTINGS", &flood(|_| frame::settings(&[]), false));
    survive("200000 PRIORITY", &flood(|s| frame::priority(s, 0), false));
    survive("200000 WINDOW_UPDATE", &flood(|s| frame::window_update(s, 1), false));
    survive("200000 unknown frames", &flood(|_| frame::frame(0xbb, 0, 0, []), false));
    let interim = |s| frame::headers(s, hpack::block(&[(":status", "103"), ("link", "</a>")]), false);
    survive("200000 interim responses", &flood(interim, false));
}

/// A response in a hundred thousand frames of one byte each is slow and ugly, and may be refused, but never costs memory.
pub(crate) fn h2_13_tiny_frames() {
    let backend = H2Backend::start(|call: &mut Call| {
        call.head(200, &[], false)?;
        let body = pattern::bytes(100_000);
        for piece in body.chunks(1) {
            call.data(piece, false)?;
        }
        call.data(&[], true)
    });
    let gateway = gateway(&[&backend]);
    let usage = Usage::watch(&gateway);
    for front in BOTH {
        let mut client = Front::connect(front, gateway.front()).unwrap();
        if let Ok(answer) = client.get("/") {
            assert!(answer.status == 502 || answer.status == 200, "{}", answer.status);
            if answer.status == 200 {
                answer.pattern.assert_complete(100_000);
            }
        }
    }
    usage.assert_grew_less_than(&gateway, 16 * MIB);
}

pub(crate) fn h2_13_response_heads_without_measure() {
    let endless = lying(&[], |reader, stream| {
        let block = hpack::block(&[(":status", "200")]);
        reader.wire.send(&frame::frame(kind::HEADERS, 0, stream, block))?;
        let more = frame::frame(kind::CONTINUATION, 0, stream, hpack::literal("x-more", "v".repeat(1000)));
        (0..50_000).try_for_each(|_| reader.wire.send(&more))
    });
    survive("endless CONTINUATION", &endless);
    for (name, value, count) in [
        ("x-bomb", "b".repeat(4000), 12_000),
        ("a", String::new(), 16_000),
        ("set-cookie", "a".into(), 16_000),
    ] {
        let bomb = lying(&[], move |reader, stream| {
            let mut block = hpack::block(&[(":status", "200")]);
            block.extend(hpack::incremental(name, &value));
            block.extend(hpack::indexed(hpack::FIRST_DYNAMIC).repeat(count));
            reader.wire.send(&frame::headers_in_pieces(stream, &block, true, 16_384))
        });
        // A response that is too large costs its stream at least.
        bear(&format!("response bomb of {name}"), &bomb);
    }
}

pub(crate) fn h2_13_malformed_responses() {
    let heads: [(&str, &[(&str, &str)]); 16] = [
        ("no status", &[("x-a", "1")]),
        ("two statuses", &[(":status", "200"), (":status", "404")]),
        ("a status of two digits", &[(":status", "20")]),
        ("a status of letters", &[(":status", "abc")]),
        ("a status that splits", &[(":status", "200 OK\r\nX: y")]),
        ("101", &[(":status", "101")]),
        ("a request's pseudo field", &[(":status", "200"), (":path", "/")]),
        ("a late pseudo field", &[("x-a", "1"), (":status", "200")]),
        ("upper case", &[(":status", "200"), ("X-A", "1")]),
        ("CR LF in a value", &[(":status", "200"), ("x-a", "1\r\nSet-Cookie: a=b")]),
        ("LF in a name", &[(":status", "200"), ("x\na", "1")]),
        ("NUL in a value", &[(":status", "200"), ("x-a", "\0")]),
        ("connection", &[(":status", "200"), ("connection", "close")]),
        ("transfer-encoding", &[(":status", "200"), ("transfer-encoding", "chunked")]),
        ("two lengths", &[(":status", "200"), ("content-length", "1"), ("content-length", "2")]),
        ("a length that is none", &[(":status", "200"), ("content-length", "+1")]),
    ];
    for (case, fields) in heads {
        let block = hpack::block(fields);
        let backend = H2Backend::raw(move |reader, _| {
            reader.wire.send(&frame::settings(&[]))?;
            loop {
                match reader.event()? {
                    Event::Headers { stream, .. } => {
                        reader.wire.send(&frame::headers(stream, &block, true))?;
                    }
                    Event::Settings(_) => reader.wire.send(&frame::settings_ack())?,
                    _ => {}
                }
            }
        });
        let gateway = gateway(&[&backend]);
        for front in BOTH {
            let answer = Front::connect(front, gateway.front()).unwrap().get("/");
            let answer = answer.unwrap_or_else(|e| panic!("{case}, {front:?}: {e}"));
            assert_eq!(answer.status, 502, "{case}, {front:?}");
            assert!(!answer.headers.has("set-cookie") && !answer.headers.has("x-a"), "{case}, {front:?}");
        }
    }
}

pub(crate) fn h2_13_body_that_breaks_its_promise() {
    let bodies: [(&str, u64, usize); 3] = [("less", 10, 5), ("more", 5, 10), ("none", 10, 0)];
    for (case, promised, sent) in bodies {
        let backend = H2Backend::start(move |call| {
            call.body()?;
            call.head(200, &[("content-length", &promised.to_string())], sent == 0)?;
            if sent == 0 { Ok(()) } else { call.data(&pattern::bytes(sent), true) }
        });
        let gateway = gateway(&[&backend]);
        for front in BOTH {
            let outcome = Front::connect(front, gateway.front()).unwrap().get("/");
            let whole = outcome.as_ref().is_ok_and(|answer| answer.status == 200);
            assert!(!whole, "{case}, {front:?}: taken for a whole response");
        }
    }
    // HEAD and 304 promise a length and send nothing: that is no breach.
    let backend = H2Backend::start(|call| call.head(200, &[("content-length", "10")], true));
    let gateway = gateway(&[&backend]);
    for front in BOTH {
        let answer = Front::connect(front, gateway.front()).unwrap().request("HEAD", "/", &[], b"").unwrap();
        assert_eq!(
            (answer.status, answer.headers.get("content-length").as_deref()),
            (200, Some("10")),
            "{front:?}"
        );
    }
}

pub(crate) fn h2_13_frames_that_break_the_protocol() {
    type Breach<'a> = (&'a str, fn(u32) -> Vec<u8>);
    let breaches: [Breach<'_>; 8] = [
        ("DATA before a head", |s| frame::data(s, b"x", true)),
        ("DATA on an idle stream", |s| frame::data(s + 100, b"x", true)),
        ("HEADERS on an idle stream", |s| ok_head(s + 100, true)),
        ("HEADERS on an even stream", |_| ok_head(2, true)),
        ("a frame beyond MAX_FRAME_SIZE", |s| frame::data(s, vec![0; 1 << 20], true)),
        ("RST_STREAM of an idle stream", |s| frame::rst_stream(s + 100, code::CANCEL)),
        ("WINDOW_UPDATE of 0", |_| frame::window_update(0, 0)),
        ("window overflow", |_| frame::window_update(0, 0x7fff_ffff).repeat(2)),
    ];
    for (case, bytes) in breaches {
        survive(case, &lying(&[], move |reader, stream| reader.wire.send(&bytes(stream))));
    }
    // This one may cost the stream or the connection (RFC 9113 section 6.9.1).
    let beyond = lying(&[], |reader, stream| {
        reader.wire.send(&ok_head(stream, false))?;
        (0..300).try_for_each(|_| reader.wire.send(&frame::data(stream, [0; 16_384], false)))
    });
    bear("beyond the window", &beyond);
    survive(
        "HTTP/1.1 instead",
        &H2Backend::raw(|reader, _| {
            reader.wire.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        }),
    );
    survive("nothing but the end", &H2Backend::raw(|_, _| Ok(())));
}

/// REFUSED_STREAM says that nothing was processed: any request is sent again, as long as its body can be.
pub(crate) fn h2_13_refused_stream_is_retried() {
    for front in BOTH {
        let refusals = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&refusals);
        let backend = H2Backend::start(move |call| {
            if count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
                return call.reset(code::REFUSED_STREAM);
            }
            call.body()?;
            call.respond(200, &[], b"second time")
        });
        let gateway = gateway(&[&backend]);
        for method in ["GET", "POST", "DELETE"] {
            let mut client = Front::connect(front, gateway.front()).unwrap();
            let answer = client.request(method, "/", &[], b"").unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (200, "second time"), "{front:?} {method}");
        }
    }
}

/// Whoever refuses for ever does not make the gateway try for ever.
pub(crate) fn h2_13_refusals_have_an_end() {
    let backend = H2Backend::start(|call| call.reset(code::REFUSED_STREAM));
    let gateway = gateway(&[&backend]);
    for front in BOTH {
        let before = backend.request_count();
        let answer = Front::connect(front, gateway.front()).unwrap().get("/").unwrap();
        assert!([502, 503].contains(&answer.status), "{}", answer.status);
        let tries = backend.request_count() - before;
        assert!(tries <= 5, "{front:?}: {tries} tries");
    }
}

/// Any other reset may have been processed: only what is safe to repeat may be repeated.
pub(crate) fn h2_13_other_resets_are_not_retried() {
    for reason in
        [code::INTERNAL_ERROR, code::CANCEL, code::PROTOCOL_ERROR, code::ENHANCE_YOUR_CALM, code::NO_ERROR]
    {
        let backend = H2Backend::start(move |call| {
            call.body()?;
            call.reset(reason)
        });
        let gateway = gateway(&[&backend]);
        for front in BOTH {
            let before = backend.request_count();
            let answer =
                Front::connect(front, gateway.front()).unwrap().request("POST", "/", &[], b"order").unwrap();
            assert_eq!(answer.status, 502, "{front:?}, reset with {reason}");
            assert_eq!(backend.request_count() - before, 1, "{front:?}, reset with {reason}: sent again");
        }
    }
}

/// GOAWAY tells which requests were not processed: those go elsewhere, the others do not.
pub(crate) fn h2_13_goaway_decides_what_is_retried() {
    for front in BOTH {
        for (last_is_own, wanted) in [(false, 200), (true, 502)] {
            let first = lying(&[], move |reader, stream| {
                let last = if last_is_own { stream } else { stream.saturating_sub(2) };
                reader.wire.send(&frame::goaway(last, code::NO_ERROR))?;
                Err(Fault::Closed)
            });
            let hits = Arc::new(AtomicUsize::new(0));
            let seen = Arc::clone(&hits);
            let second = H2Backend::start(move |call| {
                seen.fetch_add(1, Ordering::SeqCst);
                call.body()?;
                call.respond(200, &[], b"elsewhere")
            });
            let gateway = gateway(&[&first, &second]);
            let mut processed_elsewhere = 0;
            for _ in 0..6 {
                let before = (first.connections(), hits.load(Ordering::SeqCst));
                let mut client = Front::connect(front, gateway.front()).unwrap();
                let answer = client.request("POST", "/", &[], b"").unwrap();
                if first.connections() > before.0 {
                    assert_eq!(answer.status, wanted, "{front:?}, last stream is its own: {last_is_own}");
                    let repeated = hits.load(Ordering::SeqCst) - before.1;
                    assert_eq!(
                        repeated,
                        usize::from(wanted == 200),
                        "{front:?}: how often it went elsewhere"
                    );
                    processed_elsewhere += 1;
                }
            }
            assert!(processed_elsewhere > 0, "{front:?}: the first backend was never asked");
        }
    }
}

/// A reset and a GOAWAY after every answer: everyone gets an answer all the same.
pub(crate) fn h2_13_backend_that_leaves_after_each_answer() {
    let backend = H2Backend::start(|call| {
        call.body()?;
        call.respond(200, &[], b"the last one")?;
        call.goaway(call.stream, code::NO_ERROR)?;
        call.cut();
        Ok(())
    });
    let gateway = gateway(&[&backend]);
    let usage = Usage::watch(&gateway);
    let mut client = Client::connect(gateway.front()).unwrap();
    for round in 0..200 {
        let response = client.get("/").unwrap_or_else(|e| panic!("round {round}: {e}"));
        assert_eq!(response.status, 200, "round {round}");
    }
    usage.assert_grew_less_than(&gateway, 16 * MIB);
    backend.assert_clean();
}
