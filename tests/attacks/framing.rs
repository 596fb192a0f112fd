//! What a client can do wrong with the framing of a request: its length, its chunks and its trailers.

use crate::rig::{Rig, SMUGGLED};
use testkit::client::chunk;
use testkit::{request, seconds};

pub(crate) fn h1_01_content_length_and_transfer_encoding() {
    let rig = Rig::standard();
    let orders = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "content-length: 5\r\nX-Between: 1\r\nTRANSFER-ENCODING: Chunked\r\n",
        "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n",
    ];
    for fields in orders {
        let head = format!("POST /both HTTP/1.1\r\nHost: test.example\r\n{fields}\r\n");
        rig.assert_refused(fields, format!("{head}0\r\n\r\n"), &[400, 501]);
    }
    let chunked_first =
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n";
    rig.assert_refused("both, chunked", chunked_first, &[400]);
}

pub(crate) fn h1_02_content_length_that_is_no_single_number() {
    let rig = Rig::standard();
    let values = [
        "5, 6",
        "5,5,6",
        "5 6",
        "+5",
        "-5",
        "0x10",
        "",
        " ",
        "5;",
        "5.0",
        "1e2",
        "5,",
        ",5",
        "18446744073709551616",
        "99999999999999999999",
        "\u{ff15}",
    ];
    for value in values {
        let case = format!("Content-Length: {value}");
        let head = format!("POST /length HTTP/1.1\r\nHost: test.example\r\n{case}\r\n\r\n");
        rig.assert_refused(&case, format!("{head}hello"), &[400]);
    }
    let doubled = |first: &str, second: &str| {
        format!(
            "POST /length HTTP/1.1\r\nHost: test.example\r\nContent-Length: {first}\r\nX-Between: 1\r\n\
             content-length: {second}\r\n\r\nhello"
        )
    };
    rig.assert_refused("two lengths that differ", doubled("5", "6"), &[400]);
    rig.assert_refused("two lengths that differ, one 0", doubled("0", "5"), &[400]);
    rig.assert_refused("two spellings of one length", doubled("5", "05"), &[400]);
}

pub(crate) fn h1_03_transfer_encoding_that_is_not_one_chunked() {
    let rig = Rig::standard();
    let refused = [
        ",chunked",
        "chunked,",
        "chunked,chunked",
        "chunked, chunked",
        "chunked;q=1",
        "chunked\r\n chunked",
        "\r\n chunked",
        "\u{b}chunked",
        "chunked\u{c}",
        "\"chunked\"",
        "chunked, identity",
        "chunked, gzip",
        "",
    ];
    let head = |value: &str| {
        format!("POST /coding HTTP/1.1\r\nHost: test.example\r\nTransfer-Encoding: {value}\r\n\r\n0\r\n\r\n")
    };
    for value in refused {
        rig.assert_refused(&format!("Transfer-Encoding: {value:?}"), head(value), &[400]);
    }
    for unknown in ["xchunked", "gzip", "identity", "chunke", "gzip, chunked"] {
        rig.assert_refused(&format!("Transfer-Encoding: {unknown}"), head(unknown), &[400, 501]);
    }
    let twice = "POST /coding HTTP/1.1\r\nHost: test.example\r\nTransfer-Encoding: chunked\r\n\
                 Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    rig.assert_refused("two fields", twice, &[400]);
    let split = "POST /coding HTTP/1.1\r\nHost: test.example\r\nTransfer-Encoding: gzip\r\n\
                 Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    rig.assert_refused("two fields, two codings", split, &[400, 501]);

    // A tab around the value is white space that the grammar allows: right is to refuse it, or to read it as `chunked`.
    for tabbed in ["\tchunked", "chunked\t"] {
        rig.backend.forget();
        let mut client = rig.gateway.client();
        client.send_anyway(format!(
            "POST /coding HTTP/1.1\r\nHost: test.example\r\nTransfer-Encoding: {tabbed}\r\n\r\n\
             4\r\nwiki\r\n0\r\n\r\n"
        ));
        let response = client.response("POST").unwrap();
        assert!([200, 400].contains(&response.status), "{tabbed:?}: {}", response.status);
        if response.status == 200 {
            assert_eq!(rig.backend.last_request().body, b"wiki", "{tabbed:?}");
        }
        rig.assert_unharmed(tabbed);
    }
}

pub(crate) fn h1_04_transfer_encoding_in_http_1_0() {
    let rig = Rig::standard();
    for connection in ["", "Connection: keep-alive\r\n", "Content-Length: 3\r\n"] {
        let head = format!("POST /old HTTP/1.0\r\nHost: a\r\n{connection}Transfer-Encoding: chunked\r\n\r\n");
        rig.assert_refused(connection, format!("{head}0\r\n\r\n"), &[400]);
    }
}

