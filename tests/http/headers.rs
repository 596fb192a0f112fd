//! Which fields pass, which stay behind, which are added.

use crate::rig::gateway;
use testkit::{Backend, ms, request};

pub(crate) fn hop_by_hop_fields_stay_behind() {
    let backend = Backend::each(|_, conn| {
        conn.send(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Private\r\nX-Private: secret\r\nKeep-Alive: timeout=5\r\n\
             Proxy-Authenticate: Basic\r\nProxy-Connection: keep-alive\r\nX-Public: shown\r\n\
             Content-Length: 2\r\n\r\nok",
        )
    });
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    let fields = [
        ("Connection", "keep-alive, X-Hop, x-other-hop"),
        ("X-Hop", "1"),
        ("X-Other-Hop", "2"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic c2VjcmV0"),
        ("TE", "trailers, deflate"),
        ("Upgrade", "h2c"),
        ("X-End-To-End", "3"),
        ("Authorization", "Bearer token"),
        ("Cookie", "a=b"),
    ];
    let response = client.request("GET", "/", &fields, b"").unwrap();
    let seen = backend.last_request().head.headers;
    for gone in ["x-hop", "x-other-hop", "keep-alive", "proxy-connection", "proxy-authorization", "upgrade"] {
        assert!(!seen.has(gone), "{gone} reached the backend: {seen:?}");
    }
    assert!(!seen.lists("connection", "x-hop"), "{seen:?}");
    assert!(seen.list("te").iter().all(|item| item == "trailers"), "{seen:?}");
    for (kept, value) in [("x-end-to-end", "3"), ("authorization", "Bearer token"), ("cookie", "a=b")] {
        assert_eq!(seen.get(kept).as_deref(), Some(value));
    }
    let answered = &response.head.headers;
    for gone in ["x-private", "keep-alive", "proxy-authenticate", "proxy-connection"] {
        assert!(!answered.has(gone), "{gone} reached the client: {answered:?}");
    }
    assert_eq!(answered.get("x-public").as_deref(), Some("shown"));
    assert!(!response.closes());

    // Two Connection fields count as one list.
    let two =
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-One\r\nX-One: 1\r\nConnection: X-Two\r\nX-Two: 2\r\n\r\n";
    client.send(two).unwrap();
    client.response("GET").unwrap();
    let seen = backend.last_request().head.headers;
    assert!(!seen.has("x-one") && !seen.has("x-two"), "{seen:?}");
    backend.assert_clean();
}

pub(crate) fn forwarding_fields_are_added() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    let response = client.request("GET", "/", &[("Host", "shop.example:8080")], b"").unwrap();
    let seen = backend.last_request().head.headers;
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.all("x-forwarded-host"), ["shop.example:8080"]);
    assert_eq!(seen.all("host"), ["shop.example:8080"]);
    let via = seen.list("via");
    assert!(via.len() == 1 && via[0].contains("1.1 expressgateway"), "{via:?}");
    let via = response.head.headers.list("via");
    assert!(via.iter().all(|v| v.contains("1.1 expressgateway")), "{via:?}");
}

pub(crate) fn forwarding_fields_are_extended() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    let fields = [
        ("X-Forwarded-For", "203.0.113.7"),
        ("X-Forwarded-For", "198.51.100.2"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "lie.example"),
        ("X-Forwarded-Proto", "gopher"),
        ("Via", "1.0 fred"),
    ];
    client.request("GET", "/", &fields, b"").unwrap();
    let seen = backend.last_request().head.headers;
    assert_eq!(seen.list("x-forwarded-for"), ["203.0.113.7", "198.51.100.2", "127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["http"], "overwritten");
    assert_eq!(seen.all("x-forwarded-host"), ["test.example"], "overwritten");
    let via = seen.list("via");
    assert!(via.len() == 2 && via[0] == "1.0 fred" && via[1].contains("1.1 expressgateway"), "{via:?}");
    backend.assert_clean();
}

/// Values that a careless proxy changes.
const VALUES: &[(&str, &[u8])] = &[
    ("X-Utf8", "caf\u{e9} \u{1f980}".as_bytes()),
    ("X-Latin1", b"caf\xe9"),
    ("X-All-High", b"\x80\x81\xfe\xff"),
    ("X-Inner", b"two  spaces\tand a tab"),
    ("X-Quotes", b"\"quoted, with \\\" inside\""),
    ("X-Colon", b"a:b::c"),
    ("X-Empty", b""),
    ("x-lower-CASE-Mixed", b"V"),
    ("X-Symbols", b"!#$%&'()*+,-./;<=>?@[]^_`{|}~"),
    ("!#$%&'*+.^`|~0", b"an odd but allowed name"),
];

pub(crate) fn other_fields_arrive_byte_for_byte() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    let mut bytes = b"GET /fields HTTP/1.1\r\nHost: test.example\r\n".to_vec();
    for (name, value) in VALUES {
        bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    bytes.extend(b"Accept: a\r\nAccept: b\r\nX-Spaces:   around   \r\nX-Tight:value\r\n\r\n");
    client.send(bytes).unwrap();
    assert_eq!(client.response("GET").unwrap().status, 200);
    let seen = backend.last_request().head.headers;
    for (name, value) in VALUES {
        assert_eq!(seen.bytes(name), Some(*value), "{name}");
    }
    assert_eq!(seen.list("accept"), ["a", "b"]);
    assert_eq!(seen.get("x-spaces").as_deref(), Some("around"));
    assert_eq!(seen.get("x-tight").as_deref(), Some("value"));
    backend.assert_clean();
    // A hundred fields are usual enough.
    let many: Vec<(String, String)> = (0..100).map(|i| (format!("X-Field-{i}"), i.to_string())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(client.request("GET", "/", &many, b"").unwrap().status, 200);
    let seen = backend.last_request().head.headers;
    assert!((0..100).all(|i| seen.get(&format!("x-field-{i}")) == Some(i.to_string())));
}

pub(crate) fn response_fields_arrive_byte_for_byte() {
    let backend = Backend::each(|_, conn| {
        let mut bytes = b"HTTP/1.1 299 Any reason \xe9\r\nContent-Length: 0\r\n".to_vec();
        for (name, value) in VALUES {
            bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        bytes.extend(
            b"Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\nServer: origin/1.0\r\nDate: yesterday\r\n\r\n",
        );
        conn.send(bytes)
    });
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    client.send(request("GET", "/", &[], b"")).unwrap();
    let response = client.response("GET").unwrap();
    assert_eq!(response.status, 299);
    let seen = &response.head.headers;
    for (name, value) in VALUES {
        assert_eq!(seen.bytes(name), Some(*value), "{name}");
    }
    assert_eq!(seen.all("set-cookie"), ["a=1; Path=/", "b=2"]);
    assert_eq!(seen.all("server"), ["origin/1.0"]);
    assert_eq!(seen.all("date"), ["yesterday"]);
    client.quiet(ms(50)).unwrap();
}

pub(crate) fn trace_context_keeps_its_trace() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    client.request("GET", "/", &[("traceparent", parent), ("tracestate", "a=b,c=d")], b"").unwrap();
    let seen = backend.last_request().head.headers;
    let parents = seen.all("traceparent");
    assert_eq!(parents.len(), 1);
    assert!(parents[0].len() == 55 && parents[0].starts_with(&parent[..36]), "{parents:?}");
    assert_eq!(seen.list("tracestate"), ["a=b", "c=d"]);
}
