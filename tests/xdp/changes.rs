//! Backends and services that change while packets are forwarded.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

use crate::rig::{Network, PATIENCE, ask, connect, exchange, ip};
use crate::services::{pool, service};
use testkit::seconds;

/// Connections to the service, each with the answer of its backend.
pub(crate) fn connections(network: &Network, count: usize) -> Vec<(TcpStream, String)> {
    network.client.run(move || {
        let one = |_| {
            let mut stream = connect("10.9.0.1:80".parse().unwrap(), PATIENCE).unwrap();
            let answer = exchange(&mut stream).unwrap();
            (stream, answer)
        };
        (0..count).map(one).collect()
    })
}

pub(crate) fn a_backend_that_dies_gets_nothing(mode: &'static str) {
    let mut network = Network::new(mode);
    let health =
        "[pools.web.health]\ntype = \"tcp\"\ninterval_ms = 200\ntimeout_ms = 200\nfall = 2\nrise = 2\n";
    let config =
        network.config(&[service("web", 80, "tcp", "nat", "web"), pool("web", 8080, health)].concat());
    network.start(&config);
    network.until_served_by(80, &["backend1", "backend2", "backend3"]);
    let mut streams = connections(&network, 20);
    network.backends[2].run(|| ip("link set b0 down\n"));
    network.until_served_by(80, &["backend1", "backend2"]);
    for (stream, first) in streams.iter_mut().filter(|(_, first)| first != "backend3") {
        assert_eq!(&exchange(stream).unwrap(), first, "a flow stays where it is");
    }
    network.backends[2].run(|| {
        ip("link set b0 up\nroute replace default via 10.2.3.1 dev b0\n");
    });
    network.until_served_by(80, &["backend1", "backend2", "backend3"]);
}

/// An HTTP server that answers probes with a status, in the namespace of the calling thread.
fn health(status: &'static AtomicU16) {
    let listener = TcpListener::bind("[::]:8090").unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let status = status.load(Ordering::Relaxed);
            let mut question = [0; 1024];
            // One that does not answer closes.
            if status > 0 && stream.read(&mut question).is_ok() {
                let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    });
}

/// A backend whose probes are answered, by a refusal, finishes what it has. One that is silent is gone, and its flows go elsewhere.
pub(crate) fn a_backend_that_refuses_probes_finishes(mode: &'static str) {
    let mut network = Network::new(mode);
    let statuses: [&'static AtomicU16; 3] =
        std::array::from_fn(|_| &*Box::leak(Box::new(AtomicU16::new(200))));
    for (backend, status) in network.backends.iter().zip(statuses) {
        backend.run(move || health(status));
    }
    let probes = "[pools.web.health]\ntype = \"http\"\npath = \"/\"\nport = 8090\ninterval_ms = 200\ntimeout_ms = 200\nfall = 2\nrise = 2\n";
    let config = network.config(
        &[
            service("web", 80, "tcp", "nat", "web"),
            service("names", 80, "udp", "nat", "web"),
            pool("web", 8080, probes),
        ]
        .concat(),
    );
    network.start(&config);
    network.until_served_by(80, &["backend1", "backend2", "backend3"]);
    let mut streams = connections(&network, 30);
    let mut sockets = datagrams(&network, 30);
    statuses[0].store(503, Ordering::Relaxed);
    network.until_served_by(80, &["backend2", "backend3"]);
    for (stream, first) in &mut streams {
        assert_eq!(&exchange(stream).unwrap(), first, "a flow stays where it is");
    }
    for (socket, first) in &mut sockets {
        assert_eq!(&question(socket).unwrap(), first, "a flow stays where it is");
    }
    // It ends, and a flow of datagrams finds another backend.
    statuses[0].store(0, Ordering::Relaxed);
    let moved = testkit::poll(PATIENCE, || {
        let answers: Vec<_> =
            sockets.iter().map(|(socket, _)| question(socket).unwrap_or_default()).collect();
        answers.iter().all(|answer| answer == "backend2" || answer == "backend3").then_some(())
    });
    assert!(moved.is_some());
    for (stream, first) in streams.iter_mut().filter(|(_, first)| first != "backend1") {
        assert_eq!(&exchange(stream).unwrap(), first);
    }
    statuses[0].store(200, Ordering::Relaxed);
    network.until_served_by(80, &["backend1", "backend2", "backend3"]);
}

/// Flows of datagrams, each with the answer of its backend.
pub(crate) fn datagrams(network: &Network, count: usize) -> Vec<(UdpSocket, String)> {
    network.client.run(move || {
        let one = |_| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(seconds(3))).unwrap();
            socket.connect("10.9.0.1:80").unwrap();
            let answer = question(&socket).unwrap();
            (socket, answer)
        };
        (0..count).map(one).collect()
    })
}

