//! `Expect: 100-continue` whose body nobody asked for (RFC 9110 §10.1.1): after a final answer it is not known whether the body will
//! come, so that the connection cannot carry another request.

use crate::rig::{gateway, gateway_with};
use testkit::tools::curl;
use testkit::{Backend, ms, ports, request, seconds};

const LENGTHS: [&str; 3] = ["30", "60000", "2000000"];

/// The heads of such requests: with each length, and with none.
fn withheld() -> impl Iterator<Item = Vec<u8>> {
    let sized = LENGTHS.map(|length| ("Content-Length", length));
    sized
        .into_iter()
        .chain([("Transfer-Encoding", "chunked")])
        .map(|framing| request("PUT", "/up", &[("Expect", "100-continue"), framing], b""))
}

pub(crate) fn a_refused_body_ends_the_connection() {
    let refuser = Backend::start(|conn| {
        loop {
            let head = conn.head()?;
            if head.headers.has("expect") {
                let status = head.target.trim_start_matches('/').parse().unwrap_or(417);
                let head =
                    format!("HTTP/1.1 {status} Refused\r\nContent-Length: 2\r\nConnection: close\r\n\r\n");
                conn.send(head + "no")?;
                return Ok(());
            }
            conn.body()?;
            conn.respond(200, &[], b"fine")?;
        }
    });
    let gateway = gateway(&[&refuser]);
    for head in withheld() {
        for status in [417, 200, 403, 500] {
            let target = format!("/{status}");
            let head = String::from_utf8(head.clone()).unwrap().replace("/up", &target);
            let mut client = gateway.client();
            client.send(&head).unwrap();
            let answer = client.response("PUT").unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (status, "no"), "{head}");
            assert!(answer.closes(), "{head}: {answer:?}");
            client.closed(seconds(5)).unwrap_or_else(|e| panic!("{head}: {e}"));
        }
    }
    // What was sent without waiting is read, and the connection goes on.
    let mut client = gateway.client();
    client.send(request("PUT", "/417", &[("Expect", "100-continue")], &[b'x'; 30])).unwrap();
    let answer = client.response("PUT").unwrap();
    assert_eq!((answer.status, answer.closes()), (417, false));
    assert_eq!(client.request("PUT", "/", &[], &[b'x'; 30]).unwrap().text(), "fine");
}

pub(crate) fn our_own_answers_do_so_too() {
    let dead = ports::reserve();
    let gateway = gateway_with(
        &[],
        |config| config,
        |listener| listener.backend(dead).http("max_request_body_bytes", 1_000_000),
    );
    for head in withheld() {
        let mut client = gateway.client();
        client.send(&head).unwrap();
        let answer = client.response("PUT").unwrap();
        let is_large = String::from_utf8_lossy(&head).contains("2000000");
        assert_eq!(answer.status, if is_large { 413 } else { 502 }, "{}", String::from_utf8_lossy(&head));
        assert!(answer.closes(), "{answer:?}");
        client.closed(seconds(5)).unwrap();
    }
    // The same request without its expectation keeps the connection, once its body is there.
    let mut client = gateway.client();
    for _ in 0..2 {
        let answer = client.request("PUT", "/", &[], &[b'x'; 30]).unwrap();
        assert_eq!((answer.status, answer.closes()), (502, false));
    }
}

pub(crate) fn a_body_that_was_asked_for_keeps_the_connection() {
    let backend = Backend::start(|conn| {
        loop {
            conn.head()?;
            conn.send("HTTP/1.1 100 Continue\r\n\r\n")?;
            conn.pause(ms(50));
            conn.respond(403, &[], b"no")?;
            conn.body()?;
        }
    });
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    for _ in 0..2 {
        client
            .send(request("PUT", "/", &[("Expect", "100-continue"), ("Content-Length", "5")], b""))
            .unwrap();
        let (interim, head) = client.head("PUT").unwrap();
        assert_eq!((interim.len(), head.status, head.headers.lists("connection", "close")), (1, 403, false));
        assert_eq!(client.wire.exactly(2).unwrap(), b"no");
        // It comes late, and is thrown away.
        client.send("hello").unwrap();
    }
}

/// curl repeats a request that was refused with 417 without the expectation, unless that was asked of it.
pub(crate) fn curl_waits_for_nobody_after_a_refusal() {
    let backend = Backend::start(|conn| {
        loop {
            let head = conn.head()?;
            if head.headers.has("expect") {
                conn.send(
                    "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
                )?;
                return Ok(());
            }
            let length = conn.body()?.body_len();
            conn.respond(200, &[], length.to_string().as_bytes())?;
        }
    });
    let dead = ports::reserve();
    let served = gateway(&[&backend]);
    let unserved = gateway_with(&[], |config| config, |listener| listener.backend(dead));
    let file = served.dir().join("upload");
    for (length, expect, told) in [
        ("30", "Expect: 100-continue", "417"),
        ("60000", "Expect: 100-continue", "417"),
        ("2000000", "Expect: 100-continue", "417"),
    ] {
        std::fs::write(&file, vec![b'x'; length.parse().unwrap()]).unwrap();
        for (gateway, status) in [(&served, told), (&unserved, "502")] {
            let url = format!("http://{}/", gateway.front());
            // Without an answer curl would wait for a minute before it sends the body, and gives up after eight seconds.
            let done = curl(&[
                "--max-time",
                "8",
                "--expect100-timeout",
                "60",
                "-H",
                expect,
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "-T",
                file.to_str().unwrap(),
                &url,
            ]);
            assert_eq!((done.code, done.stdout.as_str()), (0, status), "{length} {expect}: {done:?}");
        }
    }
}
