//! One exchange at a time, in each cell.

use crate::rig::{CELLS, Rig, config, listener};
use testkit::front::Upload;
use testkit::h2::hpack;
use testkit::{Fault, Front, Gateway, H2Client, Origin, Usage, Version, ms, pattern, ports, seconds};

const MIB: u64 = 1024 * 1024;

pub(crate) fn methods() {
    for cell in CELLS {
        let rig = Rig::standard(cell);
        let mut front = rig.front();
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "X-OWN"] {
            let answer = front.request(method, "/method?a=b&c=%20d", &[], b"").unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (200, "one"), "{cell:?} {method}");
            let last = rig.origin.last_request();
            assert_eq!(
                (last.method.as_str(), last.path.as_str()),
                (method, "/method?a=b&c=%20d"),
                "{cell:?}"
            );
            assert_eq!(last.authority, "test.example", "{cell:?}");
        }
        assert_eq!(rig.origin.connections(), 1, "{cell:?}: one after the other need one connection");
        rig.origin.assert_clean();
    }
}

pub(crate) fn bodies_up() {
    for cell in CELLS {
        let rig = Rig::standard(cell);
        let mut front = rig.front();
        for size in [0, 1, 16_384, 65_535, 65_536, 65_537, 1_000_003] {
            let body = pattern::bytes(size);
            for upload in [Upload::Sized(size as u64), Upload::Unsized] {
                front.open("POST", "/upload", &[], upload).unwrap();
                front.send(&body).unwrap();
                front.finish(&[]).unwrap();
                let answer = front.answer().unwrap_or_else(|e| panic!("{cell:?} {upload:?}: {e}"));
                assert_eq!(answer.text(), format!("{size} right"), "{cell:?} {upload:?}");
                let length = rig.origin.last_request().headers.get("content-length");
                let wanted = matches!(upload, Upload::Sized(_)).then(|| size.to_string());
                // Without content, a length of 0 may be said or left out.
                assert!(length == wanted || size == 0, "{cell:?} {upload:?}: {length:?}");
            }
        }
        rig.origin.assert_clean();
    }
}

pub(crate) fn bodies_down() {
    for cell in CELLS {
        let rig = Rig::standard(cell);
        let mut front = rig.front();
        for size in [0, 1, 16_384, 65_535, 65_536, 1_000_003_u64] {
            let sized =
                front.get(&format!("/bytes/{size}")).unwrap_or_else(|e| panic!("{cell:?} {size}: {e}"));
            sized.pattern.assert_complete(size);
            assert_eq!(sized.headers.get("content-length"), Some(size.to_string()), "{cell:?}");
            let open =
                front.get(&format!("/chunked/{size}")).unwrap_or_else(|e| panic!("{cell:?} {size}: {e}"));
            open.pattern.assert_complete(size);
        }
        rig.origin.assert_clean();
    }
}

pub(crate) fn twenty_mebibytes_up_and_down() {
    const SIZE: u64 = 20 * MIB;
    for cell in CELLS {
        let rig = Rig::standard(cell);
        let mut front = rig.front();
        front.get("/").unwrap();
        let usage = Usage::watch(&rig.gateway);
        front.get(&format!("/bytes/{SIZE}")).unwrap().pattern.assert_complete(SIZE);
        front.open("POST", "/upload", &[], Upload::Unsized).unwrap();
        testkit::standard::stream(SIZE, |piece| front.send(piece)).unwrap();
        front.finish(&[]).unwrap();
        assert_eq!(front.answer().unwrap().text(), format!("{SIZE} right"), "{cell:?}");
        usage.assert_grew_less_than(&rig.gateway, 10 * MIB);
        rig.origin.assert_clean();
    }
}