/// A question and its answer, over a flow that stays.
pub(crate) fn question(socket: &UdpSocket) -> std::io::Result<String> {
    socket.send(b"who?")?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

pub(crate) fn weights_and_drains_are_followed(mode: &'static str) {
    let mut network = Network::new(mode);
    let config = network.config(&[service("web", 80, "tcp", "nat", "web"), pool("web", 8080, "")].concat());
    network.start(&config);
    let mut streams = connections(&network, 20);
    // A weight of 0 takes new flows away, and leaves those that there are.
    let weighted =
        config.replace("address = \"10.2.1.11:8080\"\n", "address = \"10.2.1.11:8080\"\nweight = 0\n");
    assert!(network.reload(&weighted).contains("pass complete"));
    network.until_served_by(80, &["backend2", "backend3"]);
    for (stream, first) in &mut streams {
        assert_eq!(&exchange(stream).unwrap(), first);
    }
    // A drain at the admin port does the same.
    let (status, body) = network.request("POST", "/backends/web/10.2.2.11:8080/drain").unwrap();
    assert_eq!(status, 200, "{body}");
    network.until_served_by(80, &["backend3"]);
    for (stream, first) in &mut streams {
        assert_eq!(&exchange(stream).unwrap(), first);
    }
    assert!(network.reload(&config).contains("pass complete"));
    network.until_served_by(80, &["backend1", "backend3"]);
}

pub(crate) fn a_reload_adds_changes_and_removes_services(mode: &'static str) {
    let mut network = Network::new(mode);
    let all = ["backend1", "backend2", "backend3"];
    let (web, other) = (service("web", 80, "tcp", "nat", "web"), service("other", 8080, "tcp", "nat", "web"));
    let pool = pool("web", 8080, "");
    network.start(&network.config(&[web.as_str(), &pool].concat()));
    network.until_served_by(80, &all);
    let mut streams = connections(&network, 10);
    let two = network.config(&[web.as_str(), &other, &pool].concat());
    assert!(network.reload(&two).contains("pass complete"));
    network.until_served_by(8080, &all);
    // Another mode at the same address and port.
    assert!(
        network
            .reload(&two.replacen(
                "port = 8080\nprotocol = \"tcp\"\nmode = \"nat\"",
                "port = 8080\nprotocol = \"tcp\"\nmode = \"dsr-l2\"",
                1
            ))
            .contains("pass complete")
    );
    network.until_served_by(8080, &all);
    // What is wrong leaves everything as it is.
    assert!(network.reload(&two.replace("name = \"other\"", "name = \"web\"")).contains("rejected"));
    network.until_served_by(8080, &all);
    let one = network.config(&[web.as_str(), &pool].concat());
    assert!(network.reload(&one).contains("pass complete"));
    let refused =
        testkit::poll(seconds(20), || network.client.run(|| ask("10.9.0.1", 8080).is_err()).then_some(()));
    assert!(refused.is_some());
    network.until_served_by(80, &all);
    for (stream, first) in &mut streams {
        assert_eq!(&exchange(stream).unwrap(), first, "a reload costs no flow");
    }
}
