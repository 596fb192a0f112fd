//! What a backend can do wrong.

use crate::rig::Rig;
use testkit::backend::Conn;
use testkit::{Backend, Fault, ms, request, seconds};

pub(crate) fn h1_08_early_answer_never_turns_the_body_into_a_request() {
    // The answer comes as soon as the head is there; the body holds what looks like a request.
    let backend = Backend::start(|conn| {
        loop {
            let head = conn.head()?;
            if head.target == "/early" {
                conn.respond(403, &[], b"no\n")?;
            }
            conn.body()?;
            if head.target != "/early" {
                conn.respond(200, &[], b"fine")?;
            }
        }
    });
    let rig = Rig::with(backend, |config| config, |listener| listener);
    let inner = request("GET", "/smuggled", &[], b"");
    for (case, framing, body) in [
        (
            "by length",
            "Content-Length: 400000\r\n",
            inner.repeat(400_000 / inner.len() + 1)[..400_000].to_vec(),
        ),
        (
            "chunked",
            "Transfer-Encoding: chunked\r\n",
            [&testkit::client::chunk(&inner.repeat(4000))[..], b"0\r\n\r\n"].concat(),
        ),
    ] {
        let mut client = rig.gateway.client();
        client.set_timeout(seconds(5));
        client.send(format!("POST /early HTTP/1.1\r\nHost: test.example\r\n{framing}\r\n")).unwrap();
        client.send(&body[..100]).unwrap();
        let response = client.response("POST").unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(response.status, 403, "{case}");
        // The rest of the body, and a request behind it. Served if the gateway kept the connection, unheard if it closed.
        client.send_anyway(&body[100..]);
        client.send_anyway(request("GET", "/behind", &[], b""));
        match client.response("GET") {
            Ok(second) => {
                assert!(!response.closes(), "{case}: an answer after the announced end");
                assert_eq!((second.status, second.text().as_str()), (200, "fine"), "{case}");
            }
            Err(fault) => assert!(fault.is_gone(), "{case}: {fault}"),
        }
        let smuggled: Vec<_> =
            rig.backend.requests().into_iter().filter(|r| r.target() == "/smuggled").collect();
        assert!(smuggled.is_empty(), "{case}: {smuggled:?}");
        assert_eq!(rig.gateway.get("/well-behaved").text(), "fine", "{case}");
        rig.backend.assert_clean();
    }
}

const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";

/// A backend that answers `/bad/N` with `answers[N]` and stays, and everything else properly.
fn liar(answers: Vec<Vec<u8>>) -> Backend {
    Backend::start(move |conn| {
        loop {
            let request = conn.request()?;
            match request.target().strip_prefix("/bad/").and_then(|n| n.parse::<usize>().ok()) {
                Some(number) => conn.send(&answers[number])?,
                None => conn.send(PAGE)?,
            }
        }
    })
}

/// The next request is answered properly, and over another connection than the one that lied.
#[track_caller]
fn assert_discarded(rig: &Rig, case: &str) {
    let liar = rig.backend.last_request().connection;
    let response = rig.gateway.get("/good");
    assert_eq!((response.status, response.text().as_str()), (200, "fine"), "{case}: afterwards");
    assert_ne!(rig.backend.last_request().connection, liar, "{case}: the connection was used again");
}

