//! Load over UDP, for `benches/udp.sh`: `udp_load ADDRESS FLOWS SECONDS [AT_ONCE [quic]]`.
//!
//! Each flow has a socket of its own, sends a datagram of 64 bytes, waits until it has come back, and lets the next flow have its turn: at most
//! AT_ONCE datagrams (64) are under way. At the end it prints the round trips, how many there were in a second, and how many got no answer
//! within a second.
//!
//! With `quic` the datagrams look like QUIC from outside: the first is an Initial of 1200 bytes, and those after it have a short header with the
//! connection ID that the answer to the Initial has brought.

#![allow(clippy::unwrap_used, reason = "a tool for the bench: it may end with a panic")]
#![allow(clippy::indexing_slicing, reason = "a tool for the bench: it may end with a panic")]
#![allow(clippy::print_stdout, reason = "that is what it is for")]

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, flows, seconds, rest @ ..] = &arguments[..] else {
        panic!("usage: udp_load ADDRESS FLOWS SECONDS [AT_ONCE [quic]]");
    };
    let is_quic = rest.get(1).is_some_and(|kind| kind == "quic");
    let (flows, seconds): (usize, u64) = (flows.parse().unwrap(), seconds.parse().unwrap());
    let turns = Rc::new(Semaphore::new(rest.first().map_or(64, |text| text.parse().unwrap())));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let mut sockets = Vec::new();
        for _ in 0..flows {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket.connect(address).await.unwrap();
            sockets.push(socket);
        }
        let began = Instant::now();
        let end = began + Duration::from_secs(seconds);
        let mut all = JoinSet::new();
        for (number, socket) in sockets.into_iter().enumerate() {
            let datagram = if is_quic { initial(number) } else { vec![7; SIZE] };
            all.spawn_local(load(socket, datagram, Rc::clone(&turns), end));
        }
        let (mut trips, mut lost) = (0, 0);
        while let Some(counts) = all.join_next().await {
            let counts = counts.unwrap();
            trips += counts.0;
            lost += counts.1;
        }
        let rate = f64::from(trips) / began.elapsed().as_secs_f64();
        println!("{trips} round trips, {rate:.0} per second, {lost} lost");
        assert!(trips > 0 || seconds == 0 && lost == 0, "no answer");
    });
}

/// Round trips, and those without an answer.
async fn load(socket: UdpSocket, mut datagram: Vec<u8>, turns: Rc<Semaphore>, end: Instant) -> (u32, u32) {
    let (mut trips, mut lost, mut buffer) = (0, 0, [0; 2048]);
    loop {
        let _turn = turns.acquire().await.unwrap();
        // One at least, so that 0 seconds are a question whether anyone answers.
        if Instant::now() >= end && trips + lost > 0 {
            return (trips, lost);
        }
        let _ = socket.send(&datagram).await;
        match tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut buffer)).await {
            Ok(Ok(length)) => {
                trips += 1;
                if let Some(id) = issued(&buffer[..length]) {
                    datagram = [&[0x40], id, &[7; SIZE]].concat();
                    datagram.truncate(SIZE);
                }
            }
            _ => lost += 1,
        }
    }
}

/// Bytes of a datagram, save the first of a flow that looks like QUIC.
const SIZE: usize = 64;

/// The first packet of a client, with connection IDs of 8 bytes (RFC 9000 §17.2.2).
fn initial(number: usize) -> Vec<u8> {
    let id = (number as u64 ^ u64::from(std::process::id()) << 32).to_be_bytes();
    let mut packet = [&[0xc0, 0, 0, 0, 1, 8][..], &id, &[8], &[1; 8], &[0]].concat();
    let rest = 1200 - packet.len() - 2;
    packet.extend((0x4000 | rest as u16).to_be_bytes());
    packet.resize(1200, 7);
    packet
}

/// The connection ID that a long header tells of its sender.
fn issued(packet: &[u8]) -> Option<&[u8]> {
    let (id, rest) = packet.get(5..).filter(|_| packet[0] & 0x80 != 0)?.split_first()?;
    let (length, rest) = rest.get(usize::from(*id)..)?.split_first()?;
    rest.get(..usize::from(*length))
}
