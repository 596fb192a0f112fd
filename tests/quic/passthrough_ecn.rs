//! ECN marks of QUIC that is forwarded without its keys. Its endpoints compare what they have marked with what has arrived, and do without
//! marks where the two differ (RFC 9000 §13.4.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use testkit::{Config, Gateway, MarkedSocket, ports, seconds};

use crate::passthrough_rig::{initial, long, short};

fn gateway(ip: IpAddr, backend: &MarkedSocket, has_header: bool) -> (Gateway, SocketAddr) {
    let address = SocketAddr::new(ip, ports::port());
    let secret = std::env::temp_dir().join(format!("eg-ecn-{}-{}", std::process::id(), address.port()));
    let config = Config::new()
        .block("passthrough", "bind_addr", address.to_string())
        .block("passthrough", "retry_secret_path", secret.display().to_string())
        .block("passthrough", "backends", vec![backend.address().to_string()])
        .block("passthrough", "proxy_protocol", has_header);
    (Gateway::start(config), address)
}

pub(crate) fn marks_survive_both_ways() {
    for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        for has_header in [false, true] {
            let backend = MarkedSocket::bind((ip, 0).into());
            let (_gateway, address) = gateway(ip, &backend, has_header);
            let client = MarkedSocket::bind((ip, 0).into());
            let case = format!("{ip}, header: {has_header}");
            // A handshake, as the forwarder sees it.
            client.send(address, 2, &initial(b"original"));
            let (flow, mark, bytes) = backend.receive(seconds(5)).expect("the first packet");
            assert_eq!((mark, bytes.len() > 1200), (2, has_header), "{case}");
            backend.send(flow, 1, &long(1, 2, b"client", b"issued-id", 1000));
            assert_eq!(client.receive(seconds(5)).expect("an answer").1, 1, "{case}");
            for round in 0..20u8 {
                let marks = [2, 2, 3, 0, 1, 1, 0, 2].map(|mark| (mark + round) % 4);
                for mark in marks {
                    client.send(address, mark, &short(b"issued-id", 200));
                }
                for mark in marks {
                    assert_eq!(
                        backend.receive(seconds(5)).expect("a packet").1,
                        mark,
                        "{case}: to the server"
                    );
                    backend.send(flow, 3 - mark, &short(b"client", 300));
                }
                for mark in marks {
                    assert_eq!(
                        client.receive(seconds(5)).expect("a packet").1,
                        3 - mark,
                        "{case}: to the client"
                    );
                }
            }
        }
    }
}
