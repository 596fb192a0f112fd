//! QUIC forwarded without its keys, between unmodified clients and servers.

use std::collections::BTreeMap;

use testkit::peers::Certificate;
use testkit::{Gateway, H3Client, Pool, ms, ports, seconds};

use crate::passthrough_rig::{
    Raw, answers, config, gateway, holding, initial, next_round, receive, server, server_at, socket,
};
use crate::rig::Rig;

fn count(answers: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer.split(':').next().unwrap()).or_default() += 1;
    }
    counts
}

pub(crate) fn unmodified_servers_are_reached_by_the_default_configuration() {
    let certificate = Certificate::localhost();
    let servers = ["a", "b", "c"].map(|name| server(&certificate, name, &[]));
    let (gateway, address) = gateway(&servers.each_ref().map(|server| server.address));
    let answered = answers(address, "many", &["--count", "24"]);
    let counts = count(&answered);
    assert_eq!(counts.values().sum::<usize>(), 24);
    assert_eq!(counts.len(), 3, "all servers take part: {counts:?}");
    // 2 MiB down, and the gateway's buffers with it.
    assert_eq!(answers(address, "echo", &["--ask", "bytes 2000000"]), ["2000000"]);
    assert!(gateway.metric("quic_passthrough_connections_total", &[]) >= 25.0);
    assert!(gateway.metric("quic_passthrough_flows", &[]) >= 25.0);
    assert_eq!(gateway.metric("quic_passthrough_dropped_total", &[]), 0.0);
    assert_eq!(gateway.metric("quic_passthrough_retry_minted_total", &[]), 0.0);
    assert!(gateway.metric("bytes_backend_to_client", &[]) > 2_000_000.0);
}

pub(crate) fn ids_of_all_lengths_and_version_2_pass() {
    let certificate = Certificate::localhost();
    for (id_length, version, of_client) in
        [("4", "1", "8"), ("8", "2", "8"), ("18", "1", "18"), ("18", "2", "8")]
    {
        let arguments = ["--id-length", id_length, "--version", version];
        let servers = ["a", "b"].map(|name| server(&certificate, name, &arguments));
        let (_gateway, address) = gateway(&servers.each_ref().map(|server| server.address));
        let of_client = ["--version", version, "--id-length", of_client];
        let answered = answers(address, "many", &[&of_client[..], &["--count", "6"]].concat());
        assert_eq!(answered.len(), 6, "{id_length} {version}");
        let moved = answers(address, "rebind", &of_client);
        assert_eq!(moved[0], moved[1], "{id_length} {version}");
        let seen = servers.iter().flat_map(|server| server.events("handshake"));
        assert!(seen.into_iter().all(|event| event["version"] == version));
    }
}

pub(crate) fn clients_keep_their_servers_when_their_ports_change() {
    let certificate = Certificate::localhost();
    let servers = ["a", "b", "c", "d"].map(|name| server(&certificate, name, &[]));
    let (config, address) = config(&servers.each_ref().map(|server| server.address));
    // With several workers a new port may be that of another one.
    let gateway = Gateway::start(config.runtime("workers", 4));
    for _ in 0..3 {
        let answered = answers(address, "rebind", &["--count", "4"]);
        assert_eq!(count(&answered).len(), 1, "one server all the time: {answered:?}");
        assert_eq!(answered.len(), 5);
    }
    assert!(gateway.metric("quic_passthrough_migrations_total", &[]) >= 12.0);
    assert_eq!(gateway.metric("quic_passthrough_dropped_total", &[]), 0.0);
}