pub(crate) fn h1_15_malformed_response_heads() {
    let with = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\npoison").into_bytes();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("length and chunked", with("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n")),
        ("chunked and length", with("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n")),
        ("negative length", with("Content-Length: -6\r\n")),
        ("signed length", with("Content-Length: +6\r\n")),
        ("hexadecimal length", with("Content-Length: 0x6\r\n")),
        ("empty length", with("Content-Length: \r\n")),
        ("two lengths", with("Content-Length: 6\r\nContent-Length: 4\r\n")),
        ("list of lengths", with("Content-Length: 6, 4\r\n")),
        ("length of 20 digits", with("Content-Length: 99999999999999999999\r\n")),
        ("length of 2^63", with("Content-Length: 9223372036854775808\r\n")),
        ("unknown coding", with("Transfer-Encoding: xchunked\r\n")),
        ("chunked twice", with("Transfer-Encoding: chunked, chunked\r\n")),
        ("chunked not last", with("Transfer-Encoding: chunked, gzip\r\n")),
        ("space before the colon", with("X-Name : v\r\nContent-Length: 6\r\n")),
        ("empty name", with(": v\r\nContent-Length: 6\r\n")),
        ("no colon", with("X-Name\r\nContent-Length: 6\r\n")),
        ("NUL in a value", with("X-Name: a\0b\r\nContent-Length: 6\r\n")),
        ("CR in a value", with("X-Name: a\rb\r\nContent-Length: 6\r\n")),
        ("LF line ends", b"HTTP/1.1 200 OK\nContent-Length: 6\n\npoison".to_vec()),
        ("LF after a field", with("X-Name: v\nContent-Length: 6\r\n")),
        ("status of two digits", b"HTTP/1.1 20 OK\r\nContent-Length: 6\r\n\r\npoison".to_vec()),
        ("status of four digits", b"HTTP/1.1 2000 OK\r\nContent-Length: 6\r\n\r\npoison".to_vec()),
        ("status that is no number", b"HTTP/1.1 abc OK\r\nContent-Length: 6\r\n\r\npoison".to_vec()),
        ("status 099", b"HTTP/1.1 099 Odd\r\nContent-Length: 6\r\n\r\npoison".to_vec()),
        ("another version", b"HTTP/2.0 200 OK\r\nContent-Length: 6\r\n\r\npoison".to_vec()),
        ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec()),
        (
            "101 that nobody asked for",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\npoison".to_vec(),
        ),
        ("head of 1 MiB", with(&format!("X-Big: {}\r\nContent-Length: 6\r\n", "x".repeat(1 << 20)))),
        ("10000 fields", with(&"X-Many: 1\r\n".repeat(10_000))),
    ];
    let rig = Rig::with(
        liar(cases.iter().map(|(_, bytes)| bytes.clone()).collect()),
        |config| config,
        |listener| listener,
    );
    for (number, (case, _)) in cases.iter().enumerate() {
        let mut client = rig.gateway.client();
        client.set_timeout(seconds(5));
        let response = client.get(&format!("/bad/{number}")).unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(response.status, 502, "{case}: {:?}", response.text());
        assert!(!response.text().contains("poison"), "{case}");
        assert!((1..=1024).contains(&response.body.len()), "{case}: a short text");
        assert_discarded(&rig, case);
    }
}

pub(crate) fn h1_15_malformed_response_bodies() {
    let chunked = |body: &str| {
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n{body}").into_bytes()
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("size with 0x", chunked("0x4\r\nmore\r\n0\r\n\r\n")),
        ("negative size", chunked("-4\r\nmore\r\n0\r\n\r\n")),
        ("size of 17 digits", chunked("00000000000000004\r\nmore\r\n0\r\n\r\n")),
        ("size of 2^63", chunked("8000000000000000\r\nmore\r\n0\r\n\r\n")),
        ("size of 2^64 - 1", chunked("ffffffffffffffff\r\nmore\r\n0\r\n\r\n")),
        ("size that overflows", chunked("ffffffffffffffffff\r\nmore\r\n0\r\n\r\n")),
        ("no size", chunked("\r\nmore\r\n0\r\n\r\n")),
        ("LF after the size", chunked("4\nmore\r\n0\r\n\r\n")),
        ("LF after the data", chunked("4\r\nmore\n0\r\n\r\n")),
        ("more data than the size", chunked("4\r\nmore and more\r\n0\r\n\r\n")),
    ];
    let rig = Rig::with(
        liar(cases.iter().map(|(_, bytes)| bytes.clone()).collect()),
        |config| config,
        |listener| listener,
    );
    for (number, (case, _)) in cases.iter().enumerate() {
        let mut client = rig.gateway.client();
        client.set_timeout(seconds(5));
        // Either nothing had been passed on yet, or the client can see that the body has no end.
        match client.get(&format!("/bad/{number}")) {
            Ok(response) => assert_eq!(response.status, 502, "{case}: {:?}", response.text()),
            Err(fault) => assert!(fault.is_gone(), "{case}: {fault}"),
        }
        assert_discarded(&rig, case);
    }
}

