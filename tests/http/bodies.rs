//! Bodies of every size and framing, both ways.

use crate::rig::gateway;
use testkit::client::chunk;
use testkit::wire::Framing;
use testkit::{Backend, pattern, request, seconds};

const SIZES: &[usize] = &[0, 1, 2, 4095, 4096, 8192, 16384, 65535, 65536, 65537, 131072, 10 * 1024 * 1024];

pub(crate) fn download_sizes_and_framings() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    for &size in SIZES {
        for kind in ["bytes", "chunked", "close"] {
            let response =
                client.get(&format!("/{kind}/{size}")).unwrap_or_else(|e| panic!("{kind} {size}: {e}"));
            assert_eq!(response.status, 200, "{kind} {size}");
            assert!(response.body == pattern::bytes(size), "{kind} {size}: the body differs");
            let framing = response.head.framing;
            match kind {
                "bytes" => assert_eq!(framing, Framing::Length(size as u64), "{size}"),
                "chunked" => assert_eq!(framing, Framing::Chunked, "{size}"),
                _ => assert!(matches!(framing, Framing::Chunked | Framing::Close), "{size}"),
            }
            if response.closes() {
                client = gateway.client();
            }
        }
    }
}

pub(crate) fn upload_sizes_and_framings() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    for &size in SIZES {
        let body = pattern::bytes(size);
        let length = size.to_string();
        let response = client.request("POST", "/upload", &[("Content-Length", &length)], &body).unwrap();
        assert_eq!(response.text(), format!("{size} right"));
        assert_eq!(backend.last_request().head.framing, framed(size), "Content-Length stays Content-Length");

        client.send(request("POST", "/upload", &[("Transfer-Encoding", "chunked")], b"")).unwrap();
        for piece in body.chunks(50_000) {
            client.send(chunk(piece)).unwrap();
        }
        client.send("0\r\n\r\n").unwrap();
        assert_eq!(client.response("POST").unwrap().text(), format!("{size} right"), "chunked");
        assert_eq!(backend.last_request().head.framing, Framing::Chunked, "chunked stays chunked");
    }
    backend.assert_clean();
}

fn framed(size: usize) -> Framing {
    Framing::Length(size as u64)
}

pub(crate) fn get_with_a_body() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    for method in ["GET", "DELETE", "OPTIONS"] {
        let response = client.request(method, "/echo", &[], b"a body").unwrap();
        assert!(response.text().ends_with("\r\n\r\na body"), "{method}: {}", response.text());
        client.send(request(method, "/echo", &[("Transfer-Encoding", "chunked")], b"")).unwrap();
        client.send("6\r\na body\r\n0\r\n\r\n").unwrap();
        let response = client.response(method).unwrap();
        assert!(response.text().ends_with("\r\n\r\na body"), "{method} chunked: {}", response.text());
        assert_eq!(backend.last_request().head.framing, Framing::Chunked);
    }
    let head = client.request("HEAD", "/head", &[], b"a body").unwrap();
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(backend.last_request().body, b"a body");
    backend.assert_clean();
}

pub(crate) fn post_without_a_body() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    for method in ["POST", "PUT", "DELETE", "GET"] {
        assert_eq!(client.request(method, "/", &[], b"").unwrap().status, 200);
        let seen = backend.last_request();
        assert!(matches!(seen.head.framing, Framing::None | Framing::Length(0)), "{method}: {seen:?}");
    }
    client.request("POST", "/", &[("Content-Length", "0")], b"").unwrap();
    assert_eq!(backend.last_request().head.framing, Framing::Length(0));
}

