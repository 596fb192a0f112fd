//! Datagrams that no client sends: what they cost, and what they cannot do.

use testkit::{Gateway, Pool, Usage, ms, seconds};

use crate::passthrough_rig::{
    begin, config, gateway, initial, long, receive, receive_all, receiver, short, socket,
};

pub(crate) fn q_14_garbage_takes_no_memory_and_gets_no_answer() {
    let backend = socket();
    let (config, address) = config(&[backend.local_addr().unwrap()]);
    let gateway = Gateway::start(config.block("passthrough", "new_connections_per_source", 50));
    let client = socket();
    client.send_to(&[], address).unwrap();
    client.send_to(&[0xc0, 0, 0, 0, 1, 200], address).unwrap();
    for bytes in [short(b"nobody knows me", 60), long(1, 2, b"nobody..", b"", 300), initial(b"warm.up.")] {
        client.send_to(&bytes, address).unwrap();
    }
    receive_all(&backend, ms(300));
    let usage = Usage::watch(&gateway);
    let mut seed = 7u64;
    let mut random = |length: usize| -> Vec<u8> {
        let next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    };
    // From many ports, as far as one machine has them: IDs that nobody knows in headers of all kinds.
    let sockets: Vec<_> = (0..40).map(|_| socket()).collect();
    for round in 0..250 {
        for (at, from) in sockets.iter().enumerate() {
            let id = random(8);
            let bytes = match (round + at) % 4 {
                0 => initial(&id),
                1 => short(&random(20), 100),
                2 => long(1, 2, &id, b"x", 400),
                _ => random(50),
            };
            let _ = from.send_to(&bytes, address);
        }
        if round % 10 == 0 {
            receive_all(&backend, ms(1));
        }
    }
    for from in &sockets {
        assert_eq!(receive_all(from, ms(5)), Vec::<Vec<u8>>::new(), "nobody gets anything");
    }
    usage.assert_grew_less_than(&gateway, 24 * 1024 * 1024);
    let flows = gateway.metric("quic_passthrough_flows", &[]);
    assert!(flows < 500.0, "{flows}");
    assert!(gateway.metric("quic_passthrough_dropped_total", &[("reason", "source_rate")]) > 1_000.0);
    assert!(gateway.metric("quic_passthrough_header_parse_errors_total", &[]) > 0.0);
    // All of that is a line or two for the log.
    let said = gateway.messages().iter().filter(|line| line.starts_with("QUIC passthrough:")).count();
    assert!((1..5).contains(&said), "{said}");
}

pub(crate) fn q_14_forged_ids_move_nobody() {
    let backends = [socket(), socket()];
    let (_gateway, address) = gateway(&backends.each_ref().map(|backend| backend.local_addr().unwrap()));
    let client = socket();
    client.send_to(&initial(b"chosen01"), address).unwrap();
    let backend = &backends[receiver(&backends)];
    let flow = begin(&client, address, backend, b"chosen01", b"issued-id");
    client.send_to(&short(b"issued-id", 80), address).unwrap();
    assert_eq!(receive(backend).unwrap(), (short(b"issued-id", 80), flow));
    // Whoever has seen the ID sends with it from another address. That is another path for the backend, which has to prove it.
    let thief = socket();
    thief.send_to(&short(b"issued-id", 70), address).unwrap();
    let (_, other_flow) = receive(backend).expect("the same backend");
    assert_ne!(other_flow, flow);
    for _ in 0..20 {
        backend.send_to(&short(b"client", 1000), flow).unwrap();
    }
    assert_eq!(receive_all(&client, ms(300)).len(), 20, "answers go where they went");
    assert_eq!(receive_all(&thief, ms(50)).len(), 0);
    // What is sent to the new address is little until its client has shown that it is there.
    for _ in 0..20 {
        backend.send_to(&short(b"client", 100), other_flow).unwrap();
    }
    assert!(receive_all(&thief, ms(300)).len() <= 2);
}

pub(crate) fn a_client_that_has_proven_nothing_gets_three_times_what_it_sent() {
    let backend = socket();
    let (gateway, address) = gateway(&[backend.local_addr().unwrap()]);
    let client = socket();
    client.send_to(&initial(b"original"), address).unwrap();
    let (_, flow) = receive(&backend).unwrap();
    for _ in 0..20 {
        backend.send_to(&long(1, 2, b"client", b"issued-id", 1000), flow).unwrap();
    }
    assert_eq!(receive_all(&client, ms(300)).len(), 3, "3600 bytes for 1200");
    assert_eq!(gateway.metric("quic_passthrough_dropped_total", &[("reason", "amplification")]), 17.0);
    // The ID that the backend has issued is the proof.
    client.send_to(&long(1, 2, b"issued-id", b"client", 100), address).unwrap();
    receive(&backend).unwrap();
    for _ in 0..20 {
        backend.send_to(&short(b"client", 1000), flow).unwrap();
    }
    assert_eq!(receive_all(&client, ms(300)).len(), 20);
}

pub(crate) fn q_14_packets_that_no_server_answers_are_held_against_none() {
    let backends = [socket(), socket()];
    let pool = backends.iter().fold(Pool::named("quic").key("policy", "maglev"), |pool, backend| {
        pool.backend(backend.local_addr().unwrap())
    });
    let (config, address) = config(&[]);
    let gateway = Gateway::start(config.block("passthrough", "pool", "quic").pool(pool));
    let client = socket();
    client.send_to(&initial(b"original"), address).unwrap();
    let first = receiver(&backends);
    // As if it could not be opened there. What comes again is tried at the other one.
    std::thread::sleep(ms(1100));
    client.send_to(&initial(b"original"), address).unwrap();
    let (_, flow) = receive(&backends[1 - first]).expect("the other backend has it");
    client.send_to(&initial(b"original"), address).unwrap();
    assert!(receive(&backends[1 - first]).is_some(), "and stays there");
    assert_eq!(gateway.metric("backend_connect_failures_total", &[]), 0.0);
    assert_eq!(gateway.metric("pool_rests_total", &[("pool", "quic")]), 0.0);
    // A late answer of the first would be that of another connection.
    backends[1 - first].send_to(&long(1, 2, b"client", b"second-id", 800), flow).unwrap();
    assert_eq!(receive(&client).expect("an answer").0, long(1, 2, b"client", b"second-id", 800));
}

