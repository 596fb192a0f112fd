//! Want of descriptors of our own: idle connections give way, and no backend is blamed.

use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Barrier};

use testkit::harness::Case;
use testkit::process::limit_descriptors;
use testkit::{Backend, Client, Config, Gateway, H2Backend, Listener, eventually, seconds};

use crate::rig::one_worker;

pub(crate) fn cases() -> Vec<Case> {
    testkit::cases![
        idle_connections_give_way,
        the_cap_counts_what_lingers,
        a_busy_pool_uses_its_connections_again,
        nobody_is_blamed_for_what_we_lack,
        caps_beyond_the_limit_are_told_at_the_start,
    ]
}

/// More than a gateway without connections has open, and less than the backends below would take.
const LIMIT: u64 = 100;

fn few_descriptors(config: Config) -> Gateway {
    let gateway = Gateway::launch_as(config, |command| limit_descriptors(command, LIMIT));
    eventually("it is ready", seconds(10), || gateway.readyz() == Some(200));
    gateway
}

fn idle_connections_give_way() {
    let h1: Vec<Backend> = (0..60).map(|_| Backend::standard("h1")).collect();
    let h2: Vec<H2Backend> =
        (0..60).map(|_| H2Backend::start(|call| call.respond(200, &[], b"h2"))).collect();
    let addresses: [Vec<SocketAddr>; 2] = [
        h1.iter().map(|backend| backend.address).collect(),
        h2.iter().map(|backend| backend.address).collect(),
    ];
    for (addresses, protocol) in addresses.iter().zip(["h1", "h2"]) {
        let listener = Listener::h1().block("outlier", "consecutive_gateway_failures", 1);
        let listener = addresses
            .iter()
            .fold(listener, |listener, address| listener.backend(address).backend_key("protocol", protocol));
        let gateway = few_descriptors(Config::new().runtime("workers", 2).listener(listener));
        let to = gateway.front();
        let clients: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(move || {
                    let mut client = Client::connect(to).unwrap();
                    (0..90).map(|_| client.get("/").unwrap().status).filter(|status| *status != 200).count()
                })
            })
            .collect();
        let failed: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert_eq!(failed, 0, "{protocol}");
        blames_nobody(&gateway);
    }
}

fn blames_nobody(gateway: &Gateway) {
    for name in ["pool_rests_total", "backend_ejections_total", "backend_connect_failures_total"] {
        assert_eq!(gateway.metric(name, &[]), 0.0, "{name}");
    }
}

fn the_cap_counts_what_lingers() {
    let backends: Vec<Backend> = (0..30).map(|_| Backend::standard("one")).collect();
    let listener =
        backends.iter().fold(Listener::h1(), |listener, backend| listener.backend(backend.address));
    let config = one_worker(Config::new()).block("pool", "total_max", 8).block("pool", "linger_ms", 60_000);
    let gateway = Gateway::start(config.listener(listener));
    let mut client = gateway.client();
    for _ in 0..60 {
        assert_eq!(client.get("/").unwrap().status, 200);
        assert!(gateway.metric("pool_idle_gauge", &[]) <= 8.0);
    }
    let open = || backends.iter().map(Backend::open_connections).sum::<usize>();
    eventually("no more are open", seconds(10), || open() <= 8);
    assert!(open() > 0, "and some are kept");
}

/// Requests that run at once, round after round, find the connections of the round before, though the cap is far lower.
fn a_busy_pool_uses_its_connections_again() {
    const CLIENTS: usize = 60;
    const ROUNDS: usize = 5;
    let backend = Backend::standard("one");
    let listener = Listener::h1().backend(backend.address);
    let config = one_worker(Config::new()).block("pool", "total_max", 8).block("pool", "linger_ms", 60_000);
    let gateway = Gateway::start(config.listener(listener));
    let (to, barrier) = (gateway.front(), Arc::new(Barrier::new(CLIENTS)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let barrier = Arc::clone(&barrier);
            std::thread::spawn(move || {
                let mut client = Client::connect(to).unwrap();
                for _ in 0..ROUNDS {
                    // Slow enough that all of a round are under way together.
                    barrier.wait();
                    assert_eq!(client.get("/slow/300").unwrap().status, 200);
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    let made = backend.connections();
    assert!((CLIENTS / 2..CLIENTS * 2).contains(&made), "{made} connections for {CLIENTS} at once");
    // When the rush is over the cap holds again.
    let mut client = gateway.client();
    eventually("the surplus is closed", seconds(30), || {
        assert_eq!(client.get("/").unwrap().status, 200);
        gateway.metric("pool_idle_gauge", &[]) <= 8.0
    });
}

fn nobody_is_blamed_for_what_we_lack() {
    let backend = Backend::standard("one");
    let listener = |listener: Listener| {
        listener.block("outlier", "consecutive_gateway_failures", 1).backend(backend.address)
    };
    // On a busy machine it takes a while until nothing is left, and the client has sent nothing until then.
    let patient = Listener::h1().http("header_timeout_ms", 120_000);
    let (http, tcp) = (listener(patient), listener(Listener::tcp()));
    let raw = tcp.address;
    let gateway = few_descriptors(one_worker(Config::new()).listener(http).listener(tcp));
    let mut client = gateway.client();
    // Taken, and without a backend yet.
    let relayed = TcpStream::connect(gateway.front()).unwrap();
    let mut held: Vec<TcpStream> = Vec::new();
    eventually("nothing is left", seconds(10), || {
        held.extend((0..LIMIT).map_while(|_| TcpStream::connect(gateway.front()).ok()));
        gateway.process.stderr.count("transient accept error") > 0
    });
    // The admin port may have closed a connection since: its place goes to a client that waits to be accepted.
    let mut status = 0;
    eventually("nothing is left for a backend", seconds(20), || {
        status = client.get("/").unwrap().status;
        status != 200
    });
    assert_eq!(status, 503);
    drop((held, relayed));
    eventually("it serves again", seconds(10), || {
        client.get("/").is_ok_and(|response| response.status == 200) || {
            client = gateway.client();
            false
        }
    });
    assert!(TcpStream::connect(raw).is_ok());
    assert!(gateway.metric("request_rejected_total", &[("reason", "no_descriptors")]) >= 1.0);
    gateway.process.stderr.wait("the process lacks what that takes", seconds(10)).unwrap();
    blames_nobody(&gateway);
}

fn caps_beyond_the_limit_are_told_at_the_start() {
    const LINE: &str = "exceed the limit on open files";
    let backend = Backend::standard("one");
    for (most, told) in [(100, 0), (1000, 1)] {
        let config = one_worker(Config::new())
            .runtime("max_inflight_connections", most)
            .block("pool", "total_max", 8)
            .listener(Listener::h1().backend(backend.address));
        let gateway = Gateway::launch_as(config, |command| limit_descriptors(command, 200));
        eventually("it is ready", seconds(10), || gateway.readyz() == Some(200));
        gateway.process.stderr.wait("service open for traffic", seconds(10)).unwrap();
        assert_eq!(gateway.process.stderr.count(LINE), told, "{most}");
    }
}
