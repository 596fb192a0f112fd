//! A server for `benches/udp.sh`: `udp_echo ADDRESS` sends every datagram back.

#![allow(clippy::unwrap_used, reason = "a tool for the bench: it may end with a panic")]

use std::net::UdpSocket;

fn main() {
    let socket = UdpSocket::bind(std::env::args().nth(1).unwrap()).unwrap();
    let mut buffer = vec![0; 65_536];
    loop {
        // An error is about a datagram that was sent earlier.
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(buffer.get(..length).unwrap(), from);
        }
    }
}
