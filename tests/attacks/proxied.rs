//! Attacks on who the client is, by headers of the PROXY protocol, judged by what the backend received.

use std::net::SocketAddr;

use testkit::certificates::Authority;
use testkit::proxied::{tlv, v2, v2_of};
use testkit::tls::TlsClient;
use testkit::{Backend, Client, Config, Gateway, Listener, Pool, ms, request, seconds};

/// A listener whose balancer is at 127.0.0.1; everybody else is a stranger.
struct Behind {
    gateway: Gateway,
    backend: Backend,
}

impl Behind {
    fn start(listener: Listener, backend: Backend) -> Self {
        let block = "[listeners.proxy_protocol]\nmode = \"require\"\ntrusted = [\"127.0.0.1\"]\n";
        let listener = listener.text(block).backend(backend.address);
        Self { gateway: Gateway::start(Config::new().listener(listener)), backend }
    }

    /// The connection ends without an answer, no backend hears of it, and it counts under this result.
    #[track_caller]
    fn assert_closed(&self, bytes: &[u8], result: &str) {
        let mut client = self.gateway.client();
        client.send_anyway(bytes);
        self.assert_over(client, result);
    }

    #[track_caller]
    fn assert_over(&self, mut client: Client, result: &str) {
        client.closed(seconds(5)).unwrap_or_else(|error| panic!("{result}: {error}"));
        self.gateway.wait_metric("proxy_headers_total", &[("result", result)], |count| count >= 1.0);
        assert_eq!(self.backend.connections(), 0, "{result}: a backend was reached");
    }

    fn count(&self, result: &str) -> f64 {
        self.gateway.metric("proxy_headers_total", &[("result", result)])
    }
}

fn from() -> SocketAddr {
    "203.0.113.9:50000".parse().unwrap()
}

fn to() -> SocketAddr {
    "192.0.2.1:443".parse().unwrap()
}

pub(crate) fn r_17_headers_of_strangers_are_not_believed() {
    for listener in [Listener::h1(), Listener::tcp()] {
        let rig = Behind::start(listener, Backend::standard("web"));
        for header in [&b"PROXY TCP4 203.0.113.9 192.0.2.1 50000 443\r\n"[..], &v2_of(from(), to(), b""), b""]
        {
            let mut stranger =
                Client::connect_from("127.0.0.2".parse().unwrap(), rig.gateway.front()).unwrap();
            stranger.send_anyway([header, &request("GET", "/", &[], b"")].concat());
            rig.assert_over(stranger, "untrusted");
        }
        assert_eq!(rig.count("untrusted"), 3.0);
    }
}

pub(crate) fn r_17_headers_that_lie_end_the_connection() {
    let request = request("GET", "/", &[], b"");
    for listener in [Listener::h1(), Listener::h2c(), Listener::tcp()] {
        let rig = Behind::start(listener, Backend::standard("web"));
        let with = |header: &[u8]| [header, &request].concat();
        // None at all: a client that has found the way around the balancer.
        rig.assert_closed(&request, "missing");
        rig.assert_closed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "missing");
        for line in [
            "PROXY TCP4 203.0.113.9 192.0.2.1 50000 443\n",
            "PROXY TCP4 203.0.113.9 192.0.2.1 50000 99999\r\n",
            "PROXY TCP4 203.0.113.9, 10.0.0.1 192.0.2.1 50000 443\r\n",
            "PROXY TCP6 203.0.113.9 192.0.2.1 50000 443\r\n",
            "PROXY \r\n",
        ] {
            rig.assert_closed(&with(line.as_bytes()), "malformed");
        }
        for header in [
            v2(0x21, 0x11, &[1; 11]),
            v2(0x31, 0x11, &[1; 12]),
            v2(0x2f, 0x11, &[1; 12]),
            v2_of(from(), to(), &[2, 0, 200, b'x']),
            v2_of(from(), to(), &[2, 0]),
            v2_of(from(), to(), &tlv(0x20, &[1, 0, 0, 0, 0, 0x22, 0xff, 0xff])),
        ] {
            rig.assert_closed(&with(&header), "malformed");
        }
        // A line without an end, and a header that announces more than it may have: neither is waited for.
        rig.assert_closed(&[b"PROXY UNKNOWN ", &[b'x'; 93][..]].concat(), "too_large");
        rig.assert_closed(&v2_of(from(), to(), &[0; 8192])[..16], "too_large");
        rig.assert_closed(&with(&v2_of(from(), to(), &tlv(3, &[1, 2, 3, 4]))), "checksum");
        assert_eq!(rig.count("malformed"), 11.0);
        let told = "connection closed: no usable header of the PROXY protocol";
        let lines = rig.gateway.messages().iter().filter(|line| line.contains(told)).count();
        assert!((1..=3).contains(&lines), "{lines} lines");
    }
}

