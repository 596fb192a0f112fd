//! A server for `benches/udp.sh`: `udp_echo ADDRESS` sends every datagram back. What looks like the first packet of a QUIC connection is answered
//! with a long header instead, which has a connection ID of the server, as that of the connection.

#![allow(clippy::unwrap_used, reason = "a tool for the bench: it may end with a panic")]

use std::net::UdpSocket;

fn main() {
    let socket = UdpSocket::bind(std::env::args().nth(1).unwrap()).unwrap();
    let mut buffer = vec![0; 65_536];
    let mut connections = u64::from(socket.local_addr().unwrap().port()) << 32;
    loop {
        // An error is about a datagram that was sent earlier.
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let answer = match buffer.get(..length).unwrap() {
                [0xc0, ..] if length >= 1200 => {
                    connections += 1;
                    handshake(connections)
                }
                datagram => datagram.to_vec(),
            };
            let _ = socket.send_to(&answer, from);
        }
    }
}

/// A Handshake packet from the connection ID `number`, as far as it can be seen from outside.
fn handshake(number: u64) -> Vec<u8> {
    let mut packet = [&[0xe0, 0, 0, 0, 1, 8][..], &[1; 8], &[8], &number.to_be_bytes(), &[32]].concat();
    packet.resize(packet.len() + 32, 7);
    packet
}
