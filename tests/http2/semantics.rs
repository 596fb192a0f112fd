//! What a gateway between two versions of HTTP owes to both: lengths that one of them needs said, fields that one of them does not
//! have, and requests that are for the gateway itself.

use crate::rig::{BOTH, CELLS, Cell, Rig};
use testkit::front::Upload;
use testkit::h2::hpack;
use testkit::{Fault, Origin, Version, request};

/// RFC 9110 §8.6: servers answer 411 to a POST whose length nobody tells. In HTTP/2 the end of the stream tells it.
pub(crate) fn requests_without_content_say_so_to_http_1() {
    for cell in CELLS {
        let rig = Rig::standard(cell);
        let mut front = rig.front();
        for method in ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "PUT", "PATCH", "PROPFIND", "post"] {
            let answer = front.request(method, "/", &[], b"");
            assert_eq!(answer.unwrap_or_else(|e| panic!("{cell:?} {method}: {e}")).status, 200, "{cell:?}");
            let seen = rig.origin.last_request();
            let said = cell.back == Version::H1 && ["POST", "PUT", "PATCH"].contains(&method);
            assert_eq!(
                seen.headers.get("content-length").as_deref(),
                said.then_some("0"),
                "{cell:?} {method}"
            );
            assert!(!seen.headers.has("transfer-encoding"), "{cell:?} {method}");
        }
        // What the client says itself is not said twice.
        front.open("POST", "/", &[], Upload::Sized(0)).unwrap();
        front.finish(&[]).unwrap();
        assert_eq!(front.answer().unwrap().status, 200, "{cell:?}");
        let seen = rig.origin.last_request();
        assert_eq!(seen.headers.all("content-length"), ["0"], "{cell:?}");
        assert!(!seen.headers.has("transfer-encoding"), "{cell:?}");
        if cell.front == Version::H1 {
            let mut old = rig.gateway.client();
            old.send("POST / HTTP/1.0\r\nHost: a\r\n\r\n").unwrap();
            assert_eq!(old.response("POST").unwrap().status, 200, "{cell:?}");
            let said = (cell.back == Version::H1).then_some("0");
            assert_eq!(rig.origin.last_request().headers.get("content-length").as_deref(), said, "{cell:?}");
        }
        rig.origin.assert_clean();
    }
}

/// The same in answers: HTTP/1.1 is told that nothing follows where nothing else says so, and is told nothing untrue.
pub(crate) fn answers_without_content_say_so_to_http_1() {
    for cell in CELLS {
        let rig = Rig::scripted(cell, |exchange| {
            exchange.drain()?;
            match exchange.path().as_str() {
                "/bare/204" => exchange.bare(204, &[]),
                "/bare/304" => exchange.bare(304, &[("content-length", "100")]),
                "/head" => exchange.bare(200, &[]),
                "/head/sized" => exchange.bare(200, &[("content-length", "100")]),
                path => {
                    let status = path.trim_start_matches('/').parse().unwrap();
                    exchange.respond(status, &[], b"")
                }
            }
        });
        let mut front = rig.front();
        for (method, path, length) in [
            ("GET", "/200", Some("0")),
            ("GET", "/205", Some("0")),
            ("DELETE", "/200", Some("0")),
            ("GET", "/bare/204", None),
            ("GET", "/bare/304", Some("100")),
            ("HEAD", "/head/sized", Some("100")),
            ("HEAD", "/head", None),
        ] {
            let answer =
                front.request(method, path, &[], b"").unwrap_or_else(|e| panic!("{cell:?} {path}: {e}"));
            assert_eq!(answer.body.len(), 0, "{cell:?} {path}");
            assert_eq!(answer.headers.get("content-length").as_deref(), length, "{cell:?} {method} {path}");
            assert!(!answer.headers.has("transfer-encoding"), "{cell:?} {path}");
        }
        rig.origin.assert_clean();
    }
    // An end of the stream alone is all that HTTP/2 says.
    let rig =
        Rig::scripted(Cell { front: Version::H1, back: Version::H2 }, |exchange| exchange.bare(205, &[]));
    let mut client = rig.gateway.client();
    for _ in 0..2 {
        let answer = client.get("/").unwrap();
        assert_eq!((answer.status, answer.header("content-length").as_deref()), (205, Some("0")));
    }
}

