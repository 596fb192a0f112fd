//! Connections to backends: kept, shared, found stale, thrown away.

use crate::rig::{gateway, gateway_with};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use testkit::gateway::Reload;
use testkit::{Backend, Fault, Listener, ms, pattern, request, seconds};

pub(crate) fn one_client_needs_one_upstream_connection() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    for number in 0..100 {
        let target = ["/", "/bytes/100000", "/chunked/100000", "/status/204", "/status/404"][number % 5];
        client.get(target).unwrap();
    }
    assert!(backend.connections() <= 2, "{} connections for one client", backend.connections());
}

pub(crate) fn bulk_gives_the_connection_back() {
    // Whatever path a large body takes, it leaves behind a connection that is seen to be usable.
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    for _ in 0..45 {
        assert_eq!(client.get("/bytes/100000").unwrap().body.len(), 100_000);
        assert_eq!(client.get("/bytes/1000000").unwrap().body.len(), 1_000_000);
    }
    assert!(backend.connections() <= 2, "{} connections for one client", backend.connections());
}

pub(crate) fn connections_are_shared_by_clients() {
    let backend = Backend::standard("one");
    let gateway = gateway_with(&[&backend], |config| config.runtime("workers", 2), |listener| listener);
    for _ in 0..100 {
        gateway.get("/");
    }
    assert!(backend.connections() <= 4, "{} connections for two workers", backend.connections());
}

/// A backend that answers the first request on a connection and ends the connection upon the second.
fn once_then_gone(second: Arc<AtomicUsize>) -> Backend {
    Backend::start(move |conn| {
        conn.request()?;
        conn.respond(200, &[], b"first")?;
        conn.request()?;
        second.fetch_add(1, Ordering::SeqCst);
        Ok(())
    })
}

pub(crate) fn stale_connection_is_retried_for_get() {
    let swallowed = Arc::new(AtomicUsize::new(0));
    let backend = once_then_gone(Arc::clone(&swallowed));
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    for number in 0..6 {
        let response = client.get("/").unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "first"), "request {number}");
    }
    assert!(swallowed.load(Ordering::SeqCst) > 0, "no connection was reused, so this test shows nothing");
}

pub(crate) fn stale_connection_is_not_retried_for_post() {
    for body in ["once", ""] {
        let swallowed = Arc::new(AtomicUsize::new(0));
        let backend = once_then_gone(Arc::clone(&swallowed));
        let gateway = gateway(&[&backend]);
        let mut client = gateway.client();
        assert_eq!(client.get("/").unwrap().status, 200);
        let response = client.request("POST", "/pay", &[], body.as_bytes()).unwrap();
        let payments = backend.requests().iter().filter(|r| r.target() == "/pay").count();
        assert_eq!(payments, 1, "body {body:?}: the backend was asked twice");
        let reused = swallowed.load(Ordering::SeqCst);
        assert_eq!(reused, 1, "the connection was not reused, so this test shows nothing");
        assert_eq!(response.status, 502, "body {body:?}");
    }
}

pub(crate) fn a_connection_that_says_close_is_not_reused() {
    let backend = Backend::start(|conn| {
        conn.request()?;
        conn.respond(200, &[("Connection", "close")], b"bye")?;
        // Slow to follow its own words.
        conn.hold(seconds(1));
        Ok(())
    });
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    for number in 0..5 {
        let response = client.request("POST", "/", &[], b"x").unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "bye"), "request {number}");
        assert!(!response.closes(), "one backend's connection is not the client's");
    }
    assert_eq!(backend.connections(), 5);

    // A backend that ends the connection without a word, and has done so before the next request comes.
    let silent = Backend::start(|conn| {
        conn.request()?;
        conn.respond(200, &[], b"bye")
    });
    let second = crate::rig::gateway(&[&silent]);
    let mut client = second.client();
    for number in 0..5 {
        let response = client.request("POST", "/", &[], b"x").unwrap();
        assert_eq!(response.status, 200, "request {number}: a dead connection was taken from the pool");
        std::thread::sleep(ms(100));
    }
}

pub(crate) fn idle_connections_are_let_go() {
    let backend = Backend::standard("one");
    let gateway = gateway_with(
        &[&backend],
        |config| config.block("pool", "idle_timeout_ms", 500).runtime("workers", 1),
        |listener| listener,
    );
    gateway.get("/");
    assert_eq!(backend.open_connections(), 1, "kept for the next request");
    testkit::eventually("the idle connection is closed", seconds(10), || backend.open_connections() == 0);

    // More at once than the pool keeps: the surplus goes after it has lingered.
    let crowd = Backend::standard("crowd");
    let second = gateway_with(
        &[&crowd],
        |config| {
            config.block("pool", "per_peer_max", 2).block("pool", "linger_ms", 200).runtime("workers", 1)
        },
        |listener| listener,
    );
    let clients: Vec<_> = (0..10)
        .map(|_| {
            let mut client = second.client();
            client.send(request("GET", "/slow/300", &[], b"")).unwrap();
            client
        })
        .collect();
    for mut client in clients {
        assert_eq!(client.response("GET").unwrap().status, 200);
    }
    assert_eq!(crowd.connections(), 10);
    testkit::eventually("two are kept", seconds(10), || crowd.open_connections() == 2);
}

