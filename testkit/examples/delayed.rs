//! An HTTP/1.1 server that answers each request after a while, for `benches/slow-backend.sh`: `delayed ADDRESS MILLISECONDS`.
//!
//! It reads no more of a request than the end of its head, so that GETs are all it understands.

#![allow(clippy::unwrap_used, reason = "a tool for the bench: it may end with a panic")]

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, delay] = &arguments[..] else {
        panic!("usage: delayed ADDRESS MILLISECONDS");
    };
    let delay = Duration::from_millis(delay.parse().unwrap());
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(address).await.unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::task::spawn_local(serve(stream, delay));
        }
    });
}

/// Serves one connection until it ends.
async fn serve(mut stream: TcpStream, delay: Duration) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut head = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let count = stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
        head.extend_from_slice(&chunk[..count]);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            tokio::time::sleep(delay).await;
            stream.write_all(ANSWER).await.ok()?;
        }
    }
}
