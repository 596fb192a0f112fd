//! Both directions at once.

use crate::rig::{gateway, gateway_with};
use testkit::client::chunk;
use testkit::wire::Body;
use testkit::{Backend, ms, pattern, request, seconds};

pub(crate) fn echo_flows_before_the_upload_ends() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    for framing in [("Transfer-Encoding", "chunked"), ("Content-Length", "50")] {
        let mut client = gateway.client();
        client.set_timeout(seconds(5));
        client.send(request("POST", "/stream-echo", &[framing], b"")).unwrap();
        let (_, head) = client.head("POST").expect("the head does not wait for the upload");
        assert_eq!(head.status, 200);
        let mut body = Body::new(head.framing);
        for round in 0..5 {
            let part = format!("round {round}...");
            client
                .send(if framing.1 == "50" { part.clone().into_bytes() } else { chunk(part.as_bytes()) })
                .unwrap();
            let mut came = Vec::new();
            while came.len() < part.len() {
                came.extend_from_slice(body.next(&mut client.wire).unwrap().expect("more"));
            }
            assert_eq!(came, part.as_bytes());
        }
        if framing.1 == "chunked" {
            client.send("0\r\n\r\n").unwrap();
        }
        assert!(body.next(&mut client.wire).unwrap().is_none());
        assert_eq!(client.get("/").unwrap().text(), "one", "the connection goes on");
    }
    backend.assert_clean();
}

pub(crate) fn server_sent_events_flow() {
    let backend = Backend::start(|conn| {
        let chunked = conn.request()?.target() == "/chunked";
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")?;
        conn.send(if chunked { "Transfer-Encoding: chunked\r\n\r\n" } else { "\r\n" })?;
        for number in 0..5 {
            let event = format!("data: {number}\n\n");
            conn.send(if chunked { chunk(event.as_bytes()) } else { event.into_bytes() })?;
            // Longer than any sensible buffering would wait for more.
            conn.pause(ms(300));
        }
        if chunked {
            conn.send("0\r\n\r\n")?;
        }
        Ok(())
    });
    let gateway = gateway(&[&backend]);
    for target in ["/chunked", "/close"] {
        let mut client = gateway.client();
        client.send(request("GET", target, &[], b"")).unwrap();
        let (_, head) = client.head("GET").unwrap();
        let mut body = Body::new(head.framing);
        for number in 0..5 {
            let event = body.next(&mut client.wire).unwrap().unwrap();
            assert_eq!(event, format!("data: {number}\n\n").as_bytes(), "{target}: events one by one");
        }
        assert!(body.next(&mut client.wire).unwrap().is_none(), "{target}");
    }
}

pub(crate) fn early_answer_does_not_wait_for_the_upload() {
    // The backend answers upon the head, and goes on reading.
    let backend = Backend::start(|conn| {
        loop {
            conn.head()?;
            conn.respond(401, &[], b"who are you?")?;
            conn.body()?;
        }
    });
    let gateway = gateway(&[&backend]);
    for framing in [("Content-Length", "1000000"), ("Transfer-Encoding", "chunked")] {
        let mut client = gateway.client();
        client.set_timeout(seconds(5));
        client.send(request("POST", "/", &[framing], b"")).unwrap();
        let response = client.response("POST").expect("the answer does not wait for the upload");
        assert_eq!((response.status, response.text().as_str()), (401, "who are you?"));
    }
}

pub(crate) fn early_close_of_the_backend_delivers_its_answer() {
    // 413, and the end, in the middle of a large upload. The client goes on sending for a while, as clients do.
    let backend = Backend::start(|conn| {
        conn.head()?;
        conn.respond(413, &[("Connection", "close")], b"too large, says the backend")?;
        conn.finish();
        conn.pause(ms(50));
        Ok(())
    });
    let gateway = gateway_with(&[&backend], |config| config, |listener| listener);
    for round in 0..5 {
        let mut client = gateway.client();
        client.set_timeout(seconds(5));
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n").unwrap();
        let stream = client.wire.stream().try_clone().unwrap();
        let uploading = std::thread::spawn(move || {
            use std::io::Write;
            let data = pattern::bytes(1_000_000);
            let mut stream = &stream;
            (0..20).all(|_| stream.write_all(&data).is_ok())
        });
        let response = client.response("POST").unwrap_or_else(|e| panic!("round {round}: {e}"));
        assert_eq!((response.status, response.text().as_str()), (413, "too large, says the backend"));
        drop(client);
        uploading.join().unwrap();
    }
    // The same when the backend resets right behind its answer: the answer or a 502, but no hang.
    let rude = Backend::start(|conn| {
        conn.head()?;
        conn.respond(413, &[("Connection", "close")], b"too large")?;
        conn.pause(ms(100));
        conn.reset();
        Ok(())
    });
    let second = crate::rig::gateway(&[&rude]);
    let mut client = second.client();
    client.set_timeout(seconds(5));
    client.send(request("POST", "/", &[("Content-Length", "1000000")], b"")).unwrap();
    let status = client.response("POST").unwrap().status;
    assert!([413, 502].contains(&status), "{status}");
}
