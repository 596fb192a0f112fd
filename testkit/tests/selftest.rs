//! The kit against itself: what it calls right must be right, and what is wrong it must see.

use std::net::UdpSocket;
use testkit::client::chunk;
use testkit::dns::Dns;
use testkit::metrics::Metrics;
use testkit::pattern::{self, Verifier};
use testkit::{Backend, Client, Fault, ms, request, seconds};

#[test]
fn pattern_shows_any_loss() {
    let data = pattern::bytes(3_000_000);
    let mut whole = Verifier::default();
    data.chunks(7777).for_each(|piece| whole.feed(piece));
    whole.assert_complete(3_000_000);

    let mut gap = Verifier::default();
    gap.feed(&data[..65536]);
    gap.feed(&data[131072..]);
    assert!(gap.wrong_at().is_some_and(|at| (65536..65600).contains(&at)));
}

#[test]
fn ports_are_never_given_twice() {
    let threads: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(|| (0..50).map(|_| testkit::ports::port()).collect::<Vec<_>>()))
        .collect();
    let mut all: Vec<u16> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
    all.sort_unstable();
    let count = all.len();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn standard_server_answers_as_it_says() {
    let backend = Backend::standard("one");
    let mut client = Client::connect(backend.address).unwrap();
    assert_eq!(client.get("/").unwrap().text(), "one");
    assert_eq!(client.get("/status/404").unwrap().status, 404);
    assert_eq!(client.get("/status/204").unwrap().body.len(), 0);
    for len in [0, 1, 65535, 65536, 65537, 2_000_000] {
        assert!(client.get(&format!("/bytes/{len}")).unwrap().body == pattern::bytes(len), "{len}");
        assert!(client.get(&format!("/chunked/{len}")).unwrap().body == pattern::bytes(len), "{len}");
        let sent = pattern::bytes(len);
        let answer = client.request("POST", "/upload", &[], &sent).unwrap();
        assert_eq!(answer.text(), format!("{len} right"));
    }
    let head = client.request("HEAD", "/bytes/100", &[], b"").unwrap();
    assert_eq!((head.header("content-length").as_deref(), head.body.len()), (Some("100"), 0));
    let echo = client.request("PUT", "/echo", &[("X-Test", "a b")], b"body").unwrap().text();
    assert!(echo.starts_with("PUT /echo HTTP/1.1\r\n") && echo.contains("X-Test: a b\r\n"), "{echo}");
    assert!(echo.ends_with("\r\n\r\nbody"), "{echo}");
    assert_eq!(client.get("/close/100").unwrap().body, pattern::bytes(100));
    client.closed(seconds(2)).unwrap();
    assert_eq!(backend.connections(), 1);
    backend.assert_clean();
}

#[test]
fn streaming_echo_answers_before_the_upload_ends() {
    let backend = Backend::standard("one");
    let mut client = Client::connect(backend.address).unwrap();
    client.send(request("POST", "/stream-echo", &[("Transfer-Encoding", "chunked")], b"")).unwrap();
    let (_, head) = client.head("POST").unwrap();
    let mut body = testkit::wire::Body::new(head.framing);
    for part in [&b"first"[..], b"second"] {
        client.send(chunk(part)).unwrap();
        assert_eq!(body.next(&mut client.wire).unwrap().unwrap(), part);
    }
    client.send("0\r\n\r\n").unwrap();
    assert!(body.next(&mut client.wire).unwrap().is_none());
}

#[test]
fn backend_remembers_what_it_received() {
    let backend = Backend::standard("one");
    let mut client = Client::connect(backend.address).unwrap();
    let body = "4;note=x\r\nwiki\r\n0\r\nX-Trailer: t\r\n\r\n";
    client.send(request("POST", "/a?b", &[("Transfer-Encoding", "chunked")], b"")).unwrap();
    client.send(body).unwrap();
    client.response("POST").unwrap();
    let seen = backend.last_request();
    assert_eq!((seen.method(), seen.target(), seen.complete), ("POST", "/a?b", true));
    assert_eq!(seen.body, b"wiki");
    assert_eq!(seen.trailers.get("x-trailer").as_deref(), Some("t"));
    assert!(seen.extensions);
    assert!(backend.saw(b"4;note=x\r\n"));
}

