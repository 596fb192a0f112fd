//! A client that sends exactly the given bytes.

use crate::wire::{Body, Fault, Framing, Headers, ResponseHead, Wire};
use crate::{ms, seconds};
use socket2::{Domain, SockRef, Socket, Type};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Puts a request together. `Host` is added unless the headers hold one; a body gets its `Content-Length` unless they frame it.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    request_to(HOST, method, target, headers, body)
}

fn request_to(host: &str, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let has = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let mut out = format!("{method} {target} HTTP/1.1\r\n");
    if !has("host") {
        out.push_str(&format!("Host: {host}\r\n"));
    }
    for (name, value) in headers {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() && !has("content-length") && !has("transfer-encoding") {
        out.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    out.push_str("\r\n");
    let mut out = out.into_bytes();
    out.extend_from_slice(body);
    out
}

/// One chunk of a chunked body; an empty one ends it.
pub fn chunk(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

/// A response, read whole.
#[derive(Debug, Clone)]
pub struct Response {
    /// Interim responses that came before.
    pub interim: Vec<ResponseHead>,
    /// Status of the final response.
    pub status: u16,
    /// Its head.
    pub head: ResponseHead,
    /// Its body.
    pub body: Vec<u8>,
    /// Its trailer section.
    pub trailers: Headers,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<String> {
        self.head.headers.get(name)
    }

    /// Whether the connection ends after this response.
    pub fn closes(&self) -> bool {
        let headers = &self.head.headers;
        headers.lists("connection", "close")
            || self.head.framing == Framing::Close
            || (self.head.minor == 0 && !headers.lists("connection", "keep-alive"))
    }
}

/// A connection to a server.
#[derive(Debug)]
pub struct Client {
    /// The socket.
    pub wire: Wire,
    host: &'static str,
}

/// The `Host` of a request that names none.
const HOST: &str = "test.example";

impl Client {
    /// A client on a connection that exists.
    pub fn on(stream: TcpStream) -> Client {
        Client { wire: Wire::new(stream), host: HOST }
    }

    /// Another handle on the same connection, for sending while this one reads.
    pub fn writer(&self) -> Client {
        Client::on(self.wire.stream().try_clone().unwrap())
    }

    /// Names that host in requests which name none.
    pub fn for_host(mut self, host: &'static str) -> Client {
        self.host = host;
        self
    }

    /// Connects.
    pub fn connect(to: SocketAddr) -> Result<Client, Fault> {
        let stream = TcpStream::connect_timeout(&to, seconds(10))?;
        Ok(Client::on(stream))
    }

    /// Connects from another local address.
    pub fn connect_from(from: IpAddr, to: SocketAddr) -> Result<Client, Fault> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&to.into(), seconds(10))?;
        Ok(Client::on(socket.into()))
    }

    /// Connects with a receive buffer so small that the peer notices at once when this side does not read.
    pub fn connect_narrow(to: SocketAddr) -> Result<Client, Fault> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_recv_buffer_size(16 * 1024)?;
        socket.connect_timeout(&to.into(), seconds(10))?;
        Ok(Client::on(socket.into()))
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Fault> {
        self.wire.send(bytes.as_ref())
    }

    /// Sends bytes in pieces of `size` with a pause after each.
    pub fn drip(&mut self, bytes: impl AsRef<[u8]>, size: usize, pause: Duration) -> Result<(), Fault> {
        for piece in bytes.as_ref().chunks(size) {
            self.send(piece)?;
            std::thread::sleep(pause);
        }
        Ok(())
    }

    /// Reads up to the final response's head, with the interim ones before it.
    pub fn head(&mut self, method: &str) -> Result<(Vec<ResponseHead>, ResponseHead), Fault> {
        let mut interim = Vec::new();
        loop {
            let head = self.wire.response_head(method)?;
            if head.status >= 200 || head.status == 101 {
                return Ok((interim, head));
            }
            interim.push(head);
        }
    }

    /// Reads one response whole.
    pub fn response(&mut self, method: &str) -> Result<Response, Fault> {
        let (interim, head) = self.head(method)?;
        let mut body = Vec::new();
        let mut reader = Body::new(head.framing);
        reader.drain(&mut self.wire, |piece| body.extend_from_slice(piece))?;
        Ok(Response { interim, status: head.status, head, body, trailers: reader.trailers })
    }

    /// Sends a request and reads its response.
    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, Fault> {
        self.send(request_to(self.host, method, target, headers, body))?;
        self.response(method)
    }

    /// Sends a GET and reads its response.
    pub fn get(&mut self, target: &str) -> Result<Response, Fault> {
        self.request("GET", target, &[], b"")
    }

    /// Ends the sending direction.
    pub fn finish(&mut self) {
        self.wire.stream().shutdown(std::net::Shutdown::Write).ok();
    }

    /// Makes the coming drop of this client reset the connection.
    pub fn reset(self) {
        SockRef::from(self.wire.stream()).set_linger(Some(Duration::ZERO)).ok();
    }

    /// Sets how long a read may wait.
    pub fn set_timeout(&self, timeout: Duration) {
        self.wire.set_timeout(timeout);
    }

    /// Waits until the peer has ended the connection. Whatever it sends before that is an error.
    pub fn closed(&mut self, within: Duration) -> Result<(), String> {
        if !self.wire.pending().is_empty() {
            return Err(format!("more came: {:?}", String::from_utf8_lossy(self.wire.pending())));
        }
        self.wire.set_timeout(within);
        match self.wire.fill() {
            Ok(0) | Err(Fault::Reset) => Ok(()),
            Ok(_) => Err(format!("more came: {:?}", String::from_utf8_lossy(self.wire.pending()))),
            Err(Fault::TimedOut) => Err(format!("still open after {within:?}")),
            Err(other) => Err(other.to_string()),
        }
    }

    /// Looks whether the peer stays silent and keeps the connection open for `span`.
    pub fn quiet(&mut self, span: Duration) -> Result<(), String> {
        let start = Instant::now();
        self.wire.set_timeout(span);
        let seen = self.wire.fill();
        self.wire.set_timeout(seconds(20));
        match seen {
            Err(Fault::TimedOut) => Ok(()),
            Ok(0) => Err(format!("closed after {:?}", start.elapsed())),
            Ok(_) => Err(format!("more came: {:?}", String::from_utf8_lossy(self.wire.pending()))),
            Err(other) => Err(other.to_string()),
        }
    }

    /// Sends what it can without caring whether the peer still listens: for inputs that get refused half way.
    pub fn send_anyway(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.stream().set_write_timeout(Some(ms(5000))).ok();
        self.send(bytes).ok();
    }
}
