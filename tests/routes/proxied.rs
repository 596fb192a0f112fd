//! Who the client is, where a balancer says so before all other bytes: the PROXY protocol.

use std::net::{SocketAddr, TcpStream};

use testkit::certificates::Authority;
use testkit::gateway::Reload;
use testkit::proxied::{HaProxy, tlv, v2, v2_of};
use testkit::tls::TlsClient;
use testkit::tools::Nginx;
use testkit::{Backend, Client, Config, Gateway, H2Client, Listener, Pool, ms, request, seconds};

const REQUIRED: &str = "[listeners.proxy_protocol]\nmode = \"require\"\ntrusted = [\"127.0.0.0/8\"]\n";

const V1: &str = "PROXY TCP4 203.0.113.9 192.0.2.1 50000 443\r\n";

fn client() -> SocketAddr {
    "203.0.113.9:50000".parse().unwrap()
}

fn here() -> SocketAddr {
    "192.0.2.1:443".parse().unwrap()
}

/// A connection that begins with these bytes.
fn opened(gateway: &Gateway, begin: impl AsRef<[u8]>) -> TcpStream {
    let mut client = gateway.client();
    client.send(begin).unwrap();
    client.wire.stream().try_clone().unwrap()
}

pub(crate) fn the_address_of_a_header_counts_everywhere() {
    let (web, inside) = (Backend::standard("web"), Backend::standard("inside"));
    let listener = Listener::h2c().text(REQUIRED).text(
        "[[listeners.routes]]\nsources = [\"203.0.113.0/24\", \"2001:db8::/32\"]\npool = \"inside\"\n\
         request_headers = { set = [\"X-Client: ${client_ip}\"] }\n",
    );
    let config = Config::new()
        .block("observability", "access_log", "stdout")
        .listener(listener.backend(web.address))
        .pool(Pool::named("inside").backend(inside.address));
    let gateway = Gateway::start(config);
    let v6 = v2_of("[2001:db8::7]:1".parse().unwrap(), "[2001:db8::1]:443".parse().unwrap(), b"");
    let tlvs = [tlv(2, b"shop.example"), tlv(4, &[0; 300]), tlv(0xea, b"x")].concat();
    for (header, ip, port) in [
        (V1.as_bytes().to_vec(), "203.0.113.9", 50000),
        (v2_of(client(), here(), b""), "203.0.113.9", 50000),
        (v2_of(client(), here(), &tlvs), "203.0.113.9", 50000),
        (v6, "2001:db8::7", 1),
    ] {
        // By itself, byte by byte, and together with the request.
        let ask = |client: &mut Client| {
            client.send(request("GET", "/", &[], b"")).unwrap();
            client.response("GET").unwrap().text()
        };
        let mut alone = Client::on(opened(&gateway, &header));
        let mut slow = gateway.client();
        slow.drip(&header, 1, ms(1)).unwrap();
        let mut together = gateway.client();
        together.send([&header[..], &request("GET", "/", &[], b"")].concat()).unwrap();
        assert_eq!(together.response("GET").unwrap().text(), "inside", "{ip}");
        for client in [&mut alone, &mut slow, &mut together] {
            assert_eq!((ask(client), ask(client)), ("inside".to_owned(), "inside".to_owned()), "{ip}");
            let seen = inside.last_request().head.headers;
            assert_eq!(
                (seen.all("x-client"), seen.all("x-forwarded-for")),
                (vec![ip.to_owned()], vec![ip.to_owned()])
            );
        }
        let mut two = H2Client::on(opened(&gateway, &header)).unwrap();
        assert_eq!(two.get("/").unwrap().text(), "inside", "{ip} over HTTP/2");
        let logged = if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
        let line = format!("\"client\":\"{logged}\"");
        assert!(gateway.process.stdout.wait(&line, seconds(5)).is_some(), "{line}");
    }
    // A peer that speaks for itself.
    for header in [v2(0x20, 0, b""), b"PROXY UNKNOWN\r\n".to_vec(), v2(0x21, 0, b"")] {
        let mut client = Client::on(opened(&gateway, &header));
        client.send(request("GET", "/", &[], b"")).unwrap();
        assert_eq!(client.response("GET").unwrap().text(), "web");
        assert_eq!(web.last_request().head.headers.all("x-forwarded-for"), ["127.0.0.1"]);
    }
    let count = |result| gateway.metric("proxy_headers_total", &[("result", result)]);
    assert_eq!((count("v1"), count("v2"), count("local")), (4.0, 12.0, 3.0));
}