pub(crate) fn ids_that_name_their_servers_are_followed_to_them() {
    // Servers that make such IDs are played by hand: what counts is that an ID which the gateway has never seen leads to its server.
    let servers = [socket(), socket(), socket()];
    let addresses = servers.each_ref().map(|server| server.local_addr().unwrap());
    let (config, address) = config(&addresses);
    let named: Vec<String> =
        addresses.iter().enumerate().map(|(at, to)| format!("\"c4605{at}={to}\"")).collect();
    let lb = format!("[{{ nonce_length = 4, servers = [{}] }}]", named.join(", "));
    let _gateway = Gateway::start(config.block("passthrough", "quic_lb", Raw(lb)));
    for round in 0..2u8 {
        for (at, server) in servers.iter().enumerate() {
            let client = socket();
            let id = [0x07, 0xc4, 0x60, 0x50 | at as u8, 1, 2, 3, round];
            let packet = crate::passthrough_rig::short(&id, 60);
            client.send_to(&packet, address).unwrap();
            let (seen, flow) = receive(server).expect("the server that the ID names");
            assert_eq!(seen, packet);
            server.send_to(&crate::passthrough_rig::short(b"", 40), flow).unwrap();
            assert!(receive(&client).is_some());
        }
    }
}

pub(crate) fn a_retry_of_the_server_passes() {
    let certificate = Certificate::localhost();
    let servers = ["a", "b"].map(|name| server(&certificate, name, &["--retry"]));
    let (_gateway, address) = gateway(&servers.each_ref().map(|server| server.address));
    let answered = answers(address, "many", &["--count", "8"]);
    assert_eq!(answered.len(), 8);
}

pub(crate) fn a_retry_of_the_gateway_is_for_servers_that_share_its_secret() {
    let backend = socket();
    let to = backend.local_addr().unwrap();
    let (config, address) = config(&[to]);
    let gateway =
        Gateway::start(config.block("passthrough", "retry_secret_shared_with", vec![to.to_string()]));
    let client = socket();
    client.send_to(&initial(b"original"), address).unwrap();
    let (retry, from) = receive(&client).expect("a Retry");
    assert_eq!(from, address);
    assert_eq!(retry[0] & 0xf0, 0xf0, "a Retry of version 1");
    assert_eq!(&retry[1..6], [0, 0, 0, 1, 6]);
    assert_eq!(&retry[6..12], b"client");
    let (retry_id, token) = (&retry[13..29], &retry[29..retry.len() - 16]);
    assert_eq!(retry[12], 16);
    let again = |client: &std::net::UdpSocket, token: &[u8]| {
        let mut packet = vec![0xc0, 0, 0, 0, 1, 16];
        packet.extend(retry_id);
        packet.extend(b"\x06client");
        packet.push(0x40);
        packet.push(u8::try_from(token.len()).unwrap());
        packet.extend(token);
        let rest = 1200 - packet.len() - 2;
        packet.extend((0x4000 | rest as u16).to_be_bytes());
        packet.resize(1200, 0x11);
        client.send_to(&packet, address).unwrap();
        packet
    };
    // Another client has no use for the token, and a forged one is good for nobody: both are answered with Retry again.
    let other = socket();
    again(&other, token);
    assert_eq!(receive(&other).expect("another Retry").0[0] & 0xf0, 0xf0);
    again(&client, &vec![7; token.len()]);
    assert_eq!(receive(&client).expect("another Retry").0[0] & 0xf0, 0xf0);
    backend.set_read_timeout(Some(ms(100))).unwrap();
    assert!(receive(&backend).is_none(), "nothing of clients that have proven nothing");
    let sent = again(&client, token);
    assert_eq!(receive(&backend).expect("the packet with the token").0, sent);
    assert_eq!(gateway.metric("quic_passthrough_retry_minted_total", &[]), 3.0);
    assert_eq!(gateway.metric("quic_passthrough_retry_rejected_total", &[]), 2.0);
}

pub(crate) fn a_quic_listener_with_the_secret_completes_a_handshake_after_a_retry_of_the_gateway() {
    let behind = Rig::with(|listener| listener.quic_key("retry_tokens_from", vec!["127.0.0.1".to_owned()]));
    let strict = Rig::with(|listener| listener);
    let secret = testkit::quic::site().directory().join("retry.secret").display().to_string();
    let serves = |rig: &Rig| {
        let to = rig.gateway.front();
        let (config, address) = config(&[to]);
        let config = config.block("passthrough", "retry_secret_path", secret.clone());
        let gateway =
            Gateway::start(config.block("passthrough", "retry_secret_shared_with", vec![to.to_string()]));
        let answer = H3Client::connect(address).and_then(|mut client| client.get("/"));
        // One for each datagram of the ClientHello.
        assert!(gateway.metric("quic_passthrough_retry_minted_total", &[]) >= 1.0);
        assert_eq!(gateway.metric("quic_passthrough_retry_rejected_total", &[]), 0.0);
        answer.is_ok_and(|answer| (answer.status(), answer.text().as_str()) == (200, "one"))
    };
    assert!(serves(&behind));
    assert!(
        !serves(&strict),
        "the token is for the address of the client, which such a listener does not see"
    );
}

