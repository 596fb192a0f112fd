//! Who gets a request or a connection.

use std::collections::BTreeSet;

use testkit::backend::Conn;
use testkit::{Backend, Client, Config, Gateway, Listener, ports, seconds};

use crate::rig::{ask, gateway, listener_to};

pub(crate) fn every_policy_is_true_to_weights() {
    let policies = [
        "round_robin",
        "random",
        "least_connections",
        "least_request",
        "p2c",
        "p2c_ewma",
        "maglev",
        "ring_hash",
        "rendezvous",
    ];
    for policy in policies {
        let (heavy, light, none) =
            (Backend::standard("heavy"), Backend::standard("light"), Backend::standard("none"));
        let backends =
            [(heavy.address, "weight = 3"), (light.address, "weight = 1"), (none.address, "weight = 0")];
        let mut config = Config::new()
            .runtime("workers", 1)
            .runtime("max_keepalive_requests", 0)
            .block("pools.p", "policy", policy)
            .listener(listener_to(Listener::h1(), &backends));
        let hashes = ["maglev", "ring_hash", "rendezvous"].contains(&policy);
        if hashes {
            config = config.block("pools.p", "hash_key", "header:x-user");
        }
        let gateway = Gateway::start(config);
        let mut client = gateway.client();
        for number in 0..600 {
            let user = format!("user-{number}");
            assert_eq!(client.request("GET", "/", &[("X-User", &user)], b"").unwrap().status, 200);
        }
        assert_eq!(none.request_count(), 0, "{policy}");
        let share = heavy.request_count();
        assert_eq!(share + light.request_count(), 600);
        // One request at a time leaves nothing to compare but weights, and the latencies of equal backends.
        match policy {
            "round_robin" => assert_eq!(share, 450),
            "least_request" | "least_connections" => assert!(share >= 300, "{policy}: {share}"),
            // 450 ± 5 standard deviations; the tables of the hashing policies are within that too.
            "random" | "maglev" | "ring_hash" | "rendezvous" => {
                assert!((390..=510).contains(&share), "{policy}: {share}");
            }
            _ => assert!(share >= 300 && light.request_count() > 0, "{policy}: {share}"),
        }
    }
}

pub(crate) fn least_request_avoids_a_busy_backend() {
    for policy in ["least_request", "least_connections", "p2c"] {
        let (busy, free) = (stalls("busy"), Backend::standard("free"));
        let gateway = gateway(policy, &[&busy, &free], |config| config.runtime("workers", 1));
        // Until one request of ours hangs at the busy one.
        let mut hanging = Vec::new();
        while busy.request_count() < 1 {
            let mut client = gateway.client();
            client.send(testkit::request("GET", "/stall", &[], b"")).unwrap();
            hanging.push(client);
            testkit::eventually("the request has arrived somewhere", seconds(10), || {
                busy.request_count() + free.request_count() >= hanging.len()
            });
        }
        for _ in 0..40 {
            assert_eq!(ask(&gateway, &[]), "free", "{policy}");
        }
    }
}

/// A backend that never answers.
fn stalls(_: &str) -> Backend {
    Backend::start(|conn: &mut Conn| {
        conn.request()?;
        conn.hold(seconds(60));
        Ok(())
    })
}

pub(crate) fn least_connections_counts_tcp_connections() {
    let backends = [Backend::tcp_echo(), Backend::tcp_echo(), Backend::tcp_echo()];
    let addresses: Vec<_> = backends.iter().map(|backend| (backend.address, "")).collect();
    let config = Config::new().runtime("workers", 1).block("pools.p", "policy", "least_connections");
    let gateway = Gateway::start(config.listener(listener_to(Listener::tcp(), &addresses)));
    let open = |number: usize| -> Vec<Client> { (0..number).map(|_| gateway.client()).collect() };
    let all = |counts: [usize; 3]| {
        testkit::eventually("connections are spread", seconds(10), || {
            backends.iter().map(Backend::open_connections).eq(counts)
        });
    };
    let first = open(3);
    all([1, 1, 1]);
    let second = open(6);
    all([3, 3, 3]);
    drop(first);
    testkit::eventually("three are gone", seconds(10), || {
        backends.iter().map(Backend::open_connections).sum::<usize>() == 6
    });
    let _third = open(3);
    all([3, 3, 3]);
    drop(second);
}

