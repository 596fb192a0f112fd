//! HTTP/3 that breaks rules: each breach ends what the RFC says, with the code that it names, and nothing else.

use crate::rig::Rig;
use testkit::h3::frame::{self, data, header, headers, settings, stream, varint};
use testkit::h3::qpack::{self, indexed, literal};
use testkit::h3::{code, kind, setting};
use testkit::{Fault, H3Client, eventually, ms, pattern, seconds};

/// A whole request without content.
fn request() -> Vec<u8> {
    headers(qpack::section(&fields()))
}

fn fields() -> Vec<(&'static str, &'static str)> {
    vec![(":method", "GET"), (":scheme", "https"), (":authority", "test.example"), (":path", "/")]
}

/// What a client does, and the code with which that ends its connection.
type Breach = (&'static str, fn(&mut H3Client) -> Result<(), Fault>, u64);

fn open(client: &mut H3Client, bytes: &[u8]) -> Result<(), Fault> {
    client.open_with(bytes, false).map(drop)
}

/// Reserved since HTTP/2 (RFC 9114 §11.2.1).
const OF_HTTP_2: [u64; 4] = [0x2, 0x6, 0x8, 0x9];

#[track_caller]
fn try_breaches(rig: &Rig, breaches: &[Breach]) {
    for (case, breach, wanted) in breaches {
        let mut client = rig.client();
        // The connection may be gone before everything is said.
        breach(&mut client).ok();
        assert_eq!(client.closed(), (true, *wanted), "{case}");
    }
    rig.assert_serves("all breaches");
    rig.origin.assert_clean();
    let counted = |code| rig.gateway.metric("h3_connection_errors_total", &[("code", code)]);
    let with = |code| breaches.iter().filter(|(.., wanted)| *wanted == code).count();
    assert_eq!(counted("H3_FRAME_UNEXPECTED"), with(code::FRAME_UNEXPECTED) as f64);
    assert_eq!(counted("other"), 0.0);
}

pub(crate) fn q_10_what_breaks_a_connection_has_its_code() {
    let rig = Rig::standard();
    try_breaches(
        &rig,
        &[
            (
                "a second control stream",
                |c| c.tell(stream::CONTROL, settings(&[])),
                code::STREAM_CREATION_ERROR,
            ),
            ("a push stream", |c| c.tell(stream::PUSH, varint(0)), code::STREAM_CREATION_ERROR),
            ("SETTINGS twice", |c| c.tell_more(0, settings(&[])), code::FRAME_UNEXPECTED),
            ("DATA for the connection", |c| c.tell_more(0, data("x")), code::FRAME_UNEXPECTED),
            ("HEADERS for the connection", |c| c.tell_more(0, request()), code::FRAME_UNEXPECTED),
            (
                "PUSH_PROMISE for the connection",
                |c| c.tell_more(0, frame::frame(kind::PUSH_PROMISE, "\0")),
                code::FRAME_UNEXPECTED,
            ),
            (
                "MAX_PUSH_ID that shrinks",
                |c| c.tell_more(0, [8, 7].map(|id| frame::frame(kind::MAX_PUSH_ID, varint(id))).concat()),
                code::ID_ERROR,
            ),
            (
                "a push that never was",
                |c| c.tell_more(0, frame::frame(kind::CANCEL_PUSH, varint(3))),
                code::ID_ERROR,
            ),
            (
                "GOAWAY that grows",
                |c| c.tell_more(0, [4, 8].map(|id| frame::frame(kind::GOAWAY, varint(id))).concat()),
                code::ID_ERROR,
            ),
            (
                "GOAWAY of two parts",
                |c| c.tell_more(0, frame::frame(kind::GOAWAY, [0, 0])),
                code::FRAME_ERROR,
            ),
            ("GOAWAY of no part", |c| c.tell_more(0, frame::frame(kind::GOAWAY, "")), code::FRAME_ERROR),
            (
                "the end of the control stream",
                |c| {
                    c.told[0].finish().ok();
                    Ok(())
                },
                code::CLOSED_CRITICAL_STREAM,
            ),
            (
                "a reset of the control stream",
                |c| {
                    // The type of the stream has come by then.
                    c.get("/")?;
                    c.told[0].reset(0u8.into()).ok();
                    Ok(())
                },
                code::CLOSED_CRITICAL_STREAM,
            ),
            ("DATA before HEADERS", |c| open(c, &data("early")), code::FRAME_UNEXPECTED),
            ("SETTINGS on a request", |c| open(c, &settings(&[])), code::FRAME_UNEXPECTED),
            ("GOAWAY on a request", |c| open(c, &frame::frame(kind::GOAWAY, "\0")), code::FRAME_UNEXPECTED),
            (
                "CANCEL_PUSH on a request",
                |c| open(c, &frame::frame(kind::CANCEL_PUSH, "\0")),
                code::FRAME_UNEXPECTED,
            ),
            (
                "MAX_PUSH_ID on a request",
                |c| open(c, &frame::frame(kind::MAX_PUSH_ID, "\0")),
                code::FRAME_UNEXPECTED,
            ),
            (
                "PUSH_PROMISE on a request",
                |c| open(c, &frame::frame(kind::PUSH_PROMISE, "\0")),
                code::FRAME_UNEXPECTED,
            ),
            (
                "SETTINGS behind a head",
                |c| open(c, &[request(), settings(&[])].concat()),
                code::FRAME_UNEXPECTED,
            ),
            ("a frame that the end cuts", |c| c.open_with([1, 60, 0, 0], true).map(drop), code::FRAME_ERROR),
            (
                "HEADERS behind trailers",
                |c| {
                    let trailers = headers(qpack::section(&[("x-sum", "1")]));
                    open(c, &[&request()[..], &trailers, &trailers].concat())
                },
                code::FRAME_UNEXPECTED,
            ),
            (
                "DATA behind trailers",
                |c| {
                    let trailers = headers(qpack::section(&[("x-sum", "1")]));
                    open(c, &[&request()[..], &trailers, &data("late")].concat())
                },
                code::FRAME_UNEXPECTED,
            ),
        ],
    );
    for reserved in OF_HTTP_2 {
        let mut client = rig.client();
        client.tell_more(0, frame::frame(reserved, "")).ok();
        assert_eq!(client.closed(), (true, code::FRAME_UNEXPECTED), "{reserved:#x} for the connection");
        let mut client = rig.client();
        client.open_with([frame::frame(reserved, ""), request()].concat(), true).ok();
        assert_eq!(client.closed(), (true, code::FRAME_UNEXPECTED), "{reserved:#x} on a request");
        let mut client = rig.client();
        client.open_with([request(), frame::frame(reserved, "")].concat(), true).ok();
        assert_eq!(client.closed(), (true, code::FRAME_UNEXPECTED), "{reserved:#x} behind a head");
    }
    // What comes first on the control stream.
    let first: [(&str, Vec<u8>, u64); 7] = [
        ("GOAWAY first", frame::frame(kind::GOAWAY, "\0"), code::MISSING_SETTINGS),
        ("what is unknown first", frame::frame(0x21, ""), code::MISSING_SETTINGS),
        ("a setting of HTTP/2", settings(&[(0x4, 65_535)]), code::SETTINGS_ERROR),
        (
            "a setting twice",
            settings(&[(setting::QPACK_BLOCKED_STREAMS, 0), (setting::QPACK_BLOCKED_STREAMS, 0)]),
            code::SETTINGS_ERROR,
        ),
        (
            "a switch that is neither on nor off",
            settings(&[(setting::ENABLE_CONNECT_PROTOCOL, 2)]),
            code::SETTINGS_ERROR,
        ),
        ("half a setting", frame::frame(kind::SETTINGS, varint(6)), code::FRAME_ERROR),
        ("SETTINGS without end", header(kind::SETTINGS, 1 << 40), code::EXCESSIVE_LOAD),
    ];
    for (case, bytes, wanted) in first {
        let mut client = H3Client::silent(rig.quic());
        client.tell(stream::CONTROL, bytes).ok();
        assert_eq!(client.closed(), (true, wanted), "{case}");
    }
    rig.assert_serves("SETTINGS of all kinds");
}

pub(crate) fn q_08_qpack_that_breaks_a_connection_has_its_code() {
    let rig = Rig::standard();
    let section = |lines: &[u8]| headers([&qpack::PREFIX[..], lines].concat());
    for (case, lines) in [
        ("an index beyond the static table", indexed(99)),
        ("a name beyond the static table", qpack::indexed_name(200, "x")),
        ("an index of the dynamic table", vec![0x80]),
        ("an index behind the base", vec![0x10]),
        ("a literal that is cut", literal("name", "value")[..8].to_vec()),
        ("an integer without end", [&[0xff][..], &[0xff; 20]].concat()),
        ("a literal without a length", vec![0x27]),
        ("a Huffman code of nothing but ends", vec![0x2c, 0xff, 0xff, 0xff, 0xff, 0x00]),
    ] {
        let mut client = rig.client();
        client.open_with(section(&lines), true).ok();
        assert_eq!(client.closed(), (true, code::QPACK_DECOMPRESSION_FAILED), "{case}");
    }
    let mut client = rig.client();
    client.open_with(headers([2, 0, 0x80]), true).ok();
    assert_eq!(client.closed(), (true, code::QPACK_DECOMPRESSION_FAILED), "a section that waits for inserts");
    try_breaches(
        &rig,
        &[
            (
                "two encoder streams",
                |c| (0..2).try_for_each(|_| c.tell(stream::QPACK_ENCODER, "")),
                code::STREAM_CREATION_ERROR,
            ),
            (
                "two decoder streams",
                |c| (0..2).try_for_each(|_| c.tell(stream::QPACK_DECODER, "")),
                code::STREAM_CREATION_ERROR,
            ),
            (
                "the end of the encoder stream",
                |c| {
                    c.tell(stream::QPACK_ENCODER, "")?;
                    c.told[1].finish().ok();
                    Ok(())
                },
                code::CLOSED_CRITICAL_STREAM,
            ),
            (
                "a reset of the decoder stream",
                |c| {
                    c.tell(stream::QPACK_DECODER, "")?;
                    std::thread::sleep(ms(100));
                    c.told[1].reset(0u8.into()).ok();
                    Ok(())
                },
                code::CLOSED_CRITICAL_STREAM,
            ),
            (
                "a dynamic table",
                |c| c.tell(stream::QPACK_ENCODER, [0x3f, 0xbd, 0x01]),
                code::QPACK_ENCODER_STREAM_ERROR,
            ),
            (
                "an insert",
                |c| c.tell(stream::QPACK_ENCODER, [&[0x41, b'n', 1][..], b"v"].concat()),
                code::QPACK_ENCODER_STREAM_ERROR,
            ),
            ("a duplicate", |c| c.tell(stream::QPACK_ENCODER, [0x00]), code::QPACK_ENCODER_STREAM_ERROR),
            (
                "an increment by none",
                |c| c.tell(stream::QPACK_DECODER, [0x00]),
                code::QPACK_DECODER_STREAM_ERROR,
            ),
            ("an increment", |c| c.tell(stream::QPACK_DECODER, [0x05]), code::QPACK_DECODER_STREAM_ERROR),
            (
                "an acknowledgement of nothing",
                |c| c.tell(stream::QPACK_DECODER, [0x84]),
                code::QPACK_DECODER_STREAM_ERROR,
            ),
        ],
    );
    // A table of no size, and the cancellation of a stream that used none, are no breach.
    let mut client = rig.client();
    client.tell(stream::QPACK_ENCODER, [0x20]).unwrap();
    client.tell(stream::QPACK_DECODER, [0x44]).unwrap();
    assert_eq!(client.get("/").unwrap().text(), "one");
}

pub(crate) fn q_10_what_breaks_a_stream_costs_only_the_stream() {
    let rig = Rig::standard();
    let mut client = rig.client();
    let with = |more: &[(&'static str, &'static str)]| [&fields()[..], more].concat();
    let without = |name: &str| -> Vec<_> { fields().into_iter().filter(|field| field.0 != name).collect() };
    let heads: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no path", without(":path")),
        ("no fields", vec![]),
        ("two paths", with(&[(":path", "/")])),
        ("an unknown pseudo field", with(&[(":protocol-of-none", "1")])),
        ("a status", with(&[(":status", "200")])),
        ("a pseudo field behind others", [&[("x-first", "1")][..], &fields()].concat()),
        ("upper case", with(&[("X-Upper", "1")])),
        ("an empty name", with(&[("", "1")])),
        ("a space in a name", with(&[("x bad", "1")])),
        ("a line break in a value", with(&[("x-bad", "1\r\nx-more: 2")])),
        ("a NUL in a value", with(&[("x-bad", "1\0")])),
        ("connection", with(&[("connection", "close")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("keep-alive", with(&[("keep-alive", "timeout=1")])),
        ("te", with(&[("te", "gzip")])),
        ("two lengths", with(&[("content-length", "1"), ("content-length", "2")])),
        ("a length that is no number", with(&[("content-length", "+1")])),
        ("an empty path", [&without(":path")[..], &[(":path", "")]].concat()),
    ];
    for (case, fields) in heads {
        let id = client.open_with(headers(qpack::section(&fields)), true).unwrap();
        let answer = client.over_with(id).unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(answer.reset, Some(code::MESSAGE_ERROR), "{case}: {answer:?}");
    }
    let id = client.open_with("", true).unwrap();
    assert_eq!(
        client.over_with(id).unwrap().reset,
        Some(code::REQUEST_INCOMPLETE),
        "a stream without a request"
    );
    assert_eq!(rig.origin.request_count(), 0, "a request that breaks rules reached the backend");
    assert_eq!(client.get("/").unwrap().text(), "one", "the connection goes on");
    assert_eq!(client.heard().faults, [""; 0]);
}

/// A body is as long as its length says, and ends with its stream: anything else is no whole request for a backend either.
pub(crate) fn q_10_bodies_that_are_not_as_long_as_said() {
    let rig = Rig::scripted(
        |l| l,
        |exchange| {
            exchange.drain()?;
            exchange.respond(200, &[], b"whole")
        },
    );
    let post = |length: &'static str| {
        let mut fields = fields();
        fields[0].1 = "POST";
        fields.push(("content-length", length));
        headers(qpack::section(&fields))
    };
    let trailers = |fields: &[(&str, &str)]| headers(qpack::section(fields));
    let mut client = rig.client();
    for (case, bytes) in [
        ("too short", [post("10"), data("12345")].concat()),
        ("too short, in the head", post("10")),
        ("too short, before trailers", [post("10"), data("12345"), trailers(&[("x-a", "1")])].concat()),
        ("too long", [post("3"), data("12345")].concat()),
        ("too long in another frame", [post("3"), data("123"), data("4")].concat()),
        ("something where nothing is said", [post("0"), data("1")].concat()),
        ("a pseudo field behind the body", [post("3"), data("123"), trailers(&[(":path", "/")])].concat()),
        ("upper case behind the body", [post("3"), data("123"), trailers(&[("X-Sum", "1")])].concat()),
    ] {
        let id = client.open_with(bytes, true).unwrap();
        let answer = client.over_with(id).unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(answer.reset, Some(code::MESSAGE_ERROR), "{case}: {answer:?}");
    }
    let whole = client.open_with([post("5"), data("12"), data(""), data("345")].concat(), true).unwrap();
    assert_eq!(client.response(whole).unwrap().text(), "whole");
    eventually("the requests are over", seconds(5), || {
        rig.origin.requests().iter().filter(|request| request.complete).count() == 1
    });
    rig.origin.assert_clean();
}

pub(crate) fn q_10_what_is_unknown_is_ignored() {
    let rig = Rig::standard();
    let mut client = rig.client();
    client.tell_more(0, frame::frame(0x21, "grease")).unwrap();
    client.tell(0x21, "a stream of an unknown type").unwrap();
    let stopped = testkit::quic::wait(seconds(5), client.told[1].stopped()).unwrap().unwrap();
    assert!(stopped.is_none_or(|told| told.into_inner() == code::STREAM_CREATION_ERROR), "{stopped:?}");
    let unknown = frame::frame(0x1f * 7 + 0x21, "nothing");
    let id = client.open_with([&unknown[..], &request(), &unknown].concat(), true).unwrap();
    assert_eq!(client.response(id).unwrap().text(), "one");
    // Byte by byte.
    let id = client.begin().unwrap();
    for byte in request() {
        client.send(id, [byte]).unwrap();
        std::thread::sleep(ms(1));
    }
    client.end(id).unwrap();
    assert_eq!(client.response(id).unwrap().text(), "one");
    assert_eq!(client.heard().faults, [""; 0]);
}

/// Attack Q-09: by bytes that are sent, and by references that are short.
pub(crate) fn q_09_heads_over_the_limit_are_431() {
    let rig = Rig::with(|listener| listener.h2("max_header_list_size", 4000));
    let mut client = rig.client();
    let told =
        client.heard().settings.as_ref().and_then(|s| s.get(&setting::MAX_FIELD_SECTION_SIZE).copied());
    assert_eq!(told, Some(4000));
    let section = |lines: &[u8]| headers([&qpack::section(&fields())[..], lines].concat());
    // Index 85 is a field of 39 bytes, and 32 more count for each.
    let references: Vec<u8> = indexed(85).repeat(60);
    let large = literal("x-large", "v".repeat(5000));
    let huge = literal("x-huge", "v".repeat(300_000));
    for (case, lines) in [("references", references), ("large", large), ("huge", huge)] {
        let id = client.open_with(section(&lines), true).unwrap();
        let answer = client.over_with(id).unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(answer.status(), 431, "{case}: {answer:?}");
        assert_eq!(
            client.get("/").unwrap().status(),
            200,
            "{case}: a stream's fault is not the connection's"
        );
    }
    assert_eq!(client.request("GET", "/", &[("x", &"v".repeat(3000))], b"").unwrap().status(), 200);
    rig.gateway.wait_metric("request_rejected_total", &[("reason", "header_too_large")], |n| n >= 3.0);
}

/// The answers come in the order in which they are ready.
pub(crate) fn many_streams_on_one_connection() {
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let rig = Rig::scripted(
        |l| l,
        move |exchange| match exchange.path().as_str() {
            "/slow" => {
                wait.lock().unwrap().recv_timeout(seconds(50)).map_err(|_| Fault::TimedOut)?;
                exchange.respond(200, &[], b"slow")
            }
            "/large" => exchange.respond(200, &[], &pattern::bytes(500_000)),
            _ => exchange.respond(200, &[], b"one"),
        },
    );
    let mut client = rig.client();
    let slow = client.open("GET", "/slow", &[], true).unwrap();
    let large: Vec<u64> = (0..10).map(|_| client.open("GET", "/large", &[], true).unwrap()).collect();
    let small: Vec<u64> = (0..100).map(|_| client.open("GET", "/", &[], true).unwrap()).collect();
    for id in small {
        assert_eq!(client.response(id).unwrap().text(), "one");
    }
    for id in large {
        client.response(id).unwrap().pattern.assert_complete(500_000);
    }
    go_on.send(()).unwrap();
    assert_eq!(client.response(slow).unwrap().text(), "slow");
    assert_eq!(rig.origin.request_count(), 111);
    rig.origin.assert_clean();
}

/// Uploads that take turns frame by frame stay apart.
pub(crate) fn interleaved_uploads() {
    let rig = Rig::standard();
    let mut client = rig.client();
    let streams: Vec<u64> = (0..8).map(|_| client.open("POST", "/upload", &[], false).unwrap()).collect();
    let body = pattern::bytes(200_000);
    for piece in body.chunks(5000) {
        for id in &streams {
            client.data(*id, piece).unwrap();
        }
    }
    for id in streams {
        client.end(id).unwrap();
        assert_eq!(client.response(id).unwrap().text(), "200000 right");
    }
    rig.origin.assert_clean();
}
