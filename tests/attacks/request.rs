//! What a client can do wrong with the head of a request.

use crate::rig::Rig;
use testkit::{Backend, request};

pub(crate) fn h1_09_connection_cannot_name_framing_or_host() {
    let rig = Rig::standard();
    let cases: &[(&str, &str, &[u8])] = &[
        ("Transfer-Encoding", "Transfer-Encoding: chunked\r\n", b"4\r\nwiki\r\n0\r\n\r\n"),
        ("transfer-encoding, x-other", "Transfer-Encoding: chunked\r\n", b"4\r\nwiki\r\n0\r\n\r\n"),
        ("Content-Length", "Content-Length: 4\r\n", b"wiki"),
        ("close, CONTENT-LENGTH", "Content-Length: 4\r\n", b"wiki"),
        ("Host", "Content-Length: 4\r\n", b"wiki"),
        ("host, keep-alive", "Content-Length: 4\r\n", b"wiki"),
    ];
    for (options, framing, body) in cases {
        rig.backend.forget();
        let mut client = rig.gateway.client();
        let head =
            format!("POST /named HTTP/1.1\r\nHost: test.example\r\nConnection: {options}\r\n{framing}\r\n");
        client.send([head.as_bytes(), body].concat()).unwrap();
        let response = client.response("POST").unwrap();
        assert!([200, 400].contains(&response.status), "{options}: {}", response.status);
        if response.status == 200 {
            let seen = rig.backend.last_request();
            assert!(seen.complete && seen.body == b"wiki", "{options}: {seen:?}");
            assert_eq!(seen.header("host").as_deref(), Some("test.example"), "{options}");
            let framed = framing.split(':').next().unwrap();
            assert!(seen.head.headers.has(framed), "{options}: the framing changed: {seen:?}");
        }
        rig.assert_unharmed(options);
    }
}

pub(crate) fn h1_10_malformed_field_lines() {
    let rig = Rig::standard();
    let lines: &[&[u8]] = &[
        b"X-Name : value",
        b"X-Name\t: value",
        b": value",
        b":",
        b"X Name: value",
        b"X-Name",
        b"X-N\0ame: value",
        b"X-N\x01ame: value",
        b"X-N\x7fame: value",
        b"X-N\xe9me: value",
        b"X-N(a)me: value",
        b"X-N\"ame: value",
        b"X-Name: va\0lue",
        b"X-Name: va\x01lue",
        b"X-Name: va\x1blue",
        b"X-Name: va\x7flue",
        b"Content-Length : 5",
        b"Transfer-Encoding : chunked",
        b"\0",
    ];
    for line in lines {
        let case = format!("{:?}", String::from_utf8_lossy(line));
        let bytes = [b"GET /line HTTP/1.1\r\nHost: test.example\r\n", *line, b"\r\n\r\n"].concat();
        rig.assert_refused(&case, bytes, &[400]);
    }
    let whole: &[(&str, &[u8])] = &[
        ("a field that begins with a space", b"GET /line HTTP/1.1\r\n Host: test.example\r\n\r\n"),
        ("an empty name before the end", b"GET /line HTTP/1.1\r\nHost: test.example\r\n:\r\n\r\n"),
        ("an empty name first", b"GET /line HTTP/1.1\r\n:\r\nHost: test.example\r\n\r\n"),
        ("a method that is no token", b"G(T /line HTTP/1.1\r\nHost: test.example\r\n\r\n"),
        ("NUL in the method", b"GE\0T /line HTTP/1.1\r\nHost: test.example\r\n\r\n"),
        ("NUL in the target", b"GET /li\0ne HTTP/1.1\r\nHost: test.example\r\n\r\n"),
        ("DEL in the target", b"GET /li\x7fne HTTP/1.1\r\nHost: test.example\r\n\r\n"),
        ("a tab in the target", b"GET /li\tne HTTP/1.1\r\nHost: test.example\r\n\r\n"),
        ("a space in the target", b"GET /li ne HTTP/1.1\r\nHost: test.example\r\n\r\n"),
        ("two spaces", b"GET  /line HTTP/1.1\r\nHost: test.example\r\n\r\n"),
        ("no target", b"GET HTTP/1.1\r\nHost: test.example\r\n\r\n"),
        ("a space after the version", b"GET /line HTTP/1.1 \r\nHost: test.example\r\n\r\n"),
        ("a version that is none", b"GET /line HTTP/1.1x\r\nHost: test.example\r\n\r\n"),
        ("a lower-case version", b"GET /line http/1.1\r\nHost: test.example\r\n\r\n"),
        ("a target without a slash", b"GET line HTTP/1.1\r\nHost: test.example\r\n\r\n"),
    ];
    for (case, bytes) in whole {
        rig.assert_refused(case, bytes, &[400, 505]);
    }
    // A continued line is refused, or becomes one line before anybody else sees it.
    rig.backend.forget();
    let mut client = rig.gateway.client();
    client.send("GET /folded HTTP/1.1\r\nHost: test.example\r\nX-Folded: one\r\n two\r\n\r\n").unwrap();
    let status = client.response("GET").unwrap().status;
    assert!([200, 400].contains(&status), "folded: {status}");
    rig.assert_unharmed("folded");
}

