//! One request by every protocol of clients.

use std::net::SocketAddr;

use testkit::{Client, Config, Fault, Gateway, H2Client, H3Client, Listener};

/// A gateway with the same routes at a TCP and a QUIC listener.
pub(crate) struct Ways {
    pub(crate) gateway: Gateway,
    /// The host that requests ask for, with its port.
    pub(crate) host: String,
    tcp: SocketAddr,
    udp: SocketAddr,
}

/// What a client got.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) version: &'static str,
    pub(crate) status: u16,
    pub(crate) text: String,
    headers: Vec<(String, Option<String>)>,
}

impl Got {
    /// A field of the response; it was asked for in [`Ways::ask`].
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("{name} was not looked at")).1.clone()
    }
}

impl Ways {
    /// Starts it. `listener` is what both listeners have in them.
    pub(crate) fn start(config: Config, listener: &str) -> Self {
        Self::start_with(config, listener, |listener| listener)
    }

    /// As [`Self::start`], with more of both listeners.
    pub(crate) fn start_with(config: Config, text: &str, more: impl Fn(Listener) -> Listener) -> Self {
        let config = config.block("runtime", "header_underscore_policy", "allow");
        let [tcp, udp] = [Listener::h2c(), Listener::quic()].map(|one| more(one.text(text)));
        let (tcp_address, udp_address) = (tcp.address, udp.address);
        let gateway = Gateway::start(config.listener(tcp).listener(udp));
        Self { gateway, host: "test.example".to_owned(), tcp: tcp_address, udp: udp_address }
    }

    /// Sends a request over HTTP/1.1, HTTP/2 and HTTP/3, one after the other as the iterator is asked for them, and looks at these fields of the
    /// responses.
    pub(crate) fn ask<'a>(
        &'a self,
        method: &'a str,
        target: &'a str,
        fields: &'a [(&'a str, &'a str)],
        look: &'a [&'a str],
    ) -> impl Iterator<Item = Got> + 'a {
        (1..=3).map(move |version| match version {
            1 => self.h1(method, target, fields, look),
            2 => self.h2(method, target, &of_stream(fields), look),
            _ => self.h3(method, target, &of_stream(fields), look),
        })
    }

    /// Sends a request with a body whose length is announced or not, over each protocol in turn; the statuses and texts of the responses, of
    /// which one that was cut has status 0.
    pub(crate) fn put(&self, target: &str, body: &[u8], announced: bool) -> [(u16, String); 3] {
        let of = |result: Result<(u16, String), Fault>| result.unwrap_or_default();
        let mut h1 = Client::connect(self.tcp).unwrap();
        let head = if announced {
            format!("PUT {target} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n", self.host, body.len())
        } else {
            format!("PUT {target} HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n", self.host)
        };
        let mut bytes = head.into_bytes();
        if announced {
            bytes.extend_from_slice(body);
        } else {
            for piece in body.chunks(64) {
                bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                bytes.extend_from_slice(piece);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
        h1.send(bytes).ok();
        let h1 = of(h1.response("PUT").map(|got| (got.status, got.text())));
        let length = body.len().to_string();
        let fields = [("content-length", length.as_str())];
        let fields = if announced { &fields[..] } else { &[] };
        let mut h2 = H2Client::connect(self.tcp).unwrap();
        h2.authority = self.host.clone();
        let h2 = of(h2.request("PUT", target, fields, body).map(|got| (got.status(), got.text())));
        let mut h3 = H3Client::connect(self.udp).unwrap();
        h3.authority = self.host.clone();
        let h3 = of(h3.request("PUT", target, fields, body).and_then(|got| match got.reset {
            None => Ok((got.status(), String::from_utf8_lossy(&got.body).into_owned())),
            Some(_) => Err(Fault::Reset),
        }));
        [h1, h2, h3]
    }

    fn h1(&self, method: &str, target: &str, fields: &[(&str, &str)], look: &[&str]) -> Got {
        let mut named = vec![("Host", self.host.as_str())];
        named.extend(fields);
        let got = Client::connect(self.tcp).unwrap().request(method, target, &named, b"").unwrap();
        let headers = look.iter().map(|name| ((*name).to_owned(), got.header(name))).collect();
        Got { version: "HTTP/1.1", status: got.status, text: got.text(), headers }
    }

    fn h2(&self, method: &str, target: &str, fields: &[(String, &str)], look: &[&str]) -> Got {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let mut client = H2Client::connect(self.tcp).unwrap();
        client.authority = self.host.clone();
        let got = client.request(method, target, &fields, b"").unwrap();
        let headers = look.iter().map(|name| ((*name).to_owned(), got.header(name))).collect();
        Got { version: "HTTP/2", status: got.status(), text: got.text(), headers }
    }

    fn h3(&self, method: &str, target: &str, fields: &[(String, &str)], look: &[&str]) -> Got {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let mut client = H3Client::connect(self.udp).unwrap();
        client.authority = self.host.clone();
        let got = client.request(method, target, &fields, b"").unwrap();
        let of_head = |name: &str| got.head.as_ref().and_then(|head| head.get(name));
        let headers = look.iter().map(|name| ((*name).to_owned(), of_head(name))).collect();
        let text = String::from_utf8_lossy(&got.body).into_owned();
        Got { version: "HTTP/3", status: got.status(), text, headers }
    }
}

/// The fields as HTTP/2 and later have them.
fn of_stream<'a>(fields: &[(&str, &'a str)]) -> Vec<(String, &'a str)> {
    let lower = fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), *value));
    lower.filter(|(name, _)| name != "connection").collect()
}