pub(crate) fn backend_that_dies_in_a_response_shows() {
    let backend = Backend::start(|conn| {
        let request = conn.request()?;
        let (kind, ending) = request.target()[1..].split_once('/').unwrap();
        let data = pattern::bytes(50_000);
        match kind {
            "length" => conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")?,
            "chunked" => conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?,
            _ => conn.send("HTTP/1.1 200 OK\r\n\r\n")?,
        }
        match kind {
            "chunked" => conn.send(testkit::client::chunk(&data))?,
            _ => conn.send(data)?,
        }
        conn.pause(ms(100));
        if ending == "reset" {
            conn.reset();
        }
        Ok(())
    });
    let gateway = gateway(&[&backend]);
    for case in ["length/fin", "length/reset", "chunked/fin", "chunked/reset", "close/reset"] {
        let mut client = gateway.client();
        client.set_timeout(seconds(5));
        let outcome = client.get(&format!("/{case}"));
        assert!(matches!(&outcome, Err(fault) if fault.is_gone()), "{case}: looks whole, or hangs");
    }
    // A client of HTTP/1.0 knows the end of such a body only by the end of the connection: it must not be a clean one.
    for case in ["chunked/fin", "chunked/reset", "close/reset"] {
        let mut client = gateway.client();
        client.set_timeout(seconds(5));
        client.send(format!("GET /{case} HTTP/1.0\r\nHost: a\r\n\r\n")).unwrap();
        let outcome = client.response("GET");
        assert!(matches!(outcome, Err(Fault::Reset)), "HTTP/1.0, {case}: looks whole, or hangs");
    }
    // Before the head: nothing was promised, so there is a proper answer.
    let mute = Backend::start(|conn| {
        let reset = conn.request()?.target() == "/reset";
        conn.pause(ms(50));
        if reset {
            conn.reset();
        }
        Ok(())
    });
    let half = Backend::start(|conn| {
        conn.request()?;
        conn.send("HTTP/1.1 200 OK\r\nContent-")
    });
    for (backend, target) in [(&mute, "/fin"), (&mute, "/reset"), (&half, "/half")] {
        let gateway = crate::rig::gateway(&[backend]);
        let response = gateway.client().request("POST", target, &[], b"x").unwrap();
        assert_eq!(response.status, 502, "{target}");
    }
}

pub(crate) fn half_read_response_is_not_reused() {
    let backend = Backend::standard("one");
    let gateway = gateway_with(&[&backend], |config| config.runtime("workers", 1), |listener| listener);
    for round in 0..10 {
        let mut client = gateway.client();
        client.send(request("GET", "/bytes/5000000", &[], b"")).unwrap();
        client.head("GET").unwrap();
        if round % 2 == 0 {
            client.reset();
        } else {
            drop(client);
        }
        let mut next = gateway.client();
        let response = next.get("/echo/next").map_err(|e: Fault| e.to_string()).unwrap();
        assert!(
            response.text().starts_with("GET /echo/next HTTP/1.1\r\n"),
            "round {round}: {}",
            response.text()
        );
    }
    backend.assert_clean();
}

pub(crate) fn an_empty_chunked_upload_is_sent_again_with_its_end() {
    // The end was read from the client and cannot be had again: without it the backend would wait in vain.
    let swallowed = Arc::new(AtomicUsize::new(0));
    let backend = once_then_gone(Arc::clone(&swallowed));
    let gateway = gateway_with(&[&backend], |config| config.runtime("workers", 1), |listener| listener);
    let mut client = gateway.client();
    assert_eq!(client.get("/").unwrap().status, 200);
    client.set_timeout(seconds(10));
    client.send("PUT /empty HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").unwrap();
    assert_eq!(client.response("PUT").unwrap().status, 200);
    assert_eq!(
        swallowed.load(Ordering::SeqCst),
        1,
        "the connection was not reused, so this test shows nothing"
    );
    let sent: Vec<bool> =
        backend.requests().iter().filter(|r| r.target() == "/empty").map(|r| r.complete).collect();
    assert_eq!(sent, [true, true]);
}

pub(crate) fn the_idle_gauge_forgets_a_removed_backend() {
    let (one, two) = (Backend::standard("one"), Backend::standard("two"));
    let mut gateway = gateway_with(&[&one, &two], |config| config.runtime("workers", 1), |listener| listener);
    for _ in 0..4 {
        gateway.get("/");
    }
    gateway.wait_metric("pool_idle_gauge", &[], |v| v == 2.0);
    let listener = Listener::h1().at(gateway.front()).backend(two.address);
    let config = gateway.config.clone().with_listener(listener);
    assert!(matches!(gateway.reload(config), Reload::Complete(_)));
    gateway.wait_metric("pool_idle_gauge", &[], |v| v == 1.0);
    testkit::eventually("the removed backend is let go", seconds(5), || one.open_connections() == 0);
}