pub(crate) fn a_trusted_client_behind_a_balancer_is_believed() {
    let backend = Backend::standard("web");
    let listener = Listener::h1()
        .text(REQUIRED)
        .text("[listeners.client_address]\ntrusted_proxies = [\"203.0.113.9\"]\n")
        .backend(backend.address);
    let gateway = Gateway::start(Config::new().listener(listener));
    let told = |from: &str| {
        let header = v2_of(from.parse().unwrap(), here(), b"");
        let mut client = Client::on(opened(&gateway, header));
        client.request("GET", "/", &[("X-Forwarded-For", "198.51.100.1")], b"").unwrap();
        backend.last_request().head.headers.all("x-forwarded-for").join("|")
    };
    // It is the client that the header tells who is trusted or not, and never the balancer.
    assert_eq!(told("203.0.113.9:1"), "198.51.100.1, 203.0.113.9");
    assert_eq!(told("203.0.113.8:1"), "203.0.113.8");
}

pub(crate) fn bytes_behind_a_header_are_carried_whole() {
    let backend = Backend::tcp_echo();
    let gateway =
        Gateway::start(Config::new().listener(Listener::tcp().text(REQUIRED).backend(backend.address)));
    for length in [0, 1, 5000, 100_000, 3_000_000] {
        let data = testkit::pattern::bytes(length);
        let sent = [&v2_of(client(), here(), b"")[..], &data].concat();
        let mut client = gateway.client();
        let mut sender = client.writer();
        let sending = std::thread::spawn(move || {
            sender.send(sent).unwrap();
            sender.finish();
        });
        assert!(client.wire.to_end().unwrap() == data, "{length} bytes");
        sending.join().unwrap();
    }
}