pub(crate) fn trailers_both_ways() {
    for cell in CELLS {
        let rig = Rig::scripted(cell, |exchange| {
            exchange.drain()?;
            exchange.start(200, &[("trailer", "x-after")])?;
            exchange.data(b"data")?;
            exchange.finish(&[("x-after", "1"), ("x-second", "2")])
        });
        let mut front = rig.front();
        for round in 0..3 {
            front.open("POST", "/", &[("te", "trailers"), ("trailer", "x-sum")], Upload::Unsized).unwrap();
            front.send(b"wiki").unwrap();
            front.finish(&[("x-sum", &format!("sum{round}")), ("x-other", "o")]).unwrap();
            let answer = front.answer().unwrap_or_else(|e| panic!("{cell:?}: {e}"));
            assert_eq!(answer.text(), "data", "{cell:?}");
            assert_eq!(answer.trailers.get("x-after").as_deref(), Some("1"), "{cell:?}");
            assert_eq!(answer.trailers.get("x-second").as_deref(), Some("2"), "{cell:?}");
            let last = rig.origin.last_request();
            assert_eq!(last.trailers.get("x-sum"), Some(format!("sum{round}")), "{cell:?}");
            assert_eq!(last.trailers.get("x-other").as_deref(), Some("o"), "{cell:?}");
            assert!(last.complete, "{cell:?}");
        }
        // Trailers behind nothing.
        front.open("POST", "/", &[("te", "trailers")], Upload::Unsized).unwrap();
        front.finish(&[("x-sum", "alone")]).unwrap();
        assert_eq!(front.answer().unwrap().status, 200, "{cell:?}");
        let last = rig.origin.last_request();
        assert_eq!((last.body.len(), last.trailers.get("x-sum").as_deref()), (0, Some("alone")), "{cell:?}");
        rig.origin.assert_clean();
    }
}

pub(crate) fn interim_responses_pass_as_they_come() {
    for cell in CELLS {
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        let rig = Rig::scripted(cell, move |exchange| {
            exchange.drain()?;
            exchange.interim(103, &[("link", "</a.css>; rel=preload")])?;
            exchange.interim(103, &[("link", "</b.css>; rel=preload")])?;
            // The page waits for the client, who waits for the hints.
            wait.lock().unwrap().recv_timeout(seconds(10)).map_err(|_| Fault::TimedOut)?;
            exchange.respond(200, &[], b"page")
        });
        let mut front = rig.front();
        front.open("GET", "/", &[], Upload::None).unwrap();
        let hints = front.interims(2).unwrap_or_else(|e| panic!("{cell:?}: {e}"));
        go_on.send(()).unwrap();
        assert_eq!(front.answer().unwrap().text(), "page", "{cell:?}");
        let links: Vec<_> = hints.iter().filter_map(|(_, fields)| fields.get("link")).collect();
        assert_eq!(links, ["</a.css>; rel=preload", "</b.css>; rel=preload"], "{cell:?}");
    }
}

pub(crate) fn expect_100_continue() {
    for cell in CELLS {
        let rig = Rig::scripted(cell, |exchange| {
            if exchange.path() == "/refuse" {
                return exchange.respond(417, &[], b"no").and(Err(Fault::Closed));
            }
            exchange.interim(100, &[])?;
            let seen = exchange.drain()?;
            exchange.respond(200, &[], seen.len().to_string().as_bytes())
        });
        let expect = [("expect", "100-continue")];
        let mut front = rig.front();
        front.open("POST", "/", &expect, Upload::Sized(5)).unwrap();
        let interim = front.interims(1).unwrap_or_else(|e| panic!("{cell:?}: {e}"));
        assert_eq!(interim[0].0, 100, "{cell:?}");
        front.send(b"hello").unwrap();
        front.finish(&[]).unwrap();
        assert_eq!(front.answer().unwrap().text(), "5", "{cell:?}");
        assert_eq!(
            rig.origin.last_request().headers.get("expect").as_deref(),
            Some("100-continue"),
            "{cell:?}"
        );
        // Refused: the answer comes without the body.
        let mut front = rig.front();
        front.open("POST", "/refuse", &expect, Upload::Sized(5)).unwrap();
        let head = front.head().unwrap_or_else(|e| panic!("{cell:?}: {e}"));
        assert_eq!((head.status, head.interim.len()), (417, 0), "{cell:?}");
    }
}

