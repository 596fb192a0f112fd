//! What the gateway forwards without reading it. The TCP relay: bytes both ways, ends both ways, nothing lost, nothing kept. UDP: `udp.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "tcp/udp.rs"]
mod udp;
#[path = "tcp/udp_ecn.rs"]
mod udp_ecn;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use testkit::backend::BlackHole;
use testkit::harness::Case;
use testkit::pattern::{self, Verifier};
use testkit::{Backend, Client, Config, Fault, Gateway, Listener, ms, ports, seconds};

const GIB: u64 = 1 << 30;

fn main() {
    let mut cases = testkit::cases![
        echo,
        half_close_by_the_client,
        half_close_by_the_backend,
        bulk_after_half_close,
        the_end_of_a_side_reaches_the_other,
        server_speaks_first,
        connections_take_turns,
        refused_backend_is_passed_over,
        all_refused_closes_the_client,
        connect_timeout_closes_the_client,
        idle_connections_end,
        one_direction_is_activity,
        idle_connections_stay_unless_configured,
        counters_move_while_the_connection_lives,
        caps_close_without_a_byte,
        small_messages_after_bulk,
        udp::flows_keep_their_backend_and_get_its_replies,
        udp::datagrams_of_all_sizes_pass_whole,
        udp::bursts_pass_in_order,
        udp::answers_come_from_the_address_that_was_asked,
        udp_ecn::marks_survive_both_ways,
        udp_ecn::marks_survive_a_header_and_flows_of_one_datagram,
        udp::silent_flows_end_and_busy_ones_do_not,
        udp::a_full_listener_takes_no_flow_and_loses_none,
        udp::a_source_has_its_cap_and_a_client_that_of_connections,
        udp::flows_end_with_their_replies,
        udp::without_replies_each_datagram_is_dealt_by_itself,
        udp::the_first_datagram_tells_the_client,
        udp::l4_09_no_more_goes_back_than_the_factor_allows,
        udp::l4_03_made_up_senders_cost_bounded_memory_and_no_flow_that_lives,
        udp::dead_backends_are_left_alone,
        udp::probes_take_a_backend_out_and_back,
        udp::a_reload_moves_the_flows_of_a_backend_that_left_and_no_others,
        udp::a_drain_keeps_flows_and_begins_none,
        udp::a_listener_that_comes_back_serves_at_once,
        udp::an_upgrade_hands_the_sockets_over_and_passes_replies_on,
    ];
    cases.extend([
        Case::new("gibibyte_down", gibibyte_down).alone().guard(seconds(120)),
        Case::new("both_ways_at_once", both_ways_at_once).alone().guard(seconds(120)),
        Case::new("without_splice", without_splice).alone(),
        Case::new("slow_reader_costs_no_memory", slow_reader_costs_no_memory).alone(),
        Case::new("five_hundred_connections", five_hundred_connections).alone(),
    ]);
    testkit::harness::main(env!("CARGO_BIN_EXE_expressgateway"), cases)
}

#[track_caller]
fn gateway(backends: &[&Backend]) -> Gateway {
    gateway_with(backends, |config| config, |listener| listener)
}

#[track_caller]
fn gateway_with(
    backends: &[&Backend],
    config: impl FnOnce(Config) -> Config,
    listener: impl FnOnce(Listener) -> Listener,
) -> Gateway {
    let block = backends.iter().fold(listener(Listener::tcp()), |block, b| block.backend(b.address));
    Gateway::start(config(Config::new()).listener(block))
}

fn echo() {
    let backend = Backend::tcp_echo();
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    for len in [1, 2, 1000, 16_384, 65_536, 65_537, 1, 3_000_000] {
        let data = pattern::bytes(len);
        let (mut sender, sent) = (client.writer(), data.clone());
        let sending = std::thread::spawn(move || sender.send(sent).unwrap());
        assert!(client.wire.exactly(len).unwrap() == data, "{len} bytes");
        sending.join().unwrap();
    }
    client.quiet(ms(50)).unwrap();
}

fn half_close_by_the_client() {
    let backend = Backend::start(|conn| {
        let question = conn.wire.to_end()?;
        conn.pause(ms(200));
        conn.send(format!("heard {} bytes", question.len()))
    });
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    client.send("a question").unwrap();
    client.finish();
    assert_eq!(client.wire.to_end().unwrap(), b"heard 10 bytes");
}

