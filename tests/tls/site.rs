//! A site: HTTP inside TLS, by the name of `server.test`.

use std::net::SocketAddr;

use testkit::h2::{frame, hpack};
use testkit::process::Finished;
use testkit::tls::{Bridge, TlsClient, TlsConnection};
use testkit::tools::curl;
use testkit::{Backend, Client, Config, Gateway, H2Client, Listener};

use crate::rig::Rig;

/// Both versions of HTTP, as curl and ALPN call them.
pub(crate) const VERSIONS: [(&str, &str); 2] = [("--http1.1", "http/1.1"), ("--http2", "h2")];

/// Certificates, and a standard server behind the gateway.
pub(crate) struct Site {
    pub(crate) rig: Rig,
    pub(crate) backend: Backend,
}

impl Site {
    pub(crate) fn new() -> Site {
        Site { rig: Rig::new(), backend: Backend::standard("one") }
    }

    /// An h1s listener without backends; `DIR` in `lines` is the directory of files.
    pub(crate) fn bare_listener(&self, lines: &str) -> Listener {
        let lines = lines.replace("DIR", &self.rig.files.path().display().to_string());
        Listener::h1s(&self.rig.file("s.pem"), &self.rig.file("s.key")).text(&lines)
    }

    pub(crate) fn listener(&self, lines: &str) -> Listener {
        self.bare_listener(lines).backend(self.backend.address)
    }

    pub(crate) fn config(&self, lines: &str) -> Config {
        Config::new().listener(self.listener(lines)).runtime("per_ip_connection_cap", 10_000)
    }

    #[track_caller]
    pub(crate) fn gateway(&self, lines: &str) -> Gateway {
        Gateway::start(self.config(lines))
    }

    /// A client that offers the versions of HTTP named.
    pub(crate) fn client(&self, alpn: &[&str]) -> TlsClient {
        self.rig.client().alpn(alpn)
    }

    /// A port behind which the gateway answers in plain.
    pub(crate) fn bridge(&self, gateway: &Gateway, alpn: &str) -> Bridge {
        Bridge::start(self.client(&[alpn]), gateway.front(), "server.test")
    }

    pub(crate) fn h1(&self, gateway: &Gateway) -> Client {
        Client::connect(self.bridge(gateway, "http/1.1").address).unwrap().for_host("server.test")
    }

    pub(crate) fn h2(&self, gateway: &Gateway) -> H2Client {
        H2Client::connect(self.bridge(gateway, "h2").address).unwrap()
    }

    /// Runs curl against the gateway, which it takes for every host of `.test`, with the authority as the only one it trusts.
    pub(crate) fn curl(&self, front: SocketAddr, args: &[&str]) -> Finished {
        let ca = self.rig.file("ca.pem").display().to_string();
        let to = format!("::{front}");
        curl(&[&["--cacert", &ca, "--connect-to", &to][..], args].concat())
    }
}

/// The first request of a connection over HTTP/2, up to the end of its answer.
pub(crate) fn ask_h2(connection: &mut TlsConnection, path: &str) -> std::io::Result<()> {
    let fields = [(":method", "GET"), (":scheme", "https"), (":authority", "server.test"), (":path", path)];
    let head = frame::headers_in_pieces(1, &hpack::block(&fields), true, 16_384);
    connection.send(&[frame::PREFACE, &frame::settings(&[]), &frame::settings_ack(), &head].concat())?;
    loop {
        let head = connection.exactly(9)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        connection.exactly(length)?;
        let (kind, flags, stream) = (head[3], head[4], head[8]);
        // END_STREAM on DATA of our stream.
        if kind == 0 && flags & 1 == 1 && stream == 1 {
            return Ok(());
        }
    }
}

/// A request over HTTP/1.1, and the status and the body of its answer.
pub(crate) fn ask(connection: &mut TlsConnection, host: &str, path: &str) -> std::io::Result<(u16, String)> {
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(connection.exactly(1)?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let status = head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let body = connection.exactly(length.unwrap_or(0))?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
