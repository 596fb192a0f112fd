//! What becomes of fields on their way from one version to the other.

use crate::rig::{CELLS, Cell, Rig};
use testkit::h2::hpack;
use testkit::{Origin, Version};

pub(crate) fn fields_pass_byte_for_byte() {
    for cell in CELLS {
        let rig = Rig::scripted(cell, |exchange| {
            exchange.drain()?;
            let fields = [
                ("x-one", "1"),
                ("set-cookie", "a=1; Path=/"),
                ("x-latin", "caf\u{e9}"),
                ("set-cookie", "b=2, c"),
                ("x-empty", ""),
                ("server", "origin/1"),
            ];
            exchange.respond(200, &fields, b"ok")
        });
        let mut front = rig.front();
        let fields = [
            ("x-two", "a"),
            ("x-two", "b, c"),
            ("x-quoted", "\"a, \\\"b\""),
            ("x-utf8", "\u{fc}"),
            ("x-nil", ""),
        ];
        let answer = front.request("GET", "/", &fields, b"").unwrap();
        assert_eq!(answer.headers.all("set-cookie"), ["a=1; Path=/", "b=2, c"], "{cell:?}");
        assert_eq!(answer.headers.bytes("x-latin"), Some("caf\u{e9}".as_bytes()), "{cell:?}");
        assert_eq!(answer.headers.get("x-empty").as_deref(), Some(""), "{cell:?}");
        let seen = rig.origin.last_request().headers;
        assert_eq!(seen.all("x-two"), ["a", "b, c"], "{cell:?}");
        assert_eq!(seen.get("x-quoted").as_deref(), Some("\"a, \\\"b\""), "{cell:?}");
        assert_eq!(seen.bytes("x-utf8"), Some("\u{fc}".as_bytes()), "{cell:?}");
        assert_eq!(seen.get("x-nil").as_deref(), Some(""), "{cell:?}");
        rig.origin.assert_clean();
    }
}

pub(crate) fn cookie_crumbs_become_one() {
    for cell in CELLS {
        let rig = Rig::standard(cell);
        let crumbs: &[(&str, &str)] = match cell.front {
            Version::H1 => &[("cookie", "a=1; b=2; c=3")],
            _ => &[("cookie", "a=1"), ("x-between", "1"), ("cookie", "b=2"), ("cookie", "c=3")],
        };
        rig.front().request("GET", "/", crumbs, b"").unwrap();
        let seen = rig.origin.last_request().headers;
        match cell.back {
            Version::H1 => assert_eq!(seen.all("cookie"), ["a=1; b=2; c=3"], "{cell:?}"),
            _ => assert_eq!(seen.all("cookie").join("; "), "a=1; b=2; c=3", "{cell:?}"),
        }
        rig.origin.assert_clean();
    }
}

/// gRPC needs `te: trailers` from end to end of HTTP/2 and HTTP/3. HTTP/1.1 may lose it, as a field of one connection; nothing else passes.
pub(crate) fn te_trailers_is_all_of_te_that_passes() {
    for cell in CELLS {
        let rig = Rig::standard(cell);
        let mut front = rig.front();
        front.request("GET", "/", &[("te", "trailers")], b"").unwrap();
        let seen = rig.origin.last_request().headers.list("te");
        let whole_way = cell.has_streams() && cell.back != Version::H1;
        assert!(seen == ["trailers"] || seen.is_empty() && !whole_way, "{cell:?}: {seen:?}");
        if cell.front == Version::H1 {
            front.request("GET", "/", &[("te", "trailers, deflate"), ("connection", "te")], b"").unwrap();
            let seen = rig.origin.last_request().headers;
            assert!(seen.list("te").iter().all(|item| item == "trailers"), "{cell:?}: {seen:?}");
        }
        rig.origin.assert_clean();
    }
}

