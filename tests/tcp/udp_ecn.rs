//! ECN marks of datagrams on their way through the gateway (RFC 3168). Who forwards a packet may not clear them (RFC 9331 §3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use testkit::{Config, Gateway, Listener, MarkedSocket, ports, seconds};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Marks of neighbours that are equal, and of some that are not; all four of them.
const MARKS: [u8; 12] = [2, 2, 2, 0, 0, 3, 1, 1, 2, 3, 0, 1];

fn start(front: SocketAddr, backend: &MarkedSocket, change: impl FnOnce(Listener) -> Listener) -> Gateway {
    let listener = Listener::udp().backend(backend.address()).at(front);
    Gateway::start(Config::new().listener(change(listener)))
}

pub(crate) fn marks_survive_both_ways() {
    for (outside, inside) in [(V4, V4), (V6, V6), (V4, V6), (V6, V4)] {
        let backend = MarkedSocket::bind((inside, 0).into());
        let front = SocketAddr::new(outside, ports::port());
        let _gateway = start(front, &backend, |listener| listener);
        let clients = [0, 1].map(|_| MarkedSocket::bind((outside, 0).into()));
        for round in 0..5u8 {
            for (at, mark) in MARKS.into_iter().enumerate() {
                for client in &clients {
                    client.send(front, mark, &[&[round, at as u8][..], &[7; 400]].concat());
                }
            }
            let mut counts = [0; MARKS.len()];
            for _ in 0..MARKS.len() * clients.len() {
                let (flow, mark, bytes) = backend.receive(seconds(5)).expect("a datagram");
                let at = usize::from(bytes[1]);
                assert_eq!((bytes[0], mark), (round, MARKS[at]), "{outside} to {inside}: to the backend");
                counts[at] += 1;
                // Another mark than that of the question.
                backend.send(flow, 3 - mark, &bytes);
            }
            assert_eq!(counts, [clients.len(); MARKS.len()]);
            for client in &clients {
                for _ in MARKS {
                    let (_, mark, bytes) = client.receive(seconds(5)).expect("an answer");
                    let expected = 3 - MARKS[usize::from(bytes[1])];
                    assert_eq!((bytes[0], mark), (round, expected), "{outside} to {inside}: to the client");
                }
            }
        }
    }
}

pub(crate) fn marks_survive_a_header_and_flows_of_one_datagram() {
    for (key, value) in [("proxy_protocol", None), ("replies", Some(0))] {
        for ip in [V4, V6] {
            let backend = MarkedSocket::bind((ip, 0).into());
            let front = SocketAddr::new(ip, ports::port());
            let _gateway = start(front, &backend, |listener| match value {
                Some(value) => listener.block("udp", key, value),
                None => listener.block("udp", key, true),
            });
            for mark in MARKS {
                let client = MarkedSocket::bind((ip, 0).into());
                client.send(front, mark, b"question");
                let (_, arrived, bytes) = backend.receive(seconds(5)).expect("a datagram");
                assert!(bytes.ends_with(b"question"), "{key}");
                assert_eq!((bytes.len() > 8, arrived), (value.is_none(), mark), "{key} {ip}");
            }
        }
    }
}
