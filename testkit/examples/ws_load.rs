//! Load over WebSocket, for `benches/websocket.sh`: `ws_load ADDRESS CONNECTIONS SECONDS`.
//!
//! Each connection sends a masked message of 64 bytes, waits until it has come back, and sends the next. At the end it prints the round
//! trips and how many there were in a second. One thread carries all connections: to wake one for each message would cost the proxy more
//! than what it does itself.

#![allow(clippy::unwrap_used, reason = "a tool for the bench: it may end with a panic")]
#![allow(clippy::print_stdout, reason = "that is what it is for")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use testkit::websocket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, connections, seconds] = &arguments[..] else {
        panic!("usage: ws_load ADDRESS CONNECTIONS SECONDS");
    };
    let (connections, seconds): (usize, u64) = (connections.parse().unwrap(), seconds.parse().unwrap());
    let streams: Vec<TcpStream> = (0..connections).map(|_| open(address)).collect();
    let began = Instant::now();
    let end = began + Duration::from_secs(seconds);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let round_trips: u64 = runtime.block_on(async {
        let all: JoinSet<u64> = streams.into_iter().map(|stream| load(stream, end)).collect();
        all.join_all().await.into_iter().sum()
    });
    let rate = round_trips as f64 / began.elapsed().as_secs_f64();
    println!("{round_trips} round trips, {rate:.0} per second");
}

/// A connection that has become a tunnel.
fn open(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let request = format!(
        "GET /echo HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains(&websocket::accept_key(KEY)), "{head}");
    stream
}

/// Round trips until `end`.
async fn load(stream: TcpStream, end: Instant) -> u64 {
    stream.set_nonblocking(true).unwrap();
    let mut stream = tokio::net::TcpStream::from_std(stream).unwrap();
    let payload = [b'm'; 64];
    let message = websocket::frame(0x82, &payload, Some(MASK));
    let expected = websocket::frame(0x82, &payload, None);
    let mut answer = vec![0; expected.len()];
    let mut count = 0;
    while Instant::now() < end {
        stream.write_all(&message).await.unwrap();
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, expected);
        count += 1;
    }
    count
}