pub(crate) fn chunks_of_all_shapes() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    let shapes: &[&str] = &[
        "0\r\n\r\n",
        "000\r\n\r\n",
        "1\r\na\r\n1\r\nb\r\n0\r\n\r\n",
        "a\r\n0123456789\r\n0\r\n\r\n",
        "A\r\n0123456789\r\n0\r\n\r\n",
        "0000000a\r\n0123456789\r\n0\r\n\r\n",
        "2\r\n\r\n\r\n0\r\n\r\n",
        "5\r\n0\r\n\r\n\r\n0\r\n\r\n",
    ];
    let contents = ["", "", "ab", "0123456789", "0123456789", "0123456789", "\r\n", "0\r\n\r\n"];
    for (shape, content) in shapes.iter().zip(contents) {
        client.send(request("POST", "/echo", &[("Transfer-Encoding", "chunked")], b"")).unwrap();
        client.send(shape).unwrap();
        assert_eq!(client.response("POST").unwrap().status, 200, "{shape:?}");
        assert_eq!(backend.last_request().body, content.as_bytes(), "{shape:?}");
    }
    // Many tiny chunks in one piece.
    let tiny: Vec<u8> = (0..20_000).flat_map(|i| chunk(&pattern::bytes(20_000)[i..i + 1])).collect();
    client.send(request("POST", "/upload", &[("Transfer-Encoding", "chunked")], b"")).unwrap();
    client.send([&tiny[..], b"0\r\n\r\n"].concat()).unwrap();
    assert_eq!(client.response("POST").unwrap().text(), "20000 right");
    backend.assert_clean();

    // The same from the backend.
    let answers = Backend::each(|request, conn| {
        let number: usize = request.target()[1..].parse().unwrap();
        let shapes = [
            "0\r\n\r\n",
            "2\r\nab\r\n0\r\n\r\n",
            "1\r\na\r\n1\r\nb\r\n00\r\n\r\n",
            "2;x=y\r\nab\r\n0;z\r\n\r\n",
        ];
        conn.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", shapes[number]))
    });
    let second = crate::rig::gateway(&[&answers]);
    let mut client = second.client();
    for (number, content) in ["", "ab", "ab", "ab"].iter().enumerate() {
        assert_eq!(client.get(&format!("/{number}")).unwrap().text(), *content, "shape {number}");
    }
}

pub(crate) fn truncated_upload_is_never_whole_for_the_backend() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    let starts: &[(&str, &str)] = &[
        ("Content-Length: 100000", "only a part"),
        ("Content-Length: 12", "only a part"),
        ("Transfer-Encoding: chunked", "ff\r\nonly a part"),
        ("Transfer-Encoding: chunked", "b\r\nonly a part\r\n"),
        ("Transfer-Encoding: chunked", "b\r\nonly a part\r\n0\r\n"),
        ("Transfer-Encoding: chunked", "b\r\nonly a part\r\n0\r\nX-Trailer: t\r\n"),
    ];
    for (number, (framing, part)) in starts.iter().enumerate() {
        for ending in ["half-close", "close", "reset"] {
            let case = format!("{framing}, {part:?}, {ending}");
            backend.forget();
            let before = backend.request_count();
            let mut client = gateway.client();
            client
                .send(format!("POST /cut/{number} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{part}"))
                .unwrap();
            // The head goes on as soon as it is there.
            backend.wait_requests(before + 1);
            match ending {
                "half-close" => {
                    client.finish();
                    // An error, or nothing: but no success.
                    if let Ok(response) = client.response("POST") {
                        assert!((400..500).contains(&response.status), "{case}: {}", response.status);
                    }
                }
                "close" => drop(client),
                _ => client.reset(),
            }
            testkit::eventually(&format!("{case}: the upstream is let go"), seconds(5), || {
                backend.open_connections() == 0
            });
            assert!(backend.request_count() <= before + 1, "{case}: it was sent twice");
            assert!(backend.requests().iter().all(|r| !r.complete), "{case}: it arrived as if whole");
        }
    }
    backend.assert_clean();
    assert_eq!(gateway.get("/").status, 200);
}

pub(crate) fn trailers_both_ways() {
    let backend = Backend::each(|request, conn| {
        let echoed = request.trailers.get("x-checksum").unwrap_or_default();
        conn.send(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Echo\r\n\r\n\
             4\r\ndata\r\n0\r\nX-Echo: {echoed}\r\nX-Second: 2\r\n\r\n"
        ))
    });
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    for round in 0..3 {
        let fields = [("Transfer-Encoding", "chunked"), ("Trailer", "X-Checksum"), ("TE", "trailers")];
        client.send(request("POST", "/", &fields, b"")).unwrap();
        client.send(format!("4\r\nwiki\r\n0\r\nX-Checksum: sum{round}\r\n\r\n")).unwrap();
        let response = client.response("POST").unwrap();
        assert_eq!(response.text(), "data");
        assert_eq!(response.trailers.get("x-echo"), Some(format!("sum{round}")));
        assert_eq!(response.trailers.get("x-second").as_deref(), Some("2"));
    }
    backend.assert_clean();
}