pub(crate) fn headers_come_before_tls() {
    let authority = Authority::new("test authority");
    let files = tempfile::tempdir().unwrap();
    authority.server(&["server.test"]).write(files.path(), "s");
    let (web, echo) = (Backend::standard("web"), Backend::tcp_echo());
    let h1s = Listener::h1s(&files.path().join("s.pem"), &files.path().join("s.key")).text(REQUIRED);
    let tls = Listener::tls(files.path(), "s").text(REQUIRED);
    let config = Config::new().listener(h1s.backend(web.address)).listener(tls.backend(echo.address));
    let (site, raw) = (config.address(0), config.address(1));
    let _gateway = Gateway::start(config);
    let trusting = TlsClient::new(&authority, None);
    for header in [V1.as_bytes().to_vec(), v2_of(client(), here(), b"")] {
        let open = |to| {
            let mut client = Client::connect(to).unwrap();
            client.send(&header).unwrap();
            client.wire.stream().try_clone().unwrap()
        };
        let mut tls = trusting.over(open(site), "server.test").unwrap();
        tls.send(&request("GET", "/", &[("Connection", "close")], b"")).unwrap();
        let answer = String::from_utf8(tls.to_end().unwrap()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(web.last_request().head.headers.all("x-forwarded-for"), ["203.0.113.9"]);
        let mut tls = trusting.over(open(raw), "server.test").unwrap();
        assert!(tls.echo(b"some bytes").unwrap());
    }
}

pub(crate) fn the_cap_of_an_address_counts_clients_and_not_the_balancer() {
    let backend = Backend::standard("web");
    let listener = Listener::h1().text(REQUIRED).backend(backend.address);
    let gateway = Gateway::start(Config::new().runtime("per_ip_connection_cap", 2).listener(listener));
    let open =
        |ip: &str| Client::on(opened(&gateway, v2_of(format!("{ip}:1").parse().unwrap(), here(), b"")));
    let mut kept: Vec<Client> =
        ["203.0.113.1", "203.0.113.1", "203.0.113.2", "203.0.113.2", "203.0.113.3"].map(open).into();
    for client in &mut kept {
        client.send(request("GET", "/", &[], b"")).unwrap();
        assert_eq!(client.response("GET").unwrap().status, 200);
    }
    open("203.0.113.1").closed(seconds(5)).unwrap();
    assert_eq!(gateway.metric("accept_reject_total", &[("reason", "per_ip")]), 1.0);
    // A place comes free with a client of that address.
    drop(kept.remove(0));
    testkit::eventually("a place is free", seconds(5), || {
        let mut client = open("203.0.113.1");
        client.send_anyway(request("GET", "/", &[], b""));
        client.response("GET").is_ok_and(|response| response.status == 200)
    });
}

pub(crate) fn where_headers_are_optional_peers_come_without() {
    let backend = Backend::standard("web");
    let listener = Listener::h2c().backend(backend.address);
    let block = |mode: &str, trusted: &str| {
        let block = format!("[listeners.proxy_protocol]\nmode = \"{mode}\"\ntrusted = [\"{trusted}\"]\n");
        Config::new().listener(listener.clone().text(&block))
    };
    let mut gateway = Gateway::start(block("optional", "127.0.0.1"));
    let front = gateway.front();
    let told = |begin: &str, from: &str| {
        let mut client = Client::connect_from(from.parse().unwrap(), front).unwrap();
        client.send([begin.as_bytes(), &request("GET", "/", &[], b"")].concat()).unwrap();
        let status = client.response("GET").map_or(0, |response| response.status);
        (
            status,
            backend.requests().last().map(|request| request.head.headers.all("x-forwarded-for").join("|")),
        )
    };
    let of = |address: &str| (200, Some(address.to_owned()));
    assert_eq!(told("", "127.0.0.1"), of("127.0.0.1"));
    assert_eq!(told(V1, "127.0.0.1"), of("203.0.113.9"));
    assert_eq!(H2Client::connect(front).unwrap().get("/").unwrap().status(), 200);
    assert_eq!(told("", "127.0.0.2"), of("127.0.0.2"));
    // Of a peer that is not trusted it is a malformed request, and no client.
    let before = backend.request_count();
    assert!(matches!(told(V1, "127.0.0.2").0, 400 | 505));
    assert_eq!(backend.request_count(), before);
    // The rules change with a reload, for connections to come.
    assert!(matches!(gateway.reload(block("require", "127.0.0.2")), Reload::Complete(_)));
    assert_eq!(told(V1, "127.0.0.2"), of("203.0.113.9"));
    assert_eq!(told("", "127.0.0.2").0, 0);
    assert_eq!(told(V1, "127.0.0.1").0, 0);
    assert!(matches!(gateway.reload(Config::new().listener(listener.clone())), Reload::Complete(_)));
    assert_eq!(told("", "127.0.0.1"), of("127.0.0.1"));
}

pub(crate) fn haproxy_tells_its_clients() {
    let backend = Backend::standard("web");
    let listener = Listener::h1().text(REQUIRED).backend(backend.address);
    let gateway = Gateway::start(Config::new().listener(listener));
    for sends in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority"]
    {
        let proxy = HaProxy::start(gateway.front(), sends);
        let mut client = Client::connect_from("127.0.0.7".parse().unwrap(), proxy.address).unwrap();
        for _ in 0..3 {
            assert_eq!(client.get("/").unwrap().status, 200, "{sends}");
            let seen = backend.last_request().head.headers;
            assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.7"], "{sends}");
        }
    }
}

/// A client at this address of the loopback.
fn at(ip: &str, gateway: &Gateway) -> Client {
    Client::connect_from(ip.parse().unwrap(), gateway.front()).unwrap()
}

pub(crate) fn backends_are_told_the_client_of_raw_bytes() {
    let backend = Backend::tcp_echo();
    let tell =
        |version: &str| Listener::tcp().backend(backend.address).backend_key("proxy_protocol", version);
    for version in ["v1", "v2"] {
        let gateway = Gateway::start(Config::new().listener(tell(version)));
        let mut client = at("127.0.0.5", &gateway);
        let (from, to) = (client.wire.stream().local_addr().unwrap(), gateway.front());
        let expected = match version {
            "v1" => {
                format!("PROXY TCP4 {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port()).into_bytes()
            }
            _ => v2_of(from, to, b""),
        };
        // Before a byte of the client has come, and once.
        assert_eq!(client.wire.exactly(expected.len()).unwrap(), expected, "{version}");
        client.send("some bytes").unwrap();
        assert_eq!(client.wire.exactly(10).unwrap(), b"some bytes");
    }
    // Behind a balancer, it is the client that the balancer tells.
    let listener = tell("v2").text(REQUIRED);
    let gateway = Gateway::start(Config::new().listener(listener));
    let mut behind = gateway.client();
    behind.send(V1).unwrap();
    let expected = v2_of(client(), here(), b"");
    assert_eq!(behind.wire.exactly(expected.len()).unwrap(), expected);
}

pub(crate) fn nginx_is_told_each_client_and_no_other() {
    let nginx = Nginx::listening("proxy_protocol", "location / { return 200 \"$proxy_protocol_addr\"; }");
    for version in ["v1", "v2"] {
        let listener = Listener::h2c()
            .text("[listeners.client_address]\ntrusted_proxies = [\"127.0.0.9\"]\n")
            .text("[listeners.health]\ntype = \"http\"\ninterval_ms = 100\ntimeout_ms = 100\nrise = 1\nfall = 1\n")
            .backend(nginx.address)
            .backend_key("proxy_protocol", version);
        let gateway = Gateway::start(Config::new().listener(listener));
        let ips = ["127.0.0.5", "127.0.0.6", "127.0.0.9"];
        let mut clients = ips.map(|ip| at(ip, &gateway));
        for turn in 0..4 {
            for (client, ip) in clients.iter_mut().zip(ips) {
                let response =
                    client.request("GET", "/", &[("X-Forwarded-For", "203.0.113.7")], b"").unwrap();
                let expected = if ip == "127.0.0.9" { "203.0.113.7" } else { ip };
                assert_eq!(
                    (response.status, response.text().as_str()),
                    (200, expected),
                    "{version}, turn {turn}"
                );
            }
        }
        assert_eq!(H2Client::connect(gateway.front()).unwrap().get("/").unwrap().text(), "127.0.0.1");
        // Probes come from the gateway itself, and are understood.
        gateway.wait_metric("backend_health_probes_total", &[("result", "passed")], |count| count >= 2.0);
        let lost = ["connect", "closed", "malformed", "status", "timeout"];
        let failed =
            |result: &&str| gateway.metric("backend_health_probes_total", &[("result", result)]) > 0.0;
        assert_eq!(lost.iter().filter(|result| failed(result)).count(), 0);
    }
}

pub(crate) fn a_gateway_behind_a_gateway_knows_the_client() {
    let authority = Authority::new("test authority");
    let files = tempfile::tempdir().unwrap();
    authority.server(&["server.test"]).write(files.path(), "s");
    let backend = Backend::standard("web");
    let inner =
        Gateway::start(Config::new().listener(Listener::h1().text(REQUIRED).backend(backend.address)));
    let tlvs: Vec<String> = ["authority", "alpn", "ssl", "unique_id"].map(str::to_owned).into();
    let outer = Listener::h1s(&files.path().join("s.pem"), &files.path().join("s.key"))
        .backend(inner.front())
        .backend_key("proxy_protocol", "v2")
        .backend_key("proxy_tlvs", tlvs);
    let outer = Gateway::start(Config::new().listener(outer));
    let tcp = at("127.0.0.8", &outer).wire.stream().try_clone().unwrap();
    let mut tls = TlsClient::new(&authority, None).over(tcp, "server.test").unwrap();
    tls.send(&request("GET", "/", &[("Connection", "close")], b"")).unwrap();
    let answer = String::from_utf8(tls.to_end().unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(backend.last_request().head.headers.all("x-forwarded-for"), ["127.0.0.8, 127.0.0.8"]);
    assert_eq!(inner.metric("proxy_headers_total", &[("result", "v2")]), 1.0);
}

pub(crate) fn a_connection_that_was_told_its_client_serves_all_its_requests() {
    let backend = Backend::standard("web");
    let inner =
        Gateway::start(Config::new().listener(Listener::h2c().text(REQUIRED).backend(backend.address)));
    let outer = |limits: &str| {
        let listener = Listener::h2c()
            .key("pool", "inner")
            .text("[listeners.client_address]\ntrusted_proxies = [\"127.0.0.9\"]\n");
        let pool = format!(
            "[pools.inner]\n{limits}[[pools.inner.backends]]\naddress = \"{}\"\nproxy_protocol = \"v2\"\n",
            inner.front()
        );
        // Limits are those of each worker.
        Gateway::start(Config::new().runtime("workers", 1).listener(listener).text(&pool))
    };
    let gateway = outer("");
    let made = || inner.metric("proxy_headers_total", &[("result", "v2")]);
    let open = |wanted: f64| inner.wait_metric("connections_inflight", &[], |count| count == wanted);
    // Whom the backend was told: the gateway behind appends the peer that it knows.
    let ask = |client: &mut Client, claims: &str| {
        let response = client.request("GET", "/", &[("X-Forwarded-For", claims)], b"").unwrap();
        assert_eq!(response.status, 200);
        let seen = backend.last_request().head.headers.all("x-forwarded-for").join(", ");
        seen.rsplit(", ").next().unwrap_or_default().to_owned()
    };
    let [mut one, mut two] = ["127.0.0.5", "127.0.0.6"].map(|ip| at(ip, &gateway));
    for _ in 0..4 {
        assert_eq!(ask(&mut one, "203.0.113.1"), "127.0.0.5");
        assert_eq!(ask(&mut two, "203.0.113.2"), "127.0.0.6");
    }
    assert_eq!(made(), 2.0, "one connection for each client");
    // Clients behind one connection of a trusted proxy are others.
    let mut proxy = at("127.0.0.9", &gateway);
    for claims in ["203.0.113.7", "203.0.113.8", "203.0.113.7", "203.0.113.8"] {
        assert_eq!(ask(&mut proxy, claims), claims);
    }
    assert_eq!(made(), 4.0);
    let mut client = H2Client::on(at("127.0.0.5", &gateway).wire.stream().try_clone().unwrap()).unwrap();
    for _ in 0..3 {
        assert_eq!(client.get("/").unwrap().status(), 200);
    }
    assert_eq!(made(), 5.0);
    // They end with their clients.
    open(5.0);
    drop(one);
    open(4.0);
    drop((two, client, proxy));
    open(0.0);

    // Where a backend takes one connection, that of a client who asks for nothing gives way.
    let gateway = outer("limits = { max_connections = 1 }\n");
    let before = made();
    let [mut one, mut two] = ["127.0.0.5", "127.0.0.6"].map(|ip| at(ip, &gateway));
    for _ in 0..2 {
        assert_eq!(ask(&mut one, "203.0.113.1"), "127.0.0.5");
        assert_eq!(ask(&mut two, "203.0.113.2"), "127.0.0.6");
    }
    assert_eq!(made(), before + 4.0);
}