pub(crate) fn r_17_headers_that_are_cut_or_slow_hold_nothing() {
    let header = v2_of(from(), to(), b"");
    let rig = Behind::start(Listener::h1().http("header_timeout_ms", 600), Backend::standard("web"));
    for length in [0, 1, 5, 12, 15, 16, 27] {
        let mut client = rig.gateway.client();
        client.send(&header[..length]).unwrap();
        client.finish();
        rig.assert_over(client, "closed");
    }
    // No pause is long; the header as a whole takes too long.
    let mut client = rig.gateway.client();
    for byte in &header {
        client.send_anyway([*byte]);
        std::thread::sleep(ms(40));
    }
    rig.assert_over(client, "timeout");
    for begin in [&b""[..], &header[..20], b"PROXY TCP4 203.0.113.9 "] {
        let mut client = rig.gateway.client();
        client.send(begin).unwrap();
        rig.assert_over(client, "timeout");
    }
    assert_eq!(rig.count("timeout"), 4.0);
    rig.gateway.wait_metric("connections_inflight", &[], |open| open == 0.0);
    // The balancer is served all the while.
    let mut client = rig.gateway.client();
    client.send([&header[..], &request("GET", "/", &[], b"")].concat()).unwrap();
    assert_eq!(client.response("GET").unwrap().status, 200);
}

/// Two servers by name behind a listener, and nothing for others.
fn by_name() -> (Gateway, Backend) {
    let backend = Backend::tcp_echo();
    let listener =
        Listener::tcp().text("[[listeners.routes]]\nserver_names = [\"one.example\"]\npool = \"one\"\n");
    let config = Config::new()
        .runtime("handshake_timeout_ms", 600)
        .listener(listener)
        .pool(Pool::named("one").backend(backend.address));
    (Gateway::start(config), backend)
}

pub(crate) fn r_28_hellos_in_pieces_and_without_end() {
    let (gateway, backend) = by_name();
    let hello = TlsClient::new(&Authority::new("any"), None).hello("one.example");
    // Each byte of the hello in a record of its own.
    let records: Vec<u8> = hello[5..].iter().flat_map(|byte| [0x16, 3, 1, 0, 1, *byte]).collect();
    for bytes in [hello.clone(), records] {
        let mut client = gateway.client();
        client.send(&bytes).unwrap();
        assert_eq!(client.wire.exactly(bytes.len()).unwrap(), bytes);
    }
    let heard = backend.connections();
    let mut one_record = hello.clone();
    one_record.truncate(40);
    let long: Vec<u8> = [0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff].into_iter().chain([0; 65_536]).collect();
    let others = [
        // It announces 64 KiB.
        long,
        // Another name, and none.
        TlsClient::new(&Authority::new("any"), None).hello("two.example"),
        TlsClient::new(&Authority::new("any"), None).hello("127.0.0.1"),
        b"GET / HTTP/1.1\r\nHost: one.example\r\n\r\n".to_vec(),
    ];
    for bytes in &others {
        let mut client = gateway.client();
        client.send_anyway(bytes);
        client.closed(seconds(5)).unwrap();
    }
    // Cut, silent, and slow: no pause is long, the whole is.
    let mut cut = gateway.client();
    cut.send(&one_record).unwrap();
    cut.finish();
    cut.closed(seconds(5)).unwrap();
    gateway.client().closed(seconds(5)).unwrap();
    let mut slow = gateway.client();
    for byte in &one_record {
        slow.send_anyway([*byte]);
        std::thread::sleep(ms(30));
    }
    slow.closed(seconds(5)).unwrap();
    assert_eq!(backend.connections(), heard, "a backend was reached");
    gateway.wait_metric("accept_reject_total", &[("reason", "no_route")], |count| count == 7.0);
    gateway.wait_metric("connections_inflight", &[], |open| open == 0.0);
}
