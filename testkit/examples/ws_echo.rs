//! A WebSocket server that sends every message back, for `benches/websocket.sh`: `ws_echo ADDRESS`.
//!
//! It does as little as it can: one thread for all connections, one read and one write for what has come.

#![allow(clippy::unwrap_used, reason = "a tool for the bench: it may end with a panic")]

use testkit::websocket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, listen());
}

async fn listen() {
    let address = std::env::args().nth(1).expect("usage: ws_echo ADDRESS");
    let listener = TcpListener::bind(address).await.unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::task::spawn_local(serve(stream));
    }
}

/// Serves one connection until something about it is not as expected.
async fn serve(mut stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut buffer = Vec::new();
    let mut chunk = [0; 8192];
    let head = loop {
        let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
        buffer.extend_from_slice(&chunk[..count]);
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = buffer.split_off(end + 4);
            break std::mem::replace(&mut buffer, rest);
        }
    };
    let head = String::from_utf8(head).ok()?;
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let key = lines.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))?.1.trim();
    let accept = websocket::accept_key(key);
    let switch = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(switch.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    loop {
        let mut used = 0;
        while let Some((first, payload, length)) = websocket::parse(&buffer[used..]) {
            answer.extend_from_slice(&websocket::frame(first, &payload, None));
            used += length;
        }
        buffer.drain(..used);
        stream.write_all(&answer).await.ok()?;
        answer.clear();
        let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
        buffer.extend_from_slice(&chunk[..count]);
    }
}
