//! One backend script for both versions of HTTP, so that every cell of the matrix runs one case.

use crate::backend::{Backend, Conn};
use crate::client::chunk;
use crate::h2::{Call, H2Backend, code};
use crate::pattern::Verifier;
use crate::standard::stream;
use crate::wire::{Fault, Headers};
use crate::{ms, seconds};
use std::net::SocketAddr;
use std::time::Duration;

/// A version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1.
    H1,
    /// HTTP/2 by prior knowledge.
    H2,
    /// HTTP/3, of clients.
    H3,
}

/// A request at a backend, whatever it came by.
pub trait Exchange {
    /// The method.
    fn method(&self) -> String;
    /// The target or `:path`.
    fn path(&self) -> String;
    /// The next piece of the body; `None` at its end.
    fn piece(&mut self) -> Result<Option<Vec<u8>>, Fault>;
    /// Sends an interim response.
    fn interim(&mut self, status: u16, headers: &[(&str, &str)]) -> Result<(), Fault>;
    /// Begins a response whose body has no announced length.
    fn start(&mut self, status: u16, headers: &[(&str, &str)]) -> Result<(), Fault>;
    /// Begins a response with a `content-length`.
    fn start_sized(&mut self, status: u16, headers: &[(&str, &str)], length: u64) -> Result<(), Fault>;
    /// Sends content.
    fn data(&mut self, bytes: &[u8]) -> Result<(), Fault>;
    /// Ends the response, with trailers if there are any.
    fn finish(&mut self, trailers: &[(&str, &str)]) -> Result<(), Fault>;
    /// Sends a head that no body follows.
    fn bare(&mut self, status: u16, headers: &[(&str, &str)]) -> Result<(), Fault>;
    /// Breaks the exchange off: RST_STREAM, or a reset of the connection.
    fn abort(&mut self) -> Fault;
    /// Waits until the peer gives up on the request; whether it did.
    fn abandoned(&mut self, limit: Duration) -> bool;

    /// Reads the body to its end.
    fn drain(&mut self) -> Result<Verifier, Fault> {
        let mut seen = Verifier::default();
        while let Some(piece) = self.piece()? {
            seen.feed(&piece);
        }
        Ok(seen)
    }

    /// Sends a whole response.
    fn respond(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) -> Result<(), Fault> {
        self.start_sized(status, headers, body.len() as u64)?;
        self.data(body)?;
        self.finish(&[])
    }
}

/// HTTP/1.1: whether the start of the response announced a chunked body.
struct OnWire<'a> {
    conn: &'a mut Conn,
    chunked: bool,
}

impl OnWire<'_> {
    fn head(&mut self, status: u16, headers: &[(&str, &str)], framing: &str) -> Result<(), Fault> {
        let mut head = format!("HTTP/1.1 {status} Scripted\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        self.conn.send(format!("{head}{framing}\r\n"))
    }
}

impl Exchange for OnWire<'_> {
    fn method(&self) -> String {
        self.conn.current().method().to_owned()
    }

    fn path(&self) -> String {
        self.conn.current().target().to_owned()
    }

    fn piece(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.conn.piece()?.map(<[u8]>::to_vec))
    }

    fn interim(&mut self, status: u16, headers: &[(&str, &str)]) -> Result<(), Fault> {
        self.head(status, headers, "")
    }

    fn start(&mut self, status: u16, headers: &[(&str, &str)]) -> Result<(), Fault> {
        self.chunked = true;
        self.head(status, headers, "Transfer-Encoding: chunked\r\n")
    }

    fn start_sized(&mut self, status: u16, headers: &[(&str, &str)], length: u64) -> Result<(), Fault> {
        self.chunked = false;
        self.head(status, headers, &format!("Content-Length: {length}\r\n"))
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        match self.chunked {
            true if bytes.is_empty() => Ok(()),
            true => self.conn.send(chunk(bytes)),
            false => self.conn.send(bytes),
        }
    }

    fn finish(&mut self, trailers: &[(&str, &str)]) -> Result<(), Fault> {
        if !self.chunked {
            return Ok(());
        }
        let fields: String = trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.conn.send(format!("0\r\n{fields}\r\n"))
    }

    fn bare(&mut self, status: u16, headers: &[(&str, &str)]) -> Result<(), Fault> {
        self.head(status, headers, "")
    }

    fn abort(&mut self) -> Fault {
        self.conn.reset();
        Fault::Reset
    }

    fn abandoned(&mut self, limit: Duration) -> bool {
        let start = std::time::Instant::now();
        self.conn.hold(limit);
        start.elapsed() < limit
    }
}

