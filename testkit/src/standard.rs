//! A well-behaved HTTP server whose answer is chosen by the path, for the many tests where the backend is not the point.
//!
//! | path | answer |
//! |---|---|
//! | `/echo` | the head and the body of the request, as bytes |
//! | `/bytes/N` | N bytes of the pattern with `Content-Length` |
//! | `/chunked/N` | N bytes of the pattern, chunked |
//! | `/close/N` | N bytes of the pattern up to the end of the connection |
//! | `/upload` | `N right`, or where the body differs from the pattern |
//! | `/status/N` | status N |
//! | `/slow/MS` | 200 after that pause |
//! | `/stream-echo` | each piece of the body as a chunk, as soon as it comes |
//! | anything else | 200 with the server's name |

use crate::backend::{Backend, Conn};
use crate::client::chunk;
use crate::wire::{Fault, RequestHead};
use crate::{ms, pattern};
use std::net::SocketAddr;

const PIECE: usize = 64 * 1024;

impl Backend {
    /// A standard server on a free port.
    pub fn standard(name: &str) -> Backend {
        Backend::standard_at(crate::ports::reserve(), name)
    }

    /// A standard server at `address`.
    pub fn standard_at(address: SocketAddr, name: &str) -> Backend {
        let name = name.to_owned();
        Backend::start_at(address, move |conn| standard(conn, &name))
    }
}

/// Serves one connection as described above.
pub fn standard(conn: &mut Conn, name: &str) -> Result<(), Fault> {
    loop {
        let head = conn.head()?;
        let keep = answer(conn, &head, name)?;
        if !keep || head.headers.lists("connection", "close") {
            return Ok(());
        }
    }
}

fn answer(conn: &mut Conn, head: &RequestHead, name: &str) -> Result<bool, Fault> {
    let path = head.target.split('?').next().unwrap_or("");
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let (what, argument) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let number: u64 = argument.parse().unwrap_or(0);
    let named = [("X-Backend", name)];
    if what == "stream-echo" {
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        while let Some(piece) = conn.piece()? {
            let piece = chunk(piece);
            conn.send(piece)?;
        }
        conn.send("0\r\n\r\n")?;
        return Ok(true);
    }
    let request = conn.body()?;
    let head_only = head.method == "HEAD";
    match what {
        "echo" => conn.respond(200, &named, &[&head.raw[..], &request.body].concat())?,
        "bytes" => {
            conn.send(format!("HTTP/1.1 200 OK\r\nX-Backend: {name}\r\nContent-Length: {number}\r\n\r\n"))?;
            if !head_only {
                stream(number, |piece| conn.send(piece))?;
            }
        }
        "chunked" => {
            conn.send(format!("HTTP/1.1 200 OK\r\nX-Backend: {name}\r\nTransfer-Encoding: chunked\r\n\r\n"))?;
            if !head_only {
                stream(number, |piece| conn.send(chunk(piece)))?;
                conn.send("0\r\n\r\n")?;
            }
        }
        "close" => {
            conn.send(format!("HTTP/1.1 200 OK\r\nX-Backend: {name}\r\n\r\n"))?;
            if !head_only {
                stream(number, |piece| conn.send(piece))?;
            }
            return Ok(false);
        }
        "upload" => {
            let text = match request.pattern.wrong_at() {
                None => format!("{} right", request.body_len()),
                Some(at) => format!("{} bytes, wrong at {at}", request.body_len()),
            };
            conn.respond(200, &named, text.as_bytes())?;
        }
        "status" if number == 204 || number == 304 => {
            conn.send(format!("HTTP/1.1 {number} Scripted\r\nX-Backend: {name}\r\n\r\n"))?;
        }
        "status" => conn.respond(number as u16, &named, b"status\n")?,
        "slow" => {
            conn.pause(ms(number));
            conn.respond(200, &named, name.as_bytes())?;
        }
        _ if head_only => {
            conn.send(format!(
                "HTTP/1.1 200 OK\r\nX-Backend: {name}\r\nContent-Length: {}\r\n\r\n",
                name.len()
            ))?;
        }
        _ => conn.respond(200, &named, name.as_bytes())?,
    }
    Ok(true)
}

/// Hands the first `len` bytes of the pattern to `send`, in pieces.
pub fn stream(len: u64, mut send: impl FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
    let mut piece = vec![0; PIECE];
    let mut sent = 0;
    while sent < len {
        let take = (len - sent).min(PIECE as u64) as usize;
        pattern::fill(sent, &mut piece[..take]);
        send(&piece[..take])?;
        sent += take as u64;
    }
    Ok(())
}