pub(crate) fn a_source_begins_no_more_connections_than_its_rate() {
    let backend = socket();
    let (config, address) = config(&[backend.local_addr().unwrap()]);
    let config = config.block("passthrough", "new_connections_per_source", 5).block(
        "passthrough",
        "max_quic_connections",
        8,
    );
    let gateway = Gateway::start(config);
    let sockets: Vec<_> = (0..40).map(|_| socket()).collect();
    for (at, from) in sockets.iter().enumerate() {
        from.send_to(&initial(&[at as u8; 8]), address).unwrap();
    }
    let seen = receive_all(&backend, ms(300)).len();
    assert!((6..=9).contains(&seen), "{seen}");
    gateway
        .wait_metric("quic_passthrough_dropped_total", &[("reason", "source_rate")], |count| count >= 25.0);
    assert!(gateway.metric("quic_passthrough_dropped_total", &[("reason", "table_full")]) >= 1.0);
    // Flows that have proven nothing give way to others after a second.
    std::thread::sleep(seconds(2));
    let late = socket();
    // Where another worker has all of them, it gives one up by the time that the packet comes again.
    let is_served = (0..2).any(|_| {
        late.send_to(&initial(b"late one"), address).unwrap();
        receive(&backend).is_some()
    });
    assert!(is_served);
    assert!(gateway.metric("quic_passthrough_flows_evicted_total", &[]) >= 1.0);
    // Small first packets and short IDs begin nothing.
    std::thread::sleep(ms(500));
    late.send_to(&long(1, 0, b"12345678", b"", 1100), address).unwrap();
    late.send_to(&long(1, 0, b"1234567", b"", 1200), address).unwrap();
    let dropped =
        |why| gateway.wait_metric("quic_passthrough_dropped_total", &[("reason", why)], |count| count == 1.0);
    dropped("small_initial");
    dropped("short_id");
}

pub(crate) fn a_strict_binding_holds_connections_to_their_address() {
    let backend = socket();
    let (config, address) = config(&[backend.local_addr().unwrap()]);
    let gateway = Gateway::start(config.block("passthrough", "strict_source_binding", true));
    let client = socket();
    begin(&client, address, &backend, b"original", b"issued-id");
    let other = socket();
    other.send_to(&short(b"issued-id", 70), address).unwrap();
    client.send_to(&short(b"issued-id", 80), address).unwrap();
    assert_eq!(receive(&backend).unwrap().0.len(), 80, "the other one is dropped");
    // Another worker may have it, and may be later.
    gateway
        .wait_metric("quic_passthrough_dropped_total", &[("reason", "source_binding")], |count| count == 1.0);
    let said = gateway.process.stderr.wait("audit/source_binding_violation", seconds(5));
    assert!(said.is_some());
}

pub(crate) fn versions_that_nobody_knows_pass() {
    let backend = socket();
    let (gateway, address) = gateway(&[backend.local_addr().unwrap()]);
    let client = socket();
    // IDs of such a version may be longer than those of today's.
    let packet = long(0x1a2a_3a4a, 1, &[9; 30], &[8; 25], 1200);
    client.send_to(&packet, address).unwrap();
    let (seen, flow) = receive(&backend).unwrap();
    assert_eq!(seen, packet);
    let negotiation = [&[0x80, 0, 0, 0, 0, 25][..], &[8; 25], &[30], &[9; 30], &[0, 0, 0, 1]].concat();
    backend.send_to(&negotiation, flow).unwrap();
    assert_eq!(receive(&client).unwrap().0, negotiation);
    // IDs of 20 bytes and of none, which this library's servers do not issue.
    let long_id = [3; 20];
    begin(&client, address, &backend, b"original", &long_id);
    let elsewhere = socket();
    elsewhere.send_to(&short(&long_id, 60), address).unwrap();
    assert_eq!(receive(&backend).unwrap().0, short(&long_id, 60));
    let without = socket();
    begin(&without, address, &backend, b"another1", b"");
    without.send_to(&short(b"", 60), address).unwrap();
    assert_eq!(receive(&backend).unwrap().0, short(b"", 60));
    assert_eq!(gateway.metric("quic_passthrough_dropped_total", &[]), 0.0);
}

pub(crate) fn the_first_datagram_says_where_the_client_is() {
    let backend = socket();
    let (config, address) = config(&[backend.local_addr().unwrap()]);
    let _gateway = Gateway::start(config.block("passthrough", "proxy_protocol", true));
    let client = socket();
    client.send_to(&initial(b"original"), address).unwrap();
    client.send_to(&initial(b"original"), address).unwrap();
    let (first, _) = receive(&backend).unwrap();
    let (header, datagram) = first.split_at(28);
    assert_eq!(header[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c");
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    assert_eq!(header[16..24], [127, 0, 0, 1, 127, 0, 0, 1]);
    assert_eq!((port(24), port(26)), (client.local_addr().unwrap().port(), address.port()));
    assert_eq!(datagram, initial(b"original"));
    assert_eq!(receive(&backend).unwrap().0, initial(b"original"), "the first one alone");
}