pub(crate) fn bodyless_answers() {
    for cell in CELLS {
        let rig = Rig::standard(cell);
        let mut front = rig.front();
        let head = front.request("HEAD", "/bytes/1234", &[], b"").unwrap();
        assert_eq!((head.status, head.body.len()), (200, 0), "{cell:?}");
        assert_eq!(head.headers.get("content-length").as_deref(), Some("1234"), "{cell:?}");
        for status in [204, 304] {
            let answer = front.get(&format!("/status/{status}")).unwrap();
            assert_eq!((answer.status, answer.body.len()), (status, 0), "{cell:?}");
            assert!(!answer.headers.has("transfer-encoding"), "{cell:?} {status}");
        }
        for status in [200, 201, 404, 418, 500, 503, 599] {
            assert_eq!(front.get(&format!("/status/{status}")).unwrap().status, status, "{cell:?}");
        }
        assert_eq!(front.get("/").unwrap().text(), "one", "{cell:?}: the connection goes on");
        rig.origin.assert_clean();
    }
}

/// A backend without length or chunks ends its body with the connection: over HTTP/2 that is a clean end.
pub(crate) fn close_delimited_answers() {
    for cell in CELLS.into_iter().filter(|cell| cell.back == Version::H1) {
        let backend = testkit::Backend::standard("one");
        let rig = Rig::on(cell, Origin::H1(backend), |listener| listener);
        for size in [0, 1, 300_000_u64] {
            let answer = rig.front().get(&format!("/close/{size}")).unwrap();
            answer.pattern.assert_complete(size);
        }
    }
}

pub(crate) fn error_answers() {
    for cell in CELLS {
        let slow = Rig::on(cell, Origin::standard(cell.back, "one"), |l| l.http("head_timeout_ms", 300));
        let answer = slow.front().get("/slow/3000").unwrap();
        assert_eq!(answer.status, 504, "{cell:?}");
        let dead = match cell.back {
            Version::H2 => cell.bare_listener().h2_backend(ports::reserve()),
            _ => cell.bare_listener().backend(ports::reserve()),
        };
        let dead = Gateway::start(config().listener(dead));
        let mut front = Front::connect(cell.front, dead.front()).unwrap();
        let answer = front.get("/").unwrap();
        assert_eq!(answer.status, 502, "{cell:?}");
        assert!((1..=512).contains(&answer.body.len()), "{cell:?}: {:?}", answer.text());
        assert!(answer.headers.get("content-type").is_some_and(|t| t.starts_with("text/plain")), "{cell:?}");
        assert_eq!(answer.headers.get("content-length"), Some(answer.body.len().to_string()), "{cell:?}");
        if cell.has_streams() {
            assert_eq!(
                front.get("/").unwrap().status,
                502,
                "{cell:?}: an error costs a stream, not the connection"
            );
        }
        // Over the cap of a body.
        let small =
            Rig::on(cell, Origin::standard(cell.back, "one"), |l| l.http("max_request_body_bytes", 10));
        let answer = small.front().request("POST", "/upload", &[], &[0; 11]).unwrap();
        assert_eq!(answer.status, 413, "{cell:?}");
    }
}

/// The answer to a HEAD has no body, nor has a refusal (RFC 9110 §9.3.2): over HTTP/2 and HTTP/3, a DATA frame would break the protocol.
pub(crate) fn a_refused_head_request_gets_no_body() {
    for cell in CELLS {
        let origin = Origin::standard(cell.back, "one");
        let config = config().runtime("header_underscore_policy", "reject").listener(cell.listener(&origin));
        let gateway = Gateway::start(config);
        let mut front = Front::connect(cell.front, gateway.front()).unwrap();
        let answer = front.request("HEAD", "/", &[("under_score", "1")], b"").unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (400, ""), "{cell:?}");
        if cell.has_streams() {
            // What follows a refusal on HTTP/1.1 is not read.
            assert_eq!(front.get("/").unwrap().text(), "one", "{cell:?}");
        }
    }
}

