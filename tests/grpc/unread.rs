//! What the gateway keeps back from a client, and clients that read nothing.

use std::time::Duration;

use testkit::h2::backend::Manners;
use testkit::{Backend, Config, Gateway, H2Backend, H2Client, Listener, eventually, request, seconds};

const CALL: &[(&str, &str)] = &[("content-type", "application/grpc"), ("te", "trailers")];

/// SETTINGS_INITIAL_WINDOW_SIZE: nothing of a body may be sent.
const NO_WINDOW: &[(u16, u32)] = &[(4, 0)];

/// The error page of a backend, which a call is told as a status, would be the next response on the connection.
pub(crate) fn c_14_an_error_page_is_not_the_next_response() {
    const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    let plain = Backend::start(|conn| {
        loop {
            let head = conn.head()?;
            let answer = match head.target.as_str() {
                "/page" => format!(
                    "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{PAGE}",
                    PAGE.len()
                ),
                "/pieces" => format!(
                    "HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{PAGE}\r\n0\r\nx: y\r\n\r\n",
                    PAGE.len()
                ),
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine".to_owned(),
            };
            conn.send(answer)?;
        }
    });
    let streams = H2Backend::start(|call| match call.path().as_str() {
        "/page" => call.respond(404, &[("content-type", "text/html")], PAGE.as_bytes()),
        "/pieces" => {
            call.head(503, &[], false)?;
            call.data(PAGE.as_bytes(), false)?;
            call.trailers(&[("x", "y")])
        }
        _ => call.respond(200, &[], b"mine"),
    });
    let listener = || Listener::h1().block("grpc", "", true);
    for listener in [listener().backend(plain.address), listener().h2_backend(streams.address)] {
        let gateway = Gateway::start(Config::new().listener(listener));
        for path in ["/page", "/pieces"] {
            let mut client = gateway.client();
            for _ in 0..20 {
                client
                    .send(request(
                        "POST",
                        path,
                        &[("Content-Type", "application/grpc"), ("Content-Length", "0")],
                        b"",
                    ))
                    .unwrap();
                let answer = client.response("POST").unwrap();
                assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{path}");
                assert!(answer.head.headers.get("grpc-status").is_some(), "{path}: {answer:?}");
                assert_eq!(client.get("/mine").unwrap().text(), "mine", "{path}");
            }
        }
    }
}

/// A call that has ended for its client has nothing to do with a backend that does not read, whatever it was still owed.
pub(crate) fn h2_04_the_end_of_a_call_waits_for_the_client_alone() {
    for early in [false, true] {
        let backend = H2Backend::with(Manners { withholds: true, ..Manners::default() }, move |call| {
            call.head(200, &[("content-type", "application/grpc")], false)?;
            call.data(b"\0\0\0\0\x01x", false)?;
            if early {
                call.pause(Duration::from_millis(500));
                return call.trailers(&[("grpc-status", "0")]);
            }
            call.abandoned(seconds(20));
            Ok(())
        });
        let listener = Listener::h2c()
            .block("grpc", "", true)
            .http("write_timeout_ms", 1500)
            .h2_backend(backend.address);
        let gateway = Gateway::start(Config::new().listener(listener));
        let mut client = H2Client::connect_with(gateway.front(), NO_WINDOW).unwrap();
        let fields = if early { CALL.to_vec() } else { [CALL, &[("grpc-timeout", "500m")]].concat() };
        let call = client.open("POST", "/s/M", &fields, false).unwrap();
        // More than the backend gives credit for: the gateway waits for it.
        let upload = vec![0; 75_000];
        client.data(call, &upload, false).unwrap();
        client.head(call).unwrap();
        let (cpu, after) = (gateway.process.cpu_ticks(), seconds(10));
        let over = client.until("the end of the stream", after, |client| {
            client.streams.get(&call).is_none_or(|stream| stream.is_over())
        });
        assert!(over.is_ok(), "a client that reads nothing is not waited for: {over:?}");
        let timeouts = gateway.metric("upstream_rejected_total", &[("reason", "timeout")]);
        assert!(timeouts <= 1.0, "counted {timeouts} times");
        let spent = gateway.process.cpu_ticks() - cpu;
        assert!(spent < 80, "{spent} hundredths of a second of CPU for a call that waits");
    }
}

/// A watch whose client reads nothing waits without work.
pub(crate) fn h2_04_a_watch_that_nobody_reads_costs_nothing() {
    let backend = Backend::standard("one");
    let gateway = Gateway::start(
        Config::new().listener(Listener::h2c().block("grpc", "", true).backend(backend.address)),
    );
    let mut client = H2Client::connect_with(gateway.front(), NO_WINDOW).unwrap();
    let watch = client.open("POST", "/grpc.health.v1.Health/Watch", CALL, false).unwrap();
    client.data(watch, &[0; 5], true).unwrap();
    client.head(watch).unwrap();
    let cpu = gateway.process.cpu_ticks();
    client.read_for(seconds(3));
    let spent = gateway.process.cpu_ticks() - cpu;
    assert!(spent < 60, "{spent} hundredths of a second of CPU for a watch that waits");
    // It goes on when the client reads.
    client.credit(watch, 1000).unwrap();
    eventually("the watch is told", seconds(5), || {
        client.read_for(Duration::from_millis(50));
        client.streams[&watch].body.len() >= 7
    });
}

/// A client that breaks its request off says nothing of the backend.
pub(crate) fn a_broken_upload_is_not_the_backends_fault() {
    let backends = [(); 2].map(|()| {
        Backend::start(|conn| {
            conn.head()?;
            conn.send(
                "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n",
            )?;
            let _ = conn.wire.to_end();
            Ok(())
        })
    });
    let pool = backends.iter().fold(testkit::Pool::named("p"), |pool, one| pool.backend(one.address));
    let pool = pool.block("outlier", "consecutive_5xx", 2).block("outlier", "max_ejection_percent", 100);
    let listener = Listener::h1().block("grpc", "", true).pool("p");
    let gateway = Gateway::start(Config::new().runtime("workers", 1).pool(pool).listener(listener));
    for round in 0..8 {
        let mut client = gateway.client();
        let fields = [("Content-Type", "application/grpc"), ("Transfer-Encoding", "chunked")];
        client.send(request("POST", "/s/M", &fields, b"")).unwrap();
        assert_eq!(client.head("POST").unwrap().1.status, 200, "round {round}");
        client.send("no chunk\r\n").unwrap();
        client.finish();
        let _ = client.wire.to_end();
    }
    let lines = gateway.messages();
    assert!(!lines.iter().any(|line| line.contains("eject") || line.contains("alone")), "{lines:?}");
    assert_eq!(backends.map(|backend| backend.connections()), [4, 4]);
}