impl Exchange for Call {
    fn method(&self) -> String {
        self.request().method()
    }

    fn path(&self) -> String {
        self.request().path()
    }

    fn piece(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        Call::piece(self)
    }

    fn interim(&mut self, status: u16, headers: &[(&str, &str)]) -> Result<(), Fault> {
        self.head(status, headers, false)
    }

    fn start(&mut self, status: u16, headers: &[(&str, &str)]) -> Result<(), Fault> {
        self.head(status, headers, false)
    }

    fn start_sized(&mut self, status: u16, headers: &[(&str, &str)], length: u64) -> Result<(), Fault> {
        let length = length.to_string();
        self.head(status, &[headers, &[("content-length", length.as_str())]].concat(), false)
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        Call::data(self, bytes, false)
    }

    fn finish(&mut self, trailers: &[(&str, &str)]) -> Result<(), Fault> {
        if trailers.is_empty() { Call::data(self, &[], true) } else { self.trailers(trailers) }
    }

    fn bare(&mut self, status: u16, headers: &[(&str, &str)]) -> Result<(), Fault> {
        self.head(status, headers, true)
    }

    fn abort(&mut self) -> Fault {
        self.reset(code::INTERNAL_ERROR).ok();
        Fault::Reset
    }

    fn abandoned(&mut self, limit: Duration) -> bool {
        Call::abandoned(self, limit)
    }
}

/// A request as it arrived, whatever it came by.
#[derive(Debug, Clone)]
pub struct Received {
    /// The method.
    pub method: String,
    /// The target or `:path`.
    pub path: String,
    /// `Host` or `:authority`.
    pub authority: String,
    /// The fields, without the pseudo fields.
    pub headers: Headers,
    /// The first MiB of the body.
    pub body: Vec<u8>,
    /// The whole body, compared with the pattern.
    pub pattern: Verifier,
    /// The trailer section.
    pub trailers: Headers,
    /// Whether it came to its end.
    pub complete: bool,
    /// Which connection it came on, from 1.
    pub connection: usize,
}

/// A backend of either version.
pub enum Origin {
    /// HTTP/1.1.
    H1(Backend),
    /// HTTP/2.
    H2(H2Backend),
}

impl Origin {
    /// Runs `script` on every request.
    pub fn start(
        version: Version,
        script: impl Fn(&mut dyn Exchange) -> Result<(), Fault> + Send + Sync + 'static,
    ) -> Origin {
        match version {
            Version::H1 => Origin::H1(Backend::start(move |conn| {
                loop {
                    conn.head()?;
                    script(&mut OnWire { conn, chunked: false })?;
                    conn.body()?;
                }
            })),
            Version::H2 => Origin::H2(H2Backend::start(move |call| script(call))),
            Version::H3 => panic!("there is no HTTP/3 backend here"),
        }
    }

    /// A server that answers by the path, as [`crate::standard`] describes.
    pub fn standard(version: Version, name: &str) -> Origin {
        let name = name.to_owned();
        Origin::start(version, move |exchange| answer(exchange, &name))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        match self {
            Origin::H1(backend) => backend.address,
            Origin::H2(backend) => backend.address,
        }
    }