fn half_close_by_the_backend() {
    let heard = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&heard);
    let backend = Backend::start(move |conn| {
        conn.send("all I have to say")?;
        conn.finish();
        let came = conn.wire.to_end()?;
        count.store(came.len() as u64, Ordering::SeqCst);
        Ok(())
    });
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    assert_eq!(client.wire.to_end().unwrap(), b"all I have to say");
    for _ in 0..10 {
        client.send("still talking").unwrap();
        std::thread::sleep(ms(20));
    }
    client.finish();
    testkit::eventually("everything arrives", seconds(5), || heard.load(Ordering::SeqCst) == 130);
}

fn bulk_after_half_close() {
    // Large enough that the relay has changed to splicing by the time the other half has long ended.
    let size = 64 << 20;
    let backend = Backend::start(move |conn| {
        conn.wire.to_end()?;
        testkit::standard::stream(size, |piece| conn.send(piece))
    });
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    client.finish();
    let mut seen = Verifier::default();
    while client.wire.fill().unwrap() > 0 {
        seen.feed(client.wire.pending());
        let count = client.wire.pending().len();
        client.wire.consume(count);
    }
    seen.assert_complete(size);
}

fn the_end_of_a_side_reaches_the_other() {
    let backend = Backend::tcp_echo();
    let gateway = gateway(&[&backend]);
    for reset in [false, true] {
        let mut client = gateway.client();
        client.send("x").unwrap();
        client.wire.exactly(1).unwrap();
        assert_eq!(backend.open_connections(), 1);
        if reset {
            client.reset();
        } else {
            drop(client);
        }
        testkit::eventually("the backend's side ends", seconds(5), || backend.open_connections() == 0);
    }
    for reset in [false, true] {
        let rude = Backend::start(move |conn| {
            conn.wire.exactly(1)?;
            if reset {
                conn.reset();
            }
            Ok(())
        });
        let second = crate::gateway(&[&rude]);
        let mut client = second.client();
        client.send("x").unwrap();
        client.closed(seconds(5)).unwrap();
    }
}

fn server_speaks_first() {
    let backend = Backend::start(|conn| {
        conn.send("220 ready\r\n")?;
        conn.hold(seconds(10));
        Ok(())
    });
    let gateway = gateway(&[&backend]);
    assert_eq!(gateway.client().wire.exactly(11).unwrap(), b"220 ready\r\n");
}

/// A backend that says its name.
fn named(name: &'static str) -> Backend {
    Backend::start(move |conn| conn.send(name))
}

fn connections_take_turns() {
    let (a, b) = (named("a"), named("b"));
    let listener = Listener::tcp().weighted(a.address, 3).weighted(b.address, 1);
    let gateway = Gateway::start(Config::new().runtime("workers", 1).listener(listener));
    for _ in 0..80 {
        gateway.client().wire.to_end().unwrap();
    }
    assert_eq!((a.connections(), b.connections()), (60, 20));
}

fn refused_backend_is_passed_over() {
    let alive = named("alive");
    let listener = Listener::tcp().backend(ports::reserve()).backend(alive.address).backend(ports::reserve());
    let gateway = Gateway::start(Config::new().listener(listener));
    for number in 0..30 {
        assert_eq!(gateway.client().wire.to_end().unwrap(), b"alive", "connection {number}");
    }
}

fn all_refused_closes_the_client() {
    let listener = Listener::tcp().backend(ports::reserve()).backend(ports::reserve());
    let gateway = Gateway::start(Config::new().listener(listener));
    gateway.client().closed(seconds(5)).unwrap();
    // The tries are bounded: the third of three backends is not reached with two tries.
    let alive = named("alive");
    let dead = Listener::tcp().backend(ports::reserve()).backend(ports::reserve()).backend(alive.address);
    let bounded =
        Gateway::start(Config::new().runtime("workers", 1).listener(dead.block("tcp", "connect_tries", 1)));
    let outcomes: Vec<bool> =
        (0..9).map(|_| bounded.client().wire.to_end().is_ok_and(|bytes| bytes == b"alive")).collect();
    let served = outcomes.iter().filter(|served| **served).count();
    assert_eq!(served, 7, "one try each, until it is known who is dead: {outcomes:?}");
}

fn connect_timeout_closes_the_client() {
    let hole = BlackHole::start();
    let listener = Listener::tcp().backend(hole.address);
    let gateway = Gateway::start(Config::new().runtime("connect_timeout_ms", 200).listener(listener));
    gateway.client().closed(seconds(10)).unwrap();
    assert!(gateway.metric("backend_connect_timeout_total", &[]) >= 1.0);
}

