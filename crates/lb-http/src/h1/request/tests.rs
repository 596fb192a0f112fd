use super::*;

fn limits() -> HeadLimits {
    HeadLimits {
        bytes: 4096,
        fields: 16,
        target: 256,
        underscore: UnderscorePolicy::Reject,
        strict_te: false,
        websocket: true,
    }
}

fn read(text: &[u8]) -> Result<Option<(ParsedRequest, RequestHead)>, Reject> {
    let mut head = RequestHead::default();
    let parsed = parse(text, &limits(), &mut head)?;
    Ok(parsed.map(|parsed| (parsed, head)))
}

fn ok(text: &str) -> (ParsedRequest, RequestHead) {
    read(text.as_bytes()).unwrap().unwrap()
}

fn status(text: &str) -> u16 {
    read(text.as_bytes()).unwrap_err().status
}

#[test]
fn a_head_is_taken_apart() {
    let (parsed, head) = ok("GET /a?b HTTP/1.1\r\nHost: x:80\r\nAccept:  */* \r\n\r\nrest");
    assert_eq!((head.method(), head.target(), head.authority()), (&b"GET"[..], &b"/a?b"[..], &b"x:80"[..]));
    assert_eq!(head.fields.value_of(b"accept"), Some(&b"*/*"[..]));
    assert_eq!((head.body, parsed.keep_alive), (BodyLength::None, true));
    assert_eq!(parsed.consumed, "GET /a?b HTTP/1.1\r\nHost: x:80\r\nAccept:  */* \r\n\r\n".len());
}

#[test]
fn bodies_are_carried_for_every_method() {
    assert_eq!(ok("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n").1.body, BodyLength::Known(5));
    let (parsed, head) = ok("DELETE / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!((head.body, parsed.chunked), (BodyLength::Unknown, true));
}

#[test]
fn persistence_follows_version_and_connection() {
    assert!(!ok("GET / HTTP/1.0\r\n\r\n").0.keep_alive);
    assert!(ok("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").0.keep_alive);
    assert!(!ok("GET / HTTP/1.1\r\nHost: x\r\nConnection: foo, Close\r\n\r\n").0.keep_alive);
}

#[test]
fn absolute_targets_become_origin_form() {
    let (_, head) = ok("GET http://x.example/p?q HTTP/1.1\r\nHost: X.example\r\n\r\n");
    assert_eq!(head.target(), b"/p?q");
    for (target, path) in [
        ("GET http://x", "/"),
        ("GET http://x?q", "/?q"),
        ("GET http://X:80?", "/?"),
        ("GET https://x:443/a", "/a"),
        ("OPTIONS http://x", "*"),
        ("OPTIONS http://x?q", "/?q"),
    ] {
        assert_eq!(
            ok(&format!("{target} HTTP/1.1\r\nHost: x\r\n\r\n")).1.target(),
            path.as_bytes(),
            "{target}"
        );
    }
    assert_eq!(status("GET http://x:443/ HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
    assert_eq!(ok("GET HTTPS://x/q HTTP/1.1\r\nHost: x\r\n\r\n").1.target(), b"/q");
    assert_eq!(status("GET https://y/ HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
    assert_eq!(status("GET http://y/ HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
    assert_eq!(status("GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
}

#[test]
fn only_websocket_upgrades_are_honoured() {
    let upgrade = |token: &str| {
        let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {token}\r\n{key}\r\n")
    };
    assert_eq!(ok(&upgrade("WebSocket")).1.upgrade(), b"WebSocket");
    assert_eq!(ok(&upgrade("h2c")).1.upgrade(), b"");
    // A handshake that no server could agree to goes no further.
    assert_eq!(status(&upgrade("websocket").replace("Key: d", "Key: ")), 400);
    assert_eq!(status(&upgrade("websocket").replace(": 13", ": 8")), 426);
}

#[test]
fn h1_05_bare_line_ends() {
    assert_eq!(status("GET / HTTP/1.1\nHost: x\n\n"), 400);
    assert_eq!(status("GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n"), 400);
    assert_eq!(status("GET / HTTP/1.1\r\nHost: x\r\n\n"), 400);
    assert_eq!(status("GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n"), 400);
    assert_eq!(status("\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
}

#[test]
fn h1_10_names_and_values() {
    for line in
        ["A : b", ": b", "A\0: b", "A: b\0", " A: b", "A b: c", "A: b\x01", "A: b\r\n c", "A", "\u{e9}: b"]
    {
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n")), 400, "{line:?}");
    }
    let latin = b"GET / HTTP/1.1\r\nHost: x\r\nA: caf\xe9\r\n\r\n";
    let (_, head) = read(latin).unwrap().unwrap();
    assert_eq!(head.fields.value_of(b"a"), Some(&b"caf\xe9"[..]));
}

#[test]
fn h1_11_host() {
    for head in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a,b\r\n",
        "Host: u@a\r\n",
        "Host: a:x\r\n",
        "Host:\r\n",
        "Host: a b\r\n",
    ] {
        assert_eq!(status(&format!("GET / HTTP/1.1\r\n{head}\r\n")), 400, "{head:?}");
    }
}

#[test]
fn h1_12_underscores() {
    let text = b"GET / HTTP/1.1\r\nHost: x\r\nX_A: 1\r\n\r\n";
    assert_eq!(read(text).unwrap_err(), Reject::new(400, Reason::Underscore));
    for (underscore, forwarded) in [(UnderscorePolicy::Drop, false), (UnderscorePolicy::Allow, true)] {
        let mut head = RequestHead::default();
        parse(text, &HeadLimits { underscore, ..limits() }, &mut head).unwrap();
        assert_eq!(head.fields.value_of(b"x_a").is_some(), forwarded);
    }
}

#[test]
fn h1_14_connect() {
    assert_eq!(status("CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n"), 405);
}

#[test]
fn targets_that_are_none() {
    for target in ["", "a", "*", "/a#b", "/\u{e9}", "?q", "http://?q", "https:/x", "ftp://x/", "//"] {
        let result = read(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        assert_eq!(result.is_ok(), target == "//", "{target:?}");
    }
    assert_eq!(ok("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").1.target(), b"*");
}

#[test]
fn sizes_are_limited() {
    let long = "a".repeat(300);
    assert_eq!(status(&format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n")), 414);
    assert_eq!(status(&format!("GET /{long}")), 414);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}", long.repeat(20))), 431);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(16))), 431);
    assert_eq!(read(b"GET / HTTP/1.1\r\nHost: x\r\n").unwrap().map(|_| ()), None);
}

#[test]
fn versions() {
    assert_eq!(status("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
    assert_eq!(status("GET / HTTP/1.2\r\nHost: x\r\n\r\n"), 505);
    assert_eq!(status("GET /\r\n\r\n"), 400);
}