pub(crate) fn h1_05_bare_line_ends_in_the_head() {
    let rig = Rig::standard();
    let heads: &[(&str, &str)] = &[
        ("LF after the request line", "GET /bare HTTP/1.1\nHost: test.example\r\n\r\n"),
        ("LF after a field", "GET /bare HTTP/1.1\r\nHost: test.example\nX: y\r\n\r\n"),
        ("LF everywhere", "GET /bare HTTP/1.1\nHost: test.example\n\n"),
        ("LF as the empty line", "GET /bare HTTP/1.1\r\nHost: test.example\r\n\n"),
        ("LF, then CRLF as the empty line", "GET /bare HTTP/1.1\r\nHost: test.example\n\r\n"),
        ("CR after the request line", "GET /bare HTTP/1.1\rHost: test.example\r\n\r\n"),
        ("CR inside a value", "GET /bare HTTP/1.1\r\nHost: test.example\r\nX: a\rb\r\n\r\n"),
        ("CR before a field", "GET /bare HTTP/1.1\r\nHost: test.example\r\n\rX: y\r\n\r\n"),
        ("CR as the empty line", "GET /bare HTTP/1.1\r\nHost: test.example\r\n\r\r\n\r\n"),
        ("CR CR LF", "GET /bare HTTP/1.1\r\nHost: test.example\r\r\n\r\n"),
        ("CR CR LF after the request line", "GET /bare HTTP/1.1\r\r\nHost: test.example\r\n\r\n"),
        ("CR inside the target", "GET /ba\rre HTTP/1.1\r\nHost: test.example\r\n\r\n"),
    ];
    for (case, head) in heads {
        rig.assert_refused(case, head, &[400]);
    }
}

const CHUNKED: &str = "POST /chunked HTTP/1.1\r\nHost: test.example\r\nTransfer-Encoding: chunked\r\n\r\n";

pub(crate) fn h1_05_bare_line_ends_in_a_chunked_body() {
    let rig = Rig::standard();
    let bodies: &[(&str, &str)] = &[
        ("LF after the size", "4\nwiki\r\n0\r\n\r\n"),
        ("CR after the size", "4\rwiki\r\n0\r\n\r\n"),
        ("CR CR LF after the size", "4\r\r\nwiki\r\n0\r\n\r\n"),
        ("LF after the data", "4\r\nwiki\n0\r\n\r\n"),
        ("CR after the data", "4\r\nwiki\r0\r\n\r\n"),
        ("nothing after the data", "4\r\nwiki0\r\n\r\n"),
        ("more data than the size", "4\r\nwikipedia\r\n0\r\n\r\n"),
        ("two bytes after the data", "4\r\nwikiXX0\r\n\r\n"),
        ("LF after the last size", "4\r\nwiki\r\n0\n\r\n"),
        ("LF as the last line", "4\r\nwiki\r\n0\r\n\n"),
        ("CR as the last line", "4\r\nwiki\r\n0\r\n\rX"),
        ("LF in the trailers", "4\r\nwiki\r\n0\r\nX: y\n\r\n"),
        ("CR in the trailers", "4\r\nwiki\r\n0\r\nX: y\rZ: a\r\n\r\n"),
    ];
    for (case, body) in bodies {
        rig.assert_body_refused(case, format!("{CHUNKED}{body}"), &[400]);
    }
}

pub(crate) fn h1_06_chunk_sizes_with_decoration() {
    let rig = Rig::standard();
    let sizes = [
        "0x4",
        "0X4",
        "+4",
        "-4",
        "4_0",
        "4h",
        "g",
        "",
        " 4",
        "4 ",
        "\t4",
        "4\t",
        "4 ;x",
        "4\t;x=y",
        "00000000000000004",
        "fffffffffffffffff",
        "ffffffffffffffff",
        "8000000000000000",
        "8000000000000000;x",
        "4,4",
        "4.0",
        "\u{ff14}",
        "4;x\ny",
        "4;x\ry",
        "4;x=\"\n\"",
        "4;\u{0}",
    ];
    for size in sizes {
        let case = format!("size {size:?}");
        rig.assert_body_refused(&case, format!("{CHUNKED}{size}\r\nwiki\r\n0\r\n\r\n"), &[400]);
    }
    // The largest size that is taken is no promise that anybody believes.
    rig.backend.forget();
    let mut client = rig.gateway.client();
    client.send_anyway(format!("{CHUNKED}7fffffffffffffff\r\nwiki\r\n0\r\n\r\n{SMUGGLED}"));
    client.finish();
    if let Ok(response) = client.response("POST") {
        assert!([400, 408, 413].contains(&response.status), "{}", response.status);
    }
    assert!(rig.backend.requests().iter().all(|r| !r.complete), "a body of 2^64 bytes arrived whole");
    assert_eq!(rig.gateway.get("/well-behaved").status, 200);
    // Those bytes were body, and may still be on their way to the first backend.
    let rig = Rig::standard();
    rig.assert_body_refused("last size 0x0", format!("{CHUNKED}4\r\nwiki\r\n0x0\r\n\r\n"), &[400]);
    rig.assert_body_refused("last size -0", format!("{CHUNKED}4\r\nwiki\r\n-0\r\n\r\n"), &[400]);
    let huge = format!("{CHUNKED}4;{}\r\nwiki\r\n0\r\n\r\n", "x".repeat(256 * 1024));
    rig.assert_body_refused("one huge extension", huge, &[400]);
}

