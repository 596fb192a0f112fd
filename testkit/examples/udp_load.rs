//! Load over UDP, for `benches/udp.sh`: `udp_load ADDRESS FLOWS SECONDS [AT_ONCE]`.
//!
//! Each flow has a socket of its own, sends a datagram of 64 bytes, waits until it has come back, and lets the next flow have its turn: at most
//! AT_ONCE datagrams (64) are under way. At the end it prints the round trips, how many there were in a second, and how many got no answer
//! within a second.

#![allow(clippy::unwrap_used, reason = "a tool for the bench: it may end with a panic")]
#![allow(clippy::print_stdout, reason = "that is what it is for")]

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, flows, seconds, rest @ ..] = &arguments[..] else {
        panic!("usage: udp_load ADDRESS FLOWS SECONDS [AT_ONCE]");
    };
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
        for socket in sockets {
            all.spawn_local(load(socket, Rc::clone(&turns), end));
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
async fn load(socket: UdpSocket, turns: Rc<Semaphore>, end: Instant) -> (u32, u32) {
    let (mut trips, mut lost, mut buffer) = (0, 0, [0; 2048]);
    loop {
        let _turn = turns.acquire().await.unwrap();
        // One at least, so that 0 seconds are a question whether anyone answers.
        if Instant::now() >= end && trips + lost > 0 {
            return (trips, lost);
        }
        let _ = socket.send(&[7; 64]).await;
        match tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut buffer)).await {
            Ok(Ok(_)) => trips += 1,
            _ => lost += 1,
        }
    }
}