pub(crate) fn h1_15_bytes_after_the_body_reach_nobody() {
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a second response", format!("{PAGE}{poison}").into_bytes()),
        ("a longer body", format!("{PAGE} and more").into_bytes()),
        ("a body on 204", b"HTTP/1.1 204 No Content\r\n\r\npoison".to_vec()),
        ("a body on 304", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison".to_vec()),
        (
            "after the last chunk",
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n{poison}")
                .into_bytes(),
        ),
    ];
    let rig = Rig::with(
        liar(cases.iter().map(|(_, bytes)| bytes.clone()).collect()),
        |config| config,
        |listener| listener,
    );
    for (number, (case, bytes)) in cases.iter().enumerate() {
        let status = std::str::from_utf8(&bytes[9..12]).unwrap().parse::<u16>().unwrap();
        let mut client = rig.gateway.client();
        let response = client.get(&format!("/bad/{number}")).unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(response.status, status, "{case}");
        assert_eq!(response.text(), if status == 200 { "fine" } else { "" }, "{case}");
        client.quiet(ms(100)).or_else(|e| if e.starts_with("closed") { Ok(()) } else { Err(e) }).unwrap();
        assert_discarded(&rig, case);
    }
    // The same for HEAD: what follows the head is nobody's.
    let mut client = rig.gateway.client();
    let response = client.request("HEAD", "/bad/0", &[], b"").unwrap();
    assert_eq!(response.status, 200);
    assert_discarded(&rig, "a body on HEAD");
}

pub(crate) fn h1_15_an_answer_before_the_question_reaches_nobody() {
    // After each answer comes another one, while the connection lies idle in the pool.
    let backend = Backend::start(|conn: &mut Conn| {
        conn.request()?;
        conn.send(PAGE)?;
        conn.pause(ms(150));
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")?;
        loop {
            conn.request()?;
            conn.send(PAGE)?;
        }
    });
    let rig = Rig::with(backend, |config| config, |listener| listener);
    let mut client = rig.gateway.client();
    for round in 0..5 {
        assert_eq!(client.get("/").unwrap().text(), "fine", "round {round}");
        std::thread::sleep(ms(400));
    }
}

pub(crate) fn h1_15_interim_flood_is_bounded() {
    let mut flood = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n".repeat(100_000);
    flood.extend_from_slice(PAGE.as_bytes());
    let rig = Rig::with(liar(vec![flood]), |config| config, |listener| listener);
    let mut client = rig.gateway.client();
    client.set_timeout(seconds(10));
    match client.get("/bad/0") {
        Ok(response) => {
            assert_eq!(response.status, 502, "after {} interim responses", response.interim.len());
        }
        Err(fault) => assert!(fault.is_gone(), "{fault}"),
    }
    assert_discarded(&rig, "interim flood");
}

pub(crate) fn h1_17_response_trailers() {
    let answer = |trailers: &str| {
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n{trailers}\r\n")
            .into_bytes()
    };
    let forbidden = ["Content-Length", "Transfer-Encoding", "Connection", "Content-Encoding", "Set-Cookie"];
    let mut answers: Vec<Vec<u8>> =
        forbidden.iter().map(|name| answer(&format!("X-Fine: 1\r\n{name}: 5\r\n"))).collect();
    let many: String = (0..5000).map(|i| format!("X-Trailer-{i}: {i}\r\n")).collect();
    answers.push(answer(&many));
    let rig = Rig::with(liar(answers), |config| config, |listener| listener);
    for (number, name) in forbidden.iter().enumerate() {
        let mut client = rig.gateway.client();
        let response = client.request("GET", &format!("/bad/{number}"), &[("TE", "trailers")], b"");
        match response {
            Ok(response) => {
                // A cookie in a trailer changes no framing: dropping it is allowed, not owed.
                assert!(*name == "Set-Cookie" || !response.trailers.has(name), "{name} reached the client");
            }
            Err(fault) => assert!(fault.is_gone(), "{name}: {fault}"),
        }
        assert_eq!(rig.gateway.get("/good").text(), "fine", "{name}: afterwards");
    }
    let mut client = rig.gateway.client();
    client.set_timeout(seconds(5));
    match client.get(&format!("/bad/{}", forbidden.len())) {
        Ok(response) => {
            assert!(
                response.trailers.0.len() <= 1000,
                "{} trailers reached the client",
                response.trailers.0.len()
            );
        }
        Err(Fault::TimedOut) => panic!("5000 trailers: no end"),
        Err(fault) => assert!(fault.is_gone(), "{fault}"),
    }
    assert_eq!(rig.gateway.get("/good").text(), "fine");
}