/// Each of these the strict reader must refuse, whichever side reads it.
#[test]
fn strict_reader_sees_what_is_wrong() {
    let requests: &[&[u8]] = &[
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nBad : b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nBad\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    ];
    for bytes in requests {
        let backend = Backend::standard("one");
        let mut client = Client::connect(backend.address).unwrap();
        client.send(bytes).unwrap();
        client.closed(seconds(3)).unwrap();
        assert_eq!(backend.faults().len(), 1, "{:?}", String::from_utf8_lossy(bytes));
    }
    let responses: &[&[u8]] = &[
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 204 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ];
    for bytes in responses {
        let backend = Backend::reply(*bytes);
        let outcome = Client::connect(backend.address).unwrap().get("/");
        assert!(matches!(outcome, Err(Fault::Malformed(_))), "{outcome:?}");
    }
}

#[test]
fn client_tells_truncation_from_an_end() {
    let cut = |bytes: &'static [u8], reset: bool| {
        let backend = Backend::start(move |conn| {
            conn.request()?;
            conn.send(bytes)?;
            conn.pause(ms(50));
            if reset {
                conn.reset();
            }
            Ok(())
        });
        Client::connect(backend.address).unwrap().get("/")
    };
    let short = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    assert!(matches!(cut(short, false), Err(Fault::Truncated(_))));
    assert!(matches!(cut(short, true), Err(Fault::Reset)));
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    assert!(matches!(cut(chunked, false), Err(Fault::Truncated(_))));
    let open = b"HTTP/1.1 200 OK\r\n\r\nwhole";
    assert_eq!(cut(open, false).unwrap().body, b"whole");
    assert!(matches!(cut(open, true), Err(Fault::Reset)));
}

#[test]
fn interim_responses_and_trailers_are_kept() {
    let backend = Backend::reply(
        "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n",
    );
    let response = Client::connect(backend.address).unwrap().get("/").unwrap();
    assert_eq!(response.interim[0].status, 103);
    assert_eq!((response.status, response.text().as_str()), (200, "hi"));
    assert_eq!(response.trailers.get("x-sum").as_deref(), Some("1"));
}

#[test]
fn a_stopped_backend_refuses() {
    let backend = Backend::standard("one");
    let mut client = Client::connect(backend.address).unwrap();
    client.get("/").unwrap();
    backend.refuse();
    testkit::eventually("refused", seconds(2), || Client::connect(backend.address).is_err());
    assert_eq!(client.get("/").unwrap().status, 200, "open connections stay");
    backend.cut();
    client.closed(seconds(2)).unwrap();
    let address = backend.address;
    drop(backend);
    let again = Backend::standard_at(address, "two");
    assert_eq!(Client::connect(again.address).unwrap().get("/").unwrap().text(), "two");
}

#[test]
fn tcp_echo_keeps_half_close() {
    let backend = Backend::tcp_echo();
    let mut client = Client::connect(backend.address).unwrap();
    client.send("hello").unwrap();
    client.finish();
    assert_eq!(client.wire.to_end().unwrap(), b"hello");
}

#[test]
fn metrics_are_parsed() {
    let text = "# HELP a b\n# TYPE a counter\na{x=\"1\",y=\"q\\\"}\"} 2\na{x=\"2\",y=\"\"} 3\nplain 1.5e3\n";
    let metrics = Metrics::parse(text);
    assert_eq!(metrics.sum("a", &[]), 5.0);
    assert_eq!(metrics.sum("a", &[("y", "q\"}")]), 2.0);
    assert_eq!(metrics.sum("plain", &[]), 1500.0);
    assert_eq!(metrics.kinds["a"], "counter");
}

#[test]
fn name_server_answers() {
    let dns = Dns::start();
    dns.set("app.test", &["127.0.0.2", "127.0.0.3", "::1"], 7);
    let ask = |kind: u8| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(seconds(2))).unwrap();
        let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3];
        query.extend(b"app\x04TEST\0");
        query.extend([0, kind, 0, 1]);
        socket.send_to(&query, dns.address).unwrap();
        let mut answer = [0; 512];
        let len = socket.recv(&mut answer).unwrap();
        answer[..len].to_vec()
    };
    let a = ask(1);
    assert_eq!((&a[..2], a[3] & 15, a[7]), (&[0x12, 0x34][..], 0, 2));
    assert_eq!(&a[a.len() - 4..], [127, 0, 0, 3]);
    assert_eq!(ask(28)[7], 1);
    dns.remove("app.test");
    assert_eq!(ask(1)[3] & 15, 3);
    assert_eq!(dns.queries(), 3);
}