pub(crate) fn h1_11_host_that_is_missing_doubled_or_odd() {
    let rig = Rig::standard();
    let fields: &[&[u8]] = &[
        b"",
        b"Host: a.example\r\nHost: a.example\r\n",
        b"Host: a.example\r\nHost: b.example\r\n",
        b"Host: a.example\r\nX: 1\r\nhost: b.example\r\n",
        b"Host: a\0.example\r\n",
        b"Host: a.example,b.example\r\n",
        b"Host: a.example, b.example\r\n",
        b"Host: a.example b.example\r\n",
        b"Host: a.example\tb\r\n",
        b"Host: user@a.example\r\n",
        b"Host: user:secret@a.example\r\n",
        b"Host: a.example:99999\r\n",
        b"Host: a.example:port\r\n",
        b"Host: a.example:80:80\r\n",
        b"Host: a.example:-80\r\n",
        b"Host: a.example:+80\r\n",
        b"Host: [::1\r\n",
        b"Host: ::1]\r\n",
        b"Host: a.example/path\r\n",
        b"Host: a.example?query\r\n",
        b"Host: a.example#fragment\r\n",
        b"Host: a\\b.example\r\n",
        b"Host: http://a.example\r\n",
    ];
    for field in fields {
        let case = format!("{:?}", String::from_utf8_lossy(field));
        rig.assert_refused(&case, [b"GET /host HTTP/1.1\r\n", *field, b"\r\n"].concat(), &[400]);
    }
    for fine in ["a.example", "a.example:8080", "127.0.0.1", "[::1]", "[::1]:8080", "A.Example."] {
        let mut client = rig.gateway.client();
        let response = client.request("GET", "/host", &[("Host", fine)], b"").unwrap();
        assert_eq!(response.status, 200, "Host: {fine}");
        assert_eq!(rig.backend.last_request().header("host").as_deref(), Some(fine));
    }
}

pub(crate) fn h1_11_absolute_target_must_agree_with_host() {
    let rig = Rig::standard();
    let differ = [
        ("http://a.example/x", "b.example"),
        ("http://a.example:81/x", "a.example:82"),
        ("http://user@a.example/x", "a.example"),
        ("http://a.example,b.example/x", "a.example,b.example"),
        ("http:///x", "a.example"),
    ];
    for (target, host) in differ {
        let case = format!("{target} with Host: {host}");
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        rig.assert_refused(&case, bytes, &[400]);
    }
    let mut client = rig.gateway.client();
    let response = client.request("GET", "http://a.example/x?y", &[("Host", "a.example")], b"").unwrap();
    assert_eq!(response.status, 200);
    let seen = rig.backend.last_request();
    assert!(["/x?y", "http://a.example/x?y"].contains(&seen.target()), "{}", seen.target());
    assert_eq!(seen.header("host").as_deref(), Some("a.example"));
}

const TWINS: &str = "GET /twins HTTP/1.1\r\nHost: test.example\r\nX-Twin: dash\r\nX_Twin: underscore\r\n\r\n";
const SINGLE: &str = "GET /single HTTP/1.1\r\nHost: test.example\r\nX_Single: underscore\r\n\r\n";

pub(crate) fn h1_12_underscore_names_are_rejected_by_default() {
    let rig = Rig::standard();
    rig.assert_refused("twins", TWINS, &[400]);
    rig.assert_refused("an underscore alone", SINGLE, &[400]);
    rig.assert_refused("Content_Length", SINGLE.replace("X_Single", "Content_Length"), &[400]);
}

pub(crate) fn h1_12_underscore_names_follow_the_policy() {
    let with_policy = |policy: &'static str| {
        Rig::with(
            Backend::standard("origin"),
            |config| config.runtime("header_underscore_policy", policy),
            |listener| listener,
        )
    };
    let drop_them = with_policy("drop");
    let allow_them = with_policy("allow");
    for bytes in [TWINS, SINGLE] {
        let mut client = drop_them.gateway.client();
        client.send(bytes).unwrap();
        assert_eq!(client.response("GET").unwrap().status, 200);
        let seen = drop_them.backend.last_request();
        assert!(!seen.head.headers.has("x_twin") && !seen.head.headers.has("x_single"), "{seen:?}");

        let mut client = allow_them.gateway.client();
        client.send(bytes).unwrap();
        assert_eq!(client.response("GET").unwrap().status, 200);
        let seen = allow_them.backend.last_request();
        assert!(seen.head.headers.has("x_twin") || seen.head.headers.has("x_single"), "{seen:?}");
    }
    let seen = drop_them.backend.requests();
    assert_eq!(seen[0].header("x-twin").as_deref(), Some("dash"), "the twin with the dash stays");
}

pub(crate) fn h1_13_odd_paths_arrive_unchanged_or_not_at_all() {
    let rig = Rig::standard();
    // (path, whether it may be refused as well)
    let paths: &[(&str, bool)] = &[
        ("/a%2fb", false),
        ("/a%2Fb", false),
        ("/%2e%2e/secret", false),
        ("/a/../b", false),
        ("/a/./b", false),
        ("//double", false),
        ("/a//b", false),
        ("/a;param/b", false),
        ("/a;x=1/../b", false),
        ("/?", false),
        ("/a?b=//c?d", false),
        ("/%c3%a9", false),
        ("/a%00b", true),
        ("/a%0d%0aX:%20y", true),
        ("/a\\b", true),
        ("/%5c", true),
        ("/%zz", true),
        ("/%", true),
        ("/a#b", true),
        ("/\u{e9}", true),
        ("/a|b", true),
        ("/{a}", true),
        ("/\"a\"", true),
    ];
    for (path, refusable) in paths {
        rig.backend.forget();
        let mut client = rig.gateway.client();
        client.send(request("GET", path, &[], b"")).unwrap();
        let response = client.response("GET").unwrap();
        if response.status == 400 && *refusable {
            assert!(rig.backend.requests().is_empty(), "{path} was refused and forwarded");
        } else {
            assert_eq!(response.status, 200, "{path}");
            assert_eq!(rig.backend.last_request().target(), *path);
        }
        rig.assert_unharmed(path);
    }
}