/// RFC 9110 §15.5.22: without `Upgrade`, a 426 tells nothing. HTTP/2 and HTTP/3 have no such field.
pub(crate) fn upgrade_in_a_final_answer() {
    for cell in CELLS.into_iter().filter(|cell| cell.back == Version::H1) {
        let rig = Rig::scripted(cell, |exchange| {
            exchange.drain()?;
            let fields = [("connection", "Upgrade, X-Hop"), ("x-hop", "1"), ("upgrade", "HTTP/3.0, TLS/1.2")];
            exchange.interim(103, &fields)?;
            let status = exchange.path().trim_start_matches('/').parse().unwrap();
            exchange.respond(status, &fields, b"no")
        });
        if cell.has_streams() {
            let mut front = rig.front();
            for status in [426, 200] {
                let answer = front.get(&format!("/{status}")).unwrap();
                assert_eq!((answer.status, answer.text().as_str()), (status, "no"));
                assert!(!answer.headers.has("upgrade") && !answer.headers.has("connection"), "{answer:?}");
            }
            continue;
        }
        // A 426 is nothing without the field, whatever its server forgets.
        let bare = Rig::scripted(cell, |exchange| exchange.respond(426, &[("upgrade", "tls")], b"no"));
        let answer = bare.gateway.get("/");
        assert_eq!(answer.header("upgrade").as_deref(), Some("tls"));
        assert!(answer.head.headers.lists("connection", "upgrade"), "{answer:?}");
        for status in [426, 200] {
            let mut client = rig.gateway.client();
            for closes in [false, true] {
                let own: &[(&str, &str)] = if closes { &[("Connection", "close")] } else { &[] };
                let answer = client.request("GET", &format!("/{status}"), own, b"").unwrap();
                let fields = &answer.head.headers;
                assert_eq!(fields.all("upgrade"), ["HTTP/3.0, TLS/1.2"], "{status}");
                assert!(fields.lists("connection", "upgrade"), "{fields:?}");
                assert_eq!(fields.all("connection").len(), 1, "{fields:?}");
                assert_eq!((answer.closes(), fields.has("x-hop")), (closes, false), "{fields:?}");
                let hints = &answer.interim[0].headers;
                assert!(!hints.has("upgrade") && !hints.has("connection"), "{hints:?}");
            }
        }
        // HTTP/1.0 has no upgrades (RFC 9110 §7.8).
        let mut old = rig.gateway.client();
        old.send("GET /426 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").unwrap();
        let answer = old.response("GET").unwrap();
        assert!(!answer.head.headers.has("upgrade") && !answer.head.headers.lists("connection", "upgrade"));
    }
}

/// RFC 9110 §7.6.2: a request that may be forwarded no further is answered here, any other is counted down.
pub(crate) fn max_forwards() {
    for cell in CELLS {
        let rig = Rig::standard(cell);
        let mut front = rig.front();
        for (method, status) in [("OPTIONS", 200), ("TRACE", 405)] {
            for zero in ["0", "000"] {
                let before = rig.origin.request_count();
                let answer = front.request(method, "/path", &[("max-forwards", zero)], b"").unwrap();
                assert_eq!(answer.status, status, "{cell:?} {method}");
                assert!(answer.headers.get("allow").is_some_and(|allow| allow.contains("GET, HEAD, POST")));
                assert_eq!(rig.origin.request_count(), before, "{cell:?} {method}: it was forwarded");
            }
            let largest = u64::MAX.to_string();
            for (told, passed) in [
                ("1", "0"),
                ("10", "9"),
                ("007", "6"),
                (largest.as_str(), "18446744073709551614"),
                ("99999999999999999999999999", "18446744073709551614"),
                ("ten", "ten"),
                ("-1", "-1"),
                ("", ""),
            ] {
                let answer = front.request(method, "/path", &[("max-forwards", told)], b"").unwrap();
                assert_eq!(answer.status, 200, "{cell:?} {method} {told}");
                let seen = rig.origin.last_request();
                assert_eq!(seen.headers.all("max-forwards"), [passed], "{cell:?} {method} {told:?}");
            }
            assert_eq!(front.request(method, "/path", &[], b"").unwrap().status, 200, "{cell:?} {method}");
            assert!(!rig.origin.last_request().headers.has("max-forwards"), "{cell:?} {method}");
        }
        // Other methods have no such field.
        let answer = front.request("GET", "/path", &[("max-forwards", "0")], b"").unwrap();
        assert_eq!(answer.status, 200, "{cell:?}");
        assert_eq!(rig.origin.last_request().headers.get("max-forwards").as_deref(), Some("0"), "{cell:?}");
        // Whole, and with the connection in order: the next request on it is answered.
        let answer = front.request("OPTIONS", "*", &[("max-forwards", "0")], b"").unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{cell:?}");
        assert_eq!(front.get("/").unwrap().text(), "one", "{cell:?}");
        rig.origin.assert_clean();
    }
}

