//! Every limit: what is over it, and what is just under it.

use crate::rig::{gateway, gateway_http, gateway_with};
use std::net::{IpAddr, Ipv4Addr};
use testkit::client::chunk;
use testkit::{Backend, Client, Fault, pattern, request, seconds};

pub(crate) fn body_over_the_cap_is_413() {
    let backend = Backend::standard("one");
    let gateway = gateway_http(&[&backend], &[("max_request_body_bytes", 10_000)]);
    // Announced: refused before a byte of it is sent.
    let mut client = gateway.client();
    client.set_timeout(seconds(5));
    client.send(request("POST", "/upload", &[("Content-Length", "10001")], b"")).unwrap();
    let response = client.response("POST").unwrap();
    assert_eq!(response.status, 413);
    assert!(response.closes());
    assert_eq!(backend.request_count(), 0);
    // Not announced: refused when it is reached.
    let mut client = gateway.client();
    client.set_timeout(seconds(5));
    client.send(request("POST", "/upload", &[("Transfer-Encoding", "chunked")], b"")).unwrap();
    client.send(chunk(&pattern::bytes(9000))).unwrap();
    client.send_anyway(chunk(&pattern::bytes(2000)));
    assert_eq!(client.response("POST").unwrap().status, 413);
    client.closed(seconds(3)).unwrap();
    assert!(backend.requests().iter().all(|r| !r.complete), "it arrived as if whole");
    // Exactly the cap.
    let mut client = gateway.client();
    let full = pattern::bytes(10_000);
    assert_eq!(client.request("POST", "/upload", &[], &full).unwrap().text(), "10000 right");
    client.send(request("POST", "/upload", &[("Transfer-Encoding", "chunked")], b"")).unwrap();
    client.send([chunk(&full), b"0\r\n\r\n".to_vec()].concat()).unwrap();
    assert_eq!(client.response("POST").unwrap().text(), "10000 right");
    assert_eq!(client.get("/bytes/1000000").unwrap().body.len(), 1_000_000, "responses have no cap");
}

pub(crate) fn no_cap_unless_configured() {
    // The earlier implementation refused whatever was over 64 MiB.
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    let size = 70 * 1024 * 1024;
    client.send(request("POST", "/upload", &[("Content-Length", &size.to_string())], b"")).unwrap();
    testkit::standard::stream(size, |piece| client.send(piece)).unwrap();
    assert_eq!(client.response("POST").unwrap().text(), format!("{size} right"));
}

/// A head with one large field, about `bytes` long.
fn wide(bytes: usize) -> Vec<u8> {
    request("GET", "/wide", &[("X-Wide", &"x".repeat(bytes))], b"")
}

/// A head with `count` fields besides Host.
fn many(count: usize) -> Vec<u8> {
    let fields: Vec<_> = (0..count).map(|i| format!("X-{i}")).collect();
    let fields: Vec<_> = fields.iter().map(|name| (name.as_str(), "1")).collect();
    request("GET", "/many", &fields, b"")
}

#[track_caller]
fn status_of(gateway: &testkit::Gateway, bytes: Vec<u8>) -> u16 {
    let mut client = gateway.client();
    client.set_timeout(seconds(5));
    client.send_anyway(bytes);
    let response = client.response("GET").unwrap();
    if response.status >= 400 {
        assert!(response.closes(), "{} without the end", response.status);
        client.closed(seconds(3)).unwrap();
    }
    response.status
}

pub(crate) fn head_over_the_cap_is_431() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    assert_eq!(status_of(&gateway, wide(60_000)), 200);
    assert_eq!(status_of(&gateway, wide(66_000)), 431);
    assert_eq!(status_of(&gateway, wide(1_000_000)), 431);
    assert_eq!(status_of(&gateway, many(120)), 200);
    assert_eq!(status_of(&gateway, many(129)), 431);
    assert_eq!(status_of(&gateway, many(2000)), 431);
    // A head that never ends is refused as well, not waited for.
    let endless = [b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec(), vec![b'x'; 200_000]].concat();
    assert_eq!(status_of(&gateway, endless), 431);
    assert_eq!(backend.request_count(), 2);
}

pub(crate) fn target_over_the_cap_is_414() {
    let backend = Backend::standard("one");
    let gateway = gateway(&[&backend]);
    let target = |len: usize| request("GET", &format!("/{}", "a".repeat(len - 1)), &[], b"");
    assert_eq!(status_of(&gateway, target(8000)), 200);
    assert_eq!(status_of(&gateway, target(8193)), 414);
    assert_eq!(status_of(&gateway, target(60_000)), 414);
    let endless = [b"GET /".to_vec(), vec![b'x'; 200_000]].concat();
    assert!([414, 431].contains(&status_of(&gateway, endless)));
    assert_eq!(backend.request_count(), 1);
}