    /// How many request heads arrived.
    pub fn request_count(&self) -> usize {
        match self {
            Origin::H1(backend) => backend.request_count(),
            Origin::H2(backend) => backend.request_count(),
        }
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        match self {
            Origin::H1(backend) => backend.connections(),
            Origin::H2(backend) => backend.connections(),
        }
    }

    /// Waits until `count` request heads arrived.
    #[track_caller]
    pub fn wait_requests(&self, count: usize) {
        crate::eventually(&format!("{count} requests at the backend"), seconds(10), || {
            self.request_count() >= count
        });
    }

    /// Panics when anything arrived that breaks the protocol.
    #[track_caller]
    pub fn assert_clean(&self) {
        match self {
            Origin::H1(backend) => backend.assert_clean(),
            Origin::H2(backend) => backend.assert_clean(),
        }
    }

    /// The first requests.
    pub fn requests(&self) -> Vec<Received> {
        match self {
            Origin::H1(backend) => {
                let received = |r: crate::backend::Request| Received {
                    method: r.head.method.clone(),
                    path: r.head.target.clone(),
                    authority: r.head.headers.get("host").unwrap_or_default(),
                    headers: r.head.headers.clone(),
                    body: r.body,
                    pattern: r.pattern,
                    trailers: r.trailers,
                    complete: r.complete,
                    connection: r.connection,
                };
                backend.requests().into_iter().map(received).collect()
            }
            Origin::H2(backend) => {
                let received = |r: crate::h2::H2Request| Received {
                    method: r.method(),
                    path: r.path(),
                    authority: r.header(":authority").unwrap_or_default(),
                    headers: Headers(
                        r.headers.0.into_iter().filter(|(name, _)| !name.starts_with(':')).collect(),
                    ),
                    body: r.body,
                    pattern: r.pattern,
                    trailers: r.trailers,
                    complete: r.complete,
                    connection: r.connection,
                };
                backend.requests().into_iter().map(received).collect()
            }
        }
    }

    /// The last request.
    #[track_caller]
    pub fn last_request(&self) -> Received {
        self.requests().pop().expect("no request arrived")
    }
}

fn answer(exchange: &mut dyn Exchange, name: &str) -> Result<(), Fault> {
    let path = exchange.path();
    let path = path.split('?').next().unwrap_or("");
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let (what, argument) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let number: u64 = argument.parse().unwrap_or(0);
    let named = [("x-backend", name)];
    if what == "stream-echo" {
        exchange.start(200, &named)?;
        while let Some(piece) = exchange.piece()? {
            exchange.data(&piece)?;
        }
        return exchange.finish(&[]);
    }
    let mut body = Vec::new();
    let mut seen = Verifier::default();
    while let Some(piece) = exchange.piece()? {
        if what == "echo" {
            body.extend_from_slice(&piece);
        }
        seen.feed(&piece);
    }
    if exchange.method() == "HEAD" {
        let length = number.to_string();
        return exchange.bare(200, &[("x-backend", name), ("content-length", &length)]);
    }
    match what {
        "echo" => exchange.respond(200, &named, &body),
        "bytes" => {
            exchange.start_sized(200, &named, number)?;
            stream(number, |piece| exchange.data(piece))?;
            exchange.finish(&[])
        }
        "chunked" => {
            exchange.start(200, &named)?;
            stream(number, |piece| exchange.data(piece))?;
            exchange.finish(&[])
        }
        "upload" => {
            let text = match seen.wrong_at() {
                None => format!("{} right", seen.len()),
                Some(at) => format!("{} bytes, wrong at {at}", seen.len()),
            };
            exchange.respond(200, &named, text.as_bytes())
        }
        "status" if number == 204 || number == 304 => exchange.bare(number as u16, &named),
        "status" => exchange.respond(number as u16, &named, b"status\n"),
        "slow" => {
            std::thread::sleep(ms(number));
            exchange.respond(200, &named, name.as_bytes())
        }
        _ => exchange.respond(200, &named, name.as_bytes()),
    }
}