pub(crate) fn a_key_keeps_its_backend() {
    let backends = [Backend::standard("a"), Backend::standard("b"), Backend::standard("c")];
    let all: Vec<&Backend> = backends.iter().collect();
    for (policy, key) in
        [("maglev", "header:x-user"), ("ring_hash", "cookie:sid"), ("rendezvous", "query:id")]
    {
        let with_key = |config: Config| config.block("pools.p", "hash_key", key);
        // Two instances, of two workers each, agree.
        let gateways = [gateway(policy, &all, with_key), gateway(policy, &all, with_key)];
        let mut seen = BTreeSet::new();
        for user in 0..12 {
            let value = format!("u{user}");
            let at = |gateway: &Gateway| {
                let cookie = format!("other=1; sid={value}");
                let target = format!("/?x=1&id={value}");
                let headers = [("X-User", &*value), ("Cookie", &*cookie)];
                gateway.client().request("GET", &target, &headers, b"").unwrap().text()
            };
            let first = at(&gateways[0]);
            for _ in 0..6 {
                assert_eq!(at(&gateways[0]), first, "{policy} {key}");
                assert_eq!(at(&gateways[1]), first, "{policy} {key}");
            }
            seen.insert(first);
        }
        assert!(seen.len() > 1, "{policy}: twelve keys, one backend");
        // Without a key, chance decides.
        let keyless: BTreeSet<String> = (0..40).map(|_| ask(&gateways[0], &[])).collect();
        assert_eq!(keyless.len(), 3, "{policy} {key}");
    }
}

pub(crate) fn tcp_follows_the_source_address() {
    let backends = [Backend::tcp_echo(), Backend::tcp_echo(), Backend::tcp_echo()];
    let addresses: Vec<_> = backends.iter().map(|backend| (backend.address, "")).collect();
    let config = Config::new().runtime("workers", 2).block("pools.p", "policy", "maglev");
    let gateway = Gateway::start(config.listener(listener_to(Listener::tcp(), &addresses)));
    for _ in 0..12 {
        let mut client = gateway.client();
        client.send(b"hello").unwrap();
        assert_eq!(client.wire.exactly(5).unwrap(), b"hello");
    }
    let mut counts: Vec<usize> = backends.iter().map(Backend::connections).collect();
    counts.sort_unstable();
    assert_eq!(counts, [0, 0, 12]);
}

/// A pool may go by connection IDs although its listeners have none: they go by the client's address, and a warning says so.
pub(crate) fn connections_without_an_id_go_by_the_address() {
    let backends = [Backend::standard("a"), Backend::standard("b"), Backend::standard("c")];
    let addresses: Vec<_> = backends.iter().map(|backend| (backend.address, "")).collect();
    let (raw, http) = (listener_to(Listener::tcp(), &addresses), Listener::h1().key("pool", "p"));
    let fronts = [raw.address, http.address];
    let config = Config::new().runtime("workers", 2).block("pools.p", "policy", "maglev").block(
        "pools.p",
        "hash_key",
        "connection_id",
    );
    let gateway = Gateway::start(config.listener(raw).listener(http));
    let mut seen = BTreeSet::new();
    for client in 1..=16 {
        let at = |front| {
            let mut client = Client::connect_from([127, 0, 3, client].into(), front).unwrap();
            client.get("/").unwrap().text()
        };
        let first = at(fronts[0]);
        for _ in 0..3 {
            assert!(fronts.iter().all(|front| at(*front) == first), "client {client}");
        }
        seen.insert(first);
    }
    assert!(seen.len() > 1, "sixteen addresses, one backend");
    let messages = gateway.messages();
    for (index, front) in fronts.iter().enumerate() {
        let warns = |line: &&String| line.contains(&format!("listeners[{index}].pool = \"p\""));
        let warning = messages.iter().find(warns).expect("a warning");
        let parts = ["\"connection_id\"", &format!("listener {front}"), "client's IP address"];
        assert!(parts.iter().all(|part| warning.contains(part)), "{warning}");
    }
}

pub(crate) fn fallback_level_waits_for_its_turn() {
    let (first, second) = (Backend::standard("first"), Backend::standard("second"));
    let dead = ports::reserve();
    let backends = [(first.address, ""), (second.address, "priority = 1")];
    let outlier = |config: Config| {
        config.runtime("workers", 1).block("pools.p.outlier", "consecutive_gateway_failures", 1)
    };
    let start = |backends: &[_]| {
        Gateway::start(outlier(Config::new()).listener(listener_to(Listener::h1(), backends)))
    };
    let gateway = start(&backends);
    for _ in 0..20 {
        assert_eq!(ask(&gateway, &[]), "first");
    }
    // With the first level ejected the second takes over.
    let backends = [(dead, ""), (second.address, "priority = 1"), (second.address, "priority = 2")];
    let gateway = start(&backends[..2]);
    for _ in 0..20 {
        let status = gateway.get("/").status;
        if status == 200 {
            break;
        }
    }
    for _ in 0..20 {
        assert_eq!(ask(&gateway, &[]), "second");
    }
}
