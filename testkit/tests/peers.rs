//! The test peers against programs from outside, and those of HTTP/2 against each other: a test peer that misreads the protocol would
//! judge the gateway wrongly.

use testkit::h2::{code, frame, hpack, setting};
use testkit::harness::Case;
use testkit::process::run;
use testkit::tools::{Nghttpd, Nginx, Tool, curl};
use testkit::{Backend, Client, Exchange, Front, H2Backend, H2Client, Origin, Version, ms, pattern, seconds};

fn client_and_backend_agree() {
    for version in [Version::H1, Version::H2] {
        let origin = Origin::standard(version, "one");
        let mut front = Front::connect(version, origin.address()).unwrap();
        assert_eq!(front.get("/").unwrap().text(), "one");
        front.get("/bytes/3000000").unwrap().pattern.assert_complete(3_000_000);
        front.get("/chunked/100000").unwrap().pattern.assert_complete(100_000);
        let body = pattern::bytes(3_000_000);
        assert_eq!(front.request("POST", "/upload", &[], &body).unwrap().text(), "3000000 right");
        assert_eq!(
            front.request("HEAD", "/bytes/5", &[], b"").unwrap().headers.get("content-length").unwrap(),
            "5"
        );
        assert_eq!(front.get("/status/304").unwrap().status, 304);
        origin.assert_clean();
        let last = origin.requests().into_iter().find(|r| r.method == "POST").unwrap();
        last.pattern.assert_complete(3_000_000);
        assert!(last.complete && last.authority == "test.example");
    }
}

fn trailers_interim_responses_and_resets() {
    let backend = H2Backend::start(|call| {
        let request = call.body()?;
        call.head(103, &[("link", "</a>")], false)?;
        if request.path() == "/reset" {
            call.head(200, &[], false)?;
            return call.reset(code::INTERNAL_ERROR);
        }
        call.head(200, &[("x-sent", &request.trailers.get("x-end").unwrap())], false)?;
        call.data(b"body", false)?;
        call.trailers(&[("x-after", "2")])
    });
    let mut client = H2Client::connect(backend.address).unwrap();
    let stream = client.open("POST", "/", &[], false).unwrap();
    client.trailers(stream, &[("x-end", "1")]).unwrap();
    let response = client.response(stream).unwrap();
    assert_eq!(response.interim.len(), 1);
    assert_eq!((response.text().as_str(), response.header("x-sent").unwrap().as_str()), ("body", "1"));
    assert_eq!(response.trailers.get("x-after").unwrap(), "2");
    let stream = client.open("GET", "/reset", &[], true).unwrap();
    assert_eq!(client.over(stream).unwrap().reset, Some(code::INTERNAL_ERROR));
    let stream = client.open("POST", "/half", &[], false).unwrap();
    client.reset(stream, code::CANCEL).unwrap();
    testkit::eventually("the reset is remembered", seconds(5), || {
        backend.last_request().reset == Some(code::CANCEL)
    });
    backend.assert_clean();
}

fn strict_readers_find_faults() {
    type Fault<'a> = (&'a str, fn(&mut H2Client) -> Vec<u8>);
    let faults: &[Fault<'_>] = &[
        ("field name", |c| {
            let fields = c.fields("GET", "/", &[("X-Upper", "1")]);
            frame::headers(1, hpack::block(&fields), true)
        }),
        ("connection-specific", |c| {
            let fields = c.fields("GET", "/", &[("connection", "close")]);
            frame::headers(1, hpack::block(&fields), true)
        }),
        ("beyond a window", |c| {
            let fields = c.fields("POST", "/", &[]);
            let mut bytes = frame::headers(1, hpack::block(&fields), false);
            (0..5).for_each(|_| bytes.extend(frame::data(1, [0; 16_384], false)));
            bytes
        }),
        ("inside the field block", |_| [frame::frame(1, 0, 1, []), frame::ping([0; 8])].concat()),
        ("16385 bytes", |_| frame::data(1, [0; 16_385], false)),
        ("increment of 0", |_| frame::window_update(0, 0)),
        ("not open", |_| frame::data(1, b"x", false)),
    ];
    for (wanted, bytes) in faults {
        let backend = H2Backend::with(
            testkit::h2::backend::Manners { withholds: true, ..Default::default() },
            |call| call.body().map(drop),
        );
        let mut client = H2Client::connect(backend.address).unwrap();
        let bytes = bytes(&mut client);
        client.send_anyway(bytes);
        testkit::eventually(wanted, seconds(5), || {
            backend.faults().iter().any(|fault| fault.contains(wanted))
        });
    }
}