pub(crate) fn server_names_choose_the_pool() {
    let certificate = Certificate::localhost();
    let servers = ["plain", "shop", "wild"].map(|name| server(&certificate, name, &[]));
    let (config, address) = config(&[servers[0].address]);
    let routes =
        "[{ sni = [\"shop.example\"], pool = \"shop\" }, { sni = [\"*.wild.example\"], pool = \"wild\" }]";
    let config = config
        .block("passthrough", "routes", Raw(routes.to_owned()))
        .pool(Pool::named("shop").backend(servers[1].address))
        .pool(Pool::named("wild").backend(servers[2].address));
    let gateway = Gateway::start(config);
    for (name, server) in [
        ("shop.example", "shop"),
        ("SHOP.example", "shop"),
        ("a.wild.example", "wild"),
        ("wild.example", "plain"),
        ("other.example", "plain"),
    ] {
        let answered = answers(address, "echo", &["--sni", name, "--count", "2"]);
        assert_eq!(answered, [format!("{server}:hello"), format!("{server}:hello")], "{name}");
    }
    // A ClientHello that does not fit into one datagram: names of application protocols stand in for post-quantum keys.
    let answered = answers(address, "echo", &["--sni", "shop.example", "--pad", "1800"]);
    assert_eq!(answered, ["shop:hello"]);
    assert_eq!(gateway.metric("quic_passthrough_dropped_total", &[]), 0.0);
}

pub(crate) fn weights_count_and_a_server_that_is_gone_is_passed_over() {
    let certificate = Certificate::localhost();
    let heavy = server(&certificate, "heavy", &[]);
    let light = server(&certificate, "light", &[]);
    let gone = ports::reserve();
    let (config, address) = config(&[]);
    let pool = Pool::named("quic")
        .key("policy", "maglev")
        .key("hash_key", "connection_id")
        .weighted(heavy.address, 9)
        .weighted(light.address, 1);
    let mut gateway = Gateway::start(config.block("passthrough", "pool", "quic").pool(pool.clone()));
    let counts = answers(address, "many", &["--count", "40"]);
    let counts = count(&counts);
    assert!(counts["heavy"] > 25, "{counts:?}");
    // Where nothing listens, the kernel says so at once, and the next repetition of the first packet goes elsewhere.
    let config = gateway.config.clone().pool(pool.weighted(gone, 30));
    gateway.reload(config);
    let answered = answers(address, "many", &["--count", "12"]);
    assert_eq!(answered.len(), 12);
    assert!(gateway.metric("quic_passthrough_backend_socket_errors_total", &[]) >= 1.0);
    assert!(gateway.metric("pool_rests_total", &[("pool", "quic")]) >= 1.0);
    // A server that ends in mid-connection takes its connections with it, and no others.
    let config = gateway
        .config
        .clone()
        .pool(Pool::named("quic").key("policy", "round_robin").backend(heavy.address).backend(light.address));
    gateway.reload(config);
    let client = holding(address, 4, "1");
    let (before, failed) = next_round(&client);
    assert_eq!((before.len(), failed), (4, 0));
    let lost = before.iter().filter(|answer| answer.starts_with("heavy")).count();
    assert!(lost > 0 && lost < 4, "{before:?}");
    let heavy_address = heavy.address;
    drop(heavy);
    std::thread::sleep(seconds(1));
    let (after, failed) = next_round(&client);
    assert_eq!((after.len(), failed as usize), (4 - lost, lost), "{after:?}");
    assert_eq!(answers(address, "many", &["--count", "6"]).len(), 6);
    let _back = server_at(heavy_address, &certificate, "heavy", &[]);
}