fn idle_connections_end() {
    let backend = Backend::tcp_echo();
    let gateway =
        gateway_with(&[&backend], |config| config, |listener| listener.block("tcp", "idle_timeout_ms", 500));
    let mut client = gateway.client();
    // Busy for longer than the timeout, then silent.
    for _ in 0..8 {
        client.send("tick").unwrap();
        assert_eq!(client.wire.exactly(4).unwrap(), b"tick");
        std::thread::sleep(ms(150));
    }
    client.closed(seconds(5)).unwrap();
    testkit::eventually("the backend's side ends", seconds(5), || backend.open_connections() == 0);
}

fn one_direction_is_activity() {
    let backend = Backend::start(|conn| {
        for _ in 0..10 {
            conn.send("tick")?;
            conn.pause(ms(150));
        }
        Ok(())
    });
    let gateway =
        gateway_with(&[&backend], |config| config, |listener| listener.block("tcp", "idle_timeout_ms", 500));
    let mut client = gateway.client();
    assert_eq!(client.wire.to_end().unwrap(), "tick".repeat(10).as_bytes());
}

fn idle_connections_stay_unless_configured() {
    let backend = Backend::tcp_echo();
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    client.quiet(ms(2500)).unwrap();
    client.send("still here").unwrap();
    assert_eq!(client.wire.exactly(10).unwrap(), b"still here");
}

fn counters_move_while_the_connection_lives() {
    let backend = Backend::start(|conn| {
        conn.wire.exactly(100_000)?;
        conn.send(pattern::bytes(250_000))?;
        conn.hold(seconds(20));
        Ok(())
    });
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    client.send(pattern::bytes(100_000)).unwrap();
    client.wire.exactly(250_000).unwrap();
    gateway.wait_metric("bytes_client_to_backend", &[], |v| v == 100_000.0);
    gateway.wait_metric("bytes_backend_to_client", &[], |v| v == 250_000.0);
    gateway.wait_metric("connections_total", &[], |v| v == 1.0);
    gateway.wait_metric("accept_inflight", &[], |v| v == 1.0);
    drop(client);
    gateway.wait_metric("accept_inflight", &[], |v| v == 0.0);
    assert_eq!(gateway.metric("bytes_client_to_backend", &[]), 100_000.0, "not counted again at the end");
}

fn caps_close_without_a_byte() {
    let backend = Backend::tcp_echo();
    let by_address = gateway_with(&[&backend], |config| config.runtime("per_ip_connection_cap", 3), |l| l);
    let in_all = gateway_with(&[&backend], |config| config.runtime("max_inflight_connections", 100), |l| l);
    for (gateway, cap) in [(&by_address, 3), (&in_all, 100)] {
        let mut inside: Vec<Client> = (0..cap).map(|_| gateway.client()).collect();
        for client in &mut inside {
            client.send("in").unwrap();
            assert_eq!(client.wire.exactly(2).unwrap(), b"in");
        }
        for number in 0..3 {
            let closed = Client::connect(gateway.front()).map(|mut extra| extra.closed(seconds(5)));
            assert!(
                matches!(closed, Ok(Ok(())) | Err(Fault::Reset)),
                "cap {cap}, extra {number}: {closed:?}"
            );
        }
        for client in &mut inside {
            client.send("still").unwrap();
            assert_eq!(client.wire.exactly(5).unwrap(), b"still");
        }
        inside.pop();
        testkit::eventually("room for another", seconds(5), || {
            let mut client = gateway.client();
            client.send("x").is_ok() && client.wire.exactly(1).is_ok()
        });
    }
    let neighbour = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
    let full: Vec<Client> = (0..3).map(|_| by_address.client()).collect();
    let mut other = Client::connect_from(neighbour, by_address.front()).unwrap();
    other.send("x").unwrap();
    assert_eq!(other.wire.exactly(1).unwrap(), b"x", "another address has its own count");
    drop(full);
}