/// One dynamic entry, a thousand references: what the reader makes of it is what the bomb relies on.
fn dynamic_table_references_arrive() {
    let backend = H2Backend::start(|call| call.respond(200, &[], b""));
    let mut client = H2Client::connect(backend.address).unwrap();
    let mut block = hpack::block(&client.fields("GET", "/", &[]));
    block.extend(hpack::incremental("x-a", "b".repeat(1000)));
    (0..999).for_each(|_| block.extend(hpack::indexed(hpack::FIRST_DYNAMIC)));
    let stream = client.open_block(&block, true).unwrap();
    assert_eq!(client.response(stream).unwrap().status(), 200);
    assert_eq!(backend.last_request().headers.all("x-a").len(), 1000);
}

fn client_against(address: std::net::SocketAddr, what: &str) {
    let mut client = H2Client::connect(address).unwrap();
    let large = client.get("/large").unwrap();
    assert_eq!(large.status(), 200, "{what}");
    large.pattern.assert_complete(5_000_000);
    assert_eq!(client.get("/missing").unwrap().status(), 404, "{what}");
    // Twenty at once.
    let streams: Vec<_> = (0..20).map(|_| client.open("GET", "/large", &[], true).unwrap()).collect();
    for stream in streams {
        client.response(stream).unwrap().pattern.assert_complete(5_000_000);
    }
    client.send(frame::ping(*b"12345678")).unwrap();
    client.until("an answer to PING", seconds(5), |c| c.pongs == [*b"12345678"]).unwrap();
    // A withheld window holds back.
    let mut client =
        H2Client::connect_with(address, &[(setting::INITIAL_WINDOW_SIZE, 1000)]).unwrap().withhold();
    let stream = client.open("GET", "/large", &[], true).unwrap();
    client.read_for(ms(300));
    assert_eq!(client.streams[&stream].pattern.len(), 1000, "{what}");
    client.credit(stream, 500).unwrap();
    client.read_for(ms(300));
    assert_eq!(client.streams[&stream].pattern.len(), 1500, "{what}");
    // A lie is answered.
    client.send(frame::window_update(stream, 0)).unwrap();
    client.pump(seconds(1));
    let reset = client.streams[&stream].reset;
    assert!(reset.is_some() || !client.goaways.is_empty(), "{what}: an increment of 0 goes unnoticed");
}

fn client_against_nginx() {
    let nginx = Nginx::h2c("");
    std::fs::write(nginx.root.join("large"), pattern::bytes(5_000_000)).unwrap();
    client_against(nginx.address, "nginx");
}

fn client_against_nghttpd() {
    let nghttpd = Nghttpd::start(&[]);
    std::fs::write(nghttpd.root.join("large"), pattern::bytes(5_000_000)).unwrap();
    client_against(nghttpd.address, "nghttpd");
    let echo = Nghttpd::start(&["--echo-upload"]);
    let mut client = H2Client::connect(echo.address).unwrap();
    let body = pattern::bytes(300_000);
    let response = client.request("POST", "/", &[], &body).unwrap();
    response.pattern.assert_complete(300_000);
}

fn backend_against_curl() {
    let origin = Origin::standard(Version::H2, "one");
    let url = |path: &str| format!("http://{}{path}", origin.address());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("body");
    std::fs::write(&file, pattern::bytes(3_000_000)).unwrap();
    let version = ["--http2-prior-knowledge", "-w", " %{http_code} HTTP/%{http_version}"];
    let upload = format!("@{}", file.display());
    let said = curl(&[&version[..], &["--data-binary", &upload, &url("/upload")]].concat());
    assert_eq!(said.stdout, "3000000 right 200 HTTP/2", "{}", said.stderr);
    let target = dir.path().join("down");
    let to = target.display().to_string();
    let said = curl(&[&version[..], &["-o", &to, &url("/bytes/3000000")]].concat());
    assert_eq!(said.stdout, " 200 HTTP/2", "{}", said.stderr);
    assert!(std::fs::read(&target).unwrap() == pattern::bytes(3_000_000));
    origin.assert_clean();
}