/// What HTTP/1.1 says about one connection never enters HTTP/2, in either direction: the strict readers see to the rest.
pub(crate) fn hop_by_hop_fields_stay_behind() {
    for cell in CELLS {
        let origin = match cell.back {
            Version::H1 => Origin::H1(testkit::Backend::each(|_, conn| {
                conn.send(
                    "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Private\r\nX-Private: secret\r\n\
                     Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\nX-Public: shown\r\n\
                     Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                )
            })),
            back => Origin::start(back, |exchange| exchange.respond(200, &[("x-public", "shown")], b"ok")),
        };
        let rig = Rig::on(cell, origin, |listener| listener);
        let fields: &[(&str, &str)] = match cell.front {
            Version::H1 => &[
                ("connection", "keep-alive, X-Hop"),
                ("x-hop", "1"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "keep-alive"),
                ("upgrade", "h2c"),
                ("proxy-authorization", "Basic c2VjcmV0"),
                ("x-end-to-end", "3"),
            ],
            _ => &[("proxy-authorization", "Basic c2VjcmV0"), ("x-end-to-end", "3")],
        };
        let answer = rig.front().request("GET", "/", fields, b"").unwrap_or_else(|e| panic!("{cell:?}: {e}"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{cell:?}");
        for gone in ["x-private", "keep-alive", "proxy-connection", "upgrade"] {
            assert!(!answer.headers.has(gone), "{cell:?}: {gone} reached the client");
        }
        assert_eq!(answer.headers.get("x-public").as_deref(), Some("shown"), "{cell:?}");
        let seen = rig.origin.last_request().headers;
        for gone in ["x-hop", "keep-alive", "proxy-connection", "upgrade", "proxy-authorization"] {
            assert!(!seen.has(gone), "{cell:?}: {gone} reached the backend");
        }
        assert_eq!(seen.get("x-end-to-end").as_deref(), Some("3"), "{cell:?}");
        rig.origin.assert_clean();
    }
}

pub(crate) fn forwarding_fields() {
    for cell in CELLS {
        let rig = Rig::standard(cell);
        let mut front = rig.front();
        let fields = [
            ("x-forwarded-for", "203.0.113.7"),
            ("x-forwarded-proto", "gopher"),
            ("x-forwarded-host", "lie.example"),
            ("via", "1.0 fred"),
        ];
        front.request("GET", "/", &fields, b"").unwrap();
        let seen = rig.origin.last_request().headers;
        assert_eq!(seen.list("x-forwarded-for"), ["203.0.113.7", "127.0.0.1"], "{cell:?}");
        assert_eq!(seen.all("x-forwarded-proto"), [cell.scheme()], "{cell:?}");
        assert_eq!(seen.all("x-forwarded-host"), ["test.example"], "{cell:?}");
        let via = seen.list("via");
        // The version is that in which the message was received (RFC 9110 section 7.6.3).
        let received = |own: &str| {
            let version = own.strip_prefix("HTTP/").unwrap_or(own);
            let wanted = match cell.front {
                Version::H1 => "1.1",
                Version::H2 => "2",
                Version::H3 => "3",
            };
            version.starts_with(wanted) && own.ends_with("expressgateway")
        };
        assert!(via.len() == 2 && via[0] == "1.0 fred" && received(&via[1]), "{cell:?}: {via:?}");
    }
}

pub(crate) fn host_and_authority() {
    for cell in CELLS {
        let rig = Rig::standard(cell);
        for name in ["shop.example:8080", "[::1]:80", "xn--bcher-kva.example"] {
            let mut front = rig.front();
            front.set_name(name);
            assert_eq!(front.get("/").unwrap().status, 200, "{cell:?} {name}");
            let last = rig.origin.last_request();
            assert_eq!(last.authority, name, "{cell:?}");
            let hosts = last.headers.all("host").len();
            assert_eq!(hosts, usize::from(cell.back == Version::H1), "{cell:?}: Host and :authority at once");
        }
        if let Origin::H2(backend) = &rig.origin {
            assert!(
                backend.requests().iter().all(|r| r.header(":scheme").as_deref() == Some("http")),
                "{cell:?}"
            );
        }
        rig.origin.assert_clean();
    }
}

/// A request of HTTP/1.0 may name nobody: a backend that speaks HTTP/2 is told the same name as one that speaks HTTP/1.1.
pub(crate) fn requests_without_host() {
    let names = [Version::H1, Version::H2].map(|back| {
        let cell = Cell { front: Version::H1, back };
        let rig = Rig::standard(cell);
        let mut client = rig.gateway.client();
        client.send("GET /unnamed HTTP/1.0\r\n\r\n").unwrap();
        assert_eq!(client.response("GET").unwrap().text(), "one", "{cell:?}");
        let seen = rig.origin.last_request();
        assert_eq!(seen.headers.all("host").len(), usize::from(back == Version::H1), "{cell:?}");
        rig.origin.assert_clean();
        let own_name = match &rig.origin {
            Origin::H1(backend) => backend.address.to_string(),
            Origin::H2(backend) => backend.address.to_string(),
        };
        seen.authority.replace(&own_name, "the backend's own")
    });
    assert!(!names[0].is_empty());
    assert_eq!(names[0], names[1]);
}

/// OPTIONS * is a target of its own, in both versions.
pub(crate) fn options_asterisk() {
    for cell in CELLS {
        let rig = Rig::standard(cell);
        let answer = rig.front().request("OPTIONS", "*", &[], b"").unwrap();
        if answer.status == 200 {
            assert_eq!(rig.origin.last_request().path, "*", "{cell:?}");
        } else {
            assert_eq!(answer.status, 400, "{cell:?}");
        }
    }
}

/// Heads of several frames in both directions.
pub(crate) fn large_heads() {
    for cell in CELLS {
        let rig = Rig::scripted(cell, |exchange| {
            exchange.drain()?;
            let large = "r".repeat(10_000);
            let fields = [("x-a", large.as_str()), ("x-b", &large), ("x-c", &large), ("x-d", &large)];
            exchange.respond(200, &fields, b"ok")
        });
        let large = "q".repeat(10_000);
        let fields =
            [("x-a", large.as_str()), ("x-b", &large), ("x-c", &large), ("x-d", &large), ("x-e", &large)];
        let mut front = rig.front();
        for round in 0..3 {
            let answer =
                front.request("GET", "/", &fields, b"").unwrap_or_else(|e| panic!("{cell:?} {round}: {e}"));
            assert_eq!(answer.status, 200, "{cell:?}");
            for name in ["x-a", "x-b", "x-c", "x-d"] {
                assert_eq!(answer.headers.get(name).map(|v| v.len()), Some(10_000), "{cell:?} {name}");
            }
            let seen = rig.origin.last_request().headers;
            assert_eq!(seen.get("x-e").map(|v| v.len()), Some(10_000), "{cell:?}");
        }
        rig.origin.assert_clean();
    }
}

pub(crate) fn heads_over_the_limit_are_431() {
    for cell in CELLS {
        let rig = Rig::standard(cell);
        let ask = |front: &mut testkit::Front, total: usize| {
            let piece = "v".repeat(total / 4);
            let fields = [("x-a", piece.as_str()), ("x-b", &piece), ("x-c", &piece), ("x-d", &piece)];
            front.request("GET", "/", &fields, b"").map(|answer| answer.status)
        };
        let mut front = rig.front();
        assert_eq!(ask(&mut front, 60_000).unwrap(), 200, "{cell:?}");
        assert_eq!(ask(&mut front, 66_000).unwrap(), 431, "{cell:?}");
        if cell.has_streams() {
            assert_eq!(
                ask(&mut front, 60_000).unwrap(),
                200,
                "{cell:?}: a stream's fault is not the connection's"
            );
            let many: Vec<_> = (0..500).map(|_| ("x", "y")).collect();
            assert_eq!(front.request("GET", "/", &many, b"").unwrap().status, 431, "{cell:?}: 500 fields");
            let crumbs: Vec<_> = (0..500).map(|_| ("cookie", "y")).collect();
            assert_eq!(front.request("GET", "/", &crumbs, b"").unwrap().status, 431, "{cell:?}: 500 crumbs");
        }
        rig.origin.assert_clean();
    }
    // The key of h2_security is what counts on HTTP/2, and it is told in SETTINGS.
    let origin = Origin::standard(Version::H1, "one");
    let rig = Rig::on(CELLS[2], origin, |listener| listener.h2("max_header_list_size", 2000));
    let mut client = rig.h2();
    assert_eq!(client.settings.get(&testkit::h2::setting::MAX_HEADER_LIST_SIZE), Some(&2000));
    assert_eq!(client.request("GET", "/", &[("x", &"v".repeat(1000))], b"").unwrap().status(), 200);
    assert_eq!(client.request("GET", "/", &[("x", &"v".repeat(2000))], b"").unwrap().status(), 431);
}

/// The limit that a backend tells is its own affair to enforce; one that the gateway can keep, it keeps.
pub(crate) fn huffman_and_tables_are_understood() {
    // curl and nghttp code with Huffman and the dynamic table; here the corner cases: a table of no size, and back.
    let rig = Rig::standard(CELLS[2]);
    let mut client = rig.h2();
    for (round, size) in [0, 4096, 100, 4096].into_iter().enumerate() {
        let mut block = hpack::table_size(size);
        block.extend(hpack::block(&client.fields("GET", "/table", &[])));
        block.extend(hpack::incremental("x-kept", format!("{round}")));
        if size > 0 {
            block.extend(hpack::indexed(hpack::FIRST_DYNAMIC));
        }
        let stream = client.open_block(&block, true).unwrap();
        assert_eq!(client.response(stream).unwrap().status(), 200, "round {round}");
        let wanted = vec![round.to_string(); if size > 0 { 2 } else { 1 }];
        assert_eq!(rig.origin.last_request().headers.all("x-kept"), wanted, "round {round}");
    }
    // An index that does not exist is a COMPRESSION_ERROR of the connection.
    let block = [hpack::block(&client.fields("GET", "/", &[])), hpack::indexed(100)].concat();
    client.open_block(&block, true).unwrap();
    client.closed(testkit::seconds(5)).unwrap();
    assert_eq!(client.goaways.last().map(|g| g.code), Some(testkit::h2::code::COMPRESSION_ERROR));
}