/// Names that are equal but for letter case and a default port are one name (RFC 9110 §4.2.3); others are two (attack H2-10).
pub(crate) fn authority_and_host_that_are_equal() {
    let equal = [
        ("http", "shop.example", "SHOP.example"),
        ("http", "shop.example:80", "shop.example"),
        ("http", "Shop.Example", "shop.example:80"),
        ("https", "shop.example", "shop.example:443"),
        ("http", "shop.example:", "shop.example"),
        ("http", "[::1]:80", "[::1]"),
        ("https", "shop.example:8080", "SHOP.EXAMPLE:8080"),
    ];
    let different = [
        ("http", "shop.example", "shop.example:443"),
        ("https", "shop.example", "shop.example:80"),
        ("http", "shop.example:8080", "shop.example"),
        ("http", "shop.example", "shop.example."),
        ("http", "shop.example", "shopexample"),
        ("http", "[::1]", "[::2]"),
        ("http", "shop.example", ""),
    ];
    for back in BOTH {
        let rig = Rig::standard(Cell { front: Version::H2, back });
        let mut client = rig.h2();
        let mut open = |scheme, authority, host| {
            let fields = [
                (":method", "GET"),
                (":scheme", scheme),
                (":authority", authority),
                (":path", "/"),
                ("host", host),
            ];
            let stream = client.open_block(&hpack::block(&fields), true).unwrap();
            client.over(stream).unwrap()
        };
        for (scheme, authority, host) in equal {
            let answer = open(scheme, authority, host);
            assert_eq!(answer.status(), 200, "{scheme} {authority} {host}");
            assert_eq!(rig.origin.last_request().authority, authority, "{scheme} {host}");
        }
        let before = rig.origin.request_count();
        for (scheme, authority, host) in different {
            assert!(open(scheme, authority, host).reset.is_some(), "{scheme} {authority} {host}");
        }
        assert_eq!(rig.origin.request_count(), before);
        let absolute = |scheme: &str, authority: &str, host: &str| {
            let mut client = rig.gateway.client();
            client.send(format!("GET {scheme}://{authority}/p HTTP/1.1\r\nHost: {host}\r\n\r\n")).unwrap();
            client.response("GET").unwrap().status
        };
        for (scheme, authority, host) in equal {
            assert_eq!(absolute(scheme, authority, host), 200, "{scheme} {authority} {host}");
        }
        for (scheme, authority, host) in different {
            assert_eq!(absolute(scheme, authority, host), 400, "{scheme} {authority} {host}");
        }
        rig.origin.assert_clean();
    }
}

/// An absolute target without a path has the path `/` (RFC 9110 §4.2.3), and `*` where OPTIONS asks (RFC 9112 §3.2.4).
pub(crate) fn absolute_targets_without_a_path() {
    for back in BOTH {
        let rig = Rig::standard(Cell { front: Version::H1, back });
        let mut client = rig.gateway.client();
        for (method, target, passed) in [
            ("GET", "http://shop.example", "/"),
            ("GET", "http://shop.example?q=1", "/?q=1"),
            ("GET", "http://SHOP.example:80?", "/?"),
            ("GET", "http://shop.example?/..//?", "/?/..//?"),
            ("OPTIONS", "http://shop.example", "*"),
            ("OPTIONS", "http://shop.example?q=1", "/?q=1"),
            ("OPTIONS", "http://shop.example/", "/"),
        ] {
            client.send(request(method, target, &[("Host", "shop.example")], b"")).unwrap();
            assert_eq!(client.response(method).unwrap().status, 200, "{method} {target}");
            assert_eq!(rig.origin.last_request().path, passed, "{method} {target}");
        }
        rig.origin.assert_clean();
    }
}

/// The gateway's own 426 names what it would speak.
pub(crate) fn our_own_426_has_its_upgrade() {
    let origin = Origin::start(Version::H1, |_| Err(Fault::Closed));
    let rig =
        Rig::on(Cell { front: Version::H1, back: Version::H1 }, origin, |listener| listener.websocket());
    let mut client = rig.gateway.client();
    let fields = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "8"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let answer = client.request("GET", "/", &fields, b"").unwrap();
    let told = &answer.head.headers;
    assert_eq!((answer.status, told.get("upgrade").as_deref()), (426, Some("websocket")), "{told:?}");
    assert!(told.lists("connection", "upgrade") && told.lists("connection", "close"), "{told:?}");
}