fn backend_against_nghttp() {
    let backend = H2Backend::start(|call| {
        call.body()?;
        call.head(200, &[], false)?;
        call.data(&pattern::bytes(1_000_000), false)?;
        call.trailers(&[("x-end", "1")])
    });
    let url = format!("http://{}/", backend.address);
    let nghttp = Tool::Nghttp.path().unwrap();
    let said = run(nghttp, ["-v", "-n", "-m", "20", &url], seconds(20));
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(said.stdout.matches("x-end: 1").count(), 20, "{}", said.stdout);
    assert_eq!(backend.request_count(), 20);
    backend.assert_clean();
}

fn backend_against_h2load() {
    let origin = Origin::standard(Version::H2, "one");
    let url = format!("http://{}/bytes/1000", origin.address());
    let said = run(Tool::H2load.path().unwrap(), ["-n", "2000", "-c", "4", "-m", "10", &url], seconds(60));
    assert!(said.stdout.contains("2000 succeeded"), "{}", said.stdout);
    origin.assert_clean();
}

fn exchange_scripts_can_break_off() {
    for version in [Version::H1, Version::H2] {
        let origin = Origin::start(version, |exchange: &mut dyn Exchange| {
            exchange.start(200, &[])?;
            exchange.data(b"half")?;
            Err(exchange.abort())
        });
        let mut front = Front::connect(version, origin.address()).unwrap();
        front.open("GET", "/", &[], testkit::front::Upload::None).unwrap();
        assert!(front.answer().is_err(), "{version:?}");
    }
}

/// nginx between the kit's client and the kit's backend: both must find a real proxy well-behaved.
fn a_real_proxy_passes_the_strict_readers() {
    let backend = Backend::standard("one");
    let nginx = Nginx::proxy(backend.address);
    let mut client = Client::connect(nginx.address).unwrap();
    for target in ["/bytes/1000000", "/chunked/1000000"] {
        assert!(client.get(target).unwrap().body == pattern::bytes(1_000_000), "{target}");
    }
    let up = client.request("POST", "/upload", &[], &pattern::bytes(1_000_000)).unwrap();
    assert_eq!(up.text(), "1000000 right");
    backend.assert_clean();
}

fn curl_fetches_a_file_from_nginx() {
    let nginx = Nginx::files();
    std::fs::write(nginx.root.join("file"), "content").unwrap();
    let got = curl(&[&format!("http://{}/file", nginx.address)]);
    assert_eq!((got.code, got.stdout.as_str()), (0, "content"));
}

fn main() {
    let mut cases = testkit::cases![
        client_and_backend_agree,
        trailers_interim_responses_and_resets,
        strict_readers_find_faults,
        dynamic_table_references_arrive,
        exchange_scripts_can_break_off,
    ];
    cases.extend([
        Case::new("a_real_proxy_passes_the_strict_readers", a_real_proxy_passes_the_strict_readers)
            .needs(&[Tool::Nginx]),
        Case::new("curl_fetches_a_file_from_nginx", curl_fetches_a_file_from_nginx)
            .needs(&[Tool::Nginx, Tool::Curl]),
        Case::new("client_against_nginx", client_against_nginx).needs(&[Tool::Nginx]),
        Case::new("client_against_nghttpd", client_against_nghttpd).needs(&[Tool::Nghttpd]),
        Case::new("backend_against_curl", backend_against_curl).needs(&[Tool::Curl]),
        Case::new("backend_against_nghttp", backend_against_nghttp).needs(&[Tool::Nghttp]),
        Case::new("backend_against_h2load", backend_against_h2load).needs(&[Tool::H2load]),
    ]);
    testkit::harness::main_without_gateway(&cases)
}