pub(crate) fn limits_follow_the_configuration() {
    let backend = Backend::standard("one");
    let keys = [("max_header_bytes", 4096), ("max_header_count", 10), ("max_uri_bytes", 100)];
    let small = gateway_http(&[&backend], &keys);
    assert_eq!(status_of(&small, wide(3500)), 200);
    assert_eq!(status_of(&small, wide(5000)), 431);
    assert_eq!(status_of(&small, many(8)), 200);
    assert_eq!(status_of(&small, many(12)), 431);
    assert_eq!(status_of(&small, request("GET", &format!("/{}", "a".repeat(150)), &[], b"")), 414);
    assert_eq!(status_of(&small, request("GET", &format!("/{}", "a".repeat(90)), &[], b"")), 200);
}

pub(crate) fn connections_over_the_cap_get_503() {
    let backend = Backend::standard("one");
    let gateway = gateway_with(&[&backend], |config| config.runtime("max_inflight_connections", 100), |l| l);
    let mut clients: Vec<Client> = (0..100).map(|_| gateway.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.get("/").unwrap().status, 200, "client {number}");
    }
    for number in 0..5 {
        let mut extra = gateway.client();
        extra.set_timeout(seconds(5));
        let response = extra.response("GET").unwrap_or_else(|e| panic!("extra {number}: {e}"));
        assert_eq!((response.status, response.text().as_str()), (503, "listener over capacity\n"));
        assert!(response.closes());
        extra.closed(seconds(3)).unwrap();
    }
    assert!(gateway.metric("accept_shed_total", &[]) >= 5.0);
    for client in &mut clients {
        assert_eq!(client.get("/").unwrap().status, 200, "those inside are not disturbed");
    }
    clients.truncate(90);
    testkit::eventually("room for another", seconds(5), || {
        gateway.client().get("/").is_ok_and(|r| r.status == 200)
    });
}

pub(crate) fn connections_over_the_cap_of_an_address_are_closed() {
    let backend = Backend::standard("one");
    let gateway = gateway_with(&[&backend], |config| config.runtime("per_ip_connection_cap", 5), |l| l);
    let mut clients: Vec<Client> = (0..5).map(|_| gateway.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    for number in 0..3 {
        let refused = Client::connect(gateway.front()).and_then(|mut extra| {
            extra.set_timeout(seconds(5));
            extra.get("/")
        });
        match refused {
            Ok(response) => assert_eq!(response.status, 503, "extra {number}"),
            Err(Fault::TimedOut) => panic!("extra {number} hangs"),
            Err(_) => {}
        }
    }
    assert!(gateway.metric("accept_reject_total", &[]) >= 3.0);
    let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
    let mut neighbour = Client::connect_from(other, gateway.front()).unwrap();
    assert_eq!(neighbour.get("/").unwrap().status, 200, "another address has its own count");
    assert_eq!(backend.last_request().header("x-forwarded-for").as_deref(), Some("127.0.0.9"));
    clients.pop();
    testkit::eventually("room for another", seconds(5), || {
        gateway.client().get("/").is_ok_and(|r| r.status == 200)
    });
}

/// A backend that reads nothing: what a client can send is what stands in buffers, most of it in those that the gateway asks for.
pub(crate) fn buffers_of_sockets_follow_the_configuration() {
    let taken = |receive: u64, send: u64| {
        // The kernel takes the connection, and nobody ever reads from it.
        let backend = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let config = testkit::Config::new()
            .runtime("receive_buffer_bytes", receive)
            .runtime("send_buffer_bytes", send)
            .listener(
                testkit::Listener::tcp().block("tcp", "splice", false).backend(backend.local_addr().unwrap()),
            );
        let gateway = testkit::Gateway::start(config);
        let stream = std::net::TcpStream::connect(gateway.front()).unwrap();
        stream.set_write_timeout(Some(testkit::ms(1500))).unwrap();
        let (piece, mut sent) = (vec![0u8; 1 << 16], 0usize);
        while let Ok(length) = std::io::Write::write(&mut &stream, &piece) {
            sent += length;
        }
        sent
    };
    let (small, large) = (taken(4096, 4096), taken(4_000_000, 4_000_000));
    assert!(large > small + 2_000_000, "{small} and {large} bytes");
}