pub(crate) fn early_answer_while_uploading() {
    for cell in CELLS {
        let rig = Rig::scripted(cell, |exchange| {
            if exchange.path() == "/next" {
                return exchange.respond(200, &[], b"next");
            }
            exchange.respond(401, &[], b"who are you?")?;
            std::thread::sleep(ms(500));
            Ok(())
        });
        for upload in [Upload::Sized(1_000_000), Upload::Unsized] {
            let mut front = rig.front();
            front.open("POST", "/", &[], upload).unwrap();
            // Over HTTP/3, the server may have said by then that it wants no more.
            let sent = front.send(b"a beginning");
            assert!(matches!(sent, Ok(()) | Err(Fault::Reset)), "{cell:?} {upload:?}: {sent:?}");
            let answer = front.answer().unwrap_or_else(|e| panic!("{cell:?} {upload:?}: {e}"));
            assert_eq!((answer.status, answer.text().as_str()), (401, "who are you?"), "{cell:?} {upload:?}");
            if cell.has_streams() {
                // The upload that nobody wants has cost its stream at most.
                assert_eq!(front.get("/next").unwrap().text(), "next", "{cell:?} {upload:?}");
            }
        }
        rig.origin.assert_clean();
    }
}

pub(crate) fn requests_count_by_version() {
    for cell in CELLS {
        let rig = Rig::standard(cell);
        let mut front = rig.front();
        (0..5).for_each(|_| assert_eq!(front.get("/").unwrap().status, 200));
        let version = match cell.front {
            Version::H1 => "h1",
            Version::H2 => "h2",
            Version::H3 => "h3",
        };
        rig.gateway.wait_metric(
            "http_requests_total",
            &[("version", version), ("status_class", "2xx")],
            |n| n == 5.0,
        );
    }
}

/// HTTP/1.1 and HTTP/2 on one listener, decided by the first bytes, however they are cut.
pub(crate) fn both_versions_on_one_listener() {
    let origin = Origin::standard(Version::H1, "one");
    let gateway = Gateway::start(config().listener(listener(&origin)));
    for version in [Version::H1, Version::H2, Version::H1, Version::H2] {
        assert_eq!(Front::connect(version, gateway.front()).unwrap().get("/").unwrap().text(), "one");
    }
    let stream = std::net::TcpStream::connect(gateway.front()).unwrap();
    let mut client = testkit::H2Client::silent(stream);
    let block = testkit::h2::hpack::block(&client.fields("GET", "/", &[]));
    let stream = client.next_stream();
    let bytes = [
        testkit::h2::frame::PREFACE,
        &testkit::h2::frame::settings(&[]),
        &testkit::h2::frame::headers(stream, block, true),
    ]
    .concat();
    for byte in bytes {
        client.send([byte]).unwrap();
        std::thread::sleep(ms(2));
    }
    assert_eq!(client.response(stream).unwrap().text(), "one", "byte by byte");
    // A method that begins like the preface is still a method.
    let mut client = gateway.client();
    assert_eq!(client.request("PROPFIND", "/", &[], b"").unwrap().status, 200);
    assert_eq!(client.request("PRI", "/", &[], b"").map_or(400, |r| r.status) / 100, 4, "PRI is reserved");
}

/// The access log counts the first request of a connection as any later one, though its first bytes are read before it is known which
/// version they are.
pub(crate) fn bytes_of_a_request_are_counted_from_the_first_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let origin = Origin::standard(Version::H1, "one");
    let config = config().block("observability", "access_log", path.to_str().unwrap());
    let gateway = Gateway::start(config.runtime("workers", 1).listener(listener(&origin)));
    let mut client = gateway.client();
    let request = testkit::request("POST", "/upload", &[], &pattern::bytes(1000));
    for _ in 0..2 {
        client.send(&request).unwrap();
        assert_eq!(client.response("POST").unwrap().text(), "1000 right");
    }
    let mut client = H2Client::connect(gateway.front()).unwrap();
    let block = hpack::block(&client.fields("POST", "/upload", &[]));
    for _ in 0..2 {
        let stream = client.open_block(&block, false).unwrap();
        client.data(stream, &pattern::bytes(1000), true).unwrap();
        assert_eq!(client.response(stream).unwrap().text(), "1000 right");
    }
    let counted = || -> Vec<usize> {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let number = |line: &str| -> usize {
            let (_, rest) = line.split_once("\"bytes_in\":").unwrap();
            rest.split_once(',').unwrap().0.parse().unwrap()
        };
        text.lines().map(number).collect()
    };
    testkit::eventually("four lines", seconds(5), || counted().len() >= 4);
    let block = block.len() + 1000;
    // A frame's header counts with the block that it brings.
    assert_eq!(counted(), [request.len(), request.len(), block + 9, block + 9]);
}