fn small_messages_after_bulk() {
    // Whatever path bulk takes, a small message afterwards must not wait for more to come.
    let backend = Backend::tcp_echo();
    let gateway = gateway(&[&backend]);
    let mut client = gateway.client();
    for _ in 0..3 {
        let bulk = pattern::bytes(20_000_000);
        let (mut sender, sent) = (client.writer(), bulk.clone());
        let sending = std::thread::spawn(move || sender.send(sent).unwrap());
        assert!(client.wire.exactly(bulk.len()).unwrap() == bulk);
        sending.join().unwrap();
        for _ in 0..50 {
            client.send("ping").unwrap();
            assert_eq!(client.wire.exactly(4).unwrap(), b"ping");
        }
    }
}

/// Reads `size` bytes of the pattern.
#[track_caller]
fn read_pattern(client: &mut Client, size: u64) {
    let mut seen = Verifier::default();
    while seen.len() < size {
        assert!(client.wire.fill().unwrap() > 0, "ended after {} bytes", seen.len());
        seen.feed(client.wire.pending());
        let count = client.wire.pending().len();
        client.wire.consume(count);
    }
    seen.assert_complete(size);
}

#[track_caller]
fn assert_grew_less_than(gateway: &Gateway, base_kib: u64, mib: u64) {
    let now = gateway.process.rss_kib();
    assert!(now < base_kib + mib * 1024, "memory grew from {base_kib} KiB to {now} KiB");
}

fn gibibyte_down() {
    let backend = Backend::start(|conn| {
        conn.wire.exactly(1)?;
        testkit::standard::stream(GIB, |piece| conn.send(piece))?;
        conn.hold(seconds(10));
        Ok(())
    });
    let gateway = gateway(&[&backend]);
    let base = gateway.process.rss_kib();
    let mut client = gateway.client();
    client.send("x").unwrap();
    read_pattern(&mut client, GIB);
    assert_grew_less_than(&gateway, base, 64);
    gateway.wait_metric("bytes_backend_to_client", &[], |v| v == GIB as f64);
}

fn both_ways_at_once() {
    let backend = Backend::tcp_echo();
    let gateway = gateway(&[&backend]);
    let base = gateway.process.rss_kib();
    let size = GIB / 4;
    let mut client = gateway.client();
    let mut sender = client.writer();
    let sending = std::thread::spawn(move || {
        testkit::standard::stream(size, |piece| sender.send(piece)).unwrap();
        sender.finish();
    });
    read_pattern(&mut client, size);
    sending.join().unwrap();
    assert_eq!(client.wire.to_end().unwrap(), b"");
    assert_grew_less_than(&gateway, base, 64);
}

fn without_splice() {
    let backend = Backend::tcp_echo();
    let gateway =
        gateway_with(&[&backend], |config| config, |listener| listener.block("tcp", "splice", false));
    let size = 64 << 20;
    let mut client = gateway.client();
    let mut sender = client.writer();
    let sending =
        std::thread::spawn(move || testkit::standard::stream(size, |piece| sender.send(piece)).unwrap());
    read_pattern(&mut client, size);
    sending.join().unwrap();
}

fn slow_reader_costs_no_memory() {
    let sent = Arc::new(AtomicU64::new(0));
    let progress = Arc::clone(&sent);
    let size = 256 << 20;
    let backend = Backend::start(move |conn| {
        testkit::standard::stream(size, |piece| {
            conn.send(piece)?;
            progress.fetch_add(piece.len() as u64, Ordering::SeqCst);
            Ok(())
        })
    });
    let gateway = gateway(&[&backend]);
    let base = gateway.process.rss_kib();
    let mut client = gateway.client();
    let before = testkit::standstill("nothing more is taken", || sent.load(Ordering::SeqCst));
    assert!(before < 64 << 20, "{before} bytes were taken from the backend");
    assert_grew_less_than(&gateway, base, 32);
    read_pattern(&mut client, size);
    assert_eq!(client.wire.to_end().unwrap(), b"");
}

fn five_hundred_connections() {
    let backend = Backend::tcp_echo();
    let gateway = gateway(&[&backend]);
    let base = gateway.process.open_fds();
    let mut clients: Vec<Client> = (0..500).map(|_| gateway.client()).collect();
    for round in 0..5 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(format!("{number:04} {round}")).unwrap();
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.wire.exactly(6).unwrap(), format!("{number:04} {round}").as_bytes());
        }
    }
    assert_eq!(backend.open_connections(), 500);
    gateway.wait_metric("accept_inflight", &[], |v| v == 500.0);
    drop(clients);
    testkit::eventually("descriptors are given back", seconds(10), || {
        gateway.process.open_fds() <= base + 4 && backend.open_connections() == 0
    });
}
