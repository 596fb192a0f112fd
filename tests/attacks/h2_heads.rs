//! Request heads that HTTP/2 can carry and HTTP/1.1 would read as something else, and bodies that break their promise.

use crate::h2_rig::{self, Rig, assert_rejected, assert_stream_refused};
use testkit::h2::{code, frame, hpack};
use testkit::{Client, Listener, Origin, Version, ms, request, seconds};

const BOTH: [Version; 2] = [Version::H1, Version::H2];

type Fields<'a> = Vec<(&'a str, &'a str)>;

/// A well-formed head with more fields at its end.
fn with<'a>(more: &[(&'a str, &'a str)]) -> Fields<'a> {
    [&[(":method", "GET"), (":scheme", "http"), (":authority", "test.example"), (":path", "/bad")], more]
        .concat()
}

/// A head with one pseudo field replaced, or left out when there is no value.
fn pseudo<'a>(name: &str, value: Option<&'a str>) -> Fields<'a> {
    let changed = with(&[]).into_iter().filter_map(|(n, v)| match value {
        _ if n != name => Some((n, v)),
        Some(value) => Some((n, value)),
        None => None,
    });
    changed.collect()
}

/// Nothing of it may reach a backend, and the next request on the connection is served.
fn refuse_all(cases: &[Fields<'_>]) {
    for back in BOTH {
        let rig = Rig::standard(back);
        for fields in cases {
            let case = format!("{back:?} {fields:?}");
            let before = rig.arrived();
            let mut client = rig.client();
            let stream = client.open_block(&hpack::block(fields), true).unwrap();
            assert_stream_refused(&case, &mut client, stream);
            assert_eq!(rig.arrived(), before, "{case}: it was forwarded");
            let next = client.get("/next").unwrap_or_else(|e| panic!("{case}: afterwards: {e}"));
            assert_eq!(next.status(), 200, "{case}: afterwards");
        }
        rig.origin.assert_clean();
        assert!(
            rig.origin.requests().iter().all(|r| r.path == "/next"),
            "{back:?}: another request appeared"
        );
    }
}

pub(crate) fn h2_08_field_values_with_line_ends() {
    let smuggle = "a\r\nTransfer-Encoding: chunked";
    let twice = "a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n";
    let mut cases: Vec<Fields<'_>> =
        [smuggle, twice, "a\nb", "a\rb", "a\0b", "\n", "\r", "\0", " a", "a ", "\ta", "a\t"]
            .iter()
            .map(|value| with(&[("x-value", value)]))
            .collect();
    cases.push(with(&[("cookie", "a\r\nX: y")]));
    for name in [":path", ":authority", ":method", ":scheme"] {
        for value in
            ["/a\r\nX: y", "/a\nb", "/a\rb", "/a\0b", "/a b", "/ HTTP/1.1\r\nHost: b\r\n\r\nGET /smuggled"]
        {
            cases.push(pseudo(name, Some(value)));
        }
    }
    refuse_all(&cases);
}

pub(crate) fn h2_08_field_names() {
    let names = [
        "",
        "X-Upper",
        "x-Upper",
        "x:y",
        "x y",
        " x",
        "x ",
        "x\r\n",
        "x\ny",
        "x\0",
        "x\ty",
        "x: y\r\nz",
        "x(y)",
        "x\u{7f}",
        "x\u{e9}",
        "\"x\"",
        "x,y",
        "x/y",
        "x;y",
        "x@y",
        "x[y]",
        "{x}",
    ];
    refuse_all(&names.map(|name| with(&[(name, "v")])));
}

pub(crate) fn h2_08_connection_specific_fields() {
    let fields = [
        ("connection", "close"),
        ("connection", "keep-alive"),
        ("connection", "x-other"),
        ("connection", ""),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("transfer-encoding", ""),
        ("upgrade", "h2c"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, deflate"),
        ("te", ""),
    ];
    refuse_all(&fields.map(|field| with(&[field])));
}

pub(crate) fn h2_08_pseudo_fields() {
    let mut cases = vec![
        with(&[(":method", "GET")]),
        with(&[(":path", "/other")]),
        with(&[(":authority", "test.example")]),
        with(&[(":scheme", "http")]),
        with(&[(":status", "200")]),
        with(&[(":unknown", "1")]),
        with(&[(":protocol", "websocket")]),
        with(&[(":", "1")]),
        with(&[("x-first", "1"), (":path", "/late")]),
        [&[("x-first", "1")][..], &with(&[])].concat(),
        pseudo(":method", None),
        pseudo(":scheme", None),
        pseudo(":path", None),
        vec![("x-alone", "1")],
        vec![],
    ];
    for (name, values) in [
        (":method", &["", "GET /", "G(T", "G\u{e9}T", "GET\t"][..]),
        (":path", &["", "no-slash", "http://other.example/", "//\u{e9}\u{0}", "/a\tb", "/a#b", "*"]),
        (":scheme", &["", "ht tp", "http://test.example/", "1http", "http:", "javascript\u{e9}"]),
    ] {
        cases.extend(values.iter().map(|value| pseudo(name, Some(value))));
    }
    refuse_all(&cases);
}

pub(crate) fn h2_08_trailers() {
    for back in BOTH {
        let rig = Rig::standard(back);
        let bad: [&[(&str, &str)]; 9] = [
            &[(":path", "/")],
            &[(":status", "200")],
            &[("x-ok", "1"), (":method", "GET")],
            &[("connection", "close")],
            &[("transfer-encoding", "chunked")],
            &[("X-Upper", "1")],
            &[("x-value", "a\r\nb")],
            &[("x y", "1")],
            &[("te", "gzip")],
        ];
        for fields in bad {
            let case = format!("{back:?} {fields:?}");
            let mut client = rig.client();
            let stream = client.open("POST", "/upload", &[], false).unwrap();
            client.data(stream, b"body", false).unwrap();
            client.trailers(stream, fields).unwrap();
            let outcome = client.over(stream).unwrap();
            assert_eq!(outcome.reset, Some(code::PROTOCOL_ERROR), "{case}");
            assert!([0, 400].contains(&outcome.status()), "{case}: {}", outcome.status());
            assert_eq!(client.get("/next").unwrap().status(), 200, "{case}");
        }
        // A section that does not end the stream is no trailer section.
        let mut client = rig.client();
        let stream = client.open("POST", "/upload", &[], false).unwrap();
        client.send(frame::headers(stream, hpack::block(&[("x-ok", "1")]), false)).unwrap();
        assert_eq!(client.over(stream).unwrap().reset, Some(code::PROTOCOL_ERROR), "{back:?}: no END_STREAM");
        testkit::eventually("half requests are let go", seconds(5), || {
            rig.origin.requests().iter().all(|r| r.path == "/next" || !r.complete)
        });
        rig.origin.assert_clean();
    }
}

/// What stands in trailers must not become a header, and what frames a message must not stand in trailers.
pub(crate) fn h2_08_forbidden_trailers_stay_behind() {
    for back in BOTH {
        let rig = Rig::standard(back);
        let mut client = rig.client();
        let stream = client.open("POST", "/upload", &[], false).unwrap();
        client.data(stream, &testkit::pattern::bytes(4), false).unwrap();
        let fields =
            [("content-length", "9"), ("host", "other.example"), ("authorization", "no"), ("x-end", "1")];
        client.trailers(stream, &fields).unwrap();
        let outcome = client.over(stream).unwrap();
        if outcome.status() == 200 {
            let last = rig.origin.last_request();
            for name in ["content-length", "host", "authorization"] {
                assert!(!last.trailers.has(name), "{back:?}: {name} arrived in trailers");
            }
            assert_ne!(last.headers.get("authorization").as_deref(), Some("no"));
            assert_eq!(last.trailers.get("x-end").as_deref(), Some("1"));
        } else {
            assert!(outcome.reset == Some(code::PROTOCOL_ERROR) || outcome.status() == 400, "{back:?}");
        }
        rig.origin.assert_clean();
    }
}

/// A promise of `length` bytes, what comes instead, and whether the stream ends with it.
fn broken_promise(back: Version, length: &[&str], pieces: &[usize]) {
    let case = format!("{back:?}: content-length {length:?}, then {pieces:?}");
    let rig = Rig::standard(back);
    let mut client = rig.client();
    let fields: Vec<_> = length.iter().map(|value| ("content-length", *value)).collect();
    let stream = client.open("POST", "/upload", &fields, pieces.is_empty()).unwrap();
    for (number, size) in pieces.iter().enumerate() {
        let last = number + 1 == pieces.len();
        client.data(stream, &testkit::pattern::bytes(*size), last).ok();
    }
    let outcome = client.over(stream).unwrap_or_else(|e| panic!("{case}: {e}"));
    assert_eq!(outcome.reset, Some(code::PROTOCOL_ERROR), "{case}: {}", outcome.status());
    assert!([0, 400].contains(&outcome.status()), "{case}: answered with {}", outcome.status());
    assert_eq!(client.get("/next").unwrap().status(), 200, "{case}");
    std::thread::sleep(ms(100));
    // A promise of nothing is kept as soon as an HTTP/1.1 backend has the head.
    let whole = rig.origin.requests().iter().any(|r| r.path == "/upload" && r.complete);
    assert!(!whole || length == ["0"] && back == Version::H1, "{case}: the backend takes it for whole");
    assert!(
        rig.origin.requests().iter().all(|r| ["/upload", "/next"].contains(&r.path.as_str())),
        "{case}: smuggled"
    );
    rig.origin.assert_clean();
}

pub(crate) fn h2_09_content_length_and_data_differ() {
    for back in BOTH {
        broken_promise(back, &["5"], &[]);
        broken_promise(back, &["5"], &[3]);
        broken_promise(back, &["5"], &[0]);
        broken_promise(back, &["5"], &[3, 3]);
        broken_promise(back, &["5"], &[100]);
        broken_promise(back, &["0"], &[1]);
        broken_promise(back, &["100000"], &[50_000, 49_999]);
        broken_promise(back, &["100000"], &[50_000, 50_001]);
    }
}

pub(crate) fn h2_09_content_length_that_is_no_single_number() {
    for back in BOTH {
        for value in ["", "+5", "-5", "0x5", "5, 6", "5 5", "5,5", "18446744073709551616", "five"] {
            broken_promise(back, &[value], &[5]);
        }
        broken_promise(back, &["5", "6"], &[5]);
        broken_promise(back, &["6", "5"], &[5]);
    }
}

/// A request that is refused leaves nothing behind in the next one, though both come in one read.
pub(crate) fn h2_08_refused_heads_leave_nothing_behind() {
    for back in BOTH {
        let rig = Rig::standard(back);
        let mut client = rig.client();
        let head = |client: &testkit::H2Client, path: &str, extra: &[(&str, &str)]| {
            testkit::h2::hpack::block(&client.fields("GET", path, extra))
        };
        let (first, second) = (client.next_stream(), client.next_stream());
        let left = [("authorization", "Bearer secret"), ("content-length", "60"), ("Upper", "malformed")];
        let bad = head(&client, "/bad", &left);
        let good = head(&client, "/good", &[("x-own", "1")]);
        client.send([frame::headers(first, bad, true), frame::headers(second, good, true)].concat()).unwrap();
        assert_eq!(client.over(first).unwrap().reset, Some(code::PROTOCOL_ERROR), "{back:?}");
        assert_eq!(client.response(second).unwrap().status(), 200, "{back:?}");
        let requests = rig.origin.requests();
        let request = requests.iter().find(|request| request.path == "/good").expect("the good one");
        for name in ["authorization", "content-length"] {
            assert!(request.headers.get(name).is_none(), "{back:?}: {name} of another request");
        }
        assert!(requests.iter().all(|request| request.path == "/good"), "{back:?}");
        rig.origin.assert_clean();
    }
}

/// A promise is held to after its answer is complete, too: an early answer does not make a wrong length right.
pub(crate) fn h2_09_content_length_and_data_differ_after_an_early_answer() {
    for back in BOTH {
        let rig = Rig::with(
            h2_rig::scripted(back, |exchange| {
                // An answer before the body, of which the rest is read for the sake of the connection.
                exchange.respond(200, &[], b"early")?;
                exchange.drain().map(|_| ())
            }),
            |listener| listener,
        );
        for (case, pieces, wrong) in [
            ("short", &[3][..], true),
            ("long", &[8], true),
            ("long at last", &[5, 1], true),
            ("right", &[5], false),
        ] {
            let mut client = rig.client();
            let stream = client.open("POST", "/early", &[("content-length", "5")], false).unwrap();
            let answered = |client: &testkit::H2Client| client.streams[&stream].ended;
            client.until("the whole answer", seconds(5), answered).unwrap();
            for (number, size) in pieces.iter().enumerate() {
                let bytes = testkit::pattern::bytes(*size);
                client.send(frame::data(stream, &bytes, number + 1 == pieces.len())).unwrap();
            }
            let reset = |client: &testkit::H2Client| client.streams[&stream].reset;
            if wrong {
                client.until("the reset", seconds(5), |client| reset(client).is_some()).unwrap();
            } else {
                client.read_for(ms(200));
            }
            assert_eq!(reset(&client), wrong.then_some(code::PROTOCOL_ERROR), "{back:?}: {case}");
            assert_eq!(client.get("/next").unwrap().status(), 200, "{back:?}: {case}");
            assert_eq!(client.goaways, [], "{back:?}: {case}");
        }
    }
}

/// A promise cut short by trailers, or by a reset.
pub(crate) fn h2_09_promise_cut_short() {
    for back in BOTH {
        let rig = Rig::standard(back);
        let mut client = rig.client();
        let stream = client.open("POST", "/upload", &[("content-length", "5")], false).unwrap();
        client.data(stream, b"abc", false).unwrap();
        client.trailers(stream, &[("x-end", "1")]).unwrap();
        assert_eq!(client.over(stream).unwrap().reset, Some(code::PROTOCOL_ERROR), "{back:?}: trailers");
        let stream = client.open("POST", "/upload", &[("content-length", "5")], false).unwrap();
        client.data(stream, b"abc", false).unwrap();
        testkit::poll(seconds(1), || (rig.arrived() > 1).then_some(()));
        client.reset(stream, code::CANCEL).unwrap();
        assert_eq!(client.get("/next").unwrap().status(), 200);
        std::thread::sleep(ms(100));
        assert!(rig.origin.requests().iter().all(|r| r.path == "/next" || !r.complete), "{back:?}");
        rig.origin.assert_clean();
    }
}

pub(crate) fn h2_10_authority_and_host() {
    let refused: Vec<Fields<'_>> = vec![
        with(&[("host", "other.example")]),
        with(&[("host", "test.example:81")]),
        with(&[("host", "")]),
        with(&[("host", "test.example, other.example")]),
        with(&[("host", "test.example"), ("host", "other.example")]),
        with(&[("host", "test.example"), ("host", "test.example")]),
        pseudo(":authority", Some("test.example, other.example")),
        pseudo(":authority", Some("test.example,other.example")),
        pseudo(":authority", Some("user@test.example")),
        pseudo(":authority", Some("user:secret@test.example")),
        pseudo(":authority", Some("")),
        pseudo(":authority", Some("test.example:port")),
        pseudo(":authority", Some("test.example:99999")),
        pseudo(":authority", Some("test.example/path")),
        pseudo(":authority", Some("test.example?query")),
        pseudo(":authority", Some("test example")),
        pseudo(":authority", Some("[::1")),
        pseudo(":authority", None),
    ];
    for back in BOTH {
        let rig = Rig::standard(back);
        for fields in &refused {
            let case = format!("{back:?} {fields:?}");
            let mut client = rig.client();
            let stream = client.open_block(&hpack::block(fields), true).unwrap();
            assert_rejected(&case, &mut client, stream, &[400, 421]);
            assert_eq!(rig.arrived(), 0, "{case}: it was forwarded");
        }
        // What agrees is one name, and arrives once.
        let agreed = [
            with(&[("host", "test.example")]),
            [pseudo(":authority", None), vec![("host", "test.example")]].concat(),
        ];
        for fields in &agreed {
            let mut client = rig.client();
            let stream = client.open_block(&hpack::block(fields), true).unwrap();
            assert_eq!(client.response(stream).unwrap().status(), 200, "{back:?} {fields:?}");
            let last = rig.origin.last_request();
            assert_eq!(last.authority, "test.example", "{back:?} {fields:?}");
            let hosts = last.headers.all("host").len();
            assert_eq!(hosts, usize::from(back == Version::H1), "{back:?} {fields:?}");
        }
        rig.origin.assert_clean();
    }
}

const UPGRADE: [(&str, &str); 3] = [
    ("Connection", "Upgrade, HTTP2-Settings"),
    ("Upgrade", "h2c"),
    ("HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA"),
];

pub(crate) fn h2_14_upgrade_to_h2c_is_not_honoured() {
    for back in BOTH {
        for prior_knowledge in [true, false] {
            let origin = Origin::standard(back, "origin");
            let rig = Rig::with(origin, |listener| listener.key("h2c", prior_knowledge));
            let case = format!("{back:?}, h2c = {prior_knowledge}");
            let mut client = Client::connect(rig.gateway.front()).unwrap();
            let variants =
                [&UPGRADE[..], &UPGRADE[1..], &[("Connection", "upgrade"), ("Upgrade", "H2C, websocket")]];
            for fields in variants {
                let response = client.request("GET", "/upgrade", fields, b"").unwrap();
                assert_eq!(response.status, 200, "{case}: {fields:?}");
                assert!(!response.head.headers.has("upgrade"), "{case}");
                let last = rig.origin.last_request();
                for name in ["upgrade", "http2-settings"] {
                    assert!(!last.headers.has(name), "{case}: {name} was forwarded");
                }
                assert!(!last.headers.lists("connection", "upgrade"), "{case}");
            }
            // The preface behind such a request is the next request, and no good one.
            let bytes =
                [request("GET", "/before", &UPGRADE, b""), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()]
                    .concat();
            client.send(bytes).unwrap();
            assert_eq!(client.response("GET").unwrap().status, 200, "{case}");
            let answer = client.response("GET");
            assert!(answer.as_ref().map_or(true, |a| a.status >= 400), "{case}: {answer:?}");
            assert!(
                rig.origin.requests().iter().all(|r| r.method != "PRI"),
                "{case}: the preface was forwarded"
            );
            rig.origin.assert_clean();
        }
    }
}

pub(crate) fn h2_14_prior_knowledge_where_not_configured() {
    let origin = Origin::standard(Version::H1, "origin");
    let gateway =
        testkit::Gateway::start(testkit::Config::new().listener(Listener::h1().backend(origin.address())));
    let mut client = gateway.client();
    client.send_anyway([frame::PREFACE, &frame::settings(&[])].concat());
    client.set_timeout(seconds(5));
    if let Ok(answer) = client.response("PRI") {
        assert!([400, 505].contains(&answer.status), "{}", answer.status);
    }
    client.closed(seconds(5)).ok();
    assert_eq!(origin.request_count(), 0, "the preface was forwarded");
}

/// A preface that goes wrong half way is no HTTP/1.1 request either.
pub(crate) fn h2_14_broken_prefaces() {
    let rig = Rig::standard(Version::H1);
    let wrong: [&[u8]; 6] = [
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"PRI * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI /smuggled HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PRI * HTTP/2.0\r\nHost: a\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    ];
    for bytes in wrong {
        let mut client = Client::connect(rig.gateway.front()).unwrap();
        client.send_anyway(bytes);
        client.finish();
        client.set_timeout(seconds(5));
        let came = client.wire.to_end().unwrap_or_default();
        assert!(!came.starts_with(b"HTTP/1.1 2"), "{:?}", String::from_utf8_lossy(bytes));
        // The preface alone, and then silence and an end, may be greeted with SETTINGS; nothing is forwarded.
        assert_eq!(rig.arrived(), 0, "{:?}", String::from_utf8_lossy(bytes));
    }
    // The first frame must be SETTINGS.
    let stream = std::net::TcpStream::connect(rig.gateway.front()).unwrap();
    let mut client = testkit::H2Client::silent(stream);
    let block = hpack::block(&client.fields("GET", "/early", &[]));
    client.send([frame::PREFACE, &frame::headers(1, block, true)].concat()).unwrap();
    client.next_stream();
    crate::h2_rig::assert_sent_away("no SETTINGS", &mut client, &[code::PROTOCOL_ERROR]);
    assert_eq!(rig.arrived(), 0);
}
