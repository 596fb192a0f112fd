//! Real clients and servers on both sides of the programs, in network namespaces of the test: one for the client, one for the gateway, one for
//! each of three backends, joined by veth pairs, in native and in generic mode.
//!
//! They need root. Without it they are reported as ignored.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

mod hosts;
#[path = "namespaces/network.rs"]
mod network;
#[path = "namespaces/peers.rs"]
mod peers;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};

use aya::programs::XdpMode;
use lb_l4_xdp::layout::{LAYOUT_VERSION, Mode};
use lb_l4_xdp::{Pins, XdpError};
use libtest_mimic::{Arguments, Trial};
use network::Network;

type Test = (&'static str, fn(XdpMode));

const TESTS: &[Test] = &[
    ("nat_carries_tcp", nat_carries_tcp),
    ("nat_carries_udp", nat_carries_udp),
    ("nat_carries_bulk_both_ways", nat_carries_bulk_both_ways),
    ("nat_carries_large_frames", nat_carries_large_frames),
    ("link_carries_tcp_and_udp", link_carries_tcp_and_udp),
    ("connections_survive_changes_of_backends", connections_survive_changes_of_backends),
    ("l4_06_a_restart_loses_nothing", l4_06_a_restart_loses_nothing),
    ("l4_06_tables_of_another_layout_are_refused", l4_06_tables_of_another_layout_are_refused),
    ("other_traffic_is_as_without_xdp", other_traffic_is_as_without_xdp),
];

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(4));
    let is_able = hosts::is_able();
    let trials = TESTS.iter().flat_map(|&(name, test)| {
        [("native", XdpMode::Driver), ("skb", XdpMode::Skb)].map(|(mode_name, mode)| {
            Trial::test(format!("{name}_{mode_name}"), move || {
                std::thread::spawn(move || test(mode)).join().map_err(|panic| {
                    let text = panic.downcast_ref::<String>().cloned();
                    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                        .unwrap_or_default()
                        .into()
                })
            })
            .with_ignored_flag(!is_able)
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// The services of either family.
const VIPS: [&str; 2] = ["10.9.0.1", "fd00:9::1"];

/// A request and its answer, over a connection of its own: the answer names the backend.
fn ask(vip: &str, port: u16) -> String {
    let mut stream = TcpStream::connect((vip, port)).unwrap_or_else(|error| panic!("{vip}:{port}: {error}"));
    stream.set_read_timeout(Some(hosts::PATIENCE)).unwrap();
    exchange(&mut stream)
}

/// A request and its answer, over a connection that stays.
fn exchange(stream: &mut TcpStream) -> String {
    stream.write_all(b"who?").unwrap();
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn ask_udp(vip: &str, port: u16) -> String {
    let socket = UdpSocket::bind(if vip.contains(':') { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
    socket.set_read_timeout(Some(hosts::PATIENCE)).unwrap();
    socket.connect((vip, port)).unwrap();
    let mut answer = [0; 64];
    for _ in 0..2 {
        socket.send(b"who?").unwrap();
        let length = socket.recv(&mut answer).unwrap();
        assert_eq!(length, 8);
    }
    String::from_utf8_lossy(&answer[..8]).into_owned()
}

fn nat_carries_tcp(mode: XdpMode) {
    let mut network = Network::new(mode, 1500);
    for vip in VIPS {
        network.service(vip, 80, Mode::Nat, 3);
        let seen: BTreeSet<String> = network.client(move || (0..40).map(|_| ask(vip, 80)).collect());
        assert_eq!(seen.len(), 3, "{seen:?}");
    }
    assert_eq!(network.dropped(), []);
}

fn nat_carries_udp(mode: XdpMode) {
    let mut network = Network::new(mode, 1500);
    for vip in VIPS {
        network.service(vip, 80, Mode::Nat, 3);
        let seen: BTreeSet<String> = network.client(move || (0..40).map(|_| ask_udp(vip, 80)).collect());
        assert_eq!(seen.len(), 3, "{seen:?}");
    }
    assert_eq!(network.dropped(), []);
}

/// The port at which backends send back what they are sent.
const ECHO: u16 = 8081;

fn echo(vip: &str, port: u16, length: usize) {
    let mut stream = TcpStream::connect((vip, port)).unwrap();
    stream.set_read_timeout(Some(hosts::PATIENCE)).unwrap();
    let sent: Vec<u8> = (0..length).map(|at| (at * 7 + at / 251) as u8).collect();
    let mut writer = stream.try_clone().unwrap();
    let copy = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    assert!(received == sent, "{} of {} octets came back", received.len(), sent.len());
}

fn nat_carries_bulk_both_ways(mode: XdpMode) {
    let mut network = Network::new(mode, 1500);
    for vip in VIPS {
        network.service_at(vip, ECHO, Mode::Nat, 3, ECHO);
        network.client(move || echo(vip, ECHO, 4 << 20));
    }
}

fn nat_carries_large_frames(mode: XdpMode) {
    let mut network = Network::new(mode, 9000);
    for vip in VIPS {
        network.service_at(vip, ECHO, Mode::Nat, 3, ECHO);
        network.client(move || echo(vip, ECHO, 1 << 20));
    }
}

fn link_carries_tcp_and_udp(mode: XdpMode) {
    let mut network = Network::new(mode, 1500);
    for vip in VIPS {
        // Backends have the address themselves, and their answers go past the service.
        network.service(vip, 8080, Mode::Link, 3);
        network.service(vip, 8082, Mode::Link, 3);
        let (tcp, udp): (BTreeSet<String>, BTreeSet<String>) = network.client(move || {
            ((0..40).map(|_| ask(vip, 8080)).collect(), (0..40).map(|_| ask_udp(vip, 8082)).collect())
        });
        assert_eq!((tcp.len(), udp.len()), (3, 3));
    }
    assert_eq!(network.dropped(), []);
}

fn connections_survive_changes_of_backends(mode: XdpMode) {
    let mut network = Network::new(mode, 1500);
    let (service, backends) = network.service("10.9.0.1", 80, Mode::Nat, 3);
    let (mut streams, first) = network.client(|| {
        let mut streams: Vec<TcpStream> =
            (0..30).map(|_| TcpStream::connect(("10.9.0.1", 80)).unwrap()).collect();
        for stream in &streams {
            stream.set_read_timeout(Some(hosts::PATIENCE)).unwrap();
        }
        let answers: Vec<String> = streams.iter_mut().map(exchange).collect();
        (streams, answers)
    });
    for ring in [&backends[..1], &backends[1..], &backends[..]] {
        network.ring(service, ring);
        let answers: Vec<String> = streams.iter_mut().map(exchange).collect();
        assert_eq!(answers, first, "each connection stays at its backend");
        let newcomers: BTreeSet<String> = network.client(|| (0..20).map(|_| ask("10.9.0.1", 80)).collect());
        assert!(newcomers.len() <= ring.len(), "{newcomers:?}");
    }
}

/// L4-06: connections go on while no process is there, and while programs are exchanged under traffic. Not one packet is lost: TCP would
/// have sent it again.
fn l4_06_a_restart_loses_nothing(mode: XdpMode) {
    let mut network = Network::pinned(mode, 1500);
    network.service("10.9.0.1", 80, Mode::Nat, 3);
    let mut streams = network.client(|| {
        let streams: Vec<TcpStream> =
            (0..30).map(|_| TcpStream::connect(("10.9.0.1", 80)).unwrap()).collect();
        for stream in &streams {
            stream.set_read_timeout(Some(hosts::PATIENCE)).unwrap();
        }
        streams
    });
    let first: Vec<String> = streams.iter_mut().map(exchange).collect();
    let is_over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stop = is_over.clone();
    let traffic = std::thread::spawn(move || {
        let mut rounds = 0;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            let answers: Vec<String> = streams.iter_mut().map(exchange).collect();
            assert_eq!(answers, first, "each connection stays at its backend");
            rounds += 1;
        }
        let sent_again: u32 = streams.iter().map(hosts::retransmitted).sum();
        (rounds, sent_again)
    });
    for _ in 0..5 {
        network.restart(mode);
        // New connections are served by what the earlier process has said.
        let answer = network.client(|| ask("10.9.0.1", 80));
        assert!(answer.starts_with("backend"), "{answer}");
    }
    is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    let (rounds, sent_again) = traffic.join().unwrap();
    assert!(rounds > 10, "{rounds} rounds");
    assert_eq!((sent_again, network.dropped()), (0, vec![]));
    assert_eq!(network.detach(), ["eth0", "eth1", "eth2", "eth3"]);
}

/// L4-06: bytes that would be read as something else are not taken over, and what forwards goes on.
fn l4_06_tables_of_another_layout_are_refused(mode: XdpMode) {
    let mut network = Network::pinned(mode, 1500);
    network.service("10.9.0.1", 80, Mode::Nat, 3);
    network.client(|| ask("10.9.0.1", 80));
    let refused = |network: &Network, flows4: u32| match network.load_beside(flows4) {
        Err(XdpError::OtherLayout(path)) => path.file_name().unwrap().to_str().unwrap().to_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&network, 4096), "FLOWS4");
    network.set_layout_version(LAYOUT_VERSION + 1);
    assert_eq!(refused(&network, 65_536), "SETTINGS");
    network.set_layout_version(LAYOUT_VERSION);
    drop(network.load_beside(65_536).unwrap());
    network.client(|| ask("10.9.0.1", 80));
    match Pins::new(&std::env::temp_dir()) {
        Err(XdpError::NoBpfFileSystem(_)) => {}
        other => panic!("{other:?}"),
    }
}

fn other_traffic_is_as_without_xdp(mode: XdpMode) {
    let mut network = Network::new(mode, 1500);
    network.service("10.9.0.1", 80, Mode::Nat, 3);
    // Through the gateway's kernel to a backend's own address.
    assert_eq!(network.client(|| ask("10.2.1.11", 8080)), "backend1");
    assert_eq!(network.client(|| ask("fd00:2:2::11", 8080)), "backend2");
    assert_eq!(network.client(|| ask_udp("10.2.3.11", 8080)), "backend3");
}
