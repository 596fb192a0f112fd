//! Health checks that ask which versions of QUIC are spoken.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use testkit::{Backend, Config, Gateway, Listener};

use crate::rig::listener_to;

/// How the server behaves.
const SPEAKS: u8 = 0;
const SILENT: u8 = 1;
const OTHER_VERSIONS: u8 = 2;
const SOMEBODY_ELSE: u8 = 3;
const NONSENSE: u8 = 4;

/// A server that answers what no version is spoken of, or does not.
struct Server {
    address: SocketAddr,
    manner: Arc<AtomicU8>,
    /// Datagrams that came.
    asked: Arc<AtomicUsize>,
}

impl Server {
    fn start() -> Server {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let (manner, asked) = (Arc::new(AtomicU8::new(SPEAKS)), Arc::new(AtomicUsize::new(0)));
        let (behaves, counts) = (Arc::clone(&manner), Arc::clone(&asked));
        std::thread::spawn(move || {
            let mut datagram = [0; 2000];
            while let Ok((count, from)) = socket.recv_from(&mut datagram) {
                counts.fetch_add(1, Ordering::SeqCst);
                let Some(answer) = answer(&datagram[..count], behaves.load(Ordering::SeqCst)) else {
                    continue;
                };
                let _ = socket.send_to(&answer, from);
            }
        });
        Server { address, manner, asked }
    }
}

/// What a server sends (RFC 8999 §6): the identifiers of the question the other way round, and versions.
fn answer(question: &[u8], manner: u8) -> Option<Vec<u8>> {
    assert!(question.len() >= 1200, "too small for a server to answer: {}", question.len());
    assert_eq!(question[0] & 0xc0, 0xc0, "a long header");
    assert!(question[1..5].iter().all(|byte| byte & 0x0f == 0x0a), "a version that nobody speaks");
    let destination = &question[6..6 + usize::from(question[5])];
    let rest = &question[6 + destination.len()..];
    let source = &rest[1..1 + usize::from(rest[0])];
    let packet = |to: &[u8], from: &[u8], versions: &[u32]| {
        let mut packet = vec![0xca, 0, 0, 0, 0, u8::try_from(to.len()).unwrap()];
        packet.extend_from_slice(to);
        packet.push(u8::try_from(from.len()).unwrap());
        packet.extend_from_slice(from);
        versions.iter().for_each(|version| packet.extend_from_slice(&version.to_be_bytes()));
        packet
    };
    match manner {
        SPEAKS => Some(packet(source, destination, &[0xbaba_baba, 1])),
        OTHER_VERSIONS => Some(packet(source, destination, &[0xff00_001d])),
        SOMEBODY_ELSE => Some(packet(b"somebody", destination, &[1])),
        NONSENSE => Some(vec![0xff; 1500]),
        _ => None,
    }
}

pub(crate) fn who_speaks_quic_is_healthy() {
    let (backend, server) = (Backend::standard("one"), Server::start());
    let config = Config::new()
        .block("pools.p.health", "type", "quic")
        .block("pools.p.health", "port", server.address.port())
        .block("pools.p.health", "interval_ms", 120)
        .block("pools.p.health", "timeout_ms", 90)
        .block("pools.p.health", "rise", 1)
        .block("pools.p.health", "fall", 1);
    let gateway = Gateway::start(config.listener(listener_to(Listener::h1(), &[(backend.address, "")])));
    let labels = [("pool", "p"), ("backend", &*backend.address.to_string())];
    let probes =
        |result| gateway.metric("backend_health_probes_total", &[labels[0], labels[1], ("result", result)]);
    let healthy = |wanted: f64| gateway.wait_metric("backend_healthy", &labels, |healthy| healthy == wanted);
    healthy(1.0);
    for (manner, result) in [
        (SILENT, "timeout"),
        (OTHER_VERSIONS, "malformed"),
        (SOMEBODY_ELSE, "timeout"),
        (NONSENSE, "timeout"),
    ] {
        let before = probes(result);
        server.manner.store(manner, Ordering::SeqCst);
        healthy(0.0);
        testkit::eventually("the reason is told", testkit::seconds(20), || probes(result) > before);
        server.manner.store(SPEAKS, Ordering::SeqCst);
        healthy(1.0);
    }
    // A question that is lost is asked again within the same probe.
    server.manner.store(SILENT, Ordering::SeqCst);
    let (asked, failed) = (server.asked.load(Ordering::SeqCst), probes("timeout"));
    // The first may have been under way already.
    testkit::eventually("two probes have failed", testkit::seconds(20), || probes("timeout") > failed + 1.0);
    assert!(server.asked.load(Ordering::SeqCst) >= asked + 2);
}