pub(crate) fn h1_06_chunk_extensions_are_dropped_and_capped() {
    let rig = Rig::standard();
    let mut client = rig.gateway.client();
    client.send(format!("{CHUNKED}4;name=value;flag\r\nwiki\r\n0;last=\"quoted; text\"\r\n\r\n")).unwrap();
    assert_eq!(client.response("POST").unwrap().status, 200);
    let seen = rig.backend.last_request();
    assert_eq!(seen.body, b"wiki");
    assert!(!seen.extensions, "extensions were forwarded");

    // Each is small; together they are much more than the content.
    let one = format!("1;{}\r\nx\r\n", "e".repeat(500));
    let flood = format!("{CHUNKED}{}0\r\n\r\n", one.repeat(20_000));
    rig.assert_body_refused("ten megabytes of small extensions", flood, &[400]);
}

/// Fields that a trailer section must not carry, because they change how a message is framed, routed or trusted.
const FORBIDDEN: &[&str] = &[
    "Content-Length",
    "Transfer-Encoding",
    "Host",
    "Authorization",
    "Trailer",
    "Content-Encoding",
    "Connection",
    "TE",
];

pub(crate) fn h1_17_forbidden_request_trailers() {
    let rig = Rig::standard();
    for name in FORBIDDEN {
        rig.backend.forget();
        let mut client = rig.gateway.client();
        client.set_timeout(seconds(5));
        client.send_anyway(format!("{CHUNKED}4\r\nwiki\r\n0\r\nX-Fine: 1\r\n{name}: 5\r\n\r\n"));
        let response = client.response("POST").unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!([200, 400].contains(&response.status), "{name}: {}", response.status);
        for seen in rig.backend.requests() {
            assert!(!seen.trailers.has(name), "{name} arrived as a trailer");
            assert!(seen.complete == (response.status == 200), "{name}: {seen:?}");
            if response.status == 200 {
                assert_eq!(
                    seen.trailers.get("x-fine").as_deref(),
                    Some("1"),
                    "{name}: its neighbour is lost"
                );
            }
        }
        rig.assert_unharmed(name);
    }
    // Twice the same allowed name is odd but harmless: both or one arrive, or it is refused.
    let mut client = rig.gateway.client();
    client.send(format!("{CHUNKED}4\r\nwiki\r\n0\r\nX-Twice: 1\r\nX-Twice: 2\r\n\r\n")).unwrap();
    let status = client.response("POST").unwrap().status;
    assert!([200, 400].contains(&status), "{status}");
    rig.assert_unharmed("twice the same trailer");
}

pub(crate) fn h1_17_too_many_request_trailers() {
    let rig = Rig::standard();
    let many: String = (0..5000).map(|i| format!("X-Trailer-{i}: {i}\r\n")).collect();
    rig.assert_body_refused("5000 trailers", format!("{CHUNKED}4\r\nwiki\r\n0\r\n{many}\r\n"), &[400, 431]);
    let big = format!("X-Big: {}\r\n", "x".repeat(1024 * 1024));
    rig.assert_body_refused(
        "a trailer of 1 MiB",
        format!("{CHUNKED}4\r\nwiki\r\n0\r\n{big}\r\n"),
        &[400, 431],
    );
    let mut client = rig.gateway.client();
    client.send(request("POST", "/fine", &[("Transfer-Encoding", "chunked")], b"")).unwrap();
    client.send(chunk(b"wiki")).unwrap();
    client.send("0\r\nX-A: 1\r\nX-B: 2\r\n\r\n").unwrap();
    assert_eq!(client.response("POST").unwrap().status, 200);
    assert_eq!(rig.backend.last_request().trailers.0.len(), 2);
}
